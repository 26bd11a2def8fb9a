//! The Kafka source against a real broker: what librdkafka's mock cluster lacks. Transactions, the last
//! stable offset, control records, retention, topics made anew.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use thalweg::bridge::Waker;
use thalweg::connect::kafka::Kafka;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::position::SourceId;
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Driver, Environment, Intake, ReadProgress, Reader, Source, TimeRules};
use thalweg::{Error, Kind};

use crate::support::kafka::Broker;

const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    reader: Box<dyn Reader<u64>>,
    driver: Arc<dyn Driver>,
    wakes: Receiver<()>,
    intake: Intake<u64>,
}

impl Rig {
    /// A reader of partition 0 from `from` on.
    fn new(broker: &Broker, topic: &str, from: i64) -> Self {
        let environment = Environment {
            connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
            ..Environment::default()
        };
        let opened = Source::<u64>::open(Kafka::topic(topic).json(), &environment).unwrap();
        let (woken, wakes) = channel();
        let mut reader = (opened.reader)(Waker::new(move || woken.send(()).unwrap_or(()))).unwrap();
        reader.assign(0, from).unwrap();
        let intake = Intake::new(SourceId(1), "numbers".into(), 0, Rc::new(TimeRules::default()));
        Self {
            reader,
            driver: opened.driver,
            wakes,
            intake,
        }
    }

    /// Reads on, waiting for wake-ups, until `done` or an error.
    fn read(&mut self, until: i64, done: impl Fn(&ReadProgress) -> bool) -> Result<ReadProgress, Error> {
        loop {
            let progress = self.reader.read(0, until, 1_000, &mut self.intake)?;
            if done(&progress) {
                return Ok(progress);
            }
            if !progress.more {
                self.wakes.recv_timeout(PATIENCE).expect("a wake-up");
            }
        }
    }

    fn taken(&mut self) -> Vec<(i64, u64)> {
        self.intake
            .take(Vec::new())
            .0
            .into_iter()
            .map(|event| (event.at.offset, event.value))
            .collect()
    }

    /// Start and end of partition 0.
    fn bounds(&self) -> (i64, i64) {
        let facts = self.driver.topology().unwrap().partitions[0];
        (facts.start, facts.end)
    }
}

fn transactional(broker: &Broker, id: &str) -> BaseProducer {
    let mut config = broker.client();
    config.set("transactional.id", id);
    let producer = BaseProducer::from_config(&config).unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn send(producer: &BaseProducer, topic: &str, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let text = number.to_string();
        producer
            .send(BaseRecord::<(), str>::to(topic).partition(0).payload(&text))
            .map_err(|(e, _)| e)
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

#[test]
fn only_what_is_committed_is_read_up_to_the_last_stable_offset() {
    let broker = Broker::shared();
    let topic = "reader.committed.v1";
    broker.create_topic(topic, 1);
    let (first, open) = (
        transactional(broker, "reader.first"),
        transactional(broker, "reader.open"),
    );
    first.begin_transaction().unwrap();
    send(&first, topic, 0..3); // 0 1 2, marker 3
    first.commit_transaction(PATIENCE).unwrap();
    first.begin_transaction().unwrap();
    send(&first, topic, 100..102); // 4 5, marker 6
    first.abort_transaction(PATIENCE).unwrap();
    broker.produce_raw(topic, 0, [(None, Some(&b"7"[..]), 7)]); // 7
    open.begin_transaction().unwrap();
    send(&open, topic, 8..9); // 8
    broker.produce_raw(topic, 0, [(None, Some(&b"9"[..]), 9)]); // 9

    let mut rig = Rig::new(broker, topic, 0);
    assert_eq!(rig.bounds(), (0, 8), "the end is the last stable offset");
    let progress = rig.read(i64::MAX, |p| p.at_end).unwrap();
    assert_eq!(progress.position, 8);
    assert_eq!(rig.taken(), [(0, 0), (1, 1), (2, 2), (7, 7)]);

    open.commit_transaction(PATIENCE).unwrap(); // marker 10
    let progress = rig.read(i64::MAX, |p| p.position == 11).unwrap();
    assert!(progress.at_end);
    assert_eq!(rig.bounds(), (0, 11));
    assert_eq!(rig.taken(), [(8, 8), (9, 9)]);

    // A replay stops where it is told, also inside and behind holes, and a log that ends in a marker is read
    // to its end.
    for (until, records) in [(2, 2), (3, 3), (4, 3), (6, 3), (7, 3), (8, 4), (10, 6), (11, 6)] {
        let mut replay = Rig::new(broker, topic, 0);
        let progress = replay.read(until, |p| p.position >= until).unwrap();
        assert_eq!(
            (until, progress.position, replay.taken().len()),
            (until, until, records)
        );
    }
}

#[test]
fn what_retention_took_is_an_error_that_names_it() {
    let broker = Broker::shared();
    let topic = "reader.retention.v1";
    broker.create_topic(topic, 1);
    broker.produce(
        topic,
        0,
        &[("k", "1", 1), ("k", "2", 2), ("k", "3", 3), ("k", "4", 4)],
    );
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(3)).unwrap();
    let admin: AdminClient<DefaultClientContext> = AdminClient::from_config(&broker.client()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(admin.delete_records(&before, &AdminOptions::new()))
        .unwrap();

    for (from, named) in [
        (0, "holds offsets 3 to 4, 0 is needed"),
        (9, "holds offsets 3 to 4, 9 is needed"),
    ] {
        let mut rig = Rig::new(broker, topic, from);
        assert_eq!(rig.bounds(), (3, 4));
        let error = rig.read(i64::MAX, |p| p.at_end).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity);
        assert!(error.to_string().contains(named), "{error}");
    }
}

#[test]
fn a_topic_made_anew_has_another_id() {
    let broker = Broker::shared();
    let topic = "reader.anew.v1";
    broker.create_topic(topic, 2);
    let id = || Rig::new(broker, topic, 0).driver.topology().unwrap().topic;
    let first = id();
    assert_eq!(first, id());
    assert_ne!(first, Default::default());
    broker.delete_topic(topic);
    let gone = Rig::new(broker, topic, 0).driver.topology().unwrap_err();
    assert_eq!(gone.what(), "there is no topic `reader.anew.v1`");
    broker.create_topic(topic, 2);
    assert_ne!(first, id());
}

#[test]
fn a_broker_that_dies_and_returns_is_no_error() {
    let broker = Broker::start();
    let topic = "reader.restart.v1";
    broker.create_topic(topic, 1);
    broker.produce(topic, 0, &[("k", "1", 1)]);
    let mut rig = Rig::new(&broker, topic, 0);
    rig.read(i64::MAX, |p| p.at_end).unwrap();
    broker.restart();
    broker.produce(topic, 0, &[("k", "2", 2)]);
    rig.read(i64::MAX, |p| p.position == 2).unwrap();
    assert_eq!(rig.taken(), [(0, 1), (1, 2)]);
}
