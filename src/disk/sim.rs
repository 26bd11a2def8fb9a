//! A disk in memory that fails as disks do: it fills up, its flushes fail, and at a loss of power whatever was not
//! flushed is there in part. The same seed gives the same loss.
//!
//! ```text
//!   file   ▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▒▒▒▒▒▒│▒▒▒▒▒▒│▒▒▒        ▓ flushed: survives
//!   crash  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓│▒▒▒▒▒▒│000000│▒           ▒ each 512-byte sector is kept or reads as zeros; the end may go
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, Lock};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A simulated disk. Clones share it. It knows no locks: what is tested on it rests on the log alone.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Platters>>);

#[derive(Default)]
struct Platters {
    files: BTreeMap<PathBuf, SimBytes>,
    boots: u64,
    space_left: Option<usize>,
    sync_fails: bool,
    creates_fail: usize,
}

#[derive(Clone, Default)]
struct SimBytes {
    bytes: Vec<u8>,
    synced: usize,
    /// Whether its name is on the disk, too.
    named: bool,
    /// What had the name on the disk before.
    replaced: Option<Box<SimBytes>>,
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many more bytes fit; `None`: as many as memory holds.
    pub fn set_space_left(&self, bytes: Option<usize>) {
        self.0.lock().space_left = bytes;
    }

    /// Whether flushes fail from now on.
    pub fn set_sync_fails(&self, fails: bool) {
        self.0.lock().sync_fails = fails;
    }

    /// How many of the next files can't be made.
    pub fn set_creates_fail(&self, files: usize) {
        self.0.lock().creates_fail = files;
    }

    /// Loss of power: open files are dead, and what was not flushed survives as `seed` has it.
    pub fn crash(&self, seed: u64) {
        let mut disk = self.0.lock();
        disk.boots += 1;
        let mut draws = seed;
        disk.files.retain(|_, file| {
            let lost = !file.named && draw(&mut draws).is_multiple_of(2);
            match file.replaced.take() {
                Some(before) if lost => *file = *before,
                _ => return !lost,
            }
            true
        });
        for file in disk.files.values_mut() {
            let unsynced = file.bytes.len() - file.synced;
            let kept = file.synced + (draw(&mut draws) % (unsynced as u64 + 1)) as usize;
            // Every other time the file keeps its length, as when only the data is late.
            if draw(&mut draws).is_multiple_of(2) {
                file.bytes.truncate(kept);
            }
            let mut at = file.synced;
            while at < file.bytes.len() {
                let end = (at / SECTOR + 1) * SECTOR;
                let end = end.min(file.bytes.len());
                if draw(&mut draws).is_multiple_of(2) {
                    file.bytes[at..end].fill(0);
                }
                at = end;
            }
            file.synced = file.bytes.len();
            file.named = true;
        }
    }

    /// The bytes of a file as a reader sees them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.0.lock().files.get(path).map(|file| file.bytes.clone())
    }

    /// Puts a file there, flushed, in place of what was there.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let file = SimBytes {
            synced: bytes.len(),
            bytes,
            named: true,
            replaced: None,
        };
        self.0.lock().files.insert(path.to_path_buf(), file);
    }
}

/// SplitMix64: small, and every seed is as good as any other.
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Disk for SimDisk {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let disk = self.0.lock();
        let inside = disk.files.keys().filter_map(|path| path.strip_prefix(dir).ok());
        Ok(inside.map(|name| name.to_string_lossy().into_owned()).collect())
    }

    fn publish(&self, path: &Path, contents: &[u8]) -> io::Result<bool> {
        let mut disk = self.0.lock();
        if disk.files.contains_key(path) {
            return Ok(false);
        }
        if let Some(space) = &mut disk.space_left {
            *space = space
                .checked_sub(contents.len())
                .ok_or(io::ErrorKind::StorageFull)?;
        }
        let file = SimBytes {
            bytes: contents.to_vec(),
            synced: contents.len(),
            named: true,
            replaced: None,
        };
        disk.files.insert(path.to_path_buf(), file);
        Ok(true)
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let disk = self.0.lock();
        if !disk.files.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_path_buf(),
            boot: disk.boots,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut disk = self.0.lock();
        if disk.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(left) = disk.creates_fail.checked_sub(1) {
            disk.creates_fail = left;
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.files.insert(path.to_path_buf(), SimBytes::default());
        drop(disk);
        self.open(path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        let mut file = disk.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        file.replaced = disk.files.remove(to).map(Box::new);
        file.named = false;
        disk.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().files.remove(path);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.0.lock();
        if disk.sync_fails {
            return Err(io::Error::other("simulated failure of a flush"));
        }
        for (path, file) in &mut disk.files {
            if path.parent() == Some(dir) {
                (file.named, file.replaced) = (true, None);
            }
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Lock> {
        Ok(Lock::Unsupported)
    }
}

struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    boot: u64,
}

impl SimFile {
    fn with<R>(
        &self,
        act: impl FnOnce(&mut SimBytes, &mut Option<usize>, bool) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut disk = self.disk.0.lock();
        let disk = &mut *disk;
        if disk.boots != self.boot {
            return Err(io::Error::other("the machine that opened this file is gone"));
        }
        let file = disk.files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?;
        act(file, &mut disk.space_left, disk.sync_fails)
    }
}

impl DiskFile for SimFile {
    fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        self.with(|file, space, _| {
            let fits = space.map_or(bytes.len(), |space| space.min(bytes.len()));
            file.bytes.extend_from_slice(&bytes[..fits]);
            if let Some(space) = space {
                *space -= fits;
            }
            if fits < bytes.len() {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(file.bytes.len() as u64)
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|file, _, fails| {
            if fails {
                return Err(io::Error::other("simulated failure of a flush"));
            }
            file.synced = file.bytes.len();
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|file, _, _| Ok(file.bytes.len() as u64))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|file, _, _| {
            let rest = file.bytes.get(offset as usize..).unwrap_or(&[]);
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }
}
