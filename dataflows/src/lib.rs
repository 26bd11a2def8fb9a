//! What the demo data of the examples is drawn from.

/// Pseudo-random numbers from a seed: the same ones on every machine.
///
/// ```
/// use dataflows::Random;
/// let mut dice = Random::new(7);
/// let rolls: Vec<u64> = (0..3).map(|_| dice.below(6) + 1).collect();
/// assert!(rolls.iter().all(|roll| (1..=6).contains(roll)));
/// assert_eq!(Random::new(7).below(6) + 1, rolls[0]);
/// ```
///
/// Source: splitmix64 of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `n` - 1. `n` has to be greater than zero, and should be far below 2⁶⁴: numbers are
    /// not rejected to make all of them equally likely.
    pub fn below(&mut self, n: u64) -> u64 {
        self.bits() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number from 0 up to, but not including, 1.
    pub fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number from 0 to `n` - 1, low ones more often: half of them are below a quarter of `n`.
    pub fn skewed(&mut self, n: u64) -> u64 {
        (self.fraction().powi(2) * n as f64) as u64
    }

    /// One of some values. There has to be one.
    pub fn pick<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len() as u64) as usize]
    }
}
