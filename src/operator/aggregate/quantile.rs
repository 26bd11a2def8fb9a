//! Quantiles: medians and percentiles.

use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::operator::aggregate::ddsketch::{DdSketch, ERROR_MIN};
use crate::operator::aggregate::{Aggregate, AggregateBuilder, Take};
use crate::record::F64;

/// The default relative error.
const ERROR: f64 = 0.01;

impl<T> AggregateBuilder<T> {
    /// The approximate `q`-quantile of the numbers that `f` returns: an [`F64`] within 1 % of the number with
    /// rank ⌊`q` (n − 1)⌋, counted from 0, when the n numbers are sorted. So 0.5 is the median, 0.99 the 99th
    /// percentile, 0 and 1 the minimum and maximum. [`Quantile::relative_error`] changes the 1 %.
    ///
    /// It is a [DDSketch](https://arxiv.org/abs/1908.10693), which counts numbers in buckets of one relative
    /// width, so its error is relative to the number and not to its rank. Numbers closer to zero than 2.2 ×
    /// 10⁻³⁰⁸ count as zero; infinities are exact; NaN counts as greater than all others.
    ///
    /// Can be undone. A key takes about 24 bytes per occupied bucket, of which there are 38 for each
    /// doubling: at most 3 KiB if the greatest number is 10 times the smallest, 9 KiB if it is a thousand
    /// times, whatever their count.
    ///
    /// ```
    /// use thalweg::prelude::*;
    /// let p99 = AggregateBuilder::<u32>::default().quantile(0.99, |ms| *ms);
    /// let mut state = p99.empty();
    /// (1..=1_000).for_each(|ms| p99.add(&mut state, &ms));
    /// let shown = p99.finish(&state).get();
    /// assert!((shown / 990.0 - 1.0).abs() <= 0.01);
    /// ```
    ///
    /// # Panics
    /// Panics if `q` is not from 0 to 1.
    #[track_caller]
    pub fn quantile<N: Number>(self, q: f64, f: impl Fn(&T) -> N + 'static) -> Quantile<T> {
        Quantile(self.quantiles([q], f))
    }

    /// Several [quantiles](AggregateBuilder::quantile) from one sketch: `a.quantiles([0.5, 0.99], |p| p.ms)`.
    /// In rows and in JSON they appear as a tuple: `view.fields(["p50", "p99"])` names them.
    ///
    /// Can be undone. A key takes as much as for [`AggregateBuilder::quantile`].
    ///
    /// # Panics
    /// Panics if one of `qs` is not from 0 to 1.
    #[track_caller]
    pub fn quantiles<N: Number, const M: usize>(
        self,
        qs: [f64; M],
        f: impl Fn(&T) -> N + 'static,
    ) -> Quantiles<T, M> {
        for q in qs {
            assert!((0.0..=1.0).contains(&q), "a quantile is from 0 to 1, not {q}");
        }
        Quantiles {
            qs,
            f: Rc::new(move |value| f(value).to_f64()),
            error: ERROR,
        }
    }
}

/// See [`AggregateBuilder::quantile`].
pub struct Quantile<T>(Quantiles<T, 1>);
/// See [`AggregateBuilder::quantiles`].
pub struct Quantiles<T, const M: usize> {
    qs: [f64; M],
    f: Take<T, f64>,
    error: f64,
}

impl<T> Quantile<T> {
    /// Sets the relative error, 0.01 (1 %) by default. Half the error takes twice the buckets. If checkpoints
    /// hold the step's state, declare another [version](crate::dataflow::window::Windows::version) with the
    /// change.
    ///
    /// # Panics
    /// Panics if it is not from 0.00001 to 1.
    #[track_caller]
    pub fn relative_error(self, error: f64) -> Self {
        Self(self.0.relative_error(error))
    }
}

impl<T, const M: usize> Quantiles<T, M> {
    /// See [`Quantile::relative_error`].
    ///
    /// # Panics
    /// Panics as that does.
    #[track_caller]
    pub fn relative_error(self, error: f64) -> Self {
        assert!(
            (ERROR_MIN..=1.0).contains(&error),
            "the relative error of quantiles is from {ERROR_MIN} to 1, not {error}"
        );
        Self { error, ..self }
    }
}

/// The result of [`AggregateBuilder::quantiles`]: an array, which serde serializes as a tuple.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuantileArray<const M: usize>(pub [F64; M]);

impl<const M: usize> Deref for QuantileArray<M> {
    type Target = [F64; M];
    fn deref(&self) -> &[F64; M] {
        &self.0
    }
}

/// serde itself only supports arrays of fixed lengths.
impl<const M: usize> Serialize for QuantileArray<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(M)?;
        for value in &self.0 {
            tuple.serialize_element(value)?;
        }
        tuple.end()
    }
}

impl<'de, const M: usize> Deserialize<'de> for QuantileArray<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array<const M: usize>;
        impl<'de, const M: usize> Visitor<'de> for Array<M> {
            type Value = QuantileArray<M>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{M} floats")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut values = [F64::new(0.0); M];
                for (at, value) in values.iter_mut().enumerate() {
                    let next = seq.next_element()?;
                    *value = next.ok_or_else(|| A::Error::invalid_length(at, &self))?;
                }
                Ok(QuantileArray(values))
            }
        }
        deserializer.deserialize_tuple(M, Array)
    }
}

/// A number that converts to a float, to within half a unit in the last place.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no quantiles",
    note = "integers, `f32`, `f64` and `F64` have"
)]
pub trait Number: 'static {
    /// The nearest float.
    fn to_f64(self) -> f64;
}

macro_rules! numbers { ($($N:ty)+) => { $(
    impl Number for $N {
        fn to_f64(self) -> f64 { self as f64 }
    }
)+ } }
numbers! { i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize f32 f64 }

impl Number for F64 {
    fn to_f64(self) -> f64 {
        self.get()
    }
}

impl<T: 'static, const M: usize> Aggregate<T> for Quantiles<T, M> {
    type State = DdSketch;
    type Out = QuantileArray<M>;
    fn empty(&self) -> DdSketch {
        DdSketch::new(self.error)
    }
    fn add(&self, sketch: &mut DdSketch, value: &T) {
        sketch.count((self.f)(value), 1);
    }
    fn merge(&self, sketch: &mut DdSketch, other: DdSketch) {
        sketch.merge(other);
    }
    fn finish(&self, sketch: &DdSketch) -> QuantileArray<M> {
        QuantileArray(self.qs.map(|q| F64::new(sketch.quantile(q))))
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, sketch: &mut DdSketch, value: &T) {
        sketch.count((self.f)(value), -1);
    }
}

impl<T: 'static> Aggregate<T> for Quantile<T> {
    type State = DdSketch;
    type Out = F64;
    fn empty(&self) -> DdSketch {
        self.0.empty()
    }
    fn add(&self, sketch: &mut DdSketch, value: &T) {
        self.0.add(sketch, value);
    }
    fn merge(&self, sketch: &mut DdSketch, other: DdSketch) {
        self.0.merge(sketch, other);
    }
    fn finish(&self, sketch: &DdSketch) -> F64 {
        self.0.finish(sketch).0[0]
    }
    fn undoes(&self) -> bool {
        true
    }
    fn undo(&self, sketch: &mut DdSketch, value: &T) {
        self.0.undo(sketch, value);
    }
}
