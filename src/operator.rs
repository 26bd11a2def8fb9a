//! Operators, one per file, named by what they do.
//!
//! All of them follow one rule: their output for an epoch depends on the contents of the epochs up to it,
//! never on how those arrived. So they buffer the input of an epoch and process it when their frontier has
//! passed it, in the order of epochs.

pub(crate) mod admit;
pub mod aggregate;
pub(crate) mod backfill;
pub(crate) mod captured;
pub(crate) mod changes;
pub mod dead_letters;
pub(crate) mod dedup;
pub(crate) mod deliver;
pub(crate) mod epoch_cursor;
pub(crate) mod exact;
pub(crate) mod exchange;
pub(crate) mod group;
pub(crate) mod horizon;
pub mod interval_join;
pub(crate) mod join;
pub(crate) mod late;
pub(crate) mod lookup;
pub(crate) mod net;
pub mod process;
pub mod process_events;
pub(crate) mod serve;
pub mod table;
pub(crate) mod try_map;
pub(crate) mod upsert;
pub(crate) mod when_closed;
pub(crate) mod window;
