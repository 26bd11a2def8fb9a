//! What a sink is to the rest of Thalweg: where rows leave a dataflow.
//!
//! ```text
//!   Sink ── open ──▶  OpenedSink ┬─ description, number of shards       for plans, `check`, `/v1/sinks`
//!   (a user's description)       └─ writers   one a shard, made and called on the shard's own thread
//!
//!   operators ═ rows by shard ═▶ worker of the shard ── whole epochs ─▶ queue ─▶ shard task (thread): write ─▶ store
//!     encoded once                sorted within an epoch                rows and bytes bounded
//!                                 no room: the epoch waits, unfinished
//! ```
//!
//! An epoch reaches a sink once the frontier has passed it, which it does only when its binding is durable: a
//! replay brings the same rows under the same epoch, in the same order. Rows are split over a fixed number of
//! shards by a fixed hash of their key, so that a key stays in its shard whatever the number of workers; each
//! shard gets its epochs in order.
//!
//! **What holds after a crash is a type**, [`Writers`]: a store that commits rows and [`Progress`] together
//! has each row exactly once; one that keeps the epoch with a row takes the same rows again without effect;
//! one that can do neither gets the same epochs again.
//!
//! ```
//! use thalweg::prelude::*;
//! use thalweg::sink::{AppendSink, Batch, Method, OpenedSink, Shard, Sink, WriteError, Writer, Writers};
//! use thalweg::source::Environment;
//!
//! /// Prints each event as JSON.
//! struct Print;
//!
//! impl Sink for Print {
//!     fn open(self, _: Method, _: &Environment) -> Result<OpenedSink, thalweg::Error> {
//!         let writers = Writers::repeating(|shard: &Shard| Ok(Printer { shard: shard.clone() }));
//!         Ok(OpenedSink::new("standard output", writers))
//!     }
//! }
//! impl<T> AppendSink<T> for Print {}
//!
//! struct Printer { shard: Shard }
//!
//! impl Writer for Printer {
//!     fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError> {
//!         for batch in epochs {
//!             for row in &batch.rows {
//!                 println!("{} {}", batch.epoch, row.json(&self.shard.schema).unwrap_or_default());
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! fn build(flow: Dataflow) {
//!     flow.source("lines", Kafka::topic("lines.v1").text::<String>()).append_to("printed", Print);
//! }
//! # thalweg::runtime::plan(&dataflow("print", build), &Environment::default()).unwrap();
//! ```

pub mod dead_letters;
pub(crate) mod encode;
pub(crate) mod function;
pub mod memory;
pub(crate) mod method;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod queue;
pub(crate) mod resume;
pub mod row;
pub(crate) mod task;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::method::Method;

use crate::error::{Error, Kind, Result};
use crate::finding::Finding;
use crate::schema::RowSchema;
use crate::sink::row::Row;
use crate::source::Environment;
use crate::time::Epoch;

/// Takes rows out of a dataflow.
pub trait Sink: 'static {
    /// Makes the parts that run, for rows that are given by a method. Nothing is connected yet: a plan is
    /// drawn from the same call, and each worker makes it.
    ///
    /// # Errors
    /// The description or the settings are wrong.
    fn open(self, method: Method, env: &Environment) -> Result<OpenedSink>;
}

/// A sink for events `T`, each of which it takes once: see
/// [`append_to`](crate::dataflow::stream::Stream::append_to).
#[diagnostic::on_unimplemented(message = "`{Self}` is not a sink that events `{T}` can be appended to")]
pub trait AppendSink<T>: Sink {}

/// A sink that holds the newest row of each key and deletes rows that are gone: see
/// [`upsert_to`](crate::dataflow::table::Table::upsert_to).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a sink that rows can be upserted to",
    note = "rows of a table change and go: the store has to replace and delete by key"
)]
pub trait UpsertSink<K, V>: Sink {}

/// A sink that takes every change of rows `V` as a row of its own: see
/// [`changes_to`](crate::dataflow::table::Table::changes_to).
#[diagnostic::on_unimplemented(message = "`{Self}` is not a sink for a changelog of `{V}`")]
pub trait ChangelogSink<V>: Sink {}

/// The running parts of a sink.
pub struct OpenedSink {
    /// Describes the sink in plans and errors: ``topic `payments.audit.v1` ``.
    pub description: String,
    /// How many shards it has, unless the settings say otherwise. It can't change once rows were delivered.
    pub shards: u32,
    /// Makes the writers of the shards, and says what they promise.
    pub writers: Writers,
    /// Looks at the store for `check`, before anything runs.
    pub examine: Option<Examine>,
    /// Whether it takes rows of a schema, as far as that can be told without the store.
    pub fits: Option<Fits>,
}

/// Looks at the schema of the rows that a sink is to be given.
///
/// # Errors
/// The sink takes no such rows.
pub type Fits = Arc<dyn Fn(&RowSchema) -> Result<()> + Send + Sync>;

/// Looks at the store that rows of a schema will go to.
pub type Examine = Arc<dyn Fn(&RowSchema) -> Vec<Finding> + Send + Sync>;

impl OpenedSink {
    /// A sink with the usual number of shards: one for a repeating sink, eight for the others.
    pub fn new(description: impl Into<String>, writers: Writers) -> Self {
        let shards = match writers.contract() {
            Contract::Repeating => 1,
            Contract::Transactional | Contract::Versioned => 8,
        };
        Self {
            description: description.into(),
            shards,
            writers,
            examine: None,
            fits: None,
        }
    }

    /// With another number of shards.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// With a look at the rows' schema, before anything is connected.
    pub fn fits(mut self, look: Fits) -> Self {
        self.fits = Some(look);
        self
    }

    /// With a look at the store.
    pub fn examine(mut self, look: impl Fn(&RowSchema) -> Vec<Finding> + Send + Sync + 'static) -> Self {
        self.examine = Some(Arc::new(look));
        self
    }
}

/// Opens the writer of a shard, on the shard's thread. An error of kind [`External`](crate::Kind::External)
/// is tried again, any other halts the service.
pub type Open<W> = Arc<dyn Fn(&Shard) -> Result<Box<W>> + Send + Sync>;

/// The writers of a sink, by what the store can promise.
#[derive(Clone)]
pub enum Writers {
    /// The store commits rows and [`Progress`] in one transaction: each row is there exactly once.
    Transactional(Open<dyn TransactionalWriter>),
    /// The store keeps the epoch with each row and refuses older ones: rows that come again have no effect.
    Versioned(Open<dyn Writer>),
    /// The store can do neither: after a crash the same epochs may come again, told by their number.
    Repeating(Open<dyn Writer>),
}

impl Writers {
    /// Of a transactional store.
    pub fn transactional<W: TransactionalWriter + 'static>(
        open: impl Fn(&Shard) -> Result<W> + Send + Sync + 'static,
    ) -> Self {
        Self::Transactional(Arc::new(move |shard| Ok(Box::new(open(shard)?))))
    }

    /// Of a store that keeps the epoch with each row.
    pub fn versioned<W: Writer + 'static>(
        open: impl Fn(&Shard) -> Result<W> + Send + Sync + 'static,
    ) -> Self {
        Self::Versioned(Arc::new(move |shard| Ok(Box::new(open(shard)?))))
    }

    /// Of any other.
    pub fn repeating<W: Writer + 'static>(
        open: impl Fn(&Shard) -> Result<W> + Send + Sync + 'static,
    ) -> Self {
        Self::Repeating(Arc::new(move |shard| Ok(Box::new(open(shard)?))))
    }

    /// What they promise.
    pub fn contract(&self) -> Contract {
        match self {
            Self::Transactional(_) => Contract::Transactional,
            Self::Versioned(_) => Contract::Versioned,
            Self::Repeating(_) => Contract::Repeating,
        }
    }
}

/// What a sink promises after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contract {
    /// Exactly once.
    Transactional,
    /// The same rows again, without effect.
    Versioned,
    /// The same epochs again.
    Repeating,
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transactional => "transactional",
            Self::Versioned => "versioned",
            Self::Repeating => "repeating",
        })
    }
}

/// One of the parts that a sink's rows are split into.
#[derive(Clone, Debug)]
pub struct Shard {
    /// The sink's name.
    pub sink: Arc<str>,
    /// Which shard it is, from 0 on.
    pub number: u32,
    /// How many there are.
    pub of: u32,
    /// Names and types of the rows' fields. The rows of a stream have no key in it: theirs is their
    /// [`RowOrigin`](row::RowOrigin).
    pub schema: Arc<RowSchema>,
    /// When the ledger was made, microseconds since the Unix epoch. [`Progress`] of another one says nothing
    /// of this shard.
    pub ledger: u64,
    /// The generation of the service that writes: a later start has a higher one. A store that can keeps the
    /// highest that it has seen, and lets no writer of a lower one resume.
    pub generation: u64,
    /// How long one call of a writer may take. A writer bounds its calls by this and returns
    /// [`WriteError::Retry`]; one that takes longer is reported as in trouble.
    pub call_max: Duration,
}

/// What an epoch brought to a shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The epoch.
    pub epoch: Epoch,
    /// Its rows, at least one, in the order of their keys: the same in every replay.
    pub rows: Vec<Row>,
}

/// Writes the rows of one shard of a versioned or repeating sink.
pub trait Writer: Send {
    /// Writes the rows of some epochs, in their order. On its return they are where they belong, for good.
    ///
    /// # Errors
    /// After [`WriteError::Retry`] the same epochs are given again a moment later, and after a restart.
    fn write(&mut self, epochs: &[Batch]) -> Result<(), WriteError>;

    /// The service is about to end, and nothing more comes.
    ///
    /// # Errors
    /// Only logged: all rows were written.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Writes the rows of one shard of a transactional sink.
pub trait TransactionalWriter: Send {
    /// Fences writers of this shard that were opened before, of this process and of any other, so that none
    /// of them commits anything more; then returns what was committed last, `None` if nothing ever was.
    ///
    /// # Errors
    /// As those of [`Open`].
    fn resume(&mut self) -> Result<Option<Progress>>;

    /// Commits the rows of some epochs, in their order, and `progress`, together or not at all.
    ///
    /// # Errors
    /// After [`WriteError::Retry`] it is not known whether they were committed: the writer is dropped, and
    /// another one is opened and asked. So does one that was fenced: a process that was stopped, and goes on,
    /// may have fenced it; which of the two is the later one shows when the store is asked.
    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError>;

    /// The service is about to end, and nothing more comes.
    ///
    /// # Errors
    /// Only logged: all rows were committed.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// How far a shard has come, as a transactional store keeps it beside the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When the ledger was made, microseconds since the Unix epoch: tells it from others of the same
    /// dataflow.
    pub ledger: u64,
    /// The generation of the service that committed it. A store may refuse a lower one than it has.
    pub generation: u64,
    /// All rows up to this epoch are committed.
    pub epoch: Epoch,
    /// How many rows that were, since the ledger was made.
    pub rows: u64,
}

/// Why rows were not written.
#[derive(Debug)]
pub enum WriteError {
    /// Trying again may help: it is, ever less often, until the rows are taken. Meanwhile nothing is lost;
    /// once too much waits, the whole dataflow does.
    Retry(Error),
    /// One row will never be taken: too large, or against a constraint. Halts the service, which names the
    /// row.
    Refused {
        /// Its place in the epochs: which of them, and which row of that.
        row: (usize, usize),
        /// Why.
        error: Error,
    },
    /// Halts the service.
    Fatal(Error),
}

/// An error of kind [`External`](crate::Kind::External) is tried again, any other is fatal.
impl From<Error> for WriteError {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::External => Self::Retry(error),
            _ => Self::Fatal(error),
        }
    }
}
