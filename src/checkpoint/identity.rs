//! The identity of a step's persisted state: structures that are written into manifests and compared. Text
//! for people is derived from them and never compared, so it may be reworded.
//!
//! ```text
//!   StateIdentity { window, "spend", { size_us: 60000000, … } }  ─▶ `window spend, tumbling 1m`
//!   Expression  filter ( step "payments" )                        ─▶ `filter(payments)`
//! ```
//!
//! Manifests contain the names of kinds, operators and parameters: renaming one makes its steps different
//! ones.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::time::{WindowLayout, span};

/// The kind of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateKind {
    /// Window aggregates.
    Window,
    /// The current rows of a keyed topic.
    Table,
    /// The dead letters of a source.
    Letters,
    /// The events behind a [`Stream::changes`](crate::dataflow::stream::Stream::changes).
    Changes,
    /// The state of a custom [operator](crate::operator::process::Operator).
    Process,
    /// Aggregates per key.
    Aggregate,
    /// Keys of events already seen.
    Dedup,
    /// Events of two streams that wait for a match.
    IntervalJoin,
    /// The state of an [`EventProcessor`](crate::operator::process_events::EventProcessor).
    ProcessEvents,
    /// The rows of windows that have not closed.
    WhenClosed,
    /// The rows of a view, with their versions.
    View,
}

/// The identity of a state: unique in a dataflow by kind, name and parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateIdentity {
    /// Its kind.
    pub kind: StateKind,
    /// The user's name for the step, source or view; empty if unnamed.
    pub name: String,
    /// Parameters that the state depends on, besides its types and inputs.
    pub parameters: BTreeMap<String, Parameter>,
}

/// A parameter of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parameter {
    /// A number; the parameter's name includes the unit.
    Number(u64),
    /// The origin of rows.
    Rows(Expression),
}

const SIZE: &str = "size_us";
const EVERY: &str = "every_us";
const OFFSET: &str = "offset_us";
const GAP: &str = "gap_us";
const INPUT: &str = "input";
const NUMBER: &str = "number";

impl StateIdentity {
    /// An identity without parameters.
    pub fn new(kind: StateKind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            parameters: BTreeMap::new(),
        }
    }

    /// The identity of a window step, which includes the layout of its windows.
    pub fn window(name: &str, layout: WindowLayout) -> Self {
        let mut identity = Self::new(StateKind::Window, name);
        if let WindowLayout::Aligned { size, every, offset } = layout {
            for (parameter, value) in [(SIZE, size), (EVERY, every), (OFFSET, offset)] {
                identity = identity.with(parameter, Parameter::Number(value.as_micros() as u64));
            }
        }
        identity
    }

    /// The identity of a step of session windows, which includes the gap, and the time for corrections,
    /// because state that expired earlier cannot take corrections.
    pub fn sessions(name: &str, gap: Duration, corrects: Duration) -> Self {
        let identity = Self::new(StateKind::Window, name).with_number(GAP, gap.as_micros() as u64);
        match corrects.as_micros() as u64 {
            0 => identity,
            us => identity.with_number("corrects_us", us),
        }
    }

    /// The window layout for people: `tumbling 1m`, `sessions, gap 30m`.
    pub fn shape(&self) -> String {
        match self.number(GAP) {
            Some(gap) => format!("sessions, gap {}", span(Duration::from_micros(gap))),
            None => WindowShape(self.layout()).to_string(),
        }
    }

    /// The identity of kept events, which users do not name: derived from their origin, with a counter for
    /// equal origins.
    pub fn changes(input: &Expression, number: u64) -> Self {
        Self::new(StateKind::Changes, "")
            .with(INPUT, Parameter::Rows(input.clone()))
            .with(NUMBER, Parameter::Number(number))
    }

    /// Adds a number; `name` includes the unit.
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
impl fmt::Display for StateIdentity {
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

/// The window layout for people: `tumbling 1m`.
struct WindowShape(WindowLayout);

impl fmt::Display for WindowShape {
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

/// The origin of rows: an expression of operators over named steps. A named step stands for everything before
/// it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// An operator over inputs.
    Operator {
        /// The operator.
        id: String,
        /// Its inputs, in order.
        inputs: Vec<Expression>,
    },
    /// An operator over inputs that are too long to be spelled out.
    Digest {
        /// The operator.
        id: String,
        /// The hash of the encoded inputs.
        inputs: u64,
    },
    /// The rows of a named step.
    Step(String),
}

/// Expressions with more operators and steps are replaced by their hash: otherwise steps that share inputs
/// would double them each time.
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

/// Quotes a name that could be mistaken for an operator or for several names.
pub(crate) fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !name.is_empty() && name.chars().all(plain) {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

/// The definition behind a step's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Its operators and inputs.
    pub made: Expression,
    /// The declared version; 1 if there is none, or if the step's own state carries it.
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

    /// These bytes are in manifests: text for people may change, they may not.
    #[test]
    fn what_is_written_stays_as_it_is() {
        let minute = Duration::from_secs(60);
        let layout = WindowLayout::Aligned {
            size: minute,
            every: minute,
            offset: Duration::ZERO,
        };
        let window = StateIdentity::window("spend", layout);
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
        let changes = StateIdentity::changes(&input, 2);
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
            StateIdentity::window("days", WindowLayout::Aligned { size, every, offset })
        };
        assert_ne!(at(0), at(6));
        assert_eq!(at(6).to_string(), "window days, tumbling 24h, offset 6h");
        let per_key = StateIdentity::window("own", WindowLayout::PerKey);
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
