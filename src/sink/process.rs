//! The sinks of a process: where each shard has come to, and what runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bridge::{Halt, Waker};
use crate::error::Result;
use crate::metrics::SinkMetrics;
use crate::schema::RowSchema;
use crate::sink::progress::{Place, Progress, Record, Unrecorded};
use crate::sink::queue::{Producer, Queue, ShardState};
use crate::sink::resume::Facts;
use crate::sink::task::SinkTask;
use crate::sink::{Shard, Writers};
use crate::time::Epoch;

/// So long a call of a writer may take, before its sink is in trouble.
const CALL_MAX: Duration = Duration::from_secs(30);

/// The sinks of a process.
#[derive(Default)]
pub(crate) struct Sinks {
    run: Run,
    /// Where each shard has come to, as of the start.
    reached: BTreeMap<String, Vec<Option<Epoch>>>,
    progress: Mutex<BTreeMap<(String, u32), Progress>>,
    queues: Mutex<Vec<Arc<Queue>>>,
    tasks: Mutex<Vec<SinkTask>>,
    /// Woken when a shard has delivered something.
    on_delivered: Arc<Mutex<Option<Waker>>>,
    closing: Arc<AtomicBool>,
    /// Nothing leaves: this is a plan, or a replay to compare with.
    dry: bool,
}

/// What a run of a service begins with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// When the ledger was made.
    pub ledger: u64,
    /// The generation of this service.
    pub generation: u64,
    /// The ledger's last epoch.
    pub last: Option<Epoch>,
}

/// A sink that rows are to go to.
#[derive(Clone)]
pub(crate) struct Connection {
    pub sink: Arc<str>,
    pub shards: u32,
    pub schema: Arc<RowSchema>,
    pub writers: Writers,
    /// The checkpoint that this run began with.
    pub restored: Option<Epoch>,
    pub halt: Halt,
    pub metrics: SinkMetrics,
}

impl Sinks {
    /// From which nothing leaves.
    pub(crate) fn dry() -> Self {
        Self {
            dry: true,
            ..Self::default()
        }
    }

    /// The sinks of these names and numbers of shards, where each has come to noted in `place`; without one, starts know
    /// nothing of each other.
    ///
    /// # Errors
    /// Those of [`Place::open`].
    pub(crate) fn open<'a>(
        names: impl Iterator<Item = (&'a str, u32)>,
        run: Run,
        place: Option<&Place>,
    ) -> Result<Self> {
        let mut sinks = Self {
            run,
            ..Self::default()
        };
        for (name, shards) in names {
            let mut all = Vec::new();
            for shard in 0..shards {
                let opened = place.map(|place| place.open(name, shard)).transpose()?;
                let (progress, reached) = match opened {
                    Some((progress, reached)) => (Some(progress), reached),
                    None => (None, None),
                };
                all.push(reached);
                let progress = progress.map(|progress| ((name.to_owned(), shard), progress));
                sinks.progress.get_mut().extend(progress);
            }
            sinks.reached.insert(name.to_owned(), all);
        }
        Ok(sinks)
    }

    /// The last epoch that a shard had at the start.
    pub(crate) fn reached(&self, sink: &str, shard: u32) -> Option<Epoch> {
        self.reached.get(sink)?.get(shard as usize).copied()?
    }

    /// The way to a shard, for the one operator that fills it; `None` where nothing leaves.
    pub(crate) fn connect(&self, to: &Connection, shard: u32, room: Waker) -> Option<Producer> {
        if self.dry {
            return None;
        }
        let described = Shard {
            sink: to.sink.clone(),
            number: shard,
            of: to.shards,
            schema: to.schema.clone(),
            call_max: CALL_MAX,
        };
        let queue = Queue::new(described, to.metrics.clone());
        let facts = Facts {
            ledger: self.run.ledger,
            generation: self.run.generation,
            given: self.run.last,
            recorded: self.reached(&to.sink, shard),
            restored: to.restored,
        };
        let progress = self.progress.lock().remove(&(to.sink.to_string(), shard));
        let record: Box<dyn Record> = match progress {
            Some(progress) => Box::new(progress),
            None => Box::new(Unrecorded),
        };
        let on_delivered = self.on_delivered.clone();
        let waker = Waker::new(move || {
            room.wake();
            if let Some(waker) = &*on_delivered.lock() {
                waker.wake();
            }
        });
        let ends = (waker, to.halt.clone(), self.closing.clone());
        let task = SinkTask::new(queue.clone(), to.writers.clone(), facts, record, ends);
        self.queues.lock().push(queue.clone());
        self.tasks.lock().push(task);
        Some(Producer(queue))
    }

    /// What there is to run and does not yet, each on a thread of its own.
    pub(crate) fn tasks(&self) -> Vec<SinkTask> {
        std::mem::take(&mut *self.tasks.lock())
    }

    /// Wakes somebody whenever a shard has delivered something.
    pub(crate) fn on_delivered(&self, waker: Waker) {
        *self.on_delivered.lock() = Some(waker);
    }

    /// Whether no row of `epoch` or before waits.
    pub(crate) fn is_clear(&self, epoch: Epoch) -> bool {
        self.queues.lock().iter().all(|queue| queue.is_clear(epoch))
    }

    /// Whether all sinks take on: one that failed while the service was about to end does not.
    pub(crate) fn take_on(&self) -> bool {
        self.queues.lock().iter().all(|queue| !queue.is_given_up())
    }

    /// The service is about to end: a sink that fails now is given up, and gets its rows at the next start.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.queues.lock().iter().for_each(|queue| queue.wake());
    }

    /// How the shards of each sink are doing.
    pub(crate) fn states(&self) -> BTreeMap<Arc<str>, Vec<ShardState>> {
        let mut states = BTreeMap::<Arc<str>, Vec<ShardState>>::new();
        for queue in self.queues.lock().iter() {
            let sink = queue.shard.sink.clone();
            states.entry(sink).or_default().push(queue.state());
        }
        states
    }

    /// What goes wrong with each, where something does.
    pub(crate) fn troubles(&self) -> Vec<(String, String)> {
        let trouble = |(sink, shards): (Arc<str>, Vec<ShardState>)| {
            let why = shards.into_iter().find_map(|shard| shard.trouble)?;
            Some((sink.to_string(), why))
        };
        self.states().into_iter().filter_map(trouble).collect()
    }
}
