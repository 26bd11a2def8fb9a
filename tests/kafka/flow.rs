//! The dataflow under test.

use std::path::PathBuf;

use thalweg::prelude::*;

use super::pace::{Pace, Paced, Readers};
use super::{delivered, sunk};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payment {
    pub id: i64,
    pub merchant: u32,
    pub cents: i64,
    pub at_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Merchant {
    pub name: String,
    pub country: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spend {
    pub name: String,
    pub country: String,
    pub n: u64,
    pub total: i128,
    pub top: i64,
}

pub const LATENESS: Duration = Duration::from_secs(5);
pub const SPEND: Duration = Duration::from_secs(60);
/// Short enough for windows to expire during the tests.
pub const SPEND_KEEP: Duration = Duration::from_secs(15 * 60);
pub const LANES: Duration = Duration::from_secs(180);
pub const LANES_MAX: u32 = 4;

/// Where rows leave to.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// A file that takes the changes of merchant spend.
    pub sunk: Option<PathBuf>,
    /// What the names of the topics begin with that take payments, merchant spend and the changes of minute
    /// spend.
    pub delivered: Option<String>,
    /// A table of Postgres that takes merchant spend.
    pub table: Option<String>,
}

/// Spend by merchant and minute, with the merchants' names; and by lane, without.
///
/// Payments are read at a pace; their partitions are idle after `idle_after`, or never: what is late is then
/// decided by the log alone.
///
/// Views look back a day unless `history` says otherwise.
pub fn spend(
    payments: &str,
    merchants: &str,
    idle_after: Option<Duration>,
    pace: &Pace,
    history: Option<Duration>,
    outputs: &Outputs,
) -> thalweg::Flow {
    let (payments, merchants) = (payments.to_owned(), merchants.to_owned());
    let (pace, readers) = (pace.clone(), Readers::default());
    let history = history.unwrap_or(Duration::from_secs(24 * 3600));
    let Outputs {
        sunk,
        delivered,
        table,
    } = outputs.clone();
    dataflow("spend", move |flow: Dataflow<'_>| {
        let merchants = flow
            .table(
                "merchants",
                Kafka::topic(&merchants).avro::<Merchant>().keyed::<u32>(),
            )
            .key_named("merchant");
        merchants.view_with("merchants_now", |view| view.history(history));
        let topic = Kafka::topic(&payments)
            .avro::<Payment>()
            .event_time(|p| EventTime::from_millis(p.at_ms))
            .lateness(LATENESS)
            .idle_after(idle_after.unwrap_or(Duration::from_secs(24 * 3600)));
        let topic = match &delivered {
            Some(name) => topic.dead_letters_to(&delivered::dead(name)),
            None => topic,
        };
        let payments = flow.source(
            "payments",
            Paced {
                source: topic,
                pace: pace.clone(),
                readers: readers.clone(),
            },
        );
        let spend = payments
            .key_by("merchant", |p| p.merchant)
            .window("spend", Tumbling::of(SPEND))
            .keep(SPEND_KEEP)
            .aggregate(|a| (a.count(), a.sum(|p| p.cents), a.max(|p| p.cents)));
        spend.view_with("minute_spend", |view| {
            view.history(history).fields(["n", "total", "top"])
        });
        let named = spend.join("named", &merchants, |_, (n, total, top), m| Spend {
            name: m.name.clone(),
            country: m.country.clone(),
            n,
            total,
            top,
        });
        named.view_with("merchant_spend", |view| view.history(history));
        if let Some(file) = sunk.clone() {
            // A ledger that was copied knows the function by the file that it wrote to.
            let name = format!("spend_out to {}", file.file_name().unwrap_or_default().display());
            named.for_each_epoch(&name, move |epoch, changes| sunk::append(&file, epoch, changes));
        }
        if let Some(name) = &delivered {
            let [audit, rows, log] = delivered::topics(name);
            payments.append_to(&audit, Kafka::topic(&audit).json().partitions(3));
            named.upsert_to(&rows, Kafka::topic(&rows).json().partitions(2));
            spend.changes_to(&log, Kafka::topic(&log).json().partitions(1));
        }
        #[cfg(feature = "postgres")]
        if let Some(table) = &table {
            named.upsert_to(table, Postgres::table(table));
        }
        #[cfg(not(feature = "postgres"))]
        assert_eq!(table, None, "tables need the feature `postgres`");
        payments
            .key_by("lane", |p| p.merchant % LANES_MAX)
            .window("lanes", Tumbling::of(LANES))
            .aggregate(|a| (a.count(), a.sum(|p| p.cents)))
            .view_with("lane_spend", |view| view.history(history).fields(["n", "total"]));
    })
}

/// All views of [`spend`] whose rows the oracle knows.
pub const VIEWS: [&str; 6] = [
    "lane_spend",
    "merchant_spend",
    "merchants.dead_letters",
    "merchants_now",
    "minute_spend",
    "payments.dead_letters",
];
