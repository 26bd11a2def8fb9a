//! The thread that makes bindings durable: everything that waits goes into one write and one sync.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use crate::clock;
use crate::error::Result;
use crate::ledger::LedgerStore;
use crate::position::EpochBinding;
use crate::runtime::Shared;

/// Ends when the sequencer has: at the end of the control dataflow, which a halt drops.
pub(super) fn write(
    shared: &Shared,
    mut ledger: Box<dyn LedgerStore>,
    bindings: &Receiver<Arc<EpochBinding>>,
) {
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
        shared
            .metrics
            .ledger
            .bytes
            .set(i64::try_from(ledger.len_bytes()).unwrap_or(i64::MAX));
        if let Some(last) = group.last() {
            shared.inbox.durable(last.epoch);
        }
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
