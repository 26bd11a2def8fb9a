//! The type of a value, asked of its own `Deserialize`: a deserializer that notes what is asked for and feeds
//! placeholders.
//!
//! A type that checks what it reads may refuse a placeholder (a `NonZeroU32` refuses 0, a UUID refuses ""). Then the
//! whole is read again with the next placeholder in that place. What still can't be had (types that must look before
//! they know, such as untagged enums) is [`Type::Json`]; the fields around it keep their types where serde's order of
//! asking allows. Types are traced by structure, so two structs of one name, or one generic struct twice, do no harm.
//!
//! Of an enum one reading shows one variant, so the whole is read once for each; an enum inside itself is [`Type::Json`]
//! there. A struct whose fields have aliases names more fields than it reads: then each name is given twice, and the
//! complaint says whose it is.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

use serde::Deserializer;
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::schema::types::{self, Type};

/// Name of [`EventTime`](crate::time::EventTime) in serde's data model.
pub(crate) const EVENT_TIME: &str = "$thalweg::EventTime";

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
    trace_with(&mut |trace| T::deserialize(trace).map(drop))
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
        let mut sample = None;
        state.read(depth, &mut |trace| {
            sample = None;
            sample = Some(T::deserialize(trace)?);
            Ok(())
        });
        sample
    });
    Samples {
        values: values.collect(),
        self_describing: state.self_describing,
    }
}

/// The structure of a type, as checkpoints compare it.
pub(crate) fn structure<T: DeserializeOwned>() -> String {
    trace::<T>().ty.to_string()
}

/// Traces what `read` reads: once for each variant that is met.
fn trace_with(read: &mut dyn FnMut(Trace<'_>) -> Result<(), Refused>) -> Traced {
    let mut state = State::default();
    let Some(mut traced) = state.read(0, read) else {
        return Traced {
            ty: Type::Json,
            name: None,
        };
    };
    let mut unseen: Vec<_> = state.unseen(0..usize::MAX);
    while let Some((prefix, leaf)) = unseen.pop() {
        state.chosen = prefix;
        if let Some(Traced { ty, .. }) = state.read(0, read) {
            traced.ty.merge(ty);
            let inside = state.enums.get(&leaf).map_or(0..0, |met| met.leaves.clone());
            unseen.extend(state.unseen(inside));
        }
    }
    traced
}

/// Readings of one type.
const ATTEMPTS_MAX: usize = 4_096;
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

/// Why a type did not take what it was given: its own words.
#[derive(Debug)]
pub struct Refused {
    why: String,
    /// A field was there twice, by the name that is its own.
    twice: Option<&'static str>,
}

impl Refused {
    fn new(why: &str) -> Self {
        Self::custom(why)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
impl std::error::Error for Refused {}
impl serde::de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            why: message.to_string(),
            twice: None,
        }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self {
            twice: Some(field),
            ..Self::custom(format_args!("duplicate field `{field}`"))
        }
    }
}

#[derive(Default)]
struct State {
    name: Option<&'static str>,
    /// Which placeholder each leaf gets, in the order in which leaves are asked for.
    chosen: Vec<usize>,
    leaves: usize,
    /// The first leaf that refused, and how many placeholders it has.
    refused: Option<(usize, usize)>,
    attempts: usize,
    /// The enums that this reading met, by the leaf that chose the variant.
    enums: BTreeMap<usize, Enum>,
    /// Those that the reading is inside of, by their variants.
    within: Vec<*const &'static str>,
    /// The own names of the fields of structs that have aliases, by their names with these.
    own_names: HashMap<*const &'static str, Vec<&'static str>>,
    aliases: Option<Aliases>,
    /// Whether types are to ask as they do of a binary encoding.
    binary: bool,
    /// Whether any of them asked what there is.
    self_describing: bool,
}

/// An enum that was met.
struct Enum {
    variants: usize,
    /// The leaves inside the variant that was chosen.
    leaves: Range<usize>,
}

/// A struct with aliases, and how much is known of its names.
struct Aliases {
    names: &'static [&'static str],
    own: Vec<&'static str>,
}

impl State {
    /// Reads the type, with as many attempts as it takes to find placeholders that it accepts.
    fn read(
        &mut self,
        depth: usize,
        read: &mut dyn FnMut(Trace<'_>) -> Result<(), Refused>,
    ) -> Option<Traced> {
        while self.attempts < ATTEMPTS_MAX {
            self.attempts += 1;
            (self.leaves, self.refused, self.name) = (0, None, None);
            self.enums.clear();
            self.within.clear();
            let (probing, mut ty) = (self.aliases.as_ref().map(|aliases| aliases.own.len()), Type::Json);
            let accepted = read(Trace {
                state: self,
                ty: &mut ty,
                depth,
            });
            if self.aliases.as_ref().map(|aliases| aliases.own.len()) != probing {
                // Another name is known now, or all are, or this is the first time that there are some.
                self.chosen.clear();
                continue;
            }
            let retry = accepted.is_err() && self.next_placeholder();
            if !retry {
                return Some(Traced { ty, name: self.name });
            }
        }
        None
    }

    /// What to choose to see the variants that were not, of enums whose leaves lie in `within`.
    fn unseen(&self, within: Range<usize>) -> Vec<(Vec<usize>, usize)> {
        let mut unseen = Vec::new();
        for (leaf, met) in self.enums.iter().filter(|(leaf, _)| within.contains(leaf)) {
            for variant in (0..met.variants).filter(|variant| *variant != self.chosen[*leaf]) {
                let mut chosen = self.chosen[..*leaf].to_vec();
                chosen.push(variant);
                unseen.push((chosen, *leaf));
            }
        }
        unseen
    }

    fn leaf(&mut self) -> Result<(usize, usize), Refused> {
        let leaf = self.leaves;
        self.leaves += 1;
        if leaf >= LEAVES_MAX {
            return Err(Refused::new("endless type"));
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
            return Err(Refused::new("endless type"));
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
        Err(Refused::new("reads whatever there is"))
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
        if let Some(aliases) = &self.state.aliases
            && std::ptr::eq(aliases.names, fields)
        {
            return self.probe(visitor);
        }
        let own = self.state.own_names.get(&fields.as_ptr());
        let names = own.map_or(fields, |own| own).to_vec();
        let mut types = vec![Type::Json; names.len()];
        let mut parts = Parts {
            state: self.state,
            types: types.iter_mut(),
            depth: self.depth,
        };
        let visited = visitor.visit_seq(&mut parts);
        if visited.is_ok() && parts.types.len() > 0 && own_names_unknown(parts.state, fields) {
            parts.state.aliases = Some(Aliases {
                names: fields,
                own: Vec::new(),
            });
        }
        *self.ty = Type::Struct(names.into_iter().zip(types).collect());
        visited
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        // Deep down, and inside itself, it is not followed: nothing is known of what it holds.
        let inside_itself = self.state.within.contains(&variants.as_ptr());
        if inside_itself || self.depth > DEPTH_MAX {
            *self.ty = Type::Json;
        } else {
            let untraced = |name: &&'static str| types::Variant {
                name,
                content: Some(Type::Json),
            };
            *self.ty = Type::Enum(variants.iter().map(untraced).collect());
        }
        let (leaf, chosen) = self.state.leaf()?;
        if variants.is_empty() || self.depth >= DEPTH_END {
            return Err(Refused::new("endless type"));
        }
        // Where it is not followed the variants take turns: in a recursive type one of them ends it.
        let followed = matches!(self.ty, Type::Enum(_));
        let turn = if followed { 0 } else { self.depth };
        let index = (chosen + turn) % variants.len();
        let mut content = Some(Type::Json);
        self.state.within.push(variants.as_ptr());
        let first = self.state.leaves;
        let visited = visitor.visit_enum(Variant {
            state: self.state,
            index: index as u32,
            content: &mut content,
            depth: self.depth,
        });
        self.state.within.pop();
        if let Type::Enum(traced) = self.ty {
            traced[index].content = content;
            let met = Enum {
                variants: variants.len(),
                leaves: first..self.state.leaves,
            };
            self.state.enums.insert(leaf, met);
        }
        if visited.is_err() {
            self.state.refuse(leaf, variants.len());
        }
        visited
    }
}

/// Whether the names of a struct that reads fewer fields than it names are still to be told apart.
fn own_names_unknown(state: &State, names: &'static [&'static str]) -> bool {
    state.aliases.is_none() && !state.own_names.contains_key(&names.as_ptr())
}

impl Trace<'_> {
    /// Gives a struct the next of its names twice.
    fn probe<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let Some(Aliases { names, own }) = &self.state.aliases else {
            return Err(Refused::new("nothing to find out"));
        };
        let (names, at) = (*names, own.len());
        let refused = match visitor.visit_map(Twice {
            state: self.state,
            name: names[at],
            times: 2,
            depth: self.depth,
        }) {
            Ok(value) => return Ok(value),
            Err(refused) => refused,
        };
        let own = refused.twice;
        if let (Some(own), Some(aliases)) = (own, &mut self.state.aliases) {
            aliases.own.push(own);
            if aliases.own.len() == names.len() {
                let mut own = std::mem::take(&mut aliases.own);
                own.dedup();
                self.state.own_names.insert(names.as_ptr(), own);
                self.state.aliases = None;
            }
        }
        Err(refused)
    }
}

/// One field twice.
struct Twice<'a> {
    state: &'a mut State,
    name: &'static str,
    times: u8,
    depth: usize,
}

impl<'de> MapAccess<'de> for Twice<'_> {
    type Error = Refused;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(times) = self.times.checked_sub(1) else {
            return Ok(None);
        };
        self.times = times;
        let name: StrDeserializer<'_, Refused> = self.name.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(Trace::below(self.state, &mut Type::Json, self.depth)?)
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

/// A variant whose content is traced.
struct Variant<'a> {
    state: &'a mut State,
    index: u32,
    content: &'a mut Option<Type>,
    depth: usize,
}

impl Variant<'_> {
    fn below(&mut self) -> Result<Trace<'_>, Refused> {
        Trace::below(self.state, self.content.get_or_insert(Type::Json), self.depth)
    }
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
        *self.content = None;
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Refused> {
        seed.deserialize(self.below()?)
    }
    fn tuple_variant<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, Refused> {
        self.below()?.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        self.below()?.deserialize_struct("", fields, visitor)
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
        let variant = |name, content| types::Variant { name, content };
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
                (
                    "tree",
                    Type::Enum(vec![
                        variant("Fork", Some(Type::Tuple(vec![Type::Json, Type::Json]))),
                        variant("Leaf", None)
                    ])
                ),
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

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum Payment {
        Card { number: String, kind: CardKind },
        Cash(u32),
        Split(u8, Option<CardKind>),
        Free,
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    enum CardKind {
        Debit,
        Credit { limit: i64 },
    }

    #[derive(Deserialize)]
    #[allow(dead_code)]
    struct Aliased {
        #[serde(alias = "amt", alias = "zz_total")]
        amount: NonZeroU32,
        #[serde(rename = "by", alias = "bought_by")]
        buyer: String,
        payment: Payment,
    }

    #[test]
    fn every_variant_is_seen_and_aliases_are_told_from_names() {
        let variant = |name, content| types::Variant { name, content };
        let kind = || {
            Type::Enum(vec![
                variant("Debit", None),
                variant("Credit", Some(Type::Struct(vec![("limit", Type::Int(64))]))),
            ])
        };
        let card = Type::Struct(vec![("number", Type::Text), ("kind", kind())]);
        let split = Type::Tuple(vec![Type::UInt(8), Type::Option(Box::new(kind()))]);
        let payment = Type::Enum(vec![
            variant("Card", Some(card)),
            variant("Cash", Some(Type::UInt(32))),
            variant("Split", Some(split)),
            variant("Free", None),
        ]);
        assert_eq!(
            trace::<Aliased>().ty,
            Type::Struct(vec![
                ("amount", Type::UInt(32)),
                ("by", Type::Text),
                ("payment", payment)
            ])
        );
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
