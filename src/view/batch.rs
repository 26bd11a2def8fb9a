//! Batches of encoded row changes.
//!
//! ```text
//!  bytes    key │ value │ 1 │ length of key ║ key │ 0 │ length of key ║ …      what is hashed of a change, as it stands
//!  changes  hash of the key, and where its parts are                         in the order in which they came
//!  order    changes of bucket 0 │ of bucket 1 │ …                            each bucket's in that order, too
//! ```
//!
//! Sorting a batch by bucket only moves indices.

use std::ops::Range;

use crate::schema::RowSchema;
use crate::view::hash::{change_hash, end_change};
use crate::view::rows::{BUCKETS, bucket_of, hash_of};

/// Changes per batch: a thousand per bucket, so that the bucket's rows stay in a processor's cache.
const CHANGES_MAX: usize = 1 << 16;

/// A batch of large rows ends after this many bytes.
const BYTES_MAX: usize = 1 << 23;

/// Capacity that is always kept.
const BYTES_KEPT: usize = 1 << 16;

/// Encoded changes.
#[derive(Default)]
pub(crate) struct ChangeBatch {
    bytes: Vec<u8>,
    changes: Vec<ChangeParts>,
    /// Indices of `changes`, sorted by bucket.
    order: Vec<u32>,
}

/// The positions of a change's parts.
struct ChangeParts {
    /// The hash of the key without its window.
    hash: u64,
    key: usize,
    value: usize,
    /// The end of the value, which the change's suffix follows.
    end: usize,
}

/// A change of a row.
pub(crate) struct EncodedChange<'a> {
    pub(crate) key: &'a [u8],
    /// The hash of the key without its window.
    pub(crate) hash: u64,
    /// The new value; `None` if the row was deleted.
    pub(crate) new: Option<&'a [u8]>,
}

impl ChangeBatch {
    /// Whether it should be applied before more changes are added.
    pub(crate) fn is_full(&self) -> bool {
        self.changes.len() >= CHANGES_MAX || self.bytes.len() >= BYTES_MAX
    }

    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(crate) fn clear(&mut self) {
        // Capacity follows use: the needs of one large epoch are not kept forever.
        let (bytes, changes) = (self.bytes.len(), self.changes.len());
        self.bytes.clear();
        self.changes.clear();
        self.order.clear();
        self.bytes.shrink_to((4 * bytes).max(BYTES_KEPT));
        self.changes.shrink_to((4 * changes).max(BYTES_KEPT / 64));
        self.order.shrink_to((4 * changes).max(BYTES_KEPT / 64));
    }

    /// The buffer to encode a change into: first its key, then its value.
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds the change that was encoded; its key and value start at these positions of
    /// [`bytes`](Self::bytes).
    pub(crate) fn push(&mut self, schema: &RowSchema, key: usize, value: usize, is_there: bool) {
        let hash = hash_of(schema.without_window(&self.bytes[key..value]));
        let end = self.bytes.len();
        self.changes.push(ChangeParts {
            hash,
            key,
            value,
            end,
        });
        end_change(&mut self.bytes, value - key, is_there);
    }

    /// The sum of the hashes of all changes.
    pub(crate) fn hash(&self) -> u64 {
        let nexts = self.changes.iter().skip(1).map(|next| next.key);
        let ends = nexts.chain([self.bytes.len()]);
        let hashes = self
            .changes
            .iter()
            .zip(ends)
            .map(|(change, end)| change_hash(&self.bytes[change.key..end]));
        hashes.fold(0, u64::wrapping_add)
    }

    /// Sorts the changes by bucket. Returns the range of each bucket, for [`at`](Self::at).
    pub(crate) fn sort(&mut self) -> [Range<usize>; BUCKETS] {
        let mut next = [0; BUCKETS];
        for change in &self.changes {
            next[bucket_of(change.hash)] += 1;
        }
        let mut end = 0;
        let ranges = next.map(|len| {
            let start = end;
            end += len;
            start..end
        });
        let mut next = ranges.each_ref().map(|range| range.start);
        self.order.resize(self.changes.len(), 0);
        for (index, change) in (0..).zip(&self.changes) {
            let place = &mut next[bucket_of(change.hash)];
            self.order[*place] = index;
            *place += 1;
        }
        ranges
    }

    /// A range of the sorted changes.
    pub(crate) fn at(&self, range: Range<usize>) -> impl Iterator<Item = EncodedChange<'_>> {
        self.order[range].iter().map(|index| {
            let ChangeParts {
                hash,
                key,
                value,
                end,
            } = self.changes[*index as usize];
            EncodedChange {
                key: &self.bytes[key..value],
                hash,
                new: (self.bytes[end] == 1).then(|| &self.bytes[value..end]),
            }
        })
    }
}
