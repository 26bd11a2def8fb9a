//! Epochs gone through again, beside the process that has the ledger and writes on in it, come to what they
//! came to.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use thalweg::Epoch;

use super::crash::{OnDrop, closed, produce};
use super::load::Topics;
use super::node::{self, Node};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

#[test]
fn a_range_is_verified_beside_the_running_service() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, "verify");
    let dir = tempfile::tempdir().unwrap();
    let live = Node::of(&topics, &registry.url())
        .data_dir(dir.path())
        .checkpoints(Duration::from_millis(300));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopped = OnDrop(&stop);
        scope.spawn(|| produce(&topics, &stop));
        let mut process = live.clone().workers(2).spawn();
        let mut seen = Vec::new();
        let mut wait = |count: usize| {
            while seen.len() < count {
                seen.extend(closed(process.next().expect("it runs")));
            }
            seen.iter().map(|closed| closed.epoch).collect::<Vec<_>>()
        };
        let first = wait(300);
        // What epochs came to is said by bindings behind them.
        wait(360);
        // From the start, and from whatever checkpoint there is before the middle.
        for (from, to, workers) in [(0, first[200], 1), (first[200], first[299], 3)] {
            let again = live.clone().workers(workers).replay(from, to).start().unwrap();
            while !again.is_finished() {
                std::thread::yield_now();
            }
            let (restored, compared) = (again.restored(), again.compared());
            let views = node::joined(again).unwrap();
            assert_eq!(views.closed().map(|snapshot| snapshot.epoch), Some(Epoch(to)));
            assert!(restored < Some(Epoch(from)));
            assert!(compared.alike >= 90 && compared.different == 0, "{compared:?}");
            assert_eq!(compared.unknown, 0, "{compared:?}");
        }
        // It was not disturbed.
        wait(420);
        process.kill9();
    });
    let ledger = thalweg::ledger::verify(dir.path()).unwrap();
    assert_eq!((ledger.claims, ledger.claims_void), (1, 0));
}
