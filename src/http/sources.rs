//! `GET /v1/sources`: the sources, their rules, and their lag.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Serialize, Serializer};

use crate::http::answer::{self, AnswerHead, Time};
use crate::http::shared::RequestContext;
use crate::position::{Offset, SourceId};
use crate::runtime::sources::{PartitionStatus, SourceStatus, TimeRulesStatus};
use crate::time::{EventTime, span};
use crate::view::Snapshot;

#[derive(Serialize)]
struct SourcesAnswer<'a> {
    epoch: Option<u64>,
    time: Option<Time>,
    sources: Vec<SourceAnswer<'a>>,
}

#[derive(Serialize)]
struct SourceAnswer<'a> {
    name: &'a str,
    topic: &'a str,
    connector: Option<&'static str>,
    details: BTreeMap<&'a str, &'a str>,
    formats: BTreeMap<&'a str, &'a str>,
    rules: Option<RulesAnswer>,
    watermark: Time,
    idle: bool,
    trouble: Option<&'a str>,
    partitions: Vec<PartitionAnswer>,
}

#[derive(Serialize)]
struct RulesAnswer {
    lateness: String,
    late: String,
    idle_after: String,
    future_bound: String,
}

#[derive(Serialize)]
struct PartitionAnswer {
    partition: u32,
    position: Option<Offset>,
    start: Option<Offset>,
    end: Option<Offset>,
    lag_records: Option<Offset>,
    #[serde(serialize_with = "seconds")]
    lag_seconds: Option<f64>,
    watermark: Time,
    idle: bool,
    paused: Option<bool>,
    open_transaction_since: Time,
}

/// `GET /v1/sources`. Also served before the first epoch is closed, because that is when people look here.
pub(crate) async fn sources(State(shared): State<Arc<RequestContext>>) -> Response {
    let at = shared.state.views.closed();
    let at = at.as_deref();
    let begins = at.map(|at| AnswerHead::of(at.epoch));
    let sources = (shared.state.sources_now)();
    answer::json(SourcesAnswer {
        epoch: begins.map(|at| at.epoch),
        time: begins.map(|at| at.time),
        sources: sources.iter().map(|source| describe(source, at)).collect(),
    })
}

fn describe<'a>(source: &'a SourceStatus, at: Option<&Snapshot>) -> SourceAnswer<'a> {
    let id = SourceId::of(&source.name);
    SourceAnswer {
        name: &source.name,
        topic: &source.topic,
        connector: source.connector,
        details: named(&source.details),
        formats: named(&source.formats),
        rules: source.rules.as_ref().map(rules),
        watermark: Time(at.map_or(EventTime::MIN, |at| at.watermark(&[id]))),
        idle: source.idle,
        trouble: source.trouble.as_deref(),
        partitions: source.partitions.iter().map(partition).collect(),
    }
}

fn named<'a>(values: &'a [(&'static str, String)]) -> BTreeMap<&'a str, &'a str> {
    let values = values.iter();
    values.map(|(name, value)| (*name, value.as_str())).collect()
}

/// Seconds, without a fraction if they are whole.
fn seconds<S: Serializer>(seconds: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) if seconds.fract() == 0.0 => serializer.serialize_i64(*seconds as i64),
        seconds => seconds.serialize(serializer),
    }
}

fn rules(rules: &TimeRulesStatus) -> RulesAnswer {
    RulesAnswer {
        lateness: span(rules.lateness),
        late: rules.late.to_string(),
        idle_after: span(rules.idle_after),
        future_bound: span(rules.future_bound),
    }
}

fn partition(now: &PartitionStatus) -> PartitionAnswer {
    PartitionAnswer {
        partition: now.partition,
        position: now.position,
        start: now.log.map(|(start, _)| start),
        end: now.log.map(|(_, end)| end),
        lag_records: now.lag_records(),
        lag_seconds: now.lag_seconds,
        watermark: Time(now.watermark),
        idle: now.idle,
        paused: now.paused,
        open_transaction_since: Time(now.open_transaction_since.unwrap_or(EventTime::MIN)),
    }
}
