//! From a log of keyed records to a table: the last record of a key wins, one without a value deletes.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::keeper::{Keeper, Loader};
use crate::checkpoint::state::{Changed, Out, Stateful};
use crate::operator::again::{Again, Wanted};
use crate::operator::walk::Arrivals;
use crate::record::{Change, Record, Timed, route, worker_bits};
use crate::time::Epoch;

/// Keeps the current row of every key. "Last" is by epoch, partition and offset: the log's order, never event time.
pub fn upsert<'s, K: Record, V: Record>(
    records: StreamVec<'s, Epoch, Timed<(K, Option<V>)>>,
    name: &str,
    keeper: &Keeper,
    wanted: Wanted,
) -> StreamVec<'s, Epoch, Change<K, V>> {
    let by_key = Exchange::new(|record: &Timed<(K, Option<V>)>| worker_bits(route(&record.value.0)));
    let records_scope = records.scope();
    records.unary_frontier::<CapacityContainerBuilder<Vec<Change<K, V>>>, _, _, _>(
        by_key,
        name,
        |capability, info| {
            let mut arrivals = Arrivals::new();
            let activator = records_scope.activator_for(info.address);
            let mut again = Again::new(keeper.restored(), capability, activator, wanted);
            let kept = keeper.keep_loaded(Rows::new(keeper), load, |state, rows| state.rows = rows);
            move |(input, frontier), output| {
                arrivals.gather(input);
                again.emit(
                    || kept.at(Epoch::ZERO).all(),
                    |capability, rows| output.session(capability).give_container(rows),
                );
                while let Some((epoch, capability, batches)) = arrivals.next(frontier) {
                    let mut state = kept.at(epoch);
                    let mut records: Vec<_> = batches.into_iter().flatten().collect();
                    records.sort_by(|a, b| (&a.value.0, a.at).cmp(&(&b.value.0, b.at)));
                    let mut session = output.session(&capability);
                    let mut records = records.into_iter().peekable();
                    while let Some(record) = records.next() {
                        let (key, value) = record.value;
                        if records.peek().is_some_and(|next| next.value.0 == key) {
                            continue; // A later record of the same key follows.
                        }
                        let old = state.put(epoch, &key, value.as_ref());
                        if old != value {
                            session.give(Change { key, old, new: value });
                        }
                    }
                    state.give_back_room();
                }
            }
        },
    )
}

/// With the epoch of each row's last change.
type Held<K, V> = HashMap<K, (Epoch, V), FixedState>;

fn load<K: Record, V: Record>(loader: &Loader) -> Held<K, V> {
    let mut rows = Held::default();
    rows.reserve(loader.entries());
    loader.load(
        |key: &K| key,
        |entry| {
            match entry.value {
                Some(value) => rows.insert(entry.key, (entry.epoch, value)),
                None => rows.remove(&entry.key),
            };
        },
    );
    rows
}

/// A table with room for fewer rows is not worth a smaller one.
const ROOM_MIN: usize = 1 << 10;

struct Rows<K, V> {
    rows: Held<K, V>,
    changed: Changed<K>,
}

impl<K: Record, V: Record> Rows<K, V> {
    fn new(keeper: &Keeper) -> Self {
        Self {
            rows: HashMap::default(),
            changed: keeper.changed(),
        }
    }

    /// Every row as one that is new.
    fn all(&self) -> Vec<Change<K, V>> {
        let new = |(key, (_, value)): (&K, &(Epoch, V))| Change {
            key: key.clone(),
            old: None,
            new: Some(value.clone()),
        };
        self.rows.iter().map(new).collect()
    }

    /// Memory follows the rows that there are: a table whose rows were deleted becomes a small one.
    fn give_back_room(&mut self) {
        let rows = self.rows.len();
        if self.rows.capacity() > ROOM_MIN.max(8 * rows) {
            self.rows.shrink_to(2 * rows);
        }
    }

    /// Puts a row in place of another, or removes it. Returns the one before.
    fn put(&mut self, epoch: Epoch, key: &K, value: Option<&V>) -> Option<V> {
        let Some(value) = value else {
            let (changed, old) = self.rows.remove(key)?;
            let save = |out: &mut Out, key: &K| out.put(key, changed, None, &old);
            self.changed.remove(changed, || key.clone(), save);
            return Some(old);
        };
        match self.rows.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                self.changed.touch(None, || key.clone(), |_, _| {});
                vacant.insert((epoch, value.clone()));
                None
            }
            Entry::Occupied(mut row) => {
                let (changed, old) = row.get_mut();
                if *old != *value {
                    let save = |out: &mut Out, key: &K| out.put(key, *changed, None, old);
                    self.changed.touch(Some(*changed), || key.clone(), save);
                    *changed = epoch;
                }
                Some(std::mem::replace(old, value.clone()))
            }
        }
    }
}

impl<K: Record, V: Record> Stateful for Rows<K, V> {
    fn freeze(&mut self, at: Epoch, again: bool, out: Out) {
        self.changed.freeze(at, again, out);
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let rows = &self.rows;
        self.changed.save(entries_max, |out, key, upto| {
            if let Some((epoch, value)) = rows.get(key).filter(|(epoch, _)| *epoch <= upto) {
                out.put(key, *epoch, None, value);
            }
        })
    }
}
