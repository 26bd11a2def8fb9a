//! Looks up each event's row in a table, as of the event's epoch.
//!
//! ```text
//!   events        ──▶ admit ─┐
//!                            ├═ exchange by key ═▶ changes of epoch n ─▶ rows ─▶ events of epoch n
//!   table changes ──▶ pack  ─┘
//! ```
//!
//! No checkpoint holds the rows: after a restore the table re-emits them.

use std::rc::Rc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::operator::epoch_cursor::EpochBuffer;
use crate::operator::exchange::{RoutedBatch, RoutedInput};
use crate::operator::interval_join::JoinInput;
use crate::panic_context;
use crate::record::{Change, Event, Record, Timed};
use crate::time::Epoch;

/// A keyed event, or a change of the table.
pub(crate) type LookupInput<K, T, V> = JoinInput<(K, Timed<T>), Change<K, V>>;

/// Turns an event and its row into an event.
pub(crate) type Enrich<K, T, V, O> = Rc<dyn Fn(&K, T, Option<&V>) -> O>;

/// Tables with capacity for fewer rows are not shrunk.
const ROOM_MIN: usize = 1 << 10;

/// Adds the operator to a dataflow; `routed_batches` contain [`LookupInput`]s.
pub(crate) fn lookup<'s, K: Record, T: Event, V: Record, O: Event>(
    routed_batches: StreamVec<'s, Epoch, RoutedBatch>,
    name: &str,
    enrich: Enrich<K, T, V, O>,
) -> StreamVec<'s, Epoch, Timed<O>> {
    type Builder<O> = CapacityContainerBuilder<Vec<Timed<O>>>;
    let label: Rc<str> = format!("lookup `{name}`").into();
    let mut builder = OperatorBuilder::new(name.to_owned(), routed_batches.scope());
    let mut input = RoutedInput::new(&mut builder, routed_batches);
    let (output, stream) = builder.new_output();
    let mut output = OutputBuilder::<_, Builder<O>>::from(output);
    builder.build(move |_capabilities| {
        let mut arrivals = EpochBuffer::<Vec<LookupInput<K, T, V>>>::new();
        let mut rows: HashMap<K, V, FixedState> = HashMap::default();
        move |frontiers| {
            let mut output = output.activate();
            arrivals.gather_batches(&mut input);
            let _work = panic_context::enter(&label);
            while let Some((_, capability, batches)) = arrivals.next(&frontiers[0]) {
                let mut events = Vec::new();
                for input in batches.into_iter().flatten() {
                    match input {
                        JoinInput::Left(event) => events.push(event),
                        JoinInput::Right(Change {
                            key, new: Some(new), ..
                        }) => _ = rows.insert(key, new),
                        JoinInput::Right(Change { key, .. }) => _ = rows.remove(&key),
                    }
                }
                let mut session = output.session(&capability);
                for (
                    key,
                    Timed {
                        value,
                        time,
                        horizon,
                        at,
                    },
                ) in events
                {
                    panic_context::at_record(at);
                    let value = enrich(&key, value, rows.get(&key));
                    session.give(Timed {
                        value,
                        time,
                        horizon,
                        at,
                    });
                }
                if rows.capacity() > ROOM_MIN.max(8 * rows.len()) {
                    rows.shrink_to(2 * rows.len());
                }
            }
        }
    });
    stream
}
