//! `SET name = value`: settings of the job.

use millstream_common::plan::{JobSettings, LetterRetention};
use millstream_common::secret::Lookup;

use super::{Options, value};
use crate::plan::parse::SetStatement;
use crate::plan::problem::{Place, Problem};

/// The settings of all `SET` statements, and what is wrong with them.
pub(in crate::plan) fn read_settings(
    statements: &[SetStatement],
    lookup: &dyn Lookup,
) -> (JobSettings, Vec<Problem>) {
    let clauses: Vec<_> = statements.iter().map(|set| set.option.clone()).collect();
    let mut options = Options::new("SET".to_owned(), Place::default(), &clauses, lookup);
    let default = JobSettings::default();
    let settings = JobSettings {
        checkpoint_interval_ms: options
            .positive_millis("checkpoint_interval", default.checkpoint_interval_ms),
        restart_budget: options
            .number("restart_budget", 0)
            .and_then(|number| u32::try_from(number).ok())
            .unwrap_or(default.restart_budget),
        restart_window_ms: options.positive_millis("restart_window", default.restart_window_ms),
        dead_letters: options
            .parsed("dead_letter_retention", letter_retention)
            .unwrap_or_default(),
        segment_retention_ms: options.parsed("segment_retention", segment_retention),
    };
    let (_, problems) = options.finish();
    (settings, problems)
}

/// Storage grows with it.
const SEGMENT_RETENTION_MAX_MS: u64 = 30 * 86_400_000;

fn segment_retention(text: &str) -> Result<u64, String> {
    match value::duration_millis(text)? {
        0 => Err("a retention of no time keeps nothing: write '1 second' or longer".to_owned()),
        SEGMENT_RETENTION_MAX_MS.. => Err("segments are kept for less than 30 days".to_owned()),
        millis => Ok(millis),
    }
}

/// `7 days`, `1 GiB`, or both with a comma between; a bound that is not given is the default's.
fn letter_retention(text: &str) -> Result<LetterRetention, String> {
    let mut age_ms = None;
    let mut bytes = None;
    for part in text.split(',').map(str::trim) {
        let wrong = || {
            format!(
                "{part:?} is neither a time nor a size: write '7 days', '1 GiB' or '7 days, 1 GiB'"
            )
        };
        let is_twice = match (value::duration_millis(part), value::bytes(part)) {
            (Ok(0), _) => return Err("a retention of no time keeps nothing".to_owned()),
            (Ok(millis), _) => age_ms.replace(millis).is_some(),
            (_, Ok(size)) => bytes.replace(size).is_some(),
            _ => return Err(wrong()),
        };
        if is_twice {
            return Err(format!("{part:?} is a second bound of its kind"));
        }
    }
    let default = LetterRetention::DEFAULT;
    Ok(LetterRetention {
        age_ms: age_ms.unwrap_or(default.age_ms),
        bytes: bytes.unwrap_or(default.bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_kept_for_a_time_that_has_an_end() {
        assert_eq!(segment_retention("2 hours"), Ok(7_200_000));
        for wrong in ["0 s", "30 days", "1 GiB", "long"] {
            assert!(segment_retention(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dead_letters_are_kept_for_a_time_and_up_to_a_size() {
        let kept = |age_ms, bytes| Ok(LetterRetention { age_ms, bytes });
        let default = LetterRetention::DEFAULT;
        assert_eq!(letter_retention("2 days"), kept(172_800_000, default.bytes));
        assert_eq!(letter_retention("64 MiB"), kept(default.age_ms, 64 << 20));
        assert_eq!(letter_retention("1 hour, 1 MiB"), kept(3_600_000, 1 << 20));
        assert_eq!(letter_retention("1 MiB,1 hour"), kept(3_600_000, 1 << 20));
        for wrong in [
            "",
            "long",
            "1 hour, 2 hours",
            "1 MiB, 2 MiB",
            "0 days",
            "1 day,",
        ] {
            assert!(letter_retention(wrong).is_err(), "{wrong}");
        }
    }
}
