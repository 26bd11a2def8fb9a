//! Events as Debezium 3.7 wrote them of a table in Postgres 15, with long values cut short; and events as
//! other connectors and settings have them.

use apache_avro::types::Value as AvroValue;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::convert;
use super::decoder::{EventAvro, EventJson};
use super::envelope::{CapturedChange, Envelope, SourcePosition, WrittenRow};
use super::key::{ConnectJson, KeyFormat};
use crate::bridge::Waker;
use crate::codec::format::{DecoderResources, Format};
use crate::codec::registry::{Registry, WriterSchema};
use crate::codec::{Cause, Decode, Decoded};
use crate::source::Raw;
use crate::source::captured::{Captured, CapturedRecords, Skipped};
use crate::source::records::Records;
use crate::time::EventTime;

/// All columns, with `decimal.handling.mode=string` and `time.precision.mode=microseconds`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    owner: String,
    balance: String,
    note: Option<String>,
    #[serde(with = "convert::base64")]
    photo: Option<Vec<u8>>,
    tags: Option<Vec<String>>,
    nums: Option<Vec<i32>>,
    extra: Option<String>,
    opened: Option<i32>,
    at: Option<EventTime>,
    at3: Option<EventTime>,
    #[serde(with = "convert::zoned")]
    seen: Option<EventTime>,
    rate: Option<f64>,
    open: Option<bool>,
    wake: Option<i64>,
    u: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Id {
    id: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair {
    v: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PairKey {
    a: i32,
    b: String,
}

fn resources(waker: &Waker) -> DecoderResources<'_> {
    DecoderResources {
        registry: None,
        waker,
    }
}

fn json<K, V>() -> CapturedRecords<K, V>
where
    K: serde::de::DeserializeOwned + 'static,
    V: Serialize + serde::de::DeserializeOwned + 'static,
{
    let waker = Waker::new(|| {});
    CapturedRecords {
        key: KeyFormat(ConnectJson).decoder(&resources(&waker)).unwrap(),
        value: EventJson.decoder(&resources(&waker)).unwrap(),
    }
}

fn decode<K: 'static, V: 'static>(
    records: &mut CapturedRecords<K, V>,
    key: Option<&[u8]>,
    payload: Option<&[u8]>,
) -> Decoded<Captured<K, V>> {
    let (offset, timestamp) = (0, EventTime(0));
    records.decode(&Raw {
        offset,
        timestamp,
        key,
        payload,
    })
}

/// Lines of a key and a payload with a tab between; `null` stands for none.
fn lines<K, V>(text: &str) -> Vec<Decoded<Captured<K, V>>>
where
    K: serde::de::DeserializeOwned + 'static,
    V: Serialize + serde::de::DeserializeOwned + 'static,
{
    let mut records = json();
    let some = |text: &str| (text != "null").then(|| text.as_bytes().to_vec());
    let lines = text
        .lines()
        .map(|line| line.split_once('\t').expect("a key and a payload"));
    lines
        .map(|(key, payload)| decode(&mut records, some(key).as_deref(), some(payload).as_deref()))
        .collect()
}

fn values<T: std::fmt::Debug>(decoded: Vec<Decoded<T>>) -> Vec<T> {
    let value = |decoded| match decoded {
        Decoded::Value(value) => value,
        other => panic!("{other:?}"),
    };
    decoded.into_iter().map(value).collect()
}

#[test]
fn events_of_every_kind_are_read_as_they_arrive() {
    let events = values(lines::<Id, Account>(include_str!("tests/accounts.tsv")));
    let [read, bare, update, toast, delete, tombstone, create, ..] = events.as_slice() else {
        panic!("{events:?}");
    };
    let Captured::Row {
        key: Id { id: 1 },
        row: WrittenRow::Whole(ann),
        at: None,
        snapshot: true,
    } = read
    else {
        panic!("{read:?}");
    };
    let at = EventTime(1_709_210_096_123_456);
    let expected = Account {
        owner: "ann".into(),
        balance: "12.34".into(),
        note: Some("hello".into()),
        photo: Some(vec![1, 2]),
        tags: Some(vec!["x".into(), "y".into()]),
        nums: Some(vec![1, 2]),
        extra: Some(r#"{"k": 1}"#.into()),
        opened: Some(19_782),
        at: Some(at),
        at3: Some(EventTime(1_709_210_096_123_000)),
        seen: Some(EventTime(at.0 - 7_200_000_000)),
        rate: Some(1.5),
        open: Some(true),
        wake: Some(45_296_123_456),
        u: Some("00112233-4455-6677-8899-aabbccddeeff".into()),
    };
    assert_eq!(ann, &expected);
    assert!(
        matches!(bare, Captured::Row { row: WrittenRow::Whole(bob), .. } if bob.note.is_none() && bob.seen.is_none())
    );
    let Captured::Row {
        row: WrittenRow::Whole(long),
        at: Some(first),
        snapshot: false,
        ..
    } = update
    else {
        panic!("{update:?}");
    };
    assert_eq!(
        (first.place, first.committed_ms),
        ((22_286_128, 0), 1_796_059_435_204)
    );

    // Whatever the type of what was left out, it is taken from the row before.
    let Captured::Row {
        row: WrittenRow::Partial(partial),
        at: Some(second),
        snapshot: false,
        ..
    } = toast
    else {
        panic!("{toast:?}");
    };
    assert_eq!(partial.missing, ["extra", "note", "nums", "photo", "tags"]);
    assert!(first.repeats(second) && !second.repeats(first) && second.repeats(second));
    let merged: Account = partial.complete(Some(long)).unwrap();
    let balance = "99.99".to_owned();
    assert_eq!(
        merged,
        Account {
            balance,
            ..long.clone()
        }
    );
    assert_eq!(partial.complete::<Account>(None), Err("extra"));

    assert!(matches!(
        delete,
        Captured::Deleted {
            key: Id { id: 1 },
            at: Some(_)
        }
    ));
    assert!(matches!(tombstone, Captured::Tombstone { key: Id { id: 1 } }));
    assert!(matches!(
        create,
        Captured::Row {
            key: Id { id: 3 },
            row: WrittenRow::Partial(_),
            ..
        }
    ));
}

#[test]
fn connects_schema_around_keys_and_payloads_changes_nothing() {
    /// With decimals and times as they are by default.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Default {
        #[serde(with = "convert::unscaled")]
        balance: i64,
        #[serde(with = "convert::millis")]
        at3: Option<EventTime>,
    }
    let events = values(lines::<Id, Default>(include_str!("tests/with_schema.tsv")));
    let first = Default {
        balance: 1234,
        at3: Some(EventTime::from_millis(1_709_210_096_123)),
    };
    let row = |event: &Captured<Id, Default>| match event {
        Captured::Row {
            row: WrittenRow::Whole(row),
            ..
        } => Some(row.clone()),
        _ => None,
    };
    assert_eq!(row(&events[0]), Some(first.clone()));
    // The type has none of the columns that were left out.
    assert_eq!(
        row(&events[2]),
        Some(Default {
            balance: 9999,
            ..first
        })
    );
    assert!(matches!(
        events[3],
        Captured::Deleted {
            key: Id { id: 1 },
            ..
        }
    ));
    assert!(matches!(events[4], Captured::Tombstone { key: Id { id: 1 } }));
}

#[test]
fn keys_of_one_column_need_no_name_for_it_and_those_of_several_have_names() {
    let events = values(lines::<i64, Account>(include_str!("tests/accounts.tsv")));
    assert!(matches!(events[1], Captured::Row { key: 2, .. }));
    let pairs = values(lines::<PairKey, Pair>(include_str!("tests/pairs.tsv")));
    assert!(matches!(&pairs[0], Captured::Row { key: PairKey { a: 1, b }, .. } if b == "x"));
    assert!(matches!(pairs.last(), Some(Captured::Truncated { at: Some(_) })));
    // Two columns are no single value.
    let one = lines::<i64, Pair>(include_str!("tests/pairs.tsv"));
    assert!(matches!(one[0], Decoded::Dead(Cause::KeyInvalid, None)));
    let with_schema = values(lines::<i64, serde_json::Value>(include_str!(
        "tests/with_schema.tsv"
    )));
    assert!(matches!(with_schema[4], Captured::Tombstone { key: 1 }));
}

/// The cause and the place of a payload that is no event, or what it is.
fn told(payload: &str) -> String {
    match decode(
        &mut json::<Id, Pair>(),
        Some(br#"{"id":1}"#),
        Some(payload.as_bytes()),
    ) {
        Decoded::Dead(cause, None) => cause.code().to_owned(),
        Decoded::DeadAt(cause, _, place) => format!("{}: {place}", cause.code()),
        Decoded::Value(Captured::Row {
            row: WrittenRow::Whole(row),
            at,
            snapshot,
            ..
        }) => {
            format!(
                "row {} {:?}{}",
                row.v,
                at.map(|at| at.place),
                if snapshot { " snapshot" } else { "" }
            )
        }
        Decoded::Value(value) => format!("{value:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_event_of_a_row_is_told_apart() {
    assert_eq!(told("{"), "json_syntax");
    assert_eq!(told("7"), told(r#"{"id":1,"v":2}"#));
    assert!(told(r#"{"id":1,"v":2}"#).starts_with("envelope_invalid: no `op` and `source`"));
    assert_eq!(
        told(r#"{"op":"u","source":{},"after":{"v":"many"}}"#),
        "json_type: after"
    );
    assert_eq!(
        told(r#"{"schema":null,"payload":{"op":"u","source":{},"after":{}}}"#),
        "json_type: after"
    );
    assert!(told(r#"{"op":"u","source":{},"after":null}"#).contains("`after` is null"));
    assert!(told(r#"{"op":"x","source":{},"after":null}"#).contains("`op` is none of"));
    assert!(
        told(r#"{"source":{},"ts_ms":1,"databaseName":"d","ddl":"CREATE","tableChanges":[]}"#)
            .contains("schema")
    );
    assert!(told(r#"{"status":"BEGIN","id":"746:1","ts_ms":1,"event_count":null}"#).contains("transaction"));
    let skipped = |skipped| format!("{:?}", Captured::<Id, Pair>::Skipped(skipped));
    assert_eq!(told(r#"{"ts_ms":1796059435212}"#), skipped(Skipped::Heartbeat));
    assert_eq!(
        told(r#"{"schema":{},"payload":{"ts_ms":1796059435212}}"#),
        skipped(Skipped::Heartbeat)
    );
    assert_eq!(
        told(r#"{"op":"m","ts_ms":1,"source":{"lsn":1},"message":{"prefix":"p","content":"Y29udGVudA=="}}"#),
        skipped(Skipped::Message)
    );
    assert_eq!(told("null"), "Tombstone { key: Id { id: 1 } }");
    assert_eq!(
        told(r#"{"schema":null,"payload":null}"#),
        "Tombstone { key: Id { id: 1 } }"
    );
    let keyless = lines::<Id, Pair>(include_str!("tests/keyless.tsv").lines().next().unwrap());
    assert!(
        matches!(&keyless[0], Decoded::DeadAt(Cause::JsonType, None, _)),
        "{keyless:?}"
    );
    let keyless = lines::<Id, serde_json::Value>(include_str!("tests/keyless.tsv"));
    assert!(
        matches!(&keyless[0], Decoded::DeadAt(Cause::KeyMissing, None, place) if place.contains("primary key")),
        "{keyless:?}"
    );
}

#[test]
fn connectors_say_in_their_own_words_where_a_change_stands() {
    let row = |source: &str| told(&format!(r#"{{"op":"u","after":{{"v":1}},"source":{source}}}"#));
    let mysql = r#""connector":"mysql","name":"m","ts_ms":5,"file":"bin.000003","pos":154,"row":2"#;
    assert_eq!(
        row(&format!(r#"{{{mysql},"server_id":7,"snapshot":"false"}}"#)),
        format!("row 1 Some((3, {}))", 154 << 20 | 2)
    );
    assert_eq!(row(r#"{"connector":"mongodb","ts_ms":5,"ord":1}"#), "row 1 None");
    assert_eq!(
        row(r#"{"connector":"postgresql","ts_ms":5,"lsn":null}"#),
        "row 1 None"
    );
    assert_eq!(
        row(r#"{"connector":"postgresql","ts_ms":5,"lsn":9}"#),
        "row 1 Some((9, 0))"
    );
    for snapshot in [r#""first""#, r#""incremental""#, r#""true""#, "true"] {
        let source = format!(r#"{{"ts_ms":5,"lsn":9,"snapshot":{snapshot}}}"#);
        assert_eq!(row(&source), "row 1 None snapshot", "{snapshot}");
    }
    for snapshot in [r#""false""#, "false", "null"] {
        let source = format!(r#"{{"ts_ms":5,"lsn":9,"snapshot":{snapshot}}}"#);
        assert_eq!(row(&source), "row 1 Some((9, 0))", "{snapshot}");
    }
}

#[test]
fn places_of_two_logs_are_not_compared() {
    let at = |source: &str| -> SourcePosition {
        let payload = format!(r#"{{"op":"u","after":{{"v":1}},"source":{source}}}"#);
        match decode(
            &mut json::<Id, Pair>(),
            Some(br#"{"id":1}"#),
            Some(payload.as_bytes()),
        ) {
            Decoded::Value(Captured::Row { at: Some(at), .. }) => at,
            other => panic!("{other:?}"),
        }
    };
    let postgres = at(r#"{"connector":"postgresql","name":"a","ts_ms":5,"lsn":9}"#);
    assert!(postgres.repeats(&at(r#"{"connector":"postgresql","name":"a","ts_ms":5,"lsn":10}"#)));
    assert!(!postgres.repeats(&at(r#"{"connector":"postgresql","name":"b","ts_ms":5,"lsn":10}"#)));
    // A database that was restored elsewhere begins anew, later.
    assert!(!at(r#"{"connector":"postgresql","name":"a","ts_ms":6,"lsn":1}"#).repeats(&postgres));
    let mysql = |server: u32, file: &str| {
        at(&format!(
            r#"{{"connector":"mysql","name":"a","ts_ms":5,"server_id":{server},"file":"{file}","pos":4,"row":0}}"#
        ))
    };
    assert!(mysql(1, "bin.000002").repeats(&mysql(1, "bin.000010")));
    assert!(!mysql(2, "bin.000002").repeats(&mysql(1, "bin.000010")));
    assert!(!mysql(1, "log.000002").repeats(&mysql(1, "bin.000010")));
}

const ENVELOPE: &str = r#"{"type":"record","name":"Envelope","namespace":"bank.public.accounts","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
        {"name":"id","type":"long"},
        {"name":"balance","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
        {"name":"note","type":["null","string"],"default":null},
        {"name":"photo","type":["null","bytes"],"default":null},
        {"name":"nums","type":["null",{"type":"array","items":["null","int"]}],"default":null}]}],"default":null},
    {"name":"after","type":["null","Value"],"default":null},
    {"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.postgresql","fields":[
        {"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},
        {"name":"ts_ms","type":"long"},
        {"name":"snapshot","type":[{"type":"string","connect.name":"io.debezium.data.Enum"},"null"],"default":"false"},
        {"name":"lsn","type":["null","long"],"default":null}]}},
    {"name":"op","type":"string"},{"name":"ts_ms","type":["null","long"],"default":null}]}"#;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct InAvro {
    balance: i64,
    note: Option<String>,
    photo: Option<Vec<u8>>,
    nums: Option<Vec<Option<i32>>>,
}

/// An event in the wire format of Confluent's serializers, schema 7.
fn avro(op: &str, after: Option<(i64, &str, &[u8], Option<&[i32]>)>, lsn: i64) -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(ENVELOPE).unwrap();
    let some = |value| AvroValue::Union(1, Box::new(value));
    let none = || AvroValue::Union(0, Box::new(AvroValue::Null));
    let nums = |nums: Option<&[i32]>| match nums {
        None => none(),
        Some(nums) => some(AvroValue::Array(
            nums.iter().map(|num| some(AvroValue::Int(*num))).collect(),
        )),
    };
    let row = |(balance, note, photo, all): (i64, &str, &[u8], _)| {
        AvroValue::Record(vec![
            ("id".into(), AvroValue::Long(1)),
            ("balance".into(), AvroValue::Decimal(balance.to_be_bytes().into())),
            ("note".into(), some(AvroValue::String(note.into()))),
            ("photo".into(), some(AvroValue::Bytes(photo.into()))),
            ("nums".into(), nums(all)),
        ])
    };
    let text = |text: &str| AvroValue::String(text.into());
    let source = AvroValue::Record(vec![
        ("version".into(), text("3.7.0.Final")),
        ("connector".into(), text("postgresql")),
        ("name".into(), text("bank")),
        ("ts_ms".into(), AvroValue::Long(lsn)),
        ("snapshot".into(), AvroValue::Union(0, Box::new(text("false")))),
        ("lsn".into(), some(AvroValue::Long(lsn))),
    ]);
    let event = AvroValue::Record(vec![
        ("before".into(), none()),
        ("after".into(), after.map_or_else(none, |after| some(row(after)))),
        ("source".into(), source),
        ("op".into(), text(op)),
        ("ts_ms".into(), some(AvroValue::Long(1))),
    ]);
    let mut bytes = vec![0, 0, 0, 0, 7];
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    bytes.extend(writer.write_value_to_vec(event).unwrap());
    bytes
}

fn in_avro() -> Box<dyn Decode<Envelope<InAvro>>> {
    let waker = Waker::new(|| {});
    let registry = Registry::never_asked();
    registry.provide(WriterSchema::new(7, ENVELOPE));
    let resources = DecoderResources {
        registry: Some(&registry),
        waker: &waker,
    };
    EventAvro::default().decoder(&resources).unwrap()
}

const LEFT_OUT: &str = "__debezium_unavailable_value";

#[test]
fn avro_says_the_same_and_types_survive_what_is_left_out() {
    let mut decoder = in_avro();
    let mut decode = |bytes: &[u8]| match decoder.decode(bytes) {
        Decoded::Value(envelope) => envelope,
        other => panic!("{other:?}"),
    };
    let whole = decode(&avro("c", Some((1234, "hello", &[1, 2], Some(&[3]))), 9));
    let row = InAvro {
        balance: 1234,
        note: Some("hello".into()),
        photo: Some(vec![1, 2]),
        nums: Some(vec![Some(3)]),
    };
    let snapshot = false;
    assert_eq!(
        whole.change,
        CapturedChange::Row {
            row: WrittenRow::Whole(row.clone()),
            snapshot
        }
    );
    assert_eq!(whole.at.map(|at| at.place), Some((9, 0)));
    let codes: Vec<i32> = LEFT_OUT.bytes().map(i32::from).collect();
    let event = avro("u", Some((5678, LEFT_OUT, LEFT_OUT.as_bytes(), Some(&codes))), 10);
    let CapturedChange::Row {
        row: WrittenRow::Partial(partial),
        ..
    } = decode(&event).change
    else {
        panic!("{event:?}");
    };
    assert_eq!(partial.missing, ["note", "nums", "photo"]);
    assert_eq!(
        partial.complete(Some(&row)),
        Ok(InAvro {
            balance: 5678,
            ..row.clone()
        })
    );
    // One of them alone is enough to be seen.
    for event in [
        avro("u", Some((1, LEFT_OUT, b"", None)), 10),
        avro("u", Some((1, "", LEFT_OUT.as_bytes(), None)), 10),
        avro("u", Some((1, "", b"", Some(&codes))), 10),
    ] {
        let partial = |change| {
            matches!(
                change,
                CapturedChange::Row {
                    row: WrittenRow::Partial(_),
                    ..
                }
            )
        };
        assert!(partial(decode(&event).change));
    }
    assert_eq!(decode(&avro("d", None, 11)).change, CapturedChange::Deleted);
    assert_eq!(decode(&avro("t", None, 12)).change, CapturedChange::Truncated);
}

#[test]
fn a_schema_that_is_no_envelope_or_has_other_columns_is_told_of_at_the_start() {
    let compare = Format::<Envelope<InAvro>>::compare(&EventAvro::default()).unwrap();
    assert_eq!(compare(&WriterSchema::new(7, ENVELOPE)), []);
    let other = ENVELOPE.replace(
        r#"{"name":"balance","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},"#,
        "",
    );
    assert_ne!(other, ENVELOPE);
    let incompatibilities = compare(&WriterSchema::new(7, other));
    assert!(
        incompatibilities
            .iter()
            .any(|incompatibility| incompatibility.path == "after.balance"),
        "{incompatibilities:?}"
    );
    let flat = r#"{"type":"record","name":"Value","fields":[{"name":"balance","type":"long"}]}"#;
    let incompatibilities = compare(&WriterSchema::new(7, flat));
    assert!(
        incompatibilities
            .iter()
            .any(|incompatibility| incompatibility.path == "op" && incompatibility.every),
        "{incompatibilities:?}"
    );
}

#[test]
fn what_a_type_can_not_take_from_the_row_before_is_named() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Renamed {
        #[serde(alias = "note")]
        text: String,
    }
    let event = format!(r#"{{"op":"u","source":{{}},"after":{{"note":"{LEFT_OUT}"}}}}"#);
    let decoded = decode(
        &mut json::<Id, Renamed>(),
        Some(br#"{"id":1}"#),
        Some(event.as_bytes()),
    );
    let Decoded::Value(Captured::Row {
        row: WrittenRow::Partial(partial),
        ..
    }) = decoded
    else {
        panic!("{decoded:?}");
    };
    let before = Renamed { text: "old".into() };
    assert_eq!(partial.complete(Some(&before)), Err("note"));
}

proptest! {
    /// Whatever was cut, doubled or changed.
    #[test]
    fn no_bytes_make_a_decoder_panic(
        line in 0usize..9,
        at in 0usize..20_000,
        bytes in prop::collection::vec(any::<u8>(), 0..8),
        cut: bool,
    ) {
        let harm = |mut event: Vec<u8>| {
            let at = at % (event.len() + 1);
            if cut { event.truncate(at) } else { event.splice(at..at, bytes.clone()); }
            event
        };
        let text = include_str!("tests/accounts.tsv");
        let (key, payload) = text.lines().nth(line).unwrap().split_once('\t').unwrap();
        let (key, payload) = (harm(key.into()), harm(payload.into()));
        let _any = decode(&mut json::<Id, Account>(), Some(&key), Some(&payload));
        let codes: Vec<i32> = LEFT_OUT.bytes().map(i32::from).collect();
        let event = avro("u", Some((5678, LEFT_OUT, LEFT_OUT.as_bytes(), Some(&codes))), 10);
        let _any = in_avro().decode(&harm(event));
        let _any = in_avro().decode(&bytes);
    }

    /// Rows of any text come as they were, with a schema around them or not, and so does what is left out.
    #[test]
    fn rows_come_as_they_were(v: i64, text: String, lsn in 1u64..1 << 60, around: bool, left_out: bool) {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Row { v: i64, text: String, #[serde(default)] more: Option<String> }
        let (more, key) = (Some(text.clone()), Some(&br#"{"id":1}"#[..]));
        let row = Row { v, text, more };
        let mut after = serde_json::to_value(&row).unwrap();
        if left_out {
            after["text"] = LEFT_OUT.into();
        }
        let mut event = serde_json::json!({
            "before": null, "after": after, "op": "u", "source": { "ts_ms": 1, "lsn": lsn }
        });
        if around {
            event = serde_json::json!({ "schema": { "type": "struct" }, "payload": event });
        }
        let payload = event.to_string();
        match decode(&mut json::<Id, Row>(), key, Some(payload.as_bytes())) {
            Decoded::Value(Captured::Row { row: WrittenRow::Whole(read), at, .. }) => {
                prop_assert!(!left_out);
                prop_assert_eq!(read, row);
                prop_assert_eq!(at.unwrap().place, (lsn, 0));
            }
            Decoded::Value(Captured::Row { row: WrittenRow::Partial(partial), .. }) => {
                prop_assert!(left_out);
                let before = Row { v: 0, more: None, ..row.clone() };
                prop_assert_eq!(partial.complete(Some(&before)), Ok(row));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
