//! Where dataflows run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::registry::Registry;
use crate::late::Late;
use crate::setting::extensions::Extensions;

/// Where dataflows run: what sources and sinks need to know of the world. Made from the settings.
#[derive(Clone, Default)]
pub struct Environment {
    /// The settings of connectors, each of a type that its connector knows: `KafkaSettings`.
    pub connectors: Extensions,
    /// The schema registry.
    pub registry: Option<Registry>,
    /// Name of the application: a ledger belongs to one. Connectors may show progress under it, as a consumer
    /// group.
    pub group: String,
    /// Name of the dataflow that runs. Set as it is built.
    pub dataflow: String,
    /// Whether the run stops when everything that is there at its start is counted: nothing is waited for
    /// then. Follows the run's settings.
    pub until_end: bool,
    /// The Kafka topic that dead letters of every source are written to which names none of its own.
    pub dead_letters: Option<String>,
    /// What the settings say of sources, by name.
    pub sources: Arc<BTreeMap<String, Overrides>>,
    /// What they say of the source that is being opened.
    pub overrides: Overrides,
}

impl Environment {
    /// The same for one source.
    pub fn of_source(&self, name: &str) -> Self {
        Self {
            overrides: self.sources.get(name).cloned().unwrap_or_default(),
            registry: self.registry.as_ref().map(Registry::of_source),
            ..self.clone()
        }
    }
}

/// What the settings say of a source, in place of what the dataflow says.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// See [`TimeRules::lateness`](super::TimeRules::lateness).
    pub lateness: Option<Duration>,
    /// See [`TimeRules::idle_after`](super::TimeRules::idle_after).
    pub idle_after: Option<Duration>,
    /// See [`TimeRules::future_bound`](super::TimeRules::future_bound).
    pub future_bound: Option<Duration>,
    /// See [`TimeRules::late`](super::TimeRules::late).
    pub late: Option<Late>,
    /// The Kafka topic that its dead letters are written to.
    pub dead_letters: Option<String>,
    /// What is said of it that only its connector knows.
    pub connector: Extensions,
}
