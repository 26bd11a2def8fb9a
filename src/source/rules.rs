//! How a source's event times are taken and judged, and how its builder is told.

use std::time::Duration;

use super::environment::Overrides;
use crate::late::Late;
use crate::time::EventTime;

/// The settings of [`TimeRules`] that every source's builder has, for a type with a field `rules` of them.
macro_rules! time_rules {
    () => {
        /// Takes the event time from the value. Without it an event's time is its record's timestamp.
        pub fn event_time(mut self, f: impl Fn(&T) -> EventTime + 'static) -> Self {
            self.rules.event_time = Some(Box::new(f));
            self
        }

        /// How far events may lag behind the newest one of their partition and still be on time. Default: not
        /// at all.
        pub fn lateness(mut self, d: Duration) -> Self {
            self.rules.lateness = d;
            self
        }

        /// What becomes of events that come too late for their window: see [`Late`](crate::late::Late).
        /// Default: they are dead letters.
        pub fn late(mut self, late: crate::late::Late) -> Self {
            self.rules.late = late;
            self
        }

        /// After how long without a valid event time a partition no longer holds windows open. Once all
        /// partitions are so quiet, the source holds nobody back where streams meet. Default: 10 s.
        ///
        /// A partition is quiet only when a look at the log has shown that there is nothing beyond what was
        /// read; that takes up to a second more. Time in which a transaction is open in it, or nobody
        /// answers, does not count, however long it takes: a transaction that is never ended holds the source
        /// until somebody aborts it. The service tells of it.
        pub fn idle_after(mut self, d: Duration) -> Self {
            self.rules.idle_after = d;
            self
        }

        /// How far past the present an event time may lie; beyond that the record is a dead letter. Default:
        /// one hour.
        ///
        /// The present is that of the service as it reads the record. An event time up to the bound is never
        /// refused, however short the bound. The limit moves on from time to time only, so that one up to 2 s
        /// further ahead, or a thirtieth of the bound where that is more, may pass. What has passed, or was
        /// refused, stays so in every replay.
        pub fn future_bound(mut self, d: Duration) -> Self {
            self.rules.future_bound = d;
            self
        }
    };
}

pub(crate) use time_rules;

/// How event times are taken and judged.
pub struct TimeRules<T> {
    /// Takes the event time from the value; `None`: the record's own timestamp.
    pub event_time: Option<Box<dyn Fn(&T) -> EventTime>>,
    /// How far a partition's watermark stays behind its highest event time.
    pub lateness: Duration,
    /// What becomes of events that come too late.
    pub late: Late,
    /// After how long without a valid event time a partition that was read to its end stops holding the
    /// watermark back.
    pub idle_after: Duration,
    /// How far in the future, past the sequencer's now, an event time may lie.
    pub future_bound: Duration,
    /// Whether the source takes part in watermarks at all. Tables don't.
    pub timed: bool,
}

impl<T> TimeRules<T> {
    /// Puts in what the settings say.
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
