use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;

fn record(fields: serde_json::Value) -> String {
    json!({ "type": "record", "name": "Payment", "fields": fields }).to_string()
}

/// Path, whether it is every record, and the words.
fn told<T: DeserializeOwned>(writer: &str, reader: Option<&str>) -> Vec<(String, bool, String)> {
    check::<T>(writer, reader)
        .into_iter()
        .map(|incompatibility| {
            (
                incompatibility.path.clone(),
                incompatibility.every,
                incompatibility.to_string(),
            )
        })
        .collect()
}

fn paths<T: DeserializeOwned>(writer: &str, reader: Option<&str>) -> Vec<(String, bool)> {
    told::<T>(writer, reader)
        .into_iter()
        .map(|(path, every, _)| (path, every))
        .collect()
}

fn named(paths: &[(&str, bool)]) -> Vec<(String, bool)> {
    paths
        .iter()
        .map(|(path, every)| ((*path).to_owned(), *every))
        .collect()
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Payment {
    id: i64,
    note: Option<String>,
    #[serde(default)]
    fee: i64,
    #[serde(alias = "amount")]
    cents: i64,
    address: std::net::IpAddr,
    legs: Vec<Leg>,
    limits: BTreeMap<String, f64>,
    side: Side,
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Leg {
    venue: String,
    next: Option<Box<Leg>>,
}

#[derive(Deserialize)]
#[allow(dead_code)]
enum Side {
    Buy,
    Sell,
}

fn payment(more: serde_json::Value) -> String {
    let mut fields = json!([
        { "name": "id", "type": "long" },
        { "name": "amount", "type": "int" },
        { "name": "address", "type": "string" },
        { "name": "legs", "type": { "type": "array", "items": { "type": "record", "name": "Leg", "fields": [
            { "name": "venue", "type": "string" }, { "name": "next", "type": ["null", "Leg"] },
        ] } } },
        { "name": "limits", "type": { "type": "map", "values": "float" } },
        { "name": "side", "type": { "type": "enum", "name": "Side", "symbols": ["Buy", "Sell"] } },
        { "name": "unused", "type": "bytes" },
    ]);
    for field in more.as_array().unwrap() {
        let fields = fields.as_array_mut().unwrap();
        fields.retain(|own| own["name"] != field["name"]);
        if !field["type"].is_null() {
            fields.push(field.clone());
        }
    }
    record(fields)
}

#[test]
fn a_type_that_fits_is_left_in_peace() {
    assert_eq!(told::<Payment>(&payment(json!([])), None), []);
    let noted =
        payment(json!([{ "name": "note", "type": ["null", "string"] }, { "name": "fee", "type": "int" }]));
    assert_eq!(told::<Payment>(&noted, None), []);
    assert_eq!(told::<Payment>(&noted, Some(&noted)), []);
    assert_eq!(told::<u32>(r#""string""#, None).len(), 1);
    assert_eq!(told::<String>(r#""string""#, None), []);
    assert_eq!(told::<serde_json::Value>(&noted, None), []);
}

#[test]
fn every_field_that_does_not_fit_is_named_with_what_would() {
    let changed = payment(json!([
        { "name": "id", "type": "string" },
        { "name": "amount" },
        { "name": "side", "type": { "type": "enum", "name": "Side", "symbols": ["Buy", "Short"] } },
        { "name": "limits", "type": { "type": "map", "values": "boolean" } },
        { "name": "note", "type": ["null", "long"] },
        { "name": "fee", "type": ["null", "long"] },
        { "name": "legs", "type": { "type": "array", "items": { "type": "record", "name": "Leg", "fields": [] } } },
    ]));
    let told = told::<Payment>(&changed, None);
    let mut found: Vec<_> = told
        .iter()
        .map(|(path, every, _)| (path.as_str(), *every))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("cents", true),
            ("fee", false),
            ("id", true),
            ("legs[].venue", false),
            ("limits.A", false),
            ("note", false),
            ("side", false),
        ],
        "{told:#?}"
    );
    let text = |path: &str| &told.iter().find(|(at, ..)| at == path).unwrap().2;
    assert!(
        text("id").contains("the schema has string, the type wants i64"),
        "{}",
        text("id")
    );
    assert!(text("cents").contains("#[serde(default)]"), "{}", text("cents"));
    assert!(text("side").contains("`Short`"));
    assert!(text("fee").contains("Option"));
}

#[test]
fn numbers_that_hold_a_part_are_no_reason_to_stop() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Small {
        a: u32,
        b: i32,
        c: i64,
        d: f64,
        e: i128,
        f: i64,
    }
    let kinds = ["int", "long", "long", "long", "long", "double"];
    let fields: Vec<_> = "abcdef"
        .chars()
        .zip(kinds)
        .map(|(name, ty)| json!({ "name": name, "type": ty }))
        .collect();
    assert_eq!(
        paths::<Small>(&record(json!(fields)), None),
        named(&[("a", false), ("b", false), ("f", true)])
    );
}

#[test]
fn what_can_be_told_of_a_type_is_what_decoding_does() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wrapped(i64);
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Bytes {
        a: Vec<u8>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Denying {
        a: i64,
    }
    use crate::codec::{Decode, Decoded, avro::plain::Plain};
    fn decodes<T: DeserializeOwned + 'static>(schema: &str, datum: &[u8]) -> bool {
        matches!(
            Plain::<T>::new(schema, None).unwrap().decode(datum),
            Decoded::Value(_)
        )
    }
    let bytes = record(json!([{ "name": "a", "type": "bytes" }]));
    let text = record(json!([{ "name": "a", "type": "string" }]));
    let two = record(json!([{ "name": "a", "type": "long" }, { "name": "b", "type": "long" }]));
    assert_eq!(paths::<Wrapped>(r#""long""#, None), []);
    assert!(decodes::<Wrapped>(r#""long""#, &[2]));
    assert_eq!(paths::<Wrapped>(r#""string""#, None), named(&[("", true)]));
    assert!(!decodes::<Wrapped>(r#""string""#, &[2, b'1']));
    assert_eq!(paths::<Bytes>(&bytes, None), []);
    assert!(decodes::<Bytes>(&bytes, &[2, 1]));
    assert_eq!(paths::<Bytes>(&text, None), named(&[("a", true)]));
    assert!(!decodes::<Bytes>(&text, &[2, b'1']));
    assert_eq!(paths::<Denying>(&two, None), named(&[("", true)]));
    assert!(!decodes::<Denying>(&two, &[2, 2]));
    assert_eq!(paths::<Leg>(&bytes, None), named(&[("venue", true)]));
    assert!(!decodes::<Leg>(&bytes, &[2, 1]));
}

#[test]
fn a_readers_schema_is_compared_by_avros_rules() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Two {
        total: f64,
        currency: String,
    }
    let reader = |total: serde_json::Value, currency: serde_json::Value| record(json!([total, currency]));
    let (total, currency) = (
        json!({ "name": "total", "type": "double" }),
        json!({ "name": "currency", "type": "string", "default": "CHF" }),
    );
    let writer =
        record(json!([{ "name": "total_cents", "type": "long" }, { "name": "note", "type": "string" }]));
    let told = |reader: &str| told::<Two>(&writer, Some(reader));
    // A default, but no alias.
    let renamed = told(&reader(total.clone(), currency.clone()));
    assert_eq!(renamed.len(), 1);
    assert_eq!((renamed[0].0.as_str(), renamed[0].1), ("total", true));
    assert!(renamed[0].2.contains("alias `total_cents`"), "{}", renamed[0].2);
    // With the alias a long is promoted to a double.
    let aliased = json!({ "name": "total", "type": "double", "aliases": ["total_cents"] });
    assert_eq!(told(&reader(aliased.clone(), currency)), []);
    // No default.
    let bare = told(&reader(aliased, json!({ "name": "currency", "type": "string" })));
    assert_eq!(bare[0].0, "currency");
    assert!(bare[0].2.contains("default"), "{}", bare[0].2);
    // No promotion.
    let text = json!({ "name": "total", "type": "string", "aliases": ["total_cents"] });
    let told = told(&reader(
        text,
        json!({ "name": "currency", "type": "string", "default": "" }),
    ));
    assert!(
        told.iter()
            .any(|t| t.0 == "total" && t.2.contains("Avro promotes long to float and double")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|t| t.0 == "total" && t.2.contains("the type wants f64")),
        "{told:?}"
    );
}

#[test]
fn the_rules_and_the_plan_agree() {
    use crate::codec::avro::plan::RewritePlan;
    let named =
        |name: &str, fields: serde_json::Value| json!({ "type": "record", "name": name, "fields": fields });
    let field = |ty: serde_json::Value| named("P", json!([{ "name": "a", "type": ty }]));
    let mut kinds: Vec<serde_json::Value> = [
        "null", "boolean", "int", "long", "float", "double", "bytes", "string",
    ]
    .map(|ty| json!(ty))
    .to_vec();
    kinds.push(json!(["null", "long"]));
    kinds.push(json!(["string", "boolean"]));
    kinds.push(json!({ "type": "array", "items": "int" }));
    kinds.push(json!({ "type": "map", "values": "int" }));
    kinds.push(json!({ "type": "enum", "name": "E", "symbols": ["A", "B"] }));
    kinds.push(json!({ "type": "enum", "name": "E", "symbols": ["C"] }));
    kinds.push(json!({ "type": "fixed", "name": "F", "size": 2 }));
    kinds.push(named("Q", json!([{ "name": "b", "type": "int" }])));
    kinds.push(named("Q", json!([{ "name": "c", "type": "int" }])));
    for writer in &kinds {
        for reader in &kinds {
            let (writer, reader) = (field(writer.clone()), field(reader.clone()));
            let parse = |json: &serde_json::Value| Schema::parse(&json.to_string()).unwrap();
            let (w, r) = (parse(&writer), parse(&reader));
            let none = RewritePlan::resolve(&w, &r).is_none();
            let incompatibilities = rules::compare(&w, &r);
            assert_eq!(
                none,
                incompatibilities
                    .iter()
                    .any(|incompatibility| incompatibility.every),
                "{writer} to {reader}: {incompatibilities:?}"
            );
        }
    }
}

/// The check against the decoder: types and schemas of every kind, each with each, and random data of the
/// schema.
mod against_the_decoder {
    use std::collections::HashMap;

    use super::*;
    use crate::codec::avro::datum::deserialize;
    use crate::codec::avro::long::write_long;
    use crate::codec::avro::schema::{NodeId, NodeKind};

    #[derive(Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord)]
    #[allow(dead_code)]
    struct Wrapped<T>(T);

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct One<T> {
        a: T,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Strict {
        a: i64,
        #[serde(default)]
        b: i64,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Lenient {
        #[serde(alias = "b")]
        c: i64,
        #[serde(default)]
        d: String,
        e: Option<f64>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Flat {
        b: i64,
        #[serde(flatten)]
        inner: One<serde_json::Value>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Duration {
        months: u32,
        days: f64,
        #[serde(default)]
        milliseconds: i64,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Open {
        A,
        #[serde(other)]
        Else,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Either {
        Null,
        Long(i64),
        String(String),
        Array(Vec<i64>),
        #[serde(rename = "R")]
        Record {
            a: i64,
        },
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Exact {
        Null,
        Double(f64),
        Record,
        Decimal(i32),
        #[serde(rename = "R")]
        Named(Lenient),
        #[serde(rename = "shop.E")]
        Symbol(Side),
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Tree {
        a: i64,
        #[serde(default)]
        next: Option<Box<Tree>>,
    }

    /// Types that look at no value, so that of each datum it can be told whether it fits.
    fn types() -> Vec<(&'static str, Type)> {
        macro_rules! types {
            ($($ty:ty,)*) => {
                vec![$((stringify!($ty), Type { fit: check::<$ty>, decodes: decodes::<$ty> }),)*]
            };
        }
        types![
            (), bool, i8, i16, i32, i64, i128, u8, u32, u64, u128, f32, f64, String, Vec<u8>, Wrapped<i64>,
            Wrapped<Option<String>>, Option<i64>, Option<Option<i64>>, Option<String>, Option<Vec<u8>>,
            Vec<i64>, Vec<Option<u8>>, Vec<Wrapped<i64>>, Vec<f64>, Vec<bool>, Vec<String>, (i64, i64), [i64; 3],
            [u8; 12], [u8; 16], (u32, i64, f32), (u32, Wrapped<u32>, u32), (Option<u32>, u32, u32),
            BTreeMap<String, i64>, BTreeMap<Wrapped<String>, i64>, BTreeMap<u64, i64>,
            BTreeMap<String, Option<f64>>, HashMap<String, Wrapped<u32>>, One<i64>, One<Option<i64>>, One<One<i64>>,
            One<BTreeMap<String, i64>>, One<Vec<One<i64>>>, One<Flat>, One<serde_json::Value>, Strict, Lenient,
            Flat, Duration, Side, Open, Either, Exact, Option<Either>, Option<Exact>, Option<Side>, Vec<Either>,
            One<Either>, Tree, (One<i64>, One<i64>), serde_json::Value,
        ]
    }

    #[derive(Clone, Copy)]
    struct Type {
        fit: fn(&str, Option<&str>) -> Vec<Incompatibility>,
        decodes: fn(&Schema, &[u8]) -> bool,
    }

    fn decodes<T: DeserializeOwned>(schema: &Schema, datum: &[u8]) -> bool {
        deserialize::<T>(schema, datum).is_some()
    }

    fn schemas() -> Vec<serde_json::Value> {
        let logical = |ty: &str, logical: &str| json!({ "type": ty, "logicalType": logical });
        let fixed = |size: usize, logical: &str| json!({ "type": "fixed", "name": "shop.F", "size": size, "logicalType": logical });
        let decimal = |precision: usize| json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": 2 });
        let enumeration =
            |symbols: serde_json::Value| json!({ "type": "enum", "name": "shop.E", "symbols": symbols });
        let record = |fields: serde_json::Value| json!({ "type": "record", "name": "R", "fields": fields });
        let field = |name: &str, ty: serde_json::Value| json!({ "name": name, "type": ty });
        let mut parts: Vec<serde_json::Value> = [
            "null", "boolean", "int", "long", "float", "double", "bytes", "string",
        ]
        .map(|ty| json!(ty))
        .to_vec();
        parts.extend([
            logical("int", "date"),
            logical("string", "uuid"),
            logical("long", "timestamp-millis"),
        ]);
        parts.extend([
            fixed(12, ""),
            fixed(16, "uuid"),
            fixed(12, "duration"),
            decimal(4),
            decimal(30),
        ]);
        parts.extend([enumeration(json!(["A"])), enumeration(json!(["Buy", "Sell"]))]);
        parts.extend([enumeration(json!(["Buy", "Short"])), enumeration(json!(["Null"]))]);
        let mut all = parts.clone();
        for part in parts {
            all.push(json!({ "type": "array", "items": part }));
            all.push(json!({ "type": "map", "values": part }));
            all.push(record(json!([field("a", part.clone())])));
            if part != "null" {
                all.push(json!(["null", part]));
                all.push(record(json!([
                    field("b", json!("long")),
                    field("a", json!([part, "null"]))
                ])));
            }
        }
        let (long, a) = (|| json!("long"), |ty| record(json!([field("a", ty)])));
        all.extend([
            json!(["long", "string"]),
            json!(["null", "long", "string"]),
            json!(["boolean", "bytes"]),
            json!(["null", "double", a(long())]),
            json!(["null", decimal(4), enumeration(json!(["Buy"]))]),
            a(json!(["null", "long", { "type": "array", "items": "long" }])),
            a(json!({ "type": "record", "name": "S", "fields": [field("a", long()), field("b", long())] })),
            a(json!({ "type": "array", "items": { "type": "record", "name": "S", "fields": [field("a", long())] } })),
            a(json!({ "type": "map", "values": ["null", "long", "string"] })),
            record(json!([field("a", long()), field("next", json!(["null", "R"]))])),
            record(json!([field("c", long()), field("b", long())])),
            record(json!([field("b", json!("int")), field("d", json!("string")), field("e", json!("float"))])),
            record(json!([field("d", json!("string"))])),
            record(json!([])),
        ]);
        all
    }

    /// Adds a random datum of a schema. Lists have as many items as the tuples above, or none; texts are
    /// symbols.
    fn datum(
        schema: &Schema,
        id: NodeId,
        next: &mut dyn FnMut(usize) -> usize,
        depth: usize,
        out: &mut Vec<u8>,
    ) {
        match schema.kind(id) {
            NodeKind::Null => {}
            NodeKind::Boolean => out.push(next(2) as u8),
            NodeKind::Int | NodeKind::Long => write_long(next(2) as i64, out),
            NodeKind::Float => out.extend((next(9) as f32).to_le_bytes()),
            NodeKind::Double => out.extend((next(9) as f64).to_le_bytes()),
            NodeKind::String => {
                write_long(1, out);
                out.push(b'A');
            }
            NodeKind::Bytes => {
                write_long(2, out);
                out.extend([next(2) as u8, next(100) as u8]);
            }
            NodeKind::Fixed(fixed) => out.extend((0..fixed.size).map(|_| next(100) as u8)),
            NodeKind::Enum(symbols) => write_long(next(symbols.symbols.len()) as i64, out),
            NodeKind::Union(branches) => {
                // The first one ends what contains itself.
                let branch = if depth > 6 { 0 } else { next(branches.len()) };
                write_long(branch as i64, out);
                datum(schema, branches[branch], next, depth + 1, out);
            }
            NodeKind::Record(record) => {
                for field in &record.fields {
                    datum(schema, field.node, next, depth + 1, out);
                }
            }
            NodeKind::Array(items) => {
                write_long(2, out);
                (0..2).for_each(|_| datum(schema, *items, next, depth + 1, out));
                out.push(0);
            }
            NodeKind::Map(values) => {
                if next(3) > 0 {
                    out.extend([2, 2, b'a']);
                    datum(schema, *values, next, depth + 1, out);
                }
                out.push(0);
            }
        }
    }

    /// Whether it depends on the data alone whether they are of the type: how many items there are, which
    /// text or number stands for a variant, which fields are in a map, what bytes mean.
    fn depends_on_data(name: &str, schema: &str) -> bool {
        let lists = schema.contains("array") || schema.contains("bytes");
        let symbols = ["string", "int", "long", "bytes", "fixed"]
            .iter()
            .any(|ty| schema.contains(ty));
        (lists && (name.contains('[') || name.contains("u32,") || name.contains("(One")))
            || (symbols && ["Side", "Either", "Exact"].iter().any(|ty| name.contains(ty)))
            || ((name.contains("Value") || name.contains("Flat"))
                && ["bytes", "fixed"].iter().any(|ty| schema.contains(ty)))
            || schema.contains("map")
    }

    #[test]
    fn data_that_fit_decode_and_data_that_do_not_fit_do_not() {
        let (mut fitting, mut hopeless, mut wrong) = (0, 0, Vec::new());
        for schema in schemas() {
            let text = schema.to_string();
            let parsed = Schema::parse(&text).unwrap();
            let mut random = 1u32;
            let mut next = |below: usize| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 16) as usize % below
            };
            let data: Vec<Vec<u8>> = (0..16)
                .map(|_| {
                    let mut out = Vec::new();
                    datum(&parsed, parsed.root(), &mut next, 0, &mut out);
                    out
                })
                .collect();
            for (name, ty) in types() {
                let incompatibilities = (ty.fit)(&text, None);
                let every = incompatibilities
                    .iter()
                    .any(|incompatibility| incompatibility.every);
                if incompatibilities.is_empty() && depends_on_data(name, &text) {
                    continue;
                }
                let decoded = data.iter().filter(|datum| (ty.decodes)(&parsed, datum)).count();
                if (incompatibilities.is_empty() && decoded < data.len()) || (every && decoded > 0) {
                    wrong.push(format!(
                        "{name} of {text}: {decoded} decode, {incompatibilities:?}"
                    ));
                }
                fitting += usize::from(incompatibilities.is_empty());
                hopeless += usize::from(every);
            }
        }
        assert!(
            wrong.is_empty(),
            "{} are wrong:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
        // It is about something.
        assert!(fitting > 500 && hopeless > 2_000, "{fitting} {hopeless}");
    }
}

#[test]
fn what_a_type_needs_of_its_fields_is_told_wherever_it_stands() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Envelope {
        meta: serde_json::Value,
        #[serde(alias = "by")]
        author: String,
        #[serde(flatten)]
        head: Head,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Head {
        version: i32,
        tags: Option<Vec<String>>,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Whole {
        any: serde_json::Value,
        envelope: Envelope,
        #[serde(default)]
        side: Option<Side>,
        last: i64,
    }
    let envelope =
        |fields: serde_json::Value| json!({ "type": "record", "name": "Envelope", "fields": fields });
    let field = |name: &str, ty: serde_json::Value| json!({ "name": name, "type": ty });
    let meta = || field("meta", json!(["null", "string"]));
    let fits = record(json!([
        field("any", json!("boolean")),
        field("last", json!("int")),
        field(
            "envelope",
            envelope(json!([
                meta(),
                field("author", json!("string")),
                field("version", json!("int"))
            ]))
        ),
    ]));
    assert_eq!(told::<Whole>(&fits, None), []);
    let differs = record(json!([
        field("any", json!("boolean")),
        field(
            "envelope",
            envelope(json!([meta(), field("author", json!("long"))]))
        ),
        field(
            "side",
            json!({ "type": "enum", "name": "Side", "symbols": ["Short"] })
        ),
    ]));
    assert_eq!(
        paths::<Whole>(&differs, None),
        named(&[
            ("envelope.author", true),
            ("envelope.version", true),
            ("side", true),
            ("last", true)
        ])
    );
}

#[test]
fn a_field_by_two_of_its_names_is_told() {
    let both = record(json!([{ "name": "venue", "type": "string" }, { "name": "place", "type": "string" }]));
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Leg {
        #[serde(alias = "place")]
        venue: String,
    }
    let told = told::<Leg>(&both, None);
    assert_eq!((told.len(), told[0].1), (1, true));
    assert!(told[0].2.contains("`venue` and `place`"), "{}", told[0].2);
}

#[test]
fn an_enum_takes_the_branches_that_it_names() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Event {
        #[serde(rename = "shop.Paid")]
        Paid { cents: i64 },
        #[serde(rename = "shop.Sent")]
        Sent(Leg),
    }
    let paid = |ty: &str| json!({ "type": "record", "name": "shop.Paid", "fields": [{ "name": "cents", "type": ty }] });
    let sent =
        json!({ "type": "record", "name": "shop.Sent", "fields": [{ "name": "venue", "type": "string" }] });
    let lost = json!({ "type": "record", "name": "shop.Lost", "fields": [] });
    let told = |schema: serde_json::Value| paths::<Event>(&schema.to_string(), None);
    assert_eq!(told(json!([paid("long"), sent])), []);
    assert_eq!(told(json!([paid("string"), sent])), named(&[("cents", false)]));
    assert_eq!(told(json!([paid("long"), sent, lost])), named(&[("", false)]));
    assert_eq!(
        told(json!([paid("string"), lost])),
        named(&[("cents", true), ("", true)])
    );
    assert_eq!(told(paid("string")), named(&[("cents", true)]));
}
