//! A partition that runs ahead of the others in event time waits for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use thalweg::bridge::Waker;
use thalweg::codec::Cause;
use thalweg::ingest::BufferLimits;
use thalweg::position::{Offset, TopicId};
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::source::{
    Driver, Environment, Intake, OpenedSource, PartitionFacts, Raw, ReadProgress, Reader, Source, TimeRules,
    Topology,
};

const RECORDS: i64 = 5_000;
const SKEW_S: i64 = 100;
const BATCH: usize = 10;

/// Two partitions with a record a second of event time each. The second one gives nothing before the gate
/// opens.
#[derive(Clone, Default)]
struct Gated(Arc<Gate>);

#[derive(Default)]
struct Gate {
    open: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// The highest offset read of the first partition.
    ahead: Mutex<i64>,
}

impl Gated {
    fn lift(&self) {
        self.0.open.store(true, Ordering::SeqCst);
        self.0.waker.lock().as_ref().expect("the reader was made").wake();
    }
}

impl Source<i64> for Gated {
    fn open(self, _: &Environment) -> Result<OpenedSource<i64>> {
        let reader = self.clone();
        Ok(OpenedSource {
            topic: "gated".into(),
            description: "two partitions, one behind a gate".into(),
            driver: Arc::new(self),
            rules: TimeRules {
                event_time: Some(Box::new(|s| EventTime::from_secs(*s))),
                ..TimeRules::default()
            },
            dead_letters: None,
            reader: Box::new(move |waker| {
                *reader.0.waker.lock() = Some(waker);
                Ok(Box::new(GatedReader {
                    gate: reader.0,
                    next: [0; 2],
                }))
            }),
        })
    }
}

impl Driver for Gated {
    fn topology(&self) -> Result<Topology> {
        let facts = |partition| PartitionFacts::new(partition, 0, RECORDS);
        Ok(Topology {
            topic: TopicId::default(),
            compacted: false,
            partitions: vec![facts(0), facts(1)],
        })
    }
}

struct GatedReader {
    gate: Arc<Gate>,
    next: [i64; 2],
}

impl Reader<i64> for GatedReader {
    fn assign(&mut self, _: u32, _: Offset) -> Result<()> {
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        max: usize,
        intake: &mut Intake<i64>,
    ) -> Result<ReadProgress> {
        let shut = partition == 1 && !self.gate.open.load(Ordering::SeqCst);
        let next = &mut self.next[partition as usize];
        let stop = if shut {
            *next
        } else {
            (*next + max as i64).min(until).min(RECORDS)
        };
        for offset in *next..stop {
            let raw = Raw {
                offset,
                timestamp: EventTime(1),
                key: None,
                payload: Some(&[]),
            };
            intake.value(raw, offset);
        }
        *next = stop;
        if partition == 0 {
            *self.gate.ahead.lock() = stop;
        }
        Ok(ReadProgress {
            position: stop,
            at_end: stop == RECORDS,
            more: !shut && stop < RECORDS,
        })
    }
}

#[test]
fn a_partition_far_ahead_of_one_with_more_to_read_is_held_back() {
    let gated = Gated::default();
    let given = gated.clone();
    let flow = dataflow("paced", move |flow| {
        flow.source("numbers", given.clone())
            .key_by("third", |n| n % 3)
            .window("minutes", Tumbling::of(Duration::from_secs(60)))
            .aggregate(|a| a.count())
            .view("by_third");
    });
    let bounds = BufferLimits {
        batch_max: BATCH,
        skew_max: Duration::from_secs(SKEW_S as u64),
        ..BufferLimits::default()
    };
    let service = Service::start(
        &flow,
        RunSettings {
            until_end: true,
            bounds,
            ..RunSettings::default()
        },
    )
    .unwrap();
    // The first record of the second partition is at second 0, so the first one may be SKEW_S ahead, and a
    // batch.
    let paused = |text: &str| text.contains("thalweg_source_paused{source=\"numbers\",partition=\"0\"} 1");
    // Behind the gate nothing is known of the second partition, so nothing of the first may flow at all.
    let deadline = thalweg::clock::instant() + Duration::from_secs(60);
    while !paused(&service.metrics().text()) {
        assert!(
            thalweg::clock::instant() < deadline,
            "never paused: {}",
            service.metrics().text()
        );
        std::thread::yield_now();
    }
    let ahead = *gated.0.ahead.lock();
    assert!(
        ahead <= SKEW_S + 9 * BATCH as i64,
        "{ahead} records read of a partition that should wait"
    );
    gated.lift();
    let views = service.join().unwrap();
    let snapshot = views.closed().unwrap();
    assert!(
        snapshot.positions.iter().all(|(_, offset)| *offset == RECORDS),
        "{:?}",
        snapshot.positions
    );
}

/// More than the skew, in seconds.
const FEW: i64 = 5 * SKEW_S;

/// One partition has a record a second of event time, the other gives records that can't be decoded, without
/// end.
struct Flooded([i64; 2]);

fn flooded() -> impl Source<i64> {
    struct Flood;
    impl Source<i64> for Flood {
        fn open(self, _: &Environment) -> Result<OpenedSource<i64>> {
            Ok(OpenedSource {
                topic: "flooded".into(),
                description: "one partition of records, one of rubbish".into(),
                driver: Arc::new(Gated::default()),
                rules: TimeRules {
                    event_time: Some(Box::new(|s| EventTime::from_secs(*s))),
                    ..TimeRules::default()
                },
                dead_letters: None,
                reader: Box::new(|waker| {
                    waker.wake();
                    Ok(Box::new(Flooded([0; 2])))
                }),
            })
        }
    }
    Flood
}

impl Reader<i64> for Flooded {
    fn assign(&mut self, _: u32, _: Offset) -> Result<()> {
        Ok(())
    }

    fn read(
        &mut self,
        partition: u32,
        until: Offset,
        max: usize,
        intake: &mut Intake<i64>,
    ) -> Result<ReadProgress> {
        let end = if partition == 0 { FEW } else { Offset::MAX };
        let next = &mut self.0[partition as usize];
        let stop = (*next + max as i64).min(until).min(end);
        for offset in *next..stop {
            let raw = Raw {
                offset,
                timestamp: EventTime(1),
                key: None,
                payload: Some(&[]),
            };
            match partition {
                0 => intake.value(raw, offset),
                _ => intake.dead(raw, Cause::JsonSyntax, None),
            }
        }
        *next = stop;
        Ok(ReadProgress {
            position: stop,
            at_end: stop == end,
            more: stop < end,
        })
    }
}

#[test]
fn a_partition_of_nothing_but_rubbish_holds_no_other_back() {
    // On one worker they share a reader; on two, each has its own.
    for workers in 1..=2 {
        let flow = dataflow("flooded", |flow| {
            flow.source("numbers", flooded())
                .key_by("third", |n| n % 3)
                .window("minutes", Tumbling::of(Duration::from_secs(60)))
                .aggregate(|a| a.count())
                .view("by_third");
        });
        let bounds = BufferLimits {
            batch_max: BATCH,
            skew_max: Duration::from_secs(SKEW_S as u64),
            ..BufferLimits::default()
        };
        let settings = RunSettings {
            workers,
            bounds,
            ..RunSettings::default()
        };
        let service = Service::start(&flow, settings).unwrap();
        let all_read = |snapshot: &thalweg::view::Snapshot| {
            let first = snapshot.positions.first();
            first.is_some_and(|(id, offset)| id.partition == 0 && *offset == FEW)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let views = service.views().clone();
        // The time-out only ends a test that has failed.
        let wait = async { tokio::time::timeout(Duration::from_secs(60), views.wait(all_read)).await };
        let waited = runtime.block_on(wait);
        assert!(
            waited.is_ok(),
            "on {workers} workers: {:?}",
            views.closed().map(|snapshot| snapshot.positions.clone())
        );
        service.stop();
        service.join().unwrap();
    }
}
