//! The trigger: when a window's row is emitted, and when it is retracted.
//!
//! ```text
//!   window [ start … end )      its row follows each epoch that changes it
//!   closed ≥ end                nothing changes it any more
//!   closed ≥ end + keep         it is retracted
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::panes::ExpiredPane;
use crate::operator::aggregate::Aggregate;
use crate::operator::process::{Changes, EpochInfo};
use crate::record::Record;
use crate::time::{EventTime, Window, Windowed};

/// Emits every change of a window in its epoch.
pub(super) struct Trigger<F> {
    pub(super) fold: Rc<F>,
    /// How long a window's row stays after it closed.
    pub(super) keep: RowRetention,
}

/// How long a window's row stays after it closed.
#[derive(Clone)]
pub(crate) struct RowRetention {
    pub(crate) for_: Duration,
    /// Whether a row stays in the epoch in which its window closed, even if the retention is shorter: known
    /// once the dataflow is built.
    pub(crate) when_closed: Rc<Cell<bool>>,
}

impl RowRetention {
    /// Windows that end at or before this are retracted.
    pub(super) fn expires(&self, at: &EpochInfo) -> EventTime {
        let expires = at.closed.minus(self.for_);
        match self.when_closed.get() {
            true => expires.min(at.closed_before),
            false => expires,
        }
    }
}

impl<F> Trigger<F> {
    /// The row of an aggregate.
    pub(super) fn row<T>(&self, state: &F::State) -> Option<F::Out>
    where
        F: Aggregate<T>,
    {
        Some(self.fold.finish(state))
    }

    /// Records a key's first aggregate in a window. Returns the index of the change.
    pub(super) fn first<K: Record, T>(
        &self,
        key: K,
        window: Window,
        state: &F::State,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) -> usize
    where
        F: Aggregate<T>,
    {
        changes.once(Windowed { key, window }, None, self.row(state))
    }

    /// Records that a key's aggregate is about to change for the first time in the epoch. Returns the index
    /// of the change.
    pub(super) fn before<K: Record, T>(
        &self,
        key: K,
        window: Window,
        state: &F::State,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) -> usize
    where
        F: Aggregate<T>,
    {
        changes.once(Windowed { key, window }, self.row(state), None)
    }

    /// Records the new aggregate.
    pub(super) fn after<K: Record, T>(
        &self,
        at: usize,
        state: &F::State,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) where
        F: Aggregate<T>,
    {
        changes.revise(at, self.row(state));
    }

    /// Retracts a row.
    pub(super) fn expired<K: Record, T>(
        &self,
        expired: ExpiredPane<K, F::State>,
        changes: &mut Changes<Windowed<K>, F::Out>,
    ) where
        F: Aggregate<T>,
    {
        let ExpiredPane {
            key,
            window,
            state,
            changed_at,
        } = expired;
        match changed_at {
            Some(at) => changes.revise(at, None),
            None => _ = changes.once(Windowed { key, window }, self.row(&state), None),
        }
    }
}
