//! User code that may reject an event.
//!
//! ```text
//!   events ──▶ f ─┬─ Ok ──▶ events, at the same times
//!                 └─ Err ─▶ dead letters of the source that each was read from, cause `rejected`
//! ```

use std::collections::HashMap;
use std::fmt::{Display, Write};
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::codec::Cause;
use crate::metrics::Counter;
use crate::panic_context;
use crate::position::SourceId;
use crate::record::{Event, Timed};
use crate::source::DeadLetter;
use crate::time::Epoch;

/// Bytes of an error's text to keep.
const DETAIL_BYTES_MAX: usize = 1024;

/// Accepted and rejected events.
pub(crate) type Streams<'s, U> = (StreamVec<'s, Epoch, Timed<U>>, StreamVec<'s, Epoch, DeadLetter>);

/// Adds the operator to a dataflow. `counts` has a counter for each source.
pub(crate) fn try_map<'s, T: Event, U: Event, E: Display>(
    events: StreamVec<'s, Epoch, Timed<T>>,
    name: &str,
    f: impl Fn(&T) -> Result<U, E> + 'static,
    counts: HashMap<SourceId, Counter>,
) -> Streams<'s, U> {
    let mut builder = OperatorBuilder::new(name.to_owned(), events.scope());
    let mut input = builder.new_input(events, Pipeline);
    let (mapped, mapped_stream) = builder.new_output();
    let (dead, dead_stream) = builder.new_output();
    let mut mapped = OutputBuilder::<_, CapacityContainerBuilder<Vec<Timed<U>>>>::from(mapped);
    let mut dead = OutputBuilder::<_, CapacityContainerBuilder<Vec<DeadLetter>>>::from(dead);
    let label: Rc<str> = format!("try_map `{name}`").into();
    let name = name.to_owned();
    builder.build(move |_capabilities| {
        move |_frontiers| {
            let (mut mapped, mut dead) = (mapped.activate(), dead.activate());
            let _work = panic_context::enter(&label);
            // Messages are sent one by one: timely does not order messages of one timestamp, and events of
            // one record have an order.
            input.for_each(|capability, events| {
                let mut rejected = Vec::new();
                let mut session = mapped.session(&capability);
                for event in events.drain(..) {
                    panic_context::at_record(event.at);
                    match f(&event.value) {
                        Ok(value) => session.give(event.with(value)),
                        Err(error) => {
                            let detail = Some(bounded(&error));
                            rejected.push(DeadLetter::turned_down(&name, Cause::Rejected, detail, &event));
                            if let Some(count) = counts.get(&event.at.partition.source) {
                                count.inc();
                            }
                        }
                    }
                }
                drop(session);
                if !rejected.is_empty() {
                    dead.session(&capability).give_iterator(rejected.drain(..));
                }
            });
        }
    });
    (mapped_stream, dead_stream)
}

/// An error's text, truncated if it is long.
fn bounded(error: &impl Display) -> String {
    struct BoundedText(String);
    impl Write for BoundedText {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            let room = DETAIL_BYTES_MAX.saturating_sub(self.0.len());
            self.0.push_str(&text[..text.floor_char_boundary(room)]);
            // An error ends the writing: there is no more room.
            if text.len() > room {
                Err(std::fmt::Error)
            } else {
                Ok(())
            }
        }
    }
    let mut out = BoundedText(String::new());
    let cut = write!(out, "{error}").is_err() && out.0.len() + 3 >= DETAIL_BYTES_MAX;
    if cut {
        out.0.push('…');
    }
    out.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded(&"no such country"), "no such country");
        let exact = "x".repeat(DETAIL_BYTES_MAX);
        assert_eq!(bounded(&exact), exact);
        let long = bounded(&"é".repeat(100_000));
        assert_eq!(long.len(), DETAIL_BYTES_MAX + '…'.len_utf8());
        assert!(long.ends_with("é…"));
    }
}
