//! Keyed state that tracks its changes for checkpoints: an operator cannot forget to report one.
//!
//! ```text
//!   operator ── put, update, remove, expire ─▶ KeyedState ─┬─▶ EntryStore  the entries, each a Versioned value
//!                                                          └─▶ ChangeTracker  which keys changed since the last freeze
//!   checkpoint ── freeze ── save, a slice at a time ──────────▶ entries as of the freeze ─▶ SnapshotWriter
//! ```
//!
//! A [`Versioned`] value can be read freely and written only through the [`ChangeTracker`], which first saves
//! the value as of the freeze if a checkpoint still needs it. So a freeze copies nothing, and a
//! [`EntryStore`] may arrange its entries as it likes.

pub(crate) mod grouped;

use std::collections::BTreeMap;
use std::ops::Deref;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::manifest::RetentionBounds;
use super::state::{DirtyKeys, SnapshotWriter, Stateful};
use super::state_handle::{LoadedEntry, StateHandle, StateLoader};
use super::steps::StateCell;
use crate::record::{Event, Record};
use crate::time::{Epoch, EventTime};

/// A value of keyed state, with the epoch of its last change.
#[derive(Clone, Debug)]
pub struct Versioned<V> {
    epoch: Epoch,
    value: V,
}

impl<V> Versioned<V> {
    /// A value restored from a checkpoint.
    pub(crate) fn saved(epoch: Epoch, value: V) -> Self {
        Self { epoch, value }
    }

    /// The epoch of its last change.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the value alone. This does not record its removal; [`ChangeTracker::remove`] and
    /// [`ChangeTracker::expire`] do.
    pub(crate) fn into_value(self) -> V {
        self.value
    }
}

impl<V> Deref for Versioned<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

/// The container of a [`KeyedState`]'s entries.
///
/// [`HashStore`] and [`TimeStore`] are provided. A custom store may arrange entries differently, or aggregate
/// them as they come and go: every entry, restored ones included, enters by [`insert`](Self::insert) and
/// leaves by [`remove`](Self::remove).
pub trait EntryStore: Default + Send + 'static {
    /// The key of an entry.
    type Key: Record;
    /// Its value.
    type Value: Event;
    /// The part of the key that determines the worker that owns the entry: the exchange key of the operator's
    /// input.
    type Route: Record;

    /// An empty store with capacity for about `entries`.
    fn with_room(_entries: usize) -> Self {
        Self::default()
    }

    /// See [`Route`](Self::Route).
    fn routed(key: &Self::Key) -> &Self::Route;

    /// The time at which the entry expires. It must depend on the key alone: otherwise an older entry in a
    /// checkpoint could reappear when a newer one of the same key has expired earlier.
    fn until(_key: &Self::Key) -> Option<EventTime> {
        None
    }

    /// Writes an entry to a checkpoint, with [`SnapshotWriter::put`] or [`SnapshotWriter::put_state`].
    fn save(out: &mut SnapshotWriter, key: &Self::Key, epoch: Epoch, value: &Self::Value);

    /// An entry.
    fn get(&self, key: &Self::Key) -> Option<&Versioned<Self::Value>>;

    /// A mutable entry for the epoch `now`, written through the [`ChangeTracker`].
    fn get_mut(&mut self, key: &Self::Key, now: Epoch) -> Option<&mut Versioned<Self::Value>>;

    /// Inserts an entry, replacing the one with its key.
    fn insert(&mut self, key: Self::Key, value: Versioned<Self::Value>);

    /// Removes an entry.
    fn remove(&mut self, key: &Self::Key) -> Option<Versioned<Self::Value>>;

    /// Entries that changed after `since` are to be saved again: [`get`](Self::get) must find them with the
    /// epochs of their last change, or later ones.
    fn reopen(&mut self, _since: Epoch) {}

    /// Called at the end of an epoch: may release unused capacity.
    fn give_back_room(&mut self) {}
}

/// Tracks which entries of a store changed since the last freeze, and writes them.
pub struct ChangeTracker<S: EntryStore> {
    now: Epoch,
    changed: DirtyKeys<S::Key>,
}

impl<S: EntryStore> ChangeTracker<S> {
    /// The epoch that changes belong to.
    pub fn now(&self) -> Epoch {
        self.now
    }

    /// Records a value for a key that has none.
    #[inline]
    pub fn insert(&mut self, key: impl FnOnce() -> S::Key, value: S::Value) -> Versioned<S::Value> {
        self.changed.touch(None, key, |_, _| {});
        let epoch = self.now;
        Versioned { epoch, value }
    }

    /// Records a change of a key's value, and returns the value.
    #[inline]
    pub fn write<'a>(
        &mut self,
        held: &'a mut Versioned<S::Value>,
        key: impl FnOnce() -> S::Key,
    ) -> &'a mut S::Value {
        if held.epoch != self.now {
            let save = |out: &mut SnapshotWriter, key: &S::Key| S::save(out, key, held.epoch, &held.value);
            self.changed.touch(Some(held.epoch), key, save);
            held.epoch = self.now;
        }
        &mut held.value
    }

    /// Records the removal of a key, and returns its value.
    #[inline]
    pub fn remove(&mut self, held: Versioned<S::Value>, key: impl FnOnce() -> S::Key) -> S::Value {
        let save = |out: &mut SnapshotWriter, key: &S::Key| S::save(out, key, held.epoch, &held.value);
        self.changed.remove(held.epoch, key, save);
        held.value
    }

    /// Records that a key's value expired: checkpoints get no tombstone.
    #[inline]
    pub fn expire(&mut self, held: &Versioned<S::Value>, key: impl FnOnce() -> S::Key) {
        let save = |out: &mut SnapshotWriter| S::save(out, &key(), held.epoch, &held.value);
        self.changed.expire(held.epoch, save);
    }

    /// Whether a checkpoint is being saved that may still need earlier values.
    pub fn is_saving(&self) -> bool {
        self.changed.is_saving()
    }

    /// Whether no checkpoint still needs values that last changed at `epoch`.
    pub fn is_saved(&self, epoch: Epoch) -> bool {
        self.changed.is_saved(epoch)
    }
}

/// Entries by key, with incremental checkpoints.
///
/// An [`Operator`](crate::operator::process::Operator) gets it for its current epoch. It contains the keys of
/// this worker only.
pub struct KeyedState<S: EntryStore> {
    store: S,
    journal: ChangeTracker<S>,
    /// Entries whose time is at or before this have expired.
    cut: EventTime,
}

impl<S: EntryStore> KeyedState<S> {
    /// An empty state. If checkpoints are disabled, it tracks no changes.
    pub(crate) fn new(handle: &StateHandle) -> Self {
        let (now, changed) = (Epoch::ZERO, handle.changed());
        Self {
            store: S::default(),
            journal: ChangeTracker { now, changed },
            cut: handle.cut(),
        }
    }

    /// Creates a step's state; its entries in a checkpoint are loaded once the dataflow is built.
    pub(crate) fn keep(handle: &StateHandle) -> StateCell<Self> {
        handle.keep_restored(Self::new(handle), Self::load, |state, store| state.store = store)
    }

    fn load(loader: &StateLoader) -> S {
        let mut store = S::with_room(loader.entries());
        loader.load(S::routed, |LoadedEntry { key, epoch, value }| match value {
            Some(value) => store.insert(key, Versioned::saved(epoch, value)),
            None => _ = store.remove(&key),
        });
        store
    }

    /// Attributes the following changes to `epoch`. Epochs never decrease.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        self.journal.now = epoch;
    }

    pub(crate) fn give_back_room(&mut self) {
        self.store.give_back_room();
    }

    /// Direct access to the store and the tracker, for stores with further operations.
    pub(crate) fn parts(&mut self) -> (&mut S, &mut ChangeTracker<S>) {
        (&mut self.store, &mut self.journal)
    }

    /// Expires entries whose time is at or before `cut`; the caller removes them from the store. Returns the
    /// effective time, which never decreases.
    pub(crate) fn cut_to(&mut self, cut: EventTime) -> EventTime {
        self.cut = self.cut.max(cut);
        self.cut
    }

    /// The entries.
    pub fn entries(&self) -> &S {
        &self.store
    }

    /// A key's value.
    #[inline]
    pub fn get(&self, key: &S::Key) -> Option<&S::Value> {
        self.store.get(key).map(|held| &held.value)
    }

    /// Sets a key's value and returns the previous one. An equal value does not count as a change.
    ///
    /// An entry whose time has passed is dropped: see [`expire`](Self::expire).
    #[inline]
    pub fn put(&mut self, key: S::Key, value: S::Value) -> Option<S::Value>
    where
        S::Value: PartialEq,
    {
        if let Some(held) = self.store.get_mut(&key, self.journal.now) {
            if held.value == value {
                return Some(value);
            }
            let place = self.journal.write(held, || key);
            return Some(std::mem::replace(place, value));
        }
        self.insert(key, value);
        None
    }

    /// Changes a key's value in place, starting from `empty` if it has none. Always counts as a change.
    ///
    /// ```
    /// # use thalweg::checkpoint::keyed::{HashStore, KeyedState};
    /// # fn count(counts: &mut KeyedState<HashStore<String, u64>>) {
    /// counts.update("apples".to_owned(), || 0, |count| *count += 1);
    /// # }
    /// ```
    #[inline]
    pub fn update<R>(
        &mut self,
        key: S::Key,
        empty: impl FnOnce() -> S::Value,
        change: impl FnOnce(&mut S::Value) -> R,
    ) -> R {
        if let Some(held) = self.store.get_mut(&key, self.journal.now) {
            return change(self.journal.write(held, || key));
        }
        let mut value = empty();
        let result = change(&mut value);
        self.insert(key, value);
        result
    }

    /// A key's value, for modification. Counts as a change.
    pub(crate) fn write(&mut self, key: &S::Key) -> Option<&mut S::Value> {
        let held = self.store.get_mut(key, self.journal.now)?;
        Some(self.journal.write(held, || key.clone()))
    }

    fn insert(&mut self, key: S::Key, value: S::Value) {
        if S::until(&key).is_none_or(|until| until > self.cut) {
            let held = self.journal.insert(|| key.clone(), value);
            self.store.insert(key, held);
        }
    }

    /// Removes an entry and returns its value.
    #[inline]
    pub fn remove(&mut self, key: &S::Key) -> Option<S::Value> {
        let held = self.store.remove(key)?;
        Some(self.journal.remove(held, || key.clone()))
    }
}

impl<S: EntryStore> Stateful for KeyedState<S> {
    fn freeze(&mut self, at: Epoch, retry: bool, out: SnapshotWriter) {
        self.journal.changed.freeze(at, retry, out);
        if retry {
            self.store.reopen(self.journal.changed.unsaved_since());
        }
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let store = &self.store;
        self.journal.changed.save(entries_max, |out, key, upto| {
            if let Some(held) = store.get(key).filter(|held| held.epoch <= upto) {
                S::save(out, key, held.epoch, &held.value);
            }
        })
    }

    fn bounds(&self) -> RetentionBounds {
        RetentionBounds {
            cut: self.cut,
            ..RetentionBounds::default()
        }
    }
}

/// Entries in a hash table, unordered.
pub struct HashStore<K, V> {
    entries: HashMap<K, Versioned<V>, FixedState>,
}

/// Tables with capacity for fewer entries are not shrunk.
const ROOM_MIN: usize = 1 << 10;

impl<K, V> Default for HashStore<K, V> {
    fn default() -> Self {
        Self {
            entries: HashMap::default(),
        }
    }
}

impl<K: Record, V: Record> HashStore<K, V> {
    /// All entries, unordered: an operator's output must not depend on the order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, held)| (key, &held.value))
    }
}

impl<K: Record, V: Record> EntryStore for HashStore<K, V> {
    type Key = K;
    type Value = V;
    type Route = K;

    fn with_room(entries: usize) -> Self {
        Self {
            entries: HashMap::with_capacity_and_hasher(entries, FixedState::default()),
        }
    }

    fn routed(key: &K) -> &K {
        key
    }

    fn save(out: &mut SnapshotWriter, key: &K, epoch: Epoch, value: &V) {
        out.put(key, epoch, None, value);
    }

    #[inline]
    fn get(&self, key: &K) -> Option<&Versioned<V>> {
        self.entries.get(key)
    }

    #[inline]
    fn get_mut(&mut self, key: &K, _now: Epoch) -> Option<&mut Versioned<V>> {
        self.entries.get_mut(key)
    }

    #[inline]
    fn insert(&mut self, key: K, value: Versioned<V>) {
        self.entries.insert(key, value);
    }

    #[inline]
    fn remove(&mut self, key: &K) -> Option<Versioned<V>> {
        self.entries.remove(key)
    }

    /// Keeps memory proportional to the present entries: shrinks a table from which many were removed.
    fn give_back_room(&mut self) {
        let entries = self.entries.len();
        if self.entries.capacity() > ROOM_MIN.max(8 * entries) {
            self.entries.shrink_to(2 * entries);
        }
    }
}

/// Entries ordered by their expiry time and then by key: `(until, key)`.
pub struct TimeStore<K, V> {
    entries: BTreeMap<(EventTime, K), Versioned<V>>,
}

impl<K, V> Default for TimeStore<K, V> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
        }
    }
}

impl<K: Record, V: Record> TimeStore<K, V> {
    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&(EventTime, K), &V)> {
        self.entries.iter().map(|(key, held)| (key, &held.value))
    }
}

impl<K: Record, V: Record> EntryStore for TimeStore<K, V> {
    type Key = (EventTime, K);
    type Value = V;
    type Route = K;

    fn routed(key: &(EventTime, K)) -> &K {
        &key.1
    }

    fn until(key: &(EventTime, K)) -> Option<EventTime> {
        Some(key.0)
    }

    fn save(out: &mut SnapshotWriter, key: &(EventTime, K), epoch: Epoch, value: &V) {
        out.put(key, epoch, Some(key.0), value);
    }

    fn get(&self, key: &(EventTime, K)) -> Option<&Versioned<V>> {
        self.entries.get(key)
    }

    fn get_mut(&mut self, key: &(EventTime, K), _now: Epoch) -> Option<&mut Versioned<V>> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: (EventTime, K), value: Versioned<V>) {
        self.entries.insert(key, value);
    }

    fn remove(&mut self, key: &(EventTime, K)) -> Option<Versioned<V>> {
        self.entries.remove(key)
    }
}

impl<K: Record, V: Record> KeyedState<TimeStore<K, V>> {
    /// Removes all entries that expire by `time`, in order, and passes them to `gone`. Checkpoints get no
    /// tombstones: the time alone implies the removal. It never decreases, and entries inserted later with an
    /// earlier time are dropped.
    ///
    /// The time must be the same on every worker, as it is if it is derived from the epoch's
    /// [`closed`](crate::operator::process::EpochInfo::closed).
    pub fn expire(&mut self, time: EventTime, mut gone: impl FnMut((EventTime, K), V)) {
        let cut = self.cut_to(time);
        let entries = &mut self.store.entries;
        while let Some(first) = entries.first_entry().filter(|first| first.key().0 <= cut) {
            let (key, held) = first.remove_entry();
            self.journal.expire(&held, || key.clone());
            gone(key, held.value);
        }
    }
}

#[cfg(test)]
mod tests;
