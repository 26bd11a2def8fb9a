//! The answers after 100,000 events are those of DuckDB to the same questions in SQL.
//!
//! ```text
//!   generator ─▶ 100,000 events ─┬─▶ epochs, on two workers ─▶ dataflow q5 ─▶ rows of view q5 ──┐
//!                                └─▶ JSON ─▶ DuckDB's tables ─▶ sql/q5.sql ─▶ rows ─────────────┴─▶ equal
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use dataflows::Random;
use serde_json::Value;

use crate::{Events, Parts, Shown, compare};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A hundred seconds.
static EVENTS: LazyLock<Events> = LazyLock::new(|| Events::new(7, 1_000, 100_000));

/// DuckDB with tables of the events.
struct Duck {
    program: PathBuf,
    folder: tempfile::TempDir,
}

static DUCK: LazyLock<Duck> = LazyLock::new(|| Duck::with(&EVENTS));

impl Duck {
    fn with(events: &Events) -> Self {
        let script = Path::new(ROOT).join("../../scripts/duckdb.sh");
        let program = Command::new(script).arg("fetch").output();
        let program = program.expect("scripts/duckdb.sh can be run");
        assert!(
            program.status.success(),
            "{}",
            String::from_utf8_lossy(&program.stderr)
        );
        let program = String::from_utf8(program.stdout).expect("a path");
        let duck = Self {
            program: program.trim().into(),
            folder: tempfile::tempdir().expect("a folder can be made"),
        };
        duck.load("person", &events.people);
        duck.load("auction", &events.auctions);
        duck.load("bid", &events.bids);
        duck
    }

    fn load<T: serde::Serialize>(&self, table: &str, rows: &[T]) {
        let mut lines = String::new();
        for row in rows {
            let row = serde_json::to_string(row).expect("an event is JSON");
            writeln!(lines, "{row}").expect("a string takes text");
        }
        let path = self.folder.path().join(table);
        fs::write(&path, lines).expect("files can be written");
        let path = path.display();
        self.run(
            &[],
            &format!(
                "CREATE TABLE {table} AS SELECT * FROM read_json('{path}', format = 'newline_delimited')"
            ),
        );
    }

    fn run(&self, options: &[&str], sql: &str) {
        let mut command = Command::new(&self.program);
        command
            .args(options)
            .arg(self.folder.path().join("events.duckdb"));
        let output = command.args(["-c", sql]).output().expect("DuckDB can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}: {said}");
    }

    fn rows(&self, query: &str) -> Vec<Value> {
        let sql = fs::read_to_string(Path::new(ROOT).join(format!("sql/{query}.sql"))).expect("a query");
        let out = self.folder.path().join(format!("{query}.out"));
        self.run(
            &["-readonly"],
            &format!("COPY ({sql}) TO '{}' (FORMAT json)", out.display()),
        );
        let rows = fs::read_to_string(out).expect("DuckDB has written");
        rows.lines()
            .map(|row| serde_json::from_str(row).expect("a row is JSON"))
            .collect()
    }
}

macro_rules! queries { ($($query:ident)+) => { $(
    #[test]
    fn $query() {
        let query = stringify!($query);
        let theirs = DUCK.rows(query);
        let parts = Parts::draw(&EVENTS, 10, &mut Random::new(1));
        let shown = Shown::of(query, &EVENTS, &parts, 2);
        assert!(!theirs.is_empty(), "{query} has no rows");
        compare(query, &shown.rows(parts.len() - 1), &theirs);
    }
)+
    #[test]
    fn every_query_is_compared() {
        let names: Vec<&str> = nexmark::queries::flows().iter().map(|flow| flow.name()).collect();
        assert_eq!(names, [$(stringify!($query)),+]);
    }
} }

queries! { q0 q1 q2 q3 q4 q5 q6 q7 q8 q9 q11 q14 q15 q16 q17 q18 q19 q20 q21 q22 }
