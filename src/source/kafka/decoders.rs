//! Which decoder a format means: the one place that knows them.

use serde::de::DeserializeOwned;

use super::{Format, KeyFormat};
use crate::bridge::Waker;
use crate::codec::Decode;
use crate::codec::avro::Avro;
use crate::codec::json::Json;
use crate::codec::key::{Key, Text};
use crate::error::{Error, Result};
use crate::source::Environment;

/// The decoder of payloads. The waker is for decoders that wait for a schema.
pub(super) fn of_values<T: DeserializeOwned + 'static>(
    format: &Format,
    environment: &Environment,
    waker: &Waker,
) -> Result<Box<dyn Decode<T>>> {
    match format {
        Format::Json => Ok(Box::new(Json::new())),
        Format::Avro { reader_schema } => Ok(Box::new(avro(environment, reader_schema.as_deref(), waker)?)),
    }
}

/// The decoder of keys.
pub(super) fn of_keys<K: DeserializeOwned + 'static>(
    key: KeyFormat,
    value: &Format,
    environment: &Environment,
    waker: &Waker,
) -> Result<Box<dyn Decode<K>>> {
    Ok(match (key, value) {
        (KeyFormat::Text, _) => Box::new(Key(Text::new())),
        (KeyFormat::Json, _) | (KeyFormat::AsValue, Format::Json) => Box::new(Key(Json::new())),
        (KeyFormat::Avro, _) | (KeyFormat::AsValue, Format::Avro { .. }) => {
            Box::new(Key(avro(environment, None, waker)?))
        }
    })
}

fn avro<T>(environment: &Environment, reader_schema: Option<&str>, waker: &Waker) -> Result<Avro<T>> {
    let registry = environment.registry.clone().ok_or_else(|| {
        Error::definition("Avro needs a schema registry, and none is set")
            .hint("set `registry` to the address of its Confluent-compatible API")
    })?;
    Avro::new(registry, reader_schema, waker.clone())
}
