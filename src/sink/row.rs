//! Rows as sinks get them: encoded, with the schema that their shard has.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::position::{PartitionId, Position, SourceId};
use crate::schema::datum::Datum;
use crate::schema::small::SmallBytes;
use crate::schema::{Numbers, RowSchema};
use crate::time::EventTime;

/// A row on its way to a store.
///
/// | of a | key | before | after | time | diff |
/// |---|---|---|---|---|---|
/// | `Stream` | the event's [`RowOrigin`] | – | the event | its event time | 1 |
/// | `Table`, `changes_to` | the key | the row before the epoch, if any | the row after it, if any | – | 1, 0, −1 |
/// | `Table`, `upsert_to` | the key | – | the row after the epoch; none: delete it | – | 1, −1 |
/// | `Collection` | the whole row | – | empty | – | by how many it became more or fewer |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    key: SmallBytes,
    old: Option<SmallBytes>,
    new: Option<SmallBytes>,
    detail: RowDetail,
    shard: u32,
}

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum RowDetail {
    Event {
        time: EventTime,
        horizon: EventTime,
        /// Whether those of one record are in the order in which they were made.
        is_ordered: bool,
    },
    Change,
    Count(i64),
}

/// Where an event of a stream was read. Ordered by source, partition and offset; no two events have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowOrigin {
    /// The record that it is of.
    pub position: Position,
    /// Which of the events that were made of this record, from 0 on.
    pub index: u32,
}

/// Which of a sink's shards a key belongs to: XXH3 of the bytes, the same in every build and on every
/// machine.
pub fn shard_of(key: &[u8], shards: u32) -> u32 {
    (xxh3_64(key) % u64::from(shards.max(1))) as u32
}

/// Bytes of a place that name the partition: streams are sharded by them.
const PARTITION_LEN: usize = 8;
/// Bytes of a place but for the index.
const POSITION_LEN: usize = 16;

impl Row {
    pub(crate) fn event(
        at: Position,
        (time, horizon): (EventTime, EventTime),
        is_ordered: bool,
        value: &[u8],
        shards: u32,
    ) -> Self {
        let mut key = [0; POSITION_LEN];
        key[..4].copy_from_slice(&at.partition.source.0.to_be_bytes());
        key[4..8].copy_from_slice(&at.partition.partition.to_be_bytes());
        key[8..].copy_from_slice(&at.offset.to_be_bytes());
        // Offsets before 0 come before those after it.
        key[8] ^= 0x80;
        Self {
            key: SmallBytes::new(&key),
            old: None,
            new: Some(SmallBytes::new(value)),
            detail: RowDetail::Event {
                time,
                horizon,
                is_ordered,
            },
            shard: shard_of(&key[..PARTITION_LEN], shards),
        }
    }

    pub(crate) fn change(key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>, shards: u32) -> Self {
        Self {
            key: SmallBytes::new(key),
            old: old.map(SmallBytes::new),
            new: new.map(SmallBytes::new),
            detail: RowDetail::Change,
            shard: shard_of(key, shards),
        }
    }

    pub(crate) fn count(row: &[u8], diff: i64, shards: u32) -> Self {
        Self {
            key: SmallBytes::new(row),
            old: None,
            new: Some(SmallBytes::new(&[])),
            detail: RowDetail::Count(diff),
            shard: shard_of(row, shards),
        }
    }

    /// The key's bytes: in the schema's encoding, whose order is that of the key; of a stream's row, its
    /// [`RowOrigin`].
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The bytes of the row's value before the epoch.
    pub fn before(&self) -> Option<&[u8]> {
        self.old.as_deref()
    }

    /// The bytes of the row's value after the epoch; `None`: the row is gone.
    pub fn after(&self) -> Option<&[u8]> {
        self.new.as_deref()
    }

    /// When the event happened.
    pub fn time(&self) -> Option<EventTime> {
        match self.detail {
            RowDetail::Event { time, .. } => Some(time),
            RowDetail::Change | RowDetail::Count(_) => None,
        }
    }

    /// By how many the row became more or fewer.
    pub fn diff(&self) -> i64 {
        match self.detail {
            RowDetail::Event { .. } => 1,
            RowDetail::Count(diff) => diff,
            RowDetail::Change => match (&self.old, &self.new) {
                (None, Some(_)) => 1,
                (Some(_), Some(_)) => 0,
                (_, None) => -1,
            },
        }
    }

    /// Whether it is a row of a collection, which stands for itself.
    pub(crate) fn is_count(&self) -> bool {
        matches!(self.detail, RowDetail::Count(_))
    }

    /// Where the event was read.
    pub fn place(&self) -> Option<RowOrigin> {
        let RowDetail::Event { .. } = self.detail else {
            return None;
        };
        let number = |at: usize| Some(u32::from_be_bytes(*self.key.get(at..)?.first_chunk()?));
        let offset = u64::from_be_bytes(*self.key.get(PARTITION_LEN..)?.first_chunk()?);
        Some(RowOrigin {
            position: Position {
                partition: PartitionId {
                    source: SourceId(number(0)?),
                    partition: number(4)?,
                },
                offset: (offset ^ 1 << 63) as i64,
            },
            // It has none before the rows of its epoch are sorted.
            index: number(POSITION_LEN).unwrap_or(0),
        })
    }

    /// The watermark of the event's own partition as of the record before it.
    pub(crate) fn horizon(&self) -> Option<EventTime> {
        match self.detail {
            RowDetail::Event { horizon, .. } => Some(horizon),
            RowDetail::Change | RowDetail::Count(_) => None,
        }
    }

    pub(crate) fn shard(&self) -> u32 {
        self.shard
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let len = |value: &Option<SmallBytes>| value.as_ref().map_or(0, |bytes| bytes.len());
        size_of::<Self>() + self.key.len() + len(&self.old) + len(&self.new)
    }

    /// The fields of the row after the epoch, in the order of the schema's; `None`: it is gone.
    pub fn fields(&self, schema: &RowSchema) -> Option<Vec<Datum>> {
        self.fields_of(self.after()?, schema)
    }

    /// The fields of the row before the epoch.
    pub fn fields_before(&self, schema: &RowSchema) -> Option<Vec<Datum>> {
        self.fields_of(self.before()?, schema)
    }

    /// The key's fields alone; of a stream's row there are none.
    pub fn key_fields(&self, schema: &RowSchema) -> Option<Vec<Datum>> {
        match self.detail {
            RowDetail::Event { .. } => Some(Vec::new()),
            RowDetail::Change | RowDetail::Count(_) => schema.key_row(&self.key),
        }
    }

    fn fields_of(&self, value: &[u8], schema: &RowSchema) -> Option<Vec<Datum>> {
        let mut fields = self.key_fields(schema)?;
        schema.add_value(value, &mut fields).then_some(fields)
    }

    /// The row after the epoch as a JSON object; of one that is gone, its key.
    pub fn json(&self, schema: &RowSchema) -> Option<String> {
        let mut out = Vec::new();
        match self.new {
            Some(_) => schema.write_row(&self.fields(schema)?, Numbers::Exact, &mut out),
            None => schema.write_key(&self.key_fields(schema)?, Numbers::Exact, &mut out),
        }
        String::from_utf8(out).ok()
    }
}

/// Puts the rows of an epoch and a shard in the order in which a sink gets them: of events, by their places,
/// where those of one record stay as they came, or are in the order of their times and bytes if several
/// workers made them; of others, by their keys, rows of a collection summed up.
pub(crate) fn sort(rows: &mut Vec<Row>) {
    match rows.first().map(|row| row.detail) {
        None => {}
        Some(RowDetail::Change) => rows.sort_unstable_by(|a, b| a.key.cmp(&b.key)),
        Some(RowDetail::Event { is_ordered, .. }) => {
            match is_ordered {
                true => rows.sort_by(|a, b| a.key.cmp(&b.key)),
                false => rows.sort_by(|a, b| {
                    let by_time = a.key.cmp(&b.key).then_with(|| a.time().cmp(&b.time()));
                    by_time.then_with(|| a.after().cmp(&b.after()))
                }),
            }
            number(rows);
        }
        Some(RowDetail::Count(_)) => {
            rows.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            rows.dedup_by(|row, before| {
                let same = row.key == before.key;
                if let (true, RowDetail::Count(diff), RowDetail::Count(sum)) =
                    (same, row.detail, &mut before.detail)
                {
                    *sum += diff;
                }
                same
            });
            rows.retain(|row| row.detail != RowDetail::Count(0));
        }
    }
}

/// Tells events of one record apart.
fn number(rows: &mut [Row]) {
    let mut index = 0u32;
    for at in 0..rows.len() {
        let same = at > 0 && rows[at - 1].key.get(..POSITION_LEN) == rows[at].key.get(..POSITION_LEN);
        index = if same { index + 1 } else { 0 };
        let mut key = [0; POSITION_LEN + 4];
        key[..POSITION_LEN].copy_from_slice(&rows[at].key[..POSITION_LEN]);
        key[POSITION_LEN..].copy_from_slice(&index.to_be_bytes());
        rows[at].key = SmallBytes::new(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(partition: u32, offset: i64, value: u8) -> Row {
        let partition = PartitionId {
            source: SourceId(7),
            partition,
        };
        let at = Position { partition, offset };
        Row::event(at, (EventTime(1), EventTime::MIN), true, &[value], 4)
    }

    #[test]
    fn events_are_in_the_order_of_their_places_and_each_has_one_of_its_own() {
        let mut rows = vec![
            event(2, 5, 0),
            event(1, 9, 1),
            event(1, -3, 2),
            event(1, 9, 3),
            event(1, 256, 4),
        ];
        sort(&mut rows);
        let places: Vec<_> = rows.iter().map(|row| row.place().unwrap()).collect();
        let short: Vec<_> = places
            .iter()
            .map(|at| (at.position.partition.partition, at.position.offset, at.index))
            .collect();
        assert_eq!(short, [(1, -3, 0), (1, 9, 0), (1, 9, 1), (1, 256, 0), (2, 5, 0)]);
        assert!(places.is_sorted());
        let values: Vec<_> = rows.iter().map(|row| row.after().unwrap()[0]).collect();
        assert_eq!(values, [2, 1, 3, 4, 0], "those of one record as they came");
        assert!(rows.is_sorted_by(|a, b| a.key() < b.key()));
        let of_one = |row: &&Row| row.place().unwrap().position.partition.partition == 1;
        let shards: Vec<_> = rows.iter().filter(of_one).map(Row::shard).collect();
        assert!(
            shards.iter().all(|shard| *shard == shards[0]),
            "a partition is in one shard"
        );
    }

    #[test]
    fn events_of_one_record_that_several_workers_made_are_in_the_order_of_time_and_bytes() {
        let at = Position {
            partition: PartitionId {
                source: SourceId(7),
                partition: 1,
            },
            offset: 5,
        };
        let made =
            |time: i64, value: u8| Row::event(at, (EventTime(time), EventTime::MIN), false, &[value], 4);
        let all = [made(2, 1), made(1, 9), made(1, 3), made(2, 0)];
        for turn in 0..4 {
            let mut rows = all.to_vec();
            rows.rotate_left(turn);
            sort(&mut rows);
            let values: Vec<_> = rows.iter().map(|row| row.after().unwrap()[0]).collect();
            assert_eq!(values, [3, 9, 0, 1]);
            let index: Vec<_> = rows.iter().map(|row| row.place().unwrap().index).collect();
            assert_eq!(index, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn counts_of_a_row_are_summed_up() {
        let mut rows = vec![
            Row::count(b"b", 2, 1),
            Row::count(b"a", 1, 1),
            Row::count(b"c", -1, 1),
            Row::count(b"b", -3, 1),
            Row::count(b"c", 1, 1),
        ];
        sort(&mut rows);
        let sums: Vec<_> = rows.iter().map(|row| (row.key(), row.diff())).collect();
        assert_eq!(sums, [(&b"a"[..], 1), (b"b", -1)]);
    }

    #[test]
    fn a_key_stays_in_its_shard_for_ever() {
        // Stores hold rows by these numbers.
        let shards: Vec<_> = (0..6u8).map(|n| shard_of(&[n], 8)).collect();
        assert_eq!(shards, [3, 3, 7, 5, 2, 2]);
        let diffs = [
            (None, Some(&b"x"[..]), 1),
            (Some(&b"x"[..]), Some(b"y"), 0),
            (Some(b"x"), None, -1),
        ];
        for (old, new, diff) in diffs {
            assert_eq!(Row::change(b"k", old, new, 8).diff(), diff);
        }
    }
}
