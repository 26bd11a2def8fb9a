//! Distinct counts, exact and approximate.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64;

use crate::operator::aggregate::hyperloglog::{HyperLogLog, PRECISION_MAX, PRECISION_MIN};
use crate::operator::aggregate::when::shows_nothing_as;
use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::record::Record;

impl<T> AggregateBuilder<T> {
    /// The exact number of distinct values that `f` returns: a `u64`. For large values, have it return a hash
    /// of them.
    ///
    /// Can be undone. A key takes each distinct value and 8 bytes, in a B-tree: about 24 bytes for a `u64`,
    /// and as much in a checkpoint whenever the key has changed since the last one. For keys with many
    /// thousands of values there is [`AggregateBuilder::approx_count_distinct`].
    pub fn count_distinct<V: Record>(self, f: impl Fn(&T) -> V + 'static) -> CountDistinct<T, V> {
        CountDistinct(Rc::new(f))
    }

    /// The approximate number of distinct values that `f` returns: a `u64`, by
    /// [HyperLogLog](ApproxCountDistinct). Up to some hundreds (a quarter of its registers) it is nearly
    /// always exact; beyond that, the standard error is 1.6 %: two of three estimates are within that, 95 of
    /// 100 within twice that.
    ///
    /// Cannot be undone: a group of a collection keeps its values, so [`AggregateBuilder::count_distinct`] is
    /// better there. A key takes 4 bytes per distinct value, and at most 4 KiB.
    /// [`ApproxCountDistinct::precision`] changes both.
    ///
    /// ```
    /// use thalweg::prelude::*;
    /// let visitors = AggregateBuilder::<String>::default().approx_count_distinct(|ip| ip.clone());
    /// let mut state = visitors.empty();
    /// for n in 0..300_000 {
    ///     visitors.add(&mut state, &format!("10.0.{}.{}", n / 256 % 256, n % 256));
    /// }
    /// assert!(visitors.finish(&state).abs_diff(65_536) < 3_000);
    /// ```
    pub fn approx_count_distinct<V: Record>(
        self,
        f: impl Fn(&T) -> V + 'static,
    ) -> ApproxCountDistinct<T, V> {
        let (precision, bytes) = (12, RefCell::default());
        ApproxCountDistinct {
            f: Rc::new(f),
            precision,
            bytes,
        }
    }
}

/// See [`AggregateBuilder::count_distinct`].
pub struct CountDistinct<T, V>(Take<T, V>);

/// See [`AggregateBuilder::approx_count_distinct`].
///
/// A HyperLogLog sketch with a sparse form, as in Heule, Nunkesser and Hall, "HyperLogLog in Practice"
/// (2013), and the estimator of Ertl, "New cardinality estimation algorithms for HyperLogLog sketches"
/// (2017), which needs no correction tables. Sketch and estimate depend on the set of values alone, in
/// whatever order and grouping they arrive, and are the same on every machine: values are hashed by XXH3 of
/// their postcard encoding.
pub struct ApproxCountDistinct<T, V> {
    f: Take<T, V>,
    precision: u8,
    /// An encoded value.
    bytes: RefCell<Vec<u8>>,
}

impl<T, V> ApproxCountDistinct<T, V> {
    /// Sets the number of registers to 2 to this power, a byte each: the standard error is 1.04 over the
    /// square root of their number. Default 12.
    ///
    /// | precision | standard error | bytes per key, at most |
    /// |---|---|---|
    /// | 10 | 3.3 % | 1 KiB |
    /// | 12 | 1.6 % | 4 KiB |
    /// | 14 | 0.8 % | 16 KiB |
    /// | 16 | 0.4 % | 64 KiB |
    ///
    /// If checkpoints hold the step's state, declare another
    /// [version](crate::dataflow::window::Windows::version) with the change.
    ///
    /// # Panics
    /// Panics if it is not from 4 to 16.
    #[track_caller]
    pub fn precision(self, precision: u8) -> Self {
        assert!(
            (PRECISION_MIN..=PRECISION_MAX).contains(&precision),
            "the precision of `approx_count_distinct` is from {PRECISION_MIN} to {PRECISION_MAX}, not {precision}"
        );
        Self { precision, ..self }
    }
}

shows_nothing_as! { CountDistinct, V; "0" }
shows_nothing_as! { ApproxCountDistinct, V; "0" }

impl<T: 'static, V: Record> Aggregate<T> for CountDistinct<T, V> {
    /// The multiplicity of each value. Negative if one is removed before it is added.
    type State = BTreeMap<V, i64>;
    type Out = u64;
    fn empty(&self) -> Self::State {
        BTreeMap::new()
    }
    fn add(&self, counts: &mut Self::State, value: &T) {
        count(counts, (self.0)(value), 1);
    }
    fn merge(&self, counts: &mut Self::State, mut other: Self::State) {
        if counts.len() < other.len() {
            std::mem::swap(counts, &mut other);
        }
        other
            .into_iter()
            .for_each(|(value, times)| count(counts, value, times));
    }
    fn finish(&self, counts: &Self::State) -> u64 {
        counts.len() as u64
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, counts: &mut Self::State, value: &T) {
        count(counts, (self.0)(value), -1);
    }
}

/// Counts a value, and drops it when its count is zero.
fn count<V: Ord>(counts: &mut BTreeMap<V, i64>, value: V, times: i64) {
    match counts.entry(value) {
        Entry::Vacant(vacant) => _ = vacant.insert(times),
        Entry::Occupied(mut there) => {
            *there.get_mut() += times;
            if *there.get() == 0 {
                there.remove();
            }
        }
    }
}

impl<T: 'static, V: Record> Aggregate<T> for ApproxCountDistinct<T, V> {
    type State = HyperLogLog;
    type Out = u64;
    fn empty(&self) -> HyperLogLog {
        HyperLogLog::new(self.precision)
    }
    fn add(&self, sketch: &mut HyperLogLog, value: &T) {
        let mut bytes = self.bytes.take();
        bytes.clear();
        bytes = postcard::to_extend(&(self.f)(value), bytes)
            .expect("`approx_count_distinct` takes values whose Serialize gives lists and maps their length");
        sketch.add(xxh3_64(&bytes));
        self.bytes.replace(bytes);
    }
    fn merge(&self, sketch: &mut HyperLogLog, other: HyperLogLog) {
        sketch.merge(other);
    }
    fn finish(&self, sketch: &HyperLogLog) -> u64 {
        sketch.estimate()
    }
}
