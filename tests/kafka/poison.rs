//! A record that a user's closure panics on: the process ends with a word about where, and with a code that
//! is not 0.

use thalweg::Flow;
use thalweg::prelude::*;

use crate::support::kafka::Broker;

pub fn flow() -> Flow {
    dataflow("poisoned", |flow: Dataflow<'_>| {
        let numbers = flow.source("numbers", Kafka::topic("poison.v1").text::<i64>());
        let inverse = numbers.map(|n| 1000 / n);
        inverse
            .changes()
            .group_by("n", |n| *n)
            .aggregate("counted", |a| a.count())
            .view("inverses");
    })
}

#[test]
fn the_process_ends_and_says_where() {
    let broker = Broker::shared();
    broker.create_topic("poison.v1", 2);
    let (fine, poison): (Vec<String>, Vec<String>) = (
        (1..50).map(|n| n.to_string()).collect(),
        ["5", "4", "0", "3"].map(str::to_owned).to_vec(),
    );
    for (partition, payloads) in [(0, &fine), (1, &poison)] {
        broker.produce_raw(
            "poison.v1",
            partition,
            payloads.iter().map(|text| (None, Some(text.as_bytes()), 1)),
        );
    }
    for workers in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().to_str().unwrap();
        let arguments = ["--data-dir", data, "--workers", &workers.to_string()];
        let (code, said) = super::command::run("poisoned", broker, &arguments, |_| {});
        assert_eq!(code, Some(1), "{said}");
        let named = "error: a step of the dataflow panicked\n  the map after `numbers`, at topic \
            `poison.v1`, partition 1, offset 2\n  attempt to divide by zero";
        assert!(said.contains(named), "{said}");
        // What was bound is in the ledger, and whole.
        let ledger = thalweg::ledger::verify(&dir.path().join("poisoned")).unwrap();
        assert!(ledger.last.is_some(), "the epoch with the record was bound");
    }
}
