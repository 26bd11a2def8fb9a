//! How long an epoch stays open.
//!
//! An epoch opens as soon as `epoch_interval` allows, so that answers are fresh. Longer epochs cost less per
//! record: aggregates combine further, and a row changes once per epoch, however many records it has. So
//! epochs grow while the readers stay behind their logs, and shrink once they have caught up:
//!
//! ```text
//!   far behind, or behind for PATIENCE ─▶ twice as long ─▶ … ─▶ at most GROWTH_MAX intervals, or ENOUGH records
//!   not behind                         ─▶ an eighth shorter, down to the interval
//! ```
//!
//! The measure is what the logs are known to hold beyond what was read, not what was read and waits to be
//! bound. The latter grows with the length of an epoch, so one long epoch would cause the next.

use std::time::Duration;

/// With fewer unread records than this, over all partitions, the readers are not behind.
const BEHIND: u64 = 8_192;
/// How long the readers may be behind before epochs grow, unless they are far behind. Pauses of the broker or
/// the disk are usually shorter.
const PATIENCE: Duration = Duration::from_millis(100);
/// An epoch opens early when it has this many records. With this many unread, the readers are far behind.
pub(super) const ENOUGH: u64 = 250_000;
/// The longest epoch, in intervals.
const GROWTH_MAX: u32 = 20;

/// Decides the length of the next epoch.
#[derive(Debug)]
pub(super) struct Cadence {
    interval: Duration,
    length: Duration,
    /// Since when the readers have been behind, by the monotonic clock.
    behind_since: Option<Duration>,
    is_far_behind: bool,
}

impl Cadence {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            length: interval,
            behind_since: None,
            is_far_behind: false,
        }
    }

    /// Returns how long after the last epoch the next one may open, while `waiting` records are read and not
    /// bound.
    pub(super) fn length(&self, waiting: u64) -> Duration {
        match waiting {
            ENOUGH.. => self.interval,
            _ => self.length,
        }
    }

    /// Notes how many records the logs hold beyond what was read.
    pub(super) fn behind(&mut self, records: u64, now: Duration) {
        self.is_far_behind = records >= ENOUGH;
        match records {
            BEHIND.. => _ = self.behind_since.get_or_insert(now),
            _ => self.behind_since = None,
        }
    }

    /// Notes that an epoch opens.
    pub(super) fn opened(&mut self, now: Duration) {
        let longest = self.interval * GROWTH_MAX;
        self.length = match self.behind_since {
            Some(since) if self.is_far_behind || now.saturating_sub(since) >= PATIENCE => {
                (self.length * 2).min(longest)
            }
            Some(_) => self.length,
            None => (self.length - self.length / 8).max(self.interval),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn lengths(cadence: &mut Cadence, from: u32, behind: impl Fn(u32) -> u64) -> Vec<Duration> {
        let step = |ms| {
            cadence.behind(behind(ms), MS * ms);
            cadence.opened(MS * ms);
            cadence.length(0)
        };
        (from..from + 1_000).step_by(5).map(step).collect()
    }

    #[test]
    fn epochs_grow_while_readers_stay_behind_and_shrink_once_they_have_caught_up() {
        let mut cadence = Cadence::new(5 * MS);
        let lengths_of = lengths(&mut cadence, 0, |_| BEHIND);
        assert!(lengths_of[..20].iter().all(|length| *length == 5 * MS));
        assert_eq!(lengths_of[20..26], [10, 20, 40, 80, 100, 100].map(|ms| MS * ms));
        let lengths_of = lengths(&mut cadence, 1_000, |_| BEHIND - 1);
        assert!(lengths_of.is_sorted_by(|a, b| a >= b));
        assert_eq!(lengths_of.last(), Some(&(5 * MS)));
    }

    #[test]
    fn what_passes_sooner_is_no_reason_for_longer_epochs() {
        let mut cadence = Cadence::new(5 * MS);
        let stalls = |ms| if ms % 200 < 95 { 100_000 } else { 10 };
        let lengths = lengths(&mut cadence, 0, stalls);
        assert!(lengths.iter().all(|length| *length == 5 * MS));
    }

    #[test]
    fn who_is_far_behind_does_not_wait_and_see() {
        let mut cadence = Cadence::new(5 * MS);
        assert_eq!(
            lengths(&mut cadence, 0, |_| ENOUGH)[..3],
            [10, 20, 40].map(|ms| MS * ms)
        );
    }

    #[test]
    fn whatever_comes_no_epoch_opens_before_the_interval_is_over() {
        let mut cadence = Cadence::new(5 * MS);
        lengths(&mut cadence, 0, |_| u64::MAX);
        assert_eq!(cadence.length(ENOUGH - 1), 100 * MS);
        assert_eq!(cadence.length(ENOUGH), 5 * MS);
    }
}
