//! Encodes values as postcard, restricted to values that can be read back from it.
//!
//! postcard writes the parts of a value one after another, without names. A value that leaves out a part
//! (`skip_serializing_if`) shifts everything after it, and its bytes may decode to another value; whether
//! they do depends on the value, so no sample can rule it out. Hence the two halves here: [`encode`] refuses
//! to leave anything out, and [`round_trip`] decodes and compares, which covers everything that cannot be
//! seen while encoding: types that inspect the data before they know what to read (`untagged`), maps with
//! equal keys, implementations of `Serialize` and `Deserialize` that do not agree.

use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::de::DeserializeOwned;
use serde::ser::{self, Serialize};

/// Why a value cannot be encoded without names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unencodable {
    /// A field was left out: the names of the type and the field.
    LeftOut(&'static str, &'static str),
    /// A sequence or map whose length is unknown before its items, which includes structs with a flattened
    /// field.
    Unsized,
    /// The type inspects the data before it knows what to read: it needs a self-describing format.
    SelfDescribing,
    /// It decodes to another value, or to none.
    Differs(String),
    /// An error of the type's own.
    Refused(String),
}

impl Unencodable {
    /// How to fix it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Unencodable::LeftOut(..) => {
                "remove `skip_serializing_if` from the field, and give an `Option` its `None`"
            }
            Unencodable::Unsized => {
                "name the fields in place of `#[serde(flatten)]`, and collect items of unknown number into \
                    a `Vec`"
            }
            Unencodable::SelfDescribing => {
                "give an enum its names (no `untagged`, no `tag` without `content`), and a value of any \
                 form (such as \
                 serde_json's `Value`) a type, or keep it as text"
            }
            Unencodable::Differs(_) | Unencodable::Refused(_) => {
                "have `Deserialize` read back what `Serialize` writes, all of it and in one order: no \
                 `#[serde(skip)]`, \
                 `with` only where nothing is lost, and a `BTreeMap` in place of a `HashMap`"
            }
        }
    }
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unencodable::LeftOut(of, field) => write!(
                f,
                "field `{field}` of `{of}` was left out (`skip_serializing_if`): in an encoding without \
                 names, the next field would be read in its place"
            ),
            Unencodable::Unsized => {
                f.write_str("the length of a part is unknown before it is written (`flatten`)")
            }
            Unencodable::SelfDescribing => {
                f.write_str("a part is decoded by the shape of the data (`untagged`, `tag`, `flatten`)")
            }
            Unencodable::Differs(how) => write!(f, "read back, it is another value: {how}"),
            Unencodable::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Unencodable {}

impl ser::Error for Unencodable {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Unencodable::Refused(message.to_string())
    }
}

impl From<postcard::Error> for Unencodable {
    fn from(error: postcard::Error) -> Self {
        match error {
            postcard::Error::WontImplement => Unencodable::SelfDescribing,
            other => Unencodable::Refused(other.to_string()),
        }
    }
}

/// Encodes a value, appending it.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let mut serializer = postcard::Serializer { output: Append(out) };
    value.serialize(Strict(&mut serializer))
}

/// Decodes a value from all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unencodable> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        (_, rest) => Err(Unencodable::Differs(format!(
            "{} of {} bytes are left over",
            rest.len(),
            bytes.len()
        ))),
    }
}

/// Decodes `bytes`, and verifies that encoding the value again yields them.
pub(crate) fn round_trip<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, Unencodable> {
    let value: T = decode(bytes)?;
    let mut serializer = postcard::Serializer {
        output: Expect { rest: bytes },
    };
    let differs = || Unencodable::Differs("it is written as other bytes".into());
    value.serialize(Strict(&mut serializer)).map_err(|_| differs())?;
    match serializer.output.rest {
        [] => Ok(value),
        _ => Err(differs()),
    }
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }
    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Compares with the expected bytes instead of writing.
struct Expect<'a> {
    rest: &'a [u8],
}

impl Flavor for Expect<'_> {
    type Output = ();
    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                Ok(())
            }
            _ => Err(postcard::Error::SerializeBufferFull),
        }
    }
    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Most parts are small numbers.
        if let [byte] = bytes {
            return self.try_push(*byte);
        }
        self.rest = self
            .rest
            .strip_prefix(bytes)
            .ok_or(postcard::Error::SerializeBufferFull)?;
        Ok(())
    }
    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// postcard's serializer, except that it leaves nothing out and reports why it fails.
struct Strict<'a, F: Flavor>(&'a mut postcard::Serializer<F>);

macro_rules! forward {
    ($($method:ident($ty:ty)),* $(,)?) => {
        $(#[inline]
        fn $method(self, value: $ty) -> Result<(), Unencodable> {
            Ok(ser::Serializer::$method(self.0, value)?)
        })*
    };
}

impl<'a, F: Flavor> Strict<'a, F> {
    #[inline]
    fn varint(&mut self, value: u64) -> Result<(), Unencodable> {
        Ok(ser::Serializer::serialize_u64(&mut *self.0, value)?)
    }

    #[inline]
    fn parts(self, of: &'static str) -> PartsSerializer<'a, F> {
        PartsSerializer { to: self.0, of }
    }

    #[inline]
    fn sized(mut self, len: Option<usize>) -> Result<PartsSerializer<'a, F>, Unencodable> {
        self.varint(len.ok_or(Unencodable::Unsized)? as u64)?;
        Ok(self.parts(""))
    }
}

impl<'a, F: Flavor> ser::Serializer for Strict<'a, F> {
    type Ok = ();
    type Error = Unencodable;
    type SerializeSeq = PartsSerializer<'a, F>;
    type SerializeTuple = PartsSerializer<'a, F>;
    type SerializeTupleStruct = PartsSerializer<'a, F>;
    type SerializeTupleVariant = PartsSerializer<'a, F>;
    type SerializeMap = PartsSerializer<'a, F>;
    type SerializeStruct = PartsSerializer<'a, F>;
    type SerializeStructVariant = PartsSerializer<'a, F>;

    forward! {
        serialize_bool(bool), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64), serialize_i128(i128),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_u128(u128),
        serialize_f32(f32), serialize_f64(f64),
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
    #[inline]
    fn serialize_none(self) -> Result<(), Unencodable> {
        self.serialize_u8(0)
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unencodable> {
        ser::Serializer::serialize_u8(&mut *self.0, 1)?;
        value.serialize(self)
    }
    #[inline]
    fn serialize_unit(self) -> Result<(), Unencodable> {
        Ok(())
    }
    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unencodable> {
        Ok(())
    }
    #[inline]
    fn serialize_unit_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<(), Unencodable> {
        self.varint(index.into())
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unencodable> {
        value.serialize(self)
    }
    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Unencodable> {
        self.varint(index.into())?;
        value.serialize(self)
    }
    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<PartsSerializer<'a, F>, Unencodable> {
        self.sized(len)
    }
    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<PartsSerializer<'a, F>, Unencodable> {
        Ok(self.parts(""))
    }
    #[inline]
    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<PartsSerializer<'a, F>, Unencodable> {
        Ok(self.parts(name))
    }
    #[inline]
    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<PartsSerializer<'a, F>, Unencodable> {
        self.varint(index.into())?;
        Ok(self.parts(variant))
    }
    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<PartsSerializer<'a, F>, Unencodable> {
        self.sized(len)
    }
    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<PartsSerializer<'a, F>, Unencodable> {
        Ok(self.parts(name))
    }
    #[inline]
    fn serialize_struct_variant(
        mut self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<PartsSerializer<'a, F>, Unencodable> {
        self.varint(index.into())?;
        Ok(self.parts(variant))
    }
}

/// Serializes the parts of a value.
struct PartsSerializer<'a, F: Flavor> {
    to: &'a mut postcard::Serializer<F>,
    /// The type or variant.
    of: &'static str,
}

impl<F: Flavor> PartsSerializer<'_, F> {
    #[inline]
    fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unencodable> {
        value.serialize(Strict(&mut *self.to))
    }
}

macro_rules! items {
    ($($part:ident $method:ident),*) => {
        $(impl<F: Flavor> ser::$part for PartsSerializer<'_, F> {
            type Ok = ();
            type Error = Unencodable;
            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unencodable> {
                self.put(value)
            }
            #[inline]
            fn end(self) -> Result<(), Unencodable> {
                Ok(())
            }
        })*
    };
}
items!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
);

macro_rules! fields {
    ($($part:ident),*) => {
        $(impl<F: Flavor> ser::$part for PartsSerializer<'_, F> {
            type Ok = ();
            type Error = Unencodable;
            #[inline]
            fn serialize_field<T>(&mut self, _: &'static str, value: &T) -> Result<(), Unencodable>
            where
                T: Serialize + ?Sized,
            {
                self.put(value)
            }
            fn skip_field(&mut self, field: &'static str) -> Result<(), Unencodable> {
                Err(Unencodable::LeftOut(self.of, field))
            }
            #[inline]
            fn end(self) -> Result<(), Unencodable> {
                Ok(())
            }
        })*
    };
}
fields!(SerializeStruct, SerializeStructVariant);

impl<F: Flavor> ser::SerializeMap for PartsSerializer<'_, F> {
    type Ok = ();
    type Error = Unencodable;
    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unencodable> {
        self.put(key)
    }
    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unencodable> {
        self.put(value)
    }
    #[inline]
    fn end(self) -> Result<(), Unencodable> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    /// A row whose second form decodes as another row, byte for byte, if `vip` is left out.
    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Customer {
        id: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vip: Option<u8>,
        level: u8,
        name: String,
    }

    fn bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, Unencodable> {
        let mut bytes = Vec::new();
        encode(value, &mut bytes).map(|()| bytes)
    }

    fn kept<T: Serialize + DeserializeOwned>(value: &T) -> Result<T, Unencodable> {
        round_trip(&bytes(value)?)
    }

    #[test]
    fn what_is_left_out_is_refused_by_its_name() {
        let customer = Customer {
            level: 1,
            name: "x\u{1}z".into(),
            ..Customer::default()
        };
        // Nothing in the bytes shows it: they are those of another row.
        let plain = postcard::to_stdvec(&customer).unwrap();
        let other: Customer = decode(&plain).unwrap();
        assert_ne!(other, customer);
        assert_eq!(postcard::to_stdvec(&other).unwrap(), plain);
        assert_eq!(bytes(&customer), Err(Unencodable::LeftOut("Customer", "vip")));
        // Also deep inside, and in a variant.
        #[derive(Serialize)]
        enum Event {
            Joined {
                #[serde(skip_serializing_if = "Vec::is_empty")]
                tags: Vec<u8>,
            },
        }
        let deep = vec![BTreeMap::from([(1, Some((Event::Joined { tags: vec![] }, 0)))])];
        assert_eq!(bytes(&deep), Err(Unencodable::LeftOut("Joined", "tags")));
        let vip = Customer {
            vip: Some(3),
            ..customer
        };
        assert_eq!(kept(&vip), Ok(vip));
    }

    #[test]
    fn what_is_not_read_as_it_was_written_is_refused() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Any {
            Number(u8),
            Text(String),
        }
        assert_eq!(kept(&Any::Number(1)), Err(Unencodable::SelfDescribing));
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            Number { value: u8 },
        }
        assert_eq!(
            kept(&Tagged::Number { value: 1 }),
            Err(Unencodable::SelfDescribing)
        );
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Flat {
            id: u8,
            #[serde(flatten)]
            more: Customer,
        }
        let flat = Flat {
            id: 1,
            more: Customer::default(),
        };
        assert_eq!(kept(&flat), Err(Unencodable::Unsized));
        /// Pairs as a map: equal keys are lost when they are read into a map.
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(from = "BTreeMap<u8, u8>")]
        struct Pairs(Vec<(u8, u8)>);
        impl From<BTreeMap<u8, u8>> for Pairs {
            fn from(map: BTreeMap<u8, u8>) -> Self {
                Self(map.into_iter().collect())
            }
        }
        impl Serialize for Pairs {
            fn serialize<S: ser::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_map(self.0.iter().copied())
            }
        }
        assert_eq!(
            kept(&Pairs(vec![(1, 2), (3, 4)])),
            Ok(Pairs(vec![(1, 2), (3, 4)]))
        );
        let twice = kept(&Pairs(vec![(1, 2), (1, 3)]));
        assert!(matches!(twice, Err(Unencodable::Differs(_))), "{twice:?}");
        /// Written as one type, read as another.
        #[derive(Debug, PartialEq, Deserialize)]
        struct Wide(u32);
        impl Serialize for Wide {
            fn serialize<S: ser::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_i32(self.0 as i32)
            }
        }
        assert!(matches!(kept(&Wide(7)), Err(Unencodable::Differs(_))));
        assert!(
            matches!(decode::<u8>(&[1, 2]), Err(Unencodable::Differs(_))),
            "bytes are left over"
        );
        #[derive(Debug, Serialize, Deserialize)]
        struct Says(#[serde(serialize_with = "never")] u8);
        fn never<S: ser::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
            Err(ser::Error::custom("no such price"))
        }
        assert_eq!(bytes(&Says(1)), Err(Unencodable::Refused("no such price".into())));
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Unit,
        New(i128),
        Tuple(u16, char),
        Struct { a: Option<f32>, b: BTreeMap<String, i8> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Wrapped(Vec<Kind>);

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Unit),
            any::<i128>().prop_map(Kind::New),
            any::<(u16, char)>().prop_map(|(a, b)| Kind::Tuple(a, b)),
            (
                any::<Option<f32>>(),
                prop::collection::btree_map(any::<String>(), any::<i8>(), 0..4)
            )
                .prop_map(|(a, b)| Kind::Struct { a, b }),
        ]
    }

    proptest! {
        /// Files written by earlier builds are read, and written, unchanged.
        #[test]
        fn bytes_are_those_of_postcard(
            kinds in prop::collection::vec(kind(), 0..4),
            numbers: (u8, i16, u32, i64, u128, f64, bool), text: String, unit: (), nested: Option<Option<u64>>,
        ) {
            let value = (Wrapped(kinds), numbers, text, unit, nested);
            let plain = postcard::to_stdvec(&value).unwrap();
            prop_assert_eq!(bytes(&value).unwrap(), plain);
            prop_assert_eq!(kept(&value), Ok(value));
        }
    }
}
