//! The status of each source: its rules, and the positions of its partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::registry::Registry;
use crate::dataflow::plan::PlannedSource;
use crate::health::Dependency;
use crate::late::Late;
use crate::position::{Offset, PartitionId, PartitionRange, SourceId};
use crate::runtime::ProcessState;
use crate::source::PartitionFacts;
use crate::time::EventTime;

/// The status of a source.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceStatus {
    /// The source's name.
    pub name: String,
    /// The name of the log that it reads: the topic.
    pub topic: String,
    /// The connector that reads it.
    pub connector: Option<&'static str>,
    /// Further details from its connector, by name.
    pub details: Vec<(&'static str, String)>,
    /// The formats of its records' parts: `("value", "avro")`.
    pub formats: Vec<(&'static str, String)>,
    /// The effective rules of time; `None` for a table, which has none.
    pub rules: Option<TimeRulesStatus>,
    /// Whether all of it is idle.
    pub idle: bool,
    /// Why its data cannot be read, if so.
    pub trouble: Option<String>,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
}

/// The effective rules of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeRulesStatus {
    /// See [`TimeRules`](crate::source::TimeRules).
    pub lateness: Duration,
    /// See [`TimeRules`](crate::source::TimeRules).
    pub late: Late,
    /// See [`TimeRules`](crate::source::TimeRules).
    pub idle_after: Duration,
    /// See [`TimeRules`](crate::source::TimeRules).
    pub future_bound: Duration,
}

/// A partition as last observed from outside.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct PartitionLook {
    pub(crate) facts: PartitionFacts,
    /// Since when a transaction has been open that blocks reading, as far as observed.
    pub(crate) open_since: Option<EventTime>,
    /// Whether it has been open long enough to be logged.
    pub(crate) told: bool,
}

impl PartitionLook {
    /// As observed at `now`, after `last`. The oldest open transaction is the same as long as the last stable
    /// offset does not move.
    pub(crate) fn new(facts: PartitionFacts, now: EventTime, last: Option<&Self>) -> Self {
        let before = last
            .filter(|last| last.facts.end == facts.end)
            .and_then(|last| last.open_since);
        let open_since = facts.has_open_transaction().then(|| before.unwrap_or(now));
        let told = false;
        Self {
            facts,
            open_since,
            told,
        }
    }

    /// How long it has been open.
    pub(crate) fn open_for(&self, now: EventTime) -> Option<Duration> {
        let us = now.micros().saturating_sub(self.open_since?.micros());
        Some(Duration::from_micros(u64::try_from(us).unwrap_or(0)))
    }
}

impl std::fmt::Display for PartitionLook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PartitionFacts { partition, end, .. } = self.facts;
        write!(f, "partition {partition}, offset {end}: ")?;
        match self.open_since {
            Some(since) => write!(f, "a transaction is open since {since}"),
            None => f.write_str("no transaction is open"),
        }
    }
}

/// The status of a partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: u32,
    /// The first offset of its log and the end of what can be read, as observed within the last second;
    /// `None` if not observed by this process.
    pub log: Option<(Offset, Offset)>,
    /// Since when a transaction has been open that blocks reading, as far as observed.
    pub open_transaction_since: Option<EventTime>,
    /// The next offset to be processed, as of the newest closed epoch; `None` if nothing of it is bound yet.
    pub position: Option<Offset>,
    /// The age of the newest record read while more records wait, otherwise 0. `None` if another process may
    /// be reading it.
    pub lag_seconds: Option<f64>,
    /// Its watermark: its highest event time minus the lateness. [`EventTime::MIN`] if there was none.
    pub watermark: EventTime,
    /// Whether it is idle and holds no watermark back.
    pub idle: bool,
    /// Whether it is paused by watermark alignment. `None` if another process may be reading it.
    pub paused: Option<bool>,
}

impl PartitionStatus {
    /// Offsets between its position and the end of its log; gaps count too.
    pub fn lag_records(&self) -> Option<i64> {
        let (start, end) = self.log?;
        Some(end.saturating_sub(self.position.unwrap_or(start)).max(0))
    }
}

impl ProcessState {
    /// The status of all sources.
    pub(super) fn sources_now(&self) -> Vec<SourceStatus> {
        let bound = self.bound.lock().clone();
        let idle = self.idle.lock().clone();
        let of = |source: &PlannedSource| {
            let (rules, timed) = (&source.rules, source.rules.timed);
            let id = |partition| PartitionId {
                source: rules.id,
                partition,
            };
            let seen = self
                .partitions
                .lock()
                .get(&rules.name)
                .cloned()
                .unwrap_or_default();
            let seen: BTreeMap<u32, PartitionLook> = seen
                .into_iter()
                .map(|seen| (seen.facts.partition, seen))
                .collect();
            let mut numbers: BTreeSet<u32> = seen.keys().copied().collect();
            numbers.extend(bound.range(id(0)..=id(u32::MAX)).map(|(id, _)| id.partition));
            let partition = |partition: u32| {
                let range = bound.get(&id(partition));
                let position = range.map(|range| range.hi);
                let seen = seen.get(&partition);
                let metrics = self.metrics.source(&rules.name).partition(partition);
                let alone = self.settings.cluster.is_none();
                PartitionStatus {
                    partition,
                    // Records read since the observation are a part of it.
                    log: seen
                        .map(|seen| (seen.facts.start, seen.facts.end.max(position.unwrap_or_default()))),
                    open_transaction_since: seen.and_then(|seen| seen.open_since),
                    position,
                    lag_seconds: alone.then(|| metrics.lag_seconds.get()),
                    watermark: match range.map_or(EventTime::MIN, |range| range.event_time_max) {
                        max if timed && max != EventTime::MIN => max.minus(rules.lateness),
                        _ => EventTime::MIN,
                    },
                    idle: range.is_some_and(|range| range.idle),
                    paused: alone.then(|| metrics.paused.get() != 0),
                }
            };
            SourceStatus {
                name: rules.name.clone(),
                topic: source.topic.clone(),
                connector: source.driver.connector(),
                details: source.driver.details(),
                formats: source.driver.formats(),
                rules: timed.then_some(TimeRulesStatus {
                    lateness: rules.lateness,
                    late: source.late,
                    idle_after: rules.idle_after,
                    future_bound: rules.future_bound,
                }),
                idle: idle.contains(&rules.id),
                trouble: self
                    .troubles
                    .lock()
                    .get(&Dependency::Source(rules.name.clone()))
                    .cloned(),
                partitions: numbers.into_iter().map(partition).collect(),
            }
        };
        self.sources.iter().map(of).collect()
    }

    /// Records the state of partitions in an epoch that has closed.
    pub(super) fn note_bound(&self, ranges: &[PartitionRange], idle: &[(SourceId, bool)]) {
        let mut bound = self.bound.lock();
        for range in ranges {
            bound.insert(range.id, range.clone());
        }
        drop(bound);
        let mut sources = self.idle.lock();
        for (source, idle) in idle {
            match idle {
                true => sources.insert(*source),
                false => sources.remove(source),
            };
        }
    }
}

/// Refreshes the gauges of views and partitions whenever they are read. Workers set some as epochs close, but
/// epochs may not close for long, and records covered by a restored checkpoint are not released again.
pub(super) fn refresh_metrics(shared: &Arc<ProcessState>) {
    let this = Arc::downgrade(shared);
    shared.metrics.refresh_by(move |metrics| {
        let Some(shared) = this.upgrade() else { return };
        for view in shared.views.all() {
            let of = metrics.view(&view.spec().name);
            of.rows.set(i64::try_from(view.rows_len()).unwrap_or(i64::MAX));
            of.changes.inner().store(view.applied(), Ordering::Relaxed);
        }
        let registry = shared.settings.env.registry.as_ref().map(Registry::status);
        let pending = registry.map_or(0, |status| i64::try_from(status.pending).unwrap_or(i64::MAX));
        for source in &shared.sources {
            let of = metrics.source(&source.rules.name);
            of.schema_lookups_pending.set(pending);
        }
        // Each process of a cluster shows the partitions that it reads.
        if shared.settings.cluster.is_some() {
            return;
        }
        for source in shared.sources_now() {
            let of = metrics.source(&source.name);
            for now in source.partitions.iter().filter(|now| now.position.is_some()) {
                let partition = of.partition(now.partition);
                partition.watermark(now.watermark);
                partition.idle.set(i64::from(now.idle));
            }
        }
    });
}

/// Returns the status of all sources.
pub(super) fn status_fn(
    shared: &Arc<ProcessState>,
) -> impl Fn() -> Vec<SourceStatus> + Send + Sync + 'static {
    let shared = shared.clone();
    move || shared.sources_now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_open_since_the_first_look_that_found_it() {
        let mut last: Option<PartitionLook> = None;
        let mut since = Vec::new();
        for (now, end, high_watermark) in [(1, 5, 5), (2, 5, 7), (3, 5, 9), (4, 8, 9), (5, 9, 9), (6, 9, 10)]
        {
            let facts = PartitionFacts {
                high_watermark,
                ..PartitionFacts::new(3, 0, end)
            };
            let seen = PartitionLook::new(facts, EventTime::from_secs(now), last.as_ref());
            since.push(seen.open_since.map(|since| since.micros() / 1_000_000));
            last = Some(seen);
        }
        // The first transaction ends when the last stable offset advances; another was open behind it.
        assert_eq!(since, [None, Some(2), Some(2), Some(4), None, Some(6)]);
        let last = last.unwrap();
        assert_eq!(
            last.open_for(EventTime::from_secs(66)),
            Some(Duration::from_secs(60))
        );
        let text = last.to_string();
        assert_eq!(
            text,
            "partition 3, offset 9: a transaction is open since 1970-01-01T00:00:06Z"
        );
    }

    #[test]
    fn lag_is_none_once_all_that_was_seen_is_read() {
        let now = |position, end| PartitionStatus {
            partition: 0,
            log: Some((0, end)),
            open_transaction_since: None,
            position,
            lag_seconds: None,
            watermark: EventTime::MIN,
            idle: false,
            paused: None,
        };
        let lags = [(None, 7), (Some(5), 7), (Some(7), 7), (Some(9), 7)];
        let lags = lags.map(|(position, end)| now(position, end).lag_records());
        assert_eq!(lags, [Some(7), Some(2), Some(0), Some(0)]);
    }
}
