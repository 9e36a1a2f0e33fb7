//! Takes rows and keeps only their number: for measuring everything in front of a sink.
//!
//! Reads every row, as a real sink would. Its marker is in memory only. Cannot fail by itself.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;

use crate::sink::{Applied, Cadence, EpochRun, Held, Rejects, RunRows, Sink, SinkError};
use crate::volatile::VolatileMarker;

/// Nowhere.
#[derive(Debug, Default)]
pub struct BlackholeSink {
    marker: VolatileMarker,
}

#[async_trait]
impl Sink for BlackholeSink {
    fn cadence(&self) -> Cadence {
        Cadence {
            run_bytes_max: 64 << 20,
            run_epochs_max: 64,
            gather: Duration::ZERO,
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        Ok(self.marker.held())
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        _: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        if !self.marker.is_open(run)? {
            return Ok(Applied::default());
        }
        let mut applied = Applied::default();
        let mut batches = rows.batches();
        while let Some(batch) = batches.next().await {
            applied.row_count += batch?.num_rows() as u64;
        }
        self.marker.advance(run);
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Change, apply};
    use millstream_common::ids::Epoch;

    #[tokio::test]
    async fn rows_are_counted_once_and_the_marker_is_as_old_as_the_sink() {
        let mut sink = BlackholeSink::default();
        assert_eq!(sink.fence().await.expect("fence").marker, None);
        let rows: &[&[Change]] = &[&[Change::Put(1, "a"), Change::Delete(2)]];
        let applied = apply(&mut sink, 4, 6, rows).await.expect("applied");
        assert_eq!(applied.row_count, 2);
        let again = apply(&mut sink, 4, 6, rows).await.expect("held");
        assert_eq!(again.row_count, 0);
        assert_eq!(sink.fence().await.expect("fence").marker, Some(Epoch(6)));
        assert!(apply(&mut sink, 5, 7, rows).await.is_err());
    }
}
