//! A topic of change events as the source of a table.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::reader::KafkaReader;
use super::status::ClientStatus;
use super::{TopicSetup, describe, ready};
use crate::bridge::Waker;
use crate::codec::avro::format::AvroFormat;
use crate::codec::compatibility::subject::Subject;
use crate::codec::debezium::decoder::{CapturedRow, EventAvro, EventJson};
use crate::codec::debezium::envelope::Envelope;
use crate::codec::debezium::key::{ConnectJson, KeyFormat};
use crate::codec::format::Format;
use crate::codec::text::TextFormat;
use crate::error::Result;
use crate::record::Event;
use crate::source::captured::{Captured, CapturedRecords};
use crate::source::{Environment, OpenedSource, TimeRules, UpsertSource, dead_letters_to};

/// For how long the place of a deletion is remembered.
const REMEMBER: Duration = Duration::from_secs(3600);

/// A topic of a database's table as Debezium captures it: rows `V` by their primary key `K`.
///
/// `K` is a struct of the key's columns, or the type of its only one. Fields of `V` are named as columns are;
/// [`convert`](crate::codec::debezium::convert) reads those whose bytes serde alone does not understand.
///
/// `docs/debezium.md` says how to set the connector up, and what is promised.
#[must_use]
pub struct DebeziumTopic<K, V> {
    name: Arc<str>,
    key: Box<dyn Format<K>>,
    value: Box<dyn Format<Envelope<V>>>,
    remember: Duration,
    waits: bool,
    dead_letters: Option<String>,
}

impl<K: DeserializeOwned + 'static, V: CapturedRow> DebeziumTopic<K, V> {
    dead_letters_to!();

    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            key: Box::new(KeyFormat(ConnectJson)),
            value: Box::new(EventJson),
            remember: REMEMBER,
            waits: false,
            dead_letters: None,
        }
    }

    /// Keys and payloads are Avro, with schemas from the registry.
    pub fn avro(mut self) -> Self {
        self.value = Box::new(EventAvro::default());
        self.key_avro()
    }

    /// Keys are Avro, with schemas from the registry.
    pub fn key_avro(self) -> Self {
        self.key_format(KeyFormat(AvroFormat::new()))
    }

    /// Keys are JSON.
    pub fn key_json(self) -> Self {
        self.key_format(KeyFormat(ConnectJson))
    }

    /// Keys are the bare text of one value, as Connect's string converter writes them where a transformation
    /// has taken the column out of the key (`ExtractField$Key`).
    pub fn key_text(self) -> Self {
        self.key_format(TextFormat)
    }

    fn key_format(mut self, format: impl Format<K>) -> Self {
        self.key = Box::new(format);
        self
    }

    /// For how long the place of a deletion is remembered, so that a change from before it is known when it
    /// comes again. Default: an hour. It has to be longer than Kafka Connect may take to come back after a
    /// crash: else a row that was deleted is there again until its deletion comes again too. A key that was
    /// deleted takes its own size and some 60 bytes meanwhile.
    pub fn remember_deletions_for(mut self, duration: Duration) -> Self {
        self.remember = duration;
        self
    }

    /// Waits for the topic at the start, where it is not there yet or no broker answers: the connector makes
    /// it with the first event. Without it the service does not start, and says why within some seconds.
    pub fn wait_for_topic(mut self) -> Self {
        self.waits = true;
        self
    }
}

impl<K: Event, V: Event> UpsertSource<K, V> for DebeziumTopic<K, V> {
    type Records = Captured<K, V>;

    fn open(self, env: &Environment) -> Result<OpenedSource<Captured<K, V>>> {
        let (key, value) = (ready(self.key, None)?, ready(self.value, None)?);
        let topic = TopicSetup {
            env: env.clone(),
            status: Arc::new(ClientStatus::default()),
            name: self.name,
        };
        let subjects = Subject::of(&topic.name, "key", &*key)
            .into_iter()
            .chain(Subject::of(&topic.name, "value", &*value))
            .collect();
        let written = [("key", key.name()), ("value", value.name())];
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
                let records = CapturedRecords {
                    key: key.decoder(&resources)?,
                    value: value.decoder(&resources)?,
                };
                Ok(Box::new(KafkaReader::new(topic.subscribe(waker), records)))
            }),
        })
    }

    fn remember_deletions(&self) -> Duration {
        self.remember
    }
}
