//! Brings what an operator puts out to its sink, on a thread of its own: a slow sink holds no worker up before its queue is
//! full, and one that fails is tried again until it takes what it is given.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::progress::Progress;
use super::{Batch, Sink};
use crate::bridge::{Halt, Waker, panic_text};
use crate::error::{Error, Result};
use crate::fault;
use crate::metrics::SinkMetrics;
use crate::time::Epoch;

/// Rows that wait before epochs wait with them.
const ROWS_MAX: usize = 1 << 17;
/// Rows that are written in one go, but for an epoch that has more.
const WRITE_MAX: usize = 1 << 14;
/// How soon a sink that failed is tried again, the first time and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

struct Queue<R> {
    name: String,
    waiting: Mutex<Waiting<R>>,
    changed: Condvar,
}

struct Waiting<R> {
    batches: VecDeque<Batch<R>>,
    rows: usize,
    /// The first epoch that the sink does not have yet, or not for certain.
    oldest: Option<Epoch>,
    /// Nothing comes any more.
    ended: bool,
    /// Nothing is taken any more.
    given_up: bool,
    trouble: Option<String>,
}

/// A queue, whatever its rows.
pub trait Line: Send + Sync {
    /// The sink's name.
    fn name(&self) -> &str;
    /// The first epoch that the sink does not have yet, or not for certain.
    fn oldest(&self) -> Option<Epoch>;
    /// Whether the sink failed when the service was about to end.
    fn is_given_up(&self) -> bool;
    /// What goes wrong, if anything does.
    fn trouble(&self) -> Option<String>;
    /// Has the courier look around.
    fn wake(&self);
}

impl<R: Send> Line for Queue<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn oldest(&self) -> Option<Epoch> {
        self.waiting.lock().oldest
    }

    fn is_given_up(&self) -> bool {
        self.waiting.lock().given_up
    }

    fn trouble(&self) -> Option<String> {
        self.waiting.lock().trouble.clone()
    }

    fn wake(&self) {
        self.changed.notify_all();
    }
}

/// The operator's end of a queue. Its end is that of what it gives.
pub struct Outbox<R> {
    queue: Arc<Queue<R>>,
    metrics: SinkMetrics,
}

impl<R> Outbox<R> {
    /// Whether another epoch may be put in. If not, the operator is woken when it may.
    pub fn has_room(&self) -> bool {
        self.queue.waiting.lock().rows < ROWS_MAX
    }

    /// Puts an epoch in: later than all before it, and with rows.
    pub fn put(&self, batch: Batch<R>) {
        let mut waiting = self.queue.waiting.lock();
        waiting.oldest.get_or_insert(batch.epoch);
        if waiting.given_up {
            return;
        }
        waiting.rows += batch.rows.len();
        self.metrics.waiting.set(waiting.rows as i64);
        waiting.batches.push_back(batch);
        drop(waiting);
        self.queue.changed.notify_all();
    }
}

impl<R> Drop for Outbox<R> {
    fn drop(&mut self) {
        self.queue.waiting.lock().ended = true;
        self.queue.changed.notify_all();
    }
}

/// What a courier found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something, and there may be more.
    Worked,
    /// Nothing before something is put in.
    Idle,
    /// Nothing before so much time has passed.
    Wait(Duration),
    /// Nothing any more.
    Ended,
}

/// Takes from a queue and gives to a sink.
pub struct Courier<R> {
    queue: Arc<Queue<R>>,
    sink: Box<dyn Sink<R>>,
    progress: Option<Progress>,
    /// What it has in hand, and whether the sink has it.
    taken: Vec<Batch<R>>,
    written: bool,
    tries: u32,
    waker: Waker,
    halt: Halt,
    closing: Arc<AtomicBool>,
    metrics: SinkMetrics,
}

/// Both ends of a queue.
pub(super) fn connect<R: Send + 'static>(
    name: &str,
    sink: Box<dyn Sink<R>>,
    progress: Option<Progress>,
    waker: Waker,
    halt: Halt,
    metrics: SinkMetrics,
    closing: Arc<AtomicBool>,
) -> (Outbox<R>, Arc<dyn Line>, Courier<R>) {
    let queue = Arc::new(Queue {
        name: name.to_owned(),
        waiting: Mutex::new(Waiting {
            batches: VecDeque::new(),
            rows: 0,
            oldest: None,
            ended: false,
            given_up: false,
            trouble: None,
        }),
        changed: Condvar::new(),
    });
    let outbox = Outbox {
        queue: queue.clone(),
        metrics: metrics.clone(),
    };
    let courier = Courier {
        queue: queue.clone(),
        sink,
        progress,
        taken: Vec::new(),
        written: false,
        tries: 0,
        waker,
        halt: halt.clone(),
        closing,
        metrics,
    };
    let halted = queue.clone();
    halt.on_halt(Waker::new(move || Line::wake(&*halted)));
    (outbox, queue, courier)
}

impl<R: Send> Courier<R> {
    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.queue.name
    }

    /// Goes on until the sink has everything.
    pub fn run(mut self) {
        loop {
            match self.turn() {
                Turn::Worked => {}
                Turn::Ended => return,
                idle => {
                    let mut waiting = self.queue.waiting.lock();
                    let nothing = waiting.batches.is_empty() && !waiting.ended;
                    // What was put in or said since the turn is seen here, or wakes.
                    match idle {
                        Turn::Wait(time) if !self.is_closing() => {
                            self.queue.changed.wait_for(&mut waiting, time);
                        }
                        Turn::Idle if nothing => {
                            self.queue.changed.wait_for(&mut waiting, LOOK_AROUND);
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) || self.halt.is_halted()
    }

    /// Writes some of what waits.
    pub fn turn(&mut self) -> Turn {
        if self.halt.is_halted() {
            return Turn::Ended;
        }
        if self.taken.is_empty() && !self.take() {
            return match self.queue.waiting.lock().ended {
                true => Turn::Ended,
                false => Turn::Idle,
            };
        }
        match self.deliver() {
            Ok(()) => {
                self.done();
                Turn::Worked
            }
            Err(error) => self.failed(&error),
        }
    }

    fn take(&mut self) -> bool {
        let (mut rows, mut waiting) = (0, self.queue.waiting.lock());
        while let Some(batch) = waiting
            .batches
            .pop_front_if(|batch| rows == 0 || rows + batch.rows.len() <= WRITE_MAX)
        {
            rows += batch.rows.len();
            self.taken.push(batch);
        }
        self.written = false;
        !self.taken.is_empty()
    }

    fn deliver(&mut self) -> Result<()> {
        let Some(last) = self.taken.last().map(|batch| batch.epoch) else {
            return Ok(());
        };
        if !self.written {
            let (sink, taken) = (&mut self.sink, &self.taken);
            fault::point("sink.given");
            match catch_unwind(AssertUnwindSafe(|| sink.write(taken))) {
                Ok(written) => written?,
                Err(panic) => {
                    let text = panic_text(&*panic);
                    self.halt.halt(
                        Error::definition(format!("sink `{}` panicked", self.queue.name))
                            .detail(text)
                            .hint("its epochs are given to it again at the next start"),
                    );
                    return Ok(());
                }
            }
            self.written = true;
            fault::point("sink.written");
        }
        if let Some(progress) = &mut self.progress {
            progress.save(last)?;
            fault::point("sink.saved");
        }
        Ok(())
    }

    /// The sink has what was taken, and that is written down; or all ends with a halt.
    fn done(&mut self) {
        if self.halt.is_halted() {
            return;
        }
        let rows: usize = self.taken.iter().map(|batch| batch.rows.len()).sum();
        if let Some(last) = self.taken.last() {
            self.metrics.epoch.set(last.epoch.0 as f64 / 1e6);
        }
        self.metrics.rows.inc_by(rows as u64);
        self.taken.clear();
        self.tries = 0;
        let mut waiting = self.queue.waiting.lock();
        waiting.rows -= rows;
        self.metrics.waiting.set(waiting.rows as i64);
        waiting.oldest = waiting.batches.front().map(|batch| batch.epoch);
        if waiting.trouble.take().is_some() {
            tracing::info!("sink `{}` is well again", self.queue.name);
        }
        drop(waiting);
        self.waker.wake();
    }

    fn failed(&mut self, error: &Error) -> Turn {
        self.metrics.failures.inc();
        let mut waiting = self.queue.waiting.lock();
        let first = waiting.trouble.replace(error.to_string()).is_none();
        if self.closing.load(Ordering::Acquire) {
            tracing::warn!(
                "sink `{}` is left behind, and goes on at the next start: {error}",
                self.queue.name
            );
            waiting.given_up = true;
            waiting.batches.clear();
            waiting.rows = 0;
            drop(waiting);
            self.waker.wake();
            return Turn::Ended;
        }
        if first {
            tracing::warn!(
                "sink `{}` is tried again until it takes its rows: {error}",
                self.queue.name
            );
        }
        let wait = AGAIN.0.saturating_mul(1 << self.tries.min(10)).min(AGAIN.1);
        self.tries += 1;
        Turn::Wait(wait)
    }
}

/// A courier that waits looks around this often even if nothing woke it.
const LOOK_AROUND: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::Sinks;

    /// Notes what it is given, while it may.
    #[derive(Clone, Default)]
    struct Notes {
        taken: Arc<Mutex<Vec<(u64, usize)>>>,
        refuses: Arc<AtomicBool>,
    }

    impl Sink<u32> for Notes {
        fn write(&mut self, epochs: &[Batch<u32>]) -> Result<()> {
            if self.refuses.load(Ordering::Relaxed) {
                return Err(Error::outside("nobody is there"));
            }
            let mut taken = self.taken.lock();
            taken.extend(epochs.iter().map(|batch| (batch.epoch.0, batch.rows.len())));
            Ok(())
        }
    }

    fn batch(epoch: u64, rows: usize) -> Batch<u32> {
        Batch {
            epoch: Epoch(epoch),
            rows: vec![7; rows],
        }
    }

    fn connected(notes: &Notes) -> (Sinks, Outbox<u32>, Box<dyn super::super::Carry>) {
        let sinks = Sinks::open(&["notes".into()], None).unwrap();
        let outbox = sinks.connect(
            "notes",
            Box::new(notes.clone()),
            Waker::new(|| {}),
            Halt::default(),
            SinkMetrics::default(),
        );
        let courier = sinks.couriers().pop().unwrap();
        (sinks, outbox.unwrap(), courier)
    }

    #[test]
    fn epochs_are_taken_in_order_some_at_a_time_and_the_queue_has_an_end() {
        let notes = Notes::default();
        let (sinks, outbox, mut courier) = connected(&notes);
        assert_eq!(courier.turn(), Turn::Idle);
        let sizes = [1, WRITE_MAX, 5, WRITE_MAX - 5, 2 * WRITE_MAX, 1];
        for (epoch, rows) in (1..).zip(sizes) {
            outbox.put(batch(epoch, rows));
        }
        let mut ends = Vec::new();
        while courier.turn() == Turn::Worked {
            ends.push(notes.taken.lock().last().unwrap().0);
            let oldest = ends.last().unwrap() + 1;
            assert_eq!(
                (sinks.is_clear(Epoch(oldest - 1)), sinks.is_clear(Epoch(oldest))),
                (true, oldest == 7)
            );
        }
        assert_eq!(
            ends,
            [1, 2, 4, 5, 6],
            "no more than {WRITE_MAX} rows at once, but for one epoch"
        );
        let all: Vec<_> = (1..).zip(sizes).collect();
        assert_eq!(*notes.taken.lock(), all);
        let mut epoch = 7;
        while outbox.has_room() {
            outbox.put(batch(epoch, 1000));
            epoch += 1;
        }
        assert_eq!(epoch - 7, (ROWS_MAX as u64).div_ceil(1000));
        while !outbox.has_room() {
            assert_eq!(courier.turn(), Turn::Worked);
        }
        drop(outbox);
        while courier.turn() == Turn::Worked {}
        assert_eq!(courier.turn(), Turn::Ended);
        assert_eq!(notes.taken.lock().last().unwrap().0, epoch - 1);
    }

    #[test]
    fn one_that_fails_is_tried_again_ever_more_seldom_and_given_up_only_at_the_end() {
        let notes = Notes::default();
        let (sinks, outbox, mut courier) = connected(&notes);
        notes.refuses.store(true, Ordering::Relaxed);
        outbox.put(batch(3, 2));
        let waits: Vec<_> = (0..12).map(|_| courier.turn()).collect();
        let wait = |n: u32| Turn::Wait(AGAIN.0.saturating_mul(1 << n).min(AGAIN.1));
        assert_eq!(waits, (0..12).map(|n| wait(n.min(10))).collect::<Vec<_>>());
        assert_eq!(waits.last(), Some(&Turn::Wait(AGAIN.1)));
        assert_eq!(sinks.troubles().len(), 1);
        assert!(sinks.troubles()[0].1.contains("nobody is there"));
        notes.refuses.store(false, Ordering::Relaxed);
        assert_eq!(courier.turn(), Turn::Worked);
        assert!(sinks.troubles().is_empty() && sinks.is_clear(Epoch(3)));
        notes.refuses.store(true, Ordering::Relaxed);
        outbox.put(batch(4, 2));
        assert!(matches!(courier.turn(), Turn::Wait(_)) && sinks.take_on());
        sinks.close();
        assert_eq!(courier.turn(), Turn::Ended);
        // Whatever else comes is left to the next start, and no checkpoint may stand for it.
        outbox.put(batch(5, ROWS_MAX));
        assert!(outbox.has_room() && !sinks.take_on());
        assert!(sinks.is_clear(Epoch(3)) && !sinks.is_clear(Epoch(4)));
        assert_eq!(*notes.taken.lock(), [(3, 2)]);
    }
}
