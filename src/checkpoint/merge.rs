//! Merges two consecutive segments into one, to keep the chain of a step's files short.
//!
//! A newer segment is merged into the previous one once it is at least half as large: the amount rewritten is
//! proportional to the changes, and a chain of n segments holds at least 2ⁿ times the bytes of its last.

use hashbrown::HashMap;

use foldhash::fast::FixedState;

use super::entry::{BUCKETS, Entry, decode, encode};
use super::manifest::{EntryRule, RetentionBounds, SegmentFile};
use super::segment::{Chunk, SegmentReader, SegmentWriter};
use super::store::CheckpointStore;
use crate::error::{Error, Result};
use crate::time::Epoch;

/// Approximate size of a merged segment's chunks.
const CHUNK: usize = 256 << 10;

/// The index of the first of two segments in a chain that are to be merged.
pub(crate) fn due(chain: &[SegmentFile]) -> Option<usize> {
    let at = chain.len().checked_sub(2)?;
    (chain[at + 1].bytes * 2 >= chain[at].bytes).then_some(at)
}

/// The parameters of a merge.
pub(crate) struct SegmentMerge<'a> {
    /// The store of the segments.
    pub store: &'a CheckpointStore,
    /// The older segment.
    pub older: &'a SegmentFile,
    /// The newer segment.
    pub newer: &'a SegmentFile,
    /// Whether the older segment is the first of its chain: then removals need not be recorded.
    pub is_first: bool,
    /// How the entries of a key combine.
    pub rule: EntryRule,
    /// The bounds below which entries are dropped.
    pub bounds: RetentionBounds,
}

/// The entries of one key, each with its epoch, in order.
type KeyEntries<'c> = Vec<Entry<'c>>;

impl SegmentMerge<'_> {
    /// Writes the merged segment to a file of this name. Returns `None` if `go_on` returned false; the
    /// partial file is then left for others to remove.
    pub(crate) fn run(&self, name: &str, go_on: &dyn Fn() -> bool) -> Result<Option<SegmentFile>> {
        let mut writer = SegmentWriter::create(&*self.store.files, &self.store.dir.join(name))?;
        let older = SegmentReader::open(&*self.store.files, &self.store.dir, self.older)?;
        let newer = SegmentReader::open(&*self.store.files, &self.store.dir, self.newer)?;
        for bucket in 0..BUCKETS {
            if !go_on() {
                return Ok(None);
            }
            let mut chunks = Vec::new();
            for reader in [&older, &newer] {
                reader.chunks(Some(bucket), |chunk| {
                    chunks.push(chunk.clone());
                    Ok(())
                })?;
            }
            let merged = self.bucket(&chunks)?;
            self.write(bucket, merged, &mut writer)?;
        }
        writer.finish(self.newer.epoch).map(Some)
    }

    fn bucket<'c>(&self, chunks: &'c [Chunk]) -> Result<HashMap<&'c [u8], KeyEntries<'c>, FixedState>> {
        let mut keys: HashMap<&[u8], KeyEntries<'_>, FixedState> = HashMap::default();
        for chunk in chunks {
            chunk.each(|entry| {
                let held = keys.entry(entry.key).or_default();
                match self.rule {
                    EntryRule::Last => held.clear(),
                    // Within an epoch the later entry wins.
                    EntryRule::Versions => held.retain(|other| other.epoch != entry.epoch),
                    EntryRule::Sum => {}
                }
                held.push(entry);
                Ok(())
            })?;
        }
        Ok(keys)
    }

    fn write(
        &self,
        bucket: usize,
        keys: HashMap<&[u8], KeyEntries<'_>, FixedState>,
        writer: &mut SegmentWriter,
    ) -> Result<()> {
        let mut outs = [true, false].map(|removals| {
            let chunk = Chunk {
                bucket,
                removals,
                bytes: Vec::new(),
            };
            (chunk, 0)
        });
        let mut sum = Vec::new();
        for (key, mut held) in keys {
            match self.rule {
                EntryRule::Last => held.retain(|entry| {
                    let over = entry.until.is_some_and(|until| until <= self.bounds.cut);
                    !over && (entry.value.is_some() || !self.is_first)
                }),
                EntryRule::Versions => self.trim(&mut held),
                EntryRule::Sum => {
                    let total = held.iter().try_fold(0, |total: i64, entry| {
                        let diff: i64 = decode(entry.value.unwrap_or_default())?;
                        total
                            .checked_add(diff)
                            .ok_or_else(|| Error::integrity("a sum of a checkpoint overflows"))
                    })?;
                    let epoch = held.last().map_or(Epoch::ZERO, |entry| entry.epoch);
                    held.clear();
                    sum.clear();
                    encode(&total, &mut sum)?;
                    if total != 0 {
                        held.push(Entry {
                            key,
                            epoch,
                            until: None,
                            value: Some(&sum),
                        });
                    }
                }
            }
            for entry in held {
                // Removals of versions are versions, too.
                let removal = entry.value.is_none() && self.rule == EntryRule::Last;
                let (chunk, entries) = &mut outs[usize::from(!removal)];
                entry.write(&mut chunk.bytes);
                *entries += 1;
                if chunk.bytes.len() >= CHUNK {
                    writer.chunk(chunk, *entries)?;
                    chunk.bytes.clear();
                    *entries = 0;
                }
            }
        }
        outs.iter()
            .filter(|(_, entries)| *entries > 0)
            .try_for_each(|(chunk, entries)| writer.chunk(chunk, *entries))
    }

    /// Keeps the versions that reads from the floor on may need.
    fn trim(&self, held: &mut KeyEntries<'_>) {
        held.sort_by_key(|entry| entry.epoch);
        let at_floor = held.partition_point(|entry| entry.epoch <= self.bounds.floor);
        held.drain(..at_floor.saturating_sub(1));
        if self.is_first
            && let Some(first) = held.first()
            && first.value.is_none()
            && first.epoch <= self.bounds.floor
        {
            held.remove(0);
        }
    }
}
