//! Where rows leave a dataflow: epoch by epoch, in order, and each epoch as a whole.
//!
//! ```text
//!   operator, worker 0 ── Outbox::put ─▶ Queue, bounded ─▶ Courier, a thread of its own: Sink::write ─▶ progress ─▶ next
//!        ▲    no room: the epoch waits, unfinished            │                             │
//!        └──────────────── woken when there is ───────────────┘                             └─▶ may a checkpoint of s count?
//! ```
//!
//! An epoch reaches a sink once the frontier has passed it, which it does only when its binding is durable: what a replay
//! makes of it is the same again. How far a sink has come is written down behind every [`write`](Sink::write), and
//! what a start makes again up to there is not given to it any more. A checkpoint of epoch s counts once no row of s or before
//! waits, as a start from it makes none of them again.

pub mod courier;
pub mod progress;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::bridge::{Halt, Waker};
use crate::error::Result;
use crate::metrics::SinkMetrics;
use crate::sink::courier::{Courier, Line, Outbox, Turn};
use crate::sink::progress::{Place, Progress};
use crate::time::Epoch;

/// What an epoch brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<R> {
    /// The epoch.
    pub epoch: Epoch,
    /// Its rows, at least one, in an order that is the same in every replay.
    pub rows: Vec<R>,
}

/// Takes rows out of a dataflow.
pub trait Sink<R>: Send {
    /// Writes the rows of some epochs, in their order. On its return they are where they belong, for good.
    ///
    /// # Errors
    /// Whatever it is, the same epochs are given again a moment later, and again after a restart: nothing is left out.
    fn write(&mut self, epochs: &[Batch<R>]) -> Result<()>;
}

/// The sinks of a process.
#[derive(Default)]
pub struct Sinks {
    /// Where each has come to, as of the start.
    reached: BTreeMap<String, Option<Epoch>>,
    progress: Mutex<BTreeMap<String, Progress>>,
    lines: Mutex<Vec<Arc<dyn Line>>>,
    couriers: Mutex<Vec<Box<dyn Carry>>>,
    closing: Arc<AtomicBool>,
    /// Nothing leaves: this is a plan, or a replay to compare with.
    dry: bool,
}

/// A [`Courier`], whatever its rows.
pub trait Carry: Send {
    /// Does some work, if there is any.
    fn turn(&mut self) -> Turn;
    /// Goes on until its sink has everything, and there will be no more.
    fn run(self: Box<Self>);
    /// The sink's name.
    fn name(&self) -> String;
}

impl Sinks {
    /// From which nothing leaves.
    pub fn dry() -> Self {
        Self {
            dry: true,
            ..Self::default()
        }
    }

    /// The sinks of these names, where each has come to noted in `place`; without one, starts know nothing of each other.
    ///
    /// # Errors
    /// Those of [`Place::open`].
    pub fn open(names: &[String], place: Option<&Place>) -> Result<Self> {
        let mut sinks = Self::default();
        for name in names {
            let opened = place.map(|place| place.open(name)).transpose()?;
            let (progress, reached) = match opened {
                Some((progress, reached)) => (Some(progress), reached),
                None => (None, None),
            };
            sinks.reached.insert(name.clone(), reached);
            sinks
                .progress
                .get_mut()
                .extend(progress.map(|p| (name.clone(), p)));
        }
        Ok(sinks)
    }

    /// The last epoch that a sink had at the start.
    pub fn reached(&self, name: &str) -> Option<Epoch> {
        self.reached.get(name).copied().flatten()
    }

    /// The way to a sink, for the one operator that fills it; `None` where nothing leaves.
    pub fn connect<R: Send + 'static>(
        &self,
        name: &str,
        sink: Box<dyn Sink<R>>,
        waker: Waker,
        halt: Halt,
        metrics: SinkMetrics,
    ) -> Option<Outbox<R>> {
        if self.dry {
            return None;
        }
        let progress = self.progress.lock().remove(name);
        let (outbox, line, courier) =
            courier::connect(name, sink, progress, waker, halt, metrics, self.closing.clone());
        self.lines.lock().push(line);
        self.couriers.lock().push(Box::new(courier));
        Some(outbox)
    }

    /// What there is to run, each on a thread of its own.
    pub fn couriers(&self) -> Vec<Box<dyn Carry>> {
        std::mem::take(&mut *self.couriers.lock())
    }

    /// Whether no row of `epoch` or before waits.
    pub fn is_clear(&self, epoch: Epoch) -> bool {
        self.lines
            .lock()
            .iter()
            .all(|line| line.oldest().is_none_or(|oldest| oldest > epoch))
    }

    /// Whether all sinks take on: one that failed while the service was about to end does not.
    pub fn take_on(&self) -> bool {
        self.lines.lock().iter().all(|line| !line.is_given_up())
    }

    /// The service is about to end: a sink that fails now is given up, and gets its rows at the next start.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.lines.lock().iter().for_each(|line| line.wake());
    }

    /// What goes wrong with each, where something does.
    pub fn troubles(&self) -> Vec<(String, String)> {
        let lines = self.lines.lock();
        let troubles = lines
            .iter()
            .filter_map(|line| Some((line.name().to_owned(), line.trouble()?)));
        troubles.collect()
    }
}

impl<R: Send + 'static> Carry for Courier<R> {
    fn turn(&mut self) -> Turn {
        Courier::turn(self)
    }

    fn run(self: Box<Self>) {
        Courier::run(*self);
    }

    fn name(&self) -> String {
        Courier::name(self).to_owned()
    }
}

/// A sink that is a function of each epoch: see [`Table::for_each_epoch`](crate::dataflow::table::Table::for_each_epoch).
pub struct ForEach<F> {
    f: F,
    /// The last epoch that it took.
    last: Epoch,
}

impl<F> ForEach<F> {
    /// Of this function.
    pub fn new(f: F) -> Self {
        Self { f, last: Epoch::ZERO }
    }
}

impl<R: Send, E: std::fmt::Display, F: FnMut(Epoch, &[R]) -> std::result::Result<(), E> + Send> Sink<R>
    for ForEach<F>
{
    fn write(&mut self, epochs: &[Batch<R>]) -> Result<()> {
        // Of those that are given again it may have taken some.
        let (f, last) = (&mut self.f, &mut self.last);
        for batch in epochs {
            if batch.epoch <= *last {
                continue;
            }
            f(batch.epoch, &batch.rows)
                .map_err(|error| crate::Error::outside(format!("epoch {}: {error}", batch.epoch)))?;
            *last = batch.epoch;
        }
        Ok(())
    }
}
