//! A stop finishes what is bound; and before it, every moment that a reader takes is one state of the whole.

use std::sync::atomic::{AtomicBool, Ordering};

use thalweg::position::SourceId;
use thalweg::view::Snapshot;

use super::load::{Random, Topics};
use super::node::{self, Node};
use super::{crash, oracle};
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

/// What the oracle says of the topics up to where they are bound in a moment.
fn expected_at(topics: &Topics<'_>, log: &oracle::Log<'_>, snapshot: &Snapshot) -> oracle::Rows {
    let (payments, merchants) = (SourceId::of("payments"), SourceId::of("merchants"));
    let upto = |topic: &str, partition: i32| {
        let source = if topic == topics.payments {
            payments
        } else {
            merchants
        };
        let of = snapshot
            .positions
            .iter()
            .find(|(id, _)| id.source == source && id.partition == partition as u32);
        of.map_or(0, |(_, offset)| *offset)
    };
    log.expected(&upto)
}

#[test]
fn moments_are_whole_and_a_stop_leaves_none_half_done() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, "stop");
    let dir = tempfile::tempdir().unwrap();
    let node = Node::of(&topics, &registry.url()).data_dir(dir.path()).workers(2);
    let service = node.start().unwrap();
    let mut snapshots = Vec::new();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopped = crash::OnDrop(&stop);
        scope.spawn(|| crash::produce(&topics, &stop));
        let mut random = Random(13);
        let mut records = 0;
        while snapshots.len() < 8 {
            records += 100 + random.below(1_500) as i64;
            let count =
                |snapshot: &Snapshot| snapshot.positions.iter().map(|(_, offset)| offset).sum::<i64>();
            let newest = || {
                service
                    .views()
                    .closed()
                    .filter(|snapshot| count(snapshot) >= records)
            };
            let snapshot = super::eventually("more records", newest, || format!("{records} are wanted"));
            snapshots.push((node::rows_at(service.views(), &snapshot), snapshot));
        }
        // In the middle of it.
        service.stop();
        let views = node::joined(service).unwrap();
        let last = views.closed().unwrap();
        assert_eq!(
            thalweg::ledger::verify(dir.path()).unwrap().last,
            Some(last.epoch),
            "all that is bound is applied"
        );
        snapshots.push((node::rows_at(&views, &last), last));
        stop.store(true, Ordering::Release);
    });
    let log = oracle::Log::read(&topics);
    for (rows, snapshot) in &snapshots {
        oracle::compare(&expected_at(&topics, &log, snapshot), rows);
    }

    // Cut short in its replay, a service ends as well, and leaves the ledger as it was.
    let (_, last) = snapshots.last().unwrap();
    let again = node.start().unwrap();
    again.stop();
    node::joined(again).unwrap();
    assert_eq!(
        thalweg::ledger::verify(dir.path()).unwrap().last,
        Some(last.epoch)
    );

    let rest = node.until_end().start().unwrap();
    let views = node::joined(rest).unwrap();
    oracle::compare(&oracle::expected(&topics), &node::rows(&views));
}
