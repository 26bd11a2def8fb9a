//! Window assigners, and streams in windows.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map as _;

use crate::checkpoint::identity::{StateIdentity, StateKind};
use crate::checkpoint::manifest::EntryRule;
use crate::dataflow::keyed::{Keyed, KeyedStep};
use crate::dataflow::plan::{Origin, StepKind};
use crate::dataflow::stream::Stream;
use crate::dataflow::table::Table;
use crate::operator::aggregate::{Aggregate, AggregateBuilder};
use crate::operator::backfill::BackfillDemand;
use crate::operator::exchange::pack;
use crate::operator::late::LatePolicies;
use crate::operator::when_closed::WhenClosed;
use crate::operator::window::assigner::AssignerKind;
pub use crate::operator::window::assigner::WindowAssigner;
use crate::operator::window::{self, RowRetention, SessionKey};
use crate::record::{Change, Event, Record, route};
use crate::time::{Epoch, EventTime, Window, WindowLayout, Windowed, micros, span};

/// Tumbling windows: of one length, without gap or overlap, aligned to the Unix epoch.
///
/// ```
/// use thalweg::prelude::*;
/// let mut windows = Vec::new();
/// Tumbling::of(Duration::from_secs(60)).windows(EventTime::from_secs(90), &mut windows);
/// assert_eq!(windows, [Window { start: EventTime::from_secs(60), end: EventTime::from_secs(120) }]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    size_us: i64,
    offset_us: i64,
}

impl Tumbling {
    /// Windows of this size. Sizes below one microsecond count as one microsecond.
    pub fn of(size: Duration) -> Self {
        Self {
            size_us: micros(size).max(1),
            offset_us: 0,
        }
    }

    /// Shifts the windows: with an offset of six hours, days begin at 06:00.
    pub fn offset(self, offset: Duration) -> Self {
        Self {
            offset_us: micros(offset).rem_euclid(self.size_us),
            ..self
        }
    }
}

impl WindowAssigner for Tumbling {
    fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
        let into = at.micros().wrapping_sub(self.offset_us).rem_euclid(self.size_us);
        let start = at.micros().saturating_sub(into);
        out.push(Window {
            start: EventTime(start),
            end: EventTime(start.saturating_add(self.size_us)),
        });
    }

    fn layout(&self) -> WindowLayout {
        let us = |us: i64| Duration::from_micros(us.unsigned_abs());
        WindowLayout::Aligned {
            size: us(self.size_us),
            every: us(self.size_us),
            offset: us(self.offset_us),
        }
    }
}

/// Hopping windows: of one length, starting at a fixed interval, aligned to the Unix epoch. An event belongs
/// to every window that contains it.
///
/// Events are folded once per slice between window boundaries, not once per window.
///
/// ```
/// use thalweg::prelude::*;
/// // The last ten minutes, every minute.
/// let minutes = |n: u64| Duration::from_secs(60 * n);
/// let mut windows = Vec::new();
/// Hopping::of(minutes(10)).every(minutes(1)).windows(EventTime::from_secs(90), &mut windows);
/// assert_eq!(windows.len(), 10);
/// assert_eq!(windows[0], Window { start: EventTime::from_secs(60), end: EventTime::from_secs(660) });
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Hopping {
    size_us: i64,
    every_us: i64,
    offset_us: i64,
}

impl Hopping {
    /// Windows of this size, which tumble until [`every`](Self::every) sets another interval. Sizes below one
    /// microsecond count as one microsecond.
    pub fn of(size: Duration) -> Self {
        let size_us = micros(size).max(1);
        Self {
            size_us,
            every_us: size_us,
            offset_us: 0,
        }
    }

    /// The interval from one start to the next. If it exceeds the size, events between windows belong to
    /// none.
    pub fn every(self, every: Duration) -> Self {
        Self {
            every_us: micros(every).max(1),
            ..self
        }
    }

    /// Shifts the windows.
    pub fn offset(self, offset: Duration) -> Self {
        Self {
            offset_us: micros(offset),
            ..self
        }
    }

    fn offset_us(&self) -> i64 {
        self.offset_us.rem_euclid(self.every_us)
    }
}

impl WindowAssigner for Hopping {
    fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
        let into = at
            .micros()
            .wrapping_sub(self.offset_us())
            .rem_euclid(self.every_us);
        let mut start = at.micros().saturating_sub(into);
        while start.saturating_add(self.size_us) > at.micros() {
            let (start_, end) = (EventTime(start), EventTime(start.saturating_add(self.size_us)));
            out.push(Window { start: start_, end });
            let Some(before) = start.checked_sub(self.every_us) else {
                break;
            };
            start = before;
        }
    }

    fn layout(&self) -> WindowLayout {
        let us = |us: i64| Duration::from_micros(us.unsigned_abs());
        WindowLayout::Aligned {
            size: us(self.size_us),
            every: us(self.every_us),
            offset: us(self.offset_us()),
        }
    }

    fn method(&self) -> AssignerKind {
        match self.disjoint() {
            true => AssignerKind::Each,
            false => AssignerKind::Sliced,
        }
    }
}

/// Session windows: a key's events with less than a gap between one and the next.
///
/// A session starts with its first event and ends `gap` after its last. An event that falls between two
/// sessions may merge them: their rows are deleted, and the row of the merged session takes their place.
///
/// Lateness is judged by the session that an event falls into: an old event still counts if its session is
/// open.
///
/// ```
/// # use thalweg::prelude::*;
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct View { user: u32, at_ms: i64 }
/// # fn build(flow: Dataflow) {
/// # let views = Kafka::topic("views").json::<View>().event_time(|v| EventTime::from_millis(v.at_ms));
/// # let views = flow.source("views", views);
/// views
///     .key_by("user", |v| v.user)
///     .window("visits", Sessions::gap(Duration::from_secs(1800)))
///     .aggregate(|a| a.count())
///     .view("visits");
/// # }
/// # thalweg::runtime::plan(&dataflow("visits", build), &Environment::default()).unwrap();
/// # use thalweg::source::Environment;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    gap: Duration,
}

impl Sessions {
    /// Sessions that end once a key has had no event for `gap`. Gaps below one microsecond count as one
    /// microsecond.
    pub fn gap(gap: Duration) -> Self {
        Self {
            gap: gap.max(Duration::from_micros(1)),
        }
    }
}

impl WindowAssigner for Sessions {
    /// The session of a single event.
    fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
        out.push(Window {
            start: at,
            end: at.plus(self.gap),
        });
    }

    fn layout(&self) -> WindowLayout {
        WindowLayout::PerKey
    }

    fn method(&self) -> AssignerKind {
        AssignerKind::Merged { gap: self.gap }
    }
}

/// A single window for all of time.
struct GlobalWindow;

impl WindowAssigner for GlobalWindow {
    fn windows(&self, _at: EventTime, out: &mut Vec<Window>) {
        out.push(Window {
            start: EventTime::MIN,
            end: EventTime::MAX,
        });
    }

    fn layout(&self) -> WindowLayout {
        WindowLayout::PerKey
    }

    fn disjoint(&self) -> bool {
        true
    }
}

impl<'s, K: 'static, T: 'static> Keyed<'s, K, T> {
    /// Aggregates all of a key's events, without windows: a row for each key that ever had an event. `name`
    /// is the step's.
    ///
    /// State is one aggregate per key, kept forever. No event is late.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Payment { merchant: u32, cents: i64 }
    /// # fn build(flow: Dataflow) {
    /// # let payments = flow.source("payments", Kafka::topic("payments").json::<Payment>());
    /// payments
    ///     .key_by("merchant", |p| p.merchant)
    ///     .aggregate_all("totals", |a| (a.count(), a.sum(|p| p.cents)))
    ///     .view_with("totals", |view| view.fields(["payments", "cents"]));
    /// # }
    /// # thalweg::runtime::plan(&dataflow("totals", build), &Environment::default()).unwrap();
    /// # use thalweg::source::Environment;
    /// ```
    #[track_caller]
    pub fn aggregate_all<A: Aggregate<T>>(
        self,
        name: &str,
        build: impl FnOnce(AggregateBuilder<T>) -> A,
    ) -> Table<'s, K, A::Out>
    where
        K: Record,
        T: Event,
    {
        let context = self.stream.flow.context();
        let origin = context.step(name, StepKind::Aggregate, &[&self.stream.origin]);
        let (flow, names, sources) = (self.stream.flow, self.names.clone(), self.stream.sources.clone());
        let about = format!("by {}", names.join(", "));
        let windows = Windows {
            keyed: self,
            origin: origin.clone(),
            assigner: Box::new(GlobalWindow),
            keep: Duration::MAX,
        };
        let identity = StateIdentity::new(StateKind::Aggregate, name);
        let (changes, demand, _) = windows.build(build, identity, about);
        let changes = changes.map(|Change { key, old, new }: Change<Windowed<K>, A::Out>| Change {
            key: key.key,
            old,
            new,
        });
        let mut table = Table::from_changes(flow, changes, origin, names, sources);
        table.meta.demand = demand;
        table
    }

    /// Assigns each key's events to windows of event time. `name` is the step's.
    #[track_caller]
    pub fn window(self, name: &str, assigner: impl WindowAssigner) -> Windows<'s, K, T> {
        let origin = self.timed_step(name, StepKind::Window, "window");
        Windows {
            keyed: self,
            origin,
            assigner: Box::new(assigner),
            keep: KEEP,
        }
    }
}

/// How long a window's rows stay after it closed, by default.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// Keyed events in windows, to be aggregated.
#[must_use]
pub struct Windows<'s, K: 'static, T: 'static> {
    keyed: Keyed<'s, K, T>,
    origin: Origin,
    assigner: Box<dyn WindowAssigner>,
    keep: Duration,
}

impl<'s, K: 'static, T: 'static> Windows<'s, K, T> {
    /// How long, in event time, a window's rows stay after it closed. Default 24 hours. Where late events are
    /// [corrected](crate::late::Late::Correct), a window closes when corrections end.
    pub fn keep(self, keep: Duration) -> Self {
        Self { keep, ..self }
    }

    /// Declares a version of the step: raise it when the aggregate, or what comes before it, has changed. A
    /// checkpoint of an earlier version is then subject to
    /// [`on_new_plan`](crate::runtime::checkpoints::CheckpointSettings::on_new_plan). Default 1.
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
    /// The closure gets [`AggregateBuilder`], which creates aggregates and knows the event's type:
    /// `|a| (a.count(), a.sum(|p| p.cents))`.
    pub fn aggregate<A: Aggregate<T>>(
        self,
        build: impl FnOnce(AggregateBuilder<T>) -> A,
    ) -> Table<'s, Windowed<K>, A::Out>
    where
        T: Event,
        K: Record,
    {
        let (flow, sources) = (self.keyed.stream.flow, self.keyed.stream.sources.clone());
        let (origin, names, keep) = (self.origin.clone(), self.keyed.names.clone(), self.keep);
        let layout = self.assigner.layout();
        let late = match self.assigner.method() {
            AssignerKind::Each if self.assigner.disjoint() => "",
            AssignerKind::Merged { .. } => "",
            AssignerKind::Each | AssignerKind::Sliced => {
                ", late windows counted in thalweg_late_windows_total"
            }
        };
        let identity = match self.assigner.method() {
            AssignerKind::Merged { gap } => {
                let corrects = flow.context().corrected_for(&sources);
                StateIdentity::sessions(origin.step(), gap, corrects)
            }
            AssignerKind::Each | AssignerKind::Sliced => StateIdentity::window(origin.step(), layout),
        };
        let shape = identity.shape();
        let about = format!("by {}, {shape}, kept {}{late}", names.join(", "), span(keep));
        let (changes, demand, when_closed) = self.build(build, identity, about);
        let mut table = Table::from_changes(flow, changes, origin, names, sources);
        table.meta.when_closed = vec![when_closed];
        table.meta.windows = Some(layout);
        table.meta.window_sources = table.meta.sources.clone();
        table.meta.keep = Some(keep);
        table.meta.demand = demand;
        table
    }

    /// Adds the operator.
    fn build<A: Aggregate<T>>(
        self,
        build: impl FnOnce(AggregateBuilder<T>) -> A,
        identity: StateIdentity,
        about: String,
    ) -> (WindowChanges<'s, K, A::Out>, BackfillDemand, Rc<Cell<bool>>)
    where
        T: Event,
        K: Record,
    {
        let Windows {
            keyed: Keyed { stream, key, .. },
            origin,
            assigner,
            keep,
        } = self;
        let (flow, context, step) = (stream.flow, stream.flow.context(), origin.step());
        context.plan.borrow_mut().about(about);
        type State<A, T> = <A as Aggregate<T>>::State;
        type Place<K> = (EventTime, EventTime, K);
        let (named, version) = ((identity, &**step), context.version(step));
        let method = assigner.method();
        let handle = match method {
            AssignerKind::Merged { .. } => {
                context.handle::<SessionKey<K>, State<A, T>>(named, &origin, version, EntryRule::Last)
            }
            AssignerKind::Each | AssignerKind::Sliced => {
                context.handle::<Place<K>, State<A, T>>(named, &origin, version, EntryRule::Last)
            }
        };
        let (demand, when_closed) = (BackfillDemand::default(), Rc::<Cell<bool>>::default());
        let keep = RowRetention {
            for_: keep,
            when_closed: when_closed.clone(),
        };
        let spec = window::WindowSpec {
            name: step.to_string(),
            key,
            assign: assigner,
            fold: Rc::new(build(AggregateBuilder::default())),
            keep,
            sources: stream.sources.clone(),
            worker_context: context.worker_context.clone(),
            policies: LatePolicies::new(context.late_policies(&stream.sources))
                .behind_watermark(stream.is_behind),
            late: context.late_metrics(&stream.sources, step),
            handle,
            demand: demand.clone(),
        };
        let (changes, late) = match method {
            AssignerKind::Merged { gap } => window::sessions(stream.inner, gap, spec),
            AssignerKind::Each | AssignerKind::Sliced => window::window(stream.inner, spec),
        };
        flow.late(late);
        (changes, demand, when_closed)
    }
}

/// The result of a windowed aggregate.
type WindowChanges<'s, K, V> = StreamVec<'s, Epoch, Change<Windowed<K>, V>>;

impl<'s, K: 'static, V: 'static> Table<'s, Windowed<K>, V> {
    /// The row of each window, once, when the window has closed: for stores that cannot retract rows. `name`
    /// is the step's.
    ///
    /// A window closes once the watermark has passed its end and its time for
    /// [corrections](crate::late::Late::Correct). The event time of a row is the last microsecond of its
    /// window. If [`keep`](Windows::keep) is shorter, the table's rows stay until the epoch after the one in
    /// which their window closed.
    ///
    /// Rows that appear after their window closed, such as those of a join whose other side was missing, are
    /// not emitted; neither are later changes of an emitted row.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Payment { merchant: u32, cents: i64, at_ms: i64 }
    /// # fn build(flow: Dataflow) {
    /// # let payments = Kafka::topic("payments").json::<Payment>().event_time(|p| EventTime::from_millis(p.at_ms));
    /// # let payments = flow.source("payments", payments);
    /// let spend = payments
    ///     .key_by("merchant", |p| p.merchant)
    ///     .window("spend", Tumbling::of(Duration::from_secs(3600)))
    ///     .aggregate(|a| a.sum(|p| p.cents));
    /// spend
    ///     .when_closed("final")
    ///     .map(|(key, cents)| (key.key, key.window.start, cents))
    ///     .append_to("bills", Kafka::topic("payments.bills.v1").json());
    /// # }
    /// # thalweg::runtime::plan(&dataflow("once", build), &Environment::default()).unwrap();
    /// # use thalweg::source::Environment;
    /// ```
    #[track_caller]
    pub fn when_closed(&self, name: &str) -> Stream<'s, (Windowed<K>, V)>
    where
        K: Record,
        V: Record,
    {
        let context = self.flow.context();
        let origin = context.step(name, StepKind::WhenClosed, &[&self.meta.origin]);
        let sources = &self.meta.window_sources;
        let late = context.late_policies(sources);
        let longest = late.iter().max_by_key(|(_, late)| late.corrects());
        let Some((source, _)) = longest.copied() else {
            context.mistake(format!(
                "`{name}`: no window of `{}` can ever close",
                self.meta.origin.step()
            ));
            return KeyedStep::new(self.flow, name, &origin, sources).nothing();
        };
        self.meta.when_closed.iter().for_each(|told| told.set(true));
        let step = KeyedStep::new(self.flow, name, &origin, sources);
        let identity = StateIdentity::new(StateKind::WhenClosed, name);
        let changes = pack(self.changes(), name, |change| route(&change.key));
        let operator = WhenClosed::new(source);
        let (rows, is_new) = step.emit_new(changes, operator, identity);
        if is_new {
            self.meta.demand.set(true);
        }
        rows
    }
}
