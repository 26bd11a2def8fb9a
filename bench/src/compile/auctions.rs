//! Five questions about auctions, in the manner of NEXMark.

use thalweg::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Bid {
    auction: u64,
    bidder: u64,
    price: i64,
    channel: String,
    at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Auction {
    item: String,
    seller: u64,
    category: u32,
    reserve: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Person {
    name: String,
    city: String,
}

const FLOOR: i64 = 0;

fn bids(flow: Dataflow) -> Stream<Bid> {
    let topic = Kafka::topic("bids")
        .json::<Bid>()
        .event_time(|bid| EventTime::from_millis(bid.at_ms))
        .lateness(Duration::from_secs(5));
    flow.source("bids", topic)
}

fn auctions(flow: Dataflow) -> Table<u64, Auction> {
    let topic = Kafka::topic("auctions").json::<Auction>().keyed::<u64>();
    flow.table("auctions", topic).key_named("auction")
}

fn people(flow: Dataflow) -> Table<u64, Person> {
    let topic = Kafka::topic("people").json::<Person>().keyed::<u64>();
    flow.table("people", topic).key_named("person")
}

/// Prices in another currency, by channel and ten seconds.
fn prices(flow: Dataflow) {
    #[derive(Clone, Serialize, Deserialize)]
    struct Converted {
        channel: String,
        euros: i64,
    }
    bids(flow)
        .filter(|bid| bid.price > FLOOR)
        .map(|bid| Converted {
            channel: bid.channel,
            euros: bid.price * 908 / 1_000,
        })
        .key_by("channel", |bid| bid.channel.clone())
        .window("ten_seconds", Tumbling::of(Duration::from_secs(10)))
        .aggregate(|a| (a.count(), a.sum(|bid| bid.euros)))
        .view_with("prices", |view| view.fields(["n", "euros"]));
}

/// The busiest auctions, with what is sold.
fn hot_items(flow: Dataflow) {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct HotItem {
        item: String,
        bids: u64,
        highest: i64,
    }
    bids(flow)
        .key_by("auction", |bid| bid.auction)
        .window("minutes", Tumbling::of(Duration::from_secs(60)))
        .aggregate(|a| (a.count(), a.max(|bid| bid.price)))
        .join("named", &auctions(flow), |_, (bids, highest), auction| HotItem {
            item: auction.item.clone(),
            bids,
            highest,
        })
        .view("hot_items");
}

/// The highest bid of each auction so far, where the reserve is met.
fn winners(flow: Dataflow) {
    bids(flow)
        .changes()
        .group_by("auction", |bid| bid.auction)
        .aggregate("highest", |a| (a.max(|bid| bid.price), a.count()))
        .join("met", &auctions(flow), |_, (price, n), auction| (price >= auction.reserve, price, n))
        .filter(|_, (met, _, _)| *met)
        .map(|_, (_, price, n)| (price, n))
        .view_with("winners", |view| view.fields(["price", "n"]));
}

/// What sellers ask for, by city and category.
fn reserves(flow: Dataflow) {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct Offer {
        city: String,
        category: u32,
        reserve: i64,
    }
    auctions(flow)
        .join_on("located", &people(flow), |_, auction| auction.seller, |_, auction, person| Offer {
            city: person.city.clone(),
            category: auction.category,
            reserve: auction.reserve,
        })
        .group_by(["city", "category"], |_, offer| (offer.city.clone(), offer.category))
        .aggregate("by_city", |a| (a.count(), a.sum(|(_, offer)| offer.reserve)))
        .view_with("reserves", |view| view.fields(["n", "reserve"]));
}

/// Auctions with their sellers, whether these are known or not.
fn listings(flow: Dataflow) {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct Listing {
        item: String,
        seller: Option<String>,
    }
    auctions(flow)
        .filter(|_, auction| auction.reserve > FLOOR)
        .left_join_on("listed", &people(flow), |_, auction| auction.seller, |_, auction, person| Listing {
            item: auction.item,
            seller: person.map(|person| person.name.clone()),
        })
        .view("listings");
}

pub fn flows() -> Vec<thalweg::Flow> {
    vec![
        dataflow("prices", prices),
        dataflow("hot_items", hot_items),
        dataflow("winners", winners),
        dataflow("reserves", reserves),
        dataflow("listings", listings),
    ]
}
