//! How far a sink has come, in a file beside the ledger.
//!
//! ```text
//!   sinks/alerts.progress    "thalweg sink 1\n" · record · record …
//!   record                   ledger u64 · epoch u64 · CRC32C u32           little-endian; the last one that is whole counts
//! ```
//!
//! A record is appended and synced behind every write: one wait for the disk. `ledger` is when the ledger was made: with another
//! one, nothing that was given counts. A file that has grown is written anew beside, and renamed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile};
use crate::error::{Error, Result};
use crate::fault;
use crate::time::Epoch;

const HEADER: &[u8] = b"thalweg sink 1\n";
const RECORD: usize = 20;
/// A file is written anew when it has so many records.
const RECORDS_MAX: u64 = 50_000;

/// Notes how far a shard has come.
pub(crate) trait Record: Send {
    /// The store has everything up to `epoch`. Whether that survives a loss of power by now; if not, its queue is told later.
    fn record(&mut self, epoch: Epoch) -> Result<bool>;
}

/// For shards of which nobody keeps anything.
pub(crate) struct Unrecorded;

impl Record for Unrecorded {
    fn record(&mut self, _epoch: Epoch) -> Result<bool> {
        Ok(true)
    }
}

impl Record for Progress {
    fn record(&mut self, epoch: Epoch) -> Result<bool> {
        self.save(epoch)?;
        fault::point("sink.saved");
        Ok(true)
    }
}

/// Where the files are.
#[derive(Clone)]
pub struct Place {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The directory; made where it is missing.
    pub dir: PathBuf,
    /// When the ledger was made: see [`Recovered`](crate::ledger::Recovered).
    pub ledger: u64,
    /// The ledger's last epoch.
    pub last: Option<Epoch>,
}

/// One sink's file.
pub struct Progress {
    place: Place,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    records: u64,
}

impl Place {
    /// Opens a sink's file, and says where it has come to.
    ///
    /// # Errors
    /// [`Outside`](crate::Kind::Outside): the disk does not do its part. [`Integrity`](crate::Kind::Integrity): the file is none
    /// of these, or the sink is further than the ledger.
    pub fn open(&self, sink: &str, shard: u32) -> Result<(Progress, Option<Epoch>)> {
        let path = match shard {
            0 => self.dir.join(format!("{}.progress", file_name(sink))),
            shard => self.dir.join(format!("{}.{shard}.progress", file_name(sink))),
        };
        let unusable = |error| cannot(&path, &error);
        self.disk.make_dir(&self.dir).map_err(unusable)?;
        let bytes = match self.disk.open(&path, false) {
            Ok(file) => read(&*file).map_err(unusable)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(unusable(error)),
        };
        let reached = last_of(&bytes, &path)?;
        let reached = match reached {
            Some((ledger, epoch)) if ledger != self.ledger => {
                tracing::warn!(
                    "sink `{sink}` begins anew: it had come to epoch {epoch} of a ledger that is not here any more"
                );
                None
            }
            reached => reached.map(|(_, epoch)| epoch),
        };
        if let Some(reached) = reached.filter(|reached| Some(*reached) > self.last) {
            return Err(Error::integrity(format!("sink `{sink}` is further than the ledger"))
                .detail(format!("it was given epoch {reached}, and the ledger does not know it"))
                .detail(path.display())
                .hint("the ledger has lost its end, or is another one: put back the one that belongs to it; without the file the sink begins anew"));
        }
        let file = begin(self, &path, reached).map_err(unusable)?;
        let progress = Progress {
            place: self.clone(),
            path,
            file,
            records: 1,
        };
        Ok((progress, reached))
    }
}

impl Progress {
    /// The sink has everything up to `epoch`. Returns when this survives a loss of power.
    pub fn save(&mut self, epoch: Epoch) -> Result<()> {
        let saved = match self.records < RECORDS_MAX {
            true => {
                let appended = self.file.append(&record(self.place.ledger, epoch));
                appended.and_then(|_| self.file.sync())
            }
            false => Err(std::io::ErrorKind::FileTooLarge.into()),
        };
        if saved.is_ok() {
            self.records += 1;
            return Ok(());
        }
        // Part of a record may be there now: behind it none would be found.
        self.records = RECORDS_MAX;
        self.file =
            begin(&self.place, &self.path, Some(epoch)).map_err(|error| cannot(&self.path, &error))?;
        self.records = 1;
        Ok(())
    }
}

/// Writes a file anew.
fn begin(place: &Place, path: &Path, reached: Option<Epoch>) -> std::io::Result<Arc<dyn DiskFile>> {
    let new = path.with_extension("new");
    place.disk.remove(&new)?;
    let file = place.disk.create(&new)?;
    let mut bytes = HEADER.to_vec();
    bytes.extend(
        reached
            .map(|epoch| record(place.ledger, epoch))
            .into_iter()
            .flatten(),
    );
    file.append(&bytes)?;
    file.sync()?;
    place.disk.rename(&new, path)?;
    place.disk.sync_dir(&place.dir)?;
    Ok(file)
}

fn read(file: &dyn DiskFile) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(std::io::Error::other)?];
    let read = file.read_at(0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn record(ledger: u64, epoch: Epoch) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&ledger.to_le_bytes());
    record[8..16].copy_from_slice(&epoch.0.to_le_bytes());
    let crc = crc32c::crc32c(&record[..16]);
    record[16..].copy_from_slice(&crc.to_le_bytes());
    record
}

/// The last record that is whole: ledger and epoch. What comes behind one that is not was never said to be saved.
fn last_of(bytes: &[u8], path: &Path) -> Result<Option<(u64, Epoch)>> {
    let Some(records) = bytes.strip_prefix(HEADER) else {
        // It is renamed with its header, so there is none without.
        return match bytes.is_empty() {
            true => Ok(None),
            false => Err(Error::integrity("a sink's progress is damaged")
                .detail(format!("{} does not begin as such a file does", path.display()))
                .hint("without the file the sink begins anew, with what the ledger and the checkpoints still have")),
        };
    };
    let (mut last, (records, torn)) = (None, records.as_chunks::<RECORD>());
    for (at, record) in records.iter().enumerate() {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&record[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        if crc32c::crc32c(&record[..16]).to_le_bytes() != record[16..] {
            // A torn write is at the end.
            if at + 1 < records.len() || !torn.is_empty() {
                return Err(Error::integrity("a sink's progress is damaged")
                    .detail(format!("record {at} of {}", path.display()))
                    .hint("without the file the sink begins anew, with what the ledger and the checkpoints still have"));
            }
            break;
        }
        last = Some((number(0), Epoch(number(8))));
    }
    Ok(last)
}

/// A name that every file system takes, and that no other sink has.
fn file_name(sink: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match sink.chars().all(plain) && !sink.starts_with('.') {
        true => sink.to_owned(),
        false => format!(
            "{}-{:08x}",
            sink.replace(|c| !plain(c), "_").trim_start_matches('.'),
            crc32c::crc32c(sink.as_bytes())
        ),
    }
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::outside(format!(
        "the progress of a sink can't be kept in `{}`",
        path.display()
    ))
    .detail(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::sim::SimDisk;
    use crate::error::Kind;

    fn place(disk: &SimDisk) -> Place {
        Place {
            disk: Arc::new(disk.clone()),
            dir: "/sinks".into(),
            ledger: 7,
            last: Some(Epoch(1_000_000)),
        }
    }

    const PATH: &str = "/sinks/alerts.progress";

    proptest! {
        /// Whenever the power goes, and however often it is written anew: what was said to be saved is, or something later.
        #[test]
        fn what_was_saved_is_there_after_a_loss_of_power(
            runs in prop::collection::vec((1u64..40, any::<u64>(), 1usize..60), 1..5),
        ) {
            let mut disk = SimDisk::new();
            let mut saved = 0;
            for (count, seed, calls) in runs {
                let (mut progress, reached) = place(&disk).open("alerts", 0).unwrap();
                prop_assert!(reached.map_or(0, |epoch| epoch.0) >= saved);
                saved = reached.map_or(0, |epoch| epoch.0);
                // Written anew somewhere on the way.
                progress.records = RECORDS_MAX - count.min(seed % 40);
                disk.set_calls_left(calls);
                for _ in 0..count {
                    if progress.save(Epoch(saved + 1)).is_err() || disk.is_dead() {
                        break;
                    }
                    saved += 1;
                }
                disk = disk.after_crash(seed);
            }
            let (_, reached) = place(&disk).open("alerts", 0).unwrap();
            prop_assert!(reached.map_or(0, |epoch| epoch.0) >= saved);
        }
    }

    #[test]
    fn a_full_disk_is_told_of_and_what_comes_later_is_found_again() {
        let disk = SimDisk::new();
        let (mut progress, _) = place(&disk).open("alerts", 0).unwrap();
        progress.save(Epoch(1)).unwrap();
        for space in 0..RECORD {
            disk.set_space_left(Some(space));
            assert_eq!(progress.save(Epoch(2)).unwrap_err().kind(), Kind::Outside);
        }
        disk.set_space_left(None);
        progress.save(Epoch(3)).unwrap();
        assert_eq!(place(&disk).open("alerts", 0).unwrap().1, Some(Epoch(3)));
    }

    #[test]
    fn what_is_not_a_sinks_or_not_this_ledgers_is_told() {
        let disk = SimDisk::new();
        let (mut progress, _) = place(&disk).open("alerts", 0).unwrap();
        for epoch in 1..=3 {
            progress.save(Epoch(epoch)).unwrap();
        }
        let bytes = disk.bytes(Path::new(PATH)).unwrap();
        let opened = |bytes: &[u8], place: &dyn Fn(&SimDisk) -> Place| {
            let disk = SimDisk::new();
            disk.put(Path::new(PATH), bytes.to_vec());
            place(&disk).open("alerts", 0).map(|(_, reached)| reached)
        };
        assert_eq!(opened(&bytes, &place).unwrap(), Some(Epoch(3)));
        // Of another ledger: nothing was given.
        let other = |disk: &SimDisk| Place {
            ledger: 8,
            ..place(disk)
        };
        assert_eq!(opened(&bytes, &other).unwrap(), None);
        // Of one that has lost its end.
        let shorter = |disk: &SimDisk| Place {
            last: Some(Epoch(2)),
            ..place(disk)
        };
        let error = opened(&bytes, &shorter).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity, "{error}");
        // A tail that was torn, wherever it was.
        for len in HEADER.len()..bytes.len() {
            let whole = (len - HEADER.len()) / RECORD;
            let epoch = (whole > 0).then_some(Epoch(whole as u64));
            assert_eq!(opened(&bytes[..len], &place).unwrap(), epoch);
        }
        // A bit anywhere else.
        for bit in 0..(bytes.len() - RECORD) * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = opened(&bytes, &place).unwrap_err();
            assert_eq!(error.kind(), Kind::Integrity, "bit {bit}: {error}");
        }
    }

    #[test]
    fn names_that_are_no_file_names_have_one_each() {
        let names = ["alerts", "a/b", "a_b", "a\\b", "..", ".hidden", "", "größe"].map(file_name);
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
        assert!(
            names
                .iter()
                .all(|name| !name.contains(['/', '\\']) && !name.starts_with('.'))
        );
    }
}
