//! Headers of records, as logs that have any keep them.

use serde::{Deserialize, Serialize};

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Header {
    /// Its name; a record may have several of one name.
    pub name: String,
    /// Its bytes, if it has any.
    #[serde(with = "bytes")]
    pub value: Option<Vec<u8>>,
}

pub(crate) mod bytes {
    //! `Option<Vec<u8>>` as bytes, not as a list of numbers.
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    struct Raw(Vec<u8>);
    impl Serialize for Raw {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&self.0)
        }
    }
    impl<'de> Deserialize<'de> for Raw {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> de::Visitor<'de> for Visitor {
                type Value = Raw;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E: de::Error>(self, v: &[u8]) -> Result<Raw, E> {
                    Ok(Raw(v.to_vec()))
                }
                fn visit_byte_buf<E: de::Error>(self, v: Vec<u8>) -> Result<Raw, E> {
                    Ok(Raw(v))
                }
            }
            deserializer.deserialize_byte_buf(Visitor)
        }
    }

    pub(crate) fn serialize<S: Serializer>(v: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        v.clone().map(Raw).serialize(serializer)
    }
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Raw>::deserialize(deserializer)?.map(|raw| raw.0))
    }
}
