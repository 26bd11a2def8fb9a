//! Event time in the sequencer: watermark alignment, idleness, and watermarks.
//!
//! A partition **counts** in its source's minimum if it is not idle and has had a valid event time. A
//! partition without one also counts, as "unknown", until its source has a watermark. After that, for example
//! if it was added to a topic, it counts until it was read to where it ended when it was first observed:
//! records it held then may be on time, and W waits for them. An empty partition does not hold the others up.
//! A source of which no partition counts is idle as a whole.
//!
//! A partition turns **idle** if it had no valid event time for `idle_after` and is known to have had none to
//! read:
//!
//! ```text
//!   last valid event time        a look is begun,                             all before H is read,
//!   was bound                    it finds that the log ends at H              with no valid event time in it
//!   ──────┴───────────────────────────────┴───────────────────────────────────────────┴────────▶ now
//!         └──────── idle_after ───────────┘ or more: idle
//! ```
//!
//! A reader at its end does not prove that the log is: a transaction may be open, the broker away or slow,
//! the leader another, the reader paused or out of buffer space. All of these are possible until an
//! observation of the log itself has ruled them out. An observation that finds an open transaction, or fails,
//! restarts the quiet time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::position::{Offset, PartitionId, SourceId};
use crate::sequencer::message::{Order, ReadTo, limit_period};
use crate::sequencer::{ClockReading, Cuts, PartitionProgress, Sequencer};
use crate::source::PartitionFacts;
use crate::time::EventTime;

/// What observations from outside tell about a partition's quiet, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// An observation: when it began, and the end of the log at that time, which has not been read yet.
    asked: Option<(Duration, Offset)>,
    /// Everything that the log contained at this time has been read.
    proven: Duration,
}

impl PartitionProgress {
    /// Records an observation that began at `asked`. A previous one that reading has not caught up with is
    /// kept, unless the log has become shorter; otherwise a steady flow of records would never let reading
    /// catch up.
    pub(super) fn seen(&mut self, facts: &PartitionFacts, asked: Duration) {
        if facts.has_open_transaction() {
            return self.mark_not_quiet(asked);
        }
        if self.quiet.asked.is_none_or(|(_, end)| facts.end < end) {
            self.quiet.asked = Some((asked, facts.end));
        }
        self.observe_quiet();
    }

    /// Records that it was not quiet, or that this is unknown.
    fn mark_not_quiet(&mut self, at: Duration) {
        self.active = self.active.max(at);
        self.quiet.asked = None;
    }

    fn observe_quiet(&mut self) {
        let read_to = self.read_to();
        if let Some((asked, _)) = self.quiet.asked.take_if(|(_, end)| *end <= read_to) {
            self.quiet.proven = asked;
        }
    }

    /// Whether records that it contained when it was first observed are still to be read.
    fn is_joining(&self) -> bool {
        self.first
            .is_some_and(|first| self.bound.hi < first.high_watermark)
    }

    /// Records its reader's progress.
    pub(super) fn read(&mut self, report: ReadTo) {
        self.at_end = report.at_end;
        self.behind = report.behind;
        if report.timed {
            self.untimed = false;
        } else if report.records != self.heard {
            self.untimed = true;
        }
        self.heard = report.records;
        if report.hi > self.read_to() {
            self.reports.push_back(report);
            self.observe_quiet();
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
    /// Far-future limits move with the clock whether or not epochs open, so that records after a quiet hour
    /// are not rejected.
    pub(super) fn refresh_limits(&mut self, now: ClockReading) {
        let scripted = matches!(self.settings.cuts, Cuts::Script(_));
        for rules in self.sources.values().filter(|s| s.timed) {
            let period = limit_period(rules.future_bound);
            let due = self
                .limits
                .get(&rules.id)
                .is_none_or(|at| now.mono.saturating_sub(*at) >= period);
            if due {
                let wall = EventTime(i64::try_from(now.wall).unwrap_or(i64::MAX));
                let limit = if scripted {
                    EventTime::MAX
                } else {
                    wall.plus(rules.future_bound).plus(2 * period)
                };
                self.limits.insert(rules.id, now.mono);
                self.orders.push(Order::Limit(rules.id, limit));
            }
        }
    }

    fn of(&self, source: SourceId) -> impl Iterator<Item = &PartitionProgress> {
        let of = |partition| PartitionId { source, partition };
        self.partitions.range(of(0)..=of(u32::MAX)).map(|(_, p)| p)
    }

    /// Watermark alignment: no partition reads far ahead of the one that is furthest behind in event time and
    /// has more to read. A partition whose latest records have no event time does not advance however much is
    /// read, so it is not waited for; one that has not been read yet is.
    pub(super) fn refresh_alignments(&mut self) {
        for source in self.sources.values().filter(|s| s.timed) {
            let getting_on = self.of(source.id).filter(|p| !p.at_end && !p.untimed);
            let behind = getting_on
                .map(PartitionProgress::event_time_read)
                .min()
                .unwrap_or(EventTime::MAX);
            if self.alignments.insert(source.id, behind) != Some(behind) {
                self.orders.push(Order::Alignment(source.id, behind));
            }
        }
    }

    /// Records a failed observation: whether anything arrived meanwhile is unknown.
    pub fn unseen(&mut self, source: SourceId, now: ClockReading) {
        for (_, partition) in self.partitions.iter_mut().filter(|(id, _)| id.source == source) {
            partition.mark_not_quiet(now.mono);
        }
    }

    /// Partitions that turn idle now, whatever they have besides valid event times: see above.
    pub(super) fn idle_due(&self) -> BTreeSet<PartitionId> {
        let live_since = self.live_since.unwrap_or(Duration::MAX);
        let due = self.partitions.iter().filter(|(id, p)| {
            let rules = &self.sources[&id.source];
            let waiting = rules.timed && !p.bound.idle && p.at_end && p.reports.iter().all(|r| !r.timed);
            let quiet = p.quiet.proven.checked_sub(p.active.max(live_since));
            waiting && quiet.is_some_and(|quiet| quiet >= rules.idle_after)
        });
        due.map(|(id, _)| *id).collect()
    }

    /// Raises watermarks, and determines which sources became entirely idle or no longer are; the changes are
    /// to be bound.
    pub(super) fn raise_watermarks(&mut self) -> (Vec<(SourceId, EventTime)>, Vec<(SourceId, bool)>) {
        let (mut raised, mut turned) = (Vec::new(), Vec::new());
        for source in self.sources.values().filter(|s| s.timed) {
            let before = self.watermarks.get(&source.id).copied().unwrap_or(EventTime::MIN);
            let counts = |p: &&PartitionProgress| {
                let heard_of = p.bound.event_time_max > EventTime::MIN;
                !p.bound.idle && (heard_of || before == EventTime::MIN || p.is_joining())
            };
            let low = self
                .of(source.id)
                .filter(counts)
                .map(|p| match p.bound.event_time_max {
                    EventTime::MIN => EventTime::MIN,
                    max => max.minus(source.lateness),
                });
            let low = low.min();
            // W is the minimum and never decreases; if no partition counts, it holds.
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
