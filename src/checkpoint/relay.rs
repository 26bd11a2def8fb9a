//! Sends the parts of a checkpoint to the process that writes it.
//!
//! ```text
//!   workers ── chunks, done ──▶ relay ══ parts ══▶ the writer's process ── take_part ──▶ writer
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;

use serde::{Deserialize, Serialize};

use super::manifest::RetentionBounds;
use super::pending::{FloorHold, PendingCheckpoint, StateChunk, WriterMessage};
use super::segment::Chunk;
use crate::error::Error;
use crate::time::Epoch;

/// A part of a checkpoint, from a process that does not write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RelayedPart {
    /// The checkpoint's epoch.
    pub epoch: Epoch,
    /// What it contains.
    pub contents: PartContents,
}

/// The contents of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PartContents {
    /// Entries of a step.
    Chunk {
        /// The step.
        step: usize,
        /// See [`Chunk`].
        bucket: usize,
        /// See [`Chunk`].
        removals: bool,
        /// See [`Chunk`].
        bytes: Vec<u8>,
        /// Number of entries.
        entries: u64,
    },
    /// A worker has sent all of its entries.
    Done(Vec<RetentionBounds>),
    /// The state cannot be saved.
    Failed(String),
}

impl PartContents {
    /// Gives it to the checkpoint in progress.
    pub(super) fn give(self, job: &PendingCheckpoint) {
        match self {
            Self::Chunk {
                step,
                bucket,
                removals,
                bytes,
                entries,
            } => {
                let chunk = Chunk {
                    bucket,
                    removals,
                    bytes,
                };
                job.send(StateChunk { step, chunk, entries });
            }
            Self::Done(bounds) => job.done(bounds),
            Self::Failed(why) => {
                job.fail(Error::external("another process cannot save its state").detail(why))
            }
        }
    }
}

/// Receives what the workers of this process save.
pub(crate) struct CheckpointRelay {
    from: Receiver<WriterMessage>,
    held: Arc<AtomicUsize>,
    workers: usize,
    hold: FloorHold,
}

impl CheckpointRelay {
    pub(super) fn new(
        from: Receiver<WriterMessage>,
        held: Arc<AtomicUsize>,
        workers: usize,
        hold: FloorHold,
    ) -> Self {
        Self {
            from,
            held,
            workers,
            hold,
        }
    }

    /// Passes every part to `send`, which may block, until the process ends.
    pub(crate) fn run(self, mut send: impl FnMut(&RelayedPart)) {
        let mut current: Option<(Arc<PendingCheckpoint>, usize)> = None;
        while let Ok(message) = self.from.recv() {
            match (message, &mut current) {
                (WriterMessage::End, _) => return,
                (WriterMessage::Join(job), _) => current = Some((job, self.workers)),
                (WriterMessage::Chunk(piece), Some((job, _))) => {
                    let size = piece.chunk.bytes.len();
                    let Chunk {
                        bucket,
                        removals,
                        bytes,
                    } = piece.chunk;
                    send(&RelayedPart {
                        epoch: job.epoch,
                        contents: PartContents::Chunk {
                            step: piece.step,
                            bucket,
                            removals,
                            bytes,
                            entries: piece.entries,
                        },
                    });
                    self.held.fetch_sub(size, Ordering::Relaxed);
                }
                (WriterMessage::Done(bounds), Some((job, left))) => {
                    let epoch = job.epoch;
                    if let Some(error) = job.failed.lock().take() {
                        let contents = PartContents::Failed(error.to_string());
                        send(&RelayedPart { epoch, contents });
                    }
                    let contents = PartContents::Done(bounds);
                    send(&RelayedPart { epoch, contents });
                    *left -= 1;
                    if *left == 0 {
                        (self.hold)(Epoch(u64::MAX));
                        current = None;
                    }
                }
                (other, _) => drop(other),
            }
        }
    }
}
