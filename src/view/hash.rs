//! Hashes of changes, to compare runs and processes: independent of order and machine.
//!
//! An epoch's hash is the wrapping sum over its changes of XXH3 of the row's encoding after the change: the
//! key, the value if any, a byte that tells whether there is one, and the key's length in four bytes. The row
//! before the change is determined by earlier epochs. Two runs of one ledger must have the same sums for
//! every view and epoch, on any number of workers (add up those of all processes).

use xxhash_rust::xxh3::xxh3_64;

/// Appends the suffix that follows the key and the value of a change.
pub(crate) fn end_change(change: &mut Vec<u8>, key_len: usize, is_there: bool) {
    change.push(is_there.into());
    // Longer keys are distinguished by the bytes themselves.
    change.extend_from_slice(&(key_len as u32).to_le_bytes());
}

/// The hash of one change with its suffix.
pub(crate) fn change_hash(change: &[u8]) -> u64 {
    xxh3_64(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_changes_apart_and_is_the_same_everywhere() {
        let change = |key: &[u8], value: Option<&[u8]>| {
            let mut change = [key, value.unwrap_or_default()].concat();
            end_change(&mut change, key.len(), value.is_some());
            change_hash(&change)
        };
        assert_ne!(change(b"a", Some(b"b")), change(b"ab", Some(b"")));
        assert_ne!(change(b"a", Some(b"")), change(b"a", None));
        assert_ne!(change(b"a", Some(b"x")), change(b"b", Some(b"x")));
        assert_eq!(change(b"a", Some(b"x")), xxh3_64(&[b'a', b'x', 1, 1, 0, 0, 0]));
    }
}
