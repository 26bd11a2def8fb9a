//! Rows in a real Postgres, whatever becomes of the process that writes them, of the server, and of the
//! table: what is there is what an evaluation of the input from scratch says, each row once.
//!
//! ```text
//!   accounts-*.jsonl   ─▶ table  ─┬─▶ accounts  (upsert_to)      = the last line of each id
//!                                 └─▶ changes   (changes_to)     = a chain a key, from nothing to there
//!   transfers-*.jsonl  ─▶ stream ─┬─▶ transfers (append_to)      = the lines
//!                                 └─ by account and day ─▶ balances (upsert_to)   add up to 0 at any time
//! ```
#![allow(
    clippy::disallowed_methods,
    reason = "a test's deadlines are time on the wall"
)]

mod away;
mod bench;
#[cfg(debug_assertions)]
mod faults;
mod node;
mod oracle;
mod refused;
mod tables;
mod types;

/// Not a test of its own: the process that other tests start, and kill.
#[test]
fn node() {
    node::run_if_asked();
}
