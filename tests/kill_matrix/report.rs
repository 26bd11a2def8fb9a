//! What the cycles came to, as text and as Markdown.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use crate::cycles::{Outcome, Stats};

pub struct Report<'a> {
    pub cycles: usize,
    pub seed: u64,
    pub outcome: &'a Outcome,
}

impl Report<'_> {
    /// The page in docs/reports.
    pub fn markdown(&self) -> String {
        let outcome = self.outcome;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let points = outcome.points.iter().map(|point| format!("`{point}`"));
        let points = points.collect::<Vec<_>>().join(", ");
        let build = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        let (cycles, seed) = (self.cycles, self.seed);
        let (minutes, input) = (outcome.took.as_secs().div_ceil(60), outcome.records_in);
        let (rows, snapshots) = (outcome.audit.rows, outcome.audit.snapshots);
        let (bound, compared) = (outcome.bound, outcome.compared);
        format!(
            "# Kill matrix\n\n\
            A dataflow of a join and three windows reads two Kafka topics, and writes to four (append, upsert, changes, \
            dead letters)\nand to a table of Postgres, while it and the servers under it are killed. What is counted, \
            and how, is in\n[tests/kill_matrix.rs](../../tests/kill_matrix.rs).\n\n\
            ```text\nmake kill-matrix CYCLES={cycles} SEED={seed}\n{self}\n```\n\n\
            {}\n\
            *ready*: from the start of the next process until what was bound is replayed. *first row*: until a reader of \
            committed\nrecords has a new row; for broker and Postgres from the moment at which the server answers \
            again.\n\n\
            It took {minutes} min on {cores} cores, which other programs used as well; {build} build, Apache Kafka {}, \
            Postgres {}, one broker.\n{input} records went in, {rows} rows came out in {bound} epochs; {snapshots} \
            different snapshots of the table were compared with the\ntopic as of their epoch, and the answers of \
            {compared} epochs with those that earlier processes had given.\n\n\
            Points: {points}.\n",
            self.table(),
            kafka_version(),
            outcome.postgres,
        )
    }

    fn table(&self) -> String {
        let mut table = String::from(
            "| fault | cycles | ready, p50 | max | first row, p50 | max |\n|---|--:|--:|--:|--:|--:|\n",
        );
        for (fault, Stats { cycles, ready, first }) in &self.outcome.stats {
            let ([ready, ready_max], [first, first_max]) = (spread(ready), spread(first));
            table += &format!("| {fault} | {cycles} | {ready} | {ready_max} | {first} | {first_max} |\n");
        }
        table
    }
}

/// The version of Kafka that the scripts fetch.
fn kafka_version() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/jars/kafka/pom.xml");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let version = |line: &str| {
        Some(
            line.strip_prefix("  <version>")?
                .strip_suffix("</version>")?
                .to_owned(),
        )
    };
    text.lines().find_map(version).unwrap_or_default()
}

fn spread(times: &[Duration]) -> [String; 2] {
    let mut times = times.to_vec();
    times.sort();
    let text =
        |time: Option<&Duration>| time.map_or("–".into(), |time| format!("{:.1} s", time.as_secs_f64()));
    [text(times.get(times.len() / 2)), text(times.last())]
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = self.outcome;
        for (fault, stats) in &outcome.stats {
            let ([ready, ready_max], [first, first_max]) = (spread(&stats.ready), spread(&stats.first));
            let fault = fault.replace('`', "");
            let cycles = stats.cycles;
            writeln!(
                f,
                "{fault:<36} {cycles:>4}   ready {ready:>6}, max {ready_max:>6}   first row {first:>6}, max {first_max:>6}"
            )?;
        }
        for problem in &outcome.problems {
            writeln!(f, "problem  {problem}")?;
        }
        for example in &outcome.audit.examples {
            writeln!(f, "  {example}")?;
        }
        write!(f, "cycles {}, {}", self.cycles, outcome.audit)
    }
}
