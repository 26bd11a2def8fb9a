//! What looks quiet and is not: partitions whose newest records belong to open transactions. And what is
//! live, and must not be taken for the far future.

use rdkafka::config::FromClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use thalweg::clock;
use thalweg::codec::Cause;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::connect::kafka::Topic;
use thalweg::prelude::*;
use thalweg::runtime::sources::SourceStatus;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::{PATIENCE, eventually};
use crate::support::kafka::Broker;

/// 2026-01-01T00:00:00Z, in milliseconds.
const T0: i64 = 1_767_225_600_000;
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// Counts the numbers of a topic by the second.
fn serve(numbers: impl Fn() -> Topic<u64> + Send + Sync + 'static) -> Service {
    let flow = dataflow("quiet", move |flow: Dataflow<'_>| {
        flow.source("numbers", numbers())
            .key_by("n", |n| *n)
            .window("each", Tumbling::of(Duration::from_secs(1)))
            .aggregate(|a| a.count())
            .view("counts");
    });
    let settings = RunSettings {
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(Broker::shared().bootstrap())),
            group: "tests".into(),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    Service::start(&flow, settings).unwrap()
}

/// Waits until the source is as it should be.
fn until(service: &Service, what: &str, holds: impl Fn(&SourceStatus) -> bool) {
    let sources = service.sources();
    let look = || {
        assert!(service.halt().error().is_none(), "{:?}", service.halt().error());
        holds(&sources()[0]).then_some(())
    };
    eventually(what, look, || format!("{:?}", sources()));
}

fn read_up_to(source: &SourceStatus, ends: &[i64]) -> bool {
    let positions = source.partitions.iter().map(|p| p.position.unwrap_or(0));
    positions.eq(ends.iter().copied())
}

struct Writer {
    producer: BaseProducer,
    partition: i32,
}

impl Writer {
    fn new(partition: i32, id: &str) -> Self {
        let mut config = Broker::shared().client();
        config.set("transactional.id", format!("quiet.{partition}.{id}"));
        let producer = BaseProducer::from_config(&config).unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        Self { producer, partition }
    }

    fn begin(&self, topic: &str, times_ms: impl IntoIterator<Item = i64>) {
        self.producer.begin_transaction().unwrap();
        for ms in times_ms {
            let record = BaseRecord::<(), str>::to(topic).partition(self.partition);
            let sent = self.producer.send(record.payload("1").timestamp(ms));
            sent.map_err(|(error, _)| error).unwrap();
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn commit(&self) {
        self.producer.commit_transaction(PATIENCE).unwrap();
    }
}

/// Each partition always has a transaction open, far longer than the source takes to find a partition idle;
/// they are committed in turn. By the time of the events nothing is late.
#[test]
fn partitions_with_open_transactions_are_not_idle() {
    const TOPIC: &str = "quiet.transactions.v1";
    Broker::shared().create_topic(TOPIC, 2);
    let writers = [0, 1].map(|partition| [Writer::new(partition, "a"), Writer::new(partition, "b")]);
    let service = serve(|| Kafka::topic(TOPIC).text::<u64>().idle_after(IDLE_AFTER));
    for step in 0..4 {
        let times = move || (0..10).map(move |n| T0 + 10_000 * step as i64 + 1_000 * n);
        for of_partition in &writers {
            of_partition[step % 2].begin(TOPIC, times());
            if step > 0 {
                of_partition[1 - step % 2].commit();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(IDLE_AFTER * 5 / 2);
    }
    let metrics = service.metrics().source("numbers");
    until(&service, "it is known what holds it up", |source| {
        let mut partitions = source.partitions.iter();
        let told = partitions.all(|p| p.open_transaction_since.is_some());
        told && metrics.partition(1).open_transaction_seconds.get() > 0.0
    });
    for of_partition in &writers {
        of_partition[1].commit();
    }
    // Ten records and a marker each time.
    until(&service, "all is read, and idle", |source| {
        read_up_to(source, &[44, 44]) && source.idle
    });
    until(&service, "nothing holds it up", |source| {
        let open = source
            .partitions
            .iter()
            .any(|p| p.open_transaction_since.is_some());
        !open && source.partitions.iter().all(|p| p.lag_records() == Some(0))
    });
    assert_eq!(metrics.late("each").events.get(), 0);
    service.stop();
    service.join().unwrap();
}

/// Events of this moment, for as long as it takes a limit to grow old a few times.
#[test]
fn what_is_live_is_not_far_in_the_future() {
    const TOPIC: &str = "quiet.live.v1";
    Broker::shared().create_topic(TOPIC, 1);
    let service = serve(|| Kafka::topic(TOPIC).text::<u64>().future_bound(Duration::ZERO));
    let write = |at: EventTime| Broker::shared().produce(TOPIC, 0, &[("", "1", at.micros() / 1_000)]);
    for _ in 0..60 {
        write(clock::now());
        std::thread::sleep(Duration::from_millis(50));
    }
    until(&service, "all is read", |source| read_up_to(source, &[60]));
    let dead = service.metrics().source("numbers");
    let dead = dead.dead_letters(Cause::EventTimeFarFuture.code());
    assert_eq!(dead.get(), 0);
    write(clock::now().plus(Duration::from_secs(3_600)));
    until(&service, "all is read", |source| read_up_to(source, &[61]));
    assert_eq!(dead.get(), 1);
    service.stop();
    service.join().unwrap();
}
