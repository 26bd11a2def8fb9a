//! Begins checkpoints, and tells the threads of a process about the one in progress.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use super::manifest::{StepFiles, StepSignature};
use super::pending::{CheckpointState, FloorHold, PendingCheckpoint, WriterIdentity, WriterMessage};
use super::relay::{CheckpointRelay, RelayedPart};
use super::store::{CheckpointStore, RestoredCheckpoint};
use super::writer::CheckpointWriter;
use crate::fault;
use crate::metrics::CheckpointMetrics;
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// A process's handle on its checkpoints.
pub struct Checkpoints {
    to: Sender<WriterMessage>,
    held: Arc<AtomicUsize>,
    state: Arc<CheckpointState>,
    steps: Arc<[String]>,
    job: Mutex<Option<Arc<PendingCheckpoint>>>,
    hold: FloorHold,
    /// Whether another process writes them.
    relayed: bool,
}

impl Checkpoints {
    /// The checkpoints of a process with this many workers; `keep` of them are kept. `hold` keeps views
    /// readable from an epoch on while a checkpoint is in progress.
    pub(crate) fn new(
        store: CheckpointStore,
        identity: WriterIdentity,
        shapes: Vec<StepSignature>,
        (workers, keep): (usize, usize),
        restored: Option<&RestoredCheckpoint>,
        metrics: CheckpointMetrics,
        hold: FloorHold,
    ) -> (Self, CheckpointWriter) {
        let (to, from) = channel();
        let (held, state) = (Arc::<AtomicUsize>::default(), Arc::<CheckpointState>::default());
        let names = shapes.iter().map(|shape| shape.identity.to_string()).collect();
        let files = |(step, shape): (usize, StepSignature)| {
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
        if let Some(RestoredCheckpoint { manifest, .. }) = restored {
            bases.extend(manifest.from.clone());
            bases.push_back(manifest.at.clone());
            metrics.restored(manifest.epoch, manifest.bytes());
            state.newest.store(manifest.epoch.0, Ordering::Release);
        }
        let writer = CheckpointWriter {
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
            relayed: false,
        };
        (own, writer)
    }

    /// The checkpoints of a process that sends its part to another one, which writes them.
    pub(crate) fn relayed(
        shapes: &[StepSignature],
        workers: usize,
        hold: FloorHold,
    ) -> (Self, CheckpointRelay) {
        let (to, from) = channel();
        let held = Arc::<AtomicUsize>::default();
        let relay = CheckpointRelay::new(from, held.clone(), workers, hold.clone());
        let own = Self {
            to,
            held,
            state: Arc::default(),
            steps: shapes.iter().map(|shape| shape.identity.to_string()).collect(),
            job: Mutex::new(None),
            hold,
            relayed: true,
        };
        (own, relay)
    }

    /// Whether a checkpoint may begin.
    pub(crate) fn is_free(&self) -> bool {
        !self.state.busy.load(Ordering::Acquire)
    }

    /// Begins a checkpoint as of `at.epoch`, which must not have reached any worker yet. Returns whether the
    /// previous one failed.
    pub(crate) fn begin(&self, at: EpochBinding) -> bool {
        self.state.busy.store(true, Ordering::Release);
        // Views must be saved with everything that can be read now, back to their floors.
        (self.hold)(Epoch::ZERO);
        self.state.epoch.store(at.epoch.0, Ordering::Release);
        let retry = self.state.retry.load(Ordering::Acquire);
        let job = self.pending(at.epoch, retry);
        *self.job.lock() = Some(job.clone());
        job.tell(WriterMessage::Begin(job.clone(), at));
        fault::point("checkpoint.begun");
        retry
    }

    fn pending(&self, epoch: Epoch, retry: bool) -> Arc<PendingCheckpoint> {
        Arc::new(PendingCheckpoint {
            epoch,
            retry,
            to: self.to.clone(),
            held: self.held.clone(),
            steps: self.steps.clone(),
            failed: Mutex::default(),
        })
    }

    /// The checkpoint in progress, if it is as of `epoch`. In a process that does not write it, it begins
    /// with the first call.
    pub(crate) fn job(&self, epoch: Epoch, retry: bool) -> Option<Arc<PendingCheckpoint>> {
        let mut current = self.job.lock();
        if self.relayed && current.as_ref().is_none_or(|job| job.epoch < epoch) {
            (self.hold)(Epoch::ZERO);
            let job = self.pending(epoch, retry);
            job.tell(WriterMessage::Join(job.clone()));
            *current = Some(job);
        }
        current.clone().filter(|job| job.epoch == epoch)
    }

    /// Adds another process's part to the checkpoint in progress.
    pub(crate) fn take_part(&self, part: RelayedPart) {
        let job = self.job.lock().clone().filter(|job| job.epoch == part.epoch);
        if let Some(job) = job {
            part.contents.give(&job);
        }
    }

    /// Whether a checkpoint as of `epoch` is in progress.
    pub(crate) fn is_at(&self, epoch: Epoch) -> bool {
        self.state.epoch.load(Ordering::Acquire) == epoch.0
    }

    /// Reports the ledger's chain hash as of the checkpoint's epoch.
    pub(crate) fn chain(&self, chain: String) {
        let _ended = self.to.send(WriterMessage::Chain(chain));
    }

    /// Reports that the checkpoint's epoch is closed; views can be read from `floor` on.
    pub(crate) fn closed(&self, sets: Vec<(Vec<SourceId>, EventTime)>, floor: Epoch) {
        let _ended = self.to.send(WriterMessage::Closed(sets, floor));
    }

    /// The epoch of the newest complete checkpoint.
    pub fn newest(&self) -> Option<Epoch> {
        Some(Epoch(self.state.newest.load(Ordering::Acquire))).filter(|epoch| *epoch > Epoch::ZERO)
    }

    /// Why the last checkpoint failed, if it did.
    pub fn trouble(&self) -> Option<String> {
        self.state.trouble.lock().clone()
    }

    /// The epoch up to which no kept checkpoint needs the ledger's bindings.
    pub(crate) fn trimmable(&self) -> Epoch {
        Epoch(self.state.trimmable.load(Ordering::Acquire))
    }

    /// Ends the writer; a checkpoint in progress is abandoned.
    pub(crate) fn end(&self) {
        self.state.ended.store(true, Ordering::Release);
        let _ended = self.to.send(WriterMessage::End);
    }
}
