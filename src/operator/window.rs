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

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::keeper::Keeper;
use crate::metrics::LateMetrics;
use crate::operator::again::{Again, Wanted};
use crate::operator::aggregate::Aggregate;
use crate::operator::horizon::raise_horizons;
use crate::operator::late::Policies;
use crate::operator::walk::{Pending, Walk};
use crate::position::SourceId;
use crate::record::{Change, Event, Record, Timed, worker_bits};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime, Window, Windowed};
use crate::timeline::Desk;
use crate::trail;
use crate::view::Windows;

mod combine;
mod merge;

use combine::combine;
use merge::Merge;

/// Which windows an event belongs to.
///
/// Where windows overlap, an event may come too late for some of its windows and in time for others: it counts in those
/// that are still open. It becomes a dead letter, or whatever [`Late`](crate::late::Late) says, if it is late for all of
/// them; the metric `thalweg_late_windows_total` counts each window that it is missing from in either case. An event that
/// gets no window at all is in no row, as if a filter had dropped it.
pub trait Assign: 'static {
    /// Adds every window that contains `at` to `out`, each once.
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
    pub late: LateMetrics,
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
        late: counts,
        keeper,
        wanted,
    } = spec;
    desk.timeline.borrow_mut().track(&sources);
    let events = raise_horizons(events, &name, sources.clone(), desk.clone());
    let held_back = policies.corrects();
    let (partials, late) = combine(events, &name, key, assign, fold.clone(), policies, counts);
    let state = Merge::new(fold, keep, held_back, &keeper);
    let changes = merge(partials, &name, state, sources, desk, &keeper, wanted);
    (changes, late)
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
    use crate::codec::tests::held;
    use crate::operator::aggregate::{Count, Of};
    use crate::record::route;

    const WINDOW: Window = Window {
        start: EventTime(0),
        end: EventTime(10),
    };

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

    /// Folds partial aggregates of windows of one microsecond, `(window, key)` each, and says how many bytes they take.
    fn bytes_held(rows: impl Iterator<Item = (i64, u32)>, watermark: i64) -> (Merge<u32, u64, Count>, isize) {
        let before = held();
        let fold = Rc::new(Of::<u8>::default().count());
        let mut merge = Merge::new(fold, Duration::from_secs(1), Duration::ZERO, &Keeper::off());
        for (start, key) in rows {
            let window = Window {
                start: EventTime(start),
                end: EventTime(start + 1),
            };
            merge.add::<u8>(
                Epoch(1),
                Partial {
                    window,
                    ..partial(key, 1)
                },
                &mut Vec::new(),
            );
        }
        merge.expire::<u8>(EventTime(watermark), &mut Vec::new());
        (merge, held() - before)
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
        let (mut merge, large) = bytes_held((0..20_000).map(|key| (0, key)), 1);
        let before = held();
        for start in 1..=300 {
            let window = Window {
                start: EventTime(start),
                end: EventTime(start + 1),
            };
            merge.add::<u8>(
                Epoch(2),
                Partial {
                    window,
                    ..partial(7, 1)
                },
                &mut Vec::new(),
            );
            merge.expire::<u8>(EventTime(start), &mut Vec::new());
        }
        let small = held() - before;
        assert!(
            small < 300 * 400,
            "{small} bytes for 300 rows, beside {large} for 20,000"
        );
    }
}
