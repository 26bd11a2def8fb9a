//! Runs a dataflow: workers, the sequencer, the ledger, and a clean shutdown.
//!
//! ```text
//!  watch (thread)      topologies ─┐                        ┌─▶ writer (thread): group commit ─┐
//!  stop, halt ─────────────────────┤                        │                                  │ durable
//!                                  ▼                        │                                  ▼
//!  worker 0   control dataflow: report ═▶ sequencer ═══ orders, to every worker ══▶ context ──▶ ingest ─▶ operators ─▶ views
//!  worker n   control dataflow: report ═╝                                       ══▶ context ──▶ ingest ─▶ operators ─▶ views
//!                                                                                                          │ probe
//!             the frontier of the data dataflow has passed an epoch: the process closes it for readers ◀───┘
//! ```
//!
//! The sequencer's messages travel in a timely dataflow of their own, so that a cluster needs no second
//! network. They carry empty timestamps: no progress is tracked for them.

pub mod checkpoints;
pub mod cluster;
pub(crate) mod control;
mod gather;
mod ledger_writer;
mod observations;
mod peer_request;
pub mod progress;
#[cfg(test)]
mod sim;
pub(crate) mod sinks;
pub mod sources;
mod startup;
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
use crate::checkpoint::manifest::StepSignature;
use crate::checkpoint::store::RestoredCheckpoint;
use crate::dataflow::plan::{Plan, PlannedSink, PlannedSource, UnencodableState};
use crate::dataflow::{self, BuildContext, Flow};
use crate::error::{Error, Result};
use crate::health::Dependency;
use crate::ingest::BufferLimits;
use crate::ledger::{Claim, LedgerStore, MemoryLog, Recovered};
pub use crate::mesh::Cluster;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::position::{Offset, PartitionId, PartitionRange, SourceId};
use crate::runtime::control::Leader;
use crate::runtime::progress::{CaughtUp, RecoveryProgress, RemainingRecords};
use crate::runtime::sinks::SinkStatus;
use crate::runtime::sources::{PartitionLook, SourceStatus};
use crate::runtime::startup::{LeaderParts, ProcessParts};
use crate::sequencer::Cuts;
use crate::sequencer::results::ComparisonReport;
use crate::sink::memory::MemorySinks;
use crate::sink::process::ProcessSinks;
use crate::sink::queue::ShardStatus;
use crate::source::{Environment, Substitute};
use crate::time::Epoch;
use crate::view::Views;

/// Sources to replace with test input, created anew for each worker.
pub type SourceSubstitutes = Arc<dyn Fn() -> HashMap<String, Substitute> + Send + Sync>;

/// Opens a ledger for a claim.
pub type OpenStore = Arc<dyn Fn(Claim) -> Result<(Box<dyn LedgerStore>, Recovered)> + Send + Sync>;

/// The location of the ledger.
#[derive(Clone)]
pub enum LedgerLocation {
    /// A directory, as services use.
    Directory(PathBuf),
    /// In memory, for tests: a restart finds it in the log again.
    Memory(MemoryLog),
    /// Opened by this function, for tests of faults and of code that waits for a write.
    Opened(OpenStore),
}

/// How to run a dataflow.
#[derive(Clone)]
pub struct RunSettings {
    /// Number of worker threads in this process.
    pub workers: usize,
    /// Set if there is more than one process.
    pub cluster: Option<Cluster>,
    /// The location of the ledger.
    pub store: LedgerLocation,
    /// The policy that cuts epochs.
    pub cuts: Cuts,
    /// Maximum number of unfinished epochs: no further one opens until one closes.
    pub epochs_in_flight_max: usize,
    /// Limits on reading ahead.
    pub bounds: BufferLimits,
    /// Whether to stop after processing what the sources held at the start.
    pub until_end: bool,
    /// Addresses and settings of external systems.
    pub env: Environment,
    /// History of views that do not set their own.
    pub history: Duration,
    /// Whether the ledger records the result of each epoch, to verify replays against it.
    pub on_difference: OnDifference,
    /// Whether and where to write checkpoints. In a cluster, the process with the ledger writes those of all.
    pub checkpoints: Option<checkpoints::CheckpointSettings>,
    /// Trims the ledger once that many bytes are no longer needed by any checkpoint; never if `None`.
    pub trim_least: Option<u64>,
    /// Only replays the ledger up to an epoch: see [`Replay`].
    pub replay: Option<Replay>,
    /// Sources to replace.
    pub substitutes: Option<SourceSubstitutes>,
    /// In place of the stores of sinks; functions are called all the same.
    pub memory_sinks: Option<MemorySinks>,
}

/// What to do if a replayed epoch has a different result than the ledger recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDifference {
    /// Halt, naming the view and the epoch.
    #[default]
    Halt,
    /// Log it once, and count it.
    Warn,
    /// Neither record nor compare results.
    Ignore,
}

/// Replays bound epochs, possibly next to the running service: nothing is claimed, written or bound.
#[derive(Clone, Copy, Debug)]
pub struct Replay {
    /// State is restored from a checkpoint before this epoch, or rebuilt from the ledger's start. `None`: as
    /// early as possible.
    pub from: Option<Epoch>,
    /// The last epoch to replay; `None`: the last bound one.
    pub to: Option<Epoch>,
    /// Compare results whichever build recorded them.
    pub any_build: bool,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            cluster: None,
            store: LedgerLocation::Memory(MemoryLog::default()),
            cuts: Cuts::Clock {
                interval: Duration::from_millis(5),
            },
            epochs_in_flight_max: 3,
            bounds: BufferLimits::default(),
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

/// The build, for people.
const BUILD: &str = concat!("thalweg ", env!("CARGO_PKG_VERSION"));

/// A hash of the program's file, which distinguishes two builds of one version. It is the running file, even
/// if another has since taken its name.
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

/// Rewriting the ledger costs about as much as 10 ms of writing, so smaller trims are not worthwhile.
pub const TRIM_LEAST: u64 = 4 << 20;

/// A replay looks this many epochs ahead: otherwise small epochs would wait for each other.
const REPLAY_IN_FLIGHT_MAX: usize = 256;

/// State that the threads of a process share.
pub(crate) struct ProcessState {
    pub(crate) flow: Flow,
    pub(crate) settings: RunSettings,
    pub(crate) views: Arc<Views>,
    pub(crate) sinks: Arc<ProcessSinks>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) halt: Halt,
    pub(crate) inbox: control::SequencerInbox,
    pub(crate) leader: Mutex<Option<Leader>>,
    /// The last epoch of the ledger at the start, or 0: the service is ready once it is closed. A process
    /// without the ledger learns it as the epochs are replayed.
    pub(crate) replay_to: AtomicU64,
    /// The partitions bound before the start: the first offset to be read again, and the end.
    pub(crate) bound_before: OnceLock<BTreeMap<PartitionId, (Offset, Offset)>>,
    /// What each source held when it was first observed: the start and end of each partition's log.
    pub(crate) first_ends: Mutex<BTreeMap<SourceId, BTreeMap<u32, (Offset, Offset)>>>,
    /// Whether all of that has been processed.
    pub(crate) caught_up: AtomicBool,
    pub(crate) live: AtomicBool,
    pub(crate) ended: AtomicBool,
    /// Unhealthy external dependencies, with the reason.
    pub(crate) troubles: Mutex<BTreeMap<Dependency, String>>,
    /// The shards of sinks that another process writes to.
    pub(crate) sinks_elsewhere: Mutex<BTreeMap<String, Vec<ShardStatus>>>,
    /// The partitions of each source, as last observed.
    pub(crate) partitions: Mutex<BTreeMap<String, Vec<PartitionLook>>>,
    /// The dataflow's sources.
    pub(crate) sources: Vec<PlannedSource>,
    /// The planned sinks.
    pub(crate) planned_sinks: Vec<PlannedSink>,
    /// The state of each partition as of the newest closed epoch.
    pub(crate) bound: Mutex<BTreeMap<PartitionId, PartitionRange>>,
    /// The sources that are idle as of it.
    pub(crate) idle: Mutex<BTreeSet<SourceId>>,
    pub(crate) compared: Mutex<ComparisonReport>,
    /// The checkpoints, if enabled. A process without the ledger learns that when it joins the cluster.
    pub(crate) checkpoints: OnceLock<Checkpoints>,
    /// The checkpoint that this run resumes from, if there is one. Learned likewise.
    pub(crate) restored: OnceLock<Arc<RestoredCheckpoint>>,
    /// The signatures of stateful steps.
    pub(crate) states: Vec<StepSignature>,
    /// Identifies the plan to other processes.
    pub(crate) plan_hash: u64,
    /// The connections to the other processes, once they are there.
    pub(crate) mesh: OnceLock<Arc<Mesh>>,
}

/// A running dataflow.
pub struct Service {
    shared: Arc<ProcessState>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Draws the plan of a flow, or returns all mistakes in it. Connects to nothing.
///
/// For sources that `env` fully describes, this also reports missing settings, such as a schema registry.
pub fn plan(flow: &Flow, env: &Environment) -> Result<Arc<PlanSummary>> {
    let drawn = Arc::new(Mutex::new(None));
    let (flow, env, out) = (flow.clone(), env.clone(), drawn.clone());
    // On its own thread: timely keeps a worker's state in thread-locals.
    let thread = std::thread::Builder::new().name("plan".into()).spawn(move || {
        timely::execute_directly(move |worker| {
            let env = Environment {
                dataflow: flow.name().to_owned(),
                ..env
            };
            let context = Rc::new(BuildContext::dry(env));
            let built = worker
                .dataflow_named::<Epoch, _, _>(flow.name(), |scope| dataflow::build(scope, &flow, &context));
            for index in worker.installed_dataflows() {
                worker.drop_dataflow(index);
            }
            let plan = context.plan.borrow();
            *out.lock() = Some(built.map(|()| PlanSummary::of(&plan, &context.views)));
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
        (None, Ok(())) => Err(Error::internal("the dataflow produced no plan")),
    }
}

/// A plan that can be sent to other threads.
#[derive(Clone)]
pub struct PlanSummary {
    /// One line per step.
    pub text: String,
    /// The sources.
    pub sources: Vec<PlannedSource>,
    /// The signatures of stateful steps.
    pub states: Vec<StepSignature>,
    /// A step that may keep state that checkpoints cannot capture.
    pub unsaved: Option<&'static std::panic::Location<'static>>,
    /// Steps whose state types checkpoints cannot hold.
    unfit: Vec<UnencodableState>,
    /// The names of the views, in order.
    pub views: Vec<String>,
    /// The sinks.
    pub sinks: Vec<PlannedSink>,
}

impl PlanSummary {
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

    /// Checks that checkpoints can hold the state of all steps, as far as types tell. Each entry is verified
    /// again when it is written.
    pub fn check_state_types(&self) -> Result<()> {
        let Some(first) = self.unfit.first() else {
            return Ok(());
        };
        let error = Error::definition("checkpoints cannot hold the state of the dataflow");
        let error = self
            .unfit
            .iter()
            .fold(error, |error, unfit| error.detail(&unfit.what));
        Err(error.hint(format!(
            "{}; or disable checkpoints, and rebuild all state at each start: --set checkpoint.interval=0s",
            first.hint
        )))
    }
}

impl Service {
    /// Starts the workers. Returns once they run; the replay of an earlier run's epochs continues in the
    /// background.
    pub fn start(flow: &Flow, mut settings: RunSettings) -> Result<Self> {
        settings.env.until_end = settings.until_end;
        let plan = plan(flow, &settings.env)?;
        let ProcessParts { shared, leader_parts } = ProcessParts::of(flow, &plan, settings)?;
        let mut threads = Vec::new();
        if let Some(LeaderParts {
            ledger_writer,
            writer,
            sources,
        }) = leader_parts
        {
            if let Some(writer) = writer {
                threads.push(spawn("checkpoints", move || writer.run())?);
            }
            let served = shared.clone();
            threads.push(spawn("ledger", move || ledger_writer.run(&served))?);
            let watched = shared.clone();
            threads.push(spawn("watch", move || watch::watch(&watched, sources))?);
        }
        let engine = shared.clone();
        threads.push(spawn("engine", move || worker::run(&engine))?);
        Ok(Self { shared, threads })
    }

    /// The dataflow's views.
    pub fn views(&self) -> &Arc<Views> {
        &self.shared.views
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Raised when the service cannot continue.
    pub fn halt(&self) -> &Halt {
        &self.shared.halt
    }

    /// Whether the other processes of the cluster are still to be connected.
    pub fn is_forming(&self) -> bool {
        self.shared.settings.cluster.is_some() && self.shared.mesh.get().is_none()
    }

    /// The progress of replaying an earlier run, as `(closed, last)`; `None` once the service is live.
    pub fn replaying(&self) -> Option<(Option<Epoch>, Epoch)> {
        let last = Epoch(self.shared.replay_to.load(Ordering::Acquire));
        let closed = self.shared.views.closed().map(|snapshot| snapshot.epoch);
        (last > Epoch::ZERO && closed < Some(last)).then_some((closed, last))
    }

    /// The progress of recovering what was bound before this start; `None` once it is complete. Until then,
    /// reads of the newest epoch would be older than reads before the restart.
    pub fn recovery(&self) -> impl Fn() -> Option<RecoveryProgress> + Send + Sync + 'static {
        progress::status_fn(&self.shared)
    }

    /// What remains until the service has caught up; `None` from then on, for good. A process that does not
    /// observe the sources never knows.
    pub fn catching_up(&self, when: CaughtUp) -> Option<RemainingRecords> {
        self.shared.catching_up(when)
    }

    /// How the results of replayed epochs compare with the ledger's.
    pub fn compared(&self) -> ComparisonReport {
        *self.shared.compared.lock()
    }

    /// While state is loaded: the epoch of the checkpoint, and the share that was read, from 0 to 1.
    pub fn restoring(&self) -> Option<(Epoch, f64)> {
        let restored = self.shared.restored.get()?;
        if self.shared.views.closed().is_some() {
            return None;
        }
        let (epoch, all) = (restored.manifest.epoch, restored.manifest.bytes());
        // Every worker reads all of it and takes its share.
        let all = (all * self.shared.settings.workers as u64).max(1);
        Some((epoch, (restored.bytes_read() as f64 / all as f64).min(1.0)))
    }

    /// The epoch of the checkpoint that this run resumed from.
    pub fn restored(&self) -> Option<Epoch> {
        let restored = self.shared.restored.get();
        restored.map(|restored| restored.manifest.epoch)
    }

    /// The newest complete checkpoint: one of this run, or the one that it resumed from.
    pub fn checkpointed(&self) -> Option<Epoch> {
        self.shared.checkpoints.get()?.newest()
    }

    /// Why the last checkpoint failed, if it did. Reads are not affected; a restart takes longer.
    pub fn checkpoint_trouble(&self) -> Option<String> {
        self.shared.checkpoints.get()?.trouble()
    }

    /// The errors of sinks, if any. Writes are retried; once too much is queued for a sink, no further epoch
    /// closes.
    pub fn sink_trouble(&self) -> Option<String> {
        let troubles = self.shared.sinks.troubles();
        let lines: Vec<_> = troubles
            .iter()
            .map(|(name, why)| format!("`{name}`: {why}"))
            .collect();
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Whether the sources are being read beyond what the ledger had bound at the start. Known in every
    /// process of a cluster.
    pub fn is_live(&self) -> bool {
        self.shared.live.load(Ordering::Acquire) && self.replaying().is_none()
    }

    /// Unhealthy external dependencies, with the reason. Updated twice a second.
    pub fn troubles(&self) -> BTreeMap<Dependency, String> {
        self.shared.troubles.lock().clone()
    }

    /// Open transactions, if any: records behind them cannot be read before they end, and event time waits.
    pub fn open_transactions(&self) -> Option<String> {
        let partitions = self.shared.partitions.lock();
        let told = partitions.iter().flat_map(|(source, seen)| {
            let told = seen.iter().filter(|seen| seen.told);
            told.map(move |seen| format!("source `{source}`, {seen}"))
        });
        let told: Vec<String> = told.collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// Returns the partitions of a source, by its name: `None` before they were observed, and in the
    /// processes of a cluster that do not observe the sources. Updated twice a second.
    pub fn partitions(&self) -> impl Fn(&str) -> Option<Vec<u32>> + Send + Sync + 'static {
        let shared = self.shared.clone();
        move |source| {
            let partitions = shared.partitions.lock();
            let facts = partitions.get(source)?;
            Some(facts.iter().map(|seen| seen.facts.partition).collect())
        }
    }

    /// Returns the status of all sources: their rules, and the positions of their partitions.
    pub fn sources(&self) -> impl Fn() -> Vec<SourceStatus> + Send + Sync + 'static {
        sources::status_fn(&self.shared)
    }

    /// Returns the status of all sinks.
    pub fn sinks(&self) -> impl Fn() -> Vec<SinkStatus> + Send + Sync + 'static {
        sinks::status_fn(&self.shared)
    }

    /// Returns the status of the cluster, if there is one; blocks for up to half a second.
    pub fn cluster(&self) -> impl Fn() -> Option<cluster::ClusterStatus> + Send + Sync + 'static {
        cluster::status_fn(&self.shared)
    }

    /// A handle that stops the service from any thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.shared.clone())
    }

    /// Requests a stop: no further epoch opens, and the open ones are finished. In a cluster, a request to
    /// any process stops all of them.
    pub fn stop(&self) {
        self.stopper().stop();
    }

    /// Whether all threads have ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(std::thread::JoinHandle::is_finished)
    }

    /// Waits for the end: after a stop, at the end of the input if that was requested, or at a halt.
    ///
    /// # Errors
    /// The error that halted the service.
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
pub struct Stopper(Arc<ProcessState>);

impl Stopper {
    /// Requests a stop.
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
