//! Any serializable value as a [`Datum`]: a serde serializer that keeps structure and forgets Rust types.
//!
//! Event times are told by the name of their newtype. Human-readable forms are asked for, as rows end up as JSON.

use std::fmt;

use serde::ser::{self, Serialize};

use crate::time::EventTime;
use crate::view::datum::Datum;

/// Name of [`EventTime`] in serde's data model.
pub(crate) const EVENT_TIME: &str = "$thalweg::EventTime";

/// The value as a datum; a value that can't be serialized is null.
pub fn datum<T: Serialize + ?Sized>(value: &T) -> Datum {
    value.serialize(Flatten).unwrap_or(Datum::Null)
}

/// Why a value can't be serialized: its own words.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Refused {}
impl ser::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Refused(message.to_string())
    }
}
impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Refused(message.to_string())
    }
}

struct Flatten;

macro_rules! scalars {
    ($($method:ident($ty:ty) => |$value:ident| $datum:expr;)*) => {
        $(fn $method(self, $value: $ty) -> Result<Datum, Refused> {
            Ok($datum)
        })*
    };
}

impl ser::Serializer for Flatten {
    type Ok = Datum;
    type Error = Refused;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Entries;
    type SerializeStruct = Members;
    type SerializeStructVariant = Members;

    scalars! {
        serialize_bool(bool) => |value| Datum::Bool(value);
        serialize_i8(i8) => |value| Datum::Int(value.into());
        serialize_i16(i16) => |value| Datum::Int(value.into());
        serialize_i32(i32) => |value| Datum::Int(value.into());
        serialize_i64(i64) => |value| Datum::Int(value.into());
        serialize_i128(i128) => |value| Datum::Int(value);
        serialize_u8(u8) => |value| Datum::Int(value.into());
        serialize_u16(u16) => |value| Datum::Int(value.into());
        serialize_u32(u32) => |value| Datum::Int(value.into());
        serialize_u64(u64) => |value| Datum::Int(value.into());
        serialize_u128(u128) => |value| Datum::from(value);
        serialize_f32(f32) => |value| Datum::float(value.into());
        serialize_f64(f64) => |value| Datum::float(value);
        serialize_char(char) => |value| Datum::Text(value.into());
        serialize_str(&str) => |value| Datum::Text(value.into());
        serialize_bytes(&[u8]) => |value| Datum::Bytes(value.into());
    }

    fn serialize_none(self) -> Result<Datum, Refused> {
        Ok(Datum::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Datum, Refused> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Datum, Refused> {
        Ok(Datum::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<Datum, Refused> {
        Ok(Datum::Null)
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<Datum, Refused> {
        Ok(Datum::Variant(index, variant, None))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Datum, Refused> {
        match (name, value.serialize(self)?) {
            (EVENT_TIME, Datum::Int(micros)) => Ok(Datum::Time(EventTime(micros as i64))),
            (_, datum) => Ok(datum),
        }
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Datum, Refused> {
        Ok(Datum::Variant(
            index,
            variant,
            Some(Box::new(value.serialize(self)?)),
        ))
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Items, Refused> {
        Ok(Items {
            variant: None,
            items: Vec::with_capacity(len.unwrap_or(0)),
        })
    }
    fn serialize_tuple(self, len: usize) -> Result<Items, Refused> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Items, Refused> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Items, Refused> {
        Ok(Items {
            variant: Some((index, variant)),
            items: Vec::with_capacity(len),
        })
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Entries, Refused> {
        Ok(Entries {
            key: Datum::Null,
            entries: Vec::with_capacity(len.unwrap_or(0)),
        })
    }
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Members, Refused> {
        Ok(Members {
            variant: None,
            members: Vec::with_capacity(len),
        })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Members, Refused> {
        Ok(Members {
            variant: Some((index, variant)),
            members: Vec::with_capacity(len),
        })
    }
}

fn in_variant(variant: Option<(u32, &'static str)>, datum: Datum) -> Datum {
    match variant {
        Some((index, name)) => Datum::Variant(index, name, Some(Box::new(datum))),
        None => datum,
    }
}

struct Items {
    variant: Option<(u32, &'static str)>,
    items: Vec<Datum>,
}

macro_rules! items {
    ($($part:ident $method:ident),*) => {
        $(impl ser::$part for Items {
            type Ok = Datum;
            type Error = Refused;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.items.push(value.serialize(Flatten)?);
                Ok(())
            }
            fn end(self) -> Result<Datum, Refused> {
                Ok(in_variant(self.variant, Datum::List(self.items)))
            }
        })*
    };
}
items!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

struct Members {
    variant: Option<(u32, &'static str)>,
    members: Vec<(&'static str, Datum)>,
}

macro_rules! members {
    ($($part:ident),*) => {
        $(impl ser::$part for Members {
            type Ok = Datum;
            type Error = Refused;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Refused> {
                self.members.push((name, value.serialize(Flatten)?));
                Ok(())
            }
            fn end(self) -> Result<Datum, Refused> {
                Ok(in_variant(self.variant, Datum::Struct(self.members)))
            }
        })*
    };
}
members!(SerializeStruct, SerializeStructVariant);

struct Entries {
    key: Datum,
    entries: Vec<(Datum, Datum)>,
}

impl ser::SerializeMap for Entries {
    type Ok = Datum;
    type Error = Refused;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.key = key.serialize(Flatten)?;
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        let key = std::mem::replace(&mut self.key, Datum::Null);
        self.entries.push((key, value.serialize(Flatten)?));
        Ok(())
    }
    fn end(self) -> Result<Datum, Refused> {
        Ok(Datum::Map(self.entries))
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;
    use crate::time::{Window, Windowed};

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Tagged(u8),
    }

    #[test]
    fn keeps_structure_and_knows_event_times() {
        let window = Window {
            start: EventTime(1),
            end: EventTime(2),
        };
        let time = |micros| Datum::Time(EventTime(micros));
        assert_eq!(
            datum(&Windowed {
                key: (1u8, "a"),
                window
            }),
            Datum::Struct(vec![
                ("key", Datum::List(vec![Datum::Int(1), Datum::Text("a".into())])),
                (
                    "window",
                    Datum::Struct(vec![("start", time(1)), ("end", time(2))])
                ),
            ])
        );
        assert_eq!(datum(&Some(u128::MAX)), Datum::UInt(u128::MAX));
        assert_eq!(datum(&Kind::Plain), Datum::Variant(0, "Plain", None));
        assert_eq!(
            datum(&Kind::Tagged(3)),
            Datum::Variant(1, "Tagged", Some(Box::new(Datum::Int(3))))
        );
    }
}
