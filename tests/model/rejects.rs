//! `try_map`: what user code turns down is in the dead letters of the source that it was read from, and
//! nowhere else; the same in every replay, on any number of workers. So is what a topic of dead letters gets,
//! over restarts, too.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;
use thalweg::ledger::MemoryLog;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::testing::memory::Memory;
use thalweg::testing::{Harness, Run};
use thalweg::{Epoch, Flow};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: u32,
    count: i64,
}

/// Turns down every third item; and of the halves of an event, the odd ones.
fn build(flow: Dataflow) {
    let source = |name: &str| {
        let orders = Kafka::topic(&format!("{name}.v1")).json::<Order>();
        flow.source(
            name,
            orders
                .event_time(|order| EventTime(order.count))
                .lateness(Duration::from_secs(60))
                .dead_letters_to("dead.v1"),
        )
    };
    source("left")
        .merge(&source("right"))
        .try_map("sold", |order| match order.item % 3 {
            0 => Err(format!("item {} is not for sale", order.item)),
            _ => Ok((order.item, order.count)),
        })
        .flat_map(|(item, count)| [(item, count), (item + 1, count)])
        .try_map("even", |(item, count)| match item % 2 {
            0 => Ok((*item, *count)),
            _ => Err("odd"),
        })
        .changes()
        .group_by("item", |row| row.0)
        .aggregate("counted", |a| a.sum(|row| row.1))
        .view("sold_now");
}

/// Records of (source, partition) in order, cut into epochs.
type Log = Vec<Vec<(bool, u32, Order)>>;

fn logs() -> impl Strategy<Value = Log> {
    let order = (0u32..9, 0i64..50).prop_map(|(item, count)| Order { item, count });
    let record = (any::<bool>(), 0u32..3, order);
    proptest::collection::vec(proptest::collection::vec(record, 0..12), 1..5)
}

/// `restarts`: with a checkpoint before the last epoch, and another start behind that.
fn run(log: &Log, workers: usize, restarts: bool) -> (Run, Vec<Epoch>) {
    let mut test = Harness::of(dataflow("rejects", build));
    let mut epochs = Vec::new();
    for source in ["left", "right"] {
        for partition in 0..3 {
            test.feed::<Order>(source, partition, []);
        }
    }
    test.workers(workers);
    for (n, records) in log.iter().enumerate() {
        if restarts && n > 0 && n + 1 == log.len() {
            test.checkpoint().restart(workers % 3 + 1);
        }
        for (left, partition, order) in records {
            test.feed(if *left { "left" } else { "right" }, *partition, [order.clone()]);
        }
        epochs.push(test.epoch());
    }
    (test.run().unwrap(), epochs)
}

/// A letter as `expected` has it.
fn letter(row: &Value) -> String {
    let event = STANDARD.decode(row["payload"].as_str().unwrap()).unwrap();
    let text = |name: &str| row[name].as_str().unwrap().to_owned();
    let (step, detail, event) = (text("step"), text("detail"), String::from_utf8(event).unwrap());
    format!("{}/{} {step} {detail} {event}", row["partition"], row["offset"])
}

/// Letters by source, as (partition, offset, step, detail, event), and the sums, from the rules alone.
fn expected(log: &Log) -> (BTreeMap<&'static str, BTreeSet<String>>, BTreeMap<u32, i64>) {
    let mut letters = BTreeMap::from([("left", BTreeSet::new()), ("right", BTreeSet::new())]);
    let (mut sums, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for (left, partition, order) in log.iter().flatten() {
        let source = if *left { "left" } else { "right" };
        let end: &mut i64 = ends.entry((*left, *partition)).or_default();
        let offset = *end;
        *end += 1;
        let mut letter = |step: &str, detail: &str, event: String| {
            letters
                .get_mut(source)
                .unwrap()
                .insert(format!("{partition}/{offset} {step} {detail} {event}"));
        };
        if order.item % 3 == 0 {
            let event = serde_json::to_string(order).unwrap();
            letter("sold", &format!("item {} is not for sale", order.item), event);
            continue;
        }
        for item in [order.item, order.item + 1] {
            match item % 2 {
                0 => *sums.entry(item).or_default() += order.count,
                _ => letter("even", "odd", format!("[{item},{}]", order.count)),
            }
        }
    }
    (letters, sums)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn letters_go_to_their_source_and_rows_to_theirs(log in logs()) {
        let (letters, sums) = expected(&log);
        let (mut hashes, mut written) = (None::<Vec<_>>, None::<Vec<_>>);
        for (workers, restarts) in [(1, false), (2, false), (3, false), (2, true)] {
            let (run, epochs) = run(&log, workers, restarts);
            let last = *epochs.last().unwrap();
            let mut all = Vec::new();
            for (source, expected) in &letters {
                let rows: Vec<Value> = run.rows(&format!("{source}.dead_letters"), last).unwrap();
                let found: BTreeSet<String> = rows.iter().map(|row| {
                    prop_assert_eq!(&row["cause"], "rejected");
                    prop_assert_eq!(&row["topic"], &format!("{source}.v1"));
                    prop_assert_eq!(&row["key"], &Value::Null);
                    Ok(letter(row))
                }).collect::<Result<_, _>>()?;
                prop_assert_eq!(&found, expected);
                let sent = run.written::<Value>(&format!("{source}.dead_letters")).unwrap();
                let rows: Vec<_> = sent.into_iter().map(|row| (row.epoch, row.after.unwrap())).collect();
                prop_assert_eq!(rows.len(), expected.len());
                for (_, row) in &rows {
                    prop_assert_eq!(&row["source"], source);
                    prop_assert!(expected.contains(&letter(row)), "{}", row);
                }
                all.extend(rows);
            }
            prop_assert_eq!(written.get_or_insert_with(|| all.clone()), &all);
            #[derive(Deserialize)]
            struct Row { item: u32, value: i128 }
            let rows: Vec<Row> = run.rows("sold_now", last).unwrap();
            let found: BTreeMap<u32, i64> = rows.iter().map(|row| (row.item, row.value as i64)).collect();
            prop_assert_eq!(&found, &sums);
            let views = ["left.dead_letters", "right.dead_letters", "sold_now"];
            let now = epochs.iter().flat_map(|epoch| views.map(|view| run.hash(view, *epoch)));
            let now: Vec<_> = now.collect();
            // What was before a checkpoint is not gone through again.
            if !restarts {
                prop_assert_eq!(hashes.get_or_insert_with(|| now.clone()), &now);
            }
        }
    }
}

fn reading(records: usize) -> Flow {
    dataflow("reading", move |flow: Dataflow<'_>| {
        let orders = |item: u32| {
            (0..records)
                .map(move |n| {
                    (
                        EventTime(0),
                        Ok(Order {
                            item,
                            count: n as i64,
                        }),
                    )
                })
                .collect()
        };
        flow.source("orders", Memory::new(vec![orders(1), orders(3)]))
            .try_map("sold", |order| match order.item {
                3 => Err("not for sale"),
                _ => Ok((order.item, order.count)),
            })
            .changes()
            .group_by("item", |row| row.0)
            .aggregate("counted", |a| a.count())
            .view("sold_now");
    })
}

#[test]
fn what_is_rejected_is_counted_by_cause_and_replays_to_the_same() {
    let log = MemoryLog::default();
    let mut hashes = Vec::new();
    for workers in [1, 2] {
        let settings = RunSettings {
            workers,
            store: LedgerLocation::Memory(log.clone()),
            until_end: true,
            ..RunSettings::default()
        };
        let service = Service::start(&reading(100), settings).unwrap();
        let metrics = service.metrics().clone();
        let views = service.join().unwrap();
        assert_eq!(metrics.source("orders").dead_letters("rejected").get(), 100);
        let letters = views.get("orders.dead_letters").unwrap();
        assert_eq!(letters.rows_len(), 100);
        let mut epochs = Vec::new();
        let mut snapshot = views.closed();
        while let Some(now) = snapshot {
            epochs.push((now.epoch, letters.hash(now.epoch)));
            snapshot = views
                .snapshot(thalweg::view::AsOf::Epoch(Epoch(now.epoch.0 - 1)))
                .ok();
        }
        hashes.push(epochs);
    }
    assert_eq!(
        hashes[0], hashes[1],
        "the second run replays the first one's ledger"
    );
}
