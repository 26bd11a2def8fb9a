//! A dataflow that was changed goes on from the checkpoint that it made before: what is new begins as it
//! should, and what can't is asked about.

use std::path::Path;
use std::sync::Arc;

use thalweg::ledger::{Claim, Ledger, LedgerStore};
use thalweg::position::EpochBinding;
use thalweg::prelude::*;
use thalweg::runtime::checkpoints::OnNewProgram;
use thalweg::source::Environment;
use thalweg::view::{AsOf, Views};
use thalweg::{Epoch, Flow, Kind};

use super::checkpoints::{EPOCHS, RECORDS, Rows, World, build, rows};

/// The newest checkpoint of [`World::begun`].
const NEWEST: u64 = 7;

/// The dataflow of before with one thing else.
fn with(more: impl Fn(Dataflow<'_>) + Send + Sync + 'static) -> Flow {
    dataflow("lucky", move |flow: Dataflow<'_>| more(flow))
}

fn numbers<'s>(flow: Dataflow<'s>) -> Stream<'s, u64> {
    let numbers = Kafka::topic("o").json::<u64>();
    let numbers = numbers.event_time(|n| EventTime(*n as i64));
    flow.source("numbers", numbers.lateness(Duration::from_micros(2)))
}

/// The steps of before, in another order, and two views that are new: one of a window, one of a join.
fn with_views(flow: Dataflow<'_>) {
    let tens = numbers(flow)
        .key_by("digit", |n| n % 7)
        .window("tens", Tumbling::of(Duration::from_micros(30)))
        .keep(Duration::from_micros(60))
        .aggregate(|a| (a.count(), a.max(|n| *n)));
    let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
    names.view_with("names_view", |view| view.fields(["name"]));
    tens.view_with("tens_again", |view| view.fields(["n", "greatest"]));
    tens.view_with("tens_view", |view| view.fields(["n", "greatest"]));
    tens.left_join("named", &names, |_, (n, _), name| (n, name.copied()))
        .view_with("named_view", |view| view.fields(["n", "name"]));
    tens.left_join("named_again", &names, |_, (_, greatest), name| {
        (greatest, name.copied())
    })
    .view_with("named_again_view", |view| view.fields(["greatest", "name"]));
}

/// The dataflow of before, and a window that is new.
fn with_window(flow: Dataflow<'_>) {
    let numbers = numbers(flow);
    let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
    let tens = numbers
        .key_by("digit", |n| n % 7)
        .window("tens", Tumbling::of(Duration::from_micros(30)))
        .keep(Duration::from_micros(60))
        .aggregate(|a| (a.count(), a.max(|n| *n)));
    tens.view_with("tens_view", |view| view.fields(["n", "greatest"]));
    tens.left_join("named", &names, |_, (n, _), name| (n, name.copied()))
        .view_with("named_view", |view| view.fields(["n", "name"]));
    names.view_with("names_view", |view| view.fields(["name"]));
    numbers
        .key_by("parity", |n| n % 2)
        .window("counts", Tumbling::of(Duration::from_micros(40)))
        .aggregate(|a| a.count())
        .view("counts_view");
}

/// The rows of a first run that went through everything, and of one that goes on; versions of rows left out.
fn unversioned(rows: Rows) -> Rows {
    let bare = |row: String| row.split_once(' ').map(|(_, row)| row.to_owned()).unwrap_or(row);
    rows.into_iter()
        .map(|(at, rows)| (at, rows.into_iter().map(bare).collect()))
        .collect()
}

fn fresh(flow: &Flow) -> Rows {
    let world = World::default();
    let disk = Arc::new(world.disk.clone());
    let service = world.start(flow, disk, 1..=EPOCHS, &[], 1).unwrap();
    unversioned(rows(&service.join().unwrap()))
}

fn of<'a>(rows: &'a Rows, view: &'a str) -> impl Iterator<Item = (&'a u64, &'a Vec<String>)> {
    rows.iter()
        .filter(move |((name, _), _)| name == view)
        .map(|((_, epoch), rows)| (epoch, rows))
}

/// Whether a row is that of a window from then on.
fn begins_at(row: &str, at: u64) -> bool {
    row.contains(&format!("Time(EventTime({at})), Time("))
}

fn refusal(world: &World, flow: &Flow) -> String {
    let disk = Arc::new(world.disk.clone());
    let error = world
        .start(flow, disk, 9..=EPOCHS, &[], 1)
        .err()
        .expect("it is refused");
    assert_eq!(error.kind(), Kind::Definition);
    error.to_string()
}

/// Lets everything go that the ledger has.
fn trim(dir: &Path) {
    let claim = Claim {
        app: Environment::default().group,
        dataflow: "lucky".into(),
        ..Claim::default()
    };
    let (mut ledger, _) = Ledger::open(dir, claim).unwrap();
    // What is written under the last claim stays.
    let own = EpochBinding {
        epoch: Epoch(9),
        now: EventTime(9),
        ranges: vec![],
        watermarks: vec![],
        idle: vec![],
        topics: vec![],
        schemas: vec![],
        results: None,
    };
    ledger.append(&[own]).unwrap();
    let trimmed = ledger.trim(Epoch(9), 1).unwrap().prepare().unwrap();
    assert!(ledger.adopt(trimmed.unwrap()).unwrap());
}

/// Goes on from a copy of the world. The views, and from which checkpoint.
fn goes_on(world: &World, flow: &Flow, on_new_plan: OnNewProgram) -> (Option<u64>, Arc<Views>) {
    let mut world = world.copy();
    world.on_new_plan = Some(on_new_plan);
    let disk = Arc::new(world.disk.clone());
    let service = world.start(flow, disk, 9..=EPOCHS, &[], 2).unwrap();
    let restored = service.restored().map(|epoch| epoch.0);
    (restored, service.join().unwrap())
}

#[test]
fn new_views_begin_with_their_rows_as_of_the_checkpoint() {
    let (world, flow) = (World::begun(), with(with_views));
    let expected = fresh(&flow);
    let (restored, views) = goes_on(&world, &flow, OnNewProgram::Refuse);
    assert_eq!(restored, Some(NEWEST));
    assert_eq!(unversioned(rows(&views)), expected);
    // Where a view has no rows of, nobody is told that there are none.
    let before = views.snapshot(AsOf::Epoch(Epoch(NEWEST - 1))).unwrap();
    let read = |name: &str| views.get(name).unwrap().rows(&Default::default(), &before);
    assert!(read("tens_view").is_ok());
    assert!(read("tens_again").is_err() && read("named_again_view").is_err());

    // From then on they are in checkpoints like others.
    for workers in 1..=3 {
        let world = world.copy();
        let disk = Arc::new(world.disk.clone());
        let service = world.start(&flow, disk.clone(), 9..=10, &[10], 2).unwrap();
        service.join().unwrap();
        let service = world.start(&flow, disk, 11..=EPOCHS, &[], workers).unwrap();
        assert_eq!(service.restored(), Some(Epoch(10)));
        assert_eq!(unversioned(rows(&service.join().unwrap())), expected);
    }
}

#[test]
fn a_new_window_counts_all_that_the_ledger_has() {
    let (world, flow) = (World::begun(), with(with_window));
    let (restored, views) = goes_on(&world, &flow, OnNewProgram::Refuse);
    assert_eq!(restored, None, "everything was gone through again");
    assert_eq!(unversioned(rows(&views)), fresh(&flow));
}

#[test]
fn a_new_window_is_asked_about_where_the_ledger_was_trimmed() {
    let dir = tempfile::tempdir().unwrap();
    let world = World {
        dir: Some(Arc::new(dir)),
        ..World::default()
    };
    let world = world.begin();
    trim(&world.dir.as_ref().unwrap().path().join("ledger"));
    let refused = refusal(&world, &with(with_window));
    for said in [
        "needs history that the ledger no longer has",
        "window counts, tumbling 40us is new",
        "checkpoint.on_new_plan=accept",
        "`ledger reset`",
    ] {
        assert!(refused.contains(said), "no `{said}` in {refused}");
    }
}

#[test]
fn a_new_window_that_is_accepted_counts_what_comes_and_the_others_go_on() {
    let (world, flow) = (World::begun(), with(with_window));
    let expected = fresh(&flow);
    let (restored, views) = goes_on(&world, &flow, OnNewProgram::Accept);
    assert_eq!(restored, Some(NEWEST));
    let found = unversioned(rows(&views));
    for view in ["tens_view", "named_view", "names_view"] {
        assert!(of(&found, view).eq(of(&expected, view)), "{view}");
    }
    // Windows of 40 begin with an epoch's first record.
    for ((epoch, found), (_, expected)) in of(&found, "counts_view").zip(of(&expected, "counts_view")) {
        let counted = |row: &&String| (NEWEST..*epoch).any(|n| begins_at(row, n * RECORDS));
        let expected: Vec<&String> = expected.iter().filter(counted).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "epoch {epoch}");
        assert!(!expected.is_empty());
    }
}

#[test]
fn another_version_is_asked_about_and_begins_anew_with_its_views() {
    let changed = with(|flow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let tens = numbers(flow)
            .key_by("digit", |n| n % 7)
            .window("tens", Tumbling::of(Duration::from_micros(30)))
            .keep(Duration::from_micros(60))
            .version(2)
            .aggregate(|a| (a.count(), a.max(|n| n + 1)));
        tens.view_with("tens_view", |view| view.fields(["n", "greatest"]));
        tens.left_join("named", &names, |_, (n, _), name| (n, name.copied()))
            .view_with("named_view", |view| view.fields(["n", "name"]));
        names.view_with("names_view", |view| view.fields(["name"]));
    });
    let world = World::begun();
    let refused = refusal(&world, &changed);
    assert!(
        refused.contains("window tens, tumbling 30us: the version was 1, is 2"),
        "{refused}"
    );
    let (restored, views) = goes_on(&world, &changed, OnNewProgram::Accept);
    assert_eq!(restored, Some(NEWEST));
    let (found, expected) = (unversioned(rows(&views)), fresh(&changed));
    assert!(of(&found, "names_view").eq(of(&expected, "names_view")));
    // What the old window counted is in no row: the first window that is whole begins at 300.
    for view in ["tens_view", "named_view"] {
        for ((epoch, found), (_, expected)) in of(&found, view).zip(of(&expected, view)) {
            let whole = |row: &&String| (10..20).any(|n| begins_at(row, n * 30));
            let whole: Vec<&String> = expected.iter().filter(whole).collect();
            assert!(
                whole.iter().all(|row| found.contains(row)),
                "{view}, epoch {epoch}"
            );
            assert!(
                found.iter().all(|row| !begins_at(row, 240)),
                "{view}, epoch {epoch}"
            );
        }
    }
}

#[test]
fn a_view_of_another_version_begins_anew_from_the_same_window() {
    let changed = with(|flow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let tens = numbers(flow)
            .key_by("digit", |n| n % 7)
            .window("tens", Tumbling::of(Duration::from_micros(30)))
            .keep(Duration::from_micros(60))
            .aggregate(|a| (a.count(), a.max(|n| *n)));
        tens.view_with("tens_view", |view| view.fields(["n", "greatest"]));
        tens.left_join("named", &names, |_, (n, _), name| (n + 1000, name.copied()))
            .view_with("named_view", |view| view.fields(["n", "name"]).version(2));
        names.view_with("names_view", |view| view.fields(["name"]));
    });
    let world = World::begun();
    let refused = refusal(&world, &changed);
    assert!(
        refused.contains("view named_view: the version was 1, is 2"),
        "{refused}"
    );
    let (restored, views) = goes_on(&world, &changed, OnNewProgram::Accept);
    assert_eq!(
        (restored, unversioned(rows(&views))),
        (Some(NEWEST), fresh(&changed))
    );
}

#[test]
fn what_is_gone_is_asked_about_and_forgotten() {
    let less = with(|flow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        names.view_with("names_view", |view| view.fields(["name"]));
        let _unread = numbers(flow);
    });
    let world = World::begun();
    let refused = refusal(&world, &less);
    for said in ["window tens, tumbling 30us is gone", "view named_view is gone"] {
        assert!(refused.contains(said), "no `{said}` in {refused}");
    }
    let (restored, views) = goes_on(&world, &less, OnNewProgram::Accept);
    assert_eq!(
        (restored, unversioned(rows(&views))),
        (Some(NEWEST), fresh(&less))
    );
    let same = dataflow("lucky", build);
    assert_eq!(goes_on(&world, &same, OnNewProgram::Refuse).0, Some(NEWEST));
}

/// Numbers by their digit, as `change` makes them of numbers and of the digits that have a name.
fn changed(change: for<'s> fn(Digits<'s>, Collection<'s, u64>) -> Digits<'s>) -> Flow {
    with(move |flow| {
        let names = flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
        let digits = numbers(flow).changes().map(|n| (n % 7, n));
        change(digits, names.rows().map(|(digit, _)| digit))
            .group_by("digit", |(digit, _)| *digit)
            .aggregate("best", |a| a.max(|(_, n)| *n))
            .view_with("best", |view| view.fields(["greatest"]));
    })
}

type Digits<'s> = Collection<'s, (u64, u64)>;

#[test]
fn an_operator_without_a_name_that_is_added_or_gone_is_asked_about_and_no_old_rows_are_served() {
    let plain = changed(|digits, _| digits);
    let world = World::default().begin_with(&plain);
    assert_eq!(goes_on(&world, &plain, OnNewProgram::Refuse).0, Some(NEWEST));
    let changes: [(&str, Flow); 6] = [
        ("semijoin(", changed(|digits, named| digits.semijoin(&named))),
        ("antijoin(", changed(|digits, named| digits.antijoin(&named))),
        (
            "join(",
            changed(|digits, named| digits.join(&named.map(|n| (n, n)), |_, n, m| (*n % 7, *m))),
        ),
        (
            "concat(",
            changed(|digits, named| digits.concat(&named.map(|n| (n, 1000)))),
        ),
        (
            "filter(",
            changed(|digits, _| digits.filter(|(digit, _)| *digit != 3)),
        ),
        (
            "group_by(loop)",
            changed(|digits, _| {
                digits.iterate("loop", |_, rows| {
                    rows.filter(|(digit, _)| *digit != 3).distinct("once")
                })
            }),
        ),
    ];
    let rows_of_plain = fresh(&plain);
    for (operator, changed) in &changes {
        let expected = fresh(changed);
        assert_ne!(expected, rows_of_plain, "{operator} makes other rows");
        let refused = refusal(&world, changed);
        for said in [
            "view best: best was group(group_by(map(changes(numbers))))",
            ", is group(",
            "=accept",
            "=keep",
        ] {
            assert!(refused.contains(said), "no `{said}` in {refused}");
        }
        assert!(refused.contains(operator), "{refused}");
        // What has state is what it was, so its rows make those of the view.
        let (restored, views) = goes_on(&world, changed, OnNewProgram::Accept);
        assert_eq!(
            (restored, unversioned(rows(&views))),
            (Some(NEWEST), expected),
            "{operator}"
        );
    }
    // The other way, too.
    let (_, semijoin) = &changes[0];
    let back = World::default().begin_with(semijoin);
    assert!(refusal(&back, &plain).contains("view best: best was group(group_by(semijoin("));
}

/// Which input comes first says nothing about which rows are kept.
#[test]
fn the_same_inputs_in_another_order_go_on() {
    fn both(turned: bool) -> Flow {
        with(move |flow| {
            flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
            let numbers = numbers(flow);
            let (even, odd) = (
                numbers.filter(|n| n % 2 == 0),
                numbers.flat_map(|n| (n % 2 == 1).then_some(n)),
            );
            let merged = match turned {
                false => even.merge(&odd),
                true => odd.merge(&even),
            };
            merged
                .key_by("digit", |n| n % 7)
                .window("tens", Tumbling::of(Duration::from_micros(30)))
                .aggregate(|a| a.count())
                .view("tens");
            let rows = match turned {
                false => even.changes().concat(&odd.changes()),
                true => odd.changes().concat(&even.changes()),
            };
            rows.group_by("digit", |n| n % 7)
                .aggregate("rows", |a| a.count())
                .view("rows");
        })
    }
    let world = World::default().begin_with(&both(false));
    let (restored, views) = goes_on(&world, &both(true), OnNewProgram::Refuse);
    assert_eq!(
        (restored, unversioned(rows(&views))),
        (Some(NEWEST), fresh(&both(false)))
    );
}

#[test]
fn what_only_takes_other_events_is_kept_where_somebody_says_so() {
    let filtered = |bound: u64| {
        with(move |flow| {
            flow.table("names", Kafka::topic("n").json::<u64>().keyed::<u64>());
            let numbers = numbers(flow);
            let numbers = if bound > 0 {
                numbers.filter(move |n| *n < bound)
            } else {
                numbers
            };
            numbers
                .key_by("digit", |n| n % 7)
                .window("tens", Tumbling::of(Duration::from_micros(30)))
                .aggregate(|a| a.count())
                .view("tens");
        })
    };
    let (plain, all) = (filtered(0), filtered(u64::MAX));
    let world = World::default().begin_with(&plain);
    let refused = refusal(&world, &all);
    let said =
        "view tens and window tens, tumbling 30us: tens was window(numbers), is window(filter(numbers))";
    assert!(refused.contains(said), "{refused}");
    let (restored, views) = goes_on(&world, &all, OnNewProgram::Keep);
    assert_eq!(
        (restored, unversioned(rows(&views))),
        (Some(NEWEST), fresh(&plain))
    );
    let (restored, views) = goes_on(&world, &all, OnNewProgram::Accept);
    assert_eq!(restored, Some(NEWEST));
    let begins_anew = |row: &String| (7..20).any(|n| begins_at(row, n * 30));
    let found = unversioned(rows(&views));
    assert!(of(&found, "tens").all(|(_, rows)| !rows.is_empty() && rows.iter().all(begins_anew)));
}
