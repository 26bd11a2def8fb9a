//! When a service on a real broker has caught up: at what can be read of what was there, and whatever stands
//! at the end.

use rdkafka::config::FromClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thalweg::Flow;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::progress::CaughtUp;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::{PATIENCE, eventually, node};
use crate::support::kafka::Broker;

/// Counts the numbers of a topic.
fn counted(topic: &str, start: Start) -> Flow {
    let topic = topic.to_owned();
    dataflow("counted", move |flow: Dataflow| {
        let numbers = Kafka::topic(&topic).json::<u64>().wait_for_topic();
        flow.source("numbers", numbers.start(start.clone()))
            .changes()
            .group_by("all", |_| 0u32)
            .aggregate("count", |a| a.count())
            .view_with("counted", |view| view.fields(["n"]));
    })
}

fn started(flow: &Flow) -> Service {
    let settings = RunSettings {
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(Broker::shared().bootstrap())),
            group: "tests".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    Service::start(flow, settings).unwrap()
}

/// How many records are counted once it has caught up.
fn caught_up(service: &Service) -> u64 {
    let left = || service.catching_up(CaughtUp::ToFirstEnds);
    eventually(
        "it has caught up",
        || left().is_none().then_some(()),
        || format!("{:?} are left; {:?}", left(), service.halt().error()),
    );
    let rows = node::rows(service.views());
    let row = rows.get("counted").and_then(|rows| rows.iter().next());
    row.map_or(0, |row| {
        let row: serde_json::Value = serde_json::from_str(row).unwrap();
        row["n"].as_u64().unwrap()
    })
}

fn ended(service: Service) {
    service.stop();
    service.join().unwrap();
}

fn transactional(id: &str) -> BaseProducer {
    let mut config = Broker::shared().client();
    config.set("transactional.id", id);
    let producer = BaseProducer::from_config(&config).unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let text = number.to_string();
        let record = BaseRecord::<(), str>::to(topic)
            .partition(partition)
            .payload(&text);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// A partition that is empty, one that ends with an aborted transaction, and one with a transaction that
/// stays open.
#[test]
fn what_can_be_read_is_enough() {
    let topic = "ready.ends.v1";
    Broker::shared().create_topic(topic, 3);
    let aborted = transactional("ready.aborted");
    send(&aborted, topic, 1, 0..3);
    aborted.commit_transaction(PATIENCE).unwrap();
    aborted.begin_transaction().unwrap();
    send(&aborted, topic, 1, 100..105);
    aborted.abort_transaction(PATIENCE).unwrap();
    let open = transactional("ready.open");
    Broker::shared().produce_raw(topic, 2, [(None, Some(&b"7"[..]), 7)]);
    send(&open, topic, 2, 8..9);
    Broker::shared().produce_raw(topic, 2, [(None, Some(&b"9"[..]), 9)]);

    let service = started(&counted(topic, Start::Earliest));
    assert_eq!(
        caught_up(&service),
        4,
        "three that were committed, and one before what is open"
    );
    open.commit_transaction(PATIENCE).unwrap();
    ended(service);
}

#[test]
fn all_that_is_there_is_counted_first_and_what_is_skipped_is_not_waited_for() {
    let topic = "ready.all.v1";
    Broker::shared().create_topic(topic, 2);
    let numbers: Vec<_> = (0..30_000u64)
        .map(|n| ("", n.to_string(), 1_700_000_000_000))
        .collect();
    Broker::shared().produce(topic, 0, &numbers);
    let service = started(&counted(topic, Start::Earliest));
    assert_eq!(caught_up(&service), 30_000);
    // Partitions that come later are not of the start.
    Broker::shared().grow_topic(topic, 3);
    assert_eq!(service.catching_up(CaughtUp::ToFirstEnds), None);
    ended(service);
    let service = started(&counted(topic, Start::Latest));
    assert_eq!(caught_up(&service), 0);
    ended(service);
}

#[test]
fn a_topic_that_is_waited_for_is_caught_up_with_once_it_is_there() {
    let topic = "ready.waits.v1";
    let service = started(&counted(topic, Start::Earliest));
    eventually(
        "it waits",
        || (!service.troubles().is_empty()).then_some(()),
        || format!("{:?}", service.halt().error()),
    );
    let left = service
        .catching_up(CaughtUp::ToFirstEnds)
        .expect("nothing was seen");
    assert_eq!(left["numbers"], None, "nobody knows how much is left");
    Broker::shared().create_topic(topic, 1);
    caught_up(&service);
    ended(service);
}
