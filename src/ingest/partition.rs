//! A partition on the worker that reads it: records that were read and wait to be released.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock;
use crate::error::Error;
use crate::metrics::PartitionMetrics;
use crate::position::{Offset, PartitionRange};
use crate::record::Timed;
use crate::sequencer::message::ReadTo;
use crate::source::{DeadLetter, Intake, ReadProgress};
use crate::time::{Epoch, EventTime};

/// The records of one read of a partition.
pub(super) struct Chunk<T> {
    pub(super) hi: Offset,
    pub(super) events: Vec<Timed<T>>,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) bytes: usize,
    pub(super) oldest: EventTime,
    /// The partition's counts as of `hi`.
    pub(super) records: u64,
    pub(super) hash: u64,
}

pub(super) struct IngestPartition<T> {
    pub(super) intake: Intake<T>,
    pub(super) chunks: VecDeque<Chunk<T>>,
    /// The end of the offsets read.
    pub(super) position: Offset,
    pub(super) reported: (Offset, bool),
    pub(super) more: bool,
    /// Reads of this turn that had records but no valid event time.
    pub(super) untimed_reads: usize,
    pub(super) at_end: bool,
    /// Number of records that the log is known to hold beyond `position`.
    pub(super) behind: u64,
    /// Ranges bound by an earlier run that are still to be read: (hi, limit).
    pub(super) bound: VecDeque<(Offset, EventTime)>,
    /// As of the last release: the counts, and the watermark of the partition.
    pub(super) released: (u64, u64),
    pub(super) watermark: EventTime,
    pub(super) metrics: PartitionMetrics,
    /// Whether the metrics show a lag.
    pub(super) lags: bool,
    /// Whether watermark alignment pauses it.
    pub(super) paused: bool,
}

/// The outcome of one read.
pub(super) struct ReadOutcome {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Whether one of the records had a valid event time.
    pub(super) timed: bool,
}

impl<T> IngestPartition<T> {
    /// A partition of which nothing was read yet, starting at an offset.
    pub(super) fn new(
        intake: Intake<T>,
        from: Offset,
        watermark: EventTime,
        metrics: PartitionMetrics,
    ) -> Self {
        Self {
            intake,
            chunks: VecDeque::new(),
            position: from,
            reported: (from, false),
            more: true,
            untimed_reads: 0,
            at_end: false,
            behind: 0,
            bound: VecDeque::new(),
            released: (0, 0),
            watermark,
            metrics,
            lags: false,
            paused: false,
        }
    }

    /// Stores the result of a read as a chunk.
    pub(super) fn keep(
        &mut self,
        progress: ReadProgress,
        until: Offset,
        before: u64,
        spare: &mut Vec<Vec<Timed<T>>>,
    ) -> ReadOutcome {
        self.position = self.position.max(progress.position.min(until));
        self.at_end = progress.at_end;
        self.more = progress.more;
        let mut held = ReadOutcome {
            records: 0,
            bytes: 0,
            timed: false,
        };
        if self.intake.records == before {
            if self.at_end && std::mem::take(&mut self.lags) {
                self.metrics.lag_seconds.set(0.0);
            }
        } else {
            let (bytes, oldest) = (self.intake.bytes, self.intake.oldest);
            self.metrics
                .records
                .inc_by(self.intake.records.wrapping_sub(before));
            self.metrics.bytes.inc_by(bytes as u64);
            let age_us = if self.at_end {
                0
            } else {
                clock::now().micros().saturating_sub(oldest.micros()).max(0)
            };
            self.metrics.lag_seconds.set(age_us as f64 / 1e6);
            self.lags = age_us > 0;
            let (events, dead) = self.intake.take(spare.pop().unwrap_or_default());
            held = ReadOutcome {
                records: events.len() + dead.len(),
                bytes,
                timed: !events.is_empty(),
            };
            let (records, hash) = (self.intake.records, self.intake.hash);
            self.chunks.push_back(Chunk {
                hi: self.position,
                events,
                dead,
                bytes,
                oldest,
                records,
                hash,
            });
        }
        if self.bound.front().is_some_and(|(hi, _)| self.position >= *hi) {
            self.bound.pop_front();
            self.more = true;
        }
        held
    }

    /// The report to the sequencer, if anything changed.
    pub(super) fn report(&mut self, timed: bool) -> Option<ReadTo> {
        let now = (self.position, self.at_end);
        if self.reported == now {
            return None;
        }
        self.reported = now;
        Some(ReadTo {
            id: self.intake.id(),
            hi: self.position,
            records: self.intake.records,
            hash: self.intake.hash,
            timed,
            event_time_max: self.intake.event_time_max,
            limit: self.intake.limit,
            at_end: self.at_end,
            behind: self.behind,
        })
    }
}

/// The watermark of a partition.
pub(super) fn watermark(event_time_max: EventTime, lateness: Duration) -> EventTime {
    match event_time_max {
        EventTime::MIN => EventTime::MIN,
        max => max.minus(lateness),
    }
}

/// The error for records that differ from those bound.
pub(super) fn differs(
    source: &str,
    range: &PartitionRange,
    epoch: Epoch,
    (records, hash): (u64, u64),
    replay: bool,
) -> Error {
    let error = match replay {
        true => Error::integrity(format!(
            "source `{source}` no longer has the records that the ledger bound"
        )),
        false => Error::internal(format!(
            "source `{source}` released records other than those it reported"
        )),
    };
    let (partition, lo, hi) = (range.id.partition, range.lo, range.hi);
    error
        .detail(format!(
            "epoch {epoch}, partition {partition}, offsets {lo}..{hi}"
        ))
        .detail(format!(
            "bound: {} records, hash {:016x}",
            range.records, range.hash
        ))
        .detail(format!("read:  {records} records, hash {hash:016x}"))
        .hint(
            "records were lost or changed since they were first read; starting over needs an empty data \
             directory (`ledger reset`)",
        )
}
