//! Ctrl-C and SIGTERM, as one future.

use crate::error::{Error, Result};

/// Listens from now on; the future resolves to the first signal's name.
pub(super) fn listen() -> Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let refused = |error| Error::internal("cannot listen for signals").detail(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "Ctrl-C",
        }
    })
}
