//! The paces of sinks, as the ledger sees them: who is paused, and who has used up a quota.
//!
//! A sink that the log pauses, a person's way or by its quota, gets nothing from a deliverer of a later assignment until the log resumes it.
//! Where sources are to wait for a sink, what it lacks grows by no more than the epoch that is under way when its quota is used up (INV-9). Only
//! the policy that the job chose acts. Failure: as in `ledger.rs`.

use std::collections::BTreeMap;

use millstream_common::control::SinkCommand;
use millstream_common::ids::{Epoch, OutputIndex, Seq, SinkIndex, Token};
use millstream_common::log::entry::EpochEntry;
use millstream_common::plan::{JobPlan, OnQuota, SinkQuota};

use super::ledger::{Chain, Ledger};

/// Epochs with rows that may be committed while sources should wait: the one under way, and one of readers that another master found running.
const EPOCHS_OVER_MAX: u32 = 2;

/// The sinks of one life.
#[derive(Default)]
pub(crate) struct Pace {
    sinks: Vec<Paced>,
    /// Where the log pauses those that are paused.
    paused_at: BTreeMap<SinkIndex, Seq>,
    /// Epochs with rows in a row, while sources should wait.
    over_count: u32,
}

struct Paced {
    name: String,
    output: OutputIndex,
    quota: SinkQuota,
}

impl Pace {
    /// The job is this one.
    pub(super) fn set(&mut self, plan: &JobPlan) {
        let sinks = plan.sinks.iter().map(|sink| Paced {
            name: sink.name.clone(),
            output: sink.output,
            quota: sink.quota,
        });
        self.sinks = sinks.collect();
    }

    /// Readers begin anew.
    pub(super) fn assigned(&mut self) {
        self.over_count = 0;
    }

    /// The sink of that name.
    pub(super) fn sink(&self, name: &str) -> Option<SinkIndex> {
        let place = self.sinks.iter().position(|sink| sink.name == name);
        place.map(|place| SinkIndex(place as u32))
    }
}

impl Chain {
    /// A sink is told something by the log; what is wrong with that.
    pub(super) fn commanded(
        &mut self,
        at: Seq,
        sink: SinkIndex,
        command: SinkCommand,
        by_quota: bool,
    ) -> Option<String> {
        self.progress.command_sink(sink, command, by_quota);
        match self.progress.paused_sinks.contains(&sink) {
            true => {
                self.pace.paused_at.entry(sink).or_insert(at);
            }
            false => {
                self.pace.paused_at.remove(&sink);
            }
        }
        let paced = self.pace.sinks.get(sink.index())?;
        let suspends = by_quota && command == SinkCommand::Pause;
        (suspends && paced.quota.policy != OnQuota::Suspend).then(|| {
            format!(
                "sink {} is suspended, which its job did not choose",
                paced.name
            )
        })
    }

    /// What is wrong with an epoch that is committed now, seen from how far behind sinks are.
    pub(super) fn check_pace(&mut self, entry: &EpochEntry) -> Option<String> {
        let read: u64 = entry.counters.values().map(|counters| counters.read).sum();
        let spent = self.spent();
        match (&spent, read) {
            (Some(_), 1..) => self.pace.over_count += 1,
            _ => self.pace.over_count = 0,
        }
        let spent = spent.filter(|_| self.pace.over_count > EPOCHS_OVER_MAX)?;
        Some(format!(
            "rows are read on, and sources should wait for sink {spent}"
        ))
    }

    /// A sink that has used up its bytes and that sources have to wait for.
    fn spent(&self) -> Option<String> {
        let mut sinks = self.pace.sinks.iter().enumerate();
        let spent = sinks.find(|(index, sink)| {
            let is_excused = self
                .progress
                .excused_sinks
                .contains(&SinkIndex(*index as u32));
            let bound = sink.quota.bytes.unwrap_or(u64::MAX);
            let waits = sink.quota.policy == OnQuota::Backpressure && !is_excused;
            waits && self.lacked_bytes(sink) >= bound
        });
        spent.map(|(_, sink)| sink.name.clone())
    }

    fn lacked_bytes(&self, sink: &Paced) -> u64 {
        let marker: Epoch = self.markers.get(&sink.name).copied().unwrap_or_default();
        let segments = self.segments.values();
        let lacked = segments.filter(|kept| kept.output == sink.output && kept.epoch > marker);
        lacked.map(|kept| kept.bytes).sum()
    }
}

impl Ledger {
    /// A sink takes rows from the deliverer with that token.
    pub(super) fn check_paused(&mut self, sink: &str, key: &str, token: Token) {
        let Some(chain) = self.chains.get(key) else {
            return;
        };
        let index = chain.pace.sink(sink);
        let paused_at = index.and_then(|index| chain.pace.paused_at.get(&index));
        let is_later = paused_at.is_some_and(|at| token.0 > at.0);
        if is_later {
            let what = format!("sink {sink} is paused, and takes rows of token {token}");
            self.violated("pause", what);
        }
    }
}
