//! What travels on an edge, in order, in one queue.
//!
//! Made by `sender.rs` and `flight_server.rs`, read by the receiving task through `align.rs`. There are no messages
//! for watermarks: the master computes them once an epoch and they travel in the barrier.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use millstream_common::ids::{TaskId, WorkerId};
pub use millstream_common::link::{BarrierCommand as EdgeBarrier, BarrierKind};
use serde::{Deserialize, Serialize};

use super::credit::CreditPermit;

/// The way from one task to another along one branch of the sending stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EdgeId {
    /// The sending task.
    pub from: TaskId,
    /// The receiving task.
    pub to: TaskId,
    /// Index into the sending stage's branches: two branches may lead to the same stage.
    pub branch: u32,
}

impl fmt::Display for EdgeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{} to {}", self.from, self.branch, self.to)
    }
}

/// A message of an edge.
#[derive(Debug)]
pub enum StreamMessage {
    /// Rows of the running epoch.
    Batch(EdgeBatch),
    /// Ends the epoch that it names; the rows behind it belong to a later one.
    Barrier(EdgeBarrier),
}

/// Rows of one owner: a batch, or some rows of a batch that is shared with other owners in the same process, so that nothing is
/// copied on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedRows {
    batch: RecordBatch,
    chosen: Option<Chosen>,
}

#[derive(Clone, Debug, PartialEq)]
struct Chosen {
    rows: Vec<u32>,
    fingerprints: Vec<u128>,
}

impl OwnedRows {
    /// All rows of a batch.
    pub fn whole(batch: RecordBatch) -> Self {
        Self {
            batch,
            chosen: None,
        }
    }

    /// Some rows of a batch, in order, with the fingerprints of their keys.
    pub fn chosen(batch: RecordBatch, rows: Vec<u32>, fingerprints: Vec<u128>) -> Self {
        assert_eq!(rows.len(), fingerprints.len(), "each row has one key");
        let chosen = Some(Chosen { rows, fingerprints });
        Self { batch, chosen }
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        match &self.chosen {
            None => self.batch.num_rows(),
            Some(chosen) => chosen.rows.len(),
        }
    }

    /// The batch that they are rows of.
    pub fn batch(&self) -> &RecordBatch {
        &self.batch
    }

    /// Which rows of it they are, in order, and the fingerprints of their keys; `None`: all of them.
    pub fn choice(&self) -> Option<(&[u32], &[u128])> {
        let chosen = self.chosen.as_ref();
        chosen.map(|chosen| (&chosen.rows[..], &chosen.fingerprints[..]))
    }

    /// They alone, as a batch.
    ///
    /// # Errors
    /// Where Arrow cannot build it; a defect.
    pub fn into_batch(self) -> Result<RecordBatch, ArrowError> {
        match self.chosen {
            None => Ok(self.batch),
            Some(chosen) => take_record_batch(&self.batch, &UInt32Array::from(chosen.rows)),
        }
    }
}

/// Rows, with the credit that they hold until they are folded.
#[derive(Debug)]
pub struct EdgeBatch {
    /// The rows, in the schema of the edge.
    pub rows: OwnedRows,
    /// Dropped once the rows are in the state: that is what lets the sender send again.
    pub permit: CreditPermit,
}

/// The receiving end of an edge is gone, or the edge was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the edge is closed")]
pub struct Closed;

/// Puts a message into the receiving task's mailbox. Must not block.
pub type Deliver = Arc<dyn Fn(EdgeId, StreamMessage) -> Result<(), Closed> + Send + Sync>;

/// The worker at the other end of an edge went away before the last barrier. What was under way is not resent:
/// the pipeline ends, and the master rewinds the job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("edge {edge}: lost worker {peer}: {cause}")]
pub struct PeerLost {
    /// The edge that broke.
    pub edge: EdgeId,
    /// The worker at its other end.
    pub peer: WorkerId,
    /// What was seen of the loss.
    pub cause: String,
}

/// Tells a pipeline that it lost a peer. Must not block; called at most once an edge.
pub type OnLost = Arc<dyn Fn(PeerLost) + Send + Sync>;
