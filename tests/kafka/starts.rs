//! Where a source begins at its first start, and that later starts don't choose again.

// A set of one range of numbers is what is meant.
#![allow(clippy::single_range_in_vec_init)]

use std::collections::BTreeSet;
use std::path::Path;

use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::schema::datum::Datum;
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;
use thalweg::view::serve::RowsQuery;
use thalweg::{Error, Kind};

use super::node;
use crate::support::kafka::Broker;

/// What is counted up to the end of the topic, by a service that is told to start there.
fn counted(topic: &str, start: &Start, dir: &Path) -> Result<BTreeSet<i128>, Error> {
    let (topic, start) = (topic.to_owned(), start.clone());
    let flow = dataflow("starts", move |flow: Dataflow<'_>| {
        flow.source("numbers", Kafka::topic(&topic).text::<u64>().start(start.clone()))
            .key_by("n", |n| *n)
            .window("each", Tumbling::of(Duration::from_secs(3600)))
            .aggregate(|a| a.count())
            .view("counts");
    });
    let settings = RunSettings {
        until_end: true,
        store: LedgerLocation::Directory(dir.to_owned()),
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(Broker::shared().bootstrap())),
            group: "tests".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    let views = node::joined(Service::start(&flow, settings)?)?;
    let snapshot = views.closed().expect("an epoch was bound");
    let query = RowsQuery {
        limit: 1_000,
        ..RowsQuery::default()
    };
    let page = views.get("counts").unwrap().rows(&query, &snapshot).unwrap();
    let number = |row: &Vec<Datum>| match row[0] {
        Datum::Int(n) => n,
        Datum::UInt(n) => n as i128,
        ref other => panic!("a number, not {other:?}"),
    };
    Ok(page.rows.iter().map(|row| number(&row.row)).collect())
}

/// One record a second from second 1 on.
fn write(topic: &str, partition: i32, numbers: std::ops::Range<u64>) {
    let first = numbers.start;
    let records: Vec<_> = numbers
        .map(|n| ("", n.to_string(), (n - first / 100 * 100 + 1) as i64 * 1000))
        .collect();
    Broker::shared().produce(topic, partition, &records);
}

#[test]
fn the_first_start_is_where_it_is_told_and_a_restart_goes_on_there() {
    let topic = "starts.numbers.v1";
    Broker::shared().create_topic(topic, 2);
    write(topic, 0, 0..10);
    write(topic, 1, 100..105);
    let dirs = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let [latest, timestamp, offsets, refused] = dirs.each_ref().map(tempfile::TempDir::path);
    let at = Start::Timestamp(EventTime::from_micros(5_000_001));
    let some = Start::Offsets(vec![(1, 3)]);
    let set = |parts: &[std::ops::Range<i128>]| parts.iter().cloned().flatten().collect::<BTreeSet<i128>>();

    assert_eq!(counted(topic, &Start::Latest, latest).unwrap(), set(&[]));
    assert_eq!(counted(topic, &at, timestamp).unwrap(), set(&[5..10]));
    assert_eq!(counted(topic, &some, offsets).unwrap(), set(&[0..10, 103..105]));
    for (start, told) in [
        (
            Start::Offsets(vec![(1, 6)]),
            "partition 1: offset 6 is outside of the log, 0 to 5",
        ),
        (Start::Offsets(vec![(0, -1)]), "partition 0: offset -1"),
        (Start::Offsets(vec![(2, 0)]), "has no partition 2"),
    ] {
        let error = counted(topic, &start, refused).unwrap_err();
        assert_eq!(error.kind(), Kind::Definition);
        let text = error.to_string();
        assert!(text.contains("source `numbers`") && text.contains(told), "{text}");
    }

    // While nothing runs, one partition goes on, and another is added.
    write(topic, 0, 10..12);
    Broker::shared().grow_topic(topic, 3);
    write(topic, 2, 200..203);
    let since = set(&[10..12, 200..203]);
    assert_eq!(counted(topic, &Start::Latest, latest).unwrap(), since);
    assert_eq!(counted(topic, &at, timestamp).unwrap(), &set(&[5..10]) | &since);
    assert_eq!(
        counted(topic, &some, offsets).unwrap(),
        &set(&[0..10, 103..105]) | &since
    );
    // The ledger knows now, whatever is said.
    assert_eq!(counted(topic, &Start::Earliest, latest).unwrap(), since);
    assert_eq!(
        counted(topic, &Start::Offsets(vec![(9, 9)]), latest).unwrap(),
        since
    );
}
