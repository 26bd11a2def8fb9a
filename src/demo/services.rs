//! The services of a demo: Kafka and a schema registry, those of the settings or embedded ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::embedded::{EmbeddedBroker, LINGER, Producer, create_topic};
use super::registry;
use crate::codec::registry::Registry;
use crate::connect::kafka::KafkaSettings;
use crate::error::{Error, Result};
use crate::setting::extensions::Extensions;

/// Kafka and a registry. Embedded ones end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct DemoServices {
    kafka: KafkaSettings,
    embedded: Option<Arc<EmbeddedBroker>>,
    /// The registry.
    pub registry: Registry,
    runtime: Handle,
}

impl DemoServices {
    /// Uses the services of the settings, or embeds them.
    ///
    /// # Errors
    /// If only one of them is configured, or one cannot be started.
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

    /// Whether the services are embedded and end with the process.
    pub(crate) fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// The settings for reading from it, with everything else as given.
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

    /// The producer for the demo's data.
    pub(super) fn producer(&self) -> Result<Producer> {
        // A real broker shows how fresh answers are; the embedded one has to be spared.
        let linger = match self.is_embedded() {
            true => LINGER,
            false => Duration::from_millis(1),
        };
        Producer::of(&self.kafka, linger)
    }

    /// Creates a topic if it does not exist.
    pub(super) fn create_topic(&self, name: &str, partitions: u32) -> Result<()> {
        match &self.embedded {
            Some(broker) => broker.create_topic(name, partitions),
            None => self.runtime.block_on(create_topic(&self.kafka, name, partitions)),
        }
    }

    /// Registers a schema and returns its id.
    pub(super) fn register(&self, subject: &str, schema: &str) -> Result<u32> {
        self.runtime.block_on(self.registry.register(subject, schema))
    }
}
