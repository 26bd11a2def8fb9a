//! Turns a record's key and payload into a value: shared by all sources with keys and payloads.

use super::deletes::Deletes;
use super::intake::Raw;
use crate::codec::format::{DecoderResources, Format};
use crate::codec::registry::Verdict;
use crate::codec::{Cause, Decode, Decoded};
use crate::error::{Error, Result};

/// Turns a record's key and payload into a `T`.
pub trait Records<T>: 'static {
    /// See [`Decode::enter`].
    fn enter(&mut self, _partition: u32, _bound: bool) {}
    /// Decodes one record. After [`Decoded::Wait`], must be called with the same record again later.
    fn decode(&mut self, raw: &Raw<'_>) -> Decoded<T>;
    /// See [`Decode::schemas_seen`].
    fn schemas_seen(&mut self) -> Vec<Verdict> {
        Vec::new()
    }
    /// See [`Decode::bind_schema`].
    fn bind_schema(&mut self, _verdict: Verdict) {}
    /// See [`Decode::broken`].
    fn broken(&self) -> Option<Error> {
        None
    }
}

/// The payload alone.
pub struct Payload<T>(pub Box<dyn Decode<T>>);

impl<T: 'static> Payload<T> {
    /// The format.
    ///
    /// # Errors
    /// Those of [`Format::decoder`].
    pub fn new(format: &dyn Format<T>, resources: &DecoderResources<'_>) -> Result<Self> {
        Ok(Self(format.decoder(resources)?))
    }
}

impl<T: 'static> Records<T> for Payload<T> {
    fn enter(&mut self, partition: u32, bound: bool) {
        self.0.enter(partition, bound);
    }

    #[inline]
    fn decode(&mut self, raw: &Raw<'_>) -> Decoded<T> {
        match raw.payload {
            Some(payload) => self.0.decode_at(raw.offset, payload),
            None => Decoded::Dead(Cause::PayloadMissing, None),
        }
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        self.0.schemas_seen()
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.0.bind_schema(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.0.broken()
    }
}

/// Key and payload: rows by key.
pub struct KeyValue<K, V> {
    /// The format of the key.
    pub key: Box<dyn Decode<K>>,
    /// The format of the payload.
    pub value: Box<dyn Decode<V>>,
    /// Which payloads delete.
    pub deletes: Deletes,
}

impl<K, V: 'static> KeyValue<K, V> {
    /// Handles a payload that is not a row.
    #[cold]
    fn no_row(&mut self, key: K, payload: &[u8], why: Decoded<(K, Option<V>)>) -> Decoded<(K, Option<V>)> {
        match self.deletes >= Deletes::Null && self.value.is_null(payload) {
            true => Decoded::Value((key, None)),
            false => why,
        }
    }
}

impl<K: 'static, V: 'static> Records<(K, Option<V>)> for KeyValue<K, V> {
    fn enter(&mut self, partition: u32, bound: bool) {
        self.key.enter(partition, bound);
        self.value.enter(partition, bound);
    }

    #[inline]
    fn decode(&mut self, raw: &Raw<'_>) -> Decoded<(K, Option<V>)> {
        let key = match raw.key.map(|key| self.key.decode_at(raw.offset, key)) {
            Some(Decoded::Value(key)) => key,
            Some(Decoded::Dead(_, schema)) => return Decoded::Dead(Cause::KeyInvalid, schema),
            Some(Decoded::DeadAt(_, schema, place)) => {
                return Decoded::DeadAt(Cause::KeyInvalid, schema, place);
            }
            Some(Decoded::Wait) => return Decoded::Wait,
            None => return Decoded::Dead(Cause::KeyMissing, None),
        };
        let empty_deletes = self.deletes == Deletes::NullOrEmpty;
        let Some(payload) = raw
            .payload
            .filter(|payload| !(empty_deletes && payload.is_empty()))
        else {
            return Decoded::Value((key, None));
        };
        match self.value.decode_at(raw.offset, payload) {
            Decoded::Value(value) => Decoded::Value((key, Some(value))),
            Decoded::Dead(cause, schema) => self.no_row(key, payload, Decoded::Dead(cause, schema)),
            Decoded::DeadAt(cause, schema, place) => {
                self.no_row(key, payload, Decoded::DeadAt(cause, schema, place))
            }
            Decoded::Wait => Decoded::Wait,
        }
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        let mut seen = self.key.schemas_seen();
        // If both use one registry, each reports the same.
        let more = self.value.schemas_seen().into_iter();
        seen.extend(more.filter(|verdict| !seen.contains(verdict)).collect::<Vec<_>>());
        seen
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.key.bind_schema(verdict);
        self.value.bind_schema(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.key.broken().or_else(|| self.value.broken())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::bytes::Bytes;
    use crate::codec::json::{Json, Strict};
    use crate::codec::text::Text;
    use crate::time::EventTime;

    /// The rows and causes that result from payloads of key 1 in a keyed topic.
    fn rows<V: std::fmt::Debug + 'static>(
        value: impl Decode<V>,
        deletes: Deletes,
        payloads: &[Option<&[u8]>],
    ) -> Vec<String> {
        let mut records = KeyValue {
            key: Box::new(Json::<u32>::new()),
            value: Box::new(value),
            deletes,
        };
        let decoded = payloads.iter().map(|payload| {
            let raw = Raw {
                offset: 0,
                timestamp: EventTime(0),
                key: Some(b"1"),
                payload: *payload,
            };
            match records.decode(&raw) {
                Decoded::Value((1, None)) => "deleted".to_owned(),
                Decoded::Value((1, Some(row))) => format!("{row:?}"),
                Decoded::Dead(cause, _) => cause.code().to_owned(),
                other => panic!("{other:?}"),
            }
        });
        decoded.collect()
    }

    #[test]
    fn the_source_says_which_payloads_delete() {
        let payloads = [
            None,
            Some(&b"null"[..]),
            Some(b"\xEF\xBB\xBF null\n"),
            Some(b""),
            Some(b" "),
            Some(b"7"),
        ];
        let number = |deletes| rows(Json::<u64>::new(), deletes, &payloads);
        let (type_, syntax) = ("json_type", "json_syntax");
        assert_eq!(
            number(Deletes::Tombstone),
            ["deleted", type_, type_, syntax, syntax, "7"]
        );
        assert_eq!(
            number(Deletes::default()),
            ["deleted", "deleted", "deleted", syntax, syntax, "7"]
        );
        assert_eq!(
            number(Deletes::NullOrEmpty),
            ["deleted", "deleted", "deleted", "deleted", syntax, "7"]
        );
        let strict = rows(Strict::<u64>::new(), Deletes::default(), &payloads);
        assert_eq!(strict, number(Deletes::default()));
    }

    #[test]
    fn a_type_that_has_a_value_for_null_gets_it() {
        let payloads = [None, Some(&b"null"[..]), Some(b"")];
        let of = |deletes| {
            [
                rows(Json::<Option<u64>>::new(), deletes, &payloads),
                rows(Json::<()>::new(), deletes, &payloads),
                rows(Json::<serde_json::Value>::new(), deletes, &payloads),
            ]
            .map(|rows| rows.join(" "))
        };
        assert_eq!(
            of(Deletes::Null),
            [
                "deleted None json_syntax",
                "deleted () json_syntax",
                "deleted Null json_syntax"
            ]
        );
        assert_eq!(
            of(Deletes::NullOrEmpty),
            [
                "deleted None deleted",
                "deleted () deleted",
                "deleted Null deleted"
            ]
        );
    }

    #[test]
    fn text_and_bytes_have_no_null_and_an_empty_payload_is_a_value_unless_told() {
        let payloads = [None, Some(&b"null"[..]), Some(b"")];
        let text = |deletes| rows(Text::<String>::new(), deletes, &payloads);
        assert_eq!(text(Deletes::Null), ["deleted", "\"null\"", "\"\""]);
        assert_eq!(text(Deletes::NullOrEmpty), ["deleted", "\"null\"", "deleted"]);
        let bytes = |deletes| rows(Bytes::<Vec<u8>>::new(), deletes, &payloads);
        assert_eq!(bytes(Deletes::Null), ["deleted", "[110, 117, 108, 108]", "[]"]);
        assert_eq!(
            bytes(Deletes::NullOrEmpty),
            ["deleted", "[110, 117, 108, 108]", "deleted"]
        );
    }
}
