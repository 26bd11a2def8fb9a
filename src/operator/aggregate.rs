//! Aggregates: commutative, associative folds of values into a state.
//!
//! | | |
//! |---|---|
//! | [`count`] | counts: all, those that meet a condition, and their share |
//! | [`sum`], [`variance`] | exact sums, means and variances |
//! | [`extremes`] | minima and maxima, and what belongs to them: first, last, arg min, arg max |
//! | [`ranked`] | bounded lists: the greatest, the smallest |
//! | [`distinct`] | distinct counts, exact and approximate |
//! | [`quantile`] | median, percentiles |
//! | [`when`] | any of these over the values that meet a condition |
//!
//! `docs/aggregates.md` compares them: result, state and cost of each.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::operator::aggregate::when::When;
use crate::record::{Event, Record};

pub mod count;
mod ddsketch;
pub mod distinct;
pub mod extremes;
mod hyperloglog;
pub mod quantile;
pub mod ranked;
pub mod sum;
mod tuples;
pub mod variance;
pub mod when;

/// Folds values of `T` into a state and computes a result. Implement it for a custom aggregate:
///
/// ```
/// use thalweg::prelude::*;
///
/// /// The bitwise or of some flags.
/// struct AnyOf;
/// impl Aggregate<u32> for AnyOf {
///     type State = u32;
///     type Out = u32;
///     fn empty(&self) -> u32 { 0 }
///     fn add(&self, state: &mut u32, value: &u32) { *state |= value }
///     fn merge(&self, state: &mut u32, other: u32) { *state |= other }
///     fn finish(&self, state: &u32) -> u32 { *state }
/// }
///
/// let (mut left, mut right) = (AnyOf.empty(), AnyOf.empty());
/// AnyOf.add(&mut left, &1);
/// AnyOf.add(&mut right, &4);
/// AnyOf.merge(&mut left, right);
/// assert_eq!(AnyOf.finish(&left), 5);
/// ```
///
/// `add` and `merge` must produce the same state in whatever order and grouping the values arrive: results
/// must not depend on how records are distributed over workers and epochs. [`crate::testing::permutes`] tests
/// that.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate over `{T}`",
    label = "expected `a.count()`, `a.sum(..)`, … or a tuple of up to 12 of them",
    note = "there are `count`, `count_if`, `any`, `all`, `rate`, `null_rate`, `count_distinct`, \
        `approx_count_distinct`, `sum`, `avg`, `var_pop`, `var_samp`, `stddev_pop`, `stddev_samp`, `min`, \
        `max`, `arg_min`, `arg_max`, `arg_min_all`, `arg_max_all`, `first`, `last`, `collect`, `top`, \
        `bottom`, `quantile` and `quantiles`; each has `.when(..)`",
    note = "implement `Aggregate<{T}>` for your own; see `thalweg::Aggregate`"
)]
pub trait Aggregate<T>: 'static {
    /// The state per key.
    type State: Event;
    /// The result.
    type Out: Record;
    /// The state of zero values.
    fn empty(&self) -> Self::State;
    /// Folds in a value.
    fn add(&self, state: &mut Self::State, value: &T);
    /// Folds in another state.
    fn merge(&self, state: &mut Self::State, other: Self::State);
    /// The result. Called with at least one value folded in.
    fn finish(&self, state: &Self::State) -> Self::Out;
    /// Whether [`Aggregate::undo`] is supported: then a group of a collection needs no copy of its values.
    /// Otherwise a group of n values keeps them, plus about n / 7 partial states, of which each change merges
    /// some 8 × log8(n) again.
    fn undoes(&self) -> bool {
        false
    }
    /// Removes a value that was folded in. Only called if [`Aggregate::undoes`].
    fn undo(&self, _state: &mut Self::State, _value: &T) {}

    /// Aggregates only the values that meet a condition, like SQL's `FILTER (WHERE …)`: the result is `None`
    /// if no value does. Aggregates with a result for zero values, such as [`AggregateBuilder::count`], have
    /// their own `when` that returns it instead.
    ///
    /// ```
    /// # use thalweg::prelude::*;
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Payment { merchant: u32, cents: i64, declined: bool }
    /// # fn spend(windows: Windows<u32, Payment>) {
    /// windows.aggregate(|a| {
    ///     (
    ///         a.sum(|p| p.cents).when(|p| !p.declined), // Option<i128>
    ///         a.count().when(|p| p.declined),           // u64
    ///     )
    /// })
    /// # .view("spend");
    /// # }
    /// ```
    fn when(self, meets: impl Fn(&T) -> bool + 'static) -> When<T, Self>
    where
        Self: Sized,
        T: 'static,
    {
        When::new(self, meets)
    }
}

/// Creates aggregates over `T`. The closure of `aggregate` receives it, so that no type needs to be written
/// there.
pub struct AggregateBuilder<T>(PhantomData<fn(T)>);

impl<T> Clone for AggregateBuilder<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for AggregateBuilder<T> {}
impl<T> Default for AggregateBuilder<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Extracts a part of a value.
type Take<T, V> = Rc<dyn Fn(&T) -> V>;
