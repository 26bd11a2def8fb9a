//! The thread that makes bindings durable: everything that waits goes into one write and one sync.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::clock;
use crate::error::Result;
use crate::ledger::{LedgerStore, Trimmed};
use crate::position::EpochBinding;
use crate::runtime::Shared;
use crate::time::Epoch;

/// Ends when the sequencer has: at the end of the control dataflow, which a halt drops.
pub(super) fn write(
    shared: &Shared,
    mut ledger: Box<dyn LedgerStore>,
    bindings: &Receiver<Arc<EpochBinding>>,
) {
    let mut trimmer = Trimmer::default();
    while let Ok(first) = bindings.recv() {
        let group: Vec<EpochBinding> = std::iter::once(first)
            .chain(bindings.try_iter())
            .map(|binding| (*binding).clone())
            .collect();
        let begun = clock::instant();
        if let Err(error) = append(shared, &mut *ledger, &group) {
            shared.halt.halt(error);
            return;
        }
        shared
            .metrics
            .ledger
            .append
            .observe((clock::instant() - begun).as_secs_f64());
        if let Some(last) = group.last() {
            shared.inbox.durable(last.epoch);
        }
        if let Err(error) = trimmer.turn(shared, &mut *ledger) {
            shared.halt.halt(error);
            return;
        }
        shared
            .metrics
            .ledger
            .bytes
            .set(i64::try_from(ledger.len_bytes()).unwrap_or(i64::MAX));
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
    fn turn(&mut self, shared: &Shared, ledger: &mut dyn LedgerStore) -> Result<()> {
        let Some(prepared) = &self.prepared else {
            self.begin(shared, ledger);
            return Ok(());
        };
        let prepared = match prepared.try_recv() {
            Err(TryRecvError::Empty) => return Ok(()),
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
        Ok(())
    }

    fn begin(&mut self, shared: &Shared, ledger: &dyn LedgerStore) {
        let (Some(checkpoints), Some(least)) = (&shared.checkpoints, shared.settings.trim_least) else {
            return;
        };
        let unneeded = checkpoints.unneeded();
        if unneeded <= self.upto {
            return;
        }
        self.upto = unneeded;
        let Some(trim) = ledger.trim(unneeded, least) else {
            return;
        };
        // It reads all that is to go, which must keep nobody waiting who writes.
        let (tell, told) = channel();
        let thread = std::thread::Builder::new().name("trim".into());
        let begun = thread.spawn(move || {
            let _ended = tell.send(trim.prepare());
        });
        if begun.is_ok() {
            self.prepared = Some(told);
        }
    }
}
