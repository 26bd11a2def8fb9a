//! Topologies in the sequencer: new partitions are assigned, losses are refused.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::position::{Offset, PartitionId, SourceId, TopicId};
use crate::sequencer::{ClockReading, Sequencer};
use crate::source::Topology;

impl Sequencer {
    /// Sets where partitions of a source start that is new to the ledger; must precede its first topology.
    /// For a source that is in the ledger this has no effect.
    pub fn starts(&mut self, source: SourceId, starts: impl IntoIterator<Item = (u32, Offset)>) {
        let id = |partition| PartitionId { source, partition };
        self.starts
            .extend(starts.into_iter().map(|(partition, from)| (id(partition), from)));
    }

    /// The starting offsets of a source that is new to the ledger, if they are available.
    fn fitting_starts(
        &self,
        source: SourceId,
        topology: &Topology,
        name: &str,
    ) -> Result<BTreeMap<PartitionId, Offset>> {
        let mut fitting = BTreeMap::new();
        for (id, from) in self.starts.iter().filter(|(id, _)| id.source == source) {
            let error = Error::definition(format!("source `{name}` cannot start at the given position"));
            match topology
                .partitions
                .iter()
                .find(|facts| facts.partition == id.partition)
            {
                None => {
                    let partitions = topology.partitions.len();
                    return Err(error
                        .detail(format!(
                            "its topic has no partition {}; it has {partitions}",
                            id.partition
                        ))
                        .hint("give offsets for existing partitions only"));
                }
                Some(facts) if *from < facts.start || *from > facts.end => {
                    return Err(error
                        .detail(format!(
                            "partition {}: offset {from} is outside of the log, {} to {}",
                            id.partition, facts.start, facts.end
                        ))
                        .hint("give an offset in the log, or its end to start with the next record"));
                }
                Some(_) => _ = fitting.insert(*id, *from),
            }
        }
        Ok(fitting)
    }

    /// Handles a source's topology, from an observation that began at `asked`. New partitions start at the
    /// log's start, unless the entire source is new to the ledger and was told to [start](Sequencer::starts)
    /// elsewhere.
    pub fn topology(&mut self, source: SourceId, topology: &Topology, asked: ClockReading) -> Result<()> {
        let name = self
            .sources
            .get(&source)
            .map_or_else(String::new, |s| s.name.clone());
        let mut starts = BTreeMap::new();
        match self.topics.get(&source) {
            Some(known) if *known != topology.topic => {
                return Err(Error::integrity(format!(
                    "the topic of source `{name}` was deleted and recreated"
                ))
                .detail(format!(
                    "the ledger has topic id {known:?}; the broker has {:?}",
                    topology.topic
                ))
                .hint(
                    "offsets of the new topic refer to other records: start over with an empty data \
                     directory",
                ));
            }
            Some(_) => {}
            None => {
                starts = self.fitting_starts(source, topology, &name)?;
                self.topics.insert(source, topology.topic);
                self.new_topics.push((source, topology.topic));
            }
        }
        self.looked_at.insert(source);
        if topology.compacted {
            self.compacted.insert(source);
        }
        let known = self.partitions.keys().filter(|id| id.source == source).count();
        if topology.partitions.len() < known {
            return Err(fewer(&name, topology, known));
        }
        for facts in &topology.partitions {
            let id = PartitionId {
                source,
                partition: facts.partition,
            };
            match self.partitions.get(&id) {
                None => {
                    let start = starts.get(&id).copied();
                    self.new_starts.extend(start.map(|_| id));
                    self.assign(id, start.unwrap_or(facts.start), asked.mono);
                }
                Some(partition) if partition.read_to() < facts.start => {
                    let bound = partition.read_to();
                    return Err(Error::integrity(format!(
                        "source `{name}` has lost records before they were read"
                    ))
                    .detail(format!(
                        "partition {}: read up to offset {bound}; the log now begins at {}",
                        facts.partition, facts.start
                    ))
                    .hint(
                        "raise the topic's retention; to continue without them, start over with an empty \
                         data directory",
                    ));
                }
                Some(_) => {}
            }
            let partition = self.partitions.get_mut(&id).expect("known or just assigned");
            partition.first.get_or_insert(*facts);
            partition.seen(facts, asked.mono);
        }
        Ok(())
    }
}

/// The error for `known` partitions that are gone. Only topics have an id; a source without one reads files.
fn fewer(name: &str, topology: &Topology, known: usize) -> Error {
    let there = topology.partitions.len();
    if topology.topic == TopicId::default() {
        return Error::integrity(format!("files that source `{name}` has read are gone"))
            .detail(format!("the ledger has {known} of them; found: {there}"))
            .hint(
                "restore them under their names: files are numbered in the order of their names, and a \
                 replay reads all of them",
            );
    }
    Error::integrity(format!("the topic of source `{name}` has lost partitions"))
        .detail(format!("the ledger has {known}; the broker has {there}"))
}
