//! Counts: all values, values that meet a condition, and their share.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::operator::aggregate::when::{Filtered, shows_nothing_as};
use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::record::F64;

impl<T> AggregateBuilder<T> {
    /// The number of values: a `u64`. Can be undone; a key takes 8 bytes.
    pub fn count(self) -> Count<T> {
        Count(PhantomData)
    }

    /// The number of values that meet a condition: a `u64`, the same as `count().when(…)`. Can be undone; a
    /// key takes 8 bytes.
    pub fn count_if(self, meets: impl Fn(&T) -> bool + 'static) -> Filtered<T, Count<T>>
    where
        T: 'static,
    {
        self.count().when(meets)
    }

    /// Whether any value meets a condition. Can be undone; a key takes 8 bytes.
    pub fn any(self, meets: impl Fn(&T) -> bool + 'static) -> Any<T> {
        Any(Rc::new(meets))
    }

    /// Whether all values meet a condition. Can be undone; a key takes 8 bytes.
    pub fn all(self, meets: impl Fn(&T) -> bool + 'static) -> All<T> {
        All(Rc::new(move |value| !meets(value)))
    }

    /// The share of values that meet a condition, from 0 to 1: the [`F64`] nearest to the quotient. Can be
    /// undone; a key takes 16 bytes.
    ///
    /// ```
    /// use thalweg::prelude::*;
    /// let failed = AggregateBuilder::<u16>::default().rate(|status| *status >= 500);
    /// let mut state = failed.empty();
    /// for status in [200, 503, 404, 200] {
    ///     failed.add(&mut state, &status);
    /// }
    /// assert_eq!(failed.finish(&state).get(), 0.25);
    /// ```
    pub fn rate(self, meets: impl Fn(&T) -> bool + 'static) -> Rate<T> {
        Rate(Rc::new(meets))
    }

    /// The share of values for which `f` returns `None`, from 0 to 1: see [`AggregateBuilder::rate`].
    pub fn null_rate<V>(self, f: impl Fn(&T) -> Option<V> + 'static) -> Rate<T> {
        self.rate(move |value| f(value).is_none())
    }
}

/// See [`AggregateBuilder::count`].
pub struct Count<T>(PhantomData<fn(T)>);
/// See [`AggregateBuilder::any`].
pub struct Any<T>(Take<T, bool>);
/// See [`AggregateBuilder::all`]. Counts the values that do not meet the condition.
pub struct All<T>(Take<T, bool>);
/// See [`AggregateBuilder::rate`].
pub struct Rate<T>(Take<T, bool>);

shows_nothing_as! { Count; "0" }

impl<T: 'static> Aggregate<T> for Count<T> {
    type State = u64;
    type Out = u64;
    fn empty(&self) -> u64 {
        0
    }
    #[inline]
    fn add(&self, state: &mut u64, _: &T) {
        *state = state.wrapping_add(1);
    }
    #[inline]
    fn merge(&self, state: &mut u64, other: u64) {
        *state = state.wrapping_add(other);
    }
    fn finish(&self, state: &u64) -> u64 {
        *state
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, state: &mut u64, _: &T) {
        // A subtraction may precede its addition: the total is right only if no intermediate result is
        // clamped.
        *state = state.wrapping_sub(1);
    }
}

/// Aggregates whose state is a number of values.
macro_rules! any_of_them { ($($A:ident, $n:ident => $shown:expr);+) => { $(
    impl<T: 'static> Aggregate<T> for $A<T> {
        type State = u64;
        type Out = bool;
        fn empty(&self) -> u64 { 0 }
        #[inline]
        fn add(&self, state: &mut u64, value: &T) {
            *state = state.wrapping_add(u64::from((self.0)(value)));
        }
        #[inline]
        fn merge(&self, state: &mut u64, other: u64) { *state = state.wrapping_add(other); }
        fn finish(&self, $n: &u64) -> bool { $shown }
        fn undoes(&self) -> bool { true }
        fn undo(&self, state: &mut u64, value: &T) {
            *state = state.wrapping_sub(u64::from((self.0)(value)));
        }
    }
)+ } }
any_of_them! { Any, n => *n != 0; All, n => *n == 0 }

impl<T: 'static> Aggregate<T> for Rate<T> {
    /// The number that meets the condition, and the number of all values.
    type State = (u64, u64);
    type Out = F64;
    fn empty(&self) -> (u64, u64) {
        (0, 0)
    }
    #[inline]
    fn add(&self, (some, all): &mut (u64, u64), value: &T) {
        *some = some.wrapping_add(u64::from((self.0)(value)));
        *all = all.wrapping_add(1);
    }
    #[inline]
    fn merge(&self, (some, all): &mut (u64, u64), other: (u64, u64)) {
        *some = some.wrapping_add(other.0);
        *all = all.wrapping_add(other.1);
    }
    fn finish(&self, (some, all): &(u64, u64)) -> F64 {
        F64::new(*some as f64 / (*all).max(1) as f64)
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, (some, all): &mut (u64, u64), value: &T) {
        *some = some.wrapping_sub(u64::from((self.0)(value)));
        *all = all.wrapping_sub(1);
    }
}
