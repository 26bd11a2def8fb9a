//! What a source of records is to the rest of Thalweg.
//!
//! ```text
//!   Source<T>  ── open ──▶  Opened<T> ┬─ driver   topology: which partitions, from where to where (off the workers)
//!   (a user's description)            ├─ rules    event time, lateness, idleness
//!                                     └─ reader   one a worker: reads assigned partitions into an `Intake`
//! ```
//!
//! A reader never decides what an epoch contains. It reads partitions from given offsets, in order, without
//! waiting; the ledger's sequencer cuts what was read into epochs.

pub mod captured;
mod deletes;
mod environment;
mod intake;
mod letters;
pub mod records;
mod rules;
pub mod setting;
mod start;

pub use self::deletes::Deletes;
pub use self::environment::{Environment, Overrides};
pub use self::intake::{DeadLetter, Intake, Raw};
pub(crate) use self::letters::dead_letters_to;
pub use self::rules::TimeRules;
pub(crate) use self::rules::time_rules;
pub use self::start::Start;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bridge::Waker;
use crate::codec::fit::SubjectFit;
use crate::codec::registry::Verdict;
use crate::error::Result;
use crate::finding::Finding;
use crate::position::{Offset, TopicId};
use crate::record::Event;

/// A source of `T`: a topic, files, a generator, …
#[diagnostic::on_unimplemented(message = "`{Self}` is not a source of `{T}`")]
pub trait Source<T: Event>: 'static {
    /// Makes the parts that run. Nothing is connected yet: a plan is drawn from the same call.
    fn open(self, env: &Environment) -> Result<Opened<T>>;
}

/// A source of rows keyed by `K`: the last value of a key wins, none deletes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a keyed source of `{K}` → `{V}`",
    note = "give the topic a key: `.keyed::<{K}>()`"
)]
pub trait UpsertSource<K: Event, V: Event>: 'static {
    /// What its records are: `(K, Option<V>)`, or [`Captured<K, V>`](captured::Captured) where they are the
    /// changes of a database's table, which may come again.
    type Records: Event;

    /// Makes the parts that run.
    fn open(self, env: &Environment) -> Result<Opened<Self::Records>>;

    /// For how long the place of a deletion is remembered, of records that may come again.
    fn remember_deletions(&self) -> Duration {
        Duration::ZERO
    }
}

/// The running parts of a source.
pub struct Opened<T> {
    /// Name of the log that is read, as it stands in dead letters: the topic.
    pub topic: String,
    /// Describes the source in plans and errors: ``topic `payments.transactions.v1` ``.
    pub description: String,
    /// Looks at the outside: partitions and their bounds.
    pub driver: Arc<dyn Driver>,
    /// What to make of the records' times.
    pub rules: TimeRules<T>,
    /// The Kafka topic that its dead letters are written to, if any, unless the settings name another.
    pub dead_letters: Option<String>,
    /// Makes the reader of one worker. The waker is to be called, from any thread, when there is something to
    /// read.
    pub reader: Box<dyn FnOnce(Waker) -> Result<Box<dyn Reader<T>>>>,
}

impl<T: 'static> Opened<T> {
    /// A source that has nothing to read: stands in for one that could not be opened, so that a build goes on
    /// to find the other mistakes.
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

    /// A reader that brings nothing.
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
    fn read(&mut self, _: u32, until: Offset, _: usize, _: &mut Intake<T>) -> Result<Progress> {
        Ok(Progress {
            position: until.min(0),
            at_end: true,
            more: false,
        })
    }
}

/// What a test reads in place of a source: other records, under the source's own rules of time.
pub struct Substitute {
    /// Looks at the records from outside.
    pub driver: Arc<dyn Driver>,
    /// An `Opened<T>` of the type that the source has; `None`: there are no records.
    pub opened: Option<Box<dyn std::any::Any>>,
}

impl Substitute {
    /// In place of a source that brings nothing, whatever its type.
    pub fn empty() -> Self {
        Self {
            driver: Arc::new(Nothing),
            opened: None,
        }
    }
}

/// Which partitions a source has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// The topic's id, so that a topic made anew is told from the one before.
    pub topic: TopicId,
    /// Whether the source's keeper takes records away that later ones of their key replace, as Kafka's
    /// compaction does.
    pub compacted: bool,
    /// Every partition.
    pub partitions: Vec<PartitionFacts>,
}

/// Where a partition's log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFacts {
    /// Number of the partition.
    pub partition: u32,
    /// First offset that is still there.
    pub start: Offset,
    /// The last stable offset: everything before it can be read now.
    pub end: Offset,
    /// Behind the last record there is. What lies between the last stable offset and this one belongs to
    /// transactions, the oldest of which is still open. Sources without transactions: the same as `end`.
    pub high_watermark: Offset,
}

impl PartitionFacts {
    /// Of a source without transactions.
    pub fn new(partition: u32, start: Offset, end: Offset) -> Self {
        Self {
            partition,
            start,
            end,
            high_watermark: end,
        }
    }

    /// Whether a transaction is open that has written records.
    pub fn has_open_transaction(&self) -> bool {
        self.end < self.high_watermark
    }
}

/// Why a source can't be seen, as metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// The topic is not there, or no file is.
    Missing,
    /// Nobody answers.
    Away,
    /// We are not let in.
    Refused,
    /// Whatever else.
    Other,
}

impl Ailment {
    /// All of them.
    pub const ALL: [Ailment; 4] = [Ailment::Missing, Ailment::Away, Ailment::Refused, Ailment::Other];

    /// The fixed word for it, as in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Ailment::Missing => "missing",
            Ailment::Away => "away",
            Ailment::Refused => "refused",
            Ailment::Other => "other",
        }
    }
}

/// Looks at a source from outside the workers. May block.
pub trait Driver: Send + Sync + 'static {
    /// Which partitions there are, with their bounds.
    fn topology(&self) -> Result<Topology>;

    /// How the parts of its records are written: `("key", "text")`, `("value", "avro")`.
    fn formats(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Where reading begins in the partitions of a source that the ledger has never heard of, by what the
    /// source was told; those that are left out begin at the log's start. Asked once a run, right after
    /// `topology`. May block.
    ///
    /// # Errors
    /// The outside does not answer.
    fn starts(&self, _topology: &Topology) -> Result<Vec<(u32, Offset)>> {
        Ok(Vec::new())
    }

    /// Holds the types that the source's records become against the newest schemas that a registry has for
    /// them, where it has any: one answer a subject. May block for a few seconds.
    fn fits(&self) -> Vec<SubjectFit> {
        Vec::new()
    }

    /// Looks whether what is outside fits what the source expects of it, besides its topology. Changes
    /// nothing. May block, for a bounded time.
    fn examine(&self, _runtime: &tokio::runtime::Handle) -> Vec<Finding> {
        Vec::new()
    }

    /// What stands between the source and its data now, for health and metrics; readers get over it by
    /// themselves.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Why the newest look failed; `None` if it did not.
    fn ailment(&self) -> Option<Ailment> {
        None
    }

    /// Whether what is missing or away at the start is waited for. Otherwise the service does not start.
    fn waits(&self) -> bool {
        false
    }

    /// The [connector](crate::connect) that the source belongs to, by name. `None`: it has no settings of its
    /// own.
    fn connector(&self) -> Option<&'static str> {
        None
    }

    /// Whether the settings say all that reaching the source takes; looked at before anything is connected.
    /// `None`: the source needs nothing of them.
    fn configured(&self) -> Option<Result<()>> {
        None
    }

    /// What a person can do about a transaction that nobody ends, for sources that have any.
    fn open_transaction_hint(&self) -> &'static str {
        ""
    }

    /// More about the source, by name, as `/v1/sources` shows it: nothing secret.
    fn details(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Reads the partitions that one worker was given. Lives on the worker's thread and never blocks it.
pub trait Reader<T>: 'static {
    /// Starts reading `partition` at `from`. Called once a partition.
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()>;

    /// Reads records of `partition` that are there, in order of offset, into `intake`: at most about
    /// `records_max`, and none at or beyond `until`. A record at or beyond `until` that was fetched already
    /// is kept for the next call.
    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<Progress>;

    /// Verdicts on schema ids that came since the last call. To be called after each read, so that the ledger
    /// binds a verdict with the first records it was used for.
    fn schemas_seen(&mut self) -> Vec<Verdict> {
        Vec::new()
    }

    /// What the ledger says of a schema id: records are decoded by that, whatever the registry says now. To
    /// be called before the records are read that it was bound with.
    fn bind_schema(&mut self, _verdict: Verdict) {}

    /// Shows how far partitions were read to tools that look at the source from outside, where it has a place
    /// for that. Nothing rests on it. Returns at once; to be called about once a second.
    fn show_progress(&mut self, _positions: &[(u32, Offset)]) {}
}

/// How far a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The next offset to read. Passes holes in the log; never goes back. At most `until` unless the log's
    /// next record is known to stand beyond it.
    pub position: Offset,
    /// Whether the end of what can be read now was reached.
    pub at_end: bool,
    /// Whether another call is likely to bring more without a wake-up in between.
    pub more: bool,
}
