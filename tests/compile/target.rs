//! Spend by merchant and minute: what a user's file looks like.
use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    id: u64,
    merchant: u32,
    cents: i64,
    fx: f64,
    at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Merchant {
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Spend {
    name: String,
    n: u64,
    total: i128,
    top: i64,
}

// Helpers need no lifetimes either.
fn payments(flow: Dataflow) -> Stream<Payment> {
    flow.source(
        "payments",
        Kafka::topic("payments.transactions.v1")
            .avro::<Payment>()
            .event_time(|p| EventTime::from_millis(p.at_ms))
            .lateness(Duration::from_secs(5)),
    )
}

fn merchant_spend(flow: Dataflow) {
    let merchants = flow.table("merchants", Kafka::topic("payments.merchants.v1").avro::<Merchant>().keyed::<u32>());
    payments(flow)
        .key_by("merchant", |p| p.merchant)
        .window("spend", Tumbling::of(Duration::from_secs(60)))
        .aggregate(|a| (a.count(), a.sum(|p| p.cents), a.max(|p| p.cents)))
        .join("named", &merchants, |_, (n, total, top), m| Spend { name: m.name.clone(), n, total, top })
        .view("merchant_spend");
}

/// Set-up that may fail, a join used twice, a composite key, a loop.
fn reach(flow: Dataflow) -> Result<()> {
    let hops: u32 = std::env::var("HOPS").unwrap_or("3".into()).parse()?;
    let merchants = flow.table("m", Kafka::topic("m").avro::<Merchant>().keyed::<u32>());
    let twice = merchants.join("a", &merchants, |_, x, y| (x, y.clone()));
    twice.view("v");
    payments(flow)
        .filter(|p| p.fx > 0.5)
        .key_by(["merchant", "id"], |p| (p.merchant, p.id))
        .window("w", Tumbling::of(Duration::from_secs(1)))
        .aggregate(|a| a.count())
        .view("by_two");
    let edges = merchants.rows().map(move |(k, _)| (k, k + hops));
    edges
        .iterate("reach", |inner, reach| {
            let edges = inner.bring(&edges);
            reach.map(|(a, b)| (b, a)).join(&edges, |_, a, c| (*a, *c)).concat(&reach).distinct("once")
        })
        .group_by("from", |(a, _)| *a)
        .aggregate("degree", |a| a.count())
        .view("degrees");
    Ok(())
}

fn main() -> ExitCode {
    thalweg::main([
        dataflow("merchant_spend", merchant_spend),
        dataflow("reach", reach),
        dataflow("inline", |flow| {
            payments(flow).map(|p| p.cents).key_by("cents", |c| *c).window("w", Tumbling::of(Duration::from_secs(1)))
                .aggregate(|a| a.count()).view("inline_view");
        }),
    ])
}
