//! Sends dead letters back to where their records came from, each of them once.
//!
//! ```text
//!   init_transactions: fences another replay of the topic, and ends what it left open
//!   committed offsets of the group GROUP.dead-letters ─▶ what was replayed before
//!   letters, in order ─▶ selected? ─▶ one transaction: records to their own topics and partitions
//!                                                       + offsets of the group, and ranges beside them
//! ```
//!
//! Progress is committed in the transaction of the records: a command that is repeated, or was killed, goes
//! on where the last committed one ended. The group's lag on the topic is how many letters were not replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::message::{Header as Named, OwnedHeaders};
use rdkafka::{Offset, TopicPartitionList};

use super::letter::{Letter, headers_of, marked};
use super::replayed::Replayed;
use super::topic::LetterLog;
use crate::codec::header::Header;
use crate::connect::kafka::settings::KafkaSettings;
use crate::connect::kafka::sink::producer::{
    OutgoingRecord, ProducerFailure, ProducerTimeouts, SinkProducer,
};
use crate::error::{Error, Result};
use crate::fault;

/// Letters of one transaction, and bytes of what they send.
const LETTERS_MAX: usize = 500;
const BYTES_MAX: usize = 4 << 20;
/// How long a call to the broker may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which letters.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub source: Option<String>,
    pub cause: Option<String>,
    /// One alone: partition and offset in the topic of letters.
    pub place: Option<(i32, i64)>,
    pub limit: Option<usize>,
}

impl Selection {
    /// Events that a step turned down are left out unless their cause is named, or their place: the rest of
    /// the dataflow has counted their record already.
    fn takes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == found)
        };
        let is_named = self.cause.is_some() || self.place.is_some();
        let place = (letter.partition, letter.offset);
        is(&self.source, letter.own("source"))
            && is(&self.cause, letter.own("cause"))
            && self.place.is_none_or(|wanted| wanted == place)
            && (letter.is_record() || is_named)
    }
}

/// What became of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// By topic that they go back to, and cause.
    pub sent: BTreeMap<(String, String), usize>,
    /// Selected, but replayed before.
    pub before: usize,
    /// Selected, but not read from a Kafka topic.
    pub elsewhere: usize,
    /// Selected, but their record is in its topic no more, and they hold an event that was made of it.
    pub gone: usize,
}

impl Outcome {
    pub(super) fn total(&self) -> usize {
        self.sent.values().sum()
    }
}

/// Replays letters; a dry run only says which it would.
pub(super) struct Replay<'a> {
    pub kafka: &'a KafkaSettings,
    pub topic: &'a str,
    /// The application's name, which the group's begins with.
    pub application: &'a str,
    pub selection: Selection,
    pub is_dry: bool,
}

/// What is to be sent.
struct Sent {
    topic: String,
    partition: i32,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<Header>,
    timestamp_ms: Option<i64>,
}

impl Replay<'_> {
    pub(super) fn run(&self) -> Result<Outcome> {
        let group = group(self.application);
        // It fences first: what another replay commits is seen, or comes to nothing.
        let producer = match self.is_dry {
            true => None,
            false => Some(self.producer()?),
        };
        let log = LetterLog::open(self.topic, self.kafka, &group)?;
        let mut replayed = log.replayed()?;
        let from = replayed
            .iter()
            .map(|(partition, replayed)| (*partition, replayed.next));
        // A letter that is named is found, also where it was replayed before.
        let named = self.selection.place.map_or(i64::MAX, |(_, offset)| offset);
        let from = from
            .map(|(partition, next)| (partition, next.min(named)))
            .collect();
        // Letters that hold an event need another reader, as this one is in the midst of its topic.
        let originals = LetterLog::open(self.topic, self.kafka, &group)?;
        let (mut outcome, mut batch) = (Outcome::default(), Vec::new());
        let commit = |batch: &mut Vec<Sent>, replayed: &BTreeMap<i32, Replayed>| match &producer {
            Some(producer) if !batch.is_empty() => {
                self.commit(producer, &log, std::mem::take(batch), replayed)
            }
            _ => {
                batch.clear();
                Ok(())
            }
        };
        log.read(&from, &mut |record| {
            let letter = Letter::of(record);
            let of = replayed.entry(letter.partition).or_default();
            let was = of.contains(letter.offset);
            let sent = match self.selection.takes(&letter) {
                true if was => {
                    outcome.before += 1;
                    None
                }
                true => self.sent(&originals, &letter, &mut outcome)?,
                false => None,
            };
            of.pass(letter.offset, was || sent.is_some());
            batch.extend(sent);
            let bytes: usize = batch.iter().map(Sent::bytes).sum();
            let is_last = self.selection.limit.is_some_and(|limit| outcome.total() >= limit);
            if batch.len() >= LETTERS_MAX || bytes >= BYTES_MAX {
                commit(&mut batch, &replayed)?;
            }
            Ok(!is_last)
        })?;
        commit(&mut batch, &replayed)?;
        Ok(outcome)
    }

    fn producer(&self) -> Result<SinkProducer> {
        let name = format!("{}.{}", group(self.application), self.topic);
        let producer = SinkProducer::new(self.kafka, &name)?;
        producer.init(PATIENCE).map_err(|failure| self.failed(failure))?;
        Ok(producer)
    }

    /// What a letter that is selected sends; `None`: it can't go back.
    fn sent(
        &self,
        originals: &LetterLog<'_>,
        letter: &Letter,
        outcome: &mut Outcome,
    ) -> Result<Option<Sent>> {
        let Some((topic, partition, offset)) = letter.place().filter(|_| letter.is_of_kafka()) else {
            outcome.elsewhere += 1;
            return Ok(None);
        };
        let (key, payload, headers, timestamp_ms) = match letter.is_record() {
            true => {
                let (key, payload) = (letter.key.clone(), letter.payload.clone());
                (key, payload, letter.original_headers(), letter.timestamp_ms())
            }
            false => match originals.fetch((topic, partition, offset), original)? {
                Some(original) => original,
                None => {
                    outcome.gone += 1;
                    return Ok(None);
                }
            },
        };
        let cause = letter.own("cause").unwrap_or_default().to_owned();
        *outcome.sent.entry((topic.to_owned(), cause)).or_default() += 1;
        Ok(Some(Sent {
            topic: topic.to_owned(),
            partition,
            key,
            payload,
            headers: marked(headers, self.topic, letter),
            timestamp_ms,
        }))
    }

    /// Sends records, and says that they were, in one transaction.
    fn commit(
        &self,
        producer: &SinkProducer,
        log: &LetterLog<'_>,
        batch: Vec<Sent>,
        replayed: &BTreeMap<i32, Replayed>,
    ) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        for (partition, replayed) in replayed {
            let metadata = replayed.metadata()?;
            let added = offsets.add_partition_offset(self.topic, *partition, Offset::Offset(replayed.next));
            added.map_err(|error| self.failed(error.into()))?;
            if let Some(mut added) = offsets.find_partition(self.topic, *partition) {
                added.set_metadata(metadata);
            }
        }
        let group = log.group()?;
        let transact = || -> Result<(), ProducerFailure> {
            let mut patience = ProducerTimeouts::new(PATIENCE);
            producer.begin()?;
            for (number, sent) in batch.iter().enumerate() {
                producer.send(sent.record(number), &mut patience)?;
            }
            producer.settle(&mut patience)?;
            fault::point("replay_letters.sent");
            producer.send_offsets(offsets, group, PATIENCE)?;
            producer.commit(PATIENCE)?;
            fault::point("replay_letters.committed");
            Ok(())
        };
        transact().map_err(|failure| {
            producer.give_up();
            match failure {
                ProducerFailure::Record(number, error) => {
                    let place = batch
                        .get(number)
                        .map(|sent| format!("{}/{}", sent.topic, sent.partition));
                    self.failed(error.into())
                        .detail(format!("a record for {}", place.unwrap_or_default()))
                }
                failure => self.failed(failure),
            }
        })
    }

    fn failed(&self, failure: ProducerFailure) -> Error {
        let what = format!("cannot replay letters of topic `{}`", self.topic);
        let error = Error::external(what);
        let error = match failure {
            ProducerFailure::Kafka(why) | ProducerFailure::Record(_, why) => error.detail(why),
            ProducerFailure::Row(_, why) => error.detail(why),
            ProducerFailure::Broken(why) => error.detail(why),
            ProducerFailure::Late(what) => error.detail(format!("it takes too long: {what}")),
        };
        error.hint("what was committed stays so: repeat the command, and it goes on from there")
    }
}

/// The group whose offsets say what was replayed.
pub(super) fn group(application: &str) -> String {
    format!(
        "{}.dead-letters",
        crate::connect::kafka::config::group_or_own(application)
    )
}

/// What a record in its own topic consists of.
type Original = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<Header>, Option<i64>);

fn original(record: &BorrowedMessage<'_>) -> Original {
    let (key, payload) = (
        record.key().map(<[u8]>::to_vec),
        record.payload().map(<[u8]>::to_vec),
    );
    let timestamp_ms = record.timestamp().to_millis().filter(|ms| *ms > 0);
    (key, payload, headers_of(record), timestamp_ms)
}

impl Sent {
    fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.payload)
    }

    fn record(&self, number: usize) -> OutgoingRecord<'_> {
        let headers = OwnedHeaders::new_with_capacity(self.headers.len());
        let headers = self.headers.iter().fold(headers, |headers, header| {
            headers.insert(Named {
                key: &header.name,
                value: header.value.as_ref(),
            })
        });
        OutgoingRecord {
            topic: &self.topic,
            partition: Some(self.partition),
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers: Some(headers),
            timestamp_ms: self.timestamp_ms,
            number,
        }
    }
}
