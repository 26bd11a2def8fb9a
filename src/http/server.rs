//! The server: accepts, limits and closes connections.
//!
//! ```text
//!  accept ─▶ a place among connections_max? ─▶ hyper ─▶ request ─▶ router (route.rs) ─▶ answer
//!               │ no
//!               └▶ 503, closed (a few at a time; beyond them the socket is closed without a word)
//!  stop ─▶ no more accepted ─▶ requests in flight end, idle connections close ─▶ after the grace: dropped
//! ```

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::http::problem::{Problem, ProblemKind};
use crate::http::route;
use crate::http::shared::{NONE, OnDrop, RequestContext};
use crate::http::{HttpSettings, ServerState};

/// Maximum size of a request head; larger ones get a 431 from hyper, without a body.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Number of connections beyond the limit that are answered with a 503.
const TURNED_AWAY_MAX: usize = 64;
/// Maximum number of concurrent reads that wait for other processes of a cluster.
const GATHERS_MAX: usize = 128;
/// The pause after a failed accept, which usually means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is told to stop.
pub(crate) async fn run(
    listener: TcpListener,
    settings: HttpSettings,
    state: Arc<ServerState>,
    mut stop: watch::Receiver<Option<Duration>>,
) {
    let places = Arc::new(Semaphore::new(settings.connections_max));
    let places_outside = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let patterns = route::table().map(|(pattern, _)| pattern);
    let shared = Arc::new(RequestContext {
        scans: Arc::new(Semaphore::new(settings.scans_max.max(1))),
        gathers: Arc::new(Semaphore::new(GATHERS_MAX)),
        routes: patterns
            .into_iter()
            .chain([NONE])
            .map(|pattern| (pattern, state.metrics.route(pattern)))
            .collect(),
        settings,
        state,
    });
    let router = route::router(&shared);
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
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers go out as they are ready: batching is done by `pipeline_flush`, not by waiting for more.
        let _best_effort = stream.set_nodelay(true);
        if let Ok(place) = places.clone().try_acquire_owned() {
            connections.spawn(connection(
                stream,
                shared.clone(),
                router.clone(),
                stop.clone(),
                place,
            ));
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
            "closing connections that outlived the shutdown grace period"
        );
        connections.shutdown().await;
    }
}

async fn connection(
    stream: TcpStream,
    shared: Arc<RequestContext>,
    router: Router,
    mut stop: watch::Receiver<Option<Duration>>,
    _place: OwnedSemaphorePermit,
) {
    let open = shared.state.metrics.http_connections.clone();
    open.inc();
    let _closed = OnDrop(|| {
        open.dec();
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.settings.idle_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        _ = stop.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        // Disconnecting clients, idle connections, malformed heads: nothing that we could do better.
        tracing::debug!(%error, "connection closed early");
    }
}

/// Answers one request of a connection beyond the limit with a 503.
async fn turn_away(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let service = service_fn(|_request| async {
        let problem = Problem::new(
            ProblemKind::Overloaded,
            "the server has reached its limit of open connections",
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
