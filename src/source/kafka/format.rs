//! How a topic's payloads and keys are written.

use std::path::PathBuf;

use crate::codec::avro::{self, plain::Plain};
use crate::error::{Error, Result};

/// An Avro schema: its text, or the file that it is read from at the start.
///
/// ```
/// use thalweg::source::kafka::{Avsc, Kafka};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Payment { at_ms: i64 }
/// // In the binary, from the crate's own folder: .avro_plain::<Payment>(include_str!("../schemas/payment.avsc"))
/// let embedded = Kafka::topic("payments").avro_plain::<Payment>(
///     r#"{"type":"record","name":"Payment","fields":[{"name":"at_ms","type":"long"}]}"#,
/// );
/// let beside = Kafka::topic("payments").avro_plain::<Payment>(Avsc::file("schemas/payment.avsc"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Avsc(From);

#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Text(String),
    File(PathBuf),
}

impl Avsc {
    /// The schema in a file, read when the source is opened; relative to the folder that the process was started in.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(From::File(path.into()))
    }

    fn text(self) -> Result<String> {
        let text = match self.0 {
            From::Text(text) => text,
            From::File(path) => std::fs::read_to_string(&path).map_err(|error| {
                Error::definition(format!("cannot read the Avro schema {}", path.display()))
                    .detail(error)
                    .hint("the path is relative to where the process was started; include_str! puts a file into the binary")
            })?,
        };
        // A byte order mark is no part of it.
        Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }
}

impl std::convert::From<&str> for Avsc {
    fn from(text: &str) -> Self {
        Self(From::Text(text.to_owned()))
    }
}

impl std::convert::From<String> for Avsc {
    fn from(text: String) -> Self {
        Self(From::Text(text))
    }
}

/// How payloads are written; how keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format<S = Avsc> {
    /// JSON; strict: without fields that the type lacks.
    Json { strict: bool },
    /// Avro in Confluent's wire format; a reader's schema where one was given.
    Avro { reader: Option<S> },
    /// Avro without a header, written in this one schema.
    AvroPlain { writer: S, reader: Option<S> },
    /// The bare text of one value.
    Text,
    /// Bytes, and numbers as Kafka's own serializers write them.
    Bytes,
}

/// A format whose schemas were read and found to be such.
pub(crate) type Ready = Format<String>;

impl<S> Format<S> {
    /// What people call it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Format::Json { strict: false } => "json",
            Format::Json { strict: true } => "json_strict",
            Format::Avro { .. } => "avro",
            Format::AvroPlain { .. } => "avro_plain",
            Format::Text => "text",
            Format::Bytes => "bytes",
        }
    }
}

impl Format {
    /// The same with a reader's schema, if it is Avro.
    pub(super) fn with_reader(self, schema: Avsc) -> Result<Self, Self> {
        match self {
            Format::Avro { .. } => Ok(Format::Avro { reader: Some(schema) }),
            Format::AvroPlain { writer, .. } => Ok(Format::AvroPlain {
                writer,
                reader: Some(schema),
            }),
            other => Err(other),
        }
    }

    /// Reads schemas from their files and checks them.
    pub(super) fn ready(self) -> Result<Ready> {
        Ok(match self {
            Format::Json { strict } => Format::Json { strict },
            Format::Text => Format::Text,
            Format::Bytes => Format::Bytes,
            Format::Avro { reader } => {
                let reader = reader.map(Avsc::text).transpose()?;
                reader.as_deref().map_or(Ok(()), avro::check_reader)?;
                Format::Avro { reader }
            }
            Format::AvroPlain { writer, reader } => {
                let (writer, reader) = (writer.text()?, reader.map(Avsc::text).transpose()?);
                Plain::<()>::new(&writer, reader.as_deref())?;
                Format::AvroPlain { writer, reader }
            }
        })
    }
}

impl Ready {
    /// How keys are written where only the payloads' format is named: the same way, but that a schema of payloads is none
    /// of keys.
    pub(super) fn of_keys(&self) -> Self {
        match self {
            Format::Json { strict } => Format::Json { strict: *strict },
            Format::Avro { .. } => Format::Avro { reader: None },
            Format::AvroPlain { .. } | Format::Text => Format::Text,
            Format::Bytes => Format::Bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_read_and_checked_when_a_source_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.avsc");
        let plain = |schema: Avsc| Format::AvroPlain {
            writer: schema,
            reader: None,
        };
        let missing = plain(Avsc::file(&path)).ready().unwrap_err();
        assert!(missing.to_string().contains("a.avsc"), "{missing}");
        std::fs::write(&path, "\u{feff}\"long\"").unwrap();
        let read = plain(Avsc::file(&path)).ready().unwrap();
        assert_eq!(
            read,
            Format::AvroPlain {
                writer: r#""long""#.to_owned(),
                reader: None
            }
        );
        assert!(plain("{".into()).ready().is_err());
        let differ = Format::AvroPlain {
            writer: Avsc::from(r#""string""#),
            reader: Some(r#""long""#.into()),
        };
        assert!(differ.ready().unwrap_err().to_string().contains("resolved"));
        assert!(
            Format::Avro {
                reader: Some("nonsense".into())
            }
            .ready()
            .is_err()
        );
    }
}
