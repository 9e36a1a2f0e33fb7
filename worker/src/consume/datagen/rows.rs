//! Rows made up from a seed: row `n` of a column depends on (seed, column, n) and nothing else.
//!
//! Pure; called by [`super::DatagenReader`]. Values are made in the simplest fitting type and cast to the column's.
//! Failure: a plan whose values do not fit its columns.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, StringBuilder, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use millstream_common::datagen::fit;
use millstream_common::datagen::template::Template;
use millstream_common::plan::connector::{DatagenField, DatagenKind, DatagenSpec};
use millstream_common::plan::{ColumnOrigin, SourcePlan};

use super::nexmark::NexmarkColumn;
use super::random::{Chance, ColumnChance};
use super::template;

/// Makes the rows of a source.
pub(super) struct RowMaker {
    schema: SchemaRef,
    columns: Vec<Column>,
}

struct Column {
    data_type: DataType,
    null_rate: f64,
    /// Decides which values are NULL; apart from the values', so that the rate does not change them.
    nulls: ColumnChance,
    values: ColumnChance,
    kind: Kind,
}

enum Kind {
    Sequence { start: i64, step: i64 },
    Whole { min: i64, max: i64 },
    Fraction { min: f64, max: f64, factor: f64 },
    Choice { values: ArrayRef, weights: Weights },
    Template(Template),
    Nexmark(NexmarkColumn),
}

impl RowMaker {
    /// Every record column needs its field.
    pub(super) fn new(plan: &SourcePlan, spec: &DatagenSpec) -> Result<Self, String> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for column in &plan.columns {
            if column.origin != ColumnOrigin::Record {
                continue;
            }
            let name = column.field.name();
            let described = spec.fields.iter().find(|field| field.column == *name);
            let Some(described) = described else {
                return Err(format!("column {name} has no fields.{name}.kind"));
            };
            let data_type = column.field.data_type();
            let made = Column::new(described, data_type, spec.seed)
                .map_err(|error| format!("column {name}: {error}"))?;
            columns.push(made);
            fields.push(Field::new(name, data_type.clone(), true));
        }
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            columns,
        })
    }

    /// Rows `first..first + count`, counted from 0.
    pub(super) fn rows(&self, first: u64, count: usize) -> Result<RecordBatch, ArrowError> {
        let arrays = self
            .columns
            .iter()
            .map(|column| column.values(first, count))
            .collect::<Result<_, _>>()?;
        RecordBatch::try_new(self.schema.clone(), arrays)
    }
}

impl Column {
    fn new(field: &DatagenField, data_type: &DataType, seed: u64) -> Result<Self, String> {
        let kind = match &field.kind {
            DatagenKind::Sequence { start, step } => Kind::Sequence {
                start: *start,
                step: *step,
            },
            DatagenKind::Uniform { min, max, decimals } if *decimals == 0 => Kind::Whole {
                min: min.ceil() as i64,
                max: max.floor() as i64,
            },
            DatagenKind::Uniform { min, max, decimals } => Kind::Fraction {
                min: *min,
                max: *max,
                factor: 10_f64.powi(i32::try_from(*decimals).unwrap_or(i32::MAX)),
            },
            DatagenKind::Choice { values, skew } => {
                let texts: ArrayRef = Arc::new(StringArray::from_iter_values(values));
                Kind::Choice {
                    values: fit(&texts, data_type).map_err(|error| error.to_string())?,
                    weights: Weights::new(values.len(), *skew)?,
                }
            }
            DatagenKind::Template { template } => Kind::Template(Template::parse(template)?),
            DatagenKind::Nexmark { table, value } => {
                Kind::Nexmark(NexmarkColumn::new(*table, *value, seed))
            }
        };
        Ok(Self {
            data_type: data_type.clone(),
            null_rate: field.null_rate,
            nulls: ColumnChance::new(seed.wrapping_add(1), &field.column),
            values: ColumnChance::new(seed, &field.column),
            kind,
        })
    }

    fn values(&self, first: u64, count: usize) -> Result<ArrayRef, ArrowError> {
        let rows = || first..first + count as u64;
        let present =
            |row| self.null_rate <= 0.0 || self.nulls.row(row).fraction() >= self.null_rate;
        let with = |make: &dyn Fn(u64, Chance) -> i64| -> ArrayRef {
            let values = rows().map(|row| present(row).then(|| make(row, self.values.row(row))));
            Arc::new(Int64Array::from_iter(values))
        };
        let made: ArrayRef = match &self.kind {
            Kind::Sequence { start, step } => {
                with(&|row, _| start.wrapping_add(step.wrapping_mul(row as i64)))
            }
            Kind::Whole { min, max } => with(&|_, mut chance| chance.between(*min, *max)),
            Kind::Fraction { min, max, factor } => {
                let values = rows().map(|row| {
                    present(row).then(|| {
                        let value = min + (max - min) * self.values.row(row).fraction();
                        (value * factor).round() / factor
                    })
                });
                Arc::new(Float64Array::from_iter(values))
            }
            Kind::Choice { values, weights } => {
                let chosen = rows().map(|row| {
                    present(row).then(|| weights.choose(self.values.row(row).fraction()))
                });
                take(values, &UInt32Array::from_iter(chosen), None)?
            }
            Kind::Template(parsed) => {
                let mut texts = StringBuilder::with_capacity(count, count * 16);
                let mut text = String::new();
                for row in rows() {
                    if present(row) {
                        text.clear();
                        template::write(parsed, row + 1, &mut self.values.row(row), &mut text);
                        texts.append_value(&text);
                    } else {
                        texts.append_null();
                    }
                }
                Arc::new(texts.finish())
            }
            Kind::Nexmark(column) => column.values(rows(), present),
        };
        fit(&made, &self.data_type)
    }
}

/// How often each of some values comes: the first most often, after Zipf.
struct Weights(Vec<f64>);

impl Weights {
    fn new(value_count: usize, skew: f64) -> Result<Self, String> {
        if value_count == 0 {
            return Err("it has no values to choose from".to_owned());
        }
        let mut sum = 0.0;
        let sums: Vec<f64> = (1..=value_count)
            .map(|rank| {
                sum += (rank as f64).powf(-skew);
                sum
            })
            .collect();
        Ok(Self(sums.into_iter().map(|part| part / sum).collect()))
    }

    /// The value at `fraction` of all.
    fn choose(&self, fraction: f64) -> u32 {
        let index = self.0.partition_point(|share| *share <= fraction);
        index.min(self.0.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, TimeUnit};
    use arrow::util::display::array_value_to_string;

    use super::*;

    fn column(data_type: DataType, kind: DatagenKind, null_rate: f64) -> Column {
        let field = DatagenField {
            column: "c".to_owned(),
            kind,
            null_rate,
        };
        Column::new(&field, &data_type, 42).expect("a column")
    }

    #[test]
    fn a_row_is_the_same_wherever_the_batch_begins() {
        let kinds = [
            DatagenKind::Uniform {
                min: 0.0,
                max: 1e6,
                decimals: 2,
            },
            DatagenKind::Choice {
                values: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
                skew: 1.0,
            },
            DatagenKind::Template {
                template: "u{n:04}-{hex:6}".to_owned(),
            },
        ];
        for kind in kinds {
            let column = column(DataType::Utf8, kind, 0.3);
            let all = column.values(0, 100).expect("values");
            let tail = column.values(60, 40).expect("values");
            assert_eq!(&all.slice(60, 40), &tail);
        }
    }

    #[test]
    fn a_sequence_of_microseconds_is_a_time() {
        let kind = DatagenKind::Sequence {
            start: 1_767_225_600_000_000,
            step: 500_000,
        };
        let data_type = DataType::Timestamp(TimeUnit::Microsecond, None);
        let times = column(data_type, kind, 0.0).values(1, 1).expect("values");
        let text = array_value_to_string(&times, 0).expect("text");
        assert_eq!(text, "2026-01-01T00:00:00.500");
    }

    #[test]
    fn whole_numbers_cover_their_range_and_fit_decimals() {
        let kind = DatagenKind::Uniform {
            min: 1.0,
            max: 6.0,
            decimals: 0,
        };
        let values = column(DataType::Int64, kind.clone(), 0.0)
            .values(0, 1_000)
            .expect("values");
        let values = values.as_primitive::<Int64Type>();
        assert_eq!(arrow::compute::min(values), Some(1));
        assert_eq!(arrow::compute::max(values), Some(6));
        let decimals = column(DataType::Decimal128(10, 2), kind, 0.0).values(0, 10);
        assert_eq!(decimals.expect("values").len(), 10);
    }

    #[test]
    fn the_first_choice_comes_most_often_and_nulls_at_their_rate() {
        let kind = DatagenKind::Choice {
            values: vec!["1".to_owned(), "2".to_owned(), "3".to_owned()],
            skew: 1.0,
        };
        let values = column(DataType::Int64, kind, 0.25)
            .values(0, 10_000)
            .expect("values");
        let values = values.as_primitive::<Int64Type>();
        let share = |wanted| {
            values
                .iter()
                .flatten()
                .filter(|value| *value == wanted)
                .count()
        };
        assert!(share(1) > share(2) && share(2) > share(3) && share(3) > 500);
        assert!((2_200..2_800).contains(&values.null_count()));
    }

    #[test]
    fn values_that_do_not_fit_the_column_are_refused() {
        let field = DatagenField {
            column: "c".to_owned(),
            kind: DatagenKind::Choice {
                values: vec!["one".to_owned()],
                skew: 0.0,
            },
            null_rate: 0.0,
        };
        assert!(Column::new(&field, &DataType::Int64, 1).is_err());
    }
}
