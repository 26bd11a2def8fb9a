//! What is late does not depend on how fast partitions are read: in step, in bursts, or one of them long
//! after the others.
//!
//! ```text
//!   in step    p0 ▪▪▪▪▪▪▪▪    p1 ▪▪▪▪▪▪▪▪    p2 ▪▪▪▪▪▪▪▪      an epoch takes one record of each
//!   bursts     p0 ▪▪▪■■■▪■    p1 ■■▪▪▪▪▪▪    p2 ▪▪■■■■▪▪      an epoch takes any number of one
//!   paused     p0 ■■■■■■■■    p1         ■■■■■■■■  p2 ■■■     one of them comes when all else is over
//! ```

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::Value;
use thalweg::prelude::*;
use thalweg::testing::Harness;

const PARTITIONS: usize = 3;
const LATENESS_S: i64 = 3;
const WINDOW_S: i64 = 10;

/// Seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Tick(i64);

fn build(flow: Dataflow) {
    let source = |name: &str| {
        let ticks = Kafka::topic(name).json::<Tick>();
        let ticks = ticks.event_time(|tick| EventTime::from_secs(tick.0));
        flow.source(name, ticks.lateness(Duration::from_secs(LATENESS_S as u64)))
    };
    // Partitions 0 and 1 are of one source, partition 2 is of the other.
    source("left")
        .merge(&source("right"))
        .key_by("all", |_| 0u8)
        .window("tens", Tumbling::of(Duration::from_secs(WINDOW_S as u64)))
        .aggregate(|a| a.count())
        .view_with("tens_now", |view| view.fields(["n"]));
}

fn place(partition: usize) -> (&'static str, u32) {
    [("left", 0), ("left", 1), ("right", 0)][partition]
}

/// Event times that go on, with steps back; partitions are of any length.
fn logs() -> impl Strategy<Value = [Vec<Tick>; PARTITIONS]> {
    let step = prop_oneof![6 => 0i64..4, 2 => -8i64..0, 1 => -40i64..-8, 1 => 8i64..40];
    let log = prop::collection::vec(step, 0..30).prop_map(|steps| {
        let mut at = 1_000;
        steps
            .into_iter()
            .map(|step| {
                let tick = Tick(at + step);
                at = at.max(tick.0);
                tick
            })
            .collect()
    });
    prop::array::uniform(log)
}

/// How many records of which partition each epoch takes. What is left comes in the last one.
type Reading = Vec<Vec<(usize, usize)>>;

fn in_step() -> Reading {
    vec![(0..PARTITIONS).map(|p| (p, 1)).collect(); 30]
}

fn paused(last: usize) -> Reading {
    (0..PARTITIONS)
        .filter(|p| *p != last)
        .map(|p| vec![(p, 30)])
        .collect()
}

fn bursts() -> impl Strategy<Value = Reading> {
    prop::collection::vec((0..PARTITIONS, 1usize..12).prop_map(|burst| vec![burst]), 0..12)
}

/// Late records, and how many there are in each window.
type Found = (BTreeSet<(String, u64, u64)>, BTreeMap<i64, u64>);

fn read(logs: &[Vec<Tick>; PARTITIONS], reading: &Reading, workers: usize) -> Found {
    let mut test = Harness::of(dataflow("replay", build));
    let mut at = [0usize; PARTITIONS];
    let rest: Vec<_> = (0..PARTITIONS).map(|p| (p, usize::MAX)).collect();
    let mut last = None;
    for p in 0..PARTITIONS {
        test.feed::<Tick>(place(p).0, place(p).1, []);
    }
    for epoch in reading.iter().chain([&rest]) {
        for (p, records) in epoch {
            let upto = at[*p].saturating_add(*records).min(logs[*p].len());
            let records = logs[*p][at[*p]..upto].iter().copied();
            test.feed(place(*p).0, place(*p).1, records);
            at[*p] = upto;
        }
        last = Some(test.epoch());
    }
    let run = test.workers(workers).run().unwrap();
    let last = last.expect("there is one");
    let late = |source: &'static str| {
        let rows: Vec<Value> = run.rows(&format!("{source}.dead_letters"), last).unwrap();
        rows.into_iter().map(move |row| {
            assert_eq!(
                (&row["cause"], &row["step"]),
                (&Value::from("late"), &Value::from("tens"))
            );
            let number = |name: &str| row[name].as_u64().expect("a number");
            (source.to_owned(), number("partition"), number("offset"))
        })
    };
    let late = late("left").chain(late("right")).collect();
    let rows: Vec<Value> = run.rows("tens_now", last).unwrap();
    let window = |row: &Value| {
        let start: EventTime = row["window_start"]
            .as_str()
            .expect("a time")
            .parse()
            .expect("a time");
        (start.micros() / 1_000_000, row["n"].as_u64().expect("a number"))
    };
    (late, rows.iter().map(window).collect())
}

/// By the rule alone: late for what its own partition had seen before it.
fn expected(logs: &[Vec<Tick>; PARTITIONS]) -> Found {
    let (mut late, mut windows) = (BTreeSet::new(), BTreeMap::new());
    for (p, log) in logs.iter().enumerate() {
        let mut newest: Option<i64> = None;
        for (offset, Tick(at)) in log.iter().enumerate() {
            let start = at.div_euclid(WINDOW_S) * WINDOW_S;
            if newest.is_some_and(|newest| start + WINDOW_S <= newest - LATENESS_S) {
                late.insert((place(p).0.to_owned(), u64::from(place(p).1), offset as u64));
            } else {
                *windows.entry(start).or_default() += 1;
            }
            newest = newest.max(Some(*at));
        }
    }
    (late, windows)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn what_is_late_does_not_depend_on_the_speed_of_reading(logs in logs(), bursts in bursts()) {
        let expected = expected(&logs);
        let readings = [in_step(), bursts, paused(0), paused(1), paused(2)];
        for (n, reading) in readings.iter().enumerate() {
            prop_assert_eq!(&read(&logs, reading, 1 + n % 2), &expected, "{:?}", reading);
        }
    }
}
