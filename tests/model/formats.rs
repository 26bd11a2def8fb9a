//! A format of somebody's own, over any source: the same rows from files and from a topic.

use thalweg::codec::format::{DecoderResources, Format};
use thalweg::codec::{Cause, Decode, Decoded};
use thalweg::connect::kafka::KafkaSettings;
use thalweg::demo::embedded::{EmbeddedBroker, Producer};
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::schema::Numbers;
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Environment, Source};
use thalweg::view::Views;

#[derive(Clone, Serialize, Deserialize)]
struct Reading {
    sensor: u32,
    celsius: i64,
}

/// A line as in `sensor=7 celsius=21`; any other field is a dead letter that names it.
struct Pairs;

impl Format<Reading> for Pairs {
    fn name(&self) -> &'static str {
        "pairs"
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> Result<Box<dyn Decode<Reading>>> {
        Ok(Box::new(Self))
    }
}

impl Decode<Reading> for Pairs {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<Reading> {
        let (mut sensor, mut celsius) = (None, None);
        for pair in String::from_utf8_lossy(bytes).split_ascii_whitespace() {
            match pair.split_once('=') {
                Some(("sensor", value)) => sensor = value.parse().ok(),
                Some(("celsius", value)) => celsius = value.parse().ok(),
                _ => return Decoded::DeadAt(Cause::TextInvalid, None, pair.into()),
            }
        }
        match (sensor, celsius) {
            (Some(sensor), Some(celsius)) => Decoded::Value(Reading { sensor, celsius }),
            _ => Decoded::Dead(Cause::TextInvalid, None),
        }
    }
}

const LINES: [&str; 5] = [
    "sensor=1 celsius=20",
    "celsius=-4 sensor=2",
    "sensor=1 celsius=22",
    "sensor=1",
    "sensor=3 kelvin=280",
];

/// The views that a source of readings comes to, as JSON, and the name of its format.
fn read<S: Source<Reading>>(
    env: Environment,
    source: impl Fn() -> S + Send + Sync + 'static,
) -> (Vec<String>, Vec<String>, String) {
    let flow = dataflow("pairs", move |flow: Dataflow| {
        flow.source("readings", source())
            .key_by("sensor", |reading| reading.sensor)
            .window("minute", Tumbling::of(Duration::from_secs(60)))
            .aggregate(|a| a.max(|reading| reading.celsius))
            .view("warmest");
    });
    let settings = RunSettings {
        workers: 2,
        until_end: true,
        env,
        ..RunSettings::default()
    };
    let service = Service::start(&flow, settings).unwrap();
    let (_, format) = service.sources()()[0].formats[0].clone();
    let views = service.join().unwrap();
    (rows(&views, "warmest"), causes(&views), format)
}

fn rows(views: &Views, view: &str) -> Vec<String> {
    let (snapshot, serve) = (views.closed().unwrap(), views.get(view).unwrap());
    let page = serve.rows(&Default::default(), &snapshot).unwrap();
    let text = |row: &_| {
        let mut json = Vec::new();
        serve.schema().write_row(row, Numbers::default(), &mut json);
        String::from_utf8(json).unwrap()
    };
    page.rows.iter().map(|row| text(&row.row)).collect()
}

/// What is in the dead letters: the cause, and the field where one is named.
fn causes(views: &Views) -> Vec<String> {
    let letters = rows(views, "readings.dead_letters");
    let told = |letter: &String| {
        let letter: serde_json::Value = serde_json::from_str(letter).unwrap();
        let detail = letter["detail"].as_str().unwrap_or_default();
        let named = if detail.contains("kelvin=280") {
            " kelvin"
        } else {
            ""
        };
        format!("{}{named}", letter["cause"].as_str().unwrap())
    };
    letters.iter().map(told).collect()
}

#[test]
fn a_format_of_ones_own_reads_files_and_topics_alike() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("readings.txt");
    std::fs::write(&path, LINES.join("\n")).unwrap();
    let of_files = read(Environment::default(), move || {
        Files::lines(&path)
            .format(Pairs)
            .event_time(|_| EventTime::from_secs(1))
    });

    let broker = EmbeddedBroker::start(1).unwrap();
    broker.create_topic("readings", 1).unwrap();
    let producer = Producer::new(&broker.bootstrap_servers()).unwrap();
    for line in LINES {
        let at = EventTime::from_secs(1);
        producer
            .send("readings", 0, at, None, Some(line.as_bytes()))
            .unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let env = Environment {
        connectors: Extensions::of(KafkaSettings {
            // The mock does not answer a fetch early when a record arrives.
            properties: vec![("fetch.wait.max.ms".to_owned(), "5".to_owned())],
            ..KafkaSettings::at(broker.bootstrap_servers())
        }),
        ..Environment::default()
    };
    let of_a_topic = read(env, || Kafka::topic("readings").format(Pairs));

    assert_eq!(of_files, of_a_topic);
    let (rows, causes, format) = of_files;
    assert_eq!((rows.len(), format.as_str()), (2, "pairs"));
    assert!(
        rows[0].contains("\"value\":22") && rows[1].contains("\"value\":-4"),
        "{rows:?}"
    );
    assert_eq!(causes, ["text_invalid", "text_invalid kelvin"]);
}
