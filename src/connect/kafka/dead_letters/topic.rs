//! Reads a topic of dead letters, up to where it ends now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::replayed::Replayed;
use crate::clock;
use crate::connect::kafka::settings::KafkaSettings;
use crate::connect::kafka::{admin, config};
use crate::error::{Error, Result};

/// How long one question to the broker may take.
const LOOK: Duration = Duration::from_secs(10);
/// How long a reader waits while nothing comes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic of dead letters, as a consumer of what is committed sees it.
pub(super) struct LetterLog<'a> {
    pub name: &'a str,
    kafka: &'a KafkaSettings,
    consumer: BaseConsumer,
    partitions: Vec<i32>,
}

impl<'a> LetterLog<'a> {
    /// # Errors
    /// The broker does not answer, or has no such topic.
    pub(super) fn open(name: &'a str, kafka: &'a KafkaSettings, group: &str) -> Result<Self> {
        let consumer: Result<BaseConsumer, KafkaError> = config::tail(kafka, group)?.create();
        let unseen = |error: &KafkaError| unseen(name, kafka, error);
        let consumer = consumer.map_err(|error| unseen(&error))?;
        let partitions = admin::partitions(&consumer, name).map_err(|error| unseen(&error))?;
        let Some(partitions) = partitions.filter(|found| !found.is_empty()) else {
            let what = format!("there is no topic `{name}` at {}", kafka.bootstrap);
            return Err(Error::request(what).hint("the first start with dead letters to be written makes it"));
        };
        Ok(Self {
            name,
            kafka,
            consumer,
            partitions,
        })
    }

    fn unseen(&self, error: &KafkaError) -> Error {
        unseen(self.name, self.kafka, error)
    }

    /// What the group has committed, by partition.
    pub(super) fn replayed(&self) -> Result<BTreeMap<i32, Replayed>> {
        let mut list = TopicPartitionList::new();
        for partition in &self.partitions {
            list.add_partition(self.name, *partition);
        }
        let committed = self.consumer.committed_offsets(list, LOOK);
        let committed = committed.map_err(|error| self.unseen(&error))?;
        let of = |partition: &i32| {
            let found = committed.find_partition(self.name, *partition);
            let replayed = match found.map(|found| (found.offset(), found.metadata().to_owned())) {
                Some((Offset::Offset(next), metadata)) => Replayed::committed(next, &metadata)?,
                _ => Replayed::default(),
            };
            Ok((*partition, replayed))
        };
        self.partitions.iter().map(of).collect()
    }

    /// For committing offsets with a transaction.
    pub(super) fn group(&self) -> Result<ConsumerGroupMetadata> {
        let none = || Error::internal("a consumer has no group");
        self.consumer.group_metadata().ok_or_else(none)
    }

    /// Shows all records, those of a partition in order, from the first on or from given offsets. `see`
    /// returns whether to go on.
    pub(super) fn read(
        &self,
        from: &BTreeMap<i32, i64>,
        see: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<bool>,
    ) -> Result<()> {
        let mut starts = Vec::new();
        for partition in &self.partitions {
            let bounds = self.consumer.fetch_watermarks(self.name, *partition, LOOK);
            let (start, end) = bounds.map_err(|error| self.unseen(&error))?;
            let start = from.get(partition).copied().unwrap_or(start).max(start);
            if start < end {
                starts.push((*partition, start, end));
            }
        }
        self.read_parts(self.name, &starts, see)
    }

    /// The record at a place of any topic; `None`: it is no longer there.
    pub(super) fn fetch<R>(
        &self,
        (topic, partition, offset): (&str, i32, i64),
        take: impl Fn(&BorrowedMessage<'_>) -> R,
    ) -> Result<Option<R>> {
        let bounds = self.consumer.fetch_watermarks(topic, partition, LOOK);
        let (start, end) = bounds.map_err(|error| self.unseen(&error))?;
        let mut found = None;
        if (start..end).contains(&offset) {
            self.read_parts(topic, &[(partition, offset, end)], &mut |record| {
                // Compaction may have taken it away.
                found = (record.offset() == offset).then(|| take(record));
                Ok(false)
            })?;
        }
        Ok(found)
    }

    fn read_parts(
        &self,
        topic: &str,
        parts: &[(i32, i64, i64)],
        see: &mut dyn FnMut(&BorrowedMessage<'_>) -> Result<bool>,
    ) -> Result<()> {
        let unseen = |error: KafkaError| self.unseen(&error);
        let mut list = TopicPartitionList::new();
        for (partition, start, _) in parts {
            let added = list.add_partition_offset(topic, *partition, Offset::Offset(*start));
            added.map_err(unseen)?;
        }
        let mut left: BTreeMap<i32, i64> = parts.iter().map(|(part, _, end)| (*part, *end)).collect();
        self.consumer.assign(&list).map_err(unseen)?;
        let mut until: Instant = clock::instant() + PATIENCE;
        while !left.is_empty() {
            match self.consumer.poll(Duration::from_millis(100)) {
                None if clock::instant() > until => {
                    let what = format!("reading topic `{topic}` does not get on");
                    return Err(Error::external(what).hint("is a transaction open in it?"));
                }
                None => continue,
                Some(Ok(record)) => match left.get(&record.partition()) {
                    Some(end) if record.offset() < *end => {
                        if !see(&record)? {
                            break;
                        }
                    }
                    _ => drop(left.remove(&record.partition())),
                },
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
                Some(Err(error)) => return Err(unseen(error)),
            }
            until = clock::instant() + PATIENCE;
        }
        self.consumer.unassign().map_err(unseen)
    }
}

fn unseen(topic: &str, kafka: &KafkaSettings, error: &KafkaError) -> Error {
    Error::external(format!(
        "cannot read topic `{topic}` of Kafka at {}",
        kafka.bootstrap
    ))
    .detail(error)
    .hint("is it running, and is that its address?")
}
