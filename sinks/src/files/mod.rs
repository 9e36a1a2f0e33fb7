//! Rows into Parquet, CSV or JSON files of a folder, a run of epochs at a time.
//!
//! The actor gathers epochs for `roll_interval` or `roll_bytes` (see [`Sink::cadence`]). The order of a run: check the
//! fence, write the files aside and sync them, fix the plan, give the files their names, commit. Before the plan nothing is
//! visible; after it whoever goes on finishes the same run with the same names, and a name that is there with the
//! same contents is left alone. Readers that want whole runs take the files whose number is not above the
//! newest of `_millstream/*/*/commits`, of a sink that was sent back also those that the commits in `rewound-*/` name; readers of the
//! folder may see a part of a run for a moment, but never a row twice. Nothing is ever overwritten. Rows that were shipped as Parquet come into
//! Parquet files as they are.
//! Failure: sorted by `failure.rs`; a name taken by somebody else is refused.

mod csv;
mod disk;
mod failure;
mod format;
mod journal;
mod names;
mod parquet;
mod writer;

use std::path::PathBuf;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int8Type, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::ids::Epoch;
use millstream_common::plan::connector::{FileFormat, FilesSinkSpec};
use millstream_common::plan::{OP_COLUMN, OP_DELETE, OnViolation};
use millstream_common::secret;
use millstream_common::suggest::nearest;

use self::disk::Published;
use self::journal::{Journal, RunPlan};
use self::parquet::RowGroups;
use self::writer::{Layout, RunFiles, WrittenFile};
use crate::sink::{
    Applied, Cadence, Deliverer, EpochRun, Held, REJECTED_ROWS_MAX, RejectedRow, Rejects, RunPart,
    RunRows, Sink, SinkError,
};

/// A folder of files.
pub struct FilesSink {
    spec: FilesSinkSpec,
    deliverer: Deliverer,
    /// Without `_op`.
    schema: SchemaRef,
    partition_by: Vec<usize>,
    on_violation: OnViolation,
    blocking: BlockingRef,
    open: Option<Open>,
}

struct Open {
    root: PathBuf,
    journal: Journal,
    layout: Layout,
}

impl FilesSink {
    /// A sink for rows of `schema` (without `_op`); touches nothing before it is fenced.
    pub fn new(
        spec: FilesSinkSpec,
        deliverer: Deliverer,
        schema: SchemaRef,
        on_violation: OnViolation,
        blocking: BlockingRef,
    ) -> Result<Self, SinkError> {
        let partition_by = partition_columns(&spec, &schema)?;
        check_format(&spec, &schema)?;
        Ok(Self {
            spec,
            deliverer,
            schema,
            partition_by,
            on_violation,
            blocking,
            open: None,
        })
    }

    async fn open(&self) -> Result<(Open, Held), SinkError> {
        let folder = folder_of(&self.spec.path)?;
        let root = PathBuf::from(&folder);
        let temporary = root
            .join("_millstream")
            .join(journal::folder(&self.deliverer))
            .join("tmp");
        // Before the journal, whose errors do not say what has to be done. What a deliverer left that did not come to
        // its plan is removed; one that still writes is about to be fenced, and writes its run again if it is not.
        let prepared = temporary.clone();
        self.blocking("open the folder", move || Ok(disk::prepare(&prepared)?))
            .await?;
        let mut journal = Journal::open(&folder, &self.deliverer, self.blocking.clone()).await?;
        let held = journal.fence(self.deliverer.rewind).await?;
        let layout = Layout {
            schema: self.schema.clone(),
            partition_by: self.partition_by.clone(),
            format: self.spec.format,
            temporary,
            tag: names::tag(&self.deliverer, journal.rewound()),
            token: self.deliverer.token,
        };
        Ok((
            Open {
                root,
                journal,
                layout,
            },
            held,
        ))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T, arrow::error::ArrowError> + Send + 'static,
    ) -> Result<T, SinkError> {
        let what = || format!("{what} of {}", self.spec.path);
        match blocking::run(&self.blocking, work).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failure::classify(what(), &error)),
            Err(panicked) => Err(SinkError::unavailable(what(), panicked)),
        }
    }

    async fn write(
        &self,
        open: &Open,
        run: &EpochRun,
        rows: &dyn RunRows,
    ) -> Result<(Vec<WrittenFile>, Vec<RejectedRow>), SinkError> {
        const WHAT: &str = "write files";
        let (layout, last) = (open.layout.clone(), run.last);
        let mut files = self
            .blocking(WHAT, move || RunFiles::new(layout, last))
            .await?;
        let mut parts = rows.parts();
        while let Some(part) = parts.next().await {
            let batches = match part? {
                RunPart::RowGroup(bytes) if takes_row_groups(&self.spec) => {
                    let append = move || {
                        let groups = RowGroups::read(bytes)?;
                        let are_upserts = groups.are_upserts();
                        if are_upserts {
                            files.append(groups)?;
                        }
                        Ok((files, are_upserts))
                    };
                    let are_upserts;
                    (files, are_upserts) = self.blocking(WHAT, append).await?;
                    self.check_operations(are_upserts)?;
                    continue;
                }
                part => part.into_batches()?,
            };
            for batch in batches {
                self.check_operations(are_upserts(&batch))?;
                let write = move || {
                    files.write(&batch)?;
                    Ok(files)
                };
                files = self.blocking(WHAT, write).await?;
                self.check_refused(files.rejected())?;
            }
        }
        self.blocking(WHAT, move || files.finish()).await
    }

    fn check_operations(&self, are_upserts: bool) -> Result<(), SinkError> {
        match are_upserts {
            true => Ok(()),
            false => Err(SinkError::refused(
                format!("write files of {}", self.spec.path),
                "files cannot take back rows: use emit = 'final'",
            )),
        }
    }

    /// Gives the written files their names.
    async fn publish(&self, open: &Open, written: &[WrittenFile]) -> Result<(), SinkError> {
        let moves: Vec<(PathBuf, PathBuf, (u64, u32))> = written
            .iter()
            .map(|file| {
                let to = open.root.join(&file.planned.name);
                (file.temporary.clone(), to, (file.bytes, file.checksum))
            })
            .collect();
        let work = move || {
            for (from, to, print) in &moves {
                if disk::publish(from, to, *print)? == Published::Taken {
                    return Ok(Some(to.display().to_string()));
                }
            }
            disk::sync_folders(moves.iter().map(|(_, to, _)| to))?;
            Ok(None)
        };
        match self.blocking("publish files", work).await? {
            None => Ok(()),
            Some(taken) => Err(SinkError::refused(
                format!("publish file {taken}"),
                "another file has that name, and no commit speaks of it: move it away",
            )),
        }
    }

    /// Whether the run may go on although these rows were refused; so they are never more than those of one batch above the
    /// limit (INV-9).
    fn check_refused(&self, refused: &[RejectedRow]) -> Result<(), SinkError> {
        let what = || format!("write files of {}", self.spec.path);
        let Some(first) = refused.first() else {
            return Ok(());
        };
        if self.on_violation == OnViolation::Fail {
            let cause = format!(
                "on_violation = 'fail', and a row was refused: {}",
                first.reason
            );
            return Err(SinkError::refused(what(), cause));
        }
        if refused.len() > REJECTED_ROWS_MAX {
            let cause = format!(
                "more than {REJECTED_ROWS_MAX} rows were refused at once, the first with: {}",
                first.reason
            );
            return Err(SinkError::refused(what(), cause));
        }
        Ok(())
    }

    async fn apply_open(
        &self,
        open: &Open,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        open.journal.check_fence().await?;
        let marker = open.journal.marker().await?;
        if marker == run.last {
            return Ok(held_already(run));
        }
        if marker != run.guard {
            return Err(mismatch(marker, run));
        }
        let (written, refused) = self.write(open, run, rows).await?;
        let (rejected, dropped_count) = match self.on_violation {
            OnViolation::Drop => (Vec::new(), refused.len() as u64),
            OnViolation::DeadLetter | OnViolation::Fail => (refused, 0),
        };
        if !rejected.is_empty() {
            rejects.keep(run, &rejected).await?;
        }
        let plan = RunPlan {
            guard: run.guard,
            last: run.last,
            files: written.iter().map(|file| file.planned.clone()).collect(),
        };
        open.journal.check_fence().await?;
        open.journal.plan(&plan).await?;
        // Once more: a newer deliverer may have come and gone on since, and pruned the plan that stood in our way.
        open.journal.check_fence().await?;
        self.publish(open, &written).await?;
        let committed = written.iter().map(WrittenFile::committed).collect();
        open.journal.commit(run, committed).await?;
        self.remove(&written).await;
        if let Err(error) = open.journal.prune(run).await {
            tracing::warn!(sink = %self.deliverer.sink, %error, "prune the journal");
        }
        Ok(Applied {
            row_count: plan.files.iter().map(|file| file.row_count).sum(),
            rejected_count: rejected.len() as u64,
            dropped_count,
        })
    }

    /// The run is whole already: what is left over is removed at the next fence at the latest.
    async fn remove(&self, written: &[WrittenFile]) {
        let temporary: Vec<PathBuf> = written.iter().map(|file| file.temporary.clone()).collect();
        let work = move || {
            for path in &temporary {
                disk::remove(path)?;
            }
            Ok(())
        };
        if let Err(error) = self.blocking("remove temporary files", work).await {
            tracing::warn!(sink = %self.deliverer.sink, %error, "remove temporary files");
        }
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn cadence(&self) -> Cadence {
        /// Epochs wait as references only; at one a second this is a day.
        const RUN_EPOCHS_MAX: usize = 86_400;
        Cadence {
            run_bytes_max: self.spec.roll_bytes,
            run_epochs_max: RUN_EPOCHS_MAX,
            gather: Duration::from_millis(self.spec.roll_interval_ms),
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        self.open = None;
        let (open, held) = self.open().await?;
        self.open = Some(open);
        Ok(held)
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        let Some(open) = &self.open else {
            let what = format!("write files of {}", self.spec.path);
            return Err(SinkError::unavailable(what, "the folder is not open"));
        };
        self.apply_open(open, run, rows, rejects).await
    }
}

/// Whether its files take rows that are encoded already: Parquet, and all rows in one file of a run.
pub fn takes_row_groups(spec: &FilesSinkSpec) -> bool {
    spec.format == FileFormat::Parquet && spec.partition_by.is_empty()
}

fn are_upserts(batch: &RecordBatch) -> bool {
    let ops = batch.column_by_name(OP_COLUMN);
    let ops = ops.and_then(|ops| ops.as_primitive_opt::<Int8Type>());
    !ops.is_some_and(|ops| ops.values().contains(&OP_DELETE))
}

fn held_already(run: &EpochRun) -> Applied {
    Applied {
        row_count: run.row_count,
        ..Applied::default()
    }
}

fn mismatch(found: Epoch, run: &EpochRun) -> SinkError {
    SinkError::MarkerMismatch {
        found,
        expected: run.guard,
        advice: "the newest object of _millstream/*/*/commits, or of the last rewound-*/commits there, is not what this run follows"
            .to_owned(),
    }
}

/// The local folder that a path option names, its references resolved; also asked before a job starts.
///
/// # Errors
/// A reference that does not resolve, or a path that names no local folder.
pub fn folder_of(path: &str) -> Result<String, SinkError> {
    let what = format!("open folder {path}");
    let resolved = secret::resolve(path).map_err(|error| SinkError::refused(&what, error))?;
    let plain = resolved.expose();
    let local = plain.strip_prefix("file://").unwrap_or(plain);
    if local.contains("://") {
        return Err(SinkError::refused(
            what,
            "only folders of the local file system are supported yet: write /path or file:///path",
        ));
    }
    if local.is_empty() {
        return Err(SinkError::refused(what, "the path is empty"));
    }
    let trimmed = local.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

fn partition_columns(spec: &FilesSinkSpec, schema: &SchemaRef) -> Result<Vec<usize>, SinkError> {
    let what = || format!("write files of {}", spec.path);
    let mut columns = Vec::new();
    for name in &spec.partition_by {
        match schema.index_of(name) {
            Ok(index) if schema.field(index).data_type().is_nested() => {
                let cause =
                    format!("partition_by names column {name}, which holds lists or structures");
                return Err(SinkError::refused(what(), cause));
            }
            Ok(index) => columns.push(index),
            Err(_) => {
                let names = schema.fields().iter().map(|field| field.name().as_str());
                let hint = nearest(name, names)
                    .map(|near| format!(" (did you mean {near}?)"))
                    .unwrap_or_default();
                let cause = format!("partition_by names column {name}, which the rows lack{hint}");
                return Err(SinkError::refused(what(), cause));
            }
        }
    }
    if columns.len() == schema.fields().len() {
        let cause = "partition_by names every column, so nothing is left for the files";
        return Err(SinkError::refused(what(), cause));
    }
    Ok(columns)
}

/// CSV has no form for lists and structures.
fn check_format(spec: &FilesSinkSpec, schema: &SchemaRef) -> Result<(), SinkError> {
    let nested = schema
        .fields()
        .iter()
        .find(|field| field.data_type().is_nested());
    match nested {
        Some(field) if spec.format == FileFormat::Csv => Err(SinkError::refused(
            format!("write files of {}", spec.path),
            format!(
                "column {} holds lists or structures, which CSV has no form for: use format = 'json'",
                field.name()
            ),
        )),
        _ => Ok(()),
    }
}
