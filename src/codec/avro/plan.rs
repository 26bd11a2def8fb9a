//! Avro's schema resolution, worked out once for a writer's and a reader's schema.
//!
//! ```text
//!   writer's schema ┐
//!                   ├─▶ Plan: a step for every place ──▶ rewrite(datum) = the same datum in the reader's schema
//!   reader's schema ┘        (identical: nothing to do, the datum is decoded as it is)
//! ```
//!
//! What resolves is decided by [`Resolution`] before the first step is planned: so there is no step that has
//! to be taken back, and a pair of types has one step wherever it is met.

mod survey;

use std::collections::HashMap;

use super::default::encode_default;
use super::resolve::{Pair, Resolution, sources, symbols};
use super::schema::{Kind, NodeId, Record, Schema};
use survey::identical;

/// Place of a step in [`Plan::steps`].
pub(super) type StepId = usize;

/// What to do with one place of the writer's datum.
#[derive(Debug)]
pub(super) enum Step {
    /// There is no resolution: the datum is dead.
    Refuse,
    /// Null: no bytes.
    Nothing,
    Boolean,
    /// Read an int, write it as it is: an int and a long are written alike.
    Int,
    Long,
    IntToFloat,
    IntToDouble,
    LongToFloat,
    LongToDouble,
    FloatToDouble,
    /// So many bytes as they are.
    Raw(usize),
    Bytes,
    /// Bytes that must be UTF-8.
    Text,
    Array(StepId),
    Map(StepId),
    /// The writer's union: a step a branch. The branch's number is not written: `Branch` does it.
    Union(Vec<StepId>),
    /// Write the number of a branch of the reader's union, then the step.
    Branch(usize, StepId),
    /// A symbol's number to another's; `None`: the reader has no such symbol and no default.
    Enum(Vec<Option<usize>>),
    Record {
        pieces: Vec<Piece>,
        /// Which piece stands where, when the reader's order of fields is another one.
        order: Option<Vec<usize>>,
    },
}

/// A part of a record.
#[derive(Debug)]
pub(super) enum Piece {
    /// A field of both.
    Keep(StepId),
    /// A field of the writer's alone.
    Skip(StepId),
    /// A field of the reader's alone: its default, encoded.
    Insert(Box<[u8]>),
}

/// How to turn a datum of the writer's schema into one of the reader's.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) root: StepId,
    /// Whether the rewritten datum is the datum itself.
    pub(super) identical: bool,
}

impl Plan {
    /// The plan for two schemas, or `None`: nothing that was written by `writer` can be read by `reader`.
    pub(super) fn resolve(writer: &Schema, reader: &Schema) -> Option<Self> {
        let resolution = Resolution::of(writer, reader);
        let root = (writer.root(), reader.root());
        resolution.resolves(root.0, root.1).then_some(())?;
        let mut planner = Planner {
            resolution,
            steps: Vec::new(),
            planned: HashMap::new(),
            open: Vec::new(),
        };
        let root = planner.step(Task::Read(root));
        while let Some((id, task)) = planner.open.pop() {
            planner.steps[id] = match task {
                Task::Read(pair) => planner.read(pair)?,
                Task::Skip(w) => planner.skip(w),
            };
        }
        let steps = planner.steps;
        Some(Self {
            identical: identical(&steps, root),
            steps,
            root,
        })
    }
}

/// What a step is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    /// To bring the writer's type into the reader's.
    Read(Pair),
    /// To pass over what has no place in the reader's schema.
    Skip(NodeId),
}

struct Planner<'s> {
    resolution: Resolution<'s>,
    steps: Vec<Step>,
    /// The step of each task that was met: schemas may contain themselves.
    planned: HashMap<Task, StepId>,
    /// Steps that are still to be filled in.
    open: Vec<(StepId, Task)>,
}

impl Planner<'_> {
    /// The step that does a task.
    fn step(&mut self, task: Task) -> StepId {
        *self.planned.entry(task).or_insert_with(|| {
            self.steps.push(Step::Refuse);
            self.open.push((self.steps.len() - 1, task));
            self.steps.len() - 1
        })
    }

    /// `None` where the pair does not resolve after all, which [`Resolution`] has ruled out.
    fn read(&mut self, (w, r): Pair) -> Option<Step> {
        let Resolution { writer, reader, .. } = self.resolution;
        let step = match (writer.kind(w), reader.kind(r)) {
            // Every branch of the writer's union on its own: one that can't be resolved is refused when it is
            // met.
            (Kind::Union(branches), _) => {
                Step::Union(branches.iter().map(|branch| self.branch(*branch, r)).collect())
            }
            (_, Kind::Union(branches)) => {
                let index = self.resolution.branch(w, branches)?;
                Step::Branch(index, self.step(Task::Read((w, branches[index]))))
            }
            (Kind::Record(ours), Kind::Record(theirs)) => self.record(ours, theirs)?,
            (Kind::Array(ours), Kind::Array(theirs)) => Step::Array(self.step(Task::Read((*ours, *theirs)))),
            (Kind::Map(ours), Kind::Map(theirs)) => Step::Map(self.step(Task::Read((*ours, *theirs)))),
            (Kind::Enum(ours), Kind::Enum(theirs)) => Step::Enum(symbols(ours, theirs)),
            (Kind::Int, Kind::Float) => Step::IntToFloat,
            (Kind::Int, Kind::Double) => Step::IntToDouble,
            (Kind::Long, Kind::Float) => Step::LongToFloat,
            (Kind::Long, Kind::Double) => Step::LongToDouble,
            (Kind::Float, Kind::Double) => Step::FloatToDouble,
            (Kind::Bytes, Kind::String) | (Kind::String, Kind::Bytes) => Step::Text,
            (kind, _) => leaf(kind)?,
        };
        Some(step)
    }

    fn branch(&mut self, w: NodeId, r: NodeId) -> StepId {
        match self.resolution.resolves(w, r) {
            true => self.step(Task::Read((w, r))),
            false => {
                self.steps.push(Step::Refuse);
                self.steps.len() - 1
            }
        }
    }

    /// Reads all of a type, for its output to be thrown away.
    fn skip(&mut self, w: NodeId) -> Step {
        let writer = self.resolution.writer;
        match writer.kind(w) {
            Kind::Union(branches) => Step::Union(
                branches
                    .iter()
                    .map(|branch| self.step(Task::Skip(*branch)))
                    .collect(),
            ),
            Kind::Record(record) => Step::Record {
                pieces: (record.fields.iter())
                    .map(|field| Piece::Skip(self.step(Task::Skip(field.node))))
                    .collect(),
                order: None,
            },
            Kind::Array(items) => Step::Array(self.step(Task::Skip(*items))),
            Kind::Map(values) => Step::Map(self.step(Task::Skip(*values))),
            Kind::Enum(symbols) => Step::Enum((0..symbols.symbols.len()).map(Some).collect()),
            kind => leaf(kind).unwrap_or(Step::Refuse),
        }
    }

    fn record(&mut self, ours: &Record, theirs: &Record) -> Option<Step> {
        let mut takers = vec![None; ours.fields.len()];
        for (taker, source) in sources(ours, theirs).into_iter().enumerate() {
            if let Some(own) = source {
                takers[own] = Some(taker);
            }
        }
        let mut pieces = Vec::with_capacity(ours.fields.len());
        let mut made: Vec<Option<usize>> = vec![None; theirs.fields.len()];
        for (own, taker) in ours.fields.iter().zip(takers) {
            match taker {
                Some(taker) => {
                    made[taker] = Some(pieces.len());
                    let pair = (own.node, theirs.fields[taker].node);
                    pieces.push(Piece::Keep(self.step(Task::Read(pair))));
                }
                None => pieces.push(Piece::Skip(self.step(Task::Skip(own.node)))),
            }
        }
        let order = self.inserts(theirs, &mut pieces, made)?;
        Some(Step::Record { pieces, order })
    }

    /// Adds the defaults of the reader's own fields: in their places if the fields of both stand in one
    /// order, else behind, with the order to put all pieces in.
    fn inserts(
        &self,
        theirs: &Record,
        pieces: &mut Vec<Piece>,
        made: Vec<Option<usize>>,
    ) -> Option<Option<Vec<usize>>> {
        let reader = self.resolution.reader;
        let kept: Vec<usize> = made.iter().flatten().copied().collect();
        let insert = |field: usize| {
            let field = &theirs.fields[field];
            let mut bytes = Vec::new();
            encode_default(reader, field.node, field.default.as_ref()?, &mut bytes)?;
            Some(Piece::Insert(bytes.into_boxed_slice()))
        };
        if kept.is_sorted() {
            let (mut at, mut shift) = (0, 0);
            for (field, made) in made.iter().enumerate() {
                match made {
                    Some(piece) => at = piece + shift + 1,
                    None => {
                        pieces.insert(at, insert(field)?);
                        at += 1;
                        shift += 1;
                    }
                }
            }
            return Some(None);
        }
        let mut order = Vec::with_capacity(made.len());
        for (field, made) in made.iter().enumerate() {
            order.push(made.unwrap_or(pieces.len()));
            if made.is_none() {
                pieces.push(insert(field)?);
            }
        }
        Some(Some(order))
    }
}

/// A type without others in it, as it is.
fn leaf(kind: &Kind) -> Option<Step> {
    let step = match kind {
        Kind::Null => Step::Nothing,
        Kind::Boolean => Step::Boolean,
        Kind::Int => Step::Int,
        Kind::Long => Step::Long,
        Kind::Float => Step::Raw(4),
        Kind::Double => Step::Raw(8),
        Kind::Bytes => Step::Bytes,
        Kind::String => Step::Text,
        Kind::Fixed(fixed) => Step::Raw(fixed.size),
        _ => return None,
    };
    Some(step)
}
