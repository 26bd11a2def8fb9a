//! Lists of bounded length: the greatest and the least values, sorted.

use std::cmp::Ordering;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::operator::aggregate::when::shows_nothing_as;
use crate::operator::aggregate::{Aggregate, Of, Take};
use crate::record::Record;

impl<T> Of<T> {
    /// What `f` takes from each value, in a sorted list that keeps duplicates: the `max` least, and how many
    /// more there are ([`Collected`]). Which are kept does not depend on the order in which they came.
    ///
    /// Can't be undone; a key takes up to `max` of them.
    pub fn collect<V: Record>(self, max: usize, f: impl Fn(&T) -> V + 'static) -> Collect<T, V> {
        Collect { max, f: Rc::new(f) }
    }

    /// The `k` greatest of what `f` takes from each value, the greatest first, duplicates included. For the
    /// best by some key, with what belongs to them, take both: `a.top(3, |p| (p.cents, p.id))`.
    ///
    /// Can't be undone; a key takes up to `k` of them.
    pub fn top<V: Record>(self, k: usize, f: impl Fn(&T) -> V + 'static) -> Top<T, V> {
        Top { k, f: Rc::new(f) }
    }

    /// The `k` least of what `f` takes from each value, the least first, duplicates included.
    ///
    /// Can't be undone; a key takes up to `k` of them.
    pub fn bottom<V: Record>(self, k: usize, f: impl Fn(&T) -> V + 'static) -> Bottom<T, V> {
        Bottom { k, f: Rc::new(f) }
    }
}

/// See [`Of::collect`].
pub struct Collect<T, V> {
    max: usize,
    f: Take<T, V>,
}
/// See [`Of::top`].
pub struct Top<T, V> {
    k: usize,
    f: Take<T, V>,
}
/// See [`Of::bottom`].
pub struct Bottom<T, V> {
    k: usize,
    f: Take<T, V>,
}

/// What [`Of::collect`] shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Collected<V> {
    /// The least values, sorted.
    pub values: Vec<V>,
    /// How many are not among them.
    pub left_out: u64,
}

/// Puts a value in its place among the best `max`. Returns whether one is left out for it, or it is itself.
fn insert<V>(best: &mut Vec<V>, max: usize, value: V, order: fn(&V, &V) -> Ordering) -> bool {
    let at = best.partition_point(|other| order(other, &value).is_le());
    let is_full = best.len() >= max;
    if at < max {
        best.truncate(max - 1);
        best.insert(at, value);
    }
    is_full
}

/// Merges the best of others into the best `max`. Returns how many are left out.
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
    /// The least values, and how many others there are.
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
