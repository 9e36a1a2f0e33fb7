//! Event time, and the clock as something handed in.
//!
//! Used by every crate. Two kinds of time never mix: [`EventTime`] is what rows say, [`Clock`] is
//! what the wall says. Actors take an `Arc<dyn Clock>`; only [`SystemClock`] reads the machine's.
//! Timers are tokio's, which a simulator controls.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00 UTC, as rows say. Negative before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

impl EventTime {
    /// After every row: the watermark of a job whose sources have all ended.
    pub const MAX: Self = Self(i64::MAX);
}

impl fmt::Display for EventTime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp_micros(self.0) {
            Some(time) => write!(formatter, "{}", time.format("%Y-%m-%dT%H:%M:%S%.6f")),
            None if *self == Self::MAX => formatter.write_str("end of time"),
            None => write!(formatter, "{} us", self.0),
        }
    }
}

/// A span of event time in microseconds, saturating at the ends of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventSpan(pub i64);

impl Sub<EventSpan> for EventTime {
    type Output = Self;

    fn sub(self, span: EventSpan) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl Add<EventSpan> for EventTime {
    type Output = Self;

    fn add(self, span: EventSpan) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

/// What the wall says. `monotonic` measures spans; `unix_micros` only labels things for people.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Time since some fixed moment of this process; never goes back.
    fn monotonic(&self) -> Duration;
    /// Microseconds since 1970 UTC.
    fn unix_micros(&self) -> i64;
}

/// A shared clock.
pub type ClockRef = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    started: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    #[allow(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    pub fn new() -> Self {
        Self {
            started: std::time::Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the machine's clock"
)]
impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn unix_micros(&self) -> i64 {
        chrono::Utc::now().timestamp_micros()
    }
}
