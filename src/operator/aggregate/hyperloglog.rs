//! HyperLogLog: the approximate number of distinct hashes, in a few KiB.
//!
//! ```text
//!   hash   ├── 26 bits: place ──┤├────── 38 bits: rank = leading zeros + 1 ──────┤
//!   Sparse   sorted list of (place, rank), the greatest rank of each place; until it takes as much as
//!   Dense    a byte for each of 2^p places, the first p bits of the 26: the greatest rank of what follows
//! ```
//!
//! The sparse form is that of Heule, Nunkesser and Hall, "HyperLogLog in Practice" (2013): a sketch with 2^26
//! registers, few of them occupied, from which the dense one follows exactly. The form of a sketch, and
//! everything in it, depends on the set of hashes alone: order and grouping do not show.
//!
//! An estimate uses only addition, multiplication, division and square roots, which IEEE 754 rounds alike
//! everywhere. A platform's logarithm would not be.

use serde::{Deserialize, Serialize};

pub(super) const PRECISION_MIN: u8 = 4;
pub(super) const PRECISION_MAX: u8 = 16;

/// Bits of a register's index in the sparse form.
const SPARSE_PRECISION: u8 = 26;
/// Bits of a rank in the sparse form: it is at most 39.
const RANK_BITS: u8 = 6;

/// The sketch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HyperLogLog {
    precision: u8,
    registers: Registers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Registers {
    /// The index's bits above those of its rank, sorted.
    Sparse(Vec<u32>),
    Dense(Vec<u8>),
}
use Registers::{Dense, Sparse};

impl HyperLogLog {
    /// An empty sketch.
    pub(super) fn new(precision: u8) -> Self {
        let registers = Sparse(Vec::new());
        Self { precision, registers }
    }

    /// Adds a hash.
    pub(super) fn add(&mut self, hash: u64) {
        let place = (hash >> (64 - SPARSE_PRECISION)) as u32;
        // The bit after the last one ends the run of zeros.
        let rest = hash << SPARSE_PRECISION | 1 << (SPARSE_PRECISION - 1);
        self.put(place << RANK_BITS | (rest.leading_zeros() + 1));
    }

    fn put(&mut self, entry: u32) {
        let entries = match &mut self.registers {
            Dense(ranks) => return raise(ranks, self.precision, entry),
            Sparse(entries) => entries,
        };
        match entries.binary_search(&entry) {
            Ok(_) => {}
            // At most one entry with this index exists: the previous one, or the next.
            Err(at) if at > 0 && place(entries[at - 1]) == place(entry) => entries[at - 1] = entry,
            Err(at) if entries.get(at).is_some_and(|other| place(*other) == place(entry)) => {}
            Err(at) => {
                entries.insert(at, entry);
                self.settle();
            }
        }
    }

    /// Switches to the dense form once that is smaller.
    fn settle(&mut self) {
        let (precision, places) = (self.precision, 1 << self.precision);
        if let Sparse(entries) = &self.registers
            && size_of_val(&**entries) > places
        {
            let mut ranks = vec![0; places];
            entries
                .iter()
                .for_each(|entry| raise(&mut ranks, precision, *entry));
            self.registers = Dense(ranks);
        }
    }

    /// Adds everything that another sketch was given.
    pub(super) fn merge(&mut self, mut other: HyperLogLog) {
        assert!(
            self.precision == other.precision,
            "state of `approx_count_distinct` of precision {} met one of precision {}: give the step another \
             `version` when the precision changes",
            self.precision,
            other.precision
        );
        if matches!((&self.registers, &other.registers), (Sparse(_), Dense(_))) {
            std::mem::swap(self, &mut other);
        }
        match (&mut self.registers, other.registers) {
            (Dense(ranks), Dense(others)) => {
                let pairs = ranks.iter_mut().zip(others);
                pairs.for_each(|(rank, other)| *rank = other.max(*rank));
            }
            (Sparse(entries), Sparse(others)) => {
                entries.extend(others);
                entries.sort_unstable_by(|one, other| other.cmp(one));
                // For each index, the greatest rank comes first.
                entries.dedup_by_key(|entry| place(*entry));
                entries.reverse();
                self.settle();
            }
            (_, Sparse(others)) => others.into_iter().for_each(|entry| self.put(entry)),
            (Sparse(_), Dense(_)) => unreachable!("the dense one is the first of the two"),
        }
    }

    /// The approximate number of distinct hashes.
    pub(super) fn estimate(&self) -> u64 {
        let estimate = match &self.registers {
            Sparse(entries) => linear(entries.len()),
            Dense(ranks) => improved(ranks, self.precision),
        };
        estimate.round() as u64
    }
}

fn place(entry: u32) -> u32 {
    entry >> RANK_BITS
}

/// Adds an entry of the sparse form to the dense one.
fn raise(ranks: &mut [u8], precision: u8, entry: u32) {
    let (place, rank) = (place(entry), entry & ((1 << RANK_BITS) - 1));
    // These bits belong to the index in the sparse form, and to the rank in the dense one.
    let between = SPARSE_PRECISION - precision;
    let bits = place & ((1 << between) - 1);
    let rank = match bits {
        0 => u32::from(between) + rank,
        _ => bits.leading_zeros() - (32 - u32::from(between)) + 1,
    };
    let own = &mut ranks[(place >> between) as usize];
    *own = (*own).max(rank as u8);
}

/// Linear counting: −m ln(1 − n / m) for n of m registers. So few are occupied that three terms of the
/// logarithm's series give full float precision.
fn linear(taken: usize) -> f64 {
    let places = f64::from(1 << SPARSE_PRECISION);
    let share = taken as f64 / places;
    places * (share * (1.0 + share * (0.5 + share / 3.0)))
}

/// Algorithm 6 of Ertl (2017).
fn improved(ranks: &[u8], precision: u8) -> f64 {
    let rank_max = 64 - usize::from(precision) + 1;
    let mut counts = vec![0u32; rank_max + 1];
    ranks
        .iter()
        .for_each(|rank| counts[usize::from(*rank).min(rank_max)] += 1);
    let places = ranks.len() as f64;
    let mut z = places * tau(1.0 - f64::from(counts[rank_max]) / places);
    for count in counts[1..rank_max].iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += places * sigma(f64::from(counts[0]) / places);
    places * places / (2.0 * std::f64::consts::LN_2 * z)
}

/// x + Σ x^(2^k) 2^(k−1) over k ≥ 1. A dense sketch is never empty, so `x` is below one.
fn sigma(mut x: f64) -> f64 {
    let (mut power, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * power;
        power += power;
        if sum == before {
            return sum;
        }
    }
}

/// (1 − x − Σ (1 − x^(2^−k))² 2^−k over k ≥ 1) / 3.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut power, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        power *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * power;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn sketch(precision: u8, hashes: impl IntoIterator<Item = u64>) -> HyperLogLog {
        let mut sketch = HyperLogLog::new(precision);
        hashes.into_iter().for_each(|hash| sketch.add(hash));
        sketch
    }

    fn hash(n: u64) -> u64 {
        xxh3_64(&n.to_le_bytes())
    }

    /// Without a sparse form, exactly by the definition.
    fn ranks(precision: u8, hashes: &[u64]) -> Vec<u8> {
        let mut ranks = vec![0; 1 << precision];
        for hash in hashes {
            let own = &mut ranks[(hash >> (64 - precision)) as usize];
            let rest = (hash << precision).leading_zeros().min(64 - u32::from(precision));
            *own = (*own).max(rest as u8 + 1);
        }
        ranks
    }

    /// With the maximum number of zeros, anywhere.
    fn any_hash() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            (any::<u64>(), 0u32..64).prop_map(|(hash, zeros)| hash >> zeros),
            (any::<u64>(), 0u32..64).prop_map(|(hash, zeros)| hash << zeros),
            (any::<u64>(), 4u32..40).prop_map(|(hash, from)| hash & !(u64::MAX >> from) | hash & 3),
        ]
    }

    proptest! {
        #[test]
        fn a_sketch_follows_from_the_set_alone(
            hashes in prop::collection::vec(any_hash(), 1..200),
            precision in PRECISION_MIN..=10,
            cut in 0usize..200,
        ) {
            let whole = sketch(precision, hashes.iter().copied());
            prop_assert_eq!(&whole, &sketch(precision, hashes.iter().rev().chain(&hashes).copied()));
            let (left, right) = hashes.split_at(cut.min(hashes.len()));
            let parts = || [left, right].map(|part| sketch(precision, part.iter().copied()));
            let [mut one, other] = parts();
            one.merge(other);
            prop_assert_eq!(&whole, &one);
            let [one, mut other] = parts();
            other.merge(one);
            prop_assert_eq!(&whole, &other);
            let dense = match whole.registers {
                Dense(ranks) => ranks,
                Sparse(entries) => {
                    let mut ranks = vec![0; 1 << precision];
                    entries.iter().for_each(|entry| raise(&mut ranks, precision, *entry));
                    ranks
                }
            };
            prop_assert_eq!(dense, ranks(precision, &hashes));
        }
    }

    #[test]
    fn a_few_are_counted_exactly() {
        let mut sketch = HyperLogLog::new(12);
        for n in 1..=1024 {
            sketch.add(hash(n));
            assert!(sketch.estimate().abs_diff(n) <= 1, "{n}: {}", sketch.estimate());
        }
        assert_eq!(sketch.estimate(), 1024);
        assert!(matches!(sketch.registers, Sparse(_)));
        sketch.add(hash(0));
        assert!(matches!(sketch.registers, Dense(_)));
    }

    /// The root mean square of relative errors, and the mean, over many sketches of `n` hashes each.
    fn errors(precision: u8, n: u64) -> (f64, f64) {
        const SKETCHES: u64 = 200;
        let error = |seed: u64| {
            let hashes = (0..n).map(|i| hash(seed << 32 | i));
            sketch(precision, hashes).estimate() as f64 / n as f64 - 1.0
        };
        let errors: Vec<f64> = (1..=SKETCHES).map(error).collect();
        let mean = |of: fn(&f64) -> f64| errors.iter().map(of).sum::<f64>() / SKETCHES as f64;
        (mean(|error| error * error).sqrt(), mean(|error| *error))
    }

    #[test]
    fn errors_are_as_stated_and_lean_to_neither_side() {
        for precision in [6, 8, 10] {
            let places = 1u64 << precision;
            let standard = 1.04 / (places as f64).sqrt();
            // From the start of the dense form, through the end of linear counting, to many.
            for n in [places / 3, places, 2 * places, 5 * places, 20 * places] {
                let (error, bias) = errors(precision, n);
                assert!(
                    error < 1.15 * standard,
                    "{error} of {n} with precision {precision}"
                );
                assert!(
                    bias.abs() < 0.25 * standard,
                    "{bias} of {n} with precision {precision}"
                );
            }
        }
    }

    #[test]
    fn estimates_go_on_where_all_places_are_full() {
        let full = |rank: u8| improved(&[rank; 1 << 8], 8);
        assert!(full(57) > 1e18 || full(57).is_infinite());
        assert!((1..56).all(|rank| full(rank) < full(rank + 1)));
    }

    #[test]
    #[should_panic(expected = "give the step another `version`")]
    fn sketches_of_two_precisions_do_not_mix() {
        HyperLogLog::new(10).merge(HyperLogLog::new(12));
    }
}
