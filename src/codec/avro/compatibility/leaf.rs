//! How a schema answers what a type asks for, where neither has parts.

use crate::codec::avro::schema::{Logical, Node, NodeKind};
use crate::codec::compatibility::words::Answer;
use crate::schema::types::Type;

/// Values of `node`, asked for by `ty`, which has no parts.
pub(super) fn answer(ty: &Type, node: &Node) -> Answer {
    use Answer::{All, None, Some};
    if let Option::Some(logical) = node.logical {
        match (logical, ty) {
            (Logical::Decimal { precision, scale }, _) => return decimal(ty, precision, scale),
            (Logical::BigDecimal, Type::Text | Type::Bytes | Type::Float(_)) => return All,
            (Logical::BigDecimal, Type::Int(_) | Type::UInt(_) | Type::Time) => return Some,
            (Logical::Uuid, Type::Text) => return All,
            (Logical::Duration, Type::Text) => return None,
            _ => {}
        }
    }
    match (ty, &node.kind) {
        (Type::Bool, NodeKind::Boolean) | (Type::Unit, NodeKind::Null) => All,
        (Type::Float(_), NodeKind::Float | NodeKind::Double | NodeKind::Int | NodeKind::Long) => All,
        (Type::Int(32..) | Type::Time, NodeKind::Int) | (Type::Int(64..) | Type::Time, NodeKind::Long) => All,
        (Type::Int(_) | Type::UInt(_), NodeKind::Int | NodeKind::Long) => Some,
        // The number of the symbol.
        (Type::UInt(64), NodeKind::Enum(_)) => All,
        (Type::Text, NodeKind::String | NodeKind::Enum(_)) => All,
        (Type::Text, NodeKind::Bytes | NodeKind::Fixed(_)) => Some,
        (Type::Bytes, NodeKind::Bytes | NodeKind::Fixed(_) | NodeKind::String) => All,
        // Types of bytes may take text and lists of numbers for them.
        (Type::Bytes, NodeKind::Enum(_) | NodeKind::Array(_)) => Some,
        _ => None,
    }
}

/// A decimal by every way of asking; an integer is the unscaled one.
fn decimal(ty: &Type, precision: u32, scale: u32) -> Answer {
    let digits = match ty {
        Type::Bytes | Type::Float(_) => return Answer::All,
        Type::Text => match precision <= DIGITS_MAX && scale <= DIGITS_MAX {
            true => return Answer::All,
            false => return Answer::Some,
        },
        Type::Int(8) => 2,
        Type::Int(16) => 4,
        Type::Int(32) => 9,
        Type::Int(64) | Type::Time => 18,
        Type::Int(_) => 38,
        // It may be negative.
        Type::UInt(_) => 0,
        _ => return Answer::None,
    };
    match precision <= digits {
        true => Answer::All,
        false => Answer::Some,
    }
}

/// As many digits as are ever written out.
const DIGITS_MAX: u32 = 2_400;

/// Unsigned integers of so many bits that a type gets whatever it asks for: bytes as a list, and the parts of
/// a duration.
pub(super) fn unasked_number(ty: &Type, is_newtype: bool, bits: u8) -> Answer {
    match ty {
        _ if is_newtype => Answer::None,
        Type::Int(own) if *own > bits => Answer::All,
        Type::UInt(own) if *own >= bits => Answer::All,
        Type::Int(_) | Type::UInt(_) => Answer::Some,
        // Which variants have numbers is not known here.
        Type::Float(_) | Type::Json | Type::Enum(_) => Answer::All,
        _ => Answer::None,
    }
}

/// Types that take what is written in a schema.
pub(super) fn fitting(node: &Node) -> &'static str {
    match (&node.kind, node.logical) {
        (_, Some(Logical::Decimal { .. } | Logical::BigDecimal)) => {
            "String takes its text, i128 the unscaled integer, f64 the nearest float, Vec<u8> the bytes"
        }
        (_, Some(Logical::Duration)) => {
            "a struct with months, days and milliseconds takes it, and (u32, u32, u32)"
        }
        (NodeKind::Boolean, _) => "bool takes it",
        (NodeKind::Int, _) => "i32 and i64 take it, and floats",
        (NodeKind::Long, _) => "i64 takes it, and floats",
        (NodeKind::Float | NodeKind::Double, _) => "f64 takes it",
        (NodeKind::String, _) => "String takes it; Avro's rules turn it into bytes only",
        (NodeKind::Enum(_), _) => "an enum or a String takes it",
        (NodeKind::Bytes | NodeKind::Fixed(_), _) => {
            "Vec<u8> takes it, and types that deserialize from bytes"
        }
        (NodeKind::Array(_), _) => "a Vec takes it",
        (NodeKind::Map(_), _) => "a BTreeMap with String keys takes it",
        (NodeKind::Record(_), _) => "a struct takes it",
        (NodeKind::Null, _) => "Option and () take it",
        (NodeKind::Union(_), _) => "an enum with a variant for each branch takes it",
    }
}

/// What holds more of a schema's values than the type does that holds some of them.
pub(super) fn wider(ty: &Type, node: &Node) -> &'static str {
    match (ty, node.logical) {
        (_, Some(Logical::Decimal { .. } | Logical::BigDecimal)) => {
            "a String holds every decimal, an i128 the unscaled integer of up to 38 digits"
        }
        (Type::Int(_) | Type::UInt(_), _) => "i64 holds every int and long",
        _ => "a type of bytes holds them all",
    }
}
