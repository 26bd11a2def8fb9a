//! Where the first start begins to read.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset as Place;

use super::native::Consumer;
use crate::position::Offset;
use crate::source::Topology;
use crate::time::EventTime;

/// Where reading begins in a topic that the ledger knows nothing of yet.
///
/// ```
/// use thalweg::prelude::*;
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Payment { cents: i64 }
/// let payments = Kafka::topic("payments.transactions.v1").json::<Payment>().start(Start::Latest);
/// let from_noon: EventTime = "2026-03-01T12:00:00Z".parse()?;
/// let payments = Kafka::topic("payments.transactions.v1").json::<Payment>().start(Start::Timestamp(from_noon));
/// # Ok::<(), thalweg::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the oldest record that is still there.
    #[default]
    Earliest,
    /// With what is written after the start.
    Latest,
    /// In each partition with the first record whose timestamp in Kafka is no earlier, in whole milliseconds; where there is
    /// none, with what is written after the start.
    Timestamp(EventTime),
    /// At an offset by partition. Those that are not named begin with their oldest record. A partition that there is not, and
    /// an offset that is not in the log, are refused.
    Offsets(Vec<(u32, Offset)>),
}

impl Start {
    /// The offsets to begin at, of partitions that don't begin with their oldest record.
    pub(super) fn of(
        &self,
        client: &Consumer,
        topic: &str,
        topology: &Topology,
        patience: Duration,
    ) -> Result<Vec<(u32, Offset)>, KafkaError> {
        let ends = || {
            topology
                .partitions
                .iter()
                .map(|facts| (facts.partition, facts.end))
        };
        match self {
            Start::Earliest => Ok(Vec::new()),
            Start::Latest => Ok(ends().collect()),
            Start::Offsets(offsets) => Ok(offsets.clone()),
            Start::Timestamp(at) => {
                let mut wanted = TopicPartitionList::new();
                // Rounded up: nothing earlier is read.
                let ms = at.micros().saturating_add(999).div_euclid(1_000).max(0);
                for facts in &topology.partitions {
                    let partition = i32::try_from(facts.partition).unwrap_or(i32::MAX);
                    wanted.add_partition_offset(topic, partition, Place::Offset(ms))?;
                }
                let found = client.offsets_for_times(wanted, patience)?;
                let starts = topology.partitions.iter().map(|facts| {
                    let of = i32::try_from(facts.partition).ok();
                    let place = of.and_then(|partition| found.find_partition(topic, partition));
                    let from = match place.map(|place| place.error().map(|()| place.offset())) {
                        Some(Ok(Place::Offset(offset))) => offset,
                        Some(Ok(Place::Beginning)) => facts.start,
                        Some(Err(error)) => return Err(error),
                        // No record is so young.
                        _ => facts.end,
                    };
                    // What is found may be part of a transaction that is still open, beyond what can be read.
                    Ok((
                        facts.partition,
                        from.clamp(facts.start, facts.end.max(facts.start)),
                    ))
                });
                starts.collect()
            }
        }
    }
}
