//! Logical types: which are known, and whether a schema's is valid. One that is not is ignored, as the
//! specification says, and the type beneath it holds.

use serde_json::{Map, Value};

use super::NodeKind;

/// The logical types that say how a value is shown to a user's type. Others (the timestamps of a finer or a
/// local kind) are what they are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::codec::avro) enum Logical {
    Decimal { precision: u32, scale: u32 },
    BigDecimal,
    Uuid,
    Duration,
    Date,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
}

impl Logical {
    /// That of a type with these attributes, if it is one that may stand there.
    pub(super) fn of(kind: &NodeKind, attributes: &Map<String, Value>) -> Option<Self> {
        let logical = match (attributes.get("logicalType")?.as_str()?, kind) {
            ("decimal", NodeKind::Bytes) => return decimal(attributes, u64::MAX),
            ("decimal", NodeKind::Fixed(fixed)) => return decimal(attributes, digits(fixed.size)),
            ("big-decimal", NodeKind::Bytes) => Self::BigDecimal,
            ("uuid", NodeKind::String) => Self::Uuid,
            ("uuid", NodeKind::Fixed(fixed)) if fixed.size == 16 => Self::Uuid,
            ("duration", NodeKind::Fixed(fixed)) if fixed.size == 12 => Self::Duration,
            ("date", NodeKind::Int) => Self::Date,
            ("time-millis", NodeKind::Int) => Self::TimeMillis,
            ("time-micros", NodeKind::Long) => Self::TimeMicros,
            ("timestamp-millis", NodeKind::Long) => Self::TimestampMillis,
            ("timestamp-micros", NodeKind::Long) => Self::TimestampMicros,
            _ => return None,
        };
        Some(logical)
    }
}

/// A precision of 1 at least that the bytes have room for; a scale of 0, which need not be said, up to the
/// precision.
fn decimal(attributes: &Map<String, Value>, precision_max: u64) -> Option<Logical> {
    let precision = attributes.get("precision")?.as_u64()?;
    let scale = match attributes.get("scale") {
        None | Some(Value::Null) => 0,
        Some(scale) => scale.as_u64()?,
    };
    let valid = precision >= 1 && precision <= precision_max && scale <= precision;
    valid.then_some(Logical::Decimal {
        precision: u32::try_from(precision).ok()?,
        scale: u32::try_from(scale).ok()?,
    })
}

/// How many decimal digits every number of so many bytes has room for: floor(log10(2^(8·size−1) − 1)).
fn digits(size: usize) -> u64 {
    match size {
        0 => 0,
        _ => ((8.0 * size as f64 - 1.0) * std::f64::consts::LOG10_2).floor() as u64,
    }
}
