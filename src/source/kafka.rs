//! Kafka topics as sources.
//!
//! ```text
//!   Kafka::topic("t").json::<T>() ─▶ Topic<T>: Source<T> ── .keyed::<K>() ─▶ KeyedTopic<K, T>: UpsertSource<K, T>
//!                                        │ open
//!             ┌──────────────────────────┴───────────────┐
//!             ▼                                          ▼
//!        KafkaDriver: topic id, partitions,         KafkaReader, one a worker: one consumer, manual assignment,
//!        log start and last stable offset           a queue a partition, decoded in librdkafka's buffers
//! ```
//!
//! Records are read as committed. The ledger says from where; the consumer group only shows progress to lag tools.

pub mod admin;
pub(crate) mod config;
mod decoders;
mod driver;
mod examine;
mod format;
mod native;
mod reader;
mod start;
mod status;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

pub use self::format::Avsc;

use self::driver::{KafkaDriver, Subject};
use self::format::Format;
use self::reader::{KafkaReader, Keyed, Payload};
use self::status::Status;
use super::{Deletes, Environment, Opened, Source, Start, TimeRules, UpsertSource};
use crate::bridge::Waker;
use crate::error::{Error, Result};
use crate::record::Event;
use crate::time::EventTime;

/// A topic whose format is still to be named.
///
/// ```
/// use std::time::Duration;
/// use thalweg::{EventTime, source::kafka::Kafka};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Payment { at_ms: i64 }
/// let payments = Kafka::topic("payments.transactions.v1")
///     .json::<Payment>()
///     .event_time(|p| EventTime::from_millis(p.at_ms))
///     .lateness(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Kafka {
    topic: Arc<str>,
}

impl Kafka {
    /// The topic with this name.
    pub fn topic(name: &str) -> Self {
        Self { topic: name.into() }
    }

    /// Payloads are Avro in the wire format of Confluent's serializers, schemas by id from the registry.
    pub fn avro<T>(self) -> Topic<T> {
        Topic::new(self.topic, Format::Avro { reader: None })
    }

    /// Payloads are Avro without a header, all of them written in this schema. No registry takes part.
    pub fn avro_plain<T>(self, writer: impl Into<Avsc>) -> Topic<T> {
        let writer = writer.into();
        Topic::new(self.topic, Format::AvroPlain { writer, reader: None })
    }

    /// Payloads are JSON. Fields that `T` lacks are passed over.
    pub fn json<T>(self) -> Topic<T> {
        Topic::new(self.topic, Format::Json { strict: false })
    }

    /// Payloads are JSON, and a field that `T` lacks, at any depth, makes the record a dead letter that names the field.
    /// It costs an allocation a field. What serde buffers can't be watched: see [`Strict`](crate::codec::json::Strict).
    pub fn json_strict<T>(self) -> Topic<T> {
        Topic::new(self.topic, Format::Json { strict: true })
    }

    /// Payloads are the bare text of one value, in UTF-8: `text::<String>()` for strings, `text::<u64>()` for `42`.
    pub fn text<T>(self) -> Topic<T> {
        Topic::new(self.topic, Format::Text)
    }

    /// Payloads are bytes: `bytes::<Vec<u8>>()` takes them as they are; numbers are big-endian and of the type's width, as
    /// Kafka's own serializers write them.
    pub fn bytes<T>(self) -> Topic<T> {
        Topic::new(self.topic, Format::Bytes)
    }
}

/// A topic of `T`: a source of events, and where sinks write rows.
#[must_use]
pub struct Topic<T> {
    pub(crate) name: Arc<str>,
    pub(crate) format: Format,
    rules: TimeRules<T>,
    start: Start,
    waits: bool,
    mistake: Option<&'static str>,
}

impl<T> Topic<T> {
    fn new(name: Arc<str>, format: Format) -> Self {
        Self {
            name,
            format,
            rules: TimeRules::default(),
            start: Start::Earliest,
            waits: false,
            mistake: None,
        }
    }

    time_rules!();

    /// Where reading begins when the ledger knows nothing of this source yet. From then on the ledger knows: later starts go
    /// on where it says, and partitions that are added to the topic are read from their beginning. Default: the log's start.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Waits for the topic at the start, where it is not there yet or no broker answers: the log says so once, metrics and
    /// `/health/ready` do while it lasts. Without it the service does not start, and says why within some seconds. Once it
    /// runs, a broker that is away is waited for in any case.
    pub fn wait_for_topic(mut self) -> Self {
        self.waits = true;
        self
    }

    /// The reader's schema: what Avro payloads are resolved to, by Avro's rules, before `T` is made of them. Without it,
    /// `T` is made of what the writer's schema says.
    pub fn avro_schema(mut self, reader: impl Into<Avsc>) -> Self {
        match self.format.with_reader(reader.into()) {
            Ok(format) => self.format = format,
            Err(format) => {
                self.format = format;
                self.mistake = Some("a reader's Avro schema is given for payloads that are no Avro");
            }
        }
        self
    }

    /// Rows by key: the last value of a key wins, a record without payload deletes, and one that is null in its format
    /// (see [`KeyedTopic::deletes`]). Keys are decoded from the records' keys, in the payloads' format unless another is
    /// named; beside plain Avro they are bare text.
    pub fn keyed<K>(self) -> KeyedTopic<K, T> {
        KeyedTopic {
            name: self.name,
            format: self.format,
            key_format: None,
            deletes: Deletes::default(),
            waits: self.waits,
            mistake: self.mistake,
            rows: PhantomData,
        }
    }
}

impl<T: Event> Source<T> for Topic<T> {
    fn open(self, env: &Environment) -> Result<Opened<T>> {
        let format = ready(self.format, self.mistake)?;
        let (env, topic, status) = (env.clone(), self.name, Arc::new(Status::default()));
        let subjects = Subject::of::<T>(&topic, "value", &format).into_iter().collect();
        let timestamps = self.rules.event_time.is_none();
        let driver = KafkaDriver::new(topic.clone(), env.clone(), status.clone(), subjects, timestamps)
            .start(env.overrides.start.clone().unwrap_or(self.start))
            .written([("value", format.word())])
            .waiting(env.overrides.wait_for_topic.unwrap_or(self.waits));
        Ok(Opened {
            topic: topic.to_string(),
            description: describe(&topic),
            driver: Arc::new(driver),
            rules: self.rules,
            reader: Box::new(move |waker: Waker| {
                let records = Payload(decoders::of::<T>(&format, &env, &waker)?);
                Ok(Box::new(KafkaReader::new(topic, env, records, status, waker)))
            }),
        })
    }
}

/// A topic of rows `V` by key `K`.
#[must_use]
pub struct KeyedTopic<K, V> {
    pub(crate) name: Arc<str>,
    pub(crate) format: Format,
    /// `None`: as the payloads are.
    pub(crate) key_format: Option<Format>,
    deletes: Deletes,
    waits: bool,
    mistake: Option<&'static str>,
    rows: PhantomData<fn() -> (K, V)>,
}

impl<K, V> KeyedTopic<K, V> {
    fn key(mut self, format: Format) -> Self {
        self.key_format = Some(format);
        self
    }

    /// Which records delete the row of their key: see [`Deletes`]. Default: those without payload, and those whose payload
    /// is null in its format, as JSON `null` is, where `V` has no value for that.
    pub fn deletes(mut self, deletes: Deletes) -> Self {
        self.deletes = deletes;
        self
    }

    /// Keys are the bare text of one value: `42`, `de`.
    pub fn key_text(self) -> Self {
        self.key(Format::Text)
    }

    /// Keys are bytes: `Vec<u8>` as they are, numbers big-endian and of the type's width, as Kafka's own serializers write
    /// them.
    pub fn key_bytes(self) -> Self {
        self.key(Format::Bytes)
    }

    /// Keys are JSON.
    pub fn key_json(self) -> Self {
        self.key(Format::Json { strict: false })
    }

    /// Keys are Avro, with schemas from the registry.
    pub fn key_avro(self) -> Self {
        self.key(Format::Avro { reader: None })
    }

    /// Keys are Avro without a header, all of them written in this schema.
    pub fn key_avro_plain(self, writer: impl Into<Avsc>) -> Self {
        let writer = writer.into();
        self.key(Format::AvroPlain { writer, reader: None })
    }

    /// The reader's schema of Avro keys: what they are resolved to, by Avro's rules, before `K` is made of them. To be said
    /// after the keys' format; without one they are Avro with schemas from the registry.
    pub fn key_avro_schema(mut self, reader: impl Into<Avsc>) -> Self {
        let format = self.key_format.take().unwrap_or(Format::Avro { reader: None });
        match format.with_reader(reader.into()) {
            Ok(format) => self.key(format),
            Err(format) => {
                self.mistake = Some("a reader's Avro schema is given for keys that are no Avro");
                self.key(format)
            }
        }
    }
}

impl<K: Event, V: Event> UpsertSource<K, V> for KeyedTopic<K, V> {
    fn open(self, env: &Environment) -> Result<Opened<(K, Option<V>)>> {
        let format = ready(self.format, self.mistake)?;
        let key_format = match self.key_format {
            Some(named) => named.ready()?,
            None => format.of_keys(),
        };
        let deletes = env.overrides.deletes.unwrap_or(self.deletes);
        let (env, topic, status) = (env.clone(), self.name, Arc::new(Status::default()));
        let subjects = Subject::of::<K>(&topic, "key", &key_format)
            .into_iter()
            .chain(Subject::of::<V>(&topic, "value", &format))
            .collect();
        let driver = KafkaDriver::new(topic.clone(), env.clone(), status.clone(), subjects, false)
            .written([("key", key_format.word()), ("value", format.word())])
            .waiting(env.overrides.wait_for_topic.unwrap_or(self.waits));
        Ok(Opened {
            topic: topic.to_string(),
            description: describe(&topic),
            driver: Arc::new(driver),
            rules: TimeRules {
                timed: false,
                ..TimeRules::default()
            },
            reader: Box::new(move |waker: Waker| {
                let records = Keyed {
                    key: decoders::of::<K>(&key_format, &env, &waker)?,
                    value: decoders::of::<V>(&format, &env, &waker)?,
                    deletes,
                };
                Ok(Box::new(KafkaReader::new(topic, env, records, status, waker)))
            }),
        })
    }
}

fn ready(format: Format, mistake: Option<&'static str>) -> Result<format::Ready> {
    match mistake {
        Some(mistake) => Err(Error::definition(mistake)),
        None => format.ready(),
    }
}

fn describe(topic: &str) -> String {
    format!("topic `{topic}`")
}
