//! Chance that depends on nothing but (seed, column, row): the same numbers after any restart.
//!
//! Pure. A stream of 64-bit numbers for each value, by SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
//! number generators", 2014).

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The odd constant nearest to 2^64 over the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The numbers of one column, before the row is chosen. By name: other columns do not change them.
#[derive(Clone, Copy, Debug)]
pub(super) struct ColumnChance(u64);

impl ColumnChance {
    pub(super) fn new(seed: u64, column: &str) -> Self {
        Self(xxh3_64_with_seed(column.as_bytes(), seed))
    }

    /// The numbers of one value.
    pub(super) fn row(self, row: u64) -> Chance {
        Chance(mix(self.0 ^ mix(row.wrapping_add(STEP))))
    }
}

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Evenly in [0, 1): 53 bits.
    pub(super) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly in `min..=max`; `min` if the range is empty.
    pub(super) fn between(&mut self, min: i64, max: i64) -> i64 {
        let span = i128::from(max) - i128::from(min) + 1;
        if span <= 1 {
            return min;
        }
        // The upper half of the product maps 64 bits onto the span without a visible bias.
        let offset = (u128::from(self.next()) * span.unsigned_abs()) >> 64;
        min.wrapping_add_unsigned(offset as u64)
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_column_and_row_only() {
        let value = |seed, column, row| ColumnChance::new(seed, column).row(row).next();
        assert_eq!(value(1, "a", 2), value(1, "a", 2));
        assert_ne!(value(1, "a", 2), value(2, "a", 2));
        assert_ne!(value(1, "a", 2), value(1, "b", 2));
        assert_ne!(value(1, "a", 2), value(1, "a", 3));
    }

    #[test]
    fn a_range_is_covered_to_both_ends_and_nothing_beyond() {
        let column = ColumnChance::new(7, "n");
        let values: Vec<i64> = (0..1_000)
            .map(|row| column.row(row).between(-2, 2))
            .collect();
        assert_eq!(values.iter().min(), Some(&-2));
        assert_eq!(values.iter().max(), Some(&2));
        assert_eq!(column.row(0).between(5, 5), 5);
        column.row(0).between(i64::MIN, i64::MAX);
    }
}
