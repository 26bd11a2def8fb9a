//! What a checkpoint knows a step by: every operator before it, with all of its inputs, and nothing that has
//! no part in it.

use std::collections::{BTreeMap, BTreeSet};

use thalweg::Flow;
use thalweg::checkpoint::keyed::{HashStore, KeyedState};
use thalweg::operator::process::{Batch, Changes, EpochInfo, Operator};
use thalweg::operator::process_events::{EventContext, EventProcessor};
use thalweg::prelude::*;
use thalweg::runtime;
use thalweg::source::Environment;

type Pair = (u64, u64);
type Pairs<'s> = Stream<'s, Pair>;

fn source<'s>(flow: Dataflow<'s>, name: &str) -> Pairs<'s> {
    let topic = Kafka::topic(name).json::<Pair>();
    flow.source(name, topic.event_time(|pair| EventTime(pair.1 as i64)))
}

/// A windowed count, with names of its own.
fn counts<'s>(pairs: &Pairs<'s>, name: &str) -> Table<'s, Windowed<u64>, u64> {
    let window = Tumbling::of(Duration::from_secs(1));
    pairs
        .key_by("key", |pair| pair.0)
        .window(name, window)
        .aggregate(|a| a.count())
}

/// A grouped count.
fn groups<'s>(rows: &Collection<'s, Pair>, name: &str) -> Table<'s, u64, u64> {
    rows.group_by("key", |pair| pair.0).aggregate(name, |a| a.count())
}

fn shown(rows: &Collection<Pair>) {
    groups(rows, "shown").view("shown");
}

type Build = for<'s> fn(Pairs<'s>, Pairs<'s>);

/// An operator over one or two inputs, ending in a view.
struct Case {
    name: &'static str,
    inputs: usize,
    build: Build,
}

const fn one(name: &'static str, build: Build) -> Case {
    Case {
        name,
        inputs: 1,
        build,
    }
}

const fn two(name: &'static str, build: Build) -> Case {
    Case {
        name,
        inputs: 2,
        build,
    }
}

fn keys<'s>(pairs: &Pairs<'s>) -> Collection<'s, u64> {
    pairs.changes().map(|pair| pair.0)
}

/// An operator of a dataflow's own: the last value of each key.
struct Newest;
impl Operator for Newest {
    type Input = (u64, Timed<(u64, u64)>);
    type Key = u64;
    type Value = u64;
    type State = HashStore<u64, u64>;

    fn data(
        &self,
        _at: &EpochInfo,
        input: Batch<Self::Input>,
        state: &mut KeyedState<Self::State>,
        changes: &mut Changes<u64, u64>,
    ) {
        for (key, event) in input {
            let new = event.value.1;
            changes.set(key, state.put(key, new), Some(new));
        }
    }

    fn rows(&self, state: &KeyedState<Self::State>, mut row: impl FnMut(u64, u64)) {
        state.entries().iter().for_each(|(key, value)| row(*key, *value));
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Each event as it is.
struct Same;

impl EventProcessor for Same {
    type Key = u64;
    type Event = (u64, u64);
    type State = ();
    type Out = (u64, u64);

    fn event(&self, event: &Timed<(u64, u64)>, context: &mut EventContext<'_, Self>) {
        context.emit(event.value);
    }
}

/// Every public operator that rows pass through, by its type.
const CASES: &[Case] = &[
    one("Stream::map", |a, _| shown(&a.map(|pair| pair).changes())),
    one("Stream::flat_map", |a, _| shown(&a.flat_map(Some).changes())),
    one("Stream::filter", |a, _| shown(&a.filter(|_| true).changes())),
    one("Stream::try_map", |a, _| {
        shown(&a.try_map("tried", |pair| Ok::<_, String>(*pair)).changes());
    }),
    two("Stream::merge", |a, b| shown(&a.merge(&b).changes())),
    one("Stream::key_by", |a, _| {
        counts(&a, "counted").view("shown");
    }),
    one("Stream::changes", |a, _| shown(&a.changes())),
    one("Stream::timely", |a, _| {
        shown(&a.timely(|events| events).changes())
    }),
    one("Stream::timely_stateless", |a, _| {
        shown(&a.timely_stateless(|events| events).changes());
    }),
    one("Keyed::window", |a, _| {
        counts(&a, "windowed").view("shown");
    }),
    one("Windows::aggregate", |a, _| {
        counts(&a, "aggregated").view("shown");
    }),
    one("Keyed::process", |a, _| {
        a.key_by("key", |pair| pair.0)
            .process("processed", Newest)
            .view("shown");
    }),
    one("Keyed::aggregate_all", |a, _| {
        let counted = a
            .key_by("key", |pair| pair.0)
            .aggregate_all("totals", |a| a.count());
        counted.view("shown");
    }),
    one("Keyed::dedup", |a, _| {
        let once = a.key_by("key", |pair| pair.0).dedup("once", SECOND);
        shown(&once.changes());
    }),
    two("Keyed::interval_join", |a, b| {
        let (a, b) = (a.key_by("key", |pair| pair.0), b.key_by("key", |pair| pair.0));
        shown(
            &a.interval_join("near", &b, Interval::around(SECOND), |_, a, _| *a)
                .changes(),
        );
    }),
    two("Keyed::left_interval_join", |a, b| {
        let (a, b) = (a.key_by("key", |pair| pair.0), b.key_by("key", |pair| pair.0));
        shown(
            &a.left_interval_join("near", &b, Interval::around(SECOND), |_, a, _| *a)
                .changes(),
        );
    }),
    two("Keyed::lookup", |a, b| {
        let table = b.key_by("key", |pair| pair.0).process("processed", Newest);
        let a = a.key_by("key", |pair| pair.0);
        shown(&a.lookup("found", &table, |_, pair, _| pair).changes());
    }),
    one("Keyed::process_events", |a, _| {
        let same = a.key_by("key", |pair| pair.0).process_events("same", Same);
        shown(&same.changes());
    }),
    one("Table::when_closed", |a, _| {
        let rows = counts(&a, "counted").when_closed("closed");
        shown(&rows.map(|(at, n)| (at.key, n)).changes());
    }),
    one("Collection::map", |a, _| shown(&a.changes().map(|pair| pair))),
    one("Collection::flat_map", |a, _| shown(&a.changes().flat_map(Some))),
    one("Collection::filter", |a, _| shown(&a.changes().filter(|_| true))),
    one("Collection::flatten", |a, _| {
        shown(&a.changes().map(Some).flatten())
    }),
    two("Collection::union", |a, b| {
        shown(&a.changes().union("all", &b.changes()))
    }),
    two("Collection::intersect", |a, b| {
        shown(&a.changes().intersect("both", &b.changes()));
    }),
    two("Collection::except", |a, b| {
        shown(&a.changes().except("rest", &b.changes()))
    }),
    one("Collection::reduce", |a, _| {
        shown(
            &a.changes()
                .reduce("reduced", |_, rows| rows.first().map(|(n, _)| **n)),
        );
    }),
    one("Collection::to_table", |a, _| {
        a.changes().to_table("table", "key").view("shown");
    }),
    one("Collection::count", |a, _| {
        a.changes().count("counts", ["a", "b"]).view("shown");
    }),
    one("Collection::view", |a, _| _ = a.changes().view("shown")),
    one("Collection::view_with", |a, _| {
        a.changes().view_with("shown", |view| view);
    }),
    one("Collection::negate", |a, _| shown(&a.changes().negate())),
    one("Collection::distinct", |a, _| {
        shown(&a.changes().distinct("once"))
    }),
    one("Collection::differential", |a, _| {
        shown(&a.changes().differential(|rows| rows))
    }),
    one("Collection::group_by", |a, _| {
        groups(&a.changes(), "grouped").view("shown");
    }),
    one("Grouped::aggregate", |a, _| {
        groups(&a.changes(), "aggregated").view("shown");
    }),
    one("Grouped::top_k", |a, _| {
        let groups = a.changes().group_by("key", |pair| pair.0);
        groups.top_k("top", 3, |pair| pair.1).view("shown");
    }),
    one("Grouped::reduce", |a, _| {
        let groups = a.changes().group_by("key", |pair| pair.0);
        groups
            .reduce("reduced", |_, rows| rows.len() as u64)
            .view("shown");
    }),
    two("Collection::concat", |a, b| {
        shown(&a.changes().concat(&b.changes()))
    }),
    two("Collection::join", |a, b| {
        shown(&a.changes().join(&b.changes(), |_, left, right| (*left, *right)));
    }),
    two("Collection::semijoin", |a, b| {
        shown(&a.changes().semijoin(&keys(&b)))
    }),
    two("Collection::antijoin", |a, b| {
        shown(&a.changes().antijoin(&keys(&b)))
    }),
    one("Collection::iterate", |a, _| {
        shown(&a.changes().iterate("loop", |_, rows| rows.filter(|_| true)));
    }),
    two("Loop::bring", |a, b| {
        let b = b.changes();
        shown(
            &a.changes()
                .iterate("loop", |inside, rows| rows.concat(&inside.bring(&b))),
        );
    }),
    one("Table::map", |a, _| {
        counts(&a, "counts").map(|_, n| n).view("shown");
    }),
    one("Table::filter", |a, _| {
        counts(&a, "counts").filter(|_, _| true).view("shown");
    }),
    one("Table::filter_map", |a, _| {
        counts(&a, "counts").filter_map(|_, n| Some(n)).view("shown");
    }),
    one("Table::flatten", |a, _| {
        counts(&a, "counts").map(|_, n| Some(n)).flatten().view("shown");
    }),
    one("Table::rekey", |a, _| {
        let counts = counts(&a, "counts");
        counts.rekey("rekeyed", "n", |_, n| *n).view("shown");
    }),
    one("Table::flat_map", |a, _| {
        let counts = counts(&a, "counts");
        counts.flat_map("lines", "n", |_, n| Some((n, n))).view("shown");
    }),
    two("Table::full_join", |a, b| {
        let (a, b) = (groups(&a.changes(), "a groups"), groups(&b.changes(), "groups"));
        a.full_join("both", &b, |_, n, m| (n, m.copied())).view("shown");
    }),
    two("Table::semijoin", |a, b| {
        let groups = groups(&b.changes(), "groups");
        counts(&a, "counts").semijoin("both", &groups).view("shown");
    }),
    two("Table::antijoin", |a, b| {
        let groups = groups(&b.changes(), "groups");
        counts(&a, "counts").antijoin("both", &groups).view("shown");
    }),
    two("Table::semijoin_on", |a, b| {
        let groups = groups(&b.changes(), "groups");
        counts(&a, "counts")
            .semijoin_on("both", &groups, |_, n| *n)
            .view("shown");
    }),
    two("Table::antijoin_on", |a, b| {
        let groups = groups(&b.changes(), "groups");
        counts(&a, "counts")
            .antijoin_on("both", &groups, |_, n| *n)
            .view("shown");
    }),
    one("Table::rows", |a, _| {
        shown(&counts(&a, "counts").rows().map(|(window, n)| (window.key, n)));
    }),
    one("Table::group_by", |a, _| {
        let counts = counts(&a, "counts");
        let groups = counts.group_by("key", |window, _| window.key);
        groups.aggregate("regrouped", |a| a.count()).view("shown");
    }),
    two("Table::join", |a, b| {
        let groups = groups(&b.changes(), "groups");
        counts(&a, "counts")
            .join("both", &groups, |_, n, _| n)
            .view("shown");
    }),
    two("Table::left_join", |a, b| {
        let groups = groups(&b.changes(), "groups");
        counts(&a, "counts")
            .left_join("both", &groups, |_, n, _| n)
            .view("shown");
    }),
    two("Table::join_on", |a, b| {
        let groups = groups(&b.changes(), "groups");
        let joined = counts(&a, "counts").join_on("both", &groups, |window, _| window.key, |_, n, _| n);
        joined.view("shown");
    }),
    two("Table::left_join_on", |a, b| {
        let groups = groups(&b.changes(), "groups");
        let joined = counts(&a, "counts").left_join_on("both", &groups, |window, _| window.key, |_, n, _| n);
        joined.view("shown");
    }),
    one("Table::view", |a, _| {
        counts(&a, "counts").view("shown");
    }),
    one("Table::view_with", |a, _| {
        counts(&a, "counts").view_with("shown", |view| view.fields(["n"]));
    }),
];

/// What changes no rows of steps behind it, or lets none pass on.
const NO_OPERATORS: &[&str] = &[
    "Collection::changes_to",
    "Stream::append_to",
    "Stream::for_each_epoch",
    "Table::changes_to",
    "Table::for_each_epoch",
    "Table::key_named",
    "Table::upsert_to",
    "Windows::keep",
    "Windows::version",
];

/// What the checkpoint of a dataflow would know its view by, or all of its states.
fn identity(build: impl Fn(Dataflow<'_>) + Send + Sync + 'static, only_view: bool) -> BTreeSet<String> {
    let flow = dataflow("identity", move |flow: Dataflow<'_>| build(flow));
    let plan = runtime::plan(&flow, &Environment::default()).expect("it has no mistakes");
    let states = plan.states.iter();
    states
        .filter(|shape| !only_view || shape.identity.to_string() == "view shown")
        .map(|shape| format!("{shape:?}"))
        .collect()
}

/// The case over inputs that `change` makes of the two sources.
fn of(case: &'static Case, change: for<'s> fn(usize, Pairs<'s>) -> Pairs<'s>) -> BTreeSet<String> {
    let found = identity(
        move |flow| {
            let (a, b) = (source(flow, "a"), source(flow, "b"));
            (case.build)(change(0, a), change(1, b));
        },
        true,
    );
    assert_eq!(found.len(), 1, "{} ends in the view", case.name);
    found
}

#[test]
fn a_change_of_any_input_of_any_operator_is_another_identity() {
    for case in CASES {
        let name = case.name;
        let as_it_is = of(case, |_, input| input);
        assert_eq!(as_it_is, of(case, |_, input| input), "{name} twice");
        let changed = [
            of(
                case,
                |n, input| if n == 0 { input.filter(|_| true) } else { input },
            ),
            of(
                case,
                |n, input| if n == 1 { input.filter(|_| true) } else { input },
            ),
        ];
        for (n, changed) in changed.iter().enumerate() {
            assert_eq!(*changed != as_it_is, n < case.inputs, "{name}, input {n}");
        }
        // Another source in the place of one.
        let other = identity(
            move |flow| {
                let (_, b, c) = (source(flow, "a"), source(flow, "b"), source(flow, "c"));
                (case.build)(c, b);
            },
            true,
        );
        assert_ne!(other, as_it_is, "{name} of another source");
    }
}

#[test]
fn no_two_operators_are_one_identity() {
    let mut known: BTreeMap<BTreeSet<String>, &str> = BTreeMap::new();
    for case in CASES {
        // Those are the ends of any chain, and differ in names alone.
        let ends = [
            "Stream::key_by",
            "Keyed::window",
            "Windows::aggregate",
            "Collection::group_by",
        ];
        let ends = [
            &ends[..],
            &[
                "Grouped::aggregate",
                "Table::view",
                "Table::view_with",
                "Collection::view_with",
            ],
        ]
        .concat();
        if !ends.contains(&case.name) {
            let timely = case.name == "Stream::timely_stateless";
            let same = known.insert(of(case, |_, input| input), case.name);
            assert_eq!(same, timely.then_some("Stream::timely"), "{}", case.name);
        }
    }
}

#[test]
fn which_of_two_inputs_comes_first_counts_where_it_makes_other_rows() {
    for case in CASES.iter().filter(|case| case.inputs == 2) {
        let build = case.build;
        let turned = identity(
            move |flow| {
                let (a, b) = (source(flow, "a"), source(flow, "b"));
                build(b, a);
            },
            true,
        );
        let alike = [
            "Stream::merge",
            "Collection::concat",
            "Collection::union",
            "Collection::intersect",
        ];
        let alike = alike.contains(&case.name);
        assert_eq!(turned == of(case, |_, input| input), alike, "{}", case.name);
    }
}

/// A public method that is new has to be among the cases.
#[test]
fn all_public_operators_are_cases() {
    let known = CASES
        .iter()
        .map(|case| case.name)
        .chain(NO_OPERATORS.iter().copied());
    let known: BTreeSet<&str> = known.collect();
    let mut found = BTreeSet::new();
    for file in [
        "stream",
        "keyed",
        "window",
        "collection",
        "group",
        "table",
        "table/join",
        "table/rekey",
        "sink",
    ] {
        let path = format!("{}/src/dataflow/{file}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the file is there");
        let (mut of, mut is_hidden) = (String::new(), false);
        for line in text.lines() {
            if line.starts_with("impl") {
                let name = line.split("> ").nth(1).unwrap_or_default();
                of = name.split(['<', ' ']).next().unwrap_or_default().to_owned();
            }
            if let Some(method) = line.strip_prefix("    pub fn ")
                && !is_hidden
                && [
                    "Stream",
                    "Keyed",
                    "Windows",
                    "Collection",
                    "Loop",
                    "Grouped",
                    "Table",
                ]
                .contains(&&*of)
            {
                let name = method.split(['<', '(']).next().unwrap_or_default();
                found.insert(format!("{of}::{name}"));
            }
            is_hidden = line.contains("#[doc(hidden)]") || (is_hidden && line.trim_start().starts_with('#'));
        }
    }
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, known);
}

#[test]
fn unrelated_steps_and_their_order_do_not_count() {
    fn changes(pairs: &Pairs, name: &str) {
        groups(&pairs.changes(), name).view(name);
    }
    let forth = identity(
        |flow| {
            let (pay, payments) = (source(flow, "pay"), source(flow, "payments"));
            changes(&pay, "one");
            changes(&payments, "two");
            changes(&payments.filter(|_| true), "three");
        },
        false,
    );
    let back = identity(
        |flow| {
            let (payments, pay) = (source(flow, "payments"), source(flow, "pay"));
            changes(&payments.filter(|_| true), "three");
            changes(&payments, "two");
            changes(&pay, "one");
        },
        false,
    );
    assert_eq!(forth, back);
    let more = identity(
        |flow| {
            let (pay, payments) = (source(flow, "pay"), source(flow, "payments"));
            changes(&source(flow, "p").merge(&pay), "four");
            changes(&payments.map(|pair| pair), "five");
            changes(&pay, "one");
            changes(&payments, "two");
            changes(&payments.filter(|_| true), "three");
        },
        false,
    );
    assert!(more.is_superset(&forth), "{more:#?}");
}

#[test]
fn declared_versions_count_for_all_that_is_behind() {
    let build = |step: &'static str, version| {
        identity(
            move |flow| {
                let flow = flow.version(step, version);
                let groups = groups(&source(flow, "b").changes(), "groups");
                let counts = counts(&source(flow, "a"), "counts");
                counts.join("both", &groups, |_, n, _| n).view("shown");
            },
            true,
        )
    };
    for step in ["a", "b", "groups", "both"] {
        assert_ne!(build(step, 1), build(step, 2), "{step}");
    }
    // A window has it with its own state, and what begins anew takes its views along.
    assert_eq!(build("counts", 1), build("counts", 2));
}

/// As deep as nobody writes it, in time that grows with the number of steps.
#[test]
fn shared_inputs_do_not_double_what_a_step_is_known_by() {
    let found = identity(
        |flow| {
            let mut rows = source(flow, "a").changes();
            for _ in 0..60 {
                rows = rows.concat(&rows);
            }
            shown(&rows);
        },
        true,
    );
    assert!(found.iter().all(|shape| shape.len() < 2000), "{found:?}");
}

#[test]
fn views_and_sinks_have_names_of_their_own() {
    let build = |view_version: u32, version: u32| {
        dataflow("names", move |flow: Dataflow<'_>| {
            let flow = flow.version("spend", version);
            counts(&source(flow, "a"), "spend")
                .view_with("spend", |view| view.version(view_version))
                .for_each_epoch("spend", |_, _| Ok::<_, String>(()));
        })
    };
    let plan = |flow: &Flow| runtime::plan(flow, &Environment::default());
    let drawn = plan(&build(1, 1)).unwrap();
    let lines: Vec<&str> = drawn.text.lines().map(str::trim_end).collect();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("view     spend ← spend")),
        "{lines:?}"
    );
    assert_eq!(
        (drawn.sinks.len(), &*drawn.sinks[0].name, &*drawn.views[1]),
        (1, "spend", "spend")
    );
    let names: BTreeSet<_> = drawn
        .states
        .iter()
        .map(|shape| shape.identity.to_string())
        .collect();
    assert_eq!(names.len(), drawn.states.len(), "{names:?}");
    // Each version is that of one of them.
    let versions = |flow: &Flow| -> Vec<(String, u32)> {
        let states = plan(flow).unwrap().states.clone();
        let spend = states.into_iter().filter(|shape| shape.step == "spend");
        spend
            .map(|shape| (shape.identity.to_string(), shape.version))
            .collect()
    };
    let (window, view) = ("window spend, tumbling 1s".to_owned(), "view spend".to_owned());
    assert_eq!(versions(&build(3, 1)), [(window.clone(), 1), (view.clone(), 3)]);
    assert_eq!(versions(&build(1, 2)), [(window, 2), (view, 1)]);

    let twice = dataflow("twice", |flow: Dataflow<'_>| {
        let counts = counts(&source(flow, "a"), "spend");
        counts.view("spend");
        counts.view("spend");
        let _ = counts.rows().distinct("spend");
    });
    let error = plan(&twice).err().expect("two views have one name").to_string();
    for said in ["two views are named `spend`", "two steps are named `spend`"] {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_version_of_no_step_or_behind_it_is_a_mistake() {
    let flow = dataflow("versions", |flow: Dataflow<'_>| {
        let flow = flow.version("spent", 2);
        counts(&source(flow, "a"), "spend").view("spend_view");
        flow.version("spend", 2);
    });
    let error = runtime::plan(&flow, &Environment::default())
        .err()
        .unwrap()
        .to_string();
    for said in [
        "a version is declared for `spent`, but no step has that name",
        "the version of `spend` is declared at tests/model/identity.rs",
    ] {
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_plan_shows_all_inputs() {
    let flow = dataflow("shown", |flow: Dataflow<'_>| {
        let (a, b, c) = (source(flow, "a"), source(flow, "b"), source(flow, "c"));
        let rows = a.changes().semijoin(&keys(&b));
        let rows = rows.iterate("loop", |inside, rows| {
            rows.concat(&inside.bring(&c.changes())).distinct("once")
        });
        groups(&rows, "grouped").view("shown");
    });
    let drawn = runtime::plan(&flow, &Environment::default()).unwrap();
    let lines: Vec<&str> = drawn.text.lines().filter(|line| line.contains('←')).collect();
    let expected = [
        "iterate  loop    ← a, b, once",
        "distinct once    ← c, loop",
        "group    grouped ← loop",
        "view     shown   ← grouped",
    ];
    assert_eq!(lines, expected);
}
