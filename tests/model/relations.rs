//! What SQL calls joins of every kind, sets, the first rows of a group, and keys that must be unique.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg::Flow;
use thalweg::prelude::*;
use thalweg::testing::Harness;

use super::log::{EPOCHS, Rows, check, config, logs, runs};
use super::tables::states;

/// The key of the right table that a row of the left one names, and a number.
type Left = (u32, i64);

fn build(flow: Dataflow) {
    let left = flow
        .table("left", Kafka::topic("l").json::<Left>().keyed::<u32>())
        .key_named("key");
    let right = flow
        .table("right", Kafka::topic("r").json::<i64>().keyed::<u32>())
        .key_named("key");
    joins(&left, &right);
    keys(&left, &right);
    groups(&left, &right);
    sets(&left, &right);
}

fn joins<'s>(left: &Table<'s, u32, Left>, right: &Table<'s, u32, i64>) {
    let ns = left.map(|_, (_, n)| n);
    ns.full_join("full", right, |_, n, m| (n, m.copied()))
        .view("full_view");
    right
        .full_join("turned", &ns, |_, m, n| (m, n.copied()))
        .view("turned_view");
    left.semijoin("semi", right).view("semi_view");
    left.antijoin("anti", right).view("anti_view");
    left.semijoin_on("semi_on", right, |_, (named, _)| *named)
        .view("semi_on_view");
    left.antijoin_on("anti_on", right, |_, (named, _)| *named)
        .view("anti_on_view");
    // A row that a closure leaves out; and a join behind a join, by the first key again.
    let some = left
        .join_on(
            "some",
            right,
            |_, (named, _)| *named,
            |_, (_, n), m| (n != *m).then_some(n + m),
        )
        .flatten();
    some.view("some_view");
    some.left_join("again", right, |_, sum, m| (sum, m.copied()))
        .view("again_view");
    // With itself: both sides change at once.
    ns.join("itself", &ns, |_, a, b| a * 10 + b).view("itself_view");
}

fn keys<'s>(left: &Table<'s, u32, Left>, right: &Table<'s, u32, i64>) {
    left.rekey("by_n", ["n", "key"], |key, (_, n)| (*n, *key))
        .view("by_n_view");
    let lines = left.flat_map("lines", ["key", "line"], |key, (named, n)| {
        (0..n % 3).map(move |line| ((key, line), named))
    });
    lines.view("lines_view");
    // Lines live elsewhere than the keys that they begin with.
    lines
        .join("of_key", right, |_, named, m| (named, *m))
        .view("of_key_view");
    let pairs = left.rows().filter(|(_, (named, _))| named % 2 == 0);
    pairs.to_table("even", "key").view("even_view");
}

fn groups<'s>(left: &Table<'s, u32, Left>, right: &Table<'s, u32, i64>) {
    let top = left
        .group_by("named", |_, (named, _)| *named)
        .top_k("top", 2, |(_, (_, n))| *n);
    top.map(|_, (key, (_, n))| (key, n)).view("top_view");
    top.join("top_with", right, |at, (key, _), m| (key, at.rank, *m))
        .view("top_with_view");
    let rows = left.rows().map(|(_, row)| row);
    // Rows that are alike have a rank each.
    rows.group_by("named", |(named, _)| *named)
        .top_k("least", 3, |(_, n)| std::cmp::Reverse(*n))
        .map(|_, (_, n)| n)
        .view("least_view");
    rows.group_by("named", |(named, _)| *named)
        .reduce("listed", |_, rows| {
            let list: Vec<(i64, u64)> = rows.iter().map(|((_, n), times)| (*n, *times)).collect();
            (list.len() > 1).then_some(list)
        })
        .flatten()
        .view("listed_view");
}

fn sets<'s>(left: &Table<'s, u32, Left>, right: &Table<'s, u32, i64>) {
    let (one, two) = (left.rows().map(|(_, row)| row), right.rows());
    one.count("counted", ["named", "n"]).view("counted_view");
    one.view_with("served_view", |view| view.keys(["named", "n"]));
    two.view("plain_view");
    let served = |rows: &Collection<'s, Left>, name: &str| {
        rows.view_with(name, |view| view.keys(["named", "n"]));
    };
    served(&one.union("union", &two), "union_view");
    served(&one.intersect("intersect", &two), "intersect_view");
    served(&one.except("except", &two), "except_view");
    let options = one.map(|(named, n)| (n > 1).then_some((named, n)));
    served(&options.flatten(), "large_view");
    let sums = one.reduce("sums", |_, ns| {
        let sum: i64 = ns.iter().map(|(n, times)| **n * *times as i64).sum();
        (sum % 2 == 0).then_some(sum)
    });
    served(&sums, "sums_view");
}

fn rank(mut rows: Vec<(i64, u32)>, k: usize) -> impl Iterator<Item = (usize, (i64, u32))> {
    rows.sort_by_key(|(n, key)| (-n, *key));
    rows.truncate(k);
    (1..).zip(rows)
}

fn named(row: impl IntoIterator<Item = (Left, u64)>) -> Rows {
    let json = |((named, n), count): (Left, u64)| json!({ "named": named, "n": n, "count": count });
    row.into_iter().map(json).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn relations_as_defined(
        left in logs((0u32..5, prop::option::weighted(0.7, (0u32..4, 0i64..6))), |_, row| row),
        right in logs((0u32..5, prop::option::weighted(0.7, 0i64..6)), |_, row| row),
        runs in runs(),
    ) {
        let (lefts, rights) = (states(&left), states(&right));
        let mut expected: BTreeMap<&str, Vec<Rows>> = BTreeMap::new();
        for n in 0..EPOCHS {
            let (l, r) = (&lefts[n], &rights[n]);
            let mut put = |view, rows: Rows| expected.entry(view).or_default().push(rows);
            expect_joins(l, r, &mut put);
            expect_keys(l, r, &mut put);
            expect_groups(l, r, &mut put);
            expect_sets(l, r, &mut put);
        }
        let feed = |test: &mut Harness, n: usize| {
            left.feed_backwards(test, "left", n);
            right.feed_backwards(test, "right", n);
        };
        check(&dataflow("relations", build), &runs, feed, &expected, |_, row| row)?;
    }
}

type Put<'a> = &'a mut dyn FnMut(&'static str, Rows);

fn expect_joins(l: &BTreeMap<u32, Left>, r: &BTreeMap<u32, i64>, put: Put) {
    let keys: BTreeSet<u32> = l.keys().chain(r.keys()).copied().collect();
    let full = |turned: bool| {
        let row = |key: &u32| {
            let (n, m) = (l.get(key).map(|(_, n)| *n), r.get(key).copied());
            let [a, b] = if turned { [m, n] } else { [n, m] };
            json!({ "key": key, "value_0": a, "value_1": b })
        };
        keys.iter().map(row).collect::<Rows>()
    };
    put("full_view", full(false));
    put("turned_view", full(true));
    let some = |of: &dyn Fn(u32, Left) -> bool| -> Rows {
        let rows = l.iter().filter(|(key, row)| of(**key, **row));
        rows.map(|(key, (named, n))| json!({ "key": key, "value_0": named, "value_1": n }))
            .collect()
    };
    put("semi_view", some(&|key, _| r.contains_key(&key)));
    put("anti_view", some(&|key, _| !r.contains_key(&key)));
    put("semi_on_view", some(&|_, (named, _)| r.contains_key(&named)));
    put("anti_on_view", some(&|_, (named, _)| !r.contains_key(&named)));
    let sums: BTreeMap<u32, i64> = l
        .iter()
        .filter_map(|(key, (named, n))| r.get(named).filter(|m| *m != n).map(|m| (*key, n + m)))
        .collect();
    put(
        "some_view",
        sums.iter()
            .map(|(key, sum)| json!({ "key": key, "value": sum }))
            .collect(),
    );
    let again = |(key, sum): (&u32, &i64)| json!({ "key": key, "value_0": sum, "value_1": r.get(key) });
    put("again_view", sums.iter().map(again).collect());
    put(
        "itself_view",
        l.iter()
            .map(|(key, (_, n))| json!({ "key": key, "value": n * 11 }))
            .collect(),
    );
}

fn expect_keys(l: &BTreeMap<u32, Left>, r: &BTreeMap<u32, i64>, put: Put) {
    let by_n: BTreeMap<(i64, u32), Left> = l.iter().map(|(key, row)| ((row.1, *key), *row)).collect();
    let by_n = by_n
        .iter()
        .map(|((n, key), row)| json!({ "n": n, "key": key, "value_0": row.0, "value_1": n }));
    put("by_n_view", by_n.collect());
    let lines = || {
        l.iter()
            .flat_map(|(key, (named, n))| (0..n % 3).map(move |line| (*key, line, *named)))
    };
    let line = |(key, line, named)| json!({ "key": key, "line": line, "value": named });
    put("lines_view", lines().map(line).collect());
    let of_key = |(key, line, named): (u32, i64, u32)| {
        Some(json!({ "key": key, "line": line, "value_0": named, "value_1": r.get(&key)? }))
    };
    put("of_key_view", lines().filter_map(of_key).collect());
    let even = l.iter().filter(|(_, (named, _))| named % 2 == 0);
    let even = even.map(|(key, (named, n))| json!({ "key": key, "value_0": named, "value_1": n }));
    put("even_view", even.collect());
}

fn expect_groups(l: &BTreeMap<u32, Left>, r: &BTreeMap<u32, i64>, put: Put) {
    let mut groups: BTreeMap<u32, Vec<(i64, u32)>> = BTreeMap::new();
    l.iter()
        .for_each(|(key, (named, n))| groups.entry(*named).or_default().push((*n, *key)));
    let top = |k| {
        groups
            .iter()
            .flat_map(move |(named, rows)| rank(rows.clone(), k).map(move |at| (*named, at)))
    };
    let row =
        |(named, (rank, (n, key)))| json!({ "named": named, "rank": rank, "value_0": key, "value_1": n });
    put("top_view", top(2).map(row).collect());
    let with = |(named, (rank, (_, key))): (u32, (usize, (i64, u32)))| {
        let m = r.get(&named)?;
        Some(json!({ "named": named, "rank": rank, "value_0": key, "value_1": rank, "value_2": m }))
    };
    put("top_with_view", top(2).filter_map(with).collect());
    let (mut least, mut listed) = (Rows::new(), Rows::new());
    for (named, rows) in &groups {
        let mut ns: Vec<i64> = rows.iter().map(|(n, _)| *n).collect();
        ns.sort_unstable();
        let ranks = (1..).zip(ns.iter().take(3));
        least.extend(ranks.map(|(rank, n)| json!({ "named": named, "rank": rank, "value": n })));
        let list: Vec<Value> = ns
            .chunk_by(|a, b| a == b)
            .map(|some| json!([some[0], some.len()]))
            .collect();
        listed.extend((list.len() > 1).then(|| json!({ "named": named, "value": list })));
    }
    put("least_view", least);
    put("listed_view", listed);
}

fn expect_sets(l: &BTreeMap<u32, Left>, r: &BTreeMap<u32, i64>, put: Put) {
    let mut one: BTreeMap<Left, u64> = BTreeMap::new();
    l.values().for_each(|row| *one.entry(*row).or_default() += 1);
    let two: BTreeSet<Left> = r.iter().map(|(key, m)| (*key, *m)).collect();
    let counted = one
        .iter()
        .map(|((named, n), times)| json!({ "named": named, "n": n, "value": times }));
    put("counted_view", counted.collect());
    put("served_view", named(one.clone()));
    let plain = two
        .iter()
        .map(|(key, m)| json!({ "key_0": key, "key_1": m, "count": 1 }));
    put("plain_view", plain.collect());
    let once: BTreeSet<Left> = one.keys().copied().collect();
    let each = |rows: BTreeSet<Left>| named(rows.into_iter().map(|row| (row, 1)));
    put("union_view", each(&once | &two));
    put("intersect_view", each(&once & &two));
    put("except_view", each(&once - &two));
    put(
        "large_view",
        named(one.iter().filter(|((_, n), _)| *n > 1).map(|(row, n)| (*row, *n))),
    );
    let mut sums: BTreeMap<u32, i64> = BTreeMap::new();
    l.values()
        .for_each(|(named, n)| *sums.entry(*named).or_default() += n);
    put(
        "sums_view",
        each(sums.into_iter().filter(|(_, sum)| sum % 2 == 0).collect()),
    );
}

/// Feeds rows of `left`, an epoch each, and says what it comes to.
fn outcome(build: impl Fn(Dataflow) + Send + Sync + 'static, epochs: &[&[(u32, Option<Left>)]]) -> String {
    let flow: Flow = dataflow("keys", build);
    let mut test = Harness::of(flow);
    test.workers(2);
    for rows in epochs {
        test.feed("left", 0, rows.iter().copied());
        test.epoch();
    }
    match test.run() {
        Ok(_) => "runs".into(),
        Err(error) => error.to_string(),
    }
}

fn left<'s>(flow: Dataflow<'s>) -> Table<'s, u32, Left> {
    flow.table("left", Kafka::topic("l").json::<Left>().keyed::<u32>())
}

#[test]
fn two_rows_of_a_key_stop_the_service() {
    fn by_named(flow: Dataflow) {
        left(flow)
            .rekey("by_named", "named", |_, (named, _)| *named)
            .view("shown");
    }
    // At once, in a later epoch, and rows that are alike.
    for epochs in [
        &[&[(1, Some((7, 1))), (2, Some((7, 2)))][..]][..],
        &[&[(1, Some((7, 1)))], &[(2, Some((7, 2)))]],
        &[&[(1, Some((7, 1)))], &[(2, Some((7, 1)))]],
    ] {
        let said = outcome(by_named, epochs);
        for part in [
            "`by_named` has more than one row for a key",
            "key 7, epoch",
            "hint",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
    // A row may take the place of another in one epoch, be it alike.
    let turns: [&[_]; 3] = [
        &[(1, Some((7, 1)))],
        &[(1, None), (2, Some((7, 2)))],
        &[(2, Some((8, 2))), (3, Some((7, 2)))],
    ];
    assert_eq!(outcome(by_named, &turns), "runs");
    let same: [&[_]; 2] = [&[(1, Some((7, 1)))], &[(1, None), (2, Some((7, 1)))]];
    assert_eq!(outcome(by_named, &same), "runs");

    fn lines(flow: Dataflow) {
        let lines = left(flow).flat_map("lines", "line", |_, (named, n)| [(named, n), (named, n)]);
        lines.view("shown");
    }
    let said = outcome(lines, &[&[(1, Some((7, 1)))]]);
    assert!(said.contains("`lines` has more than one row for a key"), "{said}");
}

#[test]
fn a_foreign_key_that_changes_its_mind_stops_the_service() {
    fn fickle(flow: Dataflow) {
        let (left, calls) = (left(flow), std::cell::Cell::new(0));
        let on = move |_: &u32, _: &Left| calls.replace(calls.get() + 1);
        left.join_on("fickle", &left, on, |_, row, _| row).view("shown");
    }
    let said = outcome(
        fickle,
        &[&[(1, Some((7, 1)))], &[(1, Some((7, 2)))], &[(1, None)]],
    );
    assert!(
        said.contains("`fickle` received the retraction of a row that it does not hold"),
        "{said}"
    );
}
