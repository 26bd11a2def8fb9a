//! The operator that reads a source on one worker and releases its records at the epochs that the ledger
//! binds.
//!
//! ```text
//!            orders (assign, limit, pace, epoch, durable, live, stop)
//!                 │
//!   reader ──▶ intake ──▶ chunks, cut where reads ended ──▶ released at the epoch whose range they lie in ──▶ events
//!                 │                                                                                       └──▶ dead letters
//!                 └──▶ report: read up to here
//! ```
//!
//! Two rules uphold the guarantees of the epoch clock:
//! * records flow as soon as their binding is known, but the capability for an epoch is kept until the
//!   binding is **durable**, so that no frontier passes an epoch that a crash could undo;
//! * the capability is kept through every epoch, including those without records for this worker: operators
//!   iterate over their worker's timeline up to their frontier, and must find every epoch in it.

mod buffer_limits;
mod future_limit;
mod partition;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, StreamVec};

pub use buffer_limits::BufferLimits;

use crate::bridge::{Halt, Waker};
use crate::codec::registry::Verdict;
use crate::error::Result;
use crate::ingest::future_limit::FutureLimit;
use crate::ingest::partition::{IngestPartition, differs, watermark};
use crate::metrics::{SourceMetrics, WorkerMetrics};
use crate::panic_context;
use crate::position::{EpochBinding, Offset, PartitionId, PartitionRange, SchemaSeen, SourceId};
use crate::record::Timed;
use crate::sequencer::message::{Order, Report};
use crate::source::{DeadLetter, Intake, Reader, TimeRules};
use crate::time::{Epoch, EventTime};
use crate::timeline::{ReadBatch, WorkerContext};
use crate::{clock, fault};

/// Everything the operator needs; created by `dataflow`.
pub struct Ingest<T> {
    /// Name of the source.
    pub name: Arc<str>,
    /// Its id.
    pub source: SourceId,
    /// The source's reader on this worker.
    pub reader: Box<dyn Reader<T>>,
    /// The rules for event times.
    pub rules: Rc<TimeRules<T>>,
    /// The buffer limits.
    pub bounds: BufferLimits,
    /// The worker's context.
    pub worker_context: Rc<WorkerContext>,
    /// Receives errors from which the service cannot continue.
    pub halt: Halt,
    /// The metrics of the source.
    pub metrics: SourceMetrics,
    /// The metrics of records held between reading and release on this worker.
    pub held: WorkerMetrics,
}

/// The output streams of an [`Ingest`].
pub type Streams<'s, T> = (StreamVec<'s, Epoch, Timed<T>>, StreamVec<'s, Epoch, DeadLetter>);

/// Adds the operator to a dataflow. `open` creates it once the operator's waker is known.
pub fn ingest<'s, T: Clone + 'static>(
    scope: Scope<'s, Epoch>,
    name: &str,
    open: impl FnOnce(Waker) -> Ingest<T>,
) -> Streams<'s, T> {
    let mut builder = OperatorBuilder::new(name.to_owned(), scope);
    let address = builder.operator_info().address;
    let activator = scope.activator_for(address.clone());
    let ingest = open(Waker::of(scope.worker().sync_activator_for(address.to_vec())));
    ingest
        .worker_context
        .register(ingest.source, scope.activator_for(address));

    let (events, events_stream) = builder.new_output::<Vec<Timed<T>>>();
    let (dead, dead_stream) = builder.new_output::<Vec<DeadLetter>>();
    let mut events = OutputBuilder::from(events);
    let mut dead =
        OutputBuilder::<_, timely::container::CapacityContainerBuilder<Vec<DeadLetter>>>::from(dead);
    let worker = scope.index();

    builder.build(move |mut capabilities| {
        let dead_cap = capabilities.pop().expect("two outputs");
        let events_cap = capabilities.pop().expect("two outputs");
        let mut running = IngestOperator::new(ingest, worker, (events_cap, dead_cap));
        move |_frontiers| {
            let mut events = events.activate();
            let mut dead = dead.activate();
            let outcome = running.turn(|time, released| match released {
                ReleasedBatch::Events(cap, batch) => {
                    debug_assert_eq!(cap.time(), time);
                    events.session(cap).give_container(batch);
                }
                ReleasedBatch::Dead(cap, letters) => dead.session(cap).give_iterator(letters.drain(..)),
            });
            match outcome {
                Ok(Turn::Again) => activator.activate(),
                Ok(Turn::Rest) => {}
                Err(error) => {
                    running.capabilities = None;
                    running.ingest.halt.halt(error);
                }
            }
        }
    });
    (events_stream, dead_stream)
}

enum ReleasedBatch<'a, T> {
    Events(&'a Capability<Epoch>, &'a mut Vec<Timed<T>>),
    Dead(&'a Capability<Epoch>, &'a mut Vec<DeadLetter>),
}

#[derive(PartialEq, Eq)]
enum Turn {
    Again,
    Rest,
}

struct IngestOperator<T> {
    ingest: Ingest<T>,
    /// Names the source in messages when user code panics on a record of it.
    label: Rc<str>,
    worker: usize,
    partitions: Vec<IngestPartition<T>>,
    buffered: (usize, usize),
    spare: Vec<Vec<Timed<T>>>,
    /// Bound but not yet released.
    pending: VecDeque<(Arc<EpochBinding>, BoundBy)>,
    /// Released but not yet known to be durable.
    released: VecDeque<Epoch>,
    durable: Epoch,
    limit: Option<FutureLimit>,
    alignment: EventTime,
    live: bool,
    stopping: bool,
    /// When progress was last reported to external tools, by the monotonic clock.
    shown: Instant,
    capabilities: Option<(Capability<Epoch>, Capability<Epoch>)>,
}

/// Which run bound an epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BoundBy {
    /// An earlier run; its records are part of the state that this run resumed from.
    Restored,
    /// An earlier run.
    Before,
    /// This run.
    Now,
}

/// Reads per turn: enough to be efficient, few enough to let other operators run.
const READS_A_TURN: usize = 8;
/// Empty reads per turn, for each partition.
const READS_IN_VAIN_MAX: usize = 8;
const SPARE_MAX: usize = 64;
const SHOW_EVERY: Duration = Duration::from_secs(1);

impl<T: 'static> IngestOperator<T> {
    fn new(ingest: Ingest<T>, worker: usize, capabilities: (Capability<Epoch>, Capability<Epoch>)) -> Self {
        Self {
            label: format!("source `{}`", ingest.name).into(),
            ingest,
            worker,
            partitions: Vec::new(),
            buffered: (0, 0),
            spare: Vec::new(),
            pending: VecDeque::new(),
            released: VecDeque::new(),
            durable: Epoch::ZERO,
            limit: None,
            alignment: EventTime::MAX,
            live: false,
            stopping: false,
            shown: clock::instant(),
            capabilities: Some(capabilities),
        }
    }

    fn turn(&mut self, mut emit: impl FnMut(&Epoch, ReleasedBatch<'_, T>)) -> Result<Turn> {
        if self.capabilities.is_none() {
            return Ok(Turn::Rest);
        }
        for order in self.ingest.worker_context.take_orders(self.ingest.source) {
            self.apply_order(order)?;
        }
        let mut turn = self.read()?;
        let (full, waiting) = (self.is_full(), self.pending.len());
        self.release(&mut emit)?;
        if full && self.pending.len() < waiting {
            turn = Turn::Again; // Room came after the reading had given up, and nothing else may wake it.
        }
        self.drop_capabilities();
        self.show_progress();
        Ok(turn)
    }

    fn apply_order(&mut self, order: Order) -> Result<()> {
        match order {
            Order::Assign {
                id,
                worker,
                from,
                event_time_max,
                idle,
            } if worker == self.worker => {
                self.ingest.reader.assign(id.partition, from)?;
                let (step, rules) = (self.ingest.name.clone(), self.ingest.rules.clone());
                let watermark = watermark(event_time_max, rules.lateness);
                let mut intake = Intake::new(id.source, step, id.partition, rules);
                intake.event_time_max = event_time_max;
                let metrics = self.ingest.metrics.partition(id.partition);
                metrics.idle.set(i64::from(idle));
                if self.ingest.rules.timed {
                    metrics.watermark(watermark);
                }
                self.partitions
                    .push(IngestPartition::new(intake, from, watermark, metrics));
            }
            Order::Assign { .. } => {}
            Order::Limit(_, event_time) => {
                let heard = clock::instant();
                self.limit = Some(FutureLimit { event_time, heard });
            }
            Order::Alignment(_, alignment) => self.alignment = alignment,
            Order::Base(base) => self.bind_schemas(&base.binding),
            Order::Skip(binding) => {
                self.bind_schemas(&binding);
                self.durable = self.durable.max(binding.epoch);
                self.pending.push_back((binding, BoundBy::Restored));
            }
            Order::Checkpoint { .. } => {}
            Order::Epoch { binding, replay } => {
                self.bind_schemas(&binding);
                if replay {
                    for range in self.own(&binding) {
                        let partition = self.partition(range.id).expect("own ranges only");
                        partition.bound.push_back((range.hi, range.limit));
                    }
                    self.durable = self.durable.max(binding.epoch);
                }
                let bound = if replay { BoundBy::Before } else { BoundBy::Now };
                self.pending.push_back((binding, bound));
            }
            Order::Durable(epoch) => self.durable = self.durable.max(epoch),
            Order::Live => self.live = true,
            Order::Stop => self.stopping = true,
        }
        Ok(())
    }

    fn bind_schemas(&mut self, binding: &EpochBinding) {
        let own = |seen: &&SchemaSeen| seen.source == self.ingest.source;
        for seen in binding.schemas.iter().filter(own) {
            self.ingest.reader.bind_schema(Verdict {
                id: seen.id,
                fingerprint: seen.fingerprint,
                since: seen.since,
            });
        }
    }

    fn partition(&mut self, id: PartitionId) -> Option<&mut IngestPartition<T>> {
        self.partitions.iter_mut().find(|p| p.intake.id() == id)
    }

    /// The ranges of this source that this worker reads.
    fn own(&self, binding: &EpochBinding) -> Vec<PartitionRange> {
        let own = |range: &&PartitionRange| self.partitions.iter().any(|p| p.intake.id() == range.id);
        binding.ranges.iter().filter(own).cloned().collect()
    }

    /// Reads where it is needed most: the partition that is furthest behind in event time goes first, and
    /// none runs further ahead than the skew allows while another has more to read. A partition whose records
    /// have no event time does not advance in event time, so it takes turns with the others; otherwise it
    /// would be the only one that is read.
    fn read(&mut self) -> Result<Turn> {
        if self.stopping {
            return Ok(Turn::Rest);
        }
        let _work = panic_context::enter(&self.label);
        let rules = self.ingest.rules.clone();
        let bounds = self.ingest.bounds;
        let ahead = bounds.ahead_of(self.alignment);
        // A limit that is too old is not applied; reading waits for the next. Applied now, it might reject an
        // event of the present as too far in the future.
        let limit = self
            .limit
            .and_then(|limit| limit.in_force(clock::instant(), rules.future_bound));
        for partition in &mut self.partitions {
            partition.more = true; // A wake-up does not say which partition it is for.
            partition.untimed_reads = 0;
            let paused = rules.timed && partition.intake.event_time_max > ahead;
            if std::mem::replace(&mut partition.paused, paused) != paused {
                partition.metrics.paused.set(i64::from(paused));
            }
        }
        // A reader that promises more but returns nothing must not keep the worker from its other work.
        let mut calls = 0..READS_A_TURN + READS_IN_VAIN_MAX * self.partitions.len();
        let mut reads = 0;
        while reads < READS_A_TURN && calls.next().is_some() {
            // Reading pauses until a release frees buffer space. Bound ranges are read in any case: an
            // earlier run with more workers may have bound more in one epoch than this one may buffer.
            let unread_bound = self.is_full().then(|| self.unread_bound());
            let ready = |p: &&mut IngestPartition<T>| {
                if unread_bound
                    .as_ref()
                    .is_some_and(|unread_bound| !unread_bound.contains(&p.intake.id()))
                {
                    return false;
                }
                let paced = !rules.timed || p.intake.event_time_max <= ahead;
                p.more && (!p.bound.is_empty() || (self.live && paced && (!rules.timed || limit.is_some())))
            };
            let next = self
                .partitions
                .iter_mut()
                .filter(ready)
                .min_by_key(|p| (p.untimed_reads, p.intake.event_time_max));
            let Some(partition) = next else {
                return Ok(Turn::Rest);
            };
            let until = match partition.bound.front() {
                Some((hi, limit)) => {
                    partition.intake.limit = *limit;
                    *hi
                }
                None => {
                    partition.intake.limit = limit.unwrap_or(EventTime::MAX);
                    Offset::MAX
                }
            };
            let before = partition.intake.records;
            let reader = &mut self.ingest.reader;
            let progress = reader.read(
                partition.intake.id().partition,
                until,
                bounds.batch_max,
                &mut partition.intake,
            )?;
            partition.behind = match progress.at_end {
                true => 0,
                false => reader.behind(partition.intake.id().partition).unwrap_or(u64::MAX),
            };
            let held = partition.keep(progress, until, before, &mut self.spare);
            // Empty reads are cheap, and must not use up the turn of others.
            reads += usize::from(held.records > 0);
            partition.untimed_reads += usize::from(held.records > 0 && !held.timed);
            if let Some(to) = partition.report(held.timed) {
                self.ingest.worker_context.report(Report::Read(to));
            }
            self.report_schemas();
            self.hold(held.records as isize, held.bytes as isize);
        }
        Ok(Turn::Again)
    }

    fn report_schemas(&mut self) {
        for verdict in self.ingest.reader.schemas_seen() {
            self.ingest.worker_context.report(Report::Schema(SchemaSeen {
                source: self.ingest.source,
                id: verdict.id,
                fingerprint: verdict.fingerprint,
                since: verdict.since,
            }));
        }
    }

    /// The partitions whose oldest bound epoch has records that are still to be read.
    fn unread_bound(&self) -> Vec<PartitionId> {
        let Some((binding, BoundBy::Before)) = self.pending.front() else {
            return Vec::new();
        };
        let mut unread_bound = self.own(binding);
        unread_bound.retain(|range| {
            self.partitions
                .iter()
                .any(|p| p.intake.id() == range.id && p.position < range.hi)
        });
        unread_bound.into_iter().map(|range| range.id).collect()
    }

    /// Emits the contents of bound epochs, as far as they have been read.
    fn release(&mut self, emit: &mut impl FnMut(&Epoch, ReleasedBatch<'_, T>)) -> Result<()> {
        while let Some((binding, bound)) = self.pending.front().cloned() {
            let own = match bound {
                BoundBy::Restored => Vec::new(),
                BoundBy::Before | BoundBy::Now => self.own(&binding),
            };
            let replay = bound == BoundBy::Before;
            let unread = |range: &PartitionRange| {
                self.partitions
                    .iter()
                    .any(|p| p.intake.id() == range.id && p.position < range.hi)
            };
            if own.iter().any(unread) {
                break;
            }
            self.pending.pop_front();
            let (events, dead) = self
                .capabilities
                .as_ref()
                .expect("checked at the start of the turn");
            let (events, dead) = (events.delayed(&binding.epoch), dead.delayed(&binding.epoch));
            let floor = self.watermark_before(binding.epoch);
            for range in &own {
                self.release_range(range, &binding, replay, floor, |released| match released {
                    OutputBuffer::Events(batch) => {
                        emit(&binding.epoch, ReleasedBatch::Events(&events, batch))
                    }
                    OutputBuffer::Dead(letters) => emit(&binding.epoch, ReleasedBatch::Dead(&dead, letters)),
                })?;
            }
            self.released.push_back(binding.epoch);
            fault::point("epoch.released");
        }
        Ok(())
    }

    /// W(n-1) of the source, which applies to partitions that were idle.
    fn watermark_before(&self, epoch: Epoch) -> EventTime {
        let timeline = self.ingest.worker_context.timeline.borrow();
        let before = timeline.watermark_before(epoch, &[self.ingest.source]);
        before.unwrap_or(EventTime::MIN)
    }

    fn release_range(
        &mut self,
        range: &PartitionRange,
        binding: &EpochBinding,
        replay: bool,
        floor: EventTime,
        mut out: impl FnMut(OutputBuffer<'_, T>),
    ) -> Result<()> {
        let (name, worker_context, rules) = (
            self.ingest.name.clone(),
            self.ingest.worker_context.clone(),
            self.ingest.rules.clone(),
        );
        let spare = &mut self.spare;
        let (mut records_freed, mut bytes_freed) = (0, 0);
        let partition = self
            .partitions
            .iter_mut()
            .find(|p| p.intake.id() == range.id)
            .expect("own ranges only");
        let mut now = partition.released;
        while partition.chunks.front().is_some_and(|chunk| chunk.hi <= range.hi) {
            let mut chunk = partition.chunks.pop_front().expect("just seen");
            let records = chunk.records.wrapping_sub(now.0);
            records_freed += chunk.events.len() + chunk.dead.len();
            bytes_freed += chunk.bytes;
            now = (chunk.records, chunk.hash);
            if rules.timed && partition.watermark < floor {
                for event in &mut chunk.events {
                    event.horizon = event.horizon.max(floor);
                }
            }
            worker_context.released(ReadBatch {
                epoch: binding.epoch,
                oldest: chunk.oldest,
                records,
            });
            if !chunk.events.is_empty() {
                out(OutputBuffer::Events(&mut chunk.events));
            }
            if !chunk.dead.is_empty() {
                for letter in &chunk.dead {
                    self.ingest.metrics.dead_letters(letter.cause.code()).inc();
                }
                out(OutputBuffer::Dead(&mut chunk.dead));
            }
            if spare.len() < SPARE_MAX && chunk.events.capacity() > 0 {
                spare.push(chunk.events);
            }
        }
        let counted = (
            now.0.wrapping_sub(partition.released.0),
            now.1.wrapping_sub(partition.released.1),
        );
        partition.released = now;
        partition.watermark = watermark(range.event_time_max, rules.lateness);
        if rules.timed {
            partition.metrics.watermark(partition.watermark);
        }
        partition.metrics.idle.set(i64::from(range.idle));
        self.hold(-(records_freed as isize), -(bytes_freed as isize));
        match range.compacted || counted == (range.records, range.hash) {
            true => Ok(()),
            false => Err(differs(&name, range, binding.epoch, counted, replay)),
        }
    }

    fn is_full(&self) -> bool {
        let bounds = &self.ingest.bounds;
        self.buffered.0 >= bounds.records_max || self.buffered.1 >= bounds.bytes_max
    }

    fn hold(&mut self, records: isize, bytes: isize) {
        self.buffered.0 = self.buffered.0.saturating_add_signed(records);
        self.buffered.1 = self.buffered.1.saturating_add_signed(bytes);
        self.ingest.held.buffered_records.inc_by(records as i64);
        self.ingest.held.buffered_bytes.inc_by(bytes as i64);
    }

    /// About once a second, reports the service's position to tools that monitor the broker. Nothing depends
    /// on it.
    fn show_progress(&mut self) {
        let now = clock::instant();
        if now - self.shown < SHOW_EVERY {
            return;
        }
        self.shown = now;
        let timeline = self.ingest.worker_context.timeline.borrow();
        let Some(facts) = timeline.before(self.durable.next()) else {
            return;
        };
        let own = |(id, _): &&(PartitionId, Offset)| self.partitions.iter().any(|p| p.intake.id() == *id);
        let positions: Vec<(u32, Offset)> = facts
            .positions
            .iter()
            .filter(own)
            .map(|(id, offset)| (id.partition, *offset))
            .collect();
        drop(timeline);
        self.ingest.reader.show_progress(&positions);
    }

    /// Drops the capabilities of epochs that are released and durable; all of them once nothing more will
    /// arrive.
    fn drop_capabilities(&mut self) {
        let mut passed = None;
        while self.released.front().is_some_and(|epoch| *epoch <= self.durable) {
            passed = self.released.pop_front();
        }
        if self.stopping && self.released.is_empty() && self.pending.is_empty() {
            self.capabilities = None;
            return;
        }
        if let Some((events, dead)) = self.capabilities.as_mut().filter(|_| passed.is_some()) {
            let pending = self.pending.front().map(|(binding, _)| binding.epoch);
            let to = self
                .released
                .front()
                .copied()
                .or(pending)
                .unwrap_or_else(|| passed.unwrap_or_default().next());
            events.downgrade(&to);
            dead.downgrade(&to);
        }
    }
}

enum OutputBuffer<'a, T> {
    Events(&'a mut Vec<Timed<T>>),
    Dead(&'a mut Vec<DeadLetter>),
}
