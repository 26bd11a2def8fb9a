//! Reads lines. No file is kept open: each read opens its file, so that neither the number of files nor a
//! file that was replaced by a longer copy of itself matters.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

use super::listing::{Listing, gone, offset, unread};
use crate::bridge::Waker;
use crate::codec::registry::Verdict;
use crate::codec::{Decoded, unmarked};
use crate::error::{Error, Result};
use crate::position::Offset;
use crate::source::records::{Payload, Records};
use crate::source::{Intake, Raw, ReadProgress, Reader};
use crate::time::EventTime;

/// How much is read at once; a longer line is read again in larger pieces.
const CHUNK: u64 = 512 << 10;
/// A longer line halts the service: it is more likely a file of something else.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// Lines have no timestamp of their own.
const UNSTAMPED: EventTime = EventTime(0);

/// Where lines come from, and whether the end of a file ends its last line.
pub(super) struct LineOrigin {
    pub(super) listing: Listing,
    pub(super) until_end: bool,
}

/// One file.
struct FileProgress {
    path: PathBuf,
    position: u64,
    /// Ends of lines passed since `from`.
    lines: u64,
    from: u64,
    /// Lines before `from`; counted when a dead letter needs them.
    before: Option<u64>,
}

/// Reads lines of files, decodes them as `T`, and makes `R` of them.
pub(super) struct FilesReader<T, R> {
    place: LineOrigin,
    lines: Payload<T>,
    make: Box<dyn Fn(T) -> R>,
    parts: BTreeMap<u32, FileProgress>,
    chunk: Vec<u8>,
    /// Nobody follows files that are read until their end.
    follower: Option<FileWatcher>,
    waker: Waker,
}

impl<T, R> FilesReader<T, R> {
    pub(super) fn new(
        place: LineOrigin,
        lines: Payload<T>,
        make: Box<dyn Fn(T) -> R>,
        poll: Duration,
        waker: Waker,
    ) -> Result<Self> {
        let follower = match place.until_end {
            true => None,
            false => Some(FileWatcher::new(poll, waker.clone())?),
        };
        Ok(Self {
            place,
            lines,
            make,
            parts: BTreeMap::new(),
            chunk: Vec::new(),
            follower,
            waker,
        })
    }
}

impl<T: 'static, R: 'static> Reader<R> for FilesReader<T, R> {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        let files = self.place.listing.files()?;
        let path = files.into_iter().nth(partition as usize).ok_or_else(|| {
            let pattern = self.place.listing.pattern().display();
            Error::integrity(format!("file number {partition} of `{pattern}` is gone")).hint(
                "restore it under its name: files are numbered from 0 in the order of their names, and a \
                 replay reads all of them",
            )
        })?;
        let from = u64::try_from(from).unwrap_or(0);
        let part = FileProgress {
            path,
            position: from,
            lines: 0,
            from,
            before: None,
        };
        self.parts.insert(partition, part);
        self.waker.wake();
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<R>,
    ) -> Result<ReadProgress> {
        let part = self
            .parts
            .get_mut(&partition)
            .ok_or_else(|| Error::internal(format!("file number {partition} was not assigned")))?;
        let mut file = open(&part.path)?;
        let about = file.metadata().map_err(|error| unread(&part.path, &error))?;
        let len = about.len();
        // What an earlier run bound ends where it ended then: maybe within a line that has been completed
        // since.
        let bound = (until < Offset::MAX).then(|| u64::try_from(until).unwrap_or(0));
        if part.position > len || bound.is_some_and(|bound| bound > len) {
            return Err(changed(&part.path).detail(format!(
                "it has {len} bytes; {} were read before",
                bound.unwrap_or(0).max(part.position)
            )));
        }
        let limit = bound.unwrap_or(len);
        let ends = bound.is_some() || self.place.until_end;
        let mut records = 0;
        // For the rest of a line, or for what a decoder asked for.
        let (mut waits, mut undecided) = (false, false);
        self.lines.enter(partition, bound.is_some());
        if part.position < limit && records_max > 0 {
            let held = (intake.records, intake.oldest);
            fill(&mut self.chunk, &mut file, part, limit)?;
            let reaches_limit = part.position + self.chunk.len() as u64 == limit;
            let mut rest = self.chunk.as_slice();
            while !rest.is_empty() && records < records_max {
                let (line, taken) = match rest.iter().position(|byte| *byte == b'\n') {
                    Some(at) => (&rest[..at], at + 1),
                    None if reaches_limit && ends => (rest, rest.len()),
                    None => {
                        waits = reaches_limit;
                        break;
                    }
                };
                match take(part, line, &mut self.lines, &*self.make, intake)? {
                    LineOutcome::Record => records += 1,
                    LineOutcome::Blank => {}
                    LineOutcome::Nothing => {
                        undecided = true;
                        break;
                    }
                }
                // What was cut short goes on in the same line.
                part.lines += u64::from(taken > line.len());
                part.position += taken as u64;
                rest = &rest[taken..];
            }
            if intake.records != held.0 {
                // For metrics only: no line is older than its file's last change, as far as one can know.
                let modified = about
                    .modified()
                    .ok()
                    .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let modified = modified.map_or(UNSTAMPED, |at| UNSTAMPED.plus(at));
                intake.oldest = held.1.min(modified);
            }
        }
        if let Some(error) = self.lines.broken() {
            return Err(error);
        }
        let at_end = bound.is_none() && (waits || part.position >= limit);
        if at_end && let Some(follower) = &self.follower {
            follower.follow(&part.path, len);
        }
        Ok(ReadProgress {
            position: offset(part.position),
            at_end: waits || part.position >= len,
            more: !waits && !undecided && part.position < limit,
        })
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        self.lines.schemas_seen()
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.lines.bind_schema(verdict);
    }
}

/// What was taken of a line.
enum LineOutcome {
    Record,
    /// There is nothing on it.
    Blank,
    /// It has to be read again: its schema is being fetched.
    Nothing,
}

/// Takes one line in.
fn take<T: 'static, R>(
    part: &mut FileProgress,
    line: &[u8],
    lines: &mut Payload<T>,
    make: &dyn Fn(T) -> R,
    intake: &mut Intake<R>,
) -> Result<LineOutcome> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if unmarked(line).trim_ascii().is_empty() {
        return Ok(LineOutcome::Blank);
    }
    let raw = Raw {
        offset: offset(part.position),
        timestamp: UNSTAMPED,
        key: None,
        payload: Some(line),
    };
    match lines.decode(&raw) {
        Decoded::Value(value) => {
            intake.at_work(raw.offset);
            let dead = intake.dead_len();
            intake.value(raw, make(value));
            // Its time may have made it a dead letter.
            if intake.dead_len() > dead {
                intake.explain(part.here()?);
            }
        }
        Decoded::Dead(cause, schema) => {
            intake.dead(raw, cause, schema);
            intake.explain(part.here()?);
        }
        Decoded::DeadAt(cause, schema, place) => {
            intake.dead_at(raw, cause, schema, format!("{}: {place}", part.here()?).into());
        }
        Decoded::Wait => return Ok(LineOutcome::Nothing),
    }
    Ok(LineOutcome::Record)
}

impl FileProgress {
    /// The file and the line, counted from 1, as a person writes them.
    fn here(&mut self) -> Result<String> {
        let before = match self.before {
            Some(before) => before,
            None => *self.before.insert(count_lines(&self.path, self.from)?),
        };
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        Ok(format!(
            "{}, line {}",
            name.to_string_lossy(),
            before + self.lines + 1
        ))
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => gone(path),
        _ => unread(path, &error),
    })
}

fn changed(path: &Path) -> Error {
    Error::integrity(format!(
        "the file {} has changed since it was read",
        path.display()
    ))
    .hint(
        "files may only grow, and the names of new files must sort after those already read: rename a \
         file that sorts between them, and restore what was changed; to continue with the present \
         contents, start over with an empty data directory",
    )
}

/// Fills `chunk` from the part's position on: at least one whole line, unless `limit` comes first.
fn fill(chunk: &mut Vec<u8>, file: &mut File, part: &FileProgress, limit: u64) -> Result<()> {
    let failed = |error: std::io::Error| unread(&part.path, &error);
    file.seek(SeekFrom::Start(part.position)).map_err(failed)?;
    chunk.clear();
    chunk.shrink_to(4 * CHUNK as usize);
    let left = limit - part.position;
    let mut wanted = CHUNK.min(left);
    loop {
        let had = chunk.len();
        let missing = wanted - had as u64;
        let got = file.take(missing).read_to_end(chunk).map_err(failed)?;
        if (got as u64) < missing {
            return Err(changed(&part.path).detail("it was truncated while it was read"));
        }
        if wanted == left || chunk[had..].contains(&b'\n') {
            return Ok(());
        }
        if wanted >= LINE_BYTES_MAX {
            return Err(
                Error::external(format!("a line of {} is too long", part.path.display()))
                    .detail(format!(
                        "it begins at byte {} and does not end within {} MiB",
                        part.position,
                        wanted >> 20
                    ))
                    .hint("is it a file of lines?"),
            );
        }
        wanted = (wanted * 4).min(left);
    }
}

fn count_lines(path: &Path, until: u64) -> Result<u64> {
    let mut file = open(path)?.take(until);
    let mut block = vec![0; 64 << 10];
    let mut lines = 0;
    loop {
        match file.read(&mut block).map_err(|error| unread(path, &error))? {
            0 => return Ok(lines),
            read => lines += block[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

/// A thread that wakes the worker when a file that was read to its end has another length. Ends with the
/// reader.
struct FileWatcher {
    lengths: Arc<Mutex<HashMap<PathBuf, u64>>>,
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FileWatcher {
    fn new(poll: Duration, waker: Waker) -> Result<Self> {
        let lengths: Arc<Mutex<HashMap<PathBuf, u64>>> = Arc::default();
        let (ends, ended) = channel::<()>();
        let watched = lengths.clone();
        let grown = |path: &Path, len: u64| std::fs::metadata(path).map_or(true, |now| now.len() != len);
        let poll = poll.max(Duration::from_millis(1));
        let thread = std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || {
                // A time-out of a channel goes by the monotonic clock.
                while ended.recv_timeout(poll) == Err(RecvTimeoutError::Timeout) {
                    let mut files = watched.lock();
                    let before = files.len();
                    // Each is told of once; who reads it to its end again says so again.
                    files.retain(|path, len| !grown(path, *len));
                    let wake = files.len() < before;
                    drop(files);
                    if wake {
                        waker.wake();
                    }
                }
            })?;
        Ok(Self {
            lengths,
            ends: Some(ends),
            thread: Some(thread),
        })
    }

    fn follow(&self, path: &Path, len: u64) {
        let mut lengths = self.lengths.lock();
        match lengths.get_mut(path) {
            Some(known) => *known = len,
            None => {
                lengths.insert(path.to_owned(), len);
            }
        }
    }
}

impl Drop for FileWatcher {
    fn drop(&mut self) {
        self.ends = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
