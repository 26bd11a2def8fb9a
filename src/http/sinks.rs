//! `GET /v1/sinks`: the sinks, their guarantees, and their lag.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::http::answer::{self, AnswerHead, Time};
use crate::http::shared::RequestContext;
use crate::runtime::sinks::SinkStatus;
use crate::sink::Contract;

#[derive(Serialize)]
struct SinksAnswer<'a> {
    epoch: Option<u64>,
    time: Option<Time>,
    sinks: Vec<SinkAnswer<'a>>,
}

#[derive(Serialize)]
struct SinkAnswer<'a> {
    name: &'a str,
    method: &'static str,
    to: &'a str,
    #[serde(serialize_with = "answer::text")]
    contract: Contract,
    shards: u32,
    delivered: Option<u64>,
    rows: u64,
    waiting_rows: u64,
    waiting_bytes: u64,
    waiting_seconds: Option<f64>,
    retries: u64,
    trouble: Option<&'a str>,
}

/// `GET /v1/sinks`. Also served before the first epoch is closed.
pub(crate) async fn sinks(State(shared): State<Arc<RequestContext>>) -> Response {
    let at = shared.state.views.closed().map(|at| AnswerHead::of(at.epoch));
    let sinks = (shared.state.sinks_now)();
    answer::json(SinksAnswer {
        epoch: at.map(|at| at.epoch),
        time: at.map(|at| at.time),
        sinks: sinks.iter().map(describe).collect(),
    })
}

fn describe(sink: &SinkStatus) -> SinkAnswer<'_> {
    SinkAnswer {
        name: &sink.name,
        method: sink.method.name(),
        to: &sink.description,
        contract: sink.contract,
        shards: sink.shards,
        delivered: sink.delivered.map(|epoch| epoch.0),
        rows: sink.rows,
        waiting_rows: sink.waiting_rows,
        waiting_bytes: sink.waiting_bytes,
        waiting_seconds: sink.waiting_age_seconds,
        retries: sink.retries,
        trouble: sink.trouble.as_deref(),
    }
}
