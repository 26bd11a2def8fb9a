//! The rows of a bucket: looked up by the hash of their key, scanned in key order.
//!
//! ```text
//!  index          slots                                        order
//!  hash of b ─▶ 1    0  a │ (0s, row) (10s, row) (20s, row)     chunks of slots, by their keys: 0 1 │ 2
//!  hash of a ─▶ 0    1  b │ (0s, row)
//!  hash of c ─▶ 2    2  c │ (10s, row) (20s, row)
//! ```
//!
//! A slot holds one key with all of its windows, the newest last. Nearly all writes to a windowed view affect
//! the newest window of some key: one probe of the index, and then the end of the slot's rows. The order
//! changes only when a key is inserted or removed. A key without windows has its own slot, with one row.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::schema::small::SmallBytes;

/// Number of buckets per shard: enough that a writer and several readers seldom collide, few enough that
/// scanning all of them is cheap.
pub(crate) const BUCKETS: usize = 64;

/// Slots per chunk of the order: few enough that inserting into the middle is cheap.
const CHUNK_MAX: usize = 512;

/// Slots that are allocated together, so that none ever moves.
const PAGE: usize = 64;

/// Windows of a key stored contiguously: an insertion into the middle moves half of them at most.
const FEW_MAX: usize = 512;

/// The hash of a key, without its window.
pub(crate) fn hash_of(key_without_window: &[u8]) -> u64 {
    xxh3_64(key_without_window)
}

/// The bucket of a key, by the hash of its encoding without the window: all windows of a key are in one
/// bucket.
pub(crate) fn bucket_of(hash: u64) -> usize {
    hash as usize & (BUCKETS - 1)
}

/// A map from encoded keys to rows `R`.
pub(crate) struct Rows<R> {
    index: HashTable<Indexed>,
    slots: Slots<R>,
    /// Slots in key order. No chunk is empty.
    order: Vec<Vec<u32>>,
    /// The size of a key's window suffix in bytes.
    window_len: usize,
}

/// Part of the hash is stored next to the slot, so that other keys are ruled out, and the table grows,
/// without accessing the slot.
#[derive(Clone, Copy)]
struct Indexed {
    hash: u32,
    slot: u32,
}

/// The lowest bits of the hash select the bucket, so they carry no information here.
fn short(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// The table takes its index from the low bits and its tag from the high ones.
fn spread(short: u32) -> u64 {
    u64::from(short) << 32 | u64::from(short)
}

struct Slots<R> {
    pages: Vec<Vec<Slot<R>>>,
    free: Vec<u32>,
}

struct Slot<R> {
    /// The key without its window.
    key: SmallBytes,
    rows: Windows<R>,
}

/// The encoded bounds of a window as ordered numbers; all zeros for a key without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Window(u64, u64);

/// The encoded size of a window.
const WINDOW_LEN: usize = 16;

impl Window {
    fn of(bytes: [u8; WINDOW_LEN]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self((both >> 64) as u64, both as u64)
    }

    fn bytes(self) -> [u8; WINDOW_LEN] {
        (u128::from(self.0) << 64 | u128::from(self.1)).to_be_bytes()
    }
}

/// The rows of one key.
enum Windows<R> {
    /// The slot is free.
    Gone,
    /// A key without windows.
    Plain(R),
    Few(VecDeque<(Window, R)>),
    Many(BTreeMap<Window, R>),
}

/// The location of a row. Valid until the row is removed.
#[derive(Clone, Copy)]
pub(crate) struct RowPlace {
    slot: u32,
    window: Window,
}

impl<R> Rows<R> {
    /// An empty map. Keys end with a window of this many bytes: 16, or none.
    pub(crate) fn new(window_len: usize) -> Self {
        debug_assert!(window_len == 0 || window_len == WINDOW_LEN);
        Self {
            index: HashTable::new(),
            slots: Slots {
                pages: Vec::new(),
                free: Vec::new(),
            },
            order: Vec::new(),
            window_len,
        }
    }

    /// Splits a key into the key without its window, and the window. A key that consists of a window only is
    /// its own.
    fn split<'k>(&self, key: &'k [u8]) -> (&'k [u8], Option<Window>) {
        if self.window_len > 0
            && let Some((own, window)) = key.split_last_chunk()
            && !own.is_empty()
        {
            return (own, Some(Window::of(*window)));
        }
        (key, None)
    }

    fn find(&self, hash: u64, own: &[u8]) -> Option<u32> {
        let hash = short(hash);
        let same = |entry: &Indexed| entry.hash == hash && *self.slots.get(entry.slot).key == *own;
        self.index.find(spread(hash), same).map(|entry| entry.slot)
    }

    /// Prefetches the memory that changes of these keys will access: in parallel for many keys, where cache
    /// misses would otherwise be serial and dominate the cost of large changes.
    pub(crate) fn fetch(&self, hashes: impl Iterator<Item = u64>) {
        let touched = hashes.map(|hash| {
            let hash = short(hash);
            let entry = self.index.find(spread(hash), |entry| entry.hash == hash);
            entry.map_or(0, |entry| self.slots.get(entry.slot).rows.touch())
        });
        std::hint::black_box(touched.fold(0, usize::wrapping_add));
    }

    /// Prefetches the memory of rows at these locations.
    pub(crate) fn fetch_at(&self, places: impl Iterator<Item = RowPlace>) {
        let touched = places.map(|place| self.slots.get(place.slot).rows.touch());
        std::hint::black_box(touched.fold(0, usize::wrapping_add));
    }

    /// The row of a key. `hash` is that of the key without its window.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&R> {
        let (own, window) = self.split(key);
        let slot = self.find(hash, own)?;
        self.slots.get(slot).rows.get(window.unwrap_or_default())
    }

    /// The row at a location, for modification.
    pub(crate) fn at_mut(&mut self, place: RowPlace) -> Option<&mut R> {
        self.slots.get_mut(place.slot).rows.get_mut(place.window)
    }

    /// Passes the row of a key and its location to `change`; if there is none, inserts the row that it
    /// returns, if any.
    pub(crate) fn put(
        &mut self,
        hash: u64,
        key: &[u8],
        change: impl FnOnce(Option<(RowPlace, &mut R)>) -> Option<R>,
    ) {
        let (own, window) = self.split(key);
        let at = window.unwrap_or_default();
        match self.find(hash, own) {
            Some(slot) => self.slots.get_mut(slot).rows.put(at, |row| {
                change(row.map(|row| (RowPlace { slot, window: at }, row)))
            }),
            None => {
                if let Some(row) = change(None) {
                    let rows = match window {
                        Some(window) => {
                            let mut few = VecDeque::with_capacity(1);
                            few.push_back((window, row));
                            Windows::Few(few)
                        }
                        None => Windows::Plain(row),
                    };
                    self.insert(hash, own, rows);
                }
            }
        }
    }

    fn insert(&mut self, hash: u64, own: &[u8], rows: Windows<R>) {
        let at = self.lower_bound(own);
        let slot = self.slots.insert(Slot {
            key: SmallBytes::new(own),
            rows,
        });
        let hash = short(hash);
        let entry = Indexed { hash, slot };
        self.index
            .insert_unique(spread(hash), entry, |entry| spread(entry.hash));
        match at {
            // After all others: keys that arrive in order leave full chunks.
            (chunk, _) if chunk == self.order.len() => match self.order.last_mut() {
                Some(last) if last.len() < CHUNK_MAX => last.push(slot),
                _ => self.order.push(vec![slot]),
            },
            (chunk, index) => {
                let slots = &mut self.order[chunk];
                slots.insert(index, slot);
                if slots.len() > CHUNK_MAX {
                    let upper = slots.split_off(CHUNK_MAX / 2);
                    self.order.insert(chunk + 1, upper);
                }
            }
        }
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, place: RowPlace) -> Option<R> {
        let slot = self.slots.get_mut(place.slot);
        let removed = slot.rows.remove(place.window);
        if removed.is_some() && matches!(slot.rows, Windows::Gone) {
            self.forget(place.slot);
        }
        removed
    }

    /// Frees a slot without rows.
    fn forget(&mut self, slot: u32) {
        let key = self.slots.get(slot).key.clone();
        let (chunk, index) = self.lower_bound(&key);
        let slots = &mut self.order[chunk];
        debug_assert_eq!(slots[index], slot);
        slots.remove(index);
        if slots.is_empty() {
            self.order.remove(chunk);
        }
        let hash = spread(short(hash_of(&key)));
        if let Ok(entry) = self.index.find_entry(hash, |entry| entry.slot == slot) {
            entry.remove();
        }
        self.slots.remove(slot);
    }

    /// The first location in key order that is not before this key.
    fn lower_bound(&self, key: &[u8]) -> (usize, usize) {
        let before = |slot: &u32| *self.slots.get(*slot).key < *key;
        let chunk = self
            .order
            .partition_point(|slots| slots.last().is_some_and(before));
        let index = self
            .order
            .get(chunk)
            .map_or(0, |slots| slots.partition_point(before));
        (chunk, index)
    }

    /// Passes every row to `see`, for modification.
    pub(crate) fn each_mut(&mut self, mut see: impl FnMut(RowPlace, &mut R)) {
        let slots = self.slots.pages.iter_mut().flatten();
        for (slot, Slot { rows, .. }) in (0..).zip(slots) {
            match rows {
                Windows::Gone => {}
                Windows::Plain(row) => see(
                    RowPlace {
                        slot,
                        window: Window::default(),
                    },
                    row,
                ),
                Windows::Few(few) => few.iter_mut().for_each(|(window, row)| {
                    see(
                        RowPlace {
                            slot,
                            window: *window,
                        },
                        row,
                    )
                }),
                Windows::Many(many) => many.iter_mut().for_each(|(window, row)| {
                    see(
                        RowPlace {
                            slot,
                            window: *window,
                        },
                        row,
                    )
                }),
            }
        }
    }

    /// Iterates over rows from a bound, in order. Bounds may be any bytes.
    pub(crate) fn forward<'a>(&'a self, lower: Bound<&[u8]>) -> impl Iterator<Item = (SmallBytes, &'a R)> {
        let edge = self.edge(lower, RangeEnd::Lower);
        let (chunk, index) = edge.next;
        let split = edge.split.into_iter().flat_map(|(slot, window)| {
            let windows = (window, Bound::Unbounded);
            self.slot_rows(slot, windows)
        });
        let chunks = self.order.iter().skip(chunk).flatten().skip(index);
        split.chain(chunks.flat_map(|slot| self.slot_rows(*slot, ALL)))
    }

    /// Iterates over rows from a bound in reverse order. Bounds may be any bytes.
    pub(crate) fn backward<'a>(&'a self, upper: Bound<&[u8]>) -> impl Iterator<Item = (SmallBytes, &'a R)> {
        let edge = self.edge(upper, RangeEnd::Upper);
        let (chunk, index) = edge.next;
        let split = edge.split.into_iter().flat_map(|(slot, window)| {
            let windows = (Bound::Unbounded, window);
            self.slot_rows(slot, windows).rev()
        });
        let within = self.order.get(chunk).map_or(&[][..], |slots| &slots[..index]);
        let before = self.order[..chunk]
            .iter()
            .rev()
            .flat_map(|slots| slots.iter().rev());
        let slots = within.iter().rev().chain(before);
        split.chain(slots.flat_map(|slot| self.slot_rows(*slot, ALL).rev()))
    }

    /// The starting location of an iteration.
    fn edge(&self, bound: Bound<&[u8]>, side: RangeEnd) -> Edge {
        let (key, included) = match bound {
            Bound::Included(key) => (key, true),
            Bound::Excluded(key) => (key, false),
            Bound::Unbounded => {
                let next = match side {
                    RangeEnd::Lower => (0, 0),
                    RangeEnd::Upper => (self.order.len(), 0),
                };
                return Edge { split: None, next };
            }
        };
        let (chunk, index) = self.lower_bound(key);
        if let Some(slot) = self.order.get(chunk).and_then(|slots| slots.get(index))
            && *self.slots.get(*slot).key == *key
        {
            let is_plain = matches!(self.slots.get(*slot).rows, Windows::Plain(_));
            // The rows of windows come after those of their key without one.
            let passed = match side {
                RangeEnd::Lower => is_plain && !included,
                RangeEnd::Upper => is_plain && included,
            };
            let next = (chunk, index + usize::from(passed));
            return Edge { split: None, next };
        }
        // No key is a prefix of another, so only the previous one can be a prefix of the bound.
        let before = match index.checked_sub(1) {
            Some(index) => Some((chunk, index)),
            None => chunk
                .checked_sub(1)
                .map(|chunk| (chunk, self.order[chunk].len() - 1)),
        };
        let split = before.and_then(|(chunk, index)| {
            let slot = self.order[chunk][index];
            let rest = key.strip_prefix(&*self.slots.get(slot).key)?;
            let is_windowed = !matches!(self.slots.get(slot).rows, Windows::Plain(_));
            is_windowed.then(|| ((chunk, index), slot, window_bound(rest, included, side)))
        });
        match (split, side) {
            (Some((_, slot, window)), RangeEnd::Lower) => Edge {
                split: Some((slot, window)),
                next: (chunk, index),
            },
            (Some((at, slot, window)), RangeEnd::Upper) => Edge {
                split: Some((slot, window)),
                next: at,
            },
            (None, _) => Edge {
                split: None,
                next: (chunk, index),
            },
        }
    }

    fn slot_rows(
        &self,
        slot: u32,
        windows: (Bound<Window>, Bound<Window>),
    ) -> impl DoubleEndedIterator<Item = (SmallBytes, &R)> {
        let Slot { key, rows } = self.slots.get(slot);
        rows.range(windows)
            .map(move |(window, row)| (whole_key(key, window), row))
    }
}

const ALL: (Bound<Window>, Bound<Window>) = (Bound::Unbounded, Bound::Unbounded);

/// Which end of the iteration a bound is.
#[derive(Clone, Copy)]
enum RangeEnd {
    Lower,
    Upper,
}

/// The start of an iteration: some windows of one slot, then in order from this location or (in reverse)
/// before it.
struct Edge {
    split: Option<(u32, Bound<Window>)>,
    next: (usize, usize),
}

/// The window bound that follows a key in a bound: too few or too many bytes lie between windows.
fn window_bound(rest: &[u8], included: bool, side: RangeEnd) -> Bound<Window> {
    let mut window = [0; WINDOW_LEN];
    let len = rest.len().min(WINDOW_LEN);
    window[..len].copy_from_slice(&rest[..len]);
    let included = match rest.len().cmp(&WINDOW_LEN) {
        Ordering::Equal => included,
        Ordering::Less => matches!(side, RangeEnd::Lower),
        Ordering::Greater => matches!(side, RangeEnd::Upper),
    };
    match included {
        true => Bound::Included(Window::of(window)),
        false => Bound::Excluded(Window::of(window)),
    }
}

fn whole_key(own: &SmallBytes, window: Option<Window>) -> SmallBytes {
    match window {
        Some(window) => SmallBytes::joined(own, &window.bytes()),
        None => own.clone(),
    }
}

impl<R> Slots<R> {
    fn get(&self, slot: u32) -> &Slot<R> {
        let slot = slot as usize;
        &self.pages[slot / PAGE][slot % PAGE]
    }

    fn get_mut(&mut self, slot: u32) -> &mut Slot<R> {
        let slot = slot as usize;
        &mut self.pages[slot / PAGE][slot % PAGE]
    }

    fn insert(&mut self, new: Slot<R>) -> u32 {
        if let Some(slot) = self.free.pop() {
            *self.get_mut(slot) = new;
            return slot;
        }
        if self.pages.last().is_none_or(|page| page.len() == PAGE) {
            // A bucket with few rows takes no more than these.
            let room = if self.pages.is_empty() { 1 } else { PAGE };
            self.pages.push(Vec::with_capacity(room));
        }
        let last = self.pages.len() - 1;
        let page = &mut self.pages[last];
        page.push(new);
        u32::try_from(last * PAGE + page.len() - 1).expect("memory holds fewer than 2^32 keys of a bucket")
    }

    fn remove(&mut self, slot: u32) {
        *self.get_mut(slot) = Slot {
            key: SmallBytes::new(&[]),
            rows: Windows::Gone,
        };
        self.free.push(slot);
    }
}

impl<R> Windows<R> {
    /// The location of the newest row.
    fn touch(&self) -> usize {
        match self {
            Self::Few(few) => few.back().map_or(0, |(window, _)| window.0 as usize),
            Self::Gone | Self::Plain(_) | Self::Many(_) => 0,
        }
    }

    fn get(&self, window: Window) -> Option<&R> {
        match self {
            Self::Gone => None,
            Self::Plain(row) => Some(row),
            Self::Few(few) => find(few, window).ok().map(|at| &few[at].1),
            Self::Many(many) => many.get(&window),
        }
    }

    fn get_mut(&mut self, window: Window) -> Option<&mut R> {
        match self {
            Self::Gone => None,
            Self::Plain(row) => Some(row),
            Self::Few(few) => find(few, window).ok().map(|at| &mut few[at].1),
            Self::Many(many) => many.get_mut(&window),
        }
    }

    fn put(&mut self, window: Window, change: impl FnOnce(Option<&mut R>) -> Option<R>) {
        match self {
            Self::Gone => {}
            Self::Plain(row) => _ = change(Some(row)),
            Self::Few(few) => match find(few, window) {
                Ok(at) => _ = change(Some(&mut few[at].1)),
                Err(at) => {
                    let Some(row) = change(None) else { return };
                    if few.len() == FEW_MAX {
                        let mut many: BTreeMap<_, _> = few.drain(..).collect();
                        many.insert(window, row);
                        *self = Self::Many(many);
                        return;
                    }
                    if few.len() == few.capacity() {
                        // Most keys have one or two windows: capacity for four, as `push` allocates, would
                        // take much of a view's memory.
                        few.reserve_exact(few.len().div_ceil(2));
                    }
                    few.insert(at, (window, row));
                }
            },
            Self::Many(many) => match many.get_mut(&window) {
                Some(row) => _ = change(Some(row)),
                None => {
                    if let Some(row) = change(None) {
                        many.insert(window, row);
                    }
                }
            },
        }
    }

    fn remove(&mut self, window: Window) -> Option<R> {
        let (removed, is_last) = match self {
            Self::Gone => return None,
            Self::Plain(_) => match mem::replace(self, Self::Gone) {
                Self::Plain(row) => return Some(row),
                _ => return None,
            },
            Self::Few(few) => {
                let at = find(few, window).ok()?;
                (few.remove(at).map(|(_, row)| row), few.is_empty())
            }
            Self::Many(many) => (many.remove(&window), many.is_empty()),
        };
        if is_last {
            *self = Self::Gone;
        }
        removed
    }

    /// The rows of some windows, in order.
    fn range(
        &self,
        windows: (Bound<Window>, Bound<Window>),
    ) -> impl DoubleEndedIterator<Item = (Option<Window>, &R)> {
        let (mut plain, mut few, mut many) = (None, None, None);
        match self {
            Self::Gone => {}
            Self::Plain(row) => plain = Some((None, row)),
            Self::Few(all) => {
                let start = all.partition_point(|(window, _)| is_before(*window, windows.0));
                let end = all.partition_point(|(window, _)| !is_behind(*window, windows.1));
                few = Some(all.range(start..end));
            }
            Self::Many(all) => many = Some(all.range(windows)),
        }
        let few = few
            .into_iter()
            .flatten()
            .map(|(window, row)| (Some(*window), row));
        let many = many
            .into_iter()
            .flatten()
            .map(|(window, row)| (Some(*window), row));
        plain.into_iter().chain(few).chain(many)
    }
}

/// The index of a window, or where it would be inserted: usually the last one.
fn find<R>(few: &VecDeque<(Window, R)>, window: Window) -> Result<usize, usize> {
    match few.back().map(|(last, _)| last.cmp(&window)) {
        Some(Ordering::Less) | None => Err(few.len()),
        Some(Ordering::Equal) => Ok(few.len() - 1),
        Some(Ordering::Greater) => few.binary_search_by_key(&window, |(window, _)| *window),
    }
}

fn is_before(window: Window, lower: Bound<Window>) -> bool {
    match lower {
        Bound::Included(lower) => window < lower,
        Bound::Excluded(lower) => window <= lower,
        Bound::Unbounded => false,
    }
}

fn is_behind(window: Window, upper: Bound<Window>) -> bool {
    match upper {
        Bound::Included(upper) => window > upper,
        Bound::Excluded(upper) => window >= upper,
        Bound::Unbounded => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A key of one or several letters, terminated so that none is a prefix of another, and its window.
    fn key(own: u8, window: u16, window_len: usize) -> SmallBytes {
        let mut key = vec![b'a' + own % 5; usize::from(own % 3)];
        key.push(own);
        let mut bytes = [0; WINDOW_LEN];
        bytes[6..8].copy_from_slice(&window.to_be_bytes());
        bytes[14..].copy_from_slice(&window.to_be_bytes());
        key.extend_from_slice(&bytes[..window_len]);
        SmallBytes::new(&key)
    }

    fn hash(key: &[u8], window_len: usize) -> u64 {
        hash_of(&key[..key.len() - window_len])
    }

    fn all(rows: &Rows<u32>) -> Vec<(SmallBytes, u32)> {
        rows.forward(Bound::Unbounded).map(|(k, r)| (k, *r)).collect()
    }

    /// Inserts a row and returns its location.
    fn set(rows: &mut Rows<u32>, key: &[u8], value: u32) -> RowPlace {
        let (hash, mut place) = (hash(key, rows.window_len), None);
        for _ in 0..2 {
            rows.put(hash, key, |row| match row {
                Some((at, row)) => {
                    place = Some(at);
                    *row = value;
                    None
                }
                None => Some(value),
            });
        }
        place.expect("the row is there")
    }

    fn check(steps: Vec<(u8, u8, u16, u32)>, asked: (u8, u16, usize, bool), window_len: usize) {
        let (mut rows, mut model, mut places) = (Rows::new(window_len), BTreeMap::new(), BTreeMap::new());
        for (what, own, window, value) in steps {
            let key = key(own, window, window_len);
            if what == 0 {
                let removed = places.remove(&key).and_then(|place| rows.remove(place));
                assert_eq!(removed, model.remove(&key));
            } else {
                places.insert(key.clone(), set(&mut rows, &key, value));
                model.insert(key.clone(), value);
            }
            assert_eq!(rows.get(hash(&key, window_len), &key), model.get(&key));
        }
        for (key, place) in &places {
            assert_eq!(rows.at_mut(*place), model.get_mut(key));
        }
        let model: BTreeMap<SmallBytes, u32> = model;
        assert_eq!(
            all(&rows),
            model.iter().map(|(k, r)| (k.clone(), *r)).collect::<Vec<_>>()
        );
        let (own, window, len, longer) = asked;
        let whole = key(own, window, window_len);
        let cut = &whole[..len.min(whole.len())];
        let asked = if longer {
            [&*whole, &[0]].concat()
        } else {
            cut.to_vec()
        };
        let asked = &*asked;
        for bound in [Bound::Included(asked), Bound::Excluded(asked), Bound::Unbounded] {
            let forward = model.range::<[u8], _>((bound, Bound::Unbounded));
            let backward = model.range::<[u8], _>((Bound::Unbounded, bound)).rev();
            let own = |(k, r): (&SmallBytes, _)| (k.clone(), r);
            assert!(rows.forward(bound).eq(forward.map(own)), "{bound:?}");
            assert!(rows.backward(bound).eq(backward.map(own)), "{bound:?}");
        }
        let mut seen = 0;
        rows.each_mut(|place, row| {
            seen += 1;
            assert!(
                places
                    .values()
                    .any(|other| (other.slot, other.window) == (place.slot, place.window))
            );
            *row = 7;
        });
        assert_eq!(seen, model.len());
        assert!(all(&rows).iter().all(|(_, row)| *row == 7));
    }

    proptest! {
        #[test]
        fn is_a_map(steps in vec((0u8..3, 0u8..9, 0u16..300, any::<u32>()), 0..900),
            asked in (0u8..9, 0u16..300, 0usize..24, any::<bool>()), windowed in any::<bool>()) {
            check(steps, asked, if windowed { WINDOW_LEN } else { 0 });
        }

        #[test]
        fn is_a_map_of_many_keys(steps in vec((0u8..4, any::<u8>(), 0u16..3, any::<u32>()), 0..900),
            asked in (any::<u8>(), 0u16..3, 0usize..24, any::<bool>()), windowed in any::<bool>()) {
            check(steps, asked, if windowed { WINDOW_LEN } else { 0 });
        }
    }

    #[test]
    fn more_windows_and_keys_than_are_kept_in_one_piece() {
        for (owns, windows) in [(2u8, 2 * FEW_MAX as u16 + 9), (255, 9)] {
            let steps =
                |what| (0..windows).flat_map(move |w| (0..owns).map(move |own| (what, own, w, u32::from(w))));
            check(steps(1).collect(), (1, 600, 24, false), WINDOW_LEN);
            // Inserted in reverse order, and half of them removed again.
            let against = steps(1).collect::<Vec<_>>().into_iter().rev();
            let out = steps(0).filter(|(.., value)| value % 2 == 0);
            check(against.chain(out).collect(), (1, 600, 24, false), WINDOW_LEN);
        }
    }

    #[test]
    fn more_keys_than_a_chunk_of_the_order() {
        for order in [1u32, 7919] {
            let mut rows = Rows::new(0);
            let count = 3 * CHUNK_MAX as u32;
            let places: Vec<_> = (0..count)
                .map(|i| set(&mut rows, &(i * order % count).to_be_bytes(), i))
                .collect();
            let keys = |rows: &Rows<u32>| all(rows).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
            let kept = |from: u32| {
                (from..count)
                    .map(|i| SmallBytes::new(&i.to_be_bytes()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(keys(&rows), kept(0));
            for place in places {
                rows.remove(place);
            }
            assert_eq!(
                (keys(&rows), rows.index.len(), rows.order.len()),
                (Vec::new(), 0, 0)
            );
            // Their slots are reused.
            set(&mut rows, b"next", 1);
            assert_eq!(rows.slots.free.len() as u32, count - 1);
        }
    }

    #[test]
    fn a_row_that_is_not_wanted_is_not_put() {
        let mut rows = Rows::new(WINDOW_LEN);
        for unwanted in [
            key(0, 0, WINDOW_LEN),
            key(0, 1, WINDOW_LEN),
            key(9, 9, WINDOW_LEN),
        ] {
            rows.put(hash(&unwanted, WINDOW_LEN), &unwanted, |row| {
                assert!(row.is_none());
                None
            });
            if unwanted == key(0, 0, WINDOW_LEN) {
                set(&mut rows, &unwanted, 1);
            }
        }
        assert_eq!(all(&rows), [(key(0, 0, WINDOW_LEN), 1)]);
    }
}
