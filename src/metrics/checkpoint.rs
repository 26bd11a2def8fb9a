//! Metrics of checkpoints.

use std::time::Duration;

use crate::metrics::histogram::Histogram;
use crate::metrics::{Counter, Gauge, GaugeF64, Registration};
use crate::time::Epoch;

/// Buckets for the duration of a checkpoint. Seconds.
const DURATION_S: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Buckets for the duration of a slice of saving on a worker. Seconds.
const PAUSE_S: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5,
];

/// Handles for the checkpoints.
#[derive(Clone, Debug)]
pub struct CheckpointMetrics {
    /// Time from beginning a checkpoint to publishing it. Seconds.
    pub duration: Histogram,
    /// Duration of one slice of saving state on a worker. Seconds.
    pub pause: Histogram,
    /// Bytes written for published checkpoints.
    pub written: Counter,
    /// Size of the newest checkpoint, including files shared with older ones.
    pub bytes: Gauge,
    /// Epoch of the newest checkpoint. Unix seconds.
    pub newest: GaugeF64,
    /// Checkpoints that failed.
    pub failed: Counter,
}

impl CheckpointMetrics {
    pub(super) fn register(register: &mut Registration<'_>) -> Self {
        Self {
            duration: register.seconds(
                "checkpoint_duration",
                "Time from beginning a checkpoint to publishing it",
                Histogram::new(DURATION_S),
            ),
            pause: register.seconds(
                "checkpoint_pause",
                "Duration of one slice of saving state on a worker",
                Histogram::new(PAUSE_S),
            ),
            written: register.bytes(
                "checkpoint_written",
                "Bytes written for published checkpoints",
                Counter::default(),
            ),
            bytes: register.bytes(
                "checkpoint_size",
                "Size of the newest checkpoint, including files shared with older ones",
                Gauge::default(),
            ),
            newest: register.seconds(
                "checkpoint_newest_timestamp",
                "Epoch of the newest checkpoint",
                GaugeF64::default(),
            ),
            failed: register.plain(
                "checkpoints_failed",
                "Checkpoints that failed",
                Counter::default(),
            ),
        }
    }

    /// Records a published checkpoint.
    pub fn published(&self, epoch: Epoch, took: Duration, written: u64, bytes: u64) {
        self.duration.observe(took.as_secs_f64());
        self.written.inc_by(written);
        self.restored(epoch, bytes);
    }

    /// Records the checkpoint that the run resumes from.
    pub fn restored(&self, epoch: Epoch, bytes: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.newest.set(epoch.0 as f64 / 1e6);
    }
}
