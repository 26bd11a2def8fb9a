//! Queries that join people, auctions and bids.

use thalweg::prelude::*;

use crate::model::{auctions, bids, people};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Offer {
    name: String,
    city: String,
    state: String,
    auction: i64,
}

/// Local items: who sells something of category 10 in Oregon, Idaho or California.
pub fn q3(flow: Dataflow) {
    let sellers = people(flow)
        .filter(|person| ["OR", "ID", "CA"].contains(&person.state.as_str()))
        .map(|person| (person.id, (person.name, person.city, person.state)));
    let offers = auctions(flow)
        .filter(|auction| auction.category == 10)
        .map(|auction| (auction.seller, auction.id));
    let local = offers
        .changes()
        .join(&sellers.changes(), |_, auction, (name, city, state)| Offer {
            name: name.clone(),
            city: city.clone(),
            state: state.clone(),
            auction: *auction,
        });
    local.view("q3");
}

/// New users: who registered and opened an auction in the same ten seconds.
pub fn q8(flow: Dataflow) {
    let period = || Tumbling::of(Duration::from_secs(10));
    let registered = people(flow)
        .key_by("id", |person| person.id)
        .window("registered", period())
        .aggregate(|a| a.max(|person| person.name.clone()));
    let sold = auctions(flow)
        .key_by("id", |auction| auction.seller)
        .window("sold", period())
        .aggregate(|a| a.count());
    registered
        .semijoin("new_sellers", &sold)
        .view_with("q8", |view| view.fields(["name"]));
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Expanded {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    bid_time: i64,
    item_name: String,
    initial_bid: i64,
    reserve: i64,
    auction_time: i64,
    expires: i64,
    seller: i64,
}

/// Bids on something of category 10, with what is known of the auction.
pub fn q20(flow: Dataflow) {
    let of_category = auctions(flow)
        .filter(|auction| auction.category == 10)
        .map(|auction| (auction.id, auction));
    let bids = bids(flow).map(|bid| (bid.auction, bid));
    let expanded = bids
        .changes()
        .join(&of_category.changes(), |id, bid, auction| Expanded {
            auction: *id,
            bidder: bid.bidder,
            price: bid.price,
            channel: bid.channel.clone(),
            bid_time: bid.date_time,
            item_name: auction.item_name.clone(),
            initial_bid: auction.initial_bid,
            reserve: auction.reserve,
            auction_time: auction.date_time,
            expires: auction.expires,
            seller: auction.seller,
        });
    expanded.view("q20");
}
