//! A traced type against a schema, part by part, by the rules of [`datum`](crate::codec::avro::datum), which
//! decodes the records.
//!
//! What a type says of a *value* (this text is no address) is never held against the schema, nor is anything
//! against a type that looks at the data before it knows what they are.

mod lists;
mod records;
mod variants;

use super::leaf::{answer, fitting, wider};
use crate::codec::avro::schema::{Node, NodeId, NodeKind, Schema};
use crate::codec::compatibility::Incompatibility;
use crate::codec::compatibility::words::{Answer, wanted};
use crate::schema::trace::Traced;
use crate::schema::trace::rules::{ReadRules, TypePath};
use crate::schema::types::Type;

/// So many places are compared: each branch of a union has all of a type's parts again.
const COMPARED_MAX: usize = 100_000;
/// How a value of a map is called in a path.
const ENTRY: &str = "A";

/// Where data of `schema` do not fit the type.
pub(super) fn compare(traced: &Traced, schema: &Schema) -> Vec<Incompatibility> {
    let mut comparison = Comparison {
        schema,
        rules: &traced.rules,
        place: TypePath::new(),
        incompatibilities: Vec::new(),
        compared: 0,
    };
    let whole = DataPath {
        path: "",
        every: true,
        by_type: false,
    };
    comparison.compare(&traced.ty, schema.node(schema.root()), whole);
    let mut incompatibilities: Vec<Incompatibility> = Vec::new();
    for incompatibility in comparison.incompatibilities {
        // Several branches of a union may come to the same.
        match incompatibilities
            .iter_mut()
            .find(|known| known.path == incompatibility.path && known.problem == incompatibility.problem)
        {
            Some(known) => known.every |= incompatibility.every,
            None => incompatibilities.push(incompatibility),
        }
    }
    incompatibilities
}

struct Comparison<'s> {
    schema: &'s Schema,
    rules: &'s ReadRules,
    /// Where in the type it is.
    place: TypePath,
    incompatibilities: Vec<Incompatibility>,
    compared: usize,
}

/// Where in the data it is.
#[derive(Clone, Copy)]
struct DataPath<'p> {
    path: &'p str,
    /// Whether every record has this place.
    every: bool,
    /// Whether an enum takes the name of the type for a variant: it stands for a union of which this is the
    /// branch.
    by_type: bool,
}

impl<'p> DataPath<'p> {
    fn part<'q>(self, path: &'q str, every: bool) -> DataPath<'q> {
        DataPath {
            path,
            every: self.every && every,
            by_type: false,
        }
    }
}

impl<'s> Comparison<'s> {
    fn note(&mut self, at: DataPath<'_>, problem: String, remedy: &str) {
        self.incompatibilities.push(Incompatibility {
            path: at.path.to_owned(),
            problem,
            remedy: remedy.to_owned(),
            every: at.every,
        });
    }

    /// Notes that a type wants something else than the schema has.
    fn differs(&mut self, at: DataPath<'_>, node: &Node, wanted: &str) {
        let problem = format!(
            "the schema has {}, the type wants {wanted}",
            self.schema.says(node)
        );
        self.note(at, problem, fitting(node));
    }

    /// Looks at part `part` of the type.
    fn part<R>(&mut self, part: usize, look: impl FnOnce(&mut Self) -> R) -> R {
        self.place.push(part);
        let seen = look(self);
        self.place.pop();
        seen
    }

    fn compare(&mut self, ty: &Type, node: &'s Node, at: DataPath<'_>) {
        self.compared += 1;
        if self.compared > COMPARED_MAX {
            return;
        }
        match (ty, &node.kind) {
            (Type::Json, _) => {}
            (Type::Option(inner), _) => self.option(inner, node, at),
            (Type::Enum(variants), NodeKind::Union(branches)) => {
                self.branches(branches, at, |own, branch, at| {
                    own.variant(variants, branch, DataPath { by_type: true, ..at });
                });
            }
            (_, NodeKind::Union(branches)) => self.branches(branches, at, |own, branch, at| {
                if branch.kind == NodeKind::Null && *ty != Type::Unit {
                    let problem = "may be null, and the type does not take that".to_owned();
                    own.note(at, problem, "make it an Option");
                } else {
                    own.compare(ty, branch, at);
                }
            }),
            (Type::Enum(variants), _) => self.variant(variants, node, at),
            (Type::Struct(fields), _) => self.fields(fields, node, at),
            (Type::Map(key, values), _) => match self.rules.of_flattened(&self.place) {
                Some(fields) => self.flattened(fields, node, at),
                None => self.entries(key, values, node, at),
            },
            (Type::List(_) | Type::Tuple(_), _) => self.items(ty, node, at),
            _ => self.leaf(ty, answer(ty, node), node, at),
        }
    }

    fn option(&mut self, inner: &Type, node: &'s Node, at: DataPath<'_>) {
        self.part(0, |own| match &node.kind {
            NodeKind::Null => {}
            NodeKind::Union(branches) => {
                let is_null = |branch: &NodeId| *own.schema.kind(*branch) == NodeKind::Null;
                // What is not null may still be one of several types.
                let by_type = !(branches.len() == 2 && branches.iter().any(is_null));
                own.branches(branches, at, |own, branch, at| {
                    if branch.kind != NodeKind::Null {
                        own.compare(inner, branch, DataPath { by_type, ..at });
                    }
                });
            }
            _ => own.compare(inner, node, at),
        });
    }

    /// The branches of a union: a datum is of one of them, so none that fits is needed for some of the data
    /// to fit.
    fn branches(
        &mut self,
        branches: &'s [NodeId],
        at: DataPath<'_>,
        mut compare: impl FnMut(&mut Self, &'s Node, DataPath<'_>),
    ) {
        let (first, mut hopeless) = (self.incompatibilities.len(), true);
        for branch in branches {
            let begin = self.incompatibilities.len();
            let alone = DataPath {
                path: at.path,
                every: true,
                by_type: false,
            };
            compare(self, self.schema.node(*branch), alone);
            hopeless &= self.incompatibilities[begin..]
                .iter()
                .any(|incompatibility| incompatibility.every);
        }
        for incompatibility in &mut self.incompatibilities[first..] {
            incompatibility.every &= at.every && hopeless;
        }
    }

    /// What has no parts.
    fn leaf(&mut self, ty: &Type, answer: Answer, node: &Node, at: DataPath<'_>) {
        match answer {
            Answer::All => {}
            Answer::Some => {
                let (has, wanted) = (self.schema.says(node), wanted(ty));
                let problem = format!("the schema has {has}, and {wanted} does not hold all of it");
                self.note(DataPath { every: false, ..at }, problem, wider(ty, node));
            }
            Answer::None => self.differs(at, node, &wanted(ty)),
        }
    }
}
