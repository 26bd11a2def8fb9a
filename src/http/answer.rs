//! What comes back: the parts that all answers have, and whether the client has the answer already.
//!
//! ETags are weak: an answer names its epoch, so its bytes differ at each, while what was asked for is the same. They
//! tell the state of what was asked for apart (see [`row_tag`], [`rows_tag`]), so `If-None-Match` gives 304 until
//! something changes.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};

use crate::http::{State, json};
use crate::position::SourceId;
use crate::schema::datum::Datum;
use crate::time::{Epoch, EventTime, micros};
use crate::view::serve::{FoundRow, Serve};
use crate::view::{Moment, Windows};

/// A body, and the ETag of what it tells.
pub(crate) struct Answer {
    pub body: Vec<u8>,
    pub tag: Option<String>,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = json(self.body);
        let headers = response.headers_mut();
        // May be kept, must be asked about: that is what the tag is for.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// The response; as 304 when one of `known`, the values of `If-None-Match`, names its tag.
pub(crate) fn unless_known(mut response: Response, known: &[HeaderValue]) -> Response {
    let tag = response.headers().get(ETAG);
    if tag.is_some_and(|tag| {
        known
            .iter()
            .any(|known| matches(known.as_bytes(), tag.as_bytes()))
    }) {
        // The body stays for its length alone, as with HEAD: hyper sends none with this status.
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response
}

/// Whether a value of `If-None-Match` names `tag`. Compared weakly, as RFC 9110 wants it for this header.
fn matches(given: &[u8], tag: &[u8]) -> bool {
    fn opaque(tag: &[u8]) -> &[u8] {
        let tag = tag.trim_ascii();
        tag.strip_prefix(b"W/").unwrap_or(tag)
    }
    // Our tags hold no comma, so a tag that does, split here, can't be taken for one of ours.
    given.trim_ascii() == b"*"
        || given
            .split(|byte| *byte == b',')
            .any(|one| opaque(one) == opaque(tag))
}

/// A JSON response.
pub(crate) fn json(body: impl Into<Body>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type)], body.into()).into_response()
}

/// Opens an answer: `{"epoch":…,"time":…,"watermark":…`.
pub(crate) fn open(out: &mut Vec<u8>, view: &dyn Serve, at: &Moment) {
    out.push(b'{');
    json::moment(out, at.epoch);
    out.extend_from_slice(b",\"watermark\":");
    json::time(out, view.watermark(at));
}

/// Appends `,"positions":{"payments":{"3":18232}}`: the next offset of each partition, all below are in the answer.
pub(crate) fn positions(out: &mut Vec<u8>, state: &State, at: &Moment) {
    out.extend_from_slice(b",\"positions\":{");
    let mut first = true;
    for name in &state.sources {
        let source = SourceId::of(name);
        let mut bound = at
            .positions
            .iter()
            .filter(|(id, _)| id.source == source)
            .peekable();
        if bound.peek().is_none() {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        json::string(out, name);
        out.extend_from_slice(b":{");
        json::list(out, bound, |out, (id, next)| {
            json::quoted(out, id.partition);
            out.push(b':');
            json::number(out, next);
        });
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the reasons of [`crate::health::Readiness`] as an object.
pub(crate) fn reasons(out: &mut Vec<u8>, reasons: &BTreeMap<&'static str, String>) {
    out.push(b'{');
    json::list(out, reasons, |out, (what, why)| {
        json::string(out, what);
        out.push(b':');
        json::string(out, why);
    });
    out.push(b'}');
}

/// Appends how many records are left by source as an object, `null` where nobody knows.
pub(crate) fn records_left(out: &mut Vec<u8>, left: &BTreeMap<String, Option<u64>>) {
    out.push(b'{');
    json::list(out, left, |out, (source, records)| {
        json::string(out, source);
        out.push(b':');
        match records {
            Some(records) => json::number(out, records),
            None => out.extend_from_slice(b"null"),
        }
    });
    out.push(b'}');
}

/// The tag of one row: the epoch in which it last changed, whether it is closed, and which window it is, as a URL with
/// `window=last_closed` means another row when the watermark moves on.
pub(crate) fn row_tag(view: &dyn Serve, found: &FoundRow) -> Option<String> {
    if found.version == Epoch::ZERO {
        return None;
    }
    let mut tag = format!("W/\"{}", found.version);
    if let Some(closed) = found.closed {
        tag.push_str(if closed { "-c" } else { "-o" });
        let start = view
            .schema()
            .position("window_start")
            .and_then(|at| found.row.get(at));
        if let Some(Datum::Time(start)) = start {
            let _infallible = write!(tag, "-{}", start.micros());
        }
    }
    tag.push('"');
    Some(tag)
}

/// The tag of rows: the epoch in which the view last changed, and which of its windows are closed.
pub(crate) fn rows_tag(view: &dyn Serve, at: &Moment) -> Option<String> {
    let changed = view.changed(at);
    if changed == Epoch::ZERO {
        return None;
    }
    Some(match view.spec().windows {
        None => format!("W/\"{changed}\""),
        Some(windows) => format!("W/\"{changed}-{}\"", closed_through(windows, view.watermark(at))),
    })
}

/// A number that moves exactly when a window may close.
fn closed_through(windows: Windows, watermark: EventTime) -> i64 {
    match windows {
        Windows::Aligned { size, every, offset } if watermark != EventTime::MIN => {
            let first_end = micros(offset).saturating_add(micros(size));
            watermark
                .micros()
                .saturating_sub(first_end)
                .div_euclid(micros(every).max(1))
        }
        _ => watermark.micros(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn if_none_match_takes_lists_and_weak_tags() {
        for given in ["W/\"7\"", "\"7\"", "\"1\", W/\"7\"", " * "] {
            assert!(matches(given.as_bytes(), b"W/\"7\""), "{given}");
        }
        for given in ["W/\"8\"", "7", "", "\"77\"", "\"1\",\"2\""] {
            assert!(!matches(given.as_bytes(), b"W/\"7\""), "{given}");
        }
    }

    #[test]
    fn windows_close_when_the_watermark_reaches_an_end() {
        let (size, every, offset) = (
            Duration::from_micros(60),
            Duration::from_micros(20),
            Duration::from_micros(5),
        );
        let windows = Windows::Aligned { size, every, offset };
        let through = |at| closed_through(windows, EventTime(at));
        // Ends are at 65, 85, 105 …
        assert_eq!(through(65), through(84));
        assert_eq!(through(64) + 1, through(65));
        assert_eq!(through(84) + 1, through(85));
    }
}
