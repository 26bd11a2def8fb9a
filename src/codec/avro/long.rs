//! Numbers as Avro writes ints and longs: zigzag, seven bits a byte.

use crate::wire::put_i64;

/// Takes a number off `bytes`; `None` if there is none, or one of too many bits.
#[inline]
pub(super) fn take_long(bytes: &mut &[u8]) -> Option<i64> {
    let (&first, rest) = bytes.split_first()?;
    if first & 0x80 == 0 {
        *bytes = rest;
        return Some(i64::from(first >> 1) ^ -i64::from(first & 1));
    }
    take_several(bytes)
}

fn take_several(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte has room for one bit.
        if index == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Appends a number.
pub(super) fn write_long(value: i64, out: &mut Vec<u8>) {
    put_i64(out, value);
}
