//! `INCLUDE ... AS name`: what a record carries beside its payload, as a column.

use arrow::datatypes::{DataType, Field};
use millstream_common::plan::{ColumnOrigin, Metadata, SourceColumn, SourceSpec};

use crate::plan::parse::{ColumnSource, Name, SourceStatement};
use crate::plan::problem::Problem;
use crate::plan::types;

/// The column that `INCLUDE` adds.
pub(super) fn column(name: &Name, metadata: &Metadata) -> SourceColumn {
    let (data_type, nullable) = match metadata {
        Metadata::Key | Metadata::Header(_) => (DataType::Utf8, true),
        Metadata::Partition | Metadata::Offset => (DataType::Int64, false),
        Metadata::Timestamp => (types::TIMESTAMP, true),
        Metadata::File => (DataType::Utf8, false),
    };
    SourceColumn {
        type_name: types::type_name(&data_type),
        field: Field::new(&name.text, data_type, nullable),
        origin: ColumnOrigin::Metadata(metadata.clone()),
    }
}

/// Not every connector has all metadata.
pub(super) fn problems(statement: &SourceStatement, spec: &SourceSpec) -> Vec<Problem> {
    let (connector, known): (&str, &[&str]) = match spec {
        SourceSpec::Kafka(_) => (
            "kafka",
            &["key", "partition", "offset", "timestamp", "header"],
        ),
        SourceSpec::Files(_) => ("files", &["file", "offset"]),
        SourceSpec::Datagen(_) => ("datagen", &["offset"]),
    };
    let mut problems = Vec::new();
    for clause in &statement.columns {
        let ColumnSource::Metadata { metadata, place } = &clause.source else {
            continue;
        };
        let name = match metadata {
            Metadata::Key => "key",
            Metadata::Partition => "partition",
            Metadata::Offset => "offset",
            Metadata::Timestamp => "timestamp",
            Metadata::Header(_) => "header",
            Metadata::File => "file",
        };
        if !known.contains(&name) {
            let message = format!("connector '{connector}' has no {name}");
            let hint = format!("it has {}", known.join(", "));
            problems.push(Problem::at(*place, message).hint(hint));
        }
    }
    problems
}
