//! Per-epoch result hashes, recorded in the ledger and verified on replay.
//!
//! ```text
//!   every process: epoch closed ── hash of each view's changes ──▶ summed up ─┬─ the ledger has it ─▶ compared
//!                                                                             └─ it has not ────────▶ in the next binding
//!   bindings of earlier runs ── results of epochs before them ──▶ expected ───▶ compared
//! ```
//!
//! Recording costs no extra write, and the hash chain covers it. The last few epochs before a stop have no
//! result in the ledger. Operators between views are not hashed: a difference shows in the first view
//! downstream. A restore needs no record either: a single process chooses the checkpoint, and the lineage
//! identifies it.
//!
//! Results are comparable within one [lineage](Results::lineage): the same program on the same state. After a
//! compacted topic was read, nothing is compared, because superseded records may be gone when it is read
//! again.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::position::{EpochBinding, Results};
use crate::sequencer::Sequencer;
use crate::time::Epoch;

/// Whose results are compared, and what happens on a difference.
#[derive(Clone, Debug)]
pub struct ResultRules {
    /// The lineage of this run's results.
    pub lineage: u64,
    /// Whether results of other lineages are compared as well.
    pub any_lineage: bool,
    /// The names of the views.
    pub views: Vec<String>,
    /// The number of processes that report each epoch.
    pub processes: usize,
    /// Whether a difference is an error; otherwise it is logged once.
    pub halts: bool,
}

/// The outcome so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComparisonReport {
    /// Number of replayed epochs with equal results.
    pub alike: u64,
    /// Number of replayed epochs with different results.
    pub different: u64,
    /// Number of epochs for which the ledger has no result, or none yet.
    pub unknown: u64,
    /// Whether a compacted topic was read: nothing is compared from there on.
    pub gave_up: bool,
}

impl ComparisonReport {
    /// The total number of replayed epochs.
    pub fn replayed(&self) -> u64 {
        self.alike + self.different + self.unknown
    }
}

/// Maximum number of epochs recorded in one binding.
const RECORDED_MAX: usize = 1 << 10;
/// Maximum number of results that wait to be recorded or compared; older ones are dropped.
const WAITING_MAX: usize = 1 << 16;

/// The state of it.
#[derive(Debug, Default)]
pub(super) struct ResultLog {
    rules: Option<ResultRules>,
    /// Epochs up to here are not computed by this run.
    restored: Epoch,
    /// The number of processes that have reported, and the sums.
    partial: BTreeMap<Epoch, (usize, Vec<u64>)>,
    /// Computed, but not yet compared or recorded.
    computed: BTreeMap<Epoch, Vec<u64>>,
    /// As recorded in the ledger.
    expected: BTreeMap<Epoch, Vec<u64>>,
    compared: ComparisonReport,
}

impl ResultLog {
    pub(super) fn new(rules: Option<ResultRules>) -> Self {
        Self {
            rules,
            ..Self::default()
        }
    }

    /// Stops comparing and recording.
    pub(super) fn give_up(&mut self) {
        *self = Self {
            compared: ComparisonReport {
                gave_up: true,
                ..self.compared()
            },
            ..Self::default()
        };
    }

    /// Sets the epoch that the state was restored as of.
    pub(super) fn restored(&mut self, epoch: Epoch) {
        self.restored = epoch;
    }

    pub(super) fn compared(&self) -> ComparisonReport {
        let unknown = self.compared.unknown + self.computed.len() as u64;
        ComparisonReport {
            unknown,
            ..self.compared
        }
    }

    /// Handles results that an earlier run recorded.
    pub(super) fn expect(&mut self, results: &Results) -> Result<()> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        if !rules.any_lineage && results.lineage != rules.lineage {
            return Ok(());
        }
        for (epoch, hashes) in &results.epochs {
            if *epoch <= self.restored {
                continue;
            }
            match self.computed.remove(epoch) {
                Some(computed) => self.compare(*epoch, hashes, &computed)?,
                None => _ = self.expected.insert(*epoch, hashes.clone()),
            }
        }
        Ok(())
    }

    /// Handles the results of a process's views in an epoch.
    pub(super) fn report(&mut self, epoch: Epoch, hashes: &[u64]) -> Result<()> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        let processes = rules.processes;
        let (reported, sums) = self
            .partial
            .entry(epoch)
            .or_insert_with(|| (0, vec![0; hashes.len()]));
        *reported += 1;
        for (sum, hash) in sums.iter_mut().zip(hashes) {
            *sum = sum.wrapping_add(*hash);
        }
        if *reported < processes {
            return Ok(());
        }
        let Some((_, sums)) = self.partial.remove(&epoch) else {
            return Ok(());
        };
        match self.expected.remove(&epoch) {
            Some(expected) => self.compare(epoch, &expected, &sums)?,
            None => _ = self.computed.insert(epoch, sums),
        }
        if self.computed.len() > WAITING_MAX {
            self.computed.pop_first();
        }
        Ok(())
    }

    /// Takes the results to record in the next binding.
    pub(super) fn take(&mut self) -> Option<Results> {
        let lineage = self.rules.as_ref()?.lineage;
        let count = self.computed.len().min(RECORDED_MAX);
        let epochs: Vec<_> = std::iter::from_fn(|| self.computed.pop_first())
            .take(count)
            .collect();
        (!epochs.is_empty()).then_some(Results { lineage, epochs })
    }

    fn compare(&mut self, epoch: Epoch, recorded: &[u64], computed: &[u64]) -> Result<()> {
        if recorded == computed {
            self.compared.alike += 1;
            return Ok(());
        }
        self.compared.different += 1;
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        let error = difference(rules, epoch, recorded, computed);
        if rules.halts {
            return Err(error);
        }
        if self.compared.different == 1 {
            tracing::warn!(%error, "replay computed different results");
        }
        Ok(())
    }
}

impl Sequencer {
    /// Handles the results of earlier epochs in a binding.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity): an epoch has a different result now.
    pub fn expect(&mut self, binding: &EpochBinding) -> Result<()> {
        if binding.ranges.iter().any(|range| range.compacted) {
            self.outcomes.give_up();
        }
        match &binding.results {
            Some(results) => self.outcomes.expect(results),
            None => Ok(()),
        }
    }

    /// The number of epochs with equal and with different results.
    pub fn compared(&self) -> ComparisonReport {
        self.outcomes.compared()
    }
}

fn difference(rules: &ResultRules, epoch: Epoch, recorded: &[u64], computed: &[u64]) -> Error {
    let what = format!(
        "epoch {epoch} ({}) has a different result than when it was first computed",
        epoch.opened_at()
    );
    let error = Error::integrity(what);
    if recorded.len() != computed.len() {
        return error.detail(format!(
            "there were {} views, now there are {}",
            recorded.len(),
            computed.len()
        ));
    }
    let each = rules.views.iter().zip(recorded.iter().zip(computed));
    let error = each
        .filter(|(_, (then, now))| then != now)
        .fold(error, |error, (view, (then, now))| {
            error.detail(format!(
                "view `{view}`: its changes had the hash {then:016x}, now {now:016x}"
            ))
        });
    error.hint(
        "a step upstream of these views is not deterministic: look for a clock, a random number, the \
         order of a HashMap, or I/O; `thalweg verify` replays epochs. To start anyway: --set \
         replay.on_difference=warn",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(processes: usize) -> ResultLog {
        ResultLog::new(Some(ResultRules {
            lineage: 7,
            any_lineage: false,
            views: vec!["a".into(), "b".into()],
            processes,
            halts: true,
        }))
    }

    fn recorded(lineage: u64, epochs: &[(u64, [u64; 2])]) -> Results {
        let epochs = epochs.iter().map(|(e, h)| (Epoch(*e), h.to_vec())).collect();
        Results { lineage, epochs }
    }

    #[test]
    fn what_is_computed_is_recorded_once_all_processes_have_reported() {
        let mut outcomes = outcomes(2);
        outcomes.report(Epoch(1), &[u64::MAX, 5]).unwrap();
        assert_eq!(outcomes.take(), None);
        outcomes.report(Epoch(2), &[1, 1]).unwrap();
        outcomes.report(Epoch(1), &[2, 6]).unwrap();
        assert_eq!(outcomes.take(), Some(recorded(7, &[(1, [1, 11])])));
        assert_eq!(outcomes.take(), None);
    }

    #[test]
    fn a_difference_is_found_whichever_comes_first() {
        let then = recorded(7, &[(1, [1, 2]), (2, [3, 4])]);
        let mut outcomes = outcomes(1);
        outcomes.report(Epoch(1), &[1, 2]).unwrap();
        outcomes.expect(&then).unwrap();
        let error = outcomes.report(Epoch(2), &[3, 5]).unwrap_err().to_string();
        assert!(
            error.contains("epoch 2 ") && error.contains("view `b`"),
            "{error}"
        );
        assert!(!error.contains("view `a`"), "{error}");
        assert_eq!((outcomes.compared().alike, outcomes.compared().different), (1, 1));
        let mut outcomes = self::outcomes(1);
        outcomes.report(Epoch(1), &[0, 2]).unwrap();
        let error = outcomes.expect(&then).unwrap_err().to_string();
        assert!(
            error.contains("epoch 1 ") && error.contains("view `a`"),
            "{error}"
        );
    }

    #[test]
    fn another_lineage_is_not_compared_and_results_are_recorded_beside_it() {
        let mut outcomes = outcomes(1);
        outcomes.expect(&recorded(8, &[(1, [1, 2])])).unwrap();
        outcomes.report(Epoch(1), &[9, 9]).unwrap();
        assert_eq!((outcomes.compared().alike, outcomes.compared().unknown), (0, 1));
        assert_eq!(outcomes.take(), Some(recorded(7, &[(1, [9, 9])])));
    }

    #[test]
    fn what_a_checkpoint_holds_is_not_expected() {
        let mut outcomes = outcomes(1);
        outcomes.restored(Epoch(3));
        outcomes
            .expect(&recorded(7, &[(3, [1, 2]), (4, [1, 2])]))
            .unwrap();
        outcomes.report(Epoch(4), &[1, 2]).unwrap();
        assert_eq!(outcomes.compared().alike, 1);
        assert!(outcomes.expected.is_empty());
    }

    #[test]
    fn many_wait_for_several_bindings_and_not_for_ever() {
        let mut outcomes = outcomes(1);
        for epoch in 1..=WAITING_MAX as u64 + 9 {
            outcomes.report(Epoch(epoch), &[epoch, 0]).unwrap();
        }
        let first = outcomes.take().unwrap();
        assert_eq!((first.epochs.len(), first.epochs[0].0), (RECORDED_MAX, Epoch(10)));
        assert_eq!(
            outcomes.take().unwrap().epochs[0].0,
            Epoch(10 + RECORDED_MAX as u64)
        );
    }
}
