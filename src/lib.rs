//! # Thalweg
//!
//! Incremental computation over Kafka: dataflows written in Rust, kept up to date as records arrive, answered over HTTP
//! with rows that are consistent at a named moment.

pub mod bridge;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod dataflow;
pub mod demo;
pub mod error;
pub mod health;
pub mod http;
pub mod ingest;
pub mod ledger;
pub mod metrics;
pub mod operator;
pub mod position;
pub mod prelude;
pub mod record;
pub mod runtime;
pub mod sequencer;
pub mod source;
pub mod testing;
pub mod time;
pub mod timeline;
pub mod view;

pub use cli::main;
pub use dataflow::{Flow, dataflow};
pub use error::{Error, Kind, Result};
pub use operator::aggregate::Aggregate;
pub use record::{Event, F64, Record};
pub use time::{Epoch, EventTime, Window, Windowed};
