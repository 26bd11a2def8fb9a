//! The way from the operator of a shard to its task: whole epochs, bounded by rows and bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::metrics::SinkMetrics;
use crate::sink::{Batch, Shard};
use crate::time::Epoch;

/// Rows that wait before epochs wait with them.
pub(crate) const ROWS_MAX: usize = 1 << 17;
/// The same in bytes of memory.
pub(crate) const BYTES_MAX: usize = 64 << 20;

/// What is taken at once, but for an epoch that has more: a call of a writer is to end in time.
const TAKEN_BYTES_MAX: usize = 8 << 20;

/// A shard's queue, and all that is known of it.
pub(crate) struct SinkQueue {
    pub(crate) shard: Shard,
    state: Mutex<QueueState>,
    changed: Condvar,
    metrics: SinkMetrics,
}

/// What waits for a shard, and how it is doing.
#[derive(Default)]
struct QueueState {
    batches: VecDeque<Batch>,
    /// Of `batches` and of what is in the task's hands.
    rows: usize,
    bytes: usize,
    /// The first epoch in the task's hands.
    in_hand: Option<Epoch>,
    /// Up to here the next start knows that the store has everything, as that is written down.
    recorded: Option<Epoch>,
    /// The same, when what was told of it is durable.
    told: Option<Epoch>,
    /// The last epoch that the store has.
    delivered: Option<Epoch>,
    delivered_rows: u64,
    retries: u64,
    /// Nothing comes any more.
    ended: bool,
    /// Nothing is taken any more.
    given_up: bool,
    /// A store that fails is given no time any more.
    hurried: bool,
    trouble: Option<String>,
    /// Since when a call of the writer lasts.
    calling: Option<Instant>,
}

/// Whether a shard has everything up to an epoch.
pub(crate) enum DrainState {
    /// Rows of it wait.
    Waits,
    /// It has, and that is to be written down, with the last epoch that brought rows.
    Tell(Option<Epoch>),
    /// It has, and that is being written down.
    Told,
    /// It has, and that is durable.
    Recorded,
}

/// How a shard is doing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ShardStatus {
    /// The last epoch that the store has.
    pub delivered: Option<Epoch>,
    /// Rows written in this run.
    pub rows: u64,
    /// The first epoch that the store does not have, and rows and bytes from there on.
    pub waiting: Option<Epoch>,
    pub waiting_rows: usize,
    pub waiting_bytes: usize,
    /// Writes that failed in this run.
    pub retries: u64,
    pub trouble: Option<String>,
}

impl SinkQueue {
    pub(crate) fn new(shard: Shard, metrics: SinkMetrics) -> Arc<Self> {
        Arc::new(Self {
            shard,
            state: Mutex::default(),
            changed: Condvar::new(),
            metrics,
        })
    }

    /// Whether the store has everything up to `epoch`, and the next start will know. Asked when the epoch is
    /// closed, so that everything of it was put in.
    pub(crate) fn cleared(&self, epoch: Epoch) -> DrainState {
        let mut state = self.state.lock();
        if state.oldest().is_some_and(|oldest| oldest <= epoch) {
            return DrainState::Waits;
        }
        if state.recorded >= Some(epoch) {
            return DrainState::Recorded;
        }
        if state.told >= Some(epoch) {
            return DrainState::Told;
        }
        state.told = Some(epoch);
        DrainState::Tell(state.delivered)
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state.lock().given_up
    }

    pub(crate) fn state(&self) -> ShardStatus {
        let state = self.state.lock();
        ShardStatus {
            delivered: state.delivered,
            rows: state.delivered_rows,
            waiting: state.oldest(),
            waiting_rows: state.rows,
            waiting_bytes: state.bytes,
            retries: state.retries,
            trouble: state.trouble.clone().or_else(|| self.stuck_write(&state)),
        }
    }

    fn stuck_write(&self, state: &QueueState) -> Option<String> {
        let since = clock::instant().saturating_duration_since(state.calling?);
        let (number, max) = (self.shard.number, self.shard.call_max);
        (since > max).then(|| format!("shard {number}: a write lasts for {} s", since.as_secs()))
    }

    /// Ends the task's pause, and lets it make no other: the service ends.
    pub(crate) fn interrupt_pause(&self) {
        self.state.lock().hurried = true;
        self.changed.notify_all();
    }

    /// Takes up to so many rows, but an epoch of more as a whole; nothing where nothing waits.
    pub(super) fn take(&self, rows_max: usize) -> Vec<Batch> {
        let (mut rows, mut bytes, mut taken, mut state) = (0, 0, Vec::new(), self.state.lock());
        while let Some(next) = state.batches.front() {
            let (more_rows, more_bytes) = size(std::slice::from_ref(next));
            (rows, bytes) = (rows + more_rows, bytes + more_bytes);
            if !taken.is_empty() && (rows > rows_max || bytes > TAKEN_BYTES_MAX) {
                break;
            }
            taken.extend(state.batches.pop_front());
        }
        state.in_hand = taken.first().map(|batch| batch.epoch);
        taken
    }

    pub(super) fn is_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// A call of the writer begins.
    pub(super) fn calls(&self) {
        self.state.lock().calling = Some(clock::instant());
    }

    /// It has returned.
    pub(super) fn called(&self) {
        self.state.lock().calling = None;
    }

    /// The store has what was taken: `written`, but for those that it had before. Whether it failed before.
    pub(super) fn written(&self, taken: &[Batch], written: &[Batch]) -> bool {
        let (rows, bytes) = size(taken);
        let mut state = self.state.lock();
        state.rows -= rows;
        state.bytes -= bytes;
        state.in_hand = None;
        state.delivered = taken.last().map(|batch| batch.epoch).max(state.delivered);
        state.told = state.told.max(state.delivered);
        let (written_rows, written_bytes) = size(written);
        state.delivered_rows += written_rows as u64;
        self.metrics.rows.inc_by(written_rows as u64);
        self.metrics.bytes.inc_by(written_bytes as u64);
        let was_in_trouble = state.trouble.take().is_some();
        drop(state);
        self.observe(written);
        was_in_trouble
    }

    /// Latency of what was written: from the event's time, or from when its epoch was opened.
    fn observe(&self, written: &[Batch]) {
        let now = clock::now().micros();
        let seconds = |micros: i64| now.saturating_sub(micros).max(0) as f64 / 1e6;
        for batch in written {
            let opened = batch.epoch.opened_at().micros();
            let mut untimed = 0;
            for row in &batch.rows {
                match row.time() {
                    Some(time) => self.metrics.latency.observe(seconds(time.micros())),
                    None => untimed += 1,
                }
            }
            self.metrics.latency.observe_many(seconds(opened), untimed);
        }
    }

    /// The next start knows that the store has everything up to `epoch`.
    pub(super) fn recorded(&self, epoch: Epoch) {
        let mut state = self.state.lock();
        state.recorded = state.recorded.max(Some(epoch));
    }

    /// What the last start wrote down: all up to an epoch, and the last that brought rows.
    pub(super) fn begin(&self, complete: Option<Epoch>, delivered: Option<Epoch>) {
        let mut state = self.state.lock();
        (state.recorded, state.told, state.delivered) = (complete, complete, delivered);
    }

    /// It failed; whether it did not before.
    pub(super) fn failed(&self, error: &str) -> bool {
        self.metrics.failures.inc();
        let mut state = self.state.lock();
        state.retries += 1;
        let text = match self.shard.of {
            1 => error.to_owned(),
            _ => format!("shard {}: {error}", self.shard.number),
        };
        state.trouble.replace(text).is_none()
    }

    /// Nothing is taken any more: what waits is left to the next start.
    pub(super) fn give_up(&self) {
        let mut state = self.state.lock();
        state.given_up = true;
        // Whatever is left behind, no checkpoint may stand for it.
        state.in_hand = state.oldest();
        state.batches.clear();
        (state.rows, state.bytes) = (0, 0);
    }

    /// Waits for so long, or until something waits or nothing comes any more.
    pub(super) fn wait(&self, time: Duration) {
        let mut state = self.state.lock();
        if state.batches.is_empty() && !state.ended {
            self.changed.wait_for(&mut state, time);
        }
    }

    /// Lets a store rest for so long, whatever is put in meanwhile.
    pub(super) fn pause(&self, time: Duration) {
        let until = clock::instant() + time;
        let mut state = self.state.lock();
        while !state.hurried && !self.changed.wait_until(&mut state, until).timed_out() {}
    }
}

impl QueueState {
    /// The first epoch that the store does not have.
    fn oldest(&self) -> Option<Epoch> {
        let first = self.batches.front().map(|batch| batch.epoch);
        self.in_hand.or(first)
    }
}

fn size(batches: &[Batch]) -> (usize, usize) {
    let rows = batches.iter().map(|batch| batch.rows.len()).sum();
    let bytes = batches
        .iter()
        .flat_map(|batch| &batch.rows)
        .map(|row| row.bytes());
    (rows, bytes.sum())
}

/// The operator's end of a queue. Its end is that of what it gives.
pub(crate) struct QueueProducer(pub(super) Arc<SinkQueue>);

impl QueueProducer {
    /// Whether another epoch may be put in. If not, the operator is woken when it may.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.0.state.lock();
        state.rows < ROWS_MAX && state.bytes < BYTES_MAX
    }

    /// Puts an epoch in: later than all before it, and with rows.
    pub(crate) fn put(&self, batch: Batch) {
        let (rows, bytes) = size(std::slice::from_ref(&batch));
        let mut state = self.0.state.lock();
        if state.given_up {
            state.in_hand.get_or_insert(batch.epoch);
            return;
        }
        state.rows += rows;
        state.bytes += bytes;
        state.batches.push_back(batch);
        drop(state);
        self.0.changed.notify_all();
    }
}

impl Drop for QueueProducer {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.changed.notify_all();
    }
}
