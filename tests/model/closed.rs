//! What an answer says of event time: a row that is `closed` is never revised, whoever has fallen silent.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use thalweg::Epoch;
use thalweg::checkpoint::store::CheckpointStore;
use thalweg::disk::sim::SimDisk;
use thalweg::position::{PartitionId, SourceId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{self, CheckpointSchedule};
use thalweg::runtime::{RunSettings, Service};
use thalweg::schema::datum::Datum;
use thalweg::sequencer::{Cuts, ScriptedEpoch};
use thalweg::testing::Harness;
use thalweg::testing::memory::Memory;
use thalweg::view::serve::RowsQuery;

use super::log::{EPOCHS, Log, config, logs, read, runs, silences, together};

type Item = (u32, i64);

fn counted<'s>(items: &Stream<'s, Item>, name: &str) -> Table<'s, Windowed<u32>, u64> {
    items
        .key_by("key", |item| item.0)
        .window(name, Tumbling::of(Duration::from_micros(10)))
        .keep(Duration::from_micros(20))
        .aggregate(|a| a.count())
}

fn build(flow: Dataflow, late: [Late; 2]) {
    let source = |name: &str, late: Late| {
        let items = Kafka::topic(name)
            .json::<Item>()
            .event_time(|item| EventTime(item.1));
        flow.source(name, items.lateness(Duration::from_micros(3)).late(late))
    };
    let (a, b) = (source("a", late[0]), source("b", late[1]));
    let from_a = counted(&a, "from_a");
    from_a.view("a_view");
    counted(&a.merge(&b), "from_both").view("merged_view");
    // Only windows revise these rows: the other side adds a source, and nothing else.
    let from_b = b
        .changes()
        .group_by("key", |item| item.0)
        .aggregate("all of b", |a| a.count());
    from_a
        .left_join("with b", &from_b, |_, n, _| n)
        .view("joined_view");
}

/// Policies, and for how many microseconds each corrects.
fn policies() -> impl Strategy<Value = [(Late, i64); 2]> {
    let late = prop_oneof![
        Just((Late::DeadLetter, 0)),
        Just((Late::Drop, 0)),
        (1..30i64).prop_map(|us| (Late::Correct(Duration::from_micros(us as u64)), us)),
    ];
    [late.clone(), late]
}

fn items() -> impl Strategy<Value = Log<Item>> {
    let time = prop_oneof![2 => -5i64..5, 1 => -40i64..20];
    logs(time, |epoch, time| (0, 50 + 10 * epoch as i64 + time))
}

/// A row without its version, and whether it is closed.
type Found = BTreeMap<String, bool>;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_closed_is_never_revised(
        a in items(),
        b in items(),
        silences in silences(),
        [(late_a, for_a), (late_b, for_b)] in policies(),
        [run, ..] in runs(),
    ) {
        let [quiet, silent] = silences;
        let (a, b) = (a.silent(quiet), b.silent(silent));
        let (of_a, of_b) = (read(&a, 3, |item| item.1), read(&b, 3, |item| item.1));
        let both = together(&[&of_a, &of_b]);
        let lower: Vec<i64> = std::iter::zip(&both, &of_a.watermarks).map(|(e, w)| *e.min(w)).collect();
        let mut test = Harness::of(dataflow("closed", move |flow| build(flow, [late_a, late_b])));
        test.workers(run.workers).batch_max(run.batch_max);
        let epochs: Vec<Epoch> = (0..EPOCHS).map(|n| {
            a.feed(&mut test, "a", n);
            b.feed(&mut test, "b", n);
            test.epoch()
        }).collect();
        let done = test.run().map_err(|error| TestCaseError::fail(error.to_string()))?;
        let views = [
            ("a_view", &of_a.watermarks, for_a),
            ("merged_view", &both, for_a.max(for_b)),
            ("joined_view", &lower, for_a),
        ];
        for (name, watermarks, corrected) in views {
            let watermarks: Vec<i64> = watermarks.iter().map(|w| w.saturating_sub(corrected)).collect();
            let view = done.views().get(name).unwrap();
            let mut answers: Vec<Found> = Vec::new();
            for (n, epoch) in epochs.iter().enumerate() {
                let snapshot = done.snapshot(*epoch).unwrap();
                prop_assert_eq!(view.watermark(&snapshot).micros(), watermarks[n], "{} at {}", name, n);
                let page = view.rows(&RowsQuery { limit: 1_000, ..RowsQuery::default() }, &snapshot).unwrap();
                for row in &page.rows {
                    let Datum::Time(end) = row.row[2] else { panic!("a window ends with a time: {row:?}") };
                    prop_assert_eq!(row.closed, Some(end.micros() <= watermarks[n]));
                }
                let found = page.rows.iter().map(|row| (format!("{:?}", row.row), row.closed == Some(true)));
                answers.push(found.collect());
            }
            for (n, answer) in answers.iter().enumerate() {
                for (row, _) in answer.iter().filter(|(_, closed)| **closed) {
                    // The key and the window: the text up to the count.
                    let key = &row[..row.rfind(',').unwrap()];
                    for (m, later) in answers.iter().enumerate().skip(n) {
                        let revised = later.keys().find(|other| other.starts_with(key) && *other != row);
                        prop_assert_eq!(revised, None, "{}: {} was closed at {}, revised at {}", name, row, n, m);
                    }
                }
            }
        }
    }
}

#[test]
fn a_silent_source_holds_up_neither_windows_nor_answers() {
    let mut test = Harness::of(dataflow("silent", |flow| build(flow, [Late::DeadLetter; 2])));
    test.feed("a", 0, [(1u32, 5i64)]).feed::<Item>("b", 0, []);
    let waiting = test.epoch();
    test.idle_source("b").feed("a", 0, [(1u32, 30i64)]);
    let silent = test.epoch();
    test.feed("b", 0, [(1u32, 6i64), (1, 31)]);
    let back = test.epoch();
    let run = test.run().unwrap();
    let watermark = |epoch| {
        let view = run.views().get("merged_view").unwrap();
        view.watermark(&run.snapshot(epoch).unwrap()).micros()
    };
    assert_eq!(
        (watermark(waiting), watermark(silent), watermark(back)),
        (i64::MIN, 27, 27)
    );
    // Its old event is late for what was closed meanwhile; the new one counts.
    let rows = |epoch| run.json("merged_view", epoch).unwrap();
    let counts = |epoch| {
        rows(epoch)
            .iter()
            .map(|row| row[row.find("value").unwrap()..].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(silent), ["value\":1}", "value\":1}"]);
    assert_eq!(counts(back), ["value\":1}", "value\":2}"]);
    assert_eq!(run.json("b.dead_letters", back).unwrap().len(), 1);
}

/// E can't be told from where sources stand: once bindings went with a trimmed ledger, only the checkpoint
/// knows it.
#[test]
fn a_checkpoint_holds_what_was_over() {
    fn source<'s>(flow: Dataflow<'s>, name: &str, times: &[i64], ends: &[usize]) -> Stream<'s, Item> {
        let records = times.iter().map(|at| (EventTime(0), Ok((1, *at)))).collect();
        let items = Memory::<Item>::new(vec![records]).segment_ends(vec![ends.to_vec()]);
        let items = items.event_time(|item| EventTime(item.1));
        flow.source(name, items.lateness(Duration::ZERO))
    }
    let flow = dataflow("over", |flow: Dataflow| {
        let a = source(flow, "a", &[10, 20, 30, 40, 50, 60], &[1, 2, 3, 4, 5, 6]);
        let b = source(flow, "b", &[11, 21, 25], &[1, 2, 3]);
        counted(&a.merge(&b), "both").view("both_view");
    });
    // The second is silent from the third epoch on, and back with the sixth.
    let epoch = |n: u64| ScriptedEpoch {
        epoch: Epoch(n),
        hi: vec![
            (partition("a"), n as i64),
            (partition("b"), if n < 6 { n.min(2) } else { 3 } as i64),
        ],
        idle: if n == 3 { vec![partition("b")] } else { vec![] },
    };
    let store = CheckpointStore::new(Arc::new(SimDisk::new()), Path::new("/checkpoints"));
    let settings = RunSettings {
        cuts: Cuts::Script((1..=6).map(epoch).collect()),
        checkpoints: Some(checkpoints::CheckpointSettings::new(
            store.clone(),
            CheckpointSchedule::At([Epoch(6)].into()),
        )),
        ..RunSettings::default()
    };
    Service::start(&flow, settings).unwrap().join().unwrap();
    let base = store.manifest(Epoch(6)).unwrap().at;
    let set = ["a", "b"].map(SourceId::of);
    let over: Vec<EventTime> = base
        .sets
        .iter()
        .filter(|(of, _)| of.iter().all(|id| set.contains(id)))
        .map(|(_, at)| *at)
        .collect();
    assert_eq!(over, [EventTime(50)], "{base:?}");
}

fn partition(source: &str) -> PartitionId {
    PartitionId {
        source: SourceId::of(source),
        partition: 0,
    }
}
