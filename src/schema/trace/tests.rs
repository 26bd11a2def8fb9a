use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;

use serde::Deserialize;

use super::*;
use crate::schema::types;
use crate::time::{EventTime, Windowed};

#[derive(Deserialize)]
#[allow(dead_code)]
struct Many {
    some: Option<NonZeroU32>,
    address: IpAddr,
    at: EventTime,
    pairs: (Pair<u8, char>, Pair<String, i128>),
    tree: Tree,
    map: BTreeMap<u64, Vec<f32>>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Pair<A, B> {
    a: A,
    b: B,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Tree {
    Fork(Box<Tree>, Box<Tree>),
    Leaf,
}

#[derive(Deserialize)]
#[serde(untagged)]
#[allow(dead_code)]
enum Any {
    Number(u8),
    Text(String),
}

#[test]
fn traces_checked_generic_and_recursive_types() {
    let variant = |name, content| types::Variant { name, content };
    let named = |a, b| Type::Struct(vec![("a", a), ("b", b)]);
    let traced = trace::<Many>();
    assert_eq!(traced.name, Some("Many"));
    assert_eq!(
        traced.ty,
        Type::Struct(vec![
            ("some", Type::Option(Box::new(Type::UInt(32)))),
            ("address", Type::Text),
            ("at", Type::Time),
            (
                "pairs",
                Type::Tuple(vec![
                    named(Type::UInt(8), Type::Text),
                    named(Type::Text, Type::Int(128))
                ])
            ),
            (
                "tree",
                Type::Enum(vec![
                    variant("Fork", Some(Type::Tuple(vec![Type::Json, Type::Json]))),
                    variant("Leaf", None)
                ])
            ),
            (
                "map",
                Type::Map(
                    Box::new(Type::UInt(64)),
                    Box::new(Type::List(Box::new(Type::Float(32))))
                )
            ),
        ])
    );
}

#[test]
fn what_looks_before_it_knows_is_json() {
    assert_eq!(trace::<Any>().ty, Type::Json);
    let traced = trace::<(u8, Any)>();
    assert_eq!(traced.ty, Type::Tuple(vec![Type::UInt(8), Type::Json]));
    assert_eq!(trace::<Windowed<()>>().name, Some("$thalweg::Windowed"));
    assert_eq!(trace::<()>().ty, Type::Unit);
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Payment {
    Card { number: String, kind: CardKind },
    Cash(u32),
    Split(u8, Option<CardKind>),
    Free,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum CardKind {
    Debit,
    Credit { limit: i64 },
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Aliased {
    #[serde(alias = "amt", alias = "zz_total")]
    amount: NonZeroU32,
    #[serde(rename = "by", alias = "bought_by")]
    buyer: String,
    payment: Payment,
}

#[test]
fn every_variant_is_seen_and_aliases_are_told_from_names() {
    let variant = |name, content| types::Variant { name, content };
    let kind = || {
        Type::Enum(vec![
            variant("Debit", None),
            variant("Credit", Some(Type::Struct(vec![("limit", Type::Int(64))]))),
        ])
    };
    let card = Type::Struct(vec![("number", Type::Text), ("kind", kind())]);
    let split = Type::Tuple(vec![Type::UInt(8), Type::Option(Box::new(kind()))]);
    let payment = Type::Enum(vec![
        variant("Card", Some(card)),
        variant("Cash", Some(Type::UInt(32))),
        variant("Split", Some(split)),
        variant("Free", None),
    ]);
    assert_eq!(
        trace::<Aliased>().ty,
        Type::Struct(vec![
            ("amount", Type::UInt(32)),
            ("by", Type::Text),
            ("payment", payment)
        ])
    );
}

#[test]
fn samples_are_empty_and_full() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        id: NonZeroU32,
        vip: Option<u8>,
        tags: Vec<String>,
        address: IpAddr,
    }
    let samples = samples::<Row>();
    assert!(!samples.self_describing);
    let shapes: Vec<_> = samples
        .values
        .iter()
        .map(|row| (row.vip, row.tags.len()))
        .collect();
    assert_eq!(shapes.first(), Some(&(Some(0), 1)));
    assert_eq!(shapes.last(), Some(&(None, 0)));
    let rows = super::samples::<Option<Row>>().values;
    assert!(
        rows.iter().flatten().any(|row| row.vip.is_none()),
        "empty inside of something"
    );
    assert!(super::samples::<(u8, Any)>().self_describing);
    assert_eq!(super::samples::<Many>().values.len(), DEPTH_MAX + 1);
}

/// A struct's fields as they were found: names, aliases, and a mark on those that are needed.
fn found(traced: &Traced, place: &[usize]) -> Vec<String> {
    let rules = traced.rules.of_struct(place).expect("a struct there");
    let field = |field: &rules::FieldRules| {
        let names = [&[field.name], &field.aliases[..]].concat().join("|");
        format!("{names}{}", if field.required { "!" } else { "" })
    };
    rules.fields.iter().map(field).collect()
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Order {
    id: NonZeroU32,
    #[serde(default)]
    fee: i64,
    note: Option<String>,
    nothing: (),
    #[serde(alias = "amount", alias = "zz")]
    cents: i64,
    #[serde(skip)]
    skipped: u8,
    #[serde(deserialize_with = "Option::deserialize")]
    own_way: Option<u8>,
    address: IpAddr,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
#[allow(dead_code)]
struct Strict {
    a: u8,
    b: String,
}

#[test]
fn what_a_struct_needs_is_told_from_what_it_takes() {
    let order = trace::<Order>();
    assert_eq!(
        found(&order, &[]),
        [
            "id!",
            "fee",
            "note",
            "nothing!",
            "cents|amount|zz!",
            "own_way!",
            "address!"
        ]
    );
    assert!(!order.rules.of_struct(&[]).unwrap().denies_unknown);
    assert_eq!(order.rules.of_struct(&[]).unwrap().name, "Order");
    let strict = trace::<(u8, Vec<Strict>)>();
    assert_eq!(found(&strict, &[1, 0]), ["a", "b"]);
    assert!(strict.rules.of_struct(&[1, 0]).unwrap().denies_unknown);
    // One struct's name and its fields' names, and yet two types.
    let pairs = trace::<(
        Pair<u8, Option<u8>>,
        Pair<u8, u8>,
        BTreeMap<String, Pair<(), IpAddr>>,
    )>();
    assert_eq!(found(&pairs, &[0]), ["a!", "b"]);
    assert_eq!(found(&pairs, &[1]), ["a!", "b!"]);
    assert_eq!(found(&pairs, &[2, 1]), ["a!", "b!"]);
}

#[test]
fn what_is_found_of_a_type_does_not_show_in_its_structure() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Plain {
        a: u8,
        b: String,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Lenient {
        #[serde(alias = "first", default)]
        a: Wrapped,
        #[serde(alias = "a_second")]
        b: String,
    }
    #[derive(Default, Deserialize)]
    #[allow(dead_code)]
    struct Wrapped(u8);
    let (plain, lenient) = (trace::<Plain>(), trace::<Lenient>());
    assert_eq!(plain.ty, lenient.ty);
    assert_eq!(structure::<Lenient>(), "struct<a: u8, b: string>");
    assert_ne!(plain.rules, lenient.rules);
    assert!(lenient.rules.is_newtype(&[0]) && !lenient.rules.is_newtype(&[1]));
    assert_eq!(
        structure::<Order>(),
        format!(
            "struct<{}>",
            [
                "id: u32",
                "fee: i64",
                "note: option<string>",
                "nothing: unit",
                "cents: i64",
                "own_way: option<u8>",
                "address: string",
            ]
            .join(", ")
        )
    );
}

#[test]
fn enums_are_asked_for_variants_that_they_do_not_have() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Open {
        Buy,
        #[serde(other)]
        Else,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Named {
        #[serde(alias = "b")]
        Buy(u8),
        Sell {
            #[serde(default)]
            at: u8,
            by: String,
        },
    }
    let traced = trace::<(Open, Named, CardKind, Payment)>();
    let rules = |place: &[usize]| {
        let rules = traced.rules.of_enum(place);
        (rules.takes_unknown, rules.has_aliases)
    };
    assert_eq!(rules(&[0]), (true, false));
    assert_eq!(rules(&[1]), (false, true));
    assert_eq!(rules(&[2]), (false, false));
    // What variants hold is examined as well.
    assert_eq!(found(&traced, &[3, 0]), ["number!", "kind!"]);
    assert_eq!(found(&traced, &[3, 0, 1, 1]), ["limit!"]);
    assert_eq!(found(&traced, &[3, 2, 1, 0, 1]), ["limit!"]);
    // Inside itself an enum has no places.
    let many = trace::<Many>();
    assert_eq!(many.rules.of_struct(&[4]), None);
    assert_eq!(found(&many, &[3, 1]), ["a!", "b!"]);
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
#[derive(PartialEq, Eq, PartialOrd, Ord)]
#[allow(dead_code)]
struct Code(u8);

impl TryFrom<String> for Code {
    type Error = std::num::ParseIntError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Envelope {
    id: u64,
    #[serde(default)]
    trace: String,
    #[serde(flatten)]
    head: Head,
    at: i64,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Head {
    version: u8,
    author: Option<String>,
}

#[test]
fn types_that_look_at_their_data_do_not_hide_what_is_behind_them() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Mixed {
        code: Code,
        any: serde_json::Value,
        either: Any,
        envelope: Envelope,
        #[serde(alias = "more", default)]
        rest: BTreeMap<Code, i32>,
        last: u32,
    }
    let traced = trace::<Mixed>();
    assert_eq!(
        traced.ty.to_string(),
        "struct<code: string, any: json, either: json, envelope: map<json, json>, rest: map<string, i32>, \
            last: u32>"
    );
    assert_eq!(
        found(&traced, &[]),
        ["code!", "any!", "either!", "envelope!", "rest|more", "last!"]
    );
    let needed = traced.rules.of_flattened(&[3]).unwrap();
    assert_eq!(
        needed,
        [
            ("id", Type::UInt(64)),
            ("at", Type::Int(64)),
            ("version", Type::Json)
        ]
    );
    assert_eq!(trace::<Envelope>().rules.of_flattened(&[]), Some(needed));
}

#[test]
fn large_types_take_a_bounded_number_of_readings() {
    type Four<T> = Pair<Pair<T, T>, Pair<T, T>>;
    type Large = Four<Four<Four<Four<(IpAddr, Option<u8>)>>>>;
    let mut state = TraceState::default();
    let read = state.read(&mut |trace| Large::deserialize(trace).map(drop));
    let ty = read.expect("a type");
    let mut inner = &ty;
    while let Type::Struct(fields) = inner {
        inner = &fields[1].1;
    }
    assert_eq!(inner.to_string(), "tuple<string, option<json>>");
    // 255 structs, each with 256 texts or less, each of which refuses seven placeholders.
    assert_eq!(state.rules.structs.len(), 255);
    assert!(state.attempts <= 256 * 7 + 1, "{}", state.attempts);
    assert!(state.probed < 255 * 4 * 257, "{}", state.probed);
}
