//! A segment: the entries of one step that changed up to some epoch, in chunks of one bucket each.
//!
//! ```text
//!   segment   "thalweg checkpoint 2\n" · chunk · chunk …                       its length and BLAKE3 stand in the manifest
//!   chunk     bucket u16 · removals u16 · length u32 · CRC32C u32 · entries     little-endian
//! ```
//!
//! The CRC covers the entries and the header before it, so that a merge, which reads files without comparing
//! them with the manifest, never mistakes the bucket of a chunk.
//!
//! Within a segment, removals are applied before everything else, wherever they are stored: a key that was
//! removed and inserted again is present.

use std::path::Path;
use std::sync::Arc;

use crate::disk::{FileReader, FileStore, FileWriter};
use crate::error::{Error, Result};
use crate::fault;

use super::entry::Entry;
use super::manifest::SegmentFile;
use super::{cannot, damaged};

const HEADER: &[u8] = b"thalweg checkpoint 2\n";
const CHUNK_HEADER_BYTES: usize = 12;
/// Maximum size of a chunk: a greater length indicates damage.
const CHUNK_MAX: usize = 1 << 30;
/// Bytes per read.
const READ: usize = 1 << 20;

/// Encoded entries of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The bucket.
    pub bucket: usize,
    /// Whether they are removals.
    pub removals: bool,
    /// The entries.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// Passes all entries to `see`.
    pub(crate) fn each<'a>(&'a self, mut see: impl FnMut(Entry<'a>) -> Result<()>) -> Result<()> {
        let mut rest = self.bytes.as_slice();
        while !rest.is_empty() {
            let entry = Entry::read(&mut rest).ok_or_else(|| {
                Error::integrity(
                    "a chunk of a checkpoint holds no valid entries, although its checksum matches",
                )
            })?;
            see(entry)?;
        }
        Ok(())
    }
}

/// Writes a segment.
pub(crate) struct SegmentWriter {
    file: Box<dyn FileWriter>,
    path: std::path::PathBuf,
    hash: blake3::Hasher,
    bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
}

impl SegmentWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// [`External`](crate::Kind::External): the disk or the store failed.
    pub(crate) fn create(files: &dyn FileStore, path: &Path) -> Result<Self> {
        let file = files
            .create(path)
            .map_err(|error| cannot("write to", path, &error))?;
        let mut writer = Self {
            file,
            path: path.to_owned(),
            hash: blake3::Hasher::new(),
            bytes: 0,
            entries: 0,
            buffer: Vec::with_capacity(READ),
        };
        writer.put(HEADER)?;
        Ok(writer)
    }

    /// Appends a chunk.
    pub(crate) fn chunk(&mut self, chunk: &Chunk, entries: u64) -> Result<()> {
        let mut header = [0; CHUNK_HEADER_BYTES];
        header[..2].copy_from_slice(&(chunk.bucket as u16).to_le_bytes());
        header[2..4].copy_from_slice(&u16::from(chunk.removals).to_le_bytes());
        header[4..8].copy_from_slice(&(chunk.bytes.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..8]), &chunk.bytes);
        header[8..].copy_from_slice(&crc.to_le_bytes());
        self.entries += entries;
        self.put(&header)?;
        self.put(&chunk.bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= READ {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.hash.update(&self.buffer);
            self.bytes += self.buffer.len() as u64;
            self.file
                .append(&self.buffer)
                .map_err(|error| cannot("write to", &self.path, &error))?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Makes the file durable and returns its manifest entry. The file's name becomes durable with a sync of
    /// the directory.
    pub(crate) fn finish(mut self, epoch: crate::Epoch) -> Result<SegmentFile> {
        self.flush()?;
        fault::point("segment.written");
        self.file
            .finish()
            .map_err(|error| cannot("write to", &self.path, &error))?;
        fault::point("segment.synced");
        let name = self.path.file_name().unwrap_or_default();
        Ok(SegmentFile {
            file: name.to_string_lossy().into_owned(),
            epoch,
            bytes: self.bytes,
            entries: self.entries,
            blake3: self.hash.finalize().to_hex().to_string(),
        })
    }
}

/// Verifies a file against the manifest.
///
/// # Errors
/// [`Integrity`](crate::Kind::Integrity): it is missing or differs. [`External`](crate::Kind::External): it
/// cannot be read.
pub(crate) fn verify(files: &dyn FileStore, dir: &Path, segment: &SegmentFile) -> Result<()> {
    let path = dir.join(&segment.file);
    let file = open(files, &path)?;
    let (mut hash, mut at, mut buffer) = (blake3::Hasher::new(), 0, vec![0; READ]);
    loop {
        let n = file
            .read_at(at, &mut buffer)
            .map_err(|error| cannot("read", &path, &error))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        at += n as u64;
    }
    if at != segment.bytes {
        return Err(damaged(
            &path,
            &format!("it has {at} bytes; {} were written", segment.bytes),
        ));
    }
    if *hash.finalize().to_hex() != *segment.blake3 {
        return Err(damaged(
            &path,
            "its BLAKE3 hash differs from the one in the manifest",
        ));
    }
    Ok(())
}

fn open(files: &dyn FileStore, path: &Path) -> Result<Arc<dyn FileReader>> {
    files.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => damaged(path, "it is missing"),
        _ => cannot("read", path, &error),
    })
}

/// Reads a segment chunk by chunk: all removals first, then everything else.
pub(crate) struct SegmentReader {
    file: Arc<dyn FileReader>,
    path: std::path::PathBuf,
    len: u64,
    /// The positions of chunks, removals first.
    index: Vec<(u64, ChunkHeader)>,
}

impl SegmentReader {
    /// Opens the file and locates its chunks.
    pub(crate) fn open(files: &dyn FileStore, dir: &Path, segment: &SegmentFile) -> Result<Self> {
        let path = dir.join(&segment.file);
        let mut reader = Self {
            file: open(files, &path)?,
            path,
            len: segment.bytes,
            index: Vec::new(),
        };
        if reader.read(0, HEADER.len())? != HEADER {
            return Err(damaged(&reader.path, "it does not begin with a segment's header"));
        }
        let mut at = HEADER.len() as u64;
        while at < reader.len {
            let header = reader.header(at)?;
            let len = (CHUNK_HEADER_BYTES + header.len) as u64;
            reader.index.push((at, header));
            at += len;
        }
        reader.index.sort_by_key(|(_, header)| !header.removals);
        Ok(reader)
    }

    /// Passes chunks to `see`, those of one bucket or all.
    pub(crate) fn chunks(
        &self,
        bucket: Option<usize>,
        mut see: impl FnMut(&Chunk) -> Result<()>,
    ) -> Result<()> {
        let mut wanted = self
            .index
            .iter()
            .filter(|(_, header)| bucket.is_none_or(|bucket| bucket == header.bucket));
        wanted.try_for_each(|(at, header)| see(&self.chunk(*at, header)?))
    }

    fn header(&self, at: u64) -> Result<ChunkHeader> {
        let bytes = self.read(at, CHUNK_HEADER_BYTES)?;
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let header = ChunkHeader {
            bucket: usize::from(u16_at(0)),
            removals: u16_at(2) == 1,
            len: u32_at(4) as usize,
            crc: u32_at(8),
            own: crc32c::crc32c(&bytes[..8]),
        };
        let end = at + (CHUNK_HEADER_BYTES + header.len) as u64;
        if header.bucket >= super::BUCKETS || u16_at(2) > 1 || header.len > CHUNK_MAX || end > self.len {
            return Err(damaged(
                &self.path,
                &format!("there is no chunk header at byte {at}"),
            ));
        }
        Ok(header)
    }

    fn chunk(&self, at: u64, header: &ChunkHeader) -> Result<Chunk> {
        let bytes = self.read(at + CHUNK_HEADER_BYTES as u64, header.len)?;
        if crc32c::crc32c_append(header.own, &bytes) != header.crc {
            return Err(damaged(
                &self.path,
                &format!("the checksum of the chunk at byte {at} is wrong"),
            ));
        }
        Ok(Chunk {
            bucket: header.bucket,
            removals: header.removals,
            bytes,
        })
    }

    fn read(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let n = self
            .file
            .read_at(at, &mut bytes)
            .map_err(|error| cannot("read", &self.path, &error))?;
        if n < len {
            return Err(damaged(&self.path, &format!("it ends at byte {}", at + n as u64)));
        }
        Ok(bytes)
    }
}

struct ChunkHeader {
    bucket: usize,
    removals: bool,
    len: usize,
    crc: u32,
    /// The checksum of the header before it.
    own: u32,
}
