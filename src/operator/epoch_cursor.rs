//! Buffers input by epoch, and hands it over once the frontier has passed the epoch.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use timely::communication::Pull;
use timely::dataflow::channels::Message;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::InputHandleCore;
use timely::progress::frontier::MutableAntichain;
use timely::{Container, ExchangeData};

use crate::operator::exchange::RoutedInput;
use crate::time::Epoch;
use crate::timeline::{EpochFacts, WorkerContext};
use crate::watermark::Watermarks;

/// A map of the few epochs in flight: ordered, and cheap to compile for every type of stream.
struct ByEpoch<T>(Vec<(Epoch, T)>);

impl<T> ByEpoch<T> {
    /// The entry of an epoch; `new` creates it if it is missing.
    fn entry(&mut self, epoch: Epoch, new: impl FnOnce() -> T) -> &mut T {
        let at = self.0.iter().rposition(|(other, _)| *other <= epoch);
        let at = match at {
            Some(at) if self.0[at].0 == epoch => at,
            before => {
                let at = before.map_or(0, |before| before + 1);
                self.0.insert(at, (epoch, new()));
                at
            }
        };
        &mut self.0[at].1
    }

    fn first(&self) -> Option<Epoch> {
        self.0.first().map(|(epoch, _)| *epoch)
    }

    fn remove(&mut self, epoch: Epoch) -> Option<T> {
        let at = self.0.iter().position(|(other, _)| *other == epoch)?;
        Some(self.0.remove(at).1)
    }
}

/// Input for epochs that the frontier has not passed.
pub(crate) struct PendingInput<C> {
    epochs: ByEpoch<Vec<C>>,
}

impl<D: ExchangeData> PendingInput<Vec<D>> {
    /// An empty buffer.
    pub(crate) fn new() -> Self {
        Self {
            epochs: ByEpoch(Vec::new()),
        }
    }

    /// Opens every parcel that waits at an input; those of epochs up to `held` are dropped.
    pub(crate) fn gather(&mut self, input: &mut RoutedInput, held: Option<Epoch>) {
        input.each(&mut |_, epoch, routed_batch| {
            if Some(epoch) > held {
                self.epochs.entry(epoch, Vec::new).push(routed_batch.open());
            }
        });
    }

    /// Takes the input of an epoch and of those before it.
    pub(crate) fn take(&mut self, epoch: Epoch) -> Vec<Vec<D>> {
        let mut parts = Vec::new();
        while let Some(first) = self.epochs.first().filter(|first| *first <= epoch) {
            parts.extend(self.epochs.remove(first).into_iter().flatten());
        }
        parts
    }
}

/// Iterates over the epochs of the worker's timeline behind an operator's frontier: over every one, including
/// those without input for the operator, because a watermark may rise in them.
pub(crate) struct EpochCursor {
    worker_context: Rc<WorkerContext>,
    passed: Epoch,
    /// One for each output; empty once the input has ended.
    capabilities: Vec<Capability<Epoch>>,
}

impl EpochCursor {
    /// Starts with the capabilities that the operator was created with. After a restore, the timeline begins
    /// behind the checkpoint.
    pub(crate) fn new(worker_context: Rc<WorkerContext>, capabilities: Vec<Capability<Epoch>>) -> Self {
        Self {
            worker_context,
            passed: Epoch::ZERO,
            capabilities,
        }
    }

    /// Calls `step` for every epoch that the frontier has passed since the last call, in order, with the
    /// watermarks as of the previous epoch and a capability for each output.
    pub(crate) fn advance(
        &mut self,
        frontier: &MutableAntichain<Epoch>,
        mut step: impl FnMut(&EpochFacts, Option<&Watermarks>, &[Capability<Epoch>]),
    ) {
        if self.capabilities.is_empty() {
            return;
        }
        let upto = frontier.frontier().first().copied();
        while let Some((facts, before)) = self.next_before(upto) {
            self.passed = facts.epoch();
            let delayed = self.capabilities.iter().map(|held| held.delayed(&self.passed));
            step(&facts, before.as_deref(), &delayed.collect::<Vec<_>>());
        }
        match upto {
            Some(f) if *self.capabilities[0].time() < f => {
                self.capabilities.iter_mut().for_each(|held| held.downgrade(&f));
            }
            Some(_) => {}
            None => self.capabilities.clear(),
        }
    }

    /// The next epoch, if it is before `upto`, and the watermarks as of its predecessor.
    fn next_before(&self, upto: Option<Epoch>) -> Option<(EpochFacts, Option<Arc<Watermarks>>)> {
        let timeline = self.worker_context.timeline.borrow();
        let facts = timeline.next(self.passed)?;
        let ready = upto.is_none_or(|upto| facts.epoch() < upto);
        ready.then(|| (facts.clone(), timeline.watermarks_before(facts.epoch())))
    }
}

/// Buffers input for operators that need only the epochs in which they have input.
pub(crate) struct EpochBuffer<C> {
    epochs: ByEpoch<(Capability<Epoch>, Vec<C>)>,
}

impl<C: Container> EpochBuffer<C> {
    /// An empty buffer.
    pub(crate) fn new() -> Self {
        Self {
            epochs: ByEpoch(Vec::new()),
        }
    }

    /// Buffers everything that waits at an input, with a capability for each epoch.
    pub(crate) fn gather<P: Pull<Message<Epoch, C>>>(&mut self, input: &mut InputHandleCore<Epoch, C, P>) {
        input.for_each(|cap, data| {
            let epoch = *cap.least().expect("data travels under its epoch's capability");
            let arrived = self.epochs.entry(epoch, || (cap.delayed(&epoch, 0), Vec::new()));
            arrived.1.push(mem::take(data));
        });
    }

    /// Takes the first epoch that the frontier has passed, if any.
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
        let first = self.epochs.first()?;
        if !ready(first) {
            return None;
        }
        let (capability, data) = self.epochs.remove(first)?;
        Some((first, capability, data))
    }
}

impl<D: ExchangeData> EpochBuffer<Vec<D>> {
    /// Opens every parcel that waits at an input, with a capability for each epoch.
    pub(crate) fn gather_batches(&mut self, input: &mut RoutedInput) {
        input.each(&mut |capability, epoch, routed_batch| {
            let new = || (capability.delayed(&epoch, 0), Vec::new());
            self.epochs.entry(epoch, new).1.push(routed_batch.open());
        });
    }
}

/// A differential update.
pub(crate) type Update<D> = (D, Epoch, isize);

impl<D: ExchangeData> EpochBuffer<Vec<Update<D>>> {
    /// Buffers differential updates, each under its own epoch: one parcel may hold those of several.
    pub(crate) fn gather_updates(&mut self, input: &mut RoutedInput) {
        input.each(&mut |capability, _, routed_batch| {
            for update in routed_batch.open::<Update<D>>() {
                let epoch = update.1;
                let new = || (capability.delayed(&epoch, 0), vec![Vec::new()]);
                self.epochs.entry(epoch, new).1[0].push(update);
            }
        });
    }
}

impl<C: Container> Default for EpochBuffer<C> {
    fn default() -> Self {
        Self::new()
    }
}
