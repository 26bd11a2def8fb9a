//! The deserializer that notes what is asked for.

use serde::Deserializer;
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{Aliases, DEPTH_END, DEPTH_MAX, EVENT_TIME, Enum, Refused, State, TEXTS};
use crate::schema::types::{self, Type};

pub(super) struct Trace<'a> {
    pub(super) state: &'a mut State,
    pub(super) ty: &'a mut Type,
    pub(super) depth: usize,
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
        let turn = if followed { 0 } else { self.state.within.len() };
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
