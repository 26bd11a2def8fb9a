//! Checkpoints in a bucket of a real server of S3's protocol: restored, damaged, raced for, pruned; and a
//! server that is away, refuses, or dies in the midst.
//!
//! ```text
//!   model::checkpoints' world ──┐
//!   files that grow ────────────┼─▶ Service ─▶ ObjectFiles ─▶ S3Proxy ◀─ tests: flip, cut, remove, kill -9
//!   the `thalweg` binary ───────┘
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a test's deadlines are time on the wall"
)]

mod away;
mod commands;
mod restored;
