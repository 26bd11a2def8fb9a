//! What a restored step gives once more: its state, to those that make theirs from it.
//!
//! Joins, groups and fixed points are in no checkpoint. As a step is restored as of s it gives all its rows
//! at s, and whatever comes of them there is again as it was. Views drop it: they have their rows up to s
//! themselves.

use std::cell::Cell;
use std::rc::Rc;

use timely::dataflow::operators::Capability;
use timely::scheduling::Activator;

use crate::fault;
use crate::time::Epoch;

/// Whether something is made of a step's rows besides views: known once the dataflow is built.
pub(crate) type Wanted = Rc<Cell<bool>>;

/// Rows of one activation.
const SOME: usize = 4096;

/// Gives rows at the epoch that a step was restored as of, some at a time.
pub(crate) struct Again<D> {
    capability: Option<Capability<Epoch>>,
    activator: Activator,
    wanted: Wanted,
    rows: Option<Vec<D>>,
}

impl<D> Again<D> {
    /// With the capability that the operator was made with.
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

    /// Gives some more, until all are given: to be called at every activation, before anything is applied to
    /// the state that `all` reads.
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
