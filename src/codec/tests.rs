//! Every decoder on hostile bytes: no panic, and no more memory than the bytes account for.
//!
//! The allocator counts, for each thread by itself: what a decoder holds at its peak is held against the
//! length of what it was given.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::avro::plain::Plain;
use super::avro::{Avro, Encoder};
use super::bytes::Bytes;
use super::debezium::decoder::{EventAvro, EventJson};
use super::debezium::envelope::Envelope;
use super::debezium::key::{ConnectJson, KeyFormat};
use super::format::{DecoderResources, Format};
use super::json::{Json, Strict};
use super::json_schema::JsonSchemaFormat;
#[cfg(feature = "protobuf")]
use super::protobuf::format::ProtobufFormat;
use super::registry::{Registry, WriterSchema};
use super::text::Text;
use super::writer::Language;
use super::{Decode, Decoded};
use crate::bridge::Waker;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // At the end of a thread there may be nothing left to count with.
    let _gone = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _gone = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: everything is passed on to the system's allocator as it came; the counters are cells without
// destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        let _gone = TAKEN.try_with(|taken| taken.set(taken.get() + layout.size()));
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What this thread holds: it took so many bytes more than it gave back.
pub(crate) fn held() -> isize {
    HELD.get()
}

/// How many bytes this thread has taken so far, whether it gave them back or not.
pub(crate) fn taken() -> usize {
    TAKEN.get()
}

/// What `run` holds at its peak, beyond what was held before.
pub(crate) fn peak(run: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    run();
    usize::try_from(PEAK.get() - before).unwrap_or(0)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: i64,
    name: String,
    tags: Vec<String>,
    counts: Vec<i64>,
    limits: BTreeMap<String, f64>,
    side: Side,
    next: Option<Box<Order>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Side {
    Buy,
    Sell,
}

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"id","type":"long"},{"name":"name","type":"string"},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"counts","type":{"type":"array","items":"long"}},
    {"name":"limits","type":{"type":"map","values":"double"}},
    {"name":"side","type":{"type":"enum","name":"Side","symbols":["Buy","Sell"]}},
    {"name":"next","type":["null","Order"]}]}"#;
/// Another order of fields, some promoted, one more, and one whose items take no bytes.
const OLDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"name","type":"bytes"},{"name":"id","type":"int"},{"name":"nothing","type":{"type":"array","items":"null"}},
    {"name":"tags","type":{"type":"array","items":"string"}},
    {"name":"counts","type":{"type":"array","items":"int"}},
    {"name":"limits","type":{"type":"map","values":"float"}},
    {"name":"side","type":{"type":"enum","name":"Side","symbols":["Sell","Buy","Hold"]}},
    {"name":"next","type":["Order","null"]}]}"#;

fn order() -> impl Strategy<Value = Order> {
    let one = (
        any::<i64>(),
        ".{0,8}",
        vec(".{0,4}", 0..4),
        vec(any::<i64>(), 0..6),
        any::<bool>(),
    );
    vec(one, 1..3)
        .prop_map(|all| {
            all.into_iter().fold(None, |next, (id, name, tags, counts, buy)| {
                let limits = tags.iter().map(|tag: &String| (tag.clone(), 1.5)).collect();
                let side = if buy { Side::Buy } else { Side::Sell };
                Some(Box::new(Order {
                    id,
                    name,
                    tags,
                    counts,
                    limits,
                    side,
                    next,
                }))
            })
        })
        .prop_map(|order| *order.expect("one at least"))
}

/// What is done to bytes that were good.
#[derive(Clone, Debug)]
enum Harm {
    Set(usize, u8),
    Cut(usize),
    /// A number where a length may stand: 2^62 among others.
    Number(usize, u8),
    Repeat(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        any::<usize>().prop_map(Harm::Cut),
        (any::<usize>(), 1..10u8).prop_map(|(at, len)| Harm::Number(at, len)),
        (any::<usize>(), 1..200usize).prop_map(|(at, times)| Harm::Repeat(at, times)),
    ]
}

fn harmed(mut bytes: Vec<u8>, harms: &[Harm]) -> Vec<u8> {
    for harm in harms {
        let len = bytes.len().max(1);
        match harm {
            Harm::Set(at, byte) => bytes.get_mut(at % len).into_iter().for_each(|own| *own = *byte),
            Harm::Cut(at) => bytes.truncate(at % len),
            Harm::Number(at, more) => {
                let number = std::iter::repeat_n(0xfe, usize::from(*more)).chain([1]);
                let at = (at % len).min(bytes.len());
                bytes.splice(at..at, number);
            }
            Harm::Repeat(at, times) => {
                let part = bytes[(at % len).min(bytes.len())..].to_vec();
                let part = &part[..part.len().min(16)];
                (0..*times).for_each(|_| bytes.extend(part));
            }
        }
    }
    bytes
}

/// Decoders that forget what they made, by what they are of.
fn decoders() -> Vec<(&'static str, Box<dyn FnMut(&[u8])>)> {
    fn of<T: 'static>(mut decoder: impl Decode<T>) -> Box<dyn FnMut(&[u8])> {
        Box::new(move |bytes| drop(decoder.decode(bytes)))
    }
    fn framed(reader: Option<&str>) -> Avro<Order> {
        let registry = Registry::never_asked();
        for (id, text) in [(1, ORDER), (2, OLDER), (3, r#""long""#), (4, "nonsense")] {
            registry.provide(WriterSchema::new(id, text));
        }
        Avro::new(registry, reader, Waker::new(|| {})).unwrap()
    }
    let mut all = vec![
        ("json", of(Json::<Order>::new())),
        ("strict json", of(Strict::<Order>::new())),
        ("any json", of(Json::<serde_json::Value>::new())),
        ("framed", of(framed(None))),
        ("framed and resolved", of(framed(Some(ORDER)))),
        ("plain", of(Plain::<Order>::new(ORDER, None).unwrap())),
        (
            "plain and resolved",
            of(Plain::<Order>::new(OLDER, Some(ORDER)).unwrap()),
        ),
        ("text", of(Text::<String>::new())),
        ("number", of(Text::<u64>::new())),
        ("bytes", of(Bytes::<Vec<u8>>::new())),
        ("binary number", of(Bytes::<u64>::new())),
        ("key", of(Text::<(u32, u32)>::new())),
    ];
    all.extend(formats());
    all
}

/// Decoders that are made by their formats.
fn formats() -> Vec<(&'static str, Box<dyn FnMut(&[u8])>)> {
    fn of<T: 'static>(format: impl Format<T>) -> Box<dyn FnMut(&[u8])> {
        let registry = Registry::never_asked();
        for (id, text) in [(1, ORDER), (2, OLDER), (3, CHANGE)] {
            registry.provide(WriterSchema::new(id, text));
        }
        let more = [
            (4, Language::Protobuf, ORDER_PROTO),
            (5, Language::JsonSchema, ORDER_JSON),
        ];
        for (id, language, text) in more {
            registry.provide(WriterSchema::of(id, language, text, Vec::new()));
        }
        let waker = Waker::new(|| {});
        let resources = DecoderResources {
            registry: Some(&registry),
            waker: &waker,
        };
        let mut decoder = format.decoder(&resources).unwrap();
        Box::new(move |bytes| drop(decoder.decode(bytes)))
    }
    vec![
        ("debezium json", of::<Envelope<Order>>(EventJson)),
        ("debezium avro", of::<Envelope<Order>>(EventAvro::default())),
        ("debezium key", of::<(i64, String)>(KeyFormat(ConnectJson))),
        ("json schema", of::<Order>(JsonSchemaFormat::new())),
        #[cfg(feature = "json-schema")]
        ("validated json", of::<Order>(JsonSchemaFormat::validated())),
        #[cfg(feature = "protobuf")]
        ("protobuf", of::<Order>(ProtobufFormat)),
        #[cfg(feature = "protobuf")]
        ("any protobuf", of::<serde_json::Value>(ProtobufFormat)),
    ]
}

const CHANGE: &str = r#"{"type":"record","name":"Envelope","fields":[
    {"name":"op","type":"string"},
    {"name":"after","type":["null",{"type":"record","name":"Order","fields":[{"name":"id","type":"long"}]}]},
    {"name":"source","type":{"type":"record","name":"Source","fields":[{"name":"lsn","type":["null","long"]}]}}]}"#;
const ORDER_PROTO: &str = r#"syntax = "proto3";
    enum Side { Buy = 0; Sell = 1; }
    message Order {
      int64 id = 1; string name = 2; repeated string tags = 3; repeated int64 counts = 4;
      map<string, double> limits = 5; Side side = 6; Order next = 7;
    }"#;
const ORDER_JSON: &str = r##"{"type":"object","properties":{
    "id":{"type":"integer"},"name":{"type":"string","pattern":"^[a-z]*$"},
    "tags":{"type":"array","uniqueItems":true},"next":{"anyOf":[{"type":"null"},{"$ref":"#"}]}}}"##;

/// An order as Protobuf has it.
#[cfg(feature = "protobuf")]
fn in_protobuf(order: &Order) -> Vec<u8> {
    use prost_reflect::prost::Message;
    let mut out = Vec::new();
    super::protobuf::write_header(4, &[0], &mut out);
    let message = super::protobuf::tests::message(ORDER_PROTO, "Order", serde_json::to_value(order).unwrap());
    out.extend(message.encode_to_vec());
    out
}

#[cfg(not(feature = "protobuf"))]
fn in_protobuf(_: &Order) -> Vec<u8> {
    Vec::new()
}

/// Every decoder on the same bytes. What may be held: so many times the payload, as an item of two bytes
/// becomes a value of a hundred; and a room for items that take no bytes, and for what serde reserves on a
/// promise.
fn bounded(bytes: &[u8]) {
    for (name, mut decode) in decoders() {
        let held = peak(|| decode(bytes));
        let allowed = 200 * bytes.len() + (2 << 20);
        assert!(held <= allowed, "{name} holds {held} bytes for {}", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn harmed_payloads(order in order(), harms in vec(harm(), 0..4), id in 1..5u8) {
        let json = serde_json::to_vec(&order).unwrap();
        let framed = Encoder::new(u32::from(id), ORDER).unwrap().encode(&order).unwrap();
        bounded(&harmed(framed[5..].to_vec(), &harms));
        bounded(&harmed(framed, &harms));
        let change = serde_json::json!({ "op": "c", "after": &order, "source": { "lsn": 7, "ts_ms": 1 } });
        bounded(&harmed(serde_json::to_vec(&change).unwrap(), &harms));
        bounded(&harmed([&[0, 0, 0, 0, 5], &json[..]].concat(), &harms));
        bounded(&harmed(in_protobuf(&order), &harms));
        bounded(&harmed(json, &harms));
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>, id in 0..6u8) {
        bounded(&bytes);
        bounded(&[&[0, 0, 0, 0, id], &bytes[..]].concat());
    }
}

#[test]
fn the_decoders_do_decode_what_is_good() {
    let order = Order {
        id: 1,
        name: "a".into(),
        tags: vec!["b".into()],
        counts: vec![1, 2],
        limits: BTreeMap::from([("c".into(), 0.5)]),
        side: Side::Sell,
        next: None,
    };
    let framed = Encoder::new(1, ORDER).unwrap().encode(&order).unwrap();
    let plain = Plain::<Order>::new(ORDER, None).unwrap().decode(&framed[5..]);
    assert!(matches!(plain, Decoded::Value(read) if read == order));
}

#[test]
fn a_length_of_2_to_the_62_reserves_nothing() {
    // As the first length of an order's name, of its lists, and of its map.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
    for before in [&[2][..], &[2, 0], &[2, 0, 0], &[2, 0, 0, 0]] {
        let datum = [before, &huge, &[0; 100]].concat();
        let framed = [&[0, 0, 0, 0, 1], &datum[..]].concat();
        for bytes in [&datum, &framed] {
            for (name, mut decode) in decoders()
                .into_iter()
                .filter(|(name, _)| name.contains("framed") || name.contains("plain"))
            {
                decode(&[]); // What is made once.
                let held = peak(|| decode(bytes));
                assert!(held < 64 << 10, "{name} holds {held} bytes");
            }
        }
    }
}

#[test]
fn peaks_are_seen() {
    assert!(peak(|| drop(Vec::<u8>::with_capacity(1 << 20))) >= 1 << 20);
}
