//! Avro's schema resolution, worked out once for a writer's and a reader's schema.
//!
//! ```text
//!   writer's schema ┐
//!                   ├─▶ Plan: a step for every place ──▶ rewrite(datum) = the same datum in the reader's schema
//!   reader's schema ┘        (identical: nothing to do, the datum is decoded as it is)
//! ```
//!
//! The rules are those of the specification's chapter "Schema Resolution" (Avro 1.12): promotions, fields by name or
//! alias, defaults, enum defaults, unions branch by branch. A reader's union takes the branch that is most like the
//! writer's schema, as Java does it: the same type under the same full name, then under the same short name, then what
//! can be promoted.

use std::collections::{HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::schema::{Alias, ResolvedSchema, UuidSchema};
use apache_avro::schema::{DecimalSchema, EnumSchema, FixedSchema, InnerDecimalSchema, Name, RecordSchema};

use super::default::encode_default;
use super::survey::Survey;

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
    /// Whether there is an array of things that take no bytes (nulls, empty records): a few bytes may then stand for
    /// any number of them.
    pub(super) weightless: bool,
}

impl Plan {
    /// The plan for two schemas, or `None`: nothing that was written by `writer` can be read by `reader`.
    pub(super) fn resolve(writer: &Schema, reader: &Schema) -> Option<Self> {
        let (writers, readers) = (
            ResolvedSchema::new(writer).ok()?,
            ResolvedSchema::new(reader).ok()?,
        );
        let mut planner = Planner {
            writers: writers.get_names(),
            readers: readers.get_names(),
            steps: Vec::new(),
            skipping: false,
            records: HashMap::new(),
        };
        let root = planner.plan(At::root(writer), At::root(reader))?;
        let steps = planner.steps;
        let (identical, weightless) = Survey {
            steps: &steps,
            seen: HashSet::new(),
        }
        .run(root);
        Some(Self {
            steps,
            root,
            identical,
            weightless,
        })
    }
}

/// The named schemas of one side.
pub(super) type Names<'s> = HashMap<Name, &'s Schema>;

/// A schema, and the namespace that names within it are taken to be in.
#[derive(Clone, Copy)]
pub(super) struct At<'s> {
    pub(super) schema: &'s Schema,
    namespace: Option<&'s str>,
}

impl<'s> At<'s> {
    pub(super) fn root(schema: &'s Schema) -> Self {
        Self {
            schema,
            namespace: None,
        }
    }

    /// A schema within this one.
    pub(super) fn within(self, schema: &'s Schema) -> Self {
        let namespace = match self.schema {
            Schema::Record(record) => record.name.namespace().or(self.namespace),
            _ => self.namespace,
        };
        Self { schema, namespace }
    }

    /// Goes from a name to what it names.
    pub(super) fn follow(self, names: &Names<'s>) -> Option<Self> {
        let Schema::Ref { name } = self.schema else {
            return Some(self);
        };
        let full = name.fully_qualified_name(self.namespace);
        let schema = *names.get(full.as_ref())?;
        let namespace = schema.name().and_then(|own| own.namespace()).or(self.namespace);
        Some(Self { schema, namespace })
    }
}

/// Types with logical types taken off: what the bytes are.
#[derive(Clone, Copy)]
pub(super) enum Base<'s> {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(&'s FixedSchema),
    Array(&'s Schema),
    Map(&'s Schema),
    Union(&'s [Schema]),
    Record(&'s RecordSchema),
    Enum(&'s EnumSchema),
    Ref,
}

pub(super) fn base(schema: &Schema) -> Base<'_> {
    match schema {
        Schema::Null => Base::Null,
        Schema::Boolean => Base::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Base::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Base::Long,
        Schema::Float => Base::Float,
        Schema::Double => Base::Double,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Base::Bytes,
        Schema::Decimal(DecimalSchema {
            inner: InnerDecimalSchema::Bytes,
            ..
        }) => Base::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Base::String,
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Base::Fixed(fixed)
        }
        Schema::Decimal(DecimalSchema {
            inner: InnerDecimalSchema::Fixed(fixed),
            ..
        }) => Base::Fixed(fixed),
        Schema::Array(array) => Base::Array(&array.items),
        Schema::Map(map) => Base::Map(&map.types),
        Schema::Union(union) => Base::Union(union.variants()),
        Schema::Record(record) => Base::Record(record),
        Schema::Enum(symbols) => Base::Enum(symbols),
        Schema::Ref { .. } => Base::Ref,
    }
}

struct Planner<'p, 's> {
    writers: &'p Names<'s>,
    readers: &'p Names<'s>,
    steps: Vec<Step>,
    /// Whether a field of the writer's alone is being planned: `readers` are the writers then.
    skipping: bool,
    /// Records met, by the full names of both and `skipping`: schemas may contain themselves.
    records: HashMap<(String, String, bool), StepId>,
}

impl<'s> Planner<'_, 's> {
    fn push(&mut self, step: Step) -> Option<StepId> {
        self.steps.push(step);
        Some(self.steps.len() - 1)
    }

    fn plan(&mut self, w: At<'s>, r: At<'s>) -> Option<StepId> {
        let (w, r) = (w.follow(self.writers)?, r.follow(self.readers)?);
        if let (Schema::Decimal(w), Schema::Decimal(r)) = (w.schema, r.schema)
            && (w.precision, w.scale) != (r.precision, r.scale)
        {
            return None;
        }
        let step = match (base(w.schema), base(r.schema)) {
            (Base::Union(branches), _) => return self.union(w, branches, r),
            (_, Base::Union(branches)) => return self.branch(w, r, branches),
            (Base::Record(ours), Base::Record(theirs)) => return self.record(w, ours, r, theirs),
            (Base::Null, Base::Null) => Step::Nothing,
            (Base::Boolean, Base::Boolean) => Step::Boolean,
            (Base::Int, Base::Int | Base::Long) => Step::Int,
            (Base::Int, Base::Float) => Step::IntToFloat,
            (Base::Int, Base::Double) => Step::IntToDouble,
            (Base::Long, Base::Long) => Step::Long,
            (Base::Long, Base::Float) => Step::LongToFloat,
            (Base::Long, Base::Double) => Step::LongToDouble,
            (Base::Float, Base::Float) => Step::Raw(4),
            (Base::Float, Base::Double) => Step::FloatToDouble,
            (Base::Double, Base::Double) => Step::Raw(8),
            (Base::Bytes, Base::Bytes) => Step::Bytes,
            (Base::String | Base::Bytes, Base::String) | (Base::String, Base::Bytes) => Step::Text,
            (Base::Fixed(ours), Base::Fixed(theirs)) => {
                let alike = named_alike(&ours.name, w, &theirs.name, theirs.aliases.as_deref(), r);
                (alike && ours.size == theirs.size).then_some(Step::Raw(ours.size))?
            }
            (Base::Array(ours), Base::Array(theirs)) => {
                Step::Array(self.plan(w.within(ours), r.within(theirs))?)
            }
            (Base::Map(ours), Base::Map(theirs)) => Step::Map(self.plan(w.within(ours), r.within(theirs))?),
            (Base::Enum(ours), Base::Enum(theirs)) => {
                let alike = named_alike(&ours.name, w, &theirs.name, theirs.aliases.as_deref(), r);
                alike.then(|| symbols(ours, theirs)).flatten()?
            }
            _ => return None,
        };
        self.push(step)
    }

    /// Every branch of the writer's union on its own: one that can't be resolved is refused when it is met.
    fn union(&mut self, w: At<'s>, branches: &'s [Schema], r: At<'s>) -> Option<StepId> {
        let steps: Vec<_> = branches
            .iter()
            .map(|branch| self.plan(w.within(branch), r))
            .collect();
        if steps.iter().all(Option::is_none) {
            return None;
        }
        let refuse = self.push(Step::Refuse)?;
        self.push(Step::Union(
            steps.into_iter().map(|step| step.unwrap_or(refuse)).collect(),
        ))
    }

    /// The branch of the reader's union that is most like the writer's schema; of two alike, the first.
    fn branch(&mut self, w: At<'s>, r: At<'s>, branches: &'s [Schema]) -> Option<StepId> {
        let mut best: Option<(u8, usize, StepId)> = None;
        for (index, branch) in branches.iter().enumerate() {
            let branch = r.within(branch);
            let Some(step) = self.plan(w, branch) else {
                continue;
            };
            let rank = likeness(w, branch.follow(self.readers)?);
            if best.is_none_or(|(other, ..)| rank < other) {
                best = Some((rank, index, step));
            }
        }
        let (_, index, step) = best?;
        self.push(Step::Branch(index, step))
    }

    fn record(
        &mut self,
        w: At<'s>,
        ours: &'s RecordSchema,
        r: At<'s>,
        theirs: &'s RecordSchema,
    ) -> Option<StepId> {
        if !named_alike(&ours.name, w, &theirs.name, theirs.aliases.as_deref(), r) {
            return None;
        }
        let pair = (
            ours.name.fullname(w.namespace),
            theirs.name.fullname(r.namespace),
            self.skipping,
        );
        if let Some(&known) = self.records.get(&pair) {
            return Some(known);
        }
        // Until its fields are planned it refuses everything; it stays so if they can't be.
        let id = self.push(Step::Refuse)?;
        self.records.insert(pair, id);
        // Where each of the reader's fields comes from.
        let sources: Vec<Option<usize>> = (theirs.fields.iter())
            .map(|field| {
                let mut names = std::iter::once(&field.name).chain(&field.aliases);
                names.find_map(|name| ours.fields.iter().position(|own| &own.name == name))
            })
            .collect();
        let mut pieces = Vec::with_capacity(ours.fields.len());
        let mut made: Vec<Option<usize>> = vec![None; theirs.fields.len()];
        for (index, own) in ours.fields.iter().enumerate() {
            let mut takers = (0..sources.len()).filter(|&taker| sources[taker] == Some(index));
            match (takers.next(), takers.next()) {
                (Some(taker), None) => {
                    let step = self.plan(w.within(&own.schema), r.within(&theirs.fields[taker].schema))?;
                    made[taker] = Some(pieces.len());
                    pieces.push(Piece::Keep(step));
                }
                (None, _) => {
                    pieces.push(Piece::Skip(self.skip(w.within(&own.schema))?));
                }
                // An alias that claims a field which another field has by name.
                (Some(_), Some(_)) => return None,
            }
        }
        let order = self.inserts(r, theirs, &mut pieces, made)?;
        self.steps[id] = Step::Record { pieces, order };
        Some(id)
    }

    /// Reads what has no place in the reader's schema.
    fn skip(&mut self, w: At<'s>) -> Option<StepId> {
        let outer = (self.readers, self.skipping);
        (self.readers, self.skipping) = (self.writers, true);
        let step = self.plan(w, w);
        (self.readers, self.skipping) = outer;
        step
    }

    /// Adds the defaults of the reader's own fields: in their places if the fields of both stand in one order, else
    /// behind, with the order to put all pieces in.
    fn inserts(
        &mut self,
        r: At<'s>,
        theirs: &'s RecordSchema,
        pieces: &mut Vec<Piece>,
        made: Vec<Option<usize>>,
    ) -> Option<Option<Vec<usize>>> {
        let kept: Vec<usize> = made.iter().flatten().copied().collect();
        let insert = |field: usize| {
            let field = &theirs.fields[field];
            let mut bytes = Vec::new();
            encode_default(
                self.readers,
                r.within(&field.schema),
                field.default.as_ref()?,
                &mut bytes,
            )?;
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

/// The spec's condition on names: the short names are alike, or the reader's schema was once called as the writer's is.
fn named_alike(ours: &Name, w: At<'_>, theirs: &Name, aliases: Option<&[Alias]>, r: At<'_>) -> bool {
    let full = ours.fullname(w.namespace);
    ours.name() == theirs.name()
        || aliases
            .unwrap_or_default()
            .iter()
            .any(|alias| alias.fullname(theirs.namespace().or(r.namespace)) == full)
}

/// How far a branch is from the writer's schema: 0 the same, 1 of the same type, 2 to be promoted.
fn likeness(w: At<'_>, r: At<'_>) -> u8 {
    if std::mem::discriminant(&base(w.schema)) != std::mem::discriminant(&base(r.schema)) {
        return 2;
    }
    match (w.schema.name(), r.schema.name()) {
        (Some(ours), Some(theirs)) if ours.fullname(w.namespace) != theirs.fullname(r.namespace) => 1,
        _ => 0,
    }
}

fn symbols(ours: &EnumSchema, theirs: &EnumSchema) -> Option<Step> {
    let of = |symbol: &String| theirs.symbols.iter().position(|other| other == symbol);
    let default = theirs.default.as_ref().and_then(of);
    let map: Vec<_> = ours.symbols.iter().map(|symbol| of(symbol).or(default)).collect();
    map.iter().any(Option::is_some).then_some(Step::Enum(map))
}
