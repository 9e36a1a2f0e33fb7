//! Options of the master: how long storage keeps what is not needed any more.

use std::time::Duration;

use clap::Args;
use millstream_master::retention::Retention;

#[derive(Args)]
pub(crate) struct RetentionArguments {
    /// How long log objects stay once a boundary stands for them; more than a master may sleep.
    #[arg(long, env = "MILLSTREAM_LOG_RETENTION", default_value = "24h", value_name = "TIME", value_parser = time)]
    log_retention: Duration,
    /// How long segments stay once every sink holds them: how far back a restored sink may be.
    #[arg(long, env = "MILLSTREAM_SEGMENT_RETENTION", default_value = "1h", value_name = "TIME", value_parser = time)]
    segment_retention: Duration,
    /// Of how many epochs the state is kept.
    #[arg(
        long,
        env = "MILLSTREAM_RETAINED_CHECKPOINTS",
        default_value = "3",
        value_name = "COUNT"
    )]
    retained_checkpoints: u16,
    /// How often storage is looked through for what may go.
    #[arg(long, env = "MILLSTREAM_RETENTION_INTERVAL", default_value = "60s", value_name = "TIME", value_parser = time)]
    retention_interval: Duration,
}

impl From<RetentionArguments> for Retention {
    fn from(arguments: RetentionArguments) -> Self {
        Self {
            interval: arguments.retention_interval.max(Duration::from_millis(100)),
            log: arguments.log_retention,
            segments: arguments.segment_retention,
            checkpoints: arguments.retained_checkpoints.into(),
            ..Self::default()
        }
    }
}

/// A whole number and its unit: `500ms`, `90s`, `15m`, `24h`, `7d`.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text} is no time; write 500ms, 90s, 15m, 24h or 7d");
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(digits.ok_or_else(wrong)?);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let millis = number.checked_mul(millis).ok_or_else(wrong)?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "5", "h", "1.5h", "1 h", "-1s", "99999999999999999d"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
