//! From the payload of a change event to an [`Envelope`], in JSON and in Avro.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::envelope::{CapturedChange, Envelope, PartialRow, WrittenRow};
use super::missing::{PlaceholderFinder, RowColumns, is_placeholder};
use super::shape::Shape;
use super::wire::{EventFields, EventSource, JsonEventFields, Operation};
use crate::codec::avro::format::AvroFormat;
use crate::codec::format::{DecoderResources, Format, Keys, SchemaComparison};
use crate::codec::registry::Verdict;
use crate::codec::{Cause, Decode, Decoded, unmarked};
use crate::error::{Error, Result};
use crate::position::Offset;

/// What a row may be: it is read from events, and written where a column has to be taken from it.
pub trait CapturedRow: Serialize + DeserializeOwned + 'static {}
impl<T: Serialize + DeserializeOwned + 'static> CapturedRow for T {}

/// Change events in JSON, as Kafka Connect's converter writes them: with a schema around each
/// (`schemas.enable`), or without; every record may be either.
#[derive(Clone, Copy, Debug)]
pub struct EventJson;

/// Change events in Avro, with schemas from the registry.
#[derive(Clone, Debug, Default)]
pub struct EventAvro(AvroFormat);

impl<V: CapturedRow> Format<Envelope<V>> for EventJson {
    fn name(&self) -> &'static str {
        "debezium_json"
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> Result<Box<dyn Decode<Envelope<V>>>> {
        Ok(Box::new(EventDecoder {
            whole: Box::new(Json(PhantomData)),
            columns: Box::new(Json(PhantomData)),
            typed: false,
            suspects: PlaceholderFinder::new(),
            shape: Shape::of::<V>(),
        }))
    }
}

impl<V: CapturedRow> Format<Envelope<V>> for EventAvro {
    fn name(&self) -> &'static str {
        "debezium_avro"
    }

    fn decoder(&self, resources: &DecoderResources<'_>) -> Result<Box<dyn Decode<Envelope<V>>>> {
        Ok(Box::new(EventDecoder {
            whole: self.0.decoder(resources)?,
            columns: self.0.decoder(resources)?,
            typed: true,
            suspects: PlaceholderFinder::new(),
            shape: Shape::of::<V>(),
        }))
    }

    fn compare(&self) -> Option<SchemaComparison> {
        Format::<EventFields<V>>::compare(&self.0)
    }

    fn keys(&self) -> Keys {
        Keys::Avro
    }
}

/// Decodes change events.
struct EventDecoder<V> {
    /// The row at once.
    whole: Box<dyn Decode<EventFields<V>>>,
    /// Its columns by name, to see which of them Debezium left out.
    columns: Box<dyn Decode<EventFields<RowColumns>>>,
    /// Whether the bytes say more of a value than its columns do, as Avro's do of decimals.
    typed: bool,
    suspects: PlaceholderFinder,
    shape: Shape,
}

impl<V: CapturedRow> EventDecoder<V> {
    fn whole(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<Envelope<V>> {
        match self.whole.decode_at(offset, bytes) {
            Decoded::Value(wire) => envelope(wire, WrittenRow::Whole),
            Decoded::Dead(cause, schema) => Decoded::Dead(cause, schema),
            Decoded::DeadAt(cause, schema, place) => Decoded::DeadAt(cause, schema, place),
            Decoded::Wait => Decoded::Wait,
        }
    }

    /// An event in which columns may be left out.
    #[cold]
    fn partial(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<Envelope<V>> {
        let Decoded::Value(EventFields { op, after, source }) = self.columns.decode_at(offset, bytes) else {
            return self.whole(offset, bytes);
        };
        let Some(RowColumns(Value::Object(columns))) = after else {
            return self.whole(offset, bytes);
        };
        let left_out = columns.iter().filter(|(_, value)| is_placeholder(value));
        let missing: Vec<String> = left_out
            .filter(|(column, _)| self.shape.reads(column))
            .map(|(column, _)| column.clone())
            .collect();
        if missing.is_empty() {
            return self.whole(offset, bytes);
        }
        let typed = match self.typed.then(|| self.whole.decode_at(offset, bytes)) {
            Some(Decoded::Value(EventFields { after: Some(row), .. })) => serde_json::to_value(row).ok(),
            _ => None,
        };
        let mut columns = match typed {
            Some(Value::Object(typed)) => typed,
            _ => columns,
        };
        columns.retain(|column, _| !missing.contains(column));
        let partial = PartialRow {
            columns: Value::Object(columns).to_string(),
            missing,
        };
        let wire = EventFields {
            op,
            after: Some(Box::new(partial)),
            source,
        };
        envelope(wire, WrittenRow::Partial)
    }
}

impl<V: CapturedRow> Decode<Envelope<V>> for EventDecoder<V> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<Envelope<V>> {
        self.decode_at(0, bytes)
    }

    fn enter(&mut self, partition: u32, bound: bool) {
        self.whole.enter(partition, bound);
        self.columns.enter(partition, bound);
    }

    #[inline]
    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<Envelope<V>> {
        match self.suspects.suspect(bytes) {
            false => self.whole(offset, bytes),
            true => self.partial(offset, bytes),
        }
    }

    fn schemas_seen(&mut self) -> Vec<Verdict> {
        let mut seen = self.whole.schemas_seen();
        // Both ask one registry.
        let more = self.columns.schemas_seen().into_iter();
        seen.extend(more.filter(|verdict| !seen.contains(verdict)).collect::<Vec<_>>());
        seen
    }

    fn bind_schema(&mut self, verdict: Verdict) {
        self.whole.bind_schema(verdict);
        self.columns.bind_schema(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.whole.broken().or_else(|| self.columns.broken())
    }
}

/// What an event says, with what it has of the row.
fn envelope<V, W>(wire: EventFields<W>, written: impl FnOnce(W) -> WrittenRow<V>) -> Decoded<Envelope<V>> {
    let EventFields { op, after, source } = wire;
    let wrong = |what: &str| Decoded::DeadAt(Cause::EnvelopeInvalid, None, what.into());
    let snapshot = source.snapshot.0 || op == Operation::Read;
    let change = match op {
        Operation::Read | Operation::Create | Operation::Update => match after.map(written) {
            Some(row) => CapturedChange::Row { row, snapshot },
            None => return wrong("`after` is null in an event that writes a row"),
        },
        Operation::Delete => CapturedChange::Deleted,
        Operation::Truncate => CapturedChange::Truncated,
        Operation::Message => CapturedChange::Message,
        Operation::Heartbeat => CapturedChange::Heartbeat,
        Operation::Nothing => CapturedChange::Tombstone,
        Operation::Other => return wrong("`op` is none of r, c, u, d, t and m"),
    };
    let at = if snapshot { None } else { source.position() };
    Decoded::Value(Envelope { change, at })
}

/// Decodes JSON.
struct Json<V>(PhantomData<fn() -> V>);

impl<V: DeserializeOwned + 'static> Decode<EventFields<V>> for Json<V> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<EventFields<V>> {
        let bytes = unmarked(bytes);
        let read = serde_json::from_slice::<JsonEventFields<V>>(bytes);
        match read.ok().and_then(JsonEventFields::event) {
            Some(event) => Decoded::Value(event),
            None => other(bytes),
        }
    }
}

/// What a payload is that is no event, or holds no row of the type.
#[cold]
fn other<V>(bytes: &[u8]) -> Decoded<EventFields<V>> {
    let value = match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => value,
        Err(error) if error.is_data() => return Decoded::Dead(Cause::JsonType, None),
        Err(_) => return Decoded::Dead(Cause::JsonSyntax, None),
    };
    let payload = match &value {
        Value::Object(fields) if fields.contains_key("schema") => fields.get("payload").unwrap_or(&value),
        _ => &value,
    };
    let nothing = |op| {
        Decoded::Value(EventFields {
            op,
            after: None,
            source: EventSource::default(),
        })
    };
    let fields = match payload {
        Value::Null => return nothing(Operation::Nothing),
        Value::Object(fields) => fields,
        _ => return Decoded::DeadAt(Cause::EnvelopeInvalid, None, NO_EVENT.into()),
    };
    let has = |name: &str| fields.contains_key(name);
    let why = if has("op") && has("source") {
        return Decoded::DeadAt(Cause::JsonType, None, "after".into());
    } else if fields
        .keys()
        .all(|name| name == "ts_ms" || name == "ts_us" || name == "ts_ns")
    {
        return nothing(Operation::Heartbeat);
    } else if has("ddl") || has("tableChanges") {
        "a change of the database's schema: its topic is no table"
    } else if has("status") && has("id") {
        "a boundary of a transaction: its topic is no table"
    } else {
        NO_EVENT
    };
    Decoded::DeadAt(Cause::EnvelopeInvalid, None, why.into())
}

const NO_EVENT: &str = "no `op` and `source`: rows that were taken out of their events \
    (ExtractNewRecordState) are read by `.json().keyed()`";
