//! DDSketch: counts of values in buckets of one relative width, from which any quantile follows to within a
//! relative error. Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees" (2019).
//!
//! ```text
//!        −∞ │ … −2^e … │ 0 │ … 2^e          2^(e+1) … │ ∞ │ NaN
//!                             ├─┼─┼──┼──┼───┼───┤
//!                              m buckets an octave: value (1 + s) 2^e is in bucket ⌊m s (4 − s) / 3⌋ of it
//! ```
//!
//! Buckets follow the paper's quadratic interpolation of the logarithm: s (4 − s) / 3 goes from 0 to 1 with
//! s, at least 4/3 times as fast as ln (1 + s). So a bucket's bounds are at most a factor of exp (3 / 4m)
//! apart, and 2 lo hi / (lo + hi) is at most 3 / 8m from every value between them. No logarithm is computed,
//! so a value has the same bucket on every machine.
//!
//! Buckets are never merged, so values can be removed again, and results do not depend on their order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde::{Deserialize, Serialize};

/// The smallest relative error: with it, buckets still number within an `i32`.
pub(super) const ERROR_MIN: f64 = 1e-5;

/// Buckets for values without a logarithm, beyond all others.
const INFINITE: i32 = i32::MAX - 1;
const NAN: i32 = i32::MAX;

/// The sketch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DdSketch {
    per_octave: i32,
    /// The number of values by bucket, in the order of values: 0 holds zero, −b the negatives of b's values.
    /// A count is negative if values are removed before they are added.
    counts: BTreeMap<i32, i64>,
}

impl DdSketch {
    /// An empty sketch. The error is from [`ERROR_MIN`] to 1.
    pub(super) fn new(relative_error: f64) -> Self {
        let per_octave = (3.0 / (8.0 * relative_error)).ceil() as i32;
        let counts = BTreeMap::new();
        Self { per_octave, counts }
    }

    /// Adds a value the given number of times.
    pub(super) fn count(&mut self, value: f64, times: i64) {
        self.put(bucket(value, self.per_octave), times);
    }

    fn put(&mut self, bucket: i32, times: i64) {
        match self.counts.entry(bucket) {
            Entry::Vacant(vacant) => _ = vacant.insert(times),
            Entry::Occupied(mut there) => {
                *there.get_mut() += times;
                if *there.get() == 0 {
                    there.remove();
                }
            }
        }
    }

    /// Adds everything that another sketch has counted.
    pub(super) fn merge(&mut self, mut other: DdSketch) {
        assert!(
            self.per_octave == other.per_octave,
            "state of `quantile` of relative error {} met one of {}: give the step another `version` when the \
             relative error changes",
            0.375 / f64::from(self.per_octave),
            0.375 / f64::from(other.per_octave)
        );
        if self.counts.len() < other.counts.len() {
            std::mem::swap(self, &mut other);
        }
        other
            .counts
            .into_iter()
            .for_each(|(bucket, times)| self.put(bucket, times));
    }

    /// Approximately the value with rank ⌊q (n − 1)⌋ of n, counted from 0.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        let n: i64 = self.counts.values().sum();
        let rank = (q * (n - 1).max(0) as f64) as i64;
        let mut below = 0;
        let mut holds = self.counts.iter().skip_while(|(_, times)| {
            below += **times;
            below <= rank
        });
        let last = self.counts.last_key_value();
        let found = holds.next().or(last);
        found.map_or(f64::NAN, |(bucket, _)| middle(*bucket, self.per_octave))
    }
}

fn bucket(value: f64, per_octave: i32) -> i32 {
    let bits = value.abs().to_bits();
    let exponent = (bits >> 52) as i32;
    let bucket = if value.is_nan() {
        return NAN;
    } else if value.is_infinite() {
        INFINITE
    } else if exponent == 0 {
        0
    } else {
        let s = f64::from_bits(bits & ((1 << 52) - 1) | 1.0f64.to_bits()) - 1.0;
        let within = f64::from(per_octave) * (s * (4.0 - s) / 3.0);
        1 + (exponent - 1) * per_octave + (within as i32).min(per_octave - 1)
    };
    if value < 0.0 { -bucket } else { bucket }
}

/// The value that minimizes the relative error over a bucket.
fn middle(bucket: i32, per_octave: i32) -> f64 {
    let magnitude = match bucket.saturating_abs() {
        0 => return 0.0,
        NAN => return f64::NAN,
        INFINITE => f64::INFINITY,
        place => {
            let (exponent, within) = ((place - 1) / per_octave + 1, (place - 1) % per_octave);
            let bound = |at: i32| 3.0 - (4.0 - 3.0 * f64::from(at) / f64::from(per_octave)).sqrt();
            let (lo, hi) = (bound(within), bound(within + 1));
            2.0 * lo * hi / (lo + hi) * f64::from_bits((exponent as u64) << 52)
        }
    };
    if bucket < 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Values of every sign and magnitude.
    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            -1e6f64..1e6,
            prop::sample::select(vec![
                0.0,
                -0.0,
                1.0,
                -1.0,
                f64::MAX,
                f64::MIN,
                f64::MIN_POSITIVE,
                5e-324,
                f64::INFINITY,
                f64::NEG_INFINITY,
                f64::NAN
            ]),
        ]
    }

    fn is_close(estimate: f64, value: f64, error: f64) -> bool {
        match value {
            _ if value.is_nan() => estimate.is_nan(),
            _ if value.is_infinite() => estimate == value,
            _ if value.abs() < f64::MIN_POSITIVE => estimate == 0.0,
            // Divided first, because the difference of the greatest floats might overflow.
            _ => (estimate / value - 1.0).abs() <= error,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_value_is_close_to_the_middle_of_its_bucket(value in value(), error in ERROR_MIN..1.0) {
            let per_octave = DdSketch::new(error).per_octave;
            let middle = middle(bucket(value, per_octave), per_octave);
            prop_assert!(is_close(middle, value, error), "{middle} for {value}, to within {error}");
        }

        #[test]
        fn buckets_stand_in_the_order_of_values(one in value(), other in value(), error in 0.001f64..1.0) {
            let per_octave = DdSketch::new(error).per_octave;
            let [one_bucket, other_bucket, nan] = [one, other, f64::NAN].map(|v| bucket(v, per_octave));
            prop_assert!(one_bucket <= nan && other_bucket <= nan);
            // Of a NaN and another value neither is greater.
            if one <= other {
                prop_assert!(one_bucket <= other_bucket);
            }
            if other <= one {
                prop_assert!(other_bucket <= one_bucket);
            }
        }
    }

    #[test]
    fn every_bucket_holds_its_middle() {
        for error in [0.2, 0.01, 0.001] {
            let per_octave = DdSketch::new(error).per_octave;
            for at in (1..2_046 * per_octave).step_by(7) {
                assert_eq!(bucket(middle(at, per_octave), per_octave), at);
                assert_eq!(bucket(middle(-at, per_octave), per_octave), -at);
            }
        }
    }

    #[test]
    fn memory_grows_with_the_spread_of_values_and_not_with_their_number() {
        let mut sketch = DdSketch::new(0.01);
        // Latencies from 1 to 100,000: about 17 octaves.
        (0..1_000_000).for_each(|n| sketch.count(f64::from(n % 100_000 + 1), 1));
        assert!(sketch.counts.len() <= 17 * 38, "{}", sketch.counts.len());
    }

    #[test]
    #[should_panic(expected = "give the step another `version`")]
    fn sketches_of_two_errors_do_not_mix() {
        DdSketch::new(0.01).merge(DdSketch::new(0.02));
    }
}
