//! Metrics of sinks.

use std::sync::Arc;

use prometheus_client::metrics::family::{Family, MetricConstructor};

use crate::metrics::histogram::Histogram;
use crate::metrics::{
    Counter, Counters, Gauge, GaugeF64, Gauges, GaugesF64, LATENCY_S, Labels, Registration, one,
};

/// Handles for a sink.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    /// Rows delivered.
    pub rows: Counter,
    /// Their size in memory.
    pub bytes: Counter,
    /// Rows queued.
    pub waiting: Gauge,
    /// Their size in memory.
    pub waiting_bytes: Gauge,
    /// Age of the oldest queued epoch. Seconds.
    pub waiting_age: GaugeF64,
    /// The last epoch delivered. Unix seconds.
    pub epoch: GaugeF64,
    /// Failed writes, which were retried.
    pub failures: Counter,
    /// Time from the event, or from the opening of its epoch, to its delivery. Seconds.
    pub latency: Histogram,
}

impl Default for SinkMetrics {
    fn default() -> Self {
        Self {
            rows: Counter::default(),
            bytes: Counter::default(),
            waiting: Gauge::default(),
            waiting_bytes: Gauge::default(),
            waiting_age: GaugeF64::default(),
            epoch: GaugeF64::default(),
            failures: Counter::default(),
            latency: Histogram::new(LATENCY_S),
        }
    }
}

#[derive(Clone, Debug)]
struct LatencyHistogram;

impl MetricConstructor<Histogram> for LatencyHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCY_S)
    }
}

#[derive(Clone, Debug)]
pub(super) struct SinkFamilies {
    rows: Counters<1>,
    bytes: Counters<1>,
    waiting: Gauges<1>,
    waiting_bytes: Gauges<1>,
    waiting_age: GaugesF64<1>,
    epoch: GaugesF64<1>,
    failures: Counters<1>,
    latency: Family<Labels<1>, Histogram, LatencyHistogram>,
}

impl SinkFamilies {
    pub(super) fn register(register: &mut Registration<'_>) -> Self {
        Self {
            rows: register.plain("sink_rows", "Rows delivered to a sink", Counters::default()),
            bytes: register.bytes(
                "sink_size",
                "Size of the rows delivered to a sink",
                Counters::default(),
            ),
            waiting: register.plain("sink_rows_waiting", "Rows queued for a sink", Gauges::default()),
            waiting_bytes: register.bytes(
                "sink_size_waiting",
                "Size of the rows queued for a sink",
                Gauges::default(),
            ),
            waiting_age: register.seconds(
                "sink_waiting_age",
                "Age of the oldest epoch queued for a sink, from when it was opened",
                GaugesF64::default(),
            ),
            epoch: register.seconds(
                "sink_epoch_timestamp",
                "Last epoch delivered to a sink",
                GaugesF64::default(),
            ),
            failures: register.plain("sink_failures", "Failed writes to a sink", Counters::default()),
            latency: register.seconds(
                "sink_latency",
                "Time from an event, or from the opening of its epoch if it has no event time, to its \
                 delivery",
                Family::new_with_constructor(LatencyHistogram),
            ),
        }
    }

    pub(super) fn of(&self, sink: &str) -> SinkMetrics {
        let sink = [("sink", Arc::from(sink))];
        SinkMetrics {
            rows: one(&self.rows, sink.clone()),
            bytes: one(&self.bytes, sink.clone()),
            waiting: one(&self.waiting, sink.clone()),
            waiting_bytes: one(&self.waiting_bytes, sink.clone()),
            waiting_age: one(&self.waiting_age, sink.clone()),
            epoch: one(&self.epoch, sink.clone()),
            failures: one(&self.failures, sink.clone()),
            latency: one(&self.latency, sink),
        }
    }
}
