//! Hashes of changes, to compare runs and processes: alike in any order and on every machine.
//!
//! An epoch's hash is the wrapping sum over its changes of XXH3 of the row's encoding after the change: the
//! length of the key, the key, and the value with a byte before it that says whether there is one. What the
//! row was before is what earlier epochs made of it. Two runs of one ledger must give the same sums for every
//! view and epoch, on any number of workers (add up the processes').

use xxhash_rust::xxh3::xxh3_64;

use crate::wire::put_bytes;

/// The hash of one change. `buffer` is used, and empty afterwards: what it holds of memory serves the next
/// one.
pub(crate) fn change_hash(key: &[u8], value: Option<&[u8]>, buffer: &mut Vec<u8>) -> u64 {
    put_bytes(buffer, key);
    buffer.push(value.is_some().into());
    buffer.extend_from_slice(value.unwrap_or_default());
    let hash = xxh3_64(buffer);
    buffer.clear();
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_changes_apart_and_is_the_same_everywhere() {
        let mut buffer = Vec::new();
        let mut change = |key: &[u8], value: Option<&[u8]>| change_hash(key, value, &mut buffer);
        assert_ne!(change(b"a", Some(b"b")), change(b"ab", Some(b"")));
        assert_ne!(change(b"a", Some(b"")), change(b"a", None));
        assert_ne!(change(b"a", Some(b"x")), change(b"b", Some(b"x")));
        assert_eq!(change(b"a", Some(b"x")), xxh3_64(&[1, b'a', 1, b'x']));
    }
}
