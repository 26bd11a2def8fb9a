//! What the generator promises of its events.

use nexmark::generator::Generator;
use nexmark::model::Event;

use crate::Events;

#[test]
fn an_event_follows_from_seed_and_number() {
    let (one, other) = (Generator::new(7), Generator::new(8));
    let forwards: Vec<Event> = (0..200).map(|number| one.event(number)).collect();
    let mut backwards: Vec<Event> = (0..200).rev().map(|number| one.event(number)).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    let differ = forwards
        .iter()
        .zip(0..)
        .filter(|(event, number)| **event != other.event(*number));
    assert_eq!(differ.count(), 200);
}

#[test]
fn events_have_the_proportions_and_ids_of_the_suite() {
    let events = Events::new(7, 1_000, 50_000);
    assert_eq!(
        (events.people.len(), events.auctions.len(), events.bids.len()),
        (1_000, 3_000, 46_000)
    );
    assert!(events.people.iter().map(|p| p.id).eq(1_000..2_000));
    assert!(events.auctions.iter().map(|a| a.id).eq(1_000..4_000));
    assert!(events.auctions.iter().all(|a| (10..15).contains(&a.category)));
    assert!(
        events
            .auctions
            .iter()
            .all(|a| a.date_time < a.expires && a.initial_bid < a.reserve)
    );
    // Ids run ahead of what is announced by ten at most.
    assert!(events.auctions.iter().all(|a| (1_000..2_010).contains(&a.seller)));
    for bid in &events.bids {
        assert!((100..=100_000_000).contains(&bid.price));
        assert!((1_000..2_010).contains(&bid.bidder) && (1_000..4_010).contains(&bid.auction));
    }
    let hot = events.bids.iter().filter(|bid| bid.auction % 100 == 0).count();
    assert!((23_000..25_000).contains(&hot), "{hot} bids on hot auctions");
    assert!(
        events
            .bids
            .windows(2)
            .all(|pair| pair[0].date_time <= pair[1].date_time)
    );
}

/// Sizes in bytes as JSON, without names and punctuation, are about those of the suite: 200, 500 and 100.
#[test]
fn events_have_the_sizes_of_the_suite() {
    let events = Events::new(7, 1_000, 50_000);
    let mean = |total: usize, n: usize| total / n;
    let bids: usize = events.bids.iter().map(|bid| 32 + bid.extra.len()).sum();
    assert_eq!(mean(bids, events.bids.len()) / 10, 9);
    let auctions: usize = events
        .auctions
        .iter()
        .map(|a| 48 + a.item_name.len() + a.description.len() + a.extra.len())
        .sum();
    assert!((480..520).contains(&mean(auctions, events.auctions.len())));
}
