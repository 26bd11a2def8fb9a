//! Gathers what arrives by epoch, and hands it over once the frontier has passed the epoch.

use std::collections::BTreeMap;
use std::rc::Rc;

use timely::Container;
use timely::communication::Pull;
use timely::dataflow::channels::Message;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::InputHandleCore;
use timely::progress::frontier::MutableAntichain;

use crate::time::Epoch;
use crate::timeline::{Desk, Facts};

/// What arrived for epochs that the frontier has not passed.
pub(crate) struct Pending<C> {
    epochs: BTreeMap<Epoch, Vec<C>>,
}

impl<C: Container> Pending<C> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            epochs: BTreeMap::new(),
        }
    }

    /// Takes in everything that waits at an input.
    pub(crate) fn gather<P: Pull<Message<Epoch, C>>>(&mut self, input: &mut InputHandleCore<Epoch, C, P>) {
        input.for_each(|cap, data| {
            let epoch = *cap.least().expect("data travels under its epoch's capability");
            self.epochs.entry(epoch).or_default().push(std::mem::take(data));
        });
    }

    /// Takes what arrived for an epoch.
    pub(crate) fn take(&mut self, epoch: Epoch) -> Vec<C> {
        self.epochs.remove(&epoch).unwrap_or_default()
    }
}

impl<C: Container> Default for Pending<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// Walks the epochs of the worker's timeline behind an operator's frontier: every one of them, also those
/// that bring the operator nothing, as a watermark may rise in them.
pub(crate) struct Walk {
    desk: Rc<Desk>,
    walked: Epoch,
    capability: Option<Capability<Epoch>>,
}

impl Walk {
    /// Starts with the capability that the operator was made with. The timeline of a run that goes on from a
    /// checkpoint begins behind it.
    pub(crate) fn new(desk: Rc<Desk>, capability: Capability<Epoch>) -> Self {
        Self {
            desk,
            walked: Epoch::ZERO,
            capability: Some(capability),
        }
    }

    /// Calls `step` for every epoch that the frontier has passed since the last call, in order, with a
    /// capability for it.
    pub(crate) fn advance(
        &mut self,
        frontier: &MutableAntichain<Epoch>,
        mut step: impl FnMut(&Facts, &Capability<Epoch>),
    ) {
        let Some(capability) = &mut self.capability else {
            return;
        };
        let upto = frontier.frontier().first().copied();
        loop {
            let facts = self.desk.timeline.borrow().next(self.walked).cloned();
            let Some(facts) = facts.filter(|facts| upto.is_none_or(|f| facts.epoch() < f)) else {
                break;
            };
            self.walked = facts.epoch();
            step(&facts, &capability.delayed(&self.walked));
        }
        match upto {
            Some(f) if *capability.time() < f => capability.downgrade(&f),
            Some(_) => {}
            None => self.capability = None,
        }
    }
}

/// The same for operators to which only epochs that bring something matter.
pub(crate) struct Arrivals<C> {
    epochs: BTreeMap<Epoch, (Capability<Epoch>, Vec<C>)>,
}

impl<C: Container> Arrivals<C> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            epochs: BTreeMap::new(),
        }
    }

    /// Takes in everything that waits at an input, with a capability for each epoch.
    pub(crate) fn gather<P: Pull<Message<Epoch, C>>>(&mut self, input: &mut InputHandleCore<Epoch, C, P>) {
        input.for_each(|cap, data| {
            let epoch = *cap.least().expect("data travels under its epoch's capability");
            let arrived = self
                .epochs
                .entry(epoch)
                .or_insert_with(|| (cap.delayed(&epoch, 0), Vec::new()));
            arrived.1.push(std::mem::take(data));
        });
    }

    /// Takes the first epoch that the frontier has passed, if there is one.
    pub(crate) fn next(
        &mut self,
        frontier: &MutableAntichain<Epoch>,
    ) -> Option<(Epoch, Capability<Epoch>, Vec<C>)> {
        self.next_if(|first| !frontier.less_equal(&first))
    }

    /// Takes the first epoch if it is `ready`.
    pub(crate) fn next_if(
        &mut self,
        ready: impl FnOnce(Epoch) -> bool,
    ) -> Option<(Epoch, Capability<Epoch>, Vec<C>)> {
        let first = *self.epochs.first_key_value()?.0;
        if !ready(first) {
            return None;
        }
        let (capability, data) = self.epochs.remove(&first)?;
        Some((first, capability, data))
    }
}

/// A differential update.
pub(crate) type Update<D> = (D, Epoch, isize);

impl<D: 'static> Arrivals<Vec<Update<D>>> {
    /// Takes in differential updates, each for its own epoch: one message may hold those of several.
    pub(crate) fn gather_updates<P: Pull<Message<Epoch, Vec<Update<D>>>>>(
        &mut self,
        input: &mut InputHandleCore<Epoch, Vec<Update<D>>, P>,
    ) where
        D: Clone,
    {
        input.for_each(|cap, data| {
            for update in data.drain(..) {
                let epoch = update.1;
                let arrived = self
                    .epochs
                    .entry(epoch)
                    .or_insert_with(|| (cap.delayed(&epoch, 0), vec![Vec::new()]));
                arrived.1[0].push(update);
            }
        });
    }
}

impl<C: Container> Default for Arrivals<C> {
    fn default() -> Self {
        Self::new()
    }
}
