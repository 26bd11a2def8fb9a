//! Begins checkpoints, and tells the threads of a process about the one that is on its way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use parking_lot::Mutex;

use super::job::{Hold, Identity, Job, Message, State};
use super::manifest::{StepFiles, StepShape};
use super::store::{Restored, Store};
use super::writer::Writer;
use crate::fault;
use crate::metrics::CheckpointMetrics;
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// What a process's threads know of its checkpoints.
pub struct Checkpoints {
    to: Sender<Message>,
    held: Arc<AtomicUsize>,
    state: Arc<State>,
    steps: Arc<[String]>,
    job: Mutex<Option<Arc<Job>>>,
    hold: Hold,
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
