//! The smallest whole: a window, a table, a join, a view.

use thalweg::prelude::*;
use thalweg::testing::Harness;

#[derive(Clone, Serialize, Deserialize)]
struct Payment {
    merchant: u32,
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
}

fn spend(flow: Dataflow) {
    let merchants = flow.table("merchants", Kafka::topic("m").json::<Merchant>().keyed::<u32>());
    merchants.key_named("merchant").view("merchants_view");
    let merchants = flow.table("merchants2", Kafka::topic("m").json::<Merchant>().keyed::<u32>());
    flow.source(
        "payments",
        Kafka::topic("p")
            .json::<Payment>()
            .event_time(|p| EventTime::from_millis(p.at_ms))
            .lateness(Duration::from_secs(1)),
    )
    .key_by("merchant", |p| p.merchant)
    .window("spend", Tumbling::of(Duration::from_secs(10)))
    .aggregate(|a| (a.count(), a.sum(|p| p.cents)))
    .join("named", &merchants, |_, (n, total), m| Spend {
        name: m.name.clone(),
        n,
        total,
    })
    .view("merchant_spend");
}

#[test]
fn a_window_a_table_a_join_a_view() {
    for workers in 1..=3 {
        let mut test = Harness::of(dataflow("spend", spend));
        let pay = |merchant, cents, at_ms| Payment {
            merchant,
            cents,
            at_ms,
        };
        let merchant = |name: &str| Some(Merchant { name: name.into() });
        test.feed("merchants", 0, [(7u32, merchant("x"))]);
        test.feed("merchants2", 0, [(7u32, merchant("Acme"))]);
        test.feed("payments", 0, [pay(7, 100, 1_000), pay(8, 5, 2_000)]);
        let one = test.epoch();
        test.feed(
            "payments",
            0,
            [pay(7, 50, 9_000), pay(7, 1, 30_000), pay(7, 9, 5_000)],
        );
        let two = test.epoch();
        test.feed(
            "merchants2",
            0,
            [(8u32, merchant("Bolt")), (7, merchant("Acme Ltd"))],
        );
        let three = test.epoch();
        let run = test.workers(workers).run().unwrap();
        let row = |merchant: u32, from: &str, to: &str, name: &str, n: u32, total: u32| {
            format!(
                r#"{{"merchant":{merchant},"window_start":"1970-01-01T00:00:{from}Z","window_end":"1970-01-01T00:00:{to}Z","name":"{name}","n":{n},"total":{total}}}"#
            )
        };
        assert_eq!(
            run.json("merchant_spend", one).unwrap(),
            [row(7, "00", "10", "Acme", 1, 100)]
        );
        let second = [
            row(7, "00", "10", "Acme", 2, 150),
            row(7, "30", "40", "Acme", 1, 1),
        ];
        assert_eq!(run.json("merchant_spend", two).unwrap(), second);
        let third = [
            row(7, "00", "10", "Acme Ltd", 2, 150),
            row(7, "30", "40", "Acme Ltd", 1, 1),
            row(8, "00", "10", "Bolt", 1, 5),
        ];
        assert_eq!(run.json("merchant_spend", three).unwrap(), third);
        let late = run.json("payments.dead_letters", three).unwrap();
        assert_eq!(late.len(), 1, "{late:?}");
        assert!(
            late[0].contains(r#""step":"spend""#) && late[0].contains(r#""cause":"late""#),
            "{late:?}"
        );
    }
}
