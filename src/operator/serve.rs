//! Applies the changes of a keyed table to this worker's shard of a view.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::bridge::Halt;
use crate::checkpoint::state_handle::StateHandle;
use crate::fault;
use crate::metrics::Counter;
use crate::record::{Change, Record};
use crate::time::Epoch;
use crate::view::batch::ChangeBatch;
use crate::view::writer::ViewWriter;

/// Applies changes as they arrive. They stay invisible until the epoch closes, which is when `probe` has
/// passed it; timely guarantees that every worker has applied its part by then.
pub(crate) fn serve<'s, K: Record, V: Record>(
    changes: StreamVec<'s, Epoch, Change<K, V>>,
    name: &str,
    writer: ViewWriter<K, V>,
    applied: Counter,
    probe: &Handle<Epoch>,
    handle: &StateHandle,
    halt: Halt,
) {
    let restored = handle.held();
    let (encoder, shard) = writer.keep(handle);
    let mut batch = ChangeBatch::default();
    let applied_changes =
        changes.unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, name, move |_, _| {
            move |input, _output| {
                input.for_each(|capability, data| {
                    let epoch = *capability
                        .least()
                        .expect("changes travel under their epoch's capability");
                    // The shard already has the rows up to there: re-emitted rows are meant for others, such
                    // as new views.
                    if restored.is_none_or(|restored| epoch > restored) {
                        applied.inc_by(data.len() as u64);
                        let mut changes = data.drain(..);
                        loop {
                            match encoder.encode(&mut changes, &mut batch) {
                                Ok(true) => shard.at(epoch).apply(epoch, &mut batch),
                                Ok(false) => break,
                                Err(error) => {
                                    halt.halt(error);
                                    break;
                                }
                            }
                        }
                        fault::point("epoch.applied");
                    }
                    data.clear();
                });
            }
        });
    watch(applied_changes, probe);
}

/// Attaches the probe to the stream of applied changes. Compiled once.
fn watch(applied: StreamVec<'_, Epoch, ()>, probe: &Handle<Epoch>) {
    applied.probe_with(probe);
}
