//! The rows of a bucket in the order of their keys, in runs of neighbours that are routed alike.
//!
//! ```text
//!  BTreeMap      (a, 0s) ─▶ many   keys (a,  0s) (a, 10s) (a, 20s)          the windows of key a: the next one is
//!                                  rows    …        …        …              put behind the last
//!                (b, 0s) ─▶ one    row
//!                (c, 0s) ─▶ many   keys (c, 10s) (c, 20s)                   (c, 0s) expired; its key still bounds the run
//! ```
//!
//! Nearly all that is written to a windowed view is the newest window of some key, next to that key's other windows: to
//! find the key among keys, and then the end of its run, touches far less memory than to find the window among all
//! windows of all keys. Keys that are alone where they are routed to make runs of one, which is a plain map.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound;

use crate::record::{Record, route};

/// Rows of a run: few enough that putting one into the middle is cheap.
const RUN_MAX: usize = 64;

/// A map from keys to rows `R`.
pub(crate) struct Rows<K, R> {
    /// By a key that is no greater than the run's first, and greater than all of the run before.
    runs: BTreeMap<K, Run<K, R>>,
}

enum Run<K, R> {
    /// A row whose key is the one in the tree.
    One(R),
    /// Never empty.
    Many(Box<Many<K, R>>),
}

struct Many<K, R> {
    keys: VecDeque<K>,
    rows: VecDeque<R>,
}

impl<K, R> Run<K, R> {
    fn iter<'a>(&'a self, key: &'a K) -> impl DoubleEndedIterator<Item = (&'a K, &'a R)> {
        let (one, many) = match self {
            Run::One(row) => (Some((key, row)), None),
            Run::Many(many) => (None, Some(many.keys.iter().zip(&many.rows))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

impl<K: Ord, R> Many<K, R> {
    /// Where the key is, or where it would be.
    fn find(&self, key: &K) -> Result<usize, usize> {
        match self.keys.back() {
            Some(last) if last < key => Err(self.keys.len()),
            Some(last) if last == key => Ok(self.keys.len() - 1),
            _ => self.keys.binary_search(key),
        }
    }

    fn insert(&mut self, at: usize, key: K, row: R) {
        self.keys.insert(at, key);
        self.rows.insert(at, row);
    }
}

impl<K: Record, R> Rows<K, R> {
    pub(crate) fn new() -> Self {
        Self {
            runs: BTreeMap::new(),
        }
    }

    /// The row of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&R> {
        let (first, run) = self.runs.range(..=key).next_back()?;
        match run {
            Run::One(row) => (first == key).then_some(row),
            Run::Many(many) => many.find(key).ok().map(|at| &many.rows[at]),
        }
    }

    /// Shows `change` the row of a key; if there is none, puts one there if it returns one.
    pub(crate) fn put(&mut self, key: K, change: impl FnOnce(&K, Option<&mut R>) -> Option<R>) {
        let Some((first, run)) = self.runs.range_mut(..=&key).next_back() else {
            if let Some(row) = change(&key, None) {
                self.runs.insert(key, Run::One(row));
            }
            return;
        };
        let at = match run {
            Run::One(row) if *first == key => {
                change(&key, Some(row));
                return;
            }
            Run::One(_) => 1,
            Run::Many(many) => match many.find(&key) {
                Ok(at) => {
                    change(&key, Some(&mut many.rows[at]));
                    return;
                }
                Err(at) => at,
            },
        };
        if let Some(row) = change(&key, None)
            && let Some((first, run)) = run.add(first, at, key, row)
        {
            self.runs.insert(first, run);
        }
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, key: &K) -> Option<R> {
        let (first, run) = self.runs.range_mut(..=key).next_back()?;
        if let Run::Many(many) = run {
            let at = many.find(key).ok()?;
            if many.keys.len() > 1 {
                many.keys.remove(at);
                return many.rows.remove(at);
            }
        } else if first != key {
            return None;
        }
        let first = first.clone();
        match self.runs.remove(&first)? {
            Run::One(row) => Some(row),
            Run::Many(many) => many.rows.into_iter().next(),
        }
    }

    /// The row of a key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut R> {
        let (first, run) = self.runs.range_mut(..=key).next_back()?;
        match run {
            Run::One(row) => (first == key).then_some(row),
            Run::Many(many) => many.find(key).ok().map(|at| &mut many.rows[at]),
        }
    }

    /// Shows every row to `see`, to be changed.
    pub(crate) fn each_mut(&mut self, mut see: impl FnMut(&K, &mut R)) {
        for (first, run) in &mut self.runs {
            match run {
                Run::One(row) => see(first, row),
                Run::Many(many) => many
                    .keys
                    .iter()
                    .zip(&mut many.rows)
                    .for_each(|(key, row)| see(key, row)),
            }
        }
    }

    /// Rows from a bound on, in order.
    pub(crate) fn forward<'a>(&'a self, lower: Bound<&'a K>) -> impl Iterator<Item = (&'a K, &'a R)> {
        let first = match lower {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => self.runs.range(..=key).next_back(),
        };
        let runs = match first {
            Some((first, _)) => self.runs.range(first..),
            None => self.runs.range(..),
        };
        let before = move |key: &K| match lower {
            Bound::Unbounded => false,
            Bound::Included(bound) => key < bound,
            Bound::Excluded(bound) => key <= bound,
        };
        runs.flat_map(|(first, run)| run.iter(first))
            .skip_while(move |(key, _)| before(key))
    }

    /// Rows from a bound back, against their order.
    pub(crate) fn backward<'a>(&'a self, upper: Bound<&'a K>) -> impl Iterator<Item = (&'a K, &'a R)> {
        let runs = match upper {
            Bound::Unbounded => self.runs.range(..),
            Bound::Included(key) | Bound::Excluded(key) => self.runs.range(..=key),
        };
        let behind = move |key: &K| match upper {
            Bound::Unbounded => false,
            Bound::Included(bound) => key > bound,
            Bound::Excluded(bound) => key >= bound,
        };
        runs.rev()
            .flat_map(|(first, run)| run.iter(first).rev())
            .skip_while(move |(key, _)| behind(key))
    }
}

impl<K: Record, R> Run<K, R> {
    /// Adds a row where it belongs, or returns a run that is to follow this one.
    fn add(&mut self, first: &K, at: usize, key: K, row: R) -> Option<(K, Self)> {
        let len = match self {
            Run::One(_) => 1,
            Run::Many(many) => many.keys.len(),
        };
        let behind = at == len;
        if behind && (len == RUN_MAX || route(first) != route(&key)) {
            return Some((key, Run::One(row)));
        }
        let many = self.many(first);
        if len < RUN_MAX {
            many.insert(at, key, row);
            return None;
        }
        let half = len / 2;
        let mut upper = Many {
            keys: many.keys.split_off(half),
            rows: many.rows.split_off(half),
        };
        if at <= half {
            many.insert(at, key, row);
        } else {
            upper.insert(at - half, key, row);
        }
        Some((upper.keys[0].clone(), Run::Many(Box::new(upper))))
    }

    /// The run's rows, made several if it was one.
    fn many(&mut self, first: &K) -> &mut Many<K, R> {
        if let Run::One(_) = self {
            let many = Many {
                keys: VecDeque::with_capacity(4),
                rows: VecDeque::with_capacity(4),
            };
            if let Run::One(row) = mem::replace(self, Run::Many(Box::new(many))) {
                self.many(first).insert(0, first.clone(), row);
            }
        }
        match self {
            Run::Many(many) => many,
            Run::One(_) => unreachable!("was just made many"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// Routed by its first part alone, as windows are, or by a part that their order does not begin with.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    struct Key(u8, u8);

    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            let Key(a, b) = *self;
            if a < 4 { a.hash(state) } else { (b % 3).hash(state) }
        }
    }

    fn all(rows: &Rows<Key, u32>) -> Vec<(Key, u32)> {
        rows.forward(Bound::Unbounded).map(|(k, r)| (*k, *r)).collect()
    }

    proptest! {
        #[test]
        fn is_a_map(steps in vec((0u8..4, 0u8..6, any::<u8>(), any::<u32>()), 0..1_500), asked in (0u8..6, any::<u8>())) {
            let (mut rows, mut model) = (Rows::new(), BTreeMap::new());
            for (what, a, b, value) in steps {
                let key = Key(a, b);
                if what == 0 {
                    prop_assert_eq!(rows.remove(&key), model.remove(&key));
                } else {
                    rows.put(key, |_, row| match row {
                        Some(row) => { *row = value; None }
                        None => Some(value),
                    });
                    model.insert(key, value);
                }
                prop_assert_eq!(rows.get(&key), model.get(&key));
                prop_assert_eq!(rows.get_mut(&key), model.get_mut(&key));
            }
            prop_assert_eq!(all(&rows), model.iter().map(|(k, r)| (*k, *r)).collect::<Vec<_>>());
            let asked = Key(asked.0, asked.1);
            prop_assert_eq!(rows.get(&asked), model.get(&asked));
            for bound in [Bound::Included(&asked), Bound::Excluded(&asked), Bound::Unbounded] {
                prop_assert!(rows.forward(bound).eq(model.range((bound, Bound::Unbounded))));
                prop_assert!(rows.backward(bound).eq(model.range((Bound::Unbounded, bound)).rev()));
            }
        }
    }

    #[test]
    fn a_row_that_is_not_wanted_is_not_put() {
        let mut rows = Rows::new();
        for key in [Key(0, 0), Key(0, 1), Key(9, 9)] {
            rows.put(key, |_, row| {
                assert!(row.is_none());
                None
            });
            rows.put(Key(0, 0), |_, _| Some(1));
        }
        assert_eq!(all(&rows), [(Key(0, 0), 1)]);
    }

    #[test]
    fn windows_of_a_key_share_runs() {
        let mut rows = Rows::new();
        for window in 0..200 {
            for key in 0..3 {
                rows.put(Key(key, window), |_, _| Some(0));
            }
        }
        assert_eq!(rows.runs.len(), 3 * 200usize.div_ceil(RUN_MAX));
    }
}
