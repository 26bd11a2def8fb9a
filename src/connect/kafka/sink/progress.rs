//! What a shard has committed: the newest record of its partition of the progress topic, and what stands
//! behind that in the rows' topic.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::topics::SinkTopic;
use crate::clock;
use crate::connect::kafka::config;
use crate::error::{Error, Result};
use crate::sink::Progress;

/// Names of the headers that say which row of a sink a record is.
pub(super) const SINK: &str = "thalweg.sink";
pub(super) const LEDGER: &str = "thalweg.ledger";
pub(super) const EPOCH: &str = "thalweg.epoch";
pub(super) const SHARD: &str = "thalweg.shard";
pub(super) const SEQUENCE: &str = "thalweg.sequence";
/// By how many a row became more or fewer; of a changelog.
pub(super) const DIFF: &str = "thalweg.diff";

/// How long an attempt waits for the transactions of others, and for a record while it reads. What takes
/// longer is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one question to the broker may take.
const LOOK: Duration = Duration::from_secs(10);
/// Between two looks at where a transaction stands.
const PAUSE: Duration = Duration::from_millis(20);
/// How many offsets of a compacted partition are read for its last record at first: its end may be markers
/// of transactions.
const LAST_AT_FIRST: i64 = 64;

/// A record of the progress topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProgressRecord {
    #[serde(flatten)]
    pub progress: Progress,
    /// What the rows of the shard's transactions end before, by partition of the topic.
    pub ends: BTreeMap<i32, i64>,
}

/// Looks at what a sink has written.
pub(super) struct ProgressReader<'a> {
    target: &'a SinkTopic,
    /// Sees what is committed.
    committed: BaseConsumer,
    /// Sees how far a partition goes, whatever becomes of what is there.
    every: BaseConsumer,
}

/// Some of a partition: where it is read from, and what it ends before.
struct PartitionTail {
    partition: i32,
    from: i64,
    end: i64,
}

impl<'a> ProgressReader<'a> {
    pub(super) fn new(target: &'a SinkTopic) -> Result<Self> {
        let config = config::tail(&target.kafka, &target.group)?;
        let unseen = |error| target.unseen(&error);
        let every = config.clone().set("isolation.level", "read_uncommitted").create();
        Ok(Self {
            target,
            committed: config.create().map_err(unseen)?,
            every: every.map_err(unseen)?,
        })
    }

    /// The newest progress of a shard, if there is any.
    pub(super) fn newest(&self, sink: &str, shard: u32) -> Result<Option<ProgressRecord>> {
        let topic = self.target.progress_topic(sink);
        let partition = i32::try_from(shard).unwrap_or(i32::MAX);
        let (start, end) = self.bounds(&topic, partition)?;
        let mut newest: Option<Vec<u8>> = None;
        let mut some = LAST_AT_FIRST;
        while newest.is_none() && start < end {
            let from = (end - some).max(start);
            let part = PartitionTail { partition, from, end };
            let mut keep = |record: &BorrowedMessage<'_>| newest = record.payload().map(<[u8]>::to_vec);
            self.read(&topic, &[part], &mut keep)?;
            if from == start {
                break;
            }
            some *= 8;
        }
        let Some(bytes) = newest else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let what = format!("topic `{topic}` holds something else than a sink's progress");
            Error::integrity(what)
                .detail(format!("the newest record of partition {partition}: {error}"))
                .hint("nothing else may write there: take it away, or give the sink another name")
        })
    }

    /// Where the partitions of the rows' topic end now.
    pub(super) fn ends(&self, partitions: u32) -> Result<BTreeMap<i32, i64>> {
        let end = |partition| Ok((partition, self.bounds(&self.target.topic, partition)?.1));
        (0..partitions as i32).map(end).collect()
    }

    /// What the topic has behind a progress of a shard, up to these ends: the sequences of the shard's own
    /// rows. `name` is that of its transactions.
    pub(super) fn tail(
        &self,
        name: &str,
        behind: &ProgressRecord,
        ends: &BTreeMap<i32, i64>,
    ) -> Result<BTreeSet<u64>> {
        let topic = &self.target.topic;
        let mut parts = Vec::new();
        for (partition, end) in ends {
            let (partition, end) = (*partition, *end);
            let start = self.bounds(topic, partition)?.0;
            let from = behind.ends.get(&partition).copied().unwrap_or(start).max(start);
            if from < end {
                parts.push(PartitionTail { partition, from, end });
            }
        }
        let mut found = BTreeSet::new();
        self.read(topic, &parts, &mut |record| {
            let is_own = text(record, SINK) == Some(name)
                && number(record, LEDGER) == Some(behind.progress.ledger)
                && number(record, EPOCH) > Some(behind.progress.epoch.0);
            if is_own {
                found.extend(number(record, SEQUENCE));
            }
        })?;
        Ok(found)
    }

    /// Where a partition begins, and where it ends with all that was written to it, committed or not.
    fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let bounds = self.every.fetch_watermarks(topic, partition, LOOK);
        bounds.map_err(|error| self.target.unseen(&error))
    }

    /// Shows the committed records of some parts.
    fn read(
        &self,
        topic: &str,
        parts: &[PartitionTail],
        see: &mut dyn FnMut(&BorrowedMessage<'_>),
    ) -> Result<()> {
        let unseen = |error: KafkaError| self.target.unseen(&error);
        let mut until = clock::instant() + PATIENCE;
        let late = || {
            let what = format!("a transaction in topic `{topic}` does not end");
            Error::external(what).hint("is another producer writing there?")
        };
        // To a reader of what is committed a partition ends where a transaction is still open.
        for PartitionTail { partition, end, .. } in parts {
            let open = || self.committed.fetch_watermarks(topic, *partition, LOOK);
            while open().map_err(unseen)?.1 < *end {
                if clock::instant() > until {
                    return Err(late());
                }
                std::thread::sleep(PAUSE);
            }
        }
        let mut list = TopicPartitionList::new();
        for PartitionTail { partition, from, .. } in parts {
            let added = list.add_partition_offset(topic, *partition, Offset::Offset(*from));
            added.map_err(unseen)?;
        }
        self.committed.assign(&list).map_err(unseen)?;
        until = clock::instant() + PATIENCE;
        let mut left: BTreeMap<i32, i64> = parts.iter().map(|part| (part.partition, part.end)).collect();
        while !left.is_empty() {
            match self.committed.poll(Duration::from_millis(100)) {
                None => {}
                Some(Ok(record)) => {
                    // Reading may take its time, as long as it gets on.
                    until = clock::instant() + PATIENCE;
                    match left.get(&record.partition()) {
                        Some(end) if record.offset() < *end => see(&record),
                        _ => drop(left.remove(&record.partition())),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(left.remove(&partition)),
                Some(Err(error)) => return Err(unseen(error)),
            }
            if clock::instant() > until {
                return Err(self
                    .target
                    .unwritten(&format!("reading topic `{topic}` does not get on")));
            }
        }
        self.committed.unassign().map_err(unseen)
    }
}

fn text<'a>(record: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let header = record.headers()?.iter().find(|header| header.key == name)?;
    std::str::from_utf8(header.value?).ok()
}

fn number(record: &BorrowedMessage<'_>, name: &str) -> Option<u64> {
    text(record, name)?.parse().ok()
}
