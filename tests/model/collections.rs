//! Collections: multisets that take rows back, joins of them, and loops.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;
use thalweg::prelude::*;
use thalweg::testing::Harness;

use super::log::{EPOCHS, Given, Log, Rows, check, config, logs, runs};

type Pair = (u32, u32);

fn build(flow: Dataflow) {
    // A table takes edges back, so its rows do too; a stream only ever adds.
    let edges = flow
        .table("edges", Kafka::topic("e").json::<Pair>().keyed::<u32>())
        .rows()
        .map(|(_, edge)| edge);
    let marks = flow.source("marks", Kafka::topic("m").json::<Pair>()).changes();
    let count = |rows: &Collection<Pair>, name: &str| {
        let step = format!("{name} counted");
        rows.group_by(["a", "b"], |row| *row)
            .aggregate(&step, |a| a.count())
            .view(name);
    };

    edges
        .group_by("a", |(a, _)| *a)
        .aggregate("extremes", |a| {
            (a.min(|(_, b)| *b), a.max(|(_, b)| *b), a.avg(|(_, b)| *b))
        })
        .view("extremes_view");
    count(&edges, "edges_view");
    count(&marks, "marks_view");
    count(&edges.concat(&marks), "both");
    count(&edges.map(|(a, b)| (b, a)).filter(|(a, b)| a < b), "turned");
    count(
        &edges.flat_map(|(a, b)| (a.min(b)..b).map(move |c| (a, c))),
        "spread",
    );
    let once = edges.distinct("once");
    count(&once, "once_view");
    count(&edges.concat(&once.negate()), "doubles");
    let marked = marks.map(|(a, _)| a);
    count(&edges.semijoin(&marked), "marked_view");
    count(&edges.antijoin(&marked), "unmarked");
    count(
        &edges.map(|(a, b)| (b, a)).join(&edges, |_, a, c| (*a, *c)),
        "two_hops",
    );
    count(&edges.differential(|rows| rows.count_degrees()), "degrees");
    let reach = once.iterate("reach", |inner, reach| {
        let edges = inner.bring(&once);
        reach
            .map(|(a, b)| (b, a))
            .join(&edges, |_, a, c| (*a, *c))
            .concat(&reach)
            .concat(&edges)
            .distinct("reached")
    });
    count(&reach, "reach_view");
}

/// A step in differential's own terms.
trait Degrees<'s> {
    fn count_degrees(self) -> differential_dataflow::VecCollection<'s, thalweg::Epoch, Pair, isize>;
}
impl<'s> Degrees<'s> for differential_dataflow::VecCollection<'s, thalweg::Epoch, Pair, isize> {
    fn count_degrees(self) -> Self {
        self.map(|(a, _)| a)
            .count()
            .map(|(a, n)| (a, u32::try_from(n).unwrap_or(u32::MAX)))
    }
}

fn values<T: Clone>(log: &Log<T>, epoch: usize) -> Vec<T> {
    let mut values = Vec::new();
    for step in &log.epochs[..=epoch] {
        for partition in 0..log.partitions {
            let own = step.records.iter().filter(|(p, _)| *p == partition);
            values.extend(own.filter_map(|(_, given)| match given {
                Given::Value(value) => Some(value.clone()),
                Given::Undecodable => None,
            }));
        }
    }
    values
}

fn counted(rows: impl IntoIterator<Item = Pair>) -> Rows {
    let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
    rows.into_iter()
        .for_each(|row| *counts.entry(row).or_default() += 1);
    counts
        .into_iter()
        .map(|((a, b), n)| json!({ "a": a, "b": b, "value": n }))
        .collect()
}

fn closure(edges: &BTreeSet<Pair>) -> BTreeSet<Pair> {
    let mut reach = edges.clone();
    loop {
        let further = reach.iter().flat_map(|(a, b)| {
            edges
                .iter()
                .filter(move |(c, _)| c == b)
                .map(move |(_, d)| (*a, *d))
        });
        let longer: BTreeSet<Pair> = further.chain(reach.iter().copied()).collect();
        if longer == reach {
            return reach;
        }
        reach = longer;
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn collections_as_defined(
        edges in logs((0u32..6, prop::option::weighted(0.7, (0u32..4, 0u32..4))), |_, row| row),
        marks in logs((0u32..4, 0u32..4), |_, row| row),
        runs in runs(),
    ) {
        let mut expected: BTreeMap<&str, Vec<Rows>> = BTreeMap::new();
        for n in 0..EPOCHS {
            let mut table: BTreeMap<u32, Pair> = BTreeMap::new();
            for (key, edge) in values(&edges, n) {
                table.remove(&key);
                table.extend(edge.map(|edge| (key, edge)));
            }
            let all: Vec<Pair> = table.values().copied().collect();
            let once: BTreeSet<Pair> = all.iter().copied().collect();
            let marks = values(&marks, n);
            let marked = |a: u32| marks.iter().any(|(mark, _)| *mark == a);
            let mut put = |view, rows: Rows| expected.entry(view).or_default().push(rows);
            let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            all.iter().for_each(|(a, b)| groups.entry(*a).or_default().push(*b));
            put("extremes_view", groups.into_iter().map(|(a, bs)| json!({
                "a": a, "value_0": bs.iter().min(), "value_1": bs.iter().max(),
                "value_2": f64::from(bs.iter().sum::<u32>()) / bs.len() as f64,
            })).collect());
            put("edges_view", counted(all.iter().copied()));
            put("marks_view", counted(marks.iter().copied()));
            put("both", counted(all.iter().chain(&marks).copied()));
            put("turned", counted(all.iter().map(|(a, b)| (*b, *a)).filter(|(a, b)| a < b)));
            put("spread", counted(all.iter().flat_map(|(a, b)| (*a.min(b)..*b).map(move |c| (*a, c)))));
            put("once_view", counted(once.iter().copied()));
            let mut doubles = all.clone();
            for edge in &once {
                let at = doubles.iter().position(|other| other == edge).expect("it is there");
                doubles.remove(at);
            }
            put("doubles", counted(doubles));
            put("marked_view", counted(all.iter().copied().filter(|(a, _)| marked(*a))));
            put("unmarked", counted(all.iter().copied().filter(|(a, _)| !marked(*a))));
            let hops = all.iter().flat_map(|(a, b)| all.iter().filter(move |(c, _)| c == b).map(move |(_, d)| (*a, *d)));
            put("two_hops", counted(hops));
            let degree = |a: u32| all.iter().filter(|(b, _)| *b == a).count() as u32;
            let sources: BTreeSet<u32> = all.iter().map(|(a, _)| *a).collect();
            put("degrees", counted(sources.into_iter().map(|a| (a, degree(a)))));
            put("reach_view", counted(closure(&once)));
        }
        let feed = |test: &mut Harness, n: usize| {
            edges.feed_backwards(test, "edges", n);
            marks.feed(test, "marks", n);
        };
        check(&dataflow("collections", build), &runs, feed, &expected, |_, row| row)?;
    }
}
