//! Writes one run: records, then the marker, in one transaction.
//!
//! Used by `mod.rs` between a fence and the next error. One batch of rows is in memory at a time, beside what the producer has
//! under way (INV-9). A record that the topic would not take is a refused row, found before anything is sent. Failure: the
//! caller drops the producer, and with it the transaction.

use arrow::array::RecordBatch;
use futures::StreamExt;
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::OnViolation;
use millstream_common::trace::{TRACEPARENT, TraceContext};

use super::cluster::{ClusterError, Records};
use super::encode::has_deletes;
use super::{Open, Target};
use crate::row_json::row_json;
use crate::sink::{Applied, EpochRun, REJECTED_ROWS_MAX, RejectedRow, Rejects, RunRows, SinkError};

/// Why a run was not applied.
pub(super) enum Failed {
    /// Kafka did not do it.
    Cluster(ClusterError),
    /// Something else, while Kafka would have.
    Other(SinkError),
}

impl From<ClusterError> for Failed {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error)
    }
}

impl From<SinkError> for Failed {
    fn from(error: SinkError) -> Self {
        Self::Other(error)
    }
}

/// What a run came to.
#[derive(Default)]
struct Written {
    row_count: u64,
    refused_count: u64,
    rejected: Vec<RejectedRow>,
}

impl Written {
    fn applied(&self) -> Applied {
        let rejected_count = self.rejected.len() as u64;
        Applied {
            row_count: self.row_count - self.refused_count,
            rejected_count,
            dropped_count: self.refused_count - rejected_count,
        }
    }
}

impl Target {
    /// Writes and commits the run.
    pub(super) async fn write(
        &self,
        open: &mut Open,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, Failed> {
        let mut written = Written::default();
        open.producer.begin().await?;
        let mut batches = rows.batches();
        while let Some(batch) = batches.next().await {
            self.write_batch(open, &batch?, rows.trace(), &mut written)
                .await?;
        }
        if !written.rejected.is_empty() {
            rejects.keep(run, &written.rejected).await?;
        }
        let (key, value) = open
            .names
            .slot
            .marker(&self.deliverer, run.last, open.rewound);
        let (topic, partition) = (&open.names.progress_topic, open.names.slot.partition);
        let marker = Records::one(topic, partition, key, &value);
        if mutant::is(Mutant::MarkerInOwnTransaction) {
            open.producer.commit().await?;
            open.producer.begin().await?;
        }
        open.producer.send(marker).await?;
        open.producer.commit().await?;
        Ok(written.applied())
    }

    async fn write_batch(
        &self,
        open: &mut Open,
        batch: &RecordBatch,
        trace: Option<TraceContext>,
        written: &mut Written,
    ) -> Result<(), Failed> {
        if has_deletes(batch) && !self.layout.is_keyed() {
            let cause = "the rows contain deletes: give the sink a primary_key";
            return Err(SinkError::refused(self.what("write to"), cause).into());
        }
        let records = self.layout.encode(&open.names.topic, batch);
        let mut records =
            records.map_err(|error| SinkError::refused(self.what("write to"), error))?;
        if let Some(trace) = trace {
            let name = TRACEPARENT.to_string_lossy();
            records.add_header(&name, trace.to_string().as_bytes());
        }
        let first = written.row_count;
        written.row_count += records.count() as u64;
        for row in open.producer.send(records).await? {
            self.refuse(open.message_bytes_max, batch, (first, row), written)?;
        }
        Ok(())
    }

    fn refuse(
        &self,
        message_bytes_max: usize,
        batch: &RecordBatch,
        (first, row): (u64, usize),
        written: &mut Written,
    ) -> Result<(), SinkError> {
        let reason = format!(
            "the record is larger than topic {} takes ({message_bytes_max} bytes): raise max.message.bytes of the topic",
            self.spec.topic
        );
        written.refused_count += 1;
        if self.on_violation == OnViolation::Fail {
            return Err(SinkError::refused(self.what("write to"), reason));
        }
        if written.refused_count > REJECTED_ROWS_MAX as u64 {
            let cause = format!(
                "more than {REJECTED_ROWS_MAX} rows were refused at once, the last with: {reason}"
            );
            return Err(SinkError::refused(self.what("write to"), cause));
        }
        if self.on_violation == OnViolation::DeadLetter {
            let own: Vec<usize> = (0..self.schema.fields().len()).collect();
            let rows = batch.project(&own).unwrap_or_else(|_| batch.clone());
            let payload = row_json(&rows, row);
            written.rejected.push(RejectedRow {
                row: first + row as u64,
                payload,
                reason,
            });
        }
        Ok(())
    }
}
