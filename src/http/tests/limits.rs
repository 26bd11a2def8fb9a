//! Starting, stopping, limits, health and metrics.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::error::Kind;

fn state() -> Arc<ServerState> {
    Arc::new(ServerState {
        views: Views::new(1),
        view_names: Vec::new(),
        recovery: Arc::new(|| None),
        sources: Vec::new(),
        sources_now: Arc::new(Vec::new),
        sinks_now: Arc::new(Vec::new),
        cluster_now: Arc::new(|| None),
        partitions: Arc::new(|_| None),
        bindings: None,
        metrics: Metrics::new(),
        readiness: Arc::new(Readiness::starting()),
    })
}

fn start(address: &str) -> crate::Result<Server> {
    let settings = HttpSettings {
        address: address.parse().unwrap(),
        ..HttpSettings::default()
    };
    serve(settings, state(), &tokio::runtime::Handle::current())
}

/// Sends bytes as they are and reads until the server closes.
pub(super) async fn raw(server: &Server, bytes: &[u8]) -> String {
    let (address, bytes) = (server.address(), bytes.to_vec());
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

#[tokio::test]
async fn addresses_beyond_loopback_need_tls_and_tokens() {
    for address in ["0.0.0.0:0", "192.0.2.1:80", "[::]:0"] {
        let error = start(address).unwrap_err();
        assert_eq!(error.kind(), Kind::Definition);
        assert!(error.to_string().contains("needs TLS and tokens"), "{error}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = start(&address).unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    assert!(
        error.to_string().contains(&address) && error.to_string().contains("another port"),
        "{error}"
    );
}

#[tokio::test]
async fn ready_once_no_reason_is_left() {
    let fixture = Fixture::new();
    assert_eq!(fixture.read("/health/live").await["live"], true);
    fixture.state.readiness.wait_for("replay", "at 40 %");
    let body = fixture.refused("/health/ready", 503, "not-ready").await;
    assert_eq!(body["reasons"]["replay"], "at 40 %");
    fixture.state.readiness.clear("replay");
    fixture.state.readiness.clear("starting");
    assert_eq!(fixture.read("/health/ready").await["ready"], true);
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_status() {
    let fixture = Fixture::new();
    fixture
        .refused("/v1/views/absent/row?a=1", 404, "view-unknown")
        .await;
    fixture
        .refused("/v1/views/missing/row?a=1", 404, "view-unknown")
        .await;
    fixture.refused("/elsewhere", 404, "route-unknown").await;
    let response = fixture.get("/metrics").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], crate::metrics::CONTENT_TYPE);
    let text = response.text().await.unwrap();
    for line in [
        "thalweg_http_requests_total{route=\"/v1/views/{name}/row\",status=\"404\"} 2",
        "thalweg_http_requests_total{route=\"none\",status=\"404\"} 1",
        "thalweg_http_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    assert!(!text.contains("absent"), "a path must not become a label");
}

#[tokio::test]
async fn a_large_body_is_refused_whether_announced_or_not() {
    let fixture = Fixture::with(
        HttpSettings {
            body_bytes_max: 100,
            ..HttpSettings::default()
        },
        None,
    );
    let body = problem(fixture.post(" ".repeat(101)), 413, "too-large").await;
    assert_eq!(body["bytes_max"], 100);
    let chunk = " ".repeat(60);
    let chunked = format!(
        "POST /v1/query HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \
            chunked\r\n\r\n3c\r\n{chunk}\r\n3c\r\n{chunk}\r\n"
    );
    let answer = raw(&fixture.server, chunked.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("/problems/too-large"),
        "{answer}"
    );
    problem(fixture.post(" ".repeat(100)), 400, "body").await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let settings = HttpSettings {
        body_time_max: Duration::from_millis(20),
        ..HttpSettings::default()
    };
    let fixture = Fixture::with(settings, None);
    let answer = raw(
        &fixture.server,
        b"POST /v1/query HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("/problems/slow"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let settings = HttpSettings {
        idle_time_max: Duration::from_millis(20),
        ..HttpSettings::default()
    };
    let fixture = Fixture::with(settings, None);
    // Comes back at all: the server closes first.
    raw(&fixture.server, b"GET /health/live HTTP/1.1\r\nHo").await;
    raw(&fixture.server, b"").await;
}

#[tokio::test]
async fn a_long_url_is_refused() {
    let fixture = Fixture::with(
        HttpSettings {
            url_bytes_max: 200,
            ..HttpSettings::default()
        },
        None,
    );
    fixture
        .refused(&format!("/v1/views?a={}", "x".repeat(200)), 414, "url-too-long")
        .await;
}

#[tokio::test]
async fn requests_beyond_the_limit_are_shed_and_probes_are_not() {
    let mut fixture = Fixture::with(
        HttpSettings {
            requests_max: 1,
            ..HttpSettings::default()
        },
        None,
    );
    // One request waits, and so takes the only place.
    let waiting = fixture.get("/v1/views/merchants/row?merchant=1&after=payments:3:0&wait=30s");
    let waiting = tokio::spawn(waiting.send());
    while fixture.state.metrics.http_in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }
    fixture.refused("/v1/views", 503, "overloaded").await;
    fixture.read("/health/live").await;
    fixture.merchants(1, [(1, merchant("Acme", 7))]);
    fixture.close(1);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    fixture.read("/v1/views").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_so() {
    let fixture = Fixture::with(
        HttpSettings {
            connections_max: 1,
            ..HttpSettings::default()
        },
        None,
    );
    // The client keeps its connection, and so the only place.
    fixture.read("/health/live").await;
    assert_eq!(fixture.state.metrics.http_connections.get(), 1);
    let answer = raw(&fixture.server, b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("/problems/overloaded"),
        "{answer}"
    );
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let fixture = Fixture::new();
    let requests = [
        "GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /v1/nothing HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ];
    let answers = raw(&fixture.server, requests.concat().as_bytes()).await;
    let statuses: Vec<_> = answers
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answers[at + 9..at + 12])
        .collect();
    assert_eq!(statuses, ["200", "404", "200"]);
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let fixture = Fixture::new();
    let response = fixture
        .client
        .head(fixture.url("/health/live"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-length"], "13");
    assert!(response.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn shutdown_lets_requests_end() {
    let mut fixture = Fixture::new();
    let address = fixture.server.address();
    let waiting = fixture.get("/v1/views/merchants/row?merchant=1&wait=30s&after=payments:3:0");
    let waiting = tokio::spawn(waiting.send());
    while fixture.state.metrics.http_in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }
    fixture.merchants(1, [(1, merchant("Acme", 7))]);
    let snapshot = fixture.snapshot(1);
    let (views, server) = (fixture.state.views.clone(), fixture.server);
    let stopping = tokio::spawn(server.shutdown(Duration::from_secs(60)));
    while TcpStream::connect(address).is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!stopping.is_finished(), "it waits for the request");
    views.close(snapshot);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    stopping.await.unwrap();
}

#[tokio::test]
async fn shutdown_drops_what_does_not_end_within_the_grace() {
    let fixture = Fixture::new();
    let waiting = fixture.get("/v1/views/merchants/row?merchant=1&wait=30s&after=payments:3:1000");
    let waiting = tokio::spawn(waiting.send());
    while fixture.state.metrics.http_in_flight.get() == 0 {
        tokio::task::yield_now().await;
    }
    fixture.server.shutdown(Duration::ZERO).await;
    assert!(waiting.await.unwrap().is_err());
    assert_eq!(
        fixture.state.metrics.http_in_flight.get(),
        0,
        "counted down though it was dropped"
    );
    assert_eq!(fixture.state.metrics.http_connections.get(), 0);
}
