//! Which records of a keyed topic delete rows.

use std::str::FromStr;

use crate::error::Error;

/// What deletes the row of a record's key in a keyed topic.
///
/// A record without payload always does: it is Kafka's tombstone, and the one that compaction takes away in
/// time. Some programs write a payload in its place.
///
/// | payload | `Tombstone` | `Null` | `NullOrEmpty` |
/// |---|---|---|---|
/// | none | deletes | deletes | deletes |
/// | JSON `null`; Avro of null, in a union with null or alone | decoded | deletes, unless the row's type has a value for it | as `Null` |
/// | no bytes | decoded | decoded | deletes |
///
/// What is decoded and is no row is a dead letter, and the row stays.
///
/// * **`null`** is what Connect's JSON converter without schemas, and most JSON libraries, make of no value;
///   Flink, ksqlDB and the usual serializers of Kafka Streams take it for a deletion. So it is one by
///   default. A type that has a value for it, as `Option<Row>`, `()` and `serde_json::Value` have, gets the
///   value: whoever chose such a type means it to be one.
/// * **An empty payload** is no JSON and no Avro, and may as well come from a program that went wrong, so by
///   default it deletes nothing. As text and as bytes it is a value of its own: the empty string, or no
///   bytes.
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
    /// Records without payload alone.
    Tombstone,
    /// Those, and payloads that are null in their format. The default.
    #[default]
    Null,
    /// Those, and payloads of no bytes.
    NullOrEmpty,
}

/// `tombstone`, `null` or `null_or_empty`.
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
