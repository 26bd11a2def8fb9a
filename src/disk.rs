//! The few things that the ledger and checkpoints ask of a disk, so that a simulated one can stand in for it;
//! and the fewer that checkpoints alone do, so that an object store can.
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

/// A place for files that are written once, read, and removed again.
///
/// Every [`Disk`] is one.
pub trait FileStore: Send + Sync {
    /// Makes a directory where it is missing, durably.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// All bytes of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Opens a file that was finished.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileReader>>;

    /// Begins a file; an error of kind `AlreadyExists` if there is one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWriter>>;

    /// Makes a file appear with all of its contents, durably, or not at all. `false`: there was another one
    /// already, which is left alone.
    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool>;

    /// Removes a file. One that is not there is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names of finished files survive a loss of power.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file that is read. It does not change any more.
pub trait FileReader: Send + Sync {
    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file that is being written. Before it is finished it may be there in part, or not at all.
pub trait FileWriter: Send {
    /// Adds bytes at its end.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all of it survives a loss of power; its name does after
    /// [`sync_dir`](FileStore::sync_dir).
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Why a place for files does not do its part, with what to do about it; inside an [`io::Error`].
#[derive(Clone, Debug)]
pub struct Trouble {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: &'static str,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {}

impl Trouble {
    /// The one that an error carries.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// A disk: files that grow, and what it takes to keep a log in one. Paths are those of the host.
pub trait Disk: Send + Sync {
    /// Makes a directory and its parents where they are missing, durably.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a file appear with all of its contents, durably, or not at all. `false`: there was one already,
    /// which is left alone.
    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool>;

    /// Opens a file that is there.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes an empty file; an error of kind `AlreadyExists` if there is one. Its name is durable after
    /// [`sync_dir`](Disk::sync_dir).
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, in place of whatever has that name. Durable after
    /// [`sync_dir`](Disk::sync_dir); a loss of power before leaves one or the other.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. One that is not there is no error.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in a directory survive a loss of power.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes an advisory lock, which ends with the process at the latest.
    fn lock(&self, path: &Path) -> io::Result<Lock>;
}

/// A file that only grows.
pub trait DiskFile: Send + Sync {
    /// Appends in one piece at whatever is the end by then, also when others append to the same file. Returns
    /// where the piece ends. After an error any prefix of it may be there.
    fn append(&self, bytes: &[u8]) -> io::Result<u64>;

    /// Returns when everything appended so far survives a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Lets the disk begin with these bytes, and waits for nothing: [`sync`](DiskFile::sync) then has less to
    /// do at once, and whoever else syncs something meanwhile waits less for it.
    fn begin_sync(&self, _from: u64, _to: u64) {}

    /// How long the file is now, whoever wrote it. An error of kind `NotFound` if it was removed.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// What came of asking for a lock.
pub enum Lock {
    /// It is held until this is dropped.
    Held(Box<dyn Any + Send + Sync>),
    /// Another holds it: the process id as far as it is known.
    HeldBy(Option<u32>),
    /// There are no locks here.
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

    /// A file of another name is filled and made durable first; linking it fails where there is one already.
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

    /// The ledger's fdatasync has the disk to share with what a checkpoint writes: hundreds of megabytes at
    /// its own fsync held up every epoch for 0.1 s and more.
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
