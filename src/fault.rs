//! Named places between any two steps at which a process can be made to die, as `kill -9` would have it: for
//! tests.
//!
//! ```text
//!   append ── point("binding.appended") ── fdatasync ── point("binding.synced") ── …
//!                     │
//!                     └─ THALWEG_FAULT=binding.appended:3      the third passage raises SIGKILL
//!                                      binding.appended:3:30   after it has stood there for 30 ms, while all others go on
//! ```
//!
//! Points are compiled with debug assertions only: in a release a point is nothing at all. The table says
//! what stands on the disk as a point is passed; a test holds that it has every point of the code once, and
//! `tests/kafka/faults.rs` dies at each.

/// A place at which a process can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultPoint {
    /// What it is called in the code and in `THALWEG_FAULT`.
    pub name: &'static str,
    /// What was done before it, and what comes behind it.
    pub between: &'static str,
}

const fn at(name: &'static str, between: &'static str) -> FaultPoint {
    FaultPoint { name, between }
}

/// All points, in the order in which a run comes to them.
pub const POINTS: &[FaultPoint] = &[
    // A file that appears as a whole: the ledger with its header, a checkpoint's manifest.
    at("publish.drafted", "the draft is written | it is synced"),
    at("publish.synced", "the draft is synced | it is linked to its name"),
    at("publish.linked", "the file has its name | the draft's is removed"),
    at(
        "publish.removed",
        "the draft's name is gone | the directory is synced",
    ),
    at(
        "publish.done",
        "the directory is synced | whoever asked for it is told",
    ),
    // A start takes the ledger over.
    at("claim.begun", "the ledger is read | the claim is appended"),
    at("claim.appended", "the claim is appended | it is synced"),
    at(
        "claim.synced",
        "the claim is synced | the ledger is read up to it",
    ),
    at(
        "claim.counted",
        "the claim is the first of its generation | drafts of others are removed",
    ),
    at(
        "claim.held",
        "the ledger is this process's | it looks for a checkpoint",
    ),
    at(
        "owner.written",
        "its generation stands beside the checkpoints | the words of earlier ones are removed",
    ),
    at(
        "owner.alone",
        "no earlier generation stands there | it looks for a checkpoint",
    ),
    // It goes on from a checkpoint.
    at("restore.chosen", "a whole checkpoint is found | workers begin"),
    at("restore.entry", "an entry is loaded | the next one is"),
    at("restore.step", "all of a step is loaded | the next step is"),
    at(
        "restore.built",
        "a worker has all its state | it takes its first step",
    ),
    at(
        "restore.skipped",
        "a binding up to the checkpoint is gone through | the next one is",
    ),
    at(
        "restore.arrived",
        "the hash chain is the manifest's | bindings behind it are replayed",
    ),
    at(
        "restore.giving",
        "a step gives some of its rows once more | all are given",
    ),
    at(
        "restore.given",
        "a step has given its rows once more | the checkpoint's epoch passes",
    ),
    at(
        "replay.given",
        "a binding of an earlier run is given out | the next one is",
    ),
    at(
        "replay.ended",
        "all bindings of earlier runs are given out | the service is live",
    ),
    at(
        "replay.live",
        "the workers are told that they are live | they hear it",
    ),
    // An epoch.
    at(
        "epoch.opened",
        "the sequencer has opened an epoch | a checkpoint may begin as of it",
    ),
    at(
        "epoch.bound",
        "the binding is on its way to the ledger | workers are told",
    ),
    at(
        "epoch.released",
        "a reader has released the records of an epoch | what is of them is computed",
    ),
    at("epoch.applied", "changes are in a view | their epoch is closed"),
    at(
        "epoch.passed",
        "the frontier has passed an epoch | readers see it",
    ),
    at(
        "epoch.closed",
        "readers see an epoch | the sequencer hears of its results",
    ),
    at(
        "epoch.told",
        "the results are on their way to the sequencer | checkpoints hear that it is closed",
    ),
    // A sink takes it.
    at("sink.given", "a sink is about to be given epochs | it is"),
    at("sink.written", "the sink has taken them | that is written down"),
    // A Kafka sink's transaction.
    at(
        "kafka_sink.fenced",
        "older producers of the shard are fenced | what was committed is read",
    ),
    at("kafka_sink.begun", "a transaction is begun | its rows are sent"),
    at(
        "kafka_sink.sent",
        "its rows are on their way | they are acknowledged",
    ),
    at(
        "kafka_sink.settled",
        "rows and progress are in the log | they are committed",
    ),
    at("kafka_sink.committed", "they are committed | the task records it"),
    // Of a replay of dead letters.
    at(
        "replay_letters.sent",
        "records are in the log | so is what was replayed",
    ),
    at(
        "replay_letters.committed",
        "both are committed | the next are read",
    ),
    // A Postgres sink's.
    at(
        "postgres_sink.locked",
        "the shard's progress is read and locked | the claim is written",
    ),
    at(
        "postgres_sink.claimed",
        "the claim is committed | rows behind the progress are written",
    ),
    at(
        "postgres_sink.advanced",
        "a transaction has moved the progress on | its rows are written",
    ),
    at(
        "postgres_sink.written",
        "rows and progress are written | they are committed",
    ),
    at(
        "postgres_sink.committed",
        "they are committed | the task records it",
    ),
    at(
        "sink.recorded",
        "that is durable | a checkpoint of them may count",
    ),
    // Its binding becomes durable.
    at("binding.begun", "a group of bindings waits | it is appended"),
    at("binding.appended", "the group is appended | it is synced"),
    at(
        "binding.synced",
        "the group is synced | the owner takes it for its own",
    ),
    at("binding.durable", "the group is durable | the sequencer is told"),
    at("binding.told", "the sequencer is told | trimming has its turn"),
    // A checkpoint.
    at("checkpoint.begun", "a checkpoint is begun | workers are told"),
    at("checkpoint.frozen", "a worker has begun to save | its next step"),
    at(
        "checkpoint.chained",
        "the hash chain behind the epoch is told | the rest of the group is written",
    ),
    at(
        "checkpoint.place",
        "whose checkpoints these are is written | the first segment is",
    ),
    at("checkpoint.piece", "some entries are written | the next ones are"),
    at(
        "checkpoint.whole",
        "all entries are there and the epoch is closed | segments are finished",
    ),
    at("segment.written", "all of a segment is written | it is synced"),
    at("segment.synced", "a segment is synced | the next one is finished"),
    at(
        "checkpoint.segments",
        "all segments are synced | their directory is",
    ),
    at(
        "checkpoint.named",
        "the names of the segments are durable | the manifest is published",
    ),
    at(
        "checkpoint.published",
        "the manifest is there for good | the writer takes it for the newest",
    ),
    at("checkpoint.counted", "it is the newest | segments are merged"),
    // Its files afterwards.
    at("merge.begun", "two segments are due | they are merged"),
    at(
        "merge.written",
        "the merged segment is written and synced | the two are replaced by it",
    ),
    at(
        "merge.done",
        "all that was due is merged | old checkpoints are removed",
    ),
    at("prune.manifest", "an old manifest is removed | its files are"),
    at(
        "prune.file",
        "a file that no manifest names is removed | the next one is",
    ),
    at(
        "prune.done",
        "old checkpoints are gone | the ledger may be trimmed up to there",
    ),
    at("checkpoint.done", "all of it is over | the next one may begin"),
    // The ledger's beginning goes.
    at("trim.begun", "a trim is due | the draft is made"),
    at("trim.drafted", "the draft is written | it is synced"),
    at("trim.prepared", "the draft is synced | the owner takes it"),
    at("trim.tail", "what was written meanwhile is copied | it is synced"),
    at(
        "trim.synced",
        "all of the new file is synced | it is renamed over the old one",
    ),
    at(
        "trim.renamed",
        "the new file has the name | the directory is synced",
    ),
    at("trim.durable", "the directory is synced | the new file is opened"),
    at("trim.done", "the owner goes on in the new file | it writes there"),
];

/// Ends the process here, if the variable says so.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub(crate) fn point(_name: &'static str) {}

#[cfg(debug_assertions)]
pub(crate) use armed::point;

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    /// Which point, how many passages are left up to the last, and how long that one stands there before it
    /// dies.
    struct Armed {
        name: String,
        left: AtomicU64,
        hold: Duration,
    }

    fn armed() -> Option<&'static Armed> {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let read = || {
            let said = std::env::var("THALWEG_FAULT")
                .ok()
                .filter(|said| !said.is_empty())?;
            let mut parts = said.split(':');
            let name = parts
                .next()
                .filter(|name| super::POINTS.iter().any(|point| point.name == *name));
            let passage = parts.next().map_or(Ok(1), str::parse);
            let hold_ms = parts.next().map_or(Ok(0), str::parse);
            let (Some(name), Ok(passage @ 1..), Ok(hold_ms), None) = (name, passage, hold_ms, parts.next())
            else {
                panic!("THALWEG_FAULT={said}: there is no such point, or no such passage");
            };
            Some(Armed {
                name: name.to_owned(),
                left: AtomicU64::new(passage),
                hold: Duration::from_millis(hold_ms),
            })
        };
        ARMED.get_or_init(read).as_ref()
    }

    /// Ends the process here, if the variable says so: at once, whatever other threads are at.
    pub(crate) fn point(name: &'static str) {
        if let Some(armed) = armed()
            && armed.name == name
            && armed.left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            // Whatever was told too early, others now have the time to act on.
            std::thread::sleep(armed.hold);
            die(name);
        }
    }

    fn die(name: &str) {
        let last = format!("\nkilled at {name}\n");
        // SAFETY: plain system calls. No lock is taken: another thread may hold any.
        unsafe {
            libc::write(libc::STDERR_FILENO, last.as_ptr().cast(), last.len());
            libc::kill(libc::getpid(), libc::SIGKILL);
        }
    }
}
