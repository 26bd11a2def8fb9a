//! Tables of captured changes: a database is played, its connector crashes and begins again, and the table
//! has to be what the database was.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use thalweg::codec::debezium::envelope::{PartialRow, SourcePosition, WrittenRow};
use thalweg::prelude::*;
use thalweg::source::captured::{Captured, Skipped};
use thalweg::testing::Harness;

use super::log::{EPOCHS, Given, Log, Rows, Step, check, config, runs};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Row {
    v: i64,
    note: String,
}

type Event = Captured<u32, Row>;

fn build(flow: Dataflow) {
    let table = flow.table("t", Kafka::topic("t").debezium::<u32, Row>());
    table.view("rows");
    table
        .group_by("v", |_, row| row.v)
        .aggregate("count", |a| a.count())
        .view("counts");
}

/// What happens in the database, to its connector, or to the topic.
#[derive(Clone, Debug)]
enum Act {
    Write(u32, i64, String),
    /// An update that leaves the long column as it is, so that Postgres does not log it.
    Touch(u32, i64),
    Delete(u32),
    /// The primary key changes; with or without the long column in the log.
    Rekey(u32, u32, bool),
    /// All rows are read again.
    Snapshot,
    Truncate,
    /// The connector begins again so many changes back.
    Crash(usize),
    Message,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (key, note) = (0u32..4, "[ab]{0,2}");
    let act = prop_oneof![
        6 => (key.clone(), 0i64..4, note).prop_map(|(key, v, note)| Act::Write(key, v, note)),
        4 => (key.clone(), 0i64..4).prop_map(|(key, v)| Act::Touch(key, v)),
        4 => key.clone().prop_map(Act::Delete),
        2 => (key.clone(), key, any::<bool>()).prop_map(|(a, b, whole)| Act::Rekey(a, b, whole)),
        1 => Just(Act::Snapshot),
        1 => Just(Act::Truncate),
        4 => (1usize..12).prop_map(Act::Crash),
        1 => Just(Act::Message),
    ];
    prop::collection::vec(act, 0..40)
}

/// A record of the topic, with the change that it is of; what is of no change can't come again.
type Numbered = (Option<u64>, u32, Event);

/// The topic that such a history leaves.
fn topic(acts: &[Act], partitions: u32) -> Vec<Numbered> {
    let mut rows: BTreeMap<u32, Row> = BTreeMap::new();
    let mut topic: Vec<Numbered> = Vec::new();
    // What the connector writes of each change, from which it begins again.
    let mut streamed: Vec<Numbered> = Vec::new();
    let mut lsn = 0;
    for act in acts {
        lsn += 1;
        let at = Some(SourcePosition {
            origin: 1,
            place: (lsn, 0),
            committed_ms: lsn as i64 / 3,
            is_unique: true,
        });
        let row = |key: u32, row: &Row, whole: bool| {
            let written = match whole {
                true => WrittenRow::Whole(row.clone()),
                false => WrittenRow::Partial(Box::new(PartialRow {
                    columns: json!({ "v": row.v }).to_string(),
                    missing: vec!["note".into()],
                })),
            };
            let snapshot = false;
            (
                key,
                Captured::Row {
                    key,
                    row: written,
                    at,
                    snapshot,
                },
            )
        };
        let gone = |key: u32| {
            vec![
                (key, Captured::Deleted { key, at }),
                (key, Captured::Tombstone { key }),
            ]
        };
        let mut stream = |records: Vec<(u32, Event)>| {
            for (key, event) in records {
                let record: Numbered = (Some(lsn), key % partitions, event);
                topic.push(record.clone());
                streamed.push(record);
            }
        };
        match act.clone() {
            Act::Write(key, v, note) => {
                rows.insert(key, Row { v, note });
                stream(vec![row(key, &rows[&key], true)]);
            }
            Act::Touch(key, v) => {
                if let Some(old) = rows.get_mut(&key) {
                    old.v = v;
                    stream(vec![row(key, &rows[&key], false)]);
                }
            }
            Act::Delete(key) => {
                if rows.remove(&key).is_some() {
                    stream(gone(key));
                }
            }
            Act::Rekey(from, to, whole) => {
                if from != to
                    && !rows.contains_key(&to)
                    && let Some(moved) = rows.remove(&from)
                {
                    let mut records = gone(from);
                    records.push(row(to, &moved, whole));
                    rows.insert(to, moved);
                    stream(records);
                }
            }
            Act::Snapshot => {
                for (key, row) in &rows {
                    let (row, snapshot) = (WrittenRow::Whole(row.clone()), true);
                    let read = Captured::Row {
                        key: *key,
                        row,
                        at: None,
                        snapshot,
                    };
                    topic.push((None, key % partitions, read));
                }
            }
            // Only one partition has an order in which it stands.
            Act::Truncate if partitions == 1 => {
                rows.clear();
                stream(vec![(0, Captured::Truncated { at })]);
            }
            Act::Truncate => {}
            Act::Crash(back) => {
                // What it notes is a place of the log: all records of a change have one.
                let mut from = streamed.len().saturating_sub(back);
                while from > 0 && from < streamed.len() && streamed[from - 1].0 == streamed[from].0 {
                    from -= 1;
                }
                topic.extend_from_slice(&streamed[from..]);
            }
            Act::Message => topic.push((None, 0, Captured::Skipped(Skipped::Message))),
        }
    }
    topic
}

/// The table as it has to be, from the numbers of changes alone: what came before is passed over.
#[derive(Default)]
struct Table {
    rows: BTreeMap<u32, Row>,
    seen: BTreeSet<(u64, u32)>,
    /// The last change of each key that counted, and of the whole.
    last: BTreeMap<u32, u64>,
    truncated: u64,
    /// Offsets, by partition, of rows that lack a column and come without one before.
    letters: Vec<(u32, i64)>,
}

impl Table {
    fn take(&mut self, (change, partition, event): &Numbered, offset: i64) {
        let known = |table: &Self, key: u32| {
            let change = change.unwrap_or(u64::MAX);
            table.last.get(&key).is_some_and(|last| *last >= change) || table.truncated >= change
        };
        match event {
            Captured::Row { key, row, .. } => {
                if known(self, *key) {
                    return;
                }
                let whole = match row {
                    WrittenRow::Whole(row) => Some(row.clone()),
                    WrittenRow::Partial(partial) => self.rows.get(key).map(|old| Row {
                        v: serde_json::from_str::<Value>(&partial.columns).unwrap()["v"]
                            .as_i64()
                            .unwrap(),
                        note: old.note.clone(),
                    }),
                };
                let Some(whole) = whole else {
                    self.letters.push((*partition, offset));
                    self.last.extend(change.map(|change| (*key, change)));
                    return;
                };
                self.rows.insert(*key, whole);
                if let Some(change) = change {
                    self.last.insert(*key, *change);
                }
            }
            Captured::Deleted { key, .. } => {
                if !known(self, *key) {
                    self.rows.remove(key);
                    self.last.insert(*key, change.unwrap());
                }
            }
            Captured::Truncated { .. } => {
                let change = change.unwrap();
                if self.seen.insert((change, u32::MAX)) {
                    self.rows.clear();
                    self.truncated = change;
                }
            }
            Captured::Tombstone { .. } | Captured::Skipped(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn tables_are_what_the_database_was(
        acts in acts(),
        partitions in 1u32..=3,
        cuts in prop::collection::vec(0usize..200, EPOCHS - 1),
        runs in runs(),
    ) {
        let topic = topic(&acts, partitions);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (topic.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(topic.len());
        let (mut log, mut from) = (Log { partitions, epochs: Vec::new() }, 0);
        let (mut table, mut offsets) = (Table::default(), BTreeMap::<u32, i64>::new());
        let mut expected: BTreeMap<&str, Vec<Rows>> = BTreeMap::new();
        for to in cuts {
            let records = &topic[from..to];
            from = to;
            for record in records {
                let offset = offsets.entry(record.1).or_default();
                table.take(record, *offset);
                *offset += 1;
            }
            let records = records.iter().map(|(_, partition, event)| (*partition, Given::Value(event.clone())));
            log.epochs.push(Step { records: records.collect(), idle: Vec::new() });
            let mut put = |view, rows: Rows| expected.entry(view).or_default().push(rows);
            put("rows", table.rows.iter().map(|(key, row)| json!({ "key": key, "v": row.v, "note": row.note })).collect());
            let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
            table.rows.values().for_each(|row| *counts.entry(row.v).or_default() += 1);
            put("counts", counts.iter().map(|(v, n)| json!({ "v": v, "value": n })).collect());
            table.letters.sort_unstable();
            let letters = table.letters.iter().map(|(partition, offset)| {
                json!({ "partition": partition, "offset": offset, "cause": "value_unavailable" })
            });
            put("t.dead_letters", letters.collect());
        }
        let project = |view: &str, row: Value| {
            let Value::Object(mut row) = row else { return row };
            if view.ends_with(".dead_letters") {
                row.retain(|name, _| ["partition", "offset", "cause"].contains(&name.as_str()));
            }
            Value::Object(row)
        };
        let feed = |test: &mut Harness, n: usize| log.feed(test, "t", n);
        check(&dataflow("captured", build), &runs, feed, &expected, project)?;
    }
}

/// The keys and `v` of the rows after all these events, an epoch each.
fn rows_after(flow: fn(Dataflow), events: Vec<Event>) -> Vec<(u32, i64)> {
    #[derive(Deserialize)]
    struct Shown {
        key: u32,
        v: i64,
    }
    let mut test = Harness::of(dataflow("captured", flow));
    let mut last = None;
    for event in events {
        test.feed("t", 0, [event]);
        last = Some(test.epoch());
    }
    let rows = test
        .workers(2)
        .run()
        .unwrap()
        .rows::<Shown>("rows", last.unwrap())
        .unwrap();
    rows.into_iter().map(|row| (row.key, row.v)).collect()
}

fn at(lsn: u64) -> Option<SourcePosition> {
    let (origin, committed_ms) = (1, lsn as i64);
    Some(SourcePosition {
        origin,
        place: (lsn, 0),
        committed_ms,
        is_unique: true,
    })
}

fn written(key: u32, v: i64, at: Option<SourcePosition>) -> Event {
    let row = WrittenRow::Whole(Row {
        v,
        note: String::new(),
    });
    Captured::Row {
        key,
        row,
        at,
        snapshot: false,
    }
}

#[test]
fn a_tombstone_whose_deletion_was_compacted_away_deletes() {
    let tombstone = || Captured::Tombstone { key: 1 };
    let deleted = |lsn| Captured::Deleted { key: 1, at: at(lsn) };
    assert_eq!(rows_after(build, vec![written(1, 5, at(1)), tombstone()]), []);
    // What follows it counts, though its place may have been seen.
    let again = vec![written(1, 5, at(1)), tombstone(), written(1, 5, at(1))];
    assert_eq!(rows_after(build, again), [(1, 5)]);
    // Behind a deletion that comes again it says nothing.
    let mut events = vec![
        written(1, 5, at(1)),
        deleted(2),
        tombstone(),
        written(1, 6, at(3)),
    ];
    events.extend(events.clone().into_iter().take(3));
    assert_eq!(rows_after(build, events), [(1, 6)]);
}

#[test]
fn a_database_that_was_restored_elsewhere_is_no_repetition() {
    let later = |lsn| {
        let place = at(lsn).unwrap();
        Some(SourcePosition {
            committed_ms: 10_000 + lsn as i64,
            is_unique: true,
            ..place
        })
    };
    let events = vec![
        written(1, 5, at(900)),
        written(1, 6, later(3)),
        written(1, 5, at(2)),
    ];
    assert_eq!(rows_after(build, events), [(1, 6)]);
}

#[test]
fn changes_without_a_place_hold_in_the_order_of_the_topic() {
    let events = vec![
        written(1, 5, None),
        Captured::deleted(1),
        Captured::row(
            1,
            Row {
                v: 6,
                note: String::new(),
            },
        ),
        Captured::row(
            2,
            Row {
                v: 7,
                note: String::new(),
            },
        ),
        Captured::Truncated { at: None },
        written(3, 8, None),
    ];
    assert_eq!(rows_after(build, events), [(3, 8)]);
}

#[test]
fn deletions_are_forgotten_in_time() {
    fn forgetful(flow: Dataflow) {
        let topic = Kafka::topic("t").debezium::<u32, Row>();
        let topic = topic.remember_deletions_for(Duration::from_micros(2));
        flow.table("t", topic).view("rows");
    }
    let deleted = Captured::Deleted { key: 1, at: at(2) };
    let known = vec![written(1, 5, at(1)), deleted.clone(), written(1, 5, at(1))];
    assert_eq!(rows_after(forgetful, known), []);
    // Epochs are a microsecond apart.
    let message = || Captured::Skipped(Skipped::Message);
    let late = vec![
        written(1, 5, at(1)),
        deleted,
        message(),
        message(),
        written(1, 5, at(1)),
    ];
    assert_eq!(rows_after(forgetful, late), [(1, 5)]);
}

#[test]
fn a_truncation_that_comes_again_spares_what_is_newer() {
    let truncated = || Captured::Truncated { at: at(2) };
    let events = vec![
        written(1, 5, at(1)),
        truncated(),
        written(2, 6, at(3)),
        truncated(),
    ];
    assert_eq!(rows_after(build, events), [(2, 6)]);
}
