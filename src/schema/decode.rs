//! Decodes values: a serde deserializer that follows the [`Type`] by which they were encoded.
//!
//! A type requests what its trace says, so most methods verify that and read. Under [`Type::Json`] the bytes
//! describe themselves, and a type may request anything.

use std::borrow::Cow;

use serde::Deserializer;
use serde::de::value::{CowStrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::schema::column::ColumnReader;
use crate::schema::encode::{Form, Mismatch, Tag};
use crate::schema::types::{Type, Variant};

/// Decodes a value from all of the bytes.
///
/// # Errors
/// If the bytes are invalid, or the type requests something other than `ty` says.
pub(crate) fn decode<T: DeserializeOwned>(ty: &Type, form: Form, bytes: &[u8]) -> Result<T, Mismatch> {
    let mut reader = ColumnReader::new(form, bytes);
    let value = T::deserialize(Decoder {
        ty,
        reader: &mut reader,
    })?;
    if reader.is_at_end() {
        Ok(value)
    } else {
        Err(Mismatch("there are more bytes than the type reads".into()))
    }
}

static JSON: Type = Type::Json;

struct Decoder<'r, 'a> {
    ty: &'r Type,
    reader: &'r mut ColumnReader<'a>,
}

#[cold]
fn malformed() -> Mismatch {
    Mismatch("the bytes are not a valid encoding".into())
}

impl Decoder<'_, '_> {
    #[cold]
    fn asked(&self, asked: &str) -> Mismatch {
        Mismatch(format!("it asks for {asked} where it was read as {}", self.ty))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:pat => $read:ident($($bits:expr)?) as $as:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            match self.ty {
                $ty => visitor.$visit(self.reader.$read($($bits)?).ok_or_else(malformed)? as $as),
                Type::Json => self.deserialize_any(visitor),
                _ => Err(self.asked(stringify!($as))),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'_, '_> {
    type Error = Mismatch;

    numbers! {
        deserialize_i8 visit_i8 Type::Int(8) => signed(8) as i8;
        deserialize_i16 visit_i16 Type::Int(16) => signed(16) as i16;
        deserialize_i32 visit_i32 Type::Int(32) => signed(32) as i32;
        deserialize_i64 visit_i64 Type::Int(64) | Type::Time => signed(64) as i64;
        deserialize_i128 visit_i128 Type::Int(128) => i128() as i128;
        deserialize_u8 visit_u8 Type::UInt(8) => unsigned(8) as u8;
        deserialize_u16 visit_u16 Type::UInt(16) => unsigned(16) as u16;
        deserialize_u32 visit_u32 Type::UInt(32) => unsigned(32) as u32;
        deserialize_u64 visit_u64 Type::UInt(64) => unsigned(64) as u64;
        deserialize_u128 visit_u128 Type::UInt(128) => u128() as u128;
        deserialize_f32 visit_f32 Type::Float(32) => f32() as f32;
        deserialize_f64 visit_f64 Type::Float(64) => f64() as f64;
    }

    /// Describes self-describing bytes to a type that inspects the data first.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.untyped()? {
            Untyped::Unit => visitor.visit_unit(),
            Untyped::Bool(value) => visitor.visit_bool(value),
            Untyped::Signed(value) => visitor.visit_i64(value),
            Untyped::Unsigned(value) => visitor.visit_u64(value),
            Untyped::Wide(value) => visitor.visit_i128(value),
            Untyped::WideUnsigned(value) => visitor.visit_u128(value),
            Untyped::Float(value) => visitor.visit_f64(value),
            Untyped::Text(value) => visitor.visit_string(value),
            Untyped::Bytes(value) => visitor.visit_byte_buf(value),
            Untyped::List(parts) => parts.visit_list(visitor),
            Untyped::Map(parts) => parts.visit_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Bool => visitor.visit_bool(self.reader.bool().ok_or_else(malformed)?),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("bool")),
        }
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_string(visitor)
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_string(visitor)
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Text => visitor.visit_string(self.reader.text().ok_or_else(malformed)?),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("string")),
        }
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_byte_buf(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Bytes => visitor.visit_byte_buf(self.reader.bytes().ok_or_else(malformed)?),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("bytes")),
        }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Unit => visitor.visit_unit(),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("unit")),
        }
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_unit(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.reader.skip(self.ty).ok_or_else(malformed)?;
        visitor.visit_unit()
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Text => visitor.visit_string(self.reader.text().ok_or_else(malformed)?),
            _ => match self.untyped()? {
                Untyped::Text(name) => visitor.visit_string(name),
                Untyped::Unsigned(index) => visitor.visit_u64(index),
                _ => Err(Mismatch("it asks for a name, and there is none".into())),
            },
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        let (ty, reader) = (self.ty, self.reader);
        match ty {
            Type::Option(inner) => match reader.more().ok_or_else(malformed)? {
                true => visitor.visit_some(Decoder { ty: inner, reader }),
                false => visitor.visit_none(),
            },
            Type::Json if reader.next_is(Tag::Null) => {
                reader.tag();
                visitor.visit_none()
            }
            Type::Json => visitor.visit_some(Decoder { ty, reader }),
            _ => Err(Decoder { ty, reader }.asked("an option")),
        }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::List(inner) => PartsAccess::counted(self.reader, (inner, inner))?.visit_list(visitor),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("list")),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Tuple(types) if types.len() == len => {
                PartsAccess::new(self.reader, Next::Tuple(types.iter())).visit_list(visitor)
            }
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked(&format!("tuple of {len}"))),
        }
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_tuple(len, visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Map(key, value) => PartsAccess::counted(self.reader, (key, value))?.visit_map(visitor),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("map")),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Struct(types) if types.iter().any(|(_, ty)| matches!(ty, Type::Default(_))) => {
                let next = Next::NamedFields(types.iter(), None);
                PartsAccess::new(self.reader, next).visit_map(visitor)
            }
            Type::Struct(types) if types.len() == fields.len() => {
                PartsAccess::new(self.reader, Next::Fields(types.iter())).visit_list(visitor)
            }
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked(&format!("struct `{name}`"))),
        }
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let (ty, reader) = (self.ty, self.reader);
        let (index, content) = match ty {
            Type::Enum(variants) => {
                let index = reader.index(variants.len()).ok_or_else(malformed)?;
                let Variant { content, .. } = variants.get(index as usize).ok_or_else(malformed)?;
                (index, content.as_ref())
            }
            Type::Json => {
                let content = match reader.tag().ok_or_else(malformed)? {
                    Tag::UnitVariant => None,
                    Tag::Variant => Some(&JSON),
                    _ => return Err(Mismatch(format!("no variant of `{name}` was written"))),
                };
                let index = reader.index(usize::MAX).ok_or_else(malformed)?;
                reader.text().ok_or_else(malformed)?;
                (index, content)
            }
            _ => return Err(Decoder { ty, reader }.asked(&format!("enum `{name}`"))),
        };
        visitor.visit_enum(Chosen {
            index,
            content,
            reader,
        })
    }
}

/// The kind of self-describing data.
enum Untyped<'r, 'a> {
    Unit,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Wide(i128),
    WideUnsigned(u128),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(PartsAccess<'r, 'a>),
    Map(PartsAccess<'r, 'a>),
}

impl<'r, 'a> Decoder<'r, 'a> {
    /// Reads what self-describing bytes contain. Compiled once, and not for every requesting type.
    fn untyped(self) -> Result<Untyped<'r, 'a>, Mismatch> {
        if *self.ty != Type::Json {
            return Err(self.asked("whatever there is"));
        }
        let reader = self.reader;
        let read = match reader.tag().ok_or_else(malformed)? {
            Tag::Null => Some(Untyped::Unit),
            Tag::False => Some(Untyped::Bool(false)),
            Tag::True => Some(Untyped::Bool(true)),
            Tag::Int => reader.i128().map(integer),
            Tag::UInt => reader.u128().map(Untyped::WideUnsigned),
            Tag::Float => reader.f64().map(Untyped::Float),
            Tag::Time => reader.signed(64).map(Untyped::Signed),
            Tag::Text => reader.text().map(Untyped::Text),
            Tag::Bytes => reader.bytes().map(Untyped::Bytes),
            Tag::UnitVariant => reader
                .index(usize::MAX)
                .and_then(|_| reader.text())
                .map(Untyped::Text),
            Tag::Variant => {
                reader.index(usize::MAX).ok_or_else(malformed)?;
                let name = reader.text().ok_or_else(malformed)?;
                return Ok(Untyped::Map(PartsAccess::new(reader, Next::OneEntry(Some(name)))));
            }
            Tag::List => return Ok(Untyped::List(PartsAccess::counted(reader, (&JSON, &JSON))?)),
            Tag::Map => return Ok(Untyped::Map(PartsAccess::counted(reader, (&JSON, &JSON))?)),
        };
        read.ok_or_else(malformed)
    }
}

fn integer<'r, 'a>(value: i128) -> Untyped<'r, 'a> {
    match (i64::try_from(value), u64::try_from(value)) {
        (_, Ok(value)) => Untyped::Unsigned(value),
        (Ok(value), _) => Untyped::Signed(value),
        _ => Untyped::Wide(value),
    }
}

/// The number of remaining elements.
enum Remaining {
    Count(u64),
    /// Each element is preceded by a byte, and the end is marked by another.
    Marked,
}

impl Remaining {
    fn of(reader: &mut ColumnReader<'_>) -> Result<Self, Mismatch> {
        let count = reader.count().ok_or_else(malformed)?;
        Ok(count.map_or(Remaining::Marked, Remaining::Count))
    }

    fn next(&mut self, reader: &mut ColumnReader<'_>) -> Result<bool, Mismatch> {
        match self {
            Remaining::Count(0) => Ok(false),
            Remaining::Count(count) => {
                *count -= 1;
                Ok(true)
            }
            Remaining::Marked => {
                let more = reader.more().ok_or_else(malformed)?;
                if !more {
                    *self = Remaining::Count(0);
                }
                Ok(more)
            }
        }
    }

    /// A visitor that knows the count does not ask for one more.
    fn end(mut self, reader: &mut ColumnReader<'_>) -> Result<(), Mismatch> {
        match self.next(reader)? {
            false => Ok(()),
            true => Err(Mismatch::custom(
                "it is written with more parts than it is read with",
            )),
        }
    }
}

/// The parts of a value: one type for lists, tuples, structs and maps, because visitors are compiled for each
/// type of access.
struct PartsAccess<'r, 'a> {
    next: Next<'r>,
    reader: &'r mut ColumnReader<'a>,
}

/// The part that comes next.
enum Next<'r> {
    Tuple(std::slice::Iter<'r, Type>),
    Fields(std::slice::Iter<'r, (&'static str, Type)>),
    /// The fields of a struct, some of which may be missing, and the type of the last named one.
    NamedFields(std::slice::Iter<'r, (&'static str, Type)>, Option<&'r Type>),
    /// Elements, or entries, of these types.
    Counted(Remaining, (&'r Type, &'r Type)),
    /// A variant with content, as self-describing data represent it: a map with one entry.
    OneEntry(Option<String>),
}

impl<'r, 'a> PartsAccess<'r, 'a> {
    fn new(reader: &'r mut ColumnReader<'a>, next: Next<'r>) -> Self {
        Self { next, reader }
    }

    fn counted(reader: &'r mut ColumnReader<'a>, types: (&'r Type, &'r Type)) -> Result<Self, Mismatch> {
        let next = Next::Counted(Remaining::of(reader)?, types);
        Ok(Self { next, reader })
    }

    fn visit_list<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Mismatch> {
        let value = visitor.visit_seq(&mut self)?;
        self.end()?;
        Ok(value)
    }

    fn visit_map<'de, V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Mismatch> {
        let value = visitor.visit_map(&mut self)?;
        self.end()?;
        Ok(value)
    }

    /// The type of the next element or key; `None` at the end.
    fn next(&mut self) -> Result<Option<&'r Type>, Mismatch> {
        match &mut self.next {
            Next::Tuple(types) => Ok(types.next()),
            Next::Fields(fields) => Ok(fields.next().map(|(_, ty)| ty)),
            Next::Counted(remaining, (first, _)) => Ok(remaining.next(self.reader)?.then_some(*first)),
            Next::NamedFields(..) | Next::OneEntry(_) => Err(Mismatch::custom("a map is read as a list")),
        }
    }

    /// The name of the next field, unless the bytes contain it as a map key.
    fn next_name(&mut self) -> Result<Option<Cow<'static, str>>, Mismatch> {
        match &mut self.next {
            Next::NamedFields(left, next) => {
                for (name, ty) in left {
                    *next = Some(match ty {
                        Type::Default(inner) => match self.reader.more().ok_or_else(malformed)? {
                            true => inner,
                            false => continue,
                        },
                        ty => ty,
                    });
                    return Ok(Some(Cow::Borrowed(*name)));
                }
                Ok(None)
            }
            Next::OneEntry(name) => Ok(name.take().map(Cow::Owned)),
            _ => Ok(None),
        }
    }

    /// The type of the value that follows a key.
    fn value_type(&mut self) -> Result<&'r Type, Mismatch> {
        match &mut self.next {
            Next::NamedFields(_, next) => next
                .take()
                .ok_or_else(|| Mismatch::custom("a value before its name")),
            Next::Counted(_, (_, value)) => Ok(*value),
            _ => Ok(&JSON),
        }
    }

    fn end(self) -> Result<(), Mismatch> {
        match self.next {
            Next::Counted(remaining, _) => remaining.end(self.reader),
            _ => Ok(()),
        }
    }

    fn decoder<'d>(&'d mut self, ty: &'d Type) -> Decoder<'d, 'a> {
        let reader = &mut *self.reader;
        Decoder { ty, reader }
    }
}

impl<'de> SeqAccess<'de> for &mut PartsAccess<'_, '_> {
    type Error = Mismatch;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        match self.next()? {
            Some(ty) => seed.deserialize(self.decoder(ty)).map(Some),
            None => Ok(None),
        }
    }
}

impl<'de> MapAccess<'de> for &mut PartsAccess<'_, '_> {
    type Error = Mismatch;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        if matches!(self.next, Next::Counted(..)) {
            return match self.next()? {
                Some(ty) => seed.deserialize(self.decoder(ty)).map(Some),
                None => Ok(None),
            };
        }
        match self.next_name()? {
            Some(name) => {
                let name: CowStrDeserializer<'_, Mismatch> = name.into_deserializer();
                seed.deserialize(name).map(Some)
            }
            None => Ok(None),
        }
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let ty = self.value_type()?;
        seed.deserialize(self.decoder(ty))
    }
}

/// A variant identified by its index.
struct Chosen<'r, 'a> {
    index: u32,
    content: Option<&'r Type>,
    reader: &'r mut ColumnReader<'a>,
}

impl<'r, 'a> Chosen<'r, 'a> {
    fn content(self) -> Result<Decoder<'r, 'a>, Mismatch> {
        let ty = self
            .content
            .ok_or_else(|| Mismatch::custom("a unit variant has no content"))?;
        let reader = self.reader;
        Ok(Decoder { ty, reader })
    }
}

impl<'de> EnumAccess<'de> for Chosen<'_, '_> {
    type Error = Mismatch;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Mismatch> {
        let index: U32Deserializer<Mismatch> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Chosen<'_, '_> {
    type Error = Mismatch;
    fn unit_variant(self) -> Result<(), Mismatch> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Mismatch::custom("a variant with content is no unit variant")),
        }
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mismatch> {
        seed.deserialize(self.content()?)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Mismatch> {
        self.content()?.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.content()?.deserialize_struct("", fields, visitor)
    }
}
