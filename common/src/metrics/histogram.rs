//! A distribution of durations over fixed buckets.
//!
//! Owned by whoever measures, copied into an exposition. Pure.

/// Upper bounds in seconds: from a quick epoch in memory to one that a slow store holds up.
const BOUNDS: [f64; 13] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// How many durations fell into each bucket, and their sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// By bucket; the last is for what is above all bounds.
    counts: [u64; BOUNDS.len() + 1],
    /// Of all that was observed, in seconds.
    pub(super) sum: f64,
}

impl Histogram {
    /// Adds a duration in seconds.
    pub fn observe(&mut self, seconds: f64) {
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
    }

    /// How many were observed.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bucket's bound, and how many fell into it alone.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.into_iter().chain([f64::MAX]);
        bounds.zip(self.counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_is_not_below_it() {
        let mut histogram = Histogram::default();
        for seconds in [0.005, 0.006, 99.0] {
            histogram.observe(seconds);
        }
        let buckets = histogram.buckets();
        assert_eq!(buckets[0], (0.005, 1));
        assert_eq!(buckets[1], (0.01, 1));
        assert_eq!(buckets[BOUNDS.len()].1, 1);
        assert_eq!(histogram.count(), 3);
    }
}
