//! The sinks of a process: where each shard has come to, and what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bridge::{Halt, Waker};
use crate::error::{Error, Result, count};
use crate::ledger::ShardProgress;
use crate::metrics::SinkMetrics;
use crate::schema::RowSchema;
use crate::sink::progress::{ProgressLog, ProgressRecorder};
use crate::sink::queue::{DrainState, QueueProducer, ShardStatus, SinkQueue};
use crate::sink::resume::ResumeFacts;
use crate::sink::task::SinkTask;
use crate::sink::{Shard, Writers};
use crate::time::Epoch;

/// So long a call of a writer may take, before its sink is in trouble.
const CALL_MAX: Duration = Duration::from_secs(30);

/// The sinks of a process.
#[derive(Default)]
pub(crate) struct ProcessSinks {
    run: SinkRun,
    /// Where each shard had come to at the start, as far as the ledger knows.
    known: BTreeMap<String, Vec<Option<ShardProgress>>>,
    log: Mutex<Option<Arc<dyn ProgressLog>>>,
    shards: Mutex<Vec<ProgressRecorder>>,
    tasks: Mutex<Vec<SinkTask>>,
    /// Woken when a shard has delivered something.
    on_delivered: Arc<Mutex<Option<Waker>>>,
    closing: Arc<AtomicBool>,
    /// Nothing leaves: this is a plan, or a replay to compare with.
    dry: bool,
}

/// What a run of a service begins with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SinkRun {
    /// When the ledger was made.
    pub ledger: u64,
    /// The generation of this service.
    pub generation: u64,
    /// The ledger's last epoch.
    pub last: Option<Epoch>,
}

/// A sink that rows are to go to.
#[derive(Clone)]
pub(crate) struct SinkConnection {
    pub sink: Arc<str>,
    pub shards: u32,
    pub schema: Arc<RowSchema>,
    pub writers: Writers,
    pub halt: Halt,
    pub metrics: SinkMetrics,
}

impl ProcessSinks {
    /// From which nothing leaves.
    pub(crate) fn dry() -> Self {
        Self {
            dry: true,
            ..Self::default()
        }
    }

    /// The sinks of these names and numbers of shards, of which the ledger knows this; without a `log`,
    /// starts know nothing of each other.
    ///
    /// # Errors
    /// [`Definition`](crate::Kind::Definition): a sink had another number of shards.
    pub(crate) fn open<'a>(
        sinks: impl Iterator<Item = (&'a str, u32, Option<Vec<Option<ShardProgress>>>)>,
        run: SinkRun,
        log: Option<Arc<dyn ProgressLog>>,
    ) -> Result<Self> {
        let mut known = BTreeMap::new();
        for (name, shards, shards_known) in sinks {
            let Some(shards_known) = shards_known else {
                continue;
            };
            if shards_known.len() != shards as usize {
                let had = count(shards_known.len() as u64, "shard");
                return Err(
                    Error::definition(format!("sink `{name}` has another number of shards"))
                        .detail(format!("it had {had}, and now has {shards}"))
                        .hint(
                            "rows stay in their shards, so the number can't change: put it back; or give the \
                        sink another name, and an empty store, to fill it anew",
                        ),
                );
            }
            known.insert(name.to_owned(), shards_known);
        }
        Ok(Self {
            run,
            known,
            log: Mutex::new(log),
            ..Self::default()
        })
    }

    /// The epoch up to which a shard had everything at the start, as far as the ledger knows.
    pub(crate) fn complete(&self, sink: &str, shard: u32) -> Option<Epoch> {
        self.known(sink, shard).map(|known| known.complete)
    }

    fn known(&self, sink: &str, shard: u32) -> Option<&ShardProgress> {
        self.known.get(sink)?.get(shard as usize)?.as_ref()
    }

    /// The way to a shard, for the one operator that fills it; `None` where nothing leaves.
    pub(crate) fn connect(&self, to: &SinkConnection, shard: u32, room: Waker) -> Option<QueueProducer> {
        if self.dry {
            return None;
        }
        let described = Shard {
            sink: to.sink.clone(),
            number: shard,
            of: to.shards,
            schema: to.schema.clone(),
            ledger: self.run.ledger,
            generation: self.run.generation,
            call_max: CALL_MAX,
        };
        let queue = SinkQueue::new(described, to.metrics.clone());
        let known = self.known(&to.sink, shard);
        let facts = ResumeFacts {
            ledger: self.run.ledger,
            generation: self.run.generation,
            given: self.run.last,
            complete: known.map(|known| known.complete),
            delivered: known.and_then(|known| known.delivered),
        };
        queue.begin(facts.complete, facts.delivered);
        let on_delivered = self.on_delivered.clone();
        let waker = Waker::new(move || {
            room.wake();
            if let Some(waker) = &*on_delivered.lock() {
                waker.wake();
            }
        });
        let recorder = ProgressRecorder {
            log: self.log.lock().clone(),
            queue: queue.clone(),
            waker,
        };
        self.shards.lock().push(recorder.clone());
        let ends = (to.halt.clone(), self.closing.clone());
        let task = SinkTask::new(queue.clone(), to.writers.clone(), facts, recorder, ends);
        self.tasks.lock().push(task);
        Some(QueueProducer(queue))
    }

    /// What there is to run and does not yet, each on a thread of its own.
    pub(crate) fn tasks(&self) -> Vec<SinkTask> {
        std::mem::take(&mut *self.tasks.lock())
    }

    /// Wakes somebody whenever a shard has delivered something.
    pub(crate) fn on_delivered(&self, waker: Waker) {
        *self.on_delivered.lock() = Some(waker);
    }

    /// Whether all stores have everything up to `epoch`, which is closed, and the next start will know.
    pub(crate) fn is_clear(&self, epoch: Epoch) -> bool {
        let mut is_clear = true;
        for shard in self.shards.lock().iter() {
            match shard.queue.cleared(epoch) {
                DrainState::Recorded => continue,
                DrainState::Tell(delivered) => shard.record(epoch, delivered),
                DrainState::Waits | DrainState::Told => {}
            }
            is_clear &= matches!(shard.queue.cleared(epoch), DrainState::Recorded);
        }
        is_clear
    }

    /// Whether all sinks take on: one that failed while the service was about to end does not.
    pub(crate) fn take_on(&self) -> bool {
        self.shards.lock().iter().all(|shard| !shard.queue.is_given_up())
    }

    /// All tasks have ended: nothing more is written down.
    pub(crate) fn end(&self) {
        *self.log.lock() = None;
        self.shards.lock().iter_mut().for_each(|shard| shard.log = None);
    }

    /// The service is about to end: a sink that fails now is given up, and gets its rows at the next start.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.shards
            .lock()
            .iter()
            .for_each(|shard| shard.queue.interrupt_pause());
    }

    /// How the shards of each sink are doing.
    pub(crate) fn states(&self) -> BTreeMap<Arc<str>, Vec<ShardStatus>> {
        let mut states = BTreeMap::<Arc<str>, Vec<ShardStatus>>::new();
        for ProgressRecorder { queue, .. } in self.shards.lock().iter() {
            let sink = queue.shard.sink.clone();
            states.entry(sink).or_default().push(queue.state());
        }
        states
    }

    /// What goes wrong with each, where something does.
    pub(crate) fn troubles(&self) -> Vec<(String, String)> {
        let trouble = |(sink, shards): (Arc<str>, Vec<ShardStatus>)| {
            let why = shards.into_iter().find_map(|shard| shard.trouble)?;
            Some((sink.to_string(), why))
        };
        self.states().into_iter().filter_map(trouble).collect()
    }
}
