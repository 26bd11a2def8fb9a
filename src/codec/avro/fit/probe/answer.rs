//! How a schema answers what a type asks for.

use crate::codec::avro::schema::{Kind, Logical, Node};

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

/// What a list consists of that is made of bytes.
pub(super) static BYTE: Node = Node {
    kind: Kind::Int,
    logical: None,
};

/// The parts of a duration, and what each of them is.
pub(super) const DURATION: [&str; 3] = ["months", "days", "milliseconds"];
pub(super) static PART: Node = Node {
    kind: Kind::Long,
    logical: None,
};

pub(super) fn is_duration(node: &Node) -> bool {
    node.logical == Some(Logical::Duration)
}

pub(super) fn answer(hint: Hint, node: &Node) -> Answer {
    use Answer::{All, None, Some};
    // The widths of numbers that each holds.
    if std::ptr::eq(node, &BYTE) {
        return match hint {
            Hint::Int(16..) | Hint::UInt(_) | Hint::Float => All,
            Hint::Int(_) => Some,
            _ => None,
        };
    }
    if std::ptr::eq(node, &PART) {
        return match hint {
            Hint::Int(64..) | Hint::UInt(32..) | Hint::Float => All,
            Hint::Int(_) | Hint::UInt(_) => Some,
            _ => None,
        };
    }
    if let std::option::Option::Some(logical) = node.logical {
        match (logical, hint) {
            (Logical::Decimal { precision, scale }, _) => return decimal(hint, precision, scale),
            (Logical::BigDecimal, Hint::Text | Hint::Bytes | Hint::Float) => return All,
            (Logical::BigDecimal, Hint::Int(_) | Hint::UInt(_)) => return Some,
            (Logical::Uuid, Hint::Text) => return All,
            (Logical::Duration, Hint::Text) => return None,
            _ => {}
        }
    }
    match (hint, &node.kind) {
        (Hint::Bool, Kind::Boolean)
        | (Hint::Unit, Kind::Null)
        | (Hint::Float, Kind::Float | Kind::Double) => All,
        (Hint::Float, Kind::Int | Kind::Long) => All,
        (Hint::Int(32..), Kind::Int) | (Hint::Int(64..), Kind::Long) => All,
        (Hint::Int(_) | Hint::UInt(_), Kind::Int | Kind::Long) => Some,
        (Hint::UInt(64), Kind::Enum(_)) => All,
        (Hint::Text, Kind::String | Kind::Enum(_)) => All,
        (Hint::Text, Kind::Bytes | Kind::Fixed(_)) => Some,
        (Hint::Bytes, Kind::Bytes | Kind::Fixed(_) | Kind::String) => All,
        _ => None,
    }
}

/// A decimal by every way of asking; an integer is the unscaled one.
fn decimal(hint: Hint, precision: u32, scale: u32) -> Answer {
    let digits = match hint {
        Hint::Bytes | Hint::Float => return Answer::All,
        Hint::Text => match precision <= DIGITS_MAX && scale <= DIGITS_MAX {
            true => return Answer::All,
            false => return Answer::Some,
        },
        Hint::Int(8) => 2,
        Hint::Int(16) => 4,
        Hint::Int(32) => 9,
        Hint::Int(64) => 18,
        Hint::Int(_) => 38,
        Hint::UInt(_) => 0, // It may be negative.
        Hint::Bool | Hint::Unit => return Answer::None,
    };
    match precision <= digits {
        true => Answer::All,
        false => Answer::Some,
    }
}

/// As many digits as are ever written out.
const DIGITS_MAX: u32 = 2_400;

/// Types that take what is written in a schema.
pub(super) fn fitting(node: &Node) -> &'static str {
    match (&node.kind, node.logical) {
        (_, Some(Logical::Decimal { .. } | Logical::BigDecimal)) => {
            "String takes its text, i128 the unscaled integer, f64 the nearest float, Vec<u8> the bytes"
        }
        (_, Some(Logical::Duration)) => {
            "a struct with months, days and milliseconds takes it, and (u32, u32, u32)"
        }
        (Kind::Boolean, _) => "bool takes it",
        (Kind::Int, _) => "i32 and i64 take it, and floats",
        (Kind::Long, _) => "i64 takes it, and floats",
        (Kind::Float | Kind::Double, _) => "f64 takes it",
        (Kind::String, _) => "String takes it; Avro's rules turn it into bytes only",
        (Kind::Enum(_), _) => "an enum or a String takes it",
        (Kind::Bytes | Kind::Fixed(_), _) => "Vec<u8> takes it, and types that deserialize from bytes",
        (Kind::Array(_), _) => "a Vec takes it",
        (Kind::Map(_), _) => "a BTreeMap with String keys takes it",
        (Kind::Record(_), _) => "a struct takes it",
        (Kind::Null, _) => "Option and () take it",
        (Kind::Union(_), _) => "an enum with a variant for each branch takes it",
    }
}
