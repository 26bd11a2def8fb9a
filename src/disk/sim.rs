//! An in-memory disk with the failures of real ones: it fills up, its flushes fail, and after a power failure
//! whatever was not flushed is partly there. The same seed has the same losses.
//!
//! ```text
//!   file   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▒▒▒▒▒▒│▒▒▒▒▒▒│▒▒▒        ▓ flushed: survives
//!   crash  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▒▒▒▒▒▒│000000│▒           ▒ each 512-byte sector is kept or reads as zeros; the end may go
//!
//!   names  on the disk │ made │ renamed │ removed │   since the last flush of the directory: a loss of power keeps the
//!                      └────────────────────────┘   first of these changes, or any of them
//! ```
//!
//! A file lives as long as a name or an open handle refers to it: a file that was renamed over is unchanged
//! for those who have it open.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Lock};

/// The unit that a disk writes atomically.
const SECTOR: usize = 512;

/// A simulated disk. Clones share it. It has no locks: what is tested on it relies on the log alone.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<DiskState>>);

#[derive(Clone, Default)]
struct DiskState {
    files: BTreeMap<FileId, SimBytes>,
    names: BTreeMap<PathBuf, FileId>,
    /// The state on the disk, and the changes since.
    names_synced: BTreeMap<PathBuf, FileId>,
    changes: Vec<DirectoryChange>,
    made: FileId,
    boots: u64,
    space_left: Option<usize>,
    sync_fails: bool,
    creates_fail: usize,
    /// Number of further modifying calls before the power fails.
    calls_left: Option<usize>,
}

/// A file, independent of its name.
pub type FileId = u64;

/// A change to a directory.
#[derive(Clone)]
enum DirectoryChange {
    Named(PathBuf, FileId),
    Renamed(PathBuf, PathBuf, FileId),
    Removed(PathBuf),
}

impl DirectoryChange {
    fn path(&self) -> &Path {
        match self {
            DirectoryChange::Named(path, _)
            | DirectoryChange::Renamed(_, path, _)
            | DirectoryChange::Removed(path) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            DirectoryChange::Named(path, file) => _ = names.insert(path.clone(), *file),
            DirectoryChange::Renamed(from, to, file) => {
                // Only the name that this very file has.
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            DirectoryChange::Removed(path) => _ = names.remove(path),
        }
    }
}

#[derive(Clone, Default)]
struct SimBytes {
    bytes: Vec<u8>,
    synced: usize,
}

impl DiskState {
    /// One modifying call.
    fn call(&mut self) -> io::Result<()> {
        self.powered()?;
        if let Some(left) = &mut self.calls_left {
            *left -= 1;
        }
        self.powered()
    }

    fn powered(&self) -> io::Result<()> {
        match self.calls_left {
            Some(0) => Err(io::Error::other("simulated loss of power")),
            _ => Ok(()),
        }
    }

    fn take_space(&mut self, bytes: usize) -> io::Result<()> {
        if let Some(space) = &mut self.space_left {
            *space = space.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    fn change(&mut self, change: DirectoryChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn make(&mut self, path: &Path, bytes: &[u8]) -> FileId {
        self.made += 1;
        let file = SimBytes {
            synced: bytes.len(),
            bytes: bytes.to_vec(),
        };
        self.files.insert(self.made, file);
        self.change(DirectoryChange::Named(path.to_path_buf(), self.made));
        self.made
    }

    fn sync_dir(&mut self, dir: &Path) {
        let inside = |change: &DirectoryChange| change.path().parent() == Some(dir);
        for change in self.changes.extract_if(.., |change| inside(change)) {
            change.apply(&mut self.names_synced);
        }
    }

    fn crash(&mut self, seed: u64) {
        let mut draws = seed;
        let changes = std::mem::take(&mut self.changes);
        // A journal loses its end; without one any change may be late.
        let kept = match draw(&mut draws) % 2 {
            0 => draw(&mut draws) as usize % (changes.len() + 1),
            _ => changes.len(),
        };
        let orderly = kept < changes.len() || draw(&mut draws).is_multiple_of(2);
        for change in &changes[..kept] {
            if orderly || draw(&mut draws).is_multiple_of(2) {
                change.apply(&mut self.names_synced);
            }
        }
        self.names = self.names_synced.clone();
        let named: std::collections::BTreeSet<FileId> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        for file in self.files.values_mut() {
            file.crash(&mut draws);
        }
        self.boots += 1;
        self.calls_left = None;
    }
}

impl SimBytes {
    fn crash(&mut self, draws: &mut u64) {
        let unsynced = self.bytes.len() - self.synced;
        let kept = self.synced + (draw(draws) % (unsynced as u64 + 1)) as usize;
        // Every other time the file keeps its length, as when only the data is late.
        if draw(draws).is_multiple_of(2) {
            self.bytes.truncate(kept);
        }
        let mut at = self.synced;
        while at < self.bytes.len() {
            let end = (at / SECTOR + 1) * SECTOR;
            let end = end.min(self.bytes.len());
            if draw(draws).is_multiple_of(2) {
                self.bytes[at..end].fill(0);
            }
            at = end;
        }
        self.synced = self.bytes.len();
    }
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many more bytes fit; `None`: unlimited.
    pub fn set_space_left(&self, bytes: Option<usize>) {
        self.0.lock().space_left = bytes;
    }

    /// Sets whether flushes fail from now on.
    pub fn set_sync_fails(&self, fails: bool) {
        self.0.lock().sync_fails = fails;
    }

    /// Sets how many of the next files cannot be created.
    pub fn set_creates_fail(&self, files: usize) {
        self.0.lock().creates_fail = files;
    }

    /// Makes the power fail during this modifying call, counted from 1: nothing happens any more until the
    /// [crash](Self::crash).
    pub fn set_calls_left(&self, calls: usize) {
        self.0.lock().calls_left = Some(calls);
    }

    /// Whether the power has failed.
    pub fn is_dead(&self) -> bool {
        self.0.lock().powered().is_err()
    }

    /// Power failure: open files are dead, and `seed` determines what survives of data that was not flushed.
    pub fn crash(&self, seed: u64) {
        self.0.lock().crash(seed);
    }

    /// What would survive if the power failed now: another disk, without faults.
    pub fn after_crash(&self, seed: u64) -> Self {
        let mut platters = self.0.lock().clone();
        (platters.space_left, platters.sync_fails, platters.creates_fail) = (None, false, 0);
        platters.crash(seed);
        Self(Arc::new(Mutex::new(platters)))
    }

    /// The contents of a file as a reader sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.0.lock();
        let file = disk.names.get(path)?;
        disk.files.get(file).map(|file| file.bytes.clone())
    }

    /// Flips a bit of a file, of `only` if given. Returns the file.
    pub fn flip(&self, path: &Path, bit: usize, only: Option<FileId>) -> Option<FileId> {
        let mut disk = self.0.lock();
        let id = *disk.names.get(path)?;
        let byte = disk.files.get_mut(&id)?.bytes.get_mut(bit / 8)?;
        if only.is_none_or(|only| only == id) {
            *byte ^= 1 << (bit % 8);
        }
        Some(id)
    }

    /// Writes a flushed file, replacing what was there.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.0.lock();
        disk.make(path, &bytes);
        if let Some(dir) = path.parent() {
            disk.sync_dir(dir);
        }
    }
}

/// SplitMix64: small, and every seed is equally good.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Disk for SimDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        self.0.lock().powered()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        disk.powered()?;
        let inside = disk.names.keys().filter_map(|path| path.strip_prefix(dir).ok());
        Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool> {
        let mut disk = self.0.lock();
        disk.call()?;
        if disk.names.contains_key(path) {
            return Ok(false);
        }
        disk.take_space(contents.len())?;
        if disk.sync_fails {
            return Err(failed());
        }
        disk.make(path, contents);
        disk.call()?;
        disk.sync_dir(path.parent().unwrap_or(Path::new("/")));
        Ok(true)
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let disk = self.0.lock();
        disk.powered()?;
        let id = *disk.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            id,
            boot: disk.boots,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut disk = self.0.lock();
        disk.call()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(left) = disk.creates_fail.checked_sub(1) {
            disk.creates_fail = left;
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.make(path, &[]);
        drop(disk);
        self.open(path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.call()?;
        let file = *disk.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        disk.change(DirectoryChange::Renamed(
            from.to_path_buf(),
            to.to_path_buf(),
            file,
        ));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.call()?;
        if disk.names.contains_key(path) {
            disk.change(DirectoryChange::Removed(path.to_path_buf()));
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.call()?;
        if disk.sync_fails {
            return Err(failed());
        }
        disk.sync_dir(dir);
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Lock> {
        Ok(Lock::Unsupported)
    }
}

fn failed() -> io::Error {
    io::Error::other("simulated failure of a flush")
}

struct SimFile {
    disk: SimDisk,
    id: FileId,
    boot: u64,
}

impl SimFile {
    fn with<R>(&self, act: impl FnOnce(&mut DiskState) -> io::Result<R>) -> io::Result<R> {
        let mut disk = self.disk.0.lock();
        if disk.boots != self.boot {
            return Err(io::Error::other("the machine that opened this file is gone"));
        }
        disk.powered()?;
        act(&mut disk)
    }
}

impl DiskFile for SimFile {
    fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        self.with(|disk| {
            let called = disk.call();
            let fits = disk
                .space_left
                .map_or(bytes.len(), |space| space.min(bytes.len()));
            if let Some(space) = &mut disk.space_left {
                *space -= fits;
            }
            let file = disk.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
            file.bytes.extend_from_slice(&bytes[..fits]);
            called?;
            if fits < bytes.len() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(file.bytes.len() as u64)
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.call()?;
            if disk.sync_fails {
                return Err(failed());
            }
            let file = disk.files.get_mut(&self.id).ok_or(io::ErrorKind::NotFound)?;
            file.synced = file.bytes.len();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|disk| {
            let named = disk.names.values().any(|id| *id == self.id);
            let file = disk.files.get(&self.id).filter(|_| named);
            Ok(file.ok_or(io::ErrorKind::NotFound)?.bytes.len() as u64)
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|disk| {
            let file = disk.files.get(&self.id).ok_or(io::ErrorKind::NotFound)?;
            let rest = file.bytes.get(offset as usize..).unwrap_or(&[]);
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }
}
