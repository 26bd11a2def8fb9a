//! Reports of a day, with prices in three ranks: below a hundred dollars, below ten thousand, and above.

use thalweg::prelude::*;

use crate::model::{Bid, bids};

fn day() -> Tumbling {
    Tumbling::of(Duration::from_secs(24 * 3600))
}

fn rank1(bid: &Bid) -> bool {
    bid.price < 10_000
}

fn rank2(bid: &Bid) -> bool {
    (10_000..1_000_000).contains(&bid.price)
}

fn rank3(bid: &Bid) -> bool {
    bid.price >= 1_000_000
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct ByRank {
    total: u64,
    rank1: u64,
    rank2: u64,
    rank3: u64,
}

impl From<(u64, u64, u64, u64)> for ByRank {
    fn from((total, rank1, rank2, rank3): (u64, u64, u64, u64)) -> Self {
        Self {
            total,
            rank1,
            rank2,
            rank3,
        }
    }
}

fn count(a: AggregateBuilder<Bid>) -> impl Aggregate<Bid, Out = (u64, u64, u64, u64)> {
    (a.count(), a.count_if(rank1), a.count_if(rank2), a.count_if(rank3))
}

fn count_distinct(
    a: AggregateBuilder<Bid>,
    id: impl Fn(&Bid) -> i64 + Copy + 'static,
) -> impl Aggregate<Bid, Out = (u64, u64, u64, u64)> {
    (
        a.count_distinct(id),
        a.count_distinct(id).when(rank1),
        a.count_distinct(id).when(rank2),
        a.count_distinct(id).when(rank3),
    )
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Day {
    bids: ByRank,
    bidders: ByRank,
    auctions: ByRank,
}

/// Bids, bidders and auctions of a day, by rank.
pub fn q15(flow: Dataflow) {
    bids(flow)
        .key_by("all", |_| ())
        .window("days", day())
        .aggregate(|a| {
            (
                count(a),
                count_distinct(a, |bid| bid.bidder),
                count_distinct(a, |bid| bid.auction),
            )
        })
        .map(|_, (bids, bidders, auctions)| Day {
            bids: bids.into(),
            bidders: bidders.into(),
            auctions: auctions.into(),
        })
        .view("q15");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct ChannelDay {
    last_bid: i64,
    bids: ByRank,
    bidders: ByRank,
    auctions: ByRank,
}

/// The same by channel, with the time of the last bid.
pub fn q16(flow: Dataflow) {
    bids(flow)
        .key_by("channel", |bid| bid.channel.clone())
        .window("days", day())
        .aggregate(|a| {
            (
                a.max(|bid| bid.date_time),
                count(a),
                count_distinct(a, |bid| bid.bidder),
                count_distinct(a, |bid| bid.auction),
            )
        })
        .map(|_, (last_bid, bids, bidders, auctions)| ChannelDay {
            last_bid,
            bids: bids.into(),
            bidders: bidders.into(),
            auctions: auctions.into(),
        })
        .view("q16");
}

/// Bids and prices of a day, by auction.
pub fn q17(flow: Dataflow) {
    bids(flow)
        .key_by("auction", |bid| bid.auction)
        .window("days", day())
        .aggregate(|a| {
            (
                a.count(),
                a.count_if(rank1),
                a.count_if(rank2),
                a.count_if(rank3),
                a.min(|bid| bid.price),
                a.max(|bid| bid.price),
                a.avg(|bid| bid.price),
                a.sum(|bid| bid.price),
            )
        })
        .view_with("q17", |view| {
            view.fields([
                "total_bids",
                "rank1_bids",
                "rank2_bids",
                "rank3_bids",
                "min_price",
                "max_price",
                "avg_price",
                "sum_price",
            ])
        });
}
