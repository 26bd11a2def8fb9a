//! Aggregates over windows of event time.
//!
//! ```text
//!   events ──▶ combine ──▶ partial aggregates ══ exchange by key ══▶ merge ──▶ net change of each (key, window)
//!                │ late for a window: dead letters                     ▲
//!                └──▶                                                  └── watermark of each epoch, from the timeline
//! ```
//!
//! Events of several sources are first compared with the time that the step has closed:
//! [`horizon`](crate::operator::horizon). `combine` folds the events of one activation, so that an exchange
//! carries one state per key instead of its events. `merge` iterates over the epochs behind its frontier: it
//! folds in epoch n and then lets W(n) close and expire windows, so windows close in the same epoch in every
//! replay. [`late`](crate::operator::late) defines how long after its end a window takes corrections.

use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;

use crate::checkpoint::keyed::KeyedState;
use crate::checkpoint::state_handle::StateHandle;
use crate::metrics::LateMetrics;
use crate::operator::admit::LateHandling;
use crate::operator::aggregate::Aggregate;
use crate::operator::backfill::BackfillDemand;
use crate::operator::horizon::raise_horizons;
use crate::operator::late::LatePolicies;
use crate::operator::process::{Batch, Changes, EpochInfo, Operator, Setup, process};
use crate::position::SourceId;
use crate::record::{Change, Event, Record, Timed};
use crate::source::DeadLetter;
use crate::time::{Epoch, Window, Windowed};
use crate::timeline::WorkerContext;

pub(crate) mod assigner;
mod combine;
mod panes;
mod session;
mod trigger;

use assigner::{Slices, WindowAssigner};
use combine::combine;
use panes::{PaneEntry, Panes};
pub(crate) use trigger::RowRetention;
use trigger::Trigger;

/// The aggregate of some of a key's events in a window.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PartialAggregate<K, S> {
    route: u64,
    key: K,
    window: Window,
    state: S,
}

/// The configuration of the operator.
pub(crate) struct WindowSpec<K, T, F> {
    /// Name of the step.
    pub name: String,
    /// Extracts an event's key.
    pub key: Rc<dyn Fn(&T) -> K>,
    /// The window assigner.
    pub assign: Box<dyn WindowAssigner>,
    /// The aggregate.
    pub fold: Rc<F>,
    /// How long a window's rows stay after it closed.
    pub keep: RowRetention,
    /// The sources whose watermark closes the windows.
    pub sources: Rc<[SourceId]>,
    /// The worker's context.
    pub worker_context: Rc<WorkerContext>,
    /// The handling of late events.
    pub policies: LatePolicies,
    /// The counters of late events.
    pub late: LateMetrics,
    /// The handle to its checkpoints.
    pub handle: StateHandle,
    /// Whether anything other than views consumes its rows.
    pub demand: BackfillDemand,
}

/// Changes of the windowed table, and late events.
pub(crate) type Streams<'s, K, V> = (
    StreamVec<'s, Epoch, Change<Windowed<K>, V>>,
    StreamVec<'s, Epoch, DeadLetter>,
);

/// Adds the operator to a dataflow.
pub(crate) fn window<'s, K: Record, T: Event, F: Aggregate<T>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    spec: WindowSpec<K, T, F>,
) -> Streams<'s, K, F::Out> {
    let WindowSpec {
        name,
        key,
        assign,
        fold,
        keep,
        sources,
        worker_context,
        policies,
        late: counts,
        handle,
        demand,
    } = spec;
    worker_context.timeline.borrow_mut().track(&sources);
    let events = raise_horizons(events, &name, sources.clone(), worker_context.clone());
    let held_back = policies.corrects();
    let slices = Slices::of(&*assign);
    let (partials, late) = combine(events, &name, key, assign, fold.clone(), policies, counts);
    let merge = PartialMerge {
        trigger: Trigger { fold, keep },
        slices,
        of: PhantomData,
    };
    let setup = Setup {
        label: format!("window `{name}`"),
        name,
        sources,
        held_back,
        order: None,
        worker_context,
        handle,
        demand,
    };
    let (changes, _) = process(partials, Rc::new(merge), setup);
    (changes, late)
}

/// Adds the operator for merging windows (sessions), whose state has other keys.
pub(crate) fn sessions<'s, K: Record, T: Event, F: Aggregate<T>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    gap: Duration,
    spec: WindowSpec<K, T, F>,
) -> Streams<'s, K, F::Out> {
    let WindowSpec {
        name,
        key,
        fold,
        keep,
        sources,
        worker_context,
        policies,
        late: counts,
        handle,
        demand,
        ..
    } = spec;
    worker_context.timeline.borrow_mut().track(&sources);
    let events = raise_horizons(events, &name, sources.clone(), worker_context.clone());
    let held_back = policies.corrects();
    let routed_batches = session::combine(events, &name, key, gap, fold.clone(), policies.clone());
    let setup = Setup {
        label: format!("window `{name}`"),
        name,
        sources,
        held_back,
        order: None,
        worker_context,
        handle,
        demand,
    };
    let late = LateHandling { policies, counts };
    let (changes, late) = session::sessions(routed_batches, (fold, gap, keep), late, setup);
    (changes, late.expect("sessions have late events"))
}

/// The key of a session's state.
pub(crate) type SessionKey<K> = (K, session::SessionSpan);

/// Merges partial aggregates into panes, and emits their rows as the trigger says.
struct PartialMerge<K, T, F> {
    trigger: Trigger<F>,
    /// Set if partial aggregates are those of slices.
    slices: Option<Slices>,
    of: PhantomData<fn(K, T)>,
}

impl<K: Record, T: Event, F: Aggregate<T>> PartialMerge<K, T, F> {
    #[inline]
    fn fold_in(
        &self,
        partial: PartialAggregate<K, F::State>,
        panes: &mut KeyedState<Panes<K, F::State>>,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) {
        let found = panes.find(&partial);
        let PartialAggregate {
            key, window, state, ..
        } = partial;
        match found {
            PaneEntry::Vacant(vacant) => {
                let at = self.trigger.first(key.clone(), window, &state, changes);
                vacant.insert(key, state, at);
            }
            PaneEntry::Occupied(mut held) => {
                let first = || self.trigger.before(key, window, held.state(), changes);
                let at = held.changed_at().unwrap_or_else(first);
                self.trigger.fold.merge(held.write(at), state);
                self.trigger.after(at, held.state(), changes);
            }
        }
    }
}

impl<K: Record, T: Event, F: Aggregate<T>> Operator for PartialMerge<K, T, F> {
    type Input = PartialAggregate<K, F::State>;
    type Key = Windowed<K>;
    type Value = F::Out;
    type State = Panes<K, F::State>;

    fn data(
        &self,
        _at: &EpochInfo,
        input: Batch<Self::Input>,
        panes: &mut KeyedState<Self::State>,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) {
        for partial in input {
            let Some(slices) = self.slices else {
                self.fold_in(partial, panes, changes);
                continue;
            };
            for window in slices.windows(partial.window) {
                let partial = PartialAggregate {
                    window,
                    ..partial.clone()
                };
                self.fold_in(partial, panes, changes);
            }
        }
    }

    /// Retracts the rows of windows whose retention has passed, and packs the panes of closed windows.
    fn watermark(
        &self,
        at: &EpochInfo,
        panes: &mut KeyedState<Self::State>,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) {
        let trigger = &self.trigger;
        panes.expire(trigger.keep.expires(at), |expired| {
            trigger.expired(expired, changes)
        });
        panes.pack(at.closed);
    }

    fn rows(&self, panes: &KeyedState<Self::State>, mut row: impl FnMut(Windowed<K>, F::Out)) {
        panes.entries().each(|key, window, state| {
            let key = key.clone();
            row(Windowed { key, window }, self.trigger.fold.finish(state));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::held;
    use crate::operator::aggregate::AggregateBuilder;
    use crate::operator::aggregate::count::Count;
    use crate::record::route;
    use crate::time::EventTime;

    const WINDOW: Window = Window {
        start: EventTime(0),
        end: EventTime(10),
    };

    fn partial(key: u32, state: u64) -> PartialAggregate<u32, u64> {
        PartialAggregate {
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

    /// The operator and its state.
    struct Step {
        merge: PartialMerge<u32, u8, Count<u8>>,
        panes: KeyedState<Panes<u32, u64>>,
        held_back: Duration,
    }

    impl Step {
        fn new(keep: Duration, held_back: Duration) -> Self {
            let fold = Rc::new(AggregateBuilder::<u8>::default().count());
            let keep = RowRetention {
                for_: keep,
                when_closed: Rc::default(),
            };
            Self {
                merge: PartialMerge {
                    trigger: Trigger { fold, keep },
                    slices: None,
                    of: PhantomData,
                },
                panes: KeyedState::new(&StateHandle::off()),
                held_back,
            }
        }

        /// The changes of an epoch.
        fn epoch(
            &mut self,
            epoch: u64,
            partials: Vec<PartialAggregate<u32, u64>>,
            watermark: EventTime,
        ) -> Vec<Change<Windowed<u32>, u64>> {
            let at = EpochInfo {
                epoch: Epoch(epoch),
                now: EventTime(0),
                closed: watermark.minus(self.held_back),
                closed_before: EventTime::MIN,
            };
            let mut changes = Changes::default();
            self.panes.begin(at.epoch);
            let batch = Batch::new(vec![partials], None);
            self.merge.data(&at, batch, &mut self.panes, &mut changes);
            self.merge.watermark(&at, &mut self.panes, &mut changes);
            std::mem::take(changes.net())
        }

        fn counts(&self) -> (usize, usize) {
            self.panes.entries().counts()
        }
    }

    #[test]
    fn corrected_windows_close_and_expire_so_much_later() {
        let mut step = Step::new(Duration::from_micros(5), Duration::from_micros(20));
        step.epoch(1, vec![partial(7, 1)], EventTime::MIN);
        let mut at = |watermark| {
            let changes = step.epoch(2, vec![], watermark);
            let (all, packed) = step.counts();
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
    fn a_window_changes_once_an_epoch_is_packed_when_closed_and_taken_back_when_expired() {
        let mut windows = Step::new(Duration::from_micros(5), Duration::ZERO);
        let mut step = |epoch, partials: &[(u32, u64)], watermark| {
            let partials = partials.iter().map(|(key, state)| partial(*key, *state));
            let changes = windows.epoch(epoch, partials.collect(), EventTime(watermark));
            (changes, windows.counts().1)
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

    #[test]
    fn a_window_that_changes_and_expires_in_one_epoch_changes_once() {
        let mut step = Step::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(
            step.epoch(1, vec![partial(7, 1)], EventTime(10)),
            [],
            "never shown"
        );
        assert_eq!(
            step.epoch(2, vec![partial(7, 1)], EventTime(10)),
            [],
            "one that is over is not begun for good"
        );
        let mut step = Step::new(Duration::ZERO, Duration::ZERO);
        step.epoch(1, vec![partial(7, 1)], EventTime(9));
        assert_eq!(
            step.epoch(2, vec![partial(7, 1)], EventTime(10)),
            [change(Some(1), None)]
        );
    }

    /// Folds partial aggregates of windows of one microsecond, `(window, key)` each, and returns their memory
    /// in bytes.
    fn bytes_held(rows: impl Iterator<Item = (i64, u32)>, watermark: i64) -> (Step, isize) {
        let before = held();
        let mut step = Step::new(Duration::from_secs(1), Duration::ZERO);
        for (start, key) in rows {
            let window = Window {
                start: EventTime(start),
                end: EventTime(start + 1),
            };
            let partial = PartialAggregate {
                window,
                ..partial(key, 1)
            };
            step.epoch(1, vec![partial], EventTime::MIN);
        }
        step.epoch(1, vec![], EventTime(watermark));
        (step, held() - before)
    }

    #[test]
    fn memory_follows_the_rows_that_are_held() {
        let one_large = || (0..20_000).map(|key| (0, key));
        let many_small = (0..20_000).map(|n| (i64::from(n), n));
        let few_keys = (0..20_000).map(|n| (i64::from(n / 2), n % 2));
        // As after a snapshot: the large window is packed, and sparse updates follow.
        let one_large_then_small = one_large().chain((0..20_000).map(|n| (1 + i64::from(n), n)));
        let shapes: [(&str, Box<dyn Iterator<Item = (i64, u32)>>, isize); 4] = [
            ("one large window", Box::new(one_large()), 20_000),
            ("many small windows", Box::new(many_small), 20_000),
            ("few keys with many windows", Box::new(few_keys), 20_000),
            (
                "one large window and then many small ones",
                Box::new(one_large_then_small),
                40_000,
            ),
        ];
        for (shape, rows, count) in shapes {
            let rows: Vec<_> = rows.collect();
            for watermark in [0, 1] {
                let (_held, bytes) = bytes_held(rows.iter().copied(), watermark);
                assert!(bytes / count < 400, "{shape}: {} bytes a row", bytes / count);
            }
        }
    }

    #[test]
    fn what_is_made_anew_after_a_large_window_is_as_large_as_it_needs_to_be() {
        let (mut step, large) = bytes_held((0..20_000).map(|key| (0, key)), 1);
        let before = held();
        for start in 1..=300 {
            let window = Window {
                start: EventTime(start),
                end: EventTime(start + 1),
            };
            let partial = PartialAggregate {
                window,
                ..partial(7, 1)
            };
            step.epoch(2, vec![partial], EventTime(start));
        }
        let small = held() - before;
        assert!(
            small < 300 * 400,
            "{small} bytes for 300 rows, beside {large} for 20,000"
        );
    }
}
