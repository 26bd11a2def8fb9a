//! The control dataflow: carries reports to the sequencer on worker 0, and its orders to every worker.
//!
//! ```text
//!  worker n   context ── Report ──▶ ToLeader ═╗                     ╔═▶ FromLeader ── Order ──▶ context
//!             a stop that was asked for ═╩═▶ worker 0: sequencer ═══╣                Live ──▶ is_live of the process
//!                                                                   ╚═▶ … every worker
//! ```

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::CapabilitySet;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::{Scope, StreamVec};
use timely::scheduling::Activator;
use timely::worker::Worker;

use crate::bridge::Waker;
use crate::clock;
use crate::error::Result;
use crate::fault;
use crate::ledger::Bindings;
use crate::position::{Offset, SourceId};
use crate::runtime::checkpoints::{CheckpointTimer, RestoredPrefix};
use crate::runtime::ledger_writer::LedgerEntry;
use crate::runtime::{ProcessState, WakerSlot};
use crate::sequencer::message::{Order, Report};
use crate::sequencer::{ClockReading, NextStep, Sequencer};
use crate::source::Topology;
use crate::time::Epoch;
use crate::timeline::WorkerContext;

/// An observation of a source from outside.
pub(crate) struct TopologyLook {
    pub(crate) source: SourceId,
    /// When it began.
    pub(crate) asked: Instant,
    /// `None` if it failed.
    pub(crate) seen: Option<Topology>,
}

/// Messages from other threads to the sequencer.
#[derive(Default)]
pub(crate) struct SequencerInbox {
    looks: Mutex<Vec<TopologyLook>>,
    starts: Mutex<Vec<(SourceId, Vec<(u32, Offset)>)>>,
    durable: AtomicU64,
    stop: AtomicBool,
    waker: WakerSlot,
    watcher: WakerSlot,
}

impl SequencerInbox {
    /// Sets where a source starts if the ledger does not contain it; must precede its first topology.
    pub(crate) fn starts(&self, source: SourceId, starts: Vec<(u32, Offset)>) {
        self.starts.lock().push((source, starts));
    }

    /// Until they are taken, at most three observations of a source are kept: the first successful one,
    /// because a run may end where the source ended then, the newest successful one, and the newest failed
    /// one.
    pub(crate) fn look(&self, look: TopologyLook) {
        let mut looks = self.looks.lock();
        let alike = |other: &&mut TopologyLook| {
            other.source == look.source && other.seen.is_some() == look.seen.is_some()
        };
        let firsts = usize::from(look.seen.is_some());
        match looks.iter_mut().filter(alike).nth(firsts) {
            Some(newest) => *newest = look,
            None => looks.push(look),
        }
        drop(looks);
        self.wake();
    }

    pub(crate) fn durable(&self, epoch: Epoch) {
        self.durable.store(epoch.0, Ordering::Release);
        self.wake();
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
        self.wake_watcher();
    }

    /// Sets the waker of the thread that watches the sources, called when watching ends.
    pub(crate) fn watched_by(&self, watcher: Waker) {
        *self.watcher.lock() = Some(watcher);
    }

    pub(crate) fn wake_watcher(&self) {
        if let Some(watcher) = self.watcher.lock().as_ref() {
            watcher.wake();
        }
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.lock().as_ref() {
            waker.wake();
        }
    }
}

/// Messages from workers to the sequencer.
#[derive(Clone, Serialize, Deserialize)]
enum ToLeader {
    Report(Report),
    /// A process was asked to stop; all of them do.
    Stop,
}

/// Messages from the sequencer's worker to each worker.
#[derive(Clone, Serialize, Deserialize)]
enum FromLeader {
    Order(Order),
    /// All bindings of earlier runs were replayed, without an interrupting stop.
    Live,
}

/// The sequencer and the state that drives it; on worker 0 only.
pub(crate) struct Leader {
    sequencer: Sequencer,
    replay: Option<Bindings>,
    ledger_writer: Sender<LedgerEntry>,
    durable: Epoch,
    started: Instant,
    stopped: bool,
    /// Whether the workers were told that the service is live.
    live: bool,
    /// Wakes itself at this time, because timely does not merge timed activations.
    wake_at: Option<Instant>,
    /// The bindings up to the restored checkpoint, to be skipped.
    way: Option<RestoredPrefix>,
    /// When the next checkpoint is due.
    due: Option<CheckpointTimer>,
    /// The replay, and with it the run, ends with this epoch.
    upto: Option<Epoch>,
}

impl Leader {
    pub(super) fn new(
        mut sequencer: Sequencer,
        replay: Bindings,
        ledger_writer: Sender<LedgerEntry>,
        until_end: bool,
        way: Option<RestoredPrefix>,
        due: Option<CheckpointTimer>,
        upto: Option<Epoch>,
    ) -> Self {
        if until_end {
            sequencer.until_end();
        }
        let started = clock::instant();
        Self {
            sequencer,
            replay: Some(replay),
            ledger_writer,
            durable: Epoch::ZERO,
            started,
            stopped: false,
            live: false,
            wake_at: None,
            way,
            due,
            upto,
        }
    }

    fn now(&self) -> ClockReading {
        ClockReading {
            wall: clock::now_micros(),
            mono: clock::instant().duration_since(self.started),
        }
    }

    /// Processes new input and produces messages. Returns how long until the next call is needed, if known.
    fn turn(
        &mut self,
        shared: &ProcessState,
        closed: Epoch,
        told: &mut Vec<FromLeader>,
    ) -> Result<Option<Duration>> {
        let mut orders = Vec::new();
        self.sequencer.closed(closed);
        self.replay(shared, &mut orders)?;
        let now = self.now();
        if self.replay.is_none() {
            for (source, starts) in shared.inbox.starts.lock().drain(..) {
                self.sequencer.starts(source, starts);
            }
            for TopologyLook { source, asked, seen } in std::mem::take(&mut *shared.inbox.looks.lock()) {
                let mono = asked.saturating_duration_since(self.started);
                match seen {
                    Some(topology) => {
                        self.sequencer
                            .topology(source, &topology, ClockReading { mono, ..now })?
                    }
                    None => self.sequencer.unseen(source, now),
                }
            }
        }
        let durable = Epoch(shared.inbox.durable.load(Ordering::Acquire));
        if durable > self.durable {
            self.durable = durable;
            orders.push(Order::Durable(durable));
        }
        let mut wait = None;
        let stopping = shared.inbox.stopping();
        if stopping && self.replay.take().is_some() {
            self.sequencer.live(); // Cut short: what was given out is finished, the rest stays in the ledger.
        }
        let next = if stopping {
            NextStep::Finished
        } else {
            self.sequencer.next(now)
        };
        orders.append(&mut self.sequencer.take_orders());
        match next {
            NextStep::Open(binding) => {
                shared.metrics.epochs.records.observe(binding.records() as f64);
                fault::point("epoch.opened");
                // The ledger writer only ends early after a halt.
                self.begin_checkpoint(shared, binding.epoch, now, &mut orders);
                let _halted = self.ledger_writer.send(LedgerEntry::Binding(binding.clone()));
                fault::point("epoch.bound");
                orders.push(Order::Epoch {
                    binding,
                    replay: false,
                });
                wait = Some(Duration::ZERO);
            }
            NextStep::Wait(for_) => wait = Some(for_),
            NextStep::Idle => {}
            NextStep::Finished if self.stopped || self.sequencer.is_busy() => {}
            NextStep::Finished => {
                self.stopped = true;
                orders.push(Order::Stop);
            }
        }
        let epochs = &shared.metrics.epochs;
        epochs.in_flight.set(self.sequencer.in_flight() as i64);
        let compared = self.sequencer.compared();
        let mut known = shared.compared.lock();
        epochs.alike.inc_by(compared.alike - known.alike);
        epochs.different.inc_by(compared.different - known.different);
        *known = compared;
        told.extend(orders.into_iter().map(FromLeader::Order));
        if self.replay.is_none() && !stopping && !self.live {
            self.live = true;
            told.push(FromLeader::Live);
            fault::point("replay.live");
        }
        Ok(wait)
    }

    /// Begins a checkpoint as of an epoch that no worker has seen yet, if one is due.
    fn begin_checkpoint(
        &mut self,
        shared: &ProcessState,
        epoch: Epoch,
        now: ClockReading,
        orders: &mut Vec<Order>,
    ) {
        if let (Some(due), Some(checkpoints)) = (&mut self.due, shared.checkpoints.get())
            && checkpoints.is_free()
            && due.is_due(epoch, now)
        {
            let retry = checkpoints.begin(self.sequencer.base());
            orders.push(Order::Checkpoint { epoch, retry });
        }
    }

    /// Replays the bindings of an earlier run, a window of epochs at a time.
    fn replay(&mut self, shared: &ProcessState, orders: &mut Vec<Order>) -> Result<()> {
        let now = self.now();
        if let (Some(way), Some(replay)) = (&mut self.way, &mut self.replay) {
            if !way.skip_bindings(replay, &mut self.sequencer, now)? {
                orders.append(&mut self.sequencer.take_orders());
                return Ok(());
            }
            self.way = None;
        }
        while let Some(replay) = self.replay.as_mut().filter(|_| self.sequencer.wants_replay()) {
            match replay.next().transpose()? {
                // Results of earlier epochs in later bindings still matter.
                Some(binding) if self.upto.is_some_and(|upto| binding.epoch > upto) => {
                    self.sequencer.expect(&binding)?;
                }
                Some(binding) => {
                    self.sequencer.replay(binding, now)?;
                    fault::point("replay.given");
                }
                None => {
                    fault::point("replay.ended");
                    self.replay = None;
                    self.sequencer.live();
                    if self.upto.is_some() {
                        shared.inbox.stop();
                    }
                }
            }
        }
        orders.append(&mut self.sequencer.take_orders());
        Ok(())
    }
}

/// A worker's handle on its control dataflow.
pub(crate) struct ControlHandle {
    reporter: Activator,
    sequencer: Activator,
    finished: Rc<Cell<bool>>,
    closed: Rc<Cell<Epoch>>,
}

impl ControlHandle {
    /// Tells the sequencer that epochs up to this one are finished everywhere.
    pub(crate) fn closed(&self, epoch: Epoch) {
        self.closed.set(epoch);
        self.sequencer.activate();
    }

    /// Closes the reports, which ends the control dataflow.
    pub(crate) fn finish(&self) {
        self.finished.set(true);
        self.reporter.activate();
    }
}

type Out<D> = CapacityContainerBuilder<Vec<D>>;

/// Builds the control dataflow on a worker.
pub(crate) fn build(
    worker: &mut Worker,
    shared: &Arc<ProcessState>,
    worker_context: &Rc<WorkerContext>,
) -> ControlHandle {
    let (index, peers) = (worker.index(), worker.peers() as u64);
    // In a process without the sequencer, the first worker passes on a requested stop.
    let passes_stop_on = index != 0 && index.is_multiple_of(shared.settings.workers);
    let leader = if index == 0 {
        shared.leader.lock().take()
    } else {
        None
    };
    let (finished, closed): (Rc<Cell<bool>>, Rc<Cell<Epoch>>) = Default::default();
    worker.dataflow_named::<u64, _, _>("control", |scope| {
        let (reports, reporter) = reports(scope, passes_stop_on, (worker_context, shared), finished.clone());
        let (orders, sequencer) = sequence(reports, leader, peers, shared.clone(), closed.clone());
        deliver(orders, worker_context.clone(), shared.clone());
        ControlHandle {
            reporter,
            sequencer,
            finished,
            closed,
        }
    })
}

/// The reports of this worker; and a waker to look for more.
fn reports<'s>(
    scope: Scope<'s, u64>,
    mut passes_stop_on: bool,
    (worker_context, shared): (&Rc<WorkerContext>, &Arc<ProcessState>),
    finished: Rc<Cell<bool>>,
) -> (StreamVec<'s, u64, ToLeader>, Activator) {
    let mut reporter = None;
    let reports = source::<_, Out<ToLeader>, _, _>(scope, "report", |capability, info| {
        let activator = scope.activator_for(info.address.clone());
        activator.activate(); // It may have been asked to stop before.
        reporter = Some(activator);
        worker_context.set_reporter(scope.activator_for(info.address.clone()));
        if passes_stop_on {
            let sync = scope.worker().sync_activator_for(info.address.to_vec());
            *shared.inbox.waker.lock() = Some(Waker::of(sync));
        }
        let (worker_context, shared) = (worker_context.clone(), shared.clone());
        let mut alive = Some(capability);
        let unstamped = CapabilitySet::<u64>::new();
        move |output| {
            let reports = worker_context.take_reports();
            if !reports.is_empty() {
                let reports = reports.into_iter().map(ToLeader::Report);
                output.session(&unstamped).give_iterator(reports);
            }
            if passes_stop_on && shared.inbox.stopping() {
                passes_stop_on = false;
                output.session(&unstamped).give(ToLeader::Stop);
            }
            if finished.get() {
                alive = None;
            }
            let _kept = &alive;
        }
    });
    (reports, reporter.expect("the operator was built"))
}

/// The sequencer's operator: reports in, orders for every worker out.
fn sequence<'s>(
    reports: StreamVec<'s, u64, ToLeader>,
    mut leader: Option<Leader>,
    peers: u64,
    shared: Arc<ProcessState>,
    closed: Rc<Cell<Epoch>>,
) -> (StreamVec<'s, u64, (u64, FromLeader)>, Activator) {
    let scope = reports.scope();
    let mut sequencer = None;
    let to_lead = Exchange::new(|_: &ToLeader| 0);
    let orders = reports.unary::<Out<(u64, FromLeader)>, _, _, _>(to_lead, "sequencer", |_, info| {
        let activator = scope.activator_for(info.address.clone());
        sequencer = Some(scope.activator_for(info.address.clone()));
        let sync = Waker::of(scope.worker().sync_activator_for(info.address.to_vec()));
        if scope.index() == 0 {
            *shared.inbox.waker.lock() = Some(sync);
            activator.activate();
        }
        let unstamped = CapabilitySet::<u64>::new();
        move |input, output| {
            input.for_each(|_, reports| {
                for report in reports.drain(..) {
                    let refused = match (report, &mut leader) {
                        (ToLeader::Report(report), Some(leader)) => leader.sequencer.report(report).err(),
                        (ToLeader::Stop, Some(_)) => {
                            shared.sinks.close();
                            shared.inbox.stop();
                            None
                        }
                        (_, None) => None,
                    };
                    if let Some(error) = refused {
                        shared.halt.halt(error);
                        leader = None;
                    }
                }
            });
            let Some(leading) = &mut leader else { return };
            let mut told = Vec::new();
            match leading.turn(&shared, closed.get(), &mut told) {
                Ok(wait) => leading.wake_after(wait, &activator),
                Err(error) => {
                    shared.halt.halt(error);
                    leader = None;
                }
            }
            if !told.is_empty() {
                let mut session = output.session(&unstamped);
                for to in 0..peers {
                    session.give_iterator(told.iter().map(|one| (to, one.clone())));
                }
            }
        }
    });
    (orders, sequencer.expect("the operator was built"))
}

/// Delivers the sequencer's orders to this worker.
fn deliver(
    orders: StreamVec<'_, u64, (u64, FromLeader)>,
    worker_context: Rc<WorkerContext>,
    shared: Arc<ProcessState>,
) {
    let hear = move |told: FromLeader| match told {
        FromLeader::Order(order) => {
            if let Order::Epoch {
                binding,
                replay: true,
            } = &order
            {
                shared.replay_to.fetch_max(binding.epoch.0, Ordering::AcqRel);
            }
            if let (Order::Checkpoint { epoch, retry }, Some(checkpoints)) =
                (&order, shared.checkpoints.get())
                && let Some(job) = checkpoints.job(*epoch, *retry)
            {
                worker_context.steps.begin(*epoch, job);
                fault::point("checkpoint.frozen");
            }
            worker_context.deliver(&order);
        }
        FromLeader::Live => shared.live.store(true, Ordering::Release),
    };
    let to_worker = Exchange::new(|(to, _): &(u64, FromLeader)| *to);
    orders.unary::<Out<()>, _, _, _>(to_worker, "orders", move |_, _| {
        move |input, _output| input.for_each(|_, told| told.drain(..).for_each(|(_, told)| hear(told)))
    });
}

impl Leader {
    fn wake_after(&mut self, wait: Option<Duration>, activator: &Activator) {
        let Some(wait) = wait else { return };
        if wait.is_zero() {
            activator.activate();
            return;
        }
        let now = clock::instant();
        let at = now + wait;
        if self.wake_at.is_none_or(|set| set <= now || set > at) {
            self.wake_at = Some(at);
            activator.activate_after(wait);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::TopicId;

    #[test]
    fn looks_that_nobody_takes_do_not_pile_up() {
        let inbox = SequencerInbox::default();
        for n in 0..100u8 {
            for source in [SourceId(1), SourceId(2)] {
                let topology = Topology {
                    topic: TopicId([n; 16]),
                    compacted: false,
                    partitions: Vec::new(),
                };
                let seen = (n % 3 > 0).then_some(topology);
                let asked = clock::instant();
                inbox.look(TopologyLook { source, asked, seen });
            }
        }
        let looks = inbox.looks.lock();
        let of = |source| looks.iter().filter(move |look| look.source == source);
        for source in [SourceId(1), SourceId(2)] {
            let seen = of(source)
                .filter_map(|look| look.seen.as_ref())
                .map(|seen| seen.topic.0[0]);
            assert_eq!(seen.collect::<Vec<_>>(), [1, 98], "the first and the newest");
            assert_eq!(of(source).filter(|look| look.seen.is_none()).count(), 1);
        }
    }
}
