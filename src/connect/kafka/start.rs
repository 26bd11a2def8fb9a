//! Finds the offsets at which the first start begins to read a topic.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset as Place;

use super::native::Consumer;
use crate::position::Offset;
use crate::source::{Start, Topology};

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
