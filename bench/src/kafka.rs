//! Topics to measure with, and the bare drain that Thalweg is held against.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use rdkafka_sys as sys;
use thalweg::{Error, Result};

use crate::events::{Event, PARTITIONS};
use crate::measure::{Meter, Used};

const WAIT: Duration = Duration::from_secs(10);

/// Settings shared by all clients.
pub fn config(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Makes a topic with [`PARTITIONS`] partitions; `false` if it was there.
pub fn make_topic(servers: &str, topic: &str) -> Result<bool> {
    let admin: AdminClient<DefaultClientContext> = config(servers).create()?;
    let new = NewTopic::new(topic, PARTITIONS as i32, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let options = AdminOptions::new().operation_timeout(Some(WAIT));
    for outcome in runtime.block_on(admin.create_topics([&new], &options))? {
        match outcome {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
            Err((name, code)) => {
                return Err(Error::external(format!("cannot make topic `{name}`")).detail(code));
            }
        }
    }
    Ok(true)
}

/// Deletes a topic.
pub fn delete_topic(servers: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(servers).create()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(admin.delete_topics(&[topic], &AdminOptions::new()))?;
    Ok(())
}

/// How many records each partition holds.
fn ends(servers: &str, topic: &str) -> Result<Vec<i64>> {
    let consumer: BaseConsumer = config(servers).create()?;
    let end = |partition: i32| Ok(consumer.fetch_watermarks(topic, partition, WAIT)?.1);
    (0..PARTITIONS as i32).map(end).collect()
}

/// The topic with these events as JSON, made and filled if it is not there yet.
pub fn events_topic(servers: &str, events: u64, keys: u64) -> Result<String> {
    let topic = format!("bench.tumble.k{keys}.n{events}.v1");
    if !make_topic(servers, &topic)? {
        let found: i64 = ends(servers, &topic)?.iter().sum();
        return match found as u64 == events {
            true => Ok(topic),
            false => Err(
                Error::definition(format!("topic `{topic}` holds {found} records"))
                    .hint("delete it: it was left half filled"),
            ),
        };
    }
    eprintln!("filling topic `{topic}`");
    let producer: BaseProducer = config(servers)
        .set("enable.idempotence", "true")
        .set("queue.buffering.max.messages", "500000")
        .set("linger.ms", "5")
        .create()?;
    let mut payload = Vec::new();
    for i in 0..events {
        payload.clear();
        serde_json::to_writer(&mut payload, &Event::nth(i, keys))?;
        send(&producer, &topic, i, &payload)?;
    }
    producer.flush(Duration::from_secs(60))?;
    Ok(topic)
}

/// Sends a record to the partition whose turn it is; waits while the producer's queue is full.
pub fn send(producer: &BaseProducer, topic: &str, i: u64, payload: &[u8]) -> Result<()> {
    let record = BaseRecord::<(), [u8]>::to(topic)
        .partition((i as usize % PARTITIONS) as i32)
        .payload(payload);
    let mut record = match producer.send(record) {
        Ok(()) => return Ok(()),
        Err((_, record)) => record,
    };
    loop {
        producer.poll(Duration::from_millis(1));
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => record = again,
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// A consumer of a whole topic, with the settings of Thalweg's own reader.
fn consumer(servers: &str, topic: &str) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = config(servers)
        .set("group.id", "bench")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "16777216")
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", (100_000 / PARTITIONS).to_string())
        .set("queued.max.messages.kbytes", (32 * 1024 / PARTITIONS).to_string())
        .set("socket.nagle.disable", "true")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition as i32, Offset::Offset(0))?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Reads a whole topic on one thread, as fast as librdkafka's batch call gives it, and decodes the JSON:
/// nothing else.
///
/// The consumer's settings are those of Thalweg's own reader. Returns the sum of all amounts, as a proof of
/// work.
pub fn drain(servers: &str, topic: &str, events: u64) -> Result<(i64, Used)> {
    let meter = Meter::start();
    let consumer = Arc::new(consumer(servers, topic)?);
    let (mut left, mut sum) = (events, 0i64);
    let mut messages = Vec::with_capacity(BATCH);
    // SAFETY: the client is alive to the end of this function, and the queue is destroyed before it.
    let queue = unsafe { sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    while left > 0 {
        // A batch that is larger than what is left would wait in vain.
        let batch = BATCH.min(left as usize);
        // SAFETY: there is room for `batch` pointers, of which librdkafka writes the first `count`; they are
        // ours.
        let count = unsafe {
            messages.clear();
            let count = sys::rd_kafka_consume_batch_queue(queue, 10, messages.as_mut_ptr(), batch);
            messages.set_len(usize::try_from(count).unwrap_or(0));
            messages.len()
        };
        for &message in &messages[..count] {
            // SAFETY: the message is ours, destroyed once, and its payload lives as long as it.
            unsafe {
                let message: *mut sys::rd_kafka_message_t = message;
                if (&raw const (*message).err).cast::<i32>().read() == 0 {
                    let payload = std::slice::from_raw_parts((*message).payload.cast::<u8>(), (*message).len);
                    sum += serde_json::from_slice::<Event>(payload)?.amount;
                    left -= 1;
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
    }
    meter.stop();
    // SAFETY: ours, and used no more.
    unsafe { sys::rd_kafka_queue_destroy(queue) };
    Ok((sum, meter.used()?))
}

const BATCH: usize = 4096;

/// Reads so many records of a topic as they come, and says of each partition and offset.
pub fn follow(servers: &str, topic: &str, events: u64, mut heard: impl FnMut(usize, u64)) -> Result<()> {
    let consumer = consumer(servers, topic)?;
    let mut left = events;
    while left > 0 {
        let Some(record) = consumer.poll(WAIT) else {
            return Err(Error::external(format!("nothing new in {topic} for {WAIT:?}")));
        };
        let record = match record {
            Err(KafkaError::PartitionEOF(_)) => continue,
            record => record?,
        };
        left -= 1;
        heard(record.partition() as usize, record.offset() as u64);
    }
    Ok(())
}
