//! Streams: events that only ever add.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::generic::Operator as _;

use crate::checkpoint::identity::{Identity, Shape, StateKind};
use crate::checkpoint::keyed::Store;
use crate::checkpoint::manifest::Rule;
use crate::dataflow::Dataflow;
use crate::dataflow::names::{Names, check_names};
use crate::dataflow::plan::{Kind, Origin, union};
use crate::dataflow::table::Table;
use crate::operator::again::Wanted;
use crate::operator::aggregate::{Aggregate, Of};
use crate::operator::horizon::raise_horizons;
use crate::operator::late::Policies;
use crate::operator::process::{Operator, Setup, admit, process};
use crate::operator::try_map::try_map;
use crate::operator::window;
use crate::operator::window::assign::Assign;
use crate::position::SourceId;
use crate::record::{Event, Record, Timed};
use crate::time::{Epoch, EventTime, Windowed, span};
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
            ..self.with(inner, self.origin.or("merge", &other.origin))
        }
    }

    /// Gives each event a key. `names` are the key's field names in URLs, columns and Kafka keys:
    /// `"merchant"`, or `["merchant", "country"]` for a key that is a tuple.
    #[track_caller]
    pub fn key_by<K: Record>(&self, names: impl Names<K>, key: impl Fn(&T) -> K + 'static) -> Keyed<'s, K, T>
    where
        T: Event,
    {
        Keyed {
            stream: self.clone(),
            names: check_names(self.flow, names.names()),
            key: Rc::new(key),
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
        self.with(f(self.inner.clone()), self.origin.through("timely"))
    }

    /// Like [`timely`](Self::timely), for what keeps nothing from epoch to epoch: then checkpoints are made.
    pub fn timely_stateless<U: Event>(&self, f: impl FnOnce(Events<'s, T>) -> Events<'s, U>) -> Stream<'s, U>
    where
        T: Event,
    {
        self.with(f(self.inner.clone()), self.origin.through("timely"))
    }
}

/// Events with a key each.
#[must_use]
pub struct Keyed<'s, K: 'static, T: 'static> {
    stream: Stream<'s, T>,
    names: Vec<String>,
    key: Rc<dyn Fn(&T) -> K>,
}

impl<'s, K: 'static, T: 'static> Keyed<'s, K, T> {
    /// Cuts each key's events into windows of event time. `name` is the step's.
    #[track_caller]
    pub fn window(self, name: &str, assigner: impl Assign) -> Windows<'s, K, T> {
        let context = self.stream.flow.context();
        let origin = context.step(name, Kind::Window, &[&self.stream.origin]);
        if self.stream.sources.is_empty() {
            let at = std::panic::Location::caller();
            context.mistake(format!(
                "window `{name}` at {at} is over a stream without event time: it would never close"
            ));
        }
        Windows {
            keyed: self,
            origin,
            assigner: Box::new(assigner),
            keep: KEEP,
        }
    }

    /// Gives each key's events to an operator of your own, which keeps state under the clock and comes to a
    /// table: `docs/write-an-operator.md` writes one. `name` is the step's.
    ///
    /// The events of an epoch come in the order of the log. Declare another [version](Dataflow::version) when
    /// the operator makes something else of them.
    #[track_caller]
    pub fn process<O>(self, name: &str, operator: O) -> Table<'s, K, O::Value>
    where
        K: Record,
        T: Event,
        O: Operator<Input = (K, Timed<T>), Key = K>,
        O::State: Store<Route = K>,
    {
        let Keyed { stream, names, key } = self;
        let (flow, sources) = (stream.flow, stream.sources);
        let context = flow.context();
        let origin = context.step(name, Kind::Process, &[&stream.origin]);
        context.desk.timeline.borrow_mut().track(&sources);
        let named = (Identity::new(StateKind::Process, name), name);
        let version = context.version(name);
        type Kept<O> = <O as Operator>::State;
        let keeper = context.keeper::<<Kept<O> as Store>::Key, <Kept<O> as Store>::Value>(
            named,
            &origin,
            version,
            Rule::Last,
        );
        let (operator, wanted) = (Rc::new(operator), Wanted::default());
        let setup = Setup {
            place: Some(|(_, event): &(K, Timed<T>)| event.at),
            ..context.setup(
                name,
                format!("process `{name}`"),
                &sources,
                keeper,
                wanted.clone(),
            )
        };
        let policies = Policies::new(context.late_policies(&sources));
        let counts = context.late_metrics(&sources, name);
        let events = raise_horizons(stream.inner, name, sources.clone(), context.desk.clone());
        let (events, late) = admit(events, key, operator.clone(), &setup, policies, counts);
        flow.late(late);
        let changes = process(events, operator, setup);
        let mut table = Table::from_changes(flow, changes, origin, names, sources);
        table.meta.wanted = wanted;
        table
    }
}

/// How long a window's rows stay after it closed, where `keep` says nothing else.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// Keyed events in windows, to be aggregated.
#[must_use]
pub struct Windows<'s, K: 'static, T: 'static> {
    keyed: Keyed<'s, K, T>,
    origin: Origin,
    assigner: Box<dyn Assign>,
    keep: Duration,
}

impl<'s, K: 'static, T: 'static> Windows<'s, K, T> {
    /// How long, in event time, a window's rows stay after it closed. Default 24 hours. Where late events are
    /// [corrected](crate::late::Late::Correct), it closes when that is over.
    pub fn keep(self, keep: Duration) -> Self {
        Self { keep, ..self }
    }

    /// Declares that the step is another than it was: since the aggregate, or what comes before it, has
    /// changed. Checkpoints of an earlier version are then [asked
    /// about](crate::runtime::checkpoints::Settings::on_new_plan). Default 1.
    pub fn version(self, version: u32) -> Self {
        let context = self.keyed.stream.flow.context();
        context
            .plan
            .borrow_mut()
            .versions
            .insert(self.origin.step().to_string(), version);
        self
    }

    /// Aggregates the events of each key and window.
    ///
    /// The closure gets [`Of`], which makes aggregates and knows the event's type: `|a| (a.count(), a.sum(|p|
    /// p.cents))`.
    pub fn aggregate<A: Aggregate<T>>(self, build: impl FnOnce(Of<T>) -> A) -> Table<'s, Windowed<K>, A::Out>
    where
        T: Event,
        K: Record,
    {
        let Windows {
            keyed: Keyed { stream, names, key },
            origin,
            assigner,
            keep,
        } = self;
        let (flow, layout, step) = (stream.flow, assigner.layout(), origin.step());
        let late = match assigner.disjoint() {
            true => "",
            false => ", late windows counted in thalweg_late_windows_total",
        };
        flow.context().plan.borrow_mut().about(format!(
            "by {}, {}, kept {}{late}",
            names.join(", "),
            Shape(layout),
            span(keep)
        ));
        let named = (Identity::window(step, layout), &**step);
        type State<A, T> = <A as Aggregate<T>>::State;
        type Place<K> = (EventTime, EventTime, K);
        let context = flow.context();
        let keeper =
            context.keeper::<Place<K>, State<A, T>>(named, &origin, context.version(step), Rule::Last);
        let wanted = Wanted::default();
        let spec = window::Spec {
            name: step.to_string(),
            key,
            assign: assigner,
            fold: Rc::new(build(Of::default())),
            keep,
            sources: stream.sources.clone(),
            desk: flow.context().desk.clone(),
            policies: Policies::new(flow.context().late_policies(&stream.sources)),
            late: flow.context().late_metrics(&stream.sources, step),
            keeper,
            wanted: wanted.clone(),
        };
        let (changes, late) = window::window(stream.inner, spec);
        flow.late(late);
        let mut table = Table::from_changes(flow, changes, origin, names, stream.sources);
        table.meta.windows = Some(layout);
        table.meta.window_sources = table.meta.sources.clone();
        table.meta.keep = Some(keep);
        table.meta.wanted = wanted;
        table
    }
}
