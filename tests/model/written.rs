//! What a test reads of sinks: rows of each method against the log that they are made of, on any number of
//! workers and over restarts. Nothing is connected, and nothing has to be set.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use thalweg::prelude::*;
use thalweg::testing::{Harness, Written};

use super::log::{EPOCHS, Given, Log, Run, config, logs, runs};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Row {
    other: u32,
    n: i64,
}

/// A row of the table as sinks have it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Flat {
    id: u32,
    other: u32,
    n: i64,
}

/// A row of the collection.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Number {
    key: i64,
}

fn build(flow: Dataflow) {
    let rows = flow.table("rows", Kafka::topic("r").avro::<Row>().keyed::<u32>());
    let lines = Files::lines("no/such/folder/*").json::<Row>();
    let events = flow.source("events", lines.event_time(|_| EventTime(0)));
    events.append_to("audit", Kafka::topic("audit").json());
    events
        .map(|row| row.n)
        .append_to("numbers", Kafka::topic("numbers").json());
    events
        .changes()
        .map(|row| row.n)
        .changes_to("counts", Kafka::topic("counts").json());
    let rows = rows.key_named("id");
    rows.upsert_to("newest", Kafka::topic("newest").json());
    rows.changes_to("log", Kafka::topic("log").json());
    #[cfg(feature = "postgres")]
    rows.upsert_to("newest_pg", Postgres::table("newest"));
}

/// Rows as of each epoch, by key.
fn states(log: &Log<(u32, Option<Row>)>) -> Vec<BTreeMap<u32, Row>> {
    let mut state = BTreeMap::new();
    let after = |epoch: usize| {
        let mut records = log.epochs[epoch].records.clone();
        records.sort_by_key(|(partition, _)| *partition);
        for (_, given) in records {
            match given {
                Given::Value((key, Some(value))) => _ = state.insert(key, value),
                Given::Value((key, None)) => _ = state.remove(&key),
                Given::Undecodable => {}
            }
        }
        state.clone()
    };
    (0..EPOCHS).map(after).collect()
}

/// The events of each epoch, in order.
fn events(log: &Log<Row>) -> Vec<Vec<Row>> {
    let epoch = |n: usize| {
        let mut records = log.epochs[n].records.clone();
        records.sort_by_key(|(partition, _)| *partition);
        let value = |(_, given)| match given {
            Given::Value(row) => Some(row),
            Given::Undecodable => None,
        };
        records.into_iter().filter_map(value).collect()
    };
    (0..EPOCHS).map(epoch).collect()
}

/// Epoch, before, after and difference of each row.
type Parts<R> = Vec<(u64, Option<R>, Option<R>, i64)>;

fn parts<R: Clone>(written: &[Written<R>]) -> Parts<R> {
    let part = |row: &Written<R>| (row.epoch.0, row.before.clone(), row.after.clone(), row.diff);
    written.iter().map(part).collect()
}

fn changes(states: &[BTreeMap<u32, Row>]) -> (Parts<Flat>, Vec<u32>) {
    let nothing = BTreeMap::new();
    let (mut all, mut of) = (Vec::new(), Vec::new());
    for (epoch, (before, after)) in (1..).zip(std::iter::once(&nothing).chain(states).zip(states)) {
        let keys: BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
        for id in keys {
            let flat = |row: &Row| Flat {
                id,
                other: row.other,
                n: row.n,
            };
            let (old, new) = (before.get(&id).map(flat), after.get(&id).map(flat));
            if old != new {
                let diff = i64::from(new.is_some()) - i64::from(old.is_some());
                all.push((epoch, old, new, diff));
                of.push(id);
            }
        }
    }
    (all, of)
}

fn run(
    how: &Run,
    rows: &Log<(u32, Option<Row>)>,
    given: &Log<Row>,
) -> thalweg::Result<thalweg::testing::Run> {
    let mut test = Harness::of(dataflow("written", build));
    test.workers(how.workers).batch_max(how.batch_max);
    for n in 0..EPOCHS {
        rows.feed(&mut test, "rows", n);
        given.feed(&mut test, "events", n);
        test.epoch();
        let Some(restart) = how.restart else { continue };
        if restart.checkpoints.contains(&n) {
            test.checkpoint();
        }
        if restart.stop == n {
            test.restart(restart.workers);
        }
    }
    test.run()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_test_reads_what_each_sink_was_given(
        rows in logs((0u32..4, prop::option::weighted(0.7, (0u32..4, 0i64..5))), |_, (key, row)| {
            (key, row.map(|(other, n)| Row { other, n }))
        }),
        given in logs((0u32..3, 1i64..4), |_, (other, n)| Row { other, n }),
        runs in runs(),
    ) {
        let events = events(&given);
        let audit: Parts<Row> = (1..).zip(&events).flat_map(|(epoch, rows)| {
            rows.iter().map(move |row| (epoch, None, Some(row.clone()), 1))
        }).collect();
        let numbers: Parts<i64> = audit.iter().map(|(epoch, _, row, diff)| {
            (*epoch, None, row.as_ref().map(|row| row.n), *diff)
        }).collect();
        let mut counts: Parts<Number> = Vec::new();
        for (epoch, rows) in (1..).zip(&events) {
            let mut sums = BTreeMap::new();
            rows.iter().for_each(|row| *sums.entry(row.n).or_default() += 1);
            counts.extend(sums.into_iter().map(|(key, n)| (epoch, None, Some(Number { key }), n)));
        }
        let (log, keys) = changes(&states(&rows));
        // What was before is not given to a store that holds the newest row, nor that a row was there.
        let newest: Parts<Flat> = log.iter().map(|(epoch, _, new, _)| {
            (*epoch, None, new.clone(), if new.is_some() { 1 } else { -1 })
        }).collect();
        for how in &runs {
            let failed = |error| TestCaseError::fail(format!("{how:?}: {error}"));
            let run = run(how, &rows, &given).map_err(failed)?;
            prop_assert_eq!(parts(&run.written("audit").unwrap()), audit.clone(), "{:?}", how);
            prop_assert_eq!(parts(&run.written("numbers").unwrap()), numbers.clone(), "{:?}", how);
            prop_assert_eq!(parts(&run.written("counts").unwrap()), counts.clone(), "{:?}", how);
            let written = run.written::<Flat>("log").unwrap();
            prop_assert_eq!(parts(&written), log.clone(), "{:?}", how);
            prop_assert_eq!(written.iter().map(|row| row.key().unwrap()).collect::<Vec<u32>>(), keys.clone());
            prop_assert_eq!(parts(&run.written("newest").unwrap()), newest.clone(), "{:?}", how);
            #[cfg(feature = "postgres")]
            prop_assert_eq!(parts(&run.written("newest_pg").unwrap()), newest.clone(), "{:?}", how);
        }
    }
}

#[test]
fn what_can_not_be_read_is_said() {
    let mut test = Harness::of(dataflow("written", |flow: Dataflow| {
        build(flow);
        let more = flow.table("more", Kafka::topic("m").json::<u32>().keyed::<u32>());
        more.for_each_epoch("told", |_, _| Ok::<_, String>(()));
    }));
    test.empty("rows")
        .empty("more")
        .feed("events", 0, [Row { other: 1, n: 2 }]);
    test.epoch();
    let run = test.run().unwrap();
    let refused = |sink: &str| run.written::<u32>(sink).unwrap_err().to_string();
    assert!(refused("odit").contains("no sink `odit`") && refused("odit").contains("`audit`"));
    assert!(refused("told").contains("is a function"));
    let misread = refused("audit");
    assert!(
        misread.contains("is no `u32`") && misread.contains(r#"{"other":1,"n":2}"#),
        "{misread}"
    );
    let written = run.written::<Row>("audit").unwrap();
    assert_eq!(written[0].time, Some(EventTime(0)));
    assert!(written[0].key::<u32>().is_err());
    assert_eq!(run.written::<Flat>("newest").unwrap(), []);
}
