//! The routes, and what applies to every request.
//!
//! ```text
//!  request ─▶ pattern ─▶ URL short enough? ─▶ a place among requests_max? ─▶ handler ─▶ 304? ─▶ counted
//!             (axum)         │ no: 414            │ no: 503, under /v1/        │            by pattern and status
//!                                                                              └▶ or a refusal, problem.rs
//! ```

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use hyper::header::{CONTENT_TYPE, IF_NONE_MATCH};
use hyper::{HeaderMap, Method, Uri};
use serde_json::json;

use crate::http::problem::{Problem, ProblemKind};
use crate::http::shared::{NONE, OnDrop, RequestContext};
use crate::http::{answer, cluster, describe, query, read, sinks, sources, why};
use crate::suggest::nearest;
use crate::{clock, metrics};

/// Routes outside of `/v1/` are served whatever the load, because supervisors act on silence.
const SHED: &str = "/v1/";

/// Each pattern with its handler.
pub(crate) fn table() -> [(&'static str, MethodRouter<Arc<RequestContext>>); 13] {
    [
        ("/v1/views", get(describe::views)),
        ("/v1/views/{name}", get(describe::view)),
        ("/v1/views/{name}/row", get(read::row)),
        ("/v1/views/{name}/rows", get(read::rows)),
        (
            "/v1/query",
            post(query::query).fallback(|method| not_allowed(method, "POST")),
        ),
        ("/v1/epochs/{epoch}", get(describe::epoch)),
        ("/v1/sources", get(sources::sources)),
        ("/v1/sinks", get(sinks::sinks)),
        ("/v1/cluster", get(cluster::cluster)),
        ("/v1/why-not-closed", get(why::why_not_closed)),
        ("/health/live", get(live)),
        ("/health/ready", get(ready)),
        ("/metrics", get(exposed)),
    ]
}

/// The routes as a service that handles every request.
pub(crate) fn router(shared: &Arc<RequestContext>) -> Router {
    table()
        .into_iter()
        .fold(Router::new(), |router, (pattern, methods)| {
            router.route(pattern, methods)
        })
        .method_not_allowed_fallback(|method| not_allowed(method, "GET, HEAD"))
        .fallback(unknown)
        .layer(middleware::from_fn_with_state(shared.clone(), observed))
        .with_state(shared.clone())
}

/// Limits, serves and counts one request.
async fn observed(State(shared): State<Arc<RequestContext>>, request: Request, next: Next) -> Response {
    let started = clock::instant();
    let in_flight = &shared.state.metrics.http_in_flight;
    let others = in_flight.inc();
    let _done = OnDrop(|| {
        in_flight.dec();
    });
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let pattern = matched.as_ref().map_or(NONE, MatchedPath::as_str);
    let admitted = authorize(&shared, request.headers(), pattern)
        .and_then(|()| admit(&shared, request.uri(), pattern, others));
    let response = match admitted {
        Ok(()) => {
            let known: Vec<_> = request.headers().get_all(IF_NONE_MATCH).iter().cloned().collect();
            answer::unless_known(next.run(request).await, &known)
        }
        Err(problem) => problem.into_response(),
    };
    let took = clock::instant().saturating_duration_since(started);
    shared.routes[pattern].answered(response.status().as_u16(), took);
    response
}

/// Rejects requests without a valid token, where one is needed.
fn authorize(shared: &RequestContext, headers: &HeaderMap, pattern: &str) -> Result<(), Problem> {
    match &shared.access {
        Some(access) if !access.admits(pattern, headers) => Err(Problem::new(
            ProblemKind::Unauthorized,
            "the request has no valid token",
        )
        .hint("send one in the header `Authorization: Bearer TOKEN`")),
        _ => Ok(()),
    }
}

/// Rejects requests beyond the limits, before any work is done for them.
fn admit(shared: &RequestContext, uri: &Uri, pattern: &str, others: i64) -> Result<(), Problem> {
    let url_bytes = uri.path().len() + uri.query().map_or(0, str::len);
    let max = shared.settings.url_bytes_max;
    if url_bytes > max {
        let detail = format!("the URL has {url_bytes} bytes; the limit is {max}");
        return Err(Problem::new(ProblemKind::UrlTooLong, detail)
            .member("bytes_max", max)
            .hint("send the read in the body of POST /v1/query"));
    }
    if pattern.starts_with(SHED) && others >= shared.settings.requests_max as i64 {
        let detail = "the server has reached its limit of concurrent requests";
        return Err(Problem::new(ProblemKind::Overloaded, detail).retry_after(1));
    }
    Ok(())
}

async fn not_allowed(method: Method, allowed: &'static str) -> Problem {
    let detail = format!("this route does not allow {method}, only {allowed}");
    Problem::new(ProblemKind::Method, detail)
        .allow(allowed)
        .hint(format!("send {}", allowed.replace(", ", " or ")))
}

async fn unknown(State(shared): State<Arc<RequestContext>>, uri: Uri) -> Problem {
    let path = uri.path();
    let patterns = shared.routes.keys().copied().filter(|pattern| *pattern != NONE);
    let problem = Problem::new(ProblemKind::RouteUnknown, format!("there is no route `{path}`"));
    match nearest(path, patterns) {
        Some(pattern) => problem.hint(format!("did you mean `{pattern}`?")),
        None => problem.hint("GET /v1/views lists what can be read"),
    }
}

async fn live() -> Response {
    answer::json(json!({"live": true}))
}

async fn ready(State(shared): State<Arc<RequestContext>>) -> Result<Response, Problem> {
    let reasons = shared.state.readiness.reasons();
    if reasons.is_empty() {
        let troubles = shared.state.readiness.troubles();
        if troubles.is_empty() {
            return Ok(answer::json(json!({"ready": true})));
        }
        return Ok(answer::json(json!({"ready": true, "troubles": troubles})));
    }
    let detail = reasons
        .iter()
        .map(|(what, why)| format!("{what}: {why}"))
        .collect::<Vec<_>>()
        .join("; ");
    let problem = Problem::new(ProblemKind::NotReady, detail)
        .member("reasons", &reasons)
        .retry_after(1);
    let left = shared.state.readiness.records_left();
    Err(match left.is_empty() {
        true => problem,
        false => problem.member("records_left", &left),
    })
}

async fn exposed(State(shared): State<Arc<RequestContext>>) -> impl IntoResponse {
    (
        [(CONTENT_TYPE, metrics::CONTENT_TYPE)],
        shared.state.metrics.text(),
    )
}
