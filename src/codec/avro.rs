//! Avro payloads: in the wire format of Confluent's serializers, and [`plain`].
//!
//! ```text
//!   bytes ─▶ schema id ─▶ Registry ─▶ writer's schema ─┐  decided once an id:
//!                                    reader's schema ──┴▶ RewritePlan
//!            datum ─┬─ identical ──────────────────────▶ deserialized, by the reader's schema ─▶ T
//!                   └─ else: rewritten into the reader's schema ▲
//! ```
//!
//! Avro's rules bring a datum from the writer's schema to the reader's; serde's bring it from there to `T`,
//! by the names of fields. Without a reader's schema the writer's takes its place, and serde's rules alone
//! hold: fields that `T` lacks are passed over, fields that the schema lacks need a serde default.

pub mod compatibility;
mod datum;
mod decimal;
mod default;
pub mod format;
mod long;
pub(crate) mod plain;
mod plan;
mod resolve;
mod rewrite;
mod rows;
pub(super) mod schema;

use std::marker::PhantomData;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_avro_fast::ser::SerializerConfig;

use super::by_schema::BySchema;
use super::registry::{Registry, WriterSchema};
use super::{Cause, Decode, Decoded, confluent, registry};
use crate::bridge::Waker;
use crate::error::{Error, Result};
use crate::position::Offset;

use self::datum::deserialize;
use self::default::encode_default;
use self::plan::RewritePlan;
use self::schema::{NodeKind, Schema};

/// Decodes Avro, with the writer's schemas from a registry.
pub struct Avro<T> {
    schemas: BySchema<Reads>,
    reader: Option<Rc<Schema>>,
    /// The rewritten datum.
    scratch: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

/// What is needed to read datums of a schema.
struct Reads {
    plan: RewritePlan,
    schema: Rc<Schema>,
}

impl<T> Avro<T> {
    /// A decoder. `reader` is the text of the schema that every datum is resolved to; `waker` is called when
    /// a schema that a [`Decoded::Wait`] waits for has come. Fails if `reader` is no Avro schema.
    pub fn new(registry: Registry, reader: Option<&str>, waker: Waker) -> Result<Self> {
        let reader = reader.map(self::reader).transpose()?;
        Ok(Self {
            schemas: BySchema::new(registry, waker),
            reader,
            scratch: Vec::new(),
            value: PhantomData,
        })
    }
}

#[cold]
fn reads(schema: &WriterSchema, reader: Option<&Rc<Schema>>) -> Result<Reads, String> {
    let writer = Rc::new(Schema::registered(schema)?);
    let reader = reader.unwrap_or(&writer);
    let plan = RewritePlan::resolve(&writer, reader).ok_or("it can't be resolved to the reader's")?;
    Ok(Reads {
        plan,
        schema: reader.clone(),
    })
}

impl<T: DeserializeOwned + 'static> Decode<T> for Avro<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        self.decode_at(0, bytes)
    }

    fn enter(&mut self, partition: u32, bound: bool) {
        self.schemas.enter(partition, bound);
    }

    #[inline]
    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<T> {
        let (id, datum) = match confluent::split(bytes) {
            Ok(parts) => parts,
            Err(cause) => return Decoded::Dead(cause, None),
        };
        self.schemas.set_offset(offset);
        let found = self
            .schemas
            .lookup(id, |schema| reads(schema, self.reader.as_ref()));
        let Reads { plan, schema } = match found {
            Ok(reads) => reads,
            Err(dead) => return dead,
        };
        match read(plan, schema, datum, &mut self.scratch) {
            Ok(value) => Decoded::Value(value),
            Err(cause) => Decoded::Dead(cause, Some(id)),
        }
    }

    fn schemas_seen(&mut self) -> Vec<registry::Verdict> {
        self.schemas.seen()
    }

    fn bind_schema(&mut self, verdict: registry::Verdict) {
        self.schemas.bind(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.schemas.broken()
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        let Ok((id, datum)) = confluent::split(bytes) else {
            return false;
        };
        let found = self
            .schemas
            .lookup::<()>(id, |schema| reads(schema, self.reader.as_ref()));
        found.is_ok_and(|Reads { plan, schema }| read::<()>(plan, schema, datum, &mut self.scratch).is_ok())
    }
}

#[inline]
fn read<T: DeserializeOwned>(
    plan: &RewritePlan,
    schema: &Schema,
    datum: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<T, Cause> {
    if plan.identical {
        return deserialize(schema, datum).ok_or_else(|| explain_failure(plan, datum, scratch));
    }
    plan.rewrite(datum, scratch)?;
    deserialize(schema, scratch).ok_or(Cause::SchemaIncompatible)
}

/// Why a datum could not be decoded as it is: because of its bytes, or because the type has no place for it.
#[cold]
fn explain_failure(plan: &RewritePlan, datum: &[u8], scratch: &mut Vec<u8>) -> Cause {
    plan.rewrite(datum, scratch)
        .err()
        .unwrap_or(Cause::SchemaIncompatible)
}

/// A reader's schema. Its defaults must be right, as they may become data.
fn reader(text: &str) -> Result<Rc<Schema>> {
    let wrong = |why: String| Error::definition("cannot use a text as an Avro schema").detail(why);
    let schema = Schema::parse(text).map_err(wrong)?;
    check_defaults(&schema).map_err(wrong)?;
    Ok(Rc::new(schema))
}

fn check_defaults(schema: &Schema) -> Result<(), String> {
    for node in schema.nodes() {
        match &node.kind {
            NodeKind::Enum(symbols) => {
                if let Some(default) = symbols
                    .default
                    .as_ref()
                    .filter(|own| !symbols.symbols.contains(own))
                {
                    let name = &symbols.name.full;
                    return Err(format!(
                        "enum `{name}`: its default `{default}` is none of its symbols"
                    ));
                }
            }
            NodeKind::Record(record) => {
                for field in &record.fields {
                    let Some(json) = &field.default else { continue };
                    if encode_default(schema, field.node, json, &mut Vec::new()).is_none() {
                        let (record, name, word) = (&record.name.full, &field.name, schema.word(field.node));
                        return Err(format!(
                            "record `{record}`: field `{name}`: its default `{json}` is no {word}"
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `text` can be a reader's schema.
pub fn check_reader(text: &str) -> Result<()> {
    reader(text).map(drop)
}

/// Encodes values in one schema, in the wire format of Confluent's serializers.
pub struct Encoder<T> {
    id: u32,
    schema: serde_avro_fast::Schema,
    value: PhantomData<fn(&T)>,
}

impl<T: Serialize> Encoder<T> {
    /// An encoder for the schema `text`, which the registry calls `id`. Fails if `text` is no Avro schema.
    pub fn new(id: u32, text: &str) -> Result<Self> {
        let wrong = |error| Error::definition(format!("cannot use Avro schema {id}")).detail(error);
        Ok(Self {
            id,
            schema: text.parse().map_err(wrong)?,
            value: PhantomData,
        })
    }

    /// Appends `value` to `out`: header and datum. Fails, and leaves `out` as it was, if the value does not
    /// fit the schema.
    pub fn encode_into(&self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        confluent::write(self.id, out);
        match serde_avro_fast::to_datum(value, &mut *out, &mut SerializerConfig::new(&self.schema)) {
            Ok(_) => Ok(()),
            Err(error) => {
                out.truncate(start);
                Err(Error::definition(format!("a value does not fit Avro schema {}", self.id)).detail(error))
            }
        }
    }

    /// `value` as a payload of its own.
    pub fn encode(&self, value: &T) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.encode_into(value, &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
