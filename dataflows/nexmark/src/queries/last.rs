//! Queries that keep a few bids of many.

use thalweg::prelude::*;

use crate::model::{Bid, bids};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Last {
    price: i64,
    channel: String,
    url: String,
    date_time: i64,
    extra: String,
}

impl From<&Bid> for Last {
    fn from(bid: &Bid) -> Self {
        Self {
            price: bid.price,
            channel: bid.channel.clone(),
            url: bid.url.clone(),
            date_time: bid.date_time,
            extra: bid.extra.clone(),
        }
    }
}

/// The last bid of each bidder on each auction.
pub fn q18(flow: Dataflow) {
    bids(flow)
        .key_by(["bidder", "auction"], |bid| (bid.bidder, bid.auction))
        .aggregate_all("last", |a| a.last(|bid| bid.date_time, |bid| Last::from(bid)))
        .view("q18");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Top {
    // First, as rows are compared field by field.
    price: i64,
    date_time: i64,
    bidder: i64,
    channel: String,
}

/// The ten highest bids on each auction; of two that are equal, the later one.
pub fn q19(flow: Dataflow) {
    bids(flow)
        .key_by("auction", |bid| bid.auction)
        .aggregate_all("top", |a| {
            a.top(10, |bid| Top {
                price: bid.price,
                date_time: bid.date_time,
                bidder: bid.bidder,
                channel: bid.channel.clone(),
            })
        })
        .flat_map("ranked", ["auction", "rank"], |auction, top| {
            (1u32..).zip(top).map(move |(rank, bid)| ((auction, rank), bid))
        })
        .view("q19");
}
