//! Encodes the parts of a value: elements, entries, fields.

use serde::ser::{self, Serialize};

use crate::schema::encode::{END, Encoder, Form, JSON, MORE, Mismatch, Tag, encode};
use crate::schema::types::Type;
use crate::wire::put_u64;

/// The parts of a value that has several.
pub(in crate::schema) struct Parts<'a> {
    next: NextType<'a>,
    form: Form,
    out: &'a mut Vec<u8>,
    /// Where the number of parts is stored, if it precedes them.
    count: Option<Count>,
    written: usize,
}

/// The type of the next part.
pub(super) enum NextType<'a> {
    Element(&'a Type),
    Entry(&'a Type, &'a Type),
    Tuple(std::slice::Iter<'a, Type>),
    Fields(std::slice::Iter<'a, (&'static str, Type)>),
}

enum Count {
    /// Known in advance.
    Said(usize),
    /// To be stored here once known.
    At(usize),
}

impl<'a> Parts<'a> {
    pub(super) fn plain(encoder: Encoder<'a>, next: NextType<'a>) -> Self {
        let Encoder { form, out, .. } = encoder;
        Self {
            next,
            form,
            out,
            count: None,
            written: 0,
        }
    }

    pub(super) fn framed(encoder: Encoder<'a>, next: NextType<'a>, len: Option<usize>) -> Self {
        let mut parts = Self::plain(encoder, next);
        if parts.form == Form::Compact {
            parts.count = Some(match len {
                Some(len) => {
                    put_u64(parts.out, len as u64);
                    Count::Said(len)
                }
                None => Count::At(parts.out.len()),
            });
        }
        parts
    }

    fn begin(&mut self) {
        if self.form == Form::Ordered {
            self.out.push(MORE);
        }
        self.written += 1;
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        let ty = match &mut self.next {
            NextType::Element(ty) => {
                let ty = *ty;
                self.begin();
                ty
            }
            NextType::Tuple(types) => types
                .next()
                .ok_or_else(|| Mismatch("it is written with more parts than it is read with".into()))?,
            NextType::Entry(..) | NextType::Fields(_) => {
                return Err(Mismatch("elements among named fields".into()));
            }
        };
        encode(ty, self.form, value, self.out)
    }

    /// The type of a field, after writing nulls for the fields before it that were left out.
    #[inline]
    fn field(&mut self, name: &'static str) -> Result<&'a Type, Mismatch> {
        if let NextType::Fields(fields) = &mut self.next
            && let [(next, ty), ..] = fields.as_slice()
            // There is usually a single copy of a literal.
            && (std::ptr::eq(*next, name) || *next == name)
        {
            fields.next();
            return Ok(ty);
        }
        self.field_elsewhere(name)
    }

    fn field_elsewhere(&mut self, name: &'static str) -> Result<&'a Type, Mismatch> {
        let NextType::Fields(fields) = &mut self.next else {
            self.begin();
            encode(&JSON, self.form, name, self.out)?;
            return Ok(&JSON);
        };
        let ahead = fields.as_slice();
        // A field with different names for writing and reading is found by its position.
        let at = ahead.iter().position(|(other, _)| *other == name).unwrap_or(0);
        for (name, ty) in ahead.iter().take(at) {
            leave_out(name, ty, self.out)?;
        }
        let found = fields.nth(at);
        let (_, ty) = found
            .ok_or_else(|| Mismatch(format!("field `{name}` is written but not read at this position")))?;
        Ok(ty)
    }

    fn close(self) -> Result<(), Mismatch> {
        match self.next {
            NextType::Tuple(mut left) => match left.next() {
                None => Ok(()),
                Some(_) => Err(Mismatch(
                    "it is written with fewer parts than it is read with".into(),
                )),
            },
            NextType::Fields(left) => {
                for (name, ty) in left {
                    leave_out(name, ty, self.out)?;
                }
                Ok(())
            }
            NextType::Element(_) | NextType::Entry(..) => {
                match self.count {
                    None => self.out.push(END),
                    Some(Count::Said(len)) if len == self.written => {}
                    Some(Count::Said(len)) => {
                        let written = self.written;
                        return Err(Mismatch(format!("it announces {len} elements and has {written}")));
                    }
                    Some(Count::At(at)) => {
                        let mut count = Vec::new();
                        put_u64(&mut count, self.written as u64);
                        self.out.splice(at..at, count);
                    }
                }
                Ok(())
            }
        }
    }
}

/// A field that is left out.
fn leave_out(name: &str, ty: &Type, out: &mut Vec<u8>) -> Result<(), Mismatch> {
    match ty {
        Type::Unit => {}
        Type::Option(_) | Type::Default(_) => out.push(END),
        Type::Json => out.push(Tag::Null as u8),
        _ => {
            return Err(Mismatch(format!(
                "field `{name}` may be left out when written but is required when read"
            )));
        }
    }
    Ok(())
}

macro_rules! elements {
    ($($part:ident $method:ident),*) => {
        $(impl ser::$part for Parts<'_> {
            type Ok = ();
            type Error = Mismatch;
            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
                self.element(value)
            }
            fn end(self) -> Result<(), Mismatch> {
                self.close()
            }
        })*
    };
}
elements!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($part:ident),*) => {
        $(impl ser::$part for Parts<'_> {
            type Ok = ();
            type Error = Mismatch;
            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Mismatch> {
                let ty = match self.field(name)? {
                    Type::Default(ty) => {
                        self.out.push(MORE);
                        ty
                    }
                    ty => ty,
                };
                encode(ty, self.form, value, self.out)
                    .map_err(|Mismatch(why)| Mismatch(format!("field `{name}`: {why}")))
            }
            fn end(self) -> Result<(), Mismatch> {
                self.close()
            }
        })*
    };
}
fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Mismatch;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Mismatch> {
        let NextType::Entry(ty, _) = self.next else {
            return Err(Mismatch("a key among elements".into()));
        };
        self.begin();
        encode(ty, self.form, key, self.out)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Mismatch> {
        let NextType::Entry(_, ty) = self.next else {
            return Err(Mismatch("a value among elements".into()));
        };
        encode(ty, self.form, value, self.out)
    }
    fn end(self) -> Result<(), Mismatch> {
        self.close()
    }
}
