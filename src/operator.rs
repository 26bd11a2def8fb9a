//! Thalweg's own operators: one a file, named by what it does.
//!
//! All of them follow one rule: what they emit for an epoch depends on what the epochs up to it contain,
//! never on how it arrived. So they gather what belongs to an epoch and act when their frontier has passed
//! it, in order of epochs.

pub(crate) mod admit;
pub(crate) mod again;
pub mod aggregate;
pub(crate) mod captured;
pub(crate) mod changes;
pub(crate) mod dedup;
pub(crate) mod deliver;
pub(crate) mod exact;
pub(crate) mod exchange;
pub(crate) mod group;
pub(crate) mod horizon;
pub mod interval_join;
pub(crate) mod join;
pub(crate) mod late;
pub mod letters;
pub(crate) mod lookup;
pub(crate) mod net;
pub mod process;
pub mod process_events;
pub(crate) mod serve;
pub mod table;
pub(crate) mod try_map;
pub(crate) mod upsert;
pub(crate) mod walk;
pub(crate) mod when_closed;
pub(crate) mod window;
