//! The first rows of each group in a given order.
//!
//! A group's rows are kept in a tree in that order. A change finds its place in time logarithmic in the
//! group's size; then the first `k` rows are compared with the previous ones.

use std::collections::BTreeMap;

use crate::operator::group::{Grouping, InvalidGroup};
use crate::record::{Change, Ranked, Record};

/// A row for each of the first `k` ranks of a group, as ordered by `order`; ties are broken by the smaller
/// row.
pub(crate) struct TopK<F> {
    pub k: u32,
    pub order: F,
}

impl<K: Record, T: Record, O: Ord + 'static, F: Fn(&T) -> O + 'static> Grouping<K, T> for TopK<F> {
    /// The multiplicity of each row.
    type State = BTreeMap<(O, T), u64>;
    type Key = Ranked<K>;
    type Value = T;

    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }

    fn apply(
        &self,
        key: &K,
        rows: &mut Self::State,
        updates: &mut dyn Iterator<Item = (T, isize)>,
        give: &mut dyn FnMut(Change<Ranked<K>, T>),
    ) -> Result<bool, InvalidGroup> {
        let first = |rows: &Self::State| -> Vec<T> {
            let each = |((_, row), n): (&(O, T), &u64)| {
                let times = (*n).min(u64::from(self.k)) as usize;
                std::iter::repeat_n(row.clone(), times)
            };
            rows.iter().flat_map(each).take(self.k as usize).collect()
        };
        let old = first(rows);
        for (row, diff) in updates {
            let place = ((self.order)(&row), row);
            let was = rows.get(&place).copied().unwrap_or(0);
            match was.checked_add_signed(diff as i64) {
                None => return Err(InvalidGroup::Negative),
                Some(0) => _ = rows.remove(&place),
                Some(n) => _ = rows.insert(place, n),
            }
        }
        let (mut old, mut new) = (old.into_iter(), first(rows).into_iter());
        for rank in 1..=self.k {
            let (old, new) = (old.next(), new.next());
            if old.is_none() && new.is_none() {
                break;
            }
            if old != new {
                let key = Ranked {
                    key: key.clone(),
                    rank,
                };
                give(Change { key, old, new });
            }
        }
        Ok(!rows.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::cmp::{Ordering, Reverse};

    use serde::{Deserialize, Serialize};

    use super::*;

    /// A row that counts its comparisons.
    #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    struct Row(u64);
    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }
    impl Ord for Row {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARED.with(|compared| compared.set(compared.get() + 1));
            self.0.cmp(&other.0)
        }
    }
    impl PartialOrd for Row {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    /// Applies updates to one group, and returns the changes.
    fn apply<F: Fn(&Row) -> Reverse<Row> + 'static>(
        top: &TopK<F>,
        rows: &mut BTreeMap<(Reverse<Row>, Row), u64>,
        updates: impl IntoIterator<Item = (u64, isize)>,
    ) -> Vec<(u32, Option<u64>, Option<u64>)> {
        let mut changes = Vec::new();
        let mut updates = updates.into_iter().map(|(row, diff)| (Row(row), diff));
        let given = Grouping::<(), Row>::apply(top, &(), rows, &mut updates, &mut |change: Change<
            Ranked<()>,
            Row,
        >| {
            changes.push((
                change.key.rank,
                change.old.map(|row| row.0),
                change.new.map(|row| row.0),
            ));
        });
        assert!(given.is_ok(), "no more is taken out than there is");
        changes
    }

    #[test]
    fn a_change_costs_about_the_logarithm_of_a_group() {
        let top = TopK {
            k: 3,
            order: |row: &Row| Reverse(row.clone()),
        };
        let (mut rows, n) = (BTreeMap::new(), 300_000);
        apply(&top, &mut rows, (0..n).map(|row| (row, 1)));
        for row in 0..1_000u64 {
            // Any row, and the first and the last.
            let gone = [row, n - 1 - row, row * 7_919 % n][row as usize % 3];
            COMPARED.set(0);
            apply(&top, &mut rows, [(gone, -1), (n + row, 1)]);
            apply(&top, &mut rows, [(n + row, -1), (gone, 1)]);
            let compared = COMPARED.take();
            assert!(compared < 1_000, "{compared} comparisons");
        }
    }

    #[test]
    fn only_ranks_that_change_are_given() {
        let top = TopK {
            k: 3,
            order: |row: &Row| Reverse(row.clone()),
        };
        let mut rows = BTreeMap::new();
        let first = apply(&top, &mut rows, [(10, 2), (5, 1), (1, 1)]);
        assert_eq!(
            first,
            [(1, None, Some(10)), (2, None, Some(10)), (3, None, Some(5))]
        );
        assert!(apply(&top, &mut rows, [(1, -1), (2, 1)]).is_empty());
        assert_eq!(apply(&top, &mut rows, [(7, 1)]), [(3, Some(5), Some(7))]);
        assert_eq!(
            apply(&top, &mut rows, [(10, -2), (7, -1), (5, -1)]),
            [(1, Some(10), Some(2)), (2, Some(10), None), (3, Some(7), None)]
        );
        let mut too_many = [(Row(2), -2)].into_iter();
        let given = Grouping::<(), Row>::apply(&top, &(), &mut rows, &mut too_many, &mut |_| ());
        assert!(given.is_err());
    }
}
