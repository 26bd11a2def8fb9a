//! The panes of a worker: the aggregates of each key in each window. Open panes are hash tables, closed ones
//! packed arrays.
//!
//! ```text
//!   (end, start) ─▶ Pane ─┬─ Open     hash table: key → aggregate, with the epoch of its last change
//!                         └─ Packed   array of (key, aggregate): half the memory, once no checkpoint waits for it
//! ```

use std::collections::{BTreeMap, btree_map};

use hashbrown::HashTable;
use hashbrown::hash_table::{self, Entry};

use super::PartialAggregate;
use crate::checkpoint::keyed::{ChangeTracker, EntryStore, KeyedState, Versioned};
use crate::checkpoint::state::SnapshotWriter;
use crate::record::{Event, Record, route};
use crate::time::{Epoch, EventTime, Window};

/// Panes ordered by end and then start, so that those to expire come first.
pub(super) struct Panes<K, S> {
    panes: BTreeMap<(EventTime, EventTime), VersionedPane<K, S>>,
    /// Panes that end before this have been packed.
    packed: EventTime,
}

struct VersionedPane<K, S> {
    pane: Pane<K, S>,
    /// The epoch that last changed anything in it.
    changed: Epoch,
}

/// The aggregates of one window.
enum Pane<K, S> {
    Open(HashTable<PaneSlot<K, S>>),
    /// The window is closed, so nothing more arrives.
    Packed(Box<[(K, S)]>),
}

struct PaneSlot<K, S> {
    route: u64,
    key: K,
    state: Versioned<S>,
    /// The index of that epoch's change in the output.
    at: usize,
}

/// Ordered by end, start and key.
type Place<K> = (EventTime, EventTime, K);

impl<K, S> Default for Panes<K, S> {
    fn default() -> Self {
        Self {
            panes: BTreeMap::new(),
            packed: EventTime::MIN,
        }
    }
}

impl<K: Record, S> Pane<K, S> {
    /// Opens the pane for folding or lookups. Packed entries last changed by `changed`.
    fn open(&mut self, changed: Epoch) -> &mut HashTable<PaneSlot<K, S>> {
        if let Pane::Packed(rows) = self {
            let mut table = HashTable::with_capacity(rows.len());
            for (key, state) in std::mem::take(rows) {
                let slot = PaneSlot::new(key, Versioned::saved(changed, state));
                table.insert_unique(slot.route, slot, |slot| slot.route);
            }
            *self = Pane::Open(table);
        }
        match self {
            Pane::Open(table) => table,
            Pane::Packed(_) => unreachable!("was just opened"),
        }
    }

    fn pack(&mut self) {
        if let Pane::Open(table) = self {
            let rows = std::mem::take(table).into_iter();
            *self = Pane::Packed(rows.map(|slot| (slot.key, slot.state.into_value())).collect());
        }
    }
}

impl<K: Record, S> PaneSlot<K, S> {
    fn new(key: K, state: Versioned<S>) -> Self {
        Self {
            route: route(&key),
            key,
            state,
            at: 0,
        }
    }
}

impl<K: Record, S> VersionedPane<K, S> {
    fn new() -> Self {
        // A table that grows by its own keys takes only the memory that they need, whatever earlier windows
        // held.
        Self {
            pane: Pane::Open(HashTable::new()),
            changed: Epoch::ZERO,
        }
    }

    /// Opens the pane for a change at `now`.
    #[inline]
    fn open(&mut self, now: Epoch) -> &mut HashTable<PaneSlot<K, S>> {
        let before = std::mem::replace(&mut self.changed, now);
        self.pane.open(before)
    }
}

impl<K: Record, S> Panes<K, S> {
    /// Visits every aggregate.
    pub(super) fn each(&self, mut see: impl FnMut(&K, Window, &S)) {
        for ((end, start), held) in &self.panes {
            let (start, end) = (*start, *end);
            let window = Window { start, end };
            match &held.pane {
                Pane::Open(table) => table.iter().for_each(|slot| see(&slot.key, window, &slot.state)),
                Pane::Packed(rows) => rows.iter().for_each(|(key, state)| see(key, window, state)),
            }
        }
    }

    /// The number of panes, and of packed ones.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let packed = |held: &&VersionedPane<K, S>| matches!(held.pane, Pane::Packed(_));
        (self.panes.len(), self.panes.values().filter(packed).count())
    }
}

impl<K: Record, S: Event> EntryStore for Panes<K, S> {
    type Key = Place<K>;
    type Value = S;
    type Route = K;

    fn routed(place: &Place<K>) -> &K {
        &place.2
    }

    fn until(place: &Place<K>) -> Option<EventTime> {
        Some(place.0)
    }

    fn save(out: &mut SnapshotWriter, place: &Place<K>, epoch: Epoch, state: &S) {
        out.put_state(place, epoch, Some(place.0), state);
    }

    /// Packed entries are saved but not looked up.
    fn get(&self, (end, start, key): &Place<K>) -> Option<&Versioned<S>> {
        let Pane::Open(table) = &self.panes.get(&(*end, *start))?.pane else {
            return None;
        };
        let slot = table.find(route(key), |slot| slot.key == *key)?;
        Some(&slot.state)
    }

    fn get_mut(&mut self, (end, start, key): &Place<K>, now: Epoch) -> Option<&mut Versioned<S>> {
        let held = self.panes.get_mut(&(*end, *start))?;
        let table = held.open(now);
        let slot = table.find_mut(route(key), |slot| slot.key == *key)?;
        Some(&mut slot.state)
    }

    fn insert(&mut self, (end, start, key): Place<K>, state: Versioned<S>) {
        let held = self.panes.entry((end, start)).or_insert_with(VersionedPane::new);
        let table = held.open(held.changed.max(state.epoch()));
        let slot = PaneSlot::new(key, state);
        match table.entry(slot.route, |other| other.key == slot.key, |slot| slot.route) {
            Entry::Vacant(vacant) => _ = vacant.insert(slot),
            Entry::Occupied(mut occupied) => *occupied.get_mut() = slot,
        }
    }

    fn remove(&mut self, (end, start, key): &Place<K>) -> Option<Versioned<S>> {
        let held = self.panes.get_mut(&(*end, *start))?;
        let table = held.pane.open(held.changed);
        let found = table.find_entry(route(key), |slot| slot.key == *key).ok()?;
        Some(found.remove().0.state)
    }

    fn reopen(&mut self, since: Epoch) {
        for held in self.panes.values_mut().filter(|held| held.changed > since) {
            held.pane.open(held.changed);
        }
    }
}

/// The result of looking up a key in a pane.
pub(super) enum PaneEntry<'a, K: Record, S: Event> {
    Vacant(VacantEntry<'a, K, S>),
    Occupied(OccupiedEntry<'a, K, S>),
}

/// A key without an aggregate.
pub(super) struct VacantEntry<'a, K: Record, S: Event> {
    entry: hash_table::VacantEntry<'a, PaneSlot<K, S>>,
    journal: &'a mut ChangeTracker<Panes<K, S>>,
    window: Window,
    route: u64,
}

/// A key with an aggregate.
pub(super) struct OccupiedEntry<'a, K: Record, S: Event> {
    slot: &'a mut PaneSlot<K, S>,
    journal: &'a mut ChangeTracker<Panes<K, S>>,
    window: Window,
}

impl<K: Record, S: Event> VacantEntry<'_, K, S> {
    /// Inserts the key's first aggregate, whose change is at index `at` in the epoch's output.
    #[inline]
    pub(super) fn insert(self, key: K, state: S, at: usize) {
        let Window { start, end } = self.window;
        let state = self.journal.insert(|| (end, start, key.clone()), state);
        self.entry.insert(PaneSlot {
            route: self.route,
            key,
            state,
            at,
        });
    }
}

impl<K: Record, S: Event> OccupiedEntry<'_, K, S> {
    /// The aggregate.
    pub(super) fn state(&self) -> &S {
        &self.slot.state
    }

    /// The index of its change in the epoch's output, if it has changed in this epoch.
    #[inline]
    pub(super) fn changed_at(&self) -> Option<usize> {
        (self.slot.state.epoch() == self.journal.now()).then_some(self.slot.at)
    }

    /// The aggregate, for modification.
    #[inline]
    pub(super) fn write(&mut self, at: usize) -> &mut S {
        let Window { start, end } = self.window;
        self.slot.at = at;
        let PaneSlot { key, state, .. } = &mut *self.slot;
        self.journal.write(state, || (end, start, key.clone()))
    }
}

/// An aggregate whose window has expired.
pub(super) struct ExpiredPane<K, S> {
    pub(super) key: K,
    pub(super) window: Window,
    pub(super) state: S,
    /// As [`OccupiedEntry::changed_at`].
    pub(super) changed_at: Option<usize>,
}

impl<K: Record, S: Event> KeyedState<Panes<K, S>> {
    /// The position of a partial aggregate.
    #[inline]
    pub(super) fn find(&mut self, partial: &PartialAggregate<K, S>) -> PaneEntry<'_, K, S> {
        let (Panes { panes, .. }, journal) = self.parts();
        let (window, route) = (partial.window, partial.route);
        let held = match panes.entry((window.end, window.start)) {
            btree_map::Entry::Vacant(vacant) => vacant.insert(VersionedPane::new()),
            btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let table = held.open(journal.now());
        match table.entry(route, |slot| slot.key == partial.key, |slot| slot.route) {
            Entry::Vacant(entry) => PaneEntry::Vacant(VacantEntry {
                entry,
                journal,
                window,
                route,
            }),
            Entry::Occupied(occupied) => PaneEntry::Occupied(OccupiedEntry {
                slot: occupied.into_mut(),
                journal,
                window,
            }),
        }
    }

    /// Removes all panes that end at or before `cut`, and passes their contents to `gone`.
    pub(super) fn expire(&mut self, cut: EventTime, mut gone: impl FnMut(ExpiredPane<K, S>)) {
        let cut = self.cut_to(cut);
        let (Panes { panes, .. }, journal) = self.parts();
        while let Some(first) = panes.first_entry().filter(|first| first.key().0 <= cut) {
            let (end, start) = *first.key();
            let window = Window { start, end };
            let expired = |(key, state), changed_at| ExpiredPane {
                key,
                window,
                state,
                changed_at,
            };
            match first.remove().pane {
                Pane::Open(table) => {
                    for PaneSlot { key, state, at, .. } in table {
                        journal.expire(&state, || (end, start, key.clone()));
                        let changed_at = (state.epoch() == journal.now()).then_some(at);
                        gone(expired((key, state.into_value()), changed_at));
                    }
                }
                Pane::Packed(rows) => rows.into_iter().for_each(|row| gone(expired(row, None))),
            }
        }
    }

    /// Packs panes that end at or before `closed`: nothing more arrives for them.
    pub(super) fn pack(&mut self, closed: EventTime) {
        let (Panes { panes, packed }, journal) = self.parts();
        if closed <= *packed {
            return;
        }
        // The end is inclusive: windows that end there are over.
        let over = ((*packed).max(EventTime(i64::MIN + 1)), EventTime::MIN)..=(closed, EventTime::MAX);
        for ((end, _), held) in panes.range_mut(over) {
            if !journal.is_saved(held.changed) {
                // Entries that are still to be saved must be found by key later.
                *packed = *end;
                return;
            }
            held.pane.pack();
        }
        *packed = closed;
    }
}
