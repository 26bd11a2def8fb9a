//! Groups: rows by a key, aggregated again whenever one of them changes.

use std::rc::Rc;

use differential_dataflow::VecCollection;

use crate::dataflow::Dataflow;
use crate::dataflow::collection::Collection;
use crate::dataflow::names::{Names, check_names};
use crate::dataflow::plan::{Kind, Origin};
use crate::dataflow::table::Table;
use crate::operator::aggregate::{Aggregate, Of};
use crate::operator::group::group;
use crate::position::SourceId;
use crate::record::Record;
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
    /// Aggregates each group. `name` is the step's; a group that becomes empty loses its row.
    #[track_caller]
    pub fn aggregate<A: Aggregate<D>>(
        self,
        name: &str,
        build: impl FnOnce(Of<D>) -> A,
    ) -> Table<'s, K, A::Out>
    where
        K: Record,
        D: Record,
    {
        let context = self.flow.context();
        let origin = context.step(name, Kind::Group, &[&self.origin]);
        let changes = group(
            self.rows.inner,
            name,
            Rc::new(build(Of::default())),
            context.halt.clone(),
        );
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
        let flow = self
            .flow
            .expect("only collections inside of loops have no flow, and those have another clock");
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
