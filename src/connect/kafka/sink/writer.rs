//! The writer of one shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};

use super::producer::{Failure, PROGRESS, Producer, Record};
use super::progress::{DIFF, EPOCH, Looker, ProgressRecord, SEQUENCE, SHARD};
use super::topics::Target;
use crate::clock;
use crate::codec::rows::RowEncoder;
use crate::error::{Error, Result};
use crate::fault;
use crate::sink::row::Row;
use crate::sink::{Batch, Method, Progress, Shard, TransactionalWriter, WriteError};
use crate::time::Epoch;

/// A commit that takes longer may have been sent twice, and its second end may meet a later transaction: the
/// next one is made by a new producer.
const DOUBTFUL: Duration = Duration::from_millis(900);

/// Writes the rows of a shard.
pub(super) struct KafkaWriter {
    target: Arc<Target>,
    shard: Shard,
    encoder: Box<dyn RowEncoder>,
    progress_topic: String,
    partitions: u32,
    producer: Option<Producer>,
    /// What rows end before, by partition.
    ends: BTreeMap<i32, i64>,
    /// Sequences of rows that are there, though the progress does not say so.
    present: BTreeSet<u64>,
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl KafkaWriter {
    /// Makes the topics where they are missing.
    pub(super) fn open(target: Arc<Target>, shard: Shard, encoder: Box<dyn RowEncoder>) -> Result<Self> {
        let partitions = target.prepare(&shard.sink, shard.of)?;
        Ok(Self {
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
        })
    }

    /// A new producer, which fences the one before, and what was committed by then.
    fn connect(&mut self) -> Result<Option<Progress>> {
        let id = self.target.transactional_id(&self.shard.sink, self.shard.number);
        let producer = Producer::new(&self.target.kafka, &id)?;
        producer
            .init(self.shard.call_max)
            .map_err(|failure| self.outside(failure))?;
        fault::point("kafka_sink.fenced");
        let target = self.target.clone();
        let looker = Looker::new(&target)?;
        let newest = looker.newest(&self.shard.sink, self.shard.number)?;
        self.producer = Some(producer);
        match newest {
            Some(newest) => {
                self.present = looker.tail(self.shard.number, self.partitions, &newest)?;
                self.ends = newest.ends;
                if !self.present.is_empty() {
                    let found = self.present.len();
                    tracing::warn!(
                        sink = &*self.shard.sink,
                        rows = found,
                        "a transaction ended late: rows that it committed are not written again"
                    );
                }
                Ok((newest.progress.epoch > Epoch::ZERO).then_some(newest.progress))
            }
            None => {
                // From here on there is a place behind which rows are looked for.
                self.ends = looker.ends(self.partitions)?;
                self.anchor().map_err(|failure| self.outside(failure))?;
                Ok(None)
            }
        }
    }

    /// Commits that nothing is written yet.
    fn anchor(&self) -> Result<(), Failure> {
        let progress = Progress {
            ledger: 0,
            generation: self.shard.generation,
            epoch: Epoch::ZERO,
            rows: 0,
        };
        let until = clock::instant() + self.shard.call_max;
        let producer = self.producer()?;
        producer.begin()?;
        self.send_progress(&progress, until)?;
        producer.settle(until)?;
        producer.commit(self.shard.call_max)
    }

    fn producer(&self) -> Result<&Producer, Failure> {
        self.producer
            .as_ref()
            .ok_or_else(|| Failure::Broken("there is no producer".into()))
    }

    fn write(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), Failure> {
        let until = clock::instant() + self.shard.call_max;
        let rows: usize = epochs.iter().map(|batch| batch.rows.len()).sum();
        let first = progress.rows - rows as u64;
        self.producer()?.begin()?;
        fault::point("kafka_sink.begun");
        let numbered = epochs
            .iter()
            .flat_map(|batch| batch.rows.iter().map(|row| (batch.epoch, row)));
        for (number, (epoch, row)) in numbered.enumerate() {
            let sequence = first + number as u64;
            if !self.present.contains(&sequence) {
                self.send(epoch, sequence, number, row, until)?;
            }
        }
        fault::point("kafka_sink.sent");
        let producer = self.producer()?;
        producer.settle(until)?;
        self.ends.extend(producer.ends());
        self.send_progress(progress, until)?;
        let producer = self.producer()?;
        producer.settle(until)?;
        fault::point("kafka_sink.settled");
        let begun = clock::instant();
        producer.commit(self.shard.call_max)?;
        fault::point("kafka_sink.committed");
        self.present = self.present.split_off(&progress.rows);
        if clock::instant().saturating_duration_since(begun) > DOUBTFUL {
            self.producer = None;
        }
        Ok(())
    }

    fn send(
        &mut self,
        epoch: Epoch,
        sequence: u64,
        number: usize,
        row: &Row,
        until: Instant,
    ) -> Result<(), Failure> {
        self.key.clear();
        self.payload.clear();
        let encode = |error: Error| Failure::Row(number, error);
        let has_key = self.encoder.key(row, &mut self.key).map_err(encode)?;
        let has_payload = self.encoder.payload(row, &mut self.payload).map_err(encode)?;
        let record = Record {
            topic: &self.target.topic,
            // What has a key goes where Kafka's own clients look for it.
            partition: (!has_key).then(|| self.partition_of(row)),
            key: has_key.then_some(&self.key),
            payload: has_payload.then_some(&self.payload),
            headers: Some(self.headers(epoch, sequence, row)),
            number,
        };
        self.producer()?.send(&record, until)
    }

    /// Events stay in the order in which they were read: those of a partition go to one.
    fn partition_of(&self, row: &Row) -> i32 {
        let of = row.place().map_or(0, |place| {
            let partition = place.position.partition;
            u64::from(partition.source.0) + u64::from(partition.partition)
        });
        (of % u64::from(self.partitions.max(1))) as i32
    }

    fn headers(&self, epoch: Epoch, sequence: u64, row: &Row) -> OwnedHeaders {
        let header = |key, value: String| (key, value);
        let mut all = vec![
            header(EPOCH, epoch.0.to_string()),
            header(SHARD, self.shard.number.to_string()),
            header(SEQUENCE, sequence.to_string()),
        ];
        if self.target.method == Method::ChangesTo {
            all.push(header(DIFF, row.diff().to_string()));
        }
        let headers = OwnedHeaders::new_with_capacity(all.len());
        all.iter().fold(headers, |headers, (key, value)| {
            let value = Some(value.as_str());
            headers.insert(Header { key, value })
        })
    }

    fn send_progress(&self, progress: &Progress, until: Instant) -> Result<(), Failure> {
        let record = ProgressRecord {
            progress: progress.clone(),
            ends: self.ends.clone(),
        };
        let payload = serde_json::to_vec(&record).map_err(|error| Failure::Broken(error.to_string()))?;
        let key = self.shard.number.to_string();
        let record = Record {
            topic: &self.progress_topic,
            partition: i32::try_from(self.shard.number).ok(),
            key: Some(key.as_bytes()),
            payload: Some(&payload),
            headers: None,
            number: PROGRESS,
        };
        self.producer()?.send(&record, until)
    }

    /// A failure after which another producer may do better.
    fn outside(&self, failure: Failure) -> Error {
        match failure {
            Failure::Kafka(error) | Failure::Record(_, error) => self.target.unseen(&error),
            Failure::Row(_, error) => error,
            Failure::Broken(text) => self.target.unwritten(&text),
            Failure::Late(what) => self.target.unwritten(&format!("it takes too long: {what}")),
        }
    }

    fn failed(&self, epochs: &[Batch], failure: Failure) -> WriteError {
        match failure {
            Failure::Record(number, error) if number != PROGRESS && is_refused(&error) => {
                let hint = "a record has to be smaller than `max.message.bytes` of its topic";
                let error = self.target.unseen(&error).hint(hint);
                WriteError::Refused {
                    row: place(epochs, number),
                    error,
                }
            }
            Failure::Row(number, error) => WriteError::Refused {
                row: place(epochs, number),
                error,
            },
            other => WriteError::Retry(self.outside(other)),
        }
    }
}

/// Whether it is the record that is wrong, and not the moment.
fn is_refused(error: &KafkaError) -> bool {
    let refused = [
        RDKafkaErrorCode::MessageSizeTooLarge,
        RDKafkaErrorCode::InvalidMessageSize,
        RDKafkaErrorCode::InvalidRecord,
    ];
    error
        .rdkafka_error_code()
        .is_some_and(|code| refused.contains(&code))
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
            let rows: usize = epochs.iter().map(|batch| batch.rows.len()).sum();
            let expected = progress.rows - rows as u64;
            if committed.as_ref().map_or(0, |committed| committed.rows) != expected {
                // Another one has written, or what was told to be committed is not: the task asks anew.
                let what = "what was committed is not there, or more than that is";
                return Err(WriteError::Retry(self.target.unwritten(what)));
            }
        }
        self.write(epochs, progress)
            .map_err(|failure| self.failed(epochs, failure))
    }
}
