//! Demos: dataflows with generated data, so that a first try needs no other service.
//!
//! ```text
//!   thalweg demo ─▶ embedded broker ◀── demo function, paced ──▶ topics, schemas
//!                   embedded registry        │
//!                          └──────────▶ the dataflow, exactly as it runs on a real Kafka
//! ```

pub mod embedded;
pub mod generator;
pub(crate) mod registry;
pub(crate) mod services;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use self::embedded::Producer;
use self::services::DemoServices;
use crate::clock;
use crate::codec::avro::Encoder;
use crate::error::{Error, Result};
use crate::time::EventTime;
use serde::Serialize;

/// What a demo function writes to.
pub struct Demo {
    producer: Producer,
    world: DemoServices,
    stop: Arc<AtomicBool>,
    rate: u64,
    ready: Sender<()>,
}

impl Demo {
    /// A demo that writes `rate` events per second to `services` until `stop`; it calls `ready` once all
    /// topics exist.
    pub(crate) fn new(
        world: DemoServices,
        stop: Arc<AtomicBool>,
        rate: u64,
        ready: Sender<()>,
    ) -> Result<Self> {
        Ok(Self {
            producer: world.producer()?,
            world,
            stop,
            rate,
            ready,
        })
    }

    /// A topic of Avro records, created if it does not exist: its partitions, the schema of its keys (for a
    /// table's topic), the schema of its values. Both are registered under the topic's name.
    pub fn avro(&self, topic: &str, partitions: u32, key: Option<&str>, value: &str) -> Result<Topic<'_>> {
        self.world.create_topic(topic, partitions)?;
        let register = |part: &str, text: &str| {
            let id = self.world.register(&format!("{topic}-{part}"), text)?;
            Ok::<_, Error>((id, text.to_owned()))
        };
        let key = key.map(|text| register("key", text)).transpose()?;
        let value = register("value", value)?;
        Ok(Topic {
            demo: self,
            name: topic.to_owned(),
            partitions,
            encoding: Encoding::Avro { key, value },
        })
    }

    /// A topic of JSON records, made if it is not there: keys and values are JSON.
    pub fn json(&self, topic: &str, partitions: u32) -> Result<Topic<'_>> {
        self.world.create_topic(topic, partitions)?;
        Ok(Topic {
            demo: self,
            name: topic.to_owned(),
            partitions,
            encoding: Encoding::Json,
        })
    }

    /// The requested number of events per second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Whether the demo should end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Calls `send` with 0, 1, 2, … at the demo's rate, by the wall clock, until the demo is stopped.
    pub fn paced(&self, mut send: impl FnMut(u64) -> Result<()>) -> Result<()> {
        // All topics are there by now. Nobody listens a second time.
        let _told = self.ready.send(());
        let begun = clock::instant();
        let mut sent = 0;
        while !self.is_stopped() {
            let due = (clock::instant().duration_since(begun).as_secs_f64() * self.rate as f64) as u64;
            while sent < due && !self.is_stopped() {
                send(sent)?;
                sent += 1;
            }
            self.producer.poll();
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// A topic of a [`Demo`].
pub struct Topic<'d> {
    demo: &'d Demo,
    name: String,
    partitions: u32,
    encoding: Encoding,
}

/// Of keys and values. A schema has its id beside it.
enum Encoding {
    Avro {
        key: Option<(u32, String)>,
        value: (u32, String),
    },
    Json,
}

impl Topic<'_> {
    /// A writer of events.
    pub fn events<V: Serialize>(&self) -> Result<Events<'_, V>> {
        Ok(Events {
            topic: self,
            value: self.values()?,
            bytes: Vec::new(),
        })
    }

    /// A writer of a table's rows. A topic of Avro requires a schema of keys.
    pub fn rows<K: Serialize, V: Serialize>(&self) -> Result<Rows<'_, K, V>> {
        let key = match &self.encoding {
            Encoding::Json => Writer::Json,
            Encoding::Avro { key: Some(key), .. } => Writer::avro(key)?,
            Encoding::Avro { key: None, .. } => {
                return Err(Error::definition(format!(
                    "topic `{}` has no schema of keys",
                    self.name
                )));
            }
        };
        Ok(Rows {
            topic: self,
            key,
            value: self.values()?,
        })
    }

    fn values<V: Serialize>(&self) -> Result<Writer<V>> {
        match &self.encoding {
            Encoding::Json => Ok(Writer::Json),
            Encoding::Avro { value, .. } => Writer::avro(value),
        }
    }

    fn send(&self, partition: u32, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        let partition = partition % self.partitions;
        self.demo
            .producer
            .send(&self.name, partition, clock::now(), key, value)
    }

    /// Writes raw bytes, to demonstrate undecodable records.
    pub fn send_raw(&self, partition: u32, payload: &[u8]) -> Result<()> {
        self.send(partition, None, Some(payload))
    }
}

enum Writer<T> {
    Avro(Encoder<T>),
    Json,
}

impl<T: Serialize> Writer<T> {
    fn avro((id, schema): &(u32, String)) -> Result<Self> {
        Ok(Writer::Avro(Encoder::new(*id, schema)?))
    }

    /// Adds the encoded value to `out`.
    fn encode_into(&self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        match self {
            Writer::Avro(encoder) => encoder.encode_into(value, out),
            Writer::Json => serde_json::to_writer(out, value)
                .map_err(|error| Error::definition("a value of the demo is no JSON").detail(error)),
        }
    }
}

/// Writes events to a topic.
pub struct Events<'t, V> {
    topic: &'t Topic<'t>,
    value: Writer<V>,
    bytes: Vec<u8>,
}

impl<V: Serialize> Events<'_, V> {
    /// Writes one event, now.
    pub fn send(&mut self, partition: u32, value: &V) -> Result<()> {
        self.bytes.clear();
        self.value.encode_into(value, &mut self.bytes)?;
        self.topic.send(partition, None, Some(&self.bytes))
    }
}

/// Writes rows to a table's topic.
pub struct Rows<'t, K, V> {
    topic: &'t Topic<'t>,
    key: Writer<K>,
    value: Writer<V>,
}

impl<K: Serialize, V: Serialize> Rows<'_, K, V> {
    /// Writes a row, or deletes it with `None`.
    pub fn send(&self, key: &K, value: Option<&V>) -> Result<()> {
        let mut key_bytes = Vec::new();
        self.key.encode_into(key, &mut key_bytes)?;
        let value = match value {
            None => None,
            Some(value) => {
                let mut bytes = Vec::new();
                self.value.encode_into(value, &mut bytes)?;
                Some(bytes)
            }
        };
        let partition = (xxhash_rust::xxh3::xxh3_64(&key_bytes) % u64::from(self.topic.partitions)) as u32;
        self.topic.send(partition, Some(&key_bytes), value.as_deref())
    }
}

/// The current time for demo data.
pub fn now() -> EventTime {
    clock::now()
}
