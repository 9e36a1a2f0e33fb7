//! Tests of the reader of files: here what is whole, in `broken.rs` what is not. Goal: every record is handed on once, whatever the format, the cuts and the restarts.
//! Method: files in a temporary folder, read through the reader's own interface until every split has ended.

mod broken;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::DataType;
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, SourceIndex};
use millstream_common::plan::connector::{Compression, FilesSourceSpec, TimestampFormat};
use millstream_common::plan::{FormatSpec, SourceSpec};
use millstream_common::report::SplitStatus;
use millstream_common::time::EventTime;
use tempfile::TempDir;

use super::source::{DiskFiles, FileSource};
use super::*;
use crate::decode::tests::{StillClock, column, lines, reasons, source, timestamp, watermark};

fn json() -> FormatSpec {
    FormatSpec::Json {
        timestamp_format: TimestampFormat::UnixS,
        record_bytes_max: 1 << 20,
    }
}

fn csv() -> FormatSpec {
    FormatSpec::Csv {
        delimiter: ',',
        header: true,
        null_string: None,
        timestamp_format: TimestampFormat::UnixS,
        record_bytes_max: 1 << 20,
    }
}

fn plan(format: FormatSpec) -> SourcePlan {
    let mut plan = source();
    plan.spec = SourceSpec::Files(FilesSourceSpec {
        path: String::new(),
        watch: false,
        settle_ms: 0,
        discovery_interval_ms: 0,
        files_per_epoch_max: None,
        compression: Compression::Auto,
    });
    plan.format = format;
    plan.columns = vec![
        column("id", DataType::Int64, false),
        column("name", DataType::Utf8, true),
    ];
    plan
}

fn timed_plan() -> SourcePlan {
    let mut plan = plan(json());
    plan.columns[1] = column("at", timestamp(), false);
    plan.watermark = watermark(1);
    plan
}

fn reader_of(plan: &SourcePlan, files: FileSourceRef) -> FilesReader {
    FilesReader::new(FilesReaderConfig {
        plan: plan.clone(),
        functions: Functions::new(),
        clock: Arc::new(StillClock),
        blocking: Arc::new(ThreadPool),
        files,
        late_rows_needed: false,
    })
    .expect("reader")
}

fn reader(plan: &SourcePlan) -> FilesReader {
    reader_of(plan, Arc::new(DiskFiles))
}

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> SplitId {
    let path = folder.path().join(name);
    fs::write(&path, content).expect("write");
    SplitId(path.to_str().expect("a path in UTF-8").to_owned())
}

fn identity(split: &SplitId) -> Option<String> {
    let file = DiskFiles.open(split.as_str()).ok()?;
    (file.identify)().ok()
}

fn claimed(split: &SplitId) -> SplitStart {
    SplitStart {
        source: SourceIndex(0),
        split: split.clone(),
        progress: SplitProgress {
            position: 0,
            end: None,
            watermark: None,
            status: SplitStatus::Active,
            identity: identity(split),
            gaps: None,
        },
    }
}

fn request(epoch: u64) -> CutRequest {
    CutRequest {
        epoch: Epoch(epoch),
        watermark: None,
        stop: false,
    }
}

/// Everything a reader handed on.
#[derive(Debug, Default, PartialEq)]
struct Told {
    rows: Vec<String>,
    reasons: Vec<String>,
    read: u64,
    /// The last word on each split.
    splits: BTreeMap<SplitId, SplitProgress>,
}

impl Told {
    fn add(&mut self, rows: &DecodedRows) {
        self.rows.extend(lines(&rows.batch));
        self.reasons.extend(reasons(rows));
        self.read += rows.counters.read;
    }

    fn all_ended(&self) -> bool {
        self.splits
            .values()
            .all(|progress| progress.status == SplitStatus::Ended)
    }
}

/// Takes events up to and with the next cut.
async fn take_cut(reader: &mut FilesReader, told: &mut Told) -> BTreeMap<SplitId, SplitProgress> {
    loop {
        match reader.next().await.expect("an event") {
            SourceEvent::Rows(rows) => told.add(&rows),
            SourceEvent::Cut(cut) => {
                told.splits.extend(cut.splits.clone());
                return cut.splits;
            }
        }
    }
}

async fn read_on(reader: &mut FilesReader, told: &mut Told) {
    let mut epoch = 1;
    while told.splits.is_empty() || !told.all_ended() {
        reader.cut(request(epoch));
        take_cut(reader, told).await;
        epoch += 1;
    }
}

async fn read_all(plan: &SourcePlan, starts: Vec<SplitStart>) -> Told {
    let mut reader = reader(plan);
    reader.add_splits(starts);
    let mut told = Told::default();
    read_on(&mut reader, &mut told).await;
    told
}

fn json_lines(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{{\"id\":{id},\"name\":\"n{id}\"}}\n"))
        .collect()
}

fn expected_rows(ids: std::ops::Range<i64>) -> Vec<String> {
    ids.map(|id| format!("{id}|n{id}")).collect()
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("compress");
    encoder.finish().expect("compress")
}

fn write_parquet(path: &Path, ids: std::ops::Range<i64>) {
    let names: StringArray = ids.clone().map(|id| Some(format!("n{id}"))).collect();
    let batch = RecordBatch::try_from_iter([
        ("name", Arc::new(names) as arrow::array::ArrayRef),
        ("more", Arc::new(Int64Array::from_iter_values(ids.clone()))),
        ("id", Arc::new(Int64Array::from_iter_values(ids))),
    ])
    .expect("batch");
    let file = fs::File::create(path).expect("create");
    let mut writer =
        ::parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("write");
    writer.close().expect("close");
}

#[tokio::test]
async fn every_format_and_compression_gives_the_same_rows() {
    let folder = TempDir::new().expect("folder");
    let text = json_lines(0..30_000);
    let parts = text.as_bytes().split_at(text.len() / 2);
    let members = [gzip(parts.0), gzip(parts.1)].concat();
    let table: String = (0..30_000).map(|id| format!("n{id},{id}\r\n")).collect();
    let table = format!("name,id\r\n{table}");
    let parquet = write(&folder, "d.parquet", "");
    write_parquet(Path::new(parquet.as_str()), 0..30_000);
    let compressed = zstd::encode_all(text.as_bytes(), 1).expect("compress");
    let cases = [
        (json(), write(&folder, "a.json", &text)),
        (json(), write(&folder, "a.json.gz", members)),
        (json(), write(&folder, "a.json.zst", compressed)),
        (csv(), write(&folder, "b.csv", &table)),
        (csv(), write(&folder, "b.csv.gz", gzip(table.as_bytes()))),
        (FormatSpec::Parquet, parquet),
    ];
    for (format, split) in cases {
        let told = read_all(&plan(format), vec![claimed(&split)]).await;
        assert_eq!(told.rows.len(), 30_000, "{split}");
        assert!(told.rows == expected_rows(0..30_000), "{split}");
        assert!(told.reasons.is_empty(), "{split}");
        let progress = &told.splits[&split];
        assert_eq!(
            (progress.position, progress.end),
            (30_000, Some(30_000)),
            "{split}"
        );
        assert_eq!(progress.identity, claimed(&split).progress.identity);
    }
}

#[tokio::test]
async fn empty_files_end_without_records_and_csv_says_that_the_header_is_missing() {
    let folder = TempDir::new().expect("folder");
    for (format, name, content, letters) in [
        (json(), "a.json", "", 0),
        (json(), "b.json", "\n \r\n\n", 0),
        (json(), "a.json.gz", "", 0),
        (csv(), "a.csv", "", 1),
        (csv(), "a.csv.gz", "", 1),
        (csv(), "b.csv", "id,name\n", 0),
    ] {
        let split = write(&folder, name, content);
        let told = read_all(&plan(format), vec![claimed(&split)]).await;
        assert_eq!(told.reasons.len(), letters, "{name}: {:?}", told.reasons);
        assert!(told.rows.is_empty(), "{name}");
        assert_eq!(told.splits[&split].position, 0, "{name}");
    }
}

#[tokio::test]
async fn an_ended_file_is_told_once() {
    let folder = TempDir::new().expect("folder");
    let split = write(&folder, "a.json", json_lines(0..3));
    let mut reader = reader(&plan(json()));
    reader.add_splits(vec![claimed(&split)]);
    let mut told = Told::default();
    read_on(&mut reader, &mut told).await;
    reader.cut(request(100));
    assert!(take_cut(&mut reader, &mut told).await.is_empty());
    let next = write(&folder, "b.json", json_lines(3..5));
    reader.add_splits(vec![claimed(&next)]);
    told.splits.clear();
    read_on(&mut reader, &mut told).await;
    assert_eq!(told.rows, expected_rows(0..5));
    assert_eq!(told.splits.keys().collect::<Vec<_>>(), [&next]);
}

#[tokio::test]
async fn the_rows_between_two_cuts_are_those_between_their_positions() {
    let folder = TempDir::new().expect("folder");
    let mut content = json_lines(0..120_000);
    content.push_str("broken\n");
    let split = write(&folder, "a.json", content);
    let mut reader = reader(&plan(json()));
    reader.add_splits(vec![claimed(&split)]);
    let mut told = Told::default();
    let (mut epoch, mut positions) = (0, vec![0]);
    while told.splits.is_empty() || !told.all_ended() {
        epoch += 1;
        reader.cut(request(epoch));
        let cut = take_cut(&mut reader, &mut told).await;
        assert_eq!(cut[&split].position as u64, told.read);
        positions.push(cut[&split].position);
    }
    assert!(positions.is_sorted());
    assert!(
        positions.len() > 3,
        "cuts fall inside the file: {positions:?}"
    );
    assert_eq!(told.read, 120_001);
    assert!(told.rows == expected_rows(0..120_000));
}

#[tokio::test]
async fn a_file_goes_on_where_the_log_says_with_the_same_rows_and_watermark() {
    let folder = TempDir::new().expect("folder");
    let plan = timed_plan();
    // The newest row stands in front, so that a watermark made only of later rows would be another.
    let time = |id: i64| if id == 10 { 9_000 } else { 1_000 + id % 7 };
    let content: String = (0..20_000)
        .map(|id| match id % 1_000 {
            999 => "broken\n".to_owned(),
            _ => format!("{{\"id\":{id},\"at\":{}}}\n", time(id)),
        })
        .collect();
    let split = write(&folder, "a.json", content);
    let whole = read_all(&plan, vec![claimed(&split)]).await;
    assert_eq!(
        whole.splits[&split].watermark,
        Some(EventTime(8_995_000_000))
    );
    for position in [0, 1, 999, 1_000, 8_192, 8_193, 19_999, 20_000] {
        let mut start = claimed(&split);
        start.progress.position = position;
        let resumed = read_all(&plan, vec![start]).await;
        assert_eq!(resumed.splits, whole.splits, "{position}");
        assert_eq!(resumed.read as i64, 20_000 - position);
        let refused = position as usize / 1_000;
        assert_eq!(resumed.reasons, whole.reasons[refused..], "{position}");
        assert!(
            resumed.rows == whole.rows[position as usize - refused..],
            "{position}"
        );
    }
}

#[tokio::test]
async fn a_resumed_parquet_file_has_the_same_rows() {
    let folder = TempDir::new().expect("folder");
    let split = write(&folder, "a.parquet", "");
    write_parquet(Path::new(split.as_str()), 0..20_000);
    for position in [5, 8_192, 12_345] {
        let mut start = claimed(&split);
        start.progress.position = position;
        let resumed = read_all(&plan(FormatSpec::Parquet), vec![start]).await;
        assert!(
            resumed.rows == expected_rows(position..20_000),
            "{position}"
        );
    }
}

#[tokio::test]
async fn rows_are_late_by_the_watermark_of_the_claim_and_the_file_moves_it_at_its_end() {
    let folder = TempDir::new().expect("folder");
    let content = "{\"id\":1,\"at\":900}\n{\"id\":2,\"at\":100}\n{\"id\":3,\"at\":99}\n";
    let split = write(&folder, "a.json", content);
    let mut start = claimed(&split);
    start.progress.watermark = Some(EventTime(100_000_000));
    let told = read_all(&timed_plan(), vec![start]).await;
    assert_eq!(told.rows.len(), 2);
    assert!(told.reasons[0].starts_with("3|late|"), "{:?}", told.reasons);
    assert_eq!(told.splits[&split].watermark, Some(EventTime(895_000_000)));
}

#[tokio::test]
async fn no_row_follows_the_cut_that_stops() {
    let folder = TempDir::new().expect("folder");
    let split = write(&folder, "a.json", json_lines(0..50_000));
    let mut reader = reader(&plan(json()));
    reader.add_splits(vec![claimed(&split)]);
    reader.cut(CutRequest {
        stop: true,
        ..request(1)
    });
    let mut told = Told::default();
    let first = take_cut(&mut reader, &mut told).await;
    assert_eq!(first[&split].status, SplitStatus::Active);
    reader.cut(request(2));
    let read = told.read;
    let second = take_cut(&mut reader, &mut told).await;
    assert_eq!((second, told.read), (first, read));
}
