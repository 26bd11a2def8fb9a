//! Rows of a single value as text or bytes, as [`text`](super::text) and [`bytes`](super::bytes) read them.
//!
//! | rows of | key | payload |
//! |---|---|---|
//! | `append_to` | none | the event |
//! | `upsert_to` | the key | the value alone; none where the row is gone |

use std::sync::Arc;

use super::rows::{RowEncoder, RowEncoding, RowsOf};
use crate::error::{Error, Result};
use crate::schema::RowSchema;
use crate::schema::datum::Datum;
use crate::schema::types::Type;
use crate::sink::method::Method;
use crate::sink::row::Row;

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Text,
    Bytes,
}

impl Plain {
    /// The encoding of rows that are given by a method. `None`: they are no single values.
    pub(super) fn rows(self, method: Method) -> Option<RowEncoding> {
        if !matches!(method, Method::AppendTo | Method::UpsertTo) {
            return None;
        }
        Some(RowEncoding {
            check: Arc::new(move |schema| self.check(schema, method)),
            encoder: Arc::new(move |of: &RowsOf<'_>| {
                self.check(of.schema, method)?;
                let schema = of.schema.clone();
                Ok(Box::new(PlainRows {
                    plain: self,
                    method,
                    schema,
                }))
            }),
        })
    }

    fn check(self, schema: &RowSchema, method: Method) -> Result<()> {
        let fits = |ty: &Type| match (self, ty) {
            (_, Type::Bool | Type::Int(_) | Type::UInt(_) | Type::Float(_) | Type::Text) => true,
            (Plain::Text, Type::Enum(variants)) => variants.iter().all(|variant| variant.content.is_none()),
            (Plain::Bytes, Type::Bytes) => true,
            _ => false,
        };
        let form = match self {
            Plain::Text => "text: it takes a number, a boolean, a string, or an enum without contents",
            Plain::Bytes => "bytes: they take a number, a boolean, a string, or bytes",
        };
        let value = schema.value_type();
        let parts = match method {
            Method::AppendTo => vec![("an event", Some(value))],
            _ => vec![("a key", schema.single_key()), ("a value", Some(value))],
        };
        match parts.into_iter().find(|(_, ty)| !ty.is_some_and(fits)) {
            None => Ok(()),
            Some((part, ty)) => {
                let of = ty.map_or("several fields".to_owned(), |ty| format!("type {ty}"));
                Err(
                    Error::definition(format!("{part} of {of} can't be written as {form}"))
                        .hint("`json()` and `avro()` take rows of any fields"),
                )
            }
        }
    }

    /// Appends a value; `None`: it is of another type.
    fn write(self, ty: &Type, datum: &Datum, out: &mut Vec<u8>) -> Option<()> {
        match (self, datum) {
            (Plain::Text, Datum::Bool(value)) => out.extend(value.to_string().as_bytes()),
            (Plain::Text, Datum::Int(value)) => out.extend(value.to_string().as_bytes()),
            (_, Datum::UInt(value)) => match self {
                Plain::Text => out.extend(value.to_string().as_bytes()),
                Plain::Bytes => out.extend(value.to_be_bytes()),
            },
            (Plain::Text, Datum::Float(value)) => match ty {
                Type::Float(32) => out.extend((*value as f32).to_string().as_bytes()),
                _ => out.extend(value.to_string().as_bytes()),
            },
            (Plain::Text, Datum::Variant(_, name, None)) => out.extend(name.as_bytes()),
            (_, Datum::Text(text)) => out.extend(text.as_bytes()),
            (Plain::Bytes, Datum::Bool(value)) => out.push(u8::from(*value)),
            (Plain::Bytes, Datum::Bytes(bytes)) => out.extend(bytes),
            (Plain::Bytes, Datum::Int(value)) => {
                let (Type::Int(bits) | Type::UInt(bits)) = ty else {
                    return None;
                };
                let wide = value.to_be_bytes();
                out.extend(wide.get(16 - usize::from(*bits) / 8..)?);
            }
            (Plain::Bytes, Datum::Float(value)) => match ty {
                Type::Float(32) => out.extend((*value as f32).to_be_bytes()),
                _ => out.extend(value.to_be_bytes()),
            },
            _ => return None,
        }
        Some(())
    }
}

struct PlainRows {
    plain: Plain,
    method: Method,
    schema: Arc<RowSchema>,
}

impl RowEncoder for PlainRows {
    fn key(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        if self.method == Method::AppendTo {
            return Ok(false);
        }
        let fields = self.schema.key_row(row.key());
        let field = fields.as_ref().and_then(|fields| fields.first());
        let written = self.schema.single_key().zip(field);
        let written = written.and_then(|(ty, field)| self.plain.write(ty, field, out));
        written.map(|()| true).ok_or_else(unreadable)
    }

    fn payload(&mut self, row: &Row, out: &mut Vec<u8>) -> Result<bool> {
        let Some(value) = row.after() else {
            return Ok(false);
        };
        let value = self.schema.whole_value(value).ok_or_else(unreadable)?;
        let written = self.plain.write(self.schema.value_type(), &value, out);
        written.map(|()| true).ok_or_else(unreadable)
    }
}

#[cold]
fn unreadable() -> Error {
    Error::internal("a row of a sink can't be decoded")
}

#[cfg(test)]
mod tests;
