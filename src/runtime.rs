//! Runs a dataflow: workers, the sequencer beside them, the ledger, and a stop that loses nothing.
//!
//! ```text
//!  watch (thread)      topologies ─┐                        ┌─▶ scribe (thread): group commit ─┐
//!  stop, halt ─────────────────────┤                        │                                  │ durable
//!                                  ▼                        │                                  ▼
//!  worker 0   control dataflow: report ═▶ sequencer ═══ orders, to every worker ══▶ desk ──▶ ingest ─▶ operators ─▶ views
//!  worker n   control dataflow: report ═╝                                       ══▶ desk ──▶ ingest ─▶ operators ─▶ views
//!                                                                                                          │ probe
//!             the frontier of the data dataflow has passed an epoch: the process closes it for readers ◀───┘
//! ```
//!
//! The sequencer's messages travel by a timely dataflow of their own, so that a cluster needs no second
//! network. They carry empty stamps: no progress is tracked for them.

mod begin;
pub mod checkpoints;
pub(crate) mod control;
pub mod progress;
mod scribe;
#[cfg(test)]
mod sim;
pub(crate) mod sinks;
pub mod sources;
mod watch;
mod worker;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bridge::{Halt, Waker, panic_text};
use crate::checkpoint::Checkpoints;
use crate::checkpoint::manifest::StepShape;
use crate::checkpoint::store::Restored;
use crate::dataflow::plan::{Plan, PlannedSink, PlannedSource, UnfitState};
use crate::dataflow::{self, Context, Flow};
use crate::error::{Error, Result};
use crate::health::Dependency;
use crate::ingest::Bounds;
use crate::ledger::{Claim, LedgerStore, MemoryLog, Recovered};
use crate::metrics::Metrics;
use crate::position::{Offset, PartitionId, PartitionRange, SourceId};
use crate::runtime::begin::{Led, Parts};
use crate::runtime::control::Lead;
use crate::runtime::progress::{CaughtUp, Left, Recovering};
use crate::runtime::sinks::SinkNow;
use crate::runtime::sources::{PartitionSeen, SourceNow};
use crate::sequencer::Cuts;
use crate::sequencer::results::Compared;
use crate::sink::memory::MemorySinks;
use crate::sink::process::Sinks;
use crate::source::{Environment, Substitute};
use crate::time::Epoch;
use crate::view::Views;

/// In place of sources: what tests feed, made anew for each worker.
pub type Substitutes = Arc<dyn Fn() -> HashMap<String, Substitute> + Send + Sync>;

/// Opens a ledger for a claim.
pub type OpenStore = Arc<dyn Fn(Claim) -> Result<(Box<dyn LedgerStore>, Recovered)> + Send + Sync>;

/// Where the ledger is kept.
#[derive(Clone)]
pub enum Store {
    /// In a directory: what a service uses.
    Directory(PathBuf),
    /// In memory, for tests: a restart finds it in the log again.
    Memory(MemoryLog),
    /// Elsewhere: whatever this opens. For tests, of faults and of what waits for a write.
    Opened(OpenStore),
}

/// The processes of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Which of them this one is.
    pub process: usize,
    /// Address of each one's engine, `host:port`, the same list in every process.
    pub addresses: Vec<String>,
}

/// How a dataflow is run.
#[derive(Clone)]
pub struct Settings {
    /// Worker threads of this process.
    pub workers: usize,
    /// More than one process.
    pub cluster: Option<Cluster>,
    /// Where the ledger is kept.
    pub store: Store,
    /// How epochs are cut.
    pub cuts: Cuts,
    /// How many epochs may be unfinished before no further one opens.
    pub epochs_in_flight_max: usize,
    /// Bounds of what is read ahead.
    pub bounds: Bounds,
    /// Stop when everything that could be read at the start is in.
    pub until_end: bool,
    /// Addresses and settings of the outside.
    pub env: Environment,
    /// How far back views reach that don't say so themselves.
    pub history: Duration,
    /// Whether the ledger records what each epoch came to, so that a replay can be held against it.
    pub on_difference: OnDifference,
    /// Whether checkpoints are made, and where. Processes of a cluster make none.
    pub checkpoints: Option<checkpoints::Settings>,
    /// The ledger lets go of what no checkpoint needs any more, once it is so many bytes; nothing: never.
    pub trim_least: Option<u64>,
    /// Nothing but a replay of what the ledger has up to an epoch: see [`Replay`].
    pub replay: Option<Replay>,
    /// In place of sources.
    pub substitutes: Option<Substitutes>,
    /// In place of the stores of sinks; functions are called all the same.
    pub memory_sinks: Option<MemorySinks>,
}

/// What to do when an epoch that is gone through again comes to another result than the ledger says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDifference {
    /// The service halts, with the view and the epoch.
    #[default]
    Halt,
    /// It is said once, and counted.
    Warn,
    /// Nothing is recorded and nothing compared.
    Ignore,
}

/// Goes through bound epochs again, beside a service that may be running: nothing is claimed, written or
/// bound.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// State is taken from a checkpoint of before this epoch, or made from the ledger's start. `None`: from
    /// as far back as it can be.
    pub from: Option<Epoch>,
    /// The last epoch; `None`: the last that was bound.
    pub to: Option<Epoch>,
    /// Results are compared, whatever build recorded them.
    pub any_build: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 1,
            cluster: None,
            store: Store::Memory(MemoryLog::default()),
            cuts: Cuts::Clock {
                interval: Duration::from_millis(5),
            },
            epochs_in_flight_max: 3,
            bounds: Bounds::default(),
            until_end: false,
            env: Environment::default(),
            history: dataflow::HISTORY,
            on_difference: OnDifference::Halt,
            checkpoints: None,
            trim_least: Some(TRIM_LEAST),
            replay: None,
            substitutes: None,
            memory_sinks: None,
        }
    }
}

/// The build that runs, as people name it.
const BUILD: &str = concat!("thalweg ", env!("CARGO_PKG_VERSION"));

/// A hash of the program's file, which tells two builds of one version apart. It is the file that runs, also
/// where another has taken its name since.
fn program() -> Option<&'static str> {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    let hash = HASH.get_or_init(|| {
        let mut hash = blake3::Hasher::new();
        let running = std::fs::File::open("/proc/self/exe");
        let file = running
            .or_else(|_| std::fs::File::open(std::env::current_exe()?))
            .ok()?;
        // BLAKE3 takes large pieces several chunks at a time.
        let mut file = std::io::BufReader::with_capacity(256 << 10, file);
        std::io::copy(&mut file, &mut hash).ok()?;
        Some(hash.finalize().to_hex()[..16].to_owned())
    });
    hash.as_deref()
}

/// The build with the program's hash.
fn build_id() -> String {
    program().map_or(BUILD.to_owned(), |hash| format!("{BUILD} ({hash})"))
}

/// Rewriting the ledger costs about as much as 10 ms of writing: not for less than this.
pub const TRIM_LEAST: u64 = 4 << 20;

/// A replay sees this many epochs ahead: small epochs would otherwise wait for each other.
const REPLAY_IN_FLIGHT_MAX: usize = 256;

/// What the threads of a process share.
pub(crate) struct Shared {
    pub(crate) flow: Flow,
    pub(crate) settings: Settings,
    pub(crate) views: Arc<Views>,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) halt: Halt,
    pub(crate) inbox: control::Inbox,
    pub(crate) lead: Mutex<Option<Lead>>,
    /// The last epoch of the ledger at the start, 0 for none: the service is ready once it is closed. A
    /// process without the ledger learns it as the epochs are given out.
    pub(crate) replay_to: AtomicU64,
    /// The partitions that the ledger bound before the start: the first offset that is read again, and how
    /// far.
    pub(crate) bound_before: BTreeMap<PartitionId, (Offset, Offset)>,
    /// What each source held when it was first seen: the start of each partition's log, and its end.
    pub(crate) first_ends: Mutex<BTreeMap<SourceId, BTreeMap<u32, (Offset, Offset)>>>,
    /// Whether that was all counted once.
    pub(crate) caught_up: AtomicBool,
    pub(crate) live: AtomicBool,
    pub(crate) ended: AtomicBool,
    /// What of the outside does not do its part now, and how.
    pub(crate) troubles: Mutex<BTreeMap<Dependency, String>>,
    /// The partitions of each source, as they were seen last.
    pub(crate) partitions: Mutex<BTreeMap<String, Vec<PartitionSeen>>>,
    /// The dataflow's sources.
    pub(crate) sources: Vec<PlannedSource>,
    /// Its sinks, as they are planned.
    pub(crate) planned_sinks: Vec<PlannedSink>,
    /// What the newest closed epoch knows of each partition.
    pub(crate) bound: Mutex<BTreeMap<PartitionId, PartitionRange>>,
    /// The sources that are idle as of it.
    pub(crate) idle: Mutex<BTreeSet<SourceId>>,
    pub(crate) compared: Mutex<Compared>,
    /// The checkpoints that are made.
    pub(crate) checkpoints: Option<Checkpoints>,
    /// The one that this run begins with.
    pub(crate) restored: Option<Arc<Restored>>,
}

/// A running dataflow.
pub struct Service {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Draws the plan of a flow, or says everything that is wrong with it. Nothing is connected.
///
/// Of sources that `env` says all about, it is also said which lack something, such as a schema registry.
pub fn plan(flow: &Flow, env: &Environment) -> Result<Arc<PlanText>> {
    let drawn = Arc::new(Mutex::new(None));
    let (flow, env, out) = (flow.clone(), env.clone(), drawn.clone());
    // On a thread of its own: timely keeps a worker's state with the thread.
    let thread = std::thread::Builder::new().name("plan".into()).spawn(move || {
        timely::execute_directly(move |worker| {
            let env = Environment {
                dataflow: flow.name().to_owned(),
                ..env
            };
            let context = Rc::new(Context::dry(env));
            let built = worker
                .dataflow_named::<Epoch, _, _>(flow.name(), |scope| dataflow::build(scope, &flow, &context));
            for index in worker.installed_dataflows() {
                worker.drop_dataflow(index);
            }
            let plan = context.plan.borrow();
            *out.lock() = Some(built.map(|()| PlanText::of(&plan, &context.views)));
        });
    });
    let joined = thread
        .map_err(|error| Error::internal(format!("cannot start a thread: {error}")))?
        .join();
    let drawn = drawn.lock().take();
    match (drawn, joined) {
        (Some(plan), _) => plan.map(Arc::new),
        (None, Err(panic)) => {
            Err(Error::definition("the dataflow's function panicked").detail(panic_text(&*panic)))
        }
        (None, Ok(())) => Err(Error::internal("no plan was drawn")),
    }
}

/// A plan that may leave its thread.
#[derive(Clone)]
pub struct PlanText {
    /// A line a step.
    pub text: String,
    /// The sources.
    pub sources: Vec<PlannedSource>,
    /// What has state that checkpoints hold.
    pub states: Vec<StepShape>,
    /// A step that may keep state where no checkpoint finds it.
    pub unsaved: Option<&'static std::panic::Location<'static>>,
    /// Steps whose types no checkpoint can hold.
    unfit: Vec<UnfitState>,
    /// The names of the views, in order.
    pub views: Vec<String>,
    /// The sinks.
    pub sinks: Vec<PlannedSink>,
}

impl PlanText {
    fn of(plan: &Plan, views: &Views) -> Self {
        Self {
            views: views.names(),
            sinks: plan.sinks.clone(),
            text: plan.to_string(),
            sources: plan.sources.clone(),
            states: plan.states.clone(),
            unsaved: plan.unsaved,
            unfit: plan.unfit.clone(),
        }
    }

    /// Whether checkpoints can hold the state of all steps, as far as types tell. Each entry is looked at
    /// once more when it is written.
    pub fn check_state_types(&self) -> Result<()> {
        let Some(first) = self.unfit.first() else {
            return Ok(());
        };
        let error = Error::definition("checkpoints can't hold the state of the dataflow");
        let error = self
            .unfit
            .iter()
            .fold(error, |error, unfit| error.detail(&unfit.what));
        Err(error.hint(format!(
            "{}; or make none, and all state anew at each start: --set checkpoint.interval=0s",
            first.hint
        )))
    }
}

impl Service {
    /// Starts the workers. Returns once they run; the replay of an earlier run's epochs goes on behind.
    pub fn start(flow: &Flow, mut settings: Settings) -> Result<Self> {
        settings.env.until_end = settings.until_end;
        let plan = plan(flow, &settings.env)?;
        let Parts { shared, led } = Parts::of(flow, &plan, settings)?;
        let mut threads = Vec::new();
        if let Some(Led {
            scribe,
            writer,
            sources,
        }) = led
        {
            if let Some(writer) = writer {
                threads.push(spawn("checkpoints", move || writer.run())?);
            }
            let served = shared.clone();
            threads.push(spawn("ledger", move || scribe.run(&served))?);
            let watched = shared.clone();
            threads.push(spawn("watch", move || watch::watch(&watched, sources))?);
        }
        let engine = shared.clone();
        threads.push(spawn("engine", move || worker::run(&engine))?);
        Ok(Self { shared, threads })
    }

    /// The views that the dataflow keeps.
    pub fn views(&self) -> &Arc<Views> {
        &self.shared.views
    }

    /// The process's metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Raised when the service can't go on.
    pub fn halt(&self) -> &Halt {
        &self.shared.halt
    }

    /// Where the replay of an earlier run stands: `(closed, last)`; nothing once the service is live.
    pub fn replaying(&self) -> Option<(Option<Epoch>, Epoch)> {
        let last = Epoch(self.shared.replay_to.load(Ordering::Acquire));
        let closed = self.shared.views.closed().map(|moment| moment.epoch);
        (last > Epoch::ZERO && closed < Some(last)).then_some((closed, last))
    }

    /// Tells where the recovery of what was bound before this start stands; `None` once it is over. Until
    /// then answers as of the newest epoch would be older than those before the start.
    pub fn recovery(&self) -> impl Fn() -> Option<Recovering> + Send + Sync + 'static {
        progress::teller(&self.shared)
    }

    /// What is left until the service has caught up; `None` from the moment on at which it has, for good. A
    /// process that does not look at the sources never knows.
    pub fn catching_up(&self, when: CaughtUp) -> Option<Left> {
        self.shared.catching_up(when)
    }

    /// How epochs that were gone through again compare with what the ledger says of them.
    pub fn compared(&self) -> Compared {
        *self.shared.compared.lock()
    }

    /// While state is loaded: the epoch of the checkpoint that it is of, and how much of it was read, from 0
    /// to 1.
    pub fn restoring(&self) -> Option<(Epoch, f64)> {
        let restored = self.shared.restored.as_ref()?;
        if self.shared.views.closed().is_some() {
            return None;
        }
        let (epoch, all) = (restored.manifest.epoch, restored.manifest.bytes());
        // Every worker reads all of it, and takes what is its own.
        let all = (all * self.shared.settings.workers as u64).max(1);
        Some((epoch, (restored.bytes_read() as f64 / all as f64).min(1.0)))
    }

    /// The epoch of the checkpoint that this run began with.
    pub fn restored(&self) -> Option<Epoch> {
        let restored = self.shared.restored.as_ref();
        restored.map(|restored| restored.manifest.epoch)
    }

    /// The newest checkpoint that counts: one of this run, or the one that it began with.
    pub fn checkpointed(&self) -> Option<Epoch> {
        self.shared.checkpoints.as_ref()?.newest()
    }

    /// Why the last checkpoint came to nothing, if it did. Answers are none the worse for it; a restart takes
    /// longer.
    pub fn checkpoint_trouble(&self) -> Option<String> {
        self.shared.checkpoints.as_ref()?.trouble()
    }

    /// What goes wrong with sinks, if anything does. They are tried again; once too much waits for one, no
    /// further epoch ends.
    pub fn sink_trouble(&self) -> Option<String> {
        let troubles = self.shared.sinks.troubles();
        let lines: Vec<_> = troubles
            .iter()
            .map(|(name, why)| format!("`{name}`: {why}"))
            .collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Whether the sources are being read beyond what the ledger bound at the start. Every process of a
    /// cluster knows.
    pub fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Acquire) && self.replaying().is_none()
    }

    /// What of the outside does not do its part now, and how. Looked at twice a second.
    pub fn troubles(&self) -> BTreeMap<Dependency, String> {
        self.shared.troubles.lock().clone()
    }

    /// Transactions that stay open, if any do: what lies behind them can't be read before they end, and event
    /// time waits.
    pub fn open_transactions(&self) -> Option<String> {
        let partitions = self.shared.partitions.lock();
        let told = partitions.iter().flat_map(|(source, seen)| {
            let told = seen.iter().filter(|seen| seen.told);
            told.map(move |seen| format!("source `{source}`, {seen}"))
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Tells which partitions a source has, by its name: `None` before they were seen, and in the processes
    /// of a cluster that don't look at the sources. Looked at twice a second.
    pub fn partitions(&self) -> impl Fn(&str) -> Option<Vec<u32>> + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |source| {
            let partitions = shared.partitions.lock();
            let facts = partitions.get(source)?;
            Some(facts.iter().map(|seen| seen.facts.partition).collect())
        }
    }

    /// Tells where all sources stand: their rules, and how far their partitions have come.
    pub fn sources(&self) -> impl Fn() -> Vec<SourceNow> + Send + Sync + 'static {
        sources::teller(&self.shared)
    }

    /// Tells where all sinks stand.
    pub fn sinks(&self) -> impl Fn() -> Vec<SinkNow> + Send + Sync + 'static {
        sinks::teller(&self.shared)
    }

    /// A handle that stops the service from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.clone())
    }

    /// Asks for a stop: no further epoch opens, and those that are open are finished. In a cluster any
    /// process may be asked, and all of them stop.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// Whether all threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(std::thread::JoinHandle::is_finished)
    }

    /// Waits for the end: after a stop, at the end of the input where that was asked for, or at a halt.
    ///
    /// # Errors
    /// What halted the service.
    pub fn join(self) -> Result<Arc<Views>> {
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                self.shared
                    .halt
                    .halt(Error::internal("a thread of the service panicked").detail(panic_text(&*panic)));
            }
        }
        match self.shared.halt.error() {
            Some(error) => Err(error),
            None => Ok(self.shared.views.clone()),
        }
    }
}

/// Stops a [`Service`].
#[derive(Clone)]
pub struct Stopper(Arc<Shared>);

impl Stopper {
    /// Asks for a stop.
    pub fn stop(&self) {
        self.0.sinks.close();
        self.0.inbox.stop();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| Error::internal(format!("cannot start the thread `{name}`: {error}")))
}

/// Wakes whoever waits for the workers' attention.
pub(crate) type WakerSlot = Mutex<Option<Waker>>;
