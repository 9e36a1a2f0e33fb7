//! How times are mostly written, eight bytes at a time.
//!
//! Called by `time.rs`. One comparison tells whether all digits and all that stands between them are in their places. Pure.
//! Failure: `None`, for times that are written in another way.

use crate::decode::words::HIGHS;

pub(super) const YEAR_MONTH: Form = Form::of(b"0000-00-");
pub(super) const DAY_MINUTE: Form = Form::of(b"00T00:00");
pub(super) const DAY_MINUTE_BLANK: Form = Form::of(b"00 00:00");
pub(super) const CLOCK: Form = Form::of(b"00:00:00");

/// How eight bytes of a time are written.
pub(super) struct Form {
    /// The word where all digits are 0.
    zeros: u64,
    /// What carries into the highest bit of a byte: over 9 where there is a digit, over 0 elsewhere.
    limits: u64,
}

impl Form {
    const fn of(zeros: &[u8; 8]) -> Self {
        let mut limits = [0x7f; 8];
        let mut index = 0;
        while index < limits.len() {
            if zeros[index] == b'0' {
                limits[index] = 0x76;
            }
            index += 1;
        }
        Self {
            zeros: u64::from_le_bytes(*zeros),
            limits: u64::from_le_bytes(limits),
        }
    }

    /// The values of the digits, each in its byte.
    #[inline]
    pub(super) fn values(&self, word: u64) -> Option<u64> {
        let values = word ^ self.zeros;
        let is_well = (values.wrapping_add(self.limits) | values) & HIGHS == 0;
        is_well.then_some(values)
    }
}
