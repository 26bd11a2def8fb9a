//! The values of a group and their aggregate, for aggregates that are not invertible.
//!
//! ```text
//!   values     v v v v v v v v │ v v v v v v v v │ v v v          in no order; a hash table says where each is
//!                     ╲                ╲            ╲
//!   level 0            s                s            s   …   s     the aggregate of 8 values each
//!                       ╲___________________________╱
//!   level 1                            s                …   s      the aggregate of 8 states each, and so on
//!   all                                        s                   the aggregate of the last 8 or fewer
//! ```
//!
//! Adding or removing a value recomputes one state per level, so a change of a group of n values costs about
//! 8 × log8(n) folds. The states above the values are a seventh of their number. This is the hierarchical
//! reduction of Materialize, by position instead of hash.

use hashbrown::HashTable;

use crate::operator::aggregate::Aggregate;
use crate::record::{Record, route};

/// How many values or states are folded into one.
const FAN_IN: usize = 8;

/// A multiset of values, and their aggregate.
pub(crate) struct ValueMultiset<T, S> {
    values: Vec<Counted<T>>,
    all: S,
    /// Only used above [`FAN_IN`] values: most groups are small.
    index: Option<Box<Index<S>>>,
}

struct Counted<T> {
    value: T,
    count: isize,
}

struct Index<S> {
    /// Indices into `values`, by the value's hash.
    places: HashTable<u32>,
    levels: Vec<Vec<S>>,
}

impl<T: Record, S: Clone> ValueMultiset<T, S> {
    pub(super) fn new<F: Aggregate<T, State = S>>(fold: &F) -> Self {
        Self {
            values: Vec::new(),
            all: fold.empty(),
            index: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The aggregate of all values.
    pub(super) fn state(&self) -> &S {
        &self.all
    }

    /// Applies net updates; returns false if more of a value is retracted than the multiset holds.
    pub(super) fn apply<F: Aggregate<T, State = S>>(
        &mut self,
        fold: &F,
        updates: &mut dyn Iterator<Item = (T, isize)>,
    ) -> bool {
        // Parts of level 0 to be recomputed.
        let mut changed = Vec::new();
        for (value, diff) in updates {
            match self.find(&value) {
                Some(at) => {
                    changed.push(at / FAN_IN);
                    self.values[at].count += diff;
                    match self.values[at].count {
                        0 => {
                            self.remove(at);
                            changed.push(self.values.len() / FAN_IN);
                        }
                        ..0 => return false,
                        _ => {}
                    }
                }
                None if diff < 0 => return false,
                None => {
                    changed.push(self.values.len() / FAN_IN);
                    self.push(Counted { value, count: diff });
                }
            }
        }
        self.refold(fold, changed);
        self.give_back_room();
        true
    }

    fn find(&self, value: &T) -> Option<usize> {
        let Some(index) = &self.index else {
            return self.values.iter().position(|counted| counted.value == *value);
        };
        let is = |at: &u32| self.values[*at as usize].value == *value;
        index.places.find(route(value), is).map(|at| *at as usize)
    }

    fn push(&mut self, counted: Counted<T>) {
        let hash = route(&counted.value);
        self.values.push(counted);
        let values = &self.values;
        let hash_at = |at: &u32| route(&values[*at as usize].value);
        let place = |at: usize| u32::try_from(at).expect("a group has fewer than four billion values");
        if let Some(index) = &mut self.index {
            index.places.insert_unique(hash, place(values.len() - 1), hash_at);
        } else if values.len() > FAN_IN {
            let mut places = HashTable::with_capacity(values.len());
            for at in (0..values.len()).map(place) {
                places.insert_unique(hash_at(&at), at, hash_at);
            }
            let levels = Vec::new();
            self.index = Some(Box::new(Index { places, levels }));
        }
    }

    /// Removes a value; the last one takes its index.
    fn remove(&mut self, at: usize) {
        let last = self.values.len() - 1;
        if let Some(Index { places, .. }) = self.index.as_deref_mut() {
            let hash = |at: usize| route(&self.values[at].value);
            if let Ok(place) = places.find_entry(hash(at), |place| *place as usize == at) {
                place.remove();
            }
            if let Some(place) = places.find_mut(hash(last), |place| *place as usize == last) {
                *place = at as u32;
            }
        }
        self.values.swap_remove(at);
        if self.values.len() <= FAN_IN {
            self.index = None;
        }
    }

    /// Keeps memory in proportion to the present values, not to past ones.
    fn give_back_room(&mut self) {
        let len = self.values.len();
        if self.values.capacity() <= 4 * len.max(FAN_IN) {
            return;
        }
        let values = &mut self.values;
        values.shrink_to(2 * len);
        if let Some(index) = &mut self.index {
            index
                .places
                .shrink_to(2 * len, |at| route(&values[*at as usize].value));
            index.levels.iter_mut().for_each(Vec::shrink_to_fit);
        }
    }

    /// Recomputes parts of level 0 and the states above them.
    fn refold<F: Aggregate<T, State = S>>(&mut self, fold: &F, mut changed: Vec<usize>) {
        let values = |part: &[Counted<T>]| {
            let mut state = fold.empty();
            part.iter().for_each(|counted| counted.add_to(&mut state, fold));
            state
        };
        let states = |part: &[S]| {
            let mut state = fold.empty();
            part.iter()
                .for_each(|other| fold.merge(&mut state, other.clone()));
            state
        };
        let Some(Index { levels, .. }) = self.index.as_deref_mut() else {
            self.all = values(&self.values);
            return;
        };
        changed.sort_unstable();
        changed.dedup();
        let (mut level, mut len) = (0, self.values.len());
        while len > FAN_IN {
            len = len.div_ceil(FAN_IN);
            if level == levels.len() {
                // A new level has nothing of the unchanged parts.
                levels.push(Vec::new());
                changed = (0..len).collect();
            }
            let (below, these) = levels.split_at_mut(level);
            these[0].resize_with(len, || fold.empty());
            for at in changed.iter().copied().take_while(|at| *at < len) {
                let from = at * FAN_IN;
                these[0][at] = match below.last() {
                    None => values(&self.values[from..self.values.len().min(from + FAN_IN)]),
                    Some(below) => states(&below[from..below.len().min(from + FAN_IN)]),
                };
            }
            changed.iter_mut().for_each(|at| *at /= FAN_IN);
            changed.dedup();
            level += 1;
        }
        levels.truncate(level);
        self.all = states(levels.last().expect("there are more values than fit one part"));
    }
}

impl<T> Counted<T> {
    /// By doubling: a join may produce the same row a million times.
    fn add_to<F: Aggregate<T>>(&self, state: &mut F::State, fold: &F) {
        if self.count == 1 {
            return fold.add(state, &self.value);
        }
        let mut power = fold.empty();
        fold.add(&mut power, &self.value);
        let mut left = self.count;
        while left > 1 {
            if left & 1 == 1 {
                fold.merge(state, power.clone());
            }
            let twice = power.clone();
            fold.merge(&mut power, twice);
            left >>= 1;
        }
        fold.merge(state, power);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::codec::tests::held;

    /// A sum that is not invertible and counts its operations.
    #[derive(Default)]
    pub(super) struct Summed {
        folds: Cell<usize>,
    }

    impl Aggregate<u64> for Summed {
        type State = u128;
        type Out = u128;
        fn empty(&self) -> u128 {
            0
        }
        fn add(&self, state: &mut u128, value: &u64) {
            self.merge(state, u128::from(*value));
        }
        fn merge(&self, state: &mut u128, other: u128) {
            self.folds.set(self.folds.get() + 1);
            *state += other;
        }
        fn finish(&self, state: &u128) -> u128 {
            *state
        }
    }

    fn sum(values: &BTreeMap<u64, isize>) -> u128 {
        values
            .iter()
            .map(|(value, count)| u128::from(*value) * *count as u128)
            .sum()
    }

    /// For each epoch, values to add and some of the present ones to remove: few at first, then many.
    fn epochs() -> impl Strategy<Value = Vec<Vec<(u64, isize)>>> {
        let few = prop::collection::vec((0u64..30, -3isize..=3), 0..10);
        let many = prop::collection::vec((0u64..2_000, -2isize..=2), 0..1_500);
        let none = Just((0..2_000).map(|value| (value, isize::MIN)).collect());
        prop::collection::vec(prop_oneof![3 => few, 2 => many, 1 => none], 1..12)
    }

    proptest! {
        #[test]
        fn the_aggregate_is_that_of_all_values(epochs in epochs()) {
            let fold = Summed::default();
            let (mut values, mut all) = (ValueMultiset::new(&fold), BTreeMap::new());
            for epoch in epochs {
                let mut updates: BTreeMap<u64, isize> = BTreeMap::new();
                for (value, diff) in epoch {
                    let there = *all.entry(value).or_insert(0);
                    let diff = updates.get(&value).copied().unwrap_or(0).saturating_add(diff);
                    updates.insert(value, diff.max(-there));
                }
                updates.retain(|_, diff| *diff != 0);
                updates.iter().for_each(|(value, diff)| *all.entry(*value).or_insert(0) += diff);
                all.retain(|_, count| *count != 0);
                prop_assert!(values.apply(&fold, &mut updates.into_iter()));
                prop_assert_eq!(*values.state(), sum(&all));
                prop_assert_eq!(values.is_empty(), all.is_empty());
            }
            if let Some((value, count)) = all.into_iter().next() {
                prop_assert!(!values.apply(&fold, &mut [(value, -count - 1)].into_iter()), "more than there are");
            }
        }
    }

    #[test]
    fn a_group_that_grows_one_by_one_loses_nothing_at_a_new_level() {
        let fold = Summed::default();
        let mut values = ValueMultiset::new(&fold);
        for n in 1..=5_000u64 {
            assert!(values.apply(&fold, &mut [(n, 1)].into_iter()));
            assert_eq!(*values.state(), u128::from(n * (n + 1) / 2), "{n} values");
        }
    }

    #[test]
    fn a_change_costs_about_the_logarithm_of_a_group() {
        let fold = Summed::default();
        let mut values = ValueMultiset::new(&fold);
        let n = 300_000;
        values.apply(&fold, &mut (0..n).map(|value| (value, 1)));
        assert!(fold.folds.take() < 2 * n as usize, "loading is linear");
        let folds_max = 8 * n.ilog2() as usize;
        for value in 0..1_000 {
            // Any value, and the least and the greatest.
            let gone = [value, n - 1 - value, value * 7_919 % n][value as usize % 3];
            assert!(values.apply(&fold, &mut [(gone, -1), (n + value, 1)].into_iter()));
            let folds = fold.folds.take();
            assert!(folds < folds_max, "{folds} folds");
            values.apply(&fold, &mut [(gone, 1), (n + value, -1)].into_iter());
            assert!(fold.folds.take() < folds_max);
        }
    }

    #[test]
    fn a_row_that_is_there_many_times_costs_the_logarithm_of_its_count() {
        let fold = Summed::default();
        let mut values = ValueMultiset::new(&fold);
        assert!(values.apply(&fold, &mut [(7, 1_000_000_007), (8, 1)].into_iter()));
        assert_eq!(*values.state(), 7 * 1_000_000_007 + 8);
        assert!(fold.folds.take() < 100);
    }

    #[test]
    fn memory_follows_the_values_that_are_there() {
        let fold = Summed::default();
        // In groups of any size, and in one that was large before.
        for size in [1, 8, 9, 100, 100_000] {
            let before = held();
            let mut groups = Vec::with_capacity(100_000 / size);
            for _ in 0..100_000 / size {
                let mut values = ValueMultiset::new(&fold);
                values.apply(&fold, &mut (0..size as u64).map(|value| (value, 1)));
                groups.push(values);
            }
            let bytes = (held() - before) / 100_000;
            // A single group takes 48 bytes, and capacity for at least four values.
            assert!(bytes <= 128, "{bytes} bytes a value in groups of {size}");
        }
        let before = held();
        let mut values = ValueMultiset::new(&fold);
        values.apply(&fold, &mut (0..100_000).map(|value| (value, 1)));
        values.apply(&fold, &mut (0..99_900).map(|value| (value, -1)));
        assert!(
            held() - before < 100 * 128,
            "{} bytes for 100 values",
            held() - before
        );
    }
}
