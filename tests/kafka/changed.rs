//! A replay on other records than those that were bound halts. It gives no answer rather than another one.

use std::path::Path;

use thalweg::{Error, Kind};

use super::load::{Random, Till, Topics};
use super::node::{self, Node};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

fn written(name: &str, change: impl Fn(usize, &mut Vec<u8>)) -> Topics<'static> {
    let topics = Topics::make(Broker::shared(), Registry::shared(), name);
    topics.write_merchants(&mut Random(2), 20);
    for partition in 0..4 {
        let mut records = Till::new(31, partition as u64, 1_000).take(&topics, 300);
        for (at, (_, payload, _)) in records.iter_mut().enumerate() {
            if let Some(payload) = payload.as_mut().filter(|_| partition == 2) {
                change(at, payload);
            }
        }
        topics.write(&topics.payments, partition, &records);
    }
    topics
}

fn run(topics: &Topics<'_>, dir: &Path) -> Result<(), Error> {
    let service = Node::of(topics, &Registry::shared().url()).data_dir(dir).until_end().start()?;
    node::joined(service).map(|_| ())
}

#[test]
fn a_replay_of_other_records_halts() {
    let dir = tempfile::tempdir().unwrap();
    run(&written("changed.first", |_, _| {}), dir.path()).unwrap();

    // One byte of one record, by which the record is still a good one.
    let other = written("changed.other", |at, payload| {
        if at == 211 {
            payload[5] ^= 2;
        }
    });
    let error = run(&other, dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    let text = error.to_string();
    let named = ["`payments` no longer holds the records that the ledger bound", "partition 2"];
    assert!(named.iter().all(|part| text.contains(part)), "{text}");

    // The very same records, but in a topic that was made anew: what follows them may be anything.
    let error = run(&written("changed.anew", |_, _| {}), dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Integrity);
    assert!(error.to_string().contains("was deleted and made again"), "{error}");
}
