//! The generator: a source without a client, its one split `datagen-0`.
//!
//! Driven by `reader_actor.rs` through [`SourceReader`]. The position is the number of rows made; row `n` depends on
//! (seed, column, n) only, so a resumed job makes the same rows (INV-5). The rate counts from the first row after
//! the start, by the injected clock. Rows pass the same rules and the same watermark as those of any source.
//! Failure: values that do not fit their columns, at the start.

mod nexmark;
mod random;
mod rows;
mod template;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use millstream_common::error::Kind;
use millstream_common::ids::SplitId;
use millstream_common::plan::{SourcePlan, SourceSpec};
use millstream_common::report::{SplitProgress, SplitStart, SplitStatus};
use millstream_common::time::ClockRef;

use self::rows::RowMaker;
use super::{ConsumeError, CutRequest, ReaderContext, SourceCut, SourceEvent, SourceReader};
use crate::decode::{OpenSplit, SourceDecoder, SplitSlot, WatermarkMoves};

/// Rows of one batch.
const BATCH_ROWS_MAX: u64 = 8_192;
/// At a given rate rows wait for others about this long.
const TICK: Duration = Duration::from_millis(10);

/// Makes rows.
pub struct DatagenReader {
    name: String,
    maker: RowMaker,
    decoder: SourceDecoder,
    clock: ClockRef,
    rows_per_second: Option<u64>,
    cuts: VecDeque<CutRequest>,
    split: Option<OpenedSplit>,
    /// Ended since the last cut.
    ended: BTreeMap<SplitId, SplitProgress>,
    stopped: bool,
}

struct OpenedSplit {
    split: SplitId,
    slot: SplitSlot,
    /// Rows made.
    position: u64,
    end: Option<u64>,
    /// Where and when this reader began, for the rate.
    began: (u64, Duration),
}

impl DatagenReader {
    /// # Errors
    /// A plan whose source is not a generator, or whose values do not fit their columns.
    pub fn start(plan: &SourcePlan, context: ReaderContext) -> Result<Self, ConsumeError> {
        let failed = |kind, cause| ConsumeError {
            kind,
            what: format!("generate source {}", plan.name),
            cause,
        };
        let SourceSpec::Datagen(spec) = &plan.spec else {
            let cause = "its connector is not datagen".to_owned();
            return Err(failed(Kind::Internal, cause));
        };
        let maker = RowMaker::new(plan, spec).map_err(|cause| failed(Kind::User, cause))?;
        let decoder = SourceDecoder::new(
            plan,
            &context.functions,
            context.clock.clone(),
            context.late_rows_needed,
        )
        .map_err(|error| failed(error.kind(), error.to_string()))?;
        Ok(Self {
            name: plan.name.clone(),
            maker,
            decoder,
            clock: context.clock,
            rows_per_second: spec.rows_per_second,
            cuts: VecDeque::new(),
            split: None,
            ended: BTreeMap::new(),
            stopped: false,
        })
    }

    /// Rows that may be made now; `None`: there is nothing left to make.
    fn due(&self) -> Option<u64> {
        let split = self.split.as_ref().filter(|_| !self.stopped)?;
        let left = split
            .end
            .map_or(u64::MAX, |end| end.saturating_sub(split.position));
        let Some(rate) = self.rows_per_second else {
            return Some(left.min(BATCH_ROWS_MAX));
        };
        let (from, since) = split.began;
        let elapsed = self.clock.monotonic().saturating_sub(since);
        let allowed = u128::from(rate) * elapsed.as_micros() / 1_000_000;
        let allowed = from.saturating_add(u64::try_from(allowed).unwrap_or(u64::MAX));
        let due = allowed.saturating_sub(split.position);
        Some(due.min(left).min(BATCH_ROWS_MAX))
    }

    fn make(&mut self, count: u64) -> Result<SourceEvent, ConsumeError> {
        let failed = |kind, cause| ConsumeError {
            kind,
            what: format!("generate source {}", self.name),
            cause,
        };
        let Some(split) = &mut self.split else {
            return Err(failed(Kind::Internal, "no split is open".to_owned()));
        };
        let batch = self
            .maker
            .rows(split.position, count as usize)
            .map_err(|error| failed(Kind::User, error.to_string()))?;
        // Records are counted from 1 where people see them.
        let first = i64::try_from(split.position + 1).unwrap_or(i64::MAX);
        let rows = self
            .decoder
            .decode_typed(split.slot, first, &batch)
            .map_err(|error| failed(error.kind(), error.to_string()))?;
        split.position += count;
        self.end_if_done();
        Ok(SourceEvent::Rows(rows))
    }

    fn end_if_done(&mut self) {
        let is_done = |split: &OpenedSplit| split.end.is_some_and(|end| split.position >= end);
        if let Some(split) = self.split.take_if(|split| is_done(split)) {
            let watermark = self.decoder.close_split(split.slot);
            let mut progress = split.progress(SplitStatus::Ended);
            progress.watermark = watermark;
            self.ended.insert(split.split, progress);
        }
    }

    fn answer(&mut self, request: CutRequest) -> SourceCut {
        let mut splits = std::mem::take(&mut self.ended);
        if let Some(split) = &self.split {
            if let Some(watermark) = request.watermark {
                self.decoder.raise_watermark(split.slot, watermark);
            }
            let mut progress = split.progress(SplitStatus::Active);
            progress.watermark = self.decoder.watermark(split.slot);
            splits.insert(split.split.clone(), progress);
        }
        self.stopped |= request.stop;
        SourceCut {
            epoch: request.epoch,
            splits,
        }
    }
}

impl OpenedSplit {
    fn progress(&self, status: SplitStatus) -> SplitProgress {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        SplitProgress {
            position: signed(self.position),
            end: self.end.map(signed),
            watermark: None,
            status,
            identity: None,
            gaps: None,
        }
    }
}

#[async_trait]
impl SourceReader for DatagenReader {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        loop {
            if let Some(request) = self.cuts.pop_front() {
                return Ok(SourceEvent::Cut(self.answer(request)));
            }
            match self.due() {
                None => std::future::pending().await,
                Some(0) => tokio::time::sleep(TICK).await,
                Some(count) => return self.make(count),
            }
        }
    }

    fn cut(&mut self, request: CutRequest) {
        self.cuts.push_back(request);
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) {
        for start in splits {
            let unsigned = |count: i64| u64::try_from(count).unwrap_or(0);
            let position = unsigned(start.progress.position);
            let end = start.progress.end.map(unsigned);
            let slot = self.decoder.open_split(OpenSplit {
                origin: start.split.to_string(),
                partition: None,
                watermark: start.progress.watermark,
                moves: WatermarkMoves::WithRows,
            });
            self.split = Some(OpenedSplit {
                split: start.split,
                slot,
                position,
                end,
                began: (position, self.clock.monotonic()),
            });
            self.end_if_done();
        }
    }

    /// No outside tool looks at a generator.
    fn committed(&mut self, _: &BTreeMap<SplitId, SplitProgress>) {}
}
