//! Avro payloads: in the wire format of Confluent's serializers, and [`plain`].
//!
//! ```text
//!   bytes ─▶ schema id ─▶ Registry ─▶ writer's schema ─┐  decided once an id:
//!                                    reader's schema ──┴▶ Plan
//!            datum ─┬─ identical ──────────────────────▶ serde_avro_fast, reader's schema ─▶ T
//!                   └─ else: rewritten into the reader's schema ▲
//! ```
//!
//! Avro's rules bring a datum from the writer's schema to the reader's; serde's bring it from there to `T`, by the names
//! of fields. Without a reader's schema the writer's takes its place, and serde's rules alone hold: fields that `T` lacks
//! are passed over, fields that the schema lacks need a serde default.

mod default;
pub mod fit;
pub mod plain;
mod plan;
mod rewrite;
mod survey;

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::marker::PhantomData;
use std::rc::Rc;

use apache_avro::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_avro_fast::de::read::SliceRead;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState};
use serde_avro_fast::ser::SerializerConfig;
use serde_json::Value;

use super::registry::{Lookup, Registry, WriterSchema};
use super::{Cause, Decode, Decoded, confluent};
use crate::bridge::Waker;
use crate::error::{Error, Result};

use self::plan::Plan;
use self::rewrite::{DEPTH_MAX, WEIGHTLESS_ITEMS_MAX};

/// Decodes Avro, with the writer's schemas from a registry.
pub struct Avro<T> {
    registry: Registry,
    waker: Waker,
    reader: Option<Target>,
    /// What was decided of each id; `places` says where. Records mostly have the id of the record before.
    verdicts: Vec<Verdict>,
    places: HashMap<u32, usize>,
    last: Option<(u32, usize)>,
    /// Ids that the waker waits for already.
    waiting: HashSet<u32>,
    /// The rewritten datum.
    scratch: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

/// A schema to decode by: once for resolution, once for serde.
#[derive(Clone)]
struct Target {
    resolved: Rc<Schema>,
    fast: Rc<serde_avro_fast::Schema>,
}

enum Verdict {
    Dead(Cause),
    Reads {
        plan: Plan,
        fast: Rc<serde_avro_fast::Schema>,
    },
}

impl<T> Avro<T> {
    /// A decoder. `reader` is the text of the schema that every datum is resolved to; `waker` is called when a schema
    /// that a [`Decoded::Wait`] waits for has come. Fails if `reader` is no Avro schema.
    pub fn new(registry: Registry, reader: Option<&str>, waker: Waker) -> Result<Self> {
        let reader = match reader {
            None => None,
            Some(text) => Some(Target::of(text)?),
        };
        Ok(Self {
            registry,
            waker,
            reader,
            verdicts: Vec::new(),
            places: HashMap::new(),
            last: None,
            waiting: HashSet::new(),
            scratch: Vec::new(),
            value: PhantomData,
        })
    }

    /// Where the verdict on an id is, once there is one.
    #[inline]
    fn place(&mut self, id: u32) -> Option<usize> {
        if let Some((last, place)) = self.last
            && last == id
        {
            return Some(place);
        }
        let place = match self.places.get(&id) {
            Some(&place) => place,
            None => self.decide(id)?,
        };
        self.last = Some((id, place));
        Some(place)
    }

    #[cold]
    fn decide(&mut self, id: u32) -> Option<usize> {
        // One waker an id is enough, however often the reader tries.
        let found = match self.waiting.contains(&id) {
            true => self.registry.peek(id),
            false => self.registry.lookup(id, &self.waker),
        };
        let verdict = match found {
            Lookup::Pending => {
                self.waiting.insert(id);
                return None;
            }
            Lookup::Unknown => Verdict::Dead(Cause::SchemaUnknown),
            Lookup::Known(schema) => self
                .judge(&schema)
                .unwrap_or(Verdict::Dead(Cause::SchemaIncompatible)),
        };
        self.waiting.remove(&id);
        self.verdicts.push(verdict);
        self.places.insert(id, self.verdicts.len() - 1);
        Some(self.verdicts.len() - 1)
    }

    fn judge(&self, schema: &WriterSchema) -> Option<Verdict> {
        if !schema.avro {
            return None;
        }
        let writer = parse_writer(&schema.text).ok()?;
        let (plan, fast) = match &self.reader {
            Some(reader) => (Plan::resolve(&writer, &reader.resolved)?, reader.fast.clone()),
            None => (
                Plan::resolve(&writer, &writer)?,
                Rc::new(schema.text.parse().ok()?),
            ),
        };
        Some(Verdict::Reads { plan, fast })
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Avro<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        let (id, datum) = match confluent::split(bytes) {
            Ok(parts) => parts,
            Err(cause) => return Decoded::Dead(cause, None),
        };
        let Some(place) = self.place(id) else {
            return Decoded::Wait;
        };
        let read = match &self.verdicts[place] {
            Verdict::Dead(cause) => Err(*cause),
            Verdict::Reads { plan, fast } => read(plan, fast, datum, &mut self.scratch),
        };
        match read {
            Ok(value) => Decoded::Value(value),
            Err(cause) => Decoded::Dead(cause, Some(id)),
        }
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        let Ok((id, datum)) = confluent::split(bytes) else {
            return false;
        };
        let verdict = self.place(id).map(|place| &self.verdicts[place]);
        match verdict {
            Some(Verdict::Reads { plan, fast }) => read::<()>(plan, fast, datum, &mut self.scratch).is_ok(),
            Some(Verdict::Dead(_)) | None => false,
        }
    }
}

#[inline]
fn read<T: DeserializeOwned>(
    plan: &Plan,
    fast: &serde_avro_fast::Schema,
    datum: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<T, Cause> {
    if plan.identical && !plan.weightless {
        // Every item takes a byte at least, so no array has more items than the datum has bytes.
        return deserialize(fast, datum, datum.len()).ok_or_else(|| blame(plan, datum, scratch));
    }
    plan.rewrite(datum, scratch)?;
    let items_max = scratch.len() + WEIGHTLESS_ITEMS_MAX;
    deserialize(fast, scratch, items_max).ok_or(Cause::SchemaIncompatible)
}

/// Why a datum could not be decoded as it is: because of its bytes, or because the type has no place for it.
#[cold]
fn blame(plan: &Plan, datum: &[u8], scratch: &mut Vec<u8>) -> Cause {
    plan.rewrite(datum, scratch)
        .err()
        .unwrap_or(Cause::SchemaIncompatible)
}

/// All of `datum` as a `T`, or nothing.
#[inline]
fn deserialize<T: DeserializeOwned>(
    schema: &serde_avro_fast::Schema,
    datum: &[u8],
    items_max: usize,
) -> Option<T> {
    let mut config = DeserializerConfig::new(schema);
    config.max_seq_size = items_max;
    config.allowed_depth = DEPTH_MAX;
    let mut state = DeserializerState::with_config(SliceRead::new(datum), config);
    let value = T::deserialize(state.deserializer()).ok()?;
    let mut rest = state.into_reader();
    rest.fill_buf().is_ok_and(<[u8]>::is_empty).then_some(value)
}

impl Target {
    fn of(text: &str) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::definition("cannot use a text as an Avro schema").detail(error)
        };
        let resolved = Schema::parse_str(text).map_err(|error| wrong(&error))?;
        let fast: serde_avro_fast::Schema = text.parse().map_err(|error| wrong(&error))?;
        Plan::resolve(&resolved, &resolved).ok_or_else(|| wrong(&"the schema does not resolve to itself"))?;
        Ok(Self {
            resolved: Rc::new(resolved),
            fast: Rc::new(fast),
        })
    }
}

/// Whether `text` can be a reader's schema.
pub fn check_reader(text: &str) -> Result<()> {
    Target::of(text).map(drop)
}

/// Whether `text` can be a writer's schema; if not, why.
pub(super) fn check_writer(text: &str) -> Result<(), String> {
    parse_writer(text).map(drop)
}

/// Parses a writer's schema. Its defaults mean nothing to a reader, and wrong ones are common: they are passed over.
fn parse_writer(text: &str) -> Result<Schema, String> {
    let mut json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    strip_defaults(&mut json);
    Schema::parse(&json).map_err(|error| error.to_string())
}

fn strip_defaults(json: &mut Value) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(strip_defaults),
        Value::Object(object) => {
            if let Some(Value::Array(fields)) = object.get_mut("fields") {
                for field in fields.iter_mut().filter_map(Value::as_object_mut) {
                    field.remove("default");
                }
            }
            object.values_mut().for_each(strip_defaults);
        }
        _ => {}
    }
}

/// Encodes values in one schema, in the wire format of Confluent's serializers.
pub struct Encoder<T> {
    id: u32,
    schema: serde_avro_fast::Schema,
    value: PhantomData<fn(&T)>,
}

impl<T: Serialize> Encoder<T> {
    /// An encoder for the schema `text`, which the registry calls `id`. Fails if `text` is no Avro schema.
    pub fn new(id: u32, text: &str) -> Result<Self> {
        let wrong = |error| Error::definition(format!("cannot use Avro schema {id}")).detail(error);
        Ok(Self {
            id,
            schema: text.parse().map_err(wrong)?,
            value: PhantomData,
        })
    }

    /// Appends `value` to `out`: header and datum. Fails, and leaves `out` as it was, if the value does not fit the
    /// schema.
    pub fn encode_into(&self, value: &T, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        confluent::write(self.id, out);
        match serde_avro_fast::to_datum(value, &mut *out, &mut SerializerConfig::new(&self.schema)) {
            Ok(_) => Ok(()),
            Err(error) => {
                out.truncate(start);
                Err(Error::definition(format!("a value does not fit Avro schema {}", self.id)).detail(error))
            }
        }
    }

    /// `value` as a payload of its own.
    pub fn encode(&self, value: &T) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.encode_into(value, &mut out)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
