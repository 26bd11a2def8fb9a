//! The servers that tests lean on: Kafka, the registry and the object store start, keep what they were given
//! through a crash, and refuse what they should.

mod support;

use support::kafka::Broker;
use support::registry::Registry;

const PAYMENT: &str = r#"{"type":"record","name":"Payment","fields":[{"name":"id","type":"long"}]}"#;
const PAYMENT_INCOMPATIBLE: &str = r#"{"type":"record","name":"Payment","fields":[{"name":"id","type":"long"},{"name":"cents","type":"long"}]}"#;

#[test]
fn records_come_back_with_their_partition_offset_key_and_time() {
    let broker = Broker::shared();
    broker.create_topic("servers.round-trip.v1", 2);
    let far_future = 4_102_444_800_000;
    let offsets = broker.produce(
        "servers.round-trip.v1",
        1,
        &[("a", "1", 1), ("b", "2", far_future)],
    );
    assert_eq!(offsets, 0..2);
    broker.produce_raw("servers.round-trip.v1", 0, [(Some(&b"a"[..]), None, 7)]);
    let records = broker.records("servers.round-trip.v1");
    let seen: Vec<_> = records
        .iter()
        .map(|r| {
            (
                r.partition,
                r.offset,
                r.key.as_deref(),
                r.value.as_deref(),
                r.ts_ms,
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (0, 0, Some(&b"a"[..]), None, Some(7)),
            (1, 0, Some(b"a"), Some(&b"1"[..]), Some(1)),
            (1, 1, Some(b"b"), Some(b"2"), Some(far_future)),
        ]
    );
}

#[test]
fn a_killed_broker_serves_its_records_again() {
    let broker = Broker::start();
    broker.create_topic("servers.crash.v1", 1);
    let records: Vec<(String, String, i64)> = (0..10_000)
        .map(|i| (i.to_string(), format!("value {i}"), i + 1))
        .collect();
    assert_eq!(broker.produce("servers.crash.v1", 0, &records), 0..10_000);
    broker.kill9();
    broker.restart();
    assert_eq!(broker.records("servers.crash.v1").len(), 10_000);
    broker.grow_topic("servers.crash.v1", 3);
    assert_eq!(broker.produce("servers.crash.v1", 2, &[("k", "v", 1)]), 0..1);
}

#[tokio::test]
async fn a_killed_registry_keeps_ids_and_refuses_what_is_incompatible() {
    let registry = Registry::start();
    let id = registry.register("servers-value", PAYMENT);
    let (status, _) = registry
        .try_register("servers-value", "AVRO", PAYMENT_INCOMPATIBLE)
        .unwrap_err();
    assert_eq!(status, 409);
    registry.restart();
    assert_eq!(registry.register("servers-value", PAYMENT), id);
    registry.set_compatibility("NONE");
    assert_ne!(registry.register("servers-value", PAYMENT_INCOMPATIBLE), id);
}

#[cfg(feature = "object-store")]
#[test]
fn a_killed_object_store_has_what_it_took() {
    let bucket = support::s3::Bucket::start();
    let scratch = tempfile::tempdir().unwrap();
    let path = std::path::Path::new("s3://thalweg/servers/a");
    assert!(bucket.files(scratch.path()).publish(path, b"first").unwrap());
    bucket.kill9();
    bucket.restart();
    let files = bucket.files(scratch.path());
    assert!(!files.publish(path, b"second").unwrap());
    assert_eq!(files.read(path).unwrap(), b"first");
}
