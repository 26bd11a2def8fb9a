//! Two tables, which may both have a row of a key.
use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    id: u64,
    merchant: u32,
    cents: i64,
    fx: f64,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Merchant {
    name: String,
}

fn payments(flow: Dataflow) -> Stream<Payment> {
    flow.source("p", Kafka::topic("p").avro::<Payment>())
}

fn windows(flow: Dataflow) -> Windows<u32, Payment> {
    payments(flow).key_by("merchant", |p| p.merchant).window("w", Tumbling::of(Duration::from_secs(60)))
}

fn main() {}

fn wrong(flow: Dataflow) {
    let merchants = flow.table("m", Kafka::topic("m").avro::<Merchant>().keyed::<u32>());
    let _ = merchants.concat(&merchants);
}
