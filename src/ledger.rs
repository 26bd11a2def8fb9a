//! The ledger: the durable log of what every epoch contains and of who may write it.
//!
//! ```text
//!   open ─▶ read ─▶ append CLAIM, fdatasync ─▶ read to the own claim ─ first of its generation? ─ no ─▶ stop
//!                                                                            │ yes
//!   append ─▶ BINDING … BINDING in one write ─▶ fdatasync ─▶ anything written by others? ─ newer claim ─▶ stop
//!                                                                            │ no
//!                                                                            ▼
//!                                                                         durable
//! ```
//!
//! A directory holds one ledger: `ledger.log`, which is append-only, and `lock`. It is one file rather than
//! segments, so that two processes that start at once meet in one place: the meaning of an append that lands
//! behind another's never depends on who has seen which segment. [Trimming](Trim) renames a new file over it
//! that begins with a BASE record.
//!
//! **The log alone decides who may write.** A claim counts if its generation is higher than that of every
//! counted claim before it, so of two concurrent claims the first in the log wins, and the other process
//! finds out before it does anything. Bindings count if they belong to the generation of the last counted
//! claim before them. Every write is a single append (`O_APPEND`), ordered by the file system; nothing is
//! ever overwritten or truncated, because either might hit what another process was just told is durable. The
//! file lock only gives a quicker and friendlier answer.
//!
//! **Torn or damaged?** A write that a crash interrupted was never acknowledged and is discarded: the next
//! claim says where the intact log ended, and readers skip from there to the claim. Damage to acknowledged
//! data halts.
//!
//! | found | treated as |
//! |---|---|
//! | the last frame is shorter than its (intact) header says, or shorter than a header | torn |
//! | a 512-byte sector of the last frame reads as zeros | torn |
//! | anything else wrong in the last frame, such as a flipped bit | damage |
//! | anything wrong in a frame with an intact frame after it | damage |
//! | intact frames that do not continue the hash chain: removed, moved, duplicated, or from another ledger | damage |
//!
//! One case is indistinguishable from a torn write: an *acknowledged* group at the very end of the file that
//! was later truncated or zeroed by sectors, or that the disk never wrote although it reported success.
//! Anyone who holds something newer notices: a sink with progress beyond the ledger's last epoch, or a
//! different chain hash. Damage inside bytes that a claim has discarded has no effect and is not reported.
//! After a failed flush the ledger stops for good, because the operating system may consider the lost pages
//! clean from then on; data that reads back as intact may still be lost in the next power failure.
//!
//! One torn write is indistinguishable from damage: one after which a claim was torn in turn, by a second
//! power failure during the restart, so that the claim's bytes fill what the first write lacks. The service
//! halts, although nothing acknowledged is lost; the file may be truncated at the byte that the error names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;
use crate::disk::{Disk, DiskFile, HostDisk, Lock};
use crate::error::{Error, Result};
use crate::fault;
use crate::position::EpochBinding;
use crate::time::Epoch;

mod frame;
mod inspect;
mod memory;
mod progress;
mod reader;
mod record;
mod reset;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod tests;
mod trim;

pub use frame::FORMAT_VERSION;
use frame::{FileHeader, claim_frame, group_frame};
pub use inspect::{Show, VerifyReport, look, show, show_on, verify, verify_on, whose};
pub use memory::{MemoryLedger, MemoryLog};
pub(crate) use progress::SHARDS_MAX;
pub use progress::ShardProgress;
use reader::{Cursor, FILE_NAME, Frame, Reader, cannot, open_file};
pub use record::Chain;
pub use record::{Claim, ClaimRecord, RecordKind};
pub(crate) use reset::hold;
pub use reset::{reset, reset_target};
use state::LedgerState;
pub use trim::{Trim, Trimmed};

const LOCK_NAME: &str = "lock";

/// How often a claim is retried because a torn write came in before it.
const CLAIMS_MAX: usize = 8;

/// How often the tail is read again while another process may be in the middle of a write.
const LOOKS_MAX: usize = 1000;

/// A store of bindings, written by its owner alone: a store that is fenced by a newer claim stops.
pub trait LedgerStore: Send {
    /// Appends a group of bindings. Returns once all of it is durable and known to count.
    ///
    /// # Errors
    /// After an error nothing more can be appended. The group may be in the ledger in whole, up to some
    /// binding, or not at all; the next start finds out. [`Integrity`](crate::Kind::Integrity): a binding
    /// does not continue the ledger, or another process has taken it over.
    /// [`External`](crate::Kind::External): the store cannot write.
    fn append(&mut self, bindings: &[EpochBinding]) -> Result<()> {
        self.append_group(bindings, &[])
    }

    /// Like [`append`](Self::append), with the progress of sinks, which must not exceed the last binding.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    fn append_group(&mut self, bindings: &[EpochBinding], progress: &[ShardProgress]) -> Result<()>;

    /// The size of the ledger in bytes.
    fn len_bytes(&self) -> u64;

    /// The generation of this owner.
    fn generation(&self) -> u64;

    /// The chain hash after the last appended binding.
    fn chain_hash(&self) -> Chain;

    /// A trim that removes everything up to `epoch`, if that may free at least `least` bytes. It must be
    /// prepared, which may take long and can run on any thread, and then [adopted](Self::adopt).
    fn trim(&self, _epoch: Epoch, _least: u64) -> Option<Trim> {
        None
    }

    /// Switches to a prepared trim. Returns false if that is not possible; nothing has changed then.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    fn adopt(&mut self, _trimmed: Trimmed) -> Result<bool> {
        Ok(false)
    }
}

/// The contents of a ledger when it was opened.
pub struct Recovered {
    /// When the ledger was created, in microseconds since the Unix epoch: distinguishes it from other ledgers
    /// of the same dataflow.
    pub made_us: u64,
    /// The generation of the new owner.
    pub generation: u64,
    /// Distinguishes its claim from another of that generation, in a copy of the ledger.
    pub nonce: u64,
    /// The previous owner.
    pub previous: Option<ClaimRecord>,
    /// The fold of all bindings.
    pub state: LedgerState,
    /// The last bound epoch.
    pub last: Option<Epoch>,
    /// The last trimmed epoch: `bindings` begin after it.
    pub trimmed: Option<Epoch>,
    /// All counted bindings that remain, read from the store as they are requested.
    pub bindings: Bindings,
    /// Notes for people, such as a discarded torn tail. Also logged as warnings.
    pub notes: Vec<String>,
}

impl fmt::Debug for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, last, notes) = (self.generation, self.last, &self.notes);
        write!(
            f,
            "Recovered {{ generation: {generation}, last: {last:?}, notes: {notes:?}, .. }}"
        )
    }
}

/// The bindings of a ledger, in order. Verified again as they are read.
pub struct Bindings {
    inner: Box<dyn Iterator<Item = Result<(EpochBinding, Chain)>> + Send>,
    chain: Option<Chain>,
}

impl Bindings {
    fn new(inner: impl Iterator<Item = Result<(EpochBinding, Chain)>> + Send + 'static) -> Self {
        Self {
            inner: Box::new(inner),
            chain: None,
        }
    }

    /// The chain hash after the binding that was returned last, which checkpoints and sinks record for that
    /// epoch.
    pub fn chain_hash(&self) -> Option<Chain> {
        self.chain
    }
}

impl Iterator for Bindings {
    type Item = Result<EpochBinding>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.inner.next()?;
        Some(item.map(|(binding, chain)| {
            self.chain = Some(chain);
            binding
        }))
    }
}

/// The counted bindings of a file, up to the reader's limit. Ends after an error.
fn bindings_of(reader: Reader) -> impl Iterator<Item = Result<(EpochBinding, Chain)>> + Send {
    let mut reader = Some(reader);
    let frames = std::iter::from_fn(move || {
        let next = reader.as_mut()?.next_frame();
        if !matches!(next, Ok(Some(_))) {
            reader = None;
        }
        next.transpose()
    });
    frames.flat_map(|frame| match frame {
        Ok(Frame::Group(group)) => group.bindings.into_iter().map(Ok).collect(),
        Ok(_) => Vec::new(),
        Err(error) => vec![Err(error)],
    })
}

/// A ledger in a directory, owned by this process.
///
/// ```
/// use thalweg::ledger::{Claim, Ledger, LedgerStore};
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let claim = Claim { app: "shop".into(), dataflow: "spend".into(), build: "1.4.0".into(), sources: vec![] };
/// let (mut ledger, recovered) = Ledger::open(dir, claim)?;
/// assert_eq!((recovered.generation, recovered.last), (1, None));
/// ledger.append(&[])?;
/// # Ok::<(), thalweg::Error>(())
/// ```
pub struct Ledger {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    cursor: Cursor,
    state: LedgerState,
    stopped: bool,
    /// The last epoch of the previous owner.
    previous_last: Option<Epoch>,
    _lock: Lock,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, cursor) = (&self.path, &self.cursor);
        f.debug_struct("Ledger")
            .field("path", path)
            .field("cursor", cursor)
            .finish_non_exhaustive()
    }
}

impl Ledger {
    /// Opens the ledger in `dir` and makes this process its owner. If the directory is missing or empty,
    /// creates the ledger of `claim`'s app and dataflow.
    ///
    /// # Errors
    /// [`Definition`](crate::Kind::Definition): the directory contains other files, the ledger of another
    /// dataflow, or a format that this build does not read. [`Integrity`](crate::Kind::Integrity): the ledger
    /// is damaged, with the location. [`External`](crate::Kind::External): another process holds it, or the
    /// disk failed.
    pub fn open(dir: &Path, claim: Claim) -> Result<(Self, Recovered)> {
        Self::open_on(&HostDisk, dir, claim)
    }

    /// Like [`open`](Self::open), on a given disk.
    pub fn open_on<D: Disk + Clone + 'static>(
        disk: &D,
        dir: &Path,
        claim: Claim,
    ) -> Result<(Self, Recovered)> {
        let path = dir.join(FILE_NAME);
        disk.make_dir(dir).map_err(|error| cannot("make", dir, &error))?;
        refuse_foreign(disk, dir)?;
        let lock = take_lock(disk, dir)?;
        make_if_missing(disk, dir, &claim)?;
        let (file, header, mut reader) = open_file(disk, dir, true)?;
        same_dataflow(&path, &header, &claim)?;
        // Data that a killed process left unflushed reads as intact. The claim depends on it, and must not
        // outlive it.
        file.sync().map_err(|error| cannot("write to", &path, &error))?;
        let mut state = LedgerState::default();
        let mut notes = Vec::new();
        let trimmed = fold_rest(&mut reader, &mut state)?;
        let previous = reader.cursor.claim.clone();
        let own = make_claim(&file, &path, claim, &mut reader, &mut state, &mut notes)?;
        fault::point("claim.counted");
        for note in &notes {
            tracing::warn!(ledger = %path.display(), note, "recovered the ledger");
        }
        let (_, _, mut again) = open_file(disk, dir, false)?;
        again.extend(reader.cursor.end);
        let (generation, last, bindings) = (own.generation, state.last(), Bindings::new(bindings_of(again)));
        let recovered = Recovered {
            made_us: header.time_us,
            generation,
            nonce: own.nonce,
            previous,
            state: state.clone(),
            last,
            trimmed,
            bindings,
            notes,
        };
        // Left over from a trim that a crash interrupted.
        for name in disk.list(dir).unwrap_or_default() {
            if is_draft(&name) {
                let _left = disk.remove(&dir.join(name));
            }
        }
        let ledger = Self {
            disk: Arc::new(disk.clone()),
            dir: dir.to_owned(),
            file,
            path,
            cursor: reader.cursor,
            state,
            stopped: false,
            previous_last: last,
            _lock: lock,
        };
        fault::point("claim.held");
        Ok((ledger, recovered))
    }

    fn append_frame(&mut self, bindings: &[EpochBinding], progress: &[ShardProgress]) -> Result<usize> {
        let generation = self.cursor.generation;
        let (bytes, count, chain) = group_frame(generation, bindings, progress, self.cursor.chain);
        fault::point("binding.begun");
        let end = self
            .file
            .append(&bytes)
            .map_err(|error| cannot("write to", &self.path, &error))?;
        fault::point("binding.appended");
        self.file
            .sync()
            .map_err(|error| cannot("write to", &self.path, &error))?;
        fault::point("binding.synced");
        let len = self
            .file
            .len()
            .map_err(|error| cannot("write to", &self.path, &error))?;
        if end == self.cursor.end + bytes.len() as u64 && len == end {
            self.cursor.advance(end, &bindings[..count], chain);
        } else {
            self.look_behind(end, chain)?;
        }
        Ok(count)
    }

    /// Handles writes by another process: reads what they are. Void claims and late bindings are harmless.
    fn look_behind(&mut self, own_end: u64, own_chain: Chain) -> Result<()> {
        let mut unfinished = 0;
        for _ in 0..LOOKS_MAX {
            let len = self
                .file
                .len()
                .map_err(|error| cannot("read", &self.path, &error))?;
            let mut reader = Reader::resume(self.file.clone(), self.path.clone(), self.cursor.clone(), len);
            while let Some(frame) = reader.next_frame()? {
                if let Frame::Claim(claim) = frame {
                    return Err(fenced_error(&self.path, &claim));
                }
            }
            match reader.torn {
                None if reader.cursor.chain == own_chain => {
                    self.cursor = reader.cursor;
                    return Ok(());
                }
                None => break,
                // Another process may be in the middle of appending a claim.
                Some(bytes) => unfinished = bytes,
            }
            std::thread::yield_now();
        }
        Err(Error::integrity(format!(
            "another process writes to the ledger `{}`",
            self.path.display()
        ))
        .detail(format!(
            "{unfinished} bytes near byte {own_end} were written by another process"
        ))
        .hint("stop the other process, then restart this one"))
    }
}

impl LedgerStore for Ledger {
    fn append_group(&mut self, bindings: &[EpochBinding], progress: &[ShardProgress]) -> Result<()> {
        if self.stopped {
            return Err(
                Error::external(format!("the ledger `{}` has stopped", self.path.display()))
                    .detail("an earlier write to it failed")
                    .hint("restart the service: it recovers what was written"),
            );
        }
        self.stopped = true;
        for binding in bindings {
            self.state.apply(binding)?;
        }
        progress
            .iter()
            .for_each(|progress| self.state.note_progress(progress));
        let (mut rest, mut progress) = (bindings, progress);
        while !rest.is_empty() || !progress.is_empty() {
            let count = self.append_frame(rest, progress)?;
            (rest, progress) = (&rest[count..], &[]);
        }
        self.stopped = false;
        Ok(())
    }

    fn len_bytes(&self) -> u64 {
        self.cursor.end
    }

    fn generation(&self) -> u64 {
        self.cursor.generation
    }

    fn chain_hash(&self) -> Chain {
        self.cursor.chain
    }

    fn trim(&self, epoch: Epoch, least: u64) -> Option<Trim> {
        self.trim_upto(epoch, least)
    }

    fn adopt(&mut self, trimmed: Trimmed) -> Result<bool> {
        Self::adopt(self, trimmed)
    }
}

fn refuse_foreign(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let names = disk.list(dir).map_err(|error| cannot("look for", dir, &error))?;
    if names.iter().any(|name| name == FILE_NAME) {
        return Ok(());
    }
    let foreign: Vec<_> = names
        .iter()
        .filter(|name| *name != LOCK_NAME && !is_draft(name))
        .take(3)
        .collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(
        Error::definition(format!("`{}` is not a ledger directory", dir.display()))
            .detail(format!(
                "it contains other files ({foreign:?}) and no `{FILE_NAME}`"
            ))
            .hint("choose an empty directory, or one that does not exist yet"),
    )
}

/// Whether it is the name of an unfinished ledger.
fn is_draft(name: &str) -> bool {
    name.starts_with("ledger.") && name.ends_with(".new")
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<Lock> {
    match disk
        .lock(&dir.join(LOCK_NAME))
        .map_err(|error| cannot("lock", dir, &error))?
    {
        Lock::HeldBy(pid) => {
            let pid = pid.map_or("unknown".to_owned(), |pid| pid.to_string());
            Err(
                Error::external(format!("another process holds the ledger `{}`", dir.display()))
                    .detail(format!("its process id is {pid}"))
                    .hint("stop it first, or give this service its own directory (`--data-dir`)"),
            )
        }
        lock => Ok(lock),
    }
}

fn make_if_missing(disk: &dyn Disk, dir: &Path, claim: &Claim) -> Result<()> {
    let names = disk.list(dir).map_err(|error| cannot("look for", dir, &error))?;
    if names.iter().any(|name| name == FILE_NAME) {
        return Ok(());
    }
    let Claim {
        app, dataflow, build, ..
    } = claim.clone();
    let header = FileHeader {
        app,
        dataflow,
        build,
        time_us: clock::now_micros(),
    };
    let path = dir.join(FILE_NAME);
    // The file of another process that started at the same time serves as well: its contents are read next.
    disk.publish(&path, &header.encode())
        .map_err(|error| cannot("make", &path, &error))?;
    Ok(())
}

fn same_dataflow(path: &Path, header: &FileHeader, claim: &Claim) -> Result<()> {
    if (&header.app, &header.dataflow) == (&claim.app, &claim.dataflow) {
        return Ok(());
    }
    let theirs = format!("app `{}`, dataflow `{}`", header.app, header.dataflow);
    let ours = format!("app `{}`, dataflow `{}`", claim.app, claim.dataflow);
    Err(Error::definition(format!(
        "the ledger `{}` belongs to another dataflow",
        path.display()
    ))
    .detail(format!("the ledger's: {theirs}; this one: {ours}"))
    .hint("give every dataflow its own ledger"))
}

/// Returns the epoch up to which the ledger was trimmed.
fn fold_rest(reader: &mut Reader, state: &mut LedgerState) -> Result<Option<Epoch>> {
    let mut trimmed = None;
    while let Some(frame) = reader.next_frame()? {
        if let Frame::Base(base) = &frame {
            trimmed = base.state.last();
        }
        fold(reader, state, frame)?;
    }
    Ok(trimmed)
}

fn fold(reader: &Reader, state: &mut LedgerState, frame: Frame) -> Result<()> {
    match frame {
        Frame::Base(base) => *state = base.state,
        Frame::Group(group) => {
            for (binding, _) in &group.bindings {
                state.apply(binding).map_err(|error| reader.at_place(error))?;
            }
            group
                .progress
                .iter()
                .for_each(|progress| state.note_progress(progress));
        }
        _ => {}
    }
    Ok(())
}

/// Appends a claim and reads up to it. `reader` is at the end of the known log before, and after the claim
/// when this returns.
fn make_claim(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    claim: Claim,
    reader: &mut Reader,
    state: &mut LedgerState,
    notes: &mut Vec<String>,
) -> Result<ClaimRecord> {
    for _ in 0..CLAIMS_MAX {
        let record = ClaimRecord {
            generation: reader.cursor.generation_highest + 1,
            nonce: clock::nonce(),
            time_us: clock::now_micros(),
            end: reader.cursor.end,
            chain: reader.cursor.chain.mark(),
            claim: claim.clone(),
        };
        fault::point("claim.begun");
        let end = file
            .append(&claim_frame(&record))
            .map_err(|error| cannot("write to", path, &error))?;
        fault::point("claim.appended");
        file.sync().map_err(|error| cannot("write to", path, &error))?;
        fault::point("claim.synced");
        // Everything before the own claim is final, and is only read now.
        reader.extend(end);
        while let Some(frame) = reader.next_frame()? {
            match frame {
                Frame::Claim(counted) if counted == record => return Ok(record),
                Frame::Void(void) if void == record => return Err(lost_claim_race(path, reader)),
                Frame::Cut { bytes } => notes.push(format!(
                    "discarded {bytes} bytes at byte {} of `{}`: a write interrupted before it was \
                     acknowledged{}",
                    reader.at,
                    path.display(),
                    reader
                        .cursor
                        .last
                        .map_or(String::new(), |last| format!("; the last epoch is {last}")),
                )),
                frame => fold(reader, state, frame)?,
            }
        }
        // Another process's write was torn just before the claim: the next claim records where the log ends.
    }
    Err(Error::external(format!(
        "another process keeps writing to the ledger `{}`",
        path.display()
    ))
    .hint("stop the other process, then restart this one"))
}

fn lost_claim_race(path: &Path, reader: &Reader) -> Error {
    let holder = reader
        .cursor
        .claim
        .as_ref()
        .map_or("an unknown one".to_owned(), ClaimRecord::describe);
    Error::external(format!("another process holds the ledger `{}`", path.display()))
        .detail(format!("it claimed the ledger first, at the same time: {holder}"))
        .hint("stop one of the two")
}

fn fenced_error(path: &Path, by: &ClaimRecord) -> Error {
    Error::integrity(format!(
        "fenced: another process has taken over the ledger `{}`",
        path.display()
    ))
    .detail(format!("it is {}", by.describe()))
    .hint("only one process may run a dataflow; this one stops")
}
