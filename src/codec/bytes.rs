//! Payloads and keys as bytes, and as Kafka's own serializers write them: integers and floats big-endian and
//! of exactly the type's width, booleans in a byte, strings as UTF-8, anything else as the bytes that are
//! there.

use std::marker::PhantomData;

use serde::de::value::{Error as BytesError, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::format::{DecoderResources, Format, Keys};
use super::plain_rows::Plain;
use super::rows::RowEncoding;
use super::{Cause, Decode, Decoded};
use crate::sink::method::Method;

/// Decodes bytes by what the type asks for.
///
/// ```
/// use thalweg::codec::{Decode, Decoded, bytes::Bytes};
/// assert!(matches!(Bytes::<u32>::new().decode(&[0, 0, 1, 2]), Decoded::Value(258)));
/// assert!(matches!(Bytes::<u32>::new().decode(&[1, 2]), Decoded::Dead(..)));
/// assert!(matches!(Bytes::<Vec<u8>>::new().decode(&[1, 2]), Decoded::Value(bytes) if bytes == [1, 2]));
/// ```
pub struct Bytes<T>(PhantomData<fn() -> T>);

impl<T> Bytes<T> {
    /// A decoder of `T`.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Default for Bytes<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: DeserializeOwned + 'static> Decode<T> for Bytes<T> {
    fn decode(&mut self, bytes: &[u8]) -> Decoded<T> {
        match T::deserialize(WholePayload(bytes)) {
            Ok(value) => Decoded::Value(value),
            Err(_) => Decoded::Dead(Cause::BytesInvalid, None),
        }
    }
}

/// Bytes, and numbers as Kafka's own serializers write them, as a format of sources.
#[derive(Clone, Copy, Debug)]
pub struct BytesFormat;

impl<T: DeserializeOwned + 'static> Format<T> for BytesFormat {
    fn name(&self) -> &'static str {
        "bytes"
    }

    fn decoder(&self, _: &DecoderResources<'_>) -> crate::Result<Box<dyn Decode<T>>> {
        Ok(Box::new(Bytes::new()))
    }

    fn rows(&self, method: Method) -> Option<RowEncoding> {
        Plain::Bytes.rows(method)
    }

    fn keys(&self) -> Keys {
        Keys::Bytes
    }
}

/// All of the bytes as one value.
struct WholePayload<'de>(&'de [u8]);

impl<'de> WholePayload<'de> {
    fn exactly<const N: usize>(&self) -> Result<[u8; N], BytesError> {
        self.0.try_into().map_err(|_| BytesError::custom("another width"))
    }

    fn text(&self) -> Result<&'de str, BytesError> {
        std::str::from_utf8(self.0).map_err(BytesError::custom)
    }

    fn each<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        let mut items = SeqDeserializer::new(self.0.iter().copied());
        let value = visitor.visit_seq(&mut items)?;
        items.end()?;
        Ok(value)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
            visitor.$visit(<$ty>::from_be_bytes(self.exactly()?))
        }
    )*};
}

impl<'de> Deserializer<'de> for WholePayload<'de> {
    type Error = BytesError;

    numbers!(
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128, deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128, deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        visitor.visit_borrowed_bytes(self.0)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        match self.0 {
            [byte @ (0 | 1)] => visitor.visit_bool(*byte == 1),
            _ => Err(BytesError::custom("neither 0 nor 1")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, BytesError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, BytesError> {
        self.each(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, BytesError> {
        self.each(visitor)
    }

    forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    fn read<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Option<T> {
        match Bytes::new().decode(bytes) {
            Decoded::Value(value) => Some(value),
            Decoded::Dead(Cause::BytesInvalid, None) => None,
            _ => panic!("neither a value nor invalid bytes"),
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Id(u64);

    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        a: u32,
    }

    #[test]
    fn the_type_says_what_the_bytes_are() {
        assert_eq!(read(&[0, 0, 0, 0, 0, 0, 0, 7]), Some(Id(7)));
        assert_eq!(read(&[255, 255, 255, 255]), Some(-1i32));
        assert_eq!(read(&1.5f64.to_be_bytes()), Some(1.5f64));
        assert_eq!(read(&[1]), Some(true));
        assert_eq!(read::<bool>(&[2]), None);
        assert_eq!(read(b"de"), Some("de".to_owned()));
        assert_eq!(read::<String>(b"\xff"), None);
        assert_eq!(read(b"\xff\0"), Some(vec![255u8, 0]));
        assert_eq!(read(b""), Some(Vec::<u8>::new()));
        assert_eq!(read(&[1, 2]), Some([1u8, 2]));
        assert_eq!(read::<[u8; 2]>(&[1, 2, 3]), None);
        assert_eq!(read::<[u8; 2]>(&[1]), None);
        assert_eq!(read::<u32>(b"42"), None);
        assert_eq!(read::<Pair>(b"1"), None);
    }

    proptest! {
        #[test]
        fn reads_what_java_writes(a: i64, b: u16, c: f32, d: Vec<u8>) {
            prop_assert_eq!(read(&a.to_be_bytes()), Some(a));
            prop_assert_eq!(read(&b.to_be_bytes()), Some(b));
            prop_assert_eq!(read::<f32>(&c.to_be_bytes()).map(f32::to_bits), Some(c.to_bits()));
            prop_assert_eq!(read(&d), Some(d));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _any = (read::<u64>(&bytes), read::<char>(&bytes), read::<Pair>(&bytes), read::<[u8; 4]>(&bytes));
            let _any = (read::<Option<String>>(&bytes), read::<Vec<u16>>(&bytes), read::<std::net::IpAddr>(&bytes));
        }
    }
}
