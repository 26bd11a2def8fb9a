//! What may be set of Kafka: where it is, how its client behaves, and what holds for one topic.

use super::properties::accepts;
use super::properties::{ALIASES, KNOWN, REFUSED, conflict};
use crate::finding::Finding;
use crate::secret::{HIDDEN, Secret};
use crate::setting::extensions::Extensions;
use crate::setting::properties::{Properties, PropertyValue};
use crate::setting::{FlagScope, Setting, flag, flagged, setting, text};
use crate::source::setting::{SettingScope, SourceSetting, SourceSettingKind};
use crate::source::{Deletes, Environment, Overrides, Start};

/// Where Kafka is and how to talk to it.
///
/// ```
/// use thalweg::connect::kafka::KafkaSettings;
/// use thalweg::{setting::extensions::Extensions, source::Environment};
/// let env = Environment {
///     connectors: Extensions::of(KafkaSettings::at("127.0.0.1:9092")),
///     ..Environment::default()
/// };
/// ```
#[derive(Clone, Debug, Default)]
pub struct KafkaSettings {
    /// Bootstrap servers, as in `127.0.0.1:9092`; empty: none were named.
    pub bootstrap: String,
    /// Further properties of librdkafka.
    pub properties: Vec<(String, String)>,
    /// Those of them that nobody may see: passwords and keys.
    pub secrets: Vec<(String, Secret)>,
}

impl KafkaSettings {
    /// The Kafka at these bootstrap servers.
    pub fn at(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            ..Self::default()
        }
    }

    /// Those of an environment.
    pub(crate) fn of(env: &Environment) -> Self {
        env.connectors.get::<Self>().cloned().unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<&str> {
        let plain = self.properties.iter().find(|(known, _)| known == name);
        let secret = self.secrets.iter().any(|(known, _)| known == name);
        plain
            .map(|(_, value)| value.as_str())
            .or(secret.then_some(HIDDEN))
    }
}

/// What the settings say of one topic, in place of what the dataflow says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Where the first start begins.
    pub start: Option<Start>,
    /// Whether a topic that is missing at the start is waited for.
    pub wait_for_topic: Option<bool>,
    /// Which records delete rows; of keyed topics.
    pub deletes: Option<Deletes>,
}

impl TopicSettings {
    /// Those of the source that is being opened.
    pub(super) fn of(env: &Environment) -> Self {
        env.overrides.connector.get::<Self>().cloned().unwrap_or_default()
    }
}

/// The connector's name: the section of its settings.
pub(super) const NAME: &str = "kafka";
/// In front of librdkafka's own names.
const PREFIX: &str = "kafka.properties.";

pub(super) static SETTINGS: &[Setting] = &[flagged(
    setting(
        "kafka.bootstrap",
        text("a comma-separated list of HOST:PORT", |s, text| {
            s.get_mut::<KafkaSettings>().bootstrap = text.to_owned();
            !text.is_empty() && text.split(',').all(|one| is_host_port(one.trim()))
        }),
        "",
        "Bootstrap servers of Kafka",
    ),
    flag("kafka", "HOST:PORT", FlagScope::All),
)];

fn is_host_port(text: &str) -> bool {
    // A broker may be named with its protocol, as in SASL_SSL://host:9093.
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

pub(super) static PROPERTIES: Properties = Properties {
    prefix: PREFIX,
    client: "Kafka's client",
    known: KNOWN,
    aliases: ALIASES,
    refused: REFUSED,
    accepts,
    set: |s, name, value| {
        let own = s.get_mut::<KafkaSettings>();
        match value {
            PropertyValue::Plain(text) => own.properties.push((name.to_owned(), text)),
            PropertyValue::Secret(secret) => own.secrets.push((name.to_owned(), secret)),
        }
    },
    doc: "\
## Kafka's client

The section `[kafka.properties]` sets properties of librdkafka, by
[its own names](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md). The environment
variable of a property is `THALWEG_KAFKA_PROPERTIES_` and its name: `THALWEG_KAFKA_PROPERTIES_SASL_PASSWORD`.
These may be set:
",
};

fn topic(overrides: &mut Overrides) -> &mut TopicSettings {
    overrides.connector.get_mut()
}

pub(super) static SOURCE_SETTINGS: &[SourceSetting] = &[
    SourceSetting {
        name: "start",
        doc: "Where the first start begins to read. Later starts resume where the ledger says",
        kind: SourceSettingKind::Word(
            "`earliest`, `latest`, or a time such as 2026-03-01T12:00:00Z",
            |s, text| {
                let own = topic(s);
                own.start = text.parse().ok();
                own.start.is_some()
            },
        ),
        of: SettingScope::Streams("is a table: it is read from its topic's beginning"),
    },
    SourceSetting {
        name: "wait_for_topic",
        doc: "Wait for a topic that is missing at the start, instead of failing",
        kind: SourceSettingKind::Word("true or false", |s, text| {
            let own = topic(s);
            own.wait_for_topic = text.parse().ok();
            own.wait_for_topic.is_some()
        }),
        of: SettingScope::All,
    },
    SourceSetting {
        name: "deletes",
        doc: "Which records delete the row of their key: those without a payload; also those whose payload \
            is the format's null, such as JSON `null`; also those with an empty payload",
        kind: SourceSettingKind::Word("`tombstone`, `null` or `null_or_empty`", |s, text| {
            let own = topic(s);
            own.deletes = text.parse().ok();
            own.deletes.is_some()
        }),
        of: SettingScope::Tables("is a stream: it has no rows to delete"),
    },
];

/// What is wrong with settings taken together.
pub(super) fn conflicting(settings: &Extensions) -> Option<(String, String)> {
    let own = settings.get::<KafkaSettings>()?;
    let (name, wrong) = conflict(|name| own.get(name))?;
    Some((format!("{PREFIX}{name}"), wrong))
}

/// What they mean for who can read along.
pub(super) fn warnings(settings: &Extensions) -> Vec<Finding> {
    let Some(own) = settings.get::<KafkaSettings>() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let property = |name: &str| own.get(name).map_or(String::new(), str::to_uppercase);
    if property("security.protocol") == "SASL_PLAINTEXT" && property("sasl.mechanism") == "PLAIN" {
        let what = "the password for Kafka goes over the network as it is: SASL_PLAINTEXT with PLAIN";
        findings.push(Finding::warning(what).hint("use SASL_SSL, or SCRAM"));
    }
    if property("enable.ssl.certificate.verification") == "FALSE" {
        let what = "anybody may pretend to be the broker: its certificate is not verified";
        findings.push(Finding::warning(what).hint("set `ssl.ca.location` and leave verification on"));
    }
    findings
}
