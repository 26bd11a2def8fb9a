//! What makes bindings durable: everything that waits goes into one write and one sync.
//!
//! ```text
//!   sequencer ── bindings ──▶ group ── append, sync ──▶ inbox.durable(last) ──▶ trim? ── Preparing, on any thread ──▶ adopt
//! ```
//!
//! A [`Scribe`] takes one step at a time; a thread of a service does nothing but have it do so.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use crate::clock;
use crate::error::Result;
use crate::fault;
use crate::ledger::{LedgerStore, Trim, Trimmed};
use crate::position::EpochBinding;
use crate::runtime::Shared;
use crate::time::Epoch;

/// Writes the ledger of this process.
pub(super) struct Scribe {
    ledger: Box<dyn LedgerStore>,
    bindings: Receiver<Arc<EpochBinding>>,
    trimmer: Trimmer,
}

impl Scribe {
    pub(super) fn new(ledger: Box<dyn LedgerStore>, bindings: Receiver<Arc<EpochBinding>>) -> Self {
        Self {
            ledger,
            bindings,
            trimmer: Trimmer::default(),
        }
    }

    /// Ends when the sequencer has: at the end of the control dataflow, which a halt drops.
    pub(super) fn run(mut self, shared: &Shared) {
        while let Ok(first) = self.bindings.recv() {
            match self.write(shared, first) {
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
        match self.bindings.try_recv() {
            Ok(first) => self.write(shared, first),
            Err(_) => Ok(None),
        }
    }

    /// Makes `first` and all that waits behind it durable, and tells so. What is to be prepared next, if anything.
    ///
    /// # Errors
    /// Those of the ledger: nothing more can be written.
    fn write(&mut self, shared: &Shared, first: Arc<EpochBinding>) -> Result<Option<Preparing>> {
        let group: Vec<EpochBinding> = std::iter::once(first)
            .chain(self.bindings.try_iter())
            .map(|binding| (*binding).clone())
            .collect();
        let ledger = &mut *self.ledger;
        let begun = clock::instant();
        append(shared, ledger, &group)?;
        let metrics = &shared.metrics.ledger;
        metrics.append.observe((clock::instant() - begun).as_secs_f64());
        fault::point("binding.durable");
        if let Some(last) = group.last() {
            shared.inbox.durable(last.epoch);
        }
        fault::point("binding.told");
        let preparing = self.trimmer.turn(shared, ledger)?;
        let bytes = i64::try_from(ledger.len_bytes()).unwrap_or(i64::MAX);
        metrics.bytes.set(bytes);
        Ok(preparing)
    }
}

/// A checkpoint carries the hash chain behind its own epoch, so a group ends there.
fn append(shared: &Shared, ledger: &mut dyn LedgerStore, group: &[EpochBinding]) -> Result<()> {
    let Some(checkpoints) = &shared.checkpoints else {
        return ledger.append(group);
    };
    let at = group.iter().position(|binding| checkpoints.is_at(binding.epoch));
    let (upto, rest) = group.split_at(at.map_or(0, |at| at + 1));
    if !upto.is_empty() {
        ledger.append(upto)?;
        checkpoints.chain(ledger.chain_hash().to_string());
        fault::point("checkpoint.chained");
    }
    ledger.append(rest)
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
                    tracing::debug!(%upto, bytes, "the ledger was trimmed");
                }
            }
            Err(error) => tracing::warn!("the ledger can't be trimmed, and grows on: {error}"),
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
