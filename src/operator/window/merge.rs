//! The windows that a worker holds: open ones in hash tables, closed ones packed.

use std::collections::{BTreeMap, btree_map};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::Partial;
use crate::checkpoint::keeper::{Keeper, Loader};
use crate::checkpoint::state::{Bounds, Changed, Out, Stateful};
use crate::operator::aggregate::Aggregate;
use crate::record::{Change, Event, Record, route};
use crate::time::{Epoch, EventTime, Window, Windowed};

pub(super) struct Merge<K, S, F> {
    fold: Rc<F>,
    keep: Duration,
    /// How far behind the watermark windows close: for so long they are corrected.
    held_back: Duration,
    /// By end and then start, so that those to expire come first.
    pub(super) windows: ByEnd<K, S>,
    /// Windows that end up to here are closed.
    closed: EventTime,
    /// Windows that end before this have been packed.
    packed: EventTime,
    /// By end, start and key.
    changed: Changed<(EventTime, EventTime, K)>,
}

type ByEnd<K, S> = BTreeMap<(EventTime, EventTime), Held<K, S>>;

pub(super) struct Held<K, S> {
    pane: Pane<K, S>,
    /// The epoch that last changed anything in it.
    changed: Epoch,
}

/// The aggregates of one window.
pub(super) enum Pane<K, S> {
    Open(HashTable<Slot<K, S>>),
    /// The window is closed, so nothing is to come: half the memory, until it expires.
    Packed(Box<[(K, S)]>),
}

impl<K: Record, S> Pane<K, S> {
    /// To fold something in, or to find a key. What was packed had last changed by `changed`.
    fn open(&mut self, changed: Epoch) -> &mut HashTable<Slot<K, S>> {
        if let Pane::Packed(rows) = self {
            let mut table = HashTable::with_capacity(rows.len());
            for (key, state) in std::mem::take(rows) {
                let slot = Slot {
                    route: route(&key),
                    key,
                    state,
                    epoch: changed,
                    at: 0,
                };
                table.insert_unique(slot.route, slot, |slot| slot.route);
            }
            *self = Pane::Open(table);
        }
        match self {
            Pane::Open(table) => table,
            Pane::Packed(_) => unreachable!("was just opened"),
        }
    }

    fn rows(self) -> Box<[(K, S)]> {
        match self {
            Pane::Open(table) => table.into_iter().map(|slot| (slot.key, slot.state)).collect(),
            Pane::Packed(rows) => rows,
        }
    }

    fn pack(&mut self) {
        let pane = std::mem::replace(self, Pane::Packed(Box::default()));
        *self = Pane::Packed(pane.rows());
    }
}

pub(super) struct Slot<K, S> {
    route: u64,
    key: K,
    state: S,
    /// The epoch that last changed it, and where in that epoch's output its change stands.
    epoch: Epoch,
    at: usize,
}

/// What a checkpoint holds of this worker's windows.
pub(super) fn load<K: Record, S: Event>(loader: &Loader) -> ByEnd<K, S> {
    let mut windows = ByEnd::new();
    loader.load(
        |key: &(EventTime, EventTime, K)| &key.2,
        |entry| {
            let ((end, start, key), epoch) = (entry.key, entry.epoch);
            let held = windows.entry((end, start)).or_insert_with(Held::new);
            held.changed = held.changed.max(epoch);
            let Some(state) = entry.value else { return };
            let slot = Slot {
                route: route(&key),
                key,
                state,
                epoch,
                at: 0,
            };
            let table = held.pane.open(epoch);
            match table.entry(slot.route, |other| other.key == slot.key, |slot| slot.route) {
                Entry::Vacant(vacant) => _ = vacant.insert(slot),
                Entry::Occupied(mut occupied) => *occupied.get_mut() = slot,
            }
        },
    );
    windows
}

impl<K: Record, S: Event, F> Merge<K, S, F> {
    pub(super) fn new(fold: Rc<F>, keep: Duration, held_back: Duration, keeper: &Keeper) -> Self {
        Self {
            fold,
            keep,
            held_back,
            windows: BTreeMap::new(),
            closed: EventTime::MIN,
            packed: EventTime::MIN,
            changed: keeper.changed(),
        }
    }

    /// How many windows there are, and how many of them are packed.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let packed = |held: &&Held<K, S>| matches!(held.pane, Pane::Packed(_));
        (self.windows.len(), self.windows.values().filter(packed).count())
    }

    /// Every row as one that is new.
    pub(super) fn all<T>(&self) -> Vec<Change<Windowed<K>, F::Out>>
    where
        F: Aggregate<T, State = S>,
    {
        let mut rows = Vec::new();
        for ((end, start), held) in &self.windows {
            let window = Window {
                start: *start,
                end: *end,
            };
            let mut new = |key: &K, state: &S| {
                let key = Windowed {
                    key: key.clone(),
                    window,
                };
                let new = Some(self.fold.finish(state));
                rows.push(Change { key, old: None, new });
            };
            match &held.pane {
                Pane::Open(table) => table.iter().for_each(|slot| new(&slot.key, &slot.state)),
                Pane::Packed(packed) => packed.iter().for_each(|(key, state)| new(key, state)),
            }
        }
        rows
    }

    pub(super) fn add<T>(
        &mut self,
        epoch: Epoch,
        partial: Partial<K, S>,
        changes: &mut Vec<Change<Windowed<K>, F::Out>>,
    ) where
        F: Aggregate<T, State = S>,
    {
        let Partial {
            route,
            key,
            window,
            state,
        } = partial;
        // A table that grows by its own keys takes as much memory as they need, whatever the windows before held.
        let held = match self.windows.entry((window.end, window.start)) {
            btree_map::Entry::Vacant(vacant) => vacant.insert(Held::new()),
            btree_map::Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let before = std::mem::replace(&mut held.changed, epoch);
        match held
            .pane
            .open(before)
            .entry(route, |slot| slot.key == key, |slot| slot.route)
        {
            Entry::Vacant(vacant) => {
                let new = Some(self.fold.finish(&state));
                changes.push(Change {
                    key: Windowed {
                        key: key.clone(),
                        window,
                    },
                    old: None,
                    new,
                });
                self.changed
                    .touch(None, || (window.end, window.start, key.clone()), |_, _| {});
                vacant.insert(Slot {
                    route,
                    key,
                    state,
                    epoch,
                    at: changes.len() - 1,
                });
            }
            Entry::Occupied(occupied) => {
                let slot = occupied.into_mut();
                if slot.epoch != epoch {
                    let old = Some(self.fold.finish(&slot.state));
                    self.changed.touch(
                        Some(slot.epoch),
                        || (window.end, window.start, key.clone()),
                        |out, key| out.put_state(key, slot.epoch, Some(window.end), &slot.state),
                    );
                    changes.push(Change {
                        key: Windowed { key, window },
                        old,
                        new: None,
                    });
                    (slot.epoch, slot.at) = (epoch, changes.len() - 1);
                }
                self.fold.merge(&mut slot.state, state);
                changes[slot.at].new = Some(self.fold.finish(&slot.state));
            }
        }
    }

    /// Retracts the rows of windows that closed longer ago than they are kept, and packs those of windows that are closed.
    pub(super) fn expire<T>(&mut self, watermark: EventTime, changes: &mut Vec<Change<Windowed<K>, F::Out>>)
    where
        F: Aggregate<T, State = S>,
    {
        // A window that ends up to here is closed.
        let closed = watermark.minus(self.held_back);
        self.closed = self.closed.max(closed);
        while let Some(first) = self.windows.first_entry() {
            let (end, start) = *first.key();
            if end.plus(self.keep) > closed {
                break;
            }
            let window = Window { start, end };
            let pane = first.remove().pane;
            if let Pane::Open(table) = &pane
                && self.changed.is_saving()
            {
                for slot in table {
                    let save = |out: &mut Out| {
                        let key = (end, start, slot.key.clone());
                        out.put_state(&key, slot.epoch, Some(end), &slot.state);
                    };
                    self.changed.expire(slot.epoch, save);
                }
            }
            changes.extend(pane.rows().into_iter().map(|(key, state)| Change {
                old: Some(self.fold.finish(&state)),
                new: None,
                key: Windowed { key, window },
            }));
        }
        if closed > self.packed {
            // An end is part of the bound: windows that end there are over.
            let over = (self.packed.max(EventTime(i64::MIN + 1)), EventTime::MIN)..=(closed, EventTime::MAX);
            for ((end, _), held) in self.windows.range_mut(over) {
                if !self.changed.is_saved(held.changed) {
                    // What is to be saved has to be found by its key: later, then.
                    self.packed = *end;
                    return;
                }
                held.pane.pack();
            }
            self.packed = closed;
        }
    }
}

impl<K: Record, S> Held<K, S> {
    fn new() -> Self {
        Self {
            pane: Pane::Open(HashTable::new()),
            changed: Epoch::ZERO,
        }
    }
}

impl<K: Record, S: Event, F> Stateful for Merge<K, S, F> {
    fn freeze(&mut self, at: Epoch, again: bool, out: Out) {
        self.changed.freeze(at, again, out);
        if again {
            let unsaved = self.changed.unsaved_since();
            for held in self.windows.values_mut().filter(|held| held.changed > unsaved) {
                held.pane.open(held.changed);
            }
        }
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let windows = &self.windows;
        self.changed.save(entries_max, |out, key, upto| {
            let (end, start, of) = key;
            let Some(Held {
                pane: Pane::Open(table),
                ..
            }) = windows.get(&(*end, *start))
            else {
                return;
            };
            let found = table.find(route(of), |slot| slot.key == *of);
            if let Some(slot) = found.filter(|slot| slot.epoch <= upto) {
                out.put_state(key, slot.epoch, Some(*end), &slot.state);
            }
        })
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            cut: self.closed.minus(self.keep),
            ..Bounds::default()
        }
    }
}
