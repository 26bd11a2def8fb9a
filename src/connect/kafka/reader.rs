//! Reads partitions on a worker's thread: straight from librdkafka's buffers into an [`Intake`], without
//! waiting.
//!
//! ```text
//!   queue of partition ──▶ head? ─┬─ record before `until` ─▶ decode ─┬─ value, dead ─▶ Intake, pop
//!      (PartitionMessages)        │                                   └─ wait ────────▶ stays, and all after it
//!                                 ├─ record at or past `until` ──────────────────────▶ stays
//!                                 ├─ end of partition ─▶ position passes holes, pop
//!                                 └─ fault ─▶ remembered, or an error that halts
//! ```
//!
//! Offsets have holes: control records of transactions, aborted records, what compaction removed. A position
//! passes a hole when the record after it is seen, or when librdkafka says that the partition's end was
//! reached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::config;
use super::native::{self, Consumer, PartitionQueue};
use super::properties;
use super::queue::{PartitionFault, PartitionMessages, QueueItem};
use super::settings::KafkaSettings;
use super::status::{ClientStatus, StatusContext};
use crate::bridge::Waker;
use crate::codec::Decoded;
use crate::codec::registry::Verdict;
use crate::error::{Error, Result};
use crate::position::Offset;
use crate::source::records::Records;
use crate::source::{Environment, Intake, ReadProgress, Reader};

/// How long an error message may take to find out where a log begins.
const LOG_START_WAIT: Duration = Duration::from_secs(2);

/// One partition: what has arrived, and how far it was read.
struct PartitionReader<Q> {
    arrivals: Q,
    /// Everything before this was read, or is known to be a hole.
    next: Offset,
    /// The position as it was last told: `next`, but held at the `until` of its call.
    told: Offset,
    /// Nothing has arrived since librdkafka reached the end.
    at_end: bool,
}

impl<Q: PartitionMessages> PartitionReader<Q> {
    fn new(arrivals: Q, from: Offset) -> Self {
        Self {
            arrivals,
            next: from,
            told: from,
            at_end: false,
        }
    }

    /// As [`Reader::read`]. `fault` decides which faults are errors.
    fn read<T, R: Records<T>>(
        &mut self,
        until: Offset,
        records_max: usize,
        records: &mut R,
        intake: &mut Intake<T>,
        mut fault: impl FnMut(PartitionFault) -> Result<()>,
    ) -> Result<ReadProgress> {
        let mut left = records_max;
        let mut emptied = false;
        let more = loop {
            let Some(item) = self.arrivals.head() else {
                if emptied {
                    break false;
                }
                emptied = self.arrivals.fetch();
                continue;
            };
            match item {
                QueueItem::Record(raw) => {
                    if raw.offset < self.next {
                        let back = format!("the log went back from offset {} to {}", self.next, raw.offset);
                        return Err(Error::internal(back));
                    }
                    self.next = raw.offset;
                    self.at_end = false;
                    if raw.offset >= until {
                        break false;
                    }
                    if left == 0 {
                        break true;
                    }
                    intake.at_work(raw.offset);
                    let letters = intake.dead_len();
                    match records.decode(&raw) {
                        Decoded::Value(value) => intake.value(raw, value),
                        Decoded::Dead(cause, schema) => intake.dead(raw, cause, schema),
                        Decoded::DeadAt(cause, schema, place) => intake.dead_at(raw, cause, schema, place),
                        Decoded::Wait => break false,
                    }
                    self.next = raw.offset + 1;
                    left -= 1;
                    if intake.dead_len() > letters {
                        intake.headers(self.arrivals.headers());
                    }
                }
                QueueItem::End(offset) => {
                    self.next = self.next.max(offset);
                    self.at_end = true;
                }
                QueueItem::Fault(found) => fault(found)?,
            }
            self.arrivals.pop();
        };
        self.told = self.told.max(self.next.min(until));
        Ok(ReadProgress {
            position: self.told,
            at_end: self.at_end,
            more,
        })
    }
}

/// The reader of one worker.
pub(super) struct KafkaReader<R> {
    subscription: Box<Subscription>,
    records: R,
}

/// All of a reader that does not know what records become, so that it is compiled once.
pub(super) struct Subscription {
    topic: Arc<str>,
    kafka: KafkaSettings,
    group: String,
    partitions: BTreeMap<u32, PartitionReader<PartitionQueue>>,
    /// Assigned and not yet asked of librdkafka: the first ones wait for the consumer, which is made for
    /// their number.
    assigned: Vec<(u32, Offset)>,
    consumer: Option<Arc<Consumer>>,
    /// Set when the consumer's own queue has something: logs, errors, answers to commits.
    events: Arc<AtomicBool>,
    status: Arc<ClientStatus>,
    waker: Waker,
}

impl<R> KafkaReader<R> {
    /// Reads the partitions of a subscription.
    pub(super) fn new(subscription: Subscription, records: R) -> Self {
        Self {
            subscription: Box::new(subscription),
            records,
        }
    }
}

impl Subscription {
    /// A subscription to nothing yet. Connects at the first read after an assignment.
    pub(super) fn new(
        topic: Arc<str>,
        environment: &Environment,
        status: Arc<ClientStatus>,
        waker: Waker,
    ) -> Self {
        Self {
            topic,
            kafka: KafkaSettings::of(environment),
            group: environment.group.clone(),
            partitions: BTreeMap::new(),
            assigned: Vec::new(),
            consumer: None,
            events: Arc::new(AtomicBool::new(false)),
            status,
            waker,
        }
    }

    /// The consumer, made when there is something to assign.
    fn connected(&mut self) -> Result<Arc<Consumer>> {
        if let Some(consumer) = &self.consumer {
            return Ok(consumer.clone());
        }
        let context = StatusContext(self.status.clone());
        let mut consumer: Consumer = config::reader(&self.kafka, &self.group, self.assigned.len())?
            .create_with_context(context)
            .map_err(|error| {
                Error::definition(format!("cannot make a Kafka consumer for topic `{}`", self.topic))
                    .detail(properties::told(&error))
                    .hint("look at the settings `kafka.bootstrap` and `kafka.properties`")
            })?;
        let (events, waker) = (self.events.clone(), self.waker.clone());
        consumer.set_nonempty_callback(move || {
            events.store(true, Ordering::Release);
            waker.wake();
        });
        let consumer = Arc::new(consumer);
        self.consumer = Some(consumer.clone());
        Ok(consumer)
    }

    /// Tells librdkafka of the partitions that were assigned since the last call. Their queues come first.
    fn start(&mut self) -> Result<()> {
        let consumer = self.connected()?;
        let mut list = TopicPartitionList::with_capacity(self.assigned.len());
        for (partition, from) in std::mem::take(&mut self.assigned) {
            let queue = PartitionQueue::new(&consumer, &self.topic, partition, self.waker.clone())?;
            self.partitions
                .insert(partition, PartitionReader::new(queue, from));
            list.add_partition_offset(&self.topic, partition as i32, rdkafka::Offset::Offset(from))?;
        }
        consumer.incremental_assign(&list).map_err(|error| {
            Error::internal(format!("cannot assign partitions of topic `{}`", self.topic)).detail(error)
        })
    }

    /// Serves the consumer's own queue when it has something. Its callback comes on empty to not empty only,
    /// so it is emptied; a flood is left to the next wake-up.
    fn serve(&mut self) -> Result<()> {
        if !self.events.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let Some(consumer) = &self.consumer else {
            return Ok(());
        };
        let mut budget = 256;
        while native::events_waiting(consumer) > 0 {
            if budget == 0 {
                self.events.store(true, Ordering::Release);
                self.waker.wake();
                break;
            }
            budget -= 1;
            match consumer.poll(Duration::ZERO) {
                None => {}
                Some(Err(error)) => self.status.record(error.to_string()),
                // Every partition has a queue of its own.
                Some(Ok(_)) => {
                    return Err(Error::internal(format!(
                        "a record of `{}` went astray",
                        self.topic
                    )));
                }
            }
        }
        Ok(())
    }

    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        let known =
            self.partitions.contains_key(&partition) || self.assigned.iter().any(|(p, _)| *p == partition);
        if known || from < 0 || i32::try_from(partition).is_err() {
            let what = format!(
                "partition {partition} of topic `{}` can't be assigned at offset {from}",
                self.topic
            );
            return Err(Error::internal(what));
        }
        self.assigned.push((partition, from));
        self.waker.wake();
        Ok(())
    }

    /// A partition, once librdkafka knows of it, and who judges its faults.
    fn partition(
        &mut self,
        partition: u32,
    ) -> Result<(&mut PartitionReader<PartitionQueue>, FaultClassifier<'_>)> {
        if !self.assigned.is_empty() {
            self.start()?;
        }
        self.serve()?;
        let judge = FaultClassifier {
            topic: &self.topic,
            partition,
            status: &self.status,
            consumer: self.consumer.as_deref(),
        };
        match self.partitions.get_mut(&partition) {
            Some(found) => Ok((found, judge)),
            None => Err(Error::internal(format!(
                "partition {partition} of topic `{}` was not assigned",
                self.topic
            ))),
        }
    }

    fn show_progress(&self, positions: &[(u32, Offset)]) {
        let Some(consumer) = &self.consumer else { return };
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for &(partition, position) in positions {
            let Ok(partition) = i32::try_from(partition) else {
                continue;
            };
            // Only a logical offset out of range is refused, and a position is none.
            let _refused =
                list.add_partition_offset(&self.topic, partition, rdkafka::Offset::Offset(position));
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(target: "thalweg::kafka", %error, "cannot report progress to the consumer group");
        }
    }
}

impl<T: 'static, R: Records<T>> Reader<T> for KafkaReader<R> {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        self.subscription.assign(partition, from)
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<ReadProgress> {
        let (part, judge) = self.subscription.partition(partition)?;
        let before = part.next;
        self.records.enter(partition, until != Offset::MAX);
        let progress = part.read(until, records_max, &mut self.records, intake, |fault| {
            judge.judge(fault)
        })?;
        if part.next != before {
            judge.status.well();
        }
        match self.records.broken() {
            Some(error) => Err(error),
            None => Ok(progress),
        }
    }

    fn behind(&self, partition: u32) -> Option<u64> {
        let partition = self.subscription.partitions.get(&partition)?;
        let end = partition.arrivals.end()?;
        Some(u64::try_from(end - partition.next).unwrap_or(0))
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        self.records.schemas_seen()
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.records.bind_schema(verdict);
    }

    fn show_progress(&mut self, positions: &[(u32, Offset)]) {
        self.subscription.show_progress(positions);
    }
}

/// Tells what librdkafka gets over by itself from what must halt the source.
struct FaultClassifier<'a> {
    topic: &'a str,
    partition: u32,
    status: &'a ClientStatus,
    consumer: Option<&'a Consumer>,
}

impl FaultClassifier<'_> {
    fn judge(&self, fault: PartitionFault) -> Result<()> {
        let FaultClassifier {
            topic,
            partition,
            status,
            consumer,
        } = *self;
        let at = |text: &str| match fault.offset {
            offset if offset >= 0 => format!("partition {partition}, offset {offset}: {text}"),
            _ => format!("partition {partition}: {text}"),
        };
        let is = |codes: &[Code]| codes.iter().any(|code| *code as i32 == fault.code);
        if is(&[
            Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
            Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
        ]) {
            let bounds =
                consumer.and_then(|c| c.fetch_watermarks(topic, partition as i32, LOG_START_WAIT).ok());
            let bounds = match bounds {
                Some((start, end)) => {
                    format!(
                        "partition {partition} holds offsets {start} to {end}, {} is needed",
                        fault.offset
                    )
                }
                None => format!(
                    "partition {partition} does not hold offset {}, which is needed",
                    fault.offset
                ),
            };
            return Err(
            Error::integrity(format!("topic `{topic}` no longer holds what is to be read"))
                .detail(bounds)
                .detail(fault.text)
                .hint(
                    "raise the topic's retention beyond the longest time that the service may be away; to go \
                on without what is lost, start afresh",
                ),
        );
        }
        if is(&[
            Code::RD_KAFKA_RESP_ERR__BAD_MSG,
            Code::RD_KAFKA_RESP_ERR__BAD_COMPRESSION,
            Code::RD_KAFKA_RESP_ERR__NOT_IMPLEMENTED,
        ]) {
            return Err(Error::integrity(format!(
                "records of topic `{topic}` can't be taken out of their batch"
            ))
            .detail(at(&fault.text))
            .hint("the batch is damaged, or compressed in a way that this build does not know"));
        }
        if is(&[Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]) {
            return Err(
                Error::external(format!("a record of topic `{topic}` is too large"))
                    .detail(at(&fault.text))
                    .hint("raise `receive.message.max.bytes` and `fetch.max.bytes` in `kafka.properties`"),
            );
        }
        if is(&[
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR__FATAL,
        ]) {
            return Err(Error::external(format!("cannot read topic `{topic}`"))
                .detail(at(&fault.text))
                .hint("was the topic deleted, or the right to read it taken away?"));
        }
        status.record(format!("topic `{topic}`, {}", at(&fault.text)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
