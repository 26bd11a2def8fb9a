//! How a schema answers what a type asks for.

use apache_avro::Schema;

use crate::codec::avro::plan::{Base, base};

/// What a type asks for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Hint {
    Bool,
    Int(u8),
    UInt(u8),
    Float,
    Text,
    Bytes,
    Unit,
}

/// How a schema answers it.
pub(super) enum Answer {
    All,
    /// Only some of its values will do.
    Some,
    None,
}

pub(super) fn answer(hint: Hint, schema: &Schema) -> Answer {
    use Answer::{All, None, Some};
    if matches!(schema, Schema::Decimal(_) | Schema::BigDecimal) {
        return All; // It depends on the value, and has ways of its own.
    }
    match (hint, base(schema)) {
        (Hint::Bool, Base::Boolean)
        | (Hint::Unit, Base::Null)
        | (Hint::Float, Base::Float | Base::Double) => All,
        (Hint::Float, Base::Int | Base::Long) => All,
        (Hint::Int(32..), Base::Int) | (Hint::Int(64..), Base::Long) => All,
        (Hint::Int(_) | Hint::UInt(_), Base::Int | Base::Long) => Some,
        (Hint::UInt(64), Base::Enum(_)) => All,
        (Hint::Text, Base::String | Base::Enum(_)) => All,
        (Hint::Text, Base::Bytes | Base::Fixed(_)) => Some,
        (Hint::Bytes, Base::Bytes | Base::Fixed(_) | Base::String) => All,
        _ => None,
    }
}

/// Types that take what is written in a schema.
pub(super) fn fitting(schema: &Schema) -> &'static str {
    match base(schema) {
        Base::Boolean => "bool takes it",
        Base::Int => "i32 and i64 take it, and floats",
        Base::Long => "i64 takes it, and floats",
        Base::Float | Base::Double => "f64 takes it",
        Base::String => "String takes it; Avro's rules turn it into bytes only",
        Base::Enum(_) => "an enum or a String takes it",
        Base::Bytes | Base::Fixed(_) => {
            "a type that deserializes from bytes takes it, which Vec<u8> by itself does not"
        }
        Base::Array(_) => "a Vec takes it",
        Base::Map(_) => "a BTreeMap with String keys takes it",
        Base::Record(_) | Base::Ref => "a struct takes it",
        Base::Null => "Option and () take it",
        Base::Union(_) => "an enum with a variant for each branch takes it",
    }
}
