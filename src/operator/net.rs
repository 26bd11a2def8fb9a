//! Turns the updates of a collection into the net change of each key, as views and keyed sinks consume it.

use std::collections::BTreeMap;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::bridge::Halt;
use crate::operator::epoch_cursor::{EpochBuffer, Update};
use crate::operator::exchange::{RoutedInput, pack};
use crate::operator::group::several_rows;
use crate::record::{Change, Record, route};
use crate::time::Epoch;

/// Sums up each key's updates of an epoch on the worker that owns the key. A key whose net change is more
/// than one row violates the contract of a table and halts the service, naming the step.
pub(crate) fn net<'s, K: Record, V: Record>(
    rows: StreamVec<'s, Epoch, Update<(K, V)>>,
    name: &str,
    halt: Halt,
) -> StreamVec<'s, Epoch, Change<K, V>> {
    let step = name.to_owned();
    let by_key = |((key, _), _, _): &Update<(K, V)>| route(key);
    let routed_batches = pack(rows, name, by_key);
    let mut builder = OperatorBuilder::new(name.to_owned(), routed_batches.scope());
    let mut input = RoutedInput::new(&mut builder, routed_batches);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<Change<K, V>>>>::from(output);
    builder.build(move |_| {
        let mut arrivals = EpochBuffer::<Vec<Update<(K, V)>>>::new();
        move |frontiers| {
            let mut output = output.activate();
            arrivals.gather_updates(&mut input);
            while let Some((epoch, capability, batches)) = arrivals.next(&frontiers[0]) {
                let mut sums: BTreeMap<(K, V), isize> = BTreeMap::new();
                for (row, _, diff) in batches.into_iter().flatten() {
                    *sums.entry(row).or_default() += diff;
                }
                let mut session = output.session(&capability);
                let mut open: Option<Change<K, V>> = None;
                for ((key, value), diff) in sums.into_iter().filter(|(_, diff)| *diff != 0) {
                    if open.as_ref().is_some_and(|change| change.key != key) {
                        session.give(open.take().expect("just seen"));
                    }
                    let change = open.get_or_insert_with(|| Change {
                        key,
                        old: None,
                        new: None,
                    });
                    let side = if diff > 0 {
                        &mut change.new
                    } else {
                        &mut change.old
                    };
                    if diff.abs() != 1 || side.is_some() {
                        halt.halt(several_rows(&step, epoch, &change.key));
                        return;
                    }
                    *side = Some(value);
                }
                if let Some(change) = open {
                    session.give(change);
                }
            }
        }
    });
    stream
}
