//! What a stateful step does for checkpoints: a small trait, and the bookkeeping that most of them share.
//!
//! ```text
//!   operator ── StateCell::at(epoch) ─▶ state          a checkpoint at s was begun, and this is the first epoch after s?
//!                                    │            then the step freezes before anything of the epoch is applied
//!   worker, between other work ── StatefulSteps::save ─▶ Stateful::save, some entries at a time ─▶ SnapshotWriter ─▶ the writer's thread
//!                                    │
//!   operator changes an entry that is not saved yet ─▶ its value as of s goes out first
//! ```
//!
//! A freeze copies nothing, so no epoch waits for a checkpoint: only keys are recorded, from an entry's first
//! change after the previous freeze.

use std::sync::Arc;

use super::entry::{BUCKETS, Entry, bucket_of, encode, encode_record};
use super::manifest::RetentionBounds;
use super::pending::{PendingCheckpoint, StateChunk};
use super::segment::Chunk;
use crate::error::{Error, Result};
use crate::record::{Event, Record};
use crate::time::{Epoch, EventTime};

/// State that checkpoints capture.
///
/// [`KeyedState`](super::keyed::KeyedState) implements this with its own bookkeeping and is the best choice
/// for entries by key. Where it does not fit, as for views with their versions, a step keeps its state in a
/// [`StateCell`](super::steps::StateCell), accesses it through that for every epoch that it applies, and
/// tells a [`DirtyKeys`] about every entry that it changes. A counter per key:
///
/// ```
/// use std::collections::HashMap;
/// use thalweg::Epoch;
/// use thalweg::checkpoint::state::{DirtyKeys, SnapshotWriter, Stateful};
///
/// #[derive(Default)]
/// struct Counts {
///     counts: HashMap<String, (Epoch, u64)>,
///     changed: DirtyKeys<String>,
/// }
///
/// impl Counts {
///     fn add(&mut self, epoch: Epoch, key: &str) {
///         let entry = self.counts.get(key);
///         self.changed.touch(entry.map(|(epoch, _)| *epoch), || key.to_owned(), |out, key| {
///             if let Some((epoch, count)) = entry { out.put(key, *epoch, None, count) }
///         });
///         let count = entry.map_or(0, |(_, count)| *count);
///         self.counts.insert(key.to_owned(), (epoch, count + 1));
///     }
/// }
///
/// impl Stateful for Counts {
///     fn freeze(&mut self, at: Epoch, retry: bool, out: SnapshotWriter) {
///         self.changed.freeze(at, retry, out);
///     }
///     fn save(&mut self, entries_max: usize) -> bool {
///         let counts = &self.counts;
///         self.changed.save(entries_max, |out, key, upto| {
///             if let Some((epoch, count)) = counts.get(key).filter(|(epoch, _)| *epoch <= upto) {
///                 out.put(key, *epoch, None, count);
///             }
///         })
///     }
/// }
/// ```
pub trait Stateful {
    /// Freezes the state: exactly the epochs up to `at` are applied, and what changed since the previous
    /// freeze is to be saved as it is now. `retry` means that the previous checkpoint failed: what was frozen
    /// for it is to be saved as well.
    fn freeze(&mut self, at: Epoch, retry: bool, out: SnapshotWriter);

    /// Saves about `entries_max` entries as of the freeze; returns whether there are more.
    fn save(&mut self, entries_max: usize) -> bool;

    /// The bounds as of the freeze: entries with `until <= cut` expire without a tombstone, and versions
    /// before `floor` are dropped. Called right after the freeze.
    fn bounds(&self) -> RetentionBounds {
        RetentionBounds::default()
    }
}

/// Writes entries of a step to a checkpoint.
pub struct SnapshotWriter {
    step: usize,
    job: Arc<PendingCheckpoint>,
    /// By bucket, and by whether they are removals.
    open: Vec<PendingChunk>,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[derive(Clone, Default)]
struct PendingChunk {
    bytes: Vec<u8>,
    entries: u64,
}

/// Size at which a chunk is sent to the writer.
const CHUNK: usize = 32 << 10;

impl SnapshotWriter {
    pub(crate) fn new(step: usize, job: Arc<PendingCheckpoint>) -> Self {
        Self {
            step,
            job,
            open: vec![PendingChunk::default(); 2 * BUCKETS],
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Writes a row with its value since `epoch`. It expires when the step's cut reaches `until`.
    ///
    /// Each row is verified by reading it back. If the result differs, now or after a restore, this
    /// checkpoint fails with an error that names the step, the type and, if known, the field.
    pub fn put<K: Record, V: Record>(&mut self, key: &K, epoch: Epoch, until: Option<EventTime>, value: &V) {
        self.value.clear();
        let kept = encode_record(value, &mut self.value);
        self.add(kept, key, epoch, until);
    }

    /// Like [`put`](Self::put), for state that cannot be compared: reading it back and encoding it again must
    /// yield the same bytes.
    pub fn put_state<K: Record, S: Event>(
        &mut self,
        key: &K,
        epoch: Epoch,
        until: Option<EventTime>,
        state: &S,
    ) {
        self.value.clear();
        let kept = encode(state, &mut self.value);
        self.add(kept, key, epoch, until);
    }

    fn add<K: Record>(&mut self, kept: Result<()>, key: &K, epoch: Epoch, until: Option<EventTime>) {
        match kept {
            Ok(()) => self.entry(key, epoch, until, true),
            Err(error) => self.fail(error),
        }
    }

    /// Writes that a key has had no value since `epoch`.
    pub fn remove<K: Record>(&mut self, key: &K, epoch: Epoch) {
        self.entry(key, epoch, None, false);
    }

    /// Like [`SnapshotWriter::put`], for encoded entries.
    pub(crate) fn put_encoded(&mut self, key: &[u8], epoch: Epoch, until: Option<EventTime>, value: &[u8]) {
        self.send_entry(Entry {
            key,
            epoch,
            until,
            value: Some(value),
        });
    }

    /// Like [`SnapshotWriter::remove`], for encoded entries.
    pub(crate) fn remove_encoded(&mut self, key: &[u8], epoch: Epoch) {
        self.send_entry(Entry {
            key,
            epoch,
            until: None,
            value: None,
        });
    }

    fn entry<K: Record>(&mut self, key: &K, epoch: Epoch, until: Option<EventTime>, has_value: bool) {
        self.key.clear();
        if let Err(error) = encode_record(key, &mut self.key) {
            self.fail(error);
            return;
        }
        let (key, value) = (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
        self.send_entry(Entry {
            key: &key,
            epoch,
            until,
            value: has_value.then_some(value.as_slice()),
        });
        (self.key, self.value) = (key, value);
    }

    fn send_entry(&mut self, entry: Entry<'_>) {
        let at = 2 * bucket_of(entry.key) + usize::from(entry.value.is_some());
        let pending = &mut self.open[at];
        entry.write(&mut pending.bytes);
        pending.entries += 1;
        if pending.bytes.len() >= CHUNK {
            self.send(at);
        }
    }

    fn send(&mut self, at: usize) {
        let PendingChunk { bytes, entries } = std::mem::take(&mut self.open[at]);
        if entries > 0 {
            let chunk = Chunk {
                bucket: at / 2,
                removals: at.is_multiple_of(2),
                bytes,
            };
            let step = self.step;
            self.job.send(StateChunk { step, chunk, entries });
        }
    }

    /// Drops data on another thread.
    pub fn discard<T: Send + 'static>(&self, old: Vec<T>) {
        if old.capacity() > 0 {
            self.job.discard(Box::new(old));
        }
    }

    /// Fails the checkpoint with an error.
    pub fn fail(&self, error: Error) {
        self.job.fail_at(self.step, error);
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        (0..self.open.len()).for_each(|at| self.send(at));
    }
}

/// Tracks which keys of a step changed since the last freeze, and which of the frozen ones are still to be
/// saved.
pub struct DirtyKeys<K> {
    /// False if checkpoints are disabled: then nothing is tracked.
    on: bool,
    /// The last freeze, and the one before it; the entries in between are being saved.
    since: Epoch,
    before: Epoch,
    changed: Vec<K>,
    removed: Vec<K>,
    /// Kept until the next freeze: they may have to be saved again.
    frozen: Vec<K>,
    frozen_removed: Vec<K>,
    at: usize,
    at_removed: usize,
    out: Option<SnapshotWriter>,
}

impl<K> Default for DirtyKeys<K> {
    fn default() -> Self {
        Self {
            on: true,
            since: Epoch::ZERO,
            before: Epoch::ZERO,
            changed: Vec::new(),
            removed: Vec::new(),
            frozen: Vec::new(),
            frozen_removed: Vec::new(),
            at: 0,
            at_removed: 0,
            out: None,
        }
    }
}

impl<K: Ord + Send + 'static> DirtyKeys<K> {
    /// A tracker for disabled checkpoints.
    pub fn off() -> Self {
        Self {
            on: false,
            ..Self::default()
        }
    }

    /// A tracker for state that is saved up to `restored`.
    pub fn since(restored: Epoch) -> Self {
        Self {
            since: restored,
            before: restored,
            ..Self::default()
        }
    }

    /// Whether an entry that last changed at `epoch` has yet to be saved as of the last freeze.
    #[inline]
    fn waits(&self, epoch: Epoch) -> bool {
        self.out.is_some() && epoch <= self.since && epoch > self.before
    }

    /// Must be called before an entry changes; `epoch` is its last change, if it exists. Calls `save` if the
    /// entry has yet to be saved as of the freeze.
    #[inline]
    pub fn touch(
        &mut self,
        epoch: Option<Epoch>,
        key: impl FnOnce() -> K,
        save: impl FnOnce(&mut SnapshotWriter, &K),
    ) {
        if !self.on || epoch.is_some_and(|epoch| epoch > self.since) {
            return;
        }
        let key = key();
        if epoch.is_some_and(|epoch| self.waits(epoch))
            && let Some(out) = &mut self.out
        {
            save(out, &key);
        }
        self.changed.push(key);
    }

    /// Must be called before an entry, last changed at `epoch`, is removed.
    #[inline]
    pub fn remove(
        &mut self,
        epoch: Epoch,
        key: impl FnOnce() -> K,
        save: impl FnOnce(&mut SnapshotWriter, &K),
    ) {
        if !self.on {
            return;
        }
        let key = key();
        if self.waits(epoch)
            && let Some(out) = &mut self.out
        {
            save(out, &key);
        }
        self.removed.push(key);
    }

    /// Must be called before an entry, last changed at `epoch`, expires by its `until`.
    #[inline]
    pub fn expire(&mut self, epoch: Epoch, save: impl FnOnce(&mut SnapshotWriter)) {
        if self.waits(epoch)
            && let Some(out) = &mut self.out
        {
            save(out);
        }
    }

    /// Whether entries are being saved.
    pub fn is_saving(&self) -> bool {
        self.out.is_some()
    }

    /// The epoch after which changes are included in the next freeze, or in a repeated one.
    pub fn unsaved_since(&self) -> Epoch {
        self.before
    }

    /// Whether entries that changed at `epoch` have been saved, or never will be.
    pub fn is_saved(&self, epoch: Epoch) -> bool {
        !self.on || epoch <= self.before || (epoch <= self.since && self.out.is_none())
    }

    /// See [`Stateful::freeze`].
    pub fn freeze(&mut self, at: Epoch, retry: bool, out: SnapshotWriter) {
        if retry {
            self.frozen.append(&mut self.changed);
            self.frozen_removed.append(&mut self.removed);
            // However often the freeze is repeated, no key is stored twice.
            for keys in [&mut self.frozen, &mut self.frozen_removed] {
                keys.sort_unstable();
                keys.dedup();
            }
        } else {
            // Dropping millions of keys takes long.
            out.discard(std::mem::replace(
                &mut self.frozen,
                std::mem::take(&mut self.changed),
            ));
            out.discard(std::mem::replace(
                &mut self.frozen_removed,
                std::mem::take(&mut self.removed),
            ));
            self.before = self.since;
        }
        (self.since, self.at, self.at_removed) = (at, 0, 0);
        self.out = Some(out);
    }

    /// See [`Stateful::save`]. `save` gets each key and the epoch of the freeze, and writes the entry if it
    /// exists and has not changed since.
    pub fn save(&mut self, entries_max: usize, save: impl FnMut(&mut SnapshotWriter, &K, Epoch)) -> bool
    where
        K: Record,
    {
        self.save_with(entries_max, |out, key, epoch| out.remove(key, epoch), save)
    }

    /// Like [`DirtyKeys::save`]; `remove` gets the removed keys.
    pub(crate) fn save_with(
        &mut self,
        entries_max: usize,
        mut remove: impl FnMut(&mut SnapshotWriter, &K, Epoch),
        mut save: impl FnMut(&mut SnapshotWriter, &K, Epoch),
    ) -> bool {
        let Some(out) = &mut self.out else {
            return false;
        };
        let mut left = entries_max;
        while left > 0 && self.at_removed < self.frozen_removed.len() {
            remove(out, &self.frozen_removed[self.at_removed], self.since);
            self.at_removed += 1;
            left -= 1;
        }
        while left > 0 && self.at < self.frozen.len() {
            save(out, &self.frozen[self.at], self.since);
            self.at += 1;
            left -= 1;
        }
        if left == 0 {
            return true;
        }
        self.out = None;
        false
    }
}
