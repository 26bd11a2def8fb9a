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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::error::Result;
use crate::http::access::Access;
use crate::http::problem::{Problem, ProblemKind};
use crate::http::route;
use crate::http::shared::{NONE, OnDrop, RequestContext};
#[cfg(feature = "tls")]
use crate::http::tls::TlsAcceptor;
use crate::http::{CertificateFiles, HttpSettings, ServerState};

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
    (settings, access, security): (HttpSettings, Option<Access>, ConnectionSecurity),
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
        access,
    });
    let security = Arc::new(security);
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
            let serving = ServedConnection {
                shared: shared.clone(),
                router: router.clone(),
                stop: stop.clone(),
                _place: place,
            };
            connections.spawn(connection(stream, security.clone(), serving));
        } else if let Ok(place) = places_outside.clone().try_acquire_owned() {
            match &*security {
                ConnectionSecurity::Plain => _ = connections.spawn(turn_away(stream, place)),
                // A handshake is just what there is no capacity for.
                #[cfg(feature = "tls")]
                ConnectionSecurity::Tls(_) => drop(stream),
            }
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

/// Whether connections are encrypted.
pub(crate) enum ConnectionSecurity {
    Plain,
    #[cfg(feature = "tls")]
    Tls(TlsAcceptor),
}

impl ConnectionSecurity {
    /// With the certificate, if there is one.
    #[cfg(feature = "tls")]
    pub(crate) fn of(files: Option<&CertificateFiles>) -> Result<Self> {
        files.map_or(Ok(Self::Plain), |files| TlsAcceptor::of(files).map(Self::Tls))
    }

    /// A build without TLS has no certificate.
    #[cfg(not(feature = "tls"))]
    pub(crate) fn of(files: Option<&CertificateFiles>) -> Result<Self> {
        match files {
            None => Ok(Self::Plain),
            Some(_) => Err(crate::certificate::no_tls()),
        }
    }
}

struct ServedConnection {
    shared: Arc<RequestContext>,
    router: Router,
    stop: watch::Receiver<Option<Duration>>,
    _place: OwnedSemaphorePermit,
}

async fn connection(stream: TcpStream, security: Arc<ConnectionSecurity>, serving: ServedConnection) {
    let open = serving.shared.state.metrics.http_connections.clone();
    open.inc();
    let _closed = OnDrop(|| {
        open.dec();
    });
    match &*security {
        ConnectionSecurity::Plain => serving.serve(stream).await,
        #[cfg(feature = "tls")]
        ConnectionSecurity::Tls(acceptor) => {
            let limit = serving.shared.settings.idle_time_max;
            match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => serving.serve(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                Err(_elapsed) => tracing::debug!("a client began no TLS handshake in time"),
            }
        }
    }
}

impl ServedConnection {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(mut self, stream: S) {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.settings.idle_time_max)
            .max_buf_size(HEAD_BYTES_MAX)
            .pipeline_flush(true)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        let mut serving = pin!(serving);
        let outcome = tokio::select! {
            outcome = serving.as_mut() => outcome,
            _ = self.stop.changed() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = outcome {
            // Disconnecting clients, idle connections, malformed heads: nothing that we could do better.
            tracing::debug!(%error, "connection closed early");
        }
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
