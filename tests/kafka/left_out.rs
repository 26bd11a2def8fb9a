//! Rows that are too large for their topic are left out, if the sink says so, and dead letters always: all
//! others are there, each once, although a broker refuses whole batches.

use thalweg::Flow;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::load::Random;
use crate::support::kafka::{Broker, Consumed};

const INPUT: &str = "left-out.in";
const OUTPUT: &str = "left-out.out";
const DEAD: &str = "left-out.dead";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    id: u64,
    text: String,
}

fn flow(on_refused: OnRefused) -> Flow {
    dataflow("left-out", move |flow: Dataflow<'_>| {
        let lines = flow.source("lines", Kafka::topic(INPUT).json::<Line>().dead_letters_to(DEAD));
        lines.append_to("copy", Kafka::topic(OUTPUT).json().on_refused(on_refused));
    })
}

/// Text that does not become shorter by compression.
fn text(random: &mut Random, bytes: usize) -> String {
    let letter = |_| char::from(b' ' + 1 + random.below(90) as u8);
    (0..bytes)
        .map(letter)
        .filter(|c| !matches!(c, '"' | '\\'))
        .collect()
}

#[test]
fn rows_and_letters_that_are_too_large_are_left_out_and_no_others() {
    let broker = Broker::shared();
    broker.create_topic(INPUT, 1);
    for topic in [OUTPUT, DEAD] {
        broker.create_topic_with(topic, 1, &[("max.message.bytes", "3000")]);
    }
    let mut random = Random(11);
    let (mut kept, mut payloads) = (Vec::new(), Vec::new());
    for id in 0..400 {
        // Together, all of them are too large.
        let bytes = if id % 100 == 70 { 9_000 } else { 100 };
        let line = Line {
            id,
            text: text(&mut random, bytes),
        };
        payloads.push(serde_json::to_string(&line).unwrap());
        if bytes == 100 {
            kept.push(line);
        }
        if id % 100 == 50 {
            payloads.push(format!("no JSON {id}"));
            payloads.push(format!("no JSON {}", text(&mut random, 9_000)));
        }
    }
    let records = payloads.iter().map(|payload| (None, Some(payload.as_bytes()), 1));
    broker.produce_raw(INPUT, 0, records);
    let start = |on_refused| {
        let env = Environment {
            connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
            group: "tests".into(),
            ..Environment::default()
        };
        let settings = RunSettings {
            until_end: true,
            env,
            ..RunSettings::default()
        };
        Service::start(&flow(on_refused), settings).unwrap()
    };
    let error = start(OnRefused::Halt)
        .join()
        .err()
        .expect("a row is too large")
        .to_string();
    assert!(
        error.contains("sink `copy` refuses a row") && error.contains("\"id\":70,"),
        "{error}"
    );
    assert_eq!(broker.records(OUTPUT), []);
    let service = start(OnRefused::Skip);
    let metrics = service.metrics().clone();
    service.join().unwrap();
    let line =
        |record: &Consumed| -> Line { serde_json::from_slice(record.value.as_ref().unwrap()).unwrap() };
    let copied: Vec<Line> = broker.records(OUTPUT).iter().map(line).collect();
    assert_eq!(copied, kept);
    let letters = broker
        .records(DEAD)
        .into_iter()
        .map(|record| record.value.unwrap());
    let letters: Vec<String> = letters.map(|value| String::from_utf8(value).unwrap()).collect();
    assert_eq!(letters, [50, 150, 250, 350].map(|id| format!("no JSON {id}")));
    for sink in ["copy", "lines.dead_letters"] {
        assert_eq!(metrics.sink(sink).refused.get(), 4, "{sink}");
    }
}
