//! What every sink must keep, as rules that each sink's tests run against the real thing.
//!
//! A test brings a [`Subject`]: how a sink of it is made, as a starting process makes it, and what a reader
//! sees. [`check`] runs every rule on a fresh subject. A crash is a sink that is dropped at some await of an apply, at
//! each of them in turn, and a new deliverer with a larger token after it. Failure: a broken rule panics with its name.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, Incarnation, JobName, Token};
use millstream_common::plan::connector::{FileFormat, FilesSinkSpec};
use millstream_common::plan::{OP_COLUMN, OP_DELETE, OP_UPSERT, OnViolation};
use uuid::Uuid;

use crate::files::FilesSink;
use crate::sink::{
    Applied, Deliverer, EpochRun, Held, RejectedRow, Rejects, RunRows, Sink, SinkError,
};

/// A place for rows under test; its rows have the columns of [`schema`].
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new instance on the same place, as a process that starts makes it.
    fn sink(&self, deliverer: Deliverer) -> Box<dyn Sink>;
    /// The rows that a reader sees, in any order.
    async fn read(&self) -> Vec<Row>;
    /// Whether it upserts and deletes by `id`.
    fn is_keyed(&self) -> bool;
}

/// A row: id and name.
pub type Row = (i64, Option<String>);

/// One row of a run.
#[derive(Clone, Debug)]
pub enum Change {
    /// A row that is to be in the sink.
    Put(i64, &'static str),
    /// A row without a name.
    PutNull(i64),
    /// A key that is to be gone.
    Delete(i64),
}

/// Columns of the rows under test: `id` BIGINT NOT NULL, `name` TEXT.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(fields()))
}

fn fields() -> Vec<Field> {
    vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ]
}

/// Rows in memory, as a run.
pub struct MemoryRows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl MemoryRows {
    /// Batches of one schema, which ends in `_op`.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, batches }
    }

    /// A batch for each slice of changes.
    pub fn of(changes: &[&[Change]]) -> Self {
        let mut fields = fields();
        fields.push(Field::new(OP_COLUMN, DataType::Int8, false));
        let schema = Arc::new(Schema::new(fields));
        let batches = changes.iter().map(|changes| batch(&schema, changes));
        Self {
            batches: batches.collect(),
            schema: schema.clone(),
        }
    }

    /// How many rows there are.
    pub fn row_count(&self) -> u64 {
        self.batches
            .iter()
            .map(|batch| batch.num_rows() as u64)
            .sum()
    }
}

fn batch(schema: &SchemaRef, changes: &[Change]) -> RecordBatch {
    let ids: Int64Array = changes.iter().map(|change| Some(change.id())).collect();
    let names: StringArray = changes.iter().map(Change::name).collect();
    let ops: Int8Array = changes.iter().map(|change| Some(change.op())).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(ids), Arc::new(names), Arc::new(ops)];
    RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
}

impl Change {
    fn id(&self) -> i64 {
        match self {
            Self::Put(id, _) | Self::PutNull(id) | Self::Delete(id) => *id,
        }
    }

    fn name(&self) -> Option<&'static str> {
        match self {
            Self::Put(_, name) => Some(name),
            Self::PutNull(_) | Self::Delete(_) => None,
        }
    }

    fn op(&self) -> i8 {
        match self {
            Self::Put(..) | Self::PutNull(_) => OP_UPSERT,
            Self::Delete(_) => OP_DELETE,
        }
    }
}

impl RunRows for MemoryRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
        stream::iter(self.batches.iter().cloned().map(Ok)).boxed()
    }
}

/// Refused rows, kept in memory.
#[derive(Default)]
pub struct MemoryRejects {
    kept: Mutex<Vec<(Epoch, Vec<RejectedRow>)>>,
}

impl MemoryRejects {
    /// The rows kept so far, by the last epoch of their run.
    pub fn kept(&self) -> Vec<(Epoch, Vec<RejectedRow>)> {
        self.kept.lock().expect("no holder panics").clone()
    }
}

#[async_trait]
impl Rejects for MemoryRejects {
    async fn keep(&self, run: &EpochRun, rejected: &[RejectedRow]) -> Result<(), SinkError> {
        let mut kept = self.kept.lock().expect("no holder panics");
        kept.push((run.last, rejected.to_vec()));
        Ok(())
    }
}

/// A deliverer of sink `out` in the first incarnation.
pub fn deliverer(token: u64) -> Deliverer {
    Deliverer {
        job: JobName::from("conformance"),
        incarnation: Incarnation(Uuid::from_u128(0x1234_5678)),
        sink: "out".to_owned(),
        token: Token(token),
        rewind: None,
    }
}

/// A files sink of [`schema`] that keeps dead letters, fenced by [`deliverer`] 1.
pub async fn files_sink(folder: &Path, format: FileFormat, partition_by: &[&str]) -> FilesSink {
    let spec = FilesSinkSpec {
        path: folder.display().to_string(),
        format,
        partition_by: partition_by.iter().map(|name| (*name).to_owned()).collect(),
        roll_interval_ms: 60_000,
        roll_bytes: 1 << 20,
    };
    let sink = FilesSink::new(
        spec,
        deliverer(1),
        schema(),
        OnViolation::DeadLetter,
        Arc::new(ThreadPool),
    );
    let mut sink = sink.expect("a spec that fits");
    fence(&mut sink).await;
    sink
}

/// Fences as the actor does; the marker that is held.
pub async fn fence(sink: &mut dyn Sink) -> Epoch {
    let held = sink.fence().await.expect("fence");
    held.marker.expect("a durable marker")
}

/// Applies epochs `guard..=last` with these rows.
pub async fn apply(
    sink: &mut dyn Sink,
    guard: u64,
    last: u64,
    changes: &[&[Change]],
) -> Result<Applied, SinkError> {
    let rows = MemoryRows::of(changes);
    let run = EpochRun {
        guard: Epoch(guard),
        last: Epoch(last),
        row_count: rows.row_count(),
    };
    sink.apply(&run, &rows, &MemoryRejects::default()).await
}

/// Runs every rule, each on its own subject.
pub async fn check<S: Subject>(fresh: impl AsyncFn() -> S) {
    a_fresh_place_holds_nothing_and_its_marker_moves_with_the_rows(&fresh().await).await;
    a_replay_is_a_no_op(&fresh().await).await;
    a_run_with_another_guard_is_refused_whole(&fresh().await).await;
    an_older_deliverer_has_no_effect(&fresh().await).await;
    an_empty_run_moves_the_marker(&fresh().await).await;
    runs_merged_are_as_runs_one_by_one(&fresh().await, &fresh().await).await;
    lives_and_sinks_in_one_place_do_not_meet(&fresh().await).await;
    a_crash_at_any_step_neither_loses_nor_doubles(&fresh().await).await;
    if fresh().await.is_keyed() {
        a_key_ends_as_its_last_change_says(&fresh().await).await;
    }
}

async fn expect_rows(subject: &dyn Subject, rule: &str, rows: &[(i64, &str)]) {
    let mut found = subject.read().await;
    found.sort();
    let wanted: Vec<Row> = rows
        .iter()
        .map(|(id, name)| (*id, Some((*name).to_owned())))
        .collect();
    assert_eq!(found, wanted, "{rule}");
}

async fn a_fresh_place_holds_nothing_and_its_marker_moves_with_the_rows(subject: &dyn Subject) {
    const RULE: &str = "a fresh place holds nothing, and its marker moves with the rows";
    let mut sink = subject.sink(deliverer(1));
    let held = sink.fence().await.expect(RULE);
    let nothing = Held {
        marker: Some(Epoch(0)),
        begun: None,
    };
    assert_eq!(held, nothing, "{RULE}");
    let rows: &[&[Change]] = &[
        &[Change::Put(1, "a"), Change::Put(2, "b")],
        &[Change::Put(3, "c")],
    ];
    let applied = apply(&mut *sink, 0, 4, rows).await.expect(RULE);
    assert_eq!(applied.row_count, 3, "{RULE}");
    apply(&mut *sink, 4, 5, &[&[Change::Put(4, "ü \"'\n,")]])
        .await
        .expect(RULE);
    let mut next = subject.sink(deliverer(1));
    assert_eq!(fence(&mut *next).await, Epoch(5), "{RULE}");
    let wanted = [(1, "a"), (2, "b"), (3, "c"), (4, "ü \"'\n,")];
    expect_rows(subject, RULE, &wanted).await;
}

async fn a_replay_is_a_no_op(subject: &dyn Subject) {
    const RULE: &str = "a replay is a no-op";
    let mut sink = subject.sink(deliverer(1));
    fence(&mut *sink).await;
    let rows: &[&[Change]] = &[&[Change::Put(1, "a")]];
    for _ in 0..2 {
        apply(&mut *sink, 0, 1, rows).await.expect(RULE);
    }
    let mut next = subject.sink(deliverer(2));
    assert_eq!(fence(&mut *next).await, Epoch(1), "{RULE}");
    apply(&mut *next, 0, 1, rows).await.expect(RULE);
    expect_rows(subject, RULE, &[(1, "a")]).await;
}

async fn a_run_with_another_guard_is_refused_whole(subject: &dyn Subject) {
    const RULE: &str = "a run with another guard is refused whole";
    let mut sink = subject.sink(deliverer(1));
    fence(&mut *sink).await;
    apply(&mut *sink, 0, 3, &[&[Change::Put(1, "a")]])
        .await
        .expect(RULE);
    let refused = apply(&mut *sink, 2, 4, &[&[Change::Put(2, "b")]]).await;
    assert!(
        matches!(refused, Err(SinkError::MarkerMismatch { .. })),
        "{RULE}: {refused:?}"
    );
    assert_eq!(fence(&mut *sink).await, Epoch(3), "{RULE}");
    expect_rows(subject, RULE, &[(1, "a")]).await;
}

async fn an_older_deliverer_has_no_effect(subject: &dyn Subject) {
    const RULE: &str = "an older deliverer has no effect";
    let mut old = subject.sink(deliverer(7));
    fence(&mut *old).await;
    apply(&mut *old, 0, 1, &[&[Change::Put(1, "a")]])
        .await
        .expect(RULE);
    let mut new = subject.sink(deliverer(9));
    assert_eq!(fence(&mut *new).await, Epoch(1), "{RULE}");
    let refused = apply(&mut *old, 1, 2, &[&[Change::Put(2, "zombie")]]).await;
    assert!(
        matches!(refused, Err(SinkError::Fenced { .. })),
        "{RULE}: {refused:?}"
    );
    let refused = old.fence().await;
    assert!(
        matches!(refused, Err(SinkError::Fenced { newer: Token(9) })),
        "{RULE}: {refused:?}"
    );
    apply(&mut *new, 1, 2, &[&[Change::Put(2, "b")]])
        .await
        .expect(RULE);
    expect_rows(subject, RULE, &[(1, "a"), (2, "b")]).await;
}

async fn an_empty_run_moves_the_marker(subject: &dyn Subject) {
    const RULE: &str = "an empty run moves the marker";
    let mut sink = subject.sink(deliverer(1));
    fence(&mut *sink).await;
    let applied = apply(&mut *sink, 0, 2, &[]).await.expect(RULE);
    assert_eq!(applied, Applied::default(), "{RULE}");
    assert_eq!(fence(&mut *sink).await, Epoch(2), "{RULE}");
    apply(&mut *sink, 2, 3, &[&[Change::Put(1, "a")]])
        .await
        .expect(RULE);
    expect_rows(subject, RULE, &[(1, "a")]).await;
}

async fn runs_merged_are_as_runs_one_by_one(one_by_one: &dyn Subject, merged: &dyn Subject) {
    const RULE: &str = "runs merged are as runs one by one";
    let mut epochs: Vec<Vec<Change>> = vec![
        vec![Change::Put(1, "a"), Change::Put(2, "b")],
        vec![],
        vec![Change::Put(3, "c"), Change::PutNull(4)],
    ];
    if merged.is_keyed() {
        epochs.push(vec![
            Change::Put(1, "a2"),
            Change::Delete(2),
            Change::Put(5, "e"),
        ]);
        epochs.push(vec![
            Change::Put(2, "b2"),
            Change::Delete(3),
            Change::Delete(99),
        ]);
    }
    let mut sink = one_by_one.sink(deliverer(1));
    fence(&mut *sink).await;
    for (index, changes) in epochs.iter().enumerate() {
        let guard = index as u64;
        apply(&mut *sink, guard, guard + 1, &[changes])
            .await
            .expect(RULE);
    }
    let mut sink = merged.sink(deliverer(1));
    fence(&mut *sink).await;
    let all: Vec<&[Change]> = epochs.iter().map(Vec::as_slice).collect();
    apply(&mut *sink, 0, epochs.len() as u64, &all)
        .await
        .expect(RULE);
    let mut found = merged.read().await;
    let mut wanted = one_by_one.read().await;
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "{RULE}");
    assert!(found.contains(&(4, None)), "{RULE}: NULL stays NULL");
}

async fn lives_and_sinks_in_one_place_do_not_meet(subject: &dyn Subject) {
    const RULE: &str = "lives and sinks in one place do not meet";
    let first = deliverer(5);
    let next_life = Deliverer {
        incarnation: Incarnation(Uuid::from_u128(0x8765_4321)),
        ..deliverer(6)
    };
    let other_sink = Deliverer {
        sink: "other out/2".to_owned(),
        ..deliverer(1)
    };
    for (id, deliverer) in [first, next_life, other_sink].into_iter().enumerate() {
        let mut sink = subject.sink(deliverer);
        assert_eq!(fence(&mut *sink).await, Epoch(0), "{RULE}");
        let rows: &[&[Change]] = &[&[Change::Put(id as i64, "x")]];
        apply(&mut *sink, 0, 1, rows).await.expect(RULE);
    }
    expect_rows(subject, RULE, &[(0, "x"), (1, "x"), (2, "x")]).await;
}

async fn a_key_ends_as_its_last_change_says(subject: &dyn Subject) {
    const RULE: &str = "a key ends as its last change says";
    let mut sink = subject.sink(deliverer(1));
    fence(&mut *sink).await;
    let first: &[&[Change]] = &[
        &[
            Change::Put(1, "a"),
            Change::Put(2, "b"),
            Change::Put(1, "a2"),
        ],
        &[Change::Delete(2), Change::Put(3, "c"), Change::Put(1, "a3")],
    ];
    apply(&mut *sink, 0, 1, first).await.expect(RULE);
    expect_rows(subject, RULE, &[(1, "a3"), (3, "c")]).await;
    let second: &[&[Change]] = &[&[
        Change::Delete(1),
        Change::Delete(3),
        Change::Put(3, "c2"),
        Change::Delete(77),
    ]];
    apply(&mut *sink, 1, 2, second).await.expect(RULE);
    expect_rows(subject, RULE, &[(3, "c2")]).await;
}

/// Steps beyond this are a sink that never ends.
const STEPS_MAX: u64 = 2_000;

async fn a_crash_at_any_step_neither_loses_nor_doubles(subject: &dyn Subject) {
    const RULE: &str = "a crash at any step neither loses nor doubles";
    let mut wanted = Vec::new();
    for step in 1.. {
        assert!(step < STEPS_MAX, "{RULE}: apply never ends");
        let changes = [
            Change::Put(step as i64 * 2, "even"),
            Change::Put(step as i64 * 2 + 1, "odd"),
        ];
        wanted.extend([(step as i64 * 2, "even"), (step as i64 * 2 + 1, "odd")]);
        let (guard, last) = (step - 1, step);
        let mut first = subject.sink(deliverer(step * 2));
        assert_eq!(
            fence(&mut *first).await,
            Epoch(guard),
            "{RULE}: step {step}"
        );
        let batches: &[&[Change]] = &[&changes];
        let applying = apply(&mut *first, guard, last, batches);
        let is_done = Crashing::after(step, applying).await.is_some();
        drop(first);
        let mut second = subject.sink(deliverer(step * 2 + 1));
        let held = second.fence().await.expect(RULE);
        assert!(
            held.begun.is_none_or(|begun| begun == Epoch(last)),
            "{RULE}: step {step}: {held:?}"
        );
        match held.marker {
            Some(marker) if marker == Epoch(last) => {}
            Some(marker) if marker == Epoch(guard) && !is_done => {
                apply(&mut *second, guard, last, &[&changes])
                    .await
                    .expect(RULE);
            }
            marker => panic!("{RULE}: step {step}: marker {marker:?}"),
        }
        expect_rows(subject, RULE, &wanted).await;
        if is_done {
            return;
        }
    }
}

/// A future that is given up after some polls, as if its process had died there.
struct Crashing<F> {
    inner: Pin<Box<F>>,
    polls_left: u64,
}

impl<F: Future> Crashing<F> {
    fn after(polls: u64, inner: F) -> Self {
        Self {
            inner: Box::pin(inner),
            polls_left: polls,
        }
    }
}

impl<F: Future> Future for Crashing<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls_left -= 1;
        match self.inner.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.polls_left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
