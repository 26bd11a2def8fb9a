//! The writer of one shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};

use super::producer::{
    OutgoingRecord, PROGRESS, ProducerFailure, ProducerTimeouts, SinkProducer, is_refused,
};
use super::progress::{DIFF, EPOCH, LEDGER, ProgressReader, ProgressRecord, SEQUENCE, SHARD, SINK};
use super::topics::SinkTopic;
use crate::codec::header;
use crate::codec::rows::RowEncoder;
use crate::error::{Error, Result};
use crate::fault;
use crate::sink::row::{Row, RowOrigin};
use crate::sink::{Batch, Method, Progress, Shard, TransactionalWriter, WriteError};
use crate::time::Epoch;

/// Writes the rows of a shard.
pub(super) struct KafkaWriter {
    target: Arc<SinkTopic>,
    shard: Shard,
    encoder: Box<dyn RowEncoder>,
    /// Of its transactions.
    name: String,
    /// Its number and its ledger, as headers have them.
    number: String,
    ledger: String,
    progress_topic: String,
    partitions: u32,
    producer: Option<SinkProducer>,
    /// What rows end before, by partition.
    ends: BTreeMap<i32, i64>,
    /// Sequences of rows that are there, though the progress does not say so.
    present: BTreeSet<u64>,
    key: Vec<u8>,
    payload: Vec<u8>,
    more: Vec<header::Header>,
}

impl KafkaWriter {
    /// Makes the topics where they are missing.
    pub(super) fn open(target: Arc<SinkTopic>, shard: Shard, encoder: Box<dyn RowEncoder>) -> Result<Self> {
        let partitions = target.prepare(&shard.sink, shard.of)?;
        Ok(Self {
            name: target.transactional_id(&shard.sink, shard.number),
            number: shard.number.to_string(),
            ledger: shard.ledger.to_string(),
            progress_topic: target.progress_topic(&shard.sink),
            target,
            shard,
            encoder,
            partitions,
            producer: None,
            ends: BTreeMap::new(),
            present: BTreeSet::new(),
            key: Vec::new(),
            payload: Vec::new(),
            more: Vec::new(),
        })
    }

    /// A new producer, which fences the one before, and what was committed by then.
    fn connect(&mut self) -> Result<Option<Progress>> {
        let producer = SinkProducer::new(&self.target.kafka, &self.name)?;
        producer
            .init(self.shard.call_max)
            .map_err(|failure| self.outside(failure))?;
        fault::point("kafka_sink.fenced");
        let target = self.target.clone();
        let looker = ProgressReader::new(&target)?;
        let newest = looker.newest(&self.shard.sink, self.shard.number)?;
        self.producer = Some(producer);
        let ledger = self.shard.ledger;
        if let Some(newer) = newest.as_ref().filter(|newest| newest.progress.ledger > ledger) {
            // Nothing is written beside a ledger that is newer.
            return Ok(Some(newer.progress.clone()));
        }
        let ends = looker.ends(self.partitions)?;
        let (progress, known) = match newest.filter(|newest| newest.progress.ledger == ledger) {
            Some(newest) => {
                self.present = looker.tail(&self.name, &newest, &ends)?;
                (newest.progress, newest.ends)
            }
            None => {
                self.present.clear();
                let (generation, epoch) = (self.shard.generation, Epoch::ZERO);
                let nothing = Progress {
                    ledger,
                    generation,
                    epoch,
                    rows: 0,
                };
                (nothing, BTreeMap::new())
            }
        };
        if self.present.is_empty() {
            // Behind these rows are looked for from now on: failed attempts leave much that is in no one's
            // way but theirs.
            self.ends = ends;
            if self.ends != known {
                self.anchor(&progress).map_err(|failure| self.outside(failure))?;
            }
        } else {
            self.ends = known;
            let (sink, rows) = (&*self.shard.sink, self.present.len());
            tracing::warn!(
                sink,
                rows,
                "a transaction committed late; its rows are present and will not be written again"
            );
        }
        Ok((progress.epoch > Epoch::ZERO).then_some(progress))
    }

    /// Commits a progress once more, with where the topic ends now.
    fn anchor(&mut self, progress: &Progress) -> Result<(), ProducerFailure> {
        let mut patience = ProducerTimeouts::new(self.shard.call_max);
        self.producer()?.begin()?;
        self.send_progress(progress, &mut patience)?;
        self.producer()?.settle(&mut patience)?;
        self.commit_and_doubt()
    }

    /// Commits; the next transaction is another producer's where there is a doubt.
    fn commit_and_doubt(&mut self) -> Result<(), ProducerFailure> {
        if !self.producer()?.commit(self.shard.call_max)? {
            self.producer = None;
        }
        Ok(())
    }

    fn producer(&self) -> Result<&SinkProducer, ProducerFailure> {
        self.producer
            .as_ref()
            .ok_or_else(|| ProducerFailure::Broken("there is no producer".into()))
    }

    fn write(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), ProducerFailure> {
        let mut patience = ProducerTimeouts::new(self.shard.call_max);
        let first = rows_before(epochs, progress);
        self.producer()?.begin()?;
        fault::point("kafka_sink.begun");
        let mut number = 0;
        for batch in epochs {
            let epoch = batch.epoch.0.to_string();
            for row in &batch.rows {
                let sequence = first + number as u64;
                if !self.present.contains(&sequence) {
                    self.send((&epoch, sequence), number, row, &mut patience)?;
                }
                number += 1;
            }
        }
        fault::point("kafka_sink.sent");
        let producer = self.producer()?;
        producer.settle(&mut patience)?;
        self.ends.extend(producer.ends());
        self.send_progress(progress, &mut patience)?;
        self.producer()?.settle(&mut patience)?;
        fault::point("kafka_sink.settled");
        self.commit_and_doubt()?;
        fault::point("kafka_sink.committed");
        self.present = self.present.split_off(&progress.rows);
        Ok(())
    }

    fn send(
        &mut self,
        (epoch, sequence): (&str, u64),
        number: usize,
        row: &Row,
        patience: &mut ProducerTimeouts,
    ) -> Result<(), ProducerFailure> {
        self.key.clear();
        self.payload.clear();
        let encode = |error: Error| ProducerFailure::Row(number, error);
        let has_key = self.encoder.key(row, &mut self.key).map_err(encode)?;
        let has_payload = self.encoder.payload(row, &mut self.payload).map_err(encode)?;
        self.more.clear();
        self.encoder.headers(row, &mut self.more).map_err(encode)?;
        let record = OutgoingRecord {
            topic: &self.target.topic,
            // Rows go where Kafka's own clients look for their key.
            partition: row.place().map(|place| self.partition_of(place)),
            key: has_key.then_some(&self.key),
            payload: has_payload.then_some(&self.payload),
            headers: Some(self.headers(epoch, sequence, row)),
            timestamp_ms: None,
            number,
        };
        self.producer()?.send(record, patience)
    }

    /// Events stay in the order in which they were read: those of a partition go to one.
    fn partition_of(&self, place: RowOrigin) -> i32 {
        let partition = place.position.partition;
        let of = u64::from(partition.source.0) + u64::from(partition.partition);
        (of % u64::from(self.partitions.max(1))) as i32
    }

    fn headers(&self, epoch: &str, sequence: u64, row: &Row) -> OwnedHeaders {
        let sequence = sequence.to_string();
        let headers = [
            (SINK, &*self.name),
            (LEDGER, &*self.ledger),
            (EPOCH, epoch),
            (SHARD, &*self.number),
            (SEQUENCE, &*sequence),
        ]
        .into_iter()
        .fold(OwnedHeaders::new_with_capacity(6), |headers, (key, value)| {
            let value = Some(value);
            headers.insert(Header { key, value })
        });
        let headers = self.more.iter().fold(headers, |headers, more| {
            headers.insert(Header {
                key: &more.name,
                value: more.value.as_ref(),
            })
        });
        if self.target.method != Method::ChangesTo {
            return headers;
        }
        let diff = row.diff().to_string();
        headers.insert(Header {
            key: DIFF,
            value: Some(&diff),
        })
    }

    fn send_progress(
        &self,
        progress: &Progress,
        patience: &mut ProducerTimeouts,
    ) -> Result<(), ProducerFailure> {
        let record = ProgressRecord {
            progress: progress.clone(),
            ends: self.ends.clone(),
        };
        let payload =
            serde_json::to_vec(&record).map_err(|error| ProducerFailure::Broken(error.to_string()))?;
        let record = OutgoingRecord {
            topic: &self.progress_topic,
            partition: i32::try_from(self.shard.number).ok(),
            key: Some(self.number.as_bytes()),
            payload: Some(&payload),
            headers: None,
            timestamp_ms: None,
            number: PROGRESS,
        };
        self.producer()?.send(record, patience)
    }

    /// A failure after which another producer may do better.
    fn outside(&self, failure: ProducerFailure) -> Error {
        match failure {
            ProducerFailure::Kafka(error) | ProducerFailure::Record(_, error) => self.target.unseen(&error),
            ProducerFailure::Row(_, error) => error,
            ProducerFailure::Broken(text) => self.target.unwritten(&text),
            ProducerFailure::Late(what) => self.target.unwritten(&format!("it takes too long: {what}")),
        }
    }

    fn failed(&self, epochs: &[Batch], failure: ProducerFailure) -> WriteError {
        match failure {
            ProducerFailure::Record(number, error) if number != PROGRESS && is_refused(&error) => {
                let hint = "a record, and a batch of them (`batch.size` in `kafka.properties`), has to be \
                    smaller than `max.message.bytes` of the topic";
                let error = self.target.unseen(&error).hint(hint);
                WriteError::Refused {
                    row: place(epochs, number),
                    error,
                }
            }
            ProducerFailure::Row(number, error) => WriteError::Refused {
                row: place(epochs, number),
                error,
            },
            other => WriteError::Retry(self.outside(other)),
        }
    }
}

/// How many rows come before those that take a shard to a progress: the sequence of the first.
fn rows_before(epochs: &[Batch], progress: &Progress) -> u64 {
    let rows: usize = epochs.iter().map(|batch| batch.rows.len()).sum();
    progress.rows - rows as u64
}

/// Which batch, and which row of it, has this number.
fn place(epochs: &[Batch], mut number: usize) -> (usize, usize) {
    for (at, batch) in epochs.iter().enumerate() {
        if number < batch.rows.len() {
            return (at, number);
        }
        number -= batch.rows.len();
    }
    (0, 0)
}

impl TransactionalWriter for KafkaWriter {
    fn resume(&mut self) -> Result<Option<Progress>> {
        self.connect()
    }

    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError> {
        if self.producer.is_none() {
            let committed = self.connect()?;
            let expected = rows_before(epochs, progress);
            if committed.as_ref().map_or(0, |committed| committed.rows) != expected {
                // Another one has written, or what was told to be committed is not: the task asks anew.
                let what = "what was committed is not there, or more than that is";
                return Err(WriteError::Retry(self.target.unwritten(what)));
            }
        }
        self.write(epochs, progress).map_err(|failure| {
            if let Some(producer) = self.producer.take() {
                producer.give_up();
            }
            self.failed(epochs, failure)
        })
    }
}
