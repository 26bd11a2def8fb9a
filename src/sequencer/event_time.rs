//! What the sequencer makes of event time: whom the readers wait for, who is idle, how high watermarks stand.
//!
//! A partition **counts** in its source's minimum when it is not idle and has brought a valid event time. One that has brought
//! none counts too, as "nothing is known", but only until its source has a watermark: a partition that was added later joins
//! with its first valid record, and an empty one doesn't hold the others up. A source of which no partition counts is idle as
//! a whole.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::position::{PartitionId, SourceId};
use crate::sequencer::message::{Order, ReadTo};
use crate::sequencer::{Now, Partition, Sequencer};
use crate::time::EventTime;

impl Partition {
    /// Takes in that its reader has read on.
    pub(super) fn read(&mut self, report: ReadTo) {
        self.at_end = report.at_end;
        if report.timed {
            self.untimed = false;
        } else if report.records != self.heard {
            self.untimed = true;
        }
        self.heard = report.records;
        if report.hi > self.read_to() {
            self.reports.push_back(report);
        }
    }

    /// The highest event time that was read.
    fn event_time_read(&self) -> EventTime {
        self.reports
            .back()
            .map_or(self.bound.event_time_max, |r| r.event_time_max)
    }
}

impl Sequencer {
    fn of(&self, source: SourceId) -> impl Iterator<Item = &Partition> {
        let of = |partition| PartitionId { source, partition };
        self.partitions.range(of(0)..=of(u32::MAX)).map(|(_, p)| p)
    }

    /// Nobody runs far ahead of the partition that is furthest behind in event time and has more to read. One whose newest
    /// records have no event time gets no further in it however much is read, so waiting for it would be in vain; one of
    /// which nothing was read yet is waited for.
    pub(super) fn refresh_paces(&mut self) {
        for source in self.sources.values().filter(|s| s.timed) {
            let getting_on = self.of(source.id).filter(|p| !p.at_end && !p.untimed);
            let behind = getting_on
                .map(Partition::event_time_read)
                .min()
                .unwrap_or(EventTime::MAX);
            if self.paces.insert(source.id, behind) != Some(behind) {
                self.orders.push(Order::Pace(source.id, behind));
            }
        }
    }

    /// Partitions that were read to their end and have brought no valid event time for long enough become idle, whatever
    /// else they bring; in how long.
    pub(super) fn turning_idle(&self, now: Now) -> impl Iterator<Item = (PartitionId, Duration)> {
        self.partitions.iter().filter_map(move |(id, p)| {
            let rules = &self.sources[&id.source];
            let waiting = rules.timed && !p.bound.idle && p.at_end && p.reports.iter().all(|r| !r.timed);
            let since = p.active.max(self.live_since.unwrap_or(now.mono));
            waiting.then(|| {
                (
                    *id,
                    rules.idle_after.saturating_sub(now.mono.saturating_sub(since)),
                )
            })
        })
    }

    /// Those of them whose time has come.
    pub(super) fn idle_due(&self, now: Now) -> BTreeSet<PartitionId> {
        let due = self.turning_idle(now).filter(|(_, left)| left.is_zero());
        due.map(|(id, _)| id).collect()
    }

    /// Epochs could not open for `stalled`, so buffers may have filled and reading may have stopped: what was "read to its
    /// end" before may long have more, and that time says nothing of a partition's quiet. Short waits are part of any load.
    pub(super) fn forget_stall(&mut self, stalled: Duration) {
        for (id, partition) in &mut self.partitions {
            if stalled > self.sources[&id.source].idle_after / 2 {
                partition.active += stalled;
            }
        }
    }

    /// Raises watermarks, and finds the sources that are now idle as a whole or no longer so: what is new, to be bound.
    pub(super) fn raise_watermarks(&mut self) -> (Vec<(SourceId, EventTime)>, Vec<(SourceId, bool)>) {
        let (mut raised, mut turned) = (Vec::new(), Vec::new());
        for source in self.sources.values().filter(|s| s.timed) {
            let before = self.watermarks.get(&source.id).copied().unwrap_or(EventTime::MIN);
            let counts = |p: &&Partition| {
                !p.bound.idle && (p.bound.event_time_max > EventTime::MIN || before == EventTime::MIN)
            };
            let low = self
                .of(source.id)
                .filter(counts)
                .map(|p| match p.bound.event_time_max {
                    EventTime::MIN => EventTime::MIN,
                    max => max.minus(source.lateness),
                });
            let low = low.min();
            // W is the minimum, and never goes back; where nobody counts, it holds.
            if let Some(low) = low.filter(|low| *low > before) {
                raised.push((source.id, low));
            }
            let idle = low.is_none() && self.of(source.id).next().is_some();
            if idle != self.idle.contains(&source.id) {
                turned.push((source.id, idle));
            }
        }
        self.watermarks.extend(raised.iter().copied());
        self.note_idle(&turned);
        (raised, turned)
    }

    pub(super) fn note_idle(&mut self, turned: &[(SourceId, bool)]) {
        for (source, idle) in turned {
            if *idle {
                self.idle.insert(*source);
            } else {
                self.idle.remove(source);
            }
        }
    }
}

#[cfg(test)]
mod tests;
