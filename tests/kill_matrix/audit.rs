//! Counts what a reader could notice, from the topics, the table, and the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use crate::kafka::delivered;
use crate::kafka::load::Topics;
use crate::kafka::oracle::{self, Log, Rows};
use crate::readers::{self, Snapshot, epoch, sequence};
use crate::support::kafka::Consumed;

/// How often each was seen, with the first examples.
#[derive(Default)]
pub struct Audit {
    counts: BTreeMap<Anomaly, u64>,
    pub examples: Vec<String>,
    /// How much was looked at.
    pub rows: usize,
    pub snapshots: usize,
}

/// What may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A row that has to be there is not, or a reader was never given it.
    Lost,
    /// A row is there twice, or nobody's row is there.
    Duplicate,
    /// Rows and progress don't belong together, or a snapshot holds a part of an epoch.
    Torn,
    /// Rows stand in another order than that of their epochs and inputs.
    Reordered,
    /// A reader of committed records was given one that is not in the log.
    AbortedRead,
    /// A row, or an answer, of an epoch that the ledger does not have.
    Unbound,
    /// An answer or a progress goes back, or an epoch became another one.
    Backwards,
}

pub const ANOMALIES: [(Anomaly, &str); 7] = [
    (Anomaly::Lost, "lost"),
    (Anomaly::Duplicate, "duplicate"),
    (Anomaly::Torn, "torn"),
    (Anomaly::Reordered, "reordered"),
    (Anomaly::AbortedRead, "aborted-read"),
    (Anomaly::Unbound, "unbound"),
    (Anomaly::Backwards, "backwards"),
];

/// Examples that are printed.
const EXAMPLES: usize = 20;

impl Audit {
    pub fn note(&mut self, anomaly: Anomaly, example: impl FnOnce() -> String) {
        *self.counts.entry(anomaly).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{anomaly:?}: {}", example()));
        }
    }

    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// A topic by itself: sequences, epochs, the sink's progress, and what was read of it meanwhile.
    fn topic(&mut self, topic: &str, log: &[Consumed], live: &[Consumed], progress: &[Consumed]) {
        self.rows += log.len();
        let mut rows: Vec<&Consumed> = log.iter().collect();
        rows.sort_by_key(|row| sequence(row));
        let (mut next, mut newest, mut last) = (0, 0, BTreeMap::new());
        for row in &rows {
            let (at, epoch) = (sequence(row), epoch(row));
            let place = || format!("{topic}: sequence {at} of epoch {epoch}");
            if at < next {
                self.note(Anomaly::Duplicate, place);
                continue;
            }
            (next..at).for_each(|gone| self.note(Anomaly::Lost, || format!("{topic}: sequence {gone}")));
            next = at + 1;
            if epoch < newest || last.insert(row.partition, row.offset) > Some(row.offset) {
                self.note(Anomaly::Reordered, place);
            }
            newest = newest.max(epoch);
        }
        self.progress(topic, &rows, progress);
        self.live(topic, log, live);
    }

    /// Each progress says how many rows there are up to its epoch.
    fn progress(&mut self, topic: &str, rows: &[&Consumed], progress: &[Consumed]) {
        let mut last = (0, 0);
        for record in progress {
            let said: Value =
                serde_json::from_slice(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
            let now = (
                said["epoch"].as_u64().unwrap_or(0),
                said["rows"].as_u64().unwrap_or(0),
            );
            if now < last {
                self.note(Anomaly::Backwards, || {
                    format!("{topic}: progress {last:?}, then {now:?}")
                });
            }
            last = now;
            let upto = rows.partition_point(|row| epoch(row) <= now.0) as u64;
            if upto != now.1 {
                self.note(Anomaly::Torn, || {
                    format!("{topic}: progress {now:?}, {upto} rows up to there")
                });
            }
        }
        if last.1 != rows.len() as u64 {
            let (n, said) = (rows.len(), last.1);
            self.note(Anomaly::Torn, || {
                format!("{topic}: {n} rows, the last progress says {said}")
            });
        }
    }

    fn live(&mut self, topic: &str, log: &[Consumed], live: &[Consumed]) {
        let place = |record: &Consumed| (record.partition, record.offset);
        let there: BTreeMap<_, &Consumed> = log.iter().map(|record| (place(record), record)).collect();
        let mut read = BTreeSet::new();
        for record in live {
            let at = place(record);
            if there.get(&at) != Some(&record) {
                self.note(Anomaly::AbortedRead, || format!("{topic}: {at:?}"));
            }
            if !read.insert(at) {
                self.note(Anomaly::Duplicate, || format!("{topic}: {at:?} was read twice"));
            }
        }
        for at in there.keys().filter(|at| !read.contains(at)) {
            self.note(Anomaly::Lost, || format!("{topic}: {at:?} was never read"));
        }
    }

    /// Rows that have to be there, and those that are.
    pub fn same(&mut self, what: &str, expected: &BTreeSet<String>, made: &BTreeSet<String>) {
        for row in expected.difference(made) {
            self.note(Anomaly::Lost, || format!("{what}: {row}"));
        }
        for row in made.difference(expected) {
            self.note(Anomaly::Duplicate, || format!("{what}: {row} is nobody's"));
        }
    }

    /// The payments of each partition, once, in their order.
    fn events(&mut self, topic: &str, inputs: &Topics<'_>, log: &[Consumed]) {
        let text =
            |row: &Consumed| String::from_utf8_lossy(row.value.as_deref().unwrap_or_default()).into_owned();
        let mut made = BTreeMap::<i32, Vec<String>>::new();
        log.iter()
            .for_each(|row| made.entry(row.partition).or_default().push(text(row)));
        let wanted = Log::read(inputs).events();
        let mut left = BTreeMap::<&String, i64>::new();
        wanted
            .values()
            .flatten()
            .for_each(|event| *left.entry(event).or_default() += 1);
        made.values()
            .flatten()
            .for_each(|event| *left.entry(event).or_default() -= 1);
        let mut whole = true;
        for (event, n) in left {
            let anomaly = if n > 0 { Anomaly::Lost } else { Anomaly::Duplicate };
            (0..n.abs()).for_each(|_| self.note(anomaly, || format!("{topic}: {event}")));
            whole &= n == 0;
        }
        for (partition, events) in &wanted {
            let within = made.values().any(|all| delivered::is_subsequence(events, all));
            if whole && !within {
                self.note(Anomaly::Reordered, || {
                    format!("{topic}: partition {partition} of payments")
                });
            }
        }
    }

    /// The newest row of each key; and what the table shows, which was given the same rows.
    fn upserts(&mut self, topic: &str, log: &[Consumed], expected: &Rows, snapshots: &[Snapshot]) {
        let mut rows: Vec<&Consumed> = log.iter().collect();
        rows.sort_by_key(|row| sequence(row));
        let mut snapshots = snapshots.to_vec();
        if !snapshots.is_sorted_by_key(|snapshot| snapshot.epoch) {
            self.note(Anomaly::Backwards, || "the table's progress".to_owned());
        }
        snapshots.sort_by_key(|snapshot| snapshot.epoch);
        snapshots.dedup();
        self.snapshots = snapshots.len();
        let mut table = BTreeMap::<&[u8], (String, String)>::new();
        let mut rows = rows.into_iter().peekable();
        for snapshot in snapshots {
            while let Some(row) = rows.next_if(|row| epoch(row) <= snapshot.epoch) {
                self.upsert(topic, &mut table, row);
            }
            let mut lines: Vec<String> = table.values().map(|(_, line)| line.clone()).collect();
            lines.sort();
            if (lines.len(), readers::hash(&lines)) != (snapshot.rows, snapshot.hash) {
                let n = lines.len();
                self.note(Anomaly::Torn, || {
                    format!("{snapshot:?}: the topic has {n} rows then, or others")
                });
            }
        }
        rows.for_each(|row| self.upsert(topic, &mut table, row));
        let made = table.into_values().map(|(row, _)| row).collect();
        self.same(topic, &expected["merchant_spend"], &made);
    }

    fn upsert<'a>(
        &mut self,
        topic: &str,
        table: &mut BTreeMap<&'a [u8], (String, String)>,
        row: &'a Consumed,
    ) {
        let key = row.key.as_deref().unwrap_or_default();
        match &row.value {
            Some(value) => {
                let row = oracle::normal(&String::from_utf8_lossy(value));
                let line = line(&row);
                table.insert(key, (row, line));
            }
            None if table.remove(key).is_none() => {
                self.note(Anomaly::Lost, || {
                    format!("{topic}: a row that is not there is deleted")
                });
            }
            None => {}
        }
    }

    /// Each change begins with what the one before it ended with.
    fn changes(&mut self, topic: &str, log: &[Consumed], expected: &Rows) {
        let mut rows: Vec<&Consumed> = log.iter().collect();
        rows.sort_by_key(|row| sequence(row));
        let mut table = BTreeMap::<&[u8], Value>::new();
        for row in rows {
            let bytes = row.value.as_deref().unwrap_or_default();
            let change: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let key = row.key.as_deref().unwrap_or_default();
            let was = match &change["after"] {
                Value::Null => table.remove(key),
                after => table.insert(key, after.clone()),
            };
            if was.unwrap_or_default() != change["before"] {
                self.note(Anomaly::Lost, || format!("{topic}: a change before {change}"));
            }
        }
        let made = table.into_values().map(|mut row| {
            for (from, to) in [("value_0", "n"), ("value_1", "total"), ("value_2", "top")] {
                row[to] = row[from].take();
                row.as_object_mut().and_then(|row| row.remove(from));
            }
            oracle::normal(&row.to_string())
        });
        self.same(topic, &expected["minute_spend"], &made.collect());
    }
}

/// A row of the topic as the table has it.
pub fn line(row: &str) -> String {
    let row: Value = serde_json::from_str(row).unwrap_or_default();
    let text = |name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let names = ["merchant", "window_start", "n", "total", "top", "name", "country"];
    names.map(text).join("|")
}

/// Reads everything once more, and compares it with an evaluation from scratch.
pub fn of(audit: &mut Audit, inputs: &Topics<'_>, name: &str, expected: &Rows, readers: &readers::Readers) {
    let broker = inputs.broker;
    let live = readers.topics.lock().expect("nobody panics");
    let names = readers::topics(name);
    let logs = names.clone().map(|topic| broker.records(&topic));
    for (topic, log) in names.iter().zip(&logs) {
        // A row names its shard's producer: the progress topic has the same name, but for its end.
        let producer = log.first().and_then(|row| row.headers.get("thalweg.sink"));
        let progress = match producer.and_then(|name| name.strip_suffix(".0")) {
            Some(sink) => broker.records(&format!("{sink}.progress")),
            None => Vec::new(),
        };
        audit.topic(topic, log, live.get(topic).map_or(&[], |live| live), &progress);
    }
    let [events, rows, changes, letters] = &logs;
    let snapshots = readers.snapshots.lock().expect("nobody panics");
    audit.events(&names[0], inputs, events);
    audit.upserts(&names[1], rows, expected, &snapshots);
    audit.changes(&names[2], changes, expected);
    let made: BTreeSet<String> = letters.iter().map(delivered::letter).collect();
    audit.same(&names[3], &expected["payments.dead_letters"], &made);
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |(anomaly, name): (Anomaly, &str)| {
            format!("{name} {}", self.counts.get(&anomaly).copied().unwrap_or(0))
        };
        f.write_str(&ANOMALIES.map(count).join(", "))
    }
}
