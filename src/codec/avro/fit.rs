//! Whether what is written in a schema can be decoded into a type, and if not, which field is to blame.

mod probe;
mod rules;

use apache_avro::Schema;
use apache_avro::schema::ResolvedSchema;
use serde::de::DeserializeOwned;

use super::parse_writer;
use super::plan::{Base, base};
use crate::codec::fit::Misfit;

/// Compares by one schema and, if there is one, a reader's: a type's [`fit`] without its name.
pub type Fits = fn(&str, Option<&str>) -> Vec<Misfit>;

/// Where data of the schema `writer` do not fit `T`; with `reader`, after they were resolved to that schema. Empty: all of
/// them fit, as far as can be told from the schemas. Types that look at values (an address, a UUID) get the benefit of the
/// doubt.
///
/// ```
/// use thalweg::codec::avro::fit::fit;
/// #[derive(serde::Deserialize)]
/// struct Payment { cents: i64, note: String }
/// let writer = r#"{"type":"record","name":"Payment","fields":[{"name":"cents","type":"long"}]}"#;
/// let misfits = fit::<Payment>(writer, None);
/// assert_eq!((misfits[0].path.as_str(), misfits[0].every), ("note", true));
/// ```
pub fn fit<T: DeserializeOwned>(writer: &str, reader: Option<&str>) -> Vec<Misfit> {
    let whole = |problem: &str, remedy: &str| {
        vec![Misfit {
            path: String::new(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
            every: true,
        }]
    };
    let Ok(writer) = parse_writer(writer) else {
        return whole(
            "the registry's schema is no Avro schema that stands alone",
            "register an Avro schema",
        );
    };
    let Some(reader) = reader else {
        return probed::<T>(&writer);
    };
    let Ok(reader) = Schema::parse_str(reader) else {
        return whole("the reader's schema is no Avro schema", "correct it");
    };
    let mut misfits = rules::compare(&writer, &reader);
    misfits.extend(probed::<T>(&reader));
    misfits
}

/// Where data of one schema can't be resolved to the other, by Avro's rules.
pub fn between(writer: &str, reader: &str) -> Vec<Misfit> {
    match (parse_writer(writer), Schema::parse_str(reader)) {
        (Ok(writer), Ok(reader)) => rules::compare(&writer, &reader),
        _ => Vec::new(),
    }
}

fn probed<T: DeserializeOwned>(schema: &Schema) -> Vec<Misfit> {
    match ResolvedSchema::new(schema) {
        Ok(names) => probe::probe::<T>(schema, names.get_names()),
        Err(_) => Vec::new(),
    }
}

/// A schema's type, in a word.
fn word(schema: &Schema) -> String {
    match base(schema) {
        Base::Null => "null".into(),
        Base::Boolean => "boolean".into(),
        Base::Int => "int".into(),
        Base::Long => "long".into(),
        Base::Float => "float".into(),
        Base::Double => "double".into(),
        Base::Bytes => "bytes".into(),
        Base::String => "string".into(),
        Base::Fixed(fixed) => format!("fixed {}", fixed.name.name()),
        Base::Array(_) => "array".into(),
        Base::Map(_) => "map".into(),
        Base::Union(branches) => {
            let words: Vec<String> = branches.iter().map(word).collect();
            format!("union of {}", words.join(", "))
        }
        Base::Record(record) => format!("record {}", record.name.name()),
        Base::Enum(symbols) => format!("enum {}", symbols.name.name()),
        Base::Ref => match schema {
            Schema::Ref { name } => name.name().to_owned(),
            _ => "a name".into(),
        },
    }
}

/// A field within a path.
fn below(path: &str, field: &str) -> String {
    match path {
        "" => field.to_owned(),
        path => format!("{path}.{field}"),
    }
}

#[cfg(test)]
mod tests;
