//! The state machine alone: no thread, no clock, no reader.

use proptest::prelude::*;

use super::*;
use crate::source::{PartitionFacts, Topology};

pub(super) const A: SourceId = SourceId(1);
pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) fn id(partition: u32) -> PartitionId {
    PartitionId { source: A, partition }
}

/// A source with a lateness of 100 µs, idle after 1 s, and a far-future bound of one minute.
pub(super) fn rules() -> SourceRules {
    SourceRules {
        id: A,
        name: "orders".into(),
        lateness: Duration::from_micros(100),
        idle_after: Duration::from_secs(1),
        future_bound: Duration::from_secs(60),
        timed: true,
    }
}

pub(super) fn settings(cuts: Cuts) -> SequencerSettings {
    SequencerSettings {
        cuts,
        epochs_in_flight_max: 3,
        replay_in_flight_max: 100,
        results: None,
        workers: 2,
    }
}

pub(super) fn topology(topic: u8, partitions: &[(i64, i64)]) -> Topology {
    let facts = (0u32..)
        .zip(partitions)
        .map(|(partition, (start, end))| PartitionFacts::new(partition, *start, *end));
    Topology {
        topic: TopicId([topic; 16]),
        compacted: false,
        partitions: facts.collect(),
    }
}

pub(super) fn at(wall: u64, mono: Duration) -> ClockReading {
    ClockReading { wall, mono }
}

/// A live sequencer, by the clock, that knows `partitions` partitions from offset 0.
pub(super) fn live(partitions: usize) -> Sequencer {
    let mut sequencer = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
    sequencer.live();
    sequencer
        .topology(A, &topology(7, &vec![(0, 10); partitions]), at(0, Duration::ZERO))
        .unwrap();
    let _ = sequencer.take_orders();
    sequencer
}

/// A look, begun at `now`, that finds nothing beyond what was read.
pub(super) fn look(sequencer: &mut Sequencer, now: ClockReading) {
    let ends: Vec<_> = sequencer.partitions.values().map(|p| (0, p.read_to())).collect();
    sequencer.topology(A, &topology(7, &ends), now).unwrap();
}

/// A report as a reader's: one record for each offset, each of hash 10, and the last one's event time the
/// highest.
pub(super) fn read(partition: u32, hi: Offset, event_time: i64) -> ReadTo {
    ReadTo {
        id: id(partition),
        hi,
        records: hi as u64,
        hash: 10 * hi as u64,
        timed: true,
        event_time_max: EventTime(event_time),
        limit: EventTime::MAX,
        at_end: false,
        behind: 0,
    }
}

#[track_caller]
pub(super) fn open(sequencer: &mut Sequencer, now: ClockReading) -> EpochBinding {
    match sequencer.next(now) {
        NextStep::Open(binding) => (*binding).clone(),
        other => panic!("expected an epoch, got {other:?}"),
    }
}

fn ranges(binding: &EpochBinding) -> Vec<(u32, i64, i64, u64)> {
    binding
        .ranges
        .iter()
        .map(|r| (r.id.partition, r.lo, r.hi, r.records))
        .collect()
}

#[test]
fn a_clock_set_back_does_not_set_epochs_back() {
    let mut s = live(1);
    let mut epochs = Vec::new();
    for (i, wall) in [1_000, 2_000, 500, 500, 3_000].into_iter().enumerate() {
        s.read_to(read(0, i as i64 + 1, 1));
        let binding = open(&mut s, at(wall, 10 * MS * (i as u32 + 1)));
        assert_eq!(binding.now, EventTime(wall as i64), "now is what the clock says");
        s.closed(binding.epoch);
        epochs.push(binding.epoch.0);
    }
    assert_eq!(epochs, [1_000, 2_000, 2_001, 2_002, 3_000]);
}

#[test]
fn an_epoch_opens_after_the_interval_and_only_when_something_waits() {
    let mut s = live(1);
    assert!(
        matches!(s.next(at(0, 10 * MS)), NextStep::Wait(_)),
        "only the next limit is waited for"
    );
    s.read_to(read(0, 1, 1));
    open(&mut s, at(1, 10 * MS));
    s.read_to(read(0, 2, 2));
    assert_eq!(s.next(at(2, 12 * MS)), NextStep::Wait(3 * MS));
    assert_eq!(ranges(&open(&mut s, at(3, 15 * MS))), [(0, 1, 2, 1)]);
}

#[test]
fn epochs_in_flight_are_bounded_and_the_next_one_takes_all_that_waits() {
    let mut s = live(1);
    let mut opened = Vec::new();
    for n in 1..=3 {
        s.read_to(read(0, n, n));
        opened.push(open(&mut s, at(n as u64, 10 * MS * n as u32)).epoch);
    }
    for n in 4..=9 {
        s.read_to(read(0, n, n));
        assert_eq!(s.next(at(n as u64, 10 * MS * n as u32)), NextStep::Idle);
    }
    assert_eq!(s.in_flight(), 3);
    s.closed(opened[0]);
    assert_eq!(ranges(&open(&mut s, at(100, 200 * MS))), [(0, 3, 9, 6)]);
    s.closed(Epoch(100));
    assert!(!s.is_busy());
}

#[test]
fn a_range_has_one_limit() {
    let mut s = live(1);
    let limited = |hi, limit| ReadTo {
        limit: EventTime(limit),
        ..read(0, hi, hi)
    };
    for report in [limited(1, 50), limited(3, 50), limited(4, 60), limited(5, 50)] {
        s.read_to(report);
    }
    let mut bound = Vec::new();
    for n in 1..=3u32 {
        let binding = open(&mut s, at(u64::from(n), 10 * MS * n));
        bound.push((binding.ranges[0].hi, binding.ranges[0].limit.0));
    }
    assert_eq!(bound, [(3, 50), (4, 60), (5, 50)]);
}

#[test]
fn limits_follow_the_clock_also_where_nothing_is_read() {
    let mut s = live(1);
    let limits = |s: &mut Sequencer, now| {
        let _ = s.next(now);
        let orders = s.take_orders().into_iter();
        orders
            .filter_map(|order| {
                if let Order::Limit(_, limit) = order {
                    Some(limit.0)
                } else {
                    None
                }
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(limits(&mut s, at(1_000, Duration::ZERO)), [62_001_000]);
    assert_eq!(limits(&mut s, at(2_000, 10 * MS)), [0i64; 0], "not at every turn");
    assert_eq!(s.next(at(2_000, 400 * MS)), NextStep::Wait(600 * MS));
    assert_eq!(limits(&mut s, at(9_000, 1_000 * MS)), [62_009_000]);
    assert_eq!(s.next(at(9_000, 1_000 * MS)), NextStep::Wait(1_000 * MS));
}

#[test]
fn what_is_named_far_future_moves_nothing() {
    let mut s = live(1);
    s.read_to(ReadTo {
        timed: false,
        event_time_max: EventTime::MIN,
        ..read(0, 4, 0)
    });
    let binding = open(&mut s, at(1, 10 * MS));
    assert_eq!((binding.watermarks.len(), binding.records()), (0, 4));
}

#[test]
fn a_partition_turns_idle_at_its_end_only_and_is_bound_so_once() {
    let mut s = live(2);
    s.read_to(ReadTo {
        at_end: true,
        ..read(0, 5, 1_000)
    });
    s.read_to(read(1, 5, 400));
    let first = open(&mut s, at(1, 10 * MS));
    assert_eq!(first.watermarks, [(A, EventTime(300))]);
    // Partition 1 has more to read, so it is not idle however long that takes.
    let late = at(2, Duration::from_secs(60));
    look(&mut s, late);
    let second = open(&mut s, late);
    assert_eq!(ranges(&second), [(0, 5, 5, 0)]);
    assert!(second.ranges[0].idle && second.watermarks.is_empty());
    assert!(
        matches!(s.next(late), NextStep::Wait(_)),
        "an idle service writes nothing"
    );
    // Now partition 1 comes to its end: only then its second of quiet counts.
    s.read_to(ReadTo {
        at_end: true,
        ..read(1, 6, 500)
    });
    let third = open(&mut s, at(3, Duration::from_secs(61)));
    assert_eq!(
        (ranges(&third), third.watermarks),
        (vec![(1, 5, 6, 1)], vec![(A, EventTime(400))])
    );
    s.closed(third.epoch);
    look(&mut s, at(4, Duration::from_millis(61_999)));
    assert_eq!(s.next(at(4, Duration::from_millis(61_999))), NextStep::Wait(MS));
    look(&mut s, at(5, Duration::from_secs(62)));
    let fourth = open(&mut s, at(5, Duration::from_secs(62)));
    assert!(
        fourth.ranges[0].idle && fourth.watermarks.is_empty(),
        "all idle: W holds"
    );
    assert!(matches!(
        s.next(at(6, Duration::from_secs(90))),
        NextStep::Wait(_)
    ));
}

#[test]
fn an_idle_partition_counts_again_with_a_valid_event_time() {
    let mut s = live(2);
    s.read_to(ReadTo {
        at_end: true,
        ..read(0, 1, 1_000)
    });
    s.read_to(ReadTo {
        at_end: true,
        ..read(1, 1, 5_000)
    });
    assert_eq!(open(&mut s, at(1, 10 * MS)).watermarks, [(A, EventTime(900))]);
    s.read_to(ReadTo {
        at_end: true,
        ..read(1, 2, 6_000)
    });
    open(&mut s, at(2, 900 * MS));
    look(&mut s, at(3, Duration::from_millis(1_010)));
    let idle = open(&mut s, at(3, Duration::from_millis(1_010)));
    assert_eq!(
        (ranges(&idle), idle.watermarks),
        (vec![(0, 1, 1, 0)], vec![(A, EventTime(5_900))])
    );
    s.closed(idle.epoch);
    // A record without a valid time does not wake it …
    s.read_to(ReadTo {
        at_end: true,
        timed: false,
        ..read(0, 2, 1_000)
    });
    let dead = open(&mut s, at(4, Duration::from_millis(1_100)));
    assert!(dead.ranges[0].idle && dead.watermarks.is_empty());
    // … one with a time does, and holds W where it is until it has caught up.
    s.read_to(ReadTo {
        at_end: true,
        ..read(0, 3, 2_000)
    });
    s.read_to(ReadTo {
        at_end: true,
        ..read(1, 3, 9_000)
    });
    let back = open(&mut s, at(5, Duration::from_millis(1_200)));
    assert!(
        !back.ranges[0].idle && back.watermarks.is_empty(),
        "W never goes back: {back:?}"
    );
    s.read_to(ReadTo {
        at_end: true,
        ..read(0, 4, 8_000)
    });
    assert_eq!(
        open(&mut s, at(6, Duration::from_millis(1_300))).watermarks,
        [(A, EventTime(7_900))]
    );
}

#[test]
fn a_busy_partition_does_not_keep_a_quiet_one_from_turning_idle() {
    let mut s = live(2);
    s.read_to(ReadTo {
        at_end: true,
        ..read(0, 1, 1_000)
    });
    let mut idle = Vec::new();
    for n in 1..=20 {
        s.read_to(read(1, n, 1_000 * n));
        look(&mut s, at(n as u64, 100 * MS * n as u32));
        let binding = open(&mut s, at(n as u64, 100 * MS * n as u32));
        idle.extend(
            binding
                .ranges
                .iter()
                .filter(|r| r.idle)
                .map(|r| (r.id.partition, n)),
        );
        s.closed(binding.epoch);
    }
    assert_eq!(idle, [(0, 11)], "a second after its last record, and once");
    assert_eq!(s.watermarks[&A], EventTime(19_900));
}

#[test]
fn a_new_partition_starts_at_its_logs_start_and_the_watermark_waits_for_what_it_held() {
    let mut s = live(1);
    s.read_to(read(0, 1, 1_000));
    open(&mut s, at(1, 10 * MS));
    let _ = s.take_orders();
    // One with records, and one without.
    s.topology(A, &topology(7, &[(0, 10), (4, 9), (3, 3)]), at(2, 20 * MS))
        .unwrap();
    assert_eq!(
        s.take_orders().first(),
        Some(&Order::Assign {
            id: id(1),
            worker: 0,
            from: 4,
            event_time_max: EventTime::MIN,
            idle: false,
        })
    );
    s.read_to(read(0, 2, 2_000));
    s.read_to(ReadTo {
        records: 1,
        timed: false,
        ..read(1, 5, i64::MIN)
    });
    let waits = open(&mut s, at(2, 20 * MS));
    assert_eq!(waits.watermarks, [], "a dead letter, and more to read");
    s.closed(waits.epoch);
    // What it holds is on time, though others are ahead.
    s.read_to(ReadTo {
        records: 3,
        ..read(1, 7, 1_100)
    });
    s.read_to(read(0, 3, 5_000));
    let binding = open(&mut s, at(3, 30 * MS));
    assert_eq!(
        (ranges(&binding), binding.watermarks),
        (vec![(0, 2, 3, 1), (1, 5, 7, 2)], vec![(A, EventTime(1_000))])
    );
}

#[test]
fn a_new_partition_without_a_valid_event_time_holds_nobody_up_once_it_is_read() {
    let mut s = live(1);
    s.read_to(read(0, 1, 1_000));
    open(&mut s, at(1, 10 * MS));
    let mut added = topology(7, &[(0, 10), (0, 2)]);
    added.partitions[1].high_watermark = 3;
    s.topology(A, &added, at(2, 20 * MS)).unwrap();
    let mut bound = Vec::new();
    for hi in 1..=3 {
        s.read_to(read(0, 1 + hi, 1_000 * (1 + hi)));
        s.read_to(ReadTo {
            timed: false,
            at_end: hi >= 2,
            event_time_max: EventTime::MIN,
            ..read(1, hi, 0)
        });
        let binding = open(&mut s, at(hi as u64 + 1, 10 * MS * (1 + hi as u32)));
        s.closed(binding.epoch);
        bound.push(binding.watermarks);
    }
    assert_eq!(
        bound,
        [vec![], vec![], vec![(A, EventTime(3_900))]],
        "also for what an open transaction had written"
    );
}

#[test]
fn topics_that_lost_something_are_refused_readably() {
    let refused = |partitions: &[(i64, i64)], topic| {
        let mut s = live(2);
        s.read_to(read(0, 5, 1));
        open(&mut s, at(1, 10 * MS));
        let error = s
            .topology(A, &topology(topic, partitions), at(2, 20 * MS))
            .unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Integrity);
        error.to_string()
    };
    let recreated = refused(&[(0, 10), (0, 10)], 8);
    assert!(
        recreated.contains("`orders` was deleted and recreated"),
        "{recreated}"
    );
    assert!(
        recreated.contains("0707") && recreated.contains("0808") && recreated.contains("hint:"),
        "{recreated}"
    );
    let fewer = refused(&[(0, 10)], 7);
    assert!(
        fewer.contains("`orders` has lost partitions") && fewer.contains("has 2; the broker has 1"),
        "{fewer}"
    );
    // What has no id is no topic.
    let mut s = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
    s.topology(A, &topology(0, &[(0, 10), (0, 10)]), at(0, Duration::ZERO))
        .unwrap();
    let gone = s.topology(A, &topology(0, &[(0, 10)]), at(1, 10 * MS));
    let gone = gone.unwrap_err().to_string();
    assert!(
        gone.contains("files that source `orders` has read") && gone.contains("has 2 of them; found: 1"),
        "{gone}"
    );
    assert!(
        gone.contains("hint: restore them") && !gone.contains("broker"),
        "{gone}"
    );
    let lost = refused(&[(6, 10), (0, 10)], 7);
    assert!(
        lost.contains("partition 0: read up to offset 5; the log now begins at 6"),
        "{lost}"
    );
    assert!(lost.contains("hint: raise the topic's retention"), "{lost}");
    let mut s = live(1);
    s.read_to(read(0, 5, 1));
    s.topology(A, &topology(7, &[(5, 10)]), at(1, MS))
        .expect("what was read may go from the log before it is bound");
}

#[test]
fn the_end_of_the_input_is_reached_when_all_of_it_is_bound() {
    let mut s = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
    s.until_end();
    s.live();
    assert!(
        !matches!(s.next(at(0, Duration::ZERO)), NextStep::Finished),
        "no source is known yet"
    );
    s.topology(A, &topology(7, &[(0, 3), (2, 2)]), at(0, Duration::ZERO))
        .unwrap();
    s.read_to(read(0, 2, 1));
    open(&mut s, at(1, 10 * MS));
    assert!(!matches!(s.next(at(2, 20 * MS)), NextStep::Finished));
    // What came since the start is not waited for.
    s.topology(A, &topology(7, &[(0, 9), (2, 9)]), at(2, 20 * MS))
        .unwrap();
    s.read_to(read(0, 3, 2));
    open(&mut s, at(3, 30 * MS));
    assert_eq!(s.next(at(4, 40 * MS)), NextStep::Finished);
}

#[test]
fn a_script_binds_what_it_names_and_waits_until_that_is_read() {
    let epoch = |epoch, hi: &[(u32, i64)], idle: &[u32]| ScriptedEpoch {
        epoch: Epoch(epoch),
        hi: hi.iter().map(|(p, hi)| (id(*p), *hi)).collect(),
        idle: idle.iter().map(|p| id(*p)).collect(),
    };
    let script = [
        epoch(5, &[(0, 2), (1, 0)], &[]),
        epoch(7, &[(0, 3), (1, 0)], &[1]),
        epoch(9, &[(0, 3), (1, 0)], &[]),
    ];
    let mut s = Sequencer::new(settings(Cuts::Script(script.into())), vec![rules()]);
    s.live();
    assert_eq!(s.next(at(0, MS)), NextStep::Idle);
    s.topology(A, &topology(7, &[(0, 3), (0, 0)]), at(0, Duration::ZERO))
        .unwrap();
    s.read_to(read(0, 1, 1_000));
    assert_eq!(s.next(at(0, MS)), NextStep::Idle);
    s.read_to(read(0, 2, 2_000));
    s.read_to(read(0, 3, 3_000));
    let first = open(&mut s, at(0, MS));
    assert_eq!(
        (first.epoch, first.now, ranges(&first)),
        (Epoch(5), EventTime(5), vec![(0, 0, 2, 2)])
    );
    assert_eq!(
        first.watermarks,
        [],
        "partition 1 brought nothing, and is not idle for that"
    );
    let second = open(&mut s, at(0, MS));
    assert_eq!(
        (ranges(&second), second.watermarks),
        (vec![(0, 2, 3, 1), (1, 0, 0, 0)], vec![(A, EventTime(2_900))])
    );
    assert_eq!(
        ranges(&open(&mut s, at(0, MS))),
        [],
        "an epoch that changes nothing names nothing"
    );
    assert_eq!(s.next(at(0, MS)), NextStep::Finished);
}

/// What a random run is made of.
#[derive(Clone, Debug)]
enum Event {
    Read {
        partition: u32,
        records: u8,
        time: Option<i16>,
        at_end: bool,
        limit: bool,
    },
    Pass {
        ms: u16,
        back: bool,
    },
    Close(usize),
    /// A look at a log that ends behind what was read, with an open transaction or not; or one that fails.
    Look {
        beyond: u8,
        open: bool,
        fails: bool,
    },
    Next,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let read = (
        0u32..3,
        0u8..4,
        prop::option::of(any::<i16>()),
        any::<bool>(),
        prop::bool::weighted(0.1),
    );
    let event = prop_oneof![
        4 => read.prop_map(|(partition, records, time, at_end, limit)| Event::Read { partition, records, time, at_end, limit }),
        2 => (0u16..1500, prop::bool::weighted(0.2)).prop_map(|(ms, back)| Event::Pass { ms, back }),
        2 => (0usize..4).prop_map(Event::Close),
        3 => (0u8..2, prop::bool::weighted(0.1), prop::bool::weighted(0.1))
            .prop_map(|(beyond, open, fails)| Event::Look { beyond, open, fails }),
        6 => Just(Event::Next),
    ];
    prop::collection::vec(event, 0..120)
}

/// Runs the events; every binding, and the sequencer at the end.
fn run(events: &[Event]) -> (Vec<EpochBinding>, Sequencer, Vec<ReadTo>) {
    let mut s = live(3);
    let mut now = at(1_000_000_000, Duration::ZERO);
    let (mut bindings, mut reports): (Vec<EpochBinding>, Vec<ReadTo>) = (Vec::new(), Vec::new());
    let mut read_so_far = [read(0, 0, i64::MIN), read(1, 0, i64::MIN), read(2, 0, i64::MIN)];
    let (mut limit, mut closed, mut opened) = (0, 0, None);
    for event in events {
        match event {
            Event::Read {
                partition,
                records,
                time,
                at_end,
                limit: next_limit,
            } => {
                limit += i64::from(*next_limit);
                let last = &mut read_so_far[*partition as usize];
                last.hi += i64::from(*records) * 2; // Logs have holes.
                last.records += u64::from(*records);
                last.hash = last.hash.wrapping_add(u64::MAX / 7 * u64::from(*records));
                last.timed = time.is_some() && *records > 0;
                if let Some(time) = time.filter(|_| *records > 0) {
                    last.event_time_max = last.event_time_max.max(EventTime(i64::from(time)));
                }
                (last.at_end, last.limit) = (*at_end, EventTime(limit));
                s.read_to(*last);
                if *records > 0 {
                    reports.push(*last);
                }
            }
            Event::Pass { ms, back } => {
                now.mono += MS * u32::from(*ms);
                let us = u64::from(*ms) * 1000;
                now.wall = if *back {
                    now.wall - us.min(900_000)
                } else {
                    now.wall + us
                };
            }
            Event::Close(some) => {
                closed = (closed + some).min(bindings.len());
                if let Some(binding) = closed.checked_sub(1).map(|at| &bindings[at]) {
                    s.closed(binding.epoch);
                }
            }
            Event::Look { fails: true, .. } => s.unseen(A, now),
            Event::Look { beyond, open, .. } => {
                let ends: Vec<_> = read_so_far
                    .iter()
                    .map(|last| (0, last.hi + i64::from(*beyond)))
                    .collect();
                let mut seen = topology(7, &ends);
                seen.partitions[1].high_watermark += i64::from(*open);
                s.topology(A, &seen, now).unwrap();
            }
            Event::Next => {
                if let NextStep::Open(binding) = s.next(now) {
                    bindings.push((*binding).clone());
                    assert!(
                        opened.is_none_or(|opened| now.mono - opened >= 5 * MS),
                        "sooner than the interval"
                    );
                    opened = Some(now.mono);
                    assert!(
                        bindings.len() - closed <= 3,
                        "in flight: {} of {}",
                        bindings.len() - closed,
                        bindings.len()
                    );
                }
            }
        }
    }
    (bindings, s, reports)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bindings_say_what_was_reported_and_nothing_else(events in events()) {
        let (bindings, _, reports) = run(&events);
        let mut last = Epoch::ZERO;
        let mut known = [(0i64, 0u64, 0u64, EventTime::MIN, false); 3];
        let (mut watermark, mut idle) = (EventTime::MIN, false);
        for binding in &bindings {
            prop_assert!(binding.epoch > last, "{} after {last}", binding.epoch);
            last = binding.epoch;
            prop_assert!(!binding.ranges.is_empty(), "an epoch opened for nothing");
            for range in &binding.ranges {
                let known = &mut known[range.id.partition as usize];
                prop_assert_eq!(range.lo, known.0, "ranges leave no gap");
                if range.hi == range.lo {
                    prop_assert!(range.idle && !known.4 && range.records == 0, "named without a change: \
                        {:?}", range);
                } else {
                    let total = (range.hi, known.1 + range.records, known.2.wrapping_add(range.hash));
                    let of = |r: &&ReadTo| r.id == range.id && (r.hi, r.records, r.hash) == total;
                    let report = reports.iter().find(of);
                    prop_assert!(report.is_some(), "never reported: {range:?}");
                    prop_assert_eq!(report.map(|r| (r.event_time_max, r.limit)), Some((range.event_time_max, range.limit)));
                    let within = reports.iter().filter(|r| r.id == range.id && r.hi > range.lo && r.hi <= range.hi);
                    for covered in within.clone() {
                        prop_assert_eq!(covered.limit, range.limit, "one limit a range");
                    }
                    let timed = within.clone().any(|r| r.timed);
                    prop_assert!(!(timed && range.idle));
                    prop_assert!(timed || range.idle || !known.4, "only a valid event time wakes");
                    *known = (total.0, total.1, total.2, range.event_time_max, range.idle);
                }
                known.4 = range.idle;
            }
            // The watermark by its definition.
            let low = known.iter().filter(|k| !k.4).map(|k| k.3).min();
            let low = low.map(|low| if low == EventTime::MIN { low } else { low.minus(rules().lateness) });
            let should = low.map_or(watermark, |low| low.max(watermark));
            let said: Vec<_> = (should > watermark).then_some((A, should)).into_iter().collect();
            prop_assert_eq!(&binding.watermarks, &said);
            watermark = should;
            let all_idle = known.iter().all(|k| k.4);
            let turned: Vec<_> = (all_idle != idle).then_some((A, all_idle)).into_iter().collect();
            prop_assert_eq!(&binding.idle, &turned);
            idle = all_idle;
        }
    }

    #[test]
    fn a_replay_comes_to_the_same_state(events in events()) {
        let (bindings, first, reports) = run(&events);
        let mut second = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
        for binding in &bindings {
            prop_assert!(second.wants_replay() || second.in_flight() >= 100);
            second.replay(binding.clone(), at(1, Duration::ZERO)).unwrap();
        }
        prop_assert_eq!(second.next(at(1, Duration::ZERO)), NextStep::Idle, "nothing opens before the replay is \
            given out");
        second.closed(second.last());
        second.live();
        second.topology(A, &topology(7, &[(0, 10); 3]), at(1, Duration::ZERO)).unwrap();
        let orders = second.take_orders();
        prop_assert_eq!(orders.iter().filter(|order| matches!(order, Order::Epoch { replay: true, .. })).count(), bindings.len());
        prop_assert_eq!(orders.iter().filter(|order| matches!(order, Order::Assign { from: 0, .. })).count(), 3);
        let durable = orders.iter().position(|order| *order == Order::Durable(first.last()));
        let live = orders.iter().position(|order| *order == Order::Live);
        prop_assert!(durable.is_some() && durable < live);
        prop_assert_eq!((&first.watermarks, &first.idle), (&second.watermarks, &second.idle));
        for (id, partition) in &first.partitions {
            let again = &second.partitions[id];
            let of = |p: &PartitionProgress| (p.bound.hi, p.bound.event_time_max, p.bound.idle, p.counted);
            prop_assert_eq!(of(partition), of(again));
        }
        // Readers start over and report all of it again: only what was not bound before is bound now.
        for report in &reports {
            second.read_to(*report);
        }
        if let NextStep::Open(binding) = second.next(at(2, Duration::from_secs(1))) {
            prop_assert!(binding.epoch > first.last());
            for range in binding.ranges.iter().filter(|r| r.hi > r.lo) {
                prop_assert_eq!(range.lo, first.partitions[&range.id].bound.hi);
                let counted = first.partitions[&range.id].counted.0;
                let report = reports.iter().rfind(|r| r.id == range.id && r.hi == range.hi);
                prop_assert_eq!(report.map(|r| r.records - counted), Some(range.records));
            }
        }
    }
}

#[test]
fn a_ledger_of_another_dataflow_is_refused() {
    let mut s = Sequencer::new(settings(Cuts::Clock { interval: MS }), vec![rules()]);
    let mut other = live(1);
    other.read_to(read(0, 1, 1));
    let mut binding = open(&mut other, at(1, 10 * MS));
    binding.ranges[0].id.source = SourceId(99);
    let error = s.replay(binding, at(1, MS)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("a source that this dataflow does not have"),
        "{error}"
    );
}

/// How epochs grow.
mod growth {
    use super::super::cadence::ENOUGH;
    use super::super::*;
    use crate::source::{PartitionFacts, Topology};

    const MS: Duration = Duration::from_millis(1);
    const ID: PartitionId = PartitionId {
        source: SourceId(1),
        partition: 0,
    };

    fn at(ms: u32) -> ClockReading {
        ClockReading {
            wall: 1_000_000 + u64::from(ms) * 1_000,
            mono: MS * ms,
        }
    }

    fn live() -> Sequencer {
        let settings = SequencerSettings {
            cuts: Cuts::Clock { interval: 5 * MS },
            epochs_in_flight_max: 3,
            replay_in_flight_max: 3,
            results: None,
            workers: 1,
        };
        let rules = SourceRules {
            id: ID.source,
            name: "s".into(),
            lateness: Duration::ZERO,
            idle_after: 10_000 * MS,
            future_bound: 60_000 * MS,
            timed: true,
        };
        let mut sequencer = Sequencer::new(settings, vec![rules]);
        let partitions = vec![PartitionFacts::new(0, 0, 0)];
        sequencer
            .topology(
                ID.source,
                &Topology {
                    topic: TopicId::default(),
                    compacted: false,
                    partitions,
                },
                at(0),
            )
            .unwrap();
        sequencer.live();
        sequencer
    }

    fn read_to(sequencer: &mut Sequencer, records: u64, behind: u64) {
        let (hi, event_time_max, limit) = (records as i64, EventTime(1), EventTime::MAX);
        let report = ReadTo {
            id: ID,
            hi,
            records,
            hash: 0,
            timed: true,
            event_time_max,
            limit,
            at_end: false,
            behind,
        };
        sequencer.read_to(report);
    }

    fn opened(sequencer: &mut Sequencer, ms: u32) -> Option<u64> {
        match sequencer.next(at(ms)) {
            NextStep::Open(binding) => {
                sequencer.closed(binding.epoch);
                Some(binding.records())
            }
            NextStep::Wait(_) => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn epochs_are_short_unless_readers_stay_behind() {
        let mut sequencer = live();
        read_to(&mut sequencer, 10, 0);
        assert_eq!(sequencer.next(at(2)), NextStep::Wait(3 * MS));
        assert_eq!(opened(&mut sequencer, 5), Some(10), "the interval is over");
        read_to(&mut sequencer, 100_010, 0);
        assert_eq!(
            opened(&mut sequencer, 10),
            Some(100_000),
            "what was read and waits is no reason for longer epochs"
        );
        read_to(&mut sequencer, 100_020, ENOUGH);
        assert_eq!(opened(&mut sequencer, 15), Some(10));
        read_to(&mut sequencer, 100_030, ENOUGH);
        assert_eq!(sequencer.next(at(20)), NextStep::Wait(5 * MS), "twice as long");
        assert_eq!(opened(&mut sequencer, 25), Some(10));
        read_to(&mut sequencer, 100_030 + ENOUGH, ENOUGH);
        assert_eq!(opened(&mut sequencer, 30), Some(ENOUGH), "enough to be worth it");
    }
}

#[test]
fn schemas_are_bound_once_and_two_verdicts_are_refused() {
    let seen = |id, fingerprint| {
        Report::Schema(SchemaSeen {
            source: A,
            id,
            fingerprint,
            since: None,
        })
    };
    let late = |partition, offset| {
        Report::Schema(SchemaSeen {
            source: A,
            id: 2,
            fingerprint: Some(9),
            since: Some((partition, offset)),
        })
    };
    let mut s = live(1);
    for report in [
        seen(1, Some(7)),
        seen(2, None),
        seen(1, Some(7)),
        Report::Read(read(0, 1, 1)),
    ] {
        s.report(report).unwrap();
    }
    let first = open(&mut s, at(1, 10 * MS));
    assert_eq!(
        first
            .schemas
            .iter()
            .map(|s| (s.id, s.fingerprint))
            .collect::<Vec<_>>(),
        [(1, Some(7)), (2, None)]
    );
    s.report(seen(2, None)).unwrap();
    s.report(Report::Read(read(0, 2, 2))).unwrap();
    assert_eq!(open(&mut s, at(2, 20 * MS)).schemas, []);
    let error = s.report(seen(2, Some(9))).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("two answers for schema id 2\n  bound: unknown, now: 0000000000000009"),
        "{error}"
    );
    // What a replay was told of counts as bound, too.
    let mut again = Sequencer::new(settings(Cuts::Clock { interval: MS }), vec![rules()]);
    again.replay(first, at(1, MS)).unwrap();
    assert!(again.report(seen(1, Some(7))).is_ok() && again.report(seen(1, Some(8))).is_err());
    // An unknown one becomes known, in each partition once.
    let mut s = live(1);
    for report in [seen(2, None), late(0, 5), late(0, 5), late(1, 3)] {
        s.report(report).unwrap();
    }
    s.report(Report::Read(read(0, 1, 1))).unwrap();
    let since = |binding: &EpochBinding| binding.schemas.iter().map(|s| s.since).collect::<Vec<_>>();
    let known = vec![None, Some((0, 5)), Some((1, 3))];
    let bound = open(&mut s, at(1, 10 * MS));
    assert_eq!(since(&bound), known);
    assert_eq!(since(&s.base()), known, "a checkpoint has it too");
    let error = s.report(late(0, 6)).unwrap_err().to_string();
    let said = "bound: 0000000000000009, in partition 0 from offset 5 on, now: 0000000000000009, in \
        partition 0 from offset 6 on";
    assert!(error.contains(said), "{error}");
    let mut again = Sequencer::new(settings(Cuts::Clock { interval: MS }), vec![rules()]);
    again.replay(bound, at(1, MS)).unwrap();
    assert!(again.report(late(1, 3)).is_ok() && again.report(late(1, 4)).is_err());
}

#[test]
fn a_source_that_is_new_begins_where_it_is_told_and_that_is_bound() {
    let fresh = || {
        let mut sequencer = Sequencer::new(settings(Cuts::Clock { interval: 5 * MS }), vec![rules()]);
        sequencer.live();
        sequencer
    };
    let mut sequencer = fresh();
    sequencer.until_end();
    sequencer.starts(A, [(0, 10), (1, 7)]);
    sequencer
        .topology(
            A,
            &topology(7, &[(0, 10), (5, 10), (3, 3)]),
            at(0, Duration::ZERO),
        )
        .unwrap();
    let from = |sequencer: &mut Sequencer| {
        let orders = sequencer.take_orders().into_iter();
        let assigned = orders.filter_map(|order| match order {
            Order::Assign { id, from, .. } => Some((id.partition, from)),
            _ => None,
        });
        assigned.collect::<Vec<_>>()
    };
    assert_eq!(from(&mut sequencer), [(0, 10), (1, 7), (2, 3)]);
    // Bound though nothing was read, or the next start would choose again.
    let bound = open(&mut sequencer, at(9, 10 * MS));
    let places = |bound: &EpochBinding| {
        let ranges = bound.ranges.iter();
        ranges
            .map(|r| (r.id.partition, r.lo, r.hi, r.idle))
            .collect::<Vec<_>>()
    };
    assert_eq!(places(&bound), [(0, 10, 10, false), (1, 7, 7, false)]);
    assert_eq!(bound.topics, [(A, TopicId([7; 16]))]);

    // A restart goes by the ledger, and a partition that is added later is read from its beginning.
    let mut again = fresh();
    again.replay(bound, at(0, Duration::ZERO)).unwrap();
    again.starts(A, [(0, 12), (1, 12), (2, 12), (3, 12)]);
    again
        .topology(
            A,
            &topology(7, &[(0, 12), (5, 12), (3, 12), (1, 12)]),
            at(0, Duration::ZERO),
        )
        .unwrap();
    assert_eq!(from(&mut again), [(0, 10), (1, 7), (2, 3), (3, 1)]);

    for (starts, told) in [
        ((0, 11), "offset 11 is outside of the log, 0 to 10"),
        ((4, 0), "no partition 4"),
    ] {
        let mut sequencer = fresh();
        sequencer.starts(A, [starts]);
        let refused = sequencer.topology(A, &topology(7, &[(0, 10)]), at(0, Duration::ZERO));
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(told), "{text}");
    }
}
