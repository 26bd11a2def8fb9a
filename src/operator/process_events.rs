//! Events in event-time order, with keyed state and timers: for logic that no other operator covers.
//!
//! ```text
//!   events ──▶ admit ═ exchange by key ═▶ wait, by time ── watermark ─▶ event(…), timer(…) in order of time ──▶ events
//! ```
//!
//! An event waits until the watermark has passed its time, so the events of a key arrive in event-time order,
//! whatever order they were read in. Flink calls this a `KeyedProcessFunction`.

use serde::{Deserialize, Serialize};

use crate::checkpoint::keyed::KeyedState;
use crate::checkpoint::keyed::grouped::{GroupedStore, SubKey};
use crate::operator::process::{Batch, Emitted, EpochInfo, KeyedOperator};
use crate::panic_context;
use crate::position::Position;
use crate::record::{Event, Record, Timed};
use crate::time::EventTime;

/// Handles each event of a key, and timers.
///
/// A processor is created once per worker and itself holds settings only: what it derives from events belongs
/// in the [state](EventContext::state), where checkpoints capture it. Its results must depend on its
/// arguments alone.
///
/// ```
/// use thalweg::operator::process_events::{EventContext, EventProcessor};
/// use thalweg::prelude::*;
/// use thalweg::testing::Harness;
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Order { id: u32, paid: bool, at_ms: i64 }
///
/// /// Reminds of each order that is not paid within ten minutes.
/// struct Reminders;
///
/// impl EventProcessor for Reminders {
///     type Key = u32;
///     type Event = Order;
///     /// When the reminder is due.
///     type State = EventTime;
///     type Out = u32;
///
///     fn event(&self, order: &Timed<Order>, context: &mut EventContext<'_, Self>) {
///         if order.value.paid {
///             if let Some(due) = context.state.take() {
///                 context.clear_timer(due);
///             }
///         } else {
///             let due = context.set_timer(order.time.plus(Duration::from_secs(600)));
///             context.state = Some(due);
///         }
///     }
///
///     fn timer(&self, _due: EventTime, context: &mut EventContext<'_, Self>) {
///         context.state = None;
///         context.emit(*context.key());
///     }
/// }
///
/// fn reminders(flow: Dataflow) {
///     let orders = Kafka::topic("orders").json::<Order>();
///     flow.source("orders", orders.event_time(|o| EventTime::from_millis(o.at_ms)))
///         .key_by("order", |o| o.id)
///         .process_events("reminders", Reminders)
///         .changes()
///         .group_by("order", |order| *order)
///         .aggregate("reminded", |a| a.count())
///         .view("reminded");
/// }
///
/// let order = |id, paid, minutes: i64| Order { id, paid, at_ms: minutes * 60_000 };
/// let mut test = Harness::of(dataflow("reminders", reminders));
/// test.feed("orders", 0, [order(7, false, 1), order(8, false, 2), order(7, true, 9), order(9, false, 60)]);
/// let hour = test.epoch();
/// let run = test.run()?;
/// #[derive(Debug, PartialEq, Deserialize)]
/// struct Row { order: u32, value: u64 }
/// assert_eq!(run.rows::<Row>("reminded", hour)?, [Row { order: 8, value: 1 }]);
/// # Ok::<(), thalweg::Error>(())
/// ```
pub trait EventProcessor: Sized + 'static {
    /// The key of the events.
    type Key: Record;
    /// The input events.
    type Event: Event;
    /// The state per key.
    type State: Event;
    /// The output events.
    type Out: Event;

    /// Handles an event, after everything that happened before it.
    fn event(&self, event: &Timed<Self::Event>, context: &mut EventContext<'_, Self>);

    /// Handles a timer set for `time`, after all events up to this time.
    fn timer(&self, _time: EventTime, _context: &mut EventContext<'_, Self>) {}
}

/// What a processor can do for the current key.
pub struct EventContext<'a, P: EventProcessor> {
    /// The key's state, initially `None`. A state left as `None` takes no memory.
    pub state: Option<P::State>,
    key: &'a P::Key,
    now: EventTime,
    /// The time of the current event or timer.
    time: EventTime,
    horizon: EventTime,
    at: Position,
    /// The earliest time for a new timer.
    timers_from: EventTime,
    entries: &'a mut KeyedState<Entries<P>>,
    out: &'a mut Vec<Timed<P::Out>>,
}

impl<P: EventProcessor> EventContext<'_, P> {
    /// The current key.
    pub fn key(&self) -> &P::Key {
        self.key
    }

    /// The epoch's own time: the only "now" that is the same in every replay.
    pub fn now(&self) -> EventTime {
        self.now
    }

    /// Emits an event at the time of the current event or timer.
    pub fn emit(&mut self, value: P::Out) {
        self.out.push(Timed {
            value,
            time: self.time,
            horizon: self.horizon,
            at: self.at,
        });
    }

    /// Calls [`timer`](EventProcessor::timer) for `time` once event time has passed it, in order with the
    /// key's events. Setting a time twice sets one timer. A time in the past is moved to the earliest time
    /// that keeps the order: the time of the event or, from within a timer, the next microsecond. Returns the
    /// time that was set, as [`clear_timer`](Self::clear_timer) takes it.
    pub fn set_timer(&mut self, time: EventTime) -> EventTime {
        let time = time.max(self.timers_from);
        let place = (self.key.clone(), StateSlot::timer(time));
        let by = self.at;
        self.entries.update(place, || SlotValue::Timer(by), |_| {});
        time
    }

    /// Clears the timer for `time`, if it is set.
    pub fn clear_timer(&mut self, time: EventTime) {
        self.entries.remove(&(self.key.clone(), StateSlot::timer(time)));
    }
}

/// The key of a waiting event or timer, or of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct StateSlot {
    is_state: bool,
    time: EventTime,
    is_timer: bool,
    at: Option<Position>,
    /// Tells apart events that were made from one record and have the same time.
    index: u32,
}

impl StateSlot {
    const STATE: StateSlot = StateSlot {
        is_state: true,
        time: EventTime::MIN,
        is_timer: false,
        at: None,
        index: 0,
    };

    fn timer(time: EventTime) -> Self {
        let (is_state, is_timer, at, index) = (false, true, None, 0);
        Self {
            is_state,
            time,
            is_timer,
            at,
            index,
        }
    }

    fn event(time: EventTime, at: Position) -> Self {
        let (is_state, is_timer, at, index) = (false, false, Some(at), 0);
        Self {
            is_state,
            time,
            is_timer,
            at,
            index,
        }
    }
}

impl SubKey for StateSlot {
    fn lane(&self) -> usize {
        self.is_state.into()
    }

    /// Processes it when the watermark has passed its time.
    fn until(&self) -> Option<EventTime> {
        (!self.is_state).then(|| EventTime(self.time.0.saturating_add(1)))
    }
}

/// The value of a slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum SlotValue<T, S> {
    Event(Timed<T>),
    /// With the position of the event that set it.
    Timer(Position),
    State(S),
}

type Entries<P> = GroupedStore<
    <P as EventProcessor>::Key,
    StateSlot,
    SlotValue<<P as EventProcessor>::Event, <P as EventProcessor>::State>,
>;

/// Runs a processor.
pub(crate) struct ProcessEvents<P>(pub(crate) P);

impl<P: EventProcessor> ProcessEvents<P> {
    /// Processes what is due for a key.
    fn run(
        &self,
        at: &EpochInfo,
        key: P::Key,
        entries: &mut KeyedState<Entries<P>>,
        out: &mut Vec<Timed<P::Out>>,
    ) {
        let place = (key, StateSlot::STATE);
        let mut state = match entries.get(&place) {
            Some(SlotValue::State(state)) => Some(state.clone()),
            _ => None,
        };
        let had_state = state.is_some();
        while let Some((slot, held)) = entries.take_first(&place.0, at.closed) {
            let (event, by, horizon) = match held {
                SlotValue::Event(event) => {
                    let (by, horizon) = (event.at, event.horizon.max(at.closed_before));
                    (Some(event), by, horizon)
                }
                SlotValue::Timer(by) => (None, by, at.closed_before),
                SlotValue::State(_) => continue,
            };
            panic_context::at_record(by);
            let mut context = EventContext {
                state: state.take(),
                key: &place.0,
                now: at.now,
                time: slot.time,
                horizon,
                at: by,
                timers_from: match event {
                    Some(_) => slot.time.max(at.closed_before),
                    None => EventTime(slot.time.0.saturating_add(1)),
                },
                entries,
                out,
            };
            match &event {
                Some(event) => self.0.event(event, &mut context),
                None => self.0.timer(slot.time, &mut context),
            }
            state = context.state;
        }
        match state {
            Some(state) => {
                let held = SlotValue::State(state);
                match entries.write(&place) {
                    Some(before) => *before = held,
                    None => entries.update(place, || held, |_| {}),
                }
            }
            None if had_state => _ = entries.remove(&place),
            None => {}
        }
    }
}

impl<P: EventProcessor> KeyedOperator for ProcessEvents<P> {
    type Input = (P::Key, Timed<P::Event>);
    type State = Entries<P>;
    type Output = Emitted<P::Out>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        entries: &mut KeyedState<Entries<P>>,
        out: &mut Emitted<P::Out>,
    ) {
        for (key, event) in input.into_iter().flatten() {
            let mut place = (key, StateSlot::event(event.time, event.at));
            while entries.get(&place).is_some() {
                place.1.index += 1;
            }
            entries.update(place, || SlotValue::Event(event), |_| {});
        }
        for key in entries.entries().due(at.closed) {
            self.run(at, key, entries, &mut out.0);
        }
        entries.expire(at.closed, |_, _, _| {});
    }
}
