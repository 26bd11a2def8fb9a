//! [`Datum`]: one field of a row without its Rust type, with what ordering and JSON need.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::record::F64;
use crate::time::EventTime;

/// A value of a row's field.
///
/// Totally ordered: null first, then by kind as listed, floats after integers and among themselves by IEEE
/// 754 `totalOrder`. Within one field, all values except null have the same kind.
#[derive(Clone, Debug)]
pub enum Datum {
    /// A `None`, or a unit.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// An integer above `i128::MAX`.
    UInt(u128),
    /// A float; `f32` too. See [`Datum::float`].
    Float(f64),
    /// A point in event time.
    Time(EventTime),
    /// Text; a `char` too.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A variant of an enum: its index, its name, and what it holds.
    Variant(u32, Cow<'static, str>, Option<Box<Datum>>),
    /// A sequence or a tuple.
    List(Vec<Datum>),
    /// A struct inside a field.
    Struct(Vec<(&'static str, Datum)>),
    /// A map.
    Map(Vec<(Datum, Datum)>),
}

impl Datum {
    /// Normalizes a float as [`F64`] does, so that equal displayed values compare equal, even if the row's
    /// own type distinguishes `-0.0` from `0.0` and NaNs from each other.
    pub fn float(value: f64) -> Self {
        Datum::Float(F64::new(value).get())
    }

    fn rank(&self) -> u8 {
        match self {
            Datum::Null => 0,
            Datum::Bool(_) => 1,
            Datum::Int(_) | Datum::UInt(_) | Datum::Float(_) => 2,
            Datum::Time(_) => 3,
            Datum::Text(_) => 4,
            Datum::Bytes(_) => 5,
            Datum::Variant(..) => 6,
            Datum::List(_) => 7,
            Datum::Struct(_) => 8,
            Datum::Map(_) => 9,
        }
    }
}

impl From<u128> for Datum {
    fn from(value: u128) -> Self {
        i128::try_from(value).map_or(Datum::UInt(value), Datum::Int)
    }
}

impl Ord for Datum {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Datum::Bool(a), Datum::Bool(b)) => a.cmp(b),
            (Datum::Int(a), Datum::Int(b)) => a.cmp(b),
            (Datum::UInt(a), Datum::UInt(b)) => a.cmp(b),
            (Datum::Int(_), Datum::UInt(_)) => Ordering::Less,
            (Datum::UInt(_), Datum::Int(_)) => Ordering::Greater,
            (Datum::Float(a), Datum::Float(b)) => a.total_cmp(b),
            // A field is all integers or all floats; between the two, any fixed order works.
            (Datum::Float(_), Datum::Int(_) | Datum::UInt(_)) => Ordering::Greater,
            (Datum::Int(_) | Datum::UInt(_), Datum::Float(_)) => Ordering::Less,
            (Datum::Time(a), Datum::Time(b)) => a.cmp(b),
            (Datum::Text(a), Datum::Text(b)) => a.cmp(b),
            (Datum::Bytes(a), Datum::Bytes(b)) => a.cmp(b),
            (Datum::Variant(a, _, x), Datum::Variant(b, _, y)) => a.cmp(b).then_with(|| x.cmp(y)),
            (Datum::List(a), Datum::List(b)) => a.cmp(b),
            (Datum::Struct(a), Datum::Struct(b)) => a.iter().map(|(_, x)| x).cmp(b.iter().map(|(_, y)| y)),
            (Datum::Map(a), Datum::Map(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Datum {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Datum {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Datum {}
