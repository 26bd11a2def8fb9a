//! What all formats say in one way when they hold a type against a schema.

use crate::schema::types::Type;

/// How a schema answers a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codec) enum Answer {
    All,
    /// Only some of its values will do.
    Some,
    None,
}

/// What a type asks for, in words.
pub(in crate::codec) fn wanted(ty: &Type) -> String {
    match ty {
        Type::Unit => "nothing".to_owned(),
        Type::Text => "a string".to_owned(),
        Type::Time => "i64".to_owned(),
        Type::List(_) | Type::Tuple(_) => "a list".to_owned(),
        Type::Map(..) => "a map".to_owned(),
        Type::Struct(_) => "a struct".to_owned(),
        Type::Enum(_) => "an enum".to_owned(),
        ty => ty.to_string(),
    }
}

/// A field within a path.
pub(in crate::codec) fn below(path: &str, field: &str) -> String {
    match path {
        "" => field.to_owned(),
        path => format!("{path}.{field}"),
    }
}

/// What is said of a field that a type needs and the schema lacks.
pub(in crate::codec) const MISSING: &str = "the schema has no such field, and the type needs it";
