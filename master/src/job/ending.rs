//! What a job that reads no more still waits for: a sink that holds too little, and why it takes nothing.
//!
//! Called by `view.rs`. A job ends when every sink holds its last epoch, and nothing that a sink lacks is ever dropped: so one that is
//! suspended or paused keeps a bounded job from its end until a person says that it may go on, and that has to be said in words. Cannot fail.

use millstream_common::ids::SinkIndex;
use millstream_common::log::entry::JobEnd;

use super::job_actor::{JobState, Phase};

impl JobState {
    /// Why it has not ended yet, if that is because of a sink which takes nothing.
    pub(super) fn ending_cause(&self) -> Option<String> {
        let Phase::Delivering(end) = &self.phase else {
            return None;
        };
        let sinks = (0..self.entry.plan.sinks.len()).map(|sink| SinkIndex(sink as u32));
        let lagging = sinks.filter(|sink| self.progress.marker(*sink) < self.progress.epoch);
        let hindered: Vec<(SinkIndex, String)> = lagging
            .filter_map(|sink| Some((sink, self.hindrance(sink)?)))
            .collect();
        let is_paused = |sink: &SinkIndex| self.progress.paused_sinks.contains(sink);
        // Trouble may pass by itself; a pause does not.
        let first = hindered.iter().find(|(sink, _)| is_paused(sink));
        let (sink, hindrance) = first.or(hindered.first())?;
        let name = &self.entry.plan.sinks[sink.index()].name;
        let waits = match end {
            JobEnd::Stopped => "the job stops once every sink holds the last epoch, or in 30 s",
            JobEnd::Finished | JobEnd::Failed { .. } => {
                "everything is read, and the job ends once every sink holds it"
            }
        };
        Some(format!("{waits}: sink {name} {hindrance}"))
    }

    /// Why a sink takes nothing.
    fn hindrance(&self, sink: SinkIndex) -> Option<String> {
        let plan = &self.entry.plan.sinks[sink.index()];
        let resume = format!("`millstream sink resume {} {}`", self.entry.job, plan.name);
        let is_suspended = self.progress.suspended_sinks.contains(&sink);
        if self.progress.paused_sinks.contains(&sink) {
            return Some(match is_suspended {
                true => format!("is suspended, for its quota was used up: {resume}"),
                false => format!("is paused: {resume}"),
            });
        }
        let trouble = self.observed.sink_causes.get(&sink);
        let trouble = trouble.filter(|cause| !cause.is_empty())?;
        Some(format!("does not take it yet: {trouble}"))
    }
}
