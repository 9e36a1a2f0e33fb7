//! Replays beside a client: what is read again, where it stands at a cut, and when a row of it is late.

use std::sync::Arc;

use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, SourceIndex};
use millstream_common::plan::expression::Functions;
use millstream_common::replay_split::{ReplayObject, encode, split_of};
use millstream_common::store::FileStore;
use tempfile::TempDir;

use super::*;
use crate::decode::tests::{StillClock, column, lines, reasons, source, timestamp, watermark};

/// A client without rows, with one split of its own.
#[derive(Default)]
struct Silent {
    cuts: VecDeque<CutRequest>,
}

#[async_trait]
impl SourceReader for Silent {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        match self.cuts.pop_front() {
            None => std::future::pending().await,
            Some(request) => Ok(SourceEvent::Cut(SourceCut {
                epoch: request.epoch,
                splits: BTreeMap::from([("clicks-0".into(), progress(9))]),
            })),
        }
    }

    fn cut(&mut self, request: CutRequest) {
        self.cuts.push_back(request);
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) {
        assert!(splits.is_empty(), "these are no splits of mine: {splits:?}");
    }

    fn committed(&mut self, positions: &BTreeMap<SplitId, SplitProgress>) {
        assert!(positions.keys().all(|split| split.as_str() == "clicks-0"));
    }
}

/// A client that has an event at every moment.
struct Busy;

#[async_trait]
impl SourceReader for Busy {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        Ok(SourceEvent::Cut(SourceCut {
            epoch: Epoch(1),
            splits: BTreeMap::new(),
        }))
    }

    fn cut(&mut self, _: CutRequest) {}

    fn add_splits(&mut self, _: Vec<SplitStart>) {}

    fn committed(&mut self, _: &BTreeMap<SplitId, SplitProgress>) {}
}

fn progress(position: i64) -> SplitProgress {
    SplitProgress {
        position,
        end: None,
        watermark: None,
        status: SplitStatus::Active,
        identity: None,
        gaps: None,
    }
}

/// `at` and `n`; a row is late by the second.
fn plan() -> SourcePlan {
    let mut plan = source();
    plan.columns = vec![
        column("at", timestamp(), false),
        column("n", arrow::datatypes::DataType::Int64, false),
    ];
    plan.watermark = watermark(0);
    plan.on_violation = OnViolation::Fail;
    plan
}

struct Storage {
    _folder: TempDir,
    store: StoreRef,
}

impl Storage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display().to_string();
        let store = FileStore::open(&path, Arc::new(ThreadPool)).await;
        Self {
            _folder: folder,
            store: Arc::new(store.expect("store")),
        }
    }

    fn reader(&self) -> ReplayReader {
        self.reader_beside(Box::<Silent>::default())
    }

    fn reader_beside(&self, client: Box<dyn SourceReader>) -> ReplayReader {
        let context = ReaderContext {
            name: "clicks.0".to_owned(),
            group_id: String::new(),
            functions: Functions::new(),
            clock: Arc::new(StillClock),
            blocking: Arc::new(ThreadPool),
            late_rows_needed: false,
            links_wanted: false,
        };
        let replays = Replays::new(&plan(), &context, self.store.clone());
        ReplayReader::new(client, replays.expect("replays"))
    }

    /// Stores rows, and says how they are read.
    async fn send(&self, rows: &[&str], event_time_us: Option<i64>) -> SplitStart {
        let path = "replays/a.arrow";
        let rows: Vec<ReplayRow> = rows
            .iter()
            .map(|row| ReplayRow {
                payload: row.as_bytes().to_vec(),
                letter: None,
            })
            .collect();
        let object = encode(path, &rows).expect("encode");
        ipc::create(&self.store, path, &object)
            .await
            .expect("create");
        let sent = ReplayObject {
            path: path.to_owned(),
            bytes: 0,
            checksum: object.checksum,
            row_count: rows.len() as u64,
            event_time_us,
            sent_at_us: 0,
        };
        SplitStart {
            source: SourceIndex(0),
            split: split_of("a"),
            progress: sent.beginning(),
        }
    }
}

async fn next_rows(reader: &mut ReplayReader) -> DecodedRows {
    match reader.next().await.expect("an event") {
        SourceEvent::Rows(rows) => rows,
        SourceEvent::Cut(cut) => panic!("{cut:?}"),
    }
}

async fn next_cut(reader: &mut ReplayReader, watermark: Option<i64>) -> SourceCut {
    reader.cut(CutRequest {
        epoch: Epoch(3),
        watermark: watermark.map(EventTime),
        stop: false,
    });
    loop {
        if let SourceEvent::Cut(cut) = reader.next().await.expect("an event") {
            return cut;
        }
    }
}

const SECOND: i64 = 1_000_000;

#[tokio::test]
async fn rows_are_read_once_beside_a_silent_client_and_one_that_breaks_a_rule_is_a_letter_again() {
    let storage = Storage::new().await;
    let mut reader = storage.reader();
    let rows = [
        r#"{"at":"1970-01-01T00:00:50Z","n":1}"#,
        r#"{"at":"1970-01-01T00:00:51Z","n":"x"}"#,
    ];
    let start = storage.send(&rows, None).await;
    reader.add_splits(vec![start.clone()]);
    let read = next_rows(&mut reader).await;
    assert_eq!(lines(&read.batch), ["1970-01-01T00:00:50|1"]);
    let letters = lines(
        &read
            .rejects
            .expect("a letter")
            .project(&[1, 2, 5])
            .expect("columns"),
    );
    assert_eq!(letters, ["replay:a|2|type_mismatch"]);
    let cut = next_cut(&mut reader, None).await;
    assert_eq!(cut.splits[&SplitId::from("clicks-0")].position, 9);
    let ended = &cut.splits[&start.split];
    assert_eq!((ended.position, ended.status), (2, SplitStatus::Ended));
    reader.committed(&cut.splits);
    let next = next_cut(&mut reader, None).await;
    assert!(!next.splits.contains_key(&start.split), "it ended once");
}

#[tokio::test]
async fn a_replay_goes_on_from_the_recorded_position_in_another_reader() {
    let storage = Storage::new().await;
    let row = |n: usize| format!("{{\"at\":\"1970-01-01T00:01:00Z\",\"n\":{n}}}");
    let rows: Vec<String> = (0..BATCH_ROWS_MAX + 2).map(row).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let mut start = storage.send(&rows, None).await;
    let mut first = storage.reader();
    first.add_splits(vec![start.clone()]);
    let unread = {
        let mut fresh = storage.reader();
        fresh.replays.waiting.push_back(start.clone());
        let mut splits = BTreeMap::new();
        let request = CutRequest {
            epoch: Epoch(1),
            watermark: Some(EventTime(7)),
            stop: true,
        };
        fresh.replays.cut(request, &mut splits);
        assert!(
            !fresh.replays.has_work(),
            "nothing is handed on behind a last cut"
        );
        splits.remove(&start.split).expect("it is claimed")
    };
    assert_eq!((unread.position, unread.watermark), (0, Some(EventTime(7))));
    assert_eq!(next_rows(&mut first).await.batch.num_rows(), BATCH_ROWS_MAX);
    let request = CutRequest {
        epoch: Epoch(1),
        watermark: None,
        stop: false,
    };
    let mut splits = BTreeMap::new();
    first.replays.cut(request, &mut splits);
    start.progress = splits.remove(&start.split).expect("it is read");
    assert_eq!(start.progress.position, BATCH_ROWS_MAX as i64);
    let mut second = storage.reader();
    second.add_splits(vec![start]);
    let rest = next_rows(&mut second).await;
    let numbers = lines(&rest.batch.project(&[1]).expect("a column"));
    assert_eq!(numbers, ["8192", "8193"]);
}

#[tokio::test]
async fn a_row_is_late_by_what_operators_act_on_and_not_by_the_rows_before_it() {
    let storage = Storage::new().await;
    let mut reader = storage.reader();
    let rows = [
        r#"{"at":"1970-01-01T01:00:00Z","n":1}"#,
        r#"{"at":"1970-01-01T00:00:40Z","n":2}"#,
        r#"{"at":"1970-01-01T00:00:29Z","n":3}"#,
    ];
    let mut start = storage.send(&rows, None).await;
    start.progress.watermark = Some(EventTime(30 * SECOND));
    reader.add_splits(vec![start.clone()]);
    let read = next_rows(&mut reader).await;
    assert_eq!(read.batch.num_rows(), 2);
    assert!(
        reasons(&read)[0].starts_with("3|late|"),
        "{:?}",
        reasons(&read)
    );
    let ended = next_cut(&mut reader, None)
        .await
        .splits
        .remove(&start.split);
    let watermark = ended.expect("it ended").watermark;
    assert_eq!(watermark, Some(EventTime(30 * SECOND)));
    // Operators have gone on before the same rows are read a second time.
    let mut later = storage.reader();
    later.add_splits(vec![start]);
    later.replays.cut(
        CutRequest {
            epoch: Epoch(4),
            watermark: Some(EventTime(60 * SECOND)),
            stop: false,
        },
        &mut BTreeMap::new(),
    );
    let read = next_rows(&mut later).await;
    assert_eq!(reasons(&read).len(), 2);
}

#[tokio::test]
async fn a_given_event_time_takes_the_place_of_the_rows_own() {
    let storage = Storage::new().await;
    let mut reader = storage.reader();
    let rows = [
        r#"{"at":"1970-01-01T00:00:01Z","n":1} "#,
        r#"{"n":2}"#,
        "{ }",
        "no object",
    ];
    let mut start = storage.send(&rows, Some(90 * SECOND)).await;
    start.progress.watermark = Some(EventTime(30 * SECOND));
    reader.add_splits(vec![start]);
    let read = next_rows(&mut reader).await;
    assert_eq!(
        lines(&read.batch),
        ["1970-01-01T00:01:30|1", "1970-01-01T00:01:30|2"]
    );
    let reasons = reasons(&read);
    assert!(
        reasons[0].starts_with("3|null_violation|column \"n\""),
        "{reasons:?}"
    );
    assert!(reasons[1].starts_with("4|malformed|"), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_loaded_beside_a_client_that_always_has_an_event() {
    let storage = Storage::new().await;
    let mut reader = storage.reader_beside(Box::new(Busy));
    let row = r#"{"at":"2026-01-01T00:00:00","n":1}"#;
    reader.add_splits(vec![storage.send(&[row], None).await]);
    let read = async {
        loop {
            if let SourceEvent::Rows(rows) = reader.next().await.expect("an event") {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    };
    let read = tokio::time::timeout(std::time::Duration::from_secs(30), read).await;
    let rows = read.expect("it is read");
    assert_eq!(rows.batch.num_rows(), 1);
}
