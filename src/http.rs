//! Answers over HTTP: every view, as of one closed epoch, with the epoch named.
//!
//! ```text
//!  client ─▶ connection ─▶ route ─▶ params ─▶ moment ─────▶ view ─▶ bytes ─▶ client
//!            (hyper)       (axum)             newest closed,          JSON written once, straight from the row
//!                                             as_of, after + wait
//!
//!  GET  /v1/views                   what there is             GET /health/live    the process runs
//!  GET  /v1/views/{name}            one of them, described    GET /health/ready   it can answer
//!  GET  /v1/views/{name}/row        one row by its key        GET /metrics        OpenMetrics
//!  GET  /v1/views/{name}/rows       rows by filters, paged
//!  POST /v1/query                   several reads, one epoch, all or nothing
//!  GET  /v1/epochs/{epoch}          what an epoch contains
//!  GET  /v1/sources                 rules, watermarks and lag of what is read
//!  GET  /v1/sinks                   contracts of stores, and how far they are
//! ```
//!
//! What is not there yet is 503 with Retry-After, never 404 and never an older answer: a view while the
//! dataflow is being built, and the newest epoch while a restart recovers what was answered before. What
//! names its epoch (`as_of`, a cursor) is answered as soon as that epoch is closed again, as it is the same
//! whenever it is asked for.
//!
//! axum finds the function for a request. The connections beneath it are served by hyper itself, as hyper can
//! answer pipelined requests with one write (`pipeline_flush`) and bounds heads and idle connections in time,
//! for which `axum::serve` has no switch. Nagle's algorithm is off. Every refusal has one form
//! (`problem.rs`).
//!
//! Nothing grows without bound: connections, requests in flight, the size and time of a body, the length of a
//! URL, rows looked at, rows in an answer, time to wait ([`HttpSettings`]). What can't be taken is refused at
//! once.
//!
//! There is no authentication and no TLS yet; so the server listens on loopback addresses alone.

mod answer;
mod describe;
mod moment;
mod params;
mod problem;
mod query;
mod read;
mod route;
mod server;
mod shared;
mod sinks;
mod sources;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::position::EpochBinding;
use crate::runtime::progress::Recovering;
use crate::runtime::sinks::SinkNow;
use crate::runtime::sources::SourceNow;
use crate::time::Epoch;
use crate::view::Views;

/// Where to listen, and how much to take.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// A loopback address; port 0 takes any that is free. Default 127.0.0.1:8460.
    pub address: SocketAddr,
    /// Longest body of a request. Default 64 KiB.
    pub body_bytes_max: usize,
    /// How long a body may take to come. Default 5 s.
    pub body_time_max: Duration,
    /// Longest URL. Default 8 KiB.
    pub url_bytes_max: usize,
    /// Connections open at once; more are told 503 and closed. Default 1,024.
    pub connections_max: usize,
    /// Requests answered at once, those that wait included; more are told 503. Default 512.
    pub requests_max: usize,
    /// How long a connection may stay without a request, or a request's head may take to come. Default 60 s.
    pub idle_time_max: Duration,
    /// Longest `wait`. Default 30 s.
    pub wait_max: Duration,
    /// Large scans at once, each on a thread of its own. Default: the number of cores.
    pub scans_max: usize,
    /// How long a large scan may take, its turn waited for included. Default 10 s.
    pub scan_time_max: Duration,
    /// How many rows one read may look at. In the order of keys a page ends there; in another one a view of
    /// more rows is refused at once, unless the key leaves enough of them out. Default 2 M.
    pub scanned_rows_max: usize,
    /// Reads in one `POST /v1/query`. Default 32.
    pub reads_max: usize,
    /// Whether the newest epoch is answered while what was bound before a restart is being recovered,
    /// although answers of before the restart were newer. Default no: such reads are told 503.
    pub stale_reads: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8460)),
            body_bytes_max: 64 << 10,
            body_time_max: Duration::from_secs(5),
            url_bytes_max: 8 << 10,
            connections_max: 1_024,
            requests_max: 512,
            idle_time_max: Duration::from_secs(60),
            wait_max: Duration::from_secs(30),
            scans_max: std::thread::available_parallelism().map_or(2, usize::from),
            scan_time_max: Duration::from_secs(10),
            scanned_rows_max: 2_000_000,
            reads_max: 32,
            stale_reads: false,
        }
    }
}

/// Finds what an epoch contains, when it is too old for the views to remember. May block: it is called off
/// the threads that answer requests.
pub type Bindings = Arc<dyn Fn(Epoch) -> Result<Option<EpochBinding>> + Send + Sync>;

/// The partitions that a source has, by its name; `None`: that is not known (yet).
pub type Partitions = Arc<dyn Fn(&str) -> Option<Vec<u32>> + Send + Sync>;

/// Tells where the recovery of what was bound before the start stands; `None`: it is over, or there was
/// nothing.
pub type Recovery = Arc<dyn Fn() -> Option<Recovering> + Send + Sync>;

/// Tells where all sources stand.
pub type Sources = Arc<dyn Fn() -> Vec<SourceNow> + Send + Sync>;

/// Tells where all sinks stand.
pub type Sinks = Arc<dyn Fn() -> Vec<SinkNow> + Send + Sync>;

/// What the server answers from.
pub struct State {
    /// The views.
    pub views: Arc<Views>,
    /// The names of all views that there will be: those of the plan. At the start they are defined one by
    /// one.
    pub view_names: Vec<String>,
    /// Where the recovery after a restart stands.
    pub recovery: Recovery,
    /// The names of all sources: answers name positions by them.
    pub sources: Vec<String>,
    /// Where they stand.
    pub sources_now: Sources,
    /// Where all sinks stand.
    pub sinks_now: Sinks,
    /// Which partitions they have, so that nobody waits for one that there is not.
    pub partitions: Partitions,
    /// The ledger, asked for epochs that the views no longer remember; `None`: those are not answered.
    pub bindings: Option<Bindings>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Whether the process is ready.
    pub readiness: Arc<Readiness>,
}

/// A running server. Dropping it stops it at once, as [`Server::shutdown`] with no grace does.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

/// Starts to listen, and answers on the threads of `runtime`.
///
/// # Errors
/// [`Error::definition`] when the address is not a loopback address; [`Error::outside`] when it can't be
/// bound.
pub fn serve(settings: HttpSettings, state: Arc<State>, runtime: &Handle) -> Result<Server> {
    let listener = bind(settings.address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (stop, stopped) = watch::channel(None);
    let task = runtime.spawn(server::run(listener, settings, state, stopped));
    tracing::debug!(%address, "HTTP server is listening");
    Ok(Server { address, stop, task })
}

/// Whether [`serve`] could listen there now: to be asked before work is begun that would be in vain.
///
/// # Errors
/// Those of [`serve`].
pub fn bindable(address: SocketAddr) -> Result<()> {
    bind(address).map(drop)
}

fn bind(wanted: SocketAddr) -> Result<TcpListener> {
    if !wanted.ip().is_loopback() {
        return Err(
            Error::definition(format!("the HTTP server cannot listen on {wanted}"))
                .detail("only loopback addresses are allowed: there is no authentication and no TLS yet")
                .hint("listen on 127.0.0.1 or [::1], behind an authenticating proxy"),
        );
    }
    TcpListener::bind(wanted).map_err(|error| unbound(wanted, &error))
}

fn unbound(wanted: SocketAddr, error: &std::io::Error) -> Error {
    let refused = Error::outside(format!("the HTTP server cannot listen on {wanted}")).detail(error);
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            refused.hint("stop the other process, or choose another port (0: any free one)")
        }
        std::io::ErrorKind::PermissionDenied => refused.hint("choose a port above 1023"),
        _ => refused,
    }
}

impl Server {
    /// The address that it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets requests in flight finish for `grace`, then drops what is left.
    pub async fn shutdown(self, grace: Duration) {
        self.stop.send_replace(Some(grace));
        // It ends with an error only if it was cancelled or has panicked: either way it has stopped.
        let _stopped = self.task.await;
    }
}

#[cfg(test)]
mod tests;
