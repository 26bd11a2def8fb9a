//! The connections between the processes of a cluster.
//!
//! ```text
//!  process 1 ── data ─────▶ process 0       timely's messages
//!            ◀─ data ──────
//!            ── control ──▶                 heartbeats, requests and responses, pieces of checkpoints,
//!            ◀─ control ───                 and why a process has stopped
//! ```
//!
//! Each pair of processes has four connections, one per purpose and direction: a TLS session cannot be read
//! and written by two threads at once. The process with the higher index opens them. A [handshake] precedes
//! everything else: both ends prove that they know the cluster's secret, and that they run the same dataflow,
//! in the same build, in the same cluster of as many processes and workers. Process 0, which has the ledger,
//! names the run; a process that belongs to an earlier run is refused.
//!
//! A cluster is whole or not at all. If a process ends, hangs, or cannot be reached for the configured time,
//! every other process halts with an error that names it, and a supervisor starts all of them again: they
//! resume from the last checkpoint. Timely alone would wait forever for a process that hangs, accept any
//! connection as a peer's, and end with a panic when a peer ends.
//!
//! | file | contents |
//! |---|---|
//! | [handshake] | who may join: messages and the decision, without any I/O |
//! | [formation] | listens, dials, and waits until all connections are there |
//! | [link] | the control connections to one peer |
//! | [data] | the data connections to one peer, as timely wants them |
//! | [transport] | TCP, with or without TLS |

pub(crate) mod data;
pub(crate) mod formation;
pub(crate) mod handshake;
pub(crate) mod link;
pub(crate) mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

use crate::bridge::Halt;
use crate::error::Error;
use crate::secret::Secret;
use link::Link;
use transport::TlsFiles;

/// A process of a cluster, and how it reaches the others.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The index of this process.
    pub process: usize,
    /// The address of each process, `host:port`; the same list in every process.
    pub addresses: Vec<String>,
    /// What all processes of the cluster know, and nobody else.
    pub secret: Option<Secret>,
    /// Certificates: with them, all connections are encrypted, and each end has to have one.
    pub tls: Option<TlsFiles>,
    /// Maximum time until all processes are connected.
    pub formation_timeout: Duration,
    /// A process that has not been heard from for this long is lost. At least one second.
    pub peer_timeout: Duration,
}

impl Cluster {
    /// A process of a cluster with the default time limits, without a secret and without TLS.
    pub fn new(process: usize, addresses: Vec<String>) -> Self {
        Self {
            process,
            addresses,
            secret: None,
            tls: None,
            formation_timeout: Duration::from_secs(60),
            peer_timeout: Duration::from_secs(10),
        }
    }
}

/// A request of another process, to be answered.
pub(crate) struct Request {
    /// The process that asks.
    pub from: usize,
    /// The number by which it knows the answer.
    id: u64,
    /// What it asks.
    pub body: Vec<u8>,
}

/// Why a request has no answer: the peer is gone, or takes too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAway {
    /// The peer.
    pub process: usize,
}

/// The processes of a cluster, connected.
pub(crate) struct Mesh {
    /// This process.
    pub process: usize,
    /// By process; `None` for this one.
    links: Vec<Option<Arc<Link>>>,
    health: Arc<MeshHealth>,
    requests: Mutex<Option<Receiver<Request>>>,
    pieces: Mutex<Option<Receiver<(usize, Vec<u8>)>>>,
}

/// Whether the cluster is whole, as all threads of the connections see it.
pub(crate) struct MeshHealth {
    halt: Halt,
    /// Set once nothing is expected of the peers any more: their connections may close.
    over: AtomicBool,
    addresses: Vec<String>,
    requests: Sender<Request>,
    pieces: Sender<(usize, Vec<u8>)>,
}

impl MeshHealth {
    /// Halts this process because of a peer, unless everything is over.
    pub(crate) fn lost(&self, process: usize, why: impl std::fmt::Display) {
        if !self.over.load(Ordering::Acquire) {
            self.halt.halt(lost(&self.addresses, process, why));
        }
    }

    /// Halts this process because a peer has halted.
    pub(crate) fn halted_by(&self, process: usize, why: &str) {
        if !self.over.load(Ordering::Acquire) {
            let address = self.addresses.get(process).map_or("", String::as_str);
            let error = Error::external(format!("process {process} of the cluster ({address}) has halted"));
            self.halt.halt(error.detail(why));
        }
    }

    /// Whether this process has been halted.
    pub(crate) fn is_halted(&self) -> bool {
        self.halt.is_halted()
    }
}

fn lost(addresses: &[String], process: usize, why: impl std::fmt::Display) -> Error {
    let address = addresses.get(process).map_or("", String::as_str);
    Error::external(format!("process {process} of the cluster ({address}) is lost"))
        .detail(why)
        .hint("start all processes of the cluster again: they resume from the last checkpoint")
}

impl Mesh {
    fn new(
        process: usize,
        links: Vec<Option<Arc<Link>>>,
        health: Arc<MeshHealth>,
        requests: Receiver<Request>,
        pieces: Receiver<(usize, Vec<u8>)>,
    ) -> Arc<Self> {
        Arc::new(Self {
            process,
            links,
            health,
            requests: Mutex::new(Some(requests)),
            pieces: Mutex::new(Some(pieces)),
        })
    }

    /// The other processes.
    pub(crate) fn peers(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.links.len()).filter(|process| *process != self.process)
    }

    /// How long ago a process was heard from; `None` if its connection has ended.
    pub(crate) fn silence(&self, process: usize) -> Option<Duration> {
        self.links.get(process)?.as_ref()?.silence()
    }

    /// Requests of the other processes; only the first call gets them.
    pub(crate) fn requests(&self) -> Option<Receiver<Request>> {
        self.requests.lock().take()
    }

    /// One-way messages of the other processes, in order per process; only the first call gets them.
    pub(crate) fn pieces(&self) -> Option<Receiver<(usize, Vec<u8>)>> {
        self.pieces.lock().take()
    }

    /// Asks a process, and waits for the answer.
    pub(crate) fn ask(&self, process: usize, body: &[u8], limit: Duration) -> Result<Vec<u8>, PeerAway> {
        self.begin(process, body)?.wait(limit)
    }

    /// Asks a process.
    pub(crate) fn begin(&self, process: usize, body: &[u8]) -> Result<link::Asked, PeerAway> {
        match self.links.get(process) {
            Some(Some(link)) => link.ask(body),
            _ => Err(PeerAway { process }),
        }
    }

    /// Answers a request.
    pub(crate) fn answer(&self, request: &Request, body: &[u8]) {
        if let Some(Some(link)) = self.links.get(request.from) {
            link.answer(request.id, body);
        }
    }

    /// Sends a one-way message. Blocks while too much is queued for the peer.
    pub(crate) fn send(&self, process: usize, body: &[u8]) {
        if let Some(Some(link)) = self.links.get(process) {
            link.send_piece(body);
        }
    }

    /// Tells the others why this process halts.
    pub(crate) fn halted(&self, why: &str) {
        self.links.iter().flatten().for_each(|link| link.halted(why));
    }

    /// Tells the others that the dataflow has ended here as it should: connections may close from now on.
    pub(crate) fn ended(&self) {
        self.health.over.store(true, Ordering::Release);
        self.links.iter().flatten().for_each(|link| link.goodbye());
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.health.over.store(true, Ordering::Release);
        self.links.iter().flatten().for_each(|link| link.close());
    }
}

/// The state shared by all connections of a process.
fn health(
    cluster: &Cluster,
    halt: &Halt,
) -> (Arc<MeshHealth>, Receiver<Request>, Receiver<(usize, Vec<u8>)>) {
    let ((requests, asked), (pieces, sent)) = (channel(), channel());
    let health = MeshHealth {
        halt: halt.clone(),
        over: AtomicBool::new(false),
        addresses: cluster.addresses.clone(),
        requests,
        pieces,
    };
    (Arc::new(health), asked, sent)
}
