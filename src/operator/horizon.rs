//! Lateness for a step over several sources.
//!
//! An event carries the horizon that its own source gave it. A step over a set S of sources has promised
//! more: by epoch n−1 it has closed windows up to E(n−1), the [watermark](crate::watermark) of S. So for this
//! step an event of epoch n has the horizon max(own, E(n−1)), and a source that was idle and left S behind
//! cannot reopen what was closed.
//!
//! For a source that never left S the second term changes nothing. Up to n−1 it was part of every minimum, so
//! E(n−1) ≤ W(n−1) of that source; and its events' own horizons are at least that W(n−1): W is the minimum of
//! its partitions' watermarks, and a partition that was idle is measured by W(n−1) itself. For the same
//! reason the term changes nothing for a step over one source, where E is W. So lateness depends on the log
//! and not on how epochs are cut, except for sources that return from idleness.

use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::operator::epoch_cursor::EpochBuffer;
use crate::position::SourceId;
use crate::record::{Event, Timed};
use crate::time::Epoch;
use crate::timeline::WorkerContext;

/// Raises the horizon of each event to the time that a step over `sources` had closed by the previous epoch.
pub(crate) fn raise_horizons<'s, T: Event>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    name: &str,
    sources: Rc<[SourceId]>,
    worker_context: Rc<WorkerContext>,
) -> StreamVec<'s, Epoch, Timed<T>> {
    if sources.len() < 2 {
        return events;
    }
    type Builder<T> = CapacityContainerBuilder<Vec<Timed<T>>>;
    let name = format!("{name}: horizon");
    events.unary_frontier::<Builder<T>, _, _, _>(Pipeline, &name, move |_, _| {
        let mut arrivals = EpochBuffer::new();
        move |(input, _frontier), output| {
            arrivals.gather(input);
            // Events read by another worker may arrive before this worker knows their epoch. Its own ingest
            // operators let the frontier pass the epoch only afterwards, which wakes this operator.
            let known = |epoch: Epoch| worker_context.timeline.borrow().get(epoch).is_some();
            while let Some((epoch, capability, batches)) = arrivals.next_if(known) {
                let timeline = worker_context.timeline.borrow();
                let before = timeline.watermark_before(epoch, &sources);
                drop(timeline);
                let mut session = output.session(&capability);
                for mut batch in batches {
                    if let Some(before) = before {
                        for event in &mut batch {
                            event.horizon = event.horizon.max(before);
                        }
                    }
                    session.give_container(&mut batch);
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::vec::Input;
    use timely::dataflow::operators::{Inspect, Probe};

    use super::*;
    use crate::checkpoint::manifest::Base;
    use crate::position::{EpochBinding, PartitionId, Position};
    use crate::sequencer::message::Order;
    use crate::time::EventTime;

    const A: SourceId = SourceId(1);
    const B: SourceId = SourceId(2);

    fn event(time: i64, horizon: i64) -> Timed<u8> {
        let partition = PartitionId {
            source: B,
            partition: 0,
        };
        Timed {
            value: 0,
            time: EventTime(time),
            horizon: EventTime(horizon),
            at: Position { partition, offset: 0 },
        }
    }

    fn binding(epoch: u64, watermarks: &[(SourceId, i64)], idle: &[(SourceId, bool)]) -> Arc<EpochBinding> {
        Arc::new(EpochBinding {
            epoch: Epoch(epoch),
            now: EventTime(0),
            ranges: Vec::new(),
            watermarks: watermarks.iter().map(|(s, w)| (*s, EventTime(*w))).collect(),
            idle: idle.to_vec(),
            topics: Vec::new(),
            schemas: Vec::new(),
            results: None,
        })
    }

    #[test]
    fn the_first_epoch_after_a_restore_is_measured_by_the_checkpoint() {
        let worker_context = WorkerContext::new();
        worker_context.timeline.borrow_mut().track(&[A, B]);
        let base = Base {
            binding: EpochBinding::clone(&binding(3, &[(A, 10), (B, 4)], &[(B, true)])),
            sets: vec![(vec![A, B], EventTime(10))],
        };
        worker_context.deliver(&Order::Base(Arc::new(base)));
        worker_context
            .timeline
            .borrow_mut()
            .push(binding(4, &[(A, 20)], &[(B, false)]));
        let timeline = worker_context.timeline.borrow();
        let before = |epoch| timeline.watermark_before(Epoch(epoch), &[A, B]);
        assert_eq!(before(4), Some(EventTime(10)));
        assert_eq!(timeline.watermark_before(Epoch(4), &[B]), Some(EventTime(4)));
        assert_eq!(before(5), Some(EventTime(10)));
    }

    #[test]
    fn events_wait_for_their_epoch_and_are_measured_by_the_one_before() {
        timely::execute_directly(|worker| {
            let worker_context = WorkerContext::new();
            worker_context.timeline.borrow_mut().track(&[A, B]);
            let seen: Rc<RefCell<Vec<i64>>> = Rc::default();
            let (given, seen_) = (worker_context.clone(), seen.clone());
            let mut input = InputHandle::new();
            let probe = worker.dataflow(|scope| {
                let events = scope.input_from(&mut input);
                let raised = raise_horizons(events, "step", Rc::new([A, B]), given);
                raised
                    .inspect(move |event| seen_.borrow_mut().push(event.horizon.0))
                    .probe()
                    .0
            });
            input.advance_to(Epoch(5));
            input.send(event(7, 3));
            input.send(event(40, 35));
            input.flush();
            // The epoch's predecessor is not the last known epoch.
            worker_context
                .timeline
                .borrow_mut()
                .push(binding(3, &[(A, 10)], &[(B, true)]));
            (0..10).for_each(|_| _ = worker.step());
            assert_eq!(*seen.borrow(), [0i64; 0]);
            worker_context
                .timeline
                .borrow_mut()
                .push(binding(4, &[(A, 20)], &[]));
            worker_context
                .timeline
                .borrow_mut()
                .push(binding(5, &[(A, 30)], &[(B, false)]));
            input.advance_to(Epoch(6));
            worker.step_while(|| probe.less_than(&Epoch(6)));
            assert_eq!(*seen.borrow(), [20, 35]);
        });
    }
}
