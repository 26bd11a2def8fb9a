//! The thread that makes bindings durable: everything that waits goes into one write and one sync.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::clock;
use crate::ledger::LedgerStore;
use crate::position::EpochBinding;
use crate::runtime::Shared;

/// Ends when the sequencer has ended, or at a halt.
pub(super) fn write(shared: &Shared, mut ledger: Box<dyn LedgerStore>, bindings: &Receiver<Arc<EpochBinding>>) {
    loop {
        let first = match bindings.recv_timeout(Duration::from_millis(100)) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) if shared.halt.is_halted() => return,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let group: Vec<EpochBinding> =
            std::iter::once(first).chain(bindings.try_iter()).map(|binding| (*binding).clone()).collect();
        let begun = clock::instant();
        if let Err(error) = ledger.append(&group) {
            shared.halt.halt(error);
            return;
        }
        shared.metrics.ledger.append.observe((clock::instant() - begun).as_secs_f64());
        shared.metrics.ledger.bytes.set(i64::try_from(ledger.len_bytes()).unwrap_or(i64::MAX));
        if let Some(last) = group.last() {
            shared.inbox.durable(last.epoch);
        }
    }
}
