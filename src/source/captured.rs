//! Change data capture (CDC): the log of a database table's changes, record by record.

use serde::{Deserialize, Serialize};

use super::intake::Raw;
use super::records::Records;
use crate::codec::debezium::envelope::{CapturedChange, Envelope, SourcePosition, WrittenRow};
use crate::codec::registry::Verdict;
use crate::codec::{Cause, Decode, Decoded};
use crate::error::Error;

/// One record of captured changes.
///
/// Tests can feed these in place of a topic: see [`Captured::row`] and [`Captured::deleted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Captured<K, V> {
    /// A row was inserted, updated, or read by a snapshot.
    Row {
        /// Its primary key.
        key: K,
        /// The row after the change.
        row: WrittenRow<V>,
        /// The position of the change in the database's log, if it has one and the source reports it.
        at: Option<SourcePosition>,
        /// Whether a snapshot read the row: then it has no position in the database's log.
        snapshot: bool,
    },
    /// A row was deleted.
    Deleted {
        /// Its primary key.
        key: K,
        /// The position of the deletion in the database's log.
        at: Option<SourcePosition>,
    },
    /// Kafka's tombstone, which follows a deletion so that compaction removes the key's records.
    Tombstone {
        /// The primary key.
        key: K,
    },
    /// All rows of the table were deleted at once (TRUNCATE).
    Truncated {
        /// The position in the database's log.
        at: Option<SourcePosition>,
    },
    /// The record does not concern a row.
    Skipped(Skipped),
}

/// Records that belong in a change log but do not concern a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Skipped {
    /// A message that a client wrote to the database's log.
    Message,
    /// A heartbeat of the connector.
    Heartbeat,
}

impl<K, V> Captured<K, V> {
    /// A row that was written, without a position in the database's log.
    pub fn row(key: K, row: V) -> Self {
        Self::Row {
            key,
            row: WrittenRow::Whole(row),
            at: None,
            snapshot: false,
        }
    }

    /// A row that was deleted, without a position in the database's log.
    pub fn deleted(key: K) -> Self {
        Self::Deleted { key, at: None }
    }
}

/// Key and payload of change events.
pub(crate) struct CapturedRecords<K, V> {
    /// The format of the key.
    pub(crate) key: Box<dyn Decode<K>>,
    /// The format of the payload.
    pub(crate) value: Box<dyn Decode<Envelope<V>>>,
}

impl<K: 'static, V: 'static> CapturedRecords<K, V> {
    fn keyed(
        &mut self,
        raw: &Raw<'_>,
        captured: impl FnOnce(K) -> Captured<K, V>,
    ) -> Decoded<Captured<K, V>> {
        match raw.key.map(|key| self.key.decode_at(raw.offset, key)) {
            Some(Decoded::Value(key)) => Decoded::Value(captured(key)),
            Some(Decoded::Dead(_, schema)) => Decoded::Dead(Cause::KeyInvalid, schema),
            Some(Decoded::DeadAt(_, schema, place)) => Decoded::DeadAt(Cause::KeyInvalid, schema, place),
            Some(Decoded::Wait) => Decoded::Wait,
            None => Decoded::DeadAt(Cause::KeyMissing, None, NO_KEY.into()),
        }
    }
}

const NO_KEY: &str = "the table has no primary key: give it one, or name columns by `message.key.columns`";

impl<K: 'static, V: 'static> Records<Captured<K, V>> for CapturedRecords<K, V> {
    fn enter(&mut self, partition: u32, bound: bool) {
        self.key.enter(partition, bound);
        self.value.enter(partition, bound);
    }

    #[inline]
    fn decode(&mut self, raw: &Raw<'_>) -> Decoded<Captured<K, V>> {
        let Some(payload) = raw.payload else {
            return self.keyed(raw, |key| Captured::Tombstone { key });
        };
        let Envelope { change, at } = match self.value.decode_at(raw.offset, payload) {
            Decoded::Value(envelope) => envelope,
            Decoded::Dead(cause, schema) => return Decoded::Dead(cause, schema),
            Decoded::DeadAt(cause, schema, place) => return Decoded::DeadAt(cause, schema, place),
            Decoded::Wait => return Decoded::Wait,
        };
        match change {
            CapturedChange::Row { row, snapshot } => self.keyed(raw, |key| Captured::Row {
                key,
                row,
                at,
                snapshot,
            }),
            CapturedChange::Deleted => self.keyed(raw, |key| Captured::Deleted { key, at }),
            CapturedChange::Tombstone => self.keyed(raw, |key| Captured::Tombstone { key }),
            CapturedChange::Truncated => Decoded::Value(Captured::Truncated { at }),
            CapturedChange::Message => Decoded::Value(Captured::Skipped(Skipped::Message)),
            CapturedChange::Heartbeat => Decoded::Value(Captured::Skipped(Skipped::Heartbeat)),
        }
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        let mut seen = self.key.schemas_seen();
        // If both use one registry, each reports the same.
        let more = self.value.schemas_seen().into_iter();
        seen.extend(more.filter(|verdict| !seen.contains(verdict)).collect::<Vec<_>>());
        seen
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.key.bind_schema(verdict);
        self.value.bind_schema(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.key.broken().or_else(|| self.value.broken())
    }
}
