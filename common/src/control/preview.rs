//! A preview as a client asks for it and gets it: what is shown, then its rows as they flow.
//!
//! Answered by the master, which has the rows from the workers. Rows are of epochs that may not be committed; they come at least once,
//! and those that a slow reader does not take are passed over and counted. Plain data.

use crate::ids::{Generation, WorkerId};

/// What is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviewHeader {
    /// The relation, by its exact name.
    pub relation: String,
    /// The generation whose rows they are; with the next one the preview ends, and is to be asked for again.
    pub generation: Generation,
    /// Rows take the place of others or delete them: each has its operation as last column.
    pub is_changelog: bool,
    /// The columns of the rows, without the operation.
    pub columns: Vec<PreviewColumn>,
    /// Columns of the relation that no task keeps, because nothing reads them.
    pub left_out: Vec<String>,
    /// Who runs the tasks that the rows come from.
    pub workers: Vec<WorkerId>,
}

/// A column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviewColumn {
    /// Its name.
    pub name: String,
    /// Its type, in SQL.
    pub sql_type: String,
}

/// Rows of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewRows {
    /// Who runs the task that they come from.
    pub worker: WorkerId,
    /// An Arrow IPC stream of its own; empty where nothing but a count is told.
    pub arrow_stream: Vec<u8>,
    /// Rows at the tap that were passed over since the message before.
    pub skipped_rows: u64,
}

/// A message of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviewPart {
    /// The first.
    Header(PreviewHeader),
    /// All others.
    Rows(PreviewRows),
}
