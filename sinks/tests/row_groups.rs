//! Rows that come as Parquet: in Parquet files they stay as they are, everywhere else they are rows like others.
//!
//! Method: the same rows are given to a sink in both forms, mixed; what stands in its files is read back.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use millstream_common::ids::Epoch;
use millstream_common::plan::connector::FileFormat;
use millstream_sinks::conformance::{self, Change, MemoryRejects, MemoryRows};
use millstream_sinks::row_group;
use millstream_sinks::sink::{Applied, EpochRun, RunPart, RunRows, Sink, SinkError, batches_of};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

/// Rows in the forms in which they are given.
struct Parts(Vec<RunPart>);

impl RunRows for Parts {
    fn schema(&self) -> SchemaRef {
        MemoryRows::of(&[]).schema()
    }

    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
        batches_of(self.parts())
    }

    fn parts(&self) -> BoxStream<'_, Result<RunPart, SinkError>> {
        stream::iter(self.0.iter().cloned().map(Ok)).boxed()
    }
}

/// Puts of the ids from `first` to `last`; each third row has no name.
fn rows(first: i64, last: i64) -> Vec<RecordBatch> {
    let change = |id: i64| match id % 3 {
        0 => Change::PutNull(id),
        _ => Change::Put(id, ["a", "be", "sea"][id as usize % 7 % 3]),
    };
    let changes: Vec<Change> = (first..=last).map(change).collect();
    batches(&changes)
}

fn batches(changes: &[Change]) -> Vec<RecordBatch> {
    let rows = MemoryRows::of(&[changes]);
    let collected = rows.batches().try_collect::<Vec<_>>().now_or_never();
    collected.expect("in memory").expect("no failure")
}

fn group(batches: &[RecordBatch]) -> RunPart {
    let encoded = row_group::Encoder::default().encode(&batches[0].schema(), batches);
    RunPart::RowGroup(encoded.expect("rows of plain types"))
}

fn parts() -> Parts {
    Parts(vec![
        RunPart::Batches(rows(1, 10)),
        group(&[rows(11, 5_000), rows(5_001, 40_000)].concat()),
        group(&rows(40_001, 41_000)),
        RunPart::Batches(rows(41_001, 50_000)),
        RunPart::Batches(rows(50_001, 50_007)),
        group(&rows(50_008, 60_000)),
    ])
}

async fn apply(
    folder: &Path,
    format: FileFormat,
    partition_by: &[&str],
    parts: Parts,
) -> Result<Applied, SinkError> {
    let mut sink = conformance::files_sink(folder, format, partition_by).await;
    let run = EpochRun {
        guard: Epoch(0),
        last: Epoch(1),
        row_count: 0,
    };
    sink.apply(&run, &parts, &MemoryRejects::default()).await
}

/// The files that readers of the folder see.
fn files(folder: &Path) -> Vec<Bytes> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        match path.is_dir() {
            true if name != "_millstream" => files.extend(self::files(&path)),
            true => {}
            false => files.push(std::fs::read(&path).expect("a file").into()),
        }
    }
    files
}

fn parquet_rows(file: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
    let schema = reader.schema().clone();
    let batches: Result<Vec<_>, _> = reader.build().expect("a reader").collect();
    concat_batches(&schema, &batches.expect("rows")).expect("one schema")
}

fn metadata(file: &Bytes) -> ParquetMetaData {
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader
        .parse_and_finish(file)
        .expect("Parquet with page indexes")
}

#[tokio::test]
async fn row_groups_are_copied_into_a_file_in_their_order_and_rows_between_them_kept() {
    let mut written = Vec::new();
    for _ in 0..2 {
        let folder = tempfile::tempdir().expect("folder");
        let applied = apply(folder.path(), FileFormat::Parquet, &[], parts()).await;
        assert_eq!(applied.expect("applied").row_count, 60_000);
        written.extend(files(folder.path()));
    }
    assert_eq!(written.len(), 2, "a file a run");
    assert_eq!(
        written[0], written[1],
        "the same bytes whenever they are written"
    );
    let all = concat_batches(&rows(1, 1)[0].schema(), &rows(1, 60_000)).expect("one schema");
    let expected = all.project(&[0, 1]).expect("without _op");
    let found = parquet_rows(written[0].clone());
    assert_eq!(found.columns(), expected.columns());
    assert_eq!(found.schema().fields(), conformance::schema().fields());
    let metadata = metadata(&written[0]);
    let counts = metadata.row_groups().iter().map(|group| group.num_rows());
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [10, 39_990, 1_000, 9_007, 9_993]
    );
    for group in metadata.row_groups() {
        assert_eq!(group.num_columns(), 2);
        let ids = group.column(0).statistics().expect("statistics");
        assert!(ids.min_bytes_opt().is_some() && ids.max_bytes_opt().is_some());
    }
    let indexes = metadata.offset_index().expect("offset indexes");
    let data = metadata.row_group(3).column(0).data_page_offset();
    assert_eq!(indexes[3][0].page_locations()[0].offset, data);
}

#[tokio::test]
async fn where_row_groups_do_not_fit_their_rows_are_written() {
    for (format, partition_by) in [
        (FileFormat::Csv, vec![]),
        (FileFormat::Json, vec![]),
        (FileFormat::Csv, vec!["name"]),
        (FileFormat::Parquet, vec!["name"]),
    ] {
        let folder = tempfile::tempdir().expect("folder");
        let applied = apply(folder.path(), format, &partition_by, parts()).await;
        assert_eq!(applied.expect("applied").row_count, 60_000, "{format:?}");
        let files = files(folder.path());
        assert_eq!(files.len(), if partition_by.is_empty() { 1 } else { 4 });
        if format == FileFormat::Parquet {
            let counts = files.into_iter().map(|file| parquet_rows(file).num_rows());
            assert_eq!(counts.sum::<usize>(), 60_000);
        }
    }
}

#[tokio::test]
async fn row_groups_of_other_columns_are_decoded() {
    let folder = tempfile::tempdir().expect("folder");
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let ops: ArrayRef = Arc::new(arrow::array::Int8Array::from(vec![0, 0]));
    // Nothing is NULL, and the columns say so: they are not those of the output.
    let columns = [("id", ids), ("name", names), ("_op", ops)];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.map(|(name, column)| (name, column, false)),
    );
    let parts = Parts(vec![group(&[batch.expect("a batch")])]);
    let applied = apply(folder.path(), FileFormat::Parquet, &[], parts).await;
    assert_eq!(applied.expect("applied").row_count, 2);
    let found = parquet_rows(files(folder.path()).remove(0));
    assert_eq!(found.schema().fields(), conformance::schema().fields());
    assert_eq!(found.num_rows(), 2);
}

#[tokio::test]
async fn files_take_back_no_rows_of_a_row_group_either() {
    let folder = tempfile::tempdir().expect("folder");
    let parts = Parts(vec![group(&batches(&[
        Change::Put(1, "a"),
        Change::Delete(2),
    ]))]);
    let refused = apply(folder.path(), FileFormat::Parquet, &[], parts).await;
    let text = refused.expect_err("a delete").to_string();
    assert!(text.contains("cannot take back rows"), "{text}");
    assert!(files(folder.path()).is_empty());
}

#[test]
fn a_row_group_decodes_to_the_rows_it_was_made_of() {
    let before = rows(1, 20_000);
    let decoded = group(&before).into_batches().expect("decoded");
    let schema = before[0].schema();
    assert_eq!(decoded[0].schema().fields(), schema.fields());
    assert_eq!(
        concat_batches(&schema, &decoded)
            .expect("one schema")
            .columns(),
        concat_batches(&schema, &before)
            .expect("one schema")
            .columns()
    );
}
