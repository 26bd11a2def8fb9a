//! Protobuf: in the wire format of Confluent's serializers, and [plain](format::ProtobufPlainFormat).
//!
//! ```text
//!   bytes ─▶ schema id ─▶ Registry ─▶ .proto text and its imports ─▶ Schema, decided once an id
//!            message indexes ─────────────────────────────────────▶ message of the Schema ─┐
//!            message ─▶ scanned for the fields that the type names (Layout) ───────────────┴─▶ serde ─▶ T
//! ```
//!
//! The descriptor is read when records come, and the bytes go straight into the type: there is no code to
//! generate and no tree between. Of a message only what the type asks for is decoded.
//!
//! | in the `.proto` | in Rust |
//! |---|---|
//! | a field | a field of its name (`merchant_id`) or its JSON name (`merchantId`); others are passed over |
//! | `int32`, `sint64`, `fixed64`, … | any integer that holds the value, floats |
//! | `float`, `double` | `f32`, `f64` |
//! | `bool`, `string`, `bytes` | `bool`, `String`, `Vec<u8>` |
//! | an enum | an enum with variants named as the values, or as [prost] names them: `SIDE_BUY` is `Buy`; `String` takes the name, an integer the number |
//! | `repeated`, `map` | `Vec`, `BTreeMap` |
//! | a message | a struct, also within itself (in a `Box`) |
//! | a oneof | a field of the oneof's name with an enum whose variants are named as the members (`card`, `Card`); or a field for each member |
//! | a message that is nothing but a oneof | an enum |
//! | `google.protobuf.Timestamp` | [`EventTime`](crate::EventTime), a `String` in RFC 3339, or a struct with `seconds` and `nanos` |
//! | `google.protobuf.Duration` | [`Duration`](std::time::Duration), a `String` (`1.500s`), or such a struct |
//! | `google.protobuf.Int64Value` and its like | an `Option` of the scalar |
//! | `google.protobuf.Struct`, `Value`, `ListValue` | what the JSON in it would be read into |
//!
//! What is **not written**: a field with implicit presence (proto3 without `optional`, lists, maps) has its
//! default value. Any other (proto3 `optional`, proto2, messages, members of a oneof) is not there: the type
//! has an `Option` or a serde default for it. Where proto2 declares a default, types other than `Option` get
//! that. A number that an enum does not know is taken by a variant with `#[serde(other)]`, or by an integer.
//!
//! Evolution is by field number, since each record is read by the schema that it was written with: fields
//! that come and go in the schema come and go for the type. `#[serde(deny_unknown_fields)]` denies nothing,
//! as a struct is only given what it names.
//!
//! [prost]: https://docs.rs/prost

pub mod compatibility;
mod compile;
mod datum;
mod fault;
pub mod format;
mod header;
mod input;
mod layout;
mod merge;
pub mod prost;
mod schema;
mod wire;

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::by_schema::BySchema;
use super::registry::{Registry, Verdict, WriterSchema};
use super::{Cause, Decode, Decoded, confluent};
use crate::bridge::Waker;
use crate::error::Error;
use crate::position::Offset;

use self::datum::deserialize;
use self::input::Scratch;
use self::schema::{MessageId, Schema};

/// Where it is that a message place names nothing.
const INDEXES: &str = "message indexes";

/// Decodes Protobuf into types of serde, with the writer's schemas from a registry.
pub struct Protobuf<T> {
    schemas: BySchema<Reads>,
    value: PhantomData<fn() -> T>,
}

/// What is needed to read messages of a schema.
struct Reads {
    schema: Schema,
    scratch: Scratch,
}

impl<T> Protobuf<T> {
    /// A decoder. `waker` is called when a schema that a [`Decoded::Wait`] waits for has come.
    pub fn new(registry: Registry, waker: Waker) -> Self {
        Self {
            schemas: BySchema::new(registry, waker),
            value: PhantomData,
        }
    }
}

#[cold]
fn reads(schema: &WriterSchema) -> Result<Reads, String> {
    let scratch = Scratch::default();
    compile::registered(schema).map(|schema| Reads { schema, scratch })
}

/// A payload's schema id and the rest of it.
#[inline]
fn split<T>(bytes: &[u8]) -> Result<(u32, &[u8]), Decoded<T>> {
    confluent::split(bytes).map_err(|cause| Decoded::Dead(cause, None))
}

/// The message that a payload's indexes name, and its bytes.
#[inline]
fn message<'b, T>(schema: &Schema, id: u32, rest: &'b [u8]) -> Result<(MessageId, &'b [u8]), Decoded<T>> {
    header::message(schema, rest)
        .ok_or_else(|| Decoded::DeadAt(Cause::ProtobufInvalid, Some(id), INDEXES.into()))
}

/// A message as a value, or where it is none.
#[inline]
fn read<T: DeserializeOwned>(
    schema: &Schema,
    message: MessageId,
    bytes: &[u8],
    scratch: &mut Scratch,
    id: Option<u32>,
) -> Decoded<T> {
    match deserialize(schema, message, bytes, scratch) {
        Ok(value) => Decoded::Value(value),
        Err(fault) => match fault.place() {
            place if place.is_empty() => Decoded::Dead(fault.cause(), id),
            place => Decoded::DeadAt(fault.cause(), id, place),
        },
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Protobuf<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        self.decode_at(0, bytes)
    }

    fn enter(&mut self, partition: u32, bound: bool) {
        self.schemas.enter(partition, bound);
    }

    #[inline]
    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<T> {
        let (id, rest) = match split(bytes) {
            Ok(parts) => parts,
            Err(dead) => return dead,
        };
        self.schemas.set_offset(offset);
        match self.schemas.lookup(id, reads) {
            Err(dead) => dead,
            Ok(Reads { schema, scratch }) => match message(schema, id, rest) {
                Ok((message, bytes)) => read(schema, message, bytes, scratch, Some(id)),
                Err(dead) => dead,
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

/// Whether `text` is a `.proto` file, whose imports are among `references`.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn check(schema: &WriterSchema) -> Result<(), String> {
    compile::registered(schema).map(drop)
}

/// Appends the header for the message that indexes name in a schema: what Confluent's serializers write
/// before a message.
///
/// ```
/// use thalweg::codec::protobuf::write_header;
/// let mut payload = Vec::new();
/// write_header(258, &[0], &mut payload);
/// assert_eq!(payload, [0, 0, 0, 1, 2, 0], "the file's first message is a single 0");
/// ```
pub fn write_header(id: u32, indexes: &[u32], out: &mut Vec<u8>) {
    confluent::write(id, out);
    header::write(indexes, out);
}

#[cfg(test)]
pub(in crate::codec) mod tests;
