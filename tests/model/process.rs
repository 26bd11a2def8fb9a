//! Operators of a dataflow's own: rows, expiry and late events against a plain loop over the log, stopped in
//! the middle and restored on another number of workers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg::checkpoint::keyed::{KeyedState, TimeStore};
use thalweg::operator::process::{Batch, Changes, EpochInfo, Operator};
use thalweg::prelude::*;
use thalweg::testing::Harness;

const LATENESS_US: i64 = 10;
const SPAN_US: i64 = 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reading {
    sensor: u64,
    value: u64,
    at_us: i64,
}

/// Until when a reading counts.
fn until(at: EventTime) -> EventTime {
    EventTime((at.0.div_euclid(SPAN_US) + 1) * SPAN_US)
}

/// Depends on the order.
fn fold(sum: u64, value: u64) -> u64 {
    (sum * 31 + value + 1) % 1_000_003
}

/// Of each sensor what its readings of the newest span come to, as long as that is not over.
struct Newest;

impl Newest {
    fn row(spans: &KeyedState<TimeStore<u64, u64>>, sensor: u64) -> Option<u64> {
        let of = spans.entries().iter().filter(|((_, of), _)| *of == sensor);
        of.last().map(|(_, sum)| *sum)
    }
}

impl Operator for Newest {
    type Input = (u64, Timed<Reading>);
    type Key = u64;
    type Value = u64;
    type State = TimeStore<u64, u64>;

    fn data(
        &self,
        _at: &EpochInfo,
        input: Batch<Self::Input>,
        spans: &mut KeyedState<Self::State>,
        changes: &mut Changes<u64, u64>,
    ) {
        for (sensor, reading) in input {
            let old = Self::row(spans, sensor);
            let value = reading.value.value;
            spans.update(
                (until(reading.time), sensor),
                || 0,
                |sum| *sum = fold(*sum, value),
            );
            changes.set(sensor, old, Self::row(spans, sensor));
        }
    }

    fn watermark(
        &self,
        at: &EpochInfo,
        spans: &mut KeyedState<Self::State>,
        changes: &mut Changes<u64, u64>,
    ) {
        // The newest span of a sensor is the last to expire.
        let mut gone = BTreeMap::new();
        spans.expire(at.closed, |(_, sensor), sum| _ = gone.insert(sensor, sum));
        for (sensor, sum) in gone {
            if Self::row(spans, sensor).is_none() {
                changes.set(sensor, Some(sum), None);
            }
        }
    }

    fn rows(&self, spans: &KeyedState<Self::State>, mut row: impl FnMut(u64, u64)) {
        let newest: BTreeMap<u64, u64> = spans.entries().iter().map(|(key, sum)| (key.1, *sum)).collect();
        newest.into_iter().for_each(|(sensor, sum)| row(sensor, sum));
    }

    fn is_late(&self, (_, reading): &Self::Input, closed: EventTime) -> bool {
        until(reading.time) <= closed
    }
}

fn flow() -> thalweg::Flow {
    dataflow("sensors", |flow: Dataflow<'_>| {
        let readings = Kafka::topic("readings").json::<Reading>();
        let readings = readings
            .event_time(|reading| EventTime(reading.at_us))
            .lateness(Duration::from_micros(LATENESS_US as u64));
        let newest = flow
            .source("readings", readings)
            .key_by("sensor", |reading| reading.sensor)
            .process("newest", Newest);
        newest.view("newest");
        // A group holds nothing that is in a checkpoint: it begins with the rows of the restored operator.
        newest
            .group_by("all", |_, _| 0u8)
            .aggregate("all", |a| (a.count(), a.sum(|(_, sum)| *sum)))
            .view_with("all", |view| view.fields(["n", "sum"]));
    })
}

/// What there is after each epoch, and how many readings came too late.
fn expected(epochs: &[Vec<Reading>]) -> (Vec<BTreeMap<u64, u64>>, usize) {
    let mut spans: BTreeMap<(EventTime, u64), u64> = BTreeMap::new();
    let (mut watermark, mut late, mut rows) = (EventTime::MIN, 0, Vec::new());
    for readings in epochs {
        for reading in readings {
            let at = EventTime(reading.at_us);
            match until(at) <= watermark {
                true => late += 1,
                false => {
                    let sum = spans.entry((until(at), reading.sensor)).or_default();
                    *sum = fold(*sum, reading.value);
                }
            }
            watermark = watermark.max(EventTime(at.0 - LATENESS_US));
        }
        spans.retain(|(until, _), _| *until > watermark);
        rows.push(spans.iter().map(|((_, sensor), sum)| (*sensor, *sum)).collect());
    }
    (rows, late)
}

#[derive(Debug, PartialEq, Deserialize)]
struct Row {
    sensor: u64,
    value: u64,
}

#[derive(Debug, PartialEq, Deserialize)]
struct All {
    n: u64,
    sum: u64,
}

fn readings() -> impl Strategy<Value = Vec<Vec<Reading>>> {
    let reading = (0u64..5, 0u64..9, -30i64..20);
    let epoch = prop::collection::vec(reading, 0..8);
    prop::collection::vec(epoch, 3..12).prop_map(|epochs| {
        let of = |(n, readings): (i64, Vec<(u64, u64, i64)>)| -> Vec<Reading> {
            let reading = |(sensor, value, jitter)| Reading {
                sensor,
                value,
                at_us: 1000 + 8 * n + jitter,
            };
            readings.into_iter().map(reading).collect()
        };
        (0i64..).zip(epochs).map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_operator_of_ones_own_comes_to_what_a_loop_does(
        epochs in readings(), workers in 1usize..4, others in 1usize..4, cut in 0usize..12,
    ) {
        let (rows, late) = expected(&epochs);
        let mut test = Harness::of(flow());
        test.workers(workers);
        let cut = cut % epochs.len();
        let mut at = Vec::new();
        for (n, readings) in epochs.iter().enumerate() {
            test.feed("readings", 0, readings.clone());
            at.push(test.epoch());
            if n == cut {
                test.checkpoint();
                test.restart(others);
            }
        }
        // The last run has an epoch of its own.
        test.feed("readings", 0, Vec::<Reading>::new());
        let last = test.epoch();
        let run = test.run().unwrap();
        prop_assert_eq!(run.restored(), Some(at[cut]));
        for (epoch, expected) in at.iter().zip(&rows).skip(cut) {
            let mut found = run.rows::<Row>("newest", *epoch).unwrap();
            found.sort_by_key(|row| row.sensor);
            let found: BTreeMap<u64, u64> = found.into_iter().map(|row| (row.sensor, row.value)).collect();
            prop_assert_eq!(&found, expected, "as of {}", epoch);
            let all: Vec<(u64, u64)> =
                run.rows::<All>("all", *epoch).unwrap().into_iter().map(|all| (all.n, all.sum)).collect();
            let sum = (!expected.is_empty()).then(|| (expected.len() as u64, expected.values().sum()));
            prop_assert_eq!(all, sum.into_iter().collect::<Vec<_>>());
        }
        let letters = run.json("readings.dead_letters", last).unwrap();
        prop_assert_eq!(letters.len(), late);
        prop_assert!(letters.iter().all(|letter| letter.contains("\"newest\"")), "{:?}", letters);
    }
}
