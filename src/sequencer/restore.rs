//! The sequencer's partitions, the fold of its bindings, and resuming from a checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::manifest::Base;
use crate::error::Result;
use crate::position::{EpochBinding, Offset, PartitionId, PartitionRange, SchemaSeen, SourceId};
use crate::sequencer::event_time::Quiet;
use crate::sequencer::message::Order;
use crate::sequencer::{ClockReading, PartitionProgress, Sequencer};
use crate::time::EventTime;

/// The subject of a verdict on a schema.
pub(super) fn schema_key(seen: &SchemaSeen) -> (SourceId, u32, Option<u32>) {
    (seen.source, seen.id, seen.since.map(|(partition, _)| partition))
}

impl Sequencer {
    /// The fold of all bindings so far, as a binding with empty ranges.
    pub fn base(&self) -> EpochBinding {
        let empty = |bound: &PartitionRange| PartitionRange {
            lo: bound.hi,
            records: 0,
            hash: 0,
            ..bound.clone()
        };
        EpochBinding {
            epoch: self.last,
            now: EventTime(i64::try_from(self.last.0).unwrap_or(i64::MAX)),
            ranges: self
                .partitions
                .values()
                .filter(|partition| partition.is_bound)
                .map(|partition| empty(&partition.bound))
                .collect(),
            watermarks: self.watermarks.iter().map(|(s, w)| (*s, *w)).collect(),
            idle: self.idle.iter().map(|source| (*source, true)).collect(),
            topics: self.topics.iter().map(|(s, t)| (*s, *t)).collect(),
            // In key order: an id is unknown before it is known.
            schemas: self.schemas.values().copied().collect(),
            results: None,
        }
    }

    /// Starts from the fold `base`. Its records are not read any more: see [`restored`](Self::restored).
    ///
    /// # Errors
    /// Those of [`replay`](Self::replay).
    pub fn restore(&mut self, base: Base, now: ClockReading) -> Result<()> {
        self.check_sources(&base.binding)?;
        self.take_over(&base.binding, now);
        self.note(&base.binding);
        self.outcomes.restored(base.binding.epoch);
        self.orders.push(Order::Base(Arc::new(base)));
        Ok(())
    }

    /// Skips a binding of an earlier run whose records are part of the restored state.
    ///
    /// # Errors
    /// Those of [`replay`](Self::replay).
    pub fn skip(&mut self, binding: EpochBinding, now: ClockReading) -> Result<()> {
        self.check_sources(&binding)?;
        self.take_over(&binding, now);
        self.note(&binding);
        self.outcomes.restored(binding.epoch);
        self.in_flight.push_back(binding.epoch);
        self.orders.push(Order::Skip(Arc::new(binding)));
        Ok(())
    }

    fn take_over(&mut self, binding: &EpochBinding, now: ClockReading) {
        for range in &binding.ranges {
            self.add_partition(range.clone(), now.mono);
            if let Some(partition) = self.partitions.get_mut(&range.id) {
                partition.is_bound = true;
            }
        }
    }

    /// Ends the skipping: everything in the state has been skipped, and partitions are read from here on.
    pub fn restored(&mut self) {
        let all: Vec<_> = self.partitions.keys().copied().collect();
        all.into_iter().for_each(|id| self.assign_reading(id));
    }

    /// Adds a partition of which nothing is bound, to be read from its beginning.
    pub(super) fn assign(&mut self, id: PartitionId, from: Offset, mono: Duration) {
        self.add_partition(PartitionRange::unread(id, from), mono);
        self.assign_reading(id);
    }

    /// Assigns a partition, to be read from its bound position.
    fn assign_reading(&mut self, id: PartitionId) {
        let worker = (id.source.0 as usize).wrapping_add(id.partition as usize) % self.settings.workers;
        let bound = &self.partitions[&id].bound;
        self.orders.push(Order::Assign {
            id,
            worker,
            from: bound.hi,
            event_time_max: bound.event_time_max,
            idle: bound.idle,
        });
    }

    fn add_partition(&mut self, bound: PartitionRange, mono: Duration) {
        self.partitions.insert(
            bound.id,
            PartitionProgress {
                bound,
                counted: (0, 0),
                reports: VecDeque::new(),
                at_end: false,
                behind: 0,
                heard: 0,
                untimed: false,
                active: mono,
                quiet: Quiet::default(),
                first: None,
                is_bound: false,
            },
        );
    }
}
