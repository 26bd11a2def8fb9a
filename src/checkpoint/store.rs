//! The directory of a dataflow's checkpoints: on a disk, or a prefix of a bucket.
//!
//! ```text
//!   catalogue.json            whose they are: there before the first of the others
//!   checkpoint-….json         a manifest: whole and durable, or not there
//!   …-03.segment              files that manifests name; others are left over from a checkpoint that never was
//!   owner-…                   who writes here: a process that was stopped, and wakes, finds another one
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::entry::Entry;
use super::manifest::{Catalogue, FORMAT, Manifest, StepFiles};
use super::owner::Owner;
use super::protocol;
use super::segment::{SegmentReader, verify};
use super::{cannot, damaged};
use crate::disk::FileStore;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::time::Epoch;

const SEGMENT_END: &str = ".segment";
/// The suffix of an unfinished manifest, as left by a crash.
const DRAFT_END: &str = ".new";
/// Checkpoints in a directory.
#[derive(Clone)]
pub struct CheckpointStore {
    /// The directory.
    pub files: Arc<dyn FileStore>,
    /// The file store.
    pub dir: PathBuf,
    /// Checkpoints found damaged, by this store or a clone of it.
    damaged: Arc<Mutex<BTreeSet<Epoch>>>,
}

impl CheckpointStore {
    /// The directory need not exist.
    pub fn new(files: Arc<dyn FileStore>, dir: &Path) -> Self {
        Self {
            files,
            dir: dir.to_owned(),
            damaged: Arc::default(),
        }
    }

    /// The names of all files, in order.
    pub fn names(&self) -> Result<Vec<String>> {
        match self.files.list(&self.dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(|error| cannot("look into", &self.dir, &error)),
        }
    }

    /// The epochs of all manifests, oldest first.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        Ok(epochs(&self.names()?))
    }

    /// Claims the location for a dataflow, before anything is written to it.
    ///
    /// # Errors
    /// [`Definition`](crate::Kind::Definition): it belongs to another dataflow.
    /// [`External`](crate::Kind::External): it cannot be written to.
    pub fn claim(&self, app: &str, dataflow: &str) -> Result<()> {
        let unwritable = |error: std::io::Error| cannot("write to", &self.dir, &error);
        self.files.make_dir(&self.dir).map_err(unwritable)?;
        let own = Catalogue {
            format: FORMAT,
            app: app.to_owned(),
            dataflow: dataflow.to_owned(),
        };
        let (path, bytes) = (self.dir.join(Catalogue::FILE_NAME), own.to_bytes()?);
        if self.files.publish(&path, &bytes).map_err(unwritable)? {
            return Ok(());
        }
        match self.catalogue() {
            Ok(there) => self.check_owner(&there.app, &there.dataflow, app, dataflow),
            Err(error) if error.kind() == Kind::Integrity => {
                tracing::warn!(%error, "checkpoint catalogue is damaged; rewriting it");
                self.files.remove(&path).map_err(unwritable)?;
                self.files.publish(&path, &bytes).map_err(unwritable).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    fn catalogue(&self) -> Result<Catalogue> {
        let path = self.dir.join(Catalogue::FILE_NAME);
        Catalogue::from_bytes(&self.contents(&path)?).map_err(|error| error.detail(path.display()))
    }

    fn contents(&self, path: &Path) -> Result<Vec<u8>> {
        self.files.read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => damaged(path, "it is missing"),
            _ => cannot("read", path, &error),
        })
    }

    /// The manifest of a checkpoint.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): it is damaged or missing.
    /// [`Definition`](crate::Kind::Definition): it has another format.
    pub fn manifest(&self, epoch: Epoch) -> Result<Manifest> {
        let path = self.dir.join(Manifest::file_name(epoch));
        let manifest = Manifest::from_bytes(&self.contents(&path)?)
            .map_err(|error| error.detail(path.display().to_string()))?;
        if manifest.epoch != epoch {
            return Err(damaged(
                &path,
                &format!("its contents name epoch {}", manifest.epoch),
            ));
        }
        Ok(manifest)
    }

    /// Verifies every file of a checkpoint against its manifest.
    pub fn verify(&self, manifest: &Manifest) -> Result<()> {
        manifest
            .segments()
            .try_for_each(|segment| verify(&*self.files, &self.dir, segment))
    }

    /// The newest intact checkpoint, before an epoch if one is given, with notes on newer ones that are
    /// damaged.
    ///
    /// # Errors
    /// If the directory cannot be read, a checkpoint belongs to another dataflow or has another format, or
    /// there are files without a catalogue or manifest.
    pub fn newest(
        &self,
        app: &str,
        dataflow: &str,
        before: Option<Epoch>,
    ) -> Result<(Option<Manifest>, Vec<String>)> {
        let names = self.names()?;
        let mut notes = Vec::new();
        match self.catalogue() {
            Ok(there) => self.check_owner(&there.app, &there.dataflow, app, dataflow)?,
            Err(error) if error.kind() == Kind::Integrity => {
                match names.iter().any(|name| name == Catalogue::FILE_NAME) {
                    // It will be written again; and files that no manifest references are useless, whoever
                    // wrote them.
                    true => notes.push(error.to_string()),
                    false => self.check_identified(&names)?,
                }
            }
            Err(error) => return Err(error),
        }
        let epochs = epochs(&names).into_iter().rev();
        for epoch in epochs.filter(|epoch| before.is_none_or(|before| *epoch < before)) {
            let whole = self.manifest(epoch).and_then(|manifest| {
                self.check_owner(&manifest.app, &manifest.dataflow, app, dataflow)?;
                self.verify(&manifest)?;
                Ok(manifest)
            });
            match whole {
                Ok(manifest) => return Ok((Some(manifest), notes)),
                Err(error) if error.kind() == Kind::Integrity => {
                    self.damaged.lock().insert(epoch);
                    notes.push(format!("epoch {epoch}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((None, notes))
    }

    /// Checks that the files here, if any, can be identified.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): they cannot.
    pub fn is_known(&self) -> Result<()> {
        let names = self.names()?;
        match names.iter().any(|name| name == Catalogue::FILE_NAME) {
            true => Ok(()),
            false => self.check_identified(&names),
        }
    }

    /// Without a catalogue, manifests may still identify the files. With neither, this is not an empty
    /// location but part of one, or something else. (A crash before the first manifest leaves files and a
    /// catalogue.)
    fn check_identified(&self, names: &[String]) -> Result<()> {
        let segments = names.iter().filter(|name| name.ends_with(SEGMENT_END));
        let (count, first) = (segments.clone().count(), segments.min());
        let Some(first) = first.filter(|_| epochs(names).is_empty()) else {
            return Ok(());
        };
        let files = crate::error::count(count as u64, "file");
        Err(Error::integrity(format!(
            "`{}` holds checkpoint files but no catalogue",
            self.dir.display()
        ))
        .detail(format!(
            "{files}, such as `{first}`; no manifest, and no `{}`",
            Catalogue::FILE_NAME
        ))
        .hint(
            "restore the missing files, or choose another location; if the files are not needed, `thalweg \
             checkpoint prune DIR --keep 0 --yes` removes them",
        ))
    }

    fn check_owner(&self, their_app: &str, theirs: &str, app: &str, dataflow: &str) -> Result<()> {
        if (their_app, theirs) == (app, dataflow) {
            return Ok(());
        }
        Err(Error::definition(format!(
            "the checkpoints in `{}` belong to another dataflow",
            self.dir.display()
        ))
        .detail(format!(
            "theirs: app `{their_app}`, dataflow `{theirs}`; this one: app `{app}`, dataflow `{dataflow}`"
        ))
        .hint("give every dataflow its own directory"))
    }

    /// Publishes a checkpoint, once everything it references is durable.
    pub fn publish(&self, manifest: &Manifest) -> Result<()> {
        let unwritable = |error: std::io::Error| cannot("write to", &self.dir, &error);
        self.files.sync_dir(&self.dir).map_err(unwritable)?;
        fault::point("checkpoint.named");
        let path = self.dir.join(Manifest::file_name(manifest.epoch));
        let new = self
            .files
            .publish(&path, &manifest.to_bytes()?)
            .map_err(unwritable)?;
        if new {
            return Ok(());
        }
        Err(
            Error::integrity(format!("a checkpoint of epoch {} already exists", manifest.epoch))
                .detail(path.display().to_string())
                .hint("another process writes checkpoints of this dataflow: stop one of the two"),
        )
    }

    /// Takes over the location: from here on, this owner of the ledger writes and removes checkpoints. The
    /// owner's claim must already count.
    ///
    /// # Errors
    /// [`Definition`](crate::Kind::Definition): the location belongs to another dataflow.
    /// [`Integrity`](crate::Kind::Integrity): fenced by a later owner of the ledger.
    /// [`External`](crate::Kind::External): it cannot be written to.
    pub fn take_over(&self, app: &str, dataflow: &str, owner: &Owner) -> Result<()> {
        if let Ok(there) = self.catalogue() {
            self.check_owner(&there.app, &there.dataflow, app, dataflow)?;
        }
        if let Some(later) = protocol::later_owner(owner, &self.owners()?) {
            return Err(self.fenced_error(later));
        }
        let unwritable = |error: std::io::Error| cannot("write to", &self.dir, &error);
        self.files.make_dir(&self.dir).map_err(unwritable)?;
        let text = format!(
            "generation {} of a ledger writes checkpoints here\n",
            owner.generation
        );
        self.files
            .publish(&self.dir.join(owner.file_name()), text.as_bytes())
            .map_err(unwritable)?;
        fault::point("owner.written");
        for other in protocol::replaced_owners(owner, &self.owners()?) {
            let _left = self.files.remove(&self.dir.join(other.file_name()));
        }
        fault::point("owner.alone");
        Ok(())
    }

    /// Checks that no other owner has taken over.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): fenced; nothing here may be modified any more.
    pub fn is_held_by(&self, owner: &Owner) -> Result<()> {
        match protocol::rival_owner(owner, &self.owners()?) {
            Some(other) => Err(self.fenced_error(other)),
            None => Ok(()),
        }
    }

    /// The owners whose files exist.
    fn owners(&self) -> Result<Vec<Owner>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| Owner::of_name(name)).collect())
    }

    fn fenced_error(&self, other: &Owner) -> Error {
        Error::integrity(format!(
            "fenced: another process has taken over the checkpoints in `{}`",
            self.dir.display()
        ))
        .detail(format!("its owner file is `{}`", other.file_name()))
        .hint(
            "two services share one checkpoint location: stop one of them, or give it another \
             `checkpoint.store`; restarting the other reclaims the location",
        )
    }

    /// Removes all but the newest `keep` checkpoints that are intact as far as known, and all files that no
    /// remaining manifest references, except `spare`. Only the ledger's owner may do this. Returns what was
    /// removed.
    pub fn prune(&self, keep: usize, spare: &BTreeSet<String>) -> Result<Vec<String>> {
        let gone = self.prunable(keep, spare)?;
        for name in &gone {
            let path = self.dir.join(name);
            self.files
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

    /// The files that [`prune`](Self::prune) would remove, manifests first.
    pub fn prunable(&self, keep: usize, spare: &BTreeSet<String>) -> Result<Vec<String>> {
        let (mut named, mut kept, mut old) = (spare.clone(), 0, Vec::new());
        let names = self.names()?;
        for epoch in epochs(&names).into_iter().rev() {
            match self.manifest(epoch) {
                _ if kept == keep => old.push(Manifest::file_name(epoch)),
                Ok(manifest) => {
                    kept += usize::from(self.is_whole(&manifest, &names));
                    named.extend(manifest.segments().map(|segment| segment.file.clone()));
                }
                // Left for inspection, but no start will use its files.
                Err(_) => {}
            }
        }
        let unnamed = names
            .into_iter()
            .filter(|name| name.ends_with(DRAFT_END) || name.ends_with(SEGMENT_END) && !named.contains(name));
        old.extend(unnamed);
        Ok(old)
    }

    /// Whether a checkpoint is not known to be damaged, and all of its files are among `names`.
    fn is_whole(&self, manifest: &Manifest, names: &[String]) -> bool {
        let is_there = |file: &String| names.binary_search(file).is_ok();
        !self.damaged.lock().contains(&manifest.epoch)
            && manifest.segments().all(|segment| is_there(&segment.file))
    }

    /// The checkpoints that are intact as far as known, newest first.
    pub fn whole(&self) -> Result<Vec<Manifest>> {
        let names = self.names()?;
        let manifests = epochs(&names)
            .into_iter()
            .rev()
            .filter_map(|epoch| self.manifest(epoch).ok());
        Ok(manifests
            .filter(|manifest| self.is_whole(manifest, &names))
            .collect())
    }

    /// Verifies every checkpoint against its files. Damaged ones are reported, and do not count when others
    /// are [removed](Self::prune).
    pub fn examine(&self) -> Result<Vec<(Epoch, Result<Manifest>)>> {
        let examined = self.epochs()?.into_iter().map(|epoch| {
            let whole = self.manifest(epoch);
            let whole = whole.and_then(|manifest| self.verify(&manifest).map(|()| manifest));
            if whole.as_ref().is_err_and(|error| error.kind() == Kind::Integrity) {
                self.damaged.lock().insert(epoch);
            }
            (epoch, whole)
        });
        Ok(examined.collect())
    }

    /// The name of a segment's file.
    pub fn segment_name(epoch: Epoch, step: usize, merged: usize) -> String {
        match merged {
            0 => format!("{:020}-{step:03}{SEGMENT_END}", epoch.0),
            n => format!("{:020}-{step:03}-{n}{SEGMENT_END}", epoch.0),
        }
    }
}

/// The epochs of the manifests among the names, oldest first.
fn epochs(names: &[String]) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = names.iter().filter_map(|name| Manifest::epoch_of(name)).collect();
    epochs.sort_unstable();
    epochs
}

/// The checkpoint that a run resumes from.
pub struct RestoredCheckpoint {
    store: CheckpointStore,
    /// Its manifest.
    pub manifest: Manifest,
    /// See [`Compatibility::held`](super::compatibility::Compatibility::held).
    held: Vec<Option<usize>>,
    read: AtomicU64,
}

impl RestoredCheckpoint {
    /// `manifest` as found in `store`, with the step of it that each step of the dataflow
    /// [resumes](super::compatibility::Compatibility::held).
    pub fn new(store: CheckpointStore, manifest: Manifest, held: Vec<Option<usize>>) -> Arc<Self> {
        Arc::new(Self {
            store,
            manifest,
            held,
            read: AtomicU64::new(0),
        })
    }

    /// Where it is.
    pub(crate) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// The step of it that each step of the dataflow resumes.
    pub(crate) fn held(&self) -> &[Option<usize>] {
        &self.held
    }

    /// The files from which a step of the dataflow resumes.
    pub fn files(&self, step: usize) -> Option<&StepFiles> {
        let at = (*self.held.get(step)?)?;
        self.manifest.steps.get(at)
    }

    /// Passes the entries of a step to `see`, those of a key oldest first: the last one wins.
    pub fn each(&self, step: usize, see: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let Some(files) = self.files(step) else {
            return Ok(());
        };
        for segment in &files.segments {
            let reader = SegmentReader::open(&*self.store.files, &self.store.dir, segment)?;
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

    /// A description for messages.
    pub fn describe(&self) -> String {
        let (epoch, dir) = (self.manifest.epoch, self.store.dir.display());
        format!("the checkpoint of epoch {epoch} in `{dir}`")
    }

    /// Bytes read so far, by all workers together.
    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}
