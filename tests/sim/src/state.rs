//! Whether the state that an epoch names is what its records come to (INV-7): what a restore at that epoch would begin with.
//!
//! Called by the driver for each epoch. Reads state parts as Arrow files with none of the operators' code: later parts take
//! the place of earlier ones, and what the watermark has passed counts no more. Keeps what it has decoded. Failure: the first
//! difference, as text.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use millstream_common::ids::OperatorId;
use millstream_common::report::StatePart;

use crate::expected::Expected;

/// Decoded parts by path.
#[derive(Default)]
pub(crate) struct States {
    parts: BTreeMap<String, Part>,
}

/// A state part.
#[derive(Clone, Debug)]
enum Part {
    /// Of a DISTINCT: fingerprints with the times of their first rows.
    Keys(BTreeMap<Vec<u8>, i64>),
    /// Of an aggregate: counts by window and url.
    Groups(BTreeMap<(i64, String), i64>),
}

impl States {
    /// What differs between the state in `parts` and the records.
    pub(crate) fn difference(
        &mut self,
        parts: &BTreeMap<OperatorId, Vec<StatePart>>,
        objects: &BTreeMap<String, Bytes>,
        expected: &Expected,
    ) -> Option<String> {
        let mut keys = BTreeMap::new();
        let mut groups = BTreeMap::new();
        for part in parts.values().flatten() {
            match self.part(&part.path, objects) {
                Ok(Part::Keys(some)) => keys.extend(some),
                Ok(Part::Groups(some)) => groups.extend(some),
                Err(cause) => return Some(cause),
            }
        }
        keys_differ(&keys, expected).or_else(|| groups_differ(groups, expected))
    }

    fn part(&mut self, path: &str, objects: &BTreeMap<String, Bytes>) -> Result<Part, String> {
        if let Some(part) = self.parts.get(path) {
            return Ok(part.clone());
        }
        let bytes = objects.get(path);
        let bytes = bytes.ok_or_else(|| format!("{path} is not in storage"))?;
        let part = decode(bytes).map_err(|error| format!("{path}: {error}"))?;
        self.parts.insert(path.to_owned(), part.clone());
        Ok(part)
    }
}

fn decode(bytes: &Bytes) -> Result<Part, ArrowError> {
    let batches = StreamReader::try_new(bytes.as_ref(), None)?;
    let batches = batches.collect::<Result<Vec<RecordBatch>, ArrowError>>()?;
    let is_keys = |batch: &RecordBatch| batch.column_by_name("fingerprint").is_some();
    if batches.iter().all(is_keys) {
        let mut keys = BTreeMap::new();
        for batch in &batches {
            let prints = batch["fingerprint"].as_fixed_size_binary();
            let times = batch["event_time"].as_primitive::<Int64Type>();
            let rows = 0..batch.num_rows();
            keys.extend(rows.map(|row| (prints.value(row).to_vec(), times.value(row))));
        }
        return Ok(Part::Keys(keys));
    }
    let mut groups = BTreeMap::new();
    for batch in &batches {
        let starts = column(batch, "window_start")?.as_primitive::<TimestampMicrosecondType>();
        let urls = column(batch, "url")?;
        let urls = arrow::compute::cast(urls, &arrow::datatypes::DataType::Utf8)?;
        let urls = urls.as_string::<i32>();
        let counts = batch.column(batch.num_columns() - 1);
        let counts = counts.as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let group = (starts.value(row), urls.value(row).to_owned());
            groups.insert(group, counts.value(row));
        }
    }
    Ok(Part::Groups(groups))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array, ArrowError> {
    let column = batch.column_by_name(name);
    let column = column.ok_or_else(|| {
        let found = batch.schema();
        ArrowError::SchemaError(format!("no column {name} in {found}"))
    })?;
    Ok(column.as_ref())
}

fn keys_differ(keys: &BTreeMap<Vec<u8>, i64>, expected: &Expected) -> Option<String> {
    let live = |time: &&i64| !expected.is_forgotten(**time);
    let mut found: Vec<i64> = keys.values().filter(live).copied().collect();
    found.sort_unstable();
    let accepted = expected
        .accepted
        .iter()
        .map(|event| (event.id, event.time_us));
    let accepted: BTreeSet<(i64, i64)> = accepted.collect();
    let mut wanted: Vec<i64> = accepted.iter().map(|(_, time)| *time).collect();
    wanted.retain(|time| live(&time));
    wanted.sort_unstable();
    (found != wanted).then(|| {
        let (found, wanted) = (found.len(), wanted.len());
        format!("INV-7: the state holds {found} keys, the records come to {wanted}")
    })
}

fn groups_differ(mut groups: BTreeMap<(i64, String), i64>, expected: &Expected) -> Option<String> {
    groups.retain(|(start, _), _| !expected.is_closed(*start));
    let views = expected.views().into_iter();
    let wanted = views.map(|((start, url), views)| ((start, url.to_owned()), views));
    let wanted: BTreeMap<(i64, String), i64> = wanted
        .filter(|((start, _), _)| !expected.is_closed(*start))
        .collect();
    (groups != wanted)
        .then(|| format!("INV-7: the state holds groups {groups:?}, the records {wanted:?}"))
}
