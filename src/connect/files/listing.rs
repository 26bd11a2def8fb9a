//! Which files there are, and how long they are.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::position::{Offset, TopicId};
use crate::source::{Driver, PartitionFacts, SourceErrorKind, Topology};

/// The connector's name.
pub(super) const NAME: &str = "files";
/// How much is read at once in search of a file's last line end.
const BLOCK: u64 = 64 << 10;

/// The files of one source.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pattern: PathBuf,
}

impl Listing {
    pub(super) fn new(pattern: PathBuf) -> Self {
        Self { pattern }
    }

    pub(super) fn pattern(&self) -> &Path {
        &self.pattern
    }

    /// The files now, by name: the order of partitions.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        let name = self.pattern.file_name().map_or(&b""[..], OsStrExt::as_bytes);
        let wild = name.contains(&b'*') || name.contains(&b'?');
        if !wild && self.pattern.is_file() {
            return Ok(vec![self.pattern.clone()]);
        }
        let (folder, name) = match wild {
            true => (self.pattern.parent().unwrap_or(Path::new("")), name),
            false => (self.pattern.as_path(), &b"*"[..]),
        };
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let mut names: Vec<OsString> = Vec::new();
        let unlisted = |error: std::io::Error| self.unseen().detail(format!("{}: {error}", folder.display()));
        for entry in std::fs::read_dir(folder).map_err(unlisted)? {
            let entry = entry.map_err(unlisted)?.file_name();
            let hidden = entry.as_bytes().starts_with(b".") && !name.starts_with(b".");
            if !hidden && matches(name, entry.as_bytes()) && folder.join(&entry).is_file() {
                names.push(entry);
            }
        }
        names.sort_unstable();
        match names.is_empty() {
            true => Err(self.unseen().detail("there is no file of that name")),
            false => Ok(names.iter().map(|name| folder.join(name)).collect()),
        }
    }

    fn unseen(&self) -> Error {
        Error::external(format!("no files match `{}`", self.pattern.display())).hint(
            "paths are relative to where the process was started; only the last part may have `*` and `?`",
        )
    }
}

/// Whether `name` is one that `pattern` means, with `*` for any characters and `?` for one.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on if the newest star has to take one character more.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == name[n] || *wanted == b'?' => (p, n) = (p + 1, n + 1),
            _ => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|rest| *rest == b'*')
}

/// Looks at the files.
pub(super) struct FilesDriver {
    listing: Listing,
    /// Whether a last line without its end is a record.
    until_end: bool,
    waits: bool,
    format: &'static str,
    /// As of the look before: what is there must stay where it is.
    seen: Mutex<Vec<PathBuf>>,
    /// The length of each file as it was when its end was looked for, and that end: a file that only ever
    /// grows is opened again when it has grown.
    ends: Mutex<HashMap<PathBuf, (u64, Offset)>>,
}

impl FilesDriver {
    pub(super) fn new(listing: Listing, until_end: bool, waits: bool, format: &'static str) -> Self {
        Self {
            listing,
            until_end,
            waits,
            format,
            seen: Mutex::default(),
            ends: Mutex::default(),
        }
    }
}

impl FilesDriver {
    /// How far a file can be read now.
    fn end(&self, path: &Path) -> std::io::Result<Offset> {
        let len = std::fs::metadata(path)?.len();
        let mut ends = self.ends.lock();
        match ends.get(path) {
            Some((known, at)) if *known == len => Ok(*at),
            _ => {
                let at = end(path, self.until_end)?;
                ends.insert(path.to_owned(), (len, at));
                Ok(at)
            }
        }
    }
}

impl Driver for FilesDriver {
    fn topology(&self) -> Result<Topology> {
        let files = self.listing.files()?;
        let mut seen = self.seen.lock();
        if let Some((before, now)) = seen.iter().zip(&files).find(|(before, now)| before != now) {
            let what = format!(
                "the numbering of the files `{}` has changed",
                self.listing.pattern.display()
            );
            return Err(Error::integrity(what)
                .detail(format!(
                    "{} is now at the position of {} in the order of names",
                    now.display(),
                    before.display()
                ))
                .hint(
                    "keep files for as long as they may be replayed, and name new ones so that they sort \
                     last: 2026-01-31, 0010",
                ));
        }
        if let Some(missing) = seen.get(files.len()) {
            return Err(gone(missing));
        }
        let facts = |(partition, path): (u32, &PathBuf)| -> Result<PartitionFacts> {
            let end = self.end(path).map_err(|error| unread(path, &error))?;
            Ok(PartitionFacts::new(partition, 0, end))
        };
        let partitions = (0..).zip(&files).map(facts).collect::<Result<_>>()?;
        if files.len() > seen.len() {
            *seen = files;
        }
        Ok(Topology {
            compacted: false,
            // Files have no identity but what stands in them, and that is hashed: a folder may be moved.
            topic: TopicId::default(),
            partitions,
        })
    }

    fn error_kind(&self) -> Option<SourceErrorKind> {
        self.listing.files().is_err().then_some(SourceErrorKind::Missing)
    }

    fn waits(&self) -> bool {
        self.waits
    }

    fn formats(&self) -> Vec<(&'static str, String)> {
        vec![("value", self.format.to_owned())]
    }

    fn connector(&self) -> Option<&'static str> {
        Some(NAME)
    }
}

/// How far a file can be read now: to its end, or to the end of its last whole line.
fn end(path: &Path, all: bool) -> std::io::Result<Offset> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut block = Vec::new();
    let mut hi = if all { 0 } else { len };
    while hi > 0 {
        let lo = hi.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(lo))?;
        block.clear();
        (&mut file).take(hi - lo).read_to_end(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(offset(lo + at as u64 + 1));
        }
        hi = lo;
    }
    Ok(offset(if all { len } else { 0 }))
}

pub(super) fn offset(bytes: u64) -> Offset {
    Offset::try_from(bytes).unwrap_or(Offset::MAX)
}

/// A file that was read, or is numbered as one that was, is not there.
pub(super) fn gone(path: &Path) -> Error {
    Error::integrity(format!("the file {} is gone", path.display()))
        .hint("restore it under its name: a replay reads all files that were read")
}

pub(super) fn unread(path: &Path, error: &std::io::Error) -> Error {
    Error::external(format!("cannot read the file {}", path.display())).detail(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        let yes = |pattern: &str, name: &str| {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}")
        };
        let no = |pattern: &str, name: &str| {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}")
        };
        yes("*", "a");
        yes("a*b*c", "a-bb-c");
        yes("*.jsonl", "x.jsonl.jsonl");
        yes("p-??.json", "p-07.json");
        no("p-??.json", "p-7.json");
        no("a*b*c", "a-c-b");
        no("*.jsonl", "x.json");
        no("a", "");
    }
}
