//! Which decoder a format means: the one place that knows them.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::examine::SchemaFit;
use super::{Format, KeyFormat};
use crate::bridge::Waker;
use crate::codec::Decode;
use crate::codec::avro::Avro;
use crate::codec::json::Json;
use crate::codec::key::{Key, Text};
use crate::error::{Error, Result};
use crate::finding::Finding;
use crate::source::Environment;

/// The decoder of payloads. The waker is for decoders that wait for a schema.
pub(super) fn of_values<T: DeserializeOwned + 'static>(
    format: &Format,
    environment: &Environment,
    waker: &Waker,
) -> Result<Box<dyn Decode<T>>> {
    match format {
        Format::Json => Ok(json()),
        Format::Avro { reader_schema } => Ok(Box::new(avro(environment, reader_schema.as_deref(), waker)?)),
    }
}

/// The decoder of keys. `Same` has been resolved by the caller's value format.
pub(super) fn of_keys<K: DeserializeOwned + 'static>(
    key: KeyFormat,
    value: &Format,
    environment: &Environment,
    waker: &Waker,
) -> Result<Box<dyn Decode<K>>> {
    match (key, value) {
        (KeyFormat::Text, _) => Ok(Box::new(Key(Text::new()))),
        (KeyFormat::Json, _) | (KeyFormat::AsValue, Format::Json) => Ok(Box::new(Key(Json::new()))),
        (KeyFormat::Avro, _) | (KeyFormat::AsValue, Format::Avro { .. }) => {
            Ok(Box::new(Key(avro(environment, None, waker)?)))
        }
    }
}

/// The subject in the registry that holds the schemas of a topic's payloads, if they have any, and how the newest of
/// them is held against `T`: **the one place where `check` compares a Rust type with a schema**.
pub(super) fn value_subject<T>(topic: &str, format: &Format) -> Option<(String, SchemaFit)> {
    match format {
        Format::Json => None,
        Format::Avro { .. } => Some((format!("{topic}-value"), fit::<T>())),
    }
}

/// The same of its keys.
pub(super) fn key_subject<K>(topic: &str, key: KeyFormat, value: &Format) -> Option<(String, SchemaFit)> {
    match (key, value) {
        (KeyFormat::Avro, _) | (KeyFormat::AsValue, Format::Avro { .. }) => {
            Some((format!("{topic}-key"), fit::<K>()))
        }
        _ => None,
    }
}

/// What of `T` does not fit a schema. So far only that the schema is Avro by itself, as the decoder needs it.
fn fit<T>() -> SchemaFit {
    Arc::new(|schema| match schema.avro {
        true => Vec::new(),
        false => {
            let what = format!(
                "schema {} is not Avro, or refers to other schemas: no {} can be made of its records",
                schema.id,
                std::any::type_name::<T>()
            );
            vec![Finding::error(what).hint("records written by it go to the dead letters")]
        }
    })
}

fn json<T: DeserializeOwned + 'static>() -> Box<dyn Decode<T>> {
    Box::new(Json::new())
}

fn avro<T: DeserializeOwned + 'static>(
    environment: &Environment,
    reader_schema: Option<&str>,
    waker: &Waker,
) -> Result<Avro<T>> {
    let registry = environment.registry.clone().ok_or_else(|| {
        Error::definition("a topic holds Avro, and no schema registry is set")
            .hint("--registry URL names one, or `url` in the section [registry]")
    })?;
    Avro::new(registry, reader_schema, waker.clone())
}
