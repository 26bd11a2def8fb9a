//! Decodes and skips encoded values without their Rust types, as [`Datum`]s.
//!
//! [`encode`](super::encode) describes the encodings. Bytes may come from outside (a checkpoint, a cursor),
//! so nothing here trusts them: invalid bytes result in `None`, and never in a panic or an allocation beyond
//! the input's size.

use crate::schema::Field;
use crate::schema::datum::Datum;
use crate::schema::encode::{END, Form, MORE, Tag, put, short_index};
use crate::schema::types::{Type, Variant};
use crate::time::EventTime;
use crate::wire::ByteInput;

/// Maximum length of a list whose elements take no bytes, as units do.
const EMPTY_ELEMENTS_MAX: u64 = 1 << 16;

/// Appends the datums of all fields; returns false if the bytes are invalid.
pub(super) fn read_all(fields: &[Field], form: Form, bytes: &[u8], row: &mut Vec<Datum>) -> bool {
    let mut reader = ColumnReader::new(form, bytes);
    for field in fields {
        match reader.datum(&field.ty) {
            Some(datum) => row.push(datum),
            None => return false,
        }
    }
    reader.is_at_end()
}

/// Decodes one field.
pub(super) fn read_one(fields: &[Field], form: Form, bytes: &[u8], at: usize) -> Option<Datum> {
    let mut reader = ColumnReader::new(form, bytes);
    for field in fields.get(..at)? {
        reader.skip(&field.ty)?;
    }
    reader.datum(&fields.get(at)?.ty)
}

/// Reads encoded values one after another.
pub(super) struct ColumnReader<'a> {
    form: Form,
    input: ByteInput<'a>,
}

impl<'a> ColumnReader<'a> {
    pub(super) fn new(form: Form, bytes: &'a [u8]) -> Self {
        Self {
            form,
            input: ByteInput(bytes),
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.input.0.is_empty()
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        self.input.bool()
    }

    pub(super) fn signed(&mut self, bits: u8) -> Option<i64> {
        match self.form {
            Form::Compact if bits == 8 => Some(i64::from(self.input.byte()? as i8)),
            Form::Compact => self.input.i64(),
            Form::Ordered => {
                let shift = 64 - u32::from(bits);
                let raw = self.big_endian(bits)? ^ (1 << (bits - 1));
                Some(((raw << shift) as i64) >> shift)
            }
        }
    }

    pub(super) fn unsigned(&mut self, bits: u8) -> Option<u64> {
        match self.form {
            Form::Compact if bits == 8 => Some(self.input.byte()?.into()),
            Form::Compact => self.input.u64(),
            Form::Ordered => self.big_endian(bits),
        }
    }

    fn big_endian(&mut self, bits: u8) -> Option<u64> {
        let bytes = self.input.bytes(u64::from(bits / 8))?;
        Some(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    pub(super) fn i128(&mut self) -> Option<i128> {
        match self.form {
            Form::Compact => {
                let zigzag = self.leb()?;
                Some((zigzag >> 1) as i128 ^ -((zigzag & 1) as i128))
            }
            Form::Ordered => Some((u128::from_be_bytes(self.input.array()?) ^ (1 << 127)) as i128),
        }
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        match self.form {
            Form::Compact => self.leb(),
            Form::Ordered => Some(u128::from_be_bytes(self.input.array()?)),
        }
    }

    fn leb(&mut self) -> Option<u128> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.input.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift == 126 && bits > 3 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub(super) fn f32(&mut self) -> Option<f32> {
        let raw = match self.form {
            Form::Compact => u32::from_le_bytes(self.input.array()?),
            Form::Ordered => {
                let raw = u32::from_be_bytes(self.input.array()?).wrapping_add(put::NANS_32);
                raw ^ if raw >> 31 == 0 { u32::MAX } else { 1 << 31 }
            }
        };
        Some(f32::from_bits(raw))
    }

    pub(super) fn f64(&mut self) -> Option<f64> {
        let raw = match self.form {
            Form::Compact => u64::from_le_bytes(self.input.array()?),
            Form::Ordered => {
                let raw = u64::from_be_bytes(self.input.array()?).wrapping_add(put::NANS_64);
                raw ^ if raw >> 63 == 0 { u64::MAX } else { 1 << 63 }
            }
        };
        Some(f64::from_bits(raw))
    }

    pub(super) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.form {
            Form::Compact => self.input.prefixed().map(<[u8]>::to_vec),
            Form::Ordered => {
                let mut bytes = Vec::new();
                loop {
                    let zero = self.input.0.iter().position(|byte| *byte == 0)?;
                    bytes.extend_from_slice(self.input.bytes(zero as u64)?);
                    match self.input.array()? {
                        [0, 0] => return Some(bytes),
                        [0, 1] => bytes.push(0),
                        _ => return None,
                    }
                }
            }
        }
    }

    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    /// The number of elements, in the form that stores it first.
    pub(super) fn count(&mut self) -> Option<Option<u64>> {
        match self.form {
            Form::Compact => Some(Some(self.input.u64()?)),
            Form::Ordered => Some(None),
        }
    }

    /// Whether another element follows, in the form that marks each.
    pub(super) fn more(&mut self) -> Option<bool> {
        match self.input.byte()? {
            MORE => Some(true),
            END => Some(false),
            _ => None,
        }
    }

    pub(super) fn index(&mut self, variants: usize) -> Option<u32> {
        match self.form {
            Form::Compact => self.input.u64()?.try_into().ok(),
            Form::Ordered if short_index(variants) => Some(self.input.byte()?.into()),
            Form::Ordered => Some(u32::from_be_bytes(self.input.array()?)),
        }
    }

    pub(super) fn tag(&mut self) -> Option<Tag> {
        let tag = self.input.byte()?;
        Tag::ALL.get(usize::from(tag)).copied()
    }

    pub(super) fn next_is(&self, tag: Tag) -> bool {
        self.input.0.first() == Some(&(tag as u8))
    }

    fn variant<'t>(&mut self, variants: &'t [Variant]) -> Option<(u32, &'t Variant)> {
        let index = self.index(variants.len())?;
        Some((index, variants.get(index as usize)?))
    }

    /// Reads elements with `read` until the last.
    pub(super) fn each(&mut self, mut read: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        match self.count()? {
            Some(count) => (0..count).try_for_each(|_| {
                let before = self.input.0.len();
                read(self)?;
                // Damaged bytes may claim any number of elements that take no bytes.
                (self.input.0.len() < before || count <= EMPTY_ELEMENTS_MAX).then_some(())
            }),
            None => {
                while self.more()? {
                    read(self)?;
                }
                Some(())
            }
        }
    }

    pub(super) fn datum(&mut self, ty: &Type) -> Option<Datum> {
        Some(match ty {
            Type::Unit => Datum::Null,
            Type::Bool => Datum::Bool(self.bool()?),
            Type::Int(128) => Datum::Int(self.i128()?),
            Type::Int(bits) => Datum::Int(self.signed(*bits)?.into()),
            Type::UInt(128) => Datum::from(self.u128()?),
            Type::UInt(bits) => Datum::Int(self.unsigned(*bits)?.into()),
            Type::Float(32) => Datum::float(self.f32()?.into()),
            Type::Float(_) => Datum::float(self.f64()?),
            Type::Text => Datum::Text(self.text()?),
            Type::Bytes => Datum::Bytes(self.bytes()?),
            Type::Time => Datum::Time(EventTime(self.signed(64)?)),
            Type::Option(inner) | Type::Default(inner) => match self.more()? {
                true => self.datum(inner)?,
                false => Datum::Null,
            },
            Type::List(inner) => {
                let mut items = Vec::new();
                self.each(|reader| reader.datum(inner).map(|item| items.push(item)))?;
                Datum::List(items)
            }
            Type::Tuple(types) => Datum::List(types.iter().map(|ty| self.datum(ty)).collect::<Option<_>>()?),
            Type::Map(key, value) => {
                let mut entries = Vec::new();
                self.each(|reader| {
                    entries.push((reader.datum(key)?, reader.datum(value)?));
                    Some(())
                })?;
                Datum::Map(entries)
            }
            Type::Struct(fields) => {
                let field = |(name, ty): &(&'static str, Type)| Some((*name, self.datum(ty)?));
                Datum::Struct(fields.iter().map(field).collect::<Option<_>>()?)
            }
            Type::Enum(variants) => {
                let (index, variant) = self.variant(variants)?;
                let content = match &variant.content {
                    Some(ty) => Some(Box::new(self.datum(ty)?)),
                    None => None,
                };
                Datum::Variant(index, variant.name.into(), content)
            }
            Type::Json => self.untyped()?,
        })
    }

    fn untyped(&mut self) -> Option<Datum> {
        Some(match self.tag()? {
            Tag::Null => Datum::Null,
            Tag::False => Datum::Bool(false),
            Tag::True => Datum::Bool(true),
            Tag::Int => Datum::Int(self.i128()?),
            Tag::UInt => Datum::from(self.u128()?),
            Tag::Float => Datum::float(self.f64()?),
            Tag::Time => Datum::Time(EventTime(self.signed(64)?)),
            Tag::Text => Datum::Text(self.text()?),
            Tag::Bytes => Datum::Bytes(self.bytes()?),
            Tag::UnitVariant => Datum::Variant(self.index(usize::MAX)?, self.text()?.into(), None),
            Tag::Variant => {
                let (index, name) = (self.index(usize::MAX)?, self.text()?);
                Datum::Variant(index, name.into(), Some(Box::new(self.untyped()?)))
            }
            Tag::List => {
                let mut items = Vec::new();
                self.each(|reader| reader.untyped().map(|item| items.push(item)))?;
                Datum::List(items)
            }
            Tag::Map => {
                let mut entries = Vec::new();
                self.each(|reader| {
                    entries.push((reader.untyped()?, reader.untyped()?));
                    Some(())
                })?;
                Datum::Map(entries)
            }
        })
    }

    pub(super) fn skip(&mut self, ty: &Type) -> Option<()> {
        match (ty, self.form) {
            (Type::Text | Type::Bytes, Form::Compact) => self.input.prefixed().map(drop),
            (Type::Text | Type::Bytes, Form::Ordered) => loop {
                let zero = self.input.0.iter().position(|byte| *byte == 0)?;
                self.input.bytes(zero as u64)?;
                if self.input.array::<2>()? == [0, 0] {
                    return Some(());
                }
            },
            (Type::Tuple(types), _) => types.iter().try_for_each(|ty| self.skip(ty)),
            (Type::Struct(fields), _) => fields.iter().try_for_each(|(_, ty)| self.skip(ty)),
            (Type::Option(inner) | Type::Default(inner), _) => match self.more()? {
                true => self.skip(inner),
                false => Some(()),
            },
            (Type::List(inner), _) => self.each(|reader| reader.skip(inner)),
            (Type::Map(key, value), _) => self.each(|reader| {
                reader.skip(key)?;
                reader.skip(value)
            }),
            // Scalars are cheap, and types that may hold anything are rare.
            _ => self.datum(ty).map(drop),
        }
    }
}

/// Appends the encoding of a datum; returns `None`, possibly after appending some bytes, if it does not have
/// the type.
pub(crate) fn write(ty: &Type, form: Form, datum: &Datum, out: &mut Vec<u8>) -> Option<()> {
    match (ty, datum) {
        (Type::Unit, Datum::Null) => {}
        (Type::Bool, Datum::Bool(value)) => out.push((*value).into()),
        (Type::Int(128), Datum::Int(value)) => put::i128(form, *value, out),
        (Type::Int(bits), Datum::Int(value)) => {
            put::signed(form, *bits, fitting(*value, *bits, true)? as i64, out)
        }
        (Type::UInt(128), Datum::UInt(value)) => put::u128(form, *value, out),
        (Type::UInt(128), Datum::Int(value)) => put::u128(form, u128::try_from(*value).ok()?, out),
        (Type::UInt(bits), Datum::Int(value)) => {
            put::unsigned(form, *bits, fitting(*value, *bits, false)? as u64, out);
        }
        (Type::Float(32), Datum::Float(value)) => put::f32(form, *value as f32, out),
        (Type::Float(_), Datum::Float(value)) => put::f64(form, *value, out),
        (Type::Text, Datum::Text(value)) => put::text(form, value.as_bytes(), out),
        (Type::Bytes, Datum::Bytes(value)) => put::text(form, value, out),
        (Type::Time, Datum::Time(time)) => put::signed(form, 64, time.0, out),
        (Type::Option(_) | Type::Default(_), Datum::Null) => out.push(END),
        (Type::Option(inner) | Type::Default(inner), datum) => {
            out.push(MORE);
            write(inner, form, datum, out)?;
        }
        (Type::List(inner), Datum::List(items)) => {
            write_each(form, items, out, |item, out| write(inner, form, item, out))?;
        }
        (Type::Tuple(types), Datum::List(items)) if types.len() == items.len() => {
            for (ty, item) in types.iter().zip(items) {
                write(ty, form, item, out)?;
            }
        }
        (Type::Map(key, value), Datum::Map(entries)) => {
            write_each(form, entries, out, |(own_key, own), out| {
                write(key, form, own_key, out)?;
                write(value, form, own, out)
            })?;
        }
        (Type::Struct(fields), Datum::Struct(members)) if fields.len() == members.len() => {
            for ((_, ty), (_, member)) in fields.iter().zip(members) {
                write(ty, form, member, out)?;
            }
        }
        (Type::Enum(variants), Datum::Variant(index, _, content)) => {
            put::index(form, variants.len(), *index, out);
            match (&variants.get(*index as usize)?.content, content) {
                (None, None) => {}
                (Some(ty), Some(content)) => write(ty, form, content, out)?,
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

/// Appends the common prefix of the encodings of all texts with this prefix, in the ordered form.
pub(crate) fn write_prefix(ty: &Type, prefix: &str, out: &mut Vec<u8>) -> Option<()> {
    match ty {
        Type::Text => put::escaped(prefix.as_bytes(), out),
        Type::Option(inner) | Type::Default(inner) => {
            out.push(MORE);
            write_prefix(inner, prefix, out)?;
        }
        _ => return None,
    }
    Some(())
}

fn write_each<T>(
    form: Form,
    items: &[T],
    out: &mut Vec<u8>,
    mut write: impl FnMut(&T, &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    if form == Form::Compact {
        crate::wire::put_u64(out, items.len() as u64);
        return items.iter().try_for_each(|item| write(item, out));
    }
    for item in items {
        out.push(MORE);
        write(item, out)?;
    }
    out.push(END);
    Some(())
}

/// The value, if it fits into this many bits.
fn fitting(value: i128, bits: u8, signed: bool) -> Option<i128> {
    let range = match signed {
        true => -(1i128 << (bits - 1))..1i128 << (bits - 1),
        false => 0..1i128 << bits,
    };
    range.contains(&value).then_some(value)
}
