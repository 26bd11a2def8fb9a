//! The control connections to one peer.
//!
//! ```text
//!   queue ──▶ writer thread ── length, kind, body ──▶ peer         a heartbeat whenever nothing else is sent
//!   waiting requests ◀── reader thread ◀── length, kind, body ── peer
//! ```
//!
//! Everything that arrives counts as a sign of life. If nothing does for the configured time, or if the
//! connection breaks, the peer is lost.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::transport::Transport;
use super::{MeshHealth, PeerAway, Request};
use crate::clock;
use crate::error::{Error, Result};

/// What a frame contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum FrameKind {
    /// A sign of life.
    Heartbeat = 0,
    /// Why the sender has halted.
    Halted = 1,
    /// The sender's dataflow has ended as it should.
    Goodbye = 2,
    /// A number, and a request.
    Request = 3,
    /// The request's number, and the answer.
    Answer = 4,
    /// A one-way message.
    Piece = 5,
}

impl FrameKind {
    fn of(byte: u8) -> Option<Self> {
        let all = [
            Self::Heartbeat,
            Self::Halted,
            Self::Goodbye,
            Self::Request,
            Self::Answer,
            Self::Piece,
        ];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Maximum size of a frame's body. A longer one is no frame of ours.
const BODY_MAX: usize = 256 << 20;
/// Length and kind.
const HEAD: usize = 5;
/// Bytes queued for a peer above which senders of one-way messages wait.
const QUEUED_MAX: usize = 32 << 20;
/// Heartbeats per `peer_timeout`.
const HEARTBEATS: u32 = 5;

enum Outgoing {
    Frame(Vec<u8>),
    Close,
}

/// The control connections to one peer.
pub(crate) struct Link {
    peer: usize,
    to: Sender<Outgoing>,
    queued: Arc<AtomicUsize>,
    state: Arc<LinkState>,
    next: AtomicU64,
    started: Instant,
    /// Both sockets, to end what is blocked on them.
    sockets: [std::net::TcpStream; 2],
}

#[derive(Default)]
struct LinkState {
    /// When something was received, in milliseconds after `started`.
    heard: AtomicU64,
    waiting: Mutex<HashMap<u64, Sender<Vec<u8>>>>,
    /// The peer has ended as it should, or this process has.
    over: AtomicBool,
    gone: AtomicBool,
}

/// A request that was sent.
pub(crate) struct Asked {
    peer: usize,
    answer: Receiver<Vec<u8>>,
}

impl Asked {
    /// Waits for the answer.
    pub(crate) fn wait(self, limit: Duration) -> std::result::Result<Vec<u8>, PeerAway> {
        self.answer
            .recv_timeout(limit)
            .map_err(|_| PeerAway { process: self.peer })
    }
}

fn frame(kind: FrameKind, parts: [&[u8]; 2]) -> Vec<u8> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(HEAD + length);
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    bytes.push(kind as u8);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

impl Link {
    /// Starts the threads of a link.
    pub(super) fn start(
        peer: usize,
        (incoming, outgoing): (Transport, Transport),
        peer_timeout: Duration,
        health: Arc<MeshHealth>,
    ) -> Result<Arc<Self>> {
        let set_up = |error: io::Error| Error::external("cannot set up a connection").detail(error);
        let sockets = [incoming.socket().try_clone(), outgoing.socket().try_clone()];
        let [read, written] = sockets.map(|socket| socket.map_err(set_up));
        let sockets = [read?, written?];
        incoming.limit(Some(peer_timeout), None).map_err(set_up)?;
        outgoing.limit(None, Some(peer_timeout)).map_err(set_up)?;
        let started = clock::instant();
        let (to, queue) = channel();
        let (queued, state) = (Arc::<AtomicUsize>::default(), Arc::<LinkState>::default());
        let writer = LinkWriter {
            peer,
            outgoing,
            queue,
            queued: queued.clone(),
            state: state.clone(),
            health: health.clone(),
            interval: peer_timeout / HEARTBEATS,
        };
        let reader = LinkReader {
            peer,
            incoming,
            state: state.clone(),
            health,
            limit: peer_timeout,
            started,
        };
        let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
            let spawned = std::thread::Builder::new().name(name).spawn(run);
            spawned
                .map(drop)
                .map_err(|error| Error::internal("cannot start a thread").detail(error))
        };
        spawn(format!("to {peer}"), Box::new(move || writer.run()))?;
        spawn(format!("from {peer}"), Box::new(move || reader.run()))?;
        Ok(Arc::new(Self {
            peer,
            to,
            queued,
            state,
            next: AtomicU64::new(0),
            started,
            sockets,
        }))
    }

    /// How long ago something was received; `None` if the connection has ended.
    pub(super) fn silence(&self) -> Option<Duration> {
        let heard = Duration::from_millis(self.state.heard.load(Ordering::Relaxed));
        let is_there = !self.state.gone.load(Ordering::Acquire);
        is_there.then(|| (clock::instant() - self.started).saturating_sub(heard))
    }

    fn queue(&self, frame: Vec<u8>) {
        self.queued.fetch_add(frame.len(), Ordering::Relaxed);
        let _gone = self.to.send(Outgoing::Frame(frame));
    }

    pub(super) fn ask(&self, body: &[u8]) -> std::result::Result<Asked, PeerAway> {
        let away = PeerAway { process: self.peer };
        if self.state.gone.load(Ordering::Acquire) {
            return Err(away);
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer_to, answer) = channel();
        self.state.waiting.lock().insert(id, answer_to);
        self.queue(frame(FrameKind::Request, [&id.to_le_bytes(), body]));
        // Its reader may have ended in between, and forgotten everybody who waited.
        if self.state.gone.load(Ordering::Acquire) {
            self.state.waiting.lock().clear();
        }
        Ok(Asked {
            peer: self.peer,
            answer,
        })
    }

    pub(super) fn answer(&self, id: u64, body: &[u8]) {
        self.queue(frame(FrameKind::Answer, [&id.to_le_bytes(), body]));
    }

    pub(super) fn send_piece(&self, body: &[u8]) {
        while self.queued.load(Ordering::Relaxed) > QUEUED_MAX && !self.state.gone.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.queue(frame(FrameKind::Piece, [body, &[]]));
    }

    pub(super) fn halted(&self, why: &str) {
        self.queue(frame(FrameKind::Halted, [why.as_bytes(), &[]]));
    }

    pub(super) fn goodbye(&self) {
        self.state.over.store(true, Ordering::Release);
        self.queue(frame(FrameKind::Goodbye, [&[], &[]]));
    }

    /// Ends both threads, after everything queued was sent.
    pub(super) fn close(&self) {
        self.state.over.store(true, Ordering::Release);
        let _gone = self.to.send(Outgoing::Close);
        let _gone = self.sockets[0].shutdown(Shutdown::Read);
    }
}

struct LinkWriter {
    peer: usize,
    outgoing: Transport,
    queue: Receiver<Outgoing>,
    queued: Arc<AtomicUsize>,
    state: Arc<LinkState>,
    health: Arc<MeshHealth>,
    interval: Duration,
}

impl LinkWriter {
    fn run(mut self) {
        loop {
            let sent = match self.queue.recv_timeout(self.interval) {
                Ok(Outgoing::Frame(bytes)) => {
                    let sent = self.outgoing.write_all(&bytes);
                    self.queued.fetch_sub(bytes.len(), Ordering::Relaxed);
                    sent
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.outgoing.write_all(&frame(FrameKind::Heartbeat, [&[], &[]]))
                }
                Ok(Outgoing::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.outgoing.end_writing();
                    return;
                }
            };
            if let Err(error) = sent {
                self.state.gone.store(true, Ordering::Release);
                if !self.state.over.load(Ordering::Acquire) {
                    self.health.lost(self.peer, error);
                }
                return;
            }
        }
    }
}

struct LinkReader {
    peer: usize,
    incoming: Transport,
    state: Arc<LinkState>,
    health: Arc<MeshHealth>,
    limit: Duration,
    started: Instant,
}

impl LinkReader {
    fn run(mut self) {
        let why = loop {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => break "it has closed its connection".to_owned(),
                Err(error) if is_timeout(&error) => {
                    break format!("it has not been heard from for {}", crate::time::span(self.limit));
                }
                Err(error) => break error.to_string(),
            }
        };
        self.state.gone.store(true, Ordering::Release);
        // Those who wait for an answer learn that there will be none.
        self.state.waiting.lock().clear();
        if !self.state.over.load(Ordering::Acquire) {
            self.health.lost(self.peer, why);
        }
    }

    /// Handles a frame. Returns false at the end of the connection.
    fn receive(&mut self) -> io::Result<bool> {
        let mut head = [0; HEAD];
        match self.incoming.read(&mut head[..1])? {
            0 => return Ok(false),
            _ => self.incoming.read_exact(&mut head[1..])?,
        }
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "it has sent what is no message");
        let kind = FrameKind::of(head[4]).ok_or_else(malformed)?;
        if length > BODY_MAX {
            return Err(malformed());
        }
        // Grows as bytes arrive, whatever the length claims.
        let mut body = Vec::with_capacity(length.min(1 << 20));
        let read = (&mut self.incoming).take(length as u64).read_to_end(&mut body)?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let heard = (clock::instant() - self.started).as_millis() as u64;
        self.state.heard.store(heard, Ordering::Relaxed);
        self.handle(kind, body).ok_or_else(malformed)?;
        Ok(true)
    }

    fn handle(&mut self, kind: FrameKind, body: Vec<u8>) -> Option<()> {
        match kind {
            FrameKind::Heartbeat => {}
            FrameKind::Goodbye => self.state.over.store(true, Ordering::Release),
            FrameKind::Halted => {
                self.health.halted_by(self.peer, &String::from_utf8_lossy(&body));
                self.state.over.store(true, Ordering::Release);
            }
            FrameKind::Piece => _ = self.health.pieces.send((self.peer, body)),
            FrameKind::Request | FrameKind::Answer => {
                let (id, rest) = body.split_first_chunk()?;
                let (id, rest) = (u64::from_le_bytes(*id), rest.to_vec());
                if kind == FrameKind::Request {
                    let from = self.peer;
                    _ = self.health.requests.send(Request { from, id, body: rest });
                } else if let Some(asker) = self.state.waiting.lock().remove(&id) {
                    // It may have given up.
                    let _gone = asker.send(rest);
                }
            }
        }
        Some(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;
    use crate::bridge::Halt;
    use crate::mesh::{Cluster, health};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialed, listener.accept().unwrap().0)
    }

    /// A link to peer 1, and the other ends of its two connections: what it reads from, what it writes to.
    fn link(
        peer_timeout: Duration,
    ) -> (
        Arc<Link>,
        Halt,
        [TcpStream; 2],
        std::sync::mpsc::Receiver<Request>,
    ) {
        let ((to_it, incoming), (outgoing, from_it)) = (pair(), pair());
        let halt = Halt::default();
        let cluster = Cluster::new(0, vec!["a:1".into(), "b:2".into()]);
        let (health, requests, _pieces) = health(&cluster, &halt);
        let transports = (Transport::Plain(incoming), Transport::Plain(outgoing));
        let link = Link::start(1, transports, peer_timeout, health).unwrap();
        (link, halt, [to_it, from_it], requests)
    }

    fn halted(halt: &Halt) -> String {
        while !halt.is_halted() {
            std::thread::sleep(Duration::from_millis(1));
        }
        halt.error().unwrap().to_string()
    }

    const LONG: Duration = Duration::from_secs(60);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hostile_bytes_lose_the_peer_and_nothing_else(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (_link, halt, [mut to_it, _from_it], _requests) = link(LONG);
            let _hung_up = to_it.write_all(&bytes);
            drop(to_it);
            let why = halted(&halt);
            prop_assert!(why.contains("process 1 of the cluster (b:2) is lost"), "{why}");
        }
    }

    #[test]
    fn a_silent_peer_is_lost_and_one_that_says_goodbye_is_not() {
        let (_link, halt, [_to_it, _from_it], _requests) = link(Duration::from_millis(50));
        assert!(halted(&halt).contains("not been heard from for 50ms"));

        let (_link, halt, [mut to_it, _from_it], requests) = link(LONG);
        to_it.write_all(&frame(FrameKind::Goodbye, [&[], &[]])).unwrap();
        to_it
            .write_all(&frame(FrameKind::Request, [&7u64.to_le_bytes(), b"how are you"]))
            .unwrap();
        assert_eq!(requests.recv().unwrap().body, b"how are you");
        drop(to_it);
        assert!(!halt.is_halted());

        let (_link, halt, [mut to_it, _from_it], _requests) = link(LONG);
        to_it
            .write_all(&frame(FrameKind::Halted, [b"the disk is full", &[]]))
            .unwrap();
        let why = halted(&halt);
        assert!(
            why.contains("has halted") && why.contains("the disk is full"),
            "{why}"
        );
    }

    #[test]
    fn those_who_wait_for_an_answer_hear_that_there_will_be_none() {
        let (link, _halt, [to_it, mut from_it], _requests) = link(LONG);
        let asked = link.ask(b"how are you").unwrap();
        let mut sent = [0; HEAD + 8 + 11];
        from_it.read_exact(&mut sent).unwrap();
        assert_eq!(&sent[HEAD + 8..], b"how are you");
        drop(to_it);
        assert_eq!(asked.wait(LONG), Err(PeerAway { process: 1 }));
        assert!(link.ask(b"are you there").is_err() || link.silence().is_none());
    }
}
