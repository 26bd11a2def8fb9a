//! Joins of tables: each row of one table with the row of the other that it references.
//!
//! ```text
//!   left   ─ by the key that each row names ─▶ parcels ═╗    groups   named key ─▶ partner, keys of the rows that name it
//!   right  ─ by key ─────────────────────────▶ parcels ═╩═▶  rows     key ─▶ value                  ─▶ net changes by key
//! ```
//!
//! A change of a row costs the logarithm of both tables' sizes; a change of a partner costs the rows that
//! reference it. Both tables are held once, by key. Differential's join keeps sorted batches because times
//! may be partially ordered, as in loops; the epochs of a table are totally ordered, and without batches a
//! crate of joins compiles two fifths less code.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::operator::Operator;

use crate::bridge::Halt;
use crate::error::Error;
use crate::operator::epoch_cursor::{EpochBuffer, Update};
use crate::operator::exchange::{RoutedBatch, RoutedBatchBuilder, RoutedInput, both};
use crate::panic_context;
use crate::record::{Change, Record, route};
use crate::time::Epoch;

type Changes<'s, K, V> = StreamVec<'s, Epoch, Change<K, V>>;
/// Ordered: all windows of a key hash alike, and a hash table would probe them one by one.
type Map<K, V> = BTreeMap<K, V>;

/// The definition of a join, besides its two tables.
pub(crate) struct JoinSpec<On, Row> {
    /// The step's name.
    pub name: String,
    /// The key that a row of the left table references.
    pub on: On,
    /// The result row, if any, of the left row and its partner, one of which may be missing.
    pub row: Row,
    pub halt: Halt,
}

/// An update for the worker of a referenced key.
#[derive(Clone, Serialize, Deserialize)]
enum JoinUpdate<K, V, K2, V2> {
    /// The left row of a key, in the group of the key that it references.
    Left(K2, K, Option<V>),
    Right(K2, Option<V2>),
}

/// Joins two tables. `alone` creates the left key of a partner that no row references, for joins that emit
/// those: both keys are the same then.
///
/// Changes are output on the worker of the referenced key. A key whose row switches to another partner may
/// have two changes: one at the old partner, one at the new.
pub(crate) fn join<'s, K: Record, V: Record, K2: Record, V2: Record, R: Record>(
    left: Changes<'s, K, V>,
    right: Changes<'s, K2, V2>,
    spec: JoinSpec<
        impl Fn(&K, &V) -> K2 + 'static,
        impl Fn(&K, Option<&V>, Option<&V2>) -> Option<R> + 'static,
    >,
    alone: Option<fn(&K2) -> K>,
) -> Changes<'s, K, R> {
    let JoinSpec { name, on, row, halt } = spec;
    let label: Rc<str> = format!("join `{name}`").into();
    let left = by_named_key::<K, V, K2, V2>(left, &name, label.clone(), on);
    let routed_batches = both(left, by_key::<K, V, K2, V2>(right, &name));
    let mut builder = OperatorBuilder::new(name.clone(), routed_batches.scope());
    let mut input = RoutedInput::new(&mut builder, routed_batches);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Change<K, R>>>>::from(output);
    builder.build(move |_| {
        let mut arrivals = EpochBuffer::<Vec<JoinUpdate<K, V, K2, V2>>>::new();
        let mut tables = JoinTables::new(alone);
        move |frontiers| {
            let mut output = output.activate();
            arrivals.gather_batches(&mut input);
            let _work = panic_context::enter(&label);
            while let Some((epoch, capability, batches)) = arrivals.next(&frontiers[0]) {
                let mut session = output.session(&capability);
                let given = tables.apply(batches, &row, &mut |change| session.give(change));
                if let Err(key) = given {
                    halt.halt(unknown(&name, epoch, &key));
                    return;
                }
            }
        }
    });
    stream
}

/// Left rows for the keys that they reference.
fn by_named_key<'s, K: Record, V: Record, K2: Record, V2: Record>(
    changes: Changes<'s, K, V>,
    name: &str,
    label: Rc<str>,
    on: impl Fn(&K, &V) -> K2 + 'static,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    sides(changes, name, move |Change { key, old, new }, give| {
        let _work = panic_context::enter(&label);
        let (from, to) = (
            old.map(|old| on(&key, &old)),
            new.as_ref().map(|new| on(&key, new)),
        );
        if from != to
            && let Some(from) = from
        {
            give(
                route(&from),
                JoinUpdate::<K, V, K2, V2>::Left(from, key.clone(), None),
            );
        }
        if let Some(to) = to {
            give(route(&to), JoinUpdate::Left(to, key, new));
        }
    })
}

fn by_key<'s, K: Record, V: Record, K2: Record, V2: Record>(
    changes: Changes<'s, K2, V2>,
    name: &str,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    sides(changes, name, move |Change { key, new, .. }, give| {
        give(route(&key), JoinUpdate::<K, V, K2, V2>::Right(key, new));
    })
}

/// Packs the results of `each` over changes, by route.
fn sides<'s, K: Record, V: Record, S: timely::ExchangeData>(
    changes: Changes<'s, K, V>,
    name: &str,
    each: impl Fn(Change<K, V>, &mut dyn FnMut(u64, S)) + 'static,
) -> StreamVec<'s, Epoch, RoutedBatch> {
    type Builder = CapacityContainerBuilder<Vec<RoutedBatch>>;
    let mut packer = RoutedBatchBuilder::<S>::new(changes.scope().peers());
    let name = format!("{name}: pack");
    changes.unary::<Builder, _, _, _>(Pipeline, &name, move |_, _| {
        move |input, output| {
            input.for_each(|capability, changes| {
                let mut session = output.session(&capability);
                for change in changes.drain(..) {
                    each(change, &mut |route, side| {
                        packer
                            .push(route, side)
                            .into_iter()
                            .for_each(|full| session.give(full));
                    });
                }
                session.give_iterator(packer.rest());
            });
        }
    })
}

/// This worker's share of both tables.
struct JoinTables<K, V, K2, V2> {
    rows: Map<K, LeftRow<V>>,
    groups: Map<K2, RightGroup<K, V2>>,
    alone: Option<fn(&K2) -> K>,
}

/// A left row, and its index among the keys of its group.
struct LeftRow<V> {
    value: V,
    at: usize,
}

/// A key of the right table, and the left keys that reference it.
struct RightGroup<K, V2> {
    partner: Option<V2>,
    keys: Vec<K>,
}

impl<K: Record, V: Record, K2: Record, V2: Record> JoinTables<K, V, K2, V2> {
    fn new(alone: Option<fn(&K2) -> K>) -> Self {
        let (rows, groups) = (Map::default(), Map::default());
        Self { rows, groups, alone }
    }

    /// Applies an epoch's updates and outputs the changes of rows. The error is the key of a left row that
    /// was retracted from a group that does not contain it.
    fn apply<R: Record>(
        &mut self,
        batches: Vec<Vec<JoinUpdate<K, V, K2, V2>>>,
        row: &impl Fn(&K, Option<&V>, Option<&V2>) -> Option<R>,
        give: &mut dyn FnMut(Change<K, R>),
    ) -> Result<(), K> {
        let (mut partners, mut come) = (Map::<K2, Option<V2>>::default(), Vec::new());
        let mut gone = Vec::new();
        for side in batches.into_iter().flatten() {
            match side {
                JoinUpdate::Left(named, key, Some(value)) => come.push((named, key, Some(value))),
                JoinUpdate::Left(named, key, None) => gone.push((named, key, None)),
                JoinUpdate::Right(named, partner) => _ = partners.insert(named, partner),
            }
        }
        let mut give = |key: K, old: Option<R>, new: Option<R>| {
            if old != new {
                give(Change { key, old, new });
            }
        };
        // Left rows whose partners change as well are emitted once, with both changes.
        let mut done = BTreeSet::<K>::new();
        // A row that switches to another partner leaves its group before it joins the other.
        for (named, key, value) in gone.into_iter().chain(come) {
            let new_partner = partners.get(&named);
            if new_partner.is_some() {
                done.insert(key.clone());
            }
            let leaves = value.is_none();
            let (old, new) = (self.put(&named, &key, value)?, self.rows.get(&key));
            let old_partner = self.groups.get(&named).and_then(|group| group.partner.as_ref());
            let new_partner = new_partner.map_or(old_partner, Option::as_ref);
            let before = row(&key, old.as_ref(), old_partner);
            let after = row(&key, new.map(|row| &row.value), new_partner);
            give(key, before, after);
            if leaves {
                self.forget(&named);
            }
        }
        for (named, new) in partners {
            let empty = || RightGroup {
                partner: None,
                keys: Vec::new(),
            };
            let group = self.groups.entry(named.clone()).or_insert_with(empty);
            let old = std::mem::replace(&mut group.partner, new);
            let (old, new) = (old.as_ref(), group.partner.as_ref());
            for key in group.keys.iter().filter(|key| !done.contains(*key)) {
                let value = self.rows.get(key).map(|row| &row.value);
                give(key.clone(), row(key, value, old), row(key, value, new));
            }
            if let Some(key) = self.alone.map(|alone| alone(&named))
                && group.keys.is_empty()
                && !done.contains(&key)
            {
                let (before, after) = (row(&key, None, old), row(&key, None, new));
                give(key, before, after);
            }
            self.forget(&named);
        }
        Ok(())
    }

    /// Inserts a left row into the group of the key that it references, or removes it. Returns the previous
    /// row.
    fn put(&mut self, named: &K2, key: &K, value: Option<V>) -> Result<Option<V>, K> {
        if let Some(value) = value {
            if let Some(row) = self.rows.get_mut(key) {
                return Ok(Some(std::mem::replace(&mut row.value, value)));
            }
            let new = || RightGroup {
                partner: None,
                keys: Vec::with_capacity(1),
            };
            let group = self.groups.entry(named.clone()).or_insert_with(new);
            self.rows.insert(
                key.clone(),
                LeftRow {
                    value,
                    at: group.keys.len(),
                },
            );
            group.keys.push(key.clone());
            return Ok(None);
        }
        let (row, group) = (self.rows.remove(key), self.groups.get_mut(named));
        let (Some(LeftRow { value, at }), Some(group)) = (row, group) else {
            return Err(key.clone());
        };
        if group.keys.get(at) != Some(key) {
            return Err(key.clone());
        }
        // The last one takes its index.
        group.keys.swap_remove(at);
        if let Some(moved) = group.keys.get(at).and_then(|moved| self.rows.get_mut(moved)) {
            moved.at = at;
        }
        if group.keys.capacity() > KEYS_MIN.max(4 * group.keys.len()) {
            group.keys.shrink_to(2 * group.keys.len());
        }
        Ok(Some(value))
    }

    /// Drops a group that has neither rows nor a partner.
    fn forget(&mut self, named: &K2) {
        let is_empty = |group: &RightGroup<K, V2>| group.partner.is_none() && group.keys.is_empty();
        if self.groups.get(named).is_some_and(is_empty) {
            self.groups.remove(named);
        }
    }
}

/// Lists with fewer keys are not shrunk.
const KEYS_MIN: usize = 16;

fn unknown<K: std::fmt::Debug>(step: &str, epoch: Epoch, key: &K) -> Error {
    Error::integrity(format!(
        "`{step}` received the retraction of a row that it does not hold"
    ))
    .detail(format!("key {key:?}, epoch {epoch}"))
    .hint(
        "the closure that returns the other table's key gives different keys for the same row: make \
             it a pure function",
    )
}

/// Converts changes into updates of a collection.
pub(crate) fn updates<'s, K: Record, V: Record>(
    changes: Changes<'s, K, V>,
) -> StreamVec<'s, Epoch, Update<(K, V)>> {
    type Builder<K, V> = CapacityContainerBuilder<Vec<Update<(K, V)>>>;
    changes.unary::<Builder<K, V>, _, _, _>(Pipeline, "rows", move |_, _| {
        move |input, output| {
            input.for_each(|capability, data| {
                let epoch = *capability
                    .least()
                    .expect("changes travel under their epoch's capability");
                let mut session = output.session(&capability);
                for Change { key, old, new } in data.drain(..) {
                    if let Some(old) = old {
                        session.give(((key.clone(), old), epoch, -1));
                    }
                    if let Some(new) = new {
                        session.give(((key, new), epoch, 1));
                    }
                }
            });
        }
    })
}
