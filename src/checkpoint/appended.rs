//! Append-only state that is not read while the service runs: rows, each stored with its multiplicity.
//!
//! ```text
//!   operator ── push(epoch, row) ─▶ new ── freeze ─▶ frozen ── save ─▶ SnapshotWriter  the rule of its files is Sum
//! ```
//!
//! Rows may arrive for epochs ahead of the checkpoint's epoch; the freeze separates them.

use super::state::{SnapshotWriter, Stateful};
use super::state_handle::{StateHandle, StateLoader};
use super::steps::StateCell;
use crate::record::Record;
use crate::time::Epoch;

/// The rows that are in no checkpoint yet.
pub(crate) struct AppendedState<T> {
    /// Nothing is recorded if checkpoints are disabled.
    on: bool,
    /// The rows of the checkpoint that the run resumes from, with their multiplicities, until they are taken.
    loaded: Vec<(T, i64)>,
    new: Vec<(Epoch, T)>,
    /// Kept until the next freeze: they may have to be saved again.
    frozen: Vec<(Epoch, T)>,
    at: usize,
    out: Option<SnapshotWriter>,
}

impl<T: Record> AppendedState<T> {
    /// Creates a step's state; its rows in a checkpoint are loaded once the dataflow is built.
    pub(crate) fn keep(handle: &StateHandle) -> StateCell<Self> {
        let state = Self {
            on: handle.saves(),
            loaded: Vec::new(),
            new: Vec::new(),
            frozen: Vec::new(),
            at: 0,
            out: None,
        };
        handle.keep_restored(state, load, |state, loaded| state.loaded = loaded)
    }

    /// Adds rows of an epoch.
    pub(crate) fn extend(&mut self, epoch: Epoch, rows: impl Iterator<Item = T>) {
        if self.on {
            self.new.extend(rows.map(|row| (epoch, row)));
        }
    }

    /// Takes the rows of the checkpoint that the run resumes from, with their multiplicities.
    pub(crate) fn take_loaded(&mut self) -> Vec<(T, i64)> {
        std::mem::take(&mut self.loaded)
    }
}

fn load<T: Record>(loader: &StateLoader) -> Vec<(T, i64)> {
    let mut loaded = Vec::new();
    loader.load(
        |row: &T| row,
        |entry| loaded.push((entry.key, entry.value.unwrap_or_default())),
    );
    loaded
}

impl<T: Record> Stateful for AppendedState<T> {
    fn freeze(&mut self, at: Epoch, retry: bool, out: SnapshotWriter) {
        if !retry {
            out.discard(std::mem::take(&mut self.frozen));
        }
        let (now, later) = self.new.drain(..).partition(|(epoch, _)| *epoch <= at);
        self.new = later;
        self.frozen.extend::<Vec<_>>(now);
        (self.at, self.out) = (0, Some(out));
    }

    fn save(&mut self, entries_max: usize) -> bool {
        let Some(out) = &mut self.out else {
            return false;
        };
        let end = self.frozen.len().min(self.at + entries_max);
        for (epoch, row) in &self.frozen[self.at..end] {
            out.put(row, *epoch, None, &1i64);
        }
        self.at = end;
        let more = end < self.frozen.len();
        if !more {
            self.out = None;
        }
        more
    }
}
