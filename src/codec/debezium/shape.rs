//! What a type asks a deserializer for first: the columns of a row, or a single value.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeOwned, Visitor};

/// What a type is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Named fields; their names and aliases.
    Fields(&'static [&'static str]),
    /// Whatever columns there are.
    Columns,
    /// One value: a number, a text, a list.
    Value,
}

impl Shape {
    /// Asks `T`.
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        match T::deserialize(ShapeProbe) {
            Err(ProbeOutcome(shape)) => shape,
            // It asked for nothing.
            Ok(_) => Shape::Columns,
        }
    }

    /// Whether a type of this shape reads a column.
    pub(super) fn reads(self, column: &str) -> bool {
        match self {
            Self::Fields(names) => names.contains(&column),
            Self::Columns | Self::Value => true,
        }
    }
}

/// Says what was asked for.
struct ShapeProbe;

#[derive(Debug)]
struct ProbeOutcome(Shape);

impl fmt::Display for ProbeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asked for {:?}", self.0)
    }
}
impl std::error::Error for ProbeOutcome {}
impl serde::de::Error for ProbeOutcome {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(Shape::Columns)
    }
}

macro_rules! values {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeOutcome> {
            Err(ProbeOutcome(Shape::Value))
        }
    )*};
}

impl<'de> Deserializer<'de> for ShapeProbe {
    type Error = ProbeOutcome;

    values! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_seq
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeOutcome> {
        Err(ProbeOutcome(Shape::Columns))
    }
    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ProbeOutcome> {
        Err(ProbeOutcome(Shape::Columns))
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ProbeOutcome> {
        Err(ProbeOutcome(Shape::Fields(fields)))
    }
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, ProbeOutcome> {
        visitor.visit_newtype_struct(self)
    }
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ProbeOutcome> {
        visitor.visit_some(self)
    }
    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, ProbeOutcome> {
        Err(ProbeOutcome(Shape::Value))
    }
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, ProbeOutcome> {
        Err(ProbeOutcome(Shape::Value))
    }
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, ProbeOutcome> {
        Err(ProbeOutcome(Shape::Value))
    }

    serde::forward_to_deserialize_any! { unit unit_struct identifier ignored_any }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[test]
    fn types_say_what_they_are_made_of() {
        #[derive(Deserialize)]
        struct Id(#[expect(dead_code, reason = "only its type matters")] i64);
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its type matters")]
        struct Row {
            id: i64,
            #[serde(alias = "body_text")]
            body: String,
        }
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only its type matters")]
        struct Flat {
            #[serde(flatten)]
            rest: Row,
        }
        assert_eq!(Shape::of::<i64>(), Shape::Value);
        assert_eq!(Shape::of::<Id>(), Shape::Value);
        assert_eq!(Shape::of::<Option<String>>(), Shape::Value);
        assert_eq!(Shape::of::<(i64, String)>(), Shape::Value);
        assert_eq!(Shape::of::<Flat>(), Shape::Columns);
        assert_eq!(Shape::of::<serde_json::Value>(), Shape::Columns);
        let row = Shape::of::<Row>();
        assert!(
            row.reads("id") && row.reads("body_text") && !row.reads("note"),
            "{row:?}"
        );
        assert!(Shape::of::<Flat>().reads("note"));
    }
}
