//! Where records stand in the logs, and the [`EpochBinding`]: what an epoch contains.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{Epoch, EventTime};

/// A position in a partition's log.
pub type Offset = i64;

/// A source of the dataflow, told apart by a fixed hash of its name: the same in every build and on every
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceId(pub u32);

impl SourceId {
    /// The id of the source with this name. Two names with one id are refused when the dataflow is built.
    pub fn of(name: &str) -> Self {
        Self((xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> 32) as u32)
    }
}

/// One partition of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// The source.
    pub source: SourceId,
    /// The partition's number in its topic.
    pub partition: u32,
}

/// Where one record stands. Ordered by source, partition, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The offset in it.
    pub offset: Offset,
}

/// The id that a broker gives a topic when it is made: a topic deleted and made again has another one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The part of one partition that an epoch contains, and what is known of the partition after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The partition.
    pub id: PartitionId,
    /// First offset of the range.
    pub lo: Offset,
    /// First offset after it. Offsets have holes: the range is read when the position reaches `hi`.
    pub hi: Offset,
    /// How many records the range held when it was first read; 0 where that is not kept: see `compacted`.
    pub records: u64,
    /// Wrapping sum of the records' hashes: the same in any order, checked at every replay.
    pub hash: u64,
    /// Whether the topic is compacted: then the broker takes records away, and a replay is not held to what
    /// was there when the range was first read. What is promised for such a topic is the state at the newest
    /// epoch.
    pub compacted: bool,
    /// The highest valid event time of the partition up to `hi`, [`EventTime::MIN`] if it has had none.
    pub event_time_max: EventTime,
    /// Event times beyond this were refused as far in the future.
    pub limit: EventTime,
    /// Whether the partition is idle as of this epoch: it does not hold the watermark back.
    pub idle: bool,
}

impl PartitionRange {
    /// Nothing of a partition, where it begins.
    pub fn unread(id: PartitionId, at: Offset) -> Self {
        Self {
            id,
            lo: at,
            hi: at,
            records: 0,
            hash: 0,
            compacted: false,
            event_time_max: EventTime::MIN,
            limit: EventTime::MAX,
            idle: false,
        }
    }
}

/// What the ledger says of a schema id when it is first seen in a source, and when an id that was unknown
/// becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaSeen {
    /// The source that met it.
    pub source: SourceId,
    /// The registry's id.
    pub id: u32,
    /// A fixed hash of the schema's text, or `None`: the registry does not know the id. A replay goes by this
    /// verdict.
    pub fingerprint: Option<u64>,
    /// Set if the id was unknown before: the partition and the offset from which on it is known there. What
    /// stands before stays undecoded, in every replay.
    #[serde(default)]
    pub since: Option<(u32, Offset)>,
}

/// One epoch's entry in the ledger: everything that the epoch's results depend on, besides the topics
/// themselves.
///
/// It names only what changed since the epoch before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochBinding {
    /// The epoch.
    pub epoch: Epoch,
    /// The only "now" that the dataflow may see in this epoch.
    pub now: EventTime,
    /// The partitions that moved, became idle, or ceased to be so.
    pub ranges: Vec<PartitionRange>,
    /// The sources whose watermark rose, with the new one.
    pub watermarks: Vec<(SourceId, EventTime)>,
    /// The sources that have become idle as a whole, so that they leave the minimum where streams of several
    /// sources meet, and those that have come back. Said outright, as a partition that was never read is in
    /// no binding.
    pub idle: Vec<(SourceId, bool)>,
    /// Topic ids, where a source is first bound.
    pub topics: Vec<(SourceId, TopicId)>,
    /// Schema ids first seen in this epoch.
    pub schemas: Vec<SchemaSeen>,
    /// What epochs before this one came to, as far as no binding has said it yet.
    pub results: Option<Results>,
}

/// What epochs did to the views. They are closed by the time a binding says so, so it is a later one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Who computed them, on which state: another lineage may come to other results, and rightly so.
    pub lineage: u64,
    /// Epochs, each with the hash of every view's changes ([`view::hash`](crate::view::hash)), in order of
    /// the views' names.
    pub epochs: Vec<(Epoch, Vec<u64>)>,
}

impl EpochBinding {
    /// How many records the epoch contains.
    pub fn records(&self) -> u64 {
        self.ranges.iter().map(|range| range.records).sum()
    }
}
