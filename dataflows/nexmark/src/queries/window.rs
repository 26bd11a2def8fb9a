//! Queries by windows of event time.

use thalweg::prelude::*;

use crate::model::bids;

/// Hot items: the auctions with the most bids in the last ten seconds, every two seconds.
pub fn q5(flow: Dataflow) {
    let period = Hopping::of(Duration::from_secs(10)).every(Duration::from_secs(2));
    bids(flow)
        .key_by("auction", |bid| bid.auction)
        .window("bids", period)
        .aggregate(|a| a.count())
        .group_by("window", |auction, _| auction.window)
        .aggregate("hot", |a| {
            (
                a.max(|(_, bids)| *bids),
                a.arg_max_all(|(_, bids)| *bids, |(auction, _)| auction.key),
            )
        })
        .view_with("q5", |view| view.fields(["bids", "auctions"]));
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Highest {
    auction: i64,
    bidder: i64,
    price: i64,
    date_time: i64,
}

/// Highest bids: all bids of the highest price, by ten seconds.
pub fn q7(flow: Dataflow) {
    bids(flow)
        .map(|bid| Highest {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            date_time: bid.date_time,
        })
        .key_by("all", |_| ())
        .window("highest", Tumbling::of(Duration::from_secs(10)))
        .aggregate(|a| a.arg_max_all(|bid| bid.price, Highest::clone))
        .view_with("q7", |view| view.fields(["bids"]));
}

/// User sessions: how many bids each bidder made until a pause of ten seconds.
pub fn q11(flow: Dataflow) {
    bids(flow)
        .key_by("bidder", |bid| bid.bidder)
        .window("sessions", Sessions::gap(Duration::from_secs(10)))
        .aggregate(|a| a.count())
        .view_with("q11", |view| view.fields(["bids"]));
}
