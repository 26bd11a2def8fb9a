//! [`SmallBytes`]: byte strings without an allocation if they are short, as most keys and values are.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Maximum inline length: it makes the struct 32 bytes large.
const INLINE_MAX: usize = 30;

/// An immutable byte string, inline up to 30 bytes. Ordered like slices.
#[derive(Clone)]
pub(crate) struct SmallBytes(Repr);

#[derive(Clone)]
enum Repr {
    Inline(u8, [u8; INLINE_MAX]),
    Heap(Box<[u8]>),
}

impl SmallBytes {
    /// A copy of these bytes.
    #[inline]
    pub(crate) fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_MAX {
            let mut inline = [0; INLINE_MAX];
            inline[..bytes.len()].copy_from_slice(bytes);
            Self(Repr::Inline(bytes.len() as u8, inline))
        } else {
            Self(Repr::Heap(bytes.into()))
        }
    }

    /// The concatenation of two byte strings.
    pub(crate) fn joined(first: &[u8], second: &[u8]) -> Self {
        let len = first.len() + second.len();
        if len > INLINE_MAX {
            return Self(Repr::Heap([first, second].concat().into()));
        }
        let mut inline = [0; INLINE_MAX];
        inline[..first.len()].copy_from_slice(first);
        inline[first.len()..len].copy_from_slice(second);
        Self(Repr::Inline(len as u8, inline))
    }
}

impl Deref for SmallBytes {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(len, bytes) => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for SmallBytes {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self
    }
}
impl PartialEq for SmallBytes {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for SmallBytes {}
impl Ord for SmallBytes {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(other)
    }
}
impl PartialOrd for SmallBytes {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Serialize for SmallBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}
impl<'de> Deserialize<'de> for SmallBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = SmallBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<SmallBytes, E> {
                Ok(SmallBytes::new(bytes))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}
impl fmt::Debug for SmallBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_ones_compare_as_slices() {
        assert_eq!(size_of::<SmallBytes>(), 32);
        assert_eq!(size_of::<Option<SmallBytes>>(), 32);
        let lens = [0, 1, 29, 30, 31, 100];
        for (a, b) in lens.iter().flat_map(|a| lens.map(|b| (*a, b))) {
            let (left, right) = (vec![7u8; a], vec![7u8; b]);
            let (small, other) = (SmallBytes::new(&left), SmallBytes::new(&right));
            assert_eq!(*small, *left);
            assert_eq!(small.cmp(&other), left.cmp(&right));
            assert_eq!(small.clone(), small);
        }
    }
}
