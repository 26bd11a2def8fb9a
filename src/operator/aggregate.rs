//! Aggregates: commutative, associative folds of values into a state.
//!
//! | | |
//! |---|---|
//! | [`count`] | how many, how many that meet a condition, and what share |
//! | [`sum`], [`variance`] | exact sums, means and variances |
//! | [`extremes`] | least and greatest values, and what comes with them: first, last, arg min, arg max |
//! | [`ranked`] | lists of bounded length: the greatest, the least |
//! | [`distinct`] | how many distinct values, exactly and approximately |
//! | [`quantile`] | median, percentiles |
//! | [`when`] | any of these over the values that meet a condition |
//!
//! `docs/aggregates.md` compares them: what each shows, keeps and costs.

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

/// Folds values of `T` into a state and shows a result. Implement it for an aggregate of your own:
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
/// `add` and `merge` must give the same state in whatever order and grouping the values come: how records
/// fall to workers and epochs is not for a result to depend on. [`crate::testing::permutes`] tests that.
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
    /// What is kept for a key.
    type State: Event;
    /// What is shown of it.
    type Out: Record;
    /// The state of no value.
    fn empty(&self) -> Self::State;
    /// Folds one value in.
    fn add(&self, state: &mut Self::State, value: &T);
    /// Folds another state in.
    fn merge(&self, state: &mut Self::State, other: Self::State);
    /// The result. Called with at least one value folded in.
    fn finish(&self, state: &Self::State) -> Self::Out;
    /// Whether [`Aggregate::undo`] works: then a group of a collection needs no copy of its values. Where it
    /// does not, a group of n values keeps them, and about n / 7 states of parts of them, of which each
    /// change merges some 8 × log8(n) anew.
    fn undoes(&self) -> bool {
        false
    }
    /// Takes out a value that was folded in. Only called where [`Aggregate::undoes`].
    fn undo(&self, _state: &mut Self::State, _value: &T) {}

    /// Aggregates only the values that meet a condition, as SQL's `FILTER (WHERE …)` does: shows `None` where
    /// no value does. Those that have a result for no value, such as [`Of::count`], have a `when` of their
    /// own that shows it instead.
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

/// Makes aggregates over `T`; handed to the closure of `aggregate`, so that no type needs to be written
/// there.
pub struct Of<T>(PhantomData<fn(T)>);

impl<T> Clone for Of<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Of<T> {}
impl<T> Default for Of<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

/// Takes a part of a value.
type Take<T, V> = Rc<dyn Fn(&T) -> V>;
