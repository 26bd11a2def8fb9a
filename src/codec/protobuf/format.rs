//! Protobuf as a format of sources, with a registry ([`ProtobufFormat`]) and without one
//! ([`ProtobufPlainFormat`]).

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::input::Scratch;
use super::schema::{MessageId, Schema};
use super::{Protobuf, compatibility, compile};
use crate::codec::format::{DecoderResources, Format, Keys, SchemaComparison};
use crate::codec::registry::{Registry, WriterSchema};
use crate::codec::writer::Referenced;
use crate::codec::{Decode, Decoded};
use crate::error::{Error, Result};
use crate::schema::trace::trace;

/// Protobuf in the wire format of Confluent's serializers, schemas by id from the registry.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProtobufFormat;

impl<T: DeserializeOwned + 'static> Format<T> for ProtobufFormat {
    fn name(&self) -> &'static str {
        "protobuf"
    }

    fn decoder(&self, resources: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>> {
        let registry = registry(resources)?;
        Ok(Box::new(Protobuf::new(registry, resources.waker.clone())))
    }

    fn compare(&self) -> Option<SchemaComparison> {
        let traced = trace::<T>();
        Some(Arc::new(move |schema: &WriterSchema| {
            compatibility::compare(&traced, schema)
        }))
    }

    fn keys(&self) -> Keys {
        Keys::Protobuf
    }
}

pub(super) fn registry(resources: &DecoderResources<'_>) -> Result<Registry> {
    resources.registry.cloned().ok_or_else(|| {
        Error::definition("a topic holds Protobuf, and no schema registry is set")
            .hint("--registry URL names one; Protobuf without schema ids is `.protobuf_plain(…)`")
    })
}

/// A `.proto` file: its text, or the file that it is read from at the start.
///
/// ```
/// use thalweg::{codec::protobuf::format::Proto, connect::kafka::Kafka};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Payment { at_ms: i64 }
/// // In the binary, from the crate's own folder: include_str!("../schemas/payment.proto")
/// let text = r#"syntax = "proto3"; message Payment { int64 at_ms = 1; }"#;
/// let embedded = Kafka::topic("payments").protobuf_plain::<Payment>(text, "Payment");
/// let beside = Proto::file("schemas/shop/v1/payment.proto").include("schemas");
/// let beside = Kafka::topic("payments").protobuf_plain::<Payment>(beside, "shop.v1.Payment");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proto {
    from: From,
    include: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Text(String),
    File(PathBuf),
}

impl Proto {
    /// The schema in a file, read when the source is opened; relative to the folder that the process was
    /// started in. What it imports is looked for in its own folder.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        let from = From::File(path.into());
        Self { from, include: None }
    }

    /// What it imports is looked for in this folder, as by `protoc -I`.
    pub fn include(mut self, folder: impl Into<PathBuf>) -> Self {
        self.include = Some(folder.into());
        self
    }

    /// Its text and all that it imports. Google's well-known files need not be there.
    ///
    /// # Errors
    /// A file can't be read.
    pub(crate) fn read(&self) -> Result<(String, Vec<Referenced>)> {
        let (text, folder) = match &self.from {
            From::Text(text) => (text.clone(), None),
            From::File(path) => (file(path)?, path.parent()),
        };
        let folder = self.include.as_deref().or(folder);
        let mut imports = Vec::new();
        if let Some(folder) = folder {
            let mut open = imported(&text);
            while let Some(name) = open.pop() {
                let path = folder.join(&name);
                let known = imports.iter().any(|known: &Referenced| known.name == name);
                // What is not there may be built in: the compiler says if it is not.
                if known || !path.is_file() {
                    continue;
                }
                let text = file(&path)?;
                open.extend(imported(&text));
                imports.push(Referenced { name, text });
            }
        }
        Ok((text, imports))
    }
}

fn file(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        Error::definition(format!("cannot read the Protobuf schema {}", path.display()))
            .detail(error)
            .hint("the path is relative to where the process was started; include_str! puts a file into the binary")
    })
}

/// The paths that a file imports, by its statements; one in a comment does no harm.
pub(crate) fn imported(text: &str) -> Vec<String> {
    let path = |statement: &str| {
        let rest = statement.trim_start().strip_prefix("import")?;
        let mut quoted = rest.split(['"', '\'']);
        let words = quoted.next()?.trim();
        matches!(words, "" | "public" | "weak").then(|| quoted.next().map(str::to_owned))?
    };
    text.split([';', '\n']).filter_map(path).collect()
}

impl std::convert::From<&str> for Proto {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl std::convert::From<String> for Proto {
    fn from(text: String) -> Self {
        let from = From::Text(text);
        Self { from, include: None }
    }
}

/// Protobuf without a header: every record is one message. No registry takes part.
#[derive(Clone, Debug)]
pub struct ProtobufPlainFormat {
    proto: Proto,
    message: String,
    read: (String, Vec<Referenced>),
}

impl ProtobufPlainFormat {
    /// Every record is this message of the file: `shop.v1.Payment`, or `Payment` if it is declared there.
    pub fn new(proto: impl Into<Proto>, message: &str) -> Self {
        Self {
            proto: proto.into(),
            message: message.to_owned(),
            read: Default::default(),
        }
    }

    fn compiled(&self) -> Result<(Schema, MessageId)> {
        let wrong = |why: String| Error::definition("cannot use a text as a Protobuf schema").detail(why);
        let schema = compile::compile(&self.read.0, &self.read.1).map_err(wrong)?;
        match schema.named(&self.message) {
            Some(message) => Ok((schema, message)),
            None => {
                let names = schema.top.iter().map(|id| schema.messages[*id].name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                let what = format!("the Protobuf schema has no message `{}`", self.message);
                Err(Error::definition(what).hint(format!("it has {names}")))
            }
        }
    }
}

impl<T: DeserializeOwned + 'static> Format<T> for ProtobufPlainFormat {
    fn name(&self) -> &'static str {
        "protobuf_plain"
    }

    fn prepare(&mut self) -> Result<()> {
        self.read = self.proto.read()?;
        let (schema, message) = self.compiled()?;
        // What is known before the first record is said before it.
        let incompatibilities = compatibility::of_message(&trace::<T>(), &schema, message);
        match incompatibilities
            .iter()
            .any(|incompatibility| incompatibility.every)
        {
            false => Ok(()),
            true => {
                let what = format!("no message `{}` could be decoded", self.message);
                Err(incompatibilities
                    .iter()
                    .fold(Error::definition(what), |error, incompatibility| {
                        error.detail(incompatibility)
                    }))
            }
        }
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>> {
        let (schema, message) = self.compiled()?;
        Ok(Box::new(Plain::<T> {
            schema,
            message,
            scratch: Scratch::default(),
            value: PhantomData,
        }))
    }
}

struct Plain<T> {
    schema: Schema,
    message: MessageId,
    scratch: Scratch,
    value: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned + 'static> Decode<T> for Plain<T> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        super::read(&self.schema, self.message, bytes, &mut self.scratch, None)
    }
}
