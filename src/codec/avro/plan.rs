//! Avro's schema resolution, worked out once for a writer's and a reader's schema.
//!
//! ```text
//!   writer's schema ┐
//!                   ├─▶ RewritePlan: a step for every place ──▶ rewrite(datum) = the same datum in the reader's schema
//!   reader's schema ┘        (identical: nothing to do, the datum is decoded as it is)
//! ```
//!
//! What resolves is decided by [`Resolution`] before the first step is planned: so there is no step that has
//! to be taken back, and a pair of types has one step wherever it is met.

mod survey;

use std::collections::HashMap;

use super::default::encode_default;
use super::resolve::{NodePair, Resolution, sources, symbols};
use super::schema::{NodeId, NodeKind, Record, Schema};
use survey::identical;

/// Place of a step in [`RewritePlan::steps`].
pub(super) type RewriteStepId = usize;

/// What to do with one place of the writer's datum.
#[derive(Debug)]
pub(super) enum RewriteStep {
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
    Array(RewriteStepId),
    Map(RewriteStepId),
    /// The writer's union: a step a branch. The branch's number is not written: `Branch` does it.
    Union(Vec<RewriteStepId>),
    /// Write the number of a branch of the reader's union, then the step.
    Branch(usize, RewriteStepId),
    /// A symbol's number to another's; `None`: the reader has no such symbol and no default.
    Enum(Vec<Option<usize>>),
    Record {
        pieces: Vec<RecordPiece>,
        /// Which piece stands where, when the reader's order of fields is another one.
        order: Option<Vec<usize>>,
    },
}

/// A part of a record.
#[derive(Debug)]
pub(super) enum RecordPiece {
    /// A field of both.
    Keep(RewriteStepId),
    /// A field of the writer's alone.
    Skip(RewriteStepId),
    /// A field of the reader's alone: its default, encoded.
    Insert(Box<[u8]>),
}

/// How to turn a datum of the writer's schema into one of the reader's.
#[derive(Debug)]
pub(super) struct RewritePlan {
    pub(super) steps: Vec<RewriteStep>,
    pub(super) root: RewriteStepId,
    /// Whether the rewritten datum is the datum itself.
    pub(super) identical: bool,
}

impl RewritePlan {
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
        let root = planner.step(StepPurpose::Read(root));
        while let Some((id, task)) = planner.open.pop() {
            planner.steps[id] = match task {
                StepPurpose::Read(pair) => planner.read(pair)?,
                StepPurpose::Skip(w) => planner.skip(w),
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
enum StepPurpose {
    /// To bring the writer's type into the reader's.
    Read(NodePair),
    /// To pass over what has no place in the reader's schema.
    Skip(NodeId),
}

struct Planner<'s> {
    resolution: Resolution<'s>,
    steps: Vec<RewriteStep>,
    /// The step of each task that was met: schemas may contain themselves.
    planned: HashMap<StepPurpose, RewriteStepId>,
    /// Steps that are still to be filled in.
    open: Vec<(RewriteStepId, StepPurpose)>,
}

impl Planner<'_> {
    /// The step that does a task.
    fn step(&mut self, task: StepPurpose) -> RewriteStepId {
        *self.planned.entry(task).or_insert_with(|| {
            self.steps.push(RewriteStep::Refuse);
            self.open.push((self.steps.len() - 1, task));
            self.steps.len() - 1
        })
    }

    /// `None` where the pair does not resolve after all, which [`Resolution`] has ruled out.
    fn read(&mut self, (w, r): NodePair) -> Option<RewriteStep> {
        let Resolution { writer, reader, .. } = self.resolution;
        let step = match (writer.kind(w), reader.kind(r)) {
            // Every branch of the writer's union on its own: one that can't be resolved is refused when it is
            // met.
            (NodeKind::Union(branches), _) => {
                RewriteStep::Union(branches.iter().map(|branch| self.branch(*branch, r)).collect())
            }
            (_, NodeKind::Union(branches)) => {
                let index = self.resolution.branch(w, branches)?;
                RewriteStep::Branch(index, self.step(StepPurpose::Read((w, branches[index]))))
            }
            (NodeKind::Record(ours), NodeKind::Record(theirs)) => self.record(ours, theirs)?,
            (NodeKind::Array(ours), NodeKind::Array(theirs)) => {
                RewriteStep::Array(self.step(StepPurpose::Read((*ours, *theirs))))
            }
            (NodeKind::Map(ours), NodeKind::Map(theirs)) => {
                RewriteStep::Map(self.step(StepPurpose::Read((*ours, *theirs))))
            }
            (NodeKind::Enum(ours), NodeKind::Enum(theirs)) => RewriteStep::Enum(symbols(ours, theirs)),
            (NodeKind::Int, NodeKind::Float) => RewriteStep::IntToFloat,
            (NodeKind::Int, NodeKind::Double) => RewriteStep::IntToDouble,
            (NodeKind::Long, NodeKind::Float) => RewriteStep::LongToFloat,
            (NodeKind::Long, NodeKind::Double) => RewriteStep::LongToDouble,
            (NodeKind::Float, NodeKind::Double) => RewriteStep::FloatToDouble,
            (NodeKind::Bytes, NodeKind::String) | (NodeKind::String, NodeKind::Bytes) => RewriteStep::Text,
            (kind, _) => leaf(kind)?,
        };
        Some(step)
    }

    fn branch(&mut self, w: NodeId, r: NodeId) -> RewriteStepId {
        match self.resolution.resolves(w, r) {
            true => self.step(StepPurpose::Read((w, r))),
            false => {
                self.steps.push(RewriteStep::Refuse);
                self.steps.len() - 1
            }
        }
    }

    /// Reads all of a type, for its output to be thrown away.
    fn skip(&mut self, w: NodeId) -> RewriteStep {
        let writer = self.resolution.writer;
        match writer.kind(w) {
            NodeKind::Union(branches) => RewriteStep::Union(
                branches
                    .iter()
                    .map(|branch| self.step(StepPurpose::Skip(*branch)))
                    .collect(),
            ),
            NodeKind::Record(record) => RewriteStep::Record {
                pieces: (record.fields.iter())
                    .map(|field| RecordPiece::Skip(self.step(StepPurpose::Skip(field.node))))
                    .collect(),
                order: None,
            },
            NodeKind::Array(items) => RewriteStep::Array(self.step(StepPurpose::Skip(*items))),
            NodeKind::Map(values) => RewriteStep::Map(self.step(StepPurpose::Skip(*values))),
            NodeKind::Enum(symbols) => RewriteStep::Enum((0..symbols.symbols.len()).map(Some).collect()),
            kind => leaf(kind).unwrap_or(RewriteStep::Refuse),
        }
    }

    fn record(&mut self, ours: &Record, theirs: &Record) -> Option<RewriteStep> {
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
                    pieces.push(RecordPiece::Keep(self.step(StepPurpose::Read(pair))));
                }
                None => pieces.push(RecordPiece::Skip(self.step(StepPurpose::Skip(own.node)))),
            }
        }
        let order = self.inserts(theirs, &mut pieces, made)?;
        Some(RewriteStep::Record { pieces, order })
    }

    /// Adds the defaults of the reader's own fields: in their places if the fields of both stand in one
    /// order, else behind, with the order to put all pieces in.
    fn inserts(
        &self,
        theirs: &Record,
        pieces: &mut Vec<RecordPiece>,
        made: Vec<Option<usize>>,
    ) -> Option<Option<Vec<usize>>> {
        let reader = self.resolution.reader;
        let kept: Vec<usize> = made.iter().flatten().copied().collect();
        let insert = |field: usize| {
            let field = &theirs.fields[field];
            let mut bytes = Vec::new();
            encode_default(reader, field.node, field.default.as_ref()?, &mut bytes)?;
            Some(RecordPiece::Insert(bytes.into_boxed_slice()))
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
fn leaf(kind: &NodeKind) -> Option<RewriteStep> {
    let step = match kind {
        NodeKind::Null => RewriteStep::Nothing,
        NodeKind::Boolean => RewriteStep::Boolean,
        NodeKind::Int => RewriteStep::Int,
        NodeKind::Long => RewriteStep::Long,
        NodeKind::Float => RewriteStep::Raw(4),
        NodeKind::Double => RewriteStep::Raw(8),
        NodeKind::Bytes => RewriteStep::Bytes,
        NodeKind::String => RewriteStep::Text,
        NodeKind::Fixed(fixed) => RewriteStep::Raw(fixed.size),
        _ => return None,
    };
    Some(step)
}
