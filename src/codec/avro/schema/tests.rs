use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::codec::avro::compatibility::check;
use crate::codec::avro::long::write_long;
use crate::codec::avro::{Avro, confluent};
use crate::codec::registry::{Registry, WriterSchema};
use crate::codec::{Decode, Decoded};

/// What a decoder makes of a datum, asking a registry that has the schema.
fn decoded<T: DeserializeOwned + 'static>(schema: &str, datum: &[u8]) -> Option<T> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let (registry, id) = (Registry::never_asked(), NEXT.fetch_add(1, Ordering::Relaxed));
    registry.provide(WriterSchema::new(id, schema));
    let mut payload = Vec::new();
    confluent::write(id, &mut payload);
    payload.extend(datum);
    let mut decoder = Avro::<T>::new(registry, None, crate::bridge::Waker::new(|| {})).unwrap();
    match decoder.decode(&payload) {
        Decoded::Value(value) => Some(value),
        _ => None,
    }
}

#[derive(Debug, PartialEq, Deserialize)]
struct One<T> {
    f: T,
}

/// The check says that a type fits, and the decoder decodes it: alone, as a field, and as a field that may be
/// null.
#[track_caller]
fn fits<T: DeserializeOwned + PartialEq + Debug + 'static>(schema: &Value, datum: &[u8], expected: T) {
    let text = schema.to_string();
    assert_eq!(check::<T>(&text, None), [], "{text}");
    assert_eq!(decoded::<T>(&text, datum).as_ref(), Some(&expected), "{text}");
    let field = json!({ "type": "record", "name": "Outer", "fields": [{ "name": "f", "type": schema }] });
    let field = field.to_string();
    assert_eq!(check::<One<T>>(&field, None), [], "{field}");
    assert_eq!(
        decoded::<One<T>>(&field, datum),
        Some(One { f: expected }),
        "{field}"
    );
    // Whoever takes no notice of it needs no place for it.
    #[derive(Deserialize)]
    struct Nothing {}
    assert!(decoded::<Nothing>(&field, datum).is_some(), "{field}");
    if !schema.is_array() {
        let field = json!({ "name": "f", "type": ["null", schema] });
        let optional = json!({ "type": "record", "name": "Outer", "fields": [field] }).to_string();
        let decoded = decoded::<One<Option<T>>>(&optional, &[&[2], datum].concat());
        assert!(matches!(decoded, Some(One { f: Some(_) })), "{optional}");
        assert_eq!(check::<One<Option<T>>>(&optional, None), [], "{optional}");
    }
}

/// The check says that a type does not fit, and the decoder agrees.
#[track_caller]
fn differs<T: DeserializeOwned + 'static>(schema: &Value, datum: &[u8]) {
    let text = schema.to_string();
    assert!(!check::<T>(&text, None).is_empty(), "{text}");
    assert!(decoded::<T>(&text, datum).is_none(), "{text}");
}

/// Bytes with their length before them.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_long(bytes.len() as i64, &mut out);
    out.extend(bytes);
    out
}

fn decimal(precision: Value, scale: Value) -> Value {
    let mut schema =
        json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale });
    if scale.is_null() {
        schema.as_object_mut().unwrap().remove("scale");
    }
    schema
}

#[derive(Clone, Debug, PartialEq)]
struct Blob(Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Blob;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Blob, E> {
                Ok(Blob(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

#[test]
fn decimals_by_every_way_of_asking() {
    // No scale is a scale of 0.
    let whole = decimal(json!(9), json!(null));
    fits(&whole, &sized(&[1, 0]), "256".to_owned());
    fits(&whole, &sized(&[1, 0]), 256i32);
    fits(&whole, &sized(&[0xff]), -1i64);
    fits(&whole, &sized(&[1, 0]), 256i128);
    fits(&whole, &sized(&[1, 0]), 256f64);
    fits(&whole, &sized(&[1, 0]), Blob(vec![1, 0]));
    fits(&whole, &sized(&[1, 0]), vec![1u8, 0]);
    // 1e11 with 18 digits behind the point is more than 96 bits.
    let large = decimal(json!(38), json!(18));
    let unscaled = 100_000_000_000i128 * 1_000_000_000_000_000_000;
    let datum = sized(&unscaled.to_be_bytes());
    fits(&large, &datum, "100000000000.000000000000000000".to_owned());
    fits(&large, &datum, unscaled);
    fits(&large, &datum, 1e11f64);
    fits(&large, &datum, 1e11f32);
    fits(&large, &datum, Blob(unscaled.to_be_bytes().to_vec()));
    // More than 128 bits, and more than 28 digits behind the point.
    let wide = decimal(json!(80), json!(60));
    let datum = sized(&[&[1][..], &[0; 24]].concat());
    fits(
        &wide,
        &datum,
        "0.006277101735386680763835789423207666416102355444464034512896".to_owned(),
    );
    fits(&wide, &datum, 0.006277101735386681f64);
    differs::<i128>(&wide, &datum);
    differs::<bool>(&wide, &datum);
    // The nearest float, as if it had been written that way.
    fits(
        &decimal(json!(17), json!(16)),
        &sized(&15_777_777_777_770_001i64.to_be_bytes()),
        1.5777777777770001f64,
    );
    differs::<i64>(&decimal(json!(19), json!(2)), &sized(&[1; 9]));
}

#[test]
fn decimals_that_are_fixed() {
    let fixed = |size: usize, precision: usize, scale: usize| {
        json!({ "type": "fixed", "name": "shop.D", "size": size, "logicalType": "decimal",
                "precision": precision, "scale": scale })
    };
    fits(&fixed(4, 9, 2), &[0xff, 0xff, 0xff, 0xfb], "-0.05".to_owned());
    fits(&fixed(4, 9, 2), &[0, 0, 0, 5], 5i64);
    fits(&fixed(20, 47, 0), &[0; 20], "0".to_owned());
    fits(&fixed(4, 9, 2), &[0, 0, 0, 5], [0u8, 0, 0, 5]);
    // The bytes have no room for ten digits: it is a fixed of four bytes, and nothing else.
    fits(&fixed(4, 10, 2), b"abcd", Blob(b"abcd".to_vec()));
    differs::<i64>(&fixed(4, 10, 2), b"abcd");
    differs::<i64>(&fixed(0, 1, 0), b"");
    // Used again by its name.
    let twice = json!({ "type": "record", "name": "R", "fields": [
        { "name": "a", "type": fixed(1, 2, 1) }, { "name": "b", "type": "shop.D" } ] });
    #[derive(Debug, PartialEq, Deserialize)]
    struct Twice {
        a: String,
        b: String,
    }
    let expected = Twice {
        a: "0.1".into(),
        b: "-0.1".into(),
    };
    fits(&twice, &[1, 0xff], expected);
}

#[test]
fn a_logical_type_that_is_not_valid_is_ignored() {
    let bytes = sized(b"abc");
    for schema in [
        decimal(json!(64), json!(127)),
        decimal(json!(0), json!(0)),
        decimal(json!(-1), json!(0)),
        decimal(json!(9.5), json!(0)),
        decimal(json!(9), json!(-2)),
        decimal(json!("9"), json!(2)),
        decimal(json!(9), json!("2")),
        decimal(json!(null), json!(2)),
        json!({ "type": "bytes", "logicalType": "uuid" }),
        json!({ "type": "bytes", "logicalType": "timestamp-millis" }),
        json!({ "type": "bytes", "logicalType": "no-such-thing" }),
        json!({ "type": "bytes", "logicalType": 7 }),
        json!({ "type": "bytes", "logicalType": null }),
    ] {
        fits(&schema, &bytes, Blob(b"abc".to_vec()));
        fits(&schema, &bytes, vec![b'a', b'b', b'c']);
        differs::<i128>(&schema, &bytes);
    }
    for logical in [
        "decimal",
        "date",
        "uuid",
        "duration",
        "time-micros",
        "big-decimal",
    ] {
        let long = json!({ "type": "long", "logicalType": logical, "precision": 4 });
        fits(&long, &[2], 1i64);
    }
    let twelve =
        |size: usize| json!({ "type": "fixed", "name": "D", "size": size, "logicalType": "duration" });
    fits(&twelve(2), b"ab", Blob(b"ab".to_vec()));
    differs::<(u32, u32, u32)>(&twelve(2), b"ab");
    let uuid = json!({ "type": "fixed", "name": "U", "size": 2, "logicalType": "uuid" });
    fits(&uuid, b"ab", Blob(b"ab".to_vec()));
}

#[test]
fn the_other_logical_types() {
    let logical = |kind: &str, logical: &str| json!({ "type": kind, "logicalType": logical });
    fits(&logical("int", "date"), &[2], 1i32);
    fits(&logical("int", "time-millis"), &[2], 1i64);
    for name in [
        "time-micros",
        "timestamp-millis",
        "timestamp-micros",
        "timestamp-nanos",
        "local-timestamp-millis",
        "local-timestamp-micros",
        "local-timestamp-nanos",
    ] {
        fits(&logical("long", name), &[2], 1i64);
        differs::<String>(&logical("long", name), &[2]);
    }
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let raw: Vec<u8> = (0..16).map(|n| n * 0x11).collect();
    fits(
        &logical("string", "uuid"),
        &sized(uuid.as_bytes()),
        uuid.to_owned(),
    );
    let fixed = json!({ "type": "fixed", "name": "U", "size": 16, "logicalType": "uuid" });
    fits(&fixed, &raw, uuid.to_owned());
    fits(&fixed, &raw, Blob(raw.clone()));
    fits(&fixed, &raw, <[u8; 16]>::try_from(&raw[..]).unwrap());
    let duration = json!({ "type": "fixed", "name": "D", "size": 12, "logicalType": "duration" });
    let parts = [1, 0, 0, 0, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    #[derive(Debug, PartialEq, Deserialize)]
    struct Duration {
        months: u32,
        days: i64,
        milliseconds: u32,
    }
    let expected = Duration {
        months: 1,
        days: 2,
        milliseconds: u32::MAX,
    };
    fits(&duration, &parts, expected);
    fits(&duration, &parts, (1u32, 2u32, u32::MAX));
    fits(&duration, &parts, Blob(parts.to_vec()));
    differs::<(u32, u32)>(&duration, &parts);
    differs::<String>(&duration, &parts);
    // An integer, its length and a scale, all in bytes.
    let big = logical("bytes", "big-decimal");
    fits(&big, &sized(&[2, 5, 4]), "0.05".to_owned());
    fits(&big, &sized(&[2, 5, 3]), "500".to_owned());
    fits(&big, &sized(&[2, 5, 4]), 0.05f64);
}

#[test]
fn a_tuple_takes_all_of_a_list() {
    let array = json!({ "type": "array", "items": "long" });
    fits(&array, &[4, 2, 4, 0], (1i64, 2i64));
    fits(&array, &[3, 4, 2, 4, 0], (1i64, 2i64));
    fits(&array, &[2, 2, 2, 4, 0], [1i64, 2]);
    let pair = |first: &str| {
        json!({ "type": "record", "name": "R", "fields": [{ "name": first, "type": array },
                                     { "name": "f", "type": "long" }] })
    };
    #[derive(Debug, PartialEq, Deserialize)]
    struct Both {
        pair: (i64, i64),
        f: i64,
    }
    fits(&pair("pair"), &[4, 2, 4, 0, 6], Both { pair: (1, 2), f: 3 });
    for items in [&[2, 2, 0][..], &[6, 2, 4, 6, 0], &[4, 2, 4]] {
        assert_eq!(
            decoded::<(i64, i64)>(&array.to_string(), items),
            None,
            "{items:?}"
        );
    }
    let bytes = json!("bytes");
    fits(&bytes, &sized(b"ab"), [b'a', b'b']);
    assert_eq!(decoded::<[u8; 2]>(&bytes.to_string(), &sized(b"abc")), None);
}

#[test]
fn what_says_nothing_about_data_is_passed_over() {
    let plain = json!({ "type": "record", "name": "R", "fields": [{ "name": "f", "type": "int" }] });
    for schema in [
        json!({ "type": "record", "name": "R", "doc": 5, "order": [], "aliases": null, "x": { "type": 1 },
                "fields": [{ "name": "f", "type": "int", "doc": {}, "order": "sideways", "default": "wrong",
                             "aliases": "wrong", "logicalType": 7 }] }),
        json!({ "type": "error", "name": "R", "namespace": null, "fields": [{ "name": "f", "type": "int" }] }),
        json!({ "type": "record", "name": "R", "fields": [{ "name": "f", "type": { "type": "int" } }] }),
        json!({ "type": { "type": "record", "name": "R", "fields": [
            { "name": "f", "type": { "type": { "type": "int", "doc": "" }, "unit": "m" } }] } }),
        json!({ "type": "record", "name": "R", "namespace": "", "fields": [{ "name": "f", "type": "int" }] }),
        plain,
    ] {
        fits(&schema, &[2], One { f: 1i64 });
    }
    // Java's own attribute, and a logical type outside of the nested type that it is about.
    fits(
        &json!({ "type": "string", "avro.java.string": "String" }),
        &sized(b"a"),
        "a".to_owned(),
    );
    let outside =
        json!({ "type": { "type": "bytes" }, "logicalType": "decimal", "precision": 4, "scale": 1 });
    fits(&outside, &sized(&[15]), "1.5".to_owned());
    let symbols = json!({ "type": "enum", "name": "E", "symbols": ["A", "B"], "default": "gone" });
    fits(&symbols, &[2], "B".to_owned());
}

#[test]
fn names_of_every_kind() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Two {
        a: One<i64>,
        b: One<i64>,
    }
    let inner = |name: Value, more: Value| {
        let mut inner = json!({ "type": "record", "name": name, "fields": [{ "name": "f", "type": "int" }] });
        inner
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        inner
    };
    for (outer, definition, reference) in [
        (json!({}), inner(json!("I"), json!({})), "I"),
        (json!({ "namespace": "x" }), inner(json!("I"), json!({})), "I"),
        (json!({ "namespace": "x" }), inner(json!("I"), json!({})), "x.I"),
        (json!({ "namespace": "x" }), inner(json!("y.I"), json!({})), "y.I"),
        (
            json!({ "namespace": "x" }),
            inner(json!("y.I"), json!({ "namespace": "z" })),
            "y.I",
        ),
        (
            json!({ "namespace": "x" }),
            inner(json!("I"), json!({ "namespace": "y" })),
            "y.I",
        ),
        // In no namespace, and found there, as Java has it.
        (
            json!({ "namespace": "x" }),
            inner(json!("I"), json!({ "namespace": "" })),
            "I",
        ),
        (json!({ "namespace": "x" }), inner(json!(".I"), json!({})), ".I"),
        (json!({ "name": "x.R" }), inner(json!("I"), json!({})), "x.I"),
        // Debezium makes these of the names of servers; Java's parser can be told to take them.
        (
            json!({ "namespace": "my-server.inventory.customers" }),
            inner(json!("I"), json!({})),
            "I",
        ),
        (
            json!({ "namespace": "my-server" }),
            inner(json!("I"), json!({})),
            "my-server.I",
        ),
        (json!({}), inner(json!("1st-Value"), json!({})), "1st-Value"),
        (json!({}), inner(json!("Ünï.cöde"), json!({})), "Ünï.cöde"),
    ] {
        for late in [false, true] {
            let (a, b) = match late {
                false => (definition.clone(), json!(reference)),
                true => (json!(reference), definition.clone()),
            };
            let mut schema = json!({ "type": "record", "name": "R", "fields": [
                { "name": "a", "type": a }, { "name": "b", "type": b } ] });
            schema
                .as_object_mut()
                .unwrap()
                .extend(outer.as_object().unwrap().clone());
            let text = schema.to_string();
            assert_eq!(check::<Two>(&text, None), [], "{text}");
            let expected = Two {
                a: One { f: 1 },
                b: One { f: 2 },
            };
            assert_eq!(decoded::<Two>(&text, &[2, 4]), Some(expected), "{text}");
        }
    }
    // Fields and symbols may have any letters, too.
    let schema = json!({ "type": "record", "name": "R", "fields": [
        { "name": "some-field", "type": { "type": "enum", "name": "E", "symbols": ["in-flight", "done"] } }] });
    #[derive(Debug, PartialEq, Deserialize)]
    struct Some {
        #[serde(rename = "some-field")]
        field: Symbol,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    enum Symbol {
        #[serde(rename = "in-flight")]
        InFlight,
        #[serde(rename = "done")]
        Done,
    }
    fits(
        &schema,
        &[0],
        Some {
            field: Symbol::InFlight,
        },
    );
    fits(&schema, &[2], Some { field: Symbol::Done });
}

#[test]
fn aliases_are_in_the_namespace_of_their_type() {
    let named = |name: &str, aliases: &[&str]| {
        let schema = json!({ "type": "fixed", "name": name, "size": 1, "aliases": aliases });
        Schema::parse(&schema.to_string()).unwrap()
    };
    let takes = |reader: &Schema, writer: &str| {
        let writer = named(writer, &[]);
        let name = |schema: &Schema| schema.kind(schema.root()).name().unwrap().clone();
        name(reader).takes(&name(&writer))
    };
    let reader = named("my-server.New", &["Old", "other.Older"]);
    assert!(takes(&reader, "my-server.Old") && takes(&reader, "other.Older"));
    assert!(takes(&reader, "elsewhere.New"), "short names are enough");
    assert!(!takes(&reader, "Old") && !takes(&reader, "other.Old") && !takes(&reader, "Older"));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let field = |kind: Value| {
        json!({ "type": "record", "name": "shop.R", "fields": [{ "name": "f", "type": kind }] }).to_string()
    };
    for (text, told) in [
        ("{".to_owned(), "it is no JSON"),
        ("7".to_owned(), "`7` is no type"),
        (r#""nothing""#.to_owned(), "no type is called `nothing`"),
        (r#"{"name":"A"}"#.to_owned(), "no `type`"),
        (
            r#"{"type":"record","name":"A"}"#.to_owned(),
            "record `A`: it has no `fields`",
        ),
        (
            r#"{"type":"record","fields":[]}"#.to_owned(),
            "a record has no `name`",
        ),
        (
            r#"{"type":"enum","symbols":[]}"#.to_owned(),
            "an enum has no `name`",
        ),
        (field(json!("nothing")), "no type is called `shop.nothing`"),
        (
            field(json!(null)),
            "record `shop.R`: field `f`: `null` is no type",
        ),
        (
            field(json!({ "type": "array" })),
            "field `f`: an array has no `items`",
        ),
        (
            field(json!({ "type": "map" })),
            "field `f`: a map has no `values`",
        ),
        (
            field(json!({ "type": "fixed", "name": "F" })),
            "fixed `shop.F`: its `size` is no number",
        ),
        (
            field(json!({ "type": "enum", "name": "E", "symbols": ["A", "A"] })),
            "the symbol `A` twice",
        ),
        (
            field(json!({ "type": "enum", "name": "E", "symbols": [7] })),
            "`7` is no symbol",
        ),
        (field(json!(["int", "int"])), "two branches of type int"),
        (field(json!(["int", ["null"]])), "has another one as a branch"),
        (
            field(json!({ "type": "record", "name": "R", "fields": [] })),
            "`shop.R` is defined twice",
        ),
        (field(json!("R")), "without end"),
        (
            json!({ "type": "record", "name": "R", "fields": [
                { "name": "f", "type": "int" }, { "name": "f", "type": "int" }] })
            .to_string(),
            "record `R`: field `f`: there are two of that name",
        ),
    ] {
        let error = Schema::parse(&text).unwrap_err();
        assert!(error.contains(told), "{text}: {error}");
    }
    // A record of itself that ends somewhere, twice in a row.
    for kind in [
        json!(["null", "R"]),
        json!({ "type": "array", "items": "R" }),
        json!({ "type": "map", "values": "R" }),
    ] {
        assert!(Schema::parse(&field(kind)).is_ok());
    }
    let reader = |default: Value| {
        let text = json!({ "type": "record", "name": "R", "fields": [
            { "name": "f", "type": "int", "default": default }] });
        crate::codec::avro::check_reader(&text.to_string())
    };
    assert!(reader(json!(5)).is_ok());
    let error = reader(json!("x")).unwrap_err().to_string();
    assert!(
        error.contains("record `R`: field `f`: its default `\"x\"` is no int"),
        "{error}"
    );
}
