//! Against a real Kafka and a real schema registry: what is counted is what the topics hold, whatever is
//! killed.
//!
//! ```text
//!   load ──▶ topics (Avro, 1 % malformed, some late) ──┬──▶ engine: in this process, or in `node` processes ──▶ rows, hashes
//!                                                      └──▶ oracle: reads the topics itself ──────────────────▶ rows
//! ```
//!
//! The oracle shares no code with the engine. Nothing here asserts a time: tests wait for conditions, and a
//! deadline that is far away fails with what there is to see.
#![allow(
    clippy::disallowed_methods,
    reason = "a test's deadlines are time on the wall"
)]

mod avro_rows;
mod broker;
mod changed;
mod cluster;
mod command;
mod compacted;
mod crash;
mod debezium;
mod delivered;
mod exact;
#[cfg(debug_assertions)]
mod faults;
mod flow;
mod formats;
mod life;
mod load;
mod node;
mod oracle;
mod pace;
mod poison;
#[cfg(feature = "protobuf")]
mod protobuf;
mod quiet;
mod reader;
mod ready;
mod refused;
mod replay;
mod replayed;
mod rubbish;
mod schemas;
#[cfg(feature = "tls")]
mod secure;
mod starts;
mod stop;
mod sunk;
mod times;
mod verify;

use std::time::{Duration, Instant};

/// For whatever is waited for. Far more than it takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Not a test by itself: the process that others start, and kill. Returns at once unless it is asked to be
/// that.
#[test]
fn node() {
    node::run_if_asked();
}

/// Waits until `look` finds something; fails with `state` when it does not for very long.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>, state: impl FnOnce() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: not within {PATIENCE:?}\n{}",
            state()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
