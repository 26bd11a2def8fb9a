//! Tables: collections with at most one row a key.
//!
//! A table exists in one of two forms, and the other is created when a step first needs it: net changes by
//! key, which windows and keyed topics produce and joins and views consume; or a differential collection.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Duration;

use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::dataflow::Dataflow;
use crate::dataflow::names::{Names, NoKey, check_names};
use crate::dataflow::plan::{Origin, StepKind};
use crate::operator::backfill::BackfillDemand;
use crate::operator::join::updates;
use crate::operator::net::net;
use crate::panic_context;
use crate::position::SourceId;
use crate::record::{Change, Optional, Ranked, Record};
use crate::time::{Epoch, WindowLayout, Windowed};
use crate::view::ViewSpec;

type Changes<'s, K, V> = StreamVec<'s, Epoch, Change<K, V>>;
type Rows<'s, K, V> = VecCollection<'s, Epoch, (K, V), isize>;

mod join;
mod rekey;

/// At most one value a key.
pub struct Table<'s, K: 'static, V: 'static> {
    pub(super) flow: Dataflow<'s>,
    pub(super) meta: TableMeta,
    changes: OnceCell<Changes<'s, K, V>>,
    /// Creates the changes from rows. Set only for tables that start as rows, so that none of it is compiled
    /// for windowed tables.
    net: Option<Box<dyn Fn() -> Changes<'s, K, V> + 's>>,
    rows: OnceCell<Rows<'s, K, V>>,
}

/// Properties of a table besides its rows.
#[derive(Clone)]
pub(super) struct TableMeta {
    pub(super) origin: Origin,
    pub(super) names: Vec<String>,
    pub(super) sources: Rc<[SourceId]>,
    pub(super) windows: Option<WindowLayout>,
    /// The sources of the step that assigned the windows: their watermark closes the windows, whatever was
    /// joined since.
    pub(super) window_sources: Rc<[SourceId]>,
    pub(super) keep: Option<Duration>,
    /// Set when a step consumes the rows of windows as they close.
    pub(super) when_closed: Vec<Rc<Cell<bool>>>,
    /// Set when a step other than a view consumes the rows.
    pub(super) demand: BackfillDemand,
}

/// The key of one table as the key of another: `K` itself, the key of a [`Windowed<K>`](Windowed) or
/// [`Ranked<K>`](Ranked), the first element of a pair.
#[diagnostic::on_unimplemented(
    message = "a table keyed by `{Self}` cannot be joined with one keyed by `{K}`",
    label = "keys differ",
    note = "use `join_on(name, &other, |key, value| other_key, ..)`"
)]
pub trait KeyedRows<K> {
    /// Whether rows of this key are on the same worker as that key, because both hash alike.
    #[doc(hidden)]
    const LIVES_THERE: bool;
    /// The key in the other table.
    fn key(&self) -> K;
}
impl<K: Clone> KeyedRows<K> for K {
    const LIVES_THERE: bool = true;
    fn key(&self) -> K {
        self.clone()
    }
}
impl<K: Clone> KeyedRows<K> for Windowed<K> {
    const LIVES_THERE: bool = true;
    fn key(&self) -> K {
        self.key.clone()
    }
}
impl<K: Clone> KeyedRows<K> for Ranked<K> {
    const LIVES_THERE: bool = true;
    fn key(&self) -> K {
        self.key.clone()
    }
}
impl<A: Clone, B> KeyedRows<A> for (A, B) {
    const LIVES_THERE: bool = false;
    fn key(&self) -> A {
        self.0.clone()
    }
}
// With a single candidate, the compiler infers the other table's key from it and reports "mismatched types".
#[diagnostic::do_not_recommend]
impl<K> KeyedRows<NoKey<0>> for K {
    const LIVES_THERE: bool = false;
    fn key(&self) -> NoKey<0> {
        unreachable!("no table has this key")
    }
}

impl<'s, K: Record, V: Record> Table<'s, K, V> {
    pub(super) fn from_changes(
        flow: Dataflow<'s>,
        changes: Changes<'s, K, V>,
        origin: Origin,
        names: Vec<String>,
        sources: Rc<[SourceId]>,
    ) -> Self {
        let meta = TableMeta {
            origin,
            names,
            sources,
            windows: None,
            window_sources: Rc::new([]),
            keep: None,
            when_closed: Vec::new(),
            demand: BackfillDemand::default(),
        };
        Self::of_changes(flow, changes, meta)
    }

    pub(super) fn of_changes(flow: Dataflow<'s>, changes: Changes<'s, K, V>, meta: TableMeta) -> Self {
        Self {
            flow,
            meta,
            changes: changes.into(),
            net: None,
            rows: OnceCell::new(),
        }
    }

    pub(super) fn from_rows(flow: Dataflow<'s>, rows: Rows<'s, K, V>, meta: TableMeta) -> Self {
        let (updates, step) = (rows.inner.clone(), meta.origin.step().to_owned());
        Self {
            flow,
            meta,
            changes: OnceCell::new(),
            net: Some(Box::new(move || {
                net(updates.clone(), &step, flow.context().halt.clone())
            })),
            rows: rows.into(),
        }
    }

    pub(super) fn changes(&self) -> Changes<'s, K, V> {
        let make = || self.net.as_ref().expect("a table has one of its forms")();
        self.changes.get_or_init(make).clone()
    }

    pub(super) fn collection(&self) -> Rows<'s, K, V> {
        self.meta.demand.set(true);
        let make = || {
            let changes = self.changes.get().expect("a table has one of its forms");
            updates(changes.clone()).as_collection()
        };
        self.rows.get_or_init(make).clone()
    }
}

// The bounds are on the methods, so that a missing derive is reported as such and not as "no method found".
impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// Names the key's fields in URLs and columns, for keys without names (a table read from a topic).
    #[track_caller]
    pub fn key_named(mut self, names: impl Names<K>) -> Self
    where
        K: Record,
        V: Record,
    {
        self.meta.names = check_names(self.flow, names.names());
        self
    }

    /// Maps each row's value through `f`; keys are unchanged.
    pub fn map<R: Record>(&self, f: impl Fn(&K, V) -> R + 'static) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        self.each("map", move |key, value| Some(f(key, value)))
    }

    /// Keeps the rows for which `f` returns true.
    pub fn filter(&self, f: impl Fn(&K, &V) -> bool + 'static) -> Table<'s, K, V>
    where
        K: Record,
        V: Record,
    {
        self.each("filter", move |key, value| f(key, &value).then_some(value))
    }

    /// Maps each row's value through `f` and drops rows for which it returns `None`.
    pub fn filter_map<R: Record>(&self, f: impl Fn(&K, V) -> Option<R> + 'static) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        self.each("filter_map", f)
    }

    /// Unwraps options and drops rows that are `None`: for joins and aggregates that have a result for some
    /// keys only.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build<'s>(bids: Table<'s, u32, i64>, reserves: &Table<'s, u32, i64>) {
    /// let sold = bids
    ///     .join("met", reserves, |_, bid, reserve| (bid >= *reserve).then_some(bid))
    ///     .flatten();
    /// # sold.view("sold");
    /// # }
    /// ```
    pub fn flatten(&self) -> Table<'s, K, V::Item>
    where
        K: Record,
        V: Optional,
    {
        self.each("flatten", |_, value| value.into_option())
    }

    fn each<R: Record>(&self, operator: &str, f: impl Fn(&K, V) -> Option<R> + 'static) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        type Builder<K, R> = CapacityContainerBuilder<Vec<Change<K, R>>>;
        let label: Rc<str> = format!("the map after `{}`", self.meta.origin.step()).into();
        let inner = self
            .changes()
            .unary::<Builder<K, R>, _, _, _>(Pipeline, "map", move |_, _| {
                move |input, output| {
                    let _work = panic_context::enter(&label);
                    input.for_each(|capability, data| {
                        let mut session = output.session(&capability);
                        for Change { key, old, new } in data.drain(..) {
                            let old = old.and_then(|old| f(&key, old));
                            let new = new.and_then(|new| f(&key, new));
                            if old != new {
                                session.give(Change { key, old, new });
                            }
                        }
                    });
                }
            });
        let meta = TableMeta {
            origin: self.meta.origin.through(operator),
            ..self.meta.clone()
        };
        Table::of_changes(self.flow, inner, meta)
    }

    /// Serves the table over HTTP under this name. Views have their own namespace, so the name may be the
    /// step's.
    #[track_caller]
    pub fn view(&self, name: &str) -> &Self
    where
        K: Record,
        V: Record,
    {
        self.view_with(name, |view| view)
    }

    /// Like [`Table::view`], with settings: `table.view_with("spend", |v|
    /// v.history(Duration::from_secs(600)))`.
    #[track_caller]
    pub fn view_with(&self, name: &str, settings: impl FnOnce(View) -> View) -> &Self
    where
        K: Record,
        V: Record,
    {
        let context = self.flow.context();
        if !context.output(name, StepKind::View, &self.meta.origin) {
            return self;
        }
        let mut spec = ViewSpec::new(name);
        spec.key = self.meta.names.clone();
        spec.sources = self.meta.sources.to_vec();
        // A join revises rows but closes no windows: what matters is how long the step that assigned the
        // windows takes corrections.
        let closed_by = match &*self.meta.window_sources {
            [] => &self.meta.sources,
            _ => &self.meta.window_sources,
        };
        spec.held_back = self.flow.context().corrected_for(closed_by);
        spec.windows = self.meta.windows;
        spec.window_sources = self.meta.window_sources.to_vec();
        spec.keep = self.meta.keep;
        let View {
            spec,
            history,
            version,
        } = settings(View {
            spec,
            history: None,
            version: 1,
        });
        // A view that is new among restored steps needs their rows re-emitted.
        if !self
            .flow
            .serve(self.changes(), &self.meta.origin, spec, (history, version))
        {
            self.meta.demand.set(true);
        }
        self
    }
}

/// Settings of a view.
pub struct View {
    spec: ViewSpec,
    history: Option<Duration>,
    version: u32,
}

impl View {
    /// How far back `as_of` may reach. Default: the setting `views.history`, which is one minute unless set.
    pub fn history(mut self, history: Duration) -> Self {
        self.history = Some(history);
        self
    }

    /// Declares a version of the rows: raise it when a closure before the view has changed. A checkpoint of
    /// an earlier version is then subject to
    /// [`on_new_plan`](crate::runtime::checkpoints::CheckpointSettings::on_new_plan). Default 1.
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// Names the fields of keys without names (tuples, single values), as [`Table::key_named`] does: for rows
    /// of a [`Collection`](crate::dataflow::collection::Collection).
    pub fn keys<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.spec.key = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Names the fields of values without names (tuples, single values).
    pub fn fields<const N: usize>(mut self, names: [&str; N]) -> Self {
        self.spec.value = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// A description of the view for `GET /v1/views`.
    pub fn describe(mut self, text: &str) -> Self {
        text.clone_into(&mut self.spec.description);
        self
    }
}
