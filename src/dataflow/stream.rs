//! Streams: events that only ever add.

use std::fmt;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::Operator as _;

use crate::dataflow::Dataflow;
use crate::dataflow::plan::{Kind, Origin, union};
use crate::operator::try_map::try_map;
use crate::position::SourceId;
use crate::record::{Event, Timed};
use crate::time::Epoch;
use crate::trail;

/// A stream of events in timely's own terms.
pub type Events<'s, T> = StreamVec<'s, Epoch, Timed<T>>;

/// Insert-only events with event times.
#[must_use = "a stream that nothing takes is not computed for anyone"]
#[derive(Clone)]
pub struct Stream<'s, T: 'static> {
    pub(super) inner: Events<'s, T>,
    pub(super) flow: Dataflow<'s>,
    /// Sources whose watermark is this stream's.
    pub(super) sources: Rc<[SourceId]>,
    /// Where its events come from.
    pub(super) origin: Origin,
    /// Whether events made of one record may come from several workers.
    pub(super) is_scattered: bool,
    /// Whether a step before it waited for the watermark.
    pub(super) is_behind: bool,
}

// Bounds stand on the methods, so that a missing derive reads as such and not as "no method found".
impl<'s, T: 'static> Stream<'s, T> {
    /// Behind a step.
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

    /// Each event through `f`. Times stay with the event.
    pub fn map<U: Event>(&self, f: impl Fn(T) -> U + 'static) -> Stream<'s, U>
    where
        T: Event,
    {
        self.each("map", move |value| Some(f(value)))
    }

    /// Each event through `f`, which may turn it down: an `Err` sends the event to the dead letters of the
    /// source that it was read from, with cause `rejected`, this step's name, the error's text (of which
    /// 1,024 bytes are kept), and the record's topic, partition and offset. The record's bytes are gone by
    /// then: the letter's payload is the event as JSON, as this step got it, and its timestamp the event
    /// time.
    ///
    /// `f` has to come to the same result, and to the same text, whenever it is given the same event.
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
        let origin = context.step(name, Kind::TryMap, &[&self.origin]);
        let (mapped, dead) = try_map(self.inner.clone(), name, f, context.rejected_counters());
        self.flow.late(dead);
        self.with(mapped, origin)
    }

    /// Each event to any number of events, all at its time.
    pub fn flat_map<U: Event, I: IntoIterator<Item = U>>(&self, f: impl Fn(T) -> I + 'static) -> Stream<'s, U>
    where
        T: Event,
    {
        self.each("flat_map", f)
    }

    /// Names a step without a name for a panic in it.
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
                    let _work = trail::begin(&label);
                    input.for_each(|capability, data| {
                        let mut session = output.session(&capability);
                        session.give_iterator(data.drain(..).flat_map(
                            |Timed {
                                 value,
                                 time,
                                 horizon,
                                 at,
                             }| {
                                trail::on(at);
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

    /// The events for which `f` holds.
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
                    let _work = trail::begin(&label);
                    input.for_each(|capability, data| {
                        data.retain(|event| {
                            trail::on(event.at);
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

    /// The events of both streams. Its watermark is the lower one of the two.
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

    /// The way out: timely's own stream in, timely's own stream back. What `f` adds must give the same events
    /// for an epoch in every replay, on any number of workers.
    ///
    /// What `f` keeps from epoch to epoch is in no checkpoint, so a dataflow with such a step makes none: a
    /// restart goes through its topics again.
    #[track_caller]
    pub fn timely<U: Event>(&self, f: impl FnOnce(Events<'s, T>) -> Events<'s, U>) -> Stream<'s, U>
    where
        T: Event,
    {
        self.flow.keeps_unsaved(std::panic::Location::caller());
        self.timely_stateless(f)
    }

    /// Like [`timely`](Self::timely), for what keeps nothing from epoch to epoch: then checkpoints are made.
    pub fn timely_stateless<U: Event>(&self, f: impl FnOnce(Events<'s, T>) -> Events<'s, U>) -> Stream<'s, U>
    where
        T: Event,
    {
        Stream {
            // It may have sent them to other workers.
            is_scattered: true,
            ..self.with(f(self.inner.clone()), self.origin.through("timely"))
        }
    }
}
