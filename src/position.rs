//! Positions of records in logs, and the [`EpochBinding`]: what an epoch contains.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::{Epoch, EventTime};

/// A position in a partition's log.
pub type Offset = i64;

/// A source of the dataflow, identified by a fixed hash of its name: the same in every build and on every
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceId(pub u32);

impl SourceId {
    /// The id of the source with this name. The build of a dataflow rejects two names with the same id.
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

/// The position of a record. Ordered by source, partition, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// The offset in it.
    pub offset: Offset,
}

/// The id that a broker assigns to a topic when it is created: a topic that is deleted and recreated gets
/// another one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub [u8; 16]);

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The part of one partition that an epoch contains, and the partition's state after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The partition.
    pub id: PartitionId,
    /// First offset of the range.
    pub lo: Offset,
    /// First offset after it. Offsets have gaps: the range has been read when the position reaches `hi`.
    pub hi: Offset,
    /// The number of records in the range when it was first read; 0 if that is not recorded: see `compacted`.
    pub records: u64,
    /// Wrapping sum of the records' hashes: independent of order, verified at every replay.
    pub hash: u64,
    /// Whether the topic is compacted: then the broker removes records, and a replay is not compared with
    /// what the range contained when it was first read. For such a topic, only the state at the newest epoch
    /// is guaranteed.
    pub compacted: bool,
    /// The highest valid event time of the partition up to `hi`, [`EventTime::MIN`] if it has had none.
    pub event_time_max: EventTime,
    /// Event times beyond this were rejected as too far in the future.
    pub limit: EventTime,
    /// Whether the partition is idle as of this epoch: it does not hold the watermark back.
    pub idle: bool,
}

impl PartitionRange {
    /// An empty range at the beginning of a partition.
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

/// The ledger's record of a schema id when it is first seen in a source, and when an unknown id becomes
/// known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaSeen {
    /// The source in which it was seen.
    pub source: SourceId,
    /// The registry's id.
    pub id: u32,
    /// A fixed hash of the schema's text; `None` if the registry does not know the id. Replays follow this
    /// verdict.
    pub fingerprint: Option<u64>,
    /// Set if the id was unknown before: the partition and offset from which it is known there. Earlier
    /// records stay undecoded, in every replay.
    #[serde(default)]
    pub since: Option<(u32, Offset)>,
}

/// One epoch's entry in the ledger: everything that the epoch's results depend on, besides the topics
/// themselves.
///
/// It contains only what changed since the previous epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochBinding {
    /// The epoch.
    pub epoch: Epoch,
    /// The only "now" that the dataflow may see in this epoch.
    pub now: EventTime,
    /// The partitions that advanced, became idle, or ceased to be idle.
    pub ranges: Vec<PartitionRange>,
    /// The sources whose watermark rose, with the new watermark.
    pub watermarks: Vec<(SourceId, EventTime)>,
    /// The sources that have become idle as a whole, so that they no longer count in the minimum where
    /// streams of several sources are merged, and those that have returned. Stated explicitly, because a
    /// partition that was never read is in no binding.
    pub idle: Vec<(SourceId, bool)>,
    /// Topic ids, when a source is first bound.
    pub topics: Vec<(SourceId, TopicId)>,
    /// Schema ids first seen in this epoch.
    pub schemas: Vec<SchemaSeen>,
    /// The results of earlier epochs that no binding has recorded yet.
    pub results: Option<Results>,
}

/// The changes of views in earlier epochs, as hashes. Those epochs are closed before a binding can record
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// The lineage that computed them: another lineage may legitimately have other results.
    pub lineage: u64,
    /// Epochs, each with the hash of every view's changes ([`view::hash`](crate::view::hash)), ordered by
    /// view name.
    pub epochs: Vec<(Epoch, Vec<u64>)>,
}

impl EpochBinding {
    /// The number of records in the epoch.
    pub fn records(&self) -> u64 {
        self.ranges.iter().map(|range| range.records).sum()
    }
}
