//! An Avro schema, parsed once: what decoder, planner and compatibility check all go by.
//!
//! ```text
//!   text ─▶ parse ─▶ Schema: nodes in a list, which name each other by number ─┬─▶ Plan (resolution)
//!                                                                              ├─▶ Datum (decoding)
//!                                                                              └─▶ fit (`check`)
//! ```
//!
//! There is one parser, so nothing can be accepted by one part and refused by another. Names are resolved
//! here; a record that contains itself is a node whose descendants name it again.

mod logical;
mod parse;

use std::collections::HashMap;

use serde_json::Value;

pub(super) use self::logical::Logical;
use crate::codec::writer::{Language, WriterSchema};

/// A node's place in its schema.
pub(super) type NodeId = usize;

/// A whole schema.
#[derive(Debug)]
pub(super) struct Schema {
    nodes: Vec<Node>,
    root: NodeId,
}

/// A type, with its logical type if that is valid and matters here.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) logical: Option<Logical>,
}

/// What the bytes are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NodeKind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(Fixed),
    Enum(Enum),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Record),
}

/// The name of a record, an enum or a fixed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Name {
    /// With the namespace, as in `shop.v1.Payment`. Neither is held to the specification's letters: Debezium
    /// and others write hyphens, and Java's parser can be told to take them.
    pub(super) full: String,
    /// Full names that a reader's type was once known by.
    pub(super) aliases: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fixed {
    pub(super) name: Name,
    pub(super) size: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Enum {
    pub(super) name: Name,
    pub(super) symbols: Vec<String>,
    /// What a reader takes for a symbol that it doesn't know.
    pub(super) default: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    pub(super) name: Name,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) default: Option<Value>,
    pub(super) node: NodeId,
}

impl Schema {
    /// The schema that `text` says, or what is wrong with it and where.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        parse::parse([], text)
    }

    /// The schema that a registry has, with the types of those that it refers to.
    pub(super) fn registered(schema: &WriterSchema) -> Result<Self, String> {
        if schema.language != Language::Avro {
            return Err(format!("it is {}", schema.language));
        }
        let references = schema.references.iter().map(|other| other.text.as_str());
        parse::parse(references, &schema.text)
    }

    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    #[inline]
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    #[inline]
    pub(super) fn kind(&self, id: NodeId) -> &NodeKind {
        &self.nodes[id].kind
    }

    /// All nodes, those that are only part of the text's way of saying it among them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Whether a node may be null: it is null, or a union with null in it.
    pub(super) fn nullable(&self, id: NodeId) -> bool {
        match self.kind(id) {
            NodeKind::Null => true,
            NodeKind::Union(branches) => branches
                .iter()
                .any(|branch| *self.kind(*branch) == NodeKind::Null),
            _ => false,
        }
    }

    /// A node's type, in a word.
    pub(super) fn word(&self, id: NodeId) -> String {
        self.says(self.node(id))
    }

    /// The same of a node that may be none of this schema's own.
    pub(super) fn says(&self, node: &Node) -> String {
        if let Some(Logical::Decimal { precision, scale }) = node.logical {
            return format!("decimal({precision}, {scale})");
        }
        match &node.kind {
            NodeKind::Null => "null".into(),
            NodeKind::Boolean => "boolean".into(),
            NodeKind::Int => "int".into(),
            NodeKind::Long => "long".into(),
            NodeKind::Float => "float".into(),
            NodeKind::Double => "double".into(),
            NodeKind::Bytes => "bytes".into(),
            NodeKind::String => "string".into(),
            NodeKind::Array(_) => "array".into(),
            NodeKind::Map(_) => "map".into(),
            NodeKind::Union(branches) => {
                let words: Vec<String> = branches.iter().map(|branch| self.word(*branch)).collect();
                format!("union of {}", words.join(", "))
            }
            NodeKind::Fixed(fixed) => format!("fixed {}", fixed.name.short()),
            NodeKind::Record(record) => format!("record {}", record.name.short()),
            NodeKind::Enum(symbols) => format!("enum {}", symbols.name.short()),
        }
    }

    /// A record that no datum can hold, as it holds itself without a union, an array or a map between.
    fn endless(&self) -> Option<&Record> {
        #[derive(Clone, Copy)]
        enum Mark {
            Open,
            Done,
        }
        let mut marks: HashMap<NodeId, Mark> = HashMap::new();
        for start in 0..self.nodes.len() {
            let mut stack = vec![(start, 0)];
            while let Some((id, next)) = stack.pop() {
                let NodeKind::Record(record) = self.kind(id) else {
                    continue;
                };
                match (next, marks.get(&id)) {
                    (0, Some(Mark::Open)) => return Some(record),
                    (0, Some(Mark::Done)) => continue,
                    _ => {}
                }
                match record.fields.get(next) {
                    Some(field) => {
                        marks.insert(id, Mark::Open);
                        stack.push((id, next + 1));
                        stack.push((field.node, 0));
                    }
                    None => {
                        marks.insert(id, Mark::Done);
                    }
                }
            }
        }
        None
    }
}

impl NodeKind {
    /// The name, where the type has one.
    pub(super) fn name(&self) -> Option<&Name> {
        match self {
            NodeKind::Fixed(fixed) => Some(&fixed.name),
            NodeKind::Enum(symbols) => Some(&symbols.name),
            NodeKind::Record(record) => Some(&record.name),
            _ => None,
        }
    }

    /// Whether both are of one type, whatever is within them.
    pub(super) fn alike(&self, other: &NodeKind) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl Name {
    /// Without the namespace.
    pub(super) fn short(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or_default()
    }

    /// The specification's condition on names: the short names are the same, or the reader's type was once
    /// called as the writer's is.
    pub(super) fn takes(&self, writers: &Name) -> bool {
        self.short() == writers.short() || self.aliases.contains(&writers.full)
    }
}

/// Whether a schema can be a writer's; if not, why. Its defaults mean nothing to a reader, and wrong ones are
/// common: they are passed over.
pub(in crate::codec) fn check_writer(schema: &WriterSchema) -> Result<(), String> {
    Schema::registered(schema).map(drop)
}

#[cfg(test)]
mod tests;
