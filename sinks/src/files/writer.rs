//! The files of one run, written aside: which row goes into which file.
//!
//! Used by `mod.rs`, inside blocking work. Rows are spread over folders by the values of `partition_by`; a
//! folder gets one file a run, more only where a run has more folders than may be open at once. What is
//! written depends on the rows alone, never on how they were batched. A row whose value makes no folder name is
//! refused; the caller looks after each batch whether there are too many. Failure: of the file system or of the format.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use indexmap::IndexMap;
use millstream_common::ids::{Epoch, Token};
use millstream_common::plan::connector::FileFormat;

use super::format::FormatWriter;
use super::journal::{CommittedFile, PlannedFile};
use super::names::{FolderNames, file_name};
use super::parquet::RowGroups;
use crate::row_json::row_json;
use crate::sink::RejectedRow;

/// Files that a run writes at once; each holds a descriptor and a row group.
const OPEN_FILES_MAX: usize = 128;

/// Makes temporary names of one process distinct, also those of a task that was given up.
static TEMPORARY_COUNT: AtomicU64 = AtomicU64::new(0);

/// How the files of a sink are written.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Columns of the output, without `_op`.
    pub schema: SchemaRef,
    /// Which of them name folders; these are not in the files.
    pub partition_by: Vec<usize>,
    pub format: FileFormat,
    /// Where files are written before they get their names.
    pub temporary: PathBuf,
    /// Tells this sink's files from others'.
    pub tag: u32,
    /// Of the deliverer: tells its temporary files from those of another process.
    pub token: Token,
}

impl Layout {
    /// Which columns the files hold.
    fn kept(&self) -> Vec<usize> {
        (0..self.schema.fields().len())
            .filter(|index| !self.partition_by.contains(index))
            .collect()
    }
}

/// The files of a run.
pub(super) struct RunFiles {
    layout: Layout,
    file_schema: SchemaRef,
    last: Epoch,
    /// By folder, in order of their first row.
    open: IndexMap<String, OpenFile>,
    /// Rows of each folder so far.
    folder_rows: IndexMap<String, u64>,
    written: Vec<WrittenFile>,
    file_count: usize,
    rejected: Vec<RejectedRow>,
    /// Rows given so far.
    row_count: u64,
}

struct OpenFile {
    planned: PlannedFile,
    temporary: PathBuf,
    writer: FormatWriter,
}

/// A file that is whole and on disk, but has no name yet.
#[derive(Debug)]
pub(super) struct WrittenFile {
    pub planned: PlannedFile,
    pub temporary: PathBuf,
    pub bytes: u64,
    pub checksum: u32,
}

impl WrittenFile {
    /// As it stands in the commit.
    pub(super) fn committed(&self) -> CommittedFile {
        CommittedFile {
            name: self.planned.name.clone(),
            row_count: self.planned.row_count,
            bytes: self.bytes,
            checksum: self.checksum,
        }
    }
}

impl RunFiles {
    /// For the run that ends with `last`.
    pub(super) fn new(layout: Layout, last: Epoch) -> Result<Self, ArrowError> {
        let file_schema = Schema::project(&layout.schema, &layout.kept())?;
        Ok(Self {
            layout,
            file_schema: file_schema.into(),
            last,
            open: IndexMap::new(),
            folder_rows: IndexMap::new(),
            written: Vec::new(),
            file_count: 0,
            rejected: Vec::new(),
            row_count: 0,
        })
    }

    /// Writes rows of the output (`_op` may follow its columns).
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let own: Vec<usize> = (0..self.layout.schema.fields().len()).collect();
        let rows = batch.project(&own)?;
        let first = self.row_count;
        self.row_count += rows.num_rows() as u64;
        let partition_by = self.layout.partition_by.clone();
        if partition_by.is_empty() {
            let all = UInt64Array::from_iter_values(0..rows.num_rows() as u64);
            return self.write_folder("", &rows, all);
        }
        let keys = partition_keys(&rows, &partition_by)?;
        let names = FolderNames::new(&rows, &partition_by)?;
        let mut folders = HashMap::new();
        let mut groups: IndexMap<String, Vec<u64>> = IndexMap::new();
        for row in 0..rows.num_rows() {
            let folder = folders
                .entry(keys.row(row))
                .or_insert_with(|| names.of(row));
            let folder = match folder {
                Ok(folder) => folder,
                Err(reason) => {
                    self.rejected.push(RejectedRow {
                        row: first + row as u64,
                        payload: row_json(&rows, row),
                        reason: reason.clone(),
                    });
                    continue;
                }
            };
            if let Some(indices) = groups.get_mut(folder) {
                indices.push(row as u64);
                continue;
            }
            let new = groups
                .keys()
                .filter(|group| !self.open.contains_key(*group));
            let is_full = self.open.len() + new.count() >= OPEN_FILES_MAX;
            if is_full && !self.open.contains_key(folder) {
                self.write_groups(&rows, &mut groups)?;
                self.close_all()?;
            }
            groups.insert(folder.clone(), vec![row as u64]);
        }
        self.write_groups(&rows, &mut groups)
    }

    /// Writes rows that come as row groups; for a layout without folders.
    pub(super) fn append(&mut self, groups: RowGroups) -> Result<(), ArrowError> {
        let row_count = groups.row_count();
        self.row_count += row_count;
        if row_count == 0 {
            return Ok(());
        }
        let file = self.file("")?;
        file.planned.row_count += row_count;
        file.writer.append(groups)?;
        *self.folder_rows.entry(String::new()).or_default() += row_count;
        Ok(())
    }

    fn write_groups(
        &mut self,
        rows: &RecordBatch,
        groups: &mut IndexMap<String, Vec<u64>>,
    ) -> Result<(), ArrowError> {
        for (folder, indices) in std::mem::take(groups) {
            self.write_folder(&folder, rows, UInt64Array::from(indices))?;
        }
        Ok(())
    }

    fn write_folder(
        &mut self,
        folder: &str,
        rows: &RecordBatch,
        indices: UInt64Array,
    ) -> Result<(), ArrowError> {
        if indices.is_empty() {
            return Ok(());
        }
        let columns = rows.project(&self.layout.kept())?;
        let taken = if indices.len() == rows.num_rows() {
            columns
        } else {
            take_record_batch(&columns, &indices)?
        };
        // Nullability may differ from batch to batch; a file has one schema.
        let taken = RecordBatch::try_new(self.file_schema.clone(), taken.columns().to_vec())?;
        let row_count = taken.num_rows() as u64;
        let file = self.file(folder)?;
        file.planned.row_count += row_count;
        file.writer.write(taken)?;
        *self.folder_rows.entry(folder.to_owned()).or_default() += row_count;
        Ok(())
    }

    /// The file of a folder that is open, or a new one.
    fn file(&mut self, folder: &str) -> Result<&mut OpenFile, ArrowError> {
        if !self.open.contains_key(folder) {
            let file = self.begin(folder)?;
            self.open.insert(folder.to_owned(), file);
        }
        Ok(&mut self.open[folder])
    }

    fn begin(&mut self, folder: &str) -> Result<OpenFile, ArrowError> {
        let name = file_name(
            self.last,
            self.file_count,
            self.layout.tag,
            self.layout.format,
        );
        self.file_count += 1;
        let count = TEMPORARY_COUNT.fetch_add(1, Ordering::Relaxed);
        // Processes of different containers share their ids, so these alone would let two writers into one file.
        let (token, process) = (self.layout.token, std::process::id());
        let temporary = self
            .layout
            .temporary
            .join(format!("{token}-{process}-{count}"));
        let writer =
            FormatWriter::create(&temporary, self.file_schema.clone(), self.layout.format)?;
        let slash = if folder.is_empty() { "" } else { "/" };
        let planned = PlannedFile {
            name: format!("{folder}{slash}{name}"),
            first_row: self.folder_rows.get(folder).copied().unwrap_or(0),
            row_count: 0,
        };
        Ok(OpenFile {
            planned,
            temporary,
            writer,
        })
    }

    fn close_all(&mut self) -> Result<(), ArrowError> {
        for (_, file) in std::mem::take(&mut self.open) {
            let (bytes, checksum) = file.writer.finish()?;
            self.written.push(WrittenFile {
                planned: file.planned,
                temporary: file.temporary,
                bytes,
                checksum,
            });
        }
        Ok(())
    }

    /// The rows so far that have no place.
    pub(super) fn rejected(&self) -> &[RejectedRow] {
        &self.rejected
    }

    /// Ends all files; what was written, and the rows that have no place.
    pub(super) fn finish(mut self) -> Result<(Vec<WrittenFile>, Vec<RejectedRow>), ArrowError> {
        self.close_all()?;
        Ok((self.written, self.rejected))
    }
}

/// The values of some columns of each row, comparable without looking at their types.
fn partition_keys(rows: &RecordBatch, columns: &[usize]) -> Result<Rows, ArrowError> {
    let values: Vec<ArrayRef> = columns
        .iter()
        .map(|index| rows.column(*index).clone())
        .collect();
    let kinds = values
        .iter()
        .map(|column| SortField::new(column.data_type().clone()));
    RowConverter::new(kinds.collect())?.convert_columns(&values)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn rows(from: i64, to: i64) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("folder", DataType::Utf8, true),
            Field::new("id", DataType::Int64, false),
        ]);
        let folders: StringArray = (from..to)
            .map(|id| (id % 7 != 0).then(|| format!("f{}", id * id % 300)))
            .collect();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(folders),
            Arc::new(Int64Array::from_iter_values(from..to)),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
    }

    fn written(cuts: &[i64], format: FileFormat) -> Vec<(PlannedFile, u64, u32)> {
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout {
            schema: rows(0, 1).schema(),
            partition_by: vec![0],
            format,
            temporary: folder.path().to_owned(),
            tag: 1,
            token: Token(1),
        };
        let mut files = RunFiles::new(layout, Epoch(9)).expect("columns");
        for cut in cuts.windows(2) {
            files.write(&rows(cut[0], cut[1])).expect("written");
        }
        let (written, rejected) = files.finish().expect("finished");
        assert!(rejected.is_empty());
        let facts = written
            .into_iter()
            .map(|file| (file.planned, file.bytes, file.checksum));
        facts.collect()
    }

    #[test]
    fn the_same_rows_make_the_same_files_however_they_were_batched() {
        for format in [FileFormat::Parquet, FileFormat::Csv, FileFormat::Json] {
            let whole = written(&[0, 3_000], format);
            assert_eq!(written(&[0, 1, 250, 251, 2_999, 3_000], format), whole);
            let total: u64 = whole.iter().map(|(file, _, _)| file.row_count).sum();
            assert_eq!(total, 3_000);
        }
    }

    #[test]
    fn more_folders_than_may_be_open_still_hold_every_row_once() {
        let schema = Schema::new(vec![
            Field::new("folder", DataType::Int64, true),
            Field::new("id", DataType::Int64, false),
        ]);
        let folders = Int64Array::from_iter_values((0..600).map(|id| id % 200));
        let ids = Int64Array::from_iter_values(0..600);
        let columns: Vec<ArrayRef> = vec![Arc::new(folders), Arc::new(ids)];
        let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout {
            schema: batch.schema(),
            partition_by: vec![0],
            format: FileFormat::Csv,
            temporary: folder.path().to_owned(),
            tag: 1,
            token: Token(1),
        };
        let mut files = RunFiles::new(layout, Epoch(9)).expect("columns");
        files.write(&batch).expect("written");
        let (written, _) = files.finish().expect("finished");
        let total: u64 = written.iter().map(|file| file.planned.row_count).sum();
        assert_eq!(total, 600);
        let mut names: Vec<&str> = written
            .iter()
            .map(|file| file.planned.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), written.len(), "no name twice");
    }
}
