//! Arrow schemas inside plans: serialised as Arrow's own IPC schema.
//!
//! Used by every plan struct that holds columns. Failure: bytes that are no schema are a serde error.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::ipc::convert::{IpcSchemaEncoder, fb_to_schema};
use arrow::ipc::root_as_schema;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A schema that can be stored in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanSchema(pub SchemaRef);

impl PlanSchema {
    /// A schema of these columns.
    pub fn from_fields(fields: Vec<Field>) -> Self {
        Self(Arc::new(Schema::new(fields)))
    }
}

impl From<SchemaRef> for PlanSchema {
    fn from(schema: SchemaRef) -> Self {
        Self(schema)
    }
}

impl Serialize for PlanSchema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = IpcSchemaEncoder::new().schema_to_fb(&self.0);
        serializer.serialize_str(&STANDARD.encode(message.finished_data()))
    }
}

impl<'de> Deserialize<'de> for PlanSchema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text).map_err(de::Error::custom)?;
        let schema = root_as_schema(&bytes).map_err(de::Error::custom)?;
        Ok(Self(Arc::new(fb_to_schema(schema))))
    }
}

/// One column, stored as a schema of one.
pub(super) mod field_serde {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        field: &Field,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        PlanSchema::from_fields(vec![field.clone()]).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Field, D::Error> {
        let schema = PlanSchema::deserialize(deserializer)?;
        match schema.0.fields().first() {
            Some(field) => Ok(field.as_ref().clone()),
            None => Err(de::Error::custom(
                "a schema without columns where one is expected",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::*;

    #[test]
    fn a_schema_survives_serialisation() {
        let schema = PlanSchema::from_fields(vec![
            Field::new("url", DataType::Utf8, false),
            Field::new(
                "at",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                true,
            ),
            Field::new("total", DataType::Decimal128(38, 0), true),
        ]);
        let text = serde_json::to_string(&schema).expect("serialise");
        let back: PlanSchema = serde_json::from_str(&text).expect("deserialise");
        assert_eq!(back, schema);
    }
}
