//! The parts of what is read: fields, items, entries, variants.

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::{Place, What};
use crate::codec::protobuf::fault::{Fault, Read};
use crate::codec::protobuf::input::{Input, Occurrences, Scalar, Scanned};
use crate::codec::protobuf::layout::{Slot, What as Given};
use crate::codec::protobuf::schema::{Field, Kind, Message, Presence, Shape};
use crate::codec::protobuf::wire::{self, BYTES};

/// The fields of a message that a type takes.
pub(super) struct Fields<'r, 'a> {
    pub(super) input: &'r mut Input<'a>,
    pub(super) message: &'a Message,
    pub(super) scanned: Scanned,
    /// Which of the layout's gives comes next.
    pub(super) next: usize,
    pub(super) depth_left: usize,
}

impl<'a> Fields<'_, 'a> {
    fn field(&self, slot: u16) -> (&'a Field, Slot) {
        let message = self.message;
        let field = &message.fields[self.scanned.layout.slots[slot as usize] as usize];
        (field, self.input.slot(&self.scanned, slot as usize))
    }

    /// Whether the next one is there.
    fn is_given(&self, given: &Given) -> Read<bool> {
        match given {
            Given::Field(slot) => {
                let (field, slot) = self.field(*slot);
                match field.presence == Presence::Required && slot.count == 0 {
                    true => Err(Fault::invalid().within(&field.name)),
                    false => Ok(field.is_given(slot.count)),
                }
            }
            Given::Oneof(slots) => Ok(slots.iter().any(|slot| self.field(*slot).1.count > 0)),
        }
    }

    /// What stands there, and what the schema calls it.
    fn what(&self, given: &Given) -> Read<(What<'a>, &'a str)> {
        match given {
            Given::Field(slot) => {
                let (field, slot) = self.field(*slot);
                let what = self.input.what(field, slot);
                let name: &str = &field.name;
                Ok((what.map_err(|fault| fault.within(name))?, name))
            }
            Given::Oneof(slots) => {
                let set = slots.iter().map(|slot| self.field(*slot));
                let set = set.max_by_key(|(_, slot)| slot.count);
                let (field, slot) = set.ok_or_else(Fault::invalid)?;
                if slot.count > 1 && field.kind.message().is_some() {
                    return Err(Fault::split());
                }
                // The name of the member is told by who reads it.
                Ok((What::Oneof(field, slot.last), ""))
            }
        }
    }
}

impl<'a> Input<'a> {
    /// What a field is, by where its values stand.
    pub(super) fn what(&self, field: &'a Field, slot: Slot) -> Read<What<'a>> {
        match field.shape {
            Shape::Many => return Ok(What::Many(field, slot)),
            Shape::Map => return Ok(What::Map(field, slot)),
            Shape::One => {}
        }
        match (field.kind.message(), slot.count) {
            (None, 0) if field.default.is_some() => Ok(What::Default(self.default_of(field))),
            (None, 0) => Ok(What::Scalar(self.default_of(field))),
            (None, _) => Ok(What::Scalar(self.scalar(field.kind, &mut { slot.last })?)),
            (Some(_), 1) => Ok(What::Message(self.span(field.kind, field.number, slot.last)?)),
            // A message that is written in parts is all of them together.
            (Some(_), _) => Err(Fault::split()),
        }
    }

    /// What stands at `at`, of a field's kind.
    fn value(&self, field: &'a Field, at: usize) -> Read<What<'a>> {
        match field.kind.message() {
            Some(_) => Ok(What::Message(self.span(field.kind, field.number, at)?)),
            None => Ok(What::Scalar(self.scalar(field.kind, &mut { at })?)),
        }
    }
}

impl<'de> MapAccess<'de> for &mut Fields<'_, '_> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        while let Some(give) = self.scanned.layout.gives.get(self.next) {
            if self.is_given(&give.what)? {
                return seed.deserialize(StrDeserializer::new(&give.name)).map(Some);
            }
            self.next += 1;
        }
        Ok(None)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        let give = &self.scanned.layout.gives[self.next];
        let (what, name) = self.what(&give.what)?;
        self.next += 1;
        let place = Place {
            input: self.input,
            what,
            depth_left: self.depth_left,
        };
        seed.deserialize(place).map_err(|fault| match name {
            "" => fault,
            name => fault.within(name),
        })
    }
}

/// The items of a list.
pub(super) struct Items<'r, 'a> {
    input: &'r mut Input<'a>,
    field: &'a Field,
    occurrences: Occurrences,
    /// What is left of a piece that holds many.
    packed: usize,
    packed_end: usize,
    index: usize,
    depth_left: usize,
}

impl<'r, 'a> Items<'r, 'a> {
    pub(super) fn new(input: &'r mut Input<'a>, field: &'a Field, slot: Slot, depth_left: usize) -> Self {
        Self {
            occurrences: Occurrences::new(field, slot),
            input,
            field,
            packed: 0,
            packed_end: 0,
            index: 0,
            depth_left,
        }
    }

    #[inline]
    fn next(&mut self) -> Read<Option<What<'a>>> {
        loop {
            if self.packed < self.packed_end {
                let item = self.input.scalar(self.field.kind, &mut self.packed)?;
                // It may not reach into what follows.
                return match self.packed <= self.packed_end {
                    true => Ok(Some(What::Scalar(item))),
                    false => Err(Fault::invalid()),
                };
            }
            let Some((mut at, written)) = self.occurrences.next(self.input.bytes)? else {
                return Ok(None);
            };
            if written != BYTES || !self.field.kind.is_packable() {
                return self.input.value(self.field, at).map(Some);
            }
            let (start, end) = wire::delimited(self.input.bytes, &mut at).ok_or_else(Fault::invalid)?;
            (self.packed, self.packed_end) = (start, end);
        }
    }

    /// An error if there are more items.
    pub(super) fn end(&mut self) -> Read<()> {
        match self.next()? {
            Some(_) => Err(Fault::unfit()),
            None => Ok(()),
        }
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, '_> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        let index = self.index;
        let Some(what) = self.next().map_err(|fault| fault.item(index))? else {
            return Ok(None);
        };
        self.index += 1;
        let place = Place {
            input: self.input,
            what,
            depth_left: self.depth_left,
        };
        seed.deserialize(place)
            .map(Some)
            .map_err(|fault| fault.item(index))
    }
}

/// The entries of a map.
pub(super) struct Entries<'r, 'a> {
    input: &'r mut Input<'a>,
    field: &'a Field,
    occurrences: Occurrences,
    /// The key whose value comes next.
    entry: Option<(Scalar<'a>, What<'a>)>,
    depth_left: usize,
}

impl<'r, 'a> Entries<'r, 'a> {
    pub(super) fn new(input: &'r mut Input<'a>, field: &'a Field, slot: Slot, depth_left: usize) -> Self {
        Self {
            occurrences: Occurrences::new(field, slot),
            input,
            field,
            entry: None,
            depth_left,
        }
    }

    fn next(&mut self) -> Read<Option<(Scalar<'a>, What<'a>)>> {
        let Some((at, _)) = self.occurrences.next(self.input.bytes)? else {
            return Ok(None);
        };
        let span = self.input.span(self.field.kind, self.field.number, at)?;
        let scanned = self.input.scan(span, None)?;
        let message = self.input.message(span.message);
        let (mut key, mut value) = (Scalar::Text(""), What::Null);
        for (slot, index) in scanned.layout.slots.iter().enumerate() {
            let (field, slot) = (&message.fields[*index as usize], self.input.slot(&scanned, slot));
            match field.number {
                1 => {
                    key = match slot.count {
                        0 => self.input.default_of(field),
                        _ => self.input.scalar(field.kind, &mut { slot.last })?,
                    }
                }
                // A message that is left out is one with nothing in it.
                _ => {
                    value = match (field.kind.message(), slot.count) {
                        (Some(message), 0) => What::Message(super::Span {
                            message,
                            start: 0,
                            end: 0,
                        }),
                        _ => self.input.what(field, slot)?,
                    }
                }
            }
        }
        self.input.leave(&scanned);
        Ok(Some((key, value)))
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<Option<S::Value>> {
        self.entry = self.next()?;
        let Some((key, _)) = self.entry else {
            return Ok(None);
        };
        let place = Place {
            input: self.input,
            what: What::Key(key),
            depth_left: self.depth_left,
        };
        seed.deserialize(place)
            .map(Some)
            .map_err(|fault| fault.within(&shown(key)))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Read<S::Value> {
        let (key, what) = self.entry.take().ok_or_else(Fault::unfit)?;
        let place = Place {
            input: self.input,
            what,
            depth_left: self.depth_left,
        };
        seed.deserialize(place).map_err(|fault| fault.within(&shown(key)))
    }
}

#[cold]
fn shown(key: Scalar<'_>) -> String {
    match key {
        Scalar::Text(text) => text.to_owned(),
        Scalar::Bool(key) => key.to_string(),
        Scalar::Int(key) => key.to_string(),
        Scalar::UInt(key) => key.to_string(),
        _ => String::new(),
    }
}

/// The variant that has one of these names.
pub(super) fn variant<const N: usize>(
    variants: &'static [&'static str],
    names: [&str; N],
) -> Option<&'static str> {
    let find = |name: &str| variants.iter().find(|variant| **variant == name).copied();
    names.into_iter().find_map(find)
}

/// The value of the member of a oneof that is set.
pub(super) fn member<'r, 'a>(own: Place<'r, 'a>) -> Read<Place<'r, 'a>> {
    let What::Oneof(field, at) = own.what else {
        return Ok(own);
    };
    Ok(Place {
        what: own.input.value(field, at)?,
        depth_left: own.below()?,
        input: own.input,
    })
}

impl<'r, 'a, 'de> IntoDeserializer<'de, Fault> for Place<'r, 'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The member of a oneof that is set, as a variant.
pub(super) struct Chosen<'r, 'a, 'v> {
    pub(super) variant: &'v str,
    pub(super) place: Place<'r, 'a>,
}

impl<'r, 'a, 'de> EnumAccess<'de> for Chosen<'r, 'a, '_> {
    type Error = Fault;
    type Variant = Member<'r, 'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<(S::Value, Self::Variant)> {
        let variant = seed.deserialize(StrDeserializer::<Fault>::new(self.variant))?;
        Ok((variant, Member(self.place)))
    }
}

/// What the variant holds.
pub(super) struct Member<'r, 'a>(Place<'r, 'a>);

impl<'de> VariantAccess<'de> for Member<'_, '_> {
    type Error = Fault;

    fn unit_variant(self) -> Read<()> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<S::Value> {
        seed.deserialize(member(self.0)?)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        member(self.0)?.deserialize_tuple(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Read<V::Value> {
        member(self.0)?.deserialize_struct("", fields, visitor)
    }
}

/// A variant by its name, with nothing in it.
pub(super) struct Symbol<'v>(pub(super) &'v str);

impl<'de> EnumAccess<'de> for Symbol<'_> {
    type Error = Fault;
    type Variant = Alone;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Read<(S::Value, Alone)> {
        Ok((seed.deserialize(StrDeserializer::<Fault>::new(self.0))?, Alone))
    }
}

pub(super) struct Alone;

impl<'de> VariantAccess<'de> for Alone {
    type Error = Fault;

    fn unit_variant(self) -> Read<()> {
        Ok(())
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Read<S::Value> {
        Err(Fault::unfit())
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Read<V::Value> {
        Err(Fault::unfit())
    }
    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Read<V::Value> {
        Err(Fault::unfit())
    }
}

impl<'a> Input<'a> {
    /// The member that is set of a message that is nothing but a oneof, and where its value is.
    pub(super) fn set_member(&mut self, span: super::Span) -> Read<Option<(&'a Field, usize)>> {
        let scanned = self.scan(span, None)?;
        let message = self.message(span.message);
        let fields = scanned.layout.slots.iter().enumerate();
        let mut slots =
            fields.map(|(slot, index)| (&message.fields[*index as usize], self.slot(&scanned, slot)));
        let set = slots.find(|(_, slot)| slot.count > 0);
        self.leave(&scanned);
        match set {
            Some((field, slot))
                if slot.count > 1 && matches!(field.kind, Kind::Message(_) | Kind::Group(_)) =>
            {
                Err(Fault::split())
            }
            set => Ok(set.map(|(field, slot)| (field, slot.last))),
        }
    }
}
