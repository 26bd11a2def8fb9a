//! A source that generates its records: for benchmarks, demos and tests.
//!
//! ```text
//!   log timestamp of offset o = start + o / (rate a partition)        the same at every replay
//!   offsets that are there    = those whose timestamp the wall clock has reached; without a rate, all
//! ```
//!
//! It behaves like a topic to which each record was appended at its timestamp: after a stop, records that
//! became due meanwhile are available at once, and a replay runs as fast as it can.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bridge::Waker;
use crate::clock;
use crate::error::{Error, Result, count};
use crate::position::{Offset, TopicId};
use crate::record::Event;
use crate::source::{
    Driver, Environment, Intake, OpenedSource, PartitionFacts, Raw, ReadProgress, Reader, Source, TimeRules,
};
use crate::source::{Topology, UpsertSource, time_rules};
use crate::time::EventTime;

/// 2026-01-01T00:00:00Z: the start of a generator without a rate.
const START: EventTime = EventTime::from_secs(1_767_225_600);
/// A worker is not woken more often than this.
const WAKE_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// Records computed by a function of partition and offset.
///
/// The function must be pure, or a replay differs from the first run, which the ledger's hashes reveal.
///
/// ```
/// use thalweg::demo::generator::Generator;
/// let numbers = Generator::new(4, |partition, offset| offset * 4 + i64::from(partition)).records(1_000);
/// ```
#[must_use]
pub struct Generator<T> {
    make: Box<dyn Fn(u32, Offset) -> T>,
    partitions: u32,
    rate: Option<u64>,
    records: Offset,
    start: Option<EventTime>,
    rules: TimeRules<T>,
}

impl<T> Generator<T> {
    /// An endless source, as fast as it is read, with timestamps one millisecond apart from 2026-01-01 on.
    pub fn new(partitions: u32, make: impl Fn(u32, Offset) -> T + 'static) -> Self {
        Self {
            make: Box::new(make),
            partitions,
            rate: None,
            records: Offset::MAX,
            start: None,
            rules: TimeRules::default(),
        }
    }

    /// Records per second, over all partitions.
    pub fn rate(mut self, per_second: u64) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Ends each partition after this many records.
    pub fn records(mut self, per_partition: u64) -> Self {
        self.records = Offset::try_from(per_partition).unwrap_or(Offset::MAX);
        self
    }

    /// The log timestamp of every partition's first record.
    ///
    /// A generator with a rate and without a start begins when the process first creates one: it is another
    /// topic after a restart, and in every process of a cluster. With a durable ledger or several processes,
    /// set a start.
    pub fn starting_at(mut self, start: EventTime) -> Self {
        self.start = Some(start);
        self
    }

    time_rules!();
}

impl<T: Event> Generator<T> {
    fn opened(self, timed: bool) -> Result<OpenedSource<T>> {
        if self.partitions == 0 || self.rate == Some(0) {
            return Err(Error::definition(
                "a generator needs at least one partition, and a rate above zero",
            ));
        }
        let start = self.start.unwrap_or_else(|| {
            if self.rate.is_some() {
                process_start()
            } else {
                START
            }
        });
        let schedule = Schedule {
            partitions: self.partitions,
            rate: self.rate,
            records: self.records,
            start,
        };
        let make = self.make;
        Ok(OpenedSource {
            topic: "generator".to_owned(),
            description: format!("a generator of {}", count(self.partitions, "partition")),
            driver: Arc::new(GeneratorDriver(schedule)),
            rules: TimeRules { timed, ..self.rules },
            dead_letters: None,
            reader: Box::new(move |waker| {
                let pacer = match schedule.rate {
                    Some(_) => Some(Pacer::new(waker.clone())?),
                    None => None,
                };
                Ok(Box::new(GeneratorReader {
                    schedule,
                    make,
                    positions: BTreeMap::new(),
                    bytes: Vec::new(),
                    pacer,
                    waker,
                }))
            }),
        })
    }
}

impl<T: Event> Source<T> for Generator<T> {
    fn open(self, _env: &Environment) -> Result<OpenedSource<T>> {
        self.opened(true)
    }
}

impl<K: Event, V: Event> UpsertSource<K, V> for Generator<(K, Option<V>)> {
    type Records = (K, Option<V>);

    fn open(self, _env: &Environment) -> Result<OpenedSource<(K, Option<V>)>> {
        self.opened(false)
    }
}

/// One start for all workers of the process.
fn process_start() -> EventTime {
    static FIRST: OnceLock<EventTime> = OnceLock::new();
    *FIRST.get_or_init(clock::now)
}

/// When each offset becomes available.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    partitions: u32,
    rate: Option<u64>,
    records: Offset,
    start: EventTime,
}

impl Schedule {
    /// Microseconds per record, as a fraction.
    fn interval(&self) -> (i128, i128) {
        match self.rate {
            None => (1_000, 1),
            Some(rate) => (1_000_000 * i128::from(self.partitions), i128::from(rate)),
        }
    }

    fn timestamp(&self, offset: Offset) -> EventTime {
        let (micros, records) = self.interval();
        let after = i128::from(offset) * micros / records;
        EventTime(
            self.start
                .0
                .saturating_add(i64::try_from(after).unwrap_or(i64::MAX)),
        )
    }

    /// The number of a partition's records with a timestamp up to `now`.
    fn due(&self, now: EventTime) -> Offset {
        if self.rate.is_none() {
            return self.records;
        }
        let after = i128::from(now.0) - i128::from(self.start.0);
        if after < 0 {
            return 0;
        }
        let (micros, records) = self.interval();
        let due = ((after + 1) * records + micros - 1) / micros;
        Offset::try_from(due).unwrap_or(Offset::MAX).min(self.records)
    }

    /// A different start or rate makes a different log.
    fn topic(&self) -> TopicId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.start.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.rate.unwrap_or(0).to_le_bytes());
        TopicId(xxhash_rust::xxh3::xxh3_128(&bytes).to_le_bytes())
    }
}

struct GeneratorDriver(Schedule);

impl Driver for GeneratorDriver {
    /// An endless generator without a rate has no end to catch up with: its end is its start.
    fn topology(&self) -> Result<Topology> {
        let end = match self.0.due(clock::now()) {
            Offset::MAX => 0,
            due => due,
        };
        let partitions = (0..self.0.partitions)
            .map(|partition| PartitionFacts::new(partition, 0, end))
            .collect();
        Ok(Topology {
            topic: self.0.topic(),
            compacted: false,
            partitions,
        })
    }
}

struct GeneratorReader<T> {
    schedule: Schedule,
    make: Box<dyn Fn(u32, Offset) -> T>,
    positions: BTreeMap<u32, Offset>,
    /// The value in postcard's encoding, in place of a payload: it is hashed.
    bytes: Vec<u8>,
    pacer: Option<Pacer>,
    waker: Waker,
}

impl<T: Event> Reader<T> for GeneratorReader<T> {
    fn assign(&mut self, partition: u32, from: Offset) -> Result<()> {
        if partition >= self.schedule.partitions || from < 0 || from > self.schedule.records {
            return Err(Error::integrity(format!(
                "partition {partition} of the generator has no offset {from}"
            )));
        }
        self.positions.insert(partition, from);
        self.waker.wake();
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        records_max: usize,
        intake: &mut Intake<T>,
    ) -> Result<ReadProgress> {
        let position = self.positions.get_mut(&partition).ok_or_else(|| {
            Error::internal(format!("partition {partition} of the generator was not assigned"))
        })?;
        let due = self.schedule.due(clock::now());
        let most = position.saturating_add(Offset::try_from(records_max).unwrap_or(Offset::MAX));
        let stop = until.min(due).min(most);
        let mut offset = *position;
        while offset < stop {
            intake.at_work(offset);
            let value = (self.make)(partition, offset);
            self.bytes.clear();
            self.bytes = postcard::to_extend(&value, std::mem::take(&mut self.bytes))?;
            let timestamp = self.schedule.timestamp(offset);
            intake.value(
                Raw {
                    offset,
                    timestamp,
                    key: None,
                    payload: Some(&self.bytes),
                },
                value,
            );
            offset += 1;
        }
        *position = offset;
        let at_end = offset >= due;
        if let Some(pacer) = &mut self.pacer
            && at_end
            && offset < self.schedule.records
        {
            pacer.wake_at(self.schedule.timestamp(offset));
        }
        Ok(ReadProgress {
            position: offset,
            at_end,
            more: !at_end && offset < until,
        })
    }
}

/// A thread that wakes the worker when the next record is due. Ends with the reader.
struct Pacer {
    due: Option<Sender<EventTime>>,
    thread: Option<JoinHandle<()>>,
    /// The earliest time set for the thread that it may not have reached.
    armed: EventTime,
}

impl Pacer {
    fn new(waker: Waker) -> Result<Self> {
        let (due, told) = channel();
        let thread = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || pace(&told, &waker))?;
        Ok(Self {
            due: Some(due),
            thread: Some(thread),
            armed: EventTime::MIN,
        })
    }

    fn wake_at(&mut self, due: EventTime) {
        if self.armed > clock::now() && self.armed <= due {
            return;
        }
        self.armed = due;
        if let Some(sender) = &self.due {
            // The thread only ends when the sender does.
            let _ended = sender.send(due);
        }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.due = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn pace(told: &Receiver<EventTime>, waker: &Waker) {
    let mut next: Option<EventTime> = None;
    loop {
        let heard = match next {
            None => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => {
                let wait = due.0.saturating_sub(clock::now().0).max(0);
                told.recv_timeout(Duration::from_micros(wait.unsigned_abs()).max(WAKE_INTERVAL_MIN))
            }
        };
        match heard {
            Ok(due) => next = Some(next.map_or(due, |next| next.min(due))),
            Err(RecvTimeoutError::Timeout) => {
                next = None;
                waker.wake();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::position::SourceId;
    use proptest::prelude::*;

    type Events = Vec<(i64, EventTime, Offset)>;

    fn drain(
        source: Generator<i64>,
        waker: Waker,
        mut go: impl FnMut(&mut dyn Reader<i64>, &mut Intake<i64>),
    ) -> Events {
        let opened = Source::open(source, &Environment::default()).unwrap();
        let mut intake = Intake::new(SourceId(1), "numbers".into(), 1, Rc::new(opened.rules));
        let mut reader = (opened.reader)(waker).unwrap();
        reader.assign(1, 0).unwrap();
        go(&mut *reader, &mut intake);
        intake
            .take(Vec::new())
            .0
            .into_iter()
            .map(|e| (e.value, e.time, e.at.offset))
            .collect()
    }

    #[test]
    fn cuts_do_not_change_what_is_read() {
        let source = || Generator::new(2, |p, o| o * 10 + i64::from(p)).records(50);
        let whole = drain(source(), Waker::new(|| {}), |reader, intake| {
            let progress = reader.read(1, Offset::MAX, usize::MAX, intake).unwrap();
            assert_eq!(
                progress,
                ReadProgress {
                    position: 50,
                    at_end: true,
                    more: false
                }
            );
        });
        let cut = drain(source(), Waker::new(|| {}), |reader, intake| {
            assert_eq!(
                reader.read(1, 7, 100, intake).unwrap(),
                ReadProgress {
                    position: 7,
                    at_end: false,
                    more: false
                }
            );
            let mut more = true;
            while more {
                more = reader.read(1, Offset::MAX, 9, intake).unwrap().more;
            }
        });
        assert_eq!(whole.len(), 50);
        assert_eq!(whole, cut);
        assert_eq!(whole[3], (31, START.plus(Duration::from_millis(3)), 3));
    }

    #[test]
    fn a_paced_reader_wakes_itself_until_all_is_read() {
        let (woken, wakes) = channel();
        let source = Generator::new(2, |_, o| o)
            .rate(2_000)
            .records(40)
            .starting_at(clock::now());
        let events = drain(
            source,
            Waker::new(move || woken.send(()).unwrap_or(())),
            |reader, intake| {
                while reader.read(1, Offset::MAX, 7, intake).unwrap().position < 40 {
                    // Only a wake-up leads on, but for what is there already.
                    if reader.read(1, Offset::MAX, 7, intake).unwrap().at_end && intake.len() < 40 {
                        wakes.recv_timeout(Duration::from_secs(20)).expect("a wake-up");
                    }
                }
            },
        );
        assert_eq!(events.len(), 40);
        assert_eq!(events[10].1.0 - events[0].1.0, 10_000);
    }

    #[test]
    fn a_stop_does_not_wait_for_the_next_record() {
        let source = Generator::new(2, |_, o| o)
            .rate(1)
            .starting_at(clock::now().plus(Duration::from_secs(3600)));
        let events = drain(source, Waker::new(|| {}), |reader, intake| {
            assert!(reader.read(1, Offset::MAX, 7, intake).unwrap().at_end);
        });
        assert!(events.is_empty());
    }

    proptest! {
        #[test]
        fn due_are_those_whose_timestamp_has_come(
            rate in 1u64..3_000_000, partitions in 1u32..9, start in -9i64..9, offset in 0i64..10_000_000,
        ) {
            let start = EventTime(start * 1_000_000_007);
            let schedule = Schedule { partitions, rate: Some(rate), records: Offset::MAX, start };
            let at = schedule.timestamp(offset);
            prop_assert!(schedule.due(at) > offset);
            prop_assert!(schedule.due(EventTime(at.0 - 1)) <= offset);
        }
    }
}
