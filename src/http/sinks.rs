//! `GET /v1/sinks`: where rows go, what is promised of them, and how far behind the stores are.

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::http::server::Shared;
use crate::http::{answer, json};
use crate::runtime::sinks::SinkNow;

/// `GET /v1/sinks`. Answered before the first epoch is closed, too.
pub(crate) async fn sinks(State(shared): State<Arc<Shared>>) -> Response {
    let at = shared.state.views.closed();
    let mut out = Vec::with_capacity(1 << 10);
    out.push(b'{');
    match &at {
        Some(at) => json::moment(&mut out, at.epoch),
        None => out.extend_from_slice(b"\"epoch\":null,\"time\":null"),
    }
    out.extend_from_slice(b",\"sinks\":[");
    json::list(&mut out, (shared.state.sinks_now)(), |out, sink| {
        describe(out, &sink)
    });
    out.extend_from_slice(b"]}");
    answer::json(out)
}

fn describe(out: &mut Vec<u8>, sink: &SinkNow) {
    out.extend_from_slice(b"{\"name\":");
    json::string(out, &sink.name);
    out.extend_from_slice(b",\"method\":");
    json::string(out, sink.method);
    out.extend_from_slice(b",\"to\":");
    json::string(out, &sink.description);
    out.extend_from_slice(b",\"contract\":");
    json::quoted(out, sink.contract);
    member(out, "shards", Some(sink.shards));
    member(out, "delivered", sink.delivered.map(|epoch| epoch.0));
    member(out, "rows", Some(sink.rows));
    member(out, "waiting_rows", Some(sink.waiting_rows));
    member(out, "waiting_bytes", Some(sink.waiting_bytes));
    member(out, "waiting_seconds", sink.waiting_age_seconds);
    member(out, "retries", Some(sink.retries));
    out.extend_from_slice(b",\"trouble\":");
    match &sink.trouble {
        Some(trouble) => json::string(out, trouble),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
}

/// Appends `,"name":value`, `null` where there is none.
fn member(out: &mut Vec<u8>, name: &str, value: Option<impl Display>) {
    out.push(b',');
    json::string(out, name);
    out.push(b':');
    match value {
        Some(value) => json::number(out, value),
        None => out.extend_from_slice(b"null"),
    }
}
