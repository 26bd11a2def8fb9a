//! What a change event of Debezium says, whatever it is written in.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A change event without its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<V> {
    /// What happened.
    pub change: CapturedChange<V>,
    /// Where it stands in the database's log, if it stands there and the source says it.
    pub at: Option<SourcePosition>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum CapturedChange<V> {
    /// A row was inserted (`c`), updated (`u`), or read by a snapshot (`r`).
    Row {
        /// The row after it.
        row: WrittenRow<V>,
        /// Whether a snapshot read it.
        snapshot: bool,
    },
    /// A row was deleted (`d`).
    Deleted,
    /// The payload is null: what some converters make of a tombstone.
    Tombstone,
    /// The table was truncated (`t`).
    Truncated,
    /// Somebody wrote a message into the database's log (`m`).
    Message,
    /// The connector is alive.
    Heartbeat,
}

/// A row as its change has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WrittenRow<V> {
    /// All of it.
    Whole(V),
    /// Without the values of some columns that did not change: the row before has them.
    Partial(Box<PartialRow>),
}

/// A row without the values of some columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialRow {
    /// The columns that are there, as a JSON object.
    pub columns: String,
    /// Names of the columns that are not.
    pub missing: Vec<String>,
}

impl PartialRow {
    /// The row, with what is missing taken from the row before. `Err`: the column that can't be had from
    /// there.
    pub(crate) fn complete<V: Serialize + DeserializeOwned>(&self, before: Option<&V>) -> Result<V, &str> {
        let first = || self.missing.first().map_or("", String::as_str);
        let before = before.and_then(|row| serde_json::to_value(row).ok());
        let (Some(Value::Object(before)), Ok(Value::Object(mut columns))) =
            (before, serde_json::from_str(&self.columns))
        else {
            return Err(first());
        };
        for column in &self.missing {
            let value = before.get(column).ok_or(column.as_str())?;
            columns.insert(column.clone(), value.clone());
        }
        serde_json::from_value(Value::Object(columns)).map_err(|_| first())
    }
}

/// A place in a database's log, by which a change that comes again is known.
///
/// Connectors go on after a crash from where they last noted how far they were, so what they had written
/// since then comes again: the same changes, in the same order, at the same places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourcePosition {
    /// Of which log: a hash of the connector's kind and name, and of the server where each has its own.
    pub origin: u32,
    /// The place in it. Postgres: the LSN. MySQL and MariaDB: number of the binlog file, position, row.
    pub place: (u64, u64),
    /// When the change was committed, by the database's clock, in milliseconds.
    pub committed_ms: i64,
    /// Whether no two changes have one place.
    pub is_unique: bool,
}

impl SourcePosition {
    /// Whether a change here is no news of a key that was changed at `last`.
    ///
    /// A database lets no two transactions write one row at a time, so the changes of a row stand in its log
    /// in the order of their commits. The time guards against places that begin anew, as those of a database
    /// do that was restored on another server: what is committed later is news.
    ///
    /// Only an LSN is of one change alone. Two events of a binlog may have one place (of a compressed
    /// transaction, for one); there what comes at the place of the last change is applied once more.
    pub fn repeats(&self, last: &Self) -> bool {
        let is_behind = match self.is_unique {
            true => self.place <= last.place,
            false => self.place < last.place,
        };
        self.origin == last.origin && is_behind && self.committed_ms <= last.committed_ms
    }
}
