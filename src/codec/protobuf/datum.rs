//! From a message's bytes to a user's type: serde's deserializer over a [`Schema`].
//!
//! A struct gets the fields that it names, and an enum the member of a oneof that is set; the rest is passed
//! over as bytes. Nothing that the bytes say is believed: lengths are held against what is left, nesting
//! against a limit. What a type gets that takes anything is Protobuf's JSON, but bytes are bytes and integers
//! of 64 bits are numbers.

mod access;
mod known;

use serde::Deserializer;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};

use self::access::{Chosen, Entries, Fields, Items, Symbol};
use super::fault::{Fault, Read};
use super::input::{Input, Scalar, Scratch, Span};
use super::layout::Slot;
use super::merge::merged;
use super::schema::{Field, Known, MessageId, Schema};
use super::wire::DEPTH_MAX;

/// All of `bytes`, a message of this id, as a `T`.
#[inline]
pub(super) fn deserialize<T: DeserializeOwned>(
    schema: &Schema,
    message: MessageId,
    bytes: &[u8],
    scratch: &mut Scratch,
) -> Read<T> {
    match whole(schema, message, bytes, scratch) {
        Err(fault) if fault.is_split() => {
            let bytes = merged(schema, message, bytes, scratch)?;
            whole(schema, message, &bytes, scratch)
        }
        read => read,
    }
}

#[inline]
fn whole<T: DeserializeOwned>(
    schema: &Schema,
    message: MessageId,
    bytes: &[u8],
    scratch: &mut Scratch,
) -> Read<T> {
    let span = Span {
        message,
        start: 0,
        end: bytes.len(),
    };
    T::deserialize(Place {
        input: &mut Input::new(schema, bytes, scratch),
        what: What::Message(span),
        depth_left: DEPTH_MAX,
    })
}

/// What stands at a place.
#[derive(Clone, Copy)]
enum What<'a> {
    Scalar(Scalar<'a>),
    /// A map's key: where text is asked for, numbers are text.
    Key(Scalar<'a>),
    /// A declared default of a field that is not written: an option is none.
    Default(Scalar<'a>),
    Null,
    Message(Span),
    Many(&'a Field, Slot),
    Map(&'a Field, Slot),
    /// The member of a oneof that is set, and where its value is.
    Oneof(&'a Field, usize),
}

/// A place of the message, to be read as whatever a type asks for.
struct Place<'r, 'a> {
    input: &'r mut Input<'a>,
    what: What<'a>,
    depth_left: usize,
}

impl<'r, 'a> Place<'r, 'a> {
    #[inline]
    fn below(&self) -> Read<usize> {
        self.depth_left.checked_sub(1).ok_or_else(Fault::invalid)
    }

    fn known(&self) -> Option<Known> {
        match self.what {
            What::Message(span) => self.input.message(span.message).known,
            _ => None,
        }
    }

    /// The place itself, or what stands in it where it only wraps that: a value of a wrapper, the map of a
    /// `Struct`, what a `Value` is.
    fn unwrapped(mut self) -> Read<Self> {
        while let (What::Message(span), Some(known)) = (self.what, self.known()) {
            if matches!(known, Known::Timestamp | Known::Duration) {
                break;
            }
            self.depth_left = self.below()?;
            self.what = self.input.content(span, known)?;
        }
        Ok(self)
    }

    fn visit_scalar<'de, V: Visitor<'de>>(self, scalar: Scalar<'a>, visitor: V) -> Read<V::Value> {
        match scalar {
            Scalar::Bool(value) => visitor.visit_bool(value),
            Scalar::Int(value) => visitor.visit_i64(value),
            Scalar::UInt(value) => visitor.visit_u64(value),
            Scalar::Float(value) => visitor.visit_f32(value),
            Scalar::Double(value) => visitor.visit_f64(value),
            Scalar::Text(value) => visitor.visit_str(value),
            Scalar::Bytes(value) => visitor.visit_bytes(value),
            Scalar::Enum(id, number) => match self.input.schema.enums[id].value(number) {
                Some(value) => visitor.visit_str(&value.name),
                // As Protobuf's JSON has a number without a name.
                None => visitor.visit_i32(number),
            },
        }
    }

    /// The fields of a message: those of these names, or all.
    fn visit_fields<'de, V: Visitor<'de>>(
        self,
        span: Span,
        names: Option<&'static [&'static str]>,
        visitor: V,
    ) -> Read<V::Value> {
        let depth_left = self.below()?;
        let scanned = self.input.scan(span, names)?;
        let mut fields = Fields {
            message: self.input.message(span.message),
            next: 0,
            depth_left,
            scanned,
            input: self.input,
        };
        let value = visitor.visit_map(&mut fields)?;
        let Fields { input, scanned, .. } = fields;
        input.leave(&scanned);
        Ok(value)
    }

    fn items(self, field: &'a Field, slot: Slot) -> Read<Items<'r, 'a>> {
        let depth_left = self.below()?;
        Ok(Items::new(self.input, field, slot, depth_left))
    }

    fn visit_entries<'de, V: Visitor<'de>>(self, field: &'a Field, slot: Slot, visitor: V) -> Read<V::Value> {
        let depth_left = self.below()?;
        visitor.visit_map(Entries::new(self.input, field, slot, depth_left))
    }

    /// The member that is set, of a message that is nothing but a oneof.
    fn alternative(&mut self, span: Span) -> Read<Option<What<'a>>> {
        let message = self.input.message(span.message);
        if message.alternative().is_none() {
            return Ok(None);
        }
        let set = self.input.set_member(span)?;
        let (field, at) = set.ok_or_else(Fault::unfit)?;
        Ok(Some(What::Oneof(field, at)))
    }
}

/// Integers: of an enum its number.
macro_rules! integers {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
            match self.what {
                What::Scalar(Scalar::Int(value)) => visitor.visit_i64(value),
                What::Scalar(Scalar::UInt(value)) => visitor.visit_u64(value),
                What::Scalar(Scalar::Enum(_, number)) => visitor.visit_i64(number.into()),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Place<'_, '_> {
    type Error = Fault;

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let own = self.unwrapped()?;
        match own.what {
            What::Scalar(scalar) | What::Key(scalar) | What::Default(scalar) => {
                own.visit_scalar(scalar, visitor)
            }
            What::Null => visitor.visit_unit(),
            What::Message(span) => match own.known() {
                Some(known) => visitor.visit_string(own.input.text_of(span, known)?),
                None => own.visit_fields(span, None, visitor),
            },
            What::Many(field, slot) => visitor.visit_seq(&mut own.items(field, slot)?),
            What::Map(field, slot) => own.visit_entries(field, slot, visitor),
            What::Oneof(field, _) => {
                let name: &str = &field.name;
                let member = std::iter::once((name, access::member(own)?));
                visitor.visit_map(MapDeserializer::new(member))
            }
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.what {
            What::Scalar(Scalar::Text(text)) => visitor.visit_str(text),
            What::Scalar(Scalar::Bytes(bytes)) => {
                visitor.visit_str(std::str::from_utf8(bytes).map_err(|_| Fault::unfit())?)
            }
            What::Key(Scalar::Int(key)) => visitor.visit_string(key.to_string()),
            What::Key(Scalar::UInt(key)) => visitor.visit_string(key.to_string()),
            What::Key(Scalar::Bool(key)) => visitor.visit_str(if key { "true" } else { "false" }),
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.what {
            What::Scalar(Scalar::Text(text)) => visitor.visit_bytes(text.as_bytes()),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let own = match self.known() {
            Some(Known::Value) => self.unwrapped()?,
            _ => self,
        };
        match own.what {
            What::Default(_) | What::Null => visitor.visit_none(),
            _ => visitor.visit_some(own),
        }
    }

    /// Of a message without fields.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match self.what {
            What::Message(span) if self.input.message(span.message).fields.is_empty() => visitor.visit_unit(),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        self.deserialize_unit(visitor)
    }

    /// An event time is the timestamp's microseconds.
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Read<V::Value> {
        match self.what {
            What::Message(span) if name == known::EVENT_TIME && self.known() == Some(Known::Timestamp) => {
                let micros = self.input.micros(span)?;
                visitor.visit_newtype_struct(IntoDeserializer::<Fault>::into_deserializer(micros))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        let own = self.unwrapped()?;
        match own.what {
            What::Many(field, slot) => {
                let mut items = own.items(field, slot)?;
                let value = visitor.visit_seq(&mut items)?;
                // A tuple takes as many as it has, and does not ask for another.
                items.end()?;
                Ok(value)
            }
            What::Scalar(Scalar::Bytes(bytes)) => {
                let mut numbers = SeqDeserializer::<_, Fault>::new(bytes.iter().copied());
                let value = visitor.visit_seq(&mut numbers)?;
                numbers.end()?;
                Ok(value)
            }
            _ => own.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Read<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Read<V::Value> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match (self.what, self.known()) {
            (What::Message(span), None | Some(Known::Timestamp | Known::Duration | Known::Wrapper)) => {
                self.visit_fields(span, None, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        match (self.what, self.known()) {
            (What::Message(span), None | Some(Known::Timestamp | Known::Duration | Known::Wrapper)) => {
                self.visit_fields(span, Some(fields), visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    /// A value of an enum or a text names a variant; of a oneof the member that is set is one.
    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        if let (What::Message(span), None) = (self.what, self.known())
            && let Some(set) = self.alternative(span)?
        {
            self.depth_left = self.below()?;
            self.what = set;
            return self.deserialize_enum(name, variants, visitor);
        }
        let own = self.unwrapped()?;
        match own.what {
            What::Oneof(field, _) => {
                let names = [&field.name, &field.json, &field.variant];
                let variant = access::variant(variants, names.map(String::as_str));
                let variant = variant.unwrap_or(&field.name);
                visitor
                    .visit_enum(Chosen { variant, place: own })
                    .map_err(|fault| fault.within(&field.name))
            }
            What::Scalar(Scalar::Enum(id, number)) | What::Default(Scalar::Enum(id, number)) => {
                match own.input.schema.enums[id].value(number) {
                    Some(value) => {
                        let names = [value.name.as_str(), &value.variant];
                        let variant = access::variant(variants, names).unwrap_or(&value.name);
                        visitor.visit_enum(Symbol(variant))
                    }
                    // A variant for all that is unknown may take it.
                    None => visitor.visit_enum(Symbol(&number.to_string())),
                }
            }
            What::Scalar(Scalar::Text(text)) | What::Key(Scalar::Text(text)) => {
                visitor.visit_enum(Symbol(text))
            }
            _ => Err(Fault::unfit()),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool char f32 f64
    }
}
