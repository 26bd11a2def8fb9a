//! Avro as a format of sources, with a registry ([`AvroFormat`]) and without one ([`AvroPlainFormat`]).

use std::any::Any;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::plain::Plain;
use super::{Avro, check_reader, compatibility};
use crate::codec::Decode;
use crate::codec::format::{DecoderResources, Format, Keys, SchemaComparison};
use crate::codec::registry::WriterSchema;
use crate::codec::rows::RowEncoding;
use crate::error::{Error, Result};
use crate::schema::trace::trace;
use crate::sink::method::Method;

/// An Avro schema: its text, or the file that it is read from at the start.
///
/// ```
/// use thalweg::{codec::avro::format::Avsc, connect::kafka::Kafka};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Payment { at_ms: i64 }
/// // In the binary, from the crate's own folder: .avro_plain::<Payment>(include_str!("../schemas/payment.avsc"))
/// let embedded = Kafka::topic("payments").avro_plain::<Payment>(
///     r#"{"type":"record","name":"Payment","fields":[{"name":"at_ms","type":"long"}]}"#,
/// );
/// let beside = Kafka::topic("payments").avro_plain::<Payment>(Avsc::file("schemas/payment.avsc"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avsc(SchemaOrigin);

#[derive(Clone, Debug, PartialEq, Eq)]
enum SchemaOrigin {
    Text(String),
    File(PathBuf),
}

impl Avsc {
    /// The schema in a file, read when the source is opened; relative to the folder that the process was
    /// started in.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(SchemaOrigin::File(path.into()))
    }

    /// Its text.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn text(&self) -> Result<String> {
        let text = match &self.0 {
            SchemaOrigin::Text(text) => text.clone(),
            SchemaOrigin::File(path) => std::fs::read_to_string(path).map_err(|error| {
                Error::definition(format!("cannot read the Avro schema {}", path.display()))
                    .detail(error)
                    .hint(
                        "the path is relative to where the process was started; include_str! puts a file \
                        into the binary",
                    )
            })?,
        };
        // A byte order mark is no part of it.
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }
}

impl std::convert::From<&str> for Avsc {
    fn from(text: &str) -> Self {
        Self(SchemaOrigin::Text(text.to_owned()))
    }
}

impl std::convert::From<String> for Avsc {
    fn from(text: String) -> Self {
        Self(SchemaOrigin::Text(text))
    }
}

/// A schema of which the text is known once the source is opened.
#[derive(Clone, Debug)]
struct LoadedSchema {
    avsc: Avsc,
    text: String,
}

impl LoadedSchema {
    fn later(avsc: Avsc) -> Self {
        Self {
            avsc,
            text: String::new(),
        }
    }

    fn now(&mut self) -> Result<()> {
        self.text = self.avsc.text()?;
        Ok(())
    }
}

/// Avro in the wire format of Confluent's serializers, schemas by id from the registry.
#[derive(Clone, Debug, Default)]
pub struct AvroFormat {
    reader: Option<LoadedSchema>,
}

impl AvroFormat {
    /// Values are made of what the writer's schema says.
    pub fn new() -> Self {
        Self::default()
    }

    /// They are resolved to this schema first, by Avro's rules.
    pub fn resolved_to(reader: impl Into<Avsc>) -> Self {
        Self {
            reader: Some(LoadedSchema::later(reader.into())),
        }
    }

    fn reader(&self) -> Option<&str> {
        self.reader.as_ref().map(|reader| reader.text.as_str())
    }
}

impl<T: DeserializeOwned + 'static> Format<T> for AvroFormat {
    fn name(&self) -> &'static str {
        "avro"
    }

    fn prepare(&mut self) -> Result<()> {
        match &mut self.reader {
            None => Ok(()),
            Some(reader) => reader.now().and_then(|()| check_reader(&reader.text)),
        }
    }

    fn decoder(&self, resources: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>> {
        let registry = resources.registry.cloned().ok_or_else(|| {
            Error::definition("a topic holds Avro, and no schema registry is set")
                .hint("--registry URL names one; Avro without schema ids is `.avro_plain(…)`")
        })?;
        Ok(Box::new(Avro::new(
            registry,
            self.reader(),
            resources.waker.clone(),
        )?))
    }

    fn compare(&self) -> Option<SchemaComparison> {
        let reader = self.reader().map(str::to_owned);
        let traced = trace::<T>();
        Some(Arc::new(move |schema: &WriterSchema| {
            compatibility::compare(&traced, schema, reader.as_deref())
        }))
    }

    fn rows(&self, method: Method) -> Option<RowEncoding> {
        Some(super::rows::rows(method))
    }

    fn keys(&self) -> Keys {
        Keys::Avro
    }
}

/// Avro without a header, all of it written in one schema. No registry takes part.
#[derive(Clone, Debug)]
pub struct AvroPlainFormat {
    writer: LoadedSchema,
    reader: Option<LoadedSchema>,
}

impl AvroPlainFormat {
    /// Everything is written in this schema.
    pub fn new(writer: impl Into<Avsc>) -> Self {
        Self {
            writer: LoadedSchema::later(writer.into()),
            reader: None,
        }
    }

    fn plain<T>(&self) -> Result<Plain<T>> {
        let reader = self.reader.as_ref().map(|reader| reader.text.as_str());
        Plain::new(&self.writer.text, reader)
    }
}

impl<T: DeserializeOwned + 'static> Format<T> for AvroPlainFormat {
    fn name(&self) -> &'static str {
        "avro_plain"
    }

    fn prepare(&mut self) -> Result<()> {
        self.writer.now()?;
        if let Some(reader) = &mut self.reader {
            reader.now()?;
        }
        self.plain::<()>().map(drop)
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> Result<Box<dyn Decode<T>>> {
        Ok(Box::new(self.plain()?))
    }
}

/// Gives a format the schema that values are resolved to; `false`: it is not Avro.
pub(crate) fn resolve_to<T: 'static>(format: &mut dyn Format<T>, reader: Avsc) -> bool {
    let (format, reader): (&mut dyn Any, _) = (format, Some(LoadedSchema::later(reader)));
    if let Some(avro) = format.downcast_mut::<AvroFormat>() {
        avro.reader = reader;
        return true;
    }
    if let Some(plain) = format.downcast_mut::<AvroPlainFormat>() {
        plain.reader = reader;
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(mut format: impl Format<i64>) -> Result<()> {
        format.prepare()
    }

    #[test]
    fn schemas_are_read_and_checked_when_a_source_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.avsc");
        let missing = prepared(AvroPlainFormat::new(Avsc::file(&path))).unwrap_err();
        assert!(missing.to_string().contains("a.avsc"), "{missing}");
        std::fs::write(&path, "\u{feff}\"long\"").unwrap();
        let mut read = AvroPlainFormat::new(Avsc::file(&path));
        Format::<i64>::prepare(&mut read).unwrap();
        assert_eq!(read.writer.text, r#""long""#);
        assert!(read.reader.is_none());
        assert!(prepared(AvroPlainFormat::new("{")).is_err());
        let mut differ = AvroPlainFormat::new(r#""string""#);
        assert!(resolve_to::<i64>(&mut differ, r#""long""#.into()));
        assert!(prepared(differ).unwrap_err().to_string().contains("resolved"));
        assert!(prepared(AvroFormat::resolved_to("nonsense")).is_err());
    }
}
