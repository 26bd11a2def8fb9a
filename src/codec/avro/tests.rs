use std::collections::BTreeMap;
use std::time::Duration;

use apache_avro::types::Value as Datum;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::codec::registry::{Language, Verdict};

fn decoder<T>(writers: &[&str], reader: Option<&str>) -> Avro<T> {
    let registry = Registry::never_asked();
    for (id, text) in writers.iter().enumerate() {
        registry.provide(WriterSchema::new(id as u32, *text));
    }
    Avro::new(registry, reader, Waker::new(|| {})).unwrap()
}

fn payload(id: u32, datum: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    confluent::write(id, &mut out);
    out.extend(datum);
    out
}

/// Decodes a datum of `writer`, as a whole payload.
fn decode<T: DeserializeOwned + 'static>(
    writer: &str,
    reader: Option<&str>,
    datum: &[u8],
) -> Result<T, Cause> {
    match decoder(&[writer], reader).decode(&payload(0, datum)) {
        Decoded::Value(value) => Ok(value),
        Decoded::Dead(cause, Some(0)) => Err(cause),
        Decoded::Dead(..) | Decoded::DeadAt(..) | Decoded::Wait => panic!("neither value nor cause"),
    }
}

#[test]
fn null_is_told_from_all_else() {
    let nullable = r#"["null",{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}]"#;
    let mut decoder: Avro<BTreeMap<String, i64>> = decoder(&[nullable, r#""null""#, r#""long""#], None);
    for (null, id, datum) in [
        (true, 0, &b"\0"[..]),
        (true, 1, b""),
        (false, 0, b"\x02\x0e"),
        (false, 0, b"\0\0"),
        (false, 0, b""),
        (false, 2, b"\0"),
    ] {
        assert_eq!(
            decoder.is_null(&payload(id, datum)),
            null,
            "schema {id}, {datum:?}"
        );
    }
    for no_wire_format in [&b""[..], b"null", b"\0\0\0"] {
        assert!(!decoder.is_null(no_wire_format));
    }
    let mut plain: plain::Plain<i64> = plain::Plain::new(nullable, None).unwrap();
    assert!(plain.is_null(b"\0") && !plain.is_null(b"\x02\x0e") && !plain.is_null(b""));
}

/// The library's own encoder, from its own values: nothing of ours takes part.
fn encode(writer: &str, datum: Datum) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(writer).unwrap();
    GenericDatumWriter::builder(&schema)
        .build()
        .unwrap()
        .write_value_to_vec(datum)
        .unwrap()
}

/// Bytes, as serde has them.
#[derive(Clone, Debug, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

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

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Side {
    Buy,
    Sell,
    Other,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leg {
    venue: String,
    cents: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Trade {
    id: i64,
    price: f64,
    ratio: f32,
    note: String,
    side: Side,
    tag: Option<String>,
    leg: Leg,
    legs: Vec<Leg>,
    limits: BTreeMap<String, i64>,
    blob: Blob,
    digest: Blob,
    at: i64,
    open: bool,
    added: i64,
    more: Vec<i64>,
}

fn leg_schema() -> Value {
    json!({ "type": "record", "name": "Leg", "fields": [
        { "name": "venue", "type": "string" },
        { "name": "cents", "type": "long" },
    ] })
}

fn trade_schema() -> String {
    json!({ "type": "record", "name": "Trade", "namespace": "desk.v2", "aliases": ["desk.v1.Deal"], "fields": [
        { "name": "id", "type": "long" },
        { "name": "price", "type": "double" },
        { "name": "ratio", "type": "float" },
        { "name": "note", "type": "string", "aliases": ["remark", "comment"] },
        { "name": "side", "type":
            { "type": "enum", "name": "Side", "symbols": ["Buy", "Sell", "Other"], "default": "Other" } },
        { "name": "tag", "type": ["null", "string"], "default": null },
        { "name": "leg", "type": leg_schema() },
        { "name": "legs", "type": { "type": "array", "items": "Leg" } },
        { "name": "limits", "type": { "type": "map", "values": "long" } },
        { "name": "blob", "type": "bytes" },
        { "name": "digest", "type": { "type": "fixed", "name": "Digest", "size": 4 } },
        { "name": "at", "type": { "type": "long", "logicalType": "timestamp-millis" } },
        { "name": "open", "type": "boolean" },
        { "name": "added", "type": "long", "default": 42 },
        { "name": "more", "type": { "type": "array", "items": "long" }, "default": [1, 2] },
    ] })
    .to_string()
}

/// What the writer does otherwise than the reader.
#[derive(Clone, Debug)]
struct Otherwise {
    int_id: bool,
    /// 0 double, 1 float, 2 long, 3 int.
    price: u8,
    long_ratio: bool,
    comment: bool,
    /// A symbol that the reader does not know.
    short_side: bool,
    /// 0 as the reader, 1 branches swapped, 2 never null, 3 none.
    tag: u8,
    int_cents: bool,
    leg_junk: bool,
    text_blob: bool,
    plain_at: bool,
    no_added: bool,
    no_more: bool,
    gone: bool,
    renamed: bool,
    /// Fields begin with this one.
    turn: usize,
}

impl Otherwise {
    const NOT: Self = Self {
        int_id: false,
        price: 0,
        long_ratio: false,
        comment: false,
        short_side: false,
        tag: 0,
        int_cents: false,
        leg_junk: false,
        text_blob: false,
        plain_at: false,
        no_added: false,
        no_more: false,
        gone: false,
        renamed: false,
        turn: 0,
    };

    fn write_leg(&self, leg: &Leg) -> Datum {
        let cents = if self.int_cents {
            Datum::Int(leg.cents as i32)
        } else {
            Datum::Long(leg.cents)
        };
        let mut fields = vec![
            ("venue".into(), Datum::String(leg.venue.clone())),
            ("cents".into(), cents),
        ];
        if self.leg_junk {
            let junk = Datum::Map([("junk".to_owned(), Datum::Union(1, Box::new(Datum::Int(7))))].into());
            fields.insert(1, ("junk".into(), junk));
        }
        Datum::Record(fields)
    }

    /// The writer's schema and a trade written by it.
    fn write(&self, trade: &Trade) -> (String, Datum) {
        let long = |int: bool| if int { "int" } else { "long" };
        let number = |int: bool, value: i64| {
            if int {
                Datum::Int(value as i32)
            } else {
                Datum::Long(value)
            }
        };
        let mut leg = leg_schema();
        leg["fields"][1]["type"] = json!(long(self.int_cents));
        if self.leg_junk {
            let junk = json!({ "name": "junk", "type": { "type": "map", "values": ["null", "int"] } });
            leg["fields"].as_array_mut().unwrap().insert(1, junk);
        }
        let (price, price_type) = match self.price {
            0 => (Datum::Double(trade.price), "double"),
            1 => (Datum::Float(trade.price as f32), "float"),
            int => (number(int == 3, trade.price as i64), long(int == 3)),
        };
        let ratio = match self.long_ratio {
            true => (Datum::Long(trade.ratio as i64), "long"),
            false => (Datum::Float(trade.ratio), "float"),
        };
        let symbols = ["Short", "Sell", "Buy", "Other"];
        let symbol = if self.short_side {
            "Short".to_owned()
        } else {
            format!("{:?}", trade.side)
        };
        let at = symbols.iter().position(|other| **other == symbol).unwrap();
        let side = (
            Datum::Enum(at as u32, symbol),
            json!({ "type": "enum", "name": "Side", "symbols": symbols }),
        );
        let side = match self.short_side || self.renamed {
            true => side,
            false => {
                let symbols = json!({ "type": "enum", "name": "Side", "symbols": ["Buy", "Sell", "Other"] });
                (
                    Datum::Enum(trade.side as u32, format!("{:?}", trade.side)),
                    symbols,
                )
            }
        };
        let text = |tag: &String| Box::new(Datum::String(tag.clone()));
        let tag = |some: u32, null: u32| match &trade.tag {
            Some(tag) => Datum::Union(some, text(tag)),
            None => Datum::Union(null, Box::new(Datum::Null)),
        };
        let digest = json!({ "type": "fixed", "name": "Digest", "size": 4 });
        let millis = json!({ "type": "long", "logicalType": "timestamp-millis" });
        let legs = trade.legs.iter().map(|leg| self.write_leg(leg)).collect();
        let limits = trade
            .limits
            .iter()
            .map(|(key, value)| (key.clone(), number(self.int_id, *value)))
            .collect();
        let mut fields = vec![
            ("id", number(self.int_id, trade.id), json!(long(self.int_id))),
            ("price", price, json!(price_type)),
            ("ratio", ratio.0, json!(ratio.1)),
            (
                if self.comment { "comment" } else { "note" },
                Datum::String(trade.note.clone()),
                json!("string"),
            ),
            ("side", side.0, side.1),
            ("leg", self.write_leg(&trade.leg), leg.clone()),
            (
                "legs",
                Datum::Array(legs),
                json!({ "type": "array", "items": "Leg" }),
            ),
            (
                "limits",
                Datum::Map(limits),
                json!({ "type": "map", "values": long(self.int_id) }),
            ),
            match self.text_blob {
                true => (
                    "blob",
                    Datum::String(String::from_utf8(trade.blob.0.clone()).unwrap()),
                    json!("string"),
                ),
                false => ("blob", Datum::Bytes(trade.blob.0.clone()), json!("bytes")),
            },
            ("digest", Datum::Fixed(4, trade.digest.0.clone()), digest),
            match self.plain_at {
                true => ("at", Datum::Long(trade.at), json!("long")),
                false => ("at", Datum::TimestampMillis(trade.at), millis),
            },
            ("open", Datum::Boolean(trade.open), json!("boolean")),
        ];
        match self.tag {
            0 => fields.insert(5, ("tag", tag(1, 0), json!(["null", "string"]))),
            1 => fields.insert(5, ("tag", tag(0, 1), json!(["string", "null"]))),
            2 => fields.insert(5, ("tag", *text(trade.tag.as_ref().unwrap()), json!("string"))),
            _ => {}
        }
        if !self.no_added {
            fields.push(("added", Datum::Long(trade.added), json!("long")));
        }
        if !self.no_more {
            let more = trade.more.iter().map(|value| Datum::Long(*value)).collect();
            fields.push((
                "more",
                Datum::Array(more),
                json!({ "type": "array", "items": "long" }),
            ));
        }
        if self.gone {
            let items = Datum::Array(vec![Datum::Union(1, Box::new(self.write_leg(&trade.leg)))]);
            fields.insert(
                8,
                (
                    "gone",
                    items,
                    json!({ "type": "array", "items": ["null", "Leg"] }),
                ),
            );
        }
        // A name must be defined before it is used: only the fields before the first leg may change places.
        fields[..5].rotate_left(self.turn);
        let schema: Vec<_> = fields
            .iter()
            .map(|(name, _, kind)| json!({ "name": name, "type": kind }))
            .collect();
        let name = if self.renamed {
            "desk.v1.Deal"
        } else {
            "desk.v2.Trade"
        };
        let schema = json!({ "type": "record", "name": name, "fields": schema }).to_string();
        let datum = fields
            .into_iter()
            .map(|(name, value, _)| (name.to_owned(), value))
            .collect();
        (schema, Datum::Record(datum))
    }

    /// What a reader is to make of a trade: Avro's rules, spelt out.
    fn read(&self, trade: &Trade) -> Trade {
        let mut out = trade.clone();
        if self.short_side {
            out.side = Side::Other;
        }
        if self.tag == 3 {
            out.tag = None;
        }
        if self.no_added {
            out.added = 42;
        }
        if self.no_more {
            out.more = vec![1, 2];
        }
        out
    }
}

prop_compose! {
    fn leg()(venue in ".{0,3}", cents: i32) -> Leg {
        Leg { venue, cents: i64::from(cents) }
    }
}

prop_compose! {
    /// Numbers that every type holds which they may be written in.
    fn trade()(
        (id, price, ratio, at, added) in (any::<i32>(), -1000..1000i32, -1000..1000i32, any::<i64>(), any::<i64>()),
        (note, blob, tag) in (".{0,9}", ".{0,200}", any::<Option<String>>()),
        side in prop_oneof![Just(Side::Buy), Just(Side::Sell), Just(Side::Other)],
        (leg, legs, more) in (leg(), vec(leg(), 0..4), vec(any::<i64>(), 0..4)),
        limits in btree_map(".{0,3}", any::<i32>().prop_map(i64::from), 0..4),
        (digest, open) in (any::<[u8; 4]>(), any::<bool>()),
    ) -> Trade {
        Trade {
            id: i64::from(id), price: f64::from(price), ratio: ratio as f32, note, side, tag, leg, legs, limits,
            blob: Blob(blob.into_bytes()), digest: Blob(digest.to_vec()), at, open, added, more,
        }
    }
}

prop_compose! {
    fn otherwise()(
        (price, tag, turn) in (0..4u8, 0..4u8, 0..5usize),
        (int_id, long_ratio, comment, short_side, int_cents, leg_junk) in any::<(bool, bool, bool, bool, bool, bool)>(),
        (text_blob, plain_at, no_added, no_more, gone, renamed) in any::<(bool, bool, bool, bool, bool, bool)>(),
    ) -> Otherwise {
        Otherwise {
            int_id, price, long_ratio, comment, short_side, tag, int_cents, leg_junk, text_blob, plain_at, no_added,
            no_more, gone, renamed, turn,
        }
    }
}

/// By the plan, whether it is identical or not.
fn rewritten<T: DeserializeOwned>(plan: &RewritePlan, reader: &Schema, datum: &[u8]) -> Option<T> {
    let mut out = Vec::new();
    plan.rewrite(datum, &mut out).ok()?;
    deserialize(reader, &out)
}

proptest! {
    #[test]
    fn resolves_by_avros_rules(mut trade in trade(), otherwise in otherwise()) {
        if otherwise.tag == 2 && trade.tag.is_none() {
            trade.tag = Some(String::new());
        }
        let (writer, datum) = otherwise.write(&trade);
        let read = decode::<Trade>(&writer, Some(&trade_schema()), &encode(&writer, datum));
        prop_assert_eq!(read, Ok(otherwise.read(&trade)));
    }

    #[test]
    fn the_fast_path_and_the_plan_agree(trade in trade(), int_id: bool, comment: bool, plain_at: bool) {
        let otherwise = Otherwise { int_id, comment, plain_at, ..Otherwise::NOT };
        let (writer, datum) = otherwise.write(&trade);
        let bytes = encode(&writer, datum);
        let reader = Schema::parse(&trade_schema()).unwrap();
        let plan = RewritePlan::resolve(&Schema::parse(&writer).unwrap(), &reader).unwrap();
        prop_assert!(plan.identical);
        prop_assert_eq!(deserialize(&reader, &bytes), Some(trade.clone()));
        prop_assert_eq!(rewritten(&plan, &reader, &bytes), Some(trade));
    }

    #[test]
    fn they_agree_on_damaged_bytes_too(trade in trade(), hits in vec((any::<usize>(), any::<u8>()), 1..4), cut: usize) {
        let (writer, datum) = Otherwise::NOT.write(&trade);
        let mut bytes = encode(&writer, datum);
        for (at, byte) in hits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut % (2 * bytes.len()));
        let reader = Schema::parse(&trade_schema()).unwrap();
        let plan = RewritePlan::resolve(&reader, &reader).unwrap();
        let fast: Option<Trade> = deserialize(&reader, &bytes);
        // Debug: a float may have become one that is not a number.
        prop_assert_eq!(format!("{fast:?}"), format!("{:?}", rewritten::<Trade>(&plan, &reader, &bytes)));
    }

    #[test]
    fn without_a_reader_serdes_rules_hold(trade in trade()) {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Part {
            id: i64,
            leg: Leg,
            #[serde(default)]
            missing: u8,
        }
        let (writer, datum) = Otherwise::NOT.write(&trade);
        let part = Part { id: trade.id, leg: trade.leg.clone(), missing: 0 };
        prop_assert_eq!(decode(&writer, None, &encode(&writer, datum)), Ok(part));
    }

    #[test]
    fn decodes_what_was_encoded(trade in trade()) {
        let schema = trade_schema();
        let bytes = Encoder::new(0, &schema).unwrap().encode(&trade).unwrap();
        match decoder(&[&schema], None).decode(&bytes) {
            Decoded::Value(read) => prop_assert_eq!(trade, read),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn any_bytes_are_a_value_or_dead(bytes: Vec<u8>, otherwise in otherwise(), id in 0..3u32) {
        let writer = otherwise.write(&sample()).0;
        let tree = TREE.to_owned();
        let writers = [writer.as_str(), tree.as_str(), r#"{"type":"array","items":"null"}"#];
        let _trade: Decoded<Trade> = decoder(&writers, Some(&trade_schema())).decode(&payload(id, &bytes));
        let _tree: Decoded<Tree> = decoder(&writers, None).decode(&payload(id, &bytes));
        let _any: Decoded<serde::de::IgnoredAny> = decoder(&writers, None).decode(&payload(id, &bytes));
        let _raw: Decoded<Trade> = decoder(&writers, None).decode(&bytes);
    }
}

fn sample() -> Trade {
    Trade {
        id: 1,
        price: 1.0,
        ratio: 1.0,
        note: "n".into(),
        side: Side::Buy,
        tag: Some("t".into()),
        leg: Leg {
            venue: "v".into(),
            cents: 1,
        },
        legs: vec![],
        limits: BTreeMap::new(),
        blob: Blob(vec![]),
        digest: Blob(vec![0; 4]),
        at: 1,
        open: true,
        added: 1,
        more: vec![],
    }
}

const TREE: &str = r#"{"type":"record","name":"Tree","fields":[
    {"name":"value","type":"int"},
    {"name":"next","type":["null","Tree"]}]}"#;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Tree {
    value: i64,
    next: Option<Box<Tree>>,
}

fn decode_ok<T: DeserializeOwned + 'static>(writer: &str, reader: &str, datum: &[u8]) -> Result<T, Cause> {
    decode(writer, Some(reader), datum)
}

#[test]
fn hostile_lengths_and_counts() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for number in [huge, least] {
        for writer in [r#""string""#, r#""bytes""#, r#"{"type":"array","items":"long"}"#] {
            for reader in [
                None,
                Some(writer),
                Some(r#"["null","string","bytes",{"type":"array","items":"double"}]"#),
            ] {
                let read = decode::<serde::de::IgnoredAny>(writer, reader, &number).map(drop);
                assert_eq!(read, Err(Cause::AvroInvalid), "{writer} {reader:?}");
            }
            assert_eq!(decode::<Vec<i64>>(writer, None, &number), Err(Cause::AvroInvalid));
        }
    }
    // A varint without an end, one too long for an int, one with too many bits.
    assert_eq!(
        decode::<i64>(r#""long""#, None, &[0xff; 11]),
        Err(Cause::AvroInvalid)
    );
    assert_eq!(decode::<i64>(r#""int""#, None, &huge), Err(Cause::AvroInvalid));
    assert_eq!(decode::<i64>(r#""long""#, None, &least), Ok(i64::MIN));
}

#[test]
fn things_without_bytes_are_counted() {
    let (writer, reader) = (
        r#"{"type":"array","items":"null"}"#,
        r#"{"type":"array","items":["int","null"]}"#,
    );
    for reader in [None, Some(reader)] {
        assert_eq!(
            decode::<Vec<Option<i64>>>(writer, reader, &[6, 0]).map(|list| list.len()),
            Ok(3)
        );
        let mut many = Vec::new();
        long::write_long(1_000_000_000, &mut many);
        many.push(0);
        assert_eq!(
            decode::<Vec<Option<i64>>>(writer, reader, &many),
            Err(Cause::AvroInvalid)
        );
        // Within the limit an array, beyond it all arrays together.
        let nested = format!(r#"{{"type":"array","items":{writer}}}"#);
        let mut block = Vec::new();
        long::write_long(60_000, &mut block);
        block.push(0);
        let two = [&[4][..], &block, &block, &[0]].concat();
        assert_eq!(
            decode::<Vec<Vec<Option<i64>>>>(&nested, None, &two),
            Err(Cause::AvroInvalid)
        );
    }
}

#[test]
fn nesting_has_an_end() {
    let tree = |depth: usize| [[2, 2].repeat(depth), vec![2, 0]].concat();
    let double = TREE.replace("\"int\"", "\"double\"");
    for reader in [None, Some(TREE)] {
        assert!(decode::<Tree>(TREE, reader, &tree(20)).is_ok());
        assert_eq!(
            decode::<Tree>(TREE, reader, &tree(100_000)),
            Err(Cause::AvroInvalid)
        );
    }
    let read = decode::<serde::de::IgnoredAny>(TREE, Some(&double), &tree(100_000));
    assert_eq!(read.map(drop), Err(Cause::AvroInvalid));
    #[derive(Debug, Deserialize)]
    struct Doubles {
        value: f64,
        next: Option<Box<Doubles>>,
    }
    let read = decode::<Doubles>(TREE, Some(&double), &tree(1)).unwrap();
    assert_eq!((read.value, read.next.unwrap().value), (1.0, 1.0));
}

#[test]
fn every_byte_must_be_used() {
    assert_eq!(decode(r#""int""#, None, &[2]), Ok(1i64));
    assert_eq!(decode::<i64>(r#""int""#, None, &[2, 0]), Err(Cause::AvroInvalid));
    assert_eq!(
        decode::<f64>(r#""int""#, Some(r#""double""#), &[2, 0]),
        Err(Cause::AvroInvalid)
    );
    assert_eq!(decode::<i64>(r#""int""#, None, &[]), Err(Cause::AvroInvalid));
    // A last field that may be null is missing, not null.
    assert_eq!(decode::<Tree>(TREE, None, &[2]), Err(Cause::AvroInvalid));
}

#[test]
fn wrong_values_are_told_from_wrong_bytes() {
    // The bytes are fine, the type has no place for them.
    assert_eq!(
        decode::<u32>(r#""int""#, None, &[1]),
        Err(Cause::SchemaIncompatible)
    );
    assert_eq!(
        decode::<Leg>(r#""string""#, None, &[2, b'a']),
        Err(Cause::SchemaIncompatible)
    );
    assert_eq!(
        decode::<String>(r#""string""#, None, &[2, 0xff]),
        Err(Cause::AvroInvalid)
    );
    // The schemas have nothing in common.
    assert_eq!(
        decode_ok::<i32>(r#""long""#, r#""int""#, &[2]),
        Err(Cause::SchemaIncompatible)
    );
    // This value has no place in the reader's schema, another one may.
    let (writer, reader) = (r#"["int","string"]"#, r#""long""#);
    assert_eq!(decode_ok(writer, reader, &[0, 2]), Ok(1i64));
    assert_eq!(
        decode_ok::<i64>(writer, reader, &[2, 2, b'a']),
        Err(Cause::SchemaIncompatible)
    );
    assert_eq!(decode_ok::<i64>(writer, reader, &[4, 2]), Err(Cause::AvroInvalid));
    let symbols = |symbols: Value| json!({ "type": "enum", "name": "Side", "symbols": symbols }).to_string();
    let (writer, reader) = (symbols(json!(["Buy", "Hold"])), symbols(json!(["Sell", "Buy"])));
    assert_eq!(decode_ok(&writer, &reader, &[0]), Ok(Side::Buy));
    assert_eq!(
        decode_ok::<Side>(&writer, &reader, &[2]),
        Err(Cause::SchemaIncompatible)
    );
    assert_eq!(decode_ok::<Side>(&writer, &reader, &[4]), Err(Cause::AvroInvalid));
}

#[test]
fn incompatible_pairs() {
    let named = |kind: &str, rest: Value| {
        let mut schema = json!({ "type": kind, "name": "A" });
        schema
            .as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        schema.to_string()
    };
    let pairs = [
        (r#""long""#.into(), r#""int""#.to_owned()),
        (r#""double""#.into(), r#""float""#.into()),
        (r#""null""#.into(), r#"["int","string"]"#.into()),
        (
            r#"["int","null"]"#.into(),
            r#"{"type":"array","items":"int"}"#.into(),
        ),
        (
            named("fixed", json!({ "size": 2 })),
            named("fixed", json!({ "size": 3 })),
        ),
        (
            named("fixed", json!({ "size": 2 })),
            named("fixed", json!({ "size": 2, "name": "B" })),
        ),
        (
            named("enum", json!({ "symbols": ["X"] })),
            named("enum", json!({ "symbols": ["Y"] })),
        ),
        (
            named("record", json!({ "fields": [] })),
            named("record", json!({ "fields": [{ "name": "a", "type": "int" }] })),
        ),
        (
            named("record", json!({ "fields": [] })),
            named("record", json!({ "name": "B", "fields": [] })),
        ),
    ];
    for (writer, reader) in &pairs {
        let resolved = |text| Schema::parse(text).unwrap();
        assert!(
            RewritePlan::resolve(&resolved(writer), &resolved(reader)).is_none(),
            "{writer} {reader}"
        );
        assert!(
            RewritePlan::resolve(&resolved(writer), &resolved(writer)).is_some(),
            "{writer}"
        );
    }
}

#[test]
fn a_readers_union_takes_the_most_alike() {
    #[derive(Debug, PartialEq, Deserialize)]
    enum Number {
        Long(i64),
        Double(f64),
    }
    let reader = r#"["double","long"]"#;
    assert_eq!(decode_ok(r#""long""#, reader, &[2]), Ok(Number::Long(1)));
    assert_eq!(decode_ok(r#""int""#, reader, &[2]), Ok(Number::Double(1.0)));
    assert_eq!(
        decode_ok(r#"["int","long"]"#, reader, &[2, 2]),
        Ok(Number::Long(1))
    );
}

#[test]
fn blocks_may_say_their_length() {
    let (writer, reader) = (
        r#"{"type":"array","items":"int"}"#,
        r#"{"type":"array","items":"double"}"#,
    );
    // Two items in two bytes, then one without a length.
    assert_eq!(decode(writer, None, &[3, 4, 2, 4, 2, 6, 0]), Ok(vec![1i64, 2, 3]));
    assert_eq!(
        decode_ok(writer, reader, &[3, 4, 2, 4, 2, 6, 0]),
        Ok(vec![1.0, 2.0, 3.0])
    );
    // Said wrongly it changes nothing, with a reader's schema or without.
    assert_eq!(decode(writer, None, &[3, 6, 2, 4, 2, 6, 0]), Ok(vec![1i64, 2, 3]));
    assert_eq!(
        decode_ok(writer, reader, &[3, 6, 2, 4, 2, 6, 0]),
        Ok(vec![1.0, 2.0, 3.0])
    );
}

#[test]
fn a_decimal_keeps_its_scale() {
    let decimal =
        |scale| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}"#);
    assert_eq!(
        decode_ok(&decimal(2), &decimal(2), &[2, 5]),
        Ok("0.05".to_owned())
    );
    assert_eq!(
        decode_ok::<String>(&decimal(2), &decimal(3), &[2, 5]),
        Err(Cause::SchemaIncompatible)
    );
}

#[test]
fn defaults_of_every_type() {
    let field =
        |name: &str, kind: Value, default: Value| json!({ "name": name, "type": kind, "default": default });
    let leg = json!({ "type": "record", "name": "Leg", "fields": [
        { "name": "venue", "type": "string" }, { "name": "cents", "type": "long", "default": 7 } ] });
    let reader = json!({ "type": "record", "name": "Trade", "fields": [
        field("id", json!("int"), json!(-1)),
        field("price", json!("double"), json!(2)),
        field("ratio", json!("float"), json!(0.5)),
        field("note", json!("string"), json!("é")),
        field("side", json!({ "type": "enum", "name": "Side", "symbols": ["Buy", "Sell"] }), json!("Sell")),
        field("tag", json!(["string", "null"]), json!("x")),
        field("leg", leg, json!({ "venue": "v" })),
        field("legs", json!({ "type": "array", "items": "Leg" }), json!([{ "venue": "w", "cents": 1 }])),
        field("limits", json!({ "type": "map", "values": "long" }), json!({ "a": 1 })),
        field("blob", json!("bytes"), json!("\u{0}ÿ")),
        field("digest", json!({ "type": "fixed", "name": "Digest", "size": 2 }), json!("\u{1}\u{2}")),
        field("at", json!({ "type": "long", "logicalType": "timestamp-millis" }), json!(5)),
        field("open", json!("boolean"), json!(true)),
        field("added", json!("long"), json!(i64::MIN)),
        field("more", json!({ "type": "array", "items": "long" }), json!([])),
    ] });
    let writer = r#"{"type":"record","name":"Trade","fields":[{"name":"other","type":"string"}]}"#;
    let read = decode_ok(writer, &reader.to_string(), &[2, b'a']).unwrap();
    let expected = Trade {
        id: -1,
        price: 2.0,
        ratio: 0.5,
        note: "é".into(),
        side: Side::Sell,
        tag: Some("x".into()),
        leg: Leg {
            venue: "v".into(),
            cents: 7,
        },
        legs: vec![Leg {
            venue: "w".into(),
            cents: 1,
        }],
        limits: BTreeMap::from([("a".into(), 1)]),
        blob: Blob(vec![0, 255]),
        digest: Blob(vec![1, 2]),
        at: 5,
        open: true,
        added: i64::MIN,
        more: vec![],
    };
    assert_eq!(expected, read);
}

#[test]
fn a_writers_wrong_default_does_no_harm() {
    let writer = r#"{"type":"record","name":"A","fields":[
        {"name":"a","type":["null","string"],"default":"null"},{"name":"b","type":"int","default":"x"}]}"#;
    #[derive(Debug, PartialEq, Deserialize)]
    struct A {
        a: Option<String>,
        b: i32,
    }
    assert_eq!(decode(writer, None, &[0, 2]), Ok(A { a: None, b: 1 }));
}

#[test]
fn what_is_no_avro_schema_is_incompatible() {
    for text in ["", "{", r#""nothing""#, r#"{"type":"record","name":"A"}"#] {
        assert_eq!(
            decode::<i64>(text, None, &[2]),
            Err(Cause::SchemaIncompatible),
            "{text}"
        );
        let registry = Registry::never_asked();
        assert!(
            Avro::<i64>::new(registry, Some(text), Waker::new(|| {})).is_err(),
            "{text}"
        );
    }
    let registry = Registry::never_asked();
    registry.provide(WriterSchema::of(1, Language::JsonSchema, r#""int""#, Vec::new()));
    let mut decoder = Avro::<i64>::new(registry, None, Waker::new(|| {})).unwrap();
    assert!(matches!(
        decoder.decode(&payload(1, &[2])),
        Decoded::Dead(Cause::SchemaIncompatible, Some(1))
    ));
}

#[test]
fn waits_until_the_schema_has_come() {
    // Nobody drives the runtime: the registry is never asked.
    let registry = Registry::never_asked();
    let (sender, woken) = std::sync::mpsc::channel();
    let waker = Waker::new(move || sender.send(()).unwrap_or_default());
    let mut decoder = Avro::<i64>::new(registry.clone(), None, waker).unwrap();
    for _ in 0..3 {
        assert!(matches!(decoder.decode(&payload(7, &[2])), Decoded::Wait));
    }
    assert!(woken.try_recv().is_err());
    registry.provide(WriterSchema::new(7, r#""int""#));
    woken.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(woken.try_recv().is_err(), "one id, one waker");
    assert!(matches!(decoder.decode(&payload(7, &[2])), Decoded::Value(1)));
    registry.bind(Verdict {
        id: 8,
        fingerprint: None,
        since: None,
    });
    decoder.enter(0, true);
    assert!(matches!(
        decoder.decode(&payload(8, &[2])),
        Decoded::Dead(Cause::SchemaUnknown, Some(8))
    ));
    assert!(matches!(decoder.decode(&payload(7, &[4])), Decoded::Value(2)));
    assert!(matches!(
        decoder.decode(&[1, 2]),
        Decoded::Dead(Cause::WireMagic, None)
    ));
}

#[test]
fn an_encoder_leaves_no_half_values() {
    let encoder = Encoder::<String>::new(7, r#""int""#).unwrap();
    let mut out = vec![9];
    assert!(encoder.encode_into(&"x".to_owned(), &mut out).is_err());
    assert_eq!(out, vec![9]);
    assert!(Encoder::<i64>::new(7, "{").is_err());
}

#[test]
fn only_what_changes_no_byte_is_identical() {
    let record = |fields: &[(&str, &str)]| {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, kind)| json!({ "name": name, "type": kind }))
            .collect();
        json!({ "type": "record", "name": "A", "fields": fields }).to_string()
    };
    let symbols = |symbols: Value| json!({ "type": "enum", "name": "E", "symbols": symbols }).to_string();
    let ab = record(&[("a", "int"), ("b", "int")]);
    let pairs = [
        (ab.clone(), ab.clone(), true),
        (ab.clone(), record(&[("a", "long"), ("b", "int")]), true),
        (ab.clone(), record(&[("b", "int"), ("a", "int")]), false),
        (ab.clone(), record(&[("a", "int")]), false),
        (ab.clone(), record(&[("b", "int")]), false),
        (ab.clone(), record(&[("a", "int"), ("b", "float")]), false),
        (symbols(json!(["X"])), symbols(json!(["X", "Y"])), true),
        (symbols(json!(["X", "Y"])), symbols(json!(["Y", "X"])), false),
        (symbols(json!(["X", "Y"])), symbols(json!(["X"])), false),
        (
            r#"["null","int"]"#.into(),
            r#"["null","int","string"]"#.into(),
            true,
        ),
        (r#"["null","int"]"#.into(), r#"["int","null"]"#.into(), false),
        (r#"["null","int"]"#.into(), r#""int""#.into(), false),
        (r#""int""#.into(), r#"["int"]"#.into(), false),
        (TREE.to_owned(), TREE.to_owned(), true),
    ];
    for (writer, reader, identical) in &pairs {
        let schema = |text| Schema::parse(text).unwrap();
        let plan = RewritePlan::resolve(&schema(writer), &schema(reader)).unwrap();
        assert_eq!(plan.identical, *identical, "{writer} {reader}");
    }
    // Fields that change places, with one that is new between them.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Abc {
        a: i64,
        b: i64,
        c: String,
    }
    let reader = r#"{"type":"record","name":"A","fields":[{"name":"b","type":"int"},
        {"name":"c","type":"string","default":"x"},{"name":"a","type":"int"}]}"#;
    assert_eq!(
        decode_ok(&ab, reader, &[2, 4]),
        Ok(Abc {
            a: 1,
            b: 2,
            c: "x".into()
        })
    );
}
