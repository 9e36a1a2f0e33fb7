//! The columns of a source that are not computed: which token or metadata fills which column.
//!
//! Owned by `decoder.rs`. Drives reading block by block: tokens of some rows, then column after column.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use millstream_common::plan::connector::TimestampFormat;
use millstream_common::plan::{ColumnOrigin, SourcePlan};

use super::columns::{Block, Column};
use super::input::{Beside, Records, Typed};
use super::refusals::Refusals;
use super::splits::Splits;
use super::token::{Token, Value};
use super::typed;

/// Rows whose tokens are held at once: they stay in the first-level cache.
const BLOCK_ROWS: usize = 256;

/// The columns filled by records and their metadata.
#[derive(Debug)]
pub(super) struct BaseColumns {
    columns: Vec<BaseColumn>,
    /// In all, computed ones included.
    column_count: usize,
    /// Tokens in a row: columns filled by the record itself.
    width: usize,
    tokens: Vec<Token>,
}

#[derive(Debug)]
struct BaseColumn {
    /// In the source.
    index: usize,
    origin: BaseOrigin,
    column: Column,
}

#[derive(Debug)]
enum BaseOrigin {
    /// The token with this number.
    Record(usize),
    Metadata(Beside),
}

impl BaseColumns {
    /// For the columns of `plan`; `Err` names a column that cannot be filled.
    pub(super) fn new(plan: &SourcePlan, format: TimestampFormat) -> Result<Self, String> {
        let mut columns = Vec::new();
        let mut width = 0;
        for (index, planned) in plan.columns.iter().enumerate() {
            let origin = match &planned.origin {
                ColumnOrigin::Computed(_) => continue,
                ColumnOrigin::Metadata(metadata) => BaseOrigin::Metadata(metadata.into()),
                ColumnOrigin::Record => {
                    width += 1;
                    BaseOrigin::Record(width - 1)
                }
            };
            let column = Column::new(planned, format)
                .map_err(|cause| format!("column \"{}\": {cause}", planned.field.name()))?;
            columns.push(BaseColumn {
                index,
                origin,
                column,
            });
        }
        Ok(Self {
            columns,
            column_count: plan.columns.len(),
            width,
            tokens: Vec::new(),
        })
    }

    /// The names of the columns filled by the record itself, in the order of their tokens.
    pub(super) fn record_names(&self) -> impl Iterator<Item = &str> {
        let is_record = |column: &&BaseColumn| matches!(column.origin, BaseOrigin::Record(_));
        self.columns
            .iter()
            .filter(is_record)
            .map(|column| column.column.name())
    }

    /// The columns of records that `read` turns into text and tokens; a record it refuses has no tokens.
    pub(super) fn read_texts<'a>(
        &mut self,
        records: &impl Records,
        splits: &Splits,
        refusals: &mut Refusals,
        mut read: impl FnMut(usize, &mut [Token], &mut Refusals) -> &'a [u8],
    ) -> Vec<Option<ArrayRef>> {
        let count = records.count();
        let mut texts = Vec::with_capacity(count.min(BLOCK_ROWS));
        for column in &mut self.columns {
            column.column.begin(count);
        }
        for first_record in (0..count).step_by(BLOCK_ROWS) {
            let block = first_record..count.min(first_record + BLOCK_ROWS);
            texts.clear();
            self.tokens.clear();
            self.tokens.resize(block.len() * self.width, Token::MISSING);
            for record in block.clone() {
                let start = (record - first_record) * self.width;
                let row = &mut self.tokens[start..start + self.width];
                texts.push(read(record, row, refusals));
            }
            for column in &mut self.columns {
                match &column.origin {
                    BaseOrigin::Record(token_index) => {
                        let block = Block {
                            texts: &texts,
                            tokens: &self.tokens,
                            width: self.width,
                            first_record,
                        };
                        column.column.append_block(&block, *token_index, refusals);
                    }
                    BaseOrigin::Metadata(beside) => {
                        for record in block.clone() {
                            let value = records.metadata(record, beside, splits);
                            column.column.append_metadata(value, record, refusals);
                        }
                    }
                }
            }
        }
        self.collect(|column| column.column.finish())
    }

    /// The columns of typed rows, matched by name; a column that the rows lack is NULL.
    pub(super) fn read_typed(
        &mut self,
        rows: &Typed<'_>,
        splits: &Splits,
        refusals: &mut Refusals,
    ) -> Result<Vec<Option<ArrayRef>>, ArrowError> {
        let mut all = vec![None; self.column_count];
        for column in &mut self.columns {
            all[column.index] = Some(match &column.origin {
                BaseOrigin::Record(_) => {
                    read_typed_column(&mut column.column, rows.batch, refusals)?
                }
                BaseOrigin::Metadata(beside) => {
                    for record in 0..rows.count() {
                        let value = rows.metadata(record, beside, splits);
                        column.column.append_metadata(value, record, refusals);
                    }
                    column.column.finish()
                }
            });
        }
        Ok(all)
    }

    /// The columns without rows, for an input of `count` refused records.
    pub(super) fn read_nothing(
        &mut self,
        count: usize,
        refusals: &mut Refusals,
    ) -> Vec<Option<ArrayRef>> {
        for column in &mut self.columns {
            for record in 0..count {
                column.column.append_value(Value::Null, record, refusals);
            }
        }
        self.collect(|column| column.column.finish())
    }

    fn collect(
        &mut self,
        mut finish: impl FnMut(&mut BaseColumn) -> ArrayRef,
    ) -> Vec<Option<ArrayRef>> {
        let mut all = vec![None; self.column_count];
        for column in &mut self.columns {
            all[column.index] = Some(finish(column));
        }
        all
    }
}

fn read_typed_column(
    column: &mut Column,
    batch: &RecordBatch,
    refusals: &mut Refusals,
) -> Result<ArrayRef, ArrowError> {
    let Some(array) = batch.column_by_name(column.name()) else {
        for record in 0..batch.num_rows() {
            column.append_value(Value::Null, record, refusals);
        }
        return Ok(column.finish());
    };
    match typed::plain(array)? {
        array if typed::is_text(&array) && !column.takes_any_text() => {
            column.begin(array.len());
            for (record, value) in typed::texts(&array).enumerate() {
                let value = value.map_or(Value::Null, Value::Text);
                column.append_value(value, record, refusals);
            }
            Ok(column.finish())
        }
        array => {
            let cast = typed::cast_lossless(&array, column.data_type())?;
            for record in 0..array.len() {
                if cast.is_valid(record) {
                    continue;
                }
                let source = array.is_valid(record).then(|| typed::shown(&array, record));
                column.refuse_typed(record, source.as_deref(), refusals);
            }
            Ok(cast)
        }
    }
}
