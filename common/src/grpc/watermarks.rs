//! Watermarks to and from generated messages, field by field.

use millstream_proto::v1;

use super::Malformed;
use crate::control::{SourceWatermarkView, SplitWatermarkView, WatermarksView};
use crate::ids::{JobName, SplitId, WorkerId};
use crate::time::EventTime;

impl From<WatermarksView> for v1::GetWatermarksResponse {
    fn from(view: WatermarksView) -> Self {
        Self {
            job: view.job.0,
            state: v1::JobState::from(view.state).into(),
            sources: view.sources.into_iter().map(Into::into).collect(),
            why: view.why,
        }
    }
}

impl TryFrom<v1::GetWatermarksResponse> for WatermarksView {
    type Error = Malformed;

    fn try_from(response: v1::GetWatermarksResponse) -> Result<Self, Malformed> {
        Ok(Self {
            state: response.state().try_into()?,
            job: JobName(response.job),
            sources: response.sources.into_iter().map(Into::into).collect(),
            why: response.why,
        })
    }
}

impl From<SourceWatermarkView> for v1::SourceWatermark {
    fn from(source: SourceWatermarkView) -> Self {
        Self {
            name: source.name,
            keeps_time: source.keeps_time,
            watermark_us: source.watermark.map(|time| time.0),
            delay_ms: source.delay_ms,
            held_by: source.held_by.map(|split| split.0).unwrap_or_default(),
            splits: source.splits.into_iter().map(Into::into).collect(),
            splits_ended: source.splits_ended,
            connector: source.connector,
            lag_records: source.lag_records,
        }
    }
}

impl From<v1::SourceWatermark> for SourceWatermarkView {
    fn from(source: v1::SourceWatermark) -> Self {
        let held_by = Some(source.held_by).filter(|split| !split.is_empty());
        Self {
            name: source.name,
            keeps_time: source.keeps_time,
            watermark: source.watermark_us.map(EventTime),
            delay_ms: source.delay_ms,
            held_by: held_by.map(SplitId),
            splits: source.splits.into_iter().map(Into::into).collect(),
            splits_ended: source.splits_ended,
            connector: source.connector,
            lag_records: source.lag_records,
        }
    }
}

impl From<SplitWatermarkView> for v1::SplitWatermark {
    fn from(split: SplitWatermarkView) -> Self {
        Self {
            split: split.split.0,
            is_idle: split.is_idle,
            watermark_us: split.watermark.map(|time| time.0),
            position: split.position,
            lag_records: split.lag_records,
            worker: split.worker.map(|worker| worker.0).unwrap_or_default(),
            silent_ms: split.silent_ms,
            idle_ms: split.idle_ms,
        }
    }
}

impl From<v1::SplitWatermark> for SplitWatermarkView {
    fn from(split: v1::SplitWatermark) -> Self {
        let worker = Some(split.worker).filter(|worker| !worker.is_empty());
        Self {
            split: SplitId(split.split),
            is_idle: split.is_idle,
            watermark: split.watermark_us.map(EventTime),
            position: split.position,
            lag_records: split.lag_records,
            worker: worker.map(WorkerId),
            silent_ms: split.silent_ms,
            idle_ms: split.idle_ms,
        }
    }
}
