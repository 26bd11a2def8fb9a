//! Sums of floats that come out the same in whatever order they are added.
//!
//! A finite float is an integer times a power of two. The sum is kept as such integers, one for each 64 binary places
//! that occur, and rounded once when it is shown: a small form of the superaccumulator of Neal, "Fast exact summation
//! using small and large superaccumulators" (2015).

use serde::{Deserialize, Serialize};

/// An exact sum of floats. Infinities and NaN are counted beside it, as IEEE addition would have them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExactSum {
    /// `(place, integer)`: the sum holds integer × 2^(64 × place − 1074), each integer less than 2^64 in size; by place.
    parts: Vec<(u16, i128)>,
    nan: i64,
    infinite: (i64, i64),
}

impl ExactSum {
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
    pub fn join(&mut self, other: &ExactSum) {
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
        match (self.nan != 0, self.infinite) {
            (true, _) => return f64::NAN,
            (_, (plus, minus)) if plus > 0 && minus > 0 => return f64::NAN,
            (_, (plus, _)) if plus > 0 => return f64::INFINITY,
            (_, (_, minus)) if minus > 0 => return f64::NEG_INFINITY,
            _ => {}
        }
        let Some(top) = self.parts.last() else { return 0.0 };
        let negative = top.1 < 0;
        // As one positive number in digits of 64 bits, lowest first. A borrow can only come from a higher digit.
        let mut digits = vec![0u64; usize::from(top.0) + 1];
        let mut borrow = 0i128;
        let mut parts = self.parts.iter().peekable();
        for (place, digit) in digits.iter_mut().enumerate() {
            let part = parts
                .next_if(|(p, _)| usize::from(*p) == place)
                .map_or(0, |(_, integer)| *integer);
            let signed = if negative { -part } else { part } + borrow;
            *digit = signed.rem_euclid(1 << 64) as u64;
            borrow = signed.div_euclid(1 << 64);
        }
        let magnitude = round(&digits);
        if negative { -magnitude } else { magnitude }
    }
}

/// The float nearest to the number in `digits` × 2^−1074.
fn round(digits: &[u64]) -> f64 {
    let Some(high) = digits.iter().rposition(|digit| *digit != 0) else {
        return 0.0;
    };
    let top_bit = 64 * high as i64 + 63 - i64::from(digits[high].leading_zeros());
    if top_bit < 53 {
        return digits[0] as f64 * f64::from_bits(1); // Exact: a subnormal or the least normals.
    }
    let bit = |at: i64| digits[(at / 64) as usize] >> (at % 64) & 1;
    let mut mantissa = (top_bit - 52..=top_bit)
        .rev()
        .fold(0u64, |sum, at| sum << 1 | bit(at));
    let mut lowest = top_bit - 52;
    let half = bit(lowest - 1) == 1;
    let below = lowest - 1;
    let more = digits[..(below / 64) as usize].iter().any(|digit| *digit != 0)
        || digits[(below / 64) as usize] & ((1u64 << (below % 64)) - 1) != 0;
    if half && (more || mantissa & 1 == 1) {
        mantissa += 1;
        if mantissa == 1 << 53 {
            mantissa >>= 1;
            lowest += 1;
        }
    }
    let exponent = lowest + 1;
    if exponent >= 0x7ff {
        return f64::INFINITY;
    }
    f64::from_bits((exponent as u64) << 52 | mantissa & ((1 << 52) - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
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
            let (mut left, mut right) = (ExactSum::default(), ExactSum::default());
            values[..cut].iter().for_each(|v| left.add(*v));
            values[cut..].iter().for_each(|v| right.add(*v));
            left.join(&right);
            prop_assert_eq!(left.value(), sum(&values));
            values[cut..].iter().for_each(|v| left.take(*v));
            prop_assert_eq!(left.value(), sum(&values[..cut]));
        }
    }
}
