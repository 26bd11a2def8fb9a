//! Dead letters as a keyed table with a bounded stay.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LetterKey {
    /// Partition of the topic.
    pub partition: u32,
    /// Offset in it.
    pub offset: i64,
    /// The source that could not decode it, the window that it was late for, or the `try_map` that rejected it.
    pub step: String,
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

/// Keys the letters of one source; retracts them `keep` after the epoch (its bound "now") that brought them.
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
    let by_key = Exchange::new(move |letter: &DeadLetter| worker_bits(route(&key(letter))));
    letters.unary_frontier::<CapacityContainerBuilder<Vec<Change<LetterKey, Letter>>>, _, _, _>(
        by_key,
        name,
        move |capability, _| {
            let mut walk = Walk::new(desk, capability);
            let mut pending = Pending::new();
            let mut kept: BTreeMap<EventTime, Vec<(LetterKey, Letter)>> = BTreeMap::new();
            move |(input, frontier), output| {
                pending.gather(input);
                walk.advance(frontier, |facts, capability| {
                    let now = facts.binding.now;
                    let mut session = output.session(capability);
                    while let Some(oldest) = kept.first_entry().filter(|first| first.key().plus(keep) <= now)
                    {
                        for (key, letter) in oldest.remove() {
                            session.give(Change {
                                key,
                                old: Some(letter),
                                new: None,
                            });
                        }
                    }
                    // A record that `flat_map` made several events of may come several times: its least letter stays.
                    let mut brought: BTreeMap<LetterKey, Letter> = BTreeMap::new();
                    for dead in pending.take(facts.epoch()).into_iter().flatten() {
                        let key = key(&dead);
                        let letter = Letter {
                            topic: topic.clone(),
                            cause: dead.cause,
                            detail: dead.detail,
                            timestamp: dead.timestamp,
                            schema: dead.schema,
                            key: dead.key,
                            payload: dead.payload,
                        };
                        match brought.entry(key) {
                            Entry::Vacant(vacant) => _ = vacant.insert(letter),
                            Entry::Occupied(mut least) if letter < *least.get() => _ = least.insert(letter),
                            Entry::Occupied(_) => {}
                        }
                    }
                    for (key, letter) in brought {
                        kept.entry(now).or_default().push((key.clone(), letter.clone()));
                        session.give(Change {
                            key,
                            old: None,
                            new: Some(letter),
                        });
                    }
                });
            }
        },
    )
}
