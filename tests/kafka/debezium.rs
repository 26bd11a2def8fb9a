//! A table of Postgres by way of Debezium: the same rows as in the database, whatever is killed, and no row
//! ever goes back to what it was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use thalweg::Flow;
use thalweg::codec::debezium::convert;
use thalweg::connect::kafka::KafkaSettings;
use thalweg::prelude::*;
use thalweg::runtime::{RunSettings, Service};
use thalweg::setting::extensions::Extensions;
use thalweg::source::Environment;
use thalweg::view::Views;

use super::{PATIENCE, node};
use crate::support::debezium::{Connector, Database};
use crate::support::kafka::Broker;

const TOPIC: &str = "dbz_bank.public.accounts";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Key {
    id: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Account {
    /// Rises with every change of any row.
    v: i64,
    owner: String,
    #[serde(with = "convert::unscaled")]
    cents: i64,
    note: Option<String>,
    #[serde(with = "convert::base64")]
    photo: Option<Vec<u8>>,
    at: EventTime,
}

fn flow() -> Flow {
    dataflow("bank", |flow: Dataflow| {
        let accounts = Kafka::topic(TOPIC).debezium::<Key, Account>().wait_for_topic();
        flow.table("accounts", accounts).view("accounts");
    })
}

const TABLE: &str = "
    CREATE SEQUENCE v;
    CREATE TABLE accounts (
        id bigint PRIMARY KEY,
        v bigint NOT NULL,
        owner text NOT NULL DEFAULT 'nobody',
        cents numeric(12,2) NOT NULL,
        note text,
        photo bytea,
        at timestamp NOT NULL DEFAULT '2024-02-29 12:34:56.123456');
    -- Every value of some length goes out of line, and is not logged where it did not change.
    ALTER TABLE accounts ALTER COLUMN note SET STORAGE EXTERNAL, ALTER COLUMN photo SET STORAGE EXTERNAL;
    INSERT INTO accounts (id, v, cents) SELECT id, nextval('v'), id FROM generate_series(1, 50) id;";

/// Rows as the view shows them: base64 as Java writes it, the unscaled decimal as its bytes.
const ROWS: &str =
    "SELECT json_build_object('id', id, 'v', v, 'owner', owner, 'cents', (cents * 100)::bigint,
    'note', note, 'photo', translate(encode(photo, 'base64'), E'\\n', '')) FROM accounts ORDER BY id";

/// Some changes of every kind, in transactions of one statement and of several.
fn work(database: &Database, round: i64) {
    let (a, b, c) = (round % 50 + 1, (round * 7) % 50 + 1, 100 + round);
    database.sql(&format!(
        "UPDATE accounts SET cents = cents - 0.01, v = nextval('v') WHERE id = {a};
        BEGIN;
        UPDATE accounts SET note = repeat('n{round}', 2000), photo = decode(repeat('ab', 3000 + {round}), 'hex'),
            v = nextval('v') WHERE id IN ({a}, {b});
        UPDATE accounts SET owner = 'ann {round}', v = nextval('v') WHERE id IN ({a}, {b});
        COMMIT;
        DELETE FROM accounts WHERE id = {b} AND {round} % 3 = 0;
        INSERT INTO accounts (id, v, cents, note) VALUES ({c}, nextval('v'), {round}, 'short');
        UPDATE accounts SET id = {c} + 1000, v = nextval('v') WHERE id = {c} AND {round} % 2 = 0;
        INSERT INTO accounts (id, v, cents) VALUES ({b}, nextval('v'), -1.5) ON CONFLICT DO NOTHING;
        SELECT pg_logical_emit_message({round} % 2 = 0, 'ours', 'no row');"
    ));
    if round == 40 {
        database.sql("TRUNCATE accounts");
    }
}

fn of_database(database: &Database) -> Vec<Value> {
    let rows = database.sql(ROWS);
    rows.lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect()
}

fn of_view(views: &Views) -> Vec<Value> {
    let rows = node::rows(views).remove("accounts").unwrap_or_default();
    let row = |row: String| {
        let row: Value = serde_json::from_str(&row).unwrap();
        assert_eq!(row["at"], json!("2024-02-29T12:34:56.123456Z"));
        let cents: Account = serde_json::from_value(json!({
            "v": 0, "owner": "", "cents": row["cents"], "note": null, "photo": null, "at": 0
        }))
        .unwrap();
        json!({ "id": row["id"], "v": row["v"], "owner": row["owner"], "cents": cents.cents,
            "note": row["note"], "photo": row["photo"] })
    };
    let mut rows: Vec<Value> = rows.into_iter().map(row).collect();
    rows.sort_by_key(|row| row["id"].as_i64());
    rows
}

/// Looks at the view until it is told to stop: `v` of a key only rises, and one that was away comes back with
/// a higher one.
fn watch(views: &Views, over: &AtomicBool) -> usize {
    let mut highest: BTreeMap<i64, (i64, bool)> = BTreeMap::new();
    let mut looks = 0;
    while !over.load(Ordering::Relaxed) {
        let rows = of_view(views);
        let now: BTreeMap<i64, i64> = rows
            .iter()
            .map(|row| (row["id"].as_i64().unwrap(), row["v"].as_i64().unwrap()))
            .collect();
        for (id, (v, there)) in &mut highest {
            let new = now.get(id);
            let back = new.is_some_and(|new| new < v || (new == v && !*there));
            assert!(
                !back,
                "account {id} was at {v}, there: {there}, and is at {new:?}"
            );
            *there = new.is_some();
        }
        for (id, v) in now {
            highest.insert(id, (v, true));
        }
        looks += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    looks
}

/// Ends the watch also where the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_table_is_what_it_is_in_the_database_whenever_the_connector_is_killed() {
    let (broker, database) = (Broker::shared(), Database::start());
    database.sql(TABLE);
    let settings = [("skipped.operations", "none"), ("heartbeat.interval.ms", "500")];
    let connector = Connector::start(broker, &database, "dbz_bank", "public.accounts", &settings);
    let settings = RunSettings {
        workers: 2,
        env: Environment {
            connectors: Extensions::of(KafkaSettings::at(broker.bootstrap())),
            ..Environment::default()
        },
        ..RunSettings::default()
    };
    let service = Service::start(&flow(), settings).unwrap();
    let (views, metrics) = (service.views().clone(), service.metrics().clone());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&views, &over));
        let _end = End(&over);
        for round in 1..=60 {
            // Some time after the changes are in the topic, and before the connector notes it.
            if round % 20 == 1 {
                connector.flushed();
            }
            work(&database, round);
            if round % 20 == 0 {
                wait_until_equal(&database, &views);
                connector.crash();
            }
        }
        wait_until_equal(&database, &views);
        over.store(true, Ordering::Relaxed);
        assert!(watcher.join().unwrap() > 100);
    });
    let letters = node::rows(&views)
        .remove("accounts.dead_letters")
        .unwrap_or_default();
    assert!(letters.is_empty(), "{letters:?}");
    let repeated = metrics.source("accounts").skipped("duplicate").get();
    assert!(repeated > 0, "only {repeated} changes came again");
    service.stop();
    service.join().unwrap();
}

fn wait_until_equal(database: &Database, views: &Views) {
    let expected = of_database(database);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let rows = of_view(views);
        if rows == expected {
            return;
        }
        if Instant::now() > deadline {
            let differ: Vec<_> = expected.iter().filter(|row| !rows.contains(row)).collect();
            let spare: Vec<_> = rows.iter().filter(|row| !expected.contains(row)).collect();
            panic!(
                "not within {PATIENCE:?}: {} of {} rows differ: {:.2000?} {:.2000?}",
                differ.len(),
                expected.len(),
                differ,
                spare
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
