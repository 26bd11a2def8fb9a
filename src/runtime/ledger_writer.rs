//! Makes bindings durable: writes everything queued in one write and one sync.
//!
//! ```text
//!   sequencer ── bindings ──┐
//!   sink tasks ── progress ─┴▶ group ── append, sync ──▶ inbox.durable(last) ──▶ trim? ── TrimTask,  on any thread ──▶ adopt
//! ```
//!
//! A [`LedgerWriter`] advances one step at a time; its thread in a service does nothing else.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use crate::clock;
use crate::error::Result;
use crate::fault;
use crate::ledger::{LedgerStore, ShardProgress, Trim, Trimmed};
use crate::position::EpochBinding;
use crate::runtime::ProcessState;
use crate::sink::progress::{OnDurable, ProgressLog};
use crate::time::Epoch;

/// Progress is written without a binding after waiting this long for one.
const ALONE_AFTER: Duration = Duration::from_millis(10);

/// An entry to be written.
pub(super) enum LedgerEntry {
    Binding(Arc<EpochBinding>),
    /// The progress of a sink's shard, and a callback for when it is durable.
    Progress(ShardProgress, OnDurable),
}

/// The log in which sinks record their progress.
pub(super) struct LedgerQueue(pub Sender<LedgerEntry>);

impl ProgressLog for LedgerQueue {
    fn record(&self, progress: ShardProgress, durable: OnDurable) {
        // The ledger writer only ends before the sinks after a halt.
        let _halted = self.0.send(LedgerEntry::Progress(progress, durable));
    }
}

/// Writes the ledger of this process.
pub(super) struct LedgerWriter {
    ledger: Box<dyn LedgerStore>,
    entries: Receiver<LedgerEntry>,
    trimmer: LedgerTrimmer,
}

impl LedgerWriter {
    pub(super) fn new(ledger: Box<dyn LedgerStore>, entries: Receiver<LedgerEntry>) -> Self {
        Self {
            ledger,
            entries,
            trimmer: LedgerTrimmer::default(),
        }
    }

    /// Ends when the sequencer and all sinks have ended: the former at the end of the control dataflow, which
    /// a halt drops.
    pub(super) fn run(mut self, shared: &ProcessState) {
        while let Ok(first) = self.entries.recv() {
            let waiting = self.gather(first);
            match self.write(shared, waiting) {
                Ok(None) => {}
                // It reads everything that is to be removed, which must not delay writes.
                Ok(Some(preparing)) => {
                    let thread = std::thread::Builder::new().name("trim".into());
                    let _begun = thread.spawn(move || preparing.run());
                }
                Err(error) => return shared.halt.halt(error),
            }
        }
    }

    /// Like [`run`](Self::run), once and without waiting; does nothing if nothing is queued.
    #[cfg(test)]
    pub(super) fn step(&mut self, shared: &ProcessState) -> Result<Option<TrimTask>> {
        match self.entries.try_recv() {
            Ok(first) => self.write(shared, vec![first]),
            Err(_) => Ok(None),
        }
    }

    /// Nothing in the dataflow waits for progress to be durable, so it waits for a binding to be written
    /// with: written alone, it would make the next binding wait for another sync.
    fn gather(&self, first: LedgerEntry) -> Vec<LedgerEntry> {
        let (mut waiting, begun) = (vec![first], clock::instant());
        while let Some(LedgerEntry::Progress(..)) = waiting.last() {
            let left = ALONE_AFTER.saturating_sub(clock::instant() - begun);
            match self.entries.recv_timeout(left) {
                Ok(next) => waiting.push(next),
                Err(_) => break,
            }
        }
        waiting
    }

    /// Makes `waiting` and everything queued behind it durable, and runs the callbacks. Returns a trim to
    /// prepare next, if any.
    ///
    /// # Errors
    /// Those of the ledger, after which nothing more can be written.
    fn write(&mut self, shared: &ProcessState, waiting: Vec<LedgerEntry>) -> Result<Option<TrimTask>> {
        let (mut group, mut progress, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for entry in waiting.into_iter().chain(self.entries.try_iter()) {
            match entry {
                LedgerEntry::Binding(binding) => group.push((*binding).clone()),
                LedgerEntry::Progress(reached, durable) => {
                    reached.add_to(&mut progress);
                    told.push(durable);
                }
            }
        }
        let ledger = &mut *self.ledger;
        let begun = clock::instant();
        append(shared, ledger, &group, &progress)?;
        let metrics = &shared.metrics.ledger;
        metrics.append.observe((clock::instant() - begun).as_secs_f64());
        if let Some(last) = group.last() {
            fault::point("binding.durable");
            shared.inbox.durable(last.epoch);
            fault::point("binding.told");
        }
        if !told.is_empty() {
            told.into_iter().for_each(|durable| durable());
            fault::point("sink.recorded");
        }
        let preparing = self.trimmer.turn(shared, ledger)?;
        let bytes = i64::try_from(ledger.len_bytes()).unwrap_or(i64::MAX);
        metrics.bytes.set(bytes);
        Ok(preparing)
    }
}

/// A checkpoint records the chain hash as of its own epoch, so a group is split there.
fn append(
    shared: &ProcessState,
    ledger: &mut dyn LedgerStore,
    group: &[EpochBinding],
    progress: &[ShardProgress],
) -> Result<()> {
    let Some(checkpoints) = shared.checkpoints.get() else {
        return ledger.append_group(group, progress);
    };
    let at = group.iter().position(|binding| checkpoints.is_at(binding.epoch));
    let (upto, rest) = group.split_at(at.map_or(0, |at| at + 1));
    if !upto.is_empty() {
        ledger.append(upto)?;
        checkpoints.chain(ledger.chain_hash().to_string());
        fault::point("checkpoint.chained");
    }
    ledger.append_group(rest, progress)
}

/// Trims the beginning of the ledger as checkpoints stop needing it.
#[derive(Default)]
struct LedgerTrimmer {
    /// The epoch up to which trimming was attempted.
    upto: Epoch,
    prepared: Option<Receiver<Result<Option<Trimmed>>>>,
}

impl LedgerTrimmer {
    fn turn(&mut self, shared: &ProcessState, ledger: &mut dyn LedgerStore) -> Result<Option<TrimTask>> {
        let Some(prepared) = &self.prepared else {
            return Ok(self.begin(shared, ledger));
        };
        let prepared = match prepared.try_recv() {
            Err(TryRecvError::Empty) => return Ok(None),
            Err(TryRecvError::Disconnected) => Ok(None),
            Ok(prepared) => prepared,
        };
        self.prepared = None;
        match prepared {
            Ok(None) => {}
            Ok(Some(trimmed)) => {
                let (upto, bytes) = (trimmed.upto, trimmed.bytes);
                if ledger.adopt(trimmed)? {
                    tracing::debug!(%upto, bytes, "trimmed the ledger");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot trim the ledger; it keeps growing"),
        }
        Ok(None)
    }

    fn begin(&mut self, shared: &ProcessState, ledger: &dyn LedgerStore) -> Option<TrimTask> {
        let (checkpoints, least) = (shared.checkpoints.get()?, shared.settings.trim_least?);
        let trimmable = checkpoints.trimmable();
        if trimmable <= self.upto {
            return None;
        }
        self.upto = trimmable;
        let trim = ledger.trim(trimmable, least)?;
        let (tell, told) = channel();
        self.prepared = Some(told);
        Some(TrimTask { trim, tell })
    }
}

/// A trim to be prepared in parallel with writing. If dropped, it counts as impossible.
pub(super) struct TrimTask {
    trim: Trim,
    tell: Sender<Result<Option<Trimmed>>>,
}

impl TrimTask {
    pub(super) fn run(self) {
        let _ended = self.tell.send(self.trim.prepare());
    }
}
