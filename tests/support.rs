//! Real servers for integration tests: Apache Kafka, a schema registry, a store of S3's protocol, Postgres
//! and Debezium, on 127.0.0.1, gone when the test process is.
//!
//! ```text
//!  test ──► Broker::shared() ──► Server ──keeper thread──► scripts/kafka.sh exec ──exec──► java   (free port, temp folder)
//!                                  │
//!                                  └─ ended by: Drop │ exit of the process │ death of the process (PR_SET_PDEATHSIG)
//! ```
//!
//! Nothing here is async: the calls block, and may be made from a plain test and from inside a tokio runtime
//! alike.
#![allow(dead_code, reason = "each test binary uses its own part of this")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test's time-outs are time on the wall"
)]

#[cfg(feature = "tls")]
pub mod certificates;
pub mod debezium;
pub mod kafka;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod registry;
#[cfg(feature = "object-store")]
pub mod s3;
mod server;
pub mod thalweg;

use std::future::Future;
use std::net::TcpListener;

/// Runs a future to its end on a thread of its own, so that it works inside and outside of a runtime.
pub fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a tokio runtime can be built")
                .block_on(future)
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Addresses of so many free ports.
pub fn free_addresses(count: usize) -> Vec<String> {
    let bind = |_| TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let listeners: Vec<_> = (0..count).map(bind).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("it is bound").to_string();
    listeners.iter().map(address).collect()
}
