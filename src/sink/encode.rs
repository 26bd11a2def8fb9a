//! From typed rows to encoded ones: what is compiled for each type of a sink, and no more.

use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::record::{Change, Event, Record, Timed};
use crate::schema::RowSchema;
use crate::schema::encode::Mismatch;
use crate::sink::row::Row;

/// Encodes the rows of one sink on one worker.
pub(crate) struct SinkEncoder {
    sink: Arc<str>,
    schema: Arc<RowSchema>,
    shards: u32,
    /// Whether rows carry what was before, too.
    with_old: bool,
    key: Vec<u8>,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl SinkEncoder {
    pub(crate) fn new(sink: Arc<str>, schema: Arc<RowSchema>, shards: u32, with_old: bool) -> Self {
        let (key, old, new) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            sink,
            schema,
            shards,
            with_old,
            key,
            old,
            new,
        }
    }

    /// `is_ordered`: events of one record come in the order in which they were made.
    pub(crate) fn event<T: Event>(&mut self, event: &Timed<T>, is_ordered: bool) -> Result<Row> {
        self.new.clear();
        self.value(&event.value, Side::New)?;
        let times = (event.time, event.horizon);
        Ok(Row::event(event.at, times, is_ordered, &self.new, self.shards))
    }

    pub(crate) fn change<K: Record, V: Record>(&mut self, change: &Change<K, V>) -> Result<Row> {
        self.key(&change.key)?;
        let old = change.old.as_ref().filter(|_| self.with_old);
        if let Some(old) = old {
            self.value(old, Side::Old)?;
        }
        if let Some(new) = &change.new {
            self.value(new, Side::New)?;
        }
        let (old, new) = (old.map(|_| &*self.old), change.new.as_ref().map(|_| &*self.new));
        Ok(Row::change(&self.key, old, new, self.shards))
    }

    pub(crate) fn count<D: Record>(&mut self, row: &D, diff: isize) -> Result<Row> {
        self.key(row)?;
        Ok(Row::count(&self.key, diff as i64, self.shards))
    }

    fn key<K: Serialize>(&mut self, key: &K) -> Result<()> {
        self.key.clear();
        let encoded = self.schema.encode_key(key, &mut self.key);
        encoded.map_err(|why| unfit(&self.sink, "key", &why))
    }

    fn value<V: Serialize>(&mut self, value: &V, side: Side) -> Result<()> {
        let out = match side {
            Side::Old => &mut self.old,
            Side::New => &mut self.new,
        };
        out.clear();
        let encoded = self.schema.encode_value(value, out);
        encoded.map_err(|why| unfit(&self.sink, "value", &why))
    }
}

#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

#[cold]
fn unfit(sink: &str, part: &str, why: &Mismatch) -> Error {
    Error::definition(format!("sink `{sink}` can't take a row"))
        .detail(format!("its {part} does not read back what it writes: {why}"))
        .hint(
            "make the type's Serialize and Deserialize agree; of serde's attributes, \
            `skip_serializing_if` is for `Option` alone",
        )
}
