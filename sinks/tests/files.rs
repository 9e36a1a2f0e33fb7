//! The files sink on a real folder: exactly once, readable by others, nothing overwritten.
//!
//! Method: rows go in through the sink and come out through plain readers of each format.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_common::blocking::{Blocking, BlockingRef, Panicked, ThreadPool};
use millstream_common::ids::Epoch;
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::{FileFormat, FilesSinkSpec};
use millstream_sinks::conformance::{self, Change, Row, Subject, deliverer};
use millstream_sinks::files::FilesSink;
use millstream_sinks::sent_back;
use millstream_sinks::sink::{Deliverer, Sink, SinkError};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

struct Folder {
    folder: tempfile::TempDir,
    format: FileFormat,
    partition_by: Vec<String>,
}

impl Folder {
    fn new(format: FileFormat, partition_by: &[&str]) -> Self {
        Self {
            folder: tempfile::tempdir().expect("folder"),
            format,
            partition_by: partition_by.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn spec(&self) -> FilesSinkSpec {
        FilesSinkSpec {
            path: format!("file://{}/out/", self.folder.path().display()),
            format: self.format,
            partition_by: self.partition_by.clone(),
            roll_interval_ms: 60_000,
            roll_bytes: 1 << 20,
        }
    }

    fn sink_with(&self, deliverer: Deliverer, blocking: BlockingRef) -> Box<dyn Sink> {
        let sink = FilesSink::new(
            self.spec(),
            deliverer,
            conformance::schema(),
            OnViolation::DeadLetter,
            blocking,
        );
        Box::new(sink.expect("a spec that fits"))
    }

    /// Data files, as a reader of the folder lists them.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.folder.path().join("out"), &mut found);
        found.sort();
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(['_', '.']) {
            continue;
        }
        if entry.path().is_dir() {
            collect(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

fn read_parquet(path: &Path) -> Vec<Row> {
    let file = fs::File::open(path).expect("open");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.build())
        .expect("parquet");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("rows")).collect();
    batches
        .iter()
        .flat_map(|batch| {
            let ids = batch
                .column_by_name("id")
                .map(|ids| ids.as_primitive::<Int64Type>());
            let names = batch
                .column_by_name("name")
                .map(|names| names.as_string::<i32>());
            let (ids, names) = (ids.expect("id"), names.expect("name"));
            (0..batch.num_rows())
                .map(|row| {
                    let name = names.is_valid(row).then(|| names.value(row).to_owned());
                    (ids.value(row), name)
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

fn read_json(path: &Path) -> Vec<Row> {
    let text = fs::read_to_string(path).expect("open");
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let name = value["name"].as_str().map(str::to_owned);
            (value["id"].as_i64().expect("id"), name)
        })
        .collect()
}

#[async_trait]
impl Subject for Folder {
    fn sink(&self, deliverer: Deliverer) -> Box<dyn Sink> {
        self.sink_with(deliverer, Arc::new(ThreadPool))
    }

    async fn read(&self) -> Vec<Row> {
        let read = match self.format {
            FileFormat::Parquet => read_parquet,
            FileFormat::Json | FileFormat::Csv => read_json,
        };
        self.files().iter().flat_map(|path| read(path)).collect()
    }

    fn is_keyed(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn parquet_files_keep_the_rules_of_every_sink() {
    conformance::check(async || Folder::new(FileFormat::Parquet, &[])).await;
}

#[tokio::test]
async fn a_sink_that_is_sent_back_goes_back_once() {
    sent_back::check(async || Folder::new(FileFormat::Parquet, &[])).await;
}

#[tokio::test]
async fn json_files_keep_the_rules_of_every_sink() {
    conformance::check(async || Folder::new(FileFormat::Json, &[])).await;
}

/// Fences a new deliverer and applies one run.
async fn deliver(folder: &Folder, token: u64, guard: u64, last: u64, rows: &[Change]) {
    let mut sink = folder.sink(deliverer(token));
    assert_eq!(conformance::fence(&mut *sink).await, Epoch(guard));
    conformance::apply(&mut *sink, guard, last, &[rows])
        .await
        .expect("applied");
}

/// Blocking work that fails from the call `left` on, as if the process had died there.
struct Dying {
    left: AtomicI64,
    /// The call at which it dies still has its effect.
    late: bool,
}

#[async_trait]
impl Blocking for Dying {
    async fn run_boxed(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Result<Box<dyn Any + Send>, Panicked> {
        let left = self.left.fetch_sub(1, Ordering::SeqCst);
        if left > 0 {
            return Ok(work());
        }
        if left == 0 && self.late {
            work();
        }
        Err(Panicked("the process died".to_owned()))
    }

    fn start_thread(&self, _: String, _: Box<dyn FnOnce() + Send>) {}
}

#[tokio::test]
async fn a_death_before_or_after_any_step_on_disk_neither_loses_nor_doubles() {
    for late in [false, true] {
        let folder = Folder::new(FileFormat::Parquet, &[]);
        for step in 0_i64.. {
            assert!(step < 100, "apply never ends");
            let epoch = step.unsigned_abs();
            let rows = [
                Change::Put(step * 2, "even"),
                Change::Put(step * 2 + 1, "odd"),
            ];
            let dying = Arc::new(Dying {
                left: AtomicI64::new(i64::MAX),
                late,
            });
            let mut first = folder.sink_with(deliverer(epoch * 2 + 1), dying.clone());
            assert_eq!(conformance::fence(&mut *first).await, Epoch(epoch));
            dying.left.store(step, Ordering::SeqCst);
            let done = conformance::apply(&mut *first, epoch, epoch + 1, &[&rows]).await;
            let mut second = folder.sink(deliverer(epoch * 2 + 2));
            let held = second.fence().await.expect("fence");
            if held.marker == Some(Epoch(epoch)) {
                assert!(done.is_err(), "{late} {step}");
                conformance::apply(&mut *second, epoch, epoch + 1, &[&rows])
                    .await
                    .expect("finished");
            }
            let mut found: Vec<i64> = folder.read().await.iter().map(|row| row.0).collect();
            found.sort_unstable();
            assert_eq!(
                found,
                (0..(step + 1) * 2).collect::<Vec<_>>(),
                "{late} {step}"
            );
            if dying.left.load(Ordering::SeqCst) > 0 {
                assert!(step > 10, "every step was tried");
                break;
            }
        }
    }
}

#[tokio::test]
async fn csv_files_have_a_header_and_one_line_a_row() {
    let folder = Folder::new(FileFormat::Csv, &[]);
    let rows = [
        Change::Put(1, "a,\"b\""),
        Change::PutNull(2),
        Change::Put(3, ""),
    ];
    deliver(&folder, 1, 0, 3, &rows).await;
    let files = folder.files();
    assert_eq!(files.len(), 1);
    let name = files[0]
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    assert!(name.is_some_and(|name| name.starts_with("part-000000000003-0000-")));
    let text = fs::read_to_string(&files[0]).expect("read");
    assert_eq!(text, "id,name\n1,\"a,\"\"b\"\"\"\n2,\n3,\"\"\n");
}

#[tokio::test]
async fn rows_are_spread_over_folders_by_value() {
    let folder = Folder::new(FileFormat::Json, &["name"]);
    let rows = [
        Change::Put(1, "/a"),
        Change::PutNull(2),
        Change::Put(3, "b"),
        Change::Put(4, "/a"),
    ];
    deliver(&folder, 1, 0, 1, &rows).await;
    let root = folder.folder.path().join("out");
    let found: Vec<(String, String)> = folder
        .files()
        .iter()
        .map(|path| {
            let parent = path
                .parent()
                .and_then(|parent| parent.strip_prefix(&root).ok());
            let text = fs::read_to_string(path).expect("read");
            (parent.expect("below").display().to_string(), text)
        })
        .collect();
    let pair = |folder: &str, text: &str| (folder.to_owned(), text.to_owned());
    assert_eq!(
        found,
        [
            pair("name=%2Fa", "{\"id\":1}\n{\"id\":4}\n"),
            pair("name=__HIVE_DEFAULT_PARTITION__", "{\"id\":2}\n"),
            pair("name=b", "{\"id\":3}\n"),
        ]
    );
}

#[tokio::test]
async fn a_run_that_was_begun_is_reported_and_ends_where_it_was_to_end() {
    let folder = Folder::new(FileFormat::Json, &["name"]);
    let rows = [Change::Put(1, "a"), Change::Put(2, "b")];
    deliver(&folder, 1, 0, 5, &rows).await;
    fs::remove_file(&folder.files()[1]).expect("as if the crash came before its name");
    let commits = folder.folder.path().join(format!(
        "out/_millstream/{}/out/commits",
        deliverer(1).incarnation
    ));
    fs::remove_dir_all(commits).expect("as if the crash came before the commit");
    let mut sink = folder.sink(deliverer(2));
    let held = sink.fence().await.expect("fence");
    assert_eq!((held.marker, held.begun), (Some(Epoch(0)), Some(Epoch(5))));
    let longer = conformance::apply(&mut *sink, 0, 6, &[&rows, &[Change::Put(3, "c")]]).await;
    assert!(
        matches!(longer, Err(SinkError::Unavailable { .. })),
        "{longer:?}"
    );
    sink.fence().await.expect("fence");
    conformance::apply(&mut *sink, 0, 5, &[&rows])
        .await
        .expect("finished");
    assert_eq!(folder.read().await.len(), 2);
    assert_eq!(folder.files().len(), 2);
}

#[tokio::test]
async fn a_name_that_somebody_else_took_is_never_overwritten() {
    let folder = Folder::new(FileFormat::Json, &[]);
    let rows = [Change::Put(1, "a")];
    deliver(&folder, 1, 0, 1, &rows).await;
    let file = folder.files().remove(0);
    let journal = folder.folder.path().join("out/_millstream");
    fs::remove_dir_all(journal).expect("as if it never was");
    fs::write(&file, "mine").expect("write");
    let mut sink = folder.sink(deliverer(1));
    conformance::fence(&mut *sink).await;
    let refused = conformance::apply(&mut *sink, 0, 1, &[&rows]).await;
    assert!(
        matches!(refused, Err(SinkError::Refused { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(&file).expect("read"), "mine");
}

/// Blocking work before whose call number `left` another deliverer does all of its own.
struct Overtaken {
    left: AtomicI64,
    other: Mutex<Option<BoxFuture<'static, ()>>>,
}

#[async_trait]
impl Blocking for Overtaken {
    async fn run_boxed(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Result<Box<dyn Any + Send>, Panicked> {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            let other = self.other.lock().expect("a lock").take();
            if let Some(other) = other {
                other.await;
            }
        }
        Ok(work())
    }

    fn start_thread(&self, _: String, _: Box<dyn FnOnce() + Send>) {}
}

/// Takes over and delivers three epochs of a row each, in runs of its own where none was begun.
async fn take_over(mut sink: Box<dyn Sink>) {
    let rows: [&[Change]; 3] = [
        &[Change::Put(1, "a")],
        &[Change::Put(2, "b")],
        &[Change::Put(3, "c")],
    ];
    let held = sink.fence().await.expect("fence");
    let mut marker = held.marker.expect("a marker").0;
    if marker == 0 {
        let last = held.begun.map_or(2, |begun| begun.0);
        conformance::apply(&mut *sink, 0, last, &rows[..last as usize])
            .await
            .expect("applied");
        marker = last;
    }
    conformance::apply(&mut *sink, marker, 3, &rows[marker as usize..])
        .await
        .expect("applied");
}

#[tokio::test]
async fn a_deliverer_that_is_overtaken_at_any_step_doubles_nothing() {
    for step in 0_i64.. {
        assert!(step < 100, "apply never ends");
        let folder = Folder::new(FileFormat::Json, &[]);
        let overtaken = Arc::new(Overtaken {
            left: AtomicI64::new(i64::MAX),
            other: Mutex::new(None),
        });
        let mut first = folder.sink_with(deliverer(1), overtaken.clone());
        assert_eq!(conformance::fence(&mut *first).await, Epoch(0));
        let other = take_over(folder.sink(deliverer(2))).boxed();
        *overtaken.other.lock().expect("a lock") = Some(other);
        overtaken.left.store(step, Ordering::SeqCst);
        let rows: &[Change] = &[Change::Put(1, "a")];
        // Whether it succeeds or learns that it is fenced is its own affair.
        let _ = conformance::apply(&mut *first, 0, 1, &[rows]).await;
        let other = overtaken.other.lock().expect("a lock").take();
        if other.is_some() {
            assert!(step > 10, "every step was tried");
            break;
        }
        let mut found: Vec<i64> = folder.read().await.iter().map(|row| row.0).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3], "overtaken at step {step}");
    }
}

#[tokio::test]
async fn the_journal_of_an_endless_job_stays_small() {
    let folder = Folder::new(FileFormat::Json, &[]);
    for token in 1..=3 {
        let mut sink = folder.sink(deliverer(token));
        let from = conformance::fence(&mut *sink).await.0;
        for guard in from..from + 40 {
            let rows: &[Change] = &[Change::Put(guard as i64, "a")];
            conformance::apply(&mut *sink, guard, guard + 1, &[rows])
                .await
                .expect("applied");
        }
    }
    let journal = format!("out/_millstream/{}/out", deliverer(1).incarnation);
    let count = |kind: &str| {
        let kept = fs::read_dir(folder.folder.path().join(&journal).join(kind));
        kept.expect(kind).count()
    };
    let counts = (count("fences"), count("plans"), count("commits"));
    assert_eq!(counts, (1, 1, 100));
    assert_eq!(folder.read().await.len(), 120);
    let mut sink = folder.sink(deliverer(4));
    assert_eq!(conformance::fence(&mut *sink).await, Epoch(120));
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_waits_for_a_person_and_says_what_to_do() {
    let folder = Folder::new(FileFormat::Json, &[]);
    fs::write(folder.folder.path().join("out"), "a file").expect("write");
    let mut sink = folder.sink(deliverer(1));
    let refused = sink.fence().await.expect_err("no folder");
    assert!(matches!(refused, SinkError::Refused { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("name another folder in path"), "{text}");
    fs::remove_file(folder.folder.path().join("out")).expect("moved away");
    conformance::fence(&mut *sink).await;
}

#[tokio::test]
async fn nothing_temporary_is_left_behind() {
    let folder = Folder::new(FileFormat::Parquet, &["name"]);
    deliver(
        &folder,
        1,
        0,
        1,
        &[Change::Put(1, "a"), Change::Put(2, "b")],
    )
    .await;
    let life = format!("out/_millstream/{}/out/tmp", deliverer(1).incarnation);
    let left = fs::read_dir(folder.folder.path().join(life))
        .expect("read")
        .count();
    assert_eq!(left, 0);
}

#[test]
fn what_cannot_be_written_is_refused_before_anything_runs() {
    let refused = |change: &dyn Fn(&mut FilesSinkSpec)| {
        let mut spec = Folder::new(FileFormat::Csv, &[]).spec();
        change(&mut spec);
        let sink = FilesSink::new(
            spec,
            deliverer(1),
            conformance::schema(),
            OnViolation::Fail,
            Arc::new(ThreadPool),
        );
        sink.err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let text = refused(&|spec| spec.partition_by = vec!["nam".to_owned()]);
    assert!(text.contains("did you mean name?"), "{text}");
    let text = refused(&|spec| spec.partition_by = vec!["id".to_owned(), "name".to_owned()]);
    assert!(text.contains("every column"), "{text}");
}

#[test]
fn runs_gather_for_the_roll_interval() {
    let folder = Folder::new(FileFormat::Csv, &[]);
    let cadence = folder.sink(deliverer(1)).cadence();
    assert_eq!(cadence.gather, Duration::from_secs(60));
    assert_eq!(cadence.run_bytes_max, 1 << 20);
}
