//! Two processes of a cluster, and a replay of what they bound, see the same watermarks and the same changes.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::Arc;

use thalweg::Epoch;
use thalweg::ledger::MemoryLog;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::{Cluster, LedgerLocation, RunSettings, Service};
use thalweg::sequencer::{Cuts, ScriptedEpoch};
use thalweg::source::{Environment, Source, Substitute};
use thalweg::testing::memory::Memory;
use thalweg::view::{AsOf, Views};

/// Event times of each source, by partition and then by epoch. `b` has nothing after its second epoch, up to
/// the fifth.
type Times = [[&'static [i64]; 6]; 2];
const A: Times = [
    [&[10, 11], &[20], &[30, 25], &[44], &[52], &[61]],
    [&[12], &[19], &[31], &[42, 41], &[50], &[60, 66]],
];
const B: Times = [
    [&[11], &[15], &[], &[], &[12, 38, 55], &[63]],
    [&[9, 13], &[16], &[], &[], &[], &[]],
];
/// The least event time of the newest of both partitions of each, less the lateness of one, as of every
/// epoch.
const TOGETHER: [i64; 6] = [10, 14, 29, 41, 49, 60];

fn build(flow: Dataflow) {
    let source = |name: &str| {
        let times = Kafka::topic(name).json::<i64>().event_time(|at| EventTime(*at));
        flow.source(name, times.lateness(Duration::from_micros(1)))
    };
    source("a")
        .merge(&source("b"))
        .key_by("digit", |at| at % 10)
        .window("counted", Tumbling::of(Duration::from_micros(10)))
        .keep(Duration::from_micros(15))
        .aggregate(|a| a.count())
        .view("counted_view");
}

fn substitute(times: &Times) -> Substitute {
    let records = |epochs: &[&[i64]; 6]| {
        let all = epochs.iter().flat_map(|times| times.iter());
        all.map(|at| (EventTime(0), Ok(*at))).collect()
    };
    let memory = Memory::<i64>::new(times.iter().map(records).collect());
    let ends = times.iter().map(|epochs| ends(epochs).collect()).collect();
    let opened =
        Source::<i64>::open(memory.segment_ends(ends), &Environment::default()).expect("memory opens");
    Substitute {
        driver: opened.driver.clone(),
        opened: Some(Box::new(opened)),
    }
}

/// Where each epoch ends in a partition.
fn ends(epochs: &[&[i64]; 6]) -> impl Iterator<Item = usize> {
    epochs.iter().scan(0, |end, times| {
        *end += times.len();
        Some(*end)
    })
}

fn script() -> Cuts {
    let epoch = |n: usize| {
        let mut hi = Vec::new();
        for (name, times) in [("a", &A), ("b", &B)] {
            let source = SourceId::of(name);
            for (partition, epochs) in (0u32..).zip(times) {
                let end = ends(epochs).nth(n).expect("six epochs") as i64;
                hi.push((PartitionId { source, partition }, end));
            }
        }
        let source = SourceId::of("b");
        let idle = if n == 2 { 0..2 } else { 0..0 };
        ScriptedEpoch {
            epoch: Epoch(n as u64 + 1),
            hi,
            idle: idle.map(|partition| PartitionId { source, partition }).collect(),
        }
    };
    Cuts::Script((0..6).map(epoch).collect())
}

fn settings(log: &MemoryLog) -> RunSettings {
    RunSettings {
        store: LedgerLocation::Memory(log.clone()),
        substitutes: Some(Arc::new(|| {
            HashMap::from([("a".to_owned(), substitute(&A)), ("b".to_owned(), substitute(&B))])
        })),
        ..RunSettings::default()
    }
}

/// As of every epoch the view's watermark, and the hash of its changes in it.
fn seen(views: &Views) -> Vec<(i64, u64)> {
    let view = views.get("counted_view").expect("it was built");
    let at = |n| {
        let snapshot = views.snapshot(AsOf::Epoch(Epoch(n))).expect("all are kept");
        assert_eq!(snapshot.epoch, Epoch(n));
        (
            view.watermark(&snapshot).micros(),
            view.hash(Epoch(n)).expect("hashed"),
        )
    };
    (1..=6).map(at).collect()
}

#[test]
fn all_processes_and_a_replay_see_the_same_watermarks() {
    let flow = dataflow("cluster", build);
    let log = MemoryLog::default();
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    let addresses = listeners
        .iter()
        .map(|l| l.local_addr().expect("bound").to_string());
    let addresses: Vec<String> = addresses.collect();
    drop(listeners);
    let started = [0, 1].map(|process| {
        let cluster = Some(Cluster {
            process,
            addresses: addresses.clone(),
        });
        let settings = RunSettings {
            cluster,
            cuts: script(),
            ..settings(&log)
        };
        Service::start(&flow, settings).expect("it starts")
    });
    let [first, second] = started.map(|service| seen(&service.join().expect("it ends well")));
    let watermarks = |seen: &[(i64, u64)]| seen.iter().map(|(watermark, _)| *watermark).collect::<Vec<_>>();
    assert_eq!(watermarks(&first), TOGETHER);
    assert_eq!(watermarks(&second), TOGETHER);
    let marks = log.bindings().into_iter().map(|b| (b.epoch.0, b.idle));
    let marks: BTreeMap<_, _> = marks.filter(|(_, idle)| !idle.is_empty()).collect();
    let b = SourceId::of("b");
    assert_eq!(
        marks,
        BTreeMap::from([(3, vec![(b, true)]), (5, vec![(b, false)])])
    );

    // A restart, on another number of workers: what it knows of silence it knows from the ledger.
    for workers in [1, 3] {
        let again = RunSettings {
            workers,
            until_end: true,
            ..settings(&log)
        };
        let service = Service::start(&flow, again).expect("it starts");
        let replayed = seen(&service.join().expect("it ends well"));
        let together = std::iter::zip(&first, &second).map(|(one, two)| (one.0, one.1.wrapping_add(two.1)));
        assert_eq!(replayed, together.collect::<Vec<_>>(), "on {workers} workers");
    }
}
