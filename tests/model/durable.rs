//! Nothing is seen of an epoch before its binding is durable, though its records flow.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use thalweg::disk::sim::SimDisk;
use thalweg::ledger::{Chain, Ledger, LedgerStore, MemoryLedger, MemoryLog, ShardProgress, verify_on};
use thalweg::position::EpochBinding;
use thalweg::prelude::*;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::sequencer::Cuts;
use thalweg::source::{Environment, Source, Substitute};
use thalweg::testing::memory::Memory;

/// Holds up writes until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut open = self.open.lock();
        while !*open {
            self.opened.wait(&mut open);
        }
    }

    fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }
}

/// A ledger in memory whose writes wait at the gate.
struct Gated {
    ledger: MemoryLedger,
    gate: Arc<Gate>,
}

impl LedgerStore for Gated {
    fn append_group(&mut self, bindings: &[EpochBinding], progress: &[ShardProgress]) -> Result<()> {
        self.gate.pass();
        self.ledger.append_group(bindings, progress)
    }
    fn len_bytes(&self) -> u64 {
        self.ledger.len_bytes()
    }
    fn generation(&self) -> u64 {
        self.ledger.generation()
    }
    fn chain_hash(&self) -> Chain {
        self.ledger.chain_hash()
    }
}

const RECORDS: u32 = 400;

fn settings(log: &MemoryLog, gate: &Arc<Gate>, workers: usize) -> RunSettings {
    let (log, gate) = (log.clone(), gate.clone());
    let mut settings = RunSettings {
        workers,
        store: LedgerLocation::Opened(Arc::new(move |claim| {
            let (ledger, recovered) = MemoryLedger::open(&log, claim)?;
            Ok((
                Box::new(Gated {
                    ledger,
                    gate: gate.clone(),
                }),
                recovered,
            ))
        })),
        // Epoch follows epoch, and none of them waits for another to be finished.
        cuts: Cuts::Clock {
            interval: Duration::ZERO,
        },
        epochs_in_flight_max: usize::MAX,
        until_end: true,
        substitutes: Some(Arc::new(|| {
            let records = (0..RECORDS).map(|n| (EventTime(1), Ok(n))).collect();
            let memory = Memory::new(vec![records, Vec::new(), Vec::new()]);
            let opened = Source::<u32>::open(memory, &Environment::default()).expect("memory opens");
            let substitute = Substitute {
                driver: opened.driver.clone(),
                opened: Some(Box::new(opened)),
            };
            HashMap::from([("numbers".to_owned(), substitute)])
        })),
        ..RunSettings::default()
    };
    // No epoch can hold more records than may wait, so there are fifty at least.
    (settings.bounds.batch_max, settings.bounds.records_max) = (1, 8);
    settings
}

/// Counts all numbers; tells of each as it passes.
fn counted(seen: Sender<u32>) -> thalweg::Flow {
    dataflow("counted", move |flow: Dataflow| {
        let seen = seen.clone();
        let numbers = flow.source("numbers", Kafka::topic("n").json::<u32>());
        let numbers = numbers.map(move |n| {
            let _nobody_listens_any_more = seen.send(n);
            n
        });
        numbers
            .changes()
            .group_by("all", |_| 0u32)
            .aggregate("count", |a| a.count())
            .view("count_view");
    })
}

/// Waits until the last record has passed the first step. The time-out only ends a test that has failed.
fn wait_for_the_last(seen: &Receiver<u32>) {
    while seen
        .recv_timeout(Duration::from_secs(60))
        .expect("the records flow")
        != RECORDS - 1
    {}
}

#[test]
fn no_epoch_is_closed_before_its_binding_is_durable() {
    for workers in 1..=2 {
        let (gate, log) = (Arc::new(Gate::default()), MemoryLog::default());
        let (sender, seen) = channel();
        let service = Service::start(&counted(sender), settings(&log, &gate, workers)).unwrap();
        wait_for_the_last(&seen);
        let closed = service.views().closed().map(|snapshot| snapshot.epoch);
        gate.open();
        let views = service.join().unwrap();
        assert_eq!(closed, None, "closed while no write had returned");
        let snapshot = views.closed().expect("all is closed in the end");
        let rows = views
            .get("count_view")
            .unwrap()
            .rows(&Default::default(), &snapshot)
            .unwrap()
            .rows;
        assert_eq!(rows.len(), 1);
        assert_eq!(
            snapshot.positions.iter().map(|(_, offset)| *offset).sum::<i64>(),
            i64::from(RECORDS)
        );
        // Were an epoch let go early, those after it would have given it the time to be closed in.
        let epochs = log.bindings().len();
        assert!(epochs >= 50, "{epochs} epochs");
    }
}

#[test]
fn an_epoch_whose_write_fails_is_never_seen() {
    /// A disk that is full.
    struct Full(MemoryLedger);
    impl LedgerStore for Full {
        fn append_group(&mut self, _: &[EpochBinding], _: &[ShardProgress]) -> Result<()> {
            Err(Error::external("the disk is full"))
        }
        fn len_bytes(&self) -> u64 {
            0
        }
        fn generation(&self) -> u64 {
            self.0.generation()
        }
        fn chain_hash(&self) -> Chain {
            self.0.chain_hash()
        }
    }
    let (sender, _seen) = channel();
    let log = MemoryLog::default();
    let given = log.clone();
    let settings = RunSettings {
        store: LedgerLocation::Opened(Arc::new(move |claim| {
            let (ledger, recovered) = MemoryLedger::open(&given, claim)?;
            Ok((Box::new(Full(ledger)), recovered))
        })),
        ..settings(&log, &Arc::default(), 2)
    };
    let service = Service::start(&counted(sender), settings).unwrap();
    let views = service.views().clone();
    let error = service.join().err().expect("the service halts");
    assert_eq!(error.what(), "the disk is full");
    assert!(views.closed().is_none());
}

/// A disk that fills up in the midst of it: the ledger itself, on a simulated one.
#[test]
fn a_full_disk_is_told_and_with_room_it_goes_on() {
    let disk = SimDisk::new();
    let dir = Path::new("/data/counted");
    let (sender, _seen) = channel();
    let flow = counted(sender);
    let on = disk.clone();
    let settings = RunSettings {
        store: LedgerLocation::Opened(Arc::new(move |claim| {
            let (ledger, recovered) = Ledger::open_on(&on, dir, claim)?;
            Ok((Box::new(ledger), recovered))
        })),
        ..settings(&MemoryLog::default(), &Arc::default(), 2)
    };
    // Enough for the claim, and for some of the epochs.
    disk.set_space_left(Some(3_000));
    let service = Service::start(&flow, settings.clone()).unwrap();
    let views = service.views().clone();
    let error = service.join().err().expect("the service halts");
    assert_eq!(error.kind(), thalweg::Kind::External);
    let told = error.to_string();
    for part in [
        "cannot write to the ledger `/data/counted/ledger.log`",
        "no storage space",
        "free space on its file system and restart",
    ] {
        assert!(told.contains(part), "no `{part}` in {told}");
    }
    let durable = verify_on(&disk, dir).unwrap().last;
    let closed = views.closed().map(|snapshot| snapshot.epoch);
    assert!(closed <= durable, "{closed:?} was closed, {durable:?} is durable");

    disk.set_space_left(None);
    let views = Service::start(&flow, settings).unwrap().join().unwrap();
    let snapshot = views.closed().unwrap();
    let counted = snapshot.positions.iter().map(|(_, offset)| *offset).sum::<i64>();
    assert_eq!(counted, i64::from(RECORDS));
}
