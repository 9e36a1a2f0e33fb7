//! Views to and from generated messages, field by field. Empty texts on the wire are `None` here.

use millstream_proto::v1;

use super::Malformed;
use crate::control::{
    BranchView, CheckpointView, FromCheckpoint, GapView, JobState, JobView, LastFailure, QuotaView,
    SinkView, SourceView, StageView, StopMode, Stopped, StorageUse, SubmitRequest, Submitted,
};
use crate::ids::{Epoch, Generation, JobName, WorkerId};
use crate::plan::{OnQuota, SinkQuota};
use crate::time::EventTime;

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl From<SubmitRequest> for v1::SubmitJobRequest {
    fn from(request: SubmitRequest) -> Self {
        Self {
            name: request.name.0,
            sql: request.sql,
            file: request.file,
            fresh: request.fresh,
            allow_dropped_state: request.from.as_ref().is_some_and(|from| from.may_drop),
            from_checkpoint: request.from.map(|from| from.checkpoint).unwrap_or_default(),
            submission_id: request.id.unwrap_or_default(),
        }
    }
}

impl From<v1::SubmitJobRequest> for SubmitRequest {
    fn from(request: v1::SubmitJobRequest) -> Self {
        Self {
            name: JobName(request.name),
            sql: request.sql,
            file: request.file,
            fresh: request.fresh,
            from: some(request.from_checkpoint).map(|checkpoint| FromCheckpoint {
                checkpoint,
                may_drop: request.allow_dropped_state,
            }),
            id: some(request.submission_id),
        }
    }
}

impl From<Submitted> for v1::SubmitJobResponse {
    fn from(submitted: Submitted) -> Self {
        Self {
            job: Some(submitted.job.into()),
            resumed_from_epoch: submitted.resumed_from.unwrap_or_default().0,
            unchanged: submitted.unchanged,
            warnings: submitted.warnings.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::SubmitJobResponse> for Submitted {
    type Error = Malformed;

    fn try_from(response: v1::SubmitJobResponse) -> Result<Self, Malformed> {
        Ok(Self {
            job: job(response.job)?,
            resumed_from: Some(Epoch(response.resumed_from_epoch))
                .filter(|epoch| *epoch != Epoch::default()),
            unchanged: response.unchanged,
            warnings: response.warnings.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<StopMode> for v1::StopMode {
    fn from(mode: StopMode) -> Self {
        match mode {
            StopMode::Stop => Self::Stop,
            StopMode::Drain => Self::Drain,
        }
    }
}

impl From<v1::StopMode> for StopMode {
    fn from(mode: v1::StopMode) -> Self {
        match mode {
            v1::StopMode::Unspecified | v1::StopMode::Stop => Self::Stop,
            v1::StopMode::Drain => Self::Drain,
        }
    }
}

impl From<Stopped> for v1::StopJobResponse {
    fn from(stopped: Stopped) -> Self {
        Self {
            job: Some(stopped.job.into()),
            lagging_sinks: stopped.lagging_sinks,
        }
    }
}

impl TryFrom<v1::StopJobResponse> for Stopped {
    type Error = Malformed;

    fn try_from(response: v1::StopJobResponse) -> Result<Self, Malformed> {
        Ok(Self {
            job: job(response.job)?,
            lagging_sinks: response.lagging_sinks,
        })
    }
}

/// The job of an answer that must have one.
pub(crate) fn job(job: Option<v1::Job>) -> Result<JobView, Malformed> {
    job.ok_or(Malformed("it holds no job"))?.try_into()
}

impl From<JobState> for v1::JobState {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Waiting => Self::Waiting,
            JobState::Deploying => Self::Deploying,
            JobState::Running => Self::Running,
            JobState::Recovering => Self::Recovering,
            JobState::Stopping => Self::Stopping,
            JobState::Stopped => Self::Stopped,
            JobState::Finished => Self::Finished,
            JobState::Failed => Self::Failed,
        }
    }
}

impl TryFrom<v1::JobState> for JobState {
    type Error = Malformed;

    fn try_from(state: v1::JobState) -> Result<Self, Malformed> {
        Ok(match state {
            v1::JobState::Unspecified => return Err(Malformed("a job is in no state")),
            v1::JobState::Waiting => Self::Waiting,
            v1::JobState::Deploying => Self::Deploying,
            v1::JobState::Running => Self::Running,
            v1::JobState::Recovering => Self::Recovering,
            v1::JobState::Stopping => Self::Stopping,
            v1::JobState::Stopped => Self::Stopped,
            v1::JobState::Finished => Self::Finished,
            v1::JobState::Failed => Self::Failed,
        })
    }
}

impl From<JobView> for v1::Job {
    fn from(job: JobView) -> Self {
        Self {
            name: job.name.0,
            state: v1::JobState::from(job.state).into(),
            incarnation: job.incarnation,
            generation: job.generation.0,
            epoch: job.epoch.0,
            watermark_us: job.watermark.map(|time| time.0),
            rows_read: job.rows_read,
            rows_rejected: job.rows_rejected,
            rows_per_second: job.rows_per_second,
            lag_records: job.lag_records,
            sinks: job.sinks.into_iter().map(v1::Sink::from).collect(),
            sources: job.sources.into_iter().map(v1::Source::from).collect(),
            cause: job.cause.unwrap_or_default(),
            restarts: job.restarts,
            submitted_at_us: job.submitted_at_us,
            last_recovery_ms: job.last_recovery_ms,
            checkpoint_interval_ms: job.checkpoint_interval_ms,
            storage: job.storage.map(|storage| v1::StorageUse {
                log_bytes: storage.log_bytes,
                state_bytes: storage.state_bytes,
                segment_bytes: storage.segment_bytes,
                dead_letter_bytes: storage.dead_letter_bytes,
                dead_letters_dropped: storage.dead_letters_dropped,
            }),
            stages: job.stages.into_iter().map(v1::Stage::from).collect(),
            rows_unaccounted: job.rows_unaccounted,
            rows_reread: job.rows_reread,
            last_failure: job.last_failure.map(|failure| v1::LastFailure {
                cause: failure.cause,
                age_ms: failure.age_ms,
            }),
        }
    }
}

impl TryFrom<v1::Job> for JobView {
    type Error = Malformed;

    fn try_from(job: v1::Job) -> Result<Self, Malformed> {
        Ok(Self {
            state: job.state().try_into()?,
            name: JobName(job.name),
            incarnation: job.incarnation,
            generation: Generation(job.generation),
            epoch: Epoch(job.epoch),
            watermark: job.watermark_us.map(EventTime),
            rows_read: job.rows_read,
            rows_rejected: job.rows_rejected,
            rows_per_second: job.rows_per_second,
            lag_records: job.lag_records,
            sources: job.sources.into_iter().map(SourceView::from).collect(),
            sinks: job.sinks.into_iter().map(SinkView::from).collect(),
            cause: some(job.cause),
            restarts: job.restarts,
            submitted_at_us: job.submitted_at_us,
            last_recovery_ms: job.last_recovery_ms,
            checkpoint_interval_ms: job.checkpoint_interval_ms,
            storage: job.storage.map(|storage| StorageUse {
                log_bytes: storage.log_bytes,
                state_bytes: storage.state_bytes,
                segment_bytes: storage.segment_bytes,
                dead_letter_bytes: storage.dead_letter_bytes,
                dead_letters_dropped: storage.dead_letters_dropped,
            }),
            stages: job.stages.into_iter().map(StageView::from).collect(),
            rows_unaccounted: job.rows_unaccounted,
            rows_reread: job.rows_reread,
            last_failure: job.last_failure.map(|failure| LastFailure {
                cause: failure.cause,
                age_ms: failure.age_ms,
            }),
        })
    }
}

impl From<SourceView> for v1::Source {
    fn from(source: SourceView) -> Self {
        Self {
            name: source.name,
            connector: source.connector,
            splits: source.splits,
            splits_ended: source.splits_ended,
            rows_read: source.rows_read,
            rows_rejected: source.rows_rejected,
            rows_accepted: source.rows_accepted,
            rows_dropped: source.rows_dropped,
            watermark_us: source.watermark.map(|time| time.0),
            gaps: source.gaps.into_iter().map(v1::Gap::from).collect(),
        }
    }
}

impl From<GapView> for v1::Gap {
    fn from(gap: GapView) -> Self {
        Self {
            split: gap.split,
            count: gap.count,
            positions: gap.positions,
            from: gap.from,
            to: gap.to,
        }
    }
}

impl From<v1::Gap> for GapView {
    fn from(gap: v1::Gap) -> Self {
        Self {
            split: gap.split,
            count: gap.count,
            positions: gap.positions,
            from: gap.from,
            to: gap.to,
        }
    }
}

impl From<v1::Source> for SourceView {
    fn from(source: v1::Source) -> Self {
        Self {
            name: source.name,
            connector: source.connector,
            splits: source.splits,
            splits_ended: source.splits_ended,
            rows_read: source.rows_read,
            rows_rejected: source.rows_rejected,
            rows_accepted: source.rows_accepted,
            rows_dropped: source.rows_dropped,
            watermark: source.watermark_us.map(EventTime),
            gaps: source.gaps.into_iter().map(GapView::from).collect(),
        }
    }
}

impl From<StageView> for v1::Stage {
    fn from(stage: StageView) -> Self {
        Self {
            name: stage.name,
            received: stage.received,
            late: stage.late,
            duplicates: stage.duplicates,
            folded: stage.folded,
            failed: stage.failed,
            dropped: stage.dropped,
            branches: stage.branches.into_iter().map(v1::Branch::from).collect(),
            rows_per_second: stage.rows_per_second,
            busy_share: stage.busy_share,
            blocked_share: stage.blocked_share,
        }
    }
}

impl From<v1::Stage> for StageView {
    fn from(stage: v1::Stage) -> Self {
        Self {
            name: stage.name,
            received: stage.received,
            late: stage.late,
            duplicates: stage.duplicates,
            folded: stage.folded,
            failed: stage.failed,
            dropped: stage.dropped,
            branches: stage.branches.into_iter().map(BranchView::from).collect(),
            rows_per_second: stage.rows_per_second,
            busy_share: stage.busy_share,
            blocked_share: stage.blocked_share,
        }
    }
}

impl From<BranchView> for v1::Branch {
    fn from(branch: BranchView) -> Self {
        Self {
            to: branch.to,
            given: branch.given,
            late: branch.late,
            filtered: branch.filtered,
            failed: branch.failed,
            sent: branch.sent,
        }
    }
}

impl From<v1::Branch> for BranchView {
    fn from(branch: v1::Branch) -> Self {
        Self {
            to: branch.to,
            given: branch.given,
            late: branch.late,
            filtered: branch.filtered,
            failed: branch.failed,
            sent: branch.sent,
        }
    }
}

impl From<SinkView> for v1::Sink {
    fn from(sink: SinkView) -> Self {
        Self {
            name: sink.name,
            connector: sink.connector,
            relation: sink.relation,
            marker: sink.marker.0,
            lag_epochs: sink.lag_epochs,
            lag_rows: sink.lag_rows,
            lag_bytes: sink.lag_bytes,
            lag_age_ms: sink.lag_age_ms,
            paused: sink.paused,
            retained_from: sink.retained_from.0,
            suspended: sink.suspended,
            quota: sink.quota.map(v1::SinkQuota::from),
            rows_delivered: sink.rows_delivered,
            rows_refused: sink.rows_refused,
            delivered_age_ms: sink.delivered_age_ms,
            rows_dropped: sink.rows_dropped,
            cause: sink.cause.unwrap_or_default(),
            worker: sink.worker.map(|worker| worker.0).unwrap_or_default(),
        }
    }
}

impl From<v1::Sink> for SinkView {
    fn from(sink: v1::Sink) -> Self {
        Self {
            name: sink.name,
            connector: sink.connector,
            relation: sink.relation,
            marker: Epoch(sink.marker),
            lag_epochs: sink.lag_epochs,
            lag_rows: sink.lag_rows,
            lag_bytes: sink.lag_bytes,
            lag_age_ms: sink.lag_age_ms,
            paused: sink.paused,
            retained_from: Epoch(sink.retained_from),
            suspended: sink.suspended,
            quota: sink.quota.map(QuotaView::from),
            rows_delivered: sink.rows_delivered,
            rows_refused: sink.rows_refused,
            delivered_age_ms: sink.delivered_age_ms,
            rows_dropped: sink.rows_dropped,
            cause: some(sink.cause),
            worker: some(sink.worker).map(WorkerId),
        }
    }
}

impl From<QuotaView> for v1::SinkQuota {
    fn from(view: QuotaView) -> Self {
        let policy = match view.quota.policy {
            OnQuota::Warn => v1::OnQuota::Warn,
            OnQuota::Backpressure => v1::OnQuota::Backpressure,
            OnQuota::Suspend => v1::OnQuota::Suspend,
        };
        Self {
            bytes: view.quota.bytes,
            age_ms: view.quota.age_ms,
            policy: policy.into(),
            used: view.used,
        }
    }
}

impl From<v1::SinkQuota> for QuotaView {
    fn from(quota: v1::SinkQuota) -> Self {
        let policy = match quota.policy() {
            v1::OnQuota::Unspecified | v1::OnQuota::Warn => OnQuota::Warn,
            v1::OnQuota::Backpressure => OnQuota::Backpressure,
            v1::OnQuota::Suspend => OnQuota::Suspend,
        };
        Self {
            quota: SinkQuota {
                bytes: quota.bytes,
                age_ms: quota.age_ms,
                policy,
            },
            used: quota.used,
        }
    }
}

impl From<CheckpointView> for v1::Checkpoint {
    fn from(checkpoint: CheckpointView) -> Self {
        Self {
            epoch: checkpoint.epoch.0,
            parent: checkpoint.parent.0,
            generation: checkpoint.generation.0,
            watermark_us: checkpoint.watermark.map(|time| time.0),
            rows_read: checkpoint.rows_read,
            segments: checkpoint.segments,
            segment_bytes: checkpoint.segment_bytes,
            state_parts: checkpoint.state_parts,
            state_bytes: checkpoint.state_bytes,
            duration_ms: checkpoint.duration_ms.unwrap_or_default(),
            collect_ms: checkpoint.collect_ms,
            commit_ms: checkpoint.commit_ms,
            deliver_ms: checkpoint.deliver_ms,
        }
    }
}

impl From<v1::Checkpoint> for CheckpointView {
    fn from(checkpoint: v1::Checkpoint) -> Self {
        Self {
            epoch: Epoch(checkpoint.epoch),
            parent: Epoch(checkpoint.parent),
            generation: Generation(checkpoint.generation),
            watermark: checkpoint.watermark_us.map(EventTime),
            rows_read: checkpoint.rows_read,
            segments: checkpoint.segments,
            segment_bytes: checkpoint.segment_bytes,
            state_parts: checkpoint.state_parts,
            state_bytes: checkpoint.state_bytes,
            duration_ms: Some(checkpoint.duration_ms).filter(|duration| *duration != 0),
            collect_ms: checkpoint.collect_ms,
            commit_ms: checkpoint.commit_ms,
            deliver_ms: checkpoint.deliver_ms,
        }
    }
}
