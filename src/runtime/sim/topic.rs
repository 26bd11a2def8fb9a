//! Topics in memory: they grow, are fetched by and by, lose their beginnings, and get more partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Draws;
use crate::bridge::Waker;
use crate::codec::Cause;
use crate::error::{Error, Result};
use crate::position::{Offset, TopicId};
use crate::record::Event;
use crate::source::{
    Driver, Intake, OpenedSource, PartitionFacts, Raw, ReadProgress, Reader, Substitute, TimeRules, Topology,
};
use crate::time::EventTime;

/// What stands at an offset.
pub(super) type TopicRecord<T> = Result<T, Cause>;

/// A topic; clones share it.
#[derive(Clone)]
pub(super) struct Topic<T>(Arc<Mutex<TopicInner<T>>>);

struct TopicInner<T> {
    partitions: Vec<Partition<T>>,
    wakers: Vec<Waker>,
    draws: Draws,
}

struct Partition<T> {
    /// The first offset that is still there. Records before it are kept for the oracle.
    start: usize,
    records: Vec<TopicRecord<T>>,
    /// Up to here readers have been sent records.
    fetched: usize,
}

impl<T: Event> Topic<T> {
    pub(super) fn new(partitions: usize, draws: Draws) -> Self {
        let topic = Self(Arc::new(Mutex::new(TopicInner {
            partitions: Vec::new(),
            wakers: Vec::new(),
            draws,
        })));
        (0..partitions).for_each(|_| topic.add_partition());
        topic
    }

    pub(super) fn add_partition(&self) {
        self.0.lock().partitions.push(Partition {
            start: 0,
            records: Vec::new(),
            fetched: 0,
        });
    }

    pub(super) fn partitions(&self) -> usize {
        self.0.lock().partitions.len()
    }

    pub(super) fn append(&self, partition: usize, records: impl IntoIterator<Item = TopicRecord<T>>) {
        self.0.lock().partitions[partition].records.extend(records);
    }

    /// What stands at an offset, whether or not it is still there.
    pub(super) fn at(&self, partition: u32, offset: Offset) -> Option<TopicRecord<T>> {
        let inner = self.0.lock();
        let partition = inner.partitions.get(partition as usize)?;
        partition.records.get(offset as usize).cloned()
    }

    /// Where partitions end.
    pub(super) fn ends(&self) -> Vec<Offset> {
        let inner = self.0.lock();
        let ends = inner.partitions.iter();
        ends.map(|partition| partition.records.len() as Offset).collect()
    }

    /// Records before `start` go; or those that went are put back.
    pub(super) fn set_start(&self, partition: usize, start: Offset) {
        let mut inner = self.0.lock();
        if let Some(partition) = inner.partitions.get_mut(partition) {
            partition.start = (start.max(0) as usize).min(partition.records.len());
        }
    }

    pub(super) fn starts(&self) -> Vec<Offset> {
        let inner = self.0.lock();
        let starts = inner.partitions.iter();
        starts.map(|partition| partition.start as Offset).collect()
    }

    /// A process that starts has been sent nothing.
    pub(super) fn forget_fetched(&self) {
        for partition in &mut self.0.lock().partitions {
            partition.fetched = 0;
        }
    }

    /// Some more records arrive at their readers, or all there are.
    pub(super) fn fetch(&self, all: bool) {
        let wakers = {
            let TopicInner {
                partitions,
                wakers,
                draws,
            } = &mut *self.0.lock();
            for partition in partitions {
                let left = partition.records.len() - partition.fetched.min(partition.records.len());
                partition.fetched += match all {
                    true => left,
                    false => draws.below(left + 1),
                };
            }
            wakers.clone()
        };
        wakers.iter().for_each(Waker::wake);
    }

    /// In place of a source.
    pub(super) fn substitute(&self) -> Substitute {
        let topic = self.clone();
        let opened = OpenedSource::<T> {
            topic: "simulated".to_owned(),
            description: "a simulated topic".to_owned(),
            driver: Arc::new(self.clone()),
            rules: TimeRules::default(),
            dead_letters: None,
            reader: Box::new(move |waker| {
                waker.wake();
                topic.0.lock().wakers.push(waker);
                Ok(Box::new(TopicReader {
                    topic,
                    positions: BTreeMap::new(),
                }))
            }),
        };
        Substitute {
            driver: opened.driver.clone(),
            opened: Some(Box::new(opened)),
        }
    }
}

impl<T: Event> Driver for Topic<T> {
    fn topology(&self) -> Result<Topology> {
        let inner = self.0.lock();
        let facts = (0u32..).zip(&inner.partitions);
        Ok(Topology {
            topic: TopicId([7; 16]),
            compacted: false,
            partitions: facts
                .map(|(number, partition)| {
                    PartitionFacts::new(
                        number,
                        partition.start as Offset,
                        partition.records.len() as Offset,
                    )
                })
                .collect(),
        })
    }
}

struct TopicReader<T> {
    topic: Topic<T>,
    positions: BTreeMap<u32, usize>,
}

/// What a reader says of records that retention has removed.
pub(super) const LOST: &str = "the simulated topic has lost records";

impl<T: Event> Reader<T> for TopicReader<T> {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        self.positions.insert(partition, from as usize);
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<ReadProgress> {
        let TopicInner {
            partitions, draws, ..
        } = &mut *self.topic.0.lock();
        let (Some(log), Some(position)) = (
            partitions.get(partition as usize),
            self.positions.get_mut(&partition),
        ) else {
            return Err(Error::internal("a partition that was not assigned"));
        };
        if *position < log.start {
            return Err(Error::integrity(LOST).detail(format!("partition {partition}, offset {position}")));
        }
        let until = usize::try_from(until).unwrap_or(usize::MAX);
        let there = log.fetched.min(until).max(*position);
        let stop = there.min(*position + draws.small(1, 12).min(records_max));
        while *position < stop {
            let mut raw = Raw {
                offset: *position as Offset,
                timestamp: EventTime(*position as i64),
                key: None,
                payload: None,
            };
            match &log.records[*position] {
                Err(cause) => intake.dead(raw, *cause, None),
                Ok(value) => {
                    let bytes = serde_json::to_vec(value)?;
                    raw.payload = Some(&bytes);
                    intake.value(raw, value.clone());
                }
            }
            *position += 1;
        }
        Ok(ReadProgress {
            position: *position as Offset,
            at_end: *position >= log.records.len(),
            more: *position < there,
        })
    }
}
