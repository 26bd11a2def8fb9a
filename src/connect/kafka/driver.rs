//! Looks at a topic from outside the workers: its id, its partitions, where they begin and end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka_sys::rd_kafka_resp_err_t as Code;

use super::config;
use super::examine;
use super::native::{self, Consumer, OffsetBound};
use super::properties;
use super::queue::PartitionFault;
use super::settings::{KafkaSettings, NAME};
use super::status::{ClientStatus, StatusContext};
use crate::clock;
use crate::codec::compatibility::SubjectCompatibility;
use crate::codec::compatibility::subject::{self, Subject};
use crate::codec::registry::Registry;
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::position::{Offset, TopicId};
use crate::source::{Driver, Environment, PartitionFacts, SourceErrorKind, Start, Topology};

/// How long one look may take in all.
const LOOK: Duration = Duration::from_secs(5);
/// How long what seldom changes of a topic is taken to be as it was.
const STEADY: Duration = Duration::from_secs(5);

/// What seldom changes of a topic, and is not asked for at every look.
struct TopicMetadata {
    asked: Instant,
    topic: TopicId,
    compacted: bool,
    /// Where partitions begin. All that the topic had then are named.
    starts: BTreeMap<i32, Offset>,
}

/// The driver of one topic.
pub(super) struct KafkaDriver {
    topic: Arc<str>,
    kafka: KafkaSettings,
    registry: Option<Registry>,
    group: String,
    status: Arc<ClientStatus>,
    subjects: Vec<Subject>,
    waits: bool,
    /// Why the newest look failed.
    error_kind: Mutex<Option<SourceErrorKind>>,
    /// Whether the log's timestamps are the event times.
    timestamps: bool,
    start: Start,
    formats: Vec<(&'static str, String)>,
    /// Made at the first look.
    client: Mutex<Option<Consumer>>,
    metadata: Mutex<Option<Arc<TopicMetadata>>>,
}

impl KafkaDriver {
    pub(super) fn new(
        topic: Arc<str>,
        environment: &Environment,
        status: Arc<ClientStatus>,
        subjects: Vec<Subject>,
        timestamps: bool,
    ) -> Self {
        Self {
            topic,
            kafka: KafkaSettings::of(environment),
            registry: environment.registry.clone(),
            group: environment.group.clone(),
            status,
            subjects,
            waits: false,
            error_kind: Mutex::new(None),
            timestamps,
            start: Start::Earliest,
            formats: Vec::new(),
            client: Mutex::new(None),
            metadata: Mutex::new(None),
        }
    }

    /// Says how the records are written.
    pub(super) fn written(self, formats: &[(&'static str, &str)]) -> Self {
        let formats = formats.iter().map(|(part, format)| (*part, (*format).to_owned()));
        Self {
            formats: formats.collect(),
            ..self
        }
    }

    /// Begins elsewhere than at the log's start.
    pub(super) fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// The same, waiting for the topic at the start or not.
    pub(super) fn waiting(self, waits: bool) -> Self {
        Self { waits, ..self }
    }

    fn look(&self, client: &Consumer) -> Result<Topology> {
        let until = clock::instant() + LOOK;
        let broken = |fault: PartitionFault| -> Error {
            // With `debug` the cause stands behind thousands of lines.
            self.serve(client, 16_384);
            self.unseen(&fault)
        };
        let metadata = client
            .fetch_metadata(Some(&self.topic), left(until))
            .map_err(|error| broken(error.into()))?;
        let topic = metadata
            .topics()
            .first()
            .ok_or_else(|| Error::internal("an answer without a topic"))?;
        if let Some(code) = topic.error() {
            let text = rdkafka::types::RDKafkaErrorCode::from(code).to_string();
            return Err(self.unseen(&PartitionFault {
                code: code as i32,
                ..PartitionFault::told(text)
            }));
        }
        let broker = metadata.brokers().first().map_or(-1, |broker| broker.id());
        let numbers: Vec<i32> = topic
            .partitions()
            .iter()
            .map(|partition| partition.id())
            .collect();
        let metadata = self.metadata(client, broker, &numbers, until).map_err(&broken)?;
        let offsets = |bound| {
            native::offsets(client.client(), &self.topic, &numbers, bound, left(until)).map_err(&broken)
        };
        // In this order: what is still undecided below an end that was seen before is an open transaction.
        let (ends, stable) = (
            offsets(OffsetBound::HighWatermark)?,
            offsets(OffsetBound::LastStable)?,
        );
        let mut partitions: Vec<PartitionFacts> = numbers
            .iter()
            .map(|number| {
                let end = stable[number];
                PartitionFacts {
                    partition: number.unsigned_abs(),
                    start: metadata.starts[number],
                    end,
                    high_watermark: end.max(ends[number]),
                }
            })
            .collect();
        partitions.sort_unstable_by_key(|facts| facts.partition);
        Ok(Topology {
            topic: metadata.topic,
            compacted: metadata.compacted,
            partitions,
        })
    }

    /// What seldom changes, asked for again now and then, and when there are other partitions.
    fn metadata(
        &self,
        client: &Consumer,
        broker: i32,
        partitions: &[i32],
        until: Instant,
    ) -> Result<Arc<TopicMetadata>, PartitionFault> {
        let now = clock::instant();
        let mut known = self.metadata.lock();
        let fresh = known.as_ref().filter(|known| {
            now.saturating_duration_since(known.asked) < STEADY
                && known.starts.len() == partitions.len()
                && partitions
                    .iter()
                    .all(|partition| known.starts.contains_key(partition))
        });
        if let Some(fresh) = fresh {
            return Ok(fresh.clone());
        }
        let topic = native::topic_id(client.client(), broker, &self.topic, left(until))?;
        let starts = native::offsets(
            client.client(),
            &self.topic,
            partitions,
            OffsetBound::Start,
            left(until),
        )?;
        let metadata = Arc::new(TopicMetadata {
            asked: now,
            topic,
            compacted: self.is_compacted(client, broker, left(until))?,
            starts,
        });
        *known = Some(metadata.clone());
        Ok(metadata)
    }

    /// Whether the broker takes records of the topic away. Where it never tells, they are expected to stay,
    /// and a replay that misses some halts.
    fn is_compacted(
        &self,
        client: &Consumer,
        broker: i32,
        timeout: Duration,
    ) -> Result<bool, PartitionFault> {
        let policy = native::topic_setting(client.client(), broker, &self.topic, "cleanup.policy", timeout);
        let untold = [
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
            Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE,
        ];
        match policy {
            Ok(policy) => Ok(policy.is_some_and(|policy| policy.contains("compact"))),
            Err(fault) if untold.iter().any(|code| *code as i32 == fault.code) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    fn set_error_kind(&self, error_kind: SourceErrorKind) {
        *self.error_kind.lock() = Some(error_kind);
    }

    /// Takes logs and errors of the meantime, up to so many.
    fn serve(&self, client: &Consumer, events_max: usize) {
        for _ in 0..events_max {
            let _event = client.poll(Duration::ZERO);
        }
    }

    fn unseen(&self, fault: &PartitionFault) -> Error {
        let (topic, kafka) = (&self.topic, &self.kafka.bootstrap);
        let is = |codes: &[Code]| codes.iter().any(|known| *known as i32 == fault.code);
        if is(&[
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        ]) {
            self.set_error_kind(SourceErrorKind::Missing);
            return Error::external(format!("there is no topic `{topic}`"))
                .detail(format!("asked of Kafka at {kafka}"))
                .hint(
                    "create it (`topics create`), look for a slip of the pen in its name, or let the \
                    source `.wait_for_topic()`",
                );
        }
        if is(&[
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
            Code::RD_KAFKA_RESP_ERR__AUTHENTICATION,
        ]) {
            self.set_error_kind(SourceErrorKind::Refused);
            return Error::external(format!("Kafka at {kafka} does not let us read topic `{topic}`"))
                .detail(&fault.text)
                .hint("set the credentials in `kafka.properties`, and allow Describe and Read");
        }
        if is(&[
            Code::RD_KAFKA_RESP_ERR__TIMED_OUT,
            Code::RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE,
            Code::RD_KAFKA_RESP_ERR__TRANSPORT,
            Code::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
            Code::RD_KAFKA_RESP_ERR__RESOLVE,
        ]) {
            let (what, hint) = self.status.advice();
            self.set_error_kind(self.status.error_kind());
            let error = Error::external(format!("{what} {kafka}"))
                .detail(format!("wanted to look at topic `{topic}`: {}", fault.text));
            let error = match self.status.trouble() {
                Some(trouble) => error.detail(trouble),
                None => error,
            };
            return error.hint(hint);
        }
        self.set_error_kind(SourceErrorKind::Other);
        Error::external(format!("cannot look at topic `{topic}`"))
            .detail(format!("Kafka at {kafka}: {}", fault.text))
            .hint("brokers that are starting or moving partitions get over this by themselves")
    }
}

impl Driver for KafkaDriver {
    fn topology(&self) -> Result<Topology> {
        let mut slot = self.client.lock();
        if slot.is_none() {
            let client = config::driver(&self.kafka)?
                .create_with_context(StatusContext(self.status.clone()))
                .map_err(|error| {
                    Error::definition("cannot make a Kafka client")
                        .detail(properties::told(&error))
                        .hint("look at the settings `kafka.bootstrap` and `kafka.properties`")
                })?;
            *slot = Some(client);
        }
        let Some(client) = slot.as_ref() else {
            return Err(Error::internal("no Kafka client"));
        };
        let seen = self.look(client);
        if seen.is_ok() {
            self.status.well();
            *self.error_kind.lock() = None;
        } else {
            // It may be another topic of this name when it is seen again.
            *self.metadata.lock() = None;
        }
        // A few are enough: the next look serves the next ones.
        self.serve(client, 64);
        seen
    }

    fn formats(&self) -> Vec<(&'static str, String)> {
        self.formats.clone()
    }

    fn starts(&self, topology: &Topology) -> Result<Vec<(u32, Offset)>> {
        let slot = self.client.lock();
        let client = slot
            .as_ref()
            .ok_or_else(|| Error::internal("asked where to start before the topic was looked at"))?;
        self.start
            .of(client, &self.topic, topology, LOOK)
            .map_err(|error| self.unseen(&error.into()))
    }

    fn examine(&self, runtime: &tokio::runtime::Handle) -> Vec<Finding> {
        examine::examine(&self.kafka, &self.topic, self.timestamps, runtime)
    }

    fn trouble(&self) -> Option<String> {
        self.status.trouble()
    }

    fn error_kind(&self) -> Option<SourceErrorKind> {
        *self.error_kind.lock()
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn open_transaction_hint(&self) -> &'static str {
        "`kafka-transactions.sh find-hanging` names one that nobody ends, and aborts it"
    }

    fn connector(&self) -> Option<&'static str> {
        Some(NAME)
    }

    fn configured(&self) -> Option<Result<()>> {
        Some(config::servers(&self.kafka).map(drop))
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("bootstrap", self.kafka.bootstrap.clone()),
            ("group", self.group.clone()),
        ]
    }

    fn fits(&self) -> Vec<SubjectCompatibility> {
        match &self.registry {
            Some(registry) => subject::compare(&self.subjects, registry),
            None => Vec::new(),
        }
    }
}

fn left(until: Instant) -> Duration {
    until
        .saturating_duration_since(clock::instant())
        .max(Duration::from_millis(1))
}
