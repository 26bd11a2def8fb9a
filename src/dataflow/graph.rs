//! Graph algorithms: fixed points over collections of edges.
//!
//! Each result is maintained as edges come and go, and at every epoch equals a computation from scratch over
//! the edges of that epoch. An edge is a pair of nodes, directed from the first to the second; duplicates
//! count once. Results are collections: [`to_table`](Collection::to_table) turns pairs into a table.
//!
//! ```
//! use thalweg::dataflow::graph;
//! use thalweg::prelude::*;
//!
//! fn hops(flow: Dataflow) {
//!     let follows = flow.table("follows", Kafka::topic("follows").json::<(u32, u32)>().keyed::<u64>());
//!     let edges = follows.rows().map(|(_, edge)| edge);
//!     let roots = flow.table("roots", Kafka::topic("roots").json::<u32>().keyed::<u64>()).rows();
//!     graph::distances("hops", &edges, &roots.map(|(_, root)| root))
//!         .to_table("by_user", "user")
//!         .view_with("hops", |view| view.fields(["hops"]));
//! }
//! # thalweg::runtime::plan(&dataflow("hops", hops), &Default::default()).unwrap();
//! ```
//!
//! A loop takes as many rounds as the longest of the shortest paths has edges; [`components`] takes as many
//! as the largest component is wide, [`page_rank`] about a hundred. In each round, a change of an edge costs
//! the nodes that it affects, with their edges.

use differential_dataflow::VecCollection;
use differential_dataflow::operators::iterate::Iterate;

use crate::dataflow::collection::Collection;
use crate::record::Record;
use crate::time::Epoch;

type Rows<'s, D> = VecCollection<'s, Epoch, D, isize>;

/// The nodes reachable from any of `roots`, including the roots. `name` is the step's.
#[track_caller]
pub fn reachable<'s, N: Record>(
    name: &str,
    edges: &Collection<'s, (N, N)>,
    roots: &Collection<'s, N>,
) -> Collection<'s, N> {
    edges.fixed_point(name, "reachable", roots, |edges, roots| {
        let roots = roots.distinct();
        roots.clone().iterate(|scope, reached| {
            let next = edges.enter(scope).semijoin(reached).map(|(_, to)| to);
            next.concat(roots.enter(scope)).distinct()
        })
    })
}

/// For each node reachable from any of `roots`, the smallest number of edges on a path to it. `name` is the
/// step's.
#[track_caller]
pub fn distances<'s, N: Record>(
    name: &str,
    edges: &Collection<'s, (N, N)>,
    roots: &Collection<'s, N>,
) -> Collection<'s, (N, u64)> {
    edges.fixed_point(name, "distances", roots, |edges, roots| {
        shortest(edges.map(|(from, to)| (from, (to, 1))), roots)
    })
}

/// For each node reachable from any of `roots`, the smallest sum of edge lengths on a path to it, at most
/// `u64::MAX`. An edge is a pair of its first node, and its second node with the length. `name` is the
/// step's.
#[track_caller]
pub fn weighted_distances<'s, N: Record>(
    name: &str,
    edges: &Collection<'s, (N, (N, u64))>,
    roots: &Collection<'s, N>,
) -> Collection<'s, (N, u64)> {
    edges.fixed_point(name, "weighted_distances", roots, shortest)
}

fn shortest<'s, N: Record>(edges: Rows<'s, (N, (N, u64))>, roots: Rows<'s, N>) -> Rows<'s, (N, u64)> {
    let start = roots.distinct().map(|root| (root, 0));
    start.clone().iterate(|scope, known| {
        let further = known.join_map(edges.enter(scope), |_, so_far: &u64, (to, length)| {
            (to.clone(), so_far.saturating_add(*length))
        });
        least(further.concat(start.enter(scope)))
    })
}

/// For each node of an edge, the smallest node of its connected component, ignoring the direction of edges.
/// `name` is the step's.
#[track_caller]
pub fn components<'s, N: Record>(name: &str, edges: &Collection<'s, (N, N)>) -> Collection<'s, (N, N)> {
    edges.fixed_point(name, "components", edges, |edges, _| {
        let own = nodes(edges.clone()).map(|node| (node.clone(), node));
        let back = edges.clone().map(|(from, to)| (to, from));
        let edges = edges.concat(back);
        own.clone().iterate(|scope, labels| {
            let passed = labels.join_map(edges.enter(scope), |_, label, to| (to.clone(), label.clone()));
            least(passed.concat(own.enter(scope)))
        })
    })
}

/// PageRank of each node of an edge, in millionths: a base rank plus equal shares of the ranks of the nodes
/// that link to it. `name` is the step's.
///
/// The base rank is 0.15, and a node passes 0.85 of its rank on; a node without outgoing edges passes nothing
/// on. So the mean is at most 1, and ranks do not sum to one. Shares are rounded down to whole millionths:
/// the result is the least fixed point, the same in every run.
///
/// Source: Brin and Page, "The Anatomy of a Large-Scale Hypertextual Web Search Engine", 1998.
#[track_caller]
pub fn page_rank<'s, N: Record>(name: &str, edges: &Collection<'s, (N, N)>) -> Collection<'s, (N, u64)> {
    edges.fixed_point(name, "page_rank", edges, |edges, _| {
        let edges = edges.distinct();
        let own = nodes(edges.clone()).map(|node| (node, RANK_OWN));
        let degrees = edges.clone().map(|(from, _)| from).count();
        let edges = edges.join_map(degrees, |from, to, n| (from.clone(), (to.clone(), *n as u64)));
        // Ranks are computed from below, and shares grow with the rank: so ranks only rise, up to the least
        // fixed point.
        own.clone().iterate(|scope, ranks| {
            let passed = ranks.join_map(edges.enter(scope), |_, rank: &u64, (to, n)| {
                (to.clone(), rank * RANK_PASSED_PERCENT / (100 * n))
            });
            passed.concat(own.enter(scope)).reduce(|_, parts, sum| {
                sum.push((parts.iter().map(|(part, times)| **part * *times as u64).sum(), 1));
            })
        })
    })
}

/// A node's base rank, in millionths.
const RANK_OWN: u64 = 150_000;
const RANK_PASSED_PERCENT: u64 = 85;

fn nodes<N: Record>(edges: Rows<'_, (N, N)>) -> Rows<'_, N> {
    edges.flat_map(|(from, to)| [from, to]).distinct()
}

/// The smallest value of each key. Generic over the loop's timestamp, which `iterate` does not name.
fn least<'i, N: Record, V: Record, C: crate::dataflow::collection::Clock>(
    rows: VecCollection<'i, C, (N, V), isize>,
) -> VecCollection<'i, C, (N, V), isize> {
    rows.reduce(|_, values, least| least.push((values[0].0.clone(), 1)))
}
