//! A traced type against a JSON Schema, as far as the schema says what is there.
//!
//! A JSON Schema refuses what it names and allows the rest. So a property that it does not mention may be in
//! the records: nothing is said of it, unless the schema allows no others. What depends on values
//! (`if`, `not`, `pattern`, `minimum`) is never held against a type.

use serde_json::{Map, Value};

use crate::codec::compatibility::Incompatibility;
use crate::codec::compatibility::words::{Answer, MISSING, below, wanted};
use crate::codec::writer::{Language, WriterSchema};
use crate::schema::trace::Traced;
use crate::schema::trace::rules::{ReadRules, TypePath};
use crate::schema::types::Type;

/// So many places are compared: a schema may contain itself.
const COMPARED_MAX: usize = 20_000;
/// References that lead to references.
const REFERENCES_MAX: usize = 16;

/// Where records of a registered schema do not fit a type.
pub(super) fn compare(traced: &Traced, schema: &WriterSchema) -> Vec<Incompatibility> {
    let json: Option<Value> = serde_json::from_str(&schema.text).ok();
    let (Some(json), Language::JsonSchema) = (&json, schema.language) else {
        let problem = match schema.language {
            Language::JsonSchema => "the registry's schema is no JSON Schema: it is no JSON".to_owned(),
            other => format!("the registry's schema is no JSON Schema: it is {other}"),
        };
        return vec![Incompatibility {
            path: String::new(),
            problem,
            remedy: "register a JSON Schema".to_owned(),
            every: true,
        }];
    };
    let mut comparison = Comparison {
        root: json,
        rules: &traced.rules,
        place: TypePath::new(),
        incompatibilities: Vec::new(),
        compared: 0,
    };
    let whole = At {
        path: "",
        every: true,
        optional: false,
    };
    comparison.compare(&traced.ty, json, whole);
    comparison.incompatibilities
}

/// Whether a text is a JSON Schema, as far as can be told without its references.
pub(crate) fn check(schema: &WriterSchema) -> Result<(), String> {
    match serde_json::from_str(&schema.text) {
        Ok(Value::Object(_) | Value::Bool(_)) => Ok(()),
        Ok(_) => Err("a JSON Schema is an object".to_owned()),
        Err(error) => Err(format!("it is no JSON: {error}")),
    }
}

struct Comparison<'s> {
    root: &'s Value,
    rules: &'s ReadRules,
    /// Where in the type it is.
    place: TypePath,
    incompatibilities: Vec<Incompatibility>,
    compared: usize,
}

/// Where in the data it is.
#[derive(Clone, Copy)]
struct At<'p> {
    path: &'p str,
    /// Whether each record has this place.
    every: bool,
    /// Whether the type has an option here.
    optional: bool,
}

impl At<'_> {
    fn part(self, path: &str, every: bool) -> At<'_> {
        At {
            path,
            every: self.every && every,
            optional: false,
        }
    }
}

/// What a schema says that values are; of several things any.
struct Says<'s> {
    object: &'s Map<String, Value>,
    types: Vec<&'s str>,
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

    fn part<R>(&mut self, part: usize, look: impl FnOnce(&mut Self) -> R) -> R {
        self.place.push(part);
        let seen = look(self);
        self.place.pop();
        seen
    }

    /// The schema itself, or what it refers to within its own text. `None`: that is not known here.
    fn followed(&self, mut schema: &'s Value) -> Option<&'s Map<String, Value>> {
        for _ in 0..REFERENCES_MAX {
            let object = schema.as_object()?;
            let Some(Value::String(reference)) = object.get("$ref") else {
                return Some(object);
            };
            schema = self.root.pointer(reference.strip_prefix('#')?)?;
        }
        None
    }

    /// What a schema says, if it says what type its values are of: by `type`, or by alternatives of which
    /// all but null are one.
    fn says(&self, schema: &'s Value, depth: usize) -> Option<(Says<'s>, bool)> {
        let object = self.followed(schema)?;
        if let Some(types) = object.get("type") {
            let all: Vec<&str> = match types {
                Value::String(one) => vec![one],
                Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
                _ => return None,
            };
            let nullable = all.contains(&"null");
            let types = all.into_iter().filter(|word| *word != "null").collect();
            return Some((Says { object, types }, nullable));
        }
        let alternatives = object.get("oneOf").or_else(|| object.get("anyOf"))?.as_array()?;
        let is_null = |schema: &&Value| {
            self.followed(schema)
                .is_some_and(|own| own.get("type") == Some(&"null".into()))
        };
        let nullable = alternatives.iter().any(|own| is_null(&own));
        let mut others = alternatives.iter().filter(|own| !is_null(own));
        match (others.next(), others.next()) {
            (Some(one), None) if depth < REFERENCES_MAX => {
                let (says, more) = self.says(one, depth + 1)?;
                Some((says, nullable || more))
            }
            _ => None,
        }
    }

    fn compare(&mut self, ty: &Type, schema: &'s Value, at: At<'_>) {
        self.compared += 1;
        if self.compared > COMPARED_MAX || *ty == Type::Json {
            return;
        }
        if let Type::Option(inner) | Type::Default(inner) = ty {
            let at = At { optional: true, ..at };
            return self.part(0, |own| own.compare(inner, schema, at));
        }
        let Some((says, nullable)) = self.says(schema, 0) else {
            return;
        };
        let at = At {
            every: at.every && !nullable,
            ..at
        };
        if nullable && *ty != Type::Unit && !at.optional {
            let problem = "may be null, and the type does not take that".to_owned();
            self.note(At { every: false, ..at }, problem, "make it an Option");
        }
        let answers: Vec<Answer> = says.types.iter().map(|word| answer(ty, word)).collect();
        if !answers.iter().all(|answer| *answer == Answer::All) {
            let has = match says.types.as_slice() {
                [] => "null".to_owned(),
                types => types.join(" or "),
            };
            let none = answers.iter().all(|answer| *answer == Answer::None);
            let problem = match none {
                true => format!("the schema has {has}, the type wants {}", wanted(ty)),
                false => format!("the schema has {has}, and {} does not hold all of it", wanted(ty)),
            };
            return self.note(
                At {
                    every: at.every && none,
                    ..at
                },
                problem,
                fitting(&says.types),
            );
        }
        match ty {
            Type::Struct(fields) => self.fields(fields, says.object, at),
            Type::List(item) => {
                if let Some(items) = says.object.get("items") {
                    let path = format!("{}[]", at.path);
                    self.part(0, |own| own.compare(item, items, at.part(&path, false)));
                }
            }
            Type::Map(_, values) if self.rules.of_flattened(&self.place).is_none() => {
                if let Some(schema) = says.object.get("additionalProperties") {
                    let path = format!("{}{{}}", at.path);
                    self.part(1, |own| own.compare(values, schema, at.part(&path, false)));
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &[(&'static str, Type)], object: &'s Map<String, Value>, at: At<'_>) {
        let rules = self.rules.of_struct(&self.place);
        let properties = object.get("properties").and_then(Value::as_object);
        let required = object.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|all| all.iter().any(|own| own == name));
        let closed = object.get("additionalProperties") == Some(&Value::Bool(false));
        for (part, (name, ty)) in fields.iter().enumerate() {
            let rule = rules.map(|rules| &rules.fields[part]);
            let needed = rule.is_some_and(|rule| rule.required);
            let aliases = rule.map_or(&[][..], |rule| &rule.aliases);
            let mut names = std::iter::once(name).chain(aliases);
            let found = names.find_map(|name| Some((*name, properties?.get(*name)?)));
            let path = below(at.path, name);
            match found {
                Some((own, schema)) => {
                    if needed && !is_required(own) {
                        let problem = "a record may be without it, and the type needs it".to_owned();
                        let remedy = "make it an Option, or write `#[serde(default)]` on it";
                        self.note(at.part(&path, false), problem, remedy);
                    }
                    let at = at.part(&path, is_required(own));
                    self.part(part, |this| this.compare(ty, schema, at));
                }
                // Records may have it all the same.
                None if needed => {
                    let remedy = "write `#[serde(default)]` on it or make it an Option, or name the schema's \
                                  property with `#[serde(rename = …)]`";
                    self.note(at.part(&path, closed), MISSING.to_owned(), remedy);
                }
                None => {}
            }
        }
    }
}

/// How values of a type of JSON answer what a type asks for.
fn answer(ty: &Type, word: &str) -> Answer {
    let takes = match word {
        "boolean" => *ty == Type::Bool,
        "integer" => match ty {
            Type::Int(64..) | Type::Float(_) | Type::Time => true,
            Type::Int(_) | Type::UInt(_) => return Answer::Some,
            _ => false,
        },
        "number" => match ty {
            Type::Float(_) => true,
            Type::Int(_) | Type::UInt(_) | Type::Time => return Answer::Some,
            _ => false,
        },
        "string" => matches!(ty, Type::Text | Type::Bytes | Type::Enum(_)),
        "array" => matches!(ty, Type::List(_) | Type::Tuple(_) | Type::Bytes | Type::Struct(_)),
        "object" => matches!(ty, Type::Struct(_) | Type::Map(..) | Type::Enum(_)),
        _ => true,
    };
    if takes { Answer::All } else { Answer::None }
}

fn fitting(types: &[&str]) -> &'static str {
    match types {
        ["boolean"] => "bool takes it",
        ["integer"] => "i64 takes it, and floats",
        ["number"] => "f64 takes it",
        ["string"] => "String takes it",
        ["array"] => "a Vec takes it",
        ["object"] => "a struct takes it, and BTreeMap",
        [] => "() takes it",
        _ => "serde_json::Value takes it, and untagged enums",
    }
}
