//! The decoder of one source task: records in, checked rows and dead letters out.
//!
//! Owned by a reader's thread; one for all splits of that reader. Order of work, for a whole batch at a time: columns of
//! the record and its metadata, computed columns, CHECKs, then late or not. Each step refuses rows and the next sees only what
//! is left; a record keeps the first refusal.
//! Failure: `on_violation = 'fail'`, and our own defects.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, TimeUnit};
use millstream_common::dead_letter::Code;
use millstream_common::error::Kind;
use millstream_common::plan::connector::TimestampFormat;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{FormatSpec, SourcePlan};
use millstream_common::time::{ClockRef, EventTime};

use super::base::BaseColumns;
use super::csv;
use super::input::{Lent, Records, Single, Typed};
use super::json::walk::ObjectWalker;
use super::judge::Judge;
use super::refusals::Refusals;
use super::rules::Rules;
use super::splits::{Splits, TimeRule};
use super::token::Token;
use super::{DecodeError, OpenSplit, RecordRef, SplitSlot};
use crate::consume::DecodedRows;

/// Decodes the records of one source.
#[derive(Debug)]
pub struct SourceDecoder {
    format: FormatSpec,
    base: BaseColumns,
    walker: ObjectWalker,
    judge: Judge,
}

impl SourceDecoder {
    /// A decoder for `plan`. Late rows stay in the batches, flagged, iff `late_rows_needed`.
    pub fn new(
        plan: &SourcePlan,
        functions: &Functions,
        clock: ClockRef,
        late_rows_needed: bool,
    ) -> Result<Self, DecodeError> {
        let broken = |cause: String| DecodeError::Build {
            source_name: plan.name.clone(),
            cause,
        };
        let timestamp_format = match &plan.format {
            FormatSpec::Json {
                timestamp_format, ..
            }
            | FormatSpec::Csv {
                timestamp_format, ..
            } => *timestamp_format,
            FormatSpec::Parquet | FormatSpec::Native => TimestampFormat::Iso,
        };
        let base = BaseColumns::new(plan, timestamp_format).map_err(broken)?;
        let time = time_rule(plan).map_err(broken)?;
        Ok(Self {
            format: plan.format.clone(),
            walker: ObjectWalker::new(base.record_names()),
            base,
            judge: Judge {
                source: plan.name.clone(),
                rules: Rules::new(plan, functions).map_err(broken)?,
                splits: Splits::default(),
                time,
                on_violation: plan.on_violation,
                late_rows_needed,
                clock,
                begun: Duration::ZERO,
            },
        })
    }

    /// Begins a split; its number is valid until [`Self::close_split`].
    pub fn open_split(&mut self, split: OpenSplit) -> SplitSlot {
        self.judge.splits.open(split)
    }

    /// The split's watermark: no accepted row to come is older.
    pub fn watermark(&self, slot: SplitSlot) -> Option<EventTime> {
        self.judge.splits.watermark(slot)
    }

    /// From now on no accepted row of the split is older than `floor`: an idle split that wakes.
    pub fn raise_watermark(&mut self, slot: SplitSlot, floor: EventTime) {
        self.judge.splits.raise_watermark(slot, floor);
    }

    /// Ends a split and says its last watermark; the number may be given to another split.
    pub fn close_split(&mut self, slot: SplitSlot) -> Option<EventTime> {
        self.judge.splits.close(slot)
    }

    /// Decodes JSON records of any splits, each split's in order of position; together less than 2 GiB.
    pub fn decode_records(
        &mut self,
        records: &[RecordRef<'_>],
    ) -> Result<DecodedRows, DecodeError> {
        self.judge.begin();
        let bytes_max = match self.format {
            FormatSpec::Json {
                record_bytes_max, ..
            } => record_bytes_max.min(u32::MAX as usize),
            _ => {
                return Err(self
                    .judge
                    .broken("only format = 'json' has records of bytes"));
            }
        };
        let Self {
            base,
            walker,
            judge,
            ..
        } = self;
        let mut refusals = Refusals::new(records.len());
        let read = |record: usize, row: &mut [Token], refusals: &mut Refusals| {
            let (code, reason) = match records[record].payload {
                None => (Code::NullPayload, "the record has no value".to_owned()),
                Some(bytes) if bytes.len() > bytes_max => {
                    (Code::TooLong, too_long_reason(bytes_max))
                }
                Some(bytes) => match walker.walk_bytes(bytes, row) {
                    Ok(text) => return text,
                    Err(reason) => (Code::Malformed, reason),
                },
            };
            row.fill(Token::MISSING);
            refusals.refuse(record, code, || reason);
            &[]
        };
        let input = Lent(records);
        let columns = base.read_texts(&input, &judge.splits, &mut refusals, read);
        judge.finish(&input, columns, refusals)
    }

    /// Decodes the records that `found` holds; see `csv/mod.rs`.
    pub(super) fn decode_csv(
        &mut self,
        found: &csv::Found<'_>,
    ) -> Result<DecodedRows, DecodeError> {
        let Self { base, judge, .. } = self;
        judge.begin();
        let mut refusals = Refusals::new(found.count());
        let columns = base.read_texts(
            found,
            &judge.splits,
            &mut refusals,
            |record, row, refusals| match found.read(record, row) {
                Ok(text) => text,
                Err((code, reason)) => {
                    row.fill(Token::MISSING);
                    refusals.refuse(record, code, || reason);
                    &[]
                }
            },
        );
        judge.finish(found, columns, refusals)
    }

    /// A defect of ours.
    pub(super) fn broken(&self, cause: impl ToString) -> DecodeError {
        self.judge.broken(cause)
    }

    /// How the source's records are written.
    pub(super) fn format(&self) -> &FormatSpec {
        &self.format
    }

    /// The names of the columns filled by the record itself.
    pub(super) fn record_names(&self) -> impl Iterator<Item = &str> {
        self.base.record_names()
    }

    /// Checks rows that are typed already: columns are matched by name and cast without loss; row
    /// `i` has position `first_position + i`.
    pub fn decode_typed(
        &mut self,
        slot: SplitSlot,
        first_position: i64,
        batch: &RecordBatch,
    ) -> Result<DecodedRows, DecodeError> {
        self.judge.begin();
        let rows = Typed {
            slot,
            first_position,
            batch,
        };
        let mut refusals = Refusals::new(batch.num_rows());
        let columns = self
            .base
            .read_typed(&rows, &self.judge.splits, &mut refusals);
        let columns = columns.map_err(|error| self.judge.broken(error))?;
        self.judge.finish(&rows, columns, refusals)
    }

    /// Refuses one record, or what stands at its place in a file that cannot be read on.
    pub fn refuse(
        &mut self,
        slot: SplitSlot,
        position: i64,
        payload: Option<&[u8]>,
        code: Code,
        reason: String,
    ) -> Result<DecodedRows, DecodeError> {
        self.judge.begin();
        let record = Single {
            slot,
            position,
            payload,
        };
        let mut refusals = Refusals::new(1);
        refusals.refuse(0, code, || reason);
        let columns = self.base.read_nothing(1, &mut refusals);
        self.judge.finish(&record, columns, refusals)
    }
}

/// What a dead letter says of a record over `record_bytes_max`.
pub(super) fn too_long_reason(bytes_max: usize) -> String {
    format!(
        "the record has more than {bytes_max} bytes (record_bytes_max); payload is its beginning"
    )
}

fn time_rule(plan: &SourcePlan) -> Result<Option<TimeRule>, String> {
    let Some(watermark) = plan.watermark else {
        return Ok(None);
    };
    let field = match plan.columns.get(watermark.column) {
        Some(column) => &column.field,
        None => return Err(format!("no column {} for the watermark", watermark.column)),
    };
    let column_name = field.name().clone();
    match field.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(Some(TimeRule {
            column: watermark.column,
            column_name,
            delay: watermark.delay,
            keeps_time: plan.keeps_time,
        })),
        other => Err(format!(
            "event time \"{column_name}\" is a {other}, not a timestamp"
        )),
    }
}

impl DecodeError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Violation { .. } => Kind::User,
            Self::Build { .. } | Self::Batch { .. } => Kind::Internal,
        }
    }
}
