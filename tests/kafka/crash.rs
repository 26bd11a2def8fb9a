//! Killed at any moment, and started again on the same ledger: nothing is lost, nothing counted twice, and no
//! epoch that a reader has seen becomes another one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::load::{Random, Till, Topics};
use super::node::{Closed, Node, Said};
use super::oracle;
use super::{delivered, sunk};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

const KILLS: usize = 9;

#[test]
fn kill_9_at_any_moment_changes_nothing() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, "crash");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sunk");
    let live = Node::of(&topics, &registry.url())
        .data_dir(dir.path())
        .delivered("crash")
        .sunk(&file);
    let stop = AtomicBool::new(false);
    let mut random = Random(41);
    let mut history: Vec<Closed> = Vec::new();
    std::thread::scope(|scope| {
        let _stopped = OnDrop(&stop);
        // Records keep coming, so that every incarnation gets past the replay and is killed while it reads
        // on.
        scope.spawn(|| produce(&topics, &stop));
        for kill in 0..KILLS {
            // A restart may have another number of workers.
            let mut process = live.clone().workers(1 + kill % 2).spawn();
            // Of three kills one is in the replay, at least one beyond it.
            let replayed = history.len() as u64;
            let upto = match kill % 3 {
                2 => random.below(replayed.max(1)),
                _ => replayed + random.below(60),
            };
            let mut seen = Vec::new();
            while seen.len() as u64 <= upto {
                seen.extend(closed(process.next().expect("a node that was not killed runs")));
            }
            process.kill9();
            // It has said more before it died than was listened to.
            while let Some(said) = process.next() {
                seen.extend(closed(said));
            }
            keep(&mut history, seen);
        }
    });
    let (seen, rows) = live.until_end().workers(2).spawn().finish();
    assert!(
        seen.len() >= history.len(),
        "{} epochs were seen, {} are left",
        history.len(),
        seen.len()
    );
    keep(&mut history, seen);
    let expected = oracle::expected(&topics);
    oracle::compare(&expected, &rows);
    sunk::check(&file, &expected);
    delivered::check(&topics, "crash", &expected);
}

/// The same with checkpoints all the while, a ledger that is trimmed behind them, and another number of
/// workers after each kill: a run goes on from one, and what it changes is what the runs before it changed in
/// the same epochs.
#[test]
fn kill_9_between_checkpoints_changes_nothing() {
    killed_between_checkpoints("checkpoints", KILLS, |node| {
        node.checkpoints(Duration::from_millis(20))
    });
}

/// And with the checkpoints in a bucket.
#[cfg(feature = "object-store")]
#[test]
fn kill_9_between_checkpoints_in_a_bucket_changes_nothing() {
    let store = crate::support::s3::Bucket::shared();
    killed_between_checkpoints("bucket", 5, |node| {
        node.checkpoints(Duration::from_millis(100)).bucket(&store.url())
    });
}

fn killed_between_checkpoints(name: &str, kills: usize, kept: impl Fn(Node) -> Node) {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, name);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sunk");
    let live = Node::of(&topics, &registry.url())
        .data_dir(dir.path())
        .delivered(name)
        .sunk(&file);
    let live = kept(live).history(Duration::from_millis(100));
    let stop = AtomicBool::new(false);
    let mut random = Random(43);
    let (mut history, mut restored) = (BTreeMap::new(), 0);
    std::thread::scope(|scope| {
        let _stopped = OnDrop(&stop);
        scope.spawn(|| produce(&topics, &stop));
        for kill in 0..kills {
            let mut process = live.clone().workers([1, 2, 3][kill % 3]).spawn();
            // Of three runs one is long enough to let go of the ledger's beginning.
            let upto = if kill % 3 == 1 { 300 } else { 1 + random.below(80) };
            let mut run = Run::default();
            while run.seen.len() as u64 <= upto {
                run.hear(process.next().expect("a node that was not killed runs"));
            }
            process.kill9();
            while let Some(said) = process.next() {
                run.hear(said);
            }
            restored += usize::from(run.from > 0);
            run.agrees(&mut history);
        }
    });
    assert!(
        restored > kills / 2,
        "only {restored} runs went on from a checkpoint"
    );
    let ledger = thalweg::ledger::verify(dir.path()).unwrap();
    assert!(ledger.trimmed.is_some(), "the ledger was never trimmed");
    let (seen, rows) = live.until_end().workers(2).spawn().finish();
    let last = Run {
        from: seen.first().map_or(u64::MAX, |first| first.epoch - 1),
        seen,
    };
    last.agrees(&mut history);
    let bound = thalweg::ledger::verify(dir.path()).unwrap().bindings;
    assert!(
        bound >= history.len() as u64,
        "{bound} epochs are left of {}",
        history.len()
    );
    let expected = oracle::expected(&topics);
    oracle::compare(&expected, &rows);
    sunk::check(&file, &expected);
    delivered::check(&topics, name, &expected);
}

/// What one incarnation said.
#[derive(Default)]
pub struct Run {
    /// The epoch of the checkpoint that it went on from; 0: none.
    pub from: u64,
    pub seen: Vec<Closed>,
}

impl Run {
    pub fn hear(&mut self, said: Said) {
        match said {
            Said::Restored(from) => self.from = from.unwrap_or(0),
            said => self.seen.extend(closed(said)),
        }
    }

    /// Whether the epochs that others saw after the checkpoint were seen again with the same changes. Views
    /// don't look far back here, so a slow listener may miss some; how many there were the ledger knows.
    /// Returns how many were compared.
    pub fn agrees(self, history: &mut BTreeMap<u64, Closed>) -> usize {
        let mut compared = 0;
        assert!(
            self.seen.is_sorted_by(|a, b| a.epoch < b.epoch),
            "epochs went back"
        );
        let last = self.seen.last().map_or(0, |closed| closed.epoch);
        let seen: BTreeMap<u64, Closed> = self
            .seen
            .into_iter()
            .map(|closed| (closed.epoch, closed))
            .collect();
        for (epoch, before) in history
            .range(self.from.min(last)..=last)
            .skip_while(|(e, _)| **e <= self.from)
        {
            let Some(now) = seen.get(epoch) else { continue };
            compared += 1;
            for (view, hash) in &now.hashes {
                let was = before.hashes.get(view).unwrap_or(hash);
                assert_eq!(was, hash, "epoch {epoch} of {view} is no longer what it was");
            }
        }
        history.extend(seen);
        compared
    }
}

pub fn closed(said: Said) -> Option<Closed> {
    match said {
        Said::Closed(closed) => Some(closed),
        Said::Open(_) | Said::Live | Said::Restored(_) => None,
        Said::Rows(_) | Said::Failed(_) => panic!("a node that should run says {said:?}"),
    }
}

/// What one incarnation has seen is the beginning of what another sees: the same epochs, in the same order,
/// with the same changes in every view.
fn keep(history: &mut Vec<Closed>, seen: Vec<Closed>) {
    for (at, (before, now)) in history.iter().zip(&seen).enumerate() {
        assert_eq!(before, now, "the {at}th epoch is no longer what it was");
    }
    assert!(seen.is_sorted_by(|a, b| a.epoch < b.epoch), "epochs went back");
    if seen.len() > history.len() {
        *history = seen;
    }
}

/// A ledger that hangs: its thread is frozen, while records keep coming and all else runs.
#[test]
fn nothing_is_closed_before_it_is_durable() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, "frozen");
    let dir = tempfile::tempdir().unwrap();
    let node = Node::of(&topics, &registry.url()).data_dir(dir.path());
    let stop = AtomicBool::new(false);
    let mut seen: Vec<Closed> = Vec::new();
    std::thread::scope(|scope| {
        let _stopped = OnDrop(&stop);
        scope.spawn(|| produce(&topics, &stop));
        let mut process = node.spawn();
        while seen.len() < 20 {
            seen.extend(closed(process.next().expect("the node runs")));
        }
        let frozen = Frozen::thread(process.id(), "ledger");
        let durable = thalweg::ledger::verify(dir.path())
            .unwrap()
            .last
            .expect("epochs were closed")
            .0;
        // Open epochs pile up to their bound, and there they stay, however long one looks.
        let mut looks = 0;
        while looks < 100 {
            match process.next().expect("the node runs") {
                Said::Open(open) if open >= 3 => looks += 1,
                Said::Open(_) | Said::Live | Said::Restored(_) => {}
                said => seen.extend(closed(said)),
            }
            let newest = seen.last().expect("there are 20").epoch;
            assert!(
                newest <= durable,
                "epoch {newest} is closed, the ledger ends with {durable}"
            );
        }
        process.signal_kill();
        frozen.reap();
        process.kill9();
        while let Some(said) = process.next() {
            seen.extend(closed(said));
        }
    });
    let (mut history, rows) = node.until_end().spawn().finish();
    keep(&mut history, seen);
    oracle::compare(&oracle::expected(&topics), &rows);
}

/// One thread of another process, stopped by ptrace. To be used by the thread that made it.
struct Frozen(libc::pid_t);

impl Frozen {
    fn thread(process: u32, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let named = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = tasks
            .flatten()
            .find(named)
            .unwrap_or_else(|| panic!("no thread `{name}`"));
        let thread: libc::pid_t = task.file_name().to_str().and_then(|id| id.parse().ok()).unwrap();
        let none = std::ptr::null_mut::<libc::c_void>();
        let mut status = 0;
        // SAFETY: plain system calls on a thread of a child of this process.
        let stopped = unsafe {
            libc::ptrace(libc::PTRACE_SEIZE, thread, none, none) == 0
                && libc::ptrace(libc::PTRACE_INTERRUPT, thread, none, none) == 0
                && libc::waitpid(thread, &raw mut status, libc::__WALL) == thread
        };
        assert!(
            stopped,
            "thread {thread} can't be stopped: {}",
            std::io::Error::last_os_error()
        );
        Self(thread)
    }

    /// Takes note of its end, once its process was killed: until then the process can't be waited for.
    fn reap(self) {
        let mut status = 0;
        // SAFETY: as above.
        while unsafe { libc::waitpid(self.0, &raw mut status, libc::__WALL) } == self.0
            && !libc::WIFSIGNALED(status)
            && !libc::WIFEXITED(status)
        {}
    }
}

/// Lets it go, for a test that fails: nobody could wait for the process otherwise.
impl Drop for Frozen {
    fn drop(&mut self) {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: as above; of a thread that has ended it is an error without effect.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, none, none) };
    }
}

/// Writes to all partitions, bit by bit, until it is told to stop.
pub fn produce(topics: &Topics<'_>, stop: &AtomicBool) {
    produce_at([60, 30, 10, 3], topics, stop);
}

/// The same, so many records of each partition at a time.
pub fn produce_at(rates: [usize; 4], topics: &Topics<'_>, stop: &AtomicBool) {
    let mut tills = [3, 7, 20, 60]
        .into_iter()
        .zip(0..)
        .map(|(step, p)| Till::new(23, p, step))
        .collect::<Vec<_>>();
    let mut merchants = Random(3);
    while !stop.load(Ordering::Acquire) {
        topics.write_merchants(&mut merchants, 3);
        for ((partition, till), records) in (0..).zip(&mut tills).zip(rates) {
            topics.write(&topics.payments, partition, &till.take(topics, records));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the producer also when a node fails the test.
pub struct OnDrop<'a>(pub &'a AtomicBool);
impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
