//! The parts of what is probed: items, fields, variants.

use serde::Deserializer;
use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::super::below;
use super::{Probe, State, Stop};
use crate::codec::avro::schema::Node;

pub(super) struct Parts<'a, 's> {
    pub(super) state: &'a mut State<'s>,
    pub(super) parts: std::vec::IntoIter<(String, Option<&'s Node>)>,
    pub(super) every: bool,
    pub(super) depth: usize,
}

impl<'de> SeqAccess<'de> for Parts<'_, '_> {
    type Error = Stop;
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let Some((path, at)) = self.parts.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(Probe::below(
            self.state,
            at,
            path.clone(),
            self.every,
            self.depth,
        )?);
        Probe::placed(&path, self.every, read).map(Some)
    }
}

pub(super) struct Entries<'a, 's> {
    pub(super) state: &'a mut State<'s>,
    pub(super) path: String,
    pub(super) entries: std::vec::IntoIter<(String, Option<&'s Node>)>,
    pub(super) value: Option<(String, Option<&'s Node>)>,
    pub(super) every: bool,
    pub(super) depth: usize,
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Stop;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stop> {
        let Some((name, at)) = self.entries.next() else {
            return Ok(None);
        };
        let key: StrDeserializer<'_, Stop> = name.as_str().into_deserializer();
        let read = seed.deserialize(key)?;
        self.value = Some((below(&self.path, &name), at));
        Ok(Some(read))
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stop> {
        let (path, at) = self
            .value
            .take()
            .ok_or_else(|| Stop::custom("a value before its key"))?;
        let read = seed.deserialize(Probe::below(
            self.state,
            at,
            path.clone(),
            self.every,
            self.depth,
        )?);
        Probe::placed(&path, self.every, read)
    }
}

/// A variant: its content gets what it asks for.
pub(super) struct Variant<'a, 's> {
    pub(super) index: u32,
    pub(super) inner: Probe<'a, 's>,
}

impl<'de> EnumAccess<'de> for Variant<'_, '_> {
    type Error = Stop;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Stop> {
        let index: U32Deserializer<Stop> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_> {
    type Error = Stop;
    fn unit_variant(self) -> Result<(), Stop> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Stop> {
        let Probe {
            state, path, depth, ..
        } = self.inner;
        seed.deserialize(Probe::below(state, None, path, false, depth)?)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        let Probe {
            state, path, depth, ..
        } = self.inner;
        Probe::below(state, None, path, false, depth)?.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let Probe {
            state, path, depth, ..
        } = self.inner;
        Probe::below(state, None, path, false, depth)?.deserialize_tuple(fields.len(), visitor)
    }
}
