//! Views against a naive model: a full copy of the rows for every epoch, filtered and sorted as a reader
//! would by hand.

mod effort;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::position::{EpochBinding, SourceId};
use crate::record::{Change, F64, owner, route};
use crate::schema::Numbers;
use crate::time::{Epoch, EventTime, Window, WindowLayout, Windowed};
use crate::view::hash::{change_hash, end_change};
use crate::view::serve::{
    Filter, FoundRow, GivenValue, Op, OrderBy, Page, ReadError, RowChange, RowQuery, RowsQuery, Serve,
    WindowPick, cursor_epoch,
};
use crate::view::writer::ViewWriter;
use crate::view::{AsOf, Snapshot, View, ViewSpec, Views};
use crate::watermark::Watermarks;

/// A snapshot without sources.
pub(crate) fn snapshot(epoch: Epoch) -> Snapshot {
    let binding = EpochBinding {
        epoch,
        now: EventTime(0),
        ranges: Vec::new(),
        watermarks: Vec::new(),
        idle: Vec::new(),
        topics: Vec::new(),
        schemas: Vec::new(),
        results: None,
    };
    Snapshot {
        epoch,
        watermarks: Arc::default(),
        positions: Arc::new([]),
        binding: Arc::new(binding),
    }
}

const SOURCE: SourceId = SourceId(7);
const PEERS: usize = 3;
const SIZE: i64 = 10;
const FIELDS: [&str; 6] = ["country", "id", "window_start", "window_end", "n", "note"];

type Key = Windowed<(String, i16)>;
type Row = (i64, Option<String>);
type Rows = BTreeMap<Key, (Epoch, Row)>;

fn at(epoch: u64, watermark: i64) -> Snapshot {
    Snapshot {
        watermarks: Arc::new(Watermarks::from_iter([(SOURCE, EventTime(watermark))])),
        ..snapshot(Epoch(epoch))
    }
}

fn key(country: &str, id: i16, window: i64) -> Key {
    let window = Window {
        start: EventTime(window * SIZE),
        end: EventTime((window + 1) * SIZE),
    };
    Windowed {
        key: (country.into(), id),
        window,
    }
}

fn any_key() -> impl Strategy<Value = Key> {
    (select(vec!["", "A", "AB", "B"]), -1i16..2, 0i64..4)
        .prop_map(|(country, id, window)| key(country, id, window))
}

/// Per epoch: how far the number rises, how far the watermark does, and the rows set or removed.
type Steps = Vec<(u64, i64, BTreeMap<Key, Option<Row>>)>;

fn steps() -> impl Strategy<Value = Steps> {
    let note = proptest::option::of(select(vec!["", "x", "y"]).prop_map(str::to_owned));
    let change = proptest::option::weighted(0.7, (0i64..3, note));
    vec((1u64..4, 0i64..8, btree_map(any_key(), change, 0..12)), 1..12)
}

/// The view, the writers, and the rows of every epoch.
struct Bench {
    views: Arc<Views>,
    view: Arc<View>,
    writers: Vec<ViewWriter<Key, Row>>,
    models: Vec<(Snapshot, Rows)>,
    hashes: BTreeMap<Epoch, u64>,
}

impl Bench {
    fn new(spec: ViewSpec) -> Self {
        let views = Views::new(PEERS);
        let view = views.define::<Key, Row>(spec).unwrap();
        let writers = (0..PEERS).map(|worker| view.writer(worker)).collect();
        Self {
            views,
            view,
            writers,
            models: Vec::new(),
            hashes: BTreeMap::new(),
        }
    }

    /// Applies an epoch to all shards, in two calls, and to the model.
    fn apply(&mut self, rise: u64, watermark: i64, changes: BTreeMap<Key, Option<Row>>) {
        let (last, mut rows) = self.models.last().cloned().unwrap_or((at(0, 0), Rows::new()));
        let watermark = last.watermark(&[SOURCE]).micros() + watermark;
        let snapshot = at(last.epoch.0 + rise, watermark);
        let mut calls: Vec<[Vec<Change<Key, Row>>; 2]> = (0..PEERS).map(|_| Default::default()).collect();
        let mut hash = 0u64;
        for (i, (key, new)) in changes.into_iter().enumerate() {
            let old = rows.get(&key).map(|(_, row)| row.clone());
            if old == new {
                continue;
            }
            match &new {
                Some(row) => rows.insert(key.clone(), (snapshot.epoch, row.clone())),
                None => rows.remove(&key),
            };
            let change = Change { key, old, new };
            hash = hash.wrapping_add(self.hash(&change));
            calls[owner(route(&change.key), PEERS)][i % 2].push(change);
        }
        for (writer, calls) in self.writers.iter_mut().zip(calls) {
            for mut call in calls {
                writer.apply(snapshot.epoch, &mut call).unwrap();
                assert!(call.is_empty());
            }
        }
        self.hashes.insert(snapshot.epoch, hash);
        self.models.push((snapshot, rows));
    }

    fn hash(&self, change: &Change<Key, Row>) -> u64 {
        let (schema, mut bytes) = (self.view.schema(), Vec::new());
        schema.encode_key(&change.key, &mut bytes).unwrap();
        let key_len = bytes.len();
        if let Some(row) = &change.new {
            schema.encode_value(row, &mut bytes).unwrap();
        }
        end_change(&mut bytes, key_len, change.new.is_some());
        change_hash(&bytes)
    }

    /// The snapshots that can be read still.
    fn kept(&self) -> Vec<(Arc<Snapshot>, &Rows)> {
        let kept = self.models.iter().filter_map(|(model, rows)| {
            let snapshot = self.views.snapshot(AsOf::Epoch(model.epoch)).ok()?;
            (snapshot.epoch == model.epoch && snapshot.epoch >= self.view.oldest())
                .then_some((snapshot, rows))
        });
        kept.collect()
    }
}

/// Which of the errors it is.
fn kind(error: ReadError) -> String {
    let text = format!("{error:?}");
    let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    text[..end].to_owned()
}

fn spec(windows: WindowLayout) -> ViewSpec {
    ViewSpec {
        key: vec!["country".into(), "id".into()],
        value: vec!["n".into(), "note".into()],
        sources: vec![SOURCE],
        windows: Some(windows),
        hashed: true,
        ..ViewSpec::new("spend")
    }
}

fn aligned() -> WindowLayout {
    let [size, every] = [Duration::from_micros(SIZE as u64); 2];
    WindowLayout::Aligned {
        size,
        every,
        offset: Duration::ZERO,
    }
}

/// A field's value by hand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Null,
    Number(i64),
    Time(EventTime),
    Text(String),
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Number(number) => json!(number),
            Cell::Time(time) => json!(time.to_string()),
            Cell::Text(text) => json!(text),
        }
    }
}

fn cells(key: &Key, row: &Row) -> [Cell; 6] {
    [
        Cell::Text(key.key.0.clone()),
        Cell::Number(key.key.1.into()),
        Cell::Time(key.window.start),
        Cell::Time(key.window.end),
        Cell::Number(row.0),
        row.1.clone().map_or(Cell::Null, Cell::Text),
    ]
}

fn json_of(cells: &[Cell]) -> Value {
    Value::Object(
        FIELDS
            .iter()
            .zip(cells)
            .map(|(name, cell)| (name.to_string(), cell.json()))
            .collect(),
    )
}

fn json_row(view: &dyn Serve, row: &FoundRow) -> Value {
    let mut out = Vec::new();
    view.schema().write_row(&row.row, Numbers::Exact, &mut out);
    serde_json::from_slice(&out).unwrap()
}

/// A filter by field number, and what it compares with.
fn any_filter() -> impl Strategy<Value = (usize, Op, Cell)> {
    let op = select(vec![Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge]);
    let key_op = select(vec![
        Op::Eq,
        Op::Eq,
        Op::Ge,
        Op::Lt,
        Op::Le,
        Op::Gt,
        Op::Ne,
        Op::Prefix,
    ]);
    let text = |texts: &[&str]| {
        select(
            texts
                .iter()
                .map(|text| Cell::Text(text.to_string()))
                .collect::<Vec<_>>(),
        )
    };
    prop_oneof![
        4 => (Just(0), key_op.clone(), text(&["", "A", "AB", "B", "C"])),
        3 => (Just(1), op.clone(), (-2i64..3).prop_map(Cell::Number)),
        2 => (2usize..4, op.clone(), (0i64..5).prop_map(|window| Cell::Time(EventTime(window * SIZE)))),
        1 => (Just(4), op.clone(), (0i64..3).prop_map(Cell::Number)),
        1 => (Just(5), key_op, text(&["", "x", "z"])),
    ]
}

#[derive(Clone, Debug)]
struct Ask {
    filters: Vec<(usize, Op, Cell)>,
    order: Vec<(usize, bool)>,
    limit: usize,
    window: Option<WindowPick>,
    as_json: bool,
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let window = select(vec![
        None,
        None,
        Some(WindowPick::Open),
        Some(WindowPick::LastClosed),
        Some(WindowPick::Start(EventTime(SIZE))),
    ]);
    // Orders that follow the key's are as likely as others.
    let by_key = (0usize..5, 0usize..5, any::<bool>()).prop_map(|(skip, take, descending)| {
        (0..4).skip(skip).take(take).map(|at| (at, descending)).collect()
    });
    let order = prop_oneof![by_key, vec((0usize..6, any::<bool>()), 0..3)];
    (vec(any_filter(), 0..4), order, 1usize..6, window, any::<bool>()).prop_map(
        |(filters, order, limit, window, as_json)| Ask {
            filters,
            order,
            limit,
            window,
            as_json,
        },
    )
}

impl Ask {
    fn query(&self) -> RowsQuery {
        let given = |cell: &Cell| match (cell, self.as_json) {
            (_, true) => GivenValue::from(cell.json()),
            (Cell::Null, _) => GivenValue::from("null"),
            (Cell::Number(number), _) => GivenValue::from(number.to_string()),
            (Cell::Time(time), _) => GivenValue::from(time.to_string()),
            (Cell::Text(text), _) => GivenValue::from(text.as_str()),
        };
        let filter = |(field, op, cell): &(usize, Op, Cell)| Filter {
            field: FIELDS[*field].into(),
            op: *op,
            value: given(cell),
        };
        let by = |(field, descending): &(usize, bool)| OrderBy {
            field: FIELDS[*field].into(),
            descending: *descending,
        };
        RowsQuery {
            filters: self.filters.iter().map(filter).collect(),
            order: self.order.iter().map(by).collect(),
            limit: self.limit,
            window: self.window,
            ..RowsQuery::default()
        }
    }

    fn matches(&self, cells: &[Cell]) -> bool {
        self.filters.iter().all(|(field, op, with)| {
            let cell = &cells[*field];
            match op {
                Op::Eq => cell == with,
                Op::Ne => cell != with,
                Op::Lt => cell < with,
                Op::Le => cell <= with,
                Op::Gt => cell > with,
                Op::Ge => cell >= with,
                Op::Prefix => match (cell, with) {
                    (Cell::Text(text), Cell::Text(prefix)) => text.starts_with(prefix.as_str()),
                    _ => false,
                },
            }
        })
    }

    /// The whole answer: rows with their version, in order.
    fn answer(&self, rows: &Rows, watermark: i64, per_key: bool) -> Vec<(Epoch, Key, [Cell; 6])> {
        let closed = |key: &Key| key.window.end.micros() <= watermark;
        let last = watermark.div_euclid(SIZE) * SIZE;
        let picked = |key: &Key| match self.window {
            None => true,
            Some(WindowPick::Open) => !closed(key),
            Some(WindowPick::Start(start)) => key.window.start == start,
            Some(WindowPick::LastClosed) if !per_key => key.window.end.micros() == last,
            Some(WindowPick::LastClosed) => {
                let newer = |other: &&Key| other.key == key.key && other.window > key.window && closed(other);
                closed(key) && !rows.keys().any(|other| newer(&other))
            }
        };
        let rows = rows.iter().filter(|(key, _)| picked(key));
        let rows = rows.map(|(key, (version, row))| (*version, key.clone(), cells(key, row)));
        let mut rows: Vec<_> = rows.filter(|(_, _, cells)| self.matches(cells)).collect();
        let ties = self.order.last().is_some_and(|(_, descending)| *descending);
        rows.sort_by(|(_, key_a, a), (_, key_b, b)| {
            let by_fields = self.order.iter().map(|(at, descending)| match descending {
                false => a[*at].cmp(&b[*at]),
                true => b[*at].cmp(&a[*at]),
            });
            let by_key = if ties { key_b.cmp(key_a) } else { key_a.cmp(key_b) };
            by_fields
                .chain([by_key])
                .find(|ordering| ordering.is_ne())
                .unwrap_or(by_key)
        });
        rows
    }
}

/// All pages of an answer, one after the other.
fn read_all(view: &dyn Serve, mut query: RowsQuery, at: &Snapshot) -> Vec<FoundRow> {
    let mut rows = Vec::new();
    loop {
        let page = view.rows(&query, at).unwrap();
        assert!(page.rows.len() <= query.limit);
        rows.extend(page.rows);
        match page.next {
            None => return rows,
            Some(next) => {
                assert_eq!(rows.len() % query.limit, 0, "pages are full but for the last");
                assert_eq!(cursor_epoch(&next), Ok(at.epoch));
                query.cursor = Some(next);
            }
        }
    }
}

fn check_rows(view: &dyn Serve, ask: &Ask, at: &Snapshot, model: &Rows, per_key: bool) {
    let watermark = at.watermark(&[SOURCE]).micros();
    let found = read_all(view, ask.query(), at);
    let found: Vec<_> = found
        .iter()
        .map(|row| (row.version, json_row(view, row), row.closed == Some(true)))
        .collect();
    let expected = ask.answer(model, watermark, per_key).into_iter();
    let expected: Vec<_> = expected
        .map(|(version, key, cells)| (version, json_of(&cells), key.window.end.micros() <= watermark))
        .collect();
    assert_eq!(found, expected, "{ask:?} at {}", at.epoch);
}

fn check_row(view: &dyn Serve, key: &Key, at: &Snapshot, model: &Rows) {
    let expected = |key: &Key| {
        model
            .get(key)
            .map(|(version, row)| (*version, json_of(&cells(key, row))))
    };
    let mut query = RowQuery {
        key: vec![
            ("id".into(), json!(key.key.1).into()),
            ("country".into(), GivenValue::from(key.key.0.as_str())),
            (
                "window_start".into(),
                GivenValue::from(key.window.start.to_string()),
            ),
        ],
        window: None,
    };
    let found = |query: &RowQuery| {
        let found = view.row(query, at).unwrap();
        found.map(|found| (found.version, json_row(view, &found)))
    };
    assert_eq!(found(&query), expected(key), "by window_start");
    query
        .key
        .push(("window_end".into(), GivenValue::from(key.window.end.to_string())));
    assert_eq!(found(&query), expected(key), "by the whole key");
    query.key.truncate(2);
    query.window = Some(WindowPick::Start(key.window.start));
    assert_eq!(found(&query), expected(key), "by window=start");

    let watermark = at.watermark(&[SOURCE]).micros();
    let mut own = model.keys().filter(|other| other.key == key.key).rev();
    query.window = Some(WindowPick::Open);
    let open = own.clone().find(|key| key.window.end.micros() > watermark);
    assert_eq!(found(&query), open.and_then(expected), "open");
    query.window = Some(WindowPick::LastClosed);
    let closed = match view.spec().windows {
        Some(WindowLayout::Aligned { .. }) => {
            own.find(|key| key.window.end.micros() == watermark.div_euclid(SIZE) * SIZE)
        }
        _ => own.find(|key| key.window.end.micros() <= watermark),
    };
    assert_eq!(found(&query), closed.and_then(expected), "last closed");
}

/// What a follower holds after the changes must be what a reader reads.
fn check_changes(view: &dyn Serve, ask: &Ask, from: (&Snapshot, &Rows), to: (&Snapshot, &Rows)) {
    let ask = Ask {
        window: ask.window.filter(|pick| matches!(pick, WindowPick::Start(_))),
        ..ask.clone()
    };
    let rows = |(at, rows): (&Snapshot, &Rows)| {
        let answer = ask.answer(rows, at.watermark(&[SOURCE]).micros(), true);
        answer
            .into_iter()
            .map(|(_, _, cells)| (json_of(&cells[..4]), json_of(&cells)))
            .collect::<Vec<_>>()
    };
    let by_key = |rows: Vec<(Value, Value)>| -> BTreeMap<String, Value> {
        rows.into_iter()
            .map(|(key, row)| (key.to_string(), row))
            .collect()
    };
    let mut followed = by_key(rows(from));
    for change in view.changes(&ask.query(), from.0, to.0).unwrap() {
        let key = |row: &[crate::schema::datum::Datum]| {
            let mut out = Vec::new();
            view.schema().write_key(row, Numbers::Exact, &mut out);
            serde_json::from_slice::<Value>(&out).unwrap().to_string()
        };
        match change {
            RowChange::Upsert(found) => {
                assert!(found.version > from.0.epoch && found.version <= to.0.epoch);
                followed.insert(key(&found.row), json_row(view, &found));
            }
            RowChange::Delete(row) => {
                assert!(followed.remove(&key(&row)).is_some(), "a row the follower has")
            }
        }
    }
    assert_eq!(followed, by_key(rows(to)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Everything kept reads as the model says; and what must be kept is kept.
    #[test]
    fn every_kept_epoch_reads_as_the_model(
        steps in steps(),
        asks in vec(any_ask(), 6),
        keys in vec(any_key(), 4),
        (history, superseded_max, lag) in (0u64..30, select(vec![0usize, 3, 1_000_000]), 0usize..3),
        per_key in any::<bool>(),
    ) {
        let windows = if per_key { WindowLayout::PerKey } else { aligned() };
        let history = Duration::from_micros(history);
        let mut bench = Bench::new(ViewSpec { history, superseded_max, ..spec(windows) });
        let view = bench.view.clone();
        let count = steps.len();
        for (i, (rise, watermark, changes)) in steps.into_iter().enumerate() {
            bench.apply(rise, watermark, changes);
            // Epochs close some steps after they were applied.
            let until = if i + 1 == count { count } else { (i + 1).saturating_sub(lag) };
            let closing = i.saturating_sub(lag)..until;
            for closed in closing {
                bench.views.close(bench.models[closed].0.clone());
                let newest = bench.views.closed().unwrap().epoch;
                let kept = bench.kept();
                prop_assert!(kept.iter().any(|(snapshot, _)| snapshot.epoch == newest));
                if superseded_max == 1_000_000 {
                    let due = |epoch: Epoch| epoch <= newest && epoch.0 + history.as_micros() as u64 >= newest.0;
                    let due = bench.models.iter().filter(|(snapshot, _)| due(snapshot.epoch)).count();
                    prop_assert!(kept.len() >= due, "{} kept of {due}", kept.len());
                }
                for (snapshot, model) in &kept {
                    asks.iter().for_each(|ask| check_rows(&*view, ask, snapshot, model, per_key));
                    keys.iter().for_each(|key| check_row(&*view, key, snapshot, model));
                    prop_assert_eq!(view.hash(snapshot.epoch), bench.hashes.get(&snapshot.epoch).copied());
                    let changed = model.values().map(|(version, _)| *version).max().unwrap_or_default();
                    prop_assert!(view.changed(snapshot) >= changed && view.changed(snapshot) <= snapshot.epoch);
                }
                for (i, (from, before)) in kept.iter().enumerate() {
                    let (to, after) = &kept[(i + closed) % kept.len()];
                    if from.epoch <= to.epoch {
                        asks.iter().take(2).for_each(|ask| check_changes(&*view, ask, (from, before), (to, after)));
                    }
                }
            }
        }
    }

    /// Without history, after some quiet epochs, nothing is left but the rows themselves.
    #[test]
    fn superseded_versions_go(steps in steps()) {
        let mut bench = Bench::new(ViewSpec { history: Duration::ZERO, ..spec(aligned()) });
        for (rise, watermark, changes) in steps {
            bench.apply(rise, watermark, changes);
            bench.views.close(bench.models.last().unwrap().0.clone());
        }
        bench.writers.iter_mut().for_each(|writer| writer.prune(usize::MAX));
        let rows = bench.models.last().unwrap().1.len();
        let (kept, older) = bench.view.stored();
        prop_assert_eq!((kept, older), (rows, 0));
        prop_assert_eq!(bench.view.rows_len(), rows);
    }
}

#[test]
fn a_held_moment_stays_readable_until_twice_the_bound() {
    let spec = ViewSpec {
        history: Duration::ZERO,
        superseded_max: 30,
        ..spec(aligned())
    };
    let mut bench = Bench::new(spec);
    let all = |n: i64| {
        (0..6)
            .map(|id| (key("A", id, 0), Some((n, None))))
            .collect::<BTreeMap<_, _>>()
    };
    let close = |bench: &mut Bench, n: i64| {
        bench.apply(1, 0, all(n));
        bench.views.close(bench.models.last().unwrap().0.clone());
    };
    close(&mut bench, 0);
    let held = bench.views.closed().unwrap();
    let view = bench.view.clone();
    let read = |at: &Snapshot| view.rows(&RowsQuery::default(), at).map(|page| page.rows.len());
    for n in 1..6 {
        close(&mut bench, n);
        assert_eq!(read(&held), Ok(6));
    }
    let outcome = (6..60).find_map(|n| {
        close(&mut bench, n);
        read(&held).err()
    });
    assert!(matches!(outcome, Some(ReadError::Gone { oldest }) if oldest > held.epoch));
    drop(held);
    close(&mut bench, 60);
    let newest = bench.views.closed().unwrap();
    assert_eq!(read(&newest), Ok(6));
    assert!(
        bench.views.snapshot(AsOf::Epoch(Epoch(1))).is_err(),
        "moments nobody can read are dropped"
    );
}

/// In every epoch all rows get the epoch's number, and a third of them are gone. Readers must never see two
/// epochs.
fn readers_beside_a_writer(history: Duration, superseded_max: usize, gone_allowed: bool) {
    const ROWS: i16 = 90;
    const EPOCHS: u64 = 1_500;
    let mut bench = Bench::new(ViewSpec {
        history,
        superseded_max,
        ..spec(aligned())
    });
    let (views, view) = (bench.views.clone(), bench.view.clone());
    let there = |id: i16, epoch: u64| !(id as u64 + epoch).is_multiple_of(3);
    let done = std::sync::atomic::AtomicBool::new(false);
    let check = |at: &Snapshot| -> bool {
        let query = RowsQuery {
            limit: 1_000,
            ..RowsQuery::default()
        };
        let rows = match view.rows(&query, at) {
            Ok(page) => page.rows,
            Err(ReadError::Gone { .. }) if gone_allowed => return false,
            Err(error) => panic!("{error}"),
        };
        let ids = rows
            .iter()
            .map(|found| (json_row(&*view, found)["id"].as_i64(), found.version));
        let expected = (0..ROWS).filter(|id| there(*id, at.epoch.0));
        assert!(
            ids.eq(expected.map(|id| (Some(i64::from(id)), at.epoch))),
            "not one epoch: {}",
            at.epoch
        );
        true
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2u64)
            .map(|reader| {
                let (views, check, done) = (&views, &check, &done);
                scope.spawn(move || {
                    let mut read = 0;
                    while !done.load(std::sync::atomic::Ordering::Relaxed) {
                        let Some(newest) = views.closed() else { continue };
                        let back = AsOf::Epoch(Epoch(newest.epoch.0.saturating_sub(reader * 5)));
                        drop(newest);
                        if let Ok(snapshot) = views.snapshot(back) {
                            read += u64::from(check(&snapshot));
                        }
                    }
                    read
                })
            })
            .collect();
        for epoch in 1..=EPOCHS {
            for (worker, writer) in bench.writers.iter_mut().enumerate() {
                let ids = (0..ROWS).filter(|id| owner(route(&key("A", *id, 0)), PEERS) == worker);
                let change = |id| {
                    let row = |epoch: u64| there(id, epoch).then_some((epoch as i64, None));
                    Change {
                        key: key("A", id, 0),
                        old: row(epoch - 1).filter(|_| epoch > 1),
                        new: row(epoch),
                    }
                };
                writer
                    .apply(Epoch(epoch), &mut ids.map(change).collect())
                    .unwrap();
            }
            views.close(at(epoch, 0));
        }
        // The last epoch at least is read by all.
        check(&views.closed().unwrap());
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let read: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(read > 0);
    });
}

#[test]
fn readers_see_one_epoch_whatever_is_written() {
    readers_beside_a_writer(Duration::from_micros(50), 1_000_000, true);
}

#[test]
fn readers_see_one_epoch_or_none_when_history_is_given_up() {
    readers_beside_a_writer(Duration::ZERO, 60, true);
}

#[test]
fn an_epoch_within_the_history_is_never_gone_while_held() {
    readers_beside_a_writer(Duration::from_secs(1), 10_000_000, false);
}

#[test]
fn errors_say_what_is_wrong() {
    let mut bench = Bench::new(spec(aligned()));
    bench.apply(1, 25, BTreeMap::from([(key("A", 1, 1), Some((5, None)))]));
    assert_eq!(
        bench.views.snapshot(AsOf::Time(EventTime(0))).err(),
        Some(ReadError::NotYet)
    );
    bench.views.close(bench.models[0].0.clone());
    let (view, now) = (bench.view.clone(), bench.views.closed().unwrap());
    let row = |key: &[(&str, &str)], window| {
        let key = key
            .iter()
            .map(|(name, value)| (name.to_string(), GivenValue::from(*value)))
            .collect();
        view.row(&RowQuery { key, window }, &now)
            .map(|found| found.map(|found| found.version))
    };
    let closed = Some(WindowPick::LastClosed);
    assert_eq!(row(&[("country", "A"), ("id", "1")], closed), Ok(Some(Epoch(1))));
    assert_eq!(row(&[("country", "B"), ("id", "1")], closed), Ok(None));
    assert_eq!(
        row(&[("country", "A")], closed),
        Err(ReadError::KeyMissing { field: "id".into() })
    );
    assert_eq!(
        row(&[("country", "A"), ("id", "1")], None),
        Err(ReadError::KeyMissing {
            field: "window_start".into()
        })
    );
    assert_eq!(
        row(&[("id", "1"), ("id", "2")], closed),
        Err(ReadError::KeyTwice { field: "id".into() })
    );
    let error = row(&[("contry", "A")], closed).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no field is named `contry`; `country` is the nearest"
    );
    let error = row(&[("id", "40000")], closed).unwrap_err();
    assert_eq!(error.to_string(), "field `id` is of type i16, got `40000`");
    let start = ("window_start", "1970-01-01T00:00:00.00001Z");
    assert_eq!(
        row(&[("country", "A"), ("id", "1"), start], closed).map_err(kind),
        Err("Window".to_owned())
    );
    assert_eq!(
        row(&[("country", "A"), ("id", "1"), start], None),
        Ok(Some(Epoch(1)))
    );

    let filter = |field: &str, op| Filter {
        field: field.into(),
        op,
        value: "1".into(),
    };
    let rows = |query: RowsQuery| view.rows(&query, &now).map(|page| page.rows.len()).map_err(kind);
    let base = RowsQuery::default;
    assert_eq!(
        rows(RowsQuery {
            filters: vec![filter("n", Op::Prefix)],
            ..base()
        }),
        Err("Filter".to_owned())
    );
    assert_eq!(
        rows(RowsQuery {
            cursor: Some("!".into()),
            ..base()
        }),
        Err("Cursor".to_owned())
    );
    let order = vec![OrderBy {
        field: "n".into(),
        descending: false,
    }];
    assert_eq!(
        rows(RowsQuery {
            order,
            scanned_max: 0,
            ..base()
        }),
        Err("TooMuch".to_owned())
    );
    assert_eq!(
        rows(RowsQuery {
            filters: vec![filter("n", Op::Eq)],
            scanned_max: 1,
            ..base()
        }),
        Ok(0),
        "in the order of keys a page is cut short, and never refused"
    );
    let open = RowsQuery {
        window: Some(WindowPick::Open),
        ..base()
    };
    assert!(view.changes(&open, &now, &now).is_err());
}

#[test]
fn a_cursor_serves_its_own_query_and_epoch_alone() {
    let mut bench = Bench::new(spec(aligned()));
    for n in 0..2 {
        bench.apply(
            1,
            0,
            (0..6).map(|id| (key("A", id, 0), Some((n, None)))).collect(),
        );
        bench.views.close(bench.models[n as usize].0.clone());
    }
    let view = bench.view.clone();
    let [first, second] = [1, 2].map(|epoch| bench.views.snapshot(AsOf::Epoch(Epoch(epoch))).unwrap());
    let mut query = RowsQuery {
        limit: 2,
        ..RowsQuery::default()
    };
    query.cursor = view.rows(&query, &first).unwrap().next;
    assert!(view.rows(&query, &first).is_ok());
    assert_eq!(view.rows(&query, &second).map_err(kind).unwrap_err(), "Cursor");
    query.order = vec![OrderBy {
        field: "n".into(),
        descending: false,
    }];
    assert_eq!(view.rows(&query, &first).map_err(kind).unwrap_err(), "Cursor");
}

#[test]
fn each_keys_last_closed_window_is_picked_before_filters_on_windows() {
    let mut bench = Bench::new(spec(WindowLayout::PerKey));
    bench.apply(
        1,
        25,
        (0..3)
            .map(|window| (key("A", 1, window), Some((window, None))))
            .collect(),
    );
    bench.views.close(bench.models[0].0.clone());
    let now = bench.views.closed().unwrap();
    let filter = |field: &str, op, value: &str| Filter {
        field: field.into(),
        op,
        value: value.into(),
    };
    let mut query = RowsQuery {
        filters: vec![filter("country", Op::Eq, "A"), filter("id", Op::Eq, "1")],
        window: Some(WindowPick::LastClosed),
        ..RowsQuery::default()
    };
    assert_eq!(bench.view.rows(&query, &now).unwrap().rows.len(), 1);
    // The newest closed one starts at 10: nothing is before it, rather than the one at 0.
    query
        .filters
        .push(filter("window_start", Op::Lt, "1970-01-01T00:00:00.00001Z"));
    assert_eq!(bench.view.rows(&query, &now).unwrap().rows, []);
}

#[test]
fn rows_of_other_processes_are_not_left_out() {
    let views = Views::new(2);
    let view = views.define::<u32, u32>(ViewSpec::new("v")).unwrap();
    let mut writer = view.writer::<u32, u32>(0);
    let row = Change {
        key: 7,
        old: None,
        new: Some(1),
    };
    writer.apply(Epoch(1), &mut vec![row]).unwrap();
    views.close(snapshot(Epoch(1)));
    let now = views.closed().unwrap();
    let row = |key: u32| {
        let key = vec![("key".into(), json!(key).into())];
        let found = view.row(&RowQuery { key, window: None }, &now);
        found.map(|found| found.is_some())
    };
    assert_eq!(row(7), Ok(true));
    assert_eq!(row(8), Err(ReadError::Elsewhere), "it may be the other process's");
    let rows = view.rows(&RowsQuery::default(), &now);
    assert_eq!(rows, Err(ReadError::Elsewhere), "never a part for the whole");
    assert_eq!(view.shards(), [0]);
}

#[test]
fn a_view_is_defined_once_and_alike() {
    let views = Views::new(1);
    let first = views.define::<u32, u32>(ViewSpec::new("v")).unwrap();
    let again = views.define::<u32, u32>(ViewSpec::new("v")).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert!(views.define::<u32, u64>(ViewSpec::new("v")).is_err());
    assert!(
        views
            .define::<u32, u32>(ViewSpec {
                hashed: true,
                ..ViewSpec::new("v")
            })
            .is_err()
    );
    assert_eq!(views.names(), ["v"]);
    assert!(views.get("w").is_none());
}

#[tokio::test]
async fn waiting_ends_with_the_first_moment_that_is_enough() {
    let views = Views::new(1);
    let waiting = views.wait(|snapshot| snapshot.epoch >= Epoch(2));
    let closing = async {
        views.close(snapshot(Epoch(1)));
        tokio::task::yield_now().await;
        views.close(snapshot(Epoch(3)));
        views.close(snapshot(Epoch(2)));
    };
    let (snapshot, ()) = tokio::join!(waiting, closing);
    assert_eq!(snapshot.epoch, Epoch(3));
    assert_eq!(
        views.closed().map(|snapshot| snapshot.epoch),
        Some(Epoch(3)),
        "never back"
    );
}

#[test]
fn acknowledged_offsets_are_inclusive() {
    let id = crate::position::PartitionId {
        source: SOURCE,
        partition: 3,
    };
    let snapshot = Snapshot {
        positions: Arc::new([(id, 10)]),
        ..snapshot(Epoch(1))
    };
    assert!(snapshot.reached(&[(id, 9)]));
    assert!(!snapshot.reached(&[(id, 10)]));
    assert!(!snapshot.reached(&[(crate::position::PartitionId { partition: 4, ..id }, 0)]));
}

/// Keys that leave fields out are rows as all others.
#[test]
fn pages_of_keys_that_leave_out_what_is_null_lead_on() {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    struct Place {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        city: Option<u8>,
        id: u8,
    }
    let views = Views::new(1);
    let view = views.define::<Place, u8>(ViewSpec::new("places")).unwrap();
    let place = |(city, id)| Change {
        key: Place { city, id },
        old: None,
        new: Some(id),
    };
    let mut writer = view.writer::<Place, u8>(0);
    let places = [(None, 1), (None, 2), (Some(1), 3), (Some(1), 4)];
    writer
        .apply(Epoch(1), &mut places.into_iter().map(place).collect())
        .unwrap();
    views.close(at(1, 0));
    let now = views.closed().unwrap();
    for descending in [false, true] {
        let by = OrderBy {
            field: "id".into(),
            descending,
        };
        let mut query = RowsQuery {
            limit: 1,
            order: vec![by],
            ..RowsQuery::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = view.rows(&query, &now).unwrap();
            ids.extend(page.rows.iter().map(|row| json_row(&*view, row)["id"].clone()));
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        let mut expected = vec![json!(1), json!(2), json!(3), json!(4)];
        if descending {
            expected.reverse();
        }
        assert_eq!(ids, expected);
    }
}

/// Keys with floats in all their forms: found by the form in which they are shown, whatever bounds the walk.
#[test]
fn floats_of_many_forms_are_found_as_they_are_shown() {
    /// A float whose bits are told apart.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Raw(f64);
    impl Ord for Raw {
        fn cmp(&self, other: &Self) -> std::cmp::Ordering {
            self.0.total_cmp(&other.0)
        }
    }
    impl PartialOrd for Raw {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl PartialEq for Raw {
        fn eq(&self, other: &Self) -> bool {
            self.cmp(other).is_eq()
        }
    }
    impl Eq for Raw {}
    impl std::hash::Hash for Raw {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.to_bits().hash(state);
        }
    }
    let views = Views::new(1);
    let view = views.define::<(Raw, u8), u8>(ViewSpec::new("prices")).unwrap();
    let floats = [
        0.0,
        -0.0,
        1.5,
        -1.5,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        -f64::NAN,
    ];
    let upsert = |float| Change {
        key: (Raw(float), 1),
        old: None,
        new: Some(0),
    };
    let mut writer = view.writer::<(Raw, u8), u8>(0);
    writer
        .apply(Epoch(1), &mut floats.into_iter().map(upsert).collect())
        .unwrap();
    views.close(at(1, 0));
    let now = views.closed().unwrap();
    let count = |op: &str, value: &str| {
        let query = RowsQuery {
            filters: vec![Filter {
                field: "key_0".into(),
                op: Op::by_name(op).unwrap(),
                value: value.into(),
            }],
            ..RowsQuery::default()
        };
        view.rows(&query, &now).unwrap().rows.len()
    };
    let by_op = |value: &str| ["eq", "ne", "lt", "le", "gt", "ge"].map(|op| count(op, value));
    assert_eq!(by_op("0"), [2, 6, 2, 4, 4, 6]);
    assert_eq!(by_op("-0.0"), [2, 6, 2, 4, 4, 6]);
    assert_eq!(by_op("1.5"), [1, 7, 4, 5, 3, 4]);
    assert_eq!(by_op("Infinity"), [1, 7, 5, 6, 2, 3]);
    assert_eq!(by_op("-Infinity"), [1, 7, 0, 1, 7, 8]);
    assert_eq!(by_op("NaN"), [2, 6, 6, 8, 0, 2]);
}

#[test]
fn floats_of_one_form_are_found_as_they_are_shown() {
    let views = Views::new(1);
    let view = views.define::<(u8, F64), u8>(ViewSpec::new("prices")).unwrap();
    let read = |json: &str| serde_json::from_str::<F64>(json).unwrap();
    let mut writer = view.writer::<(u8, F64), u8>(0);
    let keys = [
        (1, read("-0.0")),
        (1, read("-1.5")),
        (1, F64::new(-f64::NAN)),
        (2, read("0")),
        (2, F64::new(f64::NEG_INFINITY)),
    ];
    let upsert = |key| Change {
        key,
        old: None,
        new: Some(0),
    };
    writer
        .apply(Epoch(1), &mut keys.into_iter().map(upsert).collect())
        .unwrap();
    views.close(at(1, 0));
    let now = views.closed().unwrap();
    let found = |op: &str, value: &str| {
        let filter = |field: &str, op: &str, value: &str| Filter {
            field: field.into(),
            op: Op::by_name(op).unwrap(),
            value: value.into(),
        };
        let query = RowsQuery {
            filters: vec![filter("key_0", "eq", "1"), filter("key_1", op, value)],
            ..RowsQuery::default()
        };
        let rows = view.rows(&query, &now).unwrap().rows;
        let shown = rows.iter().map(|row| {
            let mut json = Vec::new();
            view.schema().write_row(&row.row, Numbers::default(), &mut json);
            serde_json::from_slice::<serde_json::Value>(&json).unwrap()["key_1"].to_string()
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found("lt", "0"), "-1.5");
    assert_eq!(found("le", "-0.0"), "-1.5 0.0");
    assert_eq!(found("eq", "-0"), "0.0");
    assert_eq!(found("eq", "0.0"), "0.0");
    assert_eq!(found("gt", "-0.0"), "\"NaN\"");
    assert_eq!(found("eq", "NaN"), "\"NaN\"");
    assert_eq!(found("ne", "-nan"), "-1.5 0.0");
    assert_eq!(found("ge", "-Infinity"), "-1.5 0.0 \"NaN\"");
}
