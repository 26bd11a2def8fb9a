//! Limits on what a worker buffers of a source.

use std::time::Duration;

use crate::time::EventTime;

/// Limits on what one source may buffer on one worker between reading and release.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    /// Number of records.
    pub records_max: usize,
    /// Bytes of their payloads and keys.
    pub bytes_max: usize,
    /// Number of records per read.
    pub batch_max: usize,
    /// Watermark alignment: how far a partition may be ahead, in event time, of one that has more to read.
    /// [`Duration::MAX`]: without limit, even ahead of a partition that has not had an event yet.
    pub skew_max: Duration,
}

impl BufferLimits {
    /// The event time up to which a partition may be read while the slowest one is at `alignment`.
    pub(super) fn ahead_of(&self, alignment: EventTime) -> EventTime {
        match self.skew_max {
            Duration::MAX => EventTime::MAX,
            skew => alignment.plus(skew),
        }
    }
}

impl Default for BufferLimits {
    fn default() -> Self {
        Self {
            records_max: 500_000,
            bytes_max: 64 << 20,
            batch_max: 4096,
            skew_max: Duration::from_secs(30),
        }
    }
}
