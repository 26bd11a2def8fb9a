//! Checkpoints: the state of a dataflow as of one epoch, on a disk or in an object store, so that a restart
//! does not replay everything before it.
//!
//! ```text
//!   epoch s is bound ─▶ every stateful step freezes behind s ─▶ what changed since the last one, a slice at a time
//!                                                                  │
//!      segments, synced ─▶ manifest, published in one step  ◀──────┘
//!                              │
//!   restart: newest whole one ─┴▶ each worker loads the keys that it owns ─▶ bindings after s are replayed from the topics
//! ```
//!
//! A checkpoint contains the state of the keyed steps that records enter (windows, tables, dead letters) and
//! the views. Whatever is derived from tables (joins, groups, fixed points) is recomputed from them when the
//! state is loaded. Views discard recomputed rows up to s, which they already have.
//!
//! | file | contents |
//! |---|---|
//! | [manifest] | the epoch, positions, watermarks, the steps with their types, and their files |
//! | [segment] | entries of one step in [buckets](entry::BUCKETS) that do not depend on the number of workers |
//!
//! Each step has a chain of segments, each with the changes since the previous one; segments are
//! [merged](merge) as they grow.

pub(crate) mod appended;
pub(crate) mod compatibility;
mod coordinator;
pub(crate) mod entry;
pub(crate) mod identity;
pub mod keyed;
pub mod location;
pub(crate) mod manifest;
pub(crate) mod merge;
pub mod owner;
pub(crate) mod pending;
pub(crate) mod protocol;
pub(crate) mod relay;
pub(crate) mod segment;
pub mod state;
pub(crate) mod state_handle;
pub(crate) mod steps;
pub mod store;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use coordinator::Checkpoints;
pub use entry::BUCKETS;

use crate::disk::StoreFault;
use crate::error::Error;

pub(crate) fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Error {
    let failed = Error::external(format!("cannot {what} `{}`", path.display())).detail(error);
    match StoreFault::of(error) {
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
