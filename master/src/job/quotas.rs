//! The quotas of a job's sinks: judged behind each barrier and whenever a sink has moved, and acted upon.
//!
//! Called by `commit.rs`, `lifecycle.rs` and `sinks.rs`; `quota.rs` decides. Backpressure takes the way of a move to other workers: a last
//! barrier ends the generation, its epoch is committed, and the next generation is built with its sinks but its readers are not
//! started until the sink has caught up. So what waits stops growing at a recorded epoch, nothing is read twice, and a loss or another
//! master meanwhile ends where it began: with tasks that are built, and judged before they are started. Barriers go on meanwhile, and
//! find nothing. A suspension is an entry of the log, like a pause. Failure: none of its own.

use std::collections::BTreeMap;

use millstream_common::control::{QuotaView, SinkCommand};
use millstream_common::ids::SinkIndex;
use millstream_common::link::ToWorker;
use millstream_common::log::Entry;
use millstream_common::plan::{OnQuota, SinkQuota};
use tracing::{info, warn};

use super::job_actor::{JobState, Phase};
use super::lifecycle::Handled;
use super::quota::{self, Standing};
use super::recorded::Recorded;

/// How the sinks of a job stand to their quotas, and what was done about it.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    standings: BTreeMap<SinkIndex, Standing>,
    /// Suspensions on their way into the log.
    suspending: Vec<SinkIndex>,
    /// Readers of the running generation wait to be started.
    pub(super) is_held: bool,
}

impl JobState {
    /// Looks how every sink stands, and does what its quota says.
    pub(super) fn judge_quotas(&mut self) -> Handled {
        for index in 0..self.entry.plan.sinks.len() {
            self.judge_quota(SinkIndex(index as u32))?;
        }
        if self.quotas.is_held && self.held_back_by().is_none() {
            return self.release();
        }
        Ok(())
    }

    fn judge_quota(&mut self, sink: SinkIndex) -> Handled {
        let plan = &self.entry.plan.sinks[sink.index()];
        let Some(view) = self.quota_view(sink, &plan.quota) else {
            return Ok(());
        };
        let before = self.quotas.standings.get(&sink).copied();
        let before = before.unwrap_or_default();
        let now = quota::standing(view.used, before);
        self.quotas.standings.insert(sink, now);
        if now > before {
            warn!(
                job = %self.entry.job, sink = plan.name, policy = %view.quota.policy,
                "{} of the sink's quota is used up", percent(view.used)
            );
        }
        if now == Standing::Within {
            // Whoever folds the log believes that it is excused until it has looked as well.
            self.progress.excused_sinks.remove(&sink);
        }
        let is_paused = self.progress.paused_sinks.contains(&sink);
        let is_excused = self.progress.excused_sinks.contains(&sink);
        let is_under_way = self.quotas.suspending.contains(&sink) || self.is_over();
        if is_under_way || !quota::suspends(view.quota.policy, now, is_paused, is_excused) {
            return Ok(());
        }
        self.quotas.suspending.push(sink);
        let command = SinkCommand::Pause;
        let entry = Entry::SinkCommanded {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            sink,
            command,
            by_quota: true,
        };
        let recorded = Recorded::SinkCommanded {
            sink,
            command,
            reply: None,
        };
        self.append(entry, recorded)
    }

    /// A suspension is in the log: from here on it holds.
    pub(super) fn suspended(&mut self, sink: SinkIndex) -> Handled {
        self.quotas.suspending.retain(|other| *other != sink);
        let command = SinkCommand::Pause;
        self.progress.command_sink(sink, command, true);
        let name = &self.entry.plan.sinks[sink.index()].name;
        warn!(job = %self.entry.job, sink = name, "suspend sink: its quota is used up");
        self.send_all(&ToWorker::CommandSink(self.at(), sink, command))
    }

    /// The sink that sources have to wait for.
    fn held_back_by(&self) -> Option<&str> {
        let mut sinks = self.entry.plan.sinks.iter().enumerate();
        let holds = |index: usize, policy: OnQuota| {
            let standing = self.quotas.standings.get(&SinkIndex(index as u32));
            quota::holds_back(policy, standing.copied().unwrap_or_default())
        };
        let holder = sinks.find(|(index, sink)| holds(*index, sink.quota.policy));
        holder.map(|(_, sink)| sink.name.as_str())
    }

    /// Readers read although they should not: the next barrier is the last of their generation.
    pub(super) fn is_to_be_held(&self) -> bool {
        !self.quotas.is_held && self.held_back_by().is_some()
    }

    /// The tasks are built: starts the readers, unless they have to wait.
    pub(super) fn start_readers(&mut self) -> Handled {
        self.judge_quotas()?;
        self.quotas.is_held = self.held_back_by().is_some();
        if let Some(sink) = self.held_back_by() {
            info!(job = %self.entry.job, sink, "reading waits for a sink");
            return Ok(());
        }
        self.send_all(&ToWorker::Start(self.at()))?;
        self.give_new_splits()
    }

    /// Another master may have built the tasks without starting the readers, and here the sink may have caught up: whoever reads
    /// already obeys once. Readers that should wait are held behind the next barrier.
    pub(super) fn start_held_readers(&mut self) -> Handled {
        self.judge_quotas()?;
        match self.held_back_by() {
            None => self.send_all(&ToWorker::Start(self.at())),
            Some(_) => Ok(()),
        }
    }

    fn release(&mut self) -> Handled {
        self.quotas.is_held = false;
        if !matches!(self.phase, Phase::Running) {
            return Ok(());
        }
        info!(job = %self.entry.job, epoch = %self.progress.epoch, "reading goes on");
        self.send_all(&ToWorker::Start(self.at()))?;
        self.give_new_splits()
    }

    /// Why nothing is read, if that is because of a sink.
    pub(super) fn quota_cause(&self) -> Option<String> {
        let sink = self.held_back_by()?;
        Some(format!(
            "reading waits for sink {sink}, which has used up its quota, until it has caught up to {} of it",
            percent(quota::NEAR)
        ))
    }

    /// Why a sink is suspended, if it is because of its quota.
    pub(super) fn suspension_cause(&self, sink: SinkIndex, name: &str) -> Option<String> {
        let is_suspended = self.progress.suspended_sinks.contains(&sink);
        is_suspended.then(|| {
            format!(
                "suspended: its quota is used up; what it lacks is kept until `millstream sink resume {} {name}`",
                self.entry.job
            )
        })
    }

    /// How much of its quota a sink has used up, if it has one.
    pub(super) fn quota_view(&self, sink: SinkIndex, quota: &SinkQuota) -> Option<QuotaView> {
        let lag = self.sink_lag(sink);
        let age_ms = lag.first.map(|first| self.age_ms(first));
        let used = quota::used(quota, &lag, age_ms)?;
        Some(QuotaView {
            quota: *quota,
            used,
        })
    }
}

/// `83 %`.
fn percent(share: f64) -> String {
    format!("{} %", (share * 100.0).floor())
}
