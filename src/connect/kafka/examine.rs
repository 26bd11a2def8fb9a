//! What `check` looks at of a topic: whether its settings fit what the dataflow expects. Reads alone.
//!
//! ```text
//!   DescribeConfigs ──▶ judge: retention, compaction, whose timestamps      (pure)
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Handle;

use super::config;
use super::properties;
use super::settings::KafkaSettings;
use crate::error::Result;
use crate::finding::Finding;

/// For one request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks at the settings of a topic. `timestamps`: they are the event times. The request has its time, so
/// this ends.
pub(super) fn examine(
    kafka: &KafkaSettings,
    topic: &str,
    timestamps: bool,
    runtime: &Handle,
) -> Vec<Finding> {
    match runtime.block_on(settings(kafka, topic)) {
        Ok(settings) => judge(topic, &settings, timestamps),
        Err(wrong) => {
            let what = format!("topic `{topic}`: its retention and compaction can't be seen: {wrong}");
            vec![Finding::warning(what).hint("allow DescribeConfigs on the topic, to have them checked")]
        }
    }
}

/// The settings of a topic, as the broker has them.
async fn settings(kafka: &KafkaSettings, topic: &str) -> Result<BTreeMap<String, String>, String> {
    let client = config::connection(kafka).map_err(|error| error.to_string())?;
    let admin: AdminClient<DefaultClientContext> =
        client.create().map_err(|error| properties::told(&error))?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &options)
        .await;
    let described = described.map_err(|error| error.to_string())?;
    let Some(resource) = described.into_iter().next() else {
        return Err("the answer is empty".into());
    };
    let resource = resource.map_err(|code| code.to_string())?;
    let entries = resource.entries.into_iter();
    Ok(entries
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect())
}

/// What a topic's settings mean for what is read from it.
fn judge(topic: &str, settings: &BTreeMap<String, String>, timestamps: bool) -> Vec<Finding> {
    let get = |name: &str| settings.get(name).map(String::as_str);
    let number = |name: &str| get(name).and_then(|text| text.parse::<i64>().ok());
    let policy = get("cleanup.policy").unwrap_or("delete");
    let mut findings = Vec::new();
    if policy.contains("compact") {
        let lag = number("min.compaction.lag.ms").unwrap_or(0);
        if lag < FOREVER_MS {
            let what = format!(
                "topic `{topic}` is compacted, with a min.compaction.lag.ms of {lag}: where state is made anew from it, the \
                 newest is the same, and what stood at earlier epochs may not be"
            );
            findings.push(Finding::warning(what).hint(
                "raise min.compaction.lag.ms where answers `as_of` earlier epochs have to stay as they were",
            ));
        }
    }
    if policy.contains("delete") {
        for (name, unit) in [("retention.ms", "ms"), ("retention.bytes", "bytes a partition")] {
            if let Some(bound) = number(name).filter(|bound| (0..FOREVER_MS).contains(bound)) {
                let what = format!(
                    "topic `{topic}` keeps its records for {name}={bound} ({}): a start reads what came after its newest \
                     checkpoint, or all of it where state is made anew, and halts where records of that are gone",
                    match unit {
                        "ms" => days(bound),
                        unit => format!("{bound} {unit}"),
                    }
                );
                if unit == "ms" && bound >= AWAY_MS {
                    findings.push(Finding::ok(what));
                } else {
                    let hint = format!("raise {name} beyond the longest time that the service may be away");
                    findings.push(Finding::warning(what).hint(hint));
                }
            }
        }
    }
    if timestamps && get("message.timestamp.type") == Some("LogAppendTime") {
        let what = format!(
            "topic `{topic}` has message.timestamp.type=LogAppendTime, and the dataflow takes its timestamps for event \
             times: those are then when the broker got the records"
        );
        findings.push(
            Finding::warning(what).hint("give the source an `.event_time(…)`, or the topic CreateTime"),
        );
    }
    if findings.is_empty() {
        let what = format!("topic `{topic}`: cleanup.policy={policy}, nothing that a replay needs expires");
        findings.push(Finding::ok(what));
    }
    findings
}

/// Nobody leaves a service away for as long as this: a day.
const AWAY_MS: i64 = 86_400_000;
/// Beyond this a time is taken for ever: a hundred years.
const FOREVER_MS: i64 = 100 * 365 * 86_400_000;

fn days(ms: i64) -> String {
    match ms / 3_600_000 {
        0 => format!("{} s", ms / 1000),
        hours if hours < 48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Severity;

    fn judged(settings: &[(&str, &str)], timestamps: bool) -> Vec<(Severity, String)> {
        let settings = settings
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        let findings = judge("t", &settings, timestamps).into_iter();
        findings.map(|found| (found.verdict, found.what)).collect()
    }

    #[test]
    fn a_topic_that_keeps_everything_fits() {
        let found = judged(
            &[
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("retention.bytes", "-1"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
            false,
        );
        assert!(matches!(&found[..], [(Severity::Ok, _)]), "{found:?}");
    }

    #[test]
    fn what_a_replay_would_miss_is_told() {
        let found = judged(
            &[
                ("cleanup.policy", "compact,delete"),
                ("min.compaction.lag.ms", "60000"),
                ("retention.ms", "7200000"),
                ("retention.bytes", "-1"),
                ("message.timestamp.type", "LogAppendTime"),
            ],
            true,
        );
        assert_eq!(found.len(), 3, "{found:?}");
        let words = [
            "min.compaction.lag.ms of 60000",
            "retention.ms=7200000 (2 hours)",
            "LogAppendTime",
        ];
        for ((verdict, what), word) in found.iter().zip(words) {
            assert!(*verdict == Severity::Warning && what.contains(word), "{what}");
        }
        let week = [("cleanup.policy", "delete"), ("retention.ms", "604800000")];
        assert!(matches!(&judged(&week, true)[..], [(Severity::Ok, what)] if what.contains("7 days")));
        let compacted = [
            ("cleanup.policy", "compact"),
            ("min.compaction.lag.ms", "9223372036854775807"),
        ];
        assert!(matches!(&judged(&compacted, true)[..], [(Severity::Ok, _)]));
    }
}
