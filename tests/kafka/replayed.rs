//! Dead letters in a topic of their own, and their way back: each once, as it was, marked, whatever command
//! is repeated or killed.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::config::FromClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::command::{command_line, printed};
use super::node;
use crate::support::kafka::{Broker, Consumed};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Payment {
    id: u32,
}

const TOPIC: &str = "replayed.payments";
const DEAD: &str = "replayed.dead";

/// Payments; odd ones above 100 are rejected.
pub fn flow() -> thalweg::Flow {
    dataflow("replayed", |flow: Dataflow<'_>| {
        let payments = Kafka::topic(TOPIC).json::<Payment>().dead_letters_to(DEAD);
        let payments = flow.source("payments", payments);
        let check = |payment: &Payment| match payment.id > 100 && payment.id % 2 == 1 {
            true => Err("odd".to_owned()),
            false => Ok(payment.id),
        };
        let ids = payments.try_map("checked", check);
        ids.append_to("ids", Kafka::topic("replayed.ids").json());
    })
}

/// Runs the dataflow until it has read its topics.
fn count(broker: &Broker, ledger: &std::path::Path) {
    let settings = RunSettings {
        until_end: true,
        store: thalweg::runtime::LedgerLocation::Directory(ledger.to_owned()),
        env: Environment {
            connectors: Extensions::of(thalweg::connect::kafka::KafkaSettings::at(broker.bootstrap())),
            group: "replayed".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    node::joined(Service::start(&flow(), settings).unwrap()).unwrap();
}

/// A record with headers.
fn produce(broker: &Broker, partition: i32, key: Option<&[u8]>, value: &[u8], headers: &[(&str, &str)]) {
    let producer = BaseProducer::from_config(&broker.client()).unwrap();
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        let value = Some(*value);
        headers.insert(Header { key, value })
    });
    let mut record = BaseRecord::<[u8], [u8]>::to(TOPIC)
        .payload(value)
        .partition(partition);
    record.key = key;
    producer
        .send(record.headers(headers).timestamp(1_700_000_000_000))
        .unwrap();
    producer.flush(std::time::Duration::from_secs(30)).unwrap();
}

/// Records that were replayed, by the letter that they came from.
fn replayed(broker: &Broker) -> BTreeMap<String, Consumed> {
    let records = broker.records(TOPIC).into_iter();
    let mut all = BTreeMap::new();
    for record in records {
        if let Some(from) = record.headers.get("thalweg.replayed.from").cloned() {
            let twice = all.insert(from.clone(), record);
            assert_eq!(twice, None, "{from} was replayed twice");
        }
    }
    all
}

#[test]
fn letters_go_back_once_as_they_were() {
    let broker = Broker::shared();
    broker.create_topic(TOPIC, 2);
    let dir = tempfile::tempdir().unwrap();
    produce(
        broker,
        1,
        Some(b"\xff\0"),
        b"{ not a payment",
        &[("trace", "abc"), ("thalweg.sink", "other")],
    );
    produce(broker, 0, None, b"\xfe\xff", &[]);
    produce(broker, 1, None, br#"{"id":7}"#, &[]);
    produce(broker, 1, Some(b"k"), br#"{"id":101}"#, &[("trace", "def")]);
    count(broker, dir.path());

    let kafka = broker.bootstrap();
    let set = ["--kafka", &kafka, "--set", "kafka.group=replayed"];
    let dead = |arguments: &[&str]| printed(&[&["dead-letters"], arguments, &set].concat());
    let listed = dead(&["list"]);
    assert!(
        listed.starts_with("replayed.dead  3 dead letters, 0 of them replayed"),
        "{listed}"
    );
    assert!(
        listed.contains("json_syntax") && listed.contains("rejected"),
        "{listed}"
    );

    let letters = broker.records(DEAD);
    let syntax = letters
        .iter()
        .find(|letter| letter.key == Some(b"\xff\0".to_vec()))
        .unwrap();
    let place = format!("{}/{}", syntax.partition, syntax.offset);
    let shown = dead(&["show", &place]);
    for part in [
        "thalweg.cause: json_syntax",
        "trace: abc",
        "{ not a payment",
        "ff 00",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("thalweg.original.thalweg.sink: other"), "{shown}");

    // A dry run sends nothing.
    let dry = dead(&["replay"]);
    assert!(
        dry.contains("2 letters would be replayed; --yes does it"),
        "{dry}"
    );
    assert_eq!(replayed(broker).len(), 0);

    // One that a step turned down goes back where it is named, as it stands in its topic.
    let one = dead(&["replay", "--cause", "rejected", "--yes"]);
    assert!(one.contains("1 rejected to replayed.payments"), "{one}");
    let rejected = replayed(broker).into_values().next().unwrap();
    assert_eq!(
        (rejected.partition, rejected.key, rejected.value),
        (1, Some(b"k".to_vec()), Some(br#"{"id":101}"#.to_vec()))
    );
    assert_eq!(
        (
            rejected.headers["trace"].as_str(),
            rejected.headers["thalweg.replayed"].as_str()
        ),
        ("def", "1")
    );

    // The others, by two commands, of which one dies before it has committed anything.
    #[cfg(debug_assertions)]
    for point in ["replay_letters.sent", "replay_letters.committed"] {
        let before = replayed(broker).len();
        let arguments = [&["dead-letters", "replay", "--limit", "1", "--yes"], &set[..]].concat();
        let status = command_line(&arguments)
            .env("THALWEG_FAULT", format!("{point}:1"))
            .output()
            .unwrap()
            .status;
        assert!(!status.success(), "it was to die at {point}");
        let committed = usize::from(point == "replay_letters.committed");
        // What the dead one has sent and not committed is ended by the next.
        if committed == 0 {
            dead(&["replay", "--cause", "none", "--yes"]);
        }
        assert_eq!(replayed(broker).len(), before + committed, "{point}");
    }
    dead(&["replay", "--yes"]);
    let all = replayed(broker);
    assert_eq!(all.len(), 3);
    let again = dead(&["replay", "--yes"]);
    assert!(again.contains("0 letters replayed"), "{again}");
    let named = dead(&["replay", "--letter", &place, "--yes"]);
    assert!(
        named.contains("1 letter replayed before, and not again"),
        "{named}"
    );
    assert_eq!(replayed(broker).len(), 3);
    let back = &all[&format!("{DEAD}/{place}")];
    assert_eq!(
        (back.partition, &back.key, &back.value),
        (1, &syntax.key, &syntax.value)
    );
    assert_eq!(back.ts_ms, Some(1_700_000_000_000));
    let expected = [
        ("trace", "abc"),
        ("thalweg.sink", "other"),
        ("thalweg.replayed", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(back.headers[name], value);
    }
    assert!(!back.headers.contains_key("thalweg.cause"));
    let listed = dead(&["list"]);
    assert!(
        listed.starts_with("replayed.dead  3 dead letters, 3 of them replayed"),
        "{listed}"
    );

    // They are as dead as before, and letters once more: it is told how often they were sent.
    count(broker, dir.path());
    let letters = broker.records(DEAD);
    assert_eq!(letters.len(), 6);
    let places: BTreeSet<(String, String)> = letters
        .iter()
        .map(|letter| {
            ["partition", "offset"]
                .map(|name| letter.headers[&format!("__connect.errors.{name}")].clone())
                .into()
        })
        .collect();
    assert_eq!(places.len(), 6, "each letter is of a record of its own");
    dead(&["replay", "--yes"]);
    let twice = replayed(broker)
        .into_values()
        .filter(|record| record.headers["thalweg.replayed"] == "2");
    assert_eq!(twice.count(), 2);
}
