//! The engine's part in a cluster: joins it, serves the other processes, and ends with them.
//!
//! ```text
//!   process 0   ledger, checkpoint chosen ─▶ form ─ where the run starts ─▶ others: restore from files that
//!                                                                           process 0 reads for them
//!   workers of others ── parts of checkpoints ──▶ process 0, which writes them
//!   any process ── reads of views ──▶ the processes that hold the rows (gather.rs)
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::{
    CommsGuard, initialize_networking_from_sockets,
};
use timely::communication::{AllocatorBuilder, Hooks};

use super::gather::{ClusterShards, Shards};
use super::peer_request::PeerRequest;
use super::{ProcessState, build_id, observations, spawn};
use crate::bridge::Waker;
use crate::checkpoint::Checkpoints;
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::relay::RelayedPart;
use crate::checkpoint::store::{CheckpointStore, RestoredCheckpoint};
use crate::disk::{FileReader, FileStore, FileWriter};
use crate::error::{Error, Result};
use crate::mesh::formation::{self, Formed};
use crate::mesh::handshake::Identity;
use crate::mesh::link::Asked;
use crate::mesh::{Cluster, Mesh, Request};
use crate::position::{Offset, PartitionId};
use crate::time::Epoch;

/// How workers talk to each other.
pub(super) struct Communication {
    /// One per worker of this process.
    pub allocators: Vec<AllocatorBuilder>,
    /// The connections to other processes.
    pub connections: Connections,
}

/// Timely's threads for connections to other processes.
pub(super) struct Connections(Option<CommsGuard>);

impl Connections {
    /// Ends with the workers.
    pub(super) fn end(self, shared: &ProcessState) {
        let (Some(threads), Some(mesh)) = (self.0, shared.mesh.get()) else {
            return;
        };
        if shared.halt.is_halted() {
            // They wait for peers that may never answer; the process is about to end.
            std::mem::forget(threads);
            return;
        }
        drop(threads);
        mesh.ended();
    }
}

/// Where a run starts, as process 0 tells the others.
#[derive(Serialize, Deserialize)]
struct RunStartFacts {
    /// Whether checkpoints are written.
    saves: bool,
    /// The last epoch that was bound before, or 0.
    last_bound: u64,
    /// See [`ProcessState::bound_before`].
    bound_before: BTreeMap<PartitionId, (Offset, Offset)>,
    /// The checkpoint that the run resumes from.
    restored: Option<RestoredFacts>,
}

#[derive(Serialize, Deserialize)]
struct RestoredFacts {
    /// The manifest, as in its file.
    manifest: Vec<u8>,
    /// See [`RestoredCheckpoint::held`].
    held: Vec<Option<usize>>,
    dir: PathBuf,
}

/// Sets up communication between workers. In a cluster, waits until it is complete; `None` if the service was
/// stopped before.
pub(super) fn connect(shared: &Arc<ProcessState>) -> Result<Option<Communication>> {
    let workers = shared.settings.workers;
    let hooks = Hooks::default();
    let local = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), None);
    let Some(cluster) = &shared.settings.cluster else {
        return Ok(Some(Communication {
            allocators: local.into_iter().map(AllocatorBuilder::Process).collect(),
            connections: Connections(None),
        }));
    };
    let Some(streams) = join(shared, cluster)? else {
        return Ok(None);
    };
    let connected = initialize_networking_from_sockets(local, streams, cluster.process, workers, hooks);
    let (allocators, threads) = connected
        .map_err(|error| Error::external("cannot set up the cluster's connections").detail(error))?;
    Ok(Some(Communication {
        allocators: allocators.into_iter().map(AllocatorBuilder::Tcp).collect(),
        connections: Connections(Some(threads)),
    }))
}

type Streams = Vec<Option<crate::mesh::data::PeerStream>>;

fn join(shared: &Arc<ProcessState>, cluster: &Cluster) -> Result<Option<Streams>> {
    let settings = &shared.settings;
    let identity = Identity {
        name: format!("{}/{}", settings.env.group, shared.flow.name()),
        processes: cluster.addresses.len() as u32,
        workers: settings.workers as u32,
        build: build_id(),
        plan: shared.plan_hash,
    };
    let leads = cluster.process == 0;
    let start = if leads { start_facts(shared)? } else { Vec::new() };
    let give_up = || shared.inbox.stopping() || shared.halt.is_halted();
    let formed = formation::form(cluster, identity, start, &shared.halt, &give_up)?;
    let Some(Formed { mesh, streams, start }) = formed else {
        return Ok(None);
    };
    tracing::info!(
        process = cluster.process,
        processes = cluster.addresses.len(),
        "the cluster is complete"
    );
    serve(shared, &mesh)?;
    if !leads {
        follow(shared, &mesh, &start)?;
    }
    let (halt, told) = (shared.halt.clone(), Arc::downgrade(&mesh));
    shared.halt.on_halt(Waker::new(move || {
        if let (Some(mesh), Some(error)) = (told.upgrade(), halt.error()) {
            mesh.halted(&error.to_string());
        }
    }));
    shared
        .views
        .set_remote(Arc::new(ClusterShards::new(mesh.clone())));
    let _once = shared.mesh.set(mesh);
    Ok(Some(streams))
}

fn start_facts(shared: &ProcessState) -> Result<Vec<u8>> {
    let facts = |restored: &Arc<RestoredCheckpoint>| -> Result<RestoredFacts> {
        Ok(RestoredFacts {
            manifest: restored.manifest.to_bytes()?,
            held: restored.held().to_vec(),
            dir: restored.store().dir.clone(),
        })
    };
    let facts = RunStartFacts {
        saves: shared.checkpoints.get().is_some(),
        last_bound: shared.replay_to.load(Ordering::Acquire),
        bound_before: shared.bound_before.get().cloned().unwrap_or_default(),
        restored: shared.restored.get().map(facts).transpose()?,
    };
    postcard::to_stdvec(&facts).map_err(|error| Error::internal("cannot describe the start").detail(error))
}

/// Starts where process 0 does.
fn follow(shared: &Arc<ProcessState>, mesh: &Arc<Mesh>, start: &[u8]) -> Result<()> {
    let malformed = |error| Error::internal("process 0 does not say where the run starts").detail(error);
    let facts: RunStartFacts = postcard::from_bytes(start).map_err(malformed)?;
    // Nothing older than what was answered before the restart is answered.
    shared.replay_to.store(facts.last_bound, Ordering::Release);
    let _once = shared.bound_before.set(facts.bound_before);
    if let Some(RestoredFacts { manifest, held, dir }) = facts.restored {
        let store = CheckpointStore::new(Arc::new(RemoteFiles(mesh.clone())), &dir);
        let restored = RestoredCheckpoint::new(store, Manifest::from_bytes(&manifest)?, held);
        let (epoch, bytes) = (restored.manifest.epoch, restored.manifest.bytes());
        tracing::info!(epoch = epoch.0, time = %epoch.opened_at(), bytes, "resuming from a checkpoint");
        let at = &restored.manifest.at.binding;
        shared.note_bound(&at.ranges, &at.idle);
        let _once = shared.restored.set(restored);
    }
    if facts.saves {
        let views = shared.views.clone();
        let hold = Arc::new(move |epoch| views.hold(epoch));
        let (own, relay) = Checkpoints::relayed(&shared.states, shared.settings.workers, hold);
        let mesh = mesh.clone();
        let send = move |part: &RelayedPart| match postcard::to_stdvec(part) {
            Ok(bytes) => mesh.send(0, &bytes),
            Err(error) => tracing::error!(%error, "cannot send a part of a checkpoint"),
        };
        drop(spawn("checkpoints", move || relay.run(send))?);
        let _once = shared.checkpoints.set(own);
    }
    observations::follow(shared, mesh)
}

/// A process of a cluster, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its index.
    pub process: usize,
    /// Its address in the cluster.
    pub address: String,
    /// How long ago it was heard from; `None` if it is not connected.
    pub silent: Option<Duration>,
    /// The newest epoch that it has closed, if it answers and has closed one.
    pub closed: Option<Epoch>,
}

/// A cluster, as one of its processes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterStatus {
    /// The process that is asked.
    pub process: usize,
    /// Number of workers in each process.
    pub workers: usize,
    /// All processes, by index.
    pub processes: Vec<PeerStatus>,
}

/// Maximum time of a process to say how it is.
const STATUS_MAX: Duration = Duration::from_millis(500);

/// Returns the status of the cluster, if there is one. Asks the other processes, and blocks.
pub(super) fn status_fn(
    shared: &Arc<ProcessState>,
) -> impl Fn() -> Option<ClusterStatus> + Send + Sync + 'static {
    let shared = shared.clone();
    move || {
        let cluster = shared.settings.cluster.as_ref()?;
        let mesh = shared.mesh.get();
        let request = postcard::to_stdvec(&PeerRequest::Closed).ok()?;
        let asked: Vec<_> = (0..cluster.addresses.len())
            .map(|peer| {
                mesh.filter(|mesh| mesh.process != peer)?
                    .begin(peer, &request)
                    .ok()
            })
            .collect();
        let peers = asked.into_iter().zip(&cluster.addresses).enumerate();
        let status = |(process, (asked, address)): (usize, (Option<Asked>, &String))| {
            let own = process == cluster.process;
            let answer = asked.and_then(|asked| asked.wait(STATUS_MAX).ok());
            PeerStatus {
                process,
                address: address.clone(),
                silent: match own {
                    true => Some(Duration::ZERO),
                    false => mesh.and_then(|mesh| mesh.silence(process)),
                },
                closed: match own {
                    true => shared.views.closed().map(|at| at.epoch),
                    false => answer
                        .and_then(|bytes| postcard::from_bytes(&bytes).ok())
                        .flatten(),
                },
            }
        };
        Some(ClusterStatus {
            process: cluster.process,
            workers: shared.settings.workers,
            processes: peers.map(status).collect(),
        })
    }
}

/// Threads that answer other processes.
const SERVERS: usize = 4;

/// Starts to answer the other processes.
fn serve(shared: &Arc<ProcessState>, mesh: &Arc<Mesh>) -> Result<()> {
    if let Some(requests) = mesh.requests() {
        let requests = Arc::new(Mutex::new(requests));
        let files = Arc::new(OpenFiles::default());
        for _ in 0..SERVERS {
            let server = Server {
                requests: requests.clone(),
                mesh: Arc::downgrade(mesh),
                shared: Arc::downgrade(shared),
                shards: Shards::new(&shared.views)?,
                files: files.clone(),
            };
            drop(spawn("peers", move || server.run())?);
        }
    }
    if let Some(parts) = mesh.pieces() {
        let shared = Arc::downgrade(shared);
        drop(spawn("parts", move || take_parts(&parts, &shared))?);
    }
    Ok(())
}

/// Adds the parts of other processes to the checkpoint in progress.
fn take_parts(parts: &Receiver<(usize, Vec<u8>)>, shared: &Weak<ProcessState>) {
    while let Ok((process, bytes)) = parts.recv() {
        let Some(shared) = shared.upgrade() else { return };
        match (
            postcard::from_bytes::<RelayedPart>(&bytes),
            shared.checkpoints.get(),
        ) {
            (Ok(part), Some(checkpoints)) => checkpoints.take_part(part),
            (Err(error), _) => tracing::error!(process, %error, "received what is no part of a checkpoint"),
            (Ok(_), None) => {}
        }
    }
}

/// Answers requests of other processes.
struct Server {
    requests: Arc<Mutex<Receiver<Request>>>,
    mesh: Weak<Mesh>,
    shared: Weak<ProcessState>,
    shards: Shards,
    files: Arc<OpenFiles>,
}

impl Server {
    fn run(mut self) {
        loop {
            let request = self.requests.lock().recv();
            let (Ok(request), Some(mesh)) = (request, self.mesh.upgrade()) else {
                return;
            };
            let answer = match postcard::from_bytes(&request.body) {
                Ok(PeerRequest::File { path, offset, length }) => self.file(&path, offset, length),
                Ok(PeerRequest::Shards(read)) => self.shards.answer(read),
                Ok(PeerRequest::Observations) => self.observations(),
                Ok(PeerRequest::Closed) => {
                    let closed = self.shared.upgrade().and_then(|shared| shared.views.closed());
                    postcard::to_stdvec(&closed.map(|at| at.epoch)).unwrap_or_default()
                }
                Err(error) => {
                    tracing::error!(process = request.from, %error, "received an unknown request");
                    continue;
                }
            };
            mesh.answer(&request, &answer);
        }
    }

    fn observations(&self) -> Vec<u8> {
        let observed = self.shared.upgrade().map(|shared| shared.observations());
        postcard::to_stdvec(&observed.unwrap_or_default()).unwrap_or_default()
    }

    fn file(&self, path: &Path, offset: u64, length: u32) -> Vec<u8> {
        let read = || -> io::Result<Vec<u8>> {
            let shared = self.shared.upgrade().ok_or(io::ErrorKind::NotConnected)?;
            let restored = shared.restored.get().ok_or(io::ErrorKind::NotFound)?;
            let store = restored.store();
            if path.parent() != Some(&*store.dir) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.files.read(&*store.files, path, offset, length)
        };
        let read = read().map_err(|error| error.to_string());
        postcard::to_stdvec(&read).unwrap_or_default()
    }
}

/// Files that are being read for other processes.
#[derive(Default)]
struct OpenFiles(Mutex<HashMap<PathBuf, Arc<dyn FileReader>>>);

/// Files kept open. A checkpoint has a few per step.
const OPEN_MAX: usize = 256;

impl OpenFiles {
    fn read(&self, files: &dyn FileStore, path: &Path, offset: u64, length: u32) -> io::Result<Vec<u8>> {
        let open = self.0.lock().get(path).cloned();
        let file = match open {
            Some(file) => file,
            None => {
                let file = files.open(path)?;
                let mut all = self.0.lock();
                if all.len() >= OPEN_MAX {
                    all.clear();
                }
                all.insert(path.to_owned(), file.clone());
                file
            }
        };
        let mut bytes = vec![0; length as usize];
        let read = file.read_at(offset, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

/// The files of a checkpoint, read by process 0.
struct RemoteFiles(Arc<Mesh>);

/// Maximum time to read a piece of a file.
const READ_MAX: Duration = Duration::from_secs(60);

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

impl FileStore for RemoteFiles {
    fn make_dir(&self, _dir: &Path) -> io::Result<()> {
        unsupported()
    }
    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        unsupported()
    }
    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        unsupported()
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn FileReader>> {
        Ok(Arc::new(RemoteFile {
            mesh: self.0.clone(),
            path: path.to_owned(),
        }))
    }
    fn create(&self, _path: &Path) -> io::Result<Box<dyn FileWriter>> {
        unsupported()
    }
    fn publish(&self, _path: &Path, _contents: &[u8]) -> io::Result<bool> {
        unsupported()
    }
    fn remove(&self, _path: &Path) -> io::Result<()> {
        unsupported()
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        unsupported()
    }
}

struct RemoteFile {
    mesh: Arc<Mesh>,
    path: PathBuf,
}

/// Maximum number of bytes per request.
const PIECE_MAX: usize = 1 << 20;

impl FileReader for RemoteFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let length = (buffer.len() - filled).min(PIECE_MAX);
            let request = PeerRequest::File {
                path: self.path.clone(),
                offset: offset + filled as u64,
                length: length as u32,
            };
            let request = postcard::to_stdvec(&request).map_err(io::Error::other)?;
            let answer = self.mesh.ask(0, &request, READ_MAX);
            let answer =
                answer.map_err(|_away| io::Error::other("process 0 of the cluster does not answer"))?;
            let read: std::result::Result<Vec<u8>, String> =
                postcard::from_bytes(&answer).map_err(io::Error::other)?;
            let bytes = read.map_err(io::Error::other)?;
            buffer[filled..filled + bytes.len()].copy_from_slice(&bytes);
            filled += bytes.len();
            if bytes.len() < length {
                break;
            }
        }
        Ok(filled)
    }
}
