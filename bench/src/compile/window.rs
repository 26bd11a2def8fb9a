//! Volume by auction and minute.

use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Bid {
    auction: u64,
    price: i64,
    channel: String,
    at_ms: i64,
}

const FLOOR: i64 = 0;

fn volume(flow: Dataflow) {
    let topic = Kafka::topic("bids")
        .json::<Bid>()
        .event_time(|bid| EventTime::from_millis(bid.at_ms));
    flow.source("bids", topic)
        .filter(|bid| bid.price > FLOOR && bid.channel != "test")
        .key_by("auction", |bid| bid.auction)
        .window("minutes", Tumbling::of(Duration::from_secs(60)))
        .aggregate(|a| (a.count(), a.sum(|bid| bid.price), a.max(|bid| bid.price)))
        .view("volume");
}

pub fn flows() -> Vec<thalweg::Flow> {
    vec![dataflow("volume", volume)]
}
