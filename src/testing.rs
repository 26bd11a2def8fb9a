//! Test harness for dataflows: runs in milliseconds, without a broker, a clock or a sleep.
//!
//! ```
//! use thalweg::prelude::*;
//! use thalweg::testing::Harness;
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Payment { merchant: u32, cents: i64, at_ms: i64 }
//!
//! fn spend(flow: Dataflow) {
//!     flow.source("payments", Kafka::topic("payments").json::<Payment>().event_time(|p| EventTime::from_millis(p.at_ms)))
//!         .key_by("merchant", |p| p.merchant)
//!         .window("spend", Tumbling::of(Duration::from_secs(60)))
//!         .aggregate(|a| a.sum(|p| p.cents))
//!         .view("merchant_spend");
//! }
//!
//! let mut test = Harness::of(dataflow("spend", spend));
//! test.feed("payments", 0, [Payment { merchant: 7, cents: 250, at_ms: 1_000 }]);
//! let first = test.epoch();
//! test.feed("payments", 0, [Payment { merchant: 7, cents: 150, at_ms: 2_000 }]);
//! let second = test.epoch();
//!
//! #[derive(Debug, PartialEq, Deserialize)]
//! struct Row { merchant: u32, value: i128 }
//! let run = test.workers(2).run()?;
//! assert_eq!(run.rows::<Row>("merchant_spend", first)?, [Row { merchant: 7, value: 250 }]);
//! assert_eq!(run.rows::<Row>("merchant_spend", second)?, [Row { merchant: 7, value: 400 }]);
//! # Ok::<(), thalweg::Error>(())
//! ```
//!
//! The whole engine runs: sequencer, ledger (in memory), operators, views. The test provides only the
//! sources' records, and when epochs end. Nothing is connected: what sinks receive is kept for
//! [`Run::written`].

pub mod memory;
mod written;

pub use self::written::Written;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::checkpoint::store::CheckpointStore;
use crate::codec::Cause;
use crate::dataflow::Flow;
use crate::disk::sim::SimDisk;
use crate::error::{Error, Result};
use crate::operator::aggregate::Aggregate;
use crate::position::{PartitionId, SourceId};
use crate::record::Event;
use crate::runtime::checkpoints::{CheckpointSchedule, CheckpointSettings as Checkpoints};
use crate::runtime::{self, PlanSummary, RunSettings, Service, SourceSubstitutes};
use crate::schema::Numbers;
use crate::sequencer::{Cuts, ScriptedEpoch};
use crate::sink::memory::MemorySinks;
use crate::source::{Environment, Source, Substitute};
use crate::testing::memory::{Given, Memory};
use crate::testing::written::Sinks;
use crate::time::{Epoch, EventTime};
use crate::view::serve::{ReadError, RowsQuery};
use crate::view::{AsOf, Snapshot, Views};

/// Feeds a dataflow and reads its views as of any epoch.
pub struct Harness {
    flow: Flow,
    settings: RunSettings,
    feeds: BTreeMap<String, Box<dyn Feed>>,
    /// Sources that are declared empty.
    empty: BTreeSet<String>,
    epochs: VecDeque<ScriptedEpoch>,
    /// The runs before the last one: their epochs, and the number of workers.
    runs: Vec<(VecDeque<ScriptedEpoch>, usize)>,
    last: u64,
    checkpoints: BTreeSet<Epoch>,
    idle: Vec<PartitionId>,
    /// Every partition that was ever declared idle.
    named_idle: Vec<(String, u32)>,
    mistakes: Vec<String>,
}

/// The records fed to one source, type-erased.
trait Feed: Send + Sync {
    fn as_any(&mut self) -> &mut dyn std::any::Any;
    /// Ends the current segment; returns the end of each partition.
    fn cut(&mut self) -> Vec<(u32, i64)>;
    fn partitions(&mut self) -> usize;
    fn substitute(&self) -> Result<Substitute>;
}

struct Fed<T> {
    partitions: Vec<Vec<Given<T>>>,
    ends: Vec<Vec<usize>>,
}

/// Records only need to be `Send`; the lock makes them shareable between the workers' builds.
struct Shared<T>(Mutex<Fed<T>>);

impl<T: Event> Feed for Shared<T> {
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }

    fn cut(&mut self) -> Vec<(u32, i64)> {
        let Fed { partitions, ends } = self.0.get_mut();
        ends.resize(partitions.len(), Vec::new());
        for (records, ends) in partitions.iter().zip(ends) {
            ends.push(records.len());
        }
        (0u32..)
            .zip(partitions.iter().map(|records| records.len() as i64))
            .collect()
    }

    fn partitions(&mut self) -> usize {
        self.0.get_mut().partitions.len()
    }

    fn substitute(&self) -> Result<Substitute> {
        let fed = self.0.lock();
        let memory = Memory::new(fed.partitions.clone()).segment_ends(fed.ends.clone());
        let opened = Source::open(memory, &Environment::default())?;
        Ok(Substitute {
            driver: opened.driver.clone(),
            opened: Some(Box::new(opened)),
        })
    }
}

impl Harness {
    /// Tests a flow, on one worker by default (see [`Harness::workers`]).
    pub fn of(flow: Flow) -> Self {
        let settings = RunSettings::default();
        let (feeds, empty, epochs) = (BTreeMap::new(), BTreeSet::new(), VecDeque::new());
        let (runs, last, checkpoints) = (Vec::new(), 0, BTreeSet::new());
        let (idle, named_idle, mistakes) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            flow,
            settings,
            feeds,
            empty,
            epochs,
            runs,
            last,
            checkpoints,
            idle,
            named_idle,
            mistakes,
        }
    }

    /// Sets the number of workers.
    pub fn workers(&mut self, workers: usize) -> &mut Self {
        self.settings.workers = workers;
        self
    }

    /// Sets the maximum number of records per read. Results must not depend on it, which a test can verify.
    pub fn batch_max(&mut self, records: usize) -> &mut Self {
        self.settings.bounds.batch_max = records.max(1);
        self
    }

    /// Feeds records to a partition of a source. For a table they are `(key, Some(value))`, or `(key, None)`
    /// to delete.
    ///
    /// Records of a source without an event-time function have the event time of the Unix epoch; see
    /// [`Harness::feed_at`].
    pub fn feed<T: Event>(
        &mut self,
        source: &str,
        partition: u32,
        records: impl IntoIterator<Item = T>,
    ) -> &mut Self {
        let records = records.into_iter().map(|value| (EventTime(0), Ok(value)));
        self.give(source, partition, records.collect())
    }

    /// Like [`Harness::feed`], with the log timestamp of each record.
    pub fn feed_at<T: Event>(
        &mut self,
        source: &str,
        partition: u32,
        records: impl IntoIterator<Item = (EventTime, T)>,
    ) -> &mut Self {
        self.give(
            source,
            partition,
            records
                .into_iter()
                .map(|(time, value)| (time, Ok(value)))
                .collect(),
        )
    }

    /// Feeds a record that cannot be decoded to a source of `T`.
    pub fn feed_dead<T: Event>(&mut self, source: &str, partition: u32, cause: Cause) -> &mut Self {
        self.give::<T>(source, partition, vec![(EventTime(0), Err(cause))])
    }

    /// Declares that a source has no records in this test. A source that is neither fed nor declared empty is
    /// a mistake of the test, because the real one would be read.
    pub fn empty(&mut self, source: &str) -> &mut Self {
        self.empty.insert(source.to_owned());
        self
    }

    fn give<T: Event>(&mut self, source: &str, partition: u32, records: Vec<Given<T>>) -> &mut Self {
        let feed = self.feeds.entry(source.to_owned()).or_insert_with(|| {
            Box::new(Shared::<T>(Mutex::new(Fed {
                partitions: Vec::new(),
                ends: Vec::new(),
            })))
        });
        match feed.as_any().downcast_mut::<Shared<T>>() {
            Some(shared) => {
                let partitions = &mut shared.0.get_mut().partitions;
                let at = partition as usize;
                partitions.resize_with(partitions.len().max(at + 1), Vec::new);
                partitions[at].extend(records);
            }
            None => self
                .mistakes
                .push(format!("source `{source}` was fed records of two types")),
        }
        self
    }

    /// Makes a source idle from the next epoch on: each of its partitions that was fed so far, if only with
    /// an empty list of records. It no longer holds back streams that it is merged with, until it has a
    /// record.
    pub fn idle_source(&mut self, source: &str) -> &mut Self {
        let partitions = self.feeds.get_mut(source).map_or(0, |feed| feed.partitions());
        // One that was never fed is refused when the test runs.
        for partition in 0..partitions.max(1) {
            self.idle(source, partition as u32);
        }
        self
    }

    /// Makes a partition idle from the next epoch on, until it has a record with a valid event time: it holds
    /// no watermark back.
    pub fn idle(&mut self, source: &str, partition: u32) -> &mut Self {
        self.named_idle.push((source.to_owned(), partition));
        self.idle.push(PartitionId {
            source: SourceId::of(source),
            partition,
        });
        self
    }

    /// Ends an epoch, which contains everything fed since the previous one.
    pub fn epoch(&mut self) -> Epoch {
        let epoch = Epoch(self.last + 1);
        self.epoch_at(epoch)
    }

    /// Takes a checkpoint as of the epoch that ended last.
    pub fn checkpoint(&mut self) -> &mut Self {
        self.checkpoints.insert(Epoch(self.last));
        self
    }

    /// Stops the service after the epochs so far, and restarts it with this many workers: from its newest
    /// checkpoint if there is one, otherwise from the topics.
    pub fn restart(&mut self, workers: usize) -> &mut Self {
        let epochs = std::mem::take(&mut self.epochs);
        self.runs.push((epochs, self.settings.workers));
        self.workers(workers)
    }

    /// Like [`Harness::epoch`], with its number (microseconds since the Unix epoch), which is also the "now"
    /// of its binding.
    pub fn epoch_at(&mut self, epoch: Epoch) -> Epoch {
        let mut hi = Vec::new();
        for (source, feed) in &mut self.feeds {
            let source = SourceId::of(source);
            hi.extend(
                feed.cut()
                    .into_iter()
                    .map(|(partition, end)| (PartitionId { source, partition }, end)),
            );
        }
        self.last = epoch.0;
        self.epochs.push_back(ScriptedEpoch {
            epoch,
            hi,
            idle: std::mem::take(&mut self.idle),
        });
        epoch
    }

    /// Runs the dataflow over everything that was fed.
    ///
    /// # Errors
    /// The mistakes of the dataflow, sources that were fed wrongly or not at all, or the error that halted
    /// it.
    pub fn run(&mut self) -> Result<Run> {
        if let Some(mistake) = self.mistakes.first() {
            return Err(Error::definition(mistake.clone()));
        }
        let plan = self.check_sources()?;
        for (source, partition) in &self.named_idle {
            let partitions = self.feeds.get_mut(source).map_or(0, |feed| feed.partitions());
            if *partition as usize >= partitions {
                return Err(Error::definition(format!(
                    "partition {partition} of source `{source}` is idle, but never fed"
                ))
                .hint("feed it; an empty list of records suffices"));
            }
        }
        let (feeds, empty) = (std::mem::take(&mut self.feeds), std::mem::take(&mut self.empty));
        let substitutes: SourceSubstitutes = Arc::new(move || {
            let fed = feeds
                .iter()
                .filter_map(|(name, feed)| Some((name.clone(), feed.substitute().ok()?)));
            let empty = empty.iter().map(|name| (name.clone(), Substitute::empty()));
            fed.chain(empty).collect::<HashMap<_, _>>()
        });
        let checkpoints = Checkpoints::new(
            CheckpointStore::new(Arc::new(SimDisk::new()), Path::new("/checkpoints")),
            CheckpointSchedule::At(std::mem::take(&mut self.checkpoints)),
        );
        let memory = MemorySinks::default();
        let settings = |cuts, workers| RunSettings {
            cuts: Cuts::Script(cuts),
            workers,
            substitutes: Some(substitutes.clone()),
            memory_sinks: Some(memory.clone()),
            checkpoints: Some(checkpoints.clone()),
            ..self.settings.clone()
        };
        for (epochs, workers) in std::mem::take(&mut self.runs) {
            Service::start(&self.flow, settings(epochs, workers))?.join()?;
        }
        let last = settings(std::mem::take(&mut self.epochs), self.settings.workers);
        let service = Service::start(&self.flow, last)?;
        let restored = service.restored();
        let views = service.join()?;
        let sinks = Sinks {
            planned: plan.sinks.clone(),
            memory,
        };
        Ok(Run {
            views,
            restored,
            sinks,
        })
    }
}

impl Harness {
    /// Checks that the test provides exactly the sources of the dataflow.
    fn check_sources(&self) -> Result<Arc<PlanSummary>> {
        let plan = runtime::plan(&self.flow, &self.settings.env)?;
        let declared: BTreeSet<&str> = plan
            .sources
            .iter()
            .map(|source| source.rules.name.as_str())
            .collect();
        let given: BTreeSet<&str> = self.feeds.keys().chain(&self.empty).map(String::as_str).collect();
        let quoted = |names: &BTreeSet<&str>| {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            names.join(", ")
        };
        if let Some(twice) = self.empty.iter().find(|name| self.feeds.contains_key(*name)) {
            return Err(Error::definition(format!(
                "source `{twice}` is both fed and declared empty"
            )));
        }
        if let Some(other) = given.difference(&declared).next() {
            return Err(Error::definition(format!("the dataflow has no source `{other}`"))
                .detail(format!("there are {}", quoted(&declared)))
                .hint("use the names that the dataflow gives its sources"));
        }
        let missing: BTreeSet<&str> = declared.difference(&given).copied().collect();
        match missing.first() {
            None => Ok(plan.clone()),
            Some(first) => Err(Error::definition(format!(
                "the test feeds nothing to these sources: {}",
                quoted(&missing)
            ))
            .hint(format!(
                "feed them: `feed(\"{first}\", 0, [..])`, or declare them empty: `empty(\"{first}\")`"
            ))),
        }
    }
}

/// The results of a dataflow.
pub struct Run {
    views: Arc<Views>,
    restored: Option<Epoch>,
    sinks: Sinks,
}

impl Run {
    /// All rows of a view as of an epoch, in key order, each deserialized as `R` from its flat JSON form.
    pub fn rows<R: DeserializeOwned>(&self, view: &str, epoch: Epoch) -> Result<Vec<R>> {
        let read = |row: &String| {
            serde_json::from_str(row).map_err(|error| Error::request(format!("row {row}: {error}")))
        };
        self.json(view, epoch)?.iter().map(read).collect()
    }

    /// All rows of a view as of an epoch, in key order, as flat JSON objects.
    pub fn json(&self, view: &str, epoch: Epoch) -> Result<Vec<String>> {
        let snapshot = self.snapshot(epoch)?;
        let unknown = || {
            let names = self.views.names().join("`, `");
            Error::request(format!("there is no view `{view}`")).detail(format!("there are `{names}`"))
        };
        let serve = self.views.get(view).ok_or_else(unknown)?;
        let (mut rows, mut cursor) = (Vec::new(), None);
        loop {
            let query = RowsQuery {
                limit: 1000,
                cursor: cursor.take(),
                ..RowsQuery::default()
            };
            let page = serve.rows(&query, &snapshot).map_err(refused)?;
            for row in &page.rows {
                let mut json = Vec::new();
                serve.schema().write_row(&row.row, Numbers::default(), &mut json);
                rows.push(String::from_utf8_lossy(&json).into_owned());
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(rows);
            }
        }
    }

    /// All that a sink was given, each row read into `R` from JSON: by epoch, and within one by key; of a
    /// stream, by partition and offset. Nothing is connected in a test: every sink but a function
    /// (`for_each_epoch`), which is called as it is, is replaced by one in memory.
    ///
    /// An event is read as what it is; a row from the flat object of its fields, as a view shows it.
    ///
    /// ```
    /// use thalweg::prelude::*;
    /// use thalweg::testing::Harness;
    ///
    /// fn names(flow: Dataflow) {
    ///     let merchants = Kafka::topic("merchants.v1").json::<String>().keyed::<u32>();
    ///     let merchants = flow.table("merchants", merchants).key_named("merchant");
    ///     merchants.upsert_to("names", Kafka::topic("names.v1").json());
    /// }
    ///
    /// let mut test = Harness::of(dataflow("names", names));
    /// test.feed("merchants", 0, [(7u32, Some("Mill".to_owned()))]).epoch();
    /// test.feed("merchants", 0, [(7u32, None::<String>)]).epoch();
    ///
    /// #[derive(Debug, PartialEq, Deserialize)]
    /// struct Name { merchant: u32, value: String }
    /// let written = test.run()?.written::<Name>("names")?;
    /// assert_eq!(written[0].after, Some(Name { merchant: 7, value: "Mill".into() }));
    /// assert_eq!((written[1].key::<u32>()?, &written[1].after), (7, &None));
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Request`](crate::Kind::Request): there is no such sink, it is a function, or a row is no `R`.
    pub fn written<R: DeserializeOwned>(&self, sink: &str) -> Result<Vec<Written<R>>> {
        self.sinks.written(sink)
    }

    /// Order-independent hash of a view's changes in an epoch: the same for any number of workers.
    pub fn hash(&self, view: &str, epoch: Epoch) -> Option<u64> {
        self.views.get(view)?.hash(epoch)
    }

    /// The moment of an epoch: its watermarks, positions and binding.
    pub fn snapshot(&self, epoch: Epoch) -> Result<Arc<Snapshot>> {
        self.views.snapshot(AsOf::Epoch(epoch)).map_err(refused)
    }

    /// The epoch of the checkpoint that the last start resumed from.
    pub fn restored(&self) -> Option<Epoch> {
        self.restored
    }

    /// The views.
    pub fn views(&self) -> &Arc<Views> {
        &self.views
    }
}

fn refused(error: ReadError) -> Error {
    Error::request(error.to_string())
}

/// Checks that an aggregate has one result for `values` in whatever order and grouping they are folded, and,
/// if it can [undo](Aggregate::undoes), that removed values leave no trace.
///
/// # Errors
/// Describes two foldings that differ.
pub fn permutes<T, A: Aggregate<T>>(aggregate: &A, values: &[T]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    let fold = |values: &[&T]| {
        let mut state = aggregate.empty();
        values.iter().for_each(|value| aggregate.add(&mut state, value));
        state
    };
    let check = |how: String, state: A::State, expected: &A::Out| {
        let other = aggregate.finish(&state);
        if other == *expected {
            return Ok(());
        }
        Err(
            Error::definition("the aggregate depends on the order of its values")
                .detail(format!("in order: {expected:?}"))
                .detail(format!("{how}: {other:?}")),
        )
    };
    let mut order: Vec<&T> = values.iter().collect();
    let forward = aggregate.finish(&fold(&order));
    // Every value comes first in some order, and last in another.
    for turn in 0..values.len() {
        for direction in ["forwards", "backwards"] {
            let from = format!("{direction}, turned by {turn}");
            check(from.clone(), fold(&order), &forward)?;
            let singly = order.iter().map(|value| fold(&[value]));
            let merged = singly.reduce(|mut one, other| {
                aggregate.merge(&mut one, other);
                one
            });
            check(
                format!("{from}, each merged"),
                merged.unwrap_or_else(|| aggregate.empty()),
                &forward,
            )?;
            // A turn is a grouping by itself, so that the work stays quadratic.
            let cuts = if turn == 0 { order.len() + 1 } else { 0 };
            for cut in 0..cuts {
                let (left, right) = order.split_at(cut);
                for (one, other) in [(left, right), (right, left)] {
                    let mut state = fold(one);
                    aggregate.merge(&mut state, fold(other));
                    check(format!("{from}, merged at {cut}"), state, &forward)?;
                }
                if aggregate.undoes() && !right.is_empty() {
                    let mut state = fold(&order);
                    left.iter().for_each(|value| aggregate.undo(&mut state, value));
                    let how = format!("{from}, {cut} taken out again");
                    check(how, state, &aggregate.finish(&fold(right)))?;
                }
            }
            order.reverse();
        }
        order.rotate_left(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::connect::kafka::Kafka;
    use crate::dataflow::window::Tumbling;
    use crate::dataflow::{Dataflow, dataflow};

    fn joined(flow: Dataflow<'_>) {
        let names = flow.table("names", Kafka::topic("n").json::<String>().keyed::<u32>());
        flow.source("numbers", Kafka::topic("o").avro::<u32>())
            .key_by("number", |n| *n)
            .window("minutes", Tumbling::of(Duration::from_secs(60)))
            .aggregate(|a| a.count())
            .left_join("named", &names, |_, n, name| (n, name.cloned()))
            .view("named_view");
    }

    fn refusal(test: &mut Harness) -> String {
        let error = test.run().err().expect("it is refused");
        assert_eq!(error.kind(), crate::error::Kind::Definition);
        error.to_string()
    }

    #[test]
    fn a_source_that_the_test_says_nothing_of_is_a_mistake() {
        let mut test = Harness::of(dataflow("joined", joined));
        let refused = refusal(&mut test);
        for said in ["`names`, `numbers`", "feed(\"names\"", "empty(\"names\")"] {
            assert!(refused.contains(said), "{refused}");
        }
        test.feed("numbers", 0, [7u32]);
        let refused = refusal(&mut test);
        assert!(
            refused.contains("`names`") && !refused.contains("`numbers`"),
            "{refused}"
        );
    }

    #[test]
    fn an_empty_source_brings_nothing() {
        for workers in 1..=2 {
            let mut test = Harness::of(dataflow("joined", joined));
            test.feed("numbers", 0, [7u32]).empty("names").workers(workers);
            let epoch = test.epoch();
            let rows = test.run().unwrap().json("named_view", epoch).unwrap();
            assert_eq!(rows.len(), 1, "{rows:?}");
            assert!(
                rows[0].contains("\"number\":7") && rows[0].contains("null"),
                "{rows:?}"
            );
        }
    }

    #[test]
    fn what_is_given_belongs_to_a_source_of_the_dataflow() {
        let mut test = Harness::of(dataflow("joined", joined));
        test.feed("nubmers", 0, [7u32]).empty("names");
        let refused = refusal(&mut test);
        assert!(
            refused.contains("no source `nubmers`") && refused.contains("`numbers`"),
            "{refused}"
        );
        let mut test = Harness::of(dataflow("joined", joined));
        test.feed("numbers", 0, [7u32]).empty("names").empty("numbers");
        assert!(refusal(&mut test).contains("declared empty"));
    }
}
