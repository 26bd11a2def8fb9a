//! How long the registry has let those wait who asked it something, and how long they do.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Registry;
use crate::clock;
use crate::error::{Error, Result};

/// Requests without an answer yet, in the order in which they were sent.
#[derive(Default)]
pub(super) struct InFlight(Mutex<OpenRequest>);

#[derive(Default)]
struct OpenRequest {
    begun: BTreeMap<u64, Instant>,
    next: u64,
}

/// A request on its way; over when it is dropped, however it ends.
pub(super) struct RequestGuard<'a> {
    silence: &'a InFlight,
    ticket: u64,
}

impl InFlight {
    pub(super) fn ask(&self) -> RequestGuard<'_> {
        let mut open = self.0.lock();
        let ticket = open.next;
        open.next += 1;
        open.begun.insert(ticket, clock::instant());
        RequestGuard {
            silence: self,
            ticket,
        }
    }

    /// How long the oldest request has been waiting, if that is `least` at least.
    pub(super) fn lasts(&self, least: Duration) -> Option<Duration> {
        let open = self.0.lock();
        let (_, begun) = open.begun.first_key_value()?;
        Some(clock::instant().duration_since(*begun)).filter(|waited| *waited >= least)
    }
}

impl Registry {
    /// Runs a request to its end for a thread that may wait; fails when that takes longer than `patience`,
    /// and sooner when the registry leaves a request without an answer, or the process ends. Not for a thread
    /// of the asynchronous runtime.
    pub fn wait<R: Send + 'static>(
        &self,
        patience: Duration,
        request: impl Future<Output = Result<R>> + Send + 'static,
    ) -> Result<R> {
        let (tell, told) = sync_channel(1);
        let mut over = self.shared.over.subscribe();
        self.shared.handle.spawn(async move {
            tokio::select! {
                // Whoever asked may have gone.
                done = request => { let _gone = tell.send(done); }
                _ = over.wait_for(|over| *over) => {}
            }
        });
        let begun = clock::instant();
        let silence = self.shared.patience.silence;
        loop {
            let waited = clock::instant().duration_since(begun);
            let silent = self.shared.silence.lasts(silence);
            if waited >= patience || silent.is_some() {
                return Err(Error::external("the schema registry does not answer")
                    .detail(format!("waited {:.1?} for it", silent.unwrap_or(waited))));
            }
            match told.recv_timeout(silence.min(patience - waited)) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::external("the schema registry was not waited for"));
                }
            }
        }
    }

    /// Ends every [`Registry::wait`], those to come too: for a stop, which waits for nobody outside.
    pub fn hang_up(&self) {
        self.shared.over.send_replace(true);
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.silence.0.lock().begun.remove(&self.ticket);
    }
}
