//! How much a worker holds of a source before it waits.

use std::time::Duration;

use crate::time::EventTime;

/// Bounds of what one source may hold on one worker between reading and release.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records.
    pub records_max: usize,
    /// Bytes of their payloads and keys.
    pub bytes_max: usize,
    /// Records of one read.
    pub batch_max: usize,
    /// How far a partition may run ahead, in event time, of one that has more to read. [`Duration::MAX`]: as
    /// far as it likes, also ahead of one that has not brought a single event yet.
    pub skew_max: Duration,
}

impl Bounds {
    /// Up to which event time a partition may be read while the slowest stands at `pace`.
    pub(super) fn ahead_of(&self, pace: EventTime) -> EventTime {
        match self.skew_max {
            Duration::MAX => EventTime::MAX,
            skew => pace.plus(skew),
        }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            records_max: 500_000,
            bytes_max: 64 << 20,
            batch_max: 4096,
            skew_max: Duration::from_secs(30),
        }
    }
}
