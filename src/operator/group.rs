//! Operators over the groups of a collection, whose rows may be retracted.
//!
//! ```text
//!   rows ═ by key ═▶ net updates of an epoch ─ group by group ─▶ its state ─▶ what changed of its rows
//! ```
//!
//! A [`Grouping`] defines the state of a group and its rows: an [aggregate](aggregate), the [first rows](top)
//! in an order, [any function](reduce) of its rows, or [the single row](unique).

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::rc::Rc;

use differential_dataflow::consolidation::consolidate_updates;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::bridge::Halt;
use crate::error::Error;
use crate::operator::epoch_cursor::{EpochBuffer, Update};
use crate::operator::exchange::{RoutedInput, pack};
use crate::panic_context;
use crate::record::{Change, Record, route};
use crate::time::Epoch;

pub(crate) mod aggregate;
pub(crate) mod reduce;
pub(crate) mod top;
pub(crate) mod unique;
mod values;

/// The state of each group, and the rows that result from it.
pub(crate) trait Grouping<K: Record, T: Record>: 'static {
    /// The state of a group that has rows.
    type State: 'static;
    /// The key of a result row. Must hash like the group's key.
    type Key: Record;
    /// The value of a result row.
    type Value: Record;

    /// The state of an empty group.
    fn empty(&self) -> Self::State;

    /// Applies an epoch's net updates to a group: one update per row, none of them zero. Outputs the changes
    /// of the result rows, at most one per key. Returns whether the group has rows left.
    fn apply(
        &self,
        key: &K,
        state: &mut Self::State,
        updates: &mut dyn Iterator<Item = (T, isize)>,
        give: &mut dyn FnMut(Change<Self::Key, Self::Value>),
    ) -> Result<bool, InvalidGroup>;
}

/// Why updates are inconsistent with a group.
pub(crate) enum InvalidGroup {
    /// More of a row is retracted than the group holds.
    Negative,
    /// A table's key has several rows.
    SeveralRows,
}

/// Applies a collection's updates to its groups. `work` names the step in panic messages: ``aggregate `spend`
/// ``.
pub(crate) fn group<'s, K: Record, T: Record, G: Grouping<K, T>>(
    rows: StreamVec<'s, Epoch, Update<(K, T)>>,
    (name, work): (&str, &str),
    grouping: G,
    halt: Halt,
) -> StreamVec<'s, Epoch, Change<G::Key, G::Value>> {
    let by_key = |((key, _), _, _): &Update<(K, T)>| route(key);
    let routed_batches = pack(rows, name, by_key);
    let step = name.to_owned();
    let label: Rc<str> = format!("{work} `{name}`").into();
    let mut builder = OperatorBuilder::new(name.to_owned(), routed_batches.scope());
    let mut input = RoutedInput::new(&mut builder, routed_batches);
    let (output, stream) = builder.new_output();
    let mut output =
        OutputBuilder::<_, CapacityContainerBuilder<Vec<Change<G::Key, G::Value>>>>::from(output);
    builder.build(move |_| {
        let mut arrivals = EpochBuffer::<Vec<Update<(K, T)>>>::new();
        // By order: all windows of a key hash alike.
        let mut groups: BTreeMap<K, G::State> = BTreeMap::new();
        move |frontiers| {
            let mut output = output.activate();
            arrivals.gather_updates(&mut input);
            let _work = panic_context::enter(&label);
            while let Some((epoch, capability, batches)) = arrivals.next(&frontiers[0]) {
                let mut updates: Vec<_> = batches.into_iter().flatten().collect();
                consolidate_updates(&mut updates);
                let mut updates = updates.into_iter().peekable();
                let mut session = output.session(&capability);
                while let Some(((key, _), ..)) = updates.peek() {
                    let key = key.clone();
                    let group = groups.entry(key.clone()).or_insert_with(|| grouping.empty());
                    let own = || updates.next_if(|((other, _), ..)| *other == key);
                    let mut own = std::iter::from_fn(own).map(|((_, value), _, diff)| (value, diff));
                    match grouping.apply(&key, group, &mut own, &mut |change| session.give(change)) {
                        Ok(true) => {}
                        Ok(false) => _ = groups.remove(&key),
                        Err(broken) => return halt.halt(broken.error(&step, epoch, &key)),
                    }
                }
            }
        }
    });
    stream
}

impl InvalidGroup {
    fn error(self, step: &str, epoch: Epoch, key: &dyn Debug) -> Error {
        match self {
            InvalidGroup::Negative => Error::integrity(format!(
                "`{step}` received the retraction of a value that it does not hold"
            ))
            .detail(format!("group {key:?}, epoch {epoch}"))
            .hint("a closure upstream returns different results for the same row: make it a pure function"),
            InvalidGroup::SeveralRows => several_rows(step, epoch, key),
        }
    }
}

/// The error for a table with several rows per key.
pub(crate) fn several_rows(step: &str, epoch: Epoch, key: &dyn Debug) -> Error {
    Error::integrity(format!("`{step}` has more than one row for a key"))
        .detail(format!("key {key:?}, epoch {epoch}"))
        .hint(
            "a table holds at most one row per key: extend the key, or group by it and reduce each group \
             with `aggregate` or `top_k`",
        )
}
