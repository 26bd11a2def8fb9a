//! What is late for a step that takes from several sources.
//!
//! An event comes with the horizon that its own source gave it. A step over a set S of sources has promised more: by epoch
//! n−1 it has closed windows up to E(n−1), the [watermark](crate::watermark) of S. So to this step an event of epoch n has
//! the horizon max(own, E(n−1)), and a source that was idle and left S behind can't open again what was closed.
//!
//! To a source that never left S the second term is nothing new. Up to n−1 it was part of every minimum, so
//! E(n−1) ≤ W(n−1) of that source; and its events' own horizons are at least that W(n−1): it is the least of its partitions'
//! watermarks, and a partition that was idle is measured by W(n−1) itself. For the same reason the term means nothing to a
//! step over one source, where E is W. Lateness stays a matter of the log, not of the cut of epochs, but for those who were
//! away.

use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::operator::walk::Arrivals;
use crate::position::SourceId;
use crate::record::{Event, Timed};
use crate::time::Epoch;
use crate::timeline::Desk;

/// Raises the horizon of each event to what a step over `sources` had closed by the epoch before.
pub fn raise_horizons<'s, T: Event>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    name: &str,
    sources: Rc<[SourceId]>,
    desk: Rc<Desk>,
) -> StreamVec<'s, Epoch, Timed<T>> {
    if sources.len() < 2 {
        return events;
    }
    type Builder<T> = CapacityContainerBuilder<Vec<Timed<T>>>;
    let name = format!("{name}: horizon");
    events.unary_frontier::<Builder<T>, _, _, _>(Pipeline, &name, move |_, _| {
        let mut arrivals = Arrivals::new();
        move |(input, _frontier), output| {
            arrivals.gather(input);
            // Events that another worker read may arrive before this worker has heard of their epoch. Its own ingest
            // operators let the frontier pass the epoch only after it has, and that wakes this one.
            let known = |epoch: Epoch| desk.timeline.borrow().get(epoch).is_some();
            while let Some((epoch, capability, batches)) = arrivals.next_if(known) {
                let timeline = desk.timeline.borrow();
                let before = timeline.before(epoch).map(|facts| facts.watermark(&sources));
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
