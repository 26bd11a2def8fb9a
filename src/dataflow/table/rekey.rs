//! Tables under other keys, which must also be unique.

use crate::dataflow::names::Names;
use crate::dataflow::table::Table;
use crate::record::Record;

impl<'s, K: 'static, V: 'static> Table<'s, K, V> {
    /// The same values under another key, computed from key and value. `name` is the step's, `names` are
    /// those of the new key's fields.
    ///
    /// No two rows may have the same new key, as with
    /// [`Collection::to_table`](crate::dataflow::collection::Collection::to_table). If they may, group
    /// instead: [`group_by`](Self::group_by).
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build(users: Table<u32, String>) {
    /// let users = users.map(|id, email| (*id, email));
    /// let by_email = users.rekey("by_email", "email", |_, (_, email)| email.clone());
    /// # by_email.view("by_email");
    /// # }
    /// ```
    #[track_caller]
    pub fn rekey<K2: Record>(
        &self,
        name: &str,
        names: impl Names<K2>,
        key: impl Fn(&K, &V) -> K2 + 'static,
    ) -> Table<'s, K2, V>
    where
        K: Record,
        V: Record,
    {
        let rows = self.rows().through("rekey", move |(k, v)| Some((key(&k, &v), v)));
        rows.to_table(name, names)
    }

    /// Maps each row to any number of rows with their own keys: an order to its lines. `name` is the step's,
    /// `names` are those of the new key's fields.
    ///
    /// No two rows may have the same key, as with
    /// [`Collection::to_table`](crate::dataflow::collection::Collection::to_table). That holds if the new key
    /// consists of the row's key and a number.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # fn build(orders: Table<u32, Vec<String>>) {
    /// let lines = orders.flat_map("lines", ["order", "line"], |order, lines| {
    ///     (0u32..).zip(lines).map(move |(n, line)| ((order, n), line))
    /// });
    /// # lines.view("lines");
    /// # }
    /// ```
    #[track_caller]
    pub fn flat_map<K2: Record, R: Record, I: IntoIterator<Item = (K2, R)> + 'static>(
        &self,
        name: &str,
        names: impl Names<K2>,
        f: impl Fn(K, V) -> I + 'static,
    ) -> Table<'s, K2, R>
    where
        K: Record,
        V: Record,
    {
        let rows = self.rows().flat_map(move |(key, value)| f(key, value));
        rows.to_table(name, names)
    }
}
