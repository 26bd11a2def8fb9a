//! One checkpoint on its way, and what a process's threads know of it.
//!
//! ```text
//!   sequencer's worker   begin(s, base) ─────────────────────┐
//!   workers              pieces of every step … done(bounds) ─┤
//!   first worker         closed(s, sets)  ────────────────────┼─▶ writer: segments ─▶ sync ─▶ manifest ─▶ merge ─▶ prune
//!   ledger's thread      chain(s) ────────────────────────────┘
//! ```
//!
//! The manifest is written once the epoch is closed, which it is only when its binding is durable. What goes
//! wrong fails the one checkpoint: it is said, nothing is lost, and the next one saves what this one did not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use parking_lot::Mutex;

use super::manifest::{Bounds, Lineage};
use super::owner::Owner;
use super::segment::Chunk;
use crate::error::Error;
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// Some entries of a step.
pub(crate) struct Piece {
    pub(crate) step: usize,
    pub(crate) chunk: Chunk,
    pub(crate) entries: u64,
}

pub(super) enum Message {
    Begin(Arc<Job>, EpochBinding),
    Piece(Piece),
    /// To be dropped.
    Discard(Box<dyn Send>),
    Done(Vec<Bounds>),
    Closed(Vec<(Vec<SourceId>, EventTime)>, Epoch),
    Chain(String),
    /// Nothing further begins.
    End,
}

/// A checkpoint as of one epoch, for those who have a part in it.
pub(crate) struct Job {
    /// As of this epoch.
    pub(crate) epoch: Epoch,
    /// Whether the one before came to nothing.
    pub(crate) again: bool,
    pub(super) to: Sender<Message>,
    pub(super) held: Arc<AtomicUsize>,
    /// The names of all steps.
    pub(super) steps: Arc<[String]>,
    pub(super) failed: Mutex<Option<Error>>,
}

impl Job {
    pub(crate) fn send(&self, piece: Piece) {
        self.held.fetch_add(piece.chunk.bytes.len(), Ordering::Relaxed);
        self.tell(Message::Piece(piece));
    }

    /// A worker has sent all of its pieces.
    pub(crate) fn done(&self, bounds: Vec<Bounds>) {
        self.tell(Message::Done(bounds));
    }

    pub(crate) fn discard(&self, old: Box<dyn Send>) {
        self.tell(Message::Discard(old));
    }

    pub(crate) fn fail(&self, error: Error) {
        self.failed.lock().get_or_insert(error);
    }

    /// As [`fail`](Self::fail), for the state of a step.
    pub(crate) fn fail_at(&self, step: usize, error: Error) {
        let mut failed = self.failed.lock();
        failed.get_or_insert_with(|| match self.steps.get(step) {
            Some(name) => error.detail(format!("in the state of `{name}`")),
            None => error,
        });
    }

    /// Whether so much waits to be written that savers had better wait.
    pub(crate) fn is_crowded(&self) -> bool {
        self.held.load(Ordering::Relaxed) > HELD_MAX
    }

    pub(super) fn tell(&self, message: Message) {
        // The writer ends after a halt only.
        let _ended = self.to.send(message);
    }
}

/// Bytes that may wait to be written before workers stop saving for a while.
const HELD_MAX: usize = 64 << 20;

/// No floor of a view rises above an epoch; [`Epoch`]'s greatest ends that.
pub(crate) type Hold = Arc<dyn Fn(Epoch) + Send + Sync>;

/// What writer and workers share.
#[derive(Default)]
pub(super) struct State {
    /// A checkpoint is on its way, or segments are being merged.
    pub(super) busy: AtomicBool,
    pub(super) again: AtomicBool,
    pub(super) ended: AtomicBool,
    /// The epoch of the checkpoint that is on its way; 0: none.
    pub(super) epoch: AtomicU64,
    /// The newest that counts.
    pub(super) newest: AtomicU64,
    /// What is bound up to here no checkpoint that is kept asks for.
    pub(super) unneeded: AtomicU64,
    /// Why the last one came to nothing, if it did.
    pub(super) trouble: Mutex<Option<String>>,
}

/// Who writes.
pub(crate) struct Identity {
    pub(crate) app: String,
    pub(crate) dataflow: String,
    pub(crate) build: String,
    pub(crate) lineage: Lineage,
    pub(crate) owner: Owner,
}
