//! From what a client gave to a [`Datum`] of a field's type.
//!
//! Text is read by the type; JSON must be of the form in which the field is written, but integers, floats and options
//! may be given as strings too (`numbers=string` writes them so).

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

use crate::schema::Field;
use crate::schema::datum::Datum;
use crate::schema::types::{Type, Variant};
use crate::time::EventTime;
use crate::view::serve::{Given, ReadError};

/// Reads a value for `field`.
pub fn datum(field: &Field, given: &Given) -> Result<Datum, ReadError> {
    let read = match given {
        Given::Text(text) => of_text(&field.ty, text),
        Given::Json(json) => of_json(&field.ty, json),
    };
    read.ok_or_else(|| ReadError::KeyType {
        field: field.name.clone(),
        expected: field.ty.to_string(),
        got: match given {
            Given::Text(text) => format!("`{}`", shortened(text)),
            Given::Json(json) => shortened(&json.to_string()),
        },
    })
}

/// As much of it as an error message can bear.
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
        Type::Option(inner) if text == "null" && **inner != Type::Text => Some(Datum::Null),
        Type::Option(inner) => of_text(inner, text),
        Type::Enum(variants) => variant(variants, text),
        Type::List(_) | Type::Tuple(_) | Type::Struct(_) | Type::Map(..) => {
            of_json(ty, &serde_json::from_str(text).ok()?)
        }
        Type::Json => Some(match serde_json::from_str(text) {
            Ok(json) => any(&json),
            Err(_) => Datum::Text(text.to_owned()),
        }),
    }
}

fn of_json(ty: &Type, json: &Value) -> Option<Datum> {
    match (ty, json) {
        (Type::Json, _) => Some(any(json)),
        (Type::Unit | Type::Option(_), Value::Null) => Some(Datum::Null),
        (Type::Option(inner), _) => of_json(inner, json),
        (Type::Bool, Value::Bool(value)) => Some(Datum::Bool(*value)),
        (Type::Int(bits), Value::Number(number)) => integer(&number.to_string(), true, *bits),
        (Type::UInt(bits), Value::Number(number)) => integer(&number.to_string(), false, *bits),
        (Type::Float(bits), Value::Number(number)) => float(&number.to_string(), *bits),
        (Type::List(inner), Value::Array(items)) => items
            .iter()
            .map(|item| of_json(inner, item))
            .collect::<Option<_>>()
            .map(Datum::List),
        (Type::Tuple(types), Value::Array(items)) if types.len() == items.len() => types
            .iter()
            .zip(items)
            .map(|(ty, item)| of_json(ty, item))
            .collect::<Option<_>>()
            .map(Datum::List),
        (Type::Struct(fields), Value::Object(members)) if fields.len() == members.len() => {
            let member = |(name, ty): &(&'static str, Type)| Some((*name, of_json(ty, members.get(*name)?)?));
            fields
                .iter()
                .map(member)
                .collect::<Option<_>>()
                .map(Datum::Struct)
        }
        (Type::Map(key, value), Value::Object(members)) => {
            let entry = |(name, item): (&String, &Value)| Some((of_text(key, name)?, of_json(value, item)?));
            let mut entries = members.iter().map(entry).collect::<Option<Vec<_>>>()?;
            entries.sort();
            Some(Datum::Map(entries))
        }
        (
            Type::Int(_)
            | Type::UInt(_)
            | Type::Float(_)
            | Type::Text
            | Type::Bytes
            | Type::Time
            | Type::Enum(_),
            Value::String(text),
        ) => of_text(ty, text),
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
    // Zero has one sign in keys and in filters; an f32 field holds floats that went through f32.
    let value = f64::from_str(text).ok()? + 0.0;
    let value = if value.is_nan() { f64::NAN } else { value };
    Some(Datum::Float(if bits == 32 {
        f64::from(value as f32)
    } else {
        value
    }))
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

/// JSON without a type to go by.
fn any(json: &Value) -> Datum {
    match json {
        Value::Null => Datum::Null,
        Value::Bool(value) => Datum::Bool(*value),
        Value::Number(number) => {
            let text = number.to_string();
            integer(&text, true, 128)
                .or_else(|| float(&text, 64))
                .unwrap_or(Datum::Null)
        }
        Value::String(text) => Datum::Text(text.clone()),
        Value::Array(items) => Datum::List(items.iter().map(any).collect()),
        Value::Object(members) => Datum::Map(
            members
                .iter()
                .map(|(name, item)| (Datum::Text(name.clone()), any(item)))
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(ty: Type, given: impl Into<Given>) -> Option<Datum> {
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
        let error = datum(&field, &Given::from("forty-two")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "field `merchant` is of type u32, got `forty-two`"
        );
    }
}
