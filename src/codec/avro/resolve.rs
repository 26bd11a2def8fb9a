//! Which types of a writer's schema can be read as which of a reader's, by the specification's chapter
//! "Schema Resolution" (Avro 1.12): promotions, fields by name or alias, defaults, unions branch by branch.
//!
//! Schemas may contain themselves, so a pair may rest on itself: record `Node` resolves if its field `next`
//! does, which is a `Node`. What resolves is the largest set of pairs that contradicts no rule. It is found
//! from above: all pairs that the two schemas lead to are held to resolve, and those that break a rule are
//! struck out until none does. So the answer for a pair does not depend on the way to it, nor on what was
//! tried before.

use std::collections::{HashMap, HashSet};

use super::default::encode_default;
use super::schema::{Enum, Field, Logical, NodeId, NodeKind, Record, Schema};

/// A node of the writer's and one of the reader's.
pub(super) type NodePair = (NodeId, NodeId);

/// What resolves between two schemas.
pub(super) struct Resolution<'s> {
    pub(super) writer: &'s Schema,
    pub(super) reader: &'s Schema,
    refused: HashSet<NodePair>,
    /// The fields of the reader's records that a default can stand in for.
    defaults: HashMap<(NodeId, usize), bool>,
}

impl<'s> Resolution<'s> {
    /// Works it out for all that the roots lead to.
    pub(super) fn of(writer: &'s Schema, reader: &'s Schema) -> Self {
        let mut resolution = Self {
            writer,
            reader,
            refused: HashSet::new(),
            defaults: HashMap::new(),
        };
        let pairs = resolution.reachable();
        loop {
            let before = resolution.refused.len();
            // Backwards: what a pair rests on was mostly found after it.
            for pair in pairs.iter().rev() {
                if !resolution.refused.contains(pair) && !resolution.holds(*pair) {
                    resolution.refused.insert(*pair);
                }
            }
            if resolution.refused.len() == before {
                return resolution;
            }
        }
    }

    /// Whether anything that is written as `w` can be read as `r`. For pairs that the roots lead to.
    pub(super) fn resolves(&self, w: NodeId, r: NodeId) -> bool {
        !self.refused.contains(&(w, r))
    }

    /// The branch of a reader's union that the writer's type is read as: the one that is most like it, as
    /// Java has it: the same type under the same full name, then under the same short name, then what can be
    /// promoted; of two alike, the first.
    pub(super) fn branch(&self, w: NodeId, branches: &[NodeId]) -> Option<usize> {
        (0..branches.len())
            .filter(|&index| self.resolves(w, branches[index]))
            .min_by_key(|&index| self.distance(w, branches[index]))
    }

    /// 0 the same, 1 of the same type, 2 to be promoted.
    fn distance(&self, w: NodeId, r: NodeId) -> u8 {
        let (ours, theirs) = (self.writer.kind(w), self.reader.kind(r));
        match (ours.name(), theirs.name()) {
            _ if !ours.alike(theirs) => 2,
            (Some(ours), Some(theirs)) if ours.full != theirs.full => 1,
            _ => 0,
        }
    }

    /// Every pair that the roots' resolution asks about, in the order in which they are met.
    fn reachable(&self) -> Vec<NodePair> {
        let root = (self.writer.root(), self.reader.root());
        let (mut pairs, mut seen) = (vec![root], HashSet::from([root]));
        let mut next = 0;
        while let Some(&pair) = pairs.get(next) {
            next += 1;
            for below in self.below(pair) {
                if seen.insert(below) {
                    pairs.push(below);
                }
            }
        }
        pairs
    }

    /// The pairs that a pair rests on.
    fn below(&self, (w, r): NodePair) -> Vec<NodePair> {
        match (self.writer.kind(w), self.reader.kind(r)) {
            (NodeKind::Union(branches), _) => branches.iter().map(|branch| (*branch, r)).collect(),
            (_, NodeKind::Union(branches)) => branches.iter().map(|branch| (w, *branch)).collect(),
            (NodeKind::Array(ours), NodeKind::Array(theirs))
            | (NodeKind::Map(ours), NodeKind::Map(theirs)) => {
                vec![(*ours, *theirs)]
            }
            (NodeKind::Record(ours), NodeKind::Record(theirs)) if theirs.name.takes(&ours.name) => theirs
                .fields
                .iter()
                .zip(sources(ours, theirs))
                .filter_map(|(field, own)| Some((ours.fields[own?].node, field.node)))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Whether a pair keeps the rules, if those that it rests on do.
    fn holds(&mut self, (w, r): NodePair) -> bool {
        let (writer, reader) = (self.writer, self.reader);
        match (writer.kind(w), reader.kind(r)) {
            // Of the writer's union one branch is enough: another is refused when it is met.
            (NodeKind::Union(branches), _) => branches.iter().any(|branch| self.resolves(*branch, r)),
            (_, NodeKind::Union(branches)) => branches.iter().any(|branch| self.resolves(w, *branch)),
            (NodeKind::Array(ours), NodeKind::Array(theirs))
            | (NodeKind::Map(ours), NodeKind::Map(theirs)) => self.resolves(*ours, *theirs),
            (NodeKind::Record(ours), NodeKind::Record(theirs)) => {
                theirs.name.takes(&ours.name) && self.fields_hold(r, ours, theirs)
            }
            _ => self.becomes(w, r),
        }
    }

    fn fields_hold(&mut self, r: NodeId, ours: &Record, theirs: &Record) -> bool {
        let sources = sources(ours, theirs);
        let mut taken = HashSet::new();
        (0..sources.len()).all(|index| match sources[index] {
            // An alias must not claim a field that another has by name.
            Some(own) => taken.insert(own) && self.resolves(ours.fields[own].node, theirs.fields[index].node),
            None => self.has_default(r, theirs, index),
        })
    }

    fn has_default(&mut self, r: NodeId, record: &Record, index: usize) -> bool {
        let reader = self.reader;
        *self.defaults.entry((r, index)).or_insert_with(|| {
            let field = &record.fields[index];
            let default = field.default.as_ref();
            default.is_some_and(|json| encode_default(reader, field.node, json, &mut Vec::new()).is_some())
        })
    }

    /// Whether a type by itself, whatever is within it, can become the other one.
    pub(super) fn becomes(&self, w: NodeId, r: NodeId) -> bool {
        let (ours, theirs) = (self.writer.node(w), self.reader.node(r));
        if let (Some(ours @ Logical::Decimal { .. }), Some(theirs @ Logical::Decimal { .. })) =
            (ours.logical, theirs.logical)
            && ours != theirs
        {
            return false; // The specification wants both precision and scale to match.
        }
        match (&ours.kind, &theirs.kind) {
            (NodeKind::Int, NodeKind::Long | NodeKind::Float | NodeKind::Double)
            | (NodeKind::Long, NodeKind::Float | NodeKind::Double)
            | (NodeKind::Float, NodeKind::Double)
            | (NodeKind::String, NodeKind::Bytes)
            | (NodeKind::Bytes, NodeKind::String) => true,
            (NodeKind::Fixed(ours), NodeKind::Fixed(theirs)) => {
                ours.size == theirs.size && theirs.name.takes(&ours.name)
            }
            (NodeKind::Enum(ours), NodeKind::Enum(theirs)) => {
                theirs.name.takes(&ours.name) && symbols(ours, theirs).iter().any(Option::is_some)
            }
            (NodeKind::Record(ours), NodeKind::Record(theirs)) => theirs.name.takes(&ours.name),
            (ours, theirs) => ours.alike(theirs),
        }
    }
}

/// Where each of the reader's fields comes from: a field of the writer's with its name, or else with one of
/// its aliases.
pub(super) fn sources(ours: &Record, theirs: &Record) -> Vec<Option<usize>> {
    let places: HashMap<&str, usize> = ours
        .fields
        .iter()
        .enumerate()
        .map(|(at, field)| (field.name.as_str(), at))
        .collect();
    let source = |field: &Field| {
        let mut names = std::iter::once(&field.name).chain(&field.aliases);
        names.find_map(|name| places.get(name.as_str()).copied())
    };
    theirs.fields.iter().map(source).collect()
}

/// Which of the reader's symbols each of the writer's is. `None`: it has no such symbol, and no default.
pub(super) fn symbols(ours: &Enum, theirs: &Enum) -> Vec<Option<usize>> {
    let places: HashMap<&str, usize> = theirs
        .symbols
        .iter()
        .enumerate()
        .map(|(at, symbol)| (symbol.as_str(), at))
        .collect();
    let of = |symbol: &String| places.get(symbol.as_str()).copied();
    let default = theirs.default.as_ref().and_then(of);
    ours.symbols.iter().map(|symbol| of(symbol).or(default)).collect()
}

#[cfg(test)]
mod tests;
