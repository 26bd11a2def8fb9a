//! Joins of tables.

use differential_dataflow::AsCollection;

use crate::dataflow::plan::{StepKind, union};
use crate::dataflow::table::{KeyedRows, Table, TableMeta};
use crate::operator::join::{JoinSpec, join, updates};
use crate::record::Record;

// The bounds are on the methods, so that a missing derive is reported as such and not as "no method found".
impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// Joins each row with the row of `other` that has its key. Maintained: a change on either side revises
    /// every row it meets, and a row without a partner is left out.
    ///
    /// The left key may have more than the other's: each [`Windowed<K>`](crate::Windowed) and
    /// [`Ranked<K>`](crate::record::Ranked) meets the row of its `K`, each pair that of its first half. A
    /// closure that gives an `Option` may leave rows out, by [`flatten`](Self::flatten).
    #[track_caller]
    pub fn join<K2: Record, V2: Record, R: Record>(
        &self,
        name: &str,
        other: &Table<'s, K2, V2>,
        f: impl Fn(&K, V, &V2) -> R + 'static,
    ) -> Table<'s, K, R>
    where
        K: Record + KeyedRows<K2>,
        V: Record,
    {
        let meta = self.joined(name, "join", other);
        let row = move |k: &K, v: Option<&V>, v2: Option<&V2>| Some(f(k, v?.clone(), v2?));
        self.by_key(meta, other, row, None)
    }

    /// Like [`Table::join`], by a key of `other` made from key and value: its foreign key.
    #[track_caller]
    pub fn join_on<K2: Record, V2: Record, R: Record>(
        &self,
        name: &str,
        other: &Table<'s, K2, V2>,
        on: impl Fn(&K, &V) -> K2 + 'static,
        f: impl Fn(&K, V, &V2) -> R + 'static,
    ) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        let meta = self.joined(name, "join_on", other);
        let row = move |k: &K, v: Option<&V>, v2: Option<&V2>| Some(f(k, v?.clone(), v2?));
        self.by_foreign_key(meta, other, on, row)
    }

    /// Like [`Table::join`], but keeps rows without a partner: `f` gets `None` for them. A right join is this
    /// from the other table.
    #[track_caller]
    pub fn left_join<K2: Record, V2: Record, R: Record>(
        &self,
        name: &str,
        other: &Table<'s, K2, V2>,
        f: impl Fn(&K, V, Option<&V2>) -> R + 'static,
    ) -> Table<'s, K, R>
    where
        K: Record + KeyedRows<K2>,
        V: Record,
    {
        let meta = self.joined(name, "left_join", other);
        let row = move |k: &K, v: Option<&V>, v2: Option<&V2>| Some(f(k, v?.clone(), v2));
        self.by_key(meta, other, row, None)
    }

    /// Like [`Table::left_join`], by a key of `other` made from key and value.
    #[track_caller]
    pub fn left_join_on<K2: Record, V2: Record, R: Record>(
        &self,
        name: &str,
        other: &Table<'s, K2, V2>,
        on: impl Fn(&K, &V) -> K2 + 'static,
        f: impl Fn(&K, V, Option<&V2>) -> R + 'static,
    ) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        let meta = self.joined(name, "left_join_on", other);
        let row = move |k: &K, v: Option<&V>, v2: Option<&V2>| Some(f(k, v?.clone(), v2));
        self.by_foreign_key(meta, other, on, row)
    }

    /// Joins two tables of the same key, and keeps the rows of both that have no partner: `f` gets one row or
    /// both, and never neither.
    ///
    /// By a foreign key there is none: a partner without rows has no key to be shown by.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build<'s>(ordered: Table<'s, u32, i64>, delivered: &Table<'s, u32, i64>) {
    /// let open = ordered.full_join("open", delivered, |_, ordered, delivered| {
    ///     ordered.unwrap_or(0) - delivered.copied().unwrap_or(0)
    /// });
    /// # open.view("open");
    /// # }
    /// ```
    #[track_caller]
    pub fn full_join<V2: Record, R: Record>(
        &self,
        name: &str,
        other: &Table<'s, K, V2>,
        f: impl Fn(&K, Option<V>, Option<&V2>) -> R + 'static,
    ) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        let meta = self.joined(name, "full_join", other);
        let row = move |k: &K, v: Option<&V>, v2: Option<&V2>| {
            (v.is_some() || v2.is_some()).then(|| f(k, v.cloned(), v2))
        };
        self.by_key(meta, other, row, Some(K::clone))
    }

    /// The rows whose key is in `other`.
    #[track_caller]
    pub fn semijoin<K2: Record, V2: Record>(&self, name: &str, other: &Table<'s, K2, V2>) -> Table<'s, K, V>
    where
        K: Record + KeyedRows<K2>,
        V: Record,
    {
        let meta = self.joined(name, "semijoin_tables", other);
        self.by_key(meta, other, |_, v, v2| v2.and(v).cloned(), None)
    }

    /// Like [`Table::semijoin`], by a key of `other` made from key and value.
    #[track_caller]
    pub fn semijoin_on<K2: Record, V2: Record>(
        &self,
        name: &str,
        other: &Table<'s, K2, V2>,
        on: impl Fn(&K, &V) -> K2 + 'static,
    ) -> Table<'s, K, V>
    where
        K: Record,
        V: Record,
    {
        let meta = self.joined(name, "semijoin_on", other);
        self.by_foreign_key(meta, other, on, |_, v, v2| v2.and(v).cloned())
    }

    /// The rows whose key is not in `other`.
    #[track_caller]
    pub fn antijoin<K2: Record, V2: Record>(&self, name: &str, other: &Table<'s, K2, V2>) -> Table<'s, K, V>
    where
        K: Record + KeyedRows<K2>,
        V: Record,
    {
        let meta = self.joined(name, "antijoin_tables", other);
        let row = |_: &K, v: Option<&V>, v2: Option<&V2>| v.filter(|_| v2.is_none()).cloned();
        self.by_key(meta, other, row, None)
    }

    /// Like [`Table::antijoin`], by a key of `other` made from key and value.
    #[track_caller]
    pub fn antijoin_on<K2: Record, V2: Record>(
        &self,
        name: &str,
        other: &Table<'s, K2, V2>,
        on: impl Fn(&K, &V) -> K2 + 'static,
    ) -> Table<'s, K, V>
    where
        K: Record,
        V: Record,
    {
        let meta = self.joined(name, "antijoin_on", other);
        let row = |_: &K, v: Option<&V>, v2: Option<&V2>| v.filter(|_| v2.is_none()).cloned();
        self.by_foreign_key(meta, other, on, row)
    }

    #[track_caller]
    fn joined<K2: Record, V2: Record>(
        &self,
        name: &str,
        operator: &str,
        other: &Table<'s, K2, V2>,
    ) -> TableMeta
    where
        K: Record,
        V: Record,
    {
        let inputs = [&self.meta.origin, &other.meta.origin];
        let origin = self
            .flow
            .context()
            .step_as(name, (StepKind::Join, operator), &inputs);
        // The state of a join is in no checkpoint: it is rebuilt from both tables' rows.
        self.meta.demand.set(true);
        other.meta.demand.set(true);
        TableMeta {
            origin,
            sources: union(&self.meta.sources, &other.meta.sources),
            // A row of the other table that is retracted when its window closes would retract the joined row
            // with it.
            when_closed: [&self.meta.when_closed[..], &other.meta.when_closed].concat(),
            ..self.meta.clone()
        }
    }

    fn by_key<K2: Record, V2: Record, R: Record>(
        &self,
        meta: TableMeta,
        other: &Table<'s, K2, V2>,
        row: impl Fn(&K, Option<&V>, Option<&V2>) -> Option<R> + 'static,
        alone: Option<fn(&K2) -> K>,
    ) -> Table<'s, K, R>
    where
        K: Record + KeyedRows<K2>,
        V: Record,
    {
        let spec = self.spec(&meta, |key: &K, _: &V| key.key(), row);
        let changes = join(self.changes(), other.changes(), spec, alone);
        if K::LIVES_THERE {
            return Table::of_changes(self.flow, changes, meta);
        }
        Table::from_rows(self.flow, updates(changes).as_collection(), meta)
    }

    fn by_foreign_key<K2: Record, V2: Record, R: Record>(
        &self,
        meta: TableMeta,
        other: &Table<'s, K2, V2>,
        on: impl Fn(&K, &V) -> K2 + 'static,
        row: impl Fn(&K, Option<&V>, Option<&V2>) -> Option<R> + 'static,
    ) -> Table<'s, K, R>
    where
        K: Record,
        V: Record,
    {
        let spec = self.spec(&meta, on, row);
        let changes = join(self.changes(), other.changes(), spec, None);
        // Rows are on the workers of the other table's keys; a step that needs them by their own key
        // exchanges them.
        Table::from_rows(self.flow, updates(changes).as_collection(), meta)
    }

    fn spec<On, Row>(&self, meta: &TableMeta, on: On, row: Row) -> JoinSpec<On, Row> {
        JoinSpec {
            name: meta.origin.step().to_string(),
            on,
            row,
            halt: self.flow.context().halt.clone(),
        }
    }
}
