//! Killed between every two steps that it takes, by name: at each point of [`POINTS`] a process dies by
//! SIGKILL, another with another number of workers goes on from what it left, and in the end everything is as
//! if nobody had ever been killed.
//!
//! ```text
//!   point A            point B            point C                        the end
//!   1 worker ──✗       2 workers ──✗      3 workers ──✗   …              rows    = the oracle's
//!            └── ledger, checkpoints ─┘└── …                             epochs  = those of a run that was never killed
//! ```
//!
//! All kills of a story share one ledger, so that each restart meets what many deaths have left. An epoch
//! that two processes closed has to have the same hash of changes in every view; the service compares, too,
//! what it recorded, and a halt fails the story. What a loss of power may take with it a kill can't show:
//! that is for the simulated disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use thalweg::checkpoint::store::CheckpointStore;
use thalweg::disk::HostDisk;
use thalweg::fault::POINTS;
use thalweg::ledger::{self, Claim, Ledger};

use super::PATIENCE;
use super::crash::{OnDrop, Run, produce_at};
use super::load::Topics;
use super::node::{Closed, Node};
use super::oracle;
use super::{delivered, sunk};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

#[test]
fn killed_between_any_two_steps_from_one_worker_on() {
    story("faults-1", 1, Duration::ZERO);
}

#[test]
fn killed_between_any_two_steps_from_three_workers_on() {
    story("faults-3", 3, Duration::from_millis(40));
}

/// Points that are passed as a start finds what is there: nothing gets on while a process dies there.
const START: [&str; 4] = ["claim.", "owner.", "restore.", "replay."];
/// In the next start bindings are gone through again behind a checkpoint: what this one bound is in none.
const BEFORE_START: &str = "checkpoint.whole";

/// `hold`: so long the thread that is to die stands at its point, while others go on. What was said before it
/// was so, a death at once would mostly take along.
fn story(name: &str, workers: usize, hold: Duration) {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, name);
    let node = Node::of(&topics, &registry.url())
        .checkpoints(Duration::from_millis(20))
        .history(Duration::from_millis(150));
    let (whole, trimmed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = node.clone().data_dir(whole.path()).untrimmed();
    let files = [&whole, &trimmed].map(|dir| dir.path().with_extension("sunk"));
    let first = first.sunk(&files[0]).delivered(name);
    let mut first = Story::new(first, workers, hold);
    let mut second = Story::new(
        node.clone().data_dir(trimmed.path()).sunk(&files[1]),
        workers,
        hold,
    );
    let stop = AtomicBool::new(false);
    let of = |parts: &[&str]| -> Vec<&str> {
        let names = POINTS.iter().map(|point| point.name);
        names
            .filter(|name| parts.iter().any(|part| name.starts_with(part)))
            .collect()
    };
    let of_start = of(&START);
    let others = POINTS.iter().map(|point| point.name);
    // Points of a Postgres sink, and of a replay of dead letters, have stories of their own.
    let elsewhere = ["trim.", "postgres_sink.", "replay_letters."];
    let others = others
        .filter(|name| !of_start.contains(name) && !elsewhere.iter().any(|part| name.starts_with(part)));
    std::thread::scope(|scope| {
        let _stopped = OnDrop(&stop);
        scope.spawn(|| produce_at([12, 6, 2, 1], &topics, &stop));
        for point in of(&["publish."]) {
            // The first is the ledger's file, the next the word of who makes checkpoints.
            first.new_ledger(&format!("{point}:1"));
            first.new_ledger(&format!("{point}:2"));
        }
        for point in of(&["claim."]).into_iter().chain(others) {
            first.die(point);
        }
        first.die(BEFORE_START);
        for point in &of_start {
            first.die(point);
        }
        for point in of(&["trim."]) {
            second.die(point);
        }
    });
    let expected = oracle::expected(&topics);
    first.ends(&expected);
    assert!(first.compared > 0, "no epoch was ever seen again");
    first.is_as_never_killed(&expected);
    assert!(delivered::check(&topics, name, &expected) > 0);
    second.ends(&expected);
    let again = files.map(|file| {
        let (epochs, again) = sunk::check(&file, &expected);
        assert!(epochs > 0, "nothing was ever given");
        std::fs::remove_file(file).unwrap();
        again
    });
    assert!(
        again[0] > 0,
        "nobody died between an epoch and the word that it was taken"
    );
    let report = ledger::verify(trimmed.path()).unwrap();
    assert!(report.trimmed.is_some(), "the ledger was never trimmed");
}

/// Processes one after the other, on one ledger.
struct Story {
    node: Node,
    hold: Duration,
    starts: usize,
    /// What any of them closed.
    history: BTreeMap<u64, Closed>,
    /// How many epochs were closed once more, and alike.
    compared: usize,
    restored: usize,
}

impl Story {
    fn new(node: Node, workers: usize, hold: Duration) -> Self {
        Self {
            node,
            hold,
            starts: workers - 1,
            history: BTreeMap::new(),
            compared: 0,
            restored: 0,
        }
    }

    /// 1, 2, 3, 1 and so on.
    fn workers(&mut self) -> usize {
        self.starts += 1;
        1 + (self.starts - 1) % 3
    }

    /// A process with the next number of workers, which dies at a point.
    fn die(&mut self, point: &str) {
        let workers = self.workers();
        let hold_ms = self.hold.as_millis();
        let fault = format!("{point}:{}:{hold_ms}", passage(point, workers));
        let run = killed(&self.node.clone().workers(workers), &fault);
        self.restored += usize::from(run.from > 0);
        self.compared += run.agrees(&mut self.history);
        self.manifests_are_whole(&fault);
        self.what_was_seen_is_bound(&fault);
    }

    /// An epoch that was seen is durable: unless it was trimmed away since, the ledger has it.
    fn what_was_seen_is_bound(&self, fault: &str) {
        let found = ledger::look(self.dir(), &claim(&self.node))
            .unwrap_or_else(|error| panic!("after {fault}: {error}"));
        let trimmed = found.trimmed.unwrap_or_default();
        let bound: BTreeSet<u64> = found.bindings.map(|binding| binding.unwrap().epoch.0).collect();
        let lost = self
            .history
            .keys()
            .find(|epoch| **epoch > trimmed.0 && !bound.contains(epoch));
        assert_eq!(
            lost, None,
            "after {fault} the ledger lacks an epoch that was closed"
        );
    }

    /// Whatever was going on, a manifest that is there has all of its files.
    fn manifests_are_whole(&self, fault: &str) {
        let store = self.checkpoints();
        for epoch in store.epochs().unwrap() {
            let whole = store.manifest(epoch).and_then(|manifest| store.verify(&manifest));
            whole.unwrap_or_else(|error| panic!("after {fault}: {error}"));
        }
    }

    fn checkpoints(&self) -> CheckpointStore {
        CheckpointStore::new(Arc::new(HostDisk), &self.dir().join("checkpoints"))
    }

    fn dir(&self) -> &Path {
        self.node.data_dir.as_deref().expect("there is one")
    }

    /// On a ledger of its own that this process was about to make: another takes it over.
    fn new_ledger(&mut self, point: &str) {
        let dir = tempfile::tempdir().unwrap();
        let workers = self.workers();
        let node = Node {
            // Rows of a ledger that ends with this are nobody's.
            delivered: None,
            ..self.node.clone()
        };
        killed(&node.workers(workers).data_dir(dir.path()), point);
        let (_held, recovered) =
            Ledger::open(dir.path(), claim(&self.node)).unwrap_or_else(|error| panic!("{point}: {error}"));
        assert_eq!(recovered.last, None, "{point}");
        let mut names = names(dir.path());
        names.retain(|name| name != "checkpoints");
        assert_eq!(names, ["ledger.log", "lock"], "{point}");
    }

    /// Nobody is killed any more, and all of the topics is counted.
    fn ends(&mut self, expected: &oracle::Rows) {
        let workers = self.workers();
        let (seen, rows) = self.node.clone().workers(workers).until_end().spawn().finish();
        let from = seen.first().map_or(u64::MAX, |first| first.epoch - 1);
        self.compared += Run { from, seen }.agrees(&mut self.history);
        oracle::compare(expected, &rows);
        assert!(self.restored > 0, "no run went on from a checkpoint");
        self.nothing_is_left_over();
    }

    /// What deaths have left half done is removed.
    fn nothing_is_left_over(&self) {
        let store = self.checkpoints();
        store.prune(2, &BTreeSet::new()).unwrap();
        let manifests = store
            .epochs()
            .unwrap()
            .into_iter()
            .map(|epoch| store.manifest(epoch).unwrap());
        let named: BTreeSet<String> = manifests
            .flat_map(|manifest| {
                manifest
                    .segments()
                    .map(|segment| segment.file.clone())
                    .collect::<Vec<_>>()
            })
            .collect();
        let odd = |name: &String| !named.contains(name) && !name.ends_with(".json");
        let odd: Vec<String> = names(&store.dir).into_iter().filter(odd).collect();
        // Who makes checkpoints here is said once.
        assert!(
            odd.len() == 1 && odd[0].starts_with("owner-"),
            "left over: {odd:?}"
        );
        assert_eq!(names(self.dir()), ["checkpoints", "ledger.log", "lock"]);
    }

    /// One process goes through the same bindings from the first on, without checkpoints: every epoch that
    /// any of the others has closed is the same in it, and so are the rows at the end.
    fn is_as_never_killed(&self, expected: &oracle::Rows) {
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(self.dir().join("ledger.log"), copy.path().join("ledger.log")).unwrap();
        let mut node = self.node.clone().workers(2).data_dir(copy.path()).until_end();
        // Views reach back as far as it takes for none to be missed.
        (node.checkpoints, node.history) = (None, None);
        let file = copy.path().join("sunk");
        let (seen, rows) = node.sunk(&file).spawn().finish();
        oracle::compare(expected, &rows);
        assert_eq!(sunk::check(&file, expected).1, 0, "given again");
        let compared = Run { from: 0, seen }.agrees(&mut self.history.clone());
        assert_eq!(compared, self.history.len(), "an epoch is gone");
    }
}

pub fn claim(node: &Node) -> Claim {
    Claim {
        app: node.group.clone(),
        dataflow: "spend".into(),
        build: "1".into(),
        sources: Vec::new(),
    }
}

/// What a process says until it dies at a point, as it must.
fn killed(node: &Node, fault: &str) -> Run {
    let mut process = node.clone().fault(fault).spawn();
    let (mut run, deadline) = (Run::default(), Instant::now() + PATIENCE / 2);
    while let Some(said) = process.next() {
        run.hear(said);
        assert!(
            Instant::now() < deadline,
            "{fault} was never reached with {} workers; {} epochs were closed",
            node.workers,
            run.seen.len()
        );
    }
    let point = fault.split(':').next().unwrap_or(fault);
    assert_eq!(process.killed_at().as_deref(), Some(point));
    run
}

/// How often a process passes a point before it dies there: some are passed in every start.
pub fn passage(point: &str, workers: usize) -> usize {
    match point {
        // Every shard makes one at the start.
        _ if point.starts_with("kafka_sink.") && point != "kafka_sink.fenced" => 6,
        // Between the claim and the first binding under it.
        "binding.begun" => 1,
        // Some have been given then in this run.
        _ if point.starts_with("sink.") => 4,
        "restore.entry" => 20 * workers,
        // A start says who makes checkpoints, and whose they are; the next is a manifest.
        "publish.done" => 2,
        _ if point.starts_with("publish.") => 3,
        // Most of the first are left over from the process before; these are an old manifest's.
        "prune.file" => 40,
        // At the start it removes what the one before has left.
        "prune.done" => 3,
        // Behind a trim of its own it has to have written on.
        _ if point.starts_with("trim.") && workers != 2 => 2,
        _ if point.starts_with("epoch.") => 5 * workers,
        _ if point.starts_with("binding.") => 3 * workers,
        _ => 1,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
