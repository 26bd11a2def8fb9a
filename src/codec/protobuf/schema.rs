//! The messages of a `.proto` file, parsed once: what decoder and compatibility check go by.
//!
//! Messages and enums stand in lists and name each other by number, as a message may contain itself. A map is
//! a repeated field whose messages are entries, as it is on the wire.

use super::wire::{BYTES, FIXED32, FIXED64, GROUP, VARINT};

pub(super) type MessageId = usize;
pub(super) type EnumId = usize;

/// All that a file and what it imports say of its messages.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub(super) messages: Vec<Message>,
    pub(super) enums: Vec<Enum>,
    /// The messages of the file itself, in its order: what message indexes count.
    pub(super) top: Vec<MessageId>,
}

#[derive(Debug, Default)]
pub(super) struct Message {
    /// With the package: `shop.v1.Payment`.
    pub(super) name: String,
    /// Messages declared in it, in order, without the entries of maps.
    pub(super) nested: Vec<MessageId>,
    /// In the order of the file.
    pub(super) fields: Vec<Field>,
    /// Names of its oneofs.
    pub(super) oneofs: Vec<String>,
    pub(super) known: Option<Known>,
}

/// Messages that mean something by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Timestamp,
    Duration,
    /// A scalar that may be absent: `google.protobuf.Int64Value` and its like.
    Wrapper,
    Struct,
    Value,
    ListValue,
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// As in the file: `merchant_id`.
    pub(super) name: String,
    /// As in Protobuf's JSON: `merchantId`.
    pub(super) json: String,
    /// As a variant is called in Rust: `MerchantId`.
    pub(super) variant: String,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    pub(super) presence: Presence,
    /// The oneof that it belongs to.
    pub(super) oneof: Option<usize>,
    /// What proto2 declares for a field that is not there.
    pub(super) default: Option<Default>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    UInt32,
    UInt64,
    SInt32,
    SInt64,
    Fixed32,
    Fixed64,
    SFixed32,
    SFixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    Message(MessageId),
    /// A message between two tags, as proto2 has it.
    Group(MessageId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Many,
    /// Many entries: messages of a key (1) and a value (2).
    Map,
}

/// What it means that a field is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has the default value.
    Implicit,
    /// There is no value.
    Explicit,
    /// The message is no message.
    Required,
}

/// A declared default.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Default {
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Enum(i32),
}

#[derive(Debug)]
pub(super) struct Enum {
    pub(super) name: String,
    /// By number; of several names for one number the first.
    pub(super) values: Vec<Value>,
    /// The number of a field that is not there.
    pub(super) default: i32,
}

#[derive(Debug)]
pub(super) struct Value {
    pub(super) number: i32,
    /// As in the file: `SIDE_BUY`.
    pub(super) name: String,
    /// As prost calls it in Rust: `Buy`.
    pub(super) variant: String,
}

impl Schema {
    /// The message that indexes name: a place among the file's messages, and from there down.
    pub(super) fn message(&self, indexes: &[usize]) -> Option<MessageId> {
        let mut among = &self.top;
        let mut found = None;
        for index in indexes {
            let id = *among.get(*index)?;
            among = &self.messages[id].nested;
            found = Some(id);
        }
        found
    }

    /// The message of a full name, or of a name in the file's own package.
    pub(super) fn named(&self, name: &str) -> Option<MessageId> {
        let own = |message: &Message| message.name == name;
        let last = |id: &&MessageId| self.messages[**id].short() == name;
        self.messages
            .iter()
            .position(own)
            .or_else(|| self.top.iter().find(last).copied())
    }

    /// A kind, in a word.
    pub(super) fn word(&self, kind: Kind) -> String {
        match kind {
            Kind::Double => "double".into(),
            Kind::Float => "float".into(),
            Kind::Int32 => "int32".into(),
            Kind::Int64 => "int64".into(),
            Kind::UInt32 => "uint32".into(),
            Kind::UInt64 => "uint64".into(),
            Kind::SInt32 => "sint32".into(),
            Kind::SInt64 => "sint64".into(),
            Kind::Fixed32 => "fixed32".into(),
            Kind::Fixed64 => "fixed64".into(),
            Kind::SFixed32 => "sfixed32".into(),
            Kind::SFixed64 => "sfixed64".into(),
            Kind::Bool => "bool".into(),
            Kind::String => "string".into(),
            Kind::Bytes => "bytes".into(),
            Kind::Enum(id) => format!("enum {}", short(&self.enums[id].name)),
            Kind::Message(id) | Kind::Group(id) => format!("message {}", self.messages[id].short()),
        }
    }
}

impl Message {
    /// Without the package.
    pub(super) fn short(&self) -> &str {
        short(&self.name)
    }

    /// The oneof that all its fields belong to: such a message is one of several things.
    pub(super) fn alternative(&self) -> Option<usize> {
        let all = self.fields.iter().all(|field| field.oneof == Some(0));
        (self.oneofs.len() == 1 && !self.fields.is_empty() && all).then_some(0)
    }
}

impl Field {
    /// What a type may call it.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.json == name
    }
}

impl Enum {
    pub(super) fn value(&self, number: i32) -> Option<&Value> {
        let at = self.values.binary_search_by_key(&number, |value| value.number);
        at.ok().map(|at| &self.values[at])
    }
}

impl Kind {
    /// How a value of it is written.
    #[inline]
    pub(super) fn written(self) -> u8 {
        match self {
            Kind::Double | Kind::Fixed64 | Kind::SFixed64 => FIXED64,
            Kind::Float | Kind::Fixed32 | Kind::SFixed32 => FIXED32,
            Kind::String | Kind::Bytes | Kind::Message(_) => BYTES,
            Kind::Group(_) => GROUP,
            _ => VARINT,
        }
    }

    /// Whether many of it may be written in one piece.
    #[inline]
    pub(super) fn is_packable(self) -> bool {
        !matches!(self.written(), BYTES | GROUP)
    }

    pub(super) fn message(self) -> Option<MessageId> {
        match self {
            Kind::Message(id) | Kind::Group(id) => Some(id),
            _ => None,
        }
    }
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}
