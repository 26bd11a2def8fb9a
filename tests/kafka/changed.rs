//! A replay on other records than those that were bound halts. It gives no answer rather than another one.

use std::path::Path;

use thalweg::ledger::{Claim, Ledger, LedgerStore};
use thalweg::position::{PartitionRange, SourceId};
use thalweg::{Error, Kind};

use super::load::{Random, Till, Topics};
use super::node::{self, Node};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

fn written(name: &str) -> Topics<'static> {
    let topics = Topics::make(Broker::shared(), Registry::shared(), name);
    topics.write_merchants(&mut Random(2), 20);
    for partition in 0..4 {
        topics.write(
            &topics.payments,
            partition,
            &Till::new(31, partition as u64, 1_000).take(&topics, 300),
        );
    }
    topics
}

fn run(topics: &Topics<'_>, dir: &Path) -> Result<(), Error> {
    let service = Node::of(topics, &Registry::shared().url())
        .data_dir(dir)
        .until_end()
        .start()?;
    node::joined(service).map(|_| ())
}

/// A ledger like the one in `from`, but that some of its ranges are bound to other records.
fn altered(from: &Path, alter: impl Fn(&mut PartitionRange)) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let claim = Claim {
        app: "tests".into(),
        dataflow: "spend".into(),
        build: "none".into(),
        sources: Vec::new(),
    };
    let (_held, recovered) = Ledger::open(from, claim.clone()).unwrap();
    let mut bindings: Vec<_> = recovered.bindings.collect::<Result<_, _>>().unwrap();
    bindings
        .iter_mut()
        .flat_map(|binding| &mut binding.ranges)
        .for_each(alter);
    Ledger::open(to.path(), claim)
        .unwrap()
        .0
        .append(&bindings)
        .unwrap();
    to
}

#[test]
fn a_replay_of_other_records_halts() {
    let dir = tempfile::tempdir().unwrap();
    let topics = written("changed.first");
    run(&topics, dir.path()).unwrap();
    run(&topics, altered(dir.path(), |_| {}).path()).unwrap();

    let payments =
        |range: &PartitionRange| range.id.source == SourceId::of("payments") && range.id.partition == 2;
    let other_hash = altered(dir.path(), |range| range.hash ^= u64::from(payments(range)));
    let other_count = altered(dir.path(), |range| range.records += u64::from(payments(range)));
    for ledger in [other_hash, other_count] {
        let error = run(&topics, ledger.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Integrity);
        let text = error.to_string();
        let named = [
            "`payments` no longer has the records that the ledger bound",
            "partition 2",
        ];
        assert!(named.iter().all(|part| text.contains(part)), "{text}");
    }

    // The very same records, but in a topic that was made anew: what follows them may be anything.
    let error = run(&written("changed.anew"), dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(error.to_string().contains("was deleted and recreated"), "{error}");
}
