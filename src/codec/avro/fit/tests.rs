use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;

fn record(fields: serde_json::Value) -> String {
    json!({ "type": "record", "name": "Payment", "fields": fields }).to_string()
}

/// Path, whether it is every record, and the words.
fn told<T: DeserializeOwned>(writer: &str, reader: Option<&str>) -> Vec<(String, bool, String)> {
    fit::<T>(writer, reader)
        .into_iter()
        .map(|misfit| (misfit.path.clone(), misfit.every, misfit.to_string()))
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
    use crate::codec::avro::plan::Plan;
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
            let none = Plan::resolve(&w, &r).is_none();
            let misfits = rules::compare(&w, &r);
            assert_eq!(
                none,
                misfits.iter().any(|misfit| misfit.every),
                "{writer} to {reader}: {misfits:?}"
            );
        }
    }
}
