//! Files that break off, change, vanish or do not fit, and disks that fail.

use std::io;

use super::super::source::OpenFile;
use super::*;

async fn first_error(mut reader: FilesReader, start: SplitStart) -> ConsumeError {
    reader.add_splits(vec![start]);
    loop {
        if let Err(error) = reader.next().await {
            return error;
        }
    }
}

#[tokio::test]
async fn a_header_that_does_not_fit_ends_its_file_and_the_next_goes_on() {
    let folder = TempDir::new().expect("folder");
    let bad = write(&folder, "a.csv", "id,nome\n1,a\n");
    let good = write(&folder, "b.csv", "id,name\n1,a\n");
    let told = read_all(&plan(csv()), vec![claimed(&bad), claimed(&good)]).await;
    assert_eq!(told.rows, ["1|a"]);
    assert_eq!(
        told.reasons,
        ["0|header|the header has a column \"nome\" that is not declared"]
    );
    assert_eq!(told.splits[&bad].position, 0);
    assert_eq!(told.splits[&bad].status, SplitStatus::Ended);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_refused_and_the_rest_goes_on() {
    let folder = TempDir::new().expect("folder");
    let limit = 2 << 20;
    let long = format!("{{\"id\":1,\"name\":\"{}\"}}", "x".repeat(5 << 20));
    let fits = format!("{{\"id\":2,\"name\":\"{}\"}}", "x".repeat(limit - 19));
    let content = format!("{long}\n{fits}\n{}{long}", json_lines(3..4));
    let split = write(&folder, "a.json", content);
    let plan = plan(FormatSpec::Json {
        timestamp_format: TimestampFormat::Iso,
        record_bytes_max: limit,
    });
    let told = read_all(&plan, vec![claimed(&split)]).await;
    assert_eq!(told.rows.len(), 2);
    assert_eq!(told.rows[1], "3|n3");
    let codes: Vec<&str> = told.reasons.iter().map(|reason| &reason[..10]).collect();
    assert_eq!(codes, ["1|too_long", "4|too_long"]);
}

#[tokio::test]
async fn a_file_that_breaks_off_keeps_its_rows_and_is_one_dead_letter() {
    let folder = TempDir::new().expect("folder");
    let mut compressed = gzip(json_lines(0..2_000).as_bytes());
    compressed.truncate(compressed.len() - 20);
    let cut = write(&folder, "a.json.gz", compressed);
    let told = read_all(&plan(json()), vec![claimed(&cut)]).await;
    assert!(told.rows.len() > 1_000 && told.rows == expected_rows(0..told.rows.len() as i64));
    assert_eq!(told.reasons.len(), 1);
    let start = format!(
        "{}|malformed|the file cannot be decompressed",
        told.rows.len() + 1
    );
    assert!(told.reasons[0].starts_with(&start), "{:?}", told.reasons);
    for (format, name) in [
        (json(), "b.gz"),
        (json(), "c.zst"),
        (FormatSpec::Parquet, "d"),
    ] {
        let noise = write(&folder, name, "this is neither of them");
        let told = read_all(&plan(format), vec![claimed(&noise)]).await;
        assert_eq!((told.read, told.reasons.len()), (1, 1), "{name}");
        assert!(
            told.reasons[0].starts_with("1|malformed|the file cannot be"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_changed_is_one_dead_letter_and_the_next_goes_on() {
    let folder = TempDir::new().expect("folder");
    let gone = write(&folder, "a.json", json_lines(0..3));
    let changed = write(&folder, "b.json", json_lines(0..3));
    let good = write(&folder, "c.json", json_lines(0..3));
    let mut starts = vec![claimed(&gone), claimed(&changed), claimed(&good)];
    starts[1].progress.position = 2;
    fs::remove_file(gone.as_str()).expect("remove");
    write(&folder, "b.json", json_lines(0..4));
    let told = read_all(&plan(json()), starts).await;
    assert_eq!((told.rows, told.read), (expected_rows(0..3), 5));
    assert_eq!(told.reasons.len(), 2, "{:?}", told.reasons);
    assert!(
        told.reasons[0].starts_with("1|malformed|the file is gone since it was claimed"),
        "{:?}",
        told.reasons
    );
    assert!(
        told.reasons[1].starts_with("3|malformed|the file has changed since it was claimed"),
        "{:?}",
        told.reasons
    );
    for (split, position) in [(gone, 1), (changed, 3)] {
        let progress = &told.splits[&split];
        assert_eq!(
            (progress.position, progress.end, progress.status),
            (position, Some(position), SplitStatus::Ended)
        );
    }
}

/// A reader in the middle of a file of so many lines.
async fn reader_inside(folder: &TempDir, line_count: i64) -> (FilesReader, SplitId, Told) {
    let split = write(folder, "a.json", json_lines(0..line_count));
    let mut reader = reader(&plan(json()));
    reader.add_splits(vec![claimed(&split)]);
    let mut told = Told::default();
    match reader.next().await.expect("an event") {
        SourceEvent::Rows(rows) => told.add(&rows),
        other => panic!("{other:?} is no rows"),
    }
    (reader, split, told)
}

#[tokio::test]
async fn a_file_that_is_moved_while_it_is_read_is_read_to_its_end() {
    let folder = TempDir::new().expect("folder");
    let (mut reader, split, mut told) = reader_inside(&folder, 200_000).await;
    fs::rename(split.as_str(), folder.path().join("moved")).expect("move");
    read_on(&mut reader, &mut told).await;
    assert!(told.rows == expected_rows(0..200_000));
    assert!(told.reasons.is_empty(), "{:?}", told.reasons);
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_read_keeps_its_rows_and_ends_with_a_dead_letter() {
    let folder = TempDir::new().expect("folder");
    let (mut reader, split, mut told) = reader_inside(&folder, 200_000).await;
    let mut file = fs::OpenOptions::new()
        .append(true)
        .open(split.as_str())
        .expect("open");
    file.write_all(json_lines(200_000..200_001).as_bytes())
        .expect("append");
    read_on(&mut reader, &mut told).await;
    assert!(told.rows == expected_rows(0..200_001));
    assert_eq!(told.reasons.len(), 1, "{:?}", told.reasons);
    assert!(
        told.reasons[0].starts_with("200002|malformed|the file changed while it was read"),
        "{:?}",
        told.reasons
    );
    assert_eq!(told.splits[&split].position, 200_002);
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_an_error_to_try_again_and_loses_no_file() {
    let folder = TempDir::new().expect("folder");
    let inner = folder.path().join("in");
    fs::create_dir(&inner).expect("create");
    let split = write(&folder, "in/a.json", json_lines(0..3));
    let start = claimed(&split);
    fs::remove_dir_all(&inner).expect("remove");
    let mut plan = plan(json());
    for path in [format!("{}/*.json", inner.display()), String::new()] {
        if let SourceSpec::Files(files) = &mut plan.spec {
            files.path = path;
        }
        let error = first_error(reader(&plan), start.clone()).await;
        assert_eq!(error.kind, Kind::External, "{error}");
        assert!(error.cause.contains("mount it"), "{error}");
    }
    if let SourceSpec::Files(files) = &mut plan.spec {
        files.path = format!("{}/*/a.json", folder.path().display());
    }
    let told = read_all(&plan, vec![start]).await;
    assert_eq!(told.reasons.len(), 1, "the folder in front is there");
}

#[tokio::test]
async fn a_file_shorter_than_its_position_ends_with_a_dead_letter() {
    let folder = TempDir::new().expect("folder");
    let split = write(&folder, "a.json", json_lines(0..3));
    let mut start = claimed(&split);
    start.progress.position = 4;
    let told = read_all(&plan(json()), vec![start]).await;
    assert!(told.rows.is_empty());
    assert_eq!(
        told.reasons,
        ["5|malformed|the file has 3 records where 4 were read before"]
    );
    assert_eq!(told.splits[&split].position, 5);
}

/// Files on a disk that fails after so many bytes.
struct FailingDisk {
    bytes: usize,
}

struct FailingFile {
    left: usize,
}

impl io::Read for FailingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("input/output error"));
        }
        let count = self.left.min(buffer.len());
        buffer[..count].fill(b'\n');
        self.left -= count;
        Ok(count)
    }
}

impl io::Seek for FailingFile {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        match to {
            io::SeekFrom::End(_) => Ok(1 << 30),
            _ => Ok(0),
        }
    }
}

impl FileSource for FailingDisk {
    fn open(&self, _: &str) -> io::Result<OpenFile> {
        Ok(OpenFile {
            bytes: Box::new(FailingFile { left: self.bytes }),
            identify: Box::new(|| Ok(String::new())),
        })
    }

    fn has_folder(&self, _: &Path, _: &str) -> bool {
        true
    }
}

#[tokio::test]
async fn a_disk_that_fails_is_an_error_to_try_again() {
    for (format, bytes) in [
        (json(), 3 << 20),
        (csv(), 3 << 20),
        (FormatSpec::Parquet, 0),
    ] {
        let mut start = claimed(&SplitId("/a.json".to_owned()));
        start.progress.identity = None;
        let reader = reader_of(&plan(format), Arc::new(FailingDisk { bytes }));
        let error = first_error(reader, start).await;
        assert_eq!(error.kind, Kind::External, "{error}");
    }
}

#[tokio::test]
async fn a_reader_without_files_answers_cuts() {
    let mut reader = reader(&plan(json()));
    reader.cut(request(7));
    match reader.next().await.expect("a cut") {
        SourceEvent::Cut(cut) => assert_eq!((cut.epoch, cut.splits.len()), (Epoch(7), 0)),
        other => panic!("{other:?} is no cut"),
    }
}
