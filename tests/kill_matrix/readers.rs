//! Readers that never stop: of each topic, committed records; of the table, snapshots.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::kafka::delivered;
use crate::support::kafka::{Broker, Consumed};
use crate::support::postgres::Postgres;

/// The table, and its sink.
pub const TABLE: &str = "merchant_spend";

/// The table as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The progress that stood in the same snapshot.
    pub epoch: u64,
    pub rows: usize,
    pub hash: u64,
}

/// What was read so far.
#[derive(Default)]
pub struct Readers {
    pub topics: Mutex<BTreeMap<String, Vec<Consumed>>>,
    pub snapshots: Mutex<Vec<Snapshot>>,
    /// The newest epoch that a row of a topic had, and of which the table is.
    pub newest: AtomicU64,
    pub newest_table: AtomicU64,
}

/// The topics that the dataflow writes to.
pub fn topics(name: &str) -> [String; 4] {
    let [audit, rows, log] = delivered::topics(name);
    [audit, rows, log, delivered::dead(name)]
}

impl Readers {
    /// Reads a topic until it is told to stop.
    pub fn follow(&self, broker: &Broker, topic: &str, stop: &AtomicBool) {
        broker.follow(topic, stop, |record| {
            let epoch = epoch(&record);
            let mut topics = self.topics.lock().expect("nobody panics");
            topics.entry(topic.to_owned()).or_default().push(record);
            self.newest.fetch_max(epoch, Ordering::AcqRel);
        });
    }

    /// Reads the table until it is told to stop. While the server is away there is nothing to read.
    pub fn look(&self, postgres: &Postgres, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            if let Some((epoch, lines)) = table(postgres) {
                self.newest_table.fetch_max(epoch, Ordering::AcqRel);
                let (rows, hash) = (lines.len(), hash(&lines));
                let mut snapshots = self.snapshots.lock().expect("nobody panics");
                snapshots.push(Snapshot { epoch, rows, hash });
            }
            std::thread::sleep(Duration::from_millis(40));
        }
    }
}

/// All rows and the progress, of one snapshot; nothing while there is neither.
pub fn table(postgres: &Postgres) -> Option<(u64, Vec<String>)> {
    let query = format!(
        "SELECT (SELECT epoch FROM thalweg_progress WHERE sink = '{TABLE}'), merchant, \
        (extract(epoch FROM window_start) * 1000000)::bigint, n, total, top, name, country FROM {TABLE}"
    );
    let rows = postgres.try_run(&query).ok()?;
    let epoch = rows.first()?.first()?.as_ref()?.parse().ok()?;
    let line = |row: Vec<Option<String>>| {
        let values = row.into_iter().skip(1).map(Option::unwrap_or_default);
        values.collect::<Vec<_>>().join("|")
    };
    let mut lines: Vec<String> = rows.into_iter().map(line).collect();
    lines.sort();
    Some((epoch, lines))
}

pub fn hash(lines: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    lines.hash(&mut hasher);
    hasher.finish()
}

/// What a header says, as a number; 0 without.
pub fn number(record: &Consumed, name: &str) -> u64 {
    let text = record.headers.get(name);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn epoch(record: &Consumed) -> u64 {
    number(record, "thalweg.epoch")
}

pub fn sequence(record: &Consumed) -> u64 {
    number(record, "thalweg.sequence")
}
