//! Queries about the winning bids: the highest one for each auction, of those that came in time.

use std::cmp::Reverse;

use thalweg::prelude::*;

use crate::model::{Auction, Bid, auctions, bids};

/// What of an auction and a bid is needed here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Winning {
    price: i64,
    bid_time: i64,
    bidder: i64,
    item_name: String,
    seller: i64,
    category: i64,
    expires: i64,
}

/// Bids on an auction that was open then.
fn in_time(flow: Dataflow<'_>) -> Collection<'_, (i64, Winning)> {
    let auctions = auctions(flow).map(|auction| (auction.id, auction));
    let bids = bids(flow).map(|bid| (bid.auction, bid));
    let pairs = auctions
        .changes()
        .join(&bids.changes(), |id, auction: &Auction, bid: &Bid| {
            let is_open = auction.date_time <= bid.date_time && bid.date_time <= auction.expires;
            let winning = is_open.then(|| Winning {
                price: bid.price,
                bid_time: bid.date_time,
                bidder: bid.bidder,
                item_name: auction.item_name.clone(),
                seller: auction.seller,
                category: auction.category,
                expires: auction.expires,
            });
            winning.map(|winning| (*id, winning))
        });
    pairs.flatten()
}

/// The highest bid for each auction; of two that are equal, the earlier one.
fn winning(flow: Dataflow<'_>) -> Table<'_, i64, Winning> {
    in_time(flow)
        .group_by("auction", |(auction, _)| *auction)
        .aggregate("winning", |a| {
            a.arg_max(
                |(_, bid)| (bid.price, Reverse(bid.bid_time)),
                |(_, bid)| bid.clone(),
            )
        })
}

/// The mean of the winning prices in each category.
pub fn q4(flow: Dataflow) {
    winning(flow)
        .group_by("category", |_, bid| bid.category)
        .aggregate("mean", |a| a.avg(|(_, bid)| bid.price))
        .view_with("q4", |view| view.fields(["final"]));
}

/// The mean of the winning prices in the last ten auctions of each seller: those that close last.
pub fn q6(flow: Dataflow) {
    winning(flow)
        .group_by("seller", |_, bid| bid.seller)
        .top_k("last", 10, |(auction, bid)| (bid.expires, *auction))
        .group_by("seller", |place, _| place.key)
        .aggregate("mean", |a| a.avg(|(_, (_, bid))| bid.price))
        .view_with("q6", |view| view.fields(["price"]));
}

/// The winning bids.
pub fn q9(flow: Dataflow) {
    winning(flow).view("q9");
}
