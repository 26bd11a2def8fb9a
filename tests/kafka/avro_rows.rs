//! Rows that leave in Avro: their schemas are registered, a source of ours reads what was written, and what a
//! subject does not take stops the start.

use serde_json::json;
use thalweg::codec::registry::Registry as Client;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::schema::Numbers;
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;
use thalweg::view::serve::RowsQuery;

use super::node;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Total {
    n: u64,
    cents: i128,
    last: EventTime,
    note: Option<String>,
}

const IN: &str = "avro-rows.in";
const ROWS: &str = "avro-rows.rows";
const EVENTS: &str = "avro-rows.events";
const IDS: &str = "avro-rows.ids";

fn writes(flow: Dataflow<'_>) {
    let totals = flow.table("totals", Kafka::topic(IN).json::<Total>().keyed::<u32>());
    totals
        .key_named("id")
        .upsert_to("rows", Kafka::topic(ROWS).avro());
    let events = flow.source("events", Kafka::topic(IN).json::<Total>());
    events.append_to("events_out", Kafka::topic(EVENTS).avro());
    events
        .map(|total| total.n)
        .append_to("ids", Kafka::topic(IDS).text());
}

/// A row as it stands in the topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Read {
    id: u32,
    n: u64,
    cents: i128,
    last: EventTime,
    note: Option<String>,
}

fn reads(flow: Dataflow<'_>) {
    flow.table("rows", Kafka::topic(ROWS).avro::<Read>().keyed::<u32>())
        .view("rows_now");
    flow.source("events", Kafka::topic(EVENTS).avro::<Total>())
        .changes()
        .group_by("n", |total| total.n)
        .aggregate("summed", |a| a.sum(|total| total.cents))
        .view("sums");
    let _ids = flow.source("ids", Kafka::topic(IDS).text::<u64>());
}

fn run(flow: thalweg::Flow, broker: &Broker, registry: &Registry) -> thalweg::Result<Vec<(String, String)>> {
    let dir = tempfile::tempdir().unwrap();
    let settings = RunSettings {
        until_end: true,
        store: LedgerLocation::Directory(dir.path().to_owned()),
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
            registry: Some(Client::new(&registry.url(), node::tokio().clone())?),
            group: "avro-rows".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    let views = node::joined(Service::start(&flow, settings)?)?;
    let snapshot = views.closed().unwrap();
    let mut rows = Vec::new();
    for serve in views.all() {
        for row in serve
            .local_rows(
                &RowsQuery {
                    limit: 100,
                    ..RowsQuery::default()
                },
                &snapshot,
            )
            .unwrap()
            .rows
        {
            let mut json = Vec::new();
            serve.schema().write_row(&row.row, Numbers::default(), &mut json);
            rows.push((serve.spec().name.clone(), String::from_utf8(json).unwrap()));
        }
    }
    Ok(rows)
}

#[test]
fn a_source_reads_what_a_sink_wrote_and_schemas_are_registered() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    broker.create_topic(IN, 1);
    let record = |id: u32, n: u64, cents: i128, note: Option<&str>| {
        let total =
            json!({ "n": n, "cents": cents.to_string(), "last": 1_700_000_000_000_000i64, "note": note });
        let total = total
            .to_string()
            .replace(&format!("\"{cents}\""), &cents.to_string());
        (id.to_string(), total, 1i64)
    };
    let wide = i128::MAX - 7;
    let records = [
        record(1, 5, -3, None),
        record(2, u64::MAX, wide, Some("ü")),
        record(1, 6, 4, Some("")),
    ];
    broker.produce(IN, 0, &records);
    run(dataflow("writes", writes), broker, registry).unwrap();

    let rows = run(dataflow("reads", reads), broker, registry).unwrap();
    let of = |view: &str| -> Vec<serde_json::Value> {
        let own = rows.iter().filter(|(name, _)| name == view);
        own.map(|(_, row)| serde_json::from_str(row).unwrap()).collect()
    };
    let now = of("rows_now");
    assert_eq!(now.len(), 2, "{now:?}");
    assert_eq!(
        (&now[0]["id"], &now[0]["n"], &now[0]["note"]),
        (&json!(1), &json!(6), &json!(""))
    );
    assert_eq!((&now[1]["n"], &now[1]["note"]), (&json!(u64::MAX), &json!("ü")));
    assert_eq!(now[0]["last"], "2023-11-14T22:13:20Z");
    let text = rows.iter().map(|(_, row)| row.as_str()).collect::<String>();
    assert!(text.contains(&format!("\"cents\":{wide}")), "{text}");
    assert_eq!(of("sums").len(), 3);
    assert!(of("events.dead_letters").is_empty() && of("rows.dead_letters").is_empty());
    let ids: Vec<_> = broker
        .records(IDS)
        .into_iter()
        .map(|record| record.value.unwrap())
        .collect();
    assert_eq!(
        ids,
        [b"5".to_vec(), u64::MAX.to_string().into_bytes(), b"6".to_vec()]
    );

    // Keys are registered beside payloads. What readers could not follow is told, and nothing is written.
    for subject in [
        format!("{ROWS}-key"),
        format!("{ROWS}-value"),
        format!("{EVENTS}-value"),
    ] {
        let refused = registry.try_register(
            &subject,
            "AVRO",
            r#"{"type":"record","name":"X","fields":[{"name":"new","type":"int"}]}"#,
        );
        assert_eq!(refused.unwrap_err().0, 409, "{subject} has a schema already");
    }
    let before = broker.records(EVENTS).len();
    let other = dataflow("writes", |flow: Dataflow<'_>| {
        let events = flow.source("events", Kafka::topic(IN).json::<Total>());
        events
            .map(|total| (total.n, total.n))
            .append_to("events_out", Kafka::topic(EVENTS).avro());
    });
    let error = run(other, broker, registry).err().unwrap();
    assert_eq!(error.kind(), thalweg::Kind::Definition);
    let said = error.to_string();
    assert!(
        said.contains(&format!("subject `{EVENTS}-value` does not take")),
        "{said}"
    );
    assert_eq!(broker.records(EVENTS).len(), before);
}
