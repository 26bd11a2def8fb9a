//! Which records of a keyed topic delete rows.

use std::str::FromStr;

use crate::error::Error;

/// Which payloads delete the row of their key in a keyed topic.
///
/// A record without a payload always does: it is Kafka's tombstone, which compaction removes in time. Some
/// programs write a payload instead.
///
/// | payload | `Tombstone` | `Null` | `NullOrEmpty` |
/// |---|---|---|---|
/// | none | deletes | deletes | deletes |
/// | JSON `null`; Avro null, in a union or alone | decoded | deletes, unless the row's type has a value for it | as `Null` |
/// | empty | decoded | decoded | deletes |
///
/// A decoded payload that is not a valid row becomes a dead letter, and the row stays.
///
/// * **`null`** is what Connect's JSON converter without schemas, and most JSON libraries, write for a
///   missing value; Flink, ksqlDB and the usual serializers of Kafka Streams treat it as a deletion. So it is
///   one by default. A type with a value for it, such as `Option<Row>`, `()` and `serde_json::Value`, gets
///   the value: choosing such a type means that null is one.
/// * **An empty payload** is neither JSON nor Avro, and may as well come from a faulty program, so by default
///   it deletes nothing. For text and bytes it is a value of its own: the empty string, or no bytes.
/// * Text and bytes have no null: the text `null` is four letters.
///
/// ```
/// use thalweg::prelude::*;
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Merchant { name: String }
/// let merchants = Kafka::topic("merchants.v1").json::<Merchant>().keyed::<u32>().deletes(Deletes::NullOrEmpty);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deletes {
    /// Records without a payload only.
    Tombstone,
    /// Records without a payload, and payloads that are null in their format. The default.
    #[default]
    Null,
    /// Additionally, empty payloads.
    NullOrEmpty,
}

/// Parses `tombstone`, `null` or `null_or_empty`.
impl FromStr for Deletes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "tombstone" => Ok(Self::Tombstone),
            "null" => Ok(Self::Null),
            "null_or_empty" => Ok(Self::NullOrEmpty),
            _ => Err(Error::definition(
                "it is neither `tombstone` nor `null` nor `null_or_empty`",
            )),
        }
    }
}
