//! Whether what is made up fits its column: asked before a job starts, so that a generator does not stop in the middle.
//!
//! Called by the planner for each field of a `datagen` source ([`check`]); the generator converts its values by the same
//! [`fit`] and reads the same [`template::Template`]. Pure. Failure: a [`Misfit`] names the option and the value.

pub mod nexmark;
pub mod template;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;

use crate::plan::connector::DatagenKind;

use self::nexmark::NexmarkValue;
use self::template::Template;

/// What is wrong with how a column is made up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The option to change.
    pub option: &'static str,
    /// What is wrong with it.
    pub cause: String,
}

/// Whether every value of `kind` fits `data_type`, of the first `row_count` rows where rows count.
pub fn check(
    kind: &DatagenKind,
    data_type: &DataType,
    row_count: Option<u64>,
) -> Result<(), Misfit> {
    match kind {
        DatagenKind::Sequence { start, step } => {
            check_sequence(*start, *step, data_type, row_count)
        }
        DatagenKind::Uniform { min, max, decimals } => {
            check_uniform(*min, *max, *decimals, data_type)
        }
        DatagenKind::Choice { values, .. } => {
            let misfit = values.iter().find(|value| {
                let text: ArrayRef = Arc::new(StringArray::from_iter_values([value]));
                fit(&text, data_type).is_err()
            });
            match misfit {
                Some(value) => Err(does_not_fit("values", format!("{value:?}"))),
                None => Ok(()),
            }
        }
        DatagenKind::Template { template } => match Template::parse(template) {
            Ok(_) => Ok(()),
            Err(cause) => Err(Misfit {
                option: "template",
                cause,
            }),
        },
        DatagenKind::Nexmark { value, .. } => match fits_nexmark(*value, data_type) {
            true => Ok(()),
            false => Err(Misfit {
                option: "kind",
                cause: format!("the benchmark's is {}", value.data_type()),
            }),
        },
    }
}

/// Its columns have the types that it says; times may have any unit and time zone.
fn fits_nexmark(value: NexmarkValue, data_type: &DataType) -> bool {
    match value.data_type() {
        DataType::Timestamp(..) => matches!(data_type, DataType::Timestamp(..)),
        natural => natural == *data_type,
    }
}

fn check_sequence(
    start: i64,
    step: i64,
    data_type: &DataType,
    row_count: Option<u64>,
) -> Result<(), Misfit> {
    if !fits_whole(start, data_type) {
        return Err(does_not_fit("start", start));
    }
    // It is a line: what is between two values that fit, fits.
    let steps = row_count.unwrap_or(1).saturating_sub(1);
    let last = i128::from(start) + i128::from(step) * i128::from(steps);
    let fits = i64::try_from(last).is_ok_and(|last| fits_whole(last, data_type));
    match fits {
        true => Ok(()),
        false => Err(does_not_fit(
            "step",
            format!("{last}, the last of all rows,"),
        )),
    }
}

fn check_uniform(min: f64, max: f64, decimals: u32, data_type: &DataType) -> Result<(), Misfit> {
    /// The least number that is too great for 64 bits.
    const WHOLE_END: f64 = 9_223_372_036_854_775_808.0;
    if decimals == 0 {
        let (first, last) = (min.ceil(), max.floor());
        if first > last {
            let cause = format!("there is no whole number between {min} and {max}");
            return Err(Misfit {
                option: "min",
                cause,
            });
        }
        let fits = |value: f64| {
            (-WHOLE_END..WHOLE_END).contains(&value) && fits_whole(value as i64, data_type)
        };
        return ends_fit((first, last), fits);
    }
    let has_fractions = data_type.is_floating() || data_type.is_decimal();
    if !has_fractions {
        return Err(Misfit {
            option: "decimals",
            cause: "it holds whole numbers only".to_owned(),
        });
    }
    if !(max - min).is_finite() {
        return Err(Misfit {
            option: "min",
            cause: format!("it is too far from {min} to {max}"),
        });
    }
    let factor = 10_f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX));
    let fits = |value: f64| {
        let rounded = (value * factor).round() / factor;
        let made: ArrayRef = Arc::new(Float64Array::from_iter_values([rounded]));
        rounded.is_finite() && fit(&made, data_type).is_ok()
    };
    ends_fit((min, max), fits)
}

fn ends_fit((min, max): (f64, f64), fits: impl Fn(f64) -> bool) -> Result<(), Misfit> {
    if !fits(min) {
        return Err(does_not_fit("min", min));
    }
    if !fits(max) {
        return Err(does_not_fit("max", max));
    }
    Ok(())
}

fn fits_whole(value: i64, data_type: &DataType) -> bool {
    let made: ArrayRef = Arc::new(Int64Array::from_iter_values([value]));
    fit(&made, data_type).is_ok()
}

fn does_not_fit(option: &'static str, value: impl std::fmt::Display) -> Misfit {
    Misfit {
        option,
        cause: format!("{value} does not fit"),
    }
}

/// `values` as `data_type`; in a column of times numbers stand for microseconds.
///
/// # Errors
/// A value that does not fit.
pub fn fit(values: &ArrayRef, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    if values.data_type() == data_type {
        return Ok(values.clone());
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    if *data_type == DataType::Date32 && values.data_type().is_numeric() {
        // Numbers stand for microseconds in every column of times, but Arrow takes those of a date for days.
        let micros = cast_with_options(values, &DataType::Int64, &options)?;
        let moments = DataType::Timestamp(TimeUnit::Microsecond, None);
        let moments = cast_with_options(&micros, &moments, &options)?;
        return cast_with_options(&moments, data_type, &options);
    }
    cast_with_options(values, data_type, &options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option_at_fault(
        kind: &DatagenKind,
        data_type: &DataType,
        rows: Option<u64>,
    ) -> &'static str {
        check(kind, data_type, rows).map_or_else(|misfit| misfit.option, |()| "")
    }

    #[test]
    fn a_range_has_to_hold_a_value_and_both_ends_have_to_fit() {
        let uniform = |min, max, decimals| DatagenKind::Uniform { min, max, decimals };
        let (integer, bigint) = (DataType::Int32, DataType::Int64);
        let numeric = DataType::Decimal128(4, 2);
        for (kind, data_type, expected) in [
            (uniform(0.0, 100.0, 0), &integer, ""),
            (uniform(1.2, 1.8, 0), &integer, "min"),
            (uniform(0.0, 1e12, 0), &integer, "max"),
            (uniform(-1e12, 0.0, 0), &integer, "min"),
            (uniform(0.0, 1e12, 0), &bigint, ""),
            (uniform(0.0, 1e30, 0), &bigint, "max"),
            (uniform(0.0, 1e30, 0), &DataType::Float64, "max"),
            (uniform(0.0, 1.0, 2), &integer, "decimals"),
            (uniform(0.0, 99.99, 2), &numeric, ""),
            (uniform(0.0, 99.999, 2), &numeric, "max"),
            (uniform(f64::MIN, f64::MAX, 2), &DataType::Float64, "min"),
        ] {
            assert_eq!(
                option_at_fault(&kind, data_type, None),
                expected,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn the_first_and_the_last_value_of_a_sequence_have_to_fit() {
        let sequence = |start, step| DatagenKind::Sequence { start, step };
        let smallint = DataType::Int16;
        for (kind, rows, expected) in [
            (sequence(1, 1), Some(32_767), ""),
            (sequence(1, 1), Some(32_768), "step"),
            (sequence(40_000, 1), None, "start"),
            (sequence(1, 1), Some(0), ""),
            (sequence(i64::MAX, i64::MAX), Some(u64::MAX), "start"),
        ] {
            assert_eq!(
                option_at_fault(&kind, &smallint, rows),
                expected,
                "{kind:?}"
            );
        }
        let beyond = sequence(i64::MAX, i64::MAX);
        assert_eq!(
            option_at_fault(&beyond, &DataType::Int64, Some(u64::MAX)),
            "step"
        );
    }

    #[test]
    fn every_value_to_choose_from_has_to_fit_and_a_template_to_be_one() {
        let choice = DatagenKind::Choice {
            values: vec!["1".to_owned(), "one".to_owned()],
            skew: 0.0,
        };
        let misfit = check(&choice, &DataType::Int64, None).expect_err("one is no number");
        assert_eq!(misfit, does_not_fit("values", "\"one\""));
        assert_eq!(check(&choice, &DataType::Utf8, None), Ok(()));
        let template = DatagenKind::Template {
            template: "x{nn}".to_owned(),
        };
        assert_eq!(
            option_at_fault(&template, &DataType::Utf8, None),
            "template"
        );
    }
}
