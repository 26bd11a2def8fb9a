//! Bytes to values: a serde deserializer that follows the [`Type`] by which they were encoded.
//!
//! A type asks for what its trace says, so most methods check that and read. Where the trace says
//! [`Type::Json`] the bytes say themselves what they hold, and a type may ask for whatever it likes.

use serde::Deserializer;
use serde::de::value::{StrDeserializer, StringDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::schema::column::Reader;
use crate::schema::encode::{Form, Mismatch, Tag};
use crate::schema::types::{Type, Variant};

/// The value that these bytes, all of them, encode.
///
/// # Errors
/// When they encode none, or the type asks for something else than `ty` says.
pub(crate) fn decode<T: DeserializeOwned>(ty: &Type, form: Form, bytes: &[u8]) -> Result<T, Mismatch> {
    let mut reader = Reader::new(form, bytes);
    let value = T::deserialize(Decoder {
        ty,
        reader: &mut reader,
    })?;
    if reader.is_at_end() {
        Ok(value)
    } else {
        Err(Mismatch("there are more bytes than it reads".into()))
    }
}

static JSON: Type = Type::Json;

struct Decoder<'r, 'a> {
    ty: &'r Type,
    reader: &'r mut Reader<'a>,
}

#[cold]
fn malformed() -> Mismatch {
    Mismatch("the bytes are no encoding of it".into())
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

    /// What the bytes say themselves, as a type that looks before it knows wants to be told.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        if *self.ty != Type::Json {
            return Err(self.asked("whatever there is"));
        }
        let reader = self.reader;
        let some = |value: Option<_>| value.ok_or_else(malformed);
        match reader.tag().ok_or_else(malformed)? {
            Tag::Null => visitor.visit_unit(),
            Tag::False => visitor.visit_bool(false),
            Tag::True => visitor.visit_bool(true),
            Tag::Int => integer(reader.i128().ok_or_else(malformed)?, visitor),
            Tag::UInt => visitor.visit_u128(reader.u128().ok_or_else(malformed)?),
            Tag::Float => visitor.visit_f64(reader.f64().ok_or_else(malformed)?),
            Tag::Time => visitor.visit_i64(reader.signed(64).ok_or_else(malformed)?),
            Tag::Text => visitor.visit_string(some(reader.text())?),
            Tag::Bytes => visitor.visit_byte_buf(reader.bytes().ok_or_else(malformed)?),
            Tag::UnitVariant => {
                reader.index(usize::MAX).ok_or_else(malformed)?;
                visitor.visit_string(some(reader.text())?)
            }
            Tag::Variant => {
                reader.index(usize::MAX).ok_or_else(malformed)?;
                let name = Some(some(reader.text())?);
                visitor.visit_map(OneEntry { name, reader })
            }
            Tag::List => Items::visit(reader, &JSON, visitor),
            Tag::Map => Entries::visit(reader, &JSON, &JSON, visitor),
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
        self.deserialize_any(visitor)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_any(visitor)
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
            Type::List(inner) => Items::visit(self.reader, inner, visitor),
            Type::Json => self.deserialize_any(visitor),
            _ => Err(self.asked("list")),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Mismatch> {
        match self.ty {
            Type::Tuple(types) if types.len() == len => visitor.visit_seq(Fixed {
                types: types.iter(),
                reader: self.reader,
            }),
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
            Type::Map(key, value) => Entries::visit(self.reader, key, value, visitor),
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
            Type::Struct(types) if types.iter().any(|(_, ty)| matches!(ty, Type::Default(_))) => visitor
                .visit_map(Fields {
                    left: types.iter(),
                    next: None,
                    reader: self.reader,
                }),
            Type::Struct(types) if types.len() == fields.len() => visitor.visit_seq(Fixed {
                types: types.iter().map(field_type as FieldType),
                reader: self.reader,
            }),
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

type FieldType = for<'t> fn(&'t (&'static str, Type)) -> &'t Type;

fn field_type<'t>((_, ty): &'t (&'static str, Type)) -> &'t Type {
    ty
}

fn integer<'de, V: Visitor<'de>>(value: i128, visitor: V) -> Result<V::Value, Mismatch> {
    match (i64::try_from(value), u64::try_from(value)) {
        (_, Ok(value)) => visitor.visit_u64(value),
        (Ok(value), _) => visitor.visit_i64(value),
        _ => visitor.visit_i128(value),
    }
}

/// Parts of a fixed number, each of its own type.
struct Fixed<'r, 'a, I> {
    types: I,
    reader: &'r mut Reader<'a>,
}

impl<'de, 't, I: Iterator<Item = &'t Type>> SeqAccess<'de> for Fixed<'_, '_, I> {
    type Error = Mismatch;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        let Some(ty) = self.types.next() else {
            return Ok(None);
        };
        let reader = &mut *self.reader;
        seed.deserialize(Decoder { ty, reader }).map(Some)
    }
}

/// The fields of a struct of which some may have been left out.
struct Fields<'r, 'a> {
    left: std::slice::Iter<'r, (&'static str, Type)>,
    next: Option<&'r Type>,
    reader: &'r mut Reader<'a>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Mismatch;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        for (name, ty) in self.left.by_ref() {
            self.next = Some(match ty {
                Type::Default(inner) => match self.reader.more().ok_or_else(malformed)? {
                    true => inner,
                    false => continue,
                },
                ty => ty,
            });
            let name: StrDeserializer<'_, Mismatch> = name.into_deserializer();
            return seed.deserialize(name).map(Some);
        }
        Ok(None)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let ty = self
            .next
            .take()
            .ok_or_else(|| Mismatch::custom("a value before its name"))?;
        let reader = &mut *self.reader;
        seed.deserialize(Decoder { ty, reader })
    }
}

/// How many elements are still to come.
enum Remaining {
    Count(u64),
    /// A byte before each says that there is one, and one at the end that there is none.
    Marked,
}

impl Remaining {
    fn of(reader: &mut Reader<'_>) -> Result<Self, Mismatch> {
        let count = reader.count().ok_or_else(malformed)?;
        Ok(count.map_or(Remaining::Marked, Remaining::Count))
    }

    fn next(&mut self, reader: &mut Reader<'_>) -> Result<bool, Mismatch> {
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

    /// Who knows how many there are does not ask whether there is one more.
    fn end(mut self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        match self.next(reader)? {
            false => Ok(()),
            true => Err(Mismatch::custom(
                "it is written with more parts than it is read with",
            )),
        }
    }
}

struct Items<'r, 'a> {
    ty: &'r Type,
    remaining: Remaining,
    reader: &'r mut Reader<'a>,
}

impl<'r, 'a> Items<'r, 'a> {
    fn visit<'de, V: Visitor<'de>>(
        reader: &'r mut Reader<'a>,
        ty: &'r Type,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let mut items = Self {
            ty,
            remaining: Remaining::of(reader)?,
            reader,
        };
        let value = visitor.visit_seq(&mut items)?;
        items.remaining.end(items.reader)?;
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, '_> {
    type Error = Mismatch;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        if !self.remaining.next(self.reader)? {
            return Ok(None);
        }
        let (ty, reader) = (self.ty, &mut *self.reader);
        seed.deserialize(Decoder { ty, reader }).map(Some)
    }
}

struct Entries<'r, 'a> {
    key: &'r Type,
    value: &'r Type,
    remaining: Remaining,
    reader: &'r mut Reader<'a>,
}

impl<'r, 'a> Entries<'r, 'a> {
    fn visit<'de, V: Visitor<'de>>(
        reader: &'r mut Reader<'a>,
        key: &'r Type,
        value: &'r Type,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let mut entries = Self {
            key,
            value,
            remaining: Remaining::of(reader)?,
            reader,
        };
        let map = visitor.visit_map(&mut entries)?;
        entries.remaining.end(entries.reader)?;
        Ok(map)
    }
}

impl<'de> MapAccess<'de> for &mut Entries<'_, '_> {
    type Error = Mismatch;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        if !self.remaining.next(self.reader)? {
            return Ok(None);
        }
        let (ty, reader) = (self.key, &mut *self.reader);
        seed.deserialize(Decoder { ty, reader }).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let (ty, reader) = (self.value, &mut *self.reader);
        seed.deserialize(Decoder { ty, reader })
    }
}

/// A variant with content, as data that say what they are have it: a map of one entry.
struct OneEntry<'r, 'a> {
    name: Option<String>,
    reader: &'r mut Reader<'a>,
}

impl<'de> MapAccess<'de> for OneEntry<'_, '_> {
    type Error = Mismatch;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        let Some(name) = self.name.take() else {
            return Ok(None);
        };
        let name: StringDeserializer<Mismatch> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        let reader = &mut *self.reader;
        seed.deserialize(Decoder { ty: &JSON, reader })
    }
}

/// A variant, told by its index.
struct Chosen<'r, 'a> {
    index: u32,
    content: Option<&'r Type>,
    reader: &'r mut Reader<'a>,
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
