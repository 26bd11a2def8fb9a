//! How long an epoch stays open.
//!
//! An epoch opens as soon as the interval of the settings allows, so that answers are fresh. Longer epochs
//! cost less for each record: aggregates are combined further, and a row changes once an epoch, however many
//! of its records come. So where the readers stay behind what their logs hold, epochs grow until they no
//! longer do, and shrink again once they have caught up:
//!
//! ```text
//!   far behind, or behind for PATIENCE ─▶ twice as long ─▶ … ─▶ at most GROWTH_MAX intervals, or ENOUGH records
//!   not behind                         ─▶ an eighth shorter, down to the interval
//! ```
//!
//! What counts is what the logs are known to hold beyond what was read, and not what was read and waits to be
//! bound: that grows with the length of an epoch itself, so that one long epoch would be a reason for the
//! next one.

use std::time::Duration;

/// Fewer records than this, over all partitions, are on their way rather than left behind.
const BEHIND: u64 = 8_192;
/// For so long they may be more, up to `ENOUGH`, before epochs grow: a pause of the broker or of the disk
/// passes sooner.
const PATIENCE: Duration = Duration::from_millis(100);
/// An epoch is worth opening when it has so many records, however long it was to be; and with so many left
/// behind, it will be long before readers have caught up.
pub(super) const ENOUGH: u64 = 250_000;
/// The longest epoch, in intervals.
const GROWTH_MAX: u32 = 20;

/// Chooses the length of the next epoch.
#[derive(Debug)]
pub(super) struct Cadence {
    interval: Duration,
    length: Duration,
    /// Since when the readers are behind, by the monotonic clock.
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

    /// How long after the last epoch the next one may open, while `waiting` records are read and not bound.
    pub(super) fn length(&self, waiting: u64) -> Duration {
        match waiting {
            ENOUGH.. => self.interval,
            _ => self.length,
        }
    }

    /// Takes in how many records the logs hold beyond what was read.
    pub(super) fn behind(&mut self, records: u64, now: Duration) {
        self.is_far_behind = records >= ENOUGH;
        match records {
            BEHIND.. => _ = self.behind_since.get_or_insert(now),
            _ => self.behind_since = None,
        }
    }

    /// An epoch opens.
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
