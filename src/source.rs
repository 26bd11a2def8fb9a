//! What a source of records is to the rest of Thalweg.
//!
//! ```text
//!   Source<T>  ── open ──▶  Opened<T> ┬─ driver   topology: which partitions, from where to where (off the workers)
//!   (a user's description)            ├─ rules    event time, lateness, idleness
//!                                     └─ reader   one a worker: reads assigned partitions into an `Intake`
//! ```
//!
//! A reader never decides what an epoch contains. It reads partitions from given offsets, in order, without waiting; the
//! ledger's sequencer cuts what was read into epochs.

#[macro_use]
mod rules;
mod deletes;
pub mod embedded;
pub mod files;
pub mod generator;
pub mod kafka;
pub mod memory;
mod start;

pub use self::deletes::Deletes;
pub use self::rules::TimeRules;
pub use self::start::Start;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bridge::Waker;
use crate::codec::Cause;
use crate::codec::fit::SubjectFit;
use crate::codec::registry::{Registry, Verdict};
use crate::error::Result;
use crate::finding::Finding;
use crate::late::Late;
use crate::position::{Offset, PartitionId, Position, SourceId, TopicId};
use crate::record::{Event, Timed};
use crate::secret::Secret;
use crate::time::EventTime;
use crate::trail;

/// Where dataflows run: what sources and sinks need to know of the world. Made from the settings.
#[derive(Clone, Default)]
pub struct Environment {
    /// Bootstrap servers of Kafka, as in `127.0.0.1:9092`.
    pub kafka: String,
    /// Further librdkafka properties.
    pub kafka_properties: Vec<(String, String)>,
    /// Those of them that nobody may see: passwords and keys.
    pub kafka_secrets: Vec<(String, Secret)>,
    /// The schema registry.
    pub registry: Option<Registry>,
    /// Consumer group under which progress is shown to lag tools.
    pub group: String,
    /// Whether the run stops when everything that is there at its start is counted: nothing is waited for then. Follows
    /// the run's settings.
    pub until_end: bool,
    /// What the settings say of sources, by name.
    pub sources: Arc<BTreeMap<String, Overrides>>,
    /// What they say of the source that is being opened.
    pub overrides: Overrides,
}

impl Environment {
    /// The same for one source.
    pub fn of_source(&self, name: &str) -> Self {
        Self {
            overrides: self.sources.get(name).cloned().unwrap_or_default(),
            registry: self.registry.as_ref().map(Registry::of_source),
            ..self.clone()
        }
    }
}

/// What the settings say of a source, in place of what the dataflow says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`TimeRules::lateness`].
    pub lateness: Option<Duration>,
    /// See [`TimeRules::idle_after`].
    pub idle_after: Option<Duration>,
    /// See [`TimeRules::future_bound`].
    pub future_bound: Option<Duration>,
    /// See [`TimeRules::late`].
    pub late: Option<Late>,
    /// Where the first start begins; of topics.
    pub start: Option<Start>,
    /// Whether a topic that is missing at the start is waited for.
    pub wait_for_topic: Option<bool>,
    /// Which records delete rows; of keyed topics.
    pub deletes: Option<Deletes>,
}

/// A source of `T`: `Kafka::topic(..)`, `Generator::new(..)`, …
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
    /// Makes the parts that run.
    fn open(self, env: &Environment) -> Result<Opened<(K, Option<V>)>>;
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
    /// Makes the reader of one worker. The waker is to be called, from any thread, when there is something to read.
    pub reader: Box<dyn FnOnce(Waker) -> Result<Box<dyn Reader<T>>>>,
}

impl<T: 'static> Opened<T> {
    /// A source that has nothing to read: stands in for one that could not be opened, so that a build goes on to find
    /// the other mistakes.
    pub fn unreadable() -> Self {
        Self {
            topic: String::new(),
            description: String::new(),
            driver: Arc::new(Nothing),
            rules: TimeRules::default(),
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
    /// Whether the source's keeper takes records away that later ones of their key replace, as Kafka's compaction does.
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
    /// Behind the last record there is. What lies between the last stable offset and this one belongs to transactions, the
    /// oldest of which is still open. Sources without transactions: the same as `end`.
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

    /// Where reading begins in the partitions of a source that the ledger has never heard of, by what the source was told;
    /// those that are left out begin at the log's start. Asked once a run, right after `topology`. May block.
    ///
    /// # Errors
    /// The outside does not answer.
    fn starts(&self, _topology: &Topology) -> Result<Vec<(u32, Offset)>> {
        Ok(Vec::new())
    }

    /// Holds the types that the source's records become against the newest schemas that a registry has for them, where it
    /// has any: one answer a subject. May block for a few seconds.
    fn fits(&self) -> Vec<SubjectFit> {
        Vec::new()
    }

    /// Looks whether what is outside fits what the source expects of it, besides its topology. Changes nothing. May
    /// block, for a bounded time.
    fn examine(&self, _runtime: &tokio::runtime::Handle) -> Vec<Finding> {
        Vec::new()
    }

    /// What stands between the source and its data now, for health and metrics; readers get over it by themselves.
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

    /// The Kafka topic that is read, if it is one.
    fn kafka_topic(&self) -> Option<&str> {
        None
    }
}

/// Reads the partitions that one worker was given. Lives on the worker's thread and never blocks it.
pub trait Reader<T>: 'static {
    /// Starts reading `partition` at `from`. Called once a partition.
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()>;

    /// Reads records of `partition` that are there, in order of offset, into `intake`: at most about `records_max`, and
    /// none at or beyond `until`. A record at or beyond `until` that was fetched already is kept for the next call.
    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<Progress>;

    /// Verdicts on schema ids that came since the last call. To be called after each read, so that the ledger binds a
    /// verdict with the first records it was used for.
    fn schemas_seen(&mut self) -> Vec<Verdict> {
        Vec::new()
    }

    /// What the ledger says of a schema id: records are decoded by that, whatever the registry says now. To be called before
    /// the records are read that it was bound with.
    fn bind_schema(&mut self, _verdict: Verdict) {}

    /// Shows how far partitions were read to tools that look at the source from outside, where it has a place for that.
    /// Nothing rests on it. Returns at once; to be called about once a second.
    fn show_progress(&mut self, _positions: &[(u32, Offset)]) {}
}

/// How far a partition was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The next offset to read. Passes holes in the log; never goes back. At most `until` unless the log's next record
    /// is known to stand beyond it.
    pub position: Offset,
    /// Whether the end of what can be read now was reached.
    pub at_end: bool,
    /// Whether another call is likely to bring more without a wake-up in between.
    pub more: bool,
}

/// A record as it stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// Its offset.
    pub offset: Offset,
    /// The log's own timestamp of it.
    pub timestamp: EventTime,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Payload bytes.
    pub payload: Option<&'a [u8]>,
}

/// A record that could not be counted, with everything needed to see why and to send it again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it stands.
    pub at: Position,
    /// The name of the step that turned it down: the source, or the window it was late for.
    pub step: String,
    /// Why.
    pub cause: Cause,
    /// More about why: the field that is not known, or what the dataflow's own code said.
    pub detail: Option<String>,
    /// The log's timestamp of the record; the event time if a step after the source turned the event down.
    pub timestamp: EventTime,
    /// The schema id that the bytes named.
    pub schema: Option<u32>,
    /// Key bytes, where the source itself turned the record down.
    pub key: Option<Vec<u8>>,
    /// Payload bytes, where the source itself did; else the event as JSON, as the step got it.
    pub payload: Option<Vec<u8>>,
}

impl DeadLetter {
    /// The letter of an event that a step after the source turns down. The record's bytes are gone by then, so it holds the
    /// event as JSON, as the step got it.
    pub fn turned_down<T: Serialize>(
        step: &str,
        cause: Cause,
        detail: Option<String>,
        event: &Timed<T>,
    ) -> Self {
        Self {
            at: event.at,
            step: step.to_owned(),
            cause,
            detail,
            timestamp: event.time,
            schema: None,
            key: None,
            payload: serde_json::to_vec(&event.value).ok(),
        }
    }
}

/// Takes the records of one partition from a reader: judges their times, counts and hashes them.
///
/// What it comes to depends on the log alone (and on `limit`, which the ledger binds), never on how the reading was cut.
pub struct Intake<T> {
    id: PartitionId,
    step: Arc<str>,
    rules: Rc<TimeRules<T>>,
    /// Event times beyond this are refused.
    pub limit: EventTime,
    /// Highest valid event time so far.
    pub event_time_max: EventTime,
    /// Records so far, wrapping.
    pub records: u64,
    /// Sum of the records' hashes so far, wrapping.
    pub hash: u64,
    /// Payload and key bytes taken since the last [`Intake::take`].
    pub bytes: usize,
    /// Smallest log timestamp taken since the last [`Intake::take`]: the oldest record's age is the batch's freshness.
    pub oldest: EventTime,
    events: Vec<Timed<T>>,
    dead: Vec<DeadLetter>,
}

impl<T> Intake<T> {
    /// For one partition of one source.
    pub fn new(source: SourceId, step: Arc<str>, partition: u32, rules: Rc<TimeRules<T>>) -> Self {
        Self {
            id: PartitionId { source, partition },
            step,
            rules,
            limit: EventTime::MAX,
            event_time_max: EventTime::MIN,
            records: 0,
            hash: 0,
            bytes: 0,
            oldest: EventTime::MAX,
            events: Vec::new(),
            dead: Vec::new(),
        }
    }

    /// A user's code is about to see the record at `offset`: if it panics, that is told of.
    #[inline]
    pub fn at_work(&self, offset: Offset) {
        trail::on(Position {
            partition: self.id,
            offset,
        });
    }

    /// A record that was decoded.
    #[inline]
    pub fn value(&mut self, raw: Raw<'_>, value: T) {
        self.count(&raw);
        let time = match &self.rules.event_time {
            Some(take) => {
                self.at_work(raw.offset);
                take(&value)
            }
            None => raw.timestamp,
        };
        if self.rules.timed && time > self.limit {
            return self.letter(&raw, Cause::EventTimeFarFuture, None, None);
        }
        if self.rules.timed && (time < EARLIEST || time > LATEST) {
            return self.letter(&raw, Cause::EventTimeInvalid, None, None);
        }
        let horizon = match self.event_time_max {
            EventTime::MIN => EventTime::MIN,
            max => max.minus(self.rules.lateness),
        };
        self.event_time_max = self.event_time_max.max(time);
        let at = Position {
            partition: self.id,
            offset: raw.offset,
        };
        self.events.push(Timed {
            value,
            time,
            horizon,
            at,
        });
    }

    /// A record that could not be decoded.
    pub fn dead(&mut self, raw: Raw<'_>, cause: Cause, schema: Option<u32>) {
        self.count(&raw);
        self.letter(&raw, cause, schema, None);
    }

    /// A record that could not be decoded because of what stands at a place in it.
    pub fn dead_at(&mut self, raw: Raw<'_>, cause: Cause, place: Box<str>) {
        self.count(&raw);
        self.letter(&raw, cause, None, Some(place.into()));
    }

    fn letter(&mut self, raw: &Raw<'_>, cause: Cause, schema: Option<u32>, detail: Option<String>) {
        self.dead.push(DeadLetter {
            at: Position {
                partition: self.id,
                offset: raw.offset,
            },
            step: self.step.to_string(),
            cause,
            detail,
            timestamp: raw.timestamp,
            schema,
            key: raw.key.map(<[u8]>::to_vec),
            payload: raw.payload.map(<[u8]>::to_vec),
        });
    }

    #[inline]
    fn count(&mut self, raw: &Raw<'_>) {
        use xxhash_rust::xxh3::xxh3_64_with_seed;
        let mut hash = xxh3_64_with_seed(raw.payload.unwrap_or(b"\0null"), raw.offset as u64);
        if let Some(key) = raw.key {
            hash ^= xxh3_64_with_seed(key, !(raw.offset as u64)).rotate_left(1);
        }
        self.records = self.records.wrapping_add(1);
        self.hash = self.hash.wrapping_add(hash);
        self.bytes += raw.payload.map_or(0, <[u8]>::len) + raw.key.map_or(0, <[u8]>::len);
        self.oldest = self.oldest.min(raw.timestamp);
    }

    /// The partition.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// How many events and dead letters wait to be taken.
    pub fn len(&self) -> usize {
        self.events.len() + self.dead.len()
    }

    /// Whether nothing waits to be taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes what was read since the last call; `spare` (emptied) is filled next, so that buffers go round.
    pub fn take(&mut self, mut spare: Vec<Timed<T>>) -> (Vec<Timed<T>>, Vec<DeadLetter>) {
        spare.clear();
        self.bytes = 0;
        self.oldest = EventTime::MAX;
        (
            std::mem::replace(&mut self.events, spare),
            std::mem::take(&mut self.dead),
        )
    }
}

/// Years 1 and 9999 bound what can be written as RFC 3339.
const EARLIEST: EventTime = EventTime(-62_135_596_800_000_000);
const LATEST: EventTime = EventTime(253_402_300_799_999_999);
