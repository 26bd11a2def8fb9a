use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::codec::registry::Referenced;

#[derive(Debug, PartialEq, Deserialize)]
struct Order {
    id: i64,
    note: Option<String>,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Item {
    price: f64,
}

const ORDER: &str = r##"{
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "id": { "type": "integer" },
        "note": { "oneOf": [{ "type": "null" }, { "type": "string" }] },
        "items": { "type": "array", "items": { "$ref": "#/definitions/item" } }
    },
    "required": ["id"],
    "definitions": {
        "item": {
            "type": "object",
            "properties": { "price": { "type": "number", "minimum": 0 } },
            "required": ["price"]
        }
    }
}"##;

fn schema(id: u32, text: &str) -> WriterSchema {
    WriterSchema::of(id, Language::JsonSchema, text, Vec::new())
}

fn decoder<T>(validates: bool, schemas: Vec<WriterSchema>) -> JsonSchema<T> {
    let registry = Registry::never_asked();
    schemas.into_iter().for_each(|schema| registry.provide(schema));
    JsonSchema::new(registry, validates, Waker::new(|| {}))
}

fn payload(id: u32, json: &str) -> Vec<u8> {
    let mut out = Vec::new();
    confluent::write(id, &mut out);
    out.extend(json.as_bytes());
    out
}

fn told<T>(decoded: Decoded<T>) -> String {
    match decoded {
        Decoded::Value(_) => "a value".to_owned(),
        Decoded::Dead(cause, id) => format!("{} {id:?}", cause.code()),
        Decoded::DeadAt(cause, id, place) => format!("{} {id:?} at {place}", cause.code()),
        Decoded::Wait => "waits".to_owned(),
    }
}

#[test]
fn the_header_is_read_and_the_id_checked() {
    let schemas = || vec![schema(1, ORDER), WriterSchema::new(2, "\"int\"")];
    let mut decoder = decoder::<Order>(false, schemas());
    let read = decoder.decode(&payload(1, r#"{"id":7,"items":[{"price":1.5}]}"#));
    let order = Order {
        id: 7,
        note: None,
        items: vec![Item { price: 1.5 }],
    };
    assert!(matches!(read, Decoded::Value(read) if read == order));
    assert_eq!(
        told(decoder.decode(&payload(2, "1"))),
        "schema_incompatible Some(2)"
    );
    assert_eq!(told(decoder.decode(&payload(3, "{}"))), "waits");
    assert_eq!(told(decoder.decode(b"{\"id\":7}")), "wire_magic None");
    assert_eq!(told(decoder.decode(&payload(1, "{"))), "json_syntax Some(1)");
    assert_eq!(told(decoder.decode(&payload(1, "{}"))), "json_type Some(1)");
    assert!(decoder.is_null(&payload(1, " null ")) && !decoder.is_null(b"null"));
}

#[cfg(feature = "json-schema")]
#[test]
fn what_does_not_validate_is_told_by_its_place() {
    let mut decoder = decoder::<serde_json::Value>(true, vec![schema(1, ORDER)]);
    let mut tell = |json: &str| told(decoder.decode(&payload(1, json)));
    assert_eq!(tell(r#"{"id":7,"note":null,"items":[{"price":0}]}"#), "a value");
    assert_eq!(
        tell(r#"{"id":7,"items":[{"price":1},{"price":-1}]}"#),
        "json_schema_invalid Some(1) at items[1].price: minimum"
    );
    assert_eq!(tell("{}"), "json_schema_invalid Some(1) at required");
    assert_eq!(tell("{"), "json_syntax Some(1)");
    assert!(tell(r#"{"id":"7"}"#).ends_with("at id: type"));
}

#[cfg(feature = "json-schema")]
#[test]
fn schemas_refer_to_what_the_registry_has_and_to_nothing_else() {
    let text = |to: &str| json!({ "properties": { "item": { "$ref": to } } }).to_string();
    let item = Referenced {
        name: "item.json".to_owned(),
        text: json!({ "type": "integer" }).to_string(),
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("item.json");
    std::fs::write(&file, "true").unwrap();
    let with = |id: u32, to: &str| WriterSchema::of(id, Language::JsonSchema, text(to), vec![item.clone()]);
    let schemas = vec![
        with(1, "item.json"),
        with(2, "other.json"),
        with(3, &format!("file://{}x", file.display())),
        with(4, "http://127.0.0.1:9/item"),
        schema(5, r#"{"pattern":"(a)\\1"}"#),
        schema(6, "{"),
    ];
    let mut decoder = decoder::<BTreeMap<String, serde_json::Value>>(true, schemas);
    let mut tell = |id: u32, json: &str| told(decoder.decode(&payload(id, json)));
    assert_eq!(tell(1, r#"{"item":7}"#), "a value");
    assert_eq!(
        tell(1, r#"{"item":"7"}"#),
        "json_schema_invalid Some(1) at item: type"
    );
    for id in 2..=6 {
        assert_eq!(tell(id, "{}"), format!("schema_incompatible Some({id})"));
    }
}

fn incompatibilities<T: DeserializeOwned>(text: &str) -> Vec<String> {
    let incompatibilities = fit::compare(&trace::<T>(), &schema(1, text));
    incompatibilities.iter().map(ToString::to_string).collect()
}

#[test]
fn types_are_compared_with_what_the_schema_says() {
    assert!(
        incompatibilities::<Order>(ORDER).is_empty(),
        "{:?}",
        incompatibilities::<Order>(ORDER)
    );
    assert!(incompatibilities::<serde_json::Value>(ORDER).is_empty());
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Wrong {
        id: String,
        note: String,
        items: Vec<Cheap>,
        absent: bool,
    }
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Cheap {
        price: u8,
    }
    let found = incompatibilities::<Wrong>(ORDER);
    let has = |text: &str| assert!(found.iter().any(|own| own.contains(text)), "{text}: {found:#?}");
    has("field `id`: the schema has integer, the type wants a string (no record decodes)");
    has("field `note`: a record may be without it");
    has("field `note`: may be null");
    has("field `items[].price`: the schema has number, and u8 does not hold all of it");
    has("field `absent`: the schema has no such field, and the type needs it (some records");
    assert_eq!(found.len(), 6, "{found:#?}");
    let closed = r#"{"type":"object","properties":{},"additionalProperties":false}"#;
    assert!(incompatibilities::<Cheap>(closed)[0].contains("no record decodes"));
    assert!(incompatibilities::<Order>("[")[0].contains("it is no JSON"));
    assert!(fit::compare(&trace::<i64>(), &WriterSchema::new(1, "\"long\""))[0].every);
}

#[test]
fn schemas_that_contain_themselves_come_to_an_end() {
    let text =
        r##"{"type":"object","properties":{"next":{"$ref":"#"},"round":{"$ref":"#/properties/round"}}}"##;
    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Chain {
        next: Option<Box<Chain>>,
        round: Option<i64>,
    }
    assert!(incompatibilities::<Chain>(text).is_empty());
}
