//! The way of refused rows into the log, while the sink that refused them waits with its run.
//!
//! Made by `sink_actor.rs` for each run and given to the sink as [`Rejects`]. The rows become dead letters in storage, the
//! master is told, and told again, until an Epoch names them; only then the sink may commit without them. So a crash at
//! any point finds them either not refused yet, and they are tried again, or named by the log, and they are left out: a
//! retry that refuses other rows adds to those, and no row is both in the sink and in the dead letters (INV-10).
//! Failure: an Epoch that names rows of an earlier try ends this one; the next is given the rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_common::ids::Epoch;
use millstream_common::mutant::{self, Mutant};
use tokio::sync::watch;

use crate::left_out::{RunSegment, locate};
use crate::sink::{EpochRun, RejectedRow, Rejects, SinkError};
use crate::sink_actor::SinkObserver;

/// The master is told again after this: it may have been replaced, and its successor does not know.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(2);
const WHAT: &str = "record refused rows";

/// The attempt that the newest Epoch with refused rows of this sink names; `None` before the first.
pub(crate) type Recorded = watch::Receiver<Option<String>>;

/// Hands the refused rows of one run over.
pub(crate) struct RefusedRun {
    pub(crate) segments: Vec<RunSegment>,
    pub(crate) observer: Arc<dyn SinkObserver>,
    /// As of the begin of the run.
    pub(crate) recorded: Recorded,
}

/// A refused row, and which of its epoch it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRow {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place among the epoch's rows of the output, from 0.
    pub place: u64,
    /// What the sink said.
    pub rejected: RejectedRow,
}

/// The places by epoch, ascending.
pub fn places(rows: &[PlacedRow]) -> BTreeMap<Epoch, Vec<u64>> {
    let mut places: BTreeMap<Epoch, Vec<u64>> = BTreeMap::new();
    for row in rows {
        places.entry(row.epoch).or_default().push(row.place);
    }
    for rows in places.values_mut() {
        rows.sort_unstable();
    }
    places
}

impl RefusedRun {
    fn placed(&self, rejected: &[RejectedRow]) -> Result<Vec<PlacedRow>, SinkError> {
        let placed = rejected.iter().map(|row| {
            let (epoch, place) = locate(&self.segments, row.row)?;
            Some(PlacedRow {
                epoch,
                place,
                rejected: row.clone(),
            })
        });
        let placed: Option<Vec<PlacedRow>> = placed.collect();
        placed.ok_or_else(|| SinkError::refused(WHAT, "the sink refused a row it was not given"))
    }
}

#[async_trait]
impl Rejects for RefusedRun {
    async fn keep(&self, run: &EpochRun, rejected: &[RejectedRow]) -> Result<(), SinkError> {
        let rows = self.placed(rejected)?;
        let refusal = self.observer.keep(run.last, &rows).await?;
        let mut recorded = self.recorded.clone();
        loop {
            self.observer.refused(&refusal);
            if mutant::is(Mutant::CommitBeforeRefusals) {
                return Ok(());
            }
            match tokio::time::timeout(TOLD_AGAIN_AFTER, recorded.changed()).await {
                Err(_) => continue,
                Ok(Err(_)) => return Err(SinkError::unavailable(WHAT, "the job is ending")),
                Ok(Ok(())) => {}
            }
            if *recorded.borrow() == Some(refusal.refused.attempt) {
                return Ok(());
            }
            let cause = "rows of an earlier try were recorded; the rest is tried without them";
            return Err(SinkError::unavailable(WHAT, cause));
        }
    }
}
