//! `GET /v1/why-not-closed`: what holds back the newest epoch, and the watermark that windows wait for.
//!
//! ```text
//!   a window is open ─▶ the watermark of its sources is below its end ─▶ which partition has the lowest one?
//!                                                                          behind · silent · waits · transaction
//!   the epoch is old ─▶ the start is under way · a source is unreadable · a sink holds the dataflow up
//! ```
//!
//! Reasons are told from the same facts as `/v1/sources` and `/v1/sinks` show, so they are as old as those.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;

use crate::clock;
use crate::error::count;
use crate::http::answer::{self, Time};
use crate::http::params::Params;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::read;
use crate::http::shared::RequestContext;
use crate::position::SourceId;
use crate::runtime::sinks::SinkStatus;
use crate::runtime::sources::{PartitionStatus, SourceStatus};
use crate::time::{EventTime, span};

/// An epoch that is older than this, while there is something to read, is held up by something.
const EPOCH_OLD: Duration = Duration::from_secs(2);
/// A sink whose oldest rows wait for longer may hold the dataflow up.
const SINK_OLD: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct WhyAnswer<'a> {
    view: &'a str,
    epoch: Option<u64>,
    time: Option<Time>,
    watermark: Time,
    reasons: Vec<Reason>,
}

/// Something that holds an epoch or a watermark back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reason {
    /// What kind of thing: the name is a part of the API.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sink: Option<String>,
    detail: String,
    hint: String,
}

impl Reason {
    fn new(kind: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            source: None,
            partition: None,
            sink: None,
            detail: detail.into(),
            hint: hint.into(),
        }
    }

    fn of_source(self, source: &str) -> Self {
        Self {
            source: Some(source.to_owned()),
            ..self
        }
    }
}

/// `GET /v1/why-not-closed?view=NAME`
pub(crate) async fn why_not_closed(
    State(shared): State<Arc<RequestContext>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let params = Params::read(query.as_deref().unwrap_or_default())?;
    let named = params
        .conditions
        .into_iter()
        .find(|condition| condition.field == "view");
    let name = named.ok_or_else(|| {
        Problem::new(ProblemKind::Parameter, "which view?").hint("write /v1/why-not-closed?view=NAME")
    })?;
    let name = name.value;
    let view = read::view(&shared, &name)?;
    let at = shared.state.views.closed();
    let (spec, sources) = (view.spec(), (shared.state.sources_now)());
    let ids = spec.sources.iter().chain(&spec.window_sources);
    let own: Vec<SourceId> = ids.copied().collect();
    let watermark = at.as_ref().map_or(EventTime::MIN, |at| view.watermark(at));
    let epoch_age = at.as_ref().map(|at| {
        let opened = at.epoch.opened_at().micros();
        Duration::from_micros(clock::now().micros().saturating_sub(opened).max(0).unsigned_abs())
    });
    let facts = Facts {
        starting: shared.state.readiness.reasons(),
        epoch_age,
        sources: sources
            .iter()
            .map(|source| {
                let id = SourceId::of(&source.name);
                let watermark = at.as_ref().map_or(EventTime::MIN, |at| at.watermark(&[id]));
                (source, own.contains(&id), watermark)
            })
            .collect(),
        sinks: (shared.state.sinks_now)(),
    };
    Ok(answer::json(WhyAnswer {
        view: &spec.name,
        epoch: at.as_ref().map(|at| at.epoch.0),
        time: at.as_ref().map(|at| Time(at.epoch.opened_at())),
        watermark: Time(watermark),
        reasons: facts.reasons(),
    }))
}

/// What reasons are told from.
struct Facts<'a> {
    /// Why the process is not ready, by name.
    starting: std::collections::BTreeMap<&'static str, String>,
    /// The age of the newest closed epoch; `None` before the first.
    epoch_age: Option<Duration>,
    /// Each source, whether the view depends on it, and its watermark.
    sources: Vec<(&'a SourceStatus, bool, EventTime)>,
    sinks: Vec<SinkStatus>,
}

impl Facts<'_> {
    fn reasons(&self) -> Vec<Reason> {
        let mut reasons = self.of_start();
        reasons.extend(self.of_epoch());
        // Of the sources that the view waits for, those with the lowest watermark.
        let timed = self
            .sources
            .iter()
            .filter(|(source, own, _)| *own && source.rules.is_some());
        let lowest = timed.clone().map(|(_, _, watermark)| *watermark).min();
        for (source, _, _) in timed.filter(|(_, _, watermark)| Some(*watermark) == lowest) {
            reasons.extend(of_source(source));
        }
        reasons
    }

    fn of_start(&self) -> Vec<Reason> {
        let of = |(what, why): (&&'static str, &String)| match *what {
            "cluster" => Reason::new(
                "cluster",
                why,
                "start the processes that are missing; `thalweg cluster status` lists them",
            ),
            "trouble" => Reason::new("trouble", why, "see /v1/sources for the source, and its log"),
            _ => Reason::new(
                "starting",
                format!("{what}: {why}"),
                "wait until /health/ready answers 200",
            ),
        };
        self.starting.iter().map(of).collect()
    }

    fn of_epoch(&self) -> Vec<Reason> {
        let lag = |source: &SourceStatus| {
            let partitions = source.partitions.iter();
            partitions.filter_map(PartitionStatus::lag_records).sum::<i64>()
        };
        let waits: i64 = self.sources.iter().map(|(source, _, _)| lag(source)).sum();
        let is_old = self.epoch_age.is_none_or(|age| age > EPOCH_OLD);
        let mut reasons = Vec::new();
        for sink in &self.sinks {
            let waited = Duration::from_secs_f64(sink.waiting_age_seconds.unwrap_or(0.0));
            let is_held_up = sink.trouble.is_some() || (is_old && waited > SINK_OLD);
            if sink.waiting_rows > 0 && is_held_up {
                let trouble = sink.trouble.as_deref().unwrap_or("its store is slow");
                let detail = format!(
                    "{} for {} wait since {}: {trouble}",
                    count(sink.waiting_rows, "row"),
                    sink.description,
                    span(Duration::from_secs(waited.as_secs())),
                );
                let reason = Reason::new(
                    "sink",
                    detail,
                    "once its queue is full, no further epoch opens; restore the store, and it catches up",
                );
                reasons.push(Reason {
                    sink: Some(sink.name.clone()),
                    ..reason
                });
            }
        }
        if is_old && waits > 0 && reasons.is_empty() && self.starting.is_empty() {
            let age = self.epoch_age.map_or_else(
                || "none has been closed yet".to_owned(),
                |age| {
                    format!(
                        "the newest closed epoch is {} old",
                        span(Duration::from_secs(age.as_secs()))
                    )
                },
            );
            reasons.push(Reason::new(
                "epoch",
                format!(
                    "{age}, and {} wait to be read",
                    count(waits.unsigned_abs(), "record")
                ),
                "a worker is busy, or the ledger's disk is slow: compare thalweg_epoch_duration_seconds and \
                 thalweg_ledger_append_duration_seconds in /metrics",
            ));
        }
        reasons
    }
}

/// Why a source's watermark is not higher.
fn of_source(source: &SourceStatus) -> Vec<Reason> {
    let name = &source.name;
    if let Some(trouble) = &source.trouble {
        let reason = Reason::new("source", trouble, "restore it: reading resumes by itself");
        return vec![reason.of_source(name)];
    }
    let idle_after = source.rules.map_or(Duration::ZERO, |rules| rules.idle_after);
    let known = source
        .partitions
        .iter()
        .filter(|partition| partition.watermark != EventTime::MIN);
    if known.clone().next().is_none() {
        let reason = Reason::new(
            "no-data",
            format!("`{name}` has had no event with a valid time yet"),
            "its watermark begins with the first one; dead letters show events without",
        );
        return vec![reason.of_source(name)];
    }
    let active = known.filter(|partition| !partition.idle);
    let Some(lowest) = active.clone().map(|partition| partition.watermark).min() else {
        let reason = Reason::new(
            "idle",
            format!("all partitions of `{name}` are idle, so its watermark stays where it is"),
            "the next event moves it; a producer may send one now and then for that purpose",
        );
        return vec![reason.of_source(name)];
    };
    let holding = active.filter(|partition| partition.watermark == lowest);
    let of = |partition: &PartitionStatus| Reason {
        source: Some(name.clone()),
        partition: Some(partition.partition),
        ..of_partition(partition, idle_after)
    };
    holding.map(of).collect()
}

/// Why the partition with the lowest watermark has no higher one.
fn of_partition(partition: &PartitionStatus, idle_after: Duration) -> Reason {
    let at = format!(
        "partition {} has the lowest watermark, {}",
        partition.partition, partition.watermark
    );
    let lag = partition.lag_records().unwrap_or(0);
    if let Some(since) = partition.open_transaction_since {
        return Reason::new(
            "transaction",
            format!("{at}; a transaction has been open in it since {since}"),
            "records behind an open transaction cannot be read: end or abort it",
        );
    }
    if partition.paused == Some(true) {
        return Reason::new(
            "waits",
            format!("{at}; it is ahead of others and waits for them"),
            "the others are read first; `buffer.skew_max` says how far ahead is allowed",
        );
    }
    match lag {
        0 => Reason::new(
            "silent",
            format!("{at}, and nothing more to read"),
            format!(
                "its next event moves it; after {} without one it counts as idle",
                span(idle_after)
            ),
        ),
        lag => Reason::new(
            "behind",
            format!(
                "{at}, and {} still to be read",
                count(lag.unsigned_abs(), "record")
            ),
            "it is being read; more workers or partitions read faster",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::late::Late;
    use crate::runtime::sources::TimeRulesStatus;
    use crate::sink::{Contract, Method};

    fn partition(number: u32, watermark: i64) -> PartitionStatus {
        PartitionStatus {
            partition: number,
            log: Some((0, 100)),
            open_transaction_since: None,
            position: Some(100),
            lag_seconds: None,
            watermark: EventTime::from_secs(watermark),
            idle: false,
            paused: None,
        }
    }

    fn source(name: &str, partitions: Vec<PartitionStatus>) -> SourceStatus {
        SourceStatus {
            name: name.into(),
            topic: name.into(),
            connector: None,
            details: Vec::new(),
            formats: Vec::new(),
            rules: Some(TimeRulesStatus {
                lateness: Duration::ZERO,
                late: Late::Drop,
                idle_after: Duration::from_secs(10),
                future_bound: Duration::from_secs(3600),
            }),
            idle: false,
            trouble: None,
            partitions,
        }
    }

    fn facts<'a>(sources: &'a [SourceStatus]) -> Facts<'a> {
        let of = |source: &'a SourceStatus| {
            let active = source.partitions.iter().filter(|partition| !partition.idle);
            let lowest = active.map(|partition| partition.watermark).min();
            (source, true, lowest.unwrap_or(EventTime::MIN))
        };
        Facts {
            starting: Default::default(),
            epoch_age: Some(Duration::ZERO),
            sources: sources.iter().map(of).collect(),
            sinks: Vec::new(),
        }
    }

    /// The only reason.
    fn only(facts: &Facts<'_>) -> Reason {
        let reasons = facts.reasons();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        reasons.into_iter().next().unwrap()
    }

    #[test]
    fn the_partition_with_the_lowest_watermark_is_named_with_what_holds_it() {
        let cases: [(fn(&mut PartitionStatus), &str, &str); 4] = [
            (|_| {}, "silent", "nothing more to read"),
            (|p| p.position = Some(93), "behind", "7 records still to be read"),
            (|p| p.paused = Some(true), "waits", "ahead of others"),
            (
                |p| p.open_transaction_since = Some(EventTime::from_secs(5)),
                "transaction",
                "1970-01-01T00:00:05Z",
            ),
        ];
        for (change, kind, detail) in cases {
            let mut held = partition(1, 20);
            change(&mut held);
            let sources = [
                source("late", vec![partition(0, 30), held, partition(2, 25)]),
                source("early", vec![partition(0, 40)]),
            ];
            let reason = only(&facts(&sources));
            assert_eq!(
                (reason.kind, reason.source.as_deref(), reason.partition),
                (kind, Some("late"), Some(1))
            );
            assert!(reason.detail.contains(detail), "{reason:?}");
        }
    }

    #[test]
    fn sources_that_are_idle_empty_or_unreadable_are_named() {
        let mut idle = source("a", vec![partition(0, 5)]);
        idle.partitions[0].idle = true;
        let mut away = source("a", vec![partition(0, 5)]);
        away.trouble = Some("the broker does not answer".into());
        let mut empty = source("a", vec![partition(0, 5)]);
        empty.partitions[0].watermark = EventTime::MIN;
        for (source, kind) in [(idle, "idle"), (away, "source"), (empty, "no-data")] {
            assert_eq!(only(&facts(&[source])).kind, kind);
        }
    }

    #[test]
    fn an_old_epoch_is_explained_by_a_sink_or_the_start_or_else_said() {
        let mut behind = source("a", vec![partition(0, 5)]);
        behind.partitions[0].position = Some(50);
        let sources = [behind];
        let old = || Facts {
            epoch_age: Some(Duration::from_secs(9)),
            ..facts(&sources)
        };
        let kinds =
            |facts: &Facts<'_>| -> Vec<&str> { facts.reasons().iter().map(|reason| reason.kind).collect() };
        assert_eq!(kinds(&old()), ["epoch", "behind"]);
        assert_eq!(
            kinds(&facts(&sources)),
            ["behind"],
            "a fresh epoch needs no reason"
        );
        let sink = SinkStatus {
            name: "audit".into(),
            method: Method::AppendTo,
            description: "topic `audit`".into(),
            contract: Contract::Transactional,
            shards: 1,
            delivered: None,
            rows: 0,
            waiting_rows: 3,
            waiting_bytes: 480,
            waiting_age_seconds: Some(61.5),
            retries: 2,
            trouble: None,
        };
        let with_sink = Facts {
            sinks: vec![sink],
            ..old()
        };
        assert_eq!(kinds(&with_sink), ["sink", "behind"]);
        let reason = &with_sink.reasons()[0];
        assert_eq!(reason.sink.as_deref(), Some("audit"));
        assert!(
            reason.detail.contains("3 rows for topic `audit` wait since 61s"),
            "{reason:?}"
        );
        let starting = Facts {
            starting: [("cluster", "waiting for process 2".to_owned())].into(),
            ..old()
        };
        assert_eq!(kinds(&starting), ["cluster", "behind"]);
    }
}
