//! A preview between the processes that it passes through: what opens it at a worker, and what stands beside its rows.
//!
//! The master finds the taps of a relation and asks the workers for them by Flight's DoGet, whose ticket is a [`Ticket`] as JSON;
//! every message of the answer has [`Marks`] as its metadata. [`rows`] is the last step: what a person or a program is shown.
//! Plain data.

pub mod rows;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, JobName, StageIndex};
use crate::plan::{PlanSchema, Port, Transform};

/// Opens taps of one job at one worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// The job.
    pub job: JobName,
    /// The generation that the taps were found in; a worker that runs another one refuses.
    pub generation: Generation,
    /// More than one where the relation is put together by UNION ALL. All have the same schema.
    pub taps: Vec<Tap>,
}

/// A point in a stage where rows of a relation exist: a port of its head, and what makes the relation's rows of that port's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tap {
    /// The stage.
    pub stage: StageIndex,
    /// The stream of its head; rows of `Changes` have `_op` as last column.
    pub port: Port,
    /// Applied in order, aside from the path of the rows.
    pub transforms: Vec<Transform>,
    /// Of the rows behind the last transform, without `_op`.
    pub schema: PlanSchema,
}

/// What stands beside the rows of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Rows at the tap that were passed over since the message before, because the reader was slower than they came.
    pub skipped_rows: u64,
}
