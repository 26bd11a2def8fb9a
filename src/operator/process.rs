//! Operators under the clock: the trait, and what is around every one of them.
//!
//! ```text
//!   input ═ exchange by key ═▶ gathered by epoch ─ frontier passes epoch n ─▶ data(n)        the epoch's input, in one batch
//!                                                                         ─▶ watermark(n)   also where n brings nothing
//!                                                                              │
//!      restored: rows of the state ─▶ downstream                               └─▶ net changes of n ─▶ downstream
//! ```
//!
//! An operator is a set of functions from the epoch's input and its state to changes of rows. It works behind
//! its frontier, one epoch after the other, in every replay the same ones. All that it keeps is in its
//! [`KeyedState`], so that a checkpoint has it.

use std::rc::Rc;
use std::time::Duration;

use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::checkpoint::keeper::Keeper;
use crate::checkpoint::keyed::{KeyedState, Store};
use crate::codec::Cause;
use crate::metrics::LateMetrics;
use crate::operator::again::{Again, Wanted};
use crate::operator::exchange::{Packer, Parcel, ParcelInput};
use crate::operator::late::Policies;
use crate::operator::walk::{Pending, Walk};
use crate::position::{Position, SourceId};
use crate::record::{Change, Event, Record, Timed, route};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime};
use crate::timeline::Desk;
use crate::trail;

/// A keyed operator under the clock, which gives a table.
///
/// Its functions take `&self`: what it keeps from epoch to epoch is in `state`, and nowhere else. What they
/// do has to depend on their arguments alone, and not on the order in which a
/// [`HashStore`](crate::checkpoint::keyed::HashStore) shows its entries.
///
/// [`Keyed::process`](crate::dataflow::stream::Keyed::process) adds one of your own to a dataflow;
/// `docs/write-an-operator.md` goes through an example.
pub trait Operator: 'static {
    /// What comes in.
    type Input: ExchangeData;
    /// The key of a row.
    type Key: Record;
    /// A row's value.
    type Value: Record;
    /// How the state is kept. Its [`Route`](Store::Route) is what the input is exchanged by.
    type State: Store;

    /// Takes in what an epoch brings this worker.
    fn data(
        &self,
        at: &EpochInfo,
        input: Batch<Self::Input>,
        state: &mut KeyedState<Self::State>,
        changes: &mut Changes<Self::Key, Self::Value>,
    );

    /// The epoch's watermark, once its data is taken in: windows close, entries expire. Called for every
    /// epoch.
    fn watermark(
        &self,
        _at: &EpochInfo,
        _state: &mut KeyedState<Self::State>,
        _changes: &mut Changes<Self::Key, Self::Value>,
    ) {
    }

    /// Shows every row that the state stands for: after a restore, steps behind this one that no checkpoint
    /// holds, such as joins, and views that are new begin with these.
    fn rows(&self, state: &KeyedState<Self::State>, row: impl FnMut(Self::Key, Self::Value));

    /// Whether an event comes too late: it then becomes a dead letter, or whatever
    /// [`Late`](crate::late::Late) says, and is in no batch. `closed` is how far [`EpochInfo::closed`] may
    /// have come for the event, by its own place in the log and not by when it was read.
    fn is_late(&self, _input: &Self::Input, _closed: EventTime) -> bool {
        false
    }
}

/// What an operator may know of the epoch that it is at.
#[derive(Clone, Copy, Debug)]
pub struct EpochInfo {
    /// The epoch.
    pub epoch: Epoch,
    /// The only "now" there is: bound to the epoch, and the same in every replay.
    pub now: EventTime,
    /// The watermark behind the epoch's data, less the time for which late events are
    /// [corrected](crate::late::Late::Correct). No later event that is not late belongs to what ended here or
    /// before.
    pub closed: EventTime,
}

/// What one epoch brings an operator.
pub struct Batch<I> {
    parts: Vec<Vec<I>>,
    place: Option<Place<I>>,
}

/// Where an input was read.
pub(crate) type Place<I> = fn(&I) -> Position;

impl<I> Batch<I> {
    /// In the order of the log if inputs have a place there, else in none.
    pub(crate) fn new(parts: Vec<Vec<I>>, place: Option<Place<I>>) -> Self {
        let Some(of) = place else {
            return Self { parts, place };
        };
        let mut all: Vec<I> = parts.into_iter().flatten().collect();
        // What one record was made to stays in order: it comes from one worker.
        all.sort_by_key(of);
        let parts = vec![all];
        Self { parts, place }
    }
}

impl<I> IntoIterator for Batch<I> {
    type Item = I;
    type IntoIter = Inputs<I>;

    fn into_iter(self) -> Inputs<I> {
        Inputs {
            all: self.parts.into_iter().flatten(),
            place: self.place,
        }
    }
}

/// The inputs of a [`Batch`], by partition and offset where they come from a stream. A panic is told with the
/// place of the one that was taken last.
pub struct Inputs<I> {
    all: std::iter::Flatten<std::vec::IntoIter<Vec<I>>>,
    place: Option<Place<I>>,
}

impl<I> Iterator for Inputs<I> {
    type Item = I;

    #[inline]
    fn next(&mut self) -> Option<I> {
        let next = self.all.next()?;
        if let Some(of) = self.place {
            trail::on(of(&next));
        }
        Some(next)
    }
}

/// What an epoch changes in an operator's rows.
pub struct Changes<K, V> {
    all: Vec<Change<K, V>>,
    /// Whether a key may stand in it twice.
    is_repeated: bool,
    /// Whether some row was there at neither end of the epoch.
    is_void: bool,
}

impl<K: Record, V: Record> Changes<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            all: Vec::new(),
            is_repeated: false,
            is_void: false,
        }
    }

    /// A key's row was `old` and is `new`. Several changes of a key in one epoch become one, and none if the
    /// row is what it was.
    pub fn set(&mut self, key: K, old: Option<V>, new: Option<V>) {
        self.is_repeated = true;
        self.all.push(Change { key, old, new });
    }

    /// The epoch's only change of a key. Returns its place, for [`revise`](Self::revise).
    #[inline]
    pub(crate) fn once(&mut self, key: K, old: Option<V>, new: Option<V>) -> usize {
        self.all.push(Change { key, old, new });
        self.all.len() - 1
    }

    /// The row at a place is another now.
    #[inline]
    pub(crate) fn revise(&mut self, at: usize, new: Option<V>) {
        self.is_void |= new.is_none();
        self.all[at].new = new;
    }

    /// At most one change of each key.
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

/// What an operator is added with.
pub(crate) struct Setup<I> {
    /// Name of the step.
    pub(crate) name: String,
    /// The step in a sentence: ``window `spend` ``.
    pub(crate) label: String,
    /// The sources whose watermark counts.
    pub(crate) sources: Rc<[SourceId]>,
    /// For how long late events are corrected.
    pub(crate) held_back: Duration,
    /// Where an input was read, if that is known: then batches are in the order of the log.
    pub(crate) place: Option<Place<I>>,
    /// The worker's desk.
    pub(crate) desk: Rc<Desk>,
    /// The way to its checkpoints.
    pub(crate) keeper: Keeper,
    /// Whether something is made of its rows besides views.
    pub(crate) wanted: Wanted,
}

/// Adds an operator to a dataflow. Its input is packed for the workers that keep the state for it.
pub(crate) fn process<'s, O: Operator>(
    parcels: StreamVec<'s, Epoch, Parcel>,
    operator: Rc<O>,
    setup: Setup<O::Input>,
) -> StreamVec<'s, Epoch, Change<O::Key, O::Value>> {
    type Builder<K, V> = CapacityContainerBuilder<Vec<Change<K, V>>>;
    let Setup {
        name,
        label,
        sources,
        held_back,
        place,
        desk,
        keeper,
        wanted,
    } = setup;
    let scope = parcels.scope();
    let label: Rc<str> = label.into();
    let mut builder = OperatorBuilder::new(name, scope);
    let activator = scope.activator_for(builder.operator_info().address);
    let mut input = ParcelInput::new(&mut builder, parcels);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, Builder<O::Key, O::Value>>::from(output);
    builder.build(move |mut capabilities| {
        let capability = capabilities.pop().expect("there is one output");
        let mut again = Again::new(keeper.restored(), capability.clone(), activator, wanted);
        let mut walk = Walk::new(desk, capability);
        let kept = KeyedState::<O::State>::keep(&keeper);
        let (mut pending, mut changes) = (Pending::new(), Changes::new());
        move |frontiers| {
            let mut output = output.activate();
            let operator = &*operator;
            pending.gather(&mut input);
            let _work = trail::begin(&label);
            again.emit(
                || all(operator, &kept.at(Epoch::ZERO)),
                |capability, rows| output.session(capability).give_container(rows),
            );
            walk.advance(&frontiers[0], |facts, capability| {
                let at = EpochInfo {
                    epoch: facts.epoch(),
                    now: facts.binding.now,
                    closed: facts.watermark(&sources).minus(held_back),
                };
                let mut state = kept.at(at.epoch);
                state.begin(at.epoch);
                let parts = pending.take(at.epoch);
                if !parts.is_empty() {
                    operator.data(&at, Batch::new(parts, place), &mut state, &mut changes);
                }
                operator.watermark(&at, &mut state, &mut changes);
                state.give_back_room();
                let changes = changes.net();
                if !changes.is_empty() {
                    output.session(capability).give_container(changes);
                    changes.clear();
                }
            });
        }
    });
    stream
}

/// Gives each event its key, and sends those that come too late to the dead letters.
pub(crate) fn admit<'s, K: Record, T: Event, O: Operator<Input = (K, Timed<T>)>>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    key: Rc<dyn Fn(&T) -> K>,
    operator: Rc<O>,
    setup: &Setup<O::Input>,
    policies: Policies,
    counts: LateMetrics,
) -> Admitted<'s> {
    let mut builder = OperatorBuilder::new(format!("{}: admit", setup.name), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (admitted, admitted_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let mut admitted = OutputBuilder::<_, CapacityContainerBuilder<Vec<Parcel>>>::from(admitted);
    let mut late = OutputBuilder::<_, CapacityContainerBuilder<Vec<DeadLetter>>>::from(late);
    let (name, label) = (setup.name.clone(), Rc::<str>::from(&*setup.label));
    let mut packer = Packer::new(admitted_stream.scope().peers());
    builder.build(move |_capabilities| {
        move |_frontiers| {
            let (mut admitted, mut late) = (admitted.activate(), late.activate());
            let _work = trail::begin(&label);
            // One message after the other: those of a stamp come in no order, and events of one record have
            // one.
            input.for_each(|capability, events| {
                let (mut too_late, mut count) = (Vec::new(), 0);
                let mut session = admitted.session(&capability);
                for event in events.drain(..) {
                    trail::on(event.at);
                    let source = event.at.partition.source;
                    let closed = policies.over(source, event.horizon);
                    let keyed = (key(&event.value), event);
                    if !operator.is_late(&keyed, closed) {
                        if let Some(parcel) = packer.push(route(&keyed.0), keyed) {
                            session.give(parcel);
                        }
                        continue;
                    }
                    count += 1;
                    if policies.writes_letters(source) {
                        too_late.push(DeadLetter::turned_down(&name, Cause::Late, None, &keyed.1));
                    }
                }
                session.give_iterator(packer.rest());
                drop(session);
                counts.events.inc_by(count);
                if !too_late.is_empty() {
                    late.session(&capability).give_iterator(too_late.drain(..));
                }
            });
        }
    });
    (admitted_stream, late_stream)
}

/// Events with their keys, packed by these, and those that came too late.
type Admitted<'s> = (StreamVec<'s, Epoch, Parcel>, StreamVec<'s, Epoch, DeadLetter>);

/// Every row as one that is new.
fn all<O: Operator>(operator: &O, state: &KeyedState<O::State>) -> Vec<Change<O::Key, O::Value>> {
    let mut rows = Vec::new();
    operator.rows(state, |key, value| {
        let (old, new) = (None, Some(value));
        rows.push(Change { key, old, new });
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_changes_of_a_key_become_one_and_none_where_nothing_is_different() {
        let mut changes = Changes::new();
        changes.set(2, Some(10), Some(20));
        changes.set(1, None, Some(7));
        changes.set(2, Some(20), None);
        changes.set(1, Some(7), None);
        changes.set(2, None, Some(30));
        let (key, old, new) = (2, Some(10), Some(30));
        assert_eq!(*changes.net(), [Change { key, old, new }]);
    }
}
