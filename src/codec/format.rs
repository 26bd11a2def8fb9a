//! How one part of the records of a source is written, whatever brings them: the one trait that a format
//! implements.
//!
//! ```text
//!   Kafka::topic("t") ─┐                    ┌─ name      what people call it
//!   Files::lines("f") ─┼── .format(f) ──▶ f ├─ prepare   its schemas are read and checked, once a source
//!   any other source  ─┘                    ├─ decoder   bytes ─▶ T, one a worker; its verdicts on schema ids are bound
//!                                           ├─ compare   a registered schema against T
//!                                           ├─ rows      rows ─▶ bytes, for sinks
//!                                           └─ keys      how keys are written beside it
//! ```
//!
//! A format of your own is a type with this trait. This one reads `name=value` pairs, and any source takes
//! it:
//!
//! ```
//! use std::collections::BTreeMap;
//! use thalweg::codec::format::{Format, DecoderResources};
//! use thalweg::codec::{Cause, Decode, Decoded};
//! use thalweg::prelude::*;
//!
//! /// Pairs with spaces between: `sensor=7 celsius=21`.
//! struct Pairs;
//!
//! type Reading = BTreeMap<String, String>;
//!
//! impl Format<Reading> for Pairs {
//!     fn name(&self) -> &'static str {
//!         "pairs"
//!     }
//!     fn decoder(&self, _: &DecoderResources<'_>) -> Result<Box<dyn Decode<Reading>>> {
//!         Ok(Box::new(Pairs))
//!     }
//! }
//!
//! impl Decode<Reading> for Pairs {
//!     fn decode(&mut self, bytes: &[u8]) -> Decoded<Reading> {
//!         let Ok(text) = std::str::from_utf8(bytes) else {
//!             return Decoded::Dead(Cause::TextInvalid, None);
//!         };
//!         let mut reading = Reading::new();
//!         for pair in text.split_ascii_whitespace() {
//!             let Some((name, value)) = pair.split_once('=') else {
//!                 return Decoded::DeadAt(Cause::TextInvalid, None, pair.into());
//!             };
//!             reading.insert(name.to_owned(), value.to_owned());
//!         }
//!         Decoded::Value(reading)
//!     }
//! }
//!
//! fn celsius(flow: Dataflow) {
//!     let rows = |reading: Reading| (reading["sensor"].clone(), reading.get("celsius").cloned());
//!     flow.table("now", Files::lines("in/*.txt").format(Pairs).keyed(rows)).view("celsius");
//!     flow.source("readings", Kafka::topic("sensors.readings.v1").format(Pairs));
//! }
//! thalweg::runtime::plan(&dataflow("celsius", celsius), &Default::default())?;
//! # Ok::<(), Error>(())
//! ```

use std::any::Any;
use std::sync::Arc;

use super::Decode;
use super::compatibility::Incompatibility;
use super::registry::{Registry, WriterSchema};
use super::rows::RowEncoding;
use crate::bridge::Waker;
use crate::error::Result;
use crate::sink::method::Method;

/// A format that values of type `T` are read from.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a format of `{T}`")]
pub trait Format<T>: Any {
    /// The fixed word for it, as `/v1/sources` shows it: `json`.
    fn name(&self) -> &'static str;

    /// Reads what the format needs of files and checks it. Called once, when the source is opened, before all
    /// else.
    ///
    /// # Errors
    /// The format can't be used: a file is missing, or a schema is none.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// A decoder of one part (key or payload) of the source's records, on one worker.
    ///
    /// # Errors
    /// Something is missing that decoding takes, such as a schema registry.
    fn decoder(&self, resources: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>>;

    /// Where values that are written in a schema of the registry do not fit `T`. `None`: no registry knows
    /// such a format.
    fn compare(&self) -> Option<SchemaComparison> {
        None
    }

    /// How rows that a sink is given by this method are written. `None`: this format is only read.
    fn rows(&self, _: Method) -> Option<RowEncoding> {
        None
    }

    /// How keys are written beside payloads in this format, where nothing else is said.
    fn keys(&self) -> Keys {
        Keys::Text
    }
}

/// What a decoder may use.
pub struct DecoderResources<'a> {
    /// The schema registry, as the source sees it.
    pub registry: Option<&'a Registry>,
    /// Wakes the worker: for decoders that wait for something.
    pub waker: &'a Waker,
}

/// Tells where what is written in a schema does not fit.
pub type SchemaComparison = Arc<dyn Fn(&WriterSchema) -> Vec<Incompatibility> + Send + Sync>;

/// A format that keys of every type have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The bare text of one value.
    Text,
    /// Bytes, and numbers as Kafka's own serializers write them.
    Bytes,
    /// JSON; strict: without fields that the type lacks.
    Json {
        /// Whether a field that the type lacks makes a dead letter of the record.
        strict: bool,
    },
    /// Avro with schemas from the registry.
    Avro,
    /// Protobuf with schemas from the registry.
    #[cfg(feature = "protobuf")]
    Protobuf,
    /// JSON with schemas from the registry.
    JsonSchema,
}
