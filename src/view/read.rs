//! [`Serve`] for a typed view: plans a query, selects the buckets, scans them, and verifies that the epoch
//! was kept throughout.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::clock;
use crate::schema::RowSchema;
use crate::schema::column;
use crate::schema::datum::Datum;
use crate::schema::encode::Form;
use crate::schema::small::SmallBytes;
use crate::time::{Epoch, EventTime};
use crate::view::plan::{self, FieldCondition, ScanPlan, ViewFacts, has_many_forms};
use crate::view::remote::{Gather, RemoteRows, ShardAnswer, ShardError, ShardQuery, ShardRead};
use crate::view::rows::{bucket_of, hash_of};
use crate::view::scan::{BucketPlace, Scan, StoredPage, StoredRow};
use crate::view::serve::{
    FoundRow, GivenValue, Op, Page, ReadError, RowChange, RowQuery, RowsQuery, Serve, WindowPick,
};
use crate::view::shard::Shard;
use crate::view::{Snapshot, View, ViewSpec, parse};

/// Rows of a bucket compared under one lock.
const CHANGES_PAGE: usize = 64;

/// Maximum time for another process to answer, where the query says nothing else.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Maximum time for another process to count its rows.
const COUNT_MAX: Duration = Duration::from_secs(1);

/// The answer to another process.
type ShardResult = Result<ShardAnswer, ShardError>;

impl Serve for View {
    fn spec(&self) -> &ViewSpec {
        &self.spec
    }

    fn schema(&self) -> &RowSchema {
        &self.schema
    }

    fn rows_len(&self) -> usize {
        self.local().map(|shard| shard.live.load(Ordering::Relaxed)).sum()
    }

    fn applied(&self) -> u64 {
        self.local()
            .map(|shard| shard.applied.load(Ordering::Relaxed))
            .sum()
    }

    fn changed(&self, at: &Snapshot) -> Epoch {
        let changed = self.local().map(|shard| shard.changed(at.epoch)).max();
        changed.filter(|_| self.is_whole()).unwrap_or(Epoch::ZERO)
    }

    fn oldest(&self) -> Epoch {
        self.floor()
    }

    fn watermark(&self, at: &Snapshot) -> EventTime {
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

    fn row(&self, query: &RowQuery, at: &Snapshot) -> Result<Option<FoundRow>, ReadError> {
        let found = match self.kept(at.epoch, || self.find(query, at))? {
            None if !self.is_whole() => self.ask_row(ShardQuery::Row(query.clone()), at)?,
            found => found,
        };
        Ok(self.decoded(found, at))
    }

    fn is_whole(&self) -> bool {
        self.local().count() == self.shards.len()
    }

    fn local_row(&self, query: &RowQuery, at: &Snapshot) -> Result<Option<FoundRow>, ReadError> {
        let found = self.kept(at.epoch, || self.find(query, at))?;
        Ok(self.decoded(found, at))
    }

    fn rows_count(&self, at: &Snapshot) -> usize {
        let own = self.rows_len();
        if self.is_whole() {
            return own;
        }
        let others = self
            .ask(ShardQuery::Count, at, COUNT_MAX)
            .and_then(|gather| gather());
        let count = |answer| match answer {
            ShardAnswer::Count(count) => count,
            ShardAnswer::Row(_) | ShardAnswer::Rows(_) => 0,
        };
        own + others.unwrap_or_default().into_iter().map(count).sum::<usize>()
    }

    fn rows(&self, query: &RowsQuery, at: &Snapshot) -> Result<Page, ReadError> {
        if self.is_whole() {
            return self.local_rows(query, at);
        }
        // Errors in a query are reported before another process is asked.
        let plan = ScanPlan::new(self.of(at), query)?;
        let scan = self.scan(at, Vec::new());
        let last = match scan.resume(&plan)? {
            Some(key) if plan.is_sorted() => self.row_of_key(&key, at)?,
            _ => None,
        };
        let limit = query
            .until
            .map_or(ASK_MAX, |until| until.saturating_duration_since(clock::instant()));
        let asked = ShardQuery::Rows {
            query: RemoteRows::of(query),
            last: last.clone(),
        };
        let gather = self.ask(asked, at, limit)?;
        let mut pages = vec![self.page(&plan, at, last)?];
        for answer in gather()? {
            match answer {
                ShardAnswer::Rows(page) => pages.push(page),
                ShardAnswer::Row(_) | ShardAnswer::Count(_) => return Err(ReadError::Elsewhere),
            }
        }
        Ok(scan.finish(&plan, scan.combine(&plan, pages)))
    }

    fn local_rows(&self, query: &RowsQuery, at: &Snapshot) -> Result<Page, ReadError> {
        let plan = ScanPlan::new(self.of(at), query)?;
        Ok(self
            .scan(at, Vec::new())
            .finish(&plan, self.page(&plan, at, None)?))
    }

    fn changes(
        &self,
        query: &RowsQuery,
        from: &Snapshot,
        to: &Snapshot,
    ) -> Result<Vec<RowChange>, ReadError> {
        if let Some(WindowPick::Open | WindowPick::LastClosed) = query.window {
            let why = "changes cannot be followed for open or closed windows: those sets change with the \
                watermark alone";
            return Err(ReadError::Window { why: why.into() });
        }
        let plan = ScanPlan::new(self.of(to), query)?;
        if !self.is_whole() {
            return Err(ReadError::Elsewhere);
        }
        self.kept(from.epoch.min(to.epoch), || {
            let scan = self.scan(to, self.buckets(&plan));
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

impl View {
    fn local(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.shards.iter().filter_map(|shard| shard.get())
    }

    fn of(&self, at: &Snapshot) -> ViewFacts<'_> {
        ViewFacts {
            schema: &self.schema,
            windows: self.spec.windows,
            watermark: self.watermark(at),
        }
    }

    fn scan(&self, at: &Snapshot, buckets: Vec<BucketPlace>) -> Scan<'_> {
        Scan {
            schema: &self.schema,
            at: at.epoch,
            watermark: self.watermark(at),
            buckets,
        }
    }

    /// Returns the result if `epoch` was kept throughout. Versions are pruned only after the floor has passed
    /// them, and a reader that finds them missing takes the bucket's lock after the pruning, so it sees that
    /// floor afterwards.
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

    /// The row for the client.
    fn decoded(&self, stored: Option<StoredRow>, at: &Snapshot) -> Option<FoundRow> {
        stored.map(|stored| self.scan(at, Vec::new()).found(&stored))
    }

    /// Answers another process.
    pub(crate) fn answer(&self, query: ShardQuery, limit: Duration, at: &Snapshot) -> ShardResult {
        let answer = match query {
            ShardQuery::Row(query) => self
                .kept(at.epoch, || self.find(&query, at))
                .map(ShardAnswer::Row),
            ShardQuery::Key(key) => self.local_key(&key, at).map(ShardAnswer::Row),
            ShardQuery::Rows { query, last } => ScanPlan::new(self.of(at), &query.within(limit))
                .and_then(|plan| self.page(&plan, at, last))
                .map(ShardAnswer::Rows),
            ShardQuery::Count => Ok(ShardAnswer::Count(self.rows_len())),
        };
        answer.map_err(ShardError::from)
    }

    fn local_key(&self, key: &[u8], at: &Snapshot) -> Result<Option<StoredRow>, ReadError> {
        let scan = self.scan(at, self.bucket(self.schema.without_window(key)));
        self.kept(at.epoch, || Ok(scan.get(key)))
    }

    /// The row with an encoded key, wherever it is.
    fn row_of_key(&self, key: &[u8], at: &Snapshot) -> Result<Option<StoredRow>, ReadError> {
        match self.local_key(key, at)? {
            None => self.ask_row(ShardQuery::Key(key.to_vec()), at),
            found => Ok(found),
        }
    }

    /// Asks the other processes for a row, which one of them may have.
    fn ask_row(&self, query: ShardQuery, at: &Snapshot) -> Result<Option<StoredRow>, ReadError> {
        let answers = self.ask(query, at, ASK_MAX)?()?;
        Ok(answers.into_iter().find_map(|answer| match answer {
            ShardAnswer::Row(found) => found,
            ShardAnswer::Rows(_) | ShardAnswer::Count(_) => None,
        }))
    }

    fn ask(&self, query: ShardQuery, at: &Snapshot, limit: Duration) -> Result<Gather, ReadError> {
        let remote = self.remote.get().ok_or(ReadError::Elsewhere)?;
        Ok(remote.ask(ShardRead {
            view: self.spec.name.clone(),
            epoch: at.epoch,
            limit,
            query,
        }))
    }

    /// A page of this process's rows.
    fn page(&self, plan: &ScanPlan, at: &Snapshot, last: Option<StoredRow>) -> Result<StoredPage, ReadError> {
        let buckets = self.buckets(plan);
        let rows = self.rows_len();
        if buckets.len() > 1 && plan.looks_at_all() && rows > plan.scanned_max {
            return Err(plan.too_much(Some(rows)));
        }
        self.kept(at.epoch, || self.scan(at, buckets).page(plan, last))
    }

    /// Of each shard, the bucket that holds all rows with the fixed key, or all buckets.
    fn buckets(&self, plan: &ScanPlan) -> Vec<BucketPlace> {
        let windows = if self.schema.is_windowed() { 2 } else { 0 };
        let own = plan.fixed.len() - windows;
        // A key that is a window only.
        let own = if own == 0 { plan.fixed.len() } else { own };
        match self.encode(&plan.fixed[..own]) {
            Some(key) if own > 0 => self.bucket(&key),
            _ => {
                let all = |shard: &Arc<Shard>| {
                    let buckets = 0..shard.buckets.len();
                    let shard = shard.clone();
                    buckets.map(move |bucket| (shard.clone(), bucket))
                };
                self.local().flat_map(all).collect()
            }
        }
    }

    /// The bucket of a key in each shard. Only the key's type tells which worker owns it, and that is not
    /// known here.
    fn bucket(&self, key_without_window: &[u8]) -> Vec<BucketPlace> {
        let bucket = bucket_of(hash_of(key_without_window));
        self.local().map(|shard| (shard.clone(), bucket)).collect()
    }

    /// The leading fields of a key, if all are given and have a single encoding.
    fn encode(&self, fields: &[Option<Datum>]) -> Option<SmallBytes> {
        let mut bytes = Vec::new();
        for (field, value) in self.schema.key.iter().zip(fields) {
            let value = value.as_ref().filter(|value| !has_many_forms(&field.ty, value))?;
            column::write(&field.ty, Form::Ordered, value, &mut bytes)?;
        }
        Some(SmallBytes::new(&bytes))
    }

    fn find(&self, query: &RowQuery, at: &Snapshot) -> Result<Option<StoredRow>, ReadError> {
        let mut given = self.key_fields(&query.key)?;
        let of = self.of(at);
        let named = given.len() - if self.schema.is_windowed() { 2 } else { 0 };
        self.require(&given[..named])?;
        if named < given.len() || query.window.is_some() {
            let (start, end) = plan::window_fields(&self.schema)?;
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
        Ok(match self.encode(&given) {
            Some(key) => {
                let scan = self.scan(at, self.bucket(self.schema.without_window(&key)));
                scan.get(&key)
            }
            // The encoding of a field that may be any JSON cannot be derived from the requested value.
            None => {
                let given = given.into_iter().zip(&self.schema.key).enumerate();
                let equal =
                    given.filter_map(|(at, (value, field))| Some(FieldCondition::equal(at, field, value?)));
                let plan = ScanPlan::first(of, equal.collect(), Vec::new());
                let page = self.scan(at, self.buckets(&plan)).page(&plan, None)?;
                page.rows.into_iter().next()
            }
        })
    }

    /// The window to select, unless it is given in full.
    fn window_pick(
        &self,
        given: &[Option<Datum>],
        pick: Option<WindowPick>,
    ) -> Result<Option<WindowPick>, ReadError> {
        let missing = |field: &str| Err(ReadError::KeyMissing { field: field.into() });
        match (&given[given.len() - 2..], pick) {
            ([None, None], Some(pick)) => Ok(Some(pick)),
            (_, Some(_)) => Err(ReadError::Window {
                why: "`window` and the window's fields are both given".into(),
            }),
            ([Some(Datum::Time(start)), None], None) => Ok(Some(WindowPick::Start(*start))),
            ([Some(_), Some(_)], None) => Ok(None),
            _ => missing("window_start"),
        }
    }

    /// One row of a key whose window is selected: the newest that the selection allows.
    fn find_window(
        &self,
        pick: WindowPick,
        given: Vec<Option<Datum>>,
        at: &Snapshot,
    ) -> Result<Option<StoredRow>, ReadError> {
        let of = self.of(at);
        let (start, end) = plan::window_fields(&self.schema)?;
        let fixed = given
            .into_iter()
            .enumerate()
            .filter_map(|(at, value)| Some((at, value?)));
        let mut conditions: Vec<_> = fixed
            .filter(|(at, _)| *at < start)
            .map(|(at, value)| FieldCondition::equal(at, &self.schema.key[at], value))
            .collect();
        conditions.push(match pick {
            WindowPick::Start(time) => FieldCondition::new(start, Op::Eq, Datum::Time(time)),
            WindowPick::Open => FieldCondition::new(end, Op::Gt, Datum::Time(of.watermark)),
            WindowPick::LastClosed => FieldCondition::new(end, Op::Le, Datum::Time(of.watermark)),
        });
        let newest = ScanPlan::first(of, conditions, vec![(start, true)]);
        let page = self.scan(at, self.buckets(&newest)).page(&newest, None)?;
        Ok(page.rows.into_iter().next())
    }

    fn key_fields(&self, given: &[(String, GivenValue)]) -> Result<Vec<Option<Datum>>, ReadError> {
        let mut fields = vec![None; self.schema.key.len()];
        for (name, value) in given {
            let (at, field) = plan::field(self.schema.key.iter(), name)?;
            if fields[at].replace(parse::datum(field, value)?).is_some() {
                return Err(ReadError::KeyTwice { field: name.clone() });
            }
        }
        Ok(fields)
    }

    fn require(&self, given: &[Option<Datum>]) -> Result<(), ReadError> {
        match given.iter().position(Option::is_none) {
            Some(at) => Err(ReadError::KeyMissing {
                field: self.schema.key[at].name.clone(),
            }),
            None => Ok(()),
        }
    }

    fn compare(&self, plan: &ScanPlan, scan: &Scan<'_>, from: Epoch) -> Vec<RowChange> {
        let mut changes = Vec::new();
        for (shard, bucket) in &scan.buckets {
            if shard.buckets[*bucket].read().changed <= from {
                continue;
            }
            let mut start = Some(std::ops::Bound::Unbounded);
            while let Some(lower) = start {
                let mut differ = Vec::new();
                let lower = lower.as_ref().map(|key: &SmallBytes| &**key);
                let last = shard.visit(*bucket, lower, false, CHANGES_PAGE, &mut |key, row| {
                    let (before, after) = (row.as_of(from), row.as_of(scan.at));
                    if before.map(|(epoch, _)| epoch) != after.map(|(epoch, _)| epoch) {
                        let own = |version: Option<(Epoch, &SmallBytes)>| {
                            version.map(|(version, value)| StoredRow {
                                key: key.clone(),
                                version,
                                value: value.clone(),
                            })
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
        plan: &ScanPlan,
        scan: &Scan<'_>,
        key: &[u8],
        before: Option<StoredRow>,
        after: Option<StoredRow>,
    ) -> Option<RowChange> {
        let matching = |version: &StoredRow| version.holds(plan, &self.schema);
        match (before.filter(matching), after.filter(matching)) {
            (_, Some(after)) => Some(RowChange::Upsert(scan.found(&after))),
            (Some(_), None) => Some(RowChange::Delete(self.schema.key_row(key)?)),
            (None, None) => None,
        }
    }
}
