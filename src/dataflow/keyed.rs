//! Keyed streams: operators that keep state per key.

use std::panic::Location;
use std::rc::Rc;
use std::time::Duration;

use timely::ExchangeData;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map as _;
use timely::dataflow::operators::{Concat, Concatenate};

use crate::checkpoint::identity::{StateIdentity, StateKind};
use crate::checkpoint::keyed::EntryStore;
use crate::checkpoint::manifest::EntryRule;
use crate::dataflow::Dataflow;
use crate::dataflow::names::{Names, check_names};
use crate::dataflow::plan::{Origin, StepKind, union};
use crate::dataflow::stream::{Events, Stream};
use crate::dataflow::table::Table;
use crate::operator::admit::{LateHandling, admit, by_content};
use crate::operator::backfill::BackfillDemand;
use crate::operator::dedup::Dedup;
use crate::operator::exchange::{RoutedBatch, pack};
use crate::operator::horizon::raise_horizons;
use crate::operator::interval_join::{Interval, IntervalJoin, Join, JoinInput};
use crate::operator::late::LatePolicies;
use crate::operator::lookup::{self, lookup};
use crate::operator::process::{Emitted, InputOrder, KeyedOperator, Operator, Setup, process};
use crate::operator::process_events::{EventProcessor, ProcessEvents};
use crate::position::SourceId;
use crate::record::{Event, Record, Timed, route};
use crate::time::{Epoch, EventTime, micros, span};

/// Events with a key each.
#[must_use]
pub struct Keyed<'s, K: 'static, T: 'static> {
    pub(super) stream: Stream<'s, T>,
    pub(super) names: Vec<String>,
    pub(super) key: Rc<dyn Fn(&T) -> K>,
}

impl<'s, T: 'static> Stream<'s, T> {
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
}

impl<'s, K: 'static, T: 'static> Keyed<'s, K, T> {
    /// Adds a step that depends on event time.
    #[track_caller]
    pub(super) fn timed_step(&self, name: &str, kind: StepKind, what: &str) -> Origin {
        let context = self.stream.flow.context();
        let origin = context.step(name, kind, &[&self.stream.origin]);
        self.check_timed(name, what);
        origin
    }

    #[track_caller]
    fn check_timed(&self, name: &str, what: &str) {
        if self.stream.sources.is_empty() {
            let at = Location::caller();
            self.stream.flow.context().mistake(format!(
                "{what} `{name}` at {at} is over a stream without event time: it would never close"
            ));
        }
    }

    /// Processes each key's events with a custom operator, which keeps state under the epoch clock and
    /// results in a table; `docs/write-an-operator.md` walks through one. `name` is the step's.
    ///
    /// The events of an epoch arrive in log order. Declare another [version](Dataflow::version) when the
    /// operator computes different results from them.
    #[track_caller]
    pub fn process<O>(self, name: &str, operator: O) -> Table<'s, K, O::Value>
    where
        K: Record,
        T: Event,
        O: Operator<Input = (K, Timed<T>), Key = K>,
        O::State: EntryStore<Route = K>,
    {
        let flow = self.stream.flow;
        let origin = flow
            .context()
            .step(name, StepKind::Process, &[&self.stream.origin]);
        let operator = Rc::new(operator);
        let late = operator.clone();
        let step = KeyedStep::new(flow, name, &origin, &self.stream.sources);
        let routed_batches = self.admit(
            &step,
            move |input, closed| late.is_late(input, closed),
            |input| input,
        );
        let demand = BackfillDemand::default();
        let identity = StateIdentity::new(StateKind::Process, name);
        let setup = step.setup::<O>(identity, demand.clone(), Some(self.order()));
        let (changes, _) = process(routed_batches, operator, setup);
        let mut table = Table::from_changes(flow, changes, origin, self.names, self.stream.sources);
        table.meta.demand = demand;
        table
    }

    /// Drops duplicate events: those whose key occurred in an event that was kept, with an event time at most
    /// `within` apart. `name` is the step's.
    ///
    /// Of two duplicates, the one that is earlier in the log is kept, by epoch, partition and offset. A key
    /// is remembered until the watermark is `within` past its event. Late events become dead letters.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Payment { id: u64, cents: i64, at_ms: i64 }
    /// # fn build(flow: Dataflow) {
    /// # let source = Kafka::topic("payments").json::<Payment>().event_time(|p| EventTime::from_millis(p.at_ms));
    /// let payments = flow.source("payments", source);
    /// // A producer without idempotence may have written a payment twice, minutes apart.
    /// let once = payments
    ///     .key_by("id", |p| p.id)
    ///     .dedup("once", Duration::from_secs(3600));
    /// # let _ = once;
    /// # }
    /// # thalweg::runtime::plan(&dataflow("once", build), &Environment::default()).unwrap();
    /// # use thalweg::source::Environment;
    /// ```
    #[track_caller]
    pub fn dedup(self, name: &str, within: Duration) -> Stream<'s, T>
    where
        K: Record,
        T: Event,
    {
        let origin = self.timed_step(name, StepKind::Dedup, "dedup");
        let step =
            KeyedStep::new(self.stream.flow, name, &origin, &self.stream.sources).at_once(&self.stream);
        step.about(format!("by {}, within {}", self.names.join(", "), span(within)));
        let identity =
            StateIdentity::new(StateKind::Dedup, name).with_number("within_us", micros(within) as u64);
        let routed_batches = self.admit(&step, is_late, |input| input);
        step.emit(
            routed_batches,
            Dedup::<K, T>::new(within),
            identity,
            Some(self.order()),
        )
    }

    /// Joins each event with the events of `other` that have the same key and are close in event time. `f`
    /// turns a pair into an event, which has the later of the two times.
    ///
    /// State is bounded by the interval: an event is kept until the watermark rules out further matches. Late
    /// events become dead letters. To drop pairs, have `f` return an `Option` and
    /// [`flat_map`](Stream::flat_map) it.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Click { user: u32, ad: u32, at_ms: i64 }
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Purchase { user: u32, cents: i64, at_ms: i64 }
    /// # fn build(flow: Dataflow) {
    /// # let clicks = Kafka::topic("clicks").json::<Click>().event_time(|c| EventTime::from_millis(c.at_ms));
    /// # let purchases = Kafka::topic("purchases").json::<Purchase>().event_time(|p| EventTime::from_millis(p.at_ms));
    /// let clicks = flow.source("clicks", clicks).key_by("user", |c| c.user);
    /// let purchases = flow.source("purchases", purchases).key_by("user", |p| p.user);
    /// // Which ads were clicked in the half hour before each purchase.
    /// let attributed = purchases.interval_join(
    ///     "attributed",
    ///     &clicks,
    ///     Interval::before(Duration::from_secs(1800)),
    ///     |_, purchase, click| (click.ad, purchase.cents),
    /// );
    /// # let _ = attributed;
    /// # }
    /// # thalweg::runtime::plan(&dataflow("once", build), &Environment::default()).unwrap();
    /// # use thalweg::source::Environment;
    /// ```
    #[track_caller]
    pub fn interval_join<R: Event, O: Event>(
        self,
        name: &str,
        other: &Keyed<'s, K, R>,
        interval: Interval,
        f: impl Fn(&K, &T, &R) -> O + 'static,
    ) -> Stream<'s, O>
    where
        K: Record,
        T: Event,
    {
        let f = move |key: &K, left: &T, right: Option<&R>| {
            f(key, left, right.expect("only a left join emits unmatched events"))
        };
        self.join_within(name, "interval_join", other, interval, false, Rc::new(f))
    }

    /// Like [`interval_join`](Self::interval_join), but also emits unmatched events with `None`, once the
    /// watermark rules out a match. Such an event has the time at which that is certain: the end of its
    /// interval, or its own time if that is later.
    #[track_caller]
    pub fn left_interval_join<R: Event, O: Event>(
        self,
        name: &str,
        other: &Keyed<'s, K, R>,
        interval: Interval,
        f: impl Fn(&K, &T, Option<&R>) -> O + 'static,
    ) -> Stream<'s, O>
    where
        K: Record,
        T: Event,
    {
        self.join_within(name, "left_interval_join", other, interval, true, Rc::new(f))
    }

    #[track_caller]
    fn join_within<R: Event, O: Event>(
        self,
        name: &str,
        operator: &str,
        other: &Keyed<'s, K, R>,
        interval: Interval,
        is_left: bool,
        join: Join<K, T, R, O>,
    ) -> Stream<'s, O>
    where
        K: Record,
        T: Event,
    {
        let flow = self.stream.flow;
        let inputs = [&self.stream.origin, &other.stream.origin];
        let origin = flow
            .context()
            .step_as(name, (StepKind::IntervalJoin, operator), &inputs);
        self.check_timed(name, "interval join");
        other.check_timed(name, "interval join");
        let sources = union(&self.stream.sources, &other.stream.sources);
        let step = KeyedStep::new(flow, name, &origin, &sources);
        step.about(format!("by {}, {interval}", self.names.join(", ")));
        let left = self.admit(&step, is_late, JoinInput::<_, (K, Timed<R>)>::Left);
        let right = other.admit(&step, is_late, JoinInput::<(K, Timed<T>), _>::Right);
        let (from, to) = interval.bounds_us();
        let identity = StateIdentity::new(StateKind::IntervalJoin, name)
            .with_number("from_us", from as u64)
            .with_number("to_us", to as u64);
        let operator = IntervalJoin {
            interval,
            is_left,
            join,
        };
        type Input<K, L, R> = JoinInput<(K, Timed<L>), (K, Timed<R>)>;
        let order = InputOrder {
            place: |side: &Input<K, T, R>| match side {
                JoinInput::Left((_, event)) => event.at,
                JoinInput::Right((_, event)) => event.at,
            },
            // If a stream is joined with itself, a record may be on both sides.
            tie: Some(|a: &Input<K, T, R>, b: &Input<K, T, R>| match (a, b) {
                (JoinInput::Left((_, a)), JoinInput::Left((_, b))) => by_content(a, b),
                (JoinInput::Right((_, a)), JoinInput::Right((_, b))) => by_content(a, b),
                (JoinInput::Left(_), JoinInput::Right(_)) => std::cmp::Ordering::Less,
                (JoinInput::Right(_), JoinInput::Left(_)) => std::cmp::Ordering::Greater,
            }),
        };
        step.emit(left.concat(right), operator, identity, Some(order))
    }

    /// Looks up each event's row in a table by its key. `f` gets `None` if the table has no such row.
    ///
    /// An event is enriched once, with the row that the table has in the event's epoch, and is not revised
    /// when the row changes. For results that follow the table, use [`Table::join`]. At the first start,
    /// events and rows are read side by side, so early events may find no row. The operator keeps a copy of
    /// the table, which is in no checkpoint: after a restore, the table re-emits its rows.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Payment { merchant: u32, cents: i64 }
    /// # fn build(flow: Dataflow) {
    /// # let payments = flow.source("payments", Kafka::topic("payments").json::<Payment>());
    /// let merchants = flow.table("merchants", Kafka::topic("merchants").json::<String>().keyed::<u32>());
    /// let named = payments
    ///     .key_by("merchant", |p| p.merchant)
    ///     .lookup("named", &merchants, |_, payment, name| (name.cloned(), payment.cents));
    /// # let _ = named;
    /// # }
    /// # thalweg::runtime::plan(&dataflow("named", build), &Environment::default()).unwrap();
    /// # use thalweg::source::Environment;
    /// ```
    #[track_caller]
    pub fn lookup<V: Record, O: Event>(
        self,
        name: &str,
        table: &Table<'s, K, V>,
        f: impl Fn(&K, T, Option<&V>) -> O + 'static,
    ) -> Stream<'s, O>
    where
        K: Record,
        T: Event,
    {
        let flow = self.stream.flow;
        let inputs = [&self.stream.origin, &table.meta.origin];
        let origin = flow.context().step(name, StepKind::Lookup, &inputs);
        // The operator's copy of the rows is in no checkpoint.
        table.meta.demand.set(true);
        let step = KeyedStep::new(flow, name, &origin, &self.stream.sources).at_once(&self.stream);
        let events = self.admit(&step, |_, _| false, lookup::LookupInput::<K, T, V>::Left);
        let changes = table.changes().map(lookup::LookupInput::<K, T, V>::Right);
        let changes = pack(changes, name, |input| match input {
            JoinInput::Left((key, _)) => route(key),
            JoinInput::Right(change) => route(&change.key),
        });
        let inner = lookup::<K, T, V, O>(events.concat(changes), name, Rc::new(f));
        step.stream(inner)
    }

    /// Processes each key's events with a custom processor in event-time order, with state and timers. `name`
    /// is the step's. See [`EventProcessor`].
    ///
    /// Events wait until the watermark has passed them. Late events become dead letters. Declare another
    /// [version](Dataflow::version) when the processor computes different results from the same events.
    #[track_caller]
    pub fn process_events<P>(self, name: &str, processor: P) -> Stream<'s, P::Out>
    where
        K: Record,
        T: Event,
        P: EventProcessor<Key = K, Event = T>,
    {
        let origin = self.timed_step(name, StepKind::ProcessEvents, "process_events");
        let step = KeyedStep::new(self.stream.flow, name, &origin, &self.stream.sources);
        let identity = StateIdentity::new(StateKind::ProcessEvents, name);
        let routed_batches = self.admit(&step, is_late, |input| input);
        step.emit(
            routed_batches,
            ProcessEvents(processor),
            identity,
            Some(self.order()),
        )
    }

    /// Packs keyed events for the workers that own the keys; late ones become dead letters.
    fn admit<I: ExchangeData>(
        &self,
        step: &KeyedStep<'s>,
        is_late: impl Fn(&(K, Timed<T>), EventTime) -> bool + 'static,
        input: impl Fn((K, Timed<T>)) -> I + 'static,
    ) -> StreamVec<'s, Epoch, RoutedBatch>
    where
        K: Record,
        T: Event,
    {
        let worker_context = step.flow.context().worker_context.clone();
        let events = raise_horizons(
            self.stream.inner.clone(),
            &step.name,
            step.sources.clone(),
            worker_context,
        );
        let (routed_batches, late) = admit(
            events,
            &step.name,
            self.key.clone(),
            step.lateness(self.stream.is_behind),
            is_late,
            input,
        );
        step.flow.late(late);
        routed_batches
    }

    fn order(&self) -> InputOrder<(K, Timed<T>)>
    where
        K: Record,
        T: Event,
    {
        let tie: fn(&(K, Timed<T>), &(K, Timed<T>)) -> _ = |a, b| by_content(&a.1, &b.1);
        InputOrder {
            place: |(_, event)| event.at,
            tie: self.stream.is_scattered.then_some(tie),
        }
    }
}

/// An event is late if its time is before the closed event time.
fn is_late<K, T>((_, event): &(K, Timed<T>), closed: EventTime) -> bool {
    event.time < closed
}

/// A step over the events of some sources, while it is being added.
pub(super) struct KeyedStep<'s> {
    flow: Dataflow<'s>,
    name: String,
    origin: Origin,
    sources: Rc<[SourceId]>,
    /// Whether its output has waited for the watermark.
    is_behind: bool,
}

impl<'s> KeyedStep<'s> {
    pub(super) fn new(flow: Dataflow<'s>, name: &str, origin: &Origin, sources: &Rc<[SourceId]>) -> Self {
        flow.context().worker_context.timeline.borrow_mut().track(sources);
        Self {
            flow,
            name: name.to_owned(),
            origin: origin.clone(),
            sources: sources.clone(),
            is_behind: true,
        }
    }

    /// Declares that it emits events as they arrive.
    fn at_once<T>(self, stream: &Stream<'s, T>) -> Self {
        Self {
            is_behind: stream.is_behind,
            ..self
        }
    }

    fn about(&self, about: String) {
        self.flow.context().plan.borrow_mut().about(about);
    }

    fn lateness(&self, is_behind: bool) -> LateHandling {
        let context = self.flow.context();
        let policies = LatePolicies::new(context.late_policies(&self.sources));
        LateHandling {
            policies: policies.behind_watermark(is_behind),
            counts: context.late_metrics(&self.sources, &self.name),
        }
    }

    pub(super) fn setup<O: KeyedOperator>(
        &self,
        identity: StateIdentity,
        demand: BackfillDemand,
        order: Option<InputOrder<O::Input>>,
    ) -> Setup<O::Input> {
        let (context, name) = (self.flow.context(), self.name.as_str());
        // State that expired under a shorter time for corrections cannot take the events that a longer one
        // admits.
        let corrects = context.corrected_for(&self.sources);
        let identity = match corrects.is_zero() || identity.kind == StateKind::Process {
            true => identity,
            false => identity.with_number("corrects_us", micros(corrects) as u64),
        };
        let version = context.version(name);
        type State<O> = <O as KeyedOperator>::State;
        let handle = context.handle::<<State<O> as EntryStore>::Key, <State<O> as EntryStore>::Value>(
            (identity, name),
            &self.origin,
            version,
            EntryRule::Last,
        );
        let label = format!("`{name}`");
        Setup {
            order,
            ..context.setup(name, label, &self.sources, handle, demand)
        }
    }

    /// Adds an operator that emits events.
    fn emit<U: Event, O: KeyedOperator<Output = Emitted<U>>>(
        self,
        routed_batches: StreamVec<'s, Epoch, RoutedBatch>,
        operator: O,
        identity: StateIdentity,
        order: Option<InputOrder<O::Input>>,
    ) -> Stream<'s, U> {
        let setup = self.setup::<O>(identity, BackfillDemand::default(), order);
        let (inner, _) = process(routed_batches, Rc::new(operator), setup);
        self.stream(inner)
    }

    /// Like [`KeyedStep::emit`]; also returns whether the step is new while others were restored, and so
    /// needs their rows re-emitted.
    pub(super) fn emit_new<U: Event, O: KeyedOperator<Output = Emitted<U>>>(
        self,
        routed_batches: StreamVec<'s, Epoch, RoutedBatch>,
        operator: O,
        identity: StateIdentity,
    ) -> (Stream<'s, U>, bool) {
        let setup = self.setup::<O>(identity, BackfillDemand::default(), None);
        let is_new = setup.handle.held() != setup.handle.restored();
        let (inner, _) = process(routed_batches, Rc::new(operator), setup);
        (self.stream(inner), is_new)
    }

    /// An empty stream, in place of one that cannot be built.
    pub(super) fn nothing<U: Event>(self) -> Stream<'s, U> {
        let inner = self.flow.scope.concatenate(Vec::new());
        self.stream(inner)
    }

    fn stream<U: Event>(self, inner: Events<'s, U>) -> Stream<'s, U> {
        Stream {
            inner,
            flow: self.flow,
            sources: self.sources,
            origin: self.origin,
            is_scattered: true,
            is_behind: self.is_behind,
        }
    }
}
