use std::collections::BTreeMap;

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Datum;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::bridge::Waker;
use crate::codec::avro::Avro;
use crate::codec::registry::WriterSchema;
use crate::codec::{Decode, Decoded};
use crate::position::{PartitionId, Position, SourceId};
use crate::schema::fields::FieldNames;
use crate::schema::trace::trace;
use crate::time::{EventTime, Window, Windowed};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Buy,
    Sell,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leg {
    venue: Option<String>,
    sides: Vec<Side>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Event {
    flag: bool,
    small: i16,
    wide: i64,
    count: u32,
    large: u64,
    huge: i128,
    half: f32,
    float: f64,
    text: String,
    letter: char,
    at: EventTime,
    note: Option<i128>,
    legs: Vec<Leg>,
    by_name: BTreeMap<String, i64>,
    #[serde(default)]
    late: bool,
}

fn event() -> impl Strategy<Value = Event> {
    let leg = (
        any::<Option<String>>(),
        prop::collection::vec(prop_oneof![Just(Side::Buy), Just(Side::Sell)], 0..3),
    );
    let legs = prop::collection::vec(leg.prop_map(|(venue, sides)| Leg { venue, sides }), 0..3);
    let finite = (prop::num::f32::NORMAL, prop::num::f64::NORMAL);
    let numbers = any::<(bool, i16, i64, u32, u64, i128)>();
    let rest = any::<(String, char, i64, Option<i128>, bool)>();
    let by_name = prop::collection::btree_map(any::<String>(), any::<i64>(), 0..3);
    (numbers, finite, rest, legs, by_name).prop_map(|(numbers, (half, float), rest, legs, by_name)| {
        let (flag, small, wide, count, large, huge) = numbers;
        let (text, letter, at, note, late) = rest;
        let at = EventTime(at);
        Event {
            flag,
            small,
            wide,
            count,
            large,
            huge,
            half,
            float,
            text,
            letter,
            at,
            note,
            legs,
            by_name,
            late,
        }
    })
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Spend {
    n: u64,
    total: i128,
    name: Option<String>,
}

/// A row as a reader of its topic has it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Flat {
    merchant: u32,
    window_start: EventTime,
    window_end: EventTime,
    n: u64,
    total: i128,
    name: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Key {
    merchant: u32,
    window_start: EventTime,
    window_end: EventTime,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Change {
    before: Option<Flat>,
    after: Option<Flat>,
}

/// An encoder whose schemas of keys and payloads have the ids 1 and 2, and these.
fn encoder(schema: RowSchema, method: Method) -> (AvroRows, [Option<String>; 2]) {
    let schemas = Schemas::of(&schema, method, "shop.spend-log.v1").unwrap();
    let texts = [
        schemas.key.as_ref().map(|(key, _)| key.to_string()),
        Some(schemas.value.0.to_string()),
    ];
    let rows = AvroRows {
        schema: Arc::new(schema),
        method,
        key: schemas.key.map(|(_, shape)| (1, shape)),
        value: (2, schemas.value.1),
    };
    (rows, texts)
}

/// What our own source reads, and that another reader takes every byte for the same schema.
fn read<T: DeserializeOwned + 'static>(text: &str, id: u32, bytes: &[u8]) -> T {
    let schema = apache_avro::Schema::parse_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut datum = &bytes[confluent::HEADER_LEN..];
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    let value: Datum = reader
        .read_value(&mut datum)
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(datum.is_empty() && value.validate(&schema), "{value:?} {text}");
    let registry = Registry::never_asked();
    registry.provide(WriterSchema::new(id, text));
    let mut avro = Avro::<T>::new(registry, None, Waker::new(|| {})).unwrap();
    match avro.decode(bytes) {
        Decoded::Value(value) => value,
        Decoded::Dead(cause, _) => panic!("{cause:?}: {text}"),
        Decoded::DeadAt(..) | Decoded::Wait => panic!("neither value nor cause"),
    }
}

fn schema<K: DeserializeOwned + 'static, V: DeserializeOwned + 'static>(key: &[&str]) -> RowSchema {
    let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
    let names = FieldNames {
        key: &key,
        value: &[],
    };
    RowSchema::new("it", trace::<K>(), trace::<V>(), names).unwrap()
}

fn event_row(schema: &RowSchema, value: &impl Serialize) -> Row {
    let mut bytes = Vec::new();
    schema.encode_value(value, &mut bytes).unwrap();
    let partition = PartitionId {
        source: SourceId(1),
        partition: 0,
    };
    let at = Position { partition, offset: 0 };
    Row::event(at, (EventTime(0), EventTime::MIN), true, &bytes, 1)
}

fn payload(rows: &mut AvroRows, row: &Row) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    rows.payload(row, &mut out).unwrap().then_some(out)
}

proptest! {
    #[test]
    fn events_are_read_as_they_were(event in event()) {
        let (mut rows, [key, value]) = encoder(schema::<(), Event>(&[]), Method::AppendTo);
        prop_assert_eq!(key, None);
        let row = event_row(&rows.schema, &event);
        prop_assert!(!rows.key(&row, &mut Vec::new()).unwrap());
        let bytes = payload(&mut rows, &row).unwrap();
        prop_assert_eq!(read::<Event>(&value.unwrap(), 2, &bytes), event);
    }

    #[test]
    fn rows_and_changes_are_read_as_they_were(
        (merchant, start, end) in any::<(u32, i64, i64)>(),
        (old, new) in any::<(Option<(u64, i128, Option<String>)>, Option<(u64, i128, Option<String>)>)>(),
    ) {
        let spend = |(n, total, name): (u64, i128, Option<String>)| Spend { n, total, name };
        let (old, new) = (old.map(spend), new.map(spend));
        let window = Window { start: EventTime(start), end: EventTime(end) };
        let flat = |spend: &Spend| Flat {
            merchant, window_start: window.start, window_end: window.end,
            n: spend.n, total: spend.total, name: spend.name.clone(),
        };
        for method in [Method::UpsertTo, Method::ChangesTo] {
            let (mut rows, [key, value]) = encoder(schema::<Windowed<u32>, Spend>(&["merchant"]), method);
            let encoded = |spend: &Spend| {
                let mut bytes = Vec::new();
                rows.schema.encode_value(spend, &mut bytes).unwrap();
                bytes
            };
            let mut key_bytes = Vec::new();
            rows.schema.encode_key(&Windowed { key: merchant, window }, &mut key_bytes).unwrap();
            let (before, after) = (old.as_ref().map(encoded), new.as_ref().map(encoded));
            let row = Row::change(&key_bytes, before.as_deref(), after.as_deref(), 1);
            let mut written = Vec::new();
            prop_assert!(rows.key(&row, &mut written).unwrap());
            let expected = Key { merchant, window_start: window.start, window_end: window.end };
            prop_assert_eq!(read::<Key>(&key.unwrap(), 1, &written), expected);
            let bytes = payload(&mut rows, &row);
            let value = value.unwrap();
            if method == Method::UpsertTo {
                prop_assert_eq!(bytes.map(|bytes| read::<Flat>(&value, 2, &bytes)), new.as_ref().map(flat));
            } else {
                let expected = Change { before: old.as_ref().map(flat), after: new.as_ref().map(flat) };
                prop_assert_eq!(read::<Change>(&value, 2, &bytes.unwrap()), expected);
            }
        }
    }

    /// Also at the bounds of what a byte holds.
    #[test]
    fn integers_take_as_few_bytes_as_they_need(shift in 0u32..128, near in -2i128..=2) {
        let (mut rows, [_, value]) = encoder(schema::<(), i128>(&[]), Method::AppendTo);
        let number = (1i128.wrapping_shl(shift)).wrapping_add(near);
        let row = event_row(&rows.schema, &number);
        let bytes = payload(&mut rows, &row).unwrap();
        prop_assert_eq!(read::<i128>(&value.unwrap(), 2, &bytes), number);
        let bits = 128 - if number < 0 { (!number).leading_zeros() } else { number.leading_zeros() };
        prop_assert_eq!(bytes.len() - confluent::HEADER_LEN - 1, bits as usize / 8 + 1);
    }
}

#[test]
fn schemas_are_named_by_topic_and_path() {
    let (_, [key, value]) = encoder(schema::<u32, Spend>(&["id"]), Method::ChangesTo);
    assert_eq!(key.unwrap(), r#""long""#);
    let value: Value = serde_json::from_str(&value.unwrap()).unwrap();
    assert_eq!(
        (&value["name"], &value["namespace"]),
        (&json!("Change"), &json!("shop.spend_log.v1"))
    );
    assert_eq!(value["fields"][0]["type"][1]["name"], "Row");
    assert_eq!(value["fields"][1]["type"], json!(["null", "Row"]));
    let name = &value["fields"][0]["type"][1]["fields"][3];
    assert_eq!(
        *name,
        json!({ "name": "name", "type": ["null", "string"], "default": null })
    );
    let (_, [_, nested]) = encoder(schema::<(), Event>(&[]), Method::AppendTo);
    assert!(nested.unwrap().contains(r#""name":"Event_legs""#));
    assert_eq!(namespace("1.a-b.v1"), "_1.a_b.v1");
}

#[test]
fn maps_of_other_keys_and_tuples_are_records() {
    type Odd = (BTreeMap<u32, bool>, u128);
    let (mut rows, [_, value]) = encoder(schema::<(), Odd>(&[]), Method::AppendTo);
    let odd: Odd = (BTreeMap::from([(7, true)]), u128::MAX);
    let row = event_row(&rows.schema, &odd);
    let bytes = payload(&mut rows, &row).unwrap();
    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        key: u32,
        value: bool,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Read {
        field_0: Vec<Pair>,
        field_1: String,
    }
    let expected = Read {
        field_0: vec![Pair { key: 7, value: true }],
        field_1: u128::MAX.to_string(),
    };
    assert_eq!(read::<Read>(&value.unwrap(), 2, &bytes), expected);
}

#[test]
fn what_avro_lacks_is_refused_by_name() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Mixed {
        One,
        Two(u32),
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Holds {
        what: Mixed,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Hyphens {
        #[serde(rename = "a-b")]
        a: u32,
    }
    let refused = |schema: RowSchema| {
        Schemas::of(&schema, Method::AppendTo, "t")
            .err()
            .unwrap()
            .to_string()
    };
    let mixed = refused(schema::<(), Holds>(&[]));
    assert!(
        mixed.contains("field `what`") && mixed.contains("`Two`"),
        "{mixed}"
    );
    let hyphens = refused(schema::<(), Hyphens>(&[]));
    assert!(hyphens.contains("`a-b`") && hyphens.contains("hint"), "{hyphens}");
    let free = refused(schema::<(), BTreeMap<String, serde_json::Value>>(&[]));
    assert!(free.contains("depends on the data"), "{free}");
}
