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

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use super::manifest::{Lineage, StepFiles, StepShape};
use super::owner::Owner;
use super::segment::Chunk;
use super::state::Bounds;
use super::store::{Restored, Store};
use super::writer::Writer;
use crate::error::Error;
use crate::fault;
use crate::metrics::CheckpointMetrics;
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
pub struct Job {
    /// As of this epoch.
    pub(crate) epoch: Epoch,
    /// Whether the one before came to nothing.
    pub(crate) again: bool,
    to: Sender<Message>,
    held: Arc<AtomicUsize>,
    /// The names of all steps.
    steps: Arc<[String]>,
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

    fn tell(&self, message: Message) {
        // The writer ends after a halt only.
        let _ended = self.to.send(message);
    }
}

/// Bytes that may wait to be written before workers stop saving for a while.
const HELD_MAX: usize = 64 << 20;

/// What a process's threads know of its checkpoints.
pub struct Checkpoints {
    to: Sender<Message>,
    held: Arc<AtomicUsize>,
    state: Arc<State>,
    steps: Arc<[String]>,
    job: Mutex<Option<Arc<Job>>>,
    hold: Hold,
}

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

impl Checkpoints {
    /// The checkpoints of a process with so many workers, of which so many are kept. `hold` keeps views
    /// readable from an epoch on, while one is made.
    pub(crate) fn new(
        store: Store,
        identity: Identity,
        shapes: Vec<StepShape>,
        (workers, keep): (usize, usize),
        restored: Option<&Restored>,
        metrics: CheckpointMetrics,
        hold: Hold,
    ) -> (Self, Writer) {
        let (to, from) = channel();
        let (held, state) = (Arc::<AtomicUsize>::default(), Arc::<State>::default());
        let names = shapes.iter().map(|shape| shape.identity.to_string()).collect();
        let files = |(step, shape): (usize, StepShape)| {
            let held = restored.and_then(|restored| restored.files(step));
            held.cloned().unwrap_or(StepFiles {
                shape,
                cut: EventTime::MIN,
                floor: Epoch::ZERO,
                segments: Vec::new(),
            })
        };
        let steps = shapes.into_iter().enumerate().map(files).collect();
        let mut bases = VecDeque::new();
        if let Some(Restored { manifest, .. }) = restored {
            bases.extend(manifest.from.clone());
            bases.push_back(manifest.at.clone());
            metrics.restored(manifest.epoch, manifest.bytes());
            state.newest.store(manifest.epoch.0, Ordering::Release);
        }
        let writer = Writer {
            store,
            identity,
            claimed: false,
            workers,
            keep,
            from,
            held: held.clone(),
            state: state.clone(),
            steps,
            bases,
            metrics,
            hold: hold.clone(),
            current: None,
            suspects: Vec::new(),
        };
        let job = Mutex::new(None);
        let own = Self {
            to,
            held,
            state,
            steps: names,
            job,
            hold,
        };
        (own, writer)
    }

    /// Whether one may begin.
    pub(crate) fn is_free(&self) -> bool {
        !self.state.busy.load(Ordering::Acquire)
    }

    /// Begins one as of `at.epoch`, which no worker has heard of yet.
    pub(crate) fn begin(&self, at: EpochBinding) {
        self.state.busy.store(true, Ordering::Release);
        // Views have to be saved as they can be asked now, back to their floors.
        (self.hold)(Epoch::ZERO);
        self.state.epoch.store(at.epoch.0, Ordering::Release);
        let job = Arc::new(Job {
            epoch: at.epoch,
            again: self.state.again.load(Ordering::Acquire),
            to: self.to.clone(),
            held: self.held.clone(),
            steps: self.steps.clone(),
            failed: Mutex::default(),
        });
        *self.job.lock() = Some(job.clone());
        job.tell(Message::Begin(job.clone(), at));
        fault::point("checkpoint.begun");
    }

    /// The checkpoint as of `epoch`.
    pub(crate) fn job(&self, epoch: Epoch) -> Option<Arc<Job>> {
        self.job.lock().clone().filter(|job| job.epoch == epoch)
    }

    /// Whether one is on its way as of `epoch`.
    pub(crate) fn is_at(&self, epoch: Epoch) -> bool {
        self.state.epoch.load(Ordering::Acquire) == epoch.0
    }

    /// The ledger's chain hash behind the epoch that was asked for.
    pub(crate) fn chain(&self, chain: String) {
        let _ended = self.to.send(Message::Chain(chain));
    }

    /// The checkpoint's epoch is closed, and views can be asked for epochs from `floor` on.
    pub(crate) fn closed(&self, sets: Vec<(Vec<SourceId>, EventTime)>, floor: Epoch) {
        let _ended = self.to.send(Message::Closed(sets, floor));
    }

    /// The newest checkpoint that counts.
    pub fn newest(&self) -> Option<Epoch> {
        Some(Epoch(self.state.newest.load(Ordering::Acquire))).filter(|epoch| *epoch > Epoch::ZERO)
    }

    /// Why the last one came to nothing, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.state.trouble.lock().clone()
    }

    /// The ledger's bindings up to here are needed by no checkpoint that is kept.
    pub(crate) fn unneeded(&self) -> Epoch {
        Epoch(self.state.unneeded.load(Ordering::Acquire))
    }

    /// Lets the writer come to its end; one that is on its way is given up.
    pub(crate) fn end(&self) {
        self.state.ended.store(true, Ordering::Release);
        let _ended = self.to.send(Message::End);
    }
}
