//! A traced type against a message of a schema, part by part, by the rules of
//! [`datum`](super::datum), which decodes the records.
//!
//! What a type says of a *value* is never held against the schema, nor is anything against a type that looks
//! at the data before it knows what they are.

mod parts;

use serde::de::DeserializeOwned;

use super::compile;
use super::schema::{Field, Kind, Known, MessageId, Presence, Schema, Shape};
use crate::codec::compatibility::Incompatibility;
use crate::codec::compatibility::words::{Answer, wanted};
use crate::codec::writer::WriterSchema;
use crate::schema::trace::rules::{ReadRules, TypePath};
use crate::schema::trace::{Traced, trace};
use crate::schema::types::Type;

/// The maximum number of places that are compared.
const COMPARED_MAX: usize = 100_000;

/// Compares the first message of a `.proto` file with `T`. Returns where its records do not fit `T`; empty if
/// all of them fit, as far as the schema tells.
///
/// ```
/// use thalweg::codec::protobuf::compatibility::incompatibilities;
/// #[derive(serde::Deserialize)]
/// struct Payment { cents: i64, note: String }
/// let proto = r#"syntax = "proto3"; message Payment { int64 cents = 1; optional string note = 2; }"#;
/// let found = incompatibilities::<Payment>(proto);
/// assert_eq!((found[0].path.as_str(), found[0].every), ("note", false), "it may be left out");
/// ```
pub fn incompatibilities<T: DeserializeOwned>(proto: &str) -> Vec<Incompatibility> {
    let schema = compile::compile(proto, &[]);
    of_file(&trace::<T>(), schema)
}

/// Where records of a registered schema do not fit a type that was traced.
pub(super) fn compare(traced: &Traced, schema: &WriterSchema) -> Vec<Incompatibility> {
    of_file(traced, compile::registered(schema))
}

/// Records say which message they hold, so the type is compared with the message that it fits best.
fn of_file(traced: &Traced, schema: Result<Schema, String>) -> Vec<Incompatibility> {
    let whole = |problem: String, remedy: &str| {
        vec![Incompatibility {
            path: String::new(),
            problem,
            remedy: remedy.to_owned(),
            every: true,
        }]
    };
    let schema = match schema {
        Ok(schema) => schema,
        Err(why) => {
            let problem = format!("the registry's schema is no Protobuf schema: {why}");
            return whole(problem, "register a Protobuf schema");
        }
    };
    let mut best: Option<Vec<Incompatibility>> = None;
    let rank = |incompatibilities: &[Incompatibility]| {
        (
            incompatibilities
                .iter()
                .filter(|incompatibility| incompatibility.every)
                .count(),
            incompatibilities.len(),
        )
    };
    for (id, _) in schema
        .messages
        .iter()
        .enumerate()
        .filter(|(id, _)| schema.is_own(*id))
    {
        let incompatibilities = of_message(traced, &schema, id);
        if best
            .as_ref()
            .is_none_or(|best| rank(&incompatibilities) < rank(best))
        {
            best = Some(incompatibilities);
        }
    }
    best.unwrap_or_else(|| {
        whole(
            "the registry's schema has no message".to_owned(),
            "register one that has",
        )
    })
}

impl Schema {
    /// Whether a record may be this message: it is declared in the file, not in one that it imports.
    fn is_own(&self, id: MessageId) -> bool {
        fn within(schema: &Schema, among: &[MessageId], id: MessageId) -> bool {
            let mut nested = among.iter().map(|own| &schema.messages[*own].nested);
            among.contains(&id) || nested.any(|nested| within(schema, nested, id))
        }
        within(self, &self.top, id)
    }
}

/// Where records of one message do not fit.
pub(super) fn of_message(traced: &Traced, schema: &Schema, message: MessageId) -> Vec<Incompatibility> {
    let mut comparison = Comparison {
        schema,
        rules: &traced.rules,
        place: TypePath::new(),
        incompatibilities: Vec::new(),
        compared: 0,
    };
    let whole = At {
        path: "",
        every: true,
    };
    comparison.compare(&traced.ty, Has::One(Kind::Message(message)), whole);
    comparison.incompatibilities
}

/// What the schema has at a place.
#[derive(Clone, Copy)]
enum Has<'s> {
    One(Kind),
    /// A map's key: text takes it, whatever it is.
    Key(Kind),
    Many(Kind),
    Map(&'s Field),
    Oneof(MessageId, usize),
}

/// Where in the data it is.
#[derive(Clone, Copy)]
struct At<'p> {
    path: &'p str,
    /// Whether every record has this place.
    every: bool,
}

impl At<'_> {
    fn part(self, path: &str, every: bool) -> At<'_> {
        At {
            path,
            every: self.every && every,
        }
    }
}

struct Comparison<'s> {
    schema: &'s Schema,
    rules: &'s ReadRules,
    /// Where in the type it is.
    place: TypePath,
    incompatibilities: Vec<Incompatibility>,
    compared: usize,
}

impl<'s> Comparison<'s> {
    fn note(&mut self, at: At<'_>, problem: String, remedy: &str) {
        self.incompatibilities.push(Incompatibility {
            path: at.path.to_owned(),
            problem,
            remedy: remedy.to_owned(),
            every: at.every,
        });
    }

    /// Looks at part `part` of the type.
    fn part<R>(&mut self, part: usize, look: impl FnOnce(&mut Self) -> R) -> R {
        self.place.push(part);
        let seen = look(self);
        self.place.pop();
        seen
    }

    /// What the schema has, in words.
    fn says(&self, has: Has<'_>) -> String {
        match has {
            Has::One(kind) | Has::Key(kind) => self.schema.word(kind),
            Has::Many(kind) => format!("repeated {}", self.schema.word(kind)),
            Has::Map(_) => "a map".to_owned(),
            Has::Oneof(message, oneof) => format!("oneof {}", self.schema.messages[message].oneofs[oneof]),
        }
    }

    /// Notes that a type wants something else than the schema has.
    fn differs(&mut self, at: At<'_>, has: Has<'_>, wanted: &str) {
        let problem = format!("the schema has {}, the type wants {wanted}", self.says(has));
        let fitting = self.fitting(has);
        self.note(at, problem, fitting);
    }

    fn compare(&mut self, ty: &Type, has: Has<'s>, at: At<'_>) {
        self.compared += 1;
        if self.compared > COMPARED_MAX {
            return;
        }
        let has = match has {
            Has::One(Kind::Message(id)) => match self.schema.messages[id].known {
                // What a wrapper is, a type reads what is in it.
                Some(Known::Wrapper) if !matches!(ty, Type::Struct(_) | Type::Map(..)) => {
                    Has::One(self.schema.messages[id].fields[0].kind)
                }
                // JSON may be anything.
                Some(Known::Value | Known::Struct | Known::ListValue) => return,
                _ => has,
            },
            has => has,
        };
        match (ty, has) {
            (Type::Json, _) => {}
            (Type::Option(inner) | Type::Default(inner), _) => {
                self.part(0, |own| own.compare(inner, has, at))
            }
            (Type::Enum(variants), _) => self.variant(variants, has, at),
            (Type::Struct(fields), Has::One(Kind::Message(id) | Kind::Group(id))) => {
                self.fields(fields, id, at)
            }
            (Type::Map(key, values), _) => match self.rules.of_flattened(&self.place) {
                Some(fields) => self.flattened(fields, has, at),
                None => self.entries(key, values, has, at),
            },
            (Type::List(_) | Type::Tuple(_), _) => self.items(ty, has, at),
            (_, Has::One(kind)) => self.leaf(ty, self.answer(ty, kind), has, at),
            (Type::Text, Has::Key(_)) => {}
            (_, Has::Key(kind)) => self.leaf(ty, self.answer(ty, kind), has, at),
            _ => self.differs(at, has, &wanted(ty)),
        }
    }

    /// What has no parts.
    fn leaf(&mut self, ty: &Type, answer: Answer, has: Has<'s>, at: At<'_>) {
        match answer {
            Answer::All => {}
            Answer::Some => {
                let (has, wanted) = (self.says(has), wanted(ty));
                let problem = format!("the schema has {has}, and {wanted} does not hold all of it");
                let remedy = match ty {
                    Type::Text => "Vec<u8> takes it, and types that deserialize from bytes",
                    _ => "i64 holds every integer but uint64 and fixed64, i128 all of them",
                };
                self.note(At { every: false, ..at }, problem, remedy);
            }
            Answer::None => self.differs(at, has, &wanted(ty)),
        }
    }

    /// Values of a kind, asked for by a type that has no parts.
    fn answer(&self, ty: &Type, kind: Kind) -> Answer {
        use Kind::*;
        let fits = |all: bool| if all { Answer::All } else { Answer::Some };
        match (ty, kind) {
            (Type::Bool, Bool) | (Type::Text, String | Enum(_)) => Answer::All,
            (Type::Bytes, Bytes | String) => Answer::All,
            (Type::Text, Bytes) => Answer::Some,
            (Type::Int(bits), Int32 | SInt32 | SFixed32 | Enum(_)) => fits(*bits >= 32),
            (Type::Int(bits), Int64 | SInt64 | SFixed64) => fits(*bits >= 64),
            (Type::Int(bits), UInt32 | Fixed32) => fits(*bits > 32),
            (Type::Int(bits), UInt64 | Fixed64) => fits(*bits > 64),
            (Type::UInt(bits), UInt32 | Fixed32) => fits(*bits >= 32),
            (Type::UInt(bits), UInt64 | Fixed64) => fits(*bits >= 64),
            (Type::UInt(_), _) if kind.is_packable() && !matches!(kind, Bool | Float | Double) => {
                Answer::Some
            }
            (Type::Float(_), Message(_) | Group(_) | Bool | String | Bytes | Enum(_)) => Answer::None,
            (Type::Float(_), _) => Answer::All,
            (Type::Time, Int32 | SInt32 | SFixed32 | Int64 | SInt64 | SFixed64 | UInt32 | Fixed32) => {
                Answer::All
            }
            (Type::Time, UInt64 | Fixed64) => Answer::Some,
            (Type::Time | Type::Text, Message(id)) if self.is(id, Known::Timestamp) => Answer::All,
            (Type::Text, Message(id)) if self.is(id, Known::Duration) => Answer::All,
            (Type::Unit, Message(id)) if self.schema.messages[id].fields.is_empty() => Answer::All,
            _ => Answer::None,
        }
    }

    fn is(&self, id: MessageId, known: Known) -> bool {
        self.schema.messages[id].known == Some(known)
    }

    /// Types that take what the schema has.
    fn fitting(&self, has: Has<'_>) -> &'static str {
        match has {
            Has::Many(_) => "a Vec takes it",
            Has::Map(_) => "a BTreeMap takes it",
            Has::Oneof(..) => "an enum with a variant for each member takes it",
            Has::Key(_) => "String takes it",
            Has::One(kind) => match kind {
                Kind::Bool => "bool takes it",
                Kind::Double | Kind::Float => "f64 takes it",
                Kind::String => "String takes it",
                Kind::Bytes => "Vec<u8> takes it, and types that deserialize from bytes",
                Kind::Enum(_) => "an enum, a String or an i32 takes it",
                Kind::UInt64 | Kind::Fixed64 => "u64 takes it, and floats",
                Kind::Message(id) if self.is(id, Known::Timestamp) => "EventTime takes it, and String",
                Kind::Message(id) if self.is(id, Known::Duration) => {
                    "std::time::Duration takes it, and String"
                }
                Kind::Message(_) | Kind::Group(_) => "a struct takes it",
                _ => "i64 takes it, and floats",
            },
        }
    }
}

/// What a field has.
fn has(field: &Field) -> Has<'_> {
    match field.shape {
        Shape::One => Has::One(field.kind),
        Shape::Many => Has::Many(field.kind),
        Shape::Map => Has::Map(field),
    }
}

/// Whether a record may be without it, so that a type is given nothing.
fn may_be_absent(field: &Field) -> bool {
    field.presence == Presence::Explicit && field.default.is_none()
}

#[cfg(test)]
mod tests;
