//! What is measured of sinks.

use std::sync::Arc;

use crate::metrics::{Counter, Counters, Gauge, GaugeF64, Gauges, GaugesF64, Register, one};

/// Handles for a sink.
#[derive(Clone, Debug, Default)]
pub struct SinkMetrics {
    /// Rows that it has.
    pub rows: Counter,
    /// Rows that wait for it.
    pub waiting: Gauge,
    /// The last epoch that it has. Unix seconds.
    pub epoch: GaugeF64,
    /// How often it failed.
    pub failures: Counter,
}

#[derive(Clone, Debug)]
pub(super) struct SinkFamilies {
    rows: Counters<1>,
    waiting: Gauges<1>,
    epoch: GaugesF64<1>,
    failures: Counters<1>,
}

impl SinkFamilies {
    pub(super) fn register(register: &mut Register<'_>) -> Self {
        Self {
            rows: register.plain("sink_rows", "Rows that a sink has", Counters::default()),
            waiting: register.plain(
                "sink_rows_waiting",
                "Rows that wait for a sink",
                Gauges::default(),
            ),
            epoch: register.seconds(
                "sink_epoch_timestamp",
                "The last epoch that a sink has",
                GaugesF64::default(),
            ),
            failures: register.plain("sink_failures", "How often a sink failed", Counters::default()),
        }
    }

    pub(super) fn of(&self, sink: &str) -> SinkMetrics {
        let sink = [("sink", Arc::from(sink))];
        SinkMetrics {
            rows: one(&self.rows, sink.clone()),
            waiting: one(&self.waiting, sink.clone()),
            epoch: one(&self.epoch, sink.clone()),
            failures: one(&self.failures, sink),
        }
    }
}
