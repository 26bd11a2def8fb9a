//! What a field is in Postgres, and a batch of its values as one array: the parameter of a statement.
//!
//! | field | column | sent as |
//! |---|---|---|
//! | `bool` | `boolean` | `bool[]` |
//! | `i8` `i16` `u8` | `smallint` | `int2[]` |
//! | `i32` `u16` | `integer` | `int4[]` |
//! | `i64` `u32` | `bigint` | `int8[]` |
//! | `u64` | `numeric(20)` | `text[]` |
//! | `i128` `u128` | `numeric` | `text[]` |
//! | `f32`, `f64` | `real`, `double precision` | `float4[]`, `float8[]` |
//! | `String`, `char`, an enum of names alone | `text` | `text[]` |
//! | bytes | `bytea` | `bytea[]` |
//! | `EventTime` | `timestamptz` | `timestamptz[]` |
//! | anything else | `jsonb` | `text[]` |
//!
//! Values are written in the [binary form of arrays] as they come, without a value of a Rust type between.
//!
//! [binary form of arrays]: https://www.postgresql.org/docs/current/protocol-overview.html

use std::error::Error as StdError;
use std::fmt::Write as _;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type as PgType, to_sql_checked};

use crate::schema::Numbers;
use crate::schema::datum::Datum;
use crate::schema::json::ShownValue;
use crate::schema::types::Type;
use crate::time::EventTime;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnStorage {
    Bool,
    Int2,
    Int4,
    Int8,
    /// An integer of up to so many digits; 0: of any number.
    Numeric(u8),
    Float4,
    Float8,
    Text,
    Bytes,
    Time,
    Json,
}

impl ColumnStorage {
    /// Of a field's type, and whether it may be null.
    pub(super) fn of(ty: &Type) -> (Self, bool) {
        match ty {
            Type::Option(inner) | Type::Default(inner) => (Self::of(inner).0, true),
            Type::Bool => (Self::Bool, false),
            Type::Int(..=16) | Type::UInt(..=8) => (Self::Int2, false),
            Type::Int(..=32) | Type::UInt(..=16) => (Self::Int4, false),
            Type::Int(..=64) | Type::UInt(..=32) => (Self::Int8, false),
            Type::UInt(..=64) => (Self::Numeric(20), false),
            Type::Int(_) | Type::UInt(_) => (Self::Numeric(0), false),
            Type::Float(..=32) => (Self::Float4, false),
            Type::Float(_) => (Self::Float8, false),
            Type::Text => (Self::Text, false),
            Type::Bytes => (Self::Bytes, false),
            Type::Time => (Self::Time, false),
            Type::Enum(variants) if variants.iter().all(|variant| variant.content.is_none()) => {
                (Self::Text, false)
            }
            Type::List(_) | Type::Tuple(_) | Type::Map(..) | Type::Struct(_) | Type::Enum(_) => {
                (Self::Json, false)
            }
            Type::Unit | Type::Json => (Self::Json, true),
        }
    }

    /// As a column is declared.
    pub(super) fn declared(self) -> String {
        match self {
            Self::Numeric(digits @ 1..) => format!("numeric({digits})"),
            other => other.name().into(),
        }
    }

    /// The type's name, as `format_type` has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Numeric(_) => "numeric",
            Self::Float4 => "real",
            Self::Float8 => "double precision",
            Self::Text => "text",
            Self::Bytes => "bytea",
            Self::Time => "timestamp with time zone",
            Self::Json => "jsonb",
        }
    }

    /// Whether a column of this type, as `format_type` has it, holds all such values as they are.
    pub(super) fn fits(self, column: &str) -> bool {
        let (name, modifier) = column.split_once('(').unwrap_or((column, ""));
        // Digits left of the point that are rounded away.
        let is_numeric = name == "numeric" && !modifier.contains(",-");
        match self {
            Self::Bool => column == "boolean",
            Self::Int2 => ["smallint", "integer", "bigint"].contains(&column) || is_numeric,
            Self::Int4 => ["integer", "bigint"].contains(&column) || is_numeric,
            Self::Int8 => column == "bigint" || is_numeric,
            Self::Numeric(_) => is_numeric,
            Self::Float4 => ["real", "double precision"].contains(&column),
            Self::Float8 => column == "double precision",
            // One that is too long for `varchar(n)` is refused, not cut.
            Self::Text => column == "text" || name == "character varying",
            Self::Bytes => column == "bytea",
            // `timestamp(3) with time zone` rounds.
            Self::Time => column == "timestamp with time zone",
            Self::Json => ["jsonb", "json"].contains(&column),
        }
    }

    /// The type of an array of such values on the wire, and of one of them.
    fn wire(self) -> (PgType, PgType) {
        match self {
            Self::Bool => (PgType::BOOL_ARRAY, PgType::BOOL),
            Self::Int2 => (PgType::INT2_ARRAY, PgType::INT2),
            Self::Int4 => (PgType::INT4_ARRAY, PgType::INT4),
            Self::Int8 => (PgType::INT8_ARRAY, PgType::INT8),
            Self::Float4 => (PgType::FLOAT4_ARRAY, PgType::FLOAT4),
            Self::Float8 => (PgType::FLOAT8_ARRAY, PgType::FLOAT8),
            Self::Bytes => (PgType::BYTEA_ARRAY, PgType::BYTEA),
            Self::Time => (PgType::TIMESTAMPTZ_ARRAY, PgType::TIMESTAMPTZ),
            Self::Numeric(_) | Self::Text | Self::Json => (PgType::TEXT_ARRAY, PgType::TEXT),
        }
    }

    /// The type of a parameter that is an array of such values.
    pub(super) fn parameter(self) -> PgType {
        self.wire().0
    }
}

/// Values of one column, as the parameter of a statement.
#[derive(Debug)]
pub(super) struct ColumnArray {
    store: ColumnStorage,
    count: i32,
    has_null: bool,
    /// Each value with its length before it.
    bytes: BytesMut,
    text: String,
}

impl ColumnArray {
    pub(super) fn new(store: ColumnStorage) -> Self {
        Self {
            store,
            count: 0,
            has_null: false,
            bytes: BytesMut::new(),
            text: String::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        (self.count, self.has_null) = (0, false);
        self.bytes.clear();
    }

    pub(super) fn push_null(&mut self) {
        (self.count, self.has_null) = (self.count + 1, true);
        self.bytes.put_i32(-1);
    }

    /// Adds an integer that is known to fit.
    pub(super) fn push_i64(&mut self, value: i64) {
        self.count += 1;
        self.bytes.put_i32(8);
        self.bytes.put_i64(value);
    }

    /// Adds a value of a field of this type.
    ///
    /// # Errors
    /// Why Postgres can't hold it.
    pub(super) fn push(&mut self, datum: &Datum, ty: &Type) -> Result<(), String> {
        if matches!(datum, Datum::Null) {
            self.push_null();
            return Ok(());
        }
        self.count += 1;
        match (self.store, datum) {
            (ColumnStorage::Bool, Datum::Bool(value)) => {
                self.bytes.put_i32(1);
                self.bytes.put_u8(u8::from(*value));
            }
            (ColumnStorage::Int2, Datum::Int(value)) => {
                self.bytes.put_i32(2);
                self.bytes.put_i16(*value as i16);
            }
            (ColumnStorage::Int4, Datum::Int(value)) => {
                self.bytes.put_i32(4);
                self.bytes.put_i32(*value as i32);
            }
            (ColumnStorage::Int8, Datum::Int(value)) => {
                self.bytes.put_i32(8);
                self.bytes.put_i64(*value as i64);
            }
            (ColumnStorage::Float4, Datum::Float(value)) => {
                self.bytes.put_i32(4);
                self.bytes.put_f32(*value as f32);
            }
            (ColumnStorage::Float8, Datum::Float(value)) => {
                self.bytes.put_i32(8);
                self.bytes.put_f64(*value);
            }
            (ColumnStorage::Time, Datum::Time(time)) => {
                let time = timestamp(*time)?;
                self.bytes.put_i32(8);
                self.bytes.put_i64(time);
            }
            (ColumnStorage::Bytes, Datum::Bytes(value)) => self.put(value)?,
            (ColumnStorage::Text, Datum::Text(value)) => self.put_text(value)?,
            (ColumnStorage::Text, Datum::Variant(_, name, None)) => self.put_text(name)?,
            (ColumnStorage::Numeric(_), Datum::Int(value)) => self.put_shown(value)?,
            (ColumnStorage::Numeric(_), Datum::UInt(value)) => self.put_shown(value)?,
            (ColumnStorage::Json, datum) => self.put_json(datum, ty)?,
            (store, datum) => return Err(format!("it is no {}: {datum:?}", store.name())),
        }
        Ok(())
    }

    fn put(&mut self, value: &[u8]) -> Result<(), String> {
        let len = i32::try_from(value.len()).map_err(|_| "it has more than 2 GiB".to_owned())?;
        self.bytes.put_i32(len);
        self.bytes.put_slice(value);
        Ok(())
    }

    fn put_text(&mut self, value: &str) -> Result<(), String> {
        if value.contains('\0') {
            return Err("it contains the character U+0000, which Postgres cannot store in text".into());
        }
        self.put(value.as_bytes())
    }

    fn put_shown(&mut self, value: &impl std::fmt::Display) -> Result<(), String> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let written = write!(text, "{value}").map_err(|error| error.to_string());
        let put = written.and_then(|()| self.put(text.as_bytes()));
        self.text = text;
        put
    }

    fn put_json(&mut self, datum: &Datum, ty: &Type) -> Result<(), String> {
        if has_nul(datum) {
            return Err("it contains the character U+0000, which Postgres cannot store in JSON".into());
        }
        let numbers = Numbers::Exact;
        let json =
            serde_json::to_vec(&ShownValue { ty, datum, numbers }).map_err(|error| error.to_string())?;
        self.put(&json)
    }
}

/// Whether a text in it, or a name, has a character that Postgres refuses.
fn has_nul(datum: &Datum) -> bool {
    match datum {
        Datum::Text(text) => text.contains('\0'),
        Datum::Variant(_, name, held) => name.contains('\0') || held.as_deref().is_some_and(has_nul),
        Datum::List(items) => items.iter().any(has_nul),
        Datum::Struct(members) => members
            .iter()
            .any(|(name, item)| name.contains('\0') || has_nul(item)),
        Datum::Map(entries) => entries.iter().any(|(key, item)| has_nul(key) || has_nul(item)),
        _ => false,
    }
}

/// From 1970 to 2000, Postgres' own beginning, in microseconds.
const EPOCH_2000: i64 = 946_684_800_000_000;
/// Its first moment, 4713 BC, and the one after its last, in 294276, counted from 2000.
const TIMES: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// Microseconds since 2000, as Postgres counts them.
fn timestamp(time: EventTime) -> Result<i64, String> {
    // "After every event" is no moment, though one of the year 294247 has its number.
    let snapshot = Some(time).filter(|time| *time != EventTime::MAX);
    let micros = snapshot.and_then(|time| time.micros().checked_sub(EPOCH_2000));
    micros
        .filter(|micros| TIMES.contains(micros))
        .ok_or_else(|| format!("{time} is outside of the range of `timestamptz`, 4713 BC to 294276 AD"))
}

/// An array of one dimension.
impl ToSql for ColumnArray {
    fn to_sql(&self, _: &PgType, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        out.reserve(20 + self.bytes.len());
        out.put_i32(1);
        out.put_i32(i32::from(self.has_null));
        out.put_u32(self.store.wire().1.oid());
        out.put_i32(self.count);
        out.put_i32(1);
        out.put_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn accepts(ty: &PgType) -> bool {
        matches!(ty.kind(), tokio_postgres::types::Kind::Array(_))
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::FromSql;

    use super::*;
    use crate::schema::types::Variant;

    /// The server's reader of arrays is not here; the client's reads the same form.
    #[test]
    fn an_array_is_read_back() {
        let mut array = ColumnArray::new(ColumnStorage::Int8);
        array.push(&Datum::Int(-7), &Type::Int(64)).unwrap();
        array.push(&Datum::Null, &Type::Int(64)).unwrap();
        array.push_i64(i64::MAX);
        let mut bytes = BytesMut::new();
        array.to_sql(&PgType::INT8_ARRAY, &mut bytes).unwrap();
        let read = Vec::<Option<i64>>::from_sql(&PgType::INT8_ARRAY, &bytes).unwrap();
        assert_eq!(read, [Some(-7), None, Some(i64::MAX)]);
        let mut array = ColumnArray::new(ColumnStorage::Numeric(20));
        array.push(&Datum::from(u128::MAX), &Type::UInt(128)).unwrap();
        let mut bytes = BytesMut::new();
        array.to_sql(&PgType::TEXT_ARRAY, &mut bytes).unwrap();
        let read = Vec::<String>::from_sql(&PgType::TEXT_ARRAY, &bytes).unwrap();
        assert_eq!(read, [u128::MAX.to_string()]);
    }

    #[test]
    fn what_postgres_cannot_hold_is_refused() {
        let refused = |store, datum, ty: &Type| ColumnArray::new(store).push(&datum, ty).unwrap_err();
        let text = refused(ColumnStorage::Text, Datum::Text("a\0b".into()), &Type::Text);
        assert!(text.contains("U+0000"), "{text}");
        let list = Type::List(Box::new(Type::Text));
        let text = refused(
            ColumnStorage::Json,
            Datum::List(vec![Datum::Text("\0".into())]),
            &list,
        );
        assert!(text.contains("U+0000"), "{text}");
        for time in [
            EventTime::MIN,
            EventTime::MAX,
            EventTime(TIMES.start + EPOCH_2000 - 1),
        ] {
            let text = refused(ColumnStorage::Time, Datum::Time(time), &Type::Time);
            assert!(text.contains("4713 BC"), "{text}");
        }
        for time in [TIMES.start + EPOCH_2000, 0, i64::MAX - EPOCH_2000] {
            assert!(timestamp(EventTime(time)).is_ok(), "{time}");
        }
    }

    #[test]
    fn integers_have_columns_that_hold_all_of_them() {
        let of = |ty: Type| ColumnStorage::of(&ty).0.declared();
        let ints = [8, 16, 32, 64, 128].map(|bits| of(Type::Int(bits)));
        assert_eq!(ints, ["smallint", "smallint", "integer", "bigint", "numeric"]);
        let uints = [8, 16, 32, 64, 128].map(|bits| of(Type::UInt(bits)));
        assert_eq!(uints, ["smallint", "integer", "bigint", "numeric(20)", "numeric"]);
        let variant = |content| Type::Enum(vec![Variant { name: "A", content }]);
        assert_eq!(ColumnStorage::of(&variant(None)), (ColumnStorage::Text, false));
        assert_eq!(
            ColumnStorage::of(&variant(Some(Type::Bool))),
            (ColumnStorage::Json, false)
        );
        let nested = Type::Option(Box::new(Type::Option(Box::new(Type::Bool))));
        assert_eq!(ColumnStorage::of(&nested), (ColumnStorage::Bool, true));
    }

    #[test]
    fn a_column_that_rounds_or_cuts_does_not_fit() {
        assert!(
            ColumnStorage::Int8.fits("bigint")
                && ColumnStorage::Int8.fits("numeric(18,0)")
                && ColumnStorage::Int8.fits("numeric")
        );
        assert!(!ColumnStorage::Int8.fits("integer") && !ColumnStorage::Int8.fits("numeric(18,-2)"));
        assert!(
            ColumnStorage::Text.fits("character varying(10)") && !ColumnStorage::Text.fits("character(10)")
        );
        assert!(
            !ColumnStorage::Time.fits("timestamp(3) with time zone") && !ColumnStorage::Float8.fits("real")
        );
    }
}
