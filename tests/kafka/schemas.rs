//! The schema registry of a service that runs: it gains schemas, dies, comes back, and does not know every
//! id.

use thalweg::Epoch;
use thalweg::position::{PartitionId, SourceId};

use super::load::{PAYMENT, Topics, Written, framed, long};
use super::node::{self, Node};
use super::oracle;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

const PAYMENT_FEE: &str = r#"{"type":"record","name":"Payment","fields":[{"name":"id","type":"long"},{"name":"merchant","type":"int"},{"name":"cents","type":"long"},{"name":"at_ms","type":"long"},{"name":"fee","type":"long","default":0}]}"#;
const PAYMENT_TAX: &str = r#"{"type":"record","name":"Payment","fields":[{"name":"id","type":"long"},{"name":"merchant","type":"int"},{"name":"cents","type":"long"},{"name":"at_ms","type":"long"},{"name":"tax","type":"long","default":0}]}"#;

/// Reads what [`PAYMENT`] writes.
const PAYMENT_LATE: &str = r#"{"type":"record","name":"Late","fields":[{"name":"id","type":"long"},{"name":"merchant","type":"int"},{"name":"cents","type":"long"},{"name":"at_ms","type":"long"}]}"#;

/// Payments of one partition with so many fields.
fn payments(schema: u32, fields: usize, ids: std::ops::Range<i64>) -> Vec<Written> {
    let payment = |id: i64| {
        let at = super::load::BEGIN_MS + id * 100;
        let all = [id, id % 7, id * 3, at, 19];
        let payload = framed(schema, |out| all[..fields].iter().for_each(|n| long(out, *n)));
        (Some(id.to_string().into_bytes()), Some(payload), at)
    };
    ids.map(payment).collect()
}

#[test]
fn records_wait_for_their_schema_and_only_an_unknown_one_is_a_dead_letter() {
    let (broker, registry) = (Broker::shared(), Registry::start());
    let mut topics = Topics::make(broker, &registry, "schemas");
    let plain = *topics
        .schemas
        .iter()
        .find(|(_, text)| **text == PAYMENT)
        .unwrap()
        .0;
    let dir = tempfile::tempdir().unwrap();
    let node = Node::of(&topics, &registry.url()).data_dir(dir.path());
    let service = node.clone().workers(2).start().unwrap();
    let same = |topics: &Topics<'_>| {
        node::caught_up(&service, topics);
        oracle::compare(&oracle::expected(topics), &node::rows(service.views()));
    };
    for partition in 0..4 {
        topics.write(&topics.payments, partition, &payments(plain, 4, 0..100));
    }
    same(&topics);

    // A producer brings a schema of its own.
    let fee = topics.register(&registry, PAYMENT_FEE);
    topics.write(&topics.payments, 0, &payments(fee, 5, 100..200));
    topics.write(&topics.payments, 1, &payments(plain, 4, 100..200));
    // Another one writes by an id that nobody knows.
    topics.write(&topics.payments, 2, &payments(4_000_000, 4, 100..110));
    same(&topics);
    let letters = |topics: &Topics<'_>| oracle::expected(topics)["payments.dead_letters"].len();
    assert_eq!(letters(&topics), 10, "the unknown ones, and no others");

    // A schema that the service has not seen yet, when the registry is away.
    let tax = topics.register(&registry, PAYMENT_TAX);
    registry.kill9();
    topics.write(&topics.payments, 1, &payments(tax, 5, 200..300));
    topics.write(&topics.payments, 0, &payments(plain, 4, 200..300));
    let partition = |partition| PartitionId {
        source: SourceId::of("payments"),
        partition,
    };
    node::reached(&service, &[(partition(0), 299)]);
    let snapshot = service.views().closed().unwrap();
    assert_eq!(
        snapshot.position(partition(1)),
        Some(200),
        "what can't be decoded yet waits"
    );
    assert_eq!(
        node::rows_at(service.views(), &snapshot)["payments.dead_letters"].len(),
        10
    );
    drop(snapshot);

    // A service that starts meanwhile waits, too, and can be stopped.
    let waiting = Node::of(&topics, &registry.url()).start().unwrap();
    super::eventually(
        "the second one is live",
        || waiting.is_live().then_some(()),
        || "it is not".to_owned(),
    );
    waiting.stop();
    let views = node::joined(waiting).unwrap();
    assert!(
        views
            .closed()
            .is_none_or(|snapshot| snapshot.positions.is_empty()),
        "nothing could be decoded"
    );

    registry.restart();
    same(&topics);
    assert_eq!(letters(&topics), 10, "none came by the crash");

    // An id that nobody knows yet; whoever replays its records later must not know it either.
    let next = topics.schemas.keys().max().unwrap() + 1;
    topics.write(&topics.payments, 3, &payments(next, 4, 100..105));
    same(&topics);
    let (expected, mut told) = (oracle::expected(&topics), Epoch::ZERO);
    assert_eq!(expected["payments.dead_letters"].len(), 15);
    service.stop();
    let views = node::joined(service).unwrap();
    let first = node::closed_since(&views, &mut told);
    let given = registry.register("schemas.late-value", PAYMENT_LATE);
    assert_eq!(given as u32, next, "this registry counts its ids up");
    let views = node::joined(node.clone().until_end().start().unwrap()).unwrap();
    oracle::compare(&expected, &node::rows(&views));
    told = Epoch::ZERO;
    assert_eq!(first, node::closed_since(&views, &mut told));

    // From the next record on it is known; what stands before stays as it was, on any number of workers.
    let service = node.clone().workers(3).start().unwrap();
    topics.write(&topics.payments, 3, &payments(next, 4, 105..110));
    topics.write(&topics.payments, 2, &payments(next, 4, 110..115));
    node::caught_up(&service, &topics);
    let rows = node::rows(service.views());
    assert_eq!(rows["payments.dead_letters"].len(), 15, "none came since");
    service.stop();
    node::joined(service).unwrap();
    for workers in [1, 2] {
        let again = node.clone().workers(workers).until_end().start().unwrap();
        let views = node::joined(again).unwrap();
        assert_eq!(node::rows(&views), rows, "with {workers} workers");
    }
}
