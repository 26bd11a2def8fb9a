//! The only place that reads a wall clock, a monotonic clock or randomness.
//!
//! Everything that enters a result takes its time from the ledger; this module serves the sequencer (which
//! writes time into the ledger), metrics, and timeouts. A lint keeps other code away from the system's
//! clocks.
#![allow(clippy::disallowed_methods)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::EventTime;

#[cfg(test)]
pub(crate) mod sim;

/// Microseconds since the Unix epoch, by the wall clock.
pub fn now_micros() -> u64 {
    #[cfg(test)]
    if let Some(now) = sim::now_micros() {
        return now;
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The wall clock as an [`EventTime`].
pub fn now() -> EventTime {
    EventTime(i64::try_from(now_micros()).unwrap_or(i64::MAX))
}

/// The monotonic clock.
pub fn instant() -> Instant {
    #[cfg(test)]
    if let Some(instant) = sim::instant() {
        return instant;
    }
    Instant::now()
}

/// Random bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    use std::io::Read;
    let mut bytes = [0; N];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.expect("every Unix has a source of randomness");
    bytes
}

/// A number that no other process is likely to have drawn: distinguishes two processes that claim the same
/// generation.
pub fn nonce() -> u64 {
    #[cfg(test)]
    if let Some(nonce) = sim::nonce() {
        return nonce;
    }
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(now_micros());
    hasher.write_u32(std::process::id());
    hasher.finish()
}
