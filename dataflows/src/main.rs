//! The dataflows of this package in one binary.

use std::process::ExitCode;

mod merchant_spend;

/// The broker's client library allocates on one thread and the workers free on another, which the system's
/// allocator does not like: a third of the time from Kafka to a window is saved by this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    thalweg::main([merchant_spend::flow()])
}
