//! The events of the auction, and where they are read.
//!
//! ```text
//!   nexmark.person.v1   ─▶ Person    someone registers          2 %
//!   nexmark.auction.v1  ─▶ Auction   something is put up for sale  6 %
//!   nexmark.bid.v1      ─▶ Bid       someone bids on it        92 %
//! ```
//!
//! Topics hold JSON with the field names of Apache Beam's NEXMark suite. Times are milliseconds since 1970.

use thalweg::prelude::*;

/// Someone who sells or bids.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Unique among people.
    pub id: i64,
    /// First and last name.
    pub name: String,
    /// Where to write to.
    pub email_address: String,
    /// Sixteen digits in groups of four.
    pub credit_card: String,
    /// Where they live.
    pub city: String,
    /// The state of the city, in two letters.
    pub state: String,
    /// When they registered.
    pub date_time: i64,
    /// Padding.
    pub extra: String,
}

/// Something that is for sale.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Auction {
    /// Unique among auctions.
    pub id: i64,
    /// What it is.
    pub item_name: String,
    /// More about it.
    pub description: String,
    /// The least that may be bid, in cents.
    pub initial_bid: i64,
    /// The least that it is sold for, in cents.
    pub reserve: i64,
    /// When the auction opened.
    pub date_time: i64,
    /// When it closes. Bids count up to then.
    pub expires: i64,
    /// The id of a [`Person`].
    pub seller: i64,
    /// 10 to 14.
    pub category: i64,
    /// Padding.
    pub extra: String,
}

/// A bid in an auction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bid {
    /// The id of an [`Auction`], which may be announced a little later than the bid.
    pub auction: i64,
    /// The id of a [`Person`], who may likewise be announced later.
    pub bidder: i64,
    /// In cents.
    pub price: i64,
    /// Where the bidder came from.
    pub channel: String,
    /// The page that the bid was made on.
    pub url: String,
    /// When the bid was made.
    pub date_time: i64,
    /// Padding.
    pub extra: String,
}

/// An event of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Someone registers.
    Person(Person),
    /// Something is put up for sale.
    Auction(Auction),
    /// Someone bids.
    Bid(Bid),
}

/// The topic of people.
pub const PERSON: &str = "nexmark.person.v1";
/// The topic of auctions.
pub const AUCTION: &str = "nexmark.auction.v1";
/// The topic of bids.
pub const BID: &str = "nexmark.bid.v1";

/// How far events may be out of order, as in Flink's NEXMark.
const LATENESS: Duration = Duration::from_secs(4);

/// Reads the people, as source `person`.
pub fn people(flow: Dataflow<'_>) -> Stream<'_, Person> {
    let topic = Kafka::topic(PERSON)
        .json::<Person>()
        .event_time(|p| EventTime::from_millis(p.date_time))
        .lateness(LATENESS);
    flow.source("person", topic)
}

/// Reads the auctions, as source `auction`.
pub fn auctions(flow: Dataflow<'_>) -> Stream<'_, Auction> {
    let topic = Kafka::topic(AUCTION)
        .json::<Auction>()
        .event_time(|a| EventTime::from_millis(a.date_time))
        .lateness(LATENESS);
    flow.source("auction", topic)
}

/// Reads the bids, as source `bid`.
pub fn bids(flow: Dataflow<'_>) -> Stream<'_, Bid> {
    let topic = Kafka::topic(BID)
        .json::<Bid>()
        .event_time(|b| EventTime::from_millis(b.date_time))
        .lateness(LATENESS);
    flow.source("bid", topic)
}
