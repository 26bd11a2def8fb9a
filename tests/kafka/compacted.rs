//! A compacted topic: the broker takes records away that later ones replace, and a restart goes on all the
//! same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use thalweg::Flow;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::{eventually, node};
use crate::support::kafka::Broker;

const TOPIC: &str = "compacted.prices.v1";

fn prices() -> Flow {
    dataflow("prices", |flow: Dataflow| {
        flow.table("prices", Kafka::topic(TOPIC).json::<u64>().keyed::<u32>())
            .view_with("newest", |view| view.fields(["price"]));
    })
}

/// Rows after all that is there was read.
fn rows(broker: &Broker, data: &Path) -> BTreeSet<String> {
    let settings = RunSettings {
        until_end: true,
        store: LedgerLocation::Directory(data.to_owned()),
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
            group: "tests".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    let service = Service::start(&prices(), settings).unwrap();
    let views = service.join().unwrap();
    node::rows(&views).remove("newest").unwrap_or_default()
}

#[test]
fn a_restart_after_compaction_has_the_newest_values() {
    // The cleaner looks often here.
    let broker = Broker::start_with(&[("log.cleaner.backoff.ms", "100")]);
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.ms", "200"),
        ("delete.retention.ms", "100"),
    ];
    broker.create_topic_with(TOPIC, 2, &settings);
    let at = |round: u64| 1_700_000_000_000 + round as i64 * 1_000;
    // Each key many times, the last ones null for every seventh.
    let mut newest = BTreeMap::new();
    for round in 0..20u64 {
        for partition in 0..2u64 {
            let records: Vec<_> = (0..50u64)
                .map(|n| {
                    let key = n * 2 + partition;
                    let price = (round < 19 || key % 7 != 0).then(|| (round * 1_000 + key).to_string());
                    newest.insert(key, price.clone());
                    (key.to_string(), price)
                })
                .collect();
            let records = records.iter().map(|(key, price)| {
                (
                    Some(key.as_bytes()),
                    price.as_deref().map(str::as_bytes),
                    at(round),
                )
            });
            broker.produce_raw(TOPIC, partition as i32, records);
        }
    }
    let data = tempfile::tempdir().unwrap();
    let first = rows(&broker, data.path());
    assert_eq!(first.len(), newest.values().flatten().count());

    // A segment is closed by a record that is later than its first; only closed ones are cleaned.
    let mut round = 20;
    let left = || {
        round += 1;
        for key in [1u64, 2] {
            let price = newest[&key].clone().unwrap();
            let record = (key.to_string(), price, at(round));
            broker.produce(TOPIC, (key % 2) as i32, &[record]);
        }
        let left = broker.records(TOPIC).len();
        (left < 1_000).then_some(())
    };
    eventually("compaction", left, || {
        format!("{} records", broker.records(TOPIC).len())
    });
    assert_eq!(rows(&broker, data.path()), first);
}
