//! The API for users: dataflows of streams, collections and tables.
//!
//! ```text
//!   flow.source ─▶ Stream ── key_by ─▶ Keyed ── window ─▶ Windows ── aggregate ─┐
//!                    │ changes                                                  ▼
//!                    └───────────▶ Collection ── group_by ─▶ Grouped ─▶       Table ──▶ view
//!   flow.table ──────────────────────────────────────────────────────▶          └ join, left_join, map, filter
//! ```
//!
//! Three types make three promises: a [`Stream`] only adds, a [`Collection`](collection::Collection) may
//! retract, a [`Table`] has at most one row per key. Steps take `&self` and never fail: mistakes are
//! collected with their source locations and reported together before anything runs.

pub mod collection;
mod dead_letters;
pub mod graph;
pub mod group;
pub mod keyed;
mod misuse;
pub(crate) mod names;
pub(crate) mod plan;
mod sink;
pub mod stream;
pub mod table;
pub mod window;

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use timely::dataflow::operators::probe::{Handle, Probe};
use timely::dataflow::{Scope, StreamVec};

use crate::bridge::{Halt, Waker};
use crate::checkpoint::identity::{StateIdentity, StateKind};
use crate::checkpoint::manifest::EntryRule;
use crate::checkpoint::state_handle::StateHandle;
use crate::checkpoint::store::RestoredCheckpoint;
use crate::codec::Cause;
use crate::dataflow::dead_letters::{DeadOf, Letters};
use crate::dataflow::plan::{Origin, Plan, StepKind};
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::demo::Demo;
use crate::error::{Error, Result};
use crate::ingest::{self, BufferLimits, Ingest};
use crate::late::Late;
use crate::metrics::{Counter, LateMetrics, Metrics};
use crate::operator::backfill::BackfillDemand;
use crate::operator::process::Setup;
use crate::operator::serve::serve;
use crate::operator::table::RowRecord;
use crate::panic_context;
use crate::position::SourceId;
use crate::record::{Change, Event, Record};
use crate::sink::memory::MemorySinks;
use crate::sink::process::ProcessSinks;
use crate::source::{DeadLetter, Environment, OpenedSource, Source, Substitute, UpsertSource};
use crate::time::Epoch;
use crate::timeline::WorkerContext;
use crate::view::{ViewSpec, Views};

/// A named dataflow: a function that builds it, called once on every worker.
#[derive(Clone)]
pub struct Flow {
    name: &'static str,
    build: Arc<dyn Fn(Dataflow<'_>) -> Result<()> + Send + Sync>,
    demo: Option<DemoFunction>,
    queries: &'static [&'static str],
}

/// Generates data for a demo.
pub type DemoFunction = Arc<dyn Fn(&Demo) -> Result<()> + Send + Sync>;

impl Flow {
    /// Adds demo data for the `demo` command: `make` writes topics until it is told to stop. `queries` are
    /// paths to try, as in `/v1/views/spend/rows?limit=3`.
    pub fn demo(
        mut self,
        make: impl Fn(&Demo) -> Result<()> + Send + Sync + 'static,
        queries: &'static [&'static str],
    ) -> Self {
        self.demo = Some(Arc::new(make));
        self.queries = queries;
        self
    }

    /// The function that generates the demo data.
    pub fn demo_function(&self) -> Option<&DemoFunction> {
        self.demo.as_ref()
    }

    /// Paths to try against the demo.
    pub fn demo_queries(&self) -> &'static [&'static str] {
        self.queries
    }

    /// The dataflow's name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// The return type of a dataflow function: nothing, or a result.
pub trait Outcome {
    /// Converts into a result.
    fn outcome(self) -> Result<()>;
}
impl Outcome for () {
    fn outcome(self) -> Result<()> {
        Ok(())
    }
}
impl<E: Into<Error>> Outcome for Result<(), E> {
    fn outcome(self) -> Result<()> {
        self.map_err(Into::into)
    }
}

/// Names a dataflow function.
///
/// ```
/// use thalweg::prelude::*;
/// fn nothing(_flow: Dataflow) {}
/// assert_eq!(dataflow("nothing", nothing).name(), "nothing");
/// ```
pub fn dataflow<R: Outcome>(
    name: &'static str,
    build: impl Fn(Dataflow<'_>) -> R + Send + Sync + 'static,
) -> Flow {
    Flow {
        name,
        build: Arc::new(move |flow| build(flow).outcome()),
        demo: None,
        queries: &[],
    }
}

/// Everything that one worker needs to build a dataflow.
pub struct BuildContext {
    /// Addresses and settings of external systems.
    pub env: Environment,
    /// Limits of the ingest operators.
    pub bounds: BufferLimits,
    /// The worker's context.
    pub worker_context: Rc<WorkerContext>,
    /// The views of the process.
    pub views: Arc<Views>,
    /// The sinks of the process.
    pub(crate) sinks: Arc<ProcessSinks>,
    /// Number of workers that have sink shards: those of the process with the ledger.
    pub(crate) sink_workers: usize,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Receives errors from which the service cannot continue.
    pub halt: Halt,
    /// Passes an epoch once all operators of all workers have finished it.
    pub probe: Handle<Epoch>,
    /// Steps, sources and mistakes so far.
    pub plan: RefCell<Plan>,
    /// Replaces the stores of sinks, in tests.
    pub memory_sinks: Option<MemorySinks>,
    /// Sources to replace, by name.
    pub substitutes: RefCell<HashMap<String, Substitute>>,
    /// Whether views hash their changes, as tests need it.
    pub hashed: bool,
    /// History of views that do not set their own.
    pub history: Duration,
    /// Whether readers are created to read. To draw a plan they are not; they are only checked against what
    /// `env` describes.
    pub reads: bool,
    /// Whether checkpoints are written.
    pub saves: bool,
    /// The checkpoint that this run resumes from.
    pub restored: Option<Arc<RestoredCheckpoint>>,
    /// The index of this worker, and the number of workers.
    pub worker: (usize, usize),
}

impl BuildContext {
    /// A context for drawing a plan: nothing is read.
    pub fn dry(env: Environment) -> Self {
        Self {
            env,
            bounds: BufferLimits::default(),
            worker_context: WorkerContext::new(),
            views: Views::new(1),
            sinks: Arc::new(ProcessSinks::dry()),
            sink_workers: 1,
            metrics: Metrics::new(),
            halt: Halt::default(),
            probe: Handle::new(),
            plan: RefCell::default(),
            memory_sinks: None,
            substitutes: RefCell::default(),
            hashed: false,
            history: HISTORY,
            reads: false,
            saves: false,
            restored: None,
            worker: (0, 1),
        }
    }

    #[track_caller]
    fn step(&self, name: &str, kind: StepKind, inputs: &[&Origin]) -> Origin {
        self.step_as(name, (kind, kind.id()), inputs)
    }

    /// Like [`BuildContext::step`], for kinds of steps that have several operators.
    #[track_caller]
    fn step_as(&self, name: &str, what: (StepKind, &str), inputs: &[&Origin]) -> Origin {
        self.plan
            .borrow_mut()
            .step(name, what, inputs, Location::caller())
    }

    /// Adds a view or sink. Returns false if its name is taken.
    #[track_caller]
    fn output(&self, name: &str, kind: StepKind, of: &Origin) -> bool {
        let mistakes = self.plan.borrow().mistakes.len();
        self.step(name, kind, &[of]);
        self.plan.borrow().mistakes.len() == mistakes
    }

    /// The state handle of a stateful step. `step` is its name in messages.
    fn handle<K: Event, V: Event>(
        &self,
        name: (StateIdentity, &str),
        input: &Origin,
        version: u32,
        rule: EntryRule,
    ) -> StateHandle {
        let step = self.plan.borrow_mut().state::<K, V>(name, input, version, rule);
        let (steps, restored) = (self.worker_context.steps.clone(), self.restored.clone());
        StateHandle::new(steps, self.saves, step, restored, self.worker, self.halt.clone())
    }

    /// The setup of an operator; `label` names the step in messages.
    fn setup<I>(
        &self,
        name: &str,
        label: String,
        sources: &[SourceId],
        handle: StateHandle,
        demand: BackfillDemand,
    ) -> Setup<I> {
        Setup {
            name: name.to_owned(),
            label,
            sources: sources.into(),
            held_back: self.corrected_for(sources),
            order: None,
            worker_context: self.worker_context.clone(),
            handle,
            demand,
        }
    }

    /// The declared version of a step.
    fn version(&self, step: &str) -> u32 {
        self.plan.borrow().version(step)
    }

    /// Metrics of late events for a step, by the sources that it reads from.
    fn late_metrics(&self, sources: &[SourceId], step: &str) -> LateMetrics {
        let plan = self.plan.borrow();
        let named = plan
            .sources
            .iter()
            .map(|source| &source.rules)
            .filter(|rules| sources.contains(&rules.id));
        let names = named
            .map(|rules| rules.name.as_str())
            .collect::<Vec<_>>()
            .join(",");
        self.metrics.source(&names).late(step)
    }

    /// The lateness policies of these sources.
    fn late_policies(&self, sources: &[SourceId]) -> Vec<(SourceId, Late)> {
        let plan = self.plan.borrow();
        let of = plan
            .sources
            .iter()
            .filter(|source| sources.contains(&source.rules.id));
        of.map(|source| (source.rules.id, source.late)).collect()
    }

    /// How long after their end windows over these sources accept corrections. Rows close when no source
    /// corrects them any more.
    fn corrected_for(&self, sources: &[SourceId]) -> Duration {
        let policies = self.late_policies(sources);
        policies
            .iter()
            .map(|(_, late)| late.corrects())
            .max()
            .unwrap_or_default()
    }

    /// Counters of records that a step rejects, by the source that each event was read from.
    fn rejected_counters(&self) -> HashMap<SourceId, Counter> {
        let plan = self.plan.borrow();
        let sources = plan.sources.iter().map(|source| &source.rules);
        let counter = |name: &str| self.metrics.source(name).dead_letters(Cause::Rejected.code());
        sources.map(|rules| (rules.id, counter(&rules.name))).collect()
    }

    fn mistake(&self, mistake: impl Into<String>) {
        self.plan.borrow_mut().mistakes.push(mistake.into());
    }
}

/// Builds a flow on one worker and reports its mistakes together.
pub fn build(scope: Scope<'_, Epoch>, flow: &Flow, context: &Rc<BuildContext>) -> Result<()> {
    // Streams live only as long as the scope, and the handle must stay `Copy`.
    let build_state = Box::into_raw(Box::new(BuildState {
        context: context.clone(),
        late: RefCell::default(),
    }));
    // SAFETY: It was just made, and nothing else refers to it.
    let handle = Dataflow {
        scope,
        build_state: unsafe { &*build_state },
    };
    let outcome = (flow.build)(handle);
    handle.finish();
    // SAFETY: What holds the reference has the handle's lifetime. The function takes a handle of any lifetime
    // and what it returns has none, so nothing that it made outlives it; nor do operators, whose closures are
    // `'static`.
    drop(unsafe { Box::from_raw(build_state) });
    outcome?;
    context.plan.borrow().verdict(flow.name)
}

/// State that a single build shares until it is complete.
struct BuildState<'s> {
    context: Rc<BuildContext>,
    late: RefCell<Letters<'s>>,
}

/// A dataflow under construction. Cheap to copy: pass it by value.
#[derive(Clone, Copy)]
pub struct Dataflow<'s> {
    scope: Scope<'s, Epoch>,
    build_state: &'s BuildState<'s>,
}

impl<'s> Dataflow<'s> {
    fn context(&self) -> &'s Rc<BuildContext> {
        &self.build_state.context
    }

    /// Reads a source of events.
    #[track_caller]
    pub fn source<T: Event>(self, name: &str, source: impl Source<T>) -> Stream<'s, T> {
        let origin = self.context().step(name, StepKind::Source, &[]);
        let opened = source
            .open(&self.context().env.of_source(name))
            .and_then(|opened| self.substituted(name, opened));
        let (timed, inner) = self.read(name, &origin, opened);
        let sources = if timed {
            vec![SourceId::of(name)]
        } else {
            Vec::new()
        };
        Stream {
            inner,
            flow: self,
            sources: sources.into(),
            origin,
            is_scattered: false,
            is_behind: false,
        }
    }

    /// Declares the version of a step that is added later. Raise it when a closure in the step, or in a step
    /// before it, has changed, so that the state in checkpoints of this step and of the steps behind it no
    /// longer counts as current. For sources, tables, joins, groups and the like; windows and views have a
    /// `version` method of their own. Views have their own namespace: a view may share its name with a step.
    #[track_caller]
    pub fn version(self, step: &str, version: u32) -> Self {
        let mut plan = self.context().plan.borrow_mut();
        plan.declare(step, version, Location::caller());
        drop(plan);
        self
    }

    /// Reads a table from a source of keyed rows: the last row of a key wins, and a row without a value
    /// deletes.
    #[track_caller]
    pub fn table<K: Record, V: Record>(
        self,
        name: &str,
        source: impl UpsertSource<K, V, Records: RowRecord<K, V>>,
    ) -> Table<'s, K, V> {
        self.table_of(name, source)
    }

    #[track_caller]
    fn table_of<K: Record, V: Record, S>(self, name: &str, source: S) -> Table<'s, K, V>
    where
        S: UpsertSource<K, V, Records: RowRecord<K, V>>,
    {
        let origin = self.context().step(name, StepKind::Table, &[]);
        let remember = source.remember_deletions();
        let opened = source
            .open(&self.context().env.of_source(name))
            .and_then(|opened| self.substituted(name, opened));
        let (_, records) = self.read(name, &origin, opened);
        let context = self.context();
        let named = (StateIdentity::new(StateKind::Table, name), name);
        let version = context.version(name);
        let handle = context.handle::<K, <S::Records as RowRecord<K, V>>::Kept>(
            named,
            &origin,
            version,
            EntryRule::Last,
        );
        let demand = BackfillDemand::default();
        let setup = context.setup(name, format!("table `{name}`"), &[], handle, demand.clone());
        let (changes, letters) = S::Records::rows(records, remember, setup, &context.metrics.source(name));
        if let Some(letters) = letters {
            self.late(letters);
        }
        let mut table = Table::from_changes(self, changes, origin, Vec::new(), Rc::new([]));
        table.meta.demand = demand;
        table
    }

    /// Builds with timely's own types. A dataflow that does so writes no checkpoints, because they cannot
    /// capture the state of such steps.
    #[track_caller]
    pub fn scope(self) -> Scope<'s, Epoch> {
        self.keeps_unsaved(std::panic::Location::caller());
        self.scope
    }

    /// Whether some step may keep state that checkpoints cannot capture.
    fn keeps_unsaved(&self, at: &'static Location<'static>) {
        self.context().plan.borrow_mut().unsaved.get_or_insert(at);
    }

    /// Returns the source as it is, or with the records that a test substitutes.
    fn substituted<T: 'static>(&self, name: &str, opened: OpenedSource<T>) -> Result<OpenedSource<T>> {
        let Some(given) = self.context().substitutes.borrow_mut().remove(name) else {
            return Ok(opened);
        };
        let Some(records) = given.opened else {
            return Ok(OpenedSource {
                driver: given.driver,
                reader: Box::new(|_| Ok(OpenedSource::<T>::no_reader())),
                ..opened
            });
        };
        match records.downcast::<OpenedSource<T>>() {
            Ok(given) => Ok(OpenedSource {
                driver: given.driver,
                reader: given.reader,
                ..opened
            }),
            Err(_) => Err(
                Error::definition(format!("source `{name}` was fed records of another type"))
                    .detail(format!("the dataflow reads {}", std::any::type_name::<T>())),
            ),
        }
    }

    /// Adds the operator that reads a source.
    fn read<T: Event>(
        self,
        name: &str,
        origin: &Origin,
        opened: Result<OpenedSource<T>>,
    ) -> (bool, StreamVec<'s, Epoch, crate::record::Timed<T>>) {
        let context = self.context().clone();
        let opened = opened.unwrap_or_else(|error| {
            context.mistake(format!("source `{name}`: {error}"));
            OpenedSource::unreadable()
        });
        let mut opened = opened;
        if let Some(times) = context.env.sources.get(name) {
            opened.rules.take_over(times);
        }
        let said = context
            .env
            .sources
            .get(name)
            .and_then(|said| said.dead_letters.clone());
        let common = || context.env.dead_letters.clone();
        opened.dead_letters = said.or(opened.dead_letters).or_else(common);
        let source = SourceId::of(name);
        let timed = opened.rules.timed;
        panic_context::name_source(source, &opened.description);
        context.plan.borrow_mut().source(source, name, &opened);
        let configured = matches!(opened.driver.configured(), Some(Ok(())));
        let (rules, reader, reads) = (Rc::new(opened.rules), opened.reader, context.reads);
        let make = |waker: Waker| {
            let reader = if reads {
                reader(waker)
            } else {
                // Created to be dropped: if the settings fully describe the source, this reports what is
                // missing before anything starts.
                if configured && let Err(error) = reader(waker) {
                    context.mistake(format!("source `{name}`, {}: {error}", opened.description));
                }
                Ok(OpenedSource::<T>::no_reader())
            };
            // An error on a single worker must not leave the others waiting in the middle of a build.
            let reader = reader.unwrap_or_else(|error| {
                context.halt.halt(error);
                OpenedSource::<T>::no_reader()
            });
            Ingest {
                name: name.into(),
                source,
                reader,
                rules,
                bounds: context.bounds,
                worker_context: context.worker_context.clone(),
                halt: context.halt.clone(),
                metrics: context.metrics.source(name),
                held: context.metrics.worker(self.scope.index()),
            }
        };
        let (events, dead) = ingest::ingest(self.scope, name, make);
        let events = events.probe_with(&self.context().probe);
        self.build_state.late.borrow_mut().dead.push(DeadOf {
            id: source,
            origin: origin.clone(),
            topic: opened.topic,
            connector: opened.driver.connector(),
            to: opened.dead_letters,
            letters: dead,
        });
        (timed, events)
    }

    /// Collects what a step rejected; it joins the dead letters of the source that it came from.
    fn late(self, late: StreamVec<'s, Epoch, DeadLetter>) {
        self.build_state.late.borrow_mut().late.push(late);
    }

    /// Creates the view `name` of a table's changes. Returns false if it is new while the others were
    /// restored.
    fn serve<K: Record, V: Record>(
        &self,
        changes: StreamVec<'s, Epoch, Change<K, V>>,
        origin: &Origin,
        mut spec: ViewSpec,
        (history, version): (Option<Duration>, u32),
    ) -> bool {
        let context = self.context();
        spec.history = history.unwrap_or(context.history);
        spec.hashed |= context.hashed;
        let mut timeline = context.worker_context.timeline.borrow_mut();
        timeline.track(&spec.sources);
        timeline.track(&spec.window_sources);
        drop(timeline);
        let name = spec.name.clone();
        match context.views.define::<K, V>(spec) {
            Ok(view) => {
                let applied = context.metrics.view(&name).changes;
                let named = (StateIdentity::new(StateKind::View, &name), &*name);
                let handle = context.handle::<K, Option<V>>(named, origin, version, EntryRule::Versions);
                serve(
                    changes,
                    &name,
                    view.writer::<K, V>(self.scope.index()),
                    applied,
                    &context.probe,
                    &handle,
                    context.halt.clone(),
                );
                handle.restored() == handle.held()
            }
            Err(error) => {
                context.mistake(format!("view `{name}`: {error}"));
                true
            }
        }
    }
}

/// Default history of views, unless the view or the settings set another.
pub const HISTORY: Duration = Duration::from_secs(60);
