//! From a datum's bytes to a user's type: serde's deserializer over a [`Schema`].
//!
//! Fields are matched by name; what the type does not ask for is passed over as bytes, whatever its logical
//! type. Nothing that the bytes say is believed: lengths are held against what is left, items against a
//! budget, nesting against a limit.
//!
//! What a type gets is what `serde_avro_fast` gives, which this is tested against, and besides:
//! * decimals of any width, and by every way of asking (see [`decimal`](super::decimal));
//! * a `uuid` that is a `fixed` as text, where text is asked for;
//! * bytes as a list of numbers, so that `Vec<u8>` and `[u8; 16]` take them;
//! * newtypes, which are what is in them.

mod access;

use serde::Deserializer;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};

pub(super) use self::access::type_name;
use self::access::{BlockReader, BranchAccess, EntryAccess, FieldAccess, ItemAccess, SymbolAccess};
use super::decimal;
use super::long::take_long;
use super::rewrite::{DEPTH_MAX, WEIGHTLESS_ITEMS_MAX};
use super::schema::{Logical, Node, NodeId, NodeKind, Schema};

/// All of `datum` as a `T`, or nothing.
#[inline]
pub(super) fn deserialize<T: DeserializeOwned>(schema: &Schema, datum: &[u8]) -> Option<T> {
    let mut input = DatumInput {
        schema,
        rest: datum,
        items_left: datum.len() + WEIGHTLESS_ITEMS_MAX,
    };
    let value = T::deserialize(DatumDeserializer {
        node: schema.node(schema.root()),
        input: &mut input,
        depth_left: DEPTH_MAX,
        by_type: false,
    });
    value.ok().filter(|_| input.rest.is_empty())
}

/// Why a datum is no value. There is nothing to say, as nobody would hear it: a cause is found by a second
/// look.
#[derive(Debug)]
struct DatumError;

impl std::fmt::Display for DatumError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the datum does not fit")
    }
}
impl std::error::Error for DatumError {}
impl serde::de::Error for DatumError {
    #[cold]
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

type Read<T> = Result<T, DatumError>;

/// What is left of a datum.
struct DatumInput<'s, 'de> {
    schema: &'s Schema,
    rest: &'de [u8],
    /// Items of arrays and maps that may still come: they may take no bytes.
    items_left: usize,
}

impl<'s, 'de> DatumInput<'s, 'de> {
    #[inline]
    fn long(&mut self) -> Read<i64> {
        take_long(&mut self.rest).ok_or(DatumError)
    }

    #[inline]
    fn int(&mut self) -> Read<i32> {
        i32::try_from(self.long()?).map_err(|_| DatumError)
    }

    /// A number that counts something, or is the number of something.
    #[inline]
    fn count(&mut self) -> Read<usize> {
        usize::try_from(self.long()?).map_err(|_| DatumError)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Read<&'de [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DatumError)?;
        self.rest = rest;
        Ok(bytes)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DatumError)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// A length and as many bytes.
    #[inline]
    fn bytes(&mut self) -> Read<&'de [u8]> {
        let len = self.count()?;
        self.take(len)
    }

    #[inline]
    fn text(&mut self) -> Read<&'de str> {
        text(self.bytes()?)
    }

    fn bool(&mut self) -> Read<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [_] => Err(DatumError),
        }
    }

    /// The branch that a union's datum says that it is of.
    #[inline]
    fn branch(&mut self, branches: &[NodeId]) -> Read<NodeId> {
        branches.get(self.count()?).copied().ok_or(DatumError)
    }

    /// Passes over a datum.
    fn skip(&mut self, node: &Node, depth_left: usize) -> Read<()> {
        let (schema, below) = (self.schema, depth_left.checked_sub(1));
        match &node.kind {
            NodeKind::Null => {}
            NodeKind::Boolean => drop(self.bool()?),
            NodeKind::Int | NodeKind::Long | NodeKind::Enum(_) => drop(self.long()?),
            NodeKind::Float => drop(self.take(4)?),
            NodeKind::Double => drop(self.take(8)?),
            NodeKind::Bytes | NodeKind::String => drop(self.bytes()?),
            NodeKind::Fixed(fixed) => drop(self.take(fixed.size)?),
            NodeKind::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip(schema.node(branch), below.ok_or(DatumError)?)?;
            }
            NodeKind::Record(record) => {
                let below = below.ok_or(DatumError)?;
                for field in &record.fields {
                    self.skip(schema.node(field.node), below)?;
                }
            }
            NodeKind::Array(items) => {
                self.skip_blocks(schema.node(*items), below.ok_or(DatumError)?, false)?
            }
            NodeKind::Map(values) => {
                self.skip_blocks(schema.node(*values), below.ok_or(DatumError)?, true)?
            }
        }
        Ok(())
    }

    fn skip_blocks(&mut self, item: &Node, depth_left: usize, keyed: bool) -> Read<()> {
        loop {
            let count = self.long()?;
            if count < 0 {
                // Such a block says how long it is.
                self.bytes()?;
                continue;
            }
            if count == 0 {
                return Ok(());
            }
            let count = usize::try_from(count).map_err(|_| DatumError)?;
            self.items_left = self.items_left.checked_sub(count).ok_or(DatumError)?;
            for _ in 0..count {
                if keyed {
                    self.bytes()?;
                }
                self.skip(item, depth_left)?;
            }
        }
    }
}

#[inline]
fn text(bytes: &[u8]) -> Read<&str> {
    std::str::from_utf8(bytes).map_err(|_| DatumError)
}

/// A place of the datum, to be read as whatever a type asks for.
struct DatumDeserializer<'r, 's, 'de> {
    input: &'r mut DatumInput<'s, 'de>,
    node: &'s Node,
    depth_left: usize,
    /// Whether an enum takes the name of the type for a variant: it stands for a union of which this is the
    /// branch.
    by_type: bool,
}

impl<'r, 's, 'de> DatumDeserializer<'r, 's, 'de> {
    /// How deep what is within this may be nested.
    #[inline]
    fn below(&self) -> Read<usize> {
        self.depth_left.checked_sub(1).ok_or(DatumError)
    }

    /// The branch that stands here, of a union.
    #[inline]
    fn within(self, branches: &[NodeId]) -> Read<Self> {
        let branch = self.input.branch(branches)?;
        Ok(DatumDeserializer {
            depth_left: self.below()?,
            node: self.input.schema.node(branch),
            by_type: false,
            input: self.input,
        })
    }

    #[inline]
    fn items(self, items: NodeId) -> Read<ItemAccess<'r, 's, 'de>> {
        Ok(ItemAccess {
            item: self.input.schema.node(items),
            depth_left: self.below()?,
            blocks: BlockReader::default(),
            input: self.input,
        })
    }

    /// Gives the items of an array, all of which have to be taken.
    #[inline]
    fn visit_items<V: Visitor<'de>>(self, items: NodeId, visitor: V) -> Read<V::Value> {
        let mut items = self.items(items)?;
        let value = visitor.visit_seq(&mut items)?;
        items.end()?;
        Ok(value)
    }

    #[inline]
    fn entries(self, values: NodeId) -> Read<EntryAccess<'r, 's, 'de>> {
        self.items(values).map(EntryAccess)
    }

    /// The bytes here, if what is written are bytes.
    #[inline]
    fn raw(&mut self) -> Option<Read<&'de [u8]>> {
        match &self.node.kind {
            NodeKind::Bytes => Some(self.input.bytes()),
            NodeKind::Fixed(fixed) => Some(self.input.take(fixed.size)),
            _ => None,
        }
    }

    /// A decimal's integer and scale, and whether the scale is the value's own; `None`: this is none.
    #[inline]
    fn decimal(&mut self) -> Read<Option<DecimalDeserializer<'de>>> {
        let scale = match self.node.logical {
            Some(Logical::Decimal { scale, .. }) => Some(i64::from(scale)),
            Some(Logical::BigDecimal) => None,
            _ => return Ok(None),
        };
        let mut bytes = self.raw().ok_or(DatumError)??;
        let Some(scale) = scale else {
            let len = take_long(&mut bytes).and_then(|len| usize::try_from(len).ok());
            let (unscaled, mut rest) = bytes.split_at_checked(len.ok_or(DatumError)?).ok_or(DatumError)?;
            let scale = take_long(&mut rest)
                .filter(|_| rest.is_empty())
                .ok_or(DatumError)?;
            return Ok(Some(DecimalDeserializer {
                unscaled,
                scale,
                floating: true,
            }));
        };
        Ok(Some(DecimalDeserializer {
            unscaled: bytes,
            scale,
            floating: false,
        }))
    }

    fn visit_raw<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        if let Some(number) = self.decimal()? {
            return visitor.visit_string(number.text()?);
        }
        let bytes = self.raw().ok_or(DatumError)??;
        match self.node.logical {
            Some(Logical::Duration) => visitor.visit_map(MapDeserializer::new(duration(bytes)?.into_iter())),
            Some(Logical::Uuid) => visitor.visit_string(hyphened(bytes)),
            _ => visitor.visit_borrowed_bytes(bytes),
        }
    }
}

/// A decimal.
struct DecimalDeserializer<'de> {
    unscaled: &'de [u8],
    scale: i64,
    /// Whether each value has a scale of its own, without which its integer means nothing.
    floating: bool,
}

impl DecimalDeserializer<'_> {
    fn text(&self) -> Read<String> {
        decimal::text(self.unscaled, self.scale).ok_or(DatumError)
    }

    fn integer(&self) -> Read<i128> {
        let integer = decimal::integer(self.unscaled).filter(|_| !self.floating || self.scale == 0);
        integer.ok_or(DatumError)
    }
}

/// Integers: of a decimal the unscaled one.
macro_rules! integers {
    ($($method:ident: $visit:ident $ty:ty;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
            match self.decimal()? {
                None => self.deserialize_any(visitor),
                Some(number) => visitor.$visit(<$ty>::try_from(number.integer()?).map_err(|_| DatumError)?),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for DatumDeserializer<'_, '_, 'de> {
    type Error = DatumError;

    integers! {
        deserialize_i8: visit_i64 i64;
        deserialize_i16: visit_i64 i64;
        deserialize_i32: visit_i64 i64;
        deserialize_i128: visit_i128 i128;
        deserialize_u8: visit_u64 u64;
        deserialize_u16: visit_u64 u64;
        deserialize_u32: visit_u64 u64;
        deserialize_u128: visit_u128 u128;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match &self.node.kind {
            NodeKind::Null => visitor.visit_unit(),
            NodeKind::Boolean => visitor.visit_bool(self.input.bool()?),
            NodeKind::Int => visitor.visit_i32(self.input.int()?),
            NodeKind::Long => visitor.visit_i64(self.input.long()?),
            NodeKind::Float => visitor.visit_f32(f32::from_le_bytes(self.input.array()?)),
            NodeKind::Double => visitor.visit_f64(f64::from_le_bytes(self.input.array()?)),
            NodeKind::String => visitor.visit_borrowed_str(self.input.text()?),
            NodeKind::Bytes | NodeKind::Fixed(_) => self.visit_raw(visitor),
            NodeKind::Enum(symbols) => {
                let symbol = symbols.symbols.get(self.input.count()?);
                visitor.visit_str(symbol.ok_or(DatumError)?)
            }
            NodeKind::Array(items) => self.visit_items(*items, visitor),
            NodeKind::Map(values) => visitor.visit_map(self.entries(*values)?),
            NodeKind::Union(branches) => self.within(branches)?.deserialize_any(visitor),
            NodeKind::Record(record) => visitor.visit_map(FieldAccess {
                depth_left: self.below()?,
                fields: record.fields.iter(),
                input: self.input,
            }),
        }
    }

    #[inline]
    fn deserialize_i64<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match self.node.kind {
            NodeKind::Long => visitor.visit_i64(self.input.long()?),
            NodeKind::Bytes | NodeKind::Fixed(_) => match self.decimal()? {
                None => self.visit_raw(visitor),
                Some(number) => visitor.visit_i64(i64::try_from(number.integer()?).map_err(|_| DatumError)?),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match self.node.kind {
            // The number of a variant, without looking for its name.
            NodeKind::Enum(_) => visitor.visit_u64(self.input.count()? as u64),
            NodeKind::Bytes | NodeKind::Fixed(_) => match self.decimal()? {
                None => self.visit_raw(visitor),
                Some(number) => visitor.visit_u64(u64::try_from(number.integer()?).map_err(|_| DatumError)?),
            },
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match self.node.kind {
            NodeKind::Double => visitor.visit_f64(f64::from_le_bytes(self.input.array()?)),
            NodeKind::Bytes | NodeKind::Fixed(_) => match self.decimal()? {
                None => self.visit_raw(visitor),
                Some(number) => {
                    visitor.visit_f64(decimal::float(number.unscaled, number.scale).ok_or(DatumError)?)
                }
            },
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match self.decimal()? {
            None => self.deserialize_any(visitor),
            // Rounded once, from the digits.
            Some(number) => visitor.visit_f32(number.text()?.parse().map_err(|_| DatumError)?),
        }
    }

    /// Bytes are taken for text if they are some and mean nothing else.
    #[inline]
    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match (&self.node.kind, self.node.logical) {
            (NodeKind::String, _) => visitor.visit_borrowed_str(self.input.text()?),
            (NodeKind::Bytes | NodeKind::Fixed(_), None) => {
                let bytes = self.raw().ok_or(DatumError)??;
                visitor.visit_borrowed_str(text(bytes)?)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match self.raw() {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes?),
            None if self.node.kind == NodeKind::String => {
                visitor.visit_borrowed_bytes(self.input.text()?.as_bytes())
            }
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match &self.node.kind {
            NodeKind::Null => visitor.visit_none(),
            NodeKind::Union(branches) => {
                let branch = self.within(branches)?;
                if branch.node.kind == NodeKind::Null {
                    return visitor.visit_none();
                }
                let schema = branch.input.schema;
                let nullable = branches
                    .iter()
                    .any(|branch| *schema.kind(*branch) == NodeKind::Null);
                visitor.visit_some(DatumDeserializer {
                    // What is not null may still be one of several types.
                    by_type: !(nullable && branches.len() == 2),
                    ..branch
                })
            }
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Read<V::Value> {
        match &self.node.kind {
            NodeKind::Array(items) => self.visit_items(*items, visitor),
            NodeKind::Bytes | NodeKind::Fixed(_) => {
                let bytes = self.raw().ok_or(DatumError)??;
                match self.node.logical {
                    Some(Logical::Duration) => {
                        let parts = duration(bytes)?.map(|(_, part)| part);
                        visit_numbers(parts.into_iter(), visitor)
                    }
                    _ => visit_numbers(bytes.iter().copied(), visitor),
                }
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Read<V::Value> {
        match self.node.logical {
            Some(Logical::Duration) if len != 3 => self.deserialize_any(visitor),
            _ => self.deserialize_seq(visitor),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Read<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Read<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    /// What names a variant (a string, a symbol, a number) is taken for one; of anything else, and of a
    /// union's branch, the type's name is the variant and the datum what is in it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Read<V::Value> {
        match (&self.node.kind, self.node.logical) {
            (NodeKind::Union(branches), _) => visitor.visit_enum(BranchAccess(self.within(branches)?)),
            _ if self.by_type => visitor.visit_enum(BranchAccess(self)),
            (
                NodeKind::Int
                | NodeKind::Long
                | NodeKind::Bytes
                | NodeKind::String
                | NodeKind::Enum(_)
                | NodeKind::Fixed(_),
                None,
            ) => visitor.visit_enum(SymbolAccess(self)),
            _ => visitor.visit_enum(BranchAccess(self)),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        match (&self.node.kind, self.node.logical) {
            (NodeKind::Int, None) => {
                visitor.visit_u64(u64::try_from(self.input.int()?).map_err(|_| DatumError)?)
            }
            (NodeKind::Long, None) => visitor.visit_u64(self.input.count()? as u64),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Read<V::Value> {
        self.input.skip(self.node, self.depth_left)?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool char unit unit_struct map
    }
}

/// Gives numbers, all of which have to be taken.
fn visit_numbers<'de, V: Visitor<'de>, N: IntoDeserializer<'de, DatumError>>(
    numbers: impl Iterator<Item = N>,
    visitor: V,
) -> Read<V::Value> {
    let mut numbers = SeqDeserializer::new(numbers);
    let value = visitor.visit_seq(&mut numbers)?;
    numbers.end()?;
    Ok(value)
}

/// The parts of a duration.
fn duration(bytes: &[u8]) -> Read<[(&'static str, u32); 3]> {
    let bytes: &[u8; 12] = bytes.try_into().map_err(|_| DatumError)?;
    let part = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok([("months", part(0)), ("days", part(4)), ("milliseconds", part(8))])
}

/// A UUID as it is written: `00112233-4455-6677-8899-aabbccddeeff`.
fn hyphened(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text += &format!("{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
