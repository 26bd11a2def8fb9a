//! Operators under the epoch clock: the trait, and the machinery around every one of them.
//!
//! ```text
//!   input ═ exchange by key ═▶ gathered by epoch ─ frontier passes epoch n ─▶ data(n)        the epoch's input, in one batch
//!                                                                         ─▶ watermark(n)   also where n brings nothing
//!                                                                              │
//!      restored: rows of the state ─▶ downstream                               ├─▶ net changes of n, or events ─▶ downstream
//!                                                                              └─▶ late events ─▶ dead letters
//! ```
//!
//! An operator is a set of functions from an epoch's input and its state to changes of rows. It works behind
//! its frontier, one epoch after the other, and processes the same epochs in every replay. All of its state
//! is in its [`KeyedState`], so that checkpoints capture it.

use std::cmp::Ordering;
use std::rc::Rc;
use std::time::Duration;

use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::checkpoint::keyed::{EntryStore, KeyedState};
use crate::checkpoint::state_handle::StateHandle;
use crate::operator::backfill::{Backfill, BackfillDemand};
use crate::operator::epoch_cursor::{EpochCursor, PendingInput};
use crate::operator::exchange::{RoutedBatch, RoutedInput};
use crate::panic_context;
use crate::position::{Position, SourceId};
use crate::record::{Change, Event, Record, Timed};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime};
use crate::timeline::WorkerContext;

/// A keyed operator under the epoch clock, which results in a table.
///
/// Its functions take `&self`: state that outlives an epoch belongs in `state` and nowhere else. Results must
/// depend on the arguments alone, and not on the order in which a
/// [`HashStore`](crate::checkpoint::keyed::HashStore) iterates its entries.
///
/// [`Keyed::process`](crate::dataflow::keyed::Keyed::process) adds a custom operator to a dataflow;
/// `docs/write-an-operator.md` walks through an example.
pub trait Operator: 'static {
    /// The input.
    type Input: ExchangeData;
    /// The key of a row.
    type Key: Record;
    /// A row's value.
    type Value: Record;
    /// The store of the state. Its [`Route`](EntryStore::Route) is the exchange key of the input.
    type State: EntryStore;

    /// Applies an epoch's input on this worker.
    fn data(
        &self,
        at: &EpochInfo,
        input: Batch<Self::Input>,
        state: &mut KeyedState<Self::State>,
        changes: &mut Changes<Self::Key, Self::Value>,
    );

    /// Advances to the epoch's watermark, after its input was applied: windows close, entries expire. Called
    /// for every epoch.
    fn watermark(
        &self,
        _at: &EpochInfo,
        _state: &mut KeyedState<Self::State>,
        _changes: &mut Changes<Self::Key, Self::Value>,
    ) {
    }

    /// Emits every row of the state. After a restore, this feeds operators downstream that have no checkpoint
    /// of their own, such as joins, and new views.
    fn rows(&self, state: &KeyedState<Self::State>, row: impl FnMut(Self::Key, Self::Value));

    /// Whether an event is late: it is then in no batch and becomes a dead letter, or whatever
    /// [`Late`](crate::late::Late) says. `closed` is the greatest [`EpochInfo::closed`] that the event may
    /// meet, as determined by its place in the log and not by when it was read.
    fn is_late(&self, _input: &Self::Input, _closed: EventTime) -> bool {
        false
    }
}

/// What an operator may know of the current epoch.
#[derive(Clone, Copy, Debug)]
pub struct EpochInfo {
    /// The epoch.
    pub epoch: Epoch,
    /// The only "now": bound to the epoch, and the same in every replay.
    pub now: EventTime,
    /// The watermark after the epoch's data, minus the time for which late events are
    /// [corrected](crate::late::Late::Correct). No later on-time event belongs to anything that ended at or
    /// before it.
    pub closed: EventTime,
    /// `closed` as of the previous epoch; [`EventTime::MIN`] in the first one.
    pub closed_before: EventTime,
}

/// The input of an operator in one epoch.
pub struct Batch<I> {
    parts: Vec<Vec<I>>,
    order: Option<InputOrder<I>>,
}

/// The order of an epoch's inputs.
pub(crate) struct InputOrder<I> {
    /// Where an input was read.
    pub(crate) place: fn(&I) -> Position,
    /// Compares inputs with the same position, which may come from several workers.
    pub(crate) tie: Option<fn(&I, &I) -> Ordering>,
}

impl<I> Clone for InputOrder<I> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<I> Copy for InputOrder<I> {}

impl<I> Batch<I> {
    /// In log order if inputs have a position, otherwise unordered.
    pub(crate) fn new(parts: Vec<Vec<I>>, order: Option<InputOrder<I>>) -> Self {
        let Some(InputOrder { place, tie }) = order else {
            return Self { parts, order };
        };
        let mut all: Vec<I> = parts.into_iter().flatten().collect();
        match tie {
            // Events made from one record come from one worker in order, which a stable sort keeps.
            None => all.sort_by_key(place),
            Some(tie) => all.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| tie(a, b))),
        }
        let parts = vec![all];
        Self { parts, order }
    }
}

impl<I> IntoIterator for Batch<I> {
    type Item = I;
    type IntoIter = Inputs<I>;

    fn into_iter(self) -> Inputs<I> {
        Inputs {
            all: self.parts.into_iter().flatten(),
            order: self.order,
        }
    }
}

/// The inputs of a [`Batch`], by partition and offset if they come from a stream. A panic reports the
/// position of the input that was taken last.
pub struct Inputs<I> {
    all: std::iter::Flatten<std::vec::IntoIter<Vec<I>>>,
    order: Option<InputOrder<I>>,
}

impl<I> Iterator for Inputs<I> {
    type Item = I;

    #[inline]
    fn next(&mut self) -> Option<I> {
        let next = self.all.next()?;
        if let Some(order) = self.order {
            panic_context::at_record((order.place)(&next));
        }
        Some(next)
    }
}

/// The changes of an operator's rows in one epoch.
pub struct Changes<K, V> {
    all: Vec<Change<K, V>>,
    /// Whether a key may occur twice.
    is_repeated: bool,
    /// Whether a row may be absent at both ends of the epoch.
    is_void: bool,
}

impl<K, V> Default for Changes<K, V> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            is_repeated: false,
            is_void: false,
        }
    }
}

impl<K: Record, V: Record> Changes<K, V> {
    /// Records that a key's row was `old` and is `new`. Several changes of a key in one epoch are combined,
    /// and cancel out if the row ends as it began.
    pub fn set(&mut self, key: K, old: Option<V>, new: Option<V>) {
        self.is_repeated = true;
        self.all.push(Change { key, old, new });
    }

    /// Records the epoch's only change of a key. Returns its index, for [`revise`](Self::revise).
    #[inline]
    pub(crate) fn once(&mut self, key: K, old: Option<V>, new: Option<V>) -> usize {
        self.all.push(Change { key, old, new });
        self.all.len() - 1
    }

    /// Replaces the new row of the change at an index.
    #[inline]
    pub(crate) fn revise(&mut self, at: usize, new: Option<V>) {
        self.is_void |= new.is_none();
        self.all[at].new = new;
    }

    /// Combines the changes of each key into at most one.
    pub(crate) fn net(&mut self) -> &mut Vec<Change<K, V>> {
        if std::mem::take(&mut self.is_repeated) {
            self.all.sort_by(|a, b| a.key.cmp(&b.key));
            self.all.dedup_by(|later, first| {
                let is_same = later.key == first.key;
                if is_same {
                    first.new = later.new.take();
                }
                is_same
            });
            self.all.retain(|change| change.old != change.new);
        }
        if std::mem::take(&mut self.is_void) {
            self.all
                .retain(|change| change.old.is_some() || change.new.is_some());
        }
        &mut self.all
    }
}

/// A keyed operator with any output, processed epoch by epoch.
pub(crate) trait KeyedOperator: 'static {
    /// The input.
    type Input: ExchangeData;
    /// The store of the state.
    type State: EntryStore;
    /// The output of an epoch.
    type Output: Output;

    /// Processes an epoch; `input` is `None` if this worker has no input in it.
    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<Self::Input>>,
        state: &mut KeyedState<Self::State>,
        out: &mut Self::Output,
    );

    /// Emits everything that the state represents, for operators downstream that have no checkpoint of their
    /// own.
    fn backfill(&self, _state: &KeyedState<Self::State>) -> Vec<Item<Self>> {
        Vec::new()
    }
}

/// The item type of the output stream.
pub(crate) type Item<O> = <<O as KeyedOperator>::Output as Output>::Item;

/// Collects the output of an epoch.
pub(crate) trait Output: Default + 'static {
    /// The item type of the output stream.
    type Item: Clone + 'static;
    /// Whether inputs may be rejected, for example as late.
    const HAS_DEAD_LETTERS: bool = false;
    /// The epoch's output, to be sent and cleared.
    fn items(&mut self) -> &mut Vec<Self::Item>;
    /// The rejected inputs.
    fn dead_letters(&mut self) -> Option<&mut Vec<DeadLetter>> {
        None
    }
}

impl<K: Record, V: Record> Output for Changes<K, V> {
    type Item = Change<K, V>;

    fn items(&mut self) -> &mut Vec<Change<K, V>> {
        self.net()
    }
}

/// Changes of rows, and rejected inputs.
pub(crate) struct ChangesAndDeadLetters<K, V> {
    pub(crate) changes: Changes<K, V>,
    pub(crate) dead_letters: Vec<DeadLetter>,
}

impl<K, V> Default for ChangesAndDeadLetters<K, V> {
    fn default() -> Self {
        let (changes, dead_letters) = (Changes::default(), Vec::new());
        Self {
            changes,
            dead_letters,
        }
    }
}

impl<K: Record, V: Record> Output for ChangesAndDeadLetters<K, V> {
    type Item = Change<K, V>;
    const HAS_DEAD_LETTERS: bool = true;

    fn items(&mut self) -> &mut Vec<Change<K, V>> {
        self.changes.net()
    }

    fn dead_letters(&mut self) -> Option<&mut Vec<DeadLetter>> {
        Some(&mut self.dead_letters)
    }
}

/// Events emitted by an operator.
pub(crate) struct Emitted<T>(pub(crate) Vec<Timed<T>>);

impl<T> Default for Emitted<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Event> Output for Emitted<T> {
    type Item = Timed<T>;

    fn items(&mut self) -> &mut Vec<Timed<T>> {
        &mut self.0
    }
}

impl<O: Operator> KeyedOperator for O {
    type Input = O::Input;
    type State = O::State;
    type Output = Changes<O::Key, O::Value>;

    fn epoch(
        &self,
        at: &EpochInfo,
        input: Option<Batch<O::Input>>,
        state: &mut KeyedState<O::State>,
        changes: &mut Changes<O::Key, O::Value>,
    ) {
        if let Some(input) = input {
            self.data(at, input, state, changes);
        }
        self.watermark(at, state, changes);
    }

    fn backfill(&self, state: &KeyedState<O::State>) -> Vec<Change<O::Key, O::Value>> {
        let mut rows = Vec::new();
        self.rows(state, |key, value| {
            let (old, new) = (None, Some(value));
            rows.push(Change { key, old, new });
        });
        rows
    }
}

/// The setup of an operator.
#[doc(hidden)]
pub struct Setup<I> {
    /// Name of the step.
    pub(crate) name: String,
    /// The step as named in messages: ``window `spend` ``.
    pub(crate) label: String,
    /// The sources that determine its watermark.
    pub(crate) sources: Rc<[SourceId]>,
    /// For how long late events are corrected.
    pub(crate) held_back: Duration,
    /// The order of an epoch's inputs; unordered if `None`.
    pub(crate) order: Option<InputOrder<I>>,
    /// The worker's context.
    pub(crate) worker_context: Rc<WorkerContext>,
    /// The handle to its checkpoints.
    pub(crate) handle: StateHandle,
    /// Whether anything other than views consumes its rows.
    pub(crate) demand: BackfillDemand,
}

/// An operator's output and, if it can reject inputs, those.
pub(crate) type Streams<'s, D> = (StreamVec<'s, Epoch, D>, Option<StreamVec<'s, Epoch, DeadLetter>>);

type Builder<D> = CapacityContainerBuilder<Vec<D>>;

/// Adds an operator to a dataflow. Its input is exchanged to the workers that own the state for it.
pub(crate) fn process<'s, O: KeyedOperator>(
    routed_batches: StreamVec<'s, Epoch, RoutedBatch>,
    operator: Rc<O>,
    setup: Setup<O::Input>,
) -> Streams<'s, Item<O>> {
    let Setup {
        name,
        label,
        sources,
        held_back,
        order,
        worker_context,
        handle,
        demand,
    } = setup;
    let scope = routed_batches.scope();
    let label: Rc<str> = label.into();
    let mut builder = OperatorBuilder::new(name, scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let mut input = RoutedInput::new(&mut builder, routed_batches);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, Builder<Item<O>>>::from(output);
    let (mut late, late_stream) = match O::Output::HAS_DEAD_LETTERS {
        true => {
            let (late, stream) = builder.new_output();
            (
                Some(OutputBuilder::<_, Builder<DeadLetter>>::from(late)),
                Some(stream),
            )
        }
        false => (None, None),
    };
    builder.build(move |capabilities| {
        let mut backfill = Backfill::new(handle.restored(), capabilities[0].clone(), activator, demand);
        let mut epoch_cursor = EpochCursor::new(worker_context, capabilities);
        // The state already has everything up to there; restored operators before a new one re-emit it.
        let held = handle.held();
        let kept = KeyedState::<O::State>::keep(&handle);
        let (mut pending, mut out) = (PendingInput::new(), O::Output::default());
        move |frontiers| {
            let (mut output, mut late) = (output.activate(), late.as_mut().map(OutputBuilder::activate));
            let operator = &*operator;
            pending.gather(&mut input, held);
            let _work = panic_context::enter(&label);
            backfill.emit(
                || operator.backfill(&kept.at(Epoch::ZERO)),
                |capability, rows| output.session(capability).give_container(rows),
            );
            epoch_cursor.advance(&frontiers[0], |facts, before, capabilities| {
                let closed = |watermark: EventTime| watermark.minus(held_back);
                let at = EpochInfo {
                    epoch: facts.epoch(),
                    now: facts.binding.now,
                    closed: closed(facts.watermark(&sources)),
                    closed_before: before.map_or(EventTime::MIN, |before| closed(before.of(&sources))),
                };
                let mut state = kept.at(at.epoch);
                state.begin(at.epoch);
                let parts = pending.take(at.epoch);
                let batch = (!parts.is_empty()).then(|| Batch::new(parts, order));
                operator.epoch(&at, batch, &mut state, &mut out);
                state.give_back_room();
                let items = out.items();
                if !items.is_empty() {
                    output.session(&capabilities[0]).give_container(items);
                    items.clear();
                }
                let dead_letters = out.dead_letters().filter(|dead_letters| !dead_letters.is_empty());
                if let (Some(late), Some(dead_letters)) = (&mut late, dead_letters) {
                    late.session(&capabilities[1]).give_container(dead_letters);
                    dead_letters.clear();
                }
            });
        }
    });
    (stream, late_stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_changes_of_a_key_become_one_and_none_where_nothing_is_different() {
        let mut changes = Changes::default();
        changes.set(2, Some(10), Some(20));
        changes.set(1, None, Some(7));
        changes.set(2, Some(20), None);
        changes.set(1, Some(7), None);
        changes.set(2, None, Some(30));
        let (key, old, new) = (2, Some(10), Some(30));
        assert_eq!(*changes.net(), [Change { key, old, new }]);
    }
}
