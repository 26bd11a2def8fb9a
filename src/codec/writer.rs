//! The schema that a record was written with, as a registry has it.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A fixed hash of a schema: what the ledger knows it by. Without references it is the hash of its text.
pub fn fingerprint(text: &str, references: &[Referenced]) -> u64 {
    let own = xxh3_64(text.as_bytes());
    references.iter().fold(own, |hash, other| {
        let hash = xxh3_64_with_seed(other.name.as_bytes(), hash);
        xxh3_64_with_seed(other.text.as_bytes(), hash)
    })
}

/// The language that a schema is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Avro's JSON.
    Avro,
    /// A `.proto` file.
    Protobuf,
    /// JSON Schema.
    JsonSchema,
    /// One that is not known here.
    Other,
}

impl Language {
    /// The language that a registry calls by this word. Without a word it is Avro.
    pub(super) fn named(word: Option<&str>) -> Self {
        let is = |own: &str| word.is_some_and(|word| word.eq_ignore_ascii_case(own));
        match word {
            None => Self::Avro,
            Some(_) if is("AVRO") => Self::Avro,
            Some(_) if is("PROTOBUF") => Self::Protobuf,
            Some(_) if is("JSON") => Self::JsonSchema,
            Some(_) => Self::Other,
        }
    }

    /// The registry's word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Avro | Self::Other => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::JsonSchema => "JSON",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avro => "Avro",
            Self::Protobuf => "Protobuf",
            Self::JsonSchema => "JSON Schema",
            Self::Other => "an unknown language",
        })
    }
}

/// A schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referenced {
    /// What the other one calls it: a type of Avro, the path of an `import`, the URI of a `$ref`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSchema {
    /// The registry's id.
    pub id: u32,
    /// What it is written in.
    pub language: Language,
    /// Its text.
    pub text: String,
    /// All schemas that it refers to, directly or not, each of them behind those that it refers to itself.
    pub references: Vec<Referenced>,
    /// [`fingerprint`] of text and references.
    pub fingerprint: u64,
}

impl WriterSchema {
    /// An Avro schema that stands alone.
    pub fn new(id: u32, text: impl Into<String>) -> Self {
        Self::of(id, Language::Avro, text, Vec::new())
    }

    /// A schema with all that it refers to.
    pub fn of(id: u32, language: Language, text: impl Into<String>, references: Vec<Referenced>) -> Self {
        let text = text.into();
        Self {
            id,
            language,
            fingerprint: fingerprint(&text, &references),
            text,
            references,
        }
    }
}
