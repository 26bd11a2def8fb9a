//! Any schema, any message of it, against the tree that `prost-reflect` decodes.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::vec;
use proptest::prelude::*;
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, SerializeOptions, Value as Tree,
};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

use super::{decoder, payload, pool, registered};
use crate::codec::protobuf::wire;
use crate::codec::{Decode, Decoded};

const SCALARS: [&str; 16] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "bool", "string", "bytes", "E",
];
const MESSAGES: usize = 3;

/// Randomness that shrinks: its bytes run out, and then it is all zeros.
struct Entropy(std::vec::IntoIter<u8>);

impl Entropy {
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.0.next().unwrap_or(0)) % end
    }

    fn bits(&mut self) -> u64 {
        let small = self.below(3) > 0;
        let bytes = [(); 8].map(|()| self.0.next().unwrap_or(0));
        u64::from_le_bytes(bytes) >> if small { 58 } else { 0 }
    }

    fn text(&mut self) -> String {
        let len = self.below(4);
        (0..len).map(|_| ["a", "é", "\0", "z"][self.below(4)]).collect()
    }
}

/// A file of messages that contain each other.
fn proto(entropy: &mut Entropy) -> String {
    let mut text = String::from("syntax = \"proto3\";\nenum E { A = 0; B = 1; C = -5; }\n");
    for message in 0..MESSAGES {
        writeln!(text, "message M{message} {{").unwrap();
        let mut numbers: Vec<usize> = (1..40).chain(250..270).collect();
        for field in 0..entropy.below(8) {
            let number = numbers.swap_remove(entropy.below(numbers.len()));
            let kind = match entropy.below(SCALARS.len() + 5) {
                scalar if scalar < SCALARS.len() => SCALARS[scalar].to_owned(),
                _ => format!("M{}", entropy.below(MESSAGES)),
            };
            match entropy.below(5) {
                0 => writeln!(text, "  repeated {kind} f{field} = {number};"),
                1 => {
                    let key = ["string", "int32", "sint64", "fixed32", "bool", "uint64"][entropy.below(6)];
                    writeln!(text, "  map<{key}, {kind}> f{field} = {number};")
                }
                2 => writeln!(text, "  optional {kind} f{field} = {number};"),
                3 => {
                    let other = numbers.swap_remove(entropy.below(numbers.len()));
                    writeln!(
                        text,
                        "  oneof o{field} {{ {kind} f{field} = {number}; string g{field} = {other}; }}"
                    )
                }
                _ => writeln!(text, "  {kind} f{field} = {number};"),
            }
            .unwrap();
        }
        text.push_str("}\n");
    }
    text
}

fn scalar(field: &FieldDescriptor, entropy: &mut Entropy, depth: usize) -> Tree {
    let bits = entropy.bits();
    match field.kind() {
        Kind::Double => Tree::F64(f64::from_bits(bits)),
        Kind::Float => Tree::F32(f32::from_bits(bits as u32)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Tree::I32(bits as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Tree::I64(bits as i64),
        Kind::Uint32 | Kind::Fixed32 => Tree::U32(bits as u32),
        Kind::Uint64 | Kind::Fixed64 => Tree::U64(bits),
        Kind::Bool => Tree::Bool(bits & 1 == 1),
        Kind::String => Tree::String(entropy.text()),
        Kind::Bytes => Tree::Bytes(entropy.text().into_bytes().into()),
        Kind::Enum(_) => Tree::EnumNumber([0, 1, -5, 7][entropy.below(4)]),
        Kind::Message(message) => Tree::Message(any_message(&message, entropy, depth + 1)),
    }
}

fn key(field: &FieldDescriptor, entropy: &mut Entropy) -> MapKey {
    match scalar(field, entropy, 0) {
        Tree::Bool(key) => MapKey::Bool(key),
        Tree::I32(key) => MapKey::I32(key),
        Tree::I64(key) => MapKey::I64(key),
        Tree::U32(key) => MapKey::U32(key),
        Tree::U64(key) => MapKey::U64(key),
        Tree::String(key) => MapKey::String(key),
        other => panic!("{other:?} is no key"),
    }
}

fn any_message(message: &MessageDescriptor, entropy: &mut Entropy, depth: usize) -> DynamicMessage {
    let mut made = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if depth > 3 || entropy.below(3) == 0 {
            continue;
        }
        let count = entropy.below(4);
        let value = match () {
            () if field.is_map() => {
                let entry = field.kind();
                let entry = entry.as_message().unwrap();
                let (keys, values) = (entry.map_entry_key_field(), entry.map_entry_value_field());
                let entries = (0..count).map(|_| (key(&keys, entropy), scalar(&values, entropy, depth)));
                Tree::Map(entries.collect())
            }
            () if field.is_list() => Tree::List((0..count).map(|_| scalar(&field, entropy, depth)).collect()),
            () => scalar(&field, entropy, depth),
        };
        made.set_field(&field, value);
    }
    made
}

/// Whatever there is, as JSON with bytes in base64.
#[derive(Debug)]
struct Any(Value);

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Any;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Any, E> {
                Ok(Any(value.into()))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Any, E> {
                Ok(Any(value.into()))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Any, E> {
                Ok(Any(value.into()))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Any, E> {
                let word = || match value {
                    _ if value.is_nan() => "NaN",
                    _ if value > 0.0 => "Infinity",
                    _ => "-Infinity",
                };
                let number = Number::from_f64(value).map(Value::Number);
                Ok(Any(number.unwrap_or_else(|| word().into())))
            }
            fn visit_str<E>(self, value: &str) -> Result<Any, E> {
                Ok(Any(value.into()))
            }
            fn visit_bytes<E>(self, value: &[u8]) -> Result<Any, E> {
                Ok(Any(STANDARD.encode(value).into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Any, A::Error> {
                let mut all = Vec::new();
                while let Some(Any(item)) = items.next_element()? {
                    all.push(item);
                }
                Ok(Any(Value::Array(all)))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Any, A::Error> {
                let mut all = Map::new();
                while let Some((key, Any(value))) = entries.next_entry::<String, Any>()? {
                    all.insert(key, value);
                }
                Ok(Any(Value::Object(all)))
            }
        }
        deserializer.deserialize_any(Take)
    }
}

/// What the tree says, without what is not there.
fn expected(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    without_nulls(json.unwrap())
}

fn without_nulls(json: Value) -> Value {
    match json {
        Value::Object(fields) => {
            let there = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(there.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// Fields of a message in another order; those of one number keep theirs.
fn shuffled(bytes: &[u8], entropy: &mut Entropy) -> Vec<u8> {
    let (mut fields, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        let (number, written) = wire::tag(bytes, &mut at).unwrap();
        wire::skip(bytes, &mut at, number, written).unwrap();
        fields.push((number, &bytes[start..at]));
    }
    let salt = entropy.below(255) as u32;
    fields.sort_by_key(|(number, _)| (number * 31 + salt) % 7);
    fields.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Also in two parts, which the reader has to merge, and with harm done to the bytes: what the tree reads
    /// is read, and as the same.
    #[test]
    fn any_message_is_what_the_tree_is(
        schema in vec(any::<u8>(), 0..80),
        values in vec(any::<u8>(), 0..400),
        harm in proptest::option::of((any::<usize>(), any::<u8>())),
        parts in 1..3usize,
    ) {
        // The tree recurses through a hundred levels, which needs more stack than the thread of a test has.
        let check = move || against_the_tree(schema, values, harm, parts);
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(check).unwrap();
        thread.join().unwrap()?;
    }
}

fn against_the_tree(
    schema: Vec<u8>,
    values: Vec<u8>,
    harm: Option<(usize, u8)>,
    parts: usize,
) -> Result<(), TestCaseError> {
    let text = proto(&mut Entropy(schema.into_iter()));
    let message = pool(&text).get_message_by_name("M0").unwrap();
    let mut entropy = Entropy(values.into_iter());
    let mut bytes = Vec::new();
    for _ in 0..parts {
        let part = any_message(&message, &mut entropy, 0).encode_to_vec();
        bytes.extend(shuffled(&part, &mut entropy));
    }
    if let Some((at, byte)) = harm
        && !bytes.is_empty()
    {
        let len = bytes.len();
        bytes[at % len] = byte;
    }
    let tree = DynamicMessage::decode(message, &bytes[..]);
    let read = decoder::<Any>([registered(&text)]).decode(&payload(&[0], &bytes));
    match (tree, read) {
        (Ok(tree), Decoded::Value(Any(read))) => {
            prop_assert_eq!(without_nulls(read), expected(&tree), "{}", text);
        }
        (Err(_), Decoded::Dead(..) | Decoded::DeadAt(..)) => {}
        // Damage to a value that a later one replaces is not noticed. A field with the wrong wire type is
        // refused, where the tree takes some for unknown fields.
        (Err(_), Decoded::Value(_)) if harm.is_some() => {}
        (Ok(_), Decoded::Dead(..) | Decoded::DeadAt(..)) if harm.is_some() => {}
        (tree, read) => prop_assert!(false, "{text}\n{bytes:?}\n{tree:?}\n{read:?}"),
    }
    Ok(())
}
