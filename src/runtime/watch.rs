//! The thread that looks at the sources from outside: which partitions there are, and where they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::bridge::Waker;
use crate::clock;
use crate::codec::fit::Found;
use crate::codec::registry::Registry;
use crate::dataflow::plan::PlannedSource;
use crate::error::{Error, Kind, Result};
use crate::health::Dependency;
use crate::position::{PartitionId, SourceId};
use crate::runtime::control::Look;
use crate::runtime::sources::PartitionSeen;
use crate::runtime::{Shared, Substitutes};
use crate::source::{Ailment, Driver, Topology};

/// From one look to the next: lag is right, and a new partition known, within a second.
const EVERY: Duration = Duration::from_millis(500);
/// Where looks take long, the time between two is so many times as long…
const REST: u32 = 4;
/// … but no longer than this.
const EVERY_MAX: Duration = Duration::from_secs(2);
/// A transaction that is open for longer than clients let one be by default is told of.
const OPEN_LONG: Duration = Duration::from_secs(60);

pub(super) type Watched = (SourceId, String, Arc<dyn Driver>);

/// The sources to watch. What tests feed instead brings its own driver.
pub(super) fn sources(planned: &[PlannedSource], substitutes: Option<Substitutes>) -> Vec<Watched> {
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

/// Looks at once, and then now and then: partitions may be added. A source that can't be seen at the start
/// halts the service with the reason, unless it is one to be waited for; later every one is.
pub(super) fn watch(shared: &Shared, sources: Vec<Watched>) {
    let this = std::thread::current();
    let wake = Waker::new(move || this.unpark());
    shared.halt.on_halt(wake.clone());
    shared.inbox.watched_by(wake);
    let mut watch = Watch::new(sources);
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
            // Woken by a stop, a halt and the end of the workers.
            std::thread::park_timeout(next - clock::instant());
        }
    }
}

/// What the looks so far have shown.
pub(super) struct Watch {
    sources: Vec<Watched>,
    /// Whether it has looked.
    looked: bool,
    /// Whether schemas waited at the last look.
    waited: bool,
    /// The sources that were seen.
    met: BTreeSet<SourceId>,
}

impl Watch {
    pub(super) fn new(sources: Vec<Watched>) -> Self {
        Self {
            sources,
            looked: false,
            waited: false,
            met: BTreeSet::new(),
        }
    }

    /// Looks at the registry and at every source.
    ///
    /// # Errors
    /// What the service can't go on with.
    pub(super) fn look(&mut self, shared: &Shared) -> Result<()> {
        let registry = shared.settings.env.registry.as_ref().map(Registry::status);
        // Away, or so slow that ids have waited since the last look.
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
                    // One that was waited for at the start begins where it says too.
                    if self.met.insert(*id) {
                        shared.inbox.starts(*id, driver.starts(&topology)?);
                    }
                    shared.first_seen(*id, &topology);
                    show_lag(shared, *id, name, &topology);
                    show_partitions(shared, name, driver.as_ref(), &topology);
                    let (source, seen) = (*id, Some(topology));
                    shared.inbox.look(Look { source, asked, seen });
                }
                // What was read is no longer there as it was: no waiting brings it back.
                Err(error) if error.kind() == Kind::Integrity => return Err(error),
                Err(error) if !self.met.contains(id) && !waits_for(driver.as_ref()) => return Err(error),
                Err(error) => {
                    tracing::debug!(source = name, %error, "cannot fetch the source's topology; retrying");
                    let (source, seen) = (*id, None);
                    shared.inbox.look(Look { source, asked, seen });
                }
            }
        }
        self.looked = true;
        Ok(())
    }
}

/// Whether a source that was never seen is waited for: one that is missing or away may come, a wrong password
/// stays wrong.
fn waits_for(driver: &dyn Driver) -> bool {
    driver.waits() && matches!(driver.ailment(), Some(Ailment::Missing | Ailment::Away))
}

/// Names what stands between a source and its data in health, metrics and, once, the log.
fn troubled(shared: &Shared, name: &str, driver: &dyn Driver, unseen: Option<&Error>) {
    let trouble = unseen.map(ToString::to_string).or_else(|| driver.trouble());
    let kind = trouble
        .as_ref()
        .map(|_| driver.ailment().unwrap_or(Ailment::Other));
    let metrics = shared.metrics.source(name);
    for one in Ailment::ALL {
        metrics.trouble(one.code()).set(i64::from(kind == Some(one)));
    }
    note(shared, Dependency::Source(name.to_owned()), trouble);
}

/// Keeps how a source's partitions were seen; the log says when there are more of them, and when a
/// transaction stays open.
fn show_partitions(shared: &Shared, name: &str, driver: &dyn Driver, topology: &Topology) {
    let metrics = shared.metrics.source(name);
    let now = clock::now();
    let mut known = shared.partitions.lock();
    let before = known.remove(name).unwrap_or_default();
    let seen = topology.partitions.iter().map(|facts| {
        let number = facts.partition;
        let last = before.iter().find(|last| last.facts.partition == number);
        let seen = PartitionSeen::new(*facts, now, last);
        let open = seen.open_for(now).unwrap_or_default();
        metrics.partition(number).open_transaction_seconds.set(open.as_secs_f64());
        if open >= OPEN_LONG && last.is_some_and(|last| !last.told) {
            let (offset, since) = (facts.end, seen.open_since.unwrap_or(now));
            tracing::warn!(
                source = name,
                partition = number,
                offset,
                %since,
                hint = driver.open_transaction_hint(),
                "a transaction has been open for long; nothing from this offset on can be read before it ends, \
                 and event time waits"
            );
        }
        PartitionSeen {
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

/// Says how the source's types fit the registry's schemas; an error if nothing could ever be decoded. A
/// registry that does not answer holds nothing up.
fn compare(source: &str, driver: &dyn Driver) -> Result<()> {
    for fit in driver.fits() {
        fit.verdict()
            .map_err(|error| error.detail(format!("source `{source}` reads it")))?;
        match &fit.found {
            Found::Newest { misfits, .. } if !misfits.is_empty() => {
                tracing::warn!(source, %fit, "type and schema are not fully compatible")
            }
            Found::Unseen(_) => tracing::warn!(source, %fit, "cannot check schema compatibility"),
            _ => tracing::info!(source, %fit, "checked schema compatibility"),
        }
    }
    Ok(())
}

/// Keeps what is in trouble for whoever asks, and says once that it is, and once that it no longer is.
fn note(shared: &Shared, what: Dependency, trouble: Option<String>) {
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

/// How many records stand between what the newest closed epoch has and the end of the log.
fn show_lag(shared: &Shared, source: SourceId, name: &str, topology: &Topology) {
    let closed = shared.views.closed();
    let metrics = shared.metrics.source(name);
    for facts in &topology.partitions {
        let id = PartitionId {
            source,
            partition: facts.partition,
        };
        let position = closed
            .as_ref()
            .and_then(|moment| moment.position(id))
            .unwrap_or(facts.start);
        metrics
            .partition(facts.partition)
            .lag_records
            .set(facts.end.saturating_sub(position).max(0));
    }
}
