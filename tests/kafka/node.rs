//! The engine as a process of its own, to be killed; and what it tells of itself, also when it runs in this
//! process.
//!
//! A node prints lines that begin with `@`: one for each closed epoch with every view's hash, and at the end
//! its rows or the error. They are written before anything else happens, so that what was printed was true
//! when it was printed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thalweg::checkpoint::location::CheckpointLocation;
use thalweg::codec::registry::Registry;
use thalweg::codec::registry::access::RegistryAccess;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::ingest::BufferLimits;
use thalweg::ledger::MemoryLog;
use thalweg::position::{PartitionId, SourceId};
use thalweg::runtime::{Cluster, LedgerLocation, Replay, RunSettings, Service, checkpoints};
use thalweg::schema::Numbers;
use thalweg::sequencer::Cuts;
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;
use thalweg::time::Epoch;
use thalweg::view::serve::RowsQuery;
use thalweg::view::{AsOf, Snapshot, Views};

use super::load::Topics;
use super::oracle::{self, Rows};
use super::pace::Pace;
use super::{PATIENCE, flow};
#[cfg(feature = "object-store")]
use crate::support::s3::LOGIN;
#[cfg(not(feature = "object-store"))]
const LOGIN: [(&str, &str); 0] = [];

pub const ASKED: &str = "THALWEG_TEST_NODE";

/// What a node is to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    pub kafka: String,
    pub registry: String,
    pub payments: String,
    pub merchants: String,
    /// Where the ledger is; in memory without.
    pub data_dir: Option<PathBuf>,
    pub workers: usize,
    /// This process's number, and all processes' addresses.
    pub cluster: Option<(usize, Vec<String>)>,
    pub until_end: bool,
    /// The shortest time between two epochs.
    pub interval: Duration,
    /// How far a partition may run ahead of others in event time.
    pub skew_max: Duration,
    /// When a partition of payments is idle; never without.
    pub idle_after: Option<Duration>,
    /// How fast partitions of payments are read.
    pub pace: Pace,
    /// How often a checkpoint is made, beside the ledger in its directory; never without.
    pub checkpoints: Option<Duration>,
    /// The endpoint of a store that checkpoints are kept in, in place of the directory.
    pub bucket: Option<String>,
    /// How far back views reach. If it is short, the ledger is trimmed as soon as it can be.
    pub history: Option<Duration>,
    /// The ledger is never trimmed.
    pub untrimmed: bool,
    /// A file that takes the changes of merchant spend, if there is one.
    pub sunk: Option<PathBuf>,
    /// What the names of the topics begin with that take what leaves, if there are any.
    pub delivered: Option<String>,
    /// The table of Postgres that takes merchant spend, if there is one.
    pub table: Option<Table>,
    /// Sinks of one name and group are one sink, and all tests share a broker.
    pub group: String,
    /// Where the process is to die, and at which passage: `THALWEG_FAULT`.
    pub fault: Option<String>,
    /// Where files may not grow any further, a write fails, as on a full disk; without, it ends the process.
    pub full_disk_fails: bool,
    /// Goes through these bound epochs again, beside another process that may have the ledger.
    pub replay: Option<(u64, u64)>,
}

/// A table of Postgres, and how to get there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    pub name: String,
    pub url: String,
    pub password: String,
    pub ca_file: PathBuf,
}

/// A closed epoch, with the hash of its changes in each view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    pub epoch: u64,
    pub hashes: BTreeMap<String, u64>,
}

/// What a node says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    Closed(Closed),
    /// The epoch of the checkpoint that it goes on from; said first.
    Restored(Option<u64>),
    /// What earlier processes had bound is gone through; said once.
    Live,
    /// How many epochs are open; said now and then.
    Open(i64),
    Rows(Rows),
    Failed(String),
}

impl Node {
    pub fn of(topics: &Topics<'_>, registry: &str) -> Self {
        Self {
            kafka: topics.broker.bootstrap(),
            registry: registry.to_owned(),
            payments: topics.payments.clone(),
            merchants: topics.merchants.clone(),
            data_dir: None,
            workers: 1,
            cluster: None,
            until_end: false,
            interval: Duration::from_millis(5),
            skew_max: BufferLimits::default().skew_max,
            idle_after: None,
            pace: Pace::default(),
            checkpoints: None,
            bucket: None,
            history: None,
            untrimmed: false,
            sunk: None,
            delivered: None,
            table: None,
            group: "tests".into(),
            fault: None,
            full_disk_fails: false,
            replay: None,
        }
    }

    pub fn data_dir(mut self, dir: &Path) -> Self {
        self.data_dir = Some(dir.to_owned());
        self
    }

    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub fn until_end(mut self) -> Self {
        self.until_end = true;
        self
    }

    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    pub fn skew_max(mut self, skew_max: Duration) -> Self {
        self.skew_max = skew_max;
        self
    }

    pub fn idle_after(mut self, idle_after: Duration) -> Self {
        self.idle_after = Some(idle_after);
        self
    }

    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    pub fn checkpoints(mut self, interval: Duration) -> Self {
        self.checkpoints = Some(interval);
        self
    }

    #[cfg(feature = "object-store")]
    pub fn bucket(mut self, endpoint: &str) -> Self {
        self.bucket = Some(endpoint.to_owned());
        self
    }

    pub fn history(mut self, history: Duration) -> Self {
        self.history = Some(history);
        self
    }

    #[cfg(debug_assertions)]
    pub fn untrimmed(mut self) -> Self {
        self.untrimmed = true;
        self
    }

    pub fn sunk(mut self, file: &Path) -> Self {
        self.sunk = Some(file.to_owned());
        self
    }

    pub fn delivered(mut self, name: &str) -> Self {
        self.delivered = Some(name.to_owned());
        self.group = format!("tests-{name}");
        self
    }

    #[cfg(debug_assertions)]
    pub fn fault(mut self, fault: &str) -> Self {
        self.fault = Some(fault.to_owned());
        self
    }

    pub fn replay(mut self, from: u64, to: u64) -> Self {
        self.replay = Some((from, to));
        self
    }

    /// Starts the dataflow in this process.
    pub fn start(&self) -> thalweg::Result<Service> {
        self.start_on(MemoryLog::default())
    }

    /// The same, with a ledger in `memory` unless there is a directory for it.
    pub fn start_on(&self, memory: MemoryLog) -> thalweg::Result<Service> {
        let store = self
            .data_dir
            .clone()
            .map_or(LedgerLocation::Memory(memory), LedgerLocation::Directory);
        // Some tests write by ids that no registry will ever know.
        let access = RegistryAccess {
            unknown_wait: Duration::from_millis(200),
            ..RegistryAccess::open(&self.registry)
        };
        let env = Environment {
            connectors: self.connectors(),
            registry: Some(Registry::with_access(&access, tokio().clone())?),
            group: self.group.clone(),
            ..Environment::default()
        };
        let cluster = self
            .cluster
            .clone()
            .map(|(process, addresses)| Cluster::new(process, addresses));
        let (workers, until_end) = (self.workers, self.until_end);
        let place = CheckpointLocation {
            // A prefix of its own for each data directory, as its name is.
            url: self.bucket.as_ref().zip(self.data_dir.as_ref()).map(|(_, dir)| {
                let name = dir.file_name().expect("a name").to_string_lossy();
                format!("s3://thalweg/{}", name.trim_start_matches('.'))
            }),
            endpoint: self.bucket.clone(),
            region: None,
        };
        let checkpoints = match (self.checkpoints, &self.data_dir) {
            (Some(interval), Some(dir)) => {
                let store = place.store(&self.group, "spend", dir, true)?;
                Some(checkpoints::CheckpointSettings::new(
                    store,
                    checkpoints::CheckpointSchedule::Every(interval),
                ))
            }
            _ => None,
        };
        let settings = RunSettings {
            workers,
            until_end,
            cluster,
            store,
            env,
            history: self.history.unwrap_or(RunSettings::default().history),
            trim_least: self.history.filter(|_| !self.untrimmed).map(|_| 1_000),
            replay: self.replay.map(|(from, to)| Replay {
                from: Some(Epoch(from)),
                to: Some(Epoch(to)),
                any_build: false,
            }),
            checkpoints,
            cuts: Cuts::Clock {
                interval: self.interval,
            },
            bounds: BufferLimits {
                skew_max: self.skew_max,
                ..BufferLimits::default()
            },
            ..RunSettings::default()
        };
        let flow = flow::spend(
            &self.payments,
            &self.merchants,
            self.idle_after,
            &self.pace,
            self.history,
            &flow::Outputs {
                sunk: self.sunk.clone(),
                delivered: self.delivered.clone(),
                table: self.table.as_ref().map(|table| table.name.clone()),
            },
        );
        Service::start(&flow, settings)
    }

    fn connectors(&self) -> Extensions {
        #[allow(unused_mut, reason = "without Postgres there is one connector")]
        let mut connectors = Extensions::of(KafkaSettings::at(self.kafka.clone()));
        #[cfg(feature = "postgres")]
        if let Some(table) = &self.table {
            use thalweg::connect::postgres::{PostgresSettings, Tls};
            *connectors.get_mut::<PostgresSettings>() = PostgresSettings {
                password: Some(thalweg::secret::Secret::new(&*table.password)),
                tls: Tls::VerifyFull,
                ca_file: Some(table.ca_file.clone()),
                statement_timeout: Duration::from_secs(2),
                lock_timeout: Duration::from_secs(2),
                ..PostgresSettings::at(&*table.url)
            };
        }
        connectors
    }

    /// Starts it as a process.
    pub fn spawn(&self) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        command
            .args(["--exact", "kafka::node", "--nocapture", "--test-threads=1"])
            .env(ASKED, serde_json::to_string(self).expect("settings are plain"))
            .env("THALWEG_FAULT", self.fault.as_deref().unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if self.bucket.is_some() {
            command.envs(LOGIN);
        }
        let ignored = self.full_disk_fails;
        // SAFETY: only signal and prctl are called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if ignored {
                    libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                }
                // Gone with the test that started it, however that ends.
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let mut child = command.spawn().expect("the test binary can be run");
        let (out, mut err) = (
            child.stdout.take().expect("piped"),
            child.stderr.take().expect("piped"),
        );
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                // The last line of a killed process may be half a line.
                let message = line
                    .split_once('@')
                    .and_then(|(_, line)| serde_json::from_str(line).ok());
                if message.is_some_and(|message| say.send(message).is_err()) {
                    return;
                }
            }
        });
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _end = err.read_to_end(&mut text);
            let _gone = tell.send(String::from_utf8_lossy(&text).into_owned());
        });
        Process {
            child,
            said,
            stderr: told,
        }
    }
}

/// A node that runs.
pub struct Process {
    child: Child,
    said: Receiver<Said>,
    stderr: Receiver<String>,
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next thing that it says; nothing once it has ended.
    pub fn next(&mut self) -> Option<Said> {
        match self.said.recv_timeout(PATIENCE) {
            Ok(said) => Some(said),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.kill9();
                panic!(
                    "a node has said nothing for {PATIENCE:?}; its log:\n{}",
                    self.stderr()
                );
            }
        }
    }

    /// Kills it without waiting for its end.
    pub fn signal_kill(&mut self) {
        let _gone = self.child.kill();
    }

    /// Kills it as a loss of power would, but for the disk; what it said until then can still be heard.
    pub fn kill9(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Where it says that it was killed, once it has ended by SIGKILL.
    #[cfg(debug_assertions)]
    pub fn killed_at(&mut self) -> Option<String> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().expect("a child can be waited for");
        let log = self.stderr();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended otherwise:\n{log}");
        let at = log.lines().find_map(|line| line.strip_prefix("killed at "));
        at.map(str::to_owned)
    }

    /// All that it says up to its end, which has to be a good one: its epochs, and its rows.
    pub fn finish(mut self) -> (Vec<Closed>, Rows) {
        let mut epochs = Vec::new();
        while let Some(said) = self.next() {
            match said {
                Said::Closed(closed) => epochs.push(closed),
                Said::Open(_) | Said::Live | Said::Restored(_) => {}
                Said::Rows(rows) => return (epochs, rows),
                Said::Failed(error) => panic!("a node failed: {error}\n{}", self.stderr()),
            }
        }
        self.kill9();
        panic!("a node ended without a result; its log:\n{}", self.stderr());
    }

    /// What it wrote to its log, once it has ended.
    pub fn stderr(&self) -> String {
        self.stderr
            .recv_timeout(Duration::from_secs(5))
            .unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The body of the child process.
pub fn run_if_asked() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let node: Node = serde_json::from_str(&asked).expect("the parent says what to run");
    let service = match node.start() {
        Ok(service) => service,
        Err(error) => return say(&Said::Failed(error.to_string())),
    };
    // What earlier epochs changed is known to the run that counted them.
    let mut told = service.restored().unwrap_or_default();
    say(&Said::Restored(service.restored().map(|epoch| epoch.0)));
    let mut live = false;
    for turn in 0_u64.. {
        let finished = service.is_finished();
        if !live && service.is_live() {
            live = true;
            say(&Said::Live);
        }
        if turn % 8 == 0 {
            say(&Said::Open(service.metrics().epochs.in_flight.get()));
        }
        for closed in closed_since(service.views(), &mut told) {
            say(&Said::Closed(closed));
        }
        if finished {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    match service.join() {
        Ok(views) => say(&Said::Rows(rows(&views))),
        Err(error) => say(&Said::Failed(error.to_string())),
    }
}

fn say(said: &Said) {
    println!("@{}", serde_json::to_string(said).expect("messages are plain"));
}

/// The epochs that were closed after `told`, which is set to the newest one.
pub fn closed_since(views: &Views, told: &mut Epoch) -> Vec<Closed> {
    let mut closed = Vec::new();
    let mut next = views.closed();
    while let Some(snapshot) = next.filter(|snapshot| snapshot.epoch > *told) {
        let hash = |name: &String| Some((name.clone(), views.get(name)?.hash(snapshot.epoch)?));
        closed.push(Closed {
            epoch: snapshot.epoch.0,
            hashes: views.names().iter().filter_map(hash).collect(),
        });
        next = views.snapshot(AsOf::Epoch(Epoch(snapshot.epoch.0 - 1))).ok();
    }
    closed.reverse();
    *told = closed.last().map_or(*told, |last| Epoch(last.epoch));
    closed
}

/// All rows of all views as of the newest closed epoch, in the oracle's form. Of a cluster: those of this
/// process.
pub fn rows(views: &Views) -> Rows {
    views
        .closed()
        .map_or_else(Rows::new, |snapshot| rows_at(views, &snapshot))
}

/// The same as of a moment.
pub fn rows_at(views: &Views, snapshot: &Snapshot) -> Rows {
    let mut all = Rows::new();
    for serve in views.all() {
        let rows = all.entry(serve.spec().name.clone()).or_default();
        let mut cursor = None;
        loop {
            let query = RowsQuery {
                limit: 1000,
                cursor: cursor.take(),
                ..RowsQuery::default()
            };
            let page = serve
                .local_rows(&query, snapshot)
                .unwrap_or_else(|error| panic!("{}: {error}", serve.spec().name));
            for row in &page.rows {
                let mut json = Vec::new();
                serve.schema().write_row(&row.row, Numbers::default(), &mut json);
                let new = rows.insert(oracle::normal(&String::from_utf8_lossy(&json)));
                assert!(new, "{} has a row twice", serve.spec().name);
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    all
}

/// Waits until everything that was written is counted.
pub fn caught_up(service: &Service, topics: &Topics<'_>) {
    let of = |source: &str, topic: &str| {
        let source = SourceId::of(source);
        topics
            .ends(topic)
            .into_iter()
            .map(move |(partition, end)| (PartitionId { source, partition }, end - 1))
    };
    let ends: Vec<_> = of("payments", &topics.payments)
        .chain(of("merchants", &topics.merchants))
        .collect();
    reached(service, &ends);
}

/// Waits until the records at these offsets are counted.
pub fn reached(service: &Service, offsets: &[(PartitionId, i64)]) {
    let look = || {
        if let Some(error) = service.halt().error() {
            panic!("halted: {error}");
        }
        service
            .views()
            .closed()
            .filter(|snapshot| snapshot.reached(offsets))
    };
    let closed = || {
        service
            .views()
            .closed()
            .map(|snapshot| (snapshot.epoch, snapshot.positions.clone()))
    };
    // As long as it gets on, it may take longer than one is patient.
    let (mut deadline, mut seen) = (Instant::now() + PATIENCE, None);
    while look().is_none() {
        let now = closed();
        if now != seen {
            (deadline, seen) = (Instant::now() + PATIENCE, now);
        }
        assert!(
            Instant::now() < deadline,
            "it does not get on: wanted {offsets:?}, has {seen:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the end of a service in this process.
pub fn joined(service: Service) -> thalweg::Result<std::sync::Arc<Views>> {
    let deadline = Instant::now() + PATIENCE;
    while !service.is_finished() {
        if Instant::now() > deadline {
            let closed = service.views().closed();
            panic!("the service has not ended within {PATIENCE:?}; newest closed: {closed:#?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    service.join()
}

/// The runtime of everything asynchronous.
pub fn tokio() -> &'static tokio::runtime::Handle {
    static RUNTIME: std::sync::OnceLock<tokio::runtime::Runtime> = std::sync::OnceLock::new();
    let built = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
    };
    RUNTIME
        .get_or_init(|| built().expect("a runtime can be built"))
        .handle()
}
