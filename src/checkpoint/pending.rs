//! A checkpoint in progress, and what a process's threads share about it.
//!
//! ```text
//!   sequencer's worker   begin(s, base) ─────────────────────┐
//!   workers              pieces of every step … done(bounds) ─┤
//!   first worker         closed(s, sets)  ────────────────────┼─▶ writer: segments ─▶ sync ─▶ manifest ─▶ merge ─▶ prune
//!   ledger's thread      chain(s) ────────────────────────────┘
//! ```
//!
//! The manifest is written once the epoch is closed, which requires that its binding is durable. An error
//! fails this checkpoint only: it is logged, nothing is lost, and the next checkpoint includes the changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use super::manifest::{Lineage, RetentionBounds};
use super::owner::Owner;
use super::segment::Chunk;
use crate::error::Error;
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// Some entries of a step.
pub(crate) struct StateChunk {
    pub(crate) step: usize,
    pub(crate) chunk: Chunk,
    pub(crate) entries: u64,
}

pub(super) enum WriterMessage {
    Begin(Arc<PendingCheckpoint>, EpochBinding),
    /// A checkpoint that another process writes.
    Join(Arc<PendingCheckpoint>),
    Chunk(StateChunk),
    /// Data to be dropped.
    Discard(Box<dyn Send>),
    Done(Vec<RetentionBounds>),
    Closed(Vec<(Vec<SourceId>, EventTime)>, Epoch),
    Chain(String),
    /// Ends the writer.
    End,
}

/// A checkpoint as of one epoch, shared by everyone who contributes to it.
pub(crate) struct PendingCheckpoint {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// Whether the previous checkpoint failed.
    pub(crate) retry: bool,
    pub(super) to: Sender<WriterMessage>,
    pub(super) held: Arc<AtomicUsize>,
    /// The names of all steps.
    pub(super) steps: Arc<[String]>,
    pub(super) failed: Mutex<Option<Error>>,
}

impl PendingCheckpoint {
    pub(crate) fn send(&self, piece: StateChunk) {
        self.held.fetch_add(piece.chunk.bytes.len(), Ordering::Relaxed);
        self.tell(WriterMessage::Chunk(piece));
    }

    /// Reports that a worker has sent all of its entries.
    pub(crate) fn done(&self, bounds: Vec<RetentionBounds>) {
        self.tell(WriterMessage::Done(bounds));
    }

    pub(crate) fn discard(&self, old: Box<dyn Send>) {
        self.tell(WriterMessage::Discard(old));
    }

    pub(crate) fn fail(&self, error: Error) {
        self.failed.lock().get_or_insert(error);
    }

    /// Like [`fail`](Self::fail), with the step whose state caused it.
    pub(crate) fn fail_at(&self, step: usize, error: Error) {
        let mut failed = self.failed.lock();
        failed.get_or_insert_with(|| match self.steps.get(step) {
            Some(name) => error.detail(format!("in the state of `{name}`")),
            None => error,
        });
    }

    /// Whether so much is queued for the writer that workers should pause saving.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.held.load(Ordering::Relaxed) > HELD_MAX
    }

    pub(super) fn tell(&self, message: WriterMessage) {
        // The writer only ends early after a halt.
        let _ended = self.to.send(message);
    }
}

/// Bytes queued for the writer above which workers pause saving.
const HELD_MAX: usize = 64 << 20;

/// Keeps the floors of views at or below an epoch; the greatest [`Epoch`] releases them.
pub(crate) type FloorHold = Arc<dyn Fn(Epoch) + Send + Sync>;

/// State shared by the writer and the workers.
#[derive(Default)]
pub(super) struct CheckpointState {
    /// Whether a checkpoint is in progress, or segments are being merged.
    pub(super) busy: AtomicBool,
    pub(super) retry: AtomicBool,
    pub(super) ended: AtomicBool,
    /// The epoch of the checkpoint in progress, or 0.
    pub(super) epoch: AtomicU64,
    /// The epoch of the newest complete checkpoint.
    pub(super) newest: AtomicU64,
    /// The epoch up to which no kept checkpoint needs bindings.
    pub(super) trimmable: AtomicU64,
    /// Why the last checkpoint failed, if it did.
    pub(super) trouble: Mutex<Option<String>>,
}

/// The writer's identity.
pub(crate) struct WriterIdentity {
    pub(crate) app: String,
    pub(crate) dataflow: String,
    pub(crate) build: String,
    pub(crate) lineage: Lineage,
    pub(crate) owner: Owner,
}
