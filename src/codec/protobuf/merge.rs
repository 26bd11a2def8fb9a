//! Messages that are written in parts.
//!
//! Protobuf lets a writer append to a message by writing a field of it once more: scalars are replaced,
//! messages merged. A message in two parts is the message of both parts' bytes together. Hardly anybody
//! writes this, so decoding expects each message in one piece; what is not is brought into that form first.

use super::fault::{Fault, Read};
use super::input::{Input, Occurrences, Scratch, Span};
use super::schema::{Field, Kind, MessageId, Schema, Shape};
use super::wire::{self, BYTES, DEPTH_MAX, GROUP, GROUP_END};

/// The same message with each message in it in one piece, without the fields that the schema does not know.
pub(super) fn merged(
    schema: &Schema,
    message: MessageId,
    bytes: &[u8],
    scratch: &mut Scratch,
) -> Read<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    write(schema, message, bytes, scratch, DEPTH_MAX, &mut out)?;
    Ok(out)
}

fn write(
    schema: &Schema,
    message: MessageId,
    bytes: &[u8],
    scratch: &mut Scratch,
    depth_left: usize,
    out: &mut Vec<u8>,
) -> Read<()> {
    let below = depth_left.checked_sub(1).ok_or_else(Fault::invalid)?;
    let mut input = Input::new(schema, bytes, scratch);
    let span = Span {
        message,
        start: 0,
        end: bytes.len(),
    };
    let scanned = input.scan(span, None)?;
    let fields = &schema.messages[message].fields;
    // Slots are of one message at a time here: they are read before what is within is written.
    let slots = scanned.layout.slots.iter().enumerate();
    let slots: Vec<_> = slots
        .map(|(slot, index)| (&fields[*index as usize], input.slot(&scanned, slot)))
        .filter(|(_, slot)| slot.count > 0)
        .collect();
    for (field, slot) in slots {
        let mut occurrences = Occurrences::new(field, slot);
        let mut parts: Vec<u8> = Vec::new();
        while let Some((at, written)) = occurrences.next(bytes)? {
            let mut end = at;
            let Some(inner) = field.kind.message() else {
                wire::skip(bytes, &mut end, field.number, written).ok_or_else(Fault::invalid)?;
                wire::put_tag(field.number, written, out);
                out.extend_from_slice(&bytes[at..end]);
                continue;
            };
            let part = content(field, bytes, at)?;
            match field.shape {
                Shape::One => parts.extend_from_slice(part),
                Shape::Many | Shape::Map => put(schema, field, inner, part, scratch, below, out)?,
            }
        }
        if let (Shape::One, Some(inner)) = (field.shape, field.kind.message()) {
            put(schema, field, inner, &parts, scratch, below, out)?;
        }
    }
    Ok(())
}

fn content<'b>(field: &Field, bytes: &'b [u8], mut at: usize) -> Read<&'b [u8]> {
    let start = at;
    let range = match field.kind {
        Kind::Group(_) => wire::group(bytes, &mut at, field.number).map(|end| (start, end)),
        _ => wire::delimited(bytes, &mut at),
    };
    let (start, end) = range.ok_or_else(Fault::invalid)?;
    Ok(&bytes[start..end])
}

fn put(
    schema: &Schema,
    field: &Field,
    message: MessageId,
    bytes: &[u8],
    scratch: &mut Scratch,
    depth_left: usize,
    out: &mut Vec<u8>,
) -> Read<()> {
    if let Kind::Group(_) = field.kind {
        wire::put_tag(field.number, GROUP, out);
        write(schema, message, bytes, scratch, depth_left, out)?;
        wire::put_tag(field.number, GROUP_END, out);
        return Ok(());
    }
    let mut inner = Vec::with_capacity(bytes.len());
    write(schema, message, bytes, scratch, depth_left, &mut inner)?;
    wire::put_tag(field.number, BYTES, out);
    wire::put_varint(inner.len() as u64, out);
    out.extend_from_slice(&inner);
    Ok(())
}
