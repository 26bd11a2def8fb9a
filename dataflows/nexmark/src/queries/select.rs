//! Queries that look at one bid at a time.

use thalweg::prelude::*;

use crate::model::{Bid, bids};

/// Pass through: all bids as they are.
pub fn q0(flow: Dataflow) {
    bids(flow).changes().view("q0");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Converted {
    auction: i64,
    bidder: i64,
    /// In thousandths of a cent, as the rate has three decimal places.
    price_milli: i64,
    date_time: i64,
    extra: String,
}

/// What a dollar is in thousandths of a euro.
const EUROS_MILLI: i64 = 908;

/// Currency conversion: bids in euros.
pub fn q1(flow: Dataflow) {
    let converted = bids(flow).map(|bid| Converted {
        auction: bid.auction,
        bidder: bid.bidder,
        price_milli: bid.price * EUROS_MILLI,
        date_time: bid.date_time,
        extra: bid.extra,
    });
    converted.changes().view("q1");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Price {
    auction: i64,
    price: i64,
}

/// Selection: the prices that are bid for one of every 123 auctions.
pub fn q2(flow: Dataflow) {
    let selected = bids(flow).filter(|bid| bid.auction % 123 == 0).map(|bid| Price {
        auction: bid.auction,
        price: bid.price,
    });
    selected.changes().view("q2");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Calculated {
    auction: i64,
    bidder: i64,
    price_milli: i64,
    time_of_day: String,
    date_time: i64,
    extra: String,
    c_count: u64,
}

/// By the hour in UTC.
fn time_of_day(ms: i64) -> &'static str {
    match ms.div_euclid(3_600_000).rem_euclid(24) {
        8..=18 => "day",
        0..=6 | 20.. => "night",
        _ => "other",
    }
}

/// Calculation: bids of one to fifty million in euros, with the time of day and a count of letters.
pub fn q14(flow: Dataflow) {
    let calculated = bids(flow)
        .map(|bid| Calculated {
            auction: bid.auction,
            bidder: bid.bidder,
            price_milli: bid.price * EUROS_MILLI,
            time_of_day: time_of_day(bid.date_time).to_owned(),
            date_time: bid.date_time,
            c_count: bid.extra.matches('c').count() as u64,
            extra: bid.extra,
        })
        .filter(|bid| 1_000_000_000 < bid.price_milli && bid.price_milli < 50_000_000_000);
    calculated.changes().view("q14");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct WithChannel {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    channel_id: String,
}

fn channel_id(bid: &Bid) -> Option<&str> {
    match bid.channel.to_lowercase().as_str() {
        "apple" => Some("0"),
        "google" => Some("1"),
        "facebook" => Some("2"),
        "baidu" => Some("3"),
        _ => bid
            .url
            .split('&')
            .find_map(|part| part.strip_prefix("channel_id=")),
    }
}

/// Channel ids: known for four channels, in the URL for others; bids that have none are left out.
pub fn q21(flow: Dataflow) {
    let with_channel = bids(flow).flat_map(|bid| {
        let channel_id = channel_id(&bid)?.to_owned();
        Some(WithChannel {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            channel: bid.channel,
            channel_id,
        })
    });
    with_channel.changes().view("q21");
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct WithDirectories {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: String,
    dir1: Option<String>,
    dir2: Option<String>,
    dir3: Option<String>,
}

/// Directories of URLs.
pub fn q22(flow: Dataflow) {
    let with_directories = bids(flow).map(|bid| {
        let mut directories = bid.url.split('/').skip(3).map(str::to_owned);
        WithDirectories {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            channel: bid.channel,
            dir1: directories.next(),
            dir2: directories.next(),
            dir3: directories.next(),
        }
    });
    with_directories.changes().view("q22");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_have_a_time_of_day() {
        let hours: Vec<&str> = (-1..25).map(|hour| time_of_day(hour * 3_600_000)).collect();
        assert_eq!(hours[0], "night");
        let day: Vec<usize> = (0..26).filter(|at| hours[*at] == "day").collect();
        assert_eq!(day, (9..=19).collect::<Vec<_>>());
        assert_eq!((hours[8], hours[20], hours[21]), ("other", "other", "night"));
        assert_eq!(time_of_day(19 * 3_600_000 - 1), "day");
    }

    #[test]
    fn channels_are_known_or_in_the_url() {
        let bid = |channel: &str, url: &str| Bid {
            auction: 1,
            bidder: 1,
            price: 1,
            channel: channel.into(),
            url: url.into(),
            date_time: 0,
            extra: String::new(),
        };
        let id = |channel, url| channel_id(&bid(channel, url)).map(str::to_owned);
        assert_eq!(id("Baidu", "x&channel_id=9"), Some("3".into()));
        assert_eq!(id("channel-1", "https://a/?q=1&channel_id=9&b"), Some("9".into()));
        assert_eq!(id("channel-1", "channel_id="), Some(String::new()));
        assert_eq!(id("channel-1", "https://a/?other_channel_id=9"), None);
    }
}
