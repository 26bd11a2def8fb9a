//! The status of a dataflow's sinks, for `/v1/sinks` and the metrics.

use std::sync::Arc;

use crate::clock;
use crate::dataflow::plan::PlannedSink;
use crate::runtime::ProcessState;
use crate::sink::queue::ShardStatus;
use crate::sink::{Contract, Method};
use crate::time::Epoch;

/// The status of a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkStatus {
    /// The sink's name.
    pub name: String,
    /// The method that connects rows to it.
    pub method: Method,
    /// ``topic `x` ``.
    pub description: String,
    /// Its guarantee after a crash.
    pub contract: Contract,
    /// The number of shards.
    pub shards: u32,
    /// The last epoch with rows up to which the store is complete; `None` if there is none.
    pub delivered: Option<Epoch>,
    /// Rows written in this run.
    pub rows: u64,
    /// Rows queued.
    pub waiting_rows: u64,
    /// The memory of queued rows, in bytes.
    pub waiting_bytes: u64,
    /// The age of the oldest queued epoch in seconds, from when it was opened.
    pub waiting_age_seconds: Option<f64>,
    /// Number of writes in this run that failed and were retried.
    pub retries: u64,
    /// The current error.
    pub trouble: Option<String>,
}

impl ProcessState {
    /// The status of all sinks, in the order of the code. In a cluster, the process with the ledger writes to
    /// them.
    fn sinks_now(&self) -> Vec<SinkStatus> {
        let (own, elsewhere) = (self.sinks.states(), self.sinks_elsewhere.lock().clone());
        let sink = |planned: &PlannedSink| {
            let shards = own.get(&*planned.name).or_else(|| elsewhere.get(&planned.name));
            now(planned, shards.map_or(&[][..], Vec::as_slice))
        };
        self.planned_sinks.iter().map(sink).collect()
    }
}

fn now(planned: &PlannedSink, shards: &[ShardStatus]) -> SinkStatus {
    let waiting = shards.iter().filter_map(|shard| shard.waiting).min();
    let behind = shards.iter().filter(|shard| shard.waiting.is_some());
    // A shard with an empty queue has everything it was given.
    let delivered = match waiting {
        Some(_) => behind.map(|shard| shard.delivered).min().flatten(),
        None => shards.iter().filter_map(|shard| shard.delivered).max(),
    };
    let age = |epoch: Epoch| {
        let opened = epoch.opened_at().micros();
        clock::now().micros().saturating_sub(opened).max(0) as f64 / 1e6
    };
    SinkStatus {
        name: planned.name.clone(),
        method: planned.method,
        description: planned.description.clone(),
        contract: planned.contract,
        shards: planned.shards,
        delivered,
        rows: shards.iter().map(|shard| shard.rows).sum(),
        waiting_rows: shards.iter().map(|shard| shard.waiting_rows as u64).sum(),
        waiting_bytes: shards.iter().map(|shard| shard.waiting_bytes as u64).sum(),
        waiting_age_seconds: waiting.map(age),
        retries: shards.iter().map(|shard| shard.retries).sum(),
        trouble: shards.iter().find_map(|shard| shard.trouble.clone()),
    }
}

/// Refreshes the gauges of sinks whenever they are read.
pub(super) fn refresh_metrics(shared: &Arc<ProcessState>) {
    let this = Arc::downgrade(shared);
    shared.metrics.refresh_by(move |metrics| {
        let Some(shared) = this.upgrade() else { return };
        for sink in shared.sinks_now() {
            let of = metrics.sink(&sink.name);
            of.waiting.set(sink.waiting_rows as i64);
            of.waiting_bytes.set(sink.waiting_bytes as i64);
            of.waiting_age.set(sink.waiting_age_seconds.unwrap_or(0.0));
            if let Some(epoch) = sink.delivered {
                of.epoch.set(epoch.0 as f64 / 1e6);
            }
        }
    });
}

/// Returns the status of all sinks.
pub(super) fn status_fn(shared: &Arc<ProcessState>) -> impl Fn() -> Vec<SinkStatus> + Send + Sync + 'static {
    let shared = shared.clone();
    move || shared.sinks_now()
}
