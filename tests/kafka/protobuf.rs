//! Protobuf and JSON Schema with a real registry: references, message indexes, keys, and what the type lacks.

use std::collections::BTreeMap;

use prost_reflect::prost::Message as _;
use prost_reflect::prost_types::Timestamp;
use serde_json::{Value, json};
use thalweg::codec::compatibility::SubjectSchema;
use thalweg::codec::protobuf::write_header;
use thalweg::codec::registry::Registry as Client;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Environment, Source};

use super::node;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

const ITEM: &str = r#"syntax = "proto3"; package shop; message Item { string name = 1; int64 price = 2; }"#;
const ORDER: &str = r#"syntax = "proto3";
package shop;
import "shop/item.proto";
import "google/protobuf/timestamp.proto";
message Unlike { bool nothing = 1; }
message Order {
  int64 id = 1;
  repeated Item items = 2;
  google.protobuf.Timestamp at = 3;
  optional string note = 4;
  message Note { string text = 1; }
}
"#;
const KEY: &str = r#"syntax = "proto3"; message Key { uint32 id = 1; }"#;
const STAMP: &str = r#"syntax = "proto3"; package google.protobuf; message Timestamp { int64 seconds = 1; int32 nanos = 2; }"#;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Order {
    id: i64,
    items: Vec<Item>,
    at: Option<EventTime>,
    note: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Item {
    name: String,
    price: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Key {
    id: u32,
}

fn environment(broker: &Broker, registry: &Registry) -> Environment {
    Environment {
        connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
        registry: Some(Client::new(&registry.url(), node::tokio().clone()).unwrap()),
        group: "protobuf".into(),
        ..Environment::default()
    }
}

fn payload(id: i32, indexes: &[u32], message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(u32::try_from(id).unwrap(), indexes, &mut out);
    out.extend(message);
    out
}

/// A field whose value says how long it is.
fn delimited(number: u8, value: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
}

fn item(name: &str, price: u8) -> Vec<u8> {
    [
        delimited(1, name.as_bytes()),
        vec![2 << 3, price & 0x7f | 0x80, price >> 7],
    ]
    .concat()
}

fn order(id: u8, items: &[Vec<u8>]) -> Vec<u8> {
    let items = items.iter().flat_map(|item| delimited(2, item));
    let at = Timestamp {
        seconds: 1,
        nanos: 2_000,
    }
    .encode_to_vec();
    [1 << 3, id]
        .into_iter()
        .chain(items)
        .chain(delimited(3, &at))
        .collect()
}

#[test]
fn protobuf_of_a_real_registry() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    registry.register_as("pb.item", "PROTOBUF", ITEM);
    let references = json!([{ "name": "shop/item.proto", "subject": "pb.item", "version": 1 }]);
    let orders = registry.register_with("pb.orders-value", "PROTOBUF", ORDER, references);
    let items = registry.register_as("pb.items-value", "PROTOBUF", ITEM);
    let keys = registry.register_as("pb.items-key", "PROTOBUF", KEY);
    let stamps = registry.register_as("pb.stamps-value", "PROTOBUF", STAMP);
    let write = |topic: &str, records: &[(Option<Vec<u8>>, Option<Vec<u8>>)]| {
        broker.create_topic(topic, 1);
        let records = records
            .iter()
            .map(|(key, value)| (key.as_deref(), value.as_deref(), 1));
        broker.produce_raw(topic, 0, records);
    };
    // Two orders, one whose second item is too dear, a note, bytes that end too soon, and no such message.
    let payloads = [
        payload(orders, &[1], &order(1, &[item("a", 3), item("b", 5)])),
        payload(orders, &[1], &[order(2, &[]), delimited(4, b"hi")].concat()),
        payload(
            orders,
            &[1],
            &[order(3, &[item("a", 3)]), delimited(2, &[2 << 3, 0x80, 2])].concat(),
        ),
        payload(orders, &[1, 0], &delimited(1, b"text")),
        payload(orders, &[1], &order(4, &[item("a", 3)])[..9]),
        payload(orders, &[7], &[]),
    ];
    write("pb.orders", &payloads.map(|payload| (None, Some(payload))));
    let key = |id: u8| Some(payload(keys, &[0], &[1 << 3, id]));
    let value = |name: &str| Some(payload(items, &[0], &item(name, 7)));
    let rows = [
        (key(1), value("a")),
        (key(2), value("b")),
        (key(1), value("c")),
        (key(2), None),
    ];
    write("pb.items", &rows);
    let stamp = Timestamp { seconds: 5, nanos: 6 }.encode_to_vec();
    write("pb.stamps", &[(None, Some(payload(stamps, &[0], &stamp)))]);

    let flow = dataflow("protobuf", |flow: Dataflow<'_>| {
        let orders = Kafka::topic("pb.orders").protobuf::<Order>();
        flow.source("orders", orders)
            .changes()
            .group_by("order", Order::clone)
            .aggregate("counted", |a| a.count())
            .view("orders");
        let items = Kafka::topic("pb.items").protobuf::<Item>().keyed::<Key>();
        flow.table("items", items).view("items");
    });
    let mut seen = Vec::new();
    for workers in [1, 2] {
        let settings = RunSettings {
            workers,
            env: environment(broker, registry),
            until_end: true,
            ..RunSettings::default()
        };
        let views = node::joined(Service::start(&flow, settings).unwrap()).unwrap();
        let all = node::rows(&views);
        let rows = |view: &str| -> Vec<Value> {
            all[view]
                .iter()
                .map(|row| serde_json::from_str(row).unwrap())
                .collect()
        };
        let mut letters: Vec<String> = (rows("orders.dead_letters").iter())
            .map(|row| {
                let text = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
                assert_eq!(row["schema"], json!(orders), "{row}");
                format!("{} {} {}", row["offset"], text("cause"), text("detail"))
            })
            .collect();
        letters.sort();
        assert_eq!(
            letters,
            [
                "2 schema_incompatible items[1].price",
                "3 schema_incompatible id",
                "4 protobuf_invalid items",
                "5 protobuf_invalid message indexes"
            ]
        );
        let table: BTreeMap<u64, String> = (rows("items").iter())
            .map(|row| {
                (
                    row["id"].as_u64().unwrap(),
                    row["name"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        assert_eq!(table, BTreeMap::from([(1, "c".to_owned())]));
        assert_eq!(rows("orders").len(), 2, "{:?}", all["orders"]);
        seen.push(all);
    }
    assert_eq!(seen[0], seen[1], "on any number of workers");
}

#[test]
fn types_are_held_against_the_schemas_at_the_start() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    registry.register_as("fit.item", "PROTOBUF", ITEM);
    let references = json!([{ "name": "shop/item.proto", "subject": "fit.item", "version": 1 }]);
    registry.register_with("fit.orders-value", "PROTOBUF", ORDER, references);
    let json = r#"{"type":"object","properties":{"id":{"type":"integer"}},"required":["id"]}"#;
    registry.register_as("fit.json-value", "JSON", json);
    broker.create_topic("fit.orders", 1);
    broker.create_topic("fit.json", 1);
    let env = environment(broker, registry);
    let fits = |source: thalweg::connect::kafka::Topic<Order>| {
        let opened = Source::<Order>::open(source, &env).unwrap();
        let fit = opened.driver.fits().remove(0);
        let SubjectSchema::Newest {
            incompatibilities,
            readable,
            ..
        } = &fit.found
        else {
            panic!("{fit}")
        };
        assert_eq!(*readable, fit.verdict().is_ok());
        (
            incompatibilities
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            *readable,
        )
    };
    let (incompatibilities, readable) = fits(Kafka::topic("fit.orders").protobuf());
    assert!(readable && incompatibilities.len() == 1, "{incompatibilities:?}");
    assert!(
        incompatibilities[0].starts_with("field `items[].price`: the schema has int64, and u8"),
        "{incompatibilities:?}"
    );
    let (incompatibilities, readable) = fits(Kafka::topic("fit.orders").avro());
    assert!(
        !readable && incompatibilities[0].contains("it is Protobuf"),
        "{incompatibilities:?}"
    );
    let (incompatibilities, readable) = fits(Kafka::topic("fit.json").json_schema());
    assert!(
        readable && incompatibilities[0].starts_with("field `items`: the schema has no such field"),
        "{incompatibilities:?}"
    );
    let (incompatibilities, readable) = fits(Kafka::topic("fit.json").protobuf());
    assert!(
        !readable && incompatibilities[0].contains("it is JSON Schema"),
        "{incompatibilities:?}"
    );
}

#[test]
fn schemas_are_checked_and_registered_by_the_command() {
    let registry = Registry::shared();
    let dir = tempfile::tempdir().unwrap();
    let url = registry.url();
    let run = |command: &str, name: &str, text: &str, more: &[&str]| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        let own = [
            "thalweg",
            "schema",
            command,
            file.to_str().unwrap(),
            "--registry",
            &url,
        ];
        let arguments = own.iter().chain(more).map(Into::into);
        thalweg::cli::main_from(arguments, []) == std::process::ExitCode::SUCCESS
    };
    let item = ["--subject", "cmd.item"];
    let order = ["--reference", "shop/item.proto=cmd.item"];
    assert!(run("register", "item.proto", ITEM, &item));
    assert!(
        !run("register", "cmd.orders.proto", ORDER, &[]),
        "what it imports is not named"
    );
    assert!(!run(
        "register",
        "cmd.orders.proto",
        ORDER,
        &["--reference", "shop/item.proto=cmd.none"]
    ));
    assert!(run("check", "cmd.orders.proto", ORDER, &order));
    assert!(run("register", "cmd.orders.proto", ORDER, &order));
    assert!(
        run("check", "cmd.orders.proto", ORDER, &order),
        "it has this very schema"
    );
    let changed = ITEM.replace("string name", "int64 name");
    assert!(!run("check", "item.proto", &changed, &item));
    assert!(!run("register", "item.proto", &changed, &item));
    assert!(
        !run("check", "item.avsc", "\"long\"", &item),
        "it is of another language"
    );
    assert!(run(
        "register",
        "cmd.json.json",
        r#"{"type":"object","properties":{"id":{"type":"integer"}}}"#,
        &[]
    ));
}
