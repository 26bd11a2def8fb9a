//! What surrounds a demo: a Kafka and a schema registry, those of the settings or ones in this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::embedded::{EmbeddedBroker, LINGER, Producer, create_topic};
use super::registry;
use crate::codec::registry::Registry;
use crate::connect::kafka::KafkaSettings;
use crate::error::{Error, Result};
use crate::setting::extensions::Extensions;

/// A Kafka and a registry. Those that are in the process end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct World {
    kafka: KafkaSettings,
    embedded: Option<Arc<EmbeddedBroker>>,
    /// The registry.
    pub registry: Registry,
    runtime: Handle,
}

impl World {
    /// Those of the settings, or else ones in the process.
    ///
    /// # Errors
    /// Only one of them is named, or one can't be started.
    pub(crate) fn of(connectors: &Extensions, registry: Option<Registry>, runtime: &Handle) -> Result<Self> {
        let named = connectors.get::<KafkaSettings>().cloned().unwrap_or_default();
        let runtime = runtime.clone();
        match (named.bootstrap.is_empty(), registry) {
            (false, Some(registry)) => Ok(Self {
                kafka: named,
                embedded: None,
                registry,
                runtime,
            }),
            (true, None) => {
                let broker = EmbeddedBroker::start(1)?;
                Ok(Self {
                    kafka: KafkaSettings {
                        bootstrap: broker.bootstrap_servers(),
                        ..named
                    },
                    embedded: Some(Arc::new(broker)),
                    registry: Registry::new(&registry::start(&runtime)?, runtime.clone())?,
                    runtime,
                })
            }
            _ => Err(Error::definition(
                "pass both --kafka and --registry to run the demo on your services, or neither to run it \
                 in the process",
            )),
        }
    }

    /// Whether it is in the process, and gone with it.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// The settings to read it with, with all else as given.
    pub(crate) fn settings(&self, mut given: Extensions) -> Extensions {
        let kafka = given.get_mut::<KafkaSettings>();
        *kafka = self.kafka.clone();
        if self.is_embedded() {
            // The embedded broker answers a fetch that finds nothing when its time is up, even if a record
            // comes before.
            kafka.properties.push(("fetch.wait.max.ms".into(), "25".into()));
        }
        given
    }

    /// What the demo writes with.
    pub(super) fn producer(&self) -> Result<Producer> {
        // A real broker shows how fresh answers are; the embedded one has to be spared.
        let linger = match self.is_embedded() {
            true => LINGER,
            false => Duration::from_millis(1),
        };
        Producer::of(&self.kafka, linger)
    }

    /// Makes a topic, if it is not there.
    pub(super) fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        match &self.embedded {
            Some(broker) => broker.create_topic(name, partitions),
            None => self.runtime.block_on(create_topic(&self.kafka, name, partitions)),
        }
    }

    /// Registers a schema; its id.
    pub(super) fn register(&self, subject: &str, schema: &str) -> Result<u32> {
        self.runtime.block_on(self.registry.register(subject, schema))
    }
}
