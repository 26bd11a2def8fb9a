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
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::keeper::{Keeper, Loader};
use crate::checkpoint::state::{Changed, Out, Stateful};
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
/// event as JSON, as the step got it. Where that cannot be had, the detail says why.
pub fn turned_down<T: Serialize>(
    step: &str,
    cause: Cause,
    detail: Option<String>,
    event: &Timed<T>,
) -> DeadLetter {
    let (payload, unwritable) = match serde_json::to_vec(&event.value) {
        Ok(json) => (Some(json), None),
        Err(error) => (
            None,
            Some(format!("the event cannot be written as JSON: {error}")),
        ),
    };
    let details: Vec<String> = detail.into_iter().chain(unwritable).collect();
    DeadLetter {
        at: event.at,
        step: step.to_owned(),
        cause,
        detail: (!details.is_empty()).then(|| details.join("; ")),
        timestamp: event.time,
        schema: None,
        key: None,
        payload,
    }
}

/// How many letters of one partition stay.
pub const LETTERS_MAX: usize = 50_000;
/// How many bytes of keys and payloads of one partition's letters stay: the newest letter does in any case.
pub const LETTERS_BYTES_MAX: usize = 64 << 20;

/// By the epoch that brought them: oldest first.
type Place = (Epoch, LetterKey);

/// What is kept of one partition.
#[derive(Default)]
struct OfPartition {
    /// With the "now" of the epoch.
    letters: BTreeMap<Place, (EventTime, Letter)>,
    bytes: usize,
}

impl OfPartition {
    fn push(&mut self, at: Place, now: EventTime, letter: Letter) {
        self.bytes += letter.bytes();
        self.letters.insert(at, (now, letter));
    }

    /// The oldest, if it has been there for too long, or there are too many.
    fn pop(&mut self, now: EventTime, keep: Duration) -> Option<(Place, (EventTime, Letter))> {
        let len = self.letters.len();
        let first = self.letters.first_entry()?;
        let (since, letter) = first.get();
        let many = len > LETTERS_MAX || (self.bytes > LETTERS_BYTES_MAX && len > 1);
        if !many && since.plus(keep) > now {
            return None;
        }
        self.bytes -= letter.bytes();
        Some(first.remove_entry())
    }
}

/// All that is kept on a worker.
struct AllLetters {
    partitions: BTreeMap<u32, OfPartition>,
    changed: Changed<Place>,
}

fn load(loader: &Loader) -> BTreeMap<u32, OfPartition> {
    let mut partitions: BTreeMap<u32, OfPartition> = BTreeMap::new();
    loader.load(
        |at: &Place| &at.1.partition,
        |entry| {
            let of = partitions.entry(entry.key.1.partition).or_default();
            match entry.value {
                Some((now, letter)) => of.push(entry.key, now, letter),
                None => _ = of.letters.remove(&entry.key),
            }
        },
    );
    for of in partitions.values_mut() {
        of.bytes = of.letters.values().map(|(_, letter)| letter.bytes()).sum();
    }
    partitions
}

impl Stateful for AllLetters {
    fn freeze(&mut self, at: Epoch, again: bool, out: Out) {
        self.changed.freeze(at, again, out);
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let partitions = &self.partitions;
        self.changed.save(entries_max, |out, at, upto| {
            let of = partitions.get(&at.1.partition);
            if let Some(held) = of.and_then(|of| of.letters.get(at)).filter(|_| at.0 <= upto) {
                out.put(at, at.0, None, held);
            }
        })
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
    keeper: &Keeper,
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
        |capability, _| {
            let mut walk = Walk::new(desk, capability);
            let mut pending = Pending::new();
            let all = AllLetters {
                partitions: BTreeMap::new(),
                changed: keeper.changed(),
            };
            let kept = keeper.keep_loaded(all, load, |all, partitions| all.partitions = partitions);
            move |(input, frontier), output| {
                pending.gather(input);
                walk.advance(frontier, |facts, capability| {
                    let (epoch, now) = (facts.epoch(), facts.binding.now);
                    let mut all = kept.at(epoch);
                    let AllLetters { partitions, changed } = &mut *all;
                    // A record that `flat_map` made several events of may come several times: its least letter stays.
                    let mut brought: BTreeMap<LetterKey, Letter> = BTreeMap::new();
                    for dead in pending.take(epoch).into_iter().flatten() {
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
                        let of = partitions.entry(key.partition).or_default();
                        changed.touch(None, || (epoch, key.clone()), |_, _| {});
                        of.push((epoch, key), now, letter);
                    }
                    let mut session = output.session(capability);
                    for of in partitions.values_mut() {
                        while let Some((at, held)) = of.pop(now, keep) {
                            let save = |out: &mut Out, at: &Place| out.put(at, at.0, None, &held);
                            changed.remove(at.0, || at.clone(), save);
                            let (key, letter) = (at.1, held.1);
                            // What did not stay for one epoch is not shown at all.
                            if !new.remove(&key) {
                                let (old, new) = (Some(letter), None);
                                session.give(Change { key, old, new });
                            }
                        }
                        let brought = of.letters.iter().rev().take_while(|((at, _), _)| *at == epoch);
                        for ((_, key), (_, letter)) in brought {
                            let (key, old, new) = (key.clone(), None, Some(letter.clone()));
                            session.give(Change { key, old, new });
                        }
                    }
                });
            }
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::{PartitionId, Position, SourceId};

    #[test]
    fn a_letter_says_why_it_does_not_hold_its_event() {
        // Names in JSON are strings.
        let value = BTreeMap::from([((1u8, 2u8), 3u8)]);
        let partition = PartitionId {
            source: SourceId(1),
            partition: 0,
        };
        let event = Timed {
            value,
            time: EventTime(0),
            horizon: EventTime(0),
            at: Position { partition, offset: 7 },
        };
        let letter = turned_down("odd", Cause::Rejected, Some("no".into()), &event);
        assert_eq!(letter.payload, None);
        let detail = letter.detail.unwrap();
        assert!(
            detail.starts_with("no; the event cannot be written as JSON: "),
            "{detail}"
        );
    }
}
