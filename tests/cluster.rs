//! Clusters of three processes, started by their command lines, on a real Kafka.
//!
//! ```text
//!   transfers, all the time ─▶ topic ─▶ process 0, 1, 2 (each below a supervisor) ◀─ kill -9, SIGSTOP
//!                                           │ every answer of every process: the sum is zero, no epoch goes back
//!                                           └ in the end: the balances that the topic's transfers lead to
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a test's deadlines are time on the wall"
)]

mod faults;
mod handshake;
mod member;
#[cfg(feature = "tls")]
mod secure;

/// Not a test by itself: the process that others start, and kill. Returns at once unless it is asked to be
/// that.
#[test]
fn process() {
    member::run_if_asked();
}
