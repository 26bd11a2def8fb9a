//! Messages between readers and the sequencer.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::manifest::Base;
use crate::position::{EpochBinding, Offset, PartitionId, SchemaSeen, SourceId};
use crate::time::{Epoch, EventTime};

/// How far a reader has read one partition. Counts are cumulative from the reader's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadTo {
    /// The partition.
    pub id: PartitionId,
    /// The next offset to read.
    pub hi: Offset,
    /// Records read since the reader's start, wrapping.
    pub records: u64,
    /// Sum of their hashes, wrapping.
    pub hash: u64,
    /// Whether a record since the previous report had a valid event time.
    pub timed: bool,
    /// The partition's highest valid event time.
    pub event_time_max: EventTime,
    /// The far-future limit that they were checked against.
    pub limit: EventTime,
    /// Whether the reader reached the end of the log.
    pub at_end: bool,
    /// About how many records it held beyond; as many as can be where nobody knows.
    pub behind: u64,
}

/// The interval at which a source's far-future limit moves with the clock.
///
/// ```text
///   named at t:   t + future_bound + 2 periods       the next one: at t + 1 period
///   in force:     until 1.5 periods after it came in; from then on readers wait for the next one
/// ```
///
/// So no effective limit is below the present plus `future_bound`, even if half an interval passes before a
/// worker receives it: an event no further ahead than that is never rejected. One that is up to two intervals
/// further ahead may pass.
pub(crate) fn limit_period(future_bound: Duration) -> Duration {
    (future_bound / 60).max(Duration::from_secs(1))
}

/// Messages from workers to the sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The progress of a reader in a partition.
    Read(ReadTo),
    /// A schema id that it encountered. Precedes the report of the first records that it was used for.
    Schema(SchemaSeen),
    /// The changes of a process's views in a closed epoch: the hash of each view's changes, ordered by view
    /// name.
    Closed {
        /// The epoch.
        epoch: Epoch,
        /// The sums over the process's workers.
        hashes: Vec<u64>,
    },
}

/// Messages from the sequencer to every worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// `worker` starts to read a partition at `from`.
    Assign {
        /// The partition.
        id: PartitionId,
        /// The worker that is to read it.
        worker: usize,
        /// The first offset.
        from: Offset,
        /// The partition's highest valid event time up to there.
        event_time_max: EventTime,
        /// Whether it is idle as of there.
        idle: bool,
    },
    /// Event times of this source beyond the limit are rejected from here on; none are with
    /// [`EventTime::MAX`]. See [`limit_period`].
    Limit(SourceId, EventTime),
    /// Watermark alignment: the lowest event time among this source's partitions that have more to read. No
    /// partition reads far ahead of it.
    Alignment(SourceId, EventTime),
    /// An epoch is bound. `replay`: by an earlier run, so its records are still to be read.
    Epoch {
        /// Its contents.
        binding: Arc<EpochBinding>,
        /// Whether it was bound by an earlier run.
        replay: bool,
    },
    /// The fold of all epochs up to one that is covered by a checkpoint.
    Base(Arc<Base>),
    /// An epoch that is covered by a checkpoint: it passes without reading its records.
    Skip(Arc<EpochBinding>),
    /// A checkpoint begins as of an epoch, which is the next one.
    Checkpoint {
        /// The epoch.
        epoch: Epoch,
        /// Whether the previous checkpoint failed.
        retry: bool,
    },
    /// Every epoch up to this one is durable in the ledger.
    Durable(Epoch),
    /// The replay has ended: read freely.
    Live,
    /// No further epoch opens.
    Stop,
}
