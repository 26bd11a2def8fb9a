//! From a record's bytes to a value, or to the reason why not.
//!
//! A record that can't be decoded is data: it becomes a dead letter with a [`Cause`], which is a fixed code.
//! A library's own message never gets there, as it would change with the library's version and break a
//! replay.

pub mod avro;
mod by_schema;
pub mod bytes;
pub mod compatibility;
pub mod confluent;
pub mod debezium;
pub mod format;
pub mod header;
pub mod json;
pub mod json_schema;
mod keys;
mod plain_rows;
#[cfg(feature = "protobuf")]
pub mod protobuf;
pub mod registry;
pub mod rows;
pub(crate) mod source;
pub mod text;
pub mod verdict;
pub mod writer;

use serde::{Deserialize, Serialize};

use self::verdict::Verdict;
use crate::error::Error;
use crate::position::Offset;

/// Why a record is in the dead letters. Codes are fixed: they are part of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The payload is not JSON.
    JsonSyntax,
    /// The payload is JSON, but does not fit the type.
    JsonType,
    /// The payload has a field that the type has not, and the source is strict about that.
    JsonUnknownField,
    /// The payload is not UTF-8, or not the text of a value of the type.
    TextInvalid,
    /// The payload's bytes are not those of a value of the type: a number of another width, say.
    BytesInvalid,
    /// Fewer bytes than the format's header takes.
    WireTruncated,
    /// The first byte is not the wire format's.
    WireMagic,
    /// The registry did not know the schema id when the record was read, or what it has for it is no schema
    /// that can be read.
    SchemaUnknown,
    /// The writer's schema can't be resolved to the reader's by Avro's rules, or this value of it can't, or
    /// what comes of it does not fit the type.
    SchemaIncompatible,
    /// The bytes do not follow their schema.
    AvroInvalid,
    /// The bytes are not Protobuf, or not a message of their schema.
    ProtobufInvalid,
    /// The JSON does not validate against its JSON Schema.
    JsonSchemaInvalid,
    /// A keyed source needs a key, and the record has none.
    KeyMissing,
    /// The key can't be decoded.
    KeyInvalid,
    /// The source needs a payload, and the record has none.
    PayloadMissing,
    /// The event time is outside the calendar.
    EventTimeInvalid,
    /// The event time lies further in the future than the source allows.
    EventTimeFarFuture,
    /// The event came after its windows had closed.
    Late,
    /// The dataflow's own code turned the event down.
    Rejected,
    /// The payload is no change event of a captured table.
    EnvelopeInvalid,
    /// The event leaves out a column that did not change, and there is no row to take it from.
    ValueUnavailable,
}

impl Cause {
    /// The code, as in views, metrics and dead-letter topics.
    pub fn code(self) -> &'static str {
        match self {
            Cause::JsonSyntax => "json_syntax",
            Cause::JsonType => "json_type",
            Cause::JsonUnknownField => "json_unknown_field",
            Cause::TextInvalid => "text_invalid",
            Cause::BytesInvalid => "bytes_invalid",
            Cause::WireTruncated => "wire_truncated",
            Cause::WireMagic => "wire_magic",
            Cause::SchemaUnknown => "schema_unknown",
            Cause::SchemaIncompatible => "schema_incompatible",
            Cause::AvroInvalid => "avro_invalid",
            Cause::ProtobufInvalid => "protobuf_invalid",
            Cause::JsonSchemaInvalid => "json_schema_invalid",
            Cause::KeyMissing => "key_missing",
            Cause::KeyInvalid => "key_invalid",
            Cause::PayloadMissing => "payload_missing",
            Cause::EventTimeInvalid => "event_time_invalid",
            Cause::EventTimeFarFuture => "event_time_far_future",
            Cause::Late => "late",
            Cause::Rejected => "rejected",
            Cause::EnvelopeInvalid => "envelope_invalid",
            Cause::ValueUnavailable => "value_unavailable",
        }
    }
}

/// What became of a record's bytes.
#[derive(Debug)]
pub enum Decoded<T> {
    /// A value.
    Value(T),
    /// No value, and why; with the schema id where the bytes named one.
    Dead(Cause, Option<u32>),
    /// No value, why, the schema id where the bytes named one, and which place in the bytes is to blame, as
    /// in `legs[0].venue`: words of ours or of the bytes, never a library's.
    DeadAt(Cause, Option<u32>, Box<str>),
    /// A schema is being fetched: decode the same bytes again later. The decoder wakes the worker when it is
    /// worth it.
    Wait,
}

/// The mark that some programs put before text in UTF-8. It says nothing and is no part of the text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// `bytes` behind a byte order mark, if they begin with one.
pub(crate) fn unmarked(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Decodes one part (key or payload) of the records of one source, on one worker.
pub trait Decode<T>: 'static {
    /// Decodes `bytes`. Never blocks, never panics, whatever the bytes hold.
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T>;

    /// Says where the next records stand: in this partition, and whether the ledger has bound them already,
    /// so that they have to become again what they were.
    fn enter(&mut self, _partition: u32, _bound: bool) {}

    /// Decodes `bytes` of the record at `offset` of that partition. The place matters where a schema was
    /// unknown once.
    #[inline]
    fn decode_at(&mut self, _offset: Offset, bytes: &[u8]) -> Decoded<T> {
        self.decode(bytes)
    }

    /// Verdicts on schema ids that came since the last call and that the ledger does not have yet: it binds
    /// them with the first records that they were used for.
    fn schemas_seen(&mut self) -> Vec<Verdict> {
        Vec::new()
    }

    /// What the ledger says of a schema id: records are decoded by that, whatever a registry says now. Called
    /// before the records are decoded that it was bound with.
    fn bind_schema(&mut self, _verdict: Verdict) {}

    /// Set when going on would give other values than the ledger has bound.
    fn broken(&self) -> Option<Error> {
        None
    }

    /// Whether `bytes`, which were found to be no `T`, are the format's null: what some serializers write
    /// where there is no value. A format may have none.
    fn is_null(&mut self, _bytes: &[u8]) -> bool {
        false
    }
}

#[cfg(test)]
pub(crate) mod tests;
