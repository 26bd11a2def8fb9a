//! What a checkpoint costs and what it saves: bytes, pauses, freshness while it is made, and the time to be
//! back.
//!
//! ```text
//!   load every key once ─▶ first checkpoint ─▶ change 1 % ─▶ second ─▶ stop ─▶ start: from the checkpoint
//!                                                                         └─▶ start: from the topics
//!   all the while a record a millisecond: how old is it when it is visible?
//! ```
//!
//! Each start is a process of its own, so that memory is its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thalweg::bridge::Waker;
use thalweg::checkpoint::location::CheckpointLocation;
use thalweg::checkpoint::store::CheckpointStore;
use thalweg::position::{Offset, PartitionId, SourceId, TopicId};
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::CheckpointSchedule;
use thalweg::runtime::{self, RunSettings, Service, checkpoints};
use thalweg::source::{
    Driver, Environment, Intake, OpenedSource, PartitionFacts, Raw, ReadProgress, Reader, TimeRules,
    Topology, UpsertSource,
};
use thalweg::{Flow, clock, prelude::Result};

use crate::measure::{cpu_seconds, record, rss_peak_bytes};

#[derive(clap::Args)]
pub struct Arguments {
    /// Numbers of keys.
    #[arg(long, value_delimiter = ',', default_value = "100000,1000000,10000000")]
    keys: Vec<u64>,
    /// Numbers of workers to restart on.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    workers: Vec<usize>,
    /// Where states are written.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where checkpoints are kept, if not beside the ledger: s3://BUCKET/PREFIX, with AWS_… in the
    /// environment.
    #[arg(long)]
    store: Option<String>,
    /// Adds the figures to this file.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// One process of it.
#[derive(clap::Args)]
pub struct Run {
    /// `make`, or `recover`.
    #[arg(long)]
    what: String,
    #[arg(long)]
    keys: u64,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    store: Option<String>,
    /// Ends without a stop, as killed.
    #[arg(long)]
    kill: bool,
    /// Pays no regard to checkpoints: all is made from the topics again.
    #[arg(long)]
    replay: bool,
}

/// What checkpoints cost: a line for each size.
pub fn checkpoint(arguments: &Arguments) -> Result<()> {
    println!(
        "{:>9} {:>8} {:>10} {:>8} {:>10} {:>8} {:>9} {:>9} {:>9}",
        "keys", "first s", "MB", "1 % s", "MB", "p50 ms", "p99 ms", "max ms", "max pause"
    );
    each_size(arguments, |keys, common| {
        let made = child(&[&["--what", "make"], common].concat())?;
        let at = |field: &str| made[field].as_f64().unwrap_or(f64::NAN);
        println!(
            "{keys:>9} {:>8.2} {:>10.1} {:>8.2} {:>10.1} {:>8.1} {:>9.1} {:>9.1} {:>9.2}",
            at("first_seconds"),
            at("first_bytes") / 1e6,
            at("second_seconds"),
            at("second_bytes") / 1e6,
            at("median_ms"),
            at("busy_p99_ms"),
            at("busy_max_ms"),
            at("pause_max_ms"),
        );
        record(arguments.out.as_deref(), made)
    })
}

/// What they save: from a process's start to its first live answer, killed with -9 before.
pub fn recovery(arguments: &Arguments) -> Result<()> {
    println!(
        "{:>9} {:>10}  from a checkpoint, and from the topics",
        "keys", "MB"
    );
    each_size(arguments, |keys, common| {
        let made = child(&[&["--what", "make", "--kill"], common].concat())?;
        let mut starts = Vec::new();
        for workers in &arguments.workers {
            let workers = workers.to_string();
            for replay in [None, Some("--replay")] {
                let run = ["--what", "recover", "--workers", &workers];
                let line = child(&[&run, common, replay.as_slice()].concat())?;
                let seconds = line["seconds"].as_f64().unwrap_or(f64::NAN);
                let how = if replay.is_some() { "topics" } else { "checkpoint" };
                starts.push(format!("{how}, {workers} worker(s): {seconds:.2} s"));
                record(arguments.out.as_deref(), line)?;
            }
        }
        let mb = made["first_bytes"].as_f64().unwrap_or(f64::NAN) / 1e6;
        println!("{keys:>9} {mb:>10.1}  {}", starts.join(";  "));
        Ok(())
    })
}

fn each_size(arguments: &Arguments, mut run: impl FnMut(u64, &[&str]) -> Result<()>) -> Result<()> {
    for keys in &arguments.keys {
        let temp = tempfile::tempdir()?;
        let dir = arguments.dir.clone().unwrap_or_else(|| temp.path().to_owned());
        let dir = dir.join(keys.to_string());
        let (keys_text, dir_text) = (keys.to_string(), dir.to_string_lossy().into_owned());
        // A ledger begins with no checkpoint: each run has a prefix of its own.
        let store = arguments
            .store
            .as_ref()
            .map(|url| format!("{url}/{keys}-{}", std::process::id()));
        let mut common = vec!["--keys", &*keys_text, "--dir", &*dir_text];
        common.extend(store.iter().flat_map(|store| ["--store", store]));
        run(*keys, &common)?;
        let _gone = std::fs::remove_dir_all(&dir);
    }
    Ok(())
}

fn child(arguments: &[&str]) -> Result<Value> {
    let output = Command::new(std::env::current_exe()?)
        .arg("checkpoint-run")
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    let killed = arguments.contains(&"--kill") && output.status.code().is_none();
    if !output.status.success() && !killed {
        return Err(Error::internal("a run failed").detail(output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Error::internal("a run's figures").detail(error))
}

/// One process.
pub fn run(run: &Run) -> Result<()> {
    let line = match run.what.as_str() {
        "make" => make(run)?,
        "recover" => recover(run)?,
        other => return Err(Error::definition(format!("nothing is called `{other}`"))),
    };
    println!("{line}");
    Ok(())
}

/// A key's row: what a customer or an account is kept as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Account {
    balance: i64,
    changes: u32,
    name: String,
}

const INTERVAL: Duration = Duration::from_millis(500);
const PARTITIONS: u32 = 2;

/// Keyed records that are there up to an offset which may be raised: each key once, and then one in a
/// hundred.
#[derive(Clone)]
struct Keyed {
    keys: u64,
    upto: Arc<AtomicI64>,
    wakers: Arc<Mutex<Vec<Waker>>>,
}

impl Keyed {
    fn raise(&self, by: u64) -> i64 {
        let upto = self.upto.fetch_add(by as i64, Ordering::AcqRel) + by as i64;
        self.wakers().iter().for_each(Waker::wake);
        upto
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, partition: u32, offset: Offset) -> (u64, Option<Account>) {
        let n = offset as u64 * u64::from(PARTITIONS) + u64::from(partition);
        let (round, key) = match n < self.keys {
            true => (0, n),
            false => (
                n / self.keys,
                (n - self.keys) * 100 % self.keys + (n - self.keys) * 100 / self.keys,
            ),
        };
        let account = Account {
            balance: (n as i64).wrapping_mul(7_919) % 1_000_000,
            changes: round as u32,
            name: format!("account {key}"),
        };
        (key, Some(account))
    }
}

impl UpsertSource<u64, Account> for Keyed {
    type Records = (u64, Option<Account>);

    fn open(self, _: &Environment) -> Result<OpenedSource<(u64, Option<Account>)>> {
        Ok(OpenedSource {
            topic: "accounts".to_owned(),
            description: "accounts in memory".into(),
            driver: Arc::new(self.clone()),
            rules: TimeRules {
                timed: false,
                ..TimeRules::default()
            },
            dead_letters: None,
            reader: Box::new(move |waker| {
                self.wakers().push(waker);
                Ok(Box::new(KeyedReader {
                    read: vec![0; PARTITIONS as usize],
                    source: self,
                }))
            }),
        })
    }
}

impl Driver for Keyed {
    fn topology(&self) -> Result<Topology> {
        let facts = (0..PARTITIONS)
            .map(|partition| PartitionFacts::new(partition, 0, self.upto.load(Ordering::Acquire)));
        Ok(Topology {
            topic: TopicId::default(),
            compacted: false,
            partitions: facts.collect(),
        })
    }
}

struct KeyedReader {
    source: Keyed,
    read: Vec<Offset>,
}

impl Reader<(u64, Option<Account>)> for KeyedReader {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        self.read[partition as usize] = from;
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<(u64, Option<Account>)>,
    ) -> Result<ReadProgress> {
        let end = self.source.upto.load(Ordering::Acquire);
        let from = self.read[partition as usize];
        let to = (from + records_max as Offset).min(until).min(end);
        for offset in from..to {
            let raw = Raw {
                offset,
                timestamp: EventTime(0),
                key: None,
                payload: None,
            };
            intake.value(raw, self.source.record(partition, offset));
        }
        self.read[partition as usize] = to;
        Ok(ReadProgress {
            position: to,
            at_end: to == end,
            more: to < end,
        })
    }
}

fn flow(source: Keyed) -> Flow {
    dataflow("accounts", move |flow: Dataflow| {
        flow.table("accounts", source.clone()).view("account");
    })
}

fn store(run: &Run) -> Result<CheckpointStore> {
    let place = CheckpointLocation {
        url: run.store.clone(),
        ..CheckpointLocation::default()
    };
    place.store("bench", "accounts", &run.dir.join("ledger"), true)
}

fn start(run: &Run, source: &Keyed) -> Result<Service> {
    let settings = RunSettings {
        workers: run.workers,
        store: runtime::LedgerLocation::Directory(run.dir.join("ledger")),
        history: Duration::from_secs(1),
        checkpoints: match run.replay {
            true => None,
            false => Some(checkpoints::CheckpointSettings::new(
                store(run)?,
                CheckpointSchedule::Every(INTERVAL),
            )),
        },
        ..RunSettings::default()
    };
    Service::start(&flow(source.clone()), settings)
}

fn visible(service: &Service, upto: i64) -> bool {
    let source = SourceId::of("accounts");
    let reached = |partition| {
        let id = PartitionId { source, partition };
        let snapshot = service.views().closed();
        snapshot.is_some_and(|snapshot| snapshot.position(id).is_some_and(|at| at >= upto))
    };
    (0..PARTITIONS).all(reached)
}

fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<Duration> {
    let begun = clock::instant();
    while !done() {
        if clock::instant() - begun > Duration::from_secs(600) {
            return Err(Error::internal(format!("waited too long for {what}")));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(clock::instant() - begun)
}

/// A record a millisecond, and how long each takes to be visible. Milliseconds.
fn trickle(service: &Service, source: &Keyed, stop: &AtomicBool) -> Vec<f64> {
    let mut waiting: std::collections::VecDeque<(i64, Instant)> = Default::default();
    let mut took = Vec::new();
    let mut next = clock::instant();
    while !stop.load(Ordering::Acquire) || !waiting.is_empty() {
        let now = clock::instant();
        if now >= next && !stop.load(Ordering::Acquire) {
            next += Duration::from_millis(1);
            // From when it was due, so that a writer that is late itself hides nothing.
            waiting.push_back((source.raise(1), next));
        }
        while let Some((upto, since)) = waiting.front()
            && visible(service, *upto)
        {
            took.push(clock::instant().saturating_duration_since(*since).as_secs_f64() * 1e3);
            waiting.pop_front();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    took
}

fn at(took: &mut [f64], share: f64) -> f64 {
    took.sort_by(f64::total_cmp);
    took.get(((took.len() - 1) as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

fn make(run: &Run) -> Result<Value> {
    std::fs::create_dir_all(&run.dir)?;
    let source = Keyed {
        keys: run.keys,
        upto: Arc::default(),
        wakers: Arc::default(),
    };
    // All of it is there before the first checkpoint can be due, but for large states: then it is a part of
    // it.
    let upto = source.raise(run.keys / u64::from(PARTITIONS));
    let service = start(run, &source)?;
    let store = store(run)?;
    wait("the keys", || visible(&service, upto))?;
    let newest = || service.checkpointed();
    // Whatever was saved while the keys came in, from here on they change one by one.
    let stop = AtomicBool::new(false);
    let (mut phases, mut sizes) = (Vec::new(), Vec::new());
    let cpu = cpu_seconds();
    let mut took = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let trickled = scope.spawn(|| trickle(&service, &source, &stop));
        for phase in 0..2 {
            if phase == 1 {
                // In small steps: a burst makes longer epochs, which is another question.
                for _ in 0..200 {
                    source.raise(run.keys / 100 / u64::from(PARTITIONS) / 200);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            // The one after the next begins after this moment.
            for _ in 0..2 {
                let before = newest();
                wait("a checkpoint", || newest() > before)?;
            }
            let metrics = service.metrics().text();
            let manifest = store.manifest(newest().unwrap_or_default())?;
            phases.push(metrics);
            sizes.push(manifest);
        }
        stop.store(true, Ordering::Release);
        trickled.join().map_err(|_| Error::internal("a thread panicked"))
    })?;
    let cpu = cpu_seconds() - cpu;
    let written = |n: usize| value(&phases[n], "thalweg_checkpoint_written_bytes_total");
    let (busy_p99, busy_max) = (at(&mut took, 0.99), at(&mut took, 1.0));
    let durations = value(&phases[1], "thalweg_checkpoint_duration_seconds_sum");
    let count = value(&phases[1], "thalweg_checkpoint_duration_seconds_count");
    let line = json!({
        "question": "checkpoint", "keys": run.keys,
        "first_seconds": value(&phases[0], "thalweg_checkpoint_duration_seconds_sum"),
        "first_bytes": sizes[0].bytes(),
        "second_seconds": durations / count,
        "second_bytes": written(1) - written(0),
        "median_ms": at(&mut took, 0.5),
        "busy_p99_ms": busy_p99, "busy_max_ms": busy_max,
        "pause_max_ms": pause_max(&phases[1]),
        "cpu_seconds": cpu, "checkpoints": count, "rss_peak_bytes": rss_peak_bytes(),
    });
    if run.kill {
        println!("{line}");
        // SAFETY: a signal to this very process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    service.stop();
    service.join()?;
    Ok(line)
}

fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok())
        .unwrap_or(f64::NAN)
}

/// The upper bound of the highest bucket with a pause in it. Milliseconds.
fn pause_max(metrics: &str) -> f64 {
    let mut last = (0.0, 0.0);
    for line in metrics
        .lines()
        .filter(|line| line.starts_with("thalweg_checkpoint_pause_seconds_bucket"))
    {
        let bound = line.split('"').nth(1).and_then(|bound| bound.parse::<f64>().ok());
        let count = line
            .rsplit_once(' ')
            .and_then(|(_, count)| count.parse::<f64>().ok())
            .unwrap_or(0.0);
        if count > last.1 {
            last = (bound.unwrap_or(f64::INFINITY) * 1e3, count);
        }
    }
    last.0
}

fn recover(run: &Run) -> Result<Value> {
    let upto = positions(&run.dir)?;
    let source = Keyed {
        keys: run.keys,
        upto: Arc::new(AtomicI64::new(upto)),
        wakers: Arc::default(),
    };
    let begun = clock::instant();
    let service = start(run, &source)?;
    wait("the service", || service.is_live())?;
    let seconds = (clock::instant() - begun).as_secs_f64();
    if service.restored().is_some() == run.replay {
        return Err(Error::internal("it did not start from where it should"));
    }
    let rows = service.views().get("account").map_or(0, |view| view.rows_len());
    if rows as u64 != run.keys {
        return Err(Error::internal(format!("{rows} rows, not {}", run.keys)));
    }
    service.stop();
    service.join()?;
    Ok(
        json!({"question": "recovery", "keys": run.keys, "workers": run.workers, "replay": run.replay,
              "seconds": seconds, "rss_peak_bytes": rss_peak_bytes()}),
    )
}

/// How far both partitions are bound at least.
fn positions(dir: &Path) -> Result<i64> {
    let ends = thalweg::ledger::verify(&dir.join("ledger"))?;
    Ok(i64::try_from(ends.records).unwrap_or(i64::MAX) / i64::from(PARTITIONS) + 1)
}
