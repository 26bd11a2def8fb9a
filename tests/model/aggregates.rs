//! The built-in aggregates: exact in whatever order, grouping and taking out, and rounded once, against
//! integers of any size.

use std::cmp::Ordering;

use num_bigint::BigInt;
use proptest::prelude::*;
use serde_json::json;
use thalweg::prelude::*;
use thalweg::testing::{Harness, permutes};

/// A finite float, in units of the least float above zero.
pub(super) fn units(value: f64) -> BigInt {
    let bits = value.abs().to_bits();
    let (exponent, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
    let units = match exponent {
        0 => BigInt::from(fraction),
        _ => BigInt::from(fraction | 1 << 52) << (exponent - 1),
    };
    if value < 0.0 { -units } else { units }
}

/// The sum of finite floats, in these units.
pub(super) fn sum_of(values: &[f64]) -> BigInt {
    values.iter().copied().map(units).sum()
}

/// Whether no float is closer to `sum` / `n` than `value`, and of two that are as close `value` is the even
/// one.
fn is_nearest(value: f64, sum: &BigInt, n: u64) -> bool {
    let distance = |to: f64| {
        // Infinity stands where the next float would.
        let to = match to {
            f64::INFINITY => BigInt::from(1) << (1074 + 1024),
            f64::NEG_INFINITY => BigInt::from(-1) << (1074 + 1024),
            to => units(to),
        };
        (sum - to * n).magnitude().clone()
    };
    let neighbours = [value.next_down(), value.next_up()];
    let mut neighbours = neighbours.into_iter().filter(|other| *other != value);
    neighbours.all(|other| match distance(value).cmp(&distance(other)) {
        Ordering::Less => true,
        Ordering::Equal => value.to_bits().is_multiple_of(2),
        Ordering::Greater => false,
    })
}

/// The float nearest to `sum` / `n`: `about` or the one below or above.
pub(super) fn nearest(about: f64, sum: &BigInt, n: u64) -> f64 {
    let candidates = [about, about.next_down(), about.next_up()].into_iter();
    let mut nearest = candidates.filter(|value| is_nearest(*value, sum, n));
    nearest.next().expect("one of them is the nearest") + 0.0
}

pub(super) fn result<T, A: Aggregate<T>>(aggregate: &A, values: &[T]) -> A::Out {
    let mut state = aggregate.empty();
    values.iter().for_each(|value| aggregate.add(&mut state, value));
    aggregate.finish(&state)
}

const FLOATS: [f64; 16] = [
    f64::MAX,
    -f64::MAX,
    1.5e308,
    1.7e308,
    f64::MIN_POSITIVE,
    -f64::MIN_POSITIVE,
    5e-324,
    -5e-324,
    1e-310,
    0.1,
    1.0,
    -0.0,
    9007199254740993.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

const INTEGERS: [i128; 10] = [
    i128::MAX,
    i128::MIN,
    -i128::MAX,
    1,
    -1,
    0,
    (1 << 53) + 1,
    i64::MAX as i128,
    i64::MIN as i128,
    u64::MAX as i128,
];

pub(super) fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        2 => prop::sample::select(&FLOATS[..]),
        3 => any::<f64>(),
        1 => any::<u64>().prop_map(|bits| f64::from_bits(bits >> 12 | bits << 63)),
    ]
}

pub(super) fn finite() -> impl Strategy<Value = f64> {
    float().prop_filter("finite", |value| value.is_finite())
}

fn integer() -> impl Strategy<Value = i128> {
    let around = prop::sample::select(&INTEGERS[..]);
    prop_oneof![
        around.prop_flat_map(|n| (-3i128..=3).prop_map(move |more| n.saturating_add(more))),
        any::<i128>(),
        any::<i64>().prop_map(i128::from),
    ]
}

/// One value of every type that there is an aggregate of.
#[derive(Clone, Debug)]
struct Values {
    float: f64,
    integer: i128,
}

fn permutes_everywhere(values: &[Values]) {
    let a = || AggregateBuilder::<Values>::default();
    let unsigned = |v: &Values| v.integer.cast_unsigned();
    permutes(&a().count(), values).unwrap();
    permutes(&a().sum(|v| v.integer), values).unwrap();
    permutes(&a().avg(|v| v.integer), values).unwrap();
    permutes(&a().sum(unsigned), values).unwrap();
    permutes(&a().avg(unsigned), values).unwrap();
    permutes(&a().min(|v| v.integer), values).unwrap();
    permutes(&a().max(|v| (v.integer, F64::new(v.float))), values).unwrap();
    permutes(&a().sum(|v| v.float), values).unwrap();
    permutes(&a().sum(|v| F64::new(v.float)), values).unwrap();
    permutes(&a().sum(|v| v.float as f32), values).unwrap();
    permutes(&a().avg(|v| v.float), values).unwrap();
    permutes(&a().min(|v| F64::new(v.float)), values).unwrap();
    permutes(&a().max(|v| F64::new(v.float)), values).unwrap();
    permutes(&a().sum(|v| v.integer as i8), values).unwrap();
    permutes(&a().sum(|v| v.integer as u64), values).unwrap();
    let sums = (a().count(), a().sum(|v| v.integer), a().avg(|v| v.integer));
    permutes(
        &(sums.0, sums.1, sums.2, a().sum(|v| v.float), a().avg(|v| v.float)),
        values,
    )
    .unwrap();
    let mixed = (
        a().sum(|v| v.integer),
        a().min(|v| F64::new(v.float)),
        a().avg(|v| v.float),
    );
    permutes(&mixed, values).unwrap();
}

#[test]
fn sums_and_means_of_extremes_do_not_depend_on_order() {
    let a = || AggregateBuilder::<i128>::default();
    let values = [i128::MAX, 1, -i128::MAX];
    assert_eq!(result(&a().sum(|n| *n), &values), 1);
    permutes(&a().sum(|n| *n), &values).unwrap();
    assert_eq!(result(&a().sum(|n| *n), &[i128::MAX, i128::MAX]), i128::MAX);
    assert_eq!(result(&a().sum(|n| *n), &[i128::MIN, -1]), i128::MIN);
    let a = || AggregateBuilder::<u128>::default();
    assert_eq!(result(&a().sum(|n| *n), &[u128::MAX]), i128::MAX);
    assert_eq!(result(&a().sum(|n| *n), &[(1 << 100) + 1, 2]), (1 << 100) + 3);
    assert_eq!(
        result(&a().avg(|n| *n), &[u128::MAX, u128::MAX]).get(),
        2f64.powi(128)
    );
    permutes_everywhere(&[]);
    let all = INTEGERS.iter().cycle().zip(FLOATS);
    let all: Vec<_> = all
        .map(|(integer, float)| Values {
            float,
            integer: *integer,
        })
        .collect();
    permutes_everywhere(&all);
    permutes_everywhere(&all[..3]);
}

#[test]
fn the_mean_of_finite_floats_is_finite() {
    let a = || AggregateBuilder::<f64>::default();
    assert_eq!(result(&a().avg(|v| *v), &[1.5e308, 1.7e308]).get(), 1.6e308);
    assert_eq!(result(&a().avg(|v| *v), &[f64::MAX; 3]).get(), f64::MAX);
    assert_eq!(result(&a().avg(|v| *v), &[-f64::MAX; 5]).get(), -f64::MAX);
    assert_eq!(result(&a().sum(|v| *v), &[1.5e308, 1.7e308]).get(), f64::INFINITY);
    assert_eq!(
        result(&a().avg(|v| *v), &[5e-324, 0.0]).get(),
        0.0,
        "half of the least is a tie"
    );
    assert_eq!(result(&a().avg(|v| *v), &[5e-324, 1e-323]).get(), 1e-323);
    // Rounded to a float before it is divided, the sum would give 9007199254740992 / 3.
    let a = || AggregateBuilder::<i64>::default();
    let values = [(1 << 53) + 1, 0, 0];
    assert_eq!(result(&a().avg(|n| *n), &values).get(), 3002399751580331.0);
}

proptest! {
    #[test]
    fn built_in_aggregates_permute(values in prop::collection::vec((float(), integer()), 1..8)) {
        let values: Vec<_> = values.into_iter().map(|(float, integer)| Values { float, integer }).collect();
        permutes_everywhere(&values);
    }

    #[test]
    fn floats_are_summed_exactly_and_rounded_once(values in prop::collection::vec(finite(), 1..12)) {
        let (sum, n) = (sum_of(&values), values.len() as u64);
        let a = AggregateBuilder::<f64>::default();
        let (shown, mean) = (result(&a.sum(|v| *v), &values).get(), result(&a.avg(|v| *v), &values).get());
        prop_assert!(is_nearest(shown, &sum, 1), "{shown}");
        prop_assert!(is_nearest(mean, &sum, n) && mean.is_finite(), "{mean}");
    }

    #[test]
    fn what_is_not_finite_goes_by_the_rules_of_addition(
        finite in prop::collection::vec(finite(), 0..4),
        not_finite in prop::collection::vec(prop::sample::select(&FLOATS[13..]), 1..4),
    ) {
        let values = [finite, not_finite.clone()].concat();
        let expected = F64::new(not_finite.iter().sum::<f64>());
        let a = AggregateBuilder::<f64>::default();
        prop_assert_eq!(result(&a.sum(|v| *v), &values), expected);
        prop_assert_eq!(result(&a.avg(|v| *v), &values), expected);
    }

    #[test]
    fn integers_are_summed_exactly_and_their_mean_is_rounded_once(
        values in prop::collection::vec(integer(), 1..12),
        unsigned in any::<bool>(),
    ) {
        let a = AggregateBuilder::<i128>::default();
        let (sum, shown, mean) = if unsigned {
            let sum: BigInt = values.iter().map(|n| BigInt::from(n.cast_unsigned())).sum();
            (sum, result(&a.sum(|n| n.cast_unsigned()), &values), result(&a.avg(|n| n.cast_unsigned()), &values))
        } else {
            let sum: BigInt = values.iter().copied().map(BigInt::from).sum();
            (sum, result(&a.sum(|n| *n), &values), result(&a.avg(|n| *n), &values))
        };
        prop_assert_eq!(BigInt::from(shown), sum.clone().clamp(i128::MIN.into(), i128::MAX.into()));
        prop_assert!(is_nearest(mean.get(), &(sum << 1074), values.len() as u64), "{mean:?}");
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Entry {
    #[serde(with = "text")]
    n: i128,
    at_ms: i64,
}

/// Integers as text: JSON's readers differ beyond 64 bits.
mod text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(n: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(n)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

fn sums(flow: Dataflow) {
    let entries = Kafka::topic("entries").json::<Entry>();
    flow.source("entries", entries.event_time(|e| EventTime::from_millis(e.at_ms)))
        .key_by("all", |_| 0u8)
        .window("windowed", Tumbling::of(Duration::from_secs(60)))
        .aggregate(|a| (a.sum(|e| e.n), a.avg(|e| e.n)))
        .view("windowed_view");
    flow.table("rows", Kafka::topic("rows").json::<Entry>().keyed::<u32>())
        .rows()
        .group_by("all", |_| 0u8)
        .aggregate("grouped", |a| (a.sum(|(_, e)| e.n), a.avg(|(_, e)| e.n)))
        .view("grouped_view");
}

#[test]
fn sums_are_the_same_on_any_number_of_workers_and_after_restarts() {
    let entry = |n| Entry { n, at_ms: 0 };
    for workers in 1..=3 {
        let mut test = Harness::of(dataflow("sums", sums));
        test.workers(workers);
        for (partition, n) in (0..).zip([i128::MAX, i128::MAX, 1]) {
            test.feed("entries", partition, [entry(n)]);
            test.feed("rows", partition, [(partition, Some(entry(n)))]);
        }
        let first = test.epoch();
        test.checkpoint();
        test.restart(4 - workers);
        for (partition, n) in (0..).zip([-i128::MAX, -i128::MAX, 3]) {
            test.feed("entries", partition, [entry(n)]);
        }
        test.feed("rows", 0, [(0u32, None::<Entry>)])
            .feed("rows", 1, [(1u32, Some(entry(3)))]);
        let second = test.epoch();
        let run = test.run().unwrap();
        assert_eq!(run.restored(), Some(first));
        let mean = |view| run.rows::<serde_json::Value>(view, second).unwrap()[0]["value_1"].clone();
        let sum = |view| run.rows::<serde_json::Value>(view, second).unwrap()[0]["value_0"].clone();
        assert_eq!(
            (sum("windowed_view"), mean("windowed_view")),
            (json!(4), json!(4.0 / 6.0))
        );
        assert_eq!(
            (sum("grouped_view"), mean("grouped_view")),
            (json!(4), json!(2.0))
        );
    }
}
