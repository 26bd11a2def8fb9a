//! The kill matrix: processes are killed, stopped and starved of disk while records keep coming, brokers and
//! databases die under them, and an audit counts what a reader could ever notice.
//!
//! ```text
//!   load ─▶ input topics ─▶ node ──✗ node ──✗ node ──✗ …    1, 2, 3, 1, … workers, one ledger
//!                            ├─▶ topics: append, upsert, changes, dead letters ─▶ read_committed readers, all the time ┐
//!                            └─▶ a table of Postgres ─▶ snapshots, all the time                                        ├▶ audit
//!   input topics, ledger, and all outputs, read once more at the end ─▶ evaluated from scratch ───────────────────────┘
//! ```
//!
//! `make kill-matrix CYCLES=200` writes docs/reports/kill-matrix.md; without arguments a short form runs. The
//! last line says how often anything was lost, and so on; the exit code is 1 unless that is never.
#![allow(
    clippy::disallowed_methods,
    reason = "recovery is measured in time on the wall"
)]

#[path = "kill_matrix/audit.rs"]
mod audit;
#[path = "kill_matrix/cycles.rs"]
mod cycles;
#[path = "kill_matrix/readers.rs"]
mod readers;
#[path = "kill_matrix/report.rs"]
mod report;
#[allow(unused_imports, reason = "this uses a part of it")]
mod support;

/// What tests against a real Kafka have: load, a node, an oracle.
#[path = "kafka"]
#[allow(dead_code, unused_imports, reason = "this uses a part of it")]
mod kafka {
    pub mod crash;
    pub mod delivered;
    pub mod faults;
    pub mod flow;
    pub mod load;
    pub mod node;
    pub mod oracle;
    pub mod pace;
    pub mod sunk;

    /// For whatever is waited for. Far more than it takes on a loaded machine.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);
}

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Kills a dataflow in many ways, and counts what its readers notice of it.
#[derive(Parser)]
struct Options {
    /// How many times something is killed, stopped, or runs out of disk.
    #[arg(long, default_value_t = 40)]
    cycles: usize,
    /// Draws the moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these fault points, in place of the whole matrix.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Writes the report to this file, as Markdown.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Names of tests, as all test binaries of a package are given them: another's name is none of ours.
    #[arg(value_name = "TEST")]
    tests: Vec<String>,
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    list: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
}

fn main() -> ExitCode {
    if std::env::var_os(kafka::node::ASKED).is_some() {
        kafka::node::run_if_asked();
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let asked = options.tests.is_empty() || options.tests.iter().any(|test| "kill_matrix".contains(&**test));
    if options.list || options.ignored || !asked {
        return ExitCode::SUCCESS;
    }
    let outcome = cycles::run(&options);
    let report = report::Report {
        cycles: options.cycles,
        seed: options.seed,
        outcome: &outcome,
    };
    if let Some(path) = &options.report {
        let written = std::fs::write(path, report.markdown());
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    println!("{report}");
    match outcome.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
