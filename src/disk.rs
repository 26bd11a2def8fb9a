//! The operations that the ledger and checkpoints need from a disk, so that a simulated one can replace it;
//! and the subset that checkpoints need, so that an object store can.
//!
//! ```text
//!   ledger ──────▶ Disk        append and read, rename, lock          HostDisk, SimDisk
//!                   │ is
//!   checkpoints ─▶ FileStore   write once, publish, read, remove      every Disk, ObjectFiles
//! ```

use std::any::Any;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use crate::{clock, fault};

#[cfg(feature = "object-store")]
pub mod object;
pub mod sim;

/// A store for files that are written once, read, and removed.
///
/// Every [`Disk`] is one.
pub trait FileStore: Send + Sync {
    /// Creates a directory durably if it is missing.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Reads a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Opens a finished file.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileReader>>;

    /// Creates a file; an error of kind `AlreadyExists` if it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWriter>>;

    /// Publishes a file atomically and durably. Returns false if it already exists; the existing file is
    /// unchanged.
    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool>;

    /// Removes a file. Not an error if it does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names of finished files durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// An open file for reading. Its contents no longer change.
pub trait FileReader: Send + Sync {
    /// Reads at an offset; returns fewer bytes than requested only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file being written. Until it is finished, it may exist in part or not at all.
pub trait FileWriter: Send {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the contents durable; the name becomes durable with [`sync_dir`](FileStore::sync_dir).
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Why a file store failed, with what to do about it; carried by an [`io::Error`].
#[derive(Clone, Debug)]
pub struct StoreFault {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StoreFault {}

impl StoreFault {
    /// Extracts it from an error.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// A disk: append-only files, and the operations for a log in one. Paths are those of the host.
pub trait Disk: Send + Sync {
    /// Creates a directory and its parents durably if they are missing.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Publishes a file atomically and durably. Returns false if it already exists; the existing file is
    /// unchanged.
    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool>;

    /// Opens an existing file.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates an empty file; an error of kind `AlreadyExists` if it exists. Its name becomes durable with
    /// [`sync_dir`](Disk::sync_dir).
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames a file, replacing an existing one. Becomes durable with [`sync_dir`](Disk::sync_dir); after a
    /// power failure before that, either state may survive.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Not an error if it does not exist.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an advisory lock, which ends with the process at the latest.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
}

/// An append-only file.
pub trait DiskFile: Send + Sync {
    /// Appends in one piece at the current end, even if others append to the same file. Returns where the
    /// piece ends. After an error, any prefix of it may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<u64>;

    /// Makes everything appended so far durable.
    fn sync(&self) -> io::Result<()>;

    /// Starts writing these bytes to disk without waiting: a later [`sync`](DiskFile::sync) then has less to
    /// do at once, and delays other syncs less.
    fn begin_sync(&self, _from: u64, _to: u64) {}

    /// The current length of the file, whoever wrote it. An error of kind `NotFound` if it was removed.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at an offset; returns fewer bytes than requested only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// The outcome of a lock request.
pub enum Lock {
    /// Held until this is dropped.
    Held(Box<dyn Any + Send + Sync>),
    /// Held by another process, with its id if known.
    HeldBy(Option<u32>),
    /// Locks are not supported.
    Unsupported,
}

impl<D: Disk> FileStore for D {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        Disk::make_dir(self, dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk::list(self, dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = Disk::open(self, path, false)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
        let n = file.read_at(0, &mut bytes)?;
        bytes.truncate(n);
        Ok(bytes)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileReader>> {
        Ok(Arc::new(Disk::open(self, path, false)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWriter>> {
        Ok(Box::new(Disk::create(self, path)?))
    }

    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool> {
        Disk::publish(self, path, contents)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk::remove(self, path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk::sync_dir(self, dir)
    }
}

impl FileReader for Arc<dyn DiskFile> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buffer)
    }
}

impl FileWriter for Arc<dyn DiskFile> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = (**self).append(bytes)?;
        (**self).begin_sync(end - bytes.len() as u64, end);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.sync()
    }
}

/// The host's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Disk::make_dir(self, parent)?;
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => {}
            made => made?,
        }
        sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = std::fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    /// A temporary file is written and made durable first; linking it fails if the name exists.
    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let draft = path.with_extension(format!("{:016x}.new", clock::nonce()));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&draft)?;
        let synced = file.write_all(contents).and_then(|()| {
            fault::point("publish.drafted");
            file.sync_all()
        });
        let linked = synced.and_then(|()| {
            fault::point("publish.synced");
            std::fs::hard_link(&draft, path)
        });
        fault::point("publish.linked");
        let removed = std::fs::remove_file(&draft);
        fault::point("publish.removed");
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            linked => linked.and(removed)?,
        }
        sync_dir(dir)?;
        fault::point("publish.done");
        Ok(true)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).append(writable).open(path)?;
        Ok(Arc::new(HostFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(path)?;
        Ok(Arc::new(HostFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Lock::Held(Box::new(file)))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                Ok(Lock::HeldBy(text.trim().parse().ok()))
            }
            Err(TryLockError::Error(_)) => Ok(Lock::Unsupported),
        }
    }
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

struct HostFile(File);

impl DiskFile for HostFile {
    fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        let mut file = &self.0;
        let mut rest = bytes;
        let mut end: Option<u64> = None;
        while !rest.is_empty() {
            let written = match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                written => written?,
            };
            // The file's own position stands at the end of what was appended, wherever that was.
            let position = file.stream_position()?;
            if end.is_some_and(|end| end + written as u64 != position) {
                return Err(io::Error::other("another process wrote in between"));
            }
            end = Some(position);
            rest = &rest[written..];
        }
        end.map_or_else(|| self.len(), Ok)
    }

    /// The ledger's fdatasync competes for the disk with a checkpoint's writes: syncing hundreds of megabytes
    /// at once delayed every epoch by 0.1 s and more.
    #[cfg(target_os = "linux")]
    fn begin_sync(&self, from: u64, to: u64) {
        use std::os::fd::AsRawFd;
        let (from, len) = (from.cast_signed(), (to - from).cast_signed());
        // SAFETY: a plain system call on a file that is open. It promises nothing, so nothing hangs on what
        // it returns.
        unsafe { libc::sync_file_range(self.0.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        let metadata = self.0.metadata()?;
        if metadata.nlink() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the file was removed while it was in use",
            ));
        }
        Ok(metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
