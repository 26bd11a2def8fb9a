//! Keys and payloads in every format, of any size, and what a registry may do to those that it takes part in.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration as Wait;

use serde_json::Value;
use thalweg::codec::compatibility::SubjectSchema;
use thalweg::codec::registry::Registry as Client;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Environment, Source};
use thalweg::view::Views;
use thalweg::{Error, Flow, Kind};

use super::eventually;
use super::load::{framed, long};
use super::node;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Row {
    cents: i64,
}

const ROW: &str = r#"{"type":"record","name":"Row","fields":[{"name":"cents","type":"long"}]}"#;
const ROW_NOTED: &str = r#"{"type":"record","name":"Row","fields":[{"name":"note","type":"string","default":""},{"name":"cents","type":"int"}]}"#;

fn environment(broker: &Broker, registry: Option<&str>) -> Environment {
    Environment {
        connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
        registry: registry.map(|url| Client::new(url, node::tokio().clone()).unwrap()),
        group: "formats".into(),
        ..Environment::default()
    }
}

fn start(flow: &Flow, workers: usize, env: Environment, until_end: bool) -> Service {
    let settings = RunSettings {
        workers,
        env,
        until_end,
        ..RunSettings::default()
    };
    Service::start(flow, settings).unwrap()
}

fn run(flow: &Flow, workers: usize, env: Environment) -> Result<Arc<Views>, Error> {
    node::joined(start(flow, workers, env, true))
}

/// A view's rows, each as JSON.
fn rows(views: &Views, view: &str) -> Vec<Value> {
    let all = node::rows(views);
    all[view]
        .iter()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect()
}

fn text(n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    long(&mut out, i64::try_from(n.to_string().len()).unwrap());
    out.extend(n.to_string().bytes());
    out
}

#[test]
fn tables_take_keys_of_every_format() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let id = u32::try_from(registry.register("formats.framed-key", r#""string""#)).unwrap();
    let value = u32::try_from(registry.register("formats.framed-value", ROW)).unwrap();
    let json = |cents: i64| format!("{{\"cents\":{cents},\"more\":1}}").into_bytes();
    let datum = |cents: i64| {
        let mut out = Vec::new();
        long(&mut out, cents);
        out
    };
    type Make = Box<dyn Fn(i64) -> Vec<u8>>;
    // Name, how a key is written, how a value is, a key that is none.
    let formats: [(&str, Make, Make, &[u8]); 6] = [
        (
            "json",
            Box::new(|k| format!("\"{k}\"").into_bytes()),
            Box::new(json),
            b"{",
        ),
        (
            "text",
            Box::new(|k| k.to_string().into_bytes()),
            Box::new(json),
            b"\xff",
        ),
        (
            "bytes",
            Box::new(|k| k.to_be_bytes().to_vec()),
            Box::new(json),
            b"\0\x01",
        ),
        ("plain", Box::new(text), Box::new(datum), b"\x05ab"),
        (
            "framed",
            Box::new(move |k| framed(id, |out| out.extend(text(k)))),
            Box::new(move |cents| framed(value, |out| out.extend(datum(cents)))),
            b"\x01\0\0\0\x01",
        ),
        (
            "strings",
            Box::new(|k| k.to_string().into_bytes()),
            Box::new(|v| v.to_string().into_bytes()),
            b"\xff",
        ),
    ];
    for (name, key, value, none) in &formats {
        let topic = format!("formats.{name}");
        broker.create_topic(&topic, 2);
        let (one, two, three) = (key(1), key(2), key(3));
        let values: Vec<_> = (0..6).map(value).collect();
        let records: [(Option<&[u8]>, Option<&[u8]>, i64); 7] = [
            (Some(&one), Some(&values[0]), 1),
            (Some(&two), Some(&values[1]), 1),
            (None, Some(&values[2]), 1),
            (Some(none), Some(&values[3]), 1),
            (Some(&one), Some(&values[4]), 1),
            (Some(&two), None, 1),
            (Some(&three), Some(&values[5]), 1),
        ];
        broker.produce_raw(&topic, 1, records);
    }
    let flow = dataflow("formats", |flow: Dataflow<'_>| {
        let topic = |name: &str| Kafka::topic(&format!("formats.{name}"));
        flow.table("json", topic("json").json::<Row>().keyed::<String>())
            .view("json_now");
        flow.table("text", topic("text").json::<Row>().keyed::<i64>().key_text())
            .view("text_now");
        flow.table("bytes", topic("bytes").json::<Row>().keyed::<i64>().key_bytes())
            .view("bytes_now");
        let plain = topic("plain").avro_plain::<Row>(ROW).keyed::<String>();
        flow.table("plain", plain.key_avro_plain(r#""string""#))
            .view("plain_now");
        flow.table("framed", topic("framed").avro::<Row>().keyed::<String>())
            .view("framed_now");
        flow.table("strings", topic("strings").text::<i64>().keyed::<i64>())
            .view("strings_now");
    });
    for workers in [1, 2] {
        let views = run(&flow, workers, environment(broker, Some(&registry.url()))).unwrap();
        for (name, ..) in &formats {
            let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok()).unwrap();
            let table: BTreeMap<i64, i64> = rows(&views, &format!("{name}_now"))
                .iter()
                .map(|row| {
                    (
                        number(&row["key"]),
                        number(row.get("cents").unwrap_or(&row["value"])),
                    )
                })
                .collect();
            assert_eq!(
                table,
                BTreeMap::from([(1, 4), (3, 5)]),
                "{name}: the last by offset, and none that was deleted"
            );
            let letters: BTreeSet<_> = rows(&views, &format!("{name}.dead_letters"))
                .iter()
                .map(|row| {
                    (
                        row["offset"].as_i64().unwrap(),
                        row["cause"].as_str().unwrap().to_owned(),
                    )
                })
                .collect();
            let expected = [(2, "key_missing".to_owned()), (3, "key_invalid".to_owned())];
            assert_eq!(letters, BTreeSet::from(expected), "{name}");
        }
    }
}

#[test]
fn payloads_of_every_format_and_what_is_wrong_with_them() {
    let broker = Broker::shared();
    let write = |topic: &str, payloads: &[&[u8]]| {
        broker.create_topic(topic, 1);
        broker.produce_raw(topic, 0, payloads.iter().map(|payload| (None, Some(*payload), 1)));
    };
    let deep = b"{\"cents\":1,\"a\":{\"b\":".repeat(5_000);
    write(
        "payloads.strict",
        &[
            b"{\"cents\":1}",
            b"{\"cents\":2,\"fee\":1}",
            b"{\"cents\":",
            b"{}",
            &deep,
        ],
    );
    write("payloads.text", &[b"de", b"\xc3\x28", b"", "zürich".as_bytes()]);
    write("payloads.bytes", &[b"\0\xff", b""]);
    // Good, nothing, a number without an end, one byte too many.
    let endless = [0xfe; 20];
    write("payloads.plain", &[&[2], &[], &endless, &[2, 2]]);
    let flow = dataflow("payloads", |flow: Dataflow<'_>| {
        let topic = |name: &str| Kafka::topic(&format!("payloads.{name}"));
        let counted = |rows: Collection<'_, String>, name: &str| {
            rows.group_by("found", String::clone)
                .aggregate(&format!("{name}_counted"), |a| a.count())
                .view(&format!("{name}_now"));
        };
        counted(
            flow.source("strict", topic("strict").json_strict::<Row>())
                .map(|row| row.cents.to_string())
                .changes(),
            "strict",
        );
        counted(
            flow.source("text", topic("text").text::<String>()).changes(),
            "text",
        );
        let bytes = flow.source("bytes", topic("bytes").bytes::<Vec<u8>>());
        counted(bytes.map(|bytes| format!("{bytes:?}")).changes(), "bytes");
        counted(
            flow.source("plain", topic("plain").avro_plain::<Row>(ROW))
                .map(|row| row.cents.to_string())
                .changes(),
            "plain",
        );
    });
    // No registry: none of these needs one.
    let views = run(&flow, 1, environment(broker, None)).unwrap();
    let values = |name: &str| -> BTreeSet<String> {
        let rows = rows(&views, &format!("{name}_now"));
        rows.iter()
            .map(|row| {
                row["found"]
                    .as_str()
                    .unwrap_or_else(|| panic!("{row}"))
                    .to_owned()
            })
            .collect()
    };
    let letters = |name: &str| -> Vec<String> {
        let rows = rows(&views, &format!("{name}.dead_letters"));
        let mut all: Vec<_> = rows
            .iter()
            .map(|row| {
                format!(
                    "{} {} {}",
                    row["offset"],
                    row["cause"].as_str().unwrap(),
                    row["detail"].as_str().unwrap_or("-")
                )
            })
            .collect();
        all.sort();
        all
    };
    let set = |values: &[&str]| {
        values
            .iter()
            .map(|value| (*value).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(values("strict"), set(&["1"]));
    assert_eq!(
        letters("strict"),
        [
            "1 json_unknown_field fee",
            "2 json_syntax -",
            "3 json_type -",
            "4 json_syntax -"
        ]
    );
    assert_eq!(values("text"), set(&["", "de", "zürich"]));
    assert_eq!(letters("text"), ["1 text_invalid -"]);
    assert_eq!(values("bytes"), set(&["[0, 255]", "[]"]));
    assert_eq!(values("plain"), set(&["1"]));
    assert_eq!(
        letters("plain"),
        ["1 avro_invalid -", "2 avro_invalid -", "3 avro_invalid -"]
    );
}

#[test]
fn ten_megabytes_are_a_record_like_any_other() {
    let broker = Broker::start_with(&[
        ("message.max.bytes", "20000000"),
        ("replica.fetch.max.bytes", "20000000"),
    ]);
    broker.create_topic("large", 1);
    let good = format!("{{\"cents\":7,\"blob\":\"{}\"}}", "x".repeat(10_000_000));
    let records = [good.as_bytes(), &good.as_bytes()[..9_999_999], b"{\"cents\":1}"];
    let mut config = broker.client();
    config.set("message.max.bytes", "20000000");
    for payload in records {
        use rdkafka::config::FromClientConfig;
        use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
        let producer = BaseProducer::from_config(&config).unwrap();
        producer
            .send(BaseRecord::<(), [u8]>::to("large").partition(0).payload(payload))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(Wait::from_secs(60)).unwrap();
    }
    let flow = dataflow("large", |flow: Dataflow<'_>| {
        let rows = flow
            .source("large", Kafka::topic("large").json::<Row>())
            .changes();
        rows.group_by("all", |_| 0u8)
            .aggregate("counted", |a| a.sum(|row| row.cents))
            .view("sum");
    });
    let views = run(&flow, 1, environment(&broker, None)).unwrap();
    assert_eq!(rows(&views, "sum")[0]["value"], 8);
    let letters = rows(&views, "large.dead_letters");
    assert_eq!(
        (letters.len(), &letters[0]["cause"]),
        (1, &Value::from("json_syntax"))
    );
    assert!(
        letters[0]["payload"].as_str().unwrap().len() > 10_000_000,
        "with its bytes"
    );
}

/// What a [`Fickle`] registry does with requests.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(usize)]
enum Mood {
    Broken,
    Babbling,
    Silent,
    Good,
}

/// A registry of moods.
struct Fickle {
    url: String,
    mood: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
}

impl Fickle {
    fn start(mood: Mood, schema: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (mood, held) = (
            Arc::new(AtomicUsize::new(mood as usize)),
            Arc::new(AtomicUsize::new(0)),
        );
        let shared = (mood.clone(), held.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (mood, held) = shared.clone();
                std::thread::spawn(move || serve(stream, &mood, &held, schema));
            }
        });
        Self { url, mood, held }
    }

    fn be(&self, mood: Mood) {
        self.mood.store(mood as usize, Ordering::SeqCst);
    }
}

fn serve(mut stream: TcpStream, mood: &AtomicUsize, held: &AtomicUsize, schema: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let path = lines.next().unwrap_or_default();
    let _head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let is = |wanted: Mood| mood.load(Ordering::SeqCst) == wanted as usize;
    if is(Mood::Silent) {
        held.fetch_add(1, Ordering::SeqCst);
        while is(Mood::Silent) {
            std::thread::sleep(Wait::from_millis(5));
        }
    }
    let (status, body) = match path.split(' ').nth(1).unwrap_or_default() {
        _ if is(Mood::Broken) => ("500 Internal Server Error", "{\"error_code\":50001}".to_owned()),
        _ if is(Mood::Babbling) => ("200 OK", "<html>welcome</html>".to_owned()),
        path if path.starts_with("/schemas/ids/") => {
            ("200 OK", serde_json::json!({ "schema": schema }).to_string())
        }
        _ => ("404 Not Found", "{\"error_code\":40401}".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whoever asked may have lost patience.
    let _gone = stream.write_all(answer.as_bytes());
}

#[test]
fn a_registry_that_fails_stops_the_source_and_kills_no_record() {
    let broker = Broker::shared();
    broker.create_topic("fickle", 1);
    let registry = Fickle::start(Mood::Broken, ROW);
    let payloads: Vec<_> = (0..10).map(|cents| framed(1, |out| long(out, cents))).collect();
    broker.produce_raw(
        "fickle",
        0,
        payloads.iter().map(|payload| (None, Some(payload.as_slice()), 1)),
    );
    let flow = dataflow("fickle", |flow: Dataflow<'_>| {
        let rows = flow
            .source("rows", Kafka::topic("fickle").avro::<Row>())
            .changes();
        rows.group_by("all", |_| 0u8)
            .aggregate("counted", |a| a.sum(|row| row.cents))
            .view("sum");
    });
    let service = start(&flow, 1, environment(broker, Some(&registry.url)), false);
    let trouble = |text: &str| {
        let look = || {
            service
                .troubles()
                .get(&thalweg::health::Dependency::Registry)
                .filter(|told| told.contains(text))
                .cloned()
        };
        eventually(text, look, || {
            format!("{:?}, halt {:?}", service.troubles(), service.halt().error())
        })
    };
    trouble("it answered 500");
    registry.be(Mood::Babbling);
    trouble("its answer makes no sense");
    registry.be(Mood::Silent);
    let held = || (registry.held.load(Ordering::SeqCst) > 0).then_some(());
    eventually("a request that is not answered", held, || "none came".to_owned());
    assert!(
        service
            .views()
            .closed()
            .is_none_or(|snapshot| snapshot.positions.is_empty()),
        "the source waits"
    );
    assert_eq!(
        service
            .metrics()
            .source("rows")
            .dead_letters("schema_unknown")
            .get(),
        0
    );
    registry.be(Mood::Good);
    let partition = PartitionId {
        source: SourceId::of("rows"),
        partition: 0,
    };
    node::reached(&service, &[(partition, 9)]);
    let well = || service.troubles().is_empty().then_some(());
    eventually("it is well again", well, || format!("{:?}", service.troubles()));
    service.stop();
    let views = node::joined(service).unwrap();
    assert_eq!(rows(&views, "sum")[0]["value"], 45);
    assert!(rows(&views, "rows.dead_letters").is_empty());
}

#[test]
fn types_are_held_against_the_newest_schema() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let env = environment(broker, Some(&registry.url()));
    let fits = |topic: &str, schema: Option<&str>| {
        let source = Kafka::topic(topic).avro::<Row>();
        let source = match schema {
            Some(schema) => source.avro_schema(schema),
            None => source,
        };
        Source::<Row>::open(source, &env).unwrap().driver.fits().remove(0)
    };
    assert!(matches!(
        fits("fits.absent", None).found,
        SubjectSchema::NoSubject
    ));
    let text = ROW.replace("long", "string");
    registry.register("fits.never-value", &text);
    let never = fits("fits.never", None);
    let error = never.verdict().unwrap_err().to_string();
    assert!(
        error.contains("field `cents`: the schema has string, the type wants i64"),
        "{error}"
    );

    // A source that could decode nothing is not started, and nothing of it becomes a dead letter.
    broker.create_topic("fits.never", 1);
    broker.produce_raw(
        "fits.never",
        0,
        [(None, Some(&framed(1, |out| out.extend(text.bytes()))[..]), 1)],
    );
    let flow = dataflow("never", |flow: Dataflow<'_>| {
        let rows = flow
            .source("rows", Kafka::topic("fits.never").avro::<Row>())
            .changes();
        rows.group_by("all", |_| 0u8)
            .aggregate("counted", |a| a.count())
            .view("n");
    });
    let error = run(&flow, 1, env.clone()).err().unwrap();
    assert_eq!(error.kind(), Kind::Definition);
    assert!(error.to_string().contains("source `rows`"), "{error}");

    // Newer than what the type was made for, but older records may still be read.
    registry.register("fits.newer-value", ROW);
    registry.register(
        "fits.newer-value",
        &ROW.replace(
            "{\"name\":\"cents\",\"type\":\"long\"}",
            "{\"name\":\"n\",\"type\":\"long\",\"default\":0}",
        ),
    );
    let newer = fits("fits.newer", None);
    assert!(newer.verdict().is_ok());
    let told = newer.to_string();
    assert!(
        told.contains("field `cents`: the schema has no such field"),
        "{told}"
    );
    // By Avro's rules a default is enough.
    let defaulted = ROW.replace("\"long\"}", "\"long\",\"default\":0}");
    let SubjectSchema::Newest {
        incompatibilities, ..
    } = fits("fits.newer", Some(&defaulted)).found
    else {
        panic!()
    };
    assert_eq!(incompatibilities, []);
}

#[test]
fn two_versions_in_one_epoch_are_resolved_to_the_readers() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    broker.create_topic("versions", 1);
    let id = |text| u32::try_from(registry.register("versions-value", text)).unwrap();
    let (one, two) = (id(ROW), id(ROW_NOTED.replace("int", "long").as_str()));
    let payloads: Vec<_> = (0..50)
        .map(|cents| match cents % 2 {
            0 => framed(one, |out| long(out, cents)),
            _ => framed(two, |out| {
                out.extend(b"\x04hi");
                long(out, cents);
            }),
        })
        .collect();
    broker.produce_raw(
        "versions",
        0,
        payloads.iter().map(|payload| (None, Some(payload.as_slice()), 1)),
    );
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct Noted {
        note: String,
        amount: i64,
    }
    let reader = r#"{"type":"record","name":"Row","fields":[{"name":"amount","type":"long","aliases":["cents"]},{"name":"note","type":"string","default":"none"}]}"#;
    let flow = dataflow("versions", move |flow: Dataflow<'_>| {
        let rows = flow
            .source(
                "rows",
                Kafka::topic("versions").avro::<Noted>().avro_schema(reader),
            )
            .changes();
        rows.group_by("note", |row| row.note.clone())
            .aggregate("counted", |a| a.sum(|row| row.amount))
            .view("sums");
    });
    let views = run(&flow, 1, environment(broker, Some(&registry.url()))).unwrap();
    let sums: BTreeMap<String, i64> = rows(&views, "sums")
        .iter()
        .map(|row| {
            (
                row["note"].as_str().unwrap().to_owned(),
                row["value"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        sums,
        BTreeMap::from([("none".to_owned(), 600), ("hi".to_owned(), 625)])
    );
}
