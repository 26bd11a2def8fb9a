//! How far shards have come, written down for the next start: in the group commit of the ledger.
//!
//! A shard tells what its store has after each write, and at each checkpoint that it has all rows up to
//! there, if none waits. So a shard of which less is known than the checkpoint of a start was not there when
//! that was made: it is new, or was away for a while, and begins with all rows as of it.
//!
//! Progress goes into the frame of the next group commit, so it waits for no disk access of its own. Where
//! nothing is bound it is written alone, after 10 ms: a binding that comes meanwhile would otherwise wait for
//! two syncs instead of one. It is outside the hash chain, because replays do not depend on it. Progress of a
//! fenced owner does not count.

use std::sync::Arc;

use crate::bridge::Waker;
use crate::ledger::ShardProgress;
use crate::sink::queue::SinkQueue;
use crate::time::Epoch;

/// Called when what was told is durable.
pub(crate) type OnDurable = Box<dyn FnOnce() + Send>;

/// Where progress is written down. It must not block.
pub(crate) trait ProgressLog: Send + Sync {
    /// Writes it down, and calls `durable` once it survives a loss of power.
    fn record(&self, progress: ShardProgress, durable: OnDurable);
}

/// Writes down how far one shard has come.
#[derive(Clone)]
pub(crate) struct ProgressRecorder {
    /// Without one, starts know nothing of each other.
    pub log: Option<Arc<dyn ProgressLog>>,
    pub queue: Arc<SinkQueue>,
    /// Woken when something is durable.
    pub waker: Waker,
}

impl ProgressRecorder {
    /// The store has everything up to `complete`; the last rows of `delivered`.
    pub(crate) fn record(&self, complete: Epoch, delivered: Option<Epoch>) {
        let Some(log) = &self.log else {
            return self.queue.recorded(complete);
        };
        let shard = &self.queue.shard;
        let progress = ShardProgress {
            sink: shard.sink.to_string(),
            shard: shard.number,
            of: shard.of,
            complete,
            delivered,
        };
        let (queue, waker) = (self.queue.clone(), self.waker.clone());
        let durable = move || {
            queue.recorded(complete);
            waker.wake();
        };
        log.record(progress, Box::new(durable));
    }
}
