//! The bounds of a window: a call while a plan is made, arithmetic once it is encoded.
//!
//! Called by `lower` ([`bound`]), by `text` ([`as_bound`]) and by `stages` ([`expand`]). The call keeps texts and fingerprints
//! short; the arithmetic needs no function of ours, so any worker can evaluate it.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, cast, lit,
};
use datafusion::scalar::ScalarValue;

/// Which end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Bound {
    Start,
    End,
}

/// A constant interval in microseconds.
pub(in crate::plan) fn interval_micros(expression: &Expr) -> Option<(i32, i64)> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expression else {
        return None;
    };
    let days = i64::from(interval.days).checked_mul(86_400_000_000)?;
    let micros = days.checked_add(interval.nanoseconds / 1_000)?;
    Some((interval.months, micros))
}

/// Stands for a window bound until [`expand`]; never evaluated.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundFunction {
    name: &'static str,
    signature: Signature,
}

static START: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| bound_function("tumble_start"));
static END: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| bound_function("tumble_end"));

fn bound_function(name: &'static str) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(BoundFunction {
        name,
        signature: Signature::any(2, Volatility::Immutable),
    }))
}

impl ScalarUDFImpl for BoundFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> Result<DataType> {
        match argument_types.first() {
            Some(data_type) => Ok(data_type.clone()),
            None => internal_err!("a window bound has a time"),
        }
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let time = &arguments.arg_fields[0];
        let field = Field::new(self.name, time.data_type().clone(), time.is_nullable());
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} is replaced before a plan is run", self.name)
    }
}

/// A bound of the window of `size_micros` that `time` falls into.
pub(in crate::plan) fn bound(time: Expr, size_micros: i64, which: Bound) -> Expr {
    let function = match which {
        Bound::Start => &START,
        Bound::End => &END,
    };
    let size = lit(ScalarValue::new_interval_mdn(0, 0, size_micros * 1_000));
    function.call(vec![time, size])
}

/// Replaces every [`bound`] by arithmetic on microseconds; `schema` is of the rows it reads.
pub(in crate::plan) fn expand(expression: Expr, schema: &DFSchema) -> Result<Expr> {
    let transformed = expression.transform_up(|expression| {
        let Expr::ScalarFunction(call) = &expression else {
            return Ok(Transformed::no(expression));
        };
        let is_start = call.name() == START.name();
        if !is_start && call.name() != END.name() {
            return Ok(Transformed::no(expression));
        }
        let [time, size] = call.args.as_slice() else {
            return internal_err!("a window bound has a time and a size");
        };
        let Some((_, size)) = interval_micros(size) else {
            return internal_err!("the size of a window is constant");
        };
        let data_type = time.get_type(schema)?;
        let micros = cast(time.clone(), DataType::Int64);
        // The remainder takes the sign of the time; adding the size and taking it again makes it
        // positive, so that windows before 1970 are aligned as those after it.
        let into_window = (micros.clone() % lit(size) + lit(size)) % lit(size);
        let start = micros - into_window;
        let bound = if is_start { start } else { start + lit(size) };
        Ok(Transformed::yes(cast(bound, data_type)))
    })?;
    Ok(transformed.data)
}

/// The name, time and size in microseconds of a [`bound`].
pub(in crate::plan) fn as_bound(expression: &Expr) -> Option<(&str, &Expr, i64)> {
    let Expr::ScalarFunction(call) = expression else {
        return None;
    };
    if call.name() != START.name() && call.name() != END.name() {
        return None;
    }
    let [time, size] = call.args.as_slice() else {
        return None;
    };
    let (_, size) = interval_micros(size)?;
    Some((call.name(), time, size))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray, RecordBatch, TimestampMicrosecondArray};
    use arrow::datatypes::{Schema, TimestampMicrosecondType};
    use millstream_common::plan::PlanExpression;
    use millstream_common::plan::expression::Functions;

    use super::*;
    use crate::plan::graph::{column, schema_of};

    /// The bound of each time, evaluated as a worker does.
    fn bounds(times: Vec<i64>, zone: Option<&str>, which: Bound) -> Vec<i64> {
        let times = TimestampMicrosecondArray::from(times).with_timezone_opt(zone);
        let field = Field::new("at", times.data_type().clone(), false);
        let schema = schema_of([&field].into_iter()).expect("schema");
        let expression = bound(column("at"), 60_000_000, which);
        let expanded = expand(expression, &schema).expect("expand");
        let encoded = PlanExpression::encode(&expanded, "bound").expect("encode");
        let arrow_schema = Arc::new(Schema::new(vec![field]));
        let batch = RecordBatch::try_new(arrow_schema.clone(), vec![Arc::new(times)]);
        let batch = batch.expect("batch");
        let physical = encoded
            .physical(&Functions::new(), &arrow_schema)
            .expect("physical");
        assert!(!physical.nullable(&arrow_schema).expect("nullable"));
        assert_eq!(
            physical.data_type(&arrow_schema).expect("type"),
            *arrow_schema.field(0).data_type()
        );
        let value = physical.evaluate(&batch).expect("evaluate");
        let array = value.into_array(batch.num_rows()).expect("array");
        array
            .as_primitive::<TimestampMicrosecondType>()
            .values()
            .to_vec()
    }

    #[test]
    fn windows_are_half_open_and_aligned_to_the_epoch() {
        let times = vec![0, 1, 59_999_999, 60_000_000, 61_000_000];
        assert_eq!(
            bounds(times.clone(), None, Bound::Start),
            [0, 0, 0, 60_000_000, 60_000_000]
        );
        assert_eq!(
            bounds(times, Some("UTC"), Bound::End),
            [60_000_000, 60_000_000, 60_000_000, 120_000_000, 120_000_000]
        );
    }

    #[test]
    fn windows_before_the_epoch_are_aligned_as_those_after_it() {
        let times = vec![-1, -60_000_000, -60_000_001];
        assert_eq!(
            bounds(times, None, Bound::Start),
            [-60_000_000, -60_000_000, -120_000_000]
        );
    }
}
