//! Variances and standard deviations, exact until the final rounding.

use std::marker::PhantomData;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::operator::aggregate::sum::Summable;
use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::operator::exact::{FloatSquares, IntegerSum, Spread};
use crate::record::{Event, F64};

impl<T> AggregateBuilder<T> {
    /// The population variance (over n) of the values that `f` returns: the float nearest to the exact one.
    /// It is kept as exact sums of numbers and of their squares, so it depends neither on the order of values
    /// nor on the distance of the mean from zero. NaN if one of the values is not finite.
    ///
    /// Can be undone. A key takes 56 bytes for integers, and for floats three times as much as
    /// [`AggregateBuilder::sum`].
    ///
    /// ```
    /// use thalweg::prelude::*;
    /// let variance = AggregateBuilder::<i64>::default().var_pop(|n| *n);
    /// let mut state = variance.empty();
    /// for n in [1_000_000_000_000_000_001, 1_000_000_000_000_000_003] {
    ///     variance.add(&mut state, &n);
    /// }
    /// assert_eq!(variance.finish(&state).get(), 1.0);
    /// ```
    pub fn var_pop<N: Measurable>(self, f: impl Fn(&T) -> N + 'static) -> Population<T, N> {
        Population::new(f, Spread::Variance)
    }

    /// The sample variance (over n − 1) of the values that `f` returns: `None` for a single value. Otherwise
    /// like [`AggregateBuilder::var_pop`].
    pub fn var_samp<N: Measurable>(self, f: impl Fn(&T) -> N + 'static) -> Sample<T, N> {
        Sample::new(f, Spread::Variance)
    }

    /// The population standard deviation of the values that `f` returns: the square root of
    /// [`AggregateBuilder::var_pop`], to within one unit in the last place, even if the variance exceeds the
    /// range of a float.
    pub fn stddev_pop<N: Measurable>(self, f: impl Fn(&T) -> N + 'static) -> Population<T, N> {
        Population::new(f, Spread::Deviation)
    }

    /// The sample standard deviation of the values that `f` returns: `None` for a single value. Otherwise
    /// like [`AggregateBuilder::stddev_pop`].
    pub fn stddev_samp<N: Measurable>(self, f: impl Fn(&T) -> N + 'static) -> Sample<T, N> {
        Sample::new(f, Spread::Deviation)
    }
}

/// See [`AggregateBuilder::var_pop`] and [`AggregateBuilder::stddev_pop`].
pub struct Population<T, N>(Take<T, N>, Spread);
/// See [`AggregateBuilder::var_samp`] and [`AggregateBuilder::stddev_samp`].
pub struct Sample<T, N>(Take<T, N>, Spread);

/// The count of numbers, their sum and the sum of their squares.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PowerSums<S, Q> {
    n: u64,
    sum: S,
    squares: Q,
}

/// A type that has a variance.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no variance",
    note = "integers of up to 64 bits, `f32`, `f64` and `F64` have"
)]
pub trait Measurable: Summable + Copy {
    /// The running sum of squares.
    type Squares: Event + Default;
    /// Adds the square of this to a sum.
    fn plus_square(self, squares: &mut Self::Squares);
    /// Subtracts the square of this from a sum.
    fn minus_square(self, squares: &mut Self::Squares);
    /// Adds one sum to another.
    fn join_squares(squares: &mut Self::Squares, other: Self::Squares);
    /// The variance or deviation, from sums of `n` numbers of which `n - without` are degrees of freedom.
    fn spread(which: Spread, total: &Self::Total, squares: &Self::Squares, n: u64, without: u64) -> f64;
}

macro_rules! measurable_integers { ($($N:ty)+) => { $(
    impl Measurable for $N {
        type Squares = IntegerSum;
        #[inline]
        fn plus_square(self, squares: &mut IntegerSum) {
            halves(self as i128, |part| squares.add(part));
        }
        #[inline]
        fn minus_square(self, squares: &mut IntegerSum) {
            halves(self as i128, |part| squares.take(part));
        }
        #[inline]
        fn join_squares(squares: &mut IntegerSum, other: IntegerSum) { squares.join(&other) }
        fn spread(which: Spread, total: &IntegerSum, squares: &IntegerSum, n: u64, without: u64) -> f64 {
            which.of_integers(total, squares, n, without)
        }
    }
)+ } }
measurable_integers! { i8 i16 i32 i64 isize u8 u16 u32 u64 usize }

/// The square of an integer of up to 64 bits, in parts that fit into an `i128`.
#[inline]
fn halves(value: i128, mut part: impl FnMut(i128)) {
    let square = value.unsigned_abs().pow(2);
    let half = (square / 2) as i128;
    part(half);
    part(half + (square % 2) as i128);
}

macro_rules! measurable_floats { ($($N:ty, $value:ident => $float:expr);+) => { $(
    impl Measurable for $N {
        type Squares = FloatSquares;
        fn plus_square(self, squares: &mut FloatSquares) { let $value = self; squares.add($float) }
        fn minus_square(self, squares: &mut FloatSquares) { let $value = self; squares.take($float) }
        fn join_squares(squares: &mut FloatSquares, other: FloatSquares) { squares.join(&other) }
        fn spread(
            which: Spread,
            total: &Self::Total,
            squares: &FloatSquares,
            n: u64,
            without: u64,
        ) -> f64 {
            which.of_floats(total, squares, n, without)
        }
    }
)+ } }
measurable_floats! { f64, v => v; f32, v => f64::from(v); F64, v => v.get() }

impl<S, Q> PowerSums<S, Q> {
    fn add<N: Measurable<Total = S, Squares = Q>>(&mut self, number: N) {
        self.n = self.n.wrapping_add(1);
        number.plus(&mut self.sum);
        number.plus_square(&mut self.squares);
    }

    fn take<N: Measurable<Total = S, Squares = Q>>(&mut self, number: N) {
        self.n = self.n.wrapping_sub(1);
        number.minus(&mut self.sum);
        number.minus_square(&mut self.squares);
    }

    fn join<N: Measurable<Total = S, Squares = Q>>(&mut self, other: Self, _of: PhantomData<N>) {
        self.n = self.n.wrapping_add(other.n);
        N::join(&mut self.sum, other.sum);
        N::join_squares(&mut self.squares, other.squares);
    }
}

macro_rules! variances { ($($A:ident -> $Out:ty, $moments:ident, $spread:ident => $shown:expr);+) => { $(
    impl<T, N> $A<T, N> {
        fn new(f: impl Fn(&T) -> N + 'static, which: Spread) -> Self { Self(Rc::new(f), which) }
    }
    impl<T: 'static, N: Measurable> Aggregate<T> for $A<T, N> {
        type State = PowerSums<N::Total, N::Squares>;
        type Out = $Out;
        fn empty(&self) -> Self::State {
            let (sum, squares) = Default::default();
            PowerSums { n: 0, sum, squares }
        }
        fn add(&self, snapshots: &mut Self::State, value: &T) { snapshots.add((self.0)(value)) }
        fn merge(&self, snapshots: &mut Self::State, other: Self::State) {
            snapshots.join(other, PhantomData::<N>)
        }
        fn finish(&self, $moments: &Self::State) -> $Out {
            let $spread = |without| {
                let PowerSums { n, sum, squares } = $moments;
                F64::new(N::spread(self.1, sum, squares, (*n).max(1), without))
            };
            $shown
        }
        fn undoes(&self) -> bool { true }
        fn undo(&self, snapshots: &mut Self::State, value: &T) { snapshots.take((self.0)(value)) }
    }
)+ } }
variances! {
    Population -> F64, snapshots, spread => spread(0);
    Sample -> Option<F64>, snapshots, spread => (snapshots.n > 1).then(|| spread(1))
}
