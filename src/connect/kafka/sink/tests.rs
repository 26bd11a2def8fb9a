//! The writer of a shard against librdkafka's mock cluster. That knows no isolation and fences nobody: what
//! rests on these is tested on Apache Kafka.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::*;
use crate::codec::format::Format;
use crate::codec::json::JsonFormat;
use crate::demo::embedded::EmbeddedBroker;
use crate::schema::RowSchema;
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;
use crate::sink::row::Row;
use crate::sink::{Batch, Progress, TransactionalWriter, WriteError};
use crate::time::Epoch;

const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    broker: EmbeddedBroker,
    shard: Shard,
}

impl Rig {
    fn new() -> Self {
        let broker = EmbeddedBroker::start(1).unwrap();
        broker.create_topic("rows", 2).unwrap();
        broker.create_topic("app.it.progress", 1).unwrap();
        let schema = RowSchema::new("it", trace::<u32>(), trace::<u64>(), FieldNames::default()).unwrap();
        let shard = Shard {
            sink: "it".into(),
            number: 0,
            of: 1,
            schema: Arc::new(schema),
            ledger: 7,
            generation: 3,
            call_max: PATIENCE,
        };
        Self { broker, shard }
    }

    fn writer(&self, method: Method, properties: &[(&str, &str)]) -> KafkaWriter {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let target = SinkTopic {
            topic: "rows".into(),
            kafka: KafkaSettings {
                properties: properties.iter().map(own).collect(),
                ..KafkaSettings::at(self.broker.bootstrap_servers())
            },
            application: "app".into(),
            group: "it".into(),
            method,
            partitions: None,
        };
        let encoding = Format::<u64>::rows(&JsonFormat { strict: false }, method).unwrap();
        let encoder = (encoding.encoder)(&RowsOf {
            schema: &self.shard.schema,
            topic: "rows",
            registry: None,
        })
        .unwrap();
        KafkaWriter::open(Arc::new(target), self.shard.clone(), encoder).unwrap()
    }

    fn row(&self, key: u32, new: Option<u64>) -> Row {
        let (mut bytes, mut value) = (Vec::new(), Vec::new());
        self.shard.schema.encode_key(&key, &mut bytes).unwrap();
        new.inspect(|new| self.shard.schema.encode_value(new, &mut value).unwrap());
        Row::change(&bytes, None, new.map(|_| &*value), 1)
    }

    /// All records: sequence, key and payload, by sequence.
    fn records(&self) -> Vec<(u64, String, Option<String>)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.broker.bootstrap_servers())
            .set("group.id", "it")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..2 {
            list.add_partition_offset("rows", partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut found, mut ends) = (Vec::new(), 0);
        while ends < 2 {
            match consumer.poll(PATIENCE).expect("an end comes") {
                Ok(record) => {
                    let headers: BTreeMap<&str, &[u8]> = record
                        .headers()
                        .unwrap()
                        .iter()
                        .map(|header| (header.key, header.value.unwrap()))
                        .collect();
                    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                    let sequence = text(headers["thalweg.sequence"]).parse().unwrap();
                    found.push((sequence, text(record.key().unwrap()), record.payload().map(text)));
                }
                Err(KafkaError::PartitionEOF(_)) => ends += 1,
                Err(error) => panic!("{error}"),
            }
        }
        found.sort();
        found
    }
}

fn progress(epoch: u64, rows: u64) -> Progress {
    Progress {
        ledger: 7,
        generation: 3,
        epoch: Epoch(epoch),
        rows,
    }
}

fn batch(epoch: u64, rows: Vec<Row>) -> Batch {
    let epoch = Epoch(epoch);
    Batch { epoch, rows }
}

fn record(sequence: u64, key: &str, payload: Option<&str>) -> (u64, String, Option<String>) {
    (sequence, key.to_owned(), payload.map(str::to_owned))
}

#[test]
fn a_writer_goes_on_behind_what_was_committed() {
    let rig = Rig::new();
    let mut first = rig.writer(Method::UpsertTo, &[]);
    assert_eq!(first.resume().unwrap(), None);
    let rows = vec![rig.row(1, Some(10)), rig.row(2, Some(20))];
    first.commit(&[batch(4, rows)], &progress(4, 2)).unwrap();
    let batches = [
        batch(5, vec![rig.row(1, None)]),
        batch(6, vec![rig.row(2, Some(21))]),
    ];
    first.commit(&batches, &progress(6, 4)).unwrap();

    let mut second = rig.writer(Method::UpsertTo, &[]);
    assert_eq!(second.resume().unwrap(), Some(progress(6, 4)));
    second
        .commit(&[batch(9, vec![rig.row(3, Some(30))])], &progress(9, 5))
        .unwrap();
    let expected = [
        record(0, "1", Some(r#"{"key":1,"value":10}"#)),
        record(1, "2", Some(r#"{"key":2,"value":20}"#)),
        record(2, "1", None),
        record(3, "2", Some(r#"{"key":2,"value":21}"#)),
        record(4, "3", Some(r#"{"key":3,"value":30}"#)),
    ];
    assert_eq!(rig.records(), expected);
}

/// The end of a transaction came late, and committed the first rows of the next one: these are there, and its
/// progress is not.
#[test]
fn rows_that_are_there_without_their_progress_are_not_written_again() {
    let rig = Rig::new();
    let mut first = rig.writer(Method::UpsertTo, &[]);
    first.resume().unwrap();
    first
        .commit(&[batch(4, vec![rig.row(1, Some(10))])], &progress(4, 1))
        .unwrap();

    let stray: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", rig.broker.bootstrap_servers())
        .create()
        .unwrap();
    let of = |sequence: &str, sink: &str, ledger: &str| {
        [
            ("thalweg.sink", sink),
            ("thalweg.ledger", ledger),
            ("thalweg.epoch", "5"),
            ("thalweg.sequence", sequence),
        ]
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            let value = Some(value);
            headers.insert(Header { key, value })
        })
    };
    // Of this shard; of another sink that writes to the same topic; and under a ledger of before.
    for (key, sequence, sink, ledger) in [
        ("2", "1", "app.it.0", "7"),
        ("9", "2", "app.other.0", "7"),
        ("9", "2", "app.it.0", "6"),
    ] {
        let sent = BaseRecord::to("rows").key(key).payload("{}").partition(1);
        stray.send(sent.headers(of(sequence, sink, ledger))).unwrap();
    }
    stray.flush(PATIENCE).unwrap();

    let mut second = rig.writer(Method::UpsertTo, &[]);
    assert_eq!(second.resume().unwrap(), Some(progress(4, 1)));
    let rows = vec![rig.row(2, Some(20)), rig.row(3, Some(30))];
    second.commit(&[batch(5, rows)], &progress(5, 3)).unwrap();
    let own: Vec<_> = rig
        .records()
        .into_iter()
        .filter(|(_, key, _)| key != "9")
        .collect();
    let expected = [
        record(0, "1", Some(r#"{"key":1,"value":10}"#)),
        record(1, "2", Some("{}")),
        record(2, "3", Some(r#"{"key":3,"value":30}"#)),
    ];
    assert_eq!(own, expected);
    // Behind the progress that followed there is nothing more to look for.
    let mut third = rig.writer(Method::UpsertTo, &[]);
    assert_eq!(third.resume().unwrap(), Some(progress(5, 3)));
}

#[test]
fn a_record_that_is_too_large_is_refused_by_its_place() {
    let mut rig = Rig::new();
    let schema = RowSchema::new("it", trace::<String>(), trace::<u64>(), FieldNames::default()).unwrap();
    rig.shard.schema = Arc::new(schema);
    let row = |len: usize| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        rig.shard.schema.encode_key(&"x".repeat(len), &mut key).unwrap();
        rig.shard.schema.encode_value(&1u64, &mut value).unwrap();
        Row::change(&key, None, Some(&value), 1)
    };
    let mut writer = rig.writer(Method::UpsertTo, &[("message.max.bytes", "2000")]);
    writer.resume().unwrap();
    let batches = [batch(1, vec![row(3)]), batch(2, vec![row(4), row(5_000)])];
    match writer.commit(&batches, &progress(2, 3)) {
        Err(WriteError::Refused { row: (1, 1), error }) => {
            assert!(error.to_string().contains("max.message.bytes"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn progress_that_is_none_is_told() {
    let rig = Rig::new();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", rig.broker.bootstrap_servers())
        .create()
        .unwrap();
    producer
        .send(
            BaseRecord::<str, str>::to("app.it.progress")
                .payload("nonsense")
                .partition(0),
        )
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    let error = rig.writer(Method::UpsertTo, &[]).resume().unwrap_err();
    assert!(error.to_string().contains("app.it.progress"), "{error}");
}

#[test]
fn what_another_ledger_has_committed_is_no_progress() {
    let mut rig = Rig::new();
    let mut first = rig.writer(Method::UpsertTo, &[]);
    first.resume().unwrap();
    first
        .commit(&[batch(4, vec![rig.row(1, Some(10))])], &progress(4, 1))
        .unwrap();
    // One that is older sees what is newer, and writes nothing beside it.
    rig.shard.ledger = 6;
    assert_eq!(
        rig.writer(Method::UpsertTo, &[]).resume().unwrap(),
        Some(progress(4, 1))
    );
    rig.shard.ledger = 8;
    let mut next = rig.writer(Method::UpsertTo, &[]);
    assert_eq!(next.resume().unwrap(), None);
    let anew = Progress {
        ledger: 8,
        ..progress(2, 1)
    };
    next.commit(&[batch(2, vec![rig.row(1, Some(11))])], &anew)
        .unwrap();
    assert_eq!(rig.writer(Method::UpsertTo, &[]).resume().unwrap(), Some(anew));
}
