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
pub(crate) type BackfillDemand = Rc<Cell<bool>>;

/// Rows per activation.
const BATCH_ROWS: usize = 4096;

/// Emits rows at the epoch that a step was restored as of, a batch per activation.
pub(crate) struct Backfill<D> {
    capability: Option<Capability<Epoch>>,
    activator: Activator,
    demand: BackfillDemand,
    rows: Option<Vec<D>>,
}

impl<D> Backfill<D> {
    /// Takes the capability that the operator was created with.
    pub(crate) fn new(
        restored: Option<Epoch>,
        capability: Capability<Epoch>,
        activator: Activator,
        demand: BackfillDemand,
    ) -> Self {
        let capability = restored.map(|epoch| capability.delayed(&epoch));
        if capability.is_some() {
            activator.activate();
        }
        Self {
            capability,
            activator,
            demand,
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
        let demand = self.demand.get();
        let rows = self
            .rows
            .get_or_insert_with(|| if demand { all() } else { Vec::new() });
        let mut some = rows.split_off(rows.len().saturating_sub(BATCH_ROWS));
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
