//! [`Type`]: what a field holds.

use std::fmt;

use crate::schema::Numbers;

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// The unit: always null.
    Unit,
    /// `bool`.
    Bool,
    /// A signed integer with this many bits.
    Int(u8),
    /// An unsigned integer with this many bits.
    UInt(u8),
    /// A float with this many bits.
    Float(u8),
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A point in event time.
    Time,
    /// Possibly null.
    Option(Box<Type>),
    /// A field that its struct can be read without (`#[serde(default)]`): null if it was left out.
    Default(Box<Type>),
    /// A sequence.
    List(Box<Type>),
    /// A sequence of fixed length with a type for each element.
    Tuple(Vec<Type>),
    /// A map.
    Map(Box<Type>, Box<Type>),
    /// A struct: the names and types of its fields.
    Struct(Vec<(&'static str, Type)>),
    /// An enum with these variants.
    Enum(Vec<Variant>),
    /// A type that must inspect the data before it knows what they are: any JSON that it writes.
    Json,
}

/// A variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// The variant's name.
    pub name: &'static str,
    /// Its content: that of a newtype variant, otherwise a tuple or struct; `None` for a unit variant.
    pub content: Option<Type>,
}

impl Type {
    /// The JSON form of its values: `number`, `string`, `boolean`, `array`, `object`, `null` or `any`;
    /// options may also be null.
    pub fn json(&self, numbers: Numbers) -> &'static str {
        match self {
            Type::Unit => "null",
            Type::Bool => "boolean",
            Type::Int(bits) | Type::UInt(bits) if *bits >= 64 && numbers == Numbers::Strings => "string",
            Type::Int(_) | Type::UInt(_) | Type::Float(_) => "number",
            Type::Text | Type::Bytes | Type::Time => "string",
            Type::Option(inner) | Type::Default(inner) => inner.json(numbers),
            Type::List(_) | Type::Tuple(_) => "array",
            Type::Map(..) | Type::Struct(_) => "object",
            Type::Enum(_) | Type::Json => "any",
        }
    }

    /// Merges in variants that `other`, another trace of the same type, has visited and this one has not.
    pub(super) fn merge(&mut self, other: Type) {
        match (self, other) {
            (own @ Type::Json, other) => *own = other,
            (Type::Option(own) | Type::List(own), Type::Option(other) | Type::List(other)) => {
                own.merge(*other)
            }
            (Type::Map(key, value), Type::Map(other_key, other_value)) => {
                key.merge(*other_key);
                value.merge(*other_value);
            }
            (Type::Tuple(own), Type::Tuple(other)) => {
                own.iter_mut()
                    .zip(other)
                    .for_each(|(own, other)| own.merge(other));
            }
            (Type::Struct(own), Type::Struct(other)) => {
                own.iter_mut()
                    .zip(other)
                    .for_each(|((_, own), (_, other))| own.merge(other));
            }
            (Type::Enum(own), Type::Enum(other)) => {
                for (own, other) in own.iter_mut().zip(other) {
                    match (&mut own.content, other.content) {
                        (Some(own), Some(other)) => own.merge(other),
                        (content @ Some(Type::Json), None) => *content = None,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// The type's name: `u32`, `string`, `timestamp`, `option<i64>`, `list<f64>`, `map<string, u8>` …
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Unit => f.write_str("unit"),
            Type::Bool => f.write_str("bool"),
            Type::Int(bits) => write!(f, "i{bits}"),
            Type::UInt(bits) => write!(f, "u{bits}"),
            Type::Float(bits) => write!(f, "f{bits}"),
            Type::Text => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Time => f.write_str("timestamp"),
            Type::Option(inner) | Type::Default(inner) => write!(f, "option<{inner}>"),
            Type::List(inner) => write!(f, "list<{inner}>"),
            Type::Tuple(parts) => {
                f.write_str("tuple<")?;
                separated(f, parts, |f, part| write!(f, "{part}"))?;
                f.write_str(">")
            }
            Type::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Type::Struct(fields) => {
                f.write_str("struct<")?;
                separated(f, fields, |f, (name, ty)| write!(f, "{name}: {ty}"))?;
                f.write_str(">")
            }
            Type::Enum(variants) => {
                f.write_str("enum<")?;
                separated(f, variants, |f, variant| match &variant.content {
                    None => f.write_str(variant.name),
                    Some(content) => write!(f, "{}({content})", variant.name),
                })?;
                f.write_str(">")
            }
            Type::Json => f.write_str("json"),
        }
    }
}

fn separated<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write(f, item)?;
    }
    Ok(())
}
