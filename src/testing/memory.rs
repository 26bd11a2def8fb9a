//! A source for tests whose records are given up front.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::Cause;
use crate::error::{Error, Result};
use crate::position::{Offset, TopicId};
use crate::record::Event;
use crate::source::{
    Driver, Environment, Intake, OpenedSource, PartitionFacts, Raw, ReadProgress, Reader, Source, TimeRules,
};
use crate::source::{Topology, UpsertSource, time_rules};
use crate::time::EventTime;

/// A record: its log timestamp, and its value or the reason why it has none.
pub type Given<T> = (EventTime, Result<T, Cause>);

/// Records by partition. Each partition is read in segments: a read never passes the end of a segment, so
/// segments define how reading is split.
///
/// ```
/// use thalweg::{EventTime, testing::memory::Memory};
/// let at = EventTime::from_millis;
/// let source = Memory::new(vec![vec![(at(1), Ok(7u32)), (at(2), Ok(8)), (at(3), Ok(9))]])
///     .segment_ends(vec![vec![1]]); // first one record, then the other two
/// ```
#[must_use]
pub struct Memory<T> {
    partitions: Vec<Vec<Given<T>>>,
    segment_ends: Vec<Vec<usize>>,
    rules: TimeRules<T>,
}

impl<T> Memory<T> {
    /// One partition per element, each with a single segment.
    pub fn new(partitions: Vec<Vec<Given<T>>>) -> Self {
        Self {
            partitions,
            segment_ends: Vec::new(),
            rules: TimeRules::default(),
        }
    }

    /// The ends of segments, by partition, ascending: `[1, 3]` splits before the records at offsets 1 and 3.
    pub fn segment_ends(mut self, ends: Vec<Vec<usize>>) -> Self {
        self.segment_ends = ends;
        self
    }

    time_rules!();
}

impl<T: Event> Memory<T> {
    fn opened(self, timed: bool) -> OpenedSource<T> {
        let facts = (0u32..)
            .zip(&self.partitions)
            .map(|(partition, records)| PartitionFacts::new(partition, 0, records.len() as Offset));
        let driver = Arc::new(MemoryDriver {
            partitions: facts.collect(),
        });
        let (partitions, segment_ends) = (self.partitions, self.segment_ends);
        OpenedSource {
            topic: "memory".to_owned(),
            description: "records in memory".to_owned(),
            driver,
            rules: TimeRules { timed, ..self.rules },
            dead_letters: None,
            reader: Box::new(move |waker| {
                waker.wake();
                Ok(Box::new(MemoryReader {
                    partitions,
                    segment_ends,
                    positions: BTreeMap::new(),
                    bytes: Vec::new(),
                }))
            }),
        }
    }
}

impl<T: Event> Source<T> for Memory<T> {
    fn open(self, _env: &Environment) -> Result<OpenedSource<T>> {
        Ok(self.opened(true))
    }
}

impl<K: Event, V: Event> UpsertSource<K, V> for Memory<(K, Option<V>)> {
    type Records = (K, Option<V>);

    fn open(self, _env: &Environment) -> Result<OpenedSource<(K, Option<V>)>> {
        Ok(self.opened(false))
    }
}

struct MemoryDriver {
    partitions: Vec<PartitionFacts>,
}

impl Driver for MemoryDriver {
    fn topology(&self) -> Result<Topology> {
        Ok(Topology {
            topic: TopicId::default(),
            compacted: false,
            partitions: self.partitions.clone(),
        })
    }
}

struct MemoryReader<T> {
    partitions: Vec<Vec<Given<T>>>,
    segment_ends: Vec<Vec<usize>>,
    positions: BTreeMap<u32, usize>,
    /// The value as JSON, in place of a payload: it is hashed, and shown in dead letters.
    bytes: Vec<u8>,
}

impl<T: Event> Reader<T> for MemoryReader<T> {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        let records = self.partitions.get(partition as usize).map(Vec::len);
        match (records, usize::try_from(from)) {
            (Some(records), Ok(from)) if from <= records => {
                self.positions.insert(partition, from);
                Ok(())
            }
            _ => Err(Error::integrity(format!(
                "partition {partition} in memory has no offset {from}"
            ))),
        }
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<ReadProgress> {
        let unknown = || Error::internal(format!("partition {partition} in memory was not assigned"));
        let records = self.partitions.get(partition as usize).ok_or_else(unknown)?;
        let position = self.positions.get_mut(&partition).ok_or_else(unknown)?;
        let segments = self
            .segment_ends
            .get(partition as usize)
            .map_or(&[][..], Vec::as_slice);
        let segment_end = segments
            .iter()
            .copied()
            .find(|end| end > position)
            .unwrap_or(records.len());
        let until = usize::try_from(until).unwrap_or(0).min(records.len());
        let stop = segment_end.min(until).min(position.saturating_add(records_max));
        while *position < stop {
            let (timestamp, given) = &records[*position];
            let raw = Raw {
                offset: *position as Offset,
                timestamp: *timestamp,
                key: None,
                payload: None,
            };
            match given {
                Err(cause) => intake.dead(raw, *cause, None),
                Ok(value) => {
                    self.bytes.clear();
                    serde_json::to_writer(&mut self.bytes, value)?;
                    intake.value(
                        Raw {
                            payload: Some(&self.bytes),
                            ..raw
                        },
                        value.clone(),
                    );
                }
            }
            *position += 1;
        }
        Ok(ReadProgress {
            position: *position as Offset,
            at_end: *position == records.len(),
            more: *position < until,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::bridge::Waker;
    use crate::position::SourceId;

    fn intake<T>(rules: TimeRules<T>) -> Intake<T> {
        Intake::new(SourceId(1), "memory".into(), 0, Rc::new(rules))
    }

    #[test]
    fn reads_stop_at_segments_and_at_until() {
        let records = (0..6)
            .map(|i| (EventTime(i), if i == 4 { Err(Cause::JsonSyntax) } else { Ok(i) }))
            .collect();
        let source = Memory::new(vec![records]).segment_ends(vec![vec![2, 3]]);
        let opened = Source::open(source, &Environment::default()).unwrap();
        assert_eq!(opened.driver.topology().unwrap().partitions[0].end, 6);
        let mut reader = (opened.reader)(Waker::new(|| {})).unwrap();
        let mut intake = intake(opened.rules);
        reader.assign(0, 0).unwrap();
        let mut told = Vec::new();
        for until in [1, 6, 6, 4, 6, 6] {
            let progress = reader.read(0, until, 100, &mut intake).unwrap();
            told.push((progress.position, progress.at_end, progress.more));
        }
        let expected = [
            (1, false, false),
            (2, false, true),
            (3, false, true),
            (4, false, false),
            (6, true, false),
            (6, true, false),
        ];
        assert_eq!(told, expected);
        let (events, dead) = intake.take(Vec::new());
        assert_eq!(
            events.iter().map(|e| e.value).collect::<Vec<_>>(),
            [0, 1, 2, 3, 5]
        );
        assert_eq!(dead[0].cause, Cause::JsonSyntax);
    }

    #[test]
    fn an_offset_past_the_end_is_refused() {
        let opened = Source::<u8>::open(Memory::new(vec![vec![]]), &Environment::default()).unwrap();
        let mut reader = (opened.reader)(Waker::new(|| {})).unwrap();
        assert!(reader.assign(0, 1).is_err());
        assert!(reader.assign(1, 0).is_err());
    }
}
