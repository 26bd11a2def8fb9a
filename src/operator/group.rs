//! Aggregates over the groups of a collection, which may retract.
//!
//! An aggregate that can be undone (count, sum, average) keeps one state a group. One that can't (minimum,
//! maximum) also keeps the group's values in a tree, with the aggregates of parts of them, of which a change
//! folds few anew.

use std::rc::Rc;

use differential_dataflow::consolidation::consolidate_updates;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::bridge::Halt;
use crate::error::Error;
use crate::operator::aggregate::Aggregate;
use crate::operator::exchange::{ParcelInput, pack};
use crate::operator::walk::{Arrivals, Update};
use crate::record::{Change, Record, route};
use crate::time::Epoch;
use crate::trail;

mod values;

use values::Values;

enum Group<T, S> {
    /// The state, and how many values it is of: the aggregate can undo.
    State(S, isize),
    /// The aggregate can't.
    Values(Values<T, S>),
}

/// Groups by key and aggregates each group; a group without values has no row.
pub(crate) fn group<'s, K: Record, T: Record, F: Aggregate<T>>(
    rows: StreamVec<'s, Epoch, Update<(K, T)>>,
    name: &str,
    fold: Rc<F>,
    halt: Halt,
) -> StreamVec<'s, Epoch, Change<K, F::Out>> {
    let by_key = |((key, _), _, _): &Update<(K, T)>| route(key);
    let parcels = pack(rows, name, by_key);
    let step = name.to_owned();
    let label: Rc<str> = format!("aggregate `{name}`").into();
    let mut builder = OperatorBuilder::new(name.to_owned(), parcels.scope());
    let mut input = ParcelInput::new(&mut builder, parcels);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Change<K, F::Out>>>>::from(output);
    builder.build(move |_| {
        let mut arrivals = Arrivals::<Vec<Update<(K, T)>>>::new();
        let mut groups: HashMap<K, Group<T, F::State>, FixedState> = HashMap::default();
        move |frontiers| {
            let mut output = output.activate();
            arrivals.gather_updates(&mut input);
            let _work = trail::begin(&label);
            while let Some((epoch, capability, batches)) = arrivals.next(&frontiers[0]) {
                let mut updates: Vec<_> = batches.into_iter().flatten().collect();
                consolidate_updates(&mut updates);
                let mut updates = updates.into_iter().peekable();
                let mut session = output.session(&capability);
                while let Some(((key, _), ..)) = updates.peek() {
                    let key = key.clone();
                    let group = groups.entry(key.clone()).or_insert_with(|| Group::new(&*fold));
                    let old = group.result(&*fold);
                    let own = || updates.next_if(|((other, _), ..)| *other == key);
                    let own = std::iter::from_fn(own).map(|((_, value), _, diff)| (value, diff));
                    if !group.apply(&*fold, own) {
                        halt.halt(negative(&step, epoch, &key));
                        return;
                    }
                    let new = group.result(&*fold);
                    if new.is_none() {
                        groups.remove(&key);
                    }
                    if old != new {
                        session.give(Change { key, old, new });
                    }
                }
                // Memory follows the groups that there are.
                if groups.capacity() > GROUPS_MIN.max(8 * groups.len()) {
                    groups.shrink_to(2 * groups.len());
                }
            }
        }
    });
    stream
}

/// A table of fewer groups is not worth a smaller one.
const GROUPS_MIN: usize = 1 << 10;

impl<T: Record, S: Clone> Group<T, S> {
    fn new<F: Aggregate<T, State = S>>(fold: &F) -> Self {
        if fold.undoes() {
            Group::State(fold.empty(), 0)
        } else {
            Group::Values(Values::new(fold))
        }
    }

    /// Its row, unless it is empty.
    fn result<F: Aggregate<T, State = S>>(&self, fold: &F) -> Option<F::Out> {
        match self {
            Group::State(_, 0) => None,
            Group::State(state, _) => Some(fold.finish(state)),
            Group::Values(values) if values.is_empty() => None,
            Group::Values(values) => Some(fold.finish(values.state())),
        }
    }

    /// Applies an epoch's net updates; `false` if more is taken out than there is.
    fn apply<F: Aggregate<T, State = S>>(
        &mut self,
        fold: &F,
        updates: impl Iterator<Item = (T, isize)>,
    ) -> bool {
        let (state, size) = match self {
            Group::State(state, size) => (state, size),
            Group::Values(values) => return values.apply(fold, updates),
        };
        for (value, diff) in updates {
            *size += diff;
            for _ in 0..diff {
                fold.add(state, &value);
            }
            for _ in diff..0 {
                fold.undo(state, &value);
            }
        }
        *size >= 0
    }
}

fn negative<K: std::fmt::Debug>(step: &str, epoch: Epoch, key: &K) -> Error {
    Error::integrity(format!(
        "`{step}` was asked to take out a value that is not there"
    ))
    .detail(format!("group {key:?}, in epoch {epoch}"))
    .hint("a closure before this step gives different results for the same row: make it a pure function")
}
