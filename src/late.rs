//! The policy for late events.

use std::fmt;
use std::time::Duration;

use crate::time::span;

/// What to do with a late event: one whose window ends at or before the event's
/// [horizon](crate::record::Timed::horizon). Each event is handled by the policy of the source that it was
/// read from, even after streams were merged.
///
/// If windows overlap, an event that is late for some of its windows counts in the others and is not a late
/// event; a late event is late for all of its windows. The metric `thalweg_late_windows_total` counts, by
/// step, every window that misses an event.
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
    /// It becomes a dead letter of its source, under the name of the window step.
    #[default]
    DeadLetter,
    /// It is counted in the metric of late events and dropped.
    Drop,
    /// It is counted in its window and revises the row, until the watermark is this far past the window's
    /// end. Until then the row is not `closed`, and `keep` counts from there. Events that arrive even later
    /// become dead letters.
    Correct(Duration),
}

impl Late {
    /// How long after its end a window takes events of the source.
    pub fn corrects(self) -> Duration {
        match self {
            Late::Correct(for_) => for_,
            Late::DeadLetter | Late::Drop => Duration::ZERO,
        }
    }
}

/// As text: `dead_letter`, `drop`, `correct 1h`.
impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Late::DeadLetter => f.write_str("dead_letter"),
            Late::Drop => f.write_str("drop"),
            Late::Correct(for_) => write!(f, "correct {}", span(*for_)),
        }
    }
}
