//! The real server on a free port, over views filled by hand, asked by a plain client.

mod access;
mod limits;
mod reads;
mod recovery;
mod refusals;
mod routes;
mod sinks;
mod sources;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::health::Readiness;
use crate::http::{BindingLookup, HttpSettings, Server, ServerState, serve};
use crate::metrics::Metrics;
use crate::position::{EpochBinding, Offset, PartitionId, PartitionRange, SourceId};
use crate::record::Change;
use crate::runtime::progress::RecoveryProgress;
use crate::time::{Epoch, EventTime, Window, WindowLayout, Windowed};
use crate::view::writer::ViewWriter;
use crate::view::{Snapshot, ViewSpec, Views};
use crate::watermark::Watermarks;

/// 2026-11-23T03:00:00Z, in microseconds: the epoch number 0 of the tests.
const T0: u64 = 1_795_402_800_000_000;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Merchant {
    name: String,
    /// Named like a control word.
    limit: u32,
    total: i128,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Spend {
    n: u64,
    cents: i64,
}

/// A server and the hands that fill its views.
struct Fixture {
    state: Arc<ServerState>,
    server: Server,
    client: reqwest::Client,
    merchants: ViewWriter<u32, Merchant>,
    spend: ViewWriter<Windowed<u32>, Spend>,
    /// The next offsets of partitions 3 and 4 of `payments`.
    offsets: [Offset; 2],
    /// What the recovery says of itself.
    recovering: Arc<Mutex<Option<RecoveryProgress>>>,
}

/// Epoch number `n` of the tests: `n` seconds after [`T0`].
fn epoch(n: u64) -> Epoch {
    Epoch(T0 + n * 1_000_000)
}

/// `n` seconds after [`T0`], as event time.
fn at(n: u64) -> EventTime {
    epoch(n).opened_at()
}

fn merchant(name: &str, total: i128) -> Merchant {
    Merchant {
        name: name.to_owned(),
        limit: name.len() as u32,
        total,
    }
}

/// The window of a minute that starts `minute` minutes after [`T0`].
fn window(merchant: u32, minute: u64) -> Windowed<u32> {
    Windowed {
        key: merchant,
        window: Window {
            start: at(60 * minute),
            end: at(60 * minute + 60),
        },
    }
}

fn upsert<K, V>(key: K, value: V) -> Change<K, V> {
    Change {
        key,
        old: None,
        new: Some(value),
    }
}

fn payments(partition: u32) -> PartitionId {
    PartitionId {
        source: SourceId::of("payments"),
        partition,
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(HttpSettings::default(), None)
    }

    fn with(settings: HttpSettings, bindings: Option<BindingLookup>) -> Self {
        let views = Views::new(1);
        let merchants = ViewSpec {
            history: 10 * MINUTE,
            ..ViewSpec::new("merchants")
        };
        let merchants = ViewSpec {
            key: vec!["merchant".into()],
            ..merchants
        };
        let spend = ViewSpec {
            history: 10 * MINUTE,
            ..ViewSpec::new("merchant_spend")
        };
        let spend = ViewSpec {
            key: vec!["merchant".into()],
            sources: vec![SourceId::of("payments")],
            windows: Some(WindowLayout::Aligned {
                size: MINUTE,
                every: MINUTE,
                offset: Duration::ZERO,
            }),
            keep: Some(24 * 60 * MINUTE),
            ..spend
        };
        let recovering: Arc<Mutex<Option<RecoveryProgress>>> = Arc::default();
        let told = recovering.clone();
        let state = Arc::new(ServerState {
            view_names: vec!["merchant_spend".into(), "merchants".into(), "planned".into()],
            recovery: Arc::new(move || told.lock().clone()),
            sources: vec!["merchants".into(), "payments".into()],
            sources_now: Arc::new(sources::given),
            sinks_now: Arc::new(sinks::given),
            cluster_now: Arc::new(|| None),
            partitions: Arc::new(|source| (source == "payments").then(|| vec![3, 4, 9])),
            bindings,
            metrics: Metrics::new(),
            readiness: Arc::new(Readiness::starting()),
            views,
        });
        let settings = HttpSettings {
            address: ([127, 0, 0, 1], 0).into(),
            ..settings
        };
        let server = serve(settings, state.clone(), &tokio::runtime::Handle::current()).unwrap();
        Self {
            merchants: define(&state.views, merchants),
            spend: define(&state.views, spend),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            offsets: [0, 0],
            recovering,
            server,
            state,
        }
    }

    fn merchants(&mut self, n: u64, changes: impl IntoIterator<Item = (u32, Merchant)>) {
        let changes = changes.into_iter().map(|(key, value)| upsert(key, value));
        self.merchants.apply(epoch(n), &mut changes.collect()).unwrap();
    }

    fn spend(&mut self, n: u64, changes: impl IntoIterator<Item = (u32, u64, i64)>) {
        let changes = changes.into_iter().map(|(merchant, minute, cents)| {
            let spend = Spend { n: 1, cents };
            upsert(window(merchant, minute), spend)
        });
        self.spend.apply(epoch(n), &mut changes.collect()).unwrap();
    }

    /// Closes epoch `n` with the watermark `n` seconds after [`T0`], and one more record in each partition.
    fn close(&mut self, n: u64) {
        let snapshot = self.snapshot(n);
        self.state.views.close(snapshot);
    }

    fn snapshot(&mut self, n: u64) -> Snapshot {
        let payments_id = SourceId::of("payments");
        let range = |partition, lo: Offset| PartitionRange {
            id: payments(partition),
            lo,
            hi: lo + 1,
            records: 1,
            hash: 0,
            compacted: false,
            event_time_max: at(n),
            limit: EventTime::MAX,
            idle: false,
        };
        let binding = EpochBinding {
            epoch: epoch(n),
            now: at(n),
            ranges: vec![range(3, self.offsets[0]), range(4, self.offsets[1])],
            watermarks: vec![(payments_id, at(n))],
            idle: Vec::new(),
            topics: Vec::new(),
            schemas: Vec::new(),
            results: None,
        };
        self.offsets = self.offsets.map(|offset| offset + 1);
        Snapshot {
            epoch: epoch(n),
            watermarks: Arc::new(Watermarks::from_iter([(payments_id, at(n))])),
            positions: Arc::new([(payments(3), self.offsets[0]), (payments(4), self.offsets[1])]),
            binding: Arc::new(binding),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address())
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    /// A GET that must be answered.
    async fn read(&self, path: &str) -> Value {
        let (status, body) = ask(self.get(path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A GET that must be refused with this problem.
    async fn refused(&self, path: &str, status: u16, slug: &str) -> Value {
        problem(self.get(path), status, slug).await
    }

    fn post(&self, body: impl Into<String>) -> RequestBuilder {
        self.client.post(self.url("/v1/query")).body(body.into())
    }
}

fn define<K: crate::Record, V: crate::Record>(views: &Arc<Views>, spec: ViewSpec) -> ViewWriter<K, V> {
    views.define::<K, V>(spec).unwrap().writer(0)
}

async fn ask(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Sends a request that must be refused, and checks the form that all refusals have.
async fn problem(request: RequestBuilder, status: u16, slug: &str) -> Value {
    let response = request.send().await.unwrap();
    let headers = response.headers().clone();
    let got = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(got, status, "{text}");
    assert_eq!(headers["content-type"], "application/problem+json", "{text}");
    assert_eq!(headers.contains_key("retry-after"), status == 503, "{text}");
    let begins = format!("{{\"type\":\"/problems/{slug}\",\"title\":\"");
    assert!(text.starts_with(&begins), "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["status"], status);
    assert!(
        body["detail"].as_str().is_some_and(|detail| !detail.is_empty()),
        "{text}"
    );
    body
}

/// Fields of the rows of an answer, as text.
fn fields(rows: &Value, field: &str) -> Vec<String> {
    rows.as_array()
        .unwrap()
        .iter()
        .map(|row| row[field].to_string())
        .collect()
}
