//! Every aggregate that there is, over windows and over groups that take values back, against an evaluation
//! of all values from scratch; and one by one: order, grouping and taking out don't show, and what is
//! approximate is as close as it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use num_bigint::BigInt;
use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg::prelude::*;
use thalweg::testing::{Harness, permutes};

use super::aggregates::{finite, float, result, units};
use super::log::{EPOCHS, Given, Log, Rows, check, config, instant, logs, runs};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Item {
    key: u32,
    n: i64,
    /// Quarters, so that few of them are summed and squared exactly by floats as well.
    x: F64,
    tag: Option<u8>,
    at_ms: i64,
}

/// Aggregates of what holds an item: an event, or a row with its key.
type View<T> = fn(&T) -> &Item;

/// All of these can be undone.
fn counted<T: 'static>(a: AggregateBuilder<T>, item: View<T>) -> impl Aggregate<T> {
    (
        a.count(),
        a.count_if(move |t| item(t).n > 0),
        a.any(move |t| item(t).n == 3),
        a.all(move |t| item(t).n < 4),
        a.rate(move |t| item(t).n < 0),
        a.null_rate(move |t| item(t).tag),
        a.count_distinct(move |t| item(t).n),
        a.sum(move |t| item(t).n).checked::<u8>(),
        a.var_pop(move |t| item(t).n),
        a.var_samp(move |t| item(t).n),
        a.stddev_pop(move |t| item(t).x),
        a.stddev_samp(move |t| item(t).x.get()),
    )
}

fn counted_naively(items: &[&Item]) -> Vec<Value> {
    let n = items.len();
    let count = |meets: &dyn Fn(&Item) -> bool| items.iter().filter(|item| meets(item)).count();
    let distinct: BTreeSet<i64> = items.iter().map(|item| item.n).collect();
    let sum: i64 = items.iter().map(|item| item.n).sum();
    let variance = |of: &dyn Fn(&Item) -> f64, free: usize| {
        let (sum, squares) = items
            .iter()
            .map(|item| of(item))
            .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        (free > 0).then(|| (n as f64 * squares - sum * sum) / (n * free) as f64)
    };
    let (by_n, by_x) = (|item: &Item| item.n as f64, |item: &Item| item.x.get());
    vec![
        json!(n),
        json!(count(&|item| item.n > 0)),
        json!(count(&|item| item.n == 3) > 0),
        json!(count(&|item| item.n >= 4) == 0),
        json!(count(&|item| item.n < 0) as f64 / n as f64),
        json!(count(&|item| item.tag.is_none()) as f64 / n as f64),
        json!(distinct.len()),
        json!(u8::try_from(sum).ok()),
        json!(variance(&by_n, n)),
        json!(variance(&by_n, n - 1)),
        json!(variance(&by_x, n).map(f64::sqrt)),
        json!(variance(&by_x, n - 1).map(f64::sqrt)),
    ]
}

/// All of these can be undone as well.
fn some<T: 'static>(a: AggregateBuilder<T>, item: View<T>) -> impl Aggregate<T> {
    let (positive, tagged) = (move |t: &T| item(t).n > 0, move |t: &T| item(t).tag.is_some());
    (
        a.quantile(0.5, move |t| item(t).n),
        a.quantiles([0.0, 0.9], move |t| item(t).x).relative_error(0.02),
        a.sum(move |t| item(t).n).when(positive),
        a.count().when(tagged),
        a.count_distinct(move |t| item(t).tag).when(positive),
        (a.count(), a.avg(move |t| item(t).x)).when(positive).when(tagged),
        a.count_if(positive).when(tagged),
        a.quantile(1.0, move |t| item(t).n).when(tagged),
        a.var_samp(move |t| item(t).n as i8).when(positive),
    )
}

fn some_naively(items: &[&Item]) -> Vec<Value> {
    let when = |meets: fn(&Item) -> bool| -> Vec<&Item> {
        items.iter().copied().filter(|item| meets(item)).collect()
    };
    let (positive, tagged) = (when(|item| item.n > 0), when(|item| item.tag.is_some()));
    let both: Vec<&Item> = positive
        .iter()
        .copied()
        .filter(|item| item.tag.is_some())
        .collect();
    let quantile = |items: &[&Item], q: f64, of: fn(&Item) -> f64| {
        let mut values: Vec<f64> = items.iter().map(|item| of(item)).collect();
        values.sort_by(f64::total_cmp);
        values
            .get((q * (values.len().max(1) - 1) as f64) as usize)
            .copied()
    };
    let (by_n, by_x): (fn(&Item) -> f64, fn(&Item) -> f64) = (|item| item.n as f64, |item| item.x.get());
    let sum = |items: &[&Item], of: fn(&Item) -> f64| items.iter().map(|item| of(item)).sum::<f64>();
    let n = positive.len() as f64;
    let squares = sum(&positive, |item| (item.n * item.n) as f64);
    let tags: BTreeSet<Option<u8>> = positive.iter().map(|item| item.tag).collect();
    let mean = (!both.is_empty()).then(|| json!([both.len(), sum(&both, by_x) / both.len() as f64]));
    let variance = (n > 1.0).then(|| (n * squares - sum(&positive, by_n).powi(2)) / (n * (n - 1.0)));
    vec![
        json!(quantile(items, 0.5, by_n)),
        json!([quantile(items, 0.0, by_x), quantile(items, 0.9, by_x)]),
        json!((n > 0.0).then(|| sum(&positive, by_n) as i64)),
        json!(tagged.len()),
        json!(tags.len()),
        json!(mean),
        json!(both.len()),
        json!(quantile(&tagged, 1.0, by_n)),
        if positive.is_empty() {
            Value::Null
        } else {
            json!(variance)
        },
    ]
}

/// None of these can be undone.
fn kept<T: 'static>(a: AggregateBuilder<T>, item: View<T>) -> impl Aggregate<T> {
    let positive = move |t: &T| item(t).n > 0;
    (
        a.approx_count_distinct(move |t| item(t).n),
        dense(a, item),
        a.arg_min(move |t| item(t).x, move |t| item(t).n),
        a.arg_max(move |t| item(t).tag, move |t| item(t).n),
        a.arg_min_all(move |t| item(t).n, move |t| item(t).tag),
        a.arg_max_all(move |t| item(t).tag, move |t| (item(t).n, item(t).x)),
        a.first(move |t| item(t).at_ms, move |t| item(t).n),
        a.last(move |t| item(t).at_ms, move |t| item(t).n),
        a.collect(3, move |t| item(t).n),
        a.top(2, move |t| (item(t).n, item(t).tag)),
        a.bottom(2, move |t| item(t).x),
        (
            a.top(4, move |t| item(t).n).when(positive),
            a.collect(0, move |t| item(t).n).when(positive),
            a.min(move |t| item(t).n).when(positive),
            a.approx_count_distinct(move |t| item(t).n).when(positive),
        ),
    )
}

/// Of four registers more than are taken, so that the dense form is met.
fn dense<T: 'static>(a: AggregateBuilder<T>, item: View<T>) -> impl Aggregate<T, Out = u64> {
    a.approx_count_distinct(move |t| (item(t).n, item(t).x, item(t).tag))
        .precision(4)
}

fn kept_naively(items: &[&Item]) -> Vec<Value> {
    let all: Vec<Item> = items.iter().map(|item| (*item).clone()).collect();
    let distinct = |least: i64| {
        items
            .iter()
            .map(|item| item.n)
            .filter(|n| *n >= least)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let ns = |least: i64| {
        let mut ns: Vec<i64> = items.iter().map(|item| item.n).filter(|n| *n >= least).collect();
        ns.sort_unstable();
        ns
    };
    let (sorted, positive) = (ns(i64::MIN), ns(1));
    let least = items.iter().map(|item| item.n).min();
    let tag = items.iter().map(|item| item.tag).max();
    let mut tags: Vec<_> = items
        .iter()
        .filter(|item| Some(item.n) == least)
        .map(|item| item.tag)
        .collect();
    tags.sort_unstable();
    let mut tagged: Vec<_> = items
        .iter()
        .filter(|item| Some(item.tag) == tag)
        .map(|item| (item.n, item.x))
        .collect();
    tagged.sort_unstable();
    let mut pairs: Vec<_> = items.iter().map(|item| (item.n, item.tag)).collect();
    pairs.sort_unstable();
    pairs.reverse();
    let mut xs: Vec<F64> = items.iter().map(|item| item.x).collect();
    xs.sort_unstable();
    let descending: Vec<i64> = positive.iter().rev().take(4).copied().collect();
    vec![
        json!(distinct(i64::MIN)),
        json!(result(
            &dense(AggregateBuilder::default(), |item: &Item| item),
            &all
        )),
        json!(items.iter().map(|item| (item.x, item.n)).min().unwrap().1),
        json!(items.iter().map(|item| (item.tag, item.n)).max().unwrap().1),
        json!(tags),
        json!(tagged),
        json!(items.iter().map(|item| (item.at_ms, item.n)).min().unwrap().1),
        json!(items.iter().map(|item| (item.at_ms, item.n)).max().unwrap().1),
        json!({ "values": &sorted[..sorted.len().min(3)], "left_out": sorted.len().saturating_sub(3) }),
        json!(&pairs[..pairs.len().min(2)]),
        json!(&xs[..xs.len().min(2)]),
        json!([
            descending,
            { "values": [], "left_out": positive.len() },
            positive.first(),
            distinct(1),
        ]),
    ]
}

const VIEWS: [(&str, fn(&[&Item]) -> Vec<Value>); 3] = [
    ("counted", counted_naively),
    ("some", some_naively),
    ("kept", kept_naively),
];

fn build(flow: Dataflow) {
    let items = Kafka::topic("items")
        .json::<Item>()
        .event_time(|item| EventTime::from_millis(item.at_ms));
    let events = flow.source("items", items.lateness(Duration::from_secs(3600)));
    let windows = |name: &str| {
        events
            .key_by("key", |item| item.key)
            .window(name, Tumbling::of(Duration::from_secs(10)))
    };
    windows("counted")
        .aggregate(|a| counted(a, |item| item))
        .view("windows_counted");
    windows("some")
        .aggregate(|a| some(a, |item| item))
        .view("windows_some");
    windows("kept")
        .aggregate(|a| kept(a, |item| item))
        .view("windows_kept");
    let rows = flow
        .table("rows", Kafka::topic("rows").json::<Item>().keyed::<u32>())
        .rows();
    let groups = || rows.group_by("key", |(_, item)| item.key);
    groups()
        .aggregate("g_counted", |a| counted(a, |(_, item)| item))
        .view("groups_counted");
    groups()
        .aggregate("g_some", |a| some(a, |(_, item)| item))
        .view("groups_some");
    groups()
        .aggregate("g_kept", |a| kept(a, |(_, item)| item))
        .view("groups_kept");
}

fn item() -> impl Strategy<Value = Item> + Clone {
    let tag = prop::option::weighted(0.7, 0u8..3);
    (0u32..2, -5i64..6, -8i32..9, tag, 0i64..20_000).prop_map(|(key, n, quarters, tag, at_ms)| {
        let x = F64::new(f64::from(quarters) / 4.0);
        Item {
            key,
            n,
            x,
            tag,
            at_ms,
        }
    })
}

/// All values up to an epoch, in the order of the log.
fn values<T>(log: &Log<T>, epoch: usize) -> Vec<&T> {
    let mut values = Vec::new();
    for step in &log.epochs[..=epoch] {
        for partition in 0..log.partitions {
            for (_, given) in step.records.iter().filter(|(p, _)| *p == partition) {
                if let Given::Value(value) = given {
                    values.push(value);
                }
            }
        }
    }
    values
}

/// A row: its key's fields, then the aggregates.
fn row(mut row: Value, aggregates: Vec<Value>) -> Value {
    for (at, value) in aggregates.into_iter().enumerate() {
        row[format!("value_{at}")] = value;
    }
    row
}

/// Floats that are whole stand for integers, and the other way round.
fn plain(value: Value) -> Value {
    match value {
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (name, plain(value)))
            .collect(),
        Value::Number(number) => json!(number.as_f64()),
        other => other,
    }
}

/// In place of what a quantile shows, the quarter that it is close to.
fn exact(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(exact),
        Value::Number(number) => {
            let shown = number.as_f64().expect("a quantile is a float");
            let near = (shown * 4.0).round() / 4.0;
            if (shown - near).abs() <= 0.02 * near.abs() {
                *value = json!(near);
            }
        }
        _ => {}
    }
}

/// The fields of `some` that are quantiles.
const QUANTILES: [&str; 3] = ["value_0", "value_1", "value_7"];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn aggregates_as_defined(
        items in logs(item(), |_, item| item),
        rows in logs((0u32..6, prop::option::weighted(0.7, item())), |_, row| row),
        runs in runs(),
    ) {
        let mut expected: BTreeMap<String, Vec<Rows>> = BTreeMap::new();
        for n in 0..EPOCHS {
            let mut windows: BTreeMap<(u32, i64), Vec<&Item>> = BTreeMap::new();
            for item in values(&items, n) {
                windows.entry((item.key, item.at_ms / 10_000)).or_default().push(item);
            }
            let mut table: BTreeMap<u32, &Item> = BTreeMap::new();
            for (key, item) in values(&rows, n) {
                table.remove(key);
                table.extend(item.as_ref().map(|item| (*key, item)));
            }
            let mut groups: BTreeMap<u32, Vec<&Item>> = BTreeMap::new();
            table.values().for_each(|item| groups.entry(item.key).or_default().push(item));
            for (name, naively) in VIEWS {
                let of_windows = windows.iter().map(|((key, window), items)| {
                    let bound = |end: i64| instant((window + end) * 10_000_000);
                    row(json!({ "key": key, "window_start": bound(0), "window_end": bound(1) }), naively(items))
                });
                let of_groups = groups.iter().map(|(key, items)| row(json!({ "key": key }), naively(items)));
                let mut put = |view: String, rows: Rows| {
                    let rows = rows.into_iter().map(plain).collect();
                    expected.entry(view).or_default().push(rows);
                };
                put(format!("windows_{name}"), of_windows.collect());
                put(format!("groups_{name}"), of_groups.collect());
            }
        }
        let expected = expected.iter().map(|(view, rows)| (view.as_str(), rows.clone())).collect();
        let feed = |test: &mut Harness, n: usize| {
            items.feed(test, "items", n);
            rows.feed_backwards(test, "rows", n);
        };
        let project = |view: &str, row: Value| {
            let mut row = plain(row);
            if view.ends_with("_some") {
                QUANTILES.iter().for_each(|field| exact(&mut row[field]));
            }
            row
        };
        check(&dataflow("every_aggregate", build), &runs, feed, &expected, project)?;
    }
}

/// Values of every kind that aggregates take.
#[derive(Clone, Debug)]
struct Any {
    float: f64,
    integer: i64,
    unsigned: u64,
    text: Option<String>,
}

fn any_value() -> impl Strategy<Value = Any> {
    let integer = || prop_oneof![Just(i64::MIN), Just(i64::MAX), -3i64..4, any::<i64>()];
    let unsigned = prop_oneof![Just(u64::MAX), 0u64..4, any::<u64>()];
    (float(), integer(), unsigned, prop::option::of("[a-c]{0,2}")).prop_map(
        |(float, integer, unsigned, text)| Any {
            float,
            integer,
            unsigned,
            text,
        },
    )
}

fn check_permutes<A: Aggregate<Any>>(aggregate: A, undoes: bool, values: &[Any]) -> Result<(), TestCaseError>
where
    A::Out: Debug,
{
    prop_assert_eq!(aggregate.undoes(), undoes);
    permutes(&aggregate, values).map_err(|error| TestCaseError::fail(error.to_string()))
}

proptest! {
    #[test]
    fn order_and_grouping_do_not_show(values in prop::collection::vec(any_value(), 1..10)) {
        let (a, values) = (AggregateBuilder::<Any>::default(), &values[..]);
        let (negative, named) = (|v: &Any| v.integer < 0, |v: &Any| v.text.is_some());
        check_permutes(a.count_if(negative), true, values)?;
        check_permutes(a.any(negative), true, values)?;
        check_permutes(a.all(negative), true, values)?;
        check_permutes(a.rate(negative), true, values)?;
        check_permutes(a.null_rate(|v| v.text.clone()), true, values)?;
        check_permutes(a.count_distinct(|v| v.text.clone()), true, values)?;
        check_permutes(a.sum(|v| v.integer).checked::<i64>(), true, values)?;
        check_permutes(a.var_pop(|v| v.float), true, values)?;
        check_permutes(a.var_samp(|v| v.integer), true, values)?;
        check_permutes(a.stddev_pop(|v| v.unsigned), true, values)?;
        check_permutes(a.stddev_samp(|v| v.float as f32), true, values)?;
        check_permutes(a.quantile(0.5, |v| v.float), true, values)?;
        check_permutes(a.quantiles([0.1, 0.9], |v| v.integer).relative_error(0.5), true, values)?;
        check_permutes(a.sum(|v| v.float).when(negative), true, values)?;
        check_permutes(a.count().when(negative), true, values)?;
        check_permutes(a.count_distinct(|v| v.integer).when(named), true, values)?;
        check_permutes((a.count(), a.var_pop(|v| v.float)).when(named), true, values)?;
        check_permutes(a.approx_count_distinct(|v| v.text.clone()), false, values)?;
        check_permutes(a.approx_count_distinct(|v| (v.integer, v.unsigned)).precision(4), false, values)?;
        check_permutes(a.arg_min(|v| v.integer.signum(), |v| v.text.clone()), false, values)?;
        check_permutes(a.arg_max(|v| v.integer.signum(), |v| F64::new(v.float)), false, values)?;
        check_permutes(a.arg_min_all(|v| v.text.clone(), |v| v.integer), false, values)?;
        check_permutes(a.arg_max_all(|v| v.text.clone(), |v| v.integer), false, values)?;
        check_permutes(a.first(|v| v.unsigned, |v| v.integer), false, values)?;
        check_permutes(a.last(|v| v.unsigned, |v| v.integer), false, values)?;
        check_permutes(a.collect(3, |v| v.text.clone()), false, values)?;
        check_permutes(a.top(3, |v| v.integer), false, values)?;
        check_permutes(a.bottom(3, |v| v.integer), false, values)?;
        check_permutes(a.top(3, |v| v.integer).when(named), false, values)?;
        check_permutes(a.min(|v| v.integer).when(named), false, values)?;
    }

    #[test]
    fn quantiles_are_as_close_as_they_say(
        mut values in prop::collection::vec(float(), 1..60),
        (q, more_q) in (0.0..=1.0, 0.0..=1.0),
        error in prop_oneof![Just(0.01), 0.0001..0.9],
    ) {
        let a = AggregateBuilder::<f64>::default();
        let shown = result(&a.quantiles([q, more_q], |v| *v).relative_error(error), &values);
        let single = result(&a.quantile(q, |v| *v).relative_error(error), &values);
        prop_assert_eq!(single, shown[0]);
        values.sort_by_key(|value| F64::new(*value));
        for (q, shown) in [q, more_q].into_iter().zip(shown.0) {
            let exact = values[(q * (values.len() - 1) as f64) as usize];
            let shown = shown.get();
            let is_close = match exact {
                _ if exact.is_nan() => shown.is_nan(),
                _ if exact.is_infinite() => shown == exact,
                _ if exact.abs() < f64::MIN_POSITIVE => shown == 0.0,
                _ => (shown / exact - 1.0).abs() <= error,
            };
            prop_assert!(is_close, "{shown} for {exact}, to within {error}");
        }
    }

    #[test]
    fn variances_of_floats_are_rounded_once(values in prop::collection::vec(finite(), 1..10), near in any::<bool>()) {
        // Far from zero and close together, too.
        let values: Vec<f64> = if near { values.iter().map(|v| 1e15 + v % 8.0).collect() } else { values };
        let ints: Vec<BigInt> = values.iter().copied().map(units).collect();
        let a = AggregateBuilder::<f64>::default();
        let shown = [
            Some(result(&a.var_pop(|v| *v), &values)),
            result(&a.var_samp(|v| *v), &values),
            Some(result(&a.stddev_pop(|v| *v), &values)),
            result(&a.stddev_samp(|v| *v), &values),
        ];
        check_variances(&ints, 1074, shown)?;
    }

    #[test]
    fn variances_of_integers_are_rounded_once(values in prop::collection::vec(any_value(), 1..10)) {
        let a = AggregateBuilder::<Any>::default();
        let shown = [
            Some(result(&a.var_pop(|v| v.integer), &values)),
            result(&a.var_samp(|v| v.integer), &values),
            Some(result(&a.stddev_pop(|v| v.integer), &values)),
            result(&a.stddev_samp(|v| v.integer), &values),
        ];
        check_variances(&values.iter().map(|v| v.integer.into()).collect::<Vec<_>>(), 0, shown)?;
        let shown = [
            Some(result(&a.var_pop(|v| v.unsigned), &values)),
            result(&a.var_samp(|v| v.unsigned), &values),
            Some(result(&a.stddev_pop(|v| v.unsigned), &values)),
            result(&a.stddev_samp(|v| v.unsigned), &values),
        ];
        check_variances(&values.iter().map(|v| v.unsigned.into()).collect::<Vec<_>>(), 0, shown)?;
    }
}

/// Holds variances and deviations against those of integers, in units of two to the −`scale`.
fn check_variances(values: &[BigInt], scale: u64, shown: [Option<F64>; 4]) -> Result<(), TestCaseError> {
    let n = BigInt::from(values.len());
    let (sum, squares) = (
        values.iter().sum::<BigInt>(),
        values.iter().map(|v| v * v).sum::<BigInt>(),
    );
    let numerator = &n * squares - &sum * &sum;
    let [var_pop, var_samp, stddev_pop, stddev_samp] = shown;
    for (free, variance, deviation) in [(n.clone(), var_pop, stddev_pop), (&n - 1, var_samp, stddev_samp)] {
        if free == BigInt::ZERO {
            prop_assert_eq!((variance, deviation), (None, None));
            continue;
        }
        let (variance, deviation) = (variance.unwrap().get(), deviation.unwrap().get());
        // Both in units of 2^-2148, times the divisor.
        let divisor = &n * &free;
        let exact = &numerator << (2 * (1074 - scale));
        let distance = |to: f64| {
            let to = if to.is_infinite() {
                BigInt::from(1) << (1074 + 1024)
            } else {
                units(to)
            };
            let off: BigInt = &exact - ((to * &divisor) << 1074);
            off.magnitude().clone()
        };
        let neighbours = [variance.next_down(), variance.next_up()]
            .into_iter()
            .filter(|other| *other >= 0.0);
        for other in neighbours {
            prop_assert!(
                distance(variance) <= distance(other),
                "{variance}, and {other} is closer"
            );
        }
        // The squares of the deviation's neighbours lie on both sides of the exact variance. That of a sample
        // of two floats far apart may be beyond what a float holds.
        let square = |root: f64| units(root) * units(root) * &divisor;
        let below = deviation.next_down();
        prop_assert!(below < 0.0 || square(below) <= exact, "{deviation}");
        let above = deviation.next_up();
        prop_assert!(above.is_infinite() || exact <= square(above), "{deviation}");
    }
    Ok(())
}

#[test]
fn what_is_not_finite_has_no_variance_until_it_is_taken_out() {
    let variance = AggregateBuilder::<f64>::default().var_pop(|v| *v);
    let mut state = variance.empty();
    [1.0, f64::INFINITY, 3.0]
        .iter()
        .for_each(|v| variance.add(&mut state, v));
    assert!(variance.finish(&state).get().is_nan());
    variance.undo(&mut state, &f64::INFINITY);
    assert_eq!(variance.finish(&state).get(), 1.0);
}

#[test]
fn a_sum_that_does_not_fit_is_none_and_never_another_number() {
    let a = || AggregateBuilder::<i128>::default();
    assert_eq!(result(&a().sum(|n| *n).checked::<i128>(), &[i128::MAX, 1]), None);
    assert_eq!(result(&a().sum(|n| *n).checked::<u64>(), &[i128::MAX, 1]), None);
    assert_eq!(
        result(&a().sum(|n| *n).checked::<i128>(), &[i128::MAX, 1, -1]),
        Some(i128::MAX)
    );
    assert_eq!(result(&a().sum(|n| *n).checked::<u64>(), &[-1]), None);
    assert_eq!(
        result(&a().sum(|n| *n).checked::<i64>(), &[1 << 62, 1 << 62]),
        None
    );
}

#[test]
#[should_panic(expected = "a quantile is from 0 to 1, not 99")]
fn a_percentile_is_no_quantile() {
    AggregateBuilder::<u64>::default().quantile(99.0, |n| *n);
}

#[test]
#[should_panic(expected = "is from 0.00001 to 1, not 0")]
fn nothing_is_without_error() {
    AggregateBuilder::<u64>::default()
        .quantile(0.99, |n| *n)
        .relative_error(0.0);
}

#[test]
#[should_panic(expected = "is from 4 to 16, not 20")]
fn sketches_have_a_limit() {
    AggregateBuilder::<u64>::default()
        .approx_count_distinct(|n| *n)
        .precision(20);
}
