//! Keys of change events: the primary key's columns, in JSON with Connect's schema around them or not, or in
//! Avro.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::shape::Shape;
use crate::codec::format::{DecoderResources, Format, SchemaComparison};
use crate::codec::registry::Verdict;
use crate::codec::{Cause, Decode, Decoded, unmarked};
use crate::error;
use crate::position::Offset;

/// The key's only column, as a value that has no name for it.
#[derive(Debug)]
pub(crate) struct SingleColumn<K>(K);

impl<'de, K: Deserialize<'de>> Deserialize<'de> for SingleColumn<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One<K>(PhantomData<K>);
        impl<'de, K: Deserialize<'de>> Visitor<'de> for One<K> {
            type Value = SingleColumn<K>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key of one column")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut columns: A) -> Result<SingleColumn<K>, A::Error> {
                let (_, value) = columns
                    .next_entry::<IgnoredAny, K>()?
                    .ok_or_else(|| A::Error::custom("no column"))?;
                match columns.next_key::<IgnoredAny>()? {
                    None => Ok(SingleColumn(value)),
                    Some(_) => Err(A::Error::custom("more than one column")),
                }
            }
        }
        deserializer.deserialize_map(One(PhantomData))
    }
}

/// Keys of this format, of one column or of named ones: whichever `K` asks for.
pub(crate) struct KeyFormat<F>(pub(crate) F);

impl<K, F> Format<K> for KeyFormat<F>
where
    K: DeserializeOwned + 'static,
    F: Format<K> + Format<SingleColumn<K>>,
{
    fn name(&self) -> &'static str {
        Format::<K>::name(&self.0)
    }

    fn prepare(&mut self) -> error::Result<()> {
        Format::<K>::prepare(&mut self.0)
    }

    fn decoder(&self, resources: &DecoderResources<'_>) -> error::Result<Box<dyn Decode<K>>> {
        Ok(match Shape::of::<K>() {
            Shape::Value => Box::new(SingleColumnDecoder(Format::<SingleColumn<K>>::decoder(
                &self.0, resources,
            )?)),
            Shape::Fields(_) | Shape::Columns => Format::<K>::decoder(&self.0, resources)?,
        })
    }

    fn compare(&self) -> Option<SchemaComparison> {
        match Shape::of::<K>() {
            Shape::Value => None,
            Shape::Fields(_) | Shape::Columns => Format::<K>::compare(&self.0),
        }
    }
}

/// Decodes keys of one column.
struct SingleColumnDecoder<K>(Box<dyn Decode<SingleColumn<K>>>);

impl<K: 'static> Decode<K> for SingleColumnDecoder<K> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<K> {
        self.decode_at(0, bytes)
    }
    fn enter(&mut self, partition: u32, bound: bool) {
        self.0.enter(partition, bound);
    }
    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<K> {
        match self.0.decode_at(offset, bytes) {
            Decoded::Value(SingleColumn(key)) => Decoded::Value(key),
            Decoded::Dead(cause, schema) => Decoded::Dead(cause, schema),
            Decoded::DeadAt(cause, schema, place) => Decoded::DeadAt(cause, schema, place),
            Decoded::Wait => Decoded::Wait,
        }
    }
    fn schemas_seen(&mut self) -> Vec<Verdict> {
        self.0.schemas_seen()
    }
    fn bind_schema(&mut self, verdict: Verdict) {
        self.0.bind_schema(verdict);
    }
    fn broken(&self) -> Option<error::Error> {
        self.0.broken()
    }
}

/// JSON of Kafka Connect's converter: with the schema around each value (`schemas.enable`), or without.
pub(crate) struct ConnectJson;

impl<T: DeserializeOwned + 'static> Format<T> for ConnectJson {
    fn name(&self) -> &'static str {
        "connect_json"
    }
    fn decoder(&self, _: &DecoderResources<'_>) -> error::Result<Box<dyn Decode<T>>> {
        Ok(Box::new(ConnectJson))
    }
}

/// What stands around a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectEnvelope<T> {
    #[serde(rename = "schema")]
    _schema: Option<IgnoredAny>,
    payload: T,
}

impl<T: DeserializeOwned + 'static> Decode<T> for ConnectJson {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        let bytes = unmarked(bytes);
        // A table may well have a column called `schema`.
        if bytes.starts_with(br#"{"schema":"#)
            && let Ok(around) = serde_json::from_slice::<ConnectEnvelope<T>>(bytes)
        {
            return Decoded::Value(around.payload);
        }
        match serde_json::from_slice(bytes) {
            Ok(value) => Decoded::Value(value),
            Err(error) if error.is_data() => Decoded::Dead(Cause::JsonType, None),
            Err(_) => Decoded::Dead(Cause::JsonSyntax, None),
        }
    }
}
