//! Schemas as people write them: whether a text is one, in whatever language.

use super::avro;
use super::json_schema;
use super::writer::{Language, WriterSchema};

/// Whether a schema can be read, with those that it refers to.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(schema: &WriterSchema) -> Result<(), String> {
    match schema.language {
        // Its defaults are meant, where others may read by it.
        Language::Avro if schema.references.is_empty() => {
            avro::check_reader(&schema.text).map_err(|error| error.to_string())
        }
        Language::Avro => avro::schema::check_writer(schema),
        #[cfg(feature = "protobuf")]
        Language::Protobuf => super::protobuf::check(schema),
        #[cfg(not(feature = "protobuf"))]
        Language::Protobuf => {
            Err("this build reads no Protobuf: it is the cargo feature `protobuf`".to_owned())
        }
        Language::JsonSchema => json_schema::fit::check(schema),
        Language::Other => Err("its language is not known".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_has_its_own_rules() {
        let check = |language, text: &str| check(&WriterSchema::of(1, language, text, Vec::new()));
        assert!(check(Language::Avro, "\"long\"").is_ok() && check(Language::Avro, "{").is_err());
        assert!(check(Language::JsonSchema, "{}").is_ok() && check(Language::JsonSchema, "[]").is_err());
        let proto = check(Language::Protobuf, "syntax = \"proto3\"; message A {}");
        assert_eq!(proto.is_ok(), cfg!(feature = "protobuf"));
        assert!(check(Language::Protobuf, "message A {").is_err());
    }
}
