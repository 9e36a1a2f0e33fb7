//! The generator as its actor drives it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Date32Type, Field, Int64Type};
use futures::FutureExt;
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, SourceIndex};
use millstream_common::plan::connector::{DatagenField, DatagenKind, DatagenSpec};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{ColumnOrigin, FormatSpec, OnViolation, SourceColumn};
use millstream_common::time::Clock;

use super::*;

/// Milliseconds since the test began.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn unix_micros(&self) -> i64 {
        1_700_000_000_000_000
    }
}

fn plan(row_count: Option<u64>, rows_per_second: Option<u64>) -> SourcePlan {
    let column = |name: &str, data_type, type_name: &str| SourceColumn {
        field: Field::new(name, data_type, false),
        origin: ColumnOrigin::Record,
        type_name: type_name.to_owned(),
    };
    let field = |column: &str, kind| DatagenField {
        column: column.to_owned(),
        kind,
        null_rate: 0.0,
    };
    let template = DatagenKind::Template {
        template: "user_{uniform:1:1000}".to_owned(),
    };
    let id = DatagenKind::Sequence { start: 1, step: 1 };
    SourcePlan {
        name: "users".to_owned(),
        spec: SourceSpec::Datagen(DatagenSpec {
            row_count,
            rows_per_second,
            seed: 42,
            fields: vec![field("id", id), field("name", template)],
        }),
        format: FormatSpec::Native,
        columns: vec![
            column("id", DataType::Int64, "BIGINT"),
            column("name", DataType::Utf8, "TEXT"),
        ],
        checks: vec![],
        on_violation: OnViolation::DeadLetter,
        watermark: None,
        keeps_time: false,
        idle_timeout_ms: None,
        bounded: row_count.is_some(),
    }
}

fn reader(plan: &SourcePlan, clock: &Arc<HandClock>) -> DatagenReader {
    let context = ReaderContext {
        name: "users 0.0".to_owned(),
        group_id: "millstream".to_owned(),
        functions: Functions::new(),
        clock: clock.clone(),
        blocking: Arc::new(ThreadPool),
        late_rows_needed: false,
        links_wanted: false,
    };
    DatagenReader::start(plan, context).expect("a reader")
}

fn start(position: i64, end: Option<i64>) -> Vec<SplitStart> {
    vec![SplitStart {
        source: SourceIndex(0),
        split: "datagen-0".into(),
        progress: SplitProgress {
            position,
            end,
            watermark: None,
            status: SplitStatus::Active,
            identity: None,
            gaps: None,
        },
    }]
}

async fn rows(reader: &mut DatagenReader) -> RecordBatch {
    match reader.next().await.expect("rows") {
        SourceEvent::Rows(rows) => rows.batch,
        SourceEvent::Cut(cut) => panic!("no cut was asked for: {cut:?}"),
    }
}

async fn cut(reader: &mut DatagenReader) -> SourceCut {
    reader.cut(CutRequest {
        epoch: Epoch(1),
        watermark: None,
        stop: false,
    });
    match reader.next().await.expect("a cut") {
        SourceEvent::Cut(cut) => cut,
        SourceEvent::Rows(rows) => panic!("the cut comes first: {rows:?}"),
    }
}

#[tokio::test]
async fn a_resumed_reader_makes_the_rows_that_were_left() {
    let plan = plan(Some(10_000), None);
    let clock = Arc::default();
    let mut whole = reader(&plan, &clock);
    whole.add_splits(start(0, Some(10_000)));
    let batches = [rows(&mut whole).await, rows(&mut whole).await];
    let all = concat_batches(&batches[0].schema(), &batches).expect("one batch");
    assert_eq!(all.num_rows(), 10_000);
    let mut resumed = reader(&plan, &clock);
    resumed.add_splits(start(9_000, Some(10_000)));
    assert_eq!(rows(&mut resumed).await, all.slice(9_000, 1_000));
}

#[tokio::test]
async fn a_generator_with_a_row_count_ends_once() {
    let plan = plan(Some(5), None);
    let mut reader = reader(&plan, &Arc::default());
    reader.add_splits(start(0, Some(5)));
    let batch = rows(&mut reader).await;
    let ids = batch.column(0).as_primitive::<Int64Type>();
    assert_eq!(ids.values(), &[1, 2, 3, 4, 5]);
    let ended = &cut(&mut reader).await.splits[&SplitId::from("datagen-0")];
    assert_eq!((ended.position, ended.status), (5, SplitStatus::Ended));
    assert!(cut(&mut reader).await.splits.is_empty());
}

#[tokio::test]
async fn rows_come_at_the_rate_of_the_clock() {
    let plan = plan(None, Some(1_000));
    let clock: Arc<HandClock> = Arc::default();
    let mut reader = reader(&plan, &clock);
    reader.add_splits(start(0, None));
    assert!(reader.next().now_or_never().is_none());
    clock.0.store(250, Ordering::SeqCst);
    assert_eq!(rows(&mut reader).await.num_rows(), 250);
    let waiting = &cut(&mut reader).await.splits[&SplitId::from("datagen-0")];
    assert_eq!(
        (waiting.position, waiting.status),
        (250, SplitStatus::Active)
    );
}

#[tokio::test]
async fn dates_come_from_microseconds_like_all_times() {
    const DAY_US: i64 = 86_400_000_000;
    let kinds = [
        DatagenKind::Sequence {
            start: 10 * DAY_US,
            step: DAY_US,
        },
        DatagenKind::Uniform {
            min: (10 * DAY_US) as f64,
            max: (12 * DAY_US) as f64,
            decimals: 0,
        },
    ];
    for kind in kinds {
        let mut plan = plan(Some(3), None);
        plan.columns[0].field = Field::new("id", DataType::Date32, false);
        let SourceSpec::Datagen(spec) = &mut plan.spec else {
            panic!("the plan is of a generator");
        };
        spec.fields[0].kind = kind;
        let mut reader = reader(&plan, &Arc::default());
        reader.add_splits(start(0, Some(3)));
        let batch = rows(&mut reader).await;
        let days = batch.column(0).as_primitive::<Date32Type>().values();
        assert_eq!(days[0].clamp(10, 12), days[0], "{days:?}");
        assert_eq!(days[2].clamp(10, 12), days[2], "{days:?}");
    }
}
