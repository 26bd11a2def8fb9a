//! The stateful steps of one worker: each freezes at the right time, and all are saved in between other work.

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;

use super::manifest::RetentionBounds;
use super::pending::PendingCheckpoint;
use super::state::{SnapshotWriter, Stateful};
use crate::time::Epoch;

/// A step's state, shared by its operator and the checkpoints.
pub struct StateCell<S>(Rc<StateCellInner<S>>);

struct StateCellInner<S> {
    step: usize,
    steps: Rc<StatefulSteps>,
    frozen: Cell<Epoch>,
    /// As of the freeze.
    bounds: Cell<RetentionBounds>,
    state: RefCell<S>,
}

impl<S: Stateful + 'static> StateCell<S> {
    fn new(step: usize, steps: Rc<StatefulSteps>, state: S) -> Self {
        Self(Rc::new(StateCellInner {
            step,
            steps,
            frozen: Cell::new(Epoch::ZERO),
            bounds: Cell::default(),
            state: RefCell::new(state),
        }))
    }

    /// State that is in no checkpoint.
    pub fn unsaved(state: S) -> Self {
        Self::new(usize::MAX, Rc::default(), state)
    }

    /// A second reference.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }

    /// The state, for applying changes of `epoch`. Epochs never decrease.
    pub fn at(&self, epoch: Epoch) -> RefMut<'_, S> {
        if let Some(begun) = &*self.0.steps.begun.borrow()
            && begun.epoch < epoch
        {
            self.0.freeze(begun);
        }
        self.0.state.borrow_mut()
    }
}

impl<S: Stateful> StateCellInner<S> {
    fn freeze(&self, begun: &BegunCheckpoint) {
        if self.frozen.replace(begun.epoch) < begun.epoch {
            let out = SnapshotWriter::new(self.step, begun.job.clone());
            let mut state = self.state.borrow_mut();
            state.freeze(begun.epoch, begun.retry, out);
            self.bounds.set(state.bounds());
        }
    }
}

trait SnapshotState {
    fn freeze(&self, begun: &BegunCheckpoint);
    fn save(&self, entries_max: usize) -> bool;
    fn bounds(&self) -> RetentionBounds;
}

impl<S: Stateful> SnapshotState for StateCellInner<S> {
    fn freeze(&self, begun: &BegunCheckpoint) {
        StateCellInner::freeze(self, begun);
    }
    fn save(&self, entries_max: usize) -> bool {
        self.state.borrow_mut().save(entries_max)
    }
    fn bounds(&self) -> RetentionBounds {
        self.bounds.get()
    }
}

#[derive(Clone)]
struct BegunCheckpoint {
    epoch: Epoch,
    retry: bool,
    job: Arc<PendingCheckpoint>,
}

type LoadTask = Box<dyn FnOnce() + Send>;
type ApplyTask = Box<dyn FnOnce()>;

/// The stateful steps of one worker, in the order in which the dataflow is built.
#[derive(Default)]
pub struct StatefulSteps {
    all: RefCell<Vec<Rc<dyn SnapshotState>>>,
    begun: RefCell<Option<BegunCheckpoint>>,
    /// The step being saved, once the epoch is closed.
    at: Cell<Option<usize>>,
    /// What to load before the first step.
    loads: RefCell<Vec<(LoadTask, ApplyTask)>>,
}

/// Entries between two checks of the clock; few in unit tests, which have few entries.
const SLICE: usize = if cfg!(test) { 4 } else { 256 };

impl StatefulSteps {
    /// Registers the next step's state.
    pub fn keep<S: Stateful + 'static>(self: &Rc<Self>, state: S) -> StateCell<S> {
        let mut all = self.all.borrow_mut();
        let kept = StateCell::new(all.len(), self.clone(), state);
        all.push(kept.0.clone());
        kept
    }

    /// Registers a load: [`load_all`](Self::load_all) runs `load`, and then `put` with its result.
    pub(crate) fn load<T: Send + 'static>(
        &self,
        load: impl FnOnce() -> T + Send + 'static,
        put: impl FnOnce(T) + 'static,
    ) {
        let loaded = Arc::new(Mutex::new(None));
        let place = loaded.clone();
        let load = move || {
            let what = load();
            *place.lock() = Some(what);
        };
        let put = move || {
            if let Some(what) = loaded.lock().take() {
                put(what);
            }
        };
        self.loads.borrow_mut().push((Box::new(load), Box::new(put)));
    }

    /// Loads all state, on this many threads including the current one. Propagates panics.
    pub(crate) fn load_all(&self, threads: usize) {
        let (loads, puts): (Vec<_>, Vec<_>) = self.loads.take().into_iter().unzip();
        let others = threads.min(loads.len()).saturating_sub(1);
        let loads = Mutex::new(loads.into_iter());
        let next = || loads.lock().next();
        let work = || std::iter::from_fn(next).for_each(|load| load());
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            work();
            for other in others {
                if let Err(panic) = other.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        puts.into_iter().for_each(|put| put());
    }

    /// Drops all state, because steps and their owners reference each other.
    #[cfg(test)]
    pub(crate) fn clear(&self) {
        self.all.borrow_mut().clear();
    }

    /// Begins a checkpoint as of `epoch`, which must not have been applied yet.
    pub(crate) fn begin(&self, epoch: Epoch, job: Arc<PendingCheckpoint>) {
        let retry = job.retry;
        *self.begun.borrow_mut() = Some(BegunCheckpoint { epoch, retry, job });
    }

    /// Reports that the worker has finished `epoch`: freezes the steps that have not frozen themselves.
    pub(crate) fn closed(&self, epoch: Epoch) {
        let begun = self.begun.borrow().clone();
        if let Some(begun) = begun.filter(|begun| begun.epoch == epoch) {
            self.all.borrow().iter().for_each(|step| step.freeze(&begun));
            self.at.set(Some(0));
        }
    }

    /// Whether anything is to be saved.
    pub(crate) fn is_saving(&self) -> bool {
        self.at.get().is_some()
    }

    /// Whether so much is queued for the writer that saving should pause.
    pub(crate) fn is_backlogged(&self) -> bool {
        let begun = self.begun.borrow();
        begun.as_ref().is_some_and(|begun| begun.job.is_backlogged())
    }

    /// Continues to save while `go_on` returns true.
    pub(crate) fn save(&self, mut go_on: impl FnMut() -> bool) {
        let Some(mut at) = self.at.get() else {
            return;
        };
        let all = self.all.borrow();
        while let Some(step) = all.get(at) {
            if !go_on() {
                self.at.set(Some(at));
                return;
            }
            at += usize::from(!step.save(SLICE));
        }
        self.at.set(None);
        if let Some(begun) = self.begun.borrow_mut().take() {
            begun.job.done(all.iter().map(|step| step.bounds()).collect());
        }
    }
}
