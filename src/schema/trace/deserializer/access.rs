//! Access to the parts of traced values: elements, entries, fields, variants.

use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer as _, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{TraceDeserializer, TraceSpot};
use crate::schema::trace::type_check::GivenField;
use crate::schema::trace::{NameComplaint, TypeRefusal};
use crate::schema::types::Type;

/// As many parts as there are types to record: elements of a sequence, or keys and values in turn.
pub(super) struct TracedParts<'a, I> {
    pub(super) spot: TraceSpot<'a>,
    types: I,
    /// Number of leaves before each part that was read.
    pub(super) leaves: Vec<usize>,
}

impl<'a, 'b, I: Iterator<Item = &'b mut Type>> TracedParts<'a, I> {
    pub(super) fn new(spot: TraceSpot<'a>, types: I) -> Self {
        let leaves = Vec::new();
        Self { spot, types, leaves }
    }

    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, TypeRefusal> {
        let Some(ty) = self.types.next() else {
            return Ok(None);
        };
        let part = self.leaves.len();
        self.leaves.push(self.spot.state.now.leaves);
        seed.deserialize(self.spot.part(part, ty)?).map(Some)
    }
}

impl<'b, 'de, I: Iterator<Item = &'b mut Type>> SeqAccess<'de> for TracedParts<'_, I> {
    type Error = TypeRefusal;
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, TypeRefusal> {
        self.next(seed)
    }
}

impl<'b, 'de, I: Iterator<Item = &'b mut Type>> MapAccess<'de> for TracedParts<'_, I> {
    type Error = TypeRefusal;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, TypeRefusal> {
        self.next(seed)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TypeRefusal> {
        self.next(seed)?
            .ok_or_else(|| TypeRefusal::custom("a value before its key"))
    }
}

/// Fields by name.
pub(super) struct NamedFields<'a> {
    pub(super) spot: TraceSpot<'a>,
    pub(super) fields: &'a [GivenField],
    pub(super) types: &'a mut [Type],
    pub(super) read: usize,
}

impl<'de> MapAccess<'de> for NamedFields<'_> {
    type Error = TypeRefusal;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, TypeRefusal> {
        let Some(GivenField { name, .. }) = self.fields.get(self.read) else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, TypeRefusal> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, TypeRefusal> {
        let at = self.read;
        self.read += 1;
        let GivenField { part, leaf, .. } = self.fields[at];
        if let Some(leaf) = leaf {
            self.spot.state.now.leaves = leaf;
        }
        let read = seed.deserialize(self.spot.part(part, &mut self.types[at])?);
        // The error of a value does not concern the names that are supplied here.
        read.map_err(|refused| TypeRefusal {
            complaint: NameComplaint::Other,
            ..refused
        })
    }
}

/// The choice of a variant.
#[derive(Clone, Copy)]
pub(super) enum VariantChoice {
    Number(u32),
    Name(&'static str),
}

/// A variant whose content is traced.
pub(super) struct TracedVariant<'a> {
    pub(super) spot: TraceSpot<'a>,
    pub(super) choice: VariantChoice,
    /// Whether the enum accepted the choice.
    pub(super) taken: &'a mut bool,
    pub(super) content: &'a mut Option<Type>,
}

impl TracedVariant<'_> {
    fn below(&mut self) -> Result<TraceDeserializer<'_>, TypeRefusal> {
        match self.choice {
            VariantChoice::Number(part) => {
                let content = self.content.get_or_insert(Type::Json);
                self.spot.part(part as usize, content)
            }
            VariantChoice::Name(_) => Err(TypeRefusal::custom(
                "only a variant that holds nothing is asked for",
            )),
        }
    }
}

impl<'de> EnumAccess<'de> for TracedVariant<'_> {
    type Error = TypeRefusal;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), TypeRefusal> {
        let variant = match self.choice {
            VariantChoice::Number(index) => {
                let index: U32Deserializer<TypeRefusal> = index.into_deserializer();
                seed.deserialize(index)?
            }
            VariantChoice::Name(name) => {
                let name: StrDeserializer<'_, TypeRefusal> = name.into_deserializer();
                seed.deserialize(name)?
            }
        };
        *self.taken = true;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for TracedVariant<'_> {
    type Error = TypeRefusal;
    fn unit_variant(self) -> Result<(), TypeRefusal> {
        *self.content = None;
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, TypeRefusal> {
        seed.deserialize(self.below()?)
    }
    fn tuple_variant<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value, TypeRefusal> {
        self.below()?.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeRefusal> {
        self.below()?.deserialize_struct("", fields, visitor)
    }
}
