//! Rows in Avro, in the wire format of Confluent's serializers: schemas made of the rows' own, and
//! registered.
//!
//! ```text
//!   RowSchema ─▶ schema of keys, of payloads ─▶ registry: compatible? ─▶ registered under `<topic>-key`, `<topic>-value`
//!   row ─▶ 0x00, schema id, datum
//! ```
//!
//! | rows of | key | payload |
//! |---|---|---|
//! | `append_to` | none | the event: a record `Event`, or what it is where it is no struct |
//! | `upsert_to` | what it is, or a record `Key` | a record `Row` of all fields; none where the row is gone |
//! | `changes_to` | the same | a record `Change` of `before` and `after`, each a `Row` or null |

mod shape;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::shape::{Shape, record, shape, write_record};
use crate::codec::avro::long::write_long;
use crate::codec::confluent;
use crate::codec::registry::Registry;
use crate::codec::rows::{RowEncoder, RowEncoding, RowsOf};
use crate::error::{Error, Result};
use crate::schema::datum::Datum;
use crate::schema::{Field, RowSchema};
use crate::sink::method::Method;
use crate::sink::row::Row;

/// How long the registry may take for all that is asked of it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The encoding of rows that are given by a method.
pub(super) fn rows(method: Method) -> RowEncoding {
    RowEncoding {
        check: Arc::new(move |schema| Schemas::of(schema, method, "topic").map(drop)),
        encoder: Arc::new(move |of: &RowsOf<'_>| {
            let schemas = Schemas::of(of.schema, method, of.topic)?;
            let registry = of.registry.ok_or_else(|| {
                Error::definition("rows are to be written in Avro, and no schema registry is set")
                    .hint("--registry URL names one")
            })?;
            let id = |part: &str, schema: &Value| register(registry, &format!("{}-{part}", of.topic), schema);
            let key_id = schemas
                .key
                .as_ref()
                .map(|(schema, _)| id("key", schema))
                .transpose()?;
            let value_id = id("value", &schemas.value.0)?;
            Ok(Box::new(AvroRows {
                schema: of.schema.clone(),
                method,
                key: schemas.key.zip(key_id).map(|((_, shape), id)| (id, shape)),
                value: (value_id, schemas.value.1),
            }))
        }),
    }
}

/// Registers a schema as the next version of a subject, if it is compatible with those before.
fn register(registry: &Registry, subject: &str, schema: &Value) -> Result<u32> {
    let (asked, subject, text) = (registry.clone(), subject.to_owned(), schema.to_string());
    registry.wait(PATIENCE, async move {
        let ruling = asked.ruling(&subject, text.as_str()).await?;
        if !ruling.compatible {
            let what = format!("subject `{subject}` does not take the schema of the rows");
            let error = Error::definition(what).detail(format!("the schema: {text}"));
            let error = ruling
                .messages
                .iter()
                .fold(error, |error, message| error.detail(message));
            return Err(error.hint(
                "readers of older records, or older readers, could not follow: add fields as `Option`, or \
                write to a new topic",
            ));
        }
        asked.register(&subject, text.as_str()).await
    })
}

/// Schemas and shapes of keys, where there are any, and of payloads.
struct Schemas {
    key: Option<(Value, Shape)>,
    value: (Value, Shape),
}

impl Schemas {
    fn of(schema: &RowSchema, method: Method, topic: &str) -> Result<Self> {
        let space = namespace(topic);
        let spaced = |(mut schema, shape): (Value, Shape)| {
            if let Some(named) = schema.as_object_mut().filter(|named| named.contains_key("name")) {
                named.insert("namespace".to_owned(), json!(space));
            }
            (schema, shape)
        };
        if method == Method::AppendTo {
            let value = spaced(shape(schema.value_type(), "Event")?);
            return Ok(Self { key: None, value });
        }
        let key = match schema.single_key() {
            Some(ty) => shape(ty, "Key")?,
            None => fields("Key", schema.key.iter())?,
        };
        let row = fields("Row", schema.fields())?;
        let value = match method {
            Method::UpsertTo => row,
            _ => {
                let side = |name: &str, schema: Value| {
                    let ty = ["null".into(), schema];
                    json!({ "name": name, "type": ty, "default": null })
                };
                let sides = [side("before", row.0), side("after", json!("Row"))];
                (
                    json!({ "type": "record", "name": "Change", "fields": sides }),
                    row.1,
                )
            }
        };
        Ok(Self {
            key: Some(spaced(key)),
            value: spaced(value),
        })
    }
}

/// A record of fields.
fn fields<'a>(name: &str, fields: impl Iterator<Item = &'a Field>) -> Result<(Value, Shape)> {
    record(name, fields.map(|field| (field.name.clone(), &field.ty)))
}

/// A namespace of a topic's name: `payments.audit-log.v1` → `payments.audit_log.v1`.
fn namespace(topic: &str) -> String {
    let part = |part: &str| {
        let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = part.chars().map(fit).collect();
        match name.starts_with(|c: char| !c.is_ascii_digit()) {
            true => name,
            false => format!("_{name}"),
        }
    };
    topic.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Writes the rows of one shard.
struct AvroRows {
    schema: Arc<RowSchema>,
    method: Method,
    key: Option<(u32, Shape)>,
    /// Of a changelog the shape of a row.
    value: (u32, Shape),
}

impl RowEncoder for AvroRows {
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        let Some((id, shape)) = &self.key else {
            return Ok(false);
        };
        confluent::write(*id, out);
        let fields = self.schema.key_row(row.key()).ok_or_else(unreadable)?;
        let written = match (self.schema.single_key(), &fields[..]) {
            (Some(_), [field]) => shape.write(field, out),
            _ => written(shape, &fields, out),
        };
        written.map(|()| true).ok_or_else(unreadable)
    }

    fn payload(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        let (id, shape) = &self.value;
        if self.method == Method::UpsertTo && row.after().is_none() {
            return Ok(false);
        }
        confluent::write(*id, out);
        let written = match self.method {
            Method::AppendTo => {
                let event = row.after().and_then(|event| self.schema.whole_value(event));
                shape.write(&event.ok_or_else(unreadable)?, out)
            }
            Method::UpsertTo => {
                let fields = row.fields(&self.schema).ok_or_else(unreadable)?;
                written(shape, &fields, out)
            }
            Method::ChangesTo | Method::ForEachEpoch => {
                let before = row.before().map(|_| row.fields_before(&self.schema));
                let after = row.after().map(|_| row.fields(&self.schema));
                [before, after].into_iter().try_for_each(|side| match side {
                    None => {
                        write_long(0, out);
                        Some(())
                    }
                    Some(fields) => {
                        write_long(1, out);
                        written(shape, &fields?, out)
                    }
                })
            }
        };
        written.map(|()| true).ok_or_else(unreadable)
    }
}

/// Appends a row of these fields.
fn written(shape: &Shape, fields: &[Datum], out: &mut Vec<u8>) -> Option<()> {
    match shape {
        Shape::Record(shapes) => write_record(shapes, fields.iter(), out),
        _ => None,
    }
}

#[cold]
fn unreadable() -> Error {
    Error::internal("a row of a sink can't be decoded")
}

#[cfg(test)]
mod tests;
