//! Session windows: a key's events with less than a gap between them.
//!
//! ```text
//!   events ─▶ combine ─┬─ partial sessions ═ by key ═▶ merged with open sessions that they overlap ─▶ changes
//!                      └─ events that may be late ══▶ counted if the session they fall into is open ─▶ dead letters
//! ```
//!
//! An event at `t` is a session `[t, t + gap)`, and overlapping sessions merge: "The Dataflow Model" (Akidau
//! et al., 2015). Only where its session is known can an event be found late: it is late if the session ends
//! at or before the event's horizon. Sessions that had closed by the previous epoch take nothing more, so the
//! row of a closed window never changes.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::checkpoint::keyed::KeyedState;
use crate::checkpoint::keyed::grouped::{GroupedStore, SubKey};
use crate::codec::Cause;
use crate::operator::admit::{LateHandling, by_content};
use crate::operator::aggregate::Aggregate;
use crate::operator::exchange::{RoutedBatch, RoutedBatchBuilder};
use crate::operator::late::LatePolicies;
use crate::operator::process::{
    Batch, Changes, ChangesAndDeadLetters, EpochInfo, Item, KeyedOperator, Setup, Streams, process,
};
use crate::panic_context;
use crate::record::{Change, Event, Record, Timed, route};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime, Window, Windowed};

use super::trigger::RowRetention;

/// The operator's input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum SessionInput<K, T, S> {
    Partial(K, Window, S),
    /// An event whose own session would be over by `over`.
    Doubtful {
        key: K,
        event: Timed<T>,
        over: EventTime,
    },
}

/// The key of a session among those of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SessionSpan {
    end: EventTime,
    start: EventTime,
}

impl SubKey for SessionSpan {
    fn until(&self) -> Option<EventTime> {
        Some(self.end)
    }
}

impl SessionSpan {
    fn window(self) -> Window {
        let Self { start, end } = self;
        Window { start, end }
    }
}

/// The session of a single event.
fn alone(time: EventTime, gap: Duration) -> Window {
    Window {
        start: time,
        end: time.plus(gap),
    }
}

fn overlap(a: Window, b: Window) -> bool {
    a.start < b.end && b.start < a.end
}

fn union(a: Window, b: Window) -> Window {
    Window {
        start: a.start.min(b.start),
        end: a.end.max(b.end),
    }
}

/// The sessions of one activation.
struct SessionBatch<K, S> {
    /// Sorted; the sessions of a key do not overlap.
    by_key: HashMap<K, Vec<(Window, S)>, FixedState>,
}

impl<K: Record, S> SessionBatch<K, S> {
    fn add<T, F: Aggregate<T, State = S>>(&mut self, key: K, session: Window, fold: &F, value: &T) {
        let sessions = self.by_key.entry(key).or_default();
        // Sessions do not overlap, so the order of their starts is that of their ends.
        let at = sessions.partition_point(|(other, _)| other.end <= session.start);
        if !sessions
            .get(at)
            .is_some_and(|(other, _)| overlap(*other, session))
        {
            sessions.insert(at, (session, fold.empty()));
        }
        fold.add(&mut sessions[at].1, value);
        sessions[at].0 = union(sessions[at].0, session);
        // It may now overlap those after it.
        while sessions
            .get(at + 1)
            .is_some_and(|(other, _)| overlap(*other, sessions[at].0))
        {
            let (other, more) = sessions.remove(at + 1);
            sessions[at].0 = union(sessions[at].0, other);
            fold.merge(&mut sessions[at].1, more);
        }
    }
}

/// Folds the events of one activation into partial sessions.
pub(super) fn combine<'s, K: Record, T: Event, F: Aggregate<T>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    name: &str,
    key: Rc<dyn Fn(&T) -> K>,
    gap: Duration,
    fold: Rc<F>,
    policies: LatePolicies,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    let mut builder = OperatorBuilder::new(format!("{name}: combine"), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<RoutedBatch>>>::from(output);
    let label: Rc<str> = format!("window `{name}`").into();
    let mut packer = RoutedBatchBuilder::new(stream.scope().peers());
    builder.build(move |_capabilities| {
        let by_key = HashMap::default();
        let mut sessions = SessionBatch { by_key };
        move |_frontiers| {
            let mut output = output.activate();
            let _work = panic_context::enter(&label);
            input.for_each_stamp(|capability, batches| {
                let mut session = output.session(&capability);
                for event in batches.flat_map(|batch| batch.drain(..)) {
                    panic_context::at_record(event.at);
                    let over = policies.over(event.at.partition.source, event.horizon);
                    let (key, window) = (key(&event.value), alone(event.time, gap));
                    if window.end > over {
                        sessions.add(key, window, &*fold, &event.value);
                    } else if let Some(routed_batch) = packer.push(
                        route(&key),
                        SessionInput::<K, T, F::State>::Doubtful { key, event, over },
                    ) {
                        session.give(routed_batch);
                    }
                }
                for (key, of_key) in sessions.by_key.drain() {
                    for (window, state) in of_key {
                        let partial = SessionInput::<K, T, F::State>::Partial(key.clone(), window, state);
                        if let Some(routed_batch) = packer.push(route(&key), partial) {
                            session.give(routed_batch);
                        }
                    }
                }
                session.give_iterator(packer.rest());
            });
        }
    });
    stream
}

/// Adds the operator that merges sessions.
pub(super) fn sessions<'s, K: Record, T: Event, F: Aggregate<T>>(
    routed_batches: StreamVec<'s, Epoch, RoutedBatch>,
    (fold, gap, keep): (Rc<F>, Duration, RowRetention),
    late: LateHandling,
    setup: Setup<SessionInput<K, T, F::State>>,
) -> Streams<'s, Item<SessionMerge<K, T, F>>> {
    let merge = SessionMerge {
        name: setup.name.clone(),
        fold,
        gap,
        keep,
        late,
        of: PhantomData,
    };
    process(routed_batches, Rc::new(merge), setup)
}

/// Merges sessions.
pub(super) struct SessionMerge<K, T, F> {
    name: String,
    fold: Rc<F>,
    gap: Duration,
    /// How long a session's row stays after it closed.
    keep: RowRetention,
    late: LateHandling,
    of: PhantomData<fn(K, T)>,
}

type State<K, S> = GroupedStore<K, SessionSpan, S>;

impl<K: Record, T: Event, F: Aggregate<T>> SessionMerge<K, T, F> {
    /// The open sessions of a key that overlap a window. The open sessions of a key do not overlap each
    /// other, so ordering by end is ordering by start.
    fn overlapping(
        &self,
        at: &EpochInfo,
        key: &K,
        window: Window,
        sessions: &KeyedState<State<K, F::State>>,
    ) -> Vec<SessionSpan> {
        let Some(group) = sessions.entries().group(key) else {
            return Vec::new();
        };
        let over = window.start.max(at.closed_before);
        let found = group.range(0, |span| span.end <= over, |span| span.start < window.end);
        found.map(|(span, _)| *span).collect()
    }

    fn merge(
        &self,
        at: &EpochInfo,
        (key, window, state): (K, Window, F::State),
        sessions: &mut KeyedState<State<K, F::State>>,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) {
        let (mut window, mut state) = (window, state);
        let windowed = |window| Windowed {
            key: key.clone(),
            window,
        };
        for span in self.overlapping(at, &key, window, sessions) {
            if let Some(before) = sessions.remove(&(key.clone(), span)) {
                changes.set(windowed(span.window()), Some(self.fold.finish(&before)), None);
                window = union(window, span.window());
                self.fold.merge(&mut state, before);
            }
        }
        changes.set(windowed(window), None, Some(self.fold.finish(&state)));
        let Window { start, end } = window;
        sessions.update((key, SessionSpan { end, start }), || state, |_| {});
    }

    /// Counts an event if its session is open for it.
    fn doubtful(
        &self,
        at: &EpochInfo,
        (key, event, over): (K, Timed<T>, EventTime),
        sessions: &mut KeyedState<State<K, F::State>>,
        out: &mut ChangesAndDeadLetters<Windowed<K>, F::Out>,
    ) {
        panic_context::at_record(event.at);
        let window = alone(event.time, self.gap);
        let found = self.overlapping(at, &key, window, sessions);
        let end = found.iter().map(|span| span.end).max();
        if end.is_some_and(|end| end > over) {
            let mut state = self.fold.empty();
            self.fold.add(&mut state, &event.value);
            self.merge(at, (key, window, state), sessions, &mut out.changes);
            return;
        }
        self.late.counts.events.inc_by(1);
        self.late.counts.windows.inc_by(1);
        if self.late.policies.writes_dead_letters(event.at.partition.source) {
            out.dead_letters
                .push(DeadLetter::turned_down(&self.name, Cause::Late, None, &event));
        }
    }
}

impl<K: Record, T: Event, F: Aggregate<T>> KeyedOperator for SessionMerge<K, T, F> {
    type Input = SessionInput<K, T, F::State>;
    type State = State<K, F::State>;
    type Output = ChangesAndDeadLetters<Windowed<K>, F::Out>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        sessions: &mut KeyedState<Self::State>,
        out: &mut Self::Output,
    ) {
        let mut doubtful = Vec::new();
        for input in input.into_iter().flatten() {
            match input {
                SessionInput::Partial(key, window, state) => {
                    self.merge(at, (key, window, state), sessions, &mut out.changes);
                }
                SessionInput::Doubtful { key, event, over } => doubtful.push((key, event, over)),
            }
        }
        // Whether one is late depends on the previous ones.
        doubtful.sort_by(|a, b| a.1.at.cmp(&b.1.at).then_with(|| by_content(&a.1, &b.1)));
        for event in doubtful {
            self.doubtful(at, event, sessions, out);
        }
        sessions.expire(self.keep.expires(at), |key, span, state| {
            let (key, window) = (key.clone(), span.window());
            let row = Some(self.fold.finish(&state));
            out.changes.set(Windowed { key, window }, row, None);
        });
    }

    fn backfill(&self, sessions: &KeyedState<Self::State>) -> Vec<Change<Windowed<K>, F::Out>> {
        let mut rows = Vec::new();
        sessions.entries().each(|key, span, state| {
            let (key, window) = (key.clone(), span.window());
            rows.push(Change {
                key: Windowed { key, window },
                old: None,
                new: Some(self.fold.finish(state)),
            });
        });
        rows
    }
}
