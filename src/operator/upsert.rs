//! Turns a log of keyed records into a table: the last record of a key wins, one without a value deletes.

use std::marker::PhantomData;
use std::rc::Rc;

use timely::dataflow::StreamVec;

use crate::checkpoint::keyed::{HashStore, KeyedState};
use crate::operator::exchange::pack;
use crate::operator::process::{Batch, Changes, EpochInfo, Operator, Setup, process};
use crate::record::{Change, Record, Timed, route};
use crate::time::Epoch;

/// Keeps the current row of every key. "Last" is by epoch, partition and offset: the order of the log, never
/// event time.
pub(crate) fn upsert<'s, K: Record, V: Record>(
    records: StreamVec<'s, Epoch, Timed<(K, Option<V>)>>,
    setup: Setup<Timed<(K, Option<V>)>>,
) -> StreamVec<'s, Epoch, Change<K, V>> {
    let by_key = |record: &Timed<(K, Option<V>)>| route(&record.value.0);
    let routed_batches = pack(records, &setup.name, by_key);
    process(routed_batches, Rc::new(Upsert(PhantomData)), setup).0
}

struct Upsert<K, V>(PhantomData<(K, V)>);

impl<K: Record, V: Record> Operator for Upsert<K, V> {
    type Input = Timed<(K, Option<V>)>;
    type Key = K;
    type Value = V;
    type State = HashStore<K, V>;

    fn data(
        &self,
        _at: &EpochInfo,
        input: Batch<Self::Input>,
        state: &mut KeyedState<Self::State>,
        changes: &mut Changes<K, V>,
    ) {
        let mut records: Vec<_> = input.into_iter().collect();
        records.sort_by(|a, b| (&a.value.0, a.at).cmp(&(&b.value.0, b.at)));
        let mut records = records.into_iter().peekable();
        while let Some(record) = records.next() {
            let (key, value) = record.value;
            if records.peek().is_some_and(|next| next.value.0 == key) {
                continue; // A later record of the same key follows.
            }
            let old = match &value {
                Some(value) => state.put(key.clone(), value.clone()),
                None => state.remove(&key),
            };
            if old != value {
                changes.once(key, old, value);
            }
        }
    }

    fn rows(&self, state: &KeyedState<Self::State>, mut row: impl FnMut(K, V)) {
        for (key, value) in state.entries().iter() {
            row(key.clone(), value.clone());
        }
    }
}
