//! The librdkafka properties that a source runs with.
//!
//! Three layers, later ones win: what is tuned here, what the settings say (`kafka_properties`), and what correctness
//! rests on, which no setting can change.

use rdkafka::ClientConfig;

use crate::error::{Error, Result};
use crate::source::Environment;

/// Payload bytes that the queues of one consumer may hold together. librdkafka limits each partition's queue by itself.
const QUEUED_KIB_MAX: usize = 32 * 1024;
/// Messages that librdkafka keeps ahead, over all partitions of one consumer. Each costs about 350 bytes besides its
/// payload, so this is some 35 MB at most.
const QUEUED_MESSAGES: usize = 100_000;
/// Below this a partition's queue runs dry before the next fetch is back.
const QUEUED_MESSAGES_PARTITION_MIN: usize = 4_096;

/// Properties of the consumer that reads `partitions` partitions on one worker.
///
/// Memory: the queues of all partitions together are bound by [`QUEUED_KIB_MAX`] and [`QUEUED_MESSAGES`]; what a fetch
/// brings is added before the bounds are looked at, at most `fetch.message.max.bytes` a partition.
///
/// `fetch.min.bytes` and `fetch.wait.max.ms` say how long a broker may gather records before it answers. One byte and
/// 500 ms (the defaults) answer at once when a record is there and cost nothing when none is. For a topic that always
/// moves, 20000 bytes and 3 ms save about 30 % of the reader's CPU at 200,000 records a second for half a millisecond of
/// freshness, but poll the broker 333 times a second when it is idle: hence a setting, not the default.
pub(super) fn reader(environment: &Environment, partitions: usize) -> Result<ClientConfig> {
    let partitions = partitions.max(1);
    let mut config = ClientConfig::new();
    config
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "16777216")
        // A full queue is looked at again after this long. The default of a second starves a fast reader.
        .set("fetch.queue.backoff.ms", "5")
        .set(
            "queued.min.messages",
            (QUEUED_MESSAGES / partitions)
                .max(QUEUED_MESSAGES_PARTITION_MIN)
                .to_string(),
        )
        .set(
            "queued.max.messages.kbytes",
            (QUEUED_KIB_MAX / partitions).max(1024).to_string(),
        )
        .set("socket.nagle.disable", "true")
        .set("check.crcs", "true")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "60000");
    common(&mut config, environment)?;
    let group = if environment.group.is_empty() {
        "thalweg"
    } else {
        &environment.group
    };
    config
        .set("group.id", group)
        // The ledger says where to read on; a position that is gone is an error, never a guess.
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true");
    Ok(config)
}

/// Properties of the client that looks at topics from outside the workers.
pub(super) fn driver(environment: &Environment) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("socket.nagle.disable", "true");
    common(&mut config, environment)?;
    config.remove("group.id");
    Ok(config)
}

fn common(config: &mut ClientConfig, environment: &Environment) -> Result<()> {
    for (name, value) in &environment.kafka_properties {
        config.set(name, value);
    }
    if environment.kafka.is_empty() {
        return Err(Error::definition("no Kafka to read from").hint("set `kafka` to the bootstrap servers"));
    }
    // Without read_committed the end of a partition would be its high watermark, and aborted records would be read.
    config
        .set("bootstrap.servers", &environment.kafka)
        .set("isolation.level", "read_committed")
        .set("allow.auto.create.topics", "false")
        .set("client.id", "thalweg");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(properties: &[(&str, &str)]) -> Environment {
        Environment {
            kafka: "127.0.0.1:1".to_owned(),
            kafka_properties: properties
                .iter()
                .map(|(a, b)| (a.to_string(), b.to_string()))
                .collect(),
            ..Environment::default()
        }
    }

    #[test]
    fn settings_tune_but_do_not_weaken() {
        let config = reader(
            &environment(&[
                ("fetch.wait.max.ms", "3"),
                ("isolation.level", "read_uncommitted"),
                ("auto.offset.reset", "earliest"),
                ("enable.auto.commit", "true"),
            ]),
            4,
        )
        .unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("3"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("group.id"), Some("thalweg"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("8192"));
    }

    #[test]
    fn no_broker_is_a_mistake_of_the_settings() {
        let error = reader(&Environment::default(), 1).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Definition);
    }
}
