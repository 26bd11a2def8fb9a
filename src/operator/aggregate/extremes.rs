//! Minima and maxima, and the values that belong to them.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::record::Record;

impl<T> AggregateBuilder<T> {
    /// The smallest value that `f` returns. Cannot be undone; a key takes one value.
    pub fn min<V: Record>(self, f: impl Fn(&T) -> V + 'static) -> Min<T, V> {
        Min(Rc::new(f))
    }

    /// The greatest value that `f` returns. Cannot be undone; a key takes one value.
    pub fn max<V: Record>(self, f: impl Fn(&T) -> V + 'static) -> Max<T, V> {
        Max(Rc::new(f))
    }

    /// The result of `f` for the value with the smallest `key`; ties are broken by the smaller result. Cannot
    /// be undone; a key takes one key and one result.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Bid { auction: u32, bidder: u32, cents: i64 }
    /// # fn winner(windows: Windows<u32, Bid>) {
    /// windows.aggregate(|a| (a.max(|b| b.cents), a.arg_max(|b| b.cents, |b| b.bidder)))
    /// # .view("winner");
    /// # }
    /// ```
    pub fn arg_min<K: Record, V: Record>(
        self,
        key: impl Fn(&T) -> K + 'static,
        f: impl Fn(&T) -> V + 'static,
    ) -> ArgMin<T, K, V> {
        ArgMin(pair(key, f))
    }

    /// The result of `f` for the value with the greatest `key`; ties are broken by the greater result. Cannot
    /// be undone; a key takes one key and one result.
    pub fn arg_max<K: Record, V: Record>(
        self,
        key: impl Fn(&T) -> K + 'static,
        f: impl Fn(&T) -> V + 'static,
    ) -> ArgMax<T, K, V> {
        ArgMax(pair(key, f))
    }

    /// Like [`AggregateBuilder::arg_min`], with all results that have the smallest key: a sorted list with at
    /// least one element. Cannot be undone; a key takes as many as there are.
    pub fn arg_min_all<K: Record, V: Record>(
        self,
        key: impl Fn(&T) -> K + 'static,
        f: impl Fn(&T) -> V + 'static,
    ) -> ArgMinAll<T, K, V> {
        ArgMinAll(pair(key, f))
    }

    /// Like [`AggregateBuilder::arg_max`], with all results that have the greatest key: a sorted list with at
    /// least one element. Cannot be undone; a key takes as many as there are.
    pub fn arg_max_all<K: Record, V: Record>(
        self,
        key: impl Fn(&T) -> K + 'static,
        f: impl Fn(&T) -> V + 'static,
    ) -> ArgMaxAll<T, K, V> {
        ArgMaxAll(pair(key, f))
    }

    /// The result of `f` for the first value in the order of `by`: usually a field with the event time, or a
    /// sequence number. It is [`AggregateBuilder::arg_min`], so ties are broken by the smaller result:
    /// results must not depend on the order in which values were read.
    pub fn first<K: Record, V: Record>(
        self,
        by: impl Fn(&T) -> K + 'static,
        f: impl Fn(&T) -> V + 'static,
    ) -> ArgMin<T, K, V> {
        self.arg_min(by, f)
    }

    /// The result of `f` for the last value in the order of `by`. It is [`AggregateBuilder::arg_max`], so
    /// ties are broken by the greater result.
    pub fn last<K: Record, V: Record>(
        self,
        by: impl Fn(&T) -> K + 'static,
        f: impl Fn(&T) -> V + 'static,
    ) -> ArgMax<T, K, V> {
        self.arg_max(by, f)
    }
}

/// See [`AggregateBuilder::min`].
pub struct Min<T, V>(Take<T, V>);
/// See [`AggregateBuilder::max`].
pub struct Max<T, V>(Take<T, V>);
/// See [`AggregateBuilder::arg_min`] and [`AggregateBuilder::first`].
pub struct ArgMin<T, K, V>(Take<T, (K, V)>);
/// See [`AggregateBuilder::arg_max`] and [`AggregateBuilder::last`].
pub struct ArgMax<T, K, V>(Take<T, (K, V)>);
/// See [`AggregateBuilder::arg_min_all`].
pub struct ArgMinAll<T, K, V>(Take<T, (K, V)>);
/// See [`AggregateBuilder::arg_max_all`].
pub struct ArgMaxAll<T, K, V>(Take<T, (K, V)>);

fn pair<T, K, V>(key: impl Fn(&T) -> K + 'static, f: impl Fn(&T) -> V + 'static) -> Take<T, (K, V)> {
    Rc::new(move |value| (key(value), f(value)))
}

/// Returns the state that is `better`.
fn better<V: Ord>(state: &mut Option<V>, other: Option<V>, better: Ordering) {
    if let Some(other) = other
        && state.as_ref().is_none_or(|own| other.cmp(own) == better)
    {
        *state = Some(other);
    }
}

/// Returns the state whose key is `better`, or both combined if the keys are equal.
fn all_of_better<K: Ord, V: Ord>(
    state: &mut Option<(K, Vec<V>)>,
    other: Option<(K, Vec<V>)>,
    better: Ordering,
) {
    let (Some((key, values)), Some((other_key, _))) = (state.as_mut(), other.as_ref()) else {
        *state = state.take().or(other);
        return;
    };
    match other_key.cmp(key) {
        Ordering::Equal => {
            let more = other.into_iter().flat_map(|(_, values)| values);
            let mut more = more.collect::<Vec<_>>();
            if more.len() > 1 {
                values.append(&mut more);
                // Two sorted runs, which a stable sort merges.
                values.sort();
            } else if let Some(value) = more.pop() {
                let at = values.partition_point(|other| *other <= value);
                values.insert(at, value);
            }
        }
        order if order == better => *state = other,
        _ => {}
    }
}

/// A group exists only while it has a value, so there is no `Option` for the user.
fn at_least_one<S: Clone>(state: &Option<S>) -> S {
    state
        .clone()
        .expect("finish is called with at least one value folded in")
}

macro_rules! extremes { ($($A:ident $better:ident),+) => { $(
    impl<T: 'static, V: Record> Aggregate<T> for $A<T, V> {
        type State = Option<V>;
        type Out = V;
        fn empty(&self) -> Option<V> { None }
        fn add(&self, state: &mut Option<V>, value: &T) { self.merge(state, Some((self.0)(value))) }
        fn merge(&self, state: &mut Option<V>, other: Option<V>) {
            better(state, other, Ordering::$better)
        }
        fn finish(&self, state: &Option<V>) -> V { at_least_one(state) }
    }
)+ } }
extremes! { Min Less, Max Greater }

macro_rules! arg_extremes { ($($A:ident $better:ident),+) => { $(
    impl<T: 'static, K: Record, V: Record> Aggregate<T> for $A<T, K, V> {
        type State = Option<(K, V)>;
        type Out = V;
        fn empty(&self) -> Option<(K, V)> { None }
        fn add(&self, state: &mut Option<(K, V)>, value: &T) { self.merge(state, Some((self.0)(value))) }
        fn merge(&self, state: &mut Option<(K, V)>, other: Option<(K, V)>) {
            better(state, other, Ordering::$better)
        }
        fn finish(&self, state: &Option<(K, V)>) -> V {
            at_least_one(state).1
        }
    }
)+ } }
arg_extremes! { ArgMin Less, ArgMax Greater }

macro_rules! all_arg_extremes { ($($A:ident $better:ident),+) => { $(
    impl<T: 'static, K: Record, V: Record> Aggregate<T> for $A<T, K, V> {
        type State = Option<(K, Vec<V>)>;
        type Out = Vec<V>;
        fn empty(&self) -> Self::State { None }
        fn add(&self, state: &mut Self::State, value: &T) {
            let (key, value) = (self.0)(value);
            self.merge(state, Some((key, vec![value])))
        }
        fn merge(&self, state: &mut Self::State, other: Self::State) {
            all_of_better(state, other, Ordering::$better)
        }
        fn finish(&self, state: &Self::State) -> Vec<V> {
            at_least_one(state).1
        }
    }
)+ } }
all_arg_extremes! { ArgMinAll Less, ArgMaxAll Greater }
