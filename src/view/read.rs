//! [`Serve`] for a typed view: understands a query, picks the buckets, scans them, and makes sure that what it read was
//! still kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::record::{Record, owner, route};
use crate::time::{Epoch, EventTime};
use crate::view::build::{Fill, build};
use crate::view::datum::Datum;
use crate::view::plan::{self, Condition, Of, Plan};
use crate::view::scan::{Place, Scan};
use crate::view::schema::ViewSchema;
use crate::view::serve::{
    FoundRow, Given, Op, Page, ReadError, RowChange, RowQuery, RowsQuery, Serve, WindowPick,
};
use crate::view::shard::{Shard, bucket_of};
use crate::view::{Moment, View, ViewSpec, parse};

/// Rows of a bucket compared under one lock hold.
const CHANGES_PAGE: usize = 64;

impl<K: Record, V: Record> Serve for View<K, V> {
    fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    fn schema(&self) -> &ViewSchema {
        &self.layout.schema
    }

    fn rows_len(&self) -> usize {
        self.local().map(|shard| shard.live.load(Ordering::Relaxed)).sum()
    }

    fn applied(&self) -> u64 {
        self.local()
            .map(|shard| shard.applied.load(Ordering::Relaxed))
            .sum()
    }

    fn changed(&self, at: &Moment) -> Epoch {
        self.local()
            .map(|shard| shard.changed(at.epoch))
            .max()
            .unwrap_or(Epoch::ZERO)
    }

    fn oldest(&self) -> Epoch {
        self.floor()
    }

    fn watermark(&self, at: &Moment) -> EventTime {
        let all = at.watermark(&self.spec.sources);
        let lowest = match self.spec.window_sources.as_slice() {
            [] => all,
            windowed => all.min(at.watermark(windowed)),
        };
        match lowest {
            EventTime::MIN => EventTime::MIN,
            watermark => watermark.minus(self.spec.held_back),
        }
    }

    fn shards(&self) -> Vec<usize> {
        (0..self.shards.len())
            .filter(|worker| self.shards[*worker].get().is_some())
            .collect()
    }

    fn row(&self, query: &RowQuery, at: &Moment) -> Result<Option<FoundRow>, ReadError> {
        self.kept(at.epoch, || self.find(query, at))
    }

    fn rows(&self, query: &RowsQuery, at: &Moment) -> Result<Page, ReadError> {
        let plan = Plan::new(self.of(at), query)?;
        let buckets = self.buckets(&plan)?;
        let rows = self.rows_len();
        if buckets.len() > 1 && plan.looks_at_all() && rows > plan.scanned_max {
            return Err(plan.too_much(Some(rows)));
        }
        self.kept(at.epoch, || self.scan(at, buckets).page(&plan))
    }

    fn changes(&self, query: &RowsQuery, from: &Moment, to: &Moment) -> Result<Vec<RowChange>, ReadError> {
        if let Some(WindowPick::Open | WindowPick::LastClosed) = query.window {
            let why = "changes can't be followed for open or closed windows, as these move with the watermark alone";
            return Err(ReadError::Window { why: why.into() });
        }
        let plan = Plan::new(self.of(to), query)?;
        self.kept(from.epoch.min(to.epoch), || {
            let scan = self.scan(to, self.buckets(&plan)?);
            Ok(self.compare(&plan, &scan, from.epoch))
        })
    }

    fn hash(&self, epoch: Epoch) -> Option<u64> {
        let sum = || {
            self.local()
                .map(|shard| shard.hash(epoch))
                .fold(0u64, u64::wrapping_add)
        };
        (self.spec.hashed && epoch >= self.floor()).then(sum)
    }
}

impl<K: Record, V: Record> View<K, V> {
    fn local(&self) -> impl Iterator<Item = &Arc<Shard<K, V>>> {
        self.shards.iter().filter_map(|shard| shard.get())
    }

    fn of(&self, at: &Moment) -> Of<'_> {
        Of {
            layout: &self.layout,
            windows: self.spec.windows,
            watermark: self.watermark(at),
        }
    }

    fn scan(&self, at: &Moment, buckets: Vec<Place<K, V>>) -> Scan<'_, K, V> {
        Scan {
            layout: &self.layout,
            at: at.epoch,
            watermark: self.watermark(at),
            buckets,
        }
    }

    /// Answers if `epoch` was kept all the while. Versions go only after the floor has passed them, and who finds them
    /// gone from a bucket has the bucket's lock after it, so sees that floor afterwards.
    fn kept<R>(&self, epoch: Epoch, read: impl FnOnce() -> Result<R, ReadError>) -> Result<R, ReadError> {
        let check = || match self.floor() {
            oldest if epoch < oldest => Err(ReadError::Gone { oldest }),
            _ => Ok(()),
        };
        check()?;
        let answer = read();
        check()?;
        answer
    }

    /// The bucket that holds all rows with the fixed key, or all buckets.
    fn buckets(&self, plan: &Plan) -> Result<Vec<Place<K, V>>, ReadError> {
        let windows = if self.layout.key.shape.is_windowed() { 2 } else { 0 };
        let routed = plan.fixed.len() - windows;
        // A bare window is hashed whole; with a key, the key alone.
        let routed = if routed == 0 { plan.fixed.len() } else { routed };
        if routed > 0 && plan.fixed[..routed].iter().all(Option::is_some) {
            // The hash leaves the window out, so any fill will do.
            if let Ok(key) = build::<K>(&self.layout.key.shape, &plan.fixed, Fill::Least) {
                return Ok(vec![self.bucket(&key)?]);
            }
        }
        let all = self
            .local()
            .flat_map(|shard| (0..shard.buckets.len()).map(|bucket| (shard.clone(), bucket)));
        Ok(all.collect())
    }

    fn bucket(&self, key: &K) -> Result<Place<K, V>, ReadError> {
        let route = route(key);
        let worker = owner(route, self.shards.len());
        let shard = self.shards[worker].get().ok_or(ReadError::Elsewhere { worker })?;
        Ok((shard.clone(), bucket_of(route)))
    }

    fn find(&self, query: &RowQuery, at: &Moment) -> Result<Option<FoundRow>, ReadError> {
        let given = self.key_fields(&query.key)?;
        let whole = given.len();
        let (of, scan) = (self.of(at), |key: &K| {
            Ok::<_, ReadError>(self.scan(at, vec![self.bucket(key)?]))
        });
        let mut given = given;
        let named = if self.layout.key.shape.is_windowed() {
            whole - 2
        } else {
            whole
        };
        self.require(&given[..named])?;
        if named < whole || query.window.is_some() {
            let (start, end) = plan::window_fields(&self.layout)?;
            let pick = self.window_pick(&given, query.window)?;
            match (pick, plan::last_closed(self.spec.windows, of.watermark)) {
                (None, _) => {}
                (Some(WindowPick::LastClosed), Some((first, last))) => {
                    given[start] = Some(Datum::Time(first));
                    given[end] = Some(Datum::Time(last));
                }
                (Some(pick), _) => return self.find_window(pick, given, at),
            }
        }
        match build::<K>(&self.layout.key.shape, &given, Fill::None) {
            Ok(key) => Ok(scan(&key)?.get(&key)),
            // Each field fits its type, but the key's own reading refuses them: no row has such a key.
            Err(_) => Ok(None),
        }
    }

    /// The window to pick, if it isn't given whole.
    fn window_pick(
        &self,
        given: &[Option<Datum>],
        pick: Option<WindowPick>,
    ) -> Result<Option<WindowPick>, ReadError> {
        let missing = |field: &str| Err(ReadError::KeyMissing { field: field.into() });
        match (&given[given.len() - 2..], pick) {
            ([None, None], Some(pick)) => Ok(Some(pick)),
            (_, Some(_)) => Err(ReadError::Window {
                why: "`window` and the window's own fields are both given".into(),
            }),
            ([Some(Datum::Time(start)), None], None) => Ok(Some(WindowPick::Start(*start))),
            ([Some(_), Some(_)], None) => Ok(None),
            _ => missing("window_start"),
        }
    }

    /// One row of a key whose window is picked: the newest that the pick allows.
    fn find_window(
        &self,
        pick: WindowPick,
        given: Vec<Option<Datum>>,
        at: &Moment,
    ) -> Result<Option<FoundRow>, ReadError> {
        let of = self.of(at);
        let (start, end) = plan::window_fields(&self.layout)?;
        let fixed = given
            .into_iter()
            .enumerate()
            .filter_map(|(at, value)| Some((at, value?)));
        let mut conditions: Vec<_> = fixed
            .filter(|(at, _)| *at < start)
            .map(|(at, value)| Condition {
                at,
                op: Op::Eq,
                value,
            })
            .collect();
        conditions.push(match pick {
            WindowPick::Start(time) => Condition {
                at: start,
                op: Op::Eq,
                value: Datum::Time(time),
            },
            WindowPick::Open => Condition {
                at: end,
                op: Op::Gt,
                value: Datum::Time(of.watermark),
            },
            WindowPick::LastClosed => Condition {
                at: end,
                op: Op::Le,
                value: Datum::Time(of.watermark),
            },
        });
        let newest = Plan::first(of, conditions, vec![(start, true)]);
        let page = self.scan(at, self.buckets(&newest)?).page(&newest)?;
        Ok(page.rows.into_iter().next())
    }

    fn key_fields(&self, given: &[(String, Given)]) -> Result<Vec<Option<Datum>>, ReadError> {
        let mut fields = vec![None; self.layout.schema.key.len()];
        for (name, value) in given {
            let (at, field) = plan::field(self.layout.schema.key.iter(), name)?;
            if fields[at].replace(parse::datum(field, value)?).is_some() {
                return Err(ReadError::KeyTwice { field: name.clone() });
            }
        }
        Ok(fields)
    }

    fn require(&self, given: &[Option<Datum>]) -> Result<(), ReadError> {
        match given.iter().position(Option::is_none) {
            Some(at) => Err(ReadError::KeyMissing {
                field: self.layout.schema.key[at].name.clone(),
            }),
            None => Ok(()),
        }
    }

    fn compare(&self, plan: &Plan, scan: &Scan<'_, K, V>, from: Epoch) -> Vec<RowChange> {
        let mut changes = Vec::new();
        for (shard, bucket) in &scan.buckets {
            if shard.buckets[*bucket].read().changed <= from {
                continue;
            }
            let mut start = Some(std::ops::Bound::Unbounded);
            while let Some(lower) = start {
                let mut differ = Vec::new();
                let last = shard.visit(*bucket, lower.as_ref(), false, CHANGES_PAGE, |key, row| {
                    let (before, after) = (row.as_of(from), row.as_of(scan.at));
                    if before.map(|(epoch, _)| epoch) != after.map(|(epoch, _)| epoch) {
                        let own = |version: Option<(Epoch, &V)>| {
                            version.map(|(epoch, value)| (epoch, value.clone()))
                        };
                        differ.push((key.clone(), own(before), own(after)));
                    }
                });
                for (key, before, after) in differ {
                    changes.extend(self.change(plan, scan, &key, before, after));
                }
                start = last.map(std::ops::Bound::Excluded);
            }
        }
        changes
    }

    fn change(
        &self,
        plan: &Plan,
        scan: &Scan<'_, K, V>,
        key: &K,
        before: Option<(Epoch, V)>,
        after: Option<(Epoch, V)>,
    ) -> Option<RowChange> {
        let row = self.layout.key_row(key);
        let matching = |version: Option<(Epoch, V)>| {
            let (version, value) = version?;
            Some(scan.found(row.clone(), version, &value)).filter(|found| plan.holds(&found.row))
        };
        match (matching(before), matching(after)) {
            (_, Some(found)) => Some(RowChange::Upsert(found)),
            (Some(_), None) => Some(RowChange::Delete(row)),
            (None, None) => None,
        }
    }
}
