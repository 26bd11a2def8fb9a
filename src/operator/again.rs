//! Re-emits a restored operator's rows so that operators without a checkpoint of their own can rebuild.
//!
//! Joins, groups and fixed points are in no checkpoint. A step that is restored as of epoch s emits all its
//! rows at s, and operators downstream compute from them what they had at s. Restored views ignore these
//! rows: they already have theirs up to s.

use std::cell::Cell;
use std::rc::Rc;

use timely::dataflow::operators::Capability;
use timely::scheduling::Activator;

use crate::fault;
use crate::time::Epoch;

/// Whether anything other than views consumes a step's rows: known once the dataflow is built.
pub(crate) type Wanted = Rc<Cell<bool>>;

/// Rows per activation.
const SOME: usize = 4096;

/// Emits rows at the epoch that a step was restored as of, a batch per activation.
pub(crate) struct Again<D> {
    capability: Option<Capability<Epoch>>,
    activator: Activator,
    wanted: Wanted,
    rows: Option<Vec<D>>,
}

impl<D> Again<D> {
    /// Takes the capability that the operator was created with.
    pub(crate) fn new(
        restored: Option<Epoch>,
        capability: Capability<Epoch>,
        activator: Activator,
        wanted: Wanted,
    ) -> Self {
        let capability = restored.map(|epoch| capability.delayed(&epoch));
        if capability.is_some() {
            activator.activate();
        }
        Self {
            capability,
            activator,
            wanted,
            rows: None,
        }
    }

    /// Emits the next batch, until all rows are emitted. Must be called at every activation, before anything
    /// is applied to the state that `all` reads.
    pub(crate) fn emit(
        &mut self,
        all: impl FnOnce() -> Vec<D>,
        mut give: impl FnMut(&Capability<Epoch>, &mut Vec<D>),
    ) {
        let Some(capability) = &self.capability else {
            return;
        };
        let wanted = self.wanted.get();
        let rows = self
            .rows
            .get_or_insert_with(|| if wanted { all() } else { Vec::new() });
        let mut some = rows.split_off(rows.len().saturating_sub(SOME));
        give(capability, &mut some);
        fault::point("restore.giving");
        if rows.is_empty() {
            (self.capability, self.rows) = (None, None);
            fault::point("restore.given");
        } else {
            self.activator.activate();
        }
    }
}
