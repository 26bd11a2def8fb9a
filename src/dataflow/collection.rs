//! Collections: differential's multisets, which may retract rows.

use std::rc::Rc;

use differential_dataflow::lattice::Lattice;
use differential_dataflow::operators::iterate::Iterate as _;
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::{Scope, StreamVec};
use timely::order::Product;
use timely::progress::Timestamp;

use crate::checkpoint::manifest::EntryRule;
use crate::dataflow::plan::{Origin, StepKind, union};
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::dataflow::{BuildContext, Dataflow};
use crate::operator::changes::changes;
use crate::panic_context;
use crate::position::SourceId;
use crate::record::{Optional, Record};
use crate::time::Epoch;

/// The timestamp inside `iterate`: the epoch and the round.
pub type Round = Product<Epoch, u64>;

/// Timestamps that collections work under: the epoch, or the epoch and round inside `iterate`.
pub trait Clock: Timestamp + Lattice + Ord {}
impl Clock for Epoch {}
impl Clock for Round {}

/// A multiset of rows that may retract rows.
#[must_use = "a collection that nothing takes is not computed for anyone"]
pub struct Collection<'s, D: 'static, C: Clock = Epoch> {
    pub(super) inner: VecCollection<'s, C, D, isize>,
    context: Rc<BuildContext>,
    /// The dataflow; `None` inside loops: `iterate` works for every inner lifetime and cannot promise the
    /// outer one.
    pub(super) flow: Option<Dataflow<'s>>,
    pub(super) sources: Rc<[SourceId]>,
    pub(super) origin: Origin,
}

impl<'s, D: Record> Collection<'s, D> {
    pub(super) fn outer(
        inner: StreamVec<'s, Epoch, (D, Epoch, isize)>,
        flow: Dataflow<'s>,
        origin: Origin,
    ) -> Self {
        Self {
            inner: inner.as_collection(),
            context: flow.context().clone(),
            flow: Some(flow),
            sources: Rc::new([]),
            origin,
        }
    }
}

// The bounds are on the methods, so that a missing derive is reported as such and not as "no method found".
impl<'s, D: 'static, C: Clock> Collection<'s, D, C> {
    /// The result of a step.
    fn with<U: 'static>(
        &self,
        inner: VecCollection<'s, C, U, isize>,
        origin: Origin,
    ) -> Collection<'s, U, C> {
        let (context, sources) = (self.context.clone(), self.sources.clone());
        Collection {
            inner,
            context,
            flow: self.flow,
            sources,
            origin,
        }
    }

    /// Like [`Collection::with`], for a step that also reads from `other`: its watermark is that of the
    /// sources of both.
    fn with_both<U: 'static, D2: 'static>(
        &self,
        other: &Collection<'s, D2, C>,
        inner: VecCollection<'s, C, U, isize>,
        origin: Origin,
    ) -> Collection<'s, U, C> {
        Collection {
            sources: union(&self.sources, &other.sources),
            ..self.with(inner, origin)
        }
    }

    /// Maps each row through `f`.
    pub fn map<U: Record>(&self, f: impl Fn(D) -> U + 'static) -> Collection<'s, U, C>
    where
        D: Record,
    {
        self.with(self.inner.clone().map(f), self.origin.through("map"))
    }

    /// Maps each row to any number of rows.
    pub fn flat_map<U: Record, I: IntoIterator<Item = U> + 'static>(
        &self,
        f: impl Fn(D) -> I + 'static,
    ) -> Collection<'s, U, C>
    where
        D: Record,
    {
        self.with(self.inner.clone().flat_map(f), self.origin.through("flat_map"))
    }

    /// Keeps the rows for which `f` returns true.
    pub fn filter(&self, f: impl Fn(&D) -> bool + 'static) -> Self
    where
        D: Record,
    {
        self.with(self.inner.clone().filter(f), self.origin.through("filter"))
    }

    /// The rows of both collections, added up: SQL's `UNION ALL`.
    pub fn concat(&self, other: &Self) -> Self
    where
        D: Record,
    {
        let origin = self.origin.or("concat", &other.origin);
        self.with_both(other, self.inner.clone().concat(other.inner.clone()), origin)
    }

    /// Negates the multiplicity of each row.
    pub fn negate(&self) -> Self
    where
        D: Record,
    {
        self.with(self.inner.clone().negate(), self.origin.through("negate"))
    }

    /// Unwraps options and drops rows that are `None`.
    pub fn flatten(&self) -> Collection<'s, D::Item, C>
    where
        D: Optional,
    {
        self.through("flatten", Optional::into_option)
    }

    pub(super) fn through<U: Record>(
        &self,
        operator: &str,
        f: impl Fn(D) -> Option<U> + 'static,
    ) -> Collection<'s, U, C>
    where
        D: Record,
    {
        self.with(self.inner.clone().flat_map(f), self.origin.through(operator))
    }

    /// Each row once, however often it occurs: SQL's `DISTINCT`.
    #[track_caller]
    pub fn distinct(&self, name: &str) -> Self
    where
        D: Record,
    {
        let origin = self.context.step(name, StepKind::Distinct, &[&self.origin]);
        self.with(self.inner.clone().distinct(), origin)
    }

    /// Each row that is in either collection, once: SQL's `UNION`. [`concat`](Self::concat) is `UNION ALL`.
    #[track_caller]
    pub fn union(&self, name: &str, other: &Self) -> Self
    where
        D: Record,
    {
        self.concat(other).distinct(name)
    }

    /// Each row that is in both collections, once: SQL's `INTERSECT`.
    #[track_caller]
    pub fn intersect(&self, name: &str, other: &Self) -> Self
    where
        D: Record,
    {
        let input = self.origin.or("concat", &other.origin);
        let origin = self
            .context
            .step_as(name, (StepKind::Distinct, "intersect"), &[&input]);
        let (one, two) = (self.inner.clone().distinct(), other.inner.clone().distinct());
        self.with_both(other, shared(one.concat(two)), origin)
    }

    /// Each row of this collection that is not in `other`, once: SQL's `EXCEPT`.
    #[track_caller]
    pub fn except(&self, name: &str, other: &Self) -> Self
    where
        D: Record,
    {
        let inputs = [&self.origin, &other.origin];
        let origin = self
            .context
            .step_as(name, (StepKind::Distinct, "except"), &inputs);
        let (one, two) = (self.inner.clone().distinct(), other.inner.clone().distinct());
        let in_both = shared(one.clone().concat(two));
        self.with_both(other, one.concat(in_both.negate()), origin)
    }

    /// Escape hatch: passes differential's own collection to `f` and takes one back. If `f` also reads
    /// another collection, checkpoints do not notice a change of it: declare a
    /// [version](crate::dataflow::table::View::version) and raise it when that changes.
    pub fn differential<U: Record>(
        &self,
        f: impl FnOnce(VecCollection<'s, C, D, isize>) -> VecCollection<'s, C, U, isize>,
    ) -> Collection<'s, U, C>
    where
        D: Record,
    {
        self.with(f(self.inner.clone()), self.origin.through("differential"))
    }
}

/// The rows of two sets that occur in both.
fn shared<D: Record, C: Clock>(both: Rows<'_, D, C>) -> Rows<'_, D, C> {
    both.threshold(|_, times| isize::from(*times == 2))
}

/// Rows that are pairs and can be joined by their first element.
#[diagnostic::on_unimplemented(
    message = "only pairs can be joined by their first half, and `{Self}` is none",
    label = "not pairs",
    note = "make pairs of the rows, with the key first: `.map(|row| (row.id, row))`"
)]
pub trait Pair: Record {
    /// The type of the first element.
    type Key: Record;
    /// The type of the second element.
    type Value: Record;
    /// Views the rows as pairs.
    #[doc(hidden)]
    fn pairs<C: Clock>(rows: Rows<'_, Self, C>) -> Rows<'_, (Self::Key, Self::Value), C>;
    /// Views pairs as the rows.
    #[doc(hidden)]
    fn of_pairs<C: Clock>(pairs: Rows<'_, (Self::Key, Self::Value), C>) -> Rows<'_, Self, C>;
}

/// Differential's own collection.
type Rows<'s, D, C> = VecCollection<'s, C, D, isize>;

#[diagnostic::do_not_recommend]
impl<K: Record, V: Record> Pair for (K, V) {
    type Key = K;
    type Value = V;
    fn pairs<C: Clock>(rows: Rows<'_, Self, C>) -> Rows<'_, Self, C> {
        rows
    }
    fn of_pairs<C: Clock>(pairs: Rows<'_, Self, C>) -> Rows<'_, Self, C> {
        pairs
    }
}

impl<'s, D: 'static, C: Clock> Collection<'s, D, C> {
    /// Calls `f` with all pairs that share a first element: `f` gets the second elements in order, each with
    /// its multiplicity, and returns any number of rows for that key.
    ///
    /// Meant for use inside [`iterate`](Collection::iterate). Outside of it,
    /// [`group_by`](Collection::group_by) results in a table, and most aggregates cost less than reading the
    /// whole group at each change.
    #[track_caller]
    pub fn reduce<R: Record, I: IntoIterator<Item = R>>(
        &self,
        name: &str,
        f: impl Fn(&D::Key, &[(&D::Value, isize)]) -> I + 'static,
    ) -> Collection<'s, (D::Key, R), C>
    where
        D: Pair,
    {
        let origin = self
            .context
            .step_as(name, (StepKind::Group, "reduce_pairs"), &[&self.origin]);
        let label: Rc<str> = format!("reduce `{name}`").into();
        let reduced = D::pairs(self.inner.clone()).reduce(move |key, rows, out| {
            let made = panic_context::run_in_step(&label, || f(key, rows));
            out.extend(made.into_iter().map(|row| (row, 1)));
        });
        self.with(reduced, origin)
    }

    /// Joins pairs by their first element.
    pub fn join<V2: Record, R: Record>(
        &self,
        other: &Collection<'s, (D::Key, V2), C>,
        f: impl Fn(&D::Key, &D::Value, &V2) -> R + 'static,
    ) -> Collection<'s, R, C>
    where
        D: Pair,
    {
        let origin = self.origin.and("join", &other.origin);
        let joined = D::pairs(self.inner.clone()).join_map(other.inner.clone(), f);
        self.with_both(other, joined, origin)
    }

    /// Keeps the pairs whose first element is in `keys`.
    pub fn semijoin(&self, keys: &Collection<'s, D::Key, C>) -> Self
    where
        D: Pair,
    {
        let origin = self.origin.and("semijoin", &keys.origin);
        let found = D::pairs(self.inner.clone()).semijoin(keys.inner.clone().distinct());
        self.with_both(keys, D::of_pairs(found), origin)
    }

    /// Keeps the pairs whose first element is not in `keys`.
    pub fn antijoin(&self, keys: &Collection<'s, D::Key, C>) -> Self
    where
        D: Pair,
    {
        let origin = self.origin.and("antijoin", &keys.origin);
        let left = D::pairs(self.inner.clone()).antijoin(keys.inner.clone().distinct());
        self.with_both(keys, D::of_pairs(left), origin)
    }
}

/// The inside of a loop: brings in collections from outside.
pub struct Loop<'i> {
    scope: Scope<'i, Round>,
    context: Rc<BuildContext>,
}

impl<'i> Loop<'i> {
    /// Brings in an outer collection, which is the same in every round.
    pub fn bring<D: Record>(&self, outer: &Collection<'_, D>) -> Collection<'i, D, Round> {
        let inner = outer.inner.clone().enter(self.scope);
        let (context, sources, origin) = (self.context.clone(), outer.sources.clone(), outer.origin.clone());
        Collection {
            inner,
            context,
            flow: None,
            sources,
            origin,
        }
    }
}

impl<'s, D: 'static> Collection<'s, D> {
    /// The dataflow that the collection belongs to.
    pub(super) fn outside(&self) -> Dataflow<'s> {
        self.flow
            .expect("collections without a flow exist only inside loops, under another clock")
    }

    /// A fixed point over this collection and `other`, as one step.
    #[track_caller]
    pub(super) fn fixed_point<D2: Record, U: Record>(
        &self,
        name: &str,
        operator: &str,
        other: &Collection<'s, D2>,
        f: impl FnOnce(Rows<'s, D, Epoch>, Rows<'s, D2, Epoch>) -> Rows<'s, U, Epoch>,
    ) -> Collection<'s, U>
    where
        D: Record,
    {
        let inputs = [&self.origin, &other.origin];
        let origin = self.context.step_as(name, (StepKind::Iterate, operator), &inputs);
        self.with_both(other, f(self.inner.clone(), other.inner.clone()), origin)
    }

    /// Applies `step` repeatedly until nothing changes any more.
    #[track_caller]
    pub fn iterate(
        &self,
        name: &str,
        step: impl for<'i> FnOnce(Loop<'i>, Collection<'i, D, Round>) -> Collection<'i, D, Round>,
    ) -> Collection<'s, D>
    where
        D: Record,
    {
        let origin = self.context.step(name, StepKind::Iterate, &[&self.origin]);
        let (context, mut sources) = (self.context.clone(), self.sources.clone());
        let inner = self.inner.clone().iterate(|scope, rows| {
            let inside = Collection {
                inner: rows,
                context: context.clone(),
                flow: None,
                sources: sources.clone(),
                origin: origin.clone(),
            };
            let result = step(Loop { scope, context }, inside);
            sources = union(&sources, &result.sources);
            let mut plan = self.context.plan.borrow_mut();
            plan.closes(&origin, &self.origin, &result.origin);
            result.inner
        });
        Collection {
            sources,
            ..self.with(inner, origin)
        }
    }
}

impl<'s, T: 'static> Stream<'s, T> {
    /// The events as a collection, each with multiplicity one. It only grows; most data is better kept as a
    /// table or in windows.
    ///
    /// Checkpoints identify these rows by the operators before them, as in `changes filter(payments)`.
    /// Streams that differ in closures alone are told apart by the order of the calls. A
    /// [`try_map`](Self::try_map) before this gives the rows a name.
    pub fn changes(&self) -> Collection<'s, T>
    where
        T: Record,
    {
        let context = self.flow.context();
        let (name, step) = (
            context.plan.borrow().identity_of_changes(&self.origin),
            self.origin.step(),
        );
        let handle =
            context.handle::<T, i64>((name, step), &self.origin, context.version(step), EntryRule::Sum);
        let inner = changes(self.inner.clone(), &handle);
        let mut rows = Collection::outer(inner, self.flow, self.origin.through("changes"));
        rows.sources = self.sources.clone();
        rows
    }
}

impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// The rows as a collection.
    pub fn rows(&self) -> Collection<'s, (K, V)>
    where
        K: Record,
        V: Record,
    {
        let origin = self.meta.origin.through("rows");
        let mut rows = Collection::outer(self.collection().inner, self.flow, origin);
        rows.sources = self.meta.sources.clone();
        rows
    }
}
