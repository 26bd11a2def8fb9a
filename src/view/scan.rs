//! Walks over the rows of a view as of one epoch.
//!
//! ```text
//!  shard 0 bucket 0 ─ cursor, a few rows ahead ─┐
//!  shard 0 bucket 1 ─ cursor, a few rows ahead ─┼─ merge by key ─▶ side? holds? ─▶ page     Walk::Forward, Backward
//!  …                                            ┘
//!  bucket after bucket ─▶ side? holds? ─▶ heap of the first limit + 1 in order ─▶ page      Walk::Sort
//! ```
//!
//! The memory of a scan is that of its page, whatever it looks at; a sort looks at each row once, and makes an answer's row
//! only of those that are in the page.
//!
//! A lock is held for one page of a bucket at most. Between pages rows may change, which does not matter: versions
//! above the epoch are not looked at, and whether the floor has passed the epoch is checked when all is done.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use crate::record::{Record, route};
use crate::time::{Epoch, EventTime};
use crate::view::build::{Fill, build};
use crate::view::datum::Datum;
use crate::view::layout::{Layout, compare};
use crate::view::plan::{Enough, Looks, Plan, Walk};
use crate::view::serve::{Cursor, FoundRow, Page, ReadError};
use crate::view::shard::Shard;
use crate::wire::positional;

/// Rows that a cursor takes at first, and at most.
const AHEAD: std::ops::RangeInclusive<usize> = 2..=64;

/// A bucket: its shard and its number there.
pub type Place<K, V> = (Arc<Shard<K, V>>, usize);

/// What is scanned: the buckets that can hold an answer, and as of when.
pub struct Scan<'a, K, V> {
    /// The rows' layout.
    pub layout: &'a Layout,
    /// The epoch read.
    pub at: Epoch,
    /// The view's watermark there.
    pub watermark: EventTime,
    /// Shards and the buckets in them.
    pub buckets: Vec<Place<K, V>>,
}

/// A row that was met.
struct Met<K, V> {
    key: K,
    version: Epoch,
    value: V,
    /// The fields that the plan looks at; null stands for the others.
    row: Vec<Datum>,
}

impl<K: Record, V: Record> Scan<'_, K, V> {
    /// Answers a plan.
    pub fn page(&self, plan: &Plan) -> Result<Page, ReadError> {
        if plan.nothing {
            return Ok(Page {
                rows: Vec::new(),
                next: None,
                scanned: 0,
                cut_short: false,
            });
        }
        let after = plan
            .cursor
            .as_ref()
            .map(|cursor| self.resume(plan, cursor))
            .transpose()?;
        match plan.walk {
            Walk::Forward => self.merge(plan, after, false),
            Walk::Backward => match plan
                .bound(true)
                .map(|fields| self.key_of(&fields, Fill::Greatest))
            {
                // There is a bound, but no key can be made of it.
                Some(None) => self.sort(plan, after),
                _ => self.merge(plan, after, true),
            },
            Walk::Sort => self.sort(plan, after),
        }
    }

    fn resume(&self, plan: &Plan, cursor: &Cursor) -> Result<K, ReadError> {
        let why = if cursor.epoch != self.at {
            format!(
                "the cursor belongs to epoch {}, and this reads {}",
                cursor.epoch, self.at
            )
        } else if cursor.query != plan.query {
            "the cursor belongs to a query with other filters, order or window".into()
        } else {
            match positional::decode(&cursor.key) {
                Ok(key) => return Ok(key),
                Err(_) => "the cursor belongs to another view".into(),
            }
        };
        Err(ReadError::Cursor { why })
    }

    /// The cursor behind a row's key: from its bytes the next page has to find that very key again.
    fn next(&self, plan: &Plan, last: &K) -> Result<String, ReadError> {
        let mut key = Vec::new();
        let written = positional::encode(last, &mut key).and_then(|()| positional::decode::<K>(&key));
        match written {
            Ok(read) if read == *last => Ok(Cursor {
                epoch: self.at,
                query: plan.query,
                key,
            }
            .write()),
            Ok(_) => Err(ReadError::NoCursor {
                why: "its key is read back as another one".into(),
            }),
            Err(unfit) => Err(ReadError::NoCursor {
                why: unfit.to_string(),
            }),
        }
    }

    fn key_of(&self, fields: &[Option<Datum>], fill: Fill) -> Option<K> {
        build(&self.layout.key.shape, fields, fill).ok()
    }

    /// Completes a row whose key's fields are known.
    pub fn found(&self, mut row: Vec<Datum>, version: Epoch, value: &V) -> FoundRow {
        let closed = self.layout.key.shape.is_windowed().then(|| match row.last() {
            Some(Datum::Time(end)) => *end <= self.watermark,
            _ => false,
        });
        self.layout.add_value(value, &mut row);
        FoundRow { row, version, closed }
    }

    fn merge(&self, plan: &Plan, after: Option<K>, reverse: bool) -> Result<Page, ReadError> {
        let near = plan.bound(reverse);
        let fill = if reverse { Fill::Greatest } else { Fill::Least };
        let near = near
            .and_then(|fields| self.key_of(&fields, fill))
            .map_or(Bound::Unbounded, Bound::Included);
        let start = after.map_or(near, Bound::Excluded);
        let mut heads = BinaryHeap::new();
        for (shard, bucket) in &self.buckets {
            let ahead = (plan.limit / self.buckets.len()).clamp(*AHEAD.start(), *AHEAD.end());
            let ahead = if self.buckets.len() == 1 {
                plan.limit.min(*AHEAD.end())
            } else {
                ahead
            };
            let cursor = Walker {
                shard,
                bucket: *bucket,
                next: Some(start.clone()),
                rows: VecDeque::new(),
                ahead,
            };
            heads.extend(Head::of(cursor, self.at, reverse));
        }

        let (mut rows, mut scanned, mut last) = (Vec::new(), 0, None);
        while let Some(mut head) = heads.pop() {
            let (key, version, value) = match head.cursor.advance(self.at, reverse) {
                Some(next) => {
                    let taken = std::mem::replace(&mut head.row, next);
                    heads.push(head);
                    taken
                }
                None => head.row,
            };
            scanned += 1;
            let row = self.layout.key_row(&key);
            let side = plan.side(&row);
            if side.is_ne() && side.is_gt() != reverse {
                break;
            }
            let found = side.is_eq().then(|| self.found(row, version, &value));
            if let Some(found) = found.filter(|found| plan.holds(&found.row)) {
                if rows.len() == plan.limit {
                    let next = last.as_ref().map(|last| self.next(plan, last)).transpose()?;
                    return Ok(Page {
                        rows,
                        next,
                        scanned,
                        cut_short: false,
                    });
                }
                rows.push(found);
                last = Some(key);
            } else if plan.enough(scanned).is_some() {
                // What was found is worth having, also that there is nothing so far: the next page goes on from here.
                return Ok(Page {
                    rows,
                    next: Some(self.next(plan, &key)?),
                    scanned,
                    cut_short: true,
                });
            }
        }
        Ok(Page {
            rows,
            next: None,
            scanned,
            cut_short: false,
        })
    }

    fn sort(&self, plan: &Plan, after: Option<K>) -> Result<Page, ReadError> {
        let mut best = Best {
            plan,
            after: None,
            heap: BinaryHeap::new(),
            more: false,
        };
        let looks = plan.looks(self.layout.schema.key.len());
        best.after = after.and_then(|key| {
            let (version, value) = self.version(&key)?;
            Some(Ranked {
                met: self.met(key, version, value, looks),
                plan,
            })
        });
        let mut scanned = 0;
        let lower = plan
            .bound(false)
            .and_then(|fields| self.key_of(&fields, Fill::Least));
        for (shard, bucket) in &self.buckets {
            let start = Some(lower.clone().map_or(Bound::Unbounded, Bound::Included));
            let mut cursor = Walker {
                shard,
                bucket: *bucket,
                next: start,
                rows: VecDeque::new(),
                // Few at first: where the key leaves rows out, a bucket may have but one that is wanted.
                ahead: *AHEAD.start(),
            };
            // The newest closed window so far of the key that the walk is at.
            let mut newest: Option<Met<K, V>> = None;
            while let Some((key, version, value)) = cursor.advance(self.at, false) {
                match plan.enough(scanned) {
                    Some(Enough::Rows) => return Err(plan.too_much(None)),
                    Some(Enough::Time) => return Err(ReadError::TooLong),
                    None => scanned += 1,
                }
                let met = self.met(key, version, value, looks);
                match plan.side(&met.row[..self.layout.schema.key.len()]) {
                    _ if !looks.key => {}
                    Ordering::Less => continue,
                    Ordering::Equal => {}
                    Ordering::Greater => break,
                }
                let Some(until) = plan.newest_until else {
                    best.offer(met);
                    continue;
                };
                if newest.as_ref().is_some_and(|newest| !self.same_key(newest, &met)) {
                    newest.take().into_iter().for_each(|met| best.offer(met));
                }
                if self.window_end(&met) <= until {
                    newest = Some(met);
                }
            }
            newest.into_iter().for_each(|met| best.offer(met));
        }
        let Best { heap, more, .. } = best;
        let sorted = heap.into_sorted_vec();
        let last = sorted.last().filter(|_| more);
        let next = last.map(|last| self.next(plan, &last.met.key)).transpose()?;
        let whole =
            |Met {
                 key, version, value, ..
             }: Met<K, V>| { self.found(self.layout.key_row(&key), version, &value) };
        Ok(Page {
            rows: sorted.into_iter().map(|ranked| whole(ranked.met)).collect(),
            next,
            scanned,
            cut_short: false,
        })
    }

    /// A row with the fields that are looked at.
    fn met(&self, key: K, version: Epoch, value: V, looks: Looks) -> Met<K, V> {
        let mut row = match looks.key {
            true => self.layout.key_row(&key),
            false => vec![Datum::Null; self.layout.schema.key.len()],
        };
        if looks.value {
            self.layout.add_value(&value, &mut row);
        }
        Met {
            key,
            version,
            value,
            row,
        }
    }

    /// The row of a key, if it is in one of the buckets scanned.
    pub fn get(&self, key: &K) -> Option<FoundRow> {
        let (version, value) = self.version(key)?;
        Some(self.found(self.layout.key_row(key), version, &value))
    }

    fn version(&self, key: &K) -> Option<(Epoch, V)> {
        let at = crate::view::shard::bucket_of(route(key));
        self.buckets
            .iter()
            .filter(|(_, bucket)| *bucket == at)
            .find_map(|(shard, bucket)| {
                let bucket = shard.buckets[*bucket].read();
                let (version, value) = bucket.rows.get(key)?.as_of(self.at)?;
                Some((version, value.clone()))
            })
    }

    fn window_end(&self, met: &Met<K, V>) -> EventTime {
        match met.row.get(self.layout.schema.key.len() - 1) {
            Some(Datum::Time(end)) => *end,
            _ => EventTime::MAX,
        }
    }

    fn same_key(&self, a: &Met<K, V>, b: &Met<K, V>) -> bool {
        let parts = self.layout.schema.key.len() - 2;
        a.row[..parts] == b.row[..parts]
    }
}

/// A walk through one bucket.
struct Walker<'a, K, V> {
    shard: &'a Shard<K, V>,
    bucket: usize,
    /// Where the next page begins; `None` when there is none.
    next: Option<Bound<K>>,
    rows: VecDeque<(K, Epoch, V)>,
    ahead: usize,
}

impl<K: Record, V: Record> Walker<'_, K, V> {
    fn advance(&mut self, at: Epoch, reverse: bool) -> Option<(K, Epoch, V)> {
        while self.rows.is_empty() {
            let start = self.next.take()?;
            let rows = &mut self.rows;
            let last = self
                .shard
                .visit(self.bucket, start.as_ref(), reverse, self.ahead, |key, row| {
                    if let Some((version, value)) = row.as_of(at) {
                        rows.push_back((key.clone(), version, value.clone()));
                    }
                });
            self.next = last.map(Bound::Excluded);
            self.ahead = (self.ahead * 2).min(*AHEAD.end());
        }
        self.rows.pop_front()
    }
}

/// A bucket's walk and its first row; the greatest head is the one whose row comes first.
struct Head<'a, K, V> {
    row: (K, Epoch, V),
    cursor: Walker<'a, K, V>,
    reverse: bool,
}

impl<'a, K: Record, V: Record> Head<'a, K, V> {
    fn of(mut cursor: Walker<'a, K, V>, at: Epoch, reverse: bool) -> Option<Self> {
        Some(Self {
            row: cursor.advance(at, reverse)?,
            cursor,
            reverse,
        })
    }
}

impl<K: Ord, V> Ord for Head<'_, K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ordering = self.row.0.cmp(&other.row.0);
        if self.reverse {
            ordering
        } else {
            ordering.reverse()
        }
    }
}
impl<K: Ord, V> PartialOrd for Head<'_, K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: Ord, V> PartialEq for Head<'_, K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<K: Ord, V> Eq for Head<'_, K, V> {}

/// A row and its rank by the plan's order; the greatest comes last.
struct Ranked<'p, K, V> {
    met: Met<K, V>,
    plan: &'p Plan,
}

impl<K: Ord, V> Ord for Ranked<'_, K, V> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.met.row, &other.met.row, &self.plan.order).then_with(|| {
            let ties = self.met.key.cmp(&other.met.key);
            if self.plan.ties_descending {
                ties.reverse()
            } else {
                ties
            }
        })
    }
}
impl<K: Ord, V> PartialOrd for Ranked<'_, K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: Ord, V> PartialEq for Ranked<'_, K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<K: Ord, V> Eq for Ranked<'_, K, V> {}

/// The first `limit` rows in order, of those after the cursor.
struct Best<'p, K, V> {
    plan: &'p Plan,
    after: Option<Ranked<'p, K, V>>,
    heap: BinaryHeap<Ranked<'p, K, V>>,
    more: bool,
}

impl<K: Record, V> Best<'_, K, V> {
    fn offer(&mut self, met: Met<K, V>) {
        if !self.plan.holds(&met.row) {
            return;
        }
        let ranked = Ranked { met, plan: self.plan };
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
