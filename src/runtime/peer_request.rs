//! What the processes of a cluster ask each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::view::remote::ShardRead;

/// What processes ask each other.
#[derive(Serialize, Deserialize)]
pub(super) enum PeerRequest {
    /// Bytes of a file of the checkpoint that the run resumes from; asked of process 0.
    File {
        /// Its path.
        path: PathBuf,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u32,
    },
    /// A part of an answer.
    Shards(ShardRead),
    /// What process 0 observes.
    Observations,
    /// The newest epoch that is closed.
    Closed,
}
