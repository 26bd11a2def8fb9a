use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::time::EventTime;

const SHOP: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Side { SIDE_UNSPECIFIED = 0; SIDE_BUY = 1; }
message Unlike { bool nothing = 1; }
message Payment {
  int64 id = 1;
  optional string note = 2;
  Side side = 3;
  repeated Item items = 4;
  map<string, uint64> counts = 5;
  oneof method { Item card = 6; string iban = 7; }
  google.protobuf.Timestamp at = 8;
  google.protobuf.BoolValue flag = 9;
  bytes raw = 10;
}
message Item { string name = 1; uint32 price = 2; }
"#;

fn incompatibilities<T: DeserializeOwned>() -> Vec<String> {
    super::incompatibilities::<T>(SHOP)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[derive(Deserialize)]
#[allow(dead_code)]
struct Item {
    name: String,
    price: u32,
}

#[test]
fn types_that_fit_have_nothing_said_of_them() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Payment {
        id: i64,
        note: Option<String>,
        side: Side,
        items: Vec<Item>,
        counts: BTreeMap<String, u64>,
        method: Option<Method>,
        at: Option<EventTime>,
        flag: Option<bool>,
        raw: Vec<u8>,
        #[serde(default)]
        other: i64,
    }
    #[derive(Deserialize)]
    enum Side {
        Unspecified,
        Buy,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Method {
        Card(Item),
        Iban(String),
    }
    assert_eq!(incompatibilities::<Payment>(), [""; 0]);
    assert_eq!(incompatibilities::<serde_json::Value>(), [""; 0]);
}

#[test]
fn what_does_not_fit_is_told_with_its_place() {
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Payment {
        id: i32,
        note: String,
        side: Side,
        items: Vec<Wrong>,
        counts: BTreeMap<String, i64>,
        method: Option<Method>,
        at: Option<i64>,
        flag: Option<String>,
        raw: bool,
        other: i64,
    }
    #[derive(Deserialize)]
    enum Side {
        Buy,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wrong {
        name: i64,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Method {
        Card(Wrong),
    }
    let found = incompatibilities::<Payment>();
    let expected = [
        "field `id`: the schema has int64, and i32 does not hold all of it (some records may not decode)",
        "field `note`: a record may be without it, and the type needs it (some records",
        "field `side`: the schema's enum has the value `SIDE_UNSPECIFIED`, the type has no such variant (some",
        "field `items[].name`: the schema has string, the type wants i64 (some records",
        "field `counts{}`: the schema has uint64, and i64 does not hold all of it (some",
        "field `method.card.name`: the schema has string, the type wants i64 (some",
        "field `method`: the schema's oneof has the member `iban`, the type has no such variant (some",
        "field `at`: the schema has message Timestamp, the type wants i64 (some records may not decode); EventTime",
        "field `flag`: the schema has bool, the type wants a string (some",
        "field `raw`: the schema has bytes, the type wants bool (no record decodes); Vec<u8>",
        "field `other`: the schema has no such field, and the type needs it (no record decodes)",
    ];
    for text in expected {
        assert!(
            found.iter().any(|own| own.starts_with(text)),
            "{text}\n{found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn the_type_is_compared_with_the_message_that_it_fits() {
    assert_eq!(incompatibilities::<Item>(), [""; 0], "the file's third message");
    let none = super::incompatibilities::<Item>("syntax = \"proto3\";");
    assert!(none[0].every && none[0].problem.contains("no message"));
    let broken = super::incompatibilities::<Item>("nonsense");
    assert!(
        broken[0].every && broken[0].problem.contains("no Protobuf schema"),
        "{broken:?}"
    );
}
