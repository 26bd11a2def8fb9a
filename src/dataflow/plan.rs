//! What a dataflow consists of, and the mistakes in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use crate::checkpoint::manifest::StepShape;
use crate::error::{Error, Result};
use crate::late::Late;
use crate::position::SourceId;
use crate::sequencer::SourceRules;
use crate::source::{Driver, Opened};

/// What kind of step it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads events.
    Source,
    /// Reads a table.
    Table,
    /// User code that may turn events down.
    TryMap,
    /// Windowed aggregate.
    Window,
    /// Aggregate of groups.
    Group,
    /// Join of two tables.
    Join,
    /// Fixed point.
    Iterate,
    /// Distinct rows.
    Distinct,
    /// Served view.
    View,
    /// Takes rows out.
    Sink,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::Table => "table",
            Kind::TryMap => "try_map",
            Kind::Window => "window",
            Kind::Group => "group",
            Kind::Join => "join",
            Kind::Iterate => "iterate",
            Kind::Distinct => "distinct",
            Kind::View => "view",
            Kind::Sink => "sink",
        }
    }
}

/// A named step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its name.
    pub name: Rc<str>,
    /// What it does.
    pub kind: Kind,
    /// The named steps that it takes from.
    pub from: Vec<Rc<str>>,
    /// More about it.
    pub about: String,
    /// Where it is written.
    pub at: &'static Location<'static>,
}

/// A source, as the runtime needs it.
#[derive(Clone)]
pub struct PlannedSource {
    /// What the sequencer has to know.
    pub rules: SourceRules,
    /// Name of the log that is read.
    pub topic: String,
    /// ``topic `x` ``.
    pub description: String,
    /// What becomes of its events that come too late.
    pub late: Late,
    /// Looks at it from outside.
    pub driver: Arc<dyn Driver>,
}

/// A step whose type no checkpoint can hold.
#[derive(Clone, Debug)]
pub struct UnfitState {
    /// The step, the type, and why.
    pub what: String,
    /// What to do about it.
    pub hint: &'static str,
}

/// All steps and sources of a dataflow, and what is wrong with them.
#[derive(Default)]
pub struct Plan {
    /// Named steps, in the order of the code.
    pub steps: Vec<Step>,
    /// Sources.
    pub sources: Vec<PlannedSource>,
    /// What has state, in the order in which it is built.
    pub states: Vec<StepShape>,
    /// Versions that were declared, by step.
    pub versions: BTreeMap<String, u32>,
    /// A step that may keep state of its own, where no checkpoint finds it.
    pub unsaved: Option<&'static Location<'static>>,
    /// Steps whose types no checkpoint can hold.
    pub unfit: Vec<UnfitState>,
    /// What is wrong, each with its place.
    pub mistakes: Vec<String>,
}

impl Plan {
    pub(super) fn step(
        &mut self,
        name: &str,
        kind: Kind,
        from: &[Rc<str>],
        at: &'static Location<'static>,
    ) -> Rc<str> {
        if name.is_empty() {
            self.mistakes
                .push(format!("a {} at {at} has no name", kind.word()));
        } else if let Some(first) = self.steps.iter().find(|step| &*step.name == name) {
            self.mistakes.push(format!(
                "two steps are named `{name}`: a {} at {} and a {} at {at}",
                first.kind.word(),
                first.at,
                kind.word()
            ));
        }
        let name: Rc<str> = name.into();
        self.steps.push(Step {
            name: name.clone(),
            kind,
            from: from.to_vec(),
            about: String::new(),
            at,
        });
        name
    }

    /// The names of all steps that one is made of, and its own, in order.
    pub(super) fn upstream(&self, name: &str) -> Vec<String> {
        let (mut found, mut next) = (BTreeSet::new(), vec![name]);
        while let Some(name) = next.pop() {
            if found.insert(name.to_owned()) {
                let steps = self.steps.iter().filter(|step| &*step.name == name);
                next.extend(steps.flat_map(|step| step.from.iter().map(|from| &**from)));
            }
        }
        found.into_iter().collect()
    }

    /// The names of all sinks.
    pub fn sinks(&self) -> Vec<String> {
        let sinks = self.steps.iter().filter(|step| step.kind == Kind::Sink);
        sinks.map(|step| step.name.to_string()).collect()
    }

    /// The version of a step.
    pub(super) fn version(&self, name: &str) -> u32 {
        self.versions.get(name).copied().unwrap_or(1)
    }

    /// Says more about the step that was added last.
    pub(super) fn about(&mut self, about: String) {
        if let Some(step) = self.steps.last_mut() {
            step.about = about;
        }
    }

    pub(super) fn source<T>(&mut self, id: SourceId, name: &str, opened: &Opened<T>) {
        if let Some(other) = self
            .sources
            .iter()
            .find(|s| s.rules.id == id && s.rules.name != name)
        {
            let other = &other.rules.name;
            self.mistakes.push(format!(
                "sources `{other}` and `{name}` have the same id: rename one of them"
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
            driver: opened.driver.clone(),
        });
    }

    /// An error with all mistakes, if there are any.
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

/// A line a step: `window spend ← payments   tumbling 1m, kept 24h`.
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
