//! Against `serde_avro_fast`, over random schemas and data: whatever it decodes, this decodes to the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::de::{Deserialize, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Value, json};

use super::*;
use crate::codec::avro::long::write_long;

/// What a deserializer gives when it is asked for anything.
#[derive(Debug, PartialEq)]
enum Any {
    Unit,
    Bool(bool),
    Int(i64),
    Float(String),
    Text(String),
    Bytes(Vec<u8>),
    Seq(Vec<Any>),
    Map(Vec<(String, Any)>),
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;
        impl<'de> Visitor<'de> for Anything {
            type Value = Any;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Any, E> {
                Ok(Any::Unit)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Any, E> {
                Ok(Any::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Any, E> {
                Ok(Any::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Any, E> {
                Ok(Any::Int(value as i64))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Any, E> {
                Ok(Any::Float(value.to_string()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Any, E> {
                Ok(Any::Text(value.to_owned()))
            }
            fn visit_bytes<E>(self, value: &[u8]) -> Result<Any, E> {
                Ok(Any::Bytes(value.to_vec()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Any, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Any::Seq(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Any, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    all.push(entry);
                }
                Ok(Any::Map(all))
            }
        }
        deserializer.deserialize_any(Anything)
    }
}

/// What it gives to somebody who asks for an option of an enum.
#[derive(Debug, PartialEq)]
struct Variant(String, Any);

impl<'de> Deserialize<'de> for Variant {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;
        impl<'de> Visitor<'de> for Named {
            type Value = Variant;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an enum")
            }
            fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Variant, A::Error> {
                let (name, content) = access.variant()?;
                Ok(Variant(name, content.newtype_variant()?))
            }
        }
        deserializer.deserialize_enum("E", &[], Named)
    }
}

fn both<T: DeserializeOwned>(schema: &str, datum: &[u8]) -> (Option<T>, Option<T>) {
    let ours = deserialize(&Schema::parse(schema).unwrap(), datum);
    let theirs: serde_avro_fast::Schema = schema.parse().unwrap();
    let theirs = serde_avro_fast::from_datum_slice(datum, &theirs).ok();
    (ours, theirs)
}

/// A schema, and a datum of it by these choices. Names are counted on.
fn schema(next: &mut dyn FnMut(usize) -> usize, named: &mut usize, depth: usize, out: &mut Vec<u8>) -> Value {
    let name = |named: &mut usize| {
        *named += 1;
        format!("space.N{named}")
    };
    let kinds = if depth > 3 { 11 } else { 15 };
    match next(kinds) {
        0 => json!("null"),
        1 => {
            out.push(next(2) as u8);
            json!("boolean")
        }
        2 => {
            write_long(next(1_000) as i64 - 500, out);
            [json!("int"), json!({ "type": "int", "logicalType": "date" })][next(2)].clone()
        }
        3 => {
            write_long((next(1 << 30) as i64 - 500) << next(30), out);
            let millis = json!({ "type": "long", "logicalType": "timestamp-millis" });
            let nanos = json!({ "type": "long", "logicalType": "timestamp-nanos" });
            [json!("long"), millis, nanos][next(3)].clone()
        }
        4 => {
            out.extend((next(1_000) as f32 / 7.0).to_le_bytes());
            json!("float")
        }
        5 => {
            out.extend((next(1_000) as f64 / 7.0).to_le_bytes());
            json!("double")
        }
        6 => {
            let text = "añ".repeat(next(4));
            write_long(text.len() as i64, out);
            out.extend(text.as_bytes());
            [
                json!("string"),
                json!({ "type": "string", "logicalType": "uuid" }),
            ][next(2)]
            .clone()
        }
        7 => {
            let len = next(5);
            write_long(len as i64, out);
            out.extend((0..len).map(|_| next(256) as u8));
            // Within what the other one can do.
            let decimal =
                json!({ "type": "bytes", "logicalType": "decimal", "precision": 20, "scale": next(9) });
            [json!("bytes"), decimal][next(2)].clone()
        }
        8 => {
            let size = next(4) + 1;
            out.extend((0..size).map(|_| next(256) as u8));
            json!({ "type": "fixed", "name": name(named), "size": size })
        }
        9 => {
            out.extend((0..12).map(|_| next(256) as u8));
            json!({ "type": "fixed", "name": name(named), "size": 12, "logicalType": "duration" })
        }
        10 => {
            write_long(next(3) as i64, out);
            json!({ "type": "enum", "name": name(named), "symbols": ["A", "B", "C"] })
        }
        11 => {
            // One item, as the next would have another schema.
            let mut item = Vec::new();
            let items = schema(next, named, depth + 1, &mut item);
            block(next, &item, out);
            json!({ "type": "array", "items": items })
        }
        12 => {
            let mut item = vec![2, b'k'];
            let values = schema(next, named, depth + 1, &mut item);
            block(next, &item, out);
            json!({ "type": "map", "values": values })
        }
        13 => {
            let fields = (0..next(4)).map(|field| {
                let kind = schema(next, named, depth + 1, out);
                json!({ "name": format!("f{field}"), "type": kind })
            });
            let fields: Vec<_> = fields.collect();
            json!({ "type": "record", "name": name(named), "fields": fields })
        }
        _ => {
            let mut datum = Vec::new();
            let inner = match schema(next, named, depth + 1, &mut datum) {
                Value::Array(_) => {
                    datum = vec![2];
                    json!("long")
                }
                other => other,
            };
            let mut branches = vec![json!("null"), inner];
            if next(2) == 0 {
                branches.push(json!({ "type": "fixed", "name": name(named), "size": 1 }));
            }
            let branch = match branches[1] == json!("null") {
                true => {
                    branches.remove(0);
                    0
                }
                false => 1,
            };
            write_long(branch, out);
            out.extend(datum);
            Value::Array(branches)
        }
    }
}

fn block(next: &mut dyn FnMut(usize) -> usize, item: &[u8], out: &mut Vec<u8>) {
    let count = next(3) as i64;
    if count > 0 && next(2) == 0 {
        write_long(-count, out);
        write_long(item.len() as i64 * count, out);
    } else if count > 0 {
        write_long(count, out);
    }
    (0..count).for_each(|_| out.extend(item));
    if count > 0 {
        out.push(0);
    } else {
        write_long(0, out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_serde_avro_fast_decodes_is_decoded_alike(choices in prop::collection::vec(any::<u32>(), 200)) {
        let mut at = 0;
        let mut next = |below: usize| {
            at += 1;
            choices[at % choices.len()] as usize % below
        };
        let mut datum = Vec::new();
        let schema = schema(&mut next, &mut 0, 0, &mut datum).to_string();
        let (ours, theirs) = both::<Any>(&schema, &datum);
        prop_assert!(theirs.is_some(), "{}", schema);
        prop_assert_eq!(&ours, &theirs, "{}", schema);
        prop_assert!(both::<IgnoredAny>(&schema, &datum).0.is_some(), "{}", schema);
        let (ours, theirs) = both::<Option<Any>>(&schema, &datum);
        prop_assert_eq!(ours, theirs, "{}", schema);
        let (ours, theirs) = both::<Variant>(&schema, &datum);
        prop_assert_eq!(ours, theirs, "{}", schema);
        let (ours, theirs) = both::<Option<Variant>>(&schema, &datum);
        prop_assert_eq!(ours, theirs, "{}", schema);
        let (ours, theirs) = both::<BTreeMap<String, Option<Any>>>(&schema, &datum);
        prop_assert_eq!(ours, theirs, "{}", schema);
        let (ours, theirs) = both::<Vec<Any>>(&schema, &datum);
        if theirs.is_some() {
            prop_assert_eq!(ours, theirs, "{}", schema);
        }
        let (ours, theirs) = both::<String>(&schema, &datum);
        if theirs.is_some() {
            prop_assert_eq!(ours, theirs, "{}", schema);
        }
        let (ours, theirs) = both::<i64>(&schema, &datum);
        if theirs.is_some() {
            prop_assert_eq!(ours, theirs, "{}", schema);
        }
    }

    #[test]
    fn nothing_panics(choices in prop::collection::vec(any::<u32>(), 100), bytes: Vec<u8>) {
        let mut at = 0;
        let mut next = |below: usize| {
            at += 1;
            choices[at % choices.len()] as usize % below
        };
        let text = schema(&mut next, &mut 0, 0, &mut Vec::new()).to_string();
        let schema = Schema::parse(&text).unwrap();
        let _any: Option<Any> = deserialize(&schema, &bytes);
        let _ignored: Option<IgnoredAny> = deserialize(&schema, &bytes);
        let _list: Option<Vec<u64>> = deserialize(&schema, &bytes);
    }
}
