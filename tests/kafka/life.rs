//! The life of a topic: missing, grown, made again, eaten by retention; and of its broker. Each is named
//! where people look.

use std::path::Path;
use std::sync::Arc;

use thalweg::checkpoint;
use thalweg::connect::kafka::{KafkaSettings, TopicSettings};
use thalweg::disk::HostDisk;
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::{self, CheckpointSchedule};
use thalweg::runtime::{LedgerLocation, RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::{Environment, Overrides};
use thalweg::{Flow, Kind};

use super::{eventually, node};
use crate::support::kafka::Broker;

/// Counts the numbers of a topic.
fn counted(topic: &str, waits: bool) -> Flow {
    let topic = topic.to_owned();
    dataflow("counted", move |flow: Dataflow| {
        let numbers = Kafka::topic(&topic).json::<u64>();
        let numbers = if waits { numbers.wait_for_topic() } else { numbers };
        flow.source("numbers", numbers)
            .changes()
            .group_by("all", |_| 0u32)
            .aggregate("count", |a| a.count())
            .view_with("counted", |view| view.fields(["n"]));
    })
}

fn start(flow: &Flow, bootstrap: &str, data: Option<&Path>) -> thalweg::Result<Service> {
    start_with(flow, bootstrap, data, Overrides::default())
}

/// The same with settings of the source.
fn start_with(
    flow: &Flow,
    bootstrap: &str,
    data: Option<&Path>,
    numbers: Overrides,
) -> thalweg::Result<Service> {
    Service::start(flow, settings(bootstrap, data, numbers))
}

fn settings(bootstrap: &str, data: Option<&Path>, numbers: Overrides) -> RunSettings {
    RunSettings {
        until_end: data.is_some(),
        store: data.map_or(LedgerLocation::Memory(Default::default()), |dir| {
            LedgerLocation::Directory(dir.to_owned())
        }),
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(bootstrap.to_owned())),
            group: "tests".into(),
            sources: Arc::new([("numbers".to_owned(), numbers)].into()),
            ..Environment::default()
        },
        ..RunSettings::default()
    }
}

fn ended(flow: &Flow, bootstrap: &str, data: Option<&Path>) -> thalweg::Result<()> {
    start(flow, bootstrap, data).and_then(|service| service.join().map(|_| ()))
}

fn write(broker: &Broker, topic: &str, partition: i32, count: u64) {
    let records: Vec<_> = (0..count)
        .map(|n| (n.to_string(), n.to_string(), 1_700_000_000_000))
        .collect();
    broker.produce(topic, partition, &records);
}

/// What the service has to say for itself.
fn state(service: &Service) -> String {
    format!(
        "{:?} {:?} {:?}\n{}",
        node::rows(service.views()).get("counted"),
        service.troubles(),
        service.halt().error(),
        service
            .metrics()
            .text()
            .lines()
            .filter(|line| line.contains("numbers"))
            .collect::<Vec<_>>()
            .join("\n")
    )
}

fn counts(service: &Service, count: u64) {
    let look = || {
        let rows = node::rows(service.views());
        let row = rows.get("counted")?.iter().next()?;
        row.contains(&format!(":{count}}}")).then_some(())
    };
    eventually(&format!("{count} records"), look, || state(service));
}

/// Waits until health names `what` and the metric of `kind` shows it; with no `kind`, until there is no
/// trouble.
fn ails(service: &Service, what: &str, kind: Option<&str>) {
    let look = || {
        let troubles = service.troubles();
        let named = match kind {
            Some(_) => troubles
                .get(&thalweg::health::Dependency::Source("numbers".into()))
                .is_some_and(|trouble| trouble.contains(what)),
            None => troubles.is_empty(),
        };
        let text = service.metrics().text();
        let set: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("thalweg_source_trouble{") && line.ends_with("} 1"))
            .collect();
        let shown = match kind {
            Some(kind) => set.len() == 1 && set[0].contains(&format!("kind=\"{kind}\"")),
            None => set.is_empty(),
        };
        (named && shown).then_some(())
    };
    eventually(what, look, || state(service));
}

#[test]
fn a_topic_that_is_missing_is_waited_for_where_that_was_said() {
    let broker = Broker::shared();
    let error = ended(&counted("life.none.v1", false), &broker.bootstrap(), None).unwrap_err();
    assert!(
        error.what().contains("there is no topic `life.none.v1`"),
        "{error}"
    );

    let service = start(&counted("life.late.v1", true), &broker.bootstrap(), None).unwrap();
    ails(&service, "there is no topic `life.late.v1`", Some("missing"));
    broker.create_topic("life.late.v1", 2);
    write(broker, "life.late.v1", 1, 7);
    counts(&service, 7);
    ails(&service, "well again", None);
    service.stop();
    service.join().unwrap();
}

#[test]
fn a_setting_waits_for_a_topic_and_says_where_it_begins() {
    let broker = Broker::shared();
    let said = Overrides {
        connector: Extensions::of(TopicSettings {
            wait_for_topic: Some(true),
            start: Some(Start::Latest),
            ..TopicSettings::default()
        }),
        ..Overrides::default()
    };
    let flow = counted("life.set.v1", false);
    let service = start_with(&flow, &broker.bootstrap(), None, said.clone()).unwrap();
    ails(&service, "there is no topic `life.set.v1`", Some("missing"));
    broker.create_topic("life.set.v1", 1);
    ails(&service, "well again", None);
    service.stop();
    service.join().unwrap();

    write(broker, "life.set.v1", 0, 9);
    let service = start_with(&flow, &broker.bootstrap(), None, said).unwrap();
    eventually(
        "its start",
        || service.is_live().then_some(()),
        || state(&service),
    );
    eventually(
        "the partition",
        || service.partitions()("numbers"),
        || state(&service),
    );
    write(broker, "life.set.v1", 0, 2);
    counts(&service, 2);
    service.stop();
    service.join().unwrap();
}

#[test]
fn partitions_that_are_added_are_read_from_their_start() {
    let broker = Broker::shared();
    broker.create_topic("life.grown.v1", 1);
    write(broker, "life.grown.v1", 0, 5);
    let service = start(&counted("life.grown.v1", false), &broker.bootstrap(), None).unwrap();
    counts(&service, 5);
    broker.grow_topic("life.grown.v1", 3);
    write(broker, "life.grown.v1", 2, 11);
    counts(&service, 16);
    let text = service.metrics().text();
    assert!(
        text.contains("thalweg_source_partitions{source=\"numbers\"} 3"),
        "{text}"
    );
    assert_eq!(service.partitions()("numbers"), Some(vec![0, 1, 2]));
    service.stop();
    service.join().unwrap();
}

#[test]
fn a_topic_that_was_made_again_halts_by_its_id() {
    let broker = Broker::shared();
    let data = tempfile::tempdir().unwrap();
    let flow = counted("life.again.v1", true);
    broker.create_topic("life.again.v1", 2);
    (0..2).for_each(|partition| write(broker, "life.again.v1", partition, 3));
    ended(&flow, &broker.bootstrap(), Some(data.path())).unwrap();
    broker.delete_topic("life.again.v1");
    // The same records, in a topic of the same name with a partition less.
    broker.create_topic("life.again.v1", 1);
    write(broker, "life.again.v1", 0, 3);
    let error = ended(&flow, &broker.bootstrap(), Some(data.path())).unwrap_err();
    // A replay that comes first misses what it needs; else it is the id that tells.
    assert!(
        error.what().contains("was deleted and recreated") || error.what().contains("life.again.v1"),
        "{error}"
    );
}

#[test]
fn a_replay_of_records_that_retention_took_says_which() {
    let broker = Broker::shared();
    let data = tempfile::tempdir().unwrap();
    let flow = counted("life.gone.v1", false);
    broker.create_topic("life.gone.v1", 1);
    write(broker, "life.gone.v1", 0, 20);
    ended(&flow, &broker.bootstrap(), Some(data.path())).unwrap();
    broker.delete_records("life.gone.v1", 0, 12);
    let error = ended(&flow, &broker.bootstrap(), Some(data.path())).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(error.to_string().contains("12"), "{error}");
}

/// What a checkpoint holds need not be read again; what came after it does.
#[test]
fn retention_may_take_what_a_checkpoint_holds_and_nothing_behind_it() {
    let broker = Broker::shared();
    let data = tempfile::tempdir().unwrap();
    let (topic, flow) = ("life.held.v1", counted("life.held.v1", false));
    let start = |due| {
        let store =
            checkpoint::store::CheckpointStore::new(Arc::new(HostDisk), &data.path().join("checkpoints"));
        let settings = RunSettings {
            until_end: false,
            checkpoints: Some(checkpoints::CheckpointSettings::new(store, due)),
            ..settings(&broker.bootstrap(), Some(data.path()), Overrides::default())
        };
        Service::start(&flow, settings)
    };
    let stopped = |service: Service| {
        service.stop();
        service.join().unwrap();
    };
    broker.create_topic(topic, 1);
    let mut all = 20;
    write(broker, topic, 0, all);
    let service = start(CheckpointSchedule::Every(Duration::from_millis(20))).unwrap();
    counts(&service, all);
    let counted = service.views().closed().map(|snapshot| snapshot.epoch);
    while service.checkpointed() < counted {
        // One is made when something was bound.
        write(broker, topic, 0, 1);
        all += 1;
        counts(&service, all);
    }
    stopped(service);
    broker.delete_records(topic, 0, 20);
    // From here on none is made.
    let service = start(CheckpointSchedule::At([].into())).unwrap();
    let restored = service.restored();
    assert!(restored >= counted);
    write(broker, topic, 0, 5);
    all += 5;
    counts(&service, all);
    stopped(service);
    broker.delete_records(topic, 0, all as i64);
    let service = start(CheckpointSchedule::At([].into())).unwrap();
    assert_eq!(service.restored(), restored);
    let halted = || service.halt().error();
    let error = eventually("it halts", halted, || state(&service));
    assert_eq!(error.kind(), Kind::Integrity, "{error}");
    assert!(error.to_string().contains(&all.to_string()), "{error}");
}

#[test]
fn a_broker_may_be_away_at_the_start_and_later() {
    let broker = Broker::start();
    broker.create_topic("life.away.v1", 1);
    write(&broker, "life.away.v1", 0, 4);
    broker.kill9();
    let error = ended(&counted("life.away.v1", false), &broker.bootstrap(), None).unwrap_err();
    assert_eq!(error.kind(), Kind::External);
    assert!(error.what().contains("cannot reach Kafka"), "{error}");

    let service = start(&counted("life.away.v1", true), &broker.bootstrap(), None).unwrap();
    ails(&service, "cannot reach Kafka", Some("away"));
    broker.restart();
    counts(&service, 4);
    ails(&service, "well again", None);
    broker.kill9();
    ails(&service, "cannot reach Kafka", Some("away"));
    broker.restart();
    write(&broker, "life.away.v1", 0, 3);
    counts(&service, 7);
    ails(&service, "well again", None);
    service.stop();
    service.join().unwrap();
}
