//! What `GET /v1/sources` says.

use serde_json::json;

use super::*;
use crate::late::Late;
use crate::runtime::sources::{PartitionStatus, SourceStatus, TimeRulesStatus};

/// A stream of which one partition is behind and the other unknown but for its log, and a table.
pub(super) fn given() -> Vec<SourceStatus> {
    let behind = PartitionStatus {
        partition: 3,
        log: Some((5, 30)),
        position: Some(12),
        lag_seconds: Some(1.5),
        watermark: at(7),
        idle: false,
        paused: Some(true),
        open_transaction_since: None,
    };
    let unread = PartitionStatus {
        partition: 4,
        position: None,
        lag_seconds: None,
        watermark: EventTime::MIN,
        paused: None,
        open_transaction_since: Some(at(9)),
        idle: true,
        ..behind
    };
    let payments = SourceStatus {
        name: "payments".into(),
        topic: "payments.transactions.v1".into(),
        connector: Some("kafka"),
        details: vec![("group", "thalweg".into())],
        formats: vec![("value", "avro".into())],
        rules: Some(TimeRulesStatus {
            lateness: Duration::from_secs(5),
            late: Late::Correct(Duration::from_secs(3600)),
            idle_after: Duration::from_secs(10),
            future_bound: Duration::from_secs(3600),
        }),
        idle: false,
        trouble: Some("it is \"away\"".into()),
        partitions: vec![behind, unread],
    };
    let merchants = SourceStatus {
        name: "merchants".into(),
        rules: None,
        trouble: None,
        partitions: Vec::new(),
        ..payments.clone()
    };
    vec![payments, merchants]
}

#[tokio::test]
async fn sources_say_where_they_stand_also_before_the_first_epoch() {
    let mut fixture = Fixture::new();
    let early = fixture.read("/v1/sources").await;
    assert_eq!(
        (&early["epoch"], &early["sources"][0]["watermark"]),
        (&Value::Null, &Value::Null)
    );
    fixture.close(2);
    let answer = fixture.read("/v1/sources").await;
    assert_eq!(answer["epoch"], epoch(2).0);
    let payments = json!({
        "name": "payments", "topic": "payments.transactions.v1",
        "connector": "kafka", "details": {"group": "thalweg"}, "formats": {"value": "avro"},
        "rules": {"lateness": "5s", "late": "correct 1h", "idle_after": "10s", "future_bound": "1h"},
        "watermark": at(2).to_string(), "idle": false, "trouble": "it is \"away\"",
        "partitions": [
            {"partition": 3, "position": 12, "start": 5, "end": 30, "lag_records": 18, "lag_seconds": 1.5,
             "watermark": at(7).to_string(), "idle": false, "paused": true,
             "open_transaction_since": null},
            {"partition": 4, "position": null, "start": 5, "end": 30, "lag_records": 25, "lag_seconds": null,
             "watermark": null, "idle": true, "paused": null,
             "open_transaction_since": at(9).to_string()},
        ],
    });
    assert_eq!(answer["sources"][0], payments);
    let table = &answer["sources"][1];
    assert_eq!(
        (&table["rules"], &table["watermark"]),
        (&Value::Null, &Value::Null)
    );
}
