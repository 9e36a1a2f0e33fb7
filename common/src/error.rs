//! What kind of thing went wrong, and whether trying again may help.
//!
//! Every crate's error maps to a [`Kind`]; supervisors decide by it, the control API maps it to a
//! gRPC code once. Texts are lowercase, say where and what, and name the next step.

use serde::{Deserialize, Serialize};

/// Who has to act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The user's SQL, options or data: the same input fails again.
    User,
    /// Something outside (broker, database, storage, network): the same call may work later.
    External,
    /// A rule of ours is broken: a defect.
    Internal,
}

impl Kind {
    /// Whether the same attempt may work later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::External)
    }
}

/// Why a pipeline ended before it was told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{origin}: {cause}")]
pub struct Failure {
    /// Who has to act.
    pub kind: Kind,
    /// The actor, source or sink it came from.
    pub origin: String,
    /// The whole cause, outermost first.
    pub cause: String,
}

impl Failure {
    /// A failure of `origin`, with the chain of sources of `error` spelled out.
    pub fn new(kind: Kind, origin: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self {
            kind,
            origin: origin.into(),
            cause: chain(error),
        }
    }
}

/// An error and its sources, joined by `: `, without saying the same text twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
