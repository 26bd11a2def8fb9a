//! What people write: dataflows of streams, collections and tables.
//!
//! ```text
//!   flow.source ─▶ Stream ── key_by ─▶ Keyed ── window ─▶ Windows ── aggregate ─┐
//!                    │ changes                                                  ▼
//!                    └───────────▶ Collection ── group_by ─▶ Grouped ─▶       Table ──▶ view
//!   flow.table ──────────────────────────────────────────────────────▶          └ join, left_join, map, filter
//! ```
//!
//! Three types keep three promises: a [`Stream`] only ever adds, a
//! [`Collection`](collection::Collection) may take back, a [`Table`] has at most one row a key. Steps take
//! `&self` and never fail: a mistake is noted with its place, and all of them are reported together before
//! anything runs.

pub mod collection;
pub mod graph;
pub mod group;
pub mod keyed;
mod letters;
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
use crate::checkpoint::identity::{Identity, StateKind};
use crate::checkpoint::keeper::Keeper;
use crate::checkpoint::manifest::Rule;
use crate::checkpoint::store::Restored;
use crate::codec::Cause;
use crate::dataflow::letters::{DeadOf, Letters};
use crate::dataflow::plan::{Kind, Origin, Plan};
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::demo::Demo;
use crate::error::{Error, Result};
use crate::ingest::{self, Bounds, Ingest};
use crate::late::Late;
use crate::metrics::{Counter, LateMetrics, Metrics};
use crate::operator::again::Wanted;
use crate::operator::process::Setup;
use crate::operator::serve::serve;
use crate::operator::table::RowRecord;
use crate::position::SourceId;
use crate::record::{Change, Event, Record};
use crate::sink::memory::MemorySinks;
use crate::sink::process::Sinks;
use crate::source::{DeadLetter, Environment, Opened, Source, Substitute, UpsertSource};
use crate::time::Epoch;
use crate::timeline::Desk;
use crate::trail;
use crate::view::{ViewSpec, Views};

/// A named dataflow: a function that builds it, called once on every worker.
#[derive(Clone)]
pub struct Flow {
    name: &'static str,
    build: Arc<dyn Fn(Dataflow<'_>) -> Result<()> + Send + Sync>,
    demo: Option<DemoFunction>,
    queries: &'static [&'static str],
}

/// Makes data for a first try.
pub type DemoFunction = Arc<dyn Fn(&Demo) -> Result<()> + Send + Sync>;

impl Flow {
    /// Gives the dataflow data of its own, for `demo`: `make` writes topics until it is told to stop.
    /// `queries` are paths to try, as in `/v1/views/spend/rows?limit=3`.
    pub fn demo(
        mut self,
        make: impl Fn(&Demo) -> Result<()> + Send + Sync + 'static,
        queries: &'static [&'static str],
    ) -> Self {
        self.demo = Some(Arc::new(make));
        self.queries = queries;
        self
    }

    /// What makes its demo data.
    pub fn demo_function(&self) -> Option<&DemoFunction> {
        self.demo.as_ref()
    }

    /// Paths to try.
    pub fn demo_queries(&self) -> &'static [&'static str] {
        self.queries
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// What a dataflow function may return: nothing, or a result.
pub trait Outcome {
    /// As a result.
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

/// What a dataflow is built with on one worker.
pub struct Context {
    /// Addresses and settings of the outside.
    pub env: Environment,
    /// Bounds of the ingest operators.
    pub bounds: Bounds,
    /// The worker's desk.
    pub desk: Rc<Desk>,
    /// The process's views.
    pub views: Arc<Views>,
    /// Its sinks.
    pub(crate) sinks: Arc<Sinks>,
    /// Workers that shards of sinks are on: those of the process with the ledger.
    pub(crate) sink_workers: usize,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where an error goes that the service can't go on with.
    pub halt: Halt,
    /// Passes an epoch once all operators of all workers are done with it.
    pub probe: Handle<Epoch>,
    /// Steps, sources and mistakes so far.
    pub plan: RefCell<Plan>,
    /// In place of the stores of sinks.
    pub memory_sinks: Option<MemorySinks>,
    /// In place of the source of that name.
    pub substitutes: RefCell<HashMap<String, Substitute>>,
    /// How views are made; tests want hashes.
    pub hashed: bool,
    /// How far back views reach that don't say so themselves.
    pub history: Duration,
    /// Whether readers are made to read. For a plan they are not, but tried where `env` says what they read.
    pub reads: bool,
    /// Whether checkpoints are made.
    pub saves: bool,
    /// The one that this run begins with.
    pub restored: Option<Arc<Restored>>,
    /// This worker, and how many there are.
    pub worker: (usize, usize),
}

impl Context {
    /// For drawing a plan: nothing is read.
    pub fn dry(env: Environment) -> Self {
        Self {
            env,
            bounds: Bounds::default(),
            desk: Desk::new(),
            views: Views::new(1),
            sinks: Arc::new(Sinks::dry()),
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
    fn step(&self, name: &str, kind: Kind, inputs: &[&Origin]) -> Origin {
        self.step_as(name, (kind, kind.id()), inputs)
    }

    /// Like [`Context::step`], where steps of a kind have several operators.
    #[track_caller]
    fn step_as(&self, name: &str, what: (Kind, &str), inputs: &[&Origin]) -> Origin {
        self.plan
            .borrow_mut()
            .step(name, what, inputs, Location::caller())
    }

    /// A view or sink; whether it can be made: not with a name that another one has.
    #[track_caller]
    fn output(&self, name: &str, kind: Kind, of: &Origin) -> bool {
        let mistakes = self.plan.borrow().mistakes.len();
        self.step(name, kind, &[of]);
        self.plan.borrow().mistakes.len() == mistakes
    }

    /// A stateful step's way to its checkpoints. `step` is what people call it.
    fn keeper<K: Event, V: Event>(
        &self,
        name: (Identity, &str),
        input: &Origin,
        version: u32,
        rule: Rule,
    ) -> Keeper {
        let step = self.plan.borrow_mut().state::<K, V>(name, input, version, rule);
        let (steps, restored) = (self.desk.steps.clone(), self.restored.clone());
        Keeper::new(steps, self.saves, step, restored, self.worker, self.halt.clone())
    }

    /// What an operator under the clock is added with; `label` names the step in a sentence.
    fn setup<I>(
        &self,
        name: &str,
        label: String,
        sources: &[SourceId],
        keeper: Keeper,
        wanted: Wanted,
    ) -> Setup<I> {
        Setup {
            name: name.to_owned(),
            label,
            sources: sources.into(),
            held_back: self.corrected_for(sources),
            order: None,
            desk: self.desk.clone(),
            keeper,
            wanted,
        }
    }

    /// The declared version of a step.
    fn version(&self, step: &str) -> u32 {
        self.plan.borrow().version(step)
    }

    /// Counts what is late for a step, under the names of the sources that it takes from.
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

    /// What becomes of late events of these sources.
    fn late_policies(&self, sources: &[SourceId]) -> Vec<(SourceId, Late)> {
        let plan = self.plan.borrow();
        let of = plan
            .sources
            .iter()
            .filter(|source| sources.contains(&source.rules.id));
        of.map(|source| (source.rules.id, source.late)).collect()
    }

    /// For how long after their end windows over these sources are corrected: rows close once nobody corrects
    /// any more.
    fn corrected_for(&self, sources: &[SourceId]) -> Duration {
        let policies = self.late_policies(sources);
        policies
            .iter()
            .map(|(_, late)| late.corrects())
            .max()
            .unwrap_or_default()
    }

    /// Counts what a step rejects, by the source that each event was read from.
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

/// Builds a flow on a worker, and reports its mistakes together.
pub fn build(scope: Scope<'_, Epoch>, flow: &Flow, context: &Rc<Context>) -> Result<()> {
    // Streams can only be kept for as long as the scope lives, and the handle has to stay `Copy`.
    let loose = Box::into_raw(Box::new(Loose {
        context: context.clone(),
        late: RefCell::default(),
    }));
    // SAFETY: It was just made, and nothing else refers to it.
    let handle = Dataflow {
        scope,
        loose: unsafe { &*loose },
    };
    let outcome = (flow.build)(handle);
    handle.finish();
    // SAFETY: What holds the reference has the handle's lifetime. The function takes a handle of any lifetime
    // and what it returns has none, so nothing that it made outlives it; nor do operators, whose closures are
    // `'static`.
    drop(unsafe { Box::from_raw(loose) });
    outcome?;
    context.plan.borrow().verdict(flow.name)
}

/// What one build holds together until its end.
struct Loose<'s> {
    context: Rc<Context>,
    late: RefCell<Letters<'s>>,
}

/// A dataflow being built. Cheap to copy: pass it by value.
#[derive(Clone, Copy)]
pub struct Dataflow<'s> {
    scope: Scope<'s, Epoch>,
    loose: &'s Loose<'s>,
}

impl<'s> Dataflow<'s> {
    fn context(&self) -> &'s Rc<Context> {
        &self.loose.context
    }

    /// Reads a source of events.
    #[track_caller]
    pub fn source<T: Event>(self, name: &str, source: impl Source<T>) -> Stream<'s, T> {
        let origin = self.context().step(name, Kind::Source, &[]);
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

    /// Declares the version of a step that is named further on: since a closure in it or before it has
    /// changed, what checkpoints hold of it, or of steps behind it, is that of another. For sources, tables,
    /// joins, groups and the like; windows and views have a `version` of their own. A view's name is no
    /// step's: one may be called as the other.
    #[track_caller]
    pub fn version(self, step: &str, version: u32) -> Self {
        let mut plan = self.context().plan.borrow_mut();
        plan.declare(step, version, Location::caller());
        drop(plan);
        self
    }

    /// Reads a table from a source of keyed rows: the last row of a key wins, a row without a value deletes.
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
        let origin = self.context().step(name, Kind::Table, &[]);
        let remember = source.remember_deletions();
        let opened = source
            .open(&self.context().env.of_source(name))
            .and_then(|opened| self.substituted(name, opened));
        let (_, records) = self.read(name, &origin, opened);
        let context = self.context();
        let named = (Identity::new(StateKind::Table, name), name);
        let version = context.version(name);
        let keeper =
            context.keeper::<K, <S::Records as RowRecord<K, V>>::Kept>(named, &origin, version, Rule::Last);
        let wanted = Wanted::default();
        let setup = context.setup(name, format!("table `{name}`"), &[], keeper, wanted.clone());
        let (changes, letters) = S::Records::rows(records, remember, setup, &context.metrics.source(name));
        if let Some(letters) = letters {
            self.late(letters);
        }
        let mut table = Table::from_changes(self, changes, origin, Vec::new(), Rc::new([]));
        table.meta.wanted = wanted;
        table
    }

    /// Builds with timely's own types. A dataflow that does makes no checkpoints: what such steps keep is not
    /// in them.
    #[track_caller]
    pub fn scope(self) -> Scope<'s, Epoch> {
        self.keeps_unsaved(std::panic::Location::caller());
        self.scope
    }

    /// Some step may keep state that checkpoints don't find.
    fn keeps_unsaved(&self, at: &'static Location<'static>) {
        self.context().plan.borrow_mut().unsaved.get_or_insert(at);
    }

    /// The source as it is, or with the records that a test gives in its place.
    fn substituted<T: 'static>(&self, name: &str, opened: Opened<T>) -> Result<Opened<T>> {
        let Some(given) = self.context().substitutes.borrow_mut().remove(name) else {
            return Ok(opened);
        };
        let Some(records) = given.opened else {
            return Ok(Opened {
                driver: given.driver,
                reader: Box::new(|_| Ok(Opened::<T>::no_reader())),
                ..opened
            });
        };
        match records.downcast::<Opened<T>>() {
            Ok(given) => Ok(Opened {
                driver: given.driver,
                reader: given.reader,
                ..opened
            }),
            Err(_) => Err(
                Error::definition(format!("records of another type were fed to source `{name}`"))
                    .detail(format!("the dataflow reads {}", std::any::type_name::<T>())),
            ),
        }
    }

    /// Adds the operator that reads a source.
    fn read<T: Event>(
        self,
        name: &str,
        origin: &Origin,
        opened: Result<Opened<T>>,
    ) -> (bool, StreamVec<'s, Epoch, crate::record::Timed<T>>) {
        let context = self.context().clone();
        let opened = opened.unwrap_or_else(|error| {
            context.mistake(format!("source `{name}`: {error}"));
            Opened::unreadable()
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
        trail::name(source, &opened.description);
        context.plan.borrow_mut().source(source, name, &opened);
        let configured = matches!(opened.driver.configured(), Some(Ok(())));
        let (rules, reader, reads) = (Rc::new(opened.rules), opened.reader, context.reads);
        let make = |waker: Waker| {
            let reader = if reads {
                reader(waker)
            } else {
                // Made to be dropped, where the settings say what it reads: what it lacks is told before
                // anything starts.
                if configured && let Err(error) = reader(waker) {
                    context.mistake(format!("source `{name}`, {}: {error}", opened.description));
                }
                Ok(Opened::<T>::no_reader())
            };
            // An error of one worker alone must not leave the others waiting in the middle of a build.
            let reader = reader.unwrap_or_else(|error| {
                context.halt.halt(error);
                Opened::<T>::no_reader()
            });
            Ingest {
                name: name.into(),
                source,
                reader,
                rules,
                bounds: context.bounds,
                desk: context.desk.clone(),
                halt: context.halt.clone(),
                metrics: context.metrics.source(name),
                held: context.metrics.worker(self.scope.index()),
            }
        };
        let (events, dead) = ingest::ingest(self.scope, name, make);
        let events = events.probe_with(&self.context().probe);
        self.loose.late.borrow_mut().dead.push(DeadOf {
            id: source,
            origin: origin.clone(),
            topic: opened.topic,
            connector: opened.driver.connector(),
            to: opened.dead_letters,
            letters: dead,
        });
        (timed, events)
    }

    /// Takes in what a step turned down; it joins the dead letters of the source it came from.
    fn late(self, late: StreamVec<'s, Epoch, DeadLetter>) {
        self.loose.late.borrow_mut().late.push(late);
    }

    /// Makes the view `name` of a table's changes. False: the others are restored, and it is new.
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
        let mut timeline = context.desk.timeline.borrow_mut();
        timeline.track(&spec.sources);
        timeline.track(&spec.window_sources);
        drop(timeline);
        let name = spec.name.clone();
        match context.views.define::<K, V>(spec) {
            Ok(view) => {
                let applied = context.metrics.view(&name).changes;
                let named = (Identity::new(StateKind::View, &name), &*name);
                let keeper = context.keeper::<K, Option<V>>(named, origin, version, Rule::Versions);
                serve(
                    changes,
                    &name,
                    view.writer::<K, V>(self.scope.index()),
                    applied,
                    &context.probe,
                    &keeper,
                    context.halt.clone(),
                );
                keeper.restored() == keeper.held()
            }
            Err(error) => {
                context.mistake(format!("view `{name}`: {error}"));
                true
            }
        }
    }
}

/// How far back a view reaches unless it or the settings say more.
pub const HISTORY: Duration = Duration::from_secs(60);
