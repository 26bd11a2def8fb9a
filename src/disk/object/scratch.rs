//! An unnamed local file, for data on its way to or from a store.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::clock;
use crate::disk::{FileReader, StoreFault};

/// Disappears with the process, however that ends.
pub(super) struct Scratch(File);

impl Scratch {
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(format!(".scratch-{:016x}", clock::nonce()));
        let mut options = OpenOptions::new();
        let made = options.read(true).write(true).create_new(true).open(&path);
        let file = made.map_err(|error| unusable(&error, dir))?;
        std::fs::remove_file(&path)?;
        Ok(Self(file))
    }

    pub(super) fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, at)
    }
}

fn unusable(error: &io::Error, dir: &Path) -> io::Error {
    let trouble = StoreFault {
        what: format!(
            "cannot create a scratch file for uploads in `{}`: {error}",
            dir.display()
        ),
        hint: "objects are staged in a local file: free some space, or grant this user write access",
    };
    io::Error::new(error.kind(), trouble)
}

impl FileReader for Scratch {
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
