//! Dead letters as a keyed table with a bounded stay.
//!
//! ```text
//!   letters ═ by partition ═▶ the newest of each partition, for so long, up to so many and so large ─▶ view
//! ```
//!
//! A partition of nothing but rubbish would otherwise fill the memory of its readers. All letters are counted
//! in metrics before they come here. The bounds are those of a partition, and not of a worker, so that the
//! view is the same on any number of workers.

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

/// Where a dead letter stands, and which step turned it down: the key of the view `<source>.dead_letters`.
///
/// Its hash is the partition's alone, so that a partition's letters live where they are bounded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LetterKey {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in it.
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

/// The rest of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Letter {
    /// The topic, file or generator.
    pub topic: String,
    /// Why.
    pub cause: Cause,
    /// More about why: the field that is not known, or what the dataflow's own code said.
    pub detail: Option<String>,
    /// The log's timestamp; of what a step after the source turned down, its event time.
    pub timestamp: EventTime,
    /// The schema id that the bytes named.
    pub schema: Option<u32>,
    /// Key bytes, where the source turned the record down.
    #[serde(with = "crate::codec::header::bytes")]
    pub key: Option<Vec<u8>>,
    /// Payload bytes, where the source did; else the event as JSON, as the step got it.
    #[serde(with = "crate::codec::header::bytes")]
    pub payload: Option<Vec<u8>>,
}

/// How many letters of one partition stay.
pub const LETTERS_MAX: usize = 50_000;
/// How many bytes of keys and payloads of one partition's letters stay: the newest letter does in any case.
pub const LETTERS_BYTES_MAX: usize = 64 << 20;

/// By the epoch that brought them: oldest first.
type Place = (Epoch, LetterKey);

/// A letter, with the "now" of the epoch that brought it.
type Dated = (EventTime, Letter);

/// What is kept of one partition.
#[derive(Default)]
struct OfPartition {
    letters: BTreeMap<Place, Tracked<Dated>>,
    bytes: usize,
}

impl OfPartition {
    /// The oldest, if it has been there for too long, or there are too many.
    fn outdated(&self, now: EventTime, keep: Duration) -> Option<&Place> {
        let len = self.letters.len();
        let (place, held) = self.letters.first_key_value()?;
        let many = len > LETTERS_MAX || (self.bytes > LETTERS_BYTES_MAX && len > 1);
        (many || held.0.plus(keep) <= now).then_some(place)
    }
}

/// All that is kept on a worker.
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

/// Keys the letters of one source; retracts them `keep` after the epoch (its bound "now") that brought them,
/// and the oldest of a partition before that when there are more than [`LETTERS_MAX`], or more bytes than
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
        // A record that `flat_map` made several events of may come several times: its least letter stays.
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

    /// Letters age by the epoch's "now", with or without new ones.
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
                // What did not stay for one epoch is not shown at all.
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
