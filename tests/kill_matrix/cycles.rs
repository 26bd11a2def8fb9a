//! One cycle after the other: a node starts on what the one before it left, gets on, and something is done to
//! it or to a server under it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thalweg::fault::POINTS;
use thalweg::ledger;

use crate::Options;
use crate::audit::{self, Anomaly, Audit};
use crate::kafka::crash::{OnDrop, produce_at};
use crate::kafka::faults;
use crate::kafka::load::{Random, Topics};
use crate::kafka::node::{Closed, Node, Process, Said, Table};
use crate::kafka::oracle;
use crate::readers::{self, Readers, TABLE};
use crate::support::kafka::Broker;
use crate::support::postgres::Postgres;
use crate::support::registry::Registry;

/// What the topics are named after.
const NAME: &str = "matrix";
/// So long something may take that has to happen.
const WITHIN: Duration = Duration::from_secs(60);
/// Points that this story does not come by: its ledger is not trimmed, so that every binding can be looked
/// at, and it replays no dead letters.
const ELSEWHERE: [&str; 2] = ["trim.", "replay_letters."];

/// What is done in a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Point(&'static str),
    Random,
    Stopped,
    Broker,
    Postgres,
    TornWrite,
    FullDisk,
}

impl Fault {
    /// Its row in the report.
    fn name(&self) -> String {
        match self {
            Self::Point(point) => {
                let part = point.split('.').next().unwrap_or(point);
                format!("`kill -9` at `{part}.*`")
            }
            Self::Random => "`kill -9` at random".into(),
            Self::Stopped => "`SIGSTOP`, a successor, `SIGCONT`".into(),
            Self::Broker => "broker `kill -9`, restart".into(),
            Self::Postgres => "Postgres `kill -9`, restart".into(),
            Self::TornWrite => "killed within a write".into(),
            Self::FullDisk => "disk full".into(),
        }
    }
}

/// What became of the cycles of a fault.
#[derive(Default)]
pub struct Stats {
    pub cycles: usize,
    /// From the next start to its readiness, and to the first committed row that is new.
    pub ready: Vec<Duration>,
    pub first: Vec<Duration>,
}

/// What became of all.
#[derive(Default)]
pub struct Outcome {
    pub audit: Audit,
    pub stats: BTreeMap<String, Stats>,
    pub points: BTreeSet<&'static str>,
    /// What went wrong with a process, beside what its readers noticed.
    pub problems: Vec<String>,
    pub compared: usize,
    pub records_in: usize,
    pub bound: usize,
    pub took: Duration,
    /// The server's version.
    pub postgres: String,
}

impl Outcome {
    pub fn is_clean(&self) -> bool {
        self.audit.is_clean() && self.problems.is_empty()
    }
}

/// Half of the cycles go through the points; the others take turns.
fn schedule(options: &Options) -> Vec<Fault> {
    let points = POINTS.iter().map(|point| point.name);
    let points: Vec<&str> = points
        .filter(|name| !ELSEWHERE.iter().any(|part| name.starts_with(part)))
        .filter(|name| options.only.is_empty() || options.only.iter().any(|only| name.starts_with(&**only)))
        .collect();
    assert!(!points.is_empty(), "no point is called {:?}", options.only);
    // A stride without a common divisor, so that a short run sees some of everything.
    let stride = (5..)
        .find(|stride| !points.len().is_multiple_of(*stride))
        .unwrap_or(1);
    let others = [
        Fault::Random,
        Fault::Stopped,
        Fault::TornWrite,
        Fault::Broker,
        Fault::Random,
        Fault::FullDisk,
        Fault::Postgres,
    ];
    let fault = |cycle: usize| match cycle % 2 {
        1 if options.only.is_empty() => others[cycle / 2 % others.len()].clone(),
        _ => {
            let at = if options.only.is_empty() { cycle / 2 } else { cycle };
            Fault::Point(points[(options.seed as usize + at) * stride % points.len()])
        }
    };
    (0..options.cycles).map(fault).collect()
}

pub fn run(options: &Options) -> Outcome {
    let begun = Instant::now();
    let (broker, registry, postgres) = (Broker::shared(), Registry::shared(), Postgres::shared());
    let inputs = Topics::make(broker, registry, NAME);
    let dir = tempfile::tempdir().expect("a folder can be made");
    let settings = postgres.settings();
    let mut node = Node::of(&inputs, &registry.url())
        .checkpoints(Duration::from_millis(20))
        .history(Duration::from_millis(150))
        .untrimmed()
        .delivered(NAME)
        .data_dir(&dir.path().join("ledger"));
    std::fs::create_dir_all(dir.path().join("ledger")).expect("a folder can be made");
    node.table = Some(Table {
        name: TABLE.into(),
        url: settings.url,
        password: settings
            .password
            .map(|it| it.reveal().to_owned())
            .unwrap_or_default(),
        ca_file: settings.ca_file.unwrap_or_default(),
    });
    let (readers, stop, stop_readers) = (Readers::default(), AtomicBool::new(false), AtomicBool::new(false));
    let mut matrix = Matrix {
        node,
        broker,
        postgres: &postgres,
        readers: &readers,
        random: Random(options.seed),
        starts: 0,
        dir,
        history: BTreeMap::new(),
        before: None,
        hold: Duration::ZERO,
        outcome: Outcome::default(),
    };
    std::thread::scope(|scope| {
        let (_stopped, _read) = (OnDrop(&stop), OnDrop(&stop_readers));
        scope.spawn(|| produce_at([12, 6, 2, 1], &inputs, &stop));
        matrix.warm_up();
        for topic in readers::topics(NAME) {
            let (readers, stop) = (&readers, &stop_readers);
            scope.spawn(move || readers.follow(broker, &topic, stop));
        }
        scope.spawn(|| readers.look(&postgres, &stop_readers));
        for (cycle, fault) in schedule(options).into_iter().enumerate() {
            matrix.cycle(cycle, &fault);
        }
        stop.store(true, Ordering::Release);
        matrix.end(&inputs, &stop_readers);
    });
    let mut outcome = matrix.outcome;
    outcome.took = begun.elapsed();
    outcome.postgres = postgres.value("SHOW server_version");
    outcome
}

struct Matrix<'a> {
    node: Node,
    broker: &'a Broker,
    postgres: &'a Postgres,
    readers: &'a Readers,
    random: Random,
    starts: usize,
    dir: TempDir,
    /// What any process closed.
    history: BTreeMap<u64, Closed>,
    /// What was done in the cycle before: the next start recovers from that.
    before: Option<String>,
    /// So long a process stands at a point before it dies there, every other time.
    hold: Duration,
    outcome: Outcome,
}

/// A node that was started, and what it said.
struct Running {
    process: Process,
    begun: Instant,
    /// The newest epoch that was read before it started.
    newest: u64,
    from: u64,
    seen: Vec<Closed>,
    ready: Option<Duration>,
    first: Option<Duration>,
    failed: Option<String>,
    ended: bool,
}

impl Running {
    /// Listens until something holds; returns whether it does. The node may end before, or nothing come of it
    /// for long.
    fn until(&mut self, readers: &Readers, holds: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + WITHIN;
        while !holds(self) {
            if self.ended || Instant::now() > deadline {
                return false;
            }
            match self.process.next() {
                Some(said) => self.hear(said),
                None => self.ended = true,
            }
            if self.first.is_none() && readers.newest.load(Ordering::Acquire) > self.newest {
                self.first = Some(self.begun.elapsed());
            }
        }
        true
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Restored(from) => self.from = from.unwrap_or(0),
            Said::Live => self.ready = Some(self.begun.elapsed()),
            Said::Closed(closed) => self.seen.push(closed),
            Said::Failed(error) => self.failed = Some(error),
            Said::Open(_) | Said::Rows(_) => {}
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a plain system call; the child was not waited for.
        unsafe { libc::kill(self.process.id().cast_signed(), signal) };
    }

    fn kill9(&mut self) {
        self.process.kill9();
        while let Some(said) = self.process.next() {
            self.hear(said);
        }
        self.ended = true;
    }
}

impl Matrix<'_> {
    /// 1, 2, 3, 1 workers and so on.
    fn start(&mut self, fault: Option<&Fault>) -> Running {
        self.starts += 1;
        let mut node = self.node.clone().workers(1 + (self.starts - 1) % 3);
        if let Some(Fault::Point(point)) = fault {
            let hold = self.hold.as_millis();
            let passage = match *point {
                "postgres_sink.locked" | "postgres_sink.claimed" => 1,
                _ if point.starts_with("postgres_sink.") => 6,
                _ => faults::passage(point, node.workers),
            };
            node = node.fault(&format!("{point}:{passage}:{hold}"));
        }
        node.full_disk_fails = fault == Some(&Fault::FullDisk);
        Running {
            newest: self.readers.newest.load(Ordering::Acquire),
            begun: Instant::now(),
            process: node.spawn(),
            from: 0,
            seen: Vec::new(),
            ready: None,
            first: None,
            failed: None,
            ended: false,
        }
    }

    /// Topics and tables are made, and there is a checkpoint to go on from.
    fn warm_up(&mut self) {
        let mut running = self.start(None);
        let enough = running.until(self.readers, |running| running.seen.len() > 100);
        let topics = readers::topics(NAME);
        let made = topics.iter().all(|topic| self.broker.has_topic(topic));
        running.kill9();
        let log = || running.process.stderr();
        assert!(
            enough && made,
            "the first node does not get on: {:?}\n{}",
            running.failed,
            log()
        );
        self.settle(running, "the first start");
    }

    fn cycle(&mut self, cycle: usize, fault: &Fault) {
        self.hold = Duration::from_millis([0, 30][cycle / 2 % 2]);
        let name = fault.name();
        let mut running = self.start(Some(fault));
        let gets_on = |running: &Running| running.ready.is_some() && running.first.is_some();
        let got_on = running.until(self.readers, gets_on);
        if let (Some(before), Some(ready), Some(first)) = (self.before.take(), running.ready, running.first) {
            let stats = self.outcome.stats.entry(before).or_default();
            stats.ready.push(ready);
            stats.first.push(first);
        }
        if !got_on && !matches!(fault, Fault::Point(_)) {
            self.problem(cycle, &mut running, "it does not get on");
        } else {
            match fault {
                Fault::Point(point) => self.at_point(cycle, point, &mut running),
                Fault::Random => {
                    std::thread::sleep(Duration::from_millis(self.random.below(400)));
                    running.kill9();
                }
                Fault::Stopped => running = self.stopped(cycle, running),
                Fault::Broker | Fault::Postgres => self.server(cycle, fault, &mut running),
                Fault::TornWrite | Fault::FullDisk => self.starved(cycle, fault, &mut running),
            }
        }
        running.kill9();
        self.outcome.stats.entry(name.clone()).or_default().cycles += 1;
        let measured = matches!(fault, Fault::Broker | Fault::Postgres | Fault::Stopped);
        self.before = (!measured).then(|| name.clone());
        self.settle(running, &name);
        eprintln!(
            "cycle {:>4}  {name}  {fault:?}: {}",
            cycle + 1,
            self.outcome.audit
        );
    }

    fn at_point(&mut self, cycle: usize, point: &'static str, running: &mut Running) {
        running.until(self.readers, |_| false);
        let log = match running.ended {
            true => running.process.killed_at(),
            false => None,
        };
        match log.as_deref() == Some(point) {
            true => _ = self.outcome.points.insert(point),
            false => self.problem(cycle, running, &format!("it never came to {point}")),
        }
    }

    /// A node stands still, another takes over what it left, as another machine would have it, and the first
    /// goes on as if nothing had been. Returns the second.
    fn stopped(&mut self, cycle: usize, mut first: Running) -> Running {
        std::thread::sleep(Duration::from_millis(self.random.below(200)));
        first.signal(libc::SIGSTOP);
        let (old, new) = (self.ledger(), self.dir.path().join(format!("ledger-{cycle}")));
        copy(&old, &new);
        self.node.data_dir = Some(new);
        let mut second = self.start(None);
        let gets_on = |running: &Running| running.ready.is_some() && running.first.is_some();
        if !second.until(self.readers, gets_on) {
            self.problem(cycle, &mut second, "the successor does not get on");
        }
        if let (Some(ready), Some(row)) = (second.ready, second.first) {
            let stats = self.outcome.stats.entry(Fault::Stopped.name()).or_default();
            stats.ready.push(ready);
            stats.first.push(row);
        }
        let told = first.seen.len();
        first.signal(libc::SIGCONT);
        if !first.until(self.readers, |running| running.failed.is_some()) {
            self.problem(cycle, &mut first, "who was stopped goes on beside the successor");
        }
        first.kill9();
        // What it said before it stood still is true; what it counted since is in no output.
        first.seen.truncate(told);
        self.agrees(&first);
        second
    }

    fn server(&mut self, cycle: usize, fault: &Fault, running: &mut Running) {
        let pause = Duration::from_millis(self.random.below(500));
        let newest = match fault {
            Fault::Broker => {
                self.broker.kill9();
                std::thread::sleep(pause);
                self.broker.restart();
                &self.readers.newest
            }
            _ => {
                self.postgres.kill9();
                std::thread::sleep(pause);
                self.postgres.restart();
                &self.readers.newest_table
            }
        };
        let (restarted, before) = (Instant::now(), newest.load(Ordering::Acquire));
        if !running.until(self.readers, |_| newest.load(Ordering::Acquire) > before) {
            return self.problem(cycle, running, "it does not get on once the server is back");
        }
        let stats = self.outcome.stats.entry(fault.name()).or_default();
        stats.first.push(restarted.elapsed());
    }

    /// The ledger may grow by a few bytes only: the next write ends within a record.
    fn starved(&mut self, cycle: usize, fault: &Fault, running: &mut Running) {
        let file = self.ledger().join("ledger.log");
        let length = std::fs::metadata(&file).map_or(0, |file| file.len());
        let limit = libc::rlimit {
            rlim_cur: length + 1 + self.random.below(200),
            rlim_max: libc::RLIM_INFINITY,
        };
        let id = running.process.id().cast_signed();
        // SAFETY: a plain system call on a child of this process.
        let set = unsafe { libc::prlimit(id, libc::RLIMIT_FSIZE, &limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        running.until(self.readers, |_| false);
        let failed = running.failed.take();
        if !running.ended || failed.is_none() == (*fault == Fault::FullDisk) {
            running.failed = failed;
            self.problem(cycle, running, "it neither died nor said why it can't write");
        }
    }

    /// What is left of a process agrees with what is known: epochs are what they were, and bound.
    fn settle(&mut self, mut running: Running, what: &str) {
        if let Some(error) = running.failed.take() {
            self.outcome.problems.push(format!("after {what}: {error}"));
        }
        self.agrees(&running);
        let bound = match ledger::look(&self.ledger(), &faults::claim(&self.node)) {
            Ok(found) => found
                .bindings
                .filter_map(|it| Some(it.ok()?.epoch.0))
                .collect::<BTreeSet<_>>(),
            Err(error) => return self.outcome.problems.push(format!("after {what}: {error}")),
        };
        let audit = &mut self.outcome.audit;
        for closed in running
            .seen
            .iter()
            .filter(|closed| !bound.contains(&closed.epoch))
        {
            audit.note(Anomaly::Unbound, || format!("epoch {} was closed", closed.epoch));
        }
        let topics = self.readers.topics.lock().expect("nobody panics");
        let read: BTreeSet<u64> = topics.values().flatten().map(readers::epoch).collect();
        for epoch in read.difference(&bound) {
            audit.note(Anomaly::Unbound, || format!("a row of epoch {epoch} was read"));
        }
        self.outcome.bound = bound.len();
    }

    fn agrees(&mut self, running: &Running) {
        let audit = &mut self.outcome.audit;
        let mut last = running.from;
        for closed in &running.seen {
            let epoch = closed.epoch;
            if epoch <= last {
                audit.note(Anomaly::Backwards, || {
                    format!("epoch {epoch} was closed after {last}")
                });
            }
            last = epoch;
            let Some(before) = self.history.insert(epoch, closed.clone()) else {
                continue;
            };
            self.outcome.compared += 1;
            for (view, hash) in &closed.hashes {
                if before.hashes.get(view).is_some_and(|was| was != hash) {
                    audit.note(Anomaly::Backwards, || {
                        format!("epoch {epoch} of {view} is another one")
                    });
                }
            }
        }
    }

    fn ledger(&self) -> PathBuf {
        self.node.data_dir.clone().unwrap_or_default()
    }

    fn problem(&mut self, cycle: usize, running: &mut Running, what: &str) {
        running.kill9();
        let (failed, log) = (
            running.failed.take().unwrap_or_default(),
            running.process.stderr(),
        );
        let from = log.len().saturating_sub(2000);
        let log = log.get(from..).unwrap_or(&log);
        self.outcome
            .problems
            .push(format!("cycle {}: {what}: {failed}\n{log}", cycle + 1));
    }

    /// Nobody is killed any more: everything is counted, and everything is read once more.
    fn end(&mut self, inputs: &Topics<'_>, stop_readers: &AtomicBool) {
        let (_, rows) = self.node.clone().workers(2).until_end().spawn().finish();
        let expected = oracle::expected(inputs);
        for (view, wanted) in &expected {
            let none = BTreeSet::new();
            let made = rows.get(view).unwrap_or(&none);
            self.outcome.audit.same(&format!("view {view}"), wanted, made);
        }
        // What was committed last is still on its way to the readers.
        std::thread::sleep(Duration::from_secs(2));
        stop_readers.store(true, Ordering::Release);
        let audit = &mut self.outcome.audit;
        audit::of(audit, inputs, NAME, &expected, self.readers);
        let table = readers::table(self.postgres)
            .map(|(_, lines)| lines)
            .unwrap_or_default();
        let wanted = expected["merchant_spend"]
            .iter()
            .map(|row| audit::line(row))
            .collect();
        audit.same("the table", &wanted, &table.into_iter().collect());
        let ends = [&inputs.payments, &inputs.merchants].map(|topic| inputs.ends(topic));
        self.outcome.records_in = ends.into_iter().flatten().map(|(_, end)| end as usize).sum();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder can be made");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => _ = std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied"),
        }
    }
}
