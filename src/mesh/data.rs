//! The data connections to one peer, as timely wants them.
//!
//! Timely ends a process by a panic when a connection breaks. Here it halts the process instead, with an
//! error that names the peer, and timely's threads never hear of it: the one that reads waits until the
//! process ends, and the one that writes believes that everything was sent.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;

use parking_lot::Mutex;
use timely::communication::allocator::zero_copy::stream::Stream;

use super::MeshHealth;
use super::transport::Transport;

/// The last message of a connection that ends as it should: timely's header without contents, all of it zero.
const END: usize = 48;

/// Both directions of timely's traffic with a peer.
pub(crate) struct PeerStream {
    peer: usize,
    health: Arc<MeshHealth>,
    incoming: Arc<Mutex<Transport>>,
    outgoing: Arc<Mutex<Transport>>,
    /// How many of the last bytes received were zero.
    zeros: usize,
}

impl PeerStream {
    pub(super) fn new(
        peer: usize,
        health: Arc<MeshHealth>,
        incoming: Transport,
        outgoing: Transport,
    ) -> Self {
        Self {
            peer,
            health,
            incoming: Arc::new(Mutex::new(incoming)),
            outgoing: Arc::new(Mutex::new(outgoing)),
            zeros: 0,
        }
    }
}

impl Read for PeerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.incoming.lock().read(buffer);
        let why = match read {
            Ok(0) if self.zeros >= END => return Ok(0),
            Ok(0) => "it has closed its connection".to_owned(),
            Ok(read) => {
                let zeros = buffer[..read].iter().rev().take_while(|byte| **byte == 0).count();
                self.zeros = if zeros == read { self.zeros + zeros } else { zeros };
                return Ok(read);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => error.to_string(),
        };
        self.health.lost(self.peer, why);
        loop {
            std::thread::park();
        }
    }
}

impl Write for PeerStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.health.is_halted() {
            return Ok(bytes.len());
        }
        match self.outgoing.lock().write(bytes) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                self.health.lost(self.peer, error);
                Ok(bytes.len())
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.health.is_halted()
            && let Err(error) = self.outgoing.lock().flush()
        {
            self.health.lost(self.peer, error);
        }
        Ok(())
    }
}

impl Stream for PeerStream {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            peer: self.peer,
            health: self.health.clone(),
            incoming: self.incoming.clone(),
            outgoing: self.outgoing.clone(),
            zeros: self.zeros,
        })
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.incoming.lock().socket().set_nonblocking(nonblocking)?;
        self.outgoing.lock().socket().set_nonblocking(nonblocking)
    }

    fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
        self.outgoing.lock().end_writing();
        Ok(())
    }
}
