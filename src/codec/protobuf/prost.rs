//! Protobuf into types that [prost](https://docs.rs/prost) generates.

use std::marker::PhantomData;
use std::sync::Arc;

use prost_reflect::prost::{Message, Name};

use super::schema::Schema;
use crate::codec::by_schema::BySchema;
use crate::codec::compatibility::Incompatibility;
use crate::codec::format::{DecoderResources, Format, Keys, SchemaComparison};
use crate::codec::registry::{Verdict, WriterSchema};
use crate::codec::{Cause, Decode, Decoded};
use crate::error::{Error, Result};
use crate::position::Offset;

/// Protobuf in the wire format of Confluent's serializers, decoded by prost's generated code.
///
/// The registry says which message a record holds: one of another name than `M`'s is a dead letter
/// (`schema_incompatible`). Within a message prost's rules hold: by field number, and what is not written is
/// the default. Names are generated with prost-build's `enable_type_names`.
#[derive(Clone, Copy, Debug)]
pub struct ProstFormat<M>(PhantomData<fn() -> M>);

impl<M> ProstFormat<M> {
    /// Messages `M`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<M> Default for ProstFormat<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Message + Name + Default + 'static> Format<M> for ProstFormat<M> {
    fn name(&self) -> &'static str {
        "protobuf"
    }

    fn decoder(&self, resources: &DecoderResources<'_>) -> Result<Box<dyn Decode<M>>> {
        let registry = super::format::registry(resources)?;
        Ok(Box::new(Prost {
            schemas: BySchema::new(registry, resources.waker.clone()),
            name: M::full_name(),
            value: PhantomData,
        }))
    }

    fn compare(&self) -> Option<SchemaComparison> {
        let name = M::full_name();
        Some(Arc::new(move |schema: &WriterSchema| compare(schema, &name)))
    }

    fn keys(&self) -> Keys {
        Keys::Protobuf
    }
}

fn compare(schema: &WriterSchema, name: &str) -> Vec<Incompatibility> {
    let problem = match super::compile::registered(schema) {
        Ok(schema) if schema.messages.iter().any(|message| message.name == name) => return Vec::new(),
        Ok(_) => format!("the registry's schema has no message `{name}`"),
        Err(why) => format!("the registry's schema is no Protobuf schema: {why}"),
    };
    vec![Incompatibility {
        path: String::new(),
        problem,
        remedy: "read the topic with the type of its own message".to_owned(),
        every: true,
    }]
}

struct Prost<M> {
    schemas: BySchema<Schema>,
    name: String,
    value: PhantomData<fn() -> M>,
}

impl<M: Message + Default + 'static> Decode<M> for Prost<M> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<M> {
        self.decode_at(0, bytes)
    }

    fn enter(&mut self, partition: u32, bound: bool) {
        self.schemas.enter(partition, bound);
    }

    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<M> {
        match self.message(offset, bytes) {
            Err(dead) => dead,
            Ok((id, bytes)) => match M::decode(bytes) {
                Ok(value) => Decoded::Value(value),
                Err(_) => Decoded::Dead(Cause::ProtobufInvalid, Some(id)),
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
}

impl<M> Prost<M> {
    /// The bytes of a record's message and its schema, if it is an `M`.
    fn message<'b>(&mut self, offset: Offset, bytes: &'b [u8]) -> Result<(u32, &'b [u8]), Decoded<M>> {
        let (id, rest) = super::split(bytes)?;
        self.schemas.set_offset(offset);
        let schema = self.schemas.lookup(id, super::compile::registered)?;
        let (message, bytes) = super::message(schema, id, rest)?;
        match schema.messages[message].name == self.name {
            true => Ok((id, bytes)),
            false => Err(Decoded::Dead(Cause::SchemaIncompatible, Some(id))),
        }
    }
}
