//! Connectors: the systems that data come from, and go to.
//!
//! ```text
//!   connect/<name>.rs   what a dataflow writes: Kafka::topic("t"), Files::lines("in/*")
//!   connect/<name>/     settings.rs   its part of the settings     ─┐
//!                       source.rs     driver and reader             ├─ Connector ── CONNECTORS ──▶ config, check, commands
//!                       examine.rs    what `check` looks at        ─┘
//!                       tests
//! ```
//!
//! A new connector is a directory here, a line in [`CONNECTORS`], and a regenerated docs/settings.md. A
//! connector whose client is behind a feature has its settings in every build. The engine knows sources only
//! through the traits in [`source`](crate::source), and connectors' settings only by type, in
//! [`Environment::connectors`](crate::source::Environment::connectors).

pub mod connector;
pub mod files;
pub mod kafka;
pub mod postgres;

use self::connector::Connector;

/// All connectors that are built in.
pub static CONNECTORS: &[&dyn Connector] = &[
    &kafka::KafkaConnector,
    &files::FilesConnector,
    &postgres::PostgresConnector,
];
