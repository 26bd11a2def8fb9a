//! Encodes values: a serde serializer that follows a [`Type`].
//!
//! | | [`Form::Ordered`] (keys) | [`Form::Compact`] (values) |
//! |---|---|---|
//! | unit | nothing | nothing |
//! | bool, `i8`, `u8` | a byte, the sign of `i8` flipped | a byte |
//! | integers | big endian, the sign flipped | LEB128, signed ones zigzag first |
//! | floats | big endian, as IEEE 754 `totalOrder` has them, with all NaNs last | little endian |
//! | timestamp | as `i64` | as `i64` |
//! | text, bytes | `00` written as `00 01`, then `00 00` | length, bytes |
//! | option | `00`, or `01` and the value | the same |
//! | list, map | `01` before each element or entry, then `00` | count, elements or entries |
//! | struct, tuple | field after field | field after field |
//! | enum | index: a byte, or four where there are more than 256 variants; content | index, content |
//! | json | a tag, then depending on it ([`Tag`]) | the same |
//!
//! The ordered form is order-preserving for values of one type: `a < b` exactly if the bytes of `a` sort
//! before those of `b`, by the order of [`Datum`](super::datum::Datum), which for a derived `Ord` is the
//! type's own.
//!
//! A type must write what it reads: its schema was traced from its `Deserialize`, and the bytes are
//! interpreted by that trace alone. Anything else is a [`Mismatch`] when written, not a surprise when read.
//! There is one exception: an `Option` that is left out (`skip_serializing_if`) is written as null.

mod parts;
pub(super) mod put;

use std::fmt;

use serde::ser::{self, Serialize};

use crate::schema::encode::parts::{NextType, Parts};
use crate::schema::trace::EVENT_TIME;
use crate::schema::types::Type;

/// The form of an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Order-preserving.
    Ordered,
    /// Compact, as far as that is cheap.
    Compact,
}

/// Why a value cannot be encoded: it is written differently than its type reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch(pub(super) String);

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Mismatch {}
impl ser::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}
impl serde::de::Error for Mismatch {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The tag before a value of [`Type::Json`], in the order of [`Datum`](super::datum::Datum).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Nothing.
    Null,
    /// [`Type::Bool`].
    False,
    /// [`Type::Bool`].
    True,
    /// An `i128`.
    Int,
    /// A `u128` above `i128::MAX`.
    UInt,
    /// An `f64`.
    Float,
    /// A timestamp.
    Time,
    /// Text.
    Text,
    /// Bytes.
    Bytes,
    /// A variant: its index as `u32`, its name, and a value, which is null for a unit variant.
    Variant,
    /// A unit variant: like a variant, without a value.
    UnitVariant,
    /// A list of values.
    List,
    /// A map of values to values; a struct is a map from names.
    Map,
}

impl Tag {
    /// All tags, by number.
    pub(super) const ALL: [Tag; 13] = [
        Tag::Null,
        Tag::False,
        Tag::True,
        Tag::Int,
        Tag::UInt,
        Tag::Float,
        Tag::Time,
        Tag::Text,
        Tag::Bytes,
        Tag::Variant,
        Tag::UnitVariant,
        Tag::List,
        Tag::Map,
    ];
}

/// The type of everything inside a value of [`Type::Json`].
static JSON: Type = Type::Json;

/// Precedes each element in the ordered form; and marks the end.
pub(super) const MORE: u8 = 1;
pub(super) const END: u8 = 0;

/// Whether a variant's index takes one byte in the ordered form.
pub(super) fn short_index(variants: usize) -> bool {
    variants <= 256
}

/// Appends a value of this type.
///
/// # Errors
/// If the value writes something other than the type says.
#[inline]
pub(crate) fn encode<T: Serialize + ?Sized>(
    ty: &Type,
    form: Form,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), Mismatch> {
    value.serialize(Encoder { ty, form, out })
}

struct Encoder<'a> {
    ty: &'a Type,
    form: Form,
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    #[cold]
    fn mismatch(&self, written: &str) -> Mismatch {
        Mismatch(format!("it is written as {written} but read as {}", self.ty))
    }

    fn tag(&mut self, tag: Tag) {
        self.out.push(tag as u8);
    }

    #[inline]
    fn signed(self, bits: u8, value: i64) -> Result<(), Mismatch> {
        match self.ty {
            Type::Int(width) if *width == bits => put::signed(self.form, bits, value, self.out),
            Type::Time if bits == 64 => put::signed(self.form, 64, value, self.out),
            _ => return self.wide(bits, true, value.into()),
        }
        Ok(())
    }

    #[inline]
    fn unsigned(self, bits: u8, value: u64) -> Result<(), Mismatch> {
        match self.ty {
            Type::UInt(width) if *width == bits => put::unsigned(self.form, bits, value, self.out),
            _ => return self.wide(bits, false, value.into()),
        }
        Ok(())
    }

    /// An integer of 128 bits, or of any width in self-describing data.
    fn wide(mut self, bits: u8, signed: bool, value: i128) -> Result<(), Mismatch> {
        match self.ty {
            Type::Int(128) if signed && bits == 128 => {}
            Type::Json => self.tag(Tag::Int),
            _ => return Err(self.mismatch(&format!("{}{bits}", if signed { 'i' } else { 'u' }))),
        }
        put::i128(self.form, value, self.out);
        Ok(())
    }

    fn wide_unsigned(mut self, value: u128) -> Result<(), Mismatch> {
        match self.ty {
            Type::UInt(128) => {}
            Type::Json => match i128::try_from(value) {
                Ok(value) => return self.wide(128, false, value),
                Err(_) => self.tag(Tag::UInt),
            },
            _ => return Err(self.mismatch("u128")),
        }
        put::u128(self.form, value, self.out);
        Ok(())
    }

    fn float(mut self, bits: u8, value: f64) -> Result<(), Mismatch> {
        match self.ty {
            Type::Float(32) if bits == 32 => {
                put::f32(self.form, value as f32, self.out);
                return Ok(());
            }
            Type::Float(64) if bits == 64 => {}
            Type::Json => self.tag(Tag::Float),
            _ => return Err(self.mismatch(&format!("f{bits}"))),
        }
        put::f64(self.form, value, self.out);
        Ok(())
    }

    fn text(mut self, value: &str) -> Result<(), Mismatch> {
        match self.ty {
            Type::Text => {}
            Type::Json => self.tag(Tag::Text),
            _ => return Err(self.mismatch("string")),
        }
        put::text(self.form, value.as_bytes(), self.out);
        Ok(())
    }

    fn null(mut self, written: &str) -> Result<(), Mismatch> {
        match self.ty {
            Type::Unit => {}
            Type::Option(_) => self.out.push(END),
            Type::Json => self.tag(Tag::Null),
            _ => return Err(self.mismatch(written)),
        }
        Ok(())
    }

    fn bytes(mut self, value: &[u8]) -> Result<(), Mismatch> {
        match self.ty {
            Type::Bytes => {}
            Type::Json => self.tag(Tag::Bytes),
            _ => return Err(self.mismatch("bytes")),
        }
        put::text(self.form, value, self.out);
        Ok(())
    }

    fn boolean(mut self, value: bool) -> Result<(), Mismatch> {
        match self.ty {
            Type::Bool => self.out.push(value.into()),
            Type::Json => self.tag(if value { Tag::True } else { Tag::False }),
            _ => return Err(self.mismatch("bool")),
        }
        Ok(())
    }
}

impl<'a> Encoder<'a> {
    /// Writes the variant's index. Returns the encoder of its content.
    fn variant(mut self, index: u32, name: &str, is_unit: bool) -> Result<Self, Mismatch> {
        let content = match self.ty {
            Type::Enum(variants) => {
                let known = variants.get(index as usize);
                match known.map(|variant| &variant.content) {
                    Some(None) if is_unit => &JSON,
                    Some(Some(content)) if !is_unit => content,
                    _ => return Err(self.mismatch(&format!("variant {index}, `{name}`"))),
                }
            }
            Type::Json => {
                self.tag(if is_unit { Tag::UnitVariant } else { Tag::Variant });
                put::index(self.form, usize::MAX, index, self.out);
                put::text(self.form, name.as_bytes(), self.out);
                return Ok(self);
            }
            _ => return Err(self.mismatch(&format!("variant `{name}`"))),
        };
        if let Type::Enum(variants) = self.ty {
            put::index(self.form, variants.len(), index, self.out);
        }
        self.ty = content;
        Ok(self)
    }

    fn sequence(mut self, len: Option<usize>) -> Result<Parts<'a>, Mismatch> {
        let element = match self.ty {
            Type::List(element) => element,
            Type::Json => {
                self.tag(Tag::List);
                &JSON
            }
            _ => return Err(self.mismatch("list")),
        };
        Ok(Parts::framed(self, NextType::Element(element), len))
    }

    fn tuple(mut self, len: usize) -> Result<Parts<'a>, Mismatch> {
        match self.ty {
            Type::Tuple(types) if types.len() == len => {
                let next = NextType::Tuple(types.iter());
                Ok(Parts::plain(self, next))
            }
            Type::Json => {
                self.tag(Tag::List);
                Ok(Parts::framed(self, NextType::Element(&JSON), Some(len)))
            }
            _ => Err(self.mismatch(&format!("tuple of {len}"))),
        }
    }

    fn entries(mut self, len: Option<usize>) -> Result<Parts<'a>, Mismatch> {
        let (key, value) = match self.ty {
            Type::Map(key, value) => (&**key, &**value),
            Type::Json => {
                self.tag(Tag::Map);
                (&JSON, &JSON)
            }
            _ => return Err(self.mismatch("map")),
        };
        Ok(Parts::framed(self, NextType::Entry(key, value), len))
    }

    fn fields(mut self, name: &str) -> Result<Parts<'a>, Mismatch> {
        match self.ty {
            Type::Struct(fields) => Ok(Parts::plain(self, NextType::Fields(fields.iter()))),
            Type::Json => {
                self.tag(Tag::Map);
                // Fields may be left out, so the count is not known yet.
                Ok(Parts::framed(self, NextType::Entry(&JSON, &JSON), None))
            }
            _ => Err(self.mismatch(&format!("struct `{name}`"))),
        }
    }
}

macro_rules! leaves {
    ($($method:ident($ty:ty) => |$encoder:ident, $value:ident| $encode:expr;)*) => {
        $(#[inline]
        fn $method(self, $value: $ty) -> Result<(), Mismatch> {
            let $encoder = self;
            $encode
        })*
    };
}

impl<'a> ser::Serializer for Encoder<'a> {
    type Ok = ();
    type Error = Mismatch;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    leaves! {
        serialize_bool(bool) => |encoder, value| encoder.boolean(value);
        serialize_i8(i8) => |encoder, value| encoder.signed(8, value.into());
        serialize_i16(i16) => |encoder, value| encoder.signed(16, value.into());
        serialize_i32(i32) => |encoder, value| encoder.signed(32, value.into());
        serialize_i64(i64) => |encoder, value| encoder.signed(64, value);
        serialize_i128(i128) => |encoder, value| encoder.wide(128, true, value);
        serialize_u8(u8) => |encoder, value| encoder.unsigned(8, value.into());
        serialize_u16(u16) => |encoder, value| encoder.unsigned(16, value.into());
        serialize_u32(u32) => |encoder, value| encoder.unsigned(32, value.into());
        serialize_u64(u64) => |encoder, value| encoder.unsigned(64, value);
        serialize_u128(u128) => |encoder, value| encoder.wide_unsigned(value);
        serialize_f32(f32) => |encoder, value| encoder.float(32, value.into());
        serialize_f64(f64) => |encoder, value| encoder.float(64, value);
        serialize_char(char) => |encoder, value| encoder.text(value.encode_utf8(&mut [0; 4]));
        serialize_str(&str) => |encoder, value| encoder.text(value);
        serialize_bytes(&[u8]) => |encoder, value| encoder.bytes(value);
    }

    fn serialize_none(self) -> Result<(), Mismatch> {
        self.null("an absent option")
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Mismatch> {
        match self.ty {
            Type::Option(inner) => {
                self.out.push(MORE);
                encode(inner, self.form, value, self.out)
            }
            Type::Json => value.serialize(self),
            _ => Err(self.mismatch("an option")),
        }
    }
    fn serialize_unit(self) -> Result<(), Mismatch> {
        match self.ty {
            Type::Option(_) => Err(self.mismatch("unit")),
            _ => self.null("unit"),
        }
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Mismatch> {
        self.serialize_unit()
    }
    fn serialize_unit_variant(self, _: &'static str, index: u32, name: &'static str) -> Result<(), Mismatch> {
        self.variant(index, name, true).map(drop)
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Mismatch> {
        if matches!(self.ty, Type::Json) && name == EVENT_TIME {
            self.tag(Tag::Time);
            return encode(&Type::Time, self.form, value, self.out);
        }
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Mismatch> {
        value.serialize(self.variant(index, name, false)?)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Parts<'a>, Mismatch> {
        self.sequence(len)
    }
    fn serialize_tuple(self, len: usize) -> Result<Parts<'a>, Mismatch> {
        self.tuple(len)
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Parts<'a>, Mismatch> {
        self.tuple(len)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        len: usize,
    ) -> Result<Parts<'a>, Mismatch> {
        self.variant(index, name, false)?.tuple(len)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Parts<'a>, Mismatch> {
        self.entries(len)
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Parts<'a>, Mismatch> {
        self.fields(name)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Mismatch> {
        self.variant(index, name, false)?.fields(name)
    }
}
