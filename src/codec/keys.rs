//! The formats that keys of every type have.

use serde::de::DeserializeOwned;

use super::avro::format::AvroFormat;
use super::bytes::BytesFormat;
use super::format::{Format, Keys};
use super::json::JsonFormat;
use super::json_schema::JsonSchemaFormat;
#[cfg(feature = "protobuf")]
use super::protobuf::format::ProtobufFormat;
use super::text::TextFormat;

impl Keys {
    /// The format itself.
    pub fn format<K: DeserializeOwned + 'static>(self) -> Box<dyn Format<K>> {
        match self {
            Self::Text => Box::new(TextFormat),
            Self::Bytes => Box::new(BytesFormat),
            Self::Json { strict } => Box::new(JsonFormat { strict }),
            Self::Avro => Box::new(AvroFormat::new()),
            #[cfg(feature = "protobuf")]
            Self::Protobuf => Box::new(ProtobufFormat),
            Self::JsonSchema => Box::new(JsonSchemaFormat::new()),
        }
    }
}
