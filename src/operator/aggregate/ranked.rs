//! Bounded, sorted lists: the greatest and the smallest values.

use std::cmp::Ordering;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::operator::aggregate::when::shows_nothing_as;
use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::record::Record;

impl<T> AggregateBuilder<T> {
    /// The values that `f` returns, as a sorted list with duplicates: the `max` smallest, and the number of
    /// further ones ([`Collected`]). The list does not depend on the order of arrival.
    ///
    /// Cannot be undone; a key takes up to `max` values.
    pub fn collect<V: Record>(self, max: usize, f: impl Fn(&T) -> V + 'static) -> Collect<T, V> {
        Collect { max, f: Rc::new(f) }
    }

    /// The `k` greatest values that `f` returns, in descending order, duplicates included. For the best by
    /// some key along with their data, return both: `a.top(3, |p| (p.cents, p.id))`.
    ///
    /// Cannot be undone; a key takes up to `k` values.
    pub fn top<V: Record>(self, k: usize, f: impl Fn(&T) -> V + 'static) -> Top<T, V> {
        Top { k, f: Rc::new(f) }
    }

    /// The `k` smallest values that `f` returns, in ascending order, duplicates included.
    ///
    /// Cannot be undone; a key takes up to `k` values.
    pub fn bottom<V: Record>(self, k: usize, f: impl Fn(&T) -> V + 'static) -> Bottom<T, V> {
        Bottom { k, f: Rc::new(f) }
    }
}

/// See [`AggregateBuilder::collect`].
pub struct Collect<T, V> {
    max: usize,
    f: Take<T, V>,
}
/// See [`AggregateBuilder::top`].
pub struct Top<T, V> {
    k: usize,
    f: Take<T, V>,
}
/// See [`AggregateBuilder::bottom`].
pub struct Bottom<T, V> {
    k: usize,
    f: Take<T, V>,
}

/// The result of [`AggregateBuilder::collect`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Collected<V> {
    /// The smallest values, sorted.
    pub values: Vec<V>,
    /// The number of further values.
    pub left_out: u64,
}

/// Inserts a value into the best `max`. Returns whether a value, possibly this one, was left out.
fn insert<V>(best: &mut Vec<V>, max: usize, value: V, order: fn(&V, &V) -> Ordering) -> bool {
    let at = best.partition_point(|other| order(other, &value).is_le());
    let is_full = best.len() >= max;
    if at < max {
        best.truncate(max - 1);
        best.insert(at, value);
    }
    is_full
}

/// Merges the best of others into the best `max`. Returns how many were left out.
fn join<V: Clone>(best: &mut Vec<V>, max: usize, others: Vec<V>, order: fn(&V, &V) -> Ordering) -> usize {
    best.extend(others);
    // Two sorted runs, which a stable sort merges.
    best.sort_by(order);
    let left_out = best.len().saturating_sub(max);
    best.truncate(max);
    left_out
}

fn least_first<V: Ord>(one: &V, other: &V) -> Ordering {
    one.cmp(other)
}

fn greatest_first<V: Ord>(one: &V, other: &V) -> Ordering {
    other.cmp(one)
}

shows_nothing_as! { Collect, V; "an empty list" }
shows_nothing_as! { Top, V; "an empty list" }
shows_nothing_as! { Bottom, V; "an empty list" }

impl<T: 'static, V: Record> Aggregate<T> for Collect<T, V> {
    /// The smallest values, and the number of further ones.
    type State = (Vec<V>, u64);
    type Out = Collected<V>;
    fn empty(&self) -> Self::State {
        (Vec::new(), 0)
    }
    fn add(&self, (best, left_out): &mut Self::State, value: &T) {
        *left_out += u64::from(insert(best, self.max, (self.f)(value), least_first));
    }
    fn merge(&self, (best, left_out): &mut Self::State, other: Self::State) {
        *left_out += other.1 + join(best, self.max, other.0, least_first) as u64;
    }
    fn finish(&self, (best, left_out): &Self::State) -> Collected<V> {
        let (values, left_out) = (best.clone(), *left_out);
        Collected { values, left_out }
    }
}

macro_rules! ranked { ($($A:ident $order:ident),+) => { $(
    impl<T: 'static, V: Record> Aggregate<T> for $A<T, V> {
        type State = Vec<V>;
        type Out = Vec<V>;
        fn empty(&self) -> Vec<V> { Vec::new() }
        fn add(&self, best: &mut Vec<V>, value: &T) { insert(best, self.k, (self.f)(value), $order); }
        fn merge(&self, best: &mut Vec<V>, others: Vec<V>) { join(best, self.k, others, $order); }
        fn finish(&self, best: &Vec<V>) -> Vec<V> { best.clone() }
    }
)+ } }
ranked! { Top greatest_first, Bottom least_first }
