//! Whether what is written in a schema can be decoded into a type, and if not, which field is to blame.

mod leaf;
mod rules;
mod structure;

use serde::de::DeserializeOwned;

use super::schema::Schema;
use crate::codec::compatibility::Incompatibility;
use crate::codec::writer::WriterSchema;
use crate::schema::trace::{Traced, trace};

/// Where data of the schema `writer` do not fit `T`; with `reader`, after they were resolved to that schema.
/// Empty: all of them fit, as far as can be told from the schemas. Types that look at values (an address, a
/// UUID) get the benefit of the doubt.
///
/// ```
/// use thalweg::codec::avro::compatibility::check;
/// #[derive(serde::Deserialize)]
/// struct Payment { cents: i64, note: String }
/// let writer = r#"{"type":"record","name":"Payment","fields":[{"name":"cents","type":"long"}]}"#;
/// let incompatibilities = check::<Payment>(writer, None);
/// assert_eq!((incompatibilities[0].path.as_str(), incompatibilities[0].every), ("note", true));
/// ```
pub fn check<T: DeserializeOwned>(writer: &str, reader: Option<&str>) -> Vec<Incompatibility> {
    compare(&trace::<T>(), &WriterSchema::new(0, writer), reader)
}

/// The same of a type that was traced.
pub(crate) fn compare(traced: &Traced, writer: &WriterSchema, reader: Option<&str>) -> Vec<Incompatibility> {
    let whole = |problem: String, remedy: &str| {
        vec![Incompatibility {
            path: String::new(),
            problem,
            remedy: remedy.to_owned(),
            every: true,
        }]
    };
    let writer = match Schema::registered(writer) {
        Ok(writer) => writer,
        Err(why) => {
            let problem = format!("the registry's schema is no Avro schema: {why}");
            return whole(problem, "register an Avro schema");
        }
    };
    let Some(text) = reader else {
        return structure::compare(traced, &writer);
    };
    match super::reader(text) {
        Ok(reader) => {
            let mut incompatibilities = rules::compare(&writer, &reader);
            incompatibilities.extend(structure::compare(traced, &reader));
            incompatibilities
        }
        Err(why) => whole(
            format!("the reader's schema is no Avro schema: {why}"),
            "correct it",
        ),
    }
}

/// Where data of one schema can't be resolved to the other, by Avro's rules.
pub fn between(writer: &str, reader: &str) -> Vec<Incompatibility> {
    match (Schema::parse(writer), Schema::parse(reader)) {
        (Ok(writer), Ok(reader)) => rules::compare(&writer, &reader),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
