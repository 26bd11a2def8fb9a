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

use crate::checkpoint::keyed::{KeyedState, Store, Tracked};
use crate::checkpoint::state::Out;
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
pub struct LetterKey {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in the partition.
    pub offset: i64,
    /// The source that could not decode it, the window that it was late for, or the `try_map` that rejected
    /// it.
    pub step: String,
}

impl Hash for LetterKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.partition.hash(state);
    }
}

/// The value of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Letter {
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
type Place = (Epoch, LetterKey);

/// A dead letter, with the "now" of its epoch.
type Dated = (EventTime, Letter);

/// The dead letters of one partition.
#[derive(Default)]
struct OfPartition {
    letters: BTreeMap<Place, Tracked<Dated>>,
    bytes: usize,
}

impl OfPartition {
    /// The oldest one, if it has expired or a bound is exceeded.
    fn outdated(&self, now: EventTime, keep: Duration) -> Option<&Place> {
        let len = self.letters.len();
        let (place, held) = self.letters.first_key_value()?;
        let many = len > LETTERS_MAX || (self.bytes > LETTERS_BYTES_MAX && len > 1);
        (many || held.0.plus(keep) <= now).then_some(place)
    }
}

/// All dead letters of a worker.
#[derive(Default)]
struct LetterStore {
    partitions: BTreeMap<u32, OfPartition>,
}

impl Store for LetterStore {
    type Key = Place;
    type Value = Dated;
    type Route = u32;

    fn routed(place: &Place) -> &u32 {
        &place.1.partition
    }

    fn save(out: &mut Out, place: &Place, epoch: Epoch, letter: &Dated) {
        out.put(place, epoch, None, letter);
    }

    fn get(&self, place: &Place) -> Option<&Tracked<Dated>> {
        self.partitions.get(&place.1.partition)?.letters.get(place)
    }

    fn get_mut(&mut self, place: &Place, _now: Epoch) -> Option<&mut Tracked<Dated>> {
        self.partitions
            .get_mut(&place.1.partition)?
            .letters
            .get_mut(place)
    }

    fn insert(&mut self, place: Place, letter: Tracked<Dated>) {
        let of = self.partitions.entry(place.1.partition).or_default();
        of.bytes += letter.1.bytes();
        if let Some(before) = of.letters.insert(place, letter) {
            of.bytes -= before.1.bytes();
        }
    }

    fn remove(&mut self, place: &Place) -> Option<Tracked<Dated>> {
        let of = self.partitions.get_mut(&place.1.partition)?;
        let letter = of.letters.remove(place)?;
        of.bytes -= letter.1.bytes();
        Some(letter)
    }
}

impl Letter {
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
pub(crate) fn letters<'s>(
    letters: StreamVec<'s, Epoch, DeadLetter>,
    topic: String,
    keep: Duration,
    setup: Setup<DeadLetter>,
) -> StreamVec<'s, Epoch, Change<LetterKey, Letter>> {
    let by_partition = |letter: &DeadLetter| route(&letter.at.partition.partition);
    let parcels = pack(letters, &setup.name, by_partition);
    process(parcels, Rc::new(Letters { topic, keep }), setup).0
}

struct Letters {
    topic: String,
    keep: Duration,
}

impl Operator for Letters {
    type Input = DeadLetter;
    type Key = LetterKey;
    type Value = Letter;
    type State = LetterStore;

    fn data(
        &self,
        at: &EpochInfo,
        input: Batch<DeadLetter>,
        state: &mut KeyedState<LetterStore>,
        _changes: &mut Changes<LetterKey, Letter>,
    ) {
        // A record that `flat_map` turned into several events may be rejected several times: its smallest
        // dead letter is kept.
        let mut brought: BTreeMap<LetterKey, Letter> = BTreeMap::new();
        for dead in input {
            let key = LetterKey {
                partition: dead.at.partition.partition,
                offset: dead.at.offset,
                step: dead.step.clone(),
            };
            let letter = Letter::of(dead, &self.topic);
            match brought.entry(key) {
                Entry::Vacant(vacant) => _ = vacant.insert(letter),
                Entry::Occupied(mut least) if letter < *least.get() => _ = least.insert(letter),
                Entry::Occupied(_) => {}
            }
        }
        for (key, letter) in brought {
            state.put((at.epoch, key), (at.now, letter));
        }
    }

    /// Dead letters expire by the epoch's "now", whether or not new ones arrive.
    fn watermark(
        &self,
        at: &EpochInfo,
        state: &mut KeyedState<LetterStore>,
        changes: &mut Changes<LetterKey, Letter>,
    ) {
        let partitions: Vec<u32> = state.entries().partitions.keys().copied().collect();
        for partition in partitions {
            let of = |state: &KeyedState<LetterStore>| {
                let of = state.entries().partitions.get(&partition)?;
                of.outdated(at.now, self.keep).cloned()
            };
            while let Some(place) = of(state) {
                let letter = state.remove(&place);
                // What did not last an epoch is not emitted at all.
                if place.0 < at.epoch {
                    changes.once(place.1, letter.map(|(_, letter)| letter), None);
                }
            }
        }
        for of in state.entries().partitions.values() {
            let brought = of.letters.iter().rev();
            for ((_, key), held) in brought.take_while(|((epoch, _), _)| *epoch == at.epoch) {
                changes.once(key.clone(), None, Some(held.1.clone()));
            }
        }
    }

    fn rows(&self, state: &KeyedState<LetterStore>, mut row: impl FnMut(LetterKey, Letter)) {
        for of in state.entries().partitions.values() {
            for ((_, key), held) in &of.letters {
                row(key.clone(), held.1.clone());
            }
        }
    }
}
