//! A master's answers to probes: whether it reigns or stands by, and the figures of all jobs.
//!
//! Asked over HTTP. Gathers what the actors know when somebody scrapes, and keeps nothing. One that stands by has only figures of
//! itself. Failure: a job whose actor does not answer is left out of that scrape.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures::future::join_all;
use millstream_common::control::{JobView, SinkView, WorkerState};
use millstream_common::http::Probes;
use millstream_common::metrics::{Exposition, catalogue as metric};
use millstream_common::time::{ClockRef, EventTime};
use millstream_common::trace::TracerRef;
use ractor::{call, call_t};

use crate::job::figures::{JobFigures, SourceFigures};
use crate::job::job_actor::JobMessage;
use crate::reign::role::{Active, Role, Roles};
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// A job that has not answered by then is left out: a scrape must not wait for the slowest.
const ANSWER_MS_MAX: u64 = 2_000;

/// What is behind a master's probes.
pub(crate) struct MasterProbes {
    pub(crate) roles: Roles,
    pub(crate) clock: ClockRef,
    pub(crate) tracer: TracerRef,
}

#[async_trait]
impl Probes for MasterProbes {
    fn ready(&self) -> Result<String, String> {
        match &*self.roles.0.borrow() {
            Role::Active(active) => Ok(format!("active, term {}", active.term)),
            // Told to everybody, and so not where.
            Role::Standby {
                active: Some(_), ..
            } => Ok("stands by; another reigns".to_owned()),
            Role::Standby { active: None, .. } => Err("no master reigns yet".to_owned()),
        }
    }

    async fn metrics(&self) -> Exposition {
        let mut to = Exposition::of_process("master");
        to.spans(self.tracer.as_ref());
        let active = self.roles.active().ok();
        to.count(&metric::MASTER_ACTIVE, &[], u64::from(active.is_some()));
        if let Some(active) = active {
            self.reigning(&active, &mut to).await;
        }
        to
    }
}

impl MasterProbes {
    async fn reigning(&self, active: &Active, to: &mut Exposition) {
        to.count(&metric::MASTER_TERM, &[], active.term.0);
        let supervisor = &active.supervisor;
        if let Ok(workers) = call!(supervisor, SupervisorMessage::AllWorkers) {
            for state in [
                WorkerState::Active,
                WorkerState::Draining,
                WorkerState::Drained,
            ] {
                let count = workers.iter().filter(|worker| worker.state == state);
                to.count(
                    &metric::WORKERS,
                    &[&state.to_string()],
                    count.count() as u64,
                );
            }
        }
        let Ok(jobs) = call!(supervisor, SupervisorMessage::AllJobs) else {
            return;
        };
        let asked = jobs
            .into_iter()
            .map(|job| async move { call_t!(job, JobMessage::Figures, ANSWER_MS_MAX) });
        let now = EventTime(self.clock.unix_micros());
        let mut log_bytes = None;
        for figures in join_all(asked).await.into_iter().flatten() {
            log_bytes = log_bytes.max(figures.view.storage.map(|storage| storage.log_bytes));
            job(&figures, now, to);
        }
        to.set_known(&metric::LOG_BYTES, &[], log_bytes.map(|bytes| bytes as f64));
    }
}

fn job(figures: &JobFigures, now: EventTime, to: &mut Exposition) {
    let view = &figures.view;
    let name = view.name.as_str();
    to.count(&metric::JOB_STATE, &[name, &view.state.to_string()], 1);
    to.count(&metric::JOB_EPOCH, &[name], view.epoch.0);
    to.count(&metric::JOB_GENERATION, &[name], view.generation.0);
    to.count(&metric::JOB_RESTARTS, &[name], view.restarts.into());
    let recovery = view.last_recovery_ms.map(|took| took as f64 / 1e3);
    to.set_known(&metric::JOB_RECOVERY, &[name], recovery);
    to.count(&metric::JOB_UNACCOUNTED, &[name], view.rows_unaccounted);
    to.count(&metric::JOB_REREAD, &[name], view.rows_reread);
    to.count(&metric::STATE_BYTES, &[name], figures.state_bytes);
    to.count(&metric::STATE_PARTS, &[name], figures.state_parts);
    to.count(&metric::EPOCHS, &[name], figures.epoch_count);
    let age = figures.epoch_age.map(|age| age.as_secs_f64());
    to.set_known(&metric::EPOCH_AGE, &[name], age);
    let phases = &figures.phases;
    for (phase, durations) in [
        ("collect", &phases.collect),
        ("commit", &phases.commit),
        ("total", &phases.total),
    ] {
        to.histogram(&metric::EPOCH_DURATION, &[name, phase], durations);
    }
    for (index, of_source) in figures.sources.iter().enumerate() {
        source(view, index, of_source, now, to);
    }
    stages(figures, to);
    rejects(figures, to);
    for each in &view.sinks {
        sink(name, each, view.state.is_over(), to);
    }
    storage(view, to);
}

fn source(
    job: &JobView,
    index: usize,
    figures: &SourceFigures,
    now: EventTime,
    to: &mut Exposition,
) {
    let view = &job.sources[index];
    let labels = [job.name.as_str(), view.name.as_str()];
    let [name, source] = labels;
    for (outcome, rows) in [
        ("accepted", view.rows_accepted),
        ("rejected", view.rows_rejected),
        ("dropped", view.rows_dropped),
    ] {
        to.count(&metric::SOURCE_ROWS, &[name, source, outcome], rows);
    }
    to.count(&metric::SOURCE_BYTES, &labels, figures.bytes_read);
    let statuses = ["expected", "active", "idle", "ended"];
    for (status, count) in statuses.iter().zip(figures.splits) {
        to.count(&metric::SOURCE_SPLITS, &[name, source, status], count);
    }
    if figures.keeps_time && !job.state.is_over() {
        let is_without = u64::from(view.watermark.is_none());
        to.count(&metric::SOURCE_WITHOUT_WATERMARK, &labels, is_without);
    }
    if let Some(lag) = figures.lag {
        to.count(&metric::SOURCE_LAG, &labels, lag);
    }
    for (split, lag) in &figures.lags {
        to.count(&metric::SPLIT_LAG, &[name, source, split.as_str()], *lag);
    }
    // At the end of time nothing is behind any more.
    if let Some(watermark) = view.watermark.filter(|time| *time != EventTime::MAX) {
        to.set(&metric::SOURCE_WATERMARK, &labels, seconds(watermark.0));
        let delay = seconds(now.0.saturating_sub(watermark.0));
        to.set(&metric::SOURCE_WATERMARK_DELAY, &labels, delay);
    }
}

/// By who refused the rows and why: a source's decoder and its stage share a name.
fn rejects(figures: &JobFigures, to: &mut Exposition) {
    let mut rejected: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (source, of_source) in figures.view.sources.iter().zip(&figures.sources) {
        for (code, rows) in &of_source.rejects {
            *rejected.entry((&source.name, code)).or_default() += rows;
        }
    }
    for stage in &figures.view.stages {
        *rejected.entry((&stage.name, "expression")).or_default() += stage.failed;
    }
    for sink in &figures.view.sinks {
        *rejected.entry((&sink.name, "sink_rejected")).or_default() += sink.rows_refused;
    }
    let job = figures.view.name.as_str();
    for ((owner, code), rows) in rejected.into_iter().filter(|(_, rows)| *rows > 0) {
        to.count(&metric::REJECTED, &[job, owner, code], rows);
    }
}

fn stages(figures: &JobFigures, to: &mut Exposition) {
    let name = figures.view.name.as_str();
    for stage in &figures.view.stages {
        for (outcome, rows) in [
            ("received", stage.received),
            ("late", stage.late),
            ("duplicate", stage.duplicates),
            ("folded", stage.folded),
            ("failed", stage.failed),
            ("dropped", stage.dropped),
        ] {
            to.count(&metric::STAGE_ROWS, &[name, &stage.name, outcome], rows);
        }
    }
    for (stage, times) in &figures.stages {
        let labels = [name, stage.as_str()];
        to.set(&metric::STAGE_BUSY, &labels, times.busy_us as f64 / 1e6);
        let blocked = times.blocked_us as f64 / 1e6;
        to.set(&metric::STAGE_BLOCKED, &labels, blocked);
    }
}

/// Of a job that is over nothing is late, and nobody has to act: what its sinks lack waits until somebody submits it again.
fn sink(job: &str, sink: &SinkView, is_over: bool, to: &mut Exposition) {
    let labels = [job, sink.name.as_str()];
    to.count(&metric::SINK_EPOCH, &labels, sink.marker.0);
    to.count(&metric::SINK_ROWS, &labels, sink.rows_delivered);
    to.count(&metric::SINK_REFUSED, &labels, sink.rows_refused);
    to.count(&metric::SINK_DROPPED, &labels, sink.rows_dropped);
    to.count(&metric::SINK_LAG_EPOCHS, &labels, sink.lag_epochs);
    to.count(&metric::SINK_LAG_ROWS, &labels, sink.lag_rows);
    to.count(&metric::SINK_LAG_BYTES, &labels, sink.lag_bytes);
    let age_ms = sink.lag_age_ms.filter(|_| !is_over);
    let age = age_ms.unwrap_or_default() as f64 / 1e3;
    to.set(&metric::SINK_AGE, &labels, age);
    let quota = sink.quota.filter(|_| !is_over);
    let used = quota.map(|quota| quota.used);
    to.set_known(&metric::SINK_QUOTA, &labels, used);
    let is_troubled = sink.cause.is_some() && !is_over;
    to.count(&metric::SINK_TROUBLED, &labels, u64::from(is_troubled));
    to.count(&metric::SINK_PAUSED, &labels, u64::from(sink.paused));
}

fn storage(job: &JobView, to: &mut Exposition) {
    let Some(storage) = &job.storage else {
        return;
    };
    let name = job.name.as_str();
    for (kind, bytes) in [
        ("state", storage.state_bytes),
        ("segments", storage.segment_bytes),
        ("dead_letters", storage.dead_letter_bytes),
    ] {
        to.count(&metric::STORAGE, &[name, kind], bytes);
    }
    let dropped = storage.dead_letters_dropped;
    to.count(&metric::LETTERS_DROPPED, &[name], dropped);
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use millstream_common::control::JobState;

    use super::*;
    use crate::dashboard::tests::scene;
    use crate::job::figures::EpochPhases;

    fn scraped(view: JobView, keeps_time: bool) -> String {
        let source = SourceFigures {
            keeps_time,
            bytes_read: 0,
            splits: [0; 4],
            lag: None,
            lags: BTreeMap::new(),
            rejects: BTreeMap::new(),
        };
        let figures = JobFigures {
            view,
            sources: vec![source],
            stages: Vec::new(),
            phases: EpochPhases::default(),
            epoch_count: 0,
            epoch_age: None,
            state_parts: 0,
            state_bytes: 0,
        };
        let mut to = Exposition::default();
        job(&figures, EventTime(scene::NOW_US), &mut to);
        to.encode()
    }

    #[test]
    fn a_source_without_a_watermark_is_told_and_one_that_keeps_no_time_is_not() {
        let mut view = scene::job("clicks");
        let name = "millstream_source_without_watermark{job=\"clicks\",source=\"clicks\"}";
        let has = |view: &JobView, value: &str| {
            scraped(view.clone(), true).contains(&format!("{name} {value}"))
        };
        assert!(has(&view, "0.0"));
        view.sources[0].watermark = None;
        assert!(has(&view, "1.0"));
        assert!(!scraped(view.clone(), false).contains(name));
        view.state = JobState::Stopped;
        assert!(!scraped(view, true).contains(name));
    }

    #[test]
    fn what_a_sink_of_a_job_that_is_over_lacks_is_told_and_is_nobodys_alarm() {
        let mut view = scene::job("clicks");
        view.sinks[0].lag_age_ms = Some(400_000);
        view.sinks[0].lag_rows = 76;
        view.sinks[0].cause = Some("connection refused".to_owned());
        let labels = "{job=\"clicks\",sink=\"warehouse\"}";
        let lines = |age: &str, troubled: &str| {
            [
                format!("millstream_sink_lag_rows{labels} 76.0"),
                format!("millstream_sink_delivery_age_seconds{labels} {age}"),
                format!("millstream_sink_troubled{labels} {troubled}"),
            ]
        };
        let running = scraped(view.clone(), true);
        for line in lines("400.0", "1.0") {
            assert!(running.contains(&line), "{line}\n{running}");
        }
        view.state = JobState::Stopped;
        let stopped = scraped(view, true);
        for line in lines("0.0", "0.0") {
            assert!(stopped.contains(&line), "{line}\n{stopped}");
        }
    }
}
