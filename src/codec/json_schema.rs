//! JSON with a JSON Schema from a registry, in the wire format of Confluent's serializers.
//!
//! ```text
//!   bytes ─▶ schema id ─▶ Registry ─▶ is it JSON Schema? decided once an id
//!            JSON ─┬─ validated (if the format says so) ─ dead letter with the place: `items[2].price`
//!                  └─▶ serde ─▶ T
//! ```
//!
//! The schema says nothing that reading takes: JSON is read as [`json`](super::json) reads it. The registry
//! still decides: records of an id that it does not know are dead letters, as with Avro. At the start the
//! type is compared with the newest schema of the topic.
//!
//! **Validation** ([`JsonSchemaFormat::validated`], cargo feature `json-schema`) holds each record against
//! its schema first. It never reads from the network or from files: what a schema refers to has to be in it,
//! or among its references in the registry. Patterns are matched in linear time, so those with
//! backreferences or look-around make the schema unusable.

pub(crate) mod fit;
#[cfg(feature = "json-schema")]
mod validation;

use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::by_schema::BySchema;
use super::format::{DecoderResources, Format, Keys, SchemaComparison};
use super::json::Json;
use super::registry::{Registry, Verdict, WriterSchema};
use super::writer::Language;
use super::{Cause, Decode, Decoded, confluent};
use crate::bridge::Waker;
use crate::error::{Error, Result};
use crate::position::Offset;
use crate::schema::trace::trace;

/// JSON in the wire format of Confluent's serializers, schemas by id from the registry.
///
/// ```
/// use thalweg::{codec::json_schema::JsonSchemaFormat, connect::kafka::Kafka};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Payment { at_ms: i64 }
/// let payments = Kafka::topic("payments.v1").json_schema::<Payment>();
/// # #[cfg(feature = "json-schema")]
/// let payments = Kafka::topic("payments.v1").format::<Payment>(JsonSchemaFormat::validated());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonSchemaFormat {
    validates: bool,
}

impl JsonSchemaFormat {
    /// Records are read without validation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each record is validated by the schema that it was written with. One that does not is a dead letter
    /// (`json_schema_invalid`) with the place.
    #[cfg(feature = "json-schema")]
    pub fn validated() -> Self {
        Self { validates: true }
    }
}

impl<T: DeserializeOwned + 'static> Format<T> for JsonSchemaFormat {
    fn name(&self) -> &'static str {
        match self.validates {
            false => "json_schema",
            true => "json_schema_validated",
        }
    }

    fn decoder(&self, resources: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>> {
        let registry = resources.registry.cloned().ok_or_else(|| {
            Error::definition("a topic holds JSON with schema ids, and no schema registry is set")
                .hint("--registry URL names one; JSON without schema ids is `.json()`")
        })?;
        Ok(Box::new(JsonSchema::new(
            registry,
            self.validates,
            resources.waker.clone(),
        )))
    }

    fn compare(&self) -> Option<SchemaComparison> {
        let traced = trace::<T>();
        Some(Arc::new(move |schema: &WriterSchema| {
            fit::compare(&traced, schema)
        }))
    }

    fn keys(&self) -> Keys {
        Keys::JsonSchema
    }
}

/// Decodes JSON behind a schema id.
struct JsonSchema<T> {
    schemas: BySchema<Option<Validate>>,
    validates: bool,
    json: Json<T>,
    value: PhantomData<fn() -> T>,
}

/// Holds a record against its schema.
type Validate = Box<dyn Fn(&[u8]) -> Result<(), (Cause, Box<str>)>>;

impl<T> JsonSchema<T> {
    fn new(registry: Registry, validates: bool, waker: Waker) -> Self {
        Self {
            schemas: BySchema::new(registry, waker),
            validates,
            json: Json::new(),
            value: PhantomData,
        }
    }

    fn json<'b>(&mut self, offset: Offset, bytes: &'b [u8]) -> Result<(u32, &'b [u8]), Decoded<T>> {
        let (id, json) = confluent::split(bytes).map_err(|cause| Decoded::Dead(cause, None))?;
        self.schemas.set_offset(offset);
        let validates = self.validates;
        match self.schemas.lookup(id, |schema| judge(schema, validates))? {
            None => Ok((id, json)),
            Some(validate) => match validate(json) {
                Ok(()) => Ok((id, json)),
                Err((cause, place)) if place.is_empty() => Err(Decoded::Dead(cause, Some(id))),
                Err((cause, place)) => Err(Decoded::DeadAt(cause, Some(id), place)),
            },
        }
    }
}

#[cold]
fn judge(schema: &WriterSchema, validates: bool) -> Result<Option<Validate>, String> {
    match (schema.language, validates) {
        (Language::JsonSchema, false) => Ok(None),
        (Language::JsonSchema, true) => validation(schema).map(Some),
        (other, _) => Err(format!("it is {other}")),
    }
}

#[cfg(feature = "json-schema")]
fn validation(schema: &WriterSchema) -> Result<Validate, String> {
    validation::of(schema)
}

#[cfg(not(feature = "json-schema"))]
fn validation(_: &WriterSchema) -> Result<Validate, String> {
    Err("this build has no validation: it is the cargo feature `json-schema`".to_owned())
}

impl<T: DeserializeOwned + 'static> Decode<T> for JsonSchema<T> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        self.decode_at(0, bytes)
    }

    fn enter(&mut self, partition: u32, bound: bool) {
        self.schemas.enter(partition, bound);
    }

    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<T> {
        match self.json(offset, bytes) {
            Err(dead) => dead,
            Ok((id, json)) => match self.json.decode(json) {
                Decoded::Dead(cause, None) => Decoded::Dead(cause, Some(id)),
                decoded => decoded,
            },
        }
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        self.schemas.seen()
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.schemas.bind(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.schemas.broken()
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        confluent::split(bytes).is_ok_and(|(_, json)| self.json.is_null(json))
    }
}

#[cfg(test)]
mod tests;
