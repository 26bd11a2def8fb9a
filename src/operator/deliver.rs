//! Delivers each epoch's rows to a sink, once the epoch is complete and durable.
//!
//! ```text
//!   typed rows ── encode ─▶ rows ═ by shard ═▶ worker of the shard: gather by epoch ── frontier passed? room? ── sort ─▶ queue
//! ```

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::{Handle, Probe};

use crate::bridge::{Halt, Waker};
use crate::error::Result;
use crate::operator::epoch_cursor::{EpochBuffer, Update};
use crate::sink::Batch;
use crate::sink::queue::QueueProducer;
use crate::sink::row::{Row, sort};
use crate::time::Epoch;

/// Encodes rows, except those of epochs up to `complete`, which all shards already have.
pub(crate) fn encode<'s, R: Clone + 'static>(
    rows: StreamVec<'s, Epoch, R>,
    name: &str,
    complete: Option<Epoch>,
    mut encode: impl FnMut(&R) -> Result<Row> + 'static,
    halt: Halt,
) -> StreamVec<'s, Epoch, Row> {
    rows.unary::<CapacityContainerBuilder<Vec<Row>>, _, _, _>(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|capability, data| {
                let epoch = *capability
                    .least()
                    .expect("rows travel under their epoch's capability");
                if Some(epoch) > complete {
                    let mut session = output.session(&capability);
                    for row in data.iter() {
                        match encode(row) {
                            Ok(row) => session.give(row),
                            Err(error) => return halt.halt(error),
                        }
                    }
                }
                data.clear();
            });
        }
    })
}

/// Encodes the updates of a collection, each of which has its own epoch.
pub(crate) fn encode_updates<'s, D: Clone + 'static>(
    updates: StreamVec<'s, Epoch, Update<D>>,
    name: &str,
    complete: Option<Epoch>,
    mut encode: impl FnMut(&D, isize) -> Result<Row> + 'static,
    halt: Halt,
) -> StreamVec<'s, Epoch, Row> {
    updates.unary::<CapacityContainerBuilder<Vec<Row>>, _, _, _>(Pipeline, name, move |_, _| {
        move |input, output| {
            input.for_each(|capability, data| {
                data.sort_by_key(|(_, epoch, _)| *epoch);
                for some in data.chunk_by(|a, b| a.1 == b.1) {
                    let epoch = some[0].1;
                    if Some(epoch) <= complete {
                        continue;
                    }
                    let capability = capability.delayed(&epoch, 0);
                    let mut session = output.session(&capability);
                    for (row, _, diff) in some {
                        match encode(row, *diff) {
                            Ok(row) => session.give(row),
                            Err(error) => return halt.halt(error),
                        }
                    }
                }
                data.clear();
            });
        }
    })
}

/// The location of a sink's shards.
pub(crate) struct SinkShards<C> {
    pub count: u32,
    /// Number of workers that have shards: shard `s` is on worker `s % workers`. In a cluster, the workers of
    /// the process with the ledger.
    pub workers: usize,
    /// The epoch up to which each shard was complete at the start.
    pub complete: Vec<Option<Epoch>>,
    /// Connects a shard, on its worker; `None` if rows go nowhere.
    pub connect: C,
}

/// Gathers rows on the workers of their shards and queues them by epoch, in order. Skips rows that a shard
/// already has.
///
/// An epoch for which a shard's queue has no room stays open, and `probe` does not pass it.
pub(crate) fn deliver<'s>(
    rows: StreamVec<'s, Epoch, Row>,
    name: &str,
    shards: SinkShards<impl FnMut(u32, Waker) -> Option<QueueProducer>>,
    probe: &Handle<Epoch>,
) {
    let SinkShards {
        count,
        workers,
        complete,
        mut connect,
    } = shards;
    let scope = rows.scope();
    let worker = move |shard: u32| u64::from(shard) % workers as u64;
    let by_shard = Exchange::new(move |row: &Row| worker(row.shard()));
    let _end = rows
        .unary_frontier::<CapacityContainerBuilder<Vec<()>>, _, _, _>(by_shard, name, move |_, info| {
            let own = (0..count).filter(|shard| worker(*shard) == scope.index() as u64);
            let room = || Waker::of(scope.worker().sync_activator_for(info.address.to_vec()));
            let producers: Vec<QueueProducer> = own.filter_map(|shard| connect(shard, room())).collect();
            let mut arrivals = EpochBuffer::new();
            move |(input, frontier), _output| {
                arrivals.gather(input);
                while producers.iter().all(QueueProducer::has_room) {
                    let Some((epoch, _capability, batches)) = arrivals.next(frontier) else {
                        break;
                    };
                    put((&producers, workers), &complete, epoch, batches);
                }
            }
        })
        .probe_with(probe);
}

/// Queues an epoch.
fn put(
    (producers, workers): (&[QueueProducer], usize),
    complete: &[Option<Epoch>],
    epoch: Epoch,
    batches: Vec<Vec<Row>>,
) {
    let mut all: Vec<Vec<Row>> = producers.iter().map(|_| Vec::new()).collect();
    for row in batches.into_iter().flatten() {
        // The shards of a worker are `workers` apart.
        let at = row.shard() as usize / workers;
        if at < all.len() && Some(epoch) > complete[row.shard() as usize] {
            all[at].push(row);
        }
    }
    for (producer, mut rows) in producers.iter().zip(all) {
        sort(&mut rows);
        if !rows.is_empty() {
            producer.put(Batch { epoch, rows });
        }
    }
}
