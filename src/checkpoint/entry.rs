//! What a checkpoint's files hold: entries, each a key with its value as of some epoch.
//!
//! ```text
//!   entry    flags · key length · key · epoch · [until] · [value length · value]      varints; until zigzag
//!   bucket   6 bits of XXH3 of the key's bytes: the same on every machine and for any number of workers
//! ```
//!
//! Keys and values are postcard's bytes of the Rust types. What is known of an entry without its types is enough to
//! merge files: of equal keys the newer wins, and one whose `until` has passed is gone.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::time::{Epoch, EventTime};
use crate::wire::{Input, put_bytes, put_i64, put_u64};

/// Into how many buckets the keys of a step are divided.
pub const BUCKETS: usize = 64;

/// The bucket of a key, by its bytes.
pub fn bucket_of(key: &[u8]) -> usize {
    (xxh3_64(key) >> 58) as usize
}

const HAS_VALUE: u8 = 1;
const HAS_UNTIL: u8 = 2;

/// An entry as it stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key's bytes.
    pub key: &'a [u8],
    /// When it became so.
    pub epoch: Epoch,
    /// The entry goes by itself once the step's [cut](crate::checkpoint::manifest::StepFiles::cut) reaches this.
    pub until: Option<EventTime>,
    /// The value's bytes; none: the key was removed.
    pub value: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    /// Adds it to `out`.
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

    /// Takes the first entry off `bytes`; `None`: they are not those of an entry.
    pub fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let mut input = Input(bytes);
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

/// A key or value as bytes.
///
/// # Errors
/// [`Definition`](crate::Kind::Definition): the type does not say how long its sequences are, so that it can't be written.
pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
    let room = std::mem::take(out);
    match postcard::to_extend(value, room) {
        Ok(bytes) => {
            *out = bytes;
            Ok(())
        }
        Err(error) => Err(unfit::<T>(&error)),
    }
}

/// A key or value from its bytes.
///
/// # Errors
/// [`Definition`](crate::Kind::Definition): the type doesn't read what it wrote.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| unfit::<T>(&error))
}

fn unfit<T>(error: &postcard::Error) -> Error {
    Error::definition(format!(
        "`{}` can't be kept in a checkpoint",
        std::any::type_name::<T>()
    ))
    .detail(error.to_string())
    .hint("serde attributes that need names in the data (`untagged`, `flatten`, `skip_serializing_if`) have no place in it")
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

    #[test]
    fn a_type_that_does_not_read_what_it_writes_is_named() {
        let mut bytes = Vec::new();
        encode(&serde_json::json!({"a": 1}), &mut bytes).unwrap();
        let error = decode::<serde_json::Value>(&bytes).unwrap_err();
        assert!(error.to_string().contains("serde_json::value::Value"), "{error}");
    }
}
