//! Access to the parts of traced values: elements, entries, fields, variants.

use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer as _, EnumAccess, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{Spot, Trace};
use crate::schema::trace::examine::Given;
use crate::schema::trace::{Complaint, Refused};
use crate::schema::types::Type;

/// As many parts as there are types to record: elements of a sequence, or keys and values in turn.
pub(super) struct Parts<'a, I> {
    pub(super) spot: Spot<'a>,
    types: I,
    /// Number of leaves before each part that was read.
    pub(super) leaves: Vec<usize>,
}

impl<'a, 'b, I: Iterator<Item = &'b mut Type>> Parts<'a, I> {
    pub(super) fn new(spot: Spot<'a>, types: I) -> Self {
        let leaves = Vec::new();
        Self { spot, types, leaves }
    }

    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(ty) = self.types.next() else {
            return Ok(None);
        };
        let part = self.leaves.len();
        self.leaves.push(self.spot.state.now.leaves);
        seed.deserialize(self.spot.part(part, ty)?).map(Some)
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

/// Fields by name.
pub(super) struct Named<'a> {
    pub(super) spot: Spot<'a>,
    pub(super) fields: &'a [Given],
    pub(super) types: &'a mut [Type],
    pub(super) read: usize,
}

impl<'de> MapAccess<'de> for Named<'_> {
    type Error = Refused;
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Refused> {
        let Some(Given { name, .. }) = self.fields.get(self.read) else {
            return Ok(None);
        };
        let name: StrDeserializer<'_, Refused> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refused> {
        let at = self.read;
        self.read += 1;
        let Given { part, leaf, .. } = self.fields[at];
        if let Some(leaf) = leaf {
            self.spot.state.now.leaves = leaf;
        }
        let read = seed.deserialize(self.spot.part(part, &mut self.types[at])?);
        // The error of a value does not concern the names that are supplied here.
        read.map_err(|refused| Refused {
            complaint: Complaint::Other,
            ..refused
        })
    }
}

/// The choice of a variant.
#[derive(Clone, Copy)]
pub(super) enum Choice {
    Number(u32),
    Name(&'static str),
}

/// A variant whose content is traced.
pub(super) struct Variant<'a> {
    pub(super) spot: Spot<'a>,
    pub(super) choice: Choice,
    /// Whether the enum accepted the choice.
    pub(super) taken: &'a mut bool,
    pub(super) content: &'a mut Option<Type>,
}

impl Variant<'_> {
    fn below(&mut self) -> Result<Trace<'_>, Refused> {
        match self.choice {
            Choice::Number(part) => {
                let content = self.content.get_or_insert(Type::Json);
                self.spot.part(part as usize, content)
            }
            Choice::Name(_) => Err(Refused::custom("only a variant that holds nothing is asked for")),
        }
    }
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = Refused;
    type Variant = Self;
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Refused> {
        let variant = match self.choice {
            Choice::Number(index) => {
                let index: U32Deserializer<Refused> = index.into_deserializer();
                seed.deserialize(index)?
            }
            Choice::Name(name) => {
                let name: StrDeserializer<'_, Refused> = name.into_deserializer();
                seed.deserialize(name)?
            }
        };
        *self.taken = true;
        Ok((variant, self))
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
