//! Which decoder a format means: the one place that knows them.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::{Format, KeyFormat};
use crate::bridge::Waker;
use crate::codec::avro::Avro;
use crate::codec::key::Text;
use crate::codec::{Cause, Decode, Decoded};
use crate::error::{Error, Result};
use crate::source::Environment;

/// The decoder of payloads. The waker is for decoders that wait for a schema.
pub(super) fn of_values<T: DeserializeOwned + 'static>(
    format: &Format,
    environment: &Environment,
    waker: &Waker,
) -> Result<Box<dyn Decode<T>>> {
    match format {
        Format::Json => Ok(json()),
        Format::Avro { reader_schema } => avro(environment, reader_schema.as_deref(), waker),
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
        (KeyFormat::Text, _) => text(),
        (KeyFormat::Json, _) | (KeyFormat::AsValue, Format::Json) => Ok(json()),
        (KeyFormat::Avro, _) | (KeyFormat::AsValue, Format::Avro { .. }) => avro(environment, None, waker),
    }
}

fn json<T: DeserializeOwned + 'static>() -> Box<dyn Decode<T>> {
    Box::new(Json(PhantomData))
}

fn avro<T: DeserializeOwned + 'static>(
    environment: &Environment,
    reader_schema: Option<&str>,
    waker: &Waker,
) -> Result<Box<dyn Decode<T>>> {
    let registry = environment.registry.clone().ok_or_else(|| {
        Error::definition("Avro can't be decoded without a schema registry").hint("set `registry` to its address")
    })?;
    Ok(Box::new(Avro::new(registry, reader_schema, waker.clone())?))
}

fn text<T: DeserializeOwned + 'static>() -> Result<Box<dyn Decode<T>>> {
    Ok(Box::new(Text::new()))
}

struct Json<T>(PhantomData<fn() -> T>);

impl<T: DeserializeOwned + 'static> Decode<T> for Json<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        match serde_json::from_slice(bytes) {
            Ok(value) => Decoded::Value(value),
            Err(error) if error.is_data() => Decoded::Dead(Cause::JsonType, None),
            Err(_) => Decoded::Dead(Cause::JsonSyntax, None),
        }
    }
}
