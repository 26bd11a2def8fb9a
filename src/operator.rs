//! Thalweg's own operators: one a file, named by what it does.
//!
//! All of them follow one rule: what they emit for an epoch depends on what the epochs up to it contain,
//! never on how it arrived. So they gather what belongs to an epoch and act when their frontier has passed
//! it, in order of epochs.

pub mod again;
pub mod aggregate;
pub mod changes;
pub mod deliver;
pub mod exact;
pub mod group;
pub mod horizon;
pub mod late;
pub mod letters;
pub mod net;
pub mod process;
pub mod serve;
pub mod try_map;
pub mod upsert;
pub mod walk;
pub mod window;
