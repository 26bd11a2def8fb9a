//! An in-memory ledger for tests: the same claims, links and chain, but nothing durable.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock;
use crate::error::{Error, Result};
use crate::ledger::progress::ShardProgress;
use crate::ledger::record::{Chain, Claim, ClaimRecord, RecordKind, encode_binding};
use crate::ledger::state::LedgerState;
use crate::ledger::{Bindings, LedgerStore, Recovered};
use crate::position::EpochBinding;

/// The log of a [`MemoryLedger`]. Clones share it; like a directory, it outlives its owners.
#[derive(Clone, Default)]
pub struct MemoryLog(Arc<Mutex<MemoryLogState>>);

#[derive(Clone, Default)]
struct MemoryLogState {
    bindings: Vec<(EpochBinding, Chain)>,
    state: LedgerState,
    claims: Vec<ClaimRecord>,
    progress: Vec<ShardProgress>,
    bytes: u64,
}

impl MemoryLogState {
    fn chain(&self) -> Chain {
        self.bindings.last().map_or(Chain([0; 32]), |(_, chain)| *chain)
    }
}

impl MemoryLog {
    /// An independent log with the same bindings, like a copied directory.
    pub fn copy(&self) -> Self {
        let kept = self.0.lock().clone();
        Self(Arc::new(Mutex::new(kept)))
    }

    /// All bindings so far.
    pub fn bindings(&self) -> Vec<EpochBinding> {
        self.0
            .lock()
            .bindings
            .iter()
            .map(|(binding, _)| binding.clone())
            .collect()
    }
}

impl MemoryLog {
    /// All recorded sink progress, in order.
    pub fn progress(&self) -> Vec<ShardProgress> {
        self.0.lock().progress.clone()
    }

    /// Removes the progress for which `keep` returns false, as if it had never been written.
    pub fn retain_progress(&self, keep: impl Fn(&ShardProgress) -> bool) {
        let MemoryLogState { progress, state, .. } = &mut *self.0.lock();
        progress.retain(keep);
        state.forget_progress();
        progress.iter().for_each(|progress| state.note_progress(progress));
    }
}

/// An in-memory ledger, owned until the next one is opened on the same [`MemoryLog`].
#[derive(Debug)]
pub struct MemoryLedger {
    log: MemoryLog,
    generation: u64,
}

impl std::fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryLog({} bindings)", self.0.lock().bindings.len())
    }
}

impl MemoryLedger {
    /// Takes the log over.
    pub fn open(log: &MemoryLog, claim: Claim) -> Result<(Self, Recovered)> {
        let mut kept = log.0.lock();
        let previous = kept.claims.last().cloned();
        if let Some(before) = previous.as_ref().map(|p| &p.claim)
            && (&before.app, &before.dataflow) != (&claim.app, &claim.dataflow)
        {
            return Err(
                Error::definition("the ledger belongs to another dataflow").detail(format!(
                    "it is the ledger of app `{}`, dataflow `{}`; this is app `{}`, dataflow `{}`",
                    before.app, before.dataflow, claim.app, claim.dataflow
                )),
            );
        }
        let generation = previous.as_ref().map_or(0, |p| p.generation) + 1;
        let (nonce, time_us, end) = (clock::nonce(), clock::now_micros(), kept.bytes);
        let chain = kept.chain().mark();
        kept.claims.push(ClaimRecord {
            generation,
            nonce,
            time_us,
            end,
            chain,
            claim,
        });
        let (state, last) = (kept.state.clone(), kept.state.last());
        let bindings = Bindings::new(kept.bindings.clone().into_iter().map(Ok));
        let recovered = Recovered {
            made_us: kept.claims.first().map_or(0, |first| first.time_us),
            generation,
            nonce,
            previous,
            state,
            last,
            trimmed: None,
            bindings,
            notes: Vec::new(),
        };
        Ok((
            Self {
                log: log.clone(),
                generation,
            },
            recovered,
        ))
    }
}

impl LedgerStore for MemoryLedger {
    fn append_group(&mut self, bindings: &[EpochBinding], progress: &[ShardProgress]) -> Result<()> {
        let mut kept = self.log.0.lock();
        let newest = kept
            .claims
            .last()
            .filter(|claim| claim.generation != self.generation);
        if let Some(newest) = newest {
            return Err(Error::integrity(
                "fenced: another process has taken over the \
                    ledger",
            )
            .detail(newest.describe()));
        }
        for binding in bindings {
            kept.state.apply(binding)?;
            let mut bytes = Vec::new();
            encode_binding(binding, &mut bytes);
            let chain = kept.chain().then(RecordKind::Binding, &bytes);
            kept.bytes += bytes.len() as u64;
            kept.bindings.push((binding.clone(), chain));
        }
        for progress in progress {
            kept.state.note_progress(progress);
            kept.progress.push(progress.clone());
        }
        Ok(())
    }

    fn len_bytes(&self) -> u64 {
        self.log.0.lock().bytes
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn chain_hash(&self) -> Chain {
        self.log.0.lock().chain()
    }
}
