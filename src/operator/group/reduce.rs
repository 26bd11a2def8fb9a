//! An arbitrary function of a group's rows.

use crate::operator::group::{Grouping, InvalidGroup};
use crate::record::{Change, Record};

/// One row per group: the result of a function that reads all rows at every change.
pub(crate) struct Reduced<F>(pub F);

/// Rows in order, each with its multiplicity.
type Rows<T> = Vec<(T, u64)>;

impl<K: Record, T: Record, R: Record, F> Grouping<K, T> for Reduced<F>
where
    F: Fn(&K, &[(T, u64)]) -> R + 'static,
{
    type State = (Rows<T>, Option<R>);
    type Key = K;
    type Value = R;

    fn empty(&self) -> Self::State {
        (Vec::new(), None)
    }

    fn apply(
        &self,
        key: &K,
        (rows, row): &mut Self::State,
        updates: &mut dyn Iterator<Item = (T, isize)>,
        give: &mut dyn FnMut(Change<K, R>),
    ) -> Result<bool, InvalidGroup> {
        // Updates arrive in the order of rows, so they are merged: an insertion does not move the others.
        let mut merged = Vec::with_capacity(rows.len() + updates.size_hint().0);
        let mut before = std::mem::take(rows).into_iter().peekable();
        for (value, diff) in updates {
            while let Some(other) = before.next_if(|(other, _)| *other < value) {
                merged.push(other);
            }
            let was = before.next_if(|(other, _)| *other == value).map_or(0, |(_, n)| n);
            match was.checked_add_signed(diff as i64) {
                None => return Err(InvalidGroup::Negative),
                Some(0) => {}
                Some(n) => merged.push((value, n)),
            }
        }
        merged.extend(before);
        *rows = merged;
        let new = (!rows.is_empty()).then(|| (self.0)(key, rows));
        let old = std::mem::replace(row, new.clone());
        if old != new {
            let key = key.clone();
            give(Change { key, old, new });
        }
        Ok(!rows.is_empty())
    }
}
