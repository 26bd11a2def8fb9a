//! Which decoder a format means: the one place that knows them.

use serde::de::DeserializeOwned;

use super::format::{Format, Ready};
use crate::bridge::Waker;
use crate::codec::Decode;
use crate::codec::avro::{Avro, plain::Plain};
use crate::codec::bytes::Bytes;
use crate::codec::json::{Json, Strict};
use crate::codec::text::Text;
use crate::error::{Error, Result};
use crate::source::Environment;

/// The decoder of payloads, or of keys. The waker is for decoders that wait for a schema.
pub(super) fn of<T: DeserializeOwned + 'static>(
    format: &Ready,
    environment: &Environment,
    waker: &Waker,
) -> Result<Box<dyn Decode<T>>> {
    Ok(match format {
        Format::Json { strict: false } => Box::new(Json::new()),
        Format::Json { strict: true } => Box::new(Strict::new()),
        Format::Text => Box::new(Text::new()),
        Format::Bytes => Box::new(Bytes::new()),
        Format::AvroPlain { writer, reader } => Box::new(Plain::new(writer, reader.as_deref())?),
        Format::Avro { reader } => {
            let registry = environment.registry.clone().ok_or_else(|| {
                Error::definition("a topic holds Avro, and no schema registry is set")
                    .hint("--registry URL names one; Avro without schema ids is `.avro_plain(…)`")
            })?;
            Box::new(Avro::new(registry, reader.as_deref(), waker.clone())?)
        }
    })
}
