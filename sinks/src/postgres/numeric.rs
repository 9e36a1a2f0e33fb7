//! Decimals in Postgres's binary form: groups of four decimal digits around the point.
//!
//! Called by `copy.rs` for each value of a numeric column; allocates nothing. Cannot fail: every 128-bit
//! decimal has such a form.

use bytes::{BufMut, BytesMut};

/// 38 digits make at most 10 groups, a scale of up to 76 adds at most 10 empty ones.
const GROUPS_MAX: usize = 32;
const GROUP: u128 = 10_000;
const NEGATIVE: u16 = 0x4000;

/// Appends `value / 10^scale` with its length in front.
pub(super) fn put_numeric(value: i128, scale: i8, out: &mut BytesMut) {
    let mut groups = [0_u16; GROUPS_MAX];
    let (count, weight) = split(value.unsigned_abs(), scale, &mut groups);
    let used = &groups[..count];
    let trailing = used.iter().take_while(|group| **group == 0).count();
    let digits = &used[trailing..];
    out.put_i32(8 + 2 * digits.len() as i32);
    out.put_i16(digits.len() as i16);
    out.put_i16(if digits.is_empty() { 0 } else { weight });
    let is_negative = value < 0 && !digits.is_empty();
    out.put_u16(if is_negative { NEGATIVE } else { 0 });
    out.put_i16(i16::from(scale.max(0)));
    for group in digits.iter().rev() {
        out.put_u16(*group);
    }
}

/// Fills `groups` from the lowest; returns how many there are and the power of 10,000 of the highest.
fn split(mut magnitude: u128, scale: i8, groups: &mut [u16; GROUPS_MAX]) -> (usize, i16) {
    // The lowest group begins at a multiple of four digits from the point: what stands behind
    // that is filled up with zeros.
    let scale = i32::from(scale);
    let lowest = (-scale).div_euclid(4);
    let filled = (-scale).rem_euclid(4) as u32;
    let mut count = 0;
    if filled > 0 {
        let kept = 10_u128.pow(4 - filled);
        groups[0] = (magnitude % kept) as u16 * 10_u16.pow(filled);
        magnitude /= kept;
        count = 1;
    }
    while magnitude > 0 {
        groups[count] = (magnitude % GROUP) as u16;
        magnitude /= GROUP;
        count += 1;
    }
    while count > 0 && groups[count - 1] == 0 {
        count -= 1;
    }
    (count, (lowest + count as i32 - 1) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length, then count, weight, sign, scale, digits.
    fn encoded(value: i128, scale: i8) -> Vec<i32> {
        let mut out = BytesMut::new();
        put_numeric(value, scale, &mut out);
        let length = i32::from_be_bytes([out[0], out[1], out[2], out[3]]);
        assert_eq!(length as usize, out.len() - 4);
        out[4..]
            .chunks(2)
            .map(|pair| i32::from(i16::from_be_bytes([pair[0], pair[1]])))
            .collect()
    }

    #[test]
    fn digits_are_grouped_by_four_around_the_point() {
        assert_eq!(encoded(0, 0), [0, 0, 0, 0]);
        assert_eq!(encoded(7, 0), [1, 0, 0, 0, 7]);
        assert_eq!(encoded(-12_345, 0), [2, 1, 0x4000, 0, 1, 2345]);
        assert_eq!(encoded(50_000, 0), [1, 1, 0, 0, 5]);
        assert_eq!(encoded(12_345, 2), [2, 0, 0, 2, 123, 4500]);
        assert_eq!(encoded(5, 3), [1, -1, 0, 3, 50]);
        assert_eq!(encoded(5, 6), [1, -2, 0, 6, 500]);
        assert_eq!(encoded(100, 2), [1, 0, 0, 2, 1]);
        assert_eq!(encoded(0, 2), [0, 0, 0, 2]);
        assert_eq!(encoded(5, -2), [1, 0, 0, 0, 500]);
        assert_eq!(encoded(5, -4), [1, 1, 0, 0, 5]);
    }

    #[test]
    fn the_longest_decimal_fits() {
        let nines = 10_i128.pow(38) - 1;
        assert_eq!(encoded(nines, 0)[..2], [10, 9]);
        assert_eq!(encoded(nines, 38)[..2], [10, -1]);
        assert_eq!(encoded(nines, 37)[..2], [11, 0]);
    }
}
