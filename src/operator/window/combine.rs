//! Folds the events of one activation into a partial aggregate per key and window, and diverts late events.

use std::rc::Rc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::PartialAggregate;
use super::assigner::{Slices, WindowAssigner};
use crate::codec::Cause;
use crate::metrics::LateMetrics;
use crate::operator::aggregate::Aggregate;
use crate::operator::exchange::{RoutedBatch, RoutedBatchBuilder};
use crate::operator::late::LatePolicies;
use crate::panic_context;
use crate::record::{Event, Record, Timed, route};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime, Window};

/// Partial aggregates, packed for the workers that own their keys, and late events.
type Streams<'s> = (
    StreamVec<'s, Epoch, RoutedBatch>,
    StreamVec<'s, Epoch, DeadLetter>,
);

/// Adds the operator; returns partial aggregates and late events.
pub(super) fn combine<'s, K: Record, T: Event, F: Aggregate<T>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    name: &str,
    key: Rc<dyn Fn(&T) -> K>,
    assign: Box<dyn WindowAssigner>,
    fold: Rc<F>,
    policies: LatePolicies,
    counts: LateMetrics,
) -> Streams<'s> {
    let mut builder = OperatorBuilder::new(format!("{name}: combine"), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (partials, partial_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let mut partials = OutputBuilder::<_, CapacityContainerBuilder<Vec<RoutedBatch>>>::from(partials);
    let mut late = OutputBuilder::<_, CapacityContainerBuilder<Vec<DeadLetter>>>::from(late);
    let name = name.to_owned();
    let label: Rc<str> = format!("window `{name}`").into();
    let mut packer = RoutedBatchBuilder::new(partial_stream.scope().peers());
    builder.build(move |_capabilities| {
        let mut table = PartialCombiner::new(key, assign, fold, policies);
        move |_frontiers| {
            let (mut partials, mut late) = (partials.activate(), late.activate());
            let _work = panic_context::enter(&label);
            input.for_each_stamp(|capability, batches| {
                let (mut too_late, mut late_events, mut late_windows) = (Vec::new(), 0, 0);
                for batch in batches {
                    for event in batch.drain(..) {
                        panic_context::at_record(event.at);
                        let missed = table.add(&event);
                        late_windows += missed.windows;
                        if !missed.all {
                            continue;
                        }
                        late_events += 1;
                        if table.policies.writes_dead_letters(event.at.partition.source) {
                            too_late.push(DeadLetter::turned_down(&name, Cause::Late, None, &event));
                        }
                    }
                }
                let mut session = partials.session(&capability);
                for partial in table.parts.drain() {
                    if let Some(routed_batch) = packer.push(partial.route, partial) {
                        session.give(routed_batch);
                    }
                }
                session.give_iterator(packer.rest());
                drop(session);
                table.parts.give_back_room();
                counts.events.inc_by(late_events);
                counts.windows.inc_by(late_windows);
                if !too_late.is_empty() {
                    late.session(&capability).give_iterator(too_late.drain(..));
                }
            });
        }
    });
    (partial_stream, late_stream)
}

struct PartialCombiner<K, T, F: Aggregate<T>> {
    key: Rc<dyn Fn(&T) -> K>,
    assign: Box<dyn WindowAssigner>,
    disjoint: bool,
    slices: Option<Slices>,
    fold: Rc<F>,
    policies: LatePolicies,
    parts: PartialTable<K, F::State>,
    /// The window or slice of the previous event, which is that of most events. For a slice this is its first
    /// window, so no window is missed unless this one is.
    last: Option<HashedWindow>,
    /// Empty between events.
    windows: Vec<Window>,
}

/// The windows that an event is late for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LateWindows {
    windows: u64,
    /// Whether these are all of its windows.
    all: bool,
}

impl<K: Record, T: Event, F: Aggregate<T>> PartialCombiner<K, T, F> {
    fn new(
        key: Rc<dyn Fn(&T) -> K>,
        assign: Box<dyn WindowAssigner>,
        fold: Rc<F>,
        policies: LatePolicies,
    ) -> Self {
        Self {
            key,
            disjoint: assign.disjoint(),
            slices: Slices::of(&*assign),
            assign,
            fold,
            policies,
            parts: PartialTable::new(),
            last: None,
            windows: Vec::new(),
        }
    }

    /// Folds an event into those of its windows that it is on time for.
    fn add(&mut self, event: &Timed<T>) -> LateWindows {
        // Windows that ended by then take no more of this source's events.
        let over = self.policies.over(event.at.partition.source, event.horizon);
        if self.disjoint
            && let Some(last) = self.last
            && last.window.start <= event.time
            && event.time < last.window.end
        {
            let is_late = !self.fold_into(last, over, event);
            return LateWindows {
                windows: is_late.into(),
                all: is_late,
            };
        }
        if let Some(slices) = self.slices {
            return self.add_to_slice(slices, over, event);
        }
        let mut windows = std::mem::take(&mut self.windows);
        self.assign.windows(event.time, &mut windows);
        let (all, mut missed) = (windows.len() as u64, 0);
        for window in windows.drain(..).map(HashedWindow::new) {
            missed += u64::from(!self.fold_into(window, over, event));
            self.last = Some(window);
        }
        self.windows = windows;
        LateWindows {
            windows: missed,
            all: missed > 0 && missed == all,
        }
    }

    /// Folds an event into its slice, for the windows that it is on time for.
    fn add_to_slice(&mut self, slices: Slices, over: EventTime, event: &Timed<T>) -> LateWindows {
        let is_in = |start: EventTime| start <= event.time && event.time.0 - start.0 < slices.length;
        if let Some(last) = self
            .last
            .filter(|last| is_in(last.window.start) && over < last.window.end)
        {
            self.fold_into(last, over, event);
            return LateWindows::default();
        }
        let (open, windows) = slices.open(slices.start(event.time), over);
        let Some(window) = open.map(HashedWindow::new) else {
            return LateWindows {
                windows,
                all: windows > 0,
            };
        };
        self.fold_into(window, over, event);
        if windows == 0 {
            self.last = Some(window);
        }
        LateWindows { windows, all: false }
    }

    /// Returns false if the event is late for the window.
    #[inline]
    fn fold_into(&mut self, window: HashedWindow, over: EventTime, event: &Timed<T>) -> bool {
        if window.window.end <= over {
            return false;
        }
        let key = (self.key)(&event.value);
        let state = self.parts.state(window, key, || self.fold.empty());
        self.fold.add(state, &event.value);
        true
    }
}

/// A window with its hash.
#[derive(Clone, Copy)]
struct HashedWindow {
    window: Window,
    hash: u64,
}

impl HashedWindow {
    fn new(window: Window) -> Self {
        let hash = route(&window);
        Self { window, hash }
    }
}

/// Partial aggregates, stored densely, next to a table of their indices. The table of many thousand keys fits
/// into a core's cache, which a table of whole aggregates would not.
struct PartialTable<K, S> {
    /// By the hashes of key and window.
    places: HashTable<u32>,
    parts: Vec<PartialAggregate<K, S>>,
    /// The number of aggregates in the last activation.
    drained: usize,
}

/// Capacity that is always kept.
const ROOM_MIN: usize = 1 << 10;

impl<K: Eq, S> PartialTable<K, S> {
    fn new() -> Self {
        Self {
            places: HashTable::new(),
            parts: Vec::new(),
            drained: 0,
        }
    }
}

impl<K: Record, S> PartialTable<K, S> {
    #[inline]
    fn state(&mut self, window: HashedWindow, key: K, empty: impl FnOnce() -> S) -> &mut S {
        let Self { places, parts, .. } = self;
        let HashedWindow { window, hash } = window;
        let route = route(&key);
        let same = |at: &u32| {
            let part = &parts[*at as usize];
            part.key == key && part.window == window
        };
        let at = match places.entry(route ^ hash, same, |at| parts[*at as usize].hash()) {
            Entry::Occupied(place) => *place.get() as usize,
            Entry::Vacant(place) => {
                // An activation has at most as many events as may be read ahead, far below four billion.
                place.insert(parts.len() as u32);
                let state = empty();
                parts.push(PartialAggregate {
                    route,
                    key,
                    window,
                    state,
                });
                parts.len() - 1
            }
        };
        &mut parts[at].state
    }

    fn drain(&mut self) -> impl Iterator<Item = PartialAggregate<K, S>> {
        self.drained = self.parts.len();
        self.places.clear();
        self.parts.drain(..)
    }

    /// Keeps the capacity of one activation for the next, unless it was far more than needed.
    fn give_back_room(&mut self) {
        let room = (4 * self.drained).max(ROOM_MIN);
        self.parts.shrink_to(room);
        self.places.shrink_to(room, |_| unreachable!("there are none"));
    }
}

impl<K, S> PartialAggregate<K, S> {
    fn hash(&self) -> u64 {
        self.route ^ HashedWindow::new(self.window).hash
    }
}

#[cfg(test)]
mod tests {
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::vec::Input;
    use timely::dataflow::operators::{Inspect, Probe};

    use super::*;
    use crate::codec::tests::held;
    use crate::late::Late;
    use crate::operator::aggregate::AggregateBuilder;
    use crate::operator::aggregate::count::Count;
    use crate::position::{PartitionId, Position, SourceId};
    use crate::time::WindowLayout;

    /// The windows that end at 10, 20 and 30, as far as an event lies before their end.
    struct UpTo;
    impl WindowAssigner for UpTo {
        fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
            let ends = [10, 20, 30].into_iter().filter(|end| at.0 < *end);
            out.extend(ends.map(|end| Window {
                start: EventTime(0),
                end: EventTime(end),
            }));
        }
        fn layout(&self) -> WindowLayout {
            WindowLayout::PerKey
        }
    }

    /// Windows of one microsecond.
    struct Each;
    impl WindowAssigner for Each {
        fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
            let end = EventTime(at.0 + 1);
            out.push(Window { start: at, end });
        }
        fn layout(&self) -> WindowLayout {
            let us = std::time::Duration::from_micros(1);
            WindowLayout::Aligned {
                size: us,
                every: us,
                offset: std::time::Duration::ZERO,
            }
        }
    }

    fn event(source: u32, time: i64, horizon: i64) -> Timed<u32> {
        let partition = PartitionId {
            source: SourceId(source),
            partition: 0,
        };
        Timed {
            value: 0,
            time: EventTime(time),
            horizon: EventTime(horizon),
            at: Position { partition, offset: 0 },
        }
    }

    fn table(assign: impl WindowAssigner) -> PartialCombiner<u32, u32, Count<u32>> {
        let count = Rc::new(AggregateBuilder::<u32>::default().count());
        PartialCombiner::new(
            Rc::new(|key| *key),
            Box::new(assign),
            count,
            LatePolicies::new(Vec::new()),
        )
    }

    #[test]
    fn late_windows_are_counted_and_events_late_for_all_leave_letters_where_their_source_says_so() {
        let sources = [(1, Late::DeadLetter), (2, Late::Drop)];
        let policies = LatePolicies::new(sources.map(|(id, late)| (SourceId(id), late)).to_vec());
        let counts = LateMetrics::default();
        let counted = counts.clone();
        timely::execute_directly(move |worker| {
            let letters: Rc<std::cell::RefCell<Vec<u32>>> = Rc::default();
            let mut input = InputHandle::new();
            let probe = worker.dataflow(|scope| {
                let fold = Rc::new(AggregateBuilder::<u32>::default().count());
                let events = scope.input_from(&mut input);
                let key = Rc::new(|key: &u32| *key);
                let (partials, late) = combine(events, "step", key, Box::new(UpTo), fold, policies, counts);
                let seen = letters.clone();
                late.inspect(move |letter| seen.borrow_mut().push(letter.at.partition.source.0));
                partials.probe().0
            });
            let on_time = [event(1, 5, 9), event(2, 5, 9), event(1, 35, 30)];
            let late_for_some = [event(1, 5, 10), event(2, 5, 20), event(1, 15, 20)];
            let late_for_all = [event(1, 5, 30), event(2, 5, 30), event(1, 25, 31)];
            for event in [on_time, late_for_some, late_for_all].into_iter().flatten() {
                input.send(event);
            }
            input.advance_to(Epoch(1));
            worker.step_while(|| probe.less_than(&Epoch(1)));
            assert_eq!(*letters.borrow(), [1, 1]);
        });
        assert_eq!(counted.events.get(), 3);
        assert_eq!(counted.windows.get(), (1 + 2 + 1) + (3 + 3 + 1));
    }

    #[test]
    fn an_event_without_windows_is_late_for_none() {
        let missed = table(UpTo).add(&event(1, 35, 90));
        assert_eq!(
            missed,
            LateWindows {
                windows: 0,
                all: false
            }
        );
    }

    thread_local! {
        static COMPARED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// A key that counts its comparisons.
    #[derive(Clone, Debug, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
    struct Compared(u32);
    impl PartialEq for Compared {
        fn eq(&self, other: &Self) -> bool {
            COMPARED.set(COMPARED.get() + 1);
            self.0 == other.0
        }
    }
    impl std::hash::Hash for Compared {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    #[test]
    fn windows_of_an_activation_are_found_without_a_search() {
        const N: i64 = 20_000;
        let count = Rc::new(AggregateBuilder::<u32>::default().count());
        let key = Rc::new(|key: &u32| Compared(*key));
        let mut table = PartialCombiner::new(key, Box::new(Each), count, LatePolicies::new(Vec::new()));
        for round in 1..=2 {
            (0..N).for_each(|time| _ = table.add(&event(1, time, 0)));
            let compared = COMPARED.take();
            assert!(
                compared < 2 * N as usize,
                "{compared} comparisons in round {round}"
            );
        }
        let parts: Vec<_> = table.parts.drain().collect();
        assert_eq!(parts.len(), N as usize);
        assert!(parts.iter().all(|part| part.state == 2));
    }

    #[test]
    fn memory_follows_what_activations_bring() {
        let before = held();
        let mut table = table(Each);
        let mut kept_after = |events: i64| {
            (0..events).for_each(|time| _ = table.add(&event(1, time, 0)));
            drop(table.parts.drain());
            table.parts.give_back_room();
            held() - before
        };
        let kept = kept_after(50_000);
        assert!(kept < 50_000 * 160, "{kept} bytes after 50,000 events");
        assert_eq!(
            kept_after(50_000),
            kept,
            "nothing is allocated where there is room"
        );
        let kept = kept_after(1);
        assert!(kept < ROOM_MIN as isize * 160, "{kept} bytes after one event");
    }
}
