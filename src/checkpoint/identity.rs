//! What a step's persisted state is known by: structures, written into manifests and compared. Text for
//! people is made from them, and compared by nobody, so it may be reworded.
//!
//! ```text
//!   Identity { window, "spend", { size_us: 60000000, … } }       ─▶ `window spend, tumbling 1m`
//!   Expression  filter ( step "payments" )                        ─▶ `filter(payments)`
//! ```
//!
//! Names of kinds, operators and parameters stand in manifests: whoever renames one makes a step another one.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::time::{WindowLayout, span};

/// What kind of state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// Aggregates of windows.
    Window,
    /// The current rows of a keyed topic.
    Table,
    /// The dead letters of a source.
    Letters,
    /// The events behind a [`Stream::changes`](crate::dataflow::stream::Stream::changes).
    Changes,
    /// What an [operator](crate::operator::process::Operator) of the dataflow's own keeps.
    Process,
    /// Aggregates of keys.
    Aggregate,
    /// Keys that events were seen of.
    Dedup,
    /// Events of two streams that wait for each other.
    IntervalJoin,
    /// What an [`EventProcessor`](crate::operator::process_events::EventProcessor) keeps.
    ProcessEvents,
    /// The rows of windows that have not closed.
    WhenClosed,
    /// The rows of a view, with their versions.
    View,
}

/// What some state of a dataflow is called: there is none other of its kind, name and parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its kind.
    pub kind: StateKind,
    /// The name that people gave to the step, the source or the view; empty where they gave none.
    pub name: String,
    /// What the state depends on besides its types and inputs.
    pub parameters: BTreeMap<String, Parameter>,
}

/// A parameter of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// A number; the parameter's name says its unit.
    Number(u64),
    /// Where rows come from.
    Rows(Expression),
}

const SIZE: &str = "size_us";
const EVERY: &str = "every_us";
const OFFSET: &str = "offset_us";
const GAP: &str = "gap_us";
const INPUT: &str = "input";
const NUMBER: &str = "number";

impl Identity {
    /// Without parameters.
    pub fn new(kind: StateKind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            parameters: BTreeMap::new(),
        }
    }

    /// A window step: where the windows lie is a part of it.
    pub fn window(name: &str, layout: WindowLayout) -> Self {
        let mut identity = Self::new(StateKind::Window, name);
        if let WindowLayout::Aligned { size, every, offset } = layout {
            for (parameter, value) in [(SIZE, size), (EVERY, every), (OFFSET, offset)] {
                identity = identity.with(parameter, Parameter::Number(value.as_micros() as u64));
            }
        }
        identity
    }

    /// A step of session windows: so is their gap.
    /// And for how long they are corrected, as state that expired sooner can't take events anew.
    pub fn sessions(name: &str, gap: Duration, corrects: Duration) -> Self {
        let identity = Self::new(StateKind::Window, name).with_number(GAP, gap.as_micros() as u64);
        match corrects.as_micros() as u64 {
            0 => identity,
            us => identity.with_number("corrects_us", us),
        }
    }

    /// Where its windows lie, for people: `tumbling 1m`, `sessions, gap 30m`.
    pub fn shape(&self) -> String {
        match self.number(GAP) {
            Some(gap) => format!("sessions, gap {}", span(Duration::from_micros(gap))),
            None => Shape(self.layout()).to_string(),
        }
    }

    /// Kept events, to which people give no name: known by what they come from, and counted where that is the
    /// same.
    pub fn changes(input: &Expression, number: u64) -> Self {
        Self::new(StateKind::Changes, "")
            .with(INPUT, Parameter::Rows(input.clone()))
            .with(NUMBER, Parameter::Number(number))
    }

    /// With a number; `name` says its unit.
    pub fn with_number(self, name: &str, number: u64) -> Self {
        self.with(name, Parameter::Number(number))
    }

    fn with(mut self, name: &str, value: Parameter) -> Self {
        self.parameters.insert(name.to_owned(), value);
        self
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.parameters.get(name)? {
            Parameter::Number(number) => Some(*number),
            Parameter::Rows(_) => None,
        }
    }

    fn layout(&self) -> WindowLayout {
        let us = |name| self.number(name).map(Duration::from_micros);
        match (us(SIZE), us(EVERY), us(OFFSET)) {
            (Some(size), Some(every), Some(offset)) => WindowLayout::Aligned { size, every, offset },
            _ => WindowLayout::PerKey,
        }
    }
}

/// For people: `window spend, tumbling 1m`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.kind {
            StateKind::Window => write!(f, "window {name}, {}", self.shape()),
            StateKind::Table => write!(f, "table {name}"),
            StateKind::Letters => write!(f, "letters {name}"),
            StateKind::Process => write!(f, "process {name}"),
            StateKind::Aggregate => write!(f, "aggregate {name}"),
            StateKind::Dedup => write!(f, "dedup {name}"),
            StateKind::IntervalJoin => write!(f, "interval join {name}"),
            StateKind::ProcessEvents => write!(f, "process_events {name}"),
            StateKind::WhenClosed => write!(f, "when_closed {name}"),
            StateKind::View => write!(f, "view {name}"),
            StateKind::Changes => {
                f.write_str("changes")?;
                if let Some(Parameter::Rows(input)) = self.parameters.get(INPUT) {
                    write!(f, " {input}")?;
                }
                match self.number(NUMBER) {
                    Some(number) if number > 1 => write!(f, " #{number}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// Where windows lie, for people: `tumbling 1m`.
struct Shape(WindowLayout);

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WindowLayout::Aligned { size, every, offset } = self.0 else {
            return f.write_str("a separate window for each key");
        };
        match size == every {
            true => write!(f, "tumbling {}", span(size))?,
            false => write!(f, "hopping {} every {}", span(size), span(every))?,
        }
        match offset.is_zero() {
            true => Ok(()),
            false => write!(f, ", offset {}", span(offset)),
        }
    }
}

/// Where rows come from: operators over named steps. A named step stands for all that is before it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// What an operator makes of its inputs.
    Operator {
        /// Which one.
        id: String,
        /// Of what, in order.
        inputs: Vec<Expression>,
    },
    /// The same of inputs that are too long to be written out.
    Digest {
        /// Which one.
        id: String,
        /// The hash of the inputs' bytes.
        inputs: u64,
    },
    /// What a named step gives.
    Step(String),
}

/// One of more operators and steps is shortened to its hash: steps that share inputs would else double it
/// each time.
const NODES_MAX: usize = 32;

impl Expression {
    /// An operator over some inputs.
    pub fn of(id: &str, inputs: Vec<Expression>) -> Self {
        let id = id.to_owned();
        if inputs.iter().map(Self::nodes).sum::<usize>() < NODES_MAX {
            return Self::Operator { id, inputs };
        }
        let bytes = postcard::to_allocvec(&inputs).expect("text and numbers always serialize");
        let inputs = xxh3_64(&bytes);
        Self::Digest { id, inputs }
    }

    fn nodes(&self) -> usize {
        match self {
            Self::Operator { inputs, .. } => 1 + inputs.iter().map(Self::nodes).sum::<usize>(),
            Self::Step(_) | Self::Digest { .. } => 1,
        }
    }
}

impl Default for Expression {
    fn default() -> Self {
        Self::Step(String::new())
    }
}

/// For people: `semijoin(changes(auctions), map(merchants))`.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(name) => f.write_str(&quoted(name)),
            Self::Digest { id, inputs } => write!(f, "{id}(#{inputs:016x})"),
            Self::Operator { id, inputs } => {
                write!(f, "{id}(")?;
                for (n, input) in inputs.iter().enumerate() {
                    let comma = if n > 0 { ", " } else { "" };
                    write!(f, "{comma}{input}")?;
                }
                f.write_str(")")
            }
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A name that can't be taken for an operator, or for more than one name.
pub(crate) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !name.is_empty() && name.chars().all(plain) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

/// What stands behind the name of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// What it does to what.
    pub made: Expression,
    /// As the dataflow declares it; 1 where it does not, or where the step's own state has it.
    pub version: u32,
}

impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.made)?;
        match self.version {
            1 => Ok(()),
            version => write!(f, ", version {version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> Expression {
        Expression::Step(name.to_owned())
    }

    /// These bytes are in manifests: text for people may change, and they may not.
    #[test]
    fn what_is_written_stays_as_it_is() {
        let minute = Duration::from_secs(60);
        let layout = WindowLayout::Aligned {
            size: minute,
            every: minute,
            offset: Duration::ZERO,
        };
        let window = Identity::window("spend", layout);
        assert_eq!(window.to_string(), "window spend, tumbling 1m");
        assert_eq!(
            serde_json::to_value(&window).unwrap(),
            serde_json::json!({
                "kind": "window",
                "name": "spend",
                "parameters": {
                    "every_us": { "number": 60_000_000 },
                    "offset_us": { "number": 0 },
                    "size_us": { "number": 60_000_000 },
                },
            })
        );
        let input = Expression::of("filter", vec![step("payments")]);
        let changes = Identity::changes(&input, 2);
        assert_eq!(changes.to_string(), "changes filter(payments) #2");
        assert_eq!(
            serde_json::to_value(&changes).unwrap(),
            serde_json::json!({
                "kind": "changes",
                "name": "",
                "parameters": {
                    "input": { "rows": { "operator": { "id": "filter", "inputs": [{ "step": "payments" }] } } },
                    "number": { "number": 2 },
                },
            })
        );
        let kinds = [
            StateKind::Table,
            StateKind::Letters,
            StateKind::Process,
            StateKind::View,
        ];
        let kinds = kinds.map(|kind| serde_json::to_value(kind).unwrap());
        assert_eq!(kinds, ["table", "letters", "process", "view"]);
    }

    #[test]
    fn windows_at_another_offset_are_others() {
        let day = Duration::from_secs(24 * 3600);
        let at = |hours: u64| {
            let offset = Duration::from_secs(hours * 3600);
            let (size, every) = (day, day);
            Identity::window("days", WindowLayout::Aligned { size, every, offset })
        };
        assert_ne!(at(0), at(6));
        assert_eq!(at(6).to_string(), "window days, tumbling 24h, offset 6h");
        let per_key = Identity::window("own", WindowLayout::PerKey);
        assert_eq!(per_key.to_string(), "window own, a separate window for each key");
    }

    #[test]
    fn expressions_stay_small_and_differ_as_their_inputs_do() {
        let deep = |first: &str| {
            let mut rows = step(first);
            for _ in 0..60 {
                rows = Expression::of("concat", vec![rows.clone(), rows]);
            }
            rows
        };
        assert!(deep("a").nodes() <= NODES_MAX);
        assert_eq!(deep("a"), deep("a"));
        assert_ne!(deep("a"), deep("b"));
        assert_eq!(
            Expression::of("map", vec![step("a b")]).to_string(),
            "map(\"a b\")"
        );
    }
}
