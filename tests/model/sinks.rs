//! Functions that are given each epoch: all of it, in order, once in a run and over restarts that were asked
//! for; and the same again after those that were not.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;
use thalweg::prelude::*;
use thalweg::runtime::{Replay, Service};
use thalweg::testing::Harness;

use super::checkpoints::World;
use super::log::{EPOCHS, Given, Log, Run, config, logs, runs};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Row {
    other: u32,
    n: i64,
}

/// What sinks were given: by name, the epochs in order, each with its rows as text.
type Seen = BTreeMap<&'static str, Vec<(u64, Vec<String>)>>;

/// Takes what it is given, but for every so many times.
#[derive(Clone, Default)]
struct Taker {
    seen: Arc<Mutex<Seen>>,
    /// Turned down: what was, and has to come again.
    refused: Arc<Mutex<Seen>>,
    calls: Arc<Mutex<u64>>,
    fails_every: Option<u64>,
}

impl Taker {
    fn take<R: std::fmt::Debug>(&self, sink: &'static str, epoch: Epoch, rows: &[R]) -> Result<(), String> {
        let rows = rows.iter().map(|row| format!("{row:?}")).collect();
        let mut calls = self.calls.lock();
        *calls += 1;
        let fails = self.fails_every.is_some_and(|every| calls.is_multiple_of(every));
        let place = if fails { &self.refused } else { &self.seen };
        place.lock().entry(sink).or_default().push((epoch.0, rows));
        match fails {
            true => Err("no".into()),
            false => Ok(()),
        }
    }

    fn flow(&self) -> thalweg::Flow {
        let taker = self.clone();
        dataflow("sinks", move |flow| taker.build(flow))
    }

    fn build(&self, flow: Dataflow) {
        let rows = flow.table("rows", Kafka::topic("r").json::<Row>().keyed::<u32>());
        let events = flow.source("events", Kafka::topic("e").json::<Row>());
        let joined = rows.left_join_on(
            "joined",
            &rows,
            |_, row| row.other,
            |_, row, other| (row.n, other.map(|other| other.n)),
        );
        rows.view("rows_view");
        let [a, b, c] = [self.clone(), self.clone(), self.clone()];
        rows.for_each_epoch("rows_out", move |epoch, rows| a.take("rows_out", epoch, rows));
        joined.for_each_epoch("joined_out", move |epoch, rows| b.take("joined_out", epoch, rows));
        let twice = events.flat_map(|row| [row.n, -row.n].into_iter().take(row.other as usize));
        twice.for_each_epoch("events_out", move |epoch, events| {
            let at = |event: &Timed<i64>| (event.at.partition.partition, event.at.offset, event.value);
            c.take("events_out", epoch, &events.iter().map(at).collect::<Vec<_>>())
        });
    }
}

/// Rows as of each epoch, by key.
fn states<V: Clone>(log: &Log<(u32, Option<V>)>) -> Vec<BTreeMap<u32, V>> {
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

/// What changed from each epoch to the next.
fn changes<V: Clone + PartialEq + std::fmt::Debug>(states: &[BTreeMap<u32, V>]) -> Vec<Vec<String>> {
    let nothing = BTreeMap::new();
    let before = std::iter::once(&nothing).chain(states);
    let changed = before.zip(states).map(|(before, after)| {
        let keys: std::collections::BTreeSet<u32> = before.keys().chain(after.keys()).copied().collect();
        let change = |key: u32| Change {
            key,
            old: before.get(&key).cloned(),
            new: after.get(&key).cloned(),
        };
        let changes = keys
            .into_iter()
            .map(change)
            .filter(|change| change.old != change.new);
        changes.map(|change| format!("{change:?}")).collect()
    });
    changed.collect()
}

/// What events each epoch brings, in order.
fn events(log: &Log<Row>) -> Vec<Vec<String>> {
    let mut offsets = BTreeMap::<u32, i64>::new();
    let epoch = |step: &super::log::Step<Row>| {
        let mut records = step.records.clone();
        records.sort_by_key(|(partition, _)| *partition);
        let mut events = Vec::new();
        for (partition, given) in records {
            let offset = offsets.entry(partition).or_default();
            if let Given::Value(row) = given {
                let all = [row.n, -row.n].into_iter().take(row.other as usize);
                events.extend(all.map(|n| format!("{:?}", (partition, *offset, n))));
            }
            *offset += 1;
        }
        events
    };
    log.epochs.iter().map(epoch).collect()
}

fn with_epochs(rows: Vec<Vec<String>>) -> Vec<(u64, Vec<String>)> {
    (1..).zip(rows).filter(|(_, rows)| !rows.is_empty()).collect()
}

fn run(taker: &Taker, how: &Run, rows: &Log<(u32, Option<Row>)>, given: &Log<Row>) -> thalweg::Result<Seen> {
    let mut test = Harness::of(taker.flow());
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
    let run = test.run()?;
    assert_eq!(run.restored().is_some(), how.restart.is_some());
    Ok(std::mem::take(&mut *taker.seen.lock()))
}

proptest! {
    #![proptest_config(config())]

    /// Over restarts, too, each epoch is given once: whatever goes on from a checkpoint or is replayed is not
    /// given again.
    #[test]
    fn each_epoch_is_given_once_as_defined(
        rows in logs((0u32..4, prop::option::weighted(0.7, (0u32..4, 0i64..5))), |_, (key, row)| {
            (key, row.map(|(other, n)| Row { other, n }))
        }),
        given in logs((0u32..3, 1i64..9), |_, (other, n)| Row { other, n }),
        runs in runs(),
        fails_every in prop::option::weighted(0.2, 5u64..9),
    ) {
        let states = states(&rows);
        let joined: Vec<BTreeMap<u32, (i64, Option<i64>)>> = states.iter().map(|state| {
            let row = |(key, row): (&u32, &Row)| (*key, (row.n, state.get(&row.other).map(|other| other.n)));
            state.iter().map(row).collect()
        }).collect();
        let mut expected = Seen::new();
        for (sink, epochs) in [
            ("rows_out", changes(&states)),
            ("joined_out", changes(&joined)),
            ("events_out", events(&given)),
        ] {
            let epochs = with_epochs(epochs);
            if !epochs.is_empty() {
                expected.insert(sink, epochs);
            }
        }
        for how in &runs {
            let taker = Taker { fails_every, ..Taker::default() };
            let seen = run(&taker, how, &rows, &given).map_err(|error| TestCaseError::fail(format!("{how:?}: {error}")))?;
            prop_assert_eq!(&seen, &expected, "{:?}", how);
            for (sink, refused) in &*taker.refused.lock() {
                for epoch in refused {
                    prop_assert!(expected[sink].contains(epoch), "{} was given other rows the first time: \
                        {:?}", sink, epoch);
                }
            }
        }
    }
}

/// Numbers by their remainder, and the sums of those.
fn sums(taker: Option<Taker>) -> thalweg::Flow {
    dataflow("lucky", move |flow| {
        let numbers = Kafka::topic("o")
            .json::<u64>()
            .event_time(|n| EventTime(*n as i64));
        let sums = flow
            .source("numbers", numbers)
            .key_by("digit", |n| n % 7)
            .window("hundreds", Tumbling::of(Duration::from_micros(100)))
            .aggregate(|a| a.sum(|n| *n));
        sums.view("sums_view");
        flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        if let Some(taker) = taker.clone() {
            sums.for_each_epoch("sums_out", move |epoch, rows| taker.take("sums_out", epoch, rows));
        }
    })
}

fn start(world: &World, taker: Option<&Taker>, epochs: RangeInclusive<u64>, due: &[u64]) -> Service {
    let disk = Arc::new(world.disk.clone());
    world.start(&sums(taker.cloned()), disk, epochs, due, 2).unwrap()
}

fn given_to(
    world: &World,
    taker: &Taker,
    epochs: RangeInclusive<u64>,
    due: &[u64],
) -> Vec<(u64, Vec<String>)> {
    start(world, Some(taker), epochs, due).join().unwrap();
    taker.seen.lock().remove("sums_out").unwrap_or_default()
}

fn checkpoints(world: &World) -> Vec<u64> {
    let epochs = world.store(Arc::new(world.disk.clone())).epochs().unwrap();
    epochs.into_iter().map(|epoch| epoch.0).collect()
}

/// As if the process had been killed before it could write down what the sink had taken.
#[test]
fn what_was_not_written_down_is_given_again_as_it_was() {
    for (due, known) in [(&[][..], 0), (&[], 3), (&[3], 3), (&[5], 7)] {
        let world = World::default();
        let all = given_to(&world, &Taker::default(), 1..=8, due);
        assert_eq!(all.len(), 8);
        assert_eq!(checkpoints(&world), due);
        // A record an epoch, or fewer where several were taken together: each that is left out may come
        // again. That all is there up to a checkpoint is known before it counts.
        let checkpoint = due.last().copied().unwrap_or(0);
        let told = world.log.progress();
        let told = told.iter().map(|progress| progress.complete.0);
        let least = told.filter(|complete| *complete >= checkpoint).min();
        let known = least
            .filter(|_| checkpoint > 0)
            .map_or(known, |least| least.max(known));
        world.log.retain_progress(|progress| progress.complete.0 <= known);
        let kept = world.log.progress();
        let last = kept.last().map_or(0, |progress| progress.complete.0);
        let again = given_to(&world, &Taker::default(), 9..=12, &[]);
        let restored = due.last().copied().unwrap_or(0);
        let (replayed, new) = again.split_at(again.iter().filter(|(epoch, _)| *epoch <= 8).count());
        assert_eq!(
            replayed,
            &all[last.max(restored) as usize..],
            "known {known} of {due:?}"
        );
        assert_eq!(new.len(), 4);
    }
}

/// A start from a checkpoint makes nothing of before it again: so none counts as long as a sink lacks
/// something of that.
#[test]
fn a_checkpoint_counts_once_sinks_have_all_of_it() {
    for fails in [false, true] {
        let world = World::default();
        let taker = Taker {
            fails_every: fails.then_some(1),
            ..Taker::default()
        };
        let service = start(&world, Some(&taker), 1..=8, &[6]);
        let is_closed = || {
            service
                .views()
                .closed()
                .is_some_and(|snapshot| snapshot.epoch == Epoch(8))
        };
        while !is_closed() {
            std::thread::yield_now();
        }
        service.stop();
        service.join().unwrap();
        assert_eq!(checkpoints(&world), if fails { vec![] } else { vec![6] });
        let seen = given_to(&world, &Taker::default(), 9..=12, &[]);
        let first = seen.first().map(|(epoch, _)| *epoch);
        assert_eq!(
            first,
            Some(if fails { 1 } else { 9 }),
            "with a sink that fails: {fails}"
        );
    }
}

#[test]
fn a_sink_that_is_new_begins_with_what_there_is() {
    let world = World::default();
    start(&world, None, 1..=8, &[6]).join().unwrap();
    let taker = Taker::default();
    let service = start(&world, Some(&taker), 9..=10, &[]);
    assert_eq!(service.restored(), Some(Epoch(6)));
    service.join().unwrap();
    let seen = taker.seen.lock()["sums_out"].clone();
    let whole = {
        let world = World::default();
        let taker = Taker::default();
        given_to(&world, &taker, 1..=10, &[])
    };
    assert_eq!(seen[1..], whole[6..], "from there on the changes");
    // All rows as of the sixth epoch: the last of each key.
    let mut rows = BTreeMap::new();
    for (_, changes) in &whole[..6] {
        for change in changes {
            let key = change.split(" old: ").next().unwrap().to_owned();
            let new = change.split(" new: ").nth(1).unwrap();
            rows.insert(key, new.trim_end_matches(" }").to_owned());
        }
    }
    let rows = rows
        .into_iter()
        .map(|(key, new)| format!("{key} old: None, new: {new} }}"));
    assert_eq!(seen[0], (6, rows.collect()));
}

/// It is to compare, beside a service that may be running.
#[test]
fn a_replay_gives_nothing() {
    let world = World::default();
    given_to(&world, &Taker::default(), 1..=8, &[]);
    let replay = World {
        replay: Some(Replay {
            from: None,
            to: None,
            any_build: false,
        }),
        log: world.log.copy(),
        ..world.clone()
    };
    // As if it had never been given anything.
    replay.log.retain_progress(|_| false);
    let taker = Taker::default();
    let service = start(&replay, Some(&taker), 1..=8, &[]);
    while !service.is_finished() {
        std::thread::yield_now();
    }
    let views = service.join().unwrap();
    assert_eq!(views.closed().map(|snapshot| snapshot.epoch), Some(Epoch(8)));
    assert!(taker.seen.lock().is_empty());
    assert!(replay.log.progress().is_empty() && !world.log.progress().is_empty());
}

#[test]
fn a_function_that_panics_ends_the_service_by_name() {
    let flow = dataflow("lucky", |flow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let _ = flow.source("numbers", Kafka::topic("o").json::<u64>());
        names.for_each_epoch("fragile", |epoch, _| match epoch.0 {
            0..3 => Ok::<_, String>(()),
            _ => panic!("too many"),
        });
    });
    let world = World::default();
    let disk = Arc::new(world.disk.clone());
    let error = world
        .start(&flow, disk, 1..=8, &[], 1)
        .unwrap()
        .join()
        .err()
        .expect("an end");
    let said = error.to_string();
    assert!(
        said.contains("sink `fragile` panicked") && said.contains("too many"),
        "{said}"
    );
}

/// Checkpoints that were made without it say nothing of what it has: it begins anew with all rows.
#[test]
fn a_sink_that_was_away_for_a_while_begins_with_what_there_is() {
    let world = World::default();
    let first = given_to(&world, &Taker::default(), 1..=3, &[2]);
    assert_eq!(first.len(), 3);
    start(&world, None, 4..=8, &[6]).join().unwrap();
    let taker = Taker::default();
    let back = given_to(&world, &taker, 9..=10, &[]);
    let epochs: Vec<u64> = back.iter().map(|(epoch, _)| *epoch).collect();
    assert_eq!(epochs, [6, 7, 8, 9, 10]);
    assert!(
        back[0].1.iter().all(|change| change.contains("old: None")),
        "{:?}",
        back[0]
    );
    // From a checkpoint that was made with it, it goes on.
    let world = World::default();
    given_to(&world, &Taker::default(), 1..=8, &[6]);
    let next = given_to(&world, &Taker::default(), 9..=10, &[]);
    assert_eq!(next.first().map(|(epoch, _)| *epoch), Some(9));
}
