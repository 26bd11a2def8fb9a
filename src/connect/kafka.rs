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
//! Records are read as committed. The ledger says from where; the consumer group only shows progress to lag
//! tools.

pub(crate) mod admin;
pub(crate) mod config;
pub(crate) mod dead_letters;
pub mod debezium;
mod driver;
mod examine;
mod native;
pub(crate) mod properties;
mod queue;
mod reader;
pub(crate) mod settings;
mod sink;
mod start;
mod status;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

pub use self::debezium::DebeziumTopic;
pub use self::settings::{KafkaSettings, TopicSettings};

use self::driver::KafkaDriver;
use self::reader::{KafkaReader, Subscription};
use self::status::ClientStatus;
use crate::bridge::Waker;
use crate::codec::avro::format::{AvroFormat, AvroPlainFormat, Avsc, resolve_to};
use crate::codec::bytes::BytesFormat;
use crate::codec::compatibility::subject::Subject;
use crate::codec::debezium::decoder::CapturedRow;
use crate::codec::format::{DecoderResources, Format};
use crate::codec::json::JsonFormat;
use crate::codec::json_schema::JsonSchemaFormat;
#[cfg(feature = "protobuf")]
use crate::codec::protobuf::format::{Proto, ProtobufFormat, ProtobufPlainFormat};
#[cfg(feature = "protobuf")]
use crate::codec::protobuf::prost::ProstFormat;
use crate::codec::text::TextFormat;
use crate::connect::connector::{CommandContext, Connector};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::record::Event;
use crate::setting::Setting;
use crate::setting::extensions::Extensions;
use crate::setting::properties::Properties;
use crate::source::records::{KeyValue, Payload};
use crate::source::setting::SourceSetting;
use crate::source::{
    Deletes, Driver, Environment, OpenedSource, Source, Start, TimeRules, UpsertSource, dead_letters_to,
    time_rules,
};
use crate::time::EventTime;

/// A topic whose format is still to be named.
///
/// ```
/// use std::time::Duration;
/// use thalweg::{EventTime, connect::kafka::Kafka};
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

    /// Payloads are in this format: one of those in [`codec`](crate::codec), or of your own.
    pub fn format<T: 'static>(self, format: impl Format<T>) -> Topic<T> {
        Topic {
            name: self.topic,
            format: Box::new(format),
            rules: TimeRules::default(),
            start: Start::Earliest,
            waits: false,
            partitions: None,
            dead_letters: None,
            mistake: None,
        }
    }

    /// Payloads are Avro in the wire format of Confluent's serializers, schemas by id from the registry.
    pub fn avro<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(AvroFormat::new())
    }

    /// Payloads are Avro without a header, all of them written in this schema. No registry takes part.
    pub fn avro_plain<T: DeserializeOwned + 'static>(self, writer: impl Into<Avsc>) -> Topic<T> {
        self.format(AvroPlainFormat::new(writer))
    }

    /// Payloads are Protobuf in the wire format of Confluent's serializers, schemas by id from the registry.
    /// [`codec::protobuf`](crate::codec::protobuf) says which types are read into which.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// /// `message Payment { int64 id = 1; Side side = 2; google.protobuf.Timestamp at = 3; }`
    /// #[derive(Clone, Serialize, Deserialize)]
    /// struct Payment { id: i64, side: Side, at: EventTime }
    ///
    /// /// `enum Side { SIDE_UNSPECIFIED = 0; SIDE_BUY = 1; SIDE_SELL = 2; }`
    /// #[derive(Clone, Serialize, Deserialize)]
    /// enum Side { Unspecified, Buy, Sell }
    ///
    /// let payments = Kafka::topic("payments.v1").protobuf::<Payment>().event_time(|p| p.at);
    /// ```
    #[cfg(feature = "protobuf")]
    pub fn protobuf<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(ProtobufFormat)
    }

    /// Payloads are Protobuf without a header, each of them this message of a `.proto` file. No registry
    /// takes part.
    #[cfg(feature = "protobuf")]
    pub fn protobuf_plain<T: DeserializeOwned + 'static>(
        self,
        proto: impl Into<Proto>,
        message: &str,
    ) -> Topic<T> {
        self.format(ProtobufPlainFormat::new(proto, message))
    }

    /// Payloads are Protobuf as by [`protobuf`](Self::protobuf), decoded into a type that
    /// [prost](https://docs.rs/prost) generates: see [`ProstFormat`].
    #[cfg(feature = "protobuf")]
    pub fn protobuf_prost<M>(self) -> Topic<M>
    where
        ProstFormat<M>: Format<M>,
        M: 'static,
    {
        self.format(ProstFormat::new())
    }

    /// Payloads are JSON behind the header of Confluent's serializers, with a JSON Schema by id from the
    /// registry. The type is compared with the newest schema at the start; records are not validated, unless
    /// [`JsonSchemaFormat::validated`] is given to [`format`](Self::format).
    pub fn json_schema<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(JsonSchemaFormat::new())
    }

    /// Payloads are JSON. Fields that `T` lacks are passed over.
    pub fn json<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(JsonFormat { strict: false })
    }

    /// Payloads are JSON, and a field that `T` lacks, at any depth, makes the record a dead letter that names
    /// the field. It costs an allocation a field. What serde buffers can't be watched: see
    /// [`Strict`](crate::codec::json::Strict).
    pub fn json_strict<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(JsonFormat { strict: true })
    }

    /// The topic holds the changes of a database's table, as [Debezium](https://debezium.io) captures them:
    /// rows `V` by their primary key `K`. Events are JSON unless [`DebeziumTopic::avro`] says otherwise.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// struct AccountKey { id: i64 }
    ///
    /// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    /// struct Account { owner: String, balance: String }
    ///
    /// fn accounts(flow: Dataflow) {
    ///     let accounts = Kafka::topic("bank.public.accounts").debezium::<AccountKey, Account>();
    ///     flow.table("accounts", accounts).view("accounts");
    /// }
    /// # thalweg::runtime::plan(&dataflow("accounts", accounts), &Default::default()).unwrap();
    /// ```
    pub fn debezium<K: DeserializeOwned + 'static, V: CapturedRow>(self) -> DebeziumTopic<K, V> {
        DebeziumTopic::new(self.topic)
    }

    /// Payloads are the bare text of one value, in UTF-8: `text::<String>()` for strings, `text::<u64>()` for
    /// `42`.
    pub fn text<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(TextFormat)
    }

    /// Payloads are bytes: `bytes::<Vec<u8>>()` takes them as they are; numbers are big-endian and of the
    /// type's width, as Kafka's own serializers write them.
    pub fn bytes<T: DeserializeOwned + 'static>(self) -> Topic<T> {
        self.format(BytesFormat)
    }
}

/// A topic of `T`: a source of events, or a sink.
///
/// As a sink it takes rows in JSON or Avro, and single values as text or bytes, each of them once for
/// readers that read what is committed (`isolation.level=read_committed`): rows and how far they go are
/// written in one transaction. Headers of a record say which row it is: `thalweg.sink`, `.ledger`, `.epoch`,
/// `.shard` and `.sequence`, and of a changelog `.diff`. What is read and written is the same type, found by
/// what is given:
///
/// ```
/// # use thalweg::prelude::*;
/// # fn build(flow: Dataflow) {
/// let lines = flow.source("lines", Kafka::topic("lines.v1").text::<String>());
/// let errors = lines.filter(|line| line.contains("error"));
/// errors.append_to("errors", Kafka::topic("errors.v1").json().partitions(3));
/// # }
/// # thalweg::runtime::plan(&dataflow("errors", build), &Default::default()).unwrap();
/// ```
///
/// | rows of | key | payload |
/// |---|---|---|
/// | [`append_to`](crate::dataflow::stream::Stream::append_to) | none | the event |
/// | [`upsert_to`](crate::dataflow::table::Table::upsert_to) | the key: what it is, or an object of its fields | all fields of the row; none (a tombstone) where it is gone |
/// | [`changes_to`](crate::dataflow::table::Table::changes_to) | the same | `{"before": …, "after": …}`, each a row or null |
///
/// A topic that is not there is made at the start, compacted for `upsert_to`; how far each shard is stands in
/// the topic `GROUP.DATAFLOW.SINK.progress`, which belongs to the sink: where it is lost, the service says so
/// and does not start.
#[must_use]
pub struct Topic<T> {
    name: Arc<str>,
    format: Box<dyn Format<T>>,
    rules: TimeRules<T>,
    start: Start,
    waits: bool,
    partitions: Option<u32>,
    dead_letters: Option<String>,
    mistake: Option<&'static str>,
}

impl<T: 'static> Topic<T> {
    time_rules!();
    dead_letters_to!();

    /// Where reading begins when the ledger knows nothing of this source yet. From then on the ledger knows:
    /// later starts go on where it says, and partitions that are added to the topic are read from their
    /// beginning. Default: the log's start.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Waits for the topic at the start, where it is not there yet or no broker answers: the log says so
    /// once, metrics and `/health/ready` do while it lasts. Without it the service does not start, and says
    /// why within some seconds. Once it runs, a broker that is away is waited for in any case.
    pub fn wait_for_topic(mut self) -> Self {
        self.waits = true;
        self
    }

    /// How many partitions a sink makes the topic with, where it is not there. Default: the broker's own.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// The reader's schema: what Avro payloads are resolved to, by Avro's rules, before `T` is made of them.
    /// Without it, `T` is made of what the writer's schema says.
    pub fn avro_schema(mut self, reader: impl Into<Avsc>) -> Self {
        if !resolve_to(&mut *self.format, reader.into()) {
            self.mistake = Some("a reader's Avro schema is given for payloads that are no Avro");
        }
        self
    }

    /// Rows by key: the last value of a key wins, a record without payload deletes, and one that is null in
    /// its format (see [`KeyedTopic::deletes`]). Keys are decoded from the records' keys, in the payloads'
    /// format unless another is named; beside plain Avro they are bare text.
    pub fn keyed<K: DeserializeOwned + 'static>(self) -> KeyedTopic<K, T> {
        KeyedTopic {
            name: self.name,
            format: self.format,
            key_format: None,
            deletes: Deletes::default(),
            waits: self.waits,
            dead_letters: self.dead_letters,
            mistake: self.mistake,
        }
    }
}

impl<T: Event> Source<T> for Topic<T> {
    fn open(self, env: &Environment) -> Result<OpenedSource<T>> {
        let format = ready(self.format, self.mistake)?;
        let topic = TopicSetup {
            env: env.clone(),
            status: Arc::new(ClientStatus::default()),
            name: self.name,
        };
        let subjects = Subject::of(&topic.name, "value", &*format).into_iter().collect();
        let written = [("value", format.name())];
        let timestamps = self.rules.event_time.is_none();
        Ok(OpenedSource {
            topic: topic.name.to_string(),
            description: describe(&topic.name),
            driver: topic.driver(subjects, &written, timestamps, (Some(self.start), self.waits)),
            rules: self.rules,
            dead_letters: self.dead_letters,
            reader: Box::new(move |waker: Waker| {
                let records = Payload::new(&*format, &topic.resources(&waker))?;
                Ok(Box::new(KafkaReader::new(topic.subscribe(waker), records)))
            }),
        })
    }
}

/// A topic in its environment: what opening it needs that does not know what records become.
struct TopicSetup {
    name: Arc<str>,
    env: Environment,
    status: Arc<ClientStatus>,
}

impl TopicSetup {
    /// What looks after the topic. Without `start`, which settings may overrule, it is read from its
    /// beginning.
    fn driver(
        &self,
        subjects: Vec<Subject>,
        written: &[(&'static str, &str)],
        timestamps: bool,
        (start, waits): (Option<Start>, bool),
    ) -> Arc<dyn Driver> {
        let said = TopicSettings::of(&self.env);
        let status = self.status.clone();
        let driver = KafkaDriver::new(self.name.clone(), &self.env, status, subjects, timestamps)
            .start(start.map_or(Start::Earliest, |start| said.start.unwrap_or(start)))
            .written(written)
            .waiting(said.wait_for_topic.unwrap_or(waits));
        Arc::new(driver)
    }

    fn resources<'a>(&'a self, waker: &'a Waker) -> DecoderResources<'a> {
        DecoderResources {
            registry: self.env.registry.as_ref(),
            waker,
        }
    }

    fn subscribe(&self, waker: Waker) -> Subscription {
        Subscription::new(self.name.clone(), &self.env, self.status.clone(), waker)
    }
}

/// A topic of rows `V` by key `K`.
#[must_use]
pub struct KeyedTopic<K, V> {
    name: Arc<str>,
    format: Box<dyn Format<V>>,
    /// `None`: as the payloads are.
    key_format: Option<Box<dyn Format<K>>>,
    deletes: Deletes,
    waits: bool,
    dead_letters: Option<String>,
    mistake: Option<&'static str>,
}

impl<K: DeserializeOwned + 'static, V: 'static> KeyedTopic<K, V> {
    dead_letters_to!();

    /// Keys are in this format.
    pub fn key_format(mut self, format: impl Format<K>) -> Self {
        self.key_format = Some(Box::new(format));
        self
    }

    /// Which records delete the row of their key: see [`Deletes`]. Default: those without payload, and those
    /// whose payload is null in its format, as JSON `null` is, where `V` has no value for that.
    pub fn deletes(mut self, deletes: Deletes) -> Self {
        self.deletes = deletes;
        self
    }

    /// Keys are the bare text of one value: `42`, `de`.
    pub fn key_text(self) -> Self {
        self.key_format(TextFormat)
    }

    /// Keys are bytes: `Vec<u8>` as they are, numbers big-endian and of the type's width, as Kafka's own
    /// serializers write them.
    pub fn key_bytes(self) -> Self {
        self.key_format(BytesFormat)
    }

    /// Keys are JSON.
    pub fn key_json(self) -> Self {
        self.key_format(JsonFormat { strict: false })
    }

    /// Keys are Avro, with schemas from the registry.
    pub fn key_avro(self) -> Self {
        self.key_format(AvroFormat::new())
    }

    /// Keys are Protobuf, with schemas from the registry.
    #[cfg(feature = "protobuf")]
    pub fn key_protobuf(self) -> Self {
        self.key_format(ProtobufFormat)
    }

    /// Keys are Protobuf without a header, each of them this message of a `.proto` file.
    #[cfg(feature = "protobuf")]
    pub fn key_protobuf_plain(self, proto: impl Into<Proto>, message: &str) -> Self {
        self.key_format(ProtobufPlainFormat::new(proto, message))
    }

    /// Keys are JSON behind the header of Confluent's serializers, with schemas from the registry.
    pub fn key_json_schema(self) -> Self {
        self.key_format(JsonSchemaFormat::new())
    }

    /// Keys are Avro without a header, all of them written in this schema.
    pub fn key_avro_plain(self, writer: impl Into<Avsc>) -> Self {
        self.key_format(AvroPlainFormat::new(writer))
    }

    /// The reader's schema of Avro keys: what they are resolved to, by Avro's rules, before `K` is made of
    /// them. To be said after the keys' format; without one they are Avro with schemas from the registry.
    pub fn key_avro_schema(mut self, reader: impl Into<Avsc>) -> Self {
        let reader = reader.into();
        let Some(format) = &mut self.key_format else {
            return self.key_format(AvroFormat::resolved_to(reader));
        };
        if !resolve_to(&mut **format, reader) {
            self.mistake = Some("a reader's Avro schema is given for keys that are no Avro");
        }
        self
    }
}

impl<K: Event, V: Event> UpsertSource<K, V> for KeyedTopic<K, V> {
    type Records = (K, Option<V>);

    fn open(self, env: &Environment) -> Result<OpenedSource<(K, Option<V>)>> {
        let format = ready(self.format, self.mistake)?;
        let key_format = match self.key_format {
            Some(named) => ready(named, None)?,
            None => format.keys().format(),
        };
        let deletes = TopicSettings::of(env).deletes.unwrap_or(self.deletes);
        let topic = TopicSetup {
            env: env.clone(),
            status: Arc::new(ClientStatus::default()),
            name: self.name,
        };
        let subjects = Subject::of(&topic.name, "key", &*key_format)
            .into_iter()
            .chain(Subject::of(&topic.name, "value", &*format))
            .collect();
        let written = [("key", key_format.name()), ("value", format.name())];
        Ok(OpenedSource {
            topic: topic.name.to_string(),
            description: describe(&topic.name),
            driver: topic.driver(subjects, &written, false, (None, self.waits)),
            rules: TimeRules {
                timed: false,
                ..TimeRules::default()
            },
            dead_letters: self.dead_letters,
            reader: Box::new(move |waker: Waker| {
                let resources = topic.resources(&waker);
                let records = KeyValue {
                    key: key_format.decoder(&resources)?,
                    value: format.decoder(&resources)?,
                    deletes,
                };
                Ok(Box::new(KafkaReader::new(topic.subscribe(waker), records)))
            }),
        })
    }
}

fn ready<T: 'static>(
    mut format: Box<dyn Format<T>>,
    mistake: Option<&'static str>,
) -> Result<Box<dyn Format<T>>> {
    if let Some(mistake) = mistake {
        return Err(Error::definition(mistake));
    }
    format.prepare()?;
    Ok(format)
}

fn describe(topic: &str) -> String {
    format!("topic `{topic}`")
}

/// Kafka, as settings, checks and the command line see it.
pub(crate) struct KafkaConnector;

impl Connector for KafkaConnector {
    fn name(&self) -> &'static str {
        settings::NAME
    }

    fn log(&self) -> &'static str {
        "topic"
    }

    fn settings(&self) -> &'static [Setting] {
        settings::SETTINGS
    }

    fn properties(&self) -> Option<&'static Properties> {
        Some(&settings::PROPERTIES)
    }

    fn source_settings(&self) -> &'static [SourceSetting] {
        settings::SOURCE_SETTINGS
    }

    fn conflict(&self, given: &Extensions) -> Option<(String, String)> {
        settings::conflicting(given)
    }

    fn warnings(&self, given: &Extensions) -> Vec<Finding> {
        settings::warnings(given)
    }

    fn commands(&self) -> Vec<clap::Command> {
        vec![topics::command(), dead_letters::command::command()]
    }

    fn run(&self, command: &str, arguments: &clap::ArgMatches, on: &CommandContext<'_>) -> Result<()> {
        match command {
            dead_letters::command::NAME => dead_letters::command::run(arguments, on),
            _ => topics::run(arguments, on),
        }
    }
}
