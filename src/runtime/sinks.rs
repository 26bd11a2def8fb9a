//! Where a dataflow's sinks stand, as `/v1/sinks` and the metrics tell it.

use std::sync::Arc;

use crate::clock;
use crate::dataflow::plan::PlannedSink;
use crate::runtime::Shared;
use crate::sink::queue::ShardState;
use crate::sink::{Contract, Method};
use crate::time::Epoch;

/// A sink, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkNow {
    /// Its name.
    pub name: String,
    /// The method that gives it rows.
    pub method: Method,
    /// ``topic `x` ``.
    pub description: String,
    /// What it promises after a crash.
    pub contract: Contract,
    /// How many shards it has.
    pub shards: u32,
    /// The last epoch that brought rows, and of which, as of all before it, the store has all; `None`: there
    /// is none.
    pub delivered: Option<Epoch>,
    /// Rows written in this run.
    pub rows: u64,
    /// Rows that wait.
    pub waiting_rows: u64,
    /// Memory that they take, in bytes.
    pub waiting_bytes: u64,
    /// How long ago the epoch was opened that waits longest, in seconds.
    pub waiting_age_seconds: Option<f64>,
    /// How often writes failed in this run, and were tried again.
    pub retries: u64,
    /// What goes wrong now.
    pub trouble: Option<String>,
}

impl Shared {
    /// Where all sinks stand, in the order of the code. In a cluster the process with the ledger knows.
    fn sinks_now(&self) -> Vec<SinkNow> {
        let states = self.sinks.states();
        let sink =
            |planned: &PlannedSink| now(planned, states.get(&*planned.name).map_or(&[][..], Vec::as_slice));
        self.planned_sinks.iter().map(sink).collect()
    }
}

fn now(planned: &PlannedSink, shards: &[ShardState]) -> SinkNow {
    let waiting = shards.iter().filter_map(|shard| shard.waiting).min();
    let behind = shards.iter().filter(|shard| shard.waiting.is_some());
    // A shard for which nothing waits has all that it was given.
    let delivered = match waiting {
        Some(_) => behind.map(|shard| shard.delivered).min().flatten(),
        None => shards.iter().filter_map(|shard| shard.delivered).max(),
    };
    let age = |epoch: Epoch| {
        let opened = epoch.opened_at().micros();
        clock::now().micros().saturating_sub(opened).max(0) as f64 / 1e6
    };
    SinkNow {
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

/// Has gauges of sinks set whenever they are read.
pub(super) fn refresh_metrics(shared: &Arc<Shared>) {
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

/// Tells where all sinks stand.
pub(super) fn teller(shared: &Arc<Shared>) -> impl Fn() -> Vec<SinkNow> + Send + Sync + 'static {
    let shared = shared.clone();
    move || shared.sinks_now()
}
