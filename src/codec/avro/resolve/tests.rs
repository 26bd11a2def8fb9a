//! Random schemas with recursion, unions, and names used twice, against the rules written down naively:
//! without a memory, over values and not over bytes.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::codec::Cause;
use crate::codec::avro::long::{take_long, write_long};
use crate::codec::avro::plan::RewritePlan;

/// A value of any schema.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Null,
    Long(i64),
    Double(f64),
    Text(String),
    Array(Vec<Tree>),
    Union(usize, Box<Tree>),
    Record(Vec<Tree>),
}

/// Whether a pair resolves: it does, unless there is a way to a contradiction. Takes all ways, and forgets
/// what it found.
fn resolves(w: (&Schema, NodeId), r: (&Schema, NodeId), open: &mut Vec<NodePair>) -> bool {
    let pair = (w.1, r.1);
    if open.contains(&pair) {
        return true;
    }
    open.push(pair);
    let mut on = |ours: NodeId, theirs: NodeId| resolves((w.0, ours), (r.0, theirs), open);
    let found = match (w.0.kind(w.1), r.0.kind(r.1)) {
        (NodeKind::Union(branches), _) => branches.iter().any(|branch| on(*branch, r.1)),
        (_, NodeKind::Union(branches)) => branches.iter().any(|branch| on(w.1, *branch)),
        (NodeKind::Array(ours), NodeKind::Array(theirs)) => on(*ours, *theirs),
        (NodeKind::Record(ours), NodeKind::Record(theirs)) => {
            ours.name.short() == theirs.name.short()
                && theirs.fields.iter().all(|field| {
                    match ours.fields.iter().find(|own| own.name == field.name) {
                        Some(own) => on(own.node, field.node),
                        None => field.default.is_some(),
                    }
                })
        }
        (NodeKind::Int, NodeKind::Long | NodeKind::Double) | (NodeKind::Long, NodeKind::Double) => true,
        (ours, theirs) => ours.alike(theirs),
    };
    open.pop();
    found
}

/// What a value of the writer's is to the reader.
fn read(w: (&Schema, NodeId), r: (&Schema, NodeId), value: &Tree) -> Option<Tree> {
    let on = |ours: NodeId, theirs: NodeId, value: &Tree| read((w.0, ours), (r.0, theirs), value);
    match (w.0.kind(w.1), r.0.kind(r.1), value) {
        (NodeKind::Union(branches), _, Tree::Union(index, value)) => on(branches[*index], r.1, value),
        (ours, NodeKind::Union(branches), _) => {
            let fits = |branch: &NodeId| resolves(w, (r.0, *branch), &mut Vec::new());
            let distance = |branch: &NodeId| match (ours.name(), r.0.kind(*branch).name()) {
                _ if !ours.alike(r.0.kind(*branch)) => 2,
                (ours, theirs) if ours.map(|n| &n.full) != theirs.map(|n| &n.full) => 1,
                _ => 0,
            };
            let fitting = (0..branches.len()).filter(|index| fits(&branches[*index]));
            let index = fitting.min_by_key(|index| distance(&branches[*index]))?;
            Some(Tree::Union(index, Box::new(on(w.1, branches[index], value)?)))
        }
        _ if !resolves(w, r, &mut Vec::new()) => None,
        (NodeKind::Array(ours), NodeKind::Array(theirs), Tree::Array(items)) => {
            let items = items.iter().map(|item| on(*ours, *theirs, item));
            items.collect::<Option<_>>().map(Tree::Array)
        }
        (NodeKind::Record(ours), NodeKind::Record(theirs), Tree::Record(values)) => {
            let field = |field: &crate::codec::avro::schema::Field| match ours
                .fields
                .iter()
                .position(|own| own.name == field.name)
            {
                Some(own) => on(ours.fields[own].node, field.node, &values[own]),
                None => Some(Tree::Long(7)),
            };
            theirs
                .fields
                .iter()
                .map(field)
                .collect::<Option<_>>()
                .map(Tree::Record)
        }
        (_, NodeKind::Double, Tree::Long(value)) => Some(Tree::Double(*value as f64)),
        _ => Some(value.clone()),
    }
}

fn encode(schema: &Schema, node: NodeId, value: &Tree, out: &mut Vec<u8>) {
    match (schema.kind(node), value) {
        (NodeKind::Null, _) => {}
        (_, Tree::Long(value)) => write_long(*value, out),
        (_, Tree::Double(value)) => out.extend(value.to_le_bytes()),
        (_, Tree::Text(text)) => {
            write_long(text.len() as i64, out);
            out.extend(text.as_bytes());
        }
        (NodeKind::Array(item), Tree::Array(items)) => {
            for value in items {
                write_long(1, out);
                encode(schema, *item, value, out);
            }
            out.push(0);
        }
        (NodeKind::Union(branches), Tree::Union(index, value)) => {
            write_long(*index as i64, out);
            encode(schema, branches[*index], value, out);
        }
        (NodeKind::Record(record), Tree::Record(values)) => {
            for (field, value) in record.fields.iter().zip(values) {
                encode(schema, field.node, value, out);
            }
        }
        other => panic!("{other:?}"),
    }
}

fn decode(schema: &Schema, node: NodeId, bytes: &mut &[u8]) -> Tree {
    match schema.kind(node) {
        NodeKind::Null => Tree::Null,
        NodeKind::Int | NodeKind::Long => Tree::Long(take_long(bytes).unwrap()),
        NodeKind::Double => {
            let (value, rest) = bytes.split_first_chunk().unwrap();
            *bytes = rest;
            Tree::Double(f64::from_le_bytes(*value))
        }
        NodeKind::String => {
            let len = take_long(bytes).unwrap() as usize;
            let (text, rest) = bytes.split_at(len);
            *bytes = rest;
            Tree::Text(String::from_utf8(text.to_vec()).unwrap())
        }
        NodeKind::Array(item) => {
            let mut items = Vec::new();
            loop {
                match take_long(bytes).unwrap() {
                    0 => return Tree::Array(items),
                    count => items.extend((0..count).map(|_| decode(schema, *item, bytes))),
                }
            }
        }
        NodeKind::Union(branches) => {
            let index = take_long(bytes).unwrap() as usize;
            Tree::Union(index, Box::new(decode(schema, branches[index], bytes)))
        }
        NodeKind::Record(record) => Tree::Record(
            record
                .fields
                .iter()
                .map(|field| decode(schema, field.node, bytes))
                .collect(),
        ),
        other => panic!("{other:?}"),
    }
}

/// Some value of a schema, by choices that `turn` makes; nothing if it would be too deep.
fn some_value(
    schema: &Schema,
    node: NodeId,
    turn: &mut dyn FnMut(usize) -> usize,
    depth: usize,
) -> Option<Tree> {
    if depth > 12 {
        return None;
    }
    Some(match schema.kind(node) {
        NodeKind::Null => Tree::Null,
        NodeKind::Int | NodeKind::Long => Tree::Long(turn(200) as i64 - 100),
        NodeKind::Double => Tree::Double(turn(100) as f64),
        NodeKind::String => Tree::Text("x".repeat(turn(3))),
        NodeKind::Array(item) => {
            let count = if depth > 6 { 0 } else { turn(3) };
            let items = (0..count).map(|_| some_value(schema, *item, turn, depth + 1));
            Tree::Array(items.collect::<Option<_>>()?)
        }
        NodeKind::Union(branches) => {
            let index = if depth > 6 { 0 } else { turn(branches.len()) };
            let value = some_value(schema, branches[index], turn, depth + 1)?;
            Tree::Union(index, Box::new(value))
        }
        NodeKind::Record(record) => {
            let fields = record.fields.iter();
            let values = fields.map(|field| some_value(schema, field.node, turn, depth + 1));
            Tree::Record(values.collect::<Option<_>>()?)
        }
        other => panic!("{other:?}"),
    })
}

/// Types over the records `names`.
fn kind(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let named = select(names).prop_map(|name| json!(name));
    let leaf = select(vec!["int", "long", "double", "string"]).prop_map(|name| json!(name));
    let some = prop_oneof![2 => leaf.clone(), 3 => named];
    let union = (
        prop::collection::btree_set(select(names), 0..3),
        leaf.clone(),
        any::<bool>(),
    )
        .prop_map(|(names, leaf, first)| {
            let mut branches = vec![json!("null")];
            branches.extend(names.into_iter().map(|name| json!(name)));
            branches.insert(if first { 1 } else { branches.len() }, leaf);
            Value::Array(branches)
        });
    prop_oneof![
        2 => leaf,
        2 => some.clone().prop_map(|items| json!({ "type": "array", "items": items })),
        3 => union,
        2 => some,
    ]
}

/// Records of these names, each of fields `a`, `b`, `c`, some with a default.
fn records(names: &'static [&'static str]) -> impl Strategy<Value = Vec<Value>> {
    let fields = prop::collection::vec(prop::option::weighted(0.6, kind(names)), 3);
    prop::collection::vec((fields, 0usize..6), names.len()).prop_map(move |records| {
        let record = |(name, (fields, rotated)): (&&str, (Vec<Option<Value>>, usize))| {
            let mut fields: Vec<Value> = ["a", "b", "c"]
                .iter()
                .zip(fields)
                .filter_map(|(name, kind)| kind.map(|kind| json!({ "name": name, "type": kind })))
                .collect();
            if rotated < fields.len() {
                fields.rotate_left(rotated);
            }
            for field in &mut fields {
                if field["type"] == json!("long") {
                    field["default"] = json!(7);
                }
            }
            json!({ "type": "record", "name": name, "fields": fields })
        };
        names.iter().zip(records).map(record).collect()
    })
}

const WRITERS: &[&str] = &["x.A", "x.B", "y.B"];
/// Two of one short name: where one does not resolve, the other may.
const READERS: &[&str] = &["y.A", "x.A", "y.B", "x.B"];

/// A record `Root` of these fields, and all definitions beside them.
fn root(definitions: &[Value], fields: &[(usize, Value)]) -> String {
    let mut branches = vec![json!("null")];
    branches.extend(definitions.iter().cloned());
    let mut all: Vec<Value> = fields
        .iter()
        .map(|(number, kind)| json!({ "name": format!("f{number}"), "type": kind }))
        .collect();
    all.push(json!({ "name": "definitions", "type": branches }));
    json!({ "type": "record", "name": "Root", "fields": all }).to_string()
}

fn both(w: &str, r: &str) -> Option<(Schema, Schema)> {
    Some((Schema::parse(w).ok()?, Schema::parse(r).ok()?))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    /// What resolves, and what becomes of values, is what the rules say: whatever was tried before on the
    /// way.
    #[test]
    fn plans_keep_the_rules(
        ours in records(WRITERS),
        theirs in records(READERS),
        wanted in prop::collection::vec((kind(WRITERS), kind(READERS)), 1..4),
        choices in prop::collection::vec(any::<u32>(), 64),
    ) {
        let (w, r): (Vec<_>, Vec<_>) = wanted.into_iter().enumerate().map(|(n, (w, r))| ((n, w), (n, r))).unzip();
        let schemas = both(&root(&ours, &w), &root(&theirs, &r));
        prop_assume!(schemas.is_some());
        let (w, r) = schemas.unwrap();
        let (top, bottom) = ((&w, w.root()), (&r, r.root()));
        let plan = RewritePlan::resolve(&w, &r);
        prop_assert_eq!(plan.is_some(), resolves(top, bottom, &mut Vec::new()));
        let mut next = 0;
        let mut turn = |below: usize| {
            next += 1;
            choices[next % choices.len()] as usize % below
        };
        if let (Some(plan), Some(value)) = (plan, some_value(&w, w.root(), &mut turn, 0)) {
            let (mut bytes, mut out) = (Vec::new(), Vec::new());
            encode(&w, w.root(), &value, &mut bytes);
            let found = match plan.rewrite(&bytes, &mut out) {
                Ok(()) => Some(decode(&r, r.root(), &mut &out[..])),
                Err(cause) => {
                    prop_assert_eq!(cause, Cause::SchemaIncompatible);
                    None
                }
            };
            prop_assert_eq!(found, read(top, bottom, &value));
        }
    }

    /// Several fields resolve exactly if each of them does by itself, in whatever order they stand.
    #[test]
    fn the_order_of_fields_does_not_matter(
        ours in records(WRITERS),
        theirs in records(READERS),
        wanted in prop::collection::vec((kind(WRITERS), kind(READERS)), 2..5),
    ) {
        let fields: Vec<_> = wanted.into_iter().enumerate().collect();
        let resolved = |fields: &[(usize, (Value, Value))]| {
            let side = |pick: fn(&(Value, Value)) -> &Value| -> Vec<_> {
                fields.iter().map(|(n, both)| (*n, pick(both).clone())).collect()
            };
            let (w, r) = both(&root(&ours, &side(|both| &both.0)), &root(&theirs, &side(|both| &both.1)))?;
            Some(RewritePlan::resolve(&w, &r).is_some())
        };
        let whole = resolved(&fields);
        prop_assume!(whole.is_some());
        let backwards: Vec<_> = fields.iter().rev().cloned().collect();
        prop_assert_eq!(resolved(&backwards), whole);
        let each = fields.iter().map(|field| resolved(std::slice::from_ref(field)));
        prop_assert_eq!(Some(each.flatten().all(|resolved| resolved)), whole);
    }
}

/// A record in two fields; the reader's union holds two of its shape, of which the first one fails.
#[test]
fn a_failed_branch_leaves_nothing_behind() {
    let leg = |name: &str, extra: &str| {
        json!({ "type": "record", "name": name, "fields": [
            { "name": "venue", "type": "string" }, { "name": extra, "type": "long" } ] })
    };
    let writer = json!({ "type": "record", "name": "Trade", "fields": [
        { "name": "first", "type": leg("w.Leg", "cents") }, { "name": "second", "type": "w.Leg" } ] });
    let reader = json!({ "type": "record", "name": "Trade", "fields": [
        { "name": "first", "type": [leg("a.Leg", "euros"), leg("b.Leg", "cents")] },
        { "name": "second", "type": ["a.Leg", "b.Leg"] } ] });
    let (w, r) = both(&writer.to_string(), &reader.to_string()).unwrap();
    let plan = RewritePlan::resolve(&w, &r).unwrap();
    let mut out = Vec::new();
    plan.rewrite(&[2, b'x', 2, 2, b'y', 4], &mut out).unwrap();
    assert_eq!(out, [2, 2, b'x', 2, 2, 2, b'y', 4]);
    let writer = json!([leg("w.Leg", "cents")]).to_string();
    let reader = json!([leg("a.Leg", "euros"), leg("b.Leg", "cents")]).to_string();
    let incompatibilities = crate::codec::avro::compatibility::between(&writer, &reader);
    assert_eq!(
        incompatibilities,
        [],
        "the check takes the branch that the plan takes"
    );
}

/// Planning takes no stack, however long a chain of records is.
#[test]
fn a_long_chain_of_records_is_planned() {
    let record = |n: usize| {
        json!({ "type": "record", "name": format!("R{n}"), "fields": [
            { "name": "next", "type": ["null", format!("R{}", (n + 1) % 1_000)] } ] })
    };
    let chain = Value::Array((0..1_000).map(record).collect()).to_string();
    let schema = Schema::parse(&chain).unwrap();
    assert!(RewritePlan::resolve(&schema, &schema).unwrap().identical);
}
