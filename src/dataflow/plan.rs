//! The plan: the steps of a dataflow, and the mistakes in it.
//!
//! Every step is identified by all of its inputs, unnamed steps included, so that a changed dataflow can be
//! told apart from the one that wrote a checkpoint:
//!
//! ```text
//!   auctions = source                                            a handle's Origin: `filter(changes(auctions))`
//!   persons  = source                                            a step's definition: what stands behind its name
//!   best     = group(group_by(semijoin(changes(auctions), changes(persons))))
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use crate::checkpoint::entry;
use crate::checkpoint::identity::{Definition, Expression, StateIdentity};
use crate::checkpoint::manifest::{EntryRule, StepSignature};
use crate::error::{Error, Result, count};
use crate::late::Late;
use crate::position::SourceId;
use crate::record::Event;
use crate::schema::RowSchema;
use crate::schema::trace::{stored_structure, structure};
use crate::sequencer::SourceRules;
use crate::sink::{Contract, Examine, Method};
use crate::source::{Driver, OpenedSource};

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// A source of events.
    Source,
    /// A source of a table.
    Table,
    /// User code that may reject events.
    TryMap,
    /// A windowed aggregate.
    Window,
    /// A custom operator.
    Process,
    /// An aggregate per key.
    Aggregate,
    /// Deduplication.
    Dedup,
    /// A join of two streams.
    IntervalJoin,
    /// A lookup of table rows for events.
    Lookup,
    /// A custom processor of events in event-time order.
    ProcessEvents,
    /// The rows of closed windows.
    WhenClosed,
    /// An aggregate per group.
    Group,
    /// Pairs as a table.
    Rekey,
    /// A join of two tables.
    Join,
    /// A fixed point.
    Iterate,
    /// Distinct rows.
    Distinct,
    /// A served view.
    View,
    /// A sink.
    Sink,
}

impl StepKind {
    /// Its name in plans.
    pub(super) fn word(self) -> &'static str {
        match self {
            StepKind::Source => "source",
            StepKind::Table => "table",
            StepKind::TryMap => "try_map",
            StepKind::Window => "window",
            StepKind::Process => "process",
            StepKind::Aggregate => "group",
            StepKind::Dedup => "dedup",
            StepKind::IntervalJoin => "join",
            StepKind::Lookup => "lookup",
            StepKind::ProcessEvents => "process",
            StepKind::WhenClosed => "closed",
            StepKind::Group => "group",
            StepKind::Rekey => "rekey",
            StepKind::Join => "join",
            StepKind::Iterate => "iterate",
            StepKind::Distinct => "distinct",
            StepKind::View => "view",
            StepKind::Sink => "sink",
        }
    }

    /// The operator's id in checkpoints. It never changes, whatever plans call it.
    pub(super) fn id(self) -> &'static str {
        match self {
            StepKind::Source => "source",
            StepKind::Table => "table",
            StepKind::TryMap => "try_map",
            StepKind::Window => "window",
            StepKind::Process => "process",
            StepKind::Aggregate => "aggregate",
            StepKind::Dedup => "dedup",
            StepKind::IntervalJoin => "interval_join",
            StepKind::Lookup => "lookup",
            StepKind::ProcessEvents => "process_events",
            StepKind::WhenClosed => "when_closed",
            StepKind::Group => "group",
            StepKind::Rekey => "rekey",
            StepKind::Join => "join",
            StepKind::Iterate => "iterate",
            StepKind::Distinct => "distinct",
            StepKind::View => "view",
            StepKind::Sink => "sink",
        }
    }

    /// The namespace of its name. Views and sinks have their own: a view may share the name of the step that
    /// it shows.
    fn space(self) -> &'static str {
        match self {
            StepKind::View => "view",
            StepKind::Sink => "sink",
            _ => "step",
        }
    }

    /// Whether checkpoints hold its state, under its declared version.
    fn is_stateful(self) -> bool {
        matches!(
            self,
            StepKind::Table
                | StepKind::Window
                | StepKind::Process
                | StepKind::Aggregate
                | StepKind::Dedup
                | StepKind::IntervalJoin
                | StepKind::ProcessEvents
                | StepKind::WhenClosed
                | StepKind::View
        )
    }
}

/// The origin of rows: an expression of operators over named steps, such as
/// `semijoin(changes(auctions), map(merchants))`.
///
/// A named step stands for everything before it. Every operator is part of the expression, with all of its
/// inputs; closures cannot be compared, and keys and settings are not included. Checkpoints store operators'
/// ids, so those never change.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    made: Rc<Expression>,
    /// The named steps in the expression, in order of occurrence.
    steps: Rc<[Rc<str>]>,
}

impl Origin {
    /// The rows of a named step.
    pub(super) fn named(name: &Rc<str>) -> Self {
        Self {
            made: Expression::Step(name.to_string()).into(),
            steps: Rc::new([name.clone()]),
        }
    }

    fn of(operator: &str, inputs: &[&Self]) -> Self {
        let made = inputs.iter().map(|input| Expression::clone(&input.made));
        let mut steps: Vec<Rc<str>> = Vec::new();
        for step in inputs.iter().flat_map(|input| &*input.steps) {
            if !steps.contains(step) {
                steps.push(step.clone());
            }
        }
        Self {
            made: Expression::of(operator, made.collect()).into(),
            steps: steps.into(),
        }
    }

    /// The rows of an unnamed operator.
    pub(super) fn through(&self, operator: &str) -> Self {
        Self::of(operator, &[self])
    }

    /// The rows of an unnamed operator with two inputs.
    pub(super) fn and(&self, operator: &str, other: &Self) -> Self {
        Self::of(operator, &[self, other])
    }

    /// Like [`Origin::and`], for an operator whose inputs are interchangeable: their order does not matter.
    pub(super) fn or(&self, operator: &str, other: &Self) -> Self {
        match self.made <= other.made {
            true => self.and(operator, other),
            false => other.and(operator, self),
        }
    }

    /// The nearest named step upstream; of several, the first.
    pub(super) fn step(&self) -> &Rc<str> {
        &self.steps[0]
    }
}

/// A named step.
#[derive(Clone, Debug)]
pub struct PlannedStep {
    /// The step's name.
    pub name: Rc<str>,
    /// The step's kind.
    pub kind: StepKind,
    /// All named steps that it reads from, directly or through unnamed steps.
    pub from: Vec<Rc<str>>,
    /// Its operators and inputs: `window(filter(payments))`.
    pub definition: Expression,
    /// Further description.
    pub about: String,
    /// Its location in the source code.
    pub at: &'static Location<'static>,
}

/// A source, as the runtime needs it.
#[derive(Clone)]
pub struct PlannedSource {
    /// The sequencer's rules for it.
    pub rules: SourceRules,
    /// The name of the log that is read.
    pub topic: String,
    /// ``topic `x` ``.
    pub description: String,
    /// What happens to its late events.
    pub late: Late,
    /// The topic that its dead letters are written to.
    pub dead_letters: Option<String>,
    /// Observes the source from outside the workers.
    pub driver: Arc<dyn Driver>,
}

/// The union of both lists of sources, in order.
pub(super) fn union(a: &[SourceId], b: &[SourceId]) -> Rc<[SourceId]> {
    let mut sources = [a, b].concat();
    sources.sort_unstable();
    sources.dedup();
    sources.into()
}

/// A sink, as the runtime needs it.
#[derive(Clone)]
pub struct PlannedSink {
    /// The sink's name.
    pub name: String,
    /// The method that connects rows to it.
    pub method: Method,
    /// ``topic `x` ``.
    pub description: String,
    /// Its guarantee after a crash.
    pub contract: Contract,
    /// The number of shards.
    pub shards: u32,
    /// The schema of its rows.
    pub schema: Arc<RowSchema>,
    /// Inspects the store from outside.
    pub examine: Option<Examine>,
}

/// `append_to topic x, transactional, 8 shards`.
impl fmt::Display for PlannedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            description,
            contract,
            shards,
            ..
        } = self;
        write!(
            f,
            "{method} {description}, {contract}, {}",
            count(*shards, "shard")
        )
    }
}

/// A step whose state type checkpoints cannot hold.
#[derive(Clone, Debug)]
pub struct UnencodableState {
    /// The step, the type, and the reason.
    pub what: String,
    /// How to fix it.
    pub hint: &'static str,
}

impl UnencodableState {
    /// Why checkpoints cannot hold the state type of a step, as far as that can be told without data.
    fn of<T: Event>(step: &StateIdentity) -> Option<Self> {
        let unfit = entry::fits::<T>().err()?;
        Some(Self {
            what: format!("{step}: `{}`: {unfit}", std::any::type_name::<T>()),
            hint: unfit.hint(),
        })
    }
}

/// All steps and sources of a dataflow, and its mistakes.
#[derive(Default)]
pub struct Plan {
    /// Named steps, in the order of the code.
    pub steps: Vec<PlannedStep>,
    /// Sources.
    pub sources: Vec<PlannedSource>,
    /// Sinks.
    pub sinks: Vec<PlannedSink>,
    /// Stateful steps, in the order in which they are built.
    pub states: Vec<StepSignature>,
    /// Declared versions by step; views carry their own.
    pub versions: BTreeMap<String, u32>,
    /// A step that may keep state that checkpoints cannot capture.
    pub unsaved: Option<&'static Location<'static>>,
    /// Steps whose state types checkpoints cannot hold.
    pub unfit: Vec<UnencodableState>,
    /// Mistakes, each with its location.
    pub mistakes: Vec<String>,
}

impl Plan {
    /// Adds a named step; `operator` is its operator.
    pub(super) fn step(
        &mut self,
        name: &str,
        (kind, operator): (StepKind, &str),
        inputs: &[&Origin],
        at: &'static Location<'static>,
    ) -> Origin {
        let alike = |step: &&PlannedStep| &*step.name == name && step.kind.space() == kind.space();
        if name.is_empty() {
            self.mistakes
                .push(format!("the {} at {at} has no name", kind.word()));
        } else if let Some(first) = self.steps.iter().find(alike) {
            self.mistakes.push(format!(
                "two {}s are named `{name}`: a {} at {} and a {} at {at}",
                kind.space(),
                first.kind.word(),
                first.at,
                kind.word()
            ));
        }
        let (name, made) = (Rc::from(name), Origin::of(operator, inputs));
        let origin = Origin::named(&name);
        self.steps.push(PlannedStep {
            name,
            kind,
            from: made.steps.to_vec(),
            definition: Expression::clone(&made.made),
            about: String::new(),
            at,
        });
        origin
    }

    /// Adds the feedback to a fixed point's step: it also reads the result of a round, which may be the step
    /// itself.
    pub(super) fn closes(&mut self, step: &Origin, start: &Origin, round: &Origin) {
        let made = start.and(StepKind::Iterate.id(), round);
        if let Some(found) = self.steps.iter_mut().rfind(|found| found.name == *step.step()) {
            let others = made.steps.iter().filter(|name| *name != step.step());
            found.from = others.cloned().collect();
            found.definition = Expression::clone(&made.made);
        }
    }

    /// All named steps that rows come from. Dead letters have no step in a plan.
    fn upstream<'a>(&'a self, origin: &'a Origin) -> BTreeMap<&'a str, Option<&'a PlannedStep>> {
        let (mut found, mut next) = (BTreeMap::new(), origin.steps.iter().collect::<Vec<_>>());
        while let Some(name) = next.pop() {
            let step = self.find(name);
            if found.insert(&**name, step).is_none() {
                next.extend(step.iter().flat_map(|step| &step.from));
            }
        }
        found
    }

    /// The step with this name, views and sinks excluded.
    fn find(&self, name: &str) -> Option<&PlannedStep> {
        let named = |step: &&PlannedStep| &*step.name == name && step.kind.space() == "step";
        self.steps.iter().find(named)
    }

    /// Adds a stateful step and returns its index. `step` is its name in messages.
    pub(super) fn state<K: Event, V: Event>(
        &mut self,
        (identity, step): (StateIdentity, &str),
        input: &Origin,
        version: u32,
        rule: EntryRule,
    ) -> usize {
        // Views encode their rows by a schema, and accept types that an encoding without names cannot hold.
        let unfit = match rule {
            EntryRule::Versions => None,
            _ => UnencodableState::of::<K>(&identity).or_else(|| UnencodableState::of::<V>(&identity)),
        };
        self.unfit.extend(unfit);
        let types = match rule {
            EntryRule::Versions => (stored_structure::<K>(), stored_structure::<V>()),
            _ => (structure::<K>(), structure::<V>()),
        };
        self.add_state((identity, step), input, version, rule, types)
    }

    fn add_state(
        &mut self,
        (identity, step): (StateIdentity, &str),
        input: &Origin,
        version: u32,
        rule: EntryRule,
        (key, value): (String, String),
    ) -> usize {
        let upstream = self.upstream(input);
        let from = upstream.keys().map(|name| (*name).to_owned()).collect();
        let definition = |step: &PlannedStep| Definition {
            made: step.definition.clone(),
            // Stateful steps carry their own version.
            version: match step.kind.is_stateful() {
                true => 1,
                false => self.version(&step.name),
            },
        };
        let definitions = upstream
            .iter()
            .filter_map(|(name, step)| Some(((*name).to_owned(), definition((*step)?))));
        let shape = StepSignature {
            identity,
            step: step.to_owned(),
            from,
            input: Expression::clone(&input.made),
            definitions: definitions.collect(),
            version,
            key,
            value,
            rule,
        };
        self.states.push(shape);
        self.states.len() - 1
    }

    /// The name that checkpoints give to the events behind a
    /// [`Stream::changes`](super::stream::Stream::changes), which users do not name: it is derived from the
    /// inputs, so that unrelated steps do not affect it, and numbered if the inputs are the same.
    pub(super) fn identity_of_changes(&self, origin: &Origin) -> StateIdentity {
        let alike = |step: &&StepSignature| step.rule == EntryRule::Sum && step.input == *origin.made;
        let before = self.states.iter().filter(alike).count();
        StateIdentity::changes(&origin.made, 1 + before as u64)
    }

    /// The declared version of a step.
    pub(super) fn version(&self, name: &str) -> u32 {
        self.versions.get(name).copied().unwrap_or(1)
    }

    /// Declares the version of a step that is added later.
    pub(super) fn declare(&mut self, name: &str, version: u32, at: &'static Location<'static>) {
        if self.find(name).is_some() {
            self.mistakes.push(format!(
                "the version of `{name}` is declared at {at}, after the step: declare it before the step"
            ));
        }
        self.versions.insert(name.to_owned(), version);
    }

    /// Notes versions that were declared for steps that do not exist.
    pub(super) fn finish(&mut self) {
        let unknown = self.versions.keys().filter(|name| self.find(name).is_none());
        let mistake = |name| format!("a version is declared for `{name}`, but no step has that name");
        let mistakes: Vec<String> = unknown.map(mistake).collect();
        self.mistakes.extend(mistakes);
    }

    /// Adds to the description of the step added last.
    pub(super) fn about(&mut self, about: String) {
        if let Some(step) = self.steps.last_mut() {
            step.about = about;
        }
    }

    pub(super) fn source<T>(&mut self, id: SourceId, name: &str, opened: &OpenedSource<T>) {
        if let Some(other) = self
            .sources
            .iter()
            .find(|s| s.rules.id == id && s.rules.name != name)
        {
            let other = &other.rules.name;
            self.mistakes.push(format!(
                "sources `{other}` and `{name}` hash to the same id: rename one of them"
            ));
        }
        self.about(opened.description.clone());
        let rules = &opened.rules;
        self.sources.push(PlannedSource {
            rules: SourceRules {
                id,
                name: name.to_owned(),
                lateness: rules.lateness,
                idle_after: rules.idle_after,
                future_bound: rules.future_bound,
                timed: rules.timed,
            },
            topic: opened.topic.clone(),
            description: opened.description.clone(),
            late: rules.late,
            dead_letters: opened.dead_letters.clone(),
            driver: opened.driver.clone(),
        });
    }

    pub(super) fn sink(&mut self, sink: PlannedSink) {
        self.about(sink.to_string());
        self.sinks.push(sink);
    }

    /// An error that lists all mistakes, if there are any.
    pub fn verdict(&self, flow: &str) -> Result<()> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        let many = if self.mistakes.len() == 1 {
            "a mistake".into()
        } else {
            format!("{} mistakes", self.mistakes.len())
        };
        let error = Error::definition(format!("dataflow `{flow}` has {many}"));
        Err(self
            .mistakes
            .iter()
            .fold(error, |error, mistake| error.detail(mistake)))
    }
}

/// One line per step: `window spend ← payments   tumbling 1m, kept 24h`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
        for step in &self.steps {
            let from = step.from.join(", ");
            let arrow = if from.is_empty() { "" } else { " ← " };
            let about = if step.about.is_empty() {
                String::new()
            } else {
                format!("   {}", step.about)
            };
            let name = &step.name;
            writeln!(f, "{:8} {name:widest$}{arrow}{from}{about}", step.kind.word())?;
        }
        Ok(())
    }
}
