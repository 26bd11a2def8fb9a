//! Checkpoints: the state of a dataflow as of one epoch, on a disk or in an object store, so that a restart
//! needs no replay of what led to it.
//!
//! ```text
//!   epoch s is bound ─▶ every stateful step freezes behind s ─▶ what changed since the last one, a slice at a time
//!                                                                  │
//!      segments, synced ─▶ manifest, published in one step  ◀──────┘
//!                              │
//!   restart: newest whole one ─┴▶ each worker loads the keys that it owns ─▶ bindings after s are replayed from the topics
//! ```
//!
//! What is saved is the state of keyed steps that records enter (windows, tables, dead letters) and the
//! views. Whatever is made of tables further on (joins, groups, fixed points) is made again from them when
//! the state is loaded, and dropped where it would reach a view: rows up to s are the view's own already.
//!
//! | file | holds |
//! |---|---|
//! | [manifest] | the epoch, positions, watermarks, the steps with their types, and which files they have |
//! | [segment] | entries of one step in [buckets](entry::BUCKETS) that don't depend on the number of workers |
//!
//! Each step has a chain of segments, each with what changed since the one before; they are [merged](merge)
//! as they grow.

pub(crate) mod appended;
mod coordinator;
pub(crate) mod entry;
pub(crate) mod fit;
pub(crate) mod identity;
pub(crate) mod job;
pub(crate) mod keeper;
pub mod keyed;
pub(crate) mod manifest;
pub(crate) mod merge;
pub mod owner;
pub mod place;
pub(crate) mod protocol;
pub(crate) mod segment;
pub mod state;
pub(crate) mod steps;
pub mod store;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use coordinator::Checkpoints;
pub use entry::BUCKETS;

use crate::disk::Trouble;
use crate::error::Error;

pub(crate) fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let failed = Error::outside(format!("cannot {what} `{}`", path.display())).detail(error);
    match Trouble::of(error) {
        Some(trouble) => failed.hint(trouble.hint),
        None => failed,
    }
}

pub(crate) fn damaged(path: &Path, what: &str) -> Error {
    Error::integrity(format!(
        "the file `{}` of a checkpoint is damaged",
        path.display()
    ))
    .detail(what)
}
