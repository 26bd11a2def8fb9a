//! Columns whose bytes serde alone does not understand, for `#[serde(with = "…")]`. Each takes `Option` too;
//! such a field needs `#[serde(default)]` besides where events may lack it.
//!
//! ```
//! use thalweg::codec::debezium::convert;
//! use thalweg::prelude::*;
//!
//! #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
//! struct Account {
//!     owner: String,                                // text
//!     #[serde(with = "convert::unscaled")]
//!     balance: i64,                                 // numeric(12,2), in cents
//!     opened_at: EventTime,                         // timestamp(6), in microseconds
//!     #[serde(with = "convert::millis")]
//!     closed_at: Option<EventTime>,                 // timestamp(3), in milliseconds
//!     #[serde(with = "convert::zoned")]
//!     seen_at: EventTime,                           // timestamptz
//! }
//!
//! let json = r#"{"owner":"ann","balance":"BNI=","opened_at":1709210096123456,"closed_at":1709210096123,
//!     "seen_at":"2024-02-29T12:34:56.123456Z"}"#;
//! let account: Account = serde_json::from_str(json)?;
//! assert_eq!(account.balance, 1234);
//! assert_eq!(account.closed_at, Some(EventTime::from_millis(1_709_210_096_123)));
//! assert_eq!(account.seen_at, account.opened_at);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! Values are written as they are read, so a view shows what the database's event had.

use ::base64::Engine;
use ::base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::EventTime;

/// How a value is written in events.
trait ColumnEncoding {
    type Value;
    type Wire: Serialize + DeserializeOwned;
    fn decode(wire: Self::Wire) -> Result<Self::Value, &'static str>;
    fn encode(value: &Self::Value) -> Result<Self::Wire, &'static str>;
}

/// A field of type `T`, or an option of one.
pub trait Field<T>: Sized {
    #[doc(hidden)]
    fn read<'de, D: Deserializer<'de>, W: DeserializeOwned>(
        deserializer: D,
        decode: fn(W) -> Result<T, &'static str>,
    ) -> Result<Self, D::Error>;
    #[doc(hidden)]
    fn write<S: Serializer, W: Serialize>(
        &self,
        serializer: S,
        encode: fn(&T) -> Result<W, &'static str>,
    ) -> Result<S::Ok, S::Error>;
}

impl<T> Field<T> for T {
    fn read<'de, D: Deserializer<'de>, W: DeserializeOwned>(
        deserializer: D,
        decode: fn(W) -> Result<T, &'static str>,
    ) -> Result<Self, D::Error> {
        decode(W::deserialize(deserializer)?).map_err(D::Error::custom)
    }
    fn write<S: Serializer, W: Serialize>(
        &self,
        serializer: S,
        encode: fn(&T) -> Result<W, &'static str>,
    ) -> Result<S::Ok, S::Error> {
        encode(self).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<T> Field<T> for Option<T> {
    fn read<'de, D: Deserializer<'de>, W: DeserializeOwned>(
        deserializer: D,
        decode: fn(W) -> Result<T, &'static str>,
    ) -> Result<Self, D::Error> {
        let wire = Option::<W>::deserialize(deserializer)?;
        wire.map(decode).transpose().map_err(D::Error::custom)
    }
    fn write<S: Serializer, W: Serialize>(
        &self,
        serializer: S,
        encode: fn(&T) -> Result<W, &'static str>,
    ) -> Result<S::Ok, S::Error> {
        let wire = self.as_ref().map(encode).transpose();
        wire.map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// A module for `#[serde(with = "…")]`.
macro_rules! conversion {
    ($(#[$doc:meta])* $name:ident: $how:ident of $value:ty) => {
        $(#[$doc])*
        pub mod $name {
            use serde::{Deserializer, Serializer};

            use super::{$how, Field, ColumnEncoding};

            /// Reads a field.
            ///
            /// # Errors
            /// What is there is no such value.
            pub fn deserialize<'de, D, F>(from: D) -> Result<F, D::Error>
            where
                D: Deserializer<'de>,
                F: Field<$value>,
            {
                F::read(from, <$how as ColumnEncoding>::decode)
            }

            /// Writes it as it was read.
            ///
            /// # Errors
            /// The value can't have been read so.
            pub fn serialize<S, F>(field: &F, to: S) -> Result<S::Ok, S::Error>
            where
                S: Serializer,
                F: Field<$value>,
            {
                field.write(to, <$how as ColumnEncoding>::encode)
            }
        }
    };
}

conversion! {
    /// An [`EventTime`] of milliseconds since 1970: `io.debezium.time.Timestamp` (`timestamp(0)` to
    /// `timestamp(3)`), and Connect's own `Timestamp`.
    millis: Millis of crate::time::EventTime
}
conversion! {
    /// An [`EventTime`] of nanoseconds since 1970: `io.debezium.time.NanoTimestamp`. What is finer than a
    /// microsecond is cut off.
    nanos: Nanos of crate::time::EventTime
}
conversion! {
    /// An [`EventTime`], the midnight that begins the day in UTC, of days since 1970: `io.debezium.time.Date`
    /// and Connect's own `Date`.
    days: Days of crate::time::EventTime
}
conversion! {
    /// An [`EventTime`] of a text with a time zone: `io.debezium.time.ZonedTimestamp` (`timestamptz`, and
    /// MySQL's `TIMESTAMP`).
    zoned: Zoned of crate::time::EventTime
}
conversion! {
    /// The unscaled integer of a decimal in JSON with `decimal.handling.mode=precise`: 1234 of 12.34 in a
    /// `numeric(12,2)`. In Avro an integer field is that without this.
    unscaled: Unscaled of i64
}
conversion! {
    /// Bytes in JSON: base64, as `binary.handling.mode=bytes` has them. In Avro bytes need nothing.
    base64: Base64 of Vec<u8>
}

struct Millis;
struct Nanos;
struct Days;
struct Zoned;
struct Unscaled;
struct Base64;

const TOO_FAR: &str = "the time is out of range";
const DAY_US: i64 = 86_400_000_000;

impl ColumnEncoding for Millis {
    type Value = EventTime;
    type Wire = i64;
    fn decode(ms: i64) -> Result<EventTime, &'static str> {
        ms.checked_mul(1_000).map(EventTime).ok_or(TOO_FAR)
    }
    fn encode(time: &EventTime) -> Result<i64, &'static str> {
        Ok(time.millis())
    }
}

impl ColumnEncoding for Nanos {
    type Value = EventTime;
    type Wire = i64;
    fn decode(ns: i64) -> Result<EventTime, &'static str> {
        Ok(EventTime(ns.div_euclid(1_000)))
    }
    fn encode(time: &EventTime) -> Result<i64, &'static str> {
        time.micros().checked_mul(1_000).ok_or(TOO_FAR)
    }
}

impl ColumnEncoding for Days {
    type Value = EventTime;
    type Wire = i32;
    fn decode(days: i32) -> Result<EventTime, &'static str> {
        i64::from(days).checked_mul(DAY_US).map(EventTime).ok_or(TOO_FAR)
    }
    fn encode(time: &EventTime) -> Result<i32, &'static str> {
        i32::try_from(time.micros().div_euclid(DAY_US)).map_err(|_| TOO_FAR)
    }
}

impl ColumnEncoding for Zoned {
    type Value = EventTime;
    type Wire = String;
    fn decode(text: String) -> Result<EventTime, &'static str> {
        let time: jiff::Timestamp = text.parse().map_err(|_| "no time with a zone")?;
        Ok(EventTime(time.as_microsecond()))
    }
    fn encode(time: &EventTime) -> Result<String, &'static str> {
        let time = jiff::Timestamp::from_microsecond(time.micros()).map_err(|_| TOO_FAR)?;
        Ok(time.to_string())
    }
}

impl ColumnEncoding for Unscaled {
    type Value = i64;
    type Wire = String;
    fn decode(text: String) -> Result<i64, &'static str> {
        let bytes = STANDARD.decode(text).map_err(|_| "no decimal in base64")?;
        let (first, fits) = match bytes.as_slice() {
            [] => return Err("a decimal without bytes"),
            [first, ..] => (*first, bytes.len() <= 8),
        };
        let start = if first & 0x80 == 0 { 0 } else { -1 };
        let value = bytes
            .iter()
            .fold(start, |value: i64, byte| value << 8 | i64::from(*byte));
        fits.then_some(value).ok_or("the decimal has more than 64 bits")
    }
    fn encode(value: &i64) -> Result<String, &'static str> {
        // As few bytes as hold it, sign included.
        let bytes = value.to_be_bytes();
        let spare = |at: usize| {
            let sign = if bytes[at] & 0x80 == 0 { 0 } else { 0xff };
            at == 0 || bytes[at - 1] == sign && bytes[..at].iter().all(|byte| *byte == sign)
        };
        let from = (0..8).rev().find(|at| spare(*at)).unwrap_or(0);
        Ok(STANDARD.encode(&bytes[from..]))
    }
}

impl ColumnEncoding for Base64 {
    type Value = Vec<u8>;
    type Wire = String;
    fn decode(text: String) -> Result<Vec<u8>, &'static str> {
        STANDARD.decode(text).map_err(|_| "no base64")
    }
    fn encode(bytes: &Vec<u8>) -> Result<String, &'static str> {
        Ok(STANDARD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        #[serde(with = "millis")]
        ms: EventTime,
        #[serde(with = "nanos")]
        ns: Option<EventTime>,
        #[serde(with = "days")]
        day: Option<EventTime>,
        #[serde(with = "zoned")]
        zoned: EventTime,
        #[serde(with = "unscaled")]
        cents: i64,
        #[serde(with = "unscaled")]
        more: Option<i64>,
        #[serde(with = "base64")]
        bytes: Vec<u8>,
    }

    fn decimal(text: &str) -> Result<i64, &'static str> {
        Unscaled::decode(text.to_owned())
    }

    #[test]
    fn decimals_are_read_as_java_writes_them() {
        assert_eq!(decimal("BNI="), Ok(1234));
        assert_eq!(decimal("/gw="), Ok(-500));
        assert_eq!(decimal("AA=="), Ok(0));
        assert_eq!(decimal("f/////////8="), Ok(i64::MAX));
        assert_eq!(decimal("gAAAAAAAAAA="), Ok(i64::MIN));
        assert!(decimal("AIAAAAAAAAAA").is_err(), "2^63");
        assert!(decimal("").is_err() && decimal("12.34").is_err());
    }

    proptest! {
        /// Through JSON, and through bytes without names, as checkpoints hold them.
        #[test]
        fn what_is_written_is_read(
            ms in -1_000_000_000_000i64..1_000_000_000_000,
            us in -60_000_000_000_000_000i64..60_000_000_000_000_000,
            day: Option<i32>,
            cents: i64,
            more: Option<i64>,
            bytes: Vec<u8>,
            some: bool,
        ) {
            let row = Row {
                ms: EventTime::from_millis(ms),
                ns: some.then_some(EventTime(us / 10)),
                day: day.map(|day| EventTime(i64::from(day / 100) * DAY_US)),
                zoned: EventTime(us),
                cents,
                more,
                bytes,
            };
            let json = serde_json::to_string(&row).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Row>(&json).unwrap(), &row, "{}", json);
            let bytes = postcard::to_stdvec(&row).unwrap();
            prop_assert_eq!(&postcard::from_bytes::<Row>(&bytes).unwrap(), &row);
        }

        #[test]
        fn decimals_take_as_few_bytes_as_java_gives_them(value: i64) {
            let bytes = STANDARD.decode(Unscaled::encode(&value).unwrap()).unwrap();
            prop_assert_eq!(bytes, num_bigint::BigInt::from(value).to_signed_bytes_be());
        }
    }
}
