//! JSON payloads.
//!
//! Lenient or strict is a choice between two decoders and none within one: leniency costs nothing. Strictness
//! watches what serde passes over, at any depth. A byte order mark before the JSON is passed over.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_ignored::Path;
use serde_json::error::Category;

use super::format::{DecoderResources, Format, Keys};
use super::rows::{RowEncoder, RowEncoding, RowsOf};
use super::{Cause, Decode, Decoded, unmarked};
use crate::error::{Error, Result};
use crate::schema::datum::Datum;
use crate::schema::{Numbers, RowSchema};
use crate::sink::method::Method;
use crate::sink::row::Row;

/// Decodes JSON by serde's rules: fields that `T` lacks are passed over, fields that the JSON lacks need a
/// default.
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// A decoder of `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Json<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        match serde_json::from_slice(unmarked(bytes)) {
            Ok(value) => Decoded::Value(value),
            Err(error) => Decoded::Dead(cause(error.classify()), None),
        }
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        is_null(bytes)
    }
}

/// Decodes JSON whose every field `T` must have, nested ones too. One that it lacks is a
/// [`Cause::JsonUnknownField`] with the field's path, the first in the order of the bytes: `legs[0].venue`.
///
/// What serde reads into a buffer first can't be watched: the fields of a struct with `#[serde(flatten)]`,
/// and of enums that are untagged or have their tag inside.
pub struct Strict<T>(PhantomData<fn() -> T>);

impl<T> Strict<T> {
    /// A decoder of `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Strict<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Strict<T> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        let mut unknown = None;
        let mut json = serde_json::Deserializer::from_slice(unmarked(bytes));
        let read = serde_ignored::deserialize(&mut json, |path| {
            unknown.get_or_insert_with(|| place(&path));
        });
        match (read.and_then(|value| json.end().map(|()| value)), unknown) {
            (Ok(value), None) => Decoded::Value(value),
            (Ok(_), Some(place)) => Decoded::DeadAt(Cause::JsonUnknownField, None, place),
            (Err(error), _) => Decoded::Dead(cause(error.classify()), None),
        }
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        is_null(bytes)
    }
}

/// JSON as a format of sources.
#[derive(Clone, Copy, Debug)]
pub struct JsonFormat {
    /// Whether a field that the type lacks makes a dead letter of the record: see [`Strict`].
    pub strict: bool,
}

impl<T: DeserializeOwned + 'static> Format<T> for JsonFormat {
    fn name(&self) -> &'static str {
        match self.strict {
            false => "json",
            true => "json_strict",
        }
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>> {
        Ok(match self.strict {
            false => Box::new(Json::new()),
            true => Box::new(Strict::new()),
        })
    }

    fn rows(&self, method: Method) -> Option<RowEncoding> {
        Some(RowEncoding {
            check: Arc::new(|_| Ok(())),
            encoder: Arc::new(move |of: &RowsOf<'_>| {
                let schema = of.schema.clone();
                Ok(Box::new(JsonRows { method, schema }))
            }),
        })
    }

    fn keys(&self) -> Keys {
        Keys::Json { strict: self.strict }
    }
}

/// Writes rows as JSON.
struct JsonRows {
    method: Method,
    schema: Arc<RowSchema>,
}

impl RowEncoder for JsonRows {
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        if row.place().is_some() {
            return Ok(false);
        }
        let written = self.schema.write_record_key(row.key(), Numbers::Exact, out);
        written.then_some(true).ok_or_else(unreadable)
    }

    fn payload(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        let written = match self.method {
            Method::AppendTo => {
                let event = row.after().ok_or_else(unreadable)?;
                self.schema.write_value(event, Numbers::Exact, out)
            }
            Method::ChangesTo | Method::ForEachEpoch => self.change(row, out),
            Method::UpsertTo if row.after().is_none() => return Ok(false),
            Method::UpsertTo => match row.fields(&self.schema) {
                Some(fields) => {
                    self.schema.write_row(&fields, Numbers::Exact, out);
                    true
                }
                None => false,
            },
        };
        written.then_some(true).ok_or_else(unreadable)
    }
}

impl JsonRows {
    /// What a row was and what it is; of a collection, where rows have no before, only what it is.
    fn change(&self, row: &Row, out: &mut Vec<u8>) -> bool {
        let mut side = |name: &str, bytes: Option<&[u8]>, fields: Option<Vec<Datum>>| {
            out.extend_from_slice(name.as_bytes());
            match (bytes, fields) {
                (None, _) => out.extend_from_slice(b"null"),
                (Some(_), Some(fields)) => self.schema.write_row(&fields, Numbers::Exact, out),
                (Some(_), None) => return false,
            }
            true
        };
        let before = side(r#"{"before":"#, row.before(), row.fields_before(&self.schema));
        let after = side(r#","after":"#, row.after(), row.fields(&self.schema));
        out.push(b'}');
        before && after
    }
}

#[cold]
fn unreadable() -> Error {
    Error::internal("a row of a sink can't be decoded")
}

/// Whether the JSON is `null`, white space around it or not.
#[cold]
fn is_null(bytes: &[u8]) -> bool {
    serde_json::from_slice::<()>(unmarked(bytes)).is_ok()
}

/// Longer paths are cut: a name may be as long as the payload.
const PLACE_BYTES_MAX: usize = 256;

/// The path of a field as a person writes it.
fn place(path: &Path<'_>) -> Box<str> {
    fn write(path: &Path<'_>, out: &mut String) {
        use std::fmt::Write;
        match path {
            Path::Root => {}
            Path::Seq { parent, index } => {
                write(parent, out);
                // A string takes everything.
                let _infallible = write!(out, "[{index}]");
            }
            Path::Map { parent, key } => {
                write(parent, out);
                out.push_str(if out.is_empty() { "" } else { "." });
                out.push_str(key);
            }
            Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
                write(parent, out)
            }
        }
    }
    let mut text = String::new();
    write(path, &mut text);
    if text.len() > PLACE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(PLACE_BYTES_MAX));
        text.push('…');
    }
    text.into()
}

/// `Io` can't happen with a slice.
fn cause(category: Category) -> Cause {
    match category {
        Category::Data => Cause::JsonType,
        Category::Syntax | Category::Eof | Category::Io => Cause::JsonSyntax,
    }
}

/// Appends `value` as JSON to `out`. Fails for what JSON can't hold, such as a map whose keys are no scalars.
pub fn encode_into<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    serde_json::to_writer(out, value)
        .map_err(|error| Error::definition("cannot write a value as JSON").detail(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Payment {
        id: u64,
        note: Option<String>,
    }

    fn decode(bytes: &[u8]) -> Result<Payment, Cause> {
        match Json::new().decode(bytes) {
            Decoded::Value(value) => Ok(value),
            Decoded::Dead(cause, None) => Err(cause),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn floats_are_not_taken_for_their_neighbours() {
        for text in [
            "1.5777777777770001",
            "0.1",
            "1.7976931348623157e308",
            "5e-324",
            "123456789.123456789",
        ] {
            let value: f64 = text.parse().unwrap();
            assert_eq!(serde_json::from_str::<f64>(text).unwrap(), value, "{text}");
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(text).unwrap().as_f64(),
                Some(value),
                "{text}"
            );
        }
    }

    #[test]
    fn tells_what_is_no_json_from_what_does_not_fit() {
        assert_eq!(
            decode(br#"{"id":7,"more":[1]}"#),
            Ok(Payment { id: 7, note: None })
        );
        assert_eq!(decode(br#"{"id":7"#), Err(Cause::JsonSyntax));
        assert_eq!(decode(b""), Err(Cause::JsonSyntax));
        assert_eq!(decode(b"{\"id\":7} x"), Err(Cause::JsonSyntax));
        assert_eq!(decode(br#"{"id":-7}"#), Err(Cause::JsonType));
        assert_eq!(decode(br#"{"note":"a"}"#), Err(Cause::JsonType));
        assert_eq!(decode(&[b'['; 100_000]), Err(Cause::JsonType));
        assert_eq!(
            decode(b"{\"more\":".repeat(100_000).as_slice()),
            Err(Cause::JsonSyntax)
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_json() {
        let seven = Ok(Payment { id: 7, note: None });
        assert_eq!(decode(b"\xEF\xBB\xBF{\"id\":7}"), seven);
        assert_eq!(decode(b"\xEF\xBB\xBF \r\n{\"id\":7}\r\n"), seven);
        assert_eq!(decode(b"\xEF\xBB\xBF"), Err(Cause::JsonSyntax));
        // Once, and whole, and nowhere else.
        assert_eq!(
            decode(b"\xEF\xBB\xBF\xEF\xBB\xBF{\"id\":7}"),
            Err(Cause::JsonSyntax)
        );
        assert_eq!(decode(b"\xEF\xBB{\"id\":7}"), Err(Cause::JsonSyntax));
        assert_eq!(decode(b"{\"id\":7}\xEF\xBB\xBF"), Err(Cause::JsonSyntax));
        assert_eq!(strict(b"\xEF\xBB\xBF{\"id\":1}").map(|order| order.id), Ok(1));
        assert_eq!(strict(b"\xEF\xBB\xBF{\"id\":1,\"x\":2}").unwrap_err(), "x");
    }

    #[test]
    fn null_is_told_from_all_else() {
        for null in [&b"null"[..], b" \t\r\nnull\n", b"\xEF\xBB\xBFnull"] {
            assert!(Json::<Payment>::new().is_null(null) && Strict::<Payment>::new().is_null(null));
        }
        for other in [
            &b""[..],
            b" ",
            b"nul",
            b"null null",
            b"\"null\"",
            b"[null]",
            b"0",
            b"NULL",
        ] {
            assert!(!Json::<Payment>::new().is_null(other) && !Strict::<Payment>::new().is_null(other));
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Order {
        id: u64,
        #[serde(rename = "to")]
        address: Option<Address>,
        #[serde(default)]
        legs: Vec<Leg>,
        #[serde(default)]
        prices: std::collections::BTreeMap<String, Leg>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Address {
        zip: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Leg {
        Bought { cents: i64 },
        Sold(Address),
    }

    fn strict(bytes: &[u8]) -> Result<Order, String> {
        match Strict::new().decode(bytes) {
            Decoded::Value(value) => Ok(value),
            Decoded::Dead(cause, None) => Err(cause.code().to_owned()),
            Decoded::DeadAt(Cause::JsonUnknownField, None, place) => Err(place.into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn strictness_names_the_first_field_that_is_not_known() {
        let good = br#"{"id":1,"to":{"zip":"8000"},"legs":[{"Bought":{"cents":3}}],"prices":{"a b":{"Sold":{"zip":""}}}}"#;
        assert!(strict(good).is_ok());
        let named = |json: &str| strict(json.as_bytes()).unwrap_err();
        assert_eq!(named(r#"{"id":1,"note":null,"more":2}"#), "note");
        assert_eq!(
            named(r#"{"id":1,"to":{"zip":"","street":{"a":[1]}}}"#),
            "to.street"
        );
        assert_eq!(
            named(r#"{"legs":[{"Bought":{"cents":1}},{"Bought":{"cents":1,"fee":2}}],"id":1}"#),
            "legs[1].fee"
        );
        assert_eq!(
            named(r#"{"id":1,"prices":{"x":{"Sold":{"zip":"","q":1}}}}"#),
            "prices.x.q"
        );
        // What is worse is said first.
        assert_eq!(named(r#"{"id":1,"note":1"#), "json_syntax");
        assert_eq!(named(r#"{"id":1,"note":1} x"#), "json_syntax");
        assert_eq!(named(r#"{"id":-1,"note":1}"#), "json_type");
        let long = format!(r#"{{"id":1,"{}":1}}"#, "é".repeat(100_000));
        assert!(named(&long).len() < 300);
    }

    proptest! {
        #[test]
        fn strictness_never_panics_and_takes_what_leniency_takes(bytes: Vec<u8>, extra in "[a-z]{1,8}") {
            let _any = strict(&bytes);
            let json = format!(r#"{{"id":1,"x{extra}":[{{"a":{{}}}}]}}"#);
            prop_assert_eq!(strict(json.as_bytes()).unwrap_err(), format!("x{extra}"));
        }

        #[test]
        fn gives_back_what_was_written(id: u64, note: Option<String>) {
            let mut bytes = Vec::new();
            encode_into(&Payment { id, note: note.clone() }, &mut bytes).unwrap();
            prop_assert_eq!(decode(&bytes), Ok(Payment { id, note }));
        }

        /// Also by way of a buffer, as serde reads what it has to look at first.
        #[test]
        fn floats_are_read_to_the_last_bit(wide: u64, narrow: u32) {
            let (wide, narrow) = (f64::from_bits(wide), f32::from_bits(narrow));
            prop_assume!(wide.is_finite() && narrow.is_finite());
            let json = serde_json::to_string(&(wide, narrow)).unwrap();
            let value: serde_json::Value = serde_json::from_str(&json).unwrap();
            let read: [(f64, f32); 2] = [
                serde_json::from_str(&json).unwrap(),
                serde_json::from_value(value).unwrap(),
            ];
            for (a, b) in read {
                prop_assert_eq!((a.to_bits(), b.to_bits()), (wide.to_bits(), narrow.to_bits()), "{}", &json);
            }
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _any = decode(&bytes);
        }
    }
}
