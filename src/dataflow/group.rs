//! Groups: rows by a key, and their results, maintained as rows change.

use std::cmp::Reverse;
use std::rc::Rc;

use differential_dataflow::VecCollection;

use crate::dataflow::Dataflow;
use crate::dataflow::collection::{Collection, Pair};
use crate::dataflow::names::{Names, check_names};
use crate::dataflow::plan::{Origin, StepKind};
use crate::dataflow::table::{Table, View};
use crate::operator::aggregate::{Aggregate, AggregateBuilder};
use crate::operator::group::aggregate::Aggregated;
use crate::operator::group::reduce::Reduced;
use crate::operator::group::top::TopK;
use crate::operator::group::unique::Unique;
use crate::operator::group::{Grouping, group};
use crate::position::SourceId;
use crate::record::{Ranked, Record};
use crate::time::Epoch;

/// Rows in groups, to be aggregated.
#[must_use]
pub struct Grouped<'s, K: 'static, D: 'static> {
    rows: VecCollection<'s, Epoch, (K, D), isize>,
    flow: Dataflow<'s>,
    names: Vec<String>,
    sources: Rc<[SourceId]>,
    origin: Origin,
}

impl<'s, K: 'static, D: 'static> Grouped<'s, K, D> {
    /// Aggregates each group. `name` is the step's. A group that becomes empty loses its row.
    #[track_caller]
    pub fn aggregate<A: Aggregate<D>>(
        self,
        name: &str,
        build: impl FnOnce(AggregateBuilder<D>) -> A,
    ) -> Table<'s, K, A::Out>
    where
        K: Record,
        D: Record,
    {
        let fold = build(AggregateBuilder::default());
        self.group(
            name,
            (StepKind::Group, StepKind::Group.id()),
            "aggregate",
            Aggregated(fold),
        )
    }

    /// The `k` rows of each group with the greatest `by`, each with its rank, starting at 1. Ties are broken
    /// by the smaller row. For the smallest, use `Reverse(..)` of [`std::cmp`].
    ///
    /// The table has a row for each rank, keyed by [`Ranked`]: URLs and columns have the group's own fields
    /// and `rank`. A change costs about the logarithm of the group's size, plus `k`.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build(merchants: Table<u32, (String, i64)>) {
    /// merchants
    ///     .group_by("country", |_, (country, _)| country.clone())
    ///     .top_k("best", 3, |(_, (_, turnover))| *turnover)
    ///     .map(|_, (merchant, (_, turnover))| (merchant, turnover))
    ///     .view_with("best_by_country", |view| view.fields(["merchant", "turnover"]));
    /// # }
    /// ```
    #[track_caller]
    pub fn top_k<O: Ord + 'static>(
        self,
        name: &str,
        k: u32,
        by: impl Fn(&D) -> O + 'static,
    ) -> Table<'s, Ranked<K>, D>
    where
        K: Record,
        D: Record,
    {
        let order = move |row: &D| Reverse(by(row));
        self.group(name, (StepKind::Group, "top_k"), "top_k", TopK { k, order })
    }

    /// A row for each group: the result of `f` over all its rows, which it gets in order, each with its
    /// multiplicity.
    ///
    /// A change costs as much as the group has rows, because `f` reads all of them again. Prefer an
    /// [aggregate](Self::aggregate) or [`top_k`](Self::top_k), which cost at most the logarithm.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build(readings: &Collection<(u32, i64)>) {
    /// let medians = readings.group_by("sensor", |(sensor, _)| *sensor).reduce("median", |_, rows| {
    ///     let half = rows.iter().map(|(_, n)| n).sum::<u64>() / 2;
    ///     let mut before = 0;
    ///     let middle = rows.iter().find(|(_, n)| {
    ///         before += n;
    ///         before > half
    ///     });
    ///     middle.map(|((_, reading), _)| *reading)
    /// });
    /// # medians.view("medians");
    /// # }
    /// ```
    #[track_caller]
    pub fn reduce<R: Record>(self, name: &str, f: impl Fn(&K, &[(D, u64)]) -> R + 'static) -> Table<'s, K, R>
    where
        K: Record,
        D: Record,
    {
        self.group(name, (StepKind::Group, "reduce"), "reduce", Reduced(f))
    }

    /// A table of the groups' results. `what` is the step's kind and operator; `work` names it in panic
    /// messages.
    #[track_caller]
    fn group<G: Grouping<K, D>>(
        self,
        name: &str,
        what: (StepKind, &str),
        work: &str,
        grouping: G,
    ) -> Table<'s, G::Key, G::Value>
    where
        K: Record,
        D: Record,
    {
        let context = self.flow.context();
        let origin = context.step_as(name, what, &[&self.origin]);
        let halt = context.halt.clone();
        let changes = group(self.rows.inner, (name, work), grouping, halt);
        Table::from_changes(self.flow, changes, origin, self.names, self.sources)
    }
}

impl<'s, D: 'static> Collection<'s, D> {
    /// Groups rows, to be aggregated. `names` are the key's field names.
    #[track_caller]
    pub fn group_by<K: Record>(
        &self,
        names: impl Names<K>,
        key: impl Fn(&D) -> K + 'static,
    ) -> Grouped<'s, K, D>
    where
        D: Record,
    {
        let flow = self.outside();
        let names = check_names(flow, names.names());
        Grouped {
            rows: self.inner.clone().map(move |row| (key(&row), row)),
            flow,
            names,
            sources: self.sources.clone(),
            origin: self.origin.through("group_by"),
        }
    }
}

impl<'s, D: Pair> Collection<'s, D> {
    /// Turns pairs into a table of keys with a row each. `name` is the step's, `names` are those of the key's
    /// fields.
    ///
    /// No two pairs may have the same key: if they do, the service halts and names the step, the epoch and
    /// the key. To detect that, each row is kept. Where several rows are expected, [group](Self::group_by)
    /// them and pick one.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build<'s>(users: Table<'s, u32, String>, banned: &Collection<'s, u32>) {
    /// let active = users.rows().antijoin(banned).to_table("active", "user");
    /// # active.view("active_users");
    /// # }
    /// ```
    #[track_caller]
    pub fn to_table(&self, name: &str, names: impl Names<D::Key>) -> Table<'s, D::Key, D::Value> {
        let flow = self.outside();
        let grouped = Grouped {
            rows: D::pairs(self.inner.clone()),
            flow,
            names: check_names(flow, names.names()),
            sources: self.sources.clone(),
            origin: self.origin.clone(),
        };
        grouped.group(name, (StepKind::Rekey, "to_table"), "table", Unique)
    }
}

impl<'s, D: 'static> Collection<'s, D> {
    /// The multiplicity of each row as a `u64`, keyed by the row. `name` is the step's, `names` are those of
    /// the row's fields.
    #[track_caller]
    pub fn count(&self, name: &str, names: impl Names<D>) -> Table<'s, D, u64>
    where
        D: Record,
    {
        let flow = self.outside();
        self.counted(check_names(flow, names.names())).group(
            name,
            (StepKind::Group, "count"),
            "count",
            Aggregated(AggregateBuilder::<()>::default().count()),
        )
    }

    /// Serves the rows over HTTP under this name, each with its multiplicity in the field `count`.
    ///
    /// Pairs with unique first elements are better served as a table: [`to_table`](Self::to_table).
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// # struct Sale { merchant: u32, price: i64 }
    /// # fn build(sales: Stream<Sale>) {
    /// sales.changes().filter(|sale| sale.price > 100).view("large_sales");
    /// # }
    /// ```
    #[track_caller]
    pub fn view(&self, name: &str) -> &Self
    where
        D: Record,
    {
        self.view_with(name, |view| view)
    }

    /// Like [`Collection::view`], with settings. The names of [`keys`](View::keys) are those of the row's
    /// fields.
    #[track_caller]
    pub fn view_with(&self, name: &str, settings: impl FnOnce(View) -> View) -> &Self
    where
        D: Record,
    {
        let grouped = self.counted(Vec::new());
        let (origin, halt) = (
            self.origin.through("counted"),
            self.outside().context().halt.clone(),
        );
        let counts = Aggregated(AggregateBuilder::<()>::default().count());
        let changes = group(grouped.rows.inner, (name, "view"), counts, halt);
        let table = Table::from_changes(grouped.flow, changes, origin, grouped.names, grouped.sources);
        table.view_with(name, |view| settings(view.fields(["count"])));
        self
    }

    fn counted(&self, names: Vec<String>) -> Grouped<'s, D, ()>
    where
        D: Record,
    {
        Grouped {
            rows: self.inner.clone().map(|row| (row, ())),
            flow: self.outside(),
            names,
            sources: self.sources.clone(),
            origin: self.origin.clone(),
        }
    }
}

impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// Groups the rows by another key, to be aggregated: `table.group_by("country", |_, m| m.country)`.
    #[track_caller]
    pub fn group_by<K2: Record>(
        &self,
        names: impl Names<K2>,
        key: impl Fn(&K, &V) -> K2 + 'static,
    ) -> Grouped<'s, K2, (K, V)>
    where
        K: Record,
        V: Record,
    {
        self.rows().group_by(names, move |(k, v)| key(k, v))
    }
}
