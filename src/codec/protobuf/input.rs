//! A message's bytes, and what stands in them.

use std::rc::Rc;

use super::fault::{Fault, Read};
use super::layout::{Layout, Layouts, Slot};
use super::schema::{Default, Field, Kind, Message, MessageId, Schema, Shape};
use super::wire::{self, BYTES};

/// A message, by the place of its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) message: MessageId,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A value without parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Enum(usize, i32),
}

/// What is kept from one record to the next.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) layouts: Layouts,
    slots: Vec<Slot>,
}

pub(super) struct Input<'a> {
    pub(super) schema: &'a Schema,
    pub(super) bytes: &'a [u8],
    pub(super) scratch: &'a mut Scratch,
}

/// A message that was scanned: its slots are the last ones.
pub(super) struct Scanned {
    pub(super) layout: Rc<Layout>,
    base: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(schema: &'a Schema, bytes: &'a [u8], scratch: &'a mut Scratch) -> Self {
        scratch.slots.clear();
        Self {
            schema,
            bytes,
            scratch,
        }
    }

    #[inline]
    pub(super) fn message(&self, id: MessageId) -> &'a Message {
        let schema = self.schema;
        &schema.messages[id]
    }

    /// Scans a message for the fields that a type takes by these names; without names for all.
    pub(super) fn scan(&mut self, span: Span, names: Option<&'static [&'static str]>) -> Read<Scanned> {
        let layout = self.scratch.layouts.of(self.schema, span.message, names);
        let base = self.scratch.slots.len();
        let message = self.message(span.message);
        self.scratch
            .slots
            .resize(base + layout.slots.len(), Slot::default());
        let bytes = &self.bytes[..span.end];
        let mut at = span.start;
        while at < span.end {
            let first = at;
            let (number, written) = wire::tag(bytes, &mut at).ok_or_else(Fault::invalid)?;
            let value = at;
            let skipped = wire::skip(bytes, &mut at, number, written);
            let Some(slot) = layout.slot(number) else {
                skipped.ok_or_else(Fault::invalid)?;
                continue;
            };
            let field = &message.fields[layout.slots[slot] as usize];
            if skipped.is_none() || !field.may_be_written(written) {
                return Err(Fault::invalid().within(&field.name));
            }
            let slots = &mut self.scratch.slots[base..];
            if let Some(oneof) = field.oneof {
                // The last member that is written is the one that is set.
                for (other, own) in slots.iter_mut().zip(&layout.slots) {
                    let other_field = &message.fields[*own as usize];
                    if other_field.oneof == Some(oneof) && other_field.number != number {
                        other.count = 0;
                    }
                }
            }
            let slot = &mut slots[slot];
            if slot.count == 0 {
                slot.first = first;
            }
            slot.last = value;
            slot.count += 1;
        }
        Ok(Scanned { layout, base })
    }

    #[inline]
    pub(super) fn slot(&self, scanned: &Scanned, slot: usize) -> Slot {
        self.scratch.slots[scanned.base + slot]
    }

    /// Forgets the slots of a message.
    #[inline]
    pub(super) fn leave(&mut self, scanned: &Scanned) {
        self.scratch.slots.truncate(scanned.base);
    }

    /// The message that is the value at `at`.
    pub(super) fn span(&self, kind: Kind, number: u32, mut at: usize) -> Read<Span> {
        let message = kind.message().ok_or_else(Fault::invalid)?;
        let (start, end) = match kind {
            Kind::Group(_) => {
                let start = at;
                wire::group(self.bytes, &mut at, number).map(|end| (start, end))
            }
            _ => wire::delimited(self.bytes, &mut at),
        }
        .ok_or_else(Fault::invalid)?;
        Ok(Span { message, start, end })
    }

    /// The value of a kind without parts at `at`, which moves behind it.
    #[inline]
    pub(super) fn scalar(&self, kind: Kind, at: &mut usize) -> Read<Scalar<'a>> {
        self.try_scalar(kind, at).ok_or_else(Fault::invalid)
    }

    #[inline]
    fn try_scalar(&self, kind: Kind, at: &mut usize) -> Option<Scalar<'a>> {
        let bytes = self.bytes;
        // What is wider than its type is cut, as Protobuf's parsers do.
        Some(match kind {
            Kind::Int64 => Scalar::Int(wire::varint(bytes, at)? as i64),
            Kind::Int32 => Scalar::Int((wire::varint(bytes, at)? as i32).into()),
            Kind::UInt64 => Scalar::UInt(wire::varint(bytes, at)?),
            Kind::UInt32 => Scalar::UInt((wire::varint(bytes, at)? as u32).into()),
            Kind::SInt64 => Scalar::Int(wire::unzigzag(wire::varint(bytes, at)?)),
            Kind::SInt32 => {
                let code = wire::varint(bytes, at)? as u32;
                Scalar::Int((wire::unzigzag(code.into()) as i32).into())
            }
            Kind::Bool => Scalar::Bool(wire::varint(bytes, at)? != 0),
            Kind::Enum(id) => Scalar::Enum(id, wire::varint(bytes, at)? as i32),
            Kind::Double => Scalar::Double(f64::from_le_bytes(array(bytes, at)?)),
            Kind::Float => Scalar::Float(f32::from_le_bytes(array(bytes, at)?)),
            Kind::Fixed64 => Scalar::UInt(u64::from_le_bytes(array(bytes, at)?)),
            Kind::Fixed32 => Scalar::UInt(u32::from_le_bytes(array(bytes, at)?).into()),
            Kind::SFixed64 => Scalar::Int(i64::from_le_bytes(array(bytes, at)?)),
            Kind::SFixed32 => Scalar::Int(i32::from_le_bytes(array(bytes, at)?).into()),
            Kind::String => {
                let (start, end) = wire::delimited(bytes, at)?;
                Scalar::Text(std::str::from_utf8(&bytes[start..end]).ok()?)
            }
            Kind::Bytes => {
                let (start, end) = wire::delimited(bytes, at)?;
                Scalar::Bytes(&bytes[start..end])
            }
            Kind::Message(_) | Kind::Group(_) => return None,
        })
    }

    /// The value of a scalar field that is not written.
    pub(super) fn default_of(&self, field: &'a Field) -> Scalar<'a> {
        let symbols = match field.kind {
            Kind::Enum(id) => Some(id),
            _ => None,
        };
        match (&field.default, field.kind) {
            (Some(Default::Enum(number)), _) => Scalar::Enum(symbols.unwrap_or_default(), *number),
            (Some(Default::Bool(value)), _) => Scalar::Bool(*value),
            (Some(Default::Int(value)), _) => Scalar::Int(*value),
            (Some(Default::UInt(value)), _) => Scalar::UInt(*value),
            (Some(Default::Float(value)), _) => Scalar::Float(*value),
            (Some(Default::Double(value)), _) => Scalar::Double(*value),
            (Some(Default::Text(value)), _) => Scalar::Text(value),
            (Some(Default::Bytes(value)), _) => Scalar::Bytes(value),
            (None, Kind::Bool) => Scalar::Bool(false),
            (None, Kind::Float) => Scalar::Float(0.0),
            (None, Kind::Double) => Scalar::Double(0.0),
            (None, Kind::String) => Scalar::Text(""),
            (None, Kind::Bytes | Kind::Message(_) | Kind::Group(_)) => Scalar::Bytes(&[]),
            (None, Kind::Enum(id)) => Scalar::Enum(id, self.schema.enums[id].default),
            (None, Kind::UInt32 | Kind::UInt64 | Kind::Fixed32 | Kind::Fixed64) => Scalar::UInt(0),
            (None, _) => Scalar::Int(0),
        }
    }
}

impl Field {
    #[inline]
    fn may_be_written(&self, written: u8) -> bool {
        written == self.kind.written()
            || written == BYTES && self.shape == Shape::Many && self.kind.is_packable()
    }
}

#[inline]
fn array<const N: usize>(bytes: &[u8], at: &mut usize) -> Option<[u8; N]> {
    let array = bytes.get(*at..)?.first_chunk()?;
    *at += N;
    Some(*array)
}

/// The values of a field that may be written many times.
#[derive(Clone, Copy)]
pub(super) struct Occurrences {
    at: usize,
    left: usize,
    number: u32,
}

impl Occurrences {
    pub(super) fn new(field: &Field, slot: Slot) -> Self {
        Self {
            at: slot.first,
            left: slot.count,
            number: field.number,
        }
    }

    /// Where the next one stands, and how it is written.
    #[inline]
    pub(super) fn next(&mut self, bytes: &[u8]) -> Read<Option<(usize, u8)>> {
        if self.left == 0 {
            return Ok(None);
        }
        loop {
            let (number, written) = wire::tag(bytes, &mut self.at).ok_or_else(Fault::invalid)?;
            let value = self.at;
            wire::skip(bytes, &mut self.at, number, written).ok_or_else(Fault::invalid)?;
            if number == self.number {
                self.left -= 1;
                return Ok(Some((value, written)));
            }
        }
    }
}
