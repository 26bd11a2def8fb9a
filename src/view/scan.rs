//! Scans of a view's rows as of one epoch.
//!
//! ```text
//!  shard 0 bucket 0 ─ cursor, a few rows ahead ─┐
//!  shard 0 bucket 1 ─ cursor, a few rows ahead ─┼─ merge by key ─▶ side? holds? ─▶ page     ScanDirection::Forward, Backward
//!  …                                            ┘
//!  bucket after bucket ─▶ side? holds? ─▶ heap of the first limit + 1 in order ─▶ page      ScanDirection::Sort
//! ```
//!
//! The memory of a scan is that of its page, however many rows it scans; a sort reads each row once, and
//! decodes only rows of the page.
//!
//! A lock is held for at most one page of a bucket. Between pages rows may change, which is harmless:
//! versions above the epoch are ignored, and the floor is checked against the epoch at the end.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::schema::RowSchema;
use crate::schema::datum::Datum;
use crate::schema::small::SmallBytes;
use crate::time::{Epoch, EventTime};
use crate::view::plan::{ScanDirection, ScanPlan, StopReason};
use crate::view::rows::bucket_of;
use crate::view::rows::hash_of;
use crate::view::serve::{FoundRow, Page, PageCursor, ReadError};
use crate::view::shard::Shard;

/// Rows fetched at first, and at most, at a time.
const AHEAD: std::ops::RangeInclusive<usize> = 2..=64;

/// A bucket: its shard, and its index there.
pub(super) type BucketPlace = (Arc<Shard>, usize);

/// The scope of a scan: the buckets that can hold results, and the epoch.
pub(super) struct Scan<'a> {
    /// The rows' schema.
    pub schema: &'a RowSchema,
    /// The epoch read.
    pub at: Epoch,
    /// The view's watermark as of it.
    pub watermark: EventTime,
    /// The shards and their buckets to scan.
    pub buckets: Vec<BucketPlace>,
}

/// An encoded row as of the epoch read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredRow {
    /// Its encoded key.
    pub key: SmallBytes,
    /// When it last changed.
    pub version: Epoch,
    /// Its encoded value.
    pub value: SmallBytes,
}

/// Some encoded rows, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredPage {
    /// The rows.
    pub rows: Vec<StoredRow>,
    /// The key after which there may be more; `None` if these were the last rows.
    pub next: Option<SmallBytes>,
    /// How many rows were scanned.
    pub scanned: usize,
    /// See [`Page::cut_short`].
    pub cut_short: bool,
}

impl StoredRow {
    /// Whether it matches.
    pub(super) fn holds(&self, plan: &ScanPlan, schema: &RowSchema) -> bool {
        plan.holds(|at| schema.column(&self.key, &self.value, at))
    }
}

impl Scan<'_> {
    /// Executes a plan. `last` is the row of the plan's cursor, if the rows that are scanned do not contain
    /// it.
    pub(super) fn page(&self, plan: &ScanPlan, last: Option<StoredRow>) -> Result<StoredPage, ReadError> {
        if plan.nothing {
            return Ok(StoredPage::default());
        }
        let after = self.resume(plan)?;
        match plan.walk {
            ScanDirection::Forward => Ok(self.merge(plan, after, false)),
            ScanDirection::Backward => Ok(self.merge(plan, after, true)),
            ScanDirection::Sort => self.sort(plan, last.or_else(|| self.get(&after?))),
        }
    }

    /// The page for the client.
    pub(super) fn finish(&self, plan: &ScanPlan, page: StoredPage) -> Page {
        Page {
            rows: page.rows.iter().map(|stored| self.found(stored)).collect(),
            next: page.next.map(|last| self.next(plan, &last)),
            scanned: page.scanned,
            cut_short: page.cut_short,
        }
    }

    /// The key after which the page starts.
    pub(super) fn resume(&self, plan: &ScanPlan) -> Result<Option<SmallBytes>, ReadError> {
        let Some(cursor) = &plan.cursor else {
            return Ok(None);
        };
        let why = if cursor.epoch != self.at {
            format!(
                "the cursor belongs to epoch {}, this read is of {}",
                cursor.epoch, self.at
            )
        } else if cursor.query != plan.query {
            "the cursor belongs to a query with other filters, order or window".into()
        } else if self.schema.key_row(&cursor.key).is_none() {
            "the cursor belongs to another view".into()
        } else {
            return Ok(Some(SmallBytes::new(&cursor.key)));
        };
        Err(ReadError::Cursor { why })
    }

    fn next(&self, plan: &ScanPlan, last: &[u8]) -> String {
        let cursor = PageCursor {
            epoch: self.at,
            query: plan.query,
            key: last.to_vec(),
        };
        cursor.write()
    }

    /// The decoded row.
    pub(super) fn found(&self, stored: &StoredRow) -> FoundRow {
        let mut row = self.schema.key_row(&stored.key).unwrap_or_default();
        let closed = self.schema.is_windowed().then(|| match row.last() {
            Some(Datum::Time(end)) => *end <= self.watermark,
            _ => false,
        });
        let whole = self.schema.add_value(&stored.value, &mut row);
        debug_assert!(whole, "views decode their own encoding");
        FoundRow {
            row,
            version: stored.version,
            closed,
        }
    }

    fn merge(&self, plan: &ScanPlan, after: Option<SmallBytes>, reverse: bool) -> StoredPage {
        let start = match after {
            Some(key) => Bound::Excluded(key),
            None => plan.range.near(reverse).map(SmallBytes::new),
        };
        let ahead = match self.buckets.len() {
            1 => plan.limit.min(*AHEAD.end()),
            buckets => (plan.limit / buckets.max(1)).clamp(*AHEAD.start(), *AHEAD.end()),
        };
        let mut heads = BinaryHeap::new();
        for (shard, bucket) in &self.buckets {
            let walker = BucketWalk {
                shard,
                bucket: *bucket,
                next: Some(start.clone()),
                rows: VecDeque::new(),
                ahead,
            };
            heads.extend(BucketHead::of(walker, self.at, reverse));
        }

        let (mut rows, mut scanned) = (Vec::<StoredRow>::new(), 0);
        while let Some(mut head) = heads.pop() {
            let stored = match head.walker.advance(self.at, reverse) {
                Some(next) => {
                    let taken = std::mem::replace(&mut head.row, next);
                    heads.push(head);
                    taken
                }
                None => head.row,
            };
            if plan.range.is_past(&stored.key, reverse) {
                break;
            }
            scanned += 1;
            if stored.holds(plan, self.schema) {
                if rows.len() == plan.limit {
                    return StoredPage {
                        next: rows.last().map(|last| last.key.clone()),
                        rows,
                        scanned,
                        cut_short: false,
                    };
                }
                rows.push(stored);
            } else if plan.enough(scanned).is_some() {
                // What was found is worth returning, even if it is nothing so far: the next page continues
                // from here.
                return StoredPage {
                    rows,
                    next: Some(stored.key),
                    scanned,
                    cut_short: true,
                };
            }
        }
        StoredPage {
            rows,
            next: None,
            scanned,
            cut_short: false,
        }
    }

    fn sort(&self, plan: &ScanPlan, after: Option<StoredRow>) -> Result<StoredPage, ReadError> {
        let mut best = TopRows {
            plan,
            after: after.map(|stored| self.ranked(plan, stored)),
            heap: BinaryHeap::new(),
            more: false,
        };
        let mut scanned = 0;
        for (shard, bucket) in &self.buckets {
            let mut walker = BucketWalk {
                shard,
                bucket: *bucket,
                next: Some(plan.range.near(false).map(SmallBytes::new)),
                rows: VecDeque::new(),
                // Few at first: if the key excludes rows, a bucket may have just one match.
                ahead: *AHEAD.start(),
            };
            // The newest closed window so far of the current key.
            let mut newest: Option<StoredRow> = None;
            while let Some(stored) = walker.advance(self.at, false) {
                if plan.range.is_past(&stored.key, false) {
                    break;
                }
                match plan.enough(scanned) {
                    Some(StopReason::Rows) => return Err(plan.too_much(None)),
                    Some(StopReason::Time) => return Err(ReadError::TooLong),
                    None => scanned += 1,
                }
                let Some(until) = plan.newest_until else {
                    self.offer(&mut best, stored);
                    continue;
                };
                if newest
                    .as_ref()
                    .is_some_and(|newest| !self.same_key(newest, &stored))
                {
                    newest
                        .take()
                        .into_iter()
                        .for_each(|newest| self.offer(&mut best, newest));
                }
                if self.window_end(&stored).is_some_and(|end| end <= until) {
                    newest = Some(stored);
                }
            }
            newest
                .into_iter()
                .for_each(|newest| self.offer(&mut best, newest));
        }
        let TopRows { heap, more, .. } = best;
        let sorted = heap.into_sorted_vec();
        let last = sorted.last().filter(|_| more);
        Ok(StoredPage {
            next: last.map(|last| last.stored.key.clone()),
            rows: sorted.into_iter().map(|ranked| ranked.stored).collect(),
            scanned,
            cut_short: false,
        })
    }

    fn ranked<'p>(&self, plan: &'p ScanPlan, stored: StoredRow) -> RankedRow<'p> {
        let column = |(at, _): &(usize, bool)| self.schema.column(&stored.key, &stored.value, *at);
        RankedRow {
            by: plan.order.iter().map(column).collect(),
            stored,
            plan,
        }
    }

    /// Combines the pages that several processes have found for the same plan.
    pub(super) fn combine(&self, plan: &ScanPlan, pages: Vec<StoredPage>) -> StoredPage {
        let scanned = pages.iter().map(|page| page.scanned).sum();
        let mut ends: Vec<SmallBytes> = pages.iter().filter_map(|page| page.next.clone()).collect();
        let rows = pages.into_iter().flat_map(|page| page.rows);
        let reverse = match plan.walk {
            ScanDirection::Sort => {
                let mut ranked: Vec<_> = rows.map(|stored| self.ranked(plan, stored)).collect();
                ranked.sort_unstable();
                let more = ranked.len() > plan.limit || !ends.is_empty();
                ranked.truncate(plan.limit);
                let last = ranked.last().filter(|_| more);
                return StoredPage {
                    next: last.map(|last| last.stored.key.clone()),
                    rows: ranked.into_iter().map(|ranked| ranked.stored).collect(),
                    scanned,
                    cut_short: false,
                };
            }
            ScanDirection::Forward => false,
            ScanDirection::Backward => true,
        };
        let in_order = |a: &[u8], b: &[u8]| if reverse { b.cmp(a) } else { a.cmp(b) };
        ends.sort_unstable_by(|a, b| in_order(a, b));
        // Nobody knows yet what lies beyond the first place where a page ends.
        let end = ends.into_iter().next();
        let known = |row: &StoredRow| end.as_ref().is_none_or(|end| in_order(&row.key, end).is_le());
        let mut rows: Vec<StoredRow> = rows.filter(known).collect();
        rows.sort_unstable_by(|a, b| in_order(&a.key, &b.key));
        let more = rows.len() > plan.limit;
        rows.truncate(plan.limit);
        StoredPage {
            cut_short: end.is_some() && rows.len() < plan.limit,
            next: if more {
                rows.last().map(|last| last.key.clone())
            } else {
                end
            },
            rows,
            scanned,
        }
    }

    fn offer(&self, best: &mut TopRows<'_>, stored: StoredRow) {
        if stored.holds(best.plan, self.schema) {
            best.offer(self.ranked(best.plan, stored));
        }
    }

    /// The row of a key, if it is in one of the scanned buckets.
    pub(super) fn get(&self, key: &[u8]) -> Option<StoredRow> {
        let hash = hash_of(self.schema.without_window(key));
        let at = bucket_of(hash);
        let places = self.buckets.iter().filter(|(_, bucket)| *bucket == at);
        places.into_iter().find_map(|(shard, bucket)| {
            let bucket = shard.buckets[*bucket].read();
            let (version, value) = bucket.rows.get(hash, key)?.as_of(self.at)?;
            Some(StoredRow {
                key: SmallBytes::new(key),
                version,
                value: value.clone(),
            })
        })
    }

    fn window_end(&self, stored: &StoredRow) -> Option<EventTime> {
        match self.schema.column(&stored.key, &[], self.schema.key.len() - 1)? {
            Datum::Time(end) => Some(end),
            _ => None,
        }
    }

    fn same_key(&self, a: &StoredRow, b: &StoredRow) -> bool {
        self.schema.without_window(&a.key) == self.schema.without_window(&b.key)
    }
}

/// An iteration over one bucket.
struct BucketWalk<'a> {
    shard: &'a Shard,
    bucket: usize,
    /// Where the next page starts; `None` at the end.
    next: Option<Bound<SmallBytes>>,
    rows: VecDeque<StoredRow>,
    ahead: usize,
}

impl BucketWalk<'_> {
    fn advance(&mut self, at: Epoch, reverse: bool) -> Option<StoredRow> {
        while self.rows.is_empty() {
            let start = self.next.take()?;
            let rows = &mut self.rows;
            let start = start.as_ref().map(|key| &**key);
            let last = self
                .shard
                .visit(self.bucket, start, reverse, self.ahead, &mut |key, row| {
                    if let Some((version, value)) = row.as_of(at) {
                        let (key, value) = (key.clone(), value.clone());
                        rows.push_back(StoredRow { key, version, value });
                    }
                });
            self.next = last.map(Bound::Excluded);
            self.ahead = (self.ahead * 2).min(*AHEAD.end());
        }
        self.rows.pop_front()
    }
}

/// A bucket's iteration and its first row; the greatest head is the one whose row comes first.
struct BucketHead<'a> {
    row: StoredRow,
    walker: BucketWalk<'a>,
    reverse: bool,
}

impl<'a> BucketHead<'a> {
    fn of(mut walker: BucketWalk<'a>, at: Epoch, reverse: bool) -> Option<Self> {
        Some(Self {
            row: walker.advance(at, reverse)?,
            walker,
            reverse,
        })
    }
}

impl Ord for BucketHead<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ordering = self.row.key.cmp(&other.row.key);
        if self.reverse {
            ordering
        } else {
            ordering.reverse()
        }
    }
}
impl PartialOrd for BucketHead<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for BucketHead<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for BucketHead<'_> {}

/// A row and its rank in the requested order; the greatest comes last.
struct RankedRow<'p> {
    stored: StoredRow,
    /// The columns to order by.
    by: Vec<Option<Datum>>,
    plan: &'p ScanPlan,
}

impl Ord for RankedRow<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let columns = self.by.iter().zip(&other.by).zip(&self.plan.order);
        let mut orderings = columns.map(|((a, b), (_, descending))| match descending {
            true => b.cmp(a),
            false => a.cmp(b),
        });
        let ordering = orderings.find(|ordering| ordering.is_ne());
        ordering.unwrap_or(Ordering::Equal).then_with(|| {
            let ties = self.stored.key.cmp(&other.stored.key);
            if self.plan.ties_descending {
                ties.reverse()
            } else {
                ties
            }
        })
    }
}
impl PartialOrd for RankedRow<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for RankedRow<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for RankedRow<'_> {}

/// The first `limit` rows in order, of those after the cursor.
struct TopRows<'p> {
    plan: &'p ScanPlan,
    after: Option<RankedRow<'p>>,
    heap: BinaryHeap<RankedRow<'p>>,
    more: bool,
}

impl<'p> TopRows<'p> {
    fn offer(&mut self, ranked: RankedRow<'p>) {
        if self.after.as_ref().is_some_and(|after| ranked <= *after) {
            return;
        }
        self.heap.push(ranked);
        if self.heap.len() > self.plan.limit {
            self.heap.pop();
            self.more = true;
        }
    }
}
