//! The type of a value, asked of its own `Deserialize`: a deserializer that notes what is asked for and feeds
//! placeholders.
//!
//! A type that checks what it reads may refuse a placeholder (a `NonZeroU32` refuses 0, a UUID refuses ""). Then the
//! whole is read again with the next placeholder in that place. What still can't be had (types that must look before
//! they know, such as untagged enums) is [`Type::Json`]; the fields around it keep their types where serde's order of
//! asking allows. Types are traced by structure, so two structs of one name, or one generic struct twice, do no harm.

use serde::Deserializer;
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::view::flatten::{EVENT_TIME, Refused};
use crate::view::schema::Type;

/// What a type looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Its structure.
    pub ty: Type,
    /// Its name in serde's data model, if it is a struct with named fields.
    pub name: Option<&'static str>,
}

/// Traces `T`.
pub fn trace<T: DeserializeOwned>() -> Traced {
    let (mut state, mut ty) = (State::default(), Type::Json);
    _ = read::<T>(&mut state, &mut ty, 0);
    Traced { ty, name: state.name }
}

/// What can be told of a type that is read from bytes without names, before there are any.
pub struct Samples<T> {
    /// Values made of placeholders: with something in each option, list and map, with nothing in the innermost of them, and
    /// so on, to nothing in any.
    pub values: Vec<T>,
    /// A part of the type looks at the data before it knows what to read: it needs a self-describing format.
    pub self_describing: bool,
}

/// Makes samples of `T`.
pub fn samples<T: DeserializeOwned>() -> Samples<T> {
    let mut state = State {
        binary: true,
        ..State::default()
    };
    let values = (0..=DEPTH_MAX).filter_map(|depth| {
        state.chosen.clear();
        read(&mut state, &mut Type::Json, depth)
    });
    Samples {
        values: values.collect(),
        self_describing: state.self_describing,
    }
}

/// Reads a `T` of placeholders, of others where it refuses some, and notes what it asks for.
fn read<T: DeserializeOwned>(state: &mut State, ty: &mut Type, depth: usize) -> Option<T> {
    for _ in 0..ATTEMPTS_MAX {
        *ty = Type::Json;
        state.begin();
        let read = T::deserialize(Trace { state, ty, depth });
        if read.is_ok() || !state.next_placeholder() {
            return read.ok();
        }
    }
    (*ty, state.name) = (Type::Json, None);
    None
}

const ATTEMPTS_MAX: usize = 256;
/// Below this, options, sequences and maps are left empty: recursive types end there.
const DEPTH_MAX: usize = 6;
/// Below this, and beyond so many values, the type is taken for endless.
const DEPTH_END: usize = 64;
const LEAVES_MAX: usize = 10_000;

const TEXTS: [&str; 9] = [
    "",
    "A",
    "0",
    "00000000-0000-0000-0000-000000000000",
    "1970-01-01T00:00:00Z",
    "1970-01-01",
    "00:00:00",
    "127.0.0.1",
    "::1",
];

#[derive(Default)]
struct State {
    name: Option<&'static str>,
    /// Which placeholder each leaf gets, in the order in which leaves are asked for.
    chosen: Vec<usize>,
    leaves: usize,
    /// The first leaf that refused, and how many placeholders it has.
    refused: Option<(usize, usize)>,
    /// Whether types are to ask as they do of a binary encoding.
    binary: bool,
    /// Whether any of them asked what there is.
    self_describing: bool,
}

impl State {
    fn begin(&mut self) {
        self.leaves = 0;
        self.refused = None;
        self.name = None;
    }

    fn leaf(&mut self) -> Result<(usize, usize), Refused> {
        let leaf = self.leaves;
        self.leaves += 1;
        if leaf >= LEAVES_MAX {
            return Err(Refused("endless type".into()));
        }
        if leaf == self.chosen.len() {
            self.chosen.push(0);
        }
        Ok((leaf, self.chosen[leaf]))
    }

    fn refuse(&mut self, leaf: usize, placeholders: usize) {
        self.refused.get_or_insert((leaf, placeholders));
    }

    /// Whether there is another placeholder to try.
    fn next_placeholder(&mut self) -> bool {
        let Some((leaf, placeholders)) = self.refused else {
            return false;
        };
        self.chosen[leaf] += 1;
        self.chosen.truncate(leaf + 1);
        self.chosen[leaf] < placeholders
    }
}

struct Trace<'a> {
    state: &'a mut State,
    ty: &'a mut Type,
    depth: usize,
}

impl Trace<'_> {
    fn leaf<P: Copy, R>(
        self,
        ty: Type,
        placeholders: &[P],
        visit: impl FnOnce(P) -> Result<R, Refused>,
    ) -> Result<R, Refused> {
        *self.ty = ty;
        let (leaf, chosen) = self.state.leaf()?;
        let visited = visit(placeholders[chosen.min(placeholders.len() - 1)]);
        if visited.is_err() {
            self.state.refuse(leaf, placeholders.len());
        }
        visited
    }

    fn below<'b>(state: &'b mut State, ty: &'b mut Type, depth: usize) -> Result<Trace<'b>, Refused> {
        if depth >= DEPTH_END {
            return Err(Refused("endless type".into()));
        }
        Ok(Trace {
            state,
            ty,
            depth: depth + 1,
        })
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty => $traced:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
            self.leaf($traced, &[0 as $ty, 1 as $ty], |value| visitor.$visit(value))
        })*
    };
}

impl<'de> Deserializer<'de> for Trace<'_> {
    type Error = Refused;

    numbers! {
        deserialize_i8 visit_i8 i8 => Type::Int(8);
        deserialize_i16 visit_i16 i16 => Type::Int(16);
        deserialize_i32 visit_i32 i32 => Type::Int(32);
        deserialize_i64 visit_i64 i64 => Type::Int(64);
        deserialize_i128 visit_i128 i128 => Type::Int(128);
        deserialize_u8 visit_u8 u8 => Type::UInt(8);
        deserialize_u16 visit_u16 u16 => Type::UInt(16);
        deserialize_u32 visit_u32 u32 => Type::UInt(32);
        deserialize_u64 visit_u64 u64 => Type::UInt(64);
        deserialize_u128 visit_u128 u128 => Type::UInt(128);
        deserialize_f32 visit_f32 f32 => Type::Float(32);
        deserialize_f64 visit_f64 f64 => Type::Float(64);
    }

    fn is_human_readable(&self) -> bool {
        !self.state.binary
    }
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
        self.state.self_describing = true;
        Err(Refused("reads whatever there is".into()))
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_any(visitor)
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.state.self_describing = true;
        visitor.visit_unit()
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf(Type::Bool, &[false, true], |value| visitor.visit_bool(value))
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf(Type::Text, &['A', '0'], |value| visitor.visit_char(value))
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.leaf(Type::Text, &TEXTS, |value| visitor.visit_str(value))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let placeholders: [&[u8]; 5] = [&[], &[0], &[0; 16], &[0; 32], &[0; 64]];
        self.leaf(Type::Bytes, &placeholders, |value| visitor.visit_bytes(value))
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        *self.ty = Type::Unit;
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut inner = Type::Json;
        let visited = if self.depth >= DEPTH_MAX {
            visitor.visit_none()
        } else {
            visitor.visit_some(Trace::below(self.state, &mut inner, self.depth)?)
        };
        *self.ty = Type::Option(Box::new(inner));
        visited
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let mut inner = Type::Json;
        let visited = visitor.visit_newtype_struct(Trace::below(self.state, &mut inner, self.depth)?);
        *self.ty = if name == EVENT_TIME { Type::Time } else { inner };
        visited
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut types = vec![Type::Json; usize::from(self.depth < DEPTH_MAX)];
        let visited = visitor.visit_seq(Parts {
            state: self.state,
            types: types.iter_mut(),
            depth: self.depth,
        });
        *self.ty = Type::List(Box::new(types.pop().unwrap_or(Type::Json)));
        visited
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        let mut types = vec![Type::Json; len];
        let visited = visitor.visit_seq(Parts {
            state: self.state,
            types: types.iter_mut(),
            depth: self.depth,
        });
        *self.ty = Type::Tuple(types);
        visited
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let mut types = [Type::Json, Type::Json];
        let some = if self.depth < DEPTH_MAX { 2 } else { 0 };
        let types_left = types[..some].iter_mut();
        let visited = visitor.visit_map(Parts {
            state: self.state,
            types: types_left,
            depth: self.depth,
        });
        let [key, value] = types;
        *self.ty = Type::Map(Box::new(key), Box::new(value));
        visited
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        if self.depth == 0 {
            self.state.name = Some(name);
        }
        let mut types = vec![Type::Json; fields.len()];
        let visited = visitor.visit_seq(Parts {
            state: self.state,
            types: types.iter_mut(),
            depth: self.depth,
        });
        *self.ty = Type::Struct(fields.iter().copied().zip(types).collect());
        visited
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        *self.ty = Type::Enum(variants.to_vec());
        let (leaf, chosen) = self.state.leaf()?;
        if variants.is_empty() || self.depth >= DEPTH_END {
            return Err(Refused("endless type".into()));
        }
        // Deep down the variants take turns: in a recursive type one of them ends it.
        let turn = if self.depth > DEPTH_MAX { self.depth } else { 0 };
        let index = (chosen + turn) % variants.len();
        let visited = visitor.visit_enum(Variant {
            state: self.state,
            index: index as u32,
            depth: self.depth,
        });
        if visited.is_err() {
            self.state.refuse(leaf, variants.len());
        }
        visited
    }
}

struct Parts<'a, I> {
    state: &'a mut State,
    types: I,
    depth: usize,
}

impl<'b, I: Iterator<Item = &'b mut Type>> Parts<'_, I> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(ty) = self.types.next() else {
            return Ok(None);
        };
        seed.deserialize(Trace::below(self.state, ty, self.depth)?)
            .map(Some)
    }
}

impl<'b, 'de, I: Iterator<Item = &'b mut Type>> SeqAccess<'de> for Parts<'_, I> {
    type Error = Refused;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        self.next(seed)
    }
}

impl<'b, 'de, I: Iterator<Item = &'b mut Type>> MapAccess<'de> for Parts<'_, I> {
    type Error = Refused;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        self.next(seed)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        self.next(seed)?
            .ok_or_else(|| Refused::custom("a value before its key"))
    }
}

/// A variant whose content is traced and forgotten.
struct Variant<'a> {
    state: &'a mut State,
    index: u32,
    depth: usize,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Refused;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refused> {
        let index: U32Deserializer<Refused> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = Refused;
    fn unit_variant(self) -> Result<(), Refused> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(Trace::below(self.state, &mut Type::Json, self.depth)?)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        Trace::below(self.state, &mut Type::Json, self.depth)?.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        Trace::below(self.state, &mut Type::Json, self.depth)?.deserialize_tuple(fields.len(), visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::num::NonZeroU32;

    use serde::Deserialize;

    use super::*;
    use crate::time::{EventTime, Windowed};

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Many {
        some: Option<NonZeroU32>,
        address: IpAddr,
        at: EventTime,
        pairs: (Pair<u8, char>, Pair<String, i128>),
        tree: Tree,
        map: BTreeMap<u64, Vec<f32>>,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Pair<A, B> {
        a: A,
        b: B,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Tree {
        Fork(Box<Tree>, Box<Tree>),
        Leaf,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    #[allow(dead_code)]
    enum Any {
        Number(u8),
        Text(String),
    }

    #[test]
    fn traces_checked_generic_and_recursive_types() {
        let named = |a, b| Type::Struct(vec![("a", a), ("b", b)]);
        let traced = trace::<Many>();
        assert_eq!(traced.name, Some("Many"));
        assert_eq!(
            traced.ty,
            Type::Struct(vec![
                ("some", Type::Option(Box::new(Type::UInt(32)))),
                ("address", Type::Text),
                ("at", Type::Time),
                (
                    "pairs",
                    Type::Tuple(vec![
                        named(Type::UInt(8), Type::Text),
                        named(Type::Text, Type::Int(128))
                    ])
                ),
                ("tree", Type::Enum(vec!["Fork", "Leaf"])),
                (
                    "map",
                    Type::Map(
                        Box::new(Type::UInt(64)),
                        Box::new(Type::List(Box::new(Type::Float(32))))
                    )
                ),
            ])
        );
    }

    #[test]
    fn what_looks_before_it_knows_is_json() {
        assert_eq!(trace::<Any>().ty, Type::Json);
        let traced = trace::<(u8, Any)>();
        assert_eq!(traced.ty, Type::Tuple(vec![Type::UInt(8), Type::Json]));
        assert_eq!(trace::<Windowed<()>>().name, Some("$thalweg::Windowed"));
        assert_eq!(trace::<()>().ty, Type::Unit);
    }

    #[test]
    fn samples_are_empty_and_full() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Row {
            id: NonZeroU32,
            vip: Option<u8>,
            tags: Vec<String>,
            address: IpAddr,
        }
        let samples = samples::<Row>();
        assert!(!samples.self_describing);
        let shapes: Vec<_> = samples
            .values
            .iter()
            .map(|row| (row.vip, row.tags.len()))
            .collect();
        assert_eq!(shapes.first(), Some(&(Some(0), 1)));
        assert_eq!(shapes.last(), Some(&(None, 0)));
        let rows = super::samples::<Option<Row>>().values;
        assert!(
            rows.iter().flatten().any(|row| row.vip.is_none()),
            "empty inside of something"
        );
        assert!(super::samples::<(u8, Any)>().self_describing);
        // Some depths end in a variant that never ends.
        assert!(super::samples::<Many>().values.len() > 1);
    }
}
