//! The interface between sources of records and the engine.
//!
//! ```text
//!   Source<T>  ── open ──▶  OpenedSource<T> ┬─ driver  topology: which partitions, from where to where (off the workers)
//!   (a user's description)            ├─ rules    event time, lateness, idleness
//!                                     └─ reader   one a worker: reads assigned partitions into an `Intake`
//! ```
//!
//! A reader never decides what an epoch contains. It reads partitions from given offsets, in order, without
//! waiting; the ledger's sequencer cuts what was read into epochs.

pub mod captured;
mod dead_letters;
mod deletes;
mod environment;
mod intake;
pub mod records;
mod rules;
pub mod setting;
mod start;

pub(crate) use self::dead_letters::dead_letters_to;
pub use self::deletes::Deletes;
pub use self::environment::{Environment, Overrides};
pub use self::intake::{DeadLetter, Intake, Raw};
pub use self::rules::TimeRules;
pub(crate) use self::rules::time_rules;
pub use self::start::Start;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bridge::Waker;
use crate::codec::compatibility::SubjectCompatibility;
use crate::codec::registry::Verdict;
use crate::error::Result;
use crate::finding::Finding;
use crate::position::{Offset, TopicId};
use crate::record::Event;

/// A source of `T`: a topic, files, a generator, …
#[diagnostic::on_unimplemented(message = "`{Self}` is not a source of `{T}`")]
pub trait Source<T: Event>: 'static {
    /// Creates the running parts. Connects to nothing yet: drawing a plan makes the same call.
    fn open(self, env: &Environment) -> Result<OpenedSource<T>>;
}

/// A source of rows keyed by `K`: the last value of a key wins, a missing value deletes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a keyed source of `{K}` → `{V}`",
    note = "give the topic a key: `.keyed::<{K}>()`"
)]
pub trait UpsertSource<K: Event, V: Event>: 'static {
    /// The type of its records: `(K, Option<V>)`, or [`Captured<K, V>`](captured::Captured) for captured
    /// changes of a database table, which may be repeated.
    type Records: Event;

    /// Creates the running parts.
    fn open(self, env: &Environment) -> Result<OpenedSource<Self::Records>>;

    /// How long the position of a deletion is remembered, for records that may be repeated.
    fn remember_deletions(&self) -> Duration {
        Duration::ZERO
    }
}

/// The running parts of a source.
pub struct OpenedSource<T> {
    /// The name of the log that is read, as in dead letters: the topic.
    pub topic: String,
    /// A description for plans and errors: ``topic `payments.transactions.v1` ``.
    pub description: String,
    /// Observes the partitions and their bounds.
    pub driver: Arc<dyn Driver>,
    /// The rules for event times.
    pub rules: TimeRules<T>,
    /// The Kafka topic that its dead letters are written to, if any, unless the settings name another.
    pub dead_letters: Option<String>,
    /// Creates the reader of one worker. The reader calls the waker, from any thread, when there is something
    /// to read.
    pub reader: Box<dyn FnOnce(Waker) -> Result<Box<dyn Reader<T>>>>,
}

impl<T: 'static> OpenedSource<T> {
    /// An empty source, which stands in for one that could not be opened, so that the build continues and
    /// finds further mistakes.
    pub fn unreadable() -> Self {
        Self {
            topic: String::new(),
            description: String::new(),
            driver: Arc::new(Nothing),
            rules: TimeRules::default(),
            dead_letters: None,
            reader: Box::new(|_| Ok(Self::no_reader())),
        }
    }

    /// A reader without records.
    pub fn no_reader() -> Box<dyn Reader<T>> {
        Box::new(Nothing)
    }
}

struct Nothing;
impl Driver for Nothing {
    fn topology(&self) -> Result<Topology> {
        Ok(Topology {
            topic: TopicId::default(),
            compacted: false,
            partitions: Vec::new(),
        })
    }
}
impl<T> Reader<T> for Nothing {
    fn assign(&mut self, _: u32, _: Offset) -> Result<()> {
        Ok(())
    }
    fn read(&mut self, _: u32, until: Offset, _: usize, _: &mut Intake<T>) -> Result<ReadProgress> {
        Ok(ReadProgress {
            position: until.min(0),
            at_end: true,
            more: false,
        })
    }
}

/// A replacement for a source in tests: other records, under the source's own rules of time.
pub struct Substitute {
    /// Observes the records from outside.
    pub driver: Arc<dyn Driver>,
    /// An `OpenedSource<T>` of the source's type; `None` if there are no records.
    pub opened: Option<Box<dyn std::any::Any>>,
}

impl Substitute {
    /// A replacement without records, for sources of any type.
    pub fn empty() -> Self {
        Self {
            driver: Arc::new(Nothing),
            opened: None,
        }
    }
}

/// The partitions of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The topic's id, which distinguishes a recreated topic from its predecessor.
    pub topic: TopicId,
    /// Whether records are removed once later ones with the same key supersede them, as Kafka's compaction
    /// does.
    pub compacted: bool,
    /// Every partition.
    pub partitions: Vec<PartitionFacts>,
}

/// The bounds of a partition's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFacts {
    /// Number of the partition.
    pub partition: u32,
    /// First offset that still exists.
    pub start: Offset,
    /// The last stable offset: everything before it can be read.
    pub end: Offset,
    /// The end of the log. Records between the last stable offset and this one belong to transactions, the
    /// oldest of which is still open. For sources without transactions, the same as `end`.
    pub high_watermark: Offset,
}

impl PartitionFacts {
    /// The bounds in a source without transactions.
    pub fn new(partition: u32, start: Offset, end: Offset) -> Self {
        Self {
            partition,
            start,
            end,
            high_watermark: end,
        }
    }

    /// Whether a transaction that has written records is open.
    pub fn has_open_transaction(&self) -> bool {
        self.end < self.high_watermark
    }
}

/// Why a source cannot be observed, as in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The topic or the files do not exist.
    Missing,
    /// No response.
    Away,
    /// Access is denied.
    Refused,
    /// Any other reason.
    Other,
}

impl SourceErrorKind {
    /// All kinds.
    pub const ALL: [SourceErrorKind; 4] = [
        SourceErrorKind::Missing,
        SourceErrorKind::Away,
        SourceErrorKind::Refused,
        SourceErrorKind::Other,
    ];

    /// The fixed name in metrics.
    pub fn code(self) -> &'static str {
        match self {
            SourceErrorKind::Missing => "missing",
            SourceErrorKind::Away => "away",
            SourceErrorKind::Refused => "refused",
            SourceErrorKind::Other => "other",
        }
    }
}

/// Observes a source from outside the workers. May block.
pub trait Driver: Send + Sync + 'static {
    /// Returns the partitions with their bounds.
    fn topology(&self) -> Result<Topology>;

    /// The formats of its records' parts: `("key", "text")`, `("value", "avro")`.
    fn formats(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The starting offsets of a source that is not in the ledger yet, as configured; partitions not listed
    /// start at the log's start. Called once per run, right after `topology`. May block.
    ///
    /// # Errors
    /// If the external system does not respond.
    fn starts(&self, _topology: &Topology) -> Result<Vec<(u32, Offset)>> {
        Ok(Vec::new())
    }

    /// Compares the types that the source's records are decoded to with the newest schemas in a registry, if
    /// there is one: one result per subject. May block for a few seconds.
    fn fits(&self) -> Vec<SubjectCompatibility> {
        Vec::new()
    }

    /// Checks what the source expects of external systems, besides its topology. Changes nothing. May block,
    /// for a bounded time.
    fn examine(&self, _runtime: &tokio::runtime::Handle) -> Vec<Finding> {
        Vec::new()
    }

    /// Why the source's data cannot be read now, for health and metrics; readers recover by themselves.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Why the last observation failed; `None` if it succeeded.
    fn error_kind(&self) -> Option<SourceErrorKind> {
        None
    }

    /// Whether to wait for a source that is missing or unreachable at the start. Otherwise the service does
    /// not start.
    fn waits(&self) -> bool {
        false
    }

    /// The name of the [connector](crate::connect) that the source belongs to. `None` if it has no settings
    /// of its own.
    fn connector(&self) -> Option<&'static str> {
        None
    }

    /// Checks that the settings needed to reach the source are present, before anything is connected. `None`
    /// if the source needs none.
    fn configured(&self) -> Option<Result<()>> {
        None
    }

    /// What a person can do about a transaction that is never ended, for sources with transactions.
    fn open_transaction_hint(&self) -> &'static str {
        ""
    }

    /// Further details about the source by name, as `/v1/sources` shows them. Must not contain secrets.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Reads the partitions assigned to one worker. Lives on the worker's thread and never blocks it.
pub trait Reader<T>: 'static {
    /// Starts reading `partition` at `from`. Called once per partition.
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()>;

    /// Reads available records of `partition` in offset order into `intake`: at most about `records_max`, and
    /// none at or beyond `until`. A record at or beyond `until` that was already fetched is kept for the next
    /// call.
    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<ReadProgress>;

    /// Returns new verdicts on schema ids since the last call. Must be called after each read, so that the
    /// ledger binds a verdict with the first records it was used for.
    fn schemas_seen(&mut self) -> Vec<Verdict> {
        Vec::new()
    }

    /// Sets the ledger's verdict on a schema id: records are decoded by it, whatever the registry says now.
    /// Must be called before reading the records that it was bound with.
    fn bind_schema(&mut self, _verdict: Verdict) {}

    /// Returns about how many records the log of a partition is known to hold beyond what was read, if that
    /// is cheap to tell. While it is many, epochs grow: each record costs less, and answers are older.
    ///
    /// By default this is unknown, and a partition that was not read to its end counts as far behind.
    fn behind(&self, _partition: u32) -> Option<u64> {
        None
    }

    /// Reports how far partitions were read to external monitoring, if the source supports that. Nothing
    /// depends on it. Returns immediately; called about once a second.
    fn show_progress(&mut self, _positions: &[(u32, Offset)]) {}
}

/// The progress of reading a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    /// The next offset to read. Skips gaps in the log; never decreases. At most `until`, unless the log's
    /// next record is known to be beyond it.
    pub position: Offset,
    /// Whether the end of what can be read was reached.
    pub at_end: bool,
    /// Whether another call is likely to return more without a wake-up in between.
    pub more: bool,
}
