//! What epochs came to is in the ledger, and a replay is held against it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use thalweg::checkpoint::store::CheckpointStore;
use thalweg::disk::sim::SimDisk;
use thalweg::ledger::MemoryLog;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{CheckpointSchedule, CheckpointSettings as Checkpoints};
use thalweg::runtime::{LedgerLocation, OnDifference, Replay, RunSettings, Service};
use thalweg::sequencer::results::ComparisonReport;
use thalweg::sequencer::{Cuts, ScriptedEpoch};
use thalweg::source::{Environment, Source, Substitute};
use thalweg::testing::memory::Memory;
use thalweg::{Epoch, Error, EventTime, Flow, Kind};

const EPOCHS: usize = 12;
const RECORDS_AN_EPOCH: usize = 5;

/// A step that depends on more than its input, once `mood` is not 0: on the record 22, which is the fifth
/// epoch's.
fn moody(mood: &Arc<AtomicI64>, keep_s: u64) -> Flow {
    let mood = mood.clone();
    dataflow("moody", move |flow: Dataflow<'_>| {
        let mood = mood.clone();
        let numbers = Kafka::topic("n").json::<i64>();
        let numbers = flow.source("numbers", numbers.event_time(|n| EventTime(*n)));
        let (minute, keep) = (Tumbling::of(Duration::from_secs(60)), Duration::from_secs(keep_s));
        numbers
            .clone()
            .key_by("parity", |n| n % 2)
            .window("sums", minute)
            .keep(keep)
            .aggregate(|a| a.count())
            .view("sums_view");
        numbers
            .map(move |n| {
                if n == 22 {
                    n + mood.load(Ordering::SeqCst)
                } else {
                    n
                }
            })
            .key_by("number", |n| *n)
            .window("counts", minute)
            .keep(keep)
            .aggregate(|a| a.count())
            .view("counts_view");
    })
}

fn substitute() -> Substitute {
    let records = |partition: usize| {
        let of = (0..EPOCHS * RECORDS_AN_EPOCH).filter(|n| n % 2 == partition);
        of.map(|n| (EventTime(0), Ok(n as i64))).collect()
    };
    let ends = |partition: usize| (1..=EPOCHS).map(|epoch| end(epoch, partition) as usize).collect();
    let memory = Memory::<i64>::new(vec![records(0), records(1)]).segment_ends(vec![ends(0), ends(1)]);
    let opened = Source::<i64>::open(memory, &Environment::default()).expect("memory opens");
    Substitute {
        driver: opened.driver.clone(),
        opened: Some(Box::new(opened)),
    }
}

/// Where an epoch, counted from 1, ends in a partition: even numbers are in the first one.
fn end(epoch: usize, partition: usize) -> i64 {
    (epoch * RECORDS_AN_EPOCH + 1 - partition) as i64 / 2
}

fn script(epochs: std::ops::RangeInclusive<usize>) -> Cuts {
    let id = |partition| PartitionId {
        source: SourceId::of("numbers"),
        partition,
    };
    let epoch = |n: usize| ScriptedEpoch {
        epoch: Epoch(n as u64),
        hi: vec![(id(0), end(n, 0)), (id(1), end(n, 1))],
        idle: vec![],
    };
    Cuts::Script(epochs.map(epoch).collect())
}

fn settings(log: &MemoryLog, workers: usize) -> RunSettings {
    RunSettings {
        workers,
        store: LedgerLocation::Memory(log.clone()),
        cuts: Cuts::Script(Default::default()),
        substitutes: Some(Arc::new(|| HashMap::from([("numbers".to_owned(), substitute())]))),
        ..RunSettings::default()
    }
}

/// How the run's replay compared.
fn run(flow: &Flow, settings: RunSettings) -> Result<ComparisonReport, Error> {
    let service = Service::start(flow, settings)?;
    while !service.is_finished() {
        std::thread::yield_now();
    }
    let compared = service.compared();
    service.stop();
    service.join().map(|_| compared)
}

/// A ledger of a first run.
fn ran(flow: &Flow) -> MemoryLog {
    let log = MemoryLog::default();
    let first = RunSettings {
        cuts: script(1..=EPOCHS),
        epochs_in_flight_max: 1,
        ..settings(&log, 1)
    };
    let compared = run(flow, first).unwrap();
    assert_eq!(compared.alike + compared.different, 0);
    log
}

fn recorded(log: &MemoryLog) -> BTreeMap<Epoch, Vec<u64>> {
    let all = log.bindings().into_iter();
    all.flat_map(|binding| binding.results.map(|results| results.epochs).unwrap_or_default())
        .collect()
}

#[test]
fn what_epochs_came_to_is_recorded_and_a_replay_on_any_number_of_workers_comes_to_it() {
    let flow = moody(&Arc::default(), 3600);
    let log = ran(&flow);
    let all = recorded(&log);
    // The last epochs have no binding behind them.
    assert!(all.len() >= EPOCHS - 3, "{all:?}");
    assert!(
        all.values()
            .all(|hashes| hashes.len() == 3 && hashes[0] != 0 && hashes[2] != 0)
    );
    assert!(
        all.values().all(|hashes| hashes[1] == 0),
        "there are no dead letters"
    );
    for workers in 1..=3 {
        let compared = run(&flow, settings(&log, workers)).unwrap();
        assert_eq!((compared.alike, compared.different), (all.len() as u64, 0));
    }
}

#[test]
fn a_step_that_depends_on_more_than_its_input_is_found_out() {
    let mood = Arc::<AtomicI64>::default();
    let flow = moody(&mood, 3600);
    let log = ran(&flow);
    mood.store(1, Ordering::SeqCst);
    for workers in 1..=2 {
        let error = run(&flow, settings(&log, workers)).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity);
        let text = error.to_string();
        assert!(
            text.contains("epoch 5 ") && text.contains("`counts_view`"),
            "{text}"
        );
        assert!(!text.contains("`sums_view`"), "{text}");
    }
    let warn = RunSettings {
        on_difference: OnDifference::Warn,
        ..settings(&log, 1)
    };
    let compared = run(&flow, warn).unwrap();
    assert_eq!(
        (compared.alike, compared.different),
        (recorded(&log).len() as u64 - 1, 1)
    );
    let ignore = RunSettings {
        on_difference: OnDifference::Ignore,
        ..settings(&log, 1)
    };
    assert_eq!(run(&flow, ignore).unwrap(), ComparisonReport::default());
}

#[test]
fn a_range_is_gone_through_again_and_nothing_is_claimed_or_bound() {
    let mood = Arc::<AtomicI64>::default();
    let flow = moody(&mood, 3600);
    let log = MemoryLog::default();
    let store = CheckpointStore::new(Arc::new(SimDisk::new()), Path::new("/checkpoints"));
    let checkpoints = Checkpoints::new(store.clone(), CheckpointSchedule::At([Epoch(6)].into()));
    let first = RunSettings {
        cuts: script(1..=EPOCHS),
        epochs_in_flight_max: 1,
        checkpoints: Some(checkpoints),
        ..settings(&log, 2)
    };
    run(&flow, first.clone()).unwrap();
    let (bound, kept) = (log.bindings(), store.epochs().unwrap());
    assert_eq!(kept, [Epoch(6)]);
    let replay = |flow: &Flow, from: u64, to: u64, any_build| {
        let settings = RunSettings {
            replay: Some(Replay {
                from: Some(Epoch(from)),
                to: Some(Epoch(to)),
                any_build,
            }),
            ..first.clone()
        };
        let service = Service::start(flow, settings)?;
        let restored = service.restored();
        while !service.is_finished() {
            std::thread::yield_now();
        }
        let compared = service.compared();
        service.join().map(|views| {
            let closed = views.closed().map(|snapshot| snapshot.epoch);
            (restored, closed, compared.alike, compared.unknown)
        })
    };
    assert_eq!(replay(&flow, 2, 4, false).unwrap(), (None, Some(Epoch(4)), 4, 0));
    assert_eq!(
        replay(&flow, 7, 9, false).unwrap(),
        (Some(Epoch(6)), Some(Epoch(9)), 3, 0)
    );
    // Another program is not held against this one's results, unless that is asked for.
    let other = moody(&mood, 7200);
    assert_eq!(replay(&other, 2, 4, false).unwrap(), (None, Some(Epoch(4)), 0, 4));
    assert_eq!(replay(&other, 2, 4, true).unwrap(), (None, Some(Epoch(4)), 4, 0));
    // A difference is told of where it is, and not where state was made before it.
    mood.store(1, Ordering::SeqCst);
    assert!(replay(&flow, 7, 9, false).is_ok());
    let error = replay(&flow, 3, 9, false).unwrap_err().to_string();
    assert!(
        error.contains("epoch 5 ") && error.contains("`counts_view`"),
        "{error}"
    );
    let error = replay(&flow, 3, 99, false).unwrap_err().to_string();
    assert!(
        error.contains("is beyond the end of the ledger") && error.contains("its last epoch is 12"),
        "{error}"
    );
    assert_eq!(log.bindings(), bound);
    assert_eq!(store.epochs().unwrap(), kept);
}
