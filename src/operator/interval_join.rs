//! Joins two streams whose events are close in event time.
//!
//! ```text
//!   left  ──▶ admit ─┐                         ┌─ left events,  until time + to    ─┐
//!                    ├═ exchange by key ═▶ state                                     ├─▶ pairs
//!   right ──▶ admit ─┘                         └─ right events, until time − from   ─┘
//! ```
//!
//! An event on either side is joined with the events of the other side that arrived before it, and waits for
//! later ones. It expires once the watermark rules out further matches.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::checkpoint::keyed::KeyedState;
use crate::checkpoint::keyed::grouped::{GroupedStore, SubKey};
use crate::operator::process::{Batch, Emitted, EpochInfo, KeyedOperator};
use crate::position::Position;
use crate::record::{Event, Record, Timed};
use crate::time::{EventTime, micros};

/// The allowed offset of a right event's time from a left event's, both bounds included.
///
/// ```
/// use thalweg::prelude::*;
/// let minutes = |n: u64| Duration::from_secs(60 * n);
/// // Up to ten minutes before the left event, or at the same time.
/// let before = Interval::before(minutes(10));
/// // From ten minutes before to five minutes after.
/// let both = Interval::before(minutes(10)).and_after(minutes(5));
/// assert_eq!(before.to_string(), "from 10m before to 0s after");
/// assert_eq!(both.to_string(), "from 10m before to 5m after");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Lower bound of the right event's time minus the left event's, in microseconds.
    from_us: i64,
    /// Upper bound.
    to_us: i64,
}

impl Interval {
    /// The right event is up to `span` earlier than the left one, or at the same time.
    pub fn before(span: Duration) -> Self {
        Self {
            from_us: -micros(span),
            to_us: 0,
        }
    }

    /// The right event is up to `span` later than the left one, or at the same time.
    pub fn after(span: Duration) -> Self {
        Self {
            from_us: 0,
            to_us: micros(span),
        }
    }

    /// The right event is up to `span` earlier or later than the left one.
    pub fn around(span: Duration) -> Self {
        Self::before(span).and_after(span)
    }

    /// Extends the interval to `span` later.
    pub fn and_after(self, span: Duration) -> Self {
        Self {
            to_us: self.to_us.max(micros(span)),
            ..self
        }
    }

    /// The right event is from `from_us` to `to_us` microseconds later than the left one; negative values:
    /// earlier. If `from_us` exceeds `to_us`, nothing is joined.
    pub fn between_micros(from_us: i64, to_us: i64) -> Self {
        Self { from_us, to_us }
    }

    /// The bounds in microseconds, as in [`between_micros`](Self::between_micros).
    pub fn bounds_us(self) -> (i64, i64) {
        (self.from_us, self.to_us)
    }

    fn add(time: EventTime, us: i64) -> EventTime {
        EventTime(time.0.saturating_add(us))
    }

    /// The times of right events that match a left event.
    fn right_of(self, left: EventTime) -> (EventTime, EventTime) {
        (Self::add(left, self.from_us), Self::add(left, self.to_us))
    }

    /// The times of left events that match a right event.
    fn left_of(self, right: EventTime) -> (EventTime, EventTime) {
        let minus = |us: i64| EventTime(right.0.saturating_sub(us));
        (minus(self.to_us), minus(self.from_us))
    }
}

/// As text: `from 10m before to 5m after`.
impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (self.from_us, self.to_us);
        let bound = |us: i64, default: &'static str| {
            let span = crate::time::span(Duration::from_micros(us.unsigned_abs()));
            match us {
                ..0 => format!("{span} before"),
                0 => format!("{span} {default}"),
                _ => format!("{span} after"),
            }
        };
        write!(f, "from {} to {}", bound(from, "before"), bound(to, "after"))
    }
}

/// An event of one of the two streams.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum JoinInput<L, R> {
    Left(L),
    Right(R),
}

/// The key of a waiting event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct WaitingEvent {
    is_right: bool,
    time: EventTime,
    until: EventTime,
    at: Position,
    /// Tells apart events that were made from one record and have the same time.
    index: u32,
}

impl SubKey for WaitingEvent {
    fn lane(&self) -> usize {
        self.is_right.into()
    }

    fn until(&self) -> Option<EventTime> {
        Some(self.until)
    }
}

/// A left event, and whether it has been joined; or a right event.
type Held<L, R> = JoinInput<(Timed<L>, bool), Timed<R>>;

/// The operator.
pub(crate) struct IntervalJoin<K, L, R, O> {
    pub(crate) interval: Interval,
    /// Whether unmatched left events are emitted, with `None`.
    pub(crate) is_left: bool,
    pub(crate) join: Join<K, L, R, O>,
}

/// Turns a pair into an event.
pub(crate) type Join<K, L, R, O> = Rc<dyn Fn(&K, &L, Option<&R>) -> O>;

type State<K, L, R> = GroupedStore<K, WaitingEvent, Held<L, R>>;

impl<K: Record, L: Event, R: Event, O: Event> IntervalJoin<K, L, R, O> {
    /// A pair has the later of its two times, and is late if one of its events is.
    fn pair(&self, key: &K, left: &Timed<L>, right: &Timed<R>) -> Timed<O> {
        Timed {
            value: (self.join)(key, &left.value, Some(&right.value)),
            time: left.time.max(right.time),
            horizon: left.horizon.max(right.horizon),
            at: left.at,
        }
    }

    fn left(&self, key: K, left: Timed<L>, state: &mut KeyedState<State<K, L, R>>, out: &mut Vec<Timed<O>>) {
        let (from, to) = self.interval.right_of(left.time);
        let before = out.len();
        if let Some(group) = state.entries().group(&key) {
            for (_, held) in group.range(1, |place| place.time < from, |place| place.time <= to) {
                if let JoinInput::Right(right) = held {
                    out.push(self.pair(&key, &left, right));
                }
            }
        }
        let until = match self.is_left {
            // The event may be unmatched, and must be kept to find out.
            true => to.max(left.time),
            false => to,
        };
        let place = WaitingEvent {
            is_right: false,
            time: left.time,
            until: after(until),
            at: left.at,
            index: 0,
        };
        let is_joined = out.len() > before;
        wait(key, place, JoinInput::Left((left, is_joined)), state);
    }

    fn right(
        &self,
        key: K,
        right: Timed<R>,
        state: &mut KeyedState<State<K, L, R>>,
        out: &mut Vec<Timed<O>>,
    ) {
        let (from, to) = self.interval.left_of(right.time);
        let mut joined = Vec::new();
        if let Some(group) = state.entries().group(&key) {
            for (place, held) in group.range(0, |place| place.time < from, |place| place.time <= to) {
                if let JoinInput::Left((left, is_joined)) = held {
                    out.push(self.pair(&key, left, &right));
                    if self.is_left && !is_joined {
                        joined.push(*place);
                    }
                }
            }
        }
        for place in joined {
            if let Some(JoinInput::Left((_, is_joined))) = state.write(&(key.clone(), place)) {
                *is_joined = true;
            }
        }
        let place = WaitingEvent {
            is_right: true,
            time: right.time,
            until: after(to),
            at: right.at,
            index: 0,
        };
        wait(key, place, JoinInput::Right(right), state);
    }
}

/// The instant after a time.
fn after(time: EventTime) -> EventTime {
    EventTime(time.0.saturating_add(1))
}

fn wait<K: Record, L: Event, R: Event>(
    key: K,
    mut place: WaitingEvent,
    held: Held<L, R>,
    state: &mut KeyedState<State<K, L, R>>,
) {
    while state.get(&(key.clone(), place)).is_some() {
        place.index += 1;
    }
    state.update((key, place), || held, |_| {});
}

impl<K: Record, L: Event, R: Event, O: Event> KeyedOperator for IntervalJoin<K, L, R, O> {
    type Input = JoinInput<(K, Timed<L>), (K, Timed<R>)>;
    type State = State<K, L, R>;
    type Output = Emitted<O>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        state: &mut KeyedState<Self::State>,
        out: &mut Emitted<O>,
    ) {
        for event in input.into_iter().flatten() {
            match event {
                JoinInput::Left((key, left)) => self.left(key, left, state, &mut out.0),
                JoinInput::Right((key, right)) => self.right(key, right, state, &mut out.0),
            }
        }
        state.expire(at.closed, |key, place, held| {
            if let (true, JoinInput::Left((left, false))) = (self.is_left, held) {
                out.0.push(Timed {
                    value: (self.join)(key, &left.value, None),
                    // The time at which it was certain: with the event's own time, it would be late
                    // downstream.
                    time: EventTime(place.until.0.saturating_sub(1)),
                    horizon: left.horizon.max(at.closed_before),
                    at: left.at,
                });
            }
        });
    }
}
