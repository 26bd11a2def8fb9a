//! All integration tests, in one binary: `cargo test --test it model::` runs a part of them.

mod cluster;
mod commands;
mod compile;
mod habits;
mod house;
mod kafka;
mod links;
mod model;
mod ops;
#[cfg(feature = "postgres")]
mod postgres;
mod readme;
#[cfg(feature = "object-store")]
mod store;
mod support;
