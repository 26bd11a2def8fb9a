//! The thread that observes the sources from outside: which partitions exist, and where they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::bridge::Waker;
use crate::clock;
use crate::codec::compatibility::SubjectSchema;
use crate::codec::registry::Registry;
use crate::dataflow::plan::PlannedSource;
use crate::error::{Error, Kind, Result};
use crate::health::Dependency;
use crate::position::{PartitionId, SourceId};
use crate::runtime::control::TopologyLook;
use crate::runtime::sources::PartitionLook;
use crate::runtime::{ProcessState, SourceSubstitutes};
use crate::source::{Driver, SourceErrorKind, Topology};

/// Interval between observations: lag is accurate, and new partitions are found, within a second.
const EVERY: Duration = Duration::from_millis(500);
/// If observations take long, the interval is this multiple of their duration…
const REST: u32 = 4;
/// … but at most this long.
const EVERY_MAX: Duration = Duration::from_secs(2);
/// A transaction that is open for longer than clients allow by default is logged.
const OPEN_LONG: Duration = Duration::from_secs(60);

pub(super) type WatchedSource = (SourceId, String, Arc<dyn Driver>);

/// The sources to watch. Test input brings its own driver.
pub(super) fn sources(
    planned: &[PlannedSource],
    substitutes: Option<SourceSubstitutes>,
) -> Vec<WatchedSource> {
    let given = substitutes.map(|make| make()).unwrap_or_default();
    let driver = |source: &PlannedSource| {
        given
            .get(&source.rules.name)
            .map_or(&source.driver, |substitute| &substitute.driver)
            .clone()
    };
    planned
        .iter()
        .map(|source| (source.rules.id, source.rules.name.clone(), driver(source)))
        .collect()
}

/// Observes the sources immediately and then regularly, because partitions may be added. A source that cannot
/// be observed at the start halts the service with the reason, unless it is to be waited for; later, every
/// source is waited for.
pub(super) fn watch(shared: &ProcessState, sources: Vec<WatchedSource>) {
    let this = std::thread::current();
    let wake = Waker::new(move || this.unpark());
    shared.halt.on_halt(wake.clone());
    shared.inbox.watched_by(wake);
    let mut watch = SourceWatch::new(sources);
    loop {
        let begun = clock::instant();
        if let Err(error) = watch.look(shared) {
            return shared.halt.halt(error);
        }
        let done = clock::instant();
        let next = done + ((done - begun) * REST).clamp(EVERY, EVERY_MAX);
        while clock::instant() < next {
            if shared.halt.is_halted() || shared.inbox.stopping() || shared.ended.load(Ordering::Acquire) {
                return;
            }
            // Woken by a stop, by a halt, and when the workers end.
            std::thread::park_timeout(next - clock::instant());
        }
    }
}

/// The state of the observations.
pub(super) struct SourceWatch {
    sources: Vec<WatchedSource>,
    /// Whether it has observed anything yet.
    looked: bool,
    /// Whether schemas were outstanding at the last observation.
    waited: bool,
    /// The sources that have been observed.
    met: BTreeSet<SourceId>,
}

impl SourceWatch {
    pub(super) fn new(sources: Vec<WatchedSource>) -> Self {
        Self {
            sources,
            looked: false,
            waited: false,
            met: BTreeSet::new(),
        }
    }

    /// Observes the registry and every source.
    ///
    /// # Errors
    /// Those from which the service cannot continue.
    pub(super) fn look(&mut self, shared: &ProcessState) -> Result<()> {
        let registry = shared.settings.env.registry.as_ref().map(Registry::status);
        // Unreachable, or so slow that ids have been waiting since the last observation.
        let waits = registry.as_ref().is_some_and(|status| status.pending > 0);
        let away = registry
            .as_ref()
            .filter(|status| status.away.is_some() || (waits && self.waited));
        self.waited = waits;
        note(shared, Dependency::Registry, away.map(ToString::to_string));
        for (id, name, driver) in &self.sources {
            if !self.looked {
                compare(name, driver.as_ref())?;
            }
            let asked = clock::instant();
            let seen = driver.topology();
            troubled(shared, name, driver.as_ref(), seen.as_ref().err());
            match seen {
                Ok(topology) => {
                    // A source that was waited for also starts where it is configured to.
                    if self.met.insert(*id) {
                        shared.inbox.starts(*id, driver.starts(&topology)?);
                    }
                    shared.first_seen(*id, &topology);
                    show_lag(shared, *id, name, &topology);
                    show_partitions(shared, name, driver.as_ref(), &topology);
                    let (source, seen) = (*id, Some(topology));
                    shared.inbox.look(TopologyLook { source, asked, seen });
                }
                // What was read no longer exists as it was: waiting does not bring it back.
                Err(error) if error.kind() == Kind::Integrity => return Err(error),
                Err(error) if !self.met.contains(id) && !waits_for(driver.as_ref()) => return Err(error),
                Err(error) => {
                    tracing::debug!(source = name, %error, "cannot fetch the source's topology; retrying");
                    let (source, seen) = (*id, None);
                    shared.inbox.look(TopologyLook { source, asked, seen });
                }
            }
        }
        self.looked = true;
        Ok(())
    }
}

/// Whether to wait for a source that was never observed: a missing or unreachable one may appear, a wrong
/// password stays wrong.
fn waits_for(driver: &dyn Driver) -> bool {
    driver.waits()
        && matches!(
            driver.error_kind(),
            Some(SourceErrorKind::Missing | SourceErrorKind::Away)
        )
}

/// Reports why a source cannot be read in health, metrics and, once, the log.
fn troubled(shared: &ProcessState, name: &str, driver: &dyn Driver, unseen: Option<&Error>) {
    let trouble = unseen.map(ToString::to_string).or_else(|| driver.trouble());
    let kind = trouble
        .as_ref()
        .map(|_| driver.error_kind().unwrap_or(SourceErrorKind::Other));
    let metrics = shared.metrics.source(name);
    for one in SourceErrorKind::ALL {
        metrics.trouble(one.code()).set(i64::from(kind == Some(one)));
    }
    note(shared, Dependency::Source(name.to_owned()), trouble);
}

/// Records the observed partitions of a source; logs added partitions and long-open transactions.
fn show_partitions(shared: &ProcessState, name: &str, driver: &dyn Driver, topology: &Topology) {
    let metrics = shared.metrics.source(name);
    let now = clock::now();
    let mut known = shared.partitions.lock();
    let before = known.remove(name).unwrap_or_default();
    let seen = topology.partitions.iter().map(|facts| {
        let number = facts.partition;
        let last = before.iter().find(|last| last.facts.partition == number);
        let seen = PartitionLook::new(*facts, now, last);
        let open = seen.open_for(now).unwrap_or_default();
        metrics
            .partition(number)
            .open_transaction_seconds
            .set(open.as_secs_f64());
        if open >= OPEN_LONG && last.is_some_and(|last| !last.told) {
            let (offset, since) = (facts.end, seen.open_since.unwrap_or(now));
            tracing::warn!(
                source = name,
                partition = number,
                offset,
                %since,
                hint = driver.open_transaction_hint(),
                "a transaction has been open for long; nothing from this offset on can be read \
                 before it ends, and event time waits"
            );
        }
        PartitionLook {
            told: open >= OPEN_LONG,
            ..seen
        }
    });
    let mut seen: Vec<_> = seen.collect();
    seen.sort_unstable_by_key(|seen| seen.facts.partition);
    let (count, had) = (seen.len(), before.len());
    metrics.partitions.set(i64::try_from(count).unwrap_or(i64::MAX));
    known.insert(name.to_owned(), seen);
    if had > 0 && had < count {
        tracing::info!(
            source = name,
            before = had,
            now = count,
            "partitions were added; reading them from their start"
        );
    }
}

/// Logs the compatibility of the source's types with the registry's schemas; an error if no record could be
/// decoded. A registry that does not answer does not block the start.
fn compare(source: &str, driver: &dyn Driver) -> Result<()> {
    for compatibility in driver.fits() {
        compatibility
            .verdict()
            .map_err(|error| error.detail(format!("source `{source}` reads it")))?;
        match &compatibility.found {
            SubjectSchema::Newest {
                incompatibilities, ..
            } if !incompatibilities.is_empty() => {
                tracing::warn!(source, %compatibility, "type and schema are not fully compatible")
            }
            SubjectSchema::Unseen(_) => {
                tracing::warn!(source, %compatibility, "cannot check schema compatibility")
            }
            _ => tracing::info!(source, %compatibility, "checked schema compatibility"),
        }
    }
    Ok(())
}

/// Records an unhealthy dependency, and logs when that begins and ends.
fn note(shared: &ProcessState, what: Dependency, trouble: Option<String>) {
    let mut troubles = shared.troubles.lock();
    match trouble {
        Some(trouble) if !troubles.contains_key(&what) => {
            tracing::warn!(dependency = %what, reason = trouble, "unhealthy");
            troubles.insert(what, trouble);
        }
        Some(trouble) => {
            troubles.insert(what, trouble);
        }
        None if troubles.remove(&what).is_some() => tracing::info!(dependency = %what, "healthy again"),
        None => {}
    }
}

/// Updates the lag: the number of records between the newest closed epoch and the end of the log.
fn show_lag(shared: &ProcessState, source: SourceId, name: &str, topology: &Topology) {
    let closed = shared.views.closed();
    let metrics = shared.metrics.source(name);
    for facts in &topology.partitions {
        let id = PartitionId {
            source,
            partition: facts.partition,
        };
        let position = closed
            .as_ref()
            .and_then(|snapshot| snapshot.position(id))
            .unwrap_or(facts.start);
        metrics
            .partition(facts.partition)
            .lag_records
            .set(facts.end.saturating_sub(position).max(0));
    }
}
