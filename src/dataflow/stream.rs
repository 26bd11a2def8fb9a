//! Streams: insert-only events.

use std::fmt;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::Operator as _;

use crate::dataflow::Dataflow;
use crate::dataflow::plan::{Origin, StepKind, union};
use crate::operator::try_map::try_map;
use crate::panic_context;
use crate::position::SourceId;
use crate::record::{Event, Timed};
use crate::time::Epoch;

/// A stream of events as a timely stream.
pub type Events<'s, T> = StreamVec<'s, Epoch, Timed<T>>;

/// Insert-only events with event times.
#[must_use = "a stream that nothing takes is not computed for anyone"]
#[derive(Clone)]
pub struct Stream<'s, T: 'static> {
    pub(super) inner: Events<'s, T>,
    pub(super) flow: Dataflow<'s>,
    /// The sources that determine this stream's watermark.
    pub(super) sources: Rc<[SourceId]>,
    /// The origin of its events.
    pub(super) origin: Origin,
    /// Whether events derived from one record may come from several workers.
    pub(super) is_scattered: bool,
    /// Whether a step before it waited for the watermark.
    pub(super) is_behind: bool,
}

// The bounds are on the methods, so that a missing derive is reported as such and not as "no method found".
impl<'s, T: 'static> Stream<'s, T> {
    /// The result of a step.
    fn with<U>(&self, inner: Events<'s, U>, origin: Origin) -> Stream<'s, U> {
        Stream {
            inner,
            flow: self.flow,
            sources: self.sources.clone(),
            origin,
            is_scattered: self.is_scattered,
            is_behind: self.is_behind,
        }
    }

    /// Maps each event through `f`. The event time is unchanged.
    pub fn map<U: Event>(&self, f: impl Fn(T) -> U + 'static) -> Stream<'s, U>
    where
        T: Event,
    {
        self.each("map", move |value| Some(f(value)))
    }

    /// Maps each event through `f`, which may reject it: an `Err` sends the event to the dead letters of the
    /// source that it was read from, with cause `rejected`, this step's name, the error's text (truncated to
    /// 1,024 bytes), and the record's topic, partition and offset. The record's bytes are no longer available
    /// at this point: the dead letter's payload is the event as JSON, as this step received it, and its
    /// timestamp is the event time.
    ///
    /// `f` must be deterministic, in its result and in the text of its error.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Sale { country: String, cents: i64 }
    /// # fn build(flow: Dataflow) {
    /// let lines = flow.source("lines", Kafka::topic("sales.lines.v1").text::<String>());
    /// let sales = lines.try_map("parsed", |line| {
    ///     let (country, cents) = line.split_once(';').ok_or("no semicolon".to_owned())?;
    ///     let cents = cents.parse().map_err(|error| format!("cents `{cents}`: {error}"))?;
    ///     Ok::<_, String>(Sale { country: country.to_owned(), cents })
    /// });
    /// # let _ = sales;
    /// # }
    /// ```
    #[track_caller]
    pub fn try_map<U: Event, E: fmt::Display>(
        &self,
        name: &str,
        f: impl Fn(&T) -> Result<U, E> + 'static,
    ) -> Stream<'s, U>
    where
        T: Event,
    {
        let context = self.flow.context();
        let origin = context.step(name, StepKind::TryMap, &[&self.origin]);
        let (mapped, dead) = try_map(self.inner.clone(), name, f, context.rejected_counters());
        self.flow.late(dead);
        self.with(mapped, origin)
    }

    /// Maps each event to any number of events, all with its event time.
    pub fn flat_map<U: Event, I: IntoIterator<Item = U>>(&self, f: impl Fn(T) -> I + 'static) -> Stream<'s, U>
    where
        T: Event,
    {
        self.each("flat_map", f)
    }

    /// Names an unnamed step in panic messages.
    fn label(&self, what: &str) -> Rc<str> {
        format!("the {what} after `{}`", self.origin.step()).into()
    }

    fn each<U: Event, I: IntoIterator<Item = U>>(
        &self,
        what: &'static str,
        f: impl Fn(T) -> I + 'static,
    ) -> Stream<'s, U>
    where
        T: Event,
    {
        let label = self.label(what);
        type Builder<U> = CapacityContainerBuilder<Vec<Timed<U>>>;
        let inner = self
            .inner
            .clone()
            .unary::<Builder<U>, _, _, _>(Pipeline, what, move |_, _| {
                move |input, output| {
                    let _work = panic_context::enter(&label);
                    input.for_each(|capability, data| {
                        let mut session = output.session(&capability);
                        session.give_iterator(data.drain(..).flat_map(
                            |Timed {
                                 value,
                                 time,
                                 horizon,
                                 at,
                             }| {
                                panic_context::at_record(at);
                                f(value).into_iter().map(move |value| Timed {
                                    value,
                                    time,
                                    horizon,
                                    at,
                                })
                            },
                        ));
                    });
                }
            });
        self.with(inner, self.origin.through(what))
    }

    /// Keeps the events for which `f` returns true.
    pub fn filter(&self, f: impl Fn(&T) -> bool + 'static) -> Stream<'s, T>
    where
        T: Event,
    {
        type Builder<T> = CapacityContainerBuilder<Vec<Timed<T>>>;
        let label = self.label("filter");
        let inner = self
            .inner
            .clone()
            .unary::<Builder<T>, _, _, _>(Pipeline, "filter", move |_, _| {
                move |input, output| {
                    let _work = panic_context::enter(&label);
                    input.for_each(|capability, data| {
                        data.retain(|event| {
                            panic_context::at_record(event.at);
                            f(&event.value)
                        });
                        if !data.is_empty() {
                            output.session(&capability).give_container(data);
                        }
                    });
                }
            });
        self.with(inner, self.origin.through("filter"))
    }

    /// The events of both streams. The watermark is the lower of the two.
    pub fn merge(&self, other: &Stream<'s, T>) -> Stream<'s, T>
    where
        T: Event,
    {
        let inner = self.inner.clone().concat(other.inner.clone());
        Stream {
            sources: union(&self.sources, &other.sources),
            is_scattered: self.is_scattered || other.is_scattered,
            is_behind: self.is_behind || other.is_behind,
            ..self.with(inner, self.origin.or("merge", &other.origin))
        }
    }

    /// Escape hatch: passes timely's own stream to `f` and takes one back. `f` must produce the same events
    /// for an epoch in every replay, on any number of workers.
    ///
    /// Checkpoints cannot capture state that `f` keeps across epochs, so a dataflow with such a step writes
    /// none: a restart replays its topics.
    #[track_caller]
    pub fn timely<U: Event>(&self, f: impl FnOnce(Events<'s, T>) -> Events<'s, U>) -> Stream<'s, U>
    where
        T: Event,
    {
        self.flow.keeps_unsaved(std::panic::Location::caller());
        self.timely_stateless(f)
    }

    /// Like [`timely`](Self::timely), for an `f` that keeps no state across epochs: checkpoints stay enabled.
    pub fn timely_stateless<U: Event>(&self, f: impl FnOnce(Events<'s, T>) -> Events<'s, U>) -> Stream<'s, U>
    where
        T: Event,
    {
        Stream {
            // `f` may have sent them to other workers.
            is_scattered: true,
            ..self.with(f(self.inner.clone()), self.origin.through("timely"))
        }
    }
}
