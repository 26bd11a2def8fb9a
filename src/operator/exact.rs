//! Exact sums, means and variances: the same result in whatever order and grouping values are added.
//!
//! Integers are summed in 192 bits. A finite float is an integer times a power of two, and a sum of floats is
//! kept as such integers, one for each 64 binary places that occur: a small form of the superaccumulator of
//! Neal, "Fast exact summation using small and large superaccumulators" (2015). Results are rounded once, and
//! a mean is divided before it is rounded: the mean of finite floats is finite, even if their sum exceeds the
//! range of a float. So is a variance: the sums of numbers and of their squares are subtracted as integers,
//! without loss of digits however far from zero the mean is.

use serde::{Deserialize, Serialize};

/// An exact sum of integers: `carry` × 2^128 + `low`. It wraps at 2^191, which no topic can hold enough
/// values to reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(i128, i64)", into = "(i128, i64)")]
pub struct IntegerSum {
    /// The lower half first: an `i128` would align the sum to 16 bytes and make it take 32.
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

    /// Subtracts an integer that was added.
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

    /// The sum, or the nearest value that an `i128` can hold.
    pub fn value(&self) -> i128 {
        match self.carry {
            0 => self.low(),
            1.. => i128::MAX,
            _ => i128::MIN,
        }
    }

    /// The sum, if an `i128` can hold it.
    pub fn fits(&self) -> Option<i128> {
        (self.carry == 0).then(|| self.low())
    }

    /// The sum divided by `n`, rounded once, to nearest with ties to even.
    pub fn mean(&self, n: u64) -> f64 {
        const EXACT_MAX: u64 = 1 << 53;
        let low = self.low();
        if self.carry == 0 && low.unsigned_abs() <= EXACT_MAX.into() && n <= EXACT_MAX {
            // Both are floats, so the processor's division is the one rounding.
            return low as f64 / n as f64;
        }
        let (negative, digits) = self.digits();
        let magnitude = nearest(digits, 0, [n]);
        if negative { -magnitude } else { magnitude }
    }

    /// The sign (true: negative) and magnitude, lowest digit first.
    fn digits(&self) -> (bool, [u64; 3]) {
        let mut digits = [
            self.low[0],
            self.low[1],
            self.carry.wrapping_sub(i64::from(self.low() < 0)) as u64,
        ];
        let negative = digits[2] >> 63 == 1;
        if negative {
            let mut carries = true;
            for digit in &mut digits {
                (*digit, carries) = (!*digit).overflowing_add(carries.into());
            }
        }
        (negative, digits)
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

/// A sum of `(place, integer)` terms by place: each stands for integer × 2^(64 × place) units, with a
/// magnitude below 2^64.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct PartialSums(Vec<(u16, i128)>);

/// An exact sum of floats. Infinities and NaN are counted separately and follow IEEE addition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FloatSum {
    /// In units of 2^−1074.
    parts: PartialSums,
    nan: i64,
    infinite: (i64, i64),
}

impl FloatSum {
    /// Adds a float.
    pub fn add(&mut self, value: f64) {
        self.count(value, 1);
    }

    /// Subtracts a float that was added.
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
            let (mantissa, places) = mantissa(value);
            let sign = if value < 0.0 { -1 } else { 1 } * i128::from(times);
            self.parts
                .put(places / 64, sign * (i128::from(mantissa) << (places % 64)));
        }
    }

    /// Adds another sum.
    pub fn join(&mut self, other: &FloatSum) {
        self.parts.join(&other.parts);
        self.nan += other.nan;
        self.infinite.0 += other.infinite.0;
        self.infinite.1 += other.infinite.1;
    }

    /// The sum, rounded once, to nearest with ties to even.
    pub fn value(&self) -> f64 {
        self.mean(1)
    }

    /// The sum divided by `n`, rounded once, to nearest with ties to even.
    pub fn mean(&self, n: u64) -> f64 {
        match (self.nan != 0, self.infinite) {
            (true, _) => return f64::NAN,
            (_, (plus, minus)) if plus > 0 && minus > 0 => return f64::NAN,
            (_, (plus, _)) if plus > 0 => return f64::INFINITY,
            (_, (_, minus)) if minus > 0 => return f64::NEG_INFINITY,
            _ => {}
        }
        let Some((negative, lowest, digits)) = self.parts.digits() else {
            return 0.0;
        };
        let magnitude = nearest(digits, 64 * i32::from(lowest) + LEAST, [n]);
        if negative { -magnitude } else { magnitude }
    }
}

/// An exact sum of squares of finite floats, in units of 2^−2148. The sum of the floats tracks those that are
/// not finite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FloatSquares(PartialSums);

impl FloatSquares {
    /// Adds the square of a float.
    pub fn add(&mut self, value: f64) {
        self.count(value, 1);
    }

    /// Subtracts the square of a float that was added.
    pub fn take(&mut self, value: f64) {
        self.count(value, -1);
    }

    fn count(&mut self, value: f64, sign: i128) {
        if value.is_finite() {
            let (mantissa, places) = mantissa(value);
            let (square, places) = (u128::from(mantissa).pow(2), 2 * places);
            let part = |digit: u64| sign * (i128::from(digit) << (places % 64));
            self.0.put(places / 64, part(square as u64));
            self.0.put(places / 64 + 1, part((square >> 64) as u64));
        }
    }

    /// Adds another sum.
    pub fn join(&mut self, other: &FloatSquares) {
        self.0.join(&other.0);
    }
}

/// The magnitude of a finite float, as a multiple of 2^(places − 1074).
fn mantissa(value: f64) -> (u64, u16) {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7ff) as u16, bits & ((1 << 52) - 1));
    // Subnormals have no hidden bit and the exponent of the least normal number.
    match exponent {
        0 => (fraction, 0),
        _ => (fraction | 1 << 52, exponent - 1),
    }
}

impl PartialSums {
    fn put(&mut self, mut place: u16, mut integer: i128) {
        while integer != 0 {
            let at = self.0.partition_point(|(p, _)| *p < place);
            if self.0.get(at).is_none_or(|(p, _)| *p != place) {
                self.0.insert(at, (place, 0));
            }
            let part = &mut self.0[at].1;
            let sum = *part + integer;
            // Rounded towards zero, so that a part and what it carries have one sign.
            integer = sum / (1 << 64);
            *part = sum % (1 << 64);
            if *part == 0 {
                self.0.remove(at);
            }
            place += 1;
        }
    }

    fn join(&mut self, other: &PartialSums) {
        for (place, integer) in &other.0 {
            self.put(*place, *integer);
        }
    }

    /// The sign (true: negative), the lowest place, and the magnitude from there on, lowest digit first.
    /// `None` if the sum is zero.
    fn digits(&self) -> Option<(bool, u16, impl Iterator<Item = u64>)> {
        let ((lowest, _), (highest, top)) = (self.0.first()?, self.0.last()?);
        let negative = *top < 0;
        // As one positive number. A borrow can only come from a higher digit.
        let (mut borrow, mut parts) = (0i128, self.0.iter().peekable());
        let digits = (*lowest..=*highest).map(move |place| {
            let part = parts.next_if(|(p, _)| *p == place);
            let integer = part.map_or(0, |(_, integer)| *integer);
            let signed = if negative { -integer } else { integer } + borrow;
            borrow = signed.div_euclid(1 << 64);
            signed.rem_euclid(1 << 64) as u64
        });
        Some((negative, *lowest, digits))
    }
}

/// A measure of spread around the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The variance.
    Variance,
    /// Its square root, the standard deviation.
    Deviation,
}

impl Spread {
    /// The spread of `n` integers, over `n` less `without`, from their sum and the sum of their squares.
    pub fn of_integers(self, sum: &IntegerSum, squares: &IntegerSum, n: u64, without: u64) -> f64 {
        let ((_, sum), (_, squares)) = (sum.digits(), squares.digits());
        self.of((&sum, 0), (&squares, 0), 0, [n, n - without])
    }

    /// The spread of `n` floats.
    pub fn of_floats(self, sum: &FloatSum, squares: &FloatSquares, n: u64, without: u64) -> f64 {
        if sum.nan != 0 || sum.infinite != (0, 0) {
            return f64::NAN;
        }
        let digits = |parts: &PartialSums| match parts.digits() {
            Some((_, lowest, digits)) => (digits.collect(), usize::from(lowest)),
            None => (Vec::new(), 0),
        };
        let ((sum, sum_from), (squares, squares_from)) = (digits(&sum.parts), digits(&squares.0));
        let over = [n, n - without];
        self.of((&sum, sum_from), (&squares, squares_from), 2 * LEAST, over)
    }

    /// (n × squares − sum²) / (n × free), in units of two to the `scale`. Each sum is given by its digits and
    /// the place of the first one.
    fn of(self, sum: (&[u64], usize), squares: (&[u64], usize), scale: i32, over: [u64; 2]) -> f64 {
        let from = squares.1.min(2 * sum.1);
        let zeros = |count: usize| std::iter::repeat_n(0, count);
        let mut digits: Vec<u64> = zeros(squares.1 - from).chain(squares.0.iter().copied()).collect();
        let mut carry = 0;
        for digit in &mut digits {
            carry += u128::from(*digit) * u128::from(over[0]);
            *digit = carry as u64;
            carry >>= 64;
        }
        digits.push(carry as u64);
        subtract_square(&mut digits, sum.0, 2 * sum.1 - from);
        let scale = scale + 64 * from as i32;
        match self {
            Spread::Variance => nearest(digits, scale, over),
            Spread::Deviation => {
                // Its variance may exceed the range of a float: its root is computed near one.
                let high = digits.iter().rposition(|digit| *digit != 0).unwrap_or(0);
                let half = (scale + 64 * high as i32) / 2;
                let root = nearest(digits, scale - 2 * half, over).sqrt();
                let power = |exponent: i32| f64::from_bits(((exponent + 1023) as u64) << 52);
                root * power(half / 2) * power(half - half / 2)
            }
        }
    }
}

/// Subtracts a square from a number that is at least as large, from a digit on.
fn subtract_square(digits: &mut [u64], root: &[u64], from: usize) {
    for (i, left) in root.iter().enumerate().filter(|(_, digit)| **digit != 0) {
        let mut unread_bound = 0u128;
        for (j, digit) in digits.iter_mut().enumerate().skip(from + i) {
            let right = root.get(j - from - i);
            if right.is_none() && unread_bound == 0 {
                break;
            }
            let right = right.copied().unwrap_or(0);
            // Less than 2^128: neither the factor nor the carry exceeds 2^64 − 1.
            unread_bound += u128::from(*left) * u128::from(right);
            let (rest, borrows) = digit.overflowing_sub(unread_bound as u64);
            *digit = rest;
            unread_bound = (unread_bound >> 64) + u128::from(borrows);
        }
    }
}

/// The smallest positive float is two to this.
const LEAST: i32 = -1074;

/// The float nearest to `digits` × 2^`scale` divided by all of `over`, with ties to even. Digits have 64 bits
/// each, lowest first.
fn nearest<const N: usize>(digits: impl IntoIterator<Item = u64>, scale: i32, over: [u64; N]) -> f64 {
    // With two digits after the point per divisor, a quotient has 64 bits or more, however large the divisors
    // are.
    let mut digits: Vec<u64> = std::iter::repeat_n(0, 2 * N).chain(digits).collect();
    let scale = scale - 128 * N as i32;
    let divisors = over.into_iter().filter(|n| *n != 1);
    let remainder = divisors.fold(0, |remainder, n| remainder | divide(&mut digits, n));
    let Some(high) = digits.iter().rposition(|digit| *digit != 0) else {
        return 0.0;
    };
    let top = 64 * high as i32 + 63 - digits[high].leading_zeros() as i32;
    // The last bit of a float: the 53rd, or that of the smallest float.
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
    // The highest of 53 bits adds one to the exponent, and so does a carry.
    let exponent = last + scale - LEAST;
    if exponent >= 0x7fe {
        return f64::INFINITY;
    }
    f64::from_bits(((exponent as u64) << 52) + mantissa)
}

/// Divides in place and returns the remainder.
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
