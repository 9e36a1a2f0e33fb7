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
use millstream_common::mutant::{self, Mutant};
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
    /// Sinks that have caught up and are excused no longer, once that is in the log.
    caught_up: Vec<SinkIndex>,
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
        let is_paused = self.progress.paused_sinks.contains(&sink);
        let is_excused = self.progress.excused_sinks.contains(&sink);
        if now == Standing::Within && is_excused && !self.is_said_by_quota(sink) {
            self.quotas.caught_up.push(sink);
            return self.say_by_quota(sink, SinkCommand::Resume);
        }
        // Once nothing is read any more the job only waits for its sinks, and would wait for ever.
        let is_ending = matches!(self.phase, Phase::Delivering(_));
        let suspends = quota::suspends(view.quota.policy, now, is_paused, is_excused);
        if !suspends || is_ending || self.is_said_by_quota(sink) {
            return Ok(());
        }
        self.quotas.suspending.push(sink);
        self.say_by_quota(sink, SinkCommand::Pause)
    }

    /// Whether something is on its way into the log behind which the sink has to be looked at again.
    fn is_said_by_quota(&self, sink: SinkIndex) -> bool {
        let said = &self.quotas;
        let is_said = said.suspending.contains(&sink) || said.caught_up.contains(&sink);
        is_said || self.is_rewind_under_way(sink) || self.is_over()
    }

    fn say_by_quota(&self, sink: SinkIndex, command: SinkCommand) -> Handled {
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

    /// What the quota says of a sink is in the log: from here on it holds.
    pub(super) fn said_by_quota(&mut self, sink: SinkIndex, command: SinkCommand) -> Handled {
        match command {
            SinkCommand::Pause => self.suspended(sink),
            SinkCommand::Resume => {
                self.quotas.caught_up.retain(|other| *other != sink);
                self.progress.command_sink(sink, command, true);
                Ok(())
            }
        }
    }

    fn suspended(&mut self, sink: SinkIndex) -> Handled {
        self.quotas.suspending.retain(|other| *other != sink);
        let command = SinkCommand::Pause;
        self.progress.command_sink(sink, command, true);
        let name = &self.entry.plan.sinks[sink.index()].name;
        warn!(job = %self.entry.job, sink = name, "suspend sink: its quota is used up");
        self.send_all(&ToWorker::CommandSink(self.at(), sink, command))
    }

    /// The sink that sources have to wait for.
    fn held_back_by(&self) -> Option<(SinkIndex, &str)> {
        let sinks = self.entry.plan.sinks.iter().enumerate();
        let mut sinks = sinks.map(|(index, sink)| (SinkIndex(index as u32), sink));
        let holds = |sink: &SinkIndex, policy: OnQuota| {
            let standing = self.quotas.standings.get(sink).copied();
            let is_excused = self.progress.excused_sinks.contains(sink);
            quota::holds_back(policy, standing.unwrap_or_default(), is_excused)
        };
        let holder = sinks.find(|(index, sink)| holds(index, sink.quota.policy));
        holder.map(|(index, sink)| (index, sink.name.as_str()))
    }

    /// Readers read although they should not: the next barrier is the last of their generation.
    pub(super) fn is_to_be_held(&self) -> bool {
        !self.quotas.is_held && self.held_back_by().is_some() && !mutant::is(Mutant::ReadOverQuota)
    }

    /// The tasks are built: starts the readers, unless they have to wait.
    pub(super) fn start_readers(&mut self) -> Handled {
        self.judge_quotas()?;
        let holder = self.held_back_by();
        let holder = holder.filter(|_| !mutant::is(Mutant::ReadOverQuota));
        let held = holder.map(|(_, sink)| sink.to_owned());
        self.quotas.is_held = held.is_some();
        if let Some(sink) = held {
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
        if mutant::is(Mutant::LeaveReadersHeld) {
            return Ok(());
        }
        self.send_all(&ToWorker::Start(self.at()))?;
        self.give_new_splits()
    }

    /// Why nothing is read, if that is because of a sink.
    pub(super) fn quota_cause(&self) -> Option<String> {
        let (index, sink) = self.held_back_by()?;
        let waits = format!(
            "reading waits for sink {sink}, which has used up its quota, until it has caught up to {} of it",
            percent(quota::NEAR)
        );
        Some(match self.progress.paused_sinks.contains(&index) {
            true => format!(
                "{waits}; it is paused: `millstream sink resume {} {sink}`",
                self.entry.job
            ),
            false => waits,
        })
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
        if quota.is_unbounded() {
            return None;
        }
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
