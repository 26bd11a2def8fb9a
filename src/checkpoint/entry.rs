//! The entries of checkpoint files: keys, each with its value as of some epoch.
//!
//! ```text
//!   entry    flags · key length · key · epoch · [until] · [value length · value]      varints; until zigzag
//!   bucket   6 bits of XXH3 of the key's bytes: the same on every machine and for any number of workers
//! ```
//!
//! Keys and values are the postcard encoding of Rust types, verified by reading them back. Files can be
//! merged without knowing the types: of equal keys the newer entry wins, and entries whose `until` has passed
//! are dropped.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::record::{Event, Record};
use crate::schema::trace::samples;
use crate::time::{Epoch, EventTime};
use crate::wire::positional::{self, Unencodable};
use crate::wire::{ByteInput, put_bytes, put_i64, put_u64};

/// Number of buckets that the keys of a step are divided into.
pub const BUCKETS: usize = 64;

/// The bucket of an encoded key.
pub(crate) fn bucket_of(key: &[u8]) -> usize {
    (xxh3_64(key) >> 58) as usize
}

/// Whether an encoding without names can hold a `T`, as far as that can be told without a value.
pub(crate) fn fits<T: Event>() -> std::result::Result<(), Unencodable> {
    let samples = samples::<T>();
    if samples.self_describing {
        return Err(Unencodable::SelfDescribing);
    }
    samples.values.iter().try_for_each(|value| {
        let mut bytes = Vec::new();
        positional::encode(value, &mut bytes)?;
        positional::round_trip::<T>(&bytes).map(drop)
    })
}

const HAS_VALUE: u8 = 1;
const HAS_UNTIL: u8 = 2;

/// An entry as stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The encoded key.
    pub key: &'a [u8],
    /// The epoch of the change.
    pub epoch: Epoch,
    /// The entry expires once the step's [cut](crate::checkpoint::manifest::StepFiles::cut) reaches this.
    pub until: Option<EventTime>,
    /// The encoded value; `None` if the key was removed.
    pub value: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// Appends it to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        out.push(flag(self.value.is_some(), HAS_VALUE) | flag(self.until.is_some(), HAS_UNTIL));
        put_bytes(out, self.key);
        put_u64(out, self.epoch.0);
        if let Some(until) = self.until {
            put_i64(out, until.0);
        }
        if let Some(value) = self.value {
            put_bytes(out, value);
        }
    }

    /// Takes the first entry off `bytes`; `None` if they are not valid.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let mut input = ByteInput(bytes);
        let flags = input.byte()?;
        let key = input.prefixed()?;
        let epoch = Epoch(input.u64()?);
        let until = match flags & HAS_UNTIL != 0 {
            true => Some(EventTime(input.i64()?)),
            false => None,
        };
        let value = match flags & HAS_VALUE != 0 {
            true => Some(input.prefixed()?),
            false => None,
        };
        *bytes = input.0;
        (flags & !(HAS_VALUE | HAS_UNTIL) == 0).then_some(Self {
            key,
            epoch,
            until,
            value,
        })
    }
}

/// Encodes state, and verifies that decoding and encoding it again yields the same bytes.
///
/// # Errors
/// [`Definition`](crate::Kind::Definition): a part of it was left out, or cannot be read back.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(state: &T, out: &mut Vec<u8>) -> Result<()> {
    let read = positional::encode(state, out).and_then(|()| positional::round_trip::<T>(out));
    read.map(drop).map_err(|why| unfit::<T>(&why))
}

/// Encodes a key or a row, and verifies that decoding yields an equal value.
///
/// # Errors
/// Those of [`encode`], and if decoding yields another key or row.
pub(crate) fn encode_record<T: Record>(record: &T, out: &mut Vec<u8>) -> Result<()> {
    let read = positional::encode(record, out).and_then(|()| positional::round_trip::<T>(out));
    let same = read.and_then(|read| match read == *record {
        true => Ok(()),
        false => Err(Unencodable::Differs(
            "it does not equal the value that was written".into(),
        )),
    });
    same.map_err(|why| unfit::<T>(&why))
}

/// Decodes a key or value.
///
/// # Errors
/// [`Definition`](crate::Kind::Definition): the type reads the bytes differently than the type that wrote
/// them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    positional::decode(bytes).map_err(|why| unreadable::<T>(&why))
}

/// Decodes a key, which must have a single encoding: entries are looked up by their bytes.
///
/// # Errors
/// Those of [`decode`], and if the key is now encoded as other bytes.
pub(crate) fn decode_key<K: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<K> {
    positional::round_trip(bytes).map_err(|why| unreadable::<K>(&why))
}

fn unfit<T>(why: &Unencodable) -> Error {
    let name = std::any::type_name::<T>();
    Error::definition(format!("`{name}` can't be kept in a checkpoint"))
        .detail(why)
        .hint(why.hint())
}

fn unreadable<T>(why: &Unencodable) -> Error {
    let name = std::any::type_name::<T>();
    Error::definition(format!("a checkpoint holds a value that `{name}` cannot read"))
        .detail(why)
        .hint(
            "the type changed in a way that its structure does not show: run the program that wrote it, \
             or declare another `version` of the step and rebuild all state: --set \
             checkpoint.on_new_plan=rebuild",
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_back(entries in prop::collection::vec(
            (any::<Vec<u8>>(), any::<u64>(), any::<Option<i64>>(), any::<Option<Vec<u8>>>()), 0..5)) {
            let entry = |(key, epoch, until, value): &'_ (Vec<u8>, u64, Option<i64>, Option<Vec<u8>>)| {
                (key.clone(), Epoch(*epoch), until.map(EventTime), value.clone())
            };
            let mut bytes = Vec::new();
            for (key, epoch, until, value) in entries.iter().map(entry) {
                Entry { key: &key, epoch, until, value: value.as_deref() }.write(&mut bytes);
            }
            let mut rest = bytes.as_slice();
            for (key, epoch, until, value) in entries.iter().map(entry) {
                let read = Entry::read(&mut rest);
                prop_assert_eq!(read, Some(Entry { key: &key, epoch, until, value: value.as_deref() }));
            }
            prop_assert!(rest.is_empty());
            for len in 0..bytes.len() {
                let mut part = &bytes[..len];
                while !part.is_empty() && Entry::read(&mut part).is_some() {}
            }
        }
    }

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
    struct Row {
        id: u8,
        #[serde(skip)]
        seen: u8,
        #[serde(serialize_with = "in_tens")]
        price: u32,
    }

    fn in_tens<S: serde::Serializer>(price: &u32, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_u32(price / 10 * 10)
    }

    #[test]
    fn what_would_be_read_back_otherwise_is_not_written() {
        let mut bytes = Vec::new();
        let error = encode(&serde_json::json!({"a": 1}), &mut bytes)
            .unwrap_err()
            .to_string();
        assert!(error.contains("serde_json::value::Value"), "{error}");
        assert!(error.contains("hint: give an enum its names"), "{error}");
        let row = |seen, price| Row { id: 1, seen, price };
        let kept = |row| encode_record(&row, &mut Vec::new());
        assert!(kept(row(0, 30)).is_ok());
        for lost in [row(1, 30), row(0, 33)] {
            let error = kept(lost).unwrap_err().to_string();
            assert!(error.contains("Row` can't be kept in a checkpoint"), "{error}");
            assert!(error.contains("read back, it is another value"), "{error}");
        }
        // State that cannot be compared must at least encode to the same bytes.
        let map = |n: u64| {
            (0..n)
                .map(|n| (n, n))
                .collect::<std::collections::HashMap<_, _>>()
        };
        assert!(encode(&map(1), &mut Vec::new()).is_ok());
        assert!(encode(&map(100), &mut Vec::new()).is_err());
    }

    /// A key has one encoding, by which changes and removals find it; an outdated encoding is not accepted.
    #[test]
    fn a_key_that_is_written_otherwise_now_is_refused() {
        use crate::record::F64;
        let (old, new) = ((-0.0f64).to_le_bytes(), 0.0f64.to_le_bytes());
        assert_eq!(decode_key::<F64>(&new).unwrap(), F64::new(0.0));
        assert_eq!(
            decode::<F64>(&old).unwrap(),
            F64::new(0.0),
            "as a value it does no harm"
        );
        let error = decode_key::<F64>(&old).unwrap_err().to_string();
        assert!(error.contains("checkpoint.on_new_plan=rebuild"), "{error}");
    }
}
