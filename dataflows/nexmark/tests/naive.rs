//! The answers after each epoch of a few thousand events are those of plain loops over all events by then.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use dataflows::Random;
use nexmark::model::{Auction, Bid};
use serde_json::{Value, json};

use crate::{Events, Parts, Shown, compare};

/// Compares a query with a loop over the events by the end of each epoch, on one to three workers.
fn agree(query: &str, naive: impl Fn(&Events) -> Vec<Value>) {
    let mut rows = 0;
    for seed in 0..3 {
        // A hundred events a second: half a minute.
        let events = Events::new(seed, 100, 3_000);
        let parts = Parts::draw(&events, 6, &mut Random::new(seed));
        let shown = Shown::of(query, &events, &parts, 1 + seed as usize);
        for (at, [people, auctions, bids]) in parts.0.iter().enumerate() {
            let by_then = Events {
                people: events.people[..*people].to_vec(),
                auctions: events.auctions[..*auctions].to_vec(),
                bids: events.bids[..*bids].to_vec(),
            };
            let expected = naive(&by_then);
            rows += expected.len();
            compare(query, &shown.rows(at), &expected);
        }
    }
    assert!(rows > 0, "{query}: nothing was compared");
}

/// The start of the tumbling window of so many milliseconds.
fn window(ms: i64, size: i64) -> i64 {
    ms.div_euclid(size) * size
}

#[test]
fn q3() {
    agree("q3", |events| {
        let sellers = events
            .people
            .iter()
            .filter(|p| matches!(&*p.state, "OR" | "ID" | "CA"));
        let offers = |id| {
            events
                .auctions
                .iter()
                .filter(move |a| a.seller == id && a.category == 10)
        };
        sellers
            .flat_map(|p| {
                offers(p.id).map(move |a| {
                    json!({"name": p.name, "city": p.city, "state": p.state, "auction": a.id, "count": 1})
                })
            })
            .collect()
    });
}

/// Each auction with the bid that wins it.
fn winning(events: &Events) -> Vec<(&Auction, &Bid)> {
    let won = events.auctions.iter().filter_map(|auction| {
        let in_time = events.bids.iter().filter(|bid| {
            bid.auction == auction.id && (auction.date_time..=auction.expires).contains(&bid.date_time)
        });
        let bid = in_time.max_by_key(|bid| (bid.price, Reverse(bid.date_time)))?;
        Some((auction, bid))
    });
    won.collect()
}

fn mean(values: &[i64]) -> f64 {
    values.iter().sum::<i64>() as f64 / values.len() as f64
}

#[test]
fn q4() {
    agree("q4", |events| {
        let mut prices = BTreeMap::<i64, Vec<i64>>::new();
        for (auction, bid) in winning(events) {
            prices.entry(auction.category).or_default().push(bid.price);
        }
        let rows = prices.iter();
        rows.map(|(category, prices)| json!({"category": category, "final": mean(prices)}))
            .collect()
    });
}

#[test]
fn q5() {
    agree("q5", |events| {
        let mut counts = BTreeMap::<i64, BTreeMap<i64, u64>>::new();
        for bid in &events.bids {
            for before in 0..5 {
                let start = window(bid.date_time, 2_000) - before * 2_000;
                *counts.entry(start).or_default().entry(bid.auction).or_default() += 1;
            }
        }
        let hot = counts.iter().map(|(start, counts)| {
            let most = counts.values().max().expect("a window has bids");
            let hot: Vec<i64> = counts
                .iter()
                .filter(|(_, n)| *n == most)
                .map(|(id, _)| *id)
                .collect();
            json!({"window_start": start, "window_end": start + 10_000, "bids": most, "auctions": hot})
        });
        hot.collect()
    });
}

#[test]
fn q6() {
    agree("q6", |events| {
        let mut sold = BTreeMap::<i64, Vec<(i64, i64, i64)>>::new();
        for (auction, bid) in winning(events) {
            let sold = sold.entry(auction.seller).or_default();
            sold.push((auction.expires, auction.id, bid.price));
        }
        let rows = sold.iter_mut().map(|(seller, sold)| {
            sold.sort();
            let last: Vec<i64> = sold.iter().rev().take(10).map(|(.., price)| *price).collect();
            json!({"seller": seller, "price": mean(&last)})
        });
        rows.collect()
    });
}

#[test]
fn q8() {
    agree("q8", |events| {
        let of_auctions = events.auctions.iter();
        let sold: BTreeSet<(i64, i64)> = of_auctions
            .map(|a| (a.seller, window(a.date_time, 10_000)))
            .collect();
        let new = events.people.iter().filter_map(|p| {
            let start = window(p.date_time, 10_000);
            let row =
                json!({"id": p.id, "name": p.name, "window_start": start, "window_end": start + 10_000});
            sold.contains(&(p.id, start)).then_some(row)
        });
        new.collect()
    });
}

#[test]
fn q11() {
    agree("q11", |events| {
        let mut times = BTreeMap::<i64, Vec<i64>>::new();
        for bid in &events.bids {
            times.entry(bid.bidder).or_default().push(bid.date_time);
        }
        let mut rows = Vec::new();
        for (bidder, mut times) in times {
            times.sort();
            for session in times.chunk_by(|one, next| next - one < 10_000) {
                let (start, end) = (session[0], session[session.len() - 1] + 10_000);
                rows.push(json!({
                    "bidder": bidder, "bids": session.len(), "window_start": start, "window_end": end,
                }));
            }
        }
        rows
    });
}

#[test]
fn q18() {
    agree("q18", |events| {
        let mut last = BTreeMap::new();
        for bid in &events.bids {
            last.insert((bid.bidder, bid.auction), bid);
        }
        let rows = last.values().map(|bid| {
            json!({
                "bidder": bid.bidder, "auction": bid.auction, "price": bid.price, "channel": bid.channel,
                "url": bid.url, "date_time": bid.date_time, "extra": bid.extra,
            })
        });
        rows.collect()
    });
}

#[test]
fn q19() {
    agree("q19", |events| {
        let mut bids = BTreeMap::<i64, Vec<&Bid>>::new();
        for bid in &events.bids {
            bids.entry(bid.auction).or_default().push(bid);
        }
        let mut rows = Vec::new();
        for (auction, mut bids) in bids {
            bids.sort_by_key(|bid| Reverse((bid.price, bid.date_time)));
            for (rank, bid) in (1..=10).zip(bids) {
                rows.push(json!({
                    "auction": auction, "rank": rank, "price": bid.price, "date_time": bid.date_time,
                    "bidder": bid.bidder, "channel": bid.channel,
                }));
            }
        }
        rows
    });
}
