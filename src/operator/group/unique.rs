//! Groups of at most one row: turns a collection of pairs into a table.
//!
//! The row is kept, because a second one may arrive in a later epoch.

use crate::operator::group::{Grouping, InvalidGroup};
use crate::record::{Change, Record};

/// The row of each key.
pub(crate) struct Unique;

impl<K: Record, V: Record> Grouping<K, V> for Unique {
    type State = Option<V>;
    type Key = K;
    type Value = V;

    fn empty(&self) -> Option<V> {
        None
    }

    fn apply(
        &self,
        key: &K,
        row: &mut Option<V>,
        updates: &mut dyn Iterator<Item = (V, isize)>,
        give: &mut dyn FnMut(Change<K, V>),
    ) -> Result<bool, InvalidGroup> {
        let (old, mut new, mut is_gone) = (row.clone(), None, false);
        for (value, diff) in updates {
            match diff {
                1 if new.is_none() => new = Some(value),
                1.. => return Err(InvalidGroup::SeveralRows),
                -1 if old.as_ref() == Some(&value) => is_gone = true,
                _ => return Err(InvalidGroup::Negative),
            }
        }
        match (&new, &old) {
            (Some(_), Some(_)) if !is_gone => return Err(InvalidGroup::SeveralRows),
            (None, _) if !is_gone => return Ok(old.is_some()),
            _ => {}
        }
        row.clone_from(&new);
        let (key, is_left) = (key.clone(), new.is_some());
        give(Change { key, old, new });
        Ok(is_left)
    }
}
