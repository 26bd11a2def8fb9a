//! Turns events into the rows of a collection, which only grows.
//!
//! Rows are passed on as they arrive and not behind the frontier: differential's operators downstream wait
//! for it themselves.

use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::checkpoint::appended::AppendedState;
use crate::checkpoint::state_handle::StateHandle;
use crate::operator::backfill::Backfill;
use crate::operator::epoch_cursor::Update;
use crate::record::{Record, Timed};
use crate::time::Epoch;

/// Each event as a row with multiplicity one.
pub(crate) fn changes<'s, T: Record>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    handle: &StateHandle,
) -> StreamVec<'s, Epoch, Update<T>> {
    type Builder<T> = CapacityContainerBuilder<Vec<Update<T>>>;
    let scope = events.scope();
    events.unary_frontier::<Builder<T>, _, _, _>(Pipeline, "changes", |capability, info| {
        let restored = handle.restored();
        let activator = scope.activator_for(info.address);
        let mut backfill = Backfill::new(restored, capability, activator, Rc::new(true.into()));
        let restored = restored.unwrap_or_default();
        let kept = AppendedState::keep(handle);
        move |(input, _frontier), output| {
            backfill.emit(
                || {
                    let rows = kept.at(Epoch::ZERO).take_loaded().into_iter();
                    rows.map(|(row, times)| (row, restored, times as isize)).collect()
                },
                |capability, rows| output.session(capability).give_container(rows),
            );
            input.for_each(|capability, data| {
                let epoch = *capability
                    .least()
                    .expect("events travel under their epoch's capability");
                // Events of another source may be further ahead: no epoch begins here.
                let rows = data.iter().map(|event| event.value.clone());
                kept.at(Epoch::ZERO).extend(epoch, rows);
                let mut session = output.session(&capability);
                session.give_iterator(data.drain(..).map(|event| (event.value, epoch, 1)));
            });
        }
    })
}
