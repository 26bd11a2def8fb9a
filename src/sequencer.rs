//! The sequencer decides what each epoch contains. This is a pure state machine; `runtime` drives it.
//!
//! ```text
//!   readers ── Report::Read (how far, how many, highest event time) ──▶┐
//!   driver  ── topology (which partitions) ───────────────────────────▶│ Sequencer ── Order::Assign ──▶ readers
//!   ledger  ── durable ───────────────────────────────────────────────▶│           ── Order::Epoch  ──▶ readers, timeline
//!   views   ── closed ────────────────────────────────────────────────▶┘           ── Order::Durable ─▶ readers
//! ```
//!
//! An epoch opens when a record waits (or a partition turned idle), at most once per `epoch_interval`, and
//! only while fewer than `epochs_in_flight_max` are unfinished. Epochs grow while readers are behind: see
//! [`cadence`]. A binding contains exactly what the readers reported; nothing depends on which worker read a
//! partition.

mod cadence;
mod event_time;
pub(crate) mod message;
mod restore;
pub mod results;
mod topology;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::position::{EpochBinding, Offset, PartitionId, PartitionRange, SchemaSeen, SourceId, TopicId};
use crate::sequencer::cadence::Cadence;
use crate::sequencer::event_time::Quiet;
use crate::sequencer::message::{Order, ReadTo, Report, limit_period};
use crate::sequencer::results::ResultLog;
use crate::source::PartitionFacts;
use crate::time::{Epoch, EventTime};

/// What the sequencer needs to know about a source.
#[derive(Clone, Debug)]
pub struct SourceRules {
    /// The source.
    pub id: SourceId,
    /// Its name, for errors.
    pub name: String,
    /// See [`crate::source::TimeRules`].
    pub lateness: Duration,
    /// See [`crate::source::TimeRules`].
    pub idle_after: Duration,
    /// See [`crate::source::TimeRules`].
    pub future_bound: Duration,
    /// Whether the source has a watermark.
    pub timed: bool,
}

/// The policy that cuts epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cuts {
    /// By the clock and by the records that wait.
    Clock {
        /// Minimum time between two epochs.
        interval: Duration,
    },
    /// By a script, for tests.
    Script(VecDeque<ScriptedEpoch>),
}

/// One epoch of a [`Cuts::Script`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The offset up to which each partition is bound; others stay where they are.
    pub hi: Vec<(PartitionId, Offset)>,
    /// Partitions that turn idle in this epoch. They stay idle until they have a record.
    pub idle: Vec<PartitionId>,
}

/// Settings of the sequencer.
#[derive(Clone, Debug)]
pub struct SequencerSettings {
    /// How epochs are cut.
    pub cuts: Cuts,
    /// Maximum number of unfinished epochs.
    pub epochs_in_flight_max: usize,
    /// The same during a replay, where epochs are given and readers need to look ahead.
    pub replay_in_flight_max: usize,
    /// Number of workers that partitions are assigned to.
    pub workers: usize,
    /// Whether and how results are recorded and compared.
    pub results: Option<results::ResultRules>,
}

/// The two clocks, read by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// Microseconds since the Unix epoch.
    pub wall: u64,
    /// Monotonic, since any fixed moment.
    pub mono: Duration,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Write this binding to the ledger and broadcast it.
    Open(Arc<EpochBinding>),
    /// Wait this long; nothing happens before.
    Wait(Duration),
    /// Wait until something is reported.
    Idle,
    /// The script or the sources have ended.
    Finished,
}

#[derive(Debug)]
struct PartitionProgress {
    /// The last binding.
    bound: PartitionRange,
    /// The reader's counts as of `bound.hi`.
    counted: (u64, u64),
    /// Reports beyond `bound.hi`, oldest first.
    reports: VecDeque<ReadTo>,
    at_end: bool,
    /// Number of records that its log is known to hold beyond its latest report.
    behind: u64,
    /// The reader's count of records as of its latest report.
    heard: u64,
    /// Whether its latest records have no valid event time.
    untimed: bool,
    /// When it last had a valid event time or was last observed not to be quiet, by the monotonic clock.
    active: Duration,
    /// What observations from outside tell about its quiet.
    quiet: Quiet,
    /// As first observed in this run.
    first: Option<PartitionFacts>,
    /// Whether a binding contains it.
    is_bound: bool,
}

impl PartitionProgress {
    /// The end of the offsets read, as far as known: bound or reported.
    fn read_to(&self) -> Offset {
        self.reports.back().map_or(self.bound.hi, |report| report.hi)
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Sequencer {
    settings: SequencerSettings,
    sources: BTreeMap<SourceId, SourceRules>,
    topics: BTreeMap<SourceId, TopicId>,
    new_topics: Vec<(SourceId, TopicId)>,
    /// Schema ids bound or about to be, by source, id and, if an id became known late, partition.
    schemas: BTreeMap<(SourceId, u32, Option<u32>), SchemaSeen>,
    new_schemas: Vec<SchemaSeen>,
    /// The starting offsets of sources that are new to the ledger, where they are not the log's start.
    starts: BTreeMap<PartitionId, Offset>,
    /// Partitions that start there, to be bound: a later start must not choose again.
    new_starts: BTreeSet<PartitionId>,
    partitions: BTreeMap<PartitionId, PartitionProgress>,
    watermarks: BTreeMap<SourceId, EventTime>,
    /// Sources that are bound as entirely idle.
    idle: BTreeSet<SourceId>,
    /// Sources whose partitions are known: observed from outside in this run.
    looked_at: BTreeSet<SourceId>,
    /// Sources whose topic is compacted, as last observed.
    compacted: BTreeSet<SourceId>,
    /// When each source's far-future limit was last set, by the monotonic clock.
    limits: BTreeMap<SourceId, Duration>,
    alignments: BTreeMap<SourceId, EventTime>,
    last: Epoch,
    opened: Duration,
    cadence: Cadence,
    /// Since when readers have been reading freely.
    live_since: Option<Duration>,
    in_flight: VecDeque<Epoch>,
    orders: Vec<Order>,
    outcomes: ResultLog,
    until_end: bool,
    live: bool,
}

impl Sequencer {
    /// A sequencer that knows no partition yet. It starts in replay: see [`Sequencer::live`].
    pub fn new(settings: SequencerSettings, sources: Vec<SourceRules>) -> Self {
        let interval = match settings.cuts {
            Cuts::Clock { interval } => interval,
            Cuts::Script(_) => Duration::ZERO,
        };
        Self {
            cadence: Cadence::new(interval),
            outcomes: ResultLog::new(settings.results.clone()),
            settings,
            sources: sources.into_iter().map(|s| (s.id, s)).collect(),
            topics: BTreeMap::new(),
            new_topics: Vec::new(),
            schemas: BTreeMap::new(),
            new_schemas: Vec::new(),
            starts: BTreeMap::new(),
            new_starts: BTreeSet::new(),
            partitions: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            idle: BTreeSet::new(),
            looked_at: BTreeSet::new(),
            compacted: BTreeSet::new(),
            limits: BTreeMap::new(),
            alignments: BTreeMap::new(),
            last: Epoch::ZERO,
            opened: Duration::ZERO,
            live_since: None,
            in_flight: VecDeque::new(),
            orders: Vec::new(),
            until_end: false,
            live: false,
        }
    }

    /// Takes the orders to broadcast, in this order, before the result of a later [`Sequencer::next`].
    pub fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// Makes it stop once everything that the topologies reported as readable is bound.
    pub fn until_end(&mut self) {
        self.until_end = true;
    }

    /// The last epoch bound, [`Epoch::ZERO`] before the first.
    pub fn last(&self) -> Epoch {
        self.last
    }

    /// Whether epochs are unfinished.
    pub fn is_busy(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// How many epochs are unfinished.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Replays a binding of an earlier run, in the ledger's order. Broadcast it after the orders that this
    /// creates.
    pub fn replay(&mut self, binding: EpochBinding, now: ClockReading) -> Result<()> {
        self.check_sources(&binding)?;
        for range in &binding.ranges {
            if !self.partitions.contains_key(&range.id) {
                self.assign(range.id, range.lo, now.mono);
            }
            let partition = self.partitions.get_mut(&range.id).expect("was just assigned");
            partition.counted.0 = partition.counted.0.wrapping_add(range.records);
            partition.counted.1 = partition.counted.1.wrapping_add(range.hash);
            partition.bound = range.clone();
            partition.is_bound = true;
        }
        self.note(&binding);
        self.expect(&binding)?;
        self.in_flight.push_back(binding.epoch);
        self.orders.push(Order::Epoch {
            binding: Arc::new(binding),
            replay: true,
        });
        Ok(())
    }

    fn check_sources(&self, binding: &EpochBinding) -> Result<()> {
        for range in &binding.ranges {
            if !self.sources.contains_key(&range.id.source) {
                return Err(Error::integrity(
                    "the ledger contains a source that this dataflow does not have",
                )
                .detail(format!(
                    "epoch {}, source {:08x}",
                    binding.epoch, range.id.source.0
                ))
                .hint("run the dataflow that wrote this ledger, or start over with another directory"));
            }
        }
        Ok(())
    }

    /// Applies the parts of a binding other than its ranges.
    fn note(&mut self, binding: &EpochBinding) {
        self.topics.extend(binding.topics.iter().copied());
        let schemas = binding.schemas.iter();
        self.schemas
            .extend(schemas.map(|seen| (restore::schema_key(seen), *seen)));
        self.watermarks.extend(binding.watermarks.iter().copied());
        self.note_idle(&binding.idle);
        self.last = binding.epoch;
    }

    /// Whether it accepts another binding of an earlier run now.
    pub fn wants_replay(&self) -> bool {
        self.in_flight.len() < self.settings.replay_in_flight_max
    }

    /// Ends the replay: opens epochs from here on.
    pub fn live(&mut self) {
        if !self.live {
            self.live = true;
            self.orders.push(Order::Durable(self.last));
            self.orders.push(Order::Live);
        }
    }

    /// Handles a report.
    ///
    /// # Errors
    /// If two processes were given different answers for one schema id, so that it is unclear which of them
    /// counts; or if an epoch has a different result than the ledger says.
    pub fn report(&mut self, report: Report) -> Result<()> {
        match report {
            Report::Read(to) => self.read_to(to),
            Report::Closed { epoch, hashes } => self.outcomes.report(epoch, &hashes)?,
            Report::Schema(seen) => match self.schemas.insert(restore::schema_key(&seen), seen) {
                None => self.new_schemas.push(seen),
                Some(known) if known == seen => {}
                Some(known) => {
                    let told = |seen: SchemaSeen| {
                        let text = seen.fingerprint.map(|text| format!("{text:016x}"));
                        let since = seen.since.map(|(partition, offset)| {
                            format!(", in partition {partition} from offset {offset} on")
                        });
                        text.unwrap_or("unknown".into()) + &since.unwrap_or_default()
                    };
                    return Err(Error::integrity(format!(
                        "the registry gave two answers for schema id {}",
                        seen.id
                    ))
                    .detail(format!("bound: {}, now: {}", told(known), told(seen)))
                    .hint("a restart uses the first answer"));
                }
            },
        }
        Ok(())
    }

    /// Handles a reader's progress.
    pub fn read_to(&mut self, report: ReadTo) {
        if let Some(partition) = self.partitions.get_mut(&report.id) {
            partition.read(report);
        }
    }

    /// Reports that every epoch up to `epoch` is finished: applied by every view, queued by every sink.
    pub fn closed(&mut self, epoch: Epoch) {
        while self.in_flight.front().is_some_and(|e| *e <= epoch) {
            self.in_flight.pop_front();
        }
    }

    /// Decides what to do now.
    pub fn next(&mut self, now: ClockReading) -> NextStep {
        if !self.live {
            return NextStep::Idle;
        }
        self.live_since.get_or_insert(now.mono);
        self.refresh_limits(now);
        self.refresh_alignments();
        // Which partitions count in a watermark is known only when all partitions are known, including those
        // in no binding.
        if self.sources.keys().any(|source| !self.looked_at.contains(source)) {
            return NextStep::Idle;
        }
        match &self.settings.cuts {
            Cuts::Script(script) => match script.front() {
                None => NextStep::Finished,
                Some(_) if self.in_flight.len() >= self.settings.epochs_in_flight_max => NextStep::Idle,
                Some(next) if !self.script_is_read(next) => NextStep::Idle,
                Some(_) => NextStep::Open(self.open_scripted(now)),
            },
            Cuts::Clock { .. } => {
                if self.until_end && self.all_bound() {
                    return NextStep::Finished;
                }
                if self.in_flight.len() >= self.settings.epochs_in_flight_max {
                    return NextStep::Idle;
                }
                let waits =
                    !self.new_starts.is_empty() || self.partitions.values().any(|p| !p.reports.is_empty());
                if !waits && self.idle_due().is_empty() {
                    return self.rest(now);
                }
                let since = now.mono.saturating_sub(self.opened);
                let behind = self
                    .partitions
                    .values()
                    .fold(0u64, |sum, p| sum.saturating_add(p.behind));
                self.cadence.behind(behind, now.mono);
                let length = self.cadence.length(self.waiting());
                if since < length {
                    return NextStep::Wait(length - since);
                }
                self.cadence.opened(now.mono);
                NextStep::Open(self.open_by_clock(now))
            }
        }
    }

    /// Number of records that were read but are not bound.
    fn waiting(&self) -> u64 {
        let waiting = |p: &PartitionProgress| {
            p.reports.back().map_or(0, |last| match p.bound.compacted {
                true => last.hi.abs_diff(p.bound.hi),
                false => last.records.wrapping_sub(p.counted.0),
            })
        };
        self.partitions.values().map(waiting).sum()
    }

    fn all_bound(&self) -> bool {
        let known = self.sources.keys().all(|s| self.topics.contains_key(s));
        known
            && self.new_starts.is_empty()
            && self
                .partitions
                .values()
                .all(|p| p.first.is_some_and(|first| p.bound.hi >= first.end))
    }

    fn script_is_read(&self, next: &ScriptedEpoch) -> bool {
        next.hi.iter().all(|(id, hi)| {
            let partition = self.partitions.get(id);
            partition.is_some_and(|p| p.bound.hi >= *hi || p.reports.iter().any(|r| r.hi >= *hi))
        })
    }

    /// Nothing to bind: waits until the next far-future limit. Partitions only turn idle after an observation
    /// from outside, which wakes the sequencer.
    fn rest(&self, now: ClockReading) -> NextStep {
        let timed = self.sources.values().filter(|s| s.timed);
        let limit = timed
            .map(|s| {
                let age = self.limits.get(&s.id).map(|at| now.mono.saturating_sub(*at));
                limit_period(s.future_bound).saturating_sub(age.unwrap_or_default())
            })
            .min();
        limit.map_or(NextStep::Idle, NextStep::Wait)
    }

    fn open_by_clock(&mut self, now: ClockReading) -> Arc<EpochBinding> {
        // Even while others are busy: otherwise one quiet partition would hold the watermark back as long as
        // the load lasts.
        let idle = self.idle_due();
        let quiet = |id: &&PartitionId| self.partitions[*id].reports.is_empty();
        let mut taken: Vec<(PartitionId, Option<ReadTo>)> =
            idle.iter().filter(quiet).map(|id| (*id, None)).collect();
        for (id, partition) in &mut self.partitions {
            // A range has a single limit: a report under another one waits for the next epoch.
            let Some(limit) = partition.reports.front().map(|r| r.limit) else {
                continue;
            };
            let same = partition.reports.iter().take_while(|r| r.limit == limit).count();
            taken.push((*id, merge(partition.reports.drain(..same))));
        }
        self.open(now, Epoch(0), taken, &idle)
    }

    fn open_scripted(&mut self, now: ClockReading) -> Arc<EpochBinding> {
        let Cuts::Script(script) = &mut self.settings.cuts else {
            unreachable!("called for scripts only")
        };
        let next = script.pop_front().expect("checked by the caller");
        let mut taken = Vec::new();
        for (id, hi) in &next.hi {
            let partition = self.partitions.get_mut(id).expect("checked by the caller");
            let upto = partition.reports.iter().take_while(|r| r.hi <= *hi).count();
            // A partition without records is not included: without a report it would count as turning idle.
            if upto > 0 {
                taken.push((*id, merge(partition.reports.drain(..upto))));
            }
        }
        for id in &next.idle {
            let turns = self.partitions.get(id).is_some_and(|p| !p.bound.idle);
            if turns && !taken.iter().any(|(other, _)| other == id) {
                taken.push((*id, None));
            }
        }
        self.open(
            ClockReading {
                wall: next.epoch.0,
                mono: now.mono,
            },
            next.epoch,
            taken,
            &next.idle.iter().copied().collect(),
        )
    }

    /// Binds `taken`: one report per partition, or none for a partition that only turns idle. Partitions in
    /// `idle` are idle in any case. Partitions that start in the middle of their log are bound there, even
    /// with an empty range.
    fn open(
        &mut self,
        now: ClockReading,
        least: Epoch,
        mut taken: Vec<(PartitionId, Option<ReadTo>)>,
        idle: &BTreeSet<PartitionId>,
    ) -> Arc<EpochBinding> {
        for id in std::mem::take(&mut self.new_starts) {
            if !taken.iter().any(|(other, _)| *other == id) {
                taken.push((id, None));
            }
        }
        let epoch = Epoch(now.wall).max(self.last.next()).max(least);
        let mut ranges = Vec::with_capacity(taken.len());
        for (id, report) in taken {
            let partition = self.partitions.get_mut(&id).expect("taken from the partitions");
            let range = &mut partition.bound;
            range.lo = range.hi;
            (range.records, range.hash) = (0, 0);
            range.compacted |= self.compacted.contains(&id.source);
            match report {
                // It turns idle, or begins.
                None => {}
                Some(to) => {
                    let (records, hash) = partition.counted;
                    range.hi = to.hi;
                    if !range.compacted {
                        range.records = to.records.wrapping_sub(records);
                        range.hash = to.hash.wrapping_sub(hash);
                    }
                    range.event_time_max = to.event_time_max;
                    range.limit = to.limit;
                    if to.timed {
                        range.idle = false;
                        partition.active = now.mono;
                    }
                    partition.counted = (to.records, to.hash);
                }
            }
            range.idle |= idle.contains(&id);
            ranges.push(range.clone());
            partition.is_bound = true;
        }
        if ranges.iter().any(|range| range.compacted) {
            self.outcomes.give_up();
        }
        let (watermarks, idle) = self.raise_watermarks();
        let binding = Arc::new(EpochBinding {
            epoch,
            now: EventTime(i64::try_from(now.wall).unwrap_or(i64::MAX)),
            watermarks,
            idle,
            ranges,
            topics: std::mem::take(&mut self.new_topics),
            schemas: std::mem::take(&mut self.new_schemas),
            results: self.outcomes.take(),
        });
        self.last = epoch;
        self.opened = now.mono;
        self.in_flight.push_back(epoch);
        binding
    }
}

/// Combines several reports of one partition, oldest first, into one.
fn merge(reports: impl Iterator<Item = ReadTo>) -> Option<ReadTo> {
    reports.reduce(|before, last| ReadTo {
        timed: before.timed || last.timed,
        ..last
    })
}

#[cfg(test)]
mod tests;
