//! The parts of a change event as serde reads them, from JSON and from Avro alike, without an allocation.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::envelope::SourcePosition;

/// A change event.
#[derive(Deserialize)]
pub(super) struct EventFields<V> {
    pub(super) op: Operation,
    pub(super) after: Option<V>,
    pub(super) source: EventSource,
}

/// A change event in JSON: with Connect's schema around it, or not.
#[derive(Deserialize)]
pub(super) struct JsonEventFields<V> {
    /// Beside a payload. What it says is in the values too, but for scales of decimals.
    #[serde(rename = "schema")]
    pub(super) _schema: Option<IgnoredAny>,
    pub(super) payload: Option<EventFields<V>>,
    pub(super) op: Option<Operation>,
    pub(super) after: Option<V>,
    pub(super) source: Option<EventSource>,
}

impl<V> JsonEventFields<V> {
    /// The event, if it is one.
    pub(super) fn event(self) -> Option<EventFields<V>> {
        let Self {
            payload,
            op,
            after,
            source,
            ..
        } = self;
        payload.or_else(|| {
            Some(EventFields {
                op: op?,
                after,
                source: source?,
            })
        })
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Create,
    Update,
    Delete,
    Truncate,
    Message,
    /// None: a sign of life of the connector.
    Heartbeat,
    /// None: the payload is null.
    Nothing,
    /// A letter that no version of Debezium is known to write.
    Other,
}

impl Operation {
    fn of(text: &str) -> Self {
        match text {
            "r" => Self::Read,
            "c" => Self::Create,
            "u" => Self::Update,
            "d" => Self::Delete,
            "t" => Self::Truncate,
            "m" => Self::Message,
            _ => Self::Other,
        }
    }
}

/// Where an event comes from. Connectors differ in what they say.
#[derive(Default, Deserialize)]
pub(super) struct EventSource {
    #[serde(default)]
    connector: TextHash,
    #[serde(default)]
    name: TextHash,
    #[serde(default)]
    ts_ms: Number,
    #[serde(default)]
    pub(super) snapshot: SnapshotMark,
    /// Postgres.
    #[serde(default)]
    lsn: Number,
    /// MySQL and MariaDB, with `pos` and `row`.
    #[serde(default)]
    file: BinlogFile,
    #[serde(default)]
    pos: Number,
    #[serde(default)]
    row: Number,
    #[serde(default)]
    server_id: Number,
}

/// Rows of one event of a binlog, at the most, that are told apart.
const ROWS_BITS: u32 = 20;

impl EventSource {
    /// The place in the database's log, of connectors by whose places a repeated change is known.
    pub(super) fn position(&self) -> Option<SourcePosition> {
        let committed_ms = i64::try_from(self.ts_ms.0?).ok()?;
        let origin = xxh3_64_with_seed(&self.connector.0.to_le_bytes(), self.name.0);
        if let Some(lsn) = self.lsn.0 {
            return Some(SourcePosition {
                origin: origin as u32,
                place: (lsn, 0),
                committed_ms,
                is_unique: true,
            });
        }
        // Binlogs are each server's own, so another server is another origin.
        let BinlogFile {
            base,
            number: Some(number),
        } = self.file
        else {
            return None;
        };
        let server = self.server_id.0.unwrap_or(0) ^ base;
        let (pos, row) = (self.pos.0?, self.row.0.unwrap_or(0));
        let fits = pos >> (u64::BITS - ROWS_BITS) == 0 && row >> ROWS_BITS == 0;
        fits.then(|| SourcePosition {
            origin: xxh3_64_with_seed(&origin.to_le_bytes(), server) as u32,
            place: (number, pos << ROWS_BITS | row),
            committed_ms,
            is_unique: false,
        })
    }
}

/// A text of which only its hash is kept.
#[derive(Clone, Copy, Default)]
struct TextHash(u64);

/// A number, if it is one that is not negative.
#[derive(Clone, Copy, Default)]
struct Number(Option<u64>);

/// The name of a binlog file, as in `mysql-bin.000003`.
#[derive(Clone, Copy, Default)]
struct BinlogFile {
    base: u64,
    number: Option<u64>,
}

/// Whether a snapshot read the row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SnapshotMark(pub(super) bool);

/// What is made of the scalars that connectors write in a place, of whichever version.
trait Scalar: Default {
    fn of_text(_: &str) -> Self {
        Self::default()
    }
    fn of_number(_: u64) -> Self {
        Self::default()
    }
    fn of_bool(_: bool) -> Self {
        Self::default()
    }
}

impl Scalar for TextHash {
    fn of_text(text: &str) -> Self {
        Self(xxh3_64(text.as_bytes()))
    }
}

impl Scalar for Number {
    fn of_number(number: u64) -> Self {
        Self(Some(number))
    }
}

impl Scalar for BinlogFile {
    fn of_text(text: &str) -> Self {
        let (base, number) = text.rsplit_once('.').unwrap_or((text, ""));
        Self {
            base: xxh3_64(base.as_bytes()),
            number: number.parse().ok(),
        }
    }
}

impl Scalar for SnapshotMark {
    /// `first`, `last`, `incremental`, … stand in place of `true`.
    fn of_text(text: &str) -> Self {
        Self(text != "false")
    }
    fn of_bool(snapshot: bool) -> Self {
        Self(snapshot)
    }
}

struct ScalarVisitor<S>(PhantomData<S>);

impl<S: Scalar> Visitor<'_> for ScalarVisitor<S> {
    type Value = S;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }
    fn visit_unit<E: Error>(self) -> Result<S, E> {
        Ok(S::default())
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<S, E> {
        Ok(S::of_text(text))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<S, E> {
        Ok(S::of_number(number))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<S, E> {
        Ok(u64::try_from(number).map_or_else(|_| S::default(), S::of_number))
    }
    fn visit_bool<E: Error>(self, bool: bool) -> Result<S, E> {
        Ok(S::of_bool(bool))
    }
}

macro_rules! scalars {
    ($($part:ident)*) => {$(
        impl<'de> Deserialize<'de> for $part {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ScalarVisitor::<Self>(PhantomData))
            }
        }
    )*};
}

scalars! { TextHash Number BinlogFile SnapshotMark }

impl<'de> Deserialize<'de> for Operation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Letter;
        impl Visitor<'_> for Letter {
            type Value = Operation;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an operation's letter")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Operation, E> {
                Ok(Operation::of(text))
            }
        }
        deserializer.deserialize_str(Letter)
    }
}
