//! Random logs, what the rules of time make of them, and the comparison with the engine.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;
use serde_json::Value;
use thalweg::codec::Cause;
use thalweg::dataflow::Flow;
use thalweg::testing::Harness;
use thalweg::{Event, EventTime};

/// How many epochs every log has.
pub const EPOCHS: usize = 6;
/// Event times that can be written down end here.
const LATEST_US: i64 = 253_402_300_799_999_999;

/// What one record holds.
#[derive(Clone, Debug)]
pub enum Given<T> {
    Value(T),
    Undecodable,
}

/// What a source's log brings, epoch by epoch.
#[derive(Clone)]
pub struct Log<T> {
    pub partitions: u32,
    pub epochs: Vec<Step<T>>,
}

/// A line an epoch, so that a failed case can be read.
impl<T: std::fmt::Debug> std::fmt::Debug for Log<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} partitions", self.partitions)?;
        for (n, Step { records, idle }) in self.epochs.iter().enumerate() {
            writeln!(f, "    epoch {}: {records:?}, idle: {idle:?}", n + 1)?;
        }
        Ok(())
    }
}

/// One epoch of a log.
#[derive(Clone, Debug)]
pub struct Step<T> {
    pub records: Vec<(u32, Given<T>)>,
    /// Partitions that turn idle. None of them brings a record in the same epoch.
    pub idle: Vec<u32>,
}

/// Logs of 1 to 3 partitions. `value` is made of the number of the epoch and what `seed` draws.
pub fn logs<S: std::fmt::Debug + Clone + 'static, T: std::fmt::Debug + Clone + 'static>(
    seed: impl Strategy<Value = S> + Clone + 'static,
    value: impl Fn(usize, S) -> T + Clone + 'static,
) -> impl Strategy<Value = Log<T>> {
    (1u32..=3).prop_flat_map(move |partitions| {
        let given = prop_oneof![12 => seed.clone().prop_map(Some), 1 => Just(None)];
        let records = prop::collection::vec((0..partitions, given), 0..6);
        let idle = prop::collection::vec(prop::bool::weighted(0.2), partitions as usize);
        let value = value.clone();
        prop::collection::vec((records, idle), EPOCHS).prop_map(move |epochs| {
            let step = |(n, (records, idle)): (usize, (Vec<(u32, Option<S>)>, Vec<bool>))| {
                let brings = |p: u32| records.iter().any(|(partition, _)| *partition == p);
                let idle = (0u32..)
                    .zip(idle)
                    .filter(|(p, idle)| *idle && !brings(*p))
                    .map(|(p, _)| p)
                    .collect();
                let records = records.iter().map(|(partition, seed)| {
                    let given = seed
                        .clone()
                        .map_or(Given::Undecodable, |seed| Given::Value(value(n, seed)));
                    (*partition, given)
                });
                Step {
                    records: records.collect(),
                    idle,
                }
            };
            Log {
                partitions,
                epochs: epochs.into_iter().enumerate().map(step).collect(),
            }
        })
    })
}

impl<T> Log<T> {
    /// The same log of a source that is silent for some epochs: idle in the first of them, and nothing comes
    /// in any.
    pub fn silent(mut self, epochs: Range<usize>) -> Self {
        let partitions = self.partitions;
        if let Some(first) = self
            .epochs
            .get_mut(epochs.clone())
            .and_then(|steps| steps.first_mut())
        {
            first.idle = (0..partitions).collect();
        }
        for step in &mut self.epochs[epochs] {
            step.records.clear();
        }
        self
    }
}

/// For how long each of two sources is silent: for some epochs, from the start, to the end, not at all;
/// mostly one of them, and so that it comes back.
pub fn silences() -> impl Strategy<Value = [Range<usize>; 2]> {
    let some = || (0..EPOCHS, 1..=EPOCHS).prop_map(|(from, len)| from..(from + len).min(EPOCHS));
    let back = (0usize..3, 1usize..3).prop_map(|(from, len)| from..from + len);
    prop_oneof![
        1 => Just([0..0, 0..0]),
        4 => (back, any::<bool>()).prop_map(|(one, second)| if second { [0..0, one] } else { [one, 0..0] }),
        2 => [some(), some()],
    ]
}

impl<T: Event> Log<T> {
    /// Feeds what epoch `n` brings.
    pub fn feed(&self, test: &mut Harness, source: &str, n: usize) {
        self.feed_stamped(test, source, n, |_| 0);
    }

    /// The same, with the log's timestamps running backwards: of no meaning to a table.
    pub fn feed_backwards(&self, test: &mut Harness, source: &str, n: usize) {
        self.feed_stamped(test, source, n, |i| -(100 * n as i64) - i as i64);
    }

    fn feed_stamped(&self, test: &mut Harness, source: &str, n: usize, stamp: impl Fn(usize) -> i64) {
        for partition in 0..self.partitions {
            test.feed::<T>(source, partition, []);
        }
        for (i, (partition, given)) in self.epochs[n].records.iter().enumerate() {
            match given {
                Given::Value(value) => {
                    test.feed_at(source, *partition, [(EventTime(stamp(i)), value.clone())])
                }
                Given::Undecodable => test.feed_dead::<T>(source, *partition, Cause::JsonSyntax),
            };
        }
        for partition in &self.epochs[n].idle {
            test.idle(source, *partition);
        }
    }
}

/// A record as the rules of time see it.
#[derive(Clone, Debug)]
pub struct Seen<T> {
    pub epoch: usize,
    pub partition: u32,
    pub offset: i64,
    pub given: Given<T>,
    /// Microseconds; of no meaning where there is no value.
    pub time: i64,
    pub horizon: i64,
}

impl<T> Seen<T> {
    /// The value, if there is one and its time can be written down.
    pub fn value(&self) -> Option<&T> {
        match &self.given {
            Given::Value(value) if self.time <= LATEST_US => Some(value),
            _ => None,
        }
    }

    /// Why it is turned down by the source.
    pub fn cause(&self) -> Option<&'static str> {
        match &self.given {
            Given::Undecodable => Some("json_syntax"),
            Given::Value(_) if self.time > LATEST_US => Some("event_time_invalid"),
            Given::Value(_) => None,
        }
    }
}

/// A log in order of epoch, partition and offset; as of every epoch its watermark (`i64::MIN`: none yet), and
/// whether all of its partitions are idle.
#[derive(Clone, Debug)]
pub struct Reading<T> {
    pub records: Vec<Seen<T>>,
    pub watermarks: Vec<i64>,
    pub idle: Vec<bool>,
}

impl<T: Clone> Reading<T> {
    /// The same records as a step sees them that had closed what ends up to `watermarks` by each epoch.
    pub fn behind(&self, watermarks: &[i64]) -> Vec<Seen<T>> {
        let raised = |record: &Seen<T>| Seen {
            horizon: match record.epoch {
                0 => record.horizon,
                epoch => record.horizon.max(watermarks[epoch - 1]),
            },
            ..record.clone()
        };
        self.records.iter().map(raised).collect()
    }
}

/// The watermark of what comes from several logs, as of every epoch: the highest that the minimum over those
/// that were not idle has ever been.
pub fn together<T>(logs: &[&Reading<T>]) -> Vec<i64> {
    let minimum = |n: usize| {
        let counting = logs.iter().filter(|log| !log.idle[n]);
        counting.map(|log| log.watermarks[n]).min()
    };
    (0..EPOCHS)
        .map(|n| (0..=n).filter_map(minimum).max().unwrap_or(i64::MIN))
        .collect()
}

/// The rules of time, to the letter and without regard to cost.
pub fn read<T: Clone>(log: &Log<T>, lateness_us: i64, time: impl Fn(&T) -> i64) -> Reading<T> {
    let mut records: Vec<Seen<T>> = Vec::new();
    for (epoch, step) in log.epochs.iter().enumerate() {
        for partition in 0..log.partitions {
            for (_, given) in step.records.iter().filter(|(p, _)| *p == partition) {
                let offset = records.iter().filter(|r| r.partition == partition).count() as i64;
                let time = if let Given::Value(value) = given {
                    time(value)
                } else {
                    0
                };
                records.push(Seen {
                    epoch,
                    partition,
                    offset,
                    given: given.clone(),
                    time,
                    horizon: i64::MIN,
                });
            }
        }
    }
    // A partition's own watermark: its highest valid event time less the lateness, over the records that `of`
    // picks.
    let own = |partition: u32, of: &dyn Fn(&Seen<T>) -> bool| {
        let times = records
            .iter()
            .filter(|r| r.partition == partition && r.value().is_some() && of(r));
        times.map(|r| r.time - lateness_us).max().unwrap_or(i64::MIN)
    };
    let idle = |partition: u32, epoch: usize| {
        let marked = (0..=epoch)
            .rev()
            .find(|n| log.epochs[*n].idle.contains(&partition));
        let timed = |n: usize| {
            records
                .iter()
                .any(|r| r.epoch == n && r.partition == partition && r.value().is_some())
        };
        marked.is_some_and(|marked| !(marked + 1..=epoch).any(timed))
    };
    let mut watermarks: Vec<i64> = Vec::new();
    for epoch in 0..log.epochs.len() {
        let holding = (0..log.partitions).filter(|p| !idle(*p, epoch));
        let low = holding.map(|p| own(p, &|r| r.epoch <= epoch)).min();
        let before = watermarks.last().copied().unwrap_or(i64::MIN);
        watermarks.push(low.map_or(before, |low| low.max(before)));
    }
    let horizon = |record: &Seen<T>| {
        let floor = record
            .epoch
            .checked_sub(1)
            .map_or(i64::MIN, |before| watermarks[before]);
        own(record.partition, &|r| r.offset < record.offset).max(floor)
    };
    let horizons: Vec<i64> = records.iter().map(horizon).collect();
    let idle: Vec<bool> = (0..log.epochs.len())
        .map(|epoch| (0..log.partitions).all(|p| idle(p, epoch)))
        .collect();
    for (record, horizon) in records.iter_mut().zip(horizons) {
        record.horizon = horizon;
    }
    Reading {
        records,
        watermarks,
        idle,
    }
}

/// The rows of a view as JSON objects, in order of their keys.
pub type Rows = Vec<Value>;

/// What a run is varied in, though no result may depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub workers: usize,
    pub batch_max: usize,
    pub restart: Option<Restart>,
}

/// A run that does not go through at once.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// The epochs (from 0) after which checkpoints are made, if they are reached before the stop.
    pub checkpoints: [usize; 2],
    /// The epoch after which the service stops.
    pub stop: usize,
    /// On how many workers it goes on.
    pub workers: usize,
}

/// Runs that differ. The last of them is stopped, and goes on from a checkpoint.
pub fn runs() -> impl Strategy<Value = [Run; 3]> {
    let batch = || prop_oneof![Just(1usize), Just(2), Just(4096)];
    let restart = ([0..EPOCHS - 1, 0..EPOCHS - 1], 0..EPOCHS - 1, 1usize..=3);
    (1usize..=3, 1usize..=2, batch(), batch(), restart).prop_map(|(first, more, a, b, restart)| {
        let second = (first - 1 + more) % 3 + 1;
        let (checkpoints, after, workers) = restart;
        let run = |workers, batch_max, restart| Run {
            workers,
            batch_max,
            restart,
        };
        let restart = Restart {
            checkpoints,
            stop: checkpoints[0].max(after),
            workers,
        };
        [
            run(first, a, None),
            run(second, b, None),
            run(second, a, Some(restart)),
        ]
    })
}

/// Runs the flow and compares each view with what is expected of it, at every epoch, and the runs with each
/// other.
pub fn check(
    flow: &Flow,
    runs: &[Run],
    feed: impl Fn(&mut Harness, usize),
    expected: &BTreeMap<&str, Vec<Rows>>,
    project: impl Fn(&str, Value) -> Value,
) -> Result<(), TestCaseError> {
    // By way of text, as the engine's rows come: floats read from text may differ from those they were
    // written from.
    let text = |rows: &Rows| rows.iter().map(|row| parse(&row.to_string())).collect();
    let expected: BTreeMap<&str, Vec<Rows>> = expected
        .iter()
        .map(|(view, epochs)| (*view, epochs.iter().map(text).collect()))
        .collect();
    let mut first: Option<Vec<Option<u64>>> = None;
    for how in runs {
        let mut test = Harness::of(flow.clone());
        test.workers(how.workers).batch_max(how.batch_max);
        let mut epochs = Vec::new();
        for n in 0..EPOCHS {
            feed(&mut test, n);
            epochs.push(test.epoch());
            let Some(restart) = how.restart else { continue };
            if restart.checkpoints.contains(&n) {
                test.checkpoint();
            }
            if restart.stop == n {
                test.restart(restart.workers);
            }
        }
        let run = test
            .run()
            .map_err(|error| TestCaseError::fail(format!("{how:?}: {error}")))?;
        if let Some(restart) = how.restart {
            // The second may have been due while the first was still being written.
            let made = restart.checkpoints.map(|n| epochs[n]);
            prop_assert!(
                run.restored().is_some_and(|epoch| made.contains(&epoch)),
                "{:?}",
                how
            );
        }
        for (view, expected) in &expected {
            for (n, epoch) in epochs.iter().enumerate() {
                let rows = run
                    .json(view, *epoch)
                    .map_err(|error| TestCaseError::fail(format!("{view}: {error}")))?;
                let rows: Rows = rows.iter().map(|row| project(view, parse(row))).collect();
                prop_assert_eq!(
                    &rows,
                    &expected[n],
                    "view {} at epoch {} of {:?}",
                    view,
                    epoch,
                    how
                );
            }
        }
        let names = run.views().names();
        // What epochs before a checkpoint changed is not known any more.
        let known = how.restart.map_or(0, |restart| restart.stop + 1);
        let of = |view| epochs.iter().map(move |epoch| (view, *epoch)).skip(known);
        let hashes = names
            .iter()
            .flat_map(of)
            .map(|(view, epoch)| run.hash(view, epoch));
        let hashes: Vec<Option<u64>> = hashes.collect();
        prop_assert!(hashes.iter().all(Option::is_some));
        match &first {
            None => first = Some(hashes),
            Some(first) => {
                let first = first.chunks(EPOCHS).flat_map(|view| &view[known..]);
                let first: Vec<_> = first.copied().collect();
                prop_assert_eq!(first, hashes, "hashes of {:?} in {:?}", names, runs);
            }
        }
    }
    Ok(())
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("rows are JSON")
}

/// The usual settings: few cases, as each runs the engine; `PROPTEST_CASES` asks for more.
pub fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        default.cases
    } else {
        32
    };
    ProptestConfig {
        cases,
        max_shrink_iters: 300,
        failure_persistence: None,
        ..default
    }
}

/// An event time as views write it.
pub fn instant(us: i64) -> String {
    thalweg::EventTime(us).to_string()
}
