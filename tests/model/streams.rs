//! Operators over streams, against their definitions: dedup, joins by time, lookups, sessions, hopping
//! windows, rows of closed windows, aggregates without windows, and processors with timers.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg::dataflow::stream::Events;
use thalweg::operator::process_events::{EventContext, EventProcessor};
use thalweg::prelude::*;
use thalweg::testing::Harness;
use timely::dataflow::operators::vec::Map;

use super::log::{
    EPOCHS, Log, Reading, Rows, Seen, check, config, instant, logs, read, runs, silences, together,
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Item {
    key: u32,
    n: i64,
    at_ms: i64,
}

const S: i64 = 1_000_000;
const LATENESS: i64 = 3 * S;

fn source<'s>(flow: Dataflow<'s>, name: &str, late: Late) -> Stream<'s, Item> {
    let items = Kafka::topic(name)
        .json::<Item>()
        .event_time(|i| EventTime::from_millis(i.at_ms));
    flow.source(
        name,
        items.lateness(Duration::from_micros(LATENESS as u64)).late(late),
    )
}

fn items() -> impl Strategy<Value = Log<Item>> {
    let at_ms = prop_oneof![8 => -4_000i64..4_000, 3 => -25_000i64..25_000];
    logs((0u32..3, -5i64..=5, at_ms), |epoch, (key, n, at_ms)| Item {
        key,
        n,
        at_ms: at_ms + 30_000 + 6_000 * epoch as i64,
    })
}

fn read_items(log: &Log<Item>) -> Reading<Item> {
    read(log, LATENESS, |i| i.at_ms * 1000)
}

fn policies() -> impl Strategy<Value = [Late; 2]> {
    let for_us = prop_oneof![Just(1), Just(2 * S), Just(7 * S)];
    let late = prop_oneof![
        Just(Late::DeadLetter),
        Just(Late::Drop),
        for_us.prop_map(|us| Late::Correct(Duration::from_micros(us as u64))),
    ];
    [late.clone(), late]
}

fn micros(d: Duration) -> i64 {
    d.as_micros() as i64
}

/// An event that a step takes, in the order of the log.
type Taken = Seen<Item>;

/// Those that are not late for a step over sources with these horizons.
fn taken(records: &[Taken], late: Late) -> Vec<Taken> {
    let on_time =
        |r: &&Taken| r.value().is_some() && r.time >= r.horizon.saturating_sub(micros(late.corrects()));
    records.iter().filter(on_time).cloned().collect()
}

fn item(record: &Taken) -> &Item {
    record.value().expect("only values are taken")
}

/// What a step has closed by each epoch, and by the one before.
fn closed(watermarks: &[i64], late_by: &[Late]) -> (Vec<i64>, Vec<i64>) {
    let held_back = late_by
        .iter()
        .map(|late| micros(late.corrects()))
        .max()
        .unwrap_or(0);
    let closed: Vec<i64> = watermarks.iter().map(|w| w.saturating_sub(held_back)).collect();
    let before = [i64::MIN].iter().chain(&closed).copied().take(EPOCHS).collect();
    (closed, before)
}

/// Serves events with their times, as a multiset.
fn served<'s, T: Event + Serialize>(events: &Stream<'s, T>, view: &str) {
    let timed = |events: Events<'s, T>| {
        events.map(|event| {
            let row = json!([event.value, event.time.0]).to_string();
            event.with(row)
        })
    };
    let rows = events.timely_stateless(timed).changes();
    let counted = rows.group_by("event", |row| row.clone());
    counted
        .aggregate(&format!("{view} counted"), |a| a.count())
        .view(view);
}

/// The rows of such a view.
fn multiset(events: impl IntoIterator<Item = (usize, Value, i64)>) -> Vec<Rows> {
    let events: Vec<_> = events.into_iter().collect();
    let upto = |n: usize| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (_, value, time) in events.iter().filter(|(epoch, ..)| *epoch <= n) {
            *counts.entry(json!([value, time]).to_string()).or_default() += 1;
        }
        let row = |(event, count)| json!({ "event": event, "value": count });
        counts.into_iter().map(row).collect()
    };
    (0..EPOCHS).map(upto).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn dedup_keeps_the_first_of_each_key(log in items(), late in policies(), within_ms in 0i64..12_000, runs in runs()) {
        let within = Duration::from_millis(within_ms as u64);
        let mut kept: Vec<Taken> = Vec::new();
        for record in taken(&read_items(&log).records, late[0]) {
            let near = |other: &Taken| item(other).key == item(&record).key && (other.time - record.time).abs() <= within_ms * 1000;
            if !kept.iter().any(near) {
                kept.push(record);
            }
        }
        let expected = multiset(kept.iter().map(|r| (r.epoch, json!(item(r)), r.time)));
        let flow = dataflow("dedup", move |flow: Dataflow<'_>| {
            served(&source(flow, "items", late[0]).key_by("key", |i| i.key).dedup("once", within), "kept");
        });
        check(&flow, &runs, |test, n| log.feed(test, "items", n), &BTreeMap::from([("kept", expected)]), |_, row| row)?;
    }

    #[test]
    fn interval_joins_pair_events_that_are_close(
        left in items(), right in items(), silences in silences(), late in policies(),
        bounds in prop::array::uniform2(-9_000_000i64..9_000_000), runs in runs(),
    ) {
        let [quiet, silent] = silences;
        let (left, right) = (left.silent(quiet), right.silent(silent));
        let (from, to) = (bounds[0].min(bounds[1]), bounds[0].max(bounds[1]));
        let (lefts, rights) = (read_items(&left), read_items(&right));
        let both = together(&[&lefts, &rights]);
        let (lefts, rights) = (taken(&lefts.behind(&both), late[0]), taken(&rights.behind(&both), late[1]));
        let (closed, _) = closed(&both, &late);
        let is_pair = |l: &Taken, r: &Taken| item(l).key == item(r).key && (from..=to).contains(&(r.time - l.time));
        let mut pairs = Vec::new();
        for l in &lefts {
            for r in rights.iter().filter(|r| is_pair(l, r)) {
                pairs.push((l.epoch.max(r.epoch), json!([item(l), item(r)]), l.time.max(r.time)));
            }
        }
        let mut outer = pairs.clone();
        for l in lefts.iter().filter(|l| !rights.iter().any(|r| is_pair(l, r))) {
            if let Some(n) = (l.epoch..EPOCHS).find(|n| closed[*n] > l.time + to.max(0)) {
                outer.push((n, json!([item(l), null]), l.time + to.max(0)));
            }
        }
        let expected = BTreeMap::from([("pairs", multiset(pairs)), ("outer", multiset(outer))]);
        let flow = dataflow("joins", move |flow: Dataflow<'_>| {
            let (left, right) = (source(flow, "left", late[0]), source(flow, "right", late[1]));
            let (left, right) = (|| left.key_by("key", |i: &Item| i.key), || right.key_by("key", |i: &Item| i.key));
            let interval = Interval::between_micros(from, to);
            served(&left().interval_join("join", &right(), interval, |_, l, r| (l.clone(), r.clone())), "pairs");
            served(&left().left_interval_join("left_join", &right(), interval, |_, l, r| (l.clone(), r.cloned())), "outer");
        });
        let feed = |test: &mut Harness, n| {
            left.feed(test, "left", n);
            right.feed(test, "right", n);
        };
        check(&flow, &runs, feed, &expected, |_, row| row)?;
    }

    #[test]
    fn lookups_are_as_of_the_epoch(
        log in items(), names in logs((0u32..3, prop::option::of(0u32..9)), |_, row| row), runs in runs(),
    ) {
        let mut table: BTreeMap<u32, u32> = BTreeMap::new();
        let (reading, mut rows, mut enriched) = (read_items(&log), Vec::new(), Vec::new());
        let changes = read(&names, 0, |_| 0).records;
        for n in 0..EPOCHS {
            for (key, name) in changes.iter().filter(|r| r.epoch == n).filter_map(Seen::value) {
                match name {
                    Some(name) => _ = table.insert(*key, *name),
                    None => _ = table.remove(key),
                }
            }
            rows.push(table.clone());
        }
        for record in reading.records.iter().filter(|r| r.value().is_some()) {
            let name = rows[record.epoch].get(&item(record).key);
            enriched.push((record.epoch, json!([item(record), name]), record.time));
        }
        let expected = BTreeMap::from([("enriched", multiset(enriched))]);
        let flow = dataflow("lookups", |flow: Dataflow<'_>| {
            let names = flow.table("names", Kafka::topic("names").json::<u32>().keyed::<u32>());
            let items = source(flow, "items", Late::Drop).key_by("key", |i| i.key);
            served(&items.lookup("named", &names, |_, item, name| (item, name.copied())), "enriched");
        });
        let feed = |test: &mut Harness, n| {
            log.feed(test, "items", n);
            names.feed_backwards(test, "names", n);
        };
        check(&flow, &runs, feed, &expected, |_, row| row)?;
    }

    #[test]
    fn aggregates_without_windows_are_of_all_events(log in items(), runs in runs()) {
        let reading = read_items(&log);
        let upto = |n: usize| {
            let mut keys: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
            for item in reading.records.iter().filter(|r| r.epoch <= n).filter_map(Seen::value) {
                let row = keys.entry(item.key).or_default();
                (row.0, row.1) = (row.0 + 1, row.1 + item.n);
            }
            keys.into_iter().map(|(key, (n, sum))| json!({ "key": key, "n": n, "sum": sum })).collect()
        };
        let expected = BTreeMap::from([("all", (0..EPOCHS).map(upto).collect())]);
        let flow = dataflow("all", |flow: Dataflow<'_>| {
            let items = source(flow, "items", Late::Drop).key_by("key", |i| i.key);
            items.aggregate_all("all", |a| (a.count(), a.sum(|i| i.n))).view_with("all", |view| view.fields(["n", "sum"]));
        });
        check(&flow, &runs, |test, n| log.feed(test, "items", n), &expected, |_, row| row)?;
    }
}

/// A window of some key.
type Place = (u32, i64, i64);

fn windows(rows: BTreeMap<Place, (u64, i64)>) -> Rows {
    let row = |((key, start, end), (n, sum)): (Place, (u64, i64))| json!({ "key": key, "window_start": instant(start), "window_end": instant(end), "n": n, "sum": sum });
    rows.into_iter().map(row).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn hopping_windows_and_what_they_close_with(
        log in items(), more in items(), silences in silences(), late in policies(),
        (size, every, offset) in (1i64..20, 1i64..20, 0i64..20), keep_s in 0u64..20, runs in runs(),
    ) {
        let [quiet, silent] = silences;
        let (log, more) = (log.silent(quiet), more.silent(silent));
        let (size, every) = (size * S, every * S);
        let offset = (offset * S) % every;
        let (items, others) = (read_items(&log), read_items(&more));
        let both = together(&[&items, &others]);
        let (closed, before) = closed(&both, &late);
        let of = |time: i64| {
            let starts = (-100..200).map(move |n| n * every + offset);
            starts.map(move |start| (start, start + size)).filter(move |w| w.0 <= time && time < w.1)
        };
        let mut given: Vec<(Taken, Late)> = items.behind(&both).into_iter().map(|r| (r, late[0])).collect();
        given.extend(others.behind(&both).into_iter().map(|r| (r, late[1])));
        given.retain(|(record, _)| record.value().is_some());
        let all = |n: usize| {
            let mut rows: BTreeMap<Place, (u64, i64)> = BTreeMap::new();
            for (record, late) in given.iter().filter(|(record, _)| record.epoch <= n) {
                for (start, end) in of(record.time) {
                    if end + micros(late.corrects()) > record.horizon {
                        let row = rows.entry((item(record).key, start, end)).or_default();
                        (row.0, row.1) = (row.0 + 1, row.1 + item(record).n);
                    }
                }
            }
            rows
        };
        let keep = Duration::from_secs(keep_s);
        let open = |n: usize| {
            let mut rows = all(n);
            rows.retain(|(_, _, end), _| end.saturating_add(micros(keep)) > closed[n] || *end > before[n]);
            windows(rows)
        };
        let mut finals = Vec::new();
        for n in 0..EPOCHS {
            let closes = |end: i64| end <= closed[n] && end > before[n];
            for ((key, start, end), (count, sum)) in all(n).into_iter().filter(|((_, _, end), _)| closes(*end)) {
                finals.push((n, json!([key, start, count, sum]), end - 1));
            }
        }
        let expected = BTreeMap::from([("hops", (0..EPOCHS).map(open).collect()), ("finals", multiset(finals))]);
        let flow = dataflow("hopping", move |flow: Dataflow<'_>| {
            let us = |us: i64| Duration::from_micros(us as u64);
            let hops = source(flow, "items", late[0])
                .merge(&source(flow, "more", late[1]))
                .key_by("key", |i| i.key)
                .window("hops", Hopping::of(us(size)).every(us(every)).offset(us(offset)))
                .keep(keep)
                .aggregate(|a| (a.count(), a.sum(|i| i.n)));
            hops.view_with("hops", |view| view.fields(["n", "sum"]));
            let finals = hops.when_closed("final").map(|(at, row)| (at.key, at.window.start, row.0, row.1 as i64));
            served(&finals, "finals");
        });
        let feed = |test: &mut Harness, n| {
            log.feed(test, "items", n);
            more.feed(test, "more", n);
        };
        check(&flow, &runs, feed, &expected, |_, row| row)?;
    }

    #[test]
    fn sessions_by_their_definition(
        log in items(), more in items(), silences in silences(), late in policies(),
        gap_ms in 1i64..9_000, keep_s in 0u64..20, runs in runs(),
    ) {
        let [quiet, silent] = silences;
        let (log, more) = (log.silent(quiet), more.silent(silent));
        let (items, others) = (read_items(&log), read_items(&more));
        let both = together(&[&items, &others]);
        let (closed, before) = closed(&both, &late);
        let (gap, keep) = (gap_ms * 1000, Duration::from_secs(keep_s));
        let mut given: Vec<(Taken, Late, &str)> = items.behind(&both).into_iter().map(|r| (r, late[0], "items")).collect();
        given.extend(others.behind(&both).into_iter().map(|r| (r, late[1], "more")));
        given.retain(|(record, ..)| record.value().is_some());
        let id = |name| thalweg::position::SourceId::of(name).0;
        given.sort_by_key(|(r, _, source)| (r.epoch, id(source), r.partition, r.offset));
        // Of each key, sessions as the events that they are of.
        let mut sessions: Vec<(u32, Vec<(i64, i64)>)> = Vec::new();
        let span = |of: &[(i64, i64)]| {
            let times = || of.iter().map(|(time, _)| *time);
            (times().min().unwrap(), times().max().unwrap() + gap)
        };
        let mut dead = 0;
        let mut rows = Vec::new();
        for n in 0..EPOCHS {
            let (certain, doubtful): (Vec<_>, Vec<_>) = given
                .iter()
                .filter(|(r, ..)| r.epoch == n)
                .partition(|(r, late, _)| r.time + gap > r.horizon.saturating_sub(micros(late.corrects())));
            for (is_certain, (record, late, _)) in
                certain.iter().map(|e| (true, *e)).chain(doubtful.iter().map(|e| (false, *e)))
            {
                let (key, time) = (item(record).key, record.time);
                let overlaps = |(of, events): &(u32, Vec<(i64, i64)>)| {
                    let (start, end) = span(events);
                    *of == key && end > before[n] && start < time + gap && time < end
                };
                let (joined, others): (Vec<_>, Vec<_>) = sessions.into_iter().partition(overlaps);
                let ends = joined.iter().map(|(_, events)| span(events).1).max();
                let over = record.horizon.saturating_sub(micros(late.corrects()));
                sessions = others;
                if is_certain || ends.is_some_and(|end| end > over) {
                    let mut all: Vec<(i64, i64)> = joined.into_iter().flat_map(|(_, events)| events).collect();
                    all.push((time, item(record).n));
                    sessions.push((key, all));
                } else {
                    sessions.extend(joined);
                    dead += usize::from(*late != Late::Drop);
                }
            }
            let mut open: BTreeMap<Place, (u64, i64)> = BTreeMap::new();
            sessions.retain(|(_, events)| span(events).1.saturating_add(micros(keep)) > closed[n]);
            for (key, events) in &sessions {
                let (start, end) = span(events);
                open.insert((*key, start, end), (events.len() as u64, events.iter().map(|(_, n)| n).sum()));
            }
            rows.push(windows(open));
        }
        let expected = BTreeMap::from([("visits", rows)]);
        let flow = dataflow("sessions", move |flow: Dataflow<'_>| {
            source(flow, "items", late[0])
                .merge(&source(flow, "more", late[1]))
                .key_by("key", |i| i.key)
                .window("visits", Sessions::gap(Duration::from_micros(gap as u64)))
                .keep(keep)
                .aggregate(|a| (a.count(), a.sum(|i| i.n)))
                .view_with("visits", |view| view.fields(["n", "sum"]));
        });
        let feed = |test: &mut Harness, n| {
            log.feed(test, "items", n);
            more.feed(test, "more", n);
        };
        check(&flow, &runs, feed, &expected, |_, row| row)?;
        let mut test = Harness::of(flow);
        let last = (0..EPOCHS).map(|n| {
            feed(&mut test, n);
            test.epoch()
        });
        let last = last.last().unwrap();
        let run = test.run().unwrap();
        let letters = ["items.dead_letters", "more.dead_letters"].map(|view| run.json(view, last).unwrap());
        let late = letters.iter().flatten().filter(|letter| letter.contains("\"visits\"")).count();
        prop_assert_eq!(late, dead);
    }
}

/// Depends on the order of events, and sets timers.
struct Streaks;

const PAUSE: i64 = 5 * S;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Streak {
    hash: i64,
    events: u64,
    timer: Option<EventTime>,
}

fn fold(hash: i64, n: i64) -> i64 {
    (hash * 31 + n + 7).rem_euclid(1_000_003)
}

impl EventProcessor for Streaks {
    type Key = u32;
    type Event = Item;
    type State = Streak;
    type Out = (u32, String, i64);

    fn event(&self, event: &Timed<Item>, context: &mut EventContext<'_, Self>) {
        let mut streak = context.state.take().unwrap_or_default();
        streak.hash = fold(streak.hash, event.value.n);
        streak.events += 1;
        context.emit((*context.key(), "event".to_owned(), streak.hash));
        if let Some(timer) = streak.timer {
            context.clear_timer(timer);
        }
        let timer = EventTime(event.time.0 + PAUSE);
        streak.timer = Some(timer);
        context.set_timer(timer);
        context.state = Some(streak);
    }

    fn timer(&self, time: EventTime, context: &mut EventContext<'_, Self>) {
        let Some(mut streak) = context.state.take() else {
            return;
        };
        assert_eq!(streak.timer, Some(time));
        context.emit((*context.key(), "pause".to_owned(), streak.hash));
        if streak.events % 2 == 1 {
            streak.events += 1;
            let timer = EventTime(time.0 + 2 * S);
            streak.timer = Some(timer);
            context.set_timer(timer);
            context.state = Some(streak);
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn processors_see_events_in_the_order_of_time(log in items(), late in policies(), runs in runs()) {
        let reading = read_items(&log);
        let (closed, _) = closed(&reading.watermarks, &late[..1]);
        let mut waiting: BTreeSet<(u32, i64, u32, i64)> = BTreeSet::new();
        let mut values: BTreeMap<(u32, i64), i64> = BTreeMap::new();
        let mut streaks: BTreeMap<u32, Streak> = BTreeMap::new();
        let mut out = Vec::new();
        let taken = taken(&reading.records, late[0]);
        for (n, closed) in closed.into_iter().enumerate() {
            for record in taken.iter().filter(|r| r.epoch == n) {
                waiting.insert((item(record).key, record.time, record.partition, record.offset));
                values.insert((record.partition, record.offset), item(record).n);
            }
            for key in 0..3 {
                loop {
                    let event = waiting.iter().find(|event| event.0 == key).copied();
                    let event = event.filter(|(_, time, ..)| *time < closed);
                    let timer = streaks.get(&key).and_then(|streak| streak.timer).filter(|timer| timer.0 < closed);
                    let is_event = match (event, timer) {
                        (Some(event), Some(timer)) => event.1 <= timer.0,
                        (event, None) if event.is_none() => break,
                        (event, _) => event.is_some(),
                    };
                    let mut streak = streaks.remove(&key).unwrap_or_default();
                    if is_event {
                        let event = event.unwrap();
                        waiting.remove(&event);
                        streak.hash = fold(streak.hash, values[&(event.2, event.3)]);
                        streak.events += 1;
                        streak.timer = Some(EventTime(event.1 + PAUSE));
                        out.push((n, json!([key, "event", streak.hash]), event.1));
                        streaks.insert(key, streak);
                    } else {
                        let time = timer.unwrap().0;
                        out.push((n, json!([key, "pause", streak.hash]), time));
                        if streak.events % 2 == 1 {
                            streak.events += 1;
                            streak.timer = Some(EventTime(time + 2 * S));
                            streaks.insert(key, streak);
                        }
                    }
                }
            }
        }
        let expected = BTreeMap::from([("streaks", multiset(out))]);
        let flow = dataflow("processors", move |flow: Dataflow<'_>| {
            let items = source(flow, "items", late[0]).key_by("key", |i| i.key);
            served(&items.process_events("streaks", Streaks), "streaks");
        });
        check(&flow, &runs, |test, n| log.feed(test, "items", n), &expected, |_, row| row)?;
    }
}
