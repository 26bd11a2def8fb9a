//! One checkpoint on its way, and who writes it: a thread that does nothing else.
//!
//! ```text
//!   sequencer's worker   begin(s, base) ─────────────────────┐
//!   workers              pieces of every step … done(bounds) ─┤
//!   first worker         closed(s, sets)  ────────────────────┼─▶ writer: segments ─▶ sync ─▶ manifest ─▶ merge ─▶ prune
//!   ledger's thread      chain(s) ────────────────────────────┘
//! ```
//!
//! The manifest is written once the epoch is closed, which it is only when its binding is durable. What goes wrong fails the
//! one checkpoint: it is said, nothing is lost, and the next one saves what this one did not.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::entry::BUCKETS;
use super::manifest::{Base, FORMAT, Lineage, Manifest, StepFiles, StepShape};
use super::merge::{Merge, due};
use super::segment::{Chunk, SegmentWriter};
use super::state::Bounds;
use super::store::{Restored, Store};
use crate::clock;
use crate::error::{Error, Result};
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

enum Message {
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
    failed: Mutex<Option<Error>>,
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
    job: Mutex<Option<Arc<Job>>>,
    hold: Hold,
}

/// No floor of a view rises above an epoch; [`Epoch`]'s greatest ends that.
pub(crate) type Hold = Arc<dyn Fn(Epoch) + Send + Sync>;

/// What writer and workers share.
#[derive(Default)]
struct State {
    /// A checkpoint is on its way, or segments are being merged.
    busy: AtomicBool,
    again: AtomicBool,
    ended: AtomicBool,
    /// The epoch of the checkpoint that is on its way; 0: none.
    epoch: AtomicU64,
    /// The newest that counts.
    newest: AtomicU64,
    /// What is bound up to here no checkpoint that is kept asks for.
    unneeded: AtomicU64,
    /// Why the last one came to nothing, if it did.
    trouble: Mutex<Option<String>>,
}

/// Who writes.
pub(crate) struct Identity {
    pub(crate) app: String,
    pub(crate) dataflow: String,
    pub(crate) build: String,
    pub(crate) lineage: Lineage,
    pub(crate) generation: u64,
}

impl Checkpoints {
    /// The checkpoints of a process with so many workers, of which so many are kept. `hold` keeps views readable from an
    /// epoch on, while one is made.
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
        };
        let job = Mutex::new(None);
        let own = Self {
            to,
            held,
            state,
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

/// Writes checkpoints.
pub(crate) struct Writer {
    store: Store,
    identity: Identity,
    /// Whether the place is known to be this dataflow's.
    claimed: bool,
    workers: usize,
    keep: usize,
    from: Receiver<Message>,
    held: Arc<AtomicUsize>,
    state: Arc<State>,
    steps: Vec<StepFiles>,
    /// Where checkpoints may begin, oldest first.
    bases: VecDeque<Base>,
    metrics: CheckpointMetrics,
    hold: Hold,
    current: Option<Current>,
}

/// What has come in of the checkpoint on its way.
struct Current {
    job: Arc<Job>,
    at: EpochBinding,
    begun: std::time::Instant,
    segments: Vec<Option<SegmentWriter>>,
    bounds: Vec<Bounds>,
    workers_left: usize,
    chain: Option<String>,
    closed: Option<(Vec<(Vec<SourceId>, EventTime)>, Epoch)>,
}

impl Writer {
    /// To the end, in the thread that is the writer's own.
    pub(crate) fn run(mut self) {
        self.tidy();
        while let Ok(message) = self.from.recv() {
            if !self.take(message) {
                break;
            }
        }
    }

    /// As [`run`](Self::run), by one message that waits. `false`: none does, or it was the last one.
    #[cfg(test)]
    pub(crate) fn step(&mut self) -> bool {
        let message = self.from.try_recv();
        message.is_ok_and(|message| self.take(message))
    }

    /// Removes what a crash left half done: it is nobody's.
    pub(crate) fn tidy(&mut self) {
        if let Err(error) = self.prune(&BTreeSet::new()) {
            tracing::warn!("old checkpoints can't be removed: {error}");
        }
    }

    /// A process that was stopped and goes on must not take from its successor what that one rests on.
    fn prune(&self, spare: &BTreeSet<String>) -> Result<()> {
        self.store.is_held_by(self.identity.generation)?;
        self.store.prune(self.keep, spare).map(drop)
    }

    /// Takes in one message, and makes the checkpoint count once all of it is there. `false`: this was the last one.
    fn take(&mut self, message: Message) -> bool {
        let mut current = self.current.take();
        match (message, &mut current) {
            (Message::End, _) => return false,
            (Message::Discard(old), _) => drop(old),
            (Message::Begin(job, at), _) => current = Some(self.begin(job, at)),
            (Message::Piece(piece), Some(current)) => {
                self.held.fetch_sub(piece.chunk.bytes.len(), Ordering::Relaxed);
                if let Err(error) = self.write(current, &piece) {
                    current.job.fail(error);
                }
                fault::point("checkpoint.piece");
            }
            (Message::Done(bounds), Some(current)) => {
                current.workers_left -= 1;
                for (own, theirs) in current.bounds.iter_mut().zip(bounds) {
                    own.cut = own.cut.min(theirs.cut);
                    own.floor = own.floor.min(theirs.floor);
                }
            }
            (Message::Chain(chain), Some(current)) => current.chain = Some(chain),
            (Message::Closed(sets, floor), Some(current)) => current.closed = Some((sets, floor)),
            (_, None) => {}
        }
        let is_whole = |c: &Current| c.workers_left == 0 && c.chain.is_some() && c.closed.is_some();
        match current {
            Some(whole) if is_whole(&whole) => self.conclude(whole),
            current => self.current = current,
        }
        true
    }

    fn begin(&mut self, job: Arc<Job>, at: EpochBinding) -> Current {
        let whole = Bounds {
            cut: EventTime::MAX,
            floor: Epoch(u64::MAX),
        };
        if !self.claimed {
            match self.store.claim(&self.identity.app, &self.identity.dataflow) {
                Ok(()) => {
                    self.claimed = true;
                    fault::point("checkpoint.place");
                }
                Err(error) => job.fail(error),
            }
        }
        Current {
            job,
            at,
            begun: clock::instant(),
            segments: self.steps.iter().map(|_| None).collect(),
            bounds: vec![whole; self.steps.len()],
            workers_left: self.workers,
            chain: None,
            closed: None,
        }
    }

    fn write(&self, current: &mut Current, piece: &Piece) -> Result<()> {
        if current.job.failed.lock().is_some() {
            return Ok(());
        }
        let segment = &mut current.segments[piece.step];
        if segment.is_none() {
            let name = Store::segment_name(current.job.epoch, piece.step, 0);
            *segment = Some(SegmentWriter::create(
                &*self.store.files,
                &self.store.dir.join(name),
            )?);
        }
        match segment {
            Some(segment) => segment.chunk(&piece.chunk, piece.entries),
            None => Ok(()),
        }
    }

    fn conclude(&mut self, current: Current) {
        fault::point("checkpoint.whole");
        let (epoch, begun) = (current.job.epoch, current.begun);
        self.state.epoch.store(0, Ordering::Release);
        (self.hold)(Epoch(u64::MAX));
        match self.publish(current) {
            Ok(manifest) => {
                self.state.again.store(false, Ordering::Release);
                if self.state.trouble.lock().take().is_some() {
                    tracing::info!(%epoch, "checkpoints are made again");
                }
                self.state.newest.store(epoch.0, Ordering::Release);
                let took = clock::instant() - begun;
                let written = manifest.segments().filter(|segment| segment.epoch == epoch);
                let written: u64 = written.map(|segment| segment.bytes).sum();
                tracing::debug!(%epoch, bytes = written, of = manifest.bytes(), ms = took.as_millis() as u64, "checkpoint");
                self.metrics.published(epoch, took, written, manifest.bytes());
                fault::point("checkpoint.counted");
                if let Err(error) = self.merge() {
                    tracing::warn!("the files of checkpoints can't be merged: {error}");
                }
                fault::point("merge.done");
                let spare = self.steps.iter().flat_map(|step| &step.segments);
                let spare = spare.map(|segment| segment.file.clone()).collect();
                match self.prune(&spare).and_then(|()| self.unneeded()) {
                    Ok(epoch) => _ = self.state.unneeded.fetch_max(epoch.0, Ordering::AcqRel),
                    Err(error) => tracing::warn!("old checkpoints can't be removed: {error}"),
                }
            }
            Err(error) => {
                self.state.again.store(true, Ordering::Release);
                self.metrics.failed.inc();
                *self.state.trouble.lock() = Some(error.to_string());
                tracing::warn!(%epoch, "a checkpoint came to nothing, the next one will hold what it would have: {error}");
            }
        }
        fault::point("checkpoint.done");
        self.state.busy.store(false, Ordering::Release);
    }

    fn publish(&mut self, current: Current) -> Result<Manifest> {
        let Current {
            job,
            at,
            segments,
            bounds,
            chain,
            closed,
            ..
        } = current;
        if let Some(error) = job.failed.lock().take() {
            return Err(error);
        }
        let (sets, floor) = closed.unwrap_or_default();
        let mut steps = self.steps.clone();
        for ((step, segment), bounds) in steps.iter_mut().zip(segments).zip(&bounds) {
            (step.cut, step.floor) = (bounds.cut, bounds.floor);
            if let Some(segment) = segment {
                step.segments.push(segment.finish(job.epoch)?);
            }
        }
        fault::point("checkpoint.segments");
        let at = Base { binding: at, sets };
        // Bindings from there on are gone through again, so that views can be asked for what they keep.
        let reaches = |base: &&Base| base.binding.epoch < floor;
        let from = self.bases.iter().rev().find(reaches).cloned();
        let manifest = Manifest {
            format: FORMAT,
            app: self.identity.app.clone(),
            dataflow: self.identity.dataflow.clone(),
            epoch: job.epoch,
            generation: self.identity.generation,
            chain: chain.unwrap_or_default(),
            build: self.identity.build.clone(),
            lineage: self.identity.lineage,
            made_us: clock::now_micros(),
            buckets: ("xxh3".into(), BUCKETS),
            from,
            at: at.clone(),
            steps,
        };
        // Another process has removed what it did not know of.
        self.store.is_held_by(self.identity.generation)?;
        self.store.publish(&manifest)?;
        fault::point("checkpoint.published");
        self.steps.clone_from(&manifest.steps);
        while let Some(second) = self.bases.get(1)
            && second.binding.epoch < floor
        {
            self.bases.pop_front();
        }
        self.bases.push_back(at);
        Ok(manifest)
    }

    /// Where the oldest checkpoint that is left begins to ask for bindings; only with as many of them as are to be kept.
    fn unneeded(&self) -> Result<Epoch> {
        let epochs = self.store.epochs()?;
        let mut least = Epoch(u64::MAX);
        for epoch in &epochs {
            let from = self.store.manifest(*epoch)?.from;
            least = least.min(from.map_or(Epoch::ZERO, |base| base.binding.epoch));
        }
        Ok(if epochs.len() < self.keep {
            Epoch::ZERO
        } else {
            least
        })
    }

    /// Merges what is due; the next checkpoint names the merged files.
    fn merge(&mut self) -> Result<()> {
        let go_on = || !self.state.ended.load(Ordering::Acquire);
        // Once a checkpoint, so no name comes twice, also where steps have other numbers than in an earlier run.
        let newest = Epoch(self.state.newest.load(Ordering::Acquire));
        let mut merged = 0;
        for (at, step) in self.steps.iter_mut().enumerate() {
            while let Some(older) = due(&step.segments) {
                merged += 1;
                let merge = Merge {
                    store: &self.store,
                    older: &step.segments[older],
                    newer: &step.segments[older + 1],
                    is_first: older == 0,
                    rule: step.shape.rule,
                    bounds: Bounds {
                        cut: step.cut,
                        floor: step.floor,
                    },
                };
                let name = Store::segment_name(newest, at, merged);
                fault::point("merge.begun");
                let Some(segment) = merge.run(&name, &go_on)? else {
                    return Ok(());
                };
                fault::point("merge.written");
                step.segments.splice(older.., [segment]);
            }
        }
        Ok(())
    }
}
