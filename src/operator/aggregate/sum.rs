//! Exact sums and means.

use std::marker::PhantomData;
use std::rc::Rc;

use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::operator::exact::{FloatSum, IntegerSum};
use crate::record::{Event, F64, Record};

impl<T> AggregateBuilder<T> {
    /// The sum of the values that `f` returns: `i128` for integers, [`F64`] for floats. Both are exact until
    /// they are emitted, so results do not depend on the order of addition: then floats are rounded, and sums
    /// beyond the range of `i128` saturate. [`Sum::checked`] converts to another width.
    ///
    /// Can be undone. A key takes 24 bytes for integers; for floats 48, plus 32 for each 64 binary places
    /// that occur (mostly one to three).
    pub fn sum<N: Summable>(self, f: impl Fn(&T) -> N + 'static) -> Sum<T, N> {
        Sum(Rc::new(f))
    }

    /// The mean of the values that `f` returns: the float nearest to the exact quotient of sum and count. The
    /// mean of finite values is finite.
    ///
    /// Can be undone. A key takes 8 bytes more than for [`AggregateBuilder::sum`].
    pub fn avg<N: Summable>(self, f: impl Fn(&T) -> N + 'static) -> Avg<T, N> {
        Avg(Rc::new(f))
    }
}

/// See [`AggregateBuilder::sum`].
pub struct Sum<T, N>(Take<T, N>);
/// See [`AggregateBuilder::avg`].
pub struct Avg<T, N>(Take<T, N>);
/// See [`Sum::checked`].
pub struct Checked<T, N, M>(Sum<T, N>, PhantomData<fn() -> M>);

impl<T, N: Summable> Sum<T, N> {
    /// Emits the sum of integers as another type, such as `i64`, which JSON readers and Avro support
    /// directly: `None` while it does not fit, like `i64::checked_add`. The sum stays exact internally, so it
    /// reappears when it fits again.
    ///
    /// ```
    /// use thalweg::prelude::*;
    /// let sum = AggregateBuilder::<i64>::default().sum(|n| *n).checked::<i64>();
    /// let mut state = sum.empty();
    /// sum.add(&mut state, &i64::MAX);
    /// assert_eq!(sum.finish(&state), Some(i64::MAX));
    /// sum.add(&mut state, &1);
    /// assert_eq!(sum.finish(&state), None);
    /// sum.add(&mut state, &-2);
    /// assert_eq!(sum.finish(&state), Some(i64::MAX - 1));
    /// ```
    pub fn checked<M: TryFrom<N::Shown> + Record>(self) -> Checked<T, N, M> {
        Checked(self, PhantomData)
    }
}

/// A type that can be summed exactly.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be summed",
    note = "integers sum into `i128`, `f64` and `F64` into `F64`, each exactly"
)]
pub trait Summable: Event {
    /// The running sum.
    type Total: Event + Default;
    /// The sum as emitted.
    type Shown: Record;
    /// Adds this to a sum.
    fn plus(self, total: &mut Self::Total);
    /// Subtracts this from a sum.
    fn minus(self, total: &mut Self::Total);
    /// Adds one sum to another.
    fn join(total: &mut Self::Total, other: Self::Total);
    /// The sum as emitted.
    fn show(total: &Self::Total) -> Self::Shown;
    /// The sum, unless the emitted value saturated.
    fn fits(total: &Self::Total) -> Option<Self::Shown> {
        Some(Self::show(total))
    }
    /// The sum divided by `n`.
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
        fn fits(total: &IntegerSum) -> Option<i128> { total.fits() }
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

impl<T: 'static, N: Summable, M: TryFrom<N::Shown> + Record> Aggregate<T> for Checked<T, N, M> {
    type State = N::Total;
    type Out = Option<M>;
    fn empty(&self) -> N::Total {
        N::Total::default()
    }
    #[inline]
    fn add(&self, state: &mut N::Total, value: &T) {
        self.0.add(state, value);
    }
    #[inline]
    fn merge(&self, state: &mut N::Total, other: N::Total) {
        N::join(state, other);
    }
    fn finish(&self, state: &N::Total) -> Option<M> {
        M::try_from(N::fits(state)?).ok()
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, state: &mut N::Total, value: &T) {
        self.0.undo(state, value);
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
        state.0 = state.0.wrapping_add(1);
        (self.0)(value).plus(&mut state.1);
    }
    fn merge(&self, state: &mut Self::State, other: Self::State) {
        state.0 = state.0.wrapping_add(other.0);
        N::join(&mut state.1, other.1);
    }
    fn finish(&self, state: &Self::State) -> F64 {
        N::mean(&state.1, state.0.max(1))
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, state: &mut Self::State, value: &T) {
        state.0 = state.0.wrapping_sub(1);
        (self.0)(value).minus(&mut state.1);
    }
}
