//! Forms a cluster: listens, dials, and waits until all connections are there.
//!
//! Each accepted connection is handled by a thread of its own under a deadline, so one that is silent or
//! wrong holds up nobody else.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::data::PeerStream;
use super::handshake::{Acceptor, Challenge, Channel, Hello, Identity, Key, Role, VERSION, Welcome};
use super::link::Link;
use super::transport::{Security, Transport};
use super::{Cluster, Mesh, health};
use crate::bridge::Halt;
use crate::clock;
use crate::error::{Error, Result};

/// Maximum time of each step of a handshake.
const STEP: Duration = Duration::from_secs(5);
/// Maximum size of a message of a handshake. The start of a run names the files of a checkpoint.
const MESSAGE_MAX: usize = 64 << 20;
/// How long a process that is asked to stop still waits for the others, so that they stop with it instead of
/// waiting for it.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// The pause between two attempts to reach a process.
const RETRY: Duration = Duration::from_millis(100);
/// The interval of log lines about the processes that are missing.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Handshakes at a time. Further connections wait to be accepted.
const HANDSHAKES_MAX: usize = 64;

/// A cluster that has been formed.
pub(crate) struct Formed {
    /// The connections of control.
    pub mesh: Arc<Mesh>,
    /// The connections of data, by process; `None` for this one.
    pub streams: Vec<Option<PeerStream>>,
    /// Where the run starts, as process 0 said.
    pub start: Vec<u8>,
}

/// Connects to all other processes. Process 0 names the run, and says where it starts; `give_up` is asked now
/// and then whether to stop trying.
///
/// # Errors
/// If not all processes could be reached in time, or if one refuses this process.
pub(crate) fn form(
    cluster: &Cluster,
    identity: Identity,
    start: Vec<u8>,
    halt: &Halt,
    give_up: &dyn Fn() -> bool,
) -> Result<Option<Formed>> {
    let mut forming = Formation {
        cluster,
        identity,
        security: Security::of(cluster.tls.as_ref())?,
        key: Key::of(cluster.secret.as_ref()),
        run: clock::nonce(),
        start,
        deadline: clock::instant() + cluster.formation_timeout,
        give_up,
        asked_to_stop: None,
        failed: None,
        told: clock::instant(),
        connections: BTreeMap::new(),
    };
    match forming.run()? {
        true => forming.finish(halt).map(Some),
        false => Ok(None),
    }
}

fn listen(address: &str) -> Result<TcpListener> {
    let unbound = |error: io::Error| {
        Error::external(format!(
            "cannot listen on `{address}`, the address of this process"
        ))
        .detail(error)
        .hint("the list of hosts has to name an address of this machine for this process")
    };
    let listener = TcpListener::bind(address).map_err(unbound)?;
    listener.set_nonblocking(true).map_err(unbound)?;
    Ok(listener)
}

type Joined = (u32, Channel, Transport);

struct Formation<'a> {
    cluster: &'a Cluster,
    identity: Identity,
    security: Security,
    key: Key,
    run: u64,
    start: Vec<u8>,
    deadline: Instant,
    give_up: &'a dyn Fn() -> bool,
    asked_to_stop: Option<Instant>,
    /// Why the last attempt to reach a process failed.
    failed: Option<String>,
    told: Instant,
    /// By peer and channel.
    connections: BTreeMap<(u32, Channel), Transport>,
}

/// Why a connection could not be established.
enum DialError {
    /// The peer may not be running yet.
    Away(io::Error),
    /// It will not have this process.
    Refused(String),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Away(error)
    }
}

impl Formation<'_> {
    /// Returns false if it was told to give up.
    fn run(&mut self) -> Result<bool> {
        let own = self.cluster.process as u32;
        let Some(listener) = self.listen()? else {
            return Ok(false);
        };
        // Process 0 says which run it is, before anybody else is let in.
        for peer in 0..own {
            for channel in Channel::ALL {
                if !self.dial(peer, channel)? {
                    return Ok(false);
                }
            }
        }
        let (joined, joining) = channel();
        let expected = (self.cluster.addresses.len() as u32 - 1 - own) as usize * Channel::ALL.len();
        let acceptor = Arc::new(AcceptorParts {
            acceptor: Acceptor {
                identity: self.identity.clone(),
                process: own,
                run: self.run,
            },
            security: self.security.clone(),
            key: self.key.clone(),
            start: if own == 0 { self.start.clone() } else { Vec::new() },
            joined,
        });
        while self.accepted() < expected {
            if self.is_over()? {
                return Ok(false);
            }
            accept(&listener, &acceptor);
            self.take(&joining);
        }
        Ok(true)
    }

    /// Listens on this process's address, as soon as its name is known; `None` if told to give up.
    fn listen(&mut self) -> Result<Option<TcpListener>> {
        let address = &self.cluster.addresses[self.cluster.process];
        while let Err(error) = address.to_socket_addrs() {
            // The name of a pod may come after the pod.
            self.failed = Some(format!(
                "the name in `{address}`, of this process, is not known: {error}"
            ));
            if self.is_over()? {
                return Ok(None);
            }
            std::thread::sleep(RETRY);
        }
        self.failed = None;
        listen(address).map(Some)
    }

    fn accepted(&self) -> usize {
        let own = self.cluster.process as u32;
        self.connections.keys().filter(|(peer, _)| *peer > own).count()
    }

    /// Takes connections that were established meanwhile. A process that connects again was restarted.
    fn take(&mut self, joining: &Receiver<Joined>) {
        loop {
            match joining.recv_timeout(Duration::from_millis(10)) {
                Ok((peer, channel, transport)) => _ = self.connections.insert((peer, channel), transport),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Whether to give up; an error if the time is over.
    fn is_over(&mut self) -> Result<bool> {
        let now = clock::instant();
        if (self.give_up)() && now - *self.asked_to_stop.get_or_insert(now) >= STOP_GRACE {
            return Ok(true);
        }
        let missing = || {
            let all = (0..self.cluster.addresses.len()).filter(|peer| *peer != self.cluster.process);
            let is_missing = |peer: &usize| {
                let has = |channel: &Channel| self.connections.contains_key(&(*peer as u32, *channel));
                !Channel::ALL.iter().all(has)
            };
            let named = |peer: usize| format!("{peer} ({})", self.cluster.addresses[peer]);
            all.filter(is_missing).map(named).collect::<Vec<_>>().join(", ")
        };
        if now >= self.deadline {
            let waited = crate::time::span(self.cluster.formation_timeout);
            let error = Error::external("the cluster is incomplete")
                .detail(format!("missing after {waited}: process {}", missing()));
            let error = self.failed.iter().fold(error, Error::detail);
            return Err(error.hint("start the missing processes, or raise `cluster.formation_timeout`"));
        }
        if now - self.told >= TELL_EVERY {
            let failed = self.failed.as_deref().map(tracing::field::display);
            tracing::info!(
                processes = missing(),
                failed,
                "waiting for other processes of the cluster"
            );
            self.told = now;
        }
        Ok(false)
    }

    /// Opens a connection to a process, again and again until it is there. Returns false if told to give up.
    fn dial(&mut self, peer: u32, channel: Channel) -> Result<bool> {
        let address = self.cluster.addresses[peer as usize].clone();
        loop {
            if self.is_over()? {
                return Ok(false);
            }
            match self.try_dial(peer, channel, &address) {
                Ok(transport) => {
                    self.failed = None;
                    self.connections.insert((peer, channel), transport);
                    return Ok(true);
                }
                Err(DialError::Away(error)) => {
                    self.failed = Some(format!("process {peer} ({address}) cannot be reached: {error}"));
                    std::thread::sleep(RETRY);
                }
                Err(DialError::Refused(why)) => {
                    let own = self.cluster.process;
                    return Err(Error::definition(format!(
                        "process {peer} of the cluster ({address}) refuses this process"
                    ))
                    .detail(format!("process {own} may not join: {why}"))
                    .hint("all processes need the same program, settings, list of hosts and secret"));
                }
            }
        }
    }

    fn try_dial(
        &mut self,
        peer: u32,
        channel: Channel,
        address: &str,
    ) -> std::result::Result<Transport, DialError> {
        let found = address.to_socket_addrs()?.next();
        let found = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "unknown host"))?;
        let socket = TcpStream::connect_timeout(&found, STEP)?;
        socket.set_nodelay(true)?;
        limit(&socket)?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut transport = self.security.dialed(socket, host)?;
        let hello = Hello {
            version: VERSION,
            identity: self.identity.clone(),
            from: self.cluster.process as u32,
            to: peer,
            channel,
            run: (peer > 0).then_some(self.run),
            nonce: clock::random(),
        };
        let hello = encode(&hello);
        write_message(&mut transport, &hello)?;
        let Challenge { nonce, proof } = read(&mut transport)?;
        if !self.key.is_proven(Role::Acceptor, &hello, &nonce, &proof) {
            return Err(DialError::Refused("its secret is another one".into()));
        }
        write_message(&mut transport, &self.key.prove(Role::Dialer, &hello, &nonce))?;
        match read::<Welcome>(&mut transport)? {
            Welcome::Joined { run, start } => {
                if peer == 0 {
                    (self.run, self.start) = (run, start);
                }
                Ok(transport)
            }
            Welcome::Refused(why) => Err(DialError::Refused(why)),
        }
    }

    fn finish(mut self, halt: &Halt) -> Result<Formed> {
        let (own, all) = (self.cluster.process, self.cluster.addresses.len());
        let (health, requests, pieces) = health(self.cluster, halt);
        let (mut links, mut streams) = (Vec::new(), Vec::new());
        for peer in 0..all {
            if peer == own {
                links.push(None);
                streams.push(None);
                continue;
            }
            // What the dialer calls outgoing is the acceptor's incoming.
            let (control, data) = match peer < own {
                true => (
                    [Channel::ControlToDialer, Channel::ControlToAcceptor],
                    [Channel::DataToDialer, Channel::DataToAcceptor],
                ),
                false => (
                    [Channel::ControlToAcceptor, Channel::ControlToDialer],
                    [Channel::DataToAcceptor, Channel::DataToDialer],
                ),
            };
            let mut pair = |[incoming, outgoing]: [Channel; 2]| -> Result<(Transport, Transport)> {
                let mut take = |channel| {
                    let taken = self.connections.remove(&(peer as u32, channel));
                    taken.ok_or_else(|| Error::internal("a connection of the cluster is missing"))
                };
                Ok((take(incoming)?, take(outgoing)?))
            };
            let (control, (incoming, outgoing)) = (pair(control)?, pair(data)?);
            let set_up = |error: io::Error| Error::external("cannot set up a connection").detail(error);
            incoming.limit(None, None).map_err(set_up)?;
            outgoing.limit(None, None).map_err(set_up)?;
            links.push(Some(Link::start(
                peer,
                control,
                self.cluster.peer_timeout,
                health.clone(),
            )?));
            streams.push(Some(PeerStream::new(peer, health.clone(), incoming, outgoing)));
        }
        Ok(Formed {
            mesh: Mesh::new(own, links, health, requests, pieces),
            streams,
            start: self.start,
        })
    }
}

struct AcceptorParts {
    acceptor: Acceptor,
    security: Security,
    key: Key,
    start: Vec<u8>,
    joined: Sender<Joined>,
}

/// Accepts the connections that wait, each on a thread of its own.
fn accept(listener: &TcpListener, parts: &Arc<AcceptorParts>) {
    while Arc::strong_count(parts) <= HANDSHAKES_MAX {
        let (socket, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the cluster");
                return;
            }
        };
        let parts = parts.clone();
        let handshake = move || {
            if let Err(why) = parts.shake_hands(socket) {
                tracing::warn!(%from, %why, "refused a connection to the cluster");
            }
        };
        if let Err(error) = std::thread::Builder::new()
            .name("handshake".into())
            .spawn(handshake)
        {
            tracing::warn!(%error, "cannot start a thread for a connection");
        }
    }
}

impl AcceptorParts {
    fn shake_hands(&self, socket: TcpStream) -> std::result::Result<(), String> {
        let failed = |error: io::Error| format!("no handshake: {error}");
        socket
            .set_nonblocking(false)
            .and_then(|()| socket.set_nodelay(true))
            .and_then(|()| limit(&socket))
            .map_err(failed)?;
        let mut transport = self.security.accepted(socket).map_err(failed)?;
        let bytes = read_message(&mut transport).map_err(failed)?;
        let hello: Hello = decode(&bytes).map_err(failed)?;
        let named = |why: &str| format!("process {} may not join: {why}", hello.from);
        // Whoever does not know the secret learns nothing about the cluster.
        let nonce = clock::random();
        let proof = self.key.prove(Role::Acceptor, &bytes, &nonce);
        let challenge = encode(&Challenge { nonce, proof });
        write_message(&mut transport, &challenge).map_err(failed)?;
        let proof = read_message(&mut transport).map_err(failed)?;
        let is_right = <[u8; 32]>::try_from(proof.as_slice())
            .is_ok_and(|proof| self.key.is_proven(Role::Dialer, &bytes, &nonce, &proof));
        let refusal = match is_right {
            true => self.acceptor.refusal(&hello),
            false => Some("its secret is another one".to_owned()),
        };
        let welcome = match &refusal {
            None => Welcome::Joined {
                run: self.acceptor.run,
                start: self.start.clone(),
            },
            Some(why) => Welcome::Refused(why.clone()),
        };
        write_message(&mut transport, &encode(&welcome)).map_err(failed)?;
        if let Some(why) = refusal {
            return Err(named(&why));
        }
        let _formed_without = self.joined.send((hello.from, hello.channel, transport));
        Ok(())
    }
}

fn limit(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(STEP))?;
    socket.set_write_timeout(Some(STEP))
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("messages can be written to memory")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not a message of ours"))
}

fn read<T: DeserializeOwned>(transport: &mut Transport) -> io::Result<T> {
    decode(&read_message(transport)?)
}

/// Tells our messages from whatever else may connect.
const MAGIC: [u8; 8] = *b"thalweg\x01";

fn write_message(transport: &mut Transport, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(12 + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(body);
    transport.write_all(&bytes)?;
    transport.flush()
}

fn read_message(transport: &mut Transport) -> io::Result<Vec<u8>> {
    let mut head = [0; 12];
    transport.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
    if head[..8] != MAGIC || length > MESSAGE_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a message of ours",
        ));
    }
    let mut body = Vec::with_capacity(length.min(64 << 10));
    let read = transport.take(length as u64).read_to_end(&mut body)?;
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}
