//! A process of the service, its threads left out: whoever holds it has them take their steps.

use std::sync::Arc;
use std::time::Duration;

use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::Config as Communication;
use timely::worker::Worker;

use super::Draws;
use crate::checkpoint::writer::CheckpointWriter;
use crate::dataflow::Flow;
use crate::disk::sim::SimDisk;
use crate::error::{Error, Result};
use crate::runtime::ledger_writer::{LedgerWriter, TrimTask};
use crate::runtime::startup::{LeaderParts, ProcessParts};
use crate::runtime::watch::SourceWatch;
use crate::runtime::worker::{self, WorkerLoop};
use crate::runtime::{PlanSummary, ProcessState, RunSettings};
use crate::sink::task::{SinkTask, TaskTurn};
use crate::time::Epoch;

pub(super) struct Process {
    /// The how many-th start it is.
    pub number: usize,
    pub shared: Arc<ProcessState>,
    /// The newest epoch that was looked at.
    pub closed: Epoch,
    /// The newest checkpoint that was looked at.
    pub checkpointed: Option<Epoch>,
    /// It was stopped, and another one has started since.
    pub stopped: bool,
    workers: Vec<(WorkerLoop, Worker)>,
    /// Shards of sinks.
    tasks: Vec<SinkTask>,
    ledger_writer: Option<LedgerWriter>,
    writer: Option<CheckpointWriter>,
    preparing: Vec<TrimTask>,
    watch: SourceWatch,
}

impl Process {
    pub(super) fn start(
        number: usize,
        flow: &Flow,
        plan: &PlanSummary,
        settings: RunSettings,
    ) -> Result<Self> {
        let workers = settings.workers;
        let ProcessParts { shared, leader_parts } = ProcessParts::of(flow, plan, settings)?;
        let Some(LeaderParts {
            ledger_writer,
            mut writer,
            sources,
        }) = leader_parts
        else {
            return Err(Error::internal("a process without the ledger"));
        };
        if let Some(writer) = &mut writer {
            writer.remove_leftovers();
        }
        let checkpointed = shared.restored.get().map(|restored| restored.manifest.epoch);
        let begin = |allocator| {
            // Without a timer nothing depends on how long a step takes: what is to be activated later is so
            // at once.
            let mut worker = Worker::new(WorkerConfig::default(), allocator, None);
            (worker::begin(&mut worker, &shared, 1), worker)
        };
        let workers = allocators(workers).into_iter().map(begin).collect();
        let tasks = shared.sinks.tasks();
        Ok(Self {
            number,
            closed: Epoch::ZERO,
            checkpointed,
            stopped: false,
            workers,
            tasks,
            ledger_writer: Some(ledger_writer),
            writer,
            preparing: Vec::new(),
            watch: SourceWatch::new(sources),
            shared,
        })
    }

    /// Whether all of its workers and sinks have come to their end.
    pub(super) fn is_over(&self) -> bool {
        self.workers.is_empty() && self.tasks.is_empty()
    }

    /// One of the workers takes a step, or a shard of a sink.
    pub(super) fn work(&mut self, draws: &mut Draws, disk: &SimDisk) {
        if self.is_over() {
            return;
        }
        match self.workers.is_empty() || draws.chance(1, 4) {
            true => self.deliver(draws),
            false => self.work_on(draws),
        }
        if self.is_over() {
            self.end(disk);
        }
    }

    fn deliver(&mut self, draws: &mut Draws) {
        if self.tasks.is_empty() {
            return;
        }
        let at = draws.below(self.tasks.len());
        if self.tasks[at].turn() == TaskTurn::Ended {
            self.tasks.remove(at);
        }
    }

    fn work_on(&mut self, draws: &mut Draws) {
        let at = draws.below(self.workers.len());
        let (life, worker) = &mut self.workers[at];
        if life.is_running(worker) {
            // A step may have been woken by the clock, which has no other way to.
            if draws.chance(1, 2) {
                self.shared.inbox.wake();
            }
            life.step(worker, Duration::ZERO);
        } else {
            life.forget();
            self.workers.remove(at);
        }
    }

    /// What is left to be done when the workers are done.
    fn end(&mut self, disk: &SimDisk) {
        if !self.shared.halt.is_halted() {
            self.write(disk);
        }
        if let Some(checkpoints) = self.shared.checkpoints.get() {
            checkpoints.end();
        }
        while let Some(writer) = &mut self.writer {
            if !writer.step() {
                self.writer = None;
            }
        }
    }

    /// Bindings that wait are written. `false`: the power went meanwhile, of which nobody has heard yet.
    pub(super) fn write(&mut self, disk: &SimDisk) -> bool {
        let Some(ledger_writer) = &mut self.ledger_writer else {
            return true;
        };
        match ledger_writer.step(&self.shared) {
            Ok(preparing) => self.preparing.extend(preparing),
            Err(_) if disk.is_dead() => return false,
            Err(error) => {
                self.shared.halt.halt(error);
                self.ledger_writer = None;
            }
        }
        true
    }

    /// The writer of checkpoints takes some messages in.
    pub(super) fn save(&mut self, messages: usize) {
        for _ in 0..messages {
            if let Some(writer) = &mut self.writer {
                writer.step();
            }
        }
    }

    /// A trim that was asked for is made ready.
    pub(super) fn prepare(&mut self) {
        if let Some(preparing) = self.preparing.pop() {
            preparing.run();
        }
    }

    /// Looks at the topics.
    pub(super) fn look(&mut self) {
        if let Err(error) = self.watch.look(&self.shared) {
            self.shared.halt.halt(error);
        }
    }

    pub(super) fn stop(&self) {
        self.shared.sinks.close();
        self.shared.inbox.stop();
    }

    pub(super) fn error(&self) -> Option<Error> {
        self.shared.halt.error()
    }
}

/// Nothing of it is finished: only memory is given back.
impl Drop for Process {
    fn drop(&mut self) {
        for (life, worker) in &mut self.workers {
            worker::drop_all(worker);
            life.forget();
        }
    }
}

/// What `workers` need to talk to each other.
fn allocators(workers: usize) -> Vec<Allocator> {
    /// An allocator on its way to another thread.
    struct Handed(Allocator);
    // SAFETY: It is built by a thread that ends with that, so nothing else holds a part of it: its `Rc`s have
    // no other owner, and no thread-local state refers to it.
    unsafe impl Send for Handed {}

    // Each waits until all of them are being built.
    let built = timely::communication::initialize(Communication::Process(workers), Handed);
    let built = built.expect("threads of one process").join();
    built
        .into_iter()
        .map(|built| built.expect("nothing there panics").0)
        .collect()
}
