//! One worker's part of a view: rows with their versions, in buckets, and the writer that updates them.
//!
//! ```text
//!  bucket = 6 bits of a hash of the key             a row:  newest version │ older versions, oldest first
//!  ┌────────┐                                             (e9, Some(v))  │ (e3, Some(u)) (e7, None)
//!  │ RwLock │ key → row, in order                                                ▲ at floor e4, e3 is still what
//!  └────────┘                                                                      an answer as of e4 … e6 needs
//! ```
//!
//! Superseded versions are pruned in two ways. A row that is written again is pruned before it allocates.
//! Otherwise its key waits in a queue under the epoch in which it was superseded, once however many versions
//! it has, and is pruned when the floor reaches that epoch. So a version outlives its use by at most the
//! length of the history, each change costs at most two lookups, and a row that never changes costs nothing.
//!
//! Keys and values are encoded ([`schema`](crate::schema)), so all of this is compiled once. Only
//! [`ViewWriter`](super::writer::ViewWriter) is generic.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

use crate::checkpoint::manifest::RetentionBounds;
use crate::checkpoint::state::{DirtyKeys, SnapshotWriter, Stateful};
use crate::checkpoint::state_handle::{StateHandle, StateLoader};
use crate::checkpoint::steps::StateCell;
use crate::error::Error;
use crate::schema::RowSchema;
use crate::schema::small::SmallBytes;
use crate::time::Epoch;
use crate::view::View;
use crate::view::batch::{ChangeBatch, EncodedChange};
use crate::view::row::VersionedRow;
use crate::view::rows::{BUCKETS, RowPlace, Rows, bucket_of, hash_of};
use crate::view::snapshots::FloorRise;

/// Changes and rows processed under one lock: tens of microseconds.
const PAGE: usize = 64;

/// Some of a shard's rows.
pub(crate) struct Bucket {
    pub(crate) rows: Rows<VersionedRow>,
    /// The newest epoch in which one of them changed.
    pub(crate) changed: Epoch,
}

/// One worker's part of a view.
pub(crate) struct Shard {
    pub(crate) buckets: Box<[RwLock<Bucket>]>,
    schema: Arc<RowSchema>,
    /// As of the latest applied changes.
    pub(crate) live: AtomicUsize,
    /// Number of changes applied.
    pub(crate) applied: AtomicU64,
    log: Mutex<EpochLogs>,
}

/// A log of a shard's epochs, back to the floor.
#[derive(Default)]
struct EpochLogs {
    epochs: VecDeque<EpochLog>,
    /// Number of superseded versions over all of `epochs`.
    superseded: usize,
    /// The newest epoch that was removed from `epochs`.
    before: Epoch,
}

struct EpochLog {
    epoch: Epoch,
    superseded: usize,
    hash: u64,
}

impl Shard {
    pub(crate) fn new(schema: Arc<RowSchema>) -> Self {
        let bucket = || {
            RwLock::new(Bucket {
                rows: Rows::new(schema.window_len()),
                changed: Epoch::ZERO,
            })
        };
        Self {
            buckets: std::iter::repeat_with(bucket).take(BUCKETS).collect(),
            live: AtomicUsize::new(0),
            applied: AtomicU64::new(0),
            log: Mutex::default(),
            schema,
        }
    }

    fn hash_of(&self, key: &[u8]) -> u64 {
        hash_of(self.schema.without_window(key))
    }

    /// The last epoch up to `at` with a change; [`Epoch::ZERO`] if there was none, or if it is no longer
    /// known.
    pub(crate) fn changed(&self, at: Epoch) -> Epoch {
        let log = self.log.lock();
        match log.epochs.partition_point(|entry| entry.epoch <= at) {
            0 if log.before <= at => log.before,
            0 => Epoch::ZERO,
            after => log.epochs[after - 1].epoch,
        }
    }

    /// The sum of the hashes of an epoch's changes.
    pub(crate) fn hash(&self, epoch: Epoch) -> u64 {
        let log = self.log.lock();
        log.epochs
            .binary_search_by_key(&epoch, |entry| entry.epoch)
            .map_or(0, |i| log.epochs[i].hash)
    }

    /// The lowest floors at which at most `superseded_max`, and at most twice as many, superseded versions
    /// are kept; neither beyond `closed`.
    pub(crate) fn floor_rise(&self, closed: Epoch, superseded_max: usize) -> FloorRise {
        let log = self.log.lock();
        let mut rise = FloorRise {
            wanted: Epoch::ZERO,
            forced: Epoch::ZERO,
        };
        let mut kept = log.superseded;
        for entry in log.epochs.iter().take_while(|entry| entry.epoch <= closed) {
            if kept <= superseded_max {
                break;
            }
            rise.wanted = entry.epoch;
            if kept > superseded_max.saturating_mul(2) {
                rise.forced = entry.epoch;
            }
            kept -= entry.superseded;
        }
        rise
    }

    /// Drops the epochs up to `floor`, but remembers that they existed.
    pub(crate) fn forget(&self, floor: Epoch) {
        let mut log = self.log.lock();
        while log.epochs.front().is_some_and(|entry| entry.epoch < floor) {
            if let Some(entry) = log.epochs.pop_front() {
                log.superseded -= entry.superseded;
                log.before = entry.epoch;
            }
        }
    }

    /// The number of rows and of superseded versions.
    #[cfg(test)]
    pub(crate) fn stored(&self) -> (usize, usize) {
        self.buckets.iter().fold((0, 0), |(rows, older), bucket| {
            let bucket = bucket.read();
            let all = bucket.rows.forward(Bound::Unbounded);
            all.fold((rows, older), |(rows, older), (_, row)| {
                (rows + 1, older + row.older())
            })
        })
    }

    fn note(&self, epoch: Epoch, superseded: usize, hash: u64) {
        let mut log = self.log.lock();
        log.superseded += superseded;
        match log.epochs.back_mut() {
            Some(last) if last.epoch == epoch => {
                last.superseded += superseded;
                last.hash = last.hash.wrapping_add(hash);
            }
            _ => log.epochs.push_back(EpochLog {
                epoch,
                superseded,
                hash,
            }),
        }
    }
}

/// Number of versions loaded at once.
const LOADED: usize = 1 << 19;

/// Rows with older versions, each with its bucket, by the epoch at which those may be pruned.
type Queue = BTreeMap<Epoch, Vec<(u8, RowPlace)>>;

/// A version with its key and the key's hash.
struct LoadedVersion {
    hash: u64,
    key: SmallBytes,
    epoch: Epoch,
    value: Option<SmallBytes>,
}

/// The route of the typed key behind some bytes; `None` if the bytes are not a valid key of the view.
pub(crate) type RouteOf = fn(&RowSchema, &[u8]) -> Option<u64>;

impl Shard {
    /// Loads the rows that this worker owns from a checkpoint.
    fn load(&self, loader: &StateLoader, floor: Epoch, route_of: RouteOf) -> Queue {
        // In key order, rows are inserted far faster.
        let mut some: Vec<LoadedVersion> = Vec::with_capacity(LOADED.min(loader.entries() + 1));
        loader.load_encoded(
            |key| {
                let unreadable = || Error::definition("a checkpoint has a key that its view cannot decode");
                route_of(&self.schema, key).ok_or_else(unreadable)
            },
            |entry| {
                some.push(LoadedVersion {
                    hash: self.hash_of(entry.key),
                    key: SmallBytes::new(entry.key),
                    epoch: entry.epoch,
                    value: entry.value.map(SmallBytes::new),
                });
                if some.len() == LOADED {
                    self.take_in(&mut some);
                }
            },
        );
        self.take_in(&mut some);
        self.loaded(floor)
    }

    /// Drops loaded versions that no read can request, and counts the rest.
    fn loaded(&self, floor: Epoch) -> Queue {
        let (mut epochs, mut before) = (BTreeMap::new(), Epoch::ZERO);
        let mut note = |epoch: Epoch, superseded: usize| match epoch < floor {
            true => before = before.max(epoch),
            false => *epochs.entry(epoch).or_insert(0) += superseded,
        };
        let (mut live, mut dead, mut queue) = (0, Vec::new(), Queue::new());
        for (at, bucket) in self.buckets.iter().enumerate() {
            let mut bucket = bucket.write();
            bucket.rows.each_mut(|place, row| {
                live += usize::from(row.value.is_some());
                row.prune(floor);
                let mut first = true;
                row.versions(Epoch::ZERO, Epoch(u64::MAX), |epoch, _| {
                    note(epoch, usize::from(!std::mem::take(&mut first)));
                });
                if row.is_queued() {
                    queue.entry(row.epoch).or_default().push((at as u8, place));
                } else if row.value.is_none() {
                    dead.push((at, place));
                }
            });
        }
        for (at, place) in dead {
            self.buckets[at].write().rows.remove(place);
        }
        self.live.store(live, Ordering::Relaxed);
        for (epoch, superseded) in epochs {
            self.note(epoch, superseded, 0);
        }
        self.log.lock().before = before;
        queue
    }

    /// Inserts versions, with the bucket of each.
    fn take_in(&self, versions: &mut Vec<LoadedVersion>) {
        versions.sort_unstable_by(|a, b| {
            let place = |version: &LoadedVersion| bucket_of(version.hash);
            (place(a), &a.key, a.epoch).cmp(&(place(b), &b.key, b.epoch))
        });
        let mut versions = versions.drain(..).peekable();
        while let Some(first) = versions.peek() {
            let at = bucket_of(first.hash);
            let mut bucket = self.buckets[at].write();
            while let Some(version) = versions.next_if(|version| bucket_of(version.hash) == at) {
                let LoadedVersion {
                    hash,
                    key,
                    epoch,
                    value,
                } = version;
                bucket.changed = bucket.changed.max(epoch);
                bucket.rows.put(hash, &key, |row| match row {
                    Some((_, row)) => {
                        row.put_version(epoch, value);
                        None
                    }
                    None => Some(VersionedRow::new(epoch, value)),
                });
            }
        }
    }

    /// Passes the rows of a bucket to `visit`, forward or backward from a bound: at most `rows_max`, and
    /// never more than a page, under one lock. Returns where to continue; `None` at the end.
    pub(crate) fn visit(
        &self,
        bucket: usize,
        start: Bound<&[u8]>,
        reverse: bool,
        rows_max: usize,
        visit: &mut dyn FnMut(&SmallBytes, &VersionedRow),
    ) -> Option<SmallBytes> {
        let rows_max = rows_max.clamp(1, PAGE);
        let bucket = self.buckets[bucket].read();
        if reverse {
            show(bucket.rows.backward(start), rows_max, visit)
        } else {
            show(bucket.rows.forward(start), rows_max, visit)
        }
    }
}

/// Passes up to `rows_max` rows to `visit`. Returns the last one's key if there were that many.
fn show<'a>(
    rows: impl Iterator<Item = (SmallBytes, &'a VersionedRow)>,
    rows_max: usize,
    visit: &mut dyn FnMut(&SmallBytes, &VersionedRow),
) -> Option<SmallBytes> {
    for (i, (key, row)) in (1..).zip(rows) {
        visit(&key, row);
        if i == rows_max {
            return Some(key);
        }
    }
    None
}

/// The writer of a shard. Each shard has one.
pub(crate) struct ShardWriter {
    view: Arc<View>,
    shard: Arc<Shard>,
    /// The latest epoch applied.
    epoch: Epoch,
    queue: Queue,
    /// The epoch's new entries of the queue, collected while buckets are locked.
    queued: Vec<(u8, RowPlace)>,
    /// The rows with versions that are in no checkpoint yet.
    changed: DirtyKeys<SmallBytes>,
}

impl ShardWriter {
    pub(crate) fn new(view: Arc<View>, shard: Arc<Shard>) -> Self {
        Self {
            view,
            shard,
            epoch: Epoch::ZERO,
            queue: Queue::new(),
            queued: Vec::new(),
            changed: DirtyKeys::off(),
        }
    }

    /// Registers the shard for checkpoints, and loads its rows from one.
    pub(crate) fn keep(mut self, handle: &StateHandle, route_of: RouteOf) -> StateCell<Self> {
        self.changed = handle.changed();
        let Some(restored) = handle.restored() else {
            return handle.keep(self);
        };
        // A new view has no earlier rows.
        let floor = handle.held().map_or(restored, |_| handle.floor());
        self.view.floor.fetch_max(floor.0, Ordering::SeqCst);
        let shard = self.shard.clone();
        handle.keep_restored(
            self,
            move |loader| shard.load(loader, floor, route_of),
            move |writer, queue| (writer.epoch, writer.queue) = (restored, queue),
        )
    }

    /// See [`ViewWriter::apply`](crate::view::writer::ViewWriter::apply).
    pub(crate) fn apply(&mut self, epoch: Epoch, changes: &mut ChangeBatch) {
        assert!(
            epoch >= self.epoch,
            "view `{}`: epoch {epoch} after {}",
            self.view.spec.name,
            self.epoch
        );
        self.epoch = epoch;
        let hash = if self.view.spec.hashed { changes.hash() } else { 0 };
        let mut superseded = 0;
        for (at, range) in changes.sort().into_iter().enumerate() {
            superseded += self.apply_bucket(at, range, changes);
        }
        let count = changes.len();
        self.shard.note(epoch, superseded, hash);
        self.shard.applied.fetch_add(count as u64, Ordering::Relaxed);
        if !self.queued.is_empty() {
            self.queue.entry(epoch).or_default().append(&mut self.queued);
        }
        // Each change queues at most one row, so this keeps up, and no call stalls on a floor that has risen
        // far.
        self.prune(2 * count + 4 * PAGE);
    }

    pub(crate) fn prune(&mut self, keys_max: usize) {
        let floor = self.view.floor();
        let mut left = keys_max;
        while left > 0 {
            let Some(mut entry) = self.queue.first_entry().filter(|entry| *entry.key() <= floor) else {
                return;
            };
            let keys = entry.get_mut();
            let some = keys.split_off(keys.len().saturating_sub(left.min(PAGE)));
            if keys.is_empty() {
                entry.remove();
            }
            left = left.saturating_sub(some.len());
            self.prune_rows(floor, some);
        }
    }

    /// Applies the changes of a bucket. Returns the number of superseded versions.
    fn apply_bucket(&mut self, at: usize, range: Range<usize>, changes: &ChangeBatch) -> usize {
        if range.is_empty() {
            return 0;
        }
        let (shard, floor) = (self.shard.clone(), self.view.floor());
        let mut bucket = shard.buckets[at].write();
        bucket.changed = self.epoch;
        bucket
            .rows
            .fetch(changes.at(range.clone()).map(|change| change.hash));
        let mut superseded = 0;
        for (i, change) in changes.at(range).enumerate() {
            if i % PAGE == PAGE - 1 {
                // Lets waiting readers in, if there are any.
                RwLockWriteGuard::bump(&mut bucket);
            }
            superseded += usize::from(self.apply_change(&mut bucket.rows, at as u8, floor, &change));
        }
        superseded
    }

    /// Whether a version was superseded.
    fn apply_change(
        &mut self,
        rows: &mut Rows<VersionedRow>,
        at: u8,
        floor: Epoch,
        change: &EncodedChange<'_>,
    ) -> bool {
        let EncodedChange { key, hash, new } = *change;
        let (epoch, live, shard) = (self.epoch, new.is_some(), &self.shard.live);
        let (queued, changed) = (&mut self.queued, &mut self.changed);
        let mut superseded = false;
        rows.put(hash, key, |row| {
            let Some((place, row)) = row else {
                return new.map(|value| {
                    changed.touch(None, || SmallBytes::new(key), |_, _| {});
                    shard.fetch_add(1, Ordering::Relaxed);
                    VersionedRow::new(epoch, Some(SmallBytes::new(value)))
                });
            };
            if !row.is_queued() {
                queued.push((at, place));
            }
            changed.touch(Some(row.epoch), || SmallBytes::new(key), |_, _| {});
            match (row.value.is_some(), live) {
                (false, true) => _ = shard.fetch_add(1, Ordering::Relaxed),
                (true, false) => _ = shard.fetch_sub(1, Ordering::Relaxed),
                _ => {}
            }
            superseded = row.supersede(epoch, new.map(SmallBytes::new), floor);
            None
        });
        superseded
    }

    fn prune_rows(&mut self, floor: Epoch, mut places: Vec<(u8, RowPlace)>) {
        let mut dropped = Vec::new();
        while let Some((at, _)) = places.last() {
            let at = *at;
            let mut bucket = self.shard.buckets[at as usize].write();
            let same = places.iter().rev().take_while(|(other, _)| *other == at);
            bucket.rows.fetch_at(same.map(|(_, place)| *place));
            while let Some((_, place)) = places.pop_if(|(other, _)| *other == at) {
                let Some(row) = bucket.rows.at_mut(place) else {
                    continue;
                };
                if row.epoch > floor {
                    row.prune(floor);
                    self.queue.entry(row.epoch).or_default().push((at, place));
                } else {
                    dropped.push(row.take_older());
                    if row.value.is_none() {
                        bucket.rows.remove(place);
                    }
                }
            }
        }
        // Freed here, where nobody waits for a lock.
        drop(dropped);
    }
}

/// Versions never change once their epoch is over, so nothing needs to be saved before a change; but the
/// view's floor must not rise until everything is saved. `Views::hold` ensures that.
impl Stateful for ShardWriter {
    fn freeze(&mut self, at: Epoch, retry: bool, out: SnapshotWriter) {
        self.changed.freeze(at, retry, out);
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let (shard, after, floor) = (&self.shard, self.changed.unsaved_since(), self.view.floor());
        // Rows are only removed here by a version that says so.
        let removed = |_: &mut SnapshotWriter, _: &SmallBytes, _: Epoch| {};
        self.changed.save_with(entries_max, removed, |out, key, upto| {
            let hash = shard.hash_of(key);
            let bucket = shard.buckets[bucket_of(hash)].read();
            let row = bucket.rows.get(hash, key);
            // Nothing is left of it, or nothing from before the floor: it may have been removed so long ago
            // that this was forgotten. Earlier files would still contain it, up to its next version.
            if row.is_none_or(|row| row.first() > floor && floor > after) {
                out.remove_encoded(key, floor);
            }
            if let Some(row) = row {
                row.versions(after, upto, |epoch, value| match value {
                    Some(value) => out.put_encoded(key, epoch, None, value),
                    None => out.remove_encoded(key, epoch),
                });
            }
        })
    }

    fn bounds(&self) -> RetentionBounds {
        RetentionBounds {
            floor: self.view.floor(),
            ..RetentionBounds::default()
        }
    }
}
