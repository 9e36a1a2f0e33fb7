//! Rows from a task's branches to a reader: what it sees, what ends it, and that nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, SchemaRef};
use arrow_flight::FlightData;
use arrow_flight::utils::flight_data_to_arrow_batch;
use datafusion::prelude::{col, lit};
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_common::ids::{Generation, JobName, StageIndex};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{
    JobPlan, JobSettings, KeyedKind, KeyedPlan, PlanExpression, PlanSchema, Port, StageHead,
    StagePlan, Transform,
};
use millstream_common::preview::{Marks, Tap, Ticket};
use millstream_common::time::SystemClock;
use tonic::{Code, Status};

use super::board::{PostedTaps, READERS_MAX, TapBoard};
use crate::branch::Branches;

fn schema() -> PlanSchema {
    PlanSchema::from_fields(vec![Field::new("n", DataType::Int64, false)])
}

/// One stage, whose head hands on rows of `n`.
fn plan() -> JobPlan {
    let head = KeyedPlan {
        operator: "numbers/distinct/0".into(),
        fingerprint: "test".to_owned(),
        input: schema(),
        key_columns: vec![0],
        kind: KeyedKind::Distinct { time_column: None },
    };
    JobPlan {
        settings: JobSettings::default(),
        sources: Vec::new(),
        stages: vec![StagePlan {
            name: "numbers".to_owned(),
            head: StageHead::Keyed(head),
            sources: Vec::new(),
            branches: Vec::new(),
        }],
        outputs: Vec::new(),
        sinks: Vec::new(),
    }
}

/// A pipeline of one task.
struct Pipeline {
    board: Arc<TapBoard>,
    posted: PostedTaps,
    branches: Branches,
}

impl Pipeline {
    fn start() -> Self {
        let board = TapBoard::new();
        let job = JobName::from("numbers");
        let plan = Arc::new(plan());
        let posted = board.post(&job, Generation(3), plan, Functions::new());
        let clock = Arc::new(SystemClock::new());
        let branches = Branches::new("numbers.0".to_owned(), Vec::new(), clock);
        Self {
            branches: branches.tapped(posted.of(StageIndex(0))),
            board,
            posted,
        }
    }

    async fn rows(&mut self, numbers: impl IntoIterator<Item = i64>) {
        let column = Int64Array::from_iter_values(numbers);
        let batch = RecordBatch::try_new(schema().0, vec![Arc::new(column)]);
        let batch = batch.expect("batch");
        let sent = self.branches.send(Port::Rows, &batch, None);
        assert!(sent.await.expect("sent").is_empty());
    }

    /// Those greater than 1.
    fn ticket(&self) -> Ticket {
        let condition = PlanExpression::encode(&col("n").gt(lit(1_i64)), "n > 1");
        let tap = Tap {
            stage: StageIndex(0),
            port: Port::Rows,
            transforms: vec![Transform::Filter(condition.expect("encode"))],
            schema: schema(),
        };
        Ticket {
            job: "numbers".into(),
            generation: Generation(3),
            taps: vec![tap],
        }
    }

    async fn read(&self) -> Reader {
        let reading = self.board.open(&self.ticket()).expect("open");
        let mut messages = reading.messages();
        let first = messages.next().await.expect("a schema").expect("fine");
        let schema = SchemaRef::new((&first).try_into().expect("a schema"));
        Reader { messages, schema }
    }
}

struct Reader {
    messages: BoxStream<'static, Result<FlightData, Status>>,
    schema: SchemaRef,
}

impl Reader {
    /// The rows of the next message, and how many were passed over.
    async fn next(&mut self) -> Result<(Vec<i64>, u64), Status> {
        let data = self.messages.next().await.expect("a message")?;
        let marks: Marks = serde_json::from_slice(&data.app_metadata).expect("marks");
        if data.data_header.is_empty() {
            return Ok((Vec::new(), marks.skipped_rows));
        }
        let batch = flight_data_to_arrow_batch(&data, self.schema.clone(), &Default::default());
        let batch = batch.expect("rows");
        let numbers = batch.column(0).as_primitive::<Int64Type>().values();
        Ok((numbers.to_vec(), marks.skipped_rows))
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_sees_the_rows_that_pass_from_when_it_came() {
    let mut pipeline = Pipeline::start();
    pipeline.rows([5]).await;
    let mut reader = pipeline.read().await;
    pipeline.rows([1, 2]).await;
    pipeline.rows([3]).await;
    assert_eq!(reader.next().await.expect("rows"), (vec![2, 3], 0));
    pipeline.rows([1]).await;
    pipeline.rows([4]).await;
    assert_eq!(reader.next().await.expect("rows"), (vec![4], 0));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_costs_rows_and_holds_up_nobody() {
    let mut pipeline = Pipeline::start();
    let mut reader = pipeline.read().await;
    let count = 2_000_000;
    for first in (0..count).step_by(100_000) {
        pipeline.rows(first + 2..first + 100_002).await;
    }
    let (rows, skipped) = reader.next().await.expect("rows");
    assert_eq!(rows.len(), 1_000);
    assert_eq!(rows.len() as u64 + skipped, count as u64, "all are counted");
}

#[tokio::test(start_paused = true)]
async fn a_reader_ends_with_the_pipeline_and_no_other_generation_is_read() {
    let pipeline = Pipeline::start();
    let mut reader = pipeline.read().await;
    let other = Ticket {
        generation: Generation(2),
        ..pipeline.ticket()
    };
    let refused = pipeline.board.open(&other).err().expect("refused");
    assert!(refused.to_string().contains("does not run here"));
    let Pipeline { board, posted, .. } = pipeline;
    drop(posted);
    let ended = tokio::time::timeout(Duration::from_secs(60), reader.next());
    let status = ended.await.expect("soon").expect_err("it has ended");
    assert_eq!(status.code(), Code::Aborted);
    assert!(reader.messages.next().await.is_none());
    let again = Pipeline::start().ticket();
    assert!(board.open(&again).is_err(), "nothing is posted any more");
}

#[tokio::test]
async fn readers_are_bounded_and_make_room_when_they_go() {
    let pipeline = Pipeline::start();
    let open = || pipeline.board.open(&pipeline.ticket());
    let readers: Vec<_> = (0..READERS_MAX).map(|_| open().expect("open")).collect();
    assert!(open().is_err());
    drop(readers);
    assert!(open().is_ok());
}

#[tokio::test]
async fn a_ticket_that_makes_no_sense_is_refused() {
    let pipeline = Pipeline::start();
    let ticket = pipeline.ticket();
    let none = Ticket {
        taps: Vec::new(),
        ..ticket.clone()
    };
    assert!(pipeline.board.open(&none).is_err());
    let mut unknown = ticket.clone();
    unknown.taps[0].stage = StageIndex(7);
    assert!(pipeline.board.open(&unknown).is_err());
    let mut other = ticket;
    other.taps[0].schema = PlanSchema::from_fields(Vec::new());
    assert!(pipeline.board.open(&other).is_err());
}
