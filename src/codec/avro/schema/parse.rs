//! From a schema's JSON to its nodes.
//!
//! Attributes that say nothing about data (`doc`, `order`, whatever a library adds) are passed over, whatever
//! they hold. A `type` may be nested, as in `{"type": {"type": "int"}}`. A name may be used before it is
//! defined. Names, symbols and fields may have any letters.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Enum, Field, Fixed, Logical, Name, Node, NodeId, NodeKind, Record, Schema};

/// The largest `fixed`: more than any record takes.
const FIXED_SIZE_MAX: u64 = 1 << 30;

/// The schema that `text` says. `references` are the texts of schemas whose types it may name.
pub(super) fn parse<'t>(references: impl IntoIterator<Item = &'t str>, text: &str) -> Result<Schema, String> {
    let json = |text: &str| -> Result<Value, String> {
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))
    };
    let mut parser = Parser::default();
    for reference in references {
        let told = |why| format!("a schema that it refers to: {why}");
        let json = json(reference).map_err(told)?;
        parser.node(&json, "").map_err(told)?;
    }
    let root = parser.node(&json(text)?, "")?;
    let (mut schema, places) = parser.resolved()?;
    schema.root = places[root];
    schema.check_unions()?;
    match schema.endless() {
        Some(record) => Err(format!(
            "every record `{}` would contain another one, without end",
            record.name.full
        )),
        None => Ok(schema),
    }
}

#[derive(Default)]
struct Parser {
    nodes: Vec<Node>,
    names: HashMap<String, NodeId>,
    /// Nodes that stand for a name, with the full names that it may mean: the first that is defined.
    references: HashMap<NodeId, Vec<String>>,
}

type Object = Map<String, Value>;

impl Parser {
    fn push(&mut self, kind: NodeKind) -> NodeId {
        self.nodes.push(Node { kind, logical: None });
        self.nodes.len() - 1
    }

    /// A schema within the namespace `space`.
    fn node(&mut self, json: &Value, space: &str) -> Result<NodeId, String> {
        match json {
            Value::String(name) => Ok(self.named(name, space)),
            Value::Array(branches) => {
                let branches = branches
                    .iter()
                    .map(|branch| self.node(branch, space))
                    .collect::<Result<_, _>>()?;
                Ok(self.push(NodeKind::Union(branches)))
            }
            Value::Object(object) => self.object(object, space),
            other => Err(format!("`{}` is no type", shown(other))),
        }
    }

    /// A type that is only named: a primitive, or one that is defined elsewhere.
    fn named(&mut self, name: &str, space: &str) -> NodeId {
        let id = self.push(primitive(name).unwrap_or(NodeKind::Null));
        if primitive(name).is_none() {
            // As Java has it: what is not found in the namespace is looked for outside of all.
            let mut meant = vec![full_name(name, None, space)];
            meant.extend((!name.contains('.') && !space.is_empty()).then(|| name.to_owned()));
            self.references.insert(id, meant);
        }
        id
    }

    fn object(&mut self, object: &Object, space: &str) -> Result<NodeId, String> {
        let id = match object.get("type") {
            None => return Err(format!("{} has no `type`", shown_object(object))),
            Some(Value::String(kind)) => match kind.as_str() {
                "record" | "error" => self.record(object, space)?,
                "enum" => self.symbols(object, space)?,
                "fixed" => self.fixed(object, space)?,
                "array" => {
                    let items = object.get("items").ok_or("an array has no `items`")?;
                    let items = self.node(items, space)?;
                    self.push(NodeKind::Array(items))
                }
                "map" => {
                    let values = object.get("values").ok_or("a map has no `values`")?;
                    let values = self.node(values, space)?;
                    self.push(NodeKind::Map(values))
                }
                name => self.named(name, space),
            },
            Some(nested) => self.node(nested, space)?,
        };
        Ok(self.with_logical(id, object))
    }

    /// The node with the logical type that the attributes give it. What has a name of its own stays as it was
    /// for those who go by the name.
    fn with_logical(&mut self, id: NodeId, object: &Object) -> NodeId {
        if self.references.contains_key(&id) || self.nodes[id].logical.is_some() {
            return id;
        }
        let Some(logical) = Logical::of(&self.nodes[id].kind, object) else {
            return id;
        };
        let nested = object.get("type").is_some_and(Value::is_object);
        let id = match nested && self.nodes[id].kind.name().is_some() {
            true => self.push(self.nodes[id].kind.clone()),
            false => id,
        };
        self.nodes[id].logical = Some(logical);
        id
    }

    /// Takes the name of a type, which `id` will be.
    fn define(&mut self, kind: &str, object: &Object, space: &str) -> Result<(NodeId, Name), String> {
        let name = match object.get("name").and_then(Value::as_str) {
            Some(name) if !name.is_empty() && !name.ends_with('.') => name,
            _ => return Err(format!("{} has no `name`", article(kind))),
        };
        let own = object.get("namespace").and_then(Value::as_str);
        let full = full_name(name, own, space);
        let mut name = Name {
            full,
            aliases: Vec::new(),
        };
        let aliases = texts(object.get("aliases"));
        name.aliases = aliases
            .map(|alias| full_name(alias, None, namespace(&name.full)))
            .collect();
        let id = self.push(NodeKind::Null);
        match self.names.insert(name.full.clone(), id) {
            Some(_) => Err(format!("`{}` is defined twice", name.full)),
            None => Ok((id, name)),
        }
    }

    fn record(&mut self, object: &Object, space: &str) -> Result<NodeId, String> {
        let (id, name) = self.define("record", object, space)?;
        let at = |why: String| format!("record `{}`: {why}", name.full);
        let Some(Value::Array(given)) = object.get("fields") else {
            return Err(at("it has no `fields`".to_owned()));
        };
        let mut seen = HashSet::new();
        let mut fields = Vec::with_capacity(given.len());
        for field in given {
            let field_name = field.get("name").and_then(Value::as_str);
            let field_name = field_name.filter(|name| !name.is_empty());
            let field_name =
                field_name.ok_or_else(|| at(format!("a field has no name: {}", shown(field))))?;
            let at = |why: String| at(format!("field `{field_name}`: {why}"));
            if !seen.insert(field_name) {
                return Err(at("there are two of that name".to_owned()));
            }
            let kind = field
                .get("type")
                .ok_or_else(|| at("it has no `type`".to_owned()))?;
            fields.push(Field {
                name: field_name.to_owned(),
                aliases: texts(field.get("aliases")).map(str::to_owned).collect(),
                default: field.get("default").cloned(),
                node: self.node(kind, namespace(&name.full)).map_err(at)?,
            });
        }
        self.nodes[id].kind = NodeKind::Record(Record { name, fields });
        Ok(id)
    }

    fn symbols(&mut self, object: &Object, space: &str) -> Result<NodeId, String> {
        let (id, name) = self.define("enum", object, space)?;
        let at = |why: String| format!("enum `{}`: {why}", name.full);
        let Some(Value::Array(given)) = object.get("symbols") else {
            return Err(at("it has no `symbols`".to_owned()));
        };
        let mut symbols: Vec<String> = Vec::with_capacity(given.len());
        let mut seen = HashSet::new();
        for symbol in given {
            match symbol.as_str() {
                None => return Err(at(format!("`{}` is no symbol", shown(symbol)))),
                Some(symbol) if !seen.insert(symbol) => {
                    return Err(at(format!("it has the symbol `{symbol}` twice")));
                }
                Some(symbol) => symbols.push(symbol.to_owned()),
            }
        }
        self.nodes[id].kind = NodeKind::Enum(Enum {
            name,
            symbols,
            default: object.get("default").and_then(Value::as_str).map(str::to_owned),
        });
        Ok(id)
    }

    fn fixed(&mut self, object: &Object, space: &str) -> Result<NodeId, String> {
        let (id, name) = self.define("fixed", object, space)?;
        let size = object.get("size").and_then(Value::as_u64);
        let Some(size) = size.filter(|size| *size <= FIXED_SIZE_MAX) else {
            return Err(format!("fixed `{}`: its `size` is no number of bytes", name.full));
        };
        let size = size as usize;
        self.nodes[id].kind = NodeKind::Fixed(Fixed { name, size });
        Ok(id)
    }

    /// The schema with every name replaced by what it names, and where each node is then.
    fn resolved(mut self) -> Result<(Schema, Vec<NodeId>), String> {
        let mut places: Vec<NodeId> = (0..self.nodes.len()).collect();
        for (id, meant) in &self.references {
            let found = meant.iter().find_map(|name| self.names.get(name));
            places[*id] = *found.ok_or_else(|| format!("no type is called `{}`", meant[0]))?;
        }
        for node in &mut self.nodes {
            match &mut node.kind {
                NodeKind::Array(child) | NodeKind::Map(child) => *child = places[*child],
                NodeKind::Union(branches) => branches.iter_mut().for_each(|child| *child = places[*child]),
                NodeKind::Record(record) => {
                    record
                        .fields
                        .iter_mut()
                        .for_each(|field| field.node = places[field.node]);
                }
                _ => {}
            }
        }
        let schema = Schema {
            nodes: self.nodes,
            root: 0,
        };
        Ok((schema, places))
    }
}

impl Schema {
    /// Branches are told apart by their types, and those with names by these.
    fn check_unions(&self) -> Result<(), String> {
        for node in &self.nodes {
            let NodeKind::Union(branches) = &node.kind else {
                continue;
            };
            for (index, branch) in branches.iter().enumerate() {
                let kind = self.kind(*branch);
                if matches!(kind, NodeKind::Union(_)) {
                    return Err("a union has another one as a branch".to_owned());
                }
                let same = |other: &&NodeId| match (kind.name(), self.kind(**other).name()) {
                    (Some(name), Some(other)) => name.full == other.full,
                    (None, None) => kind.alike(self.kind(**other)),
                    _ => false,
                };
                if branches[..index].iter().any(|other| same(&other)) {
                    let what = kind
                        .name()
                        .map_or_else(|| self.word(*branch), |name| name.full.clone());
                    return Err(format!("a union has two branches of type {what}"));
                }
            }
        }
        Ok(())
    }
}

fn primitive(name: &str) -> Option<NodeKind> {
    let kind = match name {
        "null" => NodeKind::Null,
        "boolean" => NodeKind::Boolean,
        "int" => NodeKind::Int,
        "long" => NodeKind::Long,
        "float" => NodeKind::Float,
        "double" => NodeKind::Double,
        "bytes" => NodeKind::Bytes,
        "string" => NodeKind::String,
        _ => return None,
    };
    Some(kind)
}

/// A name with a dot is a full one. Any other is in the namespace that stands beside it, or else in the one
/// around it; a namespace of no letters is none.
fn full_name(name: &str, own: Option<&str>, space: &str) -> String {
    match (name.strip_prefix('.'), own.unwrap_or(space)) {
        (Some(name), _) => name.to_owned(),
        (None, "") => name.to_owned(),
        (None, _) if name.contains('.') => name.to_owned(),
        (None, space) => format!("{space}.{name}"),
    }
}

/// The namespace of a full name.
fn namespace(full: &str) -> &str {
    full.rsplit_once('.').map_or("", |(space, _)| space)
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str)
}

fn article(kind: &str) -> String {
    match kind.starts_with(['a', 'e', 'i', 'o', 'u']) {
        true => format!("an {kind}"),
        false => format!("a {kind}"),
    }
}

/// The beginning of what somebody wrote.
fn shown(json: &Value) -> String {
    json.to_string().chars().take(60).collect()
}

fn shown_object(object: &Object) -> String {
    serde_json::to_string(object)
        .unwrap_or_default()
        .chars()
        .take(60)
        .collect()
}
