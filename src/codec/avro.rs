//! Avro payloads: in the wire format of Confluent's serializers, and [`plain`].
//!
//! ```text
//!   bytes ─▶ schema id ─▶ Registry ─▶ writer's schema ─┐  decided once an id:
//!                                    reader's schema ──┴▶ Plan
//!            datum ─┬─ identical ──────────────────────▶ deserialized, by the reader's schema ─▶ T
//!                   └─ else: rewritten into the reader's schema ▲
//! ```
//!
//! Avro's rules bring a datum from the writer's schema to the reader's; serde's bring it from there to `T`,
//! by the names of fields. Without a reader's schema the writer's takes its place, and serde's rules alone
//! hold: fields that `T` lacks are passed over, fields that the schema lacks need a serde default.

mod datum;
mod decimal;
mod default;
pub mod fit;
pub mod format;
mod long;
pub(crate) mod plain;
mod plan;
mod resolve;
mod rewrite;
mod rows;
pub(super) mod schema;

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_avro_fast::ser::SerializerConfig;

use super::registry::{Lookup, Place, Registry, WriterSchema};
use super::{Cause, Decode, Decoded, confluent, registry};
use crate::bridge::Waker;
use crate::error::{Error, Result};
use crate::position::Offset;

use self::datum::deserialize;
use self::default::encode_default;
use self::plan::Plan;
use self::schema::{Kind, Schema};

/// Decodes Avro, with the writer's schemas from a registry.
pub struct Avro<T> {
    registry: Registry,
    waker: Waker,
    reader: Option<Rc<Schema>>,
    /// What was decided of each id; `places` says where. Records mostly have the id of the record before.
    verdicts: Vec<Verdict>,
    places: HashMap<u32, usize>,
    last: Option<(u32, usize)>,
    /// The same of ids that were unknown once: by partition, with the offset from which on they are known
    /// there.
    late: HashMap<(u32, u32), (Offset, usize)>,
    /// Where the records stand that are decoded now.
    at: Place,
    /// Ids that the waker waits for already.
    waiting: HashSet<u32>,
    /// The rewritten datum.
    scratch: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

/// What to do with a record.
enum Ruling {
    /// What was decided of its schema, by its place.
    Verdict(usize),
    /// Nothing can be done: the registry does not know its schema.
    Unknown,
    /// Its schema is being fetched.
    Wait,
}

enum Verdict {
    Dead(Cause),
    Reads { plan: Plan, schema: Rc<Schema> },
}

impl<T> Avro<T> {
    /// A decoder. `reader` is the text of the schema that every datum is resolved to; `waker` is called when
    /// a schema that a [`Decoded::Wait`] waits for has come. Fails if `reader` is no Avro schema.
    pub fn new(registry: Registry, reader: Option<&str>, waker: Waker) -> Result<Self> {
        let reader = reader.map(self::reader).transpose()?;
        Ok(Self {
            registry,
            waker,
            reader,
            verdicts: Vec::new(),
            places: HashMap::new(),
            last: None,
            late: HashMap::new(),
            at: Place::default(),
            waiting: HashSet::new(),
            scratch: Vec::new(),
            value: PhantomData,
        })
    }

    /// What to do with records of an id.
    #[inline]
    fn ruling(&mut self, id: u32) -> Ruling {
        match self.last {
            Some((last, place)) if last == id => Ruling::Verdict(place),
            _ => self.look_up(id),
        }
    }

    fn look_up(&mut self, id: u32) -> Ruling {
        if let Some(&place) = self.places.get(&id) {
            self.last = Some((id, place));
            return Ruling::Verdict(place);
        }
        match self.late.get(&(id, self.at.partition)) {
            Some(&(since, place)) if self.at.offset >= since => Ruling::Verdict(place),
            _ => self.decide(id),
        }
    }

    #[cold]
    fn decide(&mut self, id: u32) -> Ruling {
        // One waker an id is enough, however often the reader tries.
        let waker = (!self.waiting.contains(&id)).then_some(&self.waker);
        let found = self.registry.lookup(id, self.at, waker);
        if found == Lookup::Pending {
            self.waiting.insert(id);
            return Ruling::Wait;
        }
        self.waiting.remove(&id);
        match found {
            Lookup::Pending => Ruling::Wait,
            Lookup::Unknown => Ruling::Unknown,
            Lookup::Known(schema) => {
                let place = self.enter_verdict(&schema);
                self.places.insert(id, place);
                self.last = Some((id, place));
                Ruling::Verdict(place)
            }
            Lookup::KnownSince(schema, since) => {
                let known = self.late.iter().find(|((of, _), _)| *of == id);
                let place = match known.map(|(_, (_, place))| *place) {
                    Some(place) => place,
                    None => self.enter_verdict(&schema),
                };
                self.late.insert((id, self.at.partition), (since, place));
                Ruling::Verdict(place)
            }
        }
    }

    fn enter_verdict(&mut self, schema: &WriterSchema) -> usize {
        let verdict = self.judge(schema).unwrap_or_else(|why| {
            tracing::warn!(
                schema = schema.id,
                "no record of schema {} can be decoded: {why}",
                schema.id
            );
            Verdict::Dead(Cause::SchemaIncompatible)
        });
        self.verdicts.push(verdict);
        self.verdicts.len() - 1
    }

    fn judge(&self, schema: &WriterSchema) -> Result<Verdict, String> {
        if !schema.avro {
            return Err("it is no Avro schema that stands alone".to_owned());
        }
        let writer = Rc::new(Schema::parse(&schema.text)?);
        let reader = self.reader.as_ref().unwrap_or(&writer);
        let plan = Plan::resolve(&writer, reader).ok_or("it can't be resolved to the reader's")?;
        Ok(Verdict::Reads {
            plan,
            schema: reader.clone(),
        })
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Avro<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        self.decode_at(0, bytes)
    }

    fn enter(&mut self, partition: u32, bound: bool) {
        self.at.partition = partition;
        self.at.bound = bound;
    }

    #[inline]
    fn decode_at(&mut self, offset: Offset, bytes: &[u8]) -> Decoded<T> {
        let (id, datum) = match confluent::split(bytes) {
            Ok(parts) => parts,
            Err(cause) => return Decoded::Dead(cause, None),
        };
        self.at.offset = offset;
        let read = match self.ruling(id) {
            Ruling::Wait => return Decoded::Wait,
            Ruling::Unknown => Err(Cause::SchemaUnknown),
            Ruling::Verdict(place) => match &self.verdicts[place] {
                Verdict::Dead(cause) => Err(*cause),
                Verdict::Reads { plan, schema } => read(plan, schema, datum, &mut self.scratch),
            },
        };
        match read {
            Ok(value) => Decoded::Value(value),
            Err(cause) => Decoded::Dead(cause, Some(id)),
        }
    }

    fn schemas_seen(&mut self) -> Vec<registry::Verdict> {
        self.registry.seen()
    }

    fn bind_schema(&mut self, verdict: registry::Verdict) {
        self.registry.bind(verdict);
    }

    fn broken(&self) -> Option<Error> {
        self.registry.broken()
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        let Ok((id, datum)) = confluent::split(bytes) else {
            return false;
        };
        let Ruling::Verdict(place) = self.ruling(id) else {
            return false;
        };
        match &self.verdicts[place] {
            Verdict::Reads { plan, schema } => read::<()>(plan, schema, datum, &mut self.scratch).is_ok(),
            Verdict::Dead(_) => false,
        }
    }
}

#[inline]
fn read<T: DeserializeOwned>(
    plan: &Plan,
    schema: &Schema,
    datum: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<T, Cause> {
    if plan.identical {
        return deserialize(schema, datum).ok_or_else(|| blame(plan, datum, scratch));
    }
    plan.rewrite(datum, scratch)?;
    deserialize(schema, scratch).ok_or(Cause::SchemaIncompatible)
}

/// Why a datum could not be decoded as it is: because of its bytes, or because the type has no place for it.
#[cold]
fn blame(plan: &Plan, datum: &[u8], scratch: &mut Vec<u8>) -> Cause {
    plan.rewrite(datum, scratch)
        .err()
        .unwrap_or(Cause::SchemaIncompatible)
}

/// A reader's schema. Its defaults must be right, as they may become data.
fn reader(text: &str) -> Result<Rc<Schema>> {
    let wrong = |why: String| Error::definition("cannot use a text as an Avro schema").detail(why);
    let schema = Schema::parse(text).map_err(wrong)?;
    check_defaults(&schema).map_err(wrong)?;
    Ok(Rc::new(schema))
}

fn check_defaults(schema: &Schema) -> Result<(), String> {
    for node in schema.nodes() {
        match &node.kind {
            Kind::Enum(symbols) => {
                if let Some(default) = symbols
                    .default
                    .as_ref()
                    .filter(|own| !symbols.symbols.contains(own))
                {
                    let name = &symbols.name.full;
                    return Err(format!(
                        "enum `{name}`: its default `{default}` is none of its symbols"
                    ));
                }
            }
            Kind::Record(record) => {
                for field in &record.fields {
                    let Some(json) = &field.default else { continue };
                    if encode_default(schema, field.node, json, &mut Vec::new()).is_none() {
                        let (record, name, word) = (&record.name.full, &field.name, schema.word(field.node));
                        return Err(format!(
                            "record `{record}`: field `{name}`: its default `{json}` is no {word}"
                        ));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `text` can be a reader's schema.
pub fn check_reader(text: &str) -> Result<()> {
    reader(text).map(drop)
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

    /// Appends `value` to `out`: header and datum. Fails, and leaves `out` as it was, if the value does not
    /// fit the schema.
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
