//! What the tests of the pages are shown: views of jobs, and a master that answers with them.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use millstream_common::control::{
    CheckpointView, ControlError, DeadLetterView, JobState, JobView, LetterPage, LetterQuery,
    PlanBranchView, PlanOutputView, PlanSinkView, PlanStageView, PlanView, ReplayRequest, Replayed,
    RewindTerms, SavepointView, SinkCommand, SinkView, SourceView, SourceWatermarkView,
    SplitWatermarkView, StageView, StopMode, Stopped, SubmitRequest, Submitted, WatermarksView,
    WorkerState, WorkerView,
};
use millstream_common::ids::{Epoch, Generation, JobName, WorkerId};
use millstream_common::time::EventTime;

use crate::letters::listing::Listed;
use crate::preview::Previewed;
use crate::service::ControlBackend;

/// The master's time in all scenes: 2026-05-01 10:00:00 UTC.
pub(crate) const NOW_US: i64 = 1_777_629_600_000_000;

pub(crate) fn job(name: &str) -> JobView {
    JobView {
        name: name.into(),
        state: JobState::Running,
        incarnation: "life".to_owned(),
        generation: Generation(3),
        epoch: Epoch(1_204),
        watermark: Some(EventTime(NOW_US - 90_000_000)),
        rows_read: 5_000,
        rows_rejected: 12,
        rows_per_second: 2_012.7,
        lag_records: Some(1_204),
        sources: vec![source("clicks")],
        sinks: vec![sink("warehouse")],
        cause: None,
        restarts: 0,
        submitted_at_us: NOW_US - 1,
        last_recovery_ms: None,
        checkpoint_interval_ms: 1_000,
        storage: None,
        stages: vec![stage("clicks"), stage("page_views/aggregate/0")],
        rows_unaccounted: 0,
        rows_reread: 0,
        last_failure: None,
    }
}

fn stage(name: &str) -> StageView {
    StageView {
        name: name.to_owned(),
        received: 4_988,
        rows_per_second: 1_999.6,
        busy_share: 0.25,
        blocked_share: 0.43,
        ..StageView::default()
    }
}

fn source(name: &str) -> SourceView {
    SourceView {
        name: name.to_owned(),
        connector: "kafka".to_owned(),
        splits: 2,
        splits_ended: 0,
        rows_read: 5_000,
        rows_accepted: 4_988,
        rows_rejected: 12,
        rows_dropped: 0,
        watermark: Some(EventTime(NOW_US - 90_000_000)),
        gaps: Vec::new(),
    }
}

pub(crate) fn sink(name: &str) -> SinkView {
    SinkView {
        name: name.to_owned(),
        connector: "postgres".to_owned(),
        relation: "page_views".to_owned(),
        marker: Epoch(1_204),
        lag_epochs: 0,
        lag_rows: 0,
        lag_bytes: 0,
        lag_age_ms: None,
        paused: false,
        rows_delivered: 76,
        rows_refused: 0,
        rows_dropped: 0,
        suspended: false,
        retained_from: Epoch(0),
        quota: None,
        delivered_age_ms: Some(1_500),
        cause: None,
        worker: Some("worker-1".into()),
    }
}

pub(super) fn plan(name: &str) -> PlanView {
    let branch = |rows: &str, to_stage, to_output| PlanBranchView {
        rows: rows.to_owned(),
        steps: Vec::new(),
        to_stage,
        to_output,
    };
    PlanView {
        job: name.into(),
        sql: "CREATE SOURCE clicks (\n  url TEXT\n);".to_owned(),
        explained: "stage 0: source clicks\n".to_owned(),
        stages: vec![
            PlanStageView {
                name: "clicks".to_owned(),
                is_source: true,
                words: vec!["kafka topic clicks, json".to_owned()],
                sources: vec![0],
                branches: vec![
                    branch("rows", Some(1), None),
                    branch("dead letters", None, Some(1)),
                ],
            },
            PlanStageView {
                name: "page_views/aggregate/0".to_owned(),
                is_source: false,
                words: vec!["groups by url: count(*)".to_owned()],
                sources: vec![0],
                branches: vec![branch("final groups", None, Some(0))],
            },
        ],
        outputs: vec![output("page_views"), output("clicks.dead_letters")],
        sinks: vec![PlanSinkView {
            name: "warehouse".to_owned(),
            output: 0,
            words: "postgres table views, appended".to_owned(),
        }],
    }
}

fn output(relation: &str) -> PlanOutputView {
    PlanOutputView {
        relation: relation.to_owned(),
        emit: "each row once".to_owned(),
        waits_for_windows: relation == "page_views",
    }
}

pub(super) fn split(name: &str) -> SplitWatermarkView {
    SplitWatermarkView {
        split: name.into(),
        is_idle: false,
        watermark: Some(EventTime(NOW_US - 90_000_000)),
        position: 2_500,
        lag_records: Some(602),
        worker: Some("worker-1".into()),
        silent_ms: Some(400),
        idle_ms: None,
    }
}

pub(super) fn watermarks(name: &str, splits: Vec<SplitWatermarkView>) -> WatermarksView {
    WatermarksView {
        job: name.into(),
        state: JobState::Running,
        sources: vec![SourceWatermarkView {
            name: "clicks".to_owned(),
            connector: "kafka".to_owned(),
            keeps_time: true,
            watermark: Some(EventTime(NOW_US - 90_000_000)),
            delay_ms: Some(90_000),
            held_by: splits.first().map(|split| split.split.clone()),
            splits,
            splits_ended: 0,
            lag_records: Some(1_204),
        }],
        why: Vec::new(),
    }
}

pub(super) fn worker(name: &str) -> WorkerView {
    WorkerView {
        id: name.into(),
        state: WorkerState::Active,
        flight_address: "10.0.0.7:7080".to_owned(),
        slots: 2,
        tasks: 4,
        splits: 2,
        jobs: vec!["clicks".into()],
        age_ms: 192_000,
        heartbeat_age_ms: 120,
        version: "0.1.0".to_owned(),
    }
}

pub(super) fn epoch(number: u64) -> CheckpointView {
    CheckpointView {
        epoch: Epoch(number),
        parent: Epoch(number - 1),
        generation: Generation(3),
        watermark: None,
        rows_read: 2_000,
        segments: 2,
        segment_bytes: 1_536,
        state_parts: 1,
        state_bytes: 900,
        duration_ms: Some(60),
        collect_ms: Some(50),
        commit_ms: Some(10),
        deliver_ms: Some(40),
    }
}

pub(super) fn letter(number: i64) -> DeadLetterView {
    DeadLetterView {
        source: "clicks".to_owned(),
        origin: "clicks-0".to_owned(),
        position: number,
        payload: Some("{\"url\": 7}".to_owned()),
        payload_bytes: None,
        code: "type_mismatch".to_owned(),
        reason: "url: a number is no text".to_owned(),
        event_time_us: None,
        received_at_us: NOW_US,
        epoch: Epoch(7),
        is_cut: false,
    }
}

/// A master that knows one job, `clicks`, with as many dead letters as are asked for; or one that stands by.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) active: Option<&'static str>,
}

impl Shown {
    fn reigns(&self) -> Result<(), ControlError> {
        match self.active {
            None => Ok(()),
            Some(active) => Err(ControlError::Unavailable {
                cause: "it stands by".to_owned(),
                active: Some(active.to_owned()),
            }),
        }
    }
}

fn never<T>() -> Result<T, ControlError> {
    Err(ControlError::Internal(
        "the dashboard changes nothing".to_owned(),
    ))
}

#[async_trait]
impl ControlBackend for Shown {
    async fn submit(&self, _: SubmitRequest) -> Result<Submitted, ControlError> {
        never()
    }

    async fn stop(&self, _: &JobName, _: StopMode) -> Result<Stopped, ControlError> {
        never()
    }

    async fn get(&self, name: &JobName) -> Result<JobView, ControlError> {
        self.reigns()?;
        match name.as_str() {
            "clicks" => Ok(job("clicks")),
            _ => Err(ControlError::NotFound {
                name: name.to_string(),
                nearest: Some("clicks".to_owned()),
            }),
        }
    }

    async fn command_sink(
        &self,
        _: &JobName,
        _: &str,
        _: SinkCommand,
    ) -> Result<SinkView, ControlError> {
        never()
    }

    async fn rewind_sink(
        &self,
        _: &JobName,
        _: &str,
        _: RewindTerms,
    ) -> Result<SinkView, ControlError> {
        never()
    }

    async fn list(&self) -> Result<Vec<JobView>, ControlError> {
        self.reigns()?;
        Ok(vec![job("clicks")])
    }

    async fn workers(&self) -> Result<Vec<WorkerView>, ControlError> {
        self.reigns()?;
        Ok(vec![worker("worker-1")])
    }

    async fn watermarks(&self, name: &JobName) -> Result<WatermarksView, ControlError> {
        Ok(watermarks(name.as_str(), vec![split("clicks-0")]))
    }

    async fn plan(&self, name: &JobName) -> Result<PlanView, ControlError> {
        Ok(plan(name.as_str()))
    }

    fn dashboard_of_active(&self) -> Option<String> {
        self.active.map(|_| "one:7071".to_owned())
    }

    async fn create_savepoint(
        &self,
        _: &JobName,
        _: Option<String>,
    ) -> Result<SavepointView, ControlError> {
        never()
    }

    async fn savepoints(&self, _: &JobName) -> Result<Vec<SavepointView>, ControlError> {
        never()
    }

    async fn drop_savepoint(&self, _: &JobName, _: &str) -> Result<SavepointView, ControlError> {
        never()
    }

    async fn drain_worker(&self, _: &WorkerId) -> Result<WorkerView, ControlError> {
        never()
    }

    async fn checkpoints(
        &self,
        _: &JobName,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, ControlError> {
        Ok((1..=limit as u64).rev().map(epoch).collect())
    }

    async fn dead_letters(&self, _: &JobName, query: LetterQuery) -> Result<Listed, ControlError> {
        let parts = (0..query.limit as i64).map(|number| {
            Ok(LetterPage {
                letters: vec![letter(number)],
                totals: None,
            })
        });
        Ok(stream::iter(parts).boxed())
    }

    async fn preview(&self, _: &JobName, _: &str) -> Result<Previewed, ControlError> {
        never()
    }

    async fn replay(&self, _: &JobName, _: ReplayRequest) -> Result<Replayed, ControlError> {
        never()
    }
}
