//! Writes the rows of one run inside an open transaction, and finds the rows that the table refuses.
//!
//! Used by `mod.rs` between guard and marker. Appended rows are copied straight into the table; keyed rows are copied
//! into the staging table and merged by one statement (two, where rows are deleted). A chunk of rows is in memory
//! at a time. Failure: a refusal of SQLSTATE class 22 or 23 is searched for by halving under savepoints
//! until the row is found and left out; every other error ends the transaction.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int8Array, Int16Array, Int64Array, RecordBatch, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema};
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{SinkExt, StreamExt, join};
use millstream_common::plan::{OP_COLUMN, OP_DELETE, OnViolation};
use millstream_common::row_bytes::row_bytes;
use tokio_postgres::{Client, Error, Statement};

use super::compact::{Keep, compact, is_comparable};
use super::copy::{CopyColumn, CopyRows};
use super::error::{classify, row_refusal};
use super::statements::Statements;
use super::table::Target;
use super::types::{Encoding, Wire};
use crate::row_json::row_json;
use crate::sink::{REJECTED_ROWS_MAX, RejectedRow, RunRows, SinkError};

/// A chunk is copied when it has this many rows or bytes: what is in memory and what a failed COPY
/// repeats stays small.
const CHUNK_ROWS_MAX: usize = 65_536;
const CHUNK_BYTES_MAX: usize = 8 << 20;
const SAVEPOINT: &str = "millstream";
const SAVE: &str = "SAVEPOINT millstream";
/// Also keeps what was done since the last one.
const SAVE_AGAIN: &str = "RELEASE SAVEPOINT millstream; SAVEPOINT millstream";
const UNDO: &str = "ROLLBACK TO SAVEPOINT millstream; RELEASE SAVEPOINT millstream";

/// What the table is and how rows get there; lasts as long as the connection.
pub(super) struct Plan {
    /// The table.
    pub target: Target,
    /// Its statements.
    pub statements: Statements,
    /// That which copies, prepared.
    pub copy: Statement,
    /// `write to table x of postgres at ...`.
    pub what: String,
    /// What becomes of refused rows.
    pub on_violation: OnViolation,
}

/// Writes one run.
pub(super) struct RunWriter<'a> {
    client: &'a Client,
    plan: &'a Plan,
    /// Rows seen so far; positions in the staging table.
    row_count: u64,
    has_deletes: bool,
    /// Rows may have made way for others of their key.
    has_displaced: bool,
    rejected: Vec<RejectedRow>,
    /// Numbers of the rows refused, as they were given.
    refused: Vec<u64>,
    refused_count: u64,
    /// The transaction has one, [`SAVEPOINT`].
    has_savepoint: bool,
}

/// What a run came to.
#[derive(Default)]
pub(super) struct Written {
    /// Rows read.
    pub row_count: u64,
    /// Rows the table refused, those of earlier rounds included.
    pub refused_count: u64,
    /// Numbers of those refused in this round, as they were given.
    pub refused: Vec<u64>,
    /// Those of them that are to be kept.
    pub rejected: Vec<RejectedRow>,
    /// A row that is fine may have made way for a refused one of its key.
    pub has_displaced: bool,
    /// The outermost savepoint that is still open.
    pub savepoint: Option<&'static str>,
}

/// Why a statement over some rows did not go through.
enum Failed {
    /// Some row's fault; with the place of the row in the range, if that is known.
    Row {
        index: Option<usize>,
        reason: String,
    },
    Other(SinkError),
}

impl<'a> RunWriter<'a> {
    /// Writes through `client`, in whose transaction it is; so many rows of the run were `refused_before`.
    pub(super) fn new(client: &'a Client, plan: &'a Plan, refused_before: u64) -> Self {
        Self {
            client,
            plan,
            row_count: 0,
            has_deletes: false,
            has_displaced: false,
            rejected: Vec::new(),
            refused: Vec::new(),
            refused_count: refused_before,
            has_savepoint: false,
        }
    }

    /// Writes all rows of the run.
    pub(super) async fn write(mut self, rows: &dyn RunRows) -> Result<Written, SinkError> {
        let mut batches = rows.batches();
        let mut gathered = Vec::new();
        let mut row_count = 0;
        let mut bytes = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            row_count += batch.num_rows();
            bytes += row_bytes(&batch);
            gathered.push(batch);
            if row_count >= CHUNK_ROWS_MAX || bytes >= CHUNK_BYTES_MAX {
                self.write_chunk(&rows.schema(), &mut gathered).await?;
                (row_count, bytes) = (0, 0);
            }
        }
        self.write_chunk(&rows.schema(), &mut gathered).await?;
        if self.plan.target.is_keyed() && self.row_count > 0 {
            self.merge().await?;
        }
        Ok(Written {
            row_count: self.row_count,
            refused_count: self.refused_count,
            refused: self.refused,
            rejected: self.rejected,
            has_displaced: self.has_displaced,
            savepoint: self.has_savepoint.then_some(SAVEPOINT),
        })
    }

    async fn write_chunk(
        &mut self,
        schema: &Arc<Schema>,
        gathered: &mut Vec<RecordBatch>,
    ) -> Result<(), SinkError> {
        let batches = std::mem::take(gathered);
        let chunk = concat_batches(schema, &batches).map_err(|error| self.defect(&error))?;
        drop(batches);
        if chunk.num_rows() == 0 {
            return Ok(());
        }
        let first = self.row_count;
        self.row_count += chunk.num_rows() as u64;
        let deletes = operations(&chunk).is_some_and(|ops| ops.values().contains(&OP_DELETE));
        self.has_deletes |= deletes;
        if deletes && (!self.plan.target.is_keyed() || self.plan.target.ignores_conflicts) {
            return Err(SinkError::refused(
                &self.plan.what,
                "the rows contain deletes: give the sink a primary_key, without on_conflict = 'ignore'",
            ));
        }
        if self.plan.target.is_keyed() {
            let staged = self
                .staged(&chunk, first)
                .map_err(|error| self.defect(&error))?;
            // A key may also be in an earlier chunk, and the merge takes one row of a key.
            self.has_displaced |= first > 0 || staged.num_rows() < chunk.num_rows();
            let columns = stage_columns(&self.plan.target, staged.num_columns());
            let places = staged.column(staged.num_columns() - 1);
            let places = places.as_primitive::<Int64Type>().values();
            let place = |row: usize| places[row] as u64;
            self.copy(&staged, &columns, place).await
        } else {
            let columns = &self.plan.target.columns;
            let place = |row: usize| first + row as u64;
            self.copy(&chunk, columns, place).await
        }
    }

    fn defect(&self, error: &ArrowError) -> SinkError {
        SinkError::refused(&self.plan.what, error)
    }

    /// The rows of `chunk` that may count, then `_op` and the position of each.
    fn staged(&self, chunk: &RecordBatch, first: u64) -> Result<RecordBatch, ArrowError> {
        let target = &self.plan.target;
        let schema = chunk.schema();
        let key: Vec<usize> = target
            .primary_key
            .iter()
            .map(|name| schema.index_of(name))
            .collect::<Result<_, _>>()?;
        let keep = if target.ignores_conflicts {
            Keep::First
        } else {
            Keep::Last
        };
        let comparable = |index: &usize| is_comparable(schema.field(*index).data_type());
        let (rows, indices) = if key.iter().all(comparable) {
            compact(chunk, &key, keep)?
        } else {
            let all = (0..chunk.num_rows() as u64).collect::<Vec<_>>();
            (chunk.clone(), UInt64Array::from(all))
        };
        let positions: Int64Array = indices
            .values()
            .iter()
            .map(|index| (first + index) as i64)
            .collect();
        let ops: Int16Array = match operations(&rows) {
            Some(ops) => ops.values().iter().map(|op| i16::from(*op)).collect(),
            None => std::iter::repeat_n(0_i16, rows.num_rows()).collect(),
        };
        let mut fields: Vec<Field> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| field.as_ref().clone())
            .collect();
        fields.push(Field::new("op", DataType::Int16, false));
        fields.push(Field::new("position", DataType::Int64, false));
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(ops) as ArrayRef);
        columns.push(Arc::new(positions));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    }

    /// Copies the rows of `chunk`, leaving out those that are refused; `place` tells which row of the run one is.
    async fn copy(
        &mut self,
        chunk: &RecordBatch,
        columns: &[CopyColumn],
        place: impl Fn(usize) -> u64,
    ) -> Result<(), SinkError> {
        let rows = CopyRows::new(chunk, columns).map_err(|error| self.defect(&error))?;
        let mut ranges: Vec<Range<usize>> = std::iter::once(0..chunk.num_rows()).collect();
        while let Some(range) = ranges.pop() {
            match self.copy_range(&rows, range.clone()).await {
                Ok(()) => {}
                Err(Failed::Other(error)) => return Err(error),
                Err(Failed::Row { reason, .. }) if range.len() == 1 => {
                    let payload = row_json(&own_columns(chunk, &self.plan.target), range.start);
                    self.refuse(place(range.start), payload, reason)?;
                }
                Err(Failed::Row { index, .. }) => split(&range, index, &mut ranges),
            }
        }
        Ok(())
    }

    async fn copy_range(&mut self, rows: &CopyRows, range: Range<usize>) -> Result<(), Failed> {
        let encoded = rows.encode(range.clone());
        let buffers = encoded.map_err(|unencodable| Failed::Row {
            index: Some(unencodable.row - range.start),
            reason: unencodable.reason,
        })?;
        let copy = copy_in(self.client, &self.plan.copy, buffers);
        self.savepoint(copy).await
    }

    /// Merges the staged rows, leaving out those that are refused.
    async fn merge(&mut self) -> Result<(), SinkError> {
        let (client, merge) = (self.client, &self.plan.statements);
        let has_deletes = self.has_deletes;
        let all = async move {
            if has_deletes {
                client.batch_execute(&merge.delete.all).await?;
            }
            client.batch_execute(&merge.upsert.all).await
        };
        match self.savepoint(all).await {
            Ok(()) => Ok(()),
            Err(Failed::Other(error)) => Err(error),
            Err(Failed::Row { .. }) => self.merge_by_halves().await,
        }
    }

    async fn merge_by_halves(&mut self) -> Result<(), SinkError> {
        let statements = &self.plan.statements;
        self.run(&statements.prune).await?;
        let all = 0..self.row_count as usize;
        let mut ranges: Vec<Range<usize>> = std::iter::once(all).collect();
        while let Some(range) = ranges.pop() {
            let merge = merge_range(self.client, statements, self.has_deletes, &range);
            match self.savepoint(merge).await {
                Ok(()) => {}
                Err(Failed::Other(error)) => return Err(error),
                Err(Failed::Row { reason, .. }) if range.len() == 1 => {
                    let position = range.start as i64;
                    let row = self
                        .client
                        .query_one(&statements.staged_row, &[&position])
                        .await;
                    let row = row.map_err(|error| classify(&self.plan.what, &error))?;
                    self.refuse(range.start as u64, row.get(0), reason)?;
                }
                Err(Failed::Row { .. }) => split(&range, None, &mut ranges),
            }
        }
        self.run(&statements.end_prune).await
    }

    async fn run(&self, statements: &str) -> Result<(), SinkError> {
        let done = self.client.batch_execute(statements).await;
        done.map_err(|error| classify(&self.plan.what, &error))
    }

    /// Does `work` so that a refusal of rows leaves the transaction as it was before. It is sent right behind the savepoint.
    async fn savepoint(
        &mut self,
        work: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Failed> {
        let other = |error: &Error| Failed::Other(classify(&self.plan.what, error));
        let save = match self.has_savepoint {
            true => SAVE_AGAIN,
            false => SAVE,
        };
        let (saved, done) = join!(self.client.batch_execute(save), work);
        saved.map_err(|error| other(&error))?;
        self.has_savepoint = true;
        let Err(error) = done else {
            return Ok(());
        };
        let Some(reason) = row_refusal(&error) else {
            return Err(other(&error));
        };
        self.client
            .batch_execute(UNDO)
            .await
            .map_err(|error| other(&error))?;
        self.has_savepoint = false;
        Err(Failed::Row {
            index: refused_line(&error),
            reason,
        })
    }

    fn refuse(&mut self, row: u64, payload: String, reason: String) -> Result<(), SinkError> {
        self.refused_count += 1;
        self.refused.push(row);
        if self.plan.on_violation == OnViolation::Fail {
            let cause =
                format!("on_violation = 'fail', and a row was refused: {reason}: {payload}");
            return Err(SinkError::refused(&self.plan.what, cause));
        }
        if self.refused_count > REJECTED_ROWS_MAX as u64 {
            let cause = format!(
                "more than {REJECTED_ROWS_MAX} rows were refused at once, the last with: {reason}"
            );
            return Err(SinkError::refused(&self.plan.what, cause));
        }
        if self.plan.on_violation == OnViolation::DeadLetter {
            self.rejected.push(RejectedRow {
                row,
                payload,
                reason,
            });
        }
        Ok(())
    }
}

async fn merge_range(
    client: &Client,
    statements: &Statements,
    has_deletes: bool,
    range: &Range<usize>,
) -> Result<(), Error> {
    let (from, to) = (range.start as i64, range.end as i64);
    if has_deletes {
        client
            .execute(&statements.delete.range, &[&from, &to])
            .await?;
    }
    client
        .execute(&statements.upsert.range, &[&from, &to])
        .await?;
    Ok(())
}

async fn copy_in(client: &Client, statement: &Statement, buffers: Vec<Bytes>) -> Result<(), Error> {
    let copy = client.copy_in(statement).await?;
    let mut copy = std::pin::pin!(copy);
    for buffer in buffers {
        copy.send(buffer).await?;
    }
    copy.finish().await.map(drop)
}

/// Pushes the parts of a failed range so that the first is popped first.
fn split(range: &Range<usize>, refused: Option<usize>, ranges: &mut Vec<Range<usize>>) {
    let known = refused
        .map(|index| range.start + index)
        .filter(|row| range.contains(row));
    let parts = match known {
        Some(row) => vec![row + 1..range.end, row..row + 1, range.start..row],
        None => {
            let middle = range.start + range.len() / 2;
            vec![middle..range.end, range.start..middle]
        }
    };
    ranges.extend(parts.into_iter().filter(|part| !part.is_empty()));
}

/// The row that COPY was at when it failed: `COPY clicks, line 3`. Only a hint where to halve.
fn refused_line(error: &Error) -> Option<usize> {
    let context = error.as_db_error()?.where_()?;
    let (_, rest) = context.strip_prefix("COPY ")?.split_once(", line ")?;
    let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

fn operations(rows: &RecordBatch) -> Option<&Int8Array> {
    rows.column_by_name(OP_COLUMN)?
        .as_primitive_opt::<Int8Type>()
}

/// The rows as the user knows them.
fn own_columns(chunk: &RecordBatch, target: &Target) -> RecordBatch {
    let indices: Vec<usize> = target.columns.iter().map(|column| column.index).collect();
    chunk.project(&indices).unwrap_or_else(|_| chunk.clone())
}

/// The table's columns, then the last two of a staged chunk.
fn stage_columns(target: &Target, column_count: usize) -> Vec<CopyColumn> {
    let extra = |name: &str, index: usize, wire: Wire, cast: DataType| CopyColumn {
        name: name.to_owned(),
        index,
        encoding: Encoding { wire, cast },
    };
    let mut columns = target.columns.clone();
    columns.push(extra("op", column_count - 2, Wire::Int2, DataType::Int16));
    columns.push(extra(
        "position",
        column_count - 1,
        Wire::Int8,
        DataType::Int64,
    ));
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_range_is_split_at_the_named_row_or_in_the_middle() {
        let mut ranges = Vec::new();
        split(&(10..20), Some(4), &mut ranges);
        assert_eq!(ranges, [15..20, 14..15, 10..14]);
        ranges.clear();
        split(&(10..20), Some(0), &mut ranges);
        assert_eq!(ranges, [11..20, 10..11]);
        ranges.clear();
        split(&(10..13), Some(99), &mut ranges);
        assert_eq!(ranges, [11..13, 10..11]);
    }
}
