//! Topics that a dataflow writes to, and what has to hold of them for a reader of committed records, whatever
//! became of the processes that wrote them: nothing lost, nothing twice, all in order.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::load::Topics;
use super::node::Node;
use super::oracle::{self, Log, Rows};
use crate::support::kafka::{Broker, Consumed};
use crate::support::registry::Registry;

/// The topic of dead letters of payments.
pub fn dead(name: &str) -> String {
    format!("{name}.dead")
}

/// The topics of payments, of merchant spend, and of the changes of minute spend. Sinks have their names.
pub fn topics(name: &str) -> [String; 3] {
    ["audit", "rows", "log"].map(|part| format!("{name}.{part}"))
}

/// A committed row, by its headers.
struct Sent {
    sequence: u64,
    epoch: u64,
    record: Consumed,
}

/// All rows of a topic, in the order in which they were sent: each sequence once, from the first on, and
/// epochs never back.
fn sent(broker: &Broker, topic: &str) -> Vec<Sent> {
    let number = |record: &Consumed, name: &str| -> u64 {
        let text = record.headers.get(name);
        let text = text.unwrap_or_else(|| panic!("{topic}: a record without `{name}`"));
        text.parse().unwrap()
    };
    let mut rows: Vec<Sent> = broker
        .records(topic)
        .into_iter()
        .map(|record| Sent {
            sequence: number(&record, "thalweg.sequence"),
            epoch: number(&record, "thalweg.epoch"),
            record,
        })
        .collect();
    rows.sort_by_key(|row| row.sequence);
    for (at, row) in (0..).zip(&rows) {
        assert_eq!(row.sequence, at, "{topic}: a row is lost, or there twice");
        assert_eq!(row.record.headers["thalweg.shard"], "0");
    }
    assert!(rows.is_sorted_by_key(|row| row.epoch), "{topic}: epochs go back");
    // In a partition rows stand in the order in which they were sent.
    let mut last = BTreeMap::new();
    for row in &rows {
        let before = last.insert(row.record.partition, row.record.offset);
        assert!(before < Some(row.record.offset), "{topic}: rows are out of order");
    }
    rows
}

/// Compares all that was delivered with what an evaluation from scratch expects. Returns how many rows there
/// are.
pub fn check(topics_in: &Topics<'_>, name: &str, expected: &Rows) -> usize {
    let broker = topics_in.broker;
    let [audit, rows, log] = topics(name);
    let all = [sent(broker, &audit), sent(broker, &rows), sent(broker, &log)];
    let count: usize = all.iter().map(Vec::len).sum();
    let [events, upserts, changes] = all;

    let text = |record: &Consumed| String::from_utf8(record.value.clone().unwrap()).unwrap();
    let mut by_partition = BTreeMap::<i32, Vec<String>>::new();
    for row in &events {
        assert_eq!(row.record.key, None);
        by_partition
            .entry(row.record.partition)
            .or_default()
            .push(text(&row.record));
    }
    let wanted = Log::read(topics_in).events();
    // Partitions of payments share those of the topic; each is a subsequence of the one that it went to.
    let total: usize = wanted.values().map(Vec::len).sum();
    assert_eq!(events.len(), total, "{audit}: so many payments there are");
    for (partition, events) in &wanted {
        let is_within = by_partition.values().any(|all| is_subsequence(events, all));
        assert!(
            is_within,
            "{audit}: partition {partition} of payments is out of order, or not whole"
        );
    }

    let mut table = BTreeMap::new();
    for row in upserts {
        let key = row.record.key.expect("rows have keys");
        match row.record.value {
            Some(value) => _ = table.insert(key, value),
            None => assert!(
                table.remove(&key).is_some(),
                "{rows}: a row that is not there is deleted"
            ),
        }
    }
    let made = table
        .values()
        .map(|row| oracle::normal(std::str::from_utf8(row).unwrap()));
    compare("merchant_spend", expected, made.collect());
    for (key, row) in &table {
        let (key, row): (Value, Value) = (
            serde_json::from_slice(key).unwrap(),
            serde_json::from_slice(row).unwrap(),
        );
        let own =
            ["merchant", "window_start", "window_end"].map(|field| (field.to_owned(), row[field].clone()));
        assert_eq!(
            key,
            Value::Object(own.into_iter().collect()),
            "a key is that of its row"
        );
    }

    let mut table = BTreeMap::<Vec<u8>, Value>::new();
    for row in changes {
        let change: Value =
            serde_json::from_slice(&row.record.value.expect("a change is a payload")).unwrap();
        let key = row.record.key.expect("changes have keys");
        let (before, after) = (change["before"].clone(), change["after"].clone());
        let was = match &after {
            Value::Null => table.remove(&key),
            after => table.insert(key, after.clone()),
        };
        assert_eq!(
            was.unwrap_or_default(),
            before,
            "{log}: a change does not follow the one before"
        );
        let diff = i32::from(!after.is_null()) - i32::from(!before.is_null());
        assert_eq!(row.record.headers["thalweg.diff"], diff.to_string());
    }
    let made = table.values().map(|row| {
        let mut row = row.clone();
        let members = row.as_object_mut().unwrap();
        for (from, to) in [("value_0", "n"), ("value_1", "total"), ("value_2", "top")] {
            let value = members.remove(from).unwrap();
            members.insert(to.to_owned(), value);
        }
        oracle::normal(&row.to_string())
    });
    compare("minute_spend", expected, made.collect());
    count + check_dead(topics_in, name, expected)
}

/// Every dead letter of payments is in its topic once, with the bytes of its record, and those of a partition
/// stand in the order in which their epochs brought them.
fn check_dead(topics_in: &Topics<'_>, name: &str, expected: &Rows) -> usize {
    let letters = sent(topics_in.broker, &dead(name));
    let (made, count) = (letters.iter().map(|row| letter(&row.record)), letters.len());
    let made: std::collections::BTreeSet<String> = made.collect();
    assert_eq!(made.len(), count, "a letter is there twice");
    compare("payments.dead_letters", expected, made);
    count
}

/// A letter as the oracle has it.
pub fn letter(record: &Consumed) -> String {
    let text = |name: &str| record.headers.get(name).map(String::as_str);
    let number = |name: &str| -> i64 { text(name).unwrap().parse().unwrap() };
    let bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
    let schema: Option<u32> = text("thalweg.schema").map(|id| id.parse().unwrap());
    assert_eq!(text("thalweg.source"), Some("payments"));
    assert_eq!(
        text("__connect.errors.exception.class.name"),
        text("thalweg.cause")
    );
    let row = json!({
        "partition": number("__connect.errors.partition"), "offset": number("__connect.errors.offset"),
        "step": text("thalweg.step"), "topic": text("__connect.errors.topic"), "cause": text("thalweg.cause"),
        "detail": text("thalweg.detail"), "schema": schema, "timestamp": number("thalweg.timestamp") * 1000,
        "key": bytes(&record.key), "payload": bytes(&record.value),
    });
    oracle::normal(&row.to_string())
}

fn compare(view: &str, expected: &Rows, made: std::collections::BTreeSet<String>) {
    let only = |rows| Rows::from([(view.to_owned(), rows)]);
    oracle::compare(&only(expected[view].clone()), &only(made));
}

pub fn is_subsequence(some: &[String], all: &[String]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| other == one))
}

#[test]
fn rows_leave_for_topics_as_they_are_counted_and_a_restart_goes_on() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics_in = Topics::make(broker, registry, "delivered");
    let mut merchants = super::load::Random(5);
    topics_in.write_merchants(&mut merchants, 40);
    let dir = tempfile::tempdir().unwrap();
    let node = Node::of(&topics_in, &registry.url())
        .data_dir(dir.path())
        .delivered("delivered.out")
        .until_end();
    let mut tills = [3, 7, 20, 60]
        .into_iter()
        .zip(0..)
        .map(|(step, p)| super::load::Till::new(29, p, step))
        .collect::<Vec<_>>();
    for workers in [1, 2] {
        topics_in.write_merchants(&mut merchants, 10);
        for (partition, till) in (0..).zip(&mut tills) {
            topics_in.write(&topics_in.payments, partition, &till.take(&topics_in, 300));
        }
        let (_, rows) = node.clone().workers(workers).spawn().finish();
        let expected = oracle::expected(&topics_in);
        oracle::compare(&expected, &rows);
        assert!(check(&topics_in, "delivered.out", &expected) > 1_000);
    }
    let kept = broker.records("tests-delivered.out.spend.delivered.out.rows.progress");
    let last: Value = serde_json::from_slice(kept.last().unwrap().value.as_ref().unwrap()).unwrap();
    let [_, rows, _] = topics("delivered.out");
    assert_eq!(
        last["rows"],
        json!(sent(broker, &rows).len()),
        "progress says how many rows there are"
    );
}
