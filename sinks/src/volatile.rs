//! The marker of sinks that keep none: right as long as the sink lives, unknown to the next one.
//!
//! Used by `console.rs` and `blackhole.rs`. A restarted sink goes on behind the epoch that the master knows it to hold, so it may show
//! again what it had shown last, and when a person sends it back, all behind that epoch. Nothing is decided by what it showed. Pure.

use millstream_common::ids::Epoch;

use crate::sink::{EpochRun, Held, SinkError};

/// How far this instance is.
#[derive(Debug, Default)]
pub(crate) struct VolatileMarker {
    marker: Option<Epoch>,
}

impl VolatileMarker {
    /// What a fence finds.
    pub(crate) fn held(&self) -> Held {
        Held {
            marker: self.marker,
            begun: None,
        }
    }

    /// Whether the run is yet to be applied.
    pub(crate) fn is_open(&self, run: &EpochRun) -> Result<bool, SinkError> {
        match self.marker {
            Some(marker) if marker == run.last => Ok(false),
            Some(marker) if marker != run.guard => Err(SinkError::MarkerMismatch {
                found: marker,
                expected: run.guard,
                advice: "the run does not follow what was shown last".to_owned(),
            }),
            Some(_) | None => Ok(true),
        }
    }

    /// The run was applied.
    pub(crate) fn advance(&mut self, run: &EpochRun) {
        self.marker = Some(run.last);
    }
}
