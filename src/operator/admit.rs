//! Keys events, and diverts late ones to the dead letters.

use std::cmp::Ordering;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::codec::Cause;
use crate::metrics::LateMetrics;
use crate::operator::exchange::{RoutedBatch, RoutedBatchBuilder};
use crate::operator::late::LatePolicies;
use crate::panic_context;
use crate::record::{Event, Record, Timed, route};
use crate::source::DeadLetter;
use crate::time::{Epoch, EventTime};

/// The handling of late events.
pub(crate) struct LateHandling {
    /// The policies of the stream's sources.
    pub(crate) policies: LatePolicies,
    /// Counters of late events.
    pub(crate) counts: LateMetrics,
}

/// Keyed events, packed for the workers that own the keys, and late events.
pub(crate) type Admitted<'s> = (
    StreamVec<'s, Epoch, RoutedBatch>,
    StreamVec<'s, Epoch, DeadLetter>,
);

/// Keys each event and turns it into an input of the operator. `is_late` gets an event and the time up to
/// which event time is closed for it.
pub(crate) fn admit<'s, K: Record, T: Event, I: timely::ExchangeData>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    step: &str,
    key: Rc<dyn Fn(&T) -> K>,
    lateness: LateHandling,
    is_late: impl Fn(&(K, Timed<T>), EventTime) -> bool + 'static,
    input: impl Fn((K, Timed<T>)) -> I + 'static,
) -> Admitted<'s> {
    let mut builder = OperatorBuilder::new(format!("{step}: admit"), events.scope());
    let mut events = builder.new_input(events, Pipeline);
    let (admitted, admitted_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let mut admitted = OutputBuilder::<_, CapacityContainerBuilder<Vec<RoutedBatch>>>::from(admitted);
    let mut late = OutputBuilder::<_, CapacityContainerBuilder<Vec<DeadLetter>>>::from(late);
    let (name, label) = (step.to_owned(), Rc::<str>::from(format!("`{step}`")));
    let mut packer = RoutedBatchBuilder::new(admitted_stream.scope().peers());
    let LateHandling { policies, counts } = lateness;
    builder.build(move |_capabilities| {
        move |_frontiers| {
            let (mut admitted, mut late) = (admitted.activate(), late.activate());
            let _work = panic_context::enter(&label);
            // Messages are sent one by one: timely does not order messages of one timestamp, and events of
            // one record have an order.
            events.for_each(|capability, events| {
                let (mut too_late, mut count) = (Vec::new(), 0);
                let mut session = admitted.session(&capability);
                for event in events.drain(..) {
                    panic_context::at_record(event.at);
                    let source = event.at.partition.source;
                    let closed = policies.over(source, event.horizon);
                    let keyed = (key(&event.value), event);
                    if !is_late(&keyed, closed) {
                        if let Some(routed_batch) = packer.push(route(&keyed.0), input(keyed)) {
                            session.give(routed_batch);
                        }
                        continue;
                    }
                    count += 1;
                    if policies.writes_dead_letters(source) {
                        too_late.push(DeadLetter::turned_down(&name, Cause::Late, None, &keyed.1));
                    }
                }
                session.give_iterator(packer.rest());
                drop(session);
                counts.events.inc_by(count);
                if !too_late.is_empty() {
                    late.session(&capability).give_iterator(too_late.drain(..));
                }
            });
        }
    });
    (admitted_stream, late_stream)
}

/// Compares events at the same position by their contents.
pub(crate) fn by_content<T: Event>(a: &Timed<T>, b: &Timed<T>) -> Ordering {
    // Events that cannot be encoded were rejected earlier; if not, the order is that of arrival.
    let bytes = |event: &Timed<T>| postcard::to_allocvec(&(event.time, &event.value)).unwrap_or_default();
    bytes(a).cmp(&bytes(b))
}
