//! # Thalweg
//!
//! Incremental computation over Kafka: dataflows written in Rust, kept up to date as records arrive, answered over HTTP
//! with rows that are consistent at a named moment.

pub mod bridge;
pub mod clock;
pub mod codec;
pub mod error;
pub mod ledger;
pub mod position;
pub mod record;
pub mod source;
pub mod time;

pub use error::{Error, Kind, Result};
pub use record::{Event, F64, Record};
pub use time::{Epoch, EventTime, Window, Windowed};
