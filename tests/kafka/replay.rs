//! A replay drops nothing: what is late is the same however fast partitions are read. Where lateness is
//! measured by the newest event read of any partition, a partition that is read after the others is late as a
//! whole.

use std::time::Duration;

use thalweg::ledger::MemoryLog;
use thalweg::position::SourceId;

use super::load::{Random, Till, Topics};
use super::node::{self, Node};
use super::oracle;
use super::pace::Pace;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

const RECORDS: [usize; 4] = [24_000, 12_000, 8_000, 4_000];
const SPAN_MS: i64 = 3_600_000;
/// No partition is held back for another.
const FREE: Duration = Duration::MAX;

#[test]
fn what_is_late_does_not_depend_on_how_fast_partitions_are_read() {
    let slow = Pace {
        slow: [(1, 8), (3, 1)].into(),
        ..Pace::default()
    };
    let step_s = Duration::from_secs(1);
    read(
        "replay_speed",
        &[
            ("in step", 1, step_s, Pace::default()),
            ("as fast as each can be read", 2, FREE, Pace::default()),
            ("two of them slowly", 1, FREE, slow),
        ],
    );
}

#[test]
fn what_is_late_does_not_depend_on_which_partition_is_read_last() {
    let paused = |partition: u32| {
        let others = (0..4).filter(|p| *p != partition);
        let ends = others.map(|p| (p, RECORDS[p as usize] as i64)).collect();
        Pace {
            paused: Some((partition, ends)),
            ..Pace::default()
        }
    };
    read(
        "replay_last",
        &[
            ("the one with most records last", 1, FREE, paused(0)),
            ("the one with fewest last", 2, FREE, paused(3)),
        ],
    );
}

fn read(name: &str, readings: &[(&str, usize, Duration, Pace)]) {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, name);
    topics.write_merchants(&mut Random(6), 50);
    for (partition, records) in (0..).zip(RECORDS) {
        let mut till = Till::new(19, partition, SPAN_MS / records as i64);
        topics.write(&topics.payments, partition as i32, &till.take(&topics, records));
    }
    let expected = oracle::expected(&topics);
    for (how, workers, skew_max, pace) in readings {
        let log = MemoryLog::default();
        let last = pace.paused.as_ref().map(|(partition, _)| *partition);
        let node = Node::of(&topics, &registry.url()).workers(*workers).until_end();
        let service = node
            .skew_max(*skew_max)
            .pace(pace.clone())
            .start_on(log.clone())
            .unwrap();
        let views = node::joined(service).unwrap();
        if let Some(last) = last {
            assert!(is_last(&log, last), "{how}: partition {last} was not read last");
        }
        let (found, of) = (node::rows(&views), "payments.dead_letters");
        println!(
            "{how}: {} of {} dead letters",
            found[of].len(),
            expected[of].len()
        );
        oracle::compare(&expected, &found);
    }
}

/// Whether a partition of payments was bound in no epoch before all others were bound to their ends.
fn is_last(log: &MemoryLog, partition: u32) -> bool {
    let bindings = log.bindings();
    let payments = SourceId::of("payments");
    let has = |of: &dyn Fn(u32) -> bool| {
        let ranges = bindings
            .iter()
            .enumerate()
            .flat_map(|(n, b)| b.ranges.iter().map(move |r| (n, r)));
        ranges
            .filter(|(_, range)| range.id.source == payments && range.records > 0 && of(range.id.partition))
            .map(|(n, _)| n)
            .collect::<Vec<_>>()
    };
    let (others, last) = (has(&|p| p != partition), has(&|p| p == partition));
    others.iter().max() <= last.iter().min()
}
