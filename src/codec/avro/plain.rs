//! Avro without a header: every record is written in one schema that both sides were given.

use std::marker::PhantomData;
use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::plan::Plan;
use super::{Target, parse_writer, read};
use crate::codec::{Decode, Decoded};
use crate::error::{Error, Result};

/// Decodes bare data of one schema. No registry takes part.
pub struct Plain<T> {
    plan: Plan,
    fast: Rc<serde_avro_fast::Schema>,
    /// The rewritten datum.
    scratch: Vec<u8>,
    value: PhantomData<fn() -> T>,
}

impl<T> Plain<T> {
    /// A decoder of what is written in the schema `writer`; with `reader`, the schema that every datum is resolved to.
    /// Fails if one of them is no Avro schema, or if the one can't be resolved to the other.
    pub fn new(writer: &str, reader: Option<&str>) -> Result<Self> {
        let (plan, fast) = match reader {
            None => {
                let target = Target::of(writer)?;
                let plan = Plan::resolve(&target.resolved, &target.resolved);
                (plan, target.fast)
            }
            Some(reader) => {
                let target = Target::of(reader)?;
                let wrong = || Error::definition("cannot use the writer's Avro schema").detail(writer);
                let writer = parse_writer(writer).map_err(|_| wrong())?;
                (Plan::resolve(&writer, &target.resolved), target.fast)
            }
        };
        let plan = plan.ok_or_else(|| {
            Error::definition("the writer's Avro schema can't be resolved to the reader's")
                .hint("a field of the reader's alone needs a default, one that was renamed an alias")
        })?;
        Ok(Self {
            plan,
            fast,
            scratch: Vec::new(),
            value: PhantomData,
        })
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Plain<T> {
    #[inline]
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        match read(&self.plan, &self.fast, bytes, &mut self.scratch) {
            Ok(value) => Decoded::Value(value),
            Err(cause) => Decoded::Dead(cause, None),
        }
    }

    fn is_null(&mut self, bytes: &[u8]) -> bool {
        read::<()>(&self.plan, &self.fast, bytes, &mut self.scratch).is_ok()
    }
}
