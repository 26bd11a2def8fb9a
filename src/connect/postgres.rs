//! Postgres as a sink: rows, progress and the check of who may write in one transaction.
//!
//! ```text
//!   rows of some epochs ─▶ one transaction ┬─ UPDATE thalweg_progress …   locks the shard's row; whoever was fenced finds none
//!                                          ├─ DELETE … unnest, INSERT … unnest … ON CONFLICT     some thousand rows each
//!                                          └─ COMMIT                      all of it, or nothing
//!
//!   open ─▶ table: made, or held against the rows' schema
//!        ─▶ claim: SELECT … FOR UPDATE, claim + 1    waits for what the writer before has begun, and fences it
//!        ─▶ progress: rows of epochs up to it are not written again
//! ```
//!
//! A commit whose outcome nobody heard of is no riddle: the next claim waits for the row that it had locked,
//! and then reads what became of it.

#[cfg(feature = "postgres")]
mod column;
#[cfg(feature = "postgres")]
mod examine;
#[cfg(feature = "postgres")]
mod failure;
#[cfg(feature = "postgres")]
mod progress;
#[cfg(feature = "postgres")]
mod session;
mod settings;
#[cfg(feature = "postgres")]
mod sink;
#[cfg(feature = "postgres")]
mod table;
#[cfg(feature = "postgres")]
mod writer;

pub use self::settings::{PostgresSettings, Tls};

use super::connector::Connector;
use crate::finding::Finding;
use crate::setting::Setting;
use crate::setting::extensions::Extensions;

/// Postgres, as a place for rows.
///
/// ```
/// use thalweg::prelude::*;
///
/// fn build(flow: Dataflow) {
///     let names = flow.table("merchants", Kafka::topic("merchants.v1").json::<String>().keyed::<u32>());
///     names.key_named("merchant").upsert_to("names_pg", Postgres::table("merchant_names"));
/// }
/// # thalweg::runtime::plan(&dataflow("names", build), &Environment::default()).unwrap();
/// # use thalweg::source::Environment;
/// ```
#[cfg(feature = "postgres")]
#[derive(Clone, Copy, Debug)]
pub struct Postgres;

#[cfg(feature = "postgres")]
impl Postgres {
    /// A table, by `name` (in the schema `public`) or `schema.name`, with upper and lower case as they are.
    /// It is made if it is not there; one that is there has to fit the rows.
    pub fn table(name: impl Into<String>) -> PostgresTable {
        PostgresTable {
            name: name.into(),
            shards: 1,
        }
    }
}

/// A table of Postgres, as a sink: see `docs/postgres.md` for columns and types.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug)]
#[must_use]
pub struct PostgresTable {
    name: String,
    shards: u32,
}

#[cfg(feature = "postgres")]
impl PostgresTable {
    /// How many connections write to it, each its own keys (of a stream: partitions) in transactions of its
    /// own. Default: 1, so that whoever reads the table sees whole epochs. It can't change once rows were
    /// delivered.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }
}

/// Postgres, as settings and checks see it.
pub(crate) struct PostgresConnector;

impl Connector for PostgresConnector {
    fn name(&self) -> &'static str {
        settings::NAME
    }

    fn log(&self) -> &'static str {
        "table"
    }

    fn settings(&self) -> &'static [Setting] {
        settings::SETTINGS
    }

    fn conflict(&self, given: &Extensions) -> Option<(String, String)> {
        settings::conflicting(given)
    }

    fn warnings(&self, given: &Extensions) -> Vec<Finding> {
        settings::warnings(given)
    }
}
