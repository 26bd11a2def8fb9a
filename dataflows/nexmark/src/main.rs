//! The queries of NEXMark in one binary.

use std::process::ExitCode;

/// The broker's client library allocates on one thread and the workers free on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    thalweg::main(nexmark::queries::flows())
}
