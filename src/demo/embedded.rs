//! An embedded Kafka broker for demos and tests: librdkafka's mock cluster.
//!
//! It speaks Kafka's protocol on ports of 127.0.0.1, so sources and sinks run against it unchanged. Its
//! limitations:
//!
//! * It keeps about 5 MB or 100,000 batches per partition in memory and drops the oldest beyond that: the
//!   log's start advances. A reader that requests dropped records gets the same error as after retention on a
//!   real broker, so a demo must be read as it is written, or write less.
//! * It keeps batches in a list that it scans from the log's start for each batch fetched. The cost grows
//!   with the square of the number of batches, so long-running writers should write several records per
//!   batch: [`LINGER`].
//! * Everything is lost with the process. There are no control records and no open transactions: aborted
//!   transactions are read, zombies are not fenced. It cannot demonstrate exactly-once.

use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _, ProducerContext};
use rdkafka::{ClientContext, Message};

use crate::connect::kafka::KafkaSettings;
use crate::connect::kafka::config::connection;
use crate::connect::kafka::properties::told;
use crate::error::{Error, Result};
use crate::time::EventTime;

/// How long a record written for demonstration may wait for others in its batch. This is not noticeable, and
/// at the demo's 200 events per second ten of them share a batch.
pub const LINGER: Duration = Duration::from_millis(50);

/// Brokers in this process. They end when this is dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

// SAFETY: the cluster runs on a thread of its own and takes requests through librdkafka's locked queues; the
// address list is written before `new` returns and never again.
unsafe impl Send for EmbeddedBroker {}
// SAFETY: as above.
unsafe impl Sync for EmbeddedBroker {}

impl EmbeddedBroker {
    /// Starts this many brokers on free ports of 127.0.0.1.
    pub fn start(brokers: u32) -> Result<Self> {
        let cluster = MockCluster::new(i32::try_from(brokers).unwrap_or(i32::MAX))
            .map_err(|error| Error::external("cannot start the embedded broker").detail(error))?;
        Ok(Self { cluster })
    }

    /// Addresses, as for the setting `kafka`.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Creates a topic.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        self.cluster
            .create_topic(name, i32::try_from(partitions).unwrap_or(i32::MAX), 1)
            .map_err(|error| Error::external(format!("cannot create topic `{name}`")).detail(error))
    }

    /// Takes broker `number`, counted from 1, off the network.
    pub fn stop_broker(&self, number: u32) -> Result<()> {
        Ok(self
            .cluster
            .broker_down(i32::try_from(number).unwrap_or(i32::MAX))?)
    }

    /// Brings it back.
    pub fn resume_broker(&self, number: u32) -> Result<()> {
        Ok(self
            .cluster
            .broker_up(i32::try_from(number).unwrap_or(i32::MAX))?)
    }
}

/// Writes records to any Kafka at full speed, to given partitions and with given timestamps.
///
/// A failed delivery is reported as an error of a later call, at the latest of [`Producer::flush`].
pub struct Producer {
    inner: BaseProducer<Deliveries>,
}

#[derive(Default)]
struct Deliveries {
    /// The first failure that was not reported yet.
    failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "thalweg::kafka", %error, reason, "producer error");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let failure = format!(
                "topic `{}`, partition {}: {error}",
                message.topic(),
                message.partition()
            );
            self.failure.lock().get_or_insert(failure);
        }
    }
}

impl Producer {
    /// A producer to the brokers at `bootstrap_servers`.
    pub fn new(bootstrap_servers: &str) -> Result<Self> {
        Self::of(&KafkaSettings::at(bootstrap_servers), Duration::from_millis(1))
    }

    /// A producer to a Kafka with its security settings. `linger`: how long a record may wait for others to
    /// share its batch.
    pub fn of(kafka: &KafkaSettings, linger: Duration) -> Result<Self> {
        let inner = connection(kafka)?
            .set("enable.idempotence", "true")
            .set("linger.ms", linger.as_millis().to_string())
            .set("batch.num.messages", "10000")
            .set("queue.buffering.max.messages", "500000")
            .set("socket.nagle.disable", "true")
            .set("message.timeout.ms", "30000")
            .create_with_context(Deliveries::default())
            .map_err(|error| Error::external("cannot make a Kafka producer").detail(told(&error)))?;
        Ok(Self { inner })
    }

    /// Queues one record; only waits while half a million are in flight.
    pub fn send(
        &self,
        topic: &str,
        partition: u32,
        timestamp: EventTime,
        key: Option<&[u8]>,
        payload: Option<&[u8]>,
    ) -> Result<()> {
        let number = i32::try_from(partition).map_err(|_| Error::request("no such partition"))?;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic)
            .partition(number)
            .timestamp(timestamp.millis());
        record.key = key;
        record.payload = payload;
        loop {
            match self.inner.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.inner.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(unwritten(topic, &error.to_string())),
            }
        }
        self.told(topic)
    }

    /// Waits until everything is delivered, at most `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<()> {
        let flushed = self.inner.flush(timeout);
        self.told("")?;
        flushed.map_err(|error| unwritten("", &error.to_string()))
    }

    /// Processes delivery reports. Call it regularly while nothing is sent.
    pub fn poll(&self) {
        self.inner.poll(Duration::ZERO);
    }

    fn told(&self, topic: &str) -> Result<()> {
        match self.inner.context().failure.lock().take() {
            None => Ok(()),
            Some(failure) => Err(unwritten(topic, &failure)),
        }
    }
}

/// Creates a topic on any Kafka; an existing one is left unchanged.
pub async fn create_topic(kafka: &KafkaSettings, name: &str, partitions: u32) -> Result<()> {
    let refused = |why: String| {
        Error::external(format!("cannot create topic `{name}` at {}", kafka.bootstrap)).detail(why)
    };
    let admin: AdminClient<DefaultClientContext> = connection(kafka)?
        .create()
        .map_err(|error| refused(told(&error)))?;
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
    let made = admin
        .create_topics([&topic], &options)
        .await
        .map_err(|error| refused(error.to_string()))?;
    match made.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
            Err(refused(code.to_string()))
        }
        _ => Ok(()),
    }
}

fn unwritten(topic: &str, why: &str) -> Error {
    let what = match topic {
        "" => "records could not be written to Kafka".to_owned(),
        topic => format!("records could not be written to topic `{topic}`"),
    };
    Error::external(what).detail(why)
}
