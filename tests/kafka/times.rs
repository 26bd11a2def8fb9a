//! Event time on a topic that runs: partitions without a record, far-future records, a source that falls
//! silent, a partition that is added.

use thalweg::codec::Cause;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::position::SourceId;
use thalweg::prelude::*;
use thalweg::runtime::sources::SourceStatus;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;

use super::eventually;
use crate::support::kafka::Broker;

const TOPIC: &str = "times.numbers.v1";
/// 2026-01-01T00:00:00Z, in milliseconds.
const T0: i64 = 1_767_225_600_000;
const IN_2100: i64 = 4_102_444_800_000;

fn write(partition: i32, times: &[i64]) {
    let records: Vec<_> = times.iter().map(|ts_ms| ("", "1", *ts_ms)).collect();
    Broker::shared().produce(TOPIC, partition, &records);
}

#[test]
fn quiet_future_and_new_partitions_hold_nothing_up() {
    Broker::shared().create_topic(TOPIC, 2);
    let flow = dataflow("times", |flow: Dataflow<'_>| {
        let numbers = Kafka::topic(TOPIC)
            .text::<u64>()
            .idle_after(Duration::from_millis(200));
        flow.source("numbers", numbers)
            .key_by("n", |n| *n)
            .window("each", Tumbling::of(Duration::from_secs(10)))
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
    let service = Service::start(&flow, settings).unwrap();
    let sources = service.sources();
    let now = || sources().remove(0);
    let until = |what: &str, holds: &dyn Fn(&SourceStatus, EventTime) -> bool| {
        let watermark = || {
            let snapshot = service.views().closed();
            snapshot.map_or(EventTime::MIN, |at| at.watermark(&[SourceId::of("numbers")]))
        };
        let look = || {
            assert!(service.halt().error().is_none(), "{:?}", service.halt().error());
            holds(&now(), watermark()).then_some(())
        };
        eventually(what, look, || format!("{:?}, watermark {}", now(), watermark()));
    };
    let at = |seconds: i64| EventTime::from_millis(T0 + 1_000 * seconds);

    // Partition 1 never had a record: it holds the watermark until it is idle. In the end all are.
    write(0, &[T0, T0 + 20_000]);
    until("all is idle", &|source, watermark| {
        source.idle && source.partitions.iter().all(|p| p.idle) && watermark == at(20)
    });

    // Beyond the bound a record moves nothing, and its partition stays as idle as it was.
    write(0, &[IN_2100]);
    until("it is read", &|source, _| {
        source.partitions[0].position == Some(3)
    });
    let dead = service
        .metrics()
        .source("numbers")
        .dead_letters(Cause::EventTimeFarFuture.code());
    assert_eq!(dead.get(), 1);
    let seen = now();
    assert_eq!((seen.idle, seen.partitions[0].watermark), (true, at(20)));

    // A partition that is added is read from its beginning, and counts with its first record.
    Broker::shared().grow_topic(TOPIC, 3);
    write(2, &[T0 + 30_000, T0 + 31_000]);
    until("the new partition counts", &|source, watermark| {
        source.partitions.len() == 3 && source.partitions[2].position == Some(2) && watermark == at(31)
    });
    // What was silent comes back behind it: the watermark stands, and what is over is late.
    write(1, &[T0 + 1_000, T0 + 40_000]);
    until("it is read", &|source, watermark| {
        source.partitions[1].watermark == at(40) && watermark >= at(31)
    });
    until("the lag is gone", &|source, _| {
        source.partitions.iter().all(|p| p.lag_records() == Some(0))
    });
    service.stop();
    let metrics = service.metrics().clone();
    service.join().unwrap();
    let late = metrics.source("numbers").late("each");
    assert_eq!((late.events.get(), late.windows.get()), (1, 1));
}
