//! How far a start has come: what was bound before it is read again, then what the sources held when they
//! were first seen.
//!
//! ```text
//!   start ── epochs that were bound before ──▶ last_bound ── records that the sources held ──▶ ends first seen ── live ──▶
//!            newest epoch: not answered                      newest epoch: answered
//!            not ready                                       not ready                         ready, and stays so
//! ```
//!
//! Answers as of the newest epoch begin at `last_bound`: whatever was answered before a crash was bound, so
//! no reader sees the newest epoch go back. Readiness waits for the ends as well, so that nobody is sent to a
//! service that has a topic still to read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::position::{Offset, PartitionId, SourceId};
use crate::runtime::Shared;
use crate::source::{PartitionFacts, Topology};
use crate::time::Epoch;

/// Records that are left, by source; `None`: nobody knows, as the source has not been seen yet. Counted by
/// offsets, so holes in a log count too.
pub type Left = BTreeMap<String, Option<u64>>;

/// What was bound before this start is being read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovering {
    /// The newest closed epoch.
    pub closed: Option<Epoch>,
    /// The last epoch that was bound before this start.
    pub last_bound: Epoch,
    /// Records that are left up to it.
    pub left: Left,
}

/// When a service has caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// When everything is counted that the sources held when they were first seen.
    ToFirstEnds,
    /// When no more records than these are left, of what the sources hold by then.
    ToLag(u64),
}

/// A partition up to somewhere: where its log begins, and where that is.
type Upto = (Offset, Offset);

impl Shared {
    /// Where the recovery of what was bound before stands; `None` once it is over.
    pub(super) fn recovering(&self) -> Option<Recovering> {
        let last_bound = Epoch(self.replay_to.load(Ordering::Acquire));
        let closed = self.views.closed().map(|moment| moment.epoch);
        (last_bound > Epoch::ZERO && closed < Some(last_bound)).then(|| Recovering {
            closed,
            last_bound,
            left: self.left(|source| Some(self.bound_before(source))),
        })
    }

    /// What is left until the service has caught up; `None` from the moment on at which it has, for good.
    pub(super) fn catching_up(&self, when: CaughtUp) -> Option<Left> {
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

    /// Takes note of what a source holds when it is first seen.
    pub(super) fn first_seen(&self, source: SourceId, topology: &Topology) {
        let ends = upto_ends(topology.partitions.iter());
        self.first_ends.lock().entry(source).or_insert(ends);
    }

    /// How far the partitions of a source were bound before this start.
    fn bound_before(&self, source: SourceId) -> BTreeMap<u32, Upto> {
        let of = |partition| PartitionId { source, partition };
        let bound = self.bound_before.range(of(0)..=of(u32::MAX));
        bound.map(|(id, upto)| (id.partition, *upto)).collect()
    }

    fn name_of(&self, source: SourceId) -> Option<&str> {
        let planned = self.sources.iter().find(|planned| planned.rules.id == source);
        planned.map(|planned| planned.rules.name.as_str())
    }

    /// How many records lie between what is closed and where `upto` says, by source.
    fn left(&self, upto: impl Fn(SourceId) -> Option<BTreeMap<u32, Upto>>) -> Left {
        // Before an epoch is closed, what a checkpoint holds.
        let positions: BTreeMap<PartitionId, Offset> = match self.views.closed() {
            Some(moment) => moment.positions.iter().copied().collect(),
            None => self
                .bound
                .lock()
                .iter()
                .map(|(id, range)| (*id, range.hi))
                .collect(),
        };
        let of = |source: SourceId| -> Option<u64> {
            let left = |(partition, (start, upto)): (u32, Upto)| {
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

fn upto_ends<'a>(facts: impl Iterator<Item = &'a PartitionFacts>) -> BTreeMap<u32, Upto> {
    let upto = |facts: &PartitionFacts| (facts.partition, (facts.start, facts.end));
    facts.map(upto).collect()
}

/// Tells where the recovery stands.
pub(super) fn teller(shared: &Arc<Shared>) -> impl Fn() -> Option<Recovering> + Send + Sync + 'static {
    let shared = shared.clone();
    move || shared.recovering()
}
