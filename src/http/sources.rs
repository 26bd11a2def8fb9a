//! `GET /v1/sources`: where the data comes from, by which rules, and how far behind it is.

use std::fmt::Display;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use crate::http::server::Shared;
use crate::http::{answer, json};
use crate::position::SourceId;
use crate::runtime::sources::{PartitionNow, RulesNow, SourceNow};
use crate::time::{EventTime, span};

/// `GET /v1/sources`. Answered before the first epoch is closed, too: who waits for it looks here.
pub(crate) async fn sources(State(shared): State<Arc<Shared>>) -> Response {
    let at = shared.state.views.closed();
    let mut out = Vec::with_capacity(4 << 10);
    out.push(b'{');
    match &at {
        Some(at) => json::moment(&mut out, at.epoch),
        None => out.extend_from_slice(b"\"epoch\":null,\"time\":null"),
    }
    out.extend_from_slice(b",\"sources\":[");
    json::list(&mut out, (shared.state.sources_now)(), |out, source| {
        let id = SourceId::of(&source.name);
        let watermark = at.as_ref().map_or(EventTime::MIN, |at| at.watermark(&[id]));
        describe(out, &source, watermark);
    });
    out.extend_from_slice(b"]}");
    answer::json(out)
}

fn describe(out: &mut Vec<u8>, source: &SourceNow, watermark: EventTime) {
    out.extend_from_slice(b"{\"name\":");
    json::string(out, &source.name);
    out.extend_from_slice(b",\"topic\":");
    json::string(out, &source.topic);
    out.extend_from_slice(b",\"connector\":");
    match source.connector {
        Some(name) => json::string(out, name),
        None => out.extend_from_slice(b"null"),
    }
    named(out, "details", &source.details);
    named(out, "formats", &source.formats);
    out.extend_from_slice(b",\"rules\":");
    match &source.rules {
        Some(given) => rules(out, given),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"watermark\":");
    json::time(out, watermark);
    member(out, "idle", Some(source.idle));
    out.extend_from_slice(b",\"trouble\":");
    match &source.trouble {
        Some(trouble) => json::string(out, trouble),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"partitions\":[");
    json::list(out, &source.partitions, partition);
    out.extend_from_slice(b"]}");
}

/// Appends `,"name":{…}`.
fn named(out: &mut Vec<u8>, name: &str, values: &[(&'static str, String)]) {
    out.push(b',');
    json::string(out, name);
    out.extend_from_slice(b":{");
    json::list(out, values, |out, (name, value)| {
        json::string(out, name);
        out.push(b':');
        json::string(out, value);
    });
    out.push(b'}');
}

fn rules(out: &mut Vec<u8>, rules: &RulesNow) {
    out.extend_from_slice(b"{\"lateness\":");
    json::quoted(out, span(rules.lateness));
    out.extend_from_slice(b",\"late\":");
    json::quoted(out, rules.late);
    out.extend_from_slice(b",\"idle_after\":");
    json::quoted(out, span(rules.idle_after));
    out.extend_from_slice(b",\"future_bound\":");
    json::quoted(out, span(rules.future_bound));
    out.push(b'}');
}

fn partition(out: &mut Vec<u8>, now: &PartitionNow) {
    out.extend_from_slice(b"{\"partition\":");
    json::number(out, now.partition);
    member(out, "position", now.position);
    member(out, "start", now.log.map(|(start, _)| start));
    member(out, "end", now.log.map(|(_, end)| end));
    member(out, "lag_records", now.lag_records());
    member(out, "lag_seconds", now.lag_seconds);
    out.extend_from_slice(b",\"watermark\":");
    json::time(out, now.watermark);
    member(out, "idle", Some(now.idle));
    member(out, "paused", now.paused);
    out.extend_from_slice(b",\"open_transaction_since\":");
    json::time(out, now.open_transaction_since.unwrap_or(EventTime::MIN));
    out.push(b'}');
}

/// Appends `,"name":value`, `null` where it is not known.
fn member(out: &mut Vec<u8>, name: &str, value: Option<impl Display>) {
    out.push(b',');
    json::string(out, name);
    out.push(b':');
    match value {
        Some(value) => json::number(out, value),
        None => out.extend_from_slice(b"null"),
    }
}
