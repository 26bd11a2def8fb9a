//! The thread that writes checkpoints.
//!
//! ```text
//!   begin ─▶ pieces, to files ─▶ all of it there? ─▶ sync ─▶ manifest ─▶ merge ─▶ prune
//!                                      └─ no ─▶ its files go, it is told, and the next one saves it again
//! ```
//!
//! Checkpoints share files, so a lost file would make every later checkpoint unusable, with the ledger
//! trimmed behind them. Hence all files of a manifest have to exist before it is published, and a merge that
//! meets damage stops publishing until the files are intact again. Only intact checkpoints count for `keep`
//! and for trimming the ledger.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use super::damaged;
use super::entry::BUCKETS;
use super::manifest::{Base, FORMAT, Manifest, RetentionBounds, SegmentFile, StepFiles};
use super::merge::{SegmentMerge, due};
use super::pending::{
    CheckpointState, FloorHold, PendingCheckpoint, StateChunk, WriterIdentity, WriterMessage,
};
use super::segment::{SegmentWriter, verify};
use super::store::CheckpointStore;
use crate::clock;
use crate::error::{Kind, Result};
use crate::fault;
use crate::metrics::CheckpointMetrics;
use crate::position::{EpochBinding, SourceId};
use crate::time::{Epoch, EventTime};

/// Writes checkpoints.
pub(crate) struct CheckpointWriter {
    pub(super) store: CheckpointStore,
    pub(super) identity: WriterIdentity,
    /// Whether the location is known to be this dataflow's.
    pub(super) claimed: bool,
    pub(super) workers: usize,
    pub(super) keep: usize,
    pub(super) from: Receiver<WriterMessage>,
    pub(super) held: Arc<AtomicUsize>,
    pub(super) state: Arc<CheckpointState>,
    pub(super) steps: Vec<StepFiles>,
    /// The bases for later checkpoints, oldest first.
    pub(super) bases: VecDeque<Base>,
    pub(super) metrics: CheckpointMetrics,
    pub(super) hold: FloorHold,
    pub(super) current: Option<CollectedCheckpoint>,
    /// Files that could not be merged because one of them is damaged.
    pub(super) suspects: Vec<SegmentFile>,
}

/// The parts of the checkpoint in progress that have arrived.
pub(super) struct CollectedCheckpoint {
    job: Arc<PendingCheckpoint>,
    at: EpochBinding,
    begun: std::time::Instant,
    segments: Vec<Option<SegmentWriter>>,
    bounds: Vec<RetentionBounds>,
    workers_left: usize,
    chain: Option<String>,
    closed: Option<(Vec<(Vec<SourceId>, EventTime)>, Epoch)>,
}

impl CheckpointWriter {
    /// Runs to the end, on the writer's own thread.
    pub(crate) fn run(mut self) {
        self.remove_leftovers();
        while let Ok(message) = self.from.recv() {
            if !self.take(message) {
                break;
            }
        }
    }

    /// Like [`run`](Self::run), for one queued message. Returns false if there is none, or if it was the last
    /// one.
    #[cfg(test)]
    pub(crate) fn step(&mut self) -> bool {
        let message = self.from.try_recv();
        message.is_ok_and(|message| self.take(message))
    }

    /// Removes leftovers of a crash.
    pub(crate) fn remove_leftovers(&mut self) {
        if let Err(error) = self.prune(&BTreeSet::new()) {
            tracing::warn!("old checkpoints can't be removed: {error}");
        }
    }

    /// A process that was suspended must not remove what its successor depends on.
    fn prune(&self, spare: &BTreeSet<String>) -> Result<()> {
        self.store.is_held_by(&self.identity.owner)?;
        self.store.prune(self.keep, spare).map(drop)
    }

    /// Handles one message, and completes the checkpoint once all parts have arrived. Returns false if this
    /// was the last message.
    fn take(&mut self, message: WriterMessage) -> bool {
        let mut current = self.current.take();
        match (message, &mut current) {
            (WriterMessage::End, _) => return false,
            (WriterMessage::Discard(old), _) => drop(old),
            // Of a process that writes none.
            (WriterMessage::Join(_), _) => {}
            (WriterMessage::Begin(job, at), _) => current = Some(self.begin(job, at)),
            (WriterMessage::Chunk(piece), Some(current)) => {
                self.held.fetch_sub(piece.chunk.bytes.len(), Ordering::Relaxed);
                if let Err(error) = self.write(current, &piece) {
                    current.job.fail(error);
                    // If the disk is full, the ledger may need the space.
                    let begun = names_of(current);
                    current.segments.iter_mut().for_each(|segment| *segment = None);
                    self.remove(&begun);
                }
                fault::point("checkpoint.piece");
            }
            (WriterMessage::Done(bounds), Some(current)) => {
                current.workers_left -= 1;
                for (own, theirs) in current.bounds.iter_mut().zip(bounds) {
                    own.cut = own.cut.min(theirs.cut);
                    own.floor = own.floor.min(theirs.floor);
                }
            }
            (WriterMessage::Chain(chain), Some(current)) => current.chain = Some(chain),
            (WriterMessage::Closed(sets, floor), Some(current)) => current.closed = Some((sets, floor)),
            (_, None) => {}
        }
        let is_whole =
            |c: &CollectedCheckpoint| c.workers_left == 0 && c.chain.is_some() && c.closed.is_some();
        match current {
            Some(whole) if is_whole(&whole) => self.conclude(whole),
            current => self.current = current,
        }
        true
    }

    fn begin(&mut self, job: Arc<PendingCheckpoint>, at: EpochBinding) -> CollectedCheckpoint {
        let whole = RetentionBounds {
            cut: EventTime::MAX,
            floor: Epoch(u64::MAX),
        };
        if !self.claimed {
            match self.claim_location() {
                Ok(()) => {
                    self.claimed = true;
                    fault::point("checkpoint.place");
                }
                Err(error) => job.fail(error),
            }
        }
        CollectedCheckpoint {
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

    /// The directory may have been removed, or not have been writable before.
    fn claim_location(&self) -> Result<()> {
        let WriterIdentity {
            app, dataflow, owner, ..
        } = &self.identity;
        self.store.is_held_by(owner)?;
        self.store.take_over(app, dataflow, owner)?;
        self.store.claim(app, dataflow)
    }

    fn write(&self, current: &mut CollectedCheckpoint, piece: &StateChunk) -> Result<()> {
        if current.job.failed.lock().is_some() {
            return Ok(());
        }
        let segment = &mut current.segments[piece.step];
        if segment.is_none() {
            let name = CheckpointStore::segment_name(current.job.epoch, piece.step, 0);
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

    fn conclude(&mut self, current: CollectedCheckpoint) {
        fault::point("checkpoint.whole");
        let (epoch, begun) = (current.job.epoch, current.begun);
        self.state.epoch.store(0, Ordering::Release);
        (self.hold)(Epoch(u64::MAX));
        let files = names_of(&current);
        match self.publish(current) {
            Ok(manifest) => {
                self.state.retry.store(false, Ordering::Release);
                if self.state.trouble.lock().take().is_some() {
                    tracing::info!(%epoch, "checkpoints succeed again");
                }
                self.state.newest.store(epoch.0, Ordering::Release);
                let took = clock::instant() - begun;
                let written = manifest.segments().filter(|segment| segment.epoch == epoch);
                let written: u64 = written.map(|segment| segment.bytes).sum();
                tracing::debug!(
                    %epoch,
                    bytes = written,
                    total_bytes = manifest.bytes(),
                    ms = took.as_millis() as u64,
                    "checkpoint complete"
                );
                self.metrics.published(epoch, took, written, manifest.bytes());
                fault::point("checkpoint.counted");
                if let Err(error) = self.merge() {
                    tracing::warn!(%error, "cannot merge checkpoint files");
                    if !self.suspects.is_empty() {
                        // Nothing older is removed until this is repaired.
                        *self.state.trouble.lock() = Some(error.to_string());
                        self.state.busy.store(false, Ordering::Release);
                        return;
                    }
                }
                fault::point("merge.done");
                let spare = self.steps.iter().flat_map(|step| &step.segments);
                let spare = spare.map(|segment| segment.file.clone()).collect();
                match self.prune(&spare).and_then(|()| self.trimmable()) {
                    Ok(epoch) => _ = self.state.trimmable.fetch_max(epoch.0, Ordering::AcqRel),
                    Err(error) => tracing::warn!(%error, "cannot remove old checkpoints"),
                }
            }
            Err(error) => {
                self.state.retry.store(true, Ordering::Release);
                self.claimed = false;
                // Its manifest may exist nevertheless.
                let manifest = Manifest::file_name(epoch);
                if self.store.names().is_ok_and(|names| !names.contains(&manifest)) {
                    self.remove(&files);
                }
                self.metrics.failed.inc();
                *self.state.trouble.lock() = Some(error.to_string());
                tracing::warn!(%epoch, %error, "checkpoint failed; the next one will include its changes");
            }
        }
        fault::point("checkpoint.done");
        self.state.busy.store(false, Ordering::Release);
    }

    fn publish(&mut self, current: CollectedCheckpoint) -> Result<Manifest> {
        let CollectedCheckpoint {
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
        // Bindings from there on are replayed, so that views can be read as far back as they keep versions.
        let reaches = |base: &&Base| base.binding.epoch < floor;
        let from = self.bases.iter().rev().find(reaches).cloned();
        let manifest = Manifest {
            format: FORMAT,
            app: self.identity.app.clone(),
            dataflow: self.identity.dataflow.clone(),
            epoch: job.epoch,
            generation: self.identity.owner.generation,
            chain: chain.unwrap_or_default(),
            build: self.identity.build.clone(),
            lineage: self.identity.lineage,
            made_us: clock::now_micros(),
            buckets: ("xxh3".into(), BUCKETS),
            from,
            at: at.clone(),
            steps,
        };
        // Another process removed files that it did not know about.
        self.store.is_held_by(&self.identity.owner)?;
        self.check_files_exist(&manifest)?;
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

    /// The epoch from which the oldest remaining checkpoint needs bindings; known only if as many checkpoints
    /// as configured exist.
    fn trimmable(&self) -> Result<Epoch> {
        let kept = self.store.whole()?;
        let from = kept.iter().map(|manifest| &manifest.from);
        let from = from.map(|from| from.as_ref().map_or(Epoch::ZERO, |base| base.binding.epoch));
        Ok(match kept.len() < self.keep {
            true => Epoch::ZERO,
            false => from.min().unwrap_or(Epoch::ZERO),
        })
    }

    /// Files of a checkpoint may have been lost since it was written: then it does not count, and older ones
    /// are kept.
    fn check_files_exist(&mut self, manifest: &Manifest) -> Result<()> {
        let hint = "restore the file from a copy and checkpoints will succeed again; until then, its \
            contents exist only in the running process";
        let names = self.store.names()?;
        let missing = |segment: &&SegmentFile| names.binary_search(&segment.file).is_err();
        if let Some(missing) = manifest.segments().find(missing) {
            let path = self.store.dir.join(&missing.file);
            return Err(damaged(&path, "it is missing").hint(hint));
        }
        for suspect in &self.suspects {
            let whole = verify(&*self.store.files, &self.store.dir, suspect);
            whole.map_err(|error| error.hint(hint))?;
        }
        self.suspects.clear();
        Ok(())
    }

    fn remove(&self, files: &[String]) {
        for name in files {
            let _left = self.store.files.remove(&self.store.dir.join(name));
        }
    }

    /// Merges segments that are due; the next checkpoint references the merged files.
    fn merge(&mut self) -> Result<()> {
        let go_on = || !self.state.ended.load(Ordering::Acquire);
        // This runs once per checkpoint, so no name occurs twice, even if steps had other indices in an
        // earlier run.
        let newest = Epoch(self.state.newest.load(Ordering::Acquire));
        let mut merged = 0;
        for (at, step) in self.steps.iter_mut().enumerate() {
            while let Some(older) = due(&step.segments) {
                merged += 1;
                let merge = SegmentMerge {
                    store: &self.store,
                    older: &step.segments[older],
                    newer: &step.segments[older + 1],
                    is_first: older == 0,
                    rule: step.shape.rule,
                    bounds: RetentionBounds {
                        cut: step.cut,
                        floor: step.floor,
                    },
                };
                let name = CheckpointStore::segment_name(newest, at, merged);
                fault::point("merge.begun");
                let merged = merge.run(&name, &go_on);
                if merged
                    .as_ref()
                    .is_err_and(|error| error.kind() == Kind::Integrity)
                {
                    self.suspects = step.segments[older..].to_vec();
                }
                let Some(segment) = merged? else {
                    return Ok(());
                };
                fault::point("merge.written");
                step.segments.splice(older.., [segment]);
            }
        }
        Ok(())
    }
}

/// The files of a checkpoint in progress.
fn names_of(current: &CollectedCheckpoint) -> Vec<String> {
    let segments = current.segments.iter().enumerate();
    let begun = segments.filter(|(_, segment)| segment.is_some());
    begun
        .map(|(step, _)| CheckpointStore::segment_name(current.job.epoch, step, 0))
        .collect()
}
