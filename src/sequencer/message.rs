//! What readers and the sequencer say to each other.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::manifest::Base;
use crate::position::{EpochBinding, Offset, PartitionId, SchemaSeen, SourceId};
use crate::time::{Epoch, EventTime};

/// How far a reader has read one partition. The counts go up from the reader's start.
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
    /// Whether a record since the report before had a valid event time.
    pub timed: bool,
    /// Highest valid event time of the partition.
    pub event_time_max: EventTime,
    /// The far-future limit they were judged by.
    pub limit: EventTime,
    /// Whether the log held no more to read.
    pub at_end: bool,
    /// About how many records it held beyond; as many as can be where nobody knows.
    pub behind: u64,
}

/// How often the far-future limit of a source moves on with the clock.
///
/// ```text
///   named at t:   t + future_bound + 2 periods       the next one: at t + 1 period
///   in force:     until 1.5 periods after it came in; from then on readers wait for the next one
/// ```
///
/// So no limit in force is below the present plus `future_bound`, even if half a period passes before a
/// worker hears of it: an event no further ahead than that is never refused. One that is up to two periods
/// further ahead may pass.
pub(crate) fn limit_period(future_bound: Duration) -> Duration {
    (future_bound / 60).max(Duration::from_secs(1))
}

/// What workers tell the sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// How far it has read a partition.
    Read(ReadTo),
    /// A schema id that it met. Comes before the report of the first records that it was used for.
    Schema(SchemaSeen),
    /// What an epoch that is closed did to the views of a process: the hash of each one's changes, in order
    /// of their names.
    Closed {
        /// The epoch.
        epoch: Epoch,
        /// The sums over the process's workers.
        hashes: Vec<u64>,
    },
}

/// What the sequencer tells every worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// `worker` starts reading a partition at `from`.
    Assign {
        /// The partition.
        id: PartitionId,
        /// The worker that reads it.
        worker: usize,
        /// Where it begins.
        from: Offset,
        /// The partition's highest valid event time up to there.
        event_time_max: EventTime,
        /// Whether it is idle as of there.
        idle: bool,
    },
    /// Event times of this source beyond the limit are refused from here on; [`EventTime::MAX`]: none are.
    /// See [`limit_period`].
    Limit(SourceId, EventTime),
    /// The lowest event time among this source's partitions that have more to read: nobody runs far ahead of
    /// it.
    Pace(SourceId, EventTime),
    /// An epoch is bound. `replay`: it was bound by an earlier run, so its records are still to be read.
    Epoch {
        /// What it contains.
        binding: Arc<EpochBinding>,
        /// Whether it was bound by an earlier run.
        replay: bool,
    },
    /// What all epochs up to one add up to, where a checkpoint stands for them.
    Base(Arc<Base>),
    /// An epoch that a checkpoint stands for: it passes, and nothing is read for it.
    Skip(Arc<EpochBinding>),
    /// A checkpoint is made as of this epoch, which is the next one.
    Checkpoint(Epoch),
    /// Every epoch up to this one is durable in the ledger.
    Durable(Epoch),
    /// The replay is over: read on freely.
    Live,
    /// No further epoch will be opened.
    Stop,
}
