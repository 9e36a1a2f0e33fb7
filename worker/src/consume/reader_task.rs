//! The loop of one reader: takes events from its client and hands them to the branches of its stage.
//!
//! Run as the one task of `reader_actor.rs`, because it waits for input and for credit, and an actor that waits cannot hear. Owns the client
//! and the branches. Commands come over a bounded channel; barriers go through the client, so that they stand exactly behind the rows that were read before
//! them (INV-5). Failure: returned, and told to the pipeline by the actor.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_common::dead_letter::Code;
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{SourceIndex, SplitId, TaskId};
use millstream_common::link::BarrierCommand;
use millstream_common::plan::{OnViolation, Port};
use millstream_common::replay_split::is_replay_origin;
use millstream_common::report::{RowCounters, SplitProgress, SplitStart, StageFlow};
use millstream_common::time::ClockRef;
use millstream_common::trace::TraceContext;
use ractor::ActorRef;
use tokio::sync::mpsc;

use super::{ConsumeError, CutRequest, DecodedRows, SourceCut, SourceEvent, SourceReader};
use crate::branch::Branches;
use crate::failed_rows;
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::pipeline::report::TaskReport;
use crate::work::{LINKS_MAX, Step, Stretch, TaskWork};

/// What a reader's loop is told.
#[derive(Debug)]
pub enum ReaderCommand {
    /// Begin to read more splits.
    AddSplits(Vec<SplitStart>),
    /// Cut the stream.
    Barrier(BarrierCommand),
    /// These positions are in the log.
    Committed(BTreeMap<SplitId, SplitProgress>),
}

/// What a reader's loop works with.
pub struct ReaderTask {
    /// The task.
    pub task: TaskId,
    /// For texts.
    pub name: String,
    /// Its source.
    pub source: SourceIndex,
    /// What becomes of rows on which an expression fails.
    pub on_violation: OnViolation,
    /// The client.
    pub reader: Box<dyn SourceReader>,
    /// Where rows go.
    pub branches: Branches,
    /// For the time of dead letters.
    pub clock: ClockRef,
    /// Counts the rows that the readers of the pipeline hand on, for who has to know what is read again.
    pub rows_read: Arc<AtomicU64>,
    /// Who is told of cuts.
    pub pipeline: ActorRef<PipelineMessage>,
}

impl ReaderTask {
    /// Runs until the commands end or something fails.
    pub async fn run(mut self, mut commands: mpsc::Receiver<ReaderCommand>) -> Result<(), Failure> {
        let mut barriers = VecDeque::new();
        let mut read = ReadSoFar::default();
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => return Ok(()),
                    Some(command) => self.command(command, &mut barriers),
                },
                event = self.reader.next() => match event.map_err(failure_of)? {
                    SourceEvent::Rows(rows) => {
                        let begun = self.clock.monotonic();
                        self.rows_read.fetch_add(rows.counters.read, Ordering::Relaxed);
                        read.add(&rows, begun);
                        self.rows(rows, &mut read.flow).await?;
                        read.handled += self.clock.monotonic().saturating_sub(begun);
                    }
                    SourceEvent::Cut(cut) => {
                        let barrier = barriers.pop_front();
                        self.cut(cut, barrier, std::mem::take(&mut read)).await?;
                    }
                },
            }
        }
    }

    fn command(&mut self, command: ReaderCommand, barriers: &mut VecDeque<BarrierCommand>) {
        match command {
            ReaderCommand::AddSplits(splits) => self.reader.add_splits(splits),
            ReaderCommand::Committed(positions) => self.reader.committed(&positions),
            ReaderCommand::Barrier(barrier) => {
                self.reader.cut(CutRequest {
                    epoch: barrier.epoch,
                    watermark: barrier.watermarks.get(&self.source).copied(),
                    stop: !barrier.kind.reads_on(),
                });
                barriers.push_back(barrier);
            }
        }
    }

    async fn rows(&mut self, rows: DecodedRows, flow: &mut StageFlow) -> Result<(), Failure> {
        flow.received += rows.batch.num_rows() as u64;
        let late = rows.late.as_ref();
        flow.late += late.map_or(0, |late| late.true_count() as u64);
        let mut failed = self.branches.send(Port::Rows, &rows.batch, late).await?;
        // A late row is among the rejects already, and a row is one dead letter.
        failed.retain(|failed| !late.is_some_and(|late| late.value(failed.row)));
        if let Some(rejects) = &rows.rejects {
            self.branches.send(Port::DeadLetters, rejects, None).await?;
        }
        let Some(first) = failed.first() else {
            return Ok(());
        };
        let on_violation = match self.on_violation {
            // The job would read it again whenever it went on.
            OnViolation::Fail if is_replay_origin(rows.places.of_row(first.row).0) => {
                OnViolation::DeadLetter
            }
            chosen => chosen,
        };
        match on_violation {
            OnViolation::Drop => {
                flow.dropped += failed.len() as u64;
                Ok(())
            }
            OnViolation::Fail => Err(Failure {
                kind: Kind::User,
                origin: self.name.clone(),
                cause: first.reason.clone(),
            }),
            OnViolation::DeadLetter => {
                flow.failed += failed.len() as u64;
                let received_at_us = self.clock.unix_micros();
                let place_of = |row| rows.places.of_row(row);
                let letters = failed_rows::dead_letters(
                    &self.name,
                    place_of,
                    &rows.batch,
                    &failed,
                    received_at_us,
                )
                .map_err(|error| Failure::new(Kind::Internal, &self.name, &error))?;
                self.branches
                    .send(Port::DeadLetters, &letters, None)
                    .await
                    .map(drop)
            }
        }
    }

    async fn cut(
        &mut self,
        cut: SourceCut,
        barrier: Option<BarrierCommand>,
        mut read: ReadSoFar,
    ) -> Result<(), Failure> {
        let Some(barrier) = barrier.filter(|barrier| barrier.epoch == cut.epoch) else {
            return Err(Failure {
                kind: Kind::Internal,
                origin: self.name.clone(),
                cause: format!(
                    "the reader cut at epoch {}, which nobody asked for",
                    cut.epoch
                ),
            });
        };
        self.branches.send_barrier(&barrier).await?;
        read.flow.branches = self.branches.take_flows();
        let mut work = read.work();
        self.branches.take_work(&mut work);
        let report = TaskReport::Read {
            task: self.task,
            source: self.source,
            epoch: cut.epoch,
            splits: cut.splits,
            counters: read.counters,
            flow: read.flow,
            lags: self.reader.lags(),
            rejects: read.rejects,
            trouble: self.reader.trouble(),
            work,
        };
        // A pipeline that has ended needs no report.
        let _ = self.pipeline.cast(PipelineMessage::Reported(report));
        Ok(())
    }
}

/// What was read since the last barrier.
#[derive(Default)]
struct ReadSoFar {
    counters: RowCounters,
    flow: StageFlow,
    rejects: BTreeMap<Code, u64>,
    consumed: Stretch,
    decoded: Stretch,
    links: Vec<TraceContext>,
    /// Spent on decoded rows.
    handled: Duration,
}

impl ReadSoFar {
    /// Takes note of a batch that came at monotonic time `now`.
    fn add(&mut self, rows: &DecodedRows, now: Duration) {
        let (counters, decoded) = (&rows.counters, rows.decoded);
        let room = LINKS_MAX - self.links.len();
        self.links.extend(rows.links.iter().take(room));
        self.counters.add(counters);
        for (code, count) in &rows.codes {
            *self.rejects.entry(*code).or_default() += count;
        }
        self.consumed
            .add_rows(decoded.begun, now, counters.read, counters.bytes);
        let (begun, ended) = (decoded.begun, decoded.ended);
        self.decoded
            .add_rows(begun, ended, counters.read, counters.bytes);
    }

    fn work(&self) -> TaskWork {
        let mut work = TaskWork {
            busy: self.decoded.busy + self.handled,
            links: self.links.clone(),
            ..TaskWork::default()
        };
        work.step(Step::Consume, self.consumed);
        work.step(Step::Decode, self.decoded);
        work
    }
}

fn failure_of(error: ConsumeError) -> Failure {
    Failure::new(error.kind, "read", &error)
}
