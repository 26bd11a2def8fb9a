//! Two processes compute what one does: every epoch of a ledger has the same changes in every view.

use std::collections::BTreeSet;
use std::path::Path;

use thalweg::Epoch;
use thalweg::runtime::Service;

use super::load::{Random, Till, Topics};
use super::node::{self, Closed, Node};
use super::oracle::{self, Rows};
use crate::support::free_addresses;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

#[test]
fn two_processes_replay_what_one_has_bound() {
    let (topics, registry) = (filled("cluster-replay"), Registry::shared());
    let dir = tempfile::tempdir().unwrap();
    let node = Node::of(&topics, &registry.url()).until_end();
    let (alone, rows) = node.clone().data_dir(dir.path()).spawn().finish();
    let expected = oracle::expected(&topics);
    oracle::compare(&expected, &rows);
    let (together, rows) = pair(&node, dir.path());
    oracle::compare(&expected, &rows);
    same(&alone, &together);
}

#[test]
fn one_process_replays_what_two_have_bound() {
    let (topics, registry) = (filled("cluster-bind"), Registry::shared());
    let dir = tempfile::tempdir().unwrap();
    let node = Node::of(&topics, &registry.url()).until_end();
    let (together, rows) = pair(&node, dir.path());
    let expected = oracle::expected(&topics);
    oracle::compare(&expected, &rows);
    let (alone, rows) = node.workers(3).data_dir(dir.path()).spawn().finish();
    oracle::compare(&expected, &rows);
    same(&alone, &together);
}

#[test]
fn every_process_is_live_in_the_end_and_any_may_ask_for_a_stop() {
    let (topics, registry) = (filled("cluster-stop"), Registry::shared());
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let addresses = free_addresses(2);
        [0, 1].map(|process| {
            let node = Node::of(&topics, &registry.url());
            let node = Node {
                cluster: Some((process, addresses.clone())),
                data_dir: (process == 0).then(|| dir.path().to_owned()),
                ..node
            };
            node.start().unwrap()
        })
    };
    let live = |services: &[Service; 2], bound: Option<Epoch>| {
        for service in services {
            let state = || format!("{:?}, halt {:?}", service.replaying(), service.halt().error());
            super::eventually("the process is live", || service.is_live().then_some(()), state);
            let closed = service.views().closed().map(|snapshot| snapshot.epoch);
            assert!(closed >= bound, "live at {closed:?}, though {bound:?} is bound");
        }
    };
    // All of them end, with what is bound; says up to where that is.
    let end = |services: [Service; 2]| {
        let closed = services.map(|service| node::joined(service).unwrap().closed().map(|m| m.epoch));
        assert_eq!(closed[0], closed[1], "one process has seen more than the other");
        closed[0]
    };

    let services = start();
    live(&services, None);
    node::caught_up(&services[1], &topics);
    services[1].stop();
    let in_ledger = || thalweg::ledger::verify(dir.path()).unwrap().last;
    let bound = end(services);
    assert_eq!(in_ledger(), bound);

    // What an earlier run has bound comes first, also where there is no ledger.
    let services = start();
    live(&services, bound);
    services[1].stop();
    assert_eq!(end(services), in_ledger());

    // Before anything: whichever thread is first, all of them end.
    let services = start();
    services[1].stop();
    assert!(end(services) <= in_ledger());
}

fn filled(name: &str) -> Topics<'static> {
    let topics = Topics::make(Broker::shared(), Registry::shared(), name);
    topics.write_merchants(&mut Random(1), 100);
    for (partition, records) in (0..).zip([12_000, 6_000, 1_500, 500]) {
        let mut till = Till::new(11, partition as u64, 1_200_000 / records as i64);
        topics.write(&topics.payments, partition, &till.take(&topics, records));
    }
    topics
}

/// Runs a node as two processes, the first of which keeps the ledger; adds up what they have.
fn pair(node: &Node, dir: &Path) -> (Vec<Closed>, Rows) {
    let addresses = free_addresses(2);
    let process = |process| Node {
        cluster: Some((process, addresses.clone())),
        ..node.clone()
    };
    let first = process(0).data_dir(dir).spawn();
    let second = process(1).spawn();
    let ((mut epochs, mut rows), (others, more)) = (first.finish(), second.finish());
    let numbers = |epochs: &[Closed]| epochs.iter().map(|closed| closed.epoch).collect::<Vec<_>>();
    assert_eq!(
        numbers(&epochs),
        numbers(&others),
        "the processes have closed different epochs"
    );
    for (closed, other) in epochs.iter_mut().zip(others) {
        assert!(
            closed.hashes.keys().eq(other.hashes.keys()),
            "the processes have different views"
        );
        for (sum, hash) in closed.hashes.values_mut().zip(other.hashes.values()) {
            *sum = sum.wrapping_add(*hash);
        }
    }
    let mut shared = BTreeSet::new();
    for (view, more) in more {
        let rows = rows.entry(view.clone()).or_default();
        let len = rows.len() + more.len();
        if !more.is_empty() && !rows.is_empty() {
            shared.insert(view.clone());
        }
        rows.extend(more);
        assert_eq!(rows.len(), len, "both processes hold a row of `{view}`");
    }
    assert!(shared.contains("minute_spend"), "one process did all the work");
    (epochs, rows)
}

fn same(alone: &[Closed], together: &[Closed]) {
    assert!(alone.len() > 1, "there is but one epoch: nothing was compared");
    assert!(
        alone.iter().any(|closed| closed.hashes["merchant_spend"] != 0),
        "nothing was hashed"
    );
    for (one, two) in alone.iter().zip(together) {
        assert_eq!(one, two);
    }
    assert_eq!(alone.len(), together.len());
}
