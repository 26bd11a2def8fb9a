//! Aggregates over the groups of a collection, which may retract.
//!
//! An aggregate that can be undone (count, sum, average) keeps one state a group. One that can't (minimum, maximum) also
//! keeps the group's values, and is folded anew when one of them goes.

use std::collections::BTreeMap;
use std::rc::Rc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::bridge::Halt;
use crate::error::Error;
use crate::operator::walk::Arrivals;
use crate::operator::window::Fold;
use crate::record::{Change, Record, route, worker_bits};
use crate::time::Epoch;

/// A fold whose steps may be undone.
pub trait Unfold<T>: Fold<T> {
    /// Takes one value out that was folded in before; `false`: this aggregate can't, and the state is as it was.
    fn undo(&self, state: &mut Self::State, value: &T) -> bool;
}

type Update<K, T> = ((K, T), Epoch, isize);

struct Group<S, T> {
    state: S,
    size: isize,
    /// Empty as long as every retraction could be undone.
    values: BTreeMap<T, isize>,
}

/// Groups by key and aggregates each group; a group without values has no row.
///
/// `undoable` says whether the fold can undo every value; if not, values are kept.
pub fn group<'s, K: Record, T: Record, F: Unfold<T>>(
    rows: StreamVec<'s, Epoch, Update<K, T>>,
    name: &str,
    fold: Rc<F>,
    undoable: bool,
    halt: Halt,
) -> StreamVec<'s, Epoch, Change<K, F::Out>> {
    let by_key = Exchange::new(|((key, _), _, _): &Update<K, T>| worker_bits(route(key)));
    let step = name.to_owned();
    rows.unary_frontier::<CapacityContainerBuilder<Vec<Change<K, F::Out>>>, _, _, _>(by_key, name, move |_, _| {
        let mut arrivals = Arrivals::new();
        let mut groups: HashMap<K, Group<F::State, T>, FixedState> = HashMap::default();
        move |(input, frontier), output| {
            arrivals.gather(input);
            while let Some((epoch, capability, batches)) = arrivals.next(frontier) {
                let mut updates: BTreeMap<K, BTreeMap<T, isize>> = BTreeMap::new();
                for ((key, value), _, diff) in batches.into_iter().flatten() {
                    *updates.entry(key).or_default().entry(value).or_default() += diff;
                }
                let mut session = output.session(&capability);
                for (key, values) in updates {
                    let group = groups.entry(key.clone()).or_insert_with(|| Group {
                        state: fold.empty(),
                        size: 0,
                        values: BTreeMap::new(),
                    });
                    let old = (group.size > 0).then(|| fold.finish(&group.state));
                    if !group.apply(&*fold, values, undoable) {
                        halt.halt(negative(&step, epoch, &key));
                        return;
                    }
                    let new = (group.size > 0).then(|| fold.finish(&group.state));
                    if group.size == 0 {
                        groups.remove(&key);
                    }
                    if old != new {
                        session.give(Change { key, old, new });
                    }
                }
            }
        }
    })
}

impl<S, T: Record> Group<S, T> {
    /// Applies an epoch's net updates; `false` if more is taken out than there is.
    fn apply<F: Unfold<T, State = S>>(&mut self, fold: &F, updates: BTreeMap<T, isize>, undoable: bool) -> bool {
        let mut refold = false;
        for (value, diff) in updates {
            self.size += diff;
            for _ in 0..diff {
                fold.add(&mut self.state, &value);
            }
            for _ in diff..0 {
                refold |= !fold.undo(&mut self.state, &value);
            }
            if !undoable && diff != 0 {
                let count = self.values.entry(value.clone()).or_default();
                *count += diff;
                match (*count).cmp(&0) {
                    std::cmp::Ordering::Less => return false,
                    std::cmp::Ordering::Equal => {
                        self.values.remove(&value);
                    }
                    std::cmp::Ordering::Greater => {}
                }
            }
        }
        if refold {
            self.state = fold.empty();
            for (value, count) in &self.values {
                for _ in 0..*count {
                    fold.add(&mut self.state, value);
                }
            }
        }
        self.size >= 0
    }
}

fn negative<K: std::fmt::Debug>(step: &str, epoch: Epoch, key: &K) -> Error {
    Error::integrity(format!("`{step}` was asked to take out a value that is not there"))
        .detail(format!("group {key:?}, in epoch {epoch}"))
        .hint("a closure before this step gives different results for the same row: make it a pure function")
}
