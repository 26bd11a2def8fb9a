//! Sinks in memory: what a test reads in place of a store.
//!
//! They are transactional whatever the sink's own contract is, so that a test sees each row once, also over
//! restarts. Rows are kept encoded; the sink's schema reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Result;
use crate::sink::row::Row;
use crate::sink::{Batch, Progress, Shard, TransactionalWriter, WriteError, Writers};
use crate::time::Epoch;

/// Holds what the sinks of a dataflow were given. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemorySinks(Arc<Mutex<BTreeMap<ShardKey, Held>>>);

/// A sink's name, and the number of a shard.
type ShardKey = (Arc<str>, u32);

#[derive(Debug, Default)]
struct Held {
    batches: Vec<Batch>,
    progress: Option<Progress>,
}

impl MemorySinks {
    /// Writers that keep what they are given here, in place of a sink's own.
    pub(crate) fn writers(&self) -> Writers {
        let sinks = self.clone();
        Writers::transactional(move |shard: &Shard| {
            Ok(MemoryWriter {
                sinks: sinks.clone(),
                key: (shard.sink.clone(), shard.number),
            })
        })
    }

    /// All rows of a sink: by epoch, and within one by key; of a stream, by partition and offset. The order
    /// is the same on any number of workers.
    pub(crate) fn rows(&self, sink: &str) -> Vec<(Epoch, Row)> {
        let shards = self.0.lock();
        let own = shards.iter().filter(|((name, _), _)| **name == *sink);
        let batches = own.flat_map(|(_, held)| &held.batches);
        let rows = batches.flat_map(|batch| batch.rows.iter().map(|row| (batch.epoch, row.clone())));
        let mut rows: Vec<(Epoch, Row)> = rows.collect();
        rows.sort_by(|(epoch, row), (other, next)| (epoch, row.key()).cmp(&(other, next.key())));
        rows
    }
}

struct MemoryWriter {
    sinks: MemorySinks,
    key: ShardKey,
}

impl TransactionalWriter for MemoryWriter {
    fn resume(&mut self) -> Result<Option<Progress>> {
        let shards = self.sinks.0.lock();
        Ok(shards.get(&self.key).and_then(|held| held.progress.clone()))
    }

    fn commit(&mut self, epochs: &[Batch], progress: &Progress) -> Result<(), WriteError> {
        let mut shards = self.sinks.0.lock();
        let held = shards.entry(self.key.clone()).or_default();
        held.batches.extend_from_slice(epochs);
        held.progress = Some(progress.clone());
        Ok(())
    }
}
