//! The server: connections, limits, and which function answers which route.
//!
//! ```text
//!  accept ─▶ a place among connections_max? ─▶ hyper ─▶ request ─▶ a place among requests_max? ─▶ answer
//!               │ no                                                  │ no
//!               └▶ 503, closed (a few at a time; beyond them          └▶ 503, the connection stays
//!                  the socket is closed without a word)
//!  stop ─▶ no more accepted ─▶ requests in flight end, idle connections close ─▶ after the grace: dropped
//! ```

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::clock;
use crate::http::problem::{Kind, Problem};
use crate::http::route::{NONE, PATTERNS, Route};
use crate::http::{HttpSettings, State, answer, describe, query, read};
use crate::metrics::RouteMetrics;

/// What all requests share.
pub(crate) struct Shared {
    pub settings: HttpSettings,
    pub state: Arc<State>,
    /// Places for large scans.
    pub scans: Arc<Semaphore>,
    in_flight: AtomicUsize,
    routes: [RouteMetrics; PATTERNS.len()],
}

/// The longest head of a request that is read at all; a longer one is answered 431 by hyper, without a body.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How many connections beyond the limit are told so at once.
const TURNED_AWAY_MAX: usize = 64;
/// The pause after a failure to accept, which means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers until it is told to stop.
pub(crate) async fn run(
    listener: TcpListener,
    settings: HttpSettings,
    state: Arc<State>,
    mut stop: watch::Receiver<Option<Duration>>,
) {
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let places_outside = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let shared = Arc::new(Shared {
        scans: Arc::new(Semaphore::new(settings.scans_max.max(1))),
        in_flight: AtomicUsize::new(0),
        routes: PATTERNS.map(|pattern| state.metrics.route(pattern)),
        settings,
        state,
    });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = connections.join_next() => continue,
            _ = stop.changed() => break,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers go out as they are ready: batching is done by `pipeline_flush`, not by waiting for more.
        let _best_effort = stream.set_nodelay(true);
        if let Ok(place) = places.clone().try_acquire_owned() {
            connections.spawn(connection(stream, shared.clone(), stop.clone(), place));
        } else if let Ok(place) = places_outside.clone().try_acquire_owned() {
            connections.spawn(turn_away(stream, place));
        }
    }
    drop(listener);
    let grace = stop.borrow().unwrap_or(Duration::ZERO);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, drained).await.is_err() {
        tracing::warn!(
            dropped = connections.len(),
            "connections did not end within the grace"
        );
        connections.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<Option<Duration>>,
    _place: OwnedSemaphorePermit,
) {
    let open = shared.state.metrics.http_connections.clone();
    open.inc();
    let _closed = OnDrop(|| {
        open.dec();
    });
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(&shared, request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.settings.idle_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        _ = stop.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        // Clients that go away, idle connections, malformed heads: nothing that we could do better.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Says 503 to one request of a connection for which there is no place.
async fn turn_away(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let service = service_fn(|_request| async {
        let problem = Problem::new(
            Kind::Overloaded,
            "as many connections are open as the server takes",
        );
        Ok::<_, Infallible>(problem.retry_after(1).into_response())
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(1))
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _gone = serving.await;
}

/// Runs its closure when it is dropped, whichever way that comes about (a client may go away at any await).
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let started = clock::instant();
    let gauge = &shared.state.metrics.http_in_flight;
    gauge.inc();
    let in_flight = shared.in_flight.fetch_add(1, Ordering::Relaxed);
    let _done = OnDrop(|| {
        gauge.dec();
        shared.in_flight.fetch_sub(1, Ordering::Relaxed);
    });

    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let url_bytes = path.len() + head.uri.query().map_or(0, str::len);
    let (index, outcome) = if url_bytes > shared.settings.url_bytes_max {
        let max = shared.settings.url_bytes_max;
        let problem = Problem::new(
            Kind::UrlTooLong,
            format!("the URL has {url_bytes} bytes, {max} are taken"),
        );
        (
            NONE,
            Err(problem
                .number("bytes_max", max)
                .hint("put the read into the body of POST /v1/query")),
        )
    } else {
        match Route::read(path) {
            Err(problem) => (NONE, Err(problem)),
            Ok(route) if in_flight >= shared.settings.requests_max && !route.is_vital() => {
                let problem = Problem::new(
                    Kind::Overloaded,
                    "as many requests are in flight as the server takes",
                );
                (route.index(), Err(problem.retry_after(1)))
            }
            Ok(route) => (route.index(), dispatch(shared, route, &head, body).await),
        }
    };
    let response = outcome.unwrap_or_else(|problem| {
        let ends = problem.ends_connection();
        let mut response = problem.into_response();
        if ends {
            // What is left of the body is not read, so nothing can follow on this connection.
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    });
    let took = clock::instant().saturating_duration_since(started);
    shared.routes[index].answered(response.status().as_u16(), took);
    response
}

async fn dispatch(
    shared: &Arc<Shared>,
    route: Route<'_>,
    head: &hyper::http::request::Parts,
    body: Incoming,
) -> Result<Response<Full<Bytes>>, Problem> {
    let (method, allowed) = match route {
        Route::Query => (head.method == Method::POST, "POST"),
        _ => (
            head.method == Method::GET || head.method == Method::HEAD,
            "GET, HEAD",
        ),
    };
    if !method {
        let detail = format!("{} is not answered here, only {allowed}", head.method);
        return Err(Problem::new(Kind::Method, detail).allow(allowed));
    }
    let asked = head.uri.query().unwrap_or("");
    match route {
        Route::Row(name) => read::row(shared, &name, asked)
            .await
            .map(|answer| answer.respond(&head.headers)),
        Route::Rows(name) => read::rows(shared, &name, asked)
            .await
            .map(|answer| answer.respond(&head.headers)),
        Route::Query => query::query(shared, body)
            .await
            .map(|answer| answer.respond(&head.headers)),
        Route::Views => describe::views(shared).await.map(answer::json),
        Route::View(name) => describe::view(shared, &name).await.map(answer::json),
        Route::Epoch(epoch) => describe::epoch(shared, epoch).await.map(answer::json),
        Route::Live => Ok(answer::json(b"{\"live\":true}".to_vec())),
        Route::Ready => ready(shared),
        Route::Metrics => {
            let text = shared.state.metrics.text();
            Ok(answer::of_type(
                StatusCode::OK,
                crate::metrics::CONTENT_TYPE,
                text.into_bytes(),
            ))
        }
    }
}

fn ready(shared: &Shared) -> Result<Response<Full<Bytes>>, Problem> {
    let reasons = shared.state.readiness.reasons();
    if reasons.is_empty() {
        return Ok(answer::json(b"{\"ready\":true}".to_vec()));
    }
    let detail = reasons
        .iter()
        .map(|(what, why)| format!("{what}: {why}"))
        .collect::<Vec<_>>()
        .join("; ");
    Err(Problem::new(Kind::NotReady, detail)
        .member("reasons", |out| answer::reasons(out, &reasons))
        .retry_after(1))
}
