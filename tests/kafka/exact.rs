//! All that is in the topics is counted once, on any number of workers, however epochs are cut, and after
//! kill -9; what can't be counted is a dead letter.
//!
//! ```text
//!   partition 0   many records          1 % malformed, 1 % late, two versions of the schema
//!   partition 1   fewer                 the same
//!   partition 2   fewer still           the same; slow: a few records a read
//!   partition 3   none, ever            idle: windows close and expire without it
//! ```

use std::path::Path;
use std::time::Duration;

use thalweg::position::SourceId;
use thalweg::time::EventTime;
use thalweg::view::Snapshot;

use super::load::{BEGIN_MS, Random, Till, Topics};
use super::node::{self, Node, Said};
use super::oracle::{Log, Rows, compare};
use super::pace::Pace;
use super::{eventually, flow};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

/// Each partition spans about the same half hour of event time.
const SPAN_MS: i64 = 1_800_000;
/// The last record of each: where the watermark ends then rests on the log alone, whichever of them is called
/// idle.
const END_MS: i64 = BEGIN_MS + SPAN_MS + 120_000;
const SLOW: u32 = 2;

#[test]
fn every_row_and_dead_letter_is_what_the_topics_say() {
    prove("exact", [182_000, 80_000, 38_000]);
}

/// `make proof` runs it: in a debug build it takes minutes.
#[test]
#[ignore = "takes minutes: `make proof`"]
fn every_row_and_dead_letter_of_a_million_records() {
    prove("million", [600_000, 280_000, 120_000]);
}

fn prove(name: &str, records: [usize; 3]) {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, name);
    let total = write(&topics, records);
    let expected = Log::read(&topics).idle(1).expected(&|_, _| i64::MAX);
    has_a_point(&expected, total);
    let pace = Pace {
        slow: [(SLOW, 50)].into(),
        ..Pace::default()
    };
    let node = Node::of(&topics, &registry.url())
        .idle_after(Duration::from_millis(200))
        .pace(pace.clone());
    let ways = [(1, 5), (2, 200)].map(|(workers, ms)| (workers, Duration::from_millis(ms)));
    for (workers, interval) in ways {
        let run = node.clone().workers(workers).interval(interval);
        compare(&expected, &counted(&run, &topics));
    }
    // Once more, killed in the middle, each time with the other number of workers and cut of epochs. One
    // partition is not read beyond that middle, and nobody runs far ahead of it: however late the kill comes,
    // it is not at the end.
    let dir = tempfile::tempdir().unwrap();
    let mut closed = 0;
    for (third, (workers, interval)) in (1..).zip(ways) {
        let held = Pace {
            held: [(SLOW, records[SLOW as usize] as i64 * third / 3)].into(),
            ..pace.clone()
        };
        let run = node.clone().workers(workers).interval(interval).pace(held);
        let run = run.checkpoints(Duration::from_millis(50));
        closed = killed(&run.data_dir(dir.path()), closed + 1);
        let bound = bound(dir.path());
        assert!(
            bound > 0 && bound < total as u64,
            "{bound} records were bound by the kill"
        );
    }
    compare(
        &expected,
        &counted(
            &node
                .workers(2)
                .data_dir(dir.path())
                .checkpoints(Duration::from_millis(50)),
            &topics,
        ),
    );
}

fn write(topics: &Topics<'_>, records: [usize; 3]) -> usize {
    topics.write_merchants(&mut Random(5), 400);
    std::thread::scope(|scope| {
        for (partition, records) in (0..).zip(records) {
            scope.spawn(move || {
                let mut till = Till::new(17, partition, SPAN_MS / records as i64);
                // In pieces: a million records at once are a lot of memory.
                let mut left = records - 1;
                while left > 0 {
                    let piece = left.min(20_000);
                    topics.write(&topics.payments, partition as i32, &till.take(topics, piece));
                    left -= piece;
                }
                topics.write(&topics.payments, partition as i32, &[till.last(topics, END_MS)]);
            });
        }
    });
    records.iter().sum()
}

/// What the topics are said to hold is in them.
fn has_a_point(expected: &Rows, total: usize) {
    let letters = &expected["payments.dead_letters"];
    let of = |what: &str| letters.iter().filter(|row| row.contains(what)).count();
    let (malformed, late) = (of(r#""step":"payments""#), of(r#""step":"spend""#));
    let least = total * 9 / 1000;
    assert!(malformed >= least, "only {malformed} of {total} are malformed");
    assert!(late >= least, "only {late} of {total} are late");
    let first = |view: &str| expected[view].iter().next().is_some();
    assert!(first("minute_spend") && first("merchant_spend"));
}

/// The rows once all records are counted, and the watermark is where the last ones have brought it.
fn counted(node: &Node, topics: &Topics<'_>) -> Rows {
    let service = node.start().unwrap();
    node::caught_up(&service, topics);
    let end = EventTime::from_millis(END_MS - flow::LATENESS.as_millis() as i64);
    let payments = [SourceId::of("payments")];
    let is_over = |snapshot: &std::sync::Arc<Snapshot>| snapshot.watermark(&payments) >= end;
    let newest = || service.views().closed();
    eventually(
        "the watermark",
        || newest().filter(is_over),
        || {
            let at = newest().map(|snapshot| snapshot.watermark(&payments));
            format!("wanted {end}, is at {at:?}")
        },
    );
    service.stop();
    node::rows(&node::joined(service).unwrap())
}

/// Kills a node when it has closed so many epochs; how many it had.
fn killed(node: &Node, upto: usize) -> usize {
    let mut process = node.spawn();
    let mut closed = 0;
    while closed < upto {
        match process.next().expect("a node that was not killed runs") {
            Said::Closed(_) => closed += 1,
            Said::Open(_) | Said::Live | Said::Restored(_) => {}
            said => panic!("a node that should run says {said:?}"),
        }
    }
    process.kill9();
    while let Some(said) = process.next() {
        closed += usize::from(matches!(said, Said::Closed(_)));
    }
    closed
}

/// How many records are bound.
fn bound(dir: &Path) -> u64 {
    thalweg::ledger::verify(dir).unwrap().records
}
