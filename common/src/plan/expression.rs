//! Expressions inside plans: DataFusion's logical expressions, encoded by datafusion-proto.
//!
//! Encoded by `master/src/plan`; decoded by workers, once for each task, into physical expressions
//! or aggregate functions. Functions are found by name in a session with DataFusion's defaults.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datafusion_proto::bytes::Serializeable;
use serde::{Deserialize, Serialize};

/// An expression that does not survive the plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are no expression, or a function unknown here.
    #[error("decode expression {text}: {cause}")]
    Decode {
        /// The expression as SQL.
        text: String,
        /// What DataFusion says.
        cause: String,
    },
    /// An expression that cannot be carried to workers.
    #[error("carry expression {text} to workers: {cause}")]
    Encode {
        /// The expression as SQL.
        text: String,
        /// What DataFusion says.
        cause: String,
    },
}

/// A logical expression with column references by bare name into its input schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanExpression {
    /// The expression as a user would write it, for texts.
    pub text: String,
    /// datafusion-proto's encoding, in base64.
    encoded: String,
}

impl PlanExpression {
    /// Encodes `expression`; `text` is how people see it.
    pub fn encode(expression: &Expr, text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        match expression.to_bytes() {
            Ok(bytes) => Ok(Self {
                encoded: STANDARD.encode(bytes),
                text,
            }),
            Err(error) => Err(Error::Encode {
                cause: error.strip_backtrace(),
                text,
            }),
        }
    }

    /// The logical expression.
    pub fn decode(&self, functions: &Functions) -> Result<Expr, Error> {
        let bytes = STANDARD
            .decode(&self.encoded)
            .map_err(|error| self.broken(error.to_string()))?;
        let task = functions.0.task_ctx();
        Expr::from_bytes_with_ctx(&bytes, &task)
            .map_err(|error| self.broken(error.strip_backtrace()))
    }

    /// The expression ready to evaluate batches of `input`.
    pub fn physical(
        &self,
        functions: &Functions,
        input: &SchemaRef,
    ) -> Result<Arc<dyn PhysicalExpr>, Error> {
        let expression = self.decode(functions)?;
        let build = || -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
            let schema = DFSchema::try_from(input.as_ref().clone())?;
            functions.0.create_physical_expr(expression, &schema)
        };
        build().map_err(|error| self.broken(error.strip_backtrace()))
    }

    fn broken(&self, cause: String) -> Error {
        Error::Decode {
            text: self.text.clone(),
            cause,
        }
    }
}

/// The functions that expressions may call: DataFusion's own, in UTC.
#[derive(Clone)]
pub struct Functions(Arc<SessionContext>);

impl Functions {
    /// Registers DataFusion's functions; costs about a millisecond, so make one a process.
    pub fn new() -> Self {
        Self(Arc::new(SessionContext::new()))
    }

    /// The session that knows the functions.
    pub fn session(&self) -> &SessionContext {
        &self.0
    }
}

impl Default for Functions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::prelude::{col, lit};

    use super::*;

    #[test]
    fn an_expression_evaluates_the_same_after_the_plan() {
        let schema = Arc::new(Schema::new(vec![Field::new(
            "views",
            DataType::Int64,
            false,
        )]));
        let functions = Functions::new();
        let encoded =
            PlanExpression::encode(&(col("views") + lit(1_i64)), "views + 1").expect("encode");
        let physical = encoded.physical(&functions, &schema).expect("physical");
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![1, 2]))])
            .expect("batch");
        let result = physical
            .evaluate(&batch)
            .and_then(|value| value.into_array(2))
            .expect("evaluate");
        assert_eq!(result.as_ref(), &Int64Array::from(vec![2, 3]));
    }
}
