//! Topics as the broker has them, for whoever sets them up: how many partitions, how much arrives; and new
//! ones.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic as Wanted, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::config;
use super::settings::KafkaSettings;
use crate::clock;
use crate::error::{Error, Result};

/// For one request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many of the newest records of a topic say how large its records are.
const SAMPLE: i64 = 500;
/// What a record costs in the log besides its key and payload, about.
const RECORD_BYTES_MORE: usize = 10;

/// A topic as the broker has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopicInfo {
    /// How many partitions.
    pub partitions: usize,
    /// Offsets between the partitions' starts and ends.
    pub records: u64,
    /// Records that arrived a second while it was looked at; zero without a measurement.
    pub records_per_second: f64,
    /// Mean size of the newest records; `None` where nothing arrived, or they could not be read.
    pub record_bytes: Option<f64>,
}

/// A topic to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None`: as many as the broker makes.
    pub partitions: Option<usize>,
    /// How many copies; `None`: what the broker makes.
    pub replication: Option<u16>,
    /// Settings of the topic.
    pub config: Vec<(String, String)>,
}

/// Looks at topics, for `over` to see what arrives; `None` for one that is not there. Blocks.
pub(crate) fn look(
    kafka: &KafkaSettings,
    topics: &[String],
    over: Duration,
) -> Result<Vec<Option<TopicInfo>>> {
    let mut config = config::driver(kafka)?;
    config
        .set("group.id", "thalweg-topics")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    let unseen = |error: KafkaError| {
        Error::external(format!(
            "cannot look at the topics of Kafka at {}",
            kafka.bootstrap
        ))
        .detail(error)
        .hint("is it running, and is that its address?")
    };
    let client: BaseConsumer = config.create().map_err(unseen)?;
    let ends = |topic: &str| -> Result<Option<PartitionBounds>, KafkaError> {
        let Some(found) = partitions(&client, topic)? else {
            return Ok(None);
        };
        let bounds = found.into_iter().map(|partition| {
            let (start, end) = client.fetch_watermarks(topic, partition, PATIENCE)?;
            Ok((partition, start, end))
        });
        bounds.collect::<Result<_, _>>().map(Some)
    };
    let all = || {
        topics
            .iter()
            .map(|topic| ends(topic))
            .collect::<Result<Vec<_>, _>>()
    };
    let before = all().map_err(unseen)?;
    let began = clock::instant();
    let after = if over.is_zero() {
        before.clone()
    } else {
        std::thread::sleep(over);
        all().map_err(unseen)?
    };
    let seconds = (clock::instant() - began).as_secs_f64().max(0.001);
    let mut seen = Vec::with_capacity(topics.len());
    for ((topic, before), after) in topics.iter().zip(before).zip(after) {
        let Some(after) = after else {
            seen.push(None);
            continue;
        };
        let end = |bounds: &PartitionBounds| bounds.iter().map(|(_, _, end)| *end).sum::<i64>();
        let arrived = before.map_or(0, |before| end(&after) - end(&before)).max(0);
        seen.push(Some(TopicInfo {
            partitions: after.len(),
            records: after
                .iter()
                .map(|(_, start, end)| (end - start).max(0) as u64)
                .sum(),
            records_per_second: arrived as f64 / seconds,
            record_bytes: match arrived {
                0 => None,
                _ => sample(&client, topic, &after).map_err(unseen)?,
            },
        }));
    }
    Ok(seen)
}

/// The partitions of a topic; `None`: it is not there.
pub(super) fn partitions(client: &BaseConsumer, topic: &str) -> Result<Option<Vec<i32>>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), PATIENCE)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none());
    Ok(found.map(|found| {
        found
            .partitions()
            .iter()
            .map(|partition| partition.id())
            .collect()
    }))
}

/// Number, start and end of each partition.
type PartitionBounds = Vec<(i32, i64, i64)>;

/// Mean size of the newest records of a topic.
fn sample(client: &BaseConsumer, topic: &str, bounds: &PartitionBounds) -> Result<Option<f64>, KafkaError> {
    let each = (SAMPLE / bounds.len().max(1) as i64).max(1);
    let mut list = TopicPartitionList::new();
    for (partition, start, end) in bounds.iter().filter(|(_, start, end)| start < end) {
        let from = (end - each).max(*start);
        list.add_partition_offset(topic, *partition, Offset::Offset(from))?;
    }
    let mut reading = list.count();
    client.assign(&list)?;
    let (mut bytes, mut records) = (0, 0usize);
    let until = clock::instant() + PATIENCE;
    while reading > 0 && clock::instant() < until && records < 2 * SAMPLE as usize {
        match client.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(record)) => {
                bytes += record.key_len() + record.payload_len() + RECORD_BYTES_MORE;
                records += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => reading -= 1,
            Some(Err(error)) => return Err(error),
        }
    }
    client.unassign()?;
    Ok((records > 0).then(|| bytes as f64 / records as f64))
}

/// Makes topics; one that is there already is an error. To be awaited on a tokio runtime.
pub(crate) async fn create(kafka: &KafkaSettings, topics: &[NewTopic]) -> Result<()> {
    if topics.is_empty() {
        return Ok(());
    }
    let refused = |name: &str, why: String| {
        Error::external(format!("cannot make topic `{name}` at {}", kafka.bootstrap)).detail(why)
    };
    let admin: AdminClient<DefaultClientContext> = config::driver(kafka)?
        .create()
        .map_err(|error: KafkaError| refused(&topics[0].name, error.to_string()))?;
    let wanted: Vec<Wanted<'_>> = topics
        .iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX));
            let copies = topic.replication.map_or(-1, i32::from);
            let wanted = Wanted::new(&topic.name, partitions, TopicReplication::Fixed(copies));
            let settings = topic.config.iter();
            settings.fold(wanted, |wanted, (name, value)| wanted.set(name, value))
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(PATIENCE))
        .request_timeout(Some(PATIENCE));
    let made = admin.create_topics(&wanted, &options).await;
    for one in made.map_err(|error| refused(&topics[0].name, error.to_string()))? {
        if let Err((name, code)) = one {
            let error = refused(&name, code.to_string());
            return Err(match code {
                RDKafkaErrorCode::InvalidReplicationFactor => {
                    error.hint("are there as many brokers as --replication says?")
                }
                RDKafkaErrorCode::InvalidConfig => {
                    error.hint("look at the names and values behind --topic-config")
                }
                _ => error,
            });
        }
    }
    Ok(())
}
