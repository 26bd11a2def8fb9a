//! Two processes of a cluster, and a replay of what they bound, see the same watermarks and the same changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use thalweg::Epoch;
use thalweg::checkpoint::store::CheckpointStore;
use thalweg::dataflow::Flow;
use thalweg::disk::HostDisk;
use thalweg::ledger::MemoryLog;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{CheckpointSchedule, CheckpointSettings};
use thalweg::runtime::{Cluster, LedgerLocation, RunSettings, Service};
use thalweg::sequencer::{Cuts, ScriptedEpoch};
use thalweg::source::{Environment, Source, Substitute};
use thalweg::testing::memory::Memory;
use thalweg::view::serve::{Filter, FoundRow, Op, OrderBy, RowQuery, RowsQuery, Serve, WindowPick};
use thalweg::view::{AsOf, Snapshot, Views};

use crate::support::free_addresses;

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

/// Runs a flow to its end in so many processes, all of them here; the first keeps the ledger.
fn run_together(
    flow: &Flow,
    log: &MemoryLog,
    processes: usize,
    and: impl Fn(RunSettings) -> RunSettings,
) -> Vec<(Option<Epoch>, Arc<Views>)> {
    let addresses = free_addresses(processes);
    let start = |process| {
        let cluster = (processes > 1).then(|| Cluster::new(process, addresses.clone()));
        let settings = RunSettings {
            cluster,
            ..settings(log)
        };
        Service::start(flow, and(settings)).expect("it starts")
    };
    let started: Vec<_> = (0..processes).map(start).collect();
    // A process that has ended still answers the others.
    let end = |service: Service| {
        let stopper = service.stopper();
        while service.views().closed().is_none_or(|at| at.epoch < Epoch(6)) && !service.halt().is_halted() {
            std::thread::sleep(Duration::from_millis(2));
        }
        stopper.stop();
        let restored = service.restored();
        (restored, service.join().expect("it ends well"))
    };
    started.into_iter().map(end).collect()
}

#[test]
fn any_process_answers_with_the_rows_of_all() {
    let flow = dataflow("cluster", build);
    let log = MemoryLog::default();
    let together = run_together(&flow, &log, 3, |settings| RunSettings {
        cuts: script(),
        ..settings
    });
    let alone = run_together(&flow, &log, 1, |settings| RunSettings {
        until_end: true,
        ..settings
    });
    let alone = &alone[0].1;
    let by = |field: &str, descending| OrderBy {
        field: field.to_owned(),
        descending,
    };
    let orders = [
        vec![],
        vec![by("digit", true)],
        vec![by("value", true)],
        vec![by("value", false), by("window_start", true)],
    ];
    let filter = |field: &str, op, value: &str| Filter {
        field: field.to_owned(),
        op,
        value: value.into(),
    };
    let filters = [
        vec![],
        vec![filter("digit", Op::Ge, "1"), filter("digit", Op::Lt, "6")],
        vec![filter("value", Op::Gt, "1")],
        vec![filter("digit", Op::Eq, "2")],
    ];
    let mut seen = 0;
    for epoch in 1..=6 {
        let read = |views: &Views, query: &RowsQuery| {
            let at = views.snapshot(AsOf::Epoch(Epoch(epoch))).expect("all are kept");
            let view = views.get("counted_view").expect("it was built");
            pages(&*view, query.clone(), &at)
        };
        for (order, filters) in orders
            .iter()
            .flat_map(|order| filters.iter().map(move |f| (order, f)))
        {
            for window in [None, Some(WindowPick::Open), Some(WindowPick::LastClosed)] {
                for limit in [1, 3, 100] {
                    let query = RowsQuery {
                        filters: filters.clone(),
                        order: order.clone(),
                        window,
                        limit,
                        ..RowsQuery::default()
                    };
                    let expected = read(alone, &query);
                    seen += expected.len();
                    for (process, (_, views)) in together.iter().enumerate() {
                        assert_eq!(read(views, &query), expected, "process {process}: {query:?}");
                    }
                }
            }
        }
        for digit in 0..10 {
            let query = RowQuery {
                key: vec![("digit".to_owned(), digit.to_string().into())],
                window: Some(WindowPick::Open),
            };
            let read = |views: &Views| {
                let at = views.snapshot(AsOf::Epoch(Epoch(epoch))).expect("all are kept");
                let view = views.get("counted_view").expect("it was built");
                view.row(&query, &at).expect("the query is right")
            };
            let expected = read(alone);
            assert!(
                together.iter().all(|(_, views)| read(views) == expected),
                "{query:?}"
            );
        }
    }
    assert!(seen > 1_000, "only {seen} rows were compared");
}

/// All rows, page by page.
fn pages(view: &dyn Serve, mut query: RowsQuery, at: &Snapshot) -> Vec<FoundRow> {
    let mut rows = Vec::new();
    loop {
        let page = view.rows(&query, at).expect("the query is right");
        assert!(page.rows.len() <= query.limit);
        rows.extend(page.rows);
        query.cursor = page.next;
        if query.cursor.is_none() {
            return rows;
        }
    }
}

#[test]
fn a_cluster_resumes_from_the_checkpoint_of_another_size() {
    let flow = dataflow("cluster", build);
    for (before, after) in [(1, 3), (3, 1), (2, 3), (3, 2)] {
        let (log, dir) = (MemoryLog::default(), tempfile::tempdir().expect("a directory"));
        let store = CheckpointStore::new(Arc::new(HostDisk), dir.path());
        let saving = |settings: RunSettings| RunSettings {
            checkpoints: Some(CheckpointSettings::new(
                store.clone(),
                CheckpointSchedule::At([Epoch(3)].into()),
            )),
            ..settings
        };
        let first = run_together(&flow, &log, before, |settings| RunSettings {
            cuts: script(),
            ..saving(settings)
        });
        assert_eq!(
            store.epochs().expect("it can be listed"),
            [Epoch(3)],
            "{before} processes"
        );
        let again = run_together(&flow, &log, after, saving);
        let all_rows = |views: &Views| {
            let at = views.snapshot(AsOf::Epoch(Epoch(6))).expect("it is kept");
            pages(
                &*views.get("counted_view").expect("it was built"),
                RowsQuery::default(),
                &at,
            )
        };
        let expected = all_rows(&first[0].1);
        assert!(expected.len() >= 10, "{expected:?}");
        for (restored, views) in &again {
            assert_eq!(*restored, Some(Epoch(3)), "{before} to {after} processes");
            assert_eq!(all_rows(views), expected, "{before} to {after} processes");
        }
    }
}

#[test]
fn all_processes_and_a_replay_see_the_same_watermarks() {
    let flow = dataflow("cluster", build);
    let log = MemoryLog::default();
    let addresses = free_addresses(2);
    let started = [0, 1].map(|process| {
        let cluster = Some(Cluster::new(process, addresses.clone()));
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
