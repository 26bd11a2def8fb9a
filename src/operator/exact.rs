//! Sums that come out the same in whatever order and grouping they are added, and their means.
//!
//! Integers are summed in 192 bits. A finite float is an integer times a power of two, and a sum of floats is
//! kept as such integers, one for each 64 binary places that occur: a small form of the superaccumulator of
//! Neal, "Fast exact summation using small and large superaccumulators" (2015). Whatever is shown of a sum is
//! rounded once, and a mean is divided before it is rounded: that of finite floats is finite, even where
//! their sum is beyond what a float holds.

use serde::{Deserialize, Serialize};

/// An exact sum of integers: `carry` × 2^128 + `low`. It wraps at 2^191, which no number of values
/// reaches that a topic holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i128, i64)", into = "(i128, i64)")]
pub struct IntegerSum {
    /// The lower half first. As an `i128` it would align the sum to 16 bytes, and have it take 32.
    low: [u64; 2],
    carry: i64,
}

impl IntegerSum {
    /// Adds an integer.
    #[inline]
    pub fn add(&mut self, value: i128) {
        let (low, overflows) = self.low().overflowing_add(value);
        self.put(low, if overflows { value.signum() as i64 } else { 0 });
    }

    /// Takes out an integer that was added.
    #[inline]
    pub fn take(&mut self, value: i128) {
        let (low, overflows) = self.low().overflowing_sub(value);
        self.put(low, if overflows { -value.signum() as i64 } else { 0 });
    }

    /// Adds another sum.
    #[inline]
    pub fn join(&mut self, other: &IntegerSum) {
        self.add(other.low());
        self.carry = self.carry.wrapping_add(other.carry);
    }

    #[inline]
    fn low(&self) -> i128 {
        let [low, high] = self.low.map(u128::from);
        (high << 64 | low) as i128
    }

    #[inline]
    fn put(&mut self, low: i128, carry: i64) {
        self.low = [low as u64, (low >> 64) as u64];
        self.carry = self.carry.wrapping_add(carry);
    }

    /// The sum, or of what an `i128` holds the nearest to it.
    pub fn value(&self) -> i128 {
        match self.carry {
            0 => self.low(),
            1.. => i128::MAX,
            _ => i128::MIN,
        }
    }

    /// The sum over `n`, rounded once, to nearest with ties to even.
    pub fn mean(&self, n: u64) -> f64 {
        const EXACT_MAX: u64 = 1 << 53;
        let low = self.low();
        if self.carry == 0 && low.unsigned_abs() <= EXACT_MAX.into() && n <= EXACT_MAX {
            // Both are floats, so the processor's division is the one rounding.
            return low as f64 / n as f64;
        }
        let mut digits = [
            self.low[0],
            self.low[1],
            self.carry.wrapping_sub(i64::from(low < 0)) as u64,
        ];
        let negative = digits[2] >> 63 == 1;
        if negative {
            let mut carries = true;
            for digit in &mut digits {
                (*digit, carries) = (!*digit).overflowing_add(carries.into());
            }
        }
        let magnitude = nearest(digits, 0, n);
        if negative { -magnitude } else { magnitude }
    }
}

impl From<(i128, i64)> for IntegerSum {
    fn from((low, carry): (i128, i64)) -> Self {
        let mut sum = Self::default();
        sum.put(low, carry);
        sum
    }
}

impl From<IntegerSum> for (i128, i64) {
    fn from(sum: IntegerSum) -> Self {
        (sum.low(), sum.carry)
    }
}

/// An exact sum of floats. Infinities and NaN are counted beside it, as IEEE addition would have them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FloatSum {
    /// `(place, integer)`: the sum holds integer × 2^(64 × place − 1074), each integer less than 2^64 in
    /// size; by place.
    parts: Vec<(u16, i128)>,
    nan: i64,
    infinite: (i64, i64),
}

impl FloatSum {
    /// Adds a float.
    pub fn add(&mut self, value: f64) {
        self.count(value, 1);
    }

    /// Takes out a float that was added.
    pub fn take(&mut self, value: f64) {
        self.count(value, -1);
    }

    fn count(&mut self, value: f64, times: i64) {
        if value.is_nan() {
            self.nan += times;
        } else if value.is_infinite() {
            let side = if value > 0.0 {
                &mut self.infinite.0
            } else {
                &mut self.infinite.1
            };
            *side += times;
        } else {
            let bits = value.to_bits();
            let exponent = (bits >> 52 & 0x7ff) as u16;
            let fraction = (bits & ((1 << 52) - 1)) as i128;
            // Subnormals have no hidden bit and the exponent of the least normal number.
            let (mantissa, exponent) = if exponent == 0 {
                (fraction, 1)
            } else {
                (fraction | 1 << 52, exponent)
            };
            let places = exponent - 1;
            let sign = if value < 0.0 { -1 } else { 1 } * i128::from(times);
            self.put(places / 64, sign * (mantissa << (places % 64)));
        }
    }

    /// Adds another sum.
    pub fn join(&mut self, other: &FloatSum) {
        for (place, integer) in &other.parts {
            self.put(*place, *integer);
        }
        self.nan += other.nan;
        self.infinite.0 += other.infinite.0;
        self.infinite.1 += other.infinite.1;
    }

    fn put(&mut self, mut place: u16, mut integer: i128) {
        while integer != 0 {
            let at = self.parts.partition_point(|(p, _)| *p < place);
            if self.parts.get(at).is_none_or(|(p, _)| *p != place) {
                self.parts.insert(at, (place, 0));
            }
            let part = &mut self.parts[at].1;
            let sum = *part + integer;
            // Rounded towards zero, so that a part and what it carries have one sign.
            integer = sum / (1 << 64);
            *part = sum % (1 << 64);
            if *part == 0 {
                self.parts.remove(at);
            }
            place += 1;
        }
    }

    /// The sum, rounded once, to nearest with ties to even.
    pub fn value(&self) -> f64 {
        self.mean(1)
    }

    /// The sum over `n`, rounded once, to nearest with ties to even.
    pub fn mean(&self, n: u64) -> f64 {
        match (self.nan != 0, self.infinite) {
            (true, _) => return f64::NAN,
            (_, (plus, minus)) if plus > 0 && minus > 0 => return f64::NAN,
            (_, (plus, _)) if plus > 0 => return f64::INFINITY,
            (_, (_, minus)) if minus > 0 => return f64::NEG_INFINITY,
            _ => {}
        }
        let (Some((lowest, _)), Some((highest, top))) = (self.parts.first(), self.parts.last()) else {
            return 0.0;
        };
        let negative = *top < 0;
        // As one positive number. A borrow can only come from a higher digit.
        let (mut borrow, mut parts) = (0i128, self.parts.iter().peekable());
        let digits = (*lowest..=*highest).map(|place| {
            let part = parts.next_if(|(p, _)| *p == place);
            let integer = part.map_or(0, |(_, integer)| *integer);
            let signed = if negative { -integer } else { integer } + borrow;
            borrow = signed.div_euclid(1 << 64);
            signed.rem_euclid(1 << 64) as u64
        });
        let magnitude = nearest(digits, 64 * i32::from(*lowest) + LEAST, n);
        if negative { -magnitude } else { magnitude }
    }
}

/// The least float above zero is two to this.
const LEAST: i32 = -1074;

/// The float nearest to `digits` × 2^`scale` / `n`, with ties to even. Digits have 64 bits each; the lowest
/// comes first.
fn nearest(digits: impl IntoIterator<Item = u64>, scale: i32, n: u64) -> f64 {
    // With two digits behind the point a quotient has 64 bits or more, however large `n` is.
    let mut digits: Vec<u64> = [0, 0].into_iter().chain(digits).collect();
    let scale = scale - 128;
    let remainder = if n == 1 { 0 } else { divide(&mut digits, n) };
    let Some(high) = digits.iter().rposition(|digit| *digit != 0) else {
        return 0.0;
    };
    let top = 64 * high as i32 + 63 - digits[high].leading_zeros() as i32;
    // The last bit that a float has: the 53rd, or that of the least float.
    let last = (top - 52).max(LEAST - scale);
    let from = |bit: i32| {
        let digit = |at: i32| digits.get(at as usize).map_or(0, |digit| u128::from(*digit));
        ((digit(bit / 64 + 1) << 64 | digit(bit / 64)) >> (bit % 64)) as u64
    };
    let (mut mantissa, half) = (from(last), from(last - 1) & 1 == 1);
    let below = (0..last - 1).step_by(64).map(|bit| (bit, 64.min(last - 1 - bit)));
    let is_more = || {
        remainder != 0
            || below
                .map(|(bit, bits)| from(bit) << (64 - bits))
                .any(|bits| bits != 0)
    };
    if half && (mantissa & 1 == 1 || is_more()) {
        mantissa += 1;
    }
    // The highest bit of 53 adds one to the exponent, and so does a carry out of them.
    let exponent = last + scale - LEAST;
    if exponent >= 0x7fe {
        return f64::INFINITY;
    }
    f64::from_bits(((exponent as u64) << 52) + mantissa)
}

/// Divides in place, and returns the remainder.
fn divide(digits: &mut [u64], n: u64) -> u64 {
    let n = u128::from(n);
    let remainder = digits.iter_mut().rev().fold(0, |above, digit| {
        let dividend = above << 64 | u128::from(*digit);
        *digit = (dividend / n) as u64;
        dividend % n
    });
    remainder as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = FloatSum::default();
        values.iter().for_each(|v| sum.add(*v));
        sum.value()
    }

    #[test]
    fn small_is_not_lost_beside_large() {
        assert_eq!(sum(&[1e300, 1.0, -1e300]), 1.0);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(
            sum(&[f64::MIN_POSITIVE, -f64::MIN_POSITIVE / 2.0]),
            f64::MIN_POSITIVE / 2.0
        );
        assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    }

    proptest! {
        #[test]
        fn one_float_is_itself(v in any::<f64>().prop_filter("finite", |v| v.is_finite())) {
            prop_assert_eq!(sum(&[v]), v);
        }

        #[test]
        fn two_floats_are_rounded_as_the_processor_does(
            a in any::<f64>().prop_filter("finite", |v| v.is_finite()),
            b in any::<f64>().prop_filter("finite", |v| v.is_finite()),
        ) {
            prop_assert_eq!(sum(&[a, b]), a + b);
            prop_assert_eq!(sum(&[a, b, -a]), b);
        }

        #[test]
        fn order_and_grouping_do_not_show(values in prop::collection::vec(-1e18f64..1e18, 0..40), cut in 0usize..40) {
            let mut backwards = values.clone();
            backwards.reverse();
            prop_assert_eq!(sum(&values), sum(&backwards));
            let cut = cut.min(values.len());
            let (mut left, mut right) = (FloatSum::default(), FloatSum::default());
            values[..cut].iter().for_each(|v| left.add(*v));
            values[cut..].iter().for_each(|v| right.add(*v));
            left.join(&right);
            prop_assert_eq!(left.value(), sum(&values));
            values[cut..].iter().for_each(|v| left.take(*v));
            prop_assert_eq!(left.value(), sum(&values[..cut]));
        }
    }
}
