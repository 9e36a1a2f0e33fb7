//! Figures as people read them.
//!
//! Used by what prints tables: the bench and the chaos run. Pure.

use std::time::Duration;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The least value that `share` of `sorted` do not exceed; zero if there are none.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    let index = rank.max(1).min(sorted.len()).wrapping_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}
