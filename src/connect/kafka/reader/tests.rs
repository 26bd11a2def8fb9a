//! The state machine of one partition against a scripted queue, with holes, ends and waits; then the whole
//! reader against librdkafka's mock cluster.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};

use proptest::prelude::*;

use super::*;
use crate::codec::header::Header;
use crate::codec::{Cause, Decode};
use crate::connect::kafka::{Kafka, KeyedTopic, Topic, TopicSettings};
use crate::demo::embedded::{EmbeddedBroker, Producer};
use crate::error::Kind;
use crate::position::SourceId;
use crate::setting::extensions::Extensions;
use crate::source::Raw;
use crate::source::records::Payload;
use crate::source::{Deletes, Driver, OpenedSource, Source, TimeRules, UpsertSource};
use crate::time::EventTime;

fn intake<T>() -> Intake<T> {
    Intake::new(SourceId(1), "orders".into(), 0, Rc::new(TimeRules::default()))
}

fn taken<T>(intake: &mut Intake<T>) -> Vec<(Offset, T)> {
    intake
        .take(Vec::new())
        .0
        .into_iter()
        .map(|event| (event.at.offset, event.value))
        .collect()
}

// ---- one partition
// -------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
enum Step {
    Record(Offset),
    End(Offset),
    Fault,
}

/// A queue in which the first `arrived` steps have arrived, taken a few at a time.
struct Script {
    steps: Vec<Step>,
    arrived: Rc<RefCell<usize>>,
    fetched: usize,
    popped: usize,
}

const FEW: usize = 3;

impl PartitionMessages for Script {
    fn fetch(&mut self) -> bool {
        assert!(self.fetched == self.popped, "fetched over items that were left");
        let there = *self.arrived.borrow() - self.fetched;
        self.fetched += there.min(FEW);
        there < FEW
    }

    fn head(&self) -> Option<QueueItem<'_>> {
        (self.popped < self.fetched).then(|| match self.steps[self.popped] {
            Step::Record(offset) => QueueItem::Record(Raw {
                offset,
                timestamp: EventTime(offset),
                key: None,
                payload: Some(b"x"),
            }),
            Step::End(offset) => QueueItem::End(offset),
            Step::Fault => QueueItem::Fault(PartitionFault {
                code: -195,
                offset: -1,
                text: "away".to_owned(),
            }),
        })
    }

    fn end(&self) -> Option<Offset> {
        None
    }

    fn headers(&self) -> Vec<Header> {
        Vec::new()
    }

    fn pop(&mut self) {
        self.popped += 1;
    }
}

/// Gives each record its offset, after making it wait as often as the script says.
struct Waits(Vec<(Offset, usize)>);

impl Records<Offset> for Waits {
    fn decode(&mut self, raw: &Raw<'_>) -> Decoded<Offset> {
        match self
            .0
            .iter_mut()
            .find(|(offset, left)| *offset == raw.offset && *left > 0)
        {
            Some((_, left)) => {
                *left -= 1;
                Decoded::Wait
            }
            None => Decoded::Value(raw.offset),
        }
    }
}

/// Records with holes between them, each end of the log as it was when it was reached, and faults.
fn logs() -> impl Strategy<Value = Vec<Step>> {
    let step = (0i64..4, 0u8..8);
    proptest::collection::vec(step, 0..60).prop_map(|steps| {
        let (mut next, mut log) = (5, Vec::new());
        for (hole, what) in steps {
            match what {
                0 => {
                    next += hole;
                    log.push(Step::End(next));
                }
                1 => log.push(Step::Fault),
                _ => {
                    next += if what < 5 { 0 } else { hole };
                    log.push(Step::Record(next));
                    next += 1;
                }
            }
        }
        log
    })
}

fn offsets(log: &[Step]) -> Vec<Offset> {
    log.iter()
        .filter_map(|step| {
            if let Step::Record(offset) = step {
                Some(*offset)
            } else {
                None
            }
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// However the reading is cut, each record is read once, in order, and a position says exactly what was
    /// read.
    #[test]
    fn cuts_and_waits_change_nothing(
        log in logs(),
        calls in proptest::collection::vec((0i64..90, 0usize..9, 0usize..7), 0..40),
        waits in proptest::collection::vec((5i64..60, 1usize..3), 0..4),
    ) {
        let all = offsets(&log);
        let end = log.iter().fold(5, |end, step| match step {
            Step::Record(offset) => offset + 1,
            Step::End(offset) => *offset,
            Step::Fault => end,
        });
        let arrived = Rc::new(RefCell::new(0));
        let script = Script { steps: log.clone(), arrived: arrived.clone(), fetched: 0, popped: 0 };
        let mut partition = PartitionReader::new(script, 5);
        let (mut records, mut intake, mut faults) = (Waits(waits), intake(), 0);
        let mut read = Vec::new();
        let mut told = 5;
        let last = std::iter::repeat_n((Offset::MAX, usize::MAX, log.len()), 8);
        for (until, records_max, arriving) in calls.into_iter().chain(last) {
            let there = (*arrived.borrow() + arriving).min(log.len());
            *arrived.borrow_mut() = there;
            let progress = partition
                .read(until, records_max, &mut records, &mut intake, |_| { faults += 1; Ok(()) })
                .unwrap();
            let new = taken(&mut intake);
            prop_assert!(new.len() <= records_max);
            prop_assert!(new.iter().all(|(at, value)| at == value && *at < until));
            read.extend(new.into_iter().map(|(at, _)| at));
            prop_assert!(progress.position >= told);
            prop_assert!(progress.position <= until.max(told));
            told = progress.position;
            let before = all.iter().copied().filter(|at| *at < told).collect::<Vec<_>>();
            prop_assert_eq!(&read, &before);
            let left = offsets(&log[..there]).into_iter().find(|at| *at >= told && *at < until);
            if !progress.more && let Some(left) = left {
                // Left though nobody will come back for it: only a wait does that. It may just have run out.
                prop_assert!(records.0.iter().any(|(at, _)| *at == left), "{left} is left behind");
            }
            if progress.at_end {
                prop_assert!(left.is_none());
            }
        }
        prop_assert_eq!(read, all);
        prop_assert_eq!(told, end);
        prop_assert_eq!(faults, log.iter().filter(|step| matches!(step, Step::Fault)).count());
    }
}

#[test]
fn a_position_passes_the_hole_before_the_next_record() {
    let steps = vec![Step::Record(5), Step::Record(9), Step::End(12)];
    let mut partition = PartitionReader::new(
        Script {
            steps,
            arrived: Rc::new(RefCell::new(3)),
            fetched: 0,
            popped: 0,
        },
        5,
    );
    let mut read = |until| {
        let progress = partition
            .read(until, 10, &mut Waits(vec![]), &mut intake(), |_| Ok(()))
            .unwrap();
        (progress.position, progress.at_end)
    };
    assert_eq!(read(8), (8, false));
    assert_eq!(read(11), (11, true));
    assert_eq!(read(8), (11, true));
    assert_eq!(read(Offset::MAX), (12, true));
}

#[test]
fn a_log_that_goes_back_is_an_error() {
    let steps = vec![Step::Record(5), Step::Record(5)];
    let mut partition = PartitionReader::new(
        Script {
            steps,
            arrived: Rc::new(RefCell::new(2)),
            fetched: 0,
            popped: 0,
        },
        5,
    );
    let error = partition
        .read(9, 9, &mut Waits(vec![]), &mut intake(), |_| Ok(()))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
}

#[test]
fn faults_that_lose_records_halt_and_others_do_not() {
    let status = ClientStatus::default();
    let fault = |code: Code| PartitionFault {
        code: code as i32,
        offset: 7,
        text: "why".to_owned(),
    };
    let kind = |code| {
        let judge = FaultClassifier {
            topic: "orders",
            partition: 3,
            status: &status,
            consumer: None,
        };
        judge.judge(fault(code)).err().map(|error| error.kind())
    };
    assert_eq!(
        kind(Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET),
        Some(Kind::Integrity)
    );
    assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__BAD_MSG), Some(Kind::Integrity));
    assert_eq!(
        kind(Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART),
        Some(Kind::External)
    );
    assert_eq!(status.trouble(), None);
    assert_eq!(kind(Code::RD_KAFKA_RESP_ERR__TRANSPORT), None);
    assert_eq!(
        status.trouble().as_deref(),
        Some("topic `orders`, partition 3, offset 7: why")
    );
}

// ---- the whole reader, against the mock cluster
// --------------------------------------------------------------------

const PATIENCE: Duration = Duration::from_secs(30);

struct Rig<T> {
    reader: Box<dyn Reader<T>>,
    driver: Arc<dyn Driver>,
    wakes: Receiver<()>,
}

impl<T: 'static> Rig<T> {
    fn new(opened: OpenedSource<T>) -> Self {
        let (woken, wakes) = channel();
        let waker = Waker::new(move || woken.send(()).unwrap_or(()));
        Self {
            reader: (opened.reader)(waker).unwrap(),
            driver: opened.driver,
            wakes,
        }
    }

    /// Reads on, and waits for a wake-up whenever there is nothing more, until `done`.
    fn read_until(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
        done: impl Fn(&ReadProgress) -> bool,
    ) -> ReadProgress {
        loop {
            let progress = self.reader.read(partition, until, records_max, intake).unwrap();
            if done(&progress) {
                return progress;
            }
            if !progress.more {
                self.wakes.recv_timeout(PATIENCE).expect("a wake-up");
            }
        }
    }
}

fn orders() -> Topic<u64> {
    Kafka::topic("orders").json()
}

fn environment(broker: &EmbeddedBroker) -> Environment {
    // The mock does not answer a fetch early when a record arrives.
    let kafka = KafkaSettings {
        properties: vec![("fetch.wait.max.ms".to_owned(), "5".to_owned())],
        ..KafkaSettings::at(broker.bootstrap_servers())
    };
    Environment {
        connectors: Extensions::of(kafka),
        ..Environment::default()
    }
}

fn rig(broker: &EmbeddedBroker) -> Rig<u64> {
    Rig::new(Source::open(orders(), &environment(broker)).unwrap())
}

/// A broker with a topic `orders`, and numbers in its partitions.
fn broker(partitions: &[u64]) -> (EmbeddedBroker, Producer) {
    let broker = EmbeddedBroker::start(1).unwrap();
    broker.create_topic("orders", partitions.len() as u32).unwrap();
    let producer = Producer::new(&broker.bootstrap_servers()).unwrap();
    for (partition, records) in (0u32..).zip(partitions) {
        for number in 0..*records {
            write(&producer, partition, number);
        }
    }
    producer.flush(PATIENCE).unwrap();
    (broker, producer)
}

fn write(producer: &Producer, partition: u32, number: u64) {
    let at = EventTime::from_millis(1_000 + number as i64);
    producer
        .send("orders", partition, at, None, Some(number.to_string().as_bytes()))
        .unwrap();
}

#[test]
fn reads_every_record_once_with_its_timestamp() {
    let (broker, _producer) = broker(&[3_000, 0, 1]);
    let mut rig = rig(&broker);
    for partition in 0..3 {
        rig.reader.assign(partition, 0).unwrap();
    }
    let mut hashes = Vec::new();
    for (partition, records) in [(0, 3_000), (1, 0), (2, 1)] {
        let mut intake = intake();
        let progress = rig.read_until(partition, Offset::MAX, 1_000, &mut intake, |p| p.at_end);
        assert_eq!(
            progress,
            ReadProgress {
                position: records,
                at_end: true,
                more: false
            }
        );
        assert_eq!(
            intake.event_time_max,
            if records == 0 {
                EventTime::MIN
            } else {
                EventTime::from_millis(999 + records)
            }
        );
        hashes.push(intake.hash);
        let expected = (0..records).map(|at| (at, at as u64)).collect::<Vec<_>>();
        assert_eq!(taken(&mut intake), expected);
    }
    assert_eq!(hashes[1], 0);
    rig.reader.show_progress(&[(0, 3_000), (2, 1)]);
}

#[test]
fn random_untils_read_what_one_pass_reads() {
    let (broker, _producer) = broker(&[2_500]);
    let whole = {
        let (mut rig, mut intake) = (rig(&broker), intake());
        rig.reader.assign(0, 100).unwrap();
        rig.read_until(0, Offset::MAX, usize::MAX, &mut intake, |p| p.at_end);
        (intake.hash, taken(&mut intake))
    };
    let mut seed = 7u64;
    let mut random = |below: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..4 {
        let (mut rig, mut intake) = (rig(&broker), intake());
        rig.reader.assign(0, 100).unwrap();
        let mut until = 100;
        while until < 2_500 {
            until = (until + random(700) as Offset).min(2_500);
            let most = 1 + random(900) as usize;
            let progress = rig.read_until(0, until, most, &mut intake, |p| p.position == until);
            assert!(!progress.more || progress.at_end || until == 2_500);
        }
        rig.read_until(0, Offset::MAX, usize::MAX, &mut intake, |p| p.at_end);
        assert_eq!((intake.hash, taken(&mut intake)), whole);
        // Goes with messages still held, which must not hang or leak the consumer.
    }
}

#[test]
fn no_wake_up_is_lost() {
    let (broker, producer) = broker(&[0]);
    let (mut rig, mut intake) = (rig(&broker), intake());
    rig.reader.assign(0, 0).unwrap();
    rig.read_until(0, Offset::MAX, 10, &mut intake, |p| p.at_end);
    for number in 0..90u64 {
        write(&producer, 0, number);
        if number % 3 == 0 {
            producer.flush(PATIENCE).unwrap();
        }
        if number % 3 != 1 {
            producer.flush(PATIENCE).unwrap();
            rig.read_until(0, Offset::MAX, 10, &mut intake, |p| p.position > number as Offset);
        }
    }
    assert_eq!(taken(&mut intake).len(), 90);
}

#[test]
fn a_partition_is_read_without_the_others() {
    let (broker, _producer) = broker(&[5_000, 50]);
    let (mut rig, mut intake) = (rig(&broker), intake());
    rig.reader.assign(0, 0).unwrap();
    rig.reader.assign(1, 0).unwrap();
    rig.read_until(1, Offset::MAX, 1_000, &mut intake, |p| p.at_end);
    assert_eq!(taken(&mut intake).len(), 50);
    rig.read_until(0, Offset::MAX, 1_000, &mut intake, |p| p.at_end);
    assert_eq!(taken(&mut intake).len(), 5_000);
}

#[test]
fn a_partition_assigned_later_is_read_too() {
    let (broker, _producer) = broker(&[20, 30]);
    let (mut rig, mut intake) = (rig(&broker), intake());
    rig.reader.assign(0, 5).unwrap();
    rig.read_until(0, Offset::MAX, 1_000, &mut intake, |p| p.at_end);
    rig.reader.assign(1, 0).unwrap();
    assert!(rig.reader.assign(1, 0).is_err());
    rig.read_until(1, Offset::MAX, 1_000, &mut intake, |p| p.at_end);
    assert_eq!(taken(&mut intake).len(), 45);
    assert!(rig.reader.read(2, 1, 1, &mut intake).is_err());
}

#[test]
fn what_retention_took_is_named() {
    let (broker, producer) = broker(&[0]);
    // A mock partition keeps 5 MB.
    let large = serde_json::to_vec(&"x".repeat(500_000)).unwrap();
    for _ in 0..24 {
        producer
            .send("orders", 0, EventTime(0), None, Some(&large))
            .unwrap();
        producer.flush(PATIENCE).unwrap();
    }
    let (mut rig, mut intake) = (rig(&broker), intake());
    let bounds = rig.driver.topology().unwrap().partitions[0];
    assert!(bounds.start > 0 && bounds.end == 24, "{bounds:?}");
    rig.reader.assign(0, 0).unwrap();
    let error = loop {
        match rig.reader.read(0, Offset::MAX, 10, &mut intake) {
            Err(error) => break error,
            Ok(progress) if progress.more => {}
            Ok(_) => rig.wakes.recv_timeout(PATIENCE).expect("a wake-up"),
        }
    };
    assert_eq!(error.kind(), Kind::Integrity);
    let named = format!("partition 0 holds offsets {} to 24, 0 is needed", bounds.start);
    assert!(error.to_string().contains(&named), "{error}");
}

#[test]
fn a_broker_that_goes_and_comes_is_no_error() {
    let (broker, producer) = broker(&[10]);
    let (mut rig, mut intake) = (rig(&broker), intake());
    rig.reader.assign(0, 0).unwrap();
    rig.read_until(0, Offset::MAX, 10, &mut intake, |p| p.at_end);
    broker.stop_broker(1).unwrap();
    while rig.driver.trouble().is_none() {
        rig.wakes.recv_timeout(PATIENCE).expect("a wake-up");
        rig.reader.read(0, Offset::MAX, 10, &mut intake).unwrap();
    }
    broker.resume_broker(1).unwrap();
    write(&producer, 0, 10);
    producer.flush(PATIENCE).unwrap();
    rig.read_until(0, Offset::MAX, 10, &mut intake, |p| p.position == 11);
    assert_eq!(rig.driver.trouble(), None);
    assert_eq!(taken(&mut intake).len(), 11);
}

#[test]
fn the_settings_say_what_deletes_in_place_of_the_dataflow() {
    let (broker, producer) = broker(&[0]);
    for payload in [&b"10"[..], b"null", b""] {
        producer
            .send("orders", 0, EventTime(0), Some(b"1"), Some(payload))
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let deleted = |said: Option<Deletes>| {
        let mut environment = environment(&broker);
        environment.overrides.connector = Extensions::of(TopicSettings {
            deletes: said,
            ..TopicSettings::default()
        });
        let keyed: KeyedTopic<u32, u64> = orders().keyed().deletes(Deletes::Tombstone);
        let (mut rig, mut intake) = (
            Rig::new(UpsertSource::open(keyed, &environment).unwrap()),
            intake(),
        );
        rig.reader.assign(0, 0).unwrap();
        rig.read_until(0, Offset::MAX, 10, &mut intake, |p| p.at_end);
        let events = intake.take(Vec::new()).0.into_iter();
        events.filter(|event| event.value.1.is_none()).count()
    };
    assert_eq!(
        [None, Some(Deletes::Null), Some(Deletes::NullOrEmpty)].map(deleted),
        [0, 1, 2]
    );
}

#[test]
fn keys_tombstones_and_what_cannot_be_decoded() {
    let (broker, producer) = broker(&[0]);
    let records: [(Option<&[u8]>, Option<&[u8]>); 6] = [
        (Some(b"1"), Some(b"10")),
        (Some(b"1"), None),
        (None, Some(b"10")),
        (Some(b"x"), Some(b"10")),
        (Some(b"2"), Some(b"1x")),
        (Some(b""), Some(b"")),
    ];
    for (key, payload) in records {
        producer.send("orders", 0, EventTime(0), key, payload).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let keyed: KeyedTopic<u32, u64> = orders().keyed().key_json();
    let opened = UpsertSource::open(keyed, &environment(&broker)).unwrap();
    assert!(!opened.rules.timed);
    let (mut rig, mut intake) = (Rig::new(opened), intake());
    rig.reader.assign(0, 0).unwrap();
    rig.read_until(0, Offset::MAX, 10, &mut intake, |p| p.at_end);
    let (events, dead) = intake.take(Vec::new());
    assert_eq!(
        events.iter().map(|e| e.value).collect::<Vec<_>>(),
        [(1, Some(10)), (1, None)]
    );
    let causes = dead
        .iter()
        .map(|d| (d.at.offset, d.cause, d.payload.is_some()))
        .collect::<Vec<_>>();
    let expected = [
        (2, Cause::KeyMissing, true),
        (3, Cause::KeyInvalid, true),
        (4, Cause::JsonSyntax, true),
        (5, Cause::KeyInvalid, true),
    ];
    assert_eq!(causes, expected);
    assert_eq!(dead[3].key.as_deref(), Some(&b""[..]));
}

#[test]
fn a_decoder_that_waits_holds_its_partition_and_no_other() {
    struct Gate(Arc<AtomicBool>);
    impl Decode<u64> for Gate {
        fn decode(&mut self, bytes: &[u8]) -> Decoded<u64> {
            match serde_json::from_slice(bytes) {
                Ok(7) if !self.0.load(Ordering::Acquire) => Decoded::Wait,
                Ok(number) => Decoded::Value(number),
                Err(_) => Decoded::Dead(Cause::JsonSyntax, None),
            }
        }
    }
    let (broker, _producer) = broker(&[20, 5]);
    let (open, status) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(ClientStatus::default()),
    );
    let (woken, wakes) = channel();
    let waker = Waker::new(move || woken.send(()).unwrap_or(()));
    let records = Payload(Box::new(Gate(open.clone())));
    let subscription = Subscription::new("orders".into(), &environment(&broker), status, waker);
    let reader = KafkaReader::new(subscription, records);
    let driver = Source::open(orders(), &environment(&broker)).unwrap().driver;
    let (mut rig, mut intake) = (
        Rig {
            reader: Box::new(reader),
            driver,
            wakes,
        },
        intake(),
    );
    rig.reader.assign(0, 0).unwrap();
    rig.reader.assign(1, 0).unwrap();
    let held = rig.read_until(0, Offset::MAX, 100, &mut intake, |p| p.position == 7);
    assert_eq!((held.at_end, held.more), (false, false));
    rig.read_until(1, Offset::MAX, 100, &mut intake, |p| p.at_end);
    assert_eq!(rig.reader.read(0, Offset::MAX, 100, &mut intake).unwrap(), held);
    assert_eq!(taken(&mut intake).len(), 12);
    open.store(true, Ordering::Release);
    rig.read_until(0, Offset::MAX, 100, &mut intake, |p| p.at_end);
    assert_eq!(taken(&mut intake).len(), 13);
}

#[test]
fn a_topology_names_partitions_bounds_and_the_topic() {
    let (broker, _producer) = broker(&[12, 0]);
    broker.create_topic("others", 1).unwrap();
    let seen = rig(&broker).driver.topology().unwrap();
    let bounds = seen
        .partitions
        .iter()
        .map(|p| (p.partition, p.start, p.end))
        .collect::<Vec<_>>();
    assert_eq!(bounds, [(0, 0, 12), (1, 0, 0)]);
    let others = Source::<u64>::open(Kafka::topic("others").json(), &environment(&broker)).unwrap();
    let other = others.driver.topology().unwrap();
    assert!(seen.topic != other.topic && seen.topic != Default::default());
    assert_eq!(seen, rig(&broker).driver.topology().unwrap());
}

#[test]
fn a_missing_topic_and_a_missing_broker_are_named() {
    let broker = EmbeddedBroker::start(1).unwrap();
    broker.create_topic("orders", 1).unwrap();
    let absent = Source::<u64>::open(Kafka::topic("absent").json(), &environment(&broker)).unwrap();
    let error = absent.driver.topology().unwrap_err();
    assert_eq!(error.what(), "there is no topic `absent`");
    assert!(error.to_string().contains(&broker.bootstrap_servers()));
    let nowhere = Environment {
        connectors: Extensions::of(KafkaSettings::at("127.0.0.1:1".to_owned())),
        ..Environment::default()
    };
    let error = Source::open(orders(), &nowhere)
        .unwrap()
        .driver
        .topology()
        .unwrap_err();
    assert_eq!(error.what(), "cannot reach Kafka at 127.0.0.1:1");
    assert_eq!(error.kind(), Kind::External);
}

#[test]
fn a_record_that_cannot_be_delivered_shows() {
    let (broker, producer) = broker(&[0]);
    // Told by whichever of the two calls comes after the client has found out.
    let sent = producer.send("orders", 9, EventTime(0), None, Some(b"1"));
    let told = sent.and_then(|()| producer.flush(PATIENCE));
    assert_eq!(told.unwrap_err().kind(), Kind::External);
    drop(broker);
}
