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
use crate::operator::aggregate::Aggregate;
use crate::operator::walk::{Arrivals, Update};
use crate::record::{Change, Record, route, worker_bits};
use crate::time::Epoch;
use crate::trail;

struct Group<S, T> {
    state: S,
    size: isize,
    /// Only kept where the aggregate can't undo.
    values: BTreeMap<T, isize>,
}

/// Groups by key and aggregates each group; a group without values has no row.
pub fn group<'s, K: Record, T: Record, F: Aggregate<T>>(
    rows: StreamVec<'s, Epoch, Update<(K, T)>>,
    name: &str,
    fold: Rc<F>,
    halt: Halt,
) -> StreamVec<'s, Epoch, Change<K, F::Out>> {
    let by_key = Exchange::new(|((key, _), _, _): &Update<(K, T)>| worker_bits(route(key)));
    let step = name.to_owned();
    let label: Rc<str> = format!("aggregate `{name}`").into();
    rows.unary_frontier::<CapacityContainerBuilder<Vec<Change<K, F::Out>>>, _, _, _>(
        by_key,
        name,
        move |_, _| {
            let mut arrivals = Arrivals::new();
            let mut groups: HashMap<K, Group<F::State, T>, FixedState> = HashMap::default();
            move |(input, frontier), output| {
                arrivals.gather_updates(input);
                let _work = trail::begin(&label);
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
                        if !group.apply(&*fold, values) {
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
        },
    )
}

impl<S, T: Record> Group<S, T> {
    /// Applies an epoch's net updates; `false` if more is taken out than there is.
    fn apply<F: Aggregate<T, State = S>>(&mut self, fold: &F, updates: BTreeMap<T, isize>) -> bool {
        let (undoes, mut refold) = (fold.undoes(), false);
        for (value, diff) in updates {
            self.size += diff;
            for _ in 0..diff {
                fold.add(&mut self.state, &value);
            }
            for _ in diff..0 {
                if undoes {
                    fold.undo(&mut self.state, &value);
                } else {
                    refold = true;
                }
            }
            if !undoes && diff != 0 {
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
    Error::integrity(format!(
        "`{step}` was asked to take out a value that is not there"
    ))
    .detail(format!("group {key:?}, in epoch {epoch}"))
    .hint("a closure before this step gives different results for the same row: make it a pure function")
}
