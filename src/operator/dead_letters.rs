//! Dead letters as a keyed table with bounded retention.
//!
//! ```text
//!   letters ═ by partition ═▶ the newest of each partition, for so long, up to so many and so large ─▶ view
//! ```
//!
//! Without bounds, a partition of invalid records would fill its readers' memory. Metrics count all dead
//! letters before they arrive here. The bounds apply per partition and not per worker, so that the view is
//! the same on any number of workers.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::dataflow::StreamVec;

use crate::checkpoint::keyed::{EntryStore, KeyedState, Versioned};
use crate::checkpoint::state::SnapshotWriter;
use crate::codec::Cause;
use crate::operator::exchange::pack;
use crate::operator::process::{Batch, Changes, EpochInfo, Operator, Setup, process};
use crate::record::{Change, route};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime};

/// The position of a dead letter and the step that rejected it: the key of the view `<source>.dead_letters`.
///
/// Its hash is that of the partition alone, so that a partition's dead letters are on the worker that bounds
/// them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetterKey {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: i64,
    /// The source that could not decode it, the window that it was late for, or the `try_map` that rejected
    /// it.
    pub step: String,
}

impl Hash for DeadLetterKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.partition.hash(state);
    }
}

/// The value of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadLetterRow {
    /// The topic, file or generator.
    pub topic: String,
    /// The cause.
    pub cause: Cause,
    /// Further detail: the unknown field, or the message of the dataflow's own code.
    pub detail: Option<String>,
    /// The log's timestamp; for records rejected by a later step, the event time.
    pub timestamp: EventTime,
    /// The schema id in the record.
    pub schema: Option<u32>,
    /// Key bytes, if the source rejected the record.
    #[serde(with = "crate::codec::header::bytes")]
    pub key: Option<Vec<u8>>,
    /// Payload bytes, if the source rejected the record; otherwise the event as JSON, as the step received
    /// it.
    #[serde(with = "crate::codec::header::bytes")]
    pub payload: Option<Vec<u8>>,
}

/// Number of dead letters to keep per partition.
pub const LETTERS_MAX: usize = 50_000;
/// Bytes of keys and payloads to keep per partition. The newest dead letter is always kept.
pub const LETTERS_BYTES_MAX: usize = 64 << 20;

/// Ordered by epoch, oldest first.
type Place = (Epoch, DeadLetterKey);

/// A dead letter, with the "now" of its epoch.
type DatedLetter = (EventTime, DeadLetterRow);

/// The dead letters of one partition.
#[derive(Default)]
struct PartitionLetters {
    dead_letters: BTreeMap<Place, Versioned<DatedLetter>>,
    bytes: usize,
}

impl PartitionLetters {
    /// The oldest one, if it has expired or a bound is exceeded.
    fn outdated(&self, now: EventTime, keep: Duration) -> Option<&Place> {
        let len = self.dead_letters.len();
        let (place, held) = self.dead_letters.first_key_value()?;
        let many = len > LETTERS_MAX || (self.bytes > LETTERS_BYTES_MAX && len > 1);
        (many || held.0.plus(keep) <= now).then_some(place)
    }
}

/// All dead letters of a worker.
#[derive(Default)]
struct DeadLetterStore {
    partitions: BTreeMap<u32, PartitionLetters>,
}

impl EntryStore for DeadLetterStore {
    type Key = Place;
    type Value = DatedLetter;
    type Route = u32;

    fn routed(place: &Place) -> &u32 {
        &place.1.partition
    }

    fn save(out: &mut SnapshotWriter, place: &Place, epoch: Epoch, dead_letter: &DatedLetter) {
        out.put(place, epoch, None, dead_letter);
    }

    fn get(&self, place: &Place) -> Option<&Versioned<DatedLetter>> {
        self.partitions.get(&place.1.partition)?.dead_letters.get(place)
    }

    fn get_mut(&mut self, place: &Place, _now: Epoch) -> Option<&mut Versioned<DatedLetter>> {
        self.partitions
            .get_mut(&place.1.partition)?
            .dead_letters
            .get_mut(place)
    }

    fn insert(&mut self, place: Place, dead_letter: Versioned<DatedLetter>) {
        let of = self.partitions.entry(place.1.partition).or_default();
        of.bytes += dead_letter.1.bytes();
        if let Some(before) = of.dead_letters.insert(place, dead_letter) {
            of.bytes -= before.1.bytes();
        }
    }

    fn remove(&mut self, place: &Place) -> Option<Versioned<DatedLetter>> {
        let of = self.partitions.get_mut(&place.1.partition)?;
        let dead_letter = of.dead_letters.remove(place)?;
        of.bytes -= dead_letter.1.bytes();
        Some(dead_letter)
    }
}

impl DeadLetterRow {
    fn bytes(&self) -> usize {
        [&self.key, &self.payload]
            .into_iter()
            .flatten()
            .map(Vec::len)
            .sum()
    }

    fn of(dead: DeadLetter, topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            cause: dead.cause,
            detail: dead.detail,
            timestamp: dead.timestamp,
            schema: dead.schema,
            key: dead.key,
            payload: dead.payload,
        }
    }
}

/// Keys the dead letters of one source. Retracts each one `keep` after the "now" bound to its epoch, and
/// earlier, oldest first, if a partition has more than [`LETTERS_MAX`] or more bytes than
/// [`LETTERS_BYTES_MAX`].
pub(crate) fn dead_letters<'s>(
    dead_letters: StreamVec<'s, Epoch, DeadLetter>,
    topic: String,
    keep: Duration,
    setup: Setup<DeadLetter>,
) -> StreamVec<'s, Epoch, Change<DeadLetterKey, DeadLetterRow>> {
    let by_partition = |dead_letter: &DeadLetter| route(&dead_letter.at.partition.partition);
    let routed_batches = pack(dead_letters, &setup.name, by_partition);
    process(routed_batches, Rc::new(DeadLetterTable { topic, keep }), setup).0
}

struct DeadLetterTable {
    topic: String,
    keep: Duration,
}

impl Operator for DeadLetterTable {
    type Input = DeadLetter;
    type Key = DeadLetterKey;
    type Value = DeadLetterRow;
    type State = DeadLetterStore;

    fn data(
        &self,
        at: &EpochInfo,
        input: Batch<DeadLetter>,
        state: &mut KeyedState<DeadLetterStore>,
        _changes: &mut Changes<DeadLetterKey, DeadLetterRow>,
    ) {
        // A record that `flat_map` turned into several events may be rejected several times: its smallest
        // dead letter is kept.
        let mut brought: BTreeMap<DeadLetterKey, DeadLetterRow> = BTreeMap::new();
        for dead in input {
            let key = DeadLetterKey {
                partition: dead.at.partition.partition,
                offset: dead.at.offset,
                step: dead.step.clone(),
            };
            let dead_letter = DeadLetterRow::of(dead, &self.topic);
            match brought.entry(key) {
                Entry::Vacant(vacant) => _ = vacant.insert(dead_letter),
                Entry::Occupied(mut least) if dead_letter < *least.get() => _ = least.insert(dead_letter),
                Entry::Occupied(_) => {}
            }
        }
        for (key, dead_letter) in brought {
            state.put((at.epoch, key), (at.now, dead_letter));
        }
    }

    /// Dead letters expire by the epoch's "now", whether or not new ones arrive.
    fn watermark(
        &self,
        at: &EpochInfo,
        state: &mut KeyedState<DeadLetterStore>,
        changes: &mut Changes<DeadLetterKey, DeadLetterRow>,
    ) {
        let partitions: Vec<u32> = state.entries().partitions.keys().copied().collect();
        for partition in partitions {
            let of = |state: &KeyedState<DeadLetterStore>| {
                let of = state.entries().partitions.get(&partition)?;
                of.outdated(at.now, self.keep).cloned()
            };
            while let Some(place) = of(state) {
                let dead_letter = state.remove(&place);
                // What did not last an epoch is not emitted at all.
                if place.0 < at.epoch {
                    changes.once(place.1, dead_letter.map(|(_, dead_letter)| dead_letter), None);
                }
            }
        }
        for of in state.entries().partitions.values() {
            let brought = of.dead_letters.iter().rev();
            for ((_, key), held) in brought.take_while(|((epoch, _), _)| *epoch == at.epoch) {
                changes.once(key.clone(), None, Some(held.1.clone()));
            }
        }
    }

    fn rows(&self, state: &KeyedState<DeadLetterStore>, mut row: impl FnMut(DeadLetterKey, DeadLetterRow)) {
        for of in state.entries().partitions.values() {
            for ((_, key), held) in &of.dead_letters {
                row(key.clone(), held.1.clone());
            }
        }
    }
}
