//! Columns that an event leaves out, as their values did not change and Postgres does not log them: values in
//! TOAST tables, of rows without `REPLICA IDENTITY FULL`.
//!
//! Debezium writes a placeholder in their place, in the column's own type:
//!
//! | column | placeholder |
//! |---|---|
//! | `text`, `json`, `xml`, … | `"__debezium_unavailable_value"` |
//! | `bytea` | the same bytes; in JSON in base64, or in hex by `binary.handling.mode` |
//! | `text[]` | an array of that one text |
//! | `int[]`, `bigint[]` | its bytes, a number each |
//! | `hstore` | an object of it and itself |

use std::fmt;

use memchr::memmem::Finder;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

const PLACEHOLDER: &str = "__debezium_unavailable_value";
const BASE64: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==";
const BASE64_URL: &str = "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ";
const HEX: &str = "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565";
/// How arrays of numbers begin, in JSON.
const NUMBERS: &str = "[95,95,100,101,98,101,122,105,117,109,";
/// The same in Avro: of each number twice as much, the low seven bits first.
const NUMBERS_AVRO: &[u8] = &[
    0xbe, 0x01, 0xbe, 0x01, 0xc8, 0x01, 0xca, 0x01, 0xc4, 0x01, 0xca, 0x01, 0xf4, 0x01, 0xd2, 0x01,
];

/// The same of items that may be null: each behind the number of its branch.
const NULLABLE_NUMBERS_AVRO: &[u8] = &[
    0x02, 0xbe, 0x01, 0x02, 0xbe, 0x01, 0x02, 0xc8, 0x01, 0x02, 0xca, 0x01, 0x02, 0xc4, 0x01, 0x02,
];

/// Finds payloads in which a placeholder may stand: hardly any.
pub(super) struct PlaceholderFinder(Vec<Finder<'static>>);

impl PlaceholderFinder {
    pub(super) fn new() -> Self {
        let needles = [PLACEHOLDER, BASE64_URL, HEX, NUMBERS].map(str::as_bytes);
        let needles = needles.into_iter().chain([NUMBERS_AVRO, NULLABLE_NUMBERS_AVRO]);
        Self(needles.map(Finder::new).collect())
    }

    #[inline]
    pub(super) fn suspect(&self, payload: &[u8]) -> bool {
        self.0.iter().any(|finder| finder.find(payload).is_some())
    }
}

/// Whether a column's value is a placeholder.
pub(super) fn is_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => [PLACEHOLDER, BASE64, BASE64_URL, HEX].contains(&text.as_str()),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] => text == PLACEHOLDER,
            items => {
                let bytes = items.iter().map(Value::as_u64);
                bytes.eq(PLACEHOLDER.bytes().map(|byte| Some(u64::from(byte))))
            }
        },
        Value::Object(entries) => {
            let mut entries = entries.iter();
            let one = entries
                .next()
                .is_some_and(|(key, value)| key == PLACEHOLDER && value == PLACEHOLDER);
            one && entries.next().is_none()
        }
        _ => false,
    }
}

/// The columns of a row, whatever their types: like JSON's own value, which takes no bytes.
#[derive(Debug)]
pub(super) struct RowColumns(pub(super) Value);

impl<'de> Deserialize<'de> for RowColumns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Any.deserialize(deserializer).map(Self)
    }
}

struct Any;

impl<'de> DeserializeSeed<'de> for Any {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(Any)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            all.insert(key, entries.next_value_seed(Any)?);
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use serde_json::json;

    #[test]
    fn placeholders_are_told_from_values() {
        assert_eq!(STANDARD.encode(PLACEHOLDER), BASE64);
        assert_eq!(STANDARD_NO_PAD.encode(PLACEHOLDER), BASE64_URL);
        let hex: String = PLACEHOLDER.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, HEX);
        let numbers: Vec<u8> = PLACEHOLDER.bytes().collect();
        let suspects = PlaceholderFinder::new();
        for value in [
            json!(PLACEHOLDER),
            json!(BASE64),
            json!(HEX),
            json!([PLACEHOLDER]),
            json!(numbers),
            json!({ PLACEHOLDER: PLACEHOLDER }),
        ] {
            assert!(is_placeholder(&value), "{value}");
            assert!(suspects.suspect(value.to_string().as_bytes()), "{value}");
        }
        for value in [
            json!(null),
            json!(""),
            json!([]),
            json!({}),
            json!(format!("{PLACEHOLDER} ")),
            json!([PLACEHOLDER, PLACEHOLDER]),
            json!({ PLACEHOLDER: PLACEHOLDER, "a": 1 }),
            json!(&numbers[1..]),
        ] {
            assert!(!is_placeholder(&value), "{value}");
        }
        assert!(!suspects.suspect(br#"{"note":"debezium","nums":[95,95]}"#));
        let avro: Vec<u8> = numbers.iter().flat_map(|n| [(n << 1) | 0x80, n >> 6]).collect();
        assert!(suspects.suspect(&avro));
        let nullable: Vec<u8> = avro.chunks(2).flat_map(|num| [&[2][..], num].concat()).collect();
        assert!(suspects.suspect(&nullable));
    }
}
