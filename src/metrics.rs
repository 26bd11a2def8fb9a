//! The process's metrics, in the format that Prometheus reads.
//!
//! ```text
//!  hot path ──► handle (counter, gauge, histogram) ◄── scrape ── Metrics::text() ──► GET /metrics
//!               taken once, by source, partition, view, …     bumping it is one atomic addition
//! ```
//!
//! Handles are created when a source, worker or view is set up, so that nothing is looked up later. A gauge
//! is set when its value changes; if that would be too often, or if nobody learns of the change, it is set
//! when it is read: see [`Metrics::refresh_by`]. So no gauge becomes stale. Names follow Prometheus's
//! conventions: the prefix `thalweg_`, base units as suffixes (`_seconds`, `_bytes`), counters with `_total`.

use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
pub use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge as AnyGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::clock;
pub use crate::metrics::checkpoint::CheckpointMetrics;
use crate::metrics::histogram::Histogram;
use crate::metrics::sink::SinkFamilies;
pub use crate::metrics::sink::SinkMetrics;
use crate::time::EventTime;

pub(crate) mod checkpoint;
pub mod histogram;
pub(crate) mod sink;

/// A gauge with a whole number.
pub type Gauge = AnyGauge;
/// A gauge with seconds or other fractions.
pub type GaugeF64 = AnyGauge<f64, AtomicU64>;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets for durations of some milliseconds: epochs, freshness. Seconds.
const LATENCY_S: &[f64] = &[
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];
/// Buckets for appends to the ledger. Seconds.
const APPEND_S: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];
/// Buckets for requests. Seconds.
const REQUEST_S: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5,
    1.0, 10.0,
];
/// Buckets for the number of records in an epoch.
const RECORDS: &[f64] = &[1.0, 10.0, 100.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 1e7];

type Labels<const N: usize> = [(&'static str, Arc<str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type GaugesF64<const N: usize> = Family<Labels<N>, GaugeF64>;

/// Sets gauges to their current values.
type Refresh = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    refreshes: Mutex<Vec<Refresh>>,
    started: Instant,
    uptime: GaugeF64,
    sources: SourceFamilies,
    workers: WorkerFamilies,
    views: ViewFamilies,
    sinks: SinkFamilies,
    requests: RequestFamilies,
    /// Epochs, from opening to visibility.
    pub epochs: EpochMetrics,
    /// The ledger's file.
    pub ledger: LedgerMetrics,
    /// Checkpoints.
    pub checkpoints: CheckpointMetrics,
    /// Age of records, by the log's timestamp, when they become visible in views. Seconds.
    pub freshness: Histogram,
    /// Requests in flight.
    pub http_in_flight: Gauge,
    /// Open connections.
    pub http_connections: Gauge,
}

/// Handles for the epochs.
#[derive(Clone, Debug)]
pub struct EpochMetrics {
    /// Time from an epoch's opening to its close: applied by every view. Seconds.
    pub duration: Histogram,
    /// Records per epoch.
    pub records: Histogram,
    /// Epochs opened but not yet closed.
    pub in_flight: Gauge,
    /// Time at which the newest closed epoch was opened. Unix seconds.
    pub closed_newest: GaugeF64,
    /// Replayed epochs whose result matched the ledger.
    pub alike: Counter,
    /// Replayed epochs whose result differed from the ledger.
    pub different: Counter,
}

/// Handles for the ledger.
#[derive(Clone, Debug)]
pub struct LedgerMetrics {
    /// One group commit: write and fdatasync. Seconds.
    pub append: Histogram,
    /// Size of the ledger on disk.
    pub bytes: Gauge,
}

/// Handles for one source.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    families: SourceFamilies,
    source: Arc<str>,
    /// Schema requests to the registry without an answer yet.
    pub schema_lookups_pending: Gauge,
    /// Partitions of the topic, as last observed.
    pub partitions: Gauge,
}

/// Handles for late events of a window step.
#[derive(Clone, Debug, Default)]
pub struct LateMetrics {
    /// Events that were late for all of their windows.
    pub events: Counter,
    /// Windows that missed an event, of these events and of those that were late for some of their windows.
    pub windows: Counter,
}

/// Handles for one partition of a source.
#[derive(Clone, Debug)]
pub struct PartitionMetrics {
    /// Records read.
    pub records: Counter,
    /// Bytes of keys and payloads read.
    pub bytes: Counter,
    /// Records between the newest closed epoch and the end of the log.
    pub lag_records: Gauge,
    /// Age of the newest record read, while records wait; zero when there are none.
    pub lag_seconds: GaugeF64,
    /// Created with the first watermark: tables have none, and a partition without events would show the Unix
    /// epoch.
    watermark_seconds: OnceLock<GaugeF64>,
    watermarks: GaugesF64<2>,
    labels: Labels<2>,
    /// 1 while the partition is idle.
    pub idle: Gauge,
    /// How long the oldest open transaction has been observed open; zero when there is none.
    pub open_transaction_seconds: GaugeF64,
    /// 1 while the partition is paused, by watermark alignment or because the buffers are full.
    pub paused: Gauge,
}

impl PartitionMetrics {
    /// Sets the partition's event-time watermark. A partition without events shows none.
    pub fn watermark(&self, time: EventTime) {
        if time != EventTime::MIN {
            let make = || one(&self.watermarks, self.labels.clone());
            self.watermark_seconds
                .get_or_init(make)
                .set(time.micros() as f64 / 1e6);
        }
    }
}

/// Handles for one worker's buffers: records read but not yet released at an epoch.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    /// Records in the buffers.
    pub buffered_records: Gauge,
    /// Bytes in the buffers.
    pub buffered_bytes: Gauge,
}

/// Handles for one view.
#[derive(Clone, Debug)]
pub struct ViewMetrics {
    /// Rows at the newest epoch.
    pub rows: Gauge,
    /// Changes applied.
    pub changes: Counter,
}

/// Handles for one route of the HTTP server.
#[derive(Debug)]
pub struct RouteMetrics {
    families: RequestFamilies,
    route: Arc<str>,
    duration: Histogram,
    /// One counter per status, created when the status first occurs.
    by_status: [OnceLock<Counter>; STATUSES.len()],
}

/// Statuses whose counters need no lookup.
const STATUSES: [u16; 12] = [200, 304, 400, 404, 405, 408, 410, 413, 414, 431, 500, 503];

impl RouteMetrics {
    /// Records that a request was answered with `status` after `took`.
    pub fn answered(&self, status: u16, took: Duration) {
        self.duration.observe(took.as_secs_f64());
        let counter = || {
            let status = Arc::from(status.to_string());
            self.families
                .total
                .get_or_create_owned(&[("route", self.route.clone()), ("status", status)])
        };
        match STATUSES.iter().position(|s| *s == status) {
            Some(at) => self.by_status[at].get_or_init(counter).inc(),
            None => counter().inc(),
        };
    }
}

#[derive(Clone, Debug)]
struct SourceFamilies {
    records: Counters<2>,
    bytes: Counters<2>,
    lag_records: Gauges<2>,
    lag_seconds: GaugesF64<2>,
    watermark: GaugesF64<2>,
    idle: Gauges<2>,
    open_transaction: GaugesF64<2>,
    paused: Gauges<2>,
    late: Counters<2>,
    late_windows: Counters<2>,
    dead: Counters<2>,
    skipped: Counters<2>,
    schema_lookups: Gauges<1>,
    partitions: Gauges<1>,
    trouble: Gauges<2>,
}

#[derive(Clone, Debug)]
struct WorkerFamilies {
    records: Gauges<1>,
    bytes: Gauges<1>,
}

#[derive(Clone, Debug)]
struct ViewFamilies {
    rows: Gauges<1>,
    changes: Counters<1>,
}

#[derive(Clone, Debug)]
struct RequestFamilies {
    total: Counters<2>,
    duration: Family<Labels<1>, Histogram, RequestHistogram>,
}

#[derive(Clone, Debug)]
struct RequestHistogram;

impl MetricConstructor<Histogram> for RequestHistogram {
    fn new_metric(&self) -> Histogram {
        Histogram::new(REQUEST_S)
    }
}

/// Registers metrics and returns them.
struct Registration<'a>(&'a mut Registry);

impl Registration<'_> {
    fn plain<M>(&mut self, name: &str, help: &str, metric: M) -> M
    where
        M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn seconds<M>(&mut self, name: &str, help: &str, metric: M) -> M
    where
        M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        self.0
            .register_with_unit(name, help, Unit::Seconds, metric.clone());
        metric
    }

    fn bytes<M>(&mut self, name: &str, help: &str, metric: M) -> M
    where
        M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        self.0.register_with_unit(name, help, Unit::Bytes, metric.clone());
        metric
    }

    fn sources(&mut self) -> SourceFamilies {
        SourceFamilies {
            records: self.plain("source_records", "Records read", Family::default()),
            bytes: self.bytes(
                "source_read",
                "Bytes of keys and payloads read",
                Family::default(),
            ),
            lag_records: self.plain(
                "source_lag_records",
                "Records between the newest closed epoch and the end of the log",
                Family::default(),
            ),
            lag_seconds: self.seconds(
                "source_lag",
                "Age of the newest record read while more records wait",
                Family::default(),
            ),
            watermark: self.seconds(
                "source_watermark_timestamp",
                "Event-time watermark",
                Family::default(),
            ),
            idle: self.plain("source_idle", "1 while the partition is idle", Family::default()),
            open_transaction: self.seconds(
                "source_open_transaction",
                "How long the oldest open transaction has been observed open",
                Family::default(),
            ),
            paused: self.plain(
                "source_paused",
                "1 while the partition is paused, by watermark alignment or full buffers",
                Family::default(),
            ),
            late: self.plain(
                "late_events",
                "Events that arrived after all of their windows had closed",
                Family::default(),
            ),
            late_windows: self.plain(
                "late_windows",
                "Closed windows that a late event belonged to, counted once per event",
                Family::default(),
            ),
            dead: self.plain(
                "dead_letters",
                "Records that became dead letters",
                Family::default(),
            ),
            skipped: self.plain(
                "source_skipped",
                "Captured records without a row change",
                Family::default(),
            ),
            partitions: self.plain(
                "source_partitions",
                "Partitions, as last observed",
                Family::default(),
            ),
            trouble: self.plain(
                "source_trouble",
                "1 while a source is unhealthy, by cause",
                Family::default(),
            ),
            schema_lookups: self.plain(
                "schema_lookups_pending",
                "Schema requests without an answer yet",
                Family::default(),
            ),
        }
    }

    fn workers(&mut self) -> WorkerFamilies {
        let help = "Records read but not yet released at an epoch";
        WorkerFamilies {
            records: self.plain("worker_buffered_records", help, Family::default()),
            bytes: self.bytes("worker_buffered", help, Family::default()),
        }
    }

    fn views(&mut self) -> ViewFamilies {
        ViewFamilies {
            rows: self.plain("view_rows", "Rows at the newest epoch", Family::default()),
            changes: self.plain("view_changes", "Changes applied", Family::default()),
        }
    }

    fn requests(&mut self) -> RequestFamilies {
        RequestFamilies {
            total: self.plain("http_requests", "Requests answered", Family::default()),
            duration: self.seconds(
                "http_request_duration",
                "Time from reading a request's head to having its response ready",
                Family::new_with_constructor(RequestHistogram),
            ),
        }
    }

    fn epochs(&mut self) -> EpochMetrics {
        EpochMetrics {
            duration: self.seconds(
                "epoch_duration",
                "Time from an epoch's opening to its close",
                Histogram::new(LATENCY_S),
            ),
            records: self.plain("epoch_records", "Records per epoch", Histogram::new(RECORDS)),
            in_flight: self.plain(
                "epochs_in_flight",
                "Epochs opened but not yet closed",
                Gauge::default(),
            ),
            closed_newest: self.seconds(
                "epoch_closed_timestamp",
                "Time at which the newest closed epoch was opened",
                GaugeF64::default(),
            ),
            alike: self.plain(
                "epochs_replayed_alike",
                "Replayed epochs whose result matched the ledger",
                Counter::default(),
            ),
            different: self.plain(
                "epochs_replayed_different",
                "Replayed epochs whose result differed from the ledger",
                Counter::default(),
            ),
        }
    }

    fn ledger(&mut self) -> LedgerMetrics {
        LedgerMetrics {
            append: self.seconds(
                "ledger_append_duration",
                "Duration of a group commit: write and fdatasync",
                Histogram::new(APPEND_S),
            ),
            bytes: self.bytes("ledger_size", "Size on disk", Gauge::default()),
        }
    }
}

impl Metrics {
    /// All metrics, at zero. One per process.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("thalweg");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", build);
        let mut register = Registration(&mut registry);
        let metrics = Self {
            uptime: register.seconds("uptime", "Time since the process started", GaugeF64::default()),
            sources: register.sources(),
            workers: register.workers(),
            views: register.views(),
            sinks: SinkFamilies::register(&mut register),
            requests: register.requests(),
            epochs: register.epochs(),
            ledger: register.ledger(),
            checkpoints: CheckpointMetrics::register(&mut register),
            freshness: register.seconds(
                "freshness",
                "Age of records, by the log's timestamp, when they became visible in views",
                Histogram::new(LATENCY_S),
            ),
            http_in_flight: register.plain("http_requests_in_flight", "Requests in flight", Gauge::default()),
            http_connections: register.plain("http_connections", "Open connections", Gauge::default()),
            registry: Registry::default(),
            refreshes: Mutex::default(),
            started: clock::instant(),
        };
        Arc::new(Self { registry, ..metrics })
    }

    /// Handles for a source.
    pub fn source(&self, source: &str) -> SourceMetrics {
        let source: Arc<str> = source.into();
        SourceMetrics {
            schema_lookups_pending: one(&self.sources.schema_lookups, [("source", source.clone())]),
            partitions: one(&self.sources.partitions, [("source", source.clone())]),
            families: self.sources.clone(),
            source,
        }
    }

    /// Handles for a worker, by its index in the cluster.
    pub fn worker(&self, index: usize) -> WorkerMetrics {
        let worker = [("worker", Arc::from(index.to_string()))];
        WorkerMetrics {
            buffered_records: one(&self.workers.records, worker.clone()),
            buffered_bytes: one(&self.workers.bytes, worker),
        }
    }

    /// Handles for a view.
    pub fn view(&self, name: &str) -> ViewMetrics {
        let view = [("view", Arc::from(name))];
        ViewMetrics {
            rows: one(&self.views.rows, view.clone()),
            changes: one(&self.views.changes, view),
        }
    }

    /// Handles for a sink.
    pub fn sink(&self, name: &str) -> SinkMetrics {
        self.sinks.of(name)
    }

    /// Handles for a route of the HTTP server; `route` is the pattern (`/v1/views/{name}`), never a request's
    /// own path.
    pub fn route(&self, route: &str) -> RouteMetrics {
        let route: Arc<str> = route.into();
        RouteMetrics {
            duration: one(&self.requests.duration, [("route", route.clone())]),
            families: self.requests.clone(),
            route,
            by_status: Default::default(),
        }
    }

    /// Registers `refresh`, which sets gauges each time before they are read. It must not block.
    pub fn refresh_by(&self, refresh: impl Fn(&Metrics) + Send + Sync + 'static) {
        self.refreshes.lock().push(Box::new(refresh));
    }

    /// All metrics in OpenMetrics' text format, of type [`CONTENT_TYPE`].
    pub fn text(&self) -> String {
        self.refreshes.lock().iter().for_each(|refresh| refresh(self));
        self.uptime.set(
            clock::instant()
                .saturating_duration_since(self.started)
                .as_secs_f64(),
        );
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string does not fail; a metric that did would cost only what comes after it.
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("cannot encode a metric");
        }
        text
    }
}

impl SourceMetrics {
    /// Handles for one partition.
    pub fn partition(&self, partition: u32) -> PartitionMetrics {
        let labels = [
            ("source", self.source.clone()),
            ("partition", Arc::from(partition.to_string())),
        ];
        let families = &self.families;
        PartitionMetrics {
            records: one(&families.records, labels.clone()),
            bytes: one(&families.bytes, labels.clone()),
            lag_records: one(&families.lag_records, labels.clone()),
            lag_seconds: one(&families.lag_seconds, labels.clone()),
            watermark_seconds: OnceLock::new(),
            watermarks: families.watermark.clone(),
            idle: one(&families.idle, labels.clone()),
            open_transaction_seconds: one(&families.open_transaction, labels.clone()),
            paused: one(&families.paused, labels.clone()),
            labels,
        }
    }

    /// 1 while the source is unhealthy, by cause.
    pub fn trouble(&self, kind: &'static str) -> Gauge {
        one(
            &self.families.trouble,
            [("source", self.source.clone()), ("kind", kind.into())],
        )
    }

    /// Late events of `step`.
    pub fn late(&self, step: &str) -> LateMetrics {
        let labels = [("source", self.source.clone()), ("step", step.into())];
        LateMetrics {
            events: one(&self.families.late, labels.clone()),
            windows: one(&self.families.late_windows, labels),
        }
    }

    /// Captured records of this source without a row change, by reason: `duplicate`, `message`, `heartbeat`.
    pub fn skipped(&self, why: &'static str) -> Counter {
        one(
            &self.families.skipped,
            [("source", self.source.clone()), ("reason", why.into())],
        )
    }

    /// Records of this source that became dead letters, by the cause's code.
    pub fn dead_letters(&self, cause: &'static str) -> Counter {
        one(
            &self.families.dead,
            [("source", self.source.clone()), ("cause", cause.into())],
        )
    }
}

fn one<const N: usize, M, C>(family: &Family<Labels<N>, M, C>, labels: Labels<N>) -> M
where
    Labels<N>: Clone + Hash + Eq + EncodeLabelSet,
    M: Clone,
    C: MetricConstructor<M>,
{
    family.get_or_create_owned(&labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|l| l == line), "no line `{line}` in\n{text}");
    }

    #[test]
    fn handles_show_up_in_the_text_under_their_labels() {
        let metrics = Metrics::new();
        let source = metrics.source("payments");
        let partition = source.partition(3);
        partition.records.inc_by(7);
        partition.bytes.inc_by(70);
        partition.lag_records.set(5);
        source.partition(4).watermark(EventTime::MIN);
        assert!(
            !metrics
                .text()
                .contains("thalweg_source_watermark_timestamp_seconds{"),
            "none before the first event, and none for tables"
        );
        partition.watermark(EventTime::from_millis(1_500));
        partition.watermark(EventTime::MIN);
        let late = source.late("spend");
        late.events.inc_by(2);
        late.windows.inc_by(5);
        source.dead_letters("json_type").inc();
        metrics.freshness.observe_many(0.004, 1_000);
        metrics.view("merchant_spend").rows.set(12);
        metrics.worker(1).buffered_bytes.set(4_096);
        let route = metrics.route("/v1/views");
        route.answered(200, Duration::from_micros(20));
        route.answered(200, Duration::from_micros(20));
        route.answered(418, Duration::from_micros(20));

        let text = metrics.text();
        has(
            &text,
            "thalweg_source_records_total{source=\"payments\",partition=\"3\"} 7",
        );
        has(
            &text,
            "thalweg_source_read_bytes_total{source=\"payments\",partition=\"3\"} 70",
        );
        has(
            &text,
            "thalweg_source_lag_records{source=\"payments\",partition=\"3\"} 5",
        );
        has(
            &text,
            "thalweg_source_watermark_timestamp_seconds{source=\"payments\",partition=\"3\"} 1.5",
        );
        has(
            &text,
            "thalweg_late_events_total{source=\"payments\",step=\"spend\"} 2",
        );
        has(
            &text,
            "thalweg_late_windows_total{source=\"payments\",step=\"spend\"} 5",
        );
        has(
            &text,
            "thalweg_dead_letters_total{source=\"payments\",cause=\"json_type\"} 1",
        );
        has(&text, "thalweg_freshness_seconds_count 1000");
        has(&text, "thalweg_freshness_seconds_bucket{le=\"0.003\"} 0");
        has(&text, "thalweg_freshness_seconds_bucket{le=\"0.005\"} 1000");
        has(&text, "thalweg_view_rows{view=\"merchant_spend\"} 12");
        has(&text, "thalweg_worker_buffered_bytes{worker=\"1\"} 4096");
        has(
            &text,
            "thalweg_http_requests_total{route=\"/v1/views\",status=\"200\"} 2",
        );
        has(
            &text,
            "thalweg_http_requests_total{route=\"/v1/views\",status=\"418\"} 1",
        );
        has(
            &text,
            "thalweg_http_request_duration_seconds_count{route=\"/v1/views\"} 3",
        );
        has(
            &text,
            concat!(
                "thalweg_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        );
        has(&text, "# UNIT thalweg_freshness_seconds seconds");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn gauges_are_set_as_they_are_read() {
        let metrics = Metrics::new();
        let rows = Arc::new(std::sync::atomic::AtomicI64::new(3));
        let now = rows.clone();
        metrics.refresh_by(move |metrics| {
            let rows = now.load(std::sync::atomic::Ordering::Relaxed);
            metrics.view("spend").rows.set(rows);
        });
        has(&metrics.text(), "thalweg_view_rows{view=\"spend\"} 3");
        rows.store(4, std::sync::atomic::Ordering::Relaxed);
        has(&metrics.text(), "thalweg_view_rows{view=\"spend\"} 4");
    }

    #[test]
    fn the_same_labels_give_the_same_counter() {
        let metrics = Metrics::new();
        metrics.source("a").partition(0).records.inc();
        metrics.source("a").partition(0).records.inc();
        metrics.source("b").partition(0).records.inc();
        let text = metrics.text();
        has(
            &text,
            "thalweg_source_records_total{source=\"a\",partition=\"0\"} 2",
        );
        has(
            &text,
            "thalweg_source_records_total{source=\"b\",partition=\"0\"} 1",
        );
    }
}
