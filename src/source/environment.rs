//! The environment of dataflows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::registry::Registry;
use crate::late::Late;
use crate::setting::extensions::Extensions;

/// The environment of a dataflow: what sources and sinks need to know about external systems. Created from
/// the settings.
#[derive(Clone, Default)]
pub struct Environment {
    /// The settings of connectors, each of a type that its connector knows: `KafkaSettings`.
    pub connectors: Extensions,
    /// The schema registry.
    pub registry: Option<Registry>,
    /// The name of the application: a ledger belongs to one. Connectors may report progress under it, as a
    /// consumer group.
    pub group: String,
    /// The name of the running dataflow. Set when it is built.
    pub dataflow: String,
    /// Whether the run stops once everything present at its start is processed: then nothing is waited for.
    /// Follows the run's settings.
    pub until_end: bool,
    /// The Kafka topic for dead letters of sources that set none of their own.
    pub dead_letters: Option<String>,
    /// Overrides of sources, by name.
    pub sources: Arc<BTreeMap<String, Overrides>>,
    /// The overrides of the source that is being opened.
    pub overrides: Overrides,
}

impl Environment {
    /// The environment of one source.
    pub fn of_source(&self, name: &str) -> Self {
        Self {
            overrides: self.sources.get(name).cloned().unwrap_or_default(),
            registry: self.registry.as_ref().map(Registry::of_source),
            ..self.clone()
        }
    }
}

/// Settings of a source that override the dataflow's.
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
    /// Overrides that only the connector knows.
    pub connector: Extensions,
}
