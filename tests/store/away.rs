//! A server that dies while a service writes to it: the service goes on, says so, and saves everything once
//! it is back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use thalweg::checkpoint::store::CheckpointStore;
use thalweg::prelude::{Dataflow, Files, dataflow};
use thalweg::runtime::checkpoints::{self, CheckpointSchedule};
use thalweg::runtime::{self, RunSettings, Service};
use thalweg::schema::Numbers;
use thalweg::view::serve::RowsQuery;

use crate::support::s3::Bucket;

const PATIENCE: Duration = Duration::from_secs(120);
const KEYS: u64 = 50;

fn start(dir: &Path, bucket: &Bucket, workers: usize) -> thalweg::Result<Service> {
    let pattern = dir.join("*.jsonl");
    let flow = dataflow("newest", move |flow: Dataflow| {
        let lines = Files::lines(&pattern).json::<(u64, u64)>();
        let lines = lines.keyed(|(key, value)| (key, Some(value)));
        flow.table("lines", lines).view("newest");
    });
    let ledger = dir.join("ledger");
    std::fs::create_dir_all(&ledger).unwrap();
    let store = CheckpointStore::new(bucket.files(dir), Path::new("s3://thalweg/away/newest"));
    let settings = RunSettings {
        workers,
        store: runtime::LedgerLocation::Directory(ledger),
        checkpoints: Some(checkpoints::CheckpointSettings::new(
            store,
            CheckpointSchedule::Every(Duration::from_millis(50)),
        )),
        ..RunSettings::default()
    };
    Service::start(&flow, settings)
}

/// Changes every key.
fn write(dir: &Path, round: u64) -> BTreeMap<u64, u64> {
    let options = File::options().create(true).append(true).clone();
    let mut file = options.open(dir.join("in.jsonl")).unwrap();
    for key in 0..KEYS {
        writeln!(file, "[{key},{}]", round * 1000 + key).unwrap();
    }
    (0..KEYS).map(|key| (key, round * 1000 + key)).collect()
}

fn rows(service: &Service) -> BTreeMap<u64, u64> {
    let (Some(snapshot), Some(view)) = (service.views().closed(), service.views().get("newest")) else {
        return BTreeMap::new();
    };
    let query = RowsQuery {
        limit: 1000,
        ..RowsQuery::default()
    };
    let Ok(page) = view.rows(&query, &snapshot) else {
        return BTreeMap::new();
    };
    let numbers = |row: &thalweg::view::serve::FoundRow| {
        let mut json = Vec::new();
        view.schema().write_row(&row.row, Numbers::default(), &mut json);
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json).unwrap();
        let numbers: Vec<u64> = row.values().filter_map(serde_json::Value::as_u64).collect();
        (numbers[0], numbers[1])
    };
    page.rows.iter().map(numbers).collect()
}

fn eventually(what: &str, service: &Service, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        let state = || {
            format!(
                "{:?} {:?} {:?}",
                service.checkpointed(),
                service.checkpoint_trouble(),
                rows(service)
            )
        };
        assert!(Instant::now() < deadline, "{what}: {}", state());
        assert!(
            !service.halt().is_halted(),
            "{what}: {:?}",
            service.halt().error()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_that_dies_costs_the_checkpoints_and_nothing_else() {
    let (bucket, dir) = (Bucket::start(), tempfile::tempdir().unwrap());
    let first = write(dir.path(), 1);
    let service = start(dir.path(), &bucket, 2).unwrap();
    eventually("the first rows", &service, || rows(&service) == first);
    // One is made of what comes in after the interval.
    eventually("a checkpoint", &service, || {
        write(dir.path(), 1);
        service.checkpointed().is_some()
    });

    // It dies wherever the writer is by then: there are checkpoints all the time.
    bucket.kill9();
    let saved = service.checkpointed();
    let mut round = 1;
    eventually("trouble", &service, || {
        round += 1;
        let written = write(dir.path(), round);
        eventually("rows while the server is away", &service, || {
            rows(&service) == written
        });
        service.checkpoint_trouble().is_some()
    });
    let trouble = service.checkpoint_trouble().unwrap();
    assert!(
        trouble.contains("does not answer") && trouble.contains("checkpoint.endpoint"),
        "{trouble}"
    );
    assert!(
        !service
            .metrics()
            .text()
            .contains("thalweg_checkpoints_failed_total 0")
    );
    assert!(service.troubles().is_empty(), "answers are as good as ever");

    bucket.restart();
    let last = write(dir.path(), 1000);
    let missed = service.checkpointed();
    eventually("the last rows", &service, || rows(&service) == last);
    let closed = service.views().closed().unwrap().epoch;
    assert!(missed >= saved);
    eventually("the next checkpoint", &service, || {
        // Something has to change, as there is none of nothing.
        write(dir.path(), 1000);
        std::thread::sleep(Duration::from_millis(100));
        service.checkpointed() > Some(closed)
    });
    assert_eq!(service.checkpoint_trouble(), None);
    service.stop();
    service.join().unwrap();

    let restored = start(dir.path(), &bucket, 3).unwrap();
    assert!(restored.restored() > Some(closed));
    eventually("the rows of the checkpoint", &restored, || {
        rows(&restored) == last
    });
    restored.stop();
    restored.join().unwrap();
}

#[test]
fn a_server_that_is_away_at_the_start_is_told_of() {
    let (bucket, dir) = (Bucket::start(), tempfile::tempdir().unwrap());
    bucket.kill9();
    write(dir.path(), 1);
    let refused = start(dir.path(), &bucket, 1).err().unwrap();
    assert_eq!(refused.kind(), thalweg::Kind::External);
    let text = refused.to_string();
    assert!(
        text.contains("does not answer") && text.contains("hint: is the store running"),
        "{text}"
    );
}
