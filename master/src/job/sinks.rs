//! The sinks of a job: how far behind each is, and what a person asks of them.
//!
//! Called by `job_actor.rs` and `view.rs`. A pause is an entry of the log and told to every generation, so it outlives workers, this
//! actor and its master. Failure: a name that no sink has is refused with the nearest, and so is a job that has ended.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::{ControlError, SinkCommand, SinkView};
use millstream_common::ids::{Epoch, SinkIndex};
use millstream_common::link::ToWorker;
use millstream_common::log::Entry;
use millstream_common::plan::{SinkPlan, SinkSpec};
use ractor::RpcReplyPort;
use tracing::info;

use super::job_actor::JobState;
use super::lag::{self, Lag};
use super::lifecycle::Handled;
use super::recorded::Recorded;

/// Times of commits that are kept to show how old what a sink lacks is.
const COMMIT_TIMES_MAX: usize = 4_096;

impl JobState {
    /// The sinks that do not hold the last committed epoch.
    pub(super) fn lagging_sinks(&self) -> Vec<String> {
        let sinks = self.entry.plan.sinks.iter().enumerate();
        let lagging = sinks.filter(|(index, _)| self.marker(*index) < self.progress.epoch);
        lagging.map(|(_, sink)| sink.name.clone()).collect()
    }

    pub(super) fn marker(&self, sink: usize) -> Epoch {
        self.progress.marker(SinkIndex(sink as u32))
    }

    pub(super) fn sink_views(&self) -> Vec<SinkView> {
        let sinks = self.entry.plan.sinks.iter().enumerate();
        sinks
            .map(|(index, sink)| self.sink_view(SinkIndex(index as u32), sink))
            .collect()
    }

    pub(super) fn sink_lag(&self, sink: SinkIndex) -> Lag {
        let output = self.entry.plan.sinks[sink.index()].output;
        lag::lag(&self.progress, output, self.marker(sink.index()))
    }

    pub(super) fn sink_view(&self, index: SinkIndex, sink: &SinkPlan) -> SinkView {
        let marker = self.marker(index.index());
        let lag = self.sink_lag(index);
        let placement = self
            .assignment
            .sinks
            .iter()
            .find(|placement| placement.sink == index);
        let trouble = self.observed.sink_causes.get(&index);
        let trouble = trouble.filter(|cause| !cause.is_empty()).cloned();
        let count_of = |counts: &BTreeMap<SinkIndex, u64>| counts.get(&index).copied();
        let rows_dropped =
            count_of(&self.progress.dropped).unwrap_or_default() + self.refusals.dropped_by(index);
        let now = self.clock.monotonic();
        let age = |moved: &Duration| now.saturating_sub(*moved).as_millis() as u64;
        SinkView {
            name: sink.name.clone(),
            connector: sink_connector(&sink.spec).to_owned(),
            relation: self.entry.plan.outputs[sink.output.index()]
                .relation
                .clone(),
            marker,
            retained_from: self.progress.oldest_of(sink.output),
            lag_epochs: lag.epoch_count,
            lag_rows: lag.row_count,
            lag_bytes: lag.bytes,
            lag_age_ms: lag.first.map(|first| self.age_ms(first)),
            paused: self.progress.paused_sinks.contains(&index),
            suspended: self.progress.suspended_sinks.contains(&index),
            quota: self.quota_view(index, &sink.quota),
            rows_delivered: lag::delivered(
                &self.progress,
                index,
                sink.output,
                lag.row_count,
                rows_dropped,
            ),
            rows_refused: count_of(&self.progress.refused).unwrap_or_default(),
            rows_dropped,
            delivered_age_ms: self.observed.sink_moved.get(&index).map(age),
            cause: self.suspension_cause(index, &sink.name).or(trouble),
            worker: placement.map(|placement| placement.worker.clone()),
        }
    }

    pub(super) fn age_ms(&self, epoch: Epoch) -> u64 {
        let times = &self.observed.commit_times;
        // The epoch's own time, or of one before it that was kept.
        let since = times.range(..=epoch).next_back().map(|(_, since)| since);
        let since = since.unwrap_or(&self.observed.begun);
        self.clock.monotonic().saturating_sub(*since).as_millis() as u64
    }

    /// A sink holds more than before, when it lacked so many rows.
    pub(super) fn observe_delivery(&mut self, sink: SinkIndex, lacked: u64) {
        let now = self.clock.monotonic();
        if self.sink_lag(sink).row_count < lacked {
            self.observed.sink_moved.insert(sink, now);
        }
        let markers = (0..self.entry.plan.sinks.len()).map(|sink| self.marker(sink));
        let held = markers.min().unwrap_or_default();
        self.observed.epochs.delivered(held, now);
    }

    /// Keeps the times of epochs that some sink lacks: of all of them, or evenly of some (INV-9).
    pub(super) fn observe_commit_time(&mut self, epoch: Epoch, now: Duration) {
        let markers = (0..self.entry.plan.sinks.len()).map(|sink| self.marker(sink));
        let held = markers.min().unwrap_or(epoch);
        let times = &mut self.observed.commit_times;
        times.insert(epoch, now);
        times.retain(|epoch, _| *epoch > held);
        if times.len() > COMMIT_TIMES_MAX {
            let mut is_kept = false;
            times.retain(|_, _| {
                is_kept = !is_kept;
                is_kept
            });
        }
    }

    pub(super) fn command_sink(
        &mut self,
        name: &str,
        command: SinkCommand,
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    ) -> Handled {
        let sink = match self.running_sink(name) {
            Ok(sink) => sink,
            Err(refused) => return self.answer(reply, |_| Err(refused)),
        };
        let entry = Entry::SinkCommanded {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            sink,
            command,
            by_quota: false,
        };
        let recorded = Recorded::SinkCommanded {
            sink,
            command,
            reply: Some(reply),
        };
        self.append(entry, recorded)
    }

    /// The sink of that name, of a job that has not ended.
    pub(super) fn running_sink(&self, name: &str) -> Result<SinkIndex, ControlError> {
        let sinks = &self.entry.plan.sinks;
        let Some(index) = sinks.iter().position(|sink| sink.name == name) else {
            let names: Vec<String> = sinks.iter().map(|sink| sink.name.clone()).collect();
            return Err(unknown(self, name, &names));
        };
        match self.is_over() {
            true => Err(ControlError::NotRunning {
                name: self.entry.job.to_string(),
                state: self.view().state.to_string(),
            }),
            false => Ok(SinkIndex(index as u32)),
        }
    }

    /// It is in the log: from here on it holds, and the person may know.
    pub(super) fn sink_commanded(
        &mut self,
        sink: SinkIndex,
        command: SinkCommand,
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    ) -> Handled {
        self.progress.command_sink(sink, command, false);
        let plan = self.entry.plan.sinks[sink.index()].clone();
        info!(job = %self.entry.job, sink = plan.name, ?command, "command sink");
        self.tell_of(sink, command)?;
        self.answer(reply, |state| Ok(state.sink_view(sink, &plan)))
    }

    /// The last master may have recorded what it did not come to tell.
    pub(super) fn repeat_commands(&mut self) -> Handled {
        for sink in 0..self.entry.plan.sinks.len() {
            let sink = SinkIndex(sink as u32);
            let command = match self.progress.paused_sinks.contains(&sink) {
                true => SinkCommand::Pause,
                false => SinkCommand::Resume,
            };
            self.tell_of(sink, command)?;
        }
        Ok(())
    }

    /// Tells the running generation what holds for a sink. One that was sent back since it began stays paused in it: its deliverer knows nothing of the
    /// way back, and what it delivered now, the next one would deliver again.
    fn tell_of(&mut self, sink: SinkIndex, command: SinkCommand) -> Handled {
        let is_going_back = self.progress.is_going_back(sink, self.generation);
        if command == SinkCommand::Resume && is_going_back {
            return Ok(());
        }
        self.send_all(&ToWorker::CommandSink(self.at(), sink, command))
    }
}

fn unknown(state: &JobState, name: &str, names: &[String]) -> ControlError {
    let job = &state.entry.job;
    let known = names.iter().map(String::as_str);
    ControlError::Invalid(match millstream_common::suggest::nearest(name, known) {
        Some(nearest) => format!("job {job} has no sink {name}, did you mean {nearest}?"),
        None => format!("job {job} has no sink {name}; it has {}", names.join(", ")),
    })
}

fn sink_connector(spec: &SinkSpec) -> &'static str {
    match spec {
        SinkSpec::Postgres(_) => "postgres",
        SinkSpec::Files(_) => "files",
        SinkSpec::Kafka(_) => "kafka",
        SinkSpec::Console(_) => "console",
        SinkSpec::Blackhole => "blackhole",
    }
}
