//! Which path is answered by what, under which name it is counted, and what holds for all of them.

use super::limits::raw;
use super::*;
use crate::http::route;

#[tokio::test]
async fn every_pattern_is_matched_and_counted_under_its_name() {
    let mut fixture = Fixture::new();
    fixture.close(1);
    let patterns = route::table().map(|(pattern, _)| pattern);
    for pattern in patterns {
        let path = pattern.replace("{name}", "a%20b").replace("{epoch}", "7");
        let (_, body) = ask(fixture.get(&path)).await;
        assert_ne!(body["type"], "/problems/route-unknown", "{path}");
    }
    let text = ask(fixture.get("/metrics")).await.1.to_string();
    for pattern in patterns {
        let counted = text
            .matches(&format!("requests_total{{route=\\\"{pattern}\\\""))
            .count();
        assert_eq!(counted, 1, "{pattern}\n{text}");
    }
    assert!(!text.contains("requests_total{route=\\\"none\\\""), "{text}");
}

#[tokio::test]
async fn other_paths_are_none() {
    let fixture = Fixture::new();
    for path in [
        "/",
        "/v1",
        "/v1/views/",
        "/v1/views/a/b",
        "/v1/views/a/row/",
        "/v1/epochs/",
        "/v1/epochs/1/2",
        "/health",
        "/metrics/",
    ] {
        fixture.refused(path, 404, "route-unknown").await;
    }
    for request in ["OPTIONS *", "CONNECT a:1"] {
        let bytes = format!("{request} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = raw(&fixture.server, bytes.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 404") && answer.contains("/problems/route-unknown"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_name_in_a_path_is_decoded() {
    let fixture = Fixture::new();
    for (encoded, name) in [
        ("a%20b+c", "a b+c"),
        ("a%2Frow", "a/row"),
        ("%C3%A4", "ä"),
        ("%zz", "%zz"),
    ] {
        for path in ["", "/row?a=1", "/rows"] {
            let path = format!("/v1/views/{encoded}{path}");
            let body = fixture.refused(&path, 404, "view-unknown").await;
            assert_eq!(body["detail"], format!("no view is named `{name}`"));
        }
    }
    fixture.refused("/v1/views/%ff", 400, "parameter").await;
}

#[tokio::test]
async fn a_refusal_of_head_is_a_head_too() {
    let fixture = Fixture::new();
    for (path, status) in [
        ("/v1/views/absent", 404),
        ("/v1/nothing", 404),
        ("/v1/query", 405),
    ] {
        let response = fixture.client.head(fixture.url(path)).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_ne!(response.headers()["content-length"], "0");
        assert!(response.bytes().await.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn what_has_not_changed_is_sent_without_a_body_and_the_connection_goes_on() {
    let mut fixture = Fixture::new();
    fixture.merchants(1, [(1, merchant("Acme", 1))]);
    fixture.close(1);
    let one = |method: &str, rest: &str| {
        format!("{method} /v1/views/merchants/row?merchant=1 HTTP/1.1\r\nHost: a\r\n{rest}\r\n")
    };
    let known = "If-None-Match: *\r\n";
    let requests = [
        one("GET", known),
        one("HEAD", known),
        one("GET", "Connection: close\r\n"),
    ];
    let answers = raw(&fixture.server, requests.concat().as_bytes()).await;
    let parts: Vec<_> = answers.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(parts.len(), 3, "{answers}");
    for (part, status) in std::iter::zip(&parts, ["304", "304", "200"]) {
        let (head, body) = part.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(status) && head.contains("etag: "), "{head}");
        assert_eq!(body.is_empty(), status == "304", "{part}");
        assert_eq!(head.contains("content-type"), status == "200", "{head}");
    }
}
