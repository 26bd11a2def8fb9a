use std::collections::BTreeMap;
use std::time::Duration;

use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::codec::registry::Referenced;
use crate::codec::writer::Language;
use crate::time::EventTime;

mod random;

const SHOP: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/empty.proto";

enum Side { SIDE_UNSPECIFIED = 0; SIDE_BUY = 1; SIDE_SELL = 2; }

message Payment {
  int64 id = 1;
  uint32 merchant_id = 2;
  sint32 delta = 300;
  double amount = 4;
  bool settled = 5;
  string note = 6;
  bytes raw = 7;
  optional string reference = 8;
  Side side = 9;
  repeated int32 parts = 10;
  repeated Item items = 11;
  map<string, int64> counts = 12;
  map<int32, Item> by_number = 13;
  oneof method { Card card = 14; string iban = 15; google.protobuf.Empty cash = 16; }
  google.protobuf.Timestamp at = 17;
  google.protobuf.Duration took = 18;
  google.protobuf.Int64Value limit = 19;
  google.protobuf.Struct extra = 20;
  Item item = 21;
  Payment before = 22;
  message Inner { string a = 1; message Deep { string b = 1; } }
}
message Item { string name = 1; int64 price = 2; repeated Item parts = 3; }
message Card { string number = 1; }
message Event { oneof event { Payment payment = 1; Item item = 2; } }
"#;

fn registered(text: &str) -> WriterSchema {
    WriterSchema::of(1, Language::Protobuf, text, Vec::new())
}

fn decoder<T>(schemas: impl IntoIterator<Item = WriterSchema>) -> Protobuf<T> {
    let registry = Registry::never_asked();
    schemas.into_iter().for_each(|schema| registry.provide(schema));
    Protobuf::new(registry, Waker::new(|| {}))
}

fn payload(indexes: &[u32], message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(1, indexes, &mut out);
    out.extend(message);
    out
}

fn pool(text: &str) -> DescriptorPool {
    compile::pool(text, &[]).unwrap()
}

/// A message of this name, as Protobuf's JSON says it.
pub(in crate::codec) fn message(text: &str, name: &str, json: Value) -> DynamicMessage {
    let message = pool(text).get_message_by_name(name).unwrap();
    DynamicMessage::deserialize(message, json).unwrap()
}

/// The same in bytes.
fn encoded(text: &str, name: &str, json: Value) -> Vec<u8> {
    message(text, name, json).encode_to_vec()
}

fn decode<T: DeserializeOwned + 'static>(text: &str, bytes: &[u8]) -> Decoded<T> {
    decoder([registered(text)]).decode(&payload(&[0], bytes))
}

fn value<T: DeserializeOwned + 'static>(text: &str, bytes: &[u8]) -> T {
    match decode(text, bytes) {
        Decoded::Value(value) => value,
        other => panic!("{}", told(other)),
    }
}

fn told<T>(decoded: Decoded<T>) -> String {
    match decoded {
        Decoded::Value(_) => "a value".to_owned(),
        Decoded::Dead(cause, _) => cause.code().to_owned(),
        Decoded::DeadAt(cause, _, place) => format!("{} at {place}", cause.code()),
        Decoded::Wait => "waits".to_owned(),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Payment {
    id: i64,
    #[serde(rename = "merchantId")]
    merchant: u32,
    delta: i32,
    amount: f64,
    settled: bool,
    note: String,
    raw: Vec<u8>,
    reference: Option<String>,
    side: Side,
    parts: Vec<i32>,
    items: Vec<Item>,
    counts: BTreeMap<String, i64>,
    by_number: BTreeMap<i32, Item>,
    method: Option<Method>,
    at: Option<EventTime>,
    took: Option<Duration>,
    limit: Option<i64>,
    extra: Option<Value>,
    item: Option<Item>,
    before: Option<Box<Payment>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
enum Side {
    #[default]
    Unspecified,
    #[serde(rename = "SIDE_BUY")]
    Bought,
    Sell,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Item {
    name: String,
    price: i64,
    parts: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
enum Method {
    Card {
        number: String,
    },
    #[serde(rename = "iban")]
    Account(String),
    Cash,
}

fn item(name: &str, price: i64) -> Item {
    Item {
        name: name.to_owned(),
        price,
        parts: Vec::new(),
    }
}

fn whole() -> Value {
    json!({
        "id": "7", "merchantId": 42, "delta": -3, "amount": 1.5, "settled": true, "note": "hi", "raw": "AAE=",
        "reference": "", "side": "SIDE_BUY", "parts": [1, -2, 3],
        "items": [{ "name": "a", "price": "3", "parts": [{ "name": "b" }] }, {}],
        "counts": { "x": "1", "": "2" }, "byNumber": { "-5": { "name": "c" } },
        "card": { "number": "4" }, "at": "1970-01-01T00:00:01.000002Z", "took": "1.5s", "limit": "9",
        "extra": { "a": [1, null, { "b": "c" }] }, "item": {}, "before": { "id": "6", "iban": "DE" },
    })
}

#[test]
fn messages_become_structs() {
    let expected = Payment {
        id: 7,
        merchant: 42,
        delta: -3,
        amount: 1.5,
        settled: true,
        note: "hi".into(),
        raw: vec![0, 1],
        reference: Some(String::new()),
        side: Side::Bought,
        parts: vec![1, -2, 3],
        items: vec![
            Item {
                parts: vec![item("b", 0)],
                ..item("a", 3)
            },
            Item::default(),
        ],
        counts: BTreeMap::from([("x".into(), 1), (String::new(), 2)]),
        by_number: BTreeMap::from([(-5, item("c", 0))]),
        method: Some(Method::Card { number: "4".into() }),
        at: Some(EventTime(1_000_002)),
        took: Some(Duration::from_millis(1_500)),
        limit: Some(9),
        extra: Some(json!({ "a": [1.0, null, { "b": "c" }] })),
        item: Some(Item::default()),
        before: Some(Box::new(Payment {
            id: 6,
            method: Some(Method::Account("DE".into())),
            ..Payment::default()
        })),
    };
    let bytes = encoded(SHOP, "shop.v1.Payment", whole());
    assert_eq!(value::<Payment>(SHOP, &bytes), expected);
    // Nothing is written of a message whose fields are at their defaults.
    assert_eq!(value::<Payment>(SHOP, &[]), Payment::default());
    let cash = encoded(SHOP, "shop.v1.Payment", json!({ "cash": {} }));
    assert_eq!(value::<Payment>(SHOP, &cash).method, Some(Method::Cash));
}

#[test]
fn one_thing_may_be_read_into_several_types() {
    let bytes = encoded(SHOP, "shop.v1.Payment", whole());
    #[derive(Debug, PartialEq, Deserialize)]
    struct Other {
        card: Option<Card>,
        iban: Option<String>,
        side: String,
        at: String,
        took: Parts,
        counts: BTreeMap<String, Value>,
        by_number: BTreeMap<String, Value>,
        limit: Option<F>,
        amount: f32,
        id: u8,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Card {
        number: String,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Parts {
        seconds: i64,
        nanos: i32,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct F(f64);
    let other: Other = value(SHOP, &bytes);
    assert_eq!(other.card, Some(Card { number: "4".into() }));
    assert_eq!((other.iban, other.limit), (None, Some(F(9.0))));
    assert_eq!(
        (&*other.side, &*other.at),
        ("SIDE_BUY", "1970-01-01T00:00:01.000002Z")
    );
    assert_eq!(
        other.took,
        Parts {
            seconds: 1,
            nanos: 500_000_000
        }
    );
    assert_eq!(
        other.by_number["-5"],
        json!({ "name": "c", "price": 0, "parts": [] })
    );
    #[derive(Deserialize)]
    struct Number {
        side: i32,
    }
    assert_eq!(value::<Number>(SHOP, &bytes).side, 1);
}

#[test]
fn a_message_that_is_one_of_several_is_an_enum() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Event {
        Payment { id: i64 },
        Item(Item),
    }
    let mut decoder = decoder::<Event>([registered(SHOP)]);
    let bytes = encoded(SHOP, "shop.v1.Event", json!({ "item": { "name": "a" } }));
    let read = decoder.decode(&payload(&[3], &bytes));
    assert!(matches!(read, Decoded::Value(Event::Item(read)) if read == item("a", 0)));
    let bytes = encoded(SHOP, "shop.v1.Event", json!({ "payment": { "id": "7" } }));
    let read = decoder.decode(&payload(&[3], &bytes));
    assert!(matches!(read, Decoded::Value(Event::Payment { id: 7 })));
    assert_eq!(told(decoder.decode(&payload(&[3], &[]))), "schema_incompatible");
}

#[test]
fn indexes_name_a_message_of_the_file() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Text {
        #[serde(alias = "b", alias = "name")]
        a: String,
    }
    // Field 1 of each of them is a text.
    let bytes = [10, 1, b'x'];
    let mut decoder = decoder::<Text>([registered(SHOP)]);
    let mut tell = |indexes: &[u32]| told(decoder.decode(&payload(indexes, &bytes)));
    for indexes in [&[1][..], &[0, 0], &[0, 0, 0]] {
        assert_eq!(tell(indexes), "a value", "{indexes:?}");
    }
    for indexes in [&[4][..], &[0, 1], &[0, 0, 0, 0], &[u32::MAX], &[0; 100]] {
        assert_eq!(
            tell(indexes),
            "protobuf_invalid at message indexes",
            "{indexes:?}"
        );
    }
    assert_eq!(
        told(decoder.decode(&[0, 0, 0, 0, 1])),
        "protobuf_invalid at message indexes"
    );
    // The first message's index in full.
    let read = decoder.decode(&[0, 0, 0, 0, 1, 2, 2, 10, 1, b'x']);
    assert_eq!(told(read), "a value");
    assert_eq!(
        told(decoder.decode(&payload(&[1], &[8, 1]))),
        "protobuf_invalid at name"
    );
}

#[test]
fn faults_are_told_by_their_place() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Tight {
        #[serde(default)]
        items: Vec<Priced>,
        #[serde(default)]
        by_number: BTreeMap<u8, Priced>,
        side: Only,
        reference: String,
    }
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Priced {
        price: u8,
    }
    #[derive(Debug, Deserialize)]
    enum Only {
        Buy,
    }
    let tell = |json: Value| told(decode::<Tight>(SHOP, &encoded(SHOP, "shop.v1.Payment", json)));
    let with = |name: &str, value: Value| json!({ "side": 1, "reference": "", name: value });
    assert_eq!(tell(with("items", json!([{}, { "price": 255 }]))), "a value");
    assert_eq!(
        tell(with("items", json!([{}, {}, { "price": 256 }]))),
        "schema_incompatible at items[2].price"
    );
    assert_eq!(
        tell(with("byNumber", json!({ "-5": {} }))),
        "schema_incompatible at by_number.-5"
    );
    assert_eq!(
        tell(with("byNumber", json!({ "5": { "price": -1 } }))),
        "schema_incompatible at by_number.5.price"
    );
    assert_eq!(tell(json!({ "reference": "" })), "schema_incompatible at side");
    assert_eq!(
        tell(json!({ "side": 9, "reference": "" })),
        "schema_incompatible at side"
    );
    assert_eq!(tell(json!({ "side": 1 })), "schema_incompatible at reference");
    // The bytes themselves: cut in an item's name, no UTF-8 in it, and a tag of nothing.
    let reference = [9 << 3, 1, 8 << 3 | 2, 0];
    let invalid = |more: &[u8]| told(decode::<Payment>(SHOP, &[&reference[..], more].concat()));
    assert_eq!(invalid(&[]), "a value");
    assert_eq!(
        invalid(&[11 << 3 | 2, 3, 10, 9, b'x']),
        "protobuf_invalid at items[0].name"
    );
    assert_eq!(
        invalid(&[11 << 3 | 2, 3, 10, 1, 0xff]),
        "protobuf_invalid at items[0].name"
    );
    assert_eq!(invalid(&[0]), "protobuf_invalid");
    assert_eq!(invalid(&[11 << 3 | 2, 99]), "protobuf_invalid at items");
    assert_eq!(invalid(&[17 << 3 | 2]), "protobuf_invalid");
}

#[test]
fn unknown_values_of_enums_have_a_variant_or_a_number() {
    #[derive(Debug, PartialEq, Deserialize)]
    enum Open {
        Buy,
        #[serde(other)]
        Other,
    }
    #[derive(Deserialize)]
    struct Read<S> {
        side: S,
    }
    let side = |number: u8| [9 << 3, number];
    assert_eq!(value::<Read<Open>>(SHOP, &side(1)).side, Open::Buy);
    assert_eq!(value::<Read<Open>>(SHOP, &side(99)).side, Open::Other);
    assert_eq!(value::<Read<i32>>(SHOP, &side(99)).side, 99);
    assert_eq!(value::<Read<Value>>(SHOP, &side(99)).side, json!(99));
    assert_eq!(
        told(decode::<Read<String>>(SHOP, &side(99))),
        "schema_incompatible at side"
    );
}

#[test]
fn fields_come_and_go_by_their_numbers() {
    let older = r#"syntax = "proto3"; message P { int64 id = 1; string old_note = 3; int32 cents = 4; }"#;
    let newer =
        r#"syntax = "proto3"; message P { int64 id = 1; string note = 3; int64 cents = 4; bool new = 5; }"#;
    #[derive(Debug, PartialEq, Deserialize)]
    struct P {
        id: i64,
        #[serde(alias = "old_note")]
        note: String,
        cents: i64,
        #[serde(default)]
        new: bool,
    }
    let bytes = [8, 7, 26, 1, b'x', 32, 5, 40, 1];
    let expected = |new: bool| P {
        id: 7,
        note: "x".into(),
        cents: 5,
        new,
    };
    // To the older schema the last field is unknown.
    assert_eq!(value::<P>(older, &bytes), expected(false));
    assert_eq!(value::<P>(newer, &bytes), expected(true));
}

#[test]
fn what_is_written_in_parts_is_one() {
    let part = |json: Value| encoded(SHOP, "shop.v1.Payment", json);
    let parts = [
        part(json!({ "id": "1", "item": { "name": "a", "parts": [{ "name": "p" }] }, "parts": [1] })),
        part(json!({ "iban": "DE", "before": { "item": { "name": "x" } } })),
        part(json!({ "id": "2", "item": { "price": "5", "parts": [{}] }, "parts": [2, 3] })),
        part(json!({ "card": {}, "before": { "item": { "price": "1" } } })),
        part(json!({ "card": { "number": "4" } })),
    ];
    let read: Payment = value(SHOP, &parts.concat());
    let expected = Item {
        parts: vec![item("p", 0), Item::default()],
        ..item("a", 5)
    };
    assert_eq!(
        (read.id, read.item, read.parts),
        (2, Some(expected), vec![1, 2, 3])
    );
    assert_eq!(read.before.unwrap().item, Some(item("x", 1)));
    assert_eq!(read.method, Some(Method::Card { number: "4".into() }));
}

#[test]
fn proto2_has_groups_defaults_and_what_is_required() {
    let proto = r#"
        syntax = "proto2";
        message P {
          required int64 id = 1;
          optional string word = 2 [default = "none"];
          optional int32 plain = 3;
          repeated group Line = 4 { optional string text = 1; }
          optional Level level = 5 [default = HIGH];
          enum Level { LOW = 0; HIGH = 1; }
          extensions 100 to 200;
        }"#;
    #[derive(Debug, PartialEq, Deserialize)]
    struct P {
        id: i64,
        word: String,
        plain: Option<i32>,
        line: Vec<Line>,
        level: Level,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Line {
        text: Option<String>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    enum Level {
        Low,
        High,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Optional {
        word: Option<String>,
    }
    let bytes = encoded(proto, "P", json!({ "id": "7", "line": [{ "text": "a" }, {}] }));
    let expected = P {
        id: 7,
        word: "none".into(),
        plain: None,
        line: vec![
            Line {
                text: Some("a".into()),
            },
            Line { text: None },
        ],
        level: Level::High,
    };
    assert_eq!(value::<P>(proto, &bytes), expected);
    assert_eq!(value::<Optional>(proto, &bytes), Optional { word: None });
    // An extension, within a group.
    let more = [
        &bytes[..],
        &[100 << 3 & 0x7f | 0x83, 6, 8, 1, 100 << 3 & 0x7f | 0x84, 6],
    ]
    .concat();
    assert_eq!(value::<P>(proto, &more), expected);
    assert_eq!(told(decode::<P>(proto, &[24, 1])), "protobuf_invalid at id");
}

#[test]
fn imports_come_from_the_registry() {
    let main = r#"syntax = "proto3"; package a; import "b/item.proto"; import "confluent/meta.proto";
        message P { b.Item item = 1 [(confluent.field_meta).doc = "what"]; }"#;
    let item = Referenced {
        name: "b/item.proto".into(),
        text: r#"syntax = "proto3"; package b; message Item { string name = 1; }"#.into(),
    };
    #[derive(Deserialize)]
    struct P {
        item: Option<Name>,
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    let schema = WriterSchema::of(1, Language::Protobuf, main, vec![item]);
    let bytes = payload(&[0], &[10, 3, 10, 1, b'x']);
    let Decoded::Value(read) = decoder::<P>([schema]).decode(&bytes) else {
        panic!()
    };
    assert_eq!(read.item.unwrap().name, "x");
    let alone = WriterSchema::of(1, Language::Protobuf, main, Vec::new());
    assert_eq!(told(decoder::<P>([alone]).decode(&bytes)), "schema_incompatible");
    assert_eq!(
        told(decoder::<P>([WriterSchema::new(1, "\"int\"")]).decode(&bytes)),
        "schema_incompatible"
    );
    assert_eq!(told(decoder::<P>([]).decode(&bytes)), "waits");
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| {
        (0..depth).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut out = vec![26];
            wire::put_varint(inner.len() as u64, &mut out);
            [out, inner].concat()
        })
    };
    let mut items = decoder::<Item>([registered(SHOP)]);
    assert_eq!(told(items.decode(&payload(&[1], &nested(40)))), "a value");
    assert!(told(items.decode(&payload(&[1], &nested(20_000)))).starts_with("protobuf_invalid"));
    let mut any = decoder::<Value>([registered(SHOP)]);
    assert!(told(any.decode(&payload(&[1], &nested(20_000)))).starts_with("protobuf_invalid"));
}

#[test]
fn prost_types_are_decoded_where_the_message_is_theirs() {
    use crate::codec::format::{DecoderResources, Format};
    use prost_reflect::prost_types::Timestamp;
    let own = r#"syntax = "proto3"; package google.protobuf;
        message Other { int64 seconds = 1; } message Timestamp { int64 seconds = 1; int32 nanos = 2; }"#;
    let registry = Registry::never_asked();
    registry.provide(registered(own));
    let waker = Waker::new(|| {});
    let resources = DecoderResources {
        registry: Some(&registry),
        waker: &waker,
    };
    let format = prost::ProstFormat::<Timestamp>::new();
    let mut decoder = format.decoder(&resources).unwrap();
    let bytes = Timestamp { seconds: 7, nanos: 9 }.encode_to_vec();
    let read = decoder.decode(&payload(&[1], &bytes));
    assert!(matches!(read, Decoded::Value(Timestamp { seconds: 7, nanos: 9 })));
    assert_eq!(
        told(decoder.decode(&payload(&[0], &bytes))),
        "schema_incompatible"
    );
    assert_eq!(told(decoder.decode(&payload(&[1], &[8]))), "protobuf_invalid");
    let compare = format.compare().unwrap();
    assert!(compare(&registered(own)).is_empty());
    assert!(compare(&registered(SHOP)).is_empty(), "it imports the message");
    assert!(compare(&registered("syntax = \"proto3\"; message A {}"))[0].every);
}

#[test]
fn plain_messages_need_no_registry() {
    use crate::codec::format::Format;
    use format::{Proto, ProtobufPlainFormat};
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("b")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "b/item.proto",
        r#"syntax = "proto3"; package b; message Item { string name = 1; }"#,
    );
    write(
        "a.proto",
        "syntax = \"proto3\";\npackage a;\nimport public 'b/item.proto';\nmessage P { b.Item item = 1; }",
    );
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct P {
        item: Option<BTreeMap<String, String>>,
    }
    let prepared = |mut format: ProtobufPlainFormat| Format::<P>::prepare(&mut format);
    let file = || Proto::file(dir.path().join("a.proto"));
    prepared(ProtobufPlainFormat::new(file(), "P")).unwrap();
    prepared(ProtobufPlainFormat::new(file(), "a.P")).unwrap();
    let error = |result: crate::error::Result<()>| result.unwrap_err().to_string();
    assert!(error(prepared(ProtobufPlainFormat::new(file(), "Q"))).contains("it has a.P"));
    assert!(
        error(prepared(ProtobufPlainFormat::new(
            file().include("/nowhere"),
            "P"
        )))
        .contains("b/item.proto")
    );
    assert!(error(prepared(ProtobufPlainFormat::new(Proto::file("no.proto"), "P"))).contains("no.proto"));
    let unfit = r#"syntax = "proto3"; message P { int64 item = 1; }"#;
    assert!(error(prepared(ProtobufPlainFormat::new(unfit, "P"))).contains("the schema has int64"));
}
