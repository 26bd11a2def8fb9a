//! HTTP API: reads every view as of one closed epoch, which each response names.
//!
//! ```text
//!  client ─▶ connection ─▶ route ─▶ params ─▶ snapshot ───▶ view ─▶ bytes ─▶ client
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
//!  GET  /v1/cluster                 the processes, and how far they are
//!  GET  /v1/why-not-closed          what holds back a view's windows
//! ```
//!
//! Data that is not available yet is reported as 503 with Retry-After, never as 404 and never with older
//! data: a view while the dataflow is being built, and the newest epoch while a restart recovers what was
//! served before. Reads that name their epoch (`as_of`, a cursor) are served as soon as that epoch is closed
//! again, because their result never changes.
//!
//! axum routes requests. The connections are served by hyper directly, because hyper can answer pipelined
//! requests with one write (`pipeline_flush`) and limits the time for request heads and idle connections, for
//! which `axum::serve` has no options. Nagle's algorithm is disabled. Every error response has one form
//! (`problem.rs`).
//!
//! Everything is bounded: connections, concurrent requests, the size and duration of a body, the length of a
//! URL, rows scanned, rows in a response, waiting time ([`HttpSettings`]). Requests beyond a limit are
//! rejected at once.
//!
//! Addresses beyond loopback need TLS (`tls.rs`) and tokens (`access.rs`), unless the settings say that the
//! network is safe.

pub(crate) mod access;
mod answer;
mod cluster;
mod describe;
mod params;
mod problem;
mod query;
mod read;
mod route;
mod server;
mod shared;
mod sinks;
mod snapshot;
mod sources;
#[cfg(feature = "tls")]
mod tls;
mod why;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use crate::certificate::CertificateFiles;
use crate::error::{Error, Result};
use crate::health::Readiness;
pub(crate) use crate::http::access::new_token;
use crate::http::access::{Access, OpenRoutes};
use crate::http::server::ConnectionSecurity;
use crate::metrics::Metrics;
use crate::position::EpochBinding;
use crate::runtime::cluster::ClusterStatus;
use crate::runtime::progress::RecoveryProgress;
use crate::runtime::sinks::SinkStatus;
use crate::runtime::sources::SourceStatus;
use crate::time::Epoch;
use crate::view::Views;

/// The address to listen on, and the limits.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The address; port 0 takes any free port. Beyond loopback, `tls` and `tokens_file` are required, unless
    /// `insecure`. Default 127.0.0.1:8460.
    pub address: SocketAddr,
    /// The certificate that clients see; `None`: no TLS.
    pub tls: Option<CertificateFiles>,
    /// The hashes of tokens, one of which every client has to present; `None`: nobody has to.
    pub tokens_file: Option<PathBuf>,
    /// Which routes need no token. Default: health.
    pub open: OpenRoutes,
    /// Allows addresses beyond loopback without TLS and tokens.
    pub insecure: bool,
    /// Maximum size of a request body. Default 64 KiB.
    pub body_bytes_max: usize,
    /// Maximum time to receive a body. Default 5 s.
    pub body_time_max: Duration,
    /// Maximum length of a URL. Default 8 KiB.
    pub url_bytes_max: usize,
    /// Maximum number of open connections; further ones get a 503 and are closed. Default 1,024.
    pub connections_max: usize,
    /// Maximum number of concurrent requests, including those that wait; further ones get a 503. Default 512.
    pub requests_max: usize,
    /// How long a connection may stay without a request, and a request's head may take to arrive. Default 60
    /// s.
    pub idle_time_max: Duration,
    /// Maximum `wait`. Default 30 s.
    pub wait_max: Duration,
    /// Maximum number of concurrent large scans, each on its own thread. Default: the number of cores.
    pub scans_max: usize,
    /// Maximum time of a large scan, including the time it is queued. Default 10 s.
    pub scan_time_max: Duration,
    /// Maximum number of rows that one read may scan. In key order, a page ends there; in another order, a
    /// read of more rows is rejected, unless the key excludes enough of them. Default 2 M.
    pub scanned_rows_max: usize,
    /// Maximum number of reads in one `POST /v1/query`. Default 32.
    pub reads_max: usize,
    /// Whether to serve the newest epoch while a restart recovers earlier bindings, although responses before
    /// the restart were newer. Default no: such reads get a 503.
    pub stale_reads: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8460)),
            tls: None,
            tokens_file: None,
            open: OpenRoutes {
                health: true,
                metrics: false,
            },
            insecure: false,
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

/// Returns the binding of an epoch that is too old for the views to remember. May block: it is called outside
/// of the threads that serve requests.
pub type BindingLookup = Arc<dyn Fn(Epoch) -> Result<Option<EpochBinding>> + Send + Sync>;

/// Returns the partitions of a source, by its name; `None` if they are not known (yet).
pub type PartitionLookup = Arc<dyn Fn(&str) -> Option<Vec<u32>> + Send + Sync>;

/// Returns the progress of the recovery after a restart; `None` once it is complete, or if there was nothing
/// to recover.
pub type RecoveryStatus = Arc<dyn Fn() -> Option<RecoveryProgress> + Send + Sync>;

/// Returns the status of all sources.
pub type SourcesStatus = Arc<dyn Fn() -> Vec<SourceStatus> + Send + Sync>;

/// Returns the status of all sinks.
pub type SinksStatus = Arc<dyn Fn() -> Vec<SinkStatus> + Send + Sync>;

/// Returns the status of the cluster, if there is one. May block.
pub type ClusterStatusLookup = Arc<dyn Fn() -> Option<ClusterStatus> + Send + Sync>;

/// Everything that the server reads from.
pub struct ServerState {
    /// The views.
    pub views: Arc<Views>,
    /// The names of all planned views. At the start, views are defined one by one.
    pub view_names: Vec<String>,
    /// The progress of the recovery after a restart.
    pub recovery: RecoveryStatus,
    /// The names of all sources, by which responses name positions.
    pub sources: Vec<String>,
    /// Their status.
    pub sources_now: SourcesStatus,
    /// The status of all sinks.
    pub sinks_now: SinksStatus,
    /// The status of the cluster.
    pub cluster_now: ClusterStatusLookup,
    /// Their partitions, so that nobody waits for one that does not exist.
    pub partitions: PartitionLookup,
    /// Reads the ledger for epochs that the views no longer remember; `None`: those are not available.
    pub bindings: Option<BindingLookup>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The readiness of the process.
    pub readiness: Arc<Readiness>,
}

/// A running server. Dropping it stops it immediately, like [`Server::shutdown`] without grace.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    encrypted: bool,
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

/// Starts the server on the threads of `runtime`.
///
/// # Errors
/// [`Error::definition`] if the address is not a loopback address and not secured, or if certificate, key or
/// tokens cannot be used; [`Error::external`] if the address cannot be bound.
pub fn serve(settings: HttpSettings, state: Arc<ServerState>, runtime: &Handle) -> Result<Server> {
    let listener = bind(&settings)?;
    let access = settings.tokens_file.as_deref();
    let access = access.map(|file| Access::of(file, settings.open)).transpose()?;
    let security = ConnectionSecurity::of(settings.tls.as_ref())?;
    let encrypted = settings.tls.is_some();
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let _inside = runtime.enter();
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (stop, stopped) = watch::channel(None);
    let task = runtime.spawn(server::run(
        listener,
        (settings, access, security),
        state,
        stopped,
    ));
    tracing::debug!(%address, "HTTP server is listening");
    Ok(Server {
        address,
        encrypted,
        stop,
        task,
    })
}

/// Checks whether [`serve`] could listen on the address: to be called before work that would be in vain.
///
/// # Errors
/// Those of [`serve`].
pub fn bindable(settings: &HttpSettings) -> Result<()> {
    bind(settings).map(drop)
}

fn bind(settings: &HttpSettings) -> Result<TcpListener> {
    let wanted = settings.address;
    let secured = settings.tls.is_some() && settings.tokens_file.is_some();
    if !wanted.ip().is_loopback() && !secured && !settings.insecure {
        return Err(
            Error::definition(format!("the HTTP server cannot listen on {wanted}"))
                .detail("an address beyond loopback needs TLS and tokens")
                .hint(
                    "set `http.tls.certificate`, `http.tls.key` and `http.tokens_file`; or, in a network that \
                     nobody else can reach, `http.insecure`",
                ),
        );
    }
    TcpListener::bind(wanted).map_err(|error| unbound(wanted, &error))
}

fn unbound(wanted: SocketAddr, error: &std::io::Error) -> Error {
    let refused = Error::external(format!("the HTTP server cannot listen on {wanted}")).detail(error);
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            refused.hint("stop the other process, or choose another port (0: any free one)")
        }
        std::io::ErrorKind::PermissionDenied => refused.hint("choose a port above 1023"),
        _ => refused,
    }
}

impl Server {
    /// The address that it listens on, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL by which clients on this machine reach it.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Accepts no more connections, lets requests in flight finish within `grace`, then closes the rest.
    pub async fn shutdown(self, grace: Duration) {
        self.stop.send_replace(Some(grace));
        // This is an error only if the task was cancelled or panicked: either way, the server has stopped.
        let _stopped = self.task.await;
    }
}

#[cfg(test)]
mod tests;
