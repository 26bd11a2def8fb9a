//! Responses: their common parts, and conditional requests.
//!
//! ETags are weak: a response names its epoch, so its bytes differ at each epoch even if the requested data
//! is the same. Tags identify the state of that data (see [`row_tag`], [`rows_tag`]), so `If-None-Match`
//! results in a 304 until it changes.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::http::ServerState;
use crate::position::{Offset, PartitionId, SourceId};
use crate::schema::Numbers;
use crate::schema::datum::Datum;
use crate::time::{Epoch, EventTime, WindowLayout, micros};
use crate::view::Snapshot;
use crate::view::serve::{FoundRow, Serve};

/// A body, and the ETag of its contents.
pub(crate) struct TaggedBody {
    pub body: Vec<u8>,
    pub tag: Option<String>,
}

impl IntoResponse for TaggedBody {
    fn into_response(self) -> Response {
        let mut response = raw_json(self.body);
        let headers = response.headers_mut();
        // Cacheable, but must be revalidated: that is the purpose of the tag.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            headers.insert(ETAG, tag);
        }
        response
    }
}

/// The response; a 304 if one of `known`, the values of `If-None-Match`, contains its tag.
pub(crate) fn unless_known(mut response: Response, known: &[HeaderValue]) -> Response {
    let tag = response.headers().get(ETAG);
    if tag.is_some_and(|tag| {
        known
            .iter()
            .any(|known| matches(known.as_bytes(), tag.as_bytes()))
    }) {
        // The body is kept only for its length, as with HEAD: hyper sends none with this status.
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(CONTENT_TYPE);
    }
    response
}

/// Whether a value of `If-None-Match` contains `tag`. Compared weakly, as RFC 9110 requires for this header.
fn matches(given: &[u8], tag: &[u8]) -> bool {
    fn opaque(tag: &[u8]) -> &[u8] {
        let tag = tag.trim_ascii();
        tag.strip_prefix(b"W/").unwrap_or(tag)
    }
    // Our tags contain no comma, so a foreign tag that is split here cannot match one of ours.
    given.trim_ascii() == b"*"
        || given
            .split(|byte| *byte == b',')
            .any(|one| opaque(one) == opaque(tag))
}

/// A response whose body is JSON.
pub(crate) fn json(body: impl Serialize) -> Response {
    raw_json(bytes_of(&body))
}

fn raw_json(body: Vec<u8>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type)], body).into_response()
}

/// A body as bytes. Cannot fail, because names are strings and writing to memory succeeds.
pub(crate) fn bytes_of(body: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    serde_json::to_writer(&mut out, body).expect("responses are written to memory");
    out
}

/// A time; `null` if unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub EventTime);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            EventTime::MIN => serializer.serialize_none(),
            time => serializer.collect_str(&time),
        }
    }
}

/// A value serialized by its `Display`.
pub(crate) fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// The common head of all responses.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct AnswerHead {
    pub epoch: u64,
    pub time: Time,
}

impl AnswerHead {
    pub(crate) fn of(epoch: Epoch) -> Self {
        Self {
            epoch: epoch.0,
            time: Time(epoch.opened_at()),
        }
    }
}

/// The next offset of each partition, by source: the response includes everything before it.
#[derive(Clone, Copy)]
pub(crate) struct Positions<'a> {
    pub state: &'a ServerState,
    pub at: &'a Snapshot,
}

impl Serialize for Positions<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sources = serializer.serialize_map(None)?;
        for name in &self.state.sources {
            let source = SourceId::of(name);
            let of =
                |(id, next): &(PartitionId, Offset)| (id.source == source).then_some((id.partition, *next));
            let next: BTreeMap<u32, Offset> = self.at.positions.iter().filter_map(of).collect();
            if !next.is_empty() {
                sources.serialize_entry(name, &next)?;
            }
        }
        sources.end()
    }
}

/// Rows of a view, and the cursor of the next ones.
pub(crate) struct Rows<'a> {
    pub view: &'a dyn Serve,
    pub rows: &'a [FoundRow],
    pub next: Option<&'a str>,
    pub numbers: Numbers,
}

/// `rows`, `closed`, `next`. `closed` is separate from the rows, with one entry per row, and only present for
/// windowed views: so a row has exactly the view's fields, whatever their names are.
impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Each<'a>(&'a Rows<'a>);
        impl Serialize for Each<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let Rows {
                    view, rows, numbers, ..
                } = self.0;
                let schema = view.schema();
                serializer.collect_seq(rows.iter().map(|found| schema.object(&found.row, *numbers)))
            }
        }
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("rows", &Each(self))?;
        if self.view.spec().windows.is_some() {
            let closed: Vec<bool> = self.rows.iter().map(|found| found.closed == Some(true)).collect();
            members.serialize_entry("closed", &closed)?;
        }
        members.serialize_entry("next", &self.next)?;
        members.end()
    }
}

/// The tag of a row: the epoch of its last change, whether it is closed, and its window, because a URL with
/// `window=last_closed` denotes another row when the watermark advances.
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

/// The tag of rows: the epoch of the view's last change, and which of its windows are closed.
pub(crate) fn rows_tag(view: &dyn Serve, at: &Snapshot) -> Option<String> {
    let changed = view.changed(at);
    if changed == Epoch::ZERO {
        return None;
    }
    Some(match view.spec().windows {
        None => format!("W/\"{changed}\""),
        Some(windows) => format!("W/\"{changed}-{}\"", closed_through(windows, view.watermark(at))),
    })
}

/// A number that changes exactly when a window may close.
fn closed_through(windows: WindowLayout, watermark: EventTime) -> i64 {
    match windows {
        WindowLayout::Aligned { size, every, offset } if watermark != EventTime::MIN => {
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
        let windows = WindowLayout::Aligned { size, every, offset };
        let through = |at| closed_through(windows, EventTime(at));
        // Ends are at 65, 85, 105 …
        assert_eq!(through(65), through(84));
        assert_eq!(through(64) + 1, through(65));
        assert_eq!(through(84) + 1, through(85));
    }
}
