//! The rows of a bucket in the order of their keys, in runs of neighbours that differ by their window alone.
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
//! windows of all keys. Keys without windows make runs of one, which is a plain map.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound;

use crate::schema::small::SmallBytes;

/// Rows of a run: few enough that putting one into the middle is cheap.
const RUN_MAX: usize = 64;

/// A map from encoded keys to rows `R`.
pub(crate) struct Rows<R> {
    /// By a key that is no greater than the run's first, and greater than all of the run before.
    runs: BTreeMap<SmallBytes, Run<R>>,
    /// So many bytes at the end of a key tell it from its neighbours in a run: the window's.
    own_len: usize,
}

enum Run<R> {
    /// A row whose key is the one in the tree.
    One(R),
    /// Never empty.
    Many(Box<Many<R>>),
}

struct Many<R> {
    keys: VecDeque<SmallBytes>,
    rows: VecDeque<R>,
}

impl<R> Run<R> {
    fn iter<'a>(&'a self, key: &'a SmallBytes) -> impl DoubleEndedIterator<Item = (&'a SmallBytes, &'a R)> {
        let (one, many) = match self {
            Run::One(row) => (Some((key, row)), None),
            Run::Many(many) => (None, Some(many.keys.iter().zip(&many.rows))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

impl<R> Many<R> {
    /// Where the key is, or where it would be.
    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        match self.keys.back().map(|last| (**last).cmp(key)) {
            Some(Ordering::Less) => Err(self.keys.len()),
            Some(Ordering::Equal) => Ok(self.keys.len() - 1),
            _ => self.keys.binary_search_by(|other| (**other).cmp(key)),
        }
    }

    fn insert(&mut self, at: usize, key: SmallBytes, row: R) {
        self.keys.insert(at, key);
        self.rows.insert(at, row);
    }
}

impl<R> Rows<R> {
    /// `own_len`: how many bytes at the end of a key are its window.
    pub(crate) fn new(own_len: usize) -> Self {
        Self {
            runs: BTreeMap::new(),
            own_len,
        }
    }

    /// The last run that may hold the key.
    fn run(&self, key: &[u8]) -> Option<(&SmallBytes, &Run<R>)> {
        self.runs.range::<[u8], _>(upto(key)).next_back()
    }

    fn run_mut(&mut self, key: &[u8]) -> Option<(&SmallBytes, &mut Run<R>)> {
        self.runs.range_mut::<[u8], _>(upto(key)).next_back()
    }

    /// The row of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&R> {
        let (first, run) = self.run(key)?;
        match run {
            Run::One(row) => (**first == *key).then_some(row),
            Run::Many(many) => many.find(key).ok().map(|at| &many.rows[at]),
        }
    }

    /// Shows `change` the row of a key; if there is none, puts one there if it returns one.
    pub(crate) fn put(
        &mut self,
        key: SmallBytes,
        change: impl FnOnce(&SmallBytes, Option<&mut R>) -> Option<R>,
    ) {
        let own_len = self.own_len;
        let Some((first, run)) = self.run_mut(&key) else {
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
            && let Some((first, run)) = run.add(first, at, key, row, own_len)
        {
            self.runs.insert(first, run);
        }
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<R> {
        let (first, run) = self.run_mut(key)?;
        if let Run::Many(many) = run {
            let at = many.find(key).ok()?;
            if many.keys.len() > 1 {
                many.keys.remove(at);
                return many.rows.remove(at);
            }
        } else if **first != *key {
            return None;
        }
        let first = first.clone();
        match self.runs.remove(&first)? {
            Run::One(row) => Some(row),
            Run::Many(many) => many.rows.into_iter().next(),
        }
    }

    /// The row of a key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut R> {
        let (first, run) = self.run_mut(key)?;
        match run {
            Run::One(row) => (**first == *key).then_some(row),
            Run::Many(many) => many.find(key).ok().map(|at| &mut many.rows[at]),
        }
    }

    /// Shows every row to `see`, to be changed.
    pub(crate) fn each_mut(&mut self, mut see: impl FnMut(&SmallBytes, &mut R)) {
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
    pub(crate) fn forward<'a>(
        &'a self,
        lower: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a SmallBytes, &'a R)> {
        let first = match lower {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => self.run(key),
        };
        let runs = match first {
            Some((first, _)) => self
                .runs
                .range::<[u8], _>((Bound::Included(&**first), Bound::Unbounded)),
            None => self.runs.range::<[u8], _>((Bound::Unbounded, Bound::Unbounded)),
        };
        let before = move |key: &[u8]| match lower {
            Bound::Unbounded => false,
            Bound::Included(bound) => key < bound,
            Bound::Excluded(bound) => key <= bound,
        };
        runs.flat_map(|(first, run)| run.iter(first))
            .skip_while(move |(key, _)| before(key))
    }

    /// Rows from a bound back, against their order.
    pub(crate) fn backward<'a>(
        &'a self,
        upper: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a SmallBytes, &'a R)> {
        let runs = match upper {
            Bound::Unbounded => self.runs.range::<[u8], _>((Bound::Unbounded, Bound::Unbounded)),
            Bound::Included(key) | Bound::Excluded(key) => self.runs.range::<[u8], _>(upto(key)),
        };
        let behind = move |key: &[u8]| match upper {
            Bound::Unbounded => false,
            Bound::Included(bound) => key > bound,
            Bound::Excluded(bound) => key >= bound,
        };
        runs.rev()
            .flat_map(|(first, run)| run.iter(first).rev())
            .skip_while(move |(key, _)| behind(key))
    }
}

fn upto(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

/// A key without the bytes that are its window's; what is nothing else has no neighbours.
fn without_own(key: &[u8], own_len: usize) -> Option<&[u8]> {
    let len = key.len().checked_sub(own_len)?;
    (own_len > 0 && len > 0).then_some(&key[..len])
}

impl<R> Run<R> {
    /// Adds a row where it belongs, or returns a run that is to follow this one.
    fn add(
        &mut self,
        first: &SmallBytes,
        at: usize,
        key: SmallBytes,
        row: R,
        own_len: usize,
    ) -> Option<(SmallBytes, Self)> {
        let len = match self {
            Run::One(_) => 1,
            Run::Many(many) => many.keys.len(),
        };
        let behind = at == len;
        let neighbours = || {
            let own = without_own(&key, own_len);
            own.is_some() && own == without_own(first, own_len)
        };
        if behind && (len == RUN_MAX || !neighbours()) {
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
    fn many(&mut self, first: &SmallBytes) -> &mut Many<R> {
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

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The last byte is the window.
    fn key(a: u8, b: u8) -> SmallBytes {
        SmallBytes::new(&[a, b])
    }

    fn all(rows: &Rows<u32>) -> Vec<(SmallBytes, u32)> {
        rows.forward(Bound::Unbounded)
            .map(|(k, r)| (k.clone(), *r))
            .collect()
    }

    proptest! {
        #[test]
        fn is_a_map(steps in vec((0u8..4, 0u8..6, any::<u8>(), any::<u32>()), 0..1_500), asked in (0u8..6, any::<u8>()),
            own_len in 0usize..3) {
            let (mut rows, mut model) = (Rows::new(own_len), BTreeMap::new());
            for (what, a, b, value) in steps {
                let key = key(a, b);
                if what == 0 {
                    prop_assert_eq!(rows.remove(&key), model.remove(&key));
                } else {
                    rows.put(key.clone(), |_, row| match row {
                        Some(row) => { *row = value; None }
                        None => Some(value),
                    });
                    model.insert(key.clone(), value);
                }
                prop_assert_eq!(rows.get(&key), model.get(&key));
                prop_assert_eq!(rows.get_mut(&key), model.get_mut(&key));
            }
            prop_assert_eq!(all(&rows), model.iter().map(|(k, r)| (k.clone(), *r)).collect::<Vec<_>>());
            let asked = key(asked.0, asked.1);
            prop_assert_eq!(rows.get(&asked), model.get(&asked));
            for bound in [Bound::Included(&*asked), Bound::Excluded(&*asked), Bound::Unbounded] {
                prop_assert!(rows.forward(bound).eq(model.range::<[u8], _>((bound, Bound::Unbounded))));
                prop_assert!(rows.backward(bound).eq(model.range::<[u8], _>((Bound::Unbounded, bound)).rev()));
            }
        }
    }

    #[test]
    fn a_row_that_is_not_wanted_is_not_put() {
        let mut rows = Rows::new(1);
        for unwanted in [key(0, 0), key(0, 1), key(9, 9)] {
            rows.put(unwanted, |_, row| {
                assert!(row.is_none());
                None
            });
            rows.put(key(0, 0), |_, _| Some(1));
        }
        assert_eq!(all(&rows), [(key(0, 0), 1)]);
    }

    #[test]
    fn windows_of_a_key_share_runs() {
        let mut rows = Rows::new(1);
        for window in 0..200 {
            for own in 0..3 {
                rows.put(key(own, window), |_, _| Some(0));
            }
        }
        assert_eq!(rows.runs.len(), 3 * 200usize.div_ceil(RUN_MAX));
    }
}
