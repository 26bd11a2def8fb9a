//! The rules for a source's event times, and their builder methods.

use std::time::Duration;

use super::environment::Overrides;
use crate::late::Late;
use crate::time::EventTime;

/// The builder methods of [`TimeRules`] for every source, for a type with a field `rules`.
macro_rules! time_rules {
    () => {
        /// Takes the event time from the value. By default, an event's time is its record's timestamp.
        pub fn event_time(mut self, f: impl Fn(&T) -> EventTime + 'static) -> Self {
            self.rules.event_time = Some(Box::new(f));
            self
        }

        /// How far events may lag behind the newest event of their partition and still be on time. Default:
        /// not at all.
        pub fn lateness(mut self, d: Duration) -> Self {
            self.rules.lateness = d;
            self
        }

        /// What to do with events that are late for their window: see [`Late`](crate::late::Late). Default:
        /// they become dead letters.
        pub fn late(mut self, late: crate::late::Late) -> Self {
            self.rules.late = late;
            self
        }

        /// How long a partition may have no valid event time before it no longer holds windows open. Once all
        /// partitions are quiet for that long, the source no longer holds back streams that it is merged
        /// with. Default: 10 s.
        ///
        /// A partition is quiet only if an observation of the log has shown that there is nothing beyond what
        /// was read; that takes up to a second more. Time during which a transaction is open in it, or the
        /// broker does not respond, does not count, however long it lasts: a transaction that is never ended
        /// holds the source back until somebody aborts it. The service logs a warning about it.
        pub fn idle_after(mut self, d: Duration) -> Self {
            self.rules.idle_after = d;
            self
        }

        /// How far in the future an event time may be; beyond that, the record becomes a dead letter.
        /// Default: one hour.
        ///
        /// The present is the service's clock when it reads the record. An event time up to the bound is
        /// never rejected, however short the bound. The limit moves in steps, so event times up to 2 s (or a
        /// thirtieth of the bound, if that is more) further ahead may pass. Every replay makes the same
        /// decisions.
        pub fn future_bound(mut self, d: Duration) -> Self {
            self.rules.future_bound = d;
            self
        }
    };
}

pub(crate) use time_rules;

/// The rules for event times.
pub struct TimeRules<T> {
    /// Takes the event time from the value; `None`: uses the record's own timestamp.
    pub event_time: Option<Box<dyn Fn(&T) -> EventTime>>,
    /// How far a partition's watermark stays behind its highest event time.
    pub lateness: Duration,
    /// What to do with late events.
    pub late: Late,
    /// How long a partition that was read to its end may have no valid event time before it stops holding
    /// back the watermark.
    pub idle_after: Duration,
    /// How far beyond the sequencer's clock an event time may be.
    pub future_bound: Duration,
    /// Whether the source has a watermark. Tables do not.
    pub timed: bool,
}

impl<T> TimeRules<T> {
    /// Applies the settings.
    pub fn take_over(&mut self, said: &Overrides) {
        self.lateness = said.lateness.unwrap_or(self.lateness);
        self.idle_after = said.idle_after.unwrap_or(self.idle_after);
        self.future_bound = said.future_bound.unwrap_or(self.future_bound);
        self.late = said.late.unwrap_or(self.late);
    }
}

impl<T> Default for TimeRules<T> {
    fn default() -> Self {
        Self {
            event_time: None,
            lateness: Duration::ZERO,
            late: Late::default(),
            idle_after: Duration::from_secs(10),
            future_bound: Duration::from_secs(3600),
            timed: true,
        }
    }
}
