//! A worker: builds the dataflow, steps it, and closes epochs for the process's readers.

use std::cell::RefCell;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use timely::dataflow::operators::probe::Handle;
use timely::worker::Worker;

use crate::bridge::{Waker, panic_text};
use crate::clock;
use crate::dataflow::{self, BuildContext};
use crate::error::Error;
use crate::fault;
use crate::panic_context;
use crate::position::SourceId;
use crate::runtime::cluster::{self, Communication};
use crate::runtime::control::{self, ControlHandle};
use crate::runtime::{OnDifference, ProcessState};
use crate::sequencer::message::Report;
use crate::source::Environment;
use crate::time::{Epoch, EventTime};
use crate::timeline::WorkerContext;
use crate::view::Snapshot;
use crate::view::serve::Serve;

/// Runs all workers of the process to completion.
pub(super) fn run(shared: &Arc<ProcessState>) {
    let communication = cluster::connect(shared);
    match communication {
        Ok(Some(communication)) => run_workers(shared, communication),
        // A stop before the cluster was formed.
        Ok(None) => {}
        Err(error) => shared.halt.halt(error),
    }
    if let Some(checkpoints) = shared.checkpoints.get() {
        checkpoints.end();
    }
    shared.sinks.end();
    shared.ended.store(true, Ordering::Release);
    shared.inbox.wake_watcher();
}

/// Runs the workers until all of them have ended.
fn run_workers(shared: &Arc<ProcessState>, communication: Communication) {
    // No spinning before a worker parks: with few cores it only takes time from the others.
    let worker = timely::WorkerConfig::default().idle_spin(Duration::ZERO);
    let engine = shared.clone();
    let workers =
        timely::execute::execute_from(communication.allocators, Box::new(()), worker, move |worker| {
            panic_context::set_caught(true);
            let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| live(worker, &engine)));
            if let Err(panic) = outcome {
                engine.halt.halt(panicked(&panic_text(&*panic)));
                drop_all(worker);
            }
            panic_context::set_caught(false);
        });
    match workers {
        Ok(workers) => {
            for joined in workers.join() {
                if let Err(panic) = joined {
                    shared.halt.halt(Error::internal("a worker failed").detail(panic));
                }
            }
        }
        Err(error) => shared
            .halt
            .halt(Error::external("cannot start the engine").detail(error)),
    }
    communication.connections.end(shared);
}

/// Converts a worker's panic into an error: usually a user's closure met a record that it was not written
/// for.
fn panicked(text: &str) -> Error {
    match panic_context::describe() {
        Some(at) => Error::definition("a step of the dataflow panicked")
            .detail(at)
            .detail(text)
            .hint("the record will be read again: fix the code, or reject such records with `try_map`"),
        None => Error::internal("a worker panicked").detail(text),
    }
}

pub(super) fn drop_all(worker: &mut Worker) {
    for index in worker.installed_dataflows() {
        worker.drop_dataflow(index);
    }
}

fn live(worker: &mut Worker, shared: &Arc<ProcessState>) {
    let mut life = begin(worker, shared, loaders(shared.settings.workers));
    // Those of its own shards, and those of others that are connected by now.
    let threads = shared.sinks.tasks().into_iter().map(|task| {
        let thread = std::thread::Builder::new().name(format!("sink {}", task.name()));
        let spawned = thread.spawn(move || task.run());
        // At once: anything queued for a sink without a thread would wait forever.
        let refused = |error| {
            shared
                .halt
                .halt(Error::external("cannot start a sink").detail(error))
        };
        spawned.map_err(refused).ok()
    });
    let threads: Vec<_> = threads.collect();
    while life.is_running(worker) {
        life.step(worker, life.park_max());
    }
    // Sinks receive everything queued before the service ends.
    for thread in threads.into_iter().flatten() {
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

/// Number of threads per worker that load state.
fn loaders(workers: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    cores.div_ceil(workers)
}

/// Builds the dataflows on a worker, and loads their state on this many threads.
pub(super) fn begin(worker: &mut Worker, shared: &Arc<ProcessState>, loaders: usize) -> WorkerLoop {
    let worker_context = WorkerContext::new();
    let probe = Handle::new();
    let control = control::build(worker, shared, &worker_context);
    let context = Rc::new(BuildContext {
        env: Environment {
            dataflow: shared.flow.name().to_owned(),
            ..shared.settings.env.clone()
        },
        bounds: shared.settings.bounds,
        worker_context: worker_context.clone(),
        views: shared.views.clone(),
        sinks: shared.sinks.clone(),
        sink_workers: shared.settings.workers,
        metrics: shared.metrics.clone(),
        halt: shared.halt.clone(),
        probe: probe.clone(),
        plan: RefCell::default(),
        memory_sinks: shared.settings.memory_sinks.clone(),
        substitutes: RefCell::new(
            shared
                .settings
                .substitutes
                .as_ref()
                .map(|make| make())
                .unwrap_or_default(),
        ),
        hashed: shared.settings.on_difference != OnDifference::Ignore,
        history: shared.settings.history,
        reads: true,
        saves: shared.checkpoints.get().is_some(),
        restored: shared.restored.get().cloned(),
        worker: (worker.index(), worker.peers()),
    });
    let name = shared.flow.name();
    let built =
        worker.dataflow_named::<Epoch, _, _>(name, |scope| dataflow::build(scope, &shared.flow, &context));
    if let Err(error) = built {
        shared.halt.halt(error);
    }
    drop(context);
    // Readers may see the rows as soon as workers step.
    worker_context.steps.load_all(loaders);
    if shared.restored.get().is_some() {
        fault::point("restore.built");
    }
    // A halt must reach a parked worker.
    let wake = worker.sync_activator_for(vec![worker.index()]);
    shared.halt.on_halt(Waker::of(wake));

    let first = worker.index().is_multiple_of(shared.settings.workers);
    if first {
        let activator = worker.sync_activator_for(vec![worker.index()]);
        shared.sinks.on_delivered(Waker::of(activator));
    }
    let served = if first { shared.views.all() } else { Vec::new() };
    WorkerLoop {
        shared: shared.clone(),
        worker_context,
        control,
        probe,
        first,
        passed: Epoch::ZERO,
        done: false,
        unclear: None,
        served,
    }
}

/// How long a worker saves before it returns to its other work.
const SAVE_MAX: Duration = Duration::from_micros(500);
/// A parked worker checks for work this often even if nothing woke it.
const PARK_MAX: Duration = Duration::from_millis(500);

/// A running worker: steps the dataflow, and follows its frontier.
pub(super) struct WorkerLoop {
    shared: Arc<ProcessState>,
    worker_context: Rc<WorkerContext>,
    control: ControlHandle,
    probe: Handle<Epoch>,
    /// Whether this is the process's first worker, which closes epochs for all of the process's readers: the
    /// frontier passes an epoch only when every worker has finished it.
    first: bool,
    passed: Epoch,
    done: bool,
    /// A checkpoint whose epoch is closed, but sinks may not be complete up to it; with the watermarks of
    /// sets, and the views' floor.
    unclear: Option<(Epoch, Vec<(Vec<SourceId>, EventTime)>, Epoch)>,
    served: Vec<Arc<dyn Serve>>,
}

impl WorkerLoop {
    /// Whether there is more to do. After a halt there is not, and the dataflows are dropped.
    pub(super) fn is_running(&self, worker: &mut Worker) -> bool {
        // A save in progress at the end is completed.
        let unclear = self.unclear.is_some() && self.shared.sinks.take_on();
        let more = worker.has_dataflows() || self.saving().is_some() || unclear;
        if more && self.shared.halt.is_halted() {
            drop_all(worker);
            return false;
        }
        more
    }

    /// Does available work, or waits for some, at most this long.
    pub(super) fn step(&mut self, worker: &mut Worker, park: Duration) {
        worker.step_or_park(Some(park));
        self.advance();
        self.clear();
        self.save();
    }

    /// Frees memory that would accumulate in a process with several runs.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.worker_context.steps.clear();
    }

    /// How long a step may wait.
    fn park_max(&self) -> Duration {
        match self.saving() {
            None => PARK_MAX,
            Some(false) => Duration::ZERO,
            // The disk is behind: give it time.
            Some(true) => Duration::from_millis(1),
        }
    }

    /// A checkpoint completes once sinks are complete up to it.
    fn clear(&mut self) {
        let sinks = &self.shared.sinks;
        if let Some((_, sets, floor)) = self.unclear.take_if(|(epoch, ..)| sinks.is_clear(*epoch))
            && let Some(checkpoints) = self.shared.checkpoints.get()
        {
            checkpoints.closed(sets, floor);
        }
    }

    fn advance(&mut self) {
        if self.done {
            return;
        }
        let upto = self.probe.with_frontier(|frontier| frontier.first().copied());
        loop {
            let facts = self.worker_context.timeline.borrow().next(self.passed).cloned();
            let Some(facts) = facts.filter(|facts| upto.is_none_or(|f| facts.epoch() < f)) else {
                break;
            };
            self.passed = facts.epoch();
            if self.first {
                fault::point("epoch.passed");
                self.shared.note_bound(&facts.binding.ranges, &facts.binding.idle);
                self.shared.views.close(Snapshot {
                    epoch: facts.epoch(),
                    watermarks: facts.watermarks.clone(),
                    positions: facts.positions.clone(),
                    binding: facts.binding.clone(),
                });
                fault::point("epoch.closed");
            }
            if self.first {
                self.tell_result(facts.epoch());
                fault::point("epoch.told");
            }
            self.worker_context.steps.closed(facts.epoch());
            if let Some(checkpoints) = self.shared.checkpoints.get().filter(|_| self.first)
                && checkpoints.is_at(facts.epoch())
            {
                let (sets, floor) = (facts.watermarks.sets(), self.shared.views.floor());
                self.unclear = Some((facts.epoch(), sets, floor));
            }
            self.measure(facts.epoch());
            self.worker_context.timeline.borrow_mut().trim(self.passed);
            self.control.closed(self.passed);
        }
        if upto.is_none() {
            self.done = true;
            self.control.finish();
        }
    }

    /// Sends the hashes of a closed epoch's view changes to the sequencer. Epochs that are covered by a
    /// restored checkpoint were not computed here.
    fn tell_result(&self, epoch: Epoch) {
        let restored = self.shared.restored.get();
        let restored = restored.is_some_and(|restored| epoch <= restored.manifest.epoch);
        if !restored && self.shared.settings.on_difference != OnDifference::Ignore {
            let views = self.served.iter();
            let hashes = views.map(|view| view.hash(epoch).unwrap_or(0)).collect();
            self.worker_context.report(Report::Closed { epoch, hashes });
        }
    }

    /// Whether anything is to be saved, and if so, whether saving should pause.
    fn saving(&self) -> Option<bool> {
        self.worker_context
            .steps
            .is_saving()
            .then(|| self.worker_context.steps.is_backlogged())
    }

    /// Saves for a short time, if there is anything to save.
    fn save(&self) {
        if self.saving() == Some(false) {
            let begun = clock::instant();
            self.worker_context
                .steps
                .save(|| clock::instant() - begun < SAVE_MAX);
            let pause = clock::instant() - begun;
            self.shared.metrics.checkpoints.pause.observe(pause.as_secs_f64());
        }
    }

    fn measure(&mut self, epoch: Epoch) {
        let now = clock::now();
        for batch in self.worker_context.take_released(epoch) {
            let age_us = now.micros().saturating_sub(batch.oldest.micros());
            self.shared
                .metrics
                .freshness
                .observe_many(age_us.max(0) as f64 / 1e6, batch.records);
        }
        if self.first {
            let epochs = &self.shared.metrics.epochs;
            epochs
                .duration
                .observe(now.micros().saturating_sub(epoch.opened_at().micros()).max(0) as f64 / 1e6);
            epochs.closed_newest.set(epoch.0 as f64 / 1e6);
        }
    }
}
