//! A traced type against a schema, part by part, by the rules of [`datum`](crate::codec::avro::datum), which
//! decodes the records.
//!
//! What a type says of a *value* (this text is no address) is never held against the schema, nor is anything
//! against a type that looks at the data before it knows what they are.

mod lists;
mod records;
mod variants;

use super::answer::{answer, fitting, wider};
use crate::codec::avro::schema::{Kind, Node, NodeId, Schema};
use crate::codec::fit::Misfit;
use crate::codec::fit::words::{Answer, wanted};
use crate::schema::trace::Traced;
use crate::schema::trace::rules::{Place, ReadRules};
use crate::schema::types::Type;

/// So many places are compared: each branch of a union has all of a type's parts again.
const COMPARED_MAX: usize = 100_000;
/// How a value of a map is called in a path.
const ENTRY: &str = "A";

/// Where data of `schema` do not fit the type.
pub(super) fn compare(traced: &Traced, schema: &Schema) -> Vec<Misfit> {
    let mut comparison = Comparison {
        schema,
        rules: &traced.rules,
        place: Place::new(),
        misfits: Vec::new(),
        compared: 0,
    };
    let whole = At {
        path: "",
        every: true,
        by_type: false,
    };
    comparison.compare(&traced.ty, schema.node(schema.root()), whole);
    let mut misfits: Vec<Misfit> = Vec::new();
    for misfit in comparison.misfits {
        // Several branches of a union may come to the same.
        match misfits
            .iter_mut()
            .find(|known| known.path == misfit.path && known.problem == misfit.problem)
        {
            Some(known) => known.every |= misfit.every,
            None => misfits.push(misfit),
        }
    }
    misfits
}

struct Comparison<'s> {
    schema: &'s Schema,
    rules: &'s ReadRules,
    /// Where in the type it is.
    place: Place,
    misfits: Vec<Misfit>,
    compared: usize,
}

/// Where in the data it is.
#[derive(Clone, Copy)]
struct At<'p> {
    path: &'p str,
    /// Whether every record has this place.
    every: bool,
    /// Whether an enum takes the name of the type for a variant: it stands for a union of which this is the
    /// branch.
    by_type: bool,
}

impl<'p> At<'p> {
    fn part<'q>(self, path: &'q str, every: bool) -> At<'q> {
        At {
            path,
            every: self.every && every,
            by_type: false,
        }
    }
}

impl<'s> Comparison<'s> {
    fn note(&mut self, at: At<'_>, problem: String, remedy: &str) {
        self.misfits.push(Misfit {
            path: at.path.to_owned(),
            problem,
            remedy: remedy.to_owned(),
            every: at.every,
        });
    }

    /// Notes that a type wants something else than the schema has.
    fn differs(&mut self, at: At<'_>, node: &Node, wanted: &str) {
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

    fn compare(&mut self, ty: &Type, node: &'s Node, at: At<'_>) {
        self.compared += 1;
        if self.compared > COMPARED_MAX {
            return;
        }
        match (ty, &node.kind) {
            (Type::Json, _) => {}
            (Type::Option(inner), _) => self.option(inner, node, at),
            (Type::Enum(variants), Kind::Union(branches)) => {
                self.branches(branches, at, |own, branch, at| {
                    own.variant(variants, branch, At { by_type: true, ..at });
                });
            }
            (_, Kind::Union(branches)) => self.branches(branches, at, |own, branch, at| {
                if branch.kind == Kind::Null && *ty != Type::Unit {
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

    fn option(&mut self, inner: &Type, node: &'s Node, at: At<'_>) {
        self.part(0, |own| match &node.kind {
            Kind::Null => {}
            Kind::Union(branches) => {
                let is_null = |branch: &NodeId| *own.schema.kind(*branch) == Kind::Null;
                // What is not null may still be one of several types.
                let by_type = !(branches.len() == 2 && branches.iter().any(is_null));
                own.branches(branches, at, |own, branch, at| {
                    if branch.kind != Kind::Null {
                        own.compare(inner, branch, At { by_type, ..at });
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
        at: At<'_>,
        mut compare: impl FnMut(&mut Self, &'s Node, At<'_>),
    ) {
        let (first, mut hopeless) = (self.misfits.len(), true);
        for branch in branches {
            let begin = self.misfits.len();
            let alone = At {
                path: at.path,
                every: true,
                by_type: false,
            };
            compare(self, self.schema.node(*branch), alone);
            hopeless &= self.misfits[begin..].iter().any(|misfit| misfit.every);
        }
        for misfit in &mut self.misfits[first..] {
            misfit.every &= at.every && hopeless;
        }
    }

    /// What has no parts.
    fn leaf(&mut self, ty: &Type, answer: Answer, node: &Node, at: At<'_>) {
        match answer {
            Answer::All => {}
            Answer::Some => {
                let (has, wanted) = (self.schema.says(node), wanted(ty));
                let problem = format!("the schema has {has}, and {wanted} does not hold all of it");
                self.note(At { every: false, ..at }, problem, wider(ty, node));
            }
            Answer::None => self.differs(at, node, &wanted(ty)),
        }
    }
}
