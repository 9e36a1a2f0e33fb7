//! Files that break off, change, vanish or do not fit, and disks that fail.

use std::io;

use super::super::source::FileHandle;
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
async fn a_file_that_is_gone_or_changed_is_an_error_that_names_it() {
    let folder = TempDir::new().expect("folder");
    let split = write(&folder, "a.json", json_lines(0..3));
    let start = claimed(&split);
    write(&folder, "a.json", json_lines(0..4));
    let error = first_error(reader(&plan(json())), start.clone()).await;
    assert_eq!(error.kind, Kind::User);
    assert!(
        error
            .to_string()
            .starts_with(&format!("read file {split}: it has changed"))
    );
    fs::remove_file(split.as_str()).expect("remove");
    let error = first_error(reader(&plan(json())), start).await;
    assert_eq!(error.kind, Kind::User);
    assert!(
        error
            .to_string()
            .starts_with(&format!("read file {split}: it is gone"))
    );
}

#[tokio::test]
async fn a_file_shorter_than_its_position_is_an_error() {
    let folder = TempDir::new().expect("folder");
    let split = write(&folder, "a.json", json_lines(0..3));
    let mut start = claimed(&split);
    start.progress.position = 4;
    let error = first_error(reader(&plan(json())), start).await;
    assert!(
        error
            .to_string()
            .contains("3 records where 4 were read before"),
        "{error}"
    );
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
    fn open(&self, _: &str) -> io::Result<Box<dyn FileHandle>> {
        Ok(Box::new(FailingFile { left: self.bytes }))
    }

    fn identity(&self, _: &str) -> io::Result<String> {
        Ok(String::new())
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
