//! The task of a shard: brings what waits in its queue to the store, on a thread of its own. A slow store
//! holds no worker up before the queue is full, and one that fails is tried again until it takes what it is
//! given.
//!
//! ```text
//!   open ─▶ resume (transactional: the store's progress) ─▶ take ─▶ write or commit ─▶ record progress ─▶ take …  ─▶ close
//!    ▲                                                                  │ Retry
//!    └───────────────────────── transactional, after a pause ───────────┘
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bridge::{Halt, Waker, panic_text};
use crate::error::{Error, Result};
use crate::fault;
use crate::sink::progress::ProgressRecorder;
use crate::sink::queue::SinkQueue;
use crate::sink::resume::{self, ResumeFacts};
use crate::sink::{Batch, Progress, TransactionalWriter, WriteError, Writer, Writers};
use crate::time::Epoch;

/// Rows that are written in one go, but for an epoch that has more.
const WRITE_MAX: usize = 1 << 14;
/// How soon a store that failed is tried again, the first time and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A task that waits looks around this often even if nothing woke it.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// What a task found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskTurn {
    /// Something, and there may be more.
    Worked,
    /// Nothing before something is put in.
    Idle,
    /// Nothing before so much time has passed.
    Wait(Duration),
    /// Nothing any more.
    Ended,
}

/// Takes from a queue and gives to a store.
pub(crate) struct SinkTask {
    pub(super) queue: Arc<SinkQueue>,
    pub(super) writers: Writers,
    pub(super) facts: ResumeFacts,
    pub(super) recorder: ProgressRecorder,
    pub(super) halt: Halt,
    pub(super) closing: Arc<AtomicBool>,
    state: TaskState,
}

#[derive(Default)]
struct TaskState {
    writer: Option<OpenWriter>,
    /// The store has everything up to here.
    after: Option<Epoch>,
    /// Rows that a transactional store has.
    rows: u64,
    /// What the task has in hand.
    taken: Vec<Batch>,
    tries: u32,
}

enum OpenWriter {
    Transactional(Box<dyn TransactionalWriter>),
    Plain(Box<dyn Writer>),
}

impl SinkTask {
    pub(super) fn new(
        queue: Arc<SinkQueue>,
        writers: Writers,
        facts: ResumeFacts,
        recorder: ProgressRecorder,
        (halt, closing): (Halt, Arc<AtomicBool>),
    ) -> Self {
        let halted = queue.clone();
        halt.on_halt(Waker::new(move || halted.interrupt_pause()));
        Self {
            queue,
            writers,
            facts,
            recorder,
            halt,
            closing,
            state: TaskState::default(),
        }
    }

    /// What its thread is called.
    pub(crate) fn name(&self) -> String {
        let shard = &self.queue.shard;
        match shard.of {
            1 => shard.sink.to_string(),
            _ => format!("{}/{}", shard.sink, shard.number),
        }
    }

    /// Goes on until the store has everything, and there will be no more.
    pub(crate) fn run(mut self) {
        loop {
            match self.turn() {
                TaskTurn::Worked => {}
                TaskTurn::Ended => return,
                TaskTurn::Idle => self.queue.wait(LOOK_AROUND),
                TaskTurn::Wait(time) => self.queue.pause(time),
            }
        }
    }

    /// Writes some of what waits.
    pub(crate) fn turn(&mut self) -> TaskTurn {
        if self.halt.is_halted() {
            return TaskTurn::Ended;
        }
        match self.step() {
            Ok(turn) => turn,
            Err(WriteError::Retry(error)) => self.failed(&error),
            Err(WriteError::Refused { row, error }) => {
                let error = self.refused(row, &error);
                self.ended_by(error)
            }
            Err(WriteError::Fatal(error)) => self.ended_by(error),
        }
    }

    fn step(&mut self) -> Result<TaskTurn, WriteError> {
        self.open()?;
        if self.state.taken.is_empty() {
            // Whatever is put in before the end is told is taken.
            let ended = self.queue.is_ended();
            self.state.taken = self.queue.take(WRITE_MAX);
            if self.state.taken.is_empty() {
                if ended {
                    self.close();
                    return Ok(TaskTurn::Ended);
                }
                return Ok(TaskTurn::Idle);
            }
        }
        self.deliver()?;
        Ok(TaskTurn::Worked)
    }

    /// Opens the writer, where there is none, and finds where to go on.
    fn open(&mut self) -> Result<(), WriteError> {
        if self.state.writer.is_some() {
            return Ok(());
        }
        let (writers, shard) = (self.writers.clone(), self.queue.shard.clone());
        let writer = match writers {
            Writers::Versioned(open) | Writers::Repeating(open) => {
                self.state.after = self.facts.complete;
                OpenWriter::Plain(self.call(|| open(&shard))??)
            }
            Writers::Transactional(open) => {
                let mut writer = self.call(|| open(&shard))??;
                let stored = self.call(|| writer.resume())??;
                let last = self.state.taken.last().map(|batch| batch.epoch);
                let facts = ResumeFacts {
                    given: self.facts.given.max(last),
                    ..self.facts
                };
                let resume = resume::from_store(&facts, stored.as_ref())
                    .map_err(|refusal| WriteError::Fatal(refusal.error(&shard.sink)))?;
                (self.state.after, self.state.rows) = (resume.after, resume.rows);
                OpenWriter::Transactional(writer)
            }
        };
        self.state.writer = Some(writer);
        Ok(())
    }

    /// Writes what is in hand, but for what the store has, and has that recorded.
    fn deliver(&mut self) -> Result<(), WriteError> {
        let taken = std::mem::take(&mut self.state.taken);
        let known = taken.partition_point(|batch| Some(batch.epoch) <= self.state.after);
        let delivered = self.deliver_fresh(&taken[known..]);
        self.state.taken = taken;
        delivered?;
        let (taken, state) = (std::mem::take(&mut self.state.taken), &mut self.state);
        let last = taken.last().map(|batch| batch.epoch);
        state.after = state.after.max(last);
        self.facts.complete = self.facts.complete.max(state.after);
        self.facts.given = self.facts.given.max(state.after);
        // Also what a store had committed although it said that it had not.
        self.facts.delivered = self.facts.delivered.max(last);
        state.tries = 0;
        if self.queue.written(&taken, &taken[known..]) {
            tracing::info!(sink = %self.name(), "sink accepts rows again");
        }
        if let Some(complete) = self.facts.complete {
            self.recorder.record(complete, self.facts.delivered);
        }
        self.recorder.waker.wake();
        Ok(())
    }

    fn deliver_fresh(&mut self, fresh: &[Batch]) -> Result<(), WriteError> {
        if !fresh.is_empty() {
            fault::point("sink.given");
            self.write(fresh)?;
            fault::point("sink.written");
        }
        Ok(())
    }

    fn write(&mut self, fresh: &[Batch]) -> Result<(), WriteError> {
        let Some(mut writer) = self.state.writer.take() else {
            return Ok(());
        };
        let rows: usize = fresh.iter().map(|batch| batch.rows.len()).sum();
        let progress = Progress {
            ledger: self.facts.ledger,
            generation: self.facts.generation,
            epoch: fresh.last().map(|batch| batch.epoch).unwrap_or_default(),
            rows: self.state.rows + rows as u64,
        };
        let written = self.call(|| match &mut writer {
            OpenWriter::Plain(writer) => writer.write(fresh),
            OpenWriter::Transactional(writer) => writer.commit(fresh, &progress),
        })?;
        // Whether a transaction that failed was committed only another writer can tell.
        if written.is_ok() || matches!(writer, OpenWriter::Plain(_)) {
            self.state.writer = Some(writer);
        }
        written?;
        self.state.rows = progress.rows;
        Ok(())
    }

    /// Calls into the store's code.
    fn call<T>(&self, call: impl FnOnce() -> T) -> Result<T, WriteError> {
        self.queue.calls();
        let returned = catch_unwind(AssertUnwindSafe(call));
        self.queue.called();
        returned.map_err(|panic| {
            WriteError::Fatal(
                Error::definition(format!("sink `{}` panicked", self.queue.shard.sink))
                    .detail(panic_text(&*panic))
                    .hint("its epochs are given to it again at the next start"),
            )
        })
    }

    fn close(&mut self) {
        let Some(mut writer) = self.state.writer.take() else {
            return;
        };
        let closed = self.call(|| match &mut writer {
            OpenWriter::Plain(writer) => writer.close(),
            OpenWriter::Transactional(writer) => writer.close(),
        });
        if let Ok(Err(error)) = closed {
            tracing::warn!(sink = %self.name(), %error, "sink has every row but cannot be closed");
        }
    }

    fn ended_by(&self, error: Error) -> TaskTurn {
        self.halt.halt(error);
        TaskTurn::Ended
    }

    /// For a person: which row, and why.
    fn refused(&self, (batch, row): (usize, usize), why: &Error) -> Error {
        let error = Error::definition(format!("sink `{}` refuses a row", self.queue.shard.sink)).detail(why);
        // It counts from the first batch that it was given.
        let taken = self.state.taken.iter();
        let mut given = taken.filter(|batch| Some(batch.epoch) > self.state.after);
        let Some(batch) = given.nth(batch) else {
            return error;
        };
        let error = error.detail(format!("in epoch {}", batch.epoch));
        let row = batch
            .rows
            .get(row)
            .and_then(|row| row.json(&self.queue.shard.schema));
        row.into_iter().fold(error, |error, row| error.detail(row))
    }

    fn failed(&mut self, error: &Error) -> TaskTurn {
        let first = self.queue.failed(&error.to_string());
        let name = self.name();
        if self.closing.load(Ordering::Acquire) {
            tracing::warn!(sink = %name, %error, "stopping without this sink; it resumes at the next start");
            self.queue.give_up();
            self.recorder.waker.wake();
            return TaskTurn::Ended;
        }
        if first {
            tracing::warn!(sink = %name, %error, "sink write failed; retrying until it succeeds");
        }
        let state = &mut self.state;
        let wait = RETRY_AFTER
            .0
            .saturating_mul(1 << state.tries.min(10))
            .min(RETRY_AFTER.1);
        state.tries += 1;
        TaskTurn::Wait(wait)
    }
}

#[cfg(test)]
mod tests;
