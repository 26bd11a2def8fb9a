//! Error responses as problem details (RFC 9457), in terms of the request.
//!
//! ```text
//! {"type":"/problems/as-of-gone","title":"version no longer kept","status":410,
//!  "detail":"…the facts…", "oldest":…members of this type…, "hint":"…the way on…"}
//! ```
//!
//! Every error has this form, including those of the server itself (no such route, too large, overloaded).

use std::fmt;

use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::http::answer;

/// The kinds of problems. The name in `type` is part of the API and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProblemKind {
    AsOfGone,
    KeyType,
    FieldUnknown,
    RowAbsent,
    ViewUnknown,
    EpochUnknown,
    SourceUnknown,
    PartitionUnknown,
    Cursor,
    Parameter,
    Body,
    NotYet,
    NotReady,
    KeyMissing,
    KeyTwice,
    Filter,
    Window,
    TooMuch,
    PeerAway,
    TooLarge,
    UrlTooLong,
    RouteUnknown,
    Method,
    Slow,
    Timeout,
    Overloaded,
    Unauthorized,
    Internal,
}

impl ProblemKind {
    fn parts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            ProblemKind::AsOfGone => ("as-of-gone", "version no longer kept", StatusCode::GONE),
            ProblemKind::KeyType => (
                "key-type",
                "value does not fit the field",
                StatusCode::BAD_REQUEST,
            ),
            ProblemKind::FieldUnknown => ("field-unknown", "no such field", StatusCode::BAD_REQUEST),
            ProblemKind::RowAbsent => ("row-absent", "no row with this key", StatusCode::NOT_FOUND),
            ProblemKind::ViewUnknown => ("view-unknown", "no such view", StatusCode::NOT_FOUND),
            ProblemKind::EpochUnknown => ("epoch-unknown", "no such epoch", StatusCode::NOT_FOUND),
            ProblemKind::SourceUnknown => ("source-unknown", "no such source", StatusCode::BAD_REQUEST),
            ProblemKind::PartitionUnknown => {
                ("partition-unknown", "no such partition", StatusCode::BAD_REQUEST)
            }
            ProblemKind::Cursor => ("cursor", "invalid cursor", StatusCode::BAD_REQUEST),
            ProblemKind::Parameter => ("parameter", "invalid parameter", StatusCode::BAD_REQUEST),
            ProblemKind::Body => ("body", "invalid body", StatusCode::BAD_REQUEST),
            ProblemKind::NotYet => ("not-yet", "not available yet", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::NotReady => ("not-ready", "process not ready", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::KeyMissing => ("key-missing", "key field missing", StatusCode::BAD_REQUEST),
            ProblemKind::KeyTwice => ("key-twice", "field given twice", StatusCode::BAD_REQUEST),
            ProblemKind::Filter => (
                "filter",
                "condition not applicable to the field",
                StatusCode::BAD_REQUEST,
            ),
            ProblemKind::Window => ("window", "window cannot be selected", StatusCode::BAD_REQUEST),
            ProblemKind::TooMuch => ("too-much", "read scans too many rows", StatusCode::BAD_REQUEST),
            ProblemKind::PeerAway => (
                "peer-away",
                "row is on another process",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            ProblemKind::TooLarge => ("too-large", "request too large", StatusCode::PAYLOAD_TOO_LARGE),
            ProblemKind::UrlTooLong => ("url-too-long", "URL too long", StatusCode::URI_TOO_LONG),
            ProblemKind::RouteUnknown => ("route-unknown", "no such route", StatusCode::NOT_FOUND),
            ProblemKind::Method => ("method", "method not allowed", StatusCode::METHOD_NOT_ALLOWED),
            ProblemKind::Slow => ("slow", "request timed out", StatusCode::REQUEST_TIMEOUT),
            ProblemKind::Timeout => ("timeout", "read timed out", StatusCode::SERVICE_UNAVAILABLE),
            ProblemKind::Overloaded => (
                "overloaded",
                "too many concurrent requests",
                StatusCode::SERVICE_UNAVAILABLE,
            ),
            ProblemKind::Unauthorized => ("unauthorized", "token required", StatusCode::UNAUTHORIZED),
            ProblemKind::Internal => ("internal", "internal error", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// The problem of a read that was abandoned.
pub(crate) fn too_long() -> Problem {
    Problem::new(
        ProblemKind::Timeout,
        "the read exceeded its time limit, including the time it was queued",
    )
    .retry_after(1)
    .hint("scan fewer rows: constrain more key fields, or select a window")
}

/// An error to be sent to the client.
#[derive(Debug)]
pub(crate) struct Problem(Box<ProblemInner>);

#[derive(Debug)]
struct ProblemInner {
    kind: ProblemKind,
    detail: String,
    /// Extension members, in the order in which they were added.
    members: Vec<(&'static str, serde_json::Value)>,
    hint: Option<String>,
    retry_after_s: Option<u32>,
    allow: Option<&'static str>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(ProblemInner {
            kind,
            detail,
            members: Vec::new(),
            hint: None,
            retry_after_s: None,
            allow: None,
        }))
    }

    /// The problem of an internal error: details go to the log, and none to the client.
    pub(crate) fn internal(fault: impl std::fmt::Display) -> Self {
        tracing::error!(%fault, "request failed because of an internal error");
        Self::new(ProblemKind::Internal, "the request failed; see the service's log")
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds an extension member.
    pub(crate) fn member(mut self, name: &'static str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).expect("members are plain data");
        self.0.members.push((name, value));
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    pub(crate) fn allow(mut self, methods: &'static str) -> Self {
        self.0.allow = Some(methods);
        self
    }
}

/// The body of a problem.
struct ProblemBody<'a> {
    kind: fmt::Arguments<'a>,
    title: &'static str,
    status: u16,
    parts: &'a ProblemInner,
}

impl Serialize for ProblemBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("type", &self.kind)?;
        members.serialize_entry("title", self.title)?;
        members.serialize_entry("status", &self.status)?;
        members.serialize_entry("detail", &self.parts.detail)?;
        for (name, value) in &self.parts.members {
            members.serialize_entry(name, value)?;
        }
        if let Some(hint) = &self.parts.hint {
            members.serialize_entry("hint", hint)?;
        }
        members.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let parts = *self.0;
        let (slug, title, status) = parts.kind.parts();
        let body = answer::bytes_of(&ProblemBody {
            kind: format_args!("/problems/{slug}"),
            title,
            status: status.as_u16(),
            parts: &parts,
        });
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = parts.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = parts.allow {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if parts.kind == ProblemKind::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(parts.kind, ProblemKind::TooLarge | ProblemKind::Slow) {
            // The rest of the body is not read, so the connection cannot be reused.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
