//! The format of the ledger's file: a header, then frames, and the hash chain that links their records.
//!
//! ```text
//!  file    "THALWEGL" │ version u32 │ len u32 │ crc u32 │ app, dataflow, build, time_us │ frame │ frame │ …
//!  frame   D7 4C 45 44 │ len u32 │ crc of body u32 │ crc of these 12 bytes u32 │ body
//!  body    kind u8 │ generation │ count │ (len, record) × count │ chain, 16 bytes │ A5
//!  chain   c₀ = BLAKE3(file header)     cᵢ = BLAKE3(cᵢ₋₁, kind, recordᵢ)     over counted records only
//! ```
//!
//! A frame is one group commit: it counts in whole or not at all. Its first and last bytes are not zero, so
//! that every sector it touches contains something, and a sector that never reached the disk is detected. The
//! header has a checksum of its own, so that its length can be trusted: a frame longer than the file was
//! interrupted, a length with a flipped bit is damage. CRC-32C is Castagnoli's; numbers are little-endian,
//! those without a width are varints. A frame costs 36 bytes.
//!
//! Because it stores the chain hash, a frame is valid only after exactly the records that preceded it when it
//! was written: if one was removed, duplicated, moved or taken from another ledger, the next frame reveals it
//! even though its checksums are intact.

use crate::error::Result;
use crate::ledger::progress::{ShardProgress, decode_progress, encode_progress};
use crate::ledger::record::{
    BaseRecord, Chain, ClaimRecord, RecordKind, decode_base, decode_binding, encode_base, encode_binding,
};
use crate::position::EpochBinding;
use crate::wire::{ByteInput, put_bytes, put_str, put_u64};

/// The version of the format that this build writes.
pub const FORMAT_VERSION: u32 = 3;

/// The unit that a disk writes atomically; larger units are multiples of it.
pub(super) const SECTOR: usize = 512;

/// Bytes of a frame's header.
pub(super) const FRAME_HEADER_BYTES: usize = 16;

/// Maximum size of a frame's body.
pub(super) const BODY_BYTES_MAX: usize = 64 << 20;

/// Group commits are cut into frames of about this many bytes.
pub(super) const BODY_BYTES_TARGET: usize = 4 << 20;

const FILE_MAGIC: [u8; 8] = *b"THALWEGL";
const FILE_PREFIX_BYTES: usize = 20;
const FRAME_MAGIC: [u8; 4] = [0xd7, b'L', b'E', b'D'];
const FRAME_END: u8 = 0xa5;

/// The contents of a ledger's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub app: String,
    pub dataflow: String,
    pub build: String,
    pub time_us: u64,
}

/// Why this build cannot read a file's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    NotALedger,
    Damaged,
    Version(u32),
}

impl FileHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        put_str(&mut body, &self.app);
        put_str(&mut body, &self.dataflow);
        put_str(&mut body, &self.build);
        put_u64(&mut body, self.time_us);
        let mut out = FILE_MAGIC.to_vec();
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &body);
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&body);
        out
    }

    /// Decodes the header and returns its size. `start` is the file's beginning; 1 MiB is enough.
    pub(super) fn decode(start: &[u8]) -> Result<(Self, usize), HeaderFault> {
        let Some(prefix) = start.first_chunk::<FILE_PREFIX_BYTES>() else {
            let magic_fits = FILE_MAGIC.starts_with(&start[..start.len().min(8)]);
            return Err(if magic_fits {
                HeaderFault::Damaged
            } else {
                HeaderFault::NotALedger
            });
        };
        if prefix[..8] != FILE_MAGIC {
            return Err(HeaderFault::NotALedger);
        }
        let (version, len, crc) = (u32_at(prefix, 8), u32_at(prefix, 12) as usize, u32_at(prefix, 16));
        let body = start
            .get(FILE_PREFIX_BYTES..FILE_PREFIX_BYTES + len)
            .ok_or(HeaderFault::Damaged)?;
        if crc32c::crc32c_append(crc32c::crc32c(&prefix[..16]), body) != crc {
            return Err(HeaderFault::Damaged);
        }
        if version != FORMAT_VERSION {
            return Err(HeaderFault::Version(version));
        }
        let mut input = ByteInput(body);
        let decoded = (|| {
            let (app, dataflow, build) = (input.string()?, input.string()?, input.string()?);
            let time_us = input.u64()?;
            input.finished(Self {
                app,
                dataflow,
                build,
                time_us,
            })
        })();
        Ok((decoded.ok_or(HeaderFault::Damaged)?, FILE_PREFIX_BYTES + len))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// A frame with a claim. It stores the chain hash as the claimant saw it; whether the claim counts is known
/// only when it is read back.
pub(super) fn claim_frame(record: &ClaimRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    frame(RecordKind::Claim, record.generation, &[bytes], record.chain)
}

/// A frame with progress and as many bindings as fit well, at least one. Returns it with the number of
/// bindings and the chain hash after them.
///
/// Both are in one frame: of two frames written at once, the second may reach the disk without the first,
/// which would look like damage.
pub(super) fn group_frame(
    generation: u64,
    bindings: &[EpochBinding],
    progress: &[ShardProgress],
    chain: Chain,
) -> (Vec<u8>, usize, Chain) {
    let mut records = Vec::with_capacity(1 + bindings.len());
    let (mut chain, mut total, mut count) = (chain, 0, 0);
    let mut kind = RecordKind::Binding;
    if !progress.is_empty() {
        let mut bytes = Vec::new();
        encode_progress(progress, &mut bytes);
        kind = RecordKind::Progress;
        records.push(bytes);
    }
    for binding in bindings {
        let mut bytes = Vec::with_capacity(32 + 32 * binding.ranges.len());
        encode_binding(binding, &mut bytes);
        if total > 0 && total + bytes.len() > BODY_BYTES_TARGET {
            break;
        }
        total += bytes.len();
        chain = chain.then(RecordKind::Binding, &bytes);
        records.push(bytes);
        count += 1;
    }
    (frame(kind, generation, &records, chain.mark()), count, chain)
}

/// A frame with the base of a trimmed ledger.
///
/// # Errors
/// Those of [`encode_base`].
pub(super) fn base_frame(base: &BaseRecord) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_base(base, &mut bytes)?;
    Ok(frame(
        RecordKind::Base,
        base.claim.generation,
        &[bytes],
        base.chain.mark(),
    ))
}

fn frame(kind: RecordKind, generation: u64, records: &[Vec<u8>], chain: [u8; 16]) -> Vec<u8> {
    let mut out = vec![0; FRAME_HEADER_BYTES];
    out.push(kind as u8);
    put_u64(&mut out, generation);
    put_u64(&mut out, records.len() as u64);
    for record in records {
        put_bytes(&mut out, record);
    }
    out.extend_from_slice(&chain);
    out.push(FRAME_END);
    let (header, body) = out.split_at_mut(FRAME_HEADER_BYTES);
    header[..4].copy_from_slice(&FRAME_MAGIC);
    header[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[8..12].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The contents of one group commit.
#[derive(Debug)]
pub(super) struct GroupCommit {
    /// Bindings, each with the chain hash after it.
    pub bindings: Vec<(EpochBinding, Chain)>,
    pub progress: Vec<ShardProgress>,
}

/// The contents of an intact frame header.
#[derive(Clone, Copy)]
pub(super) struct FrameHeader {
    pub body_bytes: usize,
    body_crc: u32,
}

impl FrameHeader {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        let intact = header[..4] == FRAME_MAGIC && crc32c::crc32c(&header[..12]) == u32_at(header, 12);
        let body_bytes = u32_at(header, 4) as usize;
        (intact && body_bytes <= BODY_BYTES_MAX).then(|| Self {
            body_bytes,
            body_crc: u32_at(header, 8),
        })
    }

    pub(super) fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_bytes
    }

    /// The body, if it is complete and undamaged. `bytes` begin with the header.
    pub(super) fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let body = bytes.get(FRAME_HEADER_BYTES..self.frame_bytes())?;
        (crc32c::crc32c(body) == self.body_crc).then_some(body)
    }
}

/// The parts of a frame's body.
pub(super) struct Body<'a> {
    pub kind: u8,
    pub generation: u64,
    pub records: Vec<&'a [u8]>,
    pub chain: [u8; 16],
}

impl<'a> Body<'a> {
    /// `None` if no build of this format version wrote these bytes.
    pub(super) fn decode(body: &'a [u8]) -> Option<Self> {
        let mut input = ByteInput(body);
        let (kind, generation) = (input.byte()?, input.u64()?);
        let records = (0..input.u64()?)
            .map(|_| input.prefixed())
            .collect::<Option<Vec<_>>>()?;
        let chain = input.array()?;
        let end = input.byte()?;
        input
            .finished(Self {
                kind,
                generation,
                records,
                chain,
            })
            .filter(|_| end == FRAME_END)
    }

    pub(super) fn claim(&self) -> Option<ClaimRecord> {
        match self.records[..] {
            [record] if self.kind == RecordKind::Claim as u8 => ClaimRecord::decode(record),
            _ => None,
        }
    }

    pub(super) fn base(&self) -> Option<BaseRecord> {
        match self.records[..] {
            [record] => decode_base(record),
            _ => None,
        }
    }

    /// The records of bindings, and the progress record before them.
    pub(super) fn group(&self) -> Option<(&[&'a [u8]], Option<&'a [u8]>)> {
        match self.kind == RecordKind::Progress as u8 {
            true => self
                .records
                .split_first()
                .map(|(first, rest)| (rest, Some(*first))),
            false => Some((&self.records, None)),
        }
    }

    /// The bindings, each with its chain hash if they follow `chain`; and the progress.
    pub(super) fn bindings(&self, mut chain: Chain) -> Option<GroupCommit> {
        let (bindings, progress) = self.group()?;
        let bindings = bindings.iter().map(|record| {
            chain = chain.then(RecordKind::Binding, record);
            Some((decode_binding(record)?, chain))
        });
        let bindings = bindings.collect::<Option<Vec<_>>>()?;
        let progress = match progress {
            None => Vec::new(),
            Some(record) => {
                let mut input = ByteInput(record);
                let progress = decode_progress(&mut input)?;
                input.finished(progress)?
            }
        };
        Some(GroupCommit { bindings, progress })
    }
}

/// The positions of intact frame headers in `bytes`, from the second byte on.
pub(super) fn frames_within(bytes: &[u8]) -> impl Iterator<Item = (usize, FrameHeader)> + '_ {
    (1..bytes.len())
        .filter(|at| bytes[*at] == FRAME_MAGIC[0])
        .filter_map(|at| Some((at, FrameHeader::decode(&bytes[at..])?)))
}

/// Whether an unreadable frame at the start of `bytes`, at `offset` in the file, is the result of a torn
/// write: too few bytes, or a sector that was never written. `next` is the position of the first intact
/// header after it, if any.
///
/// Failed appends may follow it, as when a full disk accepts a few bytes at each restart.
pub(super) fn looks_torn(bytes: &[u8], offset: u64, next: usize) -> bool {
    let mut end = next.min(bytes.len());
    let scrap = |piece: &[u8]| FRAME_MAGIC.iter().zip(piece).all(|(magic, byte)| magic == byte);
    // A frame's last byte does not occur in the magic, not even with a flipped bit: a whole frame is never
    // mistaken for a fragment.
    while let Some(len) = (1..FRAME_HEADER_BYTES.min(end)).find(|len| scrap(&bytes[end - len..end])) {
        end -= len;
    }
    let bytes = &bytes[..end];
    let into_sector = (offset % SECTOR as u64) as usize;
    let (short, extent) = match FrameHeader::decode(bytes) {
        Some(header) => (header.frame_bytes() > end, header.frame_bytes()),
        // The length of the frame is unknown, so only the one or two sectors that hold its header can be
        // judged.
        None => (
            end < FRAME_HEADER_BYTES,
            (into_sector + FRAME_HEADER_BYTES).next_multiple_of(SECTOR) - into_sector,
        ),
    };
    let bytes = &bytes[..end.min(extent)];
    let (head, rest) = bytes.split_at(bytes.len().min(SECTOR - into_sector));
    let missing = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    short || missing(head) || rest.chunks(SECTOR).any(missing)
}
