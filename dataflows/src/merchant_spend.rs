//! Spend by merchant and minute.

use dataflows::Random;
use thalweg::demo::{Demo, now};
use thalweg::prelude::*;

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    id: i64,
    merchant: i32,
    cents: i64,
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

fn payments(flow: Dataflow) -> Stream<Payment> {
    let topic = Kafka::topic("payments.transactions.v1")
        .avro::<Payment>()
        .event_time(|p| EventTime::from_millis(p.at_ms))
        .lateness(Duration::from_secs(5));
    flow.source("payments", topic)
}

fn merchant_spend(flow: Dataflow) {
    let merchants = Kafka::topic("payments.merchants.v1")
        .avro::<Merchant>()
        .keyed::<i32>();
    let merchants = flow.table("merchants", merchants).key_named("merchant");
    merchants.view("merchant_names");
    payments(flow)
        .key_by("merchant", |p| p.merchant)
        .window("spend", Tumbling::of(Duration::from_secs(60)))
        .aggregate(|a| (a.count(), a.sum(|p| p.cents), a.max(|p| p.cents)))
        .join("named", &merchants, |_, (n, total, top), m| Spend {
            name: m.name.clone(),
            n,
            total,
            top,
        })
        .view("merchant_spend");
}

/// The dataflow, with demo data.
pub fn flow() -> thalweg::Flow {
    dataflow("merchant_spend", merchant_spend).demo(
        demo,
        &[
            "/v1/views/merchant_spend/row?merchant=42&window=open",
            "/v1/views/merchant_spend/rows?window=open&order=-total&limit=3",
            "/v1/views/payments.dead_letters/rows?limit=3",
        ],
    )
}

const MERCHANTS: u32 = 100;
const PARTITIONS: u32 = 4;
const TRANSACTION: &str = include_str!("../../schemas/payments.transactions.v1.avsc");
const MERCHANT: &str = include_str!("../../schemas/payments.merchants.v1.avsc");

/// A hundred merchants, a few of them busy; some payments a few seconds behind, and now and then one that
/// nobody can read.
fn demo(demo: &Demo) -> Result<()> {
    let merchants = demo.avro("payments.merchants.v1", 1, Some(r#""int""#), MERCHANT)?;
    let payments = demo.avro("payments.transactions.v1", PARTITIONS, None, TRANSACTION)?;
    let rows = merchants.rows::<i32, Merchant>()?;
    for merchant in 0..MERCHANTS {
        rows.send(
            &(merchant as i32),
            Some(&Merchant {
                name: name_of(merchant),
            }),
        )?;
    }
    let mut events = payments.events()?;
    let mut random = Random::new(42);
    demo.paced(|id| {
        let partition = partition_of(id, demo.rate());
        if id % 997 == 996 {
            return payments.send_raw(partition, b"not a payment");
        }
        let draw = random.bits();
        // Squaring favours low numbers: merchant 0 is paid ten times as often as merchant 99.
        let merchant = ((draw % 1000).pow(2) * u64::from(MERCHANTS) / 1_000_000) as u32;
        let merchant = if draw.is_multiple_of(7) { 42 } else { merchant };
        let delay_ms = if draw.is_multiple_of(50) {
            (draw >> 20) % 4000
        } else {
            0
        } as i64;
        let cents = 100 + ((draw >> 32) % 20_000) as i64;
        events.send(
            partition,
            &Payment {
                id: id as i64,
                merchant: merchant as i32,
                cents,
                at_ms: now().millis() - delay_ms,
            },
        )
    })
}

/// Those of 50 ms go to one partition, the next ones to the next: payments that follow each other share a
/// batch.
fn partition_of(id: u64, rate: u64) -> u32 {
    let together = (rate / 20).max(1);
    (id / together % u64::from(PARTITIONS)) as u32
}

fn name_of(merchant: u32) -> String {
    const TRADES: [&str; 10] = [
        "Bakery", "Books", "Bikes", "Cafe", "Florist", "Garage", "Grocer", "Hotel", "Pharmacy", "Tailor",
    ];
    const TOWNS: [&str; 10] = [
        "Aare", "Elbe", "Inn", "Isar", "Lech", "Main", "Mosel", "Neckar", "Saale", "Weser",
    ];
    if merchant == 42 {
        return "Acme".into();
    }
    format!(
        "{} {}",
        TOWNS[(merchant / 10) as usize % 10],
        TRADES[(merchant % 10) as usize]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg::testing::Harness;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        merchant: u32,
        window_start: String,
        name: String,
        n: u64,
        total: i128,
        top: i64,
    }

    #[test]
    fn payments_that_follow_each_other_share_a_batch_and_every_partition_has_some() {
        for (rate, together) in [(1, 1), (200, 10), (2_000, 100)] {
            let partitions: Vec<u32> = (0..together * u64::from(PARTITIONS) * 2)
                .map(|id| partition_of(id, rate))
                .collect();
            let runs: Vec<&[u32]> = partitions.chunk_by(|a, b| a == b).collect();
            assert!(runs.iter().all(|run| run.len() as u64 == together), "{runs:?}");
            let order: Vec<u32> = runs.iter().map(|run| run[0]).collect();
            assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
        }
    }

    #[test]
    fn spend_is_summed_by_minute_and_named() {
        let mut test = Harness::of(flow());
        let pay = |merchant, cents, at_ms| Payment {
            id: 0,
            merchant,
            cents,
            at_ms,
        };
        test.feed("merchants", 0, [(42i32, Some(Merchant { name: "Acme".into() }))]);
        test.feed(
            "payments",
            0,
            [pay(42, 300, 1_000), pay(42, 200, 59_999), pay(7, 1, 2_000)],
        );
        let first = test.epoch();
        test.feed("payments", 0, [pay(42, 50, 60_000)]);
        test.feed(
            "merchants",
            0,
            [(
                42i32,
                Some(Merchant {
                    name: "Acme Ltd".into(),
                }),
            )],
        );
        let second = test.epoch();

        let run = test.run().unwrap();
        let row = |minute: &str, name: &str, n, total, top| Row {
            merchant: 42,
            window_start: format!("1970-01-01T00:0{minute}:00Z"),
            name: name.into(),
            n,
            total,
            top,
        };
        assert_eq!(
            run.rows::<Row>("merchant_spend", first).unwrap(),
            [row("0", "Acme", 2, 500, 300)]
        );
        let renamed = [row("0", "Acme Ltd", 2, 500, 300), row("1", "Acme Ltd", 1, 50, 50)];
        assert_eq!(run.rows::<Row>("merchant_spend", second).unwrap(), renamed);
    }
}
