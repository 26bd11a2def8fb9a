//! Trimming: removes the beginning of a ledger once no start needs it any more.
//!
//! ```text
//!   ledger.log   header │ CLAIM │ … bindings up to f … │ bindings after f │
//!                                                       └───────┬────────┘
//!   draft        header │ BASE: what all of it up to f adds up to │ the same bytes │    synced, then renamed over it
//! ```
//!
//! The draft is prepared while the owner keeps writing; the owner then copies what was written meanwhile,
//! renames the draft, and continues in the new file. Processes that have the old file open keep reading it. A
//! process that claims the ledger in the old file at that moment finds at its first write that the file no
//! longer has a name, and stops: there are never two owners. Nothing is trimmed while a claim is among what
//! would be kept, because claims record their position in the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::fault;
use crate::ledger::frame::base_frame;
use crate::ledger::reader::{FILE_NAME, Frame, cannot, open_file};
use crate::ledger::record::BaseRecord;
use crate::ledger::state::LedgerState;
use crate::ledger::{Ledger, fold};
use crate::time::Epoch;

/// Bytes to copy at once.
const COPY: usize = 1 << 20;

/// A trim to be prepared; can be sent to another thread.
pub struct Trim {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    upto: Epoch,
    least: u64,
}

/// A prepared trim: the new beginning, and what followed it at the time.
pub struct Trimmed {
    draft: PathBuf,
    file: Arc<dyn DiskFile>,
    /// The position up to which the old file was copied.
    copied: u64,
    generation: u64,
    /// The last trimmed epoch.
    pub upto: Epoch,
    /// The number of bytes freed.
    pub bytes: u64,
}

impl Trim {
    /// Trims however little it frees.
    #[cfg(test)]
    pub(super) fn of<D: Disk + Clone + 'static>(disk: &D, dir: &Path, upto: Epoch) -> Self {
        Self {
            disk: Arc::new(disk.clone()),
            dir: dir.to_owned(),
            upto,
            least: 1,
        }
    }

    /// Writes the draft. `None` if it is not worthwhile, or not possible now.
    pub fn prepare(&self) -> Result<Option<Trimmed>> {
        let (file, _, mut reader) = open_file(&*self.disk, &self.dir, false)?;
        let path = self.dir.join(FILE_NAME);
        let header_end = reader.cursor.end;
        let mut state = LedgerState::default();
        let mut kept = reader.cursor.clone();
        while let Some(frame) = reader.next_frame()? {
            if let Frame::Group(group) = &frame
                && group
                    .bindings
                    .last()
                    .is_some_and(|(last, _)| last.epoch > self.upto)
            {
                break;
            }
            fold(&reader, &mut state, frame)?;
            kept = reader.cursor.clone();
        }
        let Some(claim) = kept.claim.clone() else {
            return Ok(None);
        };
        // The frame that ended the loop contained bindings.
        while let Some(frame) = reader.next_frame()? {
            if !matches!(frame, Frame::Group(_)) {
                return Ok(None);
            }
        }
        let (Some(upto), copied) = (state.last(), reader.cursor.end) else {
            return Ok(None);
        };
        if kept.end - header_end < self.least || reader.torn.is_some() {
            return Ok(None);
        }
        let base = base_frame(&BaseRecord {
            claim,
            generation_highest: kept.generation_highest,
            chain: kept.chain,
            bindings: kept.bindings,
            state,
        })?;
        let draft = self.dir.join(format!("ledger.{:016x}.new", clock::nonce()));
        let unwritable = |error: std::io::Error| cannot("write to", &draft, &error);
        fault::point("trim.begun");
        let new = self.disk.create(&draft).map_err(unwritable)?;
        let written = copy(&file, &path, 0..header_end, &new, &draft)
            .and_then(|()| new.append(&base).map(drop).map_err(unwritable))
            .and_then(|()| copy(&file, &path, kept.end..copied, &new, &draft))
            .and_then(|()| {
                fault::point("trim.drafted");
                new.sync().map_err(unwritable)
            });
        if let Err(error) = written {
            let _left = self.disk.remove(&draft);
            return Err(error);
        }
        fault::point("trim.prepared");
        Ok(Some(Trimmed {
            draft,
            file: new,
            copied,
            generation: kept.generation,
            upto,
            bytes: (kept.end - header_end).saturating_sub(base.len() as u64),
        }))
    }
}

fn copy(
    from: &Arc<dyn DiskFile>,
    path: &Path,
    range: std::ops::Range<u64>,
    to: &Arc<dyn DiskFile>,
    draft: &Path,
) -> Result<()> {
    let mut at = range.start;
    let mut buffer = vec![0; COPY];
    while at < range.end {
        let want = COPY.min((range.end - at) as usize);
        let n = from
            .read_at(at, &mut buffer[..want])
            .map_err(|error| cannot("read", path, &error))?;
        if n == 0 {
            return Err(Error::integrity(format!("`{}` ends too early", path.display())));
        }
        to.append(&buffer[..n])
            .map_err(|error| cannot("write to", draft, &error))?;
        at += n as u64;
    }
    Ok(())
}

impl Ledger {
    /// A trim that removes everything up to `epoch`.
    pub(super) fn trim_upto(&self, epoch: Epoch, least: u64) -> Option<Trim> {
        // The own claim must be among what is removed.
        let is_own = self.previous_last.is_none_or(|last| epoch > last);
        (is_own && self.cursor.end > least).then(|| Trim {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            upto: epoch,
            least,
        })
    }

    /// Switches to the new file. Returns false if another process has written to the old one; nothing has
    /// changed then.
    pub(super) fn adopt(&mut self, trimmed: Trimmed) -> Result<bool> {
        let adopted = self.adopt_file(&trimmed);
        if !matches!(adopted, Ok(true)) {
            let _left = self.disk.remove(&trimmed.draft);
        }
        adopted
    }

    fn adopt_file(&mut self, trimmed: &Trimmed) -> Result<bool> {
        let draft = &trimmed.draft;
        let undisturbed = |ledger: &Self| {
            let len = ledger
                .file
                .len()
                .map_err(|error| cannot("read", &ledger.path, &error))?;
            Ok::<_, Error>(len == ledger.cursor.end)
        };
        if trimmed.generation != self.cursor.generation || self.stopped || !undisturbed(self)? {
            return Ok(false);
        }
        copy(
            &self.file,
            &self.path,
            trimmed.copied..self.cursor.end,
            &trimmed.file,
            draft,
        )?;
        let unwritable = |error: std::io::Error| cannot("write to", draft, &error);
        fault::point("trim.tail");
        trimmed.file.sync().map_err(unwritable)?;
        let end = trimmed.file.len().map_err(unwritable)?;
        if !undisturbed(self)? {
            return Ok(false);
        }
        // After a failure from here on, it is unknown which of the two files has the name: nothing more is
        // written.
        self.stopped = true;
        fault::point("trim.synced");
        self.disk.rename(draft, &self.path).map_err(unwritable)?;
        fault::point("trim.renamed");
        self.disk.sync_dir(&self.dir).map_err(unwritable)?;
        fault::point("trim.durable");
        self.file = self.disk.open(&self.path, true).map_err(unwritable)?;
        self.cursor.moved(end);
        self.stopped = false;
        fault::point("trim.done");
        Ok(true)
    }
}
