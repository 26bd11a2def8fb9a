//! The Avro schema of a row, and how its fields are written in it.
//!
//! | Rust | Avro |
//! |---|---|
//! | `bool` | `boolean` |
//! | `i8` to `i32`, `u8`, `u16` | `int` |
//! | `i64`, `u32` | `long` |
//! | `u64`; `i128`, `u128` | `bytes`, `decimal(20, 0)`; `decimal(39, 0)` |
//! | `f32`; `f64`, `F64` | `float`; `double` |
//! | `String`, `char` | `string` |
//! | bytes (`serde_bytes`) | `bytes` |
//! | `EventTime` | `long`, `timestamp-micros` |
//! | `Option<T>`, a field with `#[serde(default)]` | union of `null` and `T`, with null as its default |
//! | `Vec<T>` | `array` |
//! | a map of strings; any other map | `map`; `array` of records with `key` and `value` |
//! | a tuple | a record with the fields `field_0`, `field_1` … |
//! | a struct | a record |
//! | an enum without contents | `enum` |

use serde_json::{Value, json};

use crate::codec::avro::long::write_long;
use crate::error::{Error, Result};
use crate::schema::datum::Datum;
use crate::schema::types::{Type, Variant};

/// How a value is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Null,
    Bool,
    /// `int` and `long` alike.
    Long,
    Decimal,
    Float,
    Double,
    Text,
    Bytes,
    Time,
    Enum,
    Optional(Box<Shape>),
    Array(Box<Shape>),
    Map(Box<Shape>),
    /// A map whose keys are no strings: records of key and value.
    Pairs(Box<Shape>, Box<Shape>),
    Record(Vec<Shape>),
}

/// Makes schema and shape of a type that stands at a path: `Row_legs`. Records and enums are named by it.
pub(super) fn shape(ty: &Type, path: &str) -> Result<(Value, Shape)> {
    let plain = |name: &str, shape| Ok((json!(name), shape));
    let logical =
        |kind: &str, logical: &str, shape| Ok((json!({ "type": kind, "logicalType": logical }), shape));
    let decimal = |precision: u32| {
        let schema = json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 0 });
        Ok((schema, Shape::Decimal))
    };
    match ty {
        Type::Unit => plain("null", Shape::Null),
        Type::Bool => plain("boolean", Shape::Bool),
        Type::Int(8..=32) | Type::UInt(8..=16) => plain("int", Shape::Long),
        Type::Int(64) | Type::UInt(32) => plain("long", Shape::Long),
        Type::UInt(64) => decimal(20),
        Type::Int(_) | Type::UInt(_) => decimal(39),
        Type::Float(32) => plain("float", Shape::Float),
        Type::Float(_) => plain("double", Shape::Double),
        Type::Text => plain("string", Shape::Text),
        Type::Bytes => plain("bytes", Shape::Bytes),
        Type::Time => logical("long", "timestamp-micros", Shape::Time),
        Type::Option(inner) | Type::Default(inner) => {
            let (schema, shape) = shape(inner, path)?;
            // A union holds no union, and null but once.
            match shape {
                Shape::Null | Shape::Optional(_) => Ok((schema, shape)),
                shape => Ok((json!(["null", schema]), Shape::Optional(shape.into()))),
            }
        }
        Type::List(item) => {
            let (items, shape) = shape(item, path)?;
            Ok((
                json!({ "type": "array", "items": items }),
                Shape::Array(shape.into()),
            ))
        }
        Type::Map(key, value) => map(key, value, path),
        Type::Tuple(parts) => {
            let names = (0..parts.len()).map(|at| format!("field_{at}"));
            record(path, names.zip(parts))
        }
        Type::Struct(fields) => record(path, fields.iter().map(|(name, ty)| ((*name).to_owned(), ty))),
        Type::Enum(variants) => symbols(variants, path),
        Type::Json => Err(unfit(path, "its type depends on the data")),
    }
}

fn map(key: &Type, value: &Type, path: &str) -> Result<(Value, Shape)> {
    if *key == Type::Text {
        let (values, shape) = shape(value, path)?;
        return Ok((
            json!({ "type": "map", "values": values }),
            Shape::Map(shape.into()),
        ));
    }
    let parts = [("key".to_owned(), key), ("value".to_owned(), value)];
    match record(path, parts.into_iter())? {
        (items, Shape::Record(parts)) if parts.len() == 2 => {
            let mut parts = parts.into_iter();
            let mut part = || Box::new(parts.next().unwrap_or(Shape::Null));
            let schema = json!({ "type": "array", "items": items });
            Ok((schema, Shape::Pairs(part(), part())))
        }
        _ => Err(Error::internal("a record of two fields has others")),
    }
}

/// A record that is named by its path.
pub(super) fn record<'a>(
    path: &str,
    fields: impl Iterator<Item = (String, &'a Type)>,
) -> Result<(Value, Shape)> {
    let (mut schemas, mut shapes) = (Vec::new(), Vec::new());
    for (name, ty) in fields {
        named(&name, path)?;
        let (schema, shape) = shape(ty, &format!("{path}_{name}"))?;
        schemas.push(match shape {
            Shape::Optional(_) | Shape::Null => json!({ "name": name, "type": schema, "default": null }),
            _ => json!({ "name": name, "type": schema }),
        });
        shapes.push(shape);
    }
    let schema = json!({ "type": "record", "name": path, "fields": schemas });
    Ok((schema, Shape::Record(shapes)))
}

fn symbols(variants: &[Variant], path: &str) -> Result<(Value, Shape)> {
    if let Some(variant) = variants.iter().find(|variant| variant.content.is_some()) {
        let why = format!("its variant `{}` has a content", variant.name);
        return Err(unfit(path, &why));
    }
    let names: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
    for name in &names {
        named(name, path)?;
    }
    Ok((
        json!({ "type": "enum", "name": path, "symbols": names }),
        Shape::Enum,
    ))
}

/// Names have letters, digits and underscores, and begin with no digit.
fn named(name: &str, path: &str) -> Result<()> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match name.chars().all(is_fit) && name.starts_with(|c: char| !c.is_ascii_digit()) {
        true => Ok(()),
        false => {
            let what = format!("`{name}` in {} is no name in Avro", dotted(path));
            Err(Error::definition(what).hint(
                "names have letters, digits and underscores: rename it, as by #[serde(rename = \"…\")]",
            ))
        }
    }
}

fn unfit(path: &str, why: &str) -> Error {
    Error::definition(format!("{} can't be written in Avro: {why}", dotted(path)))
        .hint("give it a type that Avro has, by `map` before the sink")
}

/// `Row_legs_venue` → `legs.venue`.
fn dotted(path: &str) -> String {
    match path.split_once('_') {
        Some((_, field)) => format!("field `{field}`"),
        None => "the row".to_owned(),
    }
}

impl Shape {
    /// Appends a value; `None`: it is none of this shape.
    pub(super) fn write(&self, datum: &Datum, out: &mut Vec<u8>) -> Option<()> {
        match (self, datum) {
            (Shape::Optional(_), Datum::Null) => write_long(0, out),
            (Shape::Optional(inner), datum) => {
                write_long(1, out);
                inner.write(datum, out)?;
            }
            (Shape::Null, Datum::Null) => {}
            (Shape::Bool, Datum::Bool(value)) => out.push(u8::from(*value)),
            (Shape::Long, Datum::Int(value)) => write_long(i64::try_from(*value).ok()?, out),
            (Shape::Decimal, Datum::Int(value)) => write_decimal(&value.to_be_bytes(), out),
            (Shape::Decimal, Datum::UInt(value)) => {
                let mut wide = [0; 17];
                wide[1..].copy_from_slice(&value.to_be_bytes());
                write_decimal(&wide, out);
            }
            (Shape::Float, Datum::Float(value)) => out.extend((*value as f32).to_le_bytes()),
            (Shape::Double, Datum::Float(value)) => out.extend(value.to_le_bytes()),
            (Shape::Text, Datum::Text(text)) => write_bytes(text.as_bytes(), out),
            (Shape::Bytes, Datum::Bytes(bytes)) => write_bytes(bytes, out),
            (Shape::Time, Datum::Time(time)) => write_long(time.micros(), out),
            (Shape::Enum, Datum::Variant(index, _, None)) => write_long(i64::from(*index), out),
            (Shape::Array(item), Datum::List(items)) => {
                write_block(items, out, |value, out| item.write(value, out))?
            }
            (Shape::Map(value), Datum::Map(entries)) => write_block(entries, out, |(key, entry), out| {
                Shape::Text.write(key, out)?;
                value.write(entry, out)
            })?,
            (Shape::Pairs(key, value), Datum::Map(entries)) => {
                write_block(entries, out, |(first, second), out| {
                    key.write(first, out)?;
                    value.write(second, out)
                })?;
            }
            (Shape::Record(shapes), Datum::List(parts)) => write_record(shapes, parts.iter(), out)?,
            (Shape::Record(shapes), Datum::Struct(fields)) => {
                write_record(shapes, fields.iter().map(|(_, field)| field), out)?;
            }
            _ => return None,
        }
        Some(())
    }
}

/// Appends the fields of a record.
pub(super) fn write_record<'a>(
    shapes: &[Shape],
    fields: impl ExactSizeIterator<Item = &'a Datum>,
    out: &mut Vec<u8>,
) -> Option<()> {
    if shapes.len() != fields.len() {
        return None;
    }
    for (shape, field) in shapes.iter().zip(fields) {
        shape.write(field, out)?;
    }
    Some(())
}

/// Appends items in one block, and the end.
fn write_block<I>(
    items: &[I],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&I, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    if !items.is_empty() {
        write_long(i64::try_from(items.len()).ok()?, out);
        for item in items {
            write(item, out)?;
        }
    }
    write_long(0, out);
    Some(())
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

/// Appends an integer in as few bytes as it takes: big-endian, two's complement.
fn write_decimal(wide: &[u8], out: &mut Vec<u8>) {
    let mut bytes = wide;
    while let [first, rest @ ..] = bytes
        && let Some(second) = rest.first()
        && ((*first == 0 && second & 0x80 == 0) || (*first == 0xff && second & 0x80 != 0))
    {
        bytes = rest;
    }
    write_bytes(bytes, out);
}
