//! Operators against a from-scratch evaluation: the same result at every epoch, on any number of workers.
//!
//! ```text
//!   random log ─┬─▶ Harness (the whole engine; 1, 2 or 3 workers; reads of any size) ─▶ views at every epoch ─┐
//!               └─▶ evaluation from the rules alone, shares no code with the engine  ─▶ rows at every epoch ─┴─ equal?
//! ```
//!
//! Runs on different numbers of workers must also agree in the hash of every view's changes in every epoch.

mod aggregates;
mod captured;
pub(crate) mod checkpoints;
mod closed;
mod cluster;
mod collections;
mod durable;
mod every_aggregate;
mod evolution;
mod files;
mod formats;
mod graphs;
mod identity;
mod log;
mod pace;
mod panics;
mod process;
mod rejects;
mod relations;
mod replay;
mod results;
mod serving;
mod sinks;
mod smoke;
mod sources;
mod stores;
mod streams;
mod tables;
mod unfit;
mod windows;
mod written;
