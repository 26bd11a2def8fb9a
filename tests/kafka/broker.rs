//! A broker that dies in the midst of it and comes back, and a topic that never was.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use thalweg::Kind;
use thalweg::bridge::Waker;
use thalweg::connect::kafka::Kafka;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::position::SourceId;
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Driver, Environment, Intake, ReadProgress, Reader, Source};

use super::eventually;
use super::load::{Random, Till, Topics};
use super::node::{self, Node};
use super::oracle;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

/// Reads partition 0 of a topic of numbers, as a worker would.
pub(super) struct Reading {
    driver: Arc<dyn Driver>,
    reader: Box<dyn Reader<u64>>,
    intake: Intake<u64>,
    pub(super) values: Vec<u64>,
    pub(super) progress: ReadProgress,
}

impl Reading {
    #[allow(
        clippy::arc_with_non_send_sync,
        reason = "an intake takes its rules so, and stays on one thread"
    )]
    pub(super) fn through(env: &Environment, topic: &str, from: i64) -> Self {
        let opened = Source::open(Kafka::topic(topic).json::<u64>(), env).unwrap();
        let mut reader = (opened.reader)(Waker::new(|| {})).unwrap();
        reader.assign(0, from).unwrap();
        let intake = Intake::new(
            SourceId::of("numbers"),
            "numbers".into(),
            0,
            Rc::new(opened.rules),
        );
        let progress = ReadProgress {
            position: from,
            at_end: false,
            more: false,
        };
        Self {
            driver: opened.driver,
            reader,
            intake,
            values: Vec::new(),
            progress,
        }
    }

    fn of(broker: &Broker, topic: &str, from: i64) -> Self {
        let env = Environment {
            connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
            ..Environment::default()
        };
        Self::through(&env, topic, from)
    }

    fn step(&mut self) -> thalweg::Result<()> {
        let progress = self.reader.read(0, i64::MAX, 100, &mut self.intake)?;
        assert!(
            progress.position >= self.progress.position,
            "the position went back"
        );
        self.progress = progress;
        let (events, dead) = self.intake.take(Vec::new());
        assert!(dead.is_empty(), "{dead:?}");
        self.values.extend(events.into_iter().map(|event| event.value));
        Ok(())
    }

    pub(super) fn until(&mut self, what: &str, enough: impl Fn(&Self) -> bool) {
        let this = RefCell::new(self);
        let look = || {
            let mut this = this.borrow_mut();
            this.step().unwrap();
            enough(&this).then_some(())
        };
        let state = || {
            let this = this.borrow();
            format!(
                "{} values, {:?}, {:?}",
                this.values.len(),
                this.progress,
                this.driver.trouble()
            )
        };
        eventually(what, look, state);
    }
}

pub(super) fn numbers(broker: &Broker, topic: &str, numbers: std::ops::Range<u64>) {
    let records: Vec<_> = numbers
        .map(|n| (n.to_string(), n.to_string(), 1_700_000_000_000 + n as i64))
        .collect();
    broker.produce(topic, 0, &records);
}

#[test]
fn a_topic_that_is_not_there_is_named() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let missing = Node {
        payments: "reader.no-such-topic".into(),
        ..Node::of(&Topics::make(broker, registry, "reader.missing"), &registry.url())
    };
    let error = match missing.start() {
        Ok(service) => node::joined(service).err().expect("there is nothing to run on"),
        Err(error) => error,
    };
    assert_eq!(error.kind(), Kind::External, "{error}");
    assert!(
        error
            .to_string()
            .contains("there is no topic `reader.no-such-topic`"),
        "{error}"
    );
}

#[test]
fn a_broker_that_is_killed_costs_no_record_and_doubles_none() {
    let broker = Broker::start();
    broker.create_topic("reader.crash", 1);
    let topics = Topics::make(&broker, Registry::shared(), "reader.service");
    let service = Node::of(&topics, &Registry::shared().url())
        .workers(2)
        .start()
        .unwrap();
    let mut reading = Reading::of(&broker, "reader.crash", 0);
    let mut tills: Vec<Till> = (0..4).map(|partition| Till::new(7, partition, 500)).collect();
    let mut merchants = Random(9);
    let mut random = Random(77);
    let mut written = 0;
    for round in 0..3 {
        if round > 0 {
            broker.kill9();
            // What is there is read while nobody answers.
            (0..100).for_each(|_| reading.step().unwrap());
            broker.restart();
        }
        numbers(&broker, "reader.crash", written..written + 5_000);
        written += 5_000;
        topics.write_merchants(&mut merchants, 50);
        for (partition, till) in (0..).zip(&mut tills) {
            topics.write(&topics.payments, partition, &till.take(&topics, 1_000));
        }
        // The next crash comes somewhere on the way.
        let enough = written - random.below(4_000);
        reading.until("numbers", |r| r.values.len() as u64 >= enough);
    }
    reading.until("all numbers", |r| r.progress.position == written as i64);
    assert!(
        reading.values.iter().copied().eq(0..written),
        "a number was lost or doubled"
    );
    node::caught_up(&service, &topics);
    oracle::compare(&oracle::expected(&topics), &node::rows(service.views()));
    service.stop();
    node::joined(service).unwrap();
}
