//! Reads a ledger's file from start to end, decides which records count, and tells torn writes from damage.
//!
//! ```text
//!   frame intact? ─ yes ─▶ CLAIM     counts if its generation is the highest so far, else it is void
//!        │                 BINDING   counts if its generation is that of the last counted claim, else it came too late
//!        │                 PROGRESS  the same
//!        no
//!        ▼
//!   a claim behind it that resumes right here?  ─ yes ─▶ torn once, and cut by that claim: go on there
//!        │ no
//!   other intact frames behind it?              ─ yes ─▶ damage: those were only written once this one was durable
//!        │ no
//!   too short, or a sector that reads as zeros? ─ yes ─▶ torn tail, never acknowledged
//!        │ no
//!        ▼
//!   damage: every byte was written, and some are not what they were
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::ledger::frame::{
    BODY_BYTES_MAX, Body, FORMAT_VERSION, FRAME_HEADER_BYTES, FileHeader, FrameHeader, GroupCommit,
    HeaderFault, frames_within, looks_torn,
};
use crate::ledger::record::{BaseRecord, Chain, ClaimRecord, RecordKind};
use crate::position::EpochBinding;
use crate::time::Epoch;

/// The name of the file in a ledger's directory.
pub(super) const FILE_NAME: &str = "ledger.log";

/// A torn tail is at most one frame, and fragments of claims after it.
const TAIL_BYTES_MAX: u64 = 2 * BODY_BYTES_MAX as u64;

const CHUNK_BYTES: usize = 1 << 20;

pub(super) const DAMAGE_HINT: &str = "nothing was changed. Restore the file from an intact copy; without \
    one, move the directory away to start over from what the topics still hold";

/// A reader's position, and all state that the interpretation of the next frame depends on.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// End of the last intact frame.
    pub end: u64,
    /// The position of the next frame: beyond `end` if a claim discarded a torn piece.
    next: u64,
    pub chain: Chain,
    /// Number of records, counted and void.
    pub frames: u64,
    /// Number of counted bindings.
    pub bindings: u64,
    /// Generation of the last counted claim.
    pub generation: u64,
    /// The highest generation of any claim seen.
    pub generation_highest: u64,
    pub claim: Option<ClaimRecord>,
    pub last: Option<Epoch>,
}

impl Cursor {
    /// The same position in another file.
    pub(super) fn moved(&mut self, end: u64) {
        (self.end, self.next) = (end, end);
    }

    /// The position after a group that this process wrote.
    pub(super) fn advance(&mut self, end: u64, bindings: &[EpochBinding], chain: Chain) {
        (self.end, self.next, self.chain) = (end, end, chain);
        self.frames += 1;
        self.bindings += bindings.len() as u64;
        self.last = bindings.last().map(|binding| binding.epoch).or(self.last);
    }
}

/// A frame and how it counts.
#[derive(Debug)]
pub(super) enum Frame {
    /// The base of a trimmed ledger.
    Base(Box<BaseRecord>),
    /// A claim that counts.
    Claim(ClaimRecord),
    /// A claim that lost to an earlier one: without effect.
    Void(ClaimRecord),
    /// Bindings that count, and sink progress.
    Group(GroupCommit),
    /// Bindings by an owner that had been replaced: not counted.
    Late { generation: u64, bindings: usize },
    /// Bytes that a claim discarded.
    Cut { bytes: u64 },
}

/// Reads frames up to a limit.
pub(super) struct Reader {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    limit: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    pub cursor: Cursor,
    /// Bytes of the torn tail, once reached.
    pub torn: Option<u64>,
    /// The position of the frame that was returned last.
    pub at: u64,
}

/// Opens the file of the ledger in `dir` and reads its header.
pub(super) fn open_file(
    disk: &dyn Disk,
    dir: &Path,
    writable: bool,
) -> Result<(Arc<dyn DiskFile>, FileHeader, Reader)> {
    let path = dir.join(FILE_NAME);
    let file = disk
        .open(&path, writable)
        .map_err(|error| cannot("open", &path, &error))?;
    let limit = file.len().map_err(|error| cannot("read", &path, &error))?;
    let (cursor, header) = begin(&*file, &path)?;
    let reader = Reader::resume(file.clone(), path, cursor, limit);
    Ok((file, header, reader))
}

/// The position after a file's header.
fn begin(file: &dyn DiskFile, path: &Path) -> Result<(Cursor, FileHeader)> {
    let mut start = vec![0; CHUNK_BYTES];
    let len = file
        .read_at(0, &mut start)
        .map_err(|error| cannot("read", path, &error))?;
    start.truncate(len);
    let (header, end) = FileHeader::decode(&start).map_err(|fault| header_error(path, fault))?;
    let cursor = Cursor {
        end: end as u64,
        next: end as u64,
        chain: Chain::start(&start[..end]),
        frames: 0,
        bindings: 0,
        generation: 0,
        generation_highest: 0,
        claim: None,
        last: None,
    };
    Ok((cursor, header))
}

fn header_error(path: &Path, fault: HeaderFault) -> Error {
    let path = path.display();
    match fault {
        HeaderFault::NotALedger => Error::definition(format!("`{path}` is not a Thalweg ledger"))
            .hint("name another directory, or move the file away"),
        HeaderFault::Damaged => Error::integrity(format!("the header of the ledger `{path}` is damaged"))
            .detail("its checksum does not match")
            .hint(DAMAGE_HINT),
        HeaderFault::Version(version) => Error::definition(format!(
            "the ledger `{path}` has an \
            unsupported format"
        ))
        .detail(format!(
            "it has version {version}; this build reads version {FORMAT_VERSION}"
        ))
        .hint("run the build that wrote it, or a later one"),
    }
}

/// Converts an I/O error.
pub(super) fn cannot(act: &str, path: &Path, error: &io::Error) -> Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free space on its file system and restart: acknowledged writes are safe"
        }
        io::ErrorKind::FileTooLarge => {
            "raise the file size limit (`ulimit -f`) and restart: acknowledged writes are safe"
        }
        io::ErrorKind::ReadOnlyFilesystem => "its file system is mounted read-only: remount it writable",
        io::ErrorKind::PermissionDenied => "grant this user read and write access",
        io::ErrorKind::NotFound => "name a directory that holds a ledger",
        _ => "check the disk and the system log; acknowledged writes are as safe as the disk",
    };
    Error::external(format!("cannot {act} the ledger `{}`", path.display()))
        .detail(error)
        .hint(hint)
}

impl Reader {
    /// A reader that resumes at `cursor` and stops at the byte `limit`.
    pub(super) fn resume(file: Arc<dyn DiskFile>, path: PathBuf, cursor: Cursor, limit: u64) -> Self {
        let at = cursor.next;
        Self {
            file,
            path,
            limit,
            buffer: Vec::new(),
            buffer_at: at,
            cursor,
            torn: None,
            at,
        }
    }

    /// A reader of the same file from the start, up to `limit`.
    pub(super) fn again(&self, limit: u64) -> Result<Self> {
        let (cursor, _) = begin(&*self.file, &self.path)?;
        Ok(Self::resume(self.file.clone(), self.path.clone(), cursor, limit))
    }

    /// Raises the limit after more was written.
    pub(super) fn extend(&mut self, limit: u64) {
        self.limit = limit;
        self.torn = None;
        self.buffer.clear();
    }

    /// The next frame; `None` at the end, where `torn` tells whether an unfinished write follows.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>> {
        if self.torn.is_some() || self.cursor.next >= self.limit {
            return Ok(None);
        }
        self.at = self.cursor.next;
        self.fill(FRAME_HEADER_BYTES)?;
        if let Some(header) = FrameHeader::decode(self.ahead()) {
            self.fill(header.frame_bytes())?;
            if let Some(body) = header.body(self.ahead()) {
                let body = body.to_vec();
                return self.interpret(&body, header.frame_bytes() as u64).map(Some);
            }
        }
        self.unreadable()
    }

    fn interpret(&mut self, bytes: &[u8], frame_bytes: u64) -> Result<Frame> {
        let malformed = || "its checksum matches, but its contents are invalid";
        let body = Body::decode(bytes).ok_or_else(|| self.damaged(malformed()))?;
        let frame = match body.kind {
            kind if kind == RecordKind::Claim as u8 => {
                let record = body.claim().ok_or_else(|| self.damaged(malformed()))?;
                self.claim(record, body.records[0])?
            }
            kind if kind == RecordKind::Binding as u8 || kind == RecordKind::Progress as u8 => {
                self.group(&body)?
            }
            kind if kind == RecordKind::Base as u8 => {
                let base = body.base().ok_or_else(|| self.damaged(malformed()))?;
                self.base(base)?
            }
            kind => return Err(self.unknown_kind(kind)),
        };
        self.cursor.next = self.at + frame_bytes;
        self.cursor.end = self.cursor.next;
        self.cursor.frames += 1;
        Ok(frame)
    }

    fn base(&mut self, base: BaseRecord) -> Result<Frame> {
        if self.cursor.frames > 0 {
            return Err(self.damaged("another ledger's first frame is in the middle of this one"));
        }
        self.cursor.chain = base.chain;
        self.cursor.bindings = base.bindings;
        self.cursor.generation = base.claim.generation;
        self.cursor.generation_highest = base.generation_highest;
        self.cursor.claim = Some(base.claim.clone());
        self.cursor.last = base.state.last();
        Ok(Frame::Base(Box::new(base)))
    }

    fn claim(&mut self, record: ClaimRecord, bytes: &[u8]) -> Result<Frame> {
        if record.end > self.at {
            return Err(self.damaged("it is a claim that refers to more of the log than precedes it"));
        }
        // If other frames came in between, the claimant saw an earlier chain hash.
        if record.end == self.cursor.end && record.chain != self.cursor.chain.mark() {
            return Err(self.damaged(CHAIN_BROKEN));
        }
        self.cursor.generation_highest = self.cursor.generation_highest.max(record.generation);
        if record.generation <= self.cursor.generation {
            return Ok(Frame::Void(record));
        }
        self.cursor.generation = record.generation;
        self.cursor.chain = self.cursor.chain.then(RecordKind::Claim, bytes);
        self.cursor.claim = Some(record.clone());
        Ok(Frame::Claim(record))
    }

    fn group(&mut self, body: &Body<'_>) -> Result<Frame> {
        if body.generation < self.cursor.generation {
            return Ok(Frame::Late {
                generation: body.generation,
                bindings: body.group().map_or(0, |(bindings, _)| bindings.len()),
            });
        }
        if body.generation > self.cursor.generation {
            let (found, known) = (body.generation, self.cursor.generation);
            return Err(self.damaged(&format!(
                "it was written by generation {found}, but the last claim is by {known}"
            )));
        }
        let group = body.bindings(self.cursor.chain);
        let group = group.ok_or_else(|| self.damaged("its checksum matches, but it holds no binding"))?;
        let bindings = &group.bindings;
        let chain = bindings.last().map_or(self.cursor.chain, |(_, chain)| *chain);
        if chain.mark() != body.chain {
            return Err(self.damaged(CHAIN_BROKEN));
        }
        self.cursor.chain = chain;
        self.cursor.bindings += bindings.len() as u64;
        self.cursor.last = bindings
            .last()
            .map(|(binding, _)| binding.epoch)
            .or(self.cursor.last);
        Ok(Frame::Group(group))
    }

    /// Handles an invalid frame at `at`: see the diagram above.
    fn unreadable(&mut self) -> Result<Option<Frame>> {
        let rest = self.limit - self.at;
        self.fill(rest.min(TAIL_BYTES_MAX) as usize)?;
        let tail = self.ahead();
        let mut next = tail.len();
        let mut generation_seen = 0;
        let mut resumed = None;
        for (begin, header) in frames_within(tail) {
            next = next.min(begin);
            let Some(body) = header.body(&tail[begin..]).and_then(Body::decode) else {
                continue;
            };
            match body.claim() {
                Some(claim) if claim.end == self.at && claim.chain == self.cursor.chain.mark() => {
                    resumed = Some(begin as u64);
                    break;
                }
                // Its claimant had not read this far, so the claim says nothing about these bytes.
                Some(claim) if claim.end < self.at => generation_seen = claim.generation.max(generation_seen),
                _ => {
                    let next = self.at + begin as u64;
                    return Err(self.damaged(&format!("it cannot be read, but the frame at byte {next} can")));
                }
            }
        }
        if let Some(bytes) = resumed {
            self.cursor.next = self.at + bytes;
            return Ok(Some(Frame::Cut { bytes }));
        }
        if rest > TAIL_BYTES_MAX {
            return Err(self.damaged(&format!("it cannot be read, and {rest} bytes follow")));
        }
        if !looks_torn(tail, self.at, next) {
            return Err(self.damaged("it is complete, but its checksum does not match"));
        }
        self.cursor.generation_highest = self.cursor.generation_highest.max(generation_seen);
        self.torn = Some(rest);
        Ok(None)
    }

    fn ahead(&self) -> &[u8] {
        &self.buffer[(self.cursor.next - self.buffer_at) as usize..]
    }

    /// Buffers `want` bytes from `cursor.next` on, or as many as exist before the limit.
    fn fill(&mut self, want: usize) -> Result<()> {
        let next = self.cursor.next;
        if next < self.buffer_at || next > self.buffer_at + self.buffer.len() as u64 {
            (self.buffer_at, self.buffer) = (next, Vec::new());
        }
        let have = (self.buffer_at + self.buffer.len() as u64 - next) as usize;
        let want = want.min((self.limit - next) as usize);
        if have >= want {
            return Ok(());
        }
        self.buffer.drain(..(next - self.buffer_at) as usize);
        self.buffer_at = next;
        let upto = want.max(CHUNK_BYTES).min((self.limit - next) as usize);
        self.buffer.resize(upto, 0);
        let read = self.file.read_at(next + have as u64, &mut self.buffer[have..]);
        let read = read.map_err(|error| cannot("read", &self.path, &error))?;
        self.buffer.truncate(have + read);
        Ok(())
    }

    fn damaged(&self, cause: &str) -> Error {
        let path = self.path.display();
        Error::integrity(format!("the ledger `{path}` is damaged at byte {}", self.at))
            .detail(self.place())
            .detail(cause)
            .hint(DAMAGE_HINT)
    }

    /// Describes the position: the record's number, counted from 1, and the epoch before it.
    fn place(&self) -> String {
        let behind = match self.cursor.last {
            Some(epoch) => format!("after epoch {epoch} ({})", epoch.opened_at()),
            None => "before the first epoch".to_owned(),
        };
        format!(
            "frame {}, binding {}, {behind}",
            self.cursor.frames + 1,
            self.cursor.bindings + 1
        )
    }

    /// Adds the position to an error.
    pub(super) fn at_place(&self, error: Error) -> Error {
        error
            .detail(format!("in `{}` at byte {}", self.path.display(), self.at))
            .hint(DAMAGE_HINT)
    }

    fn unknown_kind(&self, kind: u8) -> Error {
        let writer = self
            .cursor
            .claim
            .as_ref()
            .map_or("an unknown build".to_owned(), ClaimRecord::describe);
        let name = RecordKind::name(kind);
        Error::definition(format!(
            "the ledger `{}` holds records that this build cannot read",
            self.path.display()
        ))
        .detail(format!(
            "at byte {}: record of kind {kind} ({name}), written by {writer}",
            self.at
        ))
        .hint("run that build, or a later one")
    }
}

const CHAIN_BROKEN: &str = "its hash chain does not continue the preceding records: records were removed, \
    moved, or come from another ledger";
