//! All that is in the topics is counted once, on any number of workers; what can't be counted is a dead letter.

use super::load::{Random, Till, Topics};
use super::node::{self, Node};
use super::oracle;
use crate::support::kafka::Broker;
use crate::support::registry::Registry;

/// Records of each partition: uneven, and each spans about the same half hour of event time.
const UNEVEN: [usize; 4] = [180_000, 80_000, 38_000, 2_000];
const SPAN_MS: i64 = 1_800_000;

#[test]
fn every_row_and_dead_letter_is_what_the_topics_say() {
    let (broker, registry) = (Broker::shared(), Registry::shared());
    let topics = Topics::make(broker, registry, "exact");
    topics.write_merchants(&mut Random(5), 400);
    std::thread::scope(|scope| {
        for (partition, records) in UNEVEN.into_iter().enumerate() {
            let topics = &topics;
            scope.spawn(move || {
                let mut till = Till::new(17, partition as u64, SPAN_MS / records as i64);
                topics.write(&topics.payments, partition as i32, &till.take(topics, records));
            });
        }
    });
    let expected = oracle::expected(&topics);
    let letters = expected["payments.dead_letters"].len();
    assert!(
        letters > 3_000,
        "only {letters} dead letters: the test has lost its point"
    );
    for workers in [1, 2] {
        let service = Node::of(&topics, &registry.url())
            .workers(workers)
            .until_end()
            .start()
            .unwrap();
        let views = node::joined(service).unwrap();
        oracle::compare(&expected, &node::rows(&views));
    }
}
