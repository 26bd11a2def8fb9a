//! Rows as JSON. The form follows a field's type, never a value's magnitude.
//!
//! Integers of any width are numbers (strings from 64 bits up, if asked), floats are the shortest that reads back the
//! same, `"NaN"`, `"Infinity"` and `"-Infinity"` are strings; bytes are base64 (standard alphabet, padded); times are
//! RFC 3339 in UTC with as many fractional digits as the microseconds take (0 to 6), and
//! `"-inf"`, `"+inf"` outside the calendar; a variant without data is its name, one with data an object of one member.

use std::collections::BTreeMap;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::schema::datum::Datum;
use crate::schema::types::Type;
use crate::schema::{Field, Numbers};

/// Writes fields and datums pair by pair as an object; stops at the shorter.
pub fn object<'a>(
    fields: impl Iterator<Item = &'a Field>,
    row: &[Datum],
    numbers: Numbers,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    for (i, (field, datum)) in fields.zip(row).enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(&field.name, out);
        out.push(b':');
        value(&field.ty, datum, numbers, out);
    }
    out.push(b'}');
}

/// Writes one value.
pub fn value(ty: &Type, datum: &Datum, numbers: Numbers, out: &mut Vec<u8>) {
    match (ty, datum) {
        (Type::Option(inner), _) => value(inner, datum, numbers, out),
        (Type::Int(bits) | Type::UInt(bits), Datum::Int(_) | Datum::UInt(_)) => {
            let quoted = *bits >= 64 && numbers == Numbers::Strings;
            integer(datum, quoted, out);
        }
        (Type::Float(32), Datum::Float(float)) if float.is_finite() => put(out, *float as f32),
        (Type::List(inner), Datum::List(items)) => {
            list(items.iter(), out, |item, out| value(inner, item, numbers, out));
        }
        (Type::Tuple(types), Datum::List(items)) if types.len() == items.len() => {
            list(types.iter().zip(items), out, |(ty, item), out| {
                value(ty, item, numbers, out)
            });
        }
        (Type::Struct(fields), Datum::Struct(members)) => {
            let typed = |name: &str| fields.iter().find(|(other, _)| *other == name).map(|(_, ty)| ty);
            members_of(
                members.iter().map(|(name, datum)| (*name, datum)),
                out,
                |name, datum, out| {
                    value(typed(name).unwrap_or(&Type::Json), datum, numbers, out);
                },
            );
        }
        (Type::Map(_, inner), Datum::Map(entries)) => {
            map(entries, out, |item, out| value(inner, item, numbers, out));
        }
        (Type::Enum(variants), Datum::Variant(index, name, Some(held))) => {
            let known = variants.get(*index as usize);
            let content = known.and_then(|variant| variant.content.as_ref());
            members_of(std::iter::once((&**name, &**held)), out, |_, item, out| {
                value(content.unwrap_or(&Type::Json), item, numbers, out);
            });
        }
        _ => untyped(datum, out),
    }
}

fn untyped(datum: &Datum, out: &mut Vec<u8>) {
    let any = |item: &Datum, out: &mut Vec<u8>| untyped(item, out);
    match datum {
        Datum::Null => out.extend_from_slice(b"null"),
        Datum::Bool(value) => put(out, value),
        Datum::Int(_) | Datum::UInt(_) => integer(datum, false, out),
        Datum::Float(value) if value.is_finite() => put(out, value),
        Datum::Float(value) => text(non_finite(*value), out),
        Datum::Time(time) => text(&time.to_string(), out),
        Datum::Text(value) => text(value, out),
        Datum::Bytes(bytes) => text(&STANDARD.encode(bytes), out),
        Datum::Variant(_, name, None) => text(name, out),
        Datum::Variant(_, name, Some(held)) => {
            members_of(std::iter::once((&**name, &**held)), out, |_, item, out| {
                any(item, out)
            });
        }
        Datum::List(items) => list(items.iter(), out, any),
        Datum::Struct(members) => {
            members_of(
                members.iter().map(|(name, item)| (*name, item)),
                out,
                |_, item, out| any(item, out),
            );
        }
        Datum::Map(entries) => map(entries, out, any),
    }
}

/// The datum that stands for all those that are shown as the same JSON, whatever the order of members.
pub fn as_shown(datum: &Datum) -> Datum {
    match datum {
        Datum::Null | Datum::Bool(_) | Datum::Int(_) | Datum::UInt(_) | Datum::Text(_) => datum.clone(),
        Datum::Float(value) if value.is_finite() => datum.clone(),
        Datum::Float(value) => Datum::Text(non_finite(*value).into()),
        Datum::Time(time) => Datum::Text(time.to_string()),
        Datum::Bytes(bytes) => Datum::Text(STANDARD.encode(bytes)),
        Datum::Variant(_, name, None) => Datum::Text(name.to_string()),
        Datum::Variant(_, name, Some(held)) => object_of([(name.to_string(), as_shown(held))].into()),
        Datum::List(items) => Datum::List(items.iter().map(as_shown).collect()),
        Datum::Struct(members) => {
            let members = members.iter();
            object_of(
                members
                    .map(|(name, item)| ((*name).to_owned(), as_shown(item)))
                    .collect(),
            )
        }
        Datum::Map(entries) => {
            let entries = entries.iter();
            object_of(
                entries
                    .map(|(key, item)| (name_of(key), as_shown(item)))
                    .collect(),
            )
        }
    }
}

fn object_of(members: BTreeMap<String, Datum>) -> Datum {
    let members = members.into_iter();
    Datum::Map(members.map(|(name, item)| (Datum::Text(name), item)).collect())
}

/// Names in JSON are strings: a key that is none is named by the JSON that it would be.
fn name_of(key: &Datum) -> String {
    if let Datum::Text(name) = as_shown(key) {
        return name;
    }
    let mut name = Vec::new();
    untyped(key, &mut name);
    String::from_utf8_lossy(&name).into_owned()
}

/// How floats that JSON has no number for are written and read.
pub fn non_finite(value: f64) -> &'static str {
    match value {
        _ if value.is_nan() => "NaN",
        _ if value > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

fn integer(datum: &Datum, quoted: bool, out: &mut Vec<u8>) {
    if quoted {
        out.push(b'"');
    }
    // Writing to a Vec can't fail.
    let _ = match datum {
        Datum::UInt(value) => write!(out, "{value}"),
        Datum::Int(value) => write!(out, "{value}"),
        _ => Ok(()),
    };
    if quoted {
        out.push(b'"');
    }
}

fn list<T>(items: impl Iterator<Item = T>, out: &mut Vec<u8>, mut write: impl FnMut(T, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

fn members_of<'a>(
    members: impl Iterator<Item = (&'a str, &'a Datum)>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&str, &Datum, &mut Vec<u8>),
) {
    out.push(b'{');
    for (i, (name, datum)) in members.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(name, out);
        out.push(b':');
        write(name, datum, out);
    }
    out.push(b'}');
}

fn map(entries: &[(Datum, Datum)], out: &mut Vec<u8>, mut write: impl FnMut(&Datum, &mut Vec<u8>)) {
    out.push(b'{');
    for (i, (key, datum)) in entries.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        text(&name_of(key), out);
        out.push(b':');
        write(datum, out);
    }
    out.push(b'}');
}

fn text(value: &str, out: &mut Vec<u8>) {
    put(out, value);
}

/// A scalar as serde_json writes it; into a Vec that can't fail.
fn put(out: &mut Vec<u8>, value: impl serde::Serialize) {
    let _ = serde_json::to_writer(out, &value);
}
