//! A real Kafka broker, and what a test does to it: topics, records, a crash.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::block_on;
use super::server::Server;

const SCRIPT: &str = "kafka.sh";
/// For one call; a broker of its own on a loaded machine still answers within it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker of one node on 127.0.0.1. It ends when it is dropped, and with the test process at the latest.
///
/// Topics aren't made by use; records expire by no time and may bear any time.
pub struct Broker {
    server: Server,
}

/// The listeners of a broker with security.
pub struct Secure {
    /// `host:port` of SASL over TLS: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512.
    pub sasl: String,
    /// `host:port` of TLS without a login.
    pub ssl: String,
    /// The authority's certificate, a file.
    pub ca: String,
}

/// A record as a consumer of committed records sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key, if any.
    pub key: Option<Vec<u8>>,
    /// Its value; none in a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its time in milliseconds.
    pub ts_ms: Option<i64>,
    /// Names and texts.
    pub headers: BTreeMap<String, String>,
}

impl Broker {
    /// Starts a broker of this test's own: one that it may kill, or sees alone. It takes 4 s and more.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of the broker, such as `("message.max.bytes", "10000000")`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let args: Vec<String> = settings
            .iter()
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect();
        Self {
            server: Server::start(SCRIPT, &args, answers),
        }
    }

    /// A broker with two more listeners, for this user: SASL over TLS, and TLS alone. See [`Broker::secure`].
    pub fn start_secure(user: &str, password: &str) -> Self {
        let args = ["--secure".to_owned(), format!("{user}:{password}")];
        Self {
            server: Server::start(SCRIPT, &args, answers),
        }
    }

    /// Where the listeners of [`Broker::start_secure`] are, and whom their certificate is signed by.
    pub fn secure(&self) -> Secure {
        let folder = self.server.folder().join("secure");
        let address = |name: &str| {
            let text = std::fs::read_to_string(folder.join(name)).expect("the script writes it");
            text.trim().to_owned()
        };
        Secure {
            sasl: address("sasl"),
            ssl: address("ssl"),
            ca: folder.join("ca.pem").to_str().expect("paths are text").to_owned(),
        }
    }

    /// The broker that all tests of this process share: for those that use topics with names of their own,
    /// and neither kill nor pause it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// `host:port`, the same after a restart.
    pub fn bootstrap(&self) -> String {
        bootstrap(self.server.port())
    }

    /// A client's configuration that names this broker.
    pub fn client(&self) -> ClientConfig {
        client(self.server.port())
    }

    /// Kills the process as a power failure would.
    pub fn kill9(&self) {
        self.server.end(libc::SIGKILL);
    }

    /// Asks it to shut down, and waits until it has.
    pub fn stop(&self) {
        self.server.end(libc::SIGTERM);
    }

    /// Starts it again on the same port and data; kills it before if it runs. Returns when it serves.
    pub fn restart(&self) {
        self.kill9();
        self.server.start_again(answers);
    }

    /// Freezes the process: connections stay open and nothing is answered.
    pub fn pause(&self) {
        self.server.signal(libc::SIGSTOP);
    }

    /// Thaws it.
    pub fn resume(&self) {
        self.server.signal(libc::SIGCONT);
    }

    /// Makes a topic, and returns when all its partitions have a leader.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// The same with settings of the topic, such as `("cleanup.policy", "compact")`.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let results = block_on(self.admin().create_topics([&topic], &admin_options()));
        for result in results.unwrap_or_else(|error| panic!("topic {name} could not be made: {error}")) {
            result.unwrap_or_else(|(_, code)| panic!("topic {name} could not be made: {code}"));
        }
        self.await_partitions(name, partitions);
    }

    /// Grows a topic to `partitions`, and returns when all have a leader.
    pub fn grow_topic(&self, name: &str, partitions: i32) {
        let growth = NewPartitions::new(
            name,
            usize::try_from(partitions).expect("a count is not negative"),
        );
        let results = block_on(self.admin().create_partitions([&growth], &admin_options()));
        for result in results.unwrap_or_else(|error| panic!("topic {name} could not grow: {error}")) {
            result.unwrap_or_else(|(_, code)| panic!("topic {name} could not grow: {code}"));
        }
        self.await_partitions(name, partitions);
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) {
        let results = block_on(self.admin().delete_topics(&[name], &admin_options()));
        for result in results.unwrap_or_else(|error| panic!("topic {name} could not be deleted: {error}")) {
            result.unwrap_or_else(|(_, code)| panic!("topic {name} could not be deleted: {code}"));
        }
    }

    /// Deletes the records of a partition before `offset`, as retention would.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut until = TopicPartitionList::new();
        until
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .expect("an offset is one");
        let results = block_on(self.admin().delete_records(&until, &admin_options()));
        results.unwrap_or_else(|error| panic!("records of {topic} could not be deleted: {error}"));
    }

    /// Writes records `(key, value, time in ms, not 0)` in this order, and returns the offsets they got once
    /// all are acknowledged.
    pub fn produce<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        topic: &str,
        partition: i32,
        records: &[(K, V, i64)],
    ) -> Range<i64> {
        let records = records
            .iter()
            .map(|(key, value, ts_ms)| (Some(key.as_ref()), Some(value.as_ref()), *ts_ms));
        self.produce_raw(topic, partition, records)
    }

    /// The same where keys and values may be null: records without a key, and tombstones.
    pub fn produce_raw<'a>(
        &self,
        topic: &str,
        partition: i32,
        records: impl IntoIterator<Item = (Option<&'a [u8]>, Option<&'a [u8]>, i64)>,
    ) -> Range<i64> {
        let mut config = self.client();
        // Idempotent, so that a retry neither doubles nor reorders.
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("queue.buffering.max.messages", "1000000");
        let producer = BaseProducer::from_config_and_context(&config, Receipts::default())
            .expect("the producer's configuration is right");
        let mut sent = 0;
        for (key, value, ts_ms) in records {
            assert_ne!(
                ts_ms, 0,
                "librdkafka takes time 0 for now: no record can be given it"
            );
            let mut record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(partition)
                .timestamp(ts_ms);
            record.key = key;
            record.payload = value;
            while let Err((error, refused)) = producer.send(record) {
                assert_eq!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::QueueFull),
                    "{topic}-{partition}: {error}"
                );
                producer.poll(Duration::from_millis(10));
                record = refused;
            }
            sent += 1;
        }
        producer
            .flush(PATIENCE)
            .unwrap_or_else(|error| panic!("{topic}-{partition}: {error}"));
        let receipts = producer
            .context()
            .offsets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let offsets: Vec<i64> = receipts
            .iter()
            .map(|receipt| {
                receipt
                    .clone()
                    .unwrap_or_else(|error| panic!("{topic}-{partition}: {error}"))
            })
            .collect();
        assert_eq!(
            offsets.len(),
            sent,
            "{topic}-{partition}: every record has its receipt"
        );
        match (offsets.iter().min(), offsets.iter().max()) {
            (Some(first), Some(last)) => *first..last + 1,
            _ => 0..0,
        }
    }

    /// All committed records of a topic, up to its last stable offset as of now, by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Consumed> {
        let mut config = self.client();
        config
            .set("group.id", "thalweg-test")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true");
        let consumer = BaseConsumer::from_config(&config).expect("the consumer's configuration is right");
        let partitions = self.partitions(topic);
        let mut positions = TopicPartitionList::new();
        for partition in 0..partitions {
            positions
                .add_partition_offset(topic, partition, Offset::Beginning)
                .expect("a beginning is an offset");
        }
        consumer.assign(&positions).expect("partitions can be assigned");
        let mut read = Vec::new();
        let mut ends = 0;
        let deadline = Instant::now() + PATIENCE;
        while ends < partitions {
            assert!(
                Instant::now() < deadline,
                "{topic}: not read to its end within {PATIENCE:?}"
            );
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => ends += 1,
                Some(Err(error)) => panic!("{topic}: {error}"),
                Some(Ok(message)) => read.push(consumed(&message)),
            }
        }
        read.sort_by_key(|record| (record.partition, record.offset));
        read
    }

    /// Hands over committed records of a topic as they come, from the first on, until it is told to stop; a
    /// broker that is away for a while is waited for.
    pub fn follow(&self, topic: &str, stop: &AtomicBool, mut each: impl FnMut(Consumed)) {
        let mut config = self.client();
        config
            .set("group.id", "thalweg-test")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.wait.max.ms", "50")
            .set("reconnect.backoff.max.ms", "200");
        let consumer: BaseConsumer = config.create().expect("the consumer's configuration is right");
        let mut positions = TopicPartitionList::new();
        for partition in 0..self.partitions(topic) {
            positions
                .add_partition_offset(topic, partition, Offset::Beginning)
                .expect("a beginning is an offset");
        }
        consumer.assign(&positions).expect("partitions can be assigned");
        while !stop.load(Ordering::Acquire) {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                each(consumed(&message));
            }
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        AdminClient::from_config(&self.client()).expect("the client's configuration is right")
    }

    /// How many partitions a topic has whose leader is known.
    fn partitions(&self, topic: &str) -> i32 {
        let consumer =
            BaseConsumer::from_config(&self.client()).expect("the client's configuration is right");
        let metadata = consumer
            .fetch_metadata(Some(topic), PATIENCE)
            .expect("the broker answers");
        let led = metadata.topics()[0]
            .partitions()
            .iter()
            .filter(|p| p.error().is_none() && p.leader() >= 0)
            .count();
        i32::try_from(led).expect("few partitions")
    }

    /// Whether the broker knows a topic.
    pub fn has_topic(&self, name: &str) -> bool {
        let consumer =
            BaseConsumer::from_config(&self.client()).expect("the client's configuration is right");
        let metadata = consumer
            .fetch_metadata(None, PATIENCE)
            .expect("the broker answers");
        metadata.topics().iter().any(|topic| topic.name() == name)
    }

    fn await_partitions(&self, topic: &str, partitions: i32) {
        let deadline = Instant::now() + PATIENCE;
        while self.partitions(topic) < partitions {
            assert!(
                Instant::now() < deadline,
                "topic {topic}: not all {partitions} partitions have a leader"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Offset or error of every record, as the broker acknowledged them.
#[derive(Default)]
struct Receipts {
    offsets: Mutex<Vec<Result<i64, KafkaError>>>,
}

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let receipt = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.offsets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(receipt);
    }
}

/// Whether the broker answers a request for metadata and is itself among the brokers: by then it makes
/// topics.
fn answers(port: u16) -> bool {
    // A connection first: librdkafka waits longer and longer between its own attempts.
    if std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        return false;
    }
    let consumer = BaseConsumer::from_config(&client(port)).expect("the client's configuration is right");
    consumer
        .fetch_metadata(None, Duration::from_secs(5))
        .is_ok_and(|metadata| !metadata.brokers().is_empty())
}

fn bootstrap(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn client(port: u16) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap(port));
    config
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE))
}

fn consumed(message: &BorrowedMessage<'_>) -> Consumed {
    Consumed {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        ts_ms: message.timestamp().to_millis(),
        headers: headers(message),
    }
}

fn headers(message: &BorrowedMessage<'_>) -> BTreeMap<String, String> {
    let all = message.headers().into_iter().flat_map(|headers| headers.iter());
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    all.map(|header| (header.key.to_owned(), text(header.value)))
        .collect()
}
