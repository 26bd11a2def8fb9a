//! Whether what is written in a schema can be decoded into a type, and if not, which field is to blame.

mod answer;
mod rules;
mod structure;

use serde::de::DeserializeOwned;

use super::schema::Schema;
use crate::codec::fit::Misfit;
use crate::codec::writer::WriterSchema;
use crate::schema::trace::{Traced, trace};

/// Where data of the schema `writer` do not fit `T`; with `reader`, after they were resolved to that schema.
/// Empty: all of them fit, as far as can be told from the schemas. Types that look at values (an address, a
/// UUID) get the benefit of the doubt.
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
    compare(&trace::<T>(), &WriterSchema::new(0, writer), reader)
}

/// The same of a type that was traced.
pub(crate) fn compare(traced: &Traced, writer: &WriterSchema, reader: Option<&str>) -> Vec<Misfit> {
    let whole = |problem: String, remedy: &str| {
        vec![Misfit {
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
            let mut misfits = rules::compare(&writer, &reader);
            misfits.extend(structure::compare(traced, &reader));
            misfits
        }
        Err(why) => whole(
            format!("the reader's schema is no Avro schema: {why}"),
            "correct it",
        ),
    }
}

/// Where data of one schema can't be resolved to the other, by Avro's rules.
pub fn between(writer: &str, reader: &str) -> Vec<Misfit> {
    match (Schema::parse(writer), Schema::parse(reader)) {
        (Ok(writer), Ok(reader)) => rules::compare(&writer, &reader),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
