//! Aggregates: commutative, associative folds of values into a state.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::operator::exact::{FloatSum, IntegerSum};
use crate::record::{Event, F64, Record};

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
    label = "expected `a.count()`, `a.sum(..)`, … or a tuple of up to 8 of them",
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

impl<T> Of<T> {
    /// How many values: a `u64`.
    pub fn count(self) -> Count {
        Count
    }

    /// The sum of what `f` takes from each value: `i128` for integers, [`F64`] for floats. Both are exact
    /// until they are shown, so no order of addition shows in the result: then floats are rounded, and a sum
    /// beyond `i128` is shown as the greatest or least of its values.
    pub fn sum<N: Summable>(self, f: impl Fn(&T) -> N + 'static) -> Sum<T, N> {
        Sum(Rc::new(f))
    }

    /// The mean of what `f` takes from each value: the float nearest to the exact sum over their number. That
    /// of finite values is finite.
    pub fn avg<N: Summable>(self, f: impl Fn(&T) -> N + 'static) -> Avg<T, N> {
        Avg(Rc::new(f))
    }

    /// The least of what `f` takes from each value.
    pub fn min<V: Record>(self, f: impl Fn(&T) -> V + 'static) -> Min<T, V> {
        Min(Rc::new(f))
    }

    /// The greatest of what `f` takes from each value.
    pub fn max<V: Record>(self, f: impl Fn(&T) -> V + 'static) -> Max<T, V> {
        Max(Rc::new(f))
    }
}

/// Takes a part of a value.
type Take<T, V> = Rc<dyn Fn(&T) -> V>;

/// See [`Of::count`].
pub struct Count;
/// See [`Of::sum`].
pub struct Sum<T, N>(Take<T, N>);
/// See [`Of::avg`].
pub struct Avg<T, N>(Take<T, N>);
/// See [`Of::min`].
pub struct Min<T, V>(Take<T, V>);
/// See [`Of::max`].
pub struct Max<T, V>(Take<T, V>);

/// What can be summed exactly.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be summed",
    note = "integers sum into `i128`, `f64` and `F64` into `F64`, each exactly"
)]
pub trait Summable: Event {
    /// The running sum.
    type Total: Event + Default;
    /// The sum, as shown.
    type Shown: Record;
    /// Adds this to a sum.
    fn plus(self, total: &mut Self::Total);
    /// Takes this out of a sum.
    fn minus(self, total: &mut Self::Total);
    /// Adds one sum to another.
    fn join(total: &mut Self::Total, other: Self::Total);
    /// The sum as shown.
    fn show(total: &Self::Total) -> Self::Shown;
    /// The sum over `n`.
    fn mean(total: &Self::Total, n: u64) -> F64;
}

macro_rules! summable_integers { ($($N:ty, $value:ident => $($part:expr),+);+) => { $(
    impl Summable for $N {
        type Total = IntegerSum;
        type Shown = i128;
        #[inline]
        fn plus(self, total: &mut IntegerSum) { let $value = self; $(total.add($part as i128);)+ }
        #[inline]
        fn minus(self, total: &mut IntegerSum) { let $value = self; $(total.take($part as i128);)+ }
        #[inline]
        fn join(total: &mut IntegerSum, other: IntegerSum) { total.join(&other) }
        fn show(total: &IntegerSum) -> i128 { total.value() }
        fn mean(total: &IntegerSum, n: u64) -> F64 { F64::new(total.mean(n)) }
    }
)+ } }
summable_integers! {
    i8, v => v; i16, v => v; i32, v => v; i64, v => v; i128, v => v; isize, v => v;
    u8, v => v; u16, v => v; u32, v => v; u64, v => v; usize, v => v;
    u128, v => (v / 2), (v / 2), (v % 2)
}

macro_rules! summable_floats { ($($N:ty, $value:ident => $float:expr);+) => { $(
    impl Summable for $N {
        type Total = FloatSum;
        type Shown = F64;
        fn plus(self, total: &mut FloatSum) { let $value = self; total.add($float) }
        fn minus(self, total: &mut FloatSum) { let $value = self; total.take($float) }
        fn join(total: &mut FloatSum, other: FloatSum) { total.join(&other) }
        fn show(total: &FloatSum) -> F64 { F64::new(total.value()) }
        fn mean(total: &FloatSum, n: u64) -> F64 { F64::new(total.mean(n)) }
    }
)+ } }
summable_floats! { f64, v => v; f32, v => f64::from(v); F64, v => v.get() }

impl<T: 'static> Aggregate<T> for Count {
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
        // Where one comes before what it takes out, the sum of all is right only if nothing is cut off.
        *state = state.wrapping_sub(1);
    }
}

impl<T: 'static, N: Summable> Aggregate<T> for Sum<T, N> {
    type State = N::Total;
    type Out = N::Shown;
    fn empty(&self) -> N::Total {
        N::Total::default()
    }
    #[inline]
    fn add(&self, state: &mut N::Total, value: &T) {
        (self.0)(value).plus(state);
    }
    #[inline]
    fn merge(&self, state: &mut N::Total, other: N::Total) {
        N::join(state, other);
    }
    fn finish(&self, state: &N::Total) -> N::Shown {
        N::show(state)
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, state: &mut N::Total, value: &T) {
        (self.0)(value).minus(state);
    }
}

impl<T: 'static, N: Summable> Aggregate<T> for Avg<T, N> {
    type State = (u64, N::Total);
    type Out = F64;
    fn empty(&self) -> Self::State {
        (0, N::Total::default())
    }
    #[inline]
    fn add(&self, state: &mut Self::State, value: &T) {
        Count.add(&mut state.0, value);
        (self.0)(value).plus(&mut state.1);
    }
    fn merge(&self, state: &mut Self::State, other: Self::State) {
        <Count as Aggregate<T>>::merge(&Count, &mut state.0, other.0);
        N::join(&mut state.1, other.1);
    }
    fn finish(&self, state: &Self::State) -> F64 {
        N::mean(&state.1, state.0.max(1))
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, state: &mut Self::State, value: &T) {
        Count.undo(&mut state.0, value);
        (self.0)(value).minus(&mut state.1);
    }
}

macro_rules! extremes { ($($A:ident $better:ident),+) => { $(
    impl<T: 'static, V: Record> Aggregate<T> for $A<T, V> {
        type State = Option<V>;
        /// A group exists only while it has a value, so there is no `Option` for the user.
        type Out = V;
        fn empty(&self) -> Option<V> {
            None
        }
        fn add(&self, state: &mut Option<V>, value: &T) {
            self.merge(state, Some((self.0)(value)));
        }
        fn merge(&self, state: &mut Option<V>, other: Option<V>) {
            *state = match (state.take(), other) {
                (Some(a), Some(b)) => Some(a.$better(b)),
                (a, b) => a.or(b),
            };
        }
        fn finish(&self, state: &Option<V>) -> V {
            state.clone().expect("finish is called with at least one value folded in")
        }
    }
)+ } }
extremes! { Min min, Max max }

macro_rules! tuples { ($(($($A:ident $i:tt),+))+) => { $(
    impl<T, $($A: Aggregate<T>),+> Aggregate<T> for ($($A,)+) {
        type State = ($($A::State,)+);
        type Out = ($($A::Out,)+);
        fn empty(&self) -> Self::State { ($(self.$i.empty(),)+) }
        #[inline]
        fn add(&self, state: &mut Self::State, value: &T) { $(self.$i.add(&mut state.$i, value);)+ }
        #[inline]
        fn merge(&self, state: &mut Self::State, other: Self::State) {
            $(self.$i.merge(&mut state.$i, other.$i);)+
        }
        fn finish(&self, state: &Self::State) -> Self::Out { ($(self.$i.finish(&state.$i),)+) }
        fn undoes(&self) -> bool { $(self.$i.undoes())&&+ }
        fn undo(&self, state: &mut Self::State, value: &T) { $(self.$i.undo(&mut state.$i, value);)+ }
    }
)+ } }
tuples! {
    (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4) (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6) (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}
