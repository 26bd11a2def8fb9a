//! A worker's copy of the ledger, as far as operators still need it, and where it exchanges orders and
//! reports.
//!
//! ```text
//!   control dataflow ── orders ──▶ WorkerContext ── per source ──▶ ingest operators ── reports ──▶ …
//!                                   │
//!                                   └── bindings ──▶ Timeline: epoch → watermarks, positions, now
//! ```
//!
//! An operator that sees its frontier pass an epoch finds that epoch here: the worker's own ingest operators
//! hold their capabilities until they know the binding, so the frontier cannot pass an epoch that the worker
//! does not know.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use timely::scheduling::Activator;

use crate::checkpoint::manifest::Base;
use crate::checkpoint::steps::StatefulSteps;
use crate::position::{EpochBinding, Offset, PartitionId, SourceId};
use crate::sequencer::message::{Order, Report};
use crate::time::{Epoch, EventTime};
use crate::watermark::{WatermarkFold, Watermarks};

/// The facts as of one epoch: the fold of all bindings up to it.
#[derive(Clone, Debug)]
pub struct EpochFacts {
    /// The epoch's binding.
    pub binding: Arc<EpochBinding>,
    /// The watermarks as of the epoch.
    pub watermarks: Arc<Watermarks>,
    /// The next offset of every partition.
    pub positions: Arc<[(PartitionId, Offset)]>,
}

impl EpochFacts {
    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.binding.epoch
    }

    /// The watermark of a stream that comes from `sources`.
    pub fn watermark(&self, sources: &[SourceId]) -> EventTime {
        self.watermarks.of(sources)
    }
}

/// The bound epochs that some operator of this worker may still need.
#[derive(Debug, Default)]
pub struct Timeline {
    epochs: VecDeque<EpochFacts>,
    /// The watermarks as of the epoch that the run was restored as of.
    base: Option<Arc<Watermarks>>,
    marks: WatermarkFold,
    positions: BTreeMap<PartitionId, Offset>,
}

impl Timeline {
    /// Tracks the watermark of a stream from `sources`. Must be called while the dataflow is built.
    pub fn track(&mut self, sources: &[SourceId]) {
        debug_assert!(self.positions.is_empty(), "tracked after the first binding");
        self.marks.track(sources);
    }

    /// Starts from the fold `base`.
    pub fn seed(&mut self, base: &Base) {
        self.positions
            .extend(base.binding.ranges.iter().map(|r| (r.id, r.hi)));
        self.base = Some(self.marks.seed(&base.binding, &base.sets));
    }

    /// Adds the next epoch.
    pub fn push(&mut self, binding: Arc<EpochBinding>) {
        self.positions.extend(binding.ranges.iter().map(|r| (r.id, r.hi)));
        let facts = EpochFacts {
            watermarks: self.marks.apply(&binding),
            binding,
            positions: self.positions.iter().map(|(p, o)| (*p, *o)).collect(),
        };
        self.epochs.push_back(facts);
    }

    /// The first epoch after `after`.
    pub fn next(&self, after: Epoch) -> Option<&EpochFacts> {
        let at = self.epochs.partition_point(|facts| facts.epoch() <= after);
        self.epochs.get(at)
    }

    /// The last epoch before `epoch`.
    pub fn before(&self, epoch: Epoch) -> Option<&EpochFacts> {
        let at = self.epochs.partition_point(|facts| facts.epoch() < epoch);
        at.checked_sub(1).and_then(|at| self.epochs.get(at))
    }

    /// The watermarks as of the epoch before `epoch`; `None` before the first one. After a restore the
    /// earliest are those of the checkpoint.
    pub fn watermarks_before(&self, epoch: Epoch) -> Option<Arc<Watermarks>> {
        let before = self.before(epoch).map(|facts| &facts.watermarks);
        before.or(self.base.as_ref()).cloned()
    }

    /// The watermark of a stream from `sources` as of the epoch before `epoch`.
    pub fn watermark_before(&self, epoch: Epoch, sources: &[SourceId]) -> Option<EventTime> {
        Some(self.watermarks_before(epoch)?.of(sources))
    }

    /// The facts of the epoch itself.
    pub fn get(&self, epoch: Epoch) -> Option<&EpochFacts> {
        let at = self.epochs.binary_search_by_key(&epoch, EpochFacts::epoch).ok()?;
        self.epochs.get(at)
    }

    /// Drops every epoch before `epoch`; the epoch itself stays, because operators ask for their predecessor.
    pub fn trim(&mut self, epoch: Epoch) {
        while self.epochs.front().is_some_and(|facts| facts.epoch() < epoch) {
            self.epochs.pop_front();
        }
    }
}

/// A batch of records, for measuring freshness when their epoch closes: their number, and the time of the
/// oldest.
#[derive(Clone, Copy, Debug)]
pub struct ReadBatch {
    /// The epoch in which they were released.
    pub epoch: Epoch,
    /// The log's timestamp of the oldest.
    pub oldest: EventTime,
    /// The number of records.
    pub records: u64,
}

/// Where a worker's control dataflow and its ingest operators meet.
#[derive(Default)]
pub struct WorkerContext {
    /// The worker's copy of the ledger.
    pub timeline: RefCell<Timeline>,
    inboxes: RefCell<HashMap<SourceId, SourceInbox>>,
    reports: RefCell<Vec<Report>>,
    reporter: RefCell<Option<Activator>>,
    released: RefCell<VecDeque<ReadBatch>>,
    /// The worker's stateful steps.
    pub steps: Rc<StatefulSteps>,
}

struct SourceInbox {
    orders: VecDeque<Order>,
    activator: Activator,
}

impl WorkerContext {
    /// The context of one worker.
    pub fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Opens the inbox of a source's ingest operator.
    pub fn register(&self, source: SourceId, activator: Activator) {
        self.inboxes.borrow_mut().insert(
            source,
            SourceInbox {
                orders: VecDeque::new(),
                activator,
            },
        );
    }

    /// Sets the operator that takes the reports.
    pub fn set_reporter(&self, activator: Activator) {
        *self.reporter.borrow_mut() = Some(activator);
    }

    /// Distributes an order. A binding enters the timeline first, and is then passed to every source.
    pub fn deliver(&self, order: &Order) {
        let only = match order {
            Order::Assign { id, .. } => Some(id.source),
            Order::Limit(source, _) | Order::Alignment(source, _) => Some(*source),
            Order::Epoch { binding, .. } => {
                self.timeline.borrow_mut().push(binding.clone());
                None
            }
            Order::Skip(binding) => {
                self.timeline.borrow_mut().push(binding.clone());
                None
            }
            Order::Base(base) => {
                self.timeline.borrow_mut().seed(base);
                None
            }
            Order::Checkpoint { .. } | Order::Durable(_) | Order::Live | Order::Stop => None,
        };
        for (source, inbox) in self.inboxes.borrow_mut().iter_mut() {
            if only.is_none_or(|id| id == *source) {
                inbox.orders.push_back(order.clone());
                inbox.activator.activate();
            }
        }
    }

    /// Takes the orders for a source.
    pub fn take_orders(&self, source: SourceId) -> VecDeque<Order> {
        let mut inboxes = self.inboxes.borrow_mut();
        inboxes
            .get_mut(&source)
            .map(|inbox| std::mem::take(&mut inbox.orders))
            .unwrap_or_default()
    }

    /// Queues a report of a reader.
    pub fn report(&self, report: Report) {
        self.reports.borrow_mut().push(report);
        if let Some(reporter) = self.reporter.borrow().as_ref() {
            reporter.activate();
        }
    }

    /// Takes the queued reports.
    pub fn take_reports(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.borrow_mut())
    }

    /// Records a batch for measuring freshness.
    pub fn released(&self, batch: ReadBatch) {
        self.released.borrow_mut().push_back(batch);
    }

    /// Takes the batches released up to `epoch`.
    pub fn take_released(&self, epoch: Epoch) -> Vec<ReadBatch> {
        let mut released = self.released.borrow_mut();
        // Sources release independently of each other, so epochs are not in order here.
        let (done, rest) = released.drain(..).partition(|batch| batch.epoch <= epoch);
        *released = rest;
        Vec::from_iter::<VecDeque<ReadBatch>>(done)
    }
}
