//! Records that nobody wanted: many in a row, and those of devices whose clocks are wrong.

use std::collections::BTreeMap;

use serde_json::Value;
use thalweg::Flow;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::position::SourceId;
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::node;
use crate::support::kafka::Broker;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reading {
    device: u32,
    at_ms: i64,
}

const BEGIN_MS: i64 = 1_700_000_400_000;

fn flow(topic: &'static str) -> Flow {
    dataflow("rubbish", move |flow: Dataflow<'_>| {
        let readings = Kafka::topic(topic)
            .json::<Reading>()
            .event_time(|reading| EventTime::from_millis(reading.at_ms));
        flow.source("readings", readings.lateness(Duration::from_secs(5)))
            .key_by("device", |reading| reading.device)
            .window("minutes", Tumbling::of(Duration::from_secs(60)))
            .keep(Duration::from_secs(200 * 365 * 86_400))
            .aggregate(|a| a.count())
            .view_with("by_device", |view| view.fields(["n"]));
    })
}

fn service(flow: &Flow, workers: usize) -> Service {
    let env = Environment {
        connectors: Extensions::of(KafkaSettings::at(Broker::shared().bootstrap())),
        group: "rubbish".into(),
        ..Environment::default()
    };
    let settings = RunSettings {
        workers,
        env,
        until_end: true,
        ..RunSettings::default()
    };
    Service::start(flow, settings).unwrap()
}

fn reading(device: u32, at_ms: i64) -> Vec<u8> {
    format!(r#"{{"device":{device},"at_ms":{at_ms}}}"#).into_bytes()
}

fn write(topic: &str, partition: i32, payloads: &[Vec<u8>]) {
    let records = payloads.iter().map(|payload| (None, Some(payload.as_slice()), 1));
    Broker::shared().produce_raw(topic, partition, records);
}

#[test]
fn a_hundred_thousand_dead_letters_in_a_row_hold_nothing_up() {
    const RUBBISH: usize = 100_000;
    let topic = "rubbish.many";
    Broker::shared().create_topic(topic, 2);
    let mut flood = vec![reading(1, BEGIN_MS)];
    flood.extend((0..RUBBISH).map(|n| format!("{{\"device\":{n},").into_bytes()));
    flood.push(reading(1, BEGIN_MS + 1));
    write(topic, 0, &flood);
    let fine: Vec<_> = (0..1_000).map(|n| reading(2, BEGIN_MS + n)).collect();
    write(topic, 1, &fine);
    for workers in [1, 2] {
        let service = service(&flow(topic), workers);
        let metrics = service.metrics().clone();
        let views = node::joined(service).unwrap();
        let rows = node::rows(&views);
        let counts: BTreeMap<u64, u64> = rows["by_device"]
            .iter()
            .map(|row| serde_json::from_str::<Value>(row).unwrap())
            .map(|row| (row["device"].as_u64().unwrap(), row["n"].as_u64().unwrap()))
            .collect();
        // Also those behind the rubbish.
        assert_eq!(counts, BTreeMap::from([(1, 2), (2, 1_000)]));
        let counted = metrics.source("readings").dead_letters("json_syntax").get();
        assert_eq!(counted, RUBBISH as u64, "all are counted");
        // The newest ones can be looked at; no more of them are held than there is a bound for.
        let offsets: Vec<i64> = rows["readings.dead_letters"]
            .iter()
            .map(|row| {
                serde_json::from_str::<Value>(row).unwrap()["offset"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        assert_eq!(offsets.len(), thalweg::operator::dead_letters::LETTERS_MAX);
        assert_eq!(
            (offsets.iter().min(), offsets.iter().max()),
            (
                Some(&((RUBBISH + 1 - offsets.len()) as i64)),
                Some(&(RUBBISH as i64))
            )
        );
    }
}

#[test]
fn wrong_clocks_are_named_and_move_nothing() {
    let topic = "rubbish.clocks";
    Broker::shared().create_topic(topic, 2);
    const YEAR_2100_MS: i64 = 4_102_444_800_000;
    let far = BEGIN_MS + 3_600_000;
    let records = [
        reading(1, BEGIN_MS),
        br#"{"device":1}"#.to_vec(),
        br#"{"device":1,"at_ms":null}"#.to_vec(),
        reading(1, 0),
        reading(1, YEAR_2100_MS),
        reading(1, i64::MIN),
        // Were 2100 believed, this would be late.
        reading(1, BEGIN_MS + 1),
    ];
    write(topic, 0, &records);
    // A clock that begins in 1970: that is all there is to go by, and soon over.
    write(topic, 1, &[reading(2, 0), reading(2, far), reading(2, 0)]);
    for workers in [1, 2] {
        let service = service(&flow(topic), workers);
        let views = node::joined(service).unwrap();
        let rows = node::rows(&views);
        let of = |view: &str, fields: [&str; 3]| -> Vec<String> {
            let text = |row: &String| {
                let row: Value = serde_json::from_str(row).unwrap();
                let words = fields.map(|field| row[field].to_string().replace('"', ""));
                words.join(" ")
            };
            let mut all: Vec<_> = rows[view].iter().map(text).collect();
            all.sort();
            all
        };
        let minute = |ms: i64| ms.div_euclid(60_000) * 60_000 * 1000;
        assert_eq!(
            of("by_device", ["device", "window_start", "n"]),
            [
                format!("1 {} 2", minute(BEGIN_MS)),
                "2 0 1".to_owned(),
                format!("2 {} 1", minute(far))
            ]
        );
        assert_eq!(
            (of("readings.dead_letters", ["partition", "offset", "cause"])),
            [
                "0 1 json_type",
                "0 2 json_type",
                "0 3 late",
                "0 4 event_time_far_future",
                "0 5 event_time_invalid",
                "1 2 late",
            ]
        );
        let watermark = views.closed().unwrap().watermark(&[SourceId::of("readings")]);
        assert_eq!(watermark, EventTime::from_millis(BEGIN_MS + 1 - 5_000));
    }
}
