//! Dead letters as a keyed table with a bounded stay.
//!
//! ```text
//!   letters ═ by partition ═▶ the newest of each partition, for so long, up to so many and so large ─▶ view
//! ```
//!
//! A partition of nothing but rubbish would otherwise fill the memory of its readers. All letters are counted in metrics
//! before they come here. The bounds are those of a partition, and not of a worker, so that the view is the same on any
//! number of workers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::codec::Cause;
use crate::operator::walk::{Pending, Walk};
use crate::record::{Change, Timed, route, worker_bits};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime};
use crate::timeline::Desk;

/// Where a dead letter stands, and which step turned it down: the key of the view `<source>.dead_letters`.
///
/// Its hash is the partition's alone, so that a partition's letters live where they are bounded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LetterKey {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in it.
    pub offset: i64,
    /// The source that could not decode it, the window that it was late for, or the `try_map` that rejected it.
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
    #[serde(with = "bytes")]
    pub key: Option<Vec<u8>>,
    /// Payload bytes, where the source did; else the event as JSON, as the step got it.
    #[serde(with = "bytes")]
    pub payload: Option<Vec<u8>>,
}

mod bytes {
    //! `Vec<u8>` as bytes, not as a list of numbers.
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    struct Raw(Vec<u8>);
    impl Serialize for Raw {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }
    impl<'de> Deserialize<'de> for Raw {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> de::Visitor<'de> for Visitor {
                type Value = Raw;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Raw, E> {
                    Ok(Raw(v.to_vec()))
                }
                fn visit_byte_buf<E: de::Error>(self, v: Vec<u8>) -> Result<Raw, E> {
                    Ok(Raw(v))
                }
            }
            deserializer.deserialize_byte_buf(Visitor)
        }
    }

    pub(super) fn serialize<S: Serializer>(v: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        v.clone().map(Raw).serialize(serializer)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Raw>::deserialize(deserializer)?.map(|raw| raw.0))
    }
}

/// The letter of an event that a step after the source turns down. The record's bytes are gone by then, so it holds the
/// event as JSON, as the step got it.
pub fn turned_down<T: Serialize>(
    step: &str,
    cause: Cause,
    detail: Option<String>,
    event: &Timed<T>,
) -> DeadLetter {
    DeadLetter {
        at: event.at,
        step: step.to_owned(),
        cause,
        detail,
        timestamp: event.time,
        schema: None,
        key: None,
        payload: serde_json::to_vec(&event.value).ok(),
    }
}

/// How many letters of one partition stay.
pub const LETTERS_MAX: usize = 50_000;
/// How many bytes of keys and payloads of one partition's letters stay: the newest letter does in any case.
pub const LETTERS_BYTES_MAX: usize = 64 << 20;

/// What is kept of one partition, oldest first: with the "now" of the epoch that brought it.
#[derive(Default)]
struct Kept {
    letters: VecDeque<(EventTime, LetterKey, Letter)>,
    bytes: usize,
}

impl Kept {
    fn push(&mut self, now: EventTime, key: LetterKey, letter: Letter) {
        self.bytes += letter.bytes();
        self.letters.push_back((now, key, letter));
    }

    /// The oldest, if it has been there for too long, or there are too many.
    fn pop(&mut self, now: EventTime, keep: Duration) -> Option<(LetterKey, Letter)> {
        let (since, ..) = self.letters.front()?;
        let len = self.letters.len();
        let many = len > LETTERS_MAX || (self.bytes > LETTERS_BYTES_MAX && len > 1);
        if !many && since.plus(keep) > now {
            return None;
        }
        let (_, key, letter) = self.letters.pop_front()?;
        self.bytes -= letter.bytes();
        Some((key, letter))
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

/// Keys the letters of one source; retracts them `keep` after the epoch (its bound "now") that brought them, and the
/// oldest of a partition before that when there are more than [`LETTERS_MAX`], or more bytes than [`LETTERS_BYTES_MAX`].
pub fn letters<'s>(
    letters: StreamVec<'s, Epoch, DeadLetter>,
    name: &str,
    topic: String,
    keep: Duration,
    desk: Rc<Desk>,
) -> StreamVec<'s, Epoch, Change<LetterKey, Letter>> {
    let key = |letter: &DeadLetter| LetterKey {
        partition: letter.at.partition.partition,
        offset: letter.at.offset,
        step: letter.step.clone(),
    };
    let by_partition =
        Exchange::new(|letter: &DeadLetter| worker_bits(route(&letter.at.partition.partition)));
    letters.unary_frontier::<CapacityContainerBuilder<Vec<Change<LetterKey, Letter>>>, _, _, _>(
        by_partition,
        name,
        move |capability, _| {
            let mut walk = Walk::new(desk, capability);
            let mut pending = Pending::new();
            let mut kept: BTreeMap<u32, Kept> = BTreeMap::new();
            move |(input, frontier), output| {
                pending.gather(input);
                walk.advance(frontier, |facts, capability| {
                    let now = facts.binding.now;
                    // A record that `flat_map` made several events of may come several times: its least letter stays.
                    let mut brought: BTreeMap<LetterKey, Letter> = BTreeMap::new();
                    for dead in pending.take(facts.epoch()).into_iter().flatten() {
                        let key = key(&dead);
                        let letter = Letter::of(dead, &topic);
                        match brought.entry(key) {
                            Entry::Vacant(vacant) => _ = vacant.insert(letter),
                            Entry::Occupied(mut least) if letter < *least.get() => _ = least.insert(letter),
                            Entry::Occupied(_) => {}
                        }
                    }
                    let mut new: BTreeSet<LetterKey> = BTreeSet::new();
                    for (key, letter) in brought {
                        new.insert(key.clone());
                        kept.entry(key.partition).or_default().push(now, key, letter);
                    }
                    let mut session = output.session(capability);
                    for kept in kept.values_mut() {
                        while let Some((key, letter)) = kept.pop(now, keep) {
                            // What did not stay for one epoch is not shown at all.
                            if !new.remove(&key) {
                                let (old, new) = (Some(letter), None);
                                session.give(Change { key, old, new });
                            }
                        }
                        for (_, key, letter) in kept
                            .letters
                            .iter()
                            .rev()
                            .take_while(|(_, key, _)| new.contains(key))
                        {
                            let (key, old, new) = (key.clone(), None, Some(letter.clone()));
                            session.give(Change { key, old, new });
                        }
                    }
                });
            }
        },
    )
}
