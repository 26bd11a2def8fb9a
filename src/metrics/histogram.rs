//! A lock-free histogram that takes many equal observations at once.
//!
//! All records of a batch become visible at the same time, so their freshness is observed with a weight;
//! prometheus-client's own histogram takes one observation per call, under a mutex.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts of observations by upper bound. Clones share the counts.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramInner>);

#[derive(Debug)]
struct HistogramInner {
    /// Upper bounds, inclusive, ascending; values above the last one are counted in an extra bucket.
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    /// An empty histogram with these upper bounds (inclusive, ascending, finite); `+Inf` is added.
    pub fn new(bounds: &'static [f64]) -> Self {
        debug_assert!(bounds.is_sorted() && bounds.iter().all(|bound| bound.is_finite()));
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(HistogramInner {
            bounds,
            counts,
            sum: AtomicU64::new(0f64.to_bits()),
        }))
    }

    /// One observation.
    #[inline]
    pub fn observe(&self, value: f64) {
        self.observe_many(value, 1);
    }

    /// `weight` observations of the same value. NaN is ignored, because it would spoil the sum.
    ///
    /// ```
    /// use thalweg::metrics::histogram::Histogram;
    /// let freshness = Histogram::new(&[0.001, 0.01, 0.1]);
    /// freshness.observe_many(0.004, 10_000);
    /// assert_eq!(freshness.count(), 10_000);
    /// ```
    #[inline]
    pub fn observe_many(&self, value: f64, weight: u64) {
        if weight == 0 || value.is_nan() {
            return;
        }
        let inner = &*self.0;
        let bucket = inner.bounds.partition_point(|bound| *bound < value);
        inner.counts[bucket].fetch_add(weight, Ordering::Relaxed);
        let add = value * weight as f64;
        // `Err` would mean that the closure gave up, and it never does.
        let _previous = inner
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bits| {
                Some((f64::from_bits(bits) + add).to_bits())
            });
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.0
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }

    /// The sum of all observations.
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Ordering::Relaxed))
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        // From the same readings: the count must equal the bucket `+Inf`, whatever is observed meanwhile.
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.sum(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: &[f64] = &[0.001, 0.01, 1.0];

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let histogram = Histogram::new(BOUNDS);
        histogram.observe(0.001);
        histogram.observe_many(0.5, 3);
        histogram.observe_many(60.0, 2);
        histogram.observe_many(f64::NAN, 7);
        let mut registry = Registry::default();
        registry.register("h", "h", histogram);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "h_bucket{le=\"0.001\"} 1",
            "h_bucket{le=\"0.01\"} 1",
            "h_bucket{le=\"1.0\"} 4",
            "h_bucket{le=\"+Inf\"} 6",
            "h_count 6",
            "h_sum 121.501",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
        }
    }

    proptest! {
        #[test]
        fn a_weight_equals_that_many_single_observations(
            observed in prop::collection::vec((0u32..5_000, 0u64..20), 0..30)
        ) {
            let (weighted, single) = (Histogram::new(BOUNDS), Histogram::new(BOUNDS));
            for (ms, weight) in observed {
                // Eighths of a second sum without rounding, so that both sums must be equal to the last bit.
                let value = f64::from(ms) / 8.0;
                weighted.observe_many(value, weight);
                (0..weight).for_each(|_| single.observe(value));
            }
            let counts = |h: &Histogram| h.0.counts.iter().map(|c| c.load(Ordering::Relaxed)).collect::<Vec<_>>();
            prop_assert_eq!(counts(&weighted), counts(&single));
            prop_assert_eq!(weighted.sum(), single.sum());
        }
    }
}
