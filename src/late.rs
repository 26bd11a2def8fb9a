//! What becomes of events that come too late for their window.

use std::fmt;
use std::time::Duration;

use crate::time::span;

/// What becomes of an event that its window step can't wait for: one whose window ends at or before the
/// event's [horizon](crate::record::Timed::horizon). Each event goes by the policy of the source that it was
/// read from, wherever streams were merged.
///
/// Where windows overlap, an event that is late for some of its windows counts in the others, and is not a
/// late event: that is one that is late for all of them. The metric `thalweg_late_windows_total` counts, by
/// step, every window that an event is missing from.
///
/// ```
/// use thalweg::prelude::*;
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Reading { at_ms: i64 }
/// let readings = Kafka::topic("sensors.readings.v1")
///     .json::<Reading>()
///     .event_time(|r| EventTime::from_millis(r.at_ms))
///     .lateness(Duration::from_secs(5))
///     .late(Late::Correct(Duration::from_secs(3600)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// It goes to the dead letters of its source, under the name of the window step.
    #[default]
    DeadLetter,
    /// It is counted in the metric of late events and leaves no other trace.
    Drop,
    /// It is counted in its window, and revises the row, until the watermark is so far past the window's end.
    /// Until then the row is not `closed`, and `keep` counts from there. What comes later still is a dead
    /// letter.
    Correct(Duration),
}

impl Late {
    /// For how long after its end a window takes events of the source.
    pub fn corrects(self) -> Duration {
        match self {
            Late::Correct(for_) => for_,
            Late::DeadLetter | Late::Drop => Duration::ZERO,
        }
    }
}

/// `dead_letter`, `drop`, `correct 1h`.
impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Late::DeadLetter => f.write_str("dead_letter"),
            Late::Drop => f.write_str("drop"),
            Late::Correct(for_) => write!(f, "correct {}", span(*for_)),
        }
    }
}
