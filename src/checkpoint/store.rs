//! The directory of a dataflow's checkpoints.
//!
//! ```text
//!   checkpoint-….json         a manifest: whole and durable, or not there
//!   …-03.segment              files that manifests name; others are left over from a checkpoint that never was
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Entry;
use super::manifest::{Manifest, StepFiles};
use super::segment::{SegmentReader, verify};
use super::{cannot, damaged};
use crate::disk::Disk;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::time::Epoch;

const SEGMENT_END: &str = ".segment";
/// A manifest that was not finished: left by a crash.
const DRAFT_END: &str = ".new";

/// Checkpoints in a directory.
#[derive(Clone)]
pub struct Store {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The directory.
    pub dir: PathBuf,
}

impl Store {
    /// The directory need not be there.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
        }
    }

    fn names(&self) -> Result<Vec<String>> {
        match self.disk.list(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|error| cannot("look into", &self.dir, &error)),
        }
    }

    /// The epochs that there are manifests of, oldest first.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let names = self.names()?;
        let mut epochs: Vec<Epoch> = names.iter().filter_map(|name| Manifest::epoch_of(name)).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// The manifest of a checkpoint.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): it is damaged or missing. [`Definition`](crate::Kind::Definition): another format.
    pub fn manifest(&self, epoch: Epoch) -> Result<Manifest> {
        let path = self.dir.join(Manifest::file_name(epoch));
        let file = self.disk.open(&path, false).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged(&path, "it is missing"),
            _ => cannot("read", &path, &error),
        })?;
        let unreadable = |error: std::io::Error| cannot("read", &path, &error);
        let mut bytes = vec![0; file.len().map_err(unreadable)? as usize];
        let n = file.read_at(0, &mut bytes).map_err(unreadable)?;
        bytes.truncate(n);
        let manifest =
            Manifest::from_bytes(&bytes).map_err(|error| error.detail(path.display().to_string()))?;
        if manifest.epoch != epoch {
            return Err(damaged(
                &path,
                &format!("it says that it is that of epoch {}", manifest.epoch),
            ));
        }
        Ok(manifest)
    }

    /// Holds every file of a checkpoint against its manifest.
    pub fn verify(&self, manifest: &Manifest) -> Result<()> {
        manifest
            .segments()
            .try_for_each(|segment| verify(&*self.disk, &self.dir, segment))
    }

    /// The newest checkpoint that is whole, and `before` an epoch if one is named. What is wrong with newer ones is noted.
    ///
    /// # Errors
    /// The directory can't be read, or a checkpoint is that of another dataflow or format.
    pub fn newest(
        &self,
        app: &str,
        dataflow: &str,
        before: Option<Epoch>,
    ) -> Result<(Option<Manifest>, Vec<String>)> {
        let mut notes = Vec::new();
        let epochs = self.epochs()?.into_iter().rev();
        for epoch in epochs.filter(|epoch| before.is_none_or(|before| *epoch < before)) {
            let whole = self.manifest(epoch).and_then(|manifest| {
                self.belongs(&manifest, app, dataflow)?;
                self.verify(&manifest)?;
                Ok(manifest)
            });
            match whole {
                Ok(manifest) => return Ok((Some(manifest), notes)),
                Err(error) if error.kind() == Kind::Integrity => {
                    notes.push(format!("the checkpoint of epoch {epoch} is passed over: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((None, notes))
    }

    fn belongs(&self, manifest: &Manifest, app: &str, dataflow: &str) -> Result<()> {
        if (&*manifest.app, &*manifest.dataflow) == (app, dataflow) {
            return Ok(());
        }
        Err(Error::definition(format!(
            "the checkpoints in `{}` belong to another dataflow",
            self.dir.display()
        ))
        .detail(format!(
            "they are of app `{}`, dataflow `{}`; this is app `{app}`, dataflow `{dataflow}`",
            manifest.app, manifest.dataflow
        ))
        .hint("give every dataflow a directory of its own"))
    }

    /// Makes a checkpoint count, once all that it names is durable.
    pub fn publish(&self, manifest: &Manifest) -> Result<()> {
        let unwritable = |error: std::io::Error| cannot("write to", &self.dir, &error);
        self.disk.sync_dir(&self.dir).map_err(unwritable)?;
        fault::point("checkpoint.named");
        let path = self.dir.join(Manifest::file_name(manifest.epoch));
        let new = self
            .disk
            .publish(&path, &manifest.to_bytes()?)
            .map_err(unwritable)?;
        if new {
            return Ok(());
        }
        Err(Error::integrity(format!(
            "there is a checkpoint of epoch {} already",
            manifest.epoch
        ))
        .detail(path.display().to_string())
        .hint("another process writes checkpoints of this dataflow: stop one of the two"))
    }

    /// Removes all but the newest `keep` checkpoints that can be read, and all files that those don't name, but for
    /// `spare`. Only the ledger's owner may do this. Returns what was removed.
    pub fn prune(&self, keep: usize, spare: &BTreeSet<String>) -> Result<Vec<String>> {
        let gone = self.prunable(keep, spare)?;
        for name in &gone {
            let path = self.dir.join(name);
            self.disk
                .remove(&path)
                .map_err(|error| cannot("remove", &path, &error))?;
            match Manifest::epoch_of(name) {
                Some(_) => fault::point("prune.manifest"),
                None => fault::point("prune.file"),
            }
        }
        fault::point("prune.done");
        Ok(gone)
    }

    /// What [`prune`](Self::prune) would remove, manifests first.
    pub fn prunable(&self, keep: usize, spare: &BTreeSet<String>) -> Result<Vec<String>> {
        let (mut named, mut kept, mut old) = (spare.clone(), 0, Vec::new());
        for epoch in self.epochs()?.into_iter().rev() {
            match self.manifest(epoch) {
                _ if kept == keep => old.push(Manifest::file_name(epoch)),
                Ok(manifest) => {
                    kept += 1;
                    named.extend(manifest.segments().map(|segment| segment.file.clone()));
                }
                // Left for people to look at, but no start will ask for its files.
                Err(_) => {}
            }
        }
        let names = self.names()?;
        let unnamed = names
            .into_iter()
            .filter(|name| name.ends_with(DRAFT_END) || name.ends_with(SEGMENT_END) && !named.contains(name));
        old.extend(unnamed);
        Ok(old)
    }

    /// The name of a segment's file.
    pub fn segment_name(epoch: Epoch, step: usize, merged: usize) -> String {
        match merged {
            0 => format!("{:020}-{step:03}{SEGMENT_END}", epoch.0),
            n => format!("{:020}-{step:03}-{n}{SEGMENT_END}", epoch.0),
        }
    }
}

/// A checkpoint that a run begins with.
pub struct Restored {
    store: Store,
    /// What it consists of.
    pub manifest: Manifest,
    /// See [`Fit::held`](super::fit::Fit::held).
    held: Vec<Option<usize>>,
    read: AtomicU64,
}

impl Restored {
    /// `manifest` as found in `store`, and which of its steps each one of the dataflow [goes on from](super::fit::Fit::held).
    pub fn new(store: Store, manifest: Manifest, held: Vec<Option<usize>>) -> Arc<Self> {
        Arc::new(Self {
            store,
            manifest,
            held,
            read: AtomicU64::new(0),
        })
    }

    /// The files that a step of the dataflow goes on from.
    pub fn files(&self, step: usize) -> Option<&StepFiles> {
        let at = (*self.held.get(step)?)?;
        self.manifest.steps.get(at)
    }

    /// Shows the entries of a step to `see`, those of a key in the order in which they hold: the last one does.
    pub fn each(&self, step: usize, mut see: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let Some(files) = self.files(step) else {
            return Ok(());
        };
        for segment in &files.segments {
            let reader = SegmentReader::open(&*self.store.disk, &self.store.dir, segment)?;
            reader.chunks(None, |chunk| {
                self.read.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                chunk.each(|entry| match entry.until {
                    Some(until) if until <= files.cut => Ok(()),
                    _ => see(entry),
                })
            })?;
        }
        Ok(())
    }

    /// Which it is, for messages.
    pub fn describe(&self) -> String {
        let (epoch, dir) = (self.manifest.epoch, self.store.dir.display());
        format!("the checkpoint of epoch {epoch} in `{dir}`")
    }

    /// How many bytes were read, by all workers together.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}
