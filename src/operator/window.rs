//! Aggregates over windows of event time.
//!
//! ```text
//!   events ──▶ combine ──▶ partial aggregates ══ exchange by key ══▶ merge ──▶ net change of each (key, window)
//!                │ late for a window: dead letters                     ▲
//!                └──▶                                                  └── watermark of each epoch, from the timeline
//! ```
//!
//! Events of several sources are first held against what the step has closed: [`horizon`](crate::operator::horizon).
//! `combine` folds what one activation brings, so that an exchange carries one state a key and not its events. `merge`
//! walks the epochs behind its frontier: folds epoch n in first and then lets W(n) close and expire windows, so that
//! windows close in the same epoch in every replay. How long after its end a window takes corrections: [`late`](crate::operator::late).

use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator, OutputBuilder};

use crate::checkpoint::keeper::Keeper;
use crate::codec::Cause;
use crate::metrics::Counter;
use crate::operator::again::{Again, Wanted};
use crate::operator::aggregate::Aggregate;
use crate::operator::horizon::raise_horizons;
use crate::operator::late::Policies;
use crate::operator::letters::turned_down;
use crate::operator::walk::{Pending, Walk};
use crate::position::SourceId;
use crate::record::{Change, Event, Record, Timed, route, worker_bits};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime, Window, Windowed};
use crate::timeline::Desk;
use crate::trail;
use crate::view::Windows;

mod merge;

use merge::Merge;

/// Which windows an event belongs to.
pub trait Assign: 'static {
    /// Adds every window that contains `at` to `out`.
    fn windows(&self, at: EventTime, out: &mut Vec<Window>);

    /// Where the windows lie.
    fn layout(&self) -> Windows;

    /// Whether each instant belongs to exactly one window.
    fn disjoint(&self) -> bool {
        matches!(self.layout(), Windows::Aligned { size, every, .. } if size == every)
    }
}

/// The aggregate of some of a key's events in a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Partial<K, S> {
    route: u64,
    key: K,
    window: Window,
    state: S,
}

/// What the operator is made of.
pub struct Spec<K, T, F> {
    /// Name of the step.
    pub name: String,
    /// Takes an event's key.
    pub key: Rc<dyn Fn(&T) -> K>,
    /// Assigns windows.
    pub assign: Box<dyn Assign>,
    /// The aggregate.
    pub fold: Rc<F>,
    /// How long a window's rows stay after it closed.
    pub keep: Duration,
    /// The sources whose watermark closes the windows.
    pub sources: Rc<[SourceId]>,
    /// The worker's desk.
    pub desk: Rc<Desk>,
    /// What becomes of events that came too late.
    pub policies: Policies,
    /// Counts them.
    pub late: Counter,
    /// The way to its checkpoints.
    pub keeper: Keeper,
    /// Whether something is made of its rows besides views.
    pub wanted: Wanted,
}

/// Changes of the windowed table, and the events that came too late.
pub type Streams<'s, K, V> = (
    StreamVec<'s, Epoch, Change<Windowed<K>, V>>,
    StreamVec<'s, Epoch, DeadLetter>,
);

/// Adds the operator to a dataflow.
pub fn window<'s, K: Record, T: Event, F: Aggregate<T>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    spec: Spec<K, T, F>,
) -> Streams<'s, K, F::Out> {
    let Spec {
        name,
        key,
        assign,
        fold,
        keep,
        sources,
        desk,
        policies,
        late: count,
        keeper,
        wanted,
    } = spec;
    desk.timeline.borrow_mut().track(&sources);
    let events = raise_horizons(events, &name, sources.clone(), desk.clone());
    let held_back = policies.corrects();
    let (partials, late) = combine(events, &name, key, assign, fold.clone(), policies, count);
    let state = Merge::new(fold, keep, held_back, &keeper);
    let changes = merge(partials, &name, state, sources, desk, &keeper, wanted);
    (changes, late)
}

type Partials<'s, K, S> = (
    StreamVec<'s, Epoch, Partial<K, S>>,
    StreamVec<'s, Epoch, DeadLetter>,
);

fn combine<'s, K: Record, T: Event, F: Aggregate<T>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    name: &str,
    key: Rc<dyn Fn(&T) -> K>,
    assign: Box<dyn Assign>,
    fold: Rc<F>,
    policies: Policies,
    count: Counter,
) -> Partials<'s, K, F::State> {
    let mut builder = OperatorBuilder::new(format!("{name}: combine"), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (partials, partial_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let mut partials =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<Partial<K, F::State>>>>::from(partials);
    let mut late = OutputBuilder::<_, CapacityContainerBuilder<Vec<DeadLetter>>>::from(late);
    let name = name.to_owned();
    let label: Rc<str> = format!("window `{name}`").into();
    builder.build(move |_capabilities| {
        let mut table = Combine {
            key,
            disjoint: assign.disjoint(),
            assign,
            fold,
            policies,
            panes: Vec::new(),
            last: 0,
            windows: Vec::new(),
        };
        move |_frontiers| {
            let (mut partials, mut late) = (partials.activate(), late.activate());
            let _work = trail::begin(&label);
            input.for_each_stamp(|capability, batches| {
                let (mut too_late, mut late_len) = (Vec::new(), 0);
                for batch in batches {
                    for event in batch.drain(..) {
                        trail::on(event.at);
                        if table.add(&event) {
                            continue;
                        }
                        late_len += 1;
                        if table.policies.writes_letters(event.at.partition.source) {
                            too_late.push(turned_down(&name, Cause::Late, None, &event));
                        }
                    }
                }
                // A session passes on full containers itself, so the table goes out in steady pieces.
                let mut session = partials.session(&capability);
                for (window, parts) in &mut table.panes {
                    let window = *window;
                    session.give_iterator(parts.drain().map(|part| Partial {
                        route: part.route,
                        key: part.key,
                        window,
                        state: part.state,
                    }));
                }
                drop(session);
                table.panes.retain(|(_, parts)| parts.capacity() <= PANE_KEPT_MAX);
                table.panes.truncate(PANES_KEPT_MAX);
                count.inc_by(late_len);
                if !too_late.is_empty() {
                    late.session(&capability).give_iterator(too_late.drain(..));
                }
            });
        }
    });
    (partial_stream, late_stream)
}

struct Combine<K, T, F: Aggregate<T>> {
    key: Rc<dyn Fn(&T) -> K>,
    assign: Box<dyn Assign>,
    disjoint: bool,
    fold: Rc<F>,
    policies: Policies,
    /// Emptied after each activation, with their room kept for the next.
    panes: Vec<(Window, Parts<K, F::State>)>,
    last: usize,
    windows: Vec<Window>,
}

/// The partial aggregates of one window: close together, with a table of their places beside them. The table of many
/// thousand keys stays in a core's cache so, where one of whole parts would not.
struct Parts<K, S> {
    places: HashTable<u32>,
    parts: Vec<Part<K, S>>,
}

struct Part<K, S> {
    route: u64,
    key: K,
    state: S,
}

impl<K: Eq, S> Parts<K, S> {
    fn new() -> Self {
        Self {
            places: HashTable::new(),
            parts: Vec::new(),
        }
    }

    #[inline]
    fn state(&mut self, route: u64, key: K, empty: impl FnOnce() -> S) -> &mut S {
        let Self { places, parts } = self;
        let same = |at: &u32| parts[*at as usize].key == key;
        let at = match places.entry(route, same, |at| parts[*at as usize].route) {
            Entry::Occupied(place) => *place.get() as usize,
            Entry::Vacant(place) => {
                // An activation brings no more events than the bound of what is read ahead, far below four billion.
                place.insert(parts.len() as u32);
                let state = empty();
                parts.push(Part { route, key, state });
                parts.len() - 1
            }
        };
        &mut parts[at].state
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn capacity(&self) -> usize {
        self.parts.capacity()
    }

    fn drain(&mut self) -> impl Iterator<Item = Part<K, S>> {
        self.places.clear();
        self.parts.drain(..)
    }
}

const PANES_KEPT_MAX: usize = 16;
const PANE_KEPT_MAX: usize = 1 << 18;

impl<K: Record, T: Event, F: Aggregate<T>> Combine<K, T, F> {
    /// Folds an event into its windows; `false` if it is late for all of them.
    fn add(&mut self, event: &Timed<T>) -> bool {
        // What ended up to here takes no more of this event's source.
        let over = self.policies.over(event.at.partition.source, event.horizon);
        let last = self
            .panes
            .get(self.last)
            .map(|(window, _)| *window)
            .filter(|_| self.disjoint);
        if let Some(window) = last.filter(|window| window.start <= event.time && event.time < window.end) {
            let on_time = window.end > over;
            if on_time {
                self.fold_into(self.last, event);
            }
            return on_time;
        }
        let mut windows = std::mem::take(&mut self.windows);
        windows.clear();
        self.assign.windows(event.time, &mut windows);
        windows.retain(|window| window.end > over);
        for window in &windows {
            let at = match self.panes.iter().position(|(w, _)| w == window) {
                Some(at) => at,
                None => {
                    // Reuse the room of a pane that is empty before making another.
                    match self.panes.iter().position(|(_, pane)| pane.is_empty()) {
                        Some(at) => self.panes[at].0 = *window,
                        None => self.panes.push((*window, Parts::new())),
                    }
                    self.panes
                        .iter()
                        .position(|(w, _)| w == window)
                        .expect("just placed")
                }
            };
            self.last = at;
            self.fold_into(at, event);
        }
        let on_time = !windows.is_empty();
        self.windows = windows;
        on_time
    }

    #[inline]
    fn fold_into(&mut self, pane: usize, event: &Timed<T>) {
        let key = (self.key)(&event.value);
        let route = route(&key);
        let fold = &self.fold;
        let state = self.panes[pane].1.state(route, key, || fold.empty());
        fold.add(state, &event.value);
    }
}

fn merge<'s, K: Record, T: Event, F: Aggregate<T>>(
    partials: StreamVec<'s, Epoch, Partial<K, F::State>>,
    name: &str,
    state: Merge<K, F::State, F>,
    sources: Rc<[SourceId]>,
    desk: Rc<Desk>,
    keeper: &Keeper,
    wanted: Wanted,
) -> StreamVec<'s, Epoch, Change<Windowed<K>, F::Out>> {
    let scope = partials.scope();
    let by_key = Exchange::new(|partial: &Partial<K, F::State>| worker_bits(partial.route));
    let label: Rc<str> = format!("window `{name}`").into();
    partials.unary_frontier::<CapacityContainerBuilder<Vec<Change<Windowed<K>, F::Out>>>, _, _, _>(
        by_key,
        name,
        |capability, info| {
            let activator = scope.activator_for(info.address);
            let mut again = Again::new(keeper.restored(), capability.clone(), activator, wanted);
            let mut walk = Walk::new(desk, capability);
            let kept = keeper.keep_loaded(state, merge::load, |state, windows| state.windows = windows);
            let mut pending = Pending::new();
            let mut changes = Vec::new();
            move |(input, frontier), output| {
                pending.gather(input);
                let _work = trail::begin(&label);
                again.emit(
                    || kept.at(Epoch::ZERO).all::<T>(),
                    |capability, rows| output.session(capability).give_container(rows),
                );
                walk.advance(frontier, |facts, capability| {
                    let mut state = kept.at(facts.epoch());
                    for partial in pending.take(facts.epoch()).into_iter().flatten() {
                        state.add::<T>(facts.epoch(), partial, &mut changes);
                    }
                    state.expire::<T>(facts.watermark(&sources), &mut changes);
                    if !changes.is_empty() {
                        output.session(capability).give_container(&mut changes);
                        changes.clear();
                    }
                });
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operator::aggregate::Of;

    const WINDOW: Window = Window {
        start: EventTime(0),
        end: EventTime(10),
    };

    /// Assigns one window to everything.
    struct One;
    impl Assign for One {
        fn windows(&self, _: EventTime, out: &mut Vec<Window>) {
            out.push(WINDOW);
        }
        fn layout(&self) -> Windows {
            Windows::PerKey
        }
    }

    fn partial(key: u32, state: u64) -> Partial<u32, u64> {
        Partial {
            route: route(&key),
            key,
            window: WINDOW,
            state,
        }
    }

    fn change(old: Option<u64>, new: Option<u64>) -> Change<Windowed<u32>, u64> {
        Change {
            key: Windowed {
                key: 7,
                window: WINDOW,
            },
            old,
            new,
        }
    }

    #[test]
    fn corrected_windows_close_and_expire_so_much_later() {
        let mut merge = Merge::new(
            Rc::new(Of::<u8>::default().count()),
            Duration::from_micros(5),
            Duration::from_micros(20),
            &Keeper::off(),
        );
        merge.add::<u8>(Epoch(1), partial(7, 1), &mut Vec::new());
        let mut at = |watermark| {
            let mut changes = Vec::new();
            merge.expire::<u8>(watermark, &mut changes);
            let (all, packed) = merge.counts();
            let open = packed < all;
            (open, changes)
        };
        assert_eq!(at(EventTime::MIN), (true, vec![]));
        assert_eq!(at(EventTime(29)), (true, vec![]));
        assert_eq!(at(EventTime(30)), (false, vec![]), "packed");
        assert_eq!(at(EventTime(34)), (false, vec![]));
        assert_eq!(at(EventTime(35)), (false, vec![change(Some(1), None)]));
    }

    #[test]
    fn late_events_are_counted_and_leave_letters_where_their_source_says_so() {
        use timely::dataflow::InputHandle;
        use timely::dataflow::operators::vec::Input;
        use timely::dataflow::operators::{Inspect, Probe};

        let sources = [(1, crate::late::Late::DeadLetter), (2, crate::late::Late::Drop)];
        let policies = Policies::new(sources.map(|(id, late)| (SourceId(id), late)).to_vec());
        let count = Counter::default();
        let counted = count.clone();
        timely::execute_directly(move |worker| {
            let letters: Rc<std::cell::RefCell<Vec<u32>>> = Rc::default();
            let mut input = InputHandle::new();
            let probe = worker.dataflow(|scope| {
                let fold = Rc::new(Of::<u8>::default().count());
                let events = scope.input_from(&mut input);
                let (partials, late) = combine(
                    events,
                    "step",
                    Rc::new(|_: &u8| 0u8),
                    Box::new(One),
                    fold,
                    policies,
                    count,
                );
                let seen = letters.clone();
                late.inspect(move |letter| seen.borrow_mut().push(letter.at.partition.source.0));
                partials.probe().0
            });
            for (source, horizon) in [(1, 9), (1, 10), (2, 9), (2, 10), (2, 11)] {
                let source = SourceId(source);
                let partition = crate::position::PartitionId { source, partition: 0 };
                input.send(Timed {
                    value: 0u8,
                    time: EventTime(5),
                    horizon: EventTime(horizon),
                    at: crate::position::Position { partition, offset: 0 },
                });
            }
            input.advance_to(Epoch(1));
            worker.step_while(|| probe.less_than(&Epoch(1)));
            assert_eq!(*letters.borrow(), [1]);
        });
        assert_eq!(counted.get(), 3);
    }

    #[test]
    fn a_window_changes_once_an_epoch_is_packed_when_closed_and_taken_back_when_expired() {
        let fold = Rc::new(Of::<u8>::default().count());
        let mut merge = Merge::new(fold, Duration::from_micros(5), Duration::ZERO, &Keeper::off());
        let mut step = |epoch, partials: &[(u32, u64)], watermark| {
            let mut changes = Vec::new();
            for (key, state) in partials {
                merge.add::<u8>(Epoch(epoch), partial(*key, *state), &mut changes);
            }
            merge.expire::<u8>(EventTime(watermark), &mut changes);
            (changes, merge.counts().1)
        };
        assert_eq!(step(1, &[(7, 1), (7, 2)], 9), (vec![change(None, Some(3))], 0));
        assert_eq!(
            step(2, &[(7, 1)], 10),
            (vec![change(Some(3), Some(4))], 1),
            "packed when its end is reached"
        );
        assert_eq!(step(3, &[], 14), (vec![], 1));
        assert_eq!(
            step(4, &[(7, 1)], 14),
            (vec![change(Some(4), Some(5))], 0),
            "opened again if need be"
        );
        assert_eq!(step(5, &[], 15), (vec![change(Some(5), None)], 0), "expired");
    }
}
