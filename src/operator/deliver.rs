//! Hands what each epoch brought to a sink, once the epoch is complete and durable.

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::bridge::Waker;
use crate::operator::walk::Arrivals;
use crate::record::Event;
use crate::sink::Batch;
use crate::sink::courier::Outbox;
use crate::time::Epoch;

/// Gathers rows on the first worker and puts them out by epoch, in the order that `order` gives them, which may also make fewer of
/// them. Those up to `reached` the sink has. `connect` makes the way to it, on the one worker that needs it.
///
/// An epoch for which there is no room stays unfinished, and with it all that `probe` tells of.
pub fn deliver<'s, R: Event>(
    rows: StreamVec<'s, Epoch, R>,
    name: &str,
    mut order: impl FnMut(&mut Vec<R>) + 'static,
    reached: Option<Epoch>,
    connect: impl FnOnce(Waker) -> Option<Outbox<R>>,
    probe: &Handle<Epoch>,
) {
    let scope = rows.scope();
    let first = Exchange::new(|_: &R| 0);
    let _end = rows
        .unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(first, name, move |_, info| {
            let outbox = (scope.index() == 0).then(|| {
                connect(Waker::of(
                    scope.worker().sync_activator_for(info.address.to_vec()),
                ))
            });
            let outbox = outbox.flatten();
            let mut arrivals = Arrivals::new();
            move |(input, frontier), _output| {
                arrivals.gather(input);
                while outbox.as_ref().is_none_or(Outbox::has_room) {
                    let Some((epoch, _capability, batches)) = arrivals.next(frontier) else {
                        break;
                    };
                    let Some(outbox) = outbox.as_ref().filter(|_| reached < Some(epoch)) else {
                        continue;
                    };
                    let mut rows: Vec<R> = batches.into_iter().flatten().collect();
                    order(&mut rows);
                    if !rows.is_empty() {
                        outbox.put(Batch { epoch, rows });
                    }
                }
            }
        })
        .probe_with(probe);
}
