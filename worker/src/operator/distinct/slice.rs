//! Shares of all keys, by their fingerprints.
//!
//! A fingerprint's place has those bits first that its table is chosen by: so a table is a share of all keys, and every table is cut into as many slices as
//! are wanted. Used by `seen.rs` for tables, by `spilled.rs` for the order on disk, by `parts.rs` for what is written again a share at a time. Pure.

/// Tables of one task, as a power of two.
pub(super) const SHARD_BITS: u32 = 6;
/// The bits of a fingerprint above those of its table. They make its vnode, and are all alike in a small task.
const VNODE_BITS: u32 = 10;

/// The keys whose places begin with `number` in their first `bits` bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) number: u64,
    pub(super) bits: u32,
}

/// Where a key lies among all.
pub(super) fn place_of(fingerprint: u128) -> u128 {
    fingerprint.rotate_left(VNODE_BITS)
}

/// The key that lies there.
pub(super) fn fingerprint_at(place: u128) -> u128 {
    place.rotate_right(VNODE_BITS)
}

/// The table of a key.
pub(super) fn shard_of(fingerprint: u128) -> usize {
    (place_of(fingerprint) >> (u128::BITS - SHARD_BITS)) as usize
}

impl Slice {
    /// Whether a key is in it.
    pub(super) fn has(self, fingerprint: u128) -> bool {
        (place_of(fingerprint) >> (u128::BITS - self.bits)) as u64 == self.number
    }

    /// The table that it is a part of.
    pub(super) fn shard(self) -> usize {
        (self.number >> (self.bits - SHARD_BITS)) as usize
    }

    /// Its first place, and the one behind its last; `None` if there is none.
    pub(super) fn bounds(self) -> (u128, Option<u128>) {
        let shift = u128::BITS - self.bits;
        let next = (self.number < self.last()).then(|| u128::from(self.number + 1) << shift);
        (u128::from(self.number) << shift, next)
    }

    /// The one behind it; `None` if it is the last.
    pub(super) fn next(self) -> Option<Self> {
        let number = self.number + 1;
        (self.number < self.last()).then_some(Self { number, ..self })
    }

    fn last(self) -> u64 {
        (1 << self.bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_one_slice_of_its_table_and_slices_lie_in_order() {
        for bits in [SHARD_BITS, SHARD_BITS + 3] {
            let first = Slice { number: 0, bits };
            let slices: Vec<Slice> =
                std::iter::successors(Some(first), |slice| slice.next()).collect();
            assert_eq!(slices.len(), 1 << bits);
            let mut end = Some(0);
            for slice in &slices {
                assert_eq!(Some(slice.bounds().0), end);
                end = slice.bounds().1;
            }
            assert_eq!(end, None);
            for number in 0..1_000_u128 {
                let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                assert_eq!(fingerprint_at(place_of(key)), key);
                let has = slices.iter().filter(|slice| slice.has(key));
                let has: Vec<&Slice> = has.collect();
                assert_eq!(has.len(), 1);
                assert_eq!(has[0].shard(), shard_of(key));
                let (from, to) = has[0].bounds();
                assert!(place_of(key) >= from && to.is_none_or(|to| place_of(key) < to));
            }
        }
    }
}
