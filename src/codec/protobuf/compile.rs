//! From the text of a `.proto` file, and of those that it imports, to a [`Schema`].
//!
//! `protox` compiles the text, as `protoc` would; Google's well-known files are built into it. What remains
//! is what decoding takes.

use std::collections::HashMap;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind as Described, MessageDescriptor, Value,
};
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::schema::{
    Default as Declared, Enum, Field, Kind, Known, Message, MessageId, Presence, Schema, Shape,
};
use crate::codec::writer::{Language, Referenced, WriterSchema};

/// What the file is called that is compiled: no `import` can mean it.
const MAIN: &str = "$thalweg/schema.proto";
/// More messages than any schema has that people write.
const MESSAGES_MAX: usize = 10_000;
/// Fields of a message that are told apart.
const FIELDS_MAX: usize = 10_000;

/// Options that Confluent's tools write into schemas. A registry takes the file as known.
const CONFLUENT_META: &str = include_str!("compile/confluent_meta.proto");
/// Confluent's type for decimals, likewise.
const CONFLUENT_DECIMAL: &str = include_str!("compile/confluent_decimal.proto");

/// The schema that a registry has.
pub(super) fn registered(schema: &WriterSchema) -> Result<Schema, String> {
    match schema.language {
        Language::Protobuf => compile(&schema.text, &schema.references),
        other => Err(format!("it is {other}")),
    }
}

/// The schema that `text` says, or what is wrong with it and where. `imports` are by their path.
pub(super) fn compile(text: &str, imports: &[Referenced]) -> Result<Schema, String> {
    let pool = pool(text, imports)?;
    let file = pool.get_file_by_name(MAIN).ok_or("it is not compiled")?;
    let mut building = Building::default();
    for message in file.messages() {
        let id = building.message(&message)?;
        building.schema.top.push(id);
    }
    while let Some((id, message)) = building.open.pop() {
        building.fill(id, &message)?;
    }
    Ok(building.schema)
}

/// All descriptors of a file and of what it imports.
pub(super) fn pool(text: &str, imports: &[Referenced]) -> Result<DescriptorPool, String> {
    let imports = imports
        .iter()
        .map(|other| (other.name.clone(), other.text.clone()));
    let files = Files {
        texts: imports.chain([(MAIN.to_owned(), text.to_owned())]).collect(),
        google: GoogleFileResolver::new(),
    };
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(true);
    match compiler.open_file(MAIN) {
        Ok(compiler) => Ok(compiler.descriptor_pool()),
        Err(error) => Err(error.to_string()),
    }
}

/// The files that an `import` may name.
struct Files {
    texts: HashMap<String, String>,
    google: GoogleFileResolver,
}

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match (self.texts.get(name), name) {
            (Some(text), _) => File::from_source(name, text),
            (None, "confluent/meta.proto") => File::from_source(name, CONFLUENT_META),
            (None, "confluent/type/decimal.proto") => File::from_source(name, CONFLUENT_DECIMAL),
            (None, _) => self.google.open_file(name),
        }
    }
}

#[derive(Default)]
struct Building {
    schema: Schema,
    messages: HashMap<String, MessageId>,
    enums: HashMap<String, usize>,
    /// Messages that have a place and nothing in it yet.
    open: Vec<(MessageId, MessageDescriptor)>,
}

impl Building {
    /// The place of a message.
    fn message(&mut self, message: &MessageDescriptor) -> Result<MessageId, String> {
        let name = message.full_name();
        if let Some(&id) = self.messages.get(name) {
            return Ok(id);
        }
        let id = self.schema.messages.len();
        if id >= MESSAGES_MAX {
            return Err(format!("it has more than {MESSAGES_MAX} messages"));
        }
        self.schema.messages.push(Message {
            name: name.to_owned(),
            known: known(name),
            ..Message::default()
        });
        self.messages.insert(name.to_owned(), id);
        self.open.push((id, message.clone()));
        Ok(id)
    }

    fn fill(&mut self, id: MessageId, message: &MessageDescriptor) -> Result<(), String> {
        // Java's serializer, which message indexes are taken from, does not count the entries of maps.
        let mut nested = Vec::new();
        for child in message.child_messages().filter(|child| !child.is_map_entry()) {
            nested.push(self.message(&child)?);
        }
        // `optional` of proto3 is a oneof by itself.
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        // Descriptors give fields by number; the file's order is theirs.
        let mut fields: Vec<FieldDescriptor> = message.fields().collect();
        if fields.len() > FIELDS_MAX {
            return Err(format!(
                "`{}` has more than {FIELDS_MAX} fields",
                message.full_name()
            ));
        }
        fields.sort_by_key(|field| field.path().last().copied());
        let mut made = Vec::with_capacity(fields.len());
        for field in &fields {
            let oneof = field.containing_oneof();
            let oneof = oneof.and_then(|own| oneofs.iter().position(|other| *other == own));
            made.push(self.field(field, oneof)?);
        }
        let own = &mut self.schema.messages[id];
        own.nested = nested;
        own.oneofs = oneofs.iter().map(|oneof| oneof.name().to_owned()).collect();
        own.fields = made;
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptor, oneof: Option<usize>) -> Result<Field, String> {
        let kind = self.kind(field)?;
        let shape = match field.cardinality() {
            Cardinality::Repeated if field.is_map() => Shape::Map,
            Cardinality::Repeated => Shape::Many,
            _ => Shape::One,
        };
        let presence = match field.is_required() {
            true => Presence::Required,
            // Entries of maps have both of their fields, written or not.
            false if field.parent_message().is_map_entry() => Presence::Implicit,
            false if shape == Shape::One && field.supports_presence() => Presence::Explicit,
            false => Presence::Implicit,
        };
        let declared = field.field_descriptor_proto().default_value.is_some();
        Ok(Field {
            number: field.number(),
            name: field.name().to_owned(),
            json: field.json_name().to_owned(),
            variant: upper_camel(field.name()),
            kind,
            shape,
            presence,
            oneof,
            default: (declared && presence == Presence::Explicit)
                .then(|| default(field.default_value()))
                .flatten(),
        })
    }

    fn kind(&mut self, field: &FieldDescriptor) -> Result<Kind, String> {
        Ok(match field.kind() {
            Described::Double => Kind::Double,
            Described::Float => Kind::Float,
            Described::Int32 => Kind::Int32,
            Described::Int64 => Kind::Int64,
            Described::Uint32 => Kind::UInt32,
            Described::Uint64 => Kind::UInt64,
            Described::Sint32 => Kind::SInt32,
            Described::Sint64 => Kind::SInt64,
            Described::Fixed32 => Kind::Fixed32,
            Described::Fixed64 => Kind::Fixed64,
            Described::Sfixed32 => Kind::SFixed32,
            Described::Sfixed64 => Kind::SFixed64,
            Described::Bool => Kind::Bool,
            Described::String => Kind::String,
            Described::Bytes => Kind::Bytes,
            Described::Enum(symbols) => Kind::Enum(self.symbols(&symbols)),
            Described::Message(message) if field.is_group() => Kind::Group(self.message(&message)?),
            Described::Message(message) => Kind::Message(self.message(&message)?),
        })
    }

    fn symbols(&mut self, symbols: &EnumDescriptor) -> usize {
        if let Some(&id) = self.enums.get(symbols.full_name()) {
            return id;
        }
        let prefix = upper_camel(symbols.name());
        let mut values = Vec::new();
        for value in symbols.values() {
            let whole = upper_camel(value.name());
            let rest = whole.strip_prefix(&prefix);
            let rest = rest.filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
            values.push(super::schema::Value {
                number: value.number(),
                name: value.name().to_owned(),
                variant: rest.unwrap_or(&whole).to_owned(),
            });
        }
        // Stable: of several names for one number the first remains.
        values.sort_by_key(|value| value.number);
        values.dedup_by_key(|value| value.number);
        let id = self.schema.enums.len();
        self.enums.insert(symbols.full_name().to_owned(), id);
        self.schema.enums.push(Enum {
            name: symbols.full_name().to_owned(),
            values,
            default: symbols.default_value().number(),
        });
        id
    }
}

fn known(name: &str) -> Option<Known> {
    Some(match name.strip_prefix("google.protobuf.")? {
        "Timestamp" => Known::Timestamp,
        "Duration" => Known::Duration,
        "Struct" => Known::Struct,
        "Value" => Known::Value,
        "ListValue" => Known::ListValue,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
        | "BoolValue" | "StringValue" | "BytesValue" => Known::Wrapper,
        _ => return None,
    })
}

fn default(value: Value) -> Option<Declared> {
    Some(match value {
        Value::Bool(value) => Declared::Bool(value),
        Value::I32(value) => Declared::Int(value.into()),
        Value::I64(value) => Declared::Int(value),
        Value::U32(value) => Declared::UInt(value.into()),
        Value::U64(value) => Declared::UInt(value),
        Value::F32(value) => Declared::Float(value),
        Value::F64(value) => Declared::Double(value),
        Value::String(value) => Declared::Text(value),
        Value::Bytes(value) => Declared::Bytes(value.to_vec()),
        Value::EnumNumber(value) => Declared::Enum(value),
        _ => return None,
    })
}

/// `merchant_id` and `MERCHANT_ID` as `MerchantId`.
fn upper_camel(name: &str) -> String {
    let shouted = !name.contains(|c: char| c.is_ascii_lowercase());
    let mut out = String::with_capacity(name.len());
    for word in name.split('_').filter(|word| !word.is_empty()) {
        let (first, rest) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
        out.push_str(&first.to_ascii_uppercase());
        match shouted {
            true => out.push_str(&rest.to_ascii_lowercase()),
            false => out.push_str(rest),
        }
    }
    out
}
