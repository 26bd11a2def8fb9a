//! The progress of a start: first what was bound before is read again, then what the sources held when they
//! were first observed.
//!
//! ```text
//!   start ── epochs that were bound before ──▶ last_bound ── records that the sources held ──▶ ends first seen ── live ──▶
//!            newest epoch: not answered                      newest epoch: answered
//!            not ready                                       not ready                         ready, and stays so
//! ```
//!
//! Reads of the newest epoch are served from `last_bound` on: everything that was served before a crash was
//! bound, so readers never see the newest epoch go back. Readiness also waits for the ends, so that no
//! traffic reaches a service that has yet to read a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::position::{Offset, PartitionId, SourceId};
use crate::runtime::ProcessState;
use crate::source::{PartitionFacts, Topology};
use crate::time::Epoch;

/// Records left, by source; `None` if unknown, because the source has not been observed yet. Counted by
/// offsets, so gaps in a log count too.
pub type RemainingRecords = BTreeMap<String, Option<u64>>;

/// The progress of reading again what was bound before this start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// The newest closed epoch.
    pub closed: Option<Epoch>,
    /// The last epoch that was bound before this start.
    pub last_bound: Epoch,
    /// Records left until then.
    pub left: RemainingRecords,
}

/// When a service counts as caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// Once everything that the sources held when first observed is processed.
    ToFirstEnds,
    /// Once at most this many records of what the sources now hold are left.
    ToLag(u64),
}

/// The part of a partition up to a goal: the start of its log, and the goal.
type PartitionGoal = (Offset, Offset);

impl ProcessState {
    /// The progress of the recovery; `None` once it is complete.
    pub(super) fn recovering(&self) -> Option<RecoveryProgress> {
        let last_bound = Epoch(self.replay_to.load(Ordering::Acquire));
        let closed = self.views.closed().map(|snapshot| snapshot.epoch);
        (last_bound > Epoch::ZERO && closed < Some(last_bound)).then(|| RecoveryProgress {
            closed,
            last_bound,
            left: self.left(|source| Some(self.bound_before(source))),
        })
    }

    /// What remains until the service has caught up; `None` from then on, for good.
    pub(super) fn catching_up(&self, when: CaughtUp) -> Option<RemainingRecords> {
        if self.caught_up.load(Ordering::Acquire) {
            return None;
        }
        let first_ends = self.first_ends.lock();
        let left = self.left(|source| {
            let mut upto = self.bound_before(source);
            let ends = match when {
                CaughtUp::ToFirstEnds => first_ends.get(&source)?.clone(),
                CaughtUp::ToLag(_) => {
                    let partitions = self.partitions.lock();
                    let seen = partitions.get(self.name_of(source)?)?;
                    upto_ends(seen.iter().map(|seen| &seen.facts))
                }
            };
            for (partition, (start, end)) in ends {
                let (_, bound) = upto.get(&partition).copied().unwrap_or((start, end));
                upto.insert(partition, (start, end.max(bound)));
            }
            Some(upto)
        });
        drop(first_ends);
        let all: Option<u64> = left.values().copied().sum();
        let lag_max = match when {
            CaughtUp::ToFirstEnds => 0,
            CaughtUp::ToLag(max) => max,
        };
        let live = self.live.load(Ordering::Acquire) && self.recovering().is_none();
        if live && all.is_some_and(|all| all <= lag_max) {
            self.caught_up.store(true, Ordering::Release);
            return None;
        }
        Some(left)
    }

    /// Records what a source holds when it is first observed.
    pub(super) fn first_seen(&self, source: SourceId, topology: &Topology) {
        let ends = upto_ends(topology.partitions.iter());
        self.first_ends.lock().entry(source).or_insert(ends);
    }

    /// The bound ends of the partitions before this start.
    fn bound_before(&self, source: SourceId) -> BTreeMap<u32, PartitionGoal> {
        let of = |partition| PartitionId { source, partition };
        let bound = self.bound_before.get().into_iter();
        let bound = bound.flat_map(|bound| bound.range(of(0)..=of(u32::MAX)));
        bound.map(|(id, upto)| (id.partition, *upto)).collect()
    }

    fn name_of(&self, source: SourceId) -> Option<&str> {
        let planned = self.sources.iter().find(|planned| planned.rules.id == source);
        planned.map(|planned| planned.rules.name.as_str())
    }

    /// The number of records between the closed positions and `upto`, by source.
    fn left(&self, upto: impl Fn(SourceId) -> Option<BTreeMap<u32, PartitionGoal>>) -> RemainingRecords {
        // Before an epoch is closed: the positions of the checkpoint.
        let positions: BTreeMap<PartitionId, Offset> = match self.views.closed() {
            Some(snapshot) => snapshot.positions.iter().copied().collect(),
            None => self
                .bound
                .lock()
                .iter()
                .map(|(id, range)| (*id, range.hi))
                .collect(),
        };
        let of = |source: SourceId| -> Option<u64> {
            let left = |(partition, (start, upto)): (u32, PartitionGoal)| {
                let position = positions.get(&PartitionId { source, partition });
                upto.saturating_sub(position.copied().unwrap_or(start))
                    .max(0)
                    .unsigned_abs()
            };
            Some(upto(source)?.into_iter().map(left).sum())
        };
        let sources = self.sources.iter();
        sources
            .map(|planned| (planned.rules.name.clone(), of(planned.rules.id)))
            .collect()
    }
}

fn upto_ends<'a>(facts: impl Iterator<Item = &'a PartitionFacts>) -> BTreeMap<u32, PartitionGoal> {
    let upto = |facts: &PartitionFacts| (facts.partition, (facts.start, facts.end));
    facts.map(upto).collect()
}

/// Returns the progress of the recovery.
pub(super) fn status_fn(
    shared: &Arc<ProcessState>,
) -> impl Fn() -> Option<RecoveryProgress> + Send + Sync + 'static {
    let shared = shared.clone();
    move || shared.recovering()
}
