//! Hashes of changes, to compare runs and processes: alike in any order and on every machine.
//!
//! An epoch's hash is the wrapping sum over its changes of XXH3 of the change's postcard form (key, old, new). Two runs
//! of one ledger must give the same sums for every view and epoch, on any number of workers (add up the processes').

use std::io::Write;

use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::record::{Change, Record};
use crate::wire::positional;

/// The hash of one change: of its text for debugging where bytes without names can't hold the row. `buffer` is used, and
/// empty afterwards: what it holds of memory serves the next one.
pub fn change_hash<K: Record, V: Record>(change: &Change<K, V>, buffer: &mut Vec<u8>) -> u64 {
    #[derive(Debug, Serialize)]
    struct Form<'a, K, V>(&'a K, &'a Option<V>, &'a Option<V>);
    let form = Form(&change.key, &change.old, &change.new);
    if positional::encode(&form, buffer).is_err() {
        buffer.clear();
        // A Vec takes everything.
        _ = write!(buffer, "{form:?}");
    }
    let hash = xxh3_64(buffer);
    buffer.clear();
    hash
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

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

    #[test]
    fn rows_that_have_no_bytes_without_names_are_told_apart_too() {
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        struct Row {
            #[serde(skip_serializing_if = "Option::is_none")]
            a: Option<u8>,
            b: u8,
            text: String,
        }
        let hash = |a, b, text: &str| {
            let text = text.to_owned();
            let new = Some(Row { a, b, text });
            change_hash(
                &Change {
                    key: 0u8,
                    old: None,
                    new,
                },
                &mut Vec::new(),
            )
        };
        assert_ne!(hash(None, 1, "x\u{1}z"), hash(Some(3), b'x', "z"));
        assert_ne!(hash(None, 1, ""), hash(None, 2, ""));
        assert_eq!(hash(None, 1, ""), hash(None, 1, ""));
    }
}
