//! The bare text of one value: payloads and keys such as `42` and `de`.
//!
//! The type says how the text is read: numbers, booleans, characters, strings, and enums by name. A byte
//! order mark before it is passed over, or a key with one would be another than the same key without.

use std::marker::PhantomData;

use serde::de::value::{Error as TextError, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::format::{DecoderResources, Format, Keys};
use super::plain_rows::Plain;
use super::rows::RowEncoding;
use super::{Cause, Decode, Decoded, unmarked};
use crate::sink::method::Method;

/// Decodes the bare text of one value.
///
/// ```
/// use thalweg::codec::{Decode, Decoded, text::Text};
/// assert!(matches!(Text::<u32>::new().decode(b"42"), Decoded::Value(42)));
/// ```
pub struct Text<K>(PhantomData<fn() -> K>);

impl<K> Text<K> {
    /// A decoder of `K`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Default for Text<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: DeserializeOwned + 'static> Decode<K> for Text<K> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<K> {
        let value = std::str::from_utf8(unmarked(bytes))
            .ok()
            .and_then(|text| K::deserialize(TextScalar(text)).ok());
        match value {
            Some(value) => Decoded::Value(value),
            None => Decoded::Dead(Cause::TextInvalid, None),
        }
    }
}

/// The bare text of one value, as a format of sources.
#[derive(Clone, Copy, Debug)]
pub struct TextFormat;

impl<T: DeserializeOwned + 'static> Format<T> for TextFormat {
    fn name(&self) -> &'static str {
        "text"
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> crate::Result<Box<dyn Decode<T>>> {
        Ok(Box::new(Text::new()))
    }

    fn rows(&self, method: Method) -> Option<RowEncoding> {
        Plain::Text.rows(method)
    }

    fn keys(&self) -> Keys {
        Keys::Text
    }
}

/// One value from its text: the type says how to parse it.
struct TextScalar<'de>(&'de str);

macro_rules! parse {
    ($($method:ident $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
            visitor.$visit(self.0.parse().map_err(TextError::custom)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for TextScalar<'de> {
    type Error = TextError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_borrowed_str(self.0)
    }

    parse!(
        deserialize_bool visit_bool, deserialize_char visit_char,
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32,
        deserialize_i64 visit_i64, deserialize_i128 visit_i128,
        deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32,
        deserialize_u64 visit_u64, deserialize_u128 visit_u128,
        deserialize_f32 visit_f32, deserialize_f64 visit_f64
    );

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_borrowed_bytes(self.0.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_borrowed_bytes(self.0.as_bytes())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TextError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TextError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TextError> {
        let text: StrDeserializer<'de, TextError> = self.0.into_deserializer();
        text.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        str string unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    fn text<K: DeserializeOwned + 'static>(bytes: &[u8]) -> Option<K> {
        match Text::new().decode(bytes) {
            Decoded::Value(key) => Some(key),
            Decoded::Dead(Cause::TextInvalid, None) => None,
            other => panic!("{:?}", std::mem::discriminant(&other)),
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Merchant(u32);
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Side {
        Buy,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        a: u32,
    }

    #[test]
    fn reads_scalars_by_their_type() {
        assert_eq!(text(b"42"), Some(42u32));
        assert_eq!(text(b"42"), Some(Merchant(42)));
        assert_eq!(text(b"42"), Some("42".to_owned()));
        assert_eq!(text(b"-1.5"), Some(-1.5f64));
        assert_eq!(text(b"true"), Some(true));
        assert_eq!(text(b"buy"), Some(Side::Buy));
        assert_eq!(text::<Side>(b"Buy"), None);
        assert_eq!(text::<u32>(b"-1"), None);
        assert_eq!(text::<u32>(b"4294967296"), None);
        assert_eq!(text::<u32>(b" 1"), None);
        assert_eq!(text::<u32>(b""), None);
        assert_eq!(text::<String>(b"\xff"), None);
        assert_eq!(text::<Pair>(b"1"), None);
        assert_eq!(text(b"\xEF\xBB\xBF42"), Some(42u32));
        assert_eq!(text(b"\xEF\xBB\xBFde"), Some("de".to_owned()));
        assert_eq!(text(b"a\xEF\xBB\xBF"), Some("a\u{feff}".to_owned()));
    }

    proptest! {
        #[test]
        fn every_number_reads_as_it_prints(a: i64, b: u128, c: String, d in any::<f64>(), e in any::<f32>()) {
            prop_assert_eq!(text::<f64>(d.to_string().as_bytes()).map(f64::to_bits), Some(d.to_bits()));
            prop_assert_eq!(text::<f32>(e.to_string().as_bytes()).map(f32::to_bits), Some(e.to_bits()));
            prop_assert_eq!(text(a.to_string().as_bytes()), Some(a));
            prop_assert_eq!(text(b.to_string().as_bytes()), Some(b));
            prop_assert_eq!(text(c.as_bytes()), Some(c.strip_prefix('\u{feff}').unwrap_or(&c).to_owned()));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let (_a, _b, _c) = (text::<u64>(&bytes), text::<f32>(&bytes), text::<Side>(&bytes));
        }
    }
}
