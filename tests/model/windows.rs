//! Windows, lateness, watermarks, expiry, dead letters, and the steps of streams before them.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg::prelude::*;
use thalweg::source::Environment;
use thalweg::testing::{Harness, permutes};
use thalweg::time::WindowLayout;
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::vec::Filter;

use super::aggregates::{nearest, sum_of};
use super::log::{
    EPOCHS, Log, Reading, Rows, Seen, check, config, instant, logs, read, runs, silences, together,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    key: u32,
    n: i64,
    x: f64,
    at_ms: i64,
}

/// The bits that occur: an aggregate of a user's own.
struct AnyOf;
impl Aggregate<Item> for AnyOf {
    type State = u64;
    type Out = u64;
    fn empty(&self) -> u64 {
        0
    }
    fn add(&self, state: &mut u64, item: &Item) {
        *state |= 1 << (item.n + 5);
    }
    fn merge(&self, state: &mut u64, other: u64) {
        *state |= other;
    }
    fn finish(&self, state: &u64) -> u64 {
        *state
    }
}

/// Windows that overlap, of a user's own.
struct Overlapping {
    size_us: i64,
    every_us: i64,
}
impl WindowAssigner for Overlapping {
    fn windows(&self, at: EventTime, out: &mut Vec<Window>) {
        let mut start = at.micros().div_euclid(self.every_us) * self.every_us;
        while start + self.size_us > at.micros() {
            out.push(Window {
                start: EventTime(start),
                end: EventTime(start + self.size_us),
            });
            start -= self.every_us;
        }
    }
    fn layout(&self) -> WindowLayout {
        let us = |us: i64| Duration::from_micros(us.unsigned_abs());
        WindowLayout::Aligned {
            size: us(self.size_us),
            every: us(self.every_us),
            offset: Duration::ZERO,
        }
    }
}

const S: i64 = 1_000_000;
const LATENESS: i64 = 3 * S;

fn source<'s>(flow: Dataflow<'s>, name: &str, late: Late) -> Stream<'s, Item> {
    let items = Kafka::topic(name)
        .json::<Item>()
        .event_time(|i| EventTime::from_millis(i.at_ms));
    let lateness = Duration::from_micros(LATENESS as u64);
    flow.source(name, items.lateness(lateness).late(late))
}

fn build(flow: Dataflow, [late, more_late]: [Late; 2]) {
    let items = source(flow, "items", late);
    let names = flow.table("names", Kafka::topic("names").json::<u32>().keyed::<u32>());
    let main = items
        .key_by("key", |i| i.key)
        .window("main", Tumbling::of(Duration::from_secs(10)))
        .keep(Duration::from_secs(7))
        .aggregate(|a| {
            let n = (
                a.count(),
                a.sum(|i| i.n),
                a.min(|i| i.n),
                a.max(|i| i.n),
                a.avg(|i| i.n),
            );
            (n.0, n.1, n.2, n.3, n.4, a.sum(|i| i.x), a.avg(|i| i.x), AnyOf)
        });
    main.view_with("main_view", |v| {
        v.fields(["count", "sum", "min", "max", "avg", "sum_x", "avg_x", "any"])
    });
    main.join("named", &names, |_, value, name| (value.0, *name))
        .view("named_view");
    main.left_join("perhaps", &names, |_, value, name| (value.0, name.copied()))
        .view("perhaps_view");
    items
        .filter(|i| i.n % 2 == 0)
        .map(|i| Item { n: i.n / 2, ..i })
        .key_by(["key", "sign"], |i| (i.key, i.n.signum()))
        .window(
            "overlapping",
            Overlapping {
                size_us: 10 * S,
                every_us: 4 * S,
            },
        )
        .keep(Duration::ZERO)
        .aggregate(|a| a.sum(|i| i.n))
        .view("overlapping_view");
    items
        .flat_map(|i| {
            (0..i.key).map(move |part| Item {
                key: part,
                ..i.clone()
            })
        })
        .key_by("part", |i| i.key)
        .window(
            "parts",
            Tumbling::of(Duration::from_secs(5)).offset(Duration::from_secs(7)),
        )
        .aggregate(|a| a.count())
        .view("parts_view");
    items
        .timely_stateless(|events| {
            // To another worker, which may not have heard of the events' epoch yet.
            events
                .filter(|event| event.value.n > 0)
                .exchange(|event| event.time.micros().unsigned_abs())
        })
        .merge(&source(flow, "more", more_late))
        .key_by("key", |i| i.key)
        .window("merged", Tumbling::of(Duration::from_secs(10)))
        .keep(Duration::from_secs(12))
        .aggregate(|a| a.count())
        .view("merged_view");
}

fn items() -> impl Strategy<Value = Log<Item>> {
    let x = prop::sample::select(vec![
        0.1,
        0.2,
        -0.3,
        1e16,
        -1e16,
        1e300,
        -1e300,
        5e-324,
        -0.0,
        0.1 + 0.2,
    ]);
    // Mostly within the lateness around a time that moves with the epochs; sometimes far off; seldom
    // impossible.
    let at_ms = prop_oneof![
        8 => -4_000i64..4_000,
        3 => -25_000i64..25_000,
        1 => prop::sample::select(vec![0, -1, 6_000, i64::MAX / 2])
    ];
    logs((0u32..3, -5i64..=5, x, at_ms), |epoch, (key, n, x, at_ms)| Item {
        key,
        n,
        x,
        at_ms: at_ms.saturating_add(30_000 + 6_000 * epoch as i64),
    })
}

fn read_items(log: &Log<Item>) -> Reading<Item> {
    read(log, LATENESS, |i| i.at_ms.saturating_mul(1000))
}

/// An event as a window step is given it: its record, what the steps before made of it, and the policy of its
/// source.
type Given<'a> = (&'a Seen<Item>, Item, Late);

fn corrects(late: Late) -> i64 {
    match late {
        Late::Correct(for_) => for_.as_micros() as i64,
        _ => 0,
    }
}

fn policies() -> impl Strategy<Value = [Late; 2]> {
    let for_us = prop_oneof![Just(1), Just(2 * S), Just(7 * S), Just(30 * S)];
    let late = prop_oneof![
        2 => Just(Late::DeadLetter),
        2 => Just(Late::Drop),
        4 => for_us.prop_map(|us| Late::Correct(Duration::from_micros(us as u64))),
    ];
    [late.clone(), late]
}

/// The windowed step by its definition: events on time, or in time for a correction, in windows that are
/// still kept, and the events late for all.
struct Windowing<'a> {
    size: i64,
    every: i64,
    offset: i64,
    keep: i64,
    watermarks: Vec<i64>,
    /// For how long windows are corrected: by whichever source does so longest.
    corrected: i64,
    given: Vec<Given<'a>>,
}

impl Windowing<'_> {
    fn windows(&self, time: i64) -> Vec<(i64, i64)> {
        // From far before to far after: no cleverness.
        let first = time.div_euclid(self.every) - self.size / self.every - 2;
        let starts = (first..first + 2 * (self.size / self.every) + 5).map(|i| i * self.every + self.offset);
        starts
            .map(|start| (start, start + self.size))
            .filter(|w| w.0 <= time && time < w.1)
            .collect()
    }

    fn groups<K: Ord>(&self, epoch: usize, key: impl Fn(&Item) -> K) -> BTreeMap<(K, i64, i64), Vec<&Item>> {
        let mut groups: BTreeMap<_, Vec<&Item>> = BTreeMap::new();
        for (record, item, late) in self.given.iter().filter(|given| given.0.epoch <= epoch) {
            for (start, end) in self.windows(record.time) {
                let expires = end.saturating_add(self.corrected + self.keep);
                if end + corrects(*late) > record.horizon && expires > self.watermarks[epoch] {
                    groups.entry((key(item), start, end)).or_default().push(item);
                }
            }
        }
        groups
    }

    /// Those that leave a dead letter.
    fn late(&self) -> Vec<Given<'_>> {
        let late = |(record, _, late): &&Given| {
            let windows = self.windows(record.time);
            *late != Late::Drop
                && windows
                    .iter()
                    .all(|(_, end)| end + corrects(*late) <= record.horizon)
        };
        self.given.iter().filter(late).cloned().collect()
    }
}

fn row(names: &[&str], values: Vec<Value>) -> Value {
    Value::Object(names.iter().map(|name| (*name).to_owned()).zip(values).collect())
}

/// The exact sum of floats, rounded once: Shewchuk's partial sums that don't overlap, rounded as Python's
/// `math.fsum` does.
fn exact_sum(values: &[f64]) -> f64 {
    let mut partials: Vec<f64> = Vec::new();
    for value in values {
        let mut x = *value;
        let mut kept = Vec::new();
        for y in &partials {
            let (big, small) = if x.abs() < y.abs() { (*y, x) } else { (x, *y) };
            let sum = big + small;
            let rest = small - (sum - big);
            if rest != 0.0 {
                kept.push(rest);
            }
            x = sum;
        }
        kept.push(x);
        partials = kept;
    }
    let Some(mut total) = partials.pop() else {
        return 0.0;
    };
    let mut rest = 0.0;
    while let Some(next) = partials.pop() {
        let sum = total + next;
        rest = next - (sum - total);
        total = sum;
        if rest != 0.0 {
            break;
        }
    }
    let same_sign = |next: &f64| (rest < 0.0 && *next < 0.0) || (rest > 0.0 && *next > 0.0);
    if partials.last().is_some_and(same_sign) {
        let doubled = rest * 2.0;
        let sum = total + doubled;
        if doubled == sum - total {
            total = sum;
        }
    }
    total + 0.0
}

fn main_rows(main: &Windowing, epoch: usize) -> Rows {
    let names = [
        "key",
        "window_start",
        "window_end",
        "count",
        "sum",
        "min",
        "max",
        "avg",
        "sum_x",
        "avg_x",
        "any",
    ];
    let rows = main
        .groups(epoch, |i| i.key)
        .into_iter()
        .map(|((key, start, end), items)| {
            let (count, sum) = (items.len(), items.iter().map(|i| i.n).sum::<i64>());
            let xs: Vec<_> = items.iter().map(|i| i.x).collect();
            let sum_x = exact_sum(&xs);
            let avg_x = nearest(sum_x / count as f64, &sum_of(&xs), count as u64);
            let values = vec![
                json!(key),
                json!(instant(start)),
                json!(instant(end)),
                json!(count),
                json!(sum),
                json!(items.iter().map(|i| i.n).min()),
                json!(items.iter().map(|i| i.n).max()),
                json!(sum as f64 / count as f64),
                json!(sum_x),
                json!(avg_x),
                json!(items.iter().fold(0u64, |any, i| any | 1 << (i.n + 5))),
            ];
            row(&names, values)
        });
    rows.collect()
}

/// What was turned down by a source and by window steps, by the key of the view: the least payload of a
/// record's.
fn letters(reading: &Reading<Item>, epoch: usize, late: &[(&str, Vec<Given<'_>>)]) -> Rows {
    let mut rows: BTreeMap<(u32, i64, &str), (&str, String, Option<Vec<u8>>)> = BTreeMap::new();
    for record in reading.records.iter().filter(|record| record.epoch <= epoch) {
        if let Some(cause) = record.cause() {
            let payload = match &record.given {
                super::log::Given::Value(item) => serde_json::to_vec(item).ok(),
                super::log::Given::Undecodable => None,
            };
            rows.insert(
                (record.partition, record.offset, "source"),
                (cause, instant(0), payload),
            );
        }
    }
    for (step, late) in late {
        for (record, item, _) in late.iter().filter(|given| given.0.epoch <= epoch) {
            let payload = serde_json::to_vec(item).ok();
            let row = rows.entry((record.partition, record.offset, step));
            let row = row.or_insert_with(|| ("late", instant(record.time), payload.clone()));
            row.2 = row.2.take().min(payload);
        }
    }
    let rows = rows.into_iter().map(|((partition, offset, step), (cause, timestamp, payload))| {
        json!({
            "partition": partition, "offset": offset, "step": step, "cause": cause, "detail": null, "timestamp": timestamp,
            "payload": payload.map(|payload| STANDARD.encode(payload)),
        })
    });
    rows.collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn windows_as_defined(
        log in items(),
        more in items(),
        silences in silences(),
        names in logs((0u32..3, prop::option::of(0u32..9)), |_, row| row),
        policies in policies(),
        runs in runs(),
    ) {
        let [late, more_late] = policies;
        let [quiet, silent] = silences;
        let (log, more) = (log.silent(quiet), more.silent(silent));
        let (reading, other) = (read_items(&log), read_items(&more));
        let valid = || reading.records.iter().filter_map(|record| Some((record, record.value()?.clone(), late)));
        let both = together(&[&reading, &other]);
        let (behind, other_behind) = (reading.behind(&both), other.behind(&both));
        let tumbling = |size, offset, keep, given| Windowing {
            size, every: size, offset, keep, watermarks: reading.watermarks.clone(), corrected: corrects(late), given,
        };
        let main = tumbling(10 * S, 0, 7 * S, valid().collect());
        let halved = valid().filter(|(_, i, _)| i.n % 2 == 0).map(|(r, i, late)| (r, Item { n: i.n / 2, ..i }, late));
        let overlapping = Windowing { every: 4 * S, ..tumbling(10 * S, 0, 0, halved.collect()) };
        let parts = valid().flat_map(|(r, i, late)| (0..i.key).map(move |key| (r, Item { key, ..i.clone() }, late)));
        let parts = tumbling(5 * S, 2 * S, 86_400 * S, parts.collect());
        let positive = behind.iter().filter_map(|record| Some((record, record.value()?.clone(), late)));
        let positive = positive.filter(|(_, i, _)| i.n > 0);
        let others = other_behind.iter().filter_map(|record| Some((record, record.value()?.clone(), more_late)));
        let corrected = corrects(late).max(corrects(more_late));
        let from_items = Windowing { watermarks: both.clone(), corrected, ..tumbling(10 * S, 0, 12 * S, positive.collect()) };
        let from_more = Windowing { watermarks: both.clone(), corrected, ..tumbling(10 * S, 0, 12 * S, others.collect()) };
        let merged = Windowing {
            watermarks: both.clone(),
            corrected,
            ..tumbling(10 * S, 0, 12 * S, from_items.given.iter().chain(&from_more.given).cloned().collect())
        };

        let keyed = |key: u32, start, end, name: &str, value: Value| {
            row(&[name, "window_start", "window_end", "value"], vec![json!(key), json!(instant(start)), json!(instant(end)), value])
        };
        let mut expected: BTreeMap<&str, Vec<Rows>> = BTreeMap::new();
        for n in 0..EPOCHS {
            let mut put = |view, rows: Rows| expected.entry(view).or_default().push(rows);
            put("main_view", main_rows(&main, n));
            let mut current = BTreeMap::new();
            for step in &names.epochs[..=n] {
                // The log's order: by partition, as every epoch's records are.
                let mut records: Vec<_> = step.records.iter().collect();
                records.sort_by_key(|(partition, _)| *partition);
                for (_, given) in records {
                    match given {
                        super::log::Given::Value((key, Some(name))) => _ = current.insert(*key, *name),
                        super::log::Given::Value((key, None)) => _ = current.remove(key),
                        super::log::Given::Undecodable => {}
                    }
                }
            }
            let counts = main.groups(n, |i| i.key);
            let joined = |((key, start, end), items): (&(u32, i64, i64), &Vec<&Item>), name: Value| row(
                &["key", "window_start", "window_end", "value_0", "value_1"],
                vec![json!(key), json!(instant(*start)), json!(instant(*end)), json!(items.len()), name],
            );
            let named = counts.iter().filter_map(|group| Some(joined(group, json!(current.get(&group.0.0)?))));
            put("named_view", named.collect());
            put("perhaps_view", counts.iter().map(|group| joined(group, json!(current.get(&group.0.0)))).collect());
            let rows = overlapping.groups(n, |i| (i.key, i.n.signum())).into_iter().map(|(((key, sign), start, end), items)| {
                let values = vec![
                    json!(key), json!(sign), json!(instant(start)), json!(instant(end)),
                    json!(items.iter().map(|i| i.n).sum::<i64>()),
                ];
                row(&["key", "sign", "window_start", "window_end", "value"], values)
            });
            put("overlapping_view", rows.collect());
            let rows = parts.groups(n, |i| i.key).into_iter();
            put("parts_view", rows.map(|((key, start, end), items)| keyed(key, start, end, "part", json!(items.len()))).collect());
            let rows = merged.groups(n, |i| i.key).into_iter();
            put("merged_view", rows.map(|((key, start, end), items)| keyed(key, start, end, "key", json!(items.len()))).collect());
            let late = [
                ("main", main.late()), ("overlapping", overlapping.late()), ("parts", parts.late()),
                ("merged", from_items.late()),
            ];
            put("items.dead_letters", letters(&reading, n, &late));
            put("more.dead_letters", letters(&other, n, &[("merged", from_more.late())]));
        }

        let project = |view: &str, row: Value| {
            let Value::Object(mut row) = row else { return row };
            if view.ends_with(".dead_letters") {
                row.retain(|name, _| !["topic", "schema", "key"].contains(&name.as_str()));
                if row["step"] == view.trim_end_matches(".dead_letters") {
                    row.insert("step".into(), "source".into());
                }
            }
            Value::Object(row)
        };
        let feed = |test: &mut Harness, n: usize| {
            log.feed(test, "items", n);
            more.feed(test, "more", n);
            names.feed_backwards(test, "names", n);
        };
        check(&dataflow("windows", move |flow| build(flow, policies)), &runs, feed, &expected, project)?;
    }
}

#[test]
fn an_aggregate_of_ones_own_permutes() {
    let item = |n| Item {
        key: 0,
        n,
        x: 0.0,
        at_ms: 0,
    };
    permutes(&AnyOf, &[item(3), item(-2), item(5), item(3)]).unwrap();
}

#[test]
fn the_plan_says_where_events_may_be_late_for_some_of_their_windows() {
    let flow = dataflow("windows", |flow| build(flow, [Late::Drop, Late::Drop]));
    let plan = thalweg::runtime::plan(&flow, &Environment::default()).unwrap();
    let of = |step: &str| {
        plan.text
            .lines()
            .find(|line| line.contains(step))
            .unwrap_or_default()
    };
    let overlapping = of(" overlapping ");
    assert!(overlapping.contains("hopping 10s every 4s"), "{overlapping}");
    assert!(
        overlapping.contains("late windows counted in thalweg_late_windows_total"),
        "{overlapping}"
    );
    assert!(!of(" main ").contains("late"), "{}", of(" main "));
}
