//! The schema of a view: names and types of its fields, as clients see them.
//!
//! | the Rust type | of a key gives | of a value gives |
//! |---|---|---|
//! | struct | its fields (renamed by `ViewSpec::key`, if given) | its fields |
//! | tuple | the names in `ViewSpec::key`, or `key_0`, `key_1` … | the names in `ViewSpec::value`, or `value_0` … |
//! | `Windowed<K>` | what `K` gives, then `window_start`, `window_end` | one field |
//! | `()` | nothing | nothing |
//! | any other | one field: `ViewSpec::key`, or `key` | one field: `ViewSpec::value`, or `value` |
//!
//! Newtypes are what they wrap. What lies deeper (a struct in a field) is one field that holds a JSON object.

use std::fmt;

use crate::view::datum::Datum;
use crate::view::json;

/// Names and types of a view's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSchema {
    /// The key's fields.
    pub key: Vec<Field>,
    /// The value's fields.
    pub value: Vec<Field>,
}

/// A named field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, in URLs and in JSON.
    pub name: String,
    /// Its type.
    pub ty: Type,
}

/// The type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing: always null.
    Unit,
    /// `bool`.
    Bool,
    /// A signed integer of so many bits.
    Int(u8),
    /// An unsigned integer of so many bits.
    UInt(u8),
    /// A float of so many bits.
    Float(u8),
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A point in event time.
    Time,
    /// Possibly null.
    Option(Box<Type>),
    /// A sequence.
    List(Box<Type>),
    /// A sequence of a fixed length, each of its own type.
    Tuple(Vec<Type>),
    /// A map.
    Map(Box<Type>, Box<Type>),
    /// A struct: names and types of its fields.
    Struct(Vec<(&'static str, Type)>),
    /// An enum with these variants.
    Enum(Vec<&'static str>),
    /// A type that can't be traced: whatever JSON it writes.
    Json,
}

/// How integers of 64 bits and more are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// As JSON numbers.
    #[default]
    Exact,
    /// As JSON strings, for clients that would round them.
    Strings,
}

impl ViewSchema {
    /// All fields in the order of a row's datums: the key's, then the value's.
    pub fn fields(&self) -> impl Iterator<Item = &Field> + Clone {
        self.key.iter().chain(&self.value)
    }

    /// Writes a row as one JSON object onto `out`.
    pub fn write_row(&self, row: &[Datum], numbers: Numbers, out: &mut Vec<u8>) {
        json::object(self.fields(), row, numbers, out);
    }

    /// Writes the key alone (of a row, or of [`crate::view::serve::RowChange::Delete`]) as one JSON object.
    pub fn write_key(&self, row: &[Datum], numbers: Numbers, out: &mut Vec<u8>) {
        json::object(self.key.iter(), row, numbers, out);
    }

    /// Where the field stands in a row.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields().position(|field| field.name == name)
    }
}

impl Type {
    /// The JSON form of its values: `number`, `string`, `boolean`, `array`, `object`, `null` or `any`; nulls of options
    /// come on top.
    pub fn json(&self, numbers: Numbers) -> &'static str {
        match self {
            Type::Unit => "null",
            Type::Bool => "boolean",
            Type::Int(bits) | Type::UInt(bits) if *bits >= 64 && numbers == Numbers::Strings => "string",
            Type::Int(_) | Type::UInt(_) | Type::Float(_) => "number",
            Type::Text | Type::Bytes | Type::Time => "string",
            Type::Option(inner) => inner.json(numbers),
            Type::List(_) | Type::Tuple(_) => "array",
            Type::Map(..) | Type::Struct(_) => "object",
            Type::Enum(_) | Type::Json => "any",
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
            Type::Option(inner) => write!(f, "option<{inner}>"),
            Type::List(inner) => write!(f, "list<{inner}>"),
            Type::Tuple(parts) => {
                f.write_str("tuple<")?;
                for (i, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(">")
            }
            Type::Map(key, value) => write!(f, "map<{key}, {value}>"),
            Type::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, (name, ty)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {ty}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(">")
            }
            Type::Enum(variants) => write!(f, "enum<{}>", variants.join(", ")),
            Type::Json => f.write_str("json"),
        }
    }
}

/// How the datum of a whole key or value falls into fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No field.
    Unit,
    /// One field.
    One,
    /// A struct or tuple of so many.
    Parts(usize),
    /// `Window`: start and end.
    Window,
    /// `Windowed`: the key's fields, start and end.
    Windowed(Box<Shape>),
}

impl Shape {
    /// The datum's fields, in order, onto `row`. `names` are those that a struct's fields had when they were traced: a
    /// struct that leaves fields out when it is written has nulls there.
    pub fn spread(&self, datum: Datum, names: &[&'static str], row: &mut Vec<Datum>) {
        match (self, datum) {
            (Shape::Unit, _) => {}
            (Shape::Windowed(inner), Datum::Struct(parts)) => {
                let mut parts = parts.into_iter();
                let mut part = || parts.next().map_or(Datum::Null, |(_, datum)| datum);
                inner.spread(part(), names, row);
                Shape::Window.spread(part(), &["start", "end"], row);
            }
            (Shape::Window, Datum::Struct(parts)) => row.extend(parts.into_iter().map(|(_, datum)| datum)),
            (Shape::Parts(count), Datum::Struct(parts)) if parts.len() == *count => {
                row.extend(parts.into_iter().map(|(_, datum)| datum));
            }
            (Shape::Parts(_), Datum::Struct(mut parts)) => {
                row.extend(names.iter().map(|name| {
                    let at = parts.iter().position(|(other, _)| other == name);
                    at.map_or(Datum::Null, |at| parts.swap_remove(at).1)
                }));
            }
            (Shape::Parts(count), Datum::List(parts)) if parts.len() == *count => row.extend(parts),
            (Shape::One, datum) => row.push(datum),
            // Written otherwise than read: the fields can't be told apart.
            (shape, _) => row.extend(std::iter::repeat_n(Datum::Null, shape.fields())),
        }
    }

    /// How many fields there are.
    pub fn fields(&self) -> usize {
        match self {
            Shape::Unit => 0,
            Shape::One => 1,
            Shape::Parts(count) => *count,
            Shape::Window => 2,
            Shape::Windowed(inner) => inner.fields() + 2,
        }
    }

    /// Whether the last two fields are a window.
    pub fn is_windowed(&self) -> bool {
        matches!(self, Shape::Window | Shape::Windowed(_))
    }
}
