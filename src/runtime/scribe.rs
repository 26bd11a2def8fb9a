//! What makes bindings durable: everything that waits goes into one write and one sync.
//!
//! ```text
//!   sequencer ── bindings ──┐
//!   sink tasks ── progress ─┴▶ group ── append, sync ──▶ inbox.durable(last) ──▶ trim? ── Preparing, on any thread ──▶ adopt
//! ```
//!
//! A [`Scribe`] takes one step at a time; a thread of a service does nothing but have it do so.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use crate::clock;
use crate::error::Result;
use crate::fault;
use crate::ledger::{LedgerStore, ShardProgress, Trim, Trimmed};
use crate::position::EpochBinding;
use crate::runtime::Shared;
use crate::sink::progress::{Durable, ProgressLog};
use crate::time::Epoch;

/// Progress is written alone when no binding has come for so long.
const ALONE_AFTER: Duration = Duration::from_millis(10);

/// What is to be written.
pub(super) enum Entry {
    Binding(Arc<EpochBinding>),
    /// How far a shard of a sink has come, and who is to be told when that is durable.
    Progress(ShardProgress, Durable),
}

/// Where sinks write down how far they have come.
pub(super) struct ToScribe(pub Sender<Entry>);

impl ProgressLog for ToScribe {
    fn record(&self, progress: ShardProgress, durable: Durable) {
        // The scribe only ends before the sinks after a halt.
        let _halted = self.0.send(Entry::Progress(progress, durable));
    }
}

/// Writes the ledger of this process.
pub(super) struct Scribe {
    ledger: Box<dyn LedgerStore>,
    entries: Receiver<Entry>,
    trimmer: Trimmer,
}

impl Scribe {
    pub(super) fn new(ledger: Box<dyn LedgerStore>, entries: Receiver<Entry>) -> Self {
        Self {
            ledger,
            entries,
            trimmer: Trimmer::default(),
        }
    }

    /// Ends when the sequencer has, at the end of the control dataflow, which a halt drops, and all sinks.
    pub(super) fn run(mut self, shared: &Shared) {
        while let Ok(first) = self.entries.recv() {
            let waiting = self.gather(first);
            match self.write(shared, waiting) {
                Ok(None) => {}
                // It reads all that is to go, which must keep nobody waiting who writes.
                Ok(Some(preparing)) => {
                    let thread = std::thread::Builder::new().name("trim".into());
                    let _begun = thread.spawn(move || preparing.run());
                }
                Err(error) => return shared.halt.halt(error),
            }
        }
    }

    /// As [`run`](Self::run), once and without waiting; nothing where nothing waits.
    #[cfg(test)]
    pub(super) fn step(&mut self, shared: &Shared) -> Result<Option<Preparing>> {
        match self.entries.try_recv() {
            Ok(first) => self.write(shared, vec![first]),
            Err(_) => Ok(None),
        }
    }

    /// Nothing of the flow waits for progress to be durable, so it waits for a binding to be written with:
    /// alone it would have the next one wait for a sync of its own.
    fn gather(&self, first: Entry) -> Vec<Entry> {
        let (mut waiting, begun) = (vec![first], clock::instant());
        while let Some(Entry::Progress(..)) = waiting.last() {
            let left = ALONE_AFTER.saturating_sub(clock::instant() - begun);
            match self.entries.recv_timeout(left) {
                Ok(next) => waiting.push(next),
                Err(_) => break,
            }
        }
        waiting
    }

    /// Makes what waits durable, with all that waits behind it, and tells so. What is to be prepared next, if
    /// anything.
    ///
    /// # Errors
    /// Those of the ledger: nothing more can be written.
    fn write(&mut self, shared: &Shared, waiting: Vec<Entry>) -> Result<Option<Preparing>> {
        let (mut group, mut progress, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for entry in waiting.into_iter().chain(self.entries.try_iter()) {
            match entry {
                Entry::Binding(binding) => group.push((*binding).clone()),
                Entry::Progress(reached, durable) => {
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

/// A checkpoint carries the hash chain behind its own epoch, so a group ends there.
fn append(
    shared: &Shared,
    ledger: &mut dyn LedgerStore,
    group: &[EpochBinding],
    progress: &[ShardProgress],
) -> Result<()> {
    let Some(checkpoints) = &shared.checkpoints else {
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

/// Lets go of the ledger's beginning as checkpoints need no more of it.
#[derive(Default)]
struct Trimmer {
    /// Up to here was tried.
    upto: Epoch,
    prepared: Option<Receiver<Result<Option<Trimmed>>>>,
}

impl Trimmer {
    fn turn(&mut self, shared: &Shared, ledger: &mut dyn LedgerStore) -> Result<Option<Preparing>> {
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

    fn begin(&mut self, shared: &Shared, ledger: &dyn LedgerStore) -> Option<Preparing> {
        let (checkpoints, least) = (shared.checkpoints.as_ref()?, shared.settings.trim_least?);
        let unneeded = checkpoints.unneeded();
        if unneeded <= self.upto {
            return None;
        }
        self.upto = unneeded;
        let trim = ledger.trim(unneeded, least)?;
        let (tell, told) = channel();
        self.prepared = Some(told);
        Some(Preparing { trim, tell })
    }
}

/// A trim that is to be made ready beside the writing. Dropped, it counts as one that can't be made.
pub(super) struct Preparing {
    trim: Trim,
    tell: Sender<Result<Option<Trimmed>>>,
}

impl Preparing {
    pub(super) fn run(self) {
        let _ended = self.tell.send(self.trim.prepare());
    }
}
