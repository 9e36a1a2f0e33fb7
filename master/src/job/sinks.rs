//! The sinks of a job: how far behind each is, and what a person asks of them.
//!
//! Called by `job_actor.rs` and `view.rs`. A pause is an entry of the log and told to every generation, so it outlives workers, this
//! actor and its master. Failure: a name that no sink has is refused with the nearest, and so is a job that has ended.

use std::time::Duration;

use millstream_common::control::{ControlError, SinkCommand, SinkView};
use millstream_common::ids::{Epoch, OutputIndex, SinkIndex};
use millstream_common::link::ToWorker;
use millstream_common::log::Entry;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::plan::{SinkPlan, SinkSpec};
use ractor::RpcReplyPort;
use tracing::info;

use super::job_actor::JobState;
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
        self.sink_markers
            .get(&SinkIndex(sink as u32))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn sink_views(&self) -> Vec<SinkView> {
        let sinks = self.entry.plan.sinks.iter().enumerate();
        sinks
            .map(|(index, sink)| self.sink_view(SinkIndex(index as u32), sink))
            .collect()
    }

    fn sink_view(&self, index: SinkIndex, sink: &SinkPlan) -> SinkView {
        let marker = self.marker(index.index());
        let waiting: Vec<&CommittedEpoch> = self
            .progress
            .undelivered
            .iter()
            .filter(|epoch| epoch.epoch > marker)
            .collect();
        let segments = waiting.iter().flat_map(|epoch| &epoch.segments);
        let own = segments.filter(|segment| segment.output == sink.output);
        let put_away = self.put_away_lag(sink.output, marker);
        let (lag_rows, lag_bytes) = own.fold(
            (put_away.row_count, put_away.bytes),
            |(rows, bytes), segment| (rows + segment.row_count, bytes + segment.bytes),
        );
        let placement = self
            .assignment
            .sinks
            .iter()
            .find(|placement| placement.sink == index);
        let cause = self.observed.sink_causes.get(&index);
        let delivered = self.observed.sink_rows.get(&index).copied();
        let now = self.clock.monotonic();
        let age = |moved: &Duration| now.saturating_sub(*moved).as_millis() as u64;
        SinkView {
            name: sink.name.clone(),
            connector: sink_connector(&sink.spec).to_owned(),
            relation: self.entry.plan.outputs[sink.output.index()]
                .relation
                .clone(),
            marker,
            lag_epochs: put_away.epoch_count + waiting.len() as u64,
            lag_rows,
            lag_bytes,
            lag_age_ms: put_away
                .first
                .or(waiting.first().map(|first| first.epoch))
                .map(|first| self.age_ms(first)),
            paused: self.progress.paused_sinks.contains(&index),
            rows_delivered: delivered.unwrap_or_default(),
            rows_refused: self
                .progress
                .refused
                .get(&index)
                .copied()
                .unwrap_or_default(),
            delivered_age_ms: self.observed.sink_moved.get(&index).map(age),
            cause: cause.filter(|cause| !cause.is_empty()).cloned(),
            worker: placement.map(|placement| placement.worker.clone()),
        }
    }

    /// What a sink lacks of the epochs that are put away. Of a part that its marker lies in, a share by numbers of epochs.
    fn put_away_lag(&self, output: OutputIndex, marker: Epoch) -> PutAwayLag {
        let mut lag = PutAwayLag::default();
        let parts = self.progress.backlog.iter();
        for part in parts.filter(|part| part.last > marker) {
            let lacked = part.last.0 - marker.max(part.parent).0;
            let share = lacked as f64 / (part.last.0 - part.parent.0) as f64;
            let of = |count: u64| (count as f64 * share).ceil() as u64;
            let sum = part.outputs.get(&output).copied().unwrap_or_default();
            lag.first.get_or_insert(marker.max(part.parent).next());
            lag.epoch_count += of(part.epoch_count);
            lag.row_count += of(sum.row_count);
            lag.bytes += of(sum.bytes);
        }
        lag
    }

    fn age_ms(&self, epoch: Epoch) -> u64 {
        let times = &self.observed.commit_times;
        // The epoch's own time, or of one before it that was kept.
        let since = times.range(..=epoch).next_back().map(|(_, since)| since);
        let since = since.unwrap_or(&self.observed.begun);
        self.clock.monotonic().saturating_sub(*since).as_millis() as u64
    }

    /// A sink holds more than before.
    pub(super) fn observe_delivery(&mut self, sink: SinkIndex, row_count: u64) {
        let now = self.clock.monotonic();
        *self.observed.sink_rows.entry(sink).or_default() += row_count;
        if row_count > 0 {
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
        let sinks = &self.entry.plan.sinks;
        let Some(index) = sinks.iter().position(|sink| sink.name == name) else {
            let names: Vec<String> = sinks.iter().map(|sink| sink.name.clone()).collect();
            return self.answer(reply, |state| Err(unknown(state, name, &names)));
        };
        if self.is_over() {
            return self.answer(reply, |state| {
                Err(ControlError::NotRunning {
                    name: state.entry.job.to_string(),
                    state: state.view().state.to_string(),
                })
            });
        }
        let sink = SinkIndex(index as u32);
        let entry = Entry::SinkCommanded {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            sink,
            command,
        };
        let recorded = Recorded::SinkCommanded {
            sink,
            command,
            reply,
        };
        self.append(entry, recorded)
    }

    /// It is in the log: from here on it holds, and the person may know.
    pub(super) fn sink_commanded(
        &mut self,
        sink: SinkIndex,
        command: SinkCommand,
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    ) -> Handled {
        self.progress.command_sink(sink, command);
        let plan = self.entry.plan.sinks[sink.index()].clone();
        info!(job = %self.entry.job, sink = plan.name, ?command, "command sink");
        self.send_all(&ToWorker::CommandSink(self.at(), sink, command))?;
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
            self.send_all(&ToWorker::CommandSink(self.at(), sink, command))?;
        }
        Ok(())
    }
}

/// What a sink lacks of the epochs that are put away.
#[derive(Debug, Default)]
struct PutAwayLag {
    first: Option<Epoch>,
    epoch_count: u64,
    row_count: u64,
    bytes: u64,
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
