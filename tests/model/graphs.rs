//! Graphs whose edges come and go, against an evaluation of the edges that there are.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;
use thalweg::dataflow::graph;
use thalweg::prelude::*;
use thalweg::testing::Harness;

use super::log::{EPOCHS, Rows, check, config, logs, runs};
use super::tables::states;

type Edge = (u32, u32);

fn build(flow: Dataflow) {
    let edges = flow.table("edges", Kafka::topic("e").json::<Edge>().keyed::<u32>());
    // Two keys may have the same edge.
    let edges = edges.rows().map(|(_, edge)| edge);
    let roots = flow.table("roots", Kafka::topic("r").json::<u32>().keyed::<u32>());
    let roots = roots.rows().map(|(_, root)| root);
    graph::reachable("reachable", &edges, &roots)
        .map(|node| (node, true))
        .to_table("reached", "node")
        .view("reachable_view");
    let shown = |rows: &Collection<(u32, u64)>, name: &str| {
        rows.to_table(&format!("{name} table"), "node").view(name);
    };
    shown(&graph::distances("distances", &edges, &roots), "distances_view");
    let weighted = edges.map(|(from, to)| (from, (to, length((from, to)))));
    shown(
        &graph::weighted_distances("weighted", &weighted, &roots),
        "weighted_view",
    );
    shown(&graph::page_rank("ranks", &edges), "ranks_view");
    let components = graph::components("components", &edges);
    components
        .to_table("component_of", "node")
        .view("components_view");
}

fn length((from, to): Edge) -> u64 {
    u64::from(from * 5 + to * 3) % 7
}

/// Bellman and Ford's.
fn shortest(edges: &BTreeSet<Edge>, roots: &BTreeSet<u32>, length: fn(Edge) -> u64) -> BTreeMap<u32, u64> {
    let mut known: BTreeMap<u32, u64> = roots.iter().map(|root| (*root, 0)).collect();
    for _ in 0..=edges.len() {
        for edge in edges {
            let Some(so_far) = known.get(&edge.0) else {
                continue;
            };
            let sum = so_far + length(*edge);
            let known = known.entry(edge.1).or_insert(sum);
            *known = sum.min(*known);
        }
    }
    known
}

/// By merging the sets of both ends.
fn components(edges: &BTreeSet<Edge>) -> BTreeMap<u32, u32> {
    let mut labels: BTreeMap<u32, u32> = edges.iter().flat_map(|(a, b)| [(*a, *a), (*b, *b)]).collect();
    for (a, b) in edges {
        let (one, other) = (labels[a], labels[b]);
        let least = one.min(other);
        labels
            .values_mut()
            .filter(|label| [one, other].contains(*label))
            .for_each(|label| *label = least);
    }
    labels
}

/// In millionths, as often as it takes.
fn ranks(edges: &BTreeSet<Edge>) -> BTreeMap<u32, u64> {
    let nodes: BTreeSet<u32> = edges.iter().flat_map(|(a, b)| [*a, *b]).collect();
    let degree = |node: u32| edges.iter().filter(|(from, _)| *from == node).count() as u64;
    let mut ranks: BTreeMap<u32, u64> = nodes.iter().map(|node| (*node, 150_000)).collect();
    loop {
        let rank = |node: &u32| {
            let into = edges.iter().filter(|(_, to)| to == node);
            150_000
                + into
                    .map(|(from, _)| ranks[from] * 85 / (100 * degree(*from)))
                    .sum::<u64>()
        };
        let next: BTreeMap<u32, u64> = nodes.iter().map(|node| (*node, rank(node))).collect();
        if next == ranks {
            return ranks;
        }
        ranks = next;
    }
}

proptest! {
    // Fewer than elsewhere: ranks take a hundred rounds.
    #![proptest_config(ProptestConfig { cases: config().cases.div_ceil(4), ..config() })]

    #[test]
    fn graphs_as_of_every_epoch(
        edges in logs((0u32..9, prop::option::weighted(0.75, (0u32..6, 0u32..6))), |_, row| row),
        roots in logs((0u32..2, prop::option::weighted(0.7, 0u32..6)), |_, row| row),
        runs in runs(),
    ) {
        let (all_edges, all_roots) = (states(&edges), states(&roots));
        let mut expected: BTreeMap<&str, Vec<Rows>> = BTreeMap::new();
        for n in 0..EPOCHS {
            let edges: BTreeSet<Edge> = all_edges[n].values().copied().collect();
            let roots: BTreeSet<u32> = all_roots[n].values().copied().collect();
            let mut put = |view, rows: Rows| expected.entry(view).or_default().push(rows);
            let hops = shortest(&edges, &roots, |_| 1);
            let shown = |(node, value): (&u32, &u64)| json!({ "node": node, "value": value });
            put("reachable_view", hops.keys().map(|node| json!({ "node": node, "value": true })).collect());
            put("distances_view", hops.iter().map(shown).collect());
            put("weighted_view", shortest(&edges, &roots, length).iter().map(shown).collect());
            put("ranks_view", ranks(&edges).iter().map(shown).collect());
            let labels = components(&edges);
            let labelled = |(node, label)| json!({ "node": node, "value": label });
            put("components_view", labels.iter().map(labelled).collect());
        }
        let feed = |test: &mut Harness, n: usize| {
            edges.feed_backwards(test, "edges", n);
            roots.feed_backwards(test, "roots", n);
        };
        check(&dataflow("graphs", build), &runs, feed, &expected, |_, row| row)?;
    }
}
