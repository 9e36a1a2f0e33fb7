//! A key that a DISTINCT has seen, in 22 bytes: its fingerprint, and when it may be forgotten.
//!
//! Used by `seen.rs`, which holds very many of them. A time is held as microseconds since a day that is chosen when the first one comes, in 48 bits: some
//! four years to either side of it. What is farther away does not fit, and is told apart. Pure; cannot fail.

/// The time of a key that is never forgotten.
pub(super) const FOREVER: i64 = i64::MAX;

/// What stands for it.
const FOREVER_CODE: u64 = (1 << TIME_BITS) - 1;
const TIME_BITS: u32 = 48;
/// A day of its own for each process: results do not depend on it.
const REACH: i64 = 1 << (TIME_BITS - 1);

/// A fingerprint with the event time of its first row, as bytes: so there are no gaps between keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key([u8; 22]);

const _: () = assert!(size_of::<Key>() == 22);

/// Where times are counted from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin(i64);

impl Origin {
    /// In the middle of what can be held: this time.
    pub(super) fn around(time: i64) -> Self {
        Self(time.saturating_sub(REACH))
    }

    /// `None` if it is too far away.
    fn code(self, time: i64) -> Option<u64> {
        if time == FOREVER {
            return Some(FOREVER_CODE);
        }
        let code = time.checked_sub(self.0)?.cast_unsigned();
        (code < FOREVER_CODE).then_some(code)
    }

    fn time(self, code: u64) -> i64 {
        match code {
            FOREVER_CODE => FOREVER,
            code => self.0 + code.cast_signed(),
        }
    }
}

impl Key {
    /// `None` if the time is too far away.
    #[inline]
    pub(super) fn new(fingerprint: u128, time: i64, origin: Origin) -> Option<Self> {
        let mut bytes = [0; 22];
        bytes[..16].copy_from_slice(&fingerprint.to_le_bytes());
        bytes[16..].copy_from_slice(&origin.code(time)?.to_le_bytes()[..6]);
        Some(Self(bytes))
    }

    #[inline]
    pub(super) fn fingerprint(&self) -> u128 {
        let [bytes @ .., _, _, _, _, _, _] = self.0;
        u128::from_le_bytes(bytes)
    }

    /// Bits that neither vnodes nor tables are chosen by.
    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.fingerprint() as u64
    }

    #[inline]
    pub(super) fn time(&self, origin: Origin) -> i64 {
        let [.., a, b, c, d, e, f] = self.0;
        origin.time(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_what_it_was_made_of_or_is_refused() {
        let year = 365 * 86_400 * 1_000_000;
        let now = 56 * year;
        let fingerprint = u128::MAX / 7;
        for origin in [now, 0, -now, i64::MIN, i64::MAX - 1] {
            let near = [origin, origin.saturating_add(4 * year), FOREVER];
            for time in near {
                let key = Key::new(fingerprint, time, Origin::around(origin));
                let key = key.expect("it is near enough");
                assert_eq!(key.fingerprint(), fingerprint);
                assert_eq!(key.time(Origin::around(origin)), time);
            }
        }
        for far in [now - 5 * year, now + 5 * year, i64::MIN, i64::MAX - 1] {
            assert!(Key::new(fingerprint, far, Origin::around(now)).is_none());
        }
    }
}
