//! Tokens.

use super::*;
use crate::http::access::new_token;

#[tokio::test]
async fn reads_need_a_token_where_there_are_any() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokens");
    let (token, line) = new_token("test");
    std::fs::write(&file, line).unwrap();
    let settings = HttpSettings {
        tokens_file: Some(file),
        ..HttpSettings::default()
    };
    let mut fixture = Fixture::with(settings, None);
    fixture.close(1);
    for path in ["/v1/views", "/metrics", "/nowhere"] {
        let body = fixture.refused(path, 401, "unauthorized").await;
        assert!(body["hint"].as_str().unwrap().contains("Bearer"), "{body}");
    }
    let query = fixture.post(r#"{"reads":{"a":{"view":"merchants"}}}"#);
    problem(query, 401, "unauthorized").await;
    fixture.read("/health/live").await;
    let (status, body) = ask(fixture.get("/v1/views").bearer_auth(token.reveal())).await;
    assert_eq!(status, 200, "{body}");
}
