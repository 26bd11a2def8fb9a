//! The two kinds of time: [`Epoch`], the one clock that all operators run under, and [`EventTime`], which is
//! data.
//!
//! ```text
//!  epoch      n-1        n          n+1        one atomic step of the whole dataflow, defined by the ledger
//!  ───────────┼──────────┼──────────┼────────▶
//!  W(n)      09:00:02   09:00:02   09:00:05    event time below which nothing on time is still to come
//! ```

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use differential_dataflow::lattice::{Lattice, Maximum};
use serde::{Deserialize, Serialize};
use timely::order::{PartialOrder, TotalOrder};
use timely::progress::Timestamp;
use timely::progress::timestamp::{PathSummary, Refines};

/// One atomic step of the whole dataflow.
///
/// The number is the time at which it was opened, in microseconds since the Unix epoch, made strictly
/// increasing: so an epoch can be read as a time, and setting the clock back does no harm. Its binding in the
/// ledger defines what an epoch contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before every epoch that a ledger binds.
    pub const ZERO: Epoch = Epoch(0);

    /// The next number; not necessarily of an epoch that is ever opened.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }

    /// The greatest epoch that may have been opened by this time.
    pub(crate) fn opened_by(time: EventTime) -> Self {
        Self(u64::try_from(time.micros()).unwrap_or(0))
    }

    /// The time at which the epoch was opened, as an event time (for `as_of` and for display).
    pub fn opened_at(self) -> EventTime {
        EventTime(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialOrder for Epoch {
    #[inline]
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
    #[inline]
    fn less_than(&self, other: &Self) -> bool {
        self < other
    }
}
impl TotalOrder for Epoch {}

/// Epochs never advance along a path: no cycle of a dataflow is at the level of epochs.
impl PathSummary<Epoch> for () {
    #[inline]
    fn results_in(&self, src: &Epoch) -> Option<Epoch> {
        Some(*src)
    }
    #[inline]
    fn followed_by(&self, (): &()) -> Option<()> {
        Some(())
    }
}

impl Timestamp for Epoch {
    type Summary = ();
    #[inline]
    fn minimum() -> Self {
        Epoch::ZERO
    }
}

impl Refines<()> for Epoch {
    fn to_inner((): ()) -> Self {
        Epoch::ZERO
    }
    fn to_outer(self) {}
    fn summarize((): ()) {}
}

impl Lattice for Epoch {
    #[inline]
    fn join(&self, other: &Self) -> Self {
        *self.max(other)
    }
    #[inline]
    fn meet(&self, other: &Self) -> Self {
        *self.min(other)
    }
}

impl Maximum for Epoch {
    fn maximum() -> Self {
        Epoch(u64::MAX)
    }
}

/// A point in event time: microseconds since the Unix epoch, as the event's own data says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "$thalweg::EventTime")]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event: as a watermark, "nothing is known yet".
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// After every event.
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// From milliseconds since the Unix epoch, saturating.
    ///
    /// ```
    /// use thalweg::EventTime;
    /// assert_eq!(EventTime::from_millis(1_500).micros(), 1_500_000);
    /// ```
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000))
    }

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    /// From seconds since the Unix epoch, saturating.
    pub const fn from_secs(s: i64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// This time minus `by`, at least [`EventTime::MIN`].
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(micros(by)))
    }

    /// This time plus `by`, at most [`EventTime::MAX`].
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(micros(by)))
    }
}

/// `d` in whole microseconds, saturating.
pub fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// A duration as text, in the largest unit without remainder: `7d`, `24h`, `90s`, `1500ms`. A single day is
/// `24h`.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(thalweg::time::span(Duration::from_secs(600)), "10m");
/// ```
pub fn span(d: Duration) -> String {
    const HOUR_US: u128 = 3_600_000_000;
    let us = d.as_micros();
    let whole = |unit: u128| us.is_multiple_of(unit).then(|| us / unit);
    match us {
        0 => "0s".to_owned(),
        _ if us > 24 * HOUR_US && whole(24 * HOUR_US).is_some() => format!("{}d", us / (24 * HOUR_US)),
        _ => [(HOUR_US, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")]
            .into_iter()
            .find_map(|(unit, name)| whole(unit).map(|n| format!("{n}{name}")))
            .unwrap_or_else(|| format!("{us}us")),
    }
}

/// RFC 3339 with as many fractional digits as needed; `-inf` and `+inf` outside the calendar.
impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => t.fmt(f),
            Err(_) if self.0 < 0 => f.write_str("-inf"),
            Err(_) => f.write_str("+inf"),
        }
    }
}

impl std::str::FromStr for EventTime {
    type Err = jiff::Error;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(Self(s.parse::<jiff::Timestamp>()?.as_microsecond()))
    }
}

/// A half-open span of event time, `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "$thalweg::Window")]
pub struct Window {
    /// The first instant in the window.
    pub start: EventTime,
    /// The first instant after it.
    pub end: EventTime,
}

/// The key of a windowed result: the key and the window it is for.
///
/// Ordered by key, then window. Its hash is the key's hash alone, so that all windows of a key are on the
/// worker that owns the key: joining, looking up or viewing a windowed table by that key moves no data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename = "$thalweg::Windowed")]
pub struct Windowed<K> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
}

impl<K: Hash> Hash for Windowed<K> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// The window layout of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowLayout {
    /// The same for every key: `[n × every + offset, n × every + offset + size)`.
    Aligned {
        /// The length of a window.
        size: Duration,
        /// The interval between window starts.
        every: Duration,
        /// The offset of a window start from the Unix epoch.
        offset: Duration,
    },
    /// Different for each key, as with sessions.
    PerKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_largest_whole_unit() {
        for (us, text) in [
            (0, "0s"),
            (7 * 86_400_000_000, "7d"),
            (86_400_000_000, "24h"),
            (90_000_000_000, "25h"),
            (600_000_000, "10m"),
            (90_000_000, "90s"),
            (1_500_000, "1500ms"),
            (250, "250us"),
        ] {
            assert_eq!(span(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn event_time_reads_and_writes_rfc3339() {
        let t: EventTime = "2026-11-23T03:00:00.123Z".parse().unwrap();
        assert_eq!(t.to_string(), "2026-11-23T03:00:00.123Z");
        assert_eq!(EventTime::MIN.to_string(), "-inf");
        assert_eq!(EventTime::from_millis(-1).millis(), -1);
    }
}
