//! Hashes of changes, to compare runs and processes: alike in any order and on every machine.
//!
//! An epoch's hash is the wrapping sum over its changes of XXH3 of the change's postcard form (key, old, new). Two runs
//! of one ledger must give the same sums for every view and epoch, on any number of workers (add up the processes').

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::record::{Change, Record};

/// The hash of one change. Only rows that postcard can't write (sequences of unknown length) give less than all. `buffer` is
/// used, and empty afterwards: what it holds of memory serves the next one.
pub fn change_hash<K: Record, V: Record>(change: &Change<K, V>, buffer: &mut Vec<u8>) -> u64 {
    #[derive(Serialize)]
    struct Form<'a, K, V>(&'a K, &'a Option<V>, &'a Option<V>);
    let form = Form(&change.key, &change.old, &change.new);
    let Ok(bytes) = postcard::to_extend(&form, std::mem::take(buffer)) else {
        return 0;
    };
    *buffer = bytes;
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
        let mut change = |key: u32, old: Option<i64>, new: Option<i64>| {
            change_hash(&Change { key, old, new }, &mut buffer)
        };
        assert_ne!(change(1, None, Some(2)), change(1, Some(2), None));
        assert_ne!(change(1, None, Some(2)), change(2, None, Some(2)));
        assert_eq!(change(1, None, Some(2)), xxh3_64(&[1, 0, 1, 4]));
    }
}
