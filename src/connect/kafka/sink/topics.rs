//! The topics of a sink: the one for its rows, and the one for its progress.

use std::sync::Arc;

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use crate::connect::kafka::admin::{self, NewTopic};
use crate::connect::kafka::config;
use crate::connect::kafka::settings::KafkaSettings;
use crate::error::{Error, Result, count};
use crate::finding::Finding;
use crate::sink::Method;

/// Where the rows of a sink go.
pub(super) struct SinkTopic {
    pub topic: Arc<str>,
    pub kafka: KafkaSettings,
    /// What the names of transactions and of the progress topic begin with.
    pub application: Arc<str>,
    /// The consumer group that the rights of readers are given to.
    pub group: Arc<str>,
    pub method: Method,
    /// How many partitions the topic is made with; `None`: as many as the broker makes.
    pub partitions: Option<u32>,
}

impl SinkTopic {
    /// The topic of a sink's progress.
    pub(super) fn progress_topic(&self, sink: &str) -> String {
        // Names of topics have letters, digits, dots, hyphens and underscores only.
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let name = format!("{}.{sink}.progress", self.application);
        name.chars().map(|c| if is_fit(c) { c } else { '_' }).collect()
    }

    /// The name under which a shard's transactions are known. It is the same at every start: so an older
    /// producer is fenced.
    pub(super) fn transactional_id(&self, sink: &str, shard: u32) -> String {
        format!("{}.{sink}.{shard}", self.application)
    }

    /// Makes the topics that are not there. Returns how many partitions that of the rows has.
    ///
    /// # Errors
    /// The broker does not answer, or refuses; the progress topic has another number of partitions than the
    /// sink has shards.
    pub(super) fn prepare(&self, sink: &str, shards: u32) -> Result<u32> {
        let progress = self.progress_topic(sink);
        let client = self.client()?;
        let kept = match self.partitions_of(&client, &progress)? {
            Some(kept) => kept,
            None => self.make(&client, &progress, Some(shards), &[("cleanup.policy", "compact")])?,
        };
        if kept < shards {
            let what = format!("topic `{progress}` has {kept} partitions, and sink `{sink}` {shards} shards");
            return Err(Error::definition(what).hint("each shard needs a partition of its own: add them"));
        }
        if let Some(partitions) = self.partitions_of(&client, &self.topic)? {
            return Ok(partitions);
        }
        let compact: &[_] = match self.method {
            Method::UpsertTo => &[("cleanup.policy", "compact")],
            _ => &[],
        };
        self.make(&client, &self.topic, self.partitions, compact)
    }

    fn client(&self) -> Result<BaseConsumer> {
        let client = config::driver(&self.kafka)?.create();
        client.map_err(|error| self.unseen(&error))
    }

    /// How many partitions a topic has; `None`: it is not there.
    fn partitions_of(&self, client: &BaseConsumer, topic: &str) -> Result<Option<u32>> {
        let found = admin::partitions(client, topic).map_err(|error| self.unseen(&error))?;
        let count = found.map_or(0, |found| found.len() as u32);
        Ok((count > 0).then_some(count))
    }

    /// Makes a topic. Returns how many partitions it has.
    fn make(
        &self,
        client: &BaseConsumer,
        name: &str,
        partitions: Option<u32>,
        settings: &[(&str, &str)],
    ) -> Result<u32> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: partitions.map(|n| n as usize),
            replication: None,
            config: settings.iter().map(own).collect(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::internal("cannot make a runtime").detail(error))?;
        let made = runtime.block_on(admin::create(&self.kafka, &[topic]));
        if made.is_ok() {
            tracing::info!(topic = name, "created topic");
        }
        match (self.partitions_of(client, name)?, made) {
            // Another shard, or another process, may have made it meanwhile.
            (Some(partitions), _) => Ok(partitions),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(Error::external(format!("topic `{name}` is not there yet"))),
        }
    }

    /// Looks at the topic for `check`.
    pub(super) fn examine(&self) -> Vec<Finding> {
        let topic = &self.topic;
        let found = self
            .client()
            .and_then(|client| self.partitions_of(&client, topic));
        vec![match found {
            Ok(Some(n)) => Finding::ok(format!(
                "topic `{topic}` is there, with {}",
                count(n, "partition")
            )),
            Ok(None) => Finding::ok(format!("topic `{topic}` is not there: the first start makes it")),
            Err(error) => Finding::error(error.to_string()),
        }]
    }

    /// Something went wrong that may be well a moment later.
    pub(super) fn unwritten(&self, why: &str) -> Error {
        let what = format!(
            "cannot write to topic `{}` of Kafka at {}",
            self.topic, self.kafka.bootstrap
        );
        Error::external(what).detail(why)
    }

    /// The same, of what Kafka says.
    pub(super) fn unseen(&self, error: &KafkaError) -> Error {
        self.unwritten(&error.to_string())
    }
}
