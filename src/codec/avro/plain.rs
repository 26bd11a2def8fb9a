//! Avro without a header: every record is written in one schema that both sides were given.

use std::marker::PhantomData;
use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::plan::RewritePlan;
use super::schema::Schema;
use super::{read, reader};
use crate::codec::{Decode, Decoded};
use crate::error::{Error, Result};

/// Decodes bare data of one schema. No registry takes part.
pub(crate) struct Plain<T> {
    plan: RewritePlan,
    schema: Rc<Schema>,
    /// The rewritten datum.
    scratch: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

impl<T> Plain<T> {
    /// A decoder of what is written in the schema `writer`; with `readers`, the schema that every datum is
    /// resolved to. Fails if one of them is no Avro schema, or if the one can't be resolved to the other.
    pub(crate) fn new(writer: &str, readers: Option<&str>) -> Result<Self> {
        let wrong = |why| {
            Error::definition("cannot use the writer's Avro schema")
                .detail(why)
                .detail(writer)
        };
        let (plan, schema) = match readers {
            None => {
                let schema = reader(writer)?;
                (RewritePlan::resolve(&schema, &schema), schema)
            }
            Some(text) => {
                let (writer, schema) = (Schema::parse(writer).map_err(wrong)?, reader(text)?);
                (RewritePlan::resolve(&writer, &schema), schema)
            }
        };
        let plan = plan.ok_or_else(|| {
            Error::definition("the writer's Avro schema can't be resolved to the reader's")
                .hint("a field of the reader's alone needs a default, one that was renamed an alias")
        })?;
        Ok(Self {
            plan,
            schema,
            scratch: Vec::new(),
            value: PhantomData,
        })
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Plain<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        match read(&self.plan, &self.schema, bytes, &mut self.scratch) {
            Ok(value) => Decoded::Value(value),
            Err(cause) => Decoded::Dead(cause, None),
        }
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        read::<()>(&self.plan, &self.schema, bytes, &mut self.scratch).is_ok()
    }
}
