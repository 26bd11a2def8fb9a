//! What the sequencer makes of a look at a source from outside: new partitions are assigned, losses are refused.

use crate::error::{Error, Result};
use crate::position::{PartitionId, SourceId};
use crate::sequencer::{Now, Sequencer};
use crate::source::Topology;

impl Sequencer {
    /// What a source looks like from outside. Partitions that are new start at the log's start.
    pub fn topology(&mut self, source: SourceId, topology: &Topology, now: Now) -> Result<()> {
        let name = self
            .sources
            .get(&source)
            .map_or_else(String::new, |s| s.name.clone());
        match self.topics.get(&source) {
            Some(known) if *known != topology.topic => {
                return Err(Error::integrity(format!(
                    "the topic of source `{name}` was deleted and made again"
                ))
                .detail(format!(
                    "the ledger binds topic id {known:?}, the broker has {:?}",
                    topology.topic
                ))
                .hint(
                    "offsets of the new topic mean other records: start afresh with an empty data directory",
                ));
            }
            Some(_) => {}
            None => {
                self.topics.insert(source, topology.topic);
                self.new_topics.push((source, topology.topic));
            }
        }
        self.looked_at.insert(source);
        let known = self.partitions.keys().filter(|id| id.source == source).count();
        if topology.partitions.len() < known {
            return Err(
                Error::integrity(format!("the topic of source `{name}` has lost partitions")).detail(
                    format!(
                        "the ledger binds {known}, the broker has {}",
                        topology.partitions.len()
                    ),
                ),
            );
        }
        for facts in &topology.partitions {
            let id = PartitionId {
                source,
                partition: facts.partition,
            };
            match self.partitions.get(&id) {
                None => self.assign(id, facts.start, now.mono),
                Some(partition) if partition.read_to() < facts.start => {
                    let bound = partition.read_to();
                    return Err(Error::integrity(format!("source `{name}` has lost records that were not read yet"))
                        .detail(format!(
                            "partition {}: read up to offset {bound}, the log now begins at {}",
                            facts.partition, facts.start
                        ))
                        .hint("raise the topic's retention; to go on without them, start afresh with an empty data directory"));
                }
                Some(_) => {}
            }
            let partition = self.partitions.get_mut(&id).expect("known or just assigned");
            partition.end = Some(partition.end.unwrap_or(facts.end));
        }
        Ok(())
    }
}
