//! # Thalweg
//!
//! An incremental stream processor. Dataflows are Rust functions over Kafka topics; their results are
//! maintained as records arrive and served over HTTP, as of a named epoch.
//!
//! A dataflow is a function, a binary is a list of dataflows:
//!
//! ```no_run
//! use thalweg::prelude::*;
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Payment { merchant: u32, cents: i64, at_ms: i64 }
//!
//! fn spend(flow: Dataflow) {
//!     let payments = Kafka::topic("payments.transactions.v1")
//!         .json::<Payment>()
//!         .event_time(|p| EventTime::from_millis(p.at_ms))
//!         .lateness(Duration::from_secs(5));
//!     flow.source("payments", payments)
//!         .key_by("merchant", |p| p.merchant)
//!         .window("spend", Tumbling::of(Duration::from_secs(60)))
//!         .aggregate(|a| (a.count(), a.sum(|p| p.cents)))
//!         .view_with("spend", |view| view.fields(["n", "total"]));
//! }
//!
//! fn main() -> ExitCode {
//!     thalweg::main([dataflow("spend", spend)])
//! }
//! ```
//!
//! | to | see |
//! |---|---|
//! | write a dataflow | [`prelude`], [`dataflow`](mod@dataflow): [`Stream`](dataflow::stream::Stream), [`Table`](dataflow::table::Table), [`Collection`](dataflow::collection::Collection) |
//! | read a topic | [`Kafka`](connect::kafka::Kafka) |
//! | read the tables of a database | [`Kafka::debezium`](connect::kafka::Kafka::debezium), and `docs/debezium.md` |
//! | read files | [`Files`](connect::files::Files) |
//! | write to a topic, to Postgres, to a store of your own | [`Kafka`](connect::kafka::Kafka); [`connect::postgres`], and `docs/postgres.md`; [`sink`] |
//! | aggregate | [`AggregateBuilder`](operator::aggregate::AggregateBuilder) for what there is, and `docs/aggregates.md`; [`Aggregate`] for one of your own |
//! | join, group, iterate | `docs/collections.md`, with what each step costs and keeps; [`graph`](dataflow::graph) |
//! | write an operator of your own | [`operator::process`], and `docs/write-an-operator.md` |
//! | test it | [`testing`] |
//! | give it demo data | [`Flow::demo`], [`demo`] |
//! | embed it in a program of your own | [`runtime::Service`], [`http::serve`] |
//!
//! # How it works
//!
//! Every stream runs under one clock, the [`Epoch`]: one atomic step of the whole dataflow. The [`sequencer`]
//! decides which offsets an epoch contains ([`EpochBinding`](position::EpochBinding)), and the [`ledger`]
//! records it. [`ingest`] releases records at their epoch, [`view`]s keep rows by epoch, and [`http`] answers
//! as of the newest epoch that is complete and durable. Event time is data: [`EventTime`].
//!
//! The guide is in the repository, in `docs/`; start with `docs/concepts.md`.

// `pub` is for users; what is doc-hidden is for the project's own tests and benchmarks.
#![warn(unreachable_pub)]
// Documents of the engine lead into it; for users such a link is plain text.
#![allow(rustdoc::private_intra_doc_links)]

#[doc(hidden)]
pub mod bridge;
pub(crate) mod certificate;
pub mod checkpoint;
#[doc(hidden)]
pub mod cli;
#[doc(hidden)]
pub mod clock;
pub mod codec;
pub(crate) mod config;
pub mod connect;
pub mod dataflow;
pub mod demo;
#[doc(hidden)]
pub mod disk;
pub mod error;
#[doc(hidden)]
pub mod fault;
pub(crate) mod finding;
pub mod health;
pub mod http;
#[doc(hidden)]
pub mod ingest;
pub mod late;
#[doc(hidden)]
pub mod ledger;
pub(crate) mod mesh;
#[doc(hidden)]
pub mod metrics;
pub mod operator;
pub(crate) mod panic_context;
pub mod position;
pub mod prelude;
pub mod record;
pub mod runtime;
pub mod schema;
pub mod secret;
#[doc(hidden)]
pub mod sequencer;
pub mod setting;
pub mod sink;
pub mod source;
#[doc(hidden)]
pub mod suggest;
pub mod testing;
pub mod time;
pub(crate) mod timeline;
pub mod view;
#[doc(hidden)]
pub mod watermark;
pub(crate) mod wire;

/// The code on the pages of docs/ compiles and runs, as documentation tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../docs/aggregates.md")]
    mod aggregates {}
    #[doc = include_str!("../docs/collections.md")]
    mod collections {}
    #[doc = include_str!("../docs/coming-from.md")]
    mod coming_from {}
    #[doc = include_str!("../docs/dead-letters.md")]
    mod dead_letters {}
    #[doc = include_str!("../docs/debezium.md")]
    mod debezium {}
    #[doc = include_str!("../docs/formats.md")]
    mod formats {}
    #[doc = include_str!("../docs/operators.md")]
    mod operators {}
    #[cfg(feature = "postgres")]
    #[doc = include_str!("../docs/postgres.md")]
    mod postgres {}
    #[doc = include_str!("../docs/sinks.md")]
    mod sinks {}
    #[doc = include_str!("../docs/sources.md")]
    mod sources {}
    #[doc = include_str!("../docs/time-and-lateness.md")]
    mod time_and_lateness {}
    #[doc = include_str!("../docs/write-an-operator.md")]
    mod write_an_operator {}
}

pub use cli::main;
pub use dataflow::{Flow, dataflow};
pub use error::{Error, Kind, Result};
pub use operator::aggregate::Aggregate;
pub use record::{Event, F64, Record};
pub use time::{Epoch, EventTime, Window, Windowed};
