//! From a log of keyed records to a table: the last record of a key wins, one without a value deletes.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::operator::walk::Arrivals;
use crate::record::{Change, Record, Timed, route, worker_bits};
use crate::time::Epoch;

/// Keeps the current row of every key. "Last" is by epoch, partition and offset: the log's order, never event time.
pub fn upsert<'s, K: Record, V: Record>(
    records: StreamVec<'s, Epoch, Timed<(K, Option<V>)>>,
    name: &str,
) -> StreamVec<'s, Epoch, Change<K, V>> {
    let by_key = Exchange::new(|record: &Timed<(K, Option<V>)>| worker_bits(route(&record.value.0)));
    records.unary_frontier::<CapacityContainerBuilder<Vec<Change<K, V>>>, _, _, _>(
        by_key,
        name,
        move |_, _| {
            let mut arrivals = Arrivals::new();
            let mut rows: HashMap<K, V, FixedState> = HashMap::default();
            move |(input, frontier), output| {
                arrivals.gather(input);
                while let Some((_, capability, batches)) = arrivals.next(frontier) {
                    let mut records: Vec<_> = batches.into_iter().flatten().collect();
                    records.sort_by(|a, b| (&a.value.0, a.at).cmp(&(&b.value.0, b.at)));
                    let mut session = output.session(&capability);
                    let mut records = records.into_iter().peekable();
                    while let Some(record) = records.next() {
                        let (key, value) = record.value;
                        if records.peek().is_some_and(|next| next.value.0 == key) {
                            continue; // A later record of the same key follows.
                        }
                        let old = match &value {
                            Some(value) => rows.insert(key.clone(), value.clone()),
                            None => rows.remove(&key),
                        };
                        if old != value {
                            session.give(Change { key, old, new: value });
                        }
                    }
                }
            }
        },
    )
}
