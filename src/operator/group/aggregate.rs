//! Aggregates of groups.
//!
//! An invertible aggregate (count, sum, average) keeps one state per group. Others (minimum, maximum) also
//! keep the group's values in a tree of partial aggregates, of which a change recomputes few.

use crate::operator::aggregate::Aggregate;
use crate::operator::group::values::ValueMultiset;
use crate::operator::group::{Grouping, InvalidGroup};
use crate::record::{Change, Record};

/// One row per group: its aggregate.
pub(crate) struct Aggregated<F>(pub F);

pub(crate) enum GroupState<T, S> {
    /// The state of an invertible aggregate, and its number of values.
    State(S, isize),
    /// The values of an aggregate that is not invertible.
    Values(ValueMultiset<T, S>),
}

impl<K: Record, T: Record, F: Aggregate<T>> Grouping<K, T> for Aggregated<F> {
    type State = GroupState<T, F::State>;
    type Key = K;
    type Value = F::Out;

    fn empty(&self) -> Self::State {
        if self.0.undoes() {
            GroupState::State(self.0.empty(), 0)
        } else {
            GroupState::Values(ValueMultiset::new(&self.0))
        }
    }

    fn apply(
        &self,
        key: &K,
        group: &mut Self::State,
        updates: &mut dyn Iterator<Item = (T, isize)>,
        give: &mut dyn FnMut(Change<K, F::Out>),
    ) -> Result<bool, InvalidGroup> {
        let old = group.result(&self.0);
        if !group.apply(&self.0, updates) {
            return Err(InvalidGroup::Negative);
        }
        let new = group.result(&self.0);
        let is_left = new.is_some();
        if old != new {
            let key = key.clone();
            give(Change { key, old, new });
        }
        Ok(is_left)
    }
}

impl<T: Record, S: Clone> GroupState<T, S> {
    /// The group's row, unless the group is empty.
    fn result<F: Aggregate<T, State = S>>(&self, fold: &F) -> Option<F::Out> {
        match self {
            GroupState::State(_, 0) => None,
            GroupState::State(state, _) => Some(fold.finish(state)),
            GroupState::Values(values) if values.is_empty() => None,
            GroupState::Values(values) => Some(fold.finish(values.state())),
        }
    }

    /// Applies an epoch's net updates; returns false if more is retracted than the group holds.
    fn apply<F: Aggregate<T, State = S>>(
        &mut self,
        fold: &F,
        updates: &mut dyn Iterator<Item = (T, isize)>,
    ) -> bool {
        let (state, size) = match self {
            GroupState::State(state, size) => (state, size),
            GroupState::Values(values) => return values.apply(fold, updates),
        };
        for (value, diff) in updates {
            *size += diff;
            for _ in 0..diff {
                fold.add(state, &value);
            }
            for _ in diff..0 {
                fold.undo(state, &value);
            }
        }
        *size >= 0
    }
}
