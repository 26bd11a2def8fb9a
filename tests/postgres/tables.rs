//! Tables that are not as rows need them, or not what they were: the start, or `check`, says all that is
//! wrong and what to do.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use thalweg::connect::postgres::{Postgres as Sink, PostgresSettings, Tls};
use thalweg::prelude::*;
use thalweg::runtime;
use thalweg::secret::Secret;

use super::node::{environment, eventually, halted, start};
use super::oracle::Input;
use crate::support::postgres::Postgres;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Account {
    owner: String,
    limit: Option<u64>,
}

fn flow(dir: &Path, table: &str) -> thalweg::Flow {
    let (pattern, table) = (dir.join("accounts-*.jsonl"), table.to_owned());
    dataflow("accounts", move |flow: Dataflow| {
        let lines = Files::lines(&pattern)
            .json::<(u32, Option<Account>)>()
            .poll(Duration::from_millis(5))
            .keyed(|(id, row)| (id, row));
        flow.table("accounts", lines)
            .key_named("id")
            .upsert_to("accounts_pg", Sink::table(&*table));
    })
}

/// What `check` says of the sink, a line a finding.
fn check(dir: &Path, table: &str, settings: PostgresSettings) -> String {
    let plan = runtime::plan(&flow(dir, table), &environment(settings)).unwrap();
    let sink = &plan.sinks[0];
    let findings = sink.examine.as_ref().expect("it is looked at")(&sink.schema);
    let line =
        |verdict: String, what: &str, hint: Option<&str>| format!("{verdict}: {what} {}", hint.unwrap_or(""));
    let lines = findings.iter().map(|finding| {
        line(
            format!("{:?}", finding.verdict),
            &finding.what,
            finding.hint.as_deref(),
        )
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_table_that_does_not_fit_is_told_with_all_differences() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    input.line("accounts-0.jsonl", &json!([1, { "owner": "ann", "limit": 5 }]));
    postgres.run(
        "CREATE TABLE odd (id integer PRIMARY KEY, \"limit\" bigint NOT NULL, since timestamptz NOT NULL); \
        CREATE VIEW seen AS SELECT * FROM odd",
    );
    let differences = [
        "column `id` is integer; expected bigint",
        "column `owner` (text) is missing",
        "column `limit` is bigint; expected numeric(20)",
        "column `limit` is NOT NULL, but the field may be null",
        "column `since` is NOT NULL without a default",
        "CREATE TABLE \"public\".\"odd\"",
    ];
    let service = start(
        &flow(dir.path(), "odd"),
        postgres.settings(),
        &dir.path().join("l"),
        1,
        true,
    );
    let (halt, found) = (
        halted(service.unwrap()),
        check(dir.path(), "odd", postgres.settings()),
    );
    for part in differences {
        assert!(halt.contains(part), "`{part}` is not in: {halt}");
        assert!(found.contains(part), "`{part}` is not in: {found}");
    }
    let found = check(dir.path(), "seen", postgres.settings());
    assert!(found.contains("it is a view or a foreign table"), "{found}");
    assert_eq!(postgres.lines("SELECT * FROM odd"), Vec::<String>::new());
}

#[test]
fn a_table_of_ones_own_keeps_its_other_columns() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    postgres.run(
        "CREATE SCHEMA \"Own\"; CREATE TABLE \"Own\".\"Accounts\" (made timestamptz DEFAULT now(), \
        \"limit\" numeric, id numeric(12), owner varchar(20), note text, n bigint GENERATED ALWAYS AS IDENTITY); \
        CREATE UNIQUE INDEX ON \"Own\".\"Accounts\" (id); \
        INSERT INTO \"Own\".\"Accounts\" (id, owner, note) VALUES (1, 'before', 'kept')",
    );
    input.line(
        "accounts-0.jsonl",
        &json!([1, { "owner": "ann", "limit": u64::MAX }]),
    );
    input.line("accounts-0.jsonl", &json!([2, { "owner": "bob", "limit": null }]));
    let flow = flow(dir.path(), "Own.Accounts");
    start(&flow, postgres.settings(), &dir.path().join("l"), 1, true)
        .unwrap()
        .join()
        .unwrap();
    let rows = postgres.lines("SELECT id, owner, \"limit\", note FROM \"Own\".\"Accounts\"");
    assert_eq!(rows, ["1|ann|18446744073709551615|kept", "2|bob|null|null"]);
    assert_eq!(
        postgres.value("SELECT count(*) FROM \"Own\".thalweg_progress"),
        "1"
    );
    let found = check(dir.path(), "Own.Accounts", postgres.settings());
    assert!(
        found.starts_with("Ok: table `Own.Accounts` exists and matches the rows") && !found.contains("Error"),
        "{found}"
    );
}

#[test]
fn a_table_that_is_altered_under_a_running_sink_halts_it() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    input.line("accounts-0.jsonl", &json!([1, { "owner": "ann", "limit": 5 }]));
    let (flow, ledger) = (flow(dir.path(), "accounts"), dir.path().join("l"));
    let service = start(&flow, postgres.settings(), &ledger, 1, false).unwrap();
    let there = || {
        postgres
            .try_run("SELECT 1 FROM accounts")
            .is_ok_and(|rows| !rows.is_empty())
    };
    eventually("the first row", &service, there);
    postgres.run("ALTER TABLE accounts RENAME owner TO holder");
    input.line("accounts-0.jsonl", &json!([2, { "owner": "bob", "limit": 5 }]));
    let text = halted(service);
    assert!(
        text.contains("42703") && text.contains("owner") && text.contains("altered"),
        "{text}"
    );
    let text = halted(start(&flow, postgres.settings(), &ledger, 1, true).unwrap());
    assert!(text.contains("column `owner` (text) is missing"), "{text}");
    postgres.run("ALTER TABLE accounts RENAME holder TO owner");
    start(&flow, postgres.settings(), &ledger, 1, true)
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(
        postgres.lines("SELECT id, owner FROM accounts"),
        ["1|ann", "2|bob"]
    );
}

#[test]
fn a_table_that_is_gone_or_another_one_is_not_filled_in_part() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    let ledger = dir.path().join("l");
    let run = |table: &str| start(&flow(dir.path(), table), postgres.settings(), &ledger, 1, true).unwrap();
    input.line("accounts-0.jsonl", &json!([1, { "owner": "ann", "limit": 5 }]));
    run("accounts").join().unwrap();
    let text = halted(run("others"));
    assert!(
        text.contains("are in another table") && text.contains("public.accounts"),
        "{text}"
    );
    postgres.run("ALTER TABLE accounts RENAME TO away");
    let text = halted(run("accounts"));
    assert!(
        text.contains("no longer exists") && text.contains("1 rows"),
        "{text}"
    );
    postgres.run("ALTER TABLE away RENAME TO accounts");
    // What a backup of the database of an earlier moment looks like.
    postgres.run("UPDATE thalweg_progress SET epoch = epoch - 1");
    let text = halted(run("accounts"));
    assert!(text.contains("has lost rows"), "{text}");
}

#[test]
fn a_new_ledger_does_not_mix_its_rows_with_those_of_an_older_one() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    let run = |ledger: &str| {
        start(
            &flow(dir.path(), "accounts"),
            postgres.settings(),
            &dir.path().join(ledger),
            1,
            true,
        )
        .unwrap()
    };
    input.line("accounts-0.jsonl", &json!([1, { "owner": "ann", "limit": 5 }]));
    run("first").join().unwrap();
    postgres.run("INSERT INTO accounts VALUES (9, 'stale', 0)");
    let text = halted(run("second"));
    assert!(
        text.contains("rows of an older ledger") && text.contains("TRUNCATE \"public\".\"accounts\""),
        "{text}"
    );
    postgres.run("TRUNCATE accounts");
    run("second").join().unwrap();
    assert_eq!(postgres.lines("SELECT id FROM accounts"), ["1"]);
    let text = halted(run("first"));
    assert!(
        text.contains("another ledger's rows go to sink `accounts_pg`"),
        "{text}"
    );
}

#[test]
fn what_keeps_the_service_out_is_told_with_what_to_do() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let database = postgres.url().rsplit('/').next().unwrap().to_owned();
    postgres.run(&format!(
        "CREATE USER reader_{database} PASSWORD 'thalweg-secret'; CREATE TABLE closed (id bigint PRIMARY KEY)"
    ));
    let known = postgres.settings();
    let said = |settings: PostgresSettings, table: &str, parts: &[&str]| {
        let found = check(dir.path(), table, settings);
        for part in parts.iter().chain(&["Error"]) {
            assert!(found.contains(part), "`{part}` is not in: {found}");
        }
        assert!(!found.contains("secret"), "{found}");
    };
    let wrong = Some(Secret::new("another-secret"));
    let settings = PostgresSettings {
        password: wrong,
        ..known.clone()
    };
    said(settings, "t", &["28P01", "postgres.password"]);
    let settings = PostgresSettings {
        password: None,
        ..known.clone()
    };
    said(settings, "t", &["password missing", "THALWEG_POSTGRES_PASSWORD"]);
    let settings = PostgresSettings {
        url: postgres.url().replace(&database, "nowhere"),
        ..known.clone()
    };
    said(settings, "t", &["3D000", "create the database"]);
    let settings = PostgresSettings {
        url: "postgresql://thalweg@127.0.0.1:1/thalweg".into(),
        ..known.clone()
    };
    said(settings, "t", &["Connection refused", "is the server running"]);
    let settings = PostgresSettings {
        ca_file: None,
        ..known.clone()
    };
    said(settings, "t", &["certificate verify failed", "postgres.ca_file"]);
    let settings = PostgresSettings {
        url: postgres.url().replace("127.0.0.1", "127.0.0.2"),
        ..known.clone()
    };
    // The certificate is not one of that address.
    said(settings, "t", &["certificate verify failed", "for the host"]);
    let settings = PostgresSettings {
        url: postgres.url_as(&format!("reader_{database}")),
        ..known.clone()
    };
    said(
        settings.clone(),
        "fresh",
        &["the user may not create it", "GRANT CREATE"],
    );
    said(
        settings,
        "closed",
        &["the user lacks SELECT, INSERT, UPDATE, DELETE"],
    );
    said(known.clone(), "nowhere.t", &["schema `nowhere` does not exist"]);
    said(
        PostgresSettings::default(),
        "t",
        &["no Postgres server is configured", "postgres.url"],
    );
    let plain = PostgresSettings {
        tls: Tls::Disable,
        ca_file: None,
        ..known
    };
    let found = check(dir.path(), "t", plain);
    assert!(
        found.contains("the first start creates it") && !found.contains("Error"),
        "{found}"
    );
}
