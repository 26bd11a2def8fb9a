//! Parses client input into a [`Datum`] of a field's type: one parser for query strings, bodies and keys.
//!
//! Text is parsed by the type. JSON must have the form in which the field is written, except that a string
//! may represent any value: it is parsed like the text of a query string (`numbers=string` writes integers
//! that way). Numbers are parsed from their digits, in text and JSON alike, so none is rounded on its way to
//! the field's type: an integer has neither fraction nor exponent, and a float that is too large for its type
//! is rejected instead of becoming infinity.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::schema::Field;
use crate::schema::datum::Datum;
use crate::schema::types::{Type, Variant};
use crate::time::EventTime;
use crate::view::serve::{GivenValue, ReadError};

/// Parses a value for `field`.
pub(crate) fn datum(field: &Field, given: &GivenValue) -> Result<Datum, ReadError> {
    let (read, text) = match given {
        GivenValue::Text(text) => (of_text(&field.ty, text), text),
        GivenValue::Json(json) => (Json::of(json).and_then(|json| of_json(&field.ty, json)), json),
    };
    read.ok_or_else(|| ReadError::KeyType {
        field: field.name.clone(),
        expected: field.ty.to_string(),
        got: format!("`{}`", shortened(text)),
    })
}

/// Truncates a text to what an error message can include.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn of_text(ty: &Type, text: &str) -> Option<Datum> {
    match ty {
        Type::Unit => (text.is_empty() || text == "null").then_some(Datum::Null),
        Type::Bool => text.parse().ok().map(Datum::Bool),
        Type::Int(bits) => integer(text, true, *bits),
        Type::UInt(bits) => integer(text, false, *bits),
        Type::Float(bits) => float(text, *bits),
        Type::Text => Some(Datum::Text(text.to_owned())),
        Type::Bytes => bytes(text),
        Type::Time => time(text),
        // Text is text, also when it says null.
        Type::Option(inner) | Type::Default(inner) if text == "null" && **inner != Type::Text => {
            Some(Datum::Null)
        }
        Type::Option(inner) | Type::Default(inner) => of_text(inner, text),
        Type::Enum(variants) => variant(variants, text),
        Type::List(_) | Type::Tuple(_) | Type::Struct(_) | Type::Map(..) => of_json(ty, Json::of(text)?),
        Type::Json => match Json::of(text) {
            Some(json) => any(json, DEPTH_MAX),
            None => Some(Datum::Text(text.to_owned())),
        },
    }
}

/// One level of a JSON value: nested values stay text, so that numbers keep their digits.
enum Json<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(String),
    List(Vec<&'a RawValue>),
    Object(Vec<(String, &'a RawValue)>),
}

impl<'a> Json<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let json = serde_json::from_str::<&RawValue>(text).ok()?.get();
        Some(match json.as_bytes().first()? {
            b'n' => Json::Null,
            b't' => Json::Bool(true),
            b'f' => Json::Bool(false),
            b'"' => Json::Text(serde_json::from_str(json).ok()?),
            b'[' => Json::List(serde_json::from_str(json).ok()?),
            b'{' => Json::Object(serde_json::from_str::<Members<_>>(json).ok()?.0),
            _ => Json::Number(json),
        })
    }
}

/// The members of a JSON object as written, including duplicate names.
pub(crate) struct Members<T>(pub(crate) Vec<(String, T)>);

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for All<T> {
            type Value = Members<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<T>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All(PhantomData))
    }
}

fn of_json(ty: &Type, json: Json<'_>) -> Option<Datum> {
    let below = |ty: &Type, json: &RawValue| of_json(ty, Json::of(json.get())?);
    match (ty, json) {
        (Type::Json, json) => any(json, DEPTH_MAX),
        (Type::Unit | Type::Option(_) | Type::Default(_), Json::Null) => Some(Datum::Null),
        (Type::Option(inner) | Type::Default(inner), json) if **inner == Type::Json => any(json, DEPTH_MAX),
        (_, Json::Text(text)) => of_text(ty, &text),
        (Type::Option(inner) | Type::Default(inner), json) => of_json(inner, json),
        (Type::Bool, Json::Bool(value)) => Some(Datum::Bool(value)),
        (Type::Int(_) | Type::UInt(_) | Type::Float(_), Json::Number(digits)) => of_text(ty, digits),
        (Type::List(inner), Json::List(items)) => items
            .into_iter()
            .map(|item| below(inner, item))
            .collect::<Option<_>>()
            .map(Datum::List),
        (Type::Tuple(types), Json::List(items)) if types.len() == items.len() => types
            .iter()
            .zip(items)
            .map(|(ty, item)| below(ty, item))
            .collect::<Option<_>>()
            .map(Datum::List),
        (Type::Struct(fields), Json::Object(members)) if fields.len() == members.len() => {
            let member = |(name, ty): &(&'static str, Type)| {
                let (_, json) = members.iter().find(|(other, _)| other == name)?;
                Some((*name, below(ty, json)?))
            };
            fields
                .iter()
                .map(member)
                .collect::<Option<_>>()
                .map(Datum::Struct)
        }
        (Type::Map(key, value), Json::Object(members)) => {
            let entry = |(name, item): (String, &RawValue)| Some((of_text(key, &name)?, below(value, item)?));
            let mut entries = members.into_iter().map(entry).collect::<Option<Vec<_>>>()?;
            entries.sort();
            let distinct = entries.windows(2).all(|pair| pair[0].0 != pair[1].0);
            distinct.then_some(Datum::Map(entries))
        }
        _ => None,
    }
}

fn integer(text: &str, signed: bool, bits: u8) -> Option<Datum> {
    let beyond =
        |value: i128| bits < 128 && value >> (bits - u8::from(signed)) != if value < 0 { -1 } else { 0 };
    match i128::from_str(text) {
        Ok(value) if beyond(value) || (!signed && value < 0) => None,
        Ok(value) => Some(Datum::Int(value)),
        Err(_) if !signed && bits == 128 => u128::from_str(text).ok().map(Datum::from),
        Err(_) => None,
    }
}

fn float(text: &str, bits: u8) -> Option<Datum> {
    // Going through f64 would round an f32 twice.
    let value = match bits {
        32 => f32::from_str(text).ok()?.into(),
        _ => f64::from_str(text).ok()?,
    };
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit());
    (value.is_finite() || !is_number).then(|| Datum::float(value))
}

fn bytes(text: &str) -> Option<Datum> {
    let decoded = STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')));
    decoded.ok().map(Datum::Bytes)
}

fn time(text: &str) -> Option<Datum> {
    Some(Datum::Time(match text {
        "-inf" => EventTime::MIN,
        "+inf" | "inf" => EventTime::MAX,
        _ => text.parse().ok()?,
    }))
}

fn variant(variants: &[Variant], text: &str) -> Option<Datum> {
    let index = variants.iter().position(|variant| variant.name == text)?;
    variants[index]
        .content
        .is_none()
        .then(|| Datum::Variant(index as u32, text.to_owned().into(), None))
}

/// The same limit as serde_json's: each level is parsed once more.
const DEPTH_MAX: usize = 128;

/// JSON without a type to guide parsing.
fn any(json: Json<'_>, depth: usize) -> Option<Datum> {
    let depth = depth.checked_sub(1)?;
    let below = |json: &RawValue| any(Json::of(json.get())?, depth);
    Some(match json {
        Json::Null => Datum::Null,
        Json::Bool(value) => Datum::Bool(value),
        Json::Number(digits) => integer(digits, true, 128)
            .or_else(|| integer(digits, false, 128))
            .or_else(|| float(digits, 64))?,
        Json::Text(text) => Datum::Text(text),
        Json::List(items) => Datum::List(items.into_iter().map(below).collect::<Option<_>>()?),
        Json::Object(members) => {
            let member = |(name, item)| Some((Datum::Text(name), below(item)?));
            Datum::Map(members.into_iter().map(member).collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::schema::types::Variant;
    use crate::schema::{Numbers, json};

    fn read(ty: Type, given: impl Into<GivenValue>) -> Option<Datum> {
        datum(&Field { name: "f".into(), ty }, &given.into()).ok()
    }

    #[test]
    fn integers_keep_to_their_width() {
        assert_eq!(read(Type::Int(8), "-128"), Some(Datum::Int(-128)));
        assert_eq!(read(Type::Int(8), "128"), None);
        assert_eq!(read(Type::UInt(8), "255"), Some(Datum::Int(255)));
        assert_eq!(read(Type::UInt(8), "256"), None);
        assert_eq!(read(Type::UInt(64), "-1"), None);
        assert_eq!(
            read(Type::UInt(128), u128::MAX.to_string()),
            Some(Datum::UInt(u128::MAX))
        );
        assert_eq!(
            read(Type::Int(128), i128::MIN.to_string()),
            Some(Datum::Int(i128::MIN))
        );
        assert_eq!(read(Type::UInt(32), json!(42)), Some(Datum::Int(42)));
        assert_eq!(read(Type::UInt(32), json!("42")), Some(Datum::Int(42)));
        assert_eq!(read(Type::UInt(32), json!(4.2)), None);
    }

    #[test]
    fn other_types_read_the_form_they_are_written_in() {
        let at: EventTime = "2026-11-23T03:00:00.5Z".parse().unwrap();
        assert_eq!(
            read(Type::Time, "2026-11-23T03:00:00.500Z"),
            Some(Datum::Time(at))
        );
        assert_eq!(read(Type::Float(64), "NaN"), Some(Datum::Float(f64::NAN)));
        assert_eq!(
            read(Type::Float(64), json!("-Infinity")),
            Some(Datum::Float(f64::NEG_INFINITY))
        );
        assert_eq!(read(Type::Float(64), "-0"), Some(Datum::Float(0.0)));
        assert_eq!(read(Type::Bytes, "AP8="), Some(Datum::Bytes(vec![0, 255])));
        assert_eq!(
            read(Type::Option(Box::new(Type::Text)), "null"),
            Some(Datum::Text("null".into()))
        );
        assert_eq!(
            read(Type::Option(Box::new(Type::Text)), json!(null)),
            Some(Datum::Null)
        );
        let variants = ["A", "B"].map(|name| Variant { name, content: None });
        assert_eq!(
            read(Type::Enum(variants.to_vec()), "B"),
            Some(Datum::Variant(1, "B".into(), None))
        );
        assert_eq!(
            read(Type::Tuple(vec![Type::Bool, Type::Text]), "[true, \"x\"]"),
            Some(Datum::List(vec![Datum::Bool(true), Datum::Text("x".into())]))
        );
    }

    #[test]
    fn an_error_names_field_type_and_value() {
        let field = Field {
            name: "merchant".into(),
            ty: Type::UInt(32),
        };
        let error = datum(&field, &GivenValue::from("forty-two")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "field `merchant` is of type u32, got `forty-two`"
        );
    }

    fn json_of(text: &str) -> GivenValue {
        GivenValue::Json(text.to_owned())
    }

    /// What a query string contains, a body can express as a string, and as a number where it is one.
    #[test]
    fn text_and_json_agree() {
        let numbers = [8, 16, 32, 64, 128]
            .into_iter()
            .flat_map(|bits| [Type::Int(bits), Type::UInt(bits)]);
        let numbers = numbers.chain([Type::Float(32), Type::Float(64)]);
        let others = [
            Type::Unit,
            Type::Bool,
            Type::Text,
            Type::Bytes,
            Type::Time,
            Type::Enum(
                ["A", "Infinity"]
                    .map(|name| Variant { name, content: None })
                    .into(),
            ),
            Type::List(Box::new(Type::Int(128))),
            Type::Map(Box::new(Type::UInt(64)), Box::new(Type::Float(32))),
        ];
        let types: Vec<_> = numbers
            .chain(others)
            .flat_map(|ty| [ty.clone(), Type::Option(Box::new(ty))])
            .collect();
        let texts = "0|-0|1|-1|007|+5|127|128|-128|-129|255|256|18446744073709551615|18446744073709551616|\
            55340232221128655000|-55340232221128655000|170141183460469231731687303715884105727|\
            170141183460469231731687303715884105728|-170141183460469231731687303715884105728|\
            340282366920938463463374607431768211455|340282366920938463463374607431768211456|1e3|1E+2|\
            5.0|-5.5|0.1|1.5777777777770001|1e39|-1e39|1e308|1e309|1e-400|NaN|nan|Infinity|-Infinity|\
            inf|null|true|false||A|a b|AP8=|2026-11-23T03:00:00Z|-inf|[1,2]|[18446744073709551616]|\
            [1e3]|{\"1\":0.1}|{\"1\":0.1,\"1\":0.2}|\"x\"| 1|1 |0x10|1_0";
        for ty in &types {
            for text in texts.split('|') {
                let given = read(ty.clone(), text);
                let quoted = read(ty.clone(), json_of(&json!(text).to_string()));
                assert_eq!(given, quoted, "`{text}` as {ty}");
                let number = serde_json::from_str::<serde_json::Number>(text).is_ok() || text.contains("e3");
                let plain = match ty {
                    Type::Option(inner) => inner,
                    ty => ty,
                };
                if number
                    && matches!(plain, Type::Int(_) | Type::UInt(_) | Type::Float(_))
                    && text.trim() == text
                {
                    assert_eq!(given, read(ty.clone(), json_of(text)), "{text} as {ty}");
                }
            }
        }
    }

    #[test]
    fn numbers_are_those_of_the_type_or_none() {
        let large = "55340232221128655000";
        let datum = Datum::Int(55_340_232_221_128_655_000);
        let value = Some(datum.clone());
        for given in [
            GivenValue::from(large),
            json_of(large),
            json_of(&format!("\"{large}\"")),
        ] {
            assert_eq!(read(Type::Int(128), given.clone()), value);
            assert_eq!(read(Type::UInt(64), given.clone()), None);
            // Even if a type's values are only known by their JSON, and nested inside others.
            assert_eq!(
                read(Type::Json, given.clone()) == value,
                given != json_of(&format!("\"{large}\""))
            );
        }
        let list = Type::List(Box::new(Type::Int(128)));
        assert_eq!(
            read(list, json_of(&format!("[{large}]"))),
            Some(Datum::List(vec![datum]))
        );
        for (ty, text) in [
            (Type::Int(64), "5.0"),
            (Type::Int(64), "1e3"),
            (Type::Float(64), "1e309"),
            (Type::Float(32), "1e39"),
            (Type::Bool, "1"),
        ] {
            assert_eq!(read(ty.clone(), text), None, "{text} as {ty}");
            assert_eq!(read(ty.clone(), json_of(text)), None, "{text} as {ty}");
        }
        // Rounded once: going through f64, this would be 1.
        assert_eq!(
            read(Type::Float(32), "1.00000005960464477540"),
            Some(Datum::Float((1.0f32 + f32::EPSILON).into()))
        );
        assert_eq!(
            read(Type::Float(32), json_of("1.00000005960464477540")),
            read(Type::Float(32), "1.0000001")
        );
        assert_eq!(read(Type::Text, json_of("5")), None, "a text is a string");
        assert_eq!(
            read(
                Type::Map(Box::new(Type::Text), Box::new(Type::Bool)),
                json_of(r#"{"a":true,"a":false}"#)
            ),
            None
        );
        assert_eq!(read(Type::Int(8), json_of("1 2")), None);
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(read(Type::Json, json_of(&deep)), None);
    }

    proptest! {
        /// What is served finds the row that it was served from, to the last bit.
        #[test]
        fn floats_are_read_as_they_are_written(wide: u64, narrow: u32) {
            let (wide, narrow) = (f64::from_bits(wide), f32::from_bits(narrow));
            for (bits, float) in [(64, wide), (32, f64::from(narrow))] {
                let (ty, datum) = (Type::Float(bits), Datum::float(float));
                let mut out = Vec::new();
                let numbers = Numbers::default();
                let shown = json::ShownValue { ty: &ty, datum: &datum, numbers };
                serde_json::to_writer(&mut out, &shown).unwrap();
                let written = String::from_utf8(out).unwrap();
                prop_assert_eq!(read(ty.clone(), json_of(&written)), Some(datum.clone()), "{}", &written);
                prop_assert_eq!(read(ty, written.trim_matches('"')), Some(datum), "{}", &written);
            }
        }

        #[test]
        fn integers_are_read_as_they_are_written(signed: i128, unsigned: u128) {
            let json = json_of(&signed.to_string());
            prop_assert_eq!(read(Type::Int(128), json.clone()), Some(Datum::Int(signed)));
            prop_assert_eq!(read(Type::Json, json), Some(Datum::Int(signed)));
            let json = json_of(&unsigned.to_string());
            prop_assert_eq!(read(Type::UInt(128), json.clone()), Some(Datum::from(unsigned)));
            prop_assert_eq!(read(Type::Json, json), Some(Datum::from(unsigned)));
        }

        #[test]
        fn reading_never_panics(text in ".{0,40}|[-+0-9.eE\\[\\]{}\":, a-z]{0,30}") {
            let list = Type::List(Box::new(Type::Time));
            for ty in [Type::Json, Type::Int(128), Type::Float(32), list, Type::Bytes] {
                let _any = (read(ty.clone(), text.as_str()), read(ty, json_of(&text)));
            }
        }
    }
}
