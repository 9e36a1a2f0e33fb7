//! How far behind a sink may be, and what the job does then: `quota_bytes`, `quota_age`, `on_quota`.
//!
//! Read by `master/src/plan`, judged by `master/src/job/quota.rs`. Whatever is chosen, nothing that a sink lacks is ever dropped.
//! Plain data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far behind a sink may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkQuota {
    /// `quota_bytes`: the size of the segments that it lacks.
    pub bytes: Option<u64>,
    /// `quota_age`: since the oldest epoch that it lacks was committed.
    pub age_ms: Option<u64>,
    /// `on_quota`.
    pub policy: OnQuota,
}

/// `on_quota`: what the job does when a sink has used up its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnQuota {
    /// Says so.
    #[default]
    Warn,
    /// Reads nothing until the sink has caught up.
    Backpressure,
    /// Delivers nothing to the sink until a person resumes it.
    Suspend,
}

impl SinkQuota {
    /// Whether it may be behind as far as storage reaches.
    pub fn is_unbounded(&self) -> bool {
        self.bytes.is_none() && self.age_ms.is_none()
    }
}

impl fmt::Display for OnQuota {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Warn => "warn",
            Self::Backpressure => "backpressure",
            Self::Suspend => "suspend",
        })
    }
}
