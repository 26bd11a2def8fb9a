//! Change events of [Debezium](https://debezium.io): a database's table as its rows change, from a topic.
//!
//! ```text
//!   key      {"id":7}                                       ─▶ key::KeyDecoder ──────────────────────▶ K ┐
//!   payload  {"before":…,"after":…,"source":…,"op":"u",…}   ─▶ decoder::EventDecoder ─▶ Envelope<V> ────┴─▶ Captured<K, V>
//!              │                                                 │
//!              ├─ JSON, with Connect's schema around it or not   ├─ after ─▶ V at once, from the payload's bytes
//!              └─ Avro, schemas from the registry                └─ a column that Debezium leaves out:
//!                                                                   the columns that are there, and the names of the rest
//! ```
//!
//! The events themselves, how duplicates are known, and what is promised of a table:
//! [`docs/debezium.md`](https://github.com/thalweg/thalweg/blob/main/docs/debezium.md). `before` is never
//! read: unless a table has `REPLICA IDENTITY FULL` it holds made-up values. The row before a change is the
//! one that the table holds.
//!
//! # Columns
//!
//! Fields of `V` have the names of columns, and are decoded by serde. Most types of a database need nothing
//! more; [`convert`] has the rest.

pub mod convert;
pub mod decoder;
pub mod envelope;
pub(crate) mod key;
mod missing;
mod shape;
mod wire;

#[cfg(test)]
mod tests;
