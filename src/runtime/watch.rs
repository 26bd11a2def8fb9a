//! The thread that looks at the sources from outside: which partitions there are, and where they end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::dataflow::plan::PlannedSource;
use crate::position::{PartitionId, SourceId};
use crate::runtime::{Shared, Substitutes};
use crate::source::{Driver, Topology};

/// Between two looks at a source that runs.
const EVERY: Duration = Duration::from_secs(5);
/// How often the thread looks whether it should end.
const TICK: Duration = Duration::from_millis(50);

pub(super) type Watched = (SourceId, String, Arc<dyn Driver>);

/// The sources to watch. What tests feed instead brings its own driver.
pub(super) fn sources(planned: &[PlannedSource], substitutes: Option<Substitutes>) -> Vec<Watched> {
    let given = substitutes.map(|make| make()).unwrap_or_default();
    let driver = |source: &PlannedSource| {
        given.get(&source.rules.name).map_or(&source.driver, |substitute| &substitute.driver).clone()
    };
    planned.iter().map(|source| (source.rules.id, source.rules.name.clone(), driver(source))).collect()
}

/// Looks at once, and then now and then: partitions may be added. A source that can't be seen at the start halts the
/// service with the reason; later it is waited for.
pub(super) fn watch(shared: &Shared, sources: &[Watched]) {
    let mut first = true;
    loop {
        for (id, name, driver) in sources {
            match driver.topology() {
                Ok(topology) => {
                    show_lag(shared, *id, name, &topology);
                    shared.inbox.topology(*id, topology);
                }
                Err(error) if first => return shared.halt.halt(error),
                Err(error) => tracing::warn!(source = name, %error, "cannot look at a source; trying again"),
            }
        }
        first = false;
        let looked = clock::instant();
        while clock::instant() - looked < EVERY {
            if shared.halt.is_halted() || shared.inbox.stopping() || shared.ended.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(TICK);
        }
    }
}

/// How many records stand between what the newest closed epoch has and the end of the log.
fn show_lag(shared: &Shared, source: SourceId, name: &str, topology: &Topology) {
    let closed = shared.views.closed();
    let metrics = shared.metrics.source(name);
    for facts in &topology.partitions {
        let id = PartitionId { source, partition: facts.partition };
        let position = closed.as_ref().and_then(|moment| moment.position(id)).unwrap_or(facts.start);
        metrics.partition(facts.partition).lag_records.set(facts.end.saturating_sub(position).max(0));
    }
}
