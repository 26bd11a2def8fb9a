//! Which properties of librdkafka may be set, under `[kafka.properties]`, and which not, with the reason.
//!
//! An allow list, because librdkafka has some 200 properties and several of them would quietly break what is
//! promised: reading uncommitted records, say, or going on elsewhere when a position is gone.

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;

use crate::setting::properties::{Property, PropertyKind};

use PropertyKind::{OneOf, Path, Plain, Secret};

const fn property(name: &'static str, kind: PropertyKind) -> Property {
    Property { name, kind }
}

/// What may be set.
pub(super) static KNOWN: &[Property] = &[
    // Who talks to whom, and how it is kept from others.
    property(
        "security.protocol",
        OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]),
    ),
    property(
        "sasl.mechanism",
        OneOf(&["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]),
    ),
    property("sasl.username", Plain),
    property("sasl.password", Secret),
    property("ssl.ca.location", Path),
    property("ssl.ca.pem", Plain),
    property("ssl.certificate.location", Path),
    property("ssl.certificate.pem", Plain),
    property("ssl.key.location", Path),
    property("ssl.key.pem", Secret),
    property("ssl.key.password", Secret),
    property("ssl.keystore.location", Path),
    property("ssl.keystore.password", Secret),
    property("ssl.crl.location", Path),
    property("ssl.cipher.suites", Plain),
    property("ssl.curves.list", Plain),
    property("ssl.sigalgs.list", Plain),
    property("ssl.endpoint.identification.algorithm", OneOf(&["none", "https"])),
    property("enable.ssl.certificate.verification", Plain),
    property("client.id", Plain),
    property("client.rack", Plain),
    property("client.dns.lookup", Plain),
    // Connections.
    property("broker.address.family", Plain),
    property("broker.address.ttl", Plain),
    property("connections.max.idle.ms", Plain),
    property("socket.connection.setup.timeout.ms", Plain),
    property("socket.timeout.ms", Plain),
    property("socket.keepalive.enable", Plain),
    property("socket.nagle.disable", Plain),
    property("socket.send.buffer.bytes", Plain),
    property("socket.receive.buffer.bytes", Plain),
    property("socket.max.fails", Plain),
    property("reconnect.backoff.ms", Plain),
    property("reconnect.backoff.max.ms", Plain),
    property("retry.backoff.ms", Plain),
    property("retry.backoff.max.ms", Plain),
    property("api.version.request.timeout.ms", Plain),
    property("topic.metadata.refresh.interval.ms", Plain),
    property("metadata.max.age.ms", Plain),
    // How much is read at once, and ahead.
    property("fetch.min.bytes", Plain),
    property("fetch.wait.max.ms", Plain),
    property("fetch.max.bytes", Plain),
    property("fetch.message.max.bytes", Plain),
    property("fetch.error.backoff.ms", Plain),
    property("fetch.queue.backoff.ms", Plain),
    property("queued.min.messages", Plain),
    property("queued.max.messages.kbytes", Plain),
    property("receive.message.max.bytes", Plain),
    // How sinks write. See `WRITES`.
    property(
        "compression.type",
        OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]),
    ),
    property("compression.level", Plain),
    property("linger.ms", Plain),
    property("batch.size", Plain),
    property("batch.num.messages", Plain),
    property("message.max.bytes", Plain),
    property("queue.buffering.max.messages", Plain),
    property("queue.buffering.max.kbytes", Plain),
    // To look into it.
    property("debug", Plain),
    property("log.connection.close", Plain),
];

/// Names of librdkafka's that stand for another one.
pub(super) static ALIASES: &[(&str, &str)] = &[
    ("sasl.mechanisms", "sasl.mechanism"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
];

/// Names of properties that only a producer takes begin with these. A consumer would warn of them.
pub(super) const WRITES: [&str; 5] = [
    "compression.",
    "linger.",
    "batch.",
    "message.max.",
    "queue.buffering.",
];
/// And those that only a consumer takes.
pub(super) const READS: [&str; 3] = ["fetch.", "queued.", "receive."];

const NO_MEMBER: &str = "partitions are assigned by the owner of the ledger, not by a consumer group, so that \
    no rebalance splits an epoch";
const COMMITS: &str =
    "the ledger decides where reading resumes; offsets are committed to the group once they are bound";
const ONCE: &str = "exactly-once sinks depend on it";

/// What would break a promise, and why.
pub(super) static REFUSED: &[(&str, &str)] = &[
    (
        "isolation.level",
        "records of aborted transactions would be processed",
    ),
    (
        "auto.offset.reset",
        "if a position is gone, records are lost and the service halts; resetting the offset would hide \
            it",
    ),
    (
        "enable.partition.eof",
        "idle partitions and `until_end` depend on it",
    ),
    ("check.crcs", "corrupted records would be processed"),
    (
        "allow.auto.create.topics",
        "a misspelled topic name would create an empty topic",
    ),
    ("enable.auto.commit", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("offset.store.method", COMMITS),
    ("group.id", "the group is the setting `kafka.group`"),
    ("group.instance.id", NO_MEMBER),
    ("group.protocol", NO_MEMBER),
    ("group.protocol.type", NO_MEMBER),
    ("group.remote.assignor", NO_MEMBER),
    ("partition.assignment.strategy", NO_MEMBER),
    ("session.timeout.ms", NO_MEMBER),
    ("heartbeat.interval.ms", NO_MEMBER),
    ("max.poll.interval.ms", NO_MEMBER),
    ("bootstrap.servers", "it is the setting `kafka.bootstrap`"),
    ("metadata.broker.list", "it is the setting `kafka.bootstrap`"),
    (
        "plugin.library.paths",
        "foreign code in the process could break any guarantee",
    ),
    (
        "test.mock.num.brokers",
        "mock brokers would answer instead of yours",
    ),
    ("acks", ONCE),
    ("request.required.acks", ONCE),
    ("enable.idempotence", ONCE),
    ("transactional.id", ONCE),
    ("transaction.timeout.ms", ONCE),
    ("message.timeout.ms", ONCE),
    (
        "partitioner",
        "keys have to be partitioned as Kafka's own clients do it",
    ),
    (
        "sasl.kerberos.service.name",
        "Kerberos is not built in: use SCRAM or PLAIN",
    ),
    (
        "sasl.kerberos.principal",
        "Kerberos is not built in: use SCRAM or PLAIN",
    ),
    (
        "sasl.kerberos.keytab",
        "Kerberos is not built in: use SCRAM or PLAIN",
    ),
    (
        "sasl.oauthbearer.config",
        "OAUTHBEARER is not supported: use SCRAM or PLAIN",
    ),
    (
        "sasl.oauthbearer.method",
        "OAUTHBEARER is not supported: use SCRAM or PLAIN",
    ),
];

/// What is wrong with properties taken together: `(the property at fault, what is wrong)`.
pub(super) fn conflict<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<(&'static str, String)> {
    let protocol = get("security.protocol").unwrap_or("PLAINTEXT").to_uppercase();
    let sasl = protocol.starts_with("SASL_");
    let ssl = protocol.ends_with("SSL");
    for (name, used, needs) in [
        ("sasl.mechanism", sasl, "SASL_SSL"),
        ("sasl.username", sasl, "SASL_SSL"),
        ("sasl.password", sasl, "SASL_SSL"),
        ("ssl.ca.location", ssl, "SSL or SASL_SSL"),
        ("ssl.certificate.location", ssl, "SSL or SASL_SSL"),
        ("ssl.key.location", ssl, "SSL or SASL_SSL"),
    ] {
        if !used && get(name).is_some() {
            let wrong = format!("has no effect with security.protocol {protocol}: set that to {needs}");
            return Some((name, wrong));
        }
    }
    for name in ["sasl.mechanism", "sasl.username", "sasl.password"] {
        if sasl && get(name).is_none() {
            let wrong = format!("asks for SASL, and `{name}` is not set");
            return Some(("security.protocol", wrong));
        }
    }
    if !cfg!(feature = "tls") && (ssl || get("sasl.mechanism").is_some_and(|m| m.to_uppercase() != "PLAIN")) {
        return Some((
            "security.protocol",
            "needs a build with the feature `tls`, and this one has it not".into(),
        ));
    }
    None
}

/// Whether librdkafka takes a property with this value; if not, what it says.
///
/// # Errors
/// What is wrong, in librdkafka's words: they may repeat the value.
pub(crate) fn accepts(name: &str, value: &str) -> Result<(), String> {
    let mut config = ClientConfig::new();
    config.set(name, value);
    config
        .create_native_config()
        .map(drop)
        .map_err(|error| told(&error))
}

/// An error without the value of a property, which may be a password.
pub(crate) fn told(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, _, name, _) if is_secret(name) => {
            format!("the value of `{name}` is not taken")
        }
        KafkaError::ClientConfig(_, description, ..) => description.clone(),
        error => error.to_string(),
    }
}

fn is_secret(name: &str) -> bool {
    name.ends_with("password") || name.ends_with("key.pem")
}
