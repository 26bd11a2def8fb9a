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

pub(crate) mod config;
mod decoders;
mod driver;
mod examine;
mod native;
mod reader;
mod status;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use self::driver::KafkaDriver;
use self::examine::Expected;
use self::reader::{KafkaReader, Keyed, Payload};
use self::status::Status;
use super::{Environment, Opened, Source, TimeRules, UpsertSource};
use crate::bridge::Waker;
use crate::error::Result;
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
        Topic::new(self.topic, Format::Avro { reader_schema: None })
    }

    /// Payloads are JSON.
    pub fn json<T>(self) -> Topic<T> {
        Topic::new(self.topic, Format::Json)
    }
}

/// How payloads are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// Avro; a reader's schema where one was given.
    Avro { reader_schema: Option<String> },
}

/// How keys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyFormat {
    /// As the payloads are.
    AsValue,
    /// Avro.
    Avro,
    /// JSON.
    Json,
    /// The bare text of one value.
    Text,
}

/// A topic of `T`: a source of events, and where sinks write rows.
#[must_use]
pub struct Topic<T> {
    pub(crate) name: Arc<str>,
    pub(crate) format: Format,
    rules: TimeRules<T>,
}

impl<T> Topic<T> {
    fn new(name: Arc<str>, format: Format) -> Self {
        Self {
            name,
            format,
            rules: TimeRules::default(),
        }
    }

    time_rules!();

    /// The schema that Avro payloads are resolved to before `T` is made of them. Without it, the writer's.
    pub fn avro_schema(mut self, text: &str) -> Self {
        self.format = Format::Avro {
            reader_schema: Some(text.to_owned()),
        };
        self
    }

    /// Rows by key: the last value of a key wins, a record without payload deletes. Keys are decoded from the records'
    /// keys, in the payloads' format unless another is named.
    pub fn keyed<K>(self) -> KeyedTopic<K, T> {
        KeyedTopic {
            name: self.name,
            format: self.format,
            key_format: KeyFormat::AsValue,
            rows: PhantomData,
        }
    }
}

impl<T: Event> Source<T> for Topic<T> {
    fn open(self, env: &Environment) -> Result<Opened<T>> {
        let (env, format) = (env.clone(), self.format);
        let (topic, status) = (self.name, Arc::new(Status::default()));
        let expected = Expected {
            timestamps: self.rules.event_time.is_none(),
            subjects: decoders::value_subject::<T>(&topic, &format)
                .into_iter()
                .collect(),
        };
        Ok(Opened {
            topic: topic.to_string(),
            description: describe(&topic),
            driver: Arc::new(KafkaDriver::new(
                topic.clone(),
                env.clone(),
                status.clone(),
                expected,
            )),
            rules: self.rules,
            reader: Box::new(move |waker: Waker| {
                let records = Payload(decoders::of_values::<T>(&format, &env, &waker)?);
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
    pub(crate) key_format: KeyFormat,
    rows: PhantomData<fn() -> (K, V)>,
}

impl<K, V> KeyedTopic<K, V> {
    /// Keys are the bare text of one value: `42`, `de`.
    pub fn key_text(mut self) -> Self {
        self.key_format = KeyFormat::Text;
        self
    }

    /// Keys are JSON.
    pub fn key_json(mut self) -> Self {
        self.key_format = KeyFormat::Json;
        self
    }

    /// Keys are Avro, with schemas from the registry.
    pub fn key_avro(mut self) -> Self {
        self.key_format = KeyFormat::Avro;
        self
    }
}

impl<K: Event, V: Event> UpsertSource<K, V> for KeyedTopic<K, V> {
    fn open(self, env: &Environment) -> Result<Opened<(K, Option<V>)>> {
        let (env, format, key_format) = (env.clone(), self.format, self.key_format);
        let (topic, status) = (self.name, Arc::new(Status::default()));
        let key = decoders::key_subject::<K>(&topic, key_format, &format);
        let expected = Expected {
            timestamps: false,
            subjects: key
                .into_iter()
                .chain(decoders::value_subject::<V>(&topic, &format))
                .collect(),
        };
        Ok(Opened {
            topic: topic.to_string(),
            description: describe(&topic),
            driver: Arc::new(KafkaDriver::new(
                topic.clone(),
                env.clone(),
                status.clone(),
                expected,
            )),
            rules: TimeRules {
                timed: false,
                ..TimeRules::default()
            },
            reader: Box::new(move |waker: Waker| {
                let key = decoders::of_keys::<K>(key_format, &format, &env, &waker)?;
                let records = Keyed {
                    key,
                    value: decoders::of_values::<V>(&format, &env, &waker)?,
                };
                Ok(Box::new(KafkaReader::new(topic, env, records, status, waker)))
            }),
        })
    }
}

fn describe(topic: &str) -> String {
    format!("topic `{topic}`")
}
