//! A value of every type, to Postgres and back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use thalweg::connect::postgres::Postgres as Sink;
use thalweg::prelude::*;

use super::node::start;
use super::oracle::Input;
use crate::support::postgres::Postgres;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Color {
    Red,
    DarkBlue,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Shape {
    Dot,
    Circle { radius: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct All {
    yes: bool,
    i8: i8,
    i16: i16,
    i32: i32,
    i64: i64,
    i128: i128,
    u8: u8,
    u16: u16,
    u32: u32,
    u64: u64,
    u128: u128,
    float: F64,
    text: String,
    letter: char,
    at: EventTime,
    color: Color,
    shape: Shape,
    list: Vec<i64>,
    pair: (u8, String),
    map: BTreeMap<String, u64>,
    none: Option<i32>,
    some: Option<String>,
    nothing: (),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Floats {
    single: f32,
    double: f64,
    maybe: Option<f64>,
    bytes: Bytes,
}

/// Bytes, and not a list of numbers.
#[derive(Clone, Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl serde::de::Visitor<'_> for Read {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Read)
    }
}

fn all(sign: i128) -> All {
    let least = sign < 0;
    let of = |low: i64, high: i64| if least { low } else { high };
    All {
        yes: least,
        i8: of(i8::MIN.into(), i8::MAX.into()) as i8,
        i16: of(i16::MIN.into(), i16::MAX.into()) as i16,
        i32: of(i32::MIN.into(), i32::MAX.into()) as i32,
        i64: of(i64::MIN, i64::MAX),
        i128: if least { i128::MIN } else { i128::MAX },
        u8: if least { 0 } else { u8::MAX },
        u16: if least { 0 } else { u16::MAX },
        u32: if least { 0 } else { u32::MAX },
        u64: if least { 0 } else { u64::MAX },
        u128: if least { 0 } else { u128::MAX },
        float: F64::new(if least { f64::NEG_INFINITY } else { 0.1 }),
        text: if least {
            String::new()
        } else {
            "it's \"ü\" \\ {1,2} \u{1F600}\n$1; NULL".into()
        },
        letter: if least { '\'' } else { '\u{10FFFF}' },
        at: EventTime(of(-62_135_596_800_000_001, 1_772_366_400_000_001)),
        color: if least { Color::Red } else { Color::DarkBlue },
        shape: if least {
            Shape::Dot
        } else {
            Shape::Circle { radius: 7 }
        },
        list: if least { vec![] } else { vec![1, -2, i64::MAX] },
        pair: (3, "x\"y".into()),
        map: [("a b".to_owned(), 1), ("ü".to_owned(), u64::MAX)].into(),
        none: None,
        some: (!least).then(|| "NULL".to_owned()),
        nothing: (),
    }
}

#[test]
fn every_type_comes_back_as_it_was() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    for sign in [-1, 1] {
        let row = all(sign);
        // As floats in JSON have no infinity, the number is what tells them apart.
        input.line("signs.jsonl", &json!(sign));
        assert_eq!(row, all(sign));
    }
    let pattern = dir.path().join("signs.jsonl");
    let flow = dataflow("types", move |flow: Dataflow| {
        let signs = Files::lines(&pattern)
            .json::<i64>()
            .event_time(|sign| EventTime(*sign))
            .poll(Duration::from_millis(5));
        let signs = flow.source("signs", signs);
        signs
            .map(|sign| all(i128::from(sign)))
            .append_to("all_pg", Sink::table("every"));
        signs
            .map(|sign| Floats {
                single: if sign < 0 { f32::NAN } else { 0.1 },
                double: if sign < 0 { f64::INFINITY } else { -1e300 },
                maybe: (sign < 0).then_some(0.1),
                bytes: Bytes(if sign < 0 { vec![] } else { vec![0, 255, b'\\'] }),
            })
            .append_to("floats_pg", Sink::table("floats"));
    });
    start(&flow, postgres.settings(), &dir.path().join("l"), 1, true)
        .unwrap()
        .join()
        .unwrap();

    let types = postgres.lines(
        "SELECT attnum::text || ' ' || attname || ' ' || format_type(atttypid, atttypmod) || \
        CASE WHEN attnotnull THEN '' ELSE ' null' END FROM pg_attribute \
        WHERE attrelid = 'every'::regclass AND attnum > 0 ORDER BY attnum",
    );
    for column in [
        "1 yes boolean",
        "2 i8 smallint",
        "3 i16 smallint",
        "4 i32 integer",
        "5 i64 bigint",
        "6 i128 numeric",
        "7 u8 smallint",
        "8 u16 integer",
        "9 u32 bigint",
        "10 u64 numeric(20,0)",
        "11 u128 numeric",
        "12 float double precision",
        "13 text text",
        "14 letter text",
        "15 at timestamp with time zone",
        "16 color text",
        "17 shape jsonb",
        "18 list jsonb",
        "19 pair jsonb",
        "20 map jsonb",
        "21 none integer null",
        "22 some text null",
        "23 nothing jsonb null",
    ] {
        assert!(types.contains(&column.to_owned()), "{column}: {types:#?}");
    }
    assert_eq!(types.len(), 23);
    for sign in [-1, 1] {
        let row = all(sign);
        let found = postgres.run(&format!(
            "SELECT i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, float, text, letter, \
            (extract(epoch FROM at) * 1000000)::numeric(30), color, shape, list, pair, map, \"none\", \"some\", \
            nothing FROM every WHERE yes = {}",
            row.yes
        ));
        let text = |value: &dyn std::fmt::Display| Some(value.to_string());
        let shape = if sign < 0 {
            "\"Dot\""
        } else {
            "{\"Circle\": {\"radius\": 7}}"
        };
        let list = if sign < 0 {
            "[]"
        } else {
            "[1, -2, 9223372036854775807]"
        };
        let expected = vec![
            text(&row.i8),
            text(&row.i16),
            text(&row.i32),
            text(&row.i64),
            text(&row.i128),
            text(&row.u8),
            text(&row.u16),
            text(&row.u32),
            text(&row.u64),
            text(&row.u128),
            text(&if sign < 0 { "-Infinity" } else { "0.1" }),
            text(&row.text),
            text(&row.letter),
            text(&row.at.micros()),
            text(&if sign < 0 { "Red" } else { "DarkBlue" }),
            text(&shape),
            text(&list),
            text(&"[3, \"x\\\"y\"]"),
            text(&format!("{{\"ü\": {}, \"a b\": 1}}", u64::MAX)),
            None,
            row.some.clone(),
            None,
        ];
        assert_eq!(found, [expected]);
    }
    let floats = postgres.lines("SELECT single, double, maybe, bytes FROM floats");
    assert_eq!(floats, ["0.1|-1e+300|null|\\x00ff5c", "NaN|Infinity|0.1|\\x"]);
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Key {
    color: Color,
    text: String,
    big: u128,
    at: EventTime,
    list: Vec<u8>,
}

/// Deletes find rows by keys of all kinds.
#[test]
fn rows_of_odd_keys_are_replaced_and_deleted() {
    let (postgres, dir) = (Postgres::shared(), tempfile::tempdir().unwrap());
    let input = Input::new(dir.path(), 1);
    let key = |n: u64| {
        json!({ "color": if n.is_multiple_of(2) { "Red" } else { "DarkBlue" }, "text": format!("{n}'\""),
            "big": n, "at": n as i64 * 1_000_001 - 5_000_000, "list": [n, 7] })
    };
    let pattern = dir.path().join("keys.jsonl");
    let flow = dataflow("keys", move |flow: Dataflow| {
        let lines = Files::lines(&pattern)
            .json::<(Key, Option<u64>)>()
            .poll(Duration::from_millis(5))
            .keyed(|(key, value)| (key, value));
        flow.table("keys", lines)
            .upsert_to("keys_pg", Sink::table("keys"));
    });
    let run = || {
        let service = start(&flow, postgres.settings(), &dir.path().join("l"), 1, true);
        service.unwrap().join().unwrap()
    };
    for n in 0..20 {
        input.line("keys.jsonl", &json!([key(n), n]));
    }
    run();
    assert_eq!(postgres.value("SELECT count(*) FROM keys"), "20");
    for n in 0..20 {
        let value = if n < 15 { json!(null) } else { json!(n * 10) };
        input.line("keys.jsonl", &json!([key(n), value]));
    }
    run();
    let left = postgres.lines("SELECT big, value FROM keys");
    assert_eq!(left, ["15|150", "16|160", "17|170", "18|180", "19|190"]);
}
