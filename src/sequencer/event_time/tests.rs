//! Pace, idleness and watermarks, without thread, clock or reader.

use super::*;
use crate::position::EpochBinding;
use crate::sequencer::tests::{A, MS, at, live, look, open, read, rules, settings, topology};
use crate::sequencer::{Cuts, NextStep, SourceRules};

const B: SourceId = SourceId(2);
const S: Duration = Duration::from_secs(1);

/// The pace that a turn has ordered, if it did.
fn alignment(s: &mut Sequencer) -> Option<EventTime> {
    let _ = s.next(at(0, MS));
    let orders = s.take_orders().into_iter();
    let alignments = orders.filter_map(|order| match order {
        Order::Alignment(_, alignment) => Some(alignment),
        _ => None,
    });
    alignments.last()
}

/// A report of records without a valid event time, after ones up to `event_time`.
fn untimed(partition: u32, hi: i64, event_time: i64) -> ReadTo {
    ReadTo {
        timed: false,
        ..read(partition, hi, event_time)
    }
}

fn at_end(report: ReadTo) -> ReadTo {
    ReadTo {
        at_end: true,
        ..report
    }
}

fn idle_partitions(binding: &EpochBinding) -> Vec<u32> {
    let idle = binding.ranges.iter().filter(|r| r.idle);
    idle.map(|r| r.id.partition).collect()
}

#[test]
fn the_pace_is_that_of_the_partition_furthest_behind_that_has_more() {
    let mut s = live(3);
    assert_eq!(alignment(&mut s), Some(EventTime::MIN));
    s.read_to(read(0, 1, 500));
    s.read_to(read(1, 1, 700));
    assert_eq!(alignment(&mut s), None, "partition 2 has brought nothing yet");
    s.read_to(ReadTo {
        at_end: true,
        ..read(2, 1, 100)
    });
    assert_eq!(alignment(&mut s), Some(EventTime(500)));
    s.read_to(ReadTo {
        at_end: true,
        ..read(0, 2, 500)
    });
    assert_eq!(alignment(&mut s), Some(EventTime(700)));
    s.read_to(ReadTo {
        at_end: true,
        ..read(1, 2, 900)
    });
    assert_eq!(alignment(&mut s), Some(EventTime::MAX));
}

#[test]
fn a_partition_that_gets_no_further_in_event_time_is_not_waited_for() {
    let mut s = live(2);
    s.read_to(read(0, 1, 500));
    assert_eq!(
        alignment(&mut s),
        Some(EventTime::MIN),
        "nothing was read of partition 1"
    );
    s.read_to(untimed(1, 4_096, i64::MIN));
    assert_eq!(
        alignment(&mut s),
        Some(EventTime(500)),
        "nothing but dead letters"
    );
    s.read_to(read(1, 4_100, 100));
    assert_eq!(
        alignment(&mut s),
        Some(EventTime(100)),
        "it has event times after all"
    );
    s.read_to(untimed(1, 9_000, 100));
    assert_eq!(alignment(&mut s), Some(EventTime(500)), "and now no more");
    s.read_to(ReadTo {
        hi: 9_001,
        ..untimed(1, 9_000, 100)
    });
    assert_eq!(alignment(&mut s), None, "a hole in the log changes nothing");
    s.read_to(untimed(0, 2, 500));
    assert_eq!(alignment(&mut s), Some(EventTime::MAX), "nobody to wait for");
}

#[test]
fn a_partition_of_nothing_but_dead_letters_turns_idle_at_its_end_however_many_come() {
    let mut s = live(2);
    let mut idle = Vec::new();
    for n in 1..=20i64 {
        s.read_to(read(0, n, 1_000 * n));
        // There is something to bind of it in every epoch; up to the 15th it has more to read.
        let dead = untimed(1, n, i64::MIN);
        s.read_to(if n > 15 { at_end(dead) } else { dead });
        look(&mut s, at(n as u64, 100 * MS * n as u32));
        let binding = open(&mut s, at(n as u64, 100 * MS * n as u32));
        assert_eq!(binding.ranges.len(), 2);
        idle.extend(
            idle_partitions(&binding)
                .into_iter()
                .map(|partition| (partition, n)),
        );
        let watermark = if n > 15 {
            vec![(A, EventTime(1_000 * n - 100))]
        } else {
            vec![]
        };
        assert_eq!(binding.watermarks, watermark, "epoch {n}");
        s.closed(binding.epoch);
    }
    assert_eq!(idle, (16..=20).map(|n| (1, n)).collect::<Vec<_>>());
}

#[test]
fn a_source_is_bound_as_idle_when_no_partition_counts_and_as_back_with_a_valid_event_time() {
    let mut s = live(2);
    s.read_to(at_end(read(0, 1, 1_000)));
    s.read_to(at_end(read(1, 1, 1_000)));
    assert_eq!(open(&mut s, at(1, 10 * MS)).idle, []);
    s.read_to(at_end(read(0, 2, 2_000)));
    assert_eq!(open(&mut s, at(2, 500 * MS)).idle, []);
    look(&mut s, at(3, 1_100 * MS));
    let one = open(&mut s, at(3, 1_100 * MS));
    assert_eq!((idle_partitions(&one), one.idle), (vec![1], vec![]));
    s.closed(one.epoch);
    look(&mut s, at(4, 1_600 * MS));
    let both = open(&mut s, at(4, 1_600 * MS));
    assert_eq!(
        (both.watermarks, both.idle),
        (vec![], vec![(A, true)]),
        "W holds, the source leaves"
    );
    s.read_to(at_end(untimed(1, 2, 1_000)));
    assert_eq!(
        open(&mut s, at(5, 1_700 * MS)).idle,
        [],
        "said once; a dead letter does not wake it"
    );
    s.read_to(at_end(read(1, 3, 1_500)));
    s.closed(both.epoch);
    assert_eq!(open(&mut s, at(6, 1_800 * MS)).idle, [(A, false)]);
}

#[test]
fn a_source_that_was_silent_from_the_start_is_idle_once_all_of_it_is() {
    let mut s = live(2);
    let _ = s.next(at(0, Duration::ZERO));
    s.read_to(at_end(read(0, 0, i64::MIN)));
    look(&mut s, at(1, S));
    let first = open(&mut s, at(1, S));
    assert_eq!(
        (idle_partitions(&first), first.idle),
        (vec![0], vec![]),
        "partition 1 was not read yet"
    );
    s.read_to(at_end(read(1, 0, i64::MIN)));
    look(&mut s, at(2, 2 * S));
    let second = open(&mut s, at(2, 2 * S));
    assert_eq!(
        (idle_partitions(&second), second.idle),
        (vec![1], vec![(A, true)])
    );
    // A partition that is added may bring the source's first event.
    s.topology(A, &topology(7, &[(0, 0); 3]), at(3, 2 * S)).unwrap();
    s.read_to(at_end(read(2, 0, i64::MIN)));
    s.read_to(at_end(untimed(0, 1, i64::MIN)));
    assert_eq!(open(&mut s, at(4, 2 * S + 10 * MS)).idle, [(A, false)]);
    s.closed(second.epoch);
    look(&mut s, at(5, 4 * S));
    assert_eq!(open(&mut s, at(5, 4 * S)).idle, [(A, true)]);
}

/// After a restart, what the ledger names need not be all there is.
#[test]
fn epochs_wait_until_the_partitions_are_known() {
    let mut first = live(2);
    first.read_to(at_end(read(0, 1, 1_000)));
    let bound = open(&mut first, at(1, 10 * MS));
    assert_eq!(bound.watermarks, [], "partition 1 may hold anything");

    let mut s = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
    s.replay(bound, at(2, Duration::ZERO)).unwrap();
    s.live();
    s.closed(s.last());
    s.read_to(at_end(read(0, 2, 2_000)));
    assert_eq!(s.next(at(3, 2 * S)), NextStep::Idle, "though a record waits");
    s.topology(A, &topology(7, &[(0, 2), (0, 1)]), at(5, 2 * S))
        .unwrap();
    let some = open(&mut s, at(5, 2 * S));
    assert_eq!((some.watermarks, some.idle), (vec![], vec![]));
    s.read_to(at_end(read(1, 1, 300)));
    let all = open(&mut s, at(6, 2 * S + 10 * MS));
    assert_eq!((all.watermarks, all.idle), (vec![(A, EventTime(200))], vec![]));
}

#[test]
fn a_table_is_never_idle_and_has_no_watermark() {
    let table = SourceRules {
        id: B,
        timed: false,
        ..rules()
    };
    let mut s = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![table]);
    s.live();
    s.topology(B, &topology(7, &[(0, 1)]), at(0, Duration::ZERO))
        .unwrap();
    let id = PartitionId {
        source: B,
        partition: 0,
    };
    s.read_to(at_end(ReadTo {
        id,
        ..read(0, 1, 1_000)
    }));
    let binding = open(&mut s, at(1, 10 * MS));
    assert_eq!((binding.watermarks, binding.idle), (vec![], vec![]));
    s.closed(binding.epoch);
    assert_eq!(s.next(at(2, 100 * S)), NextStep::Idle);
}

// ---- at its end, and not quiet
// ------------------------------------------------------------------------------------

/// A look at a log that begins with 0, ends with `end`, and has records of an open transaction from there to
/// `high`.
fn seen(s: &mut Sequencer, end: i64, high: i64, now: Duration) {
    let mut seen = topology(7, &[(0, end)]);
    seen.partitions[0].high_watermark = high;
    s.topology(A, &seen, at(1, now)).unwrap();
}

/// One partition, whose only event was bound at 0.1 s, and which was read to its end.
fn read_to_its_end() -> Sequencer {
    let mut s = live(1);
    s.read_to(at_end(read(0, 10, 1_000)));
    let bound = open(&mut s, at(1, 100 * MS));
    s.closed(bound.epoch);
    s
}

#[track_caller]
fn turns_idle(s: &mut Sequencer, now: Duration) {
    assert_eq!(idle_partitions(&open(s, at(2, now))), [0]);
}

#[track_caller]
fn stays(s: &mut Sequencer, now: Duration) {
    let next = s.next(at(2, now));
    assert!(matches!(next, NextStep::Wait(_)), "{next:?}");
}

#[test]
fn only_a_look_shows_that_a_log_is_quiet() {
    let mut s = read_to_its_end();
    stays(&mut s, 3_600 * S);
    seen(&mut s, 10, 10, 1_099 * MS);
    stays(&mut s, 3_600 * S);
    seen(&mut s, 10, 10, 1_100 * MS);
    turns_idle(&mut s, 1_101 * MS);
}

#[test]
fn an_open_transaction_is_not_quiet_and_what_follows_begins_anew() {
    let mut s = read_to_its_end();
    for second in 1..=20 {
        seen(&mut s, 10, 14, second * S);
        stays(&mut s, second * S);
    }
    // It was aborted: its records and its marker are a hole.
    seen(&mut s, 15, 15, 20 * S + 500 * MS);
    s.read_to(ReadTo {
        hi: 15,
        ..at_end(untimed(0, 10, 1_000))
    });
    let hole = open(&mut s, at(2, 20 * S + 501 * MS));
    assert_eq!(idle_partitions(&hole), [0u32; 0]);
    s.closed(hole.epoch);
    seen(&mut s, 15, 15, 20 * S + 999 * MS);
    stays(&mut s, 21 * S);
    seen(&mut s, 15, 15, 21 * S);
    turns_idle(&mut s, 21 * S);
}

/// Slowed down by the broker, held back as it is ahead of others, out of room, led by another broker,
/// assigned to a worker that has not begun: whatever the reason, the log has more than was read.
#[test]
fn a_log_with_more_than_was_read_is_not_quiet() {
    let mut s = read_to_its_end();
    for second in 1..=20 {
        seen(&mut s, 12, 12, second * S);
        stays(&mut s, second * S);
    }
    // The oldest look is caught up with, but by an event.
    s.read_to(at_end(read(0, 12, 2_000)));
    assert_eq!(idle_partitions(&open(&mut s, at(2, 30 * S))), [0u32; 0]);
    seen(&mut s, 12, 12, 30 * S);
    s.closed(s.last());
    stays(&mut s, 31 * S);
    seen(&mut s, 12, 12, 31 * S);
    turns_idle(&mut s, 31 * S);
}

#[test]
fn while_nobody_answers_nothing_is_quiet() {
    let mut s = read_to_its_end();
    seen(&mut s, 10, 10, S);
    s.unseen(A, at(1, 60 * S));
    stays(&mut s, 60 * S);
    seen(&mut s, 10, 10, 60 * S + 999 * MS);
    stays(&mut s, 62 * S);
    seen(&mut s, 10, 10, 61 * S);
    turns_idle(&mut s, 61 * S);
}

/// Three epochs are unfinished for a minute: readers may have stopped with more to read.
#[test]
fn a_long_wait_for_others_says_nothing_of_the_log() {
    let mut s = live(1);
    for n in 1..=3i64 {
        s.read_to(at_end(read(0, n, n)));
        open(&mut s, at(n as u64, 10 * MS * n as u32));
    }
    seen(&mut s, 9, 9, 30 * S);
    assert_eq!(s.next(at(4, 60 * S)), NextStep::Idle);
    s.closed(s.last());
    stays(&mut s, 60 * S);
    s.read_to(at_end(read(0, 9, 9)));
    assert_eq!(idle_partitions(&open(&mut s, at(5, 61 * S))), [0u32; 0]);
}

#[test]
fn records_without_event_time_are_caught_up_with_though_there_are_always_more() {
    let mut s = read_to_its_end();
    for n in 1..=30i64 {
        let now = 100 * MS * (n as u32 + 1);
        // Each look finds one that is read after it.
        seen(&mut s, 10 + n, 10 + n, now);
        s.read_to(at_end(untimed(0, 10 + n, 1_000)));
        let binding = open(&mut s, at(n as u64, now + 50 * MS));
        assert_eq!(!idle_partitions(&binding).is_empty(), n >= 10, "after {now:?}");
        s.closed(binding.epoch);
    }
}

#[test]
fn a_log_that_becomes_shorter_is_looked_at_anew() {
    let mut s = read_to_its_end();
    seen(&mut s, 20, 20, S);
    seen(&mut s, 10, 10, 2 * S);
    turns_idle(&mut s, 2 * S);
}

#[test]
fn a_long_replay_is_not_quiet() {
    let mut first = live(1);
    first.read_to(at_end(read(0, 1, 1_000)));
    let bound = open(&mut first, at(1, 10 * MS));
    let mut s = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
    s.replay(bound, at(2, Duration::ZERO)).unwrap();
    s.read_to(at_end(read(0, 1, 1_000)));
    s.live();
    s.topology(A, &topology(7, &[(0, 1)]), at(3, 60 * S)).unwrap();
    s.closed(s.last());
    assert_eq!(s.next(at(3, 60 * S)), NextStep::Wait(S));
    look(&mut s, at(4, 61 * S));
    assert_eq!(idle_partitions(&open(&mut s, at(4, 61 * S))), [0]);
}
