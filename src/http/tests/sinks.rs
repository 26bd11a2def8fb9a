//! What `GET /v1/sinks` says.

use serde_json::json;

use super::*;
use crate::runtime::sinks::SinkStatus;
use crate::sink::{Contract, Method};

/// One that is behind and in trouble, and one that was given nothing.
pub(super) fn given() -> Vec<SinkStatus> {
    let behind = SinkStatus {
        name: "audit".into(),
        method: Method::AppendTo,
        description: "topic `payments.audit.v1`".into(),
        contract: Contract::Transactional,
        shards: 8,
        delivered: Some(epoch(1)),
        rows: 12,
        waiting_rows: 3,
        waiting_bytes: 480,
        waiting_age_seconds: Some(1.5),
        retries: 2,
        trouble: Some("shard 3: it is \"away\"".into()),
    };
    let idle = SinkStatus {
        name: "alerts".into(),
        method: Method::ForEachEpoch,
        description: "a function".into(),
        contract: Contract::Repeating,
        shards: 1,
        delivered: None,
        rows: 0,
        waiting_rows: 0,
        waiting_bytes: 0,
        waiting_age_seconds: None,
        retries: 0,
        trouble: None,
    };
    vec![behind, idle]
}

#[tokio::test]
async fn sinks_say_where_they_stand_also_before_the_first_epoch() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.read("/v1/sinks").await["epoch"], Value::Null);
    fixture.close(2);
    let answer = fixture.read("/v1/sinks").await;
    assert_eq!(answer["epoch"], epoch(2).0);
    let sinks = json!([
        {"name": "audit", "method": "append_to", "to": "topic `payments.audit.v1`", "contract": "transactional",
         "shards": 8, "delivered": epoch(1).0, "rows": 12, "waiting_rows": 3, "waiting_bytes": 480,
         "waiting_seconds": 1.5, "retries": 2, "trouble": "shard 3: it is \"away\""},
        {"name": "alerts", "method": "for_each_epoch", "to": "a function", "contract": "repeating",
         "shards": 1, "delivered": null, "rows": 0, "waiting_rows": 0, "waiting_bytes": 0,
         "waiting_seconds": null, "retries": 0, "trouble": null},
    ]);
    assert_eq!(answer["sinks"], sinks);
}

#[tokio::test]
async fn what_holds_a_view_back_is_told() {
    let mut fixture = Fixture::new();
    fixture.state.readiness.ready();
    fixture.close(2);
    let answer = fixture.read("/v1/why-not-closed?view=merchant_spend").await;
    let reasons = answer["reasons"].as_array().unwrap();
    let kinds: Vec<_> = reasons
        .iter()
        .map(|reason| reason["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["sink", "source"], "{answer}");
    assert_eq!(reasons[0]["sink"], "audit");
    assert_eq!(reasons[1]["source"], "payments");
    let refused = fixture.refused("/v1/why-not-closed", 400, "parameter").await;
    assert!(
        refused["hint"].as_str().unwrap().contains("view=NAME"),
        "{refused}"
    );
    fixture
        .refused("/v1/why-not-closed?view=nowhere", 404, "view-unknown")
        .await;
}
