//! The parts of what is read: fields, items, entries, variants.

use std::slice;

use serde::Deserializer;
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

use super::{DatumDeserializer, DatumError, DatumInput, Read};
use crate::codec::avro::schema::{Field, Logical, Node, NodeKind};

/// The fields of a record.
pub(super) struct FieldAccess<'r, 's, 'de> {
    pub(super) input: &'r mut DatumInput<'s, 'de>,
    pub(super) fields: slice::Iter<'s, Field>,
    pub(super) depth_left: usize,
}

impl<'de> MapAccess<'de> for FieldAccess<'_, '_, 'de> {
    type Error = DatumError;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        match self.fields.as_slice().first() {
            Some(field) => seed.deserialize(StrDeserializer::new(&field.name)).map(Some),
            None => Ok(None),
        }
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        let field = self.fields.next().ok_or(DatumError)?;
        seed.deserialize(DatumDeserializer {
            node: self.input.schema.node(field.node),
            input: self.input,
            depth_left: self.depth_left,
            by_type: false,
        })
    }
}

/// How far a block of items has been read.
#[derive(Default)]
pub(super) struct BlockReader {
    left: usize,
    ended: bool,
}

impl BlockReader {
    /// Whether another item comes. Where a block says how long it is, nobody is held to that.
    #[inline]
    fn more(&mut self, input: &mut DatumInput<'_, '_>) -> Read<bool> {
        if self.left == 0 {
            if self.ended {
                return Ok(false);
            }
            let count = input.long()?;
            if count == 0 {
                self.ended = true;
                return Ok(false);
            }
            if count < 0 {
                input.long()?;
            }
            self.left = usize::try_from(count.unsigned_abs()).map_err(|_| DatumError)?;
            input.items_left = input.items_left.checked_sub(self.left).ok_or(DatumError)?;
        }
        self.left -= 1;
        Ok(true)
    }
}

/// The items of an array.
pub(super) struct ItemAccess<'r, 's, 'de> {
    pub(super) input: &'r mut DatumInput<'s, 'de>,
    pub(super) item: &'s Node,
    pub(super) depth_left: usize,
    pub(super) blocks: BlockReader,
}

impl<'s, 'de> ItemAccess<'_, 's, 'de> {
    /// Passes over the end; an error if there are more items before it. A tuple takes as many as it has, and
    /// does not ask for another.
    #[inline]
    pub(super) fn end(&mut self) -> Read<()> {
        match self.blocks.more(self.input)? {
            true => Err(DatumError),
            false => Ok(()),
        }
    }

    #[inline]
    fn item<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        seed.deserialize(DatumDeserializer {
            input: self.input,
            node: self.item,
            depth_left: self.depth_left,
            by_type: false,
        })
    }
}

impl<'de> SeqAccess<'de> for ItemAccess<'_, '_, 'de> {
    type Error = DatumError;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        match self.blocks.more(self.input)? {
            true => self.item(seed).map(Some),
            false => Ok(None),
        }
    }
}

/// The entries of a map.
pub(super) struct EntryAccess<'r, 's, 'de>(pub(super) ItemAccess<'r, 's, 'de>);

impl<'de> MapAccess<'de> for EntryAccess<'_, '_, 'de> {
    type Error = DatumError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        match self.0.blocks.more(self.0.input)? {
            true => {
                let key = self.0.input.text()?;
                seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some)
            }
            false => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        self.0.item(seed)
    }
}

/// A variant with the name of the type that is written.
pub(super) struct BranchAccess<'r, 's, 'de>(pub(super) DatumDeserializer<'r, 's, 'de>);

impl<'de> EnumAccess<'de> for BranchAccess<'_, '_, 'de> {
    type Error = DatumError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<(S::Value, Self)> {
        let name: StrDeserializer<'_, DatumError> = StrDeserializer::new(type_name(self.0.node));
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for BranchAccess<'_, '_, 'de> {
    type Error = DatumError;

    fn unit_variant(self) -> Read<()> {
        self.0.deserialize_ignored_any(IgnoredAny).map(drop)
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<S::Value> {
        seed.deserialize(DatumDeserializer {
            by_type: false,
            ..self.0
        })
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        self.0.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Read<V::Value> {
        self.0.deserialize_map(visitor)
    }
}

/// The name of a type as a variant's.
pub(in crate::codec::avro) fn type_name(node: &Node) -> &str {
    match (&node.kind, node.logical) {
        (NodeKind::Bytes, Some(Logical::Decimal { .. })) => "Decimal",
        (_, Some(Logical::BigDecimal)) => "BigDecimal",
        (_, Some(Logical::Duration)) => "Duration",
        (NodeKind::String, Some(Logical::Uuid)) => "Uuid",
        (_, Some(Logical::Date)) => "Date",
        (_, Some(Logical::TimeMillis)) => "TimeMillis",
        (_, Some(Logical::TimeMicros)) => "TimeMicros",
        (_, Some(Logical::TimestampMillis)) => "TimestampMillis",
        (_, Some(Logical::TimestampMicros)) => "TimestampMicros",
        (NodeKind::Null, _) => "Null",
        (NodeKind::Boolean, _) => "Boolean",
        (NodeKind::Int, _) => "Int",
        (NodeKind::Long, _) => "Long",
        (NodeKind::Float, _) => "Float",
        (NodeKind::Double, _) => "Double",
        (NodeKind::Bytes, _) => "Bytes",
        (NodeKind::String, _) => "String",
        (NodeKind::Array(_), _) => "Array",
        (NodeKind::Map(_), _) => "Map",
        (NodeKind::Union(_), _) => "Union",
        (NodeKind::Record(record), _) => &record.name.full,
        (NodeKind::Enum(symbols), _) => &symbols.name.full,
        (NodeKind::Fixed(fixed), _) => &fixed.name.full,
    }
}

/// A variant that the datum names, with nothing in it.
pub(super) struct SymbolAccess<'r, 's, 'de>(pub(super) DatumDeserializer<'r, 's, 'de>);

impl<'de> EnumAccess<'de> for SymbolAccess<'_, '_, 'de> {
    type Error = DatumError;
    type Variant = BareVariant;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<(S::Value, BareVariant)> {
        Ok((seed.deserialize(self.0)?, BareVariant))
    }
}

pub(super) struct BareVariant;

impl<'de> VariantAccess<'de> for BareVariant {
    type Error = DatumError;

    fn unit_variant(self) -> Read<()> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Read<S::Value> {
        Err(DatumError::invalid_type(
            Unexpected::UnitVariant,
            &"newtype variant",
        ))
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Read<V::Value> {
        Err(DatumError::invalid_type(
            Unexpected::UnitVariant,
            &"tuple variant",
        ))
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Read<V::Value> {
        Err(DatumError::invalid_type(
            Unexpected::UnitVariant,
            &"struct variant",
        ))
    }
}
