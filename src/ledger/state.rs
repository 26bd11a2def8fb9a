//! The fold of the ledger's bindings: the position of every partition, every source's watermark, topics,
//! schemas.
//!
//! ```text
//!   state ── apply(binding n+1) ──▶ state'       refused, and the state unchanged, when the binding does not link on:
//!                                                 epoch higher · lo = last hi · watermarks never back · same topic
//! ```
//!
//! A pure fold without I/O: the ledger uses it when it opens and before it writes, the sequencer to track its
//! position.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ledger::progress::ShardProgress;
use crate::position::{EpochBinding, Offset, PartitionId, PartitionRange, SchemaSeen, SourceId, TopicId};
use crate::time::{Epoch, EventTime};

/// One partition as of the last epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The first offset that was ever bound, or the one from which a start reads: see
    /// [`LedgerState::begin_at`].
    pub first: Offset,
    /// The end of the bound offsets.
    pub hi: Offset,
    /// The highest valid event time bound, [`EventTime::MIN`] if there was none.
    pub event_time_max: EventTime,
    /// Whether it is idle.
    pub idle: bool,
    /// Number of records bound.
    pub records: u64,
}

/// One source as of the last epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    /// The topic's id, once bound.
    pub topic: Option<TopicId>,
    /// The watermark, [`EventTime::MIN`] until one is bound.
    pub watermark: EventTime,
    /// Whether all of it is idle.
    pub idle: bool,
    /// Its partitions.
    pub partitions: BTreeMap<u32, PartitionState>,
    /// Schema ids seen, with the fingerprint of their text; `None` if the registry did not know the id.
    pub schemas: BTreeMap<u32, Option<u64>>,
    /// By schema id and partition: the offset from which an id that was unknown is known, and its
    /// fingerprint. Encoded by `ledger/record.rs` itself, after the rest.
    #[serde(skip)]
    pub schemas_since: BTreeMap<(u32, u32), (Offset, u64)>,
}

impl Default for SourceState {
    fn default() -> Self {
        let (partitions, schemas) = (BTreeMap::new(), BTreeMap::new());
        Self {
            topic: None,
            watermark: EventTime::MIN,
            idle: false,
            partitions,
            schemas,
            schemas_since: BTreeMap::new(),
        }
    }
}

/// The fold of all bindings up to an epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerState {
    last: Option<Epoch>,
    sources: BTreeMap<SourceId, SourceState>,
    /// The progress of each sink's shards. Encoded by `ledger/record.rs` itself, after the rest.
    #[serde(skip)]
    sinks: BTreeMap<String, Vec<Option<ShardProgress>>>,
}

impl LedgerState {
    /// The last epoch applied.
    pub fn last(&self) -> Option<Epoch> {
        self.last
    }

    /// Every source that occurs in a binding.
    pub fn sources(&self) -> &BTreeMap<SourceId, SourceState> {
        &self.sources
    }

    /// One source.
    pub fn source(&self, source: SourceId) -> Option<&SourceState> {
        self.sources.get(&source)
    }

    /// One partition.
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionState> {
        self.sources.get(&id.source)?.partitions.get(&id.partition)
    }

    /// The progress of a sink's shards; `None` if the ledger has never recorded any.
    pub fn sink(&self, name: &str) -> Option<&[Option<ShardProgress>]> {
        self.sinks.get(name).map(Vec::as_slice)
    }

    /// The progress of all shards of all sinks.
    pub fn progress(&self) -> Vec<ShardProgress> {
        self.sinks.values().flatten().flatten().cloned().collect()
    }

    /// Records a shard's progress. A different number of shards denotes another sink of this name.
    pub(super) fn note_progress(&mut self, progress: &ShardProgress) {
        let shards = self.sinks.entry(progress.sink.clone()).or_default();
        if shards.len() != progress.of as usize {
            *shards = vec![None; progress.of as usize];
        }
        if let Some(shard) = shards.get_mut(progress.shard as usize)
            && shard
                .as_ref()
                .is_none_or(|known| known.complete < progress.complete)
        {
            *shard = Some(progress.clone());
        }
    }

    pub(super) fn forget_progress(&mut self) {
        self.sinks.clear();
    }

    /// The watermark of a source, [`EventTime::MIN`] if none is bound.
    pub fn watermark(&self, source: SourceId) -> EventTime {
        self.sources.get(&source).map_or(EventTime::MIN, |s| s.watermark)
    }

    /// Sets the offsets from which a start reads these partitions: earlier ones are covered by a checkpoint.
    pub fn begin_at(&mut self, positions: impl IntoIterator<Item = (PartitionId, Offset)>) {
        for (id, offset) in positions {
            let source = self.sources.get_mut(&id.source);
            if let Some(partition) = source.and_then(|source| source.partitions.get_mut(&id.partition)) {
                partition.first = partition.first.max(offset);
            }
        }
    }

    /// Applies the next binding.
    ///
    /// # Errors
    /// [`Integrity`](crate::Kind::Integrity), with epoch and partition, if it does not continue what was
    /// applied before; the state is then unchanged.
    pub fn apply(&mut self, binding: &EpochBinding) -> Result<()> {
        self.check(binding)?;
        self.last = Some(binding.epoch);
        for range in &binding.ranges {
            let source = self.sources.entry(range.id.source).or_default();
            let partition = source
                .partitions
                .entry(range.id.partition)
                .or_insert(PartitionState {
                    first: range.lo,
                    hi: range.lo,
                    event_time_max: EventTime::MIN,
                    idle: false,
                    records: 0,
                });
            partition.hi = range.hi;
            partition.event_time_max = range.event_time_max;
            partition.idle = range.idle;
            partition.records = partition.records.saturating_add(range.records);
        }
        for (source, watermark) in &binding.watermarks {
            self.sources.entry(*source).or_default().watermark = *watermark;
        }
        for (source, idle) in &binding.idle {
            self.sources.entry(*source).or_default().idle = *idle;
        }
        for (source, topic) in &binding.topics {
            self.sources.entry(*source).or_default().topic = Some(*topic);
        }
        self.note_schemas(&binding.schemas);
        Ok(())
    }

    pub(super) fn note_schemas(&mut self, schemas: &[SchemaSeen]) {
        for seen in schemas {
            let source = self.sources.entry(seen.source).or_default();
            match (seen.since, seen.fingerprint) {
                (Some((partition, offset)), Some(fingerprint)) => {
                    source
                        .schemas_since
                        .insert((seen.id, partition), (offset, fingerprint));
                }
                _ => {
                    source.schemas.insert(seen.id, seen.fingerprint);
                }
            }
        }
    }

    /// Schemas that became known after they had been unknown.
    pub(super) fn schemas_known_late(&self) -> Vec<SchemaSeen> {
        let of = |(source, state): (&SourceId, &SourceState)| {
            let source = *source;
            let seen =
                move |(&(id, partition), &(offset, fingerprint)): (&(u32, u32), &(Offset, u64))| SchemaSeen {
                    source,
                    id,
                    fingerprint: Some(fingerprint),
                    since: Some((partition, offset)),
                };
            state.schemas_since.iter().map(seen).collect::<Vec<_>>()
        };
        self.sources.iter().flat_map(of).collect()
    }

    /// Whether [`apply`](Self::apply) would accept the binding.
    pub fn check(&self, binding: &EpochBinding) -> Result<()> {
        let found = self
            .check_epoch(binding)
            .or_else(|| self.check_ranges(&binding.ranges))
            .or_else(|| self.check_watermarks(&binding.watermarks))
            .or_else(|| check_idle(&binding.idle))
            .or_else(|| self.check_topics(&binding.topics))
            .or_else(|| self.check_schemas(&binding.schemas));
        let Some(detail) = found else { return Ok(()) };
        let what = format!(
            "the binding of epoch {} does not continue the ledger",
            binding.epoch
        );
        Err(Error::integrity(what).detail(detail))
    }

    fn check_epoch(&self, binding: &EpochBinding) -> Option<String> {
        let last = self.last.filter(|last| binding.epoch <= *last)?;
        Some(format!("epochs must increase, and the last one is {last}"))
    }

    fn check_ranges(&self, ranges: &[PartitionRange]) -> Option<String> {
        let mut seen = BTreeSet::new();
        ranges.iter().find_map(|range| {
            let PartitionRange { id, lo, hi, .. } = *range;
            let said = format!(
                "source {:08x}, partition {}: range [{lo}, {hi})",
                id.source.0, id.partition
            );
            if !seen.insert(id) {
                return Some(format!("{said} is the second range of this partition"));
            }
            if lo > hi {
                return Some(format!("{said} ends before it begins"));
            }
            if lo == hi && range.records != 0 {
                return Some(format!("{said} is empty but counts {} records", range.records));
            }
            let known = self.partition(id)?;
            if known.hi != lo {
                return Some(format!(
                    "{said} should begin at {}, where the bound offsets end",
                    known.hi
                ));
            }
            (range.event_time_max < known.event_time_max).then(|| {
                let (from, to) = (known.event_time_max, range.event_time_max);
                format!("{said}: the highest event time goes back from {from} to {to}")
            })
        })
    }

    fn check_watermarks(&self, watermarks: &[(SourceId, EventTime)]) -> Option<String> {
        let mut seen = BTreeSet::new();
        watermarks.iter().find_map(|(source, watermark)| {
            let said = format!("source {:08x}", source.0);
            if !seen.insert(*source) {
                return Some(format!("{said} has two watermarks"));
            }
            let last = self.watermark(*source);
            (*watermark < last).then(|| format!("{said}: the watermark goes back from {last} to {watermark}"))
        })
    }

    fn check_topics(&self, topics: &[(SourceId, TopicId)]) -> Option<String> {
        let mut seen = BTreeMap::new();
        topics.iter().find_map(|(source, topic)| {
            let known = self
                .source(*source)
                .and_then(|s| s.topic)
                .or(seen.insert(*source, *topic));
            let known = known.filter(|known| known != topic)?;
            Some(format!(
                "source {:08x} is bound to topic id {known:?}, not {topic:?}",
                source.0
            ))
        })
    }

    /// An id that the registry did not know may become known, in each partition from a record on; a known
    /// schema never changes.
    fn check_schemas(&self, schemas: &[SchemaSeen]) -> Option<String> {
        let (mut whole, mut late) = (BTreeMap::new(), BTreeMap::new());
        schemas.iter().find_map(|schema| {
            let SchemaSeen {
                source,
                id,
                fingerprint,
                since,
            } = *schema;
            let said = format!("source {:08x}: schema {id}", source.0);
            let state = self.source(source);
            let before = || state.and_then(|state| state.schemas.get(&id).copied());
            let Some((partition, offset)) = since else {
                let known = whole.insert((source, id), fingerprint).or_else(before).flatten();
                let known = known.filter(|known| fingerprint != Some(*known))?;
                return Some(format!("{said} was {known:016x} when first seen"));
            };
            if whole.get(&(source, id)).copied().or_else(before) != Some(None) {
                return Some(format!(
                    "{said} becomes known in partition {partition} but was never unknown"
                ));
            }
            let becomes = (offset, fingerprint);
            let before = state.and_then(|state| state.schemas_since.get(&(id, partition)));
            let before = before.map(|(offset, known)| (*offset, Some(*known)));
            let known = late.insert((source, id, partition), becomes).or(before)?;
            (known != becomes).then(|| {
                let from = known.0;
                format!("{said} is known in partition {partition} from offset {from} on, not from {offset}")
            })
        })
    }
}

fn check_idle(marks: &[(SourceId, bool)]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let twice = marks.iter().find(|(source, _)| !seen.insert(*source))?;
    Some(format!("source {:08x} has its idleness given twice", twice.0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    const SOURCE: SourceId = SourceId(7);

    fn binding(epoch: u64) -> EpochBinding {
        let (ranges, watermarks, idle, topics, schemas) = (vec![], vec![], vec![], vec![], vec![]);
        EpochBinding {
            epoch: Epoch(epoch),
            now: EventTime(0),
            ranges,
            watermarks,
            idle,
            topics,
            schemas,
            results: None,
        }
    }

    fn range(lo: Offset, hi: Offset, max: i64) -> PartitionRange {
        PartitionRange {
            id: PartitionId {
                source: SOURCE,
                partition: 3,
            },
            lo,
            hi,
            records: (hi - lo).max(0) as u64,
            hash: 1,
            event_time_max: EventTime(max),
            limit: EventTime::MAX,
            compacted: false,
            idle: false,
        }
    }

    fn started() -> LedgerState {
        let mut state = LedgerState::default();
        let mut first = binding(10);
        first.ranges = vec![range(100, 110, 5)];
        first.watermarks = vec![(SOURCE, EventTime(4))];
        first.topics = vec![(SOURCE, TopicId([1; 16]))];
        first.schemas = vec![SchemaSeen {
            source: SOURCE,
            id: 1,
            fingerprint: None,
            since: None,
        }];
        state.apply(&first).unwrap();
        state
    }

    fn refused(change: impl FnOnce(&mut EpochBinding)) -> String {
        let mut state = started();
        let mut next = binding(11);
        change(&mut next);
        let before = state.clone();
        let error = state.apply(&next).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity);
        assert_eq!(state, before, "a refused binding leaves the state alone");
        error.to_string()
    }

    #[test]
    fn bindings_that_link_add_up() {
        let mut state = started();
        let mut next = binding(11);
        next.ranges = vec![PartitionRange {
            idle: true,
            ..range(110, 112, 9)
        }];
        next.watermarks = vec![(SOURCE, EventTime(8))];
        next.idle = vec![(SOURCE, true)];
        next.schemas = vec![SchemaSeen {
            source: SOURCE,
            id: 1,
            fingerprint: Some(2),
            since: Some((3, 111)),
        }];
        state.apply(&next).unwrap();
        let partition = state
            .partition(PartitionId {
                source: SOURCE,
                partition: 3,
            })
            .unwrap();
        let (event_time_max, idle) = (EventTime(9), true);
        assert_eq!(
            *partition,
            PartitionState {
                first: 100,
                hi: 112,
                event_time_max,
                idle,
                records: 12
            }
        );
        assert_eq!(state.watermark(SOURCE), EventTime(8));
        assert!(state.source(SOURCE).unwrap().idle);
        assert_eq!(state.last(), Some(Epoch(11)));
        let source = state.source(SOURCE).unwrap();
        assert_eq!(source.schemas[&1], None, "what stands before stays unknown");
        assert_eq!(source.schemas_since[&(1, 3)], (111, 2));
    }

    #[test]
    fn what_a_checkpoint_holds_is_not_read_again() {
        let mut state = started();
        let id = |partition| PartitionId {
            source: SOURCE,
            partition,
        };
        state.begin_at([(id(3), 108), (id(9), 1)]);
        assert_eq!(state.partition(id(3)).unwrap().first, 108);
        assert_eq!(state.partition(id(9)), None);
    }

    #[test]
    fn what_does_not_link_is_refused() {
        assert!(refused(|b| b.epoch = Epoch(10)).contains("the last one is 10"));
        assert!(refused(|b| b.ranges = vec![range(111, 112, 9)]).contains("should begin at 110"));
        assert!(refused(|b| b.ranges = vec![range(109, 112, 9)]).contains("partition 3"));
        assert!(refused(|b| b.ranges = vec![range(110, 105, 9)]).contains("ends before it begins"));
        assert!(refused(|b| b.ranges = vec![range(110, 111, 4)]).contains("highest event time goes back"));
        assert!(refused(|b| b.ranges = vec![range(110, 111, 9), range(111, 112, 9)]).contains("second"));
        let empty = PartitionRange {
            records: 1,
            ..range(110, 110, 9)
        };
        assert!(refused(|b| b.ranges = vec![empty]).contains("empty"));
        assert!(refused(|b| b.watermarks = vec![(SOURCE, EventTime(3))]).contains("watermark goes back"));
        assert!(refused(|b| b.idle = vec![(SOURCE, true), (SOURCE, false)]).contains("given twice"));
        assert!(refused(|b| b.topics = vec![(SOURCE, TopicId([2; 16]))]).contains("topic id"));
        let schema = |fingerprint| SchemaSeen {
            source: SOURCE,
            id: 9,
            fingerprint,
            since: None,
        };
        assert!(refused(|b| b.schemas = vec![schema(Some(1)), schema(None)]).contains("schema 9"));
        let late = |id, since| SchemaSeen {
            id,
            since: Some(since),
            ..schema(Some(1))
        };
        assert!(refused(|b| b.schemas = vec![late(9, (3, 110))]).contains("never unknown"));
        assert!(refused(|b| b.schemas = vec![schema(Some(1)), late(9, (3, 110))]).contains("never unknown"));
        let twice = refused(|b| b.schemas = vec![late(1, (3, 110)), late(1, (4, 7)), late(1, (3, 111))]);
        assert!(twice.contains("from offset 110 on, not from 111"), "{twice}");
    }
}
