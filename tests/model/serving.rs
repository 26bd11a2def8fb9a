//! What clients see of a process that starts, is killed and starts again: no view that is unknown for a
//! moment, no answer older than the one before, and no readiness before there is something to be ready with.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use thalweg::checkpoint::store::CheckpointStore as Checkpoints;
use thalweg::disk::HostDisk;
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{self, CheckpointSchedule};
use thalweg::runtime::progress::CaughtUp;
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::{Epoch, Flow};

use crate::support::thalweg::Thalweg;

const ASKED: &str = "THALWEG_TEST_SERVING";
const KEYS: u64 = 1_000;
const LINES: u64 = 150_000;
/// Recoveries of which one is to be looked at.
const TRIES: usize = 10;

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    key: u64,
    at: i64,
}

/// Counts the lines of a folder's files in windows of an hour.
fn flow(dir: &Path) -> Flow {
    let pattern = dir.join("*.jsonl");
    dataflow("counts", move |flow: Dataflow| {
        let lines = Files::lines(&pattern).json::<Line>();
        flow.source("lines", lines.event_time(|line| EventTime::from_millis(line.at)))
            .key_by("key", |line| line.key)
            .window("hour", Tumbling::of(Duration::from_secs(3600)))
            .aggregate(|a| a.count())
            .view_with("counts", |view| view.fields(["n"]));
    })
}

fn write(dir: &Path, name: &str, lines: std::ops::Range<u64>) {
    let mut options = std::fs::File::options();
    let file = options.create(true).append(true).open(dir.join(name)).unwrap();
    let mut file = std::io::BufWriter::new(file);
    lines.for_each(|n| writeln!(file, "{{\"key\":{},\"at\":{n}}}", n % KEYS).unwrap());
}

/// Not a test by itself: the process that [`start`] starts.
#[test]
fn process() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let asked: Vec<String> = serde_json::from_str(&asked).expect("the parent says what to run");
    let flow = flow(Path::new("."));
    let code = thalweg::cli::main_from(asked.into_iter().map(Into::into), [flow]);
    std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 1 });
}

/// A service on the files of `dir`, whose ledger is there too and which replays all of it at each start.
fn start(dir: &Path, more: &[&str]) -> Thalweg {
    let own = ["thalweg", "run", "--set", "checkpoint.interval=0s"];
    let asked = [&own[..], &Thalweg::ARGUMENTS, more].concat();
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    let this = [
        "--exact",
        "model::serving::process",
        "--nocapture",
        "--test-threads=1",
    ];
    command.args(this).current_dir(dir).stdin(Stdio::null());
    command.env(ASKED, serde_json::to_string(&asked).expect("words are plain"));
    let mut service = Thalweg::spawn_command(command);
    service.serves();
    service
}

/// How many lines an answer with all rows counts.
fn counted(body: &Value) -> u64 {
    let rows = body["rows"].as_array().unwrap();
    rows.iter().map(|row| row["n"].as_u64().unwrap()).sum()
}

const ALL: &str = "/v1/views/counts/rows?limit=10000";

/// Asks for the newest epoch until the service is ready: the epochs that were answered, and the refusals.
fn watched(service: &Thalweg) -> (Vec<u64>, Vec<Value>) {
    let (mut epochs, mut refusals) = (Vec::new(), Vec::new());
    loop {
        let ready = service.ask("/health/ready").0 == 200;
        let (status, body) = service.ask(ALL);
        match status {
            200 => epochs.push(body["epoch"].as_u64().unwrap()),
            503 => {
                assert_eq!(body["type"], "/problems/not-yet", "{body}");
                refusals.push(body);
            }
            _ => panic!("{status} {body}"),
        }
        if ready {
            assert_eq!(status, 200, "what is ready answers");
            return (epochs, refusals);
        }
    }
}

#[test]
fn answers_do_not_go_back_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "a.jsonl", 0..LINES);

    // At first answers may come at once: there was none before them. Readiness waits for what is there.
    let service = start(dir, &[]);
    let mut left = Vec::new();
    loop {
        let (status, body) = service.ask("/health/ready");
        let answer = service.ask(ALL);
        if status == 200 {
            assert_eq!(counted(&answer.1), LINES, "ready, and not all is counted");
            break;
        }
        left.extend(body["records_left"]["lines"].as_u64());
        assert!([200, 503].contains(&answer.0), "{answer:?}");
    }
    assert!(
        left.iter().any(|left| *left > 0),
        "it never said how much is left: {left:?}"
    );
    assert!(left.is_sorted_by(|a, b| a >= b), "{left:?}");
    // It stays ready, whatever comes.
    write(dir, "a.jsonl", LINES..2 * LINES);
    let mut first = service.get(ALL);
    while counted(&first) < 2 * LINES {
        assert_eq!(service.ask("/health/ready").0, 200);
        first = service.get(ALL);
    }
    let seen = first["epoch"].as_u64().unwrap();
    service.end(libc::SIGKILL);

    // How long a recovery takes depends on the machine: one that was over before it was looked at shows
    // nothing.
    let caught = (0..TRIES).find_map(|_| {
        let service = start(dir, &[]);
        let (epochs, refusals) = watched(&service);
        assert!(
            epochs.iter().all(|epoch| *epoch >= seen),
            "{seen}, and then {epochs:?}"
        );
        let of_recovery = refusals.into_iter().filter(|body| !body["last_bound"].is_null());
        let recovering: Vec<_> = of_recovery.collect();
        match recovering.is_empty() {
            true => {
                service.end(libc::SIGKILL);
                None
            }
            false => Some((service, recovering)),
        }
    });
    let (service, recovering) = caught.expect("a recovery is looked at before it is over");
    for body in &recovering {
        assert!(body["last_bound"].as_u64() >= Some(seen), "{body}");
        assert!(body["records_left"]["lines"].as_u64().is_some(), "{body}");
    }
    assert_eq!(service.get(&format!("{ALL}&as_of={seen}")), first);
    service.end(libc::SIGKILL);

    // Where stale answers are wanted, they are given.
    let stale = (0..TRIES).any(|_| {
        let service = start(dir, &["--set", "http.stale_reads=true"]);
        // Before its first epoch it has nothing to give.
        let (epochs, _) = watched(&service);
        assert!(epochs.is_sorted());
        let (status, log) = service.end(libc::SIGTERM);
        assert!(status.success(), "{log}");
        epochs.iter().any(|epoch| *epoch < seen)
    });
    assert!(stale, "no answer was stale");
}

#[test]
fn a_run_until_the_end_serves_on_where_that_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "a.jsonl", 0..5_000);
    for _ in 0..2 {
        let service = start(dir, &["--until-end", "--serve"]);
        service.line("caught up with everything present at the start");
        service.line("reading has ended; serving until stopped");
        service.ready();
        write(dir, "b.jsonl", 0..1);
        let body = service.get(ALL);
        let before = counted(&body);
        assert!(before >= 5_000, "{before}");
        service.get(&format!("{ALL}&as_of={}", body["epoch"]));
        assert_eq!(service.get("/v1/sources")["epoch"], body["epoch"]);
        assert!(
            service
                .page("/metrics")
                .contains("thalweg_view_rows{view=\"counts\"} 1000")
        );
        let (status, log) = service.end(libc::SIGTERM);
        assert!(
            status.success() && log.contains("stopping") && log.contains("SIGTERM"),
            "{log}"
        );
    }
    // What can't be counted ends it, served or not.
    write(dir, "c.jsonl", 0..1);
    std::fs::rename(dir.join("c.jsonl"), dir.join("0.jsonl")).unwrap();
    let (status, log) = start(dir, &["--until-end", "--serve"]).ended();
    assert_eq!(status.code(), Some(1), "{log}");
}

fn settings(data: &Path, due: CheckpointSchedule) -> RunSettings {
    let store = Checkpoints::new(Arc::new(HostDisk), &data.join("checkpoints"));
    RunSettings {
        store: LedgerLocation::Directory(data.to_owned()),
        checkpoints: Some(checkpoints::CheckpointSettings::new(store, due)),
        ..RunSettings::default()
    }
}

fn until(what: &str, service: &Service, mut holds: impl FnMut() -> bool) {
    let deadline = thalweg::clock::instant() + Duration::from_secs(60);
    while !holds() {
        let error = service.halt().error();
        let closed = service.views().closed().map(|snapshot| snapshot.epoch);
        assert!(
            error.is_none() && thalweg::clock::instant() < deadline,
            "{what}: {error:?}, {closed:?} is closed"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The samples of some gauges.
fn gauges(service: &Service) -> BTreeMap<String, String> {
    let text = service.metrics().text();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let named = lines.filter(|(name, _)| {
        [
            "thalweg_view_rows",
            "thalweg_view_changes",
            "thalweg_source_watermark",
            "thalweg_source_idle",
        ]
        .iter()
        .any(|known| name.starts_with(known))
    });
    named
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn gauges_are_right_at_rest_and_after_a_restart() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, data) = (dir.path(), data.path());
    write(dir, "a.jsonl", 0..KEYS);
    let service = Service::start(
        &flow(dir),
        settings(data, CheckpointSchedule::Every(Duration::from_millis(5))),
    )
    .unwrap();
    let all = || service.catching_up(CaughtUp::ToFirstEnds).is_none();
    until("a burst", &service, all);
    // No other epoch comes: what is shown now is what would be shown for hours.
    let first = gauges(&service);
    assert_eq!(first["thalweg_view_rows{view=\"counts\"}"], "1000");
    assert_eq!(first["thalweg_view_changes_total{view=\"counts\"}"], "1000");
    let watermark = "thalweg_source_watermark_timestamp_seconds{source=\"lines\",partition=\"0\"}";
    assert_eq!(first[watermark], "0.999");
    let closed = service.views().closed().map(|snapshot| snapshot.epoch);
    until("a checkpoint", &service, || {
        // One is made as something is bound.
        if service.checkpointed() < closed {
            write(dir, "a.jsonl", 0..1);
        }
        service.checkpointed() >= closed
    });
    service.stop();
    service.join().unwrap();

    let again = Service::start(&flow(dir), settings(data, CheckpointSchedule::At([].into()))).unwrap();
    assert!(
        again
            .restored()
            .is_some_and(|epoch| Some(epoch) >= closed && epoch > Epoch::ZERO)
    );
    let all = || again.catching_up(CaughtUp::ToFirstEnds).is_none();
    until("the restart", &again, all);
    let second = gauges(&again);
    for same in ["thalweg_view_rows{view=\"counts\"}", watermark] {
        assert_eq!(first[same], second[same], "{same}");
    }
    again.stop();
    again.join().unwrap();
}

/// A lag that is allowed makes a start ready sooner, but not before what was bound is there.
#[test]
fn a_service_may_be_ready_with_some_records_left() {
    let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, data) = (dir.path(), data.path());
    write(dir, "a.jsonl", 0..LINES);
    let at_once = CaughtUp::ToLag(u64::MAX);
    let begin = || Service::start(&flow(dir), settings(data, CheckpointSchedule::At([].into()))).unwrap();
    let service = begin();
    until("a lag of any size", &service, || {
        service.catching_up(at_once).is_none()
    });
    // From then on for good, whatever is asked for.
    assert_eq!(service.catching_up(CaughtUp::ToFirstEnds), None);
    let size = std::fs::metadata(dir.join("a.jsonl")).unwrap().len();
    until("the end", &service, || {
        let snapshot = service.views().closed();
        snapshot.is_some_and(|snapshot| {
            snapshot
                .positions
                .iter()
                .any(|(_, position)| *position == size as i64)
        })
    });
    service.stop();
    let last = service.join().unwrap().closed().map(|snapshot| snapshot.epoch);
    let service = begin();
    let recovery = service.recovery();
    until("the recovery", &service, || {
        let ready = service.catching_up(at_once).is_none();
        let closed = service.views().closed().map(|snapshot| snapshot.epoch);
        assert!(
            !ready || closed >= last,
            "ready at {closed:?}, and {last:?} was bound"
        );
        if let Some(recovering) = recovery() {
            assert!(Some(recovering.last_bound) == last && recovering.closed < last);
            assert!(
                recovering.left["lines"].is_some_and(|left| left > 0),
                "{recovering:?}"
            );
        }
        ready
    });
    assert_eq!(recovery(), None);
    service.stop();
    service.join().unwrap();
}
