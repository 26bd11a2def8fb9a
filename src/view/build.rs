//! Values from datums: how a key given by its fields becomes the typed key, whole or as the bound of a scan.
//!
//! ```text
//!  key (merchant, window_start, window_end)      given: merchant = 42
//!  lower bound: {42, [MIN, MIN)}                 missing fields are filled with the least value of their type,
//!  upper bound: {42, [MAX, MAX)}                 or the greatest, where the type has one
//! ```
//!
//! A key's own `Deserialize` says which type each field has, so no schema is needed here; its checks (a `NonZeroU32`)
//! may refuse a fill, and then there is no bound and the scan starts at the end of the map.

use serde::Deserializer;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::view::datum::Datum;
use crate::view::flatten::{EVENT_TIME, Refused};
use crate::view::schema::Shape;

/// What missing fields are filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Nothing: a missing field is an error.
    None,
    /// The least value.
    Least,
    /// The greatest value; an error for types that have none, such as text.
    Greatest,
}

/// Builds a `T` of this shape from its fields, in the order of the schema.
pub fn build<T: DeserializeOwned>(shape: &Shape, fields: &[Option<Datum>], fill: Fill) -> Result<T, Refused> {
    T::deserialize(Whole { shape, fields, fill })
}

/// One datum, or a fill in its place.
#[derive(Clone, Copy)]
struct Part<'a> {
    datum: Option<&'a Datum>,
    fill: Fill,
}

/// A value whose parts are fields.
struct Whole<'a> {
    shape: &'a Shape,
    fields: &'a [Option<Datum>],
    fill: Fill,
}

impl<'a> Whole<'a> {
    fn part(&self, at: usize) -> Part<'a> {
        Part {
            datum: self.fields.get(at).and_then(Option::as_ref),
            fill: self.fill,
        }
    }

    fn seq<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.shape {
            Shape::Unit | Shape::One => Err(Refused::custom("one value where several are needed")),
            Shape::Parts(_) | Shape::Window => {
                let parts: Vec<_> = (0..self.fields.len()).map(|at| self.part(at)).collect();
                visitor.visit_seq(Parts(parts.into_iter()))
            }
            Shape::Windowed(inner) => {
                let (key, window) = self.fields.split_at(self.fields.len().saturating_sub(2));
                let key = Whole {
                    shape: inner,
                    fields: key,
                    fill: self.fill,
                };
                let window = Whole {
                    shape: &Shape::Window,
                    fields: window,
                    fill: self.fill,
                };
                visitor.visit_seq(Wholes([Some(key), Some(window)], 0))
            }
        }
    }
}

macro_rules! forward_whole {
    ($($method:ident($($arg:ident: $ty:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, Refused> {
            self.part(0).$method($($arg,)* visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Whole<'_> {
    type Error = Refused;

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        match self.shape {
            // A single field that is a tuple itself (an array, say) when traced deeper.
            Shape::One => self.part(0).deserialize_tuple(len, visitor),
            _ => self.seq(visitor),
        }
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(len, visitor)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.shape {
            Shape::One => self.part(0).deserialize_struct(name, fields, visitor),
            _ => self.seq(visitor),
        }
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if name == EVENT_TIME {
            return self.part(0).deserialize_newtype_struct(name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    forward_whole! {
        deserialize_any(); deserialize_bool();
        deserialize_i8(); deserialize_i16(); deserialize_i32(); deserialize_i64(); deserialize_i128();
        deserialize_u8(); deserialize_u16(); deserialize_u32(); deserialize_u64(); deserialize_u128();
        deserialize_f32(); deserialize_f64(); deserialize_char(); deserialize_str(); deserialize_string();
        deserialize_bytes(); deserialize_byte_buf(); deserialize_option(); deserialize_seq(); deserialize_map();
        deserialize_identifier(); deserialize_ignored_any();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
    }
}

struct Wholes<'a>([Option<Whole<'a>>; 2], usize);

impl<'de> SeqAccess<'de> for Wholes<'_> {
    type Error = Refused;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let next = self.0.get_mut(self.1).and_then(Option::take);
        self.1 += 1;
        next.map(|whole| seed.deserialize(whole)).transpose()
    }
}

impl Part<'_> {
    fn missing<T>(self) -> Result<T, Refused> {
        Err(Refused::custom(match self.fill {
            Fill::Greatest => "the type has no greatest value",
            _ => "the value is missing",
        }))
    }

    fn misfit<T>(self, wanted: &str) -> Result<T, Refused> {
        Err(Refused::custom(format_args!("{:?} is no {wanted}", self.datum)))
    }

    fn parts<'de, V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        let part = |datum| Part {
            datum: Some(datum),
            fill: self.fill,
        };
        match self.datum {
            Some(Datum::List(items)) => {
                visitor.visit_seq(Parts(items.iter().map(part).collect::<Vec<_>>().into_iter()))
            }
            Some(Datum::Struct(members)) => {
                let parts: Vec<_> = members.iter().map(|(_, datum)| part(datum)).collect();
                visitor.visit_seq(Parts(parts.into_iter()))
            }
            Some(_) => self.misfit("sequence"),
            None if self.fill == Fill::None => self.missing(),
            None => visitor.visit_seq(Parts(vec![self; len].into_iter())),
        }
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $ty:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            let value = match (self.datum, self.fill) {
                (Some(Datum::Int(value)), _) => <$ty>::try_from(*value).or_else(|_| self.misfit(stringify!($ty)))?,
                (Some(Datum::UInt(value)), _) => <$ty>::try_from(*value).or_else(|_| self.misfit(stringify!($ty)))?,
                (Some(_), _) => self.misfit(stringify!($ty))?,
                (None, Fill::Least) => <$ty>::MIN,
                (None, Fill::Greatest) => <$ty>::MAX,
                (None, Fill::None) => self.missing()?,
            };
            visitor.$visit(value)
        })*
    };
}

macro_rules! scalars {
    ($($method:ident $visit:ident $name:literal $pattern:pat => $value:expr, $least:expr, $greatest:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            match (self.datum, self.fill) {
                (Some($pattern), _) => visitor.$visit($value),
                (Some(_), _) => self.misfit($name),
                (None, Fill::Least) => visitor.$visit($least),
                (None, Fill::Greatest) => match $greatest {
                    Some(greatest) => visitor.$visit(greatest),
                    None => self.missing(),
                },
                (None, Fill::None) => self.missing(),
            }
        })*
    };
}

/// The greatest float by `totalOrder`. The least would be a NaN with a sign, but types that have one NaN, such as
/// [`F64`](crate::record::F64), put it last; a layout does not rely on the order of those that put some first.
const FLOAT_GREATEST: f64 = f64::from_bits(u64::MAX >> 1);

impl<'de> Deserializer<'de> for Part<'_> {
    type Error = Refused;

    integers! {
        deserialize_i8 visit_i8 i8; deserialize_i16 visit_i16 i16; deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64; deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8; deserialize_u16 visit_u16 u16; deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64; deserialize_u128 visit_u128 u128;
    }

    scalars! {
        deserialize_bool visit_bool "bool" Datum::Bool(value) => *value, false, Some(true);
        deserialize_f64 visit_f64 "float" Datum::Float(value) => *value, f64::NEG_INFINITY, Some(FLOAT_GREATEST);
        deserialize_f32 visit_f32 "float" Datum::Float(value) => *value as f32,
            f32::NEG_INFINITY, Some(f32::from_bits(u32::MAX >> 1));
        deserialize_str visit_str "text" Datum::Text(value) => value, "", None::<&str>;
        deserialize_bytes visit_bytes "bytes" Datum::Bytes(value) => value, &[], None::<&[u8]>;
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match (self.datum, self.fill) {
            (Some(Datum::Text(text)), _) => match text.chars().next() {
                Some(first) if text.len() == first.len_utf8() => visitor.visit_char(first),
                _ => self.misfit("char"),
            },
            (Some(_), _) => self.misfit("char"),
            (None, Fill::Least) => visitor.visit_char('\0'),
            (None, Fill::Greatest) => visitor.visit_char(char::MAX),
            (None, Fill::None) => self.missing(),
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match (self.datum, self.fill) {
            (Some(Datum::Null), _) | (None, Fill::Least) => visitor.visit_none(),
            (None, Fill::None) => self.missing(),
            _ => visitor.visit_some(self),
        }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match self.datum {
            Some(Datum::Time(time)) if name == EVENT_TIME => {
                let micros = Datum::Int(time.micros().into());
                visitor.visit_newtype_struct(Part {
                    datum: Some(&micros),
                    fill: self.fill,
                })
            }
            Some(_) if name == EVENT_TIME => self.misfit("timestamp"),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match (self.datum, self.fill) {
            (None, Fill::Least) => visitor.visit_seq(Parts(Vec::new().into_iter())),
            (None, _) => self.missing(),
            _ => self.parts(0, visitor),
        }
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.parts(len, visitor)
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.parts(len, visitor)
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.parts(fields.len(), visitor)
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match (self.datum, self.fill) {
            (Some(Datum::Map(entries)), _) => {
                let both = entries.iter().flat_map(|(key, value)| [key, value]);
                let parts: Vec<_> = both
                    .map(|datum| Part {
                        datum: Some(datum),
                        fill: self.fill,
                    })
                    .collect();
                visitor.visit_map(Parts(parts.into_iter()))
            }
            (Some(_), _) => self.misfit("map"),
            (None, Fill::Least) => visitor.visit_map(Parts(Vec::new().into_iter())),
            (None, _) => self.missing(),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let (index, held) = match (self.datum, self.fill) {
            (Some(Datum::Variant(index, _, held)), _) => (*index, held.as_deref()),
            (Some(_), _) => return self.misfit("variant"),
            (None, Fill::Least) => (0, None),
            (None, Fill::Greatest) => (variants.len().saturating_sub(1) as u32, None),
            (None, Fill::None) => return self.missing(),
        };
        visitor.visit_enum(Variant {
            index,
            held: Part {
                datum: held,
                fill: self.fill,
            },
        })
    }

    /// Only types that look before they know ask this.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match self.datum {
            None => self.missing(),
            Some(Datum::Null) => visitor.visit_unit(),
            Some(Datum::Bool(value)) => visitor.visit_bool(*value),
            Some(Datum::Int(value)) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Some(Datum::UInt(value)) => visitor.visit_u128(*value),
            Some(Datum::Float(value)) => visitor.visit_f64(*value),
            Some(Datum::Time(time)) => visitor.visit_i64(time.micros()),
            Some(Datum::Text(text)) => visitor.visit_str(text),
            Some(Datum::Bytes(bytes)) => visitor.visit_bytes(bytes),
            Some(Datum::Variant(..)) => self.deserialize_enum("", &[], visitor),
            Some(Datum::List(_)) => self.parts(0, visitor),
            Some(Datum::Struct(members)) => {
                let names: Vec<Datum> = members
                    .iter()
                    .map(|(name, _)| Datum::Text((*name).into()))
                    .collect();
                let both = names
                    .iter()
                    .zip(members)
                    .flat_map(|(name, (_, datum))| [name, datum]);
                let parts: Vec<_> = both
                    .map(|datum| Part {
                        datum: Some(datum),
                        fill: self.fill,
                    })
                    .collect();
                visitor.visit_map(Parts(parts.into_iter()))
            }
            Some(Datum::Map(_)) => self.deserialize_map(visitor),
        }
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }
}

struct Parts<'a>(std::vec::IntoIter<Part<'a>>);

impl<'de> SeqAccess<'de> for Parts<'_> {
    type Error = Refused;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        self.0.next().map(|part| seed.deserialize(part)).transpose()
    }
}

impl<'de> MapAccess<'de> for Parts<'_> {
    type Error = Refused;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        self.next_element_seed(seed)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        self.next_element_seed(seed)?
            .ok_or_else(|| Refused::custom("a key without its value"))
    }
}

struct Variant<'a> {
    index: u32,
    held: Part<'a>,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a> {
    type Error = Refused;
    type Variant = Part<'a>;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Part<'a>), Refused> {
        let index: U32Deserializer<Refused> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self.held))
    }
}

impl<'de> VariantAccess<'de> for Part<'_> {
    type Error = Refused;
    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(self)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.parts(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.parts(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::F64;
    use crate::time::{EventTime, Window, Windowed};

    type Key = Windowed<(u32, String, Option<F64>)>;

    fn shape() -> Shape {
        Shape::Windowed(Box::new(Shape::Parts(3)))
    }

    #[test]
    fn builds_whole_keys_and_least_ones() {
        let window = Window {
            start: EventTime(5),
            end: EventTime(9),
        };
        let mut fields = vec![
            Some(Datum::Int(7)),
            Some(Datum::Text("a".into())),
            Some(Datum::Null),
            Some(Datum::Time(window.start)),
            Some(Datum::Time(window.end)),
        ];
        let key = Key {
            key: (7, "a".into(), None),
            window,
        };
        assert_eq!(build::<Key>(&shape(), &fields, Fill::None).unwrap(), key);
        assert_eq!(build::<Key>(&shape(), &fields, Fill::Greatest).unwrap(), key);

        fields[3] = None;
        fields[4] = None;
        let least = build::<Key>(&shape(), &fields, Fill::Least).unwrap();
        assert_eq!(
            least.window,
            Window {
                start: EventTime::MIN,
                end: EventTime::MIN
            }
        );
        let greatest = build::<Key>(&shape(), &fields, Fill::Greatest).unwrap();
        assert_eq!(
            greatest.window,
            Window {
                start: EventTime::MAX,
                end: EventTime::MAX
            }
        );
        assert!(build::<Key>(&shape(), &fields, Fill::None).is_err());

        fields[1] = None;
        assert_eq!(build::<Key>(&shape(), &fields, Fill::Least).unwrap().key.1, "");
        assert!(build::<Key>(&shape(), &fields, Fill::Greatest).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(build::<u8>(&Shape::One, &[Some(Datum::Int(256))], Fill::None).is_err());
        assert!(build::<u8>(&Shape::One, &[Some(Datum::Text("1".into()))], Fill::None).is_err());
        assert_eq!(
            build::<u128>(&Shape::One, &[Some(Datum::from(u128::MAX))], Fill::None).unwrap(),
            u128::MAX
        );
    }
}
