//! Late events of windows, handled by the policy of their source.
//!
//! ```text
//!   window [ start … end ) ── end + for of s ──────── end + F, F the greatest `for` ──────── end + F + keep
//!            on time       │  corrected             │  events of s are late, others may       │  closed      │ expired
//!                          └── Late::Correct only                                             not be
//! ```
//!
//! An event of source s is late for a window if the window's end + `for` of s ≤ its horizon; `for` is zero
//! unless s [corrects](Late::Correct). The horizon is a function of the log and `for` is a setting of the
//! dataflow, so lateness is a function of both.
//!
//! A step over a set S of sources closes a window in the first epoch n with end + F ≤ E(n), where F is the
//! greatest `for` in S. No later event can enter it: an event of epoch m > n has a horizon of at least E(m−1)
//! ≥ E(n) ([why](crate::operator::horizon)), which is ≥ end + F ≥ end + `for` of its own source, so it is
//! late. Within epoch n, events are folded in before windows close. So a `closed` row is never revised, and
//! because a window expires no earlier than it closes, an expired window is never reopened with part of its
//! events.

use std::time::Duration;

use crate::late::Late;
use crate::position::SourceId;
use crate::time::{EventTime, micros};

/// The policies of a step's sources.
#[derive(Clone, Debug)]
pub(crate) struct LatePolicies {
    sources: Vec<SourceLatePolicy>,
}

#[derive(Clone, Copy, Debug)]
struct SourceLatePolicy {
    source: SourceId,
    late: Late,
    for_us: i64,
}

impl LatePolicies {
    /// By source. An event of any other source gets no corrections, and becomes a dead letter if it is late.
    pub(crate) fn new(sources: Vec<(SourceId, Late)>) -> Self {
        let policy = |(source, late): (SourceId, Late)| SourceLatePolicy {
            source,
            late,
            for_us: micros(late.corrects()),
        };
        Self {
            sources: sources.into_iter().map(policy).collect(),
        }
    }

    /// Policies for events emitted by a step that waited for the watermark: by then all sources have closed
    /// as much, so each event gets the longest time for corrections.
    pub(crate) fn behind_watermark(mut self, is_behind: bool) -> Self {
        let longest = micros(self.corrects());
        if is_behind {
            self.sources.iter_mut().for_each(|policy| policy.for_us = longest);
        }
        self
    }

    #[inline]
    fn of(&self, source: SourceId) -> Option<&SourceLatePolicy> {
        self.sources.iter().find(|policy| policy.source == source)
    }

    /// The time up to which windows are closed for an event with this horizon: it is late for windows that
    /// end at or before it.
    #[inline]
    pub(crate) fn over(&self, source: SourceId, horizon: EventTime) -> EventTime {
        let for_us = self.of(source).map_or(0, |policy| policy.for_us);
        EventTime(horizon.micros().saturating_sub(for_us))
    }

    /// Whether a late event becomes a dead letter.
    pub(crate) fn writes_dead_letters(&self, source: SourceId) -> bool {
        self.of(source).is_none_or(|policy| policy.late != Late::Drop)
    }

    /// How long after its end a window takes corrections: the longest time among the sources.
    pub(crate) fn corrects(&self) -> Duration {
        let each = self.sources.iter().map(|policy| policy.late.corrects());
        each.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_policy() {
        let [a, b, c, other] = [1, 2, 3, 4].map(SourceId);
        let hour = Duration::from_secs(3600);
        let policies = LatePolicies::new(vec![
            (a, Late::Correct(hour)),
            (b, Late::Drop),
            (c, Late::DeadLetter),
        ]);
        let over = |source| policies.over(source, EventTime::from_secs(4000)).micros() / 1_000_000;
        assert_eq!([a, b, c, other].map(over), [400, 4000, 4000, 4000]);
        let letters = |source| policies.writes_dead_letters(source);
        assert_eq!([a, b, c, other].map(letters), [true, false, true, true]);
        assert_eq!(policies.corrects(), hour);
    }

    #[test]
    fn nothing_is_late_where_nothing_is_known_or_corrections_never_end() {
        let a = SourceId(1);
        for late in [
            Late::Correct(Duration::from_secs(1)),
            Late::Correct(Duration::MAX),
        ] {
            assert_eq!(
                LatePolicies::new(vec![(a, late)]).over(a, EventTime::MIN),
                EventTime::MIN
            );
        }
        let ever = LatePolicies::new(vec![(a, Late::Correct(Duration::MAX))]);
        assert!(ever.over(a, EventTime::from_secs(4_000_000_000)) < EventTime::from_secs(-62_135_596_800));
    }
}
