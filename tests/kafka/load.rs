//! What is written to the topics: payments and merchants, good and bad, from a seed.
//!
//! Avro is written by hand here: neither the engine's encoder nor the oracle's library has a part in it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::PATIENCE;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

pub const PAYMENT: &str = r#"{"type":"record","name":"Payment","fields":[{"name":"id","type":"long"},{"name":"merchant","type":"int"},{"name":"cents","type":"long"},{"name":"at_ms","type":"long"}]}"#;
/// What another producer writes: other fields, in another order.
pub const PAYMENT_NOTED: &str = r#"{"type":"record","name":"Payment","fields":[{"name":"at_ms","type":"long"},{"name":"note","type":["null","string"],"default":null},{"name":"cents","type":"long"},{"name":"tags","type":{"type":"array","items":"string"},"default":[]},{"name":"merchant","type":"int"},{"name":"id","type":"long"}]}"#;
pub const MERCHANT: &str = r#"{"type":"record","name":"Merchant","fields":[{"name":"name","type":"string"},{"name":"country","type":"string"}]}"#;
pub const MERCHANT_KEY: &str = r#""int""#;

/// Event times begin here: 2023-11-14T22:00:00Z, a full hour.
pub const BEGIN_MS: i64 = 1_700_000_400_000 - 1_200_000;
pub const MERCHANTS: u32 = 60;

/// Numbers that look random and are the same for a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The topics of one test, with the ids of their schemas.
pub struct Topics<'a> {
    pub broker: &'a Broker,
    pub payments: String,
    pub merchants: String,
    /// Schemas by id, as far as this test has registered them.
    pub schemas: BTreeMap<u32, &'static str>,
    payment: u32,
    noted: u32,
    merchant: u32,
    merchant_key: u32,
    /// One for all that is written: a new one takes its time to connect.
    producer: BaseProducer,
    /// Where each partition ends, by topic and number.
    ends: Mutex<BTreeMap<(String, i32), i64>>,
}

/// A record's key and payload, and its time in milliseconds.
pub type Written = (Option<Vec<u8>>, Option<Vec<u8>>, i64);

impl<'a> Topics<'a> {
    /// Makes `<name>.payments` with four partitions and `<name>.merchants` with two.
    pub fn make(broker: &'a Broker, registry: &Registry, name: &str) -> Self {
        let (payments, merchants) = (format!("{name}.payments"), format!("{name}.merchants"));
        broker.create_topic(&payments, 4);
        broker.create_topic(&merchants, 2);
        let register = |subject: String, text| {
            u32::try_from(registry.register(&subject, text)).expect("ids are positive")
        };
        let payment = register(format!("{payments}-value"), PAYMENT);
        let noted = register(format!("{payments}-value"), PAYMENT_NOTED);
        let merchant = register(format!("{merchants}-value"), MERCHANT);
        let merchant_key = register(format!("{merchants}-key"), MERCHANT_KEY);
        let schemas = BTreeMap::from([
            (payment, PAYMENT),
            (noted, PAYMENT_NOTED),
            (merchant, MERCHANT),
            (merchant_key, MERCHANT_KEY),
        ]);
        let mut config = broker.client();
        // Idempotent, so that a retry neither doubles nor reorders.
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", "200000");
        let producer = BaseProducer::from_config(&config).expect("the producer's configuration is right");
        Self {
            producer,
            broker,
            payments,
            merchants,
            schemas,
            payment,
            noted,
            merchant,
            merchant_key,
            ends: Mutex::default(),
        }
    }

    /// Writes `records` to a partition, and returns when all are acknowledged.
    pub fn write(&self, topic: &str, partition: i32, records: &[Written]) {
        for (key, payload, at_ms) in records {
            let mut record = BaseRecord::<[u8], [u8]>::to(topic)
                .partition(partition)
                .timestamp(*at_ms);
            (record.key, record.payload) = (key.as_deref(), payload.as_deref());
            while let Err((error, refused)) = self.producer.send(record) {
                assert_eq!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::QueueFull),
                    "{error}"
                );
                self.producer.poll(Duration::from_millis(10));
                record = refused;
            }
        }
        // Its own `flush` looks ten times a second.
        let deadline = Instant::now() + PATIENCE;
        while self.producer.in_flight_count() > 0 {
            assert!(
                Instant::now() < deadline,
                "{topic}-{partition}: not acknowledged within {PATIENCE:?}"
            );
            self.producer.poll(Duration::from_millis(1));
        }
        let mut ends = self.ends.lock().expect("nobody panics");
        *ends.entry((topic.to_owned(), partition)).or_insert(0) += records.len() as i64;
    }

    /// Where each partition of a topic ends that anything was written to.
    pub fn ends(&self, topic: &str) -> Vec<(u32, i64)> {
        let ends = self.ends.lock().expect("nobody panics");
        ends.iter()
            .filter(|((name, _), _)| name == topic)
            .map(|((_, p), end)| (*p as u32, *end))
            .collect()
    }

    /// Registers a further schema of the payments.
    pub fn register(&mut self, registry: &Registry, text: &'static str) -> u32 {
        let id = registry.register(&format!("{}-value", self.payments), text);
        let id = u32::try_from(id).expect("ids are positive");
        self.schemas.insert(id, text);
        id
    }

    /// Merchants come, change and go; a few of their records are broken.
    pub fn write_merchants(&self, random: &mut Random, records: usize) {
        let mut partitions = [const { Vec::new() }; 2];
        for n in 0..records {
            let id = random.below(u64::from(MERCHANTS)) as u32;
            let key = framed(self.merchant_key, |out| long(out, i64::from(id)));
            let value = framed(self.merchant, |out| {
                text(out, &format!("merchant {id}, revision {n}"));
                text(out, ["de", "fr", "pl"][random.below(3) as usize]);
            });
            let (key, value) = match random.below(40) {
                0..6 => (Some(key), None),
                6 => (None, Some(value)),
                7 => (Some(b"\0\0".to_vec()), Some(value)),
                8 => (Some(key), Some(value[..value.len() - 1].to_vec())),
                9 => (Some(framed(self.merchant_key, |out| long(out, -7))), Some(value)),
                _ => (Some(key), Some(value)),
            };
            partitions[(id % 2) as usize].push((key, value, BEGIN_MS + n as i64));
        }
        for (partition, records) in partitions.iter().enumerate() {
            self.write(&self.merchants, partition as i32, records);
        }
    }
}

/// Makes the payments of one partition, in steps: event times go on where the last step ended.
pub struct Till {
    random: Random,
    partition: u64,
    at_ms: i64,
    /// On average from one event to the next.
    step_ms: i64,
    made: i64,
}

impl Till {
    pub fn new(seed: u64, partition: u64, step_ms: i64) -> Self {
        Self {
            random: Random(seed ^ (partition << 32)),
            partition,
            at_ms: BEGIN_MS,
            step_ms,
            made: 0,
        }
    }

    /// The next records.
    pub fn take(&mut self, topics: &Topics<'_>, records: usize) -> Vec<Written> {
        (0..records).map(|_| self.one(topics)).collect()
    }

    /// A good record of a time of one's choosing: the last one.
    pub fn last(&mut self, topics: &Topics<'_>, at_ms: i64) -> Written {
        self.made += 1;
        let id = self.made * 4 + self.partition as i64;
        let payload = framed(topics.payment, |out| {
            [id, 1, 100, at_ms].into_iter().for_each(|n| long(out, n));
        });
        (Some(id.to_string().into_bytes()), Some(payload), at_ms)
    }

    fn one(&mut self, topics: &Topics<'_>) -> Written {
        let random = &mut self.random;
        self.made += 1;
        self.at_ms += random.below(2 * self.step_ms as u64 + 1) as i64;
        let mut at = self.at_ms;
        match random.below(200) {
            // Behind, but as far as is allowed.
            0..20 => at -= random.below(5_000) as i64,
            // So far behind that its window has closed, mostly.
            20..23 => at -= 5_000 + random.below(240_000) as i64,
            _ => {}
        }
        let id = self.made * 4 + self.partition as i64;
        // A few merchants have most of the payments.
        let merchant = random
            .below(u64::from(MERCHANTS))
            .min(random.below(u64::from(MERCHANTS))) as i64;
        let cents = random.below(1_000_000) as i64 - 5_000;
        let noted = random.one_in(3);
        let mut payment = |schema: u32, merchant: i64, at: i64| {
            framed(schema, |out| {
                if noted {
                    long(out, at);
                    if random.one_in(2) {
                        long(out, 1);
                        text(out, "gift für Zoë");
                    } else {
                        long(out, 0);
                    }
                    long(out, cents);
                    let tags = random.below(3);
                    if tags > 0 {
                        long(out, tags as i64);
                        (0..tags).for_each(|_| text(out, "tag"));
                    }
                    long(out, 0);
                    long(out, merchant);
                    long(out, id);
                } else {
                    [id, merchant, cents, at].into_iter().for_each(|n| long(out, n));
                }
            })
        };
        let schema = if noted { topics.noted } else { topics.payment };
        let good = payment(schema, merchant, at);
        let key = Some(id.to_string().into_bytes());
        let payload = match self.partition {
            // Producers fail each in its own way, but all of them fail.
            _ if self.made % 100 != 50 => Some(good),
            _ => match self.made / 100 % 12 {
                0 => None,
                1 => Some(Vec::new()),
                2 => Some(good[..3].to_vec()),
                3 => Some(good[..5 + (good.len() - 5) / 2].to_vec()),
                4 => Some([&[7], &good[1..]].concat()),
                5 => Some(br#"{"id":7}"#.to_vec()),
                6 => Some(payment(3_000_000_000 + id as u32 % 3, merchant, at)),
                7 => Some(
                    [
                        &good[..5],
                        &self.random.next().to_le_bytes(),
                        // No number of ten bytes: the oracle's library drops what is beyond 64 bits, the
                        // engine calls it invalid.
                        &(self.random.next() & !0x80).to_le_bytes(),
                    ]
                    .concat(),
                ),
                8 => Some([&good[..], &[0]].concat()),
                9 => Some(payment(schema, merchant, 7_258_118_400_000)),
                10 => Some(payment(schema, merchant, -99_999_999_999_999)),
                _ => Some(payment(schema, -1 - merchant, at)),
            },
        };
        (key, payload, self.at_ms)
    }
}

/// The wire format of Confluent's serializers.
pub fn framed(schema: u32, datum: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(schema.to_be_bytes());
    datum(&mut out);
    out
}

/// Avro's int and long: zigzag, then seven bits a byte.
pub fn long(out: &mut Vec<u8>, n: i64) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    long(out, text.len() as i64);
    out.extend(text.as_bytes());
}
