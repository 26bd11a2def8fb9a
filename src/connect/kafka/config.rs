//! The librdkafka properties that a source runs with.
//!
//! Three layers, later ones win: what is tuned here, what the settings say (`kafka.properties`), and what
//! correctness rests on, which no setting can change.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::properties::{READS, WRITES};
use super::settings::KafkaSettings;
use crate::error::{Error, Result};

/// Payload bytes that the queues of one consumer may hold together. librdkafka limits each partition's queue
/// by itself.
const QUEUED_KIB_MAX: usize = 32 * 1024;
/// Messages that librdkafka keeps ahead, over all partitions of one consumer. Each costs about 350 bytes
/// besides its payload, so this is some 35 MB at most.
const QUEUED_MESSAGES: usize = 100_000;
/// Below this a partition's queue runs dry before the next fetch is back.
const QUEUED_MESSAGES_PARTITION_MIN: usize = 4_096;

/// Properties of the consumer that reads `partitions` partitions on one worker.
///
/// Memory: the queues of all partitions together are bound by [`QUEUED_KIB_MAX`] and [`QUEUED_MESSAGES`];
/// what a fetch brings is added before the bounds are looked at, at most `fetch.message.max.bytes` a
/// partition.
///
/// `fetch.min.bytes` and `fetch.wait.max.ms` say how long a broker may gather records before it answers. One
/// byte and 500 ms (the defaults) answer at once when a record is there and cost nothing when none is. For a
/// topic that always moves, 20000 bytes and 3 ms save about 30 % of the reader's CPU at 200,000 records a
/// second for half a millisecond of freshness, but poll the broker 333 times a second when it is idle: hence
/// a setting, not the default.
pub(super) fn reader(kafka: &KafkaSettings, group: &str, partitions: usize) -> Result<ClientConfig> {
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
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "60000");
    common(&mut config, kafka)?;
    config
        .set("group.id", group_or_own(group))
        // The ledger says where to read on; a position that is gone is an error, never a guess.
        .set("auto.offset.reset", "error")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true");
    Ok(config)
}

/// Properties of the client that looks at topics from outside the workers.
pub(super) fn driver(kafka: &KafkaSettings) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    // Why a broker hangs up is said at this level alone, and `Status` wants to hear it whatever is logged.
    if (config.log_level as i32) < (RDKafkaLogLevel::Info as i32) {
        config.set_log_level(RDKafkaLogLevel::Info);
    }
    config.set("socket.nagle.disable", "true");
    common(&mut config, kafka)?;
    config.remove("group.id");
    Ok(config)
}

/// Properties of the producer of a sink's shard.
pub(super) fn producer(kafka: &KafkaSettings, transactional_id: &str) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("linger.ms", "1")
        .set("compression.type", "lz4")
        // As Kafka's own clients find the partition of a key.
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true");
    any_client(&mut config, kafka, &READS)?;
    // A request that waits longer than a transaction may is of no use, and refused.
    let socket = config.get("socket.timeout.ms").and_then(|text| text.parse().ok());
    let socket: u128 = socket.unwrap_or(u128::MAX);
    config
        .set("socket.timeout.ms", socket.clamp(2_000, 30_000).to_string())
        // Known to `DOUBTFUL`: no request is sent again sooner.
        .set("retry.backoff.ms", RETRY_FIRST.as_millis().to_string())
        .set("retry.backoff.max.ms", (2 * RETRY_FIRST).as_millis().to_string())
        .set("transactional.id", transactional_id)
        .set("enable.idempotence", "true")
        .set("transaction.timeout.ms", TRANSACTION_MAX.as_millis().to_string())
        // A record that can't be delivered ends with its transaction, and is sent again in another one.
        .set("message.timeout.ms", TRANSACTION_MAX.as_millis().to_string());
    Ok(config)
}

/// How long a transaction may stay open: so long readers wait for one whose process was killed, when it does
/// not come back.
const TRANSACTION_MAX: Duration = Duration::from_secs(120);

/// When a producer sends a request again at the earliest, but for a fifth of it.
pub(super) const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Properties of the client that reads what a sink has written.
pub(super) fn tail(kafka: &KafkaSettings, group: &str) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("socket.nagle.disable", "true");
    common(&mut config, kafka)?;
    config
        .set("group.id", group_or_own(group))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // A follower may not have yet what the leader has acknowledged.
        .remove("client.rack");
    Ok(config)
}

/// Properties of any other client: addresses, security and connections alone, as the rest is a consumer's.
pub(crate) fn connection(kafka: &KafkaSettings) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    set_given(&mut config, kafka, |name| {
        let of_connections = [
            "security.",
            "sasl.",
            "ssl.",
            "enable.ssl.",
            "socket.",
            "broker.",
            "client.",
        ];
        of_connections.iter().any(|prefix| name.starts_with(prefix))
    });
    config.set("bootstrap.servers", servers(kafka)?);
    Ok(config)
}

fn set_given(config: &mut ClientConfig, kafka: &KafkaSettings, wanted: impl Fn(&str) -> bool) {
    for (name, value) in kafka.properties.iter().filter(|(name, _)| wanted(name)) {
        config.set(name, value);
    }
    for (name, value) in kafka.secrets.iter().filter(|(name, _)| wanted(name)) {
        config.set(name, value.reveal());
    }
}

/// The bootstrap servers.
///
/// # Errors
/// None are named.
pub(super) fn servers(kafka: &KafkaSettings) -> Result<&str> {
    match &*kafka.bootstrap {
        "" => Err(Error::definition("no Kafka is set").hint(
            "name its bootstrap servers: --kafka HOST:PORT, THALWEG_KAFKA, or `bootstrap` in the \
                section [kafka]",
        )),
        servers => Ok(servers),
    }
}

/// What every consumer has.
fn common(config: &mut ClientConfig, kafka: &KafkaSettings) -> Result<()> {
    any_client(config, kafka, &WRITES)?;
    // Without read_committed the end of a partition would be its high watermark, and aborted records would be
    // read.
    config
        .set("isolation.level", "read_committed")
        .set("check.crcs", "true");
    Ok(())
}

/// What every client has, without the properties that are not for it: their names begin with these.
fn any_client(config: &mut ClientConfig, kafka: &KafkaSettings, others: &[&str]) -> Result<()> {
    config.set("client.id", "thalweg");
    set_given(config, kafka, |name| {
        !others.iter().any(|other| name.starts_with(other))
    });
    config
        .set("bootstrap.servers", servers(kafka)?)
        .set("allow.auto.create.topics", "false");
    Ok(())
}

/// The name of the consumer group; where none is given, this project's own.
pub(super) fn group_or_own(group: &str) -> &str {
    if group.is_empty() { "thalweg" } else { group }
}

#[cfg(test)]
mod tests {
    use rdkafka::error::KafkaError;

    use super::*;
    use crate::connect::kafka::properties::{accepts, told};

    fn kafka(properties: &[(&str, &str)]) -> KafkaSettings {
        KafkaSettings {
            properties: properties
                .iter()
                .map(|(a, b)| (a.to_string(), b.to_string()))
                .collect(),
            ..KafkaSettings::at("127.0.0.1:1")
        }
    }

    #[test]
    fn settings_tune_but_do_not_weaken() {
        let config = reader(
            &kafka(&[
                ("fetch.wait.max.ms", "3"),
                ("isolation.level", "read_uncommitted"),
                ("auto.offset.reset", "earliest"),
                ("enable.auto.commit", "true"),
            ]),
            "",
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
    fn readers_and_writers_are_given_their_own() {
        let kafka = kafka(&[
            ("compression.type", "zstd"),
            ("fetch.wait.max.ms", "3"),
            ("socket.timeout.ms", "9000"),
        ]);
        let (reads, writes) = (
            reader(&kafka, "", 1).unwrap(),
            producer(&kafka, "app.sink.0").unwrap(),
        );
        assert_eq!(reads.get("compression.type"), None);
        assert_eq!(writes.get("compression.type"), Some("zstd"));
        assert_eq!(writes.get("fetch.wait.max.ms"), None);
        let both = [&reads, &writes].map(|config| config.get("socket.timeout.ms"));
        assert_eq!(both, [Some("9000"); 2]);
        assert_eq!(writes.get("transactional.id"), Some("app.sink.0"));
        assert_eq!(writes.get("enable.idempotence"), Some("true"));
    }

    #[test]
    fn a_clients_error_does_not_show_a_password() {
        let refused = |name: &str| {
            let error = KafkaError::ClientConfig(
                rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
                "it is hunter2".into(),
                name.into(),
                "hunter2".into(),
            );
            told(&error)
        };
        assert!(!refused("ssl.key.password").contains("hunter2"));
        assert_eq!(refused("fetch.wait.max.ms"), "it is hunter2");
        assert!(
            accepts("fetch.wait.max.ms", "soon")
                .unwrap_err()
                .contains("fetch.wait.max.ms")
        );
        accepts("fetch.wait.max.ms", "5").unwrap();
    }

    #[test]
    fn other_clients_are_given_what_a_connection_needs() {
        let mut kafka = kafka(&[("security.protocol", "SASL_SSL"), ("fetch.wait.max.ms", "3")]);
        kafka
            .secrets
            .push(("sasl.password".into(), crate::secret::Secret::new("hunter2")));
        let config = connection(&kafka).unwrap();
        assert_eq!(config.get("security.protocol"), Some("SASL_SSL"));
        assert_eq!(config.get("sasl.password"), Some("hunter2"));
        assert_eq!(config.get("fetch.wait.max.ms"), None);
    }

    #[test]
    fn no_broker_is_a_mistake_of_the_settings() {
        let error = reader(&KafkaSettings::default(), "", 1).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Definition);
    }
}
