//! Rows that Postgres does not take: the service halts, names the row, and leaves nothing of its epoch; once
//! the cause is gone a restart goes on.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use thalweg::connect::postgres::Postgres as Sink;
use thalweg::prelude::*;

use super::node::{halted, start};
use super::oracle::Input;
use crate::support::postgres::Postgres;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Limit {
    limit: i64,
    note: String,
    until: EventTime,
}

fn flow(dir: &Path) -> thalweg::Flow {
    let pattern = dir.join("limits.jsonl");
    dataflow("limits", move |flow: Dataflow| {
        let lines = Files::lines(&pattern)
            .json::<(u32, Option<Limit>)>()
            .poll(Duration::from_millis(5))
            .keyed(|(id, row)| (id, row));
        flow.table("limits", lines)
            .key_named("id")
            .upsert_to("limits_pg", Sink::table("limits"));
    })
}

fn limit(id: u32, limit: i64, note: &str, until_us: i64) -> Value {
    json!([id, { "limit": limit, "note": note, "until": until_us }])
}

/// Rows of which one is refused; the reason, and what takes the cause away.
fn refused(of: &str, prepare: &str, wrong: &Value, parts: &[&str], remedy: &str) {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    let flow = flow(dir.path());
    let ledger = dir.path().join("ledger");
    let run = || start(&flow, postgres.settings(), &ledger, 1, true).unwrap();
    input.line("limits.jsonl", &limit(1, 1, "first", 0));
    run().join().unwrap();
    postgres.run(prepare);
    // In the midst of a batch, all of which it keeps back.
    for id in 2..200 {
        input.line("limits.jsonl", &limit(id, i64::from(id), "fine", 0));
    }
    input.line("limits.jsonl", wrong);
    for id in 200..300 {
        input.line("limits.jsonl", &limit(id, i64::from(id), "fine", 0));
    }
    let text = halted(run());
    for part in ["sink `limits_pg` refuses a row", "in epoch"].iter().chain(parts) {
        assert!(text.contains(part), "{of}: `{part}` is not in: {text}");
    }
    assert_eq!(postgres.lines("SELECT id FROM limits"), ["1"], "{of}");
    if !remedy.is_empty() {
        postgres.run(remedy);
        run().join().unwrap();
        assert_eq!(postgres.value("SELECT count(*) FROM limits"), "300", "{of}");
    }
}

#[test]
fn a_row_against_a_constraint_is_named() {
    refused(
        "check",
        "ALTER TABLE limits ADD CONSTRAINT low CHECK (\"limit\" < 1000)",
        &limit(77_777, 5_000, "too high", 0),
        &["constraint `low`", "23514", "\"id\":77777", "too high"],
        "ALTER TABLE limits DROP CONSTRAINT low",
    );
    refused(
        "unique",
        "CREATE UNIQUE INDEX notes ON limits (note) WHERE note <> 'fine'",
        &limit(77_777, 5, "first", 0),
        &["constraint `notes`", "23505", "\"id\":77777"],
        "DROP INDEX notes",
    );
    refused(
        "varchar",
        "ALTER TABLE limits ALTER note TYPE varchar(10)",
        &limit(77_777, 5, "longer than ten", 0),
        &["22001", "\"id\":77777"],
        "ALTER TABLE limits ALTER note TYPE text",
    );
    refused(
        "trigger",
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 77777 THEN \
        RAISE 'not this one'; END IF; RETURN NEW; END $$; \
        CREATE TRIGGER no BEFORE INSERT ON limits FOR EACH ROW EXECUTE FUNCTION no()",
        &limit(77_777, 5, "", 0),
        &["not this one", "P0001", "\"id\":77777"],
        "DROP TRIGGER no ON limits",
    );
}

#[test]
fn a_value_that_postgres_has_no_place_for_is_named_with_its_column() {
    refused(
        "nul",
        "SELECT 1",
        &limit(77_777, 5, "a\0b", 0),
        &["column `note`", "U+0000", "\"id\":77777"],
        "",
    );
    refused(
        "time",
        "SELECT 1",
        &limit(77_777, 5, "", i64::MIN),
        &["column `until`", "-inf", "4713 BC", "\"id\":77777"],
        "",
    );
}

/// Nothing is skipped without a word.
#[test]
fn a_trigger_that_withholds_rows_halts_the_service() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    input.line("limits.jsonl", &limit(1, 1, "first", 0));
    let flow = flow(dir.path());
    let ledger = dir.path().join("ledger");
    let run = || start(&flow, postgres.settings(), &ledger, 1, true).unwrap();
    run().join().unwrap();
    postgres.run(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
        CREATE TRIGGER no BEFORE INSERT ON limits FOR EACH ROW EXECUTE FUNCTION no()",
    );
    input.line("limits.jsonl", &limit(2, 1, "second", 0));
    let text = halted(run());
    assert!(
        text.contains("did not accept all of its rows") && text.contains("0 of 1"),
        "{text}"
    );
}
