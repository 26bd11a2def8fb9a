//! The far-future limit of event times as a worker knows it, with its age.

use std::time::{Duration, Instant};

use crate::sequencer::message::limit_period;
use crate::time::EventTime;

/// The far-future limit that the next records are checked against.
#[derive(Clone, Copy)]
pub(super) struct FutureLimit {
    /// Event times beyond this are rejected.
    pub(super) event_time: EventTime,
    /// When this worker received it, by the monotonic clock.
    pub(super) heard: Instant,
}

impl FutureLimit {
    /// The limit while it is recent enough to be applied: see [`limit_period`].
    pub(super) fn in_force(self, now: Instant, future_bound: Duration) -> Option<EventTime> {
        let age_max = limit_period(future_bound) * 3 / 2;
        let endless = self.event_time == EventTime::MAX;
        (endless || now.saturating_duration_since(self.heard) <= age_max).then_some(self.event_time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::position::SourceId;
    use crate::sequencer::message::Order;
    use crate::sequencer::{ClockReading, Cuts, Sequencer, SequencerSettings, SourceRules};

    /// The limit that a sequencer sets at `wall`.
    fn named(wall: u64, future_bound: Duration) -> EventTime {
        let settings = SequencerSettings {
            cuts: Cuts::Clock {
                interval: Duration::from_millis(5),
            },
            epochs_in_flight_max: 3,
            replay_in_flight_max: 3,
            workers: 1,
            results: None,
        };
        let rules = SourceRules {
            id: SourceId(1),
            name: "orders".into(),
            lateness: Duration::ZERO,
            idle_after: Duration::from_secs(1),
            future_bound,
            timed: true,
        };
        let mut sequencer = Sequencer::new(settings, vec![rules]);
        sequencer.live();
        let mono = Duration::ZERO;
        let _ = sequencer.next(ClockReading { wall, mono });
        let limits = sequencer
            .take_orders()
            .into_iter()
            .filter_map(|order| match order {
                Order::Limit(_, limit) => Some(limit),
                _ => None,
            });
        limits.last().expect("a limit is named at once")
    }

    #[test]
    fn no_limit_in_force_is_below_the_present_and_the_bound() {
        let start = clock::instant();
        for bound_ms in [0u64, 1, 500, 3_600_000, 31_536_000_000] {
            let bound = Duration::from_millis(bound_ms);
            let period = limit_period(bound);
            let event_time = named(1_000_000, bound);
            let mut in_force = 0;
            // In transit for up to half an interval, and then applied at any age.
            for tenths in 0..=50 {
                let (way, age) = (period / 2, period * tenths / 10);
                let limit = FutureLimit {
                    event_time,
                    heard: start + way,
                };
                let Some(limit) = limit.in_force(start + way + age, bound) else {
                    continue;
                };
                in_force = tenths;
                let present = EventTime(1_000_000).plus(way + age);
                assert!(limit >= present.plus(bound), "{bound:?}, {age:?} old");
                assert!(limit <= EventTime(1_000_000).plus(bound).plus(2 * period));
            }
            assert_eq!(
                in_force, 15,
                "a period and a half, so that none is missed for the next"
            );
        }
    }

    #[test]
    fn what_limits_nothing_does_not_age() {
        let limit = FutureLimit {
            event_time: EventTime::MAX,
            heard: clock::instant(),
        };
        let later = limit.heard + Duration::from_secs(3_600);
        assert_eq!(limit.in_force(later, Duration::ZERO), Some(EventTime::MAX));
    }
}
