//! The deserializer that records what is requested.

mod access;

use std::iter::empty;

use serde::Deserializer;
use serde::de::Visitor;
use serde::de::value::{MapDeserializer, SeqDeserializer};

use self::access::{NamedFields, TracedParts, TracedVariant, VariantChoice};
use super::type_check::{CheckAnswer, CheckTarget, GivenField, TargetKind, UNKNOWN};
use super::{DEPTH_END, DEPTH_MAX, EVENT_TIME, Enum, TEXTS, TraceState, TypeRefusal};
use crate::schema::types::{self, Type};

pub(super) struct TraceDeserializer<'a> {
    pub(super) spot: TraceSpot<'a>,
    pub(super) ty: &'a mut Type,
}

/// The position of a reading within the type.
pub(super) struct TraceSpot<'a> {
    pub(super) state: &'a mut TraceState,
    /// The number of enclosing types.
    pub(super) depth: usize,
    /// The number of steps of the state's place that lead here.
    pub(super) level: usize,
}

impl TraceSpot<'_> {
    /// Part `part` of the current position.
    fn part<'b>(&'b mut self, part: usize, ty: &'b mut Type) -> Result<TraceDeserializer<'b>, TypeRefusal> {
        let mut below = self.inner(ty)?;
        let level = below.spot.level;
        below.spot.state.now.parts += 1;
        below.spot.state.now.place.truncate(level);
        below.spot.state.now.place.push(part);
        below.spot.level += 1;
        Ok(below)
    }

    /// The content of a newtype at the current position.
    fn inner<'b>(&'b mut self, ty: &'b mut Type) -> Result<TraceDeserializer<'b>, TypeRefusal> {
        if self.depth >= DEPTH_END {
            return Err(TypeRefusal::new("endless type"));
        }
        let spot = TraceSpot {
            state: self.state,
            depth: self.depth + 1,
            level: self.level,
        };
        Ok(TraceDeserializer { spot, ty })
    }

    fn place(&self) -> &[usize] {
        &self.state.now.place[..self.level]
    }

    /// Whether the reading is a probe of this position.
    fn is_probed(&self) -> bool {
        self.state.now.unfollowed == 0
            && (self.state.probe.as_ref()).is_some_and(|probe| *probe.place == *self.place())
    }

    /// Records something to examine, encountered after this many leaves, unless it is known or is not part of
    /// the type.
    fn record_target(&mut self, leaves: usize, what: TargetKind) {
        let rules = &self.state.rules;
        let known = match what {
            TargetKind::Struct { .. } => rules.structs.contains_key(self.place()),
            TargetKind::Flattened => rules.flattened.contains_key(self.place()),
            TargetKind::Enum { .. } => rules.enums.contains_key(self.place()),
        };
        if !known && self.state.probe.is_none() && self.state.now.unfollowed == 0 {
            let place = self.place().to_vec();
            self.state.now.met.push(CheckTarget { place, leaves, what });
        }
    }

    /// Records an enum, encountered after this many leaves, which has fewer variants than names if it did not
    /// accept one's number.
    fn record_enum(mut self, leaves: usize, has_aliases: bool) {
        let place = self.place().to_vec();
        match self.state.rules.enums.get_mut(&place) {
            Some(known) => known.has_aliases |= has_aliases,
            None => self.record_target(leaves, TargetKind::Enum { has_aliases }),
        }
    }

    fn answer<R>(&mut self, visited: &Result<R, TypeRefusal>) {
        if let Some(probe) = &mut self.state.probe {
            probe.answer = Some(match visited {
                Ok(_) => CheckAnswer::Accepted,
                Err(refused) => CheckAnswer::Refused(refused.complaint),
            });
        }
    }

    /// Supplies a struct with the fields that the probe asks about.
    fn probe<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        let (fields, mut types) = match &mut self.state.probe {
            Some(probe) => (
                std::mem::take(&mut probe.fields),
                std::mem::take(&mut probe.types),
            ),
            None => Default::default(),
        };
        let (state, depth, level) = (self.state, self.depth, self.level);
        let visited = visitor.visit_map(NamedFields {
            spot: TraceSpot { state, depth, level },
            fields: &fields,
            types: &mut types,
            read: 0,
        });
        if let Some(probe) = &mut state.probe {
            probe.types = types;
        }
        TraceSpot { state, depth, level }.answer(&visited);
        visited
    }
}

/// The input for a type that inspects the data first.
#[derive(Clone, Copy)]
enum Anything {
    Unit,
    Bool,
    Integer,
    Float,
    Text(&'static str),
    List,
    Map,
}

const ANYTHING: [Anything; 9] = [
    Anything::Unit,
    Anything::Bool,
    Anything::Integer,
    Anything::Float,
    Anything::Text(TEXTS[0]),
    Anything::Text(TEXTS[1]),
    Anything::Text(TEXTS[2]),
    Anything::List,
    Anything::Map,
];

impl TraceDeserializer<'_> {
    fn leaf<P: Copy, R>(
        self,
        ty: Type,
        placeholders: &[P],
        visit: impl FnOnce(P) -> Result<R, TypeRefusal>,
    ) -> Result<R, TypeRefusal> {
        *self.ty = ty;
        let state = self.spot.state;
        let (leaf, chosen) = state.leaf()?;
        let visited = visit(placeholders[chosen.min(placeholders.len() - 1)]);
        state.visited(leaf, placeholders.len(), &visited);
        visited
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $ty:ty => $traced:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
            self.leaf($traced, &[0 as $ty, 1 as $ty], |value| visitor.$visit(value))
        })*
    };
}

impl<'de> Deserializer<'de> for TraceDeserializer<'_> {
    type Error = TypeRefusal;

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
        !self.spot.state.binary
    }
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.spot.state.self_describing = true;
        self.leaf(Type::Json, &ANYTHING, |value| match value {
            Anything::Unit => visitor.visit_unit(),
            Anything::Bool => visitor.visit_bool(false),
            Anything::Integer => visitor.visit_i64(0),
            Anything::Float => visitor.visit_f64(0.0),
            Anything::Text(text) => visitor.visit_str(text),
            Anything::List => visitor.visit_seq(SeqDeserializer::new(empty::<()>())),
            Anything::Map => visitor.visit_map(MapDeserializer::new(empty::<((), ())>())),
        })
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, TypeRefusal> {
        self.spot.state.self_describing = true;
        Err(TypeRefusal::new("there is no name here"))
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.spot.state.self_describing = true;
        visitor.visit_unit()
    }
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.leaf(Type::Bool, &[false, true], |value| visitor.visit_bool(value))
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.leaf(Type::Text, &['A', '0'], |value| visitor.visit_char(value))
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.leaf(Type::Text, &TEXTS, |value| visitor.visit_str(value))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.deserialize_str(visitor)
    }
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        let placeholders: [&[u8]; 5] = [&[], &[0], &[0; 16], &[0; 32], &[0; 64]];
        self.leaf(Type::Bytes, &placeholders, |value| visitor.visit_bytes(value))
    }
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.deserialize_bytes(visitor)
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        *self.ty = Type::Unit;
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeRefusal> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, TypeRefusal> {
        let mut inner = Type::Json;
        let visited = if self.spot.depth >= DEPTH_MAX {
            visitor.visit_none()
        } else {
            visitor.visit_some(self.spot.part(0, &mut inner)?)
        };
        *self.ty = Type::Option(Box::new(inner));
        visited
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypeRefusal> {
        if self.spot.state.now.unfollowed == 0 && self.spot.state.probe.is_none() {
            let place = self.spot.place().to_vec();
            self.spot.state.rules.newtypes.insert(place);
        }
        let mut inner = Type::Json;
        let visited = visitor.visit_newtype_struct(self.spot.inner(&mut inner)?);
        *self.ty = if name == EVENT_TIME { Type::Time } else { inner };
        visited
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        let mut types = vec![Type::Json; usize::from(self.spot.depth < DEPTH_MAX)];
        let visited = visitor.visit_seq(TracedParts::new(self.spot, types.iter_mut()));
        *self.ty = Type::List(Box::new(types.pop().unwrap_or(Type::Json)));
        visited
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, TypeRefusal> {
        let mut types = vec![Type::Json; len];
        let visited = visitor.visit_seq(TracedParts::new(self.spot, types.iter_mut()));
        *self.ty = Type::Tuple(types);
        visited
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, TypeRefusal> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        if self.spot.is_probed() {
            return self.spot.probe(visitor);
        }
        if self.spot.state.rules.flattened.contains_key(self.spot.place()) {
            return self.flattened(visitor);
        }
        let first = self.spot.state.now.leaves;
        let mut types = [Type::Json, Type::Json];
        let some = if self.spot.depth < DEPTH_MAX { 2 } else { 0 };
        let mut parts = TracedParts::new(self.spot, types[..some].iter_mut());
        let visited = visitor.visit_map(&mut parts);
        let (mut spot, read) = (parts.spot, parts.leaves.len());
        let [key, value] = types;
        if visited.is_err() && read == 1 && key == Type::Json {
            spot.record_target(first, TargetKind::Flattened);
        }
        *self.ty = Type::Map(Box::new(key), Box::new(value));
        visited
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeRefusal> {
        if self.spot.depth == 0 {
            self.spot.state.now.name = Some(name);
        }
        if self.spot.is_probed() {
            return self.spot.probe(visitor);
        }
        let first = self.spot.state.now.leaves;
        let rules = self.spot.state.rules.structs.get(self.spot.place());
        let names = match rules {
            Some(rules) => rules.fields.iter().map(|field| field.name).collect(),
            None => fields.to_vec(),
        };
        let mut types = vec![Type::Json; names.len()];
        let mut parts = TracedParts::new(self.spot, types.iter_mut());
        let visited = visitor.visit_seq(&mut parts);
        let what = TargetKind::Struct {
            name,
            names: fields,
            read_whole: visited.is_ok(),
            leaves: std::mem::take(&mut parts.leaves),
        };
        parts.spot.record_target(first, what);
        *self.ty = Type::Struct(names.into_iter().zip(types).collect());
        visited
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeRefusal> {
        let Self { spot, ty } = self;
        let mut taken = false;
        let mut content = Some(Type::Json);
        if spot.is_probed() {
            let (state, depth, level) = (spot.state, spot.depth, spot.level);
            let visited = visitor.visit_enum(TracedVariant {
                spot: TraceSpot { state, depth, level },
                choice: VariantChoice::Name(UNKNOWN),
                taken: &mut taken,
                content: &mut content,
            });
            TraceSpot { state, depth, level }.answer(&visited);
            return visited;
        }
        // Deep down, and inside itself, it is not followed: its contents stay unknown.
        let inside_itself = spot.state.now.within.contains(&variants.as_ptr());
        let followed = !inside_itself && spot.depth <= DEPTH_MAX;
        *ty = match followed {
            true => {
                let untraced = |name: &&'static str| types::Variant {
                    name,
                    content: Some(Type::Json),
                };
                Type::Enum(variants.iter().map(untraced).collect())
            }
            false => Type::Json,
        };
        let (leaf, chosen) = spot.state.leaf()?;
        if variants.is_empty() || spot.depth >= DEPTH_END {
            return Err(TypeRefusal::new("endless type"));
        }
        // If it is not followed, the variants take turns: in a recursive type, one of them terminates it.
        let turn = if followed { 0 } else { spot.state.now.within.len() };
        let index = (chosen + turn) % variants.len();
        spot.state.now.within.push(variants.as_ptr());
        spot.state.now.unfollowed += usize::from(!followed);
        let first = spot.state.now.leaves;
        let (state, depth, level) = (spot.state, spot.depth, spot.level);
        let visited = visitor.visit_enum(TracedVariant {
            spot: TraceSpot { state, depth, level },
            choice: VariantChoice::Number(index as u32),
            taken: &mut taken,
            content: &mut content,
        });
        state.now.within.pop();
        state.now.unfollowed -= usize::from(!followed);
        if let Type::Enum(traced) = ty {
            traced[index].content = content;
            let met = Enum {
                variants: variants.len(),
                leaves: first..state.now.leaves,
            };
            state.now.enums.insert(leaf, met);
        }
        state.visited(leaf, variants.len(), &visited);
        if followed {
            let spot = TraceSpot { state, depth, level };
            spot.record_enum(leaf, !taken);
        }
        visited
    }
}

impl TraceDeserializer<'_> {
    /// Supplies a struct that accepts further fields besides those that it needs.
    fn flattened<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypeRefusal> {
        let place = self.spot.place().to_vec();
        let known = self.spot.state.rules.flattened.get(&place).cloned();
        let (names, mut types): (Vec<_>, Vec<_>) = known.unwrap_or_default().into_iter().unzip();
        let given = |(part, name): (usize, &&'static str)| GivenField {
            name,
            part,
            leaf: None,
        };
        let fields: Vec<_> = names.iter().enumerate().map(given).collect();
        let TraceSpot { state, depth, level } = self.spot;
        let visited = visitor.visit_map(NamedFields {
            spot: TraceSpot { state, depth, level },
            fields: &fields,
            types: &mut types,
            read: 0,
        });
        if visited.is_ok() && state.probe.is_none() {
            let fields = names.into_iter().zip(types).collect();
            state.rules.flattened.insert(place, fields);
        }
        *self.ty = Type::Map(Box::new(Type::Json), Box::new(Type::Json));
        visited
    }
}
